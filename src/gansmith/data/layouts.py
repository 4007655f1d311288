"""Pixels in any layout and number format, as uint8 (N, H, W, C)."""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gansmith.errors import DataError


def range_in_words(images: NDArray[Any]) -> tuple[str, ...]:
    """Return which range floats were taken to have, as a sentence; nothing for bytes and numbers up to 255."""
    if images.dtype.kind != "f" or float(images.max()) > 1.001:
        return ()
    low, high = float(images.min()), float(images.max())
    return (f"its floats, {low:.3g} to {high:.3g}, are taken to be in {'[-1, 1]' if low < -0.001 else '[0, 1]'}",)


def as_bytes(images: NDArray[Any], source: str, *, span: tuple[float, float] | None = None) -> NDArray[np.uint8]:
    """Return pixels as uint8.

    Args:
        span: smallest and largest value of the set that these are a part of; their own where None.
    """
    if images.dtype == np.uint8:
        return images
    if not images.size or images.dtype.kind not in "biuf":
        raise DataError(f"{source} holds {images.dtype} {images.shape}; images are whole numbers or floats")
    if images.dtype.kind == "b":
        return images.astype(np.uint8) * np.uint8(255)
    low, high = float(images.min()), float(images.max())
    if not math.isfinite(low) or not math.isfinite(high):
        raise DataError(f"{source} holds non-finite numbers; images are whole numbers from 0 to 255, or finite floats")
    low, high = (low, high) if span is None else (min(low, span[0]), max(high, span[1]))
    if images.dtype.kind == "f" and -1.001 <= low and high <= 1.001:
        scaled = (images + 1) * 127.5 if low < -0.001 else images * 255.0
        return np.asarray(np.clip(np.rint(scaled), 0, 255), np.uint8)
    if low < 0 or high > 255:
        raise DataError(f"{source} holds numbers from {low:g} to {high:g}; images are 0 to 255, or floats in [-1, 1]")
    return np.asarray(np.rint(images), np.uint8)


def as_nhwc(images: NDArray[np.uint8], source: str) -> NDArray[np.uint8]:
    shape = images.shape
    if images.ndim == 2:
        side, channels = square(shape[1])
        if not side:
            raise DataError(f"{source} holds rows of {shape[1]} numbers, which are no square images")
        return (
            images.reshape(-1, side, side, 1)
            if channels == 1
            else images.reshape(-1, channels, side, side).transpose(0, 2, 3, 1)
        )
    if images.ndim == 3:
        return images[..., None]
    if images.ndim == 4 and shape[3] in (1, 3, 4):
        return images[..., :3] if shape[3] == 4 else images
    if images.ndim == 4 and shape[1] in (1, 3):
        return images.transpose(0, 2, 3, 1)
    raise DataError(f"{source} holds an array of shape {shape}; images are (N, H, W), (N, H, W, C) or (N, C, H, W)")


def square(count: int) -> tuple[int, int]:
    """Return the side and the channels of images with so many numbers; (0, 0) where there are none such."""
    for channels in (1, 3):
        side = math.isqrt(count // channels)
        if side and side * side * channels == count:
            return side, channels
    return 0, 0
