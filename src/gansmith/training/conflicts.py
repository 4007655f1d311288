"""Choices that exclude or need each other, in two tables.

`NEEDS` lists choices that mean something only beside others, `CONFLICTS` choices that cannot go together.
"""

import math
from collections.abc import Callable
from typing import Any

from torch import nn

from gansmith.config import FIELDS, Config
from gansmith.errors import ConfigError
from gansmith.networks.autoencoder import ReconstructionError
from gansmith.processes import count
from gansmith.training.losses import OBJECTIVES, Objective, guessing_loss
from gansmith.training.step import has_batch_norm


def gradient_penalties(config: Config) -> list[str]:
    """Return the fields of the gradient penalties in use."""
    return [name for name in ("r1_gamma", "r2_gamma", "gradient_penalty", "dragan") if getattr(config, name)]


_A_PENALTY = "a gradient penalty such as --r1-gamma 0.1"


def _has_adam(config: Config) -> bool:
    return bool({config.g_optimizer, config.d_optimizer} & {"adam", "adamw", "soap"})


def _has_burn_in(config: Config) -> bool:
    """Return whether anything changes over burn_in."""
    is_penalty_eased = config.penalty_start_factor != 1 and not config.d_loss_target and gradient_penalties(config)
    return bool(is_penalty_eased or config.lr_start_factor != 1 or config.beta2_start or config.ema_growth == "cosine")


def _has_smoothed_target(config: Config) -> bool:
    """Return whether the targets that G's loss reads are smoothed: those of real images, or of fake where exchanged."""
    is_zero_sum = config.objective in OBJECTIVES and OBJECTIVES[config.objective].is_zero_sum
    is_of_fake = (config.label_flipping > 0.5) != is_zero_sum
    return bool(config.fake_label_smoothing if is_of_fake else config.label_smoothing)


def _is_balanced(config: Config) -> bool:
    return config.objective in OBJECTIVES and OBJECTIVES[config.objective].is_balanced


# field: whether it has an effect, and what to ask for otherwise.
NEEDS: dict[str, tuple[Callable[[Config], object], str]] = {
    "d_class_loss": (lambda c: c.classifies, "--conditioning labels, and --d-conditioning auto or projection"),
    "g_class_loss": (lambda c: c.classifies, "--d-class-loss 0.5 and --conditioning labels"),
    "g_rotation_loss": (lambda c: c.d_rotation_loss, "--d-rotation-loss 1"),
    "style_mixing": (lambda c: c.network == "stylegan-lite", "--network stylegan-lite"),
    "began_gamma": (_is_balanced, "--objective boundary-equilibrium"),
    "random_labels": (lambda c: c.label_smoothing or c.fake_label_smoothing, "--label-smoothing 0.3"),
    "g_targets": (lambda c: c.label_smoothing or c.fake_label_smoothing, "--label-smoothing 0.1"),
    "penalty_start_factor": (gradient_penalties, _A_PENALTY),
    "burn_in": (_has_burn_in, "something that changes over it, such as --lr-start-factor 4"),
    "penalty_every": (gradient_penalties, _A_PENALTY),
    "d_loss_target": (gradient_penalties, _A_PENALTY),
    "instance_noise": (lambda c: c.instance_noise_until, "--instance-noise-until 0.5"),
    "instance_noise_until": (lambda c: c.instance_noise, "--instance-noise"),
    "replay_size": (lambda c: c.replay, "--replay"),
    "beta1": (_has_adam, "adam, adamw or soap"),
    "beta2_start": (_has_adam, "adam, adamw or soap"),
    "weight_decay": (lambda c: "adamw" in (c.g_optimizer, c.d_optimizer), "adamw"),
    "momentum": (lambda c: "sgd" in (c.g_optimizer, c.d_optimizer), "sgd"),
    "lr_decay": (lambda c: c.lr_decay_from < 1.0, "a fraction of the schedule to start at, such as --lr-decay-from 0"),
    "lr_decay_factor": (lambda c: c.lr_decay == "step", "--lr-decay step"),
    "ema_growth": (lambda c: c.ema, "--ema"),
    "keep_every": (lambda c: c.keep_last, "--keep-last"),
}


# The same, but said and not refused: they may come with choices that are shared by many runs.
HINTS: dict[str, tuple[Callable[[Config], object], str]] = {
    "clusters": (lambda c: c.conditioning in ("auto", "clusters"), "--conditioning clusters"),
    "clusters_per_class": (lambda c: c.conditioning in ("auto", "labels"), "--conditioning labels"),
    "beta2": (lambda c: {c.g_optimizer, c.d_optimizer} != {"sgd"}, "another optimizer than sgd"),
    "beta2_start": (lambda c: c.burn_in, "a --burn-in above 0"),
    "lr_start_factor": (lambda c: c.burn_in, "a --burn-in above 0"),
    "penalty_start_factor": (lambda c: c.burn_in or c.d_loss_target, "a --burn-in above 0"),
    "g_targets": (_has_smoothed_target, "smoothing of the targets that G's loss reads"),
}


def hints(config: Config) -> list[str]:
    """Return a sentence for each choice that was asked for and changes nothing."""
    return [
        f"{name} is {getattr(config, name)}, which changes nothing without {need}"
        for name, (has_effect, need) in HINTS.items()
        if getattr(config, name) != FIELDS[name].default
        and config.origins.get(name, "recipe") not in ("recipe", "start-from")
        and not has_effect(config)
    ]


def used_techniques(config: Config) -> dict[str, Any]:
    """Return the techniques in use, each with its value, but for those of a recipe that have no effect here."""
    idle = {name for name, (has_effect, _) in (*NEEDS.items(), *HINTS.items()) if not has_effect(config)}
    return {name: value for name, value in config.techniques().items() if name not in idle}


Conflict = Callable[[Config, Objective, nn.Module], str | None]


def refuse_conflicts(config: Config, objective: Objective, D: nn.Module) -> None:
    """Raise ConfigError for choices without effect, but for the recipe's own, and for ones that exclude each other."""
    if not isinstance(objective, Objective):  # a row that a program added
        raise ConfigError(f"OBJECTIVES[{config.objective!r}] is {objective!r:.60}; it must be an Objective")
    for name, (has_effect, need) in NEEDS.items():
        value, default = getattr(config, name), FIELDS[name].default
        if value != default and not config.is_from_recipe(name) and not has_effect(config):
            raise ConfigError(
                f"{name} is {value!r}, which has no effect without {need}; add that, or leave {name} at {default!r}"
            )
    for conflict in CONFLICTS:
        sentence = conflict(config, objective, D)
        if sentence:
            raise ConfigError(sentence)


def _conditioning_on_nothing(config: Config, objective: Objective, D: nn.Module) -> str | None:
    for name in ("g_conditioning", "d_conditioning"):  # of a recipe too: without them it is another one
        if config.conditioning == "none" and getattr(config, name) != "auto":
            return (
                f"{name} is {getattr(config, name)!r}, which has no effect without --conditioning labels or clusters; "
                f"add that, or set {name} to 'auto'"
            )
    return None


def _early_stopping_without_validation(config: Config, objective: Objective, D: nn.Module) -> str | None:
    if not (config.early_stopping and config.use_all_training_images):
        return None
    return (
        "early_stopping watches the validation FD ratio, and use_all_training_images leaves no validation images; omit "
        "one of them"
    )


def _adaptive_augmentation(config: Config, objective: Objective, D: nn.Module) -> str | None:
    if config.augment != "adaptive":
        return None
    watched = "adaptive augmentation watches how often real images' logits are above zero"
    if not objective.splits_at_zero:
        return (
            f"{watched}, which means nothing under the {config.objective} objective; use --augment diffaugment or "
            "another objective"
        )
    if config.label_flipping > 0.5:
        return (
            f"{watched}, and with labels flipped most of the time they are below; use --augment diffaugment, or a "
            "label_flipping up to 0.5"
        )
    return None


def _penalty_under_batch_norm(config: Config, objective: Objective, D: nn.Module) -> str | None:
    penalties = gradient_penalties(config)
    if not (penalties and has_batch_norm(D.modules())):
        return None
    return (
        f"a gradient penalty per image ({', '.join(penalties)}) is undefined when D has batch normalisation, as in "
        f"{config.network}; set it to 0 or choose another network"
    )


def _unbounded_loss(config: Config, objective: Objective, D: nn.Module) -> str | None:
    is_limited = gradient_penalties(config) or config.clip_weights or config.spectral_norm
    if not objective.needs_lipschitz or is_limited:
        return None
    return (
        f"the {config.objective} objective is unbounded unless D is Lipschitz; add --clip-weights 0.01, "
        "--gradient-penalty 10 or --spectral-norm"
    )


def _bound_without_floor(config: Config, objective: Objective, D: nn.Module) -> str | None:
    of_d, of_g = ("D's", objective.d_is_positive), ("G's", objective.g_is_positive)
    for name, (whose, is_positive) in {"d_loss_bound": of_d, "d_loss_target": of_d, "g_loss_bound": of_g}.items():
        if getattr(config, name) and not is_positive:
            return (
                f"{name} is {getattr(config, name):g}, but {whose} loss of the {config.objective} objective has no "
                "lower bound to measure from; set it to 0 or choose another objective"
            )
    return None


def _target_beyond_guessing(config: Config, objective: Objective, D: nn.Module) -> str | None:
    reason = "" if config.is_from_recipe("d_loss_target") else vain_target(config)
    return f"d_loss_target is {config.d_loss_target:g}, and {reason}; choose less, or 0" if reason else None


def vain_target(config: Config) -> str:
    """Return why D's loss cannot be held at its target, and penalties would grow without end; "" where it can be."""
    if config.d_loss_target and not getattr(OBJECTIVES.get(config.objective), "d_is_positive", True):
        return f"D's loss of the {config.objective} objective has no lower bound"
    guessing = guessing_loss(config) if config.d_loss_target else 0.0
    is_vain = config.d_loss_target >= guessing > 0
    return f"under the {config.objective} objective D's loss is {guessing:.3g} where it guesses" if is_vain else ""


def _began_and_autoencoder(config: Config, objective: Objective, D: nn.Module) -> str | None:
    if objective.is_balanced == any(isinstance(layer, ReconstructionError) for layer in D.modules()):
        return None
    return "the boundary-equilibrium objective and the autoencoder network need each other; choose both, or neither"


def _classes_without_classifier(config: Config, objective: Objective, D: nn.Module) -> str | None:
    has_classifier = config.d_conditioning == "classifier" and config.conditioning != "none"
    if not objective.classifies or has_classifier:
        return None
    return (
        f"the {config.objective} objective needs an auxiliary classifier in D; add --d-conditioning classifier and "
        "--conditioning labels or clusters"
    )


def _class_loss_without_classifier(config: Config, objective: Objective, D: nn.Module) -> str | None:
    if not config.classifies or config.is_from_recipe("d_class_loss"):
        return None
    if getattr(D, "classifier", None) is not None:
        return None
    return (
        f"d_class_loss is {config.d_class_loss:g}, but D of the {config.network} network has no classifier beside its "
        "logit; set it to 0 or choose --network compact"
    )


def _rotation_loss_without_head(config: Config, objective: Objective, D: nn.Module) -> str | None:
    if not config.d_rotation_loss or getattr(D, "rotation", None) is not None:
        return None
    return (
        f"d_rotation_loss is {config.d_rotation_loss:g}, but D of the {config.network} network cannot name turns; set "
        "it to 0 or choose --network compact"
    )


def _classifier_without_features(config: Config, objective: Objective, D: nn.Module) -> str | None:
    if config.d_conditioning != "classifier" or config.conditioning == "none" or hasattr(D, "features"):
        return None
    return (
        f"d_conditioning is 'classifier', but D of the {config.network} network has no features to classify; choose "
        "projection or another network"
    )


def _matching_without_features(config: Config, objective: Objective, D: nn.Module) -> str | None:
    if not config.feature_matching or hasattr(D, "features"):
        return None
    return (
        f"feature_matching is {config.feature_matching:g}, but the {config.network} network gives no features; set it "
        "to 0 or choose another network"
    )


_TURNED = 4  # images of which the rotation loss turns the first


def _uneven_shares(config: Config, objective: Objective, D: nn.Module) -> str | None:
    processes, batch, group = count(), config.batch_size, config.minibatch_stddev
    least = processes * math.lcm(max(1, group), _TURNED if config.d_rotation_loss else 1)
    if processes == 1 or batch % least == 0:
        return None
    whole_groups = f" in whole groups of minibatch_stddev, which is {group}" if group else ""
    whole_groups += " and of 4, one of which is turned" if config.d_rotation_loss and group % _TURNED else ""
    return (
        f"batch_size is {batch}, which {processes} processes cannot share evenly{whole_groups}; give a multiple of "
        f"{least}, such as {-(-batch // least) * least}, or start fewer"
    )


CONFLICTS: tuple[Conflict, ...] = (
    _conditioning_on_nothing,
    _early_stopping_without_validation,
    _adaptive_augmentation,
    _penalty_under_batch_norm,
    _unbounded_loss,
    _bound_without_floor,
    _target_beyond_guessing,
    _began_and_autoencoder,
    _classes_without_classifier,
    _class_loss_without_classifier,
    _rotation_loss_without_head,
    _uneven_shares,
    _classifier_without_features,
    _matching_without_features,
)
