"""Pixels in any layout and number format, as uint8 (N, H, W, C)."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gansmith.errors import DataError
from gansmith.flat_images import are_channels_last, square

_CHANNELS = (1, 3, 4)
_MIN_SIDE = 8  # of one image in color, as against narrow grey ones
_OVERSHOOT = 0.25  # beyond 0, 1 or -1, which interpolation and filters add to floats
_NEARLY_WHITE = 0.75  # what floats reach that are in [0, 1] with a few below 0, and not in [-1, 1]
_ROUNDING = 0.001
_NEAR_HALF = 0.01  # of -0.5 and 0.5, where both ends lie as near: images less their middle grey, and not [-1, 1]
# Largest numbers of scales other than 0 to 255: of 4 to 7 bits, counts of 16 as in UCI's digits, and per cent.
_SCALES = (15, 16, 31, 63, 100, 127)
INVISIBLE = 16  # of 255: where images reach no more, those of 0 to 255 would show nothing
_MIN_SCALED = 32  # images from which a scale is known
_DIM = 128  # of 255: where images reach less, it is said


@dataclass(frozen=True)
class Range:
    """Which numbers of a set stand for black and for white.

    Attributes:
        notice: a sentence on it; empty for 0 to 255.
    """

    black: float = 0.0
    white: float = 255.0
    notice: str = ""

    def covers(self, span: tuple[float, float]) -> bool:
        """Return whether the numbers of another part of the set may be taken alike: few lie beyond black and white."""
        beyond = _OVERSHOOT * (self.white - self.black)
        return self.black - beyond <= span[0] and span[1] <= self.white + beyond


def span_of(images: NDArray[Any]) -> tuple[float, float]:
    """Return the smallest and the largest value; (0, 0) of no images."""
    return (float(images.min()), float(images.max())) if images.size else (0.0, 0.0)


def scale_of(images: NDArray[Any]) -> float:
    """Return the number that is white in a set of whole numbers from 0: 255, or the end of another common scale.

    Dark images of 0 to 255 must not be taken for such: at least half of all numbers up to the largest occur, and half
    of the images reach it, as those that were rounded to this scale do; where it is 15 or 16, dark ones would be black.
    """
    low, high = span_of(images) if images.dtype.kind in "iuf" else (0.0, 0.0)
    if low != 0 or high not in _SCALES or images.ndim < 2 or len(images) < _MIN_SCALED:
        return 255.0
    flat = images.reshape(len(images), -1)
    values = np.unique(flat)
    is_dense = 2 * len(values) > high and bool((values == np.rint(values)).all())
    is_reached = 2 * int((flat.max(axis=1) == high).sum()) >= len(flat)
    return high if is_dense and (is_reached or high <= INVISIBLE) else 255.0


def range_of(
    images: NDArray[Any], source: str, *, span: tuple[float, float] | None = None, scale: float = 255.0
) -> Range:
    """Return which numbers of images are black and white.

    Whole numbers of which none is above 1 are black and white. Floats up to about 1 are in [0, 1], or in [-1, 1] where
    some are clearly below 0, or in [-0.5, 0.5] where they reach both and end there; what lies slightly beyond is
    clipped. Raises DataError for other numbers.

    Args:
        span: smallest and largest value of the set that these are a part of; their own where None.
        scale: white of the set as `scale_of` returns it.
    """
    kind = images.dtype.kind
    if kind not in "biuf" or not images.size and images.dtype != np.uint8:
        raise DataError(f"{source} holds {images.dtype} {images.shape}; images are whole numbers or floats")
    if kind == "b":
        return Range(0.0, 1.0)
    low, high = span_of(images)
    if not math.isfinite(low) or not math.isfinite(high):
        raise DataError(f"{source} holds non-finite numbers; images are whole numbers from 0 to 255, or finite floats")
    low, high = (low, high) if span is None else (min(low, span[0]), max(high, span[1]))
    if kind == "f" and max(abs(low + 0.5), abs(high - 0.5)) < _NEAR_HALF:
        return Range(-0.5, 0.5, f"its floats, {low:.3g} to {high:.3g}, are taken to be in [-0.5, 0.5]")
    if kind == "f" and -1 - _OVERSHOOT <= low and high <= 1 + _OVERSHOOT:
        is_signed = low < -_OVERSHOOT or (low < -_ROUNDING and high < _NEARLY_WHITE)
        black, name = (-1.0, "[-1, 1]") if is_signed else (0.0, "[0, 1]")
        clipped = ", and are clipped" if low < black - _ROUNDING or high > 1 + _ROUNDING else ""
        return Range(black, 1.0, f"its floats, {low:.3g} to {high:.3g}, are taken to be in {name}{clipped}")
    if kind == "u" and images.dtype.itemsize == 2 and high > 255:
        return Range(low, high, f"its numbers of 16 bits, {low:g} to {high:g}, are scaled to 8 bits")
    if low < 0 or high > 255:
        raise DataError(
            f"{source} holds numbers from {low:g} to {high:g}; images are 0 to 255, or floats in [0, 1] or [-1, 1]: "
            f"{'undo a standardisation, or ' if kind == 'f' and low < 0 else ''}clip or scale them"
        )
    if kind == "f" and high < INVISIBLE and (images != np.rint(images)).any():
        raise DataError(
            f"{source} holds floats from {low:g} to {high:g}, neither up to 1 nor up to 255; scale them to [0, 1]"
        )
    if kind != "f" and high == 1:
        return Range(0.0, 1.0, "its numbers are 0 and 1, which are taken for black and white")
    if high <= scale < 255:
        return Range(0.0, scale, f"its numbers, 0 to {scale:g}, are scaled to 0 to 255")
    return Range(notice=f"its pixels reach only {high:g} of 255" if high < _DIM else "")


def as_bytes(images: NDArray[Any], numbers: Range) -> NDArray[np.uint8]:
    """Return pixels as uint8, with what lies beyond black and white clipped."""
    factor = 255.0 / (numbers.white - numbers.black) if numbers.white > numbers.black else 0.0
    if images.dtype.kind == "f" or numbers.white > 255:
        scaled = np.subtract(images, numbers.black, dtype=np.result_type(images.dtype, np.float32))
        scaled *= factor
        return np.asarray(np.clip(np.rint(scaled, out=scaled), 0, 255, out=scaled), np.uint8)
    small = images.astype(np.uint8, copy=False) if images.dtype.itemsize == 1 else images.clip(0, 255).astype(np.uint8)
    levels = np.rint((np.arange(256) - numbers.black) * factor).clip(0, 255).astype(np.uint8)
    return small if factor == 1 else levels[small]


def count_first(images: NDArray[Any], count: int | None) -> tuple[NDArray[Any], tuple[str, ...]]:
    """Return images with the axis that counts them first, and a sentence where it was last or may be another.

    Args:
        count: of labels, which says how many images there are; None without labels.
    """
    shape = images.shape
    if _is_count_last(shape, count):
        found = np.moveaxis(images, -1, 0)
        return found, (f"its shape {shape} is taken for {shape[-1]:,} images of {_by(found.shape[1:])}",)
    if count is None and len(shape) == 3 and shape[0] in (3, 4) and shape[1] == shape[2]:
        return images, (f"its shape {shape} is taken for {shape[0]} grey images of {_by(shape[1:])}",)
    return images, ()


def without_axis_of_one(images: NDArray[Any]) -> NDArray[Any]:
    """Return (N, numbers) for (N, 1, numbers) and (N, numbers, 1) whose numbers make square images; others as they are.

    >>> without_axis_of_one(np.zeros((5, 1, 784))).shape, without_axis_of_one(np.zeros((28, 28, 1))).shape
    ((5, 784), (28, 28, 1))
    """
    if images.ndim != 3 or 1 not in images.shape[1:]:
        return images
    numbers = images.shape[1] * images.shape[2]
    is_flat = numbers >= _MIN_SIDE**2 and square(numbers)[0] and numbers != images.shape[0]
    return images.reshape(len(images), numbers) if is_flat else images


def _by(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape)) if len(shape) > 1 else f"{shape[0]} numbers"


def _is_count_last(shape: tuple[int, ...], count: int | None) -> bool:
    """Return whether the last axis counts images, as labels say, or without them square images in the others."""
    if len(shape) not in (2, 3, 4) or (count is not None and (count != shape[-1] or count == shape[0])):
        return False
    if len(shape) == 2:
        return count is not None and square(shape[0])[0] > 0
    if len(shape) == 3:
        return count is not None or (shape[0] == shape[1] != shape[2] and shape[2] not in _CHANNELS)
    is_last, is_first = shape[2] in _CHANNELS, shape[0] in _CHANNELS
    if count is not None:
        return is_last or is_first
    is_square = (is_last and shape[0] == shape[1]) or (is_first and shape[1] == shape[2])
    return is_square and shape[3] not in _CHANNELS and shape[1] not in _CHANNELS


def as_nhwc(images: NDArray[np.uint8], source: str, *, is_channels_last: bool | None = None) -> NDArray[np.uint8]:
    """Return images of any layout as (N, H, W, C), C 1, 3 or 4.

    Rows whose every fourth number is 255 are pixels of four channels, all opaque.

    Args:
        is_channels_last: of flat images of three channels; decided by `are_channels_last` where None.
    """
    shape = images.shape
    if images.ndim == 2:
        side, channels = square(shape[1])
        if not side:
            raise DataError(
                f"{source} holds rows of {shape[1]} numbers, which are no square images; give (N, H, W[, C])"
            )
        if channels == 1 and side % 2 == 0 and (images[:, 3::4] == 255).all() and not (images == 255).all():
            return images.reshape(-1, side // 2, side // 2, 4)
        if channels == 1:
            return images.reshape(-1, side, side, 1)
        if are_channels_last(images) if is_channels_last is None else is_channels_last:
            return images.reshape(-1, side, side, 3)
        return images.reshape(-1, 3, side, side).transpose(0, 2, 3, 1)
    if images.ndim == 3 and shape[2] in _CHANNELS and min(shape[:2]) >= _MIN_SIDE:
        raise DataError(f"{source} holds one image of shape {shape}; give several, stacked as (N, H, W, C)")
    if images.ndim == 3:
        return images[..., None]
    if images.ndim == 4 and shape[3] in _CHANNELS:
        return images
    if images.ndim == 4 and shape[1] in _CHANNELS:
        return images.transpose(0, 2, 3, 1)
    raise DataError(
        f"{source} holds an array of shape {shape}; images are (N, H, W), (N, H, W, C) or (N, C, H, W) with C 1, 3 or 4"
    )
