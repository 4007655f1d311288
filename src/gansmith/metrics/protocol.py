"""The evaluation protocol: from samples and real images to an FD ratio, and whether it is valid.

    FD ratio = FD(samples, test) / FD(validation, test)

is measured with every evaluator network, with as many samples as validation images, and the largest counts: 1.00 is as
close as other real images of the training distribution, more is worse. It is valid only where every gate passes. Test
images are never trained on; validation images only choose an evaluator's last epoch and temperature, and a generator
is trained on them only under `use_all_training_images`. Samples that are themselves test or validation images are
removed from the real side first, so nothing is compared with itself.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from gansmith.errors import GansmithError
from gansmith.data.images import Images
from gansmith.metrics import METRICS, gates
from gansmith.metrics.distances import frechet_of_moments, kid_against_splits, moments
from gansmith.metrics.features import FeatureNetwork
from gansmith.metrics.reference import COUNTS, Reference, measure_reference

Array = NDArray[np.float64]

FULL, QUICK = 10_000, 2_000  # samples of the two tiers
FEWEST_HELD_OUT = 300  # with fewer, what is near for a fresh image cannot be told
SMALLEST_TEST_HALF = 1_000  # where no test images exist, validation images are halved if the halves keep this many


@dataclass(frozen=True)
class Real:
    """The real images of one data set, in disjoint parts; `test` is None where it is not available.

    Attributes:
        train: what generators train on. A run that also trained on validation images is still compared with these.
        references: shipped ones, by evaluator, used where the test images are the official ones or absent.
    """

    train: Images
    validation: Images
    test: Images | None
    references: Mapping[str, Reference] = field(default_factory=dict)


@dataclass(frozen=True)
class Verdict:
    """The result of evaluating one set of samples.

    Attributes:
        fd_ratio: the largest of `fd_ratios`; None where there are too few images for one.
        fd_ratios: by evaluator.
        metrics: name -> {"value", "real"}, the same figure of samples and of real images, or None.
        gates: see `gates.apply_gates`.
        n: samples evaluated.
        notices: a sentence for each thing a reader should know.
    """

    fd_ratio: float | None
    fd_ratios: dict[str, float]
    metrics: dict[str, dict[str, float | None]]
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
class _Seen:
    """Images with their features and class probabilities."""

    images: Images
    features: dict[str, Array]
    probabilities: Array | None

    def first(self, count: int) -> "_Seen":
        return _Seen(
            self.images.take(torch.arange(min(count, len(self.images)))),
            {name: rows[:count] for name, rows in self.features.items()},
            None if self.probabilities is None else self.probabilities[:count],
        )

    @property
    def leading(self) -> Array:
        """Features of the trained evaluator where there is one, which all metrics but the headline's look at."""
        return next(iter(self.features.values()))


def evaluate_samples(samples: Images, real: Real, networks: Mapping[str, FeatureNetwork], *, quick: bool = False) -> Verdict:
    """Measure everything that the available images allow.

    Args:
        samples: in any order; the count used is the largest of COUNTS that both they and the real images fill.
        networks: the evaluators by name, the classifier first.

    Raises GansmithError for samples of another shape than the real images.
    """
    shape = tuple(real.train.pixels.shape[1:])
    if tuple(samples.pixels.shape[1:]) != shape:
        raise GansmithError(
            f"{samples.source} holds images of {tuple(samples.pixels.shape[1:])} and the data set is of {shape} "
            "(channels, height, width); give samples of the same shape, or name their data set"
        )
    notices: list[str] = []
    samples = _half_of_a_whole(samples, real, notices)
    held_out, validation, test, references = _real_side(samples, real, notices)
    if references:
        limit = max(next(iter(references.values())).floors)
    elif test is not None:
        limit = len(validation)
    else:
        limit = 0
    count = max((count for count in COUNTS if count <= min(len(samples), limit)), default=0)
    fake = _look(samples.shuffled(count or len(samples)), networks)
    metrics: dict[str, dict[str, float | None]] = {}

    ratios = {}
    if count:
        if not references:
            assert test is not None
            sides = [_look(part.shuffled(len(part)), networks) for part in (test, validation)]
            references = {name: measure_reference(*(side.features[name] for side in sides)) for name in networks}
        for name in networks:
            reference = references[name]
            distance = frechet_of_moments(reference.moments, moments(fake.features[name]))
            floor = reference.floors[count]
            metrics["fd" if name == "trained" else f"fd_{name}"] = {"value": distance, "real": floor}
            ratios[name] = distance / floor
    else:
        notices.append(
            f"no FD ratio: it takes {COUNTS[0]:,} samples and as many held-out images "
            f"({len(samples):,} and {len(validation):,} are available)"
        )

    target, null = (test, validation) if test is not None else (validation, None)
    size = min(len(fake.images), len(target), len(null) if null is not None else len(target))
    if size > 5:
        leading = dict([next(iter(networks.items()))])
        seen_real = _look(target.shuffled(size), leading)
        seen_null = None if null is None else _look(null.shuffled(size), leading)
        metrics |= _measure(real.train, held_out, seen_real, seen_null, fake.first(size), quick=quick)
        if not count:
            metrics["kid_z"] = {"value": kid_against_splits(seen_real.leading, fake.leading)["kid_z"], "real": 0.0}
    return Verdict(
        fd_ratio=max(ratios.values(), default=None),
        fd_ratios=ratios,
        metrics=metrics,
        gates=gates.apply_gates(metrics),
        n=count or size,
        evaluators={name: network.name for name, network in networks.items()},
        notices=notices,
    )


def _half_of_a_whole(samples: Images, real: Real, notices: list[str]) -> Images:
    """Half of the samples where these are all there is of a real part, so that the other half can be its floor."""
    taken = {image.tobytes() for image in samples.pixels.numpy()}
    for part in (real.validation, real.test):
        if part is None or len(samples) < 2 * COUNTS[0]:
            continue
        left = sum(image.tobytes() not in taken for image in part.pixels.numpy())
        if left < min(COUNTS[0], len(part) // 2):
            notices.append(f"the samples hold all of {part.source}: half of them is evaluated against the rest")
            return samples.shuffled(len(samples) // 2)
    return samples


def _real_side(
    samples: Images, real: Real, notices: list[str]
) -> tuple[Images, Images, Images | None, Mapping[str, Reference]]:
    """Held-out, validation and test images that are not among the samples, and the shipped references where they hold.

    A floor must be drawn as the samples were. So where these are test images themselves, by other writers than the
    training images, the rest of the test images takes the validation images' place, and these that of the test.
    """
    taken = {image.tobytes() for image in samples.pixels.numpy()}
    validation, test = (part and _without(part, taken, notices) for part in (real.validation, real.test))
    assert validation is not None
    if test is None and not real.references and len(validation) >= 2 * SMALLEST_TEST_HALF:
        mixed = validation.shuffled(len(validation))
        half = len(validation) // 2
        test, validation = mixed.take(torch.arange(half)), mixed.take(torch.arange(half, len(mixed)))
        notices.append("no test images are available: half of the validation images stand in for them")
    # Shipped figures speak of the official images, all of them: with some of these taken out, others must be measured.
    is_whole = test is None or (validation is real.validation and test is real.test)
    references = real.references if is_whole else {}
    if test is not None and real.test is not None and len(real.test) - len(test) > len(samples) / 2:
        notices.append("the samples are test images: compared with validation images, as the rest of the test images is")
        return validation, test, validation, references
    return validation, validation, test, references


def _without(images: Images, taken: set[bytes], notices: list[str]) -> Images:
    """The images that are not among the samples, unless that leaves too few to compare with."""
    kept = [row for row, image in enumerate(images.pixels.numpy()) if image.tobytes() not in taken]
    if len(kept) == len(images):
        return images
    if len(kept) < min(COUNTS[0], len(images) // 2):
        notices.append(f"the samples hold nearly all real images they are compared with ({images.source})")
        return images
    notices.append(f"{len(images) - len(kept):,} real images that are among the samples were left out of the comparison")
    return images.take(torch.tensor(kept))


def _look(images: Images, networks: Mapping[str, FeatureNetwork]) -> _Seen:
    features, probabilities = {}, None
    for name, network in networks.items():
        features[name], found = network.observe(images.pixels)
        if network.num_classes > 1:
            probabilities = found
    return _Seen(images, features, probabilities)


def _measure(
    train: Images, held_out: Images, real: _Seen, null: _Seen | None, fake: _Seen, *, quick: bool
) -> dict[str, dict[str, float | None]]:
    """Every metric but the headline's, of the samples and of real images in their place."""
    found: dict[str, dict[str, float | None]] = {}
    for name, metric in METRICS.items():
        if name == "fd" or (quick and not metric.is_quick):
            continue
        given = _arguments(metric.takes, train, held_out, real, fake)
        if given is None:
            continue
        values, floors = metric.function(*given), {}
        if null is not None and metric.takes != "train":  # its nulls are known, or among its figures
            given = _arguments(metric.takes, train, held_out, real, null)
            floors = {} if given is None else metric.function(*given)
        found |= {figure: {"value": value, "real": floors.get(figure)} for figure, value in values.items()}
    return found


def _arguments(takes: str, train: Images, held_out: Images, real: _Seen, fake: _Seen) -> tuple[Any, ...] | None:
    """What a metric is given; None where it is missing."""
    if takes == "features":
        return real.leading, fake.leading
    if takes == "pixels":
        return real.images.pixels.numpy(), fake.images.pixels.numpy()
    if takes == "train":
        if len(held_out) < FEWEST_HELD_OUT:
            return None
        return _flat(train), _flat(held_out), _flat(fake.images)
    if real.probabilities is None or fake.probabilities is None:
        return None
    if takes == "probabilities":
        return real.probabilities, fake.probabilities
    if takes == "classes":
        return real.leading, fake.leading, real.probabilities.argmax(1), fake.probabilities.argmax(1)
    return None if fake.images.labels is None else (fake.probabilities, fake.images.labels.numpy())


def _flat(images: Images) -> NDArray[np.float32]:
    """(N, C * H * W) in [0, 1]; single precision, for a whole training set in double would take gigabytes."""
    flat: NDArray[np.float32] = images.pixels.flatten(1).float().div_(255).numpy()
    return flat
