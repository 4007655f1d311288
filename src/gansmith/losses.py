"""What each player wants: loss pairs on logits, soft targets, and the zero-centred gradient penalty.

A loss takes the logits of real and of generated images, both (N,), and returns a scalar; it never runs an optimiser
and never sees a network. Both players see both logits, which relativistic losses need.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import softplus

from gansmith.config import Config, choose

Loss = Callable[[Tensor, Tensor], Tensor]
# A loss whose targets may be drawn anew at every step.
SteppedLoss = Callable[[Tensor, Tensor, torch.Generator], Tensor]
PerLogit = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Objective:
    """A loss pair and what the step may do with it.

    Attributes:
        d_loss, g_loss: the scalar losses.
        toward: for losses that judge each logit alone, the (N,) costs of a logit that should say real and of one
            that should say fake; None for losses that compare pairs. Soft targets are mixtures of the two.
        g_sees_real: whether the generator's loss depends on the real logits.
        joint: whether the discriminator's loss always rises with a generated image's logit, so that one backward
            pass through D can serve both players.
    """

    d_loss: Loss
    g_loss: Loss
    toward: tuple[PerLogit, PerLogit] | None
    g_sees_real: bool
    joint: bool


def non_saturating_d(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """Cross-entropy of telling real from fake. Source: Goodfellow et al., arXiv:1406.2661, eq. 1."""
    return softplus(-real_logits).mean() + softplus(fake_logits).mean()


def non_saturating_g(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """Cross-entropy of passing for real. Source: Goodfellow et al., arXiv:1406.2661, section 3."""
    return softplus(-fake_logits).mean()


def least_squares_d(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """Half the squared distance to 1 and to 0. Source: LSGAN, arXiv:1611.04076, eq. 2 with a=0, b=1."""
    return 0.5 * (real_logits - 1).square().mean() + 0.5 * fake_logits.square().mean()


def least_squares_g(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """Half the squared distance of generated images to 1. Source: LSGAN, arXiv:1611.04076, eq. 2 with c=1."""
    return 0.5 * (fake_logits - 1).square().mean()


def relativistic_d(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """Each real image against one generated image. Source: R3GAN, arXiv:2501.05441, eq. 2."""
    return softplus(fake_logits - real_logits).mean()


def relativistic_g(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """The same pairs the other way round. Source: R3GAN, arXiv:2501.05441, eq. 2."""
    return softplus(real_logits - fake_logits).mean()


OBJECTIVES: dict[str, Objective] = {
    "non-saturating": Objective(
        non_saturating_d, non_saturating_g, (lambda x: softplus(-x), softplus), g_sees_real=False, joint=True
    ),
    "least-squares": Objective(
        least_squares_d,
        least_squares_g,
        (lambda x: 0.5 * (x - 1).square(), lambda x: 0.5 * x.square()),
        g_sees_real=False,
        joint=False,
    ),
    "relativistic": Objective(relativistic_d, relativistic_g, None, g_sees_real=True, joint=True),
}


def build_losses(config: Config) -> tuple[SteppedLoss, SteppedLoss]:
    """The two losses of a run, with its soft targets; both take a generator that draws the step's targets.

    A target t between the two ends mixes their costs, t * real + (1 - t) * fake. For cross-entropy that is the
    cross-entropy with target t; for least squares it differs from the squared distance to t by a constant. Flipped
    targets give real images the fake range and the reverse; the generator steps towards the range that D gives to
    real images most of the time. Sources: one-sided smoothing, arXiv:1606.03498, section 3.4; flipping and ranges
    are tutorial practice.

    Raises ValueError for soft targets with an objective that compares pairs.
    """
    objective: Objective = choose(OBJECTIVES, config.objective, "objective")
    real_range = (config.real_target_low, config.real_target_high)
    fake_range = (config.fake_target_low, config.fake_target_high)
    if (real_range, fake_range, config.flip_probability) == ((1.0, 1.0), (0.0, 0.0), 0.0):
        return (
            lambda real, fake, rng: objective.d_loss(real, fake),
            lambda real, fake, rng: objective.g_loss(real, fake),
        )
    if objective.toward is None:
        raise ValueError(
            f"soft or flipped targets mean nothing to the {config.objective} objective, which compares pairs; "
            "use non-saturating or least-squares, or leave the targets at 1 and 0"
        )
    toward_real, toward_fake = objective.toward

    def cost(logits: Tensor, target_range: tuple[float, float], rng: torch.Generator) -> Tensor:
        low, high = target_range
        target = low + (high - low) * torch.rand(logits.shape, generator=rng)
        return (target * toward_real(logits) + (1 - target) * toward_fake(logits)).mean()

    def d_loss(real: Tensor, fake: Tensor, rng: torch.Generator) -> Tensor:
        flip = bool(torch.rand((), generator=rng) < config.flip_probability)
        ranges = (fake_range, real_range) if flip else (real_range, fake_range)
        return cost(real, ranges[0], rng) + cost(fake, ranges[1], rng)

    def g_loss(real: Tensor, fake: Tensor, rng: torch.Generator) -> Tensor:
        return cost(fake, fake_range if config.flip_probability > 0.5 else real_range, rng)

    return d_loss, g_loss


def squared_slope(slope: Tensor) -> Tensor:
    """(N,) squared length of D's gradient at each image, from that gradient (N, C, H, W).

    On real images this is R1, on generated ones R2, before the factor gamma / 2.
    Source: Mescheder et al., arXiv:1801.04406, eq. 9 and 10.
    """
    return slope.square().flatten(1).sum(1)
