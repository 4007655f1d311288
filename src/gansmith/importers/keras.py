"""Keras generators: `generator.json` beside `generator.h5`, or both in one whole-model .h5, from Keras 2 or 3.

`LAYERS` is the white list: what has a row is computed here, in torch, and everything else is refused, so nothing that
a file holds is ever run. Maps are (N, H, W, C), as Keras keeps them.
"""

from gansmith.errors import NotFoundError
import contextlib
import json
import multiprocessing
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import h5py
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

MAX_JSON_BYTES = 4 << 20
MAX_WEIGHTS = 100_000_000  # numbers in one weight, and in all of a model's
MAX_LAYERS = 1_000
MAX_NUMBERS = 1 << 20  # in what a layer puts out for one image
PATIENCE_S = 10.0


def read_keras(path: Path) -> tuple["KerasGenerator", dict[str, str]]:
    """The generator of a pair of files, either of which may be named, and what Gansmith noted in it (else nothing).

    Raises FileNotFoundError where the other file is missing, ValueError for anything but a plain generator: a layer
    that is not on the list, links, code, numbers that are not finite, shapes that do not fit, sizes beyond reason.
    """
    json_path, h5_path = _find_pair(path)
    try:
        _send_ahead(h5_path)
        with h5py.File(h5_path, "r") as file:
            text = _read_text(file) if json_path is None else _read_limited(json_path)
            G = KerasGenerator(json.loads(text), _open_store(file))
            notes = json.loads(_read_notes(file)) if "gansmith" in file else {}
            G.stretches = not notes and G.model.closing_activation == "sigmoid"
    except (ArithmeticError, AttributeError, LookupError, OSError, RuntimeError, TypeError, ValueError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(
            f"{path} is not a Keras generator that can be read ({reason}); export it again, or as ONNX"
        ) from None
    return G.eval(), notes


def _read_notes(file: h5py.File) -> str:
    """What Gansmith wrote of the generator: one text."""
    dataset = _open(file, "gansmith")
    if dataset.shape != () or dataset.dtype.itemsize > MAX_JSON_BYTES:
        raise ValueError("its notes are no text")
    return str(dataset.asstr()[()])


def _send_ahead(path: Path) -> None:
    """Have another process read the file first, since damaged ones make HDF5's library crash or run without end."""
    scout = multiprocessing.get_context("fork").Process(target=_read_all, args=(path,))
    scout.start()
    scout.join(PATIENCE_S)
    if scout.is_alive():
        scout.kill()
        scout.join()
        raise ValueError(f"reading it takes more than {PATIENCE_S:.0f} seconds")
    if scout.exitcode != 0:
        raise ValueError("reading it crashes HDF5's library")


def _read_all(path: Path) -> None:
    """All that a file holds itself, whatever it is; what raises here will raise again and be told then."""

    def read(name: str, found: Any) -> None:
        with contextlib.suppress(Exception):
            dict(found.attrs)
            if isinstance(found, h5py.Dataset) and found.dtype.kind == "f" and not found.external:
                if found.size * found.dtype.itemsize <= 4 * MAX_WEIGHTS:
                    found[()]

    with contextlib.suppress(Exception), h5py.File(path, "r") as file:
        read("/", file)
        file.visititems(read)


def _find_pair(path: Path) -> tuple[Path | None, Path]:
    """The architecture's file, None where it is inside the other, and the weights' file."""
    stem = path.name.removesuffix(".json").removesuffix(".h5").removesuffix(".weights")
    json_path = path.with_name(f"{stem}.json")
    h5_paths = [path] if path.suffix == ".h5" else [path.with_name(f"{stem}{end}") for end in (".h5", ".weights.h5")]
    for h5_path in h5_paths:
        if h5_path.is_file():
            return json_path if json_path.is_file() else None, h5_path
    raise NotFoundError(f"there is no {h5_paths[0]}; the weights must lie beside {path.name}")


def _read_limited(path: Path) -> str:
    with path.open("rb") as file:
        data = file.read(MAX_JSON_BYTES + 1)
    if len(data) > MAX_JSON_BYTES:
        raise ValueError(f"its architecture is longer than {MAX_JSON_BYTES:,} bytes")
    return data.decode("utf-8")


def _read_text(file: h5py.File) -> str:
    if "model_config" not in file.attrs:
        raise ValueError("it holds weights alone, and there is no .json of the same name beside it")
    text = file.attrs["model_config"]
    return text.decode("utf-8") if isinstance(text, bytes) else str(text)


class KerasGenerator(nn.Module):
    """G(z, ids) -> (N, C, H, W) in [-1, 1].

    Attributes:
        latent_dim: length of the latent vector.
        num_ids: how many ids it knows, 0 where it takes none.
        stretches: whether its images come in [0, 1], as those of others with a closing sigmoid do.
    """

    stretches = False

    def __init__(self, architecture: dict[str, Any], store: "_Store") -> None:
        super().__init__()
        self.model = _Model(architecture, store)
        sizes = [shape[1:] for shape in self.model.input_shapes]
        if len(sizes) == 2 and [1] in sizes:
            self.ids_at: int | None = sizes.index([1])
        elif len(sizes) == 1:
            self.ids_at = None
        else:
            raise ValueError(f"its inputs are {sizes}, not latents alone or latents and one id")
        latents = sizes[0 if self.ids_at is None else 1 - self.ids_at]
        if len(latents) != 1 or not isinstance(latents[0], int) or latents[0] < 1:
            raise ValueError(f"its latents have shape {latents}, not one length")
        tables = [layer.num_ids for layer in self.modules() if isinstance(layer, _Embedding)]
        if self.ids_at is not None and not tables:
            raise ValueError("it takes an id but has no embedding that says how many there are")
        self.latent_dim: int = latents[0]
        self.num_ids = 0 if self.ids_at is None else min(tables)
        # Shapes are worked out where tensors have no memory: what is too large is refused before it is computed.
        weights = {name: values.to("meta") for name, values in self.named_buffers()}
        inputs = (torch.empty(2, self.latent_dim, device="meta"), torch.zeros(2, dtype=torch.int64, device="meta"))
        torch.func.functional_call(self, weights, inputs)

    def forward(self, z: Tensor, ids: Tensor) -> Tensor:
        inputs = [z]
        if self.ids_at is not None:
            inputs.insert(self.ids_at, ids[:, None])
        images: Tensor = self.model(*inputs)
        if images.dim() == 2 and images.shape[1] == int(images.shape[1] ** 0.5) ** 2:
            images = images.unflatten(1, (int(images.shape[1] ** 0.5), -1))  # (N, H * W), as some courses have it
        if images.dim() == 3:
            images = images[..., None]
        if images.dim() != 4:
            raise ValueError(f"it puts out {tuple(images.shape[1:])}, not images")
        images = images.movedim(-1, 1)
        return 2 * images - 1 if self.stretches else images


class _Store(Protocol):
    """Where the weights of a model, or of one layer, are found."""

    def layer(self, name: str, kind: str) -> "_Store":
        """The next layer's part."""

    def take(self, key: str, *shape: int) -> Tensor:
        """The layer's weight of that name, which must have this shape; -1 leaves a side open."""


def _open_store(file: h5py.File) -> _Store:
    if "layers" in file and "layer_names" not in file.attrs:
        return _ByPlace(file)
    return _ByName(_open(file, "model_weights") if "layer_names" not in file.attrs else file)


class _ByName:
    """The layout of Keras 2, and of Keras 3's .h5: a group for each outer layer, which lists its weights' names."""

    def __init__(self, root: h5py.Group, group: h5py.Group = None, name: str = "") -> None:
        self.root, self.group, self.name = root, group, name

    def layer(self, name: str, kind: str) -> "_ByName":
        return _ByName(self.root, _open(self.root, name) if self.group is None else self.group, name)

    def take(self, key: str, *shape: int) -> Tensor:
        listed = [
            name.decode("utf-8") if isinstance(name, bytes) else str(name)
            for attribute in sorted(self.group.attrs)
            if re.fullmatch(r"weight_names\d*", attribute)
            for name in self.group.attrs[attribute]
        ]
        found = [name for name in listed if _parts(name)[-1] == key]
        if len(found) > 1:  # a model within the model: all of its weights are in one group
            found = [name for name in found if _parts(name)[-2:] == [self.name, key]]
        if len(found) != 1:
            raise ValueError(f"layer {self.name} has {len(found)} weights called {key}")
        return _read(_open(self.group, found[0]), shape)


def _parts(weight_name: str) -> list[str]:
    return weight_name.partition(":")[0].split("/")


class _ByPlace:
    """The layout of Keras 3's .weights.h5: groups are numbered by the kind of layer, weights by their order."""

    def __init__(self, file: h5py.File, path: str = "") -> None:
        self.file, self.path = file, path
        self.seen: dict[str, int] = {}
        self.taken = 0

    def layer(self, name: str, kind: str) -> "_ByPlace":
        kind = re.sub(r"(?<!^)(?=[A-Z][a-z])|(?<=[a-z])(?=[A-Z])", "_", kind).lower()  # LeakyReLU: leaky_re_lu
        count = self.seen.get(kind, 0)
        self.seen[kind] = count + 1
        return _ByPlace(self.file, f"{self.path}layers/{kind}_{count}/" if count else f"{self.path}layers/{kind}/")

    def take(self, key: str, *shape: int) -> Tensor:
        self.taken += 1
        return _read(_open(self.file, f"{self.path}vars/{self.taken - 1}"), shape)


def _open(group: h5py.Group, path: str) -> Any:
    """What lies at a path; ValueError where a link on the way leads elsewhere, perhaps out of the file."""
    for part in path.split("/"):
        link = group.get(part, getlink=True) if isinstance(group, h5py.Group) and part else None
        if not isinstance(link, h5py.HardLink):
            raise ValueError(f"its {path!r} is missing or a link")
        group = group[part]
    return group


def _read(dataset: Any, shape: tuple[int, ...]) -> Tensor:
    if not isinstance(dataset, h5py.Dataset) or dataset.dtype.kind != "f":
        raise ValueError("a weight is not an array of numbers")
    if dataset.external or dataset.is_virtual:
        raise ValueError("its weights lie in another file")
    sides = zip(dataset.shape, shape, strict=False)
    if len(dataset.shape) != len(shape) or any(wanted not in (-1, side) for side, wanted in sides):
        raise ValueError(f"{dataset.name} has shape {dataset.shape}, not {shape}")
    if dataset.size > MAX_WEIGHTS:
        raise ValueError(f"{dataset.name} declares {dataset.size:,} numbers, more than {MAX_WEIGHTS:,}")
    if dataset.size and not dataset.id.get_storage_size():
        raise ValueError(f"{dataset.name} declares {dataset.size:,} numbers and holds none")
    values = torch.from_numpy(np.asarray(dataset[()], dtype=np.float32))
    if not values.isfinite().all():
        raise ValueError(f"{dataset.name} holds numbers that are not finite")
    return values


class _Model(nn.Module):
    """A Sequential or a functional model, which may hold others."""

    def __init__(self, description: dict[str, Any], store: _Store, depth: int = 0) -> None:
        super().__init__()
        kind, config = description["class_name"], description["config"]
        if kind not in MODELS or depth > 8:
            raise ValueError(f"it is a {kind} model; only {', '.join(MODELS)} can be read")
        rows = config if isinstance(config, list) else config["layers"]
        if not 0 < len(rows) <= MAX_LAYERS:
            raise ValueError(f"it has {len(rows)} layers; 1 to {MAX_LAYERS} can be read")
        names = [row["config"]["name"] if kind == "Sequential" else row["name"] for row in rows]
        self.layers, numbers = nn.ModuleList(), 0
        for name, row in zip(names, rows, strict=True):
            layer = _build(row, store.layer(name, row["class_name"]), depth)
            self.layers.append(layer)
            numbers += sum(values.numel() for values in layer.state_dict().values())
            if numbers > MAX_WEIGHTS:
                raise ValueError(f"its weights are more than {MAX_WEIGHTS:,} numbers")
        if kind == "Sequential":
            # A first layer may say its input's shape itself, without an input layer.
            self.sources = [[names[k - 1]] if k else [] for k in range(len(rows))]
            self.inputs, self.output = [names[0]], names[-1]
            first = rows[0]["config"]
            shapes = [first.get("batch_input_shape") or first.get("batch_shape") or config["build_input_shape"]]
        else:
            self.sources = [_sources(row["inbound_nodes"]) for row in rows]
            self.inputs = [name for name, *_ in _listed(config["input_layers"])]
            [(self.output, *_)] = _listed(config["output_layers"])
            inputs = [rows[names.index(name)]["config"] for name in self.inputs]
            shapes = [row.get("batch_input_shape") or row["batch_shape"] for row in inputs]
        self.input_shapes: list[list[int | None]] = shapes
        self.order = _order(names, self.sources, self.inputs)
        self.names = names

    @property
    def closing_activation(self) -> str:
        last = self.layers[self.names.index(self.output)]
        return str(last.closing_activation)

    def forward(self, *inputs: Tensor) -> Tensor:
        values: dict[str, Tensor] = dict(zip(self.inputs, inputs, strict=True))
        for k in self.order:
            name = self.names[k]
            given = [values[source] for source in self.sources[k]] or [values[name]]
            values[name] = self.layers[k](*given)
            if len(values[name]) != len(inputs[0]):
                raise ValueError(f"layer {name} makes {len(values[name]):,} images of {len(inputs[0]):,}")
            if values[name][0].numel() > MAX_NUMBERS:
                raise ValueError(f"layer {name} puts out {values[name][0].numel():,} numbers for one image")
        return values[self.output]


def _build(row: dict[str, Any], store: _Store, depth: int) -> nn.Module:
    kind, config = row["class_name"], row["config"]
    if kind in MODELS:
        return _Model(row, store, depth + 1)
    if kind not in LAYERS:
        raise ValueError(f"it has a {kind} layer; only {', '.join(LAYERS)} can be read")
    if config.get("data_format") == "channels_first":
        raise ValueError(f"its layer {config['name']} keeps channels first")
    return LAYERS[kind](config, store)


def _listed(entries: list[Any]) -> list[list[Any]]:
    """[[name, 0, 0], ...]; Keras 3 leaves the outer list away where there is one."""
    return [entries] if isinstance(entries[0], str) else entries


def _sources(nodes: list[Any]) -> list[str]:
    """The layers that feed a layer, from either form of `inbound_nodes`."""
    if len(nodes) > 1:
        raise ValueError("it uses a layer more than once")
    sources, options = [], []
    for node in nodes:
        if isinstance(node, dict):  # Keras 3
            arguments = node["args"][0]
            for tensor in arguments if isinstance(arguments, list) else [arguments]:
                sources.append(tensor["config"]["keras_history"][0])
            options.append(node["kwargs"])
        else:
            for entry in node:
                sources.append(entry[0])
                options.append(entry[3] if len(entry) > 3 else {})
    if any(value for option in options for value in option.values()):
        raise ValueError(f"it calls a layer with options {options}, such as for training")
    return sources


def _order(names: list[str], sources: list[list[str]], inputs: list[str]) -> list[int]:
    """Positions such that every layer comes after those that feed it."""
    order: list[int] = []
    done: set[str] = set()
    while len(order) < len(names):
        ready = [k for k, name in enumerate(names) if name not in done and all(source in done for source in sources[k])]
        if not ready or any(not sources[k] and names[k] not in inputs for k in ready):
            raise ValueError("its layers do not lead from the inputs to the images")
        order += ready
        done |= {names[k] for k in ready}
    return order


class _Layer(nn.Module):
    """One layer: a function of its inputs and its weights, then an activation."""

    def __init__(
        self, compute: Callable[..., Tensor], weights: dict[str, Tensor] | None = None, activation: Any = "linear"
    ) -> None:
        super().__init__()
        if not isinstance(activation, str) or activation not in ACTIVATIONS:
            raise ValueError(f"it has the activation {activation!r}; only {', '.join(ACTIVATIONS)} can be read")
        self.compute, self.closing_activation = compute, activation
        for key, values in (weights or {}).items():
            self.register_buffer(key, values)

    def forward(self, *inputs: Tensor) -> Tensor:
        computed: Tensor = self.compute(*inputs, **dict(self.named_buffers()))
        return ACTIVATIONS[self.closing_activation](computed)


class _Embedding(_Layer):
    def __init__(self, config: dict[str, Any], store: _Store) -> None:
        self.num_ids: int = config["input_dim"]
        table = store.take("embeddings", self.num_ids, config["output_dim"])
        super().__init__(lambda ids, embeddings: F.embedding(ids.long(), embeddings), {"embeddings": table})


def _unchanged(config: dict[str, Any], store: _Store) -> _Layer:
    return _Layer(lambda x: x)


def _activation(config: dict[str, Any], store: _Store) -> _Layer:
    return _Layer(lambda x: x, activation=config["activation"])


def _dense(config: dict[str, Any], store: _Store) -> _Layer:
    weights = {"kernel": store.take("kernel", -1, config["units"])} | _bias(config, store, config["units"])
    return _Layer(lambda x, kernel, bias=None: F.linear(x, kernel.T, bias), weights, config.get("activation", "linear"))


def _bias(config: dict[str, Any], store: _Store, length: int) -> dict[str, Tensor]:
    return {"bias": store.take("bias", length)} if config.get("use_bias", True) else {}


def _leaky_relu(config: dict[str, Any], store: _Store) -> _Layer:
    slope = float(config.get("negative_slope", config.get("alpha", 0.3)))
    return _Layer(lambda x: F.leaky_relu(x, slope))


def _relu(config: dict[str, Any], store: _Store) -> _Layer:
    if config.get("max_value") is not None or config.get("threshold"):
        raise ValueError("it has a ReLU with a threshold or a largest value")
    return _Layer(lambda x: F.leaky_relu(x, float(config.get("negative_slope") or 0.0)))


def _elu(config: dict[str, Any], store: _Store) -> _Layer:
    return _Layer(lambda x: F.elu(x, float(config.get("alpha", 1.0))))


def _batch_normalization(config: dict[str, Any], store: _Store) -> _Layer:
    axis = config.get("axis", -1)
    axis = axis[0] if isinstance(axis, list) else axis
    wanted = {"gamma": config.get("scale", True), "beta": config.get("center", True)}
    weights = {key: store.take(key, -1) for key, is_there in wanted.items() if is_there}
    weights |= {key: store.take(key, -1) for key in ("moving_mean", "moving_variance")}
    epsilon = float(config.get("epsilon", 1e-3))

    def normalise(x: Tensor, **weights: Tensor) -> Tensor:
        shape = [1] * x.dim()
        shape[axis] = x.shape[axis]
        mean, variance, gamma, beta = (
            weights[key].reshape(shape) if key in weights else None
            for key in ("moving_mean", "moving_variance", "gamma", "beta")
        )
        assert mean is not None and variance is not None
        x = (x - mean) / (variance + epsilon).sqrt()
        x = x if gamma is None else x * gamma
        return x if beta is None else x + beta

    return _Layer(normalise, weights)


def _conv2d(config: dict[str, Any], store: _Store) -> _Layer:
    height, width = size = _two(config["kernel_size"])
    groups = int(config.get("groups", 1))
    kernel = store.take("kernel", height, width, -1, config["filters"])
    strides, dilation = _two(config.get("strides", 1)), _two(config.get("dilation_rate", 1))
    padding = config.get("padding", "valid")

    def convolve(x: Tensor, kernel: Tensor, bias: Tensor | None = None) -> Tensor:
        if padding == "same":
            sides: list[int] = []
            for length, k, step, gap in zip(x.shape[1:3], size, strides, dilation, strict=True):
                total = max(0, (-(-length // step) - 1) * step + (k - 1) * gap + 1 - length)
                sides = [total // 2, total - total // 2, *sides]  # torch counts from the last axis
            x = F.pad(x, (0, 0, *sides))
        maps = F.conv2d(
            x.movedim(-1, 1), kernel.permute(3, 2, 0, 1), bias, stride=strides, dilation=dilation, groups=groups
        )
        return maps.movedim(1, -1)

    return _Layer(
        convolve, {"kernel": kernel} | _bias(config, store, config["filters"]), config.get("activation", "linear")
    )


def _conv2d_transpose(config: dict[str, Any], store: _Store) -> _Layer:
    height, width = size = _two(config["kernel_size"])
    strides, padding = _two(config.get("strides", 1)), config.get("padding", "valid")
    if _two(config.get("dilation_rate", 1)) != (1, 1) or config.get("output_padding") or config.get("groups", 1) != 1:
        raise ValueError("it has a transposed convolution with dilation, groups or output padding")

    def convolve(x: Tensor, kernel: Tensor, bias: Tensor | None = None) -> Tensor:
        maps = F.conv_transpose2d(x.movedim(-1, 1), kernel.permute(3, 2, 0, 1), stride=strides)
        sides: list[int] = []
        for k, step in zip(size, strides, strict=True):
            # TensorFlow's lengths: a short kernel leaves zeros at the end, "same" cuts what exceeds the stride.
            cut = max(0, k - step) if padding == "same" else 0
            sides = [-(cut // 2), max(0, step - k) - (cut - cut // 2), *sides]
        maps = F.pad(maps, sides)
        return (maps if bias is None else maps + bias[:, None, None]).movedim(1, -1)

    weights = {"kernel": store.take("kernel", height, width, config["filters"], -1)}
    return _Layer(convolve, weights | _bias(config, store, config["filters"]), config.get("activation", "linear"))


def _two(value: Any) -> tuple[int, int]:
    first, second = value if isinstance(value, list) else (value, value)
    return int(first), int(second)


def _up_sampling(config: dict[str, Any], store: _Store) -> _Layer:
    height, width = _two(config.get("size", 2))
    mode = config.get("interpolation", "nearest")
    if mode not in ("nearest", "bilinear"):
        raise ValueError(f"it has {mode} upsampling; only nearest and bilinear can be read")

    def enlarge(x: Tensor) -> Tensor:
        maps = F.interpolate(x.movedim(-1, 1), scale_factor=(float(height), float(width)), mode=mode)
        return maps.movedim(1, -1)

    return _Layer(enlarge)


def _sides(value: Any) -> tuple[int, int, int, int]:
    """Left, right, top, bottom from Keras's number, pair or pairs."""
    rows, columns = value if isinstance(value, list) else (value, value)
    return *_two(columns), *_two(rows)


def _zero_padding(config: dict[str, Any], store: _Store) -> _Layer:
    sides = _sides(config.get("padding", 1))
    return _Layer(lambda x: F.pad(x, (0, 0, *sides)))


def _cropping(config: dict[str, Any], store: _Store) -> _Layer:
    sides = _sides(config.get("cropping", 0))
    return _Layer(lambda x: F.pad(x, (0, 0, *(-side for side in sides))))


def _reshape(config: dict[str, Any], store: _Store) -> _Layer:
    shape = [int(side) for side in config["target_shape"]]
    return _Layer(lambda x: x.reshape(len(x), *shape))


def _flatten(config: dict[str, Any], store: _Store) -> _Layer:
    return _Layer(lambda x: x.flatten(1))


def _permute(config: dict[str, Any], store: _Store) -> _Layer:
    dims = [int(axis) for axis in config["dims"]]
    return _Layer(lambda x: x.permute(0, *dims))


def _rescaling(config: dict[str, Any], store: _Store) -> _Layer:
    scale, offset = float(config["scale"]), float(config.get("offset", 0.0))
    return _Layer(lambda x: x * scale + offset)


def _add(config: dict[str, Any], store: _Store) -> _Layer:
    return _Layer(lambda first, *others: sum(others, first))


def _multiply(config: dict[str, Any], store: _Store) -> _Layer:
    def multiply(first: Tensor, *others: Tensor) -> Tensor:
        for other in others:
            first = first * other
        return first

    return _Layer(multiply)


def _concatenate(config: dict[str, Any], store: _Store) -> _Layer:
    axis = int(config.get("axis", -1))
    return _Layer(lambda *inputs: torch.cat(inputs, dim=axis))


MODELS = ("Functional", "Model", "Sequential")

LAYERS: dict[str, Callable[[dict[str, Any], _Store], nn.Module]] = {
    "Activation": _activation,
    "Add": _add,
    "BatchNormalization": _batch_normalization,
    "Concatenate": _concatenate,
    "Conv2D": _conv2d,
    "Conv2DTranspose": _conv2d_transpose,
    "Cropping2D": _cropping,
    "Dense": _dense,
    "Dropout": _unchanged,
    "ELU": _elu,
    "Embedding": _Embedding,
    "Flatten": _flatten,
    "GaussianNoise": _unchanged,
    "InputLayer": _unchanged,
    "LeakyReLU": _leaky_relu,
    "Multiply": _multiply,
    "Permute": _permute,
    "ReLU": _relu,
    "Rescaling": _rescaling,
    "Reshape": _reshape,
    "SpatialDropout2D": _unchanged,
    "UpSampling2D": _up_sampling,
    "ZeroPadding2D": _zero_padding,
}

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "elu": F.elu,
    "gelu": F.gelu,
    "leaky_relu": lambda x: F.leaky_relu(x, 0.2),
    "linear": lambda x: x,
    "relu": F.relu,
    "selu": F.selu,
    "sigmoid": torch.sigmoid,
    "silu": F.silu,
    "softplus": F.softplus,
    "swish": F.silu,
    "tanh": torch.tanh,
}
