"""What each technique of a recipe does: the recipe with it and without it, from the same seeds.

A technique is taken out by giving its field the neutral value, which is the default of `Config`. Every trial without
it is compared with the trial of the same seed with it, so what a lucky seed adds to both cancels.
"""

import json
import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from scipy.special import stdtrit

from gansmith.errors import GansmithError
from gansmith.benchmarks.trials import hash_of_images, judge_trial, refuse_other_images, train_trial
from gansmith.config import FIELDS, choose, resolve
from gansmith.data.images import ImageSpec
from gansmith.training.techniques import build_techniques
from gansmith.files import write_json, write_text
from gansmith.networks import build_networks

COMPLETE = "complete"


def neutral_fields(recipe: str, without: str, choices: Mapping[str, object]) -> dict[str, Any]:
    """The neutral value of each field in `without`, a name or several joined by +.

    Raises ValueError for a name that is no field, whose value in this recipe is neutral already, or that leaves
    choices which contradict each other.
    """
    config, _ = resolve(recipe, arguments=choices)
    found = {}
    for name in without.split("+"):
        neutral = choose(FIELDS, name, "field").default
        if getattr(config, name) == neutral:
            raise GansmithError(
                f"{name} is {neutral!r} in {recipe} already, so there is nothing to take out; leave it away"
            )
        found[name] = neutral
    config = config.replace(**found)
    if config.conditioning == "auto":
        config = config.replace(conditioning="labels")
    build_techniques(config, build_networks(config, ImageSpec(28, 1, 10))[1])  # refuses what cannot be taken out alone
    return found


def run_ablation(
    folder: Path,
    recipe: str,
    without: Sequence[str],
    *,
    seeds: int,
    length: Mapping[str, object],
    choices: Mapping[str, object],
    report: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Train and judge what the folder's ablation lacks, one run at a time; the ablation as its JSON file holds it.

    Args:
        without: each a field, or several joined by +, to take out.
        length: {"minutes": M} or {"images": N}.
        choices: fields that every trial is given.

    Raises ValueError for fields that cannot be taken out, or where the folder holds another ablation or one
    of other images.
    """
    if seeds < 2:
        raise GansmithError(f"seeds is {seeds}; an interval needs 2 or more, such as 3")
    variants: dict[str, dict[str, Any]] = {COMPLETE: {}} | {
        name: neutral_fields(recipe, name, choices) for name in without
    }
    settings: dict[str, Any] = {"recipe": recipe, **length, **choices}
    path = folder / "ablation.json"
    held: dict[str, Any] = (
        json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {"settings": settings, "trials": []}
    )
    if held["settings"] != settings:
        raise GansmithError(f"{folder} holds an ablation of {held['settings']}, not {settings}; give another --out")
    data_sha256 = hash_of_images(choices)
    refuse_other_images(held, data_sha256, named=f"{folder} holds an ablation")
    kept = {"settings": settings, "data_sha256": data_sha256}
    trials: list[dict[str, Any]] = held["trials"]
    for seed in range(seeds):
        for name, fields in variants.items():
            if any((trial["without"], trial["seed"]) == (name, seed) for trial in trials):
                continue
            report(f"{recipe} {name if name == COMPLETE else f'without {name}'}, seed {seed}")
            directory = folder / "runs" / f"{name.replace('+', '.')}-seed-{seed}"
            trained = train_trial(directory, recipe, {**length, **choices, **fields, "seed": seed})
            result = judge_trial(directory) if trained else {"ratio": None}
            trials.append({"without": name, "fields": fields, "seed": seed, **result})
            ablation = {**kept, "trials": trials, "rows": compare(trials)}
            write_json(path, ablation)
            write_text(folder / "ablation.md", to_markdown(ablation))
    return {**kept, "trials": trials, "rows": compare(trials)}


def compare(trials: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """One row a variant: its mean ratio, and how many times worse it is than the complete recipe with the same seed.

    `worse` is the geometric mean over seeds, `low` and `high` the ends of its 95 % interval by Student's t on
    logarithms: a technique helps where all of it lies above 1. None where fewer than two seeds can be compared.
    """
    by = {(trial["without"], trial["seed"]): trial["ratio"] for trial in trials}
    rows = []
    for name in dict.fromkeys(trial["without"] for trial in trials):
        ratios = {seed: ratio for (own, seed), ratio in by.items() if own == name}
        judged = [ratio for ratio in ratios.values() if ratio is not None]
        pairs = [(ratio, by.get((COMPLETE, seed))) for seed, ratio in ratios.items()]
        logs = [math.log(ratio / base) for ratio, base in pairs if ratio and base]
        row: dict[str, Any] = {"without": name, "seeds": len(ratios), "diverged": len(ratios) - len(judged)}
        row |= {"ratio": statistics.fmean(judged) if judged else None, "worse": None, "low": None, "high": None}
        if name != COMPLETE and len(logs) > 1:
            mean = statistics.fmean(logs)
            reach = stdtrit(len(logs) - 1, 0.975) * statistics.stdev(logs) / math.sqrt(len(logs))
            row |= {"worse": math.exp(mean), "low": math.exp(mean - reach), "high": math.exp(mean + reach)}
        rows.append(row)
    return rows


def to_markdown(ablation: Mapping[str, Any]) -> str:
    """The rows as a table."""
    settings = dict(ablation["settings"])
    recipe = settings.pop("recipe")
    given = ", ".join(f"{name} {value}" for name, value in settings.items())
    lines = [
        f"`{recipe}` with {given}. Times worse: the ratio without the technique over the ratio with it, same seeds, "
        "with a 95 % interval; above 1 the technique helps.",
        "",
        "| without | times real | times worse | seeds |",
        "|---|---|---|---|",
    ]
    for row in ablation["rows"]:
        ratio = "" if row["ratio"] is None else f"{row['ratio']:.2f}"
        worse = "" if row["worse"] is None else f"{row['worse']:.2f} ({row['low']:.2f} to {row['high']:.2f})"
        seeds = f"{row['seeds']}" + (f", {row['diverged']} diverged" if row["diverged"] else "")
        name = "nothing" if row["without"] == COMPLETE else f"`{row['without']}`"
        lines.append(f"| {name} | {ratio} | {worse} | {seeds} |")
    return "\n".join(lines) + "\n"
