"""The queue of trainings. Each is a folder that this process, the trainer and a later server read:

    .studio/jobs/0007/  job.json  output.log  .lock  stop  result.json

The trainer holds the lock for as long as it lives, so no process number is ever trusted; a file `stop` asks it to save
and end. One training runs at a time, also beside those that other programs run in the same directory.
"""

import contextlib
import functools
import hmac
import json
import os
import re
import secrets
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gansmith import runs
from gansmith.errors import NotFoundError, RunError
from gansmith.files import read_json, write_json, write_text
from gansmith.workers.process import last_said, with_own_program

FOLDER = ".studio"
COMMANDS = ("train", "resume", "evaluate")
MAX_WAITING = 50
FULL_BYTES = 2**20  # free; a disk with less is full
_KEPT = 100  # of those that have ended
_INTERRUPTED = 130  # exit code of what was stopped
_START_S = 20.0  # from the start of a process until it holds its lock, at most
# Of a process that Ctrl-C in the server's terminal leaves alone, and that stays when its window is closed.
OWN_SESSION: dict[str, Any] = {
    "start_new_session": True,
    "creationflags": getattr(subprocess, "CREATE_NO_WINDOW", 0) | getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0),
}


@dataclass
class Jobs:
    """The trainings asked for in one directory of runs.

    Attributes:
        root: the directory of runs.
        processes: those that this server started and has not waited for yet, by job.
    """

    root: Path
    processes: dict[str, "subprocess.Popen[bytes]"] = field(default_factory=dict)
    _changing: threading.Lock = field(default_factory=threading.Lock)

    @property
    def folder(self) -> Path:
        return self.root / FOLDER / "jobs"

    def all(self) -> list[dict[str, Any]]:
        """Return every job, oldest first: id, run, title, words, state (queued, running, ended), and how it ended."""
        found = []
        for path in sorted(self.folder.glob("[0-9]*")):
            try:
                if not all(entry.is_file() for entry in os.scandir(path)):  # reading a pipe would never end
                    continue
                job = read_json(path / "job.json")
            except (OSError, ValueError):
                continue
            if is_job(job):
                found.append({**job, "id": path.name, **self._state(path, job)})
        return found

    def _signature(self, name: str, job: Mapping[str, Any]) -> str:
        """Return what only a studio of this user can write beside a job of this directory."""
        said = json.dumps([str(self.root.resolve()), name, job["words"], job["run"]])
        return hmac.new(_key(), said.encode("utf-8", "surrogatepass"), "sha256").hexdigest()

    def _state(self, path: Path, job: Mapping[str, Any]) -> dict[str, Any]:
        if (path / "result.json").is_file():
            try:
                code = read_json(path / "result.json").get("code")
            except (OSError, ValueError):
                code = None
            return {
                "state": "ended",
                "code": code,
                "message": ""
                if code in (0, _INTERRUPTED, None)
                else last_said(path / "output.log") or f"exit code {code}",
            }
        if runs.is_locked(path):
            return {"state": "running", "is_stopping": (path / "stop").exists()}
        if not (path / "started").exists():
            if hmac.compare_digest(str(job.get("signature")).encode(), self._signature(path.name, job).encode()):
                return {"state": "queued"}
            why = "it was not queued by a studio of this user in this folder, so it is not run; queue it again"
            return {"state": "ended", "code": None, "message": why}
        process = self.processes.get(path.name)
        is_young = not (path / "reaped").exists() and abs(time.time() - (path / "started").stat().st_mtime) < _START_S
        if process.poll() is None if process else is_young:
            return {"state": "running", "is_stopping": (path / "stop").exists()}
        why = "its process was killed, or its machine went down"
        if shutil.disk_usage(path).free < FULL_BYTES:
            why = "its process ended, and the disk is full; free some space first"
        return {"state": "ended", "code": None, "message": why}

    def add(self, words: list[str], *, run: str, title: str) -> dict[str, Any]:
        """Put a training at the end of the queue.

        Args:
            words: of the command line, as `gansmith` takes them.
            run: name of the run it trains.
        """
        with self._changing:
            return self._add({"words": words, "run": run, "title": title})

    def _add(self, job: dict[str, Any]) -> dict[str, Any]:
        jobs = self.all()
        waiting = [other for other in jobs if other["state"] != "ended"]
        if len(waiting) >= MAX_WAITING:
            raise RunError(f"{MAX_WAITING} trainings are waiting; remove some before adding more")
        if any(other["run"] == job["run"] for other in waiting):
            raise RunError(f"{job['run']} is being trained or waits for it; stop that first")
        for old in [other for other in jobs if other["state"] == "ended"][:-_KEPT]:
            shutil.rmtree(self.folder / old["id"])
        names = [path.name for path in self.folder.glob("[0-9]*")]
        number = max((int(name) for name in names if re.fullmatch("[0-9]{1,18}", name)), default=0)
        with contextlib.suppress(OSError, ValueError):  # of one that was taken out, which a page may still name
            number = max(number, int((self.folder / "last").read_text()))
        path = self.folder / f"{number + 1:04d}"
        path.mkdir(parents=True)
        job = {**job, "signature": self._signature(path.name, job)}
        try:
            write_json(path / "job.json", job)
            write_text(self.folder / "last", path.name)
        except OSError:
            shutil.rmtree(path, ignore_errors=True)
            raise
        return {**job, "id": path.name, **self._state(path, job)}

    def find(self, job_id: str) -> dict[str, Any]:
        """Return a job; NotFoundError where there is none."""
        for job in self.all():
            if job["id"] == job_id:
                return job
        raise NotFoundError(f"there is no training {job_id[:32]!r} in the queue")

    def stop(self, job_id: str) -> dict[str, Any]:
        """Ask a training to save and end; take one that has not begun, or has ended, out of the list."""
        with self._changing:
            job = self.find(job_id)
            path = self.folder / job["id"]
            if job["state"] != "running":
                shutil.rmtree(path)
                _remove_if_empty(self.root / job["run"])
                return {**job, "state": "removed"}
            (path / "stop").touch()
            return self.find(job_id)

    def hold(self, is_held: bool) -> None:
        """Keep the queue from starting the next training, or let it go on."""
        path = self.root / FOLDER / "held"
        if is_held:
            path.touch()
        else:
            path.unlink(missing_ok=True)

    @property
    def is_held(self) -> bool:
        return (self.root / FOLDER / "held").exists()

    def tick(self, is_busy: Callable[[], bool]) -> None:
        """Start the next training where none runs; called again and again.

        Args:
            is_busy: says whether another program trains in this directory.
        """
        for name, process in list(self.processes.items()):
            if process.poll() is not None:
                del self.processes[name]
                if (self.folder / name).is_dir():
                    (self.folder / name / "reaped").touch()
        if self._next() is None or is_busy():
            return
        with self._changing:  # the training may have been taken out, or another one stopped, meanwhile
            job = self._next()
            if job is not None:
                self._start(self.folder / job["id"])

    def _next(self) -> dict[str, Any] | None:
        """Return the first training that waits, where none runs; an evaluation alone where the queue is held."""
        jobs = self.all()
        if any(job["state"] == "running" for job in jobs):
            return None
        is_held = self.is_held
        waiting = (job for job in jobs if job["state"] == "queued")
        return next((job for job in waiting if not is_held or job["words"][0] == "evaluate"), None)

    def _start(self, path: Path) -> None:
        (path / "started").touch()
        environment = with_own_program({**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))})
        with (path / "output.log").open("ab") as log:
            self.processes[path.name] = subprocess.Popen(
                [sys.executable, "-P", "-m", "gansmith.web.trainer", str(path)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=environment,
                **OWN_SESSION,
            )


def is_job(job: Mapping[str, Any]) -> bool:
    """Return whether this is what a studio writes: words of a command that it gives, and the name of a run here."""
    words, run = job.get("words"), job.get("run")
    if not (isinstance(words, list) and words and all(isinstance(word, str) for word in words)):
        return False
    is_name = isinstance(run, str) and run not in ("", ".", "..") and not set(run) & {"/", "\\", "\0"}
    return is_name and words[0] in COMMANDS and isinstance(job.get("title"), str)


@functools.cache
def _key() -> bytes:
    """Return this user's secret for the queue; it lies outside of any folder of runs, which may come from others."""
    import platformdirs

    key = secrets.token_bytes(32)
    with contextlib.suppress(OSError, RuntimeError):  # RuntimeError: without a home
        path = Path(platformdirs.user_state_dir("gansmith", appauthor=False)).absolute() / "studio-key"
        path.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileExistsError):
            with os.fdopen(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "wb") as file:
                file.write(key)
        is_own = not hasattr(os, "getuid") or (path.stat().st_uid == os.getuid() and not path.stat().st_mode & 0o077)
        return (path.read_bytes() if is_own else b"") or key
    return key  # what is queued is then forgotten with this process


def _remove_if_empty(directory: Path) -> None:
    """Remove the folder that was kept for a run which never began."""
    if directory.is_dir() and not any(directory.iterdir()):
        directory.rmdir()
