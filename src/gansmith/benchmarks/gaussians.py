"""Gaussians on a ring and on a grid: which of the known modes a generator finds, and how often it is near one.

The sets are pictures of one soft dot (gansmith.data.synthetic). A picture stands for the point
at its centre of brightness, and counts only if it looks like the dot that is drawn there: two dots have a centre too.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

from gansmith.data import load_data
from gansmith.data.synthetic import CENTRES, SIZE, SPREAD, draw_points

LIKENESS = 0.9  # least cosine of a picture to the dot drawn at its centre; real pictures have 0.99 and more


def measure(data: str, samples: Tensor) -> dict[str, Any]:
    """Return modes found and high-quality share of uint8 (N, 1, 28, 28) pictures, and those of N real ones."""
    centres = CENTRES[data]()
    real = load_data(data, part="test").pixels[: len(samples)]
    return {**near_centres(samples, centres), "samples": len(samples), "real": near_centres(real, centres)}


def near_centres(pictures: Tensor, centres: Tensor) -> dict[str, float]:
    """Return how many centres (K, 2) have one of these pictures near, and the share of pictures that is near any.

    Near is within three standard deviations of a mode; 98.9 % of a Gaussian of two dimensions is.

    Source: VEEGAN, arXiv:1705.07761, section 5.1.
    """
    points, is_dot = read_points(pictures)
    distance, nearest = torch.cdist(points, centres).min(dim=1)
    near = is_dot & (distance <= 3 * SPREAD)
    return {
        "modes": len(nearest[near].unique()),
        "of": len(centres),
        "high_quality": float(near.double().mean()),
    }


def read_points(pictures: Tensor) -> tuple[Tensor, Tensor]:
    """Return (x, y) of each picture, (N, 2) in pixels, and whether it shows one dot there; undoes `draw_points`."""
    light = pictures[:, 0].float()
    axis = torch.arange(SIZE, dtype=torch.float32)
    total = light.sum((1, 2)).clamp(min=1)
    points = torch.stack([(light.sum(1) * axis).sum(1), (light.sum(2) * axis).sum(1)], dim=1) / total[:, None]
    likeness = cosine_similarity(light.flatten(1), draw_points(points).flatten(1).float())
    return points, likeness >= LIKENESS
