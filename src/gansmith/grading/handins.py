"""Hand-ins on disk: finding them in a folder, and copying one to where it will run. None of their code runs here."""

import os
import shutil
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path

from gansmith.config import ARCHIVES
from gansmith.data.archives import list_archive, read_archive
from gansmith.errors import DataError, NotFoundError
from gansmith.files import file_sha256
from gansmith.grading.sandbox import MAX_FILES

IGNORED = ("__MACOSX", "__pycache__", ".git", ".ipynb_checkpoints", ".DS_Store", "Thumbs.db", "desktop.ini")
# Files that two students cannot have written alike by chance; code and data of the course are not among them.
OWN_WORK = (
    "*.h5", "*.hdf5", "*.keras", "*.onnx", "*.safetensors", "generator*.npz", "*.pt", "*.pth", "*.pdf", "*.docx",
    "grid*.png", "loss*.png", "*.gif",
)  # fmt: skip
SMALLEST_BYTES = 500


def find_handins(folder: Path) -> dict[str, Path]:
    """Return the hand-ins in a folder by the student's name, sorted: sub-folders, and archives less their suffix.

    Raises NotFoundError where there are none.
    """
    found = {}
    for path in sorted(folder.iterdir()) if folder.is_dir() else []:
        if path.name.startswith(".") or path.name in IGNORED:
            continue
        suffix = next((suffix for suffix in ARCHIVES if path.name.lower().endswith(suffix)), "")
        name, whole = (_as_text(text) for text in (path.name[: len(path.name) - len(suffix)], path.name))
        if path.is_dir() or suffix or path.is_file():
            names = (name, whole, *(f"{whole} {k}" for k in range(2, MAX_FILES)))
            found[next(one for one in names if one not in found)] = path
    if not found:
        raise NotFoundError(f"there are no hand-ins in {str(folder)!r}; give a folder with one folder or .zip for each")
    return found


def copy_handin(source: Path, target: Path, *, max_bytes: int) -> list[str]:
    """Copy the regular files of a hand-in, a folder or an archive; links and devices are left out.

    Where all lies in one folder, or in one archive in a folder, its contents are taken for the hand-in.

    Returns:
        a sentence for each thing that was left out.

    Raises DataError for what is no hand-in, is damaged, leads out of its folder, or is too large.
    """
    target.mkdir(parents=True)
    files = list(_files_in(source)) if source.is_dir() else []
    if len(files) == 1 and files[0].name.lower().endswith(ARCHIVES):  # as learning platforms pack them
        source = files[0]
    if source.is_dir():
        notes = []
        _write(((path.relative_to(source).as_posix(), path) for path in files), target, max_bytes)
    elif source.name.lower().endswith(ARCHIVES):
        names, odd = list_archive(source)
        names = [name for name in names if not _is_ignored(Path(name))]
        if len(names) > MAX_FILES:
            raise DataError(f"it holds more than {MAX_FILES:,} files")
        notes = list(odd)
        _write(((names[row], data) for row, data in read_archive(source, names, limit=max_bytes)), target, max_bytes)
    else:
        raise DataError("it is neither a folder nor an archive such as .zip")
    while len(inner := list(target.iterdir())) == 1 and inner[0].is_dir():
        aside = inner[0].rename(target.with_name(f"{target.name}.inner"))
        target.rmdir()
        aside.rename(target)
    return notes


def _is_ignored(path: Path) -> bool:
    return any(part in IGNORED or part.startswith("._") for part in path.parts)


def _as_text(name: str) -> str:
    """Return a file's name as text, also where its bytes are no UTF-8."""
    return os.fsencode(name).decode("utf-8", "replace")


def _files_in(folder: Path) -> Iterator[Path]:
    for root, folders, names in os.walk(folder):  # follows no links
        folders[:] = [name for name in folders if name not in IGNORED]
        for name in names:
            path = Path(root) / name
            if not _is_ignored(Path(name)) and path.is_file() and not path.is_symlink():
                yield path


def _write(files: Iterator[tuple[str, Path | bytes]], target: Path, max_bytes: int) -> None:
    """Write files by their names relative to the target; DataError where they are too many or too large."""
    left, count = max_bytes, 0
    for name, content in files:
        left -= len(content) if isinstance(content, bytes) else content.stat().st_size
        count += 1
        if left < 0 or count > MAX_FILES:
            raise DataError(f"it is larger than {max_bytes >> 20:,} MB, or has more than {MAX_FILES:,} files")
        path = target / name
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            if isinstance(content, bytes):
                path.write_bytes(content)
            else:
                shutil.copyfile(content, path, follow_symlinks=False)
        except OSError as error:
            raise DataError(f"its file {name[:80]!r} cannot be copied ({error.strerror})") from None


def missing_files(folder: Path, wanted: dict[str, str]) -> list[str]:
    """Return what of (what -> patterns) is not among the files of a hand-in."""
    names = [path.name for path in folder.iterdir() if path.is_file()]
    return [
        what
        for what, patterns in wanted.items()
        if not any(fnmatch(name, pattern) for name in names for pattern in patterns.split())
    ]


def own_work(folder: Path) -> dict[str, str]:
    """Return the SHA-256 -> name of each file of a hand-in that two students cannot have made alike by chance."""
    return {
        file_sha256(path): _as_text(path.name)
        for path in folder.iterdir()
        if path.is_file() and path.stat().st_size >= SMALLEST_BYTES and any(map(path.match, OWN_WORK))
    }
