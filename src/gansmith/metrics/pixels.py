"""Pixel statistics, which detect what classifiers learn to ignore: grey levels, blur, noise and offsets."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gansmith.errors import DataError

Pixels = NDArray[np.uint8]
Array = NDArray[np.float64]

BRIGHT = 250
HISTOGRAM_BINS = 8


def pixel_statistics(real: Pixels, fake: Pixels) -> dict[str, float]:
    """Compare the pixels of generated images with those of real ones.

    Args:
        real, fake: uint8 (N, C, H, W) and (M, C, H, W), at least 3 pixels high and wide.

    Returns:
        Differences, null 0: {"brightness": of the mean, in grey levels of 255; "black": of the share of exact zeros;
        "bright": of the share of pixels of at least 250; "histogram": half the sum of absolute differences of an
        8-bin histogram, the share of pixels that lie in another bin; "offset_px": distance between the average
        centres of mass, in pixels}, and ratios, null 1: {"contrast": of the mean standard deviation within an image;
        "sharpness": of the mean square of the Laplacian, below 1 for blur, above for noise}.
    """
    _, _, height, width = fake.shape
    if real.shape[1:] != fake.shape[1:] or min(height, width) < 3:
        raise DataError(
            f"images of {real.shape[1:]} and {fake.shape[1:]} (channels, height, width) do not compare; give two sets "
            "of one shape, at least 3 pixels high and wide"
        )
    ours, theirs = _summary(fake), _summary(real)
    return {
        "brightness": float(ours.levels @ np.arange(256) - theirs.levels @ np.arange(256)),
        "black": float(ours.levels[0] - theirs.levels[0]),
        "bright": float(ours.levels[BRIGHT:].sum() - theirs.levels[BRIGHT:].sum()),
        "histogram": float(np.abs(_histogram(ours.levels) - _histogram(theirs.levels)).sum() / 2),
        "offset_px": float(np.linalg.norm(ours.centre - theirs.centre)),
        "contrast": ours.contrast / max(theirs.contrast, 1e-12),
        "sharpness": ours.laplacian / max(theirs.laplacian, 1e-12),
    }


@dataclass(frozen=True)
class _Summary:
    """Statistics of one set of images."""

    levels: Array  # (256,) share of pixels at each grey level
    centre: Array  # (2,) mean over images of the centre of mass, row and column, in pixels
    contrast: float  # mean over images of the standard deviation of pixels
    laplacian: float  # mean square


def _summary(pixels: Pixels) -> _Summary:
    """Return the statistics of uint8 images (N, C, H, W)."""
    _, _, height, width = pixels.shape
    grey = pixels.mean(axis=1)  # (N, H, W)
    weight = grey + 1e-9  # keeps the centre of a black image defined
    total = weight.sum(axis=(1, 2))
    centre = [
        (weight.sum(axis=2) @ np.arange(height) / total).mean(),
        (weight.sum(axis=1) @ np.arange(width) / total).mean(),
    ]
    laplacian = (
        4 * grey[:, 1:-1, 1:-1] - grey[:, :-2, 1:-1] - grey[:, 2:, 1:-1] - grey[:, 1:-1, :-2] - grey[:, 1:-1, 2:]
    )
    return _Summary(
        levels=np.bincount(pixels.reshape(-1), minlength=256) / pixels.size,
        centre=np.array(centre),
        contrast=float(pixels.std(axis=(1, 2, 3)).mean()),
        laplacian=float((laplacian * laplacian).mean()),
    )


def _histogram(levels: Array) -> Array:
    """Return (HISTOGRAM_BINS,) shares of pixels, from (256,)."""
    bins: Array = levels.reshape(HISTOGRAM_BINS, -1).sum(axis=1)
    return bins
