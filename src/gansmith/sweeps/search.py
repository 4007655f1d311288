"""A sweep: many trials of one search space, each an ordinary run, in a folder that the same command continues.

    sweep.json  study.db  runs/0000/  logs/0000.txt  report.html

The study has each trial before its run begins; so whenever a sweep is killed, its
trials that had begun are continued from their checkpoints, and none is lost or drawn twice.
"""

import contextlib
import os
import signal
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gansmith.benchmarks.trials import (
    FAILED,
    INTERRUPTED,
    REFUSED,
    TERMINATED,
    images_per_s,
    is_finished,
    refuse_other_images,
    refuse_unseen,
    trial_task,
    with_whole_paths,
)
from gansmith.config import resolve
from gansmith.errors import ConfigError, GansmithError, NotFoundError, RunError
from gansmith.files import PARTIAL, is_left_by_system, read_json, write_json
from gansmith.models import load_generator
from gansmith.runs import holds_run, is_locked, locked, open_run
from gansmith.sampling import is_whole
from gansmith.sweeps import studies
from gansmith.sweeps.space import TABLES, Space, to_words
from gansmith.training.chores import scores_in
from gansmith.training.inputs import choose_images
from gansmith.workers import Ended, Interrupted, Pool, run_tasks
from gansmith.workers.process import LOST, Task, scores_of

if TYPE_CHECKING:
    from optuna.study import Study
    from optuna.trial import Trial

FORMAT = 1
FACTS = "sweep.json"
TRIALS = 20  # where none are asked for
MOST_REFUSED = 3  # trials in a row at the start, after which none would do better
MOST_ALIKE = 8  # trials in a row that are refused for the same reason
LEAST_SCORES = 4  # of a trial that may be pruned

Report = Callable[[str], None]


def plan_sweep(
    recipe: str | None,
    space: Space,
    *,
    length: Mapping[str, object] | None,
    choices: Mapping[str, object],
    file: Path | None = None,
    sampler: str = "tpe",
    prune: str | None = None,
    objectives: Sequence[str] = ("fd-ratio",),
) -> dict[str, Any]:
    """Return the settings of a sweep, checked; loads the images, and writes nothing.

    Args:
        length: {"minutes": M} or {"images": N}, of each trial; None: that of `file`, else a minute.
        choices: fields that every trial has; those of `file` and of the environment are added.
        prune: none, median or halving; by default median, and none for several objectives.

    Raises ConfigError for what cannot be searched, GansmithError for data that cannot be trained on.
    """
    studies.import_optuna()
    objectives = list(objectives)
    prune = prune or ("median" if len(objectives) == 1 and objectives[0] == "fd-ratio" else "none")
    _refuse_method(sampler, prune, objectives)
    if not space:
        raise ConfigError("there is nothing to search; give fields, such as --search g-lr,network=compact,r3gan")
    config = resolve(recipe, file=file, environ=os.environ, arguments=choices)
    for name in TABLES.keys() & space.keys():
        for value in space[name]["choices"]:
            refuse_unseen(config.replace(**{name: value}))
    refuse_unseen(config)
    given = {name: getattr(config, name) for name, origin in config.origins.items() if origin != "recipe"}
    given.pop("recipe", None)
    both = [name for name in space if name in given]
    if both:
        raise ConfigError(f"{both[0]} is both searched and given ({config.origins[both[0]]}); omit one of the two")
    given = with_whole_paths(given)
    if config.use_all_training_images:
        raise ConfigError("use_all_training_images leaves no validation images to compare trials with; omit it")
    own_length = given.pop("images", None)  # of a file or of the environment
    length = length or ({"images": own_length} if own_length else {"minutes": 1.0})
    given.setdefault("keep_last", 1)
    if sampler == "grid":
        studies.grid_size(space)
    return {
        "recipe": config.recipe,
        "data": config.data,
        "length": dict(length),
        "choices": given,
        "space": space,
        "sampler": sampler,
        "prune": prune,
        "objectives": objectives,
        "seed": config.seed,
        "data_sha256": choose_images(config)[0].sha256,
    }


def _refuse_method(sampler: str, prune: str, objectives: Sequence[str]) -> None:
    """Raise ConfigError for a sampler, a pruner or objectives that do not exist or do not go together."""
    for what, value, allowed in (
        ("sampler", sampler, studies.SAMPLERS),
        ("prune", prune, studies.PRUNERS),
        *(("objective", one, tuple(studies.OBJECTIVES)) for one in objectives),
    ):
        if value not in allowed:
            raise ConfigError(f"{what} is {value!r}; it must be one of {', '.join(allowed)}")
    if not objectives or len(set(objectives)) < len(objectives):
        raise ConfigError("objectives must be one or more, each once, such as fd-ratio or fd-ratio,images-per-s")
    if prune != "none" and list(objectives) != ["fd-ratio"]:
        raise ConfigError(
            f"prune is {prune!r}, which compares FD ratios alone; choose none for {', '.join(objectives)}"
        )


def describe_settings(settings: Mapping[str, Any]) -> str:
    """Return what a sweep does in a sentence."""
    [(unit, amount)] = settings["length"].items()
    given = {name: value for name, value in settings["choices"].items() if name != "keep_last"}
    listing = "".join(f", {name} {value}" for name, value in given.items())
    prune = "no pruning" if settings["prune"] == "none" else f"{settings['prune']} pruning"
    return (
        f"{settings['recipe']}, {amount:,} {unit} a trial{listing}; searches {to_words(settings['space'])} by "
        f"{settings['sampler']} with {prune} for {' and '.join(settings['objectives'])}"
    )


def read_facts(folder: Path) -> dict[str, Any]:
    """Return what a sweep's folder says of it; NotFoundError where the folder holds none."""
    try:
        facts = read_json(folder / FACTS)
        if facts["format"] != FORMAT or not isinstance(facts["settings"], dict):
            raise ValueError(f"its format is not {FORMAT}")
    except FileNotFoundError:
        raise NotFoundError(
            f"{folder} holds no sweep (no {FACTS}); give a folder that `gansmith sweep` wrote"
        ) from None
    except (KeyError, ValueError) as error:
        raise RunError(f"{folder / FACTS} cannot be read ({error}); give another folder") from None
    return facts


@contextlib.contextmanager
def opened_study(folder: Path, *, storage: str | None = None) -> Iterator["Study"]:
    """Give the study of a sweep; ConfigError where it lies in a database and its address is not given."""
    facts = read_facts(folder)
    if storage is None and facts["storage"] is not None:
        raise ConfigError(f"this sweep's trials are in {facts['storage']}; give the address with --storage")
    url = storage or studies.local_storage(folder)
    with studies.quiet_optuna(), studies.opened_storage(url) as opened:
        yield studies.load_study(opened, facts["study"])


def run_sweep(
    folder: Path,
    settings: Mapping[str, Any],
    *,
    trials: int | None = None,
    pool: Pool,
    storage: str | None = None,
    study: str | None = None,
    report: Report = lambda line: None,
) -> None:
    """Train what a sweep lacks of its trials; the same call continues one that was stopped.

    Args:
        trials: number of them in the study, failed and pruned ones included; by default as many as before, 20 for a
            new sweep, all points of a grid.
        storage: address of the database, a SQLite file in the folder where None.
        study: its name there; the folder's name where None. Sweeps of several machines share a study.

    Raises RunError where the folder holds another sweep or one that is running, Interrupted where it was stopped.
    """
    if trials is not None and not (is_whole(trials) and 1 <= trials <= 100_000):
        raise ConfigError(f"trials is {trials!r}; it must be between 1 and 100,000, such as 20")
    trials = None if trials is None else int(trials)
    facts = _begin(folder, settings, storage=storage, study=study, trials=trials)
    url = storage or studies.local_storage(folder)
    with locked(folder), studies.quiet_optuna(), _begun_study(folder, facts, url) as found:
        found.pruner = studies.pruner_of(settings["prune"])
        search = Search(folder, found, settings, facts["id"], facts["trials"], pool, report)
        search.begun = studies.unfinished_trials(found, settings, owner=facts["id"])
        try:
            with _sigterm_raised():
                for task, ended in run_tasks(search.next_task, pool, should_stop=search.should_stop):
                    search.conclude(task, ended)
        except Terminated:
            report(_STOPPED)
            raise Interrupted(TERMINATED) from None
        except Interrupted as stopped:
            if stopped.code == TERMINATED:
                report(f"a trial was ended by SIGTERM; {_STOPPED}")
            raise
        except KeyboardInterrupt:
            raise Interrupted(INTERRUPTED) from None


# Said before SIGTERM is passed on, which ends this process.
_STOPPED = "stopped; the same command continues the sweep"


class Terminated(KeyboardInterrupt):
    """SIGTERM arrived."""


@contextlib.contextmanager
def _sigterm_raised() -> Iterator[None]:
    """Raise Terminated where the first SIGTERM arrives, and ignore others; nothing changes outside the main thread."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, _raise_terminated)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL if before is None else before)


def _raise_terminated(number: int, frame: object) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # trials are stopped and saved now
    raise Terminated


def _begin(
    folder: Path, settings: Mapping[str, Any], *, storage: str | None, study: str | None, trials: int | None
) -> dict[str, Any]:
    """Return what sweep.json will say; RunError where the folder holds anything else."""
    if is_locked(folder):
        raise RunError(f"a sweep is running in {folder}; wait for it or stop it, or give another --out")
    try:
        facts = read_facts(folder)
    except NotFoundError:
        begun = (".lock", "study.db", PARTIAL)  # how the names begin that a start killed at once leaves
        inside = [p.name for p in folder.iterdir() if not is_left_by_system(p.name)] if folder.is_dir() else []
        if folder.is_file() or not all(name.startswith(begun) for name in inside):
            raise RunError(f"{folder} holds other things and no sweep; give another --out") from None
        folder.mkdir(parents=True, exist_ok=True)
        facts = {"format": FORMAT, "id": uuid.uuid4().hex, "study": study or folder.absolute().name}
        facts |= {"storage": storage and studies.without_password(storage), "settings": dict(settings)}
        facts["trials"] = TRIALS if settings["sampler"] != "grid" else studies.grid_size(settings["space"])
    if difference := studies.difference(facts["settings"], settings):
        raise RunError(f"{folder} holds a sweep with {difference}; give another --out")
    if study not in (None, facts["study"]) or (storage and studies.without_password(storage)) != facts["storage"]:
        place = facts["storage"] or "a file in it"
        raise RunError(f"{folder} holds a sweep in {place}, study {facts['study']!r}; give the same, or another --out")
    trials = trials or facts["trials"]
    if settings["sampler"] == "grid":
        trials = min(trials, studies.grid_size(settings["space"]))
    return {**facts, "trials": trials}


@contextlib.contextmanager
def _begun_study(folder: Path, facts: Mapping[str, Any], url: str) -> Iterator["Study"]:
    """Write sweep.json, then give the study; a new sweep whose storage or study is refused leaves no sweep.json."""
    is_new = not (folder / FACTS).is_file()
    write_json(folder / FACTS, facts)
    with contextlib.ExitStack() as held:
        try:
            opened = held.enter_context(studies.opened_storage(url))
            study = studies.create_study(opened, facts["study"], facts["settings"])
        except GansmithError:
            if is_new:
                (folder / FACTS).unlink()
            raise
        yield study


@dataclass
class Search:
    """A sweep that is running.

    Attributes:
        owner: of the trials that are this sweep's, in a study that several may share.
        trials: number of them in the study.
        begun: trials that were being trained when the sweep was stopped.
    """

    folder: Path
    study: "Study"
    settings: Mapping[str, Any]
    owner: str
    trials: int
    pool: Pool
    report: Report
    begun: list["Trial"] = field(default_factory=list)
    running: dict[Task, "Trial"] = field(default_factory=dict)
    reported: dict[Task, int] = field(default_factory=dict)
    pruned: set[Task] = field(default_factory=set)
    refused: int = 0
    in_a_row: list[str] = field(default_factory=list)  # reasons of the newest trials, all refused for one

    def next_task(self) -> Task | None:
        """Return the training of a trial that was begun before, or of a new one; None when there are enough."""
        while True:
            trial = self.begun.pop(0) if self.begun else self._new_trial()
            if trial is None:
                return None
            task = self._task(trial)
            self.running[task] = trial
            if is_finished(task.directory):
                self.conclude(task, Ended(0))
            elif holds_run(task.directory) and self.should_stop(task, scores_of(task.directory)):
                self.conclude(task, Ended(TERMINATED))
            else:
                self.report(f"trial {trial.number}: {_values(trial.params)}")
                return task

    def _new_trial(self) -> "Trial | None":
        if len(studies.trials_of(self.study)) >= self.trials:
            return None
        trial = studies.next_trial(self.study, self.settings, owner=self.owner)
        if sum(one.number < trial.number for one in studies.trials_of(self.study)) < self.trials:
            return trial
        self._tell(trial, "FAIL", reason=studies.SURPLUS)
        return None

    def _task(self, trial: "Trial") -> Task:
        """Return the training of a trial, in a run directory with its number."""
        directory = self.folder / "runs" / f"{trial.number:04d}"
        flags = {**self.settings["length"], **self.settings["choices"], **trial.params}
        flags.setdefault("seed", self.settings["seed"])
        if self.settings["prune"] != "none" and (every := self._images_between_scores()):
            flags.setdefault("evaluate_every", every)
        if "threads" in flags and holds_run(directory):
            del flags["threads"]  # a run goes on with those it began with
        recipe = str(flags.pop("recipe", self.settings["recipe"]))
        log = self.folder / "logs" / f"{directory.name}.txt"
        return trial_task(f"trial {trial.number}", directory, recipe, flags, self.pool, log=log)

    def _images_between_scores(self) -> int:
        """Return the interval that gives a trial scores to be pruned by; 0 where no trial has shown how long one is."""
        images = self.settings["length"].get("images")
        if images is None:
            found = [trial.user_attrs.get("images") for trial in self.study.get_trials(deepcopy=False)]
            lengths = sorted(length for length in found if length)
            images = lengths[len(lengths) // 2] if lengths else 0
        config = resolve(self.settings["recipe"], arguments=self.settings["choices"])
        return int(images) // max(LEAST_SCORES, scores_in(config, int(images)))

    def should_stop(self, task: Task, scores: Sequence[tuple[float, float]]) -> bool:
        """Report new scores of a trial, and return whether it is to be pruned now."""
        is_known = self.reported.get(task, 0) == len(scores) or task in self.pruned
        if is_known or len(self.settings["objectives"]) > 1:
            return False
        self.reported[task] = len(scores)
        is_pruned = studies.report_scores(self.running[task], scores) and scores[-1][0] < 1
        if is_pruned:
            self.pruned.add(task)
        return is_pruned

    def conclude(self, task: Task, ended: Ended) -> None:
        """Record how a trial ended. Raises Interrupted for one that a signal or a full disk stopped."""
        trial, directory = self.running.pop(task), task.directory
        if ended.code == 0 or is_finished(directory):
            self._finish(trial, directory)
        elif task in self.pruned:
            share, ratio = scores_of(directory)[-1]
            self._tell(trial, "PRUNED", share=share, validation_fd_ratio=ratio)
            self.report(f"{task.name}: pruned after {share:.0%} at validation FD ratio {ratio:.2f}")
        elif ended.code in (INTERRUPTED, TERMINATED, 128 - INTERRUPTED, 128 - TERMINATED):
            code = ended.code if ended.code > 0 else 128 - ended.code
            raise Interrupted(code, f"{task.name} was sent {signal.Signals(code - 128).name}")
        elif ended.code == LOST and not trial.user_attrs.get(_LOST_BEFORE):  # the second time it fails
            trial.set_user_attr(_LOST_BEFORE, True)
            raise GansmithError(f"{task.name} was stopped: {ended.reason}; the same command continues it")
        elif ended.code == FAILED and _has_no_room(directory):
            raise GansmithError(f"{task.name} was stopped: {ended.reason}")
        else:
            self._tell(trial, "FAIL", reason=ended.reason, log=str(task.log))
            self.report(f"{task.name}: failed: {ended.reason}")
            self._refuse_all(ended)

    def _finish(self, trial: "Trial", directory: Path) -> None:
        """Record the figures of a run that reached its length."""
        self.in_a_row = []
        run = open_run(directory)
        refuse_other_images(run, self.settings["data_sha256"])
        scores = run.validation_scores()
        ratio = scores[-1]["validation_fd_ratio"] if scores else None
        network, images = load_generator(directory).network, min(run.images_seen, run.config.images)
        facts: dict[str, Any] = {
            "validation_fd_ratio": ratio,
            "images_per_s": images_per_s(run),
            "g_parameters": sum(parameter.numel() for parameter in network.parameters()),
            "images": images,
            "share": images / run.config.images,  # less where it stopped early
        }
        if ratio is None:
            self._tell(trial, "FAIL", reason="its validation FD ratio is not finite", **facts)
            self.report(f"trial {trial.number}: failed: its validation FD ratio is not finite")
            return
        values = [float(facts[studies.OBJECTIVES[one][0]]) for one in self.settings["objectives"]]
        self._tell(trial, "COMPLETE", values, **facts)
        is_best = len(values) == 1 and self.study.best_trial.number == trial.number
        best = ", the best so far" if is_best else ""
        self.report(f"trial {trial.number}: validation FD ratio {ratio:.2f}{best}")

    def _tell(self, trial: "Trial", state: str, values: Sequence[float] | None = None, **facts: Any) -> None:
        """Record the end of a trial with facts about it; the facts first, as an ended trial takes none."""
        optuna = studies.import_optuna()
        for name, value in facts.items():
            trial.set_user_attr(name, value)
        self.study.tell(trial, values, state=optuna.trial.TrialState[state])

    def _refuse_all(self, ended: Ended) -> None:
        """Raise GansmithError where the first trials were all refused, or the newest all for one reason."""
        self.refused += ended.code == REFUSED
        is_same = ended.code == REFUSED and self.in_a_row[:1] == [ended.reason]
        self.in_a_row = [*self.in_a_row, ended.reason] if is_same else [ended.reason] * (ended.code == REFUSED)
        if len(self.in_a_row) >= MOST_ALIKE:
            raise GansmithError(f"{len(self.in_a_row)} trials in a row were refused, because: {ended.reason}")
        finished = [trial for trial in studies.trials_of(self.study) if trial.state.is_finished()]
        if self.refused >= min(MOST_REFUSED, self.trials) and self.refused == len(finished):
            raise GansmithError(
                f"the first {self.refused} trials were all refused, the last one because: {ended.reason}"
            )


_LOST_BEFORE = "lost"


def _has_no_room(directory: Path) -> bool:
    """Return whether a run stopped because its files could not be written."""
    facts = open_run(directory).facts() if holds_run(directory) else {}
    return facts.get("status") == "failed" and facts.get("errno") is not None


def _values(params: Mapping[str, Any]) -> str:
    return ", ".join(
        f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}" for name, value in params.items()
    )
