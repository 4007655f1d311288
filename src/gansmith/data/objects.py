"""Images from objects of a Python program: arrays, PIL pictures, paths, map-style data sets of torch, Hugging Face's.

None of these libraries is imported: an object is known by what it can do. Float pixels are taken by the range of the
whole set, as in files.
"""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from gansmith.data.archives import MAX_MEMBER_BYTES
from gansmith.data.arrays import as_arrays
from gansmith.data.images import MAX_IMAGES, Images
from gansmith.data.layouts import as_bytes
from gansmith.data.official import called_official
from gansmith.data.pictures import on_broken
from gansmith.data.prepare import Look, Preparation, decode, look_at, prepare, settle, upright
from gansmith.data.sources import arrays_as_images, as_prepared
from gansmith.errors import DataError, NotFoundError

LOOKS = 256  # items that are looked at before preparation
_IMAGE_KEYS = ("image", "img", "images", "pixel_values", "x")
_LABEL_KEYS = ("label", "labels", "fine_label", "class", "target", "y")
_ALLOWED = (
    "give a data set's name, a path, gansmith.Images, an array, a list of PIL images, arrays or paths, a torch data "
    "set with __len__ and __getitem__, or a Hugging Face Dataset"
)


@dataclass(frozen=True)
class _Items:
    """Any set of images that are fetched one by one.

    Attributes:
        get: returns the image of a row, or (image, label).
        source: in words.
        notices: a sentence for each thing that a user should know.
    """

    count: int
    get: Callable[[int], Any]
    source: str
    class_names: tuple[str, ...] = ()
    notices: tuple[str, ...] = ()


def as_images(data: Any, how: Preparation) -> Images:
    """Return a program's own images, prepared, whatever holds them.

    An official training part is recognised by its content and gets its name; others are called "images".

    Args:
        data: `Images`, an array or a pair (images, labels) of arrays, a sequence of PIL pictures, arrays, paths or
            pairs (image, label), a map-style torch data set, or a Hugging Face `Dataset`.

    Raises DataError for anything else, and for what is no image in it.
    """
    if isinstance(data, Images):
        return as_prepared(data, how)
    if isinstance(data, Mapping):
        keys = ", ".join(repr(key) for key in list(data)[:6]) or "nothing"
        raise DataError(f"data is a mapping of {keys}; give one of its values, or a pair (images, labels)")
    if _is_array(data):
        return _from_arrays(data, None, how)
    if isinstance(data, tuple) and len(data) == 2 and _is_array(data[0]) and data[0].ndim >= 3:
        return _from_arrays(*data, how)
    if hasattr(data, "features") and hasattr(data, "column_names"):
        items = _hugging_face_items(data)
    elif hasattr(data, "__len__") and hasattr(data, "__getitem__") and not isinstance(data, str | bytes):
        items = _Items(len(data), data.__getitem__, f"{_kind(data)} in memory", _class_names(data))
    else:
        can_be_read = "can only be read in order" if hasattr(data, "__iter__") else "is no set of images"
        raise DataError(f"data is of type {_kind(data)}, which {can_be_read}; {_ALLOWED}")
    return called_official(_from_items(items, how))


def as_pictures(pictures: Any) -> list[Image.Image]:
    """Return a path, a PIL image, an array (H, W[, C]) or (N, H, W[, C]), or a list of these as pictures, upright.

    Raises DataError for anything else and for a file that cannot be read, NotFoundError where there is none.
    """
    if isinstance(pictures, str | os.PathLike | bytes | Image.Image):
        items = [pictures]
    elif _is_array(pictures) and pictures.ndim in (2, 3, 4):
        is_one = pictures.ndim == 2 or (pictures.ndim == 3 and pictures.shape[2] in (1, 3, 4))
        items = [pictures] if is_one else list(pictures)
    elif isinstance(pictures, list | tuple):
        items = list(pictures)
    else:
        raise DataError(
            f"pictures are of type {_kind(pictures)}; give a path, a PIL image, an array, or a list of these"
        )
    span, found = _span(items), []
    for item in items:
        path = Path(item) if isinstance(item, str | os.PathLike) else None
        if path is not None and not path.expanduser().exists():
            raise NotFoundError(f"there is no picture {str(item)!r}; give the path of one")
        try:
            found.append(_as_picture(item, span))
        except _Unreadable as error:
            name = "a picture" if path is None else path
            raise DataError(f"{name} cannot be read ({error}); give a whole picture") from None
    return found


def _kind(data: Any) -> str:
    return type(data).__name__


def _is_array(data: Any) -> bool:
    """Whether this is an array of NumPy, torch or another library that NumPy can read."""
    return hasattr(data, "shape") and hasattr(data, "ndim") and hasattr(data, "dtype")


def _to_numpy(array: Any) -> np.ndarray:
    return array.detach().cpu().numpy() if isinstance(array, torch.Tensor) else np.asarray(array)


def _from_arrays(images: Any, labels: Any, how: Preparation) -> Images:
    arrays = as_arrays(_to_numpy(images), None if labels is None else _to_numpy(labels), "the array in memory")
    return called_official(arrays_as_images(replace(arrays, source="arrays in memory"), how, name="images"))


def _class_names(data: Any) -> tuple[str, ...]:
    """Return the class names of a torch data set, or of the one that it is a subset of."""
    for _ in range(8):
        names = getattr(data, "classes", None)
        if isinstance(names, Sequence) and not isinstance(names, str):
            return tuple(str(name) for name in names)
        data = getattr(data, "dataset", None)
    return ()


def _hugging_face_items(data: Any) -> _Items:
    """Return the rows of a Hugging Face data set: its column of images, undecoded, and its column of labels."""
    if not hasattr(data, "__len__"):
        raise DataError("data is a Hugging Face data set in streaming mode; load it without streaming=True")
    features = data.features
    kinds = {column: type(feature).__name__ for column, feature in features.items()}
    pictures = [column for column in features if kinds[column] == "Image"]
    images = pictures or [column for column in features if column.lower() in _IMAGE_KEYS]
    if not images:
        raise DataError(
            f"data has the columns {', '.join(features)}, none of them of images; cast one to datasets.Image()"
        )
    named = [column for column in features if kinds[column] == "ClassLabel"]
    labels = sorted(named or [column for column in features if column in _LABEL_KEYS], key=_label_rank)
    column, label = images[0], labels[0] if labels else None
    notices = [
        f"of the columns of {what} {', '.join(found)}, {found[0]} was taken"
        for what, found in (("images", images), ("labels", labels))
        if len(found) > 1
    ]
    if hasattr(data, "with_format"):
        data = data.with_format(None).select_columns([column, *([label] if label else [])])
    if pictures:  # bytes are decoded here, upright and within limits
        data = data.cast_column(column, type(features[column])(decode=False))
    names = tuple(features[label].names) if label in named else ()
    get = partial(_hugging_face_row, data, column, label)
    return _Items(len(data), get, "a Hugging Face data set in memory", names, tuple(notices))


def _label_rank(column: str) -> int:
    return _LABEL_KEYS.index(column) if column in _LABEL_KEYS else len(_LABEL_KEYS)


def _hugging_face_row(data: Any, column: str, label: str | None, row: int) -> tuple[Any, Any]:
    found = data[row]
    image = found[column]
    if isinstance(image, dict):
        image = image.get("bytes") or Path(image.get("path") or "")
    return (np.asarray(image) if isinstance(image, list) else image), found[label] if label else None


def _from_items(items: _Items, how: Preparation) -> Images:
    if not 0 < items.count <= MAX_IMAGES:
        raise DataError(f"{items.source} holds {items.count:,} images; give between 1 and {MAX_IMAGES:,}")
    some = [_split_item(items.get(row))[0] for row in range(0, items.count, max(1, items.count // LOOKS))]
    span = _span(some)
    looks = [_look(image, span) for image in some]
    if all(isinstance(look, str) for look in looks):
        raise DataError(f"no image of {items.source} can be read: {looks[0]}; give others")
    how, notices = settle(how, [look for look in looks if not isinstance(look, str)])
    pixels = np.zeros((items.count, how.channels, how.size, how.size), np.uint8)
    labels: list[Any] = []
    names: list[str] = []
    broken: dict[int, str] = {}
    read = partial(_prepared, how, span)
    with ThreadPoolExecutor() as pool:
        rows = _fetched(items, names, labels)
        while batch := list(islice(rows, 512)):
            for row, found in pool.map(read, batch):
                if isinstance(found, str):
                    broken[row] = found
                else:
                    pixels[row] = found
    numbers, class_names = _as_numbers(labels, items)
    notices = (*items.notices, *notices, *on_broken(items.source, names, broken, strict=how.strict), how.in_words())
    images = Images(torch.from_numpy(pixels), numbers, source=items.source, notices=notices, class_names=class_names)
    kept = [row for row in range(items.count) if row not in broken]
    return images.take(torch.tensor(kept)) if broken else images


def _fetched(items: _Items, names: list[str], labels: list[Any]) -> Iterator[tuple[int, Any]]:
    """Yield each row with its image, and add what it is called and its label to the lists."""
    for row in range(items.count):
        image, label = _split_item(items.get(row))
        names.append(str(image) if isinstance(image, str | os.PathLike) else f"image {row}")
        labels.append(label)
        yield row, image


def _split_item(item: Any) -> tuple[Any, Any]:
    """Return the image and the label of one item of a set; None where it has no label."""
    if isinstance(item, Mapping):
        keys = {str(key).lower(): key for key in item}
        image = next((keys[name] for name in _IMAGE_KEYS if name in keys), None)
        label = next((keys[name] for name in _LABEL_KEYS if name in keys), None)
        if image is None:
            raise DataError(
                f"an item of data has the keys {', '.join(map(str, item))}; name its image {_IMAGE_KEYS[0]!r}"
            )
        return item[image], None if label is None else item[label]
    if isinstance(item, tuple | list) and len(item) and _is_image(item[0]):
        return item[0], item[1] if len(item) > 1 else None
    return item, None


def _is_image(value: Any) -> bool:
    return isinstance(value, Image.Image | str | os.PathLike | bytes) or (_is_array(value) and value.ndim >= 2)


def _span(images: Sequence[Any]) -> tuple[float, float]:
    """Return the smallest and the largest value of those that are arrays of floats; (0, 0) where none is."""
    arrays = [_to_numpy(image) for image in images if _is_array(image)]
    floats = [array for array in arrays if array.dtype.kind == "f" and array.size]
    return min([0.0, *(float(array.min()) for array in floats)]), max([0.0, *(float(array.max()) for array in floats)])


def _look(image: Any, span: tuple[float, float]) -> Look | str:
    """Return a look at an image, or why it cannot be read."""
    try:
        return look_at(_as_picture(image, span))
    except _Unreadable as error:
        return str(error)


class _Unreadable(DataError):
    """A picture's file that cannot be read, as against an object that is no image at all."""


def _prepared(how: Preparation, span: tuple[float, float], item: tuple[int, Any]) -> tuple[int, np.ndarray | str]:
    """Return the row and its uint8 (C, size, size), or why its file cannot be read."""
    row, image = item
    try:
        return row, prepare(_as_picture(image, span), how)
    except _Unreadable as error:
        return row, str(error)


def _as_picture(image: Any, span: tuple[float, float]) -> Image.Image:
    """Return a PIL picture, a file, bytes or an array as a picture, upright.

    Args:
        span: smallest and largest float of the set, which say how floats are scaled.
    """
    try:
        if isinstance(image, Image.Image):
            return upright(image)
        if isinstance(image, str | os.PathLike | bytes):
            return decode(image if isinstance(image, bytes) else _read(Path(image)))
    except (DataError, OSError, SyntaxError) as error:
        raise _Unreadable(str(error)) from None
    if not _is_array(image) or image.ndim not in (2, 3):
        shape = f" of shape {tuple(image.shape)}" if _is_array(image) else ""
        raise DataError(
            f"an item of data is of type {_kind(image)}{shape}; an image is a PIL image, a path, or (H, W[, C])"
        )
    pixels = as_bytes(_to_numpy(image), "an item of data", span=span)
    if pixels.ndim == 3 and pixels.shape[2] not in (1, 3, 4) and pixels.shape[0] in (1, 3, 4):
        pixels = pixels.transpose(1, 2, 0)
    if pixels.ndim == 3 and pixels.shape[2] not in (1, 3, 4):
        raise DataError(f"an item of data has shape {pixels.shape}; images have 1, 3 or 4 channels, first or last")
    return Image.fromarray(
        np.ascontiguousarray(pixels[..., 0] if pixels.ndim == 3 and pixels.shape[2] == 1 else pixels)
    )


def _read(path: Path) -> bytes:
    with path.expanduser().open("rb") as file:
        return file.read(MAX_MEMBER_BYTES + 1)


def _as_numbers(labels: Sequence[Any], items: _Items) -> tuple[torch.Tensor | None, tuple[str, ...]]:
    """Return the labels of all items as numbers, and the classes' names; None where any item has no label."""
    if any(label is None for label in labels):
        return None, ()
    if all(isinstance(label, str) for label in labels):
        names = tuple(sorted(set(labels)))
        table = {name: number for number, name in enumerate(names)}
        return torch.tensor([table[label] for label in labels]), names
    try:
        numbers = torch.tensor([_number(label) for label in labels])
    except (TypeError, ValueError, RuntimeError):
        kinds = ", ".join(sorted({_kind(label) for label in labels}))
        raise DataError(
            f"labels of {items.source} are {kinds}; give one whole number or one name for each image"
        ) from None
    if int(numbers.min()) < 0:  # -1 stands for no label
        return None, ()
    return numbers, items.class_names if int(numbers.max()) < len(items.class_names) else ()


def _number(label: Any) -> int:
    """Return a label as a whole number, also of a one-hot array; TypeError or ValueError for other things."""
    value = _to_numpy(label) if _is_array(label) else np.asarray(label)
    if value.size > 1 and value.ndim == 1 and sorted(np.unique(value)) == [0, 1] and value.sum() == 1:
        return int(value.argmax())
    number = value.item()
    if isinstance(number, str) or number != int(number):
        raise ValueError(number)
    return int(number)
