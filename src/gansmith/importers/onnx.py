"""ONNX generators: a closed graph of plain operators, run by ONNX Runtime."""

import json
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

MAX_BYTES = 1 << 27
MAX_NUMBERS = 1 << 20  # in any value of the graph, for one image
BATCH = 64  # images for which sizes are worked out

# Arithmetic on values of a known size; no loops, no branches, no random numbers, no operators from elsewhere.
OPERATORS = frozenset(
    """
    Add AveragePool BatchNormalization Cast Clip Concat Constant Conv ConvTranspose DepthToSpace Div Elu Erf Exp
    Expand Flatten Gather Gelu Gemm GroupNormalization HardSigmoid Identity InstanceNormalization LayerNormalization
    LeakyRelu MatMul Mul Neg Pad Pow PRelu Reciprocal ReduceMean ReduceSum ReduceSumSquare Relu Reshape Resize Selu
    Shape Sigmoid Slice Softplus Split Sqrt Squeeze Sub Tanh Transpose Unsqueeze
    """.split()
)


def read_onnx(path: Path) -> tuple["OnnxGenerator", dict[str, str]]:
    """The generator of an .onnx file, and what Gansmith noted in it (else nothing).

    Raises ValueError for anything but a plain generator: data in other files, operators that are not on the list,
    weights that are not finite, sizes beyond reason.
    """
    try:
        import onnx
        import onnxruntime
    except ImportError as error:
        raise ValueError(f"{error.name} is not installed; run: pip install 'gansmith[onnx]'") from None
    if path.stat().st_size > MAX_BYTES:
        raise ValueError(f"{path} is larger than {MAX_BYTES:,} bytes; give a generator")
    try:
        proto = onnx.load_model_from_string(path.read_bytes())
        _refuse_unplain(proto)
        _forget_sizes(proto)
        _refuse_large(onnx.shape_inference.infer_shapes(_with_batch(proto), strict_mode=True, data_prop=True))
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = min(torch.get_num_threads(), os.cpu_count() or 1)
        options.log_severity_level = 4
        session = onnxruntime.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
        found = {note.key: note.value for note in proto.metadata_props}
        notes = json.loads(found.get("gansmith", "{}"))
        return OnnxGenerator(session, stretches=not notes and proto.graph.node[-1].op_type == "Sigmoid"), notes
    except Exception as error:  # two libraries with many exception types of their own, none of them public
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(f"{path} is not an ONNX generator that can be read ({reason}); export it again") from None


def _refuse_unplain(proto: Any) -> None:
    """Raise ValueError for what a generator has no need of, before any library looks deeper."""
    if proto.functions or proto.training_info or proto.graph.sparse_initializer:
        raise ValueError("it holds functions, training or sparse weights")
    for node in proto.graph.node:
        if node.domain not in ("", "ai.onnx") or node.op_type not in OPERATORS:
            raise ValueError(f"it has the operator {node.domain or 'ai.onnx'}.{node.op_type}, which is not on the list")
    for tensor in _tensors(proto):
        if tensor.external_data or tensor.data_location:
            raise ValueError("its weights lie in another file")
        if tensor.data_type == 1 and not np.isfinite(_numbers(tensor)).all():
            raise ValueError(f"its weight {tensor.name} holds numbers that are not finite")


def _tensors(proto: Any) -> Iterator[Any]:
    yield from proto.graph.initializer
    for node in proto.graph.node:
        for attribute in node.attribute:
            yield attribute.t
            yield from attribute.tensors


def _numbers(tensor: Any) -> Any:
    from onnx import numpy_helper

    return numpy_helper.to_array(tensor)


def _forget_sizes(proto: Any) -> None:
    """Drop the sizes that a file claims for what it computes, so that they are worked out from its inputs."""
    del proto.graph.value_info[:]
    for value in proto.graph.output:
        value.type.tensor_type.ClearField("shape")


def _with_batch(proto: Any) -> Any:
    """The graph for BATCH images, so that what it makes of an open batch has a size as well."""
    fixed = type(proto)()
    fixed.CopyFrom(proto)
    for value in fixed.graph.input:
        value.type.tensor_type.shape.dim[0].dim_value = BATCH
    return fixed


def _refuse_large(proto: Any) -> None:
    """Raise ValueError where a value is too large, or where its size would only be known once it is computed."""
    known = {value.name: value.type.tensor_type for value in (*proto.graph.value_info, *proto.graph.output)}
    for name in (name for node in proto.graph.node for name in node.output if name):
        if name not in known or not known[name].HasField("shape"):
            raise ValueError(f"it leaves the size of its value {name} open")
        sides = [side.dim_value for side in known[name].shape.dim]
        if not all(sides):
            raise ValueError(f"it leaves the size of its value {name} open")
        if math.prod(sides) > BATCH * MAX_NUMBERS:
            raise ValueError(f"its value {name} has more than {MAX_NUMBERS:,} numbers for one image")


class OnnxGenerator(nn.Module):
    """G(z, y) -> (N, C, H, W) in [-1, 1].

    Attributes:
        latent_dim: length of the latent vector.
        num_classes: 0 if unconditional; -1 if it takes class ids, for such a file does not say how many there are.
        stretches: whether its images come in [0, 1], as those of foreign models with a closing sigmoid do.
    """

    def __init__(self, session: Any, *, stretches: bool) -> None:
        super().__init__()
        self.session, self.stretches = session, stretches
        inputs = session.get_inputs()
        ranks = [(len(entry.shape), entry.type) for entry in inputs]
        if ranks[:1] != [(2, "tensor(float)")] or ranks[1:] not in ([], [(1, "tensor(int64)")]):
            raise ValueError(f"its inputs are {ranks}, not latents (N, latent_dim) and perhaps int64 class ids (N,)")
        if not isinstance(inputs[0].shape[1], int):
            raise ValueError("it leaves the length of its latents open")
        self.latent_dim: int = inputs[0].shape[1]
        self.num_classes = 0 if len(inputs) == 1 else -1
        self.names = [entry.name for entry in inputs]

    def forward(self, z: Tensor, y: Tensor) -> Tensor:
        feed = dict(zip(self.names, (z.numpy(), y.numpy()), strict=False))
        images = torch.from_numpy(self.session.run(None, feed)[0])
        return 2 * images - 1 if self.stretches else images
