"""The binary files that CIFAR-10, CIFAR-100 and STL-10 are published in."""

import hashlib
from dataclasses import replace
from pathlib import Path, PurePosixPath

import numpy as np

from gansmith.data.archives import list_archive, read_archive
from gansmith.data.arrays import MAX_BYTES, Arrays, Parts, as_arrays, joined, read_limited
from gansmith.errors import DataError

STL_NAMES = "class_names.txt"
CIFAR_NAMES = ("batches.meta.txt", "fine_label_names.txt")  # files of class names, a line each


def read_cifar(path: Path) -> Parts:
    beside = (path.with_name(name) for name in CIFAR_NAMES)
    names = next((read_limited(file) for file in beside if file.is_file()), b"")
    data = read_limited(path)
    if path.name.lower().endswith("_x.bin") and data and len(data) % _STL_BYTES == 0:
        return {"train": _as_stl(data, path)}
    return {"train": as_cifar(data, str(path), names)}


_STL_BYTES = 3 * 96 * 96


def _as_stl(data: bytes, path: Path) -> Arrays:
    """Return images in STL-10's binary form, channels of columns, with the labels from 1 in train_y.bin beside them."""
    pixels = np.frombuffer(data, np.uint8).reshape(-1, 3, 96, 96).transpose(0, 3, 2, 1)
    other, words = path.with_name(path.name[:-5] + "y.bin"), path.with_name(STL_NAMES)
    labels = np.frombuffer(read_limited(other), np.uint8).astype(np.int64) - 1 if other.is_file() else None
    arrays = as_arrays(pixels, labels, str(path))
    names = tuple(read_limited(words).decode("ascii", "replace").split()) if words.is_file() else ()
    is_named = arrays.labels is not None and len(names) > arrays.labels.max(initial=-1)
    return replace(arrays, class_names=names if is_named else ())


def as_cifar(data: bytes, source: str, names: bytes) -> Arrays:
    """Return images of CIFAR-10's (3,073 bytes a row) or CIFAR-100's (3,074, the fine label second) binary form.

    Args:
        names: content of the file of class names; empty without one.
    """
    rows = np.frombuffer(data, np.uint8)
    for row, labels in ((3073, 1), (3074, 2)):
        if len(rows) and len(rows) % row == 0:
            table = rows.reshape(-1, row)
            arrays = as_arrays(table[:, labels:].reshape(-1, 3, 32, 32), table[:, labels - 1], source)
            words = tuple(names.decode("ascii", "replace").split())
            known = words if arrays.labels is not None and len(words) > arrays.labels.max() else ()
            return replace(arrays, digests=(hashlib.sha256(data).hexdigest(),), class_names=known)
    raise DataError(
        f"{source} has {len(rows):,} bytes, no multiple of CIFAR's rows of 3,073 or 3,074; fetch it again, or give "
        "other images as .npz"
    )


def read_cifar_tar(path: Path) -> Parts:
    """Return both parts of CIFAR's archive of binary files, read in place."""
    listed, _ = list_archive(path)
    wanted = [name for name in sorted(listed) if name.endswith((".bin", *CIFAR_NAMES))]
    found = {PurePosixPath(wanted[row]).name: data for row, data in read_archive(path, wanted, limit=MAX_BYTES)}
    names = next((found.pop(name) for name in CIFAR_NAMES if name in found), b"")
    parts = {}
    for part in ("train", "test"):
        own = [
            as_cifar(found[name], f"{path}: {name}", names)
            for name in sorted(found)
            if ("test" in name) == (part == "test")
        ]
        if own:
            parts[part] = joined(own, str(path))
    if "train" not in parts:
        raise DataError(f"{path} holds none of CIFAR's .bin files of training images; fetch it again")
    return parts
