"""Images as one uint8 tensor with labels, and the table of data sets they come from.

`DATASETS` maps a name to the function that finds or draws it; one file per kind of source. Only the training split
is trained on; `split` holds a fixed part of it out. The two conversions between stored bytes and what networks see
live here too.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from gansmith.config import choose

SPLITS = ("fit", "validation", "test")
MOST_IMAGES = 4_000_000  # in one set; labels take eight bytes each, however small the images are


@dataclass(frozen=True)
class ImageSpec:
    """What networks must know of images; measured from data, never typed."""

    size: int
    channels: int
    num_classes: int


@dataclass(frozen=True)
class Images:
    """A whole data set in memory.

    Attributes:
        pixels: uint8 (N, C, H, W).
        labels: int64 (N,), or None where the set has none.
        source: where the pixels came from, in words.
        notices: one line each for what a user should know of this source.
        frequencies: the share of each class among the images that these stand for; empty where it is their own share.
    """

    name: str
    pixels: Tensor
    labels: Tensor | None
    source: str
    notices: tuple[str, ...] = field(default=())
    frequencies: tuple[float, ...] = ()

    def __len__(self) -> int:
        return len(self.pixels)

    @property
    def num_classes(self) -> int:
        return 0 if self.labels is None else int(self.labels.max()) + 1

    @property
    def spec(self) -> ImageSpec:
        return ImageSpec(self.pixels.shape[-1], self.pixels.shape[1], self.num_classes)

    @property
    def class_frequencies(self) -> Tensor:
        """Float64 (num_classes,): how often each class is to be drawn, zero for one that no image here shows."""
        assert self.labels is not None
        shares = torch.bincount(self.labels).double()
        if self.frequencies:
            shares = torch.tensor(self.frequencies[: len(shares)], dtype=torch.float64) * (shares > 0)
        return shares / shares.sum()

    @property
    def sha256(self) -> str:
        """A hash of the shape, the pixels and the labels, wherever they were read from."""
        digest = hashlib.sha256(repr(tuple(self.pixels.shape)).encode())
        digest.update(self.pixels.numpy().tobytes())
        if self.labels is not None:
            digest.update(self.labels.numpy().tobytes())
        return digest.hexdigest()

    def take(self, rows: Tensor) -> "Images":
        """These rows only, in this order."""
        return replace(self, pixels=self.pixels[rows], labels=None if self.labels is None else self.labels[rows])

    def shuffled(self, count: int) -> "Images":
        """At most `count` of them, a fixed random choice, since stored sets may be sorted by label."""
        return self.take(torch.randperm(len(self), generator=torch.Generator().manual_seed(0))[:count])


def to_float(pixels: Tensor) -> Tensor:
    """Stored bytes as networks see them: uint8 0..255 to float32 [-1, 1]."""
    return torch.sub(pixels, 127.5).div_(127.5)


def to_uint8(images: Tensor) -> Tensor:
    """The nearest stored byte of each pixel: float [-1, 1] to uint8, clipped; undoes `to_float` exactly."""
    return images.float().add(1.0).mul_(127.5).round_().clamp_(0, 255).to(torch.uint8)


from gansmith.data import idx, stacked, synthetic  # noqa: E402  (the rows below need the types above)

DATASETS: dict[str, Callable[[Path | None, str], Images]] = {
    "mnist":            partial(idx.load, "mnist"),
    "fashion-mnist":    partial(idx.load, "fashion-mnist"),
    "kmnist":           partial(idx.load, "kmnist"),
    "emnist-balanced":  partial(idx.load, "emnist-balanced", transposed=True),
    "emnist-byclass":   partial(idx.load, "emnist-byclass", transposed=True),
    "emnist-bymerge":   partial(idx.load, "emnist-bymerge", transposed=True),
    "emnist-digits":    partial(idx.load, "emnist-digits", transposed=True),
    "emnist-letters":   partial(idx.load, "emnist-letters", transposed=True),
    "emnist-mnist":     partial(idx.load, "emnist-mnist", transposed=True),
    "idx":              partial(idx.load, "idx"),
    "stacked-mnist":    stacked.stacked_mnist,
    "gaussian-ring":    synthetic.ring,
    "gaussian-grid":    synthetic.grid,
}  # fmt: skip


def load_data(name: str, *, data_dir: str | Path | None = None, split: str = "train") -> Images:
    """The official "train" or "test" part of a data set.

    Raises ValueError for an unknown name or a corrupt file, FileNotFoundError where no source has the images.
    """
    images: Images = choose(DATASETS, name, "dataset")(Path(data_dir) if data_dir else None, split)
    if len(images) == 0:
        raise ValueError(f"{images.source} holds no images; give a data set with at least one")
    return images


def load_split(name: str, part: str, *, data_dir: str | Path | None = None) -> Images:
    """One of the three disjoint parts: fit (trained on), validation (held out of training), test."""
    if part not in SPLITS:
        raise ValueError(f"there is no split {part!r}; choose one of {', '.join(SPLITS)}")
    if part == "test":
        return load_data(name, data_dir=data_dir, split="test")
    fit, validation = split(load_data(name, data_dir=data_dir))
    chosen = fit if part == "fit" else validation
    if not len(chosen):
        raise ValueError(f"{name} has no {part} images: of fewer than ten, none are held out; give more")
    return chosen


def split(images: Images) -> tuple[Images, Images]:
    """The images to fit, in their stored order, and the validation images, disjoint.

    Held out are the images whose pixels have the smallest SHA-256: 10,000 of them, or one in ten where there are
    fewer than 20,000, in the order of that hash. So the choice depends on the pictures alone, not on their order or on
    any seed, and each part of the validation images is a fair sample: stored sets often change writers on the way.
    """
    held_out = 10_000 if len(images) >= 20_000 else len(images) // 10
    hashes = (hashlib.sha256(image).digest() for image in images.pixels.contiguous().numpy())
    order = [row for _, row in sorted(zip(hashes, range(len(images)), strict=False))]
    validation = torch.tensor(order[:held_out], dtype=torch.int64)
    fit = torch.tensor(sorted(order[held_out:]), dtype=torch.int64)
    return images.take(fit), images.take(validation)
