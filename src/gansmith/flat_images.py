"""The side of images stored as rows of numbers, and the order of those of three channels."""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

_LOOKS = 256  # images by which the order of numbers is decided
_CLEARLY = 0.9  # times as rough: noise differs by a few hundredths


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
