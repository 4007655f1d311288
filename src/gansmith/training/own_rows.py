"""Rows that a program adds to the tables of recipes, data sets, networks and objectives, or replaces there."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from gansmith.config import Config
from gansmith.data import BUILT_IN_DATASETS
from gansmith.errors import ConfigError
from gansmith.networks import BUILT_IN_NETWORKS, NETWORKS
from gansmith.randomness import rng, seeded, to_device
from gansmith.recipes import BUILT_IN_RECIPES, RECIPES
from gansmith.training.conflicts import gradient_penalties
from gansmith.training.inputs import TrainingData
from gansmith.training.losses import BUILT_IN_OBJECTIVES, OBJECTIVES
from gansmith.training.state import start_networks
from gansmith.training.techniques import build_techniques


def custom_choices(config: Config) -> dict[str, str]:
    """Return the choices that stand for code of this program's own: rows of tables that it added or replaced."""
    tables: dict[str, tuple[Mapping[str, Any], Mapping[str, Any]]] = {
        "recipe": (RECIPES, BUILT_IN_RECIPES),
        "network": (NETWORKS, BUILT_IN_NETWORKS),
        "objective": (OBJECTIVES, BUILT_IN_OBJECTIVES),
    }
    own = {} if config.data_dir or config.data in BUILT_IN_DATASETS else {"data": config.data}
    for name, (table, built_in) in tables.items():
        value = getattr(config, name)
        if value not in built_in or table.get(value) is not built_in[value]:
            own[name] = value
    return own


@torch.no_grad()
def refuse_own_shapes(config: Config, data: TrainingData) -> None:
    """Raise ConfigError where a program's own networks return tensors of another shape, or its losses no number.

    Exceptions that they raise themselves pass through. Called before anything is written.
    """
    own = custom_choices(config)
    if "objective" in own:
        _refuse_losses(config.objective, config.batch_size)
    if "network" not in own:
        return
    # On the CPU, since an accelerator that cannot do it is not taken later.
    networks = start_networks(config.replace(device="cpu"), data.spec, data.conditioning.codes)
    for name, network in (("G", networks.G), ("D", networks.D)):
        if not any(parameter.requires_grad for parameter in network.parameters()):
            raise ConfigError(f"network {config.network!r}: {name} has no parameters that require gradients")
    z, y = torch.zeros(2, config.latent_dim), torch.zeros(2, dtype=torch.int64)
    z, y = (to_device(values, networks.device) for values in (z, y))
    with seeded(rng("shapes")):  # they may draw random numbers
        images, is_of_sigmoid = _run(networks.G, z, y)
        _refuse_shape(config, "G(z, y)", images, (2, data.spec.channels, data.spec.size, data.spec.size))
        if is_of_sigmoid:
            raise ConfigError(
                f"network {config.network!r}: G ends in a sigmoid; images are in [-1, 1], so end it in nn.Tanh"
            )
        images = images.float()
        logits, is_of_sigmoid = _run(networks.D, images, y)
        _refuse_shape(config, "D(images, y)", logits, (2,))
        if is_of_sigmoid and "objective" not in own:
            raise ConfigError(f"network {config.network!r}: D ends in a sigmoid; losses take logits, so leave it out")
        _refuse_halves(config, networks.D, images, y, len(data.conditioning) // data.conditioning.ids_per_class)
        if gradient_penalties(config) and not _can_be_penalised(networks.D, images, y):
            raise ConfigError(
                f"network {config.network!r}: D's gradient at images does not depend on its parameters, so gradient "
                f"penalties ({', '.join(gradient_penalties(config))}) have no effect; use operations that can be "
                "differentiated twice, or set the penalties to 0"
            )


def _run(network: nn.Module, *inputs: Tensor) -> tuple[Any, bool]:
    """Return what a network returns, and whether that is what a sigmoid gave, from 0 to 1."""
    given: list[Tensor] = []
    sigmoids = [module for module in network.modules() if isinstance(module, nn.Sigmoid)]
    hooks = [module.register_forward_hook(lambda module, inputs, output: given.append(output)) for module in sigmoids]
    try:
        output = network(*inputs)
    finally:
        for hook in hooks:
            hook.remove()
    return output, isinstance(output, Tensor) and any(one.flatten().equal(output.flatten()) for one in given)


def _refuse_halves(config: Config, D: Any, images: Tensor, y: Tensor, labels: int) -> None:
    """Raise ConfigError where D's two halves, if it has them, return other shapes than (N,) and (N, labels)."""
    if not hasattr(D, "features"):
        return
    features = D.features(images, y)
    _refuse_shape(config, "D.score(features, y)", D.score(features, y), (2,))
    if build_techniques(config, D).wants_classes:
        _refuse_shape(config, "D.classify(features)", D.classify(features), (2, labels))


def _can_be_penalised(D: nn.Module, images: Tensor, y: Tensor) -> bool:
    """Return whether a penalty on D's gradient at images (N, C, H, W) reaches any of its parameters."""
    weights = [parameter for parameter in D.parameters() if parameter.requires_grad]
    with torch.enable_grad():
        images = images.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(D(images, y).sum(), images, create_graph=True, materialize_grads=True)
        if not gradient.requires_grad:
            return False
        found = torch.autograd.grad(gradient.square().sum(), weights, allow_unused=True)
    return any(gradient is not None for gradient in found)


def _refuse_losses(name: str, count: int) -> None:
    """Raise ConfigError where an objective's losses of `count` logits are no numbers that depend on the logits."""
    objective = OBJECTIVES[name]
    numbers = rng("logits")
    real, other, fake = (torch.randn(count, generator=numbers).requires_grad_() for _ in range(3))
    for which in ("d_loss", "g_loss"):
        with torch.enable_grad(), seeded(rng("targets")):  # they may draw random numbers
            value = getattr(objective, which)(real, fake)
        if not isinstance(value, Tensor) or value.shape != () or not value.requires_grad:
            found = f"shape {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
            if isinstance(value, Tensor) and value.shape == ():
                found = "a number that does not depend on the logits"
            raise ConfigError(
                f"objective {name!r}: {which} of {count} logits is {found}; it must be one number that depends on "
                "them, such as a mean"
            )
        if which == "g_loss" and not objective.g_sees_real:
            (at_real,) = torch.autograd.grad(value, real, allow_unused=True)
            with seeded(rng("targets")):
                at_other = objective.g_loss(other, fake)
            is_equal = torch.equal(value, at_other) or not bool(value.isfinite())
            if not is_equal or (at_real is not None and at_real.any()):
                raise ConfigError(
                    f"objective {name!r}: g_loss depends on the logits of real images; add g_sees_real=True to its "
                    "Objective, without which G's step does not compute them"
                )


def _refuse_shape(config: Config, what: str, output: object, wanted: tuple[int, ...]) -> None:
    found = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
    if found != wanted:
        raise ConfigError(f"network {config.network!r}: {what} is {found} for a batch of two; it must be {wanted}")
