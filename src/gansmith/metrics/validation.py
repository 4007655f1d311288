"""The quick score during training: how far samples are from the held-out images, beside other real images.

    ratio = FD(samples, validation) / FD(fit, validation)

under every evaluator that ships, the worst counting. It chooses checkpoints and shows a trend; the test images, and
whether the score was come by honestly, are `protocol`'s affair. No loss ever sees an evaluator.
"""

from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from gansmith.data import Images
from gansmith.metrics.distances import frechet_of_moments, moments
from gansmith.metrics.features import FeatureNetwork, load_evaluators, spread

COUNT = 2_000  # samples, and images of either real side

Array = NDArray[np.float64]


class Judge:
    """Scores samples of one data set; the features of real images are computed once.

    Args:
        fit, validation: disjoint real images; the networks saw at most the former.
        count: samples and fit images, fewer where there are fewer. Scores of different counts do not compare.
    """

    def __init__(self, fit: Images, validation: Images, *, count: int = COUNT) -> None:
        self.count = min(count, len(fit))
        self._fit, self._validation = fit, validation

    @cached_property
    def networks(self) -> dict[str, FeatureNetwork]:
        return load_evaluators(self._fit)

    @cached_property
    def _real(self) -> dict[str, tuple[tuple[Array, Array], float]]:
        """By evaluator: moments of validation images, and the distance of as many fit images as samples to them."""
        found = {}
        for name, network in self.networks.items():
            validation = moments(network.features(spread(self._validation.pixels, COUNT)))
            fit = moments(network.features(spread(self._fit.pixels, self.count)))
            found[name] = (validation, frechet_of_moments(validation, fit))
        return found

    def score(self, samples: Tensor) -> dict[str, float | int | str]:
        """Distance, floor and ratio of `count` samples uint8 (N, C, H, W), by the evaluator that finds them worst."""
        worst: dict[str, float | int | str] = {}
        for name, network in self.networks.items():
            validation, floor = self._real[name]
            distance = frechet_of_moments(validation, moments(network.features(samples[: self.count])))
            if not worst or distance / floor > float(worst["ratio"]):
                worst = {"ratio": distance / floor, "frechet": distance, "floor": floor, "features": network.name}
        return {"tier": "validation", **worst, "n": self.count}
