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

from gansmith.errors import DataError, GansmithError

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


def read_onnx(path: Path) -> tuple["OnnxGenerator", dict[str, str]]:
    """Return the generator in an .onnx file, and its metadata if Gansmith exported it ({} otherwise).

    Raises GansmithError if ONNX or ONNX Runtime is not installed, and DataError for anything but a plain generator:
    data in other files, operators that are not in `OPERATORS`, non-finite weights, sizes beyond the limits.
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
        _refuse_operators(proto)
        _drop_shapes(proto)
        _refuse_large(onnx.shape_inference.infer_shapes(_with_batch_size(proto), strict_mode=True, data_prop=True))
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = min(torch.get_num_threads(), os.cpu_count() or 1)
        options.log_severity_level = 4
        session = onnxruntime.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
        stored = {entry.key: entry.value for entry in proto.metadata_props}
        metadata = json.loads(stored.get("gansmith", "{}"))
        return OnnxGenerator(session, is_sigmoid=not metadata and proto.graph.node[-1].op_type == "Sigmoid"), metadata
    except Exception as error:  # two libraries with many exception types of their own, none of them public
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(f"{path} is not an ONNX generator that can be read ({reason}); export it again") from None


def _refuse_operators(proto: Any) -> None:
    """Raise DataError for what a plain generator does not contain, before any library interprets the graph."""
    if proto.functions or proto.training_info or proto.graph.sparse_initializer:
        raise DataError("it contains functions, training information or sparse weights")
    for node in proto.graph.node:
        if node.domain not in ("", "ai.onnx") or node.op_type not in OPERATORS:
            raise DataError(f"it has the operator {node.domain or 'ai.onnx'}.{node.op_type}, which is not allowed")
    for tensor in _tensors(proto):
        if tensor.external_data or tensor.data_location:
            raise DataError("its weights are in another file")
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
    """Return the graph with a batch size of BATCH, so that values computed from the batch size have a shape too."""
    fixed = type(proto)()
    fixed.CopyFrom(proto)
    for value in fixed.graph.input:
        value.type.tensor_type.shape.dim[0].dim_value = BATCH
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

    Attributes:
        latent_dim: length of the latent vector.
        num_classes: 0 if unconditional; -1 if it takes class ids, since the file does not say how many there are.
        is_sigmoid: whether its images are in [0, 1], as those of other programs' models with a final sigmoid.
    """

    def __init__(self, session: Any, *, is_sigmoid: bool) -> None:
        super().__init__()
        self.session, self.is_sigmoid = session, is_sigmoid
        inputs = session.get_inputs()
        ranks = [(len(entry.shape), entry.type) for entry in inputs]
        if ranks[:1] != [(2, "tensor(float)")] or ranks[1:] not in ([], [(1, "tensor(int64)")]):
            raise DataError(f"its inputs are {ranks}, not latents (N, latent_dim) and perhaps int64 class ids (N,)")
        if not isinstance(inputs[0].shape[1], int):
            raise DataError("the length of its latents is not fixed")
        self.latent_dim: int = inputs[0].shape[1]
        self.num_classes = 0 if len(inputs) == 1 else -1
        self.names = [entry.name for entry in inputs]

    def forward(self, z: Tensor, y: Tensor) -> Tensor:
        feed = dict(zip(self.names, (z.numpy(), y.numpy()), strict=False))
        images = torch.from_numpy(self.session.run(None, feed)[0])
        return 2 * images - 1 if self.is_sigmoid else images
