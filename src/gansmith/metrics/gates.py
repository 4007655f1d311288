"""Gates: limits that samples must meet for their FD ratio to be valid, as one table with a version.

Each limit is on a figure of METRICS. Where the value of real images depends on the data or on the number of images, the
limit is on the difference from it, which `Limit.null` says. Where images are few, limits are widened to what draws of
as many real images reach, so that chance alone hardly fails any; a gate with a limit that nothing could fail then
does not pass. Nor does one with a limit that other real images do not meet, as where test images are from another
camera than training images.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any

Figures = Mapping[str, Mapping[str, Any]]  # name -> {"value": of the samples, "real": the same of real images}

VERSION = 9  # raised with every change of a limit: verdicts of different versions do not compare
SPREAD = 3.5  # standard deviations of real draws that a limit allows; one in 4,000 strays further if they are normal


@dataclass(frozen=True)
class Limit:
    """The range of one figure, or of its difference from `null`.

    Attributes:
        null: "real" for the same figure of real images, or the name of another figure of the samples.
    """

    figure: str
    low: float | None = None
    high: float | None = None
    null: str | None = None


@dataclass(frozen=True)
class Gate:
    """Limits that together detect one way to a low distance with bad samples, and a sentence on what failing means."""

    meaning: str
    limits: tuple[Limit, ...]


GATES: dict[str, Gate] = {
    "memorisation": Gate(
        "some samples are copies of real images, or all are nearer to them than new real images are",
        (
            Limit("near_copies", high=0.006, null="near_copies_chance"),
            Limit("nearer", high=0.55),
            Limit("authentic", low=-0.05, null="authentic_real"),
            Limit("fd_ratio_least", low=0.5),
        ),
    ),
    "coverage": Gate(
        "modes of the real images are missing, or samples concentrate where real images are dense",
        (
            Limit("coverage", low=0.80),
            Limit("density", low=0.7, high=1.3),
        ),
    ),
    "classes": Gate(
        "some classes are generated far too rarely or too often",
        (
            Limit("rarest_class", low=0.5),
            Limit("class_kl", high=0.02, null="real"),
        ),
    ),
    "recognisability": Gate(
        "too many samples belong to no class, or samples are more typical of their class than real images are",
        (Limit("recognised_excess", low=-0.03, high=0.03),),
    ),
    "diversity": Gate(
        "samples of a class are less diverse than real images of it",
        (Limit("diversity_worst", low=0.85),),
    ),
    "pixels": Gate(
        "grey levels, sharpness or position differ from real images: brightness, blur, noise or an offset",
        (
            Limit("brightness", low=-6.0, high=6.0),
            Limit("black", low=-0.15, high=0.15),
            Limit("bright", low=-0.05, high=0.05),
            Limit("histogram", high=0.05),
            Limit("offset_px", high=0.25),
            Limit("contrast", low=0.9, high=1.1),
            Limit("sharpness", low=0.75, high=1.25),
        ),
    ),
}


def apply_gates(
    metrics: Figures, left_out: Mapping[str, str] | None = None, draws: Sequence[Figures] = ()
) -> dict[str, dict[str, Any]]:
    """Apply each gate to figures name -> {"value", "real"}; "real" is None where it is not measured.

    Args:
        left_out: gates that say nothing about these images, each with the reason.
        draws: the figures of real images in place of the samples, of as many, several times. No limit is less than
            SPREAD standard deviations from their mean.

    Returns:
        name -> {"ok": whether all its limits hold, None where the figures they need are missing, "figure", "value",
        "limit": the figure that is furthest beyond its limit or nearest to it, and that limit, "meaning"}.
    """
    reasons = left_out or {}
    return {
        name: _not_run(reasons[name]) if name in reasons else _apply(gate, metrics, draws)
        for name, gate in GATES.items()
    }


_TOO_FEW = "the images are too few to measure it"


def _apply(gate: Gate, metrics: Figures, draws: Sequence[Figures]) -> dict[str, Any]:
    """Return the result of one gate, decided by the limit with the least room."""
    checks, idle = [], ""
    for limit in gate.limits:
        base = _null(limit, metrics)
        if base is None:
            continue
        value = metrics[limit.figure]["value"]
        of_real = [draw[limit.figure]["value"] - null for draw in draws if (null := _null(limit, draw)) is not None]
        if not all(map(math.isfinite, (base, *of_real))):
            continue  # of so few images, real ones lack a class of others
        of_other = metrics[limit.figure].get("real") if limit.null is None else None
        for bound, sign in ((limit.low, 1.0), (limit.high, -1.0)):
            if bound is None:
                continue
            if len(of_real) > 1:
                widened = sign * min(sign * bound, sign * fmean(of_real) - SPREAD * stdev(of_real))
                if limit.null is None and bound > 0 >= widened:
                    idle = _TOO_FEW  # no such figure is negative
                    continue
                bound = widened
            if of_other is not None and sign * (of_other - bound) < 0:
                idle = idle or f"other real images do not meet its limit on {limit.figure} either"
                continue
            room = sign * (value - (base + bound))
            # Relative to the allowed range, so that figures of different units compare.
            checks.append((room / (abs(bound) or 1.0), limit.figure, value, base + bound))
    if not checks or (idle and min(checks)[0] >= 0):
        return _not_run(idle or _TOO_FEW)
    room, figure, value, bound = min(checks)
    return {"ok": room >= 0, "figure": figure, "value": value, "limit": bound, "meaning": gate.meaning}


def _null(limit: Limit, metrics: Figures) -> float | None:
    """Return what the value of a figure is compared with; None where either is missing."""
    if metrics.get(limit.figure, {}).get("value") is None:
        return None
    if limit.null is None:
        return 0.0
    found: float | None = metrics[limit.figure]["real"] if limit.null == "real" else metrics[limit.null]["value"]
    return found


def _not_run(reason: str) -> dict[str, Any]:
    """Return the result of a gate that did not run."""
    return {"ok": None, "figure": None, "value": None, "limit": None, "meaning": reason}
