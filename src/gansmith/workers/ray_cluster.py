"""Trainings as tasks on a Ray cluster.

Each is an actor that holds a `TrainingProcess` on some node, with the CPUs and GPUs it needs. Run directories are
written where the driver's folder is visible on the node, as on a shared file system; elsewhere into a folder of the
node, and returned when the training has ended. A training whose node is lost is started again on another.
"""

import contextlib
import logging
import os
import shutil
import socket
import tempfile
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gansmith.errors import ConfigError, reason_of
from gansmith.runs import holds_run
from gansmith.workers.process import LOST, PROGRAM, STOP_S, Task, TrainingProcess, own_program, unpack

MAX_LOSSES = 3  # of the nodes a task ran on, before it is given up
CONNECT_S = REMOVE_S = 5.0


class NodeTraining(TrainingProcess):
    """A training on a node of a cluster.

    Args:
        mark: file with `token` inside that a node sees which shares the driver's folders.
        program: the driver's own program, whose rows the training needs; empty for none.
    """

    def __init__(
        self, directory: str, words: Sequence[str], log: str | None, threads: int, mark: str, token: str, program: str
    ) -> None:
        if program:
            os.environ[PROGRAM] = program
        path = Path(mark)
        self.is_shared = path.is_file() and path.read_text(encoding="utf-8") == token
        if not self.is_shared:
            directory = str(Path(tempfile.gettempdir()) / f"gansmith-{token}" / Path(directory).name)
            log = f"{directory}.txt" if log else None
        super().__init__(directory, words, log, threads=threads)

    def shares_folders(self) -> bool:
        """Return whether the driver's run directory is this one."""
        return self.is_shared

    def remove(self) -> bytes:
        """Remove a run directory of the node, once the driver has it, and its log; return that."""
        shutil.rmtree(self.directory, ignore_errors=True)
        log = Path(self.log) if self.log else None
        if log is None or not log.is_file():
            return b""
        data = log.read_bytes()
        log.unlink()
        return data


class RayPool:
    """Tasks on the Ray cluster at an address; "auto" for the one this machine belongs to.

    Raises ConfigError without the extra `ray`, and where no cluster answers.
    """

    def __init__(self, address: str, *, workers: int | None, threads: int, gpus: float) -> None:
        try:
            import ray
        except ImportError:
            raise ConfigError("tasks on a cluster need the extra `ray`: pip install 'gansmith[ray]'") from None
        self.ray: Any = ray
        self.threads, self.gpus = threads, gpus
        self.is_mine = not ray.is_initialized()
        if self.is_mine:
            _connect(ray, address)
        nodes = [node["Resources"] for node in self.ray.nodes() if node["Alive"]]
        room = sum(_room_on(node, threads, gpus) for node in nodes)
        if not room:
            if self.is_mine:
                ray.shutdown()
            has = dict.fromkeys(f"{node.get('CPU', 0):g} CPUs and {node.get('GPU', 0):g} GPUs" for node in nodes)
            raise ConfigError(
                f"a task needs {threads} CPUs and {gpus:g} GPUs of one node, and the cluster's nodes have "
                f"{', '.join(has)}; ask for fewer with --threads or --gpus"
            )
        self.size = min(workers or room, room)
        self.token = uuid.uuid4().hex
        self.marks: set[Path] = set()
        self.losses = 0

    def start(self, task: Task) -> dict[str, Any]:
        mark = task.directory.parent / f".mark-{self.token}"
        if mark not in self.marks:
            mark.parent.mkdir(parents=True, exist_ok=True)
            mark.write_text(self.token, encoding="utf-8")
            self.marks.add(mark)
        running = {"task": task, "mark": mark, "losses": 0, "state": {"code": None, "scores": [], "reason": ""}}
        self._place(running)
        return running

    def _place(self, running: dict[str, Any]) -> None:
        """Start an actor for a task on a node with room, and ask for its state."""
        task = running["task"]
        actor_class = self.ray.remote(NodeTraining).options(
            num_cpus=self.threads, num_gpus=self.gpus, max_restarts=0, max_task_retries=0
        )
        directory, log = str(task.directory.absolute()), str(task.log.absolute()) if task.log else None
        program = str(own_program() or "")
        actor = actor_class.remote(
            directory, task.words, log, self.threads, str(running["mark"].absolute()), self.token, program
        )
        running |= {"actor": actor, "step": "place", "pending": actor.shares_folders.remote()}

    def poll(self, running: dict[str, Any]) -> dict[str, Any]:
        """Return the newest state that the node has sent, without waiting for it."""
        ready, _ = self.ray.wait([running["pending"]], timeout=0)
        if ready:
            try:
                self._advance(running, self.ray.get(running["pending"]))
            except self.ray.exceptions.RayError as error:
                self._lose(running, error)
        state: dict[str, Any] = running["state"]
        return state

    def _advance(self, running: dict[str, Any], answer: Any) -> None:
        """Take a node's answer, and ask the next question: place, (send), poll, (fetch)."""
        actor, directory = running["actor"], running["task"].directory
        if running["step"] == "place":
            running["is_shared"] = answer
            if not answer and holds_run(directory):
                packed = TrainingProcess(str(directory), ()).pack()
                running |= {"step": "send", "pending": actor.unpack.remote(packed)}
                return
        elif running["step"] == "poll":
            if answer["code"] is not None and not running["is_shared"]:
                running |= {"step": "fetch", "pending": actor.pack.remote(), "last": answer}
                return
            running["state"] = answer
        elif running["step"] == "fetch":
            unpack(answer, directory)
            self._remove(running)
            running["state"] = running["last"]
        if running["state"]["code"] is not None:
            self.ray.kill(actor)
        else:
            running |= {"step": "poll", "pending": actor.poll.remote()}

    def _lose(self, running: dict[str, Any], error: Exception) -> None:
        """Start a task again whose node was lost, or give it up."""
        self.losses += 1
        running["losses"] += 1
        if running["losses"] >= MAX_LOSSES:
            reason = f"Ray has lost it {MAX_LOSSES} times ({str(error).splitlines()[0]})"
            running["state"] = {"code": LOST, "scores": [], "reason": reason}
        else:
            self._place(running)

    def stop(self, running: dict[str, Any]) -> None:
        running["actor"].stop.remote()

    def close(self, left: Sequence[dict[str, Any]]) -> None:
        try:
            self._save([running for running in left if running["step"] in ("poll", "send", "fetch")])
        finally:
            for running in left:
                self.ray.kill(running["actor"])
            for mark in self.marks:
                mark.unlink(missing_ok=True)
            if self.is_mine:
                self.ray.shutdown()

    def _save(self, running: Sequence[dict[str, Any]]) -> None:
        """Have tasks save and stop, and fetch the run directories that are not here."""
        for one in running:
            one["actor"].stop.remote()
        waits = [one["actor"].wait.remote(STOP_S) for one in running]
        if waits:
            self.ray.wait(waits, num_returns=len(waits), timeout=STOP_S)
        for one in running:
            if not one["is_shared"]:
                with contextlib.suppress(self.ray.exceptions.RayError, OSError):
                    unpack(self.ray.get(one["actor"].pack.remote(), timeout=STOP_S), one["task"].directory)
                    self._remove(one)

    def _remove(self, running: dict[str, Any]) -> None:
        """Have a node remove a run directory that is here now, and take its log; a silent one keeps both."""
        with contextlib.suppress(self.ray.exceptions.RayError, OSError):
            data = self.ray.get(running["actor"].remove.remote(), timeout=REMOVE_S)
            log = running["task"].log
            if log is not None and data:
                log.parent.mkdir(parents=True, exist_ok=True)
                with log.open("ab") as file:
                    file.write(data)


def _room_on(node: Mapping[str, float], threads: int, gpus: float) -> int:
    """Return how many tasks a node with these resources has room for at a time; no task takes parts of two GPUs."""
    room = int(node.get("CPU", 0) / threads)
    if not gpus:
        return room
    whole = node.get("GPU", 0)
    return min(room, int(whole / gpus) if gpus >= 1 else int(whole) * int(1 / gpus))


def _connect(ray: Any, address: str) -> None:
    """Connect to the cluster at an address; ConfigError where none answers, which Ray waits minutes for."""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    try:
        if colon and port.isdigit():
            socket.create_connection((host, int(port)), CONNECT_S).close()
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except (OSError, ValueError, RuntimeError) as error:
        raise ConfigError(
            f"no Ray cluster answers at {address!r} ({reason_of(error)}); begin one with `ray start --head`, or omit "
            "--ray"
        ) from None
