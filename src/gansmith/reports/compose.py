"""What a report says: blocks of text, tables and pictures from run directories.

A block is a dict with a "kind": heading (level, text), text, list (items), table (header, rows) or pictures (each
with name, alt and its width in percent of the page). All cells are text by the time they get here.
"""

import itertools
import math
import shlex
import statistics
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from PIL import Image

from gansmith.config import FIELDS, Config, is_repeat
from gansmith.data.image_files import open_picture
from gansmith.pictures.grids import enlarge, to_png
from gansmith.pictures.grids import grid
from gansmith.sampling import sample
from gansmith.models import load_generator
from gansmith.reports.structure import describe_run, draw_structure
from gansmith.runs import RunDirectory

Block = dict[str, Any]

# What every run must choose, in the order a reader asks.
_HYPERPARAMETERS = (
    "images", "batch", "network", "g_width", "d_width", "latent_dim", "objective", "update", "g_optimizer",
    "g_lr", "d_optimizer", "d_lr", "beta1", "beta2", "conditioning", "initialisation", "seed",
)  # fmt: skip
_TOLD = {"labels": "each image's label", "clusters": "a group of similar images, found beforehand without labels"}
FRAMES = 8  # moments of the training film on paper


def compose(runs: Sequence[RunDirectory]) -> tuple[str, list[Block], dict[str, bytes]]:
    """Title, blocks and PNG pictures of a report; the first run is shown in full, all of them are compared.

    Args:
        runs: at least one; none need be finished or have made a single picture.
    """
    main = runs[0]
    pictures: dict[str, bytes] = {}
    common = _common_count(runs)
    rows = [_summary(run, common) for run in runs]
    blocks = [
        *_question(main),
        _heading(1, "Experiments"),
        *_comparison(runs, rows),
        *_structures(main, pictures),
        *_hyperparameters(main.config),
        *_techniques(main.config),
        *_visualisation(main, pictures),
        *_scores(main),
        *_troubles(runs),
        *_environment(main, rows),
    ]
    return f"{main.config.recipe} on {main.config.data}", blocks, pictures


def _heading(level: int, text: str) -> Block:
    return {"kind": "heading", "level": level, "text": text}


def _text(text: str) -> Block:
    return {"kind": "text", "text": text}


def _table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> Block:
    return {"kind": "table", "header": list(header), "rows": [[_show(cell) for cell in row] for row in rows]}


def _show(value: object) -> str:
    """A value as a table shows it."""
    if value is None or value == "":
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def _meaning(field: str) -> str:
    text: str = FIELDS[field].metadata["help"]
    return text.partition(";")[0].replace("`", "")


def _question(run: RunDirectory) -> list[Block]:
    data, score = run.facts().get("data", {}), _verdict_row(run) or _last_score(run)
    if score is None:
        answer = "No score was recorded, so the question stays open."
    else:
        answer = (
            f"After {score['images_seen']:,} images the answer is {score['ratio']:.2f} times real: generated images "
            f"lie {score['ratio']:.2f} times as far from real images as other real images do (Frechet distance in a "
            f"small feature network, {score['n']:,} images a side). 1 would be as close as real images to each other."
        )
        if score.get("valid") is False:
            failed = [name for name, gate in score.get("gates", {}).items() if gate.get("ok") is False]
            answer += f" This headline does not count, because a check failed: {', '.join(failed)}."
    return [
        _heading(1, "Question and data"),
        _text(
            "How well does a small generative adversarial network, trained in the way described below, draw images "
            f"like those of {run.config.data}?"
        ),
        _text(answer),
        _text(
            f"It learned from {_show(data.get('fit'))} images; {_show(data.get('validation'))} others were held out to "
            f"judge it and never trained on. {_told(run.config)}"
        ),
        *(_text(f"Note: {notice}.") for notice in data.get("notices", ())),
        _text(f"SHA-256 of the training split: {data.get('sha256', 'not recorded')}"),
    ]


def _told(config: Config) -> str:
    """What labels had to do with it, in a sentence or two."""
    told = _TOLD.get(config.conditioning)
    if told is None:
        sentence = "The networks are told nothing."
    elif config.d_conditioning == "classifier":
        sentence = f"The generator is told {told}, and the discriminator has to name it."
    else:
        sentence = f"Both networks are told {told}."
    if config.classes:
        return f"Its images were chosen by their labels ({config.classes}). {sentence}"
    return sentence if config.conditioning == "labels" else f"No label is read. {sentence}"


def _last_score(run: RunDirectory, *, n: int | None = None) -> dict[str, Any] | None:
    """The newest score of the most images a side, or of `n`; scores of different counts do not compare."""
    rows = [row for row in run.validation_scores() if n in (None, row["n"])]
    return max(rows, key=lambda row: (row["n"], row["images_seen"]), default=None)


def _verdict_row(run: RunDirectory) -> dict[str, Any] | None:
    """What `gansmith evaluate` found last about the run's own data, of the most images; None where it found nothing."""
    rows = [row for row in reversed(run.metrics_on_own_data()) if row.get("gates") and row.get("ratio") is not None]
    return max(rows, key=lambda row: (row["n"], row["images_seen"]), default=None)  # the first of equals, so the newest


def _common_count(runs: Sequence[RunDirectory]) -> int | None:
    """The most images a side at which every run that has a score has one; None where there is no such number."""
    counts = [{row["n"] for row in run.validation_scores()} for run in runs]
    return max(set.intersection(*filter(None, counts)) if any(counts) else (), default=None)


def _summary(run: RunDirectory, n: int | None) -> dict[str, Any]:
    """What the tables of runs say of one run, scored with `n` images a side."""
    facts, log = run.facts(), run.log
    score = _last_score(run, n=n)
    return {
        "name": run.directory.resolve().name,
        "seed": run.config.seed,
        "images": max((row["images_seen"] for row in log), default=0),
        "minutes": _seconds(log) / 60,
        "ratio": score["ratio"] if score else None,
        "n": score["n"] if score else None,
        "status": facts.get("status", "never started"),
        "command": "; then ".join(shlex.join(start["command"]) for start in facts.get("starts", [])) or "not recorded",
    }


def _seconds(log: Sequence[dict[str, Any]]) -> float:
    """How long a run took, by the lines it kept: each start counts from zero."""
    elapsed_s: list[float] = [row["elapsed_s"] for row in log if row.get("elapsed_s")]
    return sum(last_s for last_s, next_s in itertools.pairwise([*elapsed_s, 0.0]) if next_s < last_s)


def _comparison(runs: Sequence[RunDirectory], rows: Sequence[dict[str, Any]]) -> list[Block]:
    """All runs, and before them, where there are several experiments, what each changed and what that did."""
    blocks = []
    lines = _experiments(runs, rows)
    if len(lines) > 1:
        blocks += [
            _heading(2, "What was tried"),
            _text(
                "Runs that differ by their seed alone repeat one experiment and share a line: mean, and half the "
                "distance between best and worst. The first line is the experiment shown in full below. An effect is a "
                "line's mean divided by the first one's: below 1, the change brought images closer to real ones."
            ),
            _table(
                ("experiment", "change", "images", "times real", "effect"),
                [(line["runs"], line["change"], line["images"], line["score"], line["effect"]) for line in lines],
            ),
            {"kind": "list", "items": [_verdict(line, lines[0]) for line in lines[1:]]},
        ]
    blocks += [
        _heading(2, "All runs"),
        _table(
            ("run", "seed", "images", "minutes", "times real", "images judged", "status"),
            [(r["name"], r["seed"], r["images"], f"{r['minutes']:.1f}", r["ratio"], r["n"], r["status"]) for r in rows],
        ),
    ]
    return blocks


def _experiments(runs: Sequence[RunDirectory], rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    groups: list[list[int]] = []
    for k, run in enumerate(runs):
        known = next((group for group in groups if is_repeat(run.config, runs[group[0]].config)), None)
        groups.append([k]) if known is None else known.append(k)
    lines: list[dict[str, Any]] = []
    for members in groups:
        ratios = [rows[k]["ratio"] for k in members if rows[k]["ratio"] is not None]
        mean = statistics.fmean(ratios) if ratios else None
        is_repeated = len(ratios) > 1
        spread = (max(ratios) - min(ratios)) / 2 if is_repeated else 0.0
        base = lines[0]["mean"] if lines else None
        lines.append(
            {
                "runs": ", ".join(rows[k]["name"] for k in members),
                "change": _change(runs[0].config, runs[members[0]].config) if lines else "as described",
                "images": max(rows[k]["images"] for k in members),
                "mean": mean,
                "spread": spread,
                "is_repeated": is_repeated,
                "score": None if mean is None else f"{mean:.2f}" + (f" +- {spread:.2f}" if is_repeated else ""),
                "effect": f"x {mean / base:.2g}" if mean and base else None,
            }
        )
    return lines


def _change(first: Config, other: Config) -> str:
    changed = [f"recipe {other.recipe}"] if other.recipe != first.recipe else []
    if not 0.75 <= other.images / first.images <= 1.25:
        changed.append(f"images {_show(first.images)} -> {_show(other.images)}")
    if changed and other.recipe != first.recipe:
        return ", ".join(changed)
    changed += [
        f"{name} {_show(getattr(first, name))} -> {_show(getattr(other, name))}"
        for name in FIELDS
        if not FIELDS[name].metadata["is_circumstance"] and getattr(first, name) != getattr(other, name)
    ]
    return ", ".join(changed)


def _verdict(line: dict[str, Any], first: dict[str, Any]) -> str:
    """What a change did, in one sentence; differences within the spread of repeats are not told as effects."""
    if line["mean"] is None or first["mean"] is None:
        return f"{line['change']}: no score, so nothing can be said."
    difference = line["mean"] - first["mean"]
    if not (line["is_repeated"] or first["is_repeated"]):
        verdict = "not repeated with other seeds, so it may be chance"
    elif abs(difference) <= line["spread"] + first["spread"]:
        verdict = "no clear difference"
    else:
        verdict = "helped" if difference < 0 else "did harm"
    length = (
        "" if line["images"] == first["images"] else f", but after {line['images']:,} images, not {first['images']:,}"
    )
    return (
        f"{line['change']}: {verdict}, {line['score']} against {first['score']} times real ({line['effect']}{length})."
    )


def _structures(run: RunDirectory, pictures: dict[str, bytes]) -> list[Block]:
    facts = describe_run(run)
    blocks = [_heading(2, "Structures")]
    for player in ("generator", "discriminator"):
        layers = facts[player]
        pictures[f"{player}.png"] = draw_structure(layers)
        ends = "latent to image" if player == "generator" else "image to logit"
        blocks += [
            _heading(3, f"The {player}, {facts[f'{player}_parameters']:,} parameters"),
            _pictures((f"{player}.png", f"Diagram of the {player}: sizes and channels from {ends}.", 100)),
            _table(
                ("layer", "kind", "output", "parameters"),
                [
                    (row["name"], row["kind"], " x ".join(map(str, row["shape"])) or "-", row["parameters"])
                    for row in layers
                ],
            ),
        ]
    return blocks


def _pictures(*shown: tuple[str, str, int]) -> Block:
    """Pictures side by side: (name, alternative text, width in percent of the page)."""
    return {"kind": "pictures", "pictures": [{"name": name, "alt": alt, "width": width} for name, alt, width in shown]}


def _hyperparameters(config: Config) -> list[Block]:
    rows = [(name, getattr(config, name), _meaning(name)) for name in _HYPERPARAMETERS]
    return [
        _heading(2, "Hyperparameters, losses, optimisers and first weights"),
        _table(("choice", "value", "meaning"), rows),
    ]


def _techniques(config: Config) -> list[Block]:
    used = [(name, value, _meaning(name)) for name, value in config.techniques().items()]
    if not used:
        return [_heading(1, "Special skills"), _text("No technique beyond the plain algorithm was used.")]
    return [
        _heading(1, "Special skills"),
        _text(
            "Techniques beyond the plain algorithm, with what each is for. What was tried, above, tells what changing "
            "them did wherever a run of this report does without."
        ),
        _table(("technique", "value", "what it does"), used),
    ]


def _visualisation(run: RunDirectory, pictures: dict[str, bytes]) -> list[Block]:
    from gansmith.pictures.plots import draw_curves

    blocks = [_heading(1, "Visualisation")]
    log = [row for row in run.log if row.get("d_loss") is not None]
    if log:
        pictures["loss.png"] = draw_curves(run)
        last = [_newest(log, name) for name in ("d_loss", "g_loss")]
        ends = f"At the end they are {last[0]:.2f} and {last[1]:.2f}."
        alt = f"Losses of discriminator and generator, and scores where there are any, against images seen. {ends}"
        blocks.append(_pictures(("loss.png", alt, 85)))
    grids = run.grids()
    if len(grids) > 1:
        frames = min(FRAMES, len(grids))
        chosen = [grids[k * (len(grids) - 1) // (frames - 1)] for k in range(frames)]
        pictures["film.png"] = _strip([path for _, path in chosen])
        seen = ", ".join(f"{images_seen:,}" for images_seen, _ in chosen)
        blocks.append(_pictures(("film.png", f"The same nine latents after {seen} images seen.", 100)))
    moments = sorted({grids[0], grids[len(grids) // 2], grids[-1]}) if grids else []
    for _, path in moments:
        pictures[path.name] = _png(path)
    if moments:
        captions = [(path.name, f"Samples after {images_seen:,} images seen.", 33) for images_seen, path in moments]
        blocks.append(_pictures(*captions))
    shown = []
    if (run.directory / "real.png").is_file():
        pictures["real.png"] = _png(run.directory / "real.png")
        shown.append(("real.png", "Real training images.", 40))
    if run.latest() is not None:  # drawn anew: a grid.png may be older than the newest checkpoint
        pictures["grid.png"] = to_png(enlarge(grid(sample(load_generator(run.directory), seed=0, count=25)[0])))
        shown.append(("grid.png", "25 samples of the newest checkpoint, seed 0, unfiltered.", 40))
    if shown:
        blocks.append(_pictures(*shown))
    if len(blocks) == 1:
        blocks.append(_text("The run stopped before it could draw anything."))
    return blocks


def _newest(log: Sequence[dict[str, Any]], name: str) -> float:
    """The last value there is; a player may rest for all of the last lines."""
    return next((row[name] for row in reversed(log) if row.get(name) is not None), math.nan)


def _png(path: Path) -> bytes:
    return to_png(enlarge(open_picture(path)))


def _strip(paths: Sequence[Path]) -> bytes:
    """The upper left part of each of these grids, three tiles by three, side by side."""
    corners = []
    for path in paths:
        grid = open_picture(path)
        side = min(grid.size) * 3 // 8  # a saved grid has eight rows
        corners.append(grid.crop((0, 0, side, side)).convert("RGB"))
    side = corners[0].width
    strip = Image.new("RGB", (len(corners) * (side + 4) - 4, side), "white")
    for k, corner in enumerate(corners):
        strip.paste(corner, (k * (side + 4), 0))
    return to_png(enlarge(strip, at_least_px=2 * side))


def _scores(run: RunDirectory) -> list[Block]:
    score = _verdict_row(run) or _last_score(run)
    if score is None:
        return [_heading(1, "Scores beside their floors"), _text("No score was recorded.")]
    blocks = [
        _heading(1, "Scores beside their floors"),
        _text(f"{score['ratio']:.3f} times real at {score['n']:,} images a side. A floor is what real images score."),
    ]
    if metrics := score.get("metrics"):
        rows = [(name, entry["value"], entry["floor"]) for name, entry in metrics.items()]
    else:
        rows = [("frechet", score.get("frechet"), score.get("floor"))]
    blocks.append(_table(("metric", "generated", "real (floor)"), rows))
    if gates := score.get("gates"):
        passed = {True: "passed", False: "FAILED", None: "not run"}
        gate_rows = [(name, passed[gate["ok"]], gate["meaning"]) for name, gate in gates.items()]
        blocks.append(_table(("check", "result", "meaning"), gate_rows))
    return blocks


def _troubles(runs: Sequence[RunDirectory]) -> list[Block]:
    items = [
        f"{run.directory.resolve().name}, after {row['images_seen']:,} images: {row['sentence']}"
        for run in runs
        for row in run.log
        if row.get("kind") in ("failure", "rollback")
    ]
    told = {"kind": "list", "items": items} if items else _text("None was noticed.")
    return [_heading(1, "Failures"), told]


def _environment(run: RunDirectory, rows: Sequence[dict[str, Any]]) -> list[Block]:
    facts = run.facts()
    machine = facts.get("machine", {})
    pairs = {
        **facts.get("versions", {}),
        "python": facts.get("python"),
        "processor": machine.get("processor"),
        "threads": machine.get("threads"),
        "started": next((start["at"] for start in facts.get("starts", [])), None),
    }
    return [
        _heading(1, "Environment and commands"),
        _table(("what", "value"), [(name, value) for name, value in pairs.items() if value is not None]),
        _table(("run", "command"), [(row["name"], row["command"]) for row in rows]),
        _text(f"Made by Gansmith {metadata.version('gansmith')} from the run directories alone."),
    ]
