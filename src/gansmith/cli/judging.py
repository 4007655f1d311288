"""`evaluate` and `compare`: how good images are, beside what real images score."""

from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from gansmith.cli.output import Json

Flag = Annotated[bool, Parameter(negative=())]


def evaluate(
    target: Path,
    /,
    *,
    dataset: str | None = None,
    data_dir: Path | None = None,
    count: int | None = None,
    quick: Flag = False,
    seed: int = 0,
    json: Json = False,
) -> int:
    """Measure samples beside real images, and say whether the headline counts.

    Parameters
    ----------
    target
        Run directory, checkpoint, generator.safetensors, .npz of images, or folder of PNGs.
    dataset
        Real images to compare with; by default those the generator learnt, mnist for files.
    data_dir
        Folder that holds those images.
    count
        Samples; 10,000 by default, 2,000 with --quick.
    quick
        Fewer samples and metrics, in seconds.
    seed
        Which samples of a generator.
    json
        One JSON object instead of a table.
    """
    _check(count, seed)
    from gansmith.evaluate import evaluate as judge
    from gansmith.runs import to_json

    row = judge(target, dataset=dataset, data_dir=data_dir, count=count, quick=quick, seed=seed)
    print(to_json(row)) if json else _print_verdict(row)
    return 0


def compare(
    *targets: Path,
    dataset: str | None = None,
    data_dir: Path | None = None,
    count: int | None = None,
    quick: Flag = False,
    seed: int = 0,
    again: Flag = False,
    json: Json = False,
) -> int:
    """Judge several runs or files side by side; runs that differ in their seed alone share a row.

    Parameters
    ----------
    targets
        Runs, checkpoints, generator files, .npz of images, or folders of PNGs.
    dataset
        Real images to compare with; by default those each run learnt.
    data_dir
        Folder that holds those images.
    count
        Samples of each; 10,000 by default, 2,000 with --quick.
    quick
        Fewer samples and metrics, in seconds.
    seed
        Which samples of a generator.
    again
        Judge also runs whose metrics.jsonl holds a verdict already.
    json
        One JSON object instead of a table.
    """
    if not targets:
        raise ValueError("there is nothing to compare; give two or more runs or files")
    _check(count, seed)
    from gansmith.evaluate import compare as compare_targets
    from gansmith.runs import to_json

    groups = compare_targets(
        targets, dataset=dataset, data_dir=data_dir, count=count, quick=quick, seed=seed, again=again
    )
    print(to_json({"groups": groups})) if json else _print_groups(groups)
    return 0


def _check(count: int | None, seed: int) -> None:
    if count is not None and not 1 <= count <= 1_000_000:
        raise ValueError(f"count is {count}; it must be between 1 and 1000000, such as 10000")
    if seed < 0:
        raise ValueError(f"seed is {seed}; it must be 0 or more")


def _print_verdict(row: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console(width=None if Console().is_terminal else 110, highlight=False)
    table = Table("metric", "samples", "real images", box=None, pad_edge=False)
    for name, found in row["metrics"].items():
        table.add_row(name, _number(found["value"]), _number(found["floor"]))
    console.print(_origin(row), markup=False, soft_wrap=True)
    console.print()
    console.print(table)
    console.print()
    for name, gate in row["gates"].items():
        console.print(_gate_line(name, gate), markup=False)
    for notice in row["notices"]:
        console.print(f"note: {notice}", markup=False)
    console.print()
    console.print(headline(row), markup=False)


def _origin(row: dict[str, Any]) -> str:
    """What was judged, beside what."""
    drawn = "" if row["seed"] is None else f" of seed {row['seed']}"
    age = "" if row["images_seen"] is None else f" after {row['images_seen']:,} images"
    return f"{row['target']}{age}: {row['n']:,} samples{drawn} beside {row['dataset']}, {row['tier']} tier"


def headline(row: dict[str, Any]) -> str:
    """One sentence: the ratio, how it was measured, and whether it counts."""
    failed = [name for name, gate in row["gates"].items() if gate["ok"] is False]
    if row["ratio"] is None:
        text = f"{row['metrics']['kid_z']['value']:.1f} spreads from real" if "kid_z" in row["metrics"] else "no score"
    else:
        parts = ", ".join(f"{name} {ratio:.2f}" for name, ratio in row["ratios"].items())
        text = f"{row['ratio']:.2f} times real ({parts}; {row['n']:,} samples)"
    unchecked = [name for name, gate in row["gates"].items() if gate["ok"] is None]
    if failed:
        reasons = "; ".join(f"{name}: {row['gates'][name]['meaning']}" for name in failed)
        return f"INVALID: {text}, but {reasons}"
    return text + (f"; not checked: {', '.join(unchecked)}" if unchecked else "")


def _gate_line(name: str, gate: dict[str, Any]) -> str:
    if gate["ok"] is None:
        return f"{'not run':<8} {name:<15} {gate['meaning']}"
    word = "pass" if gate["ok"] else "FAIL"
    bound = f"{gate['figure']} {_number(gate['value'])}, limit {_number(gate['limit'])}"
    return f"{word:<8} {name:<15} {bound}" + ("" if gate["ok"] else f": {gate['meaning']}")


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"


def _print_groups(groups: list[dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    console = Console(width=None if Console().is_terminal else 140, highlight=False)
    evaluators = list(dict.fromkeys(name for group in groups for name in group["ratios"]))
    table = Table("targets", "seeds", "times real", *evaluators, "data", "samples", "verdict", box=None, pad_edge=False)
    measured = set()
    for group in groups:
        first = group["verdicts"][0]
        measured.add((first["dataset"], first["n"]))
        spread = "" if group["spread"] is None else f" +- {group['spread']:.2f}"
        table.add_row(
            escape(group["name"]),
            str(len(group["targets"])),
            "none" if group["ratio"] is None else f"{group['ratio']:.2f}{spread}",
            *(_number(group["ratios"].get(name)) for name in evaluators),
            first["dataset"],
            f"{first['n']:,}",
            "valid" if group["valid"] else "INVALID: " + (", ".join(group["failed"]) or "no gate ran"),
        )
    console.print(table)
    if len(measured) > 1:
        console.print("note: ratios of different data, or of different numbers of samples, do not compare")
