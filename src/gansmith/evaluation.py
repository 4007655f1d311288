"""Evaluation of what exists: a run, a generator file, or images that another program wrote.

`evaluate` finds the samples and the real images for `metrics.protocol`; `compare` does so for several and groups those
that differ in their seed alone.
"""

import re
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import torch

from gansmith.config import Config, is_as_long, is_repeat
from gansmith.data import load_data
from gansmith.data.arrays import Arrays, opaque
from gansmith.data.folders import split_of
from gansmith.data.idx import IdxSource, load_idx
from gansmith.data.image_files import truncation_notice
from gansmith.data.images import Images, split
from gansmith.data.layouts import INVISIBLE
from gansmith.data.matching import opposite_ground
from gansmith.data.pictures import PictureSource, holds_rows, look_around
from gansmith.data.prepare import Preparation
from gansmith.data.sources import arrays_as_images, as_prepared, load_source, open_source, read_arrays
from gansmith.errors import ConfigError, NotFoundError
from gansmith.metrics import gates
from gansmith.metrics.evaluators import find_evaluators, move_evaluators
from gansmith.metrics.features import SHIPPED
from gansmith.metrics.inception import Layers, fid_of, load_inception, move_layers
from gansmith.metrics.protocol import FULL, QUICK, Real, evaluate_samples
from gansmith.metrics.reference import load_references
from gansmith.models import find_generator, is_generator, load_generator
from gansmith.runs import RunDirectory, run_of, short_names
from gansmith.sampling import Model, folder_names, sample
from gansmith.training.inputs import preparation, unseen_copies
from gansmith.training.machine import computing_on, find_device
from gansmith.verdicts import Comparison, Verdict

ON_LABELS = "its labels are drawn as often as the real images have them"
ON_LATENTS = (
    "its latents are drawn from the standard normal distribution; where it was trained on others, evaluate images that "
    "were drawn from those"
)

MAX_SPREAD = 8.0  # mean difference of the channels up to which images count as grey: that of JPEG, not of colors


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
    resize: str = "",
    device: str = "auto",
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
        resize: as of `read_samples`.
        device: where the generator and the evaluators compute, as the field of `Config`.

    Raises GansmithError for a target or data that cannot be evaluated.
    """
    target, place, given = Path(target), find_device(device), data
    layers = load_inception(None if fid_weights is None else Path(fid_weights)) if fid or fid_weights else None
    checkpoint = _checkpoint(target) if is_generator(target) else None
    run = None if checkpoint is None else run_of(checkpoint)
    model, notices, most = None, list[str](), count or (QUICK if quick else FULL)
    if checkpoint is not None:
        model = load_generator(checkpoint, num_classes=num_classes)
        if run is not None and data is None:  # another data set is in another folder
            data_dir = data_dir or run.config.data_dir or None
        notices += unseen_copies(model.config)
        data = data or model.config.data
    elif num_classes is not None:
        raise ConfigError(f"num_classes is of a generator, and {target} holds images; omit it")
    how = Preparation() if model is None else preparation(model.config)
    real = load_real(data or "mnist", data_dir=data_dir, how=how, run=run if given is None else None)
    if model is None:
        samples = read_samples(target, real.train, resize=resize, most=most)
    else:
        drawn = _draw(_with_shares_of(real.train, model), seed=seed, count=most, device=place)
        samples = in_form_of(real.train, drawn, resize=resize)
    row: dict[str, Any] = {
        "target": str(target),
        "images_seen": _images_seen(checkpoint),
        "tier": "quick" if quick else "full",
        "count": most,
        "seed": None if checkpoint is None else seed,
    }
    row |= _measure(samples, real, notices, quick=quick, layers=layers, device=place)
    row["notices"] += _on_count(count, row["n"], len(samples))
    _save(run, row, real)
    return Verdict(row)


def _measure(
    samples: Images, real: Real, notices: Sequence[str], *, quick: bool, layers: Layers | None, device: torch.device
) -> dict[str, Any]:
    """Return what a verdict says of samples and of what they are compared with; the FID where its layers are given."""
    networks = find_evaluators(real.train)
    move_evaluators(networks, device)
    with computing_on(device):
        row = evaluate_samples(samples, real, networks, quick=quick).as_dict()
        fid = None if layers is None else fid_of(samples, (real.train, real.validation), move_layers(layers, device))
    row["notices"] = [*real.train.notices, *samples.notices, *notices, *row["notices"]]
    if fid is not None:
        row["metrics"]["fid"] = {"value": fid, "real": None}
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


def _on_count(asked: int | None, used: int, drawn: int) -> list[str]:
    """Return a notice where FD ratio and gates use fewer samples than were asked for."""
    return [f"FD ratio and gates are of {used:,} of {drawn:,} samples"] if asked and used < drawn else []


def _with_shares_of(real: Images, model: Model) -> Model:
    """Return a generator that draws labels as often as it should.

    Files of other programs do not say how often; where the real images have as many classes, these do.
    """
    known = model.conditioning
    if not (model.notices and known.has_labels and len(known) == real.num_classes):
        return model
    shared = replace(known, frequencies=real.class_frequencies)
    return replace(model, conditioning=shared, notices=(*model.notices, ON_LABELS))


def _draw(model: Model, *, seed: int, count: int, device: torch.device) -> Images:
    """Return samples with the labels they were drawn for, and what was decided about the generator's file."""
    if device.type != "cpu":
        model.network.to(device)
    with computing_on(device):
        pixels, labels = sample(model, seed=seed, count=count)
    known = labels if model.conditioning.has_labels else None
    source, names = f"samples of seed {seed}", () if known is None else model.class_names
    notices = (*model.notices, ON_LATENTS) if model.notices else ()  # which files of this package have not
    return Images(pixels, known, name="samples", source=source, notices=notices, class_names=names)


def _save(run: RunDirectory | None, row: dict[str, Any], real: Real) -> None:
    """Append a verdict to a run's metrics.jsonl, if it is of one, or note why it could not be.

    Args:
        real: the images that it compares with. Others than the run's own that are called alike, as all arrays are, and
            as a folder is that has changed, are named as such.
    """
    if run is None:
        return
    if row["data"] == run.config.data and not run.is_trained_on(real.sha256):
        row["data"] += " (other images)"
    try:
        run.append(run.metrics_path, {key: value for key, value in row.items() if key != "target"})
    except OSError as error:
        row["notices"].append(f"the verdict could not be saved in {run.metrics_path} ({error.strerror})")


def load_real(
    data: str | Images,
    *,
    data_dir: Path | str | None = None,
    how: Preparation | None = None,
    run: RunDirectory | None = None,
) -> Real:
    """Return the three disjoint splits of a data set, with the shipped references where it is the official one.

    Args:
        run: the run that was trained on them; a notice says where it was on others.
    """
    if isinstance(data, Images):
        return Real(*split(data), None, sha256=data.sha256)
    images = load_data(data, data_dir=data_dir, how=how)
    if run is not None and not run.is_trained_on(images.sha256):
        words = f"{images.source} holds other images than {run.directory} was trained on"
        images = replace(images, notices=(*images.notices, words))
    train, validation = split(images)
    try:
        test = load_data(data, data_dir=data_dir, part="test", how=how)
    except NotFoundError:
        test = None
    known = SHIPPED[images.name].data if images.name in SHIPPED else ()
    is_official = images.sha256 in known and (test is None or test.sha256 in known)
    references = load_references(images.name, images.spec) if is_official else {}
    return Real(train, validation, test, references, images.sha256)


def read_samples(path: Path, real: Images, *, resize: str = "", most: int | None = None) -> Images:
    """Return the images in a file or folder, in the form of the real ones, with a notice of what was done.

    Args:
        resize: how others become squares of the real size: crop, pad or stretch; empty: a black border of the
            difference is cut off or added where all images have one, and else they are cropped and resized.
        most: of more images, so many are taken at random; None for all.
    """
    if not path.exists():
        raise NotFoundError(f"there is no file or folder {str(path)!r}; give a .npz, an archive or a folder of images")
    how = Preparation(real.spec.size, resize or "crop", "rgb" if real.spec.channels == 3 else "auto")
    source = open_source(path)
    if isinstance(source, PictureSource):
        samples = load_source(source, replace(how, size=_common_side(source) or how.size), name=path.stem)
        samples = _with_label_of_folder(real, samples, source)
        if "test" in source.parts:
            tests = f"{len(source.parts['test'].names):,} test images"
            words = f"only its training part was read, without {tests}; give the folder of these alone"
            samples = replace(samples, notices=(*samples.notices, words))
    elif isinstance(source, IdxSource):
        samples = load_idx(source, "train", name=path.stem)
        height, width = samples.pixels.shape[2:]
        samples = samples if height == width else as_prepared(samples, how)
    else:
        samples = _from_arrays(read_arrays(source, "train"), how, path.stem)
    if path.suffix.lower() == ".npz":
        samples = replace(samples, notices=(*samples.notices, *truncation_notice(path)))
    return in_form_of(real, samples, resize=resize, most=most)


def _from_arrays(arrays: Arrays, how: Preparation, name: str) -> Images:
    """Return arrays as they are where they are square, else prepared, with a notice.

    Whole numbers of a set that reach 127 only, say, are its contrast, not another scale; up to 16, they are one.
    """
    if INVISIBLE < arrays.numbers.white < 255 and arrays.kind == "i":
        notices = tuple(words for words in arrays.notices if words != arrays.numbers.notice)
        pixels = np.rint(arrays.pixels * (arrays.numbers.white / 255)).astype(np.uint8)
        arrays = replace(arrays, pixels=pixels, notices=notices)
    arrays = opaque(arrays, how.background)
    height, width = arrays.pixels.shape[1:3]
    if height == width and len(arrays.pixels):
        labels = None if arrays.labels is None else torch.from_numpy(arrays.labels)
        pixels, names = torch.from_numpy(arrays.pixels), arrays.class_names
        return Images(pixels, labels, name, arrays.source, arrays.notices, class_names=names)
    samples = replace(arrays_as_images(arrays, how, name=name), class_names=arrays.class_names)
    verb = {"crop": "cropped", "pad": "padded", "stretch": "stretched"}[how.resize]
    done = f"its images of {height} x {width} pixels were {verb} to squares of {how.size}"
    kept = [notice for notice in samples.notices if not notice.startswith("prepared as")]
    return replace(samples, notices=(*kept, done))


def _common_side(source: PictureSource) -> int:
    """Return the side of square pictures of one size, which are read as they are; 0 for others."""
    sides = {side for look in look_around(source) for side in (look.width, look.height)}
    return sides.pop() if len(sides) == 1 and 4 <= min(sides) <= 1024 else 0


def in_form_of(real: Images, samples: Images, *, resize: str = "", most: int | None = None) -> Images:
    """Return samples in the size, channels and class numbers of the real images, with a notice of what was done.

    Args:
        resize, most: as of `read_samples`.
    """
    samples = _with_labels_of(real, samples)  # by the names of all of them
    samples = _with_channels_of(real, samples if most is None else samples.shuffled(most))
    opposite = opposite_ground(real.pixels, samples.pixels)
    if opposite:
        samples = replace(samples, notices=(*samples.notices, f"{opposite}; invert them: save 255 - images"))
    size, own = real.spec.size, samples.spec.size
    border = abs(own - size) // 2
    if own == size:
        return samples
    larger = samples.pixels if own > size else real.pixels[:1000]
    if not resize and _has_black_border(larger, border, min(own, size)):
        if own > size:
            pixels = samples.pixels[..., border : border + size, border : border + size].contiguous()
            done = f"their black border of {border} pixels was cut off"
        else:
            sides = (border, size - own - border)
            pixels = torch.nn.functional.pad(samples.pixels, (*sides, *sides))
            done = f"a black border of {border} pixels was added, as the real images have one"
    else:
        color = "rgb" if samples.spec.channels == 3 else "auto"  # also of grey in three channels
        pixels = as_prepared(samples, Preparation(size, resize or "crop", color)).pixels
        done = f"they were resized from {own} to {size} pixels, which changes how sharp they are"
        if any(own in (count * size, count * (size + 2) + 2) for count in range(3, 17)):  # as torchvision draws them
            done += "; if each is a grid of samples, save them one by one"
    return replace(samples, pixels=pixels, notices=(*samples.notices, done))


def _has_black_border(pixels: torch.Tensor, border: int, size: int) -> bool:
    """Return whether uint8 (N, C, H, W) images are black but for a square of `size` pixels in their middle."""
    inner = pixels[..., border : border + size, border : border + size]
    return border > 0 and int(pixels.sum(dtype=torch.int64)) == int(inner.sum(dtype=torch.int64))


def _with_channels_of(real: Images, samples: Images) -> Images:
    """Return samples as grey or RGB as the real images are, but for images in color where these are grey."""
    channels, own = real.spec.channels, samples.spec.channels
    if (channels, own) == (3, 1):
        notice = "their grey was repeated in three channels"
        return replace(samples, pixels=samples.pixels.repeat(1, 3, 1, 1), notices=(*samples.notices, notice))
    if (channels, own) != (1, 3):
        return samples
    values = samples.pixels.float()
    spread = float((values.amax(1) - values.amin(1)).mean())
    if spread > MAX_SPREAD:
        return samples
    notices = samples.notices if spread == 0 else (*samples.notices, "their colors, nearly grey, were averaged")
    return replace(samples, pixels=values.mean(1, keepdim=True).round().byte(), notices=notices)


def _with_labels_of(real: Images, samples: Images) -> Images:
    """Return samples with the real classes' numbers, by the names of their classes, or without labels."""
    if samples.labels is not None and not samples.class_names and real.num_classes:
        strange_labels = sorted(set(samples.labels.unique().tolist()) - set(range(-1, real.num_classes)))
        if strange_labels:
            listing = ", ".join(map(str, strange_labels[:5]))
            notice = f"their labels were left out: {real.name} has no class {listing}"
            return replace(samples, labels=None, notices=(*samples.notices, notice))
    if samples.labels is None or not samples.class_names or not real.num_classes:
        return samples
    numbers = _class_numbers(real)
    used = samples.labels.unique().tolist()
    found = {label: _class_of(samples.class_names[label], numbers) for label in used}
    strange = [samples.class_names[label] for label, number in found.items() if number is None]
    if strange and (by_number := _numbers_in([samples.class_names[label] for label in used], real.num_classes)):
        found = dict(zip(used, by_number, strict=True))
        notice = f"the numbers in the names of their classes, such as {strange[0]!r}, were taken for labels"
        samples = replace(samples, notices=(*samples.notices, notice))
    elif strange:
        notice = f"their labels were left out: {real.name} has no class {', '.join(map(repr, strange[:5]))}"
        return replace(samples, labels=None, class_names=(), notices=(*samples.notices, notice))
    table = torch.zeros(max(used) + 1, dtype=torch.int64)
    table[used] = torch.tensor([number for number in found.values() if number is not None])
    return replace(samples, labels=table[samples.labels], class_names=real.class_names)


def _class_numbers(real: Images) -> dict[str, int]:
    """Return the label of each class by what a folder or a list of names may call it."""
    numbers = {str(number): number for number in range(real.num_classes)}
    numbers |= {name: number for number, name in folder_names(range(len(real.class_names)), real.class_names).items()}
    return numbers | {name: number for number, name in enumerate(real.class_names)}


def _numbers_in(names: Sequence[str], num_classes: int) -> list[int]:
    """Return the one number in each of these names; none unless these are all labels, each once."""
    found = [re.findall(r"\d{1,6}", name) for name in names]
    numbers = [int(each[0]) for each in found if len(each) == 1]
    return numbers if len(names) == num_classes and sorted(numbers) == list(range(num_classes)) else []


def _class_of(name: str, numbers: Mapping[str, int]) -> int | None:
    """Return the label of a class by its name: as it is, as a number, else by its letters and digits if one fits."""
    if name not in numbers and re.fullmatch(r"[0-9]{1,9}", name):
        name = str(int(name))
    alike = {number for other, number in numbers.items() if other.casefold() == name.casefold()}
    if not alike and re.search(r"[^\W\d_]", name):  # marks between digits mean something
        alike = {number for other, number in numbers.items() if _letters(other) == _letters(name)}
    return numbers.get(name, alike.pop() if len(alike) == 1 else None)


def _letters(name: str) -> str:
    return re.sub(r"[\W_]+", "", name).casefold()


def _with_label_of_folder(real: Images, samples: Images, source: PictureSource) -> Images:
    """Return samples that all lie in one folder, called as one of the real classes, with its label."""
    names = source.parts["train"].names
    folders = {PurePosixPath(name).parent.name for name in names}
    folder = folders.pop() if len(folders) == 1 else ""
    is_class = _class_of(folder, _class_numbers(real)) is not None and not split_of(folder)
    if samples.labels is not None or holds_rows(names) or not is_class:
        return samples
    notices = (*samples.notices, f"all of them lie in the folder {folder}, which was taken for their label")
    return replace(samples, labels=torch.zeros(len(samples)).long(), class_names=(folder,), notices=notices)


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
    rows, trained = [], []
    for target in {path.resolve(): path for path in targets}.values():  # one given twice is measured once
        images = (in_memory or {}).get(target)
        run = run_of(_checkpoint(target)) if is_generator(target) else None
        is_file = is_generator(target) and run is None
        own = choices if is_file else {**choices, "num_classes": None}
        row = None if again else _known_verdict(target, images, **own)
        row = row or evaluate(target, **own | ({} if images is None else {"data": images}))
        rows.append({**row, "target": str(target)})
        trained.append(None if run is None else Trained.of(run, row["images_seen"], _measured_with(row)))
    names = short_names([Path(row["target"]) for row in rows])
    found = [_summary([rows[k] for k in group], [names[k] for k in group]) for group in group_repeats(trained)]
    return Comparison(sorted(found, key=lambda group: (group["fd_ratio"] is None, group["fd_ratio"])))


def _measured_with(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return what identifies the images and the evaluators of a verdict."""
    return {**row.get("hashes", {}), **row.get("evaluators", {})}


@dataclass(frozen=True)
class Trained:
    """What a run was, as far as it decides which others repeat it.

    Attributes:
        images_seen: by the generator that is compared.
        images: what identifies the images it was trained on, those it was compared with, and the evaluators.
    """

    config: Config
    images_seen: int
    images: tuple[Any, ...]

    @classmethod
    def of(cls, run: RunDirectory, images_seen: int, compared: Mapping[str, Any] | None = None) -> "Trained":
        """Return what a run was when it had seen so many images; `compared` identifies what its verdict is by."""
        others = {name: sha256 for name, sha256 in (compared or {}).items() if name != "samples"}
        return cls(run.config, images_seen, (run.facts().get("data", {}).get("sha256"), *sorted(others.items())))

    def repeats(self, first: "Trained") -> bool:
        """Return whether both differ in their seed alone, and in lengths by a quarter at most, as equal minutes do."""
        is_alike = self.images == first.images and is_as_long(self.images_seen, first.images_seen)
        return is_alike and is_repeat(self.config, first.config)


def group_repeats(runs: Sequence[Trained | None]) -> list[list[int]]:
    """Return the indices of these runs, those that differ in their seed alone together; None is in no group."""
    groups: list[list[int]] = []
    for k, own in enumerate(runs):
        group = next((group for group in groups if _belongs(own, [runs[j] for j in group])), None)
        if group is None:
            groups.append([k])
        else:
            group.append(k)
    return groups


def _belongs(own: Trained | None, known: Sequence[Trained | None]) -> bool:
    """Return whether a run has a seed of its own and otherwise repeats these."""
    first, seeds = known[0], [one.config.seed for one in known if one is not None]
    return own is not None and first is not None and own.config.seed not in seeds and own.repeats(first)


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


def _summary(rows: list[dict[str, Any]], names: list[str]) -> dict[str, Any]:
    """Return one group of a comparison from the verdicts on its targets."""

    def means(field: str) -> dict[str, float]:
        """Return the mean of each figure that every row has."""
        values = [{name: _value(found) for name, found in row[field].items()} for row in rows]
        names = [name for name in values[0] if all(one.get(name) is not None for one in values)]
        return {name: statistics.fmean(one[name] for one in values) for name in names}

    mean, spread = over_seeds(row["fd_ratio"] for row in rows)
    return {
        "name": " ".join(names),
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
    how = preparation(run.config)
    real = load_real(images or run.config.data, data_dir=run.config.data_dir or None, how=how, run=run)
    now = {"validation": real.validation.sha256, "test": None if real.test is None else real.test.sha256}
    return rows[-1] if now.items() <= rows[-1]["hashes"].items() else None


def _checkpoint(target: Path) -> Path:
    """Return the generator file of a target, the newest where it is a run."""
    return find_generator(target).resolve()


def _images_seen(checkpoint: Path | None) -> int | None:
    """Return the training length of a checkpoint in images; None for files that are no checkpoint of a run."""
    return int(checkpoint.parent.name) if checkpoint is not None and run_of(checkpoint) is not None else None
