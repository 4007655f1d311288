"""What a run trains on: the images it is shown, those held out, and what it is conditioned on."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from gansmith.conditioning import Conditioning, choose_kind, condition
from gansmith.config import Config, parse_labels
from gansmith.data import as_path, load_data
from gansmith.data.images import CHUNK, LARGE_BYTES, Images, ImageSpec, split, to_float
from gansmith.data.on_disk import OnDisk
from gansmith.data.prepare import Preparation, Watch
from gansmith.errors import ConfigError, DataError
from gansmith.metrics.validation import ValidationScorer
from gansmith.networks import build_networks
from gansmith.recipes import ADAM, IN_COLOR, LONG_IN_COLOR, LONG_MIRRORED, MIRRORED, WITHOUT_LABELS_IN_COLOR
from gansmith.training.augment import mirror_accuracy
from gansmith.training.calibration import output_layer
from gansmith.training.conflicts import NEEDS, hints, vain_target
from gansmith.training.machine import find_device
from gansmith.training.techniques import build_techniques

SYMMETRIC = 0.6  # images of a set that looks the same in a mirror are recognised as mirrored less often
LONG_RUN = 1_500_000  # images; shorter runs learn more with narrower networks
FEW_IMAGES = 10_000  # fewer are overfitted so soon that D is shown randomly shifted ones too


@dataclass(frozen=True)
class TrainingData:
    """What a run trains on.

    Attributes:
        train: the images shown; those of a run with `mirror` without their mirror images.
        validation: the images held out; None when all are trained on.
        y: (N,) class id of each image in `shown`; zeros for an unconditional run.
        conditioning: what these ids stand for.
        data_sha256: hash of the whole official training part.
        notices: a sentence for each choice that the data changed, with both values.
        train_split: all images of the train split with their labels, which evaluators belong to; None where `train` is
            all of it.
        mirrored: `train` and its mirror images, in a run with `mirror`.
    """

    train: Images
    validation: Images | None
    y: Tensor
    conditioning: Conditioning
    data_sha256: str
    notices: tuple[str, ...] = ()
    train_split: Images | None = None
    mirrored: Images | None = None

    @property
    def shown(self) -> Images:
        """The images that D is shown as real."""
        return self.train if self.mirrored is None else self.mirrored

    @cached_property
    def scorer(self) -> ValidationScorer | None:
        """What scores samples during training; None without validation images."""
        if self.validation is None or len(self.validation) < 2:
            return None
        return ValidationScorer(self.train, self.validation, train_split=self.train_split)

    def on(self, device: torch.device) -> tuple[Tensor, Tensor] | None:
        """Return the pixels and class ids of the training images on a device, copied there once.

        None where they stay on disk, or take more than half of what is free there.
        """
        pixels = self.shown.pixels
        if device.type == "cpu":
            return pixels, self.y
        copies: dict[torch.device, tuple[Tensor, Tensor]] = self.__dict__.setdefault("_copies", {})
        if device in copies:
            return copies[device]
        is_large = device.type == "cuda" and pixels.nbytes > torch.cuda.mem_get_info(device)[0] // 2
        if isinstance(pixels, OnDisk) or is_large:
            return None
        return copies.setdefault(device, (pixels.to(device), self.y.to(device)))

    @property
    def spec(self) -> ImageSpec:
        return self.train.spec

    @cached_property
    def pixel_moments(self) -> Tensor:
        """(C, 2) mean and mean square of each channel in [-1, 1], every id counting as often as it is drawn.

        Of a large set, over some of its images.
        """
        rows = self.shown.some_rows()
        images = torch.empty(len(rows), self.spec.channels, 2)
        for places in torch.arange(len(rows)).split(CHUNK):
            part = to_float(self.shown.pixels.index_select(0, rows[places])).flatten(2)
            images[places] = torch.stack([part.mean(2), part.square().mean(2)], dim=2)
        frequencies = self.conditioning.frequencies
        y = self.y[rows]
        weights = (frequencies / torch.bincount(y, minlength=len(frequencies)).clamp(min=1))[y]
        return (torch.einsum("n,nct->ct", weights, images.double()) / weights.sum()).float()


def load_training_data(
    config: Config, images: Images | None = None, *, watch: Watch | None = None
) -> tuple[Config, TrainingData]:
    """Return the config with nothing left open, and the data it names; writes nothing.

    Args:
        images: train on these instead of the set that the config names.
        watch: called with the number of pictures done and of all, while pictures are prepared.

    Raises ConfigError, DataError or NotFoundError for choices or data that cannot be trained on.
    """
    place = as_path(config.data)  # a folder here that a file names without the "./" of an argument
    if images is None and not config.data_dir and place != config.data:
        config = config.replace(data_dir=place)
    asked = config
    find_device(config.device)  # refuses one that is not here
    whole, train_split, train, validation = choose_images(config, images, watch=watch)
    config = config.replace(data=whole.name)  # which may be another: see the images' notices
    height, width = train.pixels.shape[2:]
    if height != width:
        raise DataError(f"{whole.source} holds images of {height} x {width} pixels; square ones are needed")
    if reason := train.why_untrainable():
        raise DataError(reason)
    config = choose_kind(config, train)
    if config.is_from_recipe("d_loss_target") and vain_target(config):
        config = config.replace(d_loss_target=0.0)
    config = fit_to_images(config, train if config.conditioning == "labels" else train.without_labels())
    if config.early_stopping and (validation is None or len(validation) < 2) and not config.use_all_training_images:
        raise ConfigError(
            f"early_stopping watches the validation FD ratio, and of {len(train):,} images too few are held out; omit "
            "it, or give more"
        )
    if config.mirror and isinstance(train.pixels, OnDisk):
        raise ConfigError("mirror needs images in memory, and so many stay on disk; set it to false")
    mirrored = train.with_mirror_images() if config.mirror else None
    config, conditioning, y = condition(config, mirrored or train)
    if not conditioning.has_labels:
        train, validation = train.without_labels(), validation and validation.without_labels()
        mirrored = mirrored and mirrored.without_labels()
    G, D = build_networks(config, train.spec)
    build_techniques(config, D)  # refuses what cannot be built before anything is written
    if config.calibrate_output:
        output_layer(G, train.spec.channels)
    notices = _changes(asked, config, mirrored or train)
    return config, TrainingData(train, validation, y, conditioning, whole.sha256, notices, train_split, mirrored)


def fit_to_images(config: Config, train: Images) -> Config:
    """Return the config with the augmentation, optimisers and batch statistics that these training images ask for.

    - Fewer than 10,000 images are overfitted by D within minutes, so `augment = auto` shows changed ones too: also in a
      mirror where they look like others of their class. Measured on 500 images of CIFAR-10, that halves the FD ratio
      (docs/experiments.md).
    - Fewer than 10,000 images, and those in color, are learnt with Adam, for SOAP gains nothing there: `ADAM`.
    - On 10,000 images in color or more, `IN_COLOR` replaces what the recipe sets: one D step, a lower target for D's
      loss, a stronger class loss for G, and a later decay. Measured on CIFAR-10, each lowers the FD ratio
      (docs/experiments.md).
    - The same without labels: `WITHOUT_LABELS_IN_COLOR`, rotation losses, and `MIRRORED` where images look the same in
      a mirror, for D overfits them in half an hour (docs/experiments.md).
    - Groups of the minibatch standard deviation divide the batch.

    What else follows from the images is decided where it is used: stages and widths of networks by size in `networks`,
    sub-clusters by the number of images in `conditioning`, scores and grids by their measured time in `budget`;
    docs/own-images.md has all of it in one table.
    """
    if config.augment == "auto":
        is_many = len(train) >= FEW_IMAGES
        config = config.replace(augment="none" if is_many else "flips" if _is_symmetric(train) else "shifts")
    wanted = dict(ADAM.get(config.recipe, {})) if train.spec.channels > 1 or len(train) < FEW_IMAGES else {}
    if _are_many_in_color(train):
        wanted |= IN_COLOR.get(config.recipe, {})
        if config.conditioning != "labels":
            wanted |= MIRRORED.get(config.recipe, {}) if _can_be_mirrored(train) else {}
            wanted |= WITHOUT_LABELS_IN_COLOR.get(config.recipe, {}) if config.network == "compact" else {}
    fitted = config.replace_open(wanted)
    idle = [name for name in wanted if name in NEEDS and not NEEDS[name][0](fitted)]  # by other choices of the user
    config = config.replace_open({name: value for name, value in wanted.items() if name not in idle})
    return config.replace(minibatch_stddev=group_size(config.minibatch_stddev, config.batch_size))


def fit_to_length(config: Config, train: Images) -> Config:
    """Return the config with what these training images ask for in a run of this length, `config.images`.

    On 10,000 images in color or more with labels, a run of 1,500,000 images or more has time for networks of twice the
    width, at two thirds of their learning rates, which then see fewer than half as many: `LONG_IN_COLOR`. D overfits
    them less where each mirror image is another one: `LONG_MIRRORED`. Measured on CIFAR-10 (docs/experiments.md).
    """
    wanted = LONG_IN_COLOR.get(config.recipe, {}) if config.classifies else {}
    is_long = _are_many_in_color(train) and config.images >= LONG_RUN
    if not (wanted and is_long and all(config.is_open(name) for name in wanted)):
        return config
    mirrored = LONG_MIRRORED.get(config.recipe, {})
    # The number of sub-clusters may be smaller than the recipe's by now, since some class has few images.
    is_open = config.is_open("mirror") and config.origins.get("clusters_per_class", "recipe") == "recipe"
    if is_open and _can_be_mirrored(train):
        wanted = wanted | mirrored
    return config.replace(**wanted)


def fit_data(config: Config, data: TrainingData) -> TrainingData:
    """Return the data with the mirror images and class ids of a config that was fitted to its length."""
    mirrored = data.train.with_mirror_images() if config.mirror else None
    _, conditioning, y = condition(config, mirrored or data.train)
    found = replace(data, y=y, conditioning=conditioning, mirrored=mirrored)
    if "scorer" in vars(data):  # its evaluators are trained already
        vars(found)["scorer"] = data.scorer
    return found


def _can_be_mirrored(train: Images) -> bool:
    fits = not isinstance(train.pixels, OnDisk) and train.pixels.nbytes <= LARGE_BYTES  # twice, in memory
    return fits and _is_symmetric(train)


def _are_many_in_color(train: Images) -> bool:
    return train.spec.channels > 1 and len(train) >= FEW_IMAGES


def _is_symmetric(train: Images) -> bool:
    """Return whether images look the same in a mirror; of many, some are looked at."""
    some = train.shuffled(FEW_IMAGES) if len(train) > FEW_IMAGES else train
    return mirror_accuracy(some.pixels, some.labels) < SYMMETRIC


def choose_images(
    config: Config, images: Images | None = None, *, watch: Watch | None = None
) -> tuple[Images, Images, Images, Images | None]:
    """Return the whole training part, its train split, those of that a run is shown, and those held out, if any are."""
    if images is None:
        images = load_data(config.data, data_dir=config.data_dir or None, how=preparation(config), watch=watch)
    train, validation = (images, None) if config.use_all_training_images else split(images)
    return images, train, _chosen(train, config), validation


def shown_images(config: Config, images: Images | None = None) -> tuple[Images, Images]:
    """Return the whole training part, and the images that a run is shown, also mirror images where it uses those."""
    whole, _, shown, _ = choose_images(config, images)
    return whole, shown.with_mirror_images() if config.mirror else shown


def unseen_copies(config: Config) -> list[str]:
    """Return a sentence for each kind of training images whose copies an evaluation does not detect."""
    sentences = []
    if config.use_all_training_images:
        sentences.append("it was also trained on the validation images, so copies of those are not detected")
    if config.mirror:
        sentences.append("it was also trained on mirror images, so copies of those are not detected")
    return sentences


def preparation(config: Config) -> Preparation:
    """Return how the config wants pictures prepared."""
    return Preparation(config.size, config.resize, config.color, config.background, config.strict)


def _chosen(train: Images, config: Config) -> Images:
    """Return the images the config wants shown, in their stored order."""
    if config.classes:
        if train.labels is None:
            raise ConfigError(f"{train.source} has no labels, so no classes can be chosen; omit --classes")
        asked, known = parse_labels(config.classes, names=train.class_names), train.labels.unique().tolist()
        strange = [label for label in asked if label not in known]
        if strange or not asked:
            lacking = f" but no {strange[0]}" if strange else ""
            raise ConfigError(
                f"classes is {config.classes!r}, and {train.source} has labels {known[0]} to {known[-1]}{lacking}; "
                "choose among these"
            )
        wanted = torch.isin(train.labels, torch.tensor(asked))
        train = train.take(torch.nonzero(wanted).flatten())
    if 0 < config.limit_images < len(train):
        train = train.take(torch.arange(config.limit_images) * len(train) // config.limit_images)
    return train


def group_size(asked: int, batch_size: int) -> int:
    """Return a group size for minibatch standard deviation that divides the batch, as near to the one asked for as any.

    0 stays 0; a group has at least two images.
    """
    divisors = [size for size in range(2, batch_size + 1) if batch_size % size == 0]
    return min(divisors, key=lambda size: (abs(size - asked), size)) if asked else 0


def _changes(asked: Config, config: Config, shown: Images) -> tuple[str, ...]:
    """Return a sentence for each choice that the data changed."""
    images, spec = len(shown), shown.spec
    rarest = images if shown.labels is None else int(shown.labels.unique(return_counts=True)[1].min())
    why_adam = "the images are in color" if spec.channels > 1 else "the images are few"
    reasons = {
        "clusters": f"each cluster needs at least 24 of the {images:,} images",
        "clusters_per_class": f"each cluster needs at least 24 images, and the rarest class has {rarest:,}",
        "minibatch_stddev": f"groups must divide the batch of {config.batch_size}",
        "d_steps": "the images are in color",
        "d_loss_target": vain_target(asked) or "the images are in color",
        "g_class_loss": "the images are in color",
        "lr_decay_from": "the images are in color",
        "mirror": "the images are in color and look the same in a mirror, and no labels are used",
        "d_rotation_loss": "the images are in color, and no labels are used",
        "g_rotation_loss": "the images are in color, and no labels are used",
        "g_optimizer": why_adam,
        "d_optimizer": why_adam,
    }
    return (*sentences_on_changes(asked, config, reasons), *hints(config))


def sentences_on_changes(asked: Config, config: Config, reasons: Mapping[str, str]) -> tuple[str, ...]:
    """Return a sentence for each of these fields that changed, or those that changed alike, with values and reason."""
    changes: dict[tuple[Any, Any, str], list[str]] = {}
    for name, reason in reasons.items():
        before, after = getattr(asked, name), getattr(config, name)
        if before != after:
            changes.setdefault((before, after, reason), []).append(name)
    return tuple(
        f"{' and '.join(names)} {'is' if len(names) == 1 else 'are'} {after}, not {before}: {reason}"
        for (before, after, reason), names in changes.items()
    )
