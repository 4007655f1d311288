"""What is going wrong in a run, in plain words: pure functions of its log and its scores.

`TROUBLES` holds one row a trouble: its detector, its likely cause and what to change. A detector gives the figure that
shows it, as part of a sentence, or None. docs/troubles.md shows a run with each.
"""

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from gansmith.config import Config
from gansmith.losses import OBJECTIVES

Row = Mapping[str, Any]
WINDOW = 0.05  # a trouble must have lasted for this share of the run
FEWEST = 3  # and for so many measurements
FIRST_STEPS = 20  # before these nothing is told from a cold start
GROWN = 1.5  # times their first length: weights that are longer after the first steps are thrown about, not taught


@dataclass(frozen=True)
class Trouble:
    """One thing that is wrong, since when it is known, and a sentence for people."""

    name: str
    images_seen: int
    sentence: str

    def as_row(self) -> dict[str, Any]:
        """As a line of the log says it."""
        return {"kind": "trouble", "images_seen": self.images_seen, "trouble": self.name, "sentence": self.sentence}


def diagnose(rows: Sequence[Row], scores: Sequence[Row], config: Config) -> list[Trouble]:
    """Every trouble that the newest of these rows show; none beside or after a divergence, which brings all others.

    Args:
        rows: of log.jsonl, oldest first.
        scores: the quick ones of metrics.jsonl.
    """
    has_diverged = any(row.get("trouble") == "diverged" for row in rows)
    rows = [row for row in rows if "d_loss" in row]
    if has_diverged or not rows or rows[-1]["images_seen"] < FIRST_STEPS * config.batch:
        return []
    figures = {name: detect(rows, scores, config) for name, (detect, _, _) in TROUBLES.items()}
    found = [name for name, figure in figures.items() if figure]
    named = ["diverged"] if "diverged" in found else found
    return [to_trouble(name, rows[-1]["images_seen"], figures[name] or "") for name in named]


def to_trouble(name: str, images_seen: int, figure: str) -> Trouble:
    """The trouble with its figure, its cause and its remedy in one sentence."""
    _, cause, change = TROUBLES[name]
    return Trouble(name, images_seen, f"{name}: {figure} after {images_seen:,} images; likely {cause}; try {change}")


def _lately(rows: Sequence[Row], config: Config, name: str) -> list[float]:
    """The finite values of a number over the last window, or the last few; none before there are enough of them."""
    since = rows[-1]["images_seen"] - WINDOW * config.images
    known = [row for row in rows if row.get(name) is not None]
    count = max(FEWEST, sum(row["images_seen"] > since for row in known))
    found = [row[name] for row in known[-count:]]
    return found if len(found) >= FEWEST and since >= 0 else []


def _stays(values: Sequence[float], test: Callable[[float], bool]) -> float | None:
    """Their median where all of them pass a test."""
    return statistics.median(values) if values and all(map(test, values)) else None


def _not_finite(rows: Sequence[Row], scores: Sequence[Row], config: Config) -> str | None:
    return None  # the loop itself stops at the number


def _diverged(rows: Sequence[Row], scores: Sequence[Row], config: Config) -> str | None:
    limit = 20.0 if _guessing_loss(config) else 1_000.0
    for name in ("d_loss", "g_loss"):
        found = _stays(_lately(rows, config, name), lambda value: abs(value) > limit)
        if found is not None:
            return f"{name} has stayed beyond {limit:,.0f}, at {found:,.1f},"
    grown = max((row["weights_grown"] for row in rows if "weights_grown" in row), default=0.0)
    return None if grown <= GROWN else f"weights grew {grown:.1f}-fold in the first {FIRST_STEPS} steps, seen"


def _collapse_within(rows: Sequence[Row], scores: Sequence[Row], config: Config) -> str | None:
    found = _stays(_lately(rows, config, "spread_within"), lambda value: value < 0.45)
    told = "" if config.conditioning == "none" else " told the same"
    return None if found is None else f"generated images{told} differ {found:.2f} times as much as real ones"


def _collapse_across(rows: Sequence[Row], scores: Sequence[Row], config: Config) -> str | None:
    asked = f" (--classes {config.classes} shows no others)" if config.classes else ""
    for name, where in (("classes_drawn", "drawn"), ("classes_shown", "in the training images")):
        found = _stays(_lately(rows, config, name), lambda value: value < 0.4)
        if found is not None:
            return f"only {found:.0%} of the data set's classes are {where}{asked}"
    found = _stays(_lately(rows, config, "spread_across"), lambda value: value < 0.25)
    return None if found is None else f"images of different kinds differ {found:.2f} times as much as real ones"


def _discriminator_wins(rows: Sequence[Row], scores: Sequence[Row], config: Config) -> str | None:
    guessing = _guessing_loss(config)
    found = _stays(_lately(rows, config, "d_loss"), lambda value: abs(value) < 0.02 * guessing)
    if found is not None:
        return f"d_loss has stayed at {found:.3f}, where guessing costs {guessing:.2f},"
    if not OBJECTIVES[config.objective].splits_at_zero:
        return None
    real, fake = (_lately(rows, config, name) for name in ("d_real", "d_fake"))
    if config.flip_probability > 0.5:
        real, fake = fake, real  # D is taught to name them the other way round
    found = _stays([r - f for r, f in zip(real, fake, strict=True)], lambda value: value > 0.55)
    return None if found is None else f"the discriminator has kept real and generated images {found:.2f} of 1 apart"


def _generator_wins(rows: Sequence[Row], scores: Sequence[Row], config: Config) -> str | None:
    guessing = _guessing_loss(config)
    found = _stays(_lately(rows, config, "d_loss"), lambda value: value > 0.995 * guessing > 0)
    return None if found is None else f"d_loss has stayed at {found:.3f}, what guessing costs or more,"


def _guessing_loss(config: Config) -> float:
    """What a discriminator pays that says the same of every image; 0 where losses have no scale."""
    nothing = torch.zeros(2)
    return OBJECTIVES[config.objective].d_loss(nothing, nothing).item()


def _vanishing(rows: Sequence[Row], scores: Sequence[Row], config: Config) -> str | None:
    lengths = [row["g_grad"] for row in rows if row.get("g_grad") is not None]
    before = statistics.median(lengths[:FEWEST]) if len(lengths) > FEWEST else 0.0
    found = _stays(_lately(rows, config, "g_grad"), lambda value: value < 1e-3 * before)
    return None if found is None else f"the generator's gradient fell from {before:.2g} to {found:.2g}"


def _memorises(rows: Sequence[Row], scores: Sequence[Row], config: Config) -> str | None:
    found = _stays(_lately(rows, config, "copy_distance"), lambda value: value < 0.75)
    if found is not None:
        return f"generated images lie {found:.2f} times as far from training images as others do"
    found = _stays(_lately(rows, config, "d_overfit"), lambda value: value > 0.9)
    return None if found is None else f"the discriminator takes held-out real images for generated ones ({found:.2f})"


def _stalled(rows: Sequence[Row], scores: Sequence[Row], config: Config) -> str | None:
    ratios = [row["ratio"] for row in scores if row.get("ratio") is not None and "images_seen" in row]
    newest = 6
    if len(ratios) < 2 * newest or min(ratios[-newest:]) < 0.99 * min(ratios[:-newest]):
        return None
    return f"the score has not fallen much below {min(ratios[:-newest]):.2f} in {newest} scores"


Detector = Callable[[Sequence[Row], Sequence[Row], Config], str | None]
# name: detector, likely cause, suggested change
TROUBLES: dict[str, tuple[Detector, str, str]] = {
    "not-finite": (
        _not_finite,
        "a step too long for these losses",
        "lower learning rates, a higher r1 and r2, or --precision float32",
    ),
    "diverged": (
        _diverged,
        "learning rates far too high, or a discriminator without its penalty",
        "a tenth of both learning rates, or r1 and r2 above zero",
    ),
    "collapse-within": (
        _collapse_within,
        "a generator that found one picture the discriminator takes for real, or steps too long for it",
        "lower learning rates, a higher r1 and r2, or --minibatch-stddev",
    ),
    "collapse-across": (
        _collapse_across,
        "a generator that ignores what it is told, or training images of few classes",
        "--conditioning labels or clusters, all classes in the data, or a relativistic objective",
    ),
    "discriminator-wins": (
        _discriminator_wins,
        "a discriminator that learns faster than the generator can follow",
        "a higher r1 and r2, a lower d_learning_rate, or augmentation where there are few images",
    ),
    "generator-wins": (
        _generator_wins,
        "a discriminator too weak, or held down by its penalty or its rate",
        "a lower r1 and r2, a higher d_learning_rate, or a larger d_width",
    ),
    "vanishing-gradient": (
        _vanishing,
        "an objective that is flat where the discriminator is sure",
        "the non-saturating or least-squares objective, or a higher r1",
    ),
    "memorises": (
        _memorises,
        "too few training images for networks of this size",
        "more images, augmentation, a smaller network, or fewer images shown",
    ),
    "stalled": (
        _stalled,
        "a run that has learnt what these choices allow",
        "stopping here, or decaying learning rates (decay_from)",
    ),
}
