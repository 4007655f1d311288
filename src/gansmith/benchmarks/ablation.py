"""Ablations: what each technique of a recipe does, by training with it and without it, from the same seeds.

A technique is taken out by giving its field the neutral value, which is the default of `Config`. Every trial without
it is compared with the trial of the same seed with it, so that effects of the seed cancel.
"""

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from scipy.special import stdtrit

from gansmith.benchmarks.trials import (
    hash_of_images,
    open_table,
    score_trial,
    shared_choices,
    train_trials,
    trial_task,
)  # fmt: skip
from gansmith.config import FIELDS, resolve, unknown_field
from gansmith.data.images import ImageSpec
from gansmith.errors import ConfigError
from gansmith.evaluation import over_seeds, with_spread
from gansmith.files import write_json, write_text
from gansmith.networks import build_networks
from gansmith.training.techniques import build_techniques
from gansmith.workers import LocalPool, Pool

COMPLETE = "complete"


def neutral_fields(recipe: str, without: str, choices: Mapping[str, object]) -> dict[str, Any]:
    """Return the neutral value of each field in `without`, a name or several joined by +.

    Raises ConfigError for a name that is no field, whose value in this recipe is neutral already, or that leaves
    choices which contradict each other.
    """
    config = resolve(recipe, arguments=choices)
    found = {}
    for name in without.split("+"):
        if name not in FIELDS:
            raise ConfigError(unknown_field(name))
        neutral = FIELDS[name].default
        if getattr(config, name) == neutral:
            raise ConfigError(f"{name} is {neutral!r} in {recipe} already, so there is nothing to take out; omit it")
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
    pool: Pool | None = None,
    report: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Train and score what the folder's ablation lacks; returns it as its JSON file holds it.

    Args:
        without: each a field, or several joined by +, to take out.
        length: {"minutes": M} or {"images": N}.
        choices: fields that every trial is given.
        pool: where the runs are trained; one at a time on this machine by default.

    Raises ConfigError for fields that cannot be taken out, RunError where the folder holds another ablation or one of
    other images.
    """
    if seeds < 2:
        raise ConfigError(f"seeds is {seeds}; an interval needs 2 or more, such as 3")
    choices = shared_choices([recipe], choices)
    variants: dict[str, dict[str, Any]] = {COMPLETE: {}} | {
        name: neutral_fields(recipe, name, choices) for name in without
    }
    settings: dict[str, Any] = {"recipe": recipe, **length, **choices}
    path = folder / "ablation.json"
    held = open_table(path, settings, what="an ablation", data_sha256=hash_of_images(choices))
    trials: list[dict[str, Any]] = held["trials"]
    known = {(trial["without"], trial["seed"]) for trial in trials}
    pool, tasks = pool or LocalPool(), {}
    for seed in range(seeds):
        for name, fields in variants.items():
            if (name, seed) not in known:
                directory = folder / "runs" / f"{name.replace('+', '.')}-seed-{seed}"
                title = f"{recipe} {name if name == COMPLETE else f'without {name}'}, seed {seed}"
                flags = {**length, **choices, **fields, "seed": seed}
                tasks[name, seed] = trial_task(title, directory, recipe, flags, pool)
    for (name, seed), trained in train_trials(tasks, pool, report):
        directory = tasks[name, seed].directory
        result = score_trial(directory, held["data_sha256"]) if trained else {"validation_fd_ratio": None}
        trials.append({"without": name, "fields": variants[name], "seed": seed, **result})
        ablation = {**held, "rows": compare(trials)}
        write_json(path, ablation)
        write_text(folder / "ablation.md", to_markdown(ablation))
    return {**held, "rows": compare(trials)}


def compare(trials: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return a row for each variant: its mean validation FD ratio, and how many times worse it is than with all.

    `spread` is the standard deviation over seeds. `worse` is the geometric mean over seeds of the ratio to the complete
    recipe with the same seed, `low` and `high` the ends of its 95 % interval by Student's t on logarithms: a technique
    helps where all of it lies above 1. None where fewer than two seeds can be compared.
    """
    scores = {(trial["without"], trial["seed"]): trial["validation_fd_ratio"] for trial in trials}
    rows = []
    for name in dict.fromkeys(trial["without"] for trial in trials):
        own = {seed: score for (without, seed), score in scores.items() if without == name}
        pairs = [(score, scores.get((COMPLETE, seed))) for seed, score in own.items()]
        logs = [math.log(score / complete) for score, complete in pairs if score and complete]
        mean, spread = over_seeds(own.values())
        failed = sum(score is None for score in own.values())
        row: dict[str, Any] = {"without": name, "seeds": len(own), "failed": failed}
        row |= {"validation_fd_ratio": mean, "spread": spread, "worse": None, "low": None, "high": None}
        if name != COMPLETE and len(logs) > 1:
            middle = statistics.fmean(logs)
            reach = stdtrit(len(logs) - 1, 0.975) * statistics.stdev(logs) / math.sqrt(len(logs))
            row |= {"worse": math.exp(middle), "low": math.exp(middle - reach), "high": math.exp(middle + reach)}
        rows.append(row)
    return rows


def to_table(ablation: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Return a header, and the rows as text."""
    rows = []
    for row in ablation["rows"]:
        ratio = with_spread(row["validation_fd_ratio"], row["spread"])
        worse = "" if row["worse"] is None else f"{row['worse']:.2f} ({row['low']:.2f} to {row['high']:.2f})"
        seeds = f"{row['seeds']}, {row['failed']} failed" if row["failed"] else f"{row['seeds']}"
        rows.append(["nothing" if row["without"] == COMPLETE else row["without"], ratio, worse, seeds])
    return ["without", "validation FD ratio", "times worse", "seeds"], rows


def to_markdown(ablation: Mapping[str, Any]) -> str:
    """Return the rows as a table."""
    settings = dict(ablation["settings"])
    recipe = settings.pop("recipe")
    given = ", ".join(f"{name} {value}" for name, value in settings.items())
    header, rows = to_table(ablation)
    lines = [
        f"`{recipe}` with {given}. Validation FD ratio: mean +- standard deviation over seeds. Times worse: the ratio "
        "without the technique over the ratio with it, same seeds, with a 95 % interval; above 1 the technique helps.",
        "",
        f"| {' | '.join(header)} |",
        "|" + "---|" * len(header),
    ]
    for name, *cells in rows:
        lines.append(f"| {' | '.join([name if name == 'nothing' else f'`{name}`', *cells])} |")
    return "\n".join(lines) + "\n"
