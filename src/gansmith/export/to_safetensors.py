"""Our own format: weights, and what `gansmith sample` must know to draw with them, in one file without code."""

from pathlib import Path

from gansmith.export.graph import largest_difference
from gansmith.generate import Model, describe_model, load_model
from gansmith.runs import save_tensors


def to_safetensors(model: Model, path: Path) -> float:
    """Write `path` with the suffix .safetensors and give the largest pixel difference of what is read back."""
    path = path.with_suffix(".safetensors")
    save_tensors(path, model.G.state_dict(), describe_model(model.config, model.spec, model.frequencies))
    G = load_model(path).G
    return largest_difference(model, G)
