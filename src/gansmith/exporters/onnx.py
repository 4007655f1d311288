"""ONNX: one file with a dynamic batch size, for ONNX Runtime on any platform and in browsers (onnxruntime-web)."""

import json
from pathlib import Path

from gansmith.errors import GansmithError
from gansmith.exporters.graph import facts, largest_difference, trace
from gansmith.importers.from_torch import as_onnx
from gansmith.importers.onnx import read_onnx
from gansmith.models import model_metadata
from gansmith.sampling import Model
from gansmith.signature import as_exported

IR_VERSION = 8  # of opset 18; torch writes a newer one, of which nothing is used, and ONNX Runtime 1.14 to 1.17 refuse


def to_onnx(model: Model, path: Path) -> float:
    """Write `path` with the suffix .onnx and return the largest pixel difference of what ONNX Runtime computes from it.

    Raises GansmithError if the optional packages are not installed.
    """
    try:
        import onnx
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise GansmithError(f"{error.name} is not installed; run: pip install 'gansmith[onnx]'") from None
    path, model = path.with_suffix(".onnx"), as_exported(model)
    proto = as_onnx(trace(model), output_names=["images"])
    texts = facts(model)
    for key, value in {**texts, "gansmith": json.dumps(model_metadata(model))}.items():
        proto.metadata_props.add(key=key, value=value)
    proto.ir_version = IR_VERSION
    del proto.graph.value_info[:]
    for node in proto.graph.node:
        del node.metadata_props[:]  # paths of source files
    for value in (*proto.graph.input, *proto.graph.output):
        value.doc_string = texts[value.name]
        value.type.tensor_type.shape.dim[0].dim_param = "batch"
    onnx.checker.check_model(proto, full_check=True)
    onnx.save(proto, path)
    G, _ = read_onnx(path)
    return largest_difference(model, G)
