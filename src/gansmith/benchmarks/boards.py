"""The board: every recipe trained for the same time, or the same number of images, ranked by validation FD ratio.

The board is a folder: `board.json` holds every trial and each new one is added as soon as it is scored, so a board
that was stopped goes on where it was; `board.md`, `board.png` and `curves.png` are drawn from it; the runs lie in
`runs`.
"""

import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from gansmith.benchmarks.trials import (
    hash_of_images,
    open_table,
    score_trial,
    shared_choices,
    train_trials,
    trial_task,
)  # fmt: skip
from gansmith.evaluation import over_seeds, with_spread
from gansmith.files import write_bytes, write_json, write_text
from gansmith.models import load_generator
from gansmith.recipes import RECIPES
from gansmith.sampling import sample
from gansmith.workers import LocalPool, Pool

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
    pool: Pool | None = None,
    report: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Train and score what the folder's board lacks; returns the board as its JSON file holds it.

    Args:
        length: {"minutes": M} or {"images": N}.
        choices: fields that every recipe is given, such as the data set.
        pool: where the runs are trained; one at a time on this machine by default.

    Raises RunError where the folder holds a board of another length, of other choices, or of other images.
    """
    pool, choices = pool or LocalPool(), shared_choices(recipes, choices)
    settings = {**length, **choices}
    board = open_table(folder / "board.json", settings, what="a board", data_sha256=hash_of_images(choices))
    known = {(trial["recipe"], trial["seed"]) for trial in board["trials"]}
    tasks = {}
    for seed in range(seeds):  # the whole field with one seed first, so that a board that is stopped compares it
        for recipe in recipes:
            if (recipe, seed) not in known:
                directory, flags = folder / "runs" / f"{recipe}-seed-{seed}", {**length, **choices, "seed": seed}
                tasks[recipe, seed] = trial_task(f"{recipe}, seed {seed}", directory, recipe, flags, pool)
    for (recipe, seed), trained in train_trials(tasks, pool, report):
        directory = tasks[recipe, seed].directory
        result = score_trial(directory, board["data_sha256"]) if trained else {"validation_fd_ratio": None}
        board["trials"].append(
            {"recipe": recipe, "seed": seed, "run": directory.relative_to(folder).as_posix(), **result}
        )
        _save_board(folder, board)
    if board["trials"] and not _is_drawn(folder, board["trials"]):
        _save_board(folder, board)  # it was interrupted when it drew them
    return {**board, "rows": rank(board["trials"])}


def _is_drawn(folder: Path, trials: Sequence[Mapping[str, Any]]) -> bool:
    """Return whether a board has its pictures, or cannot have them, since its runs were removed."""
    runs = [folder / row["run"] for row in rank(trials) if row["run"]]
    names = ("board.md", "board.png", "curves.png") if runs else ("board.md",)
    return all((folder / name).is_file() for name in names) or not all(map(Path.exists, runs))


def _save_board(folder: Path, board: Mapping[str, Any]) -> None:
    """Write the board and everything drawn from it."""
    rows = rank(board["trials"])
    board = {**board, "rows": rows}
    write_json(folder / "board.json", board)
    write_text(folder / "board.md", to_markdown(board))
    draw_strips(folder, rows)
    draw_curves(folder, board["trials"])


def rank(trials: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return a row for each recipe, by mean validation FD ratio; recipes that failed with any seed come last.

    `spread` is the standard deviation over seeds, None for a single one.
    """
    rows = []
    for recipe in dict.fromkeys(trial["recipe"] for trial in trials):
        own = [trial for trial in trials if trial["recipe"] == recipe]
        scored = [trial for trial in own if trial["validation_fd_ratio"] is not None]
        mean, spread = over_seeds(trial["validation_fd_ratio"] for trial in scored)
        row: dict[str, Any] = {"recipe": recipe, "seeds": len(own), "failed": len(own) - len(scored)}
        row |= {"validation_fd_ratio": mean, "spread": spread}
        for name in ("recognised", "rarest_class", "modes", "images", "images_per_s"):
            row[name], _ = over_seeds(trial[name] for trial in scored)
        row["run"] = scored[0]["run"] if scored else None
        rows.append(row)
    return sorted(
        rows, key=lambda row: (row["failed"] > 0, row["validation_fd_ratio"] is None, row["validation_fd_ratio"])
    )


def to_table(board: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Return a header, and the board's rows as text; the numbers are means over the seeds."""
    header = ["recipe", "validation FD ratio", "recognised", "rarest class", "images", "images/s"]
    rows = [
        [row["recipe"], _score(row), *(_cell(row[name], form) for name, form in _CELLS.items())]
        for row in board["rows"]
    ]
    return header, rows


def to_markdown(board: Mapping[str, Any]) -> str:
    """Return the board as a table with samples."""
    given = ", ".join(f"{name} {value}" for name, value in board["settings"].items())
    header, rows = to_table(board)
    lines = [
        f"Each recipe with {given}. Validation FD ratio: Frechet distance between samples and validation images, over "
        "that between as many training images and these, by the evaluator with the largest ratio; mean +- standard "
        "deviation over seeds. 1.00 is as close as other real images.",
        "",
        f"| {' | '.join([*header, f'samples 0 to {STRIP - 1}'])} |",
        "|" + "---|" * (len(header) + 1),
    ]
    for row, (recipe, *cells) in zip(board["rows"], rows, strict=True):
        strip = f"![samples of {recipe}](strips/{recipe}.png)" if row["run"] else ""
        lines.append(f"| {' | '.join([f'`{recipe}`', *cells, strip])} |")
    return "\n".join(lines) + "\n"


_CELLS = {"recognised": "{:.1%}", "rarest_class": "{:.2f}", "images": "{:,.0f}", "images_per_s": "{:,.0f}"}


def _cell(value: float | None, form: str) -> str:
    return "" if value is None else form.format(value)


def _score(row: Mapping[str, Any]) -> str:
    """Return a row's validation FD ratio, and how many of its trainings failed, as text."""
    score = with_spread(row["validation_fd_ratio"], row["spread"])
    failed = f"{row['failed']} of {row['seeds']} failed" if row["failed"] else ""
    return ", ".join(filter(None, (score, failed)))


def draw_strips(folder: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write strips/<recipe>.png, the first samples of each recipe, and board.png, all of them in the board's order."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    from gansmith.pictures.grids import grid, to_png

    drawn = [row for row in rows if row["run"] and (folder / row["run"]).is_dir()]  # some may have been removed
    if not drawn:
        return
    (folder / "strips").mkdir(exist_ok=True)
    figure = Figure(figsize=(8, 0.6 * len(drawn) + 0.2), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    for axes, row in zip(figure.subplots(len(drawn), squeeze=False)[:, 0], drawn, strict=True):
        path = folder / "strips" / f"{row['recipe']}.png"
        strip = grid(sample(load_generator(folder / row["run"]), seed=0, count=STRIP)[0], columns=STRIP)
        write_bytes(path, to_png(strip))
        axes.imshow(strip, cmap="gray", vmin=0, vmax=255, interpolation="nearest")
        axes.set_axis_off()
        axes.text(-6, strip.height / 2, f"{row['recipe']}  {_score(row)}", ha="right", va="center", fontsize=9)
    png = io.BytesIO()
    figure.savefig(png, metadata={"Software": None}, bbox_inches="tight")
    write_bytes(folder / "board.png", png.getvalue())


def draw_curves(folder: Path, trials: Sequence[Mapping[str, Any]]) -> None:
    """Write curves.png: validation FD ratios of training against images seen, a line for each recipe's first seed."""
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
    axes.set_ylabel("validation FD ratio")
    axes.grid(alpha=0.3, which="both")
    figure.legend(loc="outside right upper", frameon=False, fontsize=8)
    png = io.BytesIO()
    figure.savefig(png, metadata={"Software": None})
    write_bytes(folder / "curves.png", png.getvalue())
