"""Stacked MNIST: how many of the 1,000 triples of digits a generator draws, and how evenly.

Every colour of an image is classified by itself, by the largest logit and with no threshold. The counts are compared
with a uniform distribution, and with those of as many real images. Training is unconditional.
"""

from typing import Any

import torch
from torch import Tensor

from gansmith.data import load_data
from gansmith.data.images import ImageSpec, to_float
from gansmith.data.stacked import stack
from gansmith.errors import DataError, NotFoundError
from gansmith.metrics.features import FeatureNetwork, load_feature_network

MODES = 1_000
_CHUNK = 1_000


def measure(samples: Tensor, *, data_dir: str | None = None) -> dict[str, Any]:
    """Return modes and divergence of uint8 (N, 3, 28, 28) images, those of N real triples, and the expected KL.

    Raises DataError for images of another shape, or where MNIST has no labels to count its digits by.

    Source: VEEGAN, arXiv:1705.07761, section 5.2, with the 26,000 samples of PacGAN, arXiv:1712.04086, section 4.2.
    """
    if samples.shape[1:] != (3, 28, 28) or not len(samples):
        raise DataError(f"images have shape {tuple(samples.shape)}; give stacked digits of shape (N, 3, 28, 28)")
    digits = load_data("mnist", data_dir=data_dir)
    if digits.labels is None:
        raise DataError(f"{digits.source} has no labels to count its digits by; give MNIST with its label files")
    network = load_feature_network("mnist", digits.spec)
    real = stack(digits.pixels, len(samples), seed=3)  # other triples than are trained on
    found = spread(classify(network, samples))
    expected = expected_kl(torch.bincount(digits.labels, minlength=10), len(samples))
    return {
        **found,
        "expected_kl": expected,
        "kl_above_expected": found["kl"] - expected,
        "samples": len(samples),
        "digits": digits.source,
        "real": spread(classify(network, real)),
        "classifier": network.name,
        "classifier_accuracy": _accuracy(network, data_dir),
    }


@torch.no_grad()
def classify(network: FeatureNetwork, images: Tensor) -> Tensor:
    """Return the digit of each colour, (N, 3), of uint8 (N, 3, 28, 28) images."""
    colours = images.flatten(0, 1)[:, None].split(_CHUNK)
    return torch.cat([network(to_float(chunk)).argmax(1) for chunk in colours]).view(-1, 3)


def spread(digits: Tensor) -> dict[str, float]:
    """Return how many kinds occur among triples of digits (N, 3), and their divergence from uniform in nats.

    `kl` is KL(shares || uniform) over all 1,000 kinds; `kl_colours` is what the shares of single digits account for,
    the sum of the three colours' KL, and no more than `kl`.
    """
    kinds = torch.bincount(digits @ torch.tensor([100, 10, 1]), minlength=MODES)
    colours = sum(_from_uniform(torch.bincount(colour, minlength=10)) for colour in digits.T)
    return {"modes": int((kinds > 0).sum()), "kl": _from_uniform(kinds), "kl_colours": float(colours)}


def expected_kl(digits: Tensor, count: int) -> float:
    """Return the KL that `count` independent real triples are expected to have, in nats.

    Args:
        digits: (10,) how often each digit occurs among real images.

    Returns:
        (K - 1) / 2N for K = 1,000 kinds, the leading term of the bias of a plug-in entropy (Miller 1955), plus three
        times the KL of the digits' own shares to uniform.
    """
    return (MODES - 1) / (2 * count) + 3 * _from_uniform(digits)


def _from_uniform(counts: Tensor) -> float:
    """Return KL(shares || uniform) in nats; a kind that does not occur adds nothing."""
    shares = counts.double() / counts.sum()
    return float(torch.special.xlogy(shares, shares * len(shares)).sum())


def _accuracy(network: FeatureNetwork, data_dir: str | None) -> float | None:
    """Return the classifier's accuracy on MNIST's test images; None where they are not available."""
    try:
        test = load_data("mnist", data_dir=data_dir, part="test")
    except NotFoundError:
        return None
    if test.labels is None or test.spec != ImageSpec(28, 1, 10):
        return None
    with torch.no_grad():
        found = torch.cat([network(to_float(chunk)).argmax(1) for chunk in test.pixels.split(_CHUNK)])
    return float((found == test.labels).double().mean())
