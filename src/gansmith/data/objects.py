"""Images from objects of a Python program: arrays, PIL pictures, paths, map-style data sets of torch, Hugging Face's.

None of these libraries is imported: an object is known by what it can do. Float pixels are taken by the range of the
whole set, as in files.
"""

import os
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from gansmith.data.arrays import as_arrays
from gansmith.data.images import MAX_IMAGES, Images
from gansmith.data.label_files import LABEL_KEYS
from gansmith.data.labels import Labels, as_labels
from gansmith.data.layouts import as_bytes, range_of, scale_of, span_of
from gansmith.data.official import called_official
from gansmith.data.pictures import ENDINGS, on_broken, read_file, rows_to_look_at
from gansmith.data.prepare import (
    DAMAGE,
    Look,
    Preparation,
    decode,
    look_at,
    look_into,
    lost_in_words,
    lost_properties,
    prepare,
    quiet,
    settle,
    unforeseen,
    upright,
)
from gansmith.data.sources import arrays_as_images, as_prepared
from gansmith.data.tables import choose_columns, find_labels, split_cell
from gansmith.errors import DataError, NotFoundError, reason_of
from gansmith.flat_images import square

_IMAGE_KEYS = ("image", "img", "images", "pixel_values", "x")
_BATCH_BYTES = 2**26  # of decoded pictures at once
_MIN_FLAT = 64  # numbers in a cell of a frame that are an image: fewer may be a box or an embedding
_ALLOWED = (
    "give a data set's name, a path, gansmith.Images, an array, a list of PIL images, arrays or paths, a torch data "
    "set with __len__ and __getitem__, a DataFrame of pixels, or a Hugging Face Dataset"
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
            pairs (image, label), a map-style torch data set, a pandas DataFrame of pixels, or a Hugging Face `Dataset`.

    Raises DataError for anything else, and for what is no image in it.
    """
    if isinstance(data, Images):
        images = as_prepared(data, how)
        if images.labels is not None:
            as_labels(images.labels.numpy(), len(images), images.source)  # refuses numbers that are no class ids
        return images
    if _is_pair_of_pairs(data):
        raise DataError("data is a pair of pairs, as Keras gives them for training and test; give the first, data[0]")
    data = _as_plain_pair(data)
    if isinstance(data, Mapping):
        keys = ", ".join(repr(key) for key in list(data)[:6]) or "nothing"
        raise DataError(f"data is a mapping of {keys}; give one of its values, or a pair (images, labels)")
    if hasattr(data, "iloc") and hasattr(data, "columns"):
        listed = _listed_in_frame(data)
        return _from_frame(data, how) if listed is None else as_images(listed, how)
    if _is_array(data) and data.ndim == 1 and _to_numpy(data).dtype.kind in "UO":  # paths or pictures
        return as_images(_to_numpy(data).tolist(), how)
    if _is_array(data):
        return _from_arrays(data, None, how)
    if _is_pair(data):
        return _from_arrays(data[0], data[1], how)
    if _is_pair_of_lists(data):
        pairs = list(zip(data[0], data[1], strict=True))
        items = _Items(len(pairs), pairs.__getitem__, "images in memory")
    elif hasattr(data, "features") and hasattr(data, "column_names"):
        items = _hugging_face_items(data)
    elif _is_by_row(data):
        items = _Items(len(data), data.__getitem__, f"{_kind(data)} in memory", _class_names(data))
    else:
        can_be_read = "can only be read in order" if hasattr(data, "__iter__") else "is no set of images"
        if hasattr(data, "dataset"):  # of torch's DataLoader
            raise DataError(f"data is a {_kind(data)}, which {can_be_read}; give its data set, data.dataset")
        raise DataError(f"data is of type {_kind(data)}, which {can_be_read}; {_ALLOWED}")
    if items.count and _is_flat(_fetch(items, 0)[0]):
        return _from_rows(items, how)
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
    spans, found = _spans(items), []
    for item in items:
        path = Path(item) if isinstance(item, str | os.PathLike) else None
        if path is not None and not path.expanduser().exists():
            raise NotFoundError(f"there is no picture {str(item)!r}; give the path of one")
        if path is not None and path.expanduser().is_dir():
            raise DataError(f"{path} is a folder; give the path of a picture in it")
        try:
            found.append(_as_picture(item, spans))
        except _Unreadable as error:
            name = "a picture" if path is None else path
            raise DataError(f"{name} cannot be read ({error}); give a whole picture") from None
    return found


def _kind(data: Any) -> str:
    return type(data).__name__


def _is_by_row(data: Any) -> bool:
    """Return whether this has rows that are asked for by number; torch's IterableDataset only inherits the method."""
    is_stream = isinstance(data, torch.utils.data.IterableDataset | str | bytes)
    return hasattr(data, "__len__") and hasattr(data, "__getitem__") and not is_stream


def _is_array(data: Any) -> bool:
    """Return whether this is an array of NumPy, torch or another library that NumPy can read."""
    return hasattr(data, "shape") and hasattr(data, "ndim") and hasattr(data, "dtype")


def _to_numpy(array: Any) -> np.ndarray:
    """Return an array, or a list of numbers or names, as NumPy's; floats that NumPy does not know as float32."""
    if isinstance(array, torch.Tensor):
        if array.layout != torch.strided:
            raise DataError("a Tensor is sparse; images and labels are dense arrays, so give tensor.to_dense()")
        array = array.detach().cpu()
        is_known = not array.is_floating_point() or array.dtype in (torch.float16, torch.float32, torch.float64)
        array = array if is_known else array.float()
    try:
        found = np.asarray(array)
        return found.astype(np.float32) if found.dtype.name == "bfloat16" else found  # of JAX and TensorFlow
    except ValueError:
        raise DataError(f"a {_kind(array)} holds lists of several lengths; give lists of one, or an array") from None


def _is_flat(image: Any) -> bool:
    """Return whether this is a square image as a row of numbers."""
    return _is_array(image) and image.ndim == 1 and square(image.shape[0])[0] > 1


def _is_pair_of_pairs(data: Any) -> bool:
    """Return whether this is ((images, labels), (images, labels)), with images as arrays of several."""
    are_pairs = isinstance(data, tuple) and len(data) == 2 and all(isinstance(one, tuple) for one in data)
    return are_pairs and all(len(one) == 2 and getattr(one[0], "ndim", 0) > 2 for one in data)


def _as_plain_pair(data: Any) -> Any:
    """Return (images, labels) with pandas' frames and series in it as arrays; anything else as it is."""
    if not isinstance(data, tuple) or len(data) != 2 or not hasattr(data[0], "to_numpy"):
        return data
    return tuple(one.to_numpy() if hasattr(one, "to_numpy") else one for one in data)


def _is_pair(data: Any) -> bool:
    """Return whether this is (images, labels), with images as an array of any layout, flat ones included.

    In a list of both, which might be of two images, labels are one number or name for each.
    """
    if not isinstance(data, tuple | list) or len(data) != 2 or not _is_array(data[0]):
        return False
    images, labels = data
    if isinstance(data, list):
        return images.ndim in (3, 4) and _are_labels(labels, images.shape[0]) and np.ndim(next(iter(labels))) == 0
    if not (labels is None or _is_array(labels) or isinstance(labels, Sequence)) and hasattr(labels, "__iter__"):
        raise DataError(f"labels are of type {_kind(labels)}; give an array or a list, such as list(labels)")
    if _is_array(labels) and tuple(labels.shape) == tuple(images.shape):  # of two images
        return False
    return images.ndim >= 3 or (images.ndim == 2 and square(images.shape[1])[0] > 1 and hasattr(labels, "__len__"))


def _is_pair_of_lists(data: Any) -> bool:
    """Return whether this is (images, labels) with images as a list of pictures, arrays or paths."""
    if not isinstance(data, tuple | list) or len(data) != 2 or not isinstance(data[0], tuple | list) or not data[0]:
        return False
    return all(map(_looks_like_image, data[0])) and _are_labels(data[1], len(data[0]))


def _are_labels(values: Any, count: int) -> bool:
    """Return whether these are so many values, none of them an image."""
    if isinstance(values, str | bytes | Mapping) or not hasattr(values, "__len__") or not hasattr(values, "__iter__"):
        return False
    return len(values) == count > 0 and not any(map(_looks_like_image, values))


def _looks_like_image(value: Any) -> bool:
    """Return whether a value is an image and no name of a class."""
    return _is_image(value) and (not isinstance(value, str) or value.lower().endswith(ENDINGS))


def _from_arrays(images: Any, labels: Any, how: Preparation, notices: tuple[str, ...] = ()) -> Images:
    arrays = as_arrays(
        _to_numpy(images),
        None if labels is None else _to_numpy(labels),
        "the array in memory",
    )
    arrays = replace(arrays, source="arrays in memory", notices=(*notices, *arrays.notices))
    return called_official(replace(arrays_as_images(arrays, how, name="images"), class_names=arrays.class_names))


def _listed_in_frame(frame: Any) -> list[Any] | None:
    """Return the paths, pictures or arrays in a DataFrame's column, with their labels where a column holds them."""
    columns = {str(name): frame.iloc[:, k] for k, name in enumerate(frame.columns)} if len(frame) else {}
    first = {name: _unwrapped(cells.iloc[0]) for name, cells in columns.items()}
    images = [name for name, cell in first.items() if _looks_like_image(cell) or _is_row_of_pixels(cell)]
    if len(images) != 1:
        return None
    labels = sorted((name for name in columns if name.lower() in LABEL_KEYS), key=_label_rank)
    labels = labels or [name for name in columns if name not in images][: len(columns) == 2]
    found = [_unwrapped(cell) for cell in columns[images[0]]]
    return list(zip(found, columns[labels[0]].tolist(), strict=True)) if labels else found


def _unwrapped(cell: Any) -> Any:
    """Return the picture in a cell of Hugging Face's form, or numbers in a list as an array; others as they are."""
    if isinstance(cell, Mapping) and "bytes" in cell:
        return cell["bytes"] or Path(cell.get("path") or "")
    if not isinstance(cell, list) or not cell or isinstance(cell[0], str | Mapping):
        return cell
    try:
        return np.asarray(cell)
    except ValueError:  # lists of several lengths
        return cell


def _is_row_of_pixels(cell: Any) -> bool:
    return _is_flat(cell) and cell.dtype.kind in "biuf" and cell.size >= _MIN_FLAT


def _from_frame(frame: Any, how: Preparation) -> Images:
    """Return the images of a pandas DataFrame: a row of pixels each, as in a table of text."""
    if not len(frame):
        raise DataError("the DataFrame in memory holds no rows; a row of pixels for each image is needed")
    source = "the DataFrame in memory"
    columns = choose_columns([str(name) for name in frame.columns], frame.iloc[0].tolist(), source)
    pixels = frame.iloc[:, list(columns.pixels)].to_numpy()
    try:
        if len(columns.pixels) == 1:  # all numbers of an image in one cell
            pixels = np.array([split_cell(cell) for cell in pixels[:, 0]], np.float64)
        elif pixels.dtype.kind not in "biuf":
            pixels = pixels.astype(np.float64)
    except (AttributeError, TypeError, ValueError):
        raise DataError(f"{source} has cells that are no numbers; give its pixels as columns of numbers") from None
    labels = None if columns.label is None else frame.iloc[:, columns.label].to_numpy()
    table = find_labels(pixels, labels, columns, source)
    return _from_arrays(table.pixels, table.labels, how, table.notices)


def _from_rows(items: _Items, how: Preparation) -> Images:
    """Return the images of a set of flat ones."""
    pairs = [_fetch(items, row) for row in range(items.count)]
    try:
        pixels = np.stack([_to_numpy(image) for image, _ in pairs])
    except ValueError:
        raise DataError(f"{items.source} holds flat images of several sizes; give those of one") from None
    found = _as_numbers([label for _, label in pairs], items)
    images = _from_arrays(pixels, found.numbers, how, (*items.notices, *found.notices))
    return replace(images, source=items.source, class_names=found.class_names or images.class_names)


def _class_names(data: Any) -> tuple[str, ...]:
    """Return the class names of a torch data set, of the one that it is a subset of, or of all that it joins."""
    for _ in range(8):
        names = getattr(data, "classes", None)
        if isinstance(names, Sequence) and not isinstance(names, str):
            return tuple(str(name) for name in names)
        joined = getattr(data, "datasets", None)  # of torch's ConcatDataset
        if isinstance(joined, list | tuple) and len(each := {_class_names(one) for one in joined}) == 1:
            return each.pop()
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
    labels = sorted(named or [column for column in features if column.lower() in LABEL_KEYS], key=_label_rank)
    column, label = images[0], labels[0] if labels else None
    notices = [
        f"of the columns of {what} {', '.join(found)}, {found[0]} was taken"
        for what, found in (("images", images), ("labels", labels))
        if len(found) > 1
    ]
    if not labels and len(features) > len(images):
        others = ", ".join(column for column in features if column not in images)
        notices.append(
            f"none of its columns {others} is called as labels are, so images are used without; rename it to label"
        )
    if hasattr(data, "with_format"):
        data = data.with_format(None).select_columns([column, *([label] if label else [])])
    if pictures:  # bytes are decoded here, upright and within limits
        data = data.cast_column(column, type(features[column])(decode=False))
    names = tuple(features[label].names) if label in named else ()
    get = partial(_hugging_face_row, data, column, label)
    return _Items(len(data), get, "a Hugging Face data set in memory", names, tuple(notices))


def _label_rank(column: str) -> int:
    return LABEL_KEYS.index(column.lower()) if column.lower() in LABEL_KEYS else len(LABEL_KEYS)


def _hugging_face_row(data: Any, column: str, label: str | None, row: int) -> tuple[Any, Any]:
    found = data[row]
    return _unwrapped(found[column]), found[label] if label else None


def _from_items(items: _Items, how: Preparation) -> Images:
    if not 0 < items.count <= MAX_IMAGES:
        raise DataError(f"{items.source} holds {items.count:,} images; give between 1 and {MAX_IMAGES:,}")
    # Arrays are scaled as all of them are; of pictures, which may be large, one is held at a time.
    fetched = (_fetch(items, row)[0] for row in rows_to_look_at(items.count))
    some = [image if _is_array(image) else _look(image, {}) for image in fetched]
    spans = _spans(arrays := [each for each in some if _is_array(each)])
    found, words = [_look(each, spans) if _is_array(each) else each for each in some], _in_words(arrays, spans)
    del some, arrays
    looks = [look for look in found if not isinstance(look, str)]
    if not looks:
        raise DataError(f"no image of {items.source} can be read: {found[0]}; give others")
    asked = how
    how, notices = settle(how, looks)
    pixels = np.zeros((items.count, how.channels, how.size, how.size), np.uint8)
    labels: list[Any] = []
    names: list[str] = []
    broken, seen = dict[int, str](), unforeseen(asked, how, looks)
    read = partial(_prepared, how, spans, frozenset(seen))
    with quiet(), ThreadPoolExecutor() as pool:
        for batch in _batches(_fetched(items, names, labels)):
            for row, image, lost in pool.map(read, batch):
                seen.update(lost)
                if isinstance(image, str):
                    broken[row] = image
                else:
                    pixels[row] = image
    broken_words = on_broken(items.source, names, broken, strict=how.strict)
    kept = [row for row in range(items.count) if row not in broken]
    found_labels = _as_numbers([labels[row] for row in kept], replace(items, count=len(kept)))
    numbers = None if found_labels.numbers is None else torch.from_numpy(found_labels.numbers)
    notices = (*items.notices, *found_labels.notices, *words, *notices)
    notices = (*notices, *lost_in_words(seen, how, items.count), *broken_words, how.in_words())
    pixels = pixels[kept] if broken else pixels
    return Images(
        torch.from_numpy(pixels), numbers, source=items.source, notices=notices, class_names=found_labels.class_names
    )


def _fetched(items: _Items, names: list[str], labels: list[Any]) -> Iterator[tuple[int, Any]]:
    """Yield each row with its image, and add what it is called and its label to the lists."""
    for row in range(items.count):
        image, label = _fetch(items, row)
        names.append(str(image) if isinstance(image, str | os.PathLike) else f"image {row}")
        labels.append(label)
        yield row, image


def _batches(rows: Iterable[tuple[int, Any]]) -> Iterator[list[tuple[int, Any]]]:
    """Yield rows and their images, so many at a time as a budget of memory holds, decoded, and 512 at most."""
    batch, size = list[tuple[int, Any]](), 0
    for row, image in rows:
        batch.append((row, image))
        if isinstance(image, Image.Image):
            size += 4 * image.width * image.height
        size += getattr(image, "nbytes", 0)
        if len(batch) == 512 or size > _BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _fetch(items: _Items, row: int) -> tuple[Any, Any]:
    """Return the image and the label of a row; an _Unreadable in place of an image that its set cannot read."""
    try:
        return _split_item(items.get(row))
    except (OSError, SyntaxError) as error:  # of Pillow, in the loader of a set
        return _Unreadable(reason_of(error)), None


def _split_item(item: Any) -> tuple[Any, Any]:
    """Return the image and the label of one item of a set; None where it has no label."""
    if isinstance(item, Mapping):
        keys = {str(key).lower(): key for key in item}
        image = next((keys[name] for name in _IMAGE_KEYS if name in keys), None)
        label = next((keys[name] for name in LABEL_KEYS if name in keys), None)
        if image is None:
            raise DataError(
                f"an item of data has the keys {', '.join(map(str, item))}; name its image {_IMAGE_KEYS[0]!r}"
            )
        return item[image], None if label is None else item[label]
    is_missing = isinstance(item, tuple) and len(item) == 2 and item[0] is None
    if is_missing or (isinstance(item, tuple | list) and len(item) and (_is_image(item[0]) or _is_flat(item[0]))):
        return item[0], item[1] if len(item) > 1 else None
    return item, None


def _is_image(value: Any) -> bool:
    return isinstance(value, Image.Image | str | os.PathLike | bytes) or (_is_array(value) and value.ndim >= 2)


Spans = Mapping[str, tuple[tuple[float, float], float]]


def _spans(images: Sequence[Any]) -> Spans:
    """Return the smallest and the largest value of arrays of floats, and of whole numbers, and their white."""
    return {kind: (_span(arrays), _scale(arrays)) for kind, arrays in _by_kind(images).items()}


def _by_kind(images: Sequence[Any]) -> dict[str, list[np.ndarray]]:
    kinds: dict[str, list[np.ndarray]] = {"floats": [], "whole": []}
    for array in [_to_numpy(image) for image in images if _is_array(image)]:
        if array.size and array.dtype.kind in "iuf":
            kinds[_kind_of_numbers(array)].append(array)
    return kinds


def _span(arrays: Sequence[np.ndarray]) -> tuple[float, float]:
    each = [(0.0, 0.0), *map(span_of, arrays)]
    return min(low for low, _ in each), max(high for _, high in each)


def _scale(arrays: Sequence[np.ndarray]) -> float:
    return scale_of(np.stack(arrays)) if len({array.shape for array in arrays}) == 1 else 255.0


def _kind_of_numbers(array: np.ndarray) -> str:
    return "floats" if array.dtype.kind == "f" else "whole"


def _in_words(images: Sequence[Any], spans: Spans) -> tuple[str, ...]:
    """Return how numbers of arrays were taken, where they are not 0 to 255, as sentences."""
    found = ((arrays[0], *spans[kind]) for kind, arrays in _by_kind(images).items() if arrays)
    notices = (range_of(array, "data", span=span, scale=scale).notice for array, span, scale in found)
    return tuple(notice for notice in notices if notice)


def _look(image: Any, spans: Spans) -> Look | str:
    """Return a look at an image, or why it cannot be read."""
    if isinstance(image, str | os.PathLike | bytes):
        try:
            return look_into(image if isinstance(image, bytes) else read_file(Path(image).expanduser()))
        except (DataError, OSError) as error:
            return str(error)
    try:
        mode = image.mode if isinstance(image, Image.Image) else ""
        return replace(look_at(_as_picture(image, spans)), mode=mode)
    except _Unreadable as error:
        return str(error)


class _Unreadable(DataError):
    """A picture's file that cannot be read, as against an object that is no image at all."""


def _prepared(
    how: Preparation, spans: Spans, watched: Collection[str], item: tuple[int, Any]
) -> tuple[int, np.ndarray | str, Sequence[str]]:
    """Return the row, its uint8 (C, size, size) or why its file cannot be read, and what it loses."""
    row, image = item
    try:
        picture = _as_picture(image, spans)
        return row, prepare(picture, how), lost_properties(picture, watched)
    except (_Unreadable, DataError) as error:
        return row, str(error), ()


def _as_picture(image: Any, spans: Spans) -> Image.Image:
    """Return a PIL picture, a file, bytes or an array as a picture, upright.

    Args:
        spans: of the set, which say how numbers are scaled.
    """
    if image is None or isinstance(image, _Unreadable):
        raise _Unreadable("it is missing") if image is None else image
    try:
        if isinstance(image, Image.Image):
            return upright(image)
        if isinstance(image, str | os.PathLike | bytes):
            return decode(image if isinstance(image, bytes) else read_file(Path(image).expanduser()))
    except AssertionError:  # of Pillow, about a file that a `with` block has closed
        raise _Unreadable("its file is closed; call load() of the picture before the end of the with block") from None
    except (*DAMAGE, AttributeError) as error:
        raise _Unreadable(reason_of(error)) from None
    if not _is_array(image) or image.ndim not in (2, 3):
        shape = f" of shape {tuple(image.shape)}" if _is_array(image) else ""
        raise DataError(
            f"an item of data is of type {_kind(image)}{shape}; an image is a PIL image, a path, or (H, W[, C])"
        )
    array = _to_numpy(image)
    span, scale = spans[_kind_of_numbers(array)]
    pixels = as_bytes(array, range_of(array, "an item of data", span=span, scale=scale))
    if pixels.ndim == 3 and pixels.shape[2] not in (1, 3, 4) and pixels.shape[0] in (1, 3, 4):
        pixels = pixels.transpose(1, 2, 0)
    if pixels.ndim == 3 and pixels.shape[2] not in (1, 3, 4):
        raise DataError(f"an item of data has shape {pixels.shape}; images have 1, 3 or 4 channels, first or last")
    return Image.fromarray(
        np.ascontiguousarray(pixels[..., 0] if pixels.ndim == 3 and pixels.shape[2] == 1 else pixels)
    )


def _as_numbers(labels: Sequence[Any], items: _Items) -> Labels:
    """Return the labels of all items as numbers; none where no item has one."""
    if all(label is None for label in labels):
        return Labels()
    values = [_plain(label) for label in labels]
    rows = [value for value in values if isinstance(value, np.ndarray)]
    if len(rows) == len(values) and len({row.shape for row in rows}) == 1:
        array = np.stack(rows)  # one-hot
    else:
        array = np.empty(len(values), object)
        for row, value in enumerate(values):  # which may be lists, that NumPy would take apart
            array[row] = value
    found = as_labels(array, items.count, items.source)
    is_named = found.numbers is not None and int(found.numbers.max()) < len(items.class_names)
    return replace(found, class_names=items.class_names) if is_named and not found.class_names else found


def _plain(label: Any) -> Any:
    """Return a label of NumPy, torch or Python as a number or name; several numbers as an array."""
    if isinstance(label, list | tuple) and label and all(isinstance(one, int | float) for one in label):
        label = np.asarray(label)
    if not _is_array(label):
        return label
    array = _to_numpy(label)
    return array.item() if array.size == 1 else array.reshape(-1)
