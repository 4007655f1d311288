"""What nearest neighbours say of fidelity and diversity, from squared distances, some rows at a time."""

from collections.abc import Iterator

from gansmith.errors import GansmithError
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Array = NDArray[np.float64]

_ROWS = 100  # rows of a distance matrix held at once: 8 MB against 10,000 columns, about what a cache holds


def precision_recall(real: Array, fake: Array, *, k: int = 3) -> dict[str, float]:
    """How much of `fake` lies where real images are, and how much of `real` lies where generated ones are.

    A set's region is the union of balls about its points, each reaching to the point's k-th neighbour in the set.
    Outliers make large balls, so precision flatters. Two draws from one distribution do not score 1 but, in high
    dimensions, far less: show the value of real images beside it, at equal sizes.

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
    """How many real neighbourhoods a generated image falls into, and the share of real ones that got an image.

    Only real images have balls, each reaching to the k-th neighbour, so odd generated images cannot widen a region.

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
    """The coverage that `num_fake` fresh real images are expected to have of `num_real` others.

    1 - prod_{i=1..k} (N - i) / (M + N - i): the chance that not all k nearest of the pooled others are real.

    Source: Naeem et al., arXiv:2002.09797, section 3.3, lemma 2.
    """
    i = np.arange(1, k + 1)
    return float(1 - np.prod((num_real - i) / (num_real + num_fake - i)))


def kth_distances(points: Tensor, k: int) -> Tensor:
    """(N,) squared distance of each row to its k-th nearest other row."""
    if len(points) <= k:
        raise GansmithError(f"{len(points)} images have no {k}-th neighbour; give more than {k}")
    found = points.new_empty(len(points))
    for rows, distances in squared_distances(points, points):
        distances[torch.arange(len(distances)), torch.arange(rows.start, rows.stop)] = torch.inf
        found[rows] = distances.topk(k, largest=False).values[:, -1]
    return found


def nearest(points: Tensor, others: Tensor, k: int = 1) -> tuple[Tensor, Tensor]:
    """(N, k) squared distances from each row to its k nearest among `others`, ascending, and their (N, k) rows."""
    values, indices = points.new_empty(len(points), k), torch.empty(len(points), k, dtype=torch.int64)
    for rows, distances in squared_distances(points, others):
        values[rows], indices[rows] = distances.topk(k, largest=False)
    return values, indices


def squared_distances(a: Tensor, b: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Some rows of the (N, M) matrix of squared distances at a time, with the slice of `a` they belong to.

    Keep nothing that is made of them in a list: small pieces left between large ones hold gigabytes.

    |a|^2 + |b|^2 - 2 a.b costs a matrix product instead of N M d subtractions; what it loses to cancellation is
    small as long as the points lie about the origin.
    """
    b_norms = (b * b).sum(1)
    for start in range(0, len(a), _ROWS):
        some = a[start : start + _ROWS]
        distances = torch.addmm(b_norms[None], some, b.T, alpha=-2).add_((some * some).sum(1)[:, None])
        yield slice(start, start + len(some)), distances.clamp_(min=0)


def _centred(real: Array, fake: Array) -> tuple[Tensor, Tensor]:
    """Both sets as float64 tensors, moved together so that the real ones lie about the origin."""
    centre = real.mean(axis=0)
    return torch.from_numpy(real - centre).double(), torch.from_numpy(fake - centre).double()
