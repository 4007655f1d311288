"""From seeds to images: a generator that is ready to sample from, latents, samples, walks through latent space.

Sample k depends on its own seed alone. Sampling runs in float32, in chunks of one fixed size, with the statistics
stored in the file, so sample 17 is the same image whatever else is drawn with it.
"""

import contextlib
import copy
import math
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from gansmith.conditioning import Conditioning
from gansmith.config import Config, class_number, parse_labels, unknown_class
from gansmith.data.image_files import read_array
from gansmith.data.images import MAX_IMAGES, ImageSpec, to_uint8
from gansmith.errors import ConfigError, DataError
from gansmith.files import folder_name, replacing, require_place, to_path, write_bytes
from gansmith.isolation import torch_defaults
from gansmith.networks.layers import Dropout
from gansmith.pictures.grids import enlarge, grid, to_png
from gansmith.randomness import rng, seeded
from gansmith.training.machine import computing_on

CHUNK = 64  # images per pass; smaller requests are padded


@dataclass(frozen=True)
class Model:
    """A generator ready to sample from.

    >>> G = gs.load(run)
    >>> G.sample(labels=None, count=4, seed=7).images.shape
    (4, 28, 28, 1)
    >>> G.network(torch.zeros(2, G.config.latent_dim), torch.zeros(2, dtype=torch.int64)).shape
    torch.Size([2, 1, 28, 28])

    Attributes:
        network: the plain module, network(z, y) -> (N, C, H, W) in [-1, 1]; in evaluation mode, float32. y are class
            ids, see `inputs`.
        config: the choices it was trained with; of a file that does not say, only `latent_dim` and `conditioning`.
        spec: of the images it draws; `num_classes` counts labels, 0 where it was trained without.
        conditioning: its class ids and how often each is drawn; of a file in another format the labels, or none.
        class_names: of the labels, by number; empty where numbers are all there is.
        notices: a sentence for each thing that was decided about a file of another program.
    """

    network: nn.Module
    config: Config
    spec: ImageSpec
    conditioning: Conditioning
    class_names: tuple[str, ...] = ()
    notices: tuple[str, ...] = ()

    def __repr__(self) -> str:
        size, channels, classes = self.spec.size, self.spec.channels, self.spec.num_classes
        labels = f"{classes} classes" if classes else "no labels"
        return f"<Model: {size} x {size} x {channels}, {labels}, latents of {self.config.latent_dim}>"

    def _repr_png_(self) -> bytes:
        return self.sample()._repr_png_()

    def inputs(
        self, count: int, *, seed: int = 0, labels: Sequence[int | str] | str | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return what `network` takes for images 0 to count - 1 of a seed: latents and class ids.

        Class ids are labels only where each label has one; `conditioning.label_of(y)` gives the labels.

        >>> z, y = gs.load(run).inputs(4, seed=7)
        >>> z.shape, y.shape
        (torch.Size([4, 100]), torch.Size([4]))

        Raises ConfigError for labels the generator does not know.
        """
        refuse_counts(count, seed, None)
        return draw_inputs(self, seed=seed, count=count, labels=chosen_labels(self, labels))

    def sample(
        self, count: int | None = None, *, seed: int = 0, labels: Sequence[int | str] | str | None = None
    ) -> "Samples":
        """Return images 0 to count - 1 of a seed.

        Args:
            count: how many; by default one for each of the labels, else 25.
            labels: classes to draw in turn, as numbers or names, or as text such as "0-9" or "cat,dog"; by default as
                often as in training.

        Raises ConfigError for labels the generator does not know.
        """
        chosen = chosen_labels(self, labels)
        if count is None:
            count = 25 if chosen is None else len(chosen)
        refuse_counts(count, seed, None)
        images, found = sample(self, seed=seed, count=count, labels=chosen)
        return Samples.of(images, found, self.class_names)

    def class_name(self, label: int) -> str:
        """Return the name of a label's class; its number where it has no name."""
        return self.class_names[label] if 0 <= label < len(self.class_names) else str(label)


@dataclass(frozen=True, eq=False)
class Samples:
    """Generated images and their labels; shows itself as a grid in a notebook.

    >>> samples = gs.sample(run, 4)
    >>> samples
    <Samples: 4 images of 28 x 28 x 1, no labels>
    >>> samples.save("four.png").name
    'four.png'

    Attributes:
        images: uint8 (N, H, W, C).
        labels: int64 (N,), -1 where the generator knows no labels.
        class_names: of the labels, by number; empty where numbers are all there is.
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    class_names: tuple[str, ...] = ()

    @classmethod
    def of(cls, images: Tensor, labels: Tensor, class_names: tuple[str, ...] = ()) -> "Samples":
        """Wrap uint8 (N, C, H, W) and int64 (N,) tensors."""
        return cls(images.permute(0, 2, 3, 1).contiguous().numpy(), labels.long().numpy(), class_names)

    def __len__(self) -> int:
        return len(self.images)

    def __repr__(self) -> str:
        labels = set(self.labels.tolist()) - {-1}
        classes = f"{len(labels)} classes" if labels else "no labels"
        return f"<Samples: {len(self):,} images of {' x '.join(map(str, self.images.shape[1:]))}, {classes}>"

    @property
    def _nchw(self) -> Tensor:
        return torch.from_numpy(self.images).permute(0, 3, 1, 2)

    @torch_defaults()
    def save(self, path: Path | str, *, truncation: float = 1.0) -> Path:
        """Write a .png grid, a .npz with images and labels, or one PNG for each image into a folder."""
        path = to_path(path)
        require_place(path)
        labels = torch.from_numpy(self.labels)
        write_samples(self._nchw, labels, path, truncation=truncation, class_names=self.class_names)
        return path

    @torch_defaults()
    def _repr_png_(self) -> bytes:
        return to_png(enlarge(grid(self._nchw)))


def shape_latents(normal: Tensor, distribution: str) -> Tensor:
    """Turn standard normal numbers (N, latent_dim) into latents of another distribution; equal ones stay equal.

    uniform: each number between -1 and 1. sphere: each row on the sphere of radius sqrt(latent_dim), where normal rows
    nearly lie and where a line between two of them need not pass near the middle. Source: arXiv:1609.04468, section 2.
    """
    if distribution == "uniform":
        return torch.erf(normal / math.sqrt(2))
    if distribution == "sphere":
        return math.sqrt(normal.shape[1]) * torch.nn.functional.normalize(normal, dim=1)
    return normal


@torch_defaults()
def draw_latents(config: Config, *, seed: int, count: int) -> Tensor:
    """Return (count, latent_dim) latents of the config's distribution, row k a function of (seed, k)."""
    rows = [torch.randn(config.latent_dim, generator=rng(seed, k, "latent")) for k in range(count)]
    return shape_latents(torch.stack(rows) if rows else torch.empty(0, config.latent_dim), config.latent_distribution)


@torch_defaults()
def draw_inputs(model: Model, *, seed: int, count: int, labels: Sequence[int] | None = None) -> tuple[Tensor, Tensor]:
    """Return latents (count, latent_dim) and class ids (count,), entries k a function of (seed, k).

    Where the generator draws clusters from the last number of a latent, these numbers spread evenly over their
    distribution, so that the clusters are those that the same seed draws before an export.

    Args:
        labels: repeated in turn; without them labels follow their training frequencies.
    """
    config, conditioning = model.config, model.conditioning
    y = conditioning.draw(seed=seed, count=count, labels=labels)
    if not conditioning.in_latents:
        return draw_latents(config, seed=seed, count=count), y
    z = draw_latents(config.replace(latent_dim=config.latent_dim - 1), seed=seed, count=count)
    places = conditioning.draw_places(seed=seed, count=count, labels=labels).clamp(min=1e-9)
    last = 2 * places - 1 if config.latent_distribution == "uniform" else torch.special.ndtri(places)
    return torch.cat([z, last[:, None].float()], dim=1), y


def numpy_latents(config: Config, *, seed: int, count: int) -> Tensor:
    """Return (count, latent_dim) latents of NumPy's RandomState(seed).normal, as assignments ask for."""
    normal = np.random.RandomState(seed).normal(size=(count, config.latent_dim))
    return shape_latents(torch.from_numpy(normal).float(), config.latent_distribution)


def flatten_maps(latents: NDArray[Any]) -> NDArray[Any]:
    """Return latents of the shape (count, width, 1, 1) as (count, width); others as they are."""
    is_of_maps = latents.ndim > 2 and len(latents) and latents[0].size == max(latents.shape[1:])
    return latents.reshape(len(latents), -1) if is_of_maps else latents


def read_latents(path: Path, *widths: int) -> Tensor:
    """Return (N, one of `widths`) float32 latents from a .npy file; DataError for another shape or type, or damage."""
    if path.suffix.lower() == ".npz":
        raise DataError(f"{path} is an archive of arrays; save the latents alone, as a .npy by numpy.save")
    if not os.access(path, os.R_OK):
        raise DataError(f"{path} cannot be read (permission denied); allow it, as with chmod u+r")
    with path.open("rb") as file:
        latents = read_array(file, str(path))
    latents = flatten_maps(latents)
    if latents.ndim != 2 or latents.shape[1] not in widths or not len(latents):
        wanted = " or ".join(f"(count, {width})" for width in widths)
        raise DataError(f"{path} has shape {latents.shape}; this generator needs {wanted}")
    with np.errstate(over="ignore"):
        single = latents.astype(np.float32) if latents.dtype.kind in "fiu" else None
    if single is None or not np.isfinite(single).all():
        raise DataError(f"{path} holds {latents.dtype} values, not all finite as float32; save finite floats")
    return torch.from_numpy(single)


def device_of(network: nn.Module) -> torch.device:
    """Return the device that a network computes on; the CPU for one without parameters."""
    parameter = next(network.parameters(), None)
    return torch.device("cpu") if parameter is None else parameter.device


def on_cpu(model: Model) -> Model:
    """Return a model whose network computes on the CPU; the same where it does."""
    is_there = device_of(model.network).type == "cpu"
    return model if is_there else replace(model, network=copy.deepcopy(model.network).cpu())


@torch.no_grad()
@torch_defaults()
def generate(model: Model, latents: Tensor, y: Tensor) -> Tensor:
    """Return uint8 (N, C, H, W) images for latents (N, latent_dim) and class ids (N,).

    Dropout in the generator stays on, as a second source of randomness; an image's mask is a function of its latent.
    Source: arXiv:1611.07004, sections 3.1 and 3.3. So is what a network of a program's own draws, one image at a time.
    """
    drawn, device = [], device_of(model.network)
    network = partial(_one_by_one, model.network) if draws_noise(model) else model.network
    dropouts = [layer for layer in model.network.modules() if isinstance(layer, Dropout)]
    for z, ids in zip(latents.split(CHUNK), y.split(CHUNK), strict=True):
        n = len(z)
        z = torch.cat([z, z.new_zeros(CHUNK - n, z.shape[1])])
        ids = torch.cat([ids, ids.new_zeros(CHUNK - n)])
        sources = [rng("dropout", row.numpy().tobytes().hex()) for row in z] if dropouts else None
        for layer in dropouts:
            layer.sources = sources
        try:
            with computing_on(device):
                images = network(z.to(device), ids.to(device))
        finally:
            for layer in dropouts:
                layer.sources = None
        drawn.append(to_uint8(images[:n]).contiguous().cpu())
    return torch.cat(drawn) if drawn else torch.empty(0, model.spec.channels, model.spec.size, model.spec.size).byte()


def draws_noise(model: Model) -> bool:
    """Return whether a network of a program's own draws random numbers as it generates, besides its latents."""
    layers = list(model.network.modules())
    is_known = all(type(layer).__module__.partition(".")[0] in ("torch", "gansmith") for layer in layers)
    if is_known or any(layer.training for layer in layers):  # in training, statistics of the batch would change
        return False
    z, y = torch.zeros(2, model.config.latent_dim), torch.zeros(2, dtype=torch.int64)
    device, images = device_of(model.network), []
    for k in range(2):
        with torch.no_grad(), seeded(rng("noise", k)):
            images.append(model.network(z.to(device), y.to(device)))
    return not torch.equal(*images)


def _one_by_one(network: nn.Module, z: Tensor, y: Tensor) -> Tensor:
    """Return images that are each drawn alone, with random numbers that its latent seeds."""
    drawn = []
    for row, own in zip(z.split(1), y.split(1), strict=True):
        with seeded(rng("noise", row.cpu().numpy().tobytes().hex())):
            drawn.append(network(row, own))
    return torch.cat(drawn)


def sample(model: Model, *, seed: int, count: int, labels: Sequence[int] | None = None) -> tuple[Tensor, Tensor]:
    """Return images 0 to count - 1 of a seed, uint8 (N, C, H, W), and the label of each, -1 without labels.

    Args:
        labels: repeated in turn; without them labels follow their training frequencies.
    """
    z, y = draw_inputs(model, seed=seed, count=count, labels=labels)
    return generate(model, z, y), model.conditioning.label_of(y)


@torch.no_grad()
def latent_walk(model: Model, *, seeds: Sequence[int], steps: int, label: int | None = None) -> Tensor:
    """Return uint8 (steps * stops, C, H, W): from each seed's sample 0 to the next one's and back to the first.

    Latents move along the great circle between two ends, where a normal latent is likely, not through the middle,
    where none ever is. The class id stays the first seed's, or one of `label`; so does a number that draws clusters.
    """
    labels = None if label is None else [label]
    ends, y = zip(*(draw_inputs(model, seed=seed, count=1, labels=labels) for seed in seeds), strict=True)
    n = -1 if model.conditioning.in_latents else None  # that number is no part of the latent
    path = arcs([*(end[0, :n] for end in ends), ends[0][0, :n]], steps, model.config.latent_distribution)
    if model.conditioning.in_latents:
        path = torch.cat([path, ends[0][0, -1:].expand(len(path), 1)], 1)
    return generate(model, path, y[0].expand(len(path)))


def arcs(stops: Sequence[Tensor], steps: int, distribution: str) -> Tensor:
    """Return (steps * (K - 1), d) latents on the arcs from each of K stops (d,) to the next, without the last stop.

    Uniform latents move as the normal numbers that they stem from, and so stay between -1 and 1.
    """
    if distribution == "uniform":
        normal = [math.sqrt(2) * torch.erfinv(stop.clamp(-1 + 1e-6, 1 - 1e-6)) for stop in stops]
        path = shape_latents(arcs(normal, steps, "normal"), distribution)
        path[::steps] = torch.stack(list(stops[:-1]))
        return path
    shares = torch.arange(steps, dtype=torch.float32) / steps
    return torch.stack([slerp(a, b, share) for a, b in pairwise(stops) for share in shares])


def slerp(start: Tensor, end: Tensor, share: float | Tensor) -> Tensor:
    """Return the vector this share of the way from `start` to `end`, both (d,), along the arc between them.

    Source: Shoemake 1985, Animating rotation with quaternion curves, section 3.3. Parallel ends are joined by a line.
    """
    angle = torch.acos(torch.cosine_similarity(start, end, dim=0).clamp(-1, 1))
    if angle.sin() < 1e-6:
        return torch.lerp(start, end, torch.as_tensor(share, dtype=start.dtype))
    return (torch.sin((1 - share) * angle) * start + torch.sin(share * angle) * end) / torch.sin(angle)


@torch.no_grad()
@torch_defaults()
def class_walk(model: Model, *, seed: int, y: Sequence[int], steps: int) -> Tensor:
    """Return uint8 (steps * len(y), C, H, W): one latent on its way through these class ids and back to the first.

    Every embedding of class ids is walked in a straight line from one row to the next. Raises ConfigError for an
    unconditional generator, and for one without embeddings.
    """
    ways = [(a, b, k / steps) for a, b in zip(y, (*y[1:], y[0]), strict=True) for k in range(steps)]
    z = draw_latents(model.config, seed=seed, count=1).expand(len(ways), -1)
    return generate(with_embeddings(model, ways), z, torch.arange(len(ways)))


def with_embeddings(model: Model, ways: Sequence[tuple[int, int, float]]) -> Model:
    """Return a generator whose class id k lies between two of the given one's.

    Args:
        ways: two class ids, and the share of the way from the first to the second, for each new id.

    Raises ConfigError for an unconditional generator, and for one without embeddings.
    """
    G = copy.deepcopy(model.network)
    tables = [layer for layer in G.modules() if isinstance(layer, nn.Embedding)]
    if len(model.conditioning) < 2:
        raise ConfigError("this generator is unconditional, so it cannot walk between classes; walk between latents")
    if not tables:
        raise ConfigError(
            "this file has no embeddings of classes to walk between; give the run or its generator.safetensors, or "
            "walk between latents"
        )
    starts, ends, shares = (torch.tensor(column) for column in zip(*ways, strict=True))
    for table in tables:
        rows = torch.lerp(table.weight[starts], table.weight[ends], shares[:, None])
        table.weight = nn.Parameter(rows, requires_grad=False)
        table.num_embeddings = len(rows)
    return replace(model, network=G)


def truncate(model: Model, strength: float) -> None:
    """Move every style towards the mean style: higher fidelity, less variety; 1 changes nothing, 0 is the mean.

    Raises ConfigError for another strength, and for a generator that has no styles.
    """
    if not isinstance(strength, int | float) or not 0 <= strength <= 1:
        raise ConfigError(f"truncation is {strength!r:.60}; it must be between 0 and 1, such as 0.7")
    G: Any = model.network
    if not hasattr(G, "truncate") and next(G.parameters(), None) is None:
        raise ConfigError(
            "this file draws images and gives no access to styles; omit --truncation, or give the run or its "
            "generator.safetensors"
        )
    if not hasattr(G, "truncate"):
        raise ConfigError(
            f"the {model.config.network} network has no styles to truncate; omit --truncation or use a generator of "
            "stylegan-lite"
        )
    G.truncate(strength)


def is_whole(value: Any) -> bool:
    """Return whether something is one whole number: an int, or NumPy's or torch's."""
    if isinstance(value, bool | np.bool_) or getattr(value, "ndim", False):
        return False
    is_of_torch = isinstance(value, Tensor) and (value.is_floating_point() or value.dtype == torch.bool)
    return hasattr(value, "__index__") and not is_of_torch


def require_whole(name: str, value: Any, low: int, high: int, example: int) -> None:
    """Raise ConfigError for anything but a whole number in this range, both ends allowed."""
    if not is_whole(value) or not low <= value <= high:
        raise ConfigError(f"{name} is {value!r:.60}; it must be between {low} and {high}, such as {example}")


def refuse_counts(count: int, seed: int, numpy_seed: int | None) -> None:
    """Raise ConfigError for a number of samples or a seed that is out of range."""
    for name, value in (("count", count), ("seed", seed), ("numpy_seed", numpy_seed)):
        if not is_whole(value) and (name != "numpy_seed" or value is not None):  # 7.0 would draw other images than 7
            raise ConfigError(f"{name} is {value!r:.60}; it must be a whole number, such as 25")
    if not 1 <= count <= MAX_IMAGES:
        raise ConfigError(f"count is {count}; it must be between 1 and {MAX_IMAGES}, such as 25")
    if seed < 0 or (numpy_seed is not None and not 0 <= numpy_seed < 2**32):
        raise ConfigError("a seed must be a whole number from 0 (to 4294967295 for NumPy's), such as 504")


def chosen_labels(model: Model, labels: Sequence[int | str] | str | int | None) -> list[int] | None:
    """Return the labels that are asked of a generator as numbers; None where none are, or -1 alone of one without any.

    Raises ConfigError for an empty list, for -1 of a generator with labels, and as `label_numbers` does.
    """
    found = label_numbers(labels, model.class_names)
    if found == [] or (found is None and labels is not None and model.conditioning.has_labels):
        model.conditioning.refuse_unknown([-1] if found is None else [])
    return found


def label_numbers(labels: Sequence[int | str] | str | int | None, class_names: Sequence[str]) -> list[int] | None:
    """Return labels given as text (see `config.parse_labels`), a number, or a list of numbers and names, as numbers.

    Labels of -1 alone, as samples have where there are none, are no labels.

    Raises ConfigError for a name that no class has.
    """
    if labels is None or isinstance(labels, str):
        return None if labels is None else parse_labels(labels, names=class_names)
    if isinstance(labels, Mapping):
        raise ConfigError(
            f"labels are {dict(labels)!r:.60}; give a list with a label for each sample, such as [0, 0, 1]"
        )
    listed: Iterable[Any] = labels if isinstance(labels, Iterable) and getattr(labels, "ndim", True) else [labels]
    numbers = []
    for label in listed:
        if not isinstance(label, str) and not is_whole(label):
            raise ConfigError(f"a label is {label!r}; it must be a whole number or the name of a class")
        number = class_number(label, class_names) if isinstance(label, str) else int(label)
        if number is None:
            raise ConfigError(unknown_class(str(label), class_names))
        numbers.append(number)
    return None if numbers and set(numbers) == {-1} else numbers


def write_samples(
    images: Tensor, labels: Tensor, out: Path, *, truncation: float = 1.0, class_names: Sequence[str] = ()
) -> None:
    """Write uint8 (N, C, H, W) images as a .png grid, a .npz, or one PNG each in a folder; truncation is noted.

    In a folder, images with labels go into one folder for each class, named after it and numbered from 00000.
    """
    texts = {} if truncation == 1 else {"truncation": f"{truncation:g}"}
    suffix = out.suffix.lower()
    if suffix == ".png":
        write_bytes(out, to_png(enlarge(grid(images)), **texts))
    elif suffix == ".npz":
        write_npz(out, images, labels, truncation=truncation)
    else:
        folders = {label: out / name for label, name in folder_names(labels.unique().tolist(), class_names).items()}
        _write_pictures(images, labels, out, folders, texts)


def _write_pictures(images: Tensor, labels: Tensor, out: Path, folders: Mapping[int, Path], texts: Any) -> None:
    """Write a PNG for each image into the folder of its label; what was written is removed where that is stopped."""
    written: dict[int, list[Path]] = {label: [] for label in folders}
    try:
        for folder in folders.values():
            folder.mkdir(parents=True, exist_ok=True)
        for image, label in zip(images.split(1), labels.tolist(), strict=True):
            written[label].append(folders[label] / f"{len(written[label]):05d}.png")
            written[label][-1].write_bytes(to_png(grid(image), **texts))
    except BaseException:
        for path in chain.from_iterable(written.values()):
            path.unlink(missing_ok=True)
        for folder in (*folders.values(), out):
            with contextlib.suppress(OSError):  # others have put something there
                folder.rmdir()
        raise


def folder_names(labels: Sequence[int], class_names: Sequence[str] = ()) -> dict[int, str]:
    """Return the folder of each label: the name of its class as every file system can have it; none for label -1.

    Names that differ in nothing that all file systems tell apart get their number too.
    """
    names: dict[int, str] = {}
    for label in labels:
        name = class_names[label] if 0 <= label < len(class_names) else str(label)
        names[label] = folder_name(name) or "class"
    counts = Counter(name.casefold() for name in names.values())
    folders = {label: f"{name} {label}" if counts[name.casefold()] > 1 else name for label, name in names.items()}
    if len({name.casefold() for name in folders.values()}) < len(folders):
        folders = {label: f"{label} {name}" for label, name in names.items()}
    return folders | ({-1: ""} if -1 in folders else {})


def write_npz(path: Path, images: Tensor, labels: Tensor, *, truncation: float = 1.0) -> None:
    """Write images as uint8 (N, H, W, C) and labels as int64 (N,), at once or not at all; truncation where not 1."""
    noted: dict[str, Any] = {} if truncation == 1 else {"truncation": np.float64(truncation)}
    pixels = images.permute(0, 2, 3, 1).numpy()
    with replacing(path) as partial, partial.open("wb") as file:
        np.savez_compressed(file, images=pixels, labels=labels.long().numpy(), **noted)
