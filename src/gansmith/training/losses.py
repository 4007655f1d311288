"""Objectives: pairs of losses on logits; label smoothing and flipping; auxiliary losses.

A loss takes the logits of real and of generated images, both (N,), and returns a scalar; it never runs an optimiser
and never sees a network. Both losses get both logits, which relativistic ones need.

>>> gs.OBJECTIVES["hinge"].d_loss(torch.tensor([2.0, 0.0]), torch.tensor([-3.0, -1.0])).item()
0.5
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, relu, softplus

from gansmith.config import Config, choose
from gansmith.errors import ConfigError
from gansmith.processes import mean
from gansmith.randomness import drawn

_CPU = torch.device("cpu")
Loss = Callable[[Tensor, Tensor], Tensor]
# A loss that may draw its targets at every step.
SteppedLoss = Callable[[Tensor, Tensor, torch.Generator], Tensor]
PerLogit = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Objective:
    """A pair of losses and what a step must know of it. A program may add its own to `OBJECTIVES`.

    >>> def d_loss(real_logits, fake_logits):
    ...     return (real_logits - 1).abs().mean() + fake_logits.abs().mean()
    >>> def g_loss(real_logits, fake_logits):
    ...     return (fake_logits - 1).abs().mean()
    >>> gs.OBJECTIVES["absolute"] = gs.Objective(d_loss, g_loss)
    >>> gs.train("mlp-small", objective="absolute", images=640, out="mine", progress="none", g_width=16, d_width=16)
    <Run mine: finished, 640 images, validation FD ratio ...>

    Attributes:
        d_loss, g_loss: from (N,) real and (N,) fake logits to a scalar.
        toward: for losses on each logit by itself, the (N,) costs of a logit whose target is real and of one whose
            target is fake; None for losses without targets. Smoothed targets mix the two.
        g_sees_real: whether the generator's loss depends on the real logits.
        d_is_positive, g_is_positive: whether that loss is never below zero, so that a bound on it means something.
        is_zero_sum: whether the generator's loss is the discriminator's on its images, negated.
        needs_lipschitz: whether D's loss is unbounded unless D is (nearly) Lipschitz.
        classifies: whether D is an auxiliary classifier too.
        splits_at_zero: whether a logit above zero means real.
        is_balanced: whether D's logit is a reconstruction error, negated, and BEGAN's balance weighs its two halves.
    """

    d_loss: Loss
    g_loss: Loss
    toward: tuple[PerLogit, PerLogit] | None = None
    g_sees_real: bool = False
    d_is_positive: bool = True
    g_is_positive: bool = True
    is_zero_sum: bool = False
    needs_lipschitz: bool = False
    classifies: bool = False
    splits_at_zero: bool = False
    is_balanced: bool = False


def non_saturating_d(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """Return the cross-entropy of telling real from fake. Source: Goodfellow et al., arXiv:1406.2661, eq. 1."""
    return softplus(-real_logits).mean() + softplus(fake_logits).mean()


def non_saturating_g(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """Return the cross-entropy of calling generated images real. Source: arXiv:1406.2661, section 3."""
    return softplus(-fake_logits).mean()


def minimax_g(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """Return log(1 - D(G(z))), whose gradient vanishes where D is sure. Source: arXiv:1406.2661, eq. 1."""
    return -softplus(fake_logits).mean()


def least_squares_d(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """Return half the squared distance to 1 and to 0. Source: LSGAN, arXiv:1611.04076, eq. 2 with a=0, b=1."""
    return 0.5 * (real_logits - 1).square().mean() + 0.5 * fake_logits.square().mean()


def least_squares_g(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """Return half the squared distance of generated images to 1. Source: LSGAN, arXiv:1611.04076, eq. 2 with c=1."""
    return 0.5 * (fake_logits - 1).square().mean()


def wasserstein_d(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """Return how much higher D scores generated images than real ones. Source: WGAN, arXiv:1701.07875, eq. 2."""
    return fake_logits.mean() - real_logits.mean()


def wasserstein_g(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """Return the negated score of generated images; the hinge objective's too. Source: WGAN, arXiv:1701.07875."""
    return -fake_logits.mean()


def hinge_d(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """Return how far real logits are below 1 and generated ones above -1. Source: Geometric GAN, arXiv:1705.02894."""
    return relu(1 - real_logits).mean() + relu(1 + fake_logits).mean()


def relativistic_d(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """Compare each real image with one generated image. Source: R3GAN, arXiv:2501.05441, eq. 2."""
    return softplus(fake_logits - real_logits).mean()


def relativistic_g(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """Compare the same pairs with real and generated exchanged. Source: R3GAN, arXiv:2501.05441, eq. 2."""
    return softplus(real_logits - fake_logits).mean()


def relativistic_average_d(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """Compare each image with the mean of the other kind. Source: RaSGAN, arXiv:1807.00734."""
    real_mean, fake_mean = mean(real_logits.mean()), mean(fake_logits.mean())
    return softplus(fake_mean - real_logits).mean() + softplus(fake_logits - real_mean).mean()


def relativistic_average_g(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """Compare the same with real and generated exchanged. Source: RaSGAN, arXiv:1807.00734."""
    return relativistic_average_d(fake_logits, real_logits)


_CROSS_ENTROPY: tuple[PerLogit, PerLogit] = (lambda x: softplus(-x), softplus)
_SQUARES: tuple[PerLogit, PerLogit] = (lambda x: 0.5 * (x - 1).square(), lambda x: 0.5 * x.square())

OBJECTIVES: dict[str, Objective] = {
    "non-saturating": Objective(non_saturating_d, non_saturating_g, _CROSS_ENTROPY, splits_at_zero=True),
    "minimax": Objective(
        non_saturating_d,
        minimax_g,
        _CROSS_ENTROPY,
        g_is_positive=False,
        is_zero_sum=True,
        splits_at_zero=True,
    ),
    "least-squares": Objective(least_squares_d, least_squares_g, _SQUARES),
    "wasserstein": Objective(
        wasserstein_d, wasserstein_g, d_is_positive=False, g_is_positive=False, needs_lipschitz=True
    ),
    "hinge": Objective(hinge_d, wasserstein_g, g_is_positive=False, splits_at_zero=True),
    "relativistic": Objective(relativistic_d, relativistic_g, g_sees_real=True),
    "relativistic-average": Objective(relativistic_average_d, relativistic_average_g, g_sees_real=True),
    # ACGAN: the non-saturating pair, and D is an auxiliary classifier. Source: Odena et al., arXiv:1610.09585.
    "auxiliary-classifier": Objective(
        non_saturating_d, non_saturating_g, _CROSS_ENTROPY, classifies=True, splits_at_zero=True
    ),
    # BEGAN: D's logit is a negated reconstruction error, and a balance weighs generated images. arXiv:1703.10717.
    "boundary-equilibrium": Objective(
        wasserstein_d, wasserstein_g, d_is_positive=False, g_is_positive=False, is_balanced=True
    ),
}
BUILT_IN_OBJECTIVES = dict(OBJECTIVES)  # a program may add its own rows


def build_losses(config: Config) -> tuple[SteppedLoss, SteppedLoss]:
    """Return the two losses of a run, with its targets; both take a generator that draws the step's targets.

    A target t between the two ends mixes their costs, t * real + (1 - t) * fake. For cross-entropy that is the
    cross-entropy with target t; for least squares it differs from the squared distance to t by a constant. Flipped
    labels swap the targets of real and generated images. The generator's target is the hard one that D mostly has for
    real images, or with `g_targets = "smoothed"` the smoothed one. Sources: one-sided label smoothing, which keeps
    the generator's target at 1, arXiv:1606.03498, section 3.4; flipping and random targets are tutorial practice.

    Raises ConfigError for smoothed or flipped labels with an objective that has no targets.
    """
    objective: Objective = choose(OBJECTIVES, config.objective, "objective")
    if not (config.label_smoothing or config.fake_label_smoothing or config.label_flipping):
        return (
            lambda real, fake, rng: objective.d_loss(real, fake),
            lambda real, fake, rng: objective.g_loss(real, fake),
        )
    if objective.toward is None:
        raise ConfigError(
            f"label smoothing and flipping mean nothing to the {config.objective} objective, which compares logits and "
            "has no targets; use non-saturating or least-squares, or set label_smoothing and label_flipping to 0"
        )
    real_target, fake_target = _target_ranges(config)
    is_mostly_flipped = config.label_flipping > 0.5
    toward_real, toward_fake = (fake_target, real_target) if is_mostly_flipped else (real_target, fake_target)
    if config.g_targets == "hard":
        toward_real, toward_fake = ((0.0, 0.0), (1.0, 1.0)) if is_mostly_flipped else ((1.0, 1.0), (0.0, 0.0))
    cost = partial(_cost_of_target, objective.toward)

    def d_loss(real: Tensor, fake: Tensor, rng: torch.Generator) -> Tensor:
        share = drawn(lambda rows: torch.rand((), generator=rng), 1, device=_CPU, shared=True)  # for the whole batch
        flip = bool(share < config.label_flipping)
        targets = (fake_target, real_target) if flip else (real_target, fake_target)
        return cost(real, targets[0], rng) + cost(fake, targets[1], rng)

    def g_loss(real: Tensor, fake: Tensor, rng: torch.Generator) -> Tensor:
        return -cost(fake, toward_fake, rng) if objective.is_zero_sum else cost(fake, toward_real, rng)

    return d_loss, g_loss


def flips_by_chance(config: Config) -> bool:
    """Return whether some steps flip labels and others do not."""
    return 0 < config.label_flipping < 1


def _target_ranges(config: Config) -> tuple[tuple[float, float], tuple[float, float]]:
    """Return the ends of D's targets for real and for generated images, equal where targets are not random."""
    real, fake = 1.0 - config.label_smoothing, config.fake_label_smoothing
    return ((real, 1.0), (0.0, fake)) if config.random_labels else ((real, real), (fake, fake))


def _cost_of_target(
    toward: tuple[PerLogit, PerLogit], logits: Tensor, target_range: tuple[float, float], rng: torch.Generator
) -> Tensor:
    """Return the mean cost of (N,) logits whose targets are drawn from this range."""
    low, high = target_range
    dtype = logits.dtype
    drawn_shares = drawn(lambda rows: torch.rand(rows, generator=rng, dtype=dtype), len(logits), device=logits.device)
    target = low + (high - low) * drawn_shares
    return (target * toward[0](logits) + (1 - target) * toward[1](logits)).mean()


def class_loss(class_logits: Tensor, y: Tensor) -> Tensor:
    """Return the cross-entropy of (N, K) class logits. Source: arXiv:1610.09585, eq. 3."""
    return cross_entropy(class_logits, y)


def rotation_loss(rotation_logits: Tensor) -> Tensor:
    """Return the cross-entropy of (4 N, 4) logits of N images as they are, then turned by one, two and three quarters.

    Source: arXiv:1811.11212, section 3.
    """
    turns = torch.arange(4, device=rotation_logits.device).repeat_interleave(len(rotation_logits) // 4)
    return cross_entropy(rotation_logits, turns)


def feature_distance(real_features: Tensor, fake_features: Tensor) -> Tensor:
    """Return feature matching's squared distance between the mean features (N, ...) of two batches.

    Source: arXiv:1606.03498, section 3.1.
    """
    return (mean(real_features.mean(0)) - mean(fake_features.mean(0))).square().sum()


def guessing_loss(config: Config) -> float:
    """Return D's loss where it rates every image the same; 0 where losses have no scale, or are another program's."""
    if config.objective not in OBJECTIVES:
        return 0.0
    same = (torch.full((2,), logit) for logit in (0.0, 0.5))  # least squares are smallest at 0.5
    try:
        return min(float(OBJECTIVES[config.objective].d_loss(logits, logits)) for logits in same)
    except Exception:  # of another program's loss, which is tried, and its bug reported, where training begins
        return 0.0
