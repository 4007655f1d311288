"""ONNX: one file with a dynamic batch size, for ONNX Runtime on any platform and in browsers (onnxruntime-web)."""

import json
import logging
import warnings
from pathlib import Path

import torch

from gansmith.errors import GansmithError
from gansmith.exporters.graph import facts, largest_difference, trace
from gansmith.importers.onnx import read_onnx
from gansmith.models import model_metadata
from gansmith.sampling import Model
from gansmith.signature import as_exported

OPSET = 18  # the oldest that torch writes without conversion; any ONNX Runtime since 1.14 reads it


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
    program = trace(model)
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # it logs each operator library that is not installed
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch's own use of deprecated functions
        exported = torch.onnx.export(
            program, dynamo=True, external_data=False, verbose=False, output_names=["images"], opset_version=OPSET
        )
    assert exported is not None
    proto = exported.model_proto
    del proto.metadata_props[:]
    texts = facts(model)
    for key, value in {**texts, "gansmith": json.dumps(model_metadata(model))}.items():
        proto.metadata_props.add(key=key, value=value)
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
