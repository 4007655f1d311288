"""Tables of numbers: a row for each image, as Kaggle has them, in text that may be packed."""

import gzip
import re
import warnings
from collections.abc import Iterator
from itertools import chain, islice
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from gansmith.data.layouts import square
from gansmith.errors import DataError

MAX_TEXT = 2**31  # characters of a table
_MAX_LINE, _ROWS = 2**22, 1024
TABLES = (".csv", ".csv.gz", ".tsv")
_LABEL_COLUMNS = ("label", "class", "target", "y", "digit", "category")


def read_table(path: Path) -> tuple[NDArray[Any], NDArray[Any] | None]:
    """Return the pixels of a table, a row each, and its column of labels, first or last; one header line or none."""
    delimiter = "\t" if ".tsv" in path.name.lower() else ","
    opener = gzip.open if path.name.lower().endswith(".gz") else open
    with opener(path, "rt", encoding="utf-8-sig") as file:
        lines = _lines(file, path)
        first = next(lines, "")
        names = [name.strip().strip('"').lower() for name in first.rstrip("\n").split(delimiter)]
        has_header = not all(re.fullmatch(r"-?\d+(\.\d+)?", name) for name in names)
        table = _read_numbers(lines if has_header else chain([first], lines), delimiter)
    if not len(table):
        raise DataError(f"{path} holds no rows of numbers; a row for each image is needed")
    column = _label_column(names if has_header else [], table, str(path))
    labels = None if column is None else table[:, column]
    pixels = table if column is None else np.delete(table, column, axis=1)
    return pixels, labels


def _lines(file: IO[str], path: Path) -> Iterator[str]:
    """Yield the lines of a text. Raises DataError where a line or all of it is longer than images are."""
    total = 0
    while line := file.readline(_MAX_LINE):
        total += len(line)
        if total > MAX_TEXT or len(line) == _MAX_LINE:
            what = "lines" if total <= MAX_TEXT else "text"
            raise DataError(f"{path} holds longer {what} than images make; take fewer, or save them with numpy.savez")
        yield line


def _read_numbers(lines: Iterator[str], delimiter: str) -> NDArray[Any]:
    """Return a table of numbers, 16-bit where all are small and whole, as pixels and labels are."""
    chunks: list[NDArray[Any]] = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of no rows, where the text ends
        while len(rows := list(islice(lines, _ROWS))):
            chunk = np.loadtxt(rows, delimiter=delimiter, dtype=np.float32, ndmin=2)
            small = chunk.astype(np.uint16) if chunk.size and chunk.min() >= 0 and chunk.max() < 2**16 else chunk
            chunks.append(small if (small == chunk).all() else chunk)
    return np.concatenate([chunk for chunk in chunks if chunk.size] or [np.zeros((0, 0), np.float32)])


def _label_column(names: list[str], table: NDArray[Any], source: str) -> int | None:
    """Return which column holds labels; None where all of them are pixels."""
    columns = table.shape[1]
    named = [k for k, name in enumerate(names) if name in _LABEL_COLUMNS]
    if named:
        return named[0]
    if square(columns)[0]:
        return None
    if not square(columns - 1)[0]:
        raise DataError(
            f"{source} has {columns:,} columns; a square image's pixels, with or without one label, are needed"
        )
    first, last = (len(np.unique(table[:, k])) for k in (0, columns - 1))
    return 0 if first > 1 or last <= 1 else columns - 1
