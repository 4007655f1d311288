"""What a sweep found: its trials as rows, the importance of each field, the best recipe, and a report."""

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gansmith.config import FIELDS
from gansmith.errors import ConfigError
from gansmith.files import quoted, write_text
from gansmith.reports import write_blocks
from gansmith.sweeps import figures, studies
from gansmith.sweeps.search import describe_settings, opened_study, read_facts

if TYPE_CHECKING:
    from optuna.study import Study

Row = dict[str, Any]
FEW = 10  # finished or pruned trials below which importances say little
BEST = 10  # rows of the table of best trials
_FIGURES = ("validation_fd_ratio", "images_per_s", "g_parameters", "images", "share", "reason")


def read_rows(study: "Study", folder: Path) -> list[Row]:
    """Return a row for each trial, in their order, but for those that were one too many.

    A row has trial (its number), state, params, validation_fd_ratio (of a pruned trial, its last), images_per_s,
    g_parameters, images, share (of its length that was trained), reason, run (its directory) and curve: the ratio after
    each eighth of its length.
    """
    rows = []
    for trial in studies.trials_of(study):
        directory = folder / "runs" / f"{trial.number:04d}"
        row: Row = {"trial": trial.number, "state": studies.state_of(trial), "params": dict(trial.params)}
        row |= {name: trial.user_attrs.get(name) for name in _FIGURES}
        row["run"] = str(directory) if directory.is_dir() else None
        row["curve"] = sorted([part, ratio] for part, ratio in trial.intermediate_values.items())
        rows.append(row)
    return rows


def best_first(rows: Sequence[Row], settings: Mapping[str, Any]) -> list[Row]:
    """Return the finished trials, best first by the first objective; for several, those that no other beats come first.

    A trial beats another that is not better in any objective and worse in one.
    """
    finished = [row for row in rows if row["state"] == "finished"]
    costs = {row["trial"]: _costs(row, settings["objectives"]) for row in finished}
    beaten = {row["trial"]: any(_beats(other, costs[row["trial"]]) for other in costs.values()) for row in finished}
    return sorted(finished, key=lambda row: (beaten[row["trial"]], costs[row["trial"]]))


def _costs(row: Row, objectives: Sequence[str]) -> tuple[float, ...]:
    """Return a trial's objectives as numbers of which less is better."""
    return tuple(-row[name] if more else row[name] for name, more in (studies.OBJECTIVES[one] for one in objectives))


def _beats(a: Sequence[float], b: Sequence[float]) -> bool:
    return a != b and all(x <= y for x, y in zip(a, b, strict=True))


def importances(study: "Study") -> dict[str, float]:
    """Return the share of each field in what made trials good, by Optuna (PED-ANOVA), largest first.

    Empty where fewer than two trials have finished. Of several objectives, the first one counts.
    """
    optuna = studies.import_optuna()
    done = [trial for trial in study.get_trials(deepcopy=False) if trial.state.name == "COMPLETE"]
    if len(done) < 2:
        return {}
    sign = 1.0 if study.directions[0].name == "MINIMIZE" else -1.0  # what is low is taken as good
    target = (lambda trial: sign * float(trial.values[0])) if len(study.directions) > 1 else None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # which says so
        found = optuna.importance.get_param_importances(study, target=target)
    return {name: float(value) for name, value in found.items()}


def saved_share(rows: Sequence[Row]) -> float:
    """Return the share of all trials' length that pruning left out; a trial that stopped early by itself is whole."""
    ended = [row for row in rows if row["state"] in ("finished", "pruned")]
    left = sum(1 - (row["share"] or 0.0) for row in ended if row["state"] == "pruned")
    return left / len(ended) if ended else 0.0


def write_recipe(folder: Path, out: Path, row: Row, settings: Mapping[str, Any]) -> None:
    """Write the choices of a trial as a TOML file that `gansmith train --config` takes."""
    import tomli_w

    choices = {name: value for name, value in settings["choices"].items() if name != "keep_last"}
    length = {name: value for name, value in settings["length"].items() if name in FIELDS}
    chosen = {"recipe": settings["recipe"], **choices, **length, **row["params"]}
    title = f"# trial {row['trial']} of {folder.name}: validation FD ratio {row['validation_fd_ratio']:.2f}\n"
    write_text(out, title.encode("ascii", "replace").decode() + tomli_w.dumps(chosen))


def require_best(rows: Sequence[Row], settings: Mapping[str, Any], folder: Path) -> Row:
    """Return the best trial; ConfigError where none has finished."""
    best = best_first(rows, settings)
    if not best:
        raise ConfigError(f"no trial in {folder} has finished, so there is no best one; let the sweep go on first")
    return best[0]


def counts(rows: Sequence[Row]) -> str:
    """Return how many trials ended in which way: 12 trials: 7 finished, 4 pruned, 1 failed."""
    states = [row["state"] for row in rows]
    parts = [f"{states.count(state)} {state}" for state in dict.fromkeys(sorted(states))]
    return f"{len(rows)} {'trial' if len(rows) == 1 else 'trials'}: {', '.join(parts)}" if rows else "no trials"


def to_table(rows: Sequence[Row], settings: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Return a header, and the rows as text."""
    names = list(settings["space"])
    header = ["trial", *names, "validation FD ratio", "images/s", "G parameters", "state"]
    cells = [
        [
            str(row["trial"]),
            *(_text(row["params"].get(name)) for name in names),
            "" if row["validation_fd_ratio"] is None else f"{row['validation_fd_ratio']:.2f}",
            "" if row["images_per_s"] is None else f"{row['images_per_s']:,.0f}",
            "" if row["g_parameters"] is None else f"{row['g_parameters']:,}",
            _state(row),
        ]
        for row in rows
    ]
    return header, cells


def _state(row: Row) -> str:
    if row["state"] == "pruned" and row["share"] is not None:
        return f"pruned after {row['share']:.0%}"
    return f"failed: {row['reason']}" if row["state"] == "failed" else str(row["state"])


def _text(value: Any) -> str:
    return "" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)


def write_sweep_report(folder: Path, out: Path, *, storage: str | None = None) -> None:
    """Write a report of a sweep as .html or .pdf: importance, history, slices, curves, best trials, failures."""
    facts = read_facts(folder)
    with opened_study(folder, storage=storage) as study:
        rows, shares = read_rows(study, folder), importances(study)
    blocks = compose(rows, shares, facts["settings"], folder, storage=facts["storage"])
    write_blocks(f"sweep {folder.name}", *blocks, out)


def compose(
    rows: Sequence[Row],
    shares: Mapping[str, float],
    settings: Mapping[str, Any],
    folder: Path,
    *,
    storage: str | None = None,
) -> tuple[list[dict[str, Any]], dict[str, bytes]]:
    """Return the blocks and pictures of a sweep's report; `storage` is where its trials are, if not in its folder."""
    pictures: dict[str, bytes] = {}
    blocks: list[dict[str, Any]] = [
        _heading("What was searched"),
        {"kind": "text", "text": f"{describe_settings(settings)}."},
        {"kind": "text", "text": f"{counts(rows)}. {saving(rows)}"},
        {"kind": "text", "text": _RATIO},
        _heading("Best trials"),
        _table(to_table(best_first(rows, settings)[:BEST], settings)),
    ]
    best = best_first(rows, settings)
    if best:
        blocks += _best(best[0], pictures)
        place = f" --storage {quoted(storage)}" if storage else ""
        command = f"gansmith sweep {quoted(folder)}{place} --best --out recipe.toml"
        blocks.append(
            {"kind": "text", "text": f"The best trial's choices as a file for `gansmith train --config`: {command}"}
        )
    drawn = {
        "objectives": "Finished trials by their first two objectives, each with its number.",
        "history": "Validation FD ratio of each trial and the best so far; pruned trials at their last ratio.",
        "importance": f"Share of each field in what made trials good (PED-ANOVA, arXiv:2304.10255).{_few(rows)}",
        "slices": "Validation FD ratio against the values of each field; later trials are darker.",
        "curves": "Validation FD ratio during each trial; pruned ones end early.",
    }
    for name, caption in drawn.items():
        picture = figures.FIGURES[name](rows, settings, shares)
        if picture is not None:
            pictures[f"{name}.png"] = picture
            blocks += [_heading(name.capitalize()), _pictures(f"{name}.png", caption)]
    blocks += [_heading("All trials"), _table(to_table(rows, settings))]
    return blocks, pictures


_RATIO = (
    "Validation FD ratio: Frechet distance between samples and validation images over that between as many training "
    "images and these; 1.00 is as close as other real images. Test images are never read by a sweep."
)


def _best(row: Row, pictures: dict[str, bytes]) -> list[dict[str, Any]]:
    """Return the sample grid of the best trial."""
    path = None if row["run"] is None else Path(row["run"]) / "grid.png"
    if path is None or not path.is_file():
        return []
    pictures["best.png"] = path.read_bytes()
    return [_pictures("best.png", f"Samples 0 to 24 of trial {row['trial']}; none was selected.", width=40)]


def saving(rows: Sequence[Row]) -> str:
    """Return a sentence on how much was not trained for pruning; empty where nothing was pruned."""
    return f"Pruning left out {saved_share(rows):.0%} of the training." if saved_share(rows) else ""


def _few(rows: Sequence[Row]) -> str:
    ended = sum(row["state"] in ("finished", "pruned") for row in rows)
    return f" Only {ended} trials have ended, too few to rely on it." if ended < FEW else ""


def _heading(text: str) -> dict[str, Any]:
    return {"kind": "heading", "level": 1, "text": text}


def _table(table: tuple[Sequence[str], Sequence[Sequence[str]]]) -> dict[str, Any]:
    rows = [[cell or "-" for cell in row] for row in table[1]]
    return {"kind": "table", "header": list(table[0]), "rows": rows}


def _pictures(name: str, alt: str, *, width: int = 90) -> dict[str, Any]:
    return {"kind": "pictures", "pictures": [{"name": name, "alt": alt, "width": width}]}
