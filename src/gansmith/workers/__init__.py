"""Many trainings at a time: as child processes on this machine, or as tasks on a Ray cluster.

`run_tasks` keeps a pool busy with tasks and says how each ended. A pool is `LocalPool` or `ray_cluster.RayPool`; both
start, poll and stop a `process.TrainingProcess` for each task.
"""

import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from gansmith.errors import ConfigError
from gansmith.workers.process import STOP_S, Task, TrainingProcess

POLL_S = 0.3


@dataclass(frozen=True)
class Ended:
    """How a training ended.

    Attributes:
        code: exit code of `train`, negative for a signal.
        reason: a sentence on why it is not 0; empty where its output was not kept.
    """

    code: int
    reason: str = ""


class Interrupted(Exception):
    """Training was stopped; `code` is what to exit with, and `reason` why, where it was not by a signal to all."""

    def __init__(self, code: int, reason: str = "") -> None:
        super().__init__(f"stopped with exit code {code}")
        self.code, self.reason = code, reason

    def in_words(self) -> str:
        """Return that it was stopped, and why where this is known."""
        return f"stopped ({self.reason})" if self.reason else "stopped"


class Pool(Protocol):
    """Where tasks run: `size` at a time, each with so many CPU threads (0: its own choice)."""

    size: int
    threads: int

    def start(self, task: Task) -> Any:
        """Start a task, and return what the other methods take."""

    def poll(self, running: Any) -> dict[str, Any]:
        """Return the state of a task, as `TrainingProcess.poll` does."""

    def stop(self, running: Any) -> None:
        """Ask a task to save and stop."""

    def close(self, left: Sequence[Any]) -> None:
        """Stop these tasks, wait for them, and release the pool."""


class LocalPool:
    """Child processes on this machine."""

    def __init__(self, size: int = 1, *, threads: int = 0) -> None:
        self.size, self.threads = size, threads

    def start(self, task: Task) -> TrainingProcess:
        log = str(task.log) if task.log else None
        return TrainingProcess(str(task.directory), task.words, log, threads=self.threads)

    def poll(self, running: TrainingProcess) -> dict[str, Any]:
        return running.poll()

    def stop(self, running: TrainingProcess) -> None:
        running.stop()

    def close(self, left: Sequence[TrainingProcess]) -> None:
        for process in left:
            process.stop()
        for process in left:
            process.wait(STOP_S)


def open_pool(workers: int | None = None, ray: str | None = None, *, gpus: float = 0.0, threads: int = 0) -> Pool:
    """Return a pool of child processes, or of tasks on the Ray cluster at an address.

    Args:
        workers: tasks at a time; by default one here, and as many as the cluster has room for.
        gpus: that each task needs on a cluster; may be a fraction.
        threads: CPU threads of each task; for 0, an equal share of the cores here, and 1 on a cluster.

    Raises ConfigError for numbers out of range, a cluster that does not answer, or without the extra `ray`.
    """
    if workers is not None and not 1 <= workers <= 1024:
        raise ConfigError(f"workers is {workers}; it must be between 1 and 1024, such as 2")
    if not 0 <= gpus <= 64:
        raise ConfigError(f"gpus is {gpus:g}; it must be between 0 and 64, such as 1")
    if ray is None:
        if gpus:
            raise ConfigError("gpus is what each task needs on a Ray cluster; give --ray too, or omit --gpus")
        workers = workers or 1
        return LocalPool(workers, threads=threads or (0 if workers == 1 else max(1, cores() // workers)))
    from gansmith.workers.ray_cluster import RayPool

    return RayPool(ray, workers=workers, threads=threads or 1, gpus=gpus)


def cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def run_tasks(
    next_task: Callable[[], Task | None],
    pool: Pool,
    *,
    should_stop: Callable[[Task, Sequence[tuple[float, float]]], bool] = lambda task, scores: False,
) -> Iterator[tuple[Task, Ended]]:
    """Keep a pool busy until there is no next task, and yield each task when it has ended.

    All that still run are stopped and have saved when the iterator is closed, or an exception leaves it.

    Args:
        should_stop: called with a running task and its validation FD ratios so far, each with the share of its
            training after which it was measured.
    """
    running: dict[Task, Any] = {}
    try:
        while True:
            while len(running) < pool.size and (task := next_task()) is not None:
                running[task] = pool.start(task)
            if not running:
                return
            for task, handle in list(running.items()):
                state = pool.poll(handle)
                if state["code"] is not None:
                    del running[task]
                    yield task, Ended(state["code"], state["reason"])
                elif should_stop(task, state["scores"]):
                    pool.stop(handle)
            time.sleep(POLL_S)
    finally:
        pool.close(list(running.values()))
