"""How learning rates and weights change during a run: pure functions of progress, 0 at the start and 1 at the end."""

import math

import torch
from torch import Tensor

EXTENDED_FACTOR = 0.4  # on learning rates, where a run goes on beyond a decay to 0


def progress_at(images_seen: int, length: int, first_length: int) -> float:
    """Return the share of the schedule that is over.

    It is a half at half the length expected at first, and grows evenly from there to the end.
    """
    middle = first_length / 2
    if images_seen < middle:
        return images_seen / first_length
    return 0.5 + 0.5 * (images_seen - middle) / (length - middle)


def extended_factor(images_seen: int, length: int, images: int) -> float:
    """Return the factor on a learning rate in a run of `images` beyond the end of its schedules, else 0.

    It falls in a straight line to 0 at the end: a restart after a decay, as in arXiv:1608.03983, but lower.
    """
    return EXTENDED_FACTOR * (images - images_seen) / (images - length) if length <= images_seen < images else 0.0


def decay(progress: float, kind: str, start: float, factor: float, *, extended: float = 0.0) -> float:
    """Return the factor on a learning rate: 1 until `start` (where `start` is 1, always), then by `kind`

    - linear: a straight line to 0 at the end,
    - cosine: half a cosine to 0 at the end. Source: arXiv:1608.03983, eq. 5,
    - step: `factor`, and once more after each further `start` of the schedule.

    Args:
        extended: the least factor of linear and cosine, which beyond the end would otherwise stay near 0.
    """
    if progress < start or start >= 1.0:
        return 1.0
    if kind == "step":
        return factor ** (int(progress / start) if start else 1)
    left = max(0.0, 1.0 - progress) / (1.0 - start)
    return max(extended, left if kind == "linear" else 0.5 * (1.0 - math.cos(math.pi * left)))


def ramp(progress: float, first: float, last: float, until: float) -> float:
    """Return the value on the way from `first` to `last` by half a cosine, reached at `until`."""
    if progress >= until:
        return last
    return last + (first - last) * 0.5 * (1.0 + math.cos(math.pi * progress / until))


def adapted_factor(factor: float, d_loss: float, target: float, images: int) -> float:
    """Return the penalties' factor after a step of `images`: larger while D's loss is below `target`; 1 to 1,000.

    A loss that is off by 0.1 for 4,000 images doubles or halves the factor: fast compared with a run of a minute,
    slow compared with the noise of one batch. Adapting a regulariser to D's confidence comes from adaptive
    augmentation, arXiv:2006.06676, section 3.
    """
    return min(1000.0, max(1.0, factor * math.exp2(min(60.0, (target - d_loss) * images / 400.0))))


def adapted_factor_tensor(factor: Tensor, d_loss: Tensor, target: float, images: int) -> Tensor:
    """Return the same of scalar tensors, without reading them."""
    exponent = ((target - d_loss.to(factor.dtype)) * (images / 400.0)).clamp(max=60.0)
    return (factor * torch.exp2(exponent)).clamp(1.0, 1000.0)


def ema_decay(images_seen: float, batch: int, half_life_fraction: float) -> float:
    """Return the EMA's decay in one step, for a half-life that is a fraction of the images seen so far."""
    half_life = half_life_fraction * images_seen
    return float(0.5 ** (batch / half_life)) if half_life > 0 else 0.0
