"""The networks of a run, as rows of a table and as a diagram."""

import io
import math
from typing import Any

from gansmith.data.images import ImageSpec
from gansmith.models import load_generator
from gansmith.runs import RunDirectory
from gansmith.summaries import SPEC, describe

# A diagram omits normalisation, activations and dropout.
_SMALL = ("Norm", "ReLU", "Tanh", "Sigmoid", "Dropout", "Identity")
_FACE, _EDGE = "#56B4E9", "#0072B2"


def describe_run(run: RunDirectory) -> dict[str, Any]:
    """Return what `describe` says of the networks of a run."""
    return describe(run.config, load_generator(run.directory).spec if run.latest() else _recorded_spec(run))


def _recorded_spec(run: RunDirectory) -> ImageSpec:
    """Return the form of the images that a run without a checkpoint began with."""
    data = run.facts().get("data", {})
    return ImageSpec(data["size"], data["channels"], data["num_classes"]) if "size" in data else SPEC


def draw_structure(layers: list[dict[str, Any]]) -> bytes:
    """Return a PNG with one block for each layer that has weights or changes the shape, in the order they run.

    A block is as high as its feature map is wide, and wider the more channels it has.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.patches import Rectangle

    blocks = [layer for layer in layers if layer["shape"] and not any(kind in layer["kind"] for kind in _SMALL)]
    figure = Figure(figsize=(7.5, 1.9), dpi=150)
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0.01, 0.0, 0.98, 1.0))
    axes.set_axis_off()
    x = 0.0
    scale = min(1.0, 32 / max((layer["shape"][-1] for layer in blocks if len(layer["shape"]) == 3), default=32))
    for layer in blocks:
        channels, side = (layer["shape"][0], layer["shape"][-1]) if len(layer["shape"]) == 3 else (1, 1)
        units = math.prod(layer["shape"]) if len(layer["shape"]) < 3 else channels
        width, height = 0.35 + 0.12 * math.log2(1 + units), max(side * scale, 2)
        axes.add_patch(Rectangle((x, -height / 2), width, height, facecolor=_FACE, edgecolor=_EDGE, alpha=0.8))
        size = f"{side}x{side}x{channels}" if len(layer["shape"]) == 3 else f"{units}"
        axes.text(x + width / 2, -17, f"{layer['kind']}\n{size}", ha="right", va="top", rotation=35, fontsize=6)
        x += width + 0.6
    axes.set_xlim(-1.2, max(x, 8))
    axes.set_ylim(-36, 16)
    buffer = io.BytesIO()
    figure.savefig(buffer, metadata={"Software": None})
    return buffer.getvalue()
