"""Data sets sent by a browser. Nothing of what a sender says becomes a path: files and folders get safe names."""

import asyncio
import hashlib
import re
import secrets
import shutil
import unicodedata
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from starlette.requests import Request

from gansmith.config import ARCHIVES, ARRAY_FILES
from gansmith.errors import DataError, NotFoundError
from gansmith.files import folder_name, put, read_json, write_json
from gansmith.web.guard import MAX_UPLOAD_BYTES, TooLarge
from gansmith.web.jobs import FOLDER
from gansmith.web.records import DATA_SETS

MAX_FILES = 200_000  # of one upload
MAX_DEPTH = 4  # folders around a picture that are kept, innermost first
MAX_UPLOADS = 32  # kept; the oldest go first
PICTURES = (".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".bmp", ".gif", ".tif", ".tiff")
PACKED = (*ARCHIVES, *ARRAY_FILES)
USED = ".used"  # marks an upload that a training reads
_ID = re.compile(r"[0-9a-f]{16}")
_SPARE_BYTES = 2**28  # left free on the disk


def folder_of(root: Path, upload_id: str) -> Path:
    """Return the folder of an upload; NotFoundError where there is none."""
    path = root / FOLDER / "uploads" / upload_id
    if not _ID.fullmatch(upload_id) or not (path / "upload.json").is_file():
        raise NotFoundError(f"there is no upload {upload_id[:32]!r}; send the pictures again")
    return path


def data_choice(root: Path, data: str, data_dir: str) -> str:
    """Return what a form takes for the data of a run: upload:ID or a name; empty where they must be chosen again.

    Args:
        data, data_dir: the run's choices.
    """
    folder = root / FOLDER / "uploads"
    if not data_dir:
        return data if data in DATA_SETS else ""
    if not Path(data_dir).is_relative_to(folder):
        return ""
    upload_id = Path(data_dir).relative_to(folder).parts[0]
    try:
        folder_of(root, upload_id)
    except NotFoundError:  # it was deleted
        return ""
    return f"upload:{upload_id}"


def create(root: Path, name: str) -> dict[str, Any]:
    """Begin an upload and return its id, its name, the endings of files that it takes, and how large it may become."""
    folder = root / FOLDER / "uploads"
    folder.mkdir(parents=True, exist_ok=True)
    kept = sorted(
        (path for path in folder.iterdir() if _ID.fullmatch(path.name)), key=lambda path: path.stat().st_mtime
    )
    unused = [path for path in kept if not (path / USED).exists()]
    for path in unused[: max(0, len(unused) - MAX_UPLOADS + 1)]:
        shutil.rmtree(path, ignore_errors=True)
        _HELD.pop(path, None)
    upload_id = secrets.token_hex(8)
    (folder / upload_id).mkdir()
    name = _safe_name(PurePosixPath(name.replace("\\", "/")).name) or "images"
    write_json(folder / upload_id / "upload.json", {"name": name})
    return {"id": upload_id, "name": name, "pictures": PICTURES, "packed": PACKED, "max_bytes": MAX_UPLOAD_BYTES}


def data_path(root: Path, upload_id: str) -> Path:
    """Return what `--data` takes for an upload: its one archive or file, or its folder of pictures."""
    folder = folder_of(root, upload_id)
    found = _data_in(folder)
    if not found:
        raise DataError("nothing was uploaded yet; choose pictures, a folder, a .zip or a .npz")
    return found[0]


def _data_in(folder: Path) -> list[Path]:
    title = str(read_json(folder / "upload.json")["name"])
    return [path for ending in ("", *PACKED) if (path := folder / f"{title}{ending}").exists()]


async def receive(root: Path, upload_id: str, name: str, request: Request) -> dict[str, Any]:
    """Write the request's body as a file of an upload, and return its size."""
    folder = folder_of(root, upload_id)
    if folder not in _HELD:
        _HELD.setdefault(folder, await asyncio.to_thread(_held_in, folder))
    held = _HELD[folder]
    path = _place(folder, name, held)
    arriving = path.with_name(f".{path.name}")  # no part of the data until it is whole
    free = shutil.disk_usage(folder).free - _SPARE_BYTES
    size = 0
    file = arriving.open("xb")
    try:
        with file:
            async for chunk in request.stream():
                size += len(chunk)
                held.size += len(chunk)
                if held.size > MAX_UPLOAD_BYTES:
                    raise TooLarge(f"an upload may have {MAX_UPLOAD_BYTES:,} bytes at most")
                if size > free:
                    raise DataError("the disk is nearly full; free some space, then send the pictures again")
                file.write(chunk)
        await asyncio.to_thread(put, arriving, path)
    except BaseException:
        held.size -= size
        arriving.unlink(missing_ok=True)
        raise
    return {"bytes": size}


@dataclass
class _Held:
    """What an upload holds: its bytes, and how many files."""

    size: int
    number: int


_HELD: dict[Path, _Held] = {}  # by folder; counting again for every file would take long


def _held_in(folder: Path) -> _Held:
    files = [file for path in _data_in(folder) for file in (path.rglob("*") if path.is_dir() else (path,))]
    sizes = [file.stat().st_size for file in files if file.is_file()]
    return _Held(sum(sizes), len(sizes))


def _safe_name(text: str) -> str:
    """Return what is left of a name without its ending: letters, digits, dashes and underscores; perhaps nothing."""
    lower = text.lower()
    ending = next((end for end in PACKED if lower.endswith(end)), "")
    return re.sub(r"[^A-Za-z0-9_]+", "-", text[: len(text) - len(ending)]).strip("-")[:64]


def _own_name(text: str) -> str:
    """Return a folder's name as every file system can have it, another one for each text."""
    name = folder_name(text)
    if name == unicodedata.normalize("NFC", text):
        return name
    return f"{name or 'folder'}-{hashlib.sha256(text.encode('utf-8', 'replace')).hexdigest()[:8]}"


def _place(folder: Path, name: str, held: _Held) -> Path:
    """Return a new path for a file: archives and arrays by their ending, pictures numbered in their folders.

    The first of several parts of the name stands for the upload itself.
    """
    title = str(read_json(folder / "upload.json")["name"])
    parts = PurePosixPath(name.replace("\\", "/")).parts or ("",)
    lower = parts[-1].lower()
    ending = next((end for end in PACKED if lower.endswith(end)), None)
    if ending is not None:
        if _data_in(folder):
            raise DataError("an upload holds one archive or file, or pictures; begin another for this one")
        return folder / f"{title}{ending}"
    ending = PurePosixPath(lower).suffix
    if ending not in PICTURES:
        raise DataError(
            f"{parts[-1][:64]!r} is neither a picture nor an archive; send {', '.join(PICTURES[:3])}, .zip or .npz"
        )
    if held.number >= MAX_FILES:
        raise DataError(f"an upload may hold {MAX_FILES:,} pictures; pack them into a .zip")
    place = Path(folder / title, *(_own_name(part) for part in parts[1:-1][-MAX_DEPTH:]))
    place.mkdir(parents=True, exist_ok=True)
    held.number += 1
    path = place / f"{_own_name(PurePosixPath(parts[-1]).stem)}{ending}"
    return path.with_stem(f"{path.stem}-{held.number - 1:06d}") if path.exists() else path
