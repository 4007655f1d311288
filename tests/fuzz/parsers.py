"""Every parser of files that others may have written, with small valid files of its kind to start from.

HDF5 is not among them: its library may loop forever on a damaged file, and only a process of its own can be stopped.
A parser may read a file or refuse it: with a GansmithError of one line that names the file.
"""

import contextlib
import functools
import gzip
import io
import json
import lzma
import tarfile
import tempfile
import warnings
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from PIL import Image

from gansmith.checkpoints import FORMAT
from gansmith.conditioning import UNCONDITIONAL, Conditioning, conditioned_spec
from gansmith.config import Config, load_config, parse_count, parse_labels
from gansmith.data.idx import read_idx
from gansmith.data.image_files import open_picture, read_npz
from gansmith.data.images import ImageSpec
from gansmith.data.label_files import read_label_files
from gansmith.data.pictures import ENDINGS
from gansmith.data.prepare import Preparation, decode, look_at
from gansmith.data.sources import load_source, open_source
from gansmith.errors import DataError, GansmithError
from gansmith.exporters import export
from gansmith.files import save_tensors
from gansmith.importers import keras_worker, onnx_worker, pt2_worker
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


def _formats() -> list[bytes]:
    """Return pictures in every format and mode that training takes."""
    grey = Image.fromarray(np.arange(16, dtype=np.uint8).reshape(4, 4))
    kinds = [
        ("WEBP", "RGB"),
        ("WEBP", "RGBA"),
        ("BMP", "L"),
        ("BMP", "RGB"),
        ("GIF", "P"),
        ("TIFF", "L"),
        ("TIFF", "RGB"),
    ]
    kinds += [("TIFF", "I;16"), ("PNG", "I;16"), ("JPEG", "CMYK"), ("TIFF", "CMYK"), ("PNG", "P")]
    found = [_saved(lambda file, k=kind, m=mode: grey.convert(m).save(file, k)) for kind, mode in kinds]
    found += [
        _saved(lambda file, c=kind: grey.save(file, "TIFF", compression=c)) for kind in ("tiff_lzw", "jpeg", "packbits")
    ]
    return [*found, *_pictures()]


def _decode(path: Path) -> None:
    """Read a picture as training does; its errors are named by who lists them."""
    try:
        look_at(decode(path.read_bytes()))
    except DataError as error:
        raise DataError(f"{path}: {error}") from None


def _table() -> list[bytes]:
    names = [f"pixel{k}" for k in range(25)]
    rows = [",".join(["label", *names]), f"1,0,255,7,3{',4' * 21}", f"0,9,8,7,6{',5' * 21}"]
    return ["\n".join(rows).encode(), "\n".join(rows[1:]).encode(), b"0.5,1,0,0.25" + b",0" * 21 + b"\n"]


def _mat() -> list[bytes]:
    from scipy.io import savemat

    content = {"X": np.arange(4 * 4 * 3 * 2, dtype=np.uint8).reshape(4, 4, 3, 2), "y": np.array([[1], [10]])}
    return [_saved(lambda file, c=packed: savemat(file, content, do_compression=c)) for packed in (False, True)]


def _parquet() -> list[bytes]:
    import pyarrow as pa
    from pyarrow.parquet import write_table

    pictures = _pictures()[:3]
    columns = [pa.array([{"bytes": data, "path": None} for data in pictures]), pa.array(pictures)]
    columns.append(pa.array([[[1, 2], [3, 4]]] * 3))
    names = {"huggingface": '{"info": {"features": {"label": {"names": ["a", "b"]}}}}'}
    tables = [pa.table({"image": column, "label": [0, 1, 0]}, metadata=names) for column in columns]
    kinds = [{"compression": "none"}, {"compression": "gzip"}, {"use_dictionary": False}]
    return [
        _saved(lambda file, t=one, k=kind: write_table(t, file, **k)) for one, kind in zip(tables, kinds, strict=True)
    ]


def _members() -> dict[str, bytes]:
    return {f"{name}/{k}.png": data for k, (name, data) in enumerate(zip("abab", _pictures(), strict=False))}


def _zip() -> list[bytes]:
    found = []
    for kind in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", kind) as archive:
            for name, data in _members().items():
                archive.writestr(zipfile.ZipInfo(name), data, kind)
        found.append(buffer.getvalue())
    return found


def _tar() -> list[bytes]:
    found = []
    for kind in (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w", format=kind) as archive:
            for name, data in _members().items():
                entry = tarfile.TarInfo(name if kind == tarfile.USTAR_FORMAT else f"{name[:2]}{'x' * 120}.png")
                entry.size = len(data)
                archive.addfile(entry, io.BytesIO(data))
        found.append(buffer.getvalue())
    return found


def _prepared(path: Path) -> None:
    load_source(open_source(path), Preparation())


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


@functools.cache
def _graph() -> bytes:
    """Return the description of a graph in a file of torch.export.save."""
    G = torch.nn.Sequential(torch.nn.Linear(2, 4), torch.nn.Tanh(), torch.nn.Unflatten(1, (1, 2, 2)))
    batch = {0: torch.export.Dim("batch")}
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.export.save(torch.export.export(G.eval(), (torch.zeros(2, 2),), dynamic_shapes=(batch,)), file)
    with zipfile.ZipFile(file) as archive:
        return next(archive.read(name) for name in archive.namelist() if name.endswith("models/model.json"))


def _refusing(check: Callable[[bytes], Any]) -> Callable[[Path], None]:
    """Return a parser of a file's content that refuses it as a worker does, whatever is raised."""

    def parse(path: Path) -> None:
        try:
            check(path.read_bytes())
        except Exception as error:
            raise DataError(f"{path} cannot be read ({first_line(error)})") from None

    return parse


def _check_onnx(data: bytes) -> None:
    """Do what is done to a graph before ONNX Runtime gets it."""
    proto = onnx.load_model_from_string(data)
    onnx_worker.load_weights_beside(proto, Path("/nonexistent"))
    onnx_worker.refuse_operators(proto)
    onnx_worker.drop_shapes(proto)
    onnx_worker.fix_open_inputs(proto, 10)


def _onnx() -> list[bytes]:
    from onnx import TensorProto, helper, numpy_helper

    z = helper.make_tensor_value_info("z", TensorProto.FLOAT, ["batch", 2])
    images = helper.make_tensor_value_info("images", TensorProto.FLOAT, ["batch", 1, 2, 2])
    weights = [
        numpy_helper.from_array(np.ones((2, 4), "f4"), "w"),
        numpy_helper.from_array(np.array([-1, 1, 2, 2]), "s"),
    ]
    nodes = [helper.make_node("MatMul", ["z", "w"], ["flat"]), helper.make_node("Reshape", ["flat", "s"], ["images"])]
    return [helper.make_model(helper.make_graph(nodes, "G", [z], [images], weights)).SerializeToString()]


def _labels(path: Path) -> None:
    read_label_files({str(path): path.read_bytes()}, [f"{path.parent}/a/{k}.png" for k in range(3)], ENDINGS)


def _label_tables() -> list[bytes]:
    return [
        b"file,label\na/0.png,cat\na/1.png,dog\na\\2.png,cat\n",
        b"\xef\xbb\xbfid;class\n0;1\n1;2\n2;1\n",
        "a/0.png\tcat\na/1.png\tdog\n".encode("utf-16"),
    ]


def _label_json() -> list[bytes]:
    return [
        b'{"labels": [["a/0.png", 1], ["a/1.png", 0], ["a/2.png", 1]]}',
        b'{"labels": null}',
    ]


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
    "format": Parser("a.tiff", _decode, _formats),
    "npz-set": Parser(
        "set.npz", _prepared, lambda: [_saved(np.savez, x_train=np.zeros((2, 4, 4)), y_train=[0, 1]), *_npz()]
    ),
    "npy-set": Parser(
        "set.npy", _prepared, lambda: [_saved(np.save, np.arange(96, dtype=np.uint8).reshape(2, 4, 4, 3))]
    ),
    "table": Parser("a.csv", _prepared, _table),
    "table-gz": Parser("a.csv.gz", _prepared, lambda: [gzip.compress(data, mtime=0) for data in _table()]),
    "cifar": Parser("a.bin", _prepared, lambda: [bytes(3073), bytes(3074 * 2)]),
    "mat": Parser("a.mat", _prepared, _mat),
    "parquet": Parser("a.parquet", _prepared, _parquet),
    "zip": Parser("a.zip", _prepared, _zip),
    "tar": Parser("a.tar", _prepared, _tar),
    "tar-gz": Parser("a.tar.gz", _prepared, lambda: [gzip.compress(data, mtime=0) for data in _tar()]),
    "tar-xz": Parser("a.tar.xz", _prepared, lambda: [lzma.compress(data) for data in _tar()]),
    "toml": Parser("config.toml", lambda path: load_config(path, written_in=FORMAT), _toml, names_folder=True),
    "safetensors": Parser("a.safetensors", load_generator, lambda: [_generator(TINY, ImageSpec(4, 1, 0))]),
    "keras": Parser("generator.json", _keras, lambda: [_keras_pair()[0]]),
    "pt2": Parser(
        "model.json", _refusing(lambda data: pt2_worker._checked_graph(json.loads(data))), lambda: [_graph()]
    ),
    "onnx": Parser("a.onnx", _refusing(_check_onnx), _onnx),
    "labels-csv": Parser("labels.csv", _labels, _label_tables),
    "labels-json": Parser("dataset.json", _labels, _label_json),
    "labels-of-names": Parser("labels.json", _labels, lambda: [b'{"a/0.png": "cat", "a/1": "dog"}', b'[{"a": 0}]']),
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
