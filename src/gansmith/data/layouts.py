"""Pixels in any layout and number format, as uint8 (N, H, W, C)."""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gansmith.errors import DataError

BLACK_AND_WHITE = "its numbers are 0 and 1, which are taken for black and white"
_LOOKS = 256  # images by which the order of numbers is decided
_CLEARLY = 0.9  # times as rough: noise differs by a few hundredths


def span_of(images: NDArray[Any]) -> tuple[float, float]:
    """Return the smallest and the largest value; (0, 0) of no images."""
    return (float(images.min()), float(images.max())) if images.size else (0.0, 0.0)


def range_in_words(images: NDArray[Any]) -> tuple[str, ...]:
    """Return which range numbers were taken to have, as a sentence; nothing for numbers up to 255."""
    low, high = span_of(images)
    if images.dtype.kind == "f" and high <= 1.001:
        return (f"its floats, {low:.3g} to {high:.3g}, are taken to be in {'[-1, 1]' if low < -0.001 else '[0, 1]'}",)
    return (BLACK_AND_WHITE,) if images.dtype.kind in "iu" and high == 1 else ()


def as_bytes(images: NDArray[Any], source: str, *, span: tuple[float, float] | None = None) -> NDArray[np.uint8]:
    """Return pixels as uint8.

    Whole numbers of which none is above 1 are black and white.

    Args:
        span: smallest and largest value of the set that these are a part of; their own where None.
    """
    if images.dtype.kind not in "biuf" or not images.size and images.dtype != np.uint8:
        raise DataError(f"{source} holds {images.dtype} {images.shape}; images are whole numbers or floats")
    if images.dtype.kind == "b":
        return images.astype(np.uint8) * np.uint8(255)
    low, high = span_of(images)
    if not math.isfinite(low) or not math.isfinite(high):
        raise DataError(f"{source} holds non-finite numbers; images are whole numbers from 0 to 255, or finite floats")
    low, high = (low, high) if span is None else (min(low, span[0]), max(high, span[1]))
    if images.dtype.kind == "f" and -1.001 <= low and high <= 1.001:
        scaled = (images + 1) * 127.5 if low < -0.001 else images * 255.0
        return np.asarray(np.clip(np.rint(scaled), 0, 255), np.uint8)
    if low < 0 or high > 255:
        raise DataError(f"{source} holds numbers from {low:g} to {high:g}; images are 0 to 255, or floats in [-1, 1]")
    if images.dtype.kind != "f" and high == 1:
        return images.astype(np.uint8) * np.uint8(255)
    return images if images.dtype == np.uint8 else np.asarray(np.rint(images), np.uint8)


def as_nhwc(images: NDArray[np.uint8], source: str, *, is_channels_last: bool | None = None) -> NDArray[np.uint8]:
    """Return images of any layout as (N, H, W, C), C 1, 3 or 4.

    Args:
        is_channels_last: of flat images of three channels; decided by `are_channels_last` where None.
    """
    shape = images.shape
    if images.ndim == 2:
        side, channels = square(shape[1])
        if not side:
            raise DataError(f"{source} holds rows of {shape[1]} numbers, which are no square images")
        if channels == 1:
            return images.reshape(-1, side, side, 1)
        if are_channels_last(images) if is_channels_last is None else is_channels_last:
            return images.reshape(-1, side, side, 3)
        return images.reshape(-1, 3, side, side).transpose(0, 2, 3, 1)
    if images.ndim == 3:
        return images[..., None]
    if images.ndim == 4 and shape[3] in (1, 3, 4):
        return images
    if images.ndim == 4 and shape[1] in (1, 3, 4):
        return images.transpose(0, 2, 3, 1)
    raise DataError(f"{source} holds an array of shape {shape}; images are (N, H, W), (N, H, W, C) or (N, C, H, W)")


def are_channels_last(rows: NDArray[Any]) -> bool:
    """Return whether flat images of three channels are stored (H, W, C), in which they are clearly smoother."""
    some = rows[:: max(1, len(rows) // _LOOKS)][:_LOOKS].astype(np.float64)
    side = square(rows.shape[1])[0]
    return _roughness(some.reshape(-1, side, side * 3)) < _CLEARLY * _roughness(some.reshape(-1, 3 * side, side))


def order_in_words(images: NDArray[Any]) -> tuple[str, ...]:
    """Return in which order flat images of three channels were taken, as a sentence; nothing for other images."""
    if images.ndim != 2 or not len(images) or square(images.shape[1])[1] != 3:
        return ()
    order = "pixel by pixel (H, W, C)" if are_channels_last(images) else "channel by channel (C, H, W)"
    return (f"its flat images of three channels are taken {order}",)


def _roughness(images: NDArray[np.float64]) -> float:
    """Return the mean difference between a value and the one below it, of (N, rows, values in a row).

    The one beside it would not do: of grey pixels stored as three equal numbers it hardly differs in either order.
    """
    steps = np.abs(np.diff(images, axis=1))
    return float(steps.mean()) if steps.size else 0.0


def square(count: int) -> tuple[int, int]:
    """Return the side and the channels of images with so many numbers; (0, 0) where there are none such."""
    for channels in (1, 3):
        side = math.isqrt(count // channels)
        if side and side * side * channels == count:
            return side, channels
    return 0, 0
