"""From a config to the techniques of a step, each a pure function.

Nothing here knows the loop; `step` applies what is built here and names no technique. `conflicts` says which choices
exclude or need each other.
"""

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor, nn

from gansmith.config import Config, choose
from gansmith.processes import all_rows, average, own_rows, whole
from gansmith.randomness import drawn, to_device
from gansmith.training.augment import AUGMENTATIONS, adapt, augment
from gansmith.training.conflicts import refuse_conflicts
from gansmith.training.losses import OBJECTIVES, Objective, build_losses, class_loss, feature_distance, rotation_loss
from gansmith.training.machine import gains_by_bf16
from gansmith.training.step import Batch, Buffers, DOutput, Gradients, Number, Techniques, has_batch_norm, to_number

BALANCE_RATE = 0.001


def build_techniques(config: Config, D: nn.Module) -> Techniques:
    """Return what the config attaches to each step. Raises ConfigError for combinations that make no sense."""
    objective: Objective = choose(OBJECTIVES, config.objective, "objective")
    refuse_conflicts(config, objective, D)
    d_loss, g_loss = build_losses(config)
    on_real, on_fake, in_g = _class_weights(config, D)
    ids_per_class = 1 if on_fake else config.ids_per_class  # ACGAN's classifier tells sub-clusters apart too
    turns = config.d_rotation_loss > 0
    wants_bf16 = config.precision == "bfloat16" or (config.precision == "auto" and gains_by_bf16(config, D))
    device = next(D.parameters()).device.type
    return Techniques(
        d_loss,
        g_loss,
        device=device,
        reads=device == "cpu",
        g_sees_real=objective.g_sees_real or config.feature_matching > 0,
        one_pass=not has_batch_norm(D.modules()),
        autocast=wants_bf16,
        replay=partial(replay, config.replay) if config.replay else Techniques.replay,
        augment=_augmentation(config),
        adapt=_adaptation(config, objective),
        wants_features=config.feature_matching > 0 or turns,
        wants_classes=on_real > 0,
        d_auxiliary=weigh_fakes
        if objective.is_balanced
        else partial(add_class_losses, (on_real, on_fake), ids_per_class),
        g_auxiliary=partial(g_auxiliary, config.feature_matching, in_g, ids_per_class),
        d_further=partial(rotation, config.d_rotation_loss) if turns else None,
        g_further=partial(rotation, config.g_rotation_loss) if turns and config.g_rotation_loss else None,
        clip_gradients=partial(clip_gradients, config.clip_grad_norm)
        if config.clip_grad_norm
        else Techniques.clip_gradients,
        clip_weights=partial(clip_weights, config.clip_weights) if config.clip_weights else Techniques.clip_weights,
        d_bound=config.d_loss_bound or Techniques.d_bound,
        g_bound=config.g_loss_bound or Techniques.g_bound,
    )


def empty_buffers(config: Config, shape: Sequence[int], device: torch.device | None = None) -> Buffers:
    """Return the tensors that techniques keep from step to step, for images of this shape (C, H, W)."""
    buffers = _empty_buffers(config, shape)
    if device is None or device.type == "cpu":
        return buffers
    kept = {name: t.float() if t.dtype == torch.float64 else t for name, t in buffers.items()}  # MPS has no float64
    return {name: t if name == "replay_filled" else t.to(device) for name, t in kept.items()}


def _empty_buffers(config: Config, shape: Sequence[int]) -> Buffers:
    buffers: Buffers = {}
    if config.augment == "adaptive":
        buffers["augment_probability"] = torch.zeros((), dtype=torch.float64)
    if config.replay:
        buffers |= {
            "replay_images": torch.zeros(config.replay_size, *shape),
            "replay_y": torch.zeros(config.replay_size, dtype=torch.int64),
            "replay_filled": torch.zeros((), dtype=torch.int64),
        }
    if OBJECTIVES[config.objective].is_balanced:
        buffers["balance"] = torch.zeros((), dtype=torch.float64)
    if config.d_loss_target:
        buffers["penalty_factor"] = torch.tensor(config.penalty_start_factor, dtype=torch.float64)
    return buffers


def _augmentation(config: Config) -> Callable[[Buffers, Tensor, Batch], Tensor]:
    """Return what happens to images on their way into D: instance noise, then augmentation."""
    if config.instance_noise or config.augment in AUGMENTATIONS:
        return partial(noise_and_augment, config)
    return Techniques.augment


def noise_and_augment(config: Config, buffers: Buffers, images: Tensor, batch: Batch) -> Tensor:
    """Return the images with instance noise, then with the config's augmentations."""
    if config.instance_noise:
        images = add_instance_noise(images, batch, start=config.instance_noise, until=config.instance_noise_until)
    changes, share = AUGMENTATIONS.get(config.augment, ((), 0.0))
    probability: float | Tensor = share
    if config.augment == "adaptive":
        found = buffers["augment_probability"]
        probability = found.item() if found.device.type == "cpu" else found.float()
    return augment(images, batch.rng, changes=changes, probability=probability)


def add_instance_noise(images: Tensor, batch: Batch, *, start: float, until: float) -> Tensor:
    """Return the images with Gaussian noise, fading along a straight line, so that real and fake overlap at first.

    Source: Arjovsky and Bottou, arXiv:1701.04862, section 3; instance noise, arXiv:1610.04490, section 2.1.
    """
    scale = start * max(0.0, 1.0 - batch.progress / until) if until else 0.0
    if not scale:
        return images
    (count, *shape), rng = images.shape, batch.rng
    return images + scale * drawn(lambda rows: torch.randn(rows, *shape, generator=rng), count, device=images.device)


def replay(share: float, buffers: Buffers, fake: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
    """Return generated images for D, a share of them from the replay buffer, and their class ids.

    Old images keep D from forgetting what G drew before. The share of the batch (at least one) that they replace takes
    their places in the buffer; until the buffer is full, each batch is only added to it.
    Source: Shrivastava et al., arXiv:1612.07828, section 2.3, where the share is a half.
    """
    images, ids, filled = buffers["replay_images"], buffers["replay_y"], int(buffers["replay_filled"])
    all_fake, all_y = whole(fake), whole(batch.fake_y)  # every process keeps the same buffer
    if filled < len(images):
        added = min(len(all_fake), len(images) - filled)
        images[filled : filled + added], ids[filled : filled + added] = all_fake[:added], all_y[:added]
        buffers["replay_filled"] += added
        return fake, batch.fake_y
    swapped = min(max(1, round(share * len(all_fake))), len(images))
    places = to_device(torch.randperm(len(images), generator=batch.rng)[:swapped], images.device)
    old, old_ids = images[places], ids[places]
    images[places], ids[places] = all_fake[:swapped], all_y[:swapped]
    return own_rows(torch.cat([old, all_fake[swapped:]])), own_rows(torch.cat([old_ids, all_y[swapped:]]))


def _adaptation(config: Config, objective: Objective) -> Callable[[Buffers, Tensor, Tensor], dict[str, Number]]:
    if objective.is_balanced:
        return partial(adapt_balance, config.began_gamma)
    return adapt_augmentation if config.augment == "adaptive" else Techniques.adapt


def adapt_augmentation(buffers: Buffers, real_logits: Tensor, fake_logits: Tensor) -> dict[str, Number]:
    """Raise the probability of augmentation if D is too sure of real images, else lower it; returns it, to log."""
    (sure,) = average([real_logits.sign().mean()])
    probability = buffers["augment_probability"]
    probability.copy_(adapt(probability, sure.to(probability.dtype), all_rows(len(real_logits))))
    return {"augment_probability": to_number(probability.clone())}


def adapt_balance(gamma: float, buffers: Buffers, real_logits: Tensor, fake_logits: Tensor) -> dict[str, Number]:
    """Raise k, the weight of generated images, while their error is below `gamma` of real images'; lower it above.

    Returns k and the measure of convergence, L(x) + |gamma L(x) - L(G(z))|. Source: BEGAN, arXiv:1703.10717, sections
    3.3 and 3.4, with its rate of 0.001.
    """
    balance = buffers["balance"]
    means = average([real_logits.mean(), fake_logits.mean()])
    real_error, fake_error = (-mean.to(balance.dtype) for mean in means)
    short = gamma * real_error - fake_error
    balance.add_(BALANCE_RATE * short).clamp_(0.0, 1.0)
    return {"balance": to_number(balance.clone()), "convergence": to_number(real_error + short.abs())}


def _class_weights(config: Config, D: nn.Module) -> tuple[float, float, float]:
    """Return the weights of the class loss in D's loss, on real and on generated images, and in G's."""
    if config.d_conditioning == "classifier" and config.conditioning != "none":
        return 1.0, 1.0, 1.0
    if not config.classifies or getattr(D, "classifier", None) is None:
        return 0.0, 0.0, 0.0
    return config.d_class_loss, 0.0, config.g_class_loss


def weigh_fakes(buffers: Buffers, loss: Tensor, real: DOutput, fake: DOutput) -> Tensor:
    """Return D's loss with generated images' reconstruction errors weighed by k: L(x) - k L(G(z)).

    Source: BEGAN, arXiv:1703.10717, section 3.4.
    """
    return loss - (1.0 - buffers["balance"]).to(loss.dtype) * fake.logits.mean()


def add_class_losses(
    weights: tuple[float, float], ids_per_class: int, buffers: Buffers, loss: Tensor, real: DOutput, fake: DOutput
) -> Tensor:
    """Return D's loss plus the class losses of real and of generated images, with these weights.

    Source: arXiv:1610.09585, eq. 3, where both weights are one.
    """
    for weight, out in zip(weights, (real, fake), strict=True):
        if weight:
            assert out.class_logits is not None
            loss = loss + weight * class_loss(out.class_logits, out.y // ids_per_class)
    return loss


def g_auxiliary(
    feature_matching: float, class_weight: float, ids_per_class: int, loss: Tensor, real: DOutput, fake: DOutput
) -> Tensor:
    """Return G's loss, a share of it replaced by feature matching, plus the weighted class loss of its images.

    Sources: arXiv:1606.03498, section 3.1, where the share is one; arXiv:1610.09585, section 3.
    """
    if feature_matching:
        assert real.features is not None and fake.features is not None
        loss = (1 - feature_matching) * loss + feature_matching * feature_distance(real.features, fake.features)
    if class_weight:
        assert fake.class_logits is not None
        loss = loss + class_weight * class_loss(fake.class_logits, fake.y // ids_per_class)
    return loss


def rotation(
    weight: float, D: nn.Module, look: Callable[[Tensor, Tensor], DOutput], images: Tensor, out: DOutput
) -> Tensor:
    """Return the weighted loss of D naming by how many quarter turns it sees every fourth image turned.

    D's features then hold what tells up from down, which in photographs is what they show, without any label.
    Source: Chen et al., arXiv:1811.11212, section 3.
    """
    some, y = images[::4], out.y[::4]
    turned = look(torch.cat([torch.rot90(some, turns, (2, 3)) for turns in (1, 2, 3)]), y.repeat(3))
    assert out.features is not None and turned.features is not None
    logits = D.get_submodule("rotation")(torch.cat([out.features[::4], turned.features]))
    return weight * rotation_loss(logits.to(images))


def clip_gradients(max_norm: float, gradients: Gradients) -> Gradients:
    """Return all gradients of G or D, scaled together to at most this norm. Source: Pascanu et al., arXiv:1211.5063."""
    norm = torch.nn.utils.get_total_norm(list(gradients))
    factor = (max_norm / (norm + 1e-6)).clamp(max=1.0)
    return [gradient * factor for gradient in gradients]


def clip_weights(limit: float, parameters: Sequence[Tensor]) -> None:
    """Clamp D's weights to [-limit, limit], which bounds its Lipschitz constant. Source: WGAN, arXiv:1701.07875."""
    with torch.no_grad():
        for parameter in parameters:
            parameter.clamp_(-limit, limit)
