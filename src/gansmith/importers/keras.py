"""Keras generators, read and run by Keras itself in a process of its own.

That process (`keras_worker`) lives as long as the generator: latents go to it and images come back over pipes, as plain
numbers. So Keras, HDF5 and whatever a file does to them stay outside this process, and can be stopped.
"""

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

LENGTH = struct.Struct("<I")
TIME_LIMIT_S = 60.0  # for reading a file, which takes 3 to 5 s on two cores (2025), and for each request after it
WEIGHTS_SUFFIXES = (".h5", ".hdf5")


def read_keras(path: Path) -> tuple["KerasGenerator", dict[str, str]]:
    """Return the generator of a Keras file, and the notes of the Gansmith run that exported it ({} for other files).

    Read are .keras archives, whole models as .h5 or .hdf5, and an architecture as .json beside its weights (x.json with
    x.h5, x.weights.h5, x_weights.h5, or the same with .hdf5), of which either may be named. Files that Gansmith
    exported are such a pair and are read in the same way.

    Raises FileNotFoundError if the weights are missing, ValueError if Keras is not installed, and ValueError for
    anything but a generator made of Keras's own layers: other classes, Lambda layers, links, non-finite weights, shapes
    that do not fit, sizes or times beyond the limits.
    """
    if find_spec("keras") is None:
        raise ValueError(f"{path} is read by Keras, which is not installed; run: pip install 'gansmith[keras]'")
    architecture, weights = find_files(path)
    with TemporaryDirectory(prefix="gansmith-keras-") as folder:
        process = _start(architecture, weights, Path(folder))
        try:
            facts = _read_facts(process)
        except ValueError as error:
            _stop(process)
            raise ValueError(
                f"{path} is not a Keras generator that can be read ({error}); use a model of Keras's own layers from "
                "latents (and perhaps an integer label) to images, and save it again or export it as ONNX"
            ) from None
        except BaseException:
            _stop(process)
            raise
    return KerasGenerator(process, path, facts).eval(), facts["notes"]


def find_files(path: Path) -> tuple[Path | None, Path]:
    """Return the .json with the architecture, None if the weights' file must hold it, and the file with the weights."""
    if path.suffix == ".keras":
        return None, path
    stem = re.sub(r"([._]weights)?\.(json|h5|hdf5)$", "", path.name)
    json_path = path if path.suffix == ".json" else path.with_name(f"{stem}.json")
    names = [f"{stem}{middle}{suffix}" for middle in ("", ".weights", "_weights") for suffix in WEIGHTS_SUFFIXES]
    for weights in [path.with_name(name) for name in names] if path == json_path else [path]:
        if weights.is_file():
            return json_path if json_path.is_file() else None, weights
    raise FileNotFoundError(f"there is no {path.with_name(names[0])}; the weights must lie beside {path.name}")


def _start(architecture: Path | None, weights: Path, folder: Path) -> "subprocess.Popen[bytes]":
    """Start the worker on a file; `folder` is for its temporary files and is needed until it has sent its facts."""
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
        "KERAS_BACKEND": "torch",
        "KERAS_HOME": str(folder),  # the user's keras.json must change nothing
        "CUDA_VISIBLE_DEVICES": "",
        "OMP_NUM_THREADS": str(torch.get_num_threads()),
    }
    words = [str(TIME_LIMIT_S), str(folder), str(weights), *([] if architecture is None else [str(architecture)])]
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "gansmith.importers.keras_worker", *words],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=environment,
    )


def _read_facts(process: "subprocess.Popen[bytes]") -> dict[str, Any]:
    """Return what the worker says of the model it has loaded; ValueError with its reason if it could not."""
    assert process.stdout is not None
    started_at = time.monotonic()
    header = process.stdout.read(LENGTH.size)
    text = process.stdout.read(*LENGTH.unpack(header)) if len(header) == LENGTH.size else b""
    if not text:
        raise ValueError(_why_it_ended("reading it", started_at))
    facts: dict[str, Any] = json.loads(text)
    if "error" in facts:
        raise ValueError(facts["error"])
    return facts


def _why_it_ended(doing: str, started_at: float) -> str:
    if time.monotonic() - started_at >= TIME_LIMIT_S:
        return f"{doing} takes more than {TIME_LIMIT_S:g} seconds"
    return f"{doing} crashes Keras or a library below it, or takes too much memory"


def _stop(process: "subprocess.Popen[bytes]") -> None:
    process.kill()
    process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            _close(pipe)


def _close(pipe: Any) -> None:
    try:
        pipe.close()
    except OSError:  # what was still to be sent has no receiver any more
        pass


class KerasGenerator(nn.Module):
    """G(z, y) -> (N, C, H, W) in [-1, 1], computed by the worker process; it ends when this object does.

    Attributes:
        latent_dim: length of the latent vector.
        num_classes: 0 if unconditional; -1 if it takes class ids but has no embedding that says how many there are.
    """

    def __init__(self, process: "subprocess.Popen[bytes]", path: Path, facts: dict[str, Any]) -> None:
        super().__init__()
        self.process, self.path = process, path
        self.latent_dim: int = facts["latent_dim"]
        self.num_classes: int = facts["num_classes"]
        self.image_shape: list[int] = facts["image_shape"]
        self._end = weakref.finalize(self, _stop, process)

    def __deepcopy__(self, memo: dict[int, Any]) -> "KerasGenerator":
        return self  # there is nothing in it that a copy could change

    def forward(self, z: Tensor, y: Tensor) -> Tensor:
        """Return the images of latents (N, latent_dim) and class ids (N,); ValueError if the worker fails."""
        stdin, stdout = self.process.stdin, self.process.stdout
        assert stdin is not None and stdout is not None
        numbers = (z.detach().cpu().numpy().astype("<f4"), y.detach().cpu().numpy().astype("<i8"))
        size = 4 * len(z) * math.prod(self.image_shape)
        started_at = time.monotonic()
        try:
            stdin.write(LENGTH.pack(len(z)) + b"".join(values.tobytes() for values in numbers))
            stdin.flush()
            data = bytearray(stdout.read(size))
        except OSError:
            data = bytearray()
        if len(data) != size:
            raise ValueError(f"{self.path} cannot be drawn from ({_why_it_ended('drawing', started_at)})")
        return torch.from_numpy(np.frombuffer(data, dtype="<f4").reshape(len(z), *self.image_shape))
