"""Prepared images of large sources, kept in the user's cache folder: one .npy file, and what is known of it as JSON.

An entry is found by its identity: the source's content, the preparation asked for and the part. Its JSON file, which
is written last, makes it whole. The entry of a source that has changed is removed when that is prepared again, any
other once nothing has used it for a month. The folder may be deleted at any time.
"""

import contextlib
import errno
import hashlib
import json
import os
import shutil
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from gansmith.data.official import cache_dir
from gansmith.data.on_disk import open_array
from gansmith.files import PARTIAL, flush, json_sha256, put, warn_once, write_json

FORMAT = 3  # of entries; another one when preparation changes
MEMORY_BYTES = 2**29  # of prepared images, beyond which they stay on disk
UNUSED_S, ABANDONED_S = 30 * 86_400.0, 3_600.0  # since an entry was last used, an unfinished one written to
FREE_BYTES = 2**30  # that are left on the disk
_END_BYTES = 2**20
_UNWRITABLE = (
    errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EFBIG, errno.ENOTDIR,
    errno.ENOENT,
)  # fmt: skip

Facts = dict[str, Any]


class CacheUnusable(Exception):
    """The cache folder cannot be written, or has no room; its text says which."""


@dataclass(frozen=True)
class Entry:
    """Prepared images in the cache.

    Attributes:
        pixels: uint8 (N, C, size, size), in memory or, where they are many, on disk.
        facts: what was kept beside them.
    """

    pixels: Tensor
    facts: Facts


def folder() -> Path:
    """Return where entries lie."""
    return cache_dir("prepared")


def find_or_make(identity: Mapping[str, Any], make: Callable[[Path], Facts]) -> Entry:
    """Return the entry with this identity, made first where there is none; by one process at a time.

    Args:
        identity: "source", "part" and "asked", of which one entry is kept, and "content"; JSON.
        make: writes a .npy file of images to a path, and returns what to keep beside it, JSON.

    Raises CacheUnusable where it cannot be written.
    """
    key = _key(identity)
    entry = _find(key)
    if entry is not None:
        return entry
    try:
        with _locked(key) as is_alone:
            entry = _find(key)  # another process may have made it meanwhile
            if entry is None:
                _remove_stale(identity, key, is_alone=is_alone)
                _make(key, identity, make)
                entry = _find(key)
    except OSError as error:
        if error.errno in _UNWRITABLE and (error.filename is None or str(folder()) in str(error.filename)):
            raise CacheUnusable(f"{folder()} cannot be written ({error.strerror})") from None
        raise
    if entry is None:
        raise CacheUnusable(f"{folder()} lost what was just written there")
    return entry


def remember(identity: Mapping[str, Any], find_out: Callable[[], Facts]) -> Facts:
    """Return facts about a source, found out once and kept; found out every time where the cache cannot be written."""
    described = folder() / f"{_key(identity)}.json"
    with contextlib.suppress(OSError, ValueError):
        facts = _read(described)["facts"]
        with contextlib.suppress(OSError):
            os.utime(described)
        return facts
    facts = find_out()
    with contextlib.suppress(OSError):
        folder().mkdir(parents=True, exist_ok=True)
        _remove_stale(identity, _key(identity), is_alone=False)
        write_json(described, {"identity": dict(identity), "facts": facts})
    return facts


def require_room(size: int) -> None:
    """Raise CacheUnusable where the disk has no room for so many bytes more."""
    free = shutil.disk_usage(folder()).free
    if free < size + FREE_BYTES:
        raise CacheUnusable(f"{folder()} has {free / 1e9:.1f} GB free, and {(size + FREE_BYTES) / 1e9:.1f} are needed")


def content_of(path: Path) -> str:
    """Return the size and time of a file with a hash of its ends, of which a zip's last is its table of contents.

    A hash of all of it would take as long as reading it, at every start.
    """
    found = path.stat()
    with path.open("rb") as file:
        digest = hashlib.sha256(file.read(_END_BYTES))
        file.seek(max(0, found.st_size - _END_BYTES))
        digest.update(file.read(_END_BYTES))
    return f"{found.st_size} {found.st_mtime_ns} {digest.hexdigest()}"


def _key(identity: Mapping[str, Any]) -> str:
    """Return the name of an entry: the same wherever its source lies."""
    return json_sha256({**identity, "source": "", "format": FORMAT})[:32]


def _find(key: str) -> Entry | None:
    """Return a whole entry, and note that it is used; None where there is none."""
    path, described = folder() / f"{key}.npy", folder() / f"{key}.json"
    try:
        facts = _read(described)["facts"]
        pixels = open_array(path)
        if pixels is None or list(pixels.shape) != facts.get("shape"):
            raise ValueError("another size")
    except FileNotFoundError:
        return None
    except (OSError, ValueError):
        warn_once(f"{path} is damaged; its images are prepared again")
        return None
    with contextlib.suppress(OSError):
        os.utime(described)
    return Entry(pixels[:] if pixels.nbytes <= MEMORY_BYTES else pixels, facts)


def _read(described: Path) -> dict[str, Facts]:
    """Return an entry's identity and facts; ValueError where the file holds something else."""
    found = json.loads(described.read_text("utf-8"))
    if not isinstance(found, dict) or not all(isinstance(found.get(name), dict) for name in ("identity", "facts")):
        raise ValueError("no entry")
    return found


def _make(key: str, identity: Mapping[str, Any], make: Callable[[Path], Facts]) -> None:
    path, partial = folder() / f"{key}.npy", folder() / f"{PARTIAL}{key}-{os.getpid()}.npy"
    try:
        facts = make(partial)
        flush(partial)
        put(partial, path)
        write_json(folder() / f"{key}.json", {"identity": dict(identity), "facts": facts})
    finally:
        partial.unlink(missing_ok=True)


def _remove_stale(identity: Mapping[str, Any], key: str, *, is_alone: bool) -> None:
    """Remove what killed runs left, entries of the same source as it was, and those nothing has used for a month.

    Args:
        is_alone: whether no other process can be writing this entry.
    """
    now = time.time()
    for described in folder().glob("*.json"):
        try:
            age_s = now - described.stat().st_mtime
        except OSError:  # another process has removed it
            continue
        try:
            known = _read(described)["identity"]
            is_same = all(known.get(name) == identity[name] for name in ("source", "part", "asked"))
        except (OSError, ValueError):
            is_same = False
        if described.stem != key and (is_same or age_s > UNUSED_S):
            with contextlib.suppress(OSError):  # open in another process, on Windows: its description stays, too
                for suffix in (".npy", ".lock", ".json"):
                    described.with_suffix(suffix).unlink(missing_ok=True)
    for partial in folder().glob(f"{PARTIAL}*"):
        with contextlib.suppress(OSError):
            if (is_alone and key in partial.name) or now - partial.stat().st_mtime > ABANDONED_S:
                partial.unlink()


@contextlib.contextmanager
def _locked(key: str) -> Iterator[bool]:
    """Wait until no other process prepares this entry; gives False, with a warning, where files cannot be locked."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that a lock file alone would do, which a killed process leaves behind
        import filelock
    folder().mkdir(parents=True, exist_ok=True)
    lock = None
    if filelock.FileLock is not filelock.SoftFileLock:
        lock = filelock.FileLock(folder() / f"{key}.lock", fallback_to_soft=False)
        try:
            lock.acquire()
        except OSError as error:
            if error.errno in _UNWRITABLE and error.filename is not None:  # as of the file, not of locking it
                raise
            lock = None
    if lock is None:
        warn_once(f"{folder()} lies where files cannot be locked: start only one training on a new set at a time")
    try:
        yield lock is not None
    finally:
        if lock is not None:
            lock.release()
