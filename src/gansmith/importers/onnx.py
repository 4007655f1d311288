"""ONNX generators: graphs of plain operators with all weights inside, run by ONNX Runtime."""

import json
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from gansmith.errors import DataError, GansmithError, reason_of

MAX_BYTES = 1 << 27
MAX_NUMBERS = 1 << 20  # in any value of the graph, for one image
BATCH = 64  # images for which shapes are inferred

# Arithmetic on values of known size: no loops, branches, random numbers or operators of other domains.
OPERATORS = frozenset(
    """
    Add AveragePool BatchNormalization Cast Clip Concat Constant Conv ConvTranspose DepthToSpace Div Elu Erf Exp
    Expand Flatten Gather Gelu Gemm GroupNormalization HardSigmoid Identity InstanceNormalization LayerNormalization
    LeakyRelu MatMul Mul Neg Pad Pow PRelu Reciprocal ReduceMean ReduceSum ReduceSumSquare Relu Reshape Resize Selu
    Shape Sigmoid Slice Softplus Split Sqrt Squeeze Sub Tanh Transpose Unsqueeze
    """.split()
)

_LAYOUT = frozenset("Cast Flatten Identity Reshape Squeeze Transpose Unsqueeze".split())  # change no value
_ID_TYPES = {"tensor(int64)": np.int64, "tensor(int32)": np.int32, "tensor(int16)": np.int16, "tensor(int8)": np.int8,
             "tensor(uint8)": np.uint8}  # fmt: skip


def read_onnx(path: Path) -> tuple["OnnxGenerator", dict[str, str]]:
    """Return the generator in an .onnx file, and its metadata if Gansmith exported it ({} otherwise).

    Weights may lie beside it, as torch writes them. Raises GansmithError if ONNX or ONNX Runtime is not installed, and
    DataError for anything but a plain generator: operators that are not in `OPERATORS`, non-finite weights, sizes
    beyond the limits.
    """
    try:
        import onnx
        import onnxruntime
    except ImportError as error:
        raise GansmithError(f"{error.name} is not installed; run: pip install 'gansmith[onnx]'") from None
    if path.stat().st_size > MAX_BYTES:
        raise DataError(f"{path} is larger than {MAX_BYTES:,} bytes; give a generator")
    try:
        proto = onnx.load_model_from_string(path.read_bytes())
        _load_weights_beside(proto, path.parent)
        _refuse_operators(proto)
        _drop_shapes(proto)
        _refuse_large(onnx.shape_inference.infer_shapes(_with_batch_size(proto), strict_mode=True, data_prop=True))
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = min(torch.get_num_threads(), os.cpu_count() or 1)
        options.log_severity_level = 4
        session = onnxruntime.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
        stored = {entry.key: entry.value for entry in proto.metadata_props}
        metadata = json.loads(stored.get("gansmith", "{}"))
        return OnnxGenerator(
            session, is_sigmoid=not metadata and _ends_in_sigmoid(proto), num_ids=_table_rows(proto)
        ), metadata
    except Exception as error:  # two libraries with many exception types of their own, none of them public
        raise DataError(
            f"{path} is not an ONNX generator that can be read ({reason_of(error)}); export it again"
        ) from None


def _load_weights_beside(proto: Any, folder: Path) -> None:
    """Put weights of files in the same folder into the graph; DataError for any other place, or sizes beyond limits."""
    from onnx.external_data_helper import load_external_data_for_tensor

    outside = [tensor for tensor in _tensors(proto) if tensor.external_data or tensor.data_location]
    for name in {entry.value for tensor in outside for entry in tensor.external_data if entry.key == "location"}:
        file = folder / name
        if Path(name).name != name or file.is_symlink() or not file.is_file():
            raise DataError(f"its weights are in {name!r}, which is no file in its folder; put it there")
        if file.stat().st_size > MAX_BYTES:
            raise DataError(f"its weights in {name} are larger than {MAX_BYTES:,} bytes")
    for tensor in outside:
        load_external_data_for_tensor(tensor, str(folder))
        tensor.data_location = 0
        del tensor.external_data[:]


def _producers(proto: Any) -> dict[str, Any]:
    return {name: node for node in proto.graph.node for name in node.output}


def _ends_in_sigmoid(proto: Any) -> bool:
    """Whether the images come from a sigmoid, or a clip to [0, 1], whatever only changes their layout after it."""
    producers = _producers(proto)
    node = producers.get(proto.graph.output[0].name)
    while node is not None and node.op_type in _LAYOUT:
        node = producers.get(node.input[0])
    return node is not None and node.op_type in ("Sigmoid", "HardSigmoid")


def _table_rows(proto: Any) -> int:
    """Return how many class ids the second input may have: the rows of the table it gathers from; 0 where unknown."""
    if len(proto.graph.input) < 2:
        return 0
    weights = {tensor.name: tensor.dims for tensor in proto.graph.initializer}
    ids = {proto.graph.input[1].name}
    for node in proto.graph.node:
        if node.op_type in _LAYOUT and node.input[0] in ids:
            ids |= set(node.output)
        if node.op_type == "Gather" and node.input[1] in ids and node.input[0] in weights:
            return int(weights[node.input[0]][0])
    return 0


def _refuse_operators(proto: Any) -> None:
    """Raise DataError for what a plain generator does not contain, before any library interprets the graph."""
    if proto.functions or proto.training_info or proto.graph.sparse_initializer:
        raise DataError("it contains functions, training information or sparse weights")
    for node in proto.graph.node:
        if node.domain not in ("", "ai.onnx") or node.op_type not in OPERATORS:
            raise DataError(f"it has the operator {node.domain or 'ai.onnx'}.{node.op_type}, which is not allowed")
    for tensor in _tensors(proto):
        if tensor.data_type == 1 and not np.isfinite(_to_array(tensor)).all():
            raise DataError(f"its weight {tensor.name} is not finite")


def _tensors(proto: Any) -> Iterator[Any]:
    yield from proto.graph.initializer
    for node in proto.graph.node:
        for attribute in node.attribute:
            yield attribute.t
            yield from attribute.tensors


def _to_array(tensor: Any) -> Any:
    from onnx import numpy_helper

    return numpy_helper.to_array(tensor)


def _drop_shapes(proto: Any) -> None:
    """Remove the shapes that a file declares for intermediate values and outputs, so that they are inferred."""
    del proto.graph.value_info[:]
    for value in proto.graph.output:
        value.type.tensor_type.ClearField("shape")


def _with_batch_size(proto: Any) -> Any:
    """Return the graph with a batch size of BATCH where it is open, so that values computed from it have shapes."""
    fixed = type(proto)()
    fixed.CopyFrom(proto)
    for value in fixed.graph.input:
        batch = value.type.tensor_type.shape.dim[0]
        batch.dim_value = batch.dim_value or BATCH
    return fixed


def _refuse_large(proto: Any) -> None:
    """Raise DataError if a value is too large, or if its shape is known only when it is computed."""
    known = {value.name: value.type.tensor_type for value in (*proto.graph.value_info, *proto.graph.output)}
    for name in (name for node in proto.graph.node for name in node.output if name):
        if name not in known or not known[name].HasField("shape"):
            raise DataError(f"its value {name} has no fixed shape")
        sizes = [dim.dim_value for dim in known[name].shape.dim]
        if not all(sizes):
            raise DataError(f"its value {name} has no fixed shape")
        if math.prod(sizes) > BATCH * MAX_NUMBERS:
            raise DataError(f"its value {name} has more than {MAX_NUMBERS:,} numbers for one image")


class OnnxGenerator(nn.Module):
    """G(z, y) -> (N, C, H, W) in [-1, 1].

    The file may take latents (N, latent_dim) or (N, latent_dim, 1, 1), class ids of any integer type or as one-hot
    rows, a fixed batch, and give images (N, C, H, W), (N, H, W, C) or flat.

    Attributes:
        latent_dim: length of the latent vector.
        num_classes: 0 if unconditional; -1 if it takes class ids and does not say how many there are.
        is_sigmoid: whether its images are in [0, 1], as those of other programs' models with a final sigmoid.
        batch: images per run; 0 where any number does.
    """

    def __init__(self, session: Any, *, is_sigmoid: bool, num_ids: int = 0) -> None:
        super().__init__()
        self.session, self.is_sigmoid = session, is_sigmoid
        inputs = session.get_inputs()
        kinds = [(len(entry.shape), entry.type) for entry in inputs]
        z_shape = inputs[0].shape
        is_vector = len(z_shape) == 2 or (len(z_shape) == 4 and z_shape[2:] == [1, 1])
        if not is_vector or inputs[0].type != "tensor(float)" or len(inputs) > 2:
            raise DataError(f"its inputs are {kinds}, not latents (N, latent_dim) and perhaps class ids (N,)")
        if not isinstance(z_shape[1], int):
            raise DataError("the length of its latents is not fixed")
        self.latent_dim: int = z_shape[1]
        self.z_rank = len(z_shape)
        self.batch = z_shape[0] if isinstance(z_shape[0], int) else 0
        self.names = [entry.name for entry in inputs]
        self.num_classes, self.y_rank, self.y_type = 0, 1, "tensor(int64)"
        if len(inputs) == 2:
            self._accept_classes(inputs[1], num_ids)

    def _accept_classes(self, entry: Any, num_ids: int) -> None:
        """Note how the file takes class ids; DataError for another second input."""
        self.y_rank, self.y_type = len(entry.shape), entry.type
        is_one_hot = entry.type == "tensor(float)" and self.y_rank == 2 and isinstance(entry.shape[1], int)
        is_ids = entry.type in _ID_TYPES and (self.y_rank == 1 or entry.shape[1:] == [1])
        if not (is_one_hot or is_ids):
            raise DataError(f"its second input is {entry.type} {entry.shape}, neither class ids (N,) nor one-hot rows")
        self.num_classes = entry.shape[1] if is_one_hot else num_ids or -1

    def forward(self, z: Tensor, y: Tensor) -> Tensor:
        if not self.batch:
            return self._run(z, y)
        n = len(z)
        missing = -n % self.batch
        z, y = torch.cat([z, z.new_zeros(missing, z.shape[1])]), torch.cat([y, y.new_zeros(missing)])
        runs = zip(z.split(self.batch), y.split(self.batch), strict=True)
        return torch.cat([self._run(*one) for one in runs])[:n]

    def _run(self, z: Tensor, y: Tensor) -> Tensor:
        latents = z.numpy() if self.z_rank == 2 else z[:, :, None, None].numpy()
        feed = dict(zip(self.names, (latents, self._classes(y)), strict=False))
        images = torch.from_numpy(self.session.run(None, feed)[0])
        return 2 * _as_nchw(images) - 1 if self.is_sigmoid else _as_nchw(images)

    def _classes(self, y: Tensor) -> Any:
        if self.y_type == "tensor(float)":
            return torch.nn.functional.one_hot(y, self.num_classes).float().numpy()
        ids = y.numpy().astype(_ID_TYPES[self.y_type])
        return ids if self.y_rank == 1 else ids[:, None]


def _as_nchw(images: Tensor) -> Tensor:
    """Return images (N, H, W, C), (N, H, W) or flat as (N, C, H, W)."""
    shape = images.shape
    if images.dim() == 4 and shape[3] in (1, 3) and shape[1] not in (1, 3):
        return images.permute(0, 3, 1, 2).contiguous()
    if images.dim() == 3:
        return images[:, None]
    if images.dim() == 2:
        for channels in (1, 3):
            side = math.isqrt(shape[1] // channels)
            if side * side * channels == shape[1]:
                return images.reshape(-1, channels, side, side)
    return images
