"""Evaluate images with a known defect: the table and the pictures of docs/metrics.md.

    GANSMITH_DATA=... python scripts/controls.py mnist                  prints the table
    GANSMITH_DATA=... python scripts/controls.py mnist docs/images/controls    draws the pictures
    python scripts/controls.py PATH                                            for pictures of one's own

Half of the validation images, which neither a generator nor an evaluator has seen, get one defect each and are
evaluated as if they were samples; they are compared with the other half and with the test images.
"""

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from PIL import Image
from scipy.ndimage import gaussian_filter

from gansmith.data import load_split
from gansmith.data.images import Images
from gansmith.metrics.evaluators import find_evaluators
from gansmith.metrics.protocol import Real, evaluate_samples
from gansmith.pictures.grids import grid

SAMPLES = 2_000  # of the quick tier
COLUMNS = 12  # images in a row of a picture

Control = Callable[[Images, Images, float], Images]  # fresh real images, training images, strength


def untouched(fresh: Images, train: Images, strength: float) -> Images:
    """Return real images as they are."""
    return fresh


def copies(fresh: Images, train: Images, strength: float) -> Images:
    """Replace this share by training images."""
    count = round(strength * len(fresh))
    return _join(train.shuffled(count), fresh.take(torch.arange(count, len(fresh))))


def blurred_copies(fresh: Images, train: Images, strength: float) -> Images:
    """Replace this share by training images, blurred a little so that no pixel is equal."""
    count = round(strength * len(fresh))
    return _join(blur(train.shuffled(count), train, 0.6), fresh.take(torch.arange(count, len(fresh))))


def missing_class(fresh: Images, train: Images, strength: float) -> Images:
    """Remove this share of one class."""
    assert fresh.labels is not None
    gone = torch.nonzero(fresh.labels == 3)[:, 0]
    gone = gone[: round(strength * len(gone))]
    kept = torch.ones(len(fresh), dtype=torch.bool)
    kept[gone] = False
    return fresh.take(torch.nonzero(kept)[:, 0])


def one_class(fresh: Images, train: Images, strength: float) -> Images:
    """Keep this class alone."""
    assert fresh.labels is not None
    return fresh.take(torch.nonzero(fresh.labels == int(strength))[:, 0])


def repeated(fresh: Images, train: Images, strength: float) -> Images:
    """Repeat each image this many times, so that fewer are different."""
    return fresh.take(torch.arange(len(fresh)) // int(strength))


def prototypes(fresh: Images, train: Images, strength: float) -> Images:
    """Remove this share of each class, the images furthest from its mean, as truncated latents do."""
    assert fresh.labels is not None
    flat, kept = fresh.pixels.flatten(1).float(), []
    for class_ in fresh.labels.unique():
        rows = torch.nonzero(fresh.labels == class_)[:, 0]
        distance = (flat[rows] - flat[rows].mean(0)).square().sum(1)
        kept.append(rows[distance.argsort()[: round((1 - strength) * len(rows))]])
    return fresh.take(torch.cat(kept))


def blur(fresh: Images, train: Images, strength: float) -> Images:
    """Blur with a Gaussian of this standard deviation in pixels."""
    pixels = gaussian_filter(fresh.pixels.float().numpy(), (0, 0, strength, strength))
    return replace(fresh, pixels=torch.from_numpy(pixels).round().to(torch.uint8))


def salt(fresh: Images, train: Images, strength: float) -> Images:
    """Make this share of pixels white."""
    hit = torch.rand(fresh.pixels.shape, generator=_rng()) < strength
    return replace(fresh, pixels=fresh.pixels.masked_fill(hit, 255))


def shift(fresh: Images, train: Images, strength: float) -> Images:
    """Shift all images this many pixels to the right."""
    return replace(fresh, pixels=fresh.pixels.roll(int(strength), 3))


def lift(fresh: Images, train: Images, strength: float) -> Images:
    """Add this many grey levels everywhere."""
    return replace(fresh, pixels=(fresh.pixels.int() + int(strength)).clamp(max=255).to(torch.uint8))


def inverted(fresh: Images, train: Images, strength: float) -> Images:
    """Exchange black and white in this share of images."""
    rows = torch.rand(len(fresh), generator=_rng()) < strength
    return replace(fresh, pixels=torch.where(rows[:, None, None, None], 255 - fresh.pixels, fresh.pixels))


CONTROLS: dict[str, tuple[Control, tuple[float, ...]]] = {
    "untouched":      (untouched, (0.0,)),
    "copies":         (copies, (0.01, 0.05, 1.0)),
    "blurred-copies": (blurred_copies, (0.05,)),
    "missing-class":  (missing_class, (0.6, 1.0)),
    "one-class":      (one_class, (3,)),
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
    evaluators = find_evaluators(real.train)
    print("| control | strength | FD ratio | by evaluator | gates that fail |\n|---|---|---|---|---|")
    for name, (control, strengths) in CONTROLS.items():
        for strength in strengths:
            samples = control(fresh, real.train, strength).shuffled(SAMPLES)
            verdict = evaluate_samples(samples, real, evaluators, quick=True)
            by = ", ".join(f"{evaluator} {ratio:.2f}" for evaluator, ratio in verdict.fd_ratios.items())
            failed = ", ".join(
                f"{gate} ({found['figure']} {found['value']:.3g})"
                for gate, found in verdict.gates.items()
                if found["ok"] is False
            )
            print(f"| {name} | {strength:g} | {verdict.fd_ratio:.2f} | {by} | {failed or 'none'} |", flush=True)


def draw_pictures(fresh: Images, real: Real, folder: Path) -> None:
    """Write one PNG for each control, with a row of images for each strength."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, (control, strengths) in CONTROLS.items():
        rows = [control(fresh, real.train, strength).shuffled(COLUMNS).pixels for strength in strengths]
        picture = grid(torch.cat(rows), columns=COLUMNS)
        picture.resize((2 * picture.width, 2 * picture.height), Image.Resampling.NEAREST).save(
            folder / f"{name}.png", optimize=True
        )


def main(name: str, *options: str) -> None:
    train, validation, test = (load_split(name, part) for part in ("train", "validation", "test"))
    mixed = validation.shuffled(len(validation))
    half = len(mixed) // 2
    fresh, other = mixed.take(torch.arange(half)), mixed.take(torch.arange(half, len(mixed)))
    real = Real(train=train, validation=other, test=test)
    if options:
        draw_pictures(fresh, real, Path(options[0]))
    else:
        print_table(fresh, real)


if __name__ == "__main__":
    main(*sys.argv[1:])
