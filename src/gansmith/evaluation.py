"""Evaluation of what exists: a run, a generator file, or images that another program wrote.

`evaluate` finds the samples and the real images for `metrics.protocol`; `compare` does so for several and groups those
that differ in their seed alone.
"""

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from gansmith.config import Config, is_repeat
from gansmith.data import load_data
from gansmith.data.image_files import holds_own_arrays, read_npz
from gansmith.data.images import Images, split
from gansmith.data.pictures import PictureSource, look_around
from gansmith.data.prepare import Preparation
from gansmith.data.sources import as_prepared, load_source, open_source
from gansmith.errors import ConfigError, NotFoundError
from gansmith.metrics import gates
from gansmith.metrics.evaluators import find_evaluators
from gansmith.metrics.features import SHIPPED
from gansmith.metrics.inception import Layers, fid_of, load_inception
from gansmith.metrics.protocol import FULL, QUICK, Real, evaluate_samples
from gansmith.metrics.reference import load_references
from gansmith.models import find_generator, is_generator, load_generator
from gansmith.runs import RunDirectory, run_of
from gansmith.sampling import Model, sample
from gansmith.training.inputs import preparation
from gansmith.verdicts import Comparison, Verdict


def evaluate(
    target: Path | str,
    *,
    data: str | Images | None = None,
    data_dir: Path | str | None = None,
    count: int | None = None,
    quick: bool = False,
    seed: int = 0,
    fid: bool = False,
    fid_weights: Path | str | None = None,
    num_classes: int | None = None,
) -> Verdict:
    """Return the verdict on a target as one JSON object, and append it to metrics.jsonl where the target is a run's.

    Args:
        target: a run (its newest checkpoint), a checkpoint, a generator file, a .npz of images or a folder of them.
        data: the real images to compare with; by default those the generator was trained on, MNIST for files.
        count: samples to draw, or at most so many of a file's; by default 10,000, or 2,000 for the quick tier.
        seed: samples 0 to count - 1 of this seed are drawn.
        fid: measure also the FID of Inception v3 against all training images, see `inception`.
        fid_weights: the file of its weights; by default the cached one, downloaded first where there is none.
        num_classes: as of `models.load_generator`.

    Raises GansmithError for a target or data that cannot be evaluated.
    """
    target = Path(target)
    layers = load_inception(None if fid_weights is None else Path(fid_weights)) if fid or fid_weights else None
    count = count or (QUICK if quick else FULL)
    checkpoint = _checkpoint(target) if is_generator(target) else None
    run = None if checkpoint is None else run_of(checkpoint)
    notices: list[str] = []
    model, samples = None, None
    if checkpoint is not None:
        model = load_generator(checkpoint, num_classes=num_classes)
        if run is not None and data is None:  # another data set is in another folder
            data_dir = data_dir or run.config.data_dir or None
        if model.config.use_all_training_images:
            notices.append("it was also trained on the validation images, so copies of those are not detected")
        data = data or model.config.data
        samples = _draw(model, seed=seed, count=count)
    elif num_classes is not None:
        raise ConfigError(f"num_classes is of a generator, and {target} holds images; omit it")
    how = Preparation() if model is None else preparation(model.config)
    real = load_real(data or "mnist", data_dir=data_dir, how=how)
    if samples is None:
        samples = read_samples(target, real.train).shuffled(count)
    row = {
        "target": str(target),
        "images_seen": _images_seen(checkpoint),
        "tier": "quick" if quick else "full",
        "count": count,
        "seed": None if checkpoint is None else seed,
        **_measure(_as_grey(samples, real.train), real, notices, quick=quick, layers=layers),
    }
    if run is not None:
        _save(run, row)
    return Verdict(row)


def _measure(
    samples: Images, real: Real, notices: Sequence[str], *, quick: bool, layers: Layers | None
) -> dict[str, Any]:
    """Return what a verdict says of samples and of what they are compared with; the FID where its layers are given."""
    row = evaluate_samples(samples, real, find_evaluators(real.train), quick=quick).as_dict()
    row["notices"] = [*real.train.notices, *samples.notices, *notices, *row["notices"]]
    if layers is not None:
        row["metrics"]["fid"] = {"value": fid_of(samples, (real.train, real.validation), layers), "real": None}
        row["notices"].append(
            f"fid: {len(samples):,} samples against all {len(real.train) + len(real.validation):,} training images, "
            "Inception v3 of 2015-12-05; papers take 50,000 samples (--count 50000)"
        )
    hashes = {
        "samples": samples.sha256,
        "validation": real.validation.sha256,
        "test": None if real.test is None else real.test.sha256,
    }
    return {"data": real.train.name, **row, "hashes": hashes}


def _draw(model: Model, *, seed: int, count: int) -> Images:
    """Return samples with the labels they were drawn for, and what was decided about the generator's file."""
    pixels, labels = sample(model, seed=seed, count=count)
    known = labels if model.conditioning.has_labels else None
    return Images(pixels, known, name="samples", source=f"samples of seed {seed}", notices=model.notices)


def _save(run: RunDirectory, row: dict[str, Any]) -> None:
    """Append a verdict to a run's metrics.jsonl, or note why it could not be."""
    try:
        run.append(run.metrics_path, {key: value for key, value in row.items() if key != "target"})
    except OSError as error:
        row["notices"].append(f"the verdict could not be saved in {run.metrics_path} ({error.strerror})")


def load_real(data: str | Images, *, data_dir: Path | str | None = None, how: Preparation | None = None) -> Real:
    """Return the three disjoint splits of a data set, with the shipped references where it is the official one."""
    if isinstance(data, Images):
        return Real(*split(data), None)
    images = load_data(data, data_dir=data_dir, how=how)
    train, validation = split(images)
    try:
        test = load_data(data, data_dir=data_dir, part="test", how=how)
    except NotFoundError:
        test = None
    known = SHIPPED[images.name].data if images.name in SHIPPED else ()
    is_official = images.sha256 in known and (test is None or test.sha256 in known)
    return Real(train, validation, test, load_references(images.name, images.spec) if is_official else {})


def read_samples(path: Path, real: Images) -> Images:
    """Return the images in a file or folder, in the size and color of the real ones, with a notice of what was done.

    Folders named after the real images' classes get their numbers.
    """
    if not path.exists():
        raise NotFoundError(f"there is no file or folder {str(path)!r}; give a .npz, an archive or a folder of images")
    if path.suffix == ".npz" and holds_own_arrays(path):
        samples = read_npz(path)
    else:
        color = "rgb" if real.spec.channels == 3 else "auto"
        source = open_source(path)
        size = _common_side(source) if isinstance(source, PictureSource) else 0
        samples = load_source(source, Preparation(size, color=color), name=path.stem)
    samples = _with_labels_of(samples, real)
    size = real.spec.size
    if samples.spec.size == size:
        return samples
    border = (samples.spec.size - size) // 2
    inner = samples.pixels[..., border : border + size, border : border + size] if border > 0 else samples.pixels
    is_padded = border > 0 and int(samples.pixels.sum(dtype=torch.int64)) == int(inner.sum(dtype=torch.int64))
    if is_padded:
        done = f"their black border of {border} pixels was cut off"
        pixels = inner.contiguous()
    else:
        done = f"they were resized from {samples.spec.size} to {size} pixels, which changes how sharp they are"
        pixels = as_prepared(samples, Preparation(size=size)).pixels
    return replace(samples, pixels=pixels, notices=(*samples.notices, done))


def _common_side(source: PictureSource) -> int:
    """Return the side of square pictures of one size, which are read as they are; 0 for others."""
    sides = {side for look in look_around(source) for side in (look.width, look.height)}
    return sides.pop() if len(sides) == 1 and 4 <= min(sides) <= 1024 else 0


def _with_labels_of(samples: Images, real: Images) -> Images:
    """Return samples whose class folders, where they are named as the real classes, have the real classes' numbers."""
    numbers = {name: number for number, name in enumerate(real.class_names)}
    if samples.labels is None or not samples.class_names or not numbers.keys() >= set(samples.class_names):
        return samples
    table = torch.tensor([numbers[name] for name in samples.class_names])
    return replace(samples, labels=table[samples.labels], class_names=real.class_names)


def compare(
    targets: Sequence[Path], *, again: bool = False, in_memory: Mapping[Path, Images] | None = None, **choices: Any
) -> Comparison:
    """Return verdicts on several targets, those of runs that differ in their seed alone together, best first.

    Args:
        again: evaluate also runs whose metrics.jsonl has a verdict of this protocol.
        in_memory: the images of each target that was trained on images in memory.
        choices: as of `evaluate`.

    Returns:
        Groups {"name", "targets", "fd_ratio", "spread", "fd_ratios", "valid", "failed", "metrics", "verdicts"}: means
        over the group; the spread is the standard deviation of the FD ratio, None for one target.
    """
    rows, configs = [], []
    for target in targets:
        images = (in_memory or {}).get(target)
        row = None if again else _known_verdict(target, images, **choices)
        row = row or evaluate(target, **choices | ({} if images is None else {"data": images}))
        rows.append({**row, "target": str(target)})
        configs.append(_config_of(target))
    found = [_summary([rows[k] for k in group]) for group in group_by_seed(configs)]
    return Comparison(sorted(found, key=lambda group: (group["fd_ratio"] is None, group["fd_ratio"])))


def group_by_seed(configs: Sequence[Config | None]) -> list[list[int]]:
    """Return the indices of these configs, those that differ in their seed alone together; None belongs to no group."""
    groups: list[list[int]] = []
    for k, config in enumerate(configs):
        group = next((group for group in groups if _repeats(config, [configs[j] for j in group])), None)
        if group is None:
            groups.append([k])
        else:
            group.append(k)
    return groups


def _repeats(config: Config | None, known: Sequence[Config | None]) -> bool:
    """Return whether a config has a seed of its own and is otherwise that of these."""
    first, seeds = known[0], [one.seed for one in known if one is not None]
    return config is not None and first is not None and config.seed not in seeds and is_repeat(config, first)


def over_seeds(values: Iterable[float | None]) -> tuple[float | None, float | None]:
    """Return the mean of what is not None, and its standard deviation over seeds, which takes two values or more."""
    known = [value for value in values if value is not None]
    mean = statistics.fmean(known) if known else None
    return mean, statistics.stdev(known) if len(known) > 1 else None


def with_spread(mean: float | None, spread: float | None) -> str:
    """Return a mean with its standard deviation as text, such as 5.00 +- 1.41; empty without a mean."""
    if mean is None:
        return ""
    return f"{mean:.2f}" if spread is None else f"{mean:.2f} +- {spread:.2f}"


def _summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Return one group of a comparison from the verdicts on its targets."""

    def means(field: str) -> dict[str, float]:
        """Return the mean of each figure that every row has."""
        values = [{name: _value(found) for name, found in row[field].items()} for row in rows]
        names = [name for name in values[0] if all(one.get(name) is not None for one in values)]
        return {name: statistics.fmean(one[name] for one in values) for name in names}

    mean, spread = over_seeds(row["fd_ratio"] for row in rows)
    return {
        "name": " ".join(Path(row["target"]).name for row in rows),
        "targets": [row["target"] for row in rows],
        "fd_ratio": mean,
        "spread": spread,
        "fd_ratios": means("fd_ratios"),
        "valid": all(row["valid"] for row in rows),
        "failed": sorted({name for row in rows for name, gate in row["gates"].items() if gate["ok"] is False}),
        "metrics": means("metrics"),
        "verdicts": rows,
    }


def _value(found: Any) -> Any:
    """Return a figure itself, or its value for samples where that of real images is stored too."""
    return found["value"] if isinstance(found, dict) else found


def _config_of(target: Path) -> Config | None:
    """Return the config of the run that a target belongs to; None for files of no run."""
    run = run_of(_checkpoint(target)) if is_generator(target) else None
    return None if run is None else run.config


def _known_verdict(
    target: Path,
    images: Images | None,
    *,
    data: str | None = None,
    data_dir: Path | None = None,
    quick: bool = False,
    **choices: Any,
) -> dict[str, Any] | None:
    """Return the newest verdict on a run's checkpoint by this protocol, the default choices and the present data."""
    checkpoint = _checkpoint(target) if is_generator(target) else None
    run = None if checkpoint is None else run_of(checkpoint)
    if run is None or data or data_dir or any(choices.values()):
        return None
    wanted = {
        "tier": "quick" if quick else "full",
        "images_seen": _images_seen(checkpoint),
        "protocol": gates.VERSION,
        "count": QUICK if quick else FULL,
        "seed": 0,
    }
    rows = [row for row in run.metrics if wanted.items() <= row.items()]
    if not rows:
        return None
    real = load_real(images or run.config.data, data_dir=run.config.data_dir or None)
    now = {"validation": real.validation.sha256, "test": None if real.test is None else real.test.sha256}
    return rows[-1] if now.items() <= rows[-1]["hashes"].items() else None


def _checkpoint(target: Path) -> Path:
    """Return the generator file of a target, the newest where it is a run."""
    return find_generator(target).resolve()


def _images_seen(checkpoint: Path | None) -> int | None:
    """Return the training length of a checkpoint in images; None for files that are no checkpoint of a run."""
    name = "" if checkpoint is None else checkpoint.parent.name
    return int(name) if name.isdecimal() else None


def _as_grey(samples: Images, real: Images) -> Images:
    """Convert colour samples whose channels are equal to grey where the real images are grey."""
    if samples.pixels.shape[1] == 3 and real.pixels.shape[1] == 1 and (samples.pixels == samples.pixels[:, :1]).all():
        return replace(samples, pixels=samples.pixels[:, :1].contiguous())
    return samples
