"""The optimisers a player may learn by, each from its parameters, its learning rate and the config."""

import inspect
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from gansmith.config import Config, choose


class Adam(torch.optim.Adam):
    """torch's Adam, whose fused step this calls directly.

    What surrounds that call there takes up to a twentieth of a step, and first loads torch's compiler, which takes more
    than a second (docs/log.md).
    """

    add_param_group = inspect.unwrap(Optimizer.add_param_group)
    state_dict = inspect.unwrap(Optimizer.state_dict)
    load_state_dict = inspect.unwrap(Optimizer.load_state_dict)

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Move every parameter along the gradient it holds."""
        (group,) = self.param_groups
        parameters = [p for p in group["params"] if p.grad is not None]
        slots = [self.state[p] or self._begin(p) for p in parameters]
        counts, means, squares = ([slot[name] for slot in slots] for name in ("step", "exp_avg", "exp_avg_sq"))
        torch._foreach_add_(counts, 1)
        torch._fused_adam_(
            parameters, [p.grad for p in parameters], means, squares, [], counts,
            lr=group["lr"], beta1=group["betas"][0], beta2=group["betas"][1], eps=group["eps"],
            weight_decay=group["weight_decay"], amsgrad=False, maximize=False,
        )  # fmt: skip

    def _begin(self, parameter: Tensor) -> dict[str, Tensor]:
        self.state[parameter] = slots = {
            "step": torch.zeros(()),
            "exp_avg": torch.zeros_like(parameter),
            "exp_avg_sq": torch.zeros_like(parameter),
        }
        return slots


def adam(parameters: Iterable[Tensor], rate: float, config: Config) -> Optimizer:
    """Source: Kingma and Ba, arXiv:1412.6980, algorithm 1."""
    return Adam(parameters, rate, betas=(config.beta1, config.beta2), fused=True)


def adamw(parameters: Iterable[Tensor], rate: float, config: Config) -> Optimizer:
    """Adam with a pull towards zero that it does not scale. Source: Loshchilov and Hutter, arXiv:1711.05101."""
    return torch.optim.AdamW(
        parameters, rate, betas=(config.beta1, config.beta2), weight_decay=config.weight_decay, fused=True
    )


def rmsprop(parameters: Iterable[Tensor], rate: float, config: Config) -> Optimizer:
    """Steps over a running root mean square of the gradient; beta2 is its memory. WGAN's choice, arXiv:1701.07875."""
    return torch.optim.RMSprop(parameters, rate, alpha=config.beta2, foreach=True)


def sgd(parameters: Iterable[Tensor], rate: float, config: Config) -> Optimizer:
    """Plain gradient descent, with momentum where the config has some."""
    return torch.optim.SGD(parameters, rate, momentum=config.momentum, fused=True)


OPTIMIZERS: dict[str, Callable[[Iterable[Tensor], float, Config], Optimizer]] = {
    "adam": adam,
    "adamw": adamw,
    "rmsprop": rmsprop,
    "sgd": sgd,
}


def build_optimizer(name: str, network: torch.nn.Module, rate: float, config: Config) -> Optimizer:
    """The optimiser called `name` for all parameters of a network."""
    optimizer: Optimizer = choose(OPTIMIZERS, name, "optimizer")(network.parameters(), rate, config)
    return optimizer
