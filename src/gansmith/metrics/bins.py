"""Histograms over clusters of training pixels: which regions a generator over- and underfills."""

import numpy as np
import torch
from numpy.typing import NDArray

from gansmith.metrics.neighbours import nearest

Array = NDArray[np.float64]


def find_bins(train: Array, *, count: int = 100, seed: int = 0) -> Array:
    """(count, d) centres of k-means clusters of training images, (N, d)."""
    from sklearn.cluster import MiniBatchKMeans

    means = MiniBatchKMeans(count, random_state=seed, n_init=3, batch_size=4096).fit(train)
    centres: Array = means.cluster_centers_.astype(np.float64)
    return centres


def bin_differences(real: Array, fake: Array, centres: Array, *, limit: float = 4.0) -> dict[str, float]:
    """How unlike the shares are that two sets have of each bin, a bin being the images nearest to a centre.

    Shares are compared by the z-test of two proportions with pooled variance.

    Args:
        real, fake: (N, d) and (M, d), in the space of `centres` (K, d).
        limit: the |z| above which a bin counts as different. At 4, chance alone makes one of 15,000 bins so.

    Returns:
        {"different_bins": share of bins in [0, 1], which grows with N for any fixed defect,
        "bin_divergence": Jensen-Shannon divergence in nats, which does not; null (K - 1)/8 (1/N + 1/M)}.

    Source: Richardson and Weiss, arXiv:1805.12462, section 3 ("NDB").
    """
    counts = [
        np.bincount(nearest(torch.from_numpy(x), torch.from_numpy(centres))[1][:, 0].numpy(), minlength=len(centres))
        for x in (real, fake)
    ]
    p, q = counts[0] / len(real), counts[1] / len(fake)
    pooled = (counts[0] + counts[1]) / (len(real) + len(fake))
    error = np.sqrt(pooled * (1 - pooled) * (1 / len(real) + 1 / len(fake)))
    z = np.divide(p - q, error, out=np.zeros_like(p), where=error > 0)
    middle = (p + q) / 2
    divergence = sum(0.5 * (x[x > 0] * np.log(x[x > 0] / middle[x > 0])).sum() for x in (p, q))
    return {"different_bins": float((np.abs(z) > limit).mean()), "bin_divergence": float(divergence)}
