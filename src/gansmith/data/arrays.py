"""Images in files of numbers: .npz and .npy, CSV tables, CIFAR's binary files, .mat.

`read_file` gives the parts that a file holds, "train" and perhaps "test". Sizes are checked before anything
of that size is allocated, and nothing is ever unpickled.
"""

import gzip
import hashlib
import io
import re
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from gansmith.data.archives import list_archive, read_archive
from gansmith.data.image_files import read_array, read_header
from gansmith.data.labels import MAX_CLASSES, as_labels, count_of
from gansmith.data.layouts import (
    Range,
    as_bytes,
    as_nhwc,
    count_first,
    order_in_words,
    range_of,
    scale_of,
    span_of,
    square,
)
from gansmith.data.official import OFFICIAL
from gansmith.data.prepare import SIZE_STEP, Preparation, laid_over, look_at, settle
from gansmith.errors import DataError, reason_of, unreadable

MAX_BYTES = 2**31  # of one file or array, unpacked
LOOKS = 256  # images by which the background of transparent ones is chosen
# Names of arrays, whatever their case and with underscores or without.
_IMAGES = {
    "train": (
        "x_train", "train_x", "train_images", "train_data", "tr_x", "images", "samples", "x", "data", "image", "imgs",
        "img", "pixels", "arr_0",
    ),
    "test": (
        "x_test", "test_x", "test_images", "test_data", "te_x", "ts_x", "x_val", "val_x", "val_images", "val_data",
    ),
}  # fmt: skip
_LABELS = {
    "train": ("y_train", "train_y", "train_labels", "tr_y", "labels", "y", "label", "target", "targets", "arr_1"),
    "test": ("y_test", "test_y", "test_labels", "te_y", "ts_y", "y_val", "val_y", "val_labels"),
}
_OTHER_PART = {  # words in the names of arrays that are not of a part
    "train": re.compile(r"(?<![a-z])(test|val(?!ue))|(test|val)$", re.IGNORECASE),
    "test": re.compile("train", re.IGNORECASE),
}
_MIN_SIDE = 8  # of flat images whose array has another name
_MAY_BE_LABELS = re.compile(r"label|target|(?<![a-z])y(?![a-z])|^y(?=train|test|val)")


@dataclass(frozen=True)
class Arrays:
    """Images and labels as a file holds them.

    Attributes:
        pixels: uint8 (N, H, W, C); C is 4 where some are transparent, see `opaque`.
        labels: (N,) whole numbers, or None.
        source: the file, in words.
        notices: sentences on how numbers, layouts and labels were taken, and on what is not used.
        digests: SHA-256 of what they were read from, where sets of such files are published.
        class_names: where labels are names, or files beside them say so.
        numbers: which numbers, as they were stored, became black and white.
        kind: of these numbers, NumPy's letter; i for all whole ones.
    """

    pixels: NDArray[np.uint8]
    labels: NDArray[np.int64] | None
    source: str
    notices: tuple[str, ...] = ()
    digests: tuple[str, ...] = ()
    class_names: tuple[str, ...] = ()
    numbers: Range = field(default_factory=Range)
    kind: str = "i"


Parts = dict[str, Arrays]


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
    return "idx" if _starts_idx(head[:4]) or head[:2] == b"\x1f\x8b" and "idx" in name else ""


_ENDINGS: dict[str, tuple[str, ...]] = {
    "npz": (".npz",),
    "npy": (".npy",),
    "table": (".csv", ".csv.gz", ".tsv"),
    "cifar": (".bin",),
    "cifar-tar": ("cifar-10-binary.tar.gz", "cifar-100-binary.tar.gz"),
    "mat": (".mat",),
    "parquet": (".parquet",),
}


def read_file(path: Path, *, like: Arrays | None = None) -> Parts:
    """Return the parts in one file.

    Args:
        like: training images in another file, as whose numbers those of this one are taken where they may be.

    Raises DataError for another kind, damage, or arrays that are no images.
    """
    readers: dict[str, Callable[[Path], Parts]] = {
        "npz": partial(_read_npz, like=like),
        "npy": partial(_read_npy, like=like),
        "table": partial(_read_table, like=like),
        "cifar": _read_cifar,
        "cifar-tar": read_cifar_tar,
        "mat": partial(_read_mat, like=like),
    }
    with _naming_damage(path):
        kind = kind_of(path)
        _refuse_pickle(path, kind)
        if kind not in readers:
            raise DataError(
                f"{path} is none of the files that images are read from; give a folder or archive of pictures, .npz, "
                ".npy, CSV, IDX, CIFAR's .bin, SVHN's .mat or .parquet"
            )
        return readers[kind](path)


def _refuse_pickle(path: Path, kind: str) -> None:
    """Raise DataError for a pickle, packed or not, known by its first bytes, as a file of torch, or by its name."""
    if kind not in ("", "npz", "npy"):
        return
    with path.open("rb") as file:
        head = file.read(2)
        if head == b"\x1f\x8b":
            file.seek(0)
            with gzip.GzipFile(fileobj=file) as unpacked:
                head = unpacked.read(2)
    is_pickle = head[:1] == b"\x80" and head[1:] in (b"\2", b"\3", b"\4", b"\5")
    if not is_pickle and not kind and head == b"PK" and zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            is_pickle = any(re.search(r"(^|/)data\.pkl$", name) for name in archive.namelist())
    if is_pickle or (not kind and _PICKLES.search(path.name)):
        remedy = "where you trust it, load it yourself and save its images and labels with numpy.savez"
        if re.search(r"data_batch|test_batch|batches\.meta|cifar", "/".join(path.resolve().parts[-2:]), re.I):
            known = OFFICIAL["cifar100" if "100" in path.resolve().parent.name else "cifar10"]
            remedy = f"use CIFAR's binary version, {known.mirrors[0]}{next(iter(known.sha256))}"
        raise DataError(f"{path} is a pickle, which can run any code and is never read; {remedy}")


_PICKLES = re.compile(r"\.(pkl|pickle|pt|pth|joblib)(\.gz)?$", re.IGNORECASE)


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


def _read_npz(path: Path, like: Arrays | None) -> Parts:
    with zipfile.ZipFile(path) as archive:
        names = [name for name in archive.namelist() if name.endswith(".npy")]
        stored = {_plain_name(name.removesuffix(".npy")): name for name in names}
        found = {part: _npz_images(archive, stored, part, path) for part in ("train", "test")}
        if found["train"] is None:
            listing = ", ".join(sorted(name.removesuffix(".npy") for name in names)) or "nothing"
            raise DataError(f"{path} holds {listing}; images are looked for as {', '.join(_IMAGES['train'])}")
        images = {part: _read_member(archive, name, path) for part, name in found.items() if name is not None}
        labels = {part: _npz_labels(archive, stored, part, path) for part in images}
        said = {part: _choose_labels(archive, names, part, images, labels, path) for part in images}
    texts = [own for own in labels.values() if own is not None and own.dtype.kind == "U"]
    every = sorted({label for own in texts for label in own.reshape(-1).tolist()})
    class_names = every if len(texts) == len(labels) else ()
    sources = {part: f"{path}: {str(found[part]).removesuffix('.npy')}" for part in images}
    return _as_parts(images, labels, said, sources, class_names, like=like)


def _as_parts(
    images: dict[str, NDArray[Any]],
    labels: dict[str, NDArray[Any] | None],
    said: dict[str, tuple[str, ...]],
    sources: dict[str, str],
    class_names: Sequence[str] = (),
    *,
    like: Arrays | None,
) -> Parts:
    """Return the parts of one file, whose numbers are taken alike.

    Args:
        said: sentences on the labels of each part.
        like: see `as_arrays`.
    """
    parts: Parts = {}
    for part, own in images.items():
        arrays = as_arrays(own, labels[part], sources[part], class_names=class_names, like=parts.get("train", like))
        parts[part] = replace(arrays, notices=(*said[part], *arrays.notices))
    return parts


def _npz_images(archive: zipfile.ZipFile, stored: dict[str, str], part: str, path: Path) -> str | None:
    """Return the array of a part's images: by its name, else the only one whose name and shape do not speak against it.

    None where there are several, or none.
    """
    named = _first(stored, _IMAGES[part])
    if named is not None:
        return named
    others = [name for each in (*_IMAGES.values(), *_LABELS.values()) for name in each]
    own = [name for plain, name in stored.items() if plain not in map(_plain_name, others)]
    own = [name for name in own if not _MAY_BE_LABELS.search(name.lower()) and not _OTHER_PART[part].search(name)]
    if part == "test":
        own = [name for name in own if _OTHER_PART["train"].search(name)]
    found = [name for name in own if _has_images(archive, name, path)]
    return found[0] if len(found) == 1 else None


def _choose_labels(
    archive: zipfile.ZipFile,
    names: Sequence[str],
    part: str,
    images: dict[str, NDArray[Any]],
    labels: dict[str, NDArray[Any] | None],
    path: Path,
) -> tuple[str, ...]:
    """Give images without labels those of the only array of another name that has one for each image.

    Returns sentences on it, and on arrays that may be labels and are not used.
    """
    if labels[part] is not None:
        return ()
    own = [name for name in names if not _OTHER_PART[part].search(name)]
    plain = {name.removesuffix(".npy"): name for name in own if part == "train" or _OTHER_PART["train"].search(name)}
    shapes = {name: _shape_of_labels(archive, stored, path) for name, stored in plain.items()}
    likely = [name for name, shape in shapes.items() if shape in (images[part].shape[:1], (*images[part].shape[:1], 1))]
    if len(likely) == 1:
        found = _read_text(_read_member(archive, plain[likely[0]], path, may_be_text=True))
        if _are_classes(found):
            labels[part] = found
            return (f"its labels are read from {likely[0]}",)
    unused = [name for name in plain if name in likely or _MAY_BE_LABELS.search(name.lower())]
    return (f"arrays that are not used: {', '.join(unused[:6])}; labels are read from labels",) if unused else ()


def _are_classes(labels: NDArray[Any]) -> bool:
    """Return whether numbers or names may be those of classes: some are alike, as identifiers are not."""
    is_small = labels.dtype.kind == "U" or (labels.min(initial=0) >= 0 and labels.max(initial=0) < MAX_CLASSES)
    return bool(is_small) and len(np.unique(labels)) < max(2, labels.size)


def _shape_of_labels(archive: zipfile.ZipFile, name: str, path: Path) -> tuple[int, ...] | None:
    """Return the shape of an array of whole numbers or text; None for another."""
    header = _header_of(archive, name, path)
    return header[0] if header is not None and header[2].kind in "biuUS" else None


def _plain_name(name: str) -> str:
    return name.lower().replace("_", "")


def _first(stored: dict[str, str], names: tuple[str, ...]) -> str | None:
    """Return the stored name of the first of these."""
    return next((stored[_plain_name(name)] for name in names if _plain_name(name) in stored), None)


def _has_images(archive: zipfile.ZipFile, name: str, path: Path) -> bool:
    header = _header_of(archive, name, path)
    shape = () if header is None else header[0]
    return len(shape) in (3, 4) or (len(shape) == 2 and square(shape[1])[0] >= _MIN_SIDE)


def _header_of(archive: zipfile.ZipFile, name: str, path: Path) -> tuple[tuple[int, ...], bool, "np.dtype[Any]"] | None:
    """Return the header of an array; None for what is no array."""
    try:
        with archive.open(name) as file:
            return read_header(file, f"{path}: {name}")
    except DataError:
        return None


def _npz_labels(archive: zipfile.ZipFile, stored: dict[str, str], part: str, path: Path) -> NDArray[Any] | None:
    named = _first(stored, _LABELS[part])
    labels = _labels_beside(path) if named is None else _read_member(archive, named, path, may_be_text=True)
    return None if labels is None else _read_text(labels)


def _read_text(labels: NDArray[Any]) -> NDArray[Any]:
    """Return bytes as text, other labels as they are."""
    return np.char.decode(labels) if labels.dtype.kind == "S" else labels


def _labels_beside(path: Path) -> NDArray[Any] | None:
    """Return the one array of a .npz file of labels beside one of images, as KMNIST has them; None without such."""
    name = re.sub(r"imgs|images", "labels", path.name)
    if name == path.name or not path.with_name(name).is_file():
        return None
    with zipfile.ZipFile(path.with_name(name)) as archive:
        return _read_member(archive, "arr_0.npy", path.with_name(name), may_be_text=True)


def _read_member(archive: zipfile.ZipFile, name: str, path: Path, *, may_be_text: bool = False) -> NDArray[Any]:
    if archive.getinfo(name).compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise DataError(f"{path} is compressed in a way NumPy does not write; save it with numpy.savez_compressed")
    with archive.open(name) as file:
        return read_array(file, f"{path}: {name.removesuffix('.npy')}", limit=MAX_BYTES, may_be_text=may_be_text)


def _read_table(path: Path, like: Arrays | None) -> Parts:
    from gansmith.data.tables import read_table

    table = read_table(path)
    pixels = table.pixels if table.pixels.max(initial=0) <= 255 else table.pixels.astype(np.float32)  # is refused
    arrays = as_arrays(pixels, table.labels, str(path), like=like)
    return {"train": replace(arrays, notices=(*table.notices, *arrays.notices))}


def _read_npy(path: Path, like: Arrays | None) -> Parts:
    with path.open("rb") as file:
        images = read_array(file, str(path), limit=MAX_BYTES)
    other, notices = _find_labels(path)
    arrays = as_arrays(images, None if other is None else _read_labels(other), str(path), like=like)
    return {"train": replace(arrays, notices=(*notices, *arrays.notices))}


def labels_beside(path: Path, count: int) -> NDArray[np.int64] | None:
    """Return the labels of a .npy file's images, where a file of them lies beside it: labels.npy, X_labels.npy, y.npy.

    Raises DataError for labels of another number.
    """
    other, _ = _find_labels(path)
    return None if other is None else as_labels(_read_labels(other), count, str(path)).numbers


def _read_labels(path: Path) -> NDArray[Any]:
    with path.open("rb") as file:
        return read_array(file, str(path), may_be_text=True)


def _find_labels(path: Path) -> tuple[Path | None, tuple[str, ...]]:
    """Return the file of labels beside a .npy file of images, or a sentence on those that may be labels."""
    files = sorted(file for file in path.parent.iterdir() if file != path and file.is_file() and file.name[0] != ".")
    beside = {file.name.lower(): file for file in reversed(files)}
    own = _label_names(path)
    for name in (*own, "labels", "y", "targets"):
        other = beside.get(f"{name}.npy")
        if other is not None and not _holds_images(other):
            return other, ()
    others = {name for file in files if file.suffix.lower() == ".npy" for name in _label_names(file)}
    unused = [
        file.name
        for file in files
        if file.suffix.lower() in _LABEL_FILES
        and _MAY_BE_LABELS.search(file.stem.lower())
        and file.stem.lower() not in others
    ]
    if not unused:
        return None, ()
    listing = ", ".join(unused[:6])
    return None, (f"files beside {path.name} that are not used: {listing}; its labels are read from {own[0]}.npy",)


def _holds_images(path: Path) -> bool:
    with path.open("rb") as file:
        return len(read_header(file, str(path))[0]) > 2


_LABEL_FILES = (".npy", ".npz", ".csv", ".txt", ".json")
_PAIRS = (("images", "labels"), ("imgs", "labels"), ("data", "labels"), ("image", "label"), ("img", "label"))


def _label_names(path: Path) -> list[str]:
    """Return what the labels of a .npy file may be called, without its ending: train_labels, y_train, ..."""
    stem = path.stem.lower()
    renamed = [stem.replace(images, labels) for images, labels in _PAIRS if images in stem]
    letter = re.sub(r"(?<![a-z])x(?![a-z])|^x(?=train|test|val)|(?<=train)x$|(?<=test)x$", "y", stem)
    return [f"{stem}_labels", *renamed, *([letter] if letter != stem else []), f"y_{stem}", f"labels_{stem}"]


def as_arrays(
    images: NDArray[Any],
    labels: NDArray[Any] | None,
    source: str,
    *,
    class_names: Sequence[str] = (),
    like: Arrays | None = None,
) -> Arrays:
    """Return images and labels in our form, whatever their layout and number format.

    Pixels may be uint8, whole numbers from 0 to 255 or on another common scale, 16-bit numbers, or floats in [0, 1] or
    [-1, 1]; labels one number, one name or one one-hot row for each image.

    Args:
        class_names: all names, where labels are names of which some may not occur.
        like: training images, as whose numbers these are taken where they are of the same kind and lie within.
    """
    images, axes = count_first(images, count_of(labels))
    kind = "i" if images.dtype.kind in "iu" else images.dtype.kind
    is_alike = like is not None and like.kind == kind and like.numbers.covers(span_of(images))
    numbers = like.numbers if like and is_alike else range_of(images, source, scale=scale_of(images))
    pixels = as_nhwc(as_bytes(images, numbers), source)
    found = as_labels(labels, len(images), source, class_names=class_names)
    said = (numbers.notice,) if numbers.notice else ()
    notices = (*axes, *said, *order_in_words(images), *found.notices)
    if pixels.shape[3] == 4 and (pixels[..., 3] == 255).all():
        pixels = pixels[..., :3]
    return Arrays(pixels, found.numbers, source, notices, (), found.class_names, numbers, kind)


def opaque(arrays: Arrays, background: str) -> Arrays:
    """Return transparent images laid over the background, auto as for pictures, and say so; others as they are."""
    if arrays.pixels.shape[3] != 4:
        return arrays
    background = background_of(arrays) if background == "auto" else background
    ground = 255 if background == "white" else 0
    found = np.empty((*arrays.pixels.shape[:3], 3), np.uint8)
    for row, image in enumerate(np.ascontiguousarray(arrays.pixels)):
        found[row] = laid_over(Image.fromarray(image), ground)
    words = f"transparent images are laid over {background}"
    return replace(arrays, pixels=found, notices=(*arrays.notices, words))


def background_of(arrays: Arrays) -> str:
    """Return the background that images, transparent or in color, are laid over where none is asked for."""
    some = np.ascontiguousarray(arrays.pixels[:: max(1, len(arrays.pixels) // LOOKS)][:LOOKS])
    return settle(Preparation(SIZE_STEP), [look_at(Image.fromarray(image)) for image in some])[0].background


CIFAR_NAMES = ("batches.meta.txt", "fine_label_names.txt")  # files of class names, a line each


def _read_cifar(path: Path) -> Parts:
    beside = (path.with_name(name) for name in CIFAR_NAMES)
    names = next((_read_limited(file) for file in beside if file.is_file()), b"")
    data = _read_limited(path)
    if path.name.lower().endswith("_x.bin") and data and len(data) % _STL_BYTES == 0:
        return {"train": _as_stl(data, path)}
    return {"train": as_cifar(data, str(path), names)}


_STL_BYTES = 3 * 96 * 96


def _as_stl(data: bytes, path: Path) -> Arrays:
    """Return images in STL-10's binary form, channels of columns, with the labels from 1 in train_y.bin beside them."""
    pixels = np.frombuffer(data, np.uint8).reshape(-1, 3, 96, 96).transpose(0, 3, 2, 1)
    other, words = path.with_name(path.name[:-5] + "y.bin"), path.with_name("class_names.txt")
    labels = np.frombuffer(_read_limited(other), np.uint8).astype(np.int64) - 1 if other.is_file() else None
    arrays = as_arrays(pixels, labels, str(path))
    names = tuple(_read_limited(words).decode("ascii", "replace").split()) if words.is_file() else ()
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


def joined(each: Sequence[Arrays], source: str) -> Arrays:
    """Return several files' images as one; without labels where one of them has none."""
    if len(each) == 1:
        return each[0]
    shapes = {one.pixels.shape[1:] for one in each}
    if len(shapes) > 1:
        raise DataError(
            f"{source} holds images of several shapes ({', '.join(map(str, sorted(shapes)))}); name one file"
        )
    if len({one.class_names for one in each}) > 1:
        names = sorted({name for one in each for name in one.class_names})
        each = [numbered(one, names) for one in each]
    found = [one.labels for one in each if one.labels is not None]
    return Arrays(
        np.concatenate([one.pixels for one in each]),
        np.concatenate(found) if len(found) == len(each) else None,
        source,
        each[0].notices,
        tuple(digest for one in each for digest in one.digests),
        each[0].class_names,
        each[0].numbers,
        each[0].kind,
    )


def numbered(arrays: Arrays, names: Sequence[str]) -> Arrays:
    """Return images whose labels are numbers of these names, and after them of others that they have."""
    if arrays.labels is None or not arrays.class_names or tuple(names) == arrays.class_names:
        return arrays
    every = (*names, *(name for name in arrays.class_names if name not in names))
    numbers = np.array([every.index(name) for name in arrays.class_names], np.int64)
    return replace(arrays, labels=numbers[arrays.labels], class_names=every)


def _read_mat(path: Path, like: Arrays | None) -> Parts:
    """Return the arrays of a MATLAB file by the names of .npz files.

    SVHN's are X (32, 32, 3, N) and y (N, 1) with 10 for zero.
    """
    from scipy.io import loadmat

    data = _read_limited(path)
    if _HDF5 in data[:1024]:
        raise DataError(f"{path} is of MATLAB 7.3 (HDF5), which is not read; save it again with save(..., '-v7')")
    if data[126:128] not in (b"IM", b"MI"):
        raise ValueError("it is not in the format of MATLAB 5 to 7.2")
    try:
        variables = _mat_variables(data)
        stored = {_plain_name(name): name for name in variables}
        chosen = [(part, _first(stored, _IMAGES[part]), _first(stored, _LABELS[part])) for part in ("train", "test")]
        for name in (name for _, *names in chosen for name in names if name is not None):
            if not variables[name]:
                raise DataError(f"{path} cannot be read ({name} is not an array of plain numbers); save it as one")
        found = loadmat(io.BytesIO(data), variable_names=[name for _, *names in chosen for name in names if name])
    except DataError:
        raise
    except Exception as error:  # its reader raises many kinds, some of them its own
        reason = "its elements do not fit" if isinstance(error, struct.error) else reason_of(error)
        raise DataError(f"{path} is damaged ({reason}); fetch or save it again") from None
    if chosen[0][1] is None:
        listing = ", ".join(variables) or "nothing"
        raise DataError(
            f"{path} holds no X but {listing[:200]}; save images as X (height, width, channels, count), or as .npz"
        )
    taken = [(part, found.get(images), found.get(labels)) for part, images, labels in chosen]
    images = {part: _mat_images(own) for part, own, _ in taken if own is not None}
    labels = {part: None if own is None else _mat_labels(own) for part, _, own in taken if part in images}
    parts = _as_parts(images, labels, dict.fromkeys(images, ()), dict.fromkeys(images, str(path)), like=like)
    digests = (hashlib.sha256(data).hexdigest(),)
    return {part: replace(arrays, digests=digests) for part, arrays in parts.items()}


_HDF5 = b"\x89HDF\r\n\x1a\n"  # the signature of files that MATLAB saves with -v7.3


def _mat_images(images: NDArray[Any]) -> NDArray[Any]:
    """Return images of (H, W, C, N), MATLAB's order, with N first; others as they are."""
    return np.moveaxis(images, -1, 0) if images.ndim == 4 and images.shape[2] in (1, 3, 4) else images


def _mat_labels(labels: NDArray[Any]) -> NDArray[Any]:
    """Return labels from 0 where they are 1 to 10, as SVHN numbers digits from MATLAB's first index."""
    is_from_one = labels.size > 0 and labels.min() > 0 and labels.max() == 10
    return labels % 10 if is_from_one else labels


_MAT_NUMBERS = range(6, 16)  # classes of arrays: double, single, int8 to uint64
_MAT_STORED = {1, 2, 3, 4, 5, 6, 7, 9, 12, 13}  # what their elements are stored as


def _mat_variables(data: bytes) -> dict[str, bool]:
    """Return the names in a MATLAB 5 file, and whether each is a plain array of numbers.

    SciPy takes the type of the stored numbers for an index unchecked, so a damaged one ends the process.
    """
    order = ">" if data[126:128] == b"MI" else "<"
    found: dict[str, bool] = {}
    start = 128
    while start + 8 <= len(data):
        kind, size = struct.unpack_from(f"{order}II", data, start)
        head = data[start : min(start + 8 + size, start + _MAT_HEAD)]
        if kind == 15:  # compressed
            head = zlib.decompressobj().decompress(head[8:], _MAT_HEAD)
        flags, dims_size = struct.unpack_from(f"{order}16xI8xI", head)  # two tags, the flags, the tag of dimensions
        name, after = _mat_element(head, 32 + -(-dims_size // 8) * 8, order)
        stored = struct.unpack_from(f"{order}I", head, after)[0] & 0xFFFF if len(head) >= after + 4 else 0
        is_plain = flags & 0xFF in _MAT_NUMBERS and not flags & 0x800 and stored in _MAT_STORED
        variable = name.decode("ascii", "replace")
        found[variable] = found.get(variable, True) and is_plain
        start += 8 + size
    return found


_MAT_HEAD = 4096  # bytes in which an array's name and type are found


def _mat_element(data: bytes, start: int, order: str) -> tuple[bytes, int]:
    """Return the content of an element of a MATLAB 5 file, and where the next one starts."""
    kind, size = struct.unpack_from(f"{order}II", data, start)
    if kind >> 16:  # a short one shares eight bytes with its tag
        return data[start + 4 : start + 4 + (kind >> 16)], start + 8
    return data[start + 8 : start + 8 + size], start + 8 + -(-size // 8) * 8


def _read_limited(path: Path) -> bytes:
    with path.open("rb") as file:
        data = file.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise DataError(f"{path} is larger than {MAX_BYTES:,} bytes; take fewer images")
    return data


def _starts_idx(head: bytes) -> bool:
    return len(head) >= 4 and head[:2] == b"\0\0" and head[2] in _IDX_TYPES and 1 <= head[3] <= 4


_IDX_TYPES = (0x08, 0x09, 0x0B, 0x0C, 0x0D, 0x0E)
