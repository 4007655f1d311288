"""The optimisers of G and D, each built from parameters, a learning rate and the config."""

import inspect
from collections.abc import Callable, Iterable

import torch
from torch import Tensor
from torch.optim import Optimizer

from gansmith.config import Config, choose
from gansmith.training.schedule import decay, ramp
from gansmith.training.step import Networks


def uncompiled(kind: type[Optimizer]) -> Callable[..., Optimizer]:
    """Return an optimiser of torch without its hooks for torch's compiler, which takes more than a second to load.

    Torch also wraps each step to time it for a profiler and to call hooks, unless the step is marked as wrapped.
    """
    names = ("add_param_group", "state_dict", "load_state_dict")
    methods = {name: inspect.unwrap(getattr(kind, name)) for name in names}
    step = torch.no_grad()(inspect.unwrap(kind.step))
    step.hooked = True
    return type(kind.__name__, (kind,), {**methods, "step": step})


Adam = uncompiled(torch.optim.Adam)
AdamW = uncompiled(torch.optim.AdamW)
RMSprop = uncompiled(torch.optim.RMSprop)
SGD = uncompiled(torch.optim.SGD)


def adam(parameters: Iterable[Tensor], rate: float, config: Config) -> Optimizer:
    """Return Adam. Source: Kingma and Ba, arXiv:1412.6980, algorithm 1."""
    return Adam(parameters, rate, betas=(config.beta1, config.beta2), fused=True)


def adamw(parameters: Iterable[Tensor], rate: float, config: Config) -> Optimizer:
    """Return Adam with decoupled weight decay. Source: Loshchilov and Hutter, arXiv:1711.05101."""
    return AdamW(parameters, rate, betas=(config.beta1, config.beta2), weight_decay=config.weight_decay, fused=True)


def rmsprop(parameters: Iterable[Tensor], rate: float, config: Config) -> Optimizer:
    """Return RMSprop, whose alpha is beta2. WGAN's choice, arXiv:1701.07875."""
    return RMSprop(parameters, rate, alpha=config.beta2, foreach=True)


def sgd(parameters: Iterable[Tensor], rate: float, config: Config) -> Optimizer:
    """Return stochastic gradient descent, with the config's momentum."""
    return SGD(parameters, rate, momentum=config.momentum, fused=True)


OPTIMIZERS: dict[str, Callable[[Iterable[Tensor], float, Config], Optimizer]] = {
    "adam": adam,
    "adamw": adamw,
    "rmsprop": rmsprop,
    "sgd": sgd,
}


def build_optimizer(name: str, network: torch.nn.Module, rate: float, config: Config) -> Optimizer:
    """Return the optimiser called `name` for all parameters of a network."""
    optimizer: Optimizer = choose(OPTIMIZERS, name, "optimizer")(network.parameters(), rate, config)
    device = next(network.parameters()).device
    if device.type == "cuda":  # so that a captured step reads the rate at each repetition
        for group in optimizer.param_groups:
            group["lr"] = torch.tensor(rate, device=device)
            if "capturable" in group:
                group["capturable"] = True
        optimizer._warned_capturable_if_run_uncaptured = True  # by steps before a capture
    return optimizer


def set_learning_rates(networks: Networks, config: Config, progress: float, *, factor: float = 1.0) -> None:
    """Set both optimisers' learning rates and betas for this point of the schedule."""
    factor *= decay(progress, config.lr_decay, config.lr_decay_from, config.lr_decay_factor)
    factor *= ramp(progress, config.lr_start_factor, 1.0, config.burn_in)
    beta2 = ramp(progress, config.beta2_start or config.beta2, config.beta2, config.burn_in)
    for optimizer, rate in ((networks.g_optimizer, config.g_lr), (networks.d_optimizer, config.d_lr)):
        for group in optimizer.param_groups:
            if isinstance(group["lr"], Tensor):
                group["lr"].fill_(rate * factor)
            else:
                group["lr"] = rate * factor
            if "betas" in group:
                group["betas"] = (config.beta1, beta2)
