"""`bench ...`: train a recipe on a published test and print the figures of its table."""

import contextlib
import itertools
import json as json_
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from gansmith.cli.output import Json, Whole, complain, print_table
from gansmith.cli.placement import ONE_AT_A_TIME, Placed
from gansmith.cli.training import Overrides, Progress, train
from gansmith.config import is_path, parse_value, resolve
from gansmith.errors import ConfigError

if TYPE_CHECKING:
    from gansmith.config import Config
    from gansmith.sampling import Model
    from gansmith.workers import Pool


def stacked_mnist(
    *,
    minutes: float | None = None,
    images: str | None = None,
    seed: Whole = 0,
    samples: Whole = 26_000,
    data_dir: Path | None = None,
    out: Path | None = None,
    progress: Progress = "auto",
    json: Json = False,
) -> int:
    """Train on triples of digits, unconditionally, and count the modes of the samples.

    Parameters
    ----------
    minutes
        Wall time to train for; counting takes some seconds more.
    images
        Training length instead; with neither, 500k.
    seed
        Seed of the training; the counted images are always drawn with seed 0.
    samples
        How many images to count; published tables use 26,000.
    data_dir
        Folder that holds MNIST's IDX files.
    out
        Run directory; one that holds this run already is continued, or only counted where it is finished.
    progress
        Live bar, plain lines, or one JSON object a line.
    json
        One JSON object instead of a table; progress goes to the other stream.
    """
    from gansmith.benchmarks.stacked_mnist import measure
    from gansmith.data.images import MAX_IMAGES
    from gansmith.sampling import sample

    if not 1 <= samples <= MAX_IMAGES:
        raise ConfigError(f"samples is {samples}; it must be between 1 and {MAX_IMAGES}, such as 26000")
    folder = str(data_dir) if data_dir else None
    flags = {"images": images, "seed": str(seed), "data_dir": folder}
    code, facts, model = _train("stacked", out, minutes, flags, progress, json)
    if model is None:
        return code
    drawn, _ = sample(model, seed=0, count=samples)
    result = {"benchmark": "stacked-mnist", **facts, **measure(drawn, data_dir=folder)}
    if json:
        print(json_.dumps(result))
        return 0
    _print_modes(result)
    _print_training(facts)
    return 0


def _print_modes(result: dict[str, Any]) -> None:
    """Print what was counted of samples and of real images, and what is expected of real ones."""
    from gansmith.benchmarks.stacked_mnist import MODES

    real, expected = result["real"], result["expected_kl"]
    rows = [
        (f"modes, of {MODES:,}", f"{result['modes']:,}", f"{real['modes']:,}", ""),
        ("KL to uniform, nats", f"{result['kl']:.4f}", f"{real['kl']:.4f}", f"{expected:.4f}"),
        ("of it, single digits", f"{result['kl_colours']:.4f}", f"{real['kl_colours']:.4f}", ""),
        ("KL above the expected one", f"{result['kl_above_expected']:.4f}", f"{real['kl'] - expected:.4f}", ""),
    ]
    print_table(("", "samples", "real", "expected"), rows)
    accuracy = result["classifier_accuracy"]
    known = "unknown: no test images" if accuracy is None else f"{accuracy:.2%} on MNIST's test images"
    print(f"{result['samples']:,} images counted by {result['classifier']} (accuracy {known})")


def gaussians(
    *,
    minutes: float | None = None,
    images: str | None = None,
    seed: Whole = 0,
    samples: Whole = 2_500,
    out: Path | None = None,
    progress: Progress = "auto",
    json: Json = False,
) -> int:
    """Train on eight Gaussians on a ring and on 25 on a grid, and count the modes of the samples.

    Parameters
    ----------
    minutes
        Wall time to train for, for each of the two.
    images
        Training length instead; with neither, 200k.
    seed
        Seed of the training; the counted images are always drawn with seed 0.
    samples
        How many images to count; published tables use 2,500.
    out
        Folder for the two run directories; runs that are there already are continued.
    progress
        Live bar, plain lines, or one JSON object a line.
    json
        One JSON object instead of a table; progress goes to the other stream.
    """
    from gansmith.benchmarks.gaussians import measure
    from gansmith.data.synthetic import CENTRES
    from gansmith.sampling import sample

    if not 1 <= samples <= 10_000:  # as many real ones are drawn for comparison
        raise ConfigError(f"samples is {samples}; it must be between 1 and 10000, such as 2500")
    results: dict[str, Any] = {}
    for data in CENTRES:
        flags = {"images": images, "seed": str(seed), "data": data}
        code, facts, model = _train("gaussians", out and out / data, minutes, flags, progress, json)
        if model is None:
            return code
        drawn, _ = sample(model, seed=0, count=samples)
        results[data] = {**facts, **measure(data, drawn)}
    if json:
        print(json_.dumps({"benchmark": "gaussians", **results}))
        return 0
    rows = [
        (data, f"{r['modes']} of {r['of']}", f"{r['high_quality']:.1%}", f"{r['real']['high_quality']:.1%}")
        for data, r in results.items()
    ]
    print_table(("data", "modes", "near a mode", "real"), rows)
    for result in results.values():
        _print_training(result)
    return 0


def losses(
    *,
    images: str | None = None,
    seeds: Whole | None = None,
    quick: Annotated[bool, Parameter(negative=())] = False,
    data: str = "mnist",
    data_dir: Path | None = None,
    out: Path = Path("runs/losses"),
    placement: Placed = ONE_AT_A_TIME,
    json: Json = False,
) -> int:
    """Train one generator with each of several objectives, an equal number of images each, and order them.

    The same command continues an interrupted comparison, and trains and evaluates only what is missing.

    Parameters
    ----------
    images
        Length of each training; by default 200k.
    seeds
        Trainings of each objective, with seeds from 0; by default 3.
    quick
        Evaluate 2,000 samples instead of 10,000.
    data
        Data set to train on and to compare with.
    data_dir
        Folder that holds its IDX files.
    out
        Folder for the run directories.
    json
        One JSON object instead of a table; progress goes to the other stream.
    """
    from gansmith.benchmarks.losses import IMAGES, RECIPE, SEEDS, order
    from gansmith.data import as_path
    from gansmith.workers import Interrupted

    seeds = SEEDS if seeds is None else seeds
    if seeds < 1:
        raise ConfigError(f"seeds is {seeds}; it must be 1 or more, such as 3")
    length = IMAGES if images is None else parse_value("images", images)
    data = data if data_dir else as_path(data)
    shared = {"images": length, "data": data, "data_dir": str(data_dir) if data_dir else None}
    flags = {name: value for name, value in shared.items() if value is not None}
    try:
        rows = order(_verdicts_of_losses(out, flags, seeds=seeds, quick=quick, pool=placement.open()))
    except Interrupted as stopped:
        complain(f"{stopped.in_words()}; the same command continues the comparison in {out}")
        return stopped.code
    if json:
        print(json_.dumps({"benchmark": "losses", "recipe": RECIPE, **shared, "objectives": rows}))
        return 0
    print_table(("objective", "FD ratio", "gates that failed in any seed"), [_line_of(row) for row in rows])
    print(f"{RECIPE} on {data}, {length:,} images each, {seeds} seeds, in {out}")
    return 0


def _line_of(row: Mapping[str, Any]) -> tuple[str, str, str]:
    """Return the cells of an objective."""
    from gansmith.evaluation import with_spread

    score, count = with_spread(row["fd_ratio"], row["spread"]) or "none", row["trainings_failed"]
    gates = ", ".join(row["failed"]) or ("none" if count < row["seeds"] else "no gate ran")
    return row["objective"], f"{score}; {count} of {row['seeds']} trainings failed" if count else score, gates


def _verdicts_of_losses(
    out: Path, flags: dict[str, Any], *, seeds: int, quick: bool, pool: "Pool"
) -> dict[str, list[dict[str, Any]]]:
    """Train and evaluate a run for each objective and seed; returns their verdicts by objective."""
    from gansmith.benchmarks.losses import OBJECTIVES_COMPARED, RECIPE
    from gansmith.benchmarks.trials import train_trials, trial_task, with_environment
    from gansmith.evaluation import compare
    from gansmith.runs import holds_run, open_run

    tasks = {}
    for seed, (name, choices) in itertools.product(range(seeds), OBJECTIVES_COMPARED.items()):
        directory = out / f"{name}-{seed}"
        given = with_environment({**flags, "seed": seed, **choices})
        if holds_run(directory):
            _refuse_other(directory, open_run(directory).config, given)
        tasks[name, seed] = trial_task(f"{name}, seed {seed}", directory, RECIPE, given, pool)
    verdicts: dict[str, list[dict[str, Any]]] = {name: [] for name in OBJECTIVES_COMPARED}
    for (name, seed), trained in train_trials(tasks, pool, complain, images=flags["images"]):
        failed: dict[str, Any] = {"fd_ratio": None, "gates": {}}
        directory = tasks[name, seed].directory
        verdicts[name].append(compare([directory], quick=quick)[0]["verdicts"][0] if trained else failed)
    return verdicts


def _refuse_other(directory: Path, config: "Config", given: Mapping[str, Any]) -> None:
    """Raise ConfigError where a run is of another comparison than the one that would go on with it."""
    if config.images > given["images"]:
        raise ConfigError(f"{directory} is longer than {given['images']:,} images; give another --out")
    wanted = resolve(config.recipe, arguments=given)
    has_name = not is_path(str(given.get("data", "")))  # else the images may have given themselves another one
    held, asked = (
        (Path(one.data_dir).expanduser().resolve() if one.data_dir else None, one.data if has_name else "")
        for one in (config, wanted)
    )
    if held != asked:
        raise ConfigError(
            f"{directory} is a run on {config.data_dir or config.data}, and not on "
            f"{wanted.data_dir or wanted.data}; give another --out"
        )


def _train(
    recipe: str,
    out: Path | None,
    minutes: float | None,
    flags: dict[str, str | None],
    progress: Progress,
    json: bool,
) -> tuple[int, dict[str, Any], "Model | None"]:
    """Train as the command `train` does; returns its exit code, facts of the run, and the generator if it is done."""
    from gansmith.models import load_generator
    from gansmith.runs import next_directory, open_run

    given = {name: value for name, value in flags.items() if value is not None}
    directory = out or next_directory(Path("runs"), resolve(recipe, arguments=given))
    started_at = time.perf_counter()
    with contextlib.redirect_stdout(sys.stderr) if json else contextlib.nullcontext():
        code = train(recipe, minutes=minutes, out=directory, progress=progress, overrides=Overrides(**given))
    if code:
        return code, {}, None
    run = open_run(directory)
    seen = int(run.latest().name)  # type: ignore[union-attr]
    facts = {
        "run": str(directory),
        "recipe": recipe,
        "seed": run.config.seed,
        "images": seen,
        "minutes": round((time.perf_counter() - started_at) / 60, 2),
    }
    return 0, facts, load_generator(directory)


def _print_training(facts: dict[str, Any]) -> None:
    print(f"{facts['run']}: seed {facts['seed']}, {facts['images']:,} images, {facts['minutes']} minutes just now")
