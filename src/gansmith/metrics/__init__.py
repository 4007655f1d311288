"""How far generated images are from real ones, beside how far real ones are from each other.

`METRICS` are pure functions of feature arrays; `Judge` puts a Frechet distance beside its real-data floor.
"""

from collections.abc import Callable
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from gansmith.data import Images
from gansmith.metrics.distances import frechet_distance, frechet_infinity, kid
from gansmith.metrics.features import FeatureNetwork, load_feature_network
from gansmith.metrics.neighbours import density_coverage, precision_recall

METRICS: dict[str, Callable[[NDArray[np.float64], NDArray[np.float64]], dict[str, float]]] = {
    "frechet": frechet_distance,
    "frechet_infinity": frechet_infinity,
    "kid": kid,
    "precision_recall": precision_recall,
    "density_coverage": density_coverage,
}

QUICK = 2_000  # images a side during training


class Judge:
    """Scores samples of one data set; the features of real images are computed once.

    Args:
        fit, validation: disjoint real images; the feature network saw at most the former.
        count: images a side, fewer where validation has fewer. Scores of different counts do not compare.
    """

    def __init__(self, fit: Images, validation: Images, *, count: int = QUICK) -> None:
        self.count = min(count, len(fit), len(validation))
        self._fit, self._validation = fit, validation

    @cached_property
    def network(self) -> FeatureNetwork:
        return load_feature_network(self._fit.name, self._fit.spec)

    @cached_property
    def _real(self) -> tuple[NDArray[np.float64], float]:
        """Features of the validation images, and the distance of as many fit images to them."""
        validation = self.network.features(_spread(self._validation, self.count))
        fit = self.network.features(_spread(self._fit, self.count))
        return validation, frechet_distance(fit, validation)["frechet"]

    def score(self, samples: Tensor) -> dict[str, float | int | str]:
        """Distance, floor and their ratio of samples uint8 (N, C, H, W): 1 is as close as other real images."""
        validation, floor = self._real
        distance = frechet_distance(self.network.features(samples[: self.count]), validation)["frechet"]
        return {
            "frechet": distance,
            "floor": floor,
            "ratio": distance / floor,
            "n": self.count,
            "features": self.network.name,
        }


def _spread(images: Images, count: int) -> Tensor:
    """`count` images, evenly from the whole set, since stored sets may be sorted by label."""
    step = len(images) // count
    return images.pixels[::step][:count]
