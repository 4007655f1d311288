"""The training runs of a comparison, each in a process of its own, and their validation FD ratios.

Every trial is an ordinary run: it can be resumed, evaluated and exported like any other. It is compared with the
validation images, so that comparing recipes never reads test images.
"""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from gansmith.config import FIELDS, Config, is_path, resolve
from gansmith.data import as_path, load_data
from gansmith.data.images import split
from gansmith.data.prepare import Preparation
from gansmith.errors import ConfigError, GansmithError, RunError, reason_of
from gansmith.files import read_json, write_json
from gansmith.metrics.validation import ValidationScorer
from gansmith.models import load_generator
from gansmith.runs import RunDirectory, holds_run, open_run
from gansmith.sampling import sample
from gansmith.training.inputs import preparation
from gansmith.training.own_rows import custom_choices
from gansmith.workers import Interrupted, LocalPool, Pool, run_tasks
from gansmith.workers.process import Task, own_program

SAMPLES = 10_000
FAILED, REFUSED, INTERRUPTED, TERMINATED = 1, 2, 130, 143  # exit codes of `train`
Key = TypeVar("Key")


def with_environment(choices: Mapping[str, object]) -> dict[str, object]:
    """Return these fields, and before them those of the environment that change what is learnt, as every trial has."""
    config = resolve(environ=os.environ, arguments=choices)
    asked = [name for name, source in config.origins.items() if source == "environment"]
    found = {name: getattr(config, name) for name in asked if not FIELDS[name].metadata["is_circumstance"]}
    return {**found, **choices}


def refuse_unseen(config: Config) -> None:
    """Raise ConfigError for rows that this program defined where the processes that train cannot run it."""
    own = custom_choices(config)
    if as_path(config.data) != config.data:  # a folder here
        own.pop("data", None)
    if own and own_program() is None:
        what, name = next(iter(own.items()))
        raise ConfigError(
            f"the {what} {name!r} is defined by this program, which the processes of trials do not see; define it in a "
            "file that ends by calling gansmith.cli.main, and start the trials as python FILE (docs/adding-things.md)"
        )


def shared_choices(recipes: Sequence[str], choices: Mapping[str, object]) -> dict[str, object]:
    """Return the fields of every trial of these recipes, the environment's too; ConfigError as of `refuse_unseen`."""
    found = with_environment(choices)
    for recipe in recipes:
        refuse_unseen(resolve(recipe, arguments=found))
    return found


def hash_of_images(choices: Mapping[str, object]) -> str:
    """Return the SHA-256 of the images that trials with these flags are trained on."""
    config = resolve(arguments=choices)
    return load_data(config.data, data_dir=config.data_dir or None, how=preparation(config)).sha256


def open_table(path: Path, settings: Mapping[str, object], *, what: str, data_sha256: str) -> dict[str, Any]:
    """Return the trials of a file, or none yet; RunError where it was begun with other settings or other images.

    A new one is written at once, so that runs it has begun belong to its settings. Images of one name may differ, as
    the embedded digits do from all of MNIST.
    """
    held: dict[str, Any] = {"settings": dict(settings), "trials": []}
    is_new = True
    if path.is_file():
        found = read_table(path)
        is_new = not (found["trials"] or any((path.parent / "runs").glob("*/config.toml")))
        held = held if is_new else found
    if held["settings"] != dict(settings):
        raise RunError(
            f"{path.parent} holds {what} with {held['settings']}, not {dict(settings)}; give another place with --out"
        )
    begun = held.get("data_sha256", data_sha256)
    if begun != data_sha256:
        raise RunError(
            f"{path.parent} holds {what} on images with SHA-256 {begun}, and those found now have {data_sha256}; "
            "restore the old ones, or give another place with --out"
        )
    table = {"settings": held["settings"], "data_sha256": data_sha256, "trials": held["trials"]}
    if is_new:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, {**table, "rows": []})
    return table


def trial_task(
    name: str, directory: Path, recipe: str, choices: Mapping[str, object], pool: Pool, *, log: Path | None = None
) -> Task:
    """Return the training of a recipe with these flags.

    Its progress goes to the file `log`; where None, to standard error if it runs alone, else to a file in logs beside
    the folder of its run. Threads are those of the pool, but for a run that has begun with others.
    """
    threads = {"threads": pool.threads} if pool.threads and not holds_run(directory) else {}
    choices = dict(choices) if isinstance(pool, LocalPool) else with_whole_paths(choices)
    flags = [f"--{name.replace('_', '-')}={value}" for name, value in (threads | choices).items()]
    is_alone = isinstance(pool, LocalPool) and pool.size == 1
    log = log or (None if is_alone else directory.parent.parent / "logs" / f"{directory.name}.txt")
    return Task(name, directory, ("train", recipe, "--progress", "plain", *flags), log)


def with_whole_paths(choices: Mapping[str, object]) -> dict[str, object]:
    """Return these fields with paths from the root, as other machines see them."""
    paths = {name: str(value) for name in ("data", "data_dir", "start_from") if (value := choices.get(name))}
    relative = {name: value for name, value in paths.items() if name != "data" or is_path(value)}
    return {**choices, **{name: str(Path(value).expanduser().absolute()) for name, value in relative.items()}}


def train_trials(
    tasks: Mapping[Key, Task], pool: Pool, report: Callable[[str], None] = lambda line: None, *, images: int = 0
) -> Iterator[tuple[Key, bool]]:
    """Train these, or what is left of them, and yield each key with whether it was trained; False: it failed.

    Args:
        report: is given the name of each as it begins.
        images: length that a finished run must have to be left as it is; 0: any.

    Raises Interrupted where it was stopped, GansmithError where a request was refused.
    """
    keys = {task: key for key, task in tasks.items()}
    done = [key for key, task in tasks.items() if is_finished(task.directory, images)]
    yield from ((key, True) for key in done)
    waiting = _reported([task for key, task in tasks.items() if key not in done], report)
    try:
        for task, ended in run_tasks(lambda: next(waiting, None), pool):
            if ended.code == REFUSED:
                reason = "the sentence above says why" if task.log is None else ended.reason
                raise GansmithError(f"{task.words[1]} cannot be trained like this; {reason}")
            if ended.code not in (0, FAILED) or (ended.code == FAILED and not has_failed(task.directory)):
                reason = f"{task.name}: {ended.reason}" if ended.reason else ""
                raise Interrupted(128 - ended.code if ended.code < 0 else ended.code, reason)
            yield keys[task], ended.code == 0
    except KeyboardInterrupt:
        raise Interrupted(INTERRUPTED) from None


def _reported(tasks: Sequence[Task], report: Callable[[str], None]) -> Iterator[Task]:
    for task in tasks:
        report(task.name)
        yield task


def is_finished(directory: Path, images: int = 0) -> bool:
    """Return whether a directory holds a run that reached its length, which is `images` where given."""
    if not (directory / "config.toml").is_file():
        return False
    run = open_run(directory)
    return run.facts().get("status") == "finished" and images in (0, run.config.images)


def has_failed(directory: Path) -> bool:
    """Return whether the run stopped for a training failure, not for a full disk or a mistake of the program."""
    rows = open_run(directory).log if (directory / "config.toml").is_file() else []
    return bool(rows) and rows[-1].get("kind") == "failure"


def refuse_other_images(run: RunDirectory, data_sha256: str) -> None:
    """Raise GansmithError for a trial on other images of the same name, as where a node of a cluster lacks the set."""
    if not run.is_trained_on(data_sha256):
        raise GansmithError(
            f"{run.directory} was trained on other images of this name than are here, as where the machine that "
            "trained it lacks the set; give every machine the same images (--data-dir), and remove that run"
        )


def score_trial(directory: Path, data_sha256: str) -> dict[str, Any]:
    """Return the validation FD ratio of a finished run's generator, and how the run got there.

    Args:
        data_sha256: of the images that all trials are trained on; see `refuse_other_images`.

    Returns:
        what `ValidationScorer.score` says of SAMPLES samples (fewer for small sets);
        images, images_per_s: how long and how fast it trained; curve: [images seen, validation FD ratio] on the way.
    """
    run = open_run(directory)
    refuse_other_images(run, data_sha256)
    scorer = _scorer(run.config.data, run.config.data_dir, preparation(run.config))
    samples, _ = sample(load_generator(directory), seed=0, count=scorer.count)
    return {
        **scorer.score(samples),
        "images": min(run.images_seen, run.config.images),
        "images_per_s": images_per_s(run),
        "curve": [[row["images_seen"], row["validation_fd_ratio"]] for row in run.validation_scores()],
    }


@cache
def _scorer(data: str, data_dir: str, how: Preparation) -> ValidationScorer:
    """Return the scorer of every trial on one data set."""
    return ValidationScorer(*split(load_data(data, data_dir=data_dir or None, how=how)), count=SAMPLES)


def images_per_s(run: RunDirectory) -> float:
    """Return the median rate of a run's log lines; a run that was resumed has no one wall time."""
    rates = sorted(row["images_per_s"] for row in run.log if row.get("images_per_s"))
    return float(rates[len(rates) // 2]) if rates else 0.0


def read_table(path: Path) -> dict[str, Any]:
    """Return the settings and trials of a board or an ablation. Raises RunError for a damaged file."""
    try:
        held = read_json(path)
        if not (isinstance(held["settings"], dict) and isinstance(held["trials"], list)):
            raise ValueError("its settings and trials are missing")
    except (KeyError, TypeError, ValueError) as error:
        raise RunError(f"{path} cannot be read ({reason_of(error)}); give another --out") from None
    return held
