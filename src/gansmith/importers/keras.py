"""Keras generators, read and run by Keras itself in a separate process, the worker.

The worker (`keras_worker`) lives as long as the generator: latents go to it and images come back through pipes, as
plain numbers. So Keras, HDF5 and whatever a file does to them stay outside this process, and can be stopped.
"""

import contextlib
import json
import math
import os
import re
import struct
import subprocess
import sys
import time
import weakref
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from gansmith.errors import DataError, GansmithError, NotFoundError

LENGTH = struct.Struct("<I")
TIME_LIMIT_S = 60.0  # for reading a file, which takes 3 to 5 s on two cores (2025), and for each request after it
Process = subprocess.Popen[bytes]


def read_keras(path: Path) -> tuple["KerasGenerator", dict[str, str]]:
    """Return the generator in a Keras file, and its metadata if Gansmith exported it ({} otherwise).

    Files may be .keras archives, whole models as .h5 or .hdf5, and an architecture as .json with its weights in the
    same folder (x.json with x.h5, x.weights.h5, x_weights.h5, or the same with .hdf5), of which either may be given.

    Raises NotFoundError if the weights are missing, GansmithError if Keras is not installed, and DataError for anything
    but a generator made of Keras's own layers: other classes, Lambda layers, links, non-finite weights, shapes that do
    not fit, sizes or times beyond the limits.
    """
    if find_spec("keras") is None:
        raise GansmithError(f"{path} is read by Keras, which is not installed; run: pip install 'gansmith[keras]'")
    architecture, weights = find_files(path)
    with TemporaryDirectory(prefix="gansmith-keras-") as folder, contextlib.ExitStack() as cleanup:
        process = start_worker(architecture, weights, Path(folder))
        cleanup.callback(stop_worker, process)
        try:
            facts = read_facts(process)
        except DataError as error:
            raise DataError(
                f"{path} is not a Keras generator that can be read ({error}); use a model of Keras's own layers from "
                "latents (and perhaps an integer label) to images, and save it again or export it as ONNX"
            ) from None
        cleanup.pop_all()
    return KerasGenerator(process, path, facts).eval(), facts["metadata"]


def find_files(path: Path) -> tuple[Path | None, Path]:
    """Return the .json with the architecture (None if the weights' file must contain it) and the weights' file."""
    if path.suffix == ".keras":
        return None, path
    stem = re.sub(r"([._]weights)?\.(json|h5|hdf5)$", "", path.name)
    json_path = path if path.suffix == ".json" else path.with_name(f"{stem}.json")
    names = [f"{stem}{middle}{suffix}" for middle in ("", ".weights", "_weights") for suffix in (".h5", ".hdf5")]
    for weights in [path.with_name(name) for name in names] if path == json_path else [path]:
        if weights.is_file():
            return json_path if json_path.is_file() else None, weights
    raise NotFoundError(f"there is no {path.with_name(names[0])}; the weights must be in the folder of {path.name}")


def start_worker(architecture: Path | None, weights: Path, folder: Path) -> Process:
    """Start the worker on a file; `folder` is for its temporary files and must exist until it has sent its facts."""
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
        "KERAS_BACKEND": "torch",
        "KERAS_HOME": str(folder),  # the user's keras.json must not change results
        "CUDA_VISIBLE_DEVICES": "",
        "OMP_NUM_THREADS": str(torch.get_num_threads()),
    }
    arguments = [str(TIME_LIMIT_S), str(folder), *(str(path) for path in (weights, architecture) if path is not None)]
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "gansmith.importers.keras_worker", *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=environment,
    )


def read_facts(process: Process) -> dict[str, Any]:
    """Return what the worker says of the model it has loaded; DataError with its reason if it could not load it."""
    assert process.stdout is not None
    started_at = time.monotonic()
    header = process.stdout.read(LENGTH.size)
    text = process.stdout.read(*LENGTH.unpack(header)) if len(header) == LENGTH.size else b""
    if not text:
        raise DataError(_reason_of_end("reading it", started_at))
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


def _reason_of_end(action: str, started_at: float) -> str:
    if time.monotonic() - started_at >= TIME_LIMIT_S:
        return f"{action} takes more than {TIME_LIMIT_S:g} seconds"
    return f"{action} crashes Keras or a library below it, or takes too much memory"


class KerasGenerator(nn.Module):
    """G(z, y) -> (N, C, H, W) in [-1, 1], computed by the worker, which ends when this object does.

    Attributes:
        latent_dim: length of the latent vector.
        num_classes: 0 if unconditional; -1 if it takes class ids but has no embedding that says how many there are.
    """

    def __init__(self, process: Process, path: Path, facts: dict[str, Any]) -> None:
        super().__init__()
        self.process, self.path = process, path
        self.latent_dim: int = facts["latent_dim"]
        self.num_classes: int = facts["num_classes"]
        self.image_shape: list[int] = facts["image_shape"]
        weakref.finalize(self, stop_worker, process)

    def __deepcopy__(self, memo: dict[int, Any]) -> "KerasGenerator":
        return self  # it has no state that could change

    def forward(self, z: Tensor, y: Tensor) -> Tensor:
        """Return the images of latents (N, latent_dim) and class ids (N,); DataError if the worker fails."""
        stdin, stdout = self.process.stdin, self.process.stdout
        assert stdin is not None and stdout is not None
        inputs = (z.detach().cpu().numpy().astype("<f4"), y.detach().cpu().numpy().astype("<i8"))
        size = 4 * len(z) * math.prod(self.image_shape)
        started_at, data = time.monotonic(), bytearray()
        with contextlib.suppress(OSError):
            stdin.write(LENGTH.pack(len(z)) + b"".join(values.tobytes() for values in inputs))
            stdin.flush()
            data += stdout.read(size)
        if len(data) != size:
            raise DataError(f"{self.path} cannot be sampled from ({_reason_of_end('computing images', started_at)})")
        return torch.from_numpy(np.frombuffer(data, dtype="<f4").reshape(len(z), *self.image_shape))
