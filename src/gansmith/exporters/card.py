"""The model card: what a generator is, what it learnt from, how good it is, and a grid that anyone can draw again."""

from pathlib import Path
from typing import Any

from gansmith.pictures.grids import enlarge, grid
from gansmith.runs import RunDirectory, run_of
from gansmith.sampling import Model, sample

COUNT, SEED = 25, 0


def write_card(folder: Path, model: Model, file: Path) -> None:
    """Write `model-card.md` and its `grid.png`.

    Args:
        file: the generator's; where it lies in a run, the card tells of the run's data and scores too.
    """
    enlarge(grid(sample(model, seed=SEED, count=COUNT)[0])).save(folder / "grid.png")
    run = run_of(file)
    lines = ["# Model card", "", *_network(model), "", "## Data", ""]
    lines += _data(model, run)
    lines += ["", "## Scores", "", *_scores(run, file), "", "## Samples", "", "![25 unchosen samples](grid.png)", ""]
    lines += [
        f"Images 0 to {COUNT - 1} of seed {SEED}, none left out. The file alone draws them again, on the same machine",
        "to the byte:",
        "",
        f"    gansmith sample generator.safetensors --count {COUNT} --seed {SEED} --out grid.png",
        "",
        "## Recipe",
        "",
        "```toml",
        *model.config.to_toml().splitlines(),
        "```",
    ]
    (folder / "model-card.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


def _network(model: Model) -> list[str]:
    spec, config = model.spec, model.config
    latents = {"normal": "standard normal numbers", "uniform": "numbers, even between -1 and 1,"}
    shape = latents.get(config.latent_distribution, "numbers, even on the sphere of their root's radius,")
    labels = f"one of {spec.num_classes} labels"
    if (within := config.clusters_per_class) > 1:
        labels += f", as one of {within} numbers from {within} times the label on"
    told = {"labels": labels, "clusters": f"one of {config.clusters} clusters"}
    return [
        f"A generator of images, {spec.size}x{spec.size} in {spec.channels} channel{'s' * (spec.channels > 1)},",
        f"trained by the recipe `{config.recipe}` (network `{config.network}`, seed {config.seed}).",
        "",
        f"- Input: {config.latent_dim} {shape}"
        + (f" and {told[config.conditioning]}." if config.conditioning in told else "."),
        "- Output: pixels from -1 (black) to 1.",
        f"- Weights: {sum(values.numel() for values in model.network.state_dict().values()):,} numbers.",
    ]


def _data(model: Model, run: RunDirectory | None) -> list[str]:
    data = run.facts().get("data", {}) if run else {}
    lines = [f"- Set: `{model.config.data}`"]
    if data:
        lines += [
            f"- Source: {data['source']}",
            f"- SHA-256 of the training split: `{data['sha256']}`",
            f"- Trained on {data['train']:,} images; {data['validation']:,} held out.",
        ]
    return lines


def _scores(run: RunDirectory | None, file: Path) -> list[str]:
    """The last score or verdict up to the checkpoint, each figure beside what real images score."""
    images_seen = int(file.resolve().parent.name) if run else 0
    rows = [row for row in run.metrics_on_own_data() if row["images_seen"] <= images_seen] if run else []
    if not rows:
        return ["None were taken."]
    last = rows[-1]
    plain = {key: value for key, value in last.items() if not isinstance(value, dict | list)}
    lines = ["| what | value | real images |", "|---|---|---|"]
    lines += [f"| {key} | {_plain(value)} | |" for key, value in plain.items()]
    for key, found in (last.get("metrics") or {}).items():
        lines.append(f"| {key} | {_plain(found['value'])} | {_plain(found['real'])} |")
    failed = [name for name, gate in (last.get("gates") or {}).items() if gate["ok"] is False]
    return lines + ([f"| gates that fail | {', '.join(failed)} | |"] if failed else [])


def _plain(value: Any) -> str:
    return "" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)
