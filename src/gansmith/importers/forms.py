"""What other programs' generators take and put out: which input is the label, the layout and the range of images.

What a file does not say is decided from its shapes, its names, its last layer, and from images that it draws; each
decision comes with a sentence for the user. NumPy alone is needed here.
"""

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gansmith.errors import DataError
from gansmith.flat_images import are_channels_last, order_in_words, square

Array = NDArray[Any]
DRAWN = 64  # images, of standard normal latents, by which the range and the layout are decided
_LABEL_NAMES = re.compile(r"label|class|cond|one.?hot|categor|digit|target|^[yc]$", re.IGNORECASE)
_LATENT_NAMES = re.compile(r"noise|latent|^z", re.IGNORECASE)
# Of drawn values: so far below zero there are images in [-1, 1], so far above it those in 0 to 255. A linear last layer
# may pass the ends of its range a little; positive values between are standardised ones.
_NEGATIVE, _PASSED, _BYTES = -0.1, 2.0, 16.0


@dataclass(frozen=True)
class Input:
    """An input of a generator.

    Attributes:
        shape: without the batch; None where the file leaves a size open.
        is_float: whether it takes floating-point numbers, not whole ones.
    """

    name: str
    shape: tuple[int | None, ...]
    is_float: bool

    @property
    def size(self) -> int | None:
        """How many numbers it takes for an image; None where that is open."""
        return None if None in self.shape else math.prod(size for size in self.shape if size is not None)

    @property
    def is_vector(self) -> bool:
        """Whether at most one of its sizes is not 1."""
        return sum(size != 1 for size in self.shape) <= 1


@dataclass(frozen=True)
class Signature:
    """The inputs of a generator by what they are.

    Attributes:
        latents, labels: positions among the inputs; None where it takes no labels.
        one_hot: length of one-hot labels; 0 where labels are class ids.
        notices: a sentence on what was not certain.
    """

    latents: int
    labels: int | None = None
    one_hot: int = 0
    notices: tuple[str, ...] = ()

    def values(self, z: Array, y: NDArray[np.int64]) -> dict[int, Array]:
        """Return what the inputs are given, by their positions: latents (N, latent_dim), and perhaps class ids (N,)."""
        if self.labels is None:
            return {self.latents: z}
        return {self.latents: z, self.labels: np.eye(self.one_hot, dtype=np.float32)[y] if self.one_hot else y}


def choose_inputs(inputs: Sequence[Input], num_classes: int | None = None) -> Signature:
    """Return which input takes latents and which labels.

    Args:
        num_classes: as the user gave it, for files that leave it open.

    Raises DataError where there is anything but latents of a fixed length, and perhaps one label.
    """
    listing = ", ".join(f"{entry.name} ({'float' if entry.is_float else 'integer'}, {entry.shape})" for entry in inputs)
    if len(inputs) not in (1, 2) or not all(entry.is_vector for entry in inputs):
        raise DataError(f"its inputs are {listing}; latents (N, latent_dim), and perhaps one label, can be given")
    labels, notices = (None, ()) if len(inputs) == 1 else _label_input(inputs, num_classes)
    latents = 0 if labels is None else 1 - labels
    if not inputs[latents].is_float:
        raise DataError(f"its inputs are {listing}; none takes latents, which are floating-point numbers")
    if inputs[latents].size is None:
        raise DataError(f"the length of its latents {inputs[latents].name} is not fixed; export it with a fixed one")
    if labels is None or inputs[labels].size == 1:
        return Signature(latents, labels, notices=notices)
    one_hot = inputs[labels].size or num_classes
    if one_hot is None:
        raise DataError(f"the length of its one-hot labels {inputs[labels].name} is open; give it as --num-classes")
    return Signature(latents, labels, one_hot, notices)


def _label_input(inputs: Sequence[Input], num_classes: int | None) -> tuple[int, tuple[str, ...]]:
    """Return which of two inputs takes labels, and a sentence where their order decided."""
    tests: tuple[Callable[[Input], bool], ...] = (
        lambda entry: not entry.is_float,
        lambda entry: entry.size == 1,
        lambda entry: bool(_LABEL_NAMES.search(entry.name)),
        lambda entry: not _LATENT_NAMES.search(entry.name),
        lambda entry: num_classes is not None and entry.size in (None, num_classes),
    )
    for test in tests:
        found = [k for k, entry in enumerate(inputs) if test(entry)]
        if len(found) == 1:
            return found[0], ()
    sizes = [entry.size or 0 for entry in inputs]
    label = 0 if 0 < sizes[0] < sizes[1] else 1  # latents are longer than one-hot labels, mostly
    return label, (
        f"its input {inputs[label].name} is taken for one-hot labels, {inputs[1 - label].name} for latents; if it is "
        "the other way round, give --num-classes",
    )


@dataclass(frozen=True)
class ImageForm:
    """How a generator's output becomes images.

    Attributes:
        low, high: values of black and of white.
        has_channels_last: of an output whose layout its shape leaves open.
    """

    low: float = -1.0
    high: float = 1.0
    has_channels_last: bool = False

    def images(self, output: Array) -> NDArray[np.float32]:
        """Return (N, C, H, W) in [-1, 1]."""
        values = as_nchw(output, has_channels_last=self.has_channels_last).astype(np.float32)
        if (self.low, self.high) == (-1, 1):
            return values
        return np.asarray((values - self.low) * (2 / (self.high - self.low)) - 1, np.float32)


def form_of(output: Array, last_layer: str = "") -> tuple[ImageForm, list[str]]:
    """Return the form of images from those drawn of normal latents, and a sentence on each thing decided.

    Args:
        last_layer: tanh or sigmoid where the file ends in one; else "".
    """
    notices, is_last = list[str](), False
    if sum(size != 1 for size in output.shape[1:]) == 1:
        flat = output.reshape(len(output), -1)
        is_last = square(flat.shape[1])[1] == 3 and are_channels_last(flat)
        notices += order_in_words(flat)
    (low, high), reason = _range_of(output, last_layer)
    span = {1.0: f"[{low:g}, 1]", 255.0: "0 to 255"}[high]
    return ImageForm(low, high, is_last), [*notices, f"its images are taken to be in {span}, because {reason}"]


def _range_of(output: Array, last_layer: str) -> tuple[tuple[float, float], str]:
    """Return the values of black and white, and how that was decided. Raises DataError for those of another scale."""
    if output.dtype == np.uint8:
        return (0.0, 255.0), "its output is bytes"
    low, high = np.percentile(output.astype(np.float64), (1, 99))
    drawn = f"values of {len(output)} images drawn"
    if last_layer == "tanh" and low > _NEGATIVE and high > 0.5:  # trained on images in [0, 1]
        return (0.0, 1.0), f"its last layer is a tanh, but {drawn} go down to {output.min():.2g} only"
    if last_layer:
        return (0.0 if last_layer == "sigmoid" else -1.0, 1.0), f"its last layer is a {last_layer}"
    is_positive = high > _PASSED and low > -high / 2
    if is_positive and high > _BYTES:
        return (0.0, 255.0), f"{drawn} go up to {output.max():.4g}"
    if is_positive:
        raise DataError(
            f"{drawn} go from {output.min():.3g} to {output.max():.3g}, which is neither [-1, 1] nor [0, 1] nor 0 to "
            "255; undo a standardisation inside the generator, or end it in tanh or sigmoid"
        )
    if low < _NEGATIVE:
        return (-1.0, 1.0), f"{drawn} go down to {output.min():.2g}"
    return (0.0, 1.0), f"{drawn} go from {output.min():.2g} to {output.max():.2g}"


def as_nchw(output: Array, *, has_channels_last: bool = False) -> Array:
    """Return an output of any layout as (N, C, H, W): sizes of 1 may be anywhere, and images may be flat.

    Raises DataError for an output that is no square images in one channel or three.
    """
    n = len(output) if output.ndim else 0
    sizes = [size for size in output.shape[1:] if size != 1]
    squeezed = output.reshape(n, *sizes)
    side, channels = square(sizes[0]) if len(sizes) == 1 else (0, 0)
    if side and has_channels_last:
        return np.moveaxis(squeezed.reshape(n, side, side, channels), 3, 1)
    if side:
        return squeezed.reshape(n, channels, side, side)
    if len(sizes) == 2 and sizes[0] == sizes[1]:
        return squeezed[:, None]
    if len(sizes) == 3 and sizes[0] == 3 and sizes[1] == sizes[2]:
        return squeezed
    if len(sizes) == 3 and sizes[2] == 3 and sizes[0] == sizes[1]:
        return np.moveaxis(squeezed, 3, 1)
    raise DataError(
        f"its output has shape {tuple(output.shape[1:])} for one latent, which is no square image in one channel or "
        "three, as (C, H, W), (H, W, C), (H, W) or flat"
    )


def draw_latents(latent_dim: int) -> NDArray[np.float32]:
    """Return the latents (DRAWN, latent_dim) by which a file's form is decided."""
    return np.random.RandomState(0).normal(size=(DRAWN, latent_dim)).astype(np.float32)
