"""Keras files: architecture as JSON and weights as HDF5, in the format of Keras 2 that tf_keras and Keras 3 load too.

A `.keras` archive has both in one file, for Keras 3 and 2.15.

`LAYERS` maps torch operations to Keras layers that compute exactly the same; other operations are refused. Neither file
contains code. Maps are (N, H, W, C) in Keras.
"""

import itertools
import json
import os
import warnings
import zipfile
from collections.abc import Callable, Mapping
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import h5py
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.fx import Node

from gansmith.errors import GansmithError
from gansmith.exporters.graph import largest_difference, trace
from gansmith.models import model_metadata
from gansmith.sampling import Model
from gansmith.signature import as_exported

KERAS_VERSION = "2.15.0"  # the last whose format all later versions read


def to_keras(model: Model, path: Path) -> float:
    """Write `path` with the suffixes .json, .h5 and .keras; return the largest pixel difference of what Keras computes.

    Raises GansmithError, with nothing written, if Keras is not installed or has no equal of an operation of G.
    """
    if find_spec("keras") is None:
        raise GansmithError("keras is not installed; run: pip install 'gansmith[keras]'")
    model = as_exported(model)
    writer = _Writer(model)
    architecture, metadata = json.dumps(writer.config()), json.dumps(model_metadata(model))
    path.with_suffix(".json").write_text(architecture, encoding="ascii")
    with h5py.File(path.with_suffix(".h5"), "w") as file:
        writer.write_weights(file)
        file["gansmith"] = metadata
    os.environ.setdefault("KERAS_BACKEND", "torch")
    import keras

    with warnings.catch_warnings(), keras.device("cpu"):  # another device may compute less exactly
        warnings.simplefilter("ignore")  # of names of Keras 2, such as alpha, that are deprecated
        G = keras.models.model_from_json(architecture)
        G.load_weights(path.with_suffix(".h5"))
        _write_archive(G, path.with_suffix(".keras"), architecture, metadata)
        both = (G, keras.models.load_model(path.with_suffix(".keras")))
        return max(largest_difference(model, partial(_generate_with_keras, G)) for G in both)


def _generate_with_keras(G: Any, z: Tensor, labels: Tensor) -> Tensor:
    from keras import ops

    inputs = [z.numpy(), labels[:, None].int().numpy()][: len(G.inputs)]
    images = ops.convert_to_numpy(G(inputs if len(inputs) > 1 else inputs[0], training=False))
    return torch.from_numpy(images).movedim(-1, 1)


def _write_archive(G: Any, path: Path, architecture: str, metadata: str) -> None:
    """Write a .keras archive: equal generators make equal files, and an older Keras 3 reads it, unlike `G.save`'s."""
    with TemporaryDirectory() as folder:
        weights = Path(folder, "model.weights.h5")
        G.save_weights(weights)
        with h5py.File(weights, "r+") as file:
            file["gansmith"] = metadata
        members = {
            "metadata.json": json.dumps({"keras_version": "3.0.0", "date_saved": "1980-01-01@00:00:00"}).encode(),
            "config.json": architecture.encode(),
            weights.name: weights.read_bytes(),
        }
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members.items():
            archive.writestr(zipfile.ZipInfo(name), data)


class _Writer:
    """A Keras model in construction; each layer is added after its inputs.

    Attributes:
        layers: as in the JSON file.
        weights: name and array of each weight, for each layer.
        names: the Keras layer that computes the output of a node of the graph.
        constants: parameters and buffers of G, by the name of their node.
    """

    def __init__(self, model: Model) -> None:
        self.network, self.latent_dim = model.config.network, model.config.latent_dim
        self.layers: list[dict[str, Any]] = []
        self.weights: dict[str, list[tuple[str, NDArray[np.float32]]]] = {}
        program = trace(model)
        signature = program.graph_signature
        tensors = {**program.constants, **program.state_dict}
        keys = {**signature.inputs_to_parameters, **signature.inputs_to_buffers}
        keys |= signature.inputs_to_lifted_tensor_constants
        self.constants: dict[str, Tensor] = {name: tensors[key] for name, key in keys.items()}
        inputs = (("z", "float32", [None, self.latent_dim]), ("label", "int32", [None, 1]))
        self.inputs = [name for name, _, _ in inputs[: len(signature.user_inputs)]]
        self.names: dict[str, str] = dict(zip(signature.user_inputs, self.inputs, strict=True))
        for name, dtype, shape in inputs[: len(self.inputs)]:
            config = {"name": name, "dtype": dtype, "batch_input_shape": shape}
            self.layers.append({"class_name": "InputLayer", "config": config, "name": name, "inbound_nodes": []})
            self.weights[name] = []
        (output,) = program.graph.output_node().args[0]
        self.output = self.name_of(output)

    def add(self, kind: str, inputs: list[str], *, weights: Mapping[str, Tensor] | None = None, **config: Any) -> str:
        """Add a layer and return its name."""
        name = f"{len(self.layers):03d}_{kind.lower()}"
        config = {"name": name, "trainable": True, "dtype": "float32", **config}
        nodes = [[[source, 0, 0, {}] for source in inputs]]
        self.layers.append({"class_name": kind, "config": config, "name": name, "inbound_nodes": nodes})
        self.weights[name] = [(f"{name}/{key}:0", value.detach().numpy()) for key, value in (weights or {}).items()]
        return name

    def name_of(self, node: Any) -> str:
        """Return the name of the Keras layer that computes a node, after adding it and its inputs if necessary."""
        if node.name not in self.names:
            if node.target not in LAYERS:
                raise self.error(node)
            arguments = {argument.name: argument.default_value for argument in node.target._schema.arguments}
            arguments |= dict(zip(arguments, node.args, strict=False)) | node.kwargs
            self.names[node.name] = LAYERS[node.target](self, node, **arguments)
        return self.names[node.name]

    def constant(self, node: Any) -> Tensor | None:
        """Return the parameter or buffer of a node, None if it is computed from the inputs."""
        return self.constants.get(node.name) if isinstance(node, Node) else None

    def error(self, node: Any, detail: str = "") -> GansmithError:
        """Return the error for a node without an equal layer; `detail` says when, such as "with a factor"."""
        operation = f"{node.target} {detail}".rstrip()
        return GansmithError(
            f"the {self.network} network computes {operation}, which no Keras layer does exactly; export it as "
            "safetensors, onnx or pt2 instead"
        )

    def config(self) -> dict[str, Any]:
        """Return the model as in the JSON file."""
        config = {
            "name": "generator",
            "trainable": True,
            "layers": self.layers,
            "input_layers": [[name, 0, 0] for name in self.inputs],
            "output_layers": [[self.output, 0, 0]],
        }
        return {
            "module": "keras.models",
            "class_name": "Model",
            "config": config,
            "keras_version": KERAS_VERSION,
            "backend": "tensorflow",
        }

    def write_weights(self, file: h5py.File) -> None:
        """Write a group for each layer, in the order in which Keras reads them: farthest from the output first."""
        distance = dict.fromkeys(self.weights, 0)
        for row in reversed(self.layers):
            for source, *_ in itertools.chain(*row["inbound_nodes"]):
                distance[source] = max(distance[source], distance[row["name"]] + 1)
        in_order = sorted(self.weights, key=lambda name: -distance[name])
        file.attrs["layer_names"] = [name.encode() for name in in_order]
        file.attrs["backend"] = b"tensorflow"
        file.attrs["keras_version"] = KERAS_VERSION.encode()
        for layer, weights in {**self.weights, "top_level_model_weights": []}.items():
            group = file.create_group(layer)
            group.attrs["weight_names"] = np.array([name.encode() for name, _ in weights], dtype="S")
            for name, values in weights:
                group[name] = values


def _shape(node: Any) -> tuple[int, ...]:
    """Return the shape of a node's output without the batch."""
    return tuple(node.meta["val"].shape[1:])


def _like_input(keras: _Writer, node: Node, *, input: Node, **_: Any) -> str:
    return keras.name_of(input)


def _linear(keras: _Writer, node: Node, *, input: Node, weight: Node, bias: Node | None) -> str:
    kernel = keras.constant(weight)
    assert kernel is not None
    if len(_shape(input)) != 1:
        raise keras.error(node, "on maps")
    weights = {"kernel": kernel.T} | _bias(keras, bias)
    return keras.add("Dense", [keras.name_of(input)], weights=weights, units=len(kernel), use_bias=bias is not None)


def _bias(keras: _Writer, bias: Node | None) -> dict[str, Tensor]:
    values = keras.constant(bias)
    return {} if values is None else {"bias": values}


def _conv2d(
    keras: _Writer,
    node: Node,
    *,
    input: Node,
    weight: Node,
    bias: Node | None,
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    groups: int,
) -> str:
    kernel = keras.constant(weight)
    if kernel is None:
        raise keras.error(node, "with a kernel for each image")
    if max(stride) > 1 and max(dilation) > 1:
        raise keras.error(node, "with both stride and dilation")
    top, left = _pair(padding)
    source = _pad(keras, keras.name_of(input), (top, top), (left, left))
    return keras.add(
        "Conv2D",
        [source],
        weights={"kernel": _ungroup(kernel, groups).permute(2, 3, 1, 0)} | _bias(keras, bias),
        filters=len(kernel),
        kernel_size=list(kernel.shape[2:]),
        strides=_pair(stride),
        dilation_rate=_pair(dilation),
        padding="valid",
        data_format="channels_last",
        use_bias=bias is not None,
    )


def _conv_transpose2d(
    keras: _Writer,
    node: Node,
    *,
    input: Node,
    weight: Node,
    bias: Node | None,
    stride: list[int],
    padding: list[int],
    output_padding: list[int],
    groups: int,
    dilation: list[int],
) -> str:
    kernel = keras.constant(weight)
    sides = list(zip(_pair(stride), _pair(padding), _pair(output_padding), strict=True))
    if kernel is None or _pair(dilation) != [1, 1] or any(extra > cut for _, cut, extra in sides):
        raise keras.error(node, "with these arguments")
    kernel = _ungroup(kernel, groups)
    name = keras.add(
        "Conv2DTranspose",
        [keras.name_of(input)],
        weights={"kernel": kernel.permute(2, 3, 1, 0)} | _bias(keras, bias),
        filters=kernel.shape[1],
        kernel_size=list(kernel.shape[2:]),
        strides=_pair(stride),
        padding="valid",
        data_format="channels_last",
        use_bias=bias is not None,
    )
    # If the kernel is smaller than the stride, Keras's "valid" output is larger than torch's by the gap.
    gaps = [max(0, step - size) for step, size in zip(_pair(stride), kernel.shape[2:], strict=True)]
    cropping = [[cut, cut - extra + gap] for (_, cut, extra), gap in zip(sides, gaps, strict=True)]
    if any(map(any, cropping)):
        name = keras.add("Cropping2D", [name], cropping=cropping, data_format="channels_last")
    return name


def _ungroup(kernel: Tensor, groups: int) -> Tensor:
    """Return a grouped kernel as a full one with zeros, since TensorFlow has no grouped convolutions on CPUs."""
    rows = []
    for index, part in enumerate(kernel.chunk(groups)):
        blocks = [torch.zeros_like(part)] * groups
        blocks[index] = part
        rows.append(torch.cat(blocks, dim=1))
    return torch.cat(rows)


def _pair(values: list[int]) -> list[int]:
    return list(values) if len(values) == 2 else [values[0], values[0]]


def _pad(keras: _Writer, source: str, rows: tuple[int, int], columns: tuple[int, int]) -> str:
    if not any(rows + columns):
        return source
    return keras.add("ZeroPadding2D", [source], padding=[rows, columns], data_format="channels_last")


def _constant_pad(keras: _Writer, node: Node, *, self: Node, pad: list[int], mode: str = "constant", value: Any) -> str:
    left, right, top, bottom = (*pad, 0, 0)[:4]
    if len(pad) > 4 or min(pad) < 0 or value or mode != "constant" or len(_shape(self)) != 3:
        raise keras.error(node, "with these arguments")
    return _pad(keras, keras.name_of(self), (top, bottom), (left, right))


def _batch_norm(
    keras: _Writer,
    node: Node,
    *,
    input: Node,
    weight: Node | None,
    bias: Node | None,
    running_mean: Node | None,
    running_var: Node | None,
    training: bool,
    momentum: float,
    eps: float,
    cudnn_enabled: bool,
) -> str:
    mean, variance = keras.constant(running_mean), keras.constant(running_var)
    if training or mean is None or variance is None:
        raise keras.error(node, "with the statistics of each batch")
    scale, shift = keras.constant(weight), keras.constant(bias)
    return keras.add(
        "BatchNormalization",
        [keras.name_of(input)],
        weights={
            "gamma": torch.ones_like(mean) if scale is None else scale,
            "beta": torch.zeros_like(mean) if shift is None else shift,
            "moving_mean": mean,
            "moving_variance": variance,
        },
        axis=-1,
        momentum=1 - momentum,  # Keras's is the share that is kept
        epsilon=eps,
    )


def _activation(keras: _Writer, node: Node, *, kind: str, self: Node, **options: Any) -> str:
    changed = {
        argument.name
        for argument in node.target._schema.arguments  # type: ignore[union-attr]
        if argument.has_default_value() and options.get(argument.name) != argument.default_value
    }
    if changed:
        raise keras.error(node, f"with this {', '.join(sorted(changed))}")
    return keras.add("Activation", [keras.name_of(self)], activation=kind)


def _leaky_relu(keras: _Writer, node: Node, *, self: Node, negative_slope: float) -> str:
    return keras.add("LeakyReLU", [keras.name_of(self)], alpha=negative_slope)


def _reshape(keras: _Writer, node: Node, *, self: Node, **_: Any) -> str:
    before, after, name = _shape(self), _shape(node), keras.name_of(self)
    if before == after:
        return name
    if len(before) == 3:
        name = keras.add("Permute", [name], dims=[3, 1, 2])  # torch's order is channels first
    elif len(before) != 1:
        raise keras.error(node, "between these shapes")
    name = keras.add("Reshape", [name], target_shape=list(after))
    if len(after) == 3:
        name = keras.add("Permute", [name], dims=[2, 3, 1])
    elif len(after) != 1:
        raise keras.error(node, "between these shapes")
    return name


def _upsample(
    keras: _Writer, node: Node, *, interpolation: str, input: Node, align_corners: bool = False, **_: Any
) -> str:
    factors = [after / before for before, after in zip(_shape(input)[1:], _shape(node)[1:], strict=True)]
    if align_corners or any(factor != int(factor) for factor in factors):
        raise keras.error(node, "with aligned corners or a fractional factor")
    return keras.add(
        "UpSampling2D",
        [keras.name_of(input)],
        size=[int(factor) for factor in factors],
        interpolation=interpolation,
        data_format="channels_last",
    )


def _slice(keras: _Writer, node: Node, *, self: Node, dim: int, start: int | None, end: int | None, step: int) -> str:
    before, after = _shape(self), _shape(node)
    if before == after:
        return keras.name_of(self)
    if dim < 1 or step != 1 or len(before) not in (1, 3) or (len(before) == 3 and dim == 1):
        raise keras.error(node, "of these elements")
    first, last, _ = slice(start, end).indices(before[dim - 1])
    cut = [first, before[dim - 1] - last]
    if len(before) == 3:
        cropping = [cut, [0, 0]] if dim == 2 else [[0, 0], cut]
        return keras.add("Cropping2D", [keras.name_of(self)], cropping=cropping, data_format="channels_last")
    name = keras.add("Reshape", [keras.name_of(self)], target_shape=[*before, 1])
    name = keras.add("Cropping1D", [name], cropping=cut)
    return keras.add("Reshape", [name], target_shape=[*after])


def _pixel_shuffle(keras: _Writer, node: Node, *, self: Node, upscale_factor: int) -> str:
    channels, height, width = _shape(node)
    f = upscale_factor
    name = keras.add("Reshape", [keras.name_of(self)], target_shape=[height // f, width // f, channels, f, f])
    name = keras.add("Permute", [name], dims=[1, 4, 2, 5, 3])  # each axis followed by its factor
    return keras.add("Reshape", [name], target_shape=[height, width, channels])


def _cat(keras: _Writer, node: Node, *, tensors: list[Node], dim: int) -> str:
    if dim % (1 + len(_shape(node))) != 1:
        raise keras.error(node, "along this axis")
    names = [keras.name_of(tensor) for tensor in tensors]
    if len(names) == 1:  # Keras does not concatenate a single one
        return names[0]
    return keras.add("Concatenate", names, axis=-1)


def _embedding(keras: _Writer, node: Node, *, weight: Node, indices: Node, **_: Any) -> str:
    table = keras.constant(weight)
    assert table is not None
    weights = {"embeddings": table}
    ids = keras.name_of(indices)  # whole numbers, in float32 where they were computed
    name = keras.add("Embedding", [ids], weights=weights, input_dim=len(table), output_dim=table.shape[1])
    return keras.add("Flatten", [name], data_format="channels_last")


def _zeros(keras: _Writer, node: Node, **_: Any) -> str:
    if _shape(node) != ():
        raise keras.error(node, "of this shape")
    return keras.add("Dense", ["z"], weights={"kernel": torch.zeros(keras.latent_dim, 1)}, units=1, use_bias=False)


def _gt(keras: _Writer, node: Node, *, self: Node, other: Node) -> str:
    """Add layers for self > other: 1 or 0, exactly so where unequal numbers differ by at least 2**-60."""
    name = keras.add("Subtract", [keras.name_of(self), keras.name_of(other)])
    name = keras.add("Rescaling", [name], scale=2.0**60, offset=0.0)
    return keras.add("ReLU", [name], max_value=1.0)


def _sum(keras: _Writer, node: Node, *, self: Node, dim: list[int], keepdim: bool, **_: Any) -> str:
    if dim != [1] or keepdim or len(_shape(self)) != 1:
        raise keras.error(node, "along these axes")
    weights = {"kernel": torch.ones(_shape(self)[0], 1)}
    return keras.add("Dense", [keras.name_of(self)], weights=weights, units=1, use_bias=False)


def _div(keras: _Writer, node: Node, *, self: Node, other: Any) -> str:
    """Add a layer for vectors divided by their own norms, as torch.nn.functional.normalize writes it."""
    divisor = other
    for operation in (_aten.expand_as.default, _aten.clamp_min.default, _aten.linalg_vector_norm.default):
        if getattr(divisor, "target", None) is not operation:
            raise keras.error(node)
        divisor, *settings = divisor.args
    if divisor is not self or settings != [2.0, [1], True] or len(_shape(self)) != 1:
        raise keras.error(node)
    return keras.add("UnitNormalization", [keras.name_of(self)], axis=-1)


def _add(keras: _Writer, node: Node, *, self: Node, other: Any, alpha: float) -> str:
    if alpha != 1:
        raise keras.error(node, "with a factor")
    return _combine(keras, node, kind="Add", self=self, other=other)


def _combine(keras: _Writer, node: Node, *, kind: str, self: Node, other: Any) -> str:
    """Add a layer for the product or sum of two values, or of a value and a constant, one number or one per channel."""
    if keras.constant(self) is not None:
        self, other = other, self
    constant = torch.tensor(other) if isinstance(other, int | float) else keras.constant(other)
    if constant is None:
        if len(_shape(self)) != len(_shape(other)):
            raise keras.error(node, "between these shapes")
        return keras.add(kind, [keras.name_of(self), keras.name_of(other)])
    if constant.numel() == 1:
        scale, offset = (constant.item(), 0.0) if kind == "Multiply" else (1.0, constant.item())
        return keras.add("Rescaling", [keras.name_of(self)], scale=scale, offset=offset)
    shape = _shape(self)
    if tuple(constant.shape[-len(shape) :]) != (shape[0], *[1] * (len(shape) - 1)) or constant.numel() != shape[0]:
        raise keras.error(node, "between these shapes")
    zeros, ones = torch.zeros(shape[0]), torch.ones(shape[0])
    weights = {"gamma": ones, "beta": zeros, "moving_mean": zeros, "moving_variance": ones}
    weights["gamma" if kind == "Multiply" else "beta"] = constant.flatten()
    return keras.add("BatchNormalization", [keras.name_of(self)], weights=weights, axis=-1, epsilon=0.0)


_aten = torch.ops.aten
LAYERS: dict[Any, Callable[..., str]] = {
    _aten.add.Tensor: _add,
    _aten.batch_norm.default: _batch_norm,
    _aten.cat.default: _cat,
    _aten.constant_pad_nd.default: _constant_pad,
    _aten.contiguous.default: _reshape,
    _aten.conv2d.default: _conv2d,
    _aten.conv_transpose2d.input: _conv_transpose2d,
    _aten.div.Tensor: _div,
    _aten.dropout.default: _like_input,
    _aten.elu.default: partial(_activation, kind="elu"),
    _aten.embedding.default: _embedding,
    _aten.flatten.using_ints: _reshape,
    _aten.gelu.default: partial(_activation, kind="gelu"),
    _aten.gt.Tensor: _gt,
    _aten.leaky_relu.default: _leaky_relu,
    _aten.linear.default: _linear,
    _aten.mul.Tensor: partial(_combine, kind="Multiply"),
    _aten.pad.default: _constant_pad,
    _aten.pixel_shuffle.default: _pixel_shuffle,
    _aten.relu.default: partial(_activation, kind="relu"),
    _aten.reshape.default: _reshape,
    _aten.selu.default: partial(_activation, kind="selu"),
    _aten.sigmoid.default: partial(_activation, kind="sigmoid"),
    _aten.silu.default: partial(_activation, kind="swish"),
    _aten.slice.Tensor: _slice,
    _aten.softplus.default: partial(_activation, kind="softplus"),
    _aten.sum.dim_IntList: _sum,
    _aten.tanh.default: partial(_activation, kind="tanh"),
    _aten.unflatten.int: _reshape,
    _aten.upsample_bilinear2d.vec: partial(_upsample, interpolation="bilinear"),
    _aten.upsample_nearest2d.vec: partial(_upsample, interpolation="nearest"),
    _aten.view.default: _reshape,
    _aten.zeros.default: _zeros,
}
