"""Metrics from a classifier's output: are samples recognisable, is every class generated, as diverse as real images?

Probabilities are (N, K) rows that sum to one, from a classifier whose temperature the caller has applied. A classifier
is confident on some images that belong to no class, so none of these is enough alone.
"""

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Ids = NDArray[np.int64]

CONFIDENT = 0.9


def recognised(real: Array, fake: Array, *, threshold: float = CONFIDENT) -> dict[str, float]:
    """Return the share of images whose most probable class reaches `threshold`.

    Returns:
        {"recognised": share of fake, "recognised_excess": that minus the share of real, in [-1, 1]}. The excess has
        null 0 with standard error sqrt(p (1 - p) (1/N + 1/M)); below it, images belong to no class; above it, they are
        more typical of their class than real ones, as from truncated latents.
    """
    share = float((fake.max(axis=1) >= threshold).mean())
    return {"recognised": share, "recognised_excess": share - float((real.max(axis=1) >= threshold).mean())}


def class_balance(real: Array, fake: Array, confusion: Array | None = None) -> dict[str, float]:
    """Compare the class shares of generated and real images, by the most probable class of each image.

    Args:
        confusion: (K, K) share of each class, row, among the classifications of real images of each label, column. A
            classifier that is often wrong finds a missing class among the others' images; ratios are then those of the
            shares that would be classified as these were (Lipton et al., arXiv:1802.03916, section 4).

    Returns:
        {"rarest_class": the smallest share of fake over share of real, over the classes of real; null below 1, by
        about 1.5 sqrt(K (1/N + 1/M)) for K equal classes, twice that for a confusion with .75 on its diagonal,
        "modes": the number of classes whose ratio is at least a half,
        "class_kl": KL(fake || real) in nats, null `class_kl_null`; infinite where fake has a class that real lacks}.
    """
    p, q = (np.bincount(x.argmax(axis=1), minlength=x.shape[1]) / len(x) for x in (fake, real))
    with np.errstate(divide="ignore"):
        divergence = float((p[p > 0] * np.log(p[p > 0] / q[p > 0])).sum())
    if confusion is not None:
        p, q = (_shares_behind(shares, confusion) for shares in (p, q))
    ratios = p[q > 0] / q[q > 0]
    return {
        "rarest_class": float(ratios.min()),
        "modes": float((ratios >= 0.5).sum()),
        "class_kl": divergence,
    }


def _shares_behind(shares: Array, confusion: Array) -> Array:
    """Return the shares of labels that a classifier with this confusion would classify into these shares."""
    from scipy.optimize import nnls

    found: Array = nnls(confusion, shares)[0]
    found /= found.sum()
    return found


def class_kl_null(num_classes: int, num_real: int, num_fake: int) -> float:
    """Return the expected class KL of two real draws: (K - 1)/2 (1/N + 1/M), to first order."""
    return (num_classes - 1) / 2 * (1 / num_real + 1 / num_fake)


def label_accuracy(probabilities: Array, labels: Ids) -> dict[str, float]:
    """Return the share of images that are classified as the label they were conditioned on ("GAN-test").

    Returns:
        {"label_accuracy": share in [0, 1]}; the ceiling is the classifier's accuracy on real images.

    Source: Shmelkov et al., arXiv:1807.09499, section 3.
    """
    return {"label_accuracy": float((probabilities.argmax(axis=1) == labels).mean())}


def class_diversity(real: Array, fake: Array, real_y: Ids, fake_y: Ids) -> dict[str, float]:
    """Compare the spread within each class with that of real images.

    The spread is the root mean square distance between two images of a class, sqrt(2 tr S) with S its covariance, so
    no pair is ever formed. One image repeated scores 0; repeats of many images hardly lower it, coverage detects them.

    Args:
        real, fake: (N, d) and (M, d) features.
        real_y, fake_y: (N,) and (M,) their classes by one classifier.

    Returns:
        {"diversity": mean over classes of spread of fake / spread of real, "diversity_worst": the smallest}. Null 1;
        a class with fewer than two generated images counts as 0, one without two real images that differ is
        omitted, and nothing is returned where all are omitted.
    """
    ratios = []
    for class_ in np.unique(real_y):
        ours, theirs = fake[fake_y == class_], real[real_y == class_]
        spread = _variance(theirs) if len(theirs) > 1 else 0.0
        if spread > 0:
            ratios.append(np.sqrt(_variance(ours) / spread) if len(ours) > 1 else 0.0)
    return {"diversity": float(np.mean(ratios)), "diversity_worst": float(np.min(ratios))} if ratios else {}


def _variance(features: Array) -> float:
    """Return the trace of the covariance."""
    return float(features.var(axis=0, ddof=1).sum())
