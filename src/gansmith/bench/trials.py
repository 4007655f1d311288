"""One training run of a comparison, in a process of its own, and how it is judged.

Every trial is an ordinary run: it can be resumed, looked at and exported like any other. It is judged on the
validation split, so that comparing recipes never reads test images.
"""

import subprocess
import sys
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from torch import Tensor

from gansmith.data import Images, load_data, split
from gansmith.generate import load_model, sample
from gansmith.metrics.classes import class_balance, recognised
from gansmith.metrics.distances import frechet_of_moments, moments
from gansmith.metrics.features import FeatureNetwork, load_evaluators, spread
from gansmith.runs import Run, open_run

SAMPLES = 10_000
DIVERGED, REFUSED = 1, 2  # exit codes of `train`
STANDARD_ERROR = 2  # this process's own; what a trial says of itself is not part of the table


class Interrupted(Exception):
    """A trial was stopped by a signal; `code` is what to exit with."""

    def __init__(self, code: int) -> None:
        super().__init__(f"stopped with exit code {code}")
        self.code = code


def train_trial(directory: Path, recipe: str, choices: Mapping[str, object]) -> bool:
    """Train a recipe with these flags in a new process, or what is left of it; False where its loss diverged.

    Raises Interrupted where it was stopped, ValueError where the request was refused.
    """
    if _is_finished(directory):
        return True
    flags = [word for name, value in choices.items() for word in (f"--{name.replace('_', '-')}", str(value))]
    words = ["train", recipe, "--out", str(directory), "--progress", "plain", *flags]
    code = subprocess.call([sys.executable, "-m", "gansmith", *words], stdout=STANDARD_ERROR)
    if code == REFUSED:
        raise ValueError(f"{recipe} cannot be trained like this; the sentence above says why")
    if code not in (0, DIVERGED):
        raise Interrupted(128 - code if code < 0 else code)
    return code == 0


def _is_finished(directory: Path) -> bool:
    return (directory / "config.toml").is_file() and open_run(directory).facts().get("status") == "finished"


def judge_trial(directory: Path) -> dict[str, Any]:
    """What a finished run's generator is worth beside the validation split, and how the run got there.

    Returns:
        ratio, features: Frechet distance of SAMPLES samples (fewer for small sets) to the validation images over that
            of as many training images, by the evaluator that finds the samples worst; n: how many;
        recognised, rarest_class, modes: of the same samples, None where no classifier ships for the data set;
        images, images_per_s: how long and how fast it trained; curve: [images seen, ratio] of its scores on the way.
    """
    run = open_run(directory)
    real = _Real.of(run.config.dataset, run.config.data_dir)
    samples, _ = sample(load_model(directory), seed=0, count=real.count)
    scores = run.metrics()
    return {
        **real.score(samples),
        "images": run.config.images,
        "images_per_s": _images_per_s(run),
        "curve": [[row["images_seen"], row["ratio"]] for row in scores if row.get("tier") == "validation"],
    }


class _Real:
    """The real side of every trial on one data set, computed once."""

    def __init__(self, fit: Images, validation: Images) -> None:
        self.count = min(SAMPLES, len(fit))
        self.networks: dict[str, FeatureNetwork] = load_evaluators(fit)
        self.seen = {name: network.observe(validation.pixels) for name, network in self.networks.items()}
        others = spread(fit.pixels, self.count)
        self.real = {name: moments(features) for name, (features, _) in self.seen.items()}
        self.floors = {
            name: frechet_of_moments(self.real[name], moments(network.features(others)))
            for name, network in self.networks.items()
        }

    @staticmethod
    @cache
    def of(dataset: str, data_dir: str) -> "_Real":
        return _Real(*split(load_data(dataset, data_dir=data_dir or None)))

    def score(self, samples: Tensor) -> dict[str, Any]:
        found: dict[str, Any] = {"n": len(samples), "recognised": None, "rarest_class": None, "modes": None}
        ratios = {}
        for name, network in self.networks.items():
            features, fake = network.observe(samples)
            ratios[network.name] = frechet_of_moments(self.real[name], moments(features)) / self.floors[name]
            if name == "trained":
                real = self.seen[name][1]
                found |= {**class_balance(real, fake), **recognised(real, fake)}
        worst = max(ratios, key=ratios.__getitem__)
        return {"ratio": ratios[worst], "features": worst, "ratios": ratios, **found}


def _images_per_s(run: Run) -> float:
    """The middle rate of a run's log lines; a run that was resumed has no one wall time."""
    rates = sorted(row["images_per_s"] for row in run.log() if row.get("images_per_s"))
    return float(rates[len(rates) // 2]) if rates else 0.0
