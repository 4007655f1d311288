"""What each player wants: loss pairs on logits, soft targets, losses beside them, and gradient penalties.

A loss takes the logits of real and of generated images, both (N,), and returns a scalar; it never runs an optimiser
and never sees a network. Both players see both logits, which relativistic losses need. A penalty takes D as a function
of images alone and returns (N,) values, not yet weighted.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, relu, softplus

from gansmith.config import Config, choose

Loss = Callable[[Tensor, Tensor], Tensor]
# A loss whose targets may be drawn anew at every step.
SteppedLoss = Callable[[Tensor, Tensor, torch.Generator], Tensor]
PerLogit = Callable[[Tensor], Tensor]
Scorer = Callable[[Tensor], Tensor]
Penalty = Callable[[Scorer, Tensor, Tensor, torch.Generator], Tensor]


@dataclass(frozen=True)
class Objective:
    """A loss pair and what the step may do with it.

    Attributes:
        d_loss, g_loss: the scalar losses.
        toward: for losses that judge each logit alone, the (N,) costs of a logit that should say real and of one
            that should say fake; None for losses that know no targets. Soft targets are mixtures of the two.
        g_sees_real: whether the generator's loss depends on the real logits.
        joint: whether the discriminator's loss always rises with a generated image's logit, so that one backward
            pass through D can serve both players.
        is_positive: whether neither loss ever falls below zero, so that a bound on it means something.
        is_zero_sum: whether the generator only wants the discriminator's loss on its images to rise.
        needs_slope_limit: whether D's loss is unbounded unless D's slope is limited.
        classifies: whether D must also name the class of an image.
        splits_at_zero: whether D calls an image real by a logit above zero.
        is_balanced: whether D's logit is an error of redrawing, negated, and a balance weighs its two halves.
    """

    d_loss: Loss
    g_loss: Loss
    toward: tuple[PerLogit, PerLogit] | None = None
    g_sees_real: bool = False
    joint: bool = False
    is_positive: bool = True
    is_zero_sum: bool = False
    needs_slope_limit: bool = False
    classifies: bool = False
    splits_at_zero: bool = False
    is_balanced: bool = False


def non_saturating_d(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """Cross-entropy of telling real from fake. Source: Goodfellow et al., arXiv:1406.2661, eq. 1."""
    return softplus(-real_logits).mean() + softplus(fake_logits).mean()


def non_saturating_g(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """Cross-entropy of passing for real. Source: Goodfellow et al., arXiv:1406.2661, section 3."""
    return softplus(-fake_logits).mean()


def minimax_g(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """What D gains from generated images, log(1 - D(G(z))): flat where D is sure. Source: arXiv:1406.2661, eq. 1."""
    return -softplus(fake_logits).mean()


def least_squares_d(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """Half the squared distance to 1 and to 0. Source: LSGAN, arXiv:1611.04076, eq. 2 with a=0, b=1."""
    return 0.5 * (real_logits - 1).square().mean() + 0.5 * fake_logits.square().mean()


def least_squares_g(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """Half the squared distance of generated images to 1. Source: LSGAN, arXiv:1611.04076, eq. 2 with c=1."""
    return 0.5 * (fake_logits - 1).square().mean()


def wasserstein_d(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """How much higher D scores generated images than real ones. Source: WGAN, arXiv:1701.07875, eq. 2."""
    return fake_logits.mean() - real_logits.mean()


def wasserstein_g(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """The score of generated images, negated; also the hinge objective's. Source: WGAN, arXiv:1701.07875."""
    return -fake_logits.mean()


def hinge_d(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """How far real images fall short of 1 and generated ones exceed -1. Source: Geometric GAN, arXiv:1705.02894."""
    return relu(1 - real_logits).mean() + relu(1 + fake_logits).mean()


def relativistic_d(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """Each real image against one generated image. Source: R3GAN, arXiv:2501.05441, eq. 2."""
    return softplus(fake_logits - real_logits).mean()


def relativistic_g(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """The same pairs the other way round. Source: R3GAN, arXiv:2501.05441, eq. 2."""
    return softplus(real_logits - fake_logits).mean()


def relativistic_average_d(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """Each image against the average of the other kind. Source: RaSGAN, arXiv:1807.00734."""
    return softplus(fake_logits.mean() - real_logits).mean() + softplus(fake_logits - real_logits.mean()).mean()


def relativistic_average_g(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """The same the other way round. Source: RaSGAN, arXiv:1807.00734."""
    return relativistic_average_d(fake_logits, real_logits)


_CROSS_ENTROPY: tuple[PerLogit, PerLogit] = (lambda x: softplus(-x), softplus)
_SQUARES: tuple[PerLogit, PerLogit] = (lambda x: 0.5 * (x - 1).square(), lambda x: 0.5 * x.square())

OBJECTIVES: dict[str, Objective] = {
    "non-saturating": Objective(non_saturating_d, non_saturating_g, _CROSS_ENTROPY, joint=True, splits_at_zero=True),
    "minimax": Objective(
        non_saturating_d,
        minimax_g,
        _CROSS_ENTROPY,
        joint=True,
        is_positive=False,
        is_zero_sum=True,
        splits_at_zero=True,
    ),
    "least-squares": Objective(least_squares_d, least_squares_g, _SQUARES),
    "wasserstein": Objective(wasserstein_d, wasserstein_g, joint=True, is_positive=False, needs_slope_limit=True),
    "hinge": Objective(hinge_d, wasserstein_g, is_positive=False, splits_at_zero=True),
    "relativistic": Objective(relativistic_d, relativistic_g, g_sees_real=True, joint=True),
    "relativistic-average": Objective(relativistic_average_d, relativistic_average_g, g_sees_real=True, joint=True),
    # ACGAN: the non-saturating pair, and D names the class of every image. Source: Odena et al., arXiv:1610.09585.
    "auxiliary-classifier": Objective(
        non_saturating_d, non_saturating_g, _CROSS_ENTROPY, classifies=True, splits_at_zero=True
    ),
    # BEGAN: errors of redrawing; how much those of generated images count is steered. Source: arXiv:1703.10717.
    "boundary-equilibrium": Objective(wasserstein_d, wasserstein_g, is_positive=False, is_balanced=True),
}


def build_losses(config: Config) -> tuple[SteppedLoss, SteppedLoss]:
    """The two losses of a run, with its soft targets; both take a generator that draws the step's targets.

    A target t between the two ends mixes their costs, t * real + (1 - t) * fake. For cross-entropy that is the
    cross-entropy with target t; for least squares it differs from the squared distance to t by a constant. Flipped
    targets give real images the fake range and the reverse. The generator steps towards what D is mostly told of real
    images: 1, or 0 under flipping, or with `g_targets = "soft"` the range itself. Sources: one-sided smoothing,
    which leaves the generator's target at 1, arXiv:1606.03498, section 3.4; flipping and ranges are tutorial practice.

    Raises ValueError for soft targets with an objective that knows no targets.
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
            f"soft or flipped targets mean nothing to the {config.objective} objective, which compares scores and "
            "knows no targets; use non-saturating or least-squares, or leave the targets at 1 and 0"
        )
    toward_real, toward_fake = objective.toward
    is_flipped = config.flip_probability > 0.5
    told_of_real, told_of_fake = (fake_range, real_range) if is_flipped else (real_range, fake_range)
    if config.g_targets == "hard":
        told_of_real, told_of_fake = ((0.0, 0.0), (1.0, 1.0)) if is_flipped else ((1.0, 1.0), (0.0, 0.0))

    def cost(logits: Tensor, target_range: tuple[float, float], rng: torch.Generator) -> Tensor:
        low, high = target_range
        target = low + (high - low) * torch.rand(logits.shape, generator=rng, dtype=logits.dtype)
        return (target * toward_real(logits) + (1 - target) * toward_fake(logits)).mean()

    def d_loss(real: Tensor, fake: Tensor, rng: torch.Generator) -> Tensor:
        flip = bool(torch.rand((), generator=rng) < config.flip_probability)
        ranges = (fake_range, real_range) if flip else (real_range, fake_range)
        return cost(real, ranges[0], rng) + cost(fake, ranges[1], rng)

    def g_loss(real: Tensor, fake: Tensor, rng: torch.Generator) -> Tensor:
        return -cost(fake, told_of_fake, rng) if objective.is_zero_sum else cost(fake, told_of_real, rng)

    return d_loss, g_loss


def class_loss(class_logits: Tensor, ids: Tensor) -> Tensor:
    """Cross-entropy of naming the class of each image, from (N, K) logits. Source: arXiv:1610.09585, eq. 3."""
    return cross_entropy(class_logits, ids)


def feature_distance(real_features: Tensor, fake_features: Tensor) -> Tensor:
    """Squared distance between the mean features of the two batches, (N, ...) each. Source: arXiv:1606.03498, sec. 3.1.

    Gives the generator something to match when D's logits say little.
    """
    return (real_features.mean(0) - fake_features.mean(0)).square().sum()


def squared_slope(slope: Tensor) -> Tensor:
    """(N,) squared length of D's gradient at each image, from that gradient (N, C, H, W).

    On real images this is R1, on generated ones R2, before the factor gamma / 2.
    Source: Mescheder et al., arXiv:1801.04406, eq. 9 and 10.
    """
    return slope.square().flatten(1).sum(1)


def gradient_penalty(D: Scorer, real: Tensor, fake: Tensor, rng: torch.Generator) -> Tensor:
    """How far D's slope is from one, at random points between each real and its generated image (N, C, H, W).

    Returns (N,) squared deviations. Source: WGAN-GP, arXiv:1704.00028, eq. 3.
    """
    share = torch.rand(len(real), 1, 1, 1, generator=rng)
    return _off_one(D, real + share * (fake - real))


def dragan_penalty(D: Scorer, real: Tensor, fake: Tensor, rng: torch.Generator) -> Tensor:
    """The same at random points around the real images, which keeps D smooth where the data is.

    Each point is a real image moved by a share in [0, 1) of uniform noise up to half the batch's standard deviation.
    Source: Kodali et al., arXiv:1705.07215; the size of the noise is that of its published experiments.
    """
    share = torch.rand(len(real), 1, 1, 1, generator=rng)
    noise = 0.5 * real.std(unbiased=False) * torch.rand(real.shape, generator=rng)
    return _off_one(D, real + share * noise)


def _off_one(D: Scorer, images: Tensor) -> Tensor:
    images = images.detach().requires_grad_()
    (slope,) = torch.autograd.grad(D(images).sum(), images, create_graph=True)
    return ((squared_slope(slope) + 1e-12).sqrt() - 1).square()  # the root has no slope of its own at zero
