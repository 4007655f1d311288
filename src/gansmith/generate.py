"""From seeds to images: a trained generator, what it is told, grids of what it draws, walks between samples.

Sample k depends on its own seed alone. Sampling runs in float32, in chunks of one fixed size, with the statistics
stored in the file, so sample 17 is the same image whatever else is drawn with it.
"""

import contextlib
import copy
import hashlib
import io
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import safetensors.torch
import torch
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from gansmith.config import Config, choose
from gansmith.data import ImageSpec, to_uint8
from gansmith.data.files import read_array
from gansmith.networks import NETWORKS
from gansmith.networks.layers import Dropout
from gansmith.runs import holds_run, open_run, read_metadata, replacing

CHUNK = 64  # images per pass; smaller requests are padded
STATISTICS_SAMPLES = 1024
NEWTON_STEPS, MOST_GAIN, MOST_SHIFT = 8, 1.25, 0.5  # for tones: steps of the search, and how far it may go
Squashed = nn.Linear | nn.Conv2d | nn.ConvTranspose2d  # layers that may lie under a last tanh
GOLDEN = (math.sqrt(5) - 1) / 2  # multiples of it, less whole numbers, lie evenly between 0 and 1 from the first on


@dataclass(frozen=True)
class Model:
    """A generator ready to draw.

    Attributes:
        G: in evaluation mode, float32.
        config: the choices it was trained with; of a file that does not say, only `z_dim` and `conditioning` are known.
        spec: of the images it draws; `num_classes` counts labels, 0 where it was trained without.
        frequencies: (K,) share of each id in training, for the ids G is told; (1,) where it is told none.
    """

    G: nn.Module
    config: Config
    spec: ImageSpec
    frequencies: Tensor

    @property
    def is_labelled(self) -> bool:
        return self.spec.num_classes > 0

    def labels_of(self, ids: Tensor) -> Tensor:
        """(N,) the label each id belongs to, -1 where the model knows none."""
        return ids // self.config.ids_per_label if self.is_labelled else torch.full_like(ids, -1)


def rng(*key: int | str) -> torch.Generator:
    """A source of random numbers that is a function of what it is for and of nothing else."""
    digest = hashlib.blake2b("/".join(map(str, key)).encode(), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "little") >> 1)


def shape_latents(normal: Tensor, distribution: str) -> Tensor:
    """Standard normal numbers (N, z_dim) as latents of another distribution; equal numbers give equal latents.

    uniform: each number between -1 and 1. sphere: each row on the sphere of radius sqrt(z_dim), where normal rows
    nearly lie and where a line between two of them need not pass near the middle. Source: arXiv:1609.04468, section 2.
    """
    if distribution == "uniform":
        return torch.erf(normal / math.sqrt(2))
    if distribution == "sphere":
        return math.sqrt(normal.shape[1]) * torch.nn.functional.normalize(normal, dim=1)
    return normal


def draw_latents(config: Config, *, seed: int, count: int) -> Tensor:
    """(count, z_dim) latents of the config's distribution, row k a function of (seed, k)."""
    rows = [torch.randn(config.z_dim, generator=rng(seed, k, "latent")) for k in range(count)]
    return shape_latents(torch.stack(rows) if rows else torch.empty(0, config.z_dim), config.latent)


def draw_ids(frequencies: Tensor, *, seed: int, count: int) -> Tensor:
    """(count,) ids in their training frequencies, entry k a function of (seed, k).

    Steps of the golden ratio around the unit circle, from a start that the seed draws: any run of n ids holds each
    about n times its frequency, where independent draws would stray by the square root of that.
    Source: Weyl 1916; the step after Niederreiter, "Random Number Generation and Quasi-Monte Carlo Methods", 1992.
    """
    start = torch.rand((), generator=rng(seed, "ids"), dtype=torch.float64)
    points = (start + GOLDEN * torch.arange(count, dtype=torch.float64)) % 1
    edges = frequencies.double().cumsum(0)
    return torch.searchsorted(edges, points * edges[-1], right=True).clamp_(max=len(frequencies) - 1)


def numpy_latents(config: Config, *, seed: int, count: int) -> Tensor:
    """(count, z_dim) latents from NumPy's legacy generator, RandomState(seed).normal, as assignments ask for."""
    normal = np.random.RandomState(seed).normal(size=(count, config.z_dim))
    return shape_latents(torch.from_numpy(normal).float(), config.latent)


@torch.no_grad()
def generate(model: Model, latents: Tensor, ids: Tensor) -> Tensor:
    """uint8 (N, C, H, W) images for latents (N, z_dim) and ids (N,).

    Dropout in the generator stays on, as a second source of chance; an image's mask is a function of its latent.
    Source: arXiv:1611.07004, section 3.2.1.
    """
    drawn = []
    dropouts = [layer for layer in model.G.modules() if isinstance(layer, Dropout)]
    for z, told in zip(latents.split(CHUNK), ids.split(CHUNK), strict=True):
        n = len(z)
        z = torch.cat([z, z.new_zeros(CHUNK - n, z.shape[1])])
        told = torch.cat([told, told.new_zeros(CHUNK - n)])
        sources = [rng("dropout", row.numpy().tobytes().hex()) for row in z] if dropouts else None
        for layer in dropouts:
            layer.sources = sources
        drawn.append(to_uint8(model.G(z, told)[:n]).contiguous())
    for layer in dropouts:
        layer.sources = None
    return torch.cat(drawn) if drawn else torch.empty(0, model.spec.channels, model.spec.size, model.spec.size).byte()


def sample(model: Model, *, seed: int, count: int, labels: Sequence[int] | None = None) -> tuple[Tensor, Tensor]:
    """Images 0 to count - 1 of a seed, and the label each was told, -1 where the model knows no labels.

    Args:
        labels: repeated in turn; without them labels follow their training frequencies.
    """
    ids = choose_ids(model, seed=seed, count=count, labels=labels)
    images = generate(model, draw_latents(model.config, seed=seed, count=count), ids)
    return images, model.labels_of(ids)


def choose_ids(model: Model, *, seed: int, count: int, labels: Sequence[int] | None) -> Tensor:
    """(count,) ids for G. Raises ValueError for labels a model does not know."""
    if labels is None:
        return draw_ids(model.frequencies, seed=seed, count=count)
    if not model.is_labelled:
        raise ValueError("this model was trained without labels, so it cannot draw a chosen one; leave the choice away")
    shares = model.frequencies.view(-1, model.config.ids_per_label)
    known = torch.nonzero(shares.sum(1)).flatten().tolist()
    wrong = [label for label in labels if label not in known]
    if wrong or not labels:
        missing = wrong[0] if wrong else "(none given)"
        listing = ", ".join(map(str, known)) if len(known) <= known[-1] - known[0] else f"{known[0]} to {known[-1]}"
        raise ValueError(f"there is no label {missing}; this model knows {listing}")
    wanted = torch.tensor([labels[k % len(labels)] for k in range(count)], dtype=torch.int64)
    ids = wanted * shares.shape[1]
    for label in set(labels):
        places = wanted == label
        ids[places] += draw_ids(shares[label], seed=seed, count=int(places.sum()))
    return ids


@torch.no_grad()
def latent_walk(model: Model, *, seeds: Sequence[int], steps: int, label: int | None = None) -> Tensor:
    """uint8 (steps * stops, C, H, W): from each seed's sample 0 to the next one's and back to the first.

    Latents move along the great circle between two ends, where a normal latent is likely, not through the middle,
    where none ever is. The id stays the first seed's, or `label`.
    """
    ends = torch.cat([draw_latents(model.config, seed=seed, count=1) for seed in seeds])
    shares = torch.arange(steps, dtype=torch.float32) / steps
    path = [slerp(a, b, share) for a, b in zip(ends, ends.roll(-1, 0), strict=True) for share in shares]
    told = choose_ids(model, seed=seeds[0], count=1, labels=None if label is None else [label])
    return generate(model, torch.stack(path), told.expand(len(path)))


def slerp(start: Tensor, end: Tensor, share: float | Tensor) -> Tensor:
    """The vector that lies this share of the way from `start` to `end`, both (d,), along the arc between them.

    Source: Shoemake 1985, Animating rotation with quaternion curves, section 3.3. Parallel ends are joined by a line.
    """
    angle = torch.acos(torch.cosine_similarity(start, end, dim=0).clamp(-1, 1))
    if angle.sin() < 1e-6:
        return torch.lerp(start, end, torch.as_tensor(share, dtype=start.dtype))
    return (torch.sin((1 - share) * angle) * start + torch.sin(share * angle) * end) / torch.sin(angle)


@torch.no_grad()
def class_walk(model: Model, *, seed: int, ids: Sequence[int], steps: int) -> Tensor:
    """uint8 (steps * len(ids), C, H, W): one latent on its way through these ids and back to the first.

    Every embedding of ids is walked in a straight line from one row to the next. Raises ValueError for a generator
    that is told nothing, or not by embeddings.
    """
    G = copy.deepcopy(model.G)
    tables = [layer for layer in G.modules() if isinstance(layer, nn.Embedding)]
    if not tables or len(model.frequencies) < 2:
        raise ValueError("this generator is told nothing of classes, so it cannot walk between them; walk latents")
    stops = torch.tensor(ids)
    for table in tables:
        ends = table.weight[stops]
        rows = [torch.lerp(a, b, k / steps) for a, b in zip(ends, ends.roll(-1, 0), strict=True) for k in range(steps)]
        table.weight = nn.Parameter(torch.stack(rows), requires_grad=False)
        table.num_embeddings = len(rows)
    count = steps * len(ids)
    z = draw_latents(model.config, seed=seed, count=1).expand(count, -1)
    return generate(replace(model, G=G), z, torch.arange(count))


def network_spec(spec: ImageSpec, config: Config) -> ImageSpec:
    """The spec networks are built for: as many ids as the conditioning tells them."""
    labels = spec.num_classes * config.clusters_per_label
    ids = {"labels": labels, "clusters": config.clusters, "none": 0}[config.conditioning]
    return ImageSpec(spec.size, spec.channels, ids)


@torch.no_grad()
def recompute_statistics(G: nn.Module, config: Config, frequencies: Tensor) -> None:
    """Give every normalisation layer the mean and variance that these very weights produce.

    Averaged weights never ran on a training batch, and no layer keeps running statistics while it trains. The latents
    are fixed, so equal weights get equal statistics.
    """
    layers = [layer for layer in G.modules() if isinstance(layer, nn.modules.batchnorm._BatchNorm)]
    if not layers:
        return
    momenta = [layer.momentum for layer in layers]
    for layer in layers:
        layer.track_running_stats = True
        layer.reset_running_stats()
        layer.momentum = None  # a plain average over all batches
    was_training = G.training
    G.train()
    draw = rng("statistics")
    with seeded(rng("statistics", "dropout")):
        for _ in range(STATISTICS_SAMPLES // 128):
            ids = torch.multinomial(frequencies.double(), 128, replacement=True, generator=draw)
            G(shape_latents(torch.randn(128, config.z_dim, generator=draw), config.latent), ids)
    G.train(was_training)
    for layer, momentum in zip(layers, momenta, strict=True):
        layer.momentum = momentum


@torch.no_grad()
def match_tones(G: nn.Module, config: Config, frequencies: Tensor, wanted: Tensor) -> None:
    """Scale and shift what the last tanh squashes, until pixels have the mean and the mean square `wanted`.

    As with the statistics: averaged weights were never told how bright their images are, and averaging pales them.
    Newton's method finds gain and shift of each channel; where a gain within bounds cannot do it, the mean comes first.
    Latents are fixed and come with their opposites, which together stray a fifth as far as random ones do.

    Args:
        wanted: (C, 2) mean and mean square of each channel in [-1, 1].

    Raises ValueError as `squashed_layer` does.
    """
    layer = squashed_layer(G, channels := len(wanted))
    normal = torch.randn(STATISTICS_SAMPLES // 2, config.z_dim, generator=rng("tones"))
    ids = draw_ids(frequencies, seed=0, count=len(normal))
    was_training, outputs = G.training, list[Tensor]()
    with layer.register_forward_hook(lambda module, inputs, output: outputs.append(output)):
        G.eval()
        for z in (normal, -normal):
            G(shape_latents(z, config.latent), ids)
        G.train(was_training)
    h = torch.cat(outputs).reshape(2 * len(normal), channels, -1).transpose(0, 1).flatten(1)  # (C, values)
    gain, shift = torch.ones(channels, 1), torch.zeros(channels, 1)
    for _ in range(NEWTON_STEPS):
        y = torch.tanh(gain * h + shift)
        slope = 1 - y * y
        mean_missing, square_missing = (wanted - torch.stack([y.mean(1), y.square().mean(1)], dim=1)).split(1, dim=1)
        mean_by_shift = slope.mean(1, keepdim=True).clamp(min=1e-6)
        mean_by_gain, square_by_shift = (slope * h).mean(1, keepdim=True), 2 * (y * slope).mean(1, keepdim=True)
        # What gain does to the mean square while shift keeps the mean: more never makes it less.
        square_by_gain = 2 * (y * slope * h).mean(1, keepdim=True) - square_by_shift * mean_by_gain / mean_by_shift
        more = (square_missing - square_by_shift * mean_missing / mean_by_shift) / square_by_gain.clamp(min=1e-6)
        before, gain = gain, (gain + more).clamp(1 / MOST_GAIN, MOST_GAIN)
        shift += (mean_missing - mean_by_gain * (gain - before)) / mean_by_shift
        shift.clamp_(-MOST_SHIFT, MOST_SHIFT)
    rescale(layer, gain.flatten(), shift.flatten())


@torch.no_grad()
def rescale(layer: Squashed, gain: Tensor, shift: Tensor) -> None:
    """Make a layer of `squashed_layer` put out gain times as much, plus a shift; both (C,), for each channel."""
    assert layer.bias is not None  # squashed_layer refuses one without
    each = len(layer.bias) // len(gain)  # outputs of a channel lie side by side
    gains, shifts = gain.repeat_interleave(each), shift.repeat_interleave(each)
    outputs_at = 1 if isinstance(layer, nn.ConvTranspose2d) else 0
    layer.weight.mul_(gains.view([-1 if at == outputs_at else 1 for at in range(layer.weight.dim())]))
    layer.bias.mul_(gains).add_(shifts)


def squashed_layer(G: nn.Module, channels: int = 1) -> Squashed:
    """A generator's last layer, whose outputs its last tanh squashes, equally many for each channel.

    Raises ValueError for a generator that ends otherwise.
    """
    leaves = [module for module in G.modules() if next(module.children(), None) is None]
    last = max(k for k, leaf in enumerate(leaves) if hasattr(leaf, "bias"))
    layer = leaves[last]
    squashed = any(isinstance(leaf, nn.Tanh) for leaf in leaves[last:])
    if not (squashed and isinstance(layer, Squashed) and layer.bias is not None and len(layer.bias) % channels == 0):
        raise ValueError(
            "match_tones changes a layer under a last tanh, and this network's generator ends otherwise; set it to "
            "false or choose another network"
        )
    return layer


@contextlib.contextmanager
def seeded(source: torch.Generator) -> Iterator[None]:
    """Give torch's global state, which dropout draws from, the seed of `source`, and put it back afterwards."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(source.initial_seed())
        yield


def describe_model(config: Config, spec: ImageSpec, frequencies: Tensor) -> dict[str, str]:
    """What a generator file must say of itself to be used alone, and nothing of the folder its data lay in."""
    return {
        "config": json.dumps(config.replace(data_dir="").as_dict(), sort_keys=True),
        "spec": json.dumps(asdict(spec), sort_keys=True),
        "frequencies": json.dumps(frequencies.tolist()),
    }


def load_model(path: Path | str) -> Model:
    """The generator of a run directory (its newest checkpoint), of a checkpoint, or of a file.

    Files may be .safetensors, .onnx, or a Keras pair .json and .h5, also one that Gansmith did not write.

    Raises FileNotFoundError where there is none yet, ValueError for a file that is not a generator.
    """
    path = find_model(Path(path))
    G: Any = None
    if path.suffix == ".onnx":
        from gansmith.readers.onnx import read_onnx

        G, notes = read_onnx(path)
    elif path.suffix in (".json", ".h5"):
        from gansmith.readers.keras import read_keras

        G, notes = read_keras(path)
    else:
        notes = read_metadata(path)
    try:
        if notes:
            config, spec, frequencies = _read_notes(notes)
        else:
            config, spec, frequencies = _infer_notes(G)
        if G is None:
            G = _build(config, spec, path)
        model = Model(G.eval(), config, spec, frequencies)
        _try_out(model)
    except (ArithmeticError, LookupError, RuntimeError, TypeError, ValueError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(
            f"{path} does not fit this version of Gansmith ({reason}); use the version that wrote it"
        ) from None
    return model


def find_model(path: Path) -> Path:
    """The generator file that a run directory, a checkpoint or a folder of exports stands for."""
    if path.is_dir():
        if (path / "generator.safetensors").is_file() and not holds_run(path):
            return path / "generator.safetensors"
        latest = open_run(path).latest()
        if latest is None:
            raise FileNotFoundError(f"{path} has no checkpoint yet; let it train until its first save")
        return latest / "generator.safetensors"
    if not path.is_file():
        raise FileNotFoundError(
            f"there is no file or run {str(path)!r}; give a run directory or a generator.safetensors"
        )
    return path


def _read_notes(notes: Mapping[str, str]) -> tuple[Config, ImageSpec, Tensor]:
    """What `describe_model` wrote, checked; raises one of many errors where it was not that."""
    config = Config(**json.loads(notes["config"]))
    spec = ImageSpec(**json.loads(notes["spec"]))
    for name, low, high in (("size", 1, 1024), ("channels", 1, 64), ("num_classes", 0, 65_536)):
        value = getattr(spec, name)
        if type(value) is not int or not low <= value <= high:
            raise ValueError(f"{name} is {value!r}, not a number from {low} to {high}")
    frequencies = torch.tensor(json.loads(notes["frequencies"]), dtype=torch.float64)
    if frequencies.shape != (max(1, network_spec(spec, config).num_classes),) or not (
        frequencies.isfinite().all() and frequencies.min() >= 0 and frequencies.sum() > 0
    ):
        raise ValueError("its frequencies are not one share for each id")
    return config, spec, frequencies


@torch.no_grad()
def _infer_notes(G: Any) -> tuple[Config, ImageSpec, Tensor]:
    """The same for a file that says nothing of itself: all that its inputs and outputs tell; ids pass for labels."""
    if G.num_ids < 0:
        raise ValueError("it takes ids and does not say how many there are")
    _, channels, size, _ = G(torch.zeros(1, G.z_dim), torch.zeros(1, dtype=torch.int64)).shape
    config = Config(z_dim=G.z_dim, conditioning="labels" if G.num_ids else "none")
    count = max(1, G.num_ids)
    return config, ImageSpec(size, channels, G.num_ids), torch.full((count,), 1 / count, dtype=torch.float64)


class _NoFirstWeights(TorchFunctionMode):
    """Draws none of the weights that a file is about to replace: on the meta device torch needs seconds to begin to."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in (Tensor.normal_, Tensor.uniform_) or getattr(func, "__module__", "") == nn.init.__name__:
            return (*args, *(kwargs or {}).values())[0]
        return func(*args, **(kwargs or {}))


def _build(config: Config, spec: ImageSpec, path: Path) -> nn.Module:
    """The generator whose weights a file holds; its names and shapes are compared before any is read."""
    with torch.device("meta"), _NoFirstWeights():
        G, _ = choose(NETWORKS, config.network, "network")(network_spec(spec, config), config)
    expected = G.state_dict()
    with safetensors.safe_open(path, framework="pt") as file:
        shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}
    if shapes != {name: tuple(values.shape) for name, values in expected.items()}:
        odd = sorted(set(shapes.items()) ^ {(name, tuple(values.shape)) for name, values in expected.items()})
        raise ValueError(f"its weights are not those of its choices: {odd[0][0]}")
    tensors = safetensors.torch.load_file(path)
    for name, values in tensors.items():
        if values.dtype != expected[name].dtype:
            raise ValueError(f"{name} is {values.dtype}, not {expected[name].dtype}")
        if not values.isfinite().all():
            raise ValueError(f"{name} holds numbers that are not finite")
    G.load_state_dict(tensors, assign=True)
    return cast(nn.Module, G)


@torch.no_grad()
def _try_out(model: Model) -> None:
    """Raise ValueError where the model does not draw images of its spec for its first and its last id."""
    z, ids = draw_latents(model.config, seed=0, count=2), torch.tensor([0, len(model.frequencies) - 1])
    images = model.G(z, ids)
    size = model.spec.size
    if images.shape != (2, model.spec.channels, size, size):
        raise ValueError(f"it draws {tuple(images.shape[1:])}, not {(model.spec.channels, size, size)}")
    if not images.isfinite().all():
        raise ValueError("it draws numbers that are not finite")


def grid(images: Tensor, *, columns: int | None = None) -> Image.Image:
    """Images uint8 (N, C, H, W) side by side without gaps, row by row, on black."""
    n, channels, height, width = images.shape
    columns = columns or math.ceil(math.sqrt(n))
    rows = math.ceil(n / columns)
    canvas = torch.zeros(rows * columns, channels, height, width, dtype=torch.uint8)
    canvas[:n] = images
    tiles = canvas.view(rows, columns, channels, height, width).permute(0, 3, 1, 4, 2)
    pixels = tiles.reshape(rows * height, columns * width, channels).numpy()
    return Image.fromarray(pixels[..., 0] if channels == 1 else pixels)


def enlarge(image: Image.Image, *, at_least_px: int = 400) -> Image.Image:
    """The picture with each pixel repeated a whole number of times, until its short side is this long."""
    factor = max(1, math.ceil(at_least_px / min(image.size)))
    return image.resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST)


def to_png(image: Image.Image, note: PngInfo | None = None) -> bytes:
    """The picture as a PNG file's bytes, with a note inside where one is given."""
    file = io.BytesIO()
    image.save(file, "PNG", pnginfo=note)
    return file.getvalue()


def read_latents(path: Path, z_dim: int) -> Tensor:
    """(N, z_dim) float32 latents from a .npy file; ValueError for another shape, type or a damaged file."""
    with path.open("rb") as file:
        latents = read_array(file, str(path))
    if latents.ndim != 2 or latents.shape[1] != z_dim or not len(latents):
        raise ValueError(f"{path} has shape {latents.shape}; this model needs (count, {z_dim})")
    if latents.dtype.kind not in "fiu" or not np.isfinite(latents).all():
        raise ValueError(f"{path} holds {latents.dtype} values, not all finite numbers; save finite floats")
    return torch.from_numpy(latents.astype(np.float32))


def truncate(model: Model, strength: float) -> None:
    """From now on draw styles nearer to their mean: truer to type and less varied, 1 being untouched and 0 the mean.

    Raises ValueError for another strength, and for a generator that has no styles.
    """
    if not 0 <= strength <= 1:
        raise ValueError(f"truncation is {strength:g}; it must be between 0 and 1, such as 0.7")
    G: Any = model.G
    if not hasattr(G, "truncate"):
        raise ValueError(
            f"the {model.config.network} network has no styles to truncate; leave --truncation away or use a generator "
            "of stylegan-lite"
        )
    G.truncate(strength)


def write_npz(path: Path, images: Tensor, labels: Tensor, *, truncation: float = 1.0) -> None:
    """Images as uint8 (N, H, W, C) and labels as int64 (N,), at once or not at all; truncation where there is any."""
    noted: dict[str, Any] = {} if truncation == 1 else {"truncation": np.float64(truncation)}
    pixels = images.permute(0, 2, 3, 1).numpy()
    with replacing(path) as partial, partial.open("wb") as file:
        np.savez_compressed(file, images=pixels, labels=labels.long().numpy(), **noted)
