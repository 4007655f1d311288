"""Data sets stored as IDX files, such as MNIST, and the folders they are looked for in.

An IDX file is two zero bytes, a type byte (8: uint8), the number of dimensions, each dimension as a big-endian
32-bit number, then the values. Sizes are checked against the header before anything is kept.
"""

import gzip
import hashlib
import logging
import math
import os
import tempfile
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from gansmith.data.download import OFFLINE, download
from gansmith.data.embedded import embedded_mnist
from gansmith.data.images import MAX_IMAGES, Images
from gansmith.errors import DataError, NotFoundError

_UINT8 = 8
_MAX_BYTES = 640 * 2**20  # the largest set, emnist-byclass, holds 547 million; a header that claims more is damaged

logger = logging.getLogger("gansmith")


@dataclass(frozen=True)
class _Source:
    """The official content of a data set: SHA-256 of its four uncompressed files, and the addresses that serve them."""

    sha256: dict[str, str]
    mirrors: tuple[str, ...]


# Fashion-MNIST's hashes were computed from the published files; MNIST's are widely quoted. They are of the uncompressed
# files, since mirrors compress them differently.
_OFFICIAL = {
    "mnist": _Source(
        {
            "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
            "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
            "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
            "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
        },
        (
            "https://ossci-datasets.s3.amazonaws.com/mnist/",
            "https://storage.googleapis.com/cvdf-datasets/mnist/",
        ),
    ),
    "fashion-mnist": _Source(
        {
            "train-images-idx3-ubyte": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
            "train-labels-idx1-ubyte": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
            "t10k-images-idx3-ubyte": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
            "t10k-labels-idx1-ubyte": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
        },
        (
            "https://storage.googleapis.com/tensorflow/tf-keras-datasets/",
            "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
        ),
    ),
}


def read_idx(path: Path) -> tuple[np.ndarray, str]:
    """Return the uint8 array of an IDX file, plain or gzip, and the SHA-256 of its uncompressed bytes.

    Raises DataError for a wrong magic number, a size that differs from the header's, or a damaged archive.
    """
    opener = gzip.open if path.suffix == ".gz" else open
    try:
        with opener(path, "rb") as file:
            magic = file.read(4)
            if len(magic) < 4 or magic[:3] != bytes([0, 0, _UINT8]) or not 1 <= magic[3] <= 4:
                raise DataError(
                    f"{path} does not start like an IDX file of bytes (found {magic.hex() or 'nothing'}); "
                    "give the original file"
                )
            header = file.read(4 * magic[3])
            shape = tuple(int(size) for size in np.frombuffer(header, ">u4", count=len(header) // 4))
            expected = math.prod(shape)
            if len(shape) < magic[3] or expected > _MAX_BYTES:
                raise DataError(f"{path} has a damaged header (sizes {shape}); fetch it again")
            body = bytearray(expected)  # memory is taken only as it fills
            filled = 0
            while filled < expected and (read := file.readinto(memoryview(body)[filled:])):
                filled += read
            longer = bool(file.read(1))
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"{path} is damaged ({error}); fetch it again") from None
    if filled < expected:
        raise DataError(f"{path} is cut off: its header says {expected} values, it holds {filled}; fetch it again")
    if longer:
        raise DataError(f"{path} is larger than the {expected} values its header says; fetch it again")
    digest = hashlib.sha256(magic + header)
    digest.update(body)
    return np.frombuffer(body, np.uint8).reshape(shape), digest.hexdigest()


def load(name: str, root: Path | None, part: str, *, transposed: bool = False) -> Images:
    """Return a part of a named set of IDX files, from the first folder that has it.

    Args:
        root: the folder that holds the files; if given, only it is used.
        part: "train" or "test".
        transposed: the files store rows and columns swapped, as EMNIST's do.
    """
    for folder in [root] if root is not None else places(name):
        found = _find(folder, name, part)
        if found is not None:
            return _read(name, part, *found, transposed=transposed)
    if root is not None:
        raise NotFoundError(
            f"{root} holds no {part} images in IDX form; put {_stem(part)}-images-idx3-ubyte[.gz] there, or name "
            "the folder that has it"
        )
    is_embedded = name == "mnist" and part == "train"
    if can_fetch(name):
        try:
            fetch(name, part)
            return load(name, cache_dir(name), part, transposed=transposed)
        except NotFoundError as error:
            if not is_embedded:
                raise
            logger.info("%s", error)
    if is_embedded:
        return embedded_mnist()
    tried = ", ".join(str(folder) for folder in places(name))
    raise NotFoundError(f"no {part} images of {name} were found (looked in {tried}); give their folder with --data-dir")


def places(name: str) -> list[Path]:
    """Return the folders a named set is looked for in, in order."""
    shared = os.environ.get("GANSMITH_DATA")
    folders = [Path(shared) / name] if shared else []
    return [*folders, cache_dir(name), Path("/usr/share/datasets") / name]


def cache_dir(name: str) -> Path:
    """Return the folder where a downloaded set is kept: in $GANSMITH_CACHE, else in the user's cache folder."""
    base = os.environ.get("GANSMITH_CACHE")
    return (Path(base) if base else _user_cache()) / name


def _user_cache() -> Path:
    """Return the user's cache folder, or a temporary one for a user without a home, as in some containers."""
    import platformdirs

    try:
        found = Path(platformdirs.user_cache_dir("gansmith", appauthor=False))
    except RuntimeError:  # newer versions; older ones return a path that begins with "~"
        found = Path("~")
    return found if found.is_absolute() else Path(tempfile.gettempdir()) / ".cache" / "gansmith"


def can_fetch(name: str) -> bool:
    """Return whether a set is one that is downloaded, and downloads are allowed."""
    return name in _OFFICIAL and not os.environ.get(OFFLINE)


def fetch(name: str, part: str) -> None:
    """Download a part of an official set into the cache.

    Raises DataError for a set that is not downloaded, NotFoundError where a file cannot be had.
    """
    if name not in _OFFICIAL:
        raise DataError(f"{name} cannot be downloaded; allowed: {', '.join(_OFFICIAL)}; give --data-dir for others")
    if not can_fetch(name):
        raise NotFoundError(f"{name} is not downloaded while {OFFLINE} is set; unset it, or give --data-dir")
    source, folder = _OFFICIAL[name], cache_dir(name)
    # Images last: a set is looked for by them, so a half that arrived is not taken for one without labels.
    wanted = sorted((file for file in source.sha256 if file.startswith(_stem(part))), key=lambda file: "images" in file)
    for file in wanted:
        urls = [f"{mirror}{file}.gz" for mirror in source.mirrors]
        try:
            download(urls, folder / f"{file}.gz", sha256=source.sha256[file])
        except NotFoundError as error:
            raise NotFoundError(
                f"{name} could not be downloaded ({error}); try again, or download {', '.join(source.sha256)} "
                f"(each .gz) from one of these addresses by hand into {folder} or a folder named with --data-dir"
            ) from None


def _stem(part: str) -> str:
    """Return what the official file names of a part begin with."""
    return {"train": "train", "test": "t10k"}[part]


def _find(folder: Path, name: str, part: str) -> tuple[Path, Path | None] | None:
    """Return the image file and the label file of a part; None where the folder has no such images."""
    stems = {"train": ("train",), "test": ("t10k", "test")}[part]
    for stem in stems:
        for prefix in (f"{name}-", ""):
            for separator in ("-", "."):
                for ending in (".gz", ""):
                    images = folder / f"{prefix}{stem}-images{separator}idx3-ubyte{ending}"
                    if images.is_file():
                        labels = folder / f"{prefix}{stem}-labels{separator}idx1-ubyte"
                        both = (labels.with_name(labels.name + ".gz"), labels)
                        return images, next((path for path in both if path.is_file()), None)
    return None


def _read(name: str, part: str, images_path: Path, labels_path: Path | None, *, transposed: bool) -> Images:
    """Return the images of a pair of files, with a notice where they are not the official ones or have no labels."""
    pixels, images_hash = read_idx(images_path)
    if pixels.ndim != 3 or pixels.shape[1] != pixels.shape[2] or not pixels.shape[1]:
        raise DataError(f"{images_path} has shape {pixels.shape}; square grey images (count, size, size) are needed")
    if len(pixels) > MAX_IMAGES:
        raise DataError(f"{images_path} holds {len(pixels):,} images; up to {MAX_IMAGES:,} can be read, take fewer")
    labels, labels_hash = (None, None) if labels_path is None else read_idx(labels_path)
    if labels is not None and labels.shape != pixels.shape[:1]:
        raise DataError(
            f"{labels_path} has shape {labels.shape} for {len(pixels)} images in {images_path}; "
            "one label for each image is needed: use the pair of files that belong together"
        )
    notices = []
    official = _OFFICIAL[name].sha256 if name in _OFFICIAL else {}
    for what, digest in (("images", images_hash), ("labels", labels_hash)):
        if official and digest is not None and digest not in official.values():
            notices.append(
                f"the {what} in {images_path.parent} are not the official {name} {part} set; used as they are"
            )
    if labels is None:
        notices.append(f"{images_path.parent} holds no {part} labels; the images are used without")
    if transposed:
        pixels = pixels.transpose(0, 2, 1)
    return Images(
        name=name,
        pixels=torch.from_numpy(np.ascontiguousarray(pixels[:, None])),
        labels=None if labels is None else torch.from_numpy(labels.astype(np.int64)),
        source=str(images_path.parent),
        notices=tuple(notices),
    )
