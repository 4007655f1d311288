"""The contents of a report: blocks of text, tables and pictures from run directories.

A block is a dict with a "kind": heading (level, text), text, list (items), table (header, rows) or pictures (each
with name, alt and its width in percent of the page). All cells are text by the time they get here.
"""

import itertools
import math
import shlex
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from PIL import Image

from gansmith.config import FIELDS, Config, is_as_long
from gansmith.data.image_files import open_picture
from gansmith.evaluation import Trained, group_repeats, over_seeds, with_spread
from gansmith.models import load_generator
from gansmith.pictures.grids import enlarge, grid, to_png
from gansmith.pictures.plots import class_rows, draw_classes, draw_curves
from gansmith.reports.structure import describe_run, draw_structure
from gansmith.runs import RunDirectory, short_names
from gansmith.sampling import sample
from gansmith.training.conflicts import used_techniques
from gansmith.training.diagnosis import summarise
from gansmith.verdicts import Verdict, caution_about

Block = dict[str, Any]

_NO_HYPERPARAMETERS = ("Machine", "Logs, samples, checkpoints")  # groups of fields
FRAMES = 8  # of the training film on paper


def compose(runs: Sequence[RunDirectory]) -> tuple[str, list[Block], dict[str, bytes]]:
    """Return title, blocks and PNG pictures of a report; the first run is shown in full, all of them are compared.

    Args:
        runs: at least one; none need be finished or have made a single picture.
    """
    main = runs[0]
    pictures: dict[str, bytes] = {}
    common = _common_count(runs)
    names = short_names([run.directory for run in runs])
    rows = [_summary(run, common) | {"name": name} for run, name in zip(runs, names, strict=True)]
    lines = _experiments(runs, rows)
    blocks = [
        *_question(main),
        _heading(1, "Experiments"),
        *_comparison(rows, lines),
        *_structures(main, pictures),
        *_hyperparameters(main.config),
        *_techniques(main.config, is_compared=len(lines) > 1),
        *_visualisation(main, pictures),
        *_scores(main),
        *_failures(runs, names),
        *_environment(main, rows),
    ]
    return f"{main.config.recipe} on {main.config.data}", blocks, pictures


def _heading(level: int, text: str) -> Block:
    return {"kind": "heading", "level": level, "text": text}


def _text(text: str) -> Block:
    return {"kind": "text", "text": text}


def _table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> Block:
    return {"kind": "table", "header": list(header), "rows": [[_to_text(cell) for cell in row] for row in rows]}


def _to_text(value: object) -> str:
    """Return a value as a table shows it."""
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
    facts, score = run.facts(), _last_verdict(run) or _last_score(run)
    data = facts.get("data", {})
    return [
        _heading(1, "Question and data"),
        _text(
            "How well does a small generative adversarial network, trained in the way described below, generate images "
            f"like those of {run.config.data}?"
        ),
        _text(
            "No FD ratio was recorded, so the question stays open."
            if score is None
            else f"{_answer(score)}{_since(run, score)}"
        ),
        _text(
            f"It was trained on {_to_text(data.get('train'))} images; held out for validation and never trained "
            f"on: {_to_text(data.get('validation'))}. {_conditioning(run)}"
        ),
        *(_text(f"Note: {notice}.") for notice in (*data.get("notices", ()), *_first_weights(facts))),
        _text(f"SHA-256 of the training images: {data.get('sha256', 'not recorded')}"),
    ]


def _first_weights(facts: dict[str, Any]) -> list[str]:
    """Return what G and D took from another run, a sentence each."""
    taken: list[str] = facts.get("start_from", {}).get("taken", [])
    return taken


def _answer(score: dict[str, Any]) -> str:
    """Return what a verdict or a validation FD ratio says, in a few sentences."""
    if score.get("gates") and score["fd_ratio"] is None:
        return f"After {score['images_seen']:,} images the evaluation says: {Verdict(score).headline()}."
    kind, ratio = _ratio_of(score)
    compared = "validation and test images" if kind == "FD ratio" else "training and validation images"
    answer = (
        f"After {score['images_seen']:,} images the answer is: {kind} {ratio:.2f}. The Frechet distance (FD) between "
        f"generated and real images in a small feature network is {ratio:.2f} times that between {compared} "
        f"({score['n']:,} samples); 1.00 is as close as other real images."
    )
    if score.get("valid") is False:
        failed = [name for name, gate in score.get("gates", {}).items() if gate.get("ok") is False]
        reason = f"these gates failed: {', '.join(failed)}" if failed else "no gate ran"
        answer += f" This FD ratio is not valid, because {reason}."
    if kind != "FD ratio" and (caution := caution_about(score["n"])):
        answer += f" {caution[0].upper()}{caution[1:]}."
    return answer


def _conditioning(run: RunDirectory) -> str:
    """Return what G and D are conditioned on, and what labels were used for, in a sentence or two."""
    config = run.config
    y = {"labels": "class labels", "clusters": "k-means clusters as pseudo-labels"}.get(config.conditioning)
    if y is None:
        sentence = "G and D are unconditional."
    elif config.d_conditioning == "classifier":
        sentence = f"G is conditioned on {y}, and D has an auxiliary classifier that predicts them."
    else:
        sentence = f"G and D are conditioned on {y}."
    if config.classes:
        return f"Its images were chosen by their labels ({config.classes}). {sentence}"
    if config.conditioning == "labels":
        return sentence
    used = run.facts().get("start_from", {}).get("used_labels") if config.start_from else False
    none = {
        True: "No labels are used but by the weights that it began with.",
        None: "No labels are used; whether the weights that it began with used any is not recorded.",
    }.get(used, "No labels are used.")
    return f"{none} {sentence}"


def _ratio_of(score: dict[str, Any]) -> tuple[str, float]:
    """Return the name and the value of a verdict's FD ratio, or of training's validation FD ratio."""
    if score.get("fd_ratio") is not None:
        return "FD ratio", score["fd_ratio"]
    return "validation FD ratio", score["validation_fd_ratio"]


def _last_score(run: RunDirectory, *, n: int | None = None) -> dict[str, Any] | None:
    """Return the newest validation FD ratio of the most images, or of `n`; ratios of different n do not compare."""
    rows = [row for row in run.validation_scores() if n in (None, row["n"])]
    return max(rows, key=lambda row: (row["n"], row["images_seen"]), default=None)


def _last_verdict(run: RunDirectory) -> dict[str, Any] | None:
    """Return the newest verdict on the run's own data, of the most images; None where it was never evaluated."""
    rows = [row for row in reversed(run.metrics_on_own_data()) if row.get("gates")]
    return max(rows, key=lambda row: (row["n"], row["images_seen"]), default=None)  # the first of equals, so the newest


def _common_count(runs: Sequence[RunDirectory]) -> int | None:
    """Return the most images for which every run that has a score has one; None where there is no such number."""
    counts = [{row["n"] for row in run.validation_scores()} for run in runs]
    return max(set.intersection(*filter(None, counts)) if any(counts) else (), default=None)


def _summary(run: RunDirectory, n: int | None) -> dict[str, Any]:
    """Return what the tables of runs say of one run, its score being that of `n` images."""
    facts, log = run.facts(), run.log
    score = _last_score(run, n=n)
    return {
        "seed": run.config.seed,
        "images": max([run.images_seen, *(row["images_seen"] for row in log)]),
        "minutes": _seconds(log) / 60,
        "validation_fd_ratio": score["validation_fd_ratio"] if score else None,
        "n": score["n"] if score else None,
        "evaluators": frozenset(score.get("ratios", ())) if score else None,
        "status": run.status if facts else "never started",
        "command": "; then ".join(shlex.join(start["command"]) for start in facts.get("starts", [])) or "not recorded",
    }


def _seconds(log: Sequence[dict[str, Any]]) -> float:
    """Return how long a run took, by the lines of its log: each start counts from zero."""
    elapsed_s: list[float] = [row["elapsed_s"] for row in log if row.get("elapsed_s")]
    return sum(last_s for last_s, next_s in itertools.pairwise([*elapsed_s, 0.0]) if next_s < last_s)


def _comparison(rows: Sequence[dict[str, Any]], lines: Sequence[dict[str, Any]]) -> list[Block]:
    """Return a table of all runs, and before it, where there are several experiments, what each changed and did."""
    blocks = []
    if len(lines) > 1:
        blocks += [
            _heading(2, "What was tried"),
            _text(
                "Runs that differ by their seed alone repeat one experiment and share a line: mean +- standard "
                "deviation over seeds. The first line is the experiment shown in full below. An effect is a line's "
                "mean divided by the first one's: below 1, the change brought images closer to real ones. It counts "
                "where the means differ by more than both standard deviations together, which without any effect "
                "happens in one case of five with two seeds each, and of twelve with three."
            ),
            _table(
                ("experiment", "change", "images", "validation FD ratio", "effect"),
                [(line["runs"], line["change"], line["images"], line["score"], line["effect"]) for line in lines],
            ),
            {"kind": "list", "items": [_conclusion(line, lines[0]) for line in lines[1:]]},
        ]
    header = ("run", "seed", "images", "minutes", "validation FD ratio", "images compared", "status")
    cells = [
        (r["name"], r["seed"], r["images"], f"{r['minutes']:.1f}", r["validation_fd_ratio"], r["n"], r["status"])
        for r in rows
    ]
    return [*blocks, _heading(2, "All runs"), _table(header, cells)]


def _experiments(runs: Sequence[RunDirectory], rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return a line for each group of runs that differ in their seed alone, that of the first run first."""
    lines: list[dict[str, Any]] = []
    trained = [Trained.of(run, row["images"]) for run, row in zip(runs, rows, strict=True)]
    for members in group_repeats(trained):
        mean, spread = over_seeds(rows[k]["validation_fd_ratio"] for k in members)
        first, counts = trained[members[0]], {rows[k]["n"] for k in members} - {None}
        evaluators = {rows[k]["evaluators"] for k in members} - {None}
        others = "" if first.images == trained[0].images else "on other images"
        if len(counts | (lines[0]["counts"] if lines else set())) > 1:
            others = others or "of different numbers of images"
        if len(evaluators | (lines[0]["evaluators"] if lines else set())) > 1:
            others = others or "by different evaluators"
        if len(evaluators) > 1:
            mean = spread = None
        base = lines[0]["mean"] if lines and not others else None
        lines.append(
            {
                "runs": ", ".join(rows[k]["name"] for k in members),
                "change": _change(trained[0], first) if lines else "as described",
                "counts": counts,
                "evaluators": evaluators,
                "others": others,
                "repeats": sum(rows[k]["validation_fd_ratio"] is not None for k in members),
                "images": max(rows[k]["images"] for k in members),
                "mean": mean,
                "spread": spread,
                "score": with_spread(mean, spread),
                "effect": f"x {mean / base:.2g}" if mean and base else None,
            }
        )
    return lines


def _change(before: Trained, after: Trained) -> str:
    """Return what another experiment chose differently; a recipe's name stands for all of its fields."""
    first, other = before.config, after.config
    changed = [f"recipe {other.recipe}"] if other.recipe != first.recipe else []
    if not is_as_long(other.images, first.images):
        changed.append(f"images {_to_text(first.images)} -> {_to_text(other.images)}")
    elif not is_as_long(after.images_seen, before.images_seen):
        changed.append(f"trained for {_to_text(after.images_seen)} of {_to_text(other.images)} images")
    if after.images != before.images and other.data == first.data:
        changed.append("other training images")
    if other.recipe != first.recipe:
        return ", ".join([*changed, *(f"{name} {_to_text(getattr(other, name))}" for name in _chosen(other))])
    changed += [
        f"{name} {_to_text(getattr(first, name))} -> {_to_text(getattr(other, name))}"
        for name in FIELDS
        if not FIELDS[name].metadata["is_circumstance"] and getattr(first, name) != getattr(other, name)
        if name != "schedule_images" or not is_as_long(other.schedule_length, first.schedule_length)
    ]
    return ", ".join(changed) or "none (the same seed again)"


def _chosen(config: Config) -> list[str]:
    """Return the hyperparameters that neither the recipe nor the data chose."""
    return [
        name
        for name, field in FIELDS.items()
        if config.origins.get(name, "recipe") != "recipe"
        and name not in ("data", "data_dir", "images", "recipe", "seed")
        and not field.metadata["is_circumstance"]
    ]


def _conclusion(line: dict[str, Any], first: dict[str, Any]) -> str:
    """Return what a change did, in one sentence; a difference within the spread over seeds is no effect."""
    if line["others"]:
        return f"{line['change']}: validation FD ratios {line['others']} do not compare."
    if line["mean"] is None or first["mean"] is None:
        return f"{line['change']}: no validation FD ratio, so nothing can be said."
    difference = line["mean"] - first["mean"]
    if min(line["repeats"], first["repeats"]) < 2:
        found = "not repeated with other seeds, so it may be chance"
    elif abs(difference) <= (line["spread"] or 0.0) + (first["spread"] or 0.0):
        found = "no clear difference"
    else:
        found = "helped" if difference < 0 else "did harm"
    length = "" if line["images"] == first["images"] else f", after {line['images']:,} images, not {first['images']:,}"
    return (
        f"{line['change']}: {found}, validation FD ratio {line['score']} against {first['score']} "
        f"({line['effect']}{length})."
    )


def _structures(run: RunDirectory, pictures: dict[str, bytes]) -> list[Block]:
    facts = describe_run(run)
    blocks = [_heading(2, "Structures")]
    for network, one in (("generator", "g"), ("discriminator", "d")):
        layers = facts[f"{one}_layers"]
        pictures[f"{network}.png"] = draw_structure(layers)
        ends = "latent to image" if network == "generator" else "image to logit"
        blocks += [
            _heading(3, f"The {network}, {facts[f'{one}_parameters']:,} parameters"),
            _pictures((f"{network}.png", f"Diagram of the {network}: sizes and channels from {ends}.", 100)),
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
    """Return a block of pictures side by side: (name, alternative text, width in percent of the page)."""
    return {"kind": "pictures", "pictures": [{"name": name, "alt": alt, "width": width} for name, alt, width in shown]}


def _hyperparameters(config: Config) -> list[Block]:
    rows = [(name, getattr(config, name), _meaning(name)) for name in FIELDS if _is_hyperparameter(config, name)]
    return [
        _heading(2, "Hyperparameters, losses, optimisers and weight initialisation"),
        _table(("field", "value", "meaning"), rows),
    ]


def _is_hyperparameter(config: Config, name: str) -> bool:
    """Return whether every run has to choose a field: all but techniques and circumstances that are left open.

    A technique for which a network has its own default, such as the weight initialisation, is always chosen.
    """
    field = FIELDS[name].metadata
    if field["group"] in _NO_HYPERPARAMETERS or (name == "clusters" and config.conditioning != "clusters"):
        return False
    if field["technique"]:
        return "default" in field["choices"]
    return bool(getattr(config, name)) or not field["may_change"]


def _techniques(config: Config, *, is_compared: bool) -> list[Block]:
    used = [(name, value, _meaning(name)) for name, value in used_techniques(config).items()]
    if not used:
        return [_heading(1, "Special skills"), _text("No technique beyond the plain algorithm was used.")]
    return [
        _heading(1, "Special skills"),
        _text(
            "Techniques beyond the plain algorithm, with what each is for."
            + (' "What was tried", above, compares runs without some of them.' if is_compared else "")
        ),
        _table(("technique", "value", "what it does"), used),
    ]


def _visualisation(run: RunDirectory, pictures: dict[str, bytes]) -> list[Block]:
    shown = [*_curves(run, pictures), *_grids(run, pictures), *_samples(run, pictures)]
    return [_heading(1, "Visualisation"), *(shown or [_text("The run stopped before it could draw anything.")])]


def _curves(run: RunDirectory, pictures: dict[str, bytes]) -> list[Block]:
    """Return the plot of the run's losses and validation FD ratios."""
    log = [row for row in run.log if row.get("d_loss") is not None]
    if not log:
        return []
    pictures["loss.png"] = draw_curves(run)
    d_loss, g_loss = _newest(log, "d_loss"), _newest(log, "g_loss")
    alt = (
        "Losses of discriminator and generator, and validation FD ratios where there are any, against images seen. At "
        f"the end the losses are {d_loss:.2f} and {g_loss:.2f}."
    )
    return [_pictures(("loss.png", alt, 85))]


def _grids(run: RunDirectory, pictures: dict[str, bytes]) -> list[Block]:
    """Return the training film as a strip, and the first, the middle and the last grid."""
    grids, blocks = run.grids(), []
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
    return blocks


def _samples(run: RunDirectory, pictures: dict[str, bytes]) -> list[Block]:
    """Return real images beside samples, and a row of samples for each class."""
    shown, blocks = [], []
    if (run.directory / "real.png").is_file():
        pictures["real.png"] = _png(run.directory / "real.png")
        shown.append(("real.png", "Real training images.", 40))
    if run.latest() is not None:  # a grid.png on disk may be older than the newest checkpoint
        model = load_generator(run.directory)
        pictures["grid.png"] = to_png(enlarge(grid(sample(model, seed=0, count=25)[0])))
        shown.append(("grid.png", "25 samples of the newest checkpoint, seed 0, unfiltered.", 40))
        if model.conditioning.has_labels:
            pictures["classes.png"] = to_png(draw_classes(model, seed=0))
            shown_rows, known = class_rows(model).tolist(), int((model.conditioning.label_shares.sum(1) > 0).sum())
            names = ", ".join(model.class_name(label) for label in shown_rows)
            most = len(shown_rows)
            which = "each class" if most == known else f"the {most} most frequent of {known} classes"
            alt = f"Samples of {which}, a row each: {names}. The images of a column share a latent."
            blocks.append(_pictures(("classes.png", alt, 60)))
    return [_pictures(*shown), *blocks] if shown else []


def _newest(log: Sequence[dict[str, Any]], name: str) -> float:
    """Return the last value there is; G or D may skip all steps of the last lines."""
    return next((row[name] for row in reversed(log) if row.get(name) is not None), math.nan)


def _png(path: Path) -> bytes:
    return to_png(enlarge(open_picture(path)))


def _strip(paths: Sequence[Path]) -> bytes:
    """Return the upper left part of each of these grids, three tiles by three, side by side."""
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


def _since(run: RunDirectory, verdict: dict[str, Any]) -> str:
    """Return a sentence where a run was trained on, and scored, after its verdict."""
    score = _last_score(run)
    if score is None or score["images_seen"] <= verdict["images_seen"]:
        return ""
    return (
        f" Since then the run has gone on: validation FD ratio {score['validation_fd_ratio']:.2f} after "
        f"{score['images_seen']:,} images; evaluate it again."
    )


def _scores(run: RunDirectory) -> list[Block]:
    score = _last_verdict(run) or _last_score(run)
    heading = _heading(1, "Evaluation")
    if score is None:
        return [heading, _text("No FD ratio was recorded.")]
    if not score.get("gates"):
        ratio, of = score["validation_fd_ratio"], f"{score['n']:,} samples"
        said = f"validation FD ratio {ratio:.3f}, {of}. 1.00 is as close as other real images."
        rows = [("fd", score.get("fd"), score.get("fd_real"))]
        return [heading, _text(said), _table(("metric", "samples", "real images"), rows)]
    rows = [(name, found["value"], found["real"]) for name, found in score["metrics"].items()]
    gates = [(name, result, why) for result, name, why in Verdict(score).gate_rows()]
    return [
        heading,
        _text(f"After {score['images_seen']:,} images: {Verdict(score).headline()}.{_since(run, score)}"),
        *(_text(f"Note: {notice}.") for notice in score.get("notices", ())),
        _table(("metric", "samples", "real images"), rows),
        _table(("gate", "result", "measured"), gates),
    ]


def _failures(runs: Sequence[RunDirectory], names: Sequence[str]) -> list[Block]:
    items: list[str] = []
    for run, name in zip(runs, names, strict=True):
        rows = run.log
        rollbacks = [row["message"] for row in rows if row.get("kind") == "rollback"]
        messages = [*summarise(rows, run.validation_scores(), run.config).values(), *rollbacks]
        items += [f"{name}: {message}" for message in messages]
    found = {"kind": "list", "items": items} if items else _text("None was found.")
    return [_heading(1, "Training failures"), found]


def _environment(run: RunDirectory, rows: Sequence[dict[str, Any]]) -> list[Block]:
    facts = run.facts()
    machine = facts.get("machine", {})
    pairs = {
        **facts.get("versions", {}),
        "python": facts.get("python"),
        "processor": machine.get("processor"),
        "threads": machine.get("threads"),
        "accelerator": machine.get("device"),
        "processes": machine.get("processes"),
        "precision": run.config.precision,
        "started": next((start["at"] for start in facts.get("starts", [])), None),
    }
    return [
        _heading(1, "Environment and commands"),
        _table(("what", "value"), [(name, value) for name, value in pairs.items() if value is not None]),
        _table(("run", "command"), [(row["name"], row["command"]) for row in rows]),
        _text(f"Made by Gansmith {metadata.version('gansmith')} from the run directories alone."),
    ]
