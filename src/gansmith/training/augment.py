"""Differentiable augmentation of batches on their way into the discriminator.

Each function takes images (N, C, H, W) in [-1, 1] and a random generator, changes every image by a draw of its own, and
returns a new tensor; nothing is clamped. Real and generated images go through the same ones, so D does not memorise the
training set and G does not imitate the augmentation.
Source: Zhao et al., Differentiable Augmentation, arXiv:2006.10738, with its strengths.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from gansmith.data.images import CHUNK
from gansmith.randomness import drawn, one_each

Augmentation = Callable[[Tensor, torch.Generator], Tensor]

# Of the adaptive probability: the sign it aims at, and how many images it takes from 0 to 1.
# Source: Karras et al., arXiv:2006.06676, section 3.
TARGET_SIGN = 0.6
ADAPTATION_IMAGES = 500_000


def augment(
    images: Tensor, rng: torch.Generator, *, changes: Sequence[Augmentation], probability: float | Tensor = 1.0
) -> Tensor:
    """Return the images after every change in turn, each applied to each image with this probability.

    A probability in a tensor is one that reading would wait for: it may be zero, and still numbers are drawn.
    """
    is_known = not isinstance(probability, Tensor)
    if is_known and probability <= 0:
        return images
    for change in changes:
        changed = change(images, rng)
        chosen = one_each(images, rng) < probability
        images = changed if is_known and probability >= 1 else torch.where(chosen, changed, images)
    return images


def adapt(probability: Tensor, mean_sign: Tensor, images: int) -> Tensor:
    """Return the probability of changes after this many more images: higher where D overfits its training images.

    Args:
        probability, mean_sign: scalars, which are not read.
        mean_sign: mean over real images of the sign of D's logit: 1 when all of them look real to it, 0 when it cannot
            tell.

    Source: Karras et al., arXiv:2006.06676, eq. 1 (r_t) and section 3, where it changes every fourth step.
    """
    step = images / ADAPTATION_IMAGES
    return torch.where(mean_sign > TARGET_SIGN, probability + step, probability - step).clamp(0.0, 1.0)


def brightness(images: Tensor, rng: torch.Generator) -> Tensor:
    """Make each image lighter or darker by up to half."""
    return images + _uniform(images, -0.5, 0.5, rng)


def saturation(images: Tensor, rng: torch.Generator) -> Tensor:
    """Scale each image's colours by 0 to 2 around each pixel's mean; grey images stay as they are."""
    grey = images.mean(1, keepdim=True)
    return torch.lerp(grey.expand_as(images), images, _uniform(images, 0.0, 2.0, rng))


def contrast(images: Tensor, rng: torch.Generator) -> Tensor:
    """Scale each image's distance from its own mean by 0.5 to 1.5."""
    mean = images.mean((1, 2, 3), keepdim=True)
    return torch.lerp(mean.expand_as(images), images, _uniform(images, 0.5, 1.5, rng))


def translation(images: Tensor, rng: torch.Generator) -> Tensor:
    """Move each image by up to an eighth of its side each way, filling with zeros."""
    return _moved(images, rng, reach=(images.shape[-1] + 4) // 8)  # an eighth, rounded


def shift(images: Tensor, rng: torch.Generator) -> Tensor:
    """Move each image by up to a fourteenth of its side each way, filling with black."""
    return _moved(images + 1, rng, reach=(images.shape[-1] + 7) // 14) - 1


def mirror(images: Tensor, rng: torch.Generator) -> Tensor:
    """Mirror every image left to right."""
    return images.flip(-1)


def mirror_accuracy(pixels: Tensor, labels: Tensor | None) -> float:
    """Return how often a linear classifier tells an image from its mirror image; 0.5 is chance.

    The classifier's weights are the mean difference between images and their mirror images, over one half of a class;
    it is tried on the other half. Near 0.5 a set looks the same in a mirror.

    Args:
        pixels: (N, C, H, W).
        labels: (N,); None for one class.
    """
    small = torch.cat([adaptive_avg_pool2d(part.float().mean(1, keepdim=True), 16) for part in pixels.split(CHUNK)])
    odd = (small - small.flip(-1)).flatten(1)
    labels = torch.zeros(len(odd), dtype=torch.int64) if labels is None else labels
    shares = torch.zeros(len(odd))
    mixed = torch.randperm(len(odd), generator=torch.Generator().manual_seed(0))
    for label in labels.unique():
        rows = mixed[labels[mixed] == label]
        for half, other in ((rows[::2], rows[1::2]), (rows[1::2], rows[::2])):
            along = odd[half] @ odd[other].sum(0)
            shares[half] = (along > 0).float() + 0.5 * (along == 0)
    return shares.mean().item()


def _moved(images: Tensor, rng: torch.Generator, *, reach: int) -> Tensor:
    """Move each image by a draw of up to `reach` pixels each way, filling with zeros."""
    n, size = len(images), images.shape[-1]
    steps = drawn(
        lambda rows: torch.randint(-reach, reach + 1, (2, rows, 1, 1, 1), generator=rng), n, dim=1, device=images.device
    )
    place = torch.arange(size, device=images.device)
    # Row i of `moves` picks the pixel that arrives at i: a product of matrices is cheap and differentiates twice.
    down, right = (place == place.view(size, 1) + steps).to(images.dtype)  # (N, 1, H, H) each
    moved: Tensor = down @ images @ right.mT
    return moved


def cutout(images: Tensor, rng: torch.Generator) -> Tensor:
    """Set a square of half the side, around any pixel, to zero in each image."""
    n, size = len(images), images.shape[-1]
    side = (size + 1) // 2
    centres = drawn(
        lambda rows: torch.randint(0, size + 1, (2, rows, 1), generator=rng), n, dim=1, device=images.device
    )
    offsets = torch.arange(size, device=images.device) - centres
    rows, columns = (offsets >= -(side // 2)) & (offsets < side - side // 2)  # (N, H) each
    hidden: Tensor = rows.unsqueeze(2) & columns.unsqueeze(1)  # (N, H, W)
    return images * ~hidden.unsqueeze(1)


CHANGES: tuple[Augmentation, ...] = (brightness, saturation, contrast, translation, cutout)
# By name: the changes, and the probability of each; adaptive augmentation starts from its own.
# By `shifts` most images stay as they are, so that G learns where images belong (docs/experiments.md).
AUGMENTATIONS: dict[str, tuple[Sequence[Augmentation], float]] = {
    "diffaugment": (CHANGES, 1.0),
    "adaptive": (CHANGES, 0.0),
    "shifts": ((shift,), 0.3),
    "flips": ((mirror, shift), 0.5),
}


def _uniform(images: Tensor, low: float, high: float, rng: torch.Generator) -> Tensor:
    """Return one number for each image, (N, 1, 1, 1)."""
    return low + (high - low) * one_each(images, rng).to(images.dtype)
