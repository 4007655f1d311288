"""Keras files: architecture as JSON and weights as HDF5, in the classic form that Keras 2, tf_keras and Keras 3 load.

`LAYERS` says which Keras layers equal a torch operation exactly; what has no row there is refused. Neither file holds
code. Keras keeps channels last, so maps are (N, H, W, C) on that side.
"""

import itertools
import json
import os
import warnings
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.fx import Node

from gansmith.errors import GansmithError
from gansmith.exporters.graph import Draw, largest_difference, trace
from gansmith.sampling import Model
from gansmith.models import generator_metadata

KERAS_VERSION = "2.15.0"  # the last whose form every later version still reads


def to_keras(model: Model, path: Path) -> float:
    """Write `path` with the suffixes .json and .h5 and return the largest pixel difference of what Keras makes of them.

    Raises GansmithError, with nothing written, if Keras is not installed or G computes what no Keras layer equals.
    """
    if find_spec("keras") is None:
        raise GansmithError("keras is not installed; run: pip install 'gansmith[keras]'")
    writer = _Writer(model)
    config = writer.config()
    path.with_suffix(".json").write_text(json.dumps(config), encoding="ascii")
    with h5py.File(path.with_suffix(".h5"), "w") as file:
        writer.write_weights(file)
        file["gansmith"] = json.dumps(generator_metadata(model.config, model.spec, model.conditioning))
    return largest_difference(model, _draw_with_keras(path))


def _draw_with_keras(path: Path) -> Draw:
    os.environ.setdefault("KERAS_BACKEND", "torch")
    import keras

    def draw(z: Tensor, ids: Tensor) -> Tensor:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that names of Keras 2, such as alpha, have newer ones
            G = keras.models.model_from_json(path.with_suffix(".json").read_text(encoding="ascii"))
            G.load_weights(path.with_suffix(".h5"))
            inputs = [z.numpy(), ids[:, None].int().numpy()][: len(G.inputs)]
            images = keras.ops.convert_to_numpy(G(inputs if len(inputs) > 1 else inputs[0], training=False))
            return torch.from_numpy(images).movedim(-1, 1)

    return draw


class _Writer:
    """The layers of a Keras model as they are added, each after the layers that feed it.

    Attributes:
        layers: as the JSON lists them.
        weights: (name, array) pairs of each layer that has any.
    """

    def __init__(self, model: Model) -> None:
        self.network, self.latent_dim = model.config.network, model.config.latent_dim
        self.layers: list[dict[str, Any]] = []
        self.weights: dict[str, list[tuple[str, NDArray[np.float32]]]] = {}
        program = trace(model)
        signature = program.graph_signature
        stored = {**signature.inputs_to_parameters, **signature.inputs_to_buffers}
        state = program.state_dict
        self.constants: dict[str, Tensor] = {name: state[key] for name, key in stored.items() if key in state}
        self.constants |= {name: program.constants[key] for name, key in stored.items() if key not in state}
        self.constants |= {
            name: program.constants[key] for name, key in signature.inputs_to_lifted_tensor_constants.items()
        }
        self.inputs = list(signature.user_inputs)
        self.names: dict[str, str] = {}
        for name, shape, dtype in (("z", [None, self.latent_dim], "float32"), ("ids", [None, 1], "int32")):
            if name in self.inputs:
                config = {"name": name, "dtype": dtype, "batch_input_shape": shape}
                self.layers.append({"class_name": "InputLayer", "config": config, "name": name, "inbound_nodes": []})
                self.names[name], self.weights[name] = name, []
        (output,) = program.graph.output_node().args[0]
        self.output = self.name_of(output)

    def add(self, kind: str, inputs: list[str], *, weights: Mapping[str, Tensor] | None = None, **config: Any) -> str:
        """One more layer; gives its name."""
        name = f"{len(self.layers):03d}_{kind.lower()}"
        config = {"name": name, "trainable": True, "dtype": "float32", **config}
        nodes = [[[source, 0, 0, {}] for source in inputs]]
        self.layers.append({"class_name": kind, "config": config, "name": name, "inbound_nodes": nodes})
        self.weights[name] = [(f"{name}/{key}:0", value.detach().numpy()) for key, value in (weights or {}).items()]
        return name

    def name_of(self, node: Any) -> str:
        """The Keras layer whose output is this node's, added with all that it needs where it is new."""
        if node.name not in self.names:
            if node.target not in LAYERS:
                raise self.refusal(node, "no Keras layer equals")
            arguments = {argument.name: argument.default_value for argument in node.target._schema.arguments}
            arguments |= dict(zip(arguments, node.args, strict=False)) | node.kwargs
            self.names[node.name] = LAYERS[node.target](self, node, **arguments)
        return self.names[node.name]

    def constant(self, node: Any) -> Tensor | None:
        """The stored tensor behind a node, None where it is computed from the inputs."""
        return self.constants.get(node.name) if isinstance(node, Node) else None

    def refusal(self, node: Any, reason: str) -> ValueError:
        return ValueError(
            f"the {self.network} network computes {node.target}, which {reason} exactly; "
            "export it as safetensors, onnx or pt2 instead"
        )

    def config(self) -> dict[str, Any]:
        """The whole model as Keras's JSON."""
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
        """One group a layer; their order is what Keras goes by: farthest from the output first."""
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
    """A node's output without the batch."""
    return tuple(node.meta["val"].shape[1:])


def _like_input(keras: _Writer, node: Node, *, input: Node, **_: Any) -> str:
    return keras.name_of(input)


def _linear(keras: _Writer, node: Node, *, input: Node, weight: Node, bias: Node | None) -> str:
    kernel = keras.constant(weight)
    assert kernel is not None
    if len(_shape(input)) != 1:
        raise keras.refusal(node, "on maps no Keras layer equals")
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
        raise keras.refusal(node, "with a kernel of its own for each image no Keras layer equals")
    if max(stride) > 1 and max(dilation) > 1:
        raise keras.refusal(node, "with both stride and dilation no Keras layer equals")
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
        raise keras.refusal(node, "with these arguments no Keras layer equals")
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
    # Where the kernel is smaller than its stride, Keras's "valid" is longer than torch's by the gap.
    gaps = [max(0, step - size) for step, size in zip(_pair(stride), kernel.shape[2:], strict=True)]
    cropping = [[cut, cut - extra + gap] for (_, cut, extra), gap in zip(sides, gaps, strict=True)]
    if any(map(any, cropping)):
        name = keras.add("Cropping2D", [name], cropping=cropping, data_format="channels_last")
    return name


def _ungroup(kernel: Tensor, groups: int) -> Tensor:
    """A kernel (a, b / groups, h, w) as (a, b, h, w), zeros between groups: TensorFlow has none on processors."""
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
        raise keras.refusal(node, "with these arguments no Keras layer equals")
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
        raise keras.refusal(node, "with the statistics of each batch no Keras layer equals")
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
        momentum=1 - momentum,  # Keras's is the share of the old
        epsilon=eps,
    )


def _activation(kind: str) -> Callable[..., str]:
    def add(keras: _Writer, node: Node, *, self: Node, **options: Any) -> str:
        changed = {
            argument.name
            for argument in node.target._schema.arguments  # type: ignore[union-attr]
            if argument.has_default_value() and options.get(argument.name) != argument.default_value
        }
        if changed:
            raise keras.refusal(node, f"with its own {', '.join(sorted(changed))} no Keras layer equals")
        return keras.add("Activation", [keras.name_of(self)], activation=kind)

    return add


def _leaky_relu(keras: _Writer, node: Node, *, self: Node, negative_slope: float) -> str:
    return keras.add("LeakyReLU", [keras.name_of(self)], alpha=negative_slope)


def _reshape(keras: _Writer, node: Node, *, self: Node, **_: Any) -> str:
    before, after, name = _shape(self), _shape(node), keras.name_of(self)
    if before == after:
        return name
    if len(before) == 3:
        name = keras.add("Permute", [name], dims=[3, 1, 2])  # torch counts channels first
    elif len(before) != 1:
        raise keras.refusal(node, "between these shapes no Keras layer equals")
    name = keras.add("Reshape", [name], target_shape=list(after))
    if len(after) == 3:
        name = keras.add("Permute", [name], dims=[2, 3, 1])
    elif len(after) != 1:
        raise keras.refusal(node, "between these shapes no Keras layer equals")
    return name


def _upsample(interpolation: str) -> Callable[..., str]:
    def add(keras: _Writer, node: Node, *, input: Node, align_corners: bool = False, **_: Any) -> str:
        factors = [after / before for before, after in zip(_shape(input)[1:], _shape(node)[1:], strict=True)]
        if align_corners or any(factor != int(factor) for factor in factors):
            raise keras.refusal(node, "with aligned corners or a broken factor no Keras layer equals")
        return keras.add(
            "UpSampling2D",
            [keras.name_of(input)],
            size=[int(factor) for factor in factors],
            interpolation=interpolation,
            data_format="channels_last",
        )

    return add


def _pixel_shuffle(keras: _Writer, node: Node, *, self: Node, upscale_factor: int) -> str:
    channels, height, width = _shape(node)
    f = upscale_factor
    name = keras.add("Reshape", [keras.name_of(self)], target_shape=[height // f, width // f, channels, f, f])
    name = keras.add("Permute", [name], dims=[1, 4, 2, 5, 3])  # rows beside their f, columns beside theirs
    return keras.add("Reshape", [name], target_shape=[height, width, channels])


def _cat(keras: _Writer, node: Node, *, tensors: list[Node], dim: int) -> str:
    if dim % (1 + len(_shape(node))) != 1:
        raise keras.refusal(node, "along this axis no Keras layer equals")
    names = [keras.name_of(tensor) for tensor in tensors]
    return keras.add("Concatenate", names, axis=-1) if len(names) > 1 else names[0]  # Keras refuses a single one


def _embedding(keras: _Writer, node: Node, *, weight: Node, indices: Node, **_: Any) -> str:
    table = keras.constant(weight)
    assert table is not None
    if indices.name == "ids":
        weights = {"embeddings": table}
        name = keras.add("Embedding", ["ids"], weights=weights, input_dim=len(table), output_dim=table.shape[1])
        return keras.add("Flatten", [name], data_format="channels_last")
    if indices.target is not torch.ops.aten.zeros.default:
        raise keras.refusal(node, "of computed ids no Keras layer equals")
    # Every image has id 0: a constant, which in Keras is a layer that ignores its input.
    weights = {"kernel": torch.zeros(keras.latent_dim, table.shape[1]), "bias": table[0]}
    return keras.add("Dense", ["z"], weights=weights, units=table.shape[1], use_bias=True)


def _mul(keras: _Writer, node: Node, *, self: Node, other: Any) -> str:
    return _combine(keras, node, "Multiply", self, other)


def _add(keras: _Writer, node: Node, *, self: Node, other: Any, alpha: float) -> str:
    if alpha != 1:
        raise keras.refusal(node, "with a factor no Keras layer equals")
    return _combine(keras, node, "Add", self, other)


def _combine(keras: _Writer, node: Node, kind: str, self: Node, other: Any) -> str:
    """The product or the sum of two values, of a value and a number, or of a value and one constant a channel."""
    if keras.constant(self) is not None:
        self, other = other, self
    constant = torch.tensor(other) if isinstance(other, int | float) else keras.constant(other)
    if constant is None:
        if len(_shape(self)) != len(_shape(other)):
            raise keras.refusal(node, "between these shapes no Keras layer equals")
        return keras.add(kind, [keras.name_of(self), keras.name_of(other)])
    if constant.numel() == 1:
        scale, offset = (constant.item(), 0.0) if kind == "Multiply" else (1.0, constant.item())
        return keras.add("Rescaling", [keras.name_of(self)], scale=scale, offset=offset)
    shape = _shape(self)
    if tuple(constant.shape[-len(shape) :]) != (shape[0], *[1] * (len(shape) - 1)) or constant.numel() != shape[0]:
        raise keras.refusal(node, "between these shapes no Keras layer equals")
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
    _aten.dropout.default: _like_input,
    _aten.elu.default: _activation("elu"),
    _aten.embedding.default: _embedding,
    _aten.flatten.using_ints: _reshape,
    _aten.gelu.default: _activation("gelu"),
    _aten.leaky_relu.default: _leaky_relu,
    _aten.linear.default: _linear,
    _aten.mul.Tensor: _mul,
    _aten.pad.default: _constant_pad,
    _aten.pixel_shuffle.default: _pixel_shuffle,
    _aten.relu.default: _activation("relu"),
    _aten.reshape.default: _reshape,
    _aten.selu.default: _activation("selu"),
    _aten.sigmoid.default: _activation("sigmoid"),
    _aten.silu.default: _activation("swish"),
    _aten.softplus.default: _activation("softplus"),
    _aten.tanh.default: _activation("tanh"),
    _aten.unflatten.int: _reshape,
    _aten.upsample_bilinear2d.vec: _upsample("bilinear"),
    _aten.upsample_nearest2d.vec: _upsample("nearest"),
    _aten.view.default: _reshape,
}
