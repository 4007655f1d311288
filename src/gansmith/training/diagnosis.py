"""Training failures: their detectors, pure functions of a run's log and its scores, and what to do about each.

docs/failures.md shows a run with each.
"""

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from gansmith.config import Config
from gansmith.training.losses import OBJECTIVES, guessing_loss

Row = Mapping[str, Any]
Condition = Callable[[Config], bool]  # whether a config leaves a remedy to be tried
WINDOW = 0.05  # a failure must have lasted for this fraction of the run
FEWEST = 3  # and for so many measurements
FIRST_STEPS = 20  # nothing is diagnosed before these
MAX_GROWTH = 1.5  # weights whose norm grows by more than this factor in the first steps have diverged


@dataclass(frozen=True)
class Failure:
    """A training failure: its name, the images seen when it was found, and a message for people."""

    name: str
    images_seen: int
    message: str

    def as_row(self) -> dict[str, Any]:
        """Return the row of log.jsonl."""
        return {"kind": "failure", "images_seen": self.images_seen, "failure": self.name, "message": self.message}


def diagnose(rows: Sequence[Row], scores: Sequence[Row], config: Config) -> list[Failure]:
    """Return every failure that the newest of these rows show; none after a divergence, which causes all others.

    Args:
        rows: of log.jsonl, oldest first.
        scores: the validation FD ratios of metrics.jsonl.
    """
    has_diverged = any(row.get("failure") == "diverged" for row in rows)
    rows = [row for row in rows if "d_loss" in row]
    if has_diverged or not rows or rows[-1]["images_seen"] < FIRST_STEPS * config.batch_size:
        return []
    figures = {name: kind.detect(rows, scores, config) for name, kind in FAILURES.items()}
    found = {name: figure for name, figure in figures.items() if figure is not None}
    if "diverged" in found:
        found = {"diverged": found["diverged"]}
    return [to_failure(name, rows[-1]["images_seen"], figure, config) for name, figure in found.items()]


def to_failure(name: str, images_seen: int, figure: str, config: Config) -> Failure:
    """Return the failure with its figure, its likely cause, and the remedies that this config leaves, in a sentence."""
    kind = FAILURES[name]
    *before, last = [remedy for remedy, is_left in kind.remedies.items() if is_left is None or is_left(config)]
    remedies = f"{', '.join(before)}{',' if len(before) > 1 else ''} or {last}" if before else last
    message = f"{name}: {figure} after {images_seen:,} images; likely {kind.cause}; try {remedies}"
    return Failure(name, images_seen, message)


def summarise(rows: Sequence[Row], scores: Sequence[Row], config: Config) -> dict[str, str]:
    """Return a sentence for each failure of a run by its name, and how it stands at the end."""
    return at_the_end([row for row in rows if row.get("kind") == "failure"], diagnose(rows, scores, config))


def at_the_end(failures: Sequence[Row], found: Sequence[Failure]) -> dict[str, str]:
    """Return a sentence for each failure by its name: of those noted on the way, and of those the newest rows show.

    Args:
        failures: rows of log.jsonl, oldest first, as `Failure.as_row` makes them.
        found: by `diagnose`.
    """
    newest = {failure.name: failure for failure in found}
    is_examined = "diverged" not in {*newest, *(row["failure"] for row in failures)}  # `diagnose` looks no further
    said = {}
    for row in failures:
        name = row["failure"]
        if name in newest and newest[name].images_seen > row["images_seen"]:
            said[name] = f"{newest[name].message} (first seen after {row['images_seen']:,} images)"
        else:
            is_over = is_examined and name not in newest and name != "not-finite"
            said[name] = row["message"] + ("; at the end of the log no longer" if is_over else "")
    return {**{name: failure.message for name, failure in newest.items()}, **said}


def _recent(rows: Sequence[Row], config: Config, name: str) -> list[float]:
    """Return what a number was over the last window; nothing before there are enough values."""
    since = rows[-1]["images_seen"] - WINDOW * config.images
    known = [row for row in rows if row.get(name) is not None]
    count = max(FEWEST, sum(row["images_seen"] > since for row in known))
    found = [row[name] for row in known[-count:]]
    return found if len(found) >= FEWEST and since >= 0 else []


def _median_if_all(values: Sequence[float], test: Callable[[float], bool]) -> float | None:
    """Return the median of these values where all of them pass a test, else None."""
    return statistics.median(values) if values and all(map(test, values)) else None


def _diverged(rows: Sequence[Row], scores: Sequence[Row], config: Config) -> str | None:
    limit = 20.0 if guessing_loss(config) else 1_000.0
    for name in ("d_loss", "g_loss"):
        found = _median_if_all(_recent(rows, config, name), lambda value: abs(value) > limit)
        if found is not None:
            return f"{name} has stayed beyond {limit:,.0f}, at {found:,.1f},"
    grown = max((row["weight_growth"] for row in rows if "weight_growth" in row), default=0.0)
    return None if grown <= MAX_GROWTH else f"weights grew {grown:.1f}-fold in the first {FIRST_STEPS} steps, seen"


def _mode_collapse(rows: Sequence[Row], scores: Sequence[Row], config: Config) -> str | None:
    found = _median_if_all(_recent(rows, config, "diversity_within"), lambda value: value < 0.45)
    which = "" if config.conditioning == "none" else " of one class id"
    return None if found is None else f"generated images{which} differ {found:.2f} times as much as real ones"


def _missing_classes(rows: Sequence[Row], scores: Sequence[Row], config: Config) -> str | None:
    asked = f" (--classes {config.classes} leaves no others)" if config.classes else ""
    found = _median_if_all(_recent(rows, config, "classes_generated"), lambda value: value < 0.4)
    if found is not None:
        return f"generated images show {found:.2f} times as many classes as real ones with the same class ids"
    found = _median_if_all(_recent(rows, config, "classes_in_data"), lambda value: value < 0.4)
    if found is not None:
        return f"only {found:.0%} of the data set's classes are in the training images{asked}"
    found = _median_if_all(_recent(rows, config, "diversity_across"), lambda value: value < 0.25)
    if found is not None:
        return f"generated images of different classes differ {found:.2f} times as much as real ones"
    is_late = rows[-1]["images_seen"] > 0.25 * config.images  # before, labels may still be learnt
    found = _median_if_all(_recent(rows, config, "label_accuracy"), lambda value: value < 0.5) if is_late else None
    return None if found is None else f"only {found:.0%} of generated images show the label that was asked for"


def _discriminator_wins(rows: Sequence[Row], scores: Sequence[Row], config: Config) -> str | None:
    guessing = guessing_loss(config)
    found = _median_if_all(_recent(rows, config, "d_loss"), lambda value: abs(value) < 0.02 * guessing)
    if found is not None:
        return f"d_loss has stayed at {found:.3f}, where guessing gives {guessing:.2f},"
    if config.objective not in OBJECTIVES or not OBJECTIVES[config.objective].splits_at_zero:
        return None
    real, fake = (_recent(rows, config, name) for name in ("d_real", "d_fake"))
    if config.label_flipping > 0.5:
        real, fake = fake, real  # D is trained on swapped labels
    found = _median_if_all([r - f for r, f in zip(real, fake, strict=True)], lambda value: value > 0.55)
    return None if found is None else f"the discriminator has kept d_real and d_fake {found:.2f} apart"


def _generator_wins(rows: Sequence[Row], scores: Sequence[Row], config: Config) -> str | None:
    guessing = guessing_loss(config)
    found = _median_if_all(_recent(rows, config, "d_loss"), lambda value: value > 0.995 * guessing > 0)
    return None if found is None else f"d_loss has stayed at {found:.3f}, what guessing gives or more,"


def _vanishing_gradient(rows: Sequence[Row], scores: Sequence[Row], config: Config) -> str | None:
    norms = [row["g_grad_norm"] for row in rows if row.get("g_grad_norm") is not None]
    before = statistics.median(norms[:FEWEST]) if len(norms) > FEWEST else 0.0
    found = _median_if_all(_recent(rows, config, "g_grad_norm"), lambda value: value < 1e-3 * before)
    return None if found is None else f"the generator's gradient norm fell from {before:.2g} to {found:.2g}"


def _memorisation(rows: Sequence[Row], scores: Sequence[Row], config: Config) -> str | None:
    found = _median_if_all(_recent(rows, config, "copy_distance"), lambda value: value < 0.75)
    if found is not None:
        return f"generated images lie {found:.2f} times as far from training images as others do"
    found = _median_if_all(_recent(rows, config, "d_overfit"), lambda value: value > 0.9)
    return None if found is None else f"the discriminator rates held-out real images as generated ({found:.2f})"


def _stalled(rows: Sequence[Row], scores: Sequence[Row], config: Config) -> str | None:
    ratios = [row["validation_fd_ratio"] for row in scores if row.get("validation_fd_ratio") is not None]
    newest = 6
    if len(ratios) < 2 * newest or min(ratios[-newest:]) < 0.99 * min(ratios[:-newest]):
        return None
    return f"the validation FD ratio has not fallen much below {min(ratios[:-newest]):.2f} in {newest} scores"


class Kind(NamedTuple):
    """A kind of training failure.

    Attributes:
        detect: takes log rows, scores and the config; returns the figure that shows the failure, as part of a sentence,
            or None.
        cause: the likely cause.
        remedies: what to change, each with whether a config leaves that to be tried; None for always.
    """

    detect: Callable[[Sequence[Row], Sequence[Row], Config], str | None]
    cause: str
    remedies: dict[str, Condition | None]


def _at(name: str, is_left: Callable[[Any], bool], also: Condition = lambda config: True) -> Condition:
    """Return whether the value of a field leaves a remedy to be tried, and `also` does."""
    return lambda config: is_left(getattr(config, name)) and also(config)


def _can_penalise(config: Config) -> bool:
    """Return whether gradients of D can be penalised: not under batch normalisation, see `conflicts`."""
    return config.network not in ("acgan", "dcgan", "dcgan-keras")


def _is_free(config: Config) -> bool:
    """Return whether another objective may be chosen: an autoencoder has its own."""
    return config.network != "autoencoder"


def _may_be_relativistic(config: Config) -> bool:
    """Return whether D's targets are 1 and 0, which mean nothing to this objective."""
    has_others = any(getattr(config, name) for name in ("label_smoothing", "fake_label_smoothing", "label_flipping"))
    return "relativistic" not in config.objective and not has_others and _is_free(config)


FAILURES: dict[str, Kind] = {
    "not-finite": Kind(
        lambda rows, scores, config: None,  # the loop itself stops at the loss
        "a step too long for these losses",
        {
            "lower g_lr and d_lr": None,
            "a higher r1_gamma and r2_gamma": _can_penalise,
            "--precision float32": _at("precision", lambda value: value != "float32"),
        },
    ),
    "diverged": Kind(
        _diverged,
        "learning rates far too high, or a discriminator without its penalty",
        {
            "a tenth of g_lr and d_lr": None,
            "r1_gamma and r2_gamma above zero": _at("r1_gamma", lambda value: not value, _can_penalise),
        },
    ),
    "mode-collapse": Kind(
        _mode_collapse,
        "mode collapse: the generator found an image the discriminator rates as real, or its steps are too long",
        {
            "a larger latent_dim": _at("latent_dim", lambda value: value < 8),
            "--r1-gamma 10 --r2-gamma 10": _at("r1_gamma", lambda value: value < 10, _can_penalise),
            "--minibatch-stddev 4": _at("minibatch_stddev", lambda value: not value, _is_free),
            "lower g_lr and d_lr": None,
        },
    ),
    "missing-classes": Kind(
        _missing_classes,
        "a generator that ignores its class ids, or training images of few classes",
        {
            "--conditioning labels or clusters": _at("conditioning", lambda value: value == "none"),
            "all classes in the data": None,
            "a relativistic objective": _may_be_relativistic,
        },
    ),
    "discriminator-wins": Kind(
        _discriminator_wins,
        "a discriminator that learns faster than the generator can follow",
        {
            "a higher r1_gamma and r2_gamma": _can_penalise,
            "a lower d_lr": None,
            "augmentation where there are few images": _at("augment", lambda value: value == "none"),
        },
    ),
    "generator-wins": Kind(
        _generator_wins,
        "a discriminator too weak, or limited by its penalty or its learning rate",
        {
            "a lower r1_gamma and r2_gamma": _at("r1_gamma", lambda value: value > 0),
            "a higher d_lr": None,
            "a larger d_width": None,
        },
    ),
    "vanishing-gradient": Kind(
        _vanishing_gradient,
        "an objective whose gradient vanishes where the discriminator is sure",
        {
            "the non-saturating or least-squares objective": _at(
                "objective", lambda value: value not in ("non-saturating", "least-squares"), _is_free
            ),
            "a higher r1_gamma": _can_penalise,
            "a lower d_lr": None,
        },
    ),
    "memorisation": Kind(
        _memorisation,
        "too few training images for networks of this size",
        {
            "more images": None,
            "augmentation": _at("augment", lambda value: value == "none"),
            "a smaller network": None,
            "a shorter run": None,
        },
    ),
    "stalled": Kind(
        _stalled,
        "a run that has reached what these choices allow",
        {
            "stopping here": None,
            "decaying learning rates (lr_decay_from)": _at("lr_decay_from", lambda value: value == 1),
        },
    ),
}
