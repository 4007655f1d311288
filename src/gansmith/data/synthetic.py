"""Mixtures of Gaussians drawn as images: data sets whose modes are all known, for teaching and tests.

Each sample is a point of the plane, drawn as one soft dot, so a generator that drops a mode never puts the dot
there. The labels are the modes.
"""

import math
from pathlib import Path

import torch
from torch import Tensor

from gansmith.data.images import Images

SIZE = 28
SPREAD = 0.5  # standard deviation of a mode, in pixels
_DOT = 1.5  # radius of the drawn dot, in pixels
_COUNTS = {"train": 20_000, "test": 10_000}


def ring_centres() -> Tensor:
    """Return (8, 2) centres in pixels, on a circle around the middle."""
    angles = torch.arange(8) * (2 * math.pi / 8)
    middle = (SIZE - 1) / 2
    return torch.stack([middle + 9 * angles.cos(), middle + 9 * angles.sin()], dim=1)


def grid_centres() -> Tensor:
    """Return (25, 2) centres in pixels, five by five."""
    steps = torch.linspace(4.0, SIZE - 5.0, 5)
    return torch.cartesian_prod(steps, steps)


CENTRES = {"gaussian-ring": ring_centres, "gaussian-grid": grid_centres}


def mixture(name: str, root: Path | None, part: str) -> Images:
    """Return images of points drawn from the equal Gaussians of this name, with the mode of each as its label."""
    centres, rng = CENTRES[name](), torch.Generator().manual_seed({"train": 1, "test": 2}[part])
    labels = torch.randint(len(centres), (_COUNTS[part],), generator=rng)
    points = centres[labels] + SPREAD * torch.randn(len(labels), 2, generator=rng)
    return Images(name=name, pixels=draw_points(points), labels=labels, source="drawn from a formula")


def draw_points(points: Tensor) -> Tensor:
    """Return uint8 (N, 1, SIZE, SIZE) images of one dot at each (x, y) of `points` (N, 2), in pixels."""
    axis = torch.arange(SIZE, dtype=torch.float32)
    across, down = (torch.exp(-((axis - points[:, k : k + 1]) ** 2) / (2 * _DOT**2)) for k in (0, 1))
    return (255 * down[:, :, None] * across[:, None, :]).round().to(torch.uint8)[:, None]
