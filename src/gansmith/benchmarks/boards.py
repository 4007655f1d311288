"""The board: every recipe for the same time, or the same number of images, judged on the same real images.

The board is a folder: `board.json` holds every trial and each new one is added as soon as it is judged, so a board
that was stopped goes on where it was; `board.md`, `board.png` and `curves.png` are drawn from it; the runs lie
beside it.
"""

import json
import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from gansmith.errors import GansmithError
from gansmith.benchmarks.trials import hash_of_images, judge_trial, refuse_other_images, train_trial
from gansmith.models import load_generator
from gansmith.sampling import sample
from gansmith.recipes import RECIPES
from gansmith.files import write_json, write_text

STRIP = 10  # unfiltered samples 0 to 9 of seed 0
# The other rows are for data sets of their own.
RANKED = tuple(name for name in RECIPES if name not in ("stacked", "gaussians"))


def run_board(
    folder: Path,
    recipes: Sequence[str],
    *,
    seeds: int,
    length: Mapping[str, object],
    choices: Mapping[str, object],
    report: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Train and judge what the folder's board lacks, one run at a time; the board as its JSON file holds it.

    Args:
        length: {"minutes": M} or {"images": N}.
        choices: fields that every recipe is given, such as the data set.

    Raises ValueError where the folder holds a board of another length, of other choices, or of other images.
    """
    board = open_board(folder, {**length, **choices}, data_sha256=hash_of_images(choices))
    for seed in range(seeds):  # the whole field with one seed first, so that a board that is stopped compares it
        for recipe in recipes:
            if any((trial["recipe"], trial["seed"]) == (recipe, seed) for trial in board["trials"]):
                continue
            directory = folder / "runs" / f"{recipe}-seed-{seed}"
            report(f"{recipe}, seed {seed}")
            trained = train_trial(directory, recipe, {**length, **choices, "seed": seed})
            result = judge_trial(directory) if trained else {"ratio": None}
            board["trials"].append(
                {"recipe": recipe, "seed": seed, "run": str(directory.relative_to(folder)), **result}
            )
            _save_board(folder, board)
    return {**board, "rows": rank(board["trials"])}


def open_board(folder: Path, settings: Mapping[str, object], *, data_sha256: str) -> dict[str, Any]:
    """The board a folder holds, or an empty one; ValueError where it was begun with other settings or images."""
    path = folder / "board.json"
    if not path.is_file():
        return {"settings": dict(settings), "data_sha256": data_sha256, "trials": []}
    board: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    if board["settings"] != dict(settings):
        raise GansmithError(
            f"{folder} holds a board with {board['settings']}, not {dict(settings)}; give another place with --out"
        )
    refuse_other_images(board, data_sha256, named=f"{folder} holds a board")
    return {"settings": board["settings"], "data_sha256": data_sha256, "trials": board["trials"]}


def _save_board(folder: Path, board: Mapping[str, Any]) -> None:
    """Write the board and everything drawn from it."""
    rows = rank(board["trials"])
    board = {**board, "rows": rows}
    write_json(folder / "board.json", board)
    write_text(folder / "board.md", to_markdown(board))
    draw_strips(folder, rows)
    draw_curves(folder, board["trials"])


def rank(trials: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """One row a recipe, its seeds together, by mean ratio; recipes that diverged with any seed come last.

    `spread` is the standard deviation over seeds, None for a single one.
    """
    rows = []
    for recipe in dict.fromkeys(trial["recipe"] for trial in trials):
        own = [trial for trial in trials if trial["recipe"] == recipe]
        judged = [trial for trial in own if trial["ratio"] is not None]
        ratios = [trial["ratio"] for trial in judged]
        row: dict[str, Any] = {"recipe": recipe, "seeds": len(own), "diverged": len(own) - len(judged)}
        row["ratio"] = statistics.fmean(ratios) if ratios else None
        row["spread"] = statistics.stdev(ratios) if len(ratios) > 1 else None
        for name in ("recognised", "rarest_class", "modes", "images", "images_per_s"):
            values = [trial[name] for trial in judged if trial[name] is not None]
            row[name] = statistics.fmean(values) if values else None
        row["run"] = judged[0]["run"] if judged else None
        rows.append(row)
    return sorted(rows, key=lambda row: (row["diverged"] > 0, row["ratio"] is None, row["ratio"]))


def to_markdown(board: Mapping[str, Any]) -> str:
    """The board as a table; its numbers are means over the seeds."""
    given = ", ".join(f"{name} {value}" for name, value in board["settings"].items())
    lines = [
        f"Each recipe with {given}. Times real: Frechet distance of samples to the validation images, over that of as "
        "many training images, by the evaluator that finds the samples worst; mean and standard deviation over seeds.",
        "",
        "| recipe | times real | recognised | rarest class | images | images/s | samples 0 to 9 |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in board["rows"]:
        cells = [f"`{row['recipe']}`", _score(row), *(_cell(row[name], form) for name, form in _CELLS.items())]
        strip = f"![samples of {row['recipe']}](strips/{row['recipe']}.png)" if row["run"] else ""
        lines.append(f"| {' | '.join([*cells, strip])} |")
    return "\n".join(lines) + "\n"


_CELLS = {"recognised": "{:.1%}", "rarest_class": "{:.2f}", "images": "{:,.0f}", "images_per_s": "{:,.0f}"}


def _cell(value: float | None, form: str) -> str:
    return "" if value is None else form.format(value)


def _score(row: Mapping[str, Any]) -> str:
    failed = f"{row['diverged']} of {row['seeds']} diverged" if row["diverged"] else ""
    if row["ratio"] is None:
        return failed
    spread = "" if row["spread"] is None else f" +- {row['spread']:.2f}"
    return f"{row['ratio']:.2f}{spread}" + (f", {failed}" if failed else "")


def draw_strips(folder: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """strips/<recipe>.png, the first samples of each recipe, and board.png, all of them in the board's order."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    from gansmith.pictures.grids import grid

    drawn = [row for row in rows if row["run"]]
    if not drawn:
        return
    (folder / "strips").mkdir(exist_ok=True)
    figure = Figure(figsize=(8, 0.6 * len(drawn) + 0.2), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    for axes, row in zip(figure.subplots(len(drawn), squeeze=False)[:, 0], drawn, strict=True):
        path = folder / "strips" / f"{row['recipe']}.png"
        strip = grid(sample(load_generator(folder / row["run"]), seed=0, count=STRIP)[0], columns=STRIP)
        strip.save(path)
        axes.imshow(strip, cmap="gray", interpolation="nearest")
        axes.set_axis_off()
        axes.text(-6, strip.height / 2, f"{row['recipe']}  {_score(row)}", ha="right", va="center", fontsize=9)
    figure.savefig(folder / "board.png", metadata={"Software": None}, bbox_inches="tight")


def draw_curves(folder: Path, trials: Sequence[Mapping[str, Any]]) -> None:
    """curves.png: every score during training against the images seen by then, a line a recipe (its first seed)."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    first = {trial["recipe"]: trial for trial in reversed(trials) if trial.get("curve")}
    if not first:
        return
    figure = Figure(figsize=(8, 5), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    styles = ("-", "--", ":", "-.")
    for index, (recipe, trial) in enumerate(sorted(first.items())):
        images, ratios = zip(*trial["curve"], strict=True)
        axes.loglog(images, ratios, linestyle=styles[index // 10 % 4], marker=".", label=recipe)
    axes.set_xlabel("images seen")
    axes.set_ylabel("times real (quick score)")
    axes.grid(alpha=0.3, which="both")
    figure.legend(loc="outside right upper", frameon=False, fontsize=8)
    figure.savefig(folder / "curves.png", metadata={"Software": None})
