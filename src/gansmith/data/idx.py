"""Data sets stored as IDX files, such as MNIST.

An IDX file is two zero bytes, a type byte (8: uint8), the number of dimensions, each dimension as a big-endian
32-bit number, then the values, big-endian too. Sizes are checked against the header before anything is kept.
"""

import gzip
import hashlib
import logging
import math
import re
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO

import numpy as np
import torch

from gansmith.config import ARCHIVES
from gansmith.data.archives import MAX_NAME, is_zip
from gansmith.data.embedded import embedded_mnist
from gansmith.data.image_files import BOUNDED
from gansmith.data.images import MAX_IMAGES, Images
from gansmith.data.labels import Labels, as_labels
from gansmith.data.layouts import Range
from gansmith.data.official import (
    OFFICIAL,
    as_published,
    can_fetch,
    fetch,
    file_digest,
    known_sets,
    part_of,
    places,
    set_of_file,
)
from gansmith.errors import DataError, NotFoundError
from gansmith.flat_images import square

# The type byte of an IDX file, and its numbers.
_TYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
_NAMES = re.compile(r"idx([1-4])[-.](ubyte|byte|short|int|float|double)")
_MIN_FLAT = 64  # numbers in a row of flat images; QMNIST's labels have eight
_GZIP = b"\x1f\x8b"
_ZIP_DAMAGE = (zipfile.BadZipFile, NotImplementedError, RuntimeError, ValueError, OSError, EOFError)
_MAX_FILES = 100  # in one folder of a zip: EMNIST's has 24
_MAX_BYTES = 640 * 2**20  # the largest set, emnist-byclass, holds 547 million; a header that claims more is damaged

logger = logging.getLogger("gansmith")


@dataclass(frozen=True)
class IdxSource:
    """Pairs of IDX files, whatever their names, plain, gzip or in a zip.

    Attributes:
        parts: for "train" and "test", where they are there: images, and labels or None.
    """

    path: Path
    layout: str
    parts: "dict[str, tuple[File, File | None]]"
    notices: tuple[str, ...] = ()


File = Path | zipfile.Path


def read_idx(path: File) -> tuple[np.ndarray, str]:
    """Return the array of an IDX file, plain or gzip, and the SHA-256 of its uncompressed bytes.

    The first bytes say what a file is and which numbers it holds, not its name.
    Raises DataError for a wrong magic number, a size that differs from the header's, or a damaged archive.
    """
    try:
        with path.open("rb") as raw:
            head = raw.read(2)
        with path.open("rb") as raw, gzip.GzipFile(fileobj=raw) if head == _GZIP else raw as file:
            return _read_values(file, path)  # type: ignore[arg-type]
    except (EOFError, zlib.error, gzip.BadGzipFile, zipfile.BadZipFile, RuntimeError, NotImplementedError) as error:
        raise DataError(f"{path} is damaged ({error}); fetch it again") from None


def _read_values(file: IO[bytes], path: File) -> tuple[np.ndarray, str]:
    magic = file.read(4)
    if not is_idx(magic):
        raise DataError(
            f"{path} does not start like an IDX file (found {magic.hex() or 'nothing'}); "
            "fetch it again, or give the original file"
        )
    header = file.read(4 * magic[3])
    shape = tuple(int(size) for size in np.frombuffer(header, ">u4", count=len(header) // 4))
    kind = np.dtype(_TYPES[magic[2]])
    expected = math.prod(shape) * kind.itemsize
    if len(shape) < magic[3] or math.prod(max(1, side) for side in shape) * kind.itemsize > _MAX_BYTES:
        raise DataError(f"{path} has a damaged header (sizes {shape}); fetch it again")
    body, filled = bytearray(expected), 0  # memory is taken only as it fills
    while filled < expected and (read := file.readinto(memoryview(body)[filled:])):  # type: ignore[attr-defined]
        filled += read
    if filled < expected:
        raise DataError(f"{path} is cut off: its header says {expected} bytes, it holds {filled}; fetch it again")
    if file.read(1):
        raise DataError(f"{path} is larger than the {expected} bytes its header says; fetch it again")
    digest = hashlib.sha256(magic + header)
    digest.update(body)
    return np.frombuffer(body, kind).reshape(shape), digest.hexdigest()


def find_idx(path: Path, name: str = "") -> IdxSource | None:
    """Return the IDX files in a folder, where torchvision keeps them, or in a zip; None where there are none.

    Files of images whose names speak of neither training nor test are taken for training.

    Args:
        path: of a folder, a zip, or one IDX file of images, whose labels lie beside it.
        name: of the data set; chooses where files of several lie together.

    Raises DataError where several may be meant.
    """
    held = _held_by(path) if path.is_file() else ""
    if held == "labels":
        raise DataError(f"{path} is an IDX file of labels; give the file of their images, or the folder of both")
    if held == "images":
        beside = [file for file in _files_of(path.parent) if part_of(file.name) == part_of(path.name)]
        labels = [file for file in beside if _held_by(file) == "labels"]
        return IdxSource(path, "an IDX file", {"train": (path, _partner(path, labels))})
    for files, layout in _idx_places(path, name):
        found = [(file, held) for file in files if (held := _held_by(file))]
        if not any(part_of(file.name) for file, _ in found):
            by_part = {"train": found}
        else:
            by_part = {part: [each for each in found if part_of(each[0].name) == part] for part in ("train", "test")}
        parts = {}
        for part, own in by_part.items():
            images = _only([file for file, held in own if held == "images"], name)
            if images is not None:
                parts[part] = (images, _partner(images, [file for file, held in own if held == "labels"]))
        if parts:
            return IdxSource(path, layout, parts)
    return None


def _files_of(folder: Path) -> list[File]:
    """Return the files of a folder that may be IDX files."""
    try:
        return [file for file in folder.iterdir() if file.is_file() and not _OTHERS.search(file.name)]
    except OSError:
        return []


_OTHERS = re.compile(r"^\.|\.(png|jpe?g|webp|bmp|gif|tiff?|npz|npy|csv|tsv|mat|bin|parquet|txt)$", re.IGNORECASE)


def _idx_places(path: Path, name: str = "") -> Iterator[tuple[list[File], str]]:
    """Yield files that may be IDX files: those of the folder itself, of torchvision's folders, of a zip."""
    if path.is_dir():
        yield _files_of(path), "IDX files"
        raw = {str(folder.relative_to(path)): folder for folder in {*path.glob("raw"), *path.glob("*/raw")}}
        found = {inner: _files_of(folder) for inner, folder in sorted(raw.items()) if folder.is_dir()}
        for inner, files in _of_set(path, found, name).items():
            yield files, f"IDX files in {inner}, as torchvision keeps them"
        if name in OFFICIAL and (path / name).is_dir():  # as Keras keeps them
            yield from _idx_places(path / name, name)
        for archive in sorted(path.glob("*gzip*.zip")):
            yield from _idx_places(archive, name)
    elif path.is_file() and path.name.lower().endswith(ARCHIVES) and is_zip(path):
        by_depth: dict[int, dict[str, list[File]]] = {}
        for folder, files in _zip_folders(path).items():
            by_depth.setdefault(len(folder.split("/")) if folder else 0, {})[folder] = files
        for _, found in sorted(by_depth.items()):
            for files in _of_set(path, found, name).values():
                yield files, f"IDX files in {path.name}"


def _zip_folders(path: Path) -> dict[str, list[File]]:
    """Return the files in a zip that may be IDX files, by folder; those of folders with more files than sets have."""
    try:
        with zipfile.ZipFile(path) as archive:  # before `zipfile.Path` makes a name of every folder above each
            entries = archive.infolist()
        if any(len(entry.filename) > MAX_NAME for entry in entries):
            return {}
        root = zipfile.Path(path)
        names = root.root.namelist()
    except _ZIP_DAMAGE:
        return {}  # which reading pictures from it names
    if any(not name or name.startswith("/") or "//" in name for name in names):
        return {}  # zipfile.Path would never end
    unbounded = {entry.filename for entry in entries if entry.compress_type not in BOUNDED}
    folders: dict[str, list[str]] = {}
    for name in dict.fromkeys(names):
        folder, _, file = name.rpartition("/")
        if name in unbounded:
            if _NAMES.search(file.lower()):
                raise DataError(f"{path}: {name} is packed in a way that is not read; pack it again as a plain zip")
            continue
        if file and not _OTHERS.search(file) and not folder.startswith("_"):
            folders.setdefault(folder, []).append(name)
    few = {folder: own for folder, own in folders.items() if len(own) <= _MAX_FILES}
    return {folder: [root.joinpath(name) for name in own] for folder, own in few.items()}


def _of_set(path: Path, found: dict[str, list[File]], name: str) -> dict[str, list[File]]:
    """Return those folders that hold IDX files; of several those that have the name of the set.

    Raises DataError where there are several and none has its name.
    """
    found = {folder: files for folder, files in found.items() if any(map(_held_by, files))}
    own = {name.replace("-", ""), name.split("-")[0] if name.startswith("emnist") else name}
    meant = {folder: files for folder, files in found.items() if own & set(folder.lower().split("/"))}
    if len(found) > 1 and not meant:
        unpack = "unpack it and " if path.is_file() else ""
        raise DataError(
            f"{path} holds several data sets ({', '.join(list(found)[:6])}); {unpack}name one of these folders"
        )
    return meant or found


def _held_by(file: File) -> str:
    """Return whether an IDX file holds "images" or "labels", by its dimensions; empty for another file.

    A damaged file whose name is that of an IDX file counts as one, so that reading it says what is wrong.
    """
    named = _NAMES.search(file.name.lower())
    rank, row = int(named[1]) if named else 0, 0
    try:
        with file.open("rb") as raw:
            head = raw.read(12)
        if head[:2] == _GZIP:
            with file.open("rb") as raw, gzip.GzipFile(fileobj=raw) as unpacked:
                head = unpacked.read(12)
        if is_idx(head):
            rank, row = head[3], int.from_bytes(head[8:12], "big")
    except (OSError, EOFError, zlib.error, zipfile.BadZipFile, RuntimeError, NotImplementedError):
        pass
    is_flat = rank == 2 and row >= _MIN_FLAT and square(row)[0] > 0 and "label" not in file.name.lower()
    return "" if not rank else "images" if rank > 2 or is_flat else "labels"


def is_idx(head: bytes) -> bool:
    """Return whether a file that begins with these bytes is an IDX file."""
    return len(head) >= 4 and head[:2] == b"\0\0" and head[2] in _TYPES and 1 <= head[3] <= 4


def _only(files: list[File], name: str) -> File | None:
    """Return the one file that is meant: of several, the one with the data set's name; plain before packed."""
    own = [file for file in files if name and file.name.startswith(f"{name}-")] or files
    stems: dict[str, File] = {}
    for file in sorted(own, key=lambda file: (file.name.endswith(".gz"), file.name), reverse=True):
        stems[file.name.removesuffix(".gz").lower()] = file
    if len(stems) > 1:
        plain = [stem for stem in stems if stem.startswith(("train-", "t10k-", "test-"))]
        if len(plain) != 1:
            listing = ", ".join(sorted(file.name for file in files)[:6])
            raise DataError(f"several files of images may be meant ({listing}); name their data set with --data")
        return stems[plain[0]]
    return next(iter(stems.values()), None)


def _partner(images: File, labels: list[File]) -> File | None:
    """Return the file of labels whose name is most like that of the images."""
    from difflib import SequenceMatcher

    stem = re.sub(r"images?|idx\d", "", images.name.lower())
    scored = [
        (SequenceMatcher(None, stem, re.sub(r"labels?|idx\d", "", file.name.lower())).ratio(), file) for file in labels
    ]
    return max(scored, key=lambda pair: pair[0])[1] if scored else None


def load_idx(source: IdxSource, part: str, *, name: str) -> Images:
    """Return a part of a pair of IDX files, its images of their own size.

    Raises NotFoundError where there is none, DataError for damage.
    """
    if part not in source.parts:
        advice = ""
        if part == "train":
            only = ", ".join(file.name for file in source.parts["test"] if file is not None)
            advice = f", only {only}; to train on these, give them names with train in place of t10k or test"
        raise NotFoundError(f"{source.path} holds no {part} images in IDX form{advice}")
    images = _read(name, part, source.parts)
    where = str(source.path) if source.path.name.lower().endswith(ARCHIVES) else images.source
    return replace(images, source=where, notices=(*source.notices, *images.notices))


def load(name: str, root: Path | None, part: str) -> Images:
    """Return a part of a named set of IDX files, from the first folder that has it.

    Args:
        root: the folder that holds the files; if given, only it is used.
        part: "train" or "test".
    """
    for folder in [root] if root is not None else places(name):
        found = find_idx(folder, name) if folder.exists() else None
        if found is not None and part in found.parts:
            return load_idx(found, part, name=name)
    if root is not None:
        stem = {"train": "train", "test": "t10k"}[part]
        raise NotFoundError(
            f"{root} holds no {part} images in IDX form; put {stem}-images-idx3-ubyte[.gz] there, or name the folder "
            "that has it"
        )
    is_embedded = name == "mnist" and part == "train"
    if can_fetch(name):
        try:
            return load(name, fetch(name, part), part)
        except NotFoundError as error:
            if not is_embedded:
                raise
            logger.info("%s", error)
    if is_embedded:
        return embedded_mnist()
    tried = ", ".join(str(folder) for folder in places(name))
    raise NotFoundError(f"no {part} images of {name} were found (looked in {tried}); give their folder with --data-dir")


def _read(name: str, part: str, parts: "dict[str, tuple[File, File | None]]") -> Images:
    """Return the images of a pair of files, of their own size.

    A notice says where they are not the official ones or have no labels, and how their numbers were taken.

    Args:
        parts: the pairs of files of the set; the training images say how the numbers of others are taken.
    """
    from gansmith.data.arrays import as_arrays  # training on arrays needs no readers

    images_path, labels_path = parts[part]
    stored, images_hash = read_idx(images_path)
    if not len(stored):
        raise DataError(f"{_where(images_path)} holds no images; give a data set with at least one")
    if not stored.size:
        raise DataError(f"{images_path} has shape {stored.shape}; images of at least one pixel are needed")
    if len(stored) > MAX_IMAGES:
        raise DataError(f"{images_path} holds {len(stored):,} images; up to {MAX_IMAGES:,} can be read, take fewer")
    grey = stored[..., None] if stored.ndim == 3 else stored  # three of them are not taken for channels
    arrays = as_arrays(grey, None, str(images_path))
    if part != "train" and "train" in parts and arrays.numbers != Range():
        like = as_arrays(read_idx(parts["train"][0])[0], None, str(parts["train"][0]))
        arrays = as_arrays(grey, None, str(images_path), like=like)
    if arrays.pixels.shape[3] == 4:
        raise DataError(f"{images_path} has shape {stored.shape}; images of 1 or 3 channels are needed")
    labels, labels_hash = (
        (Labels(), None) if labels_path is None else _read_labels(labels_path, images_path, len(stored))
    )
    known, notices = _known_name(
        name, part, {"images": (images_path, images_hash), "labels": (labels_path, labels_hash)}
    )
    if labels_path is None:
        notices.append(f"{_where(images_path)} holds no {part} labels; the images are used without")
    images = Images(
        name=known,
        pixels=torch.from_numpy(np.ascontiguousarray(arrays.pixels.transpose(0, 3, 1, 2))),
        labels=None if labels.numbers is None else torch.from_numpy(labels.numbers),
        source=_where(images_path),
        notices=(*notices, *arrays.notices, *labels.notices),
    )
    return as_published(images, known)


def _read_labels(path: File, images_path: File, count: int) -> tuple[Labels, str]:
    """Return the labels of so many images, and the SHA-256 of their file."""
    labels, digest = read_idx(path)
    if labels.ndim == 2 and not np.isin(labels, (0, 1)).all():  # QMNIST: the class, then what else is known of each
        labels = labels[:, 0]
    if len(labels) != count or labels.ndim > 2:
        raise DataError(
            f"{path} has shape {labels.shape} for {count} images in {images_path}; one label for each image is "
            "needed: use the pair of files that belong together"
        )
    return as_labels(labels, count, str(path)), digest


def _known_name(name: str, part: str, files: dict[str, tuple[File | None, str | None]]) -> tuple[str, list[str]]:
    """Return what a set is called by its files' hashes and names, and a notice where that is another than asked for.

    Args:
        files: path and SHA-256 of what it holds, of the images and the labels.
    """
    hashes = {what: _digests(path, digest) for what, (path, digest) in files.items() if path and digest}
    images_path = files["images"][0]
    assert images_path is not None
    by_hash = [found for digest in hashes["images"] for found in known_sets([digest])]
    by_name = set_of_file(images_path.name)
    known = next((each for each in (name, by_name) if each in by_hash), by_hash[0] if by_hash else name)
    if not by_hash and by_name and by_name != name:
        return by_name, [f"{images_path.name} is of {by_name}, not of {name}, so the set is called {by_name}"]
    if known != name:
        return known, [f"these are the official images of {known}, not of {name}, so they are called {known}"]
    if name not in OFFICIAL:
        return name, []
    odd = [what for what, own in hashes.items() if not any(name in known_sets([digest]) for digest in own)]
    where = _where(images_path)
    if odd and not OFFICIAL[name].is_unpacked and all(len(hashes[what]) == 1 for what in odd):
        return name, [f"{where} cannot be compared with the official {name}, whose hashes are of the packed files"]
    return name, [f"the {what} in {where} are not the official {name} {part} set; used as they are" for what in odd]


def _digests(path: File, content: str) -> list[str]:
    """Return the SHA-256 of what a file holds and, where it is packed, of the packed file or its archive."""
    file = Path(str(path.root.filename)) if isinstance(path, zipfile.Path) else path
    is_packed = isinstance(path, zipfile.Path) or path.name.endswith(".gz")
    return [content, file_digest(file)] if is_packed else [content]


def _where(file: File) -> str:
    """Return the folder or archive that a file lies in, in words."""
    return str(file.root.filename if isinstance(file, zipfile.Path) else file.parent)
