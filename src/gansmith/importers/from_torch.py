"""A graph that torch has traced, as ONNX: for files that are exported, and for `.pt2` files that are read."""

import logging
import warnings
from typing import Any

import torch

OPSET = 18  # the oldest that torch writes without conversion; any ONNX Runtime since 1.14 reads it


def as_onnx(program: torch.export.ExportedProgram, **options: Any) -> Any:
    """Return the graph as an ONNX ModelProto without metadata; `options` as of `torch.onnx.export`."""
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # it logs each operator library that is not installed
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch's own use of deprecated functions
        exported = torch.onnx.export(
            program, dynamo=True, external_data=False, verbose=False, opset_version=OPSET, **options
        )
    assert exported is not None
    proto: Any = exported.model_proto
    del proto.metadata_props[:]
    return proto
