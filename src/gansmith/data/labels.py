"""Labels in any form as whole numbers: numbers, one-hot rows, or names, which are numbered in alphabetical order."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gansmith.errors import DataError

MAX_CLASSES = 10_000  # larger numbers are identifiers rather than labels
PART_COLUMNS = ("usage", "split", "set", "fold", "subset", "partition")  # that say which part of a set a row is of
MIN_IDS = 50  # images; labels that are different for each of so many are identifiers too
MIN_USED = 0.1  # of the classes; where fewer have images, it is said


@dataclass(frozen=True)
class Labels:
    """Labels as they are used.

    Attributes:
        numbers: (N,) from 0; None where images are used without labels.
        class_names: by number, where labels were names; else empty.
        notices: a sentence on why there are no labels, or on large gaps between them.
    """

    numbers: NDArray[np.int64] | None = None
    class_names: tuple[str, ...] = ()
    notices: tuple[str, ...] = ()


def count_of(labels: NDArray[Any] | None) -> int | None:
    """Return for how many images there are labels: numbers, a row or column of them, or one-hot rows."""
    if labels is None:
        return None
    return len(labels) if labels.ndim == 2 and 1 not in labels.shape else labels.size


def as_labels(
    labels: NDArray[Any] | None,
    count: int,
    source: str,
    *,
    class_names: Sequence[str] = (),
    may_be_ids: bool = True,
) -> Labels:
    """Return labels of `count` images, or why they are used without: several classes for an image, gaps, or ids.

    Args:
        class_names: all names, where labels are names of which some may not occur.
        may_be_ids: labels that are different for each of many images are not used; of a test, they may be classes.

    Raises DataError for labels of another number, and for what is neither whole numbers nor names.
    """
    if labels is None:
        return Labels()
    if labels.ndim == 2 and labels.shape[0] == count and labels.shape[1] > 1:
        if labels.dtype.kind not in "biuf" or not np.isin(labels, (0, 1)).all():
            raise DataError(f"{source} has labels of shape {labels.shape}, which are no one-hot rows")
        if not (labels.sum(axis=1) == 1).all():
            return _without(f"{source} has labels of several classes, or of none, for an image")
        labels, may_be_ids = labels.argmax(axis=1), False
    if labels.ndim == 2 and 1 not in labels.shape:
        hint = ", here labels.T" if labels.shape[1] == count else ""
        raise DataError(
            f"{source} has labels of shape {labels.shape} for {count:,} images; one label or one-hot row for each is "
            f"needed{hint}"
        )
    labels = labels.reshape(-1)
    if len(labels) != count:
        raise DataError(f"{source} has {len(labels):,} labels for {count:,} images; one for each is needed")
    is_number = labels.dtype.kind in "biuf"
    missing = int(np.isnan(labels).sum()) if is_number else sum(map(_is_missing, labels))
    if missing:
        return _without(f"{source} has no label for {missing:,} of {count:,} images")
    if not is_number:
        labels = _plain(labels, source)
    if may_be_ids and len(np.unique(labels)) == count >= MIN_IDS:
        return _without(f"{source} has another label for each of {count:,} images, as ids are")
    if labels.dtype.kind != "U":
        return _numbers(labels, source)
    if all(re.fullmatch(r"-?\d{1,9}(\.0*)?", label) for label in labels):
        found = _numbers(labels.astype(np.float64), source)
        used = 0 if found.numbers is None else int(found.numbers.max(initial=-1)) + 1
        return Labels(found.numbers, tuple(map(str, range(used))), found.notices)
    names = tuple(class_names) or tuple(np.unique(labels).tolist())
    if len(names) > MAX_CLASSES:
        raise DataError(f"{source} has {len(names):,} different labels; at most {MAX_CLASSES:,} classes can be used")
    table = {name: number for number, name in enumerate(names)}
    return Labels(np.array([table[label] for label in labels.tolist()], np.int64), names)


def _without(reason: str) -> Labels:
    return Labels(notices=(f"{reason}, so images are used without labels",))


def _is_missing(label: Any) -> bool:
    return label is None or str(label) in ("", "b''", "nan", "<NA>")


def _plain(labels: NDArray[Any], source: str) -> NDArray[Any]:
    """Return bytes as text, and objects as text or numbers."""
    if labels.dtype.kind == "S":
        return np.char.decode(labels, "utf-8", "replace")
    values = labels.tolist()
    if labels.dtype.kind == "U" or all(isinstance(value, str) for value in values):
        return np.array(values, np.str_)
    if all(isinstance(value, int | float | np.number) for value in values):
        return np.array(values, np.float64)
    kinds = ", ".join(sorted(Counter(type(value).__name__ for value in values)))
    raise DataError(f"labels of {source} are {kinds}; give one whole number or one name for each image")


def _numbers(labels: NDArray[Any], source: str) -> Labels:
    """Return numbers as labels. Raises DataError for those that are not whole, or too large."""
    if not np.isfinite(labels).all() or (labels != np.rint(labels)).any():
        raise DataError(f"labels of {source} are {labels.dtype} and no whole numbers; give one number for each class")
    if len(labels) and labels.max() >= MAX_CLASSES:
        raise DataError(
            f"{source} has labels up to {labels.max():g}; number the classes from 0 to at most {MAX_CLASSES - 1:,}"
        )
    whole = np.rint(labels).astype(np.int64)
    negative = int((whole < 0).sum())
    if negative == len(whole) > 0:  # -1 stands for no label in our own files
        return Labels()
    if negative:
        return _without(f"{source} has labels below 0 for {negative:,} of {len(whole):,} images")
    return Labels(whole, notices=gaps_in_words(whole))


def gaps_in_words(numbers: ArrayLike) -> tuple[str, ...]:
    """Return a sentence where labels, whole numbers from 0, are fewer than a tenth of those up to the largest."""
    images = np.bincount(np.asarray(numbers, np.int64))
    used = int(np.count_nonzero(images))
    if not 1 < used < MIN_USED * len(images):
        return ()
    return (
        f"its {used:,} different labels reach {len(images) - 1:,}, so there are {len(images):,} classes, "
        f"{len(images) - used:,} of them without images; number them from 0 without gaps for {used:,}",
    )
