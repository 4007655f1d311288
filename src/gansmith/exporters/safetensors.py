"""Gansmith's own format: weights, and the metadata that `gansmith sample` needs, in one file without code."""

from pathlib import Path

from gansmith.exporters.graph import largest_difference
from gansmith.files import save_tensors
from gansmith.models import load_generator, model_metadata
from gansmith.sampling import Model


def to_safetensors(model: Model, path: Path) -> float:
    """Write `path` with the suffix .safetensors and return the largest pixel difference of what is read back."""
    path = path.with_suffix(".safetensors")
    save_tensors(path, model.network.state_dict(), model_metadata(model))
    G = load_generator(path).network
    return largest_difference(model, G)
