"""Pictures in folders and archives: what is there, which classes and splits its folders name, and reading it.

A source is a folder, a .zip or a .tar[.gz|.bz2|.xz], read in place: nothing is unpacked to disk. Hidden files, what
operating systems and notebooks leave behind, and empty folders are passed over.
"""

import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path, PurePosixPath

from gansmith.config import ARCHIVES
from gansmith.data import cache
from gansmith.data.archives import MAX_MEMBER_BYTES, list_archive, read_archive
from gansmith.data.images import MAX_IMAGES
from gansmith.data.parquet import read_rows
from gansmith.data.prepare import Look, decode, look_at
from gansmith.errors import DataError, NotFoundError

ENDINGS = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff")
LOOKS = 256  # pictures that are looked at before preparation
MAX_BROKEN_SHARE = 0.1
TRAIN_WORDS, TEST_WORDS = (
    {"train", "training", "trainset"},
    {"test", "testing", "testset", "val", "valid", "validation"},
)
_LONG_TAR_BYTES = 2**22  # whose list of names is kept
_JUNK = re.compile(r"(^|/)(\.|__MACOSX(/|$)|Thumbs\.db$|desktop\.ini$|@eaDir(/|$))", re.IGNORECASE)


@dataclass(frozen=True)
class Part:
    """The pictures of one split, in their stored order.

    Attributes:
        names: paths inside the source.
        labels: one for each picture; empty where there are no classes.
    """

    names: tuple[str, ...]
    labels: tuple[int, ...] = ()


@dataclass(frozen=True)
class PictureSource:
    """What a folder or an archive of pictures holds.

    Attributes:
        path: of the folder or archive.
        layout: in words, such as "class folders" or "class folders in train and test".
        parts: by "train" and, where there is one, "test".
        class_names: of the labels, by number; empty where there are no classes.
        notices: what is odd about it, a sentence each.
    """

    path: Path
    layout: str
    parts: dict[str, Part]
    class_names: tuple[str, ...]
    notices: tuple[str, ...] = field(default=())


def is_archive(path: Path) -> bool:
    """Whether a file's name is that of an archive of pictures."""
    return path.name.lower().endswith(ARCHIVES)


def find_pictures(path: Path) -> PictureSource:
    """Return what a folder or archive holds.

    Raises NotFoundError where it holds no picture, DataError where it is damaged or its layout is unclear.
    """
    if not path.exists():
        raise NotFoundError(f"there is no file or folder {str(path)!r}; give a folder or an archive of pictures")
    listed, odd = (list(_list_folder(path)), []) if path.is_dir() else _list_archive(path)
    names = sorted({name for name in listed if not _JUNK.search(name)})  # archives may hold a name twice
    pictures = [name for name in names if name.lower().endswith(ENDINGS)]
    if not pictures:
        kinds = Counter(_readable(PurePosixPath(name).suffix.lower()[:12]) or "(none)" for name in names)
        found = ", ".join(f"{count} {kind}" for kind, count in kinds.most_common(4)) or "nothing"
        also = "".join(f"; {sentence}" for sentence in odd)
        raise NotFoundError(
            f"{path} holds no images ({found}); give {', '.join(ENDINGS)} pictures, or files of arrays{also}"
        )
    if len(pictures) > MAX_IMAGES:
        raise DataError(f"{path} holds {len(pictures):,} pictures; up to {MAX_IMAGES:,} can be read, take fewer")
    source = _arrange(path, pictures)
    return replace(source, notices=(*odd, *source.notices))


def _list_folder(path: Path) -> Iterator[str]:
    """Yield the names of all files inside, with forward slashes; not what operating systems hide."""
    root, folders = path.resolve(), [""]
    while folders:
        inner = folders.pop()
        with os.scandir(path / inner) as entries:
            for entry in entries:
                if _JUNK.search(entry.name):
                    continue
                file = Path(entry.path)
                if entry.is_symlink() and (file.is_dir() or not file.resolve().is_relative_to(root)):
                    raise DataError(f"{file} is a link out of {path} or to a folder; put the pictures themselves there")
                if entry.is_dir():
                    folders.append(f"{inner}{entry.name}/")
                elif entry.is_file():
                    yield inner + entry.name


def _list_archive(path: Path) -> tuple[list[str], list[str]]:
    """Return the names in an archive and what is odd about it; those of a long tar, which has no table, are kept."""
    if path.name.lower().endswith(".zip") or path.stat().st_size < _LONG_TAR_BYTES:
        found = _read_list(path)
    else:
        asked = {"source": str(path.resolve()), "part": "", "asked": "names", "content": cache.content_of(path)}
        found = cache.remember(asked, partial(_read_list, path))
    return found["names"], found["odd"]


def _read_list(path: Path) -> dict[str, list[str]]:
    names, odd = list_archive(path)
    return {"names": list(names), "odd": list(odd)}


def _arrange(path: Path, names: Sequence[str]) -> PictureSource:
    """Return the splits and classes that the folders of these pictures name."""
    inner = _without_common_folders(names)
    tops = {name.split("/", 1)[0].lower() for name in inner if "/" in name}
    flat = [name for name in inner if "/" not in name]
    if tops and tops <= TRAIN_WORDS | TEST_WORDS and tops & TRAIN_WORDS and len(flat) <= MAX_BROKEN_SHARE * len(names):
        rows = [k for k, name in enumerate(inner) if "/" in name]
        source = _arrange_splits(path, [names[k] for k in rows], [inner[k] for k in rows])
        if not flat:
            return source
        return replace(source, notices=(*source.notices, f"{len(flat):,} pictures beside its folders were left out"))
    part, class_names, notices = _arrange_classes(path, names, inner)
    layout = "class folders" if class_names else "pictures without class folders"
    return PictureSource(path, layout, {"train": part}, class_names, notices)


def _without_common_folders(names: Sequence[str]) -> list[str]:
    """Return the names without the folders that all of them share."""
    paths = [_parts_of(name) for name in names]
    depth = 0
    while all(len(parts) > depth + 1 for parts in paths) and len({parts[depth] for parts in paths}) == 1:
        if paths[0][depth].lower() in TRAIN_WORDS | TEST_WORDS:  # a split of its own
            depth += 1
            break
        depth += 1
    return ["/".join(parts[depth:]) for parts in paths]


def _parts_of(name: str) -> list[str]:
    return [part for part in name.split("/") if part not in ("", ".")]


def _arrange_splits(path: Path, names: Sequence[str], inner: Sequence[str]) -> PictureSource:
    """Return a source whose outermost folders are splits."""
    by_split: dict[str, list[int]] = {"train": [], "test": []}
    for k, name in enumerate(inner):
        top = name.split("/", 1)[0].lower()
        by_split["train" if top in TRAIN_WORDS else "test"].append(k)
    stripped = [name.split("/", 1)[1] for name in inner]
    whole, class_names, notices = _arrange_classes(path, names, stripped)
    places = {name: k for k, name in enumerate(whole.names)}
    parts = {}
    for split, rows in by_split.items():
        kept = sorted(places[names[row]] for row in rows if names[row] in places)
        labels = tuple(whole.labels[k] for k in kept) if whole.labels else ()
        if kept:
            parts[split] = Part(tuple(whole.names[k] for k in kept), labels)
    tops = " and ".join(dict.fromkeys(name.split("/", 1)[0] for name in inner))
    layout = f"{'class folders' if class_names else 'pictures'} in {tops}"
    return PictureSource(path, layout, parts, class_names, notices)


def _arrange_classes(
    path: Path, names: Sequence[str], inner: Sequence[str]
) -> tuple[Part, tuple[str, ...], tuple[str, ...]]:
    """Return the pictures in order with the labels of their class folders, the classes' names, and what is odd."""
    folders = [name.split("/", 1)[0] if "/" in name else "" for name in inner]
    loose = folders.count("")
    classes = sorted({folder for folder in folders if folder}, key=_natural)
    if len(classes) < 2:
        return Part(tuple(names)), (), ()
    notices = []
    if loose > MAX_BROKEN_SHARE * len(names):
        raise DataError(
            f"{path}: {loose:,} of {len(names):,} pictures lie beside the class folders {', '.join(classes[:4])}; put "
            "each into a class folder, or all into one folder"
        )
    if loose:
        notices.append(f"{loose:,} pictures beside the class folders were left out")
    if all(folder.isdecimal() and len(folder) < 6 for folder in classes):
        labels = {folder: int(folder) for folder in classes}
    else:
        labels = {folder: k for k, folder in enumerate(classes)}
    numbered = {number: folder for folder, number in labels.items()}
    class_names = tuple(_readable(numbered.get(number, str(number))) for number in range(max(numbered) + 1))
    rows = [k for k, folder in enumerate(folders) if folder]
    rows.sort(key=lambda k: labels[folders[k]])
    return Part(tuple(names[k] for k in rows), tuple(labels[folders[k]] for k in rows)), class_names, tuple(notices)


def _readable(name: str) -> str:
    """Return a name as text in one line, also where its bytes were no UTF-8."""
    try:
        name.encode()
    except UnicodeEncodeError:
        name = name.encode("utf-8", "surrogateescape").decode("latin-1")
    return re.sub(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]", "?", name)


def _natural(name: str) -> list[tuple[int, int, str]]:
    """Return a sort key under which 2 comes before 10."""
    words = [word for word in re.split(r"(\d+)", name) if word]
    return [(0, int(word), "") if word.isdecimal() and len(word) < 20 else (1, 0, word) for word in words]


def read_file(path: Path | str) -> bytes:
    """Return a picture's file; cut off where it is larger than any."""
    with open(path, "rb") as file:
        is_sound = os.fstat(file.fileno()).st_size <= MAX_MEMBER_BYTES
        return file.read() if is_sound else file.read(MAX_MEMBER_BYTES + 1)


def read_files(path: Path, names: Sequence[str]) -> Iterator[tuple[int, bytes]]:
    """Yield the row and the bytes of these files, in the order that the source reads fastest."""
    if holds_rows(names):
        yield from _read_tables(path if path.is_dir() else path.parent, names)
    elif path.is_dir():
        for row, name in enumerate(names):
            yield row, read_file(path / name)
    else:
        yield from read_archive(path, names)


def holds_rows(names: Sequence[str]) -> bool:
    """Return whether these are names of rows of parquet files, FILE#ROW, rather than of files."""
    return bool(names) and names[0].rpartition("#")[0].lower().endswith(".parquet")


def _read_tables(root: Path, names: Sequence[str]) -> Iterator[tuple[int, bytes]]:
    """Yield what rows of parquet files hold, called FILE#ROW."""
    places: dict[str, dict[int, int]] = {}
    for place, name in enumerate(names):
        file, _, row = name.rpartition("#")
        places.setdefault(file, {})[int(row)] = place
    for file, own in places.items():
        for found, data in read_rows(root / file, list(own)):
            yield own[found], data[: MAX_MEMBER_BYTES + 1]


def look_around(source: PictureSource, part: str = "train") -> list[Look]:
    """Return a look at some pictures of a part, spread over it; unreadable ones are left out.

    Raises DataError where none can be read.
    """
    names = source.parts[part].names
    some = names[:: max(1, len(names) // LOOKS)][:LOOKS]
    looks, reason = [], "it is empty"
    for _, data in read_files(source.path, some):
        try:
            looks.append(look_at(decode(data)))
        except DataError as error:
            reason = str(error)
    if not looks:
        raise DataError(f"no picture in {source.path} can be read ({reason}); give others")
    return looks


def on_broken(source: object, names: Sequence[str], broken: dict[int, str], *, strict: bool) -> list[str]:
    """Return a sentence that counts and lists the pictures that cannot be read, by row; none where all can.

    Raises DataError for more than one in ten, or any where `strict`.
    """
    if not broken:
        return []
    shown = "; ".join(f"{_readable(names[row])} ({why})" for row, why in sorted(broken.items())[:5])
    more = f"; and {len(broken) - 5:,} more" if len(broken) > 5 else ""
    sentence = f"{len(broken):,} of {len(names):,} pictures cannot be read: {shown}{more}"
    if strict or len(broken) > MAX_BROKEN_SHARE * len(names):
        raise DataError(f"{source}: {sentence}; repair or remove them")
    return [f"{sentence}; they were left out"]
