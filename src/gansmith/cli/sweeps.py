"""`sweep`: search for good choices by many trials, show what was found, write the best as a recipe."""

import json as json_
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Group, Parameter

from gansmith.cli.output import Json, Whole, complain, print_table, report
from gansmith.cli.placement import ONE_AT_A_TIME, Placed, Placement
from gansmith.cli.training import Overrides
from gansmith.errors import ConfigError
from gansmith.files import quoted, require_parent

if TYPE_CHECKING:
    from gansmith.api import Sweep

_METHOD = Group("How to search", sort_key=80)
_NO_OVERRIDES = Overrides()


@dataclass(frozen=True, kw_only=True)
class Method:
    """How a sweep searches."""

    sampler: Annotated[Literal["tpe", "random", "grid"], Parameter(group=_METHOD, help="How choices are drawn.")] = (
        "tpe"
    )
    prune: Annotated[
        Literal["none", "median", "halving"] | None,
        Parameter(
            group=_METHOD,
            help="Stop trials whose validation FD ratio is worse than the median of others, or not in the better half "
            "after a quarter and a half of their length; by default median, and none for several objectives.",
        ),
    ] = None
    objectives: Annotated[
        str,
        Parameter(group=_METHOD, help="One or more of fd-ratio, images-per-s and size (parameters of G), with commas."),
    ] = "fd-ratio"
    storage: Annotated[
        str | None,
        Parameter(
            group=_METHOD,
            help="Address of a database for sweeps on several machines, as postgresql+psycopg://user@host/name; by "
            "default a SQLite file in the folder.",
        ),
    ] = None
    study: Annotated[
        str | None, Parameter(group=_METHOD, help="Name of the sweep in that database; by default the folder's.")
    ] = None


_USUAL = Method()


def sweep(
    recipe: str | None = None,
    /,
    *,
    search: Annotated[list[str] | None, Parameter(negative=())] = None,
    space: Path | None = None,
    trials: Whole | None = None,
    minutes: float | None = None,
    out: Path | None = None,
    config: Path | None = None,
    best: Annotated[bool, Parameter(negative=())] = False,
    json: Json = False,
    method: Annotated[Method, Parameter(name="*")] = _USUAL,
    placement: Placed = ONE_AT_A_TIME,
    overrides: Annotated[Overrides, Parameter(name="*")] = _NO_OVERRIDES,  # type: ignore[valid-type]
) -> int:
    """Search for good choices by many trials, each an ordinary run, and report what was found (extra `search`).

    The same command continues a sweep that was stopped. Every field of `train` is a flag that all trials are given.

    Parameters
    ----------
    recipe
        Row of `gansmith list recipes` to start from; or the folder of a sweep to show, with --trials to continue.
    search
        Fields with a range or choices: g-lr=1e-4..1e-2:log,network=compact,r3gan; a field alone has its usual range.
    space
        TOML file with these instead.
    trials
        Number of trials, failed and pruned ones included; 20 for a new sweep.
    minutes
        Wall time of each trial; 1 by default. --images sets their length in images instead.
    out
        Folder of the sweep, by default one under runs/; of a sweep that is shown, the report or the recipe to write.
    config
        TOML file with field = value lines that every trial is given.
    best
        Write the best trial's choices to --out as a file for `gansmith train --config`.
    json
        The trials as one JSON object instead of a table.
    """
    from gansmith.api import Sweep
    from gansmith.api import sweep as run

    if recipe is not None and (Path(recipe) / "sweep.json").is_file():
        _refuse_search(search, space, minutes, config, *_changed(method), *vars(overrides).values())
        if trials is None:
            return _show(Path(recipe), method.storage, placement, out=out, best=best, json=json)
        _refuse_search(out, best or None)
        return _search(partial(Sweep(Path(recipe), method.storage).resume, trials, **vars(placement)), json=json)
    if best:
        raise ConfigError("--best is of a sweep that exists; give its folder, such as runs/sweep-default-mnist")
    if recipe is not None and re.search(r"[/\\]", recipe):
        raise ConfigError(
            f"{recipe} holds no sweep (no sweep.json); give a recipe's name, or a folder that sweep wrote"
        )
    given = {name: value for name, value in vars(overrides).items() if value is not None}
    given |= {"search": _search_of(search, space), "trials": trials, "minutes": minutes, "out": out, "file": config}
    given |= {**vars(method), "objectives": [one.strip() for one in method.objectives.split(",")]}
    return _search(partial(run, recipe, **given, **vars(placement)), json=json)


def _search(run: Callable[..., "Sweep"], *, json: bool) -> int:
    """Run a sweep and show it; returns the exit code."""
    try:
        found = run(report=report)
    except KeyboardInterrupt:
        complain("stopped; the same command continues the sweep")
        return 130
    _show(found.directory, found.storage, ONE_AT_A_TIME, out=None, best=False, json=json)
    return int(all(row["state"] == "failed" for row in found.trials))


def _search_of(search: list[str] | None, space: Path | None) -> dict[str, Any]:
    """Return the search space of the flags."""
    from gansmith.sweeps.space import parse_search, read_space

    if (search is None) == (space is None):
        raise ConfigError(
            "give what to search by --search, such as --search g-lr,network=compact,r3gan, or by --space FILE"
        )
    return read_space(space) if space is not None else parse_search(search or [])


def _changed(method: Method) -> list[Any]:
    """Return what was asked for of a method, but for where it is stored."""
    return [text for name, text in vars(method).items() if name != "storage" and text != getattr(_USUAL, name)]


def _refuse_search(*given: Any) -> None:
    if any(value is not None for value in given):
        raise ConfigError("a sweep's folder takes --trials alone, to go on; for another search give a recipe and --out")


def _show(folder: Path, storage: str | None, placement: Placement, *, out: Path | None, best: bool, json: bool) -> int:
    """Print what a sweep found and write its report, or its best recipe."""
    from gansmith.api import Sweep
    from gansmith.runs import is_locked
    from gansmith.sweeps import results

    _refuse_search(placement if placement != ONE_AT_A_TIME else None)  # nothing is trained
    found = Sweep(folder, storage)
    if best:
        path = out or Path("recipe.toml")
        if out is None and path.exists():
            raise ConfigError(f"{path} is there already; give the file to write with --out")
        require_parent(path)
        found.write_recipe(path)
        if json:
            print(json_.dumps(results.require_best(found.trials, found.settings, folder)))
        else:
            print(f"recipe {path}: train it with gansmith train --config {path}")
        return 0
    path = found.report(out)
    rows, settings = found.trials, found.settings
    if json:
        print(json_.dumps({"settings": settings, "trials": rows, "importances": found.importances}))
    else:
        ranked = results.best_first(rows, settings)
        print_table(*results.to_table([*ranked, *(row for row in rows if row not in ranked)], settings), width=160)
        print(f"{results.counts(rows)}. {results.saving(rows)}")
        is_left = any(row["state"] == "running" for row in rows) and not is_locked(folder)
        again = " ".join(["gansmith sweep", *map(quoted, (folder, *(("--storage", storage) if storage else ())))])
        if is_left and storage:
            print(f"trials are running on another machine, or were stopped; continue these with: {again} --trials N")
        elif is_left:
            print(f"the sweep was stopped before its end; continue with: {again} --trials N")
        print(f"report {path}")
        if ranked:
            print(f"best recipe: {again} --best --out recipe.toml")
    return 0
