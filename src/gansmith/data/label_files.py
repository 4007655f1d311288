"""Files beside pictures that give each its label, as Hugging Face's `metadata.csv` does.

Read are `metadata.csv` and `.jsonl`, `labels.csv`, `.json` and `.txt`, StyleGAN's `dataset.json`, in any folder, and
where there are none of these other tables, such as Kaggle's `train.csv`. They name pictures by paths from the folder
that they lie in, with their endings or without.
"""

import csv
import io
import json
import posixpath
import re
import unicodedata
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import chain, islice
from typing import Any

from gansmith.data.images import MAX_IMAGES
from gansmith.data.labels import PART_COLUMNS
from gansmith.errors import DataError, reason_of
from gansmith.files import encoding_of

NAMES = ("metadata.csv", "metadata.jsonl", "labels.csv", "labels.json", "labels.txt", "dataset.json")
LABEL_KEYS = ("label", "labels", "fine_label", "class", "class_name", "target", "y", "digit", "category", "species")
_LOOKS = 100  # rows by which the column of file names is known
_FILE_KEYS = ("file_name", "filename", "file", "image", "path", "image_path", "img", "id", "image_id", "image_name")


def is_label_file(path: str) -> bool:
    """Return whether a file may give the labels of pictures, by its name."""
    name = posixpath.basename(path).lower()
    return name in NAMES or (name.endswith((".csv", ".tsv")) and not re.search(r"submission|test", name))


def likeliest(paths: Sequence[str]) -> list[str]:
    """Return the files that are called as those of labels are; all where none is."""
    return [path for path in paths if posixpath.basename(path).lower() in NAMES] or list(paths)


def read_label_files(files: Mapping[str, bytes], pictures: Sequence[str], endings: tuple[str, ...]) -> dict[str, str]:
    """Return the label of each picture that these files name, by its path; files in another form give none.

    Args:
        files: their contents, by their paths.
        pictures: paths of those that are there.
        endings: of the names of pictures.

    Raises DataError where a picture has several labels, and for a file that cannot be read.
    """
    found: dict[str, str] = {}
    stems = {_stem(name, endings) for name in pictures}
    for path, content in files.items():
        try:
            rows = _read(path.lower(), _decoded(content), endings, stems)
        except (ValueError, TypeError, AttributeError, LookupError, RecursionError, csv.Error) as error:
            raise DataError(f"{path} cannot be read ({reason_of(error)})") from None
        folder = posixpath.dirname(path)
        for file, label in rows:
            name = posixpath.normpath(posixpath.join(folder, file.strip().replace("\\", "/")))
            if found.setdefault(name, label) != label:
                both = f"{found[name][:64]!r} and {label[:64]!r}"
                raise DataError(f"{path} gives {file.strip()[:64]!r} the labels {both}")
    return found


def _decoded(content: bytes) -> str:
    """Return a file's text, of UTF-8, of UTF-16 with its mark, or as older programs of Windows write it."""
    encoding = encoding_of(content)
    try:
        return content.decode(encoding)
    except UnicodeDecodeError:
        if encoding == "utf-16":
            raise
        return content.decode("cp1252")


def labels_by_name(names: Sequence[str], found: Mapping[str, str], endings: tuple[str, ...]) -> dict[str, str]:
    """Return labels by path, and of pictures that a file names without folder or ending, or in another case.

    >>> labels_by_name(["images/A.png", "images/b.png"], {"a.png": "cat", "b": "dog"}, (".png",))
    {'images/A.png': 'cat', 'images/b.png': 'dog'}
    """
    if all(name in found for name in names):
        return dict(found)
    named = [(_stem(path, endings), label) for path, label in found.items()]
    own = [_stem(name, endings) for name in names]
    ends, times = dict(named), Counter(stem for stem, _ in named) + Counter(own)  # 1 and 1: it tells which is meant
    by_stem = {name: ends[end] for name, end in zip(names, own, strict=True) if end in ends and times[end] == 2}
    return {**by_stem, **{name: found[name] for name in names if name in found}} or dict(found)


def _stem(path: str, endings: tuple[str, ...]) -> str:
    """Return the name of a picture in lower case, without its folder and its ending."""
    name = unicodedata.normalize("NFC", posixpath.basename(path.strip().replace("\\", "/"))).lower()
    return next((name.removesuffix(ending) for ending in endings if name.endswith(ending)), name)


def _read(path: str, text: str, endings: tuple[str, ...], stems: Collection[str]) -> list[tuple[str, str]]:
    """Return pictures and their labels in one file; none where it has no column of labels."""
    if path.endswith(".txt"):
        return list(filter(None, (_split_line(line, endings, stems) for line in _lines(text))))
    if path.endswith(".json"):
        stored = json.loads(text)
        pairs = _pairs_of(stored, endings)
        if pairs is not None:
            return pairs
        rows = stored if isinstance(stored, list) and all(isinstance(row, dict) for row in stored) else []
    else:
        rows = list(_rows_of(path, text, endings, stems))
    is_of_labels = posixpath.basename(path).startswith("labels")
    file, label = _choose_columns(rows, endings, stems, is_of_labels=is_of_labels) if rows else ("", "")
    return [(str(row[file]), _as_text(row.get(label))) for row in rows] if label else []


def _lines(text: str) -> list[str]:
    """Return the lines of a text, which marks inside of sentences, such as U+2028, do not end."""
    return re.split(r"\r\n|\n|\r", text)


def _pairs_of(stored: Any, endings: tuple[str, ...]) -> list[tuple[str, str]] | None:
    """Return pictures and their labels where JSON pairs them, as StyleGAN's does; None for rows and all else.

    >>> _pairs_of({"labels": [["a.png", 3]]}, (".png",)), _pairs_of({"cat": ["a.png", "b.png"]}, (".png",))
    ([('a.png', '3')], [('a.png', 'cat'), ('b.png', 'cat')])
    >>> _pairs_of({"a.png": {"label": "cat"}, "b.png": "dog"}, (".png",))
    [('a.png', 'cat'), ('b.png', 'dog')]
    """
    if isinstance(stored, dict) and "labels" in stored and isinstance(stored["labels"], list | None):
        stored = stored["labels"] or []
    if isinstance(stored, list):
        are_pairs = all(isinstance(row, list) and len(row) == 2 for row in stored)
        return [(str(file), _as_text(label)) for file, label in stored] if are_pairs else None
    if not isinstance(stored, dict):
        return None
    lists = [value for value in stored.values() if isinstance(value, list)]
    if lists and len(lists) == len(stored) and all(str(name).lower().endswith(endings) for name in chain(*lists)):
        return [(str(file), str(label)) for label, files in stored.items() for file in files]
    return [(str(file), _as_text(_label_in(value))) for file, value in stored.items()]


def _label_in(value: Any) -> Any:
    """Return the label among what a file says of a picture; the value itself where it is no object."""
    return next((value[key] for key in LABEL_KEYS if key in value), value) if isinstance(value, dict) else value


def _as_text(label: Any) -> str:
    """Return a label as text. Raises ValueError for several."""
    if isinstance(label, list | tuple) and len(label) == 1:
        label = label[0]
    if isinstance(label, list | tuple | dict):
        raise ValueError("it gives a picture several labels, or none")
    return "" if label is None else str(label).strip()


def _split_line(line: str, endings: tuple[str, ...], stems: Collection[str]) -> tuple[str, str] | None:
    """Return the file and the label of a line, whatever separates them; None where it names no picture.

    >>> _split_line("my cat.png, tom cat", (".png",), {}), _split_line("a 7", (".png",), {"a"})
    (('my cat.png', 'tom cat'), ('a', '7'))
    """
    ends = [line.lower().find(ending) + len(ending) for ending in endings if ending in line.lower()]
    end = max(ends, default=0)
    if not end and (first := re.match(r"\s*([^\s,;]+)[\s,;]", line)) and _stem(first[1], endings) in stems:
        end = first.end()
    return (line[:end].strip(" ,;\t"), line[end:].strip(" ,;:\t")) if end else None


def _rows_of(path: str, text: str, endings: tuple[str, ...], stems: Collection[str]) -> Iterator[dict[str, Any]]:
    """Yield the rows of a table by column; columns of a table without a header line are called 0, 1, ..."""
    if path.endswith(".jsonl"):
        yield from (json.loads(line) for line in _lines(text) if line.strip())
        return
    if text.startswith("sep="):  # Excel's
        text = text.partition("\n")[2]
    first = text.split("\n", 1)[0]
    lines = csv.reader(io.StringIO(text), delimiter=max(",;\t", key=first.count), skipinitialspace=True)
    cells = [[cell.strip() for cell in row] for row in islice(filter(None, lines), MAX_IMAGES + 2)]
    if len(cells) > MAX_IMAGES + 1:
        raise ValueError(f"it has more than {MAX_IMAGES:,} rows")
    if not cells:
        return
    is_said = any(name.lower() in (*_FILE_KEYS, *LABEL_KEYS) for name in cells[0])
    has_header = is_said or not any(
        cell.lower().endswith(endings) or _stem(cell, endings) in stems for cell in cells[0]
    )
    names = cells[0] if has_header else [str(k) for k in range(len(cells[0]))]
    yield from (dict(zip(names, row, strict=False)) for row in cells[has_header:])


def _choose_columns(
    rows: Sequence[Mapping[str, Any]], endings: tuple[str, ...], stems: Collection[str], *, is_of_labels: bool
) -> tuple[str, str]:
    """Return the columns of file names and of labels; an empty name for labels where none holds them.

    Labels are in the column called so, or in the only other one.

    Args:
        stems: of the pictures that are there: of their names, without folder and ending.
        is_of_labels: whether the file says so by its name; else that other column must repeat itself, as captions do
            not.
    """
    files = [name for name, cell in rows[0].items() if str(cell).lower().endswith(endings)]
    if not files:
        some = rows[:_LOOKS]
        known = [name for name in rows[0] if all(_stem(str(row.get(name)), endings) in stems for row in some)]
        files = [name for name in known if name.lower() in _FILE_KEYS] or known
        called = [name for name in rows[0] if name.lower() in _FILE_KEYS]  # of a table of more pictures than are here
        files = files or [name for name in called if any(_stem(str(row.get(name)), endings) in stems for row in rows)]
    if len(files) != 1:
        return "", ""
    others = [name for name, cell in rows[0].items() if name not in files and not isinstance(cell, dict)]
    others = [name for name in others if name.lower() not in PART_COLUMNS]
    lower = {name.lower() for name in others}
    named = [name for name in others if name.lower() in LABEL_KEYS and not (name.lower() == "y" and "x" in lower)]
    if named:  # a place (x, y) is no label
        return files[0], min(named, key=lambda name: LABEL_KEYS.index(name.lower()))
    if len(others) != 1:
        return files[0], ""
    if isinstance(rows[0][others[0]], list):
        return files[0], ""
    is_repeated = 2 * len({_as_text(row.get(others[0])) for row in rows}) <= len(rows)
    return files[0], others[0] if is_of_labels or is_repeated else ""
