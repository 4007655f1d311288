"""CIFAR-10, CIFAR-100 and SVHN in the files they are published in, unpacked or not."""

from pathlib import Path
from typing import TYPE_CHECKING

from gansmith.data.images import Images
from gansmith.data.official import OFFICIAL, can_fetch, fetch, is_of, places
from gansmith.data.prepare import Preparation
from gansmith.errors import DataError, NotFoundError

if TYPE_CHECKING:
    from gansmith.data.sources import FileSource

_FOLDERS = {"cifar10": "cifar-10-batches-bin", "cifar100": "cifar-100-binary", "svhn": "svhn"}
_PICKLES = ("cifar-10-batches-py", "cifar-10-python.tar.gz", "cifar-100-python", "cifar-100-python.tar.gz")


def load(name: str, root: Path | None, part: str) -> Images:
    """Return a part of a set, from the first folder that has its files.

    Args:
        root: the folder that holds the files, or the archive; if given, only it is used.
        part: "train" or "test".

    Raises NotFoundError where there are none, DataError for damage, or for files that are pickles.
    """
    from gansmith.data.sources import load_source

    for folder in [root] if root is not None else places(name):
        source = _find(name, folder) if folder.exists() else None
        if source is not None:
            return load_source(source, Preparation(), part=part, name=name)
    if root is not None:
        raise NotFoundError(
            f"{root} holds no {part} images of {name}; put {' and '.join(OFFICIAL[name].sha256)} there, or name the "
            "folder that has it"
        )
    if can_fetch(name):
        return load(name, fetch(name, part), part)
    tried = ", ".join(str(folder) for folder in places(name))
    raise NotFoundError(f"no {part} images of {name} were found (looked in {tried}); give their folder with --data-dir")


def _find(name: str, folder: Path) -> "FileSource | None":
    """Return the files of a set in a folder, in its own subfolder there, or in an archive there; None without any."""
    from gansmith.data.sources import FileSource

    known = OFFICIAL[name]
    files = tuple(known.members) or tuple(known.sha256)
    if folder.is_file() and folder.name in (*known.sha256, *files):
        return FileSource(folder, "", {"train": (folder,)})
    for place in (folder, folder / _FOLDERS[name]):
        parts = {part: tuple(place / file for file in files if is_of(file, part)) for part in ("train", "test")}
        parts = {part: tuple(file for file in own if file.is_file()) for part, own in parts.items()}
        if found := {part: own for part, own in parts.items() if own}:
            return FileSource(place, "", found)
    for archive in known.sha256:
        if (folder / archive).is_file():
            return FileSource(folder / archive, "", {"train": (folder / archive,)})
    pickled = [file for file in _PICKLES if (folder / file).exists() or folder.name == file]
    if pickled:
        raise DataError(
            f"{pickled[0]} in {folder} is CIFAR's version for Python: pickles, which can run any code and are never "
            f"read; use the binary version, {known.mirrors[0]}{next(iter(known.sha256))}"
        )
    return None
