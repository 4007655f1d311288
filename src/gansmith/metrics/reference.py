"""Reference figures of real images: the feature moments of the test images, and the FD of validation images to them.

For data sets whose evaluator ships, these figures ship with it, so samples can be evaluated on a machine that has only
a few of the images; for any other data set they are measured.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gansmith.data.images import ImageSpec
from gansmith.metrics.distances import frechet_of_moments, moments
from gansmith.metrics.features import load_shipped

Array = NDArray[np.float64]

COUNTS = (1_000, 2_000, 5_000, 10_000)  # numbers of images that an FD ratio may be measured on


@dataclass(frozen=True)
class Reference:
    """What samples are compared with, by one evaluator.

    Attributes:
        moments: mean and covariance of the test images' features.
        fd_real: by number of images, the Frechet distance of that many validation images to the test images, the mean
            over all disjoint subsets of that size.
    """

    moments: tuple[Array, Array]
    fd_real: Mapping[int, float]


def measure_reference(test: Array, validation: Array) -> Reference:
    """Return the reference of test and validation features, (N, d) and (M, d), for every count up to M."""
    of_test = moments(test)
    fd_real = {}
    for count in COUNTS:
        if count <= len(validation):
            distances = [frechet_of_moments(of_test, moments(part)) for part in _parts(validation, count)]
            fd_real[count] = float(np.mean(distances))
    return Reference(of_test, fd_real)


def _parts(features: Array, count: int) -> list[Array]:
    """Return as many disjoint subsets of `count` rows as there are, the same random ones every time."""
    order = np.random.default_rng(0).permutation(len(features))
    return [features[order[start : start + count]] for start in range(0, len(features) - count + 1, count)]


def to_tensors(references: Mapping[str, Reference]) -> dict[str, Tensor]:
    """Return the references of evaluators as tensors, under the names that `load_references` reads."""
    tensors = {}
    for name, reference in references.items():
        mean, covariance = (torch.from_numpy(array) for array in reference.moments)
        tensors[f"reference.{name}.mean"], tensors[f"reference.{name}.covariance"] = mean, covariance.float()
        tensors[f"reference.{name}.floors"] = torch.tensor(
            [reference.fd_real[count] for count in COUNTS], dtype=torch.float64
        )
    return tensors


def load_references(dataset: str, spec: ImageSpec) -> dict[str, Reference]:
    """Return the references that ship for a data set, by evaluator; empty where none do."""
    shipped = load_shipped(dataset, spec)
    return {
        name: Reference(
            (shipped[f"reference.{name}.mean"].numpy(), shipped[f"reference.{name}.covariance"].double().numpy()),
            dict(zip(COUNTS, shipped[f"reference.{name}.floors"].tolist(), strict=True)),
        )
        for name in ("trained", "random")
        if shipped
    }
