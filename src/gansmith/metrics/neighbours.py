"""Fidelity and diversity from nearest neighbours: precision, recall, density, coverage, computed in blocks of rows."""

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gansmith.errors import DataError

Array = NDArray[np.float64]

_ROWS = 100  # of a distance matrix at once: 8 MB with 10,000 columns, about a processor's cache


def precision_recall(real: Array, fake: Array, *, k: int = 3) -> dict[str, float]:
    """Return the share of `fake` inside the manifold of real images, and of `real` inside that of generated ones.

    The manifold of a set is the union of balls around its points, each reaching to the point's k-th neighbour in the
    set. Outliers have large balls, so precision is overestimated. Two draws from one distribution do not score 1 but,
    in high dimensions, far less: compare with the value of real images, at equal sizes.

    Args:
        real, fake: (N, d) and (M, d), more than k rows each.

    Returns:
        {"precision": share of fake, "recall": share of real}, both in [0, 1].

    Source: Kynkaanniemi et al., arXiv:1904.06991, equations 1 and 2; a point exactly on a ball's surface is outside.
    """
    real_, fake_ = _centred(real, fake)
    real_radii, fake_radii = kth_distances(real_, k), kth_distances(fake_, k)
    inside = torch.zeros(len(fake_), dtype=torch.bool)
    recalled = 0
    for rows, distances in squared_distances(real_, fake_):
        inside |= (distances < real_radii[rows, None]).any(0)
        recalled += int((distances < fake_radii).any(1).sum())
    return {"precision": float(inside.double().mean()), "recall": recalled / len(real_)}


def density_coverage(real: Array, fake: Array, *, k: int = 5) -> dict[str, float]:
    """Return how densely generated images fill the neighbourhoods of real ones, and the share of these that they reach.

    Only real images have neighbourhoods, balls reaching to the k-th neighbour, so generated outliers add nothing.

    Args:
        real, fake: (N, d) and (M, d), more than k rows of `real`.

    Returns:
        {"density": mean number of balls around a generated image, over k; null 1, not bounded above,
        "coverage": share of real balls with a generated image inside; null `coverage_null`}.

    Source: Naeem et al., arXiv:2002.09797, equations 2 and 3.
    """
    real_, fake_ = _centred(real, fake)
    radii = kth_distances(real_, k)
    within = covered = 0
    for rows, distances in squared_distances(real_, fake_):
        counts = (distances < radii[rows, None]).sum(1)
        within += int(counts.sum())
        covered += int((counts > 0).sum())
    return {"density": within / (k * len(fake_)), "coverage": covered / len(real_)}


def coverage_null(num_real: int, num_fake: int, *, k: int = 5) -> float:
    """Return the expected coverage of `num_real` real images by `num_fake` others.

    1 - prod_{i=1..k} (N - i) / (M + N - i): the chance that not all k nearest of the pooled others are real.

    Source: Naeem et al., arXiv:2002.09797, section 3.3, lemma 2.
    """
    i = np.arange(1, k + 1)
    return float(1 - np.prod((num_real - i) / (num_real + num_fake - i)))


def kth_distances(points: Tensor, k: int) -> Tensor:
    """Return (N,) the squared distance of each row to its k-th nearest other row."""
    if len(points) <= k:
        raise DataError(f"{len(points)} images have no {k}-th neighbour; give more than {k}")
    found = points.new_empty(len(points))
    for rows, distances in squared_distances(points, points):
        distances[torch.arange(len(distances)), torch.arange(rows.start, rows.stop)] = torch.inf
        found[rows] = distances.topk(k, largest=False).values[:, -1]
    return found


def nearest(points: Tensor, others: Tensor, k: int = 1) -> tuple[Tensor, Tensor]:
    """Return (N, k) squared distances of each row to its k nearest of `others`, ascending, and their (N, k) rows."""
    values, indices = points.new_empty(len(points), k), torch.empty(len(points), k, dtype=torch.int64)
    for rows, distances in squared_distances(points, others):
        values[rows], indices[rows] = distances.topk(k, largest=False)
    return values, indices


def squared_distances(a: Tensor, b: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Yield the (N, M) matrix of squared distances in blocks of rows, each with its slice of `a`.

    Do not collect results per block in a list: small allocations between the blocks fragment memory by gigabytes.

    |a|^2 + |b|^2 - 2 a.b costs a matrix product instead of N M d subtractions; its cancellation error is small as long
    as the points are centred on the origin.
    """
    b_norms = (b * b).sum(1)
    for start in range(0, len(a), _ROWS):
        some = a[start : start + _ROWS]
        distances = torch.addmm(b_norms[None], some, b.T, alpha=-2).add_((some * some).sum(1)[:, None])
        yield slice(start, start + len(some)), distances.clamp_(min=0)


def _centred(real: Array, fake: Array) -> tuple[Tensor, Tensor]:
    """Return both sets as float64 tensors, shifted so that the mean of the real ones is the origin."""
    centre = real.mean(axis=0)
    return torch.from_numpy(real - centre).double(), torch.from_numpy(fake - centre).double()
