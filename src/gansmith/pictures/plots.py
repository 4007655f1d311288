"""Plots of a run's losses and scores, and grids of its generator's samples, made without any global plotting state.

`plot_curves` draws losses and validation FD ratios, `draw_classes` a row of samples for each class; `neighbours` are
grids of images.
"""

import io
import math
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from gansmith.data.images import CHUNK
from gansmith.files import write_bytes
from gansmith.pictures.grids import enlarge, grid
from gansmith.runs import RunDirectory
from gansmith.sampling import Model, draw_latents, generate

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis

# Distinct for any colour vision, and in grey print by line style.
_LOSSES = {"d_loss": ("#0072B2", "-", "discriminator"), "g_loss": ("#D55E00", "--", "generator")}
_SCORE, _FAILURE = "#000000", "#CC79A7"
_CLOSE = 0.03  # of the width: names of failures nearer to each other would overlap
# A smoothed point is the mean of the points this share of the run around it.
_WINDOW = 0.05

Point = tuple[float, float]


def plot_curves(run: RunDirectory, target: Path | None = None) -> None:
    """Write `draw_curves`' picture as loss.png in the run's directory, or to a .png, .svg or .pdf."""
    target = target or run.directory / "loss.png"
    write_bytes(target, draw_curves(run, target.suffix.lower()))


def draw_curves(run: RunDirectory, kind: str = ".png") -> bytes:
    """Return a plot of losses, and of validation FD ratios, against images seen, as a file of this kind.

    Raw values are faint, their moving means strong; a dotted line marks each training failure in the log.
    """
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows = run.log
    scores = _points(run.validation_scores(), "validation_fd_ratio")
    figure = Figure(figsize=(7, 6 if scores else 4), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    panels = list(figure.subplots(2 if scores else 1, 1, sharex=True, squeeze=False)[:, 0])
    for name, (colour, style, label) in _LOSSES.items():
        _draw_smoothed(panels[0], _points(rows, name), colour=colour, style=style, label=label)
    panels[0].set_ylabel("loss")
    panels[0].set_title(f"{run.config.recipe} on {run.config.data}")
    if scores:
        _draw_scores(panels[1], scores)
    for axes in panels:
        axes.grid(alpha=0.3)
        axes.legend(frameon=False)
    _mark_failures(panels, [row for row in rows if row.get("kind") in ("failure", "rollback")])
    if not any("d_loss" in row for row in rows):  # nothing drawn from which the axis could begin
        panels[0].set_xlim(left=0)
    panels[-1].set_xlabel("thousand images seen")
    # No dates, versions or random ids inside, so equal runs have equal pictures.
    silent = {".png": {"Software": None}, ".svg": {"Date": None}, ".pdf": {"CreationDate": None}}
    with rc_context({"svg.hashsalt": "gansmith"}):
        picture = io.BytesIO()
        figure.savefig(picture, format=kind[1:], metadata=silent[kind])
    return picture.getvalue()


def _draw_scores(axes: "Axes", scores: Sequence[Point]) -> None:
    axes.plot(*zip(*scores, strict=True), color=_SCORE, marker="o", label="generated images")
    axes.axhline(1, color=_SCORE, linewidth=0.8, linestyle=":", label="other real images (1.00)")
    axes.set_yscale("log")
    use_plain_numbers(axes.yaxis)
    axes.set_ylabel("validation FD ratio")


def use_plain_numbers(axis: "Axis") -> None:
    """Have a logarithmic axis show 1.25 and 20 where it has 1.25 x 10^0 and 2 x 10^1."""
    from matplotlib.ticker import LogFormatter

    class Plain(LogFormatter):
        def __call__(self, x: float, pos: int | None = None) -> str:
            return f"{x:g}" if super().__call__(x, pos) else ""

    few = (2, 0.75)  # decades up to which some or all ticks between have numbers
    axis.set_major_formatter(Plain(minor_thresholds=few))
    axis.set_minor_formatter(Plain(minor_thresholds=few))


def _mark_failures(panels: Sequence["Axes"], rows: Sequence[dict[str, Any]]) -> None:
    """Draw a dotted line through all panels where a training failure was found, or a run went back after one.

    Names of lines that lie close together stand at the top and the bottom, left and right of their lines.
    """
    left, right = panels[0].get_xlim()
    slot, before = 0, -math.inf
    for row in rows:
        thousands = row["images_seen"] / 1000
        slot = slot + 1 if thousands - before < _CLOSE * (right - left) else 0
        before = thousands
        is_low, is_right = slot % 2 == 1, slot // 2 % 2 == 1
        for axes in panels:
            axes.axvline(thousands, color=_FAILURE, linestyle=":")
        panels[0].annotate(
            row["failure"] if row["kind"] == "failure" else f"rollback after {row['failure']}",
            (thousands, 0.02 if is_low else 0.98),
            xycoords=panels[0].get_xaxis_transform(),
            xytext=(2 if is_right else -2, 0),
            textcoords="offset points",
            rotation=90,
            va="bottom" if is_low else "top",
            ha="left" if is_right else "right",
            fontsize="small",
        )


def _points(rows: Sequence[dict[str, Any]], name: str) -> list[Point]:
    """Return (thousand images seen, value) wherever the value is a number."""
    return [(row["images_seen"] / 1000, row[name]) for row in rows if row.get(name) is not None]


def _draw_smoothed(axes: "Axes", points: list[Point], *, colour: str, style: str, label: str) -> None:
    smooth = smoothed([value for _, value in points])
    seen = [images for images, _ in points]
    axes.plot(seen, [value for _, value in points], color=colour, linestyle=style, alpha=0.25, linewidth=0.8)
    # A line needs two points.
    axes.plot(seen, smooth, color=colour, linestyle=style, marker="o" if len(seen) == 1 else None, label=label)


def smoothed(values: Sequence[float], *, share: float = _WINDOW) -> list[float]:
    """Return centred moving means over this share of the values, shorter towards both ends."""
    reach = round(share * len(values) / 2)
    means = []
    for k in range(len(values)):
        around = min(reach, k, len(values) - 1 - k)
        window = values[k - around : k + around + 1]
        means.append(sum(window) / len(window))
    return means


def draw_classes(model: Model, *, seed: int) -> Image.Image:
    """Return a picture with a row for each label, its name at the left, or each cluster, and one latent a column."""
    tiles = enlarge(grid(classes_by_styles(model, seed=seed, styles=10), columns=10))
    if not model.conditioning.has_labels:
        return tiles
    return with_row_names(tiles, [_drawable(model.class_name(k), k) for k in class_rows(model).tolist()])


def _font_path() -> Path:
    import matplotlib

    return Path(matplotlib.get_data_path()) / "fonts/ttf/DejaVuSans.ttf"  # of more alphabets than Pillow's own


def _drawable(name: str, label: int) -> str:
    """Return the name of a class where the font has all of its letters, else its number."""
    return name if _alphabet().issuperset(map(ord, name)) else f"class {label}"


@cache
def _alphabet() -> frozenset[int]:
    """Return the numbers of the letters that the font has."""
    from matplotlib.ft2font import FT2Font

    return frozenset(FT2Font(str(_font_path())).get_charmap())


def with_row_names(tiles: Image.Image, names: Sequence[str]) -> Image.Image:
    """Return a picture of equal rows with a name at the left of each, long ones cut."""
    side = tiles.height // len(names)
    font = ImageFont.truetype(str(_font_path()), max(10, min(20, side // 2)))
    texts = [name if len(name) <= 24 else f"{name[:22]}..." for name in names]
    margin = max(round(font.getlength(text)) for text in texts) + 12
    picture = Image.new(tiles.mode, (margin + tiles.width, tiles.height), "white")
    picture.paste(tiles, (margin, 0))
    pen = ImageDraw.Draw(picture)
    for row, text in enumerate(texts):
        pen.text((margin - 6, side * row + side // 2), text, fill="black", font=font, anchor="rm")
    return picture


def classes_by_styles(model: Model, *, seed: int, styles: int = 10) -> Tensor:
    """Return uint8 (rows * styles, C, H, W): one row for each label or cluster, one latent for each column.

    Clusters are many, so only the 16 most frequent get a row; sub-clusters share the columns of their label's row.
    """
    rows = class_rows(model)
    y = rows.repeat_interleave(styles)
    if model.conditioning.has_labels:
        y = torch.cat([model.conditioning.draw(seed=seed, count=styles, labels=[label]) for label in rows.tolist()])
    latents = draw_latents(model.config, seed=seed, count=styles)
    return generate(model, latents.repeat(len(rows), 1), y)


def class_rows(model: Model) -> Tensor:
    """Return the 16 most frequent labels or clusters, in their order."""
    shares = model.conditioning.label_shares.sum(1)
    rows = shares.argsort(descending=True, stable=True)[:16].sort().values
    return rows[shares[rows] > 0]


def neighbours(images: Tensor, training: Tensor, *, count: int = 4) -> Tensor:
    """Return uint8 (N * (1 + count), C, H, W): each image followed by the nearest training images, nearest first.

    Near means small Euclidean distance between pixels. Where the generator copies, the same picture appears twice.

    Args:
        images, training: uint8 (N, C, H, W) and (M, C, H, W).
    """
    drawn = images.flatten(1).float()
    distances = torch.cat([torch.cdist(drawn, chunk.flatten(1).float()) for chunk in training.split(CHUNK)], dim=1)
    nearest = distances.topk(min(count, len(training)), largest=False).indices
    return torch.cat([images[:, None], training[nearest]], dim=1).flatten(0, 1)
