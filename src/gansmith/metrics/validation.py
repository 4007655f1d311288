"""The score during training: how far samples are from the validation images, compared with training images.

    validation FD ratio = FD(samples, validation) / FD(train, validation)

is measured with the evaluators of the verdict, and the largest counts. It selects checkpoints and shows a trend; test
images and gates are left to `protocol`. No loss ever depends on an evaluator.

An evaluator that was trained on demand has memorised most training images, so those of the ratio are the ones
held out of its training. Its validation images are all there are, as the verdict's test images are, so that the two
ratios of equally many samples agree; evaluators that ship keep to equally many validation images, as the scores of
earlier runs were measured.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gansmith.data.images import Images
from gansmith.errors import ConfigError
from gansmith.metrics.classes import class_balance, recognised
from gansmith.metrics.distances import frechet_of_moments, moments
from gansmith.metrics.evaluator_training import fit_and_held_out
from gansmith.metrics.evaluators import (
    confusion_of,
    find_evaluators,
    knows_classes,
    move_evaluators,
    observe_real,
)
from gansmith.metrics.features import Evaluator, load_shipped
from gansmith.processes import agreed, any_of, is_first, joined_rows, split

COUNT = 2_000  # samples and training images
LARGEST_REFERENCE = 10_000  # validation images that evaluators trained on demand compare with

Array = NDArray[np.float64]


@dataclass(frozen=True)
class RealFigures:
    """Feature moments of the validation images by one evaluator, and the FD of training images from them."""

    moments: tuple[Array, Array]
    probabilities: Array
    fd_real: float


def _observe_together(network: Evaluator, samples: Tensor) -> tuple[Array, Array]:
    """Return the features and class probabilities of samples, each process observing its part of them."""
    parts = network.observe(split(samples))
    features, probabilities = (joined_rows(torch.from_numpy(part), len(samples)).numpy() for part in parts)
    return features, probabilities


class ValidationScorer:
    """Scores samples of one data set; the features of real images are computed once.

    Args:
        train, validation: disjoint real images; networks are trained on at most the former.
        train_split: all of the train split with its labels, where `train` is a part of it or has lost them. It stands
            for real images also where a run is shown some classes alone: scores compare with all of them.
        count: number of samples and of training images, fewer where there are fewer. Scores of different counts do not
            compare.
    """

    def __init__(
        self, train: Images, validation: Images, *, count: int = COUNT, train_split: Images | None = None
    ) -> None:
        self._train_split = train_split or train
        if load_shipped(train.name, train.spec):
            self._fresh, self._validation = self._train_split, validation.shuffled(count)
        else:
            self._fresh = fit_and_held_out(self._train_split)[1]
            self._validation = validation.shuffled(LARGEST_REFERENCE)
        self.count = min(count, len(self._fresh))

    @cached_property
    def networks(self) -> Mapping[str, Evaluator]:
        """The evaluators that score, trained first where need be; fewer where `prepare` left some out."""
        return find_evaluators(self._train_split)

    def move_to(self, device: torch.device) -> None:
        """Let the evaluators compute on a device."""
        move_evaluators(self.networks, device)

    @property
    def cost(self) -> int:
        """How many times as long a score takes as with evaluators that ship, roughly."""
        return 3 if "pretrained" in self.networks else 1

    def prepare(self, seconds: float, *, names: Collection[str] = (), planned: Collection[str] = ()) -> None:
        """Choose the evaluators of a run, once: process 0 does, and the others take the same.

        Args:
            seconds: that the run takes; one that is still to be trained is left out where these are too few for it.
            names: of those that have scored the run before, if it continues: the same ones score it again.
            planned: of those chosen when it began, if it continues without a score yet; those that are here score it.

        Raises ConfigError where a process lacks one of them.
        """
        if "networks" in self.__dict__:
            return
        chosen = agreed(partial(self._choose, seconds, names, planned))
        if not is_first():
            self.__dict__["networks"] = find_evaluators(self._train_split, names=chosen)
        if any(any_of(list(self.networks) != chosen)):
            raise ConfigError(
                f"process 0 scores with the evaluators {', '.join(chosen)}, and another process lacks one of them; "
                "install the same packages on all machines"
            )

    def _choose(self, seconds: float, names: Collection[str], planned: Collection[str]) -> list[str]:
        """Find the evaluators of a run, trained first where need be, and return their names."""
        if names:
            found = find_evaluators(self._train_split, names=names)
            if missing := sorted(set(names) - set(found)):
                raise ConfigError(
                    f"the run was scored by the evaluator {missing[0]}, which is not installed here; install it, or "
                    "set evaluate_every beyond the run's end"
                )
        else:
            found = find_evaluators(self._train_split, names=planned) if planned else {}
            found = found or find_evaluators(self._train_split, seconds=seconds)
        self.__dict__["networks"] = found
        return list(self.networks)

    @cached_property
    def real(self) -> dict[str, RealFigures]:
        """The figures of real images, by evaluator."""
        found = {}
        for name, network in self.networks.items():
            features, probabilities = observe_real(network, self._validation)
            validation, train = moments(features), moments(observe_real(network, self._fresh.shuffled(self.count))[0])
            found[name] = RealFigures(validation, probabilities, frechet_of_moments(validation, train))
        return found

    def score(self, samples: Tensor) -> dict[str, Any]:
        """Score `count` samples, uint8 (N, C, H, W).

        Returns:
            {"validation_fd_ratio", "fd", "fd_real", "features": of the evaluator with the largest ratio, "ratios": by
            evaluator, "n": number of samples, "recognised", "rarest_class", "modes": see `classes`, None where no
            evaluator knows classes well enough}.
        """
        samples = samples[: self.count]
        ratios, worst = {}, dict[str, Any]()
        known: dict[str, float | None] = dict.fromkeys(("recognised", "rarest_class", "modes"))
        for name, network in self.networks.items():
            real = self.real[name]
            features, probabilities = _observe_together(network, samples)
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
                found = class_balance(real.probabilities, probabilities, confusion_of(network))
                if knows_classes(network):
                    found |= recognised(real.probabilities, probabilities)
                known = {key: found.get(key) for key in known}
        return {"tier": "validation", **worst, "ratios": ratios, **known, "n": len(samples)}
