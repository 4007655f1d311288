"""Files inside .zip and .tar archives, read in place: what is there, and the bytes of some of them.

An archive may come from anywhere: names that lead out of it, archives that unpack to far more than pictures do, and
damage are refused, but for single files of a .zip, if asked; links, devices and archives inside are passed over and
counted.
"""

import bz2
import errno
import gzip
import lzma
import math
import os
import re
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import IO, Any

from gansmith.config import ARCHIVES
from gansmith.data.cache import FREE_BYTES
from gansmith.data.image_files import BOUNDED
from gansmith.data.images import MAX_IMAGES
from gansmith.errors import DataError, reason_of

PICKLES = re.compile(r"\.(pkl|pickle|pt|pth|joblib)(\.gz)?$", re.IGNORECASE)  # by their names
IS_PICKLE = "is a pickle, which can run any code and is never read"
LOAD_IT_YOURSELF = "where you trust it, load it yourself and save its images and labels with numpy.savez"
MAX_MEMBER_BYTES = 2**27  # of one picture's file
MAX_RATIO = 200  # of unpacked over packed size, beyond which an archive is a bomb
MAX_NAME = 4_096  # letters of a name with its folders
_HEADER_BYTES = 2**22  # of an entry of a tar, long names included
_FREE_BYTES = 2**26  # of an archive, unpacked, whatever the ratio
_CHUNK_BYTES = 2**20  # that are copied at once
_IS_UTF_8 = 0x800  # among the flags of a zip's entry
_NESTED = (*ARCHIVES, ".7z", ".rar")
_OPENERS: dict[bytes, Any] = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ": lzma.open}


class WriteFailed(OSError):
    """What was read could not be written: nothing is wrong with the archive."""


def list_archive(path: Path, *, reads_nested: bool = False) -> tuple[list[str], tuple[str, ...]]:
    """Return the names of all files in an archive, and a sentence on what was passed over.

    Args:
        reads_nested: archives inside are not passed over.

    Raises DataError for damage, for names that lead out of it, and for a bomb.
    """
    odd: list[str] = []
    with naming_damage(path):
        found = list(_zip_entries(path, odd) if is_zip(path) else _tar_entries(path))
    names = [name for name, is_file in found if is_file]
    links = len(found) - len(names)
    nested = sum(name.lower().endswith(_NESTED) for name in names)
    if links:
        odd.append(f"{links:,} links or devices in {path.name} were left out")
    if nested and not reads_nested:
        odd.append(f"{nested:,} archives inside {path.name} were left out; unpack it to use them")
    return names, tuple(odd)


def read_archive(
    path: Path, names: Sequence[str], *, limit: int = MAX_MEMBER_BYTES, unreadable: dict[int, str] | None = None
) -> Iterator[tuple[int, bytes]]:
    """Yield the row and the bytes of these files of an archive, in the order that reads fastest.

    Args:
        limit: bytes of each that are enough; one more is read, so that a longer file is seen to be one.
        unreadable: takes the rows of damaged files of a .zip, and why, instead of raising DataError.
    """
    with naming_damage(path):
        is_a_zip = is_zip(path)
        for row, open_file in _found(path, names, ratio=MAX_RATIO):
            try:
                with open_file() as inside:
                    data = read_in_pieces(inside, limit + 1)
            except (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, OSError) as error:
                if unreadable is None or not is_a_zip:
                    raise
                unreadable[row] = reason_of(error)
            else:
                yield row, data


def read_in_pieces(inside: IO[bytes], most: int) -> bytes:
    """Return so many bytes of a file at most, never asking for more than a piece at once."""
    data = bytearray()
    while len(data) < most and (piece := inside.read(min(_CHUNK_BYTES, most - len(data)))):
        data += piece
    return bytes(data)


def copy_files(path: Path, places: Mapping[str, Path]) -> None:
    """Write these files of an archive to their places, whatever their size.

    Raises DataError for damage, OSError where they cannot be written.
    """
    names = list(places)
    with naming_damage(path):
        for row, open_file in _found(path, names, ratio=math.inf):  # sorted labels pack into next to nothing
            with open_file() as inside:
                _copy(inside, places[names[row]])


def _copy(inside: IO[bytes], place: Path) -> None:
    with _naming_the_disk():
        place.parent.mkdir(parents=True, exist_ok=True)
        file = place.open("wb")
    with file:
        while chunk := inside.read(_CHUNK_BYTES):
            with _naming_the_disk():
                if shutil.disk_usage(place.parent).free < FREE_BYTES:
                    raise WriteFailed(errno.ENOSPC, "too little space would be left on the disk")
                file.write(chunk)
        with _naming_the_disk():  # it is trusted under its name from now on
            file.flush()
            os.fsync(file.fileno())


@contextmanager
def _naming_the_disk() -> Iterator[None]:
    """Turn errors of writing into WriteFailed."""
    try:
        yield
    except WriteFailed:
        raise
    except OSError as error:
        raise WriteFailed(error.errno, error.strerror) from None


def is_zip(path: Path) -> bool:
    """Return whether an archive is a .zip, not a tar: by its first bytes, by its name where these say nothing."""
    with path.open("rb") as file:
        head = file.read(512)
    if head.startswith(b"PK"):
        return True
    is_tar = head.startswith(tuple(_OPENERS)) or head[257:262] == b"ustar"
    return not is_tar and path.name.lower().endswith(".zip")


def starts_archive(path: Path) -> bool:
    """Return whether a file is a zip or a tar, packed or not, by its first bytes."""
    try:
        with path.open("rb") as file:
            head = file.read(512)
        opener = next((opener for magic, opener in _OPENERS.items() if head.startswith(magic)), None)
        if opener is not None:
            with opener(path, "rb") as stream:
                head = stream.read(512)
    except (OSError, EOFError, zlib.error, lzma.LZMAError):
        return False
    return head.startswith(b"PK\x03\x04") or head[257:262] == b"ustar"


@contextmanager
def naming_damage(path: Path) -> Iterator[None]:
    """Turn what archive libraries raise for damage into DataError."""
    try:
        yield
    except (DataError, WriteFailed):
        raise
    except NotImplementedError as error:
        reason = reason_of(error).rstrip(".").lower()
        raise DataError(f"{path} cannot be read here ({reason}); unpack it, or pack it again as a plain zip") from None
    except (
        zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, EOFError, OSError, ValueError, OverflowError,
        MemoryError, RecursionError,
    ) as error:  # fmt: skip
        reason = reason_of(error).rstrip(":")
        raise DataError(f"{path} is damaged or no archive ({reason}); fetch or pack it again") from None
    except RuntimeError as error:  # zipfile's word for a password
        raise DataError(f"{path} cannot be read ({reason_of(error)}); pack it again without a password") from None


def _inner_name(name: str, path: Path) -> str:
    """Return a name inside an archive with forward slashes, relative. Raises DataError where it leads out of it.

    Where it has forward slashes, a backslash is half of a letter: of Japanese or Chinese in a zip of Windows.
    """
    if len(name) > MAX_NAME:
        raise DataError(f"{path} holds a name of {len(name):,} letters, {name[:40]!r}...; shorten it")
    inner = re.sub(r"^([A-Za-z]:)?(\.?[\\/])+", "", name if "/" in name else name.replace("\\", "/"))
    is_elsewhere = os.name == "nt" and ":" in inner  # a drive, or a stream of another file
    if ".." in re.split(r"[\\/]", inner) or is_elsewhere:
        raise DataError(f"{path} holds {name[:80]!r}, which leads out of it; pack it again from inside its folder")
    return inner


def _zip_entries(path: Path, odd: list[str]) -> Iterator[tuple[str, bool]]:
    """Yield each entry's name and whether it is a file rather than a link; add a sentence on odd names."""
    with zipfile.ZipFile(path) as archive:
        entries = [entry for entry in archive.infolist() if entry.filename and not entry.is_dir()]
        _refuse_bomb(path, sum(entry.file_size for entry in entries), len(entries))
        for entry in entries:
            yield _inner_name(_decoded(entry)[0], path), not stat.S_ISLNK(entry.external_attr >> 16)
        unsure = next((name for name, is_sure in map(_decoded, entries) if not is_sure), None)
        if unsure is not None:
            odd.append(
                f"{path.name} does not say how its names are written, and {unsure[:60]!r} is a guess; where class "
                "names are wrong, unpack it and give the folder"
            )


def _decoded(entry: zipfile.ZipInfo) -> tuple[str, bool]:
    """Return an entry's name and whether it is sure to be right.

    Where the zip does not say UTF-8, names are those of MS-DOS, code page 437; but macOS writes UTF-8 all the same, and
    Windows what the country uses.
    """
    name = entry.filename
    if name.isascii() or entry.flag_bits & _IS_UTF_8:
        return name, True
    try:
        return name.encode("cp437").decode("utf-8"), True
    except UnicodeError:
        return name, False


def _refuse_bomb(path: Path, unpacked: int, entries: int) -> None:
    if entries > 2 * MAX_IMAGES:
        raise DataError(f"{path} holds more than {2 * MAX_IMAGES:,} entries; take fewer")
    if unpacked > _FREE_BYTES + MAX_RATIO * path.stat().st_size:
        raise DataError(f"{path} claims {unpacked:,} bytes or more, more than pictures pack into its size")


def _found(path: Path, names: Sequence[str], *, ratio: float) -> Iterator[tuple[int, Callable[[], IO[bytes]]]]:
    """Yield the row of each of these files and what opens it, to be read at once, in the order that reads fastest.

    Args:
        ratio: of unpacked over packed size, beyond which a single file of a zip is refused.
    """
    if is_zip(path):
        with zipfile.ZipFile(path) as archive:
            entries = {_inner_name(_decoded(entry)[0], path): entry for entry in archive.infolist()}
            for row, name in enumerate(names):
                entry = entries[name]
                if entry.compress_type not in BOUNDED:
                    raise NotImplementedError("That compression method is not supported")
                if entry.file_size > max(2**20, ratio * entry.compress_size):
                    raise DataError(f"{path}: {name} claims {entry.file_size:,} bytes, more than pictures pack into")
                yield row, partial(archive.open, entry)
        return
    rows = {name: row for row, name in enumerate(names)}
    with _opened_tar(path) as (tar, stream):
        for member in _members(tar, stream, path):
            row = rows.get(_inner_name(member.name, path), -1) if member.isfile() else -1
            if row >= 0:
                yield row, partial(tarfile.ExFileObject, tar, member)


class _Bounded:
    """A stream that refuses to be read in pieces larger than a picture's file, as a damaged tar header may ask for.

    Attributes:
        last: what was read last.
        header_bytes: that the header which is being read may still take; None while a member's data are read.
    """

    def __init__(self, stream: IO[bytes]) -> None:
        self.stream, self.last = stream, b""
        self.header_bytes: int | None = _HEADER_BYTES  # the first is read where a tar is opened
        self.seek, self.tell = stream.seek, stream.tell

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= MAX_MEMBER_BYTES + 1:
            raise tarfile.ReadError(f"an entry claims {size:,} bytes")
        if self.header_bytes is not None:
            self.header_bytes -= size
            if self.header_bytes < 0:
                raise tarfile.ReadError("a header claims to be longer than any")
        self.last = self.stream.read(size)
        return self.last


@contextmanager
def _opened_tar(path: Path) -> Iterator[tuple[tarfile.TarFile, _Bounded]]:
    """Open a tar file, packed or not: its first bytes say which."""
    with path.open("rb") as raw:
        head = raw.read(6)
    opener = next((opener for magic, opener in _OPENERS.items() if head.startswith(magic)), open)
    with opener(path, "rb") as stream:
        bounded = _Bounded(stream)
        with tarfile.open(fileobj=bounded, mode="r:") as tar:  # type: ignore[call-overload]
            yield tar, bounded


def _members(tar: tarfile.TarFile, stream: _Bounded, path: Path) -> Iterator[tarfile.TarInfo]:
    """Yield the entries of a tar file; a header that points backwards or claims too much is damage."""
    last, count = -1, 0
    while True:
        stream.header_bytes = _HEADER_BYTES
        member = tar.next()
        stream.header_bytes = None
        if member is None:
            return
        count += 1
        if member.offset <= last or member.size < 0:
            raise tarfile.ReadError(f"entry {count:,} points backwards")
        _refuse_bomb(path, member.offset_data + (member.size if member.isfile() else 0), count)
        last = member.offset
        yield member
        tar.members = []  # type: ignore[attr-defined]  # else all of them stay in memory


def _tar_entries(path: Path) -> Iterator[tuple[str, bool]]:
    """Yield each entry's name and whether it is a file, and see that the archive is whole up to its last byte."""
    with _opened_tar(path) as (tar, stream):
        count = 0
        for member in _members(tar, stream, path):
            count += 1
            if not member.isdir():
                yield _inner_name(member.name, path), member.isfile()
        if len(stream.last) < tarfile.BLOCKSIZE or any(stream.last):  # no end-of-archive marker
            raise DataError(f"{path} is cut off or damaged after {count:,} entries; fetch or pack it again")
        rest = 0
        while chunk := stream.read(2**20):  # to its end, where packed ones have a check sum
            rest += len(chunk)
            if any(chunk) or rest > _FREE_BYTES:
                raise DataError(f"{path} goes on after its end; unpack it (tar --ignore-zeros) and give the folder")
