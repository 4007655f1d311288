"""Distances between two sets of feature vectors, in float64."""

import math

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

_ROWS = 250  # of a kernel that are computed at once


def moments(features: Array) -> tuple[Array, Array]:
    """Return the mean (d,) and the unbiased covariance (d, d) of features (N, d)."""
    return features.mean(axis=0), np.atleast_2d(np.cov(features, rowvar=False))


def frechet_of_moments(real: tuple[Array, Array], fake: tuple[Array, Array]) -> float:
    """Return the squared Frechet distance of two Gaussians, each a mean (d,) and a covariance (d, d).

    |m_r - m_f|^2 + tr(S_r + S_f - 2 (S_r^1/2 S_f S_r^1/2)^1/2). The symmetric form keeps eigenvalues real; those that
    rounding makes negative are set to zero.

    Source: Dowson and Landau 1982; Heusel et al., arXiv:1706.08500, section 2.
    """
    (real_mean, real_cov), (fake_mean, fake_cov) = real, fake
    difference = real_mean - fake_mean
    values, vectors = np.linalg.eigh(real_cov)
    root = (vectors * np.sqrt(values.clip(min=0))) @ vectors.T
    cross = np.sqrt(np.linalg.eigvalsh(root @ fake_cov @ root).clip(min=0)).sum()
    return float(difference @ difference + np.trace(real_cov) + np.trace(fake_cov) - 2 * cross)


def frechet_distance(real: Array, fake: Array) -> dict[str, float]:
    """Return the squared Frechet distance of the Gaussians with these sets' means and covariances.

    |m_r - m_f|^2 + tr(S_r + S_f - 2 (S_r S_f)^1/2), with means m and unbiased covariances S of the features.

    Args:
        real, fake: (N, d) and (M, d), at least two rows each.

    Returns:
        {"fd": distance}. It is biased upwards, about linearly in 1/N + 1/M: compare equal sizes only. Two draws
        from one distribution score more than zero, about `frechet_null`.

    Source: Heusel et al., arXiv:1706.08500, section 2; the distance is Dowson and Landau's, 1982.
    """
    return {"fd": frechet_of_moments(moments(real), moments(fake))}


def frechet_null(real: Array, count: int) -> float:
    """Return the expected FD of two Gaussian samples of `count` rows with the covariance of `real`, to first order.

    (2 / count) (3/2 sum_i l_i + sum_{i<j} l_i l_j / (l_i + l_j)) with l the eigenvalues of the covariance: the means
    contribute sum_i l_i, the covariances the rest. Tails heavier than a Gaussian's raise the true value.
    """
    values = np.linalg.eigvalsh(moments(real)[1]).clip(min=0)
    pairs = values[:, None] * values / np.maximum(values[:, None] + values, np.finfo(float).tiny)
    return float(2 / count * (1.5 * values.sum() + np.triu(pairs, 1).sum()))


def frechet_infinity(real: Array, fake: Array, *, points: int = 15, seed: int = 0) -> dict[str, float]:
    """Return the Frechet distance to `real`, extrapolated to infinitely many generated images.

    Distances of random subsets of `fake`, from a tenth of it to all of it, against all of `real`, are fitted by a
    line in 1/size, whose intercept is returned. The bias from the finite size of `real` remains, so the null is about
    half of `frechet_null`; noise may make the result negative.

    Args:
        points: how many subset sizes, evenly spaced.

    Returns:
        {"fd_infinity": intercept}.

    Source: Chong and Forsyth, arXiv:1911.07023, section 4, with ordinary random samples instead of Sobol sequences.
    """
    rng = np.random.default_rng(seed)
    reference = moments(real)
    sizes = np.linspace(max(len(fake) // 10, 2), len(fake), points).astype(int)
    distances = [frechet_of_moments(reference, moments(fake[rng.permutation(len(fake))[:size]])) for size in sizes]
    slope_and_intercept = np.polyfit(1 / sizes, distances, 1)
    return {"fd_infinity": float(slope_and_intercept[1])}


def kid(real: Array, fake: Array, *, subsets: int = 100, size: int = 1000, seed: int = 0) -> dict[str, float]:
    """Return the kernel distance: the unbiased squared MMD with kernel (a.b / d + 1)^3, averaged over random subsets.

    Args:
        size: rows of each subset, fewer where a set is smaller. The result depends on the scale of the features.

    Returns:
        {"kid": mean, "kid_spread": standard deviation over the subsets, which is not a standard error}. Unbiased at
        every size, so the null is 0 and values below it are usual.

    Source: Binkowski et al., arXiv:1801.01401, section 4 and its appendix on estimators.
    """
    rng = np.random.default_rng(seed)
    size = min(size, len(real), len(fake))
    of_real, of_fake = (np.zeros((subsets, len(rows))) for rows in (real, fake))
    for chosen in zip(of_real, of_fake, strict=True):
        for rows in chosen:
            rows[rng.choice(len(rows), size, replace=False)] = 1
    found = _squared_mmds(real, fake, of_real, of_fake)
    return {"kid": float(np.mean(found)), "kid_spread": float(np.std(found))}


def squared_mmd(real: Array, fake: Array) -> float:
    """Return the unbiased squared MMD of whole sets under the kernel (a.b / d + 1)^3: `kid` without its subsets.

    It is less noisy than subsets at no more cost: about 2 N^2 d multiplications.

    Source: Gretton et al. 2012, "A kernel two-sample test", equation 3.
    """
    return float(_squared_mmds(real, fake, np.ones((1, len(real))), np.ones((1, len(fake))))[0])


def _squared_mmds(real: Array, fake: Array, of_real: Array, of_fake: Array) -> Array:
    """Return the squared MMD of each pair of subsets, whose rows are 1 in (subsets, N) arrays of 0 and 1.

    The kernel of two rows is computed once for all subsets that hold them.
    """
    between = _kernel_sums(real, fake, of_real, of_fake) / (of_real.sum(axis=1) * of_fake.sum(axis=1))
    found: Array = _own_kernel_means(real, of_real) + _own_kernel_means(fake, of_fake) - 2 * between
    return found


def _own_kernel_means(a: Array, subsets: Array) -> Array:
    """Return for each subset of `a` the mean of the kernel over all pairs of different rows."""
    size, own = subsets.sum(axis=1), ((a * a).sum(axis=1) / a.shape[1] + 1) ** 3
    means: Array = (_kernel_sums(a, a, subsets, subsets) - subsets @ own) / (size * (size - 1))
    return means


def _kernel_sums(a: Array, b: Array, of_a: Array, of_b: Array) -> Array:
    """Return for each subset the sum of the kernel over all pairs of its rows; where `b` is `a`, half is computed."""
    scaled, totals = a / a.shape[1], np.zeros(len(of_a))
    for start in range(0, len(a), _ROWS):
        rows, columns = slice(start, start + _ROWS), slice(start if b is a else 0, None)
        kernel = scaled[rows] @ b[columns].T
        kernel += 1
        kernel *= kernel * kernel
        if b is a:
            kernel[:, _ROWS:] *= 2  # these pairs stand for both of their orders
        totals += np.einsum("ij,ij->i", of_a[:, rows] @ kernel, of_b[:, columns])
    return totals


def kid_against_splits(real: Array, fake: Array, *, splits: int = 20, seed: int = 0) -> dict[str, float]:
    """Return the MMD of generated images from a few real ones as a z-score against halves of the real ones.

    Features are projected onto the leading N/10 principal components of `real`. Each of `splits` random halves of
    `real` is compared by squared MMD with the other half, and with as many random rows of `fake`.

    Returns:
        {"kid_z": (mean MMD of fake - mean MMD of halves) / standard deviation of the latter}; near 0 for
        other real images, within about 3; infinite where halves do not differ at all and generated images do.
        For sets too small for a covariance in all dimensions.

    Source: the MMD is that of `squared_mmd`; the comparison with halves is this project's.
    """
    rng = np.random.default_rng(seed)
    size = min(len(real) // 2, len(fake))
    centre = real.mean(axis=0)
    axes = np.linalg.svd(real - centre, full_matrices=False)[2][: max(1, len(real) // 10)]
    real, fake = (real - centre) @ axes.T, (fake - centre) @ axes.T
    nulls, found = [], []
    for _ in range(splits):
        order = rng.permutation(len(real))
        half = real[order[:size]]
        nulls.append(squared_mmd(half, real[order[size : 2 * size]]))
        found.append(squared_mmd(half, fake[rng.permutation(len(fake))[:size]]))
    above, spread = float(np.mean(found) - np.mean(nulls)), float(np.std(nulls))
    if spread > 0:
        return {"kid_z": above / spread}
    return {"kid_z": math.inf if above > 0 else 0.0}
