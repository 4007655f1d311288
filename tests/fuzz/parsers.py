"""Every parser of files that others may have written, with small valid files of its kind to start from.

HDF5 is not among them: its library may loop forever on a damaged file, and only a process of its own can be stopped.
A parser may read a file or refuse it: with a GansmithError of one line that names the file.
"""

import contextlib
import functools
import gzip
import io
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from gansmith.checkpoints import FORMAT
from gansmith.conditioning import UNCONDITIONAL, Conditioning, conditioned_spec
from gansmith.config import Config, load_config, parse_count, parse_labels
from gansmith.data.idx import read_idx
from gansmith.data.image_files import open_picture, read_npz
from gansmith.data.images import ImageSpec
from gansmith.errors import DataError, GansmithError
from gansmith.exporters import export
from gansmith.files import save_tensors
from gansmith.importers import keras_worker
from gansmith.importers.worker import first_line
from gansmith.models import generator_metadata, load_generator
from gansmith.networks import NETWORKS
from gansmith.runs import RunDirectory
from gansmith.sampling import read_latents

CORPUS = Path(__file__).parent / "corpus"
TINY = Config(network="mlp", g_width=2, d_width=2, latent_dim=2, conditioning="none")


@dataclass(frozen=True)
class Parser:
    """A function that reads a file, and valid files that it must read.

    Attributes:
        name: of the file.
        valid: returns the contents of valid files.
        names_folder: whether its errors may name the file's folder, a run, instead of the file.
    """

    name: str
    parse: Callable[[Path], Any]
    valid: Callable[[], list[bytes]]
    names_folder: bool = False


def _idx() -> list[bytes]:
    return [
        bytes([0, 0, 8, 3, 0, 0, 0, 2, 0, 0, 0, 2, 0, 0, 0, 2]) + bytes(range(8)),
        bytes([0, 0, 8, 1, 0, 0, 0, 1, 7]),
    ]


def _saved(save: Callable[..., Any], *arrays: Any, **named: Any) -> bytes:
    file = io.BytesIO()
    save(file, *arrays, **named)
    return file.getvalue()


def _npz() -> list[bytes]:
    images, labels = np.arange(32, dtype=np.uint8).reshape(2, 4, 4, 1), np.array([1, -1])
    return [
        _saved(np.savez, images=images, labels=labels),
        _saved(np.savez_compressed, np.asfortranarray(images[..., 0])),
        _saved(np.savez, samples=images.transpose(0, 3, 1, 2)),
    ]


def _pictures() -> list[bytes]:
    grey = Image.fromarray(np.arange(16, dtype=np.uint8).reshape(4, 4))
    kinds = [("PNG", mode) for mode in ("1", "L", "LA", "P", "RGB", "RGBA")] + [("JPEG", "L"), ("JPEG", "RGB")]
    return [_saved(lambda file, k=kind, m=mode: grey.convert(m).save(file, k)) for kind, mode in kinds]


def _toml() -> list[bytes]:
    return [f"format = {FORMAT}\n{text}".encode() for text in (TINY.to_toml(), 'batch_size = "32"\nimages = "1.5M"\n')]


def _generator(config: Config, spec: ImageSpec) -> bytes:
    G, _ = NETWORKS[config.network](conditioned_spec(spec, config), config)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "valid.safetensors")
        count = spec.num_classes
        conditioning = Conditioning(torch.ones(count) / count, has_labels=True) if count else UNCONDITIONAL
        save_tensors(path, G.state_dict(), generator_metadata(config, spec, conditioning))
        return path.read_bytes()


@functools.cache
def _keras_pair() -> tuple[bytes, bytes]:
    """Return generator.json and generator.h5 of a network with most kinds of layers."""
    config = Config(g_width=2, d_width=4, latent_dim=2, conditioning="labels")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "valid.safetensors")
        path.write_bytes(_generator(config, ImageSpec(8, 1, 2)))
        export(path, ["keras"], Path(folder))
        return Path(folder, "generator.json").read_bytes(), Path(folder, "generator.h5").read_bytes()


def _keras(path: Path) -> None:
    """Read an architecture with valid weights as the worker does, but in this process, where Keras is imported once."""
    with tempfile.TemporaryDirectory() as folder:
        weights = Path(folder, "valid.h5")
        weights.write_bytes(_keras_pair()[1])
        try:
            keras_worker.load(weights, Path(folder), path)
        except Exception as error:
            raise DataError(f"{path} cannot be read ({first_line(error)})") from None


def _run_json(path: Path) -> None:
    RunDirectory(path.parent, TINY).facts()


def _log(path: Path) -> None:
    assert isinstance(RunDirectory(path.parent, TINY).log, list)


def _text(path: Path) -> None:
    """Read counts and labels, as given with flags."""
    text = path.read_bytes().decode("utf-8", "replace")
    for parse in (parse_count, parse_labels):
        with contextlib.suppress(ValueError):
            parse(text)


PARSERS: dict[str, Parser] = {
    "idx": Parser("a-idx3-ubyte", read_idx, _idx),
    "idx-gz": Parser("a-idx3-ubyte.gz", read_idx, lambda: [gzip.compress(data, mtime=0) for data in _idx()]),
    "npz": Parser("a.npz", read_npz, _npz),
    "npy": Parser("a.npy", lambda path: read_latents(path, 2), lambda: [_saved(np.save, np.ones((3, 2)))]),
    "picture": Parser("a.png", open_picture, _pictures),
    "toml": Parser("config.toml", lambda path: load_config(path, written_in=FORMAT), _toml, names_folder=True),
    "safetensors": Parser("a.safetensors", load_generator, lambda: [_generator(TINY, ImageSpec(4, 1, 0))]),
    "keras": Parser("generator.json", _keras, lambda: [_keras_pair()[0]]),
    "run": Parser("run.json", _run_json, lambda: [b'{"status": "running", "versions": {"torch": "2"}}']),
    "log": Parser("log.jsonl", _log, lambda: [b'{"images_seen": 3, "d_loss": null}\n{"images_se']),
    "text": Parser("text", _text, lambda: [b"200k", b"1.5M", b"0-9", b"3,11,7-8", b"2024"]),
}


def read_or_refuse(parser: Parser, path: Path) -> None:
    """Parse a file; AssertionError if it is neither read nor refused in one line that names it."""
    try:
        parser.parse(path)
    except GansmithError as error:
        message, named = str(error), path.parent if parser.names_folder else path
        assert str(named) in message and "\n" not in message, message
