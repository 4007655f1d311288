"""The model card: what a generator is, what it was trained on, its scores, and a grid of samples to reproduce."""

from pathlib import Path
from typing import Any

import tomli_w

from gansmith.exporters.graph import facts
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


def write_card(folder: Path, model: Model, file: Path) -> None:
    """Write `model-card.md` and its `grid.png`.

    Args:
        file: the generator's; for a checkpoint of a run, the card has the run's data and scores too.
    """
    write_samples(*sample(model, seed=SEED, count=COUNT), folder / "grid.png")
    run = run_of(file)
    lines = ["# Model card", "", *_network(model), "", "## Data", ""]
    lines += _data(model, run)
    lines += ["", "## Scores", "", *_scores(run, file), "", "## Samples", "", "![25 unchosen samples](grid.png)", ""]
    lines += [
        f"Images 0 to {COUNT - 1} of seed {SEED}, not selected. The file alone reproduces them, on the same machine to",
        "the byte:",
        "",
        f"    gansmith sample generator.safetensors --count {COUNT} --seed {SEED} --out grid.png",
        "",
        "## Recipe",
        "",
        "```toml",
        *tomli_w.dumps(model.config.as_dict()).splitlines(),
        "```",
    ]
    (folder / "model-card.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


def _network(model: Model) -> list[str]:
    spec, config = model.spec, model.config
    texts = facts(as_exported(model))
    call, labels, drawn = "G(z)", "", "25"
    if "label" in texts:
        call, labels, drawn = "G(z, label)", "labels are int32 (N, 1) and ", "labels=[0, 1]"
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
        *(["- Class names: " + ", ".join(model.class_names) + "."] if model.class_names else []),
        "",
        f"In Keras, {labels}images are (N, H, W, C).",
        f"The safetensors file is Gansmith's own: `gansmith.load(file).sample({drawn})`.",
    ]


def _conditioning(model: Model) -> str:
    count, each = len(model.conditioning), model.conditioning.ids_per_class
    if count == 1:
        return "Trained without labels."
    if not model.conditioning.has_labels:
        return f"Trained without labels, conditioned on {count:,} k-means clusters of the training images."
    return f"Trained with {count // each} labels" + (f", each of {each} sub-clusters." if each > 1 else ".")


def _data(model: Model, run: RunDirectory | None) -> list[str]:
    data = run.facts().get("data", {}) if run else {}
    lines = [f"- Data set: `{model.config.data}`"]
    if data:
        lines += [
            f"- Source: {data['source']}",
            f"- SHA-256 of the training split: `{data['sha256']}`",
            f"- Trained on {data['train']:,} images; {data['validation']:,} held out.",
        ]
    return lines


def _scores(run: RunDirectory | None, file: Path) -> list[str]:
    """Return a table of the last score or verdict up to the checkpoint, with the values of real images."""
    images_seen = int(file.resolve().parent.name) if run else 0
    rows = [row for row in run.metrics_on_own_data() if row["images_seen"] <= images_seen] if run else []
    if not rows:
        return ["Not evaluated."]
    last = rows[-1]
    lines = ["| score | value | real images |", "|---|---|---|"]
    for key, value in last.items():
        if not isinstance(value, dict | list):
            lines.append(f"| {NAMES.get(key, key)} | {_text(value)} | |")
    for key, found in (last.get("metrics") or {}).items():
        lines.append(f"| {key} | {_text(found['value'])} | {_text(found['real'])} |")
    failed = [name for name, gate in (last.get("gates") or {}).items() if gate["ok"] is False]
    return lines + ([f"| failed gates | {', '.join(failed)} | |"] if failed else [])


def _text(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.4g}" if isinstance(value, float) else str(value)
