"""What the judge says of images whose fault is known: the table and the pictures of docs/metrics.md.

    GANSMITH_DATA=... python bench/controls.py mnist                  prints the table
    GANSMITH_DATA=... python bench/controls.py mnist docs/images/controls    draws the pictures

Half of the validation images, which neither a generator nor an evaluator has seen, are spoilt in one way each and
judged as if a generator had drawn them; the other half and the test images are what they are compared with.
"""

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from PIL import Image
from scipy.ndimage import gaussian_filter

from gansmith.data.images import Images
from gansmith.data import load_split
from gansmith.sampling import grid
from gansmith.metrics.features import load_evaluators
from gansmith.metrics.protocol import Real, judge

SAMPLES = 2_000  # of the quick tier
COLUMNS = 12  # images in a row of a picture

Control = Callable[[Images, Images, float], Images]  # fresh real images, training images, strength


def untouched(fresh: Images, fit: Images, strength: float) -> Images:
    return fresh


def copies(fresh: Images, fit: Images, strength: float) -> Images:
    """This share replaced by training images."""
    count = round(strength * len(fresh))
    return _join(fit.shuffled(count), fresh.take(torch.arange(count, len(fresh))))


def blurred_copies(fresh: Images, fit: Images, strength: float) -> Images:
    """This share replaced by training images, blurred a little so that no pixel is equal."""
    count = round(strength * len(fresh))
    return _join(blur(fit.shuffled(count), fit, 0.6), fresh.take(torch.arange(count, len(fresh))))


def missing_class(fresh: Images, fit: Images, strength: float) -> Images:
    """This share of one class left out."""
    assert fresh.labels is not None
    gone = torch.nonzero(fresh.labels == 3)[:, 0]
    gone = gone[: round(strength * len(gone))]
    kept = torch.ones(len(fresh), dtype=torch.bool)
    kept[gone] = False
    return fresh.take(torch.nonzero(kept)[:, 0])


def repeated(fresh: Images, fit: Images, strength: float) -> Images:
    """Each image this many times, so fewer different ones."""
    return fresh.take(torch.arange(len(fresh)) // int(strength))


def prototypes(fresh: Images, fit: Images, strength: float) -> Images:
    """Without this share of each class: those furthest from its mean image, as shrunken latents leave them out."""
    assert fresh.labels is not None
    flat, kept = fresh.pixels.flatten(1).float(), []
    for class_ in fresh.labels.unique():
        rows = torch.nonzero(fresh.labels == class_)[:, 0]
        distance = (flat[rows] - flat[rows].mean(0)).square().sum(1)
        kept.append(rows[distance.argsort()[: round((1 - strength) * len(rows))]])
    return fresh.take(torch.cat(kept))


def blur(fresh: Images, fit: Images, strength: float) -> Images:
    """Gaussian blur with this standard deviation in pixels."""
    pixels = gaussian_filter(fresh.pixels.float().numpy(), (0, 0, strength, strength))
    return replace(fresh, pixels=torch.from_numpy(pixels).round().to(torch.uint8))


def salt(fresh: Images, fit: Images, strength: float) -> Images:
    """This share of pixels white."""
    hit = torch.rand(fresh.pixels.shape, generator=_rng()) < strength
    return replace(fresh, pixels=fresh.pixels.masked_fill(hit, 255))


def shift(fresh: Images, fit: Images, strength: float) -> Images:
    """Everything this many pixels to the right."""
    return replace(fresh, pixels=fresh.pixels.roll(int(strength), 3))


def lift(fresh: Images, fit: Images, strength: float) -> Images:
    """This many grey levels added everywhere."""
    return replace(fresh, pixels=(fresh.pixels.int() + int(strength)).clamp(max=255).to(torch.uint8))


def inverted(fresh: Images, fit: Images, strength: float) -> Images:
    """This share of images with black and white exchanged."""
    rows = torch.rand(len(fresh), generator=_rng()) < strength
    return replace(fresh, pixels=torch.where(rows[:, None, None, None], 255 - fresh.pixels, fresh.pixels))


CONTROLS: dict[str, tuple[Control, tuple[float, ...]]] = {
    "untouched":      (untouched, (0.0,)),
    "copies":         (copies, (0.01, 0.05, 1.0)),
    "blurred-copies": (blurred_copies, (0.05,)),
    "missing-class":  (missing_class, (0.6, 1.0)),
    "repeated":       (repeated, (2, 10, 50)),
    "prototypes":     (prototypes, (0.1, 0.3, 0.5)),
    "blur":           (blur, (0.4, 0.5, 0.7, 1.0)),
    "salt":           (salt, (0.002, 0.005, 0.01, 0.02)),
    "shift":          (shift, (1, 2, 3)),
    "lift":           (lift, (2, 4, 8, 16)),
    "inverted":       (inverted, (0.02, 0.05, 0.2)),
}  # fmt: skip


def _join(first: Images, second: Images) -> Images:
    labels = None if first.labels is None or second.labels is None else torch.cat([first.labels, second.labels])
    return replace(first, pixels=torch.cat([first.pixels, second.pixels]), labels=labels)


def _rng() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def print_table(fresh: Images, real: Real) -> None:
    evaluators = load_evaluators(real.train)
    print("| control | strength | ratio | by evaluator | gates that fail |\n|---|---|---|---|---|")
    for name, (control, strengths) in CONTROLS.items():
        for strength in strengths:
            verdict = judge(control(fresh, real.train, strength).shuffled(SAMPLES), real, evaluators, quick=True)
            by = ", ".join(f"{evaluator} {ratio:.2f}" for evaluator, ratio in verdict.ratios.items())
            failed = ", ".join(
                f"{gate} ({found['figure']} {found['value']:.3g})"
                for gate, found in verdict.gates.items()
                if found["ok"] is False
            )
            print(f"| {name} | {strength:g} | {verdict.ratio:.2f} | {by} | {failed or 'none'} |", flush=True)


def draw_pictures(fresh: Images, real: Real, folder: Path) -> None:
    """One PNG a control, one row of images for each strength."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, (control, strengths) in CONTROLS.items():
        rows = [control(fresh, real.train, strength).shuffled(COLUMNS).pixels for strength in strengths]
        picture = grid(torch.cat(rows), columns=COLUMNS)
        picture.resize((2 * picture.width, 2 * picture.height), Image.Resampling.NEAREST).save(
            folder / f"{name}.png", optimize=True
        )


def main(name: str, *options: str) -> None:
    fit, validation, test = (load_split(name, part) for part in ("train", "validation", "test"))
    mixed = validation.shuffled(len(validation))
    half = len(mixed) // 2
    fresh, other = mixed.take(torch.arange(half)), mixed.take(torch.arange(half, len(mixed)))
    real = Real(fit=fit, validation=other, test=test)
    if options:
        draw_pictures(fresh, real, Path(options[0]))
    else:
        print_table(fresh, real)


if __name__ == "__main__":
    main(*sys.argv[1:])
