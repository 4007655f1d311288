"""One training run of a comparison, in a process of its own, and its validation FD ratio.

Every trial is an ordinary run: it can be resumed, evaluated and exported like any other. It is compared with the
validation images, so that comparing recipes never reads test images.
"""

import subprocess
import sys
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from gansmith.data import load_data
from gansmith.data.images import split
from gansmith.errors import GansmithError, RunError
from gansmith.metrics.validation import ValidationScorer
from gansmith.models import load_generator
from gansmith.runs import RunDirectory, open_run
from gansmith.sampling import sample

SAMPLES = 10_000
FAILED, REFUSED = 1, 2  # exit codes of `train`
STANDARD_ERROR = 2  # this process's own; a trial's progress is not part of the table


class Interrupted(Exception):
    """A trial was stopped by a signal; `code` is what to exit with."""

    def __init__(self, code: int) -> None:
        super().__init__(f"stopped with exit code {code}")
        self.code = code


def hash_of_images(choices: Mapping[str, object]) -> str:
    """Return the SHA-256 of the images that trials with these flags are trained on."""
    return load_data(str(choices["data"]), data_dir=str(choices.get("data_dir") or "") or None).sha256


def refuse_other_images(held: Mapping[str, Any], data_sha256: str, *, named: str) -> None:
    """Raise RunError where the trials were trained on other images of the same name, as the embedded digits are."""
    begun = held.get("data_sha256", data_sha256)
    if begun != data_sha256:
        raise RunError(
            f"{named} on images with SHA-256 {begun}, and those found now have {data_sha256}; restore the "
            "old ones, or give another place with --out"
        )


def train_trial(directory: Path, recipe: str, choices: Mapping[str, object]) -> bool:
    """Train a recipe with these flags in a new process, or what is left of it; False after a training failure.

    Raises Interrupted where it was stopped, GansmithError where the request was refused.
    """
    if _is_finished(directory):
        return True
    flags = [f"--{name.replace('_', '-')}={value}" for name, value in choices.items()]
    words = ["train", recipe, "--out", str(directory), "--progress", "plain", *flags]
    code = subprocess.call([sys.executable, "-m", "gansmith", *words], stdout=STANDARD_ERROR)
    if code == REFUSED:
        raise GansmithError(f"{recipe} cannot be trained like this; the sentence above says why")
    if code not in (0, FAILED) or (code == FAILED and not _has_failed(directory)):
        raise Interrupted(128 - code if code < 0 else code)
    return code == 0


def _has_failed(directory: Path) -> bool:
    """Whether the run stopped for a training failure, not for a full disk or a mistake of the program."""
    rows = open_run(directory).log if (directory / "config.toml").is_file() else []
    return bool(rows) and rows[-1].get("kind") == "failure"


def _is_finished(directory: Path) -> bool:
    return (directory / "config.toml").is_file() and open_run(directory).facts().get("status") == "finished"


def score_trial(directory: Path) -> dict[str, Any]:
    """Return the validation FD ratio of a finished run's generator, and how the run got there.

    Returns:
        what `ValidationScorer.score` says of SAMPLES samples (fewer for small sets);
        images, images_per_s: how long and how fast it trained; curve: [images seen, validation FD ratio] on the way.
    """
    run = open_run(directory)
    scorer = _scorer(run.config.data, run.config.data_dir)
    samples, _ = sample(load_generator(directory), seed=0, count=scorer.count)
    return {
        **scorer.score(samples),
        "images": run.config.images,
        "images_per_s": _images_per_s(run),
        "curve": [[row["images_seen"], row["validation_fd_ratio"]] for row in run.validation_scores()],
    }


@cache
def _scorer(data: str, data_dir: str) -> ValidationScorer:
    """Return the scorer of every trial on one data set."""
    return ValidationScorer(*split(load_data(data, data_dir=data_dir or None)), count=SAMPLES)


def _images_per_s(run: RunDirectory) -> float:
    """Return the median rate of a run's log lines; a run that was resumed has no one wall time."""
    rates = sorted(row["images_per_s"] for row in run.log if row.get("images_per_s"))
    return float(rates[len(rates) // 2]) if rates else 0.0
