"""Tables of numbers in text, packed or not: a row for each image, as Kaggle has them, with a label or without.

What the columns hold is known by the header line, and by the values where there is none.
"""

import csv
import gzip
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain, islice
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from gansmith.data.layouts import square
from gansmith.errors import DataError

MAX_TEXT = 2**31  # characters of a table
_MAX_LINE, _ROWS = 2**22, 1024
_DELIMITERS = ",;\t"
_LABEL_COLUMNS = ("label", "labels", "class", "target", "y", "digit", "letter", "emotion", "category")
_INDEX_COLUMNS = ("", "id", "imageid", "image_id", "index", "unnamed: 0")
_MOSTLY = 0.75  # of the rows
_MIN_COUNTED = 16  # columns from which 0, 1, 2, ... are no pixels but names, as pandas gives them


@dataclass(frozen=True)
class Table:
    """What a table holds.

    Attributes:
        pixels: (N, numbers of an image).
        labels: (N,) numbers, or text where not all are numbers; None without a column of labels.
        notices: a sentence for each column that is left out or was chosen by its values.
    """

    pixels: NDArray[Any]
    labels: NDArray[Any] | None
    notices: tuple[str, ...] = ()


@dataclass(frozen=True)
class Columns:
    """Which columns hold what.

    Attributes:
        pixels: of numbers; one of text where each of its cells holds all numbers of an image, separated by spaces.
        label: None where no name says which it is.
    """

    pixels: tuple[int, ...]
    label: int | None = None
    notices: tuple[str, ...] = ()


def read_table(path: Path) -> Table:
    """Return what a table of text holds. Raises DataError for cells that are no numbers, and rows that differ."""
    with path.open("rb") as file:
        is_packed = file.read(2) == b"\x1f\x8b"
    with (gzip.open if is_packed else open)(path, "rt", encoding="utf-8-sig", newline="") as text:
        lines = _lines(text, path)
        first = next(lines, "")
        delimiter = max(_DELIMITERS, key=first.count)
        rows = csv.reader(chain([first], lines), delimiter=delimiter, skipinitialspace=True)
        try:
            return _read_rows(rows, str(path))
        except csv.Error as error:
            raise DataError(f"{path} cannot be read ({error}); save it again as plain CSV") from None


def _lines(file: IO[str], path: Path) -> Iterator[str]:
    """Yield the lines of a text but blank ones. Raises DataError where a line, or all of it, is longer than images."""
    total = 0
    while line := file.readline(_MAX_LINE):
        total += len(line)
        if total > MAX_TEXT or len(line) == _MAX_LINE:
            what = "lines" if total <= MAX_TEXT else "text"
            raise DataError(f"{path} holds longer {what} than images make; take fewer, or save them with numpy.savez")
        if not line.isspace():
            yield line


def _read_rows(rows: Iterator[list[str]], source: str) -> Table:
    names = [name.strip().strip("'") for name in next(rows, [])]
    width = len(names) - (names[-1:] == [""])  # a comma at the end of each line
    second = next(rows, [])
    has_header = _is_header(names[:width], second)
    start = [row for row in ([second] if has_header else [names, second]) if row]
    if not start:
        raise DataError(f"{source} holds no rows of numbers; a row for each image is needed")
    columns = choose_columns(names[:width] if has_header else None, start[0][:width], source)
    labels: list[str] = []
    cells = _pixel_cells(chain(start, rows), columns, width, labels, source)
    pixels = _read_numbers(cells, source)
    return find_labels(pixels, _as_numbers(labels) if labels else None, columns, source)


def _is_header(names: Sequence[str], second: Sequence[str]) -> bool:
    """Return whether the cells of a first row are names: not all are numbers, or they count 0, 1, 2, ...

    A row of numbers that begins or ends with a name, as the second one does, is an image with its label.
    """
    text = [k for k, name in enumerate(names) if not _are_numbers(name)]
    numbers = [name for k, name in enumerate(names) if name and k not in text]
    if len(numbers) >= _MIN_COUNTED and numbers == [str(k) for k in range(len(numbers))]:
        return True
    is_label = text in ([0], [len(names) - 1]) and len(second) > text[0] and not _are_numbers(second[text[0]])
    is_named = bool(text) and names[text[0]].lower() in _LABEL_COLUMNS
    return bool(text) and not (is_label and len(numbers) >= 4 and not is_named)


def _are_numbers(cell: str) -> bool:
    """Return whether a cell holds a number, several separated by spaces, or nothing."""
    return all(map(_is_number, cell.split()))


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def choose_columns(names: Sequence[str] | None, start: Sequence[Any], source: str) -> Columns:
    """Return which columns hold pixels and labels.

    Args:
        names: of the columns; None without a header line.
        start: the cells of the first row of values.
    """
    numbers = [k for k, cell in enumerate(start) if _are_numbers(str(cell))]
    packed = [k for k in numbers if len(str(start[k]).split()) > 1][:1]
    if names is None:
        labels = [k for k in range(len(start)) if k not in (packed or numbers)]
        return Columns(tuple(packed or numbers), labels[0] if labels else None)
    lower = [name.lower() for name in names]
    named = [k for k, name in enumerate(lower) if name in _LABEL_COLUMNS]
    others = [k for k, name in enumerate(lower[: len(start)]) if name not in _INDEX_COLUMNS and k not in named]
    pixels = packed or [k for k in others if k in numbers]
    if not pixels:
        raise DataError(f"{source} holds no columns of numbers; a row of pixels for each image is needed")
    unused = [names[k] for k in (*named[1:], *sorted({*others} - {*pixels}))]
    notices = (f"columns that are not used: {', '.join(unused[:6])}",) if unused else ()
    return Columns(tuple(pixels), named[0] if named else None, notices)


def _pixel_cells(
    rows: Iterable[list[str]], columns: Columns, width: int, labels: list[str], source: str
) -> Iterator[list[str]]:
    """Yield the pixels of each row as text, and add its label to the list."""
    for number, row in enumerate(rows, 1):
        if len(row) == width + 1 and not row[-1].strip():
            row.pop()
        if len(row) != width:
            raise DataError(f"{source} cannot be read: row {number:,} has {len(row):,} cells, the first has {width:,}")
        if columns.label is not None:
            labels.append(row[columns.label].strip())
        cells = row if len(columns.pixels) == width else [row[k] for k in columns.pixels]
        yield cells[0].split() if len(cells) == 1 else cells


def _read_numbers(rows: Iterator[list[str]], source: str) -> NDArray[Any]:
    """Return a table of numbers, 16-bit where all are small and whole, as pixels and labels are."""
    numbered = (_as_row(cells, number, source) for number, cells in enumerate(rows, 1))
    chunks: list[NDArray[Any]] = []
    while some := list(islice(numbered, _ROWS)):
        if len({len(row) for row in some}) > 1 or chunks and chunks[0].shape[1] != len(some[0]):
            raise DataError(f"{source} holds images of several sizes; take those of one")
        chunk = np.stack(some)
        is_small = chunk.size > 0 and chunk.min() >= 0 and chunk.max() < 2**16
        small = chunk.astype(np.uint16) if is_small else chunk
        chunks.append(small if (small == chunk).all() else chunk)
    return np.concatenate(chunks)


def _as_row(cells: list[str], number: int, source: str) -> NDArray[np.float32]:
    try:
        return np.array(cells, np.float32)
    except ValueError:
        cell = next(cell for cell in cells if not _is_number(cell))
        what = f"{cell[:20]!r} is not a number" if cell.strip() else "a cell is empty"
        raise DataError(f"{source} cannot be read: in row {number:,} {what}; give each pixel its number") from None


def _as_numbers(labels: Sequence[str]) -> NDArray[Any]:
    """Return labels as numbers where all that are given are, else as text."""
    filled = [label or "nan" for label in labels]
    return np.array(filled, np.float64) if all(map(_is_number, filled)) else np.array(labels)


def find_labels(pixels: NDArray[Any], labels: NDArray[Any] | None, columns: Columns, source: str) -> Table:
    """Return the images of a table with the labels of the named column, else of the first or the last of `pixels`.

    Without a name, labels are whole numbers that look most like class ids; a column whose values all differ numbers the
    images.
    """
    count = pixels.shape[1]
    if labels is not None or square(count)[0]:
        return Table(pixels, labels, columns.notices)
    if square(count - 2)[0] and _is_index(pixels[:, 0]):
        return find_labels(pixels[:, 1:], None, columns, source)
    if not square(count - 1)[0]:
        raise DataError(
            f"{source} has {count:,} columns; a square image's pixels, with or without one label, are needed"
        )
    column, is_index = _label_column(pixels)
    labels = None if is_index else pixels[:, column]
    where = "first" if column == 0 else "last"
    what = "numbers its images, which have no labels" if is_index else "is taken for labels"
    found = Table(np.delete(pixels, column, axis=1), labels)
    return replace(found, notices=(*columns.notices, f"its {where} column {what}"))


def _label_column(table: NDArray[Any]) -> tuple[int, bool]:
    """Return which of the first and the last column is not of pixels, and whether it only numbers the rows."""
    last = table.shape[1] - 1
    found = {column: np.unique(table[:, column], return_counts=True) for column in (0, last)}
    whole = [column for column in (0, last) if (found[column][0] == np.rint(found[column][0])).all()] or [0]
    if 0 in whole and _is_index(table[:, 0]):
        return 0, True
    varied = [column for column in whole if len(found[column][0]) > 1] or whole
    repeated = [column for column in varied if len(found[column][0]) < len(table)] or varied
    brightest = table[:, 1:-1].max(initial=0)
    column = min(repeated, key=lambda column: _label_rank(*found[column], brightest))
    return column, len(found[column][0]) == len(table) > 1


def _is_index(column: NDArray[Any]) -> bool:
    """Return whether a column counts its rows, or has another number above all pixels' for each."""
    is_counting = bool((np.diff(column.astype(np.float64)) == 1).all())
    return len(column) > 1 and (is_counting or (column.max() > 255 and len(np.unique(column)) == len(column)))


def _label_rank(values: NDArray[Any], counts: NDArray[np.int64], brightest: float) -> tuple[bool, int, int, float]:
    """Return the less, the more the values of a column look like class ids.

    Class ids start at 0 or 1, have no gaps, and none has nearly all rows, as black has in the corner of most images;
    there are few, and they are small.
    """
    is_no_pixel = brightest <= 1 < values[-1]
    has_gaps = values[0] not in (0, 1) or values[-1] - values[0] + 1 != len(values)
    is_mostly_one = counts.max() > _MOSTLY * counts.sum()
    return not is_no_pixel, int(has_gaps) + int(is_mostly_one), len(values), float(values[-1])
