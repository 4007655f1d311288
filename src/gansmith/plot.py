"""Pictures of a run's numbers and of what its generator knows, drawn without any global plotting state.

`plot_curves` draws losses and scores from the log; `classes_by_styles` and `neighbours` are grids of images.
"""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from gansmith.generate import Model, choose_ids, draw_latents, generate
from gansmith.runs import Run, write_bytes

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Told apart by people with any colour vision, and in grey print by line style.
_LOSSES = {"d_loss": ("#0072B2", "-", "discriminator"), "g_loss": ("#D55E00", "--", "generator")}
_SCORE, _TROUBLE = "#000000", "#CC79A7"
# A smoothed point is the mean of the points this share of the run around it.
_WINDOW = 0.05

Point = tuple[float, float]


def plot_curves(run: Run, target: Path | None = None) -> None:
    """Write `draw_curves`' picture as loss.png in the run's directory, or to a .png, .svg or .pdf."""
    target = target or run.directory / "loss.png"
    write_bytes(target, draw_curves(run, target.suffix))


def draw_curves(run: Run, kind: str = ".png") -> bytes:
    """Losses, and scores where there are any, against images seen, as a file of this kind.

    Raw values are faint, their moving means strong; a dotted line marks each trouble the log tells of.
    """
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows = run.log()
    scores = _points(run.scores(), "ratio")
    figure = Figure(figsize=(7, 6 if scores else 4), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(2 if scores else 1, 1, sharex=True, squeeze=False)[:, 0]
    for name, (colour, style, label) in _LOSSES.items():
        _draw_smoothed(panels[0], _points(rows, name), colour=colour, style=style, label=label)
    panels[0].set_ylabel("loss")
    panels[0].set_title(f"{run.config.recipe} on {run.config.dataset}")
    if scores:
        panels[1].plot(*zip(*scores, strict=True), color=_SCORE, marker="o", label="generated images")
        panels[1].axhline(1, color=_SCORE, linewidth=0.8, linestyle=":", label="other real images")
        panels[1].set_yscale("log")
        panels[1].set_ylabel("distance, times real")
    for row in rows:
        if row.get("kind") in ("trouble", "rollback"):
            for axes in panels:
                axes.axvline(row["images_seen"] / 1000, color=_TROUBLE, linestyle=":")
            panels[0].annotate(
                row["trouble"] if row["kind"] == "trouble" else f"back after {row['trouble']}",
                (row["images_seen"] / 1000, 0.98),
                xycoords=panels[0].get_xaxis_transform(),
                rotation=90,
                va="top",
                ha="right",
                fontsize="small",
            )
    for axes in panels:
        axes.grid(alpha=0.3)
        axes.legend(frameon=False)
    panels[-1].set_xlabel("thousand images seen")
    # No dates, versions or random ids inside, so equal runs have equal pictures.
    silent = {".png": {"Software": None}, ".svg": {"Date": None}, ".pdf": {"CreationDate": None}}
    with rc_context({"svg.hashsalt": "gansmith"}):
        picture = io.BytesIO()
        figure.savefig(picture, format=kind[1:], metadata=silent[kind])
    return picture.getvalue()


def _points(rows: Sequence[dict[str, Any]], name: str) -> list[Point]:
    """(thousand images seen, value) wherever the value is a number."""
    return [(row["images_seen"] / 1000, row[name]) for row in rows if row.get(name) is not None]


def _draw_smoothed(axes: "Axes", points: list[Point], *, colour: str, style: str, label: str) -> None:
    smooth = smoothed([value for _, value in points])
    seen = [images for images, _ in points]
    axes.plot(seen, [value for _, value in points], color=colour, linestyle=style, alpha=0.25, linewidth=0.8)
    # A line needs two points.
    axes.plot(seen, smooth, color=colour, linestyle=style, marker="o" if len(seen) == 1 else None, label=label)


def smoothed(values: Sequence[float], *, share: float = _WINDOW) -> list[float]:
    """Centred moving means over this share of the values, shorter towards both ends."""
    reach = round(share * len(values) / 2)
    means = []
    for k in range(len(values)):
        around = min(reach, k, len(values) - 1 - k)
        window = values[k - around : k + around + 1]
        means.append(sum(window) / len(window))
    return means


def classes_by_styles(model: Model, *, seed: int, styles: int = 10) -> Tensor:
    """uint8 (rows * styles, C, H, W): one row for each label or cluster, one latent for each column.

    Clusters are many, so only the 16 most frequent get a row; those within a label share the columns of its row.
    """
    shares = model.frequencies.view(-1, model.config.ids_per_label).sum(1)
    rows = shares.argsort(descending=True, stable=True)[:16].sort().values
    rows = rows[shares[rows] > 0]
    ids = rows.repeat_interleave(styles)
    if model.is_labelled:
        ids = torch.cat([choose_ids(model, seed=seed, count=styles, labels=[label]) for label in rows.tolist()])
    latents = draw_latents(model.config, seed=seed, count=styles)
    return generate(model, latents.repeat(len(rows), 1), ids)


def neighbours(images: Tensor, training: Tensor, *, count: int = 4) -> Tensor:
    """uint8 (N * (1 + count), C, H, W): each image followed by the nearest training images, nearest first.

    Near means small Euclidean distance between pixels. A generator that copies shows the same picture twice.

    Args:
        images, training: uint8 (N, C, H, W) and (M, C, H, W).
    """
    drawn, known = images.flatten(1).float(), training.flatten(1).float()
    nearest = torch.cdist(drawn, known).topk(min(count, len(known)), largest=False).indices
    return torch.cat([images[:, None], training[nearest]], dim=1).flatten(0, 1)
