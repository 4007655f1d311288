"""Images in files of numbers: .npz and .npy, CSV tables, CIFAR's binary files, .mat.

`read_file` gives the parts that a file holds, "train" and perhaps "test". Sizes are checked before anything
of that size is allocated, and nothing is ever unpickled.
"""

import gzip
import re
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from gansmith.data.archives import IS_PICKLE, LOAD_IT_YOURSELF, PICKLES
from gansmith.data.arrays import Arrays, Parts, as_arrays
from gansmith.data.binary_sets import read_cifar, read_cifar_tar
from gansmith.data.idx import is_idx
from gansmith.data.matlab import read_mat
from gansmith.data.numpy_files import read_npy, read_npz
from gansmith.data.official import OFFICIAL
from gansmith.errors import DataError, unreadable


def kind_of(path: Path) -> str:
    """Return what a file is by its name, or by its first bytes where those say more; empty for none of ours."""
    name = path.name.lower()
    kind = next((kind for kind, endings in _ENDINGS.items() if name.endswith(endings)), "")
    if kind not in ("", "npz", "npy"):
        return kind
    try:
        with path.open("rb") as file:
            head = file.read(6)
    except PermissionError as error:
        raise DataError(unreadable(path, error, "")) from None
    if kind:
        is_archive = head[:2] == b"PK" and zipfile.is_zipfile(path)
        return "npy" if head == b"\x93NUMPY" else "npz" if is_archive else kind
    return "idx" if is_idx(head) or head[:2] == b"\x1f\x8b" and "idx" in name else ""


_PACKED = (".7z", ".rar", ".zst", ".lz4", ".br")  # not read
_HOLDING_ARRAYS = (".h5", ".hdf5", ".arrow", ".feather", ".safetensors", ".tfrecord", ".lmdb", ".mdb", ".zarr")
_ENDINGS: dict[str, tuple[str, ...]] = {
    "npz": (".npz",),
    "npy": (".npy",),
    "table": (".csv", ".csv.gz", ".tsv"),
    "cifar": (".bin",),
    "cifar-tar": ("cifar-10-binary.tar.gz", "cifar-100-binary.tar.gz"),
    "mat": (".mat",),
    "parquet": (".parquet",),
}


def read_file(path: Path, *, like: Arrays | None = None, is_test: bool = False) -> Parts:
    """Return the parts in one file.

    Args:
        like: training images in another file, as whose numbers those of this one are taken where they may be.
        is_test: whether a file with test images alone is right.

    Raises DataError for another kind, damage, or arrays that are no images.
    """
    readers: dict[str, Callable[[Path], Parts]] = {
        "npz": partial(read_npz, like=like, is_test=is_test),
        "npy": partial(read_npy, like=like),
        "table": partial(_read_table, like=like),
        "cifar": read_cifar,
        "cifar-tar": read_cifar_tar,
        "mat": partial(read_mat, like=like, is_test=is_test),
    }
    with _naming_damage(path):
        kind = kind_of(path)
        _refuse_pickle(path, kind)
        if kind not in readers:
            suffix = path.suffix.lower()
            advice = "unpack it and give the folder" if suffix in _PACKED else "save its arrays with numpy.savez"
            advice = f"{advice}; or " if suffix in (*_PACKED, *_HOLDING_ARRAYS) else ""
            raise DataError(
                f"{path} is none of the files that images are read from; {advice}give a folder or archive of pictures, "
                ".npz, .npy, CSV, IDX, CIFAR's .bin, SVHN's .mat or .parquet"
            )
        return readers[kind](path)


def _refuse_pickle(path: Path, kind: str) -> None:
    """Raise DataError for a pickle, packed or not, known by its first bytes, as a file of torch, or by its name."""
    if kind not in ("", "npz", "npy", "cifar"):  # the first byte of CIFAR is a label
        return
    with path.open("rb") as file:
        head = file.read(2)
        if head == b"\x1f\x8b":
            file.seek(0)
            with gzip.GzipFile(fileobj=file) as unpacked:
                head = unpacked.read(2)
    is_pickle = head[:1] == b"\x80" and head[1:] in (b"\2", b"\3", b"\4", b"\5")
    if not is_pickle and kind in ("", "cifar") and head == b"PK" and zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            is_pickle = any(re.search(r"(^|/)data\.pkl$", name) for name in archive.namelist())
    if is_pickle or (not kind and PICKLES.search(path.name)):
        remedy = LOAD_IT_YOURSELF
        if re.search(r"data_batch|test_batch|batches\.meta|cifar", "/".join(path.resolve().parts[-2:]), re.I):
            known = OFFICIAL["cifar100" if "100" in path.resolve().parent.name else "cifar10"]
            remedy = f"use CIFAR's binary version, {known.mirrors[0]}{next(iter(known.sha256))}"
        raise DataError(f"{path} {IS_PICKLE}; {remedy}")


@contextmanager
def _naming_damage(path: Path) -> Iterator[None]:
    try:
        yield
    except DataError:
        raise
    except (
        OSError,
        EOFError,
        ValueError,
        KeyError,
        zlib.error,
        zipfile.BadZipFile,
        NotImplementedError,
        RuntimeError,
    ) as error:
        raise DataError(unreadable(path, error, "save it again")) from None


def _read_table(path: Path, like: Arrays | None) -> Parts:
    from gansmith.data.tables import read_labels_beside, read_table

    table = read_table(path)
    labels, notices = table.labels, table.notices
    if labels is None:
        labels, said = read_labels_beside(path, len(table.pixels))
        notices = (*notices, *said)
    pixels = table.pixels if table.pixels.max(initial=0) <= 255 else table.pixels.astype(np.float32)  # is refused
    arrays = as_arrays(pixels, labels, str(path), like=like)
    return {"train": replace(arrays, notices=(*notices, *arrays.notices))}
