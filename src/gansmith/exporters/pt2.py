"""torch.export's own format, which torch runs without Gansmith."""

import json
from pathlib import Path

import torch

from gansmith.exporters.graph import largest_difference, trace
from gansmith.models import model_metadata
from gansmith.sampling import Model
from gansmith.signature import as_exported


def to_pt2(model: Model, path: Path) -> float:
    """Write `path` with the suffix .pt2 and return the largest pixel difference of what torch.export.load reads."""
    path = path.with_suffix(".pt2")
    model = as_exported(model)
    program = trace(model)
    program.example_inputs = None  # torch would pickle them into the file
    torch.export.save(program, path, extra_files={"gansmith": json.dumps(model_metadata(model))})
    G = torch.export.load(path).module()
    num_inputs = len(program.graph_signature.user_inputs)
    return largest_difference(model, lambda *inputs: G(*inputs[:num_inputs]))
