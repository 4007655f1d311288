"""The Optuna study of a sweep: its storage, how the next choices are drawn, when a trial is pruned.

What a trial is given depends on the seed, its number and the trials before it alone, so a sweep that was stopped goes
on as it would have. Every call here leaves Optuna's log level as it was.
"""

import contextlib
import itertools
import math
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from gansmith.config import FIELDS
from gansmith.errors import ConfigError, GansmithError, NotFoundError, RunError
from gansmith.interrupts import uninterrupted
from gansmith.randomness import rng
from gansmith.sweeps.space import MAX_GRID, Space, grid_values, to_words

if TYPE_CHECKING:
    import optuna
    from optuna.study import Study
    from optuna.trial import FrozenTrial, Trial

SAMPLERS = ("tpe", "random", "grid")
PRUNERS = ("none", "median", "halving")
# Of a trial, by its row in the table of trials, and whether more is better.
OBJECTIVES = {"fd-ratio": ("validation_fd_ratio", False), "images-per-s": ("images_per_s", True),
              "size": ("g_parameters", False)}  # fmt: skip
PARTS = 8  # of a trial's length, at which trials are compared by the pruner
STARTUP = 4  # trials that are never pruned, as there is too little to compare with
# User attributes of studies and of trials.
SETTINGS, OWNER, PRUNED = "gansmith", "sweep", "pruned"
PATIENCE_S, RETRY_S = 60.0, 2.0  # for which a database that fails is asked again, and how often
SURPLUS = "another machine had begun the last trial"  # the reason of a trial that is not trained

T = TypeVar("T")


def import_optuna() -> Any:
    """Return the package optuna; ConfigError without the extra `search`."""
    try:
        with uninterrupted(), warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="IProgress not found")  # in notebooks without ipywidgets
            import optuna
    except ImportError:
        raise ConfigError("a sweep needs the extra `search`: pip install 'gansmith[search]'") from None
    return optuna


@contextlib.contextmanager
def quiet_optuna() -> Iterator[None]:
    """Have Optuna log nothing but errors while the block runs."""
    optuna = import_optuna()
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        yield
    finally:
        optuna.logging.set_verbosity(before)


def local_storage(folder: Path) -> str:
    """Return the address of the SQLite file in a sweep's folder."""
    return f"sqlite:///{(folder / 'study.db').absolute()}"


def without_password(url: str) -> str:
    """Return a database's address as it may be shown and kept."""
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError

    try:
        return make_url(url).render_as_string(hide_password=True)
    except ArgumentError:
        raise ConfigError(
            f"storage is {url!r}; it must be the address of a database, such as postgresql+psycopg://user@host/name"
        ) from None


@contextlib.contextmanager
def opened_storage(url: str) -> Iterator["optuna.storages.RDBStorage"]:
    """Give the database at an address, and close its connections when the block ends."""
    storage = open_storage(url)
    try:
        yield storage
    finally:
        storage.remove_session()
        storage.engine.dispose()


def open_storage(url: str) -> "optuna.storages.RDBStorage":
    """Return the database at an address; ConfigError where it cannot be reached or its driver is missing."""
    optuna = import_optuna()
    import sqlalchemy.exc

    shown, began_at, has_raced = without_password(url), time.monotonic(), False
    # Another machine may be making the same tables at this moment.
    races = (sqlalchemy.exc.IntegrityError, sqlalchemy.exc.ProgrammingError, optuna.exceptions.StorageInternalError)
    while True:
        try:
            return optuna.storages.RDBStorage(url)  # type: ignore[no-any-return]
        except (ImportError, *races, sqlalchemy.exc.SQLAlchemyError, ValueError, RuntimeError) as error:
            is_held = "locked" in _cause_of(error) and time.monotonic() - began_at < PATIENCE_S
            if not is_held:
                if has_raced or not isinstance(error, races):
                    raise ConfigError(
                        f"the storage {shown} cannot be used ({_cause_of(error)}); check its address and driver"
                    ) from None
                has_raced = True
        time.sleep(RETRY_S)


def _cause_of(error: BaseException) -> str:
    """Return what a database said, which Optuna and SQLAlchemy wrap."""
    cause = error.__cause__ or error
    return str(getattr(cause, "orig", None) or cause).strip().split("\n")[0]


def patiently(call: Callable[..., T], *arguments: Any, **named: Any) -> T:
    """Return what a call of a database returns, made again for a minute while it fails, as where a program holds it.

    Raises GansmithError where it still fails then.
    """
    failures, began_at = import_optuna().exceptions.StorageInternalError, time.monotonic()
    while True:
        try:
            return call(*arguments, **named)
        except failures as error:
            if time.monotonic() - began_at >= PATIENCE_S:
                raise GansmithError(
                    f"the database of the trials has failed for {PATIENCE_S:.0f} s ({_cause_of(error)}); once it "
                    "answers, the same command continues the sweep"
                ) from None
        time.sleep(RETRY_S)


def _with_patience(study: "Study") -> "Study":
    """Return a study each of whose calls of its storage is made patiently."""
    storage = study._storage
    for name in vars(import_optuna().storages.BaseStorage):
        if not name.startswith("_"):
            setattr(storage, name, partial(patiently, getattr(storage, name)))
    return study


def create_study(storage: Any, name: str, settings: Mapping[str, Any]) -> "Study":
    """Return a new study, or the one of this name where it has the same settings; RunError where it has others."""
    return _with_patience(patiently(_create_study, storage, name, settings))


def _create_study(storage: Any, name: str, settings: Mapping[str, Any]) -> "Study":
    optuna = import_optuna()
    directions = ["maximize" if OBJECTIVES[one][1] else "minimize" for one in settings["objectives"]]
    try:
        study: Study = optuna.create_study(storage=storage, study_name=name, directions=directions)
        study.set_user_attr(SETTINGS, dict(settings))
    except optuna.exceptions.DuplicatedStudyError:
        study = _load_study(storage, name)
    held = study.user_attrs.get(SETTINGS)
    if held is None and not study.get_trials(deepcopy=False):  # its creator was killed just then
        study.set_user_attr(SETTINGS, held := dict(settings))
    if difference(held, settings):
        raise RunError(f"the study {name!r} is of another sweep ({difference(held, settings)}); give another --study")
    return study


def load_study(storage: Any, name: str) -> "Study":
    """Return the study of this name; NotFoundError where the storage holds none."""
    return _with_patience(patiently(_load_study, storage, name))


def _load_study(storage: Any, name: str) -> "Study":
    optuna = import_optuna()
    try:
        return optuna.load_study(storage=storage, study_name=name)  # type: ignore[no-any-return]
    except KeyError:
        raise NotFoundError(f"the storage holds no study {name!r}; give the name it was begun with") from None


def difference(held: Any, asked: Mapping[str, Any]) -> str:
    """Return the settings that differ, each with the value that is held and the one asked for; empty for none.

    Where the data lie, threads and the like may differ, as they do between machines.
    """
    if not isinstance(held, Mapping) or not isinstance(held.get("choices", {}), Mapping):
        return "one that Gansmith did not begin"
    ours, theirs = _comparable(asked), _comparable(held)
    pairs = [(name, theirs.get(name), ours.get(name)) for name in {**theirs, **ours}]
    return "; ".join(f"{name} {_shown(name, old)}, not {_shown(name, new)}" for name, old, new in pairs if old != new)


def _shown(name: str, value: Any) -> str:
    return f"'{to_words(dict(value))}'" if name == "space" and isinstance(value, Mapping) else repr(value)


def _comparable(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings without choices that do not change what is learnt."""
    choices = settings.get("choices", {})
    kept = {
        name: value
        for name, value in choices.items()
        if name in FIELDS and not FIELDS[name].metadata["is_circumstance"]
    }
    return {**settings, "choices": kept}


def grid_size(space: Space) -> int:
    """Return the number of points of a grid; ConfigError for a range without a step, or more than 10,000."""
    size = math.prod(len(grid_values(name, dimension)) for name, dimension in space.items())
    if size > MAX_GRID:
        raise ConfigError(
            f"the grid has {size:,} points, more than {MAX_GRID:,}; list fewer values, or take larger steps"
        )
    return size


def grid_point(space: Space, number: int) -> dict[str, Any]:
    """Return the choices of a trial of a grid; the first ones again after the last."""
    points = itertools.product(*(grid_values(name, dimension) for name, dimension in space.items()))
    point = next(itertools.islice(points, number % grid_size(space), None))
    return dict(zip(space, point, strict=True))


def sampler_of(settings: Mapping[str, Any], number: int) -> "optuna.samplers.BaseSampler":
    """Return the sampler that draws the choices of one trial, a function of the seed and its number."""
    optuna = import_optuna()
    seed = rng("sweep", settings["seed"], number).initial_seed() % 2**32
    if settings["sampler"] == "tpe":
        return optuna.samplers.TPESampler(seed=seed, multivariate=True, constant_liar=True)  # type: ignore[no-any-return]
    sampler = optuna.samplers.RandomSampler(seed=seed)
    if settings["sampler"] == "grid":
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            sampler = optuna.samplers.PartialFixedSampler(grid_point(settings["space"], number), sampler)
    return sampler  # type: ignore[no-any-return]


def pruner_of(name: str) -> "optuna.pruners.BasePruner":
    """Return a pruner, whose steps are eighths of a trial's length."""
    optuna = import_optuna()
    pruners = {
        "none": optuna.pruners.NopPruner(),
        "median": optuna.pruners.MedianPruner(n_startup_trials=STARTUP),
        "halving": optuna.pruners.SuccessiveHalvingPruner(min_resource=PARTS // 4, reduction_factor=2),
    }
    return pruners[name]  # type: ignore[no-any-return]


def next_trial(study: "Study", settings: Mapping[str, Any], *, owner: str) -> "Trial":
    """Begin a trial: a number and its choices, recorded in the storage before anything is trained."""
    optuna = import_optuna()
    # In one transaction with its owner, who finds it again; `study.ask` makes one that is nobody's at first.
    running = optuna.trial.TrialState.RUNNING
    study.add_trial(optuna.trial.create_trial(state=running, user_attrs={OWNER: owner}))
    return _with_choices(study, settings, _begun(study, owner)[-1])


def unfinished_trials(study: "Study", settings: Mapping[str, Any], *, owner: str) -> list["Trial"]:
    """Return the trials that this sweep had begun when it was stopped, with the choices they were given.

    Other sweeps may use the study too; their trials are left alone.
    """
    return [_with_choices(study, settings, frozen) for frozen in _begun(study, owner)]


def _begun(study: "Study", owner: str) -> list["FrozenTrial"]:
    """Return the trials of a sweep that have not ended, in their order."""
    running = study.get_trials(deepcopy=False, states=(import_optuna().trial.TrialState.RUNNING,))
    return [frozen for frozen in running if frozen.user_attrs.get(OWNER) == owner]


def _with_choices(study: "Study", settings: Mapping[str, Any], frozen: "FrozenTrial") -> "Trial":
    """Return a trial with its choices, of which it is given those that it lacks."""
    number = frozen.number
    if settings["sampler"] == "grid":  # numbers of trials that were one too many are no points
        number = sum(trial.number < number for trial in trials_of(study))
    study.sampler = sampler_of(settings, number)
    trial: Trial = import_optuna().trial.Trial(study, frozen._trial_id)
    _draw(trial, settings["space"])
    return trial


def _draw(trial: "Trial", space: Space) -> None:
    """Give a trial its choices; those it has already stay."""
    for name, dimension in space.items():
        if "choices" in dimension:
            trial.suggest_categorical(name, dimension["choices"])
            continue
        suggest = trial.suggest_int if FIELDS[name].type is int else trial.suggest_float
        options: dict[str, Any] = {"log": True} if dimension["scale"] == "log" else {}
        options |= {"step": dimension["step"]} if "step" in dimension else {}
        suggest(name, dimension["low"], dimension["high"], **options)


def report_scores(trial: "Trial", scores: Sequence[tuple[float, float]]) -> bool:
    """Report a trial's scores so far, and return whether it should be pruned.

    Trials have their scores after different shares of their length, so between two scores the ratio is taken to go
    evenly on a log scale, and is reported for each eighth. The last score is the trial's value and is not reported.

    Args:
        scores: validation FD ratios, each with the share of the training after which it was measured.
    """
    frozen = trial.storage.get_trial(trial._trial_id)
    fresh = [(part, ratio) for part, ratio in in_eighths(scores).items() if part not in frozen.intermediate_values]
    for part, ratio in fresh:
        trial.report(ratio, part)
    if frozen.user_attrs.get(PRUNED):  # decided before a restart; halving would not decide so again
        return True
    is_pruned = bool((frozen.intermediate_values or fresh) and trial.should_prune())
    if is_pruned:
        trial.set_user_attr(PRUNED, True)
    return is_pruned


def in_eighths(scores: Sequence[tuple[float, float]]) -> dict[int, float]:
    """Return the ratio after each eighth of a training, from the first score to the last, but for the end."""
    points = [(share * PARTS, math.log(ratio)) for share, ratio in scores if ratio > 0 and math.isfinite(ratio)]
    if not points:
        return {}
    found = {max(1, math.floor(points[0][0] + 0.05)): points[0][1]}
    for (before, low), (after, high) in itertools.pairwise(points):
        for part in range(math.floor(before + 0.05) + 1, math.floor(after + 0.05) + 1):
            weight = min(1.0, (part - before) / (after - before))
            found.setdefault(part, low + weight * (high - low))
    return {part: math.exp(value) for part, value in found.items() if part < PARTS}


def trials_of(study: "Study") -> list["FrozenTrial"]:
    """Return the trials of a study, without those that two machines began beyond the last one."""
    found = study.get_trials(deepcopy=False)
    return [trial for trial in found if trial.user_attrs.get("reason") != SURPLUS]


def state_of(trial: "FrozenTrial") -> str:
    """Return running, finished, pruned or failed."""
    return {"COMPLETE": "finished", "FAIL": "failed"}.get(trial.state.name, trial.state.name.lower())
