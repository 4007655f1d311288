"""Tables of numbers in text, packed or not: a row for each image, as Kaggle has them, with a label or without.

What the columns hold is known by the header line, and by the values where there is none.
"""

import csv
import gzip
import re
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain, islice
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from gansmith.data.labels import PART_COLUMNS
from gansmith.data.numpy_files import are_classes, label_files_beside, unused_beside
from gansmith.data.pictures import ENDINGS
from gansmith.errors import DataError
from gansmith.files import encoding_of
from gansmith.flat_images import square

ENDINGS_OF_TABLES = (".csv", ".csv.gz", ".tsv")
MAX_TEXT = 2**31  # characters of a table
_MAX_LINE, _ROWS = 2**22, 1024
_LABEL_COLUMNS = ("label", "labels", "class", "target", "y", "digit", "letter", "emotion", "category")
_INDEX_COLUMNS = ("", "id", "idx", "imageid", "image_id", "index", "row", "unnamed: 0")
_MOSTLY = 0.75  # of the rows
_MIN_COUNTED = 16  # columns from which 0, 1, 2, ... or 1, 2, 3, ... are no pixels but names, as pandas gives them
_MIN_SIDE = 5  # of images, in pixels: fewer numbers in a row describe something, such as a box
_FEW_ROWS = 10  # up to which different numbers may be the labels of as many classes


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
        odd: names of columns of numbers that differ from those of most, as of columns that are no pixels.
        text: name of the only column of text, which is taken for labels if its values repeat; empty where a column is
            named as labels.
    """

    pixels: tuple[int, ...]
    label: int | None = None
    notices: tuple[str, ...] = ()
    odd: tuple[str, ...] = ()
    text: str = ""


def read_table(path: Path) -> Table:
    """Return what a table of text holds. Raises DataError for cells that are no numbers, and rows that differ."""
    limit = csv.field_size_limit(_MAX_LINE)  # of this process: one cell may hold all pixels of an image
    try:
        with _open_text(path) as text:
            lines = _lines(text, path)
            first, second = _skip_preamble(lines)
            delimiter = _delimiter_of(first)
            rows = csv.reader(chain([first, second], lines), delimiter=delimiter, skipinitialspace=True)
            return _read_rows(filter(None, rows), str(path))
    except csv.Error as error:
        raise DataError(f"{path} cannot be read ({error}); save it again as plain CSV") from None
    except UnicodeError:
        raise DataError(f"{path} is not text in UTF-8, as tables are; save it again as CSV in UTF-8") from None
    finally:
        csv.field_size_limit(limit)


def read_labels_beside(path: Path, count: int) -> tuple[NDArray[Any] | None, tuple[str, ...]]:
    """Return the labels of a table of pixels that lie in a table of their own beside it, and a sentence on it.

    Args:
        count: of the images; another number of labels is of other images.
    """
    for file in label_files_beside(path, ENDINGS_OF_TABLES):
        labels = _read_labels(file, count)
        if labels is not None:
            return labels, (f"its labels are read from {file.name}",)
    return None, unused_beside(path, ENDINGS_OF_TABLES)


def _read_labels(path: Path, count: int) -> NDArray[Any] | None:
    """Return a label or a one-hot row for each image; None for a table that holds something else."""
    try:
        with _open_text(path) as text:
            lines = _lines(text, path)
            first, second = _skip_preamble(lines)
            reader = csv.reader(chain([first, second], lines), delimiter=_delimiter_of(first))
            rows = list(islice(filter(None, reader), count + 2))
    except (DataError, OSError, EOFError, zlib.error, csv.Error, UnicodeError):
        return None
    cells = [[cell.strip() for cell in row] for row in rows]
    names = cells.pop(0) if len(cells) == count + 1 else []
    if len(cells) != count or len({len(row) for row in cells}) != 1:
        return None
    columns = list(zip(*cells, strict=True))
    named = [k for k, name in enumerate(names) if name.lower() in _LABEL_COLUMNS]
    if named or len(columns) == 1:
        return _as_numbers(columns[named[0] if named else 0])
    found = [_as_numbers(column) for column in columns]
    if found[0].dtype.kind == "f" and _is_index(found[0]):
        found = found[1:]
    if len(found) == 1:
        return found[0]
    is_one_hot = all(column.dtype.kind == "f" and np.isin(column, (0, 1)).all() for column in found)
    return np.stack(found, axis=1) if is_one_hot else None


def _open_text(path: Path) -> IO[str]:
    """Open a table, packed or not, in UTF-8, or in UTF-16 where it begins with the mark of that."""
    with path.open("rb") as file:
        head = file.read(4)
    if head == b"PK\x03\x04":
        raise DataError(f"{path} is a zip; call it {path.name}.zip")
    opener: Any = gzip.open if head[:2] == b"\x1f\x8b" else open
    with opener(path, "rb") as file:
        encoding = encoding_of(file.read(2))
    opened: IO[str] = opener(path, "rt", encoding=encoding, newline="")
    return opened


def _skip_preamble(lines: Iterator[str]) -> tuple[str, str]:
    """Return the first two lines of a table, without Excel's `sep=;` and comments before them.

    A comment with as many cells as the line below it is a header, as numpy.savetxt writes it.
    """
    first, second = next(lines, ""), next(lines, "")
    while first.startswith(("#", "sep=")):
        delimiter = _delimiter_of(second)
        if first.startswith("#") and 0 < first.count(delimiter) == second.count(delimiter):
            return first.lstrip("# "), second
        first, second = second, next(lines, "")
    return first, second


def _delimiter_of(line: str) -> str:
    """Return what separates the cells of a line; commas may be decimal marks of cells that something else separates.

    >>> [_delimiter_of(line) for line in ("7,0,255", "7,0;0,5;1,0", "label|a|b")]
    [',', ';', '|']
    """
    other = max(";\t|", key=line.count)
    return other if 0 < line.count(other) >= line.count(",") - 1 else ","


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
    rows = (row for row in rows if any(cell.strip() for cell in row))  # Excel leaves rows of empty cells
    names = [name.strip().strip("'") for name in next(rows, [])]
    width = len(names) - (names[-1:] == [""])  # a comma at the end of each line
    second = next(rows, [])
    is_made_unlike = _is_made_unlike(names[:width])
    has_header = is_made_unlike or _is_header(names[:width])
    start = [row for row in ([second] if has_header else [names, second]) if row]
    if not start:
        raise DataError(f"{source} holds no rows of numbers; a row for each image is needed")
    notices: tuple[str, ...] = ()
    if is_made_unlike:
        notices = ("its first line is an image that pandas made names of, and is left out; read it with header=None",)
    if has_header and len(second) == width + 1 and second[-1].strip():  # as R writes tables
        has_label = any(name.lower() in _LABEL_COLUMNS for name in names)
        names, width = ["" if has_label else "first", *names[:width]], width + 1
        taken = ", so their first cells are taken for row names" if has_label else ""
        notices = (
            *notices,
            f"its rows have a cell more than its header line{taken}",
        )
    if has_header:
        columns = choose_columns(names[:width], start[0][:width], source)
    else:
        columns = _unnamed_columns(names[:width], second)
    labels: list[str] = []
    cells = _pixel_cells(chain(start, rows), columns, width, labels, source)
    pixels = _read_numbers(cells, source)
    columns = replace(columns, notices=(*notices, *columns.notices))
    return find_labels(pixels, _as_numbers(labels) if labels else None, columns, source)


def _is_header(names: Sequence[str]) -> bool:
    """Return whether the cells of a first row are names: of columns that are known, counting, or most are no numbers.

    A row of numbers with one other cell is an image, and that cell its label, or damage.
    """
    text = [name for name in names if not _are_numbers(name)]
    numbers = [name for name in names if name and _are_numbers(name)]
    if len(numbers) >= _MIN_COUNTED and numbers in [[str(k + by) for k in range(len(numbers))] for by in (0, 1)]:
        return True
    is_known = any(name.lower() in (*_LABEL_COLUMNS, *_INDEX_COLUMNS) for name in text)
    return is_known or len(text) > len(numbers)


def _is_made_unlike(names: Sequence[str]) -> bool:
    """Return whether a first line was numbers, as pandas makes them unlike: 0, 0.1, 0.2 for three zeros."""
    bases = set(names)
    made = [name for name in names if (found := re.fullmatch(r"(\d+)\.[1-9]\d*", name)) and found[1] in bases]
    return 2 * len(made) > len(names) and all(map(_are_numbers, names))


def _are_numbers(cell: str) -> bool:
    """Return whether a cell holds a number, several, or nothing."""
    return all(map(_is_number, split_cell(cell)))


def split_cell(cell: str) -> list[str]:
    """Return the numbers in a cell: separated by spaces, or by commas as in Python's lists.

    >>> [split_cell(cell) for cell in ("0 7 255", "[0, 7, 255]", "0,5")]
    [['0', '7', '255'], ['0', '7', '255'], ['0,5']]
    """
    is_list = cell[:1] in ("[", "(") or cell.count(",") > 1
    return (re.sub(r"[\[\](),]", " ", cell) if is_list else cell).split()


def _is_number(cell: str) -> bool:
    """Return whether a cell is a number, with a point or a comma as decimal mark."""
    try:
        float(cell.replace(",", "."))
    except ValueError:
        return False
    return True


def _unnamed_columns(first: Sequence[str], second: Sequence[str]) -> Columns:
    """Return which columns hold pixels and labels in a table without a header line.

    The label may be text, as the first or the last cell of each row; all other cells must be numbers.
    """
    packed = [k for k, cell in enumerate(first) if _are_numbers(cell) and len(split_cell(cell)) > 1][:1]
    if packed:
        others = [k for k in range(len(first)) if k not in packed]
        numbers = [k for k in others if _are_numbers(first[k])]
        return Columns(tuple(packed), next(iter(numbers or others), None))
    text = [k for k, cell in enumerate(first) if not _are_numbers(cell)]
    is_label = text in ([0], [len(first) - 1]) and not any(_are_numbers(cell) for cell in second[text[0] : text[0] + 1])
    pixels = [k for k in range(len(first)) if not is_label or k not in text]
    return Columns(tuple(pixels), text[0] if is_label else None)


def choose_columns(names: Sequence[str], start: Sequence[Any], source: str) -> Columns:
    """Return which columns hold pixels and labels.

    Args:
        names: of the columns.
        start: the cells of the first row of values.
    """
    numbers = [k for k, cell in enumerate(start) if _are_numbers(str(cell))]
    packed = [k for k in numbers if len(split_cell(str(start[k]))) > 1][:1]
    lower = [name.lower() for name in names]
    named = [k for k, name in enumerate(lower) if name in _LABEL_COLUMNS]
    others = [k for k, name in enumerate(lower[: len(start)]) if name not in _INDEX_COLUMNS and k not in named]
    pixels = packed or [k for k in others if k in numbers]
    listed = next((k for k, cell in enumerate(start) if str(cell).lower().endswith(ENDINGS)), None)
    if listed is not None and not packed and len(pixels) < _MIN_SIDE**2:
        raise DataError(
            f"{source} lists pictures in its column {names[listed]!r}, such as {str(start[listed])[:60]!r}, and holds "
            "no pixels; give the folder of pictures"
        )
    if not pixels:
        if any("..." in str(cell) for cell in start):  # as NumPy prints long arrays
            raise DataError(f"{source} holds '...' in place of most numbers; save the arrays with numpy.savez instead")
        raise DataError(f"{source} holds no columns of numbers; a row of pixels for each image is needed")
    alike, odd = _split_alike(pixels, names)
    if named and not _makes_images(len(pixels)) and _makes_images(len(alike)):
        pixels, odd = alike, []
    notices: tuple[str, ...] = ()
    if not odd and not packed and (by_number := _by_number(pixels, names)) != pixels:
        pixels, notices = by_number, ("its columns of pixels were put in the order of their numbers",)
    text = [k for k in others if k not in numbers and lower[k] not in PART_COLUMNS]
    is_text = not named and len(text) == 1 and bool(packed or _makes_images(len(pixels)))
    named = text if is_text else named
    unused = [names[k] for k in (*named[1:], *sorted({*others} - {*pixels} - {*named}))]
    notices += (f"columns that are not used: {', '.join(unused[:6])}",) if unused else ()
    found = tuple(names[k] for k in odd) if len(odd) < len(alike) else ()
    label = named[0] if named else None
    return Columns(tuple(pixels), label, notices, found, names[text[0]] if is_text else "")


def _split_alike(columns: Sequence[int], names: Sequence[str]) -> tuple[list[int], list[int]]:
    """Return the columns whose names differ from the commonest in more than a number, after the others."""
    stems = {k: re.sub(r"\d+", "", names[k]) for k in columns}
    stem = Counter(stems.values()).most_common(1)[0][0]
    return [k for k in columns if stems[k] == stem], [k for k in columns if stems[k] != stem]


def _by_number(columns: Sequence[int], names: Sequence[str]) -> list[int]:
    """Return columns in the order of the one number in each name; as they are where names have none, or several.

    >>> _by_number([1, 2, 3], ["label", "pixel0", "pixel10", "pixel2"])
    [1, 3, 2]
    """
    found = {k: re.findall(r"\d+", names[k]) for k in columns}
    numbers = {k: int(own[0]) for k, own in found.items() if len(own) == 1}
    are_positions = len(set(numbers.values())) == len(columns)
    return sorted(columns, key=numbers.__getitem__) if are_positions else list(columns)


def _makes_images(count: int) -> bool:
    """Return whether so many numbers make a square image."""
    return count > 0 and square(count)[0] >= _MIN_SIDE


def _pixel_cells(
    rows: Iterable[list[str]], columns: Columns, width: int, labels: list[str], source: str
) -> Iterator[list[str]]:
    """Yield the pixels of each row as text, and add its label to the list."""
    every = tuple(range(width))
    for number, row in enumerate(rows, 1):
        if len(row) == width + 1 and not row[-1].strip():
            row.pop()
        if len(row) != width:
            raise DataError(f"{source} cannot be read: row {number:,} has {len(row):,} cells, the first has {width:,}")
        if columns.label is not None:
            labels.append(row[columns.label].strip())
        cells = row if columns.pixels == every else [row[k] for k in columns.pixels]
        yield split_cell(cells[0]) if len(cells) == 1 else cells


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
        if all(cell.strip() and _is_number(cell) for cell in cells):
            return np.array([cell.replace(",", ".") for cell in cells], np.float32)
        cell = next(cell for cell in cells if not _is_number(cell))
        what = f"{cell[:20]!r} is not a number" if cell.strip() else "a cell is empty"
        raise DataError(f"{source} cannot be read: in row {number:,} {what}; give each pixel its number") from None


def _as_numbers(labels: Sequence[str]) -> NDArray[Any]:
    """Return labels as numbers where all that are given are, else as text."""
    try:
        return np.array([label or "nan" for label in labels], np.float64)
    except ValueError:
        return np.array(labels)


def find_labels(pixels: NDArray[Any], labels: NDArray[Any] | None, columns: Columns, source: str) -> Table:
    """Return the images of a table with the labels of the named column, else of the first or the last of `pixels`.

    Without a name, labels are whole numbers that look most like class ids; a column whose values all differ numbers the
    images.
    """
    count = pixels.shape[1]
    if labels is not None and columns.text:
        is_used = are_classes(labels.astype(str))
        words = f"its column {columns.text} {'is taken for labels' if is_used else 'is not used'}"
        columns, labels = replace(columns, notices=(*columns.notices, words)), labels if is_used else None
    if labels is not None or _makes_images(count):
        if not _makes_images(count):
            raise DataError(
                f"{source} holds rows of {count:,} numbers, which are no square images; "
                f"{_what_to_remove(columns) or 'give a number for each pixel, such as 784 for 28 x 28'}"
            )
        return Table(pixels, labels, columns.notices)
    if _makes_images(count - 2) and _is_index(pixels[:, 0]):
        return find_labels(pixels[:, 1:], None, columns, source)
    if not _makes_images(count - 1):
        advice = f", so {_what_to_remove(columns)}" if columns.odd else ""
        raise DataError(
            f"{source} has {count:,} columns; a square image's pixels, with or without one label, are needed{advice}"
        )
    column, is_index = _label_column(pixels)
    labels = None if is_index else pixels[:, column]
    where = "first" if column == 0 else "last"
    what = "numbers its images, which have no labels" if is_index else "is taken for labels"
    found = Table(np.delete(pixels, column, axis=1), labels)
    return replace(found, notices=(*columns.notices, f"its {where} column {what}"))


def _what_to_remove(columns: Columns) -> str:
    """Return advice on columns that may be no pixels; nothing where none is called otherwise than most."""
    if not columns.odd:
        return ""
    shown = ", ".join(map(repr, columns.odd[:3]))
    more = ", or call one label" if columns.label is None else ""
    return f"remove columns that are no pixels, such as {shown}{more}"


def _label_column(table: NDArray[Any]) -> tuple[int, bool]:
    """Return which of the first and the last column is not of pixels, and whether it only numbers the rows.

    In few rows, different numbers are the labels of different classes unless a label can hardly be as large.
    """
    last = table.shape[1] - 1
    found = {column: np.unique(table[:, column], return_counts=True) for column in (0, last)}
    whole = [column for column in (0, last) if (found[column][0] == np.rint(found[column][0])).all()] or [0]
    is_few = len(table) <= _FEW_ROWS
    if 0 in whole and _is_index(table[:, 0]) and not (is_few and table[:, 0].max() <= 255):
        return 0, True
    brightest = table[:, 1:-1].max(initial=0)
    varied = [column for column in whole if not _is_ground(found[column][0], brightest)] or whole
    repeated = [column for column in varied if is_few or len(found[column][0]) < len(table)] or varied
    column = min(repeated, key=lambda column: _label_rank(*found[column], brightest))
    return column, len(found[column][0]) == len(table) and not (is_few and found[column][0].max() <= 255)


def _is_ground(values: NDArray[Any], brightest: float) -> bool:
    """Return whether a column is black or white all over, as the corners of images are."""
    return len(values) == 1 and values[0] in (0, brightest)


def _is_index(column: NDArray[Any]) -> bool:
    """Return whether a column counts its rows, or has another number above all pixels' for each."""
    is_counting = bool((np.diff(column.astype(np.float64)) == 1).all())
    return len(column) > 1 and (is_counting or (column.max() > 255 and len(np.unique(column)) == len(column)))


def _label_rank(values: NDArray[Any], counts: NDArray[np.int64], brightest: float) -> tuple[bool, int, float, int]:
    """Return the less, the more the values of a column look like class ids.

    Class ids start at 0 or 1, have no gaps, and none has nearly all rows, as black has in the corner of most images;
    they are small, and there are few. A column of one number that is neither black nor white is a class.
    """
    is_no_pixel = brightest <= 1 < values[-1]
    has_gaps = values[0] not in (0, 1) or values[-1] - values[0] + 1 != len(values)
    is_mostly_one = len(values) > 1 and counts.max() > _MOSTLY * counts.sum()
    return not is_no_pixel, int(has_gaps) + int(is_mostly_one), float(values[-1]), len(values)
