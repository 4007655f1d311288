"""Generators of other libraries, read and run in a separate process, a worker.

A worker (`keras_worker`, `onnx_worker`, `pt2_worker`) lives as long as its generator: latents go to it and images come
back through pipes, as plain numbers. So the other library, and whatever a file does to it, stays outside this process,
and can be stopped.
"""

import contextlib
import json
import math
import os
import signal
import subprocess
import sys
import time
import weakref
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from gansmith.errors import DataError
from gansmith.importers.worker import LENGTH

# Of a core's time, or twice as long by the clock: for reading a file, which takes Keras 3 to 5 s (2025), and for each
# request after it.
TIME_LIMIT_S = 60.0
Process = subprocess.Popen[bytes]


def read_in_worker(module: str, path: Path, *arguments: str) -> tuple["ForeignGenerator", dict[str, str]]:
    """Return the generator that a worker reads from a file, and its metadata if Gansmith exported it ({} otherwise).

    Args:
        module: of the worker, in this package.
        arguments: what it reads; it gets a folder for its temporary files before them.

    Raises DataError with the reason if it cannot be read.
    """
    with TemporaryDirectory(prefix="gansmith-") as folder, contextlib.ExitStack() as cleanup:
        process = start_worker(module, Path(folder), *arguments)
        cleanup.callback(stop_worker, process)
        facts = read_facts(process)
        cleanup.pop_all()
    return ForeignGenerator(process, path, facts).eval(), facts["metadata"]


def start_worker(module: str, folder: Path, *arguments: str) -> Process:
    """Start a worker; `folder` is for its temporary files and must exist until it has sent its facts."""
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
        "KERAS_BACKEND": "torch",
        "KERAS_HOME": str(folder),  # the user's keras.json must not change results
        "CUDA_VISIBLE_DEVICES": "",
        "OMP_NUM_THREADS": str(torch.get_num_threads()),
    }
    return subprocess.Popen(
        [sys.executable, "-P", "-m", f"gansmith.importers.{module}", str(TIME_LIMIT_S), str(folder), *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=environment,
    )


def read_facts(process: Process) -> dict[str, Any]:
    """Return what a worker says of the model it has loaded; DataError with its reason if it could not load it."""
    assert process.stdout is not None
    started_at = time.monotonic()
    header = process.stdout.read(LENGTH.size)
    text = process.stdout.read(*LENGTH.unpack(header)) if len(header) == LENGTH.size else b""
    if not text:
        raise DataError(_reason_of_end("reading it", process, started_at))
    facts: dict[str, Any] = json.loads(text)
    if "error" in facts:
        raise DataError(facts["error"])
    return facts


def stop_worker(process: Process) -> None:
    """Kill the worker and close its pipes."""
    process.kill()
    process.wait()
    for pipe in (process.stdin, process.stdout):
        assert pipe is not None
        with contextlib.suppress(OSError):  # from an unsent rest of a request
            pipe.close()


def _reason_of_end(action: str, process: Process, started_at: float) -> str:
    """Return why a worker that has ended did so."""
    is_late = time.monotonic() - started_at >= 2 * TIME_LIMIT_S
    if is_late or process.wait() == -getattr(signal, "SIGXCPU", 0):
        return f"{action} takes more than {TIME_LIMIT_S:g} seconds"
    return f"{action} crashes the library that runs it, or takes too much memory"


class ForeignGenerator(nn.Module):
    """G(z, y) -> (N, C, H, W) in [-1, 1], computed by the worker, which ends when this object does.

    Attributes:
        latent_dim: length of the latent vector.
        num_classes: 0 if unconditional; -1 if it takes class ids and does not say how many there are.
        notices: a sentence for each thing that was decided about the file.
    """

    def __init__(self, process: Process, path: Path, facts: dict[str, Any]) -> None:
        super().__init__()
        self.process, self.path = process, path
        self.latent_dim: int = facts["latent_dim"]
        self.num_classes: int = facts["num_classes"]
        self.notices = tuple(facts["notices"])
        self.image_shape: list[int] = facts["image_shape"]
        self.was_interrupted = False
        weakref.finalize(self, stop_worker, process)

    def __deepcopy__(self, memo: dict[int, Any]) -> "ForeignGenerator":
        return self  # it has no state that could change

    def forward(self, z: Tensor, y: Tensor) -> Tensor:
        """Return the images of latents (N, latent_dim) and class ids (N,); DataError if the worker fails."""
        stdin, stdout = self.process.stdin, self.process.stdout
        assert stdin is not None and stdout is not None
        if self.was_interrupted:
            raise DataError(
                f"{self.path} cannot be sampled from (what computes its images was interrupted); load it again"
            )
        inputs = (z.detach().cpu().numpy().astype("<f4"), y.detach().cpu().numpy().astype("<i8"))
        size = 4 * len(z) * math.prod(self.image_shape)
        started_at, data = time.monotonic(), bytearray()
        try:
            with contextlib.suppress(OSError):
                stdin.write(LENGTH.pack(len(z)) + b"".join(values.tobytes() for values in inputs))
                stdin.flush()
                data += stdout.read(size)
        except BaseException:  # the rest of this reply would be taken for the next one
            self.was_interrupted = True
            stop_worker(self.process)
            raise
        if len(data) != size:
            reason = _reason_of_end("computing images", self.process, started_at)
            raise DataError(f"{self.path} cannot be sampled from ({reason})")
        return torch.from_numpy(np.frombuffer(data, dtype="<f4").reshape(len(z), *self.image_shape))
