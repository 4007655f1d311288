"""The score during training: how far samples are from the validation images, compared with training images.

    validation FD ratio = FD(samples, validation) / FD(train, validation)

is measured with every evaluator that ships, and the largest counts. It selects checkpoints and shows a trend; test
images and gates are left to `protocol`. No loss ever depends on an evaluator.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from gansmith.data.images import Images
from gansmith.metrics.classes import class_balance, recognised
from gansmith.metrics.distances import frechet_of_moments, moments
from gansmith.metrics.features import FeatureNetwork, load_evaluators

COUNT = 2_000  # samples, validation images and training images

Array = NDArray[np.float64]


@dataclass(frozen=True)
class _Real:
    """Feature moments of the validation images by one evaluator, and the FD of as many training images from them."""

    moments: tuple[Array, Array]
    probabilities: Array
    fd_real: float


class ValidationScorer:
    """Scores samples of one data set; the features of real images are computed once.

    Args:
        train, validation: disjoint real images; networks are trained on at most the former.
        count: number of samples, of validation and of training images, fewer where there are fewer. Scores of
            different counts do not compare.
    """

    def __init__(self, train: Images, validation: Images, *, count: int = COUNT) -> None:
        self.count = min(count, len(train))
        self._train, self._validation = train, validation.shuffled(count).pixels

    @cached_property
    def networks(self) -> dict[str, FeatureNetwork]:
        """The evaluators of the data set, loaded on first use."""
        return load_evaluators(self._train)

    @cached_property
    def _real(self) -> dict[str, _Real]:
        found = {}
        for name, network in self.networks.items():
            features, probabilities = network.observe(self._validation)
            validation, train = moments(features), moments(network.features(self._train.shuffled(self.count).pixels))
            found[name] = _Real(validation, probabilities, frechet_of_moments(validation, train))
        return found

    def score(self, samples: Tensor) -> dict[str, Any]:
        """Score `count` samples, uint8 (N, C, H, W).

        Returns:
            {"validation_fd_ratio", "fd", "fd_real", "features": of the evaluator with the largest ratio, "ratios": by
            evaluator, "n": number of samples, "recognised", "rarest_class", "modes": see `classes`, None where there is
            no trained evaluator}.
        """
        samples = samples[: self.count]
        ratios, worst = {}, dict[str, Any]()
        known: dict[str, float | None] = dict.fromkeys(("recognised", "rarest_class", "modes"))
        for name, network in self.networks.items():
            real = self._real[name]
            features, probabilities = network.observe(samples)
            distance = frechet_of_moments(real.moments, moments(features))
            ratios[name] = distance / real.fd_real
            if ratios[name] == max(ratios.values()):
                worst = {
                    "validation_fd_ratio": ratios[name],
                    "fd": distance,
                    "fd_real": real.fd_real,
                    "features": network.name,
                }
            if name == "trained":
                found = class_balance(real.probabilities, probabilities) | recognised(real.probabilities, probabilities)
                known = {key: found[key] for key in known}
        return {"tier": "validation", **worst, "ratios": ratios, **known, "n": len(samples)}
