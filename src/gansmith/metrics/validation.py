"""The quick score during training: how far samples are from the held-out images, beside other real images.

    ratio = FD(samples, validation) / FD(fit, validation)

under every evaluator that ships, the worst counting. It chooses checkpoints and shows a trend; the test images, and
whether the score was come by honestly, are `protocol`'s affair. No loss ever sees an evaluator.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from gansmith.data import Images
from gansmith.metrics.classes import class_balance, recognised
from gansmith.metrics.distances import frechet_of_moments, moments
from gansmith.metrics.features import FeatureNetwork, load_evaluators

COUNT = 2_000  # samples, and images of either real side

Array = NDArray[np.float64]


@dataclass(frozen=True)
class _Real:
    """What one evaluator makes of the real images: the held-out ones, and how far as many fit images are from them."""

    moments: tuple[Array, Array]
    probabilities: Array
    floor: float


class Judge:
    """Scores samples of one data set; the features of real images are computed once.

    Args:
        fit, validation: disjoint real images; the networks saw at most the former.
        count: samples, validation and fit images, fewer where there are fewer. Scores of different counts do not
            compare.
    """

    def __init__(self, fit: Images, validation: Images, *, count: int = COUNT) -> None:
        self.count = min(count, len(fit))
        self._fit, self._validation = fit, validation.shuffled(count).pixels

    @cached_property
    def networks(self) -> dict[str, FeatureNetwork]:
        return load_evaluators(self._fit)

    @cached_property
    def _real(self) -> dict[str, _Real]:
        found = {}
        for name, network in self.networks.items():
            features, probabilities = network.observe(self._validation)
            validation, fit = moments(features), moments(network.features(self._fit.shuffled(self.count).pixels))
            found[name] = _Real(validation, probabilities, frechet_of_moments(validation, fit))
        return found

    def score(self, samples: Tensor) -> dict[str, Any]:
        """What `count` samples uint8 (N, C, H, W) are worth.

        Returns:
            ratio, frechet, floor, features: by the evaluator that finds them worst; ratios: by each; n: how many;
            recognised, rarest_class, modes: see `classes`, None where no trained evaluator knows the classes.
        """
        samples = samples[: self.count]
        ratios, worst = {}, dict[str, Any]()
        known: dict[str, float | None] = dict.fromkeys(("recognised", "rarest_class", "modes"))
        for name, network in self.networks.items():
            real = self._real[name]
            features, probabilities = network.observe(samples)
            distance = frechet_of_moments(real.moments, moments(features))
            ratios[name] = distance / real.floor
            if ratios[name] == max(ratios.values()):
                worst = {"ratio": ratios[name], "frechet": distance, "floor": real.floor, "features": network.name}
            if name == "trained":
                found = class_balance(real.probabilities, probabilities) | recognised(real.probabilities, probabilities)
                known = {key: found[key] for key in known}
        return {"tier": "validation", **worst, "ratios": ratios, **known, "n": len(samples)}
