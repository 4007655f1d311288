"""Gradient penalties on D.

A penalty takes D as a function of images alone and returns (N,) values, not yet weighted.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from gansmith.config import Config
from gansmith.processes import all_rows, average, is_sharing, own_rows
from gansmith.training.schedule import adapted_factor, ramp

Scorer = Callable[[Tensor], Tensor]
Penalty = Callable[[Scorer, Tensor, Tensor, torch.Generator], Tensor]


@dataclass(frozen=True)
class Penalties:
    """Weights of this step's gradient penalties; nothing on steps without.

    Attributes:
        r1, r2: gamma of the penalties at real and at generated images.
        elsewhere: weights and penalties at images of their own.
    """

    r1: float = 0.0
    r2: float = 0.0
    elsewhere: tuple[tuple[float, Penalty], ...] = ()

    @property
    def at_images(self) -> bool:
        return self.r1 > 0 or self.r2 > 0


def penalties_at(config: Config, images_seen: int, progress: float, buffers: dict[str, Tensor]) -> Penalties:
    """Return this step's penalties: none but every few steps, and then as much stronger.

    Source of the interval: lazy regularisation, arXiv:1912.04958, section 3.1.
    """
    if (images_seen // config.batch_size) % config.penalty_every:
        return Penalties()
    if config.d_loss_target:
        factor = buffers["penalty_factor"].item()
    else:
        factor = ramp(progress, config.penalty_start_factor, 1.0, config.burn_in)
    factor *= config.penalty_every
    weighted = ((config.gradient_penalty, gradient_penalty), (config.dragan, dragan_penalty))
    elsewhere = tuple((weight * factor, penalty) for weight, penalty in weighted if weight)
    return Penalties(config.r1_gamma * factor, config.r2_gamma * factor, elsewhere)


def adapt_penalty_factor(config: Config, buffers: dict[str, Tensor], d_loss: float) -> dict[str, float]:
    """Raise or lower the factor on the penalties of later steps; returns this step's, to log."""
    if not config.d_loss_target:
        return {}
    factor = buffers["penalty_factor"].item()
    buffers["penalty_factor"].fill_(adapted_factor(factor, d_loss, config.d_loss_target, config.batch_size))
    return {"penalty_factor": factor}


def squared_gradient_norm(gradient: Tensor) -> Tensor:
    """Return (N,) squared norms of D's gradient with respect to each image, from that gradient (N, C, H, W).

    On real images this is R1, on generated ones R2, before the factor gamma / 2.
    Source: Mescheder et al., arXiv:1801.04406, eq. 9 and 10.
    """
    return gradient.square().flatten(1).sum(1)


def gradient_penalty(D: Scorer, real: Tensor, fake: Tensor, rng: torch.Generator) -> Tensor:
    """Return (N,) squared deviations of D's gradient norm from one, between each real and generated image.

    Images are (N, C, H, W). Source: WGAN-GP, arXiv:1704.00028, eq. 3.
    """
    share = own_rows(torch.rand(all_rows(len(real)), 1, 1, 1, generator=rng))
    return _deviation_from_one(D, real + share * (fake - real))


def dragan_penalty(D: Scorer, real: Tensor, fake: Tensor, rng: torch.Generator) -> Tensor:
    """Return the same at random points around the real images, which keeps D smooth where the data is.

    Each point is a real image moved by a share in [0, 1) of uniform noise up to half the batch's standard deviation.
    Source: Kodali et al., arXiv:1705.07215; the size of the noise is that of its published experiments.
    """
    share = own_rows(torch.rand(all_rows(len(real)), 1, 1, 1, generator=rng))
    noise = own_rows(torch.rand(all_rows(len(real)), *real.shape[1:], generator=rng))
    noise = 0.5 * _deviation(real) * noise
    return _deviation_from_one(D, real + share * noise)


def _deviation(real: Tensor) -> Tensor:
    """Return the standard deviation of all pixels of the batch."""
    if not is_sharing():
        return real.std(unbiased=False)
    (centre,) = average([real.mean()])
    (variance,) = average([(real - centre).square().mean()])
    return variance.sqrt()


def _deviation_from_one(D: Scorer, images: Tensor) -> Tensor:
    images = images.detach().requires_grad_()
    (gradient,) = torch.autograd.grad(D(images).sum(), images, create_graph=True)
    return ((squared_gradient_norm(gradient) + 1e-12).sqrt() - 1).square()  # the root is not differentiable at zero
