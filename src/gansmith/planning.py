"""From what was asked for to a run that trains: its choices, its data and length, and its events until it ends.

The Python API, the command line and sweeps all begin and continue runs here.
"""

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from gansmith import data as data_sets
from gansmith import processes, runs
from gansmith.checkpoints import load_counters
from gansmith.config import FIELDS, Config, name_of, parse_value, unknown_field
from gansmith.data.images import Images
from gansmith.data.objects import as_images
from gansmith.data.prepare import Watch
from gansmith.errors import (
    ConfigError,
    GansmithError,
    NotFoundError,
    ProcessLost,
    RunError,
    TrainingFailed,
    is_out_of_memory,
    reason_of,
)
from gansmith.events import Event, Started
from gansmith.files import quoted, to_path
from gansmith.isolation import torch_defaults
from gansmith.networks import NETWORKS
from gansmith.recipes import ADAM, LONG_IN_COLOR, LONG_MIRRORED, RECIPES
from gansmith.runs import RunDirectory
from gansmith.training import budget, loop
from gansmith.training.inputs import (
    TrainingData,
    fit_data,
    fit_to_length,
    load_training_data,
    preparation,
    sentences_on_changes,
)
from gansmith.training.losses import OBJECTIVES
from gansmith.training.machine import find_device, training_machine, training_settings
from gansmith.training.own_rows import custom_choices, refuse_own_shapes
from gansmith.training.schedule import decay, extended_factor
from gansmith.training.trackers import parse_trackers, tracked
from gansmith.training.transfer import preview_weights, resolve_with_source

RUNS = Path("runs")
_ONE_AT_A_TIME = threading.RLock()  # a step draws from torch's own generator, which all threads share
if hasattr(os, "register_at_fork"):  # a thread that held it is not there in the child
    os.register_at_fork(after_in_child=lambda: globals().update(_ONE_AT_A_TIME=threading.RLock()))
_LENGTHS = ("minutes", "images", "epochs")


@dataclass(frozen=True)
class Plan:
    """A run that is ready to train.

    Attributes:
        deadline: by `time.perf_counter`; None where the length is in images.
        notices: a sentence for each choice that was changed, with both values.
    """

    run: RunDirectory
    data: TrainingData
    images: Images | None
    deadline: float | None = None
    notices: tuple[str, ...] = ()


@torch_defaults()
def plan_training(
    recipe: str | None = None,
    *,
    data: Any = None,
    minutes: float | None = None,
    images: int | str | None = None,
    epochs: float | None = None,
    out: Path | str | None = None,
    file: Path | None = None,
    choices: Mapping[str, object] | None = None,
    started_at: float | None = None,
    watch: Watch | None = None,
) -> Plan:
    """Settle every choice, load the data, measure the machine where minutes are given, and make the run directory.

    Args:
        file: a TOML file with field = value lines.
        choices: fields of Config by name.
        started_at: when the minutes began, by `time.perf_counter`; now where None.
        watch: called with the number of pictures done and of all, while pictures are prepared.
    """
    started_at = time.perf_counter() if started_at is None else started_at
    processes.join(has_place=out is not None)
    directory = None if out is None else to_path(out)
    with processes.first_alone():
        refuse_lengths(minutes=minutes, images=images, epochs=epochs)
        arguments = as_arguments(data, images, choices or {})
        begun = _begun_in(directory)
        config, followed = resolve_with_source(recipe, begun=begun, file=file, environ=os.environ, arguments=arguments)
        in_memory = _in_memory(data, config)
        if in_memory is not None:
            config = config.replace(data=in_memory.name, origins={**config.origins, "data": "argument"})
        if arguments.get("data_dir") == "" and "recipe" not in arguments:  # not all of another run's config
            raise ConfigError("data_dir is empty; give the folder that holds the data set's files, or omit it")
        if begun is not None:
            config = _as_begun(config, begun, has_length=minutes is None and _has_length(config, epochs))
        else:
            runs.refuse_occupied(directory or runs.next_directory(RUNS, config))
        config, moved = _with_device(config, config.device if "device" in config.origins else None)
        parse_trackers(config.trackers)
    with _ONE_AT_A_TIME, training_machine(config):
        with processes.first_alone():
            config, loaded = load_training_data(config, in_memory, watch=watch)
        refuse_own_shapes(config, loaded)
        notices = [*followed, *moved, *loaded.notices, *(_namesake(config) if in_memory is None else ())]
        if config.start_from and begun is None:
            notices += preview_weights(config, loaded)
        config = _fitted_to_device(config, loaded, notices, is_new=begun is None)
        if epochs is not None:
            config = _with_epochs(config, epochs, loaded, notices)
        deadline = started_at + 60 * minutes if minutes is not None and begun is None else None
        if deadline is not None:
            config, loaded = _with_minutes(config, loaded, deadline, notices)
        elif begun is None:
            config, loaded = _fitted_to_length(config, loaded, notices)
        elif minutes is not None:
            notices.append(_kept_length(directory, config, minutes))
    if directory is None:  # another process may have taken the number meanwhile
        directory = Path(processes.agreed(lambda: str(runs.make_next_directory(RUNS, config))))
    return _planned(_create_run(directory, config), loaded, in_memory, notices, deadline)


def _begun_in(directory: Path | None) -> Config | None:
    """Return the config of the run that a directory holds already."""
    if directory is None or not runs.holds_run(directory):
        return None
    return runs.open_run(directory, to_train=True).config


def _kept_length(directory: Path | None, config: Config, minutes: float) -> str:
    return (
        f"minutes is ignored: {directory} exists and keeps its length, {config.images:,} images; "
        f"`gansmith resume {quoted(str(directory))} --minutes {minutes:g}` trains it longer"
    )


def _namesake(config: Config) -> list[str]:
    """Return a notice where a folder here is called as the data set that is meant."""
    if config.data_dir or not Path(config.data).is_dir():
        return []
    return [f"{config.data} is the data set of this name; for the folder here write ./{config.data}"]


def _create_run(directory: Path, config: Config) -> RunDirectory:
    """Return the run in a directory, which process 0 makes."""
    with processes.first_alone():
        if not (processes.is_first() or runs.holds_run(directory)):
            raise RunError(
                f"process {processes.number()} does not see {directory}, which process 0 writes; give an --out that "
                "all machines share"
            )
        return runs.create_run(directory, config)


def as_arguments(data: Any, images: int | str | None, choices: Mapping[str, object]) -> dict[str, object]:
    """Return what was asked for as fields of Config. Raises ConfigError for unknown names."""
    arguments = {name: value for name, value in choices.items() if value is not None}
    for name in arguments:
        if name not in FIELDS:
            others = ("out", "progress", *_LENGTHS)
            raise ConfigError(unknown_field(name, also=[other for other in others if other != name]))
    if isinstance(data, str | Path):
        arguments["data"] = str(data)
    if isinstance(arguments.get("data"), str) and not arguments.get("data_dir"):
        arguments["data"] = data_sets.as_path(str(arguments["data"]))
    if images is not None:
        arguments["images"] = images
    if isinstance(arguments.get("start_from"), RunDirectory | Path):
        arguments["start_from"] = str(to_run_path(arguments["start_from"]))  # type: ignore[arg-type]
    return arguments


@torch_defaults()
def plan_resume(
    run: RunDirectory | Path | str,
    *,
    minutes: float | None = None,
    images: int | str | None = None,
    epochs: float | None = None,
    data: Any = None,
    device: str | None = None,
    watch: Watch | None = None,
) -> Plan:
    """Settle how a run goes on."""
    started_at = time.perf_counter()
    processes.join()
    with processes.first_alone():
        refuse_lengths(minutes=minutes, images=images, epochs=epochs)
        opened = runs.open_run(to_run_path(run), to_train=True)  # its config may have changed on disk
        if (minutes, images, epochs) != (None, None, None):
            _refuse_ended_early(opened)
        config = opened.config.replace(schedule_images=opened.config.schedule_length)  # whatever the new length is
        if isinstance(data, str | Path):
            config = _with_own_data(config, str(data), opened)
        in_memory = _in_memory(data, config) if data is not None else getattr(run, "images", None)
        refuse_undefined(RunDirectory(opened.directory, config), has_images=in_memory is not None)
        if images is not None:
            config = config.replace(images=parse_value("images", images))
        config, moved = _with_device(config, device)
    if in_memory is None and config.data_dir and not Path(config.data_dir).expanduser().exists():
        raise NotFoundError(
            f"the images of {opened.directory} were at {config.data_dir}, which is not there; where they were moved, "
            f"give their place: gansmith resume {quoted(str(opened.directory))} --data PATH"
        )
    with _ONE_AT_A_TIME, training_machine(config):
        with processes.first_alone():
            config, loaded = load_training_data(config, in_memory, watch=watch)
        notices = [*moved, *loaded.notices]
        config = _fitted_to_device(config, loaded, notices, is_new=False)
        if epochs is not None:
            config = _with_epochs(config, epochs, loaded, notices)
        if minutes is not None:
            ends_at = started_at + 60 * minutes
            if loaded.scorer is not None:  # the same evaluators score it again, however long it goes on
                loaded.scorer.prepare(ends_at - time.perf_counter(), **opened.evaluators())
            left_s = ends_at - time.perf_counter()
            probe = config.replace(planned_images=0, threads=config.threads or torch.get_num_threads())
            fitting = budget.config_for_time(probe, loaded, left_s).images
            config = config.replace(images=opened.images_seen + fitting)
            notices.append(f"{minutes:g} minutes are about {fitting:,} images more")
    return _planned(_create_run(opened.directory, config), loaded, in_memory, notices)


def _refuse_ended_early(run: RunDirectory) -> None:
    """Raise ConfigError for a run that early stopping has ended, and would end again at once."""
    if _is_ended_early(run):
        again = f"gansmith train {run.config.recipe} --out {quoted(str(run.directory))} --early-stopping 0"
        raise ConfigError(
            f"early stopping has ended {run.directory}, and would again; go on with `{again}`, with the other choices "
            "as they were"
        )


def _is_ended_early(run: RunDirectory) -> bool:
    """Return whether a finished run's newest checkpoint has as many scores without progress as end it."""
    latest, limit = run.latest(), run.config.early_stopping
    if latest is None or not limit or run.status != "finished":
        return False
    best = load_counters(latest).get("best")
    return bool(best and best["scores_since"] >= limit)


def _planned(
    run: RunDirectory, data: TrainingData, images: Images | None, notices: list[str], deadline: float | None = None
) -> Plan:
    return Plan(run, data, images, deadline, (*notices, *_beyond_schedule(run), *_nothing_left(run)))


def _nothing_left(run: RunDirectory) -> list[str]:
    """Return a notice where a run has been trained to its end already."""
    if run.status == "finished" and run.images_seen < run.config.images and _is_ended_early(run):
        return [f"early stopping has ended {run.directory}, so nothing is trained; --early-stopping 0 trains it longer"]
    if run.status != "finished" or run.images_seen < run.config.images:
        return []
    return [f"{run.directory} is finished, so nothing is trained; give more images (--images) or another --out"]


def _beyond_schedule(run: RunDirectory) -> list[str]:
    """Return a notice where a run goes on beyond the end of its schedules: what its learning rates do there."""
    config, images_seen = run.config, run.images_seen
    end = config.schedule_length
    if config.images <= max(end, images_seen) or config.lr_decay_from >= 1.0:
        return []
    if config.lr_decay == "step":
        left = decay(1.0 - config.batch_size / end, config.lr_decay, config.lr_decay_from, config.lr_decay_factor)
        return [f"beyond {end:,} images learning rates stay at {left:.2g} of those at first, where their decay ends"]
    now = extended_factor(max(end, images_seen), end, config.images)
    go_on = "go on" if images_seen > end else "begin again"
    return [
        f"learning rates were to reach 0 after {end:,} images; beyond that they {go_on} at {now:.2g} of those at first "
        f"and fall in a line to 0 after {config.images:,}"
    ]


def _with_own_data(config: Config, data: str, run: RunDirectory) -> Config:
    """Return the config of a run whose own data a name or path names; RunError for any other data."""
    text = data_sets.as_path(data)
    own = (config.data, config.data_dir) if config.data_dir else (config.data,)
    if text in own or (config.data_dir and Path(text).resolve() == Path(config.data_dir).resolve()):
        return config
    if Path(text).expanduser().exists() and (config.data_dir or name_of(text) == config.data):  # moved; compared later
        return config.replace(data_dir=text)
    raise RunError(
        f"{run.directory} was trained on {config.data}, not on {data}; omit data, or begin a new run from its weights "
        "(start_from)"
    )


def _with_device(config: Config, device: str | None) -> tuple[Config, list[str]]:
    """Return the config with another device where one is asked for, or where this machine lacks the run's own.

    Raises ConfigError for one that is asked for and cannot be used.
    """
    if device is not None:
        config = config.replace(device=device)
        find_device(config.device)
        return config, []
    try:
        find_device(config.device)
    except ConfigError:
        lack = "this machine lacks" if processes.count() == 1 else f"these {processes.count()} processes cannot use"
        return config.replace(device="auto"), [f"device is auto, not {config.device}, which {lack}"]
    return config, []


def _in_memory(data: Any, config: Config) -> Images | None:
    """Return a program's own images, prepared as the config says; None for a name, a path or nothing."""
    return None if data is None or isinstance(data, str | Path) else as_images(data, preparation(config))


def plan_events(plan: Plan, *, stopped: list[int] | None = None, command: Sequence[str] = ()) -> Iterator[Event]:
    """Yield the events of a planned run, trackers included.

    The run stops and saves after the step during which `stopped` is filled, or in which the iterator is closed. While
    an event is out, the process is as its caller left it.
    """
    run, data = plan.run, plan.data
    stopped = [] if stopped is None else stopped
    started = Started(
        run.images_seen,
        str(run.directory),
        run.config.images,
        run.config.data,
        data.train.source,
        len(data.train),
        (*data.train.notices, *plan.notices),
    )
    try:
        yield started
    except GeneratorExit:
        if run.status == "unknown":  # it was never begun
            run.record(status="stopped")
        raise
    events = loop.train_events(
        run, data, stop=lambda: bool(stopped), command=command or ("gansmith.train",), deadline=plan.deadline
    )
    if processes.is_first():
        events = tracked(run, events)
    with closing(events) as followed:  # type: ignore[type-var]
        try:
            while True:
                with _ONE_AT_A_TIME, training_settings(run.config):
                    event = next(followed, None)
                if event is None:
                    return
                yield event
        except GeneratorExit:
            stopped.append(0)
            if not sys.is_finalizing():
                with _ONE_AT_A_TIME, training_settings(run.config):
                    list(followed)
            raise
        except KeyboardInterrupt:  # in the middle of a step, which is not saved
            run.record(status="stopped")
            raise
        except ProcessLost as error:
            with suppress(OSError):
                run.record(status="failed", reason=str(error))
            raise
        except (GansmithError, TrainingFailed, OSError):
            raise
        except Exception as error:  # a bug, mostly of a program's own objective or network
            what = f"{type(error).__name__} ({reason_of(error)})"
            if is_out_of_memory(error):
                what = "there was too little memory; begin again with a smaller batch_size, g_width or d_width"
            with suppress(OSError):
                run.record(status="failed", reason=what)
            raise


def until_interrupted(plan: Plan) -> Iterator[Event]:
    """Yield the events of a planned run; a signal to stop, caught while it trains, has its effect once all is saved."""
    caught: list[int] = []
    with closing(plan_events(plan, stopped=caught)) as events:  # type: ignore[type-var]
        try:
            while True:
                with catching_signals(caught):
                    event = next(events, None)
                if event is None:
                    break
                yield event
        except GeneratorExit:  # other processes, which see no such event, ask one another at their end
            events.close()  # type: ignore[attr-defined]
            caught_anywhere(caught)
            raise
    caught = caught_anywhere(caught)
    pass_on(caught)
    if signal.SIGINT in caught:
        raise KeyboardInterrupt


# Ask a training to stop; the third comes where its terminal is closed.
_SIGNALS = (signal.SIGINT, signal.SIGTERM, *([signal.SIGHUP] if hasattr(signal, "SIGHUP") else []))


def caught_anywhere(caught: list[int]) -> list[int]:
    """Return the signals to stop that any process of the run caught."""
    if processes.count() == 1:
        return caught
    found = processes.any_of(*(number in caught for number in _SIGNALS))
    return [int(number) for number, is_caught in zip(_SIGNALS, found, strict=True) if is_caught]


def pass_on(caught: Sequence[int]) -> None:
    """End this process, or do what else it does on a signal other than that of Ctrl-C, where one was caught."""
    for number in caught:
        if number != signal.SIGINT:
            signal.raise_signal(number)


@contextmanager
def catching_signals(caught: list[int]) -> Iterator[None]:
    """Add signals that ask to stop to `caught` as they arrive; a second Ctrl-C quits at once.

    Elsewhere than in the main thread, where no signal arrives, this does nothing.
    """

    def note(number: int, frame: object) -> None:
        if caught and number == signal.SIGINT:
            signal.default_int_handler(number, None)
        caught.append(number)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    always = (signal.SIGINT, signal.SIGTERM)  # nohup has the other ignored, and a program may have a use for it
    numbers = [number for number in _SIGNALS if number in always or signal.getsignal(number) is signal.SIG_DFL]
    previous = {number: signal.signal(number, note) for number in numbers}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)


def refuse_lengths(*, minutes: float | None, images: object, epochs: float | None) -> None:
    """Raise ConfigError for two lengths at once, and for minutes or epochs out of range."""
    lengths: dict[str, object] = {"minutes": minutes, "epochs": epochs}
    for name, value in lengths.items():
        if value is not None and not hasattr(value, "__float__"):
            raise ConfigError(f"{name} is {value!r}; it must be a number, such as 3")
    given = [name for name, value in zip(_LENGTHS, (minutes, images, epochs), strict=True) if value is not None]
    if len(given) > 1:
        raise ConfigError(f"{' and '.join(given)} each set the length; give one of them")
    if minutes is not None and not 0 < minutes < 100_000:
        raise ConfigError(f"minutes is {minutes:g}; it must be more than 0 and less than 100,000, such as 3")
    if epochs is not None and not 0 < epochs < 1_000_000:
        raise ConfigError(f"epochs is {epochs:g}; it must be more than 0 and less than 1,000,000, such as 20")


def undefined_choices(run: RunDirectory) -> list[str]:
    """Return a sentence for each choice of a run that stands for code or images of another program."""
    has_images = getattr(run, "images", None) is not None
    missing = missing_choices(run, has_images=has_images)
    if run.config.recipe not in RECIPES:
        missing["recipe"] = run.config.recipe
    return [f"{name} {value!r} is not defined here" for name, value in missing.items()]


def refuse_undefined(run: RunDirectory, *, has_images: bool = False) -> None:
    """Raise ConfigError where a run stands on code or images of another program, which this one lacks."""
    missing = missing_choices(run, has_images=has_images)
    if not missing:
        return
    name, value = next(iter(missing.items()))
    remedy = {
        "data": "give the same images as data=",
        "network": f"define it again first: gansmith.NETWORKS[{value!r}] = build_networks",
        "objective": f"define it again first: gansmith.OBJECTIVES[{value!r}] = gansmith.Objective(d_loss, g_loss)",
    }[name]
    raise ConfigError(f"{run.directory} was trained with the {name} {value!r} of another program; {remedy}")


def missing_choices(run: RunDirectory, *, has_images: bool) -> dict[str, str]:
    """Return the choices that this program does not define. A recipe is not needed: the config has all it says."""
    tables: dict[str, Mapping[str, Any]] = {"data": data_sets.DATASETS, "network": NETWORKS, "objective": OBJECTIVES}
    own = custom_choices(run.config)
    missing = {name: own[name] for name in tables if name in own and own[name] not in tables[name]}
    recorded = run.facts().get("custom", {})
    for name in ("network", "objective"):  # which may have replaced one of this package
        if recorded.get(name) == getattr(run.config, name) and name not in own:
            missing[name] = recorded[name]
    if has_images:
        missing.pop("data", None)
    return missing


def _has_length(config: Config, epochs: float | None) -> bool:
    """Return whether a length was asked for, in images or epochs."""
    return epochs is not None or not config.is_open("images")


def _as_begun(config: Config, begun: Config, *, has_length: bool) -> Config:
    """Return the choices with what a run that exists has already settled; its length, too, where none is asked for."""
    config = config.replace(threads=config.threads or begun.threads)
    if "device" not in config.origins:
        config = config.replace(device=begun.device)
    tables = (ADAM, LONG_IN_COLOR, LONG_MIRRORED) if config.recipe == begun.recipe else ()
    fitted = [name for table in tables for name in table.get(begun.recipe, {})]
    fitted += [name for name in ("evaluate_every", "sample_every") if name not in begun.origins]  # by `_with_minutes`
    free = [name for name in fitted if config.is_open(name) and begun.origins.get(name, "recipe") == "recipe"]
    config = config.replace(**{name: getattr(begun, name) for name in free})
    if not has_length:
        config = config.replace(images=begun.images, planned_images=begun.planned_images)
    return config


def _with_epochs(config: Config, epochs: float, data: TrainingData, notices: list[str]) -> Config:
    images = max(config.batch_size, round(epochs * len(data.train)))
    notices.append(f"{epochs:g} epochs of {len(data.train):,} training images are {images:,} images")
    return config.replace(images=images)


def _with_minutes(
    config: Config, data: TrainingData, deadline: float, notices: list[str]
) -> tuple[Config, TrainingData]:
    fitted = budget.config_for_time(config, data, deadline - time.perf_counter())
    wider, data = _fitted_to_length(fitted, data, notices)
    if wider != fitted:
        asked = {name: getattr(config, name) for name in ("evaluate_every", "sample_every")}
        fitted = budget.config_for_time(wider.replace(**asked), data, deadline - time.perf_counter())
    if fitted.threads != config.threads:
        notices.append(f"threads is {fitted.threads}, not one per core: other programs keep this machine busy")
    return fitted, data


def _fitted_to_device(config: Config, data: TrainingData, notices: list[str], *, is_new: bool) -> Config:
    """Return the config with a device where it was open, and that of a new run with the optimisers for it."""
    config, chosen = budget.choose_device(config, data, is_new=is_new)
    notices += chosen
    if not is_new:
        return config
    fitted = budget.fit_to_device(config)
    why = f"the device is {find_device(config.device).type}"
    notices += sentences_on_changes(config, fitted, dict.fromkeys(ADAM.get(config.recipe, {}), why))
    return fitted


def _fitted_to_length(config: Config, data: TrainingData, notices: list[str]) -> tuple[Config, TrainingData]:
    """Return the config with what its length asks for, and the data as that wants it."""
    fitted = fit_to_length(config, data.train)
    wanted = {**LONG_IN_COLOR.get(config.recipe, {}), **LONG_MIRRORED.get(config.recipe, {})}
    why = dict.fromkeys(wanted, "the run is long, and the images are in color")
    notices += sentences_on_changes(config, fitted, why)
    is_same = (fitted.mirror, fitted.clusters_per_class) == (config.mirror, config.clusters_per_class)
    return fitted, data if is_same else fit_data(fitted, data)


def to_run_path(target: RunDirectory | Path | str) -> Path:
    if isinstance(target, RunDirectory):
        return target.directory
    if not isinstance(target, str | os.PathLike):
        raise ConfigError(f"{type(target).__name__} is neither a run nor a path; give a Run, a directory or a file")
    return Path(target).expanduser()
