"""The training loop: from a run directory and its data to a finished run, yielding what happens on the way.

Every random choice is a function of (seed, images seen, purpose), so a run that continues from a checkpoint is the
run that was never interrupted.
"""

import contextlib
import errno
import os
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from gansmith import processes
from gansmith.errors import GansmithError, TrainingFailed
from gansmith.events import Event, LengthChanged, RolledBack
from gansmith.files import PARTIAL, quoted
from gansmith.runs import RunDirectory, locked, open_run, write_config
from gansmith.training.batches import take_step
from gansmith.training.chores import (
    begin,
    is_overdue,
    report_failure,
    run_chores,
    scheduled_chores,
    what_is_left,
)
from gansmith.training.diagnosis import FIRST_STEPS, WINDOW, Failure, to_failure
from gansmith.training.inputs import TrainingData
from gansmith.training.machine import training_machine
from gansmith.training.optimizers import renew_bases, set_learning_rates
from gansmith.training.schedule import extended_factor, progress_at
from gansmith.training.state import State, norm_growth, start
from gansmith.training.step import NonFiniteError

LAST_PICTURES_S = 1.3  # the last grid, the plot and leaving
ROLLBACK_FACTOR, MAX_ROLLBACKS = 0.5, 3  # of the learning rates each time, and how often


def train_events(
    run: RunDirectory,
    data: TrainingData,
    *,
    stop: Callable[[], bool] = lambda: False,
    command: Sequence[str] = (),
    deadline: float | None = None,
) -> Iterator[Event]:
    """Train a run to its length, or until `stop()` says so, and yield what happens.

    Continues from the newest checkpoint where there is one. The run's directory is locked meanwhile.

    Args:
        command: what was typed, for run.json.
        deadline: by `time.perf_counter`; half-way, a new run's length is corrected, once, to what fits until then.

    Raises RunError where another process trains in the directory or the data are not those it began with;
    TrainingFailed when a loss is NaN or infinite, at any training failure if the config says stop, or when the disk is
    full; the last checkpoint is then intact.
    """
    with contextlib.ExitStack() as held:
        with processes.first_alone():
            held.enter_context(locked(run.directory))
        held.enter_context(training_machine(run.config))
        at = datetime.now(UTC).isoformat(timespec="seconds")
        starts = [*run.facts().get("starts", []), {"command": list(command), "at": at}]
        finished = None
        try:
            while finished is None:
                try:
                    finished = yield from _loop(run, data, stop, starts, deadline)
                except _Failed as failed:
                    run, step = open_run(run.directory), None  # whose length may have been corrected
                    if run.config.on_failure == "rollback":
                        step = processes.agreed(partial(plan_rollback, run, failed.failure))
                    if step is None:
                        reason = f"{failed.failure.message}; {what_is_left(run)}"
                        with contextlib.suppress(OSError):
                            run.record(status="failed", reason=reason)
                        raise TrainingFailed(reason, failure=failed.failure.name) from None
                    yield RolledBack(failed.failure.images_seen, step["to"], step["failure"], step["message"])
                    run = open_run(run.directory)
            run.record(status="finished" if finished else "stopped")
        except (GansmithError, TrainingFailed) as error:  # one for a missing file is an OSError too
            facts = run.facts()
            if (facts.get("status"), facts.get("pid")) == ("running", os.getpid()):  # it had begun
                with contextlib.suppress(OSError):
                    run.record(status="failed", reason=str(error))
            raise
        except OSError as error:
            raise _save_failed(run, error) from error


def _loop(
    run: RunDirectory,
    data: TrainingData,
    stop: Callable[[], bool],
    starts: Sequence[dict[str, Any]],
    deadline: float | None,
) -> Generator[Event, None, bool]:
    """Yield the events of training; returns whether the run reached its length."""
    state = start(run, data)
    begin(state, starts)
    chores = scheduled_chores(state)
    while True:
        interrupted, overdue = processes.any_of(not state.is_finished and stop(), is_overdue(state))
        try:
            yield from run_chores(state, chores, stopping=interrupted, overdue=overdue)
            if state.new_failure is not None and state.config.on_failure != "warn":
                raise _Failed(state.new_failure)
            if state.is_finished or interrupted:
                return state.is_finished
            state.just_resumed, state.new_failure = False, None
            if deadline is not None and (event := correct_length(state, deadline)):
                yield event
            advance(state)
        except NonFiniteError as error:
            if state.go_back():  # where losses are not read at every step: take these again, and read them
                continue
            failure = to_failure("not-finite", state.images_seen, f"{error} became NaN or infinite", state.config)
            if failure.as_row() not in state.rows:  # a run that continues may meet it again
                yield report_failure(state, failure)
            raise _Failed(failure) from None


def advance(state: State) -> None:
    """Train on one more batch."""
    config, length = state.config, state.config.schedule_length
    progress = progress_at(state.images_seen, length, config.planned_images or length)
    progress = max(0.0, min(progress, 1.0 - config.batch_size / length))
    extended = extended_factor(state.images_seen, length, config.images)
    factor = ROLLBACK_FACTOR ** len(state.rollbacks)
    set_learning_rates(state.networks, config, progress, factor=factor, extended=extended)
    renew_bases(state.networks, state.images_seen // config.batch_size)
    techniques = replace(state.techniques, reads=state.techniques.reads or state.images_seen < state.checked_until)
    state.means.add(take_step(state.networks, techniques, state.batches, state.images_seen, progress))
    state.images_seen += config.batch_size
    if state.images_seen == FIRST_STEPS * config.batch_size:
        state.means.add({"weight_growth": norm_growth(state)})


def correct_length(state: State, deadline: float) -> Event | None:
    """Half-way through a new run, set its length to what fits until the deadline; once, and recorded in config.toml."""
    config, middle = state.config, state.config.images / 2
    # The first half says little where steps become slower with networks that grow, or faster once beta2 stands still.
    is_even = not state.networks.growing and not (state.batches.graphs is not None and config.beta2_start)
    is_open = is_even and not (config.planned_images or config.schedule_images)
    if not is_open or not state.images_seen - config.batch_size < middle <= state.images_seen:
        return None
    fitting = processes.agreed(partial(state.clock.images_until, deadline - LAST_PICTURES_S, state.images_seen))
    images = state.images_seen + max(fitting, state.images_seen // 4, config.batch_size)
    state.replace_config(config.replace(images=images, planned_images=config.images))
    write_config(state.run.directory, state.config)
    return LengthChanged(state.images_seen, images)


class _Failed(Exception):
    """The loop stopped for a training failure."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.message)
        self.failure = failure


def plan_rollback(run: RunDirectory, failure: Failure) -> dict[str, Any] | None:
    """Record a rollback to the best sound checkpoint, with lower learning rates; None where no try is left.

    It is written down before it is done, so a run killed in between does the rest when it continues.
    """
    # A checkpoint of the window in which the failure was recognised may hold it already.
    sound = [path for path in run.checkpoints() if int(path.name) < failure.images_seen - WINDOW * run.config.images]
    best = run.best()
    target = best if best in sound else sound[-1] if sound else None
    rollbacks = run.facts().get("rollbacks", [])
    if target is None or len(rollbacks) >= MAX_ROLLBACKS:
        return None
    step = {
        "from": failure.images_seen,
        "to": int(target.name),
        "failure": failure.name,
        "message": f"{failure.message}; going back to {int(target.name):,} images with half the learning rates",
    }
    run.record(rollbacks=[*rollbacks, step])
    return step


def _save_failed(run: RunDirectory, error: OSError) -> TrainingFailed:
    """Return the failure of a run whose files could not be written, recorded where that is possible."""
    if not run.directory.is_dir():
        return TrainingFailed(f"{run.directory} was removed while it trained, and nothing of it is left; train again")
    file = str(error.filename or run.directory).replace(PARTIAL, "")
    remedies = {
        errno.EISDIR: f"remove the folder {file}",
        errno.EACCES: "close the program that has it open, or train outside of a folder that is synchronised"
        if os.name == "nt"
        else f"allow writing in {Path(file).parent}",
    }
    remedies |= dict.fromkeys((errno.ENOSPC, errno.EDQUOT, errno.EFBIG), "make room")
    remedies |= {errno.ENOENT: "keep others from removing what it writes"}
    remedy = remedies.get(error.errno or 0, "see that its drive is there and can be written")
    reason = (
        f"{file} could not be written ({error.strerror}), and {what_is_left(run)}; {remedy}, then continue with: "
        f"gansmith resume {quoted(run.directory)}"
    )
    with contextlib.suppress(OSError):
        run.record(status="failed", reason=reason, errno=error.errno)
    return TrainingFailed(reason)
