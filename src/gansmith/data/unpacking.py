"""Archives of tables, arrays or IDX files, such as Kaggle's downloads, unpacked once into the user's cache folder.

Pictures are read in place, by `archives`; readers of numbers want files.
"""

import contextlib
import os
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from gansmith.data import cache
from gansmith.data.archives import copy_files
from gansmith.data.binary_sets import CIFAR_NAMES, STL_NAMES
from gansmith.data.pictures import is_of_numbers
from gansmith.errors import DataError
from gansmith.files import PARTIAL, json_sha256

MAX_FILES = 1_000
_WITHOUT_LABELS = "unlabeled_X.bin"  # of STL-10: gigabytes that nothing reads


def unpacked(path: Path, listed: Sequence[str]) -> Path | None:
    """Return the folder that the files of numbers in an archive were unpacked to; None where it holds none.

    What all of them lie in is left away, so that they are found as in a folder that was given.

    Args:
        listed: the names in the archive.

    Raises DataError for damage, and where there is no room for them.
    """
    names = [name for name in listed if is_of_numbers(name) and not name.endswith(_WITHOUT_LABELS)]
    if not names:
        return None
    names += [name for name in listed if name.endswith((STL_NAMES, *CIFAR_NAMES))]
    if len(names) > MAX_FILES:
        raise DataError(f"{path} holds {len(names):,} tables or arrays; pack those of one data set")
    folder = cache.folder() / f"unpacked-{json_sha256({'content': cache.content_of(path), 'names': names})[:32]}"
    if folder.is_dir():
        with contextlib.suppress(OSError):
            os.utime(folder)
        return folder
    common = os.path.commonpath([os.path.dirname(name) for name in names])
    try:
        cache.folder().mkdir(parents=True, exist_ok=True)
        _remove_unused()
        with TemporaryDirectory(prefix=PARTIAL, dir=cache.folder()) as place:
            copy_files(path, {name: Path(place) / "all" / os.path.relpath(name, common or ".") for name in names})
            try:
                os.rename(Path(place) / "all", folder)
            except OSError:
                if not folder.is_dir():  # which another process made meanwhile
                    raise
    except OSError as error:
        reason = error.strerror or str(error)
        raise DataError(f"{path} cannot be unpacked ({reason}); unpack it yourself and give the folder") from None
    return folder


def _remove_unused() -> None:
    """Remove what nothing has used for a month, and what killed programs left."""
    for pattern, seconds in (("unpacked-*", cache.UNUSED_S), (f"{PARTIAL}*", cache.ABANDONED_S)):
        for place in cache.folder().glob(pattern):
            with contextlib.suppress(OSError):
                if place.is_dir() and time.time() - place.stat().st_mtime > seconds:
                    shutil.rmtree(place)
