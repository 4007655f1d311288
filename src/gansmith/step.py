"""The algorithm on one screen: one step of each player.

`joint_step` serves both players from one pass through D; `discriminator_step` and `generator_step` are the classic
pair. What a run adds to the algorithm comes in through `Rules`, in the order a step meets it: the images D is shown,
the losses and what stands beside them, penalties, gradients, weights, and who rests.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from gansmith.losses import Penalty, SteppedLoss, squared_slope
from gansmith.networks.layers import MinibatchStddev
from gansmith.networks.progressive import Growing

Gradients = Sequence[Tensor]
Memory = dict[str, Tensor]


@dataclass
class Players:
    """The two networks, the generator's running average, their optimisers, and tensors that outlast a step."""

    G: nn.Module
    D: nn.Module
    G_ema: nn.Module
    g_optimizer: torch.optim.Optimizer
    d_optimizer: torch.optim.Optimizer
    memory: Memory = field(default_factory=dict)

    @cached_property
    def growing(self) -> list[Growing]:
        """What changes its size as a run goes on; looked for once, for a walk through all modules takes time."""
        networks = (self.G, self.D, self.G_ema)
        return [module for network in networks for module in network.modules() if isinstance(module, Growing)]


@dataclass(frozen=True)
class Batch:
    """What one step consumes.

    Attributes:
        real: (N, C, H, W) in [-1, 1].
        z: (N, z_dim) latents.
        real_ids, fake_ids: (N,) what the players are told of each.
        rng: draws whatever the rules leave to chance.
        progress: share of the schedule that is over, 0 to 1.
        g_rests: the generator skips this batch.
        more_z: latents for each further step of the generator in its turn.
        fresh_fakes: its first step too is on images of the next of these, not on those D has just learnt from.
    """

    real: Tensor
    real_ids: Tensor
    z: Tensor
    fake_ids: Tensor
    rng: torch.Generator
    progress: float = 0.0
    g_rests: bool = False
    more_z: tuple[Tensor, ...] = ()
    fresh_fakes: bool = False


@dataclass(frozen=True)
class Seen:
    """What D makes of a batch told (N,) ids: (N,) logits, and where asked for, features and (N, K) class logits."""

    logits: Tensor
    ids: Tensor
    features: Tensor | None = None
    class_logits: Tensor | None = None

    def rows(self, part: slice) -> "Seen":
        """What D makes of some of these images."""
        features, class_logits = (None if t is None else t[part] for t in (self.features, self.class_logits))
        return Seen(self.logits[part], self.ids[part], features, class_logits)


@dataclass(frozen=True)
class Rules:
    """What the config attaches to a step, built once.

    Attributes:
        d_loss, g_loss: the losses, targets included.
        g_sees_real: the generator's loss needs fresh logits of real images.
        one_pass: D's features of an image are its own, so real and fake may share a pass.
        scores_apart: what D makes of features depends on the batch, so those of real and of fake are scored apart.
        autocast: run the networks in bfloat16.
        recall: which generated images D gets, and their ids: the fresh ones, or some of those in memory.
        show: every batch of images on its way into D.
        remember: what D made of real and of generated images, for the steps to come; gives more numbers to log.
        wants_features, wants_classes: D's features, and its class logits, are looked at too.
        d_beside, g_beside: from a loss and what D saw of real and fake images, the loss with more beside it.
        limit: gradients before an optimiser uses them.
        settle: D's weights after its optimiser moved them.
        d_bound, g_bound: a player whose loss is below rests.
    """

    d_loss: SteppedLoss
    g_loss: SteppedLoss
    g_sees_real: bool
    one_pass: bool
    scores_apart: bool
    autocast: bool
    recall: Callable[[Memory, Tensor, Batch], tuple[Tensor, Tensor]] = lambda memory, fake, batch: (
        fake,
        batch.fake_ids,
    )
    show: Callable[[Memory, Tensor, Batch], Tensor] = lambda memory, images, batch: images
    remember: Callable[[Memory, Tensor, Tensor], dict[str, float]] = lambda memory, real_logits, fake_logits: {}
    wants_features: bool = False
    wants_classes: bool = False
    d_beside: Callable[[Memory, Tensor, Seen, Seen], Tensor] = lambda memory, loss, real, fake: loss
    g_beside: Callable[[Tensor, Seen, Seen], Tensor] = lambda loss, real, fake: loss
    limit: Callable[[Gradients], Gradients] = lambda gradients: gradients
    settle: Callable[[Sequence[Tensor]], None] = lambda parameters: None
    d_bound: float = -math.inf
    g_bound: float = -math.inf


@dataclass(frozen=True)
class Penalties:
    """Weights of this step's penalties on D's slope; nothing on steps without.

    Attributes:
        r1, r2: gamma of the penalties at real and at generated images.
        elsewhere: weights and penalties that look at images of their own.
    """

    r1: float = 0.0
    r2: float = 0.0
    elsewhere: tuple[tuple[float, Penalty], ...] = ()

    @property
    def at_images(self) -> bool:
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
        images = torch.cat([batch.real, fake.detach().to(batch.real)]).requires_grad_()
        shown = rules.show(players.memory, images, batch)
        logits = players.D(shown, torch.cat([batch.real_ids, batch.fake_ids])).to(batch.real)
    real_logits, fake_logits = logits[:n], logits[n:]
    d_loss = rules.d_loss(real_logits, fake_logits, batch.rng)
    g_loss = rules.g_loss(real_logits, fake_logits, batch.rng)
    numbers = {"d_loss": _finite("d_loss", d_loss), "g_loss": _finite("g_loss", g_loss)}
    (g_slope,) = torch.autograd.grad(g_loss, fake_logits, retain_graph=True)
    d_parameters, g_parameters = (_parameters(o) for o in (players.d_optimizer, players.g_optimizer))
    if penalties.at_images:
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
    _learn(players.d_optimizer, d_gradients, rules)
    rules.settle(d_parameters)
    _learn(players.g_optimizer, g_gradients, rules)
    judged = real_logits.detach(), fake_logits.detach()
    return numbers | _confidence(*judged) | rules.remember(players.memory, *judged)


def alternating_step(players: Players, batch: Batch, rules: Rules, penalties: Penalties) -> dict[str, float]:
    """The classic order: D on fresh fakes, then G on the same fakes, or others, against the D just updated."""
    with _precision(rules), torch.set_grad_enabled(not (batch.g_rests or batch.fresh_fakes)):
        fake = players.G(batch.z, batch.fake_ids)
    numbers = discriminator_step(players, batch, rules, penalties, fake)
    if batch.g_rests:
        return numbers
    if not batch.fresh_fakes:
        numbers |= generator_step(players, batch, rules, fake)
    for z in batch.more_z:
        with _precision(rules):
            fake = players.G(z, batch.fake_ids)
        numbers |= generator_step(players, batch, rules, fake)
    return numbers


def discriminator_step(
    players: Players, batch: Batch, rules: Rules, penalties: Penalties, fake: Tensor
) -> dict[str, float]:
    """D learns to tell the real images from these generated ones (N, C, H, W), which stay untouched."""
    real, (fake, fake_ids) = batch.real, rules.recall(players.memory, fake.detach().to(batch.real), batch)
    if penalties.at_images:
        real, fake = real.clone().requires_grad_(), fake.requires_grad_()
    with _precision(rules):
        if rules.one_pass:
            both, ids = torch.cat([real, fake]), torch.cat([batch.real_ids, fake_ids])
            seen_real, seen_fake = _look_at_both(players, both, ids, batch, rules)
        else:
            seen_real = _look(players, real, batch.real_ids, batch, rules)
            seen_fake = _look(players, fake, fake_ids, batch, rules)
    d_loss = rules.d_loss(seen_real.logits, seen_fake.logits, batch.rng)
    loss = rules.d_beside(players.memory, d_loss, seen_real, seen_fake)
    judged = seen_real.logits.detach(), seen_fake.logits.detach()
    numbers = {"d_loss": _finite("d_loss", d_loss)} | _confidence(*judged)
    numbers |= rules.remember(players.memory, *judged)
    if numbers["d_loss"] < rules.d_bound:
        return numbers
    if penalties.at_images:
        total = seen_real.logits.sum() + seen_fake.logits.sum()
        r1, r2 = (squared_slope(slope).mean() for slope in torch.autograd.grad(total, (real, fake), create_graph=True))
        loss = loss + 0.5 * (penalties.r1 * r1 + penalties.r2 * r2)
    for weight, penalty in penalties.elsewhere:
        with _precision(rules):
            values = penalty(
                lambda images: _look(players, images, batch.real_ids, batch, rules).logits, real, fake, batch.rng
            )
        loss = loss + weight * values.mean()
    _finite("d_loss", loss)
    parameters = _parameters(players.d_optimizer)
    _learn(players.d_optimizer, torch.autograd.grad(loss, parameters, materialize_grads=True), rules)
    rules.settle(parameters)
    return numbers


def generator_step(players: Players, batch: Batch, rules: Rules, fake: Tensor) -> dict[str, float]:
    """G learns to make these images of its own (N, C, H, W, still attached to it) pass for real."""
    _require_gradients(players.d_optimizer, False)
    try:
        with _precision(rules):
            seen_fake = _look(players, fake.to(batch.real), batch.fake_ids, batch, rules)
            seen_real = _look(players, batch.real, batch.real_ids, batch, rules) if rules.g_sees_real else seen_fake
        g_loss = rules.g_loss(seen_real.logits, seen_fake.logits, batch.rng)
        loss = rules.g_beside(g_loss, seen_real, seen_fake)
        numbers = {"g_loss": _finite("g_loss", g_loss)}
        _finite("g_loss", loss)
        if numbers["g_loss"] >= rules.g_bound:
            parameters = _parameters(players.g_optimizer)
            _learn(players.g_optimizer, torch.autograd.grad(loss, parameters, materialize_grads=True), rules)
    finally:
        _require_gradients(players.d_optimizer, True)
    return numbers


def _look(players: Players, images: Tensor, ids: Tensor, batch: Batch, rules: Rules) -> Seen:
    """D on images (N, C, H, W), with all that the rules want to know; CONTRIBUTING says what D then has to offer."""
    images = rules.show(players.memory, images, batch)
    if not (rules.wants_features or rules.wants_classes):
        return Seen(players.D(images, ids).to(images), ids)
    D: Any = players.D
    return _scored(D, D.features(images, ids), ids, images, rules)


def _look_at_both(players: Players, images: Tensor, ids: Tensor, batch: Batch, rules: Rules) -> tuple[Seen, Seen]:
    """D on as many real as generated images (2N, C, H, W) in one pass: what it makes of either half."""
    halves = slice(len(batch.real)), slice(len(batch.real), None)
    if not rules.scores_apart:
        both = _look(players, images, ids, batch, rules)
        real, fake = (both.rows(half) for half in halves)
    else:
        D: Any = players.D
        features = D.features(rules.show(players.memory, images, batch), ids)
        real, fake = (_scored(D, features[half], ids[half], images, rules) for half in halves)
    return real, fake


def _scored(D: Any, features: Tensor, ids: Tensor, images: Tensor, rules: Rules) -> Seen:
    """What D makes of features of its own, in the images' precision."""
    class_logits = D.classify(features).to(images) if rules.wants_classes else None
    return Seen(D.score(features, ids).to(images), ids, features.to(images), class_logits)


UPDATES = {"joint": joint_step, "alternating": alternating_step}


def update_ema(G_ema: nn.Module, G: nn.Module, decay: float) -> None:
    """Move the average's weights towards G's; its normalisation statistics are recomputed when it is used."""
    with torch.no_grad():
        torch._foreach_lerp_(list(G_ema.parameters()), list(G.parameters()), 1 - decay)


def has_batch_statistics(modules: Iterable[nn.Module]) -> bool:
    """Whether any of these layers normalises over the batch."""
    return any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in modules)


def judges_alone(D: nn.Module) -> bool:
    """Whether what D says of an image does not depend on the others of its batch."""
    return not has_batch_statistics(D.modules()) and not _comparing(D)


def sees_alone(D: nn.Module) -> bool:
    """Whether D's features of an image do not depend on the others of its batch, though its score may."""
    return not has_batch_statistics(D.modules()) and _comparing(D) in ([], ["spread"])


def _comparing(D: nn.Module) -> list[str]:
    """The names of D's layers that look at how the images of a batch differ; `spread` is the one before the score."""
    return [name for name, layer in D.named_modules() if isinstance(layer, MinibatchStddev)]


def _precision(rules: Rules) -> torch.autocast:
    return torch.autocast("cpu", dtype=torch.bfloat16, enabled=rules.autocast)


def _parameters(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    parameters: list[Tensor] = optimizer.param_groups[0]["params"]
    return parameters


def _require_gradients(optimizer: torch.optim.Optimizer, wanted: bool) -> None:
    for parameter in _parameters(optimizer):
        parameter.requires_grad_(wanted)


def _learn(optimizer: torch.optim.Optimizer, gradients: Gradients, rules: Rules) -> None:
    """One step of an optimiser along these gradients."""
    for parameter, gradient in zip(_parameters(optimizer), rules.limit(gradients), strict=True):
        # The fused optimisers walk memory: a gradient must be laid out as its parameter is.
        same = gradient.stride() == parameter.stride()
        parameter.grad = gradient if same else torch.empty_like(parameter).copy_(gradient)
    optimizer.step()


def _confidence(real_logits: Tensor, fake_logits: Tensor) -> dict[str, float]:
    """How often D calls real images real, and generated images real."""
    return {
        "d_real": real_logits.sigmoid().mean().item(),
        "d_fake": fake_logits.sigmoid().mean().item(),
    }


def _finite(name: str, value: Tensor) -> float:
    """The number in a scalar tensor; raises NotFiniteError where it is none."""
    number = value.item()
    if not math.isfinite(number):
        raise NotFiniteError(name)
    return number
