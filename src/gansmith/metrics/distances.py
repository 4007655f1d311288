"""Distances between two sets of feature vectors, in float64."""

import numpy as np
from numpy.typing import NDArray


def frechet_distance(x: NDArray[np.float64], y: NDArray[np.float64]) -> dict[str, float]:
    """Squared Frechet distance of the Gaussians with these sets' means and covariances.

    |mean_x - mean_y|^2 + tr(S_x + S_y - 2 (S_x^1/2 S_y S_x^1/2)^1/2), covariances divided by n - 1. The symmetric
    form keeps eigenvalues real; those that rounding pushes below zero count as zero.

    Args:
        x, y: (N, d) and (M, d), at least two rows each.

    Returns:
        {"frechet": distance}. It is biased upwards, about linearly in 1/N + 1/M: compare equal sizes only.

    Source: Heusel et al., arXiv:1706.08500, section 2; Dowson and Landau 1982.
    """
    difference = x.mean(axis=0) - y.mean(axis=0)
    cov_x, cov_y = np.cov(x, rowvar=False), np.cov(y, rowvar=False)
    cov_x, cov_y = np.atleast_2d(cov_x), np.atleast_2d(cov_y)
    values, vectors = np.linalg.eigh(cov_x)
    root = (vectors * np.sqrt(values.clip(min=0))) @ vectors.T
    cross = np.sqrt(np.linalg.eigvalsh(root @ cov_y @ root).clip(min=0)).sum()
    return {"frechet": float(difference @ difference + np.trace(cov_x) + np.trace(cov_y) - 2 * cross)}
