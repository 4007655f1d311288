"""One training in a process of its own, which saves and stops when the process that started it ends.

The child reads its standard input, which ends when its parent does, however that happens. So no training is left
behind by a parent that was killed, and what it had trained is there for the next one.
"""

import contextlib
import io
import os
import re
import runpy
import signal
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from gansmith.config import FIELDS, RESERVED_VARIABLES
from gansmith.errors import GansmithError
from gansmith.runs import holds_run, is_locked, open_run

STANDARD_ERROR = 2  # this process's own
_ABORTED = 3  # the exit code of a signal on Windows
STOP_S = 60.0  # for a training to finish its step and save
# Variables that torchrun sets: a training of its own is none of those that torchrun started.
_OF_TORCHRUN = re.compile(r"((LOCAL_|GROUP_|ROLE_)?(RANK|WORLD_SIZE)|ROLE_NAME|MASTER_(ADDR|PORT)|TORCHELASTIC_.*)")
_CHILD = (
    "from gansmith.workers.process import define_own_rows, stop_with_input; stop_with_input(); define_own_rows(); "
    "from gansmith.cli import main; main()"
)
LOST = 75  # exit code of a training that its cluster has lost, as EX_TEMPFAIL
PROGRAM = "GANSMITH_PROGRAM"  # environment variable: the file that stands for the command


def _is_left_out(name: str) -> bool:
    """Return whether an environment variable is not for a training: torchrun's, or a choice, which its words give."""
    field = FIELDS.get(name.removeprefix("GANSMITH_").lower())
    if _OF_TORCHRUN.fullmatch(name):
        return True
    is_ours = name.startswith("GANSMITH_") and name not in RESERVED_VARIABLES
    return is_ours and field is not None and not field.metadata["is_circumstance"]


def own_program() -> Path | None:
    """Return the file that runs in place of `gansmith`, with rows of its own, as docs/adding-things.md says."""
    if PROGRAM in os.environ:
        return Path(os.environ[PROGRAM])
    program, command = sys.modules.get("__main__"), sys.modules.get("gansmith.cli")
    file = getattr(program, "__file__", None)
    if file is None or command is None or not any(value is command.main for value in vars(program).values()):
        return None
    return Path(file).absolute()


def with_own_program(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of a process that trains, in which `define_own_rows` finds the program of this one."""
    program = own_program()
    return {**environment, **({PROGRAM: str(program)} if program else {})}


def define_own_rows() -> None:
    """Run the file that stands for the command as a module, so that its rows are in their tables."""
    path = os.environ.get(PROGRAM, "")
    if path and Path(path).is_file():
        sys.path.insert(0, str(Path(path).parent))
        runpy.run_path(path, run_name="__gansmith__")


@dataclass(frozen=True)
class Task:
    """One training.

    Attributes:
        name: what a person calls it.
        directory: its run directory; a run that is there already is continued.
        words: arguments of `gansmith` but for --out, beginning with train.
        log: file for its output; the standard error of this process where None.
    """

    name: str
    directory: Path
    words: tuple[str, ...]
    log: Path | None = None


class TrainingProcess:
    """A training: started when no other process trains in its directory, polled, stopped.

    Its methods take and return plain values, so that Ray can hold it on another machine.

    Args:
        directory: run directory.
        words: arguments of `gansmith` but for --out.
        log: file for its output; this process's standard error where None.
        threads: size of its thread pools; its own choice where 0.
    """

    def __init__(self, directory: str, words: Sequence[str], log: str | None = None, *, threads: int = 0) -> None:
        self.directory, self.words, self.log, self.threads = Path(directory), tuple(words), log, threads
        self.process: subprocess.Popen[bytes] | None = None
        self.is_stopped = False
        self._seen: tuple[int, list[tuple[float, float]]] = (0, [])

    def poll(self) -> dict[str, Any]:
        """Return its exit code (None while it runs), its scores so far, and why the code is not 0.

        A score is a validation FD ratio after a share of its training.
        """
        if self.process is None and not self.is_stopped and not is_locked(self.directory):
            self._start()
        code = self.process.poll() if self.process is not None else 128 + signal.SIGTERM if self.is_stopped else None
        if code == _ABORTED and self.is_stopped and os.name == "nt":
            code = 128 + signal.SIGTERM
        if code is not None:
            self._end_input()
        return {"code": code, "scores": self._scores(), "reason": self._reason(code) if code else ""}

    def stop(self) -> None:
        """Ask it to finish its step, save and stop."""
        self.is_stopped = True
        self._end_input()

    def _end_input(self) -> None:
        if self.process is not None and self.process.stdin is not None:
            with contextlib.suppress(OSError):
                self.process.stdin.close()

    def wait(self, seconds: float) -> None:
        """Wait until it has ended; kill it after so many seconds."""
        if self.process is None:
            return
        try:
            self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def pack(self) -> bytes:
        """Return the run directory as a tar file."""
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w:gz", compresslevel=1) as tar:
            # A training that was refused has made none.
            for path in sorted(self.directory.iterdir()) if self.directory.is_dir() else ():
                if path.name != ".lock":
                    tar.add(path, path.name)
        return packed.getvalue()

    def unpack(self, packed: bytes) -> None:
        """Write a run directory from a tar file of `pack`, over what is there."""
        unpack(packed, self.directory)

    def _start(self) -> None:
        environment = with_own_program({name: value for name, value in os.environ.items() if not _is_left_out(name)})
        if self.threads:
            environment["OMP_NUM_THREADS"] = str(self.threads)
        output: IO[bytes] | int = STANDARD_ERROR
        with contextlib.ExitStack() as opened:
            if self.log is not None:
                Path(self.log).parent.mkdir(parents=True, exist_ok=True)
                output = opened.enter_context(open(self.log, "ab"))
            self.process = subprocess.Popen(
                [sys.executable, "-P", "-c", _CHILD, *self.words, "--out", str(self.directory)],
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=output,
                env=environment,
            )

    def _scores(self) -> list[tuple[float, float]]:
        path = self.directory / "metrics.jsonl"
        size = path.stat().st_size if path.is_file() else 0
        if size != self._seen[0]:
            with contextlib.suppress(GansmithError):  # from files that are just being written
                self._seen = (size, scores_of(self.directory))
        return self._seen[1]

    def _reason(self, code: int) -> str:
        """Return the sentence that says why a training ended like this."""
        facts = open_run(self.directory).facts() if holds_run(self.directory) else {}
        if facts.get("status") == "failed" and facts.get("reason"):
            return str(facts["reason"])
        if code < 0:
            return f"its process was killed by signal {-code}"
        lines = _last_lines(self.log) if self.log is not None else []
        return _last_said(lines) or (lines or [f"it ended with exit code {code}"])[-1]


def stop_with_input() -> None:
    """Raise SIGTERM in this process when its standard input ends, in a thread of its own."""
    threading.Thread(target=_wait_for_end_of_input, daemon=True).start()


def _wait_for_end_of_input() -> None:
    if os.name == "nt":
        _look_for_end_of_input()
    else:
        while os.read(0, 4096):
            pass
    signal.raise_signal(signal.SIGTERM)


def _look_for_end_of_input() -> None:
    """Return when Windows' standard input ends; while a read of it waits, libraries that look at it cannot load."""
    import _winapi
    import msvcrt

    pipe = msvcrt.get_osfhandle(0)  # type: ignore[attr-defined]
    with contextlib.suppress(OSError):  # of a pipe whose other end is closed
        while True:
            waiting, _ = _winapi.PeekNamedPipe(pipe, 0)  # type: ignore[attr-defined]
            if waiting:
                os.read(0, waiting)
            time.sleep(0.3)


def scores_of(directory: Path) -> list[tuple[float, float]]:
    """Return a run's validation FD ratios, each with the share of its training after which it was measured."""
    run = open_run(directory)
    return [
        (min(1.0, row["images_seen"] / run.config.images), row["validation_fd_ratio"])
        for row in run.validation_scores()
    ]


def unpack(packed: bytes, directory: Path) -> None:
    """Write the files of a tar file of `TrainingProcess.pack` into a directory."""
    directory.mkdir(parents=True, exist_ok=True)
    with tarfile.open(fileobj=io.BytesIO(packed), mode="r:gz") as tar:
        tar.extraction_filter = getattr(tarfile, "data_filter", None)  # which Python 3.11 has from 3.11.4 on
        tar.extractall(directory)


def last_said(log: Path) -> str:
    """Return the sentence that a training ended with, from the file of its output; empty where it said none."""
    try:
        return _last_said(_last_lines(log))
    except OSError:
        return ""


def _last_said(lines: Sequence[str]) -> str:
    said = [line for line in lines if line.startswith("gansmith: ")]
    return said[-1].removeprefix("gansmith: ") if said else ""


def _last_lines(path: Path | str) -> list[str]:
    """Return the lines at the end of a text file that are not empty."""
    with open(path, "rb") as file:
        file.seek(max(0, os.path.getsize(path) - 8192))
        return [line.strip() for line in file.read().decode(errors="replace").splitlines() if line.strip()]
