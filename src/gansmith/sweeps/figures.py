"""Pictures of a sweep: history, importance, slices, curves; PNG files, each drawn from rows alone."""

import io
import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from gansmith.pictures.plots import use_plain_numbers
from gansmith.sweeps.studies import OBJECTIVES, PARTS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Row = dict[str, Any]
_FINISHED, _PRUNED, _BEST = "#0072B2", "#D55E00", "#000000"  # distinct for any colour vision
COLUMNS = 3  # of slices
RATIO = "validation FD ratio"
_LABELS = {"validation_fd_ratio": RATIO, "images_per_s": "images/s in training", "g_parameters": "parameters of G"}


def draw_history(rows: Sequence[Row], settings: Mapping[str, Any], shares: Mapping[str, float]) -> bytes | None:
    """Return the ratio of each trial by its number, and the best so far; None where no trial has one."""
    finished, pruned = _with_ratio(rows, "finished"), _with_ratio(rows, "pruned")
    if not finished:
        return None
    from matplotlib.ticker import MaxNLocator

    figure = _figure(7, 4)
    axes = figure.add_subplot()
    _scatter(axes, finished, pruned, lambda row: row["trial"])
    best, bests = math.inf, []
    for row in finished:
        best = min(best, row["validation_fd_ratio"])
        bests.append(best)
    axes.step([row["trial"] for row in finished], bests, where="post", color=_BEST, linewidth=1, label="best so far")
    failed = [row["trial"] for row in rows if row["state"] == "failed"]
    if failed:
        top = axes.get_xaxis_transform()
        axes.plot(failed, [0.97] * len(failed), "v", color="#CC79A7", transform=top, linestyle="", label="failed")
    axes.set_xlabel("trial")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    _finish(axes)
    return _to_png(figure)


def draw_importance(rows: Sequence[Row], settings: Mapping[str, Any], shares: Mapping[str, float]) -> bytes | None:
    """Return the importance of each field as bars, largest on top; None where there are none."""
    if not shares:
        return None
    figure = _figure(7, 0.8 + 0.35 * len(shares))
    axes = figure.add_subplot()
    names = sorted(shares, key=lambda name: shares[name])
    bars = axes.barh(names, [shares[name] for name in names], color=_FINISHED)
    axes.bar_label(bars, [f"{shares[name]:.0%}" for name in names], padding=3)
    axes.set_xlim(0, 1.1 * max(*shares.values(), 0.01))
    axes.set_xlabel("importance")
    return _to_png(figure)


def draw_slices(rows: Sequence[Row], settings: Mapping[str, Any], shares: Mapping[str, float]) -> bytes | None:
    """Return a panel for each field: the ratios of trials against its value; None where no trial has one."""
    finished, pruned = _with_ratio(rows, "finished"), _with_ratio(rows, "pruned")
    if not finished:
        return None
    space = settings["space"]
    columns = min(COLUMNS, len(space))
    lines = -(-len(space) // columns)
    figure = _figure(max(4.0, 3.2 * columns), 3.2 * lines)
    panels = figure.subplots(lines, columns, sharey=True, squeeze=False)
    for axes, (name, dimension) in zip(panels.flat, space.items(), strict=False):
        _draw_slice(axes, name, dimension, finished, pruned)
    for axes in panels.flat[len(space) :]:
        axes.set_axis_off()
    for axes in panels[:, 0]:
        axes.set_ylabel(RATIO)
    panels[0, 0].legend(fontsize="small")  # in a frame, since its dots look like trials
    return _to_png(figure)


def _draw_slice(
    axes: "Axes", name: str, dimension: Mapping[str, Any], finished: Sequence[Row], pruned: Sequence[Row]
) -> None:
    if "choices" in dimension:
        values = [str(value) for value in dimension["choices"]]
        _scatter(axes, finished, pruned, lambda row: values.index(str(row["params"][name])))
        axes.set_xticks(range(len(values)), values, rotation=20 if max(map(len, values)) > 6 else 0)
        axes.set_xlim(-0.5, len(values) - 0.5)
    else:
        _scatter(axes, finished, pruned, lambda row: row["params"][name])
        if dimension["scale"] == "log":
            axes.set_xscale("log")
    axes.set_xlabel(name)
    axes.set_yscale("log")
    use_plain_numbers(axes.yaxis)
    axes.grid(alpha=0.3)


def draw_curves(rows: Sequence[Row], settings: Mapping[str, Any], shares: Mapping[str, float]) -> bytes | None:
    """Return the ratio during each trial against the share of its length; None where none has one before its end."""
    figure = _figure(7, 4)
    axes = figure.add_subplot()
    drawn = 0
    for row in rows:
        is_done = row["state"] == "finished" and row["validation_fd_ratio"] is not None
        end = [[PARTS * (row["share"] or 1.0), row["validation_fd_ratio"]]] if is_done else []
        points = [*row["curve"], *end]
        if len(points) < 2 - (row["state"] == "pruned"):
            continue
        colour = _PRUNED if row["state"] == "pruned" else _FINISHED
        shares_seen, ratios = zip(*((part / PARTS, ratio) for part, ratio in points), strict=True)
        marker = "x" if row["state"] == "pruned" else "."
        axes.plot(shares_seen, ratios, color=colour, alpha=0.6, linewidth=1, marker=marker, markevery=[-1])
        drawn += 1
    if not drawn:
        return None
    axes.set_xlabel("share of the training")
    axes.xaxis.set_major_formatter(lambda x, _: f"{x:.0%}")
    _finish(axes, legend=False)
    return _to_png(figure)


def draw_objectives(rows: Sequence[Row], settings: Mapping[str, Any], shares: Mapping[str, float]) -> bytes | None:
    """Return finished trials by their first two objectives, each with its number; None for a single objective."""
    names = settings["objectives"]
    finished = [row for row in rows if row["state"] == "finished"]
    if len(names) < 2 or not finished:
        return None
    figure = _figure(7, 4)
    axes = figure.add_subplot()
    x, y = (OBJECTIVES[name][0] for name in names[:2])
    axes.scatter([row[x] for row in finished], [row[y] for row in finished], color=_FINISHED, s=24)
    for row in finished:
        axes.annotate(str(row["trial"]), (row[x], row[y]), xytext=(4, 4), textcoords="offset points", fontsize="small")
    for axis, name in ((axes.xaxis, x), (axes.yaxis, y)):
        axis.set_label_text(_LABELS[name])
        if name == "validation_fd_ratio":
            (axes.set_xscale if axis is axes.xaxis else axes.set_yscale)("log")
            use_plain_numbers(axis)
    axes.grid(alpha=0.3)
    return _to_png(figure)


FIGURES: dict[str, Callable[[Sequence[Row], Mapping[str, Any], Mapping[str, float]], bytes | None]] = {
    "objectives": draw_objectives,
    "history": draw_history,
    "importance": draw_importance,
    "slices": draw_slices,
    "curves": draw_curves,
}


def _with_ratio(rows: Sequence[Row], state: str) -> list[Row]:
    return [row for row in rows if row["state"] == state and row["validation_fd_ratio"] is not None]


def _scatter(axes: "Axes", finished: Sequence[Row], pruned: Sequence[Row], x_of: Callable[[Row], Any]) -> None:
    """Draw trials by their ratio, later ones darker."""
    last = max(row["trial"] for row in (*finished, *pruned)) or 1
    for rows, colour, marker, label in ((finished, _FINISHED, "o", "finished"), (pruned, _PRUNED, "x", "pruned")):
        if rows:
            axes.scatter(
                [x_of(row) for row in rows],
                [row["validation_fd_ratio"] for row in rows],
                color=colour,
                alpha=[0.35 + 0.65 * row["trial"] / last for row in rows],  # type: ignore[arg-type]
                marker=marker,
                s=24,
                label=label,
            )


def _finish(axes: "Axes", *, legend: bool = True) -> None:
    axes.set_yscale("log")
    use_plain_numbers(axes.yaxis)
    axes.set_ylabel(RATIO)
    axes.grid(alpha=0.3)
    if legend:
        axes.legend(frameon=False)


def _figure(width: float, height: float) -> "Figure":
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _to_png(figure: "Figure") -> bytes:
    picture = io.BytesIO()
    figure.savefig(picture, format="png", metadata={"Software": None})
    return picture.getvalue()
