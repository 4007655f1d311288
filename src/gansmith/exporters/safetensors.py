"""Our own format: weights, and what `gansmith sample` must know to draw with them, in one file without code."""

from pathlib import Path

from gansmith.exporters.graph import largest_difference
from gansmith.sampling import Model
from gansmith.models import generator_metadata, load_generator
from gansmith.files import save_tensors


def to_safetensors(model: Model, path: Path) -> float:
    """Write `path` with the suffix .safetensors and give the largest pixel difference of what is read back."""
    path = path.with_suffix(".safetensors")
    save_tensors(path, model.network.state_dict(), generator_metadata(model.config, model.spec, model.conditioning))
    G = load_generator(path).network
    return largest_difference(model, G)
