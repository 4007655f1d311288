"""What a run does besides training: log, diagnose, sample grids, validation FD ratios, checkpoints.

Each chore is a function of the state that returns the event it made, or None. All processes of a run call it; process
0 alone writes files.
"""

import logging
import math
import os
import platform
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from importlib import metadata
from typing import Any, TypeVar

import torch
from torch import Tensor

from gansmith import __version__, processes
from gansmith.checkpoints import mark_best, prune, remove, save_checkpoint
from gansmith.config import Config
from gansmith.events import Event, FailureDetected, Logged, Sampled, Saved, Scored
from gansmith.files import tensor_sha256, tensors_sha256, write_bytes
from gansmith.models import generator_metadata
from gansmith.pictures.grids import enlarge, grid, to_png
from gansmith.runs import RunDirectory, write_config
from gansmith.sampling import draw_inputs, draw_latents, generate
from gansmith.training.diagnosis import Failure, diagnose
from gansmith.training.machine import device_name, has_fast_bf16
from gansmith.training.own_rows import custom_choices
from gansmith.training.state import State, to_tensors
from gansmith.training.step import NonFiniteError

GRID_COLUMNS, GRID_ROWS = 10, 8
# Where the config leaves the intervals open: so many of each in a run.
LOG_LINES, GRIDS, SAVES = 200, 12, 4
MEASUREMENTS = 100  # of the health signals that `diagnose` reads
SAFETY_S = 300.0  # no more than this is lost to a crash: a save between the scheduled ones, removed at the next

Chore = Callable[[State], Event | None]
T = TypeVar("T")

logger = logging.getLogger("gansmith")


def scheduled_chores(state: State) -> list[tuple[int, Chore]]:
    """Return the chores of a run in their order, each with its interval in images."""
    config = state.config
    log_every = interval(config, "log_every", LOG_LINES)
    chores: list[tuple[int, Chore]] = [
        (log_every, log),
        (log_every, check_health),
        (interval(config, "sample_every", GRIDS), draw_grid),
        (interval(config, "save_every", SAVES), save),
    ]
    if state.scorer is not None:
        every = interval(config, "evaluate_every", scores_in(config, expected_length(config), state.scorer.cost))
        chores.insert(0, (every, score))  # first, for it may find that the run is over
    return chores


def run_chores(
    state: State, chores: Sequence[tuple[int, Chore]], *, stopping: bool, overdue: bool | None = None
) -> Iterator[Event]:
    """Yield the events of all chores that are due; all of them at the end, right after a resume what that lacks alone.

    Args:
        stopping: the run stops now, and saves.
        overdue: what `is_overdue` says on any process; None asks it here.
    """
    if state.images_seen == 0:
        if event := draw_grid(state):
            yield event
        return
    if state.just_resumed:
        if state.is_finished:
            yield from _finish(state)
        return
    if state.images_seen < state.checked_until:  # steps taken again, whose chores are done
        is_scored = any(row["images_seen"] > state.images_seen for row in state.scores[-1:])
        if stopping and state.saved_images < state.images_seen and not is_scored:
            yield save(state)
        return
    for every, chore in chores:
        is_due = state.images_seen // every > (state.images_seen - state.config.batch_size) // every
        if state.is_finished or is_due or (chore is save and state.is_best):
            if event := chore(state):
                yield event
    is_stopping = stopping or (state.new_failure is not None and state.config.on_failure == "stop")
    overdue = is_overdue(state) if overdue is None else overdue
    if state.saved_images < state.images_seen and (is_stopping or overdue):
        yield save(state, for_safety=not is_stopping)


def _finish(state: State) -> Iterator[Event]:
    """Yield the events of what a run lacks that was stopped, and is to be no longer: a score, a grid."""
    path = state.run.samples_dir / f"{state.images_seen:09d}.png"
    is_drawn = processes.agreed(path.is_file)
    scored = None if state.scorer is None else score(state)
    drawn = None if is_drawn else draw_grid(state)
    yield from [event for event in (scored, drawn) if event]
    if scored and state.is_best:
        yield save(state)


def is_overdue(state: State) -> bool:
    """Return whether so much time has passed since the last checkpoint that a crash would lose too much."""
    return time.monotonic() - state.saved_at > SAFETY_S


def finite_on_all(compute: Callable[[], T]) -> T:
    """Return what this computes, in which no process waits for another; NonFiniteError on all where one raises it.

    So all processes go back together, or none does.
    """
    error = None
    try:
        found = compute()
    except NonFiniteError as raised:
        error = raised
    if any(processes.any_of(error is not None)):
        raise error or NonFiniteError("a number of another process")
    return found


def log(state: State) -> Event | None:
    """Append a row of means to log.jsonl, and the health signals where their turn has come."""
    config, images_seen = state.config, state.images_seen
    means = finite_on_all(state.means.take)
    finite_on_all(state.hold)
    if not processes.is_first():
        return None
    row: dict[str, Any] = {"images_seen": images_seen, **means, **state.clock.lap(images_seen)}
    every = (config.planned_images or config.images) // MEASUREMENTS or 1
    if images_seen // every > (state.rows[-1]["images_seen"] if state.rows else 0) // every:
        row |= state.monitor.measure(state.networks.G, state.networks.D, images_seen)
        row |= gradient_norms(state)
    state.rows.append(state.run.append(state.run.log_path, row))
    values = {name: value for name, value in state.rows[-1].items() if name != "images_seen"}
    return Logged(images_seen, values=values)


def gradient_norms(state: State) -> dict[str, float]:
    """Return the norms of the last steps' gradients, also where those were taken before this process began."""
    norms = dict(state.gradient_norms)
    for name, network in (("g_grad_norm", state.networks.G), ("d_grad_norm", state.networks.D)):
        gradients = [p.grad for p in network.parameters() if p.grad is not None]
        if gradients or name not in norms:
            norms[name] = torch.nn.utils.get_total_norm(gradients).item()
    return norms


def check_health(state: State) -> Event | None:
    """Report the first training failure that the newest health signals show and no row names yet."""
    found = processes.agreed(lambda: [vars(failure) for failure in _new_failures(state)])
    return report_failure(state, Failure(**found[0])) if found else None


def _new_failures(state: State) -> list[Failure]:
    if "g_grad_norm" not in state.rows[-1]:
        return []
    known = {row["failure"] for row in state.rows if row.get("kind") == "failure"}
    return [failure for failure in diagnose(state.rows, state.scores, state.config) if failure.name not in known]


def report_failure(state: State, failure: Failure) -> Event:
    """Write a training failure into the log and the state."""
    # Who chooses a few classes gets no others: said, but nothing to stop for.
    is_wanted = failure.name == "missing-classes" and state.config.classes
    state.new_failure = None if is_wanted else failure
    state.run.append(state.run.log_path, failure.as_row())
    state.rows.append(failure.as_row())
    return FailureDetected(failure.images_seen, failure.name, failure.message)


def draw_grid(state: State) -> Event | None:
    """Write samples/<images seen>.png: the same latents every time, a column for each class where there are few."""
    config, model = state.config, finite_on_all(state.averaged)
    if not processes.is_first():
        return None
    y = state.data.conditioning.draw_grid(GRID_COLUMNS * GRID_ROWS, GRID_COLUMNS)
    frame = generate(model, draw_latents(config, seed=config.seed, count=len(y)), y)
    path = state.run.samples_dir / f"{state.images_seen:09d}.png"
    write_bytes(path, to_png(grid(frame, columns=GRID_COLUMNS)))
    return Sampled(state.images_seen, str(path), state.data.spec.size)


def score(state: State) -> Event | None:
    """Append a validation FD ratio to metrics.jsonl, where there is none yet: steps may have been taken again."""
    assert state.scorer is not None
    if state.scores and state.scores[-1]["images_seen"] == state.images_seen:
        return None
    model, count = finite_on_all(state.averaged), state.scorer.count
    z, y = (processes.split(inputs) for inputs in draw_inputs(model, seed=1, count=count))
    samples = processes.joined_rows(generate(model, z, y), count)
    scored = state.scorer.score(samples)  # in which all take part
    found = processes.agreed(lambda: scored)
    row = state.run.append(state.run.metrics_path, {"images_seen": state.images_seen, **found})
    state.scores.append(row)
    if state.best is None or row["validation_fd_ratio"] < state.best["validation_fd_ratio"]:
        ratio = row["validation_fd_ratio"]
        state.best = {"images_seen": state.images_seen, "validation_fd_ratio": ratio, "scores_since": 0}
    else:
        state.best = {**state.best, "scores_since": state.best["scores_since"] + 1}
    own = ("validation_fd_ratio", "fd", "fd_real", "n")
    others = {name: value for name, value in row.items() if name not in ("images_seen", *own)}
    return Scored(state.images_seen, **{name: row[name] for name in own}, values=others)


def save(state: State, *, for_safety: bool = False) -> Event:
    """Write a checkpoint, and remove what it makes superfluous.

    Args:
        for_safety: between the scheduled ones; removed at the next.
    """
    run, config = state.run, state.config
    tensors = {name: value.cpu() for name, value in to_tensors(state.networks, config).items()}
    finite_on_all(partial(_refuse_non_finite, state, tensors))
    if processes.count() > 1:
        processes.refuse_difference(tensors_sha256(tensors), "the state of the run")
    path = run.checkpoint(state.images_seen)
    if processes.is_first():
        _write_checkpoint(state, tensors, for_safety=for_safety)
        if state.safety_save not in (None, path):
            remove(state.safety_save)
        if config.keep_last and not for_safety and state.new_failure is None:  # a rollback may need what is oldest
            best = None if state.best is None else int(state.best["images_seen"])
            keep = {"keep_last": config.keep_last, "keep_every": config.keep_every}
            prune(run.directory, newest=state.images_seen, best=best, **keep)
    state.safety_save = path if for_safety else None
    state.saved_images, state.saved_at = state.images_seen, time.monotonic()
    return Saved(state.images_seen, str(path))


def _refuse_non_finite(state: State, tensors: dict[str, Tensor]) -> None:
    """Raise NonFiniteError where anything that a checkpoint holds is NaN or infinite."""
    if not all(value.isfinite().all() for value in tensors.values()):
        raise NonFiniteError("a weight")
    state.averaged()
    state.means.read()


def _write_checkpoint(state: State, tensors: dict[str, Tensor], *, for_safety: bool) -> None:
    run, data = state.run, state.data
    path = save_checkpoint(
        run.directory,
        state.images_seen,
        generator={name: value.cpu() for name, value in state.averaged().network.state_dict().items()},
        generator_metadata=generator_metadata(state.config, data.spec, data.conditioning, data.train.class_names),
        state=tensors,
        counters=_counters(state, for_safety=for_safety),
        logs=(run.log_path, run.metrics_path),
    )
    if state.is_best:
        mark_best(run.directory, path)


def _counters(state: State, *, for_safety: bool) -> dict[str, Any]:
    """Return what a checkpoint's state.json says besides hashes."""
    return {
        "images_seen": state.images_seen,
        "log_lines": len(state.rows),
        "sums": state.means.read(),
        "counts": state.means.counts,
        "best": state.best,
        "rollbacks": state.rollbacks,
        "data_sha256": state.data.data_sha256,
        "ids_sha256": tensor_sha256(state.data.y),
        "for_safety": for_safety,
        "gradient_norms": gradient_norms(state),
        "initial_norms": state.initial_norms,
    }


def scores_in(config: Config, images: int, cost: int = 1) -> int:
    """Return how many validation FD ratios a run of this length gets: few enough to cost under a twentieth of it.

    Measured on two cores: a score takes as long as 2,000 images of `default`; on one, as 4,300 of `mlp-small`; the real
    images' features once more that.

    Args:
        cost: of a score, as a multiple of that.
    """
    step = cost * (250_000 if config.network.startswith(("mlp", "cgan")) else 48_000)
    return min(8, max(1, images // step)) + images // (10 * step)


def interval(config: Config, name: str, parts: int) -> int:
    """Return the images between two chores: those chosen, else a share of the schedule.

    A recipe's own interval is meant for its own length: a shorter run keeps it no longer than a share.
    """
    chosen: int = getattr(config, name)
    share = max(config.batch_size, math.ceil(expected_length(config) / parts))
    return min(chosen or share, share) if config.is_from_recipe(name) else chosen or share


def expected_length(config: Config) -> int:
    """Return how many images a run's intervals are shares of."""
    return config.planned_images or config.schedule_length


def begin(state: State, starts: Sequence[dict[str, Any]]) -> None:
    """Prepare the directory of a run that is about to train: real.png, config.toml, run.json; process 0 does."""
    if not processes.is_first():
        return
    state.run.samples_dir.mkdir(exist_ok=True)  # empty folders get lost in copies
    record_start(state, starts)
    if state.images_seen == 0:
        write_bytes(state.run.directory / "real.png", to_png(enlarge(grid(state.data.train.shuffled(25).pixels))))


def record_start(state: State, starts: Sequence[dict[str, Any]]) -> None:
    """Record in config.toml and run.json what is about to train, on what, on which machine, by which commands.

    Warns where versions or the machine differ from the last time: the run then goes on, but not bit for bit.
    """
    run, data, device = state.run, state.data, state.networks.device
    here = {
        "versions": {
            "gansmith": __version__,
            **{name: metadata.version(name) for name in ("torch", "numpy")},
        },
        "python": platform.python_version(),
        "machine": {
            "processor": device_name(torch.device("cpu")),
            "threads": torch.get_num_threads(),
            "bfloat16": has_fast_bf16(),
            **({"processes": processes.count()} if processes.count() > 1 else {}),
            **({"device": device_name(device)} if device.type != "cpu" else {}),
        },
    }
    before = run.facts()
    changed = [name for name in here if name in before and before[name] != here[name]]
    if changed:
        listing = ", ".join(f"{name} {before[name]} -> {here[name]}" for name in changed)
        logger.warning("%s goes on, but not bit for bit as it would have: %s", run.directory, listing)
    write_config(run.directory, run.config)
    run.record(
        status="running",
        reason=None,
        errno=None,
        pid=os.getpid(),
        command=starts[0]["command"],
        working_directory=os.getcwd(),
        starts=list(starts),
        rollbacks=list(state.rollbacks),
        evaluators=before.get("evaluators", []) if state.scorer is None else list(state.scorer.networks),
        custom=custom_choices(run.config),
        **here,
        data={
            "source": data.train.source,
            "sha256": data.data_sha256,
            "size": data.spec.size,
            "channels": data.spec.channels,
            "num_classes": data.spec.num_classes,
            "train": len(data.train),
            "validation": len(data.validation) if data.validation else 0,
            "notices": [*data.train.notices, *data.notices],
        },
    )


def what_is_left(run: RunDirectory) -> str:
    """Return a clause on what a run that failed still has."""
    latest = run.latest()
    return f"the checkpoint of {int(latest.name):,} images is intact" if latest else "no checkpoint was saved before"
