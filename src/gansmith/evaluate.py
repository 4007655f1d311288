"""Judging what exists: a run, a generator file, or images that another program wrote.

`evaluate` finds the samples and the real images, and lets `metrics.protocol` judge; `compare` does so for several and
groups those that differ in their seed alone.
"""

import statistics
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from gansmith.config import Config, is_repeat
from gansmith.data import Images, load_data, split
from gansmith.data.files import read_images
from gansmith.data.idx import cache_dir
from gansmith.generate import find_model, load_model, sample
from gansmith.metrics import gates
from gansmith.metrics.features import SHIPPED, FeatureNetwork, load_evaluators
from gansmith.metrics.learn import learned_network
from gansmith.metrics.protocol import FULL, QUICK, Real, judge
from gansmith.metrics.reference import load_references
from gansmith.runs import run_of


def evaluate(
    target: Path | str,
    *,
    dataset: str | None = None,
    data_dir: Path | str | None = None,
    count: int | None = None,
    quick: bool = False,
    seed: int = 0,
) -> dict[str, Any]:
    """The verdict on a target as one JSON object; where it belongs to a run, the run's metrics.jsonl gets it too.

    Args:
        target: a run (its newest checkpoint), a checkpoint, a generator file, a .npz of images or a folder of them.
        dataset: the real images to compare with; by default those the generator learnt, MNIST for images from files.
        count: samples to draw, or at most so many of a file's; by default 10,000, or 2,000 for the quick tier.
        seed: samples 0 to count - 1 of this seed are drawn.

    Raises ValueError or FileNotFoundError for a target or data that cannot be judged.
    """
    target = Path(target)
    count = count or (QUICK if quick else FULL)
    checkpoint = _checkpoint(target) if is_generator(target) else None
    run = None if checkpoint is None else run_of(checkpoint)
    notices = []
    if checkpoint is None:
        samples = read_images(target).shuffled(count)
    else:
        model = load_model(checkpoint)
        if run is not None and dataset is None:  # another set lies in another folder
            data_dir = data_dir or run.config.data_dir or None
        if model.config.use_all_training_images:
            notices.append("it learnt from the validation images too, so copies of these are not looked for")
        dataset = dataset or model.config.dataset
        pixels, labels = sample(model, seed=seed, count=count)
        samples = Images("samples", pixels, labels if model.is_labelled else None, f"samples of seed {seed}")
    real = load_real(dataset or "mnist", data_dir=data_dir)
    networks = find_evaluators(real)
    row = {
        "target": str(target),
        "images_seen": _images_seen(checkpoint),
        "tier": "quick" if quick else "full",
        "dataset": real.fit.name,
        "count": count,
        "seed": None if checkpoint is None else seed,
        **judge(_as_grey(samples, real.fit), real, networks, quick=quick).as_dict(),
        "hashes": {
            "samples": samples.sha256,
            "validation": real.validation.sha256,
            "test": None if real.test is None else real.test.sha256,
        },
    }
    row["notices"] = [*real.fit.notices, *samples.notices, *notices, *row["notices"]]
    if run is not None:
        try:
            run.append(run.metrics_path, {key: value for key, value in row.items() if key != "target"})
        except OSError as error:
            row["notices"].append(f"the verdict could not be kept in {run.metrics_path} ({error.strerror})")
    return row


def load_real(dataset: str, *, data_dir: Path | str | None = None) -> Real:
    """The three disjoint parts of a data set, and what ships about it where these are the official images."""
    images = load_data(dataset, data_dir=data_dir)
    fit, validation = split(images)
    try:
        test = load_data(dataset, data_dir=data_dir, split="test")
    except FileNotFoundError:
        test = None
    known = SHIPPED[dataset].data if dataset in SHIPPED else ()
    is_official = images.sha256 in known and (test is None or test.sha256 in known)
    return Real(fit, validation, test, load_references(dataset, images.spec) if is_official else {})


def find_evaluators(real: Real) -> dict[str, FeatureNetwork]:
    """The networks that judge a data set; where none ships and labels exist, one is trained once and kept."""
    networks = load_evaluators(real.fit)
    if "trained" in networks or real.fit.labels is None:
        return networks
    path = cache_dir("evaluators") / f"{real.fit.sha256[:16]}.safetensors"
    return {"trained": learned_network(real.fit, real.validation, path), **networks}


def compare(targets: Sequence[Path], *, again: bool = False, **choices: Any) -> list[dict[str, Any]]:
    """Verdicts on several targets, those of runs that differ in their seed alone together, best first.

    Args:
        again: judge also what a run's metrics.jsonl holds a verdict of this protocol on.
        choices: as of `evaluate`.

    Returns:
        Groups {"name", "targets", "ratio", "spread", "ratios", "valid", "failed", "metrics", "verdicts"}: means over
        the group; the spread is the standard deviation of the ratio, None for one target.
    """
    groups: list[tuple[list[Config], list[dict[str, Any]]]] = []
    for target in targets:
        row = (None if again else _known_verdict(target, **choices)) or evaluate(target, **choices)
        config, row = _config_of(target), {**row, "target": str(target)}
        for configs, rows in groups:
            seeds = [known.seed for known in configs]
            if config and seeds and config.seed not in seeds and is_repeat(config, configs[0]):
                configs.append(config)
                rows.append(row)
                break
        else:
            groups.append(([] if config is None else [config], [row]))
    found = [_summary(rows) for _, rows in groups]
    return sorted(found, key=lambda group: (group["ratio"] is None, group["ratio"]))


def _summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    def means(field: str) -> dict[str, float]:
        """Of what every row has as a number."""
        values = [{name: _value(found) for name, found in row[field].items()} for row in rows]
        names = [name for name in values[0] if all(one.get(name) is not None for one in values)]
        return {name: statistics.fmean(one[name] for one in values) for name in names}

    ratios = [row["ratio"] for row in rows if row["ratio"] is not None]
    return {
        "name": " ".join(Path(row["target"]).name for row in rows),
        "targets": [row["target"] for row in rows],
        "ratio": statistics.fmean(ratios) if ratios else None,
        "spread": statistics.stdev(ratios) if len(ratios) > 1 else None,
        "ratios": means("ratios"),
        "valid": all(row["valid"] for row in rows),
        "failed": sorted({name for row in rows for name, gate in row["gates"].items() if gate["ok"] is False}),
        "metrics": means("metrics"),
        "verdicts": rows,
    }


def _value(found: Any) -> Any:
    return found["value"] if isinstance(found, dict) else found


def _config_of(target: Path) -> Config | None:
    """What a run was trained with; None for files, which say too little of how they came to be."""
    run = run_of(_checkpoint(target)) if is_generator(target) else None
    return None if run is None else run.config


def _known_verdict(
    target: Path, *, dataset: str | None = None, data_dir: Path | None = None, quick: bool = False, **choices: Any
) -> dict[str, Any] | None:
    """The newest verdict on a run's checkpoint by this protocol, the default choices, and the data at hand."""
    checkpoint = _checkpoint(target) if is_generator(target) else None
    run = None if checkpoint is None else run_of(checkpoint)
    if run is None or dataset or data_dir or any(choices.values()):
        return None
    wanted = {
        "tier": "quick" if quick else "full",
        "images_seen": _images_seen(checkpoint),
        "protocol": gates.VERSION,
        "count": QUICK if quick else FULL,
        "seed": 0,
    }
    rows = [row for row in run.metrics() if wanted.items() <= row.items()]
    if not rows:
        return None
    real = load_real(run.config.dataset, data_dir=run.config.data_dir or None)
    now = {"validation": real.validation.sha256, "test": None if real.test is None else real.test.sha256}
    return rows[-1] if now.items() <= rows[-1]["hashes"].items() else None


def is_generator(target: Path) -> bool:
    """Whether a target is a run, a checkpoint or a generator file; FileNotFoundError where there is nothing."""
    if not target.exists():
        raise FileNotFoundError(
            f"there is no {str(target)!r}; give a run, a generator.safetensors, a .npz or a folder of images"
        )
    if target.is_dir():
        return any((target / name).is_file() for name in ("config.toml", "generator.safetensors"))
    return target.suffix in (".safetensors", ".onnx", ".json", ".h5")


def _checkpoint(target: Path) -> Path:
    """The generator file of a target, its newest where it is a run."""
    return find_model(target).resolve()


def _images_seen(checkpoint: Path | None) -> int | None:
    name = "" if checkpoint is None else checkpoint.parent.name
    return int(name) if name.isdecimal() else None


def _as_grey(samples: Images, fit: Images) -> Images:
    """Colour samples whose channels agree everywhere, where the real images are grey."""
    if samples.pixels.shape[1] == 3 and fit.pixels.shape[1] == 1 and (samples.pixels == samples.pixels[:, :1]).all():
        return replace(samples, pixels=samples.pixels[:, :1].contiguous())
    return samples
