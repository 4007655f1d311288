"""The process in which ONNX Runtime reads one file and computes images: `python -m gansmith.importers.onnx_worker`.

The graph is checked before ONNX Runtime reads it: plain operators alone, weights in the file or in its folder, sizes
within bounds where they can be inferred. `worker` bounds memory and time. All functions raise DataError with a reason
that completes "... cannot be read".
"""

import json
import math
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.inliner
import onnxruntime
from numpy.typing import NDArray
from onnx import numpy_helper
from onnx.external_data_helper import load_external_data_for_tensor

from gansmith.errors import DataError
from gansmith.importers import forms
from gansmith.importers.worker import serve

MAX_BYTES = 1 << 27
_ALIKE = 0.02  # of the range of images: mean difference that rounding and quantisation explain
MAX_NUMBERS = 1 << 22  # in any value of the graph, for one image
_IR_VERSION = 10  # that ONNX Runtime 1.22 knows; later ones add functions and sparse weights, which are refused
BATCH = 64  # images for one run, and for which shapes are inferred

# Arithmetic alone: no loops, branches, random numbers, functions or operators of other domains.
OPERATORS = frozenset(
    """
    Abs Add And ArgMax ArgMin AveragePool BatchNormalization Cast CastLike Ceil Celu Clip Concat Constant
    ConstantOfShape Conv ConvInteger ConvTranspose Cos CumSum DepthToSpace DequantizeLinear Div Dropout
    DynamicQuantizeLinear Einsum Elu Equal Erf Exp Expand EyeLike Flatten Floor Gather GatherElements GatherND Gelu Gemm
    GlobalAveragePool GlobalMaxPool Greater GreaterOrEqual GroupNormalization HardSigmoid HardSwish Identity
    InstanceNormalization LRN LayerNormalization LeakyRelu Less LessOrEqual Log LogSoftmax LpNormalization MatMul
    MatMulInteger Max MaxPool Mean Min Mish Mod Mul Neg Not OneHot Or PRelu Pad Pow QLinearConv QLinearMatMul
    QuantizeLinear Range Reciprocal ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean ReduceMin
    ReduceProd ReduceSum ReduceSumSquare Relu Reshape Resize Round ScatterElements ScatterND Selu Shape Sigmoid Sign Sin
    Size Slice Softmax Softplus Softsign SpaceToDepth Split Sqrt Squeeze Sub Sum Tan Tanh ThresholdedRelu Tile Transpose
    Trilu Unsqueeze Upsample Where Xor
    """.split()
)
_LAYOUT = frozenset("Cast Flatten Identity Reshape Squeeze Transpose Unsqueeze".split())  # change no value
_TYPES: dict[str, Any] = {
    "float": np.float32, "double": np.float64, "float16": np.float16, "bool": np.bool_,
    **{f"{sign}int{bits}": np.dtype(f"{sign}int{bits}").type for sign in ("", "u") for bits in (8, 16, 32, 64)},
}  # fmt: skip


def read(path: str, threads: str, num_classes: str) -> "OnnxGenerator":
    """Return the generator in a file; DataError, or what ONNX and ONNX Runtime raise, for anything else."""
    if Path(path).stat().st_size > MAX_BYTES:
        raise DataError(f"it is larger than {MAX_BYTES:,} bytes")
    if not Path(path).stat().st_size:
        raise DataError("it is empty; fetch or export it again")
    proto = onnx.load_model_from_string(Path(path).read_bytes())
    load_weights_beside(proto, Path(path).parent)
    return generator_of(proto, int(threads), int(num_classes))


def generator_of(proto: Any, threads: int, num_classes: int) -> "OnnxGenerator":
    """Return the generator of a graph with all its weights; as `read`."""
    if proto.functions:
        proto = onnx.inliner.inline_local_functions(proto)
    refuse_operators(proto)
    proto.ir_version = min(proto.ir_version, _IR_VERSION)
    drop_shapes(proto)
    fix_open_inputs(proto, num_classes)
    try:
        return _start(proto, threads, num_classes)
    except (DataError, MemoryError):
        raise
    except Exception as error:  # of ONNX or ONNX Runtime, whose kinds have no common one
        try:
            return _start(with_batch_size(proto, 1), threads, num_classes)
        except Exception:
            raise error from None


def _start(proto: Any, threads: int, num_classes: int) -> "OnnxGenerator":
    """Return the generator of a graph.

    Raises the libraries' own errors, as where the input has an open batch size and the rest of the graph a fixed one.
    """
    refuse_large(onnx.shape_inference.infer_shapes(with_batch_size(proto, BATCH), strict_mode=True, data_prop=True))
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    stored = {entry.key: entry.value for entry in proto.metadata_props}
    return OnnxGenerator(session, proto, json.loads(stored.get("gansmith", "{}")), num_classes or None)


def load_weights_beside(proto: Any, folder: Path) -> None:
    """Put weights of files in the same folder into the graph; DataError for any other place, or sizes beyond limits."""
    outside = [tensor for tensor in _tensors(proto) if tensor.external_data or tensor.data_location]
    for name in {entry.value for tensor in outside for entry in tensor.external_data if entry.key == "location"}:
        file = folder / name
        if Path(name).name == name and file.is_symlink():
            raise DataError(f"its weights {name} are a link, which is not followed; copy the file there (cp -L)")
        if Path(name).name != name or not file.is_file():
            raise DataError(f"its weights are in {name!r}, which is no file in its folder; put it there")
        if file.stat().st_size > MAX_BYTES:
            raise DataError(f"its weights in {name} are larger than {MAX_BYTES:,} bytes")
    for tensor in outside:
        load_external_data_for_tensor(tensor, str(folder))
        tensor.data_location = 0
        del tensor.external_data[:]


def refuse_operators(proto: Any) -> None:
    """Raise DataError for what a plain generator does not contain, before any library interprets the graph."""
    if proto.functions or proto.training_info or proto.graph.sparse_initializer:
        raise DataError("it contains functions, training information or sparse weights")
    for node in proto.graph.node:
        if node.op_type.startswith(("Random", "Multinomial", "Bernoulli")):
            raise DataError(f"its operator {node.op_type} draws numbers of its own; make them an input or a constant")
        if node.domain not in ("", "ai.onnx") or node.op_type not in OPERATORS:
            raise DataError(f"it has the operator {node.domain or 'ai.onnx'}.{node.op_type}, which is not allowed")
        if any(attribute.g.node or attribute.graphs for attribute in node.attribute):
            raise DataError(f"its operator {node.op_type} contains a graph of its own")
    for tensor in _tensors(proto):
        if tensor.data_type in (1, 10, 11, 16) and not np.isfinite(numpy_helper.to_array(tensor).astype("f8")).all():
            raise DataError(f"its weight {tensor.name} is not finite")


def _tensors(proto: Any) -> Iterator[Any]:
    yield from proto.graph.initializer
    for node in proto.graph.node:
        for attribute in node.attribute:
            yield attribute.t
            yield from attribute.tensors


def drop_shapes(proto: Any) -> None:
    """Remove the shapes that a file declares for intermediate values and outputs, so that they are inferred.

    Inputs that have values, as in files of old exporters, are weights.
    """
    weights = {tensor.name for tensor in proto.graph.initializer}
    inputs = [value for value in proto.graph.input if value.name not in weights]
    del proto.graph.input[:]
    proto.graph.input.extend(inputs)
    del proto.graph.value_info[:]
    for value in proto.graph.output:
        value.type.tensor_type.ClearField("shape")


def fix_open_inputs(proto: Any, num_classes: int) -> None:
    """Set the open length of one-hot labels to the number of classes that the user gave."""
    for value in proto.graph.input:
        open_sizes = [dim for dim in value.type.tensor_type.shape.dim[1:] if not dim.dim_value]
        if num_classes and len(open_sizes) == 1:
            open_sizes[0].dim_value = num_classes


def with_batch_size(proto: Any, batch: int) -> Any:
    """Return the graph with this batch size where it is open, so that values computed from it have shapes."""
    fixed = type(proto)()
    fixed.CopyFrom(proto)
    for value in fixed.graph.input:
        dims = value.type.tensor_type.shape.dim
        if len(dims):
            dims[0].dim_value = dims[0].dim_value or batch
    return fixed


def refuse_large(proto: Any) -> None:
    """Raise DataError if a value is too large; where its size is computed, memory and time are bounded all the same."""
    for value in (*proto.graph.value_info, *proto.graph.output):
        sizes = [dim.dim_value for dim in value.type.tensor_type.shape.dim]
        if math.prod(sizes) > BATCH * MAX_NUMBERS:
            raise DataError(f"its value {value.name} has more than {MAX_NUMBERS:,} numbers for one image")


def last_layer(proto: Any, output: str) -> str:
    """Return tanh or sigmoid where the images come from one, whatever only changes their layout after it; else ""."""
    producers = {name: node for node in proto.graph.node for name in node.output}
    node = producers.get(output)
    while node is not None and node.op_type in _LAYOUT:
        node = producers.get(node.input[0])
    kind = "" if node is None else node.op_type
    return {"Tanh": "tanh", "Sigmoid": "sigmoid", "HardSigmoid": "sigmoid"}.get(kind, "")


def count_ids(proto: Any, label: str) -> int:
    """Return how many class ids a label may have: the rows of the table it looks up, or of its one-hot form; else 0."""
    values = {tensor.name: tensor for tensor in proto.graph.initializer}
    for node in proto.graph.node:
        if node.op_type == "Constant":
            values |= dict.fromkeys(node.output, node.attribute[0].t)
    ids = {label}
    for node in proto.graph.node:
        if node.op_type in _LAYOUT and node.input[0] in ids:
            ids |= set(node.output)
        if node.op_type == "Gather" and node.input[1] in ids and node.input[0] in values:
            return int(values[node.input[0]].dims[0])
        if node.op_type == "OneHot" and node.input[0] in ids and node.input[1] in values:
            return int(numpy_helper.to_array(values[node.input[1]]).ravel()[0])
    return 0


class OnnxGenerator:
    """A loaded file; see `worker.Generator`."""

    def __init__(self, session: Any, proto: Any, metadata: dict[str, str], num_classes: int | None) -> None:
        self.session, self.metadata = session, metadata
        every = session.get_inputs()
        self.switches = [entry for entry in every if _is_switch(entry)]
        self.entries = [entry for entry in every if entry not in self.switches]
        inputs = [
            forms.Input(
                entry.name, tuple(size if isinstance(size, int) else None for size in entry.shape[1:]),
                _type_of(entry) in ("float", "double", "float16"),
            )
            for entry in self.entries
        ]  # fmt: skip
        self.signature = forms.choose_inputs(inputs, num_classes)
        self.latent_dim = inputs[self.signature.latents].size or 0
        batch = self.entries[self.signature.latents].shape[0]
        self.batch = batch if isinstance(batch, int) and batch > 0 else 0
        self.num_classes = 0
        if self.signature.labels is not None:
            label = self.entries[self.signature.labels].name
            self.num_classes = self.signature.one_hot or count_ids(proto, label) or num_classes or -1
        switched = [f"its input {entry.name} is given False" for entry in self.switches]
        self.notices = [*switched, *self.signature.notices]
        self.form: forms.ImageForm | None = None  # images of our own files are (N, C, H, W) in [-1, 1]
        self.output = session.get_outputs()[0].name
        if not metadata:
            self._decide(proto)

    def _decide(self, proto: Any) -> None:
        """Choose the output that has the images, and their form."""
        z = forms.draw_latents(self.latent_dim)
        y = np.arange(len(z)) % max(1, self.num_classes)
        found, reasons = {}, []
        for entry in self.session.get_outputs():
            self.output = entry.name
            try:
                output = self.run(z, y)
                found[entry.name] = (forms.as_nchw(output).size, output)
            except DataError as error:
                reasons.append(str(error))
        if not found:
            raise DataError(reasons[0])
        self.output = max(found, key=lambda name: found[name][0])
        if len(found) + len(reasons) > 1:
            self.notices.append(f"its output {self.output} is taken for the images")
        output = found[self.output][1]
        alone = self.run(z[:3], y[:3])
        if np.abs(alone - output[:3].astype(np.float64)).mean() > _ALIKE * np.ptp(output.astype(np.float64)):
            raise DataError(
                "its images depend on the others of their batch, as with batch normalisation in training mode; export "
                "it in evaluation mode, with stored statistics"
            )
        self.form, notices = forms.form_of(output, last_layer(proto, self.output))
        self.notices += notices

    def generate(self, z: NDArray[np.float32], y: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return images (N, C, H, W) in [-1, 1] of latents (N, latent_dim) and class ids (N,)."""
        output = self.run(z, y)
        return output.astype(np.float32) if self.form is None else self.form.images(output)

    def run(self, z: NDArray[np.float32], y: NDArray[np.int64]) -> forms.Array:
        """Return the output for latents and class ids, in runs of the file's own batch, or of BATCH at most."""
        batch = self.batch or BATCH
        missing = -len(z) % batch if self.batch else 0
        z, y = np.pad(z, ((0, missing), (0, 0))), np.pad(y, (0, missing))
        outputs = []
        for start in range(0, len(z), batch):
            part = slice(start, start + batch)
            output = self.session.run([self.output], self._feed(z[part], y[part]))[0]
            if output.shape[:1] != (len(z[part]),):
                raise DataError(
                    f"its output of {len(z[part])} latents has shape {output.shape}, not one image for each"
                )
            outputs.append(output)
        return np.concatenate(outputs)[: len(z) - missing]

    def _feed(self, z: NDArray[np.float32], y: NDArray[np.int64]) -> dict[str, forms.Array]:
        feed: dict[str, forms.Array] = {entry.name: np.zeros(entry.shape, np.bool_) for entry in self.switches}
        for place, array in self.signature.values(z, y).items():
            entry = self.entries[place]
            sizes = [size if isinstance(size, int) else -1 for size in entry.shape[1:]]
            feed[entry.name] = array.reshape(len(array), *sizes).astype(_TYPES[_type_of(entry)])
        return feed


def _is_switch(entry: Any) -> bool:
    """Return whether an input is the switch between training and use, as some exporters keep it."""
    is_one = all(size == 1 for size in entry.shape)
    return entry.type == "tensor(bool)" and is_one and "train" in entry.name.lower()


def _type_of(entry: Any) -> str:
    """Return the type of an input's numbers; DataError for one that can hold neither latents nor labels."""
    name = str(entry.type).removeprefix("tensor(").removesuffix(")")
    if name not in _TYPES:
        raise DataError(f"its input {entry.name} is {entry.type}, neither latents nor labels")
    return name


if __name__ == "__main__":
    _, time_limit, _, *arguments = sys.argv  # the folder for temporary files is not needed
    serve(time_limit, partial(read, *arguments))
