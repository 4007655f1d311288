"""The algorithm: one step of the discriminator, one step of the generator, the moving average.

What a run adds to the algorithm comes in through `Techniques`, in the order a step meets it: images on their way into
D, losses and auxiliary losses, penalties, gradients, weights, and who skips a step. No technique is named here.
"""

import contextlib
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from gansmith.networks.progressive import Growing
from gansmith.processes import average
from gansmith.training.losses import SteppedLoss
from gansmith.training.penalties import Penalties, squared_gradient_norm

Gradients = Sequence[Tensor]
Buffers = dict[str, Tensor]
Number = float | Tensor  # a scalar; a tensor where reading it would make the processor wait


@dataclass
class Networks:
    """G, D, the moving average of G, their optimisers, and tensors that techniques keep from step to step."""

    G: nn.Module
    D: nn.Module
    G_ema: nn.Module
    g_optimizer: torch.optim.Optimizer
    d_optimizer: torch.optim.Optimizer
    buffers: Buffers = field(default_factory=dict)

    @property
    def device(self) -> torch.device:
        return next(self.G.parameters()).device

    @cached_property
    def growing(self) -> list[Growing]:
        """Modules that grow during a run; found once, since a walk through all modules takes time."""
        networks = (self.G, self.D, self.G_ema)
        return [module for network in networks for module in network.modules() if isinstance(module, Growing)]


@dataclass(frozen=True)
class Batch:
    """What one step consumes.

    Attributes:
        real: (N, C, H, W) in [-1, 1].
        real_y, fake_y: (N,) class ids of real and of generated images.
        z: (N, latent_dim) latents.
        rng: draws whatever techniques leave to chance.
        progress: share of the schedule that is over, 0 to 1.
        skip_g: the generator skips this batch.
        extra_z: latents for each further step of the generator in its turn.
        fresh_fakes: the generator draws new images in its first step too, instead of keeping those of D's step.
    """

    real: Tensor
    real_y: Tensor
    z: Tensor
    fake_y: Tensor
    rng: torch.Generator
    progress: float = 0.0
    skip_g: bool = False
    extra_z: tuple[Tensor, ...] = ()
    fresh_fakes: bool = False


@dataclass(frozen=True)
class DOutput:
    """What D computes for images with class ids y (N,): (N,) logits, and where wanted, features and (N, K) classes."""

    logits: Tensor
    y: Tensor
    features: Tensor | None = None
    class_logits: Tensor | None = None

    def rows(self, part: slice) -> "DOutput":
        """Return the same for some of these images."""
        features, class_logits = (None if t is None else t[part] for t in (self.features, self.class_logits))
        return DOutput(self.logits[part], self.y[part], features, class_logits)


# From D, a function that looks at images (N, C, H, W) with class ids (N,), a batch of images and D's output for it.
FurtherLoss = Callable[[nn.Module, Callable[[Tensor, Tensor], DOutput], Tensor, DOutput], Tensor]


@dataclass(frozen=True)
class Techniques:
    """What the config attaches to a step, built once by `techniques.build_techniques`.

    Attributes:
        d_loss, g_loss: the losses, targets included.
        g_sees_real: the generator's loss needs logits of real images computed after D's step.
        one_pass: real and generated images may share a pass through D, which then must not normalise over the batch.
        autocast: run the networks in bfloat16.
        device: type of the device that the networks are on.
        reads: read each loss at once, so that one that is not finite stops the step before it changes a weight. Else
            losses stay on the device, and are checked where they are logged or saved.
        replay: which generated images D gets, and their class ids: the new ones, or some of the replay buffer.
        augment: every batch of images on its way into D.
        adapt: from D's logits of real and of generated images to the buffers of later steps; gives more to log.
        wants_features, wants_classes: D's features, and its class logits, are used too.
        d_auxiliary, g_auxiliary: from a loss and D's outputs for real and fake images to the loss with auxiliary ones.
        d_further, g_further: one more loss, of D at changed copies of the real images, or of the generated ones.
        clip_gradients: gradients before an optimiser uses them.
        clip_weights: D's weights after its optimiser moved them.
        d_bound, g_bound: D or G skips its step while its loss is below.
    """

    d_loss: SteppedLoss
    g_loss: SteppedLoss
    g_sees_real: bool
    one_pass: bool
    autocast: bool
    device: str = "cpu"
    reads: bool = True
    replay: Callable[[Buffers, Tensor, Batch], tuple[Tensor, Tensor]] = lambda buffers, fake, batch: (
        fake,
        batch.fake_y,
    )
    augment: Callable[[Buffers, Tensor, Batch], Tensor] = lambda buffers, images, batch: images
    adapt: Callable[[Buffers, Tensor, Tensor], dict[str, Number]] = lambda buffers, real_logits, fake_logits: {}
    wants_features: bool = False
    wants_classes: bool = False
    d_auxiliary: Callable[[Buffers, Tensor, DOutput, DOutput], Tensor] = lambda buffers, loss, real, fake: loss
    g_auxiliary: Callable[[Tensor, DOutput, DOutput], Tensor] = lambda loss, real, fake: loss
    d_further: FurtherLoss | None = None
    g_further: FurtherLoss | None = None
    clip_gradients: Callable[[Gradients], Gradients] = lambda gradients: gradients
    clip_weights: Callable[[Sequence[Tensor]], None] = lambda parameters: None
    d_bound: float = -math.inf
    g_bound: float = -math.inf


class NonFiniteError(ArithmeticError):
    """A loss or weight that became NaN or infinite, found before any weight was changed by it."""


def train_step(networks: Networks, batch: Batch, techniques: Techniques, penalties: Penalties) -> dict[str, Number]:
    """Update D on new generated images, then G against the updated D, on the same images or on new ones.

    Returns:
        what to log: losses, and how D rates real and generated images.

    Raises NonFiniteError before a loss that is NaN or infinite changes a weight.
    Source: Goodfellow et al., arXiv:1406.2661, algorithm 1.
    """
    with _precision(techniques), torch.set_grad_enabled(not (batch.skip_g or batch.fresh_fakes)):
        fake = networks.G(batch.z, batch.fake_y)
    numbers = discriminator_step(networks, batch, techniques, penalties, fake)
    if batch.skip_g:
        return numbers
    if not batch.fresh_fakes:
        numbers |= generator_step(networks, batch, techniques, fake)
    for z in batch.extra_z:
        with _precision(techniques):
            fake = networks.G(z, batch.fake_y)
        numbers |= generator_step(networks, batch, techniques, fake)
    return numbers


def discriminator_step(
    networks: Networks, batch: Batch, techniques: Techniques, penalties: Penalties, fake: Tensor
) -> dict[str, Number]:
    """Update D on the real images and these generated ones (N, C, H, W); no gradient reaches G."""
    real, (fake, fake_y) = batch.real, techniques.replay(networks.buffers, fake.detach().to(batch.real), batch)
    if penalties.at_images:
        real, fake = real.clone().requires_grad_(), fake.requires_grad_()
    with _precision(techniques):
        if techniques.one_pass:
            both = _discriminate(
                networks, torch.cat([real, fake]), torch.cat([batch.real_y, fake_y]), batch, techniques
            )
            real_out, fake_out = both.rows(slice(len(real))), both.rows(slice(len(real), None))
        else:
            real_out = _discriminate(networks, real, batch.real_y, batch, techniques)
            fake_out = _discriminate(networks, fake, fake_y, batch, techniques)
    d_loss = techniques.d_loss(real_out.logits, fake_out.logits, batch.rng)
    loss = techniques.d_auxiliary(networks.buffers, d_loss, real_out, fake_out)
    if techniques.d_further is not None:
        loss = loss + _further(networks, techniques.d_further, batch.real, real_out, batch, techniques)
    logits = real_out.logits.detach(), fake_out.logits.detach()
    if penalties.at_images:
        total = real_out.logits.sum() + fake_out.logits.sum()
        at_images = torch.autograd.grad(total, (real, fake), create_graph=True)
        r1, r2 = (squared_gradient_norm(gradient).mean() for gradient in at_images)
        loss = loss + 0.5 * (penalties.r1 * r1 + penalties.r2 * r2)
    for weight, penalty in penalties.elsewhere:
        with _precision(techniques):
            values = penalty(
                lambda images: _discriminate(networks, images, batch.real_y, batch, techniques).logits,
                real,
                fake,
                batch.rng,
            )
        loss = loss + weight * values.mean()
    gradients, (loss, d_loss, *scores) = _averaged_gradients(
        networks.d_optimizer, loss, d_loss, *(logit.sigmoid().mean() for logit in logits)
    )
    numbers = _checked("d_loss", techniques, d_loss, loss)
    numbers |= {"d_real": to_number(scores[0]), "d_fake": to_number(scores[1])}
    numbers |= techniques.adapt(networks.buffers, *logits)
    if techniques.d_bound == -math.inf or numbers["d_loss"] >= techniques.d_bound:
        _update(networks.d_optimizer, gradients, techniques)
        techniques.clip_weights(_parameters(networks.d_optimizer))
    return numbers


def generator_step(networks: Networks, batch: Batch, techniques: Techniques, fake: Tensor) -> dict[str, Number]:
    """Update G on images (N, C, H, W) that it generated and that are still attached to its graph."""
    _require_gradients(networks.d_optimizer, False)
    try:
        with _precision(techniques):
            fake_out = _discriminate(networks, fake.to(batch.real), batch.fake_y, batch, techniques)
            real_out = (
                _discriminate(networks, batch.real, batch.real_y, batch, techniques)
                if techniques.g_sees_real
                else fake_out
            )
        g_loss = techniques.g_loss(real_out.logits, fake_out.logits, batch.rng)
        loss = techniques.g_auxiliary(g_loss, real_out, fake_out)
        if techniques.g_further is not None:
            loss = loss + _further(networks, techniques.g_further, fake.to(batch.real), fake_out, batch, techniques)
        gradients, (loss, g_loss) = _averaged_gradients(networks.g_optimizer, loss, g_loss)
        numbers = _checked("g_loss", techniques, g_loss, loss)
        if techniques.g_bound == -math.inf or numbers["g_loss"] >= techniques.g_bound:
            _update(networks.g_optimizer, gradients, techniques)
    finally:
        _require_gradients(networks.d_optimizer, True)
    return numbers


def update_ema(G_ema: nn.Module, G: nn.Module, decay: Number) -> None:
    """Move the average's weights towards G's, and copy its buffers.

    Statistics of batch normalisation are recomputed when it is used.
    """
    average, weights = list[Tensor](G_ema.parameters()), list[Tensor](G.parameters())
    with torch.no_grad():
        for kept, value in zip(G_ema.buffers(), G.buffers(), strict=True):
            kept.copy_(value)
        if isinstance(decay, Tensor):
            torch._foreach_mul_(average, decay)
            torch._foreach_add_(average, list(torch._foreach_mul(weights, 1 - decay)))
        else:
            torch._foreach_lerp_(average, weights, 1 - decay)


def has_batch_norm(modules: Iterable[nn.Module]) -> bool:
    """Return whether any of these layers normalises over the batch."""
    return any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in modules)


def _discriminate(networks: Networks, images: Tensor, y: Tensor, batch: Batch, techniques: Techniques) -> DOutput:
    """Return D's output for images (N, C, H, W), with all that the techniques use.

    Where features or classes are wanted, D offers itself in two halves, as docs/adding-things.md says.
    """
    augmented = techniques.augment(networks.buffers, images, batch)
    images = augmented.to(images)  # of products in bfloat16, too: losses are of float32
    if not (techniques.wants_features or techniques.wants_classes):
        return DOutput(networks.D(images, y).to(images), y)
    D: Any = networks.D
    features = D.features(images, y)
    class_logits = D.classify(features).to(images) if techniques.wants_classes else None
    return DOutput(D.score(features, y).to(images), y, features.to(images), class_logits)


def _further(
    networks: Networks, further: FurtherLoss, images: Tensor, out: DOutput, batch: Batch, techniques: Techniques
) -> Tensor:
    with _precision(techniques):
        return further(networks.D, lambda some, y: _discriminate(networks, some, y, batch, techniques), images, out)


def _precision(techniques: Techniques) -> contextlib.AbstractContextManager[Any]:
    if not techniques.autocast:
        return contextlib.nullcontext()
    return torch.autocast(techniques.device, dtype=torch.bfloat16)


def _parameters(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    parameters: list[Tensor] = optimizer.param_groups[0]["params"]
    return parameters


def _require_gradients(optimizer: torch.optim.Optimizer, wanted: bool) -> None:
    for parameter in _parameters(optimizer):
        parameter.requires_grad_(wanted)


def _averaged_gradients(
    optimizer: torch.optim.Optimizer, loss: Tensor, *numbers: Tensor
) -> tuple[Gradients, list[Tensor]]:
    """Return the gradients of a loss, and the loss and these scalars, as means over processes that share the batch."""
    gradients = torch.autograd.grad(loss, _parameters(optimizer), materialize_grads=True)
    averaged = average([*gradients, loss, *numbers])
    return averaged[: len(gradients)], averaged[len(gradients) :]


def _update(optimizer: torch.optim.Optimizer, gradients: Gradients, techniques: Techniques) -> None:
    """Take one step of an optimiser along these gradients."""
    for parameter, gradient in zip(_parameters(optimizer), techniques.clip_gradients(gradients), strict=True):
        # The fused optimisers walk memory: a gradient must be laid out as its parameter is.
        same = gradient.stride() == parameter.stride()
        parameter.grad = gradient if same else torch.empty_like(parameter).copy_(gradient)
    optimizer.step()


def to_number(scalar: Tensor) -> Number:
    """Return a scalar as a number, but for one on an accelerator, for which the processor would have to wait."""
    return scalar.item() if scalar.device.type == "cpu" else scalar.detach()


def _checked(name: str, techniques: Techniques, loss: Tensor, total: Tensor) -> dict[str, Number]:
    """Return a loss by its name; NonFiniteError where it, or its sum with penalties, is read and is not finite."""
    if techniques.reads and not (math.isfinite(loss.item()) and math.isfinite(total.item())):
        raise NonFiniteError(name)
    return {name: to_number(loss)}
