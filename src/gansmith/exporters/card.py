"""The model card: what a generator is, what it was trained on, its scores, and a grid of samples to reproduce."""

from collections.abc import Collection
from pathlib import Path
from typing import Any

import tomli_w

from gansmith.exporters.graph import facts
from gansmith.files import without_folders
from gansmith.runs import RunDirectory, run_of
from gansmith.sampling import Model, sample, write_samples
from gansmith.signature import as_exported

COUNT, SEED = 25, 0
SCALE = "1.00 = as close as other real images"
NAMES = {
    "images_seen": "images seen",
    "fd_ratio": f"FD ratio ({SCALE})",
    "validation_fd_ratio": f"validation FD ratio ({SCALE})",
}


def write_card(folder: Path, model: Model, file: Path, formats: Collection[str]) -> None:
    """Write `model-card.md` and its `grid.png`.

    Args:
        file: the generator's; for a checkpoint of a run, the card has the run's data and scores too.
        formats: that the model was written in.
    """
    write_samples(*sample(model, seed=SEED, count=COUNT), folder / "grid.png")
    run = run_of(file)
    lines = ["# Model card", "", *_network(model), "", "## Data", ""]
    lines += _data(model, run)
    lines += ["", "## Scores", "", *_scores(run, file), "", "## Samples", "", "![25 unchosen samples](grid.png)", ""]
    lines += [f"Images 0 to {COUNT - 1} of seed {SEED}, not selected.{_again(formats)}", ""]
    lines += [
        "## Recipe",
        "",
        "```toml",
        *tomli_w.dumps(model.config.as_dict()).splitlines(),
        "```",
    ]
    (folder / "model-card.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


def _again(formats: Collection[str]) -> str:
    """Return how to draw the images of the card again from a file that was exported."""
    ending = next((name for name in ("safetensors", "onnx", "keras", "pt2") if name in formats), None)
    if ending is None:
        return ""
    exact = "on the same machine to the byte" if ending == "safetensors" else "but for rounding"
    command = f"gansmith sample generator.{ending} --count {COUNT} --seed {SEED} --out again.png"
    return f" The file alone reproduces them, {exact}:\n\n    {command}"


def _network(model: Model) -> list[str]:
    spec, config = model.spec, model.config
    texts = facts(as_exported(model))
    call, labels, drawn = "G(z)", "", "25"
    if "label" in texts:
        first = model.conditioning.known_labels[:2].tolist()
        call, labels, drawn = "G(z, label)", "labels are int32 (N, 1) and ", f"labels={first}"
    channels = "1 channel" if spec.channels == 1 else f"{spec.channels} channels"
    return [
        f"A generator of images, {spec.size}x{spec.size} in {channels}, trained by the recipe",
        f"`{config.recipe}` (network `{config.network}`, seed {config.seed}).",
        "",
        f"- Weights: {sum(values.numel() for values in model.network.state_dict().values()):,} numbers.",
        f"- {_conditioning(model)}",
        "",
        f"In ONNX, Keras and torch.export, `{call}`:",
        "",
        *(f"- `{name}`: {texts[name]}." for name in ("z", "label", "images") if name in texts),
        *(["- Class names: " + ", ".join(names) + "."] if (names := _class_names(model)) else []),
        "",
        f"In Keras, {labels}images are (N, H, W, C).",
        f"Gansmith reads each of these files, and its own safetensors: `gansmith.load(file).sample({drawn})`.",
    ]


def _class_names(model: Model) -> list[str]:
    """Return the names of the labels that the generator knows."""
    known = model.conditioning.known_labels.tolist()
    return [model.class_name(label) for label in known if label < len(model.class_names)]


def _conditioning(model: Model) -> str:
    count, each = len(model.conditioning), model.conditioning.ids_per_class
    if not model.conditioning.has_labels:
        if count == 1:
            return "Trained without labels."
        return f"Trained without labels, conditioned on {count:,} k-means clusters of the training images."
    known = len(model.conditioning.known_labels)
    return f"Trained with {known} {'label' if known == 1 else 'labels'}" + (
        f", each of {each} sub-clusters." if each > 1 else "."
    )


def _data(model: Model, run: RunDirectory | None) -> list[str]:
    data = run.facts().get("data", {}) if run else {}
    lines = [f"- Data set: `{model.config.data}`"]
    if all(name in data for name in ("source", "sha256", "train", "validation")):
        lines += [
            f"- Source: {_without_folders(data['source'])}",
            f"- SHA-256 of the training split: `{data['sha256']}`",
            f"- Trained on {data['train']:,} images; {data['validation']:,} held out.",
        ]
    return lines


def _without_folders(source: str) -> str:
    """Return the source without the folders of this machine, which are nobody's business."""
    return Path(source).name if Path(source).is_absolute() else " ".join(without_folders(source.split(" ")))


def _scores(run: RunDirectory | None, file: Path) -> list[str]:
    """Return a table of the last score or verdict up to the checkpoint, with the values of real images."""
    images_seen = int(file.resolve().parent.name) if run else 0
    rows = [row for row in run.metrics_on_own_data() if row["images_seen"] <= images_seen] if run else []
    if not rows:
        return ["Not evaluated."]
    last = max(reversed(rows), key=lambda row: row["images_seen"])  # the newest of the newest
    lines = ["| score | value | real images |", "|---|---|---|"]
    for key, value in last.items():
        if not isinstance(value, dict | list):
            lines.append(f"| {NAMES.get(key, key)} | {_text(value)} | |")
    for key, found in (last.get("metrics") or {}).items():
        lines.append(f"| {key} | {_text(found['value'])} | {_text(found['real'])} |")
    failed = [name for name, gate in (last.get("gates") or {}).items() if gate["ok"] is False]
    lines += [f"| failed gates | {', '.join(failed)} | |"] if failed else []
    is_older = last["images_seen"] < images_seen
    return lines + (["", f"These are of the checkpoint after {last['images_seen']:,} images."] if is_older else [])


def _text(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.4g}" if isinstance(value, float) else str(value)
