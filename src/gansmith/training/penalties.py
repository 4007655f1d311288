"""Gradient penalties on D.

A penalty takes D as a function of images alone and returns (N,) values, not yet weighted.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from gansmith.config import Config
from gansmith.processes import average, is_sharing
from gansmith.randomness import drawn, one_each
from gansmith.training.schedule import adapted_factor, adapted_factor_tensor, ramp

Scorer = Callable[[Tensor], Tensor]
Penalty = Callable[[Scorer, Tensor, Tensor, torch.Generator], Tensor]


@dataclass(frozen=True)
class Penalties:
    """Weights of this step's gradient penalties; nothing on steps without.

    Attributes:
        r1, r2: gamma of the penalties at real and at generated images; scalar tensors on an accelerator.
        elsewhere: weights and penalties at images of their own.
    """

    r1: float | Tensor = 0.0
    r2: float | Tensor = 0.0
    elsewhere: tuple[tuple[float | Tensor, Penalty], ...] = ()

    @property
    def at_images(self) -> bool:
        return any(isinstance(weight, Tensor) or weight > 0 for weight in (self.r1, self.r2))


def is_penalised(config: Config, images_seen: int) -> bool:
    """Return whether the step after so many images has penalties: one every few steps.

    Source: lazy regularisation, arXiv:1912.04958, section 3.1.
    """
    return (images_seen // config.batch_size) % config.penalty_every == 0


def penalty_factor(config: Config, progress: float) -> float:
    """Return the factor on all penalties at this point of the schedule, where D's loss does not set it."""
    return ramp(progress, config.penalty_start_factor, 1.0, config.burn_in)


def penalties_at(config: Config, images_seen: int, progress: float, buffers: dict[str, Tensor]) -> Penalties:
    """Return this step's penalties: none but every few steps, and then as much stronger."""
    if not is_penalised(config, images_seen):
        return Penalties()
    return weigh_penalties(config, buffers, penalty_factor(config, progress))


def weigh_penalties(config: Config, buffers: dict[str, Tensor], factor: float | Tensor) -> Penalties:
    """Return the penalties of a step that has some.

    Args:
        factor: of the schedule, which D's loss sets instead where the config says so.
    """
    if config.d_loss_target:
        found = buffers["penalty_factor"]
        factor = found.item() if found.device.type == "cpu" else found
    factor = factor * config.penalty_every
    weighted = ((config.gradient_penalty, gradient_penalty), (config.dragan, dragan_penalty))
    elsewhere = tuple((_weight(weight, factor), penalty) for weight, penalty in weighted if weight)
    r1, r2 = (_weight(gamma, factor) if gamma else 0.0 for gamma in (config.r1_gamma, config.r2_gamma))
    return Penalties(r1, r2, elsewhere)


def _weight(weight: float, factor: float | Tensor) -> float | Tensor:
    """Return the product, of a tensor in single precision as losses are."""
    return (weight * factor).float() if isinstance(factor, Tensor) else weight * factor


def adapt_penalty_factor(
    config: Config, buffers: dict[str, Tensor], d_loss: float | Tensor
) -> dict[str, float | Tensor]:
    """Raise or lower the factor on the penalties of later steps; returns this step's, to log."""
    if not config.d_loss_target:
        return {}
    found, target = buffers["penalty_factor"], config.d_loss_target
    if isinstance(d_loss, Tensor):
        before = found.clone()
        found.copy_(adapted_factor_tensor(found, d_loss, target, config.batch_size))
        return {"penalty_factor": before}
    factor = found.item()
    found.fill_(adapted_factor(factor, d_loss, target, config.batch_size))
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
    share = one_each(real, rng)
    return _deviation_from_one(D, real + share * (fake - real))


def dragan_penalty(D: Scorer, real: Tensor, fake: Tensor, rng: torch.Generator) -> Tensor:
    """Return the same at random points around the real images, which keeps D smooth where the data is.

    Each point is a real image moved by a share in [0, 1) of uniform noise up to half the batch's standard deviation.
    Source: Kodali et al., arXiv:1705.07215; the size of the noise is that of its published experiments.
    """
    share, (count, *shape) = one_each(real, rng), real.shape
    noise = drawn(lambda rows: torch.rand(rows, *shape, generator=rng), count, device=real.device)
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
