"""Every parser of files that others may have written, with small whole files of its kind to start from.

HDF5 is not among them: its library itself may turn in circles on a damaged file, which no caller can interrupt.
A parser may take a file or refuse it: with a ValueError or FileNotFoundError of one line that names the file.
"""

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

from gansmith.config import Config, load_config, parse_count, parse_labels
from gansmith.data.images import ImageSpec
from gansmith.data.image_files import open_picture, read_npz
from gansmith.data.idx import read_idx
from gansmith.exporters import export
from gansmith.models import generator_metadata, load_generator
from gansmith.conditioning import conditioned_spec
from gansmith.sampling import read_latents
from gansmith.networks import NETWORKS
from gansmith.importers.keras import read_keras
from gansmith.runs import RunDirectory
from gansmith.files import save_tensors

CORPUS = Path(__file__).parent / "corpus"
TINY = Config(network="mlp", g_width=2, d_width=2, latent_dim=2, conditioning="none")


@dataclass(frozen=True)
class Parser:
    """A function that reads a file of this name, and whole files it must read."""

    name: str
    parse: Callable[[Path], Any]
    whole: Callable[[], list[bytes]]


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
    return [TINY.to_toml().encode(), b'batch = "32"\nimages = "1.5M"\n']


def _generator(config: Config, spec: ImageSpec) -> bytes:
    G, _ = NETWORKS[config.network](conditioned_spec(spec, config), config)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "whole.safetensors")
        save_tensors(path, G.state_dict(), generator_metadata(config, spec, torch.ones(max(spec.num_classes, 1))))
        return path.read_bytes()


@functools.cache
def _keras_pair() -> tuple[bytes, bytes]:
    """generator.json and generator.h5 of a network with most kinds of layers."""
    config = Config(g_width=2, d_width=4, latent_dim=2, conditioning="labels")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "whole.safetensors")
        path.write_bytes(_generator(config, ImageSpec(8, 1, 2)))
        export(path, ["keras"], Path(folder))
        return Path(folder, "generator.json").read_bytes(), Path(folder, "generator.h5").read_bytes()


def _keras(path: Path) -> None:
    """An architecture beside whole weights."""
    weights = path.with_suffix(".h5")
    weights.write_bytes(_keras_pair()[1])
    try:
        read_keras(path)
    finally:
        weights.unlink()


def _run_json(path: Path) -> None:
    RunDirectory(path.parent, TINY).facts()


def _log(path: Path) -> None:
    RunDirectory(path.parent, TINY).log


def _text(path: Path) -> None:
    """Counts and labels, as flags give them."""
    text = path.read_bytes().decode("utf-8", "replace")
    for parse in (parse_count, parse_labels):
        try:
            parse(text)
        except ValueError:
            pass


PARSERS: dict[str, Parser] = {
    "idx": Parser("a-idx3-ubyte", read_idx, _idx),
    "idx-gz": Parser("a-idx3-ubyte.gz", read_idx, lambda: [gzip.compress(data, mtime=0) for data in _idx()]),
    "npz": Parser("a.npz", read_npz, _npz),
    "npy": Parser("a.npy", lambda path: read_latents(path, 2), lambda: [_saved(np.save, np.ones((3, 2)))]),
    "picture": Parser("a.png", open_picture, _pictures),
    "toml": Parser("config.toml", load_config, _toml),
    "safetensors": Parser("a.safetensors", load_generator, lambda: [_generator(TINY, ImageSpec(4, 1, 0))]),
    "keras": Parser("generator.json", _keras, lambda: [_keras_pair()[0]]),
    "run": Parser("run.json", _run_json, lambda: [b'{"status": "running", "versions": {"torch": "2"}}']),
    "log": Parser("log.jsonl", _log, lambda: [b'{"images_seen": 3, "d_loss": null}\n{"images_se']),
    "text": Parser("text", _text, lambda: [b"200k", b"1.5M", b"0-9", b"3,11,7-8", b"2024"]),
}


def read_or_refuse(parser: Parser, path: Path) -> None:
    """Parse a file; AssertionError where it is neither read nor refused as promised."""
    try:
        parser.parse(path)
    except (ValueError, FileNotFoundError) as refusal:
        sentence = str(refusal)
        assert str(path) in sentence and "\n" not in sentence, sentence
