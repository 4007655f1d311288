"""Hand-ins on disk: finding them in a folder, and copying one to where it will run. None of their code runs here."""

import os
import shutil
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from itertools import chain, count
from pathlib import Path

from gansmith.config import ARCHIVES
from gansmith.data.archives import list_archive, read_archive
from gansmith.errors import DataError, NotFoundError
from gansmith.files import file_sha256
from gansmith.grading.sandbox import MAX_FILES
from gansmith.grading.settings import STUDENTS
from gansmith.grading.worker import GENERATOR_FILES, SCRIPT

GRID = "grid.png"
WORK = (SCRIPT, *GENERATOR_FILES)  # one of them at least lies at the top of a hand-in
# Names that are looked for: a hand-in may write them in upper case.
NAMES = (*WORK, "generator.hdf5", "generator.weights.h5", "generator_weights.h5", GRID)
MAX_DEPTH = 20  # of folders and archives one inside the other
MAX_FOLDERS = 100  # one inside the other, around a file
IGNORED = ("__MACOSX", "__pycache__", ".git", ".ipynb_checkpoints", ".DS_Store", "Thumbs.db", "desktop.ini")
# Files that two students cannot have written alike by chance; code, data and sheets of the course are not among them.
OWN_WORK = (
    "*.h5", "*.hdf5", "*.keras", "*.onnx", "*.safetensors", "generator*.npz", "*.pt", "*.pth", "report*.pdf",
    "report*.docx", "grid*.png", "loss*.png", "loss*.pdf", "film*.gif", "training*.gif",
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
        name, whole = _as_text(_stem(path)), _as_text(path.name)
        if path.is_dir() or path.is_file() or name != whole:
            names = chain((name, whole), (f"{whole} {k}" for k in count(2)))
            found[next(one for one in names if one not in found)] = path
    if not found:
        raise NotFoundError(f"there are no hand-ins in {str(folder)!r}; give a folder with one folder or .zip for each")
    return found


@dataclass
class _Room:
    """How many bytes and files of a hand-in may still be written."""

    max_bytes: int
    left_bytes: int
    left_files: int = MAX_FILES

    def take(self, size: int) -> None:
        """Count a file; DataError where it is one too many or too large."""
        self.left_bytes -= size
        self.left_files -= 1
        if self.left_bytes < 0 or self.left_files < 0:
            raise DataError(f"it is larger than {self.max_bytes >> 20:,} MB, or has more than {MAX_FILES:,} files")


def copy_handin(source: Path, target: Path, *, max_bytes: int) -> list[str]:
    """Copy the regular files of a hand-in, a folder or an archive; links and devices are left out.

    Where all lies in one folder or archive, its contents are taken for the hand-in. Where neither evaluation.py nor a
    generator file lies at the top, the contents of the one folder or archive inside that has some come there, too.
    Files that the grader looks for are there by their names in lower case.

    Returns:
        a sentence for each thing that was left out or taken from inside.

    Raises DataError for what is no hand-in, is damaged, leads out of its folder, or is too large.
    """
    room, notes = _Room(max_bytes, max_bytes), list[str]()
    target.mkdir(parents=True)
    if source.is_dir():
        _write(((path.relative_to(source).as_posix(), path) for path in _files_in(source)), target, room)
        links = sorted(path.name for path in source.rglob("*") if path.is_symlink())
        notes += [f"links were left out: {', '.join(map(_as_text, links[:4]))}; hand in the files"] if links else []
    elif _is_archive(source):
        notes += _unpack(source, target, room)
    else:
        raise DataError("it is neither a folder nor an archive such as .zip")
    for _ in range(MAX_DEPTH):
        if not _open_inner(target, room, notes):
            break
    for path in sorted(target.iterdir()):
        name = path.name.lower()
        if name in NAMES and path.is_file() and not (target / name).exists():
            room.take(path.stat().st_size)
            shutil.copyfile(path, target / name)  # not renamed: a script may read its weights by the name they had
    return list(dict.fromkeys(notes))


def _open_inner(target: Path, room: _Room, notes: list[str]) -> bool:
    """Bring the files of a hand-in one folder or archive nearer to the top; return whether there was anything to do."""
    inner = list(target.iterdir())
    if len(inner) != 1 or not (inner[0].is_dir() or _is_archive(inner[0])):
        if any(path.name.lower() in WORK for path in inner if path.is_file()):
            return False
        inner = _places_of_work(target, notes)
        names = ", ".join(_as_text(path.relative_to(target).as_posix()) for path in inner)
        if len(inner) > 1:
            notes.append(f"{SCRIPT} or a generator lies in each of {names}; none of them was taken")
        if len(inner) != 1:
            return False
        if inner[0].is_dir():
            notes.append(f"{SCRIPT} or the generator lies in {names}, and was taken from there")
    if inner[0].is_dir():
        _lift(inner[0], target)
    else:
        notes += _unpack_in_place(inner[0], room)
    return True


def _places_of_work(target: Path, notes: list[str]) -> list[Path]:
    """Return the folders in the target that have evaluation.py or a generator file; where none has, such archives.

    Where none of the archives has, either, the one that holds other archives is returned.
    """
    folders = [path for path in sorted(target.iterdir()) if path.is_dir()]
    found = [folder for folder in folders if any(map(_is_work, folder.rglob("*")))]
    if found:
        return found
    listed: dict[Path, list[str]] = {}
    for archive in filter(_is_archive, sorted(target.rglob("*"))):
        try:
            listed[archive] = [name for name in list_archive(archive)[0] if not _is_ignored(Path(name))]
        except DataError as error:
            notes.append(str(error).replace(str(archive), _as_text(archive.name)))
    with_work = [path for path, names in listed.items() if any(Path(name).name.lower() in WORK for name in names)]
    nested = [path for path, names in listed.items() if any(name.lower().endswith(ARCHIVES) for name in names)]
    return with_work or (nested if len(nested) == 1 else [])


def _lift(folder: Path, target: Path) -> None:
    """Move the contents of a folder up into the target that it lies in, but for names that are taken there."""
    aside = folder.rename(target.with_name(f"{target.name}.inner"))
    taken = {path.name.lower() for path in target.iterdir()}
    for path in list(aside.iterdir()):
        if path.name.lower() not in taken:
            path.rename(target / path.name)
    if any(aside.iterdir()):
        aside.rename(_unused(target / folder.name))
    else:
        aside.rmdir()


def _unpack_in_place(archive: Path, room: _Room) -> list[str]:
    """Replace an archive by a folder of its contents; returns what `_unpack` does."""
    folder = _unused(archive.with_name(_stem(archive) or "archive"))
    folder.mkdir()
    room.left_bytes += archive.stat().st_size
    notes = _unpack(archive, folder, room)
    archive.unlink()
    return notes


def _unpack(archive: Path, target: Path, room: _Room) -> list[str]:
    """Write the files of an archive into a folder; returns a sentence on links that were left out."""
    names, odd = list_archive(archive, reads_nested=True)
    names = [name for name in names if not _is_ignored(Path(name))]
    if len(names) > room.left_files:
        raise DataError(f"it holds more than {MAX_FILES:,} files")
    _write(((names[row], data) for row, data in read_archive(archive, names, limit=room.left_bytes)), target, room)
    return list(odd)


def _unused(path: Path) -> Path:
    """Return a path, or it with a number, where nothing is."""
    numbered = (path.with_name(f"{path.name} {k}") for k in count(2))
    return path if not path.exists() else next(one for one in numbered if not one.exists())


def _stem(path: Path) -> str:
    """Return the name of a file or folder, without the suffix of an archive."""
    suffix = next((suffix for suffix in ARCHIVES if path.name.lower().endswith(suffix)), "")
    return path.name[: len(path.name) - len(suffix)]


def _is_archive(path: Path) -> bool:
    return path.is_file() and path.name.lower().endswith(ARCHIVES)


def _is_work(path: Path) -> bool:
    return path.is_file() and path.name.lower() in WORK


def _is_ignored(path: Path) -> bool:
    return any(part in IGNORED or part.startswith("._") for part in path.parts)


def _as_text(name: str) -> str:
    """Return a file's name as text in one line, also where its bytes are no UTF-8."""
    text = os.fsencode(name).decode("utf-8", "replace")
    return "".join(letter if letter.isprintable() else "?" for letter in text)


def _files_in(folder: Path) -> Iterator[Path]:
    for root, folders, names in os.walk(folder):  # follows no links
        folders[:] = [name for name in folders if name not in IGNORED]
        for name in names:
            path = Path(root) / name
            if not _is_ignored(Path(name)) and path.is_file() and not path.is_symlink():
                yield path


def _write(files: Iterable[tuple[str, Path | bytes]], target: Path, room: _Room) -> None:
    """Write files by their names relative to the target; DataError where they are too many or too large."""
    for name, content in files:
        room.take(len(content) if isinstance(content, bytes) else content.stat().st_size)
        if name.count("/") > MAX_FOLDERS:
            raise DataError(f"its file {name[:80]!r} lies in more than {MAX_FOLDERS} folders")
        path = target / name
        if not path.resolve().is_relative_to(target.resolve()):
            raise DataError(f"its file {name[:80]!r} leads out of it")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            if isinstance(content, bytes):
                path.write_bytes(content)
            else:
                shutil.copyfile(content, path, follow_symlinks=False)
        except OSError as error:
            raise DataError(f"its file {name[:80]!r} cannot be copied ({error.strerror})") from None


def missing_files(folder: Path, wanted: dict[str, str], *, has_generator: bool) -> list[str]:
    """Return what of (what -> patterns) is not among the files of a hand-in, in upper or lower case.

    Args:
        has_generator: images could be drawn, so that no generator file is missing: code may keep its weights anywhere.
    """
    names = [path.name.lower() for path in folder.iterdir() if path.is_file()]
    names += GENERATOR_FILES if has_generator else ()
    return [
        what
        for what, patterns in wanted.items()
        if not any(fnmatchcase(name, pattern.lower()) for name in names for pattern in patterns.split())
    ]


def own_work(folder: Path, given: Collection[str] = ()) -> dict[str, str]:
    """Return the SHA-256 -> name of each file of a hand-in that two students cannot have made alike by chance.

    Args:
        given: SHA-256 of files that the course gave out.
    """
    found = {file_sha256(path): _as_text(path.name) for path in folder.iterdir() if _is_own_work(path)}
    return {digest: name for digest, name in found.items() if digest not in given}


def given_out(handins: Path) -> frozenset[str]:
    """Return the SHA-256 of what the course gave out: the folder `for-students` beside that of the hand-ins."""
    return frozenset(map(file_sha256, filter(_is_own_work, (handins.parent / STUDENTS).rglob("*"))))


def _is_own_work(path: Path) -> bool:
    name = path.name.lower()
    is_one = any(fnmatchcase(name, pattern) for pattern in OWN_WORK)
    return is_one and path.is_file() and path.stat().st_size >= SMALLEST_BYTES
