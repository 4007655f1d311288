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
        "sharpness": of the mean square of the Laplacian, below 1 for blur, above for noise}. For color, brightness and
        histogram are those of the channel that differs most, and "black", "bright" and "offset_px" are omitted: they
        describe ink on an empty ground.
    """
    _, _, height, width = fake.shape
    if real.shape[1:] != fake.shape[1:] or min(height, width) < 3:
        raise DataError(
            f"images of {real.shape[1:]} and {fake.shape[1:]} (channels, height, width) do not compare; give two sets "
            "of one shape, at least 3 pixels high and wide"
        )
    ours, theirs = _summary(fake), _summary(real)
    brightness = ours.levels @ np.arange(256) - theirs.levels @ np.arange(256)  # (C,)
    shares = [level.reshape(-1, HISTOGRAM_BINS, 256 // HISTOGRAM_BINS).sum(2) for level in (ours.levels, theirs.levels)]
    color = {
        "brightness": float(brightness[np.abs(brightness).argmax()]),
        "histogram": float(np.abs(shares[0] - shares[1]).sum(1).max() / 2),
        "contrast": ours.contrast / max(theirs.contrast, 1e-12),
        "sharpness": ours.laplacian / max(theirs.laplacian, 1e-12),
    }
    if len(brightness) > 1:
        return color
    return {
        **color,
        "black": float(ours.levels[0, 0] - theirs.levels[0, 0]),
        "bright": float(ours.levels[0, BRIGHT:].sum() - theirs.levels[0, BRIGHT:].sum()),
        "offset_px": float(np.linalg.norm(ours.centre - theirs.centre)),
    }


@dataclass(frozen=True)
class _Summary:
    """Statistics of one set of images."""

    levels: Array  # (C, 256) share of pixels at each level of each channel
    centre: Array  # (2,) mean over images of the centre of mass, row and column, in pixels
    contrast: float  # mean over images of the standard deviation of pixels
    laplacian: float  # mean square


def _summary(pixels: Pixels) -> _Summary:
    """Return the statistics of uint8 images (N, C, H, W)."""
    _, _, height, width = pixels.shape
    grey, channels = pixels.mean(axis=1), pixels.transpose(1, 0, 2, 3)  # (N, H, W) and (C, N, H, W)
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
        levels=np.stack([np.bincount(level.reshape(-1), minlength=256) / level.size for level in channels]),
        centre=np.array(centre),
        contrast=float(pixels.std(axis=(1, 2, 3)).mean()),
        laplacian=float((laplacian * laplacian).mean()),
    )
