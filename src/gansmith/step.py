"""The algorithm on one screen: one step of each player.

`joint_step` serves both players from one pass through D; `discriminator_step` and `generator_step` are the classic
pair. A step draws nothing: images, latents, ids and weights come in, numbers to log go out.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from gansmith.losses import SteppedLoss, squared_slope

Gradients = Sequence[Tensor]


@dataclass
class Players:
    """The two networks, the generator's running average, and their optimisers."""

    G: nn.Module
    D: nn.Module
    G_ema: nn.Module
    g_optimizer: torch.optim.Optimizer
    d_optimizer: torch.optim.Optimizer


@dataclass(frozen=True)
class Batch:
    """What one step consumes: real images (N, C, H, W) in [-1, 1], latents (N, z_dim), ids (N,) of each."""

    real: Tensor
    real_ids: Tensor
    z: Tensor
    fake_ids: Tensor
    rng: torch.Generator


@dataclass(frozen=True)
class Rules:
    """What the config attaches to a step, built once.

    Attributes:
        d_loss, g_loss: the losses, targets included.
        g_sees_real: the generator's loss needs fresh logits of real images.
        one_pass: D treats every image alone, so real and fake may share a pass.
        autocast: run the networks in bfloat16.
    """

    d_loss: SteppedLoss
    g_loss: SteppedLoss
    g_sees_real: bool
    one_pass: bool
    autocast: bool


@dataclass(frozen=True)
class Penalties:
    """Weights gamma of R1 and R2 for this step; both zero on steps without."""

    r1: float = 0.0
    r2: float = 0.0

    def __bool__(self) -> bool:
        return self.r1 > 0 or self.r2 > 0


class NotFiniteError(ArithmeticError):
    """A loss that is no longer a number, found before any weight was changed by it."""


def joint_step(players: Players, batch: Batch, rules: Rules, penalties: Penalties) -> dict[str, float]:
    """Both players from one pass of G and one of D, each against the other as it was before the step.

    D judges each image alone, so the gradient of a generated image's logit with respect to its pixels is the same
    for both losses but for one factor per image: the slope of the loss at that logit. The generator's gradient is
    therefore D's own, rescaled.
    """
    n = len(batch.real)
    with _precision(rules):
        fake = players.G(batch.z, batch.fake_ids)
        images = torch.cat([batch.real, fake.detach().float()]).requires_grad_()
        logits = players.D(images, torch.cat([batch.real_ids, batch.fake_ids])).float()
    real_logits, fake_logits = logits[:n], logits[n:]
    d_loss = rules.d_loss(real_logits, fake_logits, batch.rng)
    g_loss = rules.g_loss(real_logits, fake_logits, batch.rng)
    numbers = {"d_loss": _finite("d_loss", d_loss), "g_loss": _finite("g_loss", g_loss)}
    (g_slope,) = torch.autograd.grad(g_loss, fake_logits, retain_graph=True)
    d_parameters, g_parameters = (_parameters(o) for o in (players.d_optimizer, players.g_optimizer))
    if penalties:
        (slopes,) = torch.autograd.grad(logits.sum(), images, create_graph=True)
        lengths = penalties.r1 * squared_slope(slopes[:n]) + penalties.r2 * squared_slope(slopes[n:])
        loss = d_loss + 0.5 * lengths.mean()
        _finite("d_loss", loss)
        d_gradients: Gradients = torch.autograd.grad(loss, d_parameters, materialize_grads=True)
        rise = slopes[n:].detach() * g_slope.view(-1, 1, 1, 1)
    else:
        (d_slope,) = torch.autograd.grad(d_loss, fake_logits, retain_graph=True)
        through, *d_gradients = torch.autograd.grad(d_loss, [images, *d_parameters], materialize_grads=True)
        # Beyond the least slope, D is surer than its gradient is precise.
        rise = through[n:] * (g_slope / d_slope.clamp(min=1e-5 / n)).view(-1, 1, 1, 1)
    g_gradients = torch.autograd.grad(fake, g_parameters, rise.to(fake.dtype), materialize_grads=True)
    _learn(players.d_optimizer, d_gradients)
    _learn(players.g_optimizer, g_gradients)
    return numbers | _confidence(real_logits, fake_logits)


def alternating_step(players: Players, batch: Batch, rules: Rules, penalties: Penalties) -> dict[str, float]:
    """The classic order: D on fresh fakes, then G on the same fakes against the D just updated."""
    with _precision(rules):
        fake = players.G(batch.z, batch.fake_ids)
    numbers = discriminator_step(players, batch, rules, penalties, fake)
    return numbers | generator_step(players, batch, rules, fake)


def discriminator_step(
    players: Players, batch: Batch, rules: Rules, penalties: Penalties, fake: Tensor
) -> dict[str, float]:
    """D learns to tell the real images from these generated ones (N, C, H, W), which stay untouched."""
    n = len(batch.real)
    real, fake = batch.real, fake.detach().float()
    if penalties:
        real, fake = real.clone().requires_grad_(), fake.requires_grad_()
    with _precision(rules):
        if rules.one_pass:
            logits = players.D(torch.cat([real, fake]), torch.cat([batch.real_ids, batch.fake_ids])).float()
            real_logits, fake_logits = logits[:n], logits[n:]
        else:
            real_logits = players.D(real, batch.real_ids).float()
            fake_logits = players.D(fake, batch.fake_ids).float()
    loss = d_loss = rules.d_loss(real_logits, fake_logits, batch.rng)
    numbers = {"d_loss": _finite("d_loss", d_loss)}
    if penalties:
        slopes = torch.autograd.grad(real_logits.sum() + fake_logits.sum(), (real, fake), create_graph=True)
        r1, r2 = (squared_slope(slope).mean() for slope in slopes)
        loss = d_loss + 0.5 * (penalties.r1 * r1 + penalties.r2 * r2)
        _finite("d_loss", loss)
    _learn(players.d_optimizer, torch.autograd.grad(loss, _parameters(players.d_optimizer), materialize_grads=True))
    return numbers | _confidence(real_logits, fake_logits)


def generator_step(players: Players, batch: Batch, rules: Rules, fake: Tensor) -> dict[str, float]:
    """G learns to make these images of its own (N, C, H, W, still attached to it) pass for real."""
    players.D.requires_grad_(False)
    try:
        with _precision(rules):
            fake_logits = players.D(fake.float(), batch.fake_ids).float()
            real_logits = players.D(batch.real, batch.real_ids).float() if rules.g_sees_real else fake_logits
        g_loss = rules.g_loss(real_logits, fake_logits, batch.rng)
        numbers = {"g_loss": _finite("g_loss", g_loss)}
        _learn(
            players.g_optimizer, torch.autograd.grad(g_loss, _parameters(players.g_optimizer), materialize_grads=True)
        )
    finally:
        players.D.requires_grad_(True)
    return numbers


UPDATES = {"joint": joint_step, "alternating": alternating_step}


def update_ema(G_ema: nn.Module, G: nn.Module, decay: float) -> None:
    """Move the average's weights towards G's; its normalisation statistics are recomputed when it is used."""
    with torch.no_grad():
        torch._foreach_lerp_(list(G_ema.parameters()), list(G.parameters()), 1 - decay)


def has_batch_statistics(modules: Iterable[nn.Module]) -> bool:
    """Whether any of these layers lets images of one batch see each other."""
    return any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in modules)


def _precision(rules: Rules) -> torch.autocast:
    return torch.autocast("cpu", dtype=torch.bfloat16, enabled=rules.autocast)


def _parameters(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    parameters: list[Tensor] = optimizer.param_groups[0]["params"]
    return parameters


def _learn(optimizer: torch.optim.Optimizer, gradients: Gradients) -> None:
    """One step of an optimiser along these gradients."""
    for parameter, gradient in zip(_parameters(optimizer), gradients, strict=True):
        # The fused optimisers walk memory: a gradient must be laid out as its parameter is.
        same = gradient.stride() == parameter.stride()
        parameter.grad = gradient if same else torch.empty_like(parameter).copy_(gradient)
    optimizer.step()


def _confidence(real_logits: Tensor, fake_logits: Tensor) -> dict[str, float]:
    """How often D calls real images real, and generated images real."""
    return {
        "d_real": real_logits.detach().sigmoid().mean().item(),
        "d_fake": fake_logits.detach().sigmoid().mean().item(),
    }


def _finite(name: str, value: Tensor) -> float:
    """The number in a scalar tensor; raises NotFiniteError where it is none."""
    number = value.item()
    if not math.isfinite(number):
        raise NotFiniteError(name)
    return number
