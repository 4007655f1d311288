"""Images and labels as files of numbers hold them, in one form."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from gansmith.data.labels import as_labels, count_of
from gansmith.data.layouts import (
    Range,
    as_bytes,
    as_nhwc,
    count_first,
    range_of,
    scale_of,
    span_of,
    without_axis_of_one,
)
from gansmith.data.prepare import SIZE_STEP, Look, Preparation, laid_over, look_at, settle
from gansmith.errors import DataError
from gansmith.flat_images import order_in_words

MAX_BYTES = 2**31  # of one file or array, unpacked
LOOKS = 256  # images by which color and background are chosen


@dataclass(frozen=True)
class Arrays:
    """Images and labels as a file holds them.

    Attributes:
        pixels: uint8 (N, H, W, C); C is 4 where some are transparent, see `opaque`.
        labels: (N,) whole numbers, or None.
        source: the file, in words.
        notices: sentences on how numbers, layouts and labels were taken, and on what is not used.
        digests: SHA-256 of what they were read from, where sets of such files are published.
        class_names: where labels are names, or files beside them say so.
        numbers: which numbers, as they were stored, became black and white.
        kind: of these numbers, NumPy's letter; i for all whole ones.
        is_count_last: whether the last axis counted images.
    """

    pixels: NDArray[np.uint8]
    labels: NDArray[np.int64] | None
    source: str
    notices: tuple[str, ...] = ()
    digests: tuple[str, ...] = ()
    class_names: tuple[str, ...] = ()
    numbers: Range = field(default_factory=Range)
    kind: str = "i"
    is_count_last: bool = False


Parts = dict[str, Arrays]


def as_arrays(
    images: NDArray[Any],
    labels: NDArray[Any] | None,
    source: str,
    *,
    class_names: Sequence[str] = (),
    like: Arrays | None = None,
) -> Arrays:
    """Return images and labels in our form, whatever their layout and number format.

    Pixels may be uint8, whole numbers from 0 to 255 or on another common scale, 16-bit numbers, or floats in [0, 1] or
    [-1, 1]; labels one number, one name or one one-hot row for each image.

    Args:
        class_names: all names, where labels are names of which some may not occur.
        like: training images, as whose numbers these are taken where they are of the same kind and lie within.
    """
    images = without_axis_of_one(images)
    count, stored, axes = count_of(labels), images, tuple[str, ...]()
    if like is not None and like.is_count_last and images.ndim > 2 and images.shape[-1] == (count or images.shape[-1]):
        images = np.moveaxis(images, -1, 0)
    else:
        images, axes = count_first(images, count)
    is_count_last = images is not stored
    kind = "i" if images.dtype.kind in "iu" else images.dtype.kind
    is_alike = like is not None and like.kind == kind and like.numbers.covers(span_of(images))
    numbers = like.numbers if like and is_alike else range_of(images, source, scale=scale_of(images))
    pixels = as_nhwc(as_bytes(images, numbers), source)
    found = as_labels(labels, len(images), source, class_names=class_names, may_be_ids=like is None)
    said = (numbers.notice,) if numbers.notice else ()
    notices = (*axes, *said, *order_in_words(images), *found.notices)
    if images.ndim == 2 and pixels.shape[3] == 4:
        side = pixels.shape[1]
        notices += (
            f"its rows of {images.shape[1]:,} numbers are taken for {side} x {side} opaque pixels of four channels",
        )
    if pixels.shape[3] == 4 and (pixels[..., 3] == 255).all():
        pixels = pixels[..., :3]
    return Arrays(pixels, found.numbers, source, notices, (), found.class_names, numbers, kind, is_count_last)


def opaque(arrays: Arrays, background: str) -> Arrays:
    """Return transparent images laid over the background, auto as for pictures, and say so; others as they are."""
    if arrays.pixels.shape[3] != 4:
        return arrays
    background = background_of(arrays) if background == "auto" else background
    ground = 255 if background == "white" else 0
    found = np.empty((*arrays.pixels.shape[:3], 3), np.uint8)
    for row, image in enumerate(arrays.pixels):
        found[row] = laid_over(as_picture(image), ground)
    words = f"transparent images are laid over {background}"
    return replace(arrays, pixels=found, notices=(*arrays.notices, words))


def background_of(arrays: Arrays) -> str:
    """Return the background that images, transparent or in color, are laid over where none is asked for."""
    return settle(Preparation(SIZE_STEP), looks_at(arrays))[0].background


def looks_at(arrays: Arrays) -> list[Look]:
    """Return a look at some of these images."""
    some = arrays.pixels[:: max(1, len(arrays.pixels) // LOOKS)][:LOOKS]
    return [look_at(as_picture(image)) for image in some]


def as_picture(image: NDArray[np.uint8]) -> Image.Image:
    """Return an image (H, W, C) as Pillow's."""
    return Image.fromarray(image[..., 0] if image.shape[2] == 1 else np.ascontiguousarray(image))


def joined(each: Sequence[Arrays], source: str) -> Arrays:
    """Return several files' images as one; without labels where one of them has none."""
    if len(each) == 1:
        return each[0]
    shapes = {one.pixels.shape[1:] for one in each}
    if len(shapes) > 1:
        raise DataError(
            f"{source} holds images of several shapes ({', '.join(map(str, sorted(shapes)))}); name one file"
        )
    if len({one.class_names for one in each}) > 1:
        names = sorted({name for one in each for name in one.class_names})
        each = [numbered(one, names) for one in each]
    found = [one.labels for one in each if one.labels is not None]
    return Arrays(
        np.concatenate([one.pixels for one in each]),
        np.concatenate(found) if len(found) == len(each) else None,
        source,
        each[0].notices,
        tuple(digest for one in each for digest in one.digests),
        each[0].class_names,
        each[0].numbers,
        each[0].kind,
    )


def numbered(arrays: Arrays, names: Sequence[str]) -> Arrays:
    """Return images whose labels are numbers of these names, and after them of others that they have."""
    if arrays.labels is None or not arrays.class_names or tuple(names) == arrays.class_names:
        return arrays
    every = (*names, *(name for name in arrays.class_names if name not in names))
    numbers = np.array([every.index(name) for name in arrays.class_names], np.int64)
    return replace(arrays, labels=numbers[arrays.labels], class_names=every)


def read_limited(path: Path) -> bytes:
    with path.open("rb") as file:
        data = file.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise DataError(f"{path} is larger than {MAX_BYTES:,} bytes; take fewer images")
    return data
