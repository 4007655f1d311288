"""Memorisation: are generated images copies of training images, which every distance to real images rewards?

All figures come from distances to the nearest training image, in the leading principal components of the training
pixels, compared with those of real images held out of training. These must be from the distribution of the training
images: a test set by other writers is further away, which hides copies.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gansmith.metrics.neighbours import nearest

Array = NDArray[np.float64]

COMPONENTS = 64
CELLS = 3
NEIGHBOURHOOD = 50  # nearest training images whose mean distance measures the local density
NEAR_QUANTILE = 0.001


@dataclass(frozen=True)
class Nearest:
    """The nearest training image of each of N images.

    Attributes:
        rows: (N,) its row.
        distances: (N,) its distance.
        relative: (N,) that over the mean distance of the nearest `NEIGHBOURHOOD` training images, in [0, 1].
    """

    rows: NDArray[np.int64]
    distances: Array
    relative: Array


def memorisation(train: Array, held_out: Array, fake: Array) -> dict[str, float]:
    """Return three measures of copying, each against held-out images, so that new real images give the null.

    Args:
        train, held_out, fake: (N, d), (L, d) and (M, d) flat pixels.

    Returns:
        {"copying": the statistic C_T: a Mann-Whitney z of the distances of fake against those of held_out, within
        each of a few clusters of train, averaged by held_out's share of them; null 0 with a standard deviation below 1,
        negative when fake is nearer to training images than held-out ones are, and growing with the number of images,
        "nearer": the same as an effect, the share of pairs in which fake is the nearer one; null 0.5,
        "near_copies": share of fake whose relative distance is under the 0.1 % quantile of held_out's; null 0.001,
        "near_copies_chance": share that a hundredth of all sets of new real images exceed, where held_out is small,
        "authentic": share of fake further from its nearest training image than that one's own nearest neighbour,
        "authentic_real": the same of held_out, its null, which is neither 1 nor a half}.

        `copying` detects many images that are slightly too near, `near_copies` a few that are much too near, altered
        copies included. A plain distance would count every thin "1" as a copy, since those are all close together.

    Source: C_T: Meehan et al., arXiv:2004.05675, section 4. Relative distance: Carlini et al., arXiv:2301.13188,
    section 5.1. Authenticity: Alaa et al., arXiv:2102.08921, section 4.3.
    """
    train_, held_out_, fake_ = principal_components(train, held_out, fake)
    nearest_fake, nearest_held_out = find_nearest(train_, fake_), find_nearest(train_, held_out_)
    limit = float(np.quantile(nearest_held_out.relative, NEAR_QUANTILE))
    copying, nearer = _copying(train_, held_out_, fake_, nearest_held_out.distances, nearest_fake.distances)
    return {
        "copying": copying,
        "nearer": nearer,
        "near_copies": float((nearest_fake.relative < limit).mean()),
        # Of L new images, none is under the quantile q of the distribution with a probability of (1 - q)^L.
        "near_copies_chance": 1 - 0.01 ** (1 / len(held_out)),
        "authentic": _authentic(train_, nearest_fake),
        "authentic_real": _authentic(train_, nearest_held_out),
    }


def principal_components(train: NDArray[Any], *others: NDArray[Any]) -> list[Tensor]:
    """Project these sets onto the leading principal components of the first, as float32 tensors.

    Single precision halves the time and changes distances by about a thousandth. Sets of no more than COMPONENTS
    dimensions keep them, as a rotation changes no distance.
    """
    project = fit_components(train)
    return [project(x) for x in (train, *others)]


def fit_components(train: NDArray[Any]) -> Callable[[NDArray[Any]], Tensor]:
    """Return the projection of `principal_components`, for one set after the other."""
    if train.shape[1] <= COMPONENTS:
        return lambda x: torch.from_numpy(x).float()
    from sklearn.decomposition import PCA

    some = train[:: max(len(train) // 10_000, 1)]  # enough for the components, in a fifth of the time for 50,000 images
    axes = PCA(min(COMPONENTS, *some.shape), svd_solver="randomized", random_state=0).fit(some)
    return lambda x: torch.from_numpy(axes.transform(x)).float()


def find_nearest(train: Tensor, images: Tensor) -> Nearest:
    """Find the nearest of `train` (N, d) to each of `images` (M, d)."""
    squares, rows = nearest(images, train, k=min(NEIGHBOURHOOD, len(train)))
    distances = squares.double().sqrt()
    relative = distances[:, 0] / distances.mean(1).clamp(min=1e-12)
    return Nearest(rows[:, 0].numpy(), distances[:, 0].numpy(), relative.numpy())


def _authentic(train: Tensor, found: Nearest) -> float:
    """Return the share that is further from its nearest training image than that one is from the others."""
    rows, back = np.unique(found.rows, return_inverse=True)
    own = (
        nearest(train[torch.from_numpy(rows)], train, k=2)[0][:, 1].double().sqrt().numpy()
    )  # column 0 is the image itself
    return float((found.distances > own[back]).mean())


def _copying(
    train: Tensor, held_out: Tensor, fake: Tensor, held_out_distances: Array, fake_distances: Array
) -> tuple[float, float]:
    """Return C_T, and the share of pairs in which the generated image is nearer, both averaged over k-means cells."""
    from scipy.stats import mannwhitneyu
    from sklearn.cluster import MiniBatchKMeans

    cells = MiniBatchKMeans(CELLS, random_state=0, n_init=3, batch_size=4096).fit(train.numpy())
    held_out_cells, fake_cells = cells.predict(held_out.numpy()), cells.predict(fake.numpy())
    scores, shares, weights = [], [], []
    for cell in range(CELLS):
        x, y = fake_distances[fake_cells == cell], held_out_distances[held_out_cells == cell]
        n, m = len(x), len(y)
        if n and m:
            further = mannwhitneyu(x, y).statistic  # pairs with x > y, ties counting half
            scores.append((further - n * m / 2) / np.sqrt(n * m * (n + m + 1) / 12))
            shares.append(1 - further / (n * m))
            weights.append(m)
    if not weights:
        return 0.0, 0.5
    return float(np.average(scores, weights=weights)), float(np.average(shares, weights=weights))
