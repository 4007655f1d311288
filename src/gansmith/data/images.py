"""Images as one uint8 tensor with labels, their conversion from and to [-1, 1], and the validation split."""

import hashlib
import heapq
import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gansmith.data.labels import Labels, as_labels
from gansmith.data.on_disk import Known, OnDisk
from gansmith.errors import DataError, reason_of
from gansmith.isolation import torch_defaults

# In one set: labels, rows and an epoch's order take eight bytes each in memory, however many images stay on disk.
MAX_IMAGES = 4_000_000
CHUNK = 1_000  # images of a large set that are read at once
LARGE_BYTES, SOME = 2**30, 50_000  # beyond which means over all images are taken over so many of them


@dataclass(frozen=True)
class ImageSpec:
    """The image shape and the number of classes that networks are built for; measured, never given by hand."""

    size: int
    channels: int
    num_classes: int


@dataclass(frozen=True, eq=False)
class Images:
    """A whole data set, in memory or on disk; shows itself as a grid of 25 of its images in a notebook.

    >>> images = gs.Images(np.zeros((5, 28, 28), np.uint8), [0, 1, 2, 3, 4])
    >>> images
    <Images images: 5 of 28 x 28 x 1, 5 classes, from arrays in memory>
    >>> images.pixels.shape
    torch.Size([5, 1, 28, 28])

    Args:
        pixels: uint8 NumPy array or tensor, (N, H, W), (N, H, W, C) or (N, C, H, W); kept as a (N, C, H, W) tensor.
        labels: (N,) whole numbers from 0, or names; None where the set has none.
        name: name of the data set, recorded with runs trained on it.
        source: where the pixels came from, for people to read.
        notices: one sentence for each thing that a user should know about this source.
        class_names: of the labels, by number; empty where numbers are all there is.
        frequencies: share of each class in the full data set, where these images are a class-balanced subset; empty
            where their own shares hold.

    Raises DataError for pixels or labels of another shape or type.
    """

    pixels: Tensor
    labels: Tensor | None = None
    name: str = "images"
    source: str = "arrays in memory"
    notices: tuple[str, ...] = ()
    frequencies: tuple[float, ...] = ()
    class_names: tuple[str, ...] = ()

    if TYPE_CHECKING:  # what may be given is more than what is kept

        def __init__(
            self,
            pixels: Tensor | NDArray[np.uint8],
            labels: Tensor | NDArray[Any] | Sequence[int] | Sequence[str] | None = None,
            name: str = "images",
            source: str = "arrays in memory",
            notices: tuple[str, ...] = (),
            frequencies: tuple[float, ...] = (),
            class_names: tuple[str, ...] = (),
        ) -> None: ...

    def __post_init__(self) -> None:
        object.__setattr__(self, "pixels", _as_nchw(self.pixels))
        if self.labels is not None:
            found = _as_labels(self.labels, len(self.pixels), self.class_names)
            numbers = None if found.numbers is None else torch.from_numpy(found.numbers)
            object.__setattr__(self, "labels", numbers)
            object.__setattr__(self, "class_names", self.class_names or found.class_names)
            object.__setattr__(self, "notices", (*self.notices, *found.notices))

    def __len__(self) -> int:
        return len(self.pixels)

    def __repr__(self) -> str:
        spec = self.spec
        classes = f"{spec.num_classes} classes" if spec.num_classes else "no labels"
        size = f"{self.pixels.shape[2]} x {spec.size} x {spec.channels}"
        return f"<Images {self.name}: {len(self):,} of {size}, {classes}, from {self.source}>"

    @torch_defaults()
    def _repr_png_(self) -> bytes:
        from gansmith.pictures.grids import enlarge, grid, to_png

        return to_png(enlarge(grid(self.shuffled(25).pixels)))

    @property
    def num_classes(self) -> int:
        """The largest label plus one; 0 without labels."""
        return 0 if self.labels is None or not len(self.labels) else int(self.labels.max()) + 1

    @property
    def spec(self) -> ImageSpec:
        """The shape and the number of classes of these images."""
        return ImageSpec(self.pixels.shape[-1], self.pixels.shape[1], self.num_classes)

    @property
    def class_frequencies(self) -> Tensor:
        """Float64 (num_classes,): share of each class in samples to be drawn, zero for one without images."""
        assert self.labels is not None
        shares = torch.bincount(self.labels).double()
        if self.frequencies:
            shares = torch.tensor(self.frequencies[: len(shares)], dtype=torch.float64) * (shares > 0)
        return shares / shares.sum()

    @property
    def sha256(self) -> str:
        """A hash of the shape, the pixels and the labels, independent of where they were read from."""
        known = known_of(self)
        if known is not None and known.labels_sha256 == labels_sha256(self.labels):
            return known.sha256
        digest = hashlib.sha256(repr(tuple(self.pixels.shape)).encode())
        for chunk in self.pixels.split(CHUNK):
            digest.update(chunk.contiguous().numpy())
        if self.labels is not None:
            digest.update(self.labels.numpy().tobytes())
        return digest.hexdigest()

    def take(self, rows: Tensor) -> "Images":
        """Return these rows only, in this order; many that are on disk stay there."""
        pixels = self.pixels.take_rows(rows) if isinstance(self.pixels, OnDisk) else self.pixels[rows]
        return replace(self, pixels=pixels, labels=None if self.labels is None else self.labels[rows])

    def shuffled(self, count: int) -> "Images":
        """Return at most `count` of them, a fixed random choice, since stored sets may be sorted by label."""
        return self.take(_shuffled_rows(len(self))[:count])

    def some_rows(self) -> Tensor:
        """Return all rows; of a large set a fixed random choice, enough for means over all images."""
        return _shuffled_rows(len(self))[:SOME] if self.pixels.nbytes > LARGE_BYTES else torch.arange(len(self))

    def with_mirror_images(self) -> "Images":
        """Return them and, in the same order after them, their mirror images; in memory."""
        labels = None if self.labels is None else torch.cat([self.labels, self.labels])
        return replace(self, pixels=torch.cat([self.pixels, self.pixels.flip(3)]), labels=labels)

    def why_untrainable(self) -> str:
        """Return why there is nothing to learn from these images; "" where there is."""
        if len(self) < 2:
            return f"{self.source} holds too few images to train on ({len(self)}); give at least 2"
        if all((chunk == self.pixels[:1]).all() for chunk in self.pixels.split(CHUNK)):
            return f"all images of {self.source} are the same, so there is nothing to learn; give others"
        return ""

    def without_labels(self) -> "Images":
        """Return the same images, their labels dropped."""
        return replace(self, labels=None)


def _shuffled_rows(count: int) -> Tensor:
    return torch.randperm(count, generator=torch.Generator().manual_seed(0))


def _as_nchw(pixels: Any) -> Tensor:
    """Return pixels of any accepted layout as a contiguous uint8 (N, C, H, W) tensor; those on disk stay there."""
    if isinstance(pixels, OnDisk):
        return pixels
    wanted = "give uint8 of shape (N, H, W), (N, H, W, C) or (N, C, H, W)"
    array = pixels.detach().cpu() if isinstance(pixels, Tensor) else torch.from_numpy(_numbers_of(pixels, wanted))
    shape = tuple(array.shape)
    if array.dtype != torch.uint8 or array.dim() not in (3, 4):
        raise DataError(f"images are {array.dtype} of shape {shape}; {wanted}")
    if array.dim() == 4 and 4 in (shape[1], shape[3]) and not {1, 3} & {shape[1], shape[3]}:
        part = "[..., :3]" if shape[3] == 4 else "[:, :3]"
        raise DataError(
            f"images of shape {shape} have a channel of opacity; give {part} of them, or all to gansmith.load_data, "
            "which lays them over a background"
        )
    if array.dim() == 3:
        array = array[:, None]
    elif shape[1] not in (1, 3) and shape[3] in (1, 3):
        array = array.permute(0, 3, 1, 2)
    if array.shape[1] not in (1, 3):
        raise DataError(f"images of shape {shape} have neither one channel nor three; {wanted}")
    return array.contiguous()


def _numbers_of(pixels: Any, wanted: str) -> NDArray[Any]:
    array = _to_array(pixels, "images", wanted)
    if array.dtype.kind not in "biuf":
        hint = "; gansmith.load_data reads a path" if isinstance(pixels, str | os.PathLike) else ""
        raise DataError(f"images are of type {type(pixels).__name__}; {wanted}{hint}")
    return np.ascontiguousarray(array)


def _to_array(values: Any, what: str, wanted: str) -> NDArray[Any]:
    try:
        return np.asarray(values)
    except (ValueError, TypeError, RuntimeError) as error:
        raise DataError(f"{what} cannot be read as an array ({reason_of(error)}); {wanted}") from None


def _as_labels(labels: Any, count: int, class_names: Sequence[str]) -> Labels:
    """Return labels as int64 (N,), and the names of classes where they are names."""
    wanted = "give one whole number from 0, or one name, for each image"
    is_tensor = isinstance(labels, Tensor)
    array = _to_array(labels.detach().cpu() if is_tensor else labels, "labels", wanted)
    if array.dtype.kind in "USO":
        strange = sorted({str(label) for label in array.ravel().tolist()} - {*class_names}) if class_names else []
        if strange and not all(label.isdecimal() for label in strange):
            raise DataError(f"labels name {strange[0]!r}, which is not among the class names; give it or omit them all")
        return as_labels(array, count, "the set", class_names=() if strange else class_names)
    numbers = array.astype(np.int64, copy=not is_tensor) if array.dtype.kind in "biu" else None
    if numbers is None or numbers.shape != (count,) or numbers.min(initial=0) < 0:
        raise DataError(f"labels are {array.dtype} of shape {array.shape} for {count} images; {wanted}")
    return Labels(numbers)


def to_float(pixels: Tensor) -> Tensor:
    """Convert uint8 0..255, as stored, to float32 [-1, 1], as networks take it."""
    return torch.sub(pixels, 127.5).div_(127.5)


def to_uint8(images: Tensor) -> Tensor:
    """Convert float [-1, 1] to the nearest uint8, clipped; inverts `to_float` exactly."""
    return images.float().add(1.0).mul_(127.5).round_().clamp_(0, 255).to(torch.uint8)


def known_of(images: Images) -> Known | None:
    """Return what was worked out of these images before; None where they are in memory, or a part of a file."""
    return images.pixels.known if isinstance(images.pixels, OnDisk) else None


def find_known(images: Images) -> dict[str, Any]:
    """Return what `with_known` takes, as JSON; reads all images twice, at once."""
    with ThreadPoolExecutor(2) as pool:
        sha256 = pool.submit(lambda: images.sha256)
        held_out = held_out_rows(images.pixels)
        return {"sha256": sha256.result(), "labels_sha256": labels_sha256(images.labels), "held_out": held_out}


def with_known(images: Images, known: Mapping[str, Any] | None) -> Images:
    """Return images on disk with what `find_known` found out about them; others as they are."""
    if known is None or not isinstance(images.pixels, OnDisk):
        return images
    found = Known(known["sha256"], known["labels_sha256"], torch.tensor(known["held_out"], dtype=torch.int64))
    return replace(images, pixels=images.pixels.knowing(found))


def labels_sha256(labels: Tensor | None) -> str:
    """Return a hash of labels; empty for none."""
    return "" if labels is None else hashlib.sha256(labels.numpy().tobytes()).hexdigest()


def image_hashes(pixels: Tensor) -> Iterator[bytes]:
    """Yield the SHA-256 of each image's pixels."""
    chunks = (chunk.contiguous().numpy() for chunk in pixels.split(CHUNK))
    return (hashlib.sha256(image).digest() for chunk in chunks for image in chunk)


def held_out_rows(pixels: Tensor) -> list[int]:
    """Return the rows of the validation images; see `split`."""
    count = 10_000 if len(pixels) >= 20_000 else len(pixels) // 10
    hashes = image_hashes(pixels)
    return [row for _, row in heapq.nsmallest(count, zip(hashes, range(len(pixels)), strict=False))]


def split(images: Images) -> tuple[Images, Images]:
    """Return the images to train on, in their stored order, and the validation images, disjoint.

    Held out are the images whose pixels have the smallest SHA-256: 10,000 of them, or one in ten where there are
    fewer than 20,000, in the order of that hash. So the choice depends on the images alone, not on their order or on
    any seed, and every slice of the validation images is a random sample: stored sets are often sorted, by writer say.
    """
    known = known_of(images)
    rows = torch.tensor(held_out_rows(images.pixels), dtype=torch.int64) if known is None else known.held_out
    is_kept = torch.ones(len(images), dtype=torch.bool)
    is_kept[rows] = False
    return images.take(torch.nonzero(is_kept).flatten()), images.take(rows)
