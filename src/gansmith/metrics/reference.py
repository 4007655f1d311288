"""What real images score: the moments of the test images, and the distance of other real images to them.

For data sets whose evaluator ships, these figures ship with it, so a machine that has only a few of the images can
still judge samples; for any other data set they are measured.
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

COUNTS = (1_000, 2_000, 5_000, 10_000)  # images a Frechet ratio may be measured on


@dataclass(frozen=True)
class Reference:
    """What samples are compared with under one evaluator.

    Attributes:
        moments: mean and covariance of the test images' features.
        floors: by number of images, the Frechet distance of that many validation images to the test images,
            the mean over all disjoint subsets of that size.
    """

    moments: tuple[Array, Array]
    floors: Mapping[int, float]


def measure_reference(test: Array, validation: Array) -> Reference:
    """The reference of these features (N, d) and (M, d); floors for every count that `validation` fills."""
    found = moments(test)
    return Reference(
        found,
        {
            count: float(np.mean([frechet_of_moments(found, moments(part)) for part in _parts(validation, count)]))
            for count in COUNTS
            if count <= len(validation)
        },
    )


def _parts(features: Array, count: int) -> list[Array]:
    """All disjoint subsets of so many rows, the same random ones every time."""
    order = np.random.default_rng(0).permutation(len(features))
    return [features[order[start : start + count]] for start in range(0, len(features) - count + 1, count)]


def to_tensors(references: Mapping[str, Reference]) -> dict[str, Tensor]:
    """The references by evaluator as `load_references` reads them."""
    tensors = {}
    for name, reference in references.items():
        mean, covariance = (torch.from_numpy(array) for array in reference.moments)
        tensors[f"reference.{name}.mean"], tensors[f"reference.{name}.covariance"] = mean, covariance.float()
        tensors[f"reference.{name}.floors"] = torch.tensor(
            [reference.floors[count] for count in COUNTS], dtype=torch.float64
        )
    return tensors


def load_references(dataset: str, spec: ImageSpec) -> dict[str, Reference]:
    """The references that ship for a data set, by evaluator; empty where none do."""
    shipped = load_shipped(dataset, spec)
    return {
        name: Reference(
            (shipped[f"reference.{name}.mean"].numpy(), shipped[f"reference.{name}.covariance"].double().numpy()),
            dict(zip(COUNTS, shipped[f"reference.{name}.floors"].tolist(), strict=True)),
        )
        for name in ("trained", "random")
        if shipped
    }
