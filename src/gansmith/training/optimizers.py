"""The optimisers of G and D, each built from parameters, a learning rate and the config."""

import contextlib
import inspect
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.linalg import LinAlgError  # type: ignore[attr-defined]
from torch.optim import Optimizer
from torch.optim.adam import adam as adam_by_function

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


SIDES = {"out": 0, "in": 1}  # the dimensions of a weight that have bases


class Soap(Optimizer):
    """Adam in the bases in which gradients vary along the axes.

    The weight of a linear layer or a convolution has a basis for its outputs and one for its inputs, an embedding has
    one for its columns: the eigenvectors of an average of gradients times themselves. Adam's averages are kept in these
    coordinates, and its steps are turned back. Vectors, weights of more than `WIDEST` outputs, and inputs of more than
    that have no basis. Source: Vyas et al., arXiv:2409.11321, algorithms 1 and 3, but that bases are found exactly, and
    that on processors, to save time, the averages see every `SEEN_EVERY`th gradient.

    Args:
        betas: of Adam's two averages; the second is that of the bases too.
    """

    embeddings: frozenset[Tensor] = frozenset()  # a batch moves only the rows of its ids

    WIDEST = 256
    SEEN_EVERY, RENEWED_EVERY = 2, 10  # own steps, and batches of D
    EPS = 1e-8

    def __init__(self, parameters: Iterable[Tensor], lr: float, betas: tuple[float, float]) -> None:
        # With this option the base class moves a loaded count of steps to the device of its parameter.
        super().__init__(parameters, {"lr": lr, "betas": betas, "fused": True})

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Take a step along the gradients; the bases stay as they are."""
        for group in self.param_groups:
            beta1, beta2 = group["betas"]
            turned: list[Turned] = []
            for parameter in group["params"]:
                if parameter.grad is not None:
                    state = self.state[parameter] or self._begin(parameter)
                    rows = self._rows_moved(parameter, beta1)
                    # A graph does the same at every step, and nothing waits for the count on an accelerator.
                    if parameter.device.type != "cpu" or int(state["step"]) % self.SEEN_EVERY == 0:
                        _average_sides(parameter.grad[rows], state, 1 - beta2)
                    turned.append(Turned(parameter, state, rows))
            slots = ([one.state[name] for one in turned] for name in ("exp_avg", "exp_avg_sq"))
            fused_adam(
                [one.moved for one in turned], [one.gradient for one in turned], *slots, [],
                [one.state["step"] for one in turned], amsgrad=False, beta1=beta1, beta2=beta2, lr=group["lr"],
                weight_decay=0.0, eps=self.EPS, maximize=False, fused=True, capturable=isinstance(group["lr"], Tensor),
            )  # fmt: skip
            for one in turned:
                one.turn_back()

    def _rows_moved(self, parameter: Tensor, beta1: float) -> Tensor | slice:
        """Return the rows of an embedding that the next step moves, where that is known; else all."""
        if parameter not in self.embeddings or beta1 or parameter.device.type != "cpu":
            return slice(None)
        assert parameter.grad is not None
        return parameter.grad.abs().amax(1).nonzero().squeeze(1)  # a quarter of the time of `any`

    @torch.no_grad()
    def renew_bases(self) -> None:
        """Set every basis to the eigenvectors of its average; between steps, for CUDA graphs cannot hold this."""
        for state in filter(has_basis, self.state.values()):
            has_mean = self.param_groups[0]["betas"][0] > 0  # else the next gradient replaces it
            mean = _turn(state["exp_avg"], state, back=True) if has_mean else None
            for side in SIDES:
                if f"{side}_factor" in state:
                    _renew(state[f"{side}_basis"], state[f"{side}_factor"])
            if mean is not None:
                state["exp_avg"].copy_(_turn(mean, state))

    def _begin(self, parameter: Tensor) -> dict[str, Tensor]:
        """Return the state of a parameter before its first step, with bases that turn nothing."""
        state: dict[str, Tensor] = self.state[parameter]
        state["step"] = torch.zeros((), device=parameter.device)
        state["exp_avg"], state["exp_avg_sq"] = (torch.zeros_like(parameter) for _ in range(2))
        sides = _sides(parameter)
        if parameter in self.embeddings:
            del sides["out"]
        elif len(sides.get("out", ())) > self.WIDEST:
            sides = {}
        for side, rows in sides.items():
            if 1 < len(rows) <= self.WIDEST:
                state[f"{side}_factor"] = rows.new_zeros(len(rows), len(rows))
                state[f"{side}_basis"] = torch.eye(len(rows)).to(rows)
        return state


fused_adam = inspect.unwrap(adam_by_function)  # without its hook for torch's compiler


class Turned:
    """A parameter during a step: its gradient in the coordinates of its bases, and the move there.

    Args:
        rows: those that the step moves, the first dimension of the parameter.
    """

    def __init__(self, parameter: Tensor, state: dict[str, Tensor], rows: Tensor | slice) -> None:
        assert parameter.grad is not None
        self.parameter, self.state, self.rows = parameter, state, rows
        self.gradient, self.moved = parameter.grad, parameter  # where there is no basis, Adam moves the parameter
        if has_basis(state):
            self.moved = torch.zeros_like(parameter)
            self.gradient = _turn(self.gradient[rows], state)
            if isinstance(rows, Tensor):
                self.gradient = torch.zeros_like(parameter).index_copy_(0, rows, self.gradient)

    def turn_back(self) -> None:
        """Move the parameter."""
        if has_basis(self.state):
            move = _turn(self.moved[self.rows], self.state, back=True)
            if isinstance(self.rows, Tensor):
                self.parameter.index_add_(0, self.rows, move)
            else:
                self.parameter.add_(move)


def has_basis(state: dict[str, Tensor]) -> bool:
    """Return whether what is kept for a parameter holds a basis."""
    return "out_basis" in state or "in_basis" in state


def _turn(values: Tensor, state: dict[str, Tensor], *, back: bool = False) -> Tensor:
    """Return values of a weight in the coordinates of its bases, or from these back in its own, in its layout."""
    turned = values.movedim(1, -1)  # contiguous, where a convolution's weight is channels-last
    if (basis := state.get("out_basis")) is not None:
        turned = ((basis if back else basis.T) @ turned.flatten(1)).view(turned.shape)
    if (basis := state.get("in_basis")) is not None:
        turned = turned @ (basis.T if back else basis)
    turned = turned.movedim(-1, 1)
    return turned if turned.stride() == values.stride() else torch.empty_like(values).copy_(turned)


def _renew(basis: Tensor, average: Tensor) -> None:
    """Set a basis to the eigenvectors of an average, on the processor; not where they are not found."""
    for precision in (torch.float32, torch.float64):  # in single, LAPACK was seen to return NaN for rows of zeros
        with contextlib.suppress(LinAlgError):
            found = torch.linalg.eigh(average.cpu().to(precision))[1].to(basis)
            if found.isfinite().all():
                basis.copy_(found)
                return


def _average_sides(gradient: Tensor, state: dict[str, Tensor], share: float) -> None:
    """Move the average of each side's products towards those of this gradient."""
    for side, rows in _sides(gradient).items():
        if f"{side}_factor" in state:
            state[f"{side}_factor"].lerp_(rows @ rows.T, share)


def _sides(weight: Tensor) -> dict[str, Tensor]:
    """Return a weight as matrices whose rows are outputs and inputs; of a vector, nothing."""
    if weight.dim() < 2:
        return {}
    last = weight.movedim(1, -1)
    return {"out": last.flatten(1), "in": last.flatten(0, -2).T}


def slot_shape(slot: str, parameter: Tensor) -> tuple[int, ...]:
    """Return the shape of what an optimiser keeps under this name for a parameter."""
    side, _, kind = slot.partition("_")
    n = parameter.shape[SIDES[side]] if side in SIDES and parameter.dim() > 1 else 0
    return (n, n) if kind in ("factor", "basis") else tuple(parameter.shape)


def reset_slot(slot: str, value: Tensor) -> None:
    """Set what an optimiser keeps under this name, or one that ends with it, to what it is before its first step."""
    value.zero_()
    if slot.endswith("_basis"):
        value.fill_diagonal_(1)


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


def soap(parameters: Iterable[Tensor], rate: float, config: Config) -> Optimizer:
    """Return SOAP. Source: Vyas et al., arXiv:2409.11321."""
    return uncompiled(Soap)(parameters, rate, (config.beta1, config.beta2))


OPTIMIZERS: dict[str, Callable[[Iterable[Tensor], float, Config], Optimizer]] = {
    "adam": adam,
    "adamw": adamw,
    "rmsprop": rmsprop,
    "sgd": sgd,
    "soap": soap,
}


def build_optimizer(name: str, network: torch.nn.Module, rate: float, config: Config) -> Optimizer:
    """Return the optimiser called `name` for all parameters of a network but those that are frozen."""
    trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
    optimizer: Optimizer = choose(OPTIMIZERS, name, "optimizer")(trained or network.parameters(), rate, config)
    if isinstance(optimizer, Soap):
        tables = [module for module in network.modules() if isinstance(module, torch.nn.Embedding)]
        optimizer.embeddings = frozenset(module.weight for module in tables)
    device = next(network.parameters()).device
    if device.type == "cuda":  # so that a captured step reads the rate at each repetition
        for group in optimizer.param_groups:
            group["lr"] = torch.tensor(rate, device=device)
            if "capturable" in group:
                group["capturable"] = True
        optimizer._warned_capturable_if_run_uncaptured = True  # by steps before a capture
    return optimizer


def set_learning_rates(
    networks: Networks, config: Config, progress: float, *, factor: float = 1.0, extended: float = 0.0
) -> None:
    """Set both optimisers' learning rates and betas for this point of the schedule, or (`extended`) beyond its end."""
    factor *= decay(progress, config.lr_decay, config.lr_decay_from, config.lr_decay_factor, extended=extended)
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


def renew_bases(networks: Networks, turn: int) -> None:
    """Renew the bases of optimisers that have them, after the first of D's steps and then after every `RENEWED_EVERY`.

    G has them from its first steps after these: with `d_steps` of 2, after five of its own, and renews them every five.
    """
    for optimizer in (networks.g_optimizer, networks.d_optimizer):
        if isinstance(optimizer, Soap) and turn % Soap.RENEWED_EVERY == 1:
            optimizer.renew_bases()
