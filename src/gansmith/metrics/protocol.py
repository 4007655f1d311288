"""The evaluation protocol: from samples and real images to an FD ratio, and whether it is valid.

    FD ratio = FD(samples, test) / FD(validation, test)

is measured with every evaluator, on as many samples as validation images, and the largest counts: 1.00 is as close as
other real images of the training distribution, larger is worse. It is valid only where every gate passes. Test images
are never trained on. Validation images only chose the last epoch and temperature of an evaluator that ships, and a
generator is trained on them only under `use_all_training_images`. Samples that are test or validation images themselves
are first removed from the real images, so that nothing is compared with itself.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gansmith.data.images import CHUNK, Images
from gansmith.errors import DataError
from gansmith.metrics import METRICS, gates
from gansmith.metrics.distances import frechet_of_moments, kid_against_splits, moments
from gansmith.metrics.evaluator_training import fit_and_held_out
from gansmith.metrics.evaluators import TRUSTED_ACCURACY, confusion_of, evaluator_notices, knows_classes, observe_real
from gansmith.metrics.features import Evaluator
from gansmith.metrics.memorisation import principal_components
from gansmith.metrics.reference import COUNTS, Reference, measure_reference
from gansmith.metrics.residual import ResidualNetwork

Array = NDArray[np.float64]
Flat = NDArray[np.float32]
Figures = dict[str, dict[str, float | None]]  # name -> {"value": of the samples, "real": the same of real images}

FULL, QUICK = 10_000, 2_000  # samples of the two tiers
MAX_FLAT_BYTES = 2**30  # of training images as memorisation compares them
FEWEST_HELD_OUT = 50  # held-out images that the memorisation gate needs
FEWEST_FOR_METRICS = 6  # images of either kind; density and coverage need five neighbours
MANY = 2_000  # images from which the limits of gates stand as they are
# So many images of the rarest class, and so few classes, leave the limits on classes as they are.
MANY_OF_A_CLASS, FEW_CLASSES = 150, 20
DRAWS = 20  # of real images that widen the limits for fewer
GATED = ("density_coverage", "recognised", "class_balance", "class_diversity", "pixels", "memorisation")  # in METRICS
ON_CLASSES = ("class_balance", "class_diversity")
MISLABELLED = 0.1  # of label accuracy below that of real images is said
EVEN = 0.8  # times the share of all real images left, so many of a class are left by chance


@dataclass(frozen=True)
class Real:
    """The real images of one data set, in disjoint splits; `test` is None where it is not available.

    Attributes:
        train: what generators are trained on. A run that was also trained on validation images is still compared with
            these.
        references: those that ship, by evaluator, where the test images are the official ones or absent.
        sha256: of the whole training part, before it is split; empty where that is not known.
    """

    train: Images
    validation: Images
    test: Images | None
    references: Mapping[str, Reference] = field(default_factory=dict)
    sha256: str = ""


@dataclass(frozen=True)
class Evaluation:
    """The result of evaluating one set of samples.

    Attributes:
        fd_ratio: the largest of `fd_ratios`; None where there are too few images for one.
        fd_ratios: by evaluator.
        metrics: name -> {"value", "real"}, the same figure of samples and of real images, or None.
        gates: see `gates.apply_gates`.
        n: number of samples evaluated.
        evaluators: name of each evaluator's network.
        notices: a sentence for each thing that a reader should know.
    """

    fd_ratio: float | None
    fd_ratios: dict[str, float]
    metrics: Figures
    gates: dict[str, dict[str, Any]]
    n: int
    evaluators: dict[str, str]
    notices: list[str]

    @property
    def is_valid(self) -> bool:
        """Whether gates ran and none failed; one that could not run does not count as failed."""
        states = [gate["ok"] for gate in self.gates.values()]
        return True in states and False not in states

    def as_dict(self) -> dict[str, Any]:
        """Return the result as JSON values."""
        return {
            "fd_ratio": self.fd_ratio,
            "fd_ratios": self.fd_ratios,
            "valid": self.is_valid,
            "label_accuracy": self.metrics.get("label_accuracy", {}).get("value"),
            "gates": self.gates,
            "metrics": self.metrics,
            "n": self.n,
            "protocol": gates.VERSION,
            "evaluators": self.evaluators,
            "notices": self.notices,
        }


@dataclass(frozen=True)
class _Observed:
    """Images with their features by each evaluator, and by the one that knows classes their probabilities of these.

    Attributes:
        confusion: of that evaluator, see `class_balance`.
        flat: (N, d) what memorisation takes in place of their pixels: principal components, found once.
    """

    images: Images
    features: dict[str, Array]
    probabilities: Array | None
    confusion: Array | None
    flat: Flat | None = None

    def __len__(self) -> int:
        return len(self.images)

    def take(self, rows: Tensor) -> "_Observed":
        """Return these rows of them."""
        return _Observed(
            self.images.take(rows),
            {name: features[rows.numpy()] for name, features in self.features.items()},
            None if self.probabilities is None else self.probabilities[rows.numpy()],
            self.confusion,
            None if self.flat is None else self.flat[rows.numpy()],
        )

    @property
    def leading(self) -> Array:
        """Features of the first evaluator, trained where there is one; all metrics but the FD use these alone."""
        return next(iter(self.features.values()))


@dataclass(frozen=True)
class _Compared:
    """The real images that samples are compared with, none of them among the samples.

    Attributes:
        held_out: from the distribution of the training images, not trained on.
        validation: whose FD to `test` is the denominator of the FD ratio.
        references: those that ship, where they are valid for these images.
    """

    held_out: Images
    validation: Images
    test: Images | None
    references: Mapping[str, Reference]

    @property
    def most(self) -> int:
        """The largest number of samples that an FD ratio may be measured on."""
        if self.references:
            return max(next(iter(self.references.values())).fd_real)
        return 0 if self.test is None else min(len(self.validation), len(self.test))

    def in_words(self) -> str:
        """Return how many real images there are."""
        tests = "no test images" if self.test is None else f"{len(self.test):,} test images"
        return f"{len(self.validation):,} validation images and {tests}"


def evaluate_samples(
    samples: Images, real: Real, networks: Mapping[str, Evaluator], *, quick: bool = False, widened: bool = True
) -> Evaluation:
    """Measure everything that the available images allow.

    Args:
        samples: in any order; the count used is the largest of COUNTS that both they and the real images fill.
        networks: the evaluators by name, the classifier first where there is one.
        widened: widen limits of gates where images are few, which takes some seconds; FD ratios do without.

    Raises DataError for samples of another shape than the real images.
    """
    shape = tuple(real.train.pixels.shape[1:])
    if tuple(samples.pixels.shape[1:]) != shape:
        raise DataError(
            f"{samples.source} holds images of {tuple(samples.pixels.shape[1:])} and the data set is of {shape} "
            "(channels, height, width); give samples of the same shape, or name their data set"
        )
    notices = evaluator_notices(networks, real.train)
    samples = _half_of_a_whole_split(samples, real, notices)
    compared = _real_images(samples, real, notices)
    count = max((count for count in COUNTS if count <= min(len(samples), compared.most)), default=0)
    fake = _observe(samples.shuffled(count or len(samples)), networks)
    if count:
        metrics, ratios = _fd_ratios(fake, compared, networks, count)
    else:
        metrics, ratios = {}, {}
        notices.append(
            f"no FD ratio: it takes {COUNTS[0]:,} samples, {COUNTS[0]:,} validation images and as many test images, or "
            f"{2 * COUNTS[0]:,} validation images ({len(samples):,} samples, {compared.in_words()})"
        )
    train = _compared_with(real.train, notices)
    others, size = _other_metrics(fake, train, compared, networks, quick=quick, with_kid=not count)
    least = {"fd_ratio_least": {"value": min(ratios.values()), "real": None}} if ratios else {}
    figures, left_out = metrics | least | others, _left_out(networks, quick=quick)
    found = gates.apply_gates(figures, left_out)
    widen = _to_widen(train, size, networks, found) if widened else ()
    pool = _drawn_from(networks, real, train, compared) if widen else train
    drawn = min(size, len(pool) // 3)
    if draws := _draw_real(pool, drawn, networks, widen, quick=quick):
        found = gates.apply_gates(figures, left_out, draws)
        notices.append(
            f"gates allow what draws of {drawn:,} real images reach, and detect less than with {MANY:,} images"
            if size < MANY
            else f"gates on classes allow what draws of {drawn:,} real images reach, since classes are many, rare or "
            "hard to tell apart"
        )
    notices.extend(_on_labels(others, networks))
    return Evaluation(
        fd_ratio=max(ratios.values(), default=None),
        fd_ratios=ratios,
        metrics=figures,
        gates=found,
        n=count or size,
        evaluators={name: network.name for name, network in networks.items()},
        notices=notices,
    )


def _fd_ratios(
    fake: _Observed, compared: _Compared, networks: Mapping[str, Evaluator], count: int
) -> tuple[Figures, dict[str, float]]:
    """Return the FD of samples and of real images, and the FD ratio, by evaluator."""
    references = compared.references
    if not references:
        assert compared.test is not None
        splits = [
            _observe(part.shuffled(len(part)), networks, is_real=True) for part in (compared.test, compared.validation)
        ]
        references = {name: measure_reference(*(part.features[name] for part in splits)) for name in networks}
    metrics: Figures = {}
    ratios = {}
    for name in networks:
        distance = frechet_of_moments(references[name].moments, moments(fake.features[name]))
        fd_real = references[name].fd_real[count]
        metrics["fd" if name == "trained" else f"fd_{name}"] = {"value": distance, "real": fd_real}
        ratios[name] = distance / fd_real
    return metrics, ratios


def _other_metrics(
    fake: _Observed,
    train: Images,
    compared: _Compared,
    networks: Mapping[str, Evaluator],
    *,
    quick: bool,
    with_kid: bool,
) -> tuple[Figures, int]:
    """Return every metric but the FD, and the number of images it is measured on.

    They are measured by the first evaluator against the test images, the validation images giving the value of real
    ones; without test images against the validation images.
    """
    target, null = (compared.validation, None) if compared.test is None else (compared.test, compared.validation)
    size = min(len(fake.images), len(target), len(target if null is None else null))
    if size < FEWEST_FOR_METRICS:
        return {}, size
    first = dict([next(iter(networks.items()))])
    real = _observe(target.shuffled(size), first, is_real=True)
    other = None if null is None else _observe(null.shuffled(size), first, is_real=True)
    fake = fake.take(torch.arange(size))
    names = [name for name, metric in METRICS.items() if metric.is_quick or not quick]
    metrics = _measure(names, train, compared.held_out, real, other, fake, left_out=_left_out(networks, quick=quick))
    if with_kid:
        metrics["kid_z"] = {"value": kid_against_splits(real.leading, fake.leading)["kid_z"], "real": 0.0}
    return metrics, size


def _half_of_a_whole_split(samples: Images, real: Real, notices: list[str]) -> Images:
    """Return half of the samples where they contain a whole real split, so that the other half can stand for it."""
    contents = set(_contents(samples))
    for part in (real.validation, real.test):
        if part is None or len(samples) < 2 * COUNTS[0]:
            continue
        left = sum(content not in contents for content in _contents(part))
        if left < min(COUNTS[0], len(part) // 2):
            notices.append(f"the samples hold all of {part.source}: half of them is evaluated against the rest")
            return samples.shuffled(len(samples) // 2)
    return samples


def _real_images(samples: Images, real: Real, notices: list[str]) -> _Compared:
    """Return the real images that are not among the samples, and the references where they are valid for these.

    The denominator's images must be from the distribution of the samples. So where these are test images, by other
    writers than the training images, the rest of the test images takes the place of the validation images, and these
    that of the test images.
    """
    contents = set(_contents(samples))
    validation, test = (part and _without(part, contents, notices) for part in (real.validation, real.test))
    assert validation is not None
    if test is not None and len(test) < min(COUNTS[0], len(validation)):
        notices.append(f"{len(test):,} test images are too few to compare with: validation images take their place")
        test = None
    if test is None and not real.references and len(validation) >= 2 * COUNTS[0]:
        mixed = validation.shuffled(len(validation))
        half = len(validation) // 2
        test, validation = mixed.take(torch.arange(half)), mixed.take(torch.arange(half, len(mixed)))
        notices.append("half of the validation images are used as test images")
    # References are valid for all of the official images; where some were removed, others must be measured.
    is_whole = test is None or (validation is real.validation and test is real.test)
    references = real.references if is_whole else {}
    if test is not None and real.test is not None and len(real.test) - len(test) > len(samples) / 2:
        notices.append(
            "the samples are test images: they are compared with the validation images, and the figures of real images "
            "are those of the rest of the test images"
        )
        return _Compared(validation, test, validation, references)
    return _Compared(validation, validation, test, references)


def _contents(images: Images) -> Iterator[bytes]:
    """Yield the pixels of each image; of those on disk, a part is in memory at a time."""
    for part in images.pixels.split(CHUNK):
        yield from (image.tobytes() for image in part.numpy())


def _without(images: Images, contents: set[bytes], notices: list[str]) -> Images:
    """Return the images whose pixels are not among these, or all where too few would remain."""
    kept = [row for row, content in enumerate(_contents(images)) if content not in contents]
    if len(kept) == len(images):
        return images
    if len(kept) < min(COUNTS[0], len(images) // 2):
        notices.append(f"the samples hold nearly all real images they are compared with ({images.source})")
        return images
    rows = torch.tensor(kept)
    if images.labels is not None:
        total = images.labels.bincount()
        shares = (images.labels[rows].bincount(minlength=len(total)) / total)[total > 0]
        least, most, mean = shares.min().item(), shares.max().item(), len(kept) / len(images)
        if least < EVEN * mean or EVEN * most > mean:  # the rest has another mix of classes, so each gives as much
            rows = _evenly(images, rows, least)
        if len(rows) < min(COUNTS[0], len(images) // 2):
            notices.append(f"the samples hold nearly all real images of a class ({images.source}), so none was removed")
            return images
    notices.append(
        "removed from the comparison, since they are among the samples"
        + (" or too many of a class without these" if len(rows) < len(kept) else "")
        + f": {len(images) - len(rows):,} of {len(images):,} real images ({images.source})"
    )
    return images.take(rows)


def _evenly(images: Images, rows: Tensor, share: float) -> Tensor:
    """Return of these rows the same share of each class, drawn by a fixed seed."""
    assert images.labels is not None
    mixed = rows[torch.randperm(len(rows), generator=torch.Generator().manual_seed(0))]
    kept = [
        mixed[images.labels[mixed] == label][: int(share * count)]
        for label, count in enumerate(images.labels.bincount().tolist())
    ]
    return torch.cat(kept).sort().values


def _observe(images: Images, networks: Mapping[str, Evaluator], *, is_real: bool = False) -> _Observed:
    """Return images with their features, and their probabilities by the evaluator that knows classes."""
    features, probabilities, confusion = {}, None, None
    for name, network in networks.items():
        features[name], found = observe_real(network, images) if is_real else network.observe(images.pixels)
        if network.num_classes > 1:
            probabilities, confusion = found, confusion_of(network)
    return _Observed(images, features, probabilities, confusion)


def _left_out(networks: Mapping[str, Evaluator], *, quick: bool) -> dict[str, str]:
    """Return the gates that these evaluators cannot decide, or the quick tier does not, each with the reason."""
    first = next(iter(networks.values()))
    reasons = {"memorisation": "the quick tier leaves it out"} if quick else {}
    if first.num_classes == 1:
        reason = "no evaluator knows classes: there are no labels, or too few images to learn them"
        return reasons | dict.fromkeys(("classes", "recognisability", "diversity"), reason)
    if not knows_classes(first):
        reasons["recognisability"] = f"the evaluator is right on fewer than {TRUSTED_ACCURACY:.0%} of real images"
    return reasons


def _on_labels(metrics: Figures, networks: Mapping[str, Evaluator]) -> list[str]:
    """Return a sentence where far fewer samples than real images show the label that was asked for."""
    if "label_accuracy" not in metrics:
        return []
    first = next(iter(networks.values()))
    if first.num_classes == 1:
        return []
    accuracy = first.accuracy.item() if isinstance(first, ResidualNetwork) else TRUSTED_ACCURACY
    value, real = metrics["label_accuracy"]["value"], metrics["label_accuracy"]["real"] or accuracy
    if value is None or value > real - MISLABELLED:
        return []
    return [f"only {value:.0%} of samples show the label that was asked for (real images {real:.0%})"]


def _drawn_from(networks: Mapping[str, Evaluator], real: Real, train: Images, compared: _Compared) -> Images:
    """Return most of the real images that the first evaluator has not learnt; of one that ships, most of all.

    Args:
        train: the training images that memorisation is measured against.
    """
    parts = [part for part in (compared.held_out, compared.test) if part is not None]
    if not isinstance(next(iter(networks.values())), ResidualNetwork):
        return max(train, *parts, key=len)
    unseen, other = fit_and_held_out(real.train)[1], compared.held_out
    labels = None if unseen.labels is None or other.labels is None else torch.cat([unseen.labels, other.labels])
    return max(Images(torch.cat([unseen.pixels, other.pixels]), labels, real.train.name), *parts, key=len)


def _to_widen(
    images: Images, size: int, networks: Mapping[str, Evaluator], found: Mapping[str, Mapping[str, Any]]
) -> tuple[str, ...]:
    """Return the rows of METRICS whose limits draws of real images may widen.

    Where the evaluator confuses classes, shares of classes are less certain than their number says: draws are made if a
    gate on them fails.
    """
    first = next(iter(networks.values()))
    wanted = limits_to_widen(images, size)
    if first.num_classes == 1:
        return wanted if size < MANY else ()
    is_rough = confusion_of(first) is not None and any(found[name]["ok"] is False for name in ("classes", "diversity"))
    return wanted or (ON_CLASSES if is_rough else ())


def limits_to_widen(images: Images, size: int) -> tuple[str, ...]:
    """Return the rows of METRICS whose limits chance alone may exceed for so many samples of data like these images."""
    if size < MANY:
        return GATED
    counts = torch.zeros(1) if images.labels is None else images.labels.bincount()
    classes = int((counts > 0).sum())
    is_rare = classes > 1 and size * int(counts[counts > 0].min()) < MANY_OF_A_CLASS * len(images)
    return ON_CLASSES if is_rare or classes > FEW_CLASSES else ()


def _draw_real(
    images: Images, size: int, networks: Mapping[str, Evaluator], gated: Sequence[str], *, quick: bool
) -> list[Figures]:
    """Return what gates measure, for DRAWS times three disjoint draws of these images, or of fewer that stray further.

    One draw takes the place of the samples, one that of the real images, one that of the training images. Of few,
    others are held out, as many as memorisation takes.

    Args:
        size: of a draw, a third of the images at most.
        gated: the rows of METRICS to measure.
    """
    first = dict([next(iter(networks.items()))])
    names = [name for name in gated if METRICS[name].is_quick or not quick]
    if size < FEWEST_FOR_METRICS or not names:
        return []
    extra = FEWEST_HELD_OUT if size < FEWEST_HELD_OUT <= len(images) - 3 * size else 0
    pool = _observe(images.shuffled(3 * size + extra), first, is_real=True)
    if "memorisation" in names and (extra or size >= FEWEST_HELD_OUT):
        pool = replace(pool, flat=principal_components(_flat(pool))[0].numpy())
    found: list[Figures] = []
    for seed in range(DRAWS):
        rows = torch.randperm(3 * size, generator=torch.Generator().manual_seed(seed)).split(size)
        samples, real, train = (pool.take(part) for part in rows)
        held_out = pool.take(torch.arange(3 * size, 3 * size + extra)) if extra else real
        found.append(_measure(names, train, held_out, real, None, samples, left_out=_left_out(networks, quick=quick)))
    for one, other in zip(found, found[1:] + found[:1], strict=True):
        for name in one.keys() & other.keys():
            one[name]["real"] = other[name]["value"]
    return found


def _measure(
    names: Iterable[str],
    train: "Images | _Observed",
    held_out: "Images | _Observed",
    real: _Observed,
    null: _Observed | None,
    fake: _Observed,
    *,
    left_out: Mapping[str, str],
) -> Figures:
    """Return these rows of METRICS but the FD, of the samples and of other real images in their place."""
    figures: Figures = {}
    for name in names:
        metric = METRICS[name]
        if name == "fd" or (name == "recognised" and "recognisability" in left_out):
            continue
        arguments = _arguments(metric.takes, train, held_out, real, fake)
        if arguments is None:
            continue
        values, of_real = metric.function(*arguments), {}
        if null is not None and metric.takes != "train":  # its values of real images are known, or among its figures
            arguments = _arguments(metric.takes, train, held_out, real, null)
            of_real = {} if arguments is None else metric.function(*arguments)
        figures |= {figure: {"value": value, "real": of_real.get(figure)} for figure, value in values.items()}
    return figures


def _arguments(
    takes: str, train: "Images | _Observed", held_out: "Images | _Observed", real: _Observed, fake: _Observed
) -> tuple[Any, ...] | None:
    """Return the arguments of a metric; None where some are not available."""
    if takes == "features":
        return real.leading, fake.leading
    if takes == "pixels":
        return real.images.pixels.numpy(), fake.images.pixels.numpy()
    if takes == "train":
        return None if len(held_out) < FEWEST_HELD_OUT else (_flat(train), _flat(held_out), _flat(fake))
    if real.probabilities is None or fake.probabilities is None:
        return None
    if takes == "probabilities":
        return real.probabilities, fake.probabilities
    if takes == "shares":
        return real.probabilities, fake.probabilities, real.confusion
    if takes == "classes":
        return real.leading, fake.leading, real.probabilities.argmax(1), fake.probabilities.argmax(1)
    return None if fake.images.labels is None else (fake.probabilities, fake.images.labels.numpy())


def _compared_with(train: Images, notices: list[str]) -> Images:
    """Return the training images that memorisation is measured against: all, or as many as fit into memory."""
    most = MAX_FLAT_BYTES // (4 * train.pixels[0].numel())
    if len(train) <= most:
        return train
    notices.append(
        f"memorisation is measured against {most:,} of {len(train):,} training images, a random choice: copies of "
        "others are not found"
    )
    return train.shuffled(most)


def _flat(images: "Images | _Observed") -> Flat:
    """Return (N, C * H * W) in [0, 1], or what stands for it; in double precision it would take gigabytes."""
    if isinstance(images, _Observed):
        return _flat(images.images) if images.flat is None else images.flat
    flat: Flat = images.pixels.flatten(1).float().div_(255).numpy()
    return flat
