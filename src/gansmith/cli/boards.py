"""`bench recipes` and `ablate`: many trainings under equal conditions, compared in a table."""

import json as json_
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from gansmith.cli.output import Json, Whole, print_table, report
from gansmith.cli.placement import ONE_AT_A_TIME, Placed
from gansmith.config import choose, name_of, parse_value
from gansmith.errors import ConfigError


def recipes(
    *names: str,
    minutes: float | None = None,
    images: str | None = None,
    seeds: Whole | None = None,
    data: str = "mnist",
    data_dir: Path | None = None,
    out: Path | None = None,
    placement: Placed = ONE_AT_A_TIME,
    json: Json = False,
) -> int:
    """Train recipes for the same time, or the same number of images, and rank them by validation FD ratio.

    All recipes but stacked and gaussians, which are for other data.

    The same command goes on where it was stopped, and the board is rewritten after each run.

    Parameters
    ----------
    names
        Rows of `gansmith list recipes`; without any, all that train on ordinary images.
    minutes
        Wall time of each run; 3 by default.
    images
        Length of each run in images instead, such as 200k.
    seeds
        Runs of each recipe; 3 by default, 1 from ten minutes on.
    data
        Data set to train on and to evaluate with.
    data_dir
        Folder that holds its files.
    out
        Folder of the board; by default one under runs/ named after its length.
    json
        The board as one JSON object instead of a table.
    """
    from gansmith.benchmarks.boards import RANKED, run_board, to_table
    from gansmith.recipes import RECIPES

    for name in names:
        choose(RECIPES, name, "recipe")
    length = _length(minutes, images, 3.0)
    seeds = (1 if length.get("minutes", 0) >= 10 else 3) if seeds is None else seeds
    if seeds < 1:
        raise ConfigError(f"seeds is {seeds}; it must be 1 or more, such as 3")
    choices = _choices(data, data_dir)
    lengths = "-".join(f"{value:.15g}-{name}" for name, value in length.items())
    folder = out or Path("runs") / f"board-{lengths}-{name_of(data)}"
    files = ("board.md", "board.png", "curves.png")
    given: dict[str, Any] = {"length": length, "choices": choices, "pool": placement.open(), "report": report}
    run = partial(run_board, folder, names or RANKED, seeds=seeds, **given)
    return _run_and_print(run, to_table, [folder / name for name in files], json=json)


def ablate(
    recipe: str,
    /,
    *,
    without: Annotated[list[str], Parameter(negative=())],
    minutes: float | None = None,
    images: str | None = None,
    seeds: Whole = 3,
    data: str = "mnist",
    data_dir: Path | None = None,
    out: Path | None = None,
    placement: Placed = ONE_AT_A_TIME,
    json: Json = False,
) -> int:
    """Train a recipe with and without each technique, from the same seeds, and show what each one does.

    Parameters
    ----------
    recipe
        Row of `gansmith list recipes`.
    without
        Field to reset to its default, or several joined by + to reset together; may be given several times.
    minutes
        Wall time of each run; 1 by default.
    images
        Length of each run in images instead, such as 200k.
    seeds
        Runs of each variant, at least 2.
    data
        Data set to train on and to evaluate with.
    data_dir
        Folder that holds its files.
    out
        Folder of the ablation; by default one under runs/ named after the recipe.
    json
        The ablation as one JSON object instead of a table.
    """
    from gansmith.benchmarks.ablation import run_ablation, to_table

    length = _length(minutes, images, 1.0)
    folder = out or Path("runs") / f"ablation-{recipe}{'' if data == 'mnist' else f'-{name_of(data)}'}"
    choices = _choices(data, data_dir)
    given: dict[str, Any] = {"length": length, "choices": choices, "pool": placement.open(), "report": report}
    run = partial(run_ablation, folder, recipe, without, seeds=seeds, **given)
    return _run_and_print(run, to_table, [folder / "ablation.md"], json=json)


def _run_and_print(
    run: Callable[[], dict[str, Any]],
    to_table: Callable[[dict[str, Any]], tuple[Sequence[str], Sequence[Sequence[str]]]],
    files: Sequence[Path],
    *,
    json: bool,
) -> int:
    """Run a comparison, print its table and where it was written; returns the exit code. The first file names it."""
    from gansmith.workers import Interrupted

    kind, folder = files[0].stem, files[0].parent
    try:
        result = run()
    except Interrupted as stopped:
        print(f"{stopped.in_words()}; the same command continues the {kind} in {folder}", file=sys.stderr)
        return stopped.code
    if json:
        print(json_.dumps(result))
    else:
        print_table(*to_table(result))
    report(f"{kind} {', '.join(map(str, files))}")
    return 0


def _length(minutes: float | None, images: str | None, usual_minutes: float) -> dict[str, float]:
    """Return the length that every run of a comparison is given."""
    from gansmith.planning import refuse_lengths

    refuse_lengths(minutes=minutes, images=images, epochs=None)
    if images is not None:
        return {"images": parse_value("images", images)}
    return {"minutes": usual_minutes if minutes is None else minutes}


def _choices(data: str, data_dir: Path | None) -> dict[str, object]:
    from gansmith.data import as_path

    return {"data": data, "data_dir": str(data_dir)} if data_dir else {"data": as_path(data)}
