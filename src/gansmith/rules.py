"""From a config to the rules of a step: each technique as a pure function, and what cannot go together.

Nothing here knows the loop; `step` applies the rules and names no technique.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from gansmith.augment import AUGMENTATIONS, adapt, augment
from gansmith.config import FIELDS, Config, choose
from gansmith.losses import (
    OBJECTIVES,
    Objective,
    build_losses,
    class_loss,
    dragan_penalty,
    feature_distance,
    gradient_penalty,
)
from gansmith.networks.autoencoder import RedrawingErrors
from gansmith.schedule import ramp, steered_boost
from gansmith.step import (
    Batch,
    Gradients,
    Memory,
    Penalties,
    Rules,
    Seen,
    has_batch_statistics,
    judges_alone,
    sees_alone,
)

BALANCE_RATE = 0.001
# Multiplications of D's pass over a batch below which a processor with AMX casts longer than it gains: `mlp-small` has
# 13 million, and takes .85 of the time in float32; `mlp-keras` 17 million, and takes 1.08 of it.
SMALL_PRODUCTS = 15e6


def build_rules(config: Config, D: nn.Module) -> Rules:
    """What the config attaches to each step. Raises ValueError for combinations that make no sense."""
    objective: Objective = choose(OBJECTIVES, config.objective, "objective")
    _refuse_unheeded(config)
    _refuse_adaptive(config, objective)
    _refuse_slopes(config, objective, D)
    _refuse_losses(config, objective, D)
    if config.update == "joint":
        _refuse_joint(config, objective, D)
    d_loss, g_loss = build_losses(config)
    wants_classes = config.d_conditioning == "classifier" and config.conditioning != "none"
    wants_bf16 = config.precision == "bfloat16" or (config.precision == "auto" and gains_by_bf16(config, D))
    return Rules(
        d_loss,
        g_loss,
        g_sees_real=objective.g_sees_real or config.feature_matching > 0,
        one_pass=sees_alone(D),
        scores_apart=not judges_alone(D),
        autocast=wants_bf16,
        recall=replay(config.replay) if config.replay else Rules.recall,
        show=shown(config) if config.d_noise or config.augment in AUGMENTATIONS else Rules.show,
        remember=_remember(config, objective),
        wants_features=config.feature_matching > 0,
        wants_classes=wants_classes,
        d_beside=_d_beside(objective, wants_classes),
        g_beside=g_beside(config.feature_matching, wants_classes),
        limit=clip_gradient(config.clip_gradient) if config.clip_gradient else Rules.limit,
        settle=clip_weights(config.clip_weights) if config.clip_weights else Rules.settle,
        d_bound=config.d_loss_bound or Rules.d_bound,
        g_bound=config.g_loss_bound or Rules.g_bound,
    )


def has_fast_bf16() -> bool:
    """Whether this processor multiplies bfloat16 numbers itself; emulation is slower than float32."""
    found = torch.cpu.get_capabilities()
    return bool(found.get("avx512_bf16") or found.get("amx_bf16"))


def gains_by_bf16(config: Config, D: nn.Module) -> bool:
    """Whether this pair trains faster in bfloat16 on this processor.

    A processor with tiles for matrices (AMX) is so fast in either format that casting the numbers of small products
    costs more than multiplying them saves.
    """
    if not has_fast_bf16():
        return False
    weights = [parameter for parameter in D.parameters() if parameter.dim() > 1]
    is_dense = all(weight.dim() == 2 for weight in weights)
    products = config.batch * sum(weight.numel() for weight in weights)
    return not (torch.cpu.get_capabilities().get("amx_bf16") and is_dense and products < SMALL_PRODUCTS)


def penalties_at(config: Config, images_seen: int, progress: float, memory: Memory) -> Penalties:
    """This step's penalties: none but every few steps, and then as much stronger."""
    if (images_seen // config.batch) % config.penalty_every:
        return Penalties()
    if config.d_loss_target:
        boost = memory["penalty_boost"].item()
    else:
        boost = ramp(progress, config.penalty_boost, 1.0, config.penalty_warmup)
    factor = config.penalty_every * boost
    weighted = ((config.gradient_penalty, gradient_penalty), (config.dragan, dragan_penalty))
    elsewhere = tuple((weight * factor, penalty) for weight, penalty in weighted if weight)
    return Penalties(config.r1 * factor, config.r2 * factor, elsewhere)


def steer_penalties(config: Config, memory: Memory, d_loss: float) -> dict[str, float]:
    """Strengthen or weaken the penalties of the steps to come; the boost of this one, to log."""
    if not config.d_loss_target:
        return {}
    boost = memory["penalty_boost"].item()
    memory["penalty_boost"].fill_(steered_boost(boost, d_loss, config.d_loss_target, config.batch))
    return {"penalty_boost": boost}


def shown(config: Config) -> Callable[[Memory, Tensor, Batch], Tensor]:
    """What becomes of images on their way into D: noise, then changes that hide which images the training set has."""
    blur = noise(config.d_noise, config.d_noise_until)
    changes, share = AUGMENTATIONS.get(config.augment, ((), 0.0))

    def show(memory: Memory, images: Tensor, batch: Batch) -> Tensor:
        images = blur(images, batch) if config.d_noise else images
        probability = memory["augment_probability"].item() if config.augment == "adaptive" else share
        return augment(images, batch.rng, changes=changes, probability=probability)

    return show


def _remember(config: Config, objective: Objective) -> Callable[[Memory, Tensor, Tensor], dict[str, float]]:
    if objective.is_balanced:
        return rebalance(config.balance)
    return adapt_augmentation if config.augment == "adaptive" else Rules.remember


def _d_beside(objective: Objective, wants_classes: bool) -> Callable[[Memory, Tensor, Seen, Seen], Tensor]:
    if objective.is_balanced:
        return weigh_fakes
    return d_names_classes if wants_classes else Rules.d_beside


def adapt_augmentation(memory: Memory, real_logits: Tensor, fake_logits: Tensor) -> dict[str, float]:
    """Change images more often from now on if D is too sure of real ones, less often if not; how often that is."""
    sure = real_logits.sign().mean().item()
    probability = adapt(memory["augment_probability"].item(), sure, len(real_logits))
    memory["augment_probability"].fill_(probability)
    return {"augment_probability": probability}


def noise(start: float, until: float) -> Callable[[Tensor, Batch], Tensor]:
    """Normal noise on all that D is shown, fading along a straight line, so that real and fake overlap at first.

    Source: Arjovsky and Bottou, arXiv:1701.04862, section 3; instance noise, arXiv:1610.04490, section 2.1.
    """

    def show(images: Tensor, batch: Batch) -> Tensor:
        scale = start * max(0.0, 1.0 - batch.progress / until) if until else 0.0
        return images + scale * torch.randn(images.shape, generator=batch.rng) if scale else images

    return show


def empty_memory(config: Config, shape: Sequence[int]) -> Memory:
    """Room for what outlasts a step, for images of this shape (C, H, W); empty where nothing does."""
    memory: Memory = {}
    if config.augment == "adaptive":
        memory["augment_probability"] = torch.zeros((), dtype=torch.float64)
    if config.replay:
        memory |= {
            "replay_images": torch.zeros(config.replay_images, *shape),
            "replay_ids": torch.zeros(config.replay_images, dtype=torch.int64),
            "replay_filled": torch.zeros((), dtype=torch.int64),
        }
    if OBJECTIVES[config.objective].is_balanced:
        memory["balance"] = torch.zeros((), dtype=torch.float64)
    if config.d_loss_target:
        memory["penalty_boost"] = torch.tensor(config.penalty_boost, dtype=torch.float64)
    return memory


def replay(share: float) -> Callable[[Memory, Tensor, Batch], tuple[Tensor, Tensor]]:
    """D meets generated images of the past again, so that G cannot win by going round in circles.

    That share of a batch (rounded down) is swapped for images of the memory, and the images they displace are kept in
    their places; until the memory is full, each batch is only added to it.
    Source: Shrivastava et al., arXiv:1612.07828, section 2.3, where the share is a half.
    """

    def recall(memory: Memory, fake: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        images, ids, filled = memory["replay_images"], memory["replay_ids"], int(memory["replay_filled"])
        if filled < len(images):
            added = min(len(fake), len(images) - filled)
            images[filled : filled + added], ids[filled : filled + added] = fake[:added], batch.fake_ids[:added]
            memory["replay_filled"] += added
            return fake, batch.fake_ids
        swapped = min(int(share * len(fake)), len(images))
        places = torch.randperm(len(images), generator=batch.rng)[:swapped]
        old, old_ids = images[places], ids[places]
        images[places], ids[places] = fake[:swapped], batch.fake_ids[:swapped]
        return torch.cat([old, fake[swapped:]]), torch.cat([old_ids, batch.fake_ids[swapped:]])

    return recall


def weigh_fakes(memory: Memory, loss: Tensor, real: Seen, fake: Seen) -> Tensor:
    """D's loss where errors of redrawing generated images count as much as the balance says: L(x) - k L(G(z)).

    Source: BEGAN, arXiv:1703.10717, section 3.4.
    """
    return loss - (1.0 - memory["balance"].item()) * fake.logits.mean()


def rebalance(gamma: float) -> Callable[[Memory, Tensor, Tensor], dict[str, float]]:
    """Let generated images count more as long as their errors are below `gamma` of real images', and less above.

    Gives k and the measure of convergence, L(x) + |gamma L(x) - L(G(z))|. Source: BEGAN, arXiv:1703.10717, sections 3.3
    to 3.5, with its rate of 0.001.
    """

    def remember(memory: Memory, real_logits: Tensor, fake_logits: Tensor) -> dict[str, float]:
        real_error, fake_error = -real_logits.mean().item(), -fake_logits.mean().item()
        short = gamma * real_error - fake_error
        memory["balance"] += BALANCE_RATE * short
        memory["balance"].clamp_(0.0, 1.0)
        return {"balance": memory["balance"].item(), "convergence": real_error + abs(short)}

    return remember


def d_names_classes(memory: Memory, loss: Tensor, real: Seen, fake: Seen) -> Tensor:
    """D's loss, and its cost of naming the classes of real and generated images. Source: arXiv:1610.09585, eq. 3."""
    assert real.class_logits is not None and fake.class_logits is not None
    return loss + class_loss(real.class_logits, real.ids) + class_loss(fake.class_logits, fake.ids)


def g_beside(feature_matching: float, wants_classes: bool) -> Callable[[Tensor, Seen, Seen], Tensor]:
    """G's loss, a share of it replaced by the distance of D's mean features, and the cost of being classed wrongly.

    Sources: arXiv:1606.03498, section 3.1, where the share is one; arXiv:1610.09585, section 3.
    """

    def beside(loss: Tensor, real: Seen, fake: Seen) -> Tensor:
        if feature_matching:
            assert real.features is not None and fake.features is not None
            loss = (1 - feature_matching) * loss + feature_matching * feature_distance(real.features, fake.features)
        if wants_classes:
            assert fake.class_logits is not None
            loss = loss + class_loss(fake.class_logits, fake.ids)
        return loss

    return beside


def clip_gradient(longest: float) -> Callable[[Gradients], Gradients]:
    """All gradients of a player, shortened together where they are longer. Source: Pascanu et al., arXiv:1211.5063."""

    def limit(gradients: Gradients) -> Gradients:
        length = torch.nn.utils.get_total_norm(list(gradients))
        factor = (longest / (length + 1e-6)).clamp(max=1.0)
        return [gradient * factor for gradient in gradients]

    return limit


def clip_weights(largest: float) -> Callable[[Sequence[Tensor]], None]:
    """D's weights, each brought back between two bounds, which bounds its slope. Source: WGAN, arXiv:1701.07875."""

    def settle(parameters: Sequence[Tensor]) -> None:
        with torch.no_grad():
            for parameter in parameters:
                parameter.clamp_(-largest, largest)

    return settle


def _penalties(config: Config) -> list[str]:
    """The penalties on D's slope that the config asks for."""
    return [name for name in ("r1", "r2", "gradient_penalty", "dragan") if getattr(config, name)]


# Choices that mean something only beside others: whether these are there, and what to ask for.
_NEEDS: dict[str, tuple[Callable[[Config], object], str]] = {
    "style_mixing": (lambda c: c.network == "stylegan-lite", "--network stylegan-lite"),
    "balance": (lambda c: OBJECTIVES[c.objective].is_balanced, "--objective boundary-equilibrium"),
    "penalty_boost": (_penalties, "a penalty such as --r1 0.1"),
    "penalty_every": (_penalties, "a penalty such as --r1 0.1"),
    "d_noise_until": (lambda c: c.d_noise, "--d-noise"),
    "replay_images": (lambda c: c.replay, "--replay"),
    "beta2_start": (lambda c: {c.g_optimizer, c.d_optimizer} & {"adam", "adamw"}, "adam or adamw"),
    "weight_decay": (lambda c: "adamw" in (c.g_optimizer, c.d_optimizer), "adamw"),
    "momentum": (lambda c: "sgd" in (c.g_optimizer, c.d_optimizer), "sgd"),
    "decay": (lambda c: c.decay_from < 1.0, "a share of the schedule to fall after, such as --decay-from 0"),
    "decay_factor": (lambda c: c.decay == "step", "--decay step"),
    "ema_growth": (lambda c: c.ema, "--ema"),
    "keep_every": (lambda c: c.keep_last, "--keep-last"),
}


def _refuse_unheeded(config: Config) -> None:
    """Raise ValueError for choices that nothing would heed, but for those that come with the recipe."""
    for name, (is_met, need) in _NEEDS.items():
        value, default = getattr(config, name), FIELDS[name].default
        if value != default and not config.is_recipes_own(name) and not is_met(config):
            raise ValueError(
                f"{name} is {value!r}, which means nothing without {need}; add that, or leave {name} at {default!r}"
            )
    for field in ("g_conditioning", "d_conditioning"):
        if config.conditioning == "none" and getattr(config, field) != FIELDS[field].default:
            raise ValueError(
                f"{field} is {getattr(config, field)!r}, but players are told nothing; add --conditioning labels or "
                f"clusters, or leave it at {FIELDS[field].default!r}"
            )
    if config.stop_early and config.use_all_training_images:
        raise ValueError(
            "stop_early watches the score of held-out images, and use_all_training_images leaves none; set one of them "
            "back"
        )


def _refuse_adaptive(config: Config, objective: Objective) -> None:
    """Raise ValueError where the sign of a logit does not say what D takes an image for."""
    if config.augment == "adaptive" and not objective.splits_at_zero:
        raise ValueError(
            f"adaptive augmentation watches how often real images' logits are above zero, which means nothing under "
            f"the {config.objective} objective; use --augment always or another objective"
        )
    if config.augment == "adaptive" and config.flip_probability > 0.5:
        raise ValueError(
            "adaptive augmentation watches how often real images' logits are above zero, and with targets swapped most "
            "of the time they are below; use --augment always, or a flip_probability up to 0.5"
        )


def _refuse_slopes(config: Config, objective: Objective, D: nn.Module) -> None:
    """Raise ValueError for penalties that are undefined, and for losses that fall without end."""
    penalised = _penalties(config)
    if penalised and has_batch_statistics(D.modules()):
        raise ValueError(
            f"a gradient penalty per image ({', '.join(penalised)}) is undefined when D normalises over the batch, as "
            f"in {config.network}; set it to 0 or choose another network"
        )
    if objective.needs_slope_limit and not (penalised or config.clip_weights or config.spectral_norm):
        raise ValueError(
            f"the {config.objective} objective falls without end unless D's slope is limited; add "
            "--clip-weights 0.01, --gradient-penalty 10 or --spectral-norm"
        )


def _refuse_losses(config: Config, objective: Objective, D: nn.Module) -> None:
    """Raise ValueError for losses and bounds that have nothing to hold on to."""
    if config.d_loss_target and not _penalties(config):
        raise ValueError(
            f"d_loss_target is {config.d_loss_target:g}, but there is no penalty to steer; set it to 0 or add --r1 0.1"
        )
    for name in ("d_loss_bound", "g_loss_bound", "d_loss_target"):
        if getattr(config, name) and not objective.is_positive:
            raise ValueError(
                f"{name} is {getattr(config, name):g}, but losses of the {config.objective} objective have no floor to "
                "measure from; set it to 0 or choose another objective"
            )
    if objective.is_balanced != any(isinstance(layer, RedrawingErrors) for layer in D.modules()):
        raise ValueError(
            "the boundary-equilibrium objective and the autoencoder network need each other; choose both, or neither"
        )
    asks_classes = config.d_conditioning == "classifier"
    if objective.classifies and not (asks_classes and config.conditioning != "none"):
        raise ValueError(
            f"the {config.objective} objective needs a D that names classes; add --d-conditioning classifier and "
            "--conditioning labels or clusters"
        )
    if config.feature_matching and not hasattr(D, "features"):
        raise ValueError(
            f"feature_matching is {config.feature_matching:g}, but the {config.network} network shows no features; set "
            "it to 0 or choose another network"
        )


def _refuse_joint(config: Config, objective: Objective, D: nn.Module) -> None:
    """Raise ValueError where one pass through D cannot serve both players."""
    reasons = {
        f"under the {config.objective} objective": not objective.joint,
        f"when D normalises over the batch, as in {config.network}": has_batch_statistics(D.modules()),
        "when D sees how the images of a batch differ (minibatch_stddev)": config.minibatch_stddev,
        "when they take different numbers of steps (d_steps, g_steps)": (config.d_steps, config.g_steps) != (1, 1),
        "when each gets images of its own (fresh_fakes)": config.fresh_fakes,
        "when one of them may rest (d_loss_bound, g_loss_bound)": config.d_loss_bound or config.g_loss_bound,
        "when D meets old images (replay)": config.replay,
        "when D may want a generated image's logit higher (fake_target_high, flip_probability)": config.fake_target_high
        or config.flip_probability,
        "when the generator matches features (feature_matching)": config.feature_matching,
        "when D names classes (d_conditioning)": config.d_conditioning == "classifier",
        "with penalties between or around images (gradient_penalty, dragan)": config.gradient_penalty or config.dragan,
    }
    for reason, applies in reasons.items():
        if applies:
            raise ValueError(
                f"one pass cannot serve both players {reason}; use --update alternating, or leave that out"
            )
