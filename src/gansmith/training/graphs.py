"""Steps that are repeated: on an NVIDIA GPU as CUDA graphs, one for each kind of step, captured when it recurs.

A small GAN's step is hundreds of kernels of a few microseconds each, which the processor cannot launch as fast as the
GPU runs them. A graph launches them all at once: forward passes, penalties with their double backward, both optimisers,
the moving average. What a step reads is copied to where the graph finds it, and random numbers are drawn again in the
order of the first time. Source: Ng et al. 2021, Accelerating PyTorch with CUDA Graphs (the PyTorch blog).
"""

import logging
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, replace
from functools import cache

import torch
from torch import Tensor, nn

from gansmith.config import Config
from gansmith.errors import reason_of
from gansmith.processes import count
from gansmith.randomness import Tape, on_tape
from gansmith.training.losses import flips_by_chance
from gansmith.training.step import Batch, Number

WARM_UP = 3  # steps of a kind before it is captured: optimisers make their state, libraries choose their kernels
KEPT = 16  # kinds that are counted; a step of which a number changes all the time, as in a ramp, is never captured

logger = logging.getLogger("gansmith")

Step = Callable[[Batch], dict[str, Number]]
Parameters = Callable[[], Sequence[nn.Parameter]]


@dataclass
class Repeated:
    """A kind of step that can be repeated.

    Attributes:
        batch: the tensors that it reads.
        tape: the random numbers that it reads.
        numbers: what it gives to log.
        graph: None until it is captured, and on devices without graphs.
        gradients: of the parameters that it moves, which health signals read; a repeated step does not assign them.
    """

    batch: Batch
    tape: Tape
    numbers: dict[str, Number]
    graph: torch.cuda.CUDAGraph | None = None
    gradients: Sequence[tuple[nn.Parameter, Tensor]] = ()


class Graphs:
    """The kinds of a run's steps that recur.

    Args:
        device: of the networks. On another than an NVIDIA GPU, a step is repeated on the same tensors, without a graph.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.seen: dict[Hashable, int] = {}
        self.repeated: dict[Hashable, Repeated] = {}
        self.scalars: dict[str, Tensor] = {}
        self.is_refused = False

    def device_scalar(self, name: str, value: float) -> Tensor:
        """Return the scalar tensor of this name, set to a number that changes from step to step."""
        if name not in self.scalars:
            self.scalars[name] = torch.zeros((), device=self.device)
        return self.scalars[name].fill_(value)

    def take(self, key: Hashable, batch: Batch, step: Step, parameters: Parameters = tuple) -> dict[str, Number]:
        """Take a step on a batch, by repeating one of the same key where there is one.

        Args:
            key: everything that decides what a step does, and each number that it does not read from a tensor.
            parameters: gives those of which it moves some; called where the step is captured.
        """
        if self.is_refused:
            return step(batch)
        if key in self.repeated:
            return self._repeat(self.repeated[key], batch, step, parameters)
        self.seen[key] = self.seen.pop(key, 0) + 1
        if len(self.seen) > KEPT:
            del self.seen[next(iter(self.seen))]
        if self.seen[key] < WARM_UP:
            return step(batch)
        own = _copy(batch)
        tape = Tape()
        with on_tape(tape, repeats=False):
            numbers = step(own)
        self.repeated[key] = Repeated(own, tape, numbers)
        return numbers

    def _repeat(self, found: Repeated, batch: Batch, step: Step, parameters: Parameters) -> dict[str, Number]:
        torch._foreach_copy_(_tensors(found.batch), _tensors(batch))
        found.batch.rng.set_state(batch.rng.get_state())
        found.tape.renew()
        if self.device.type != "cuda":
            with on_tape(found.tape, repeats=True):
                return step(found.batch)
        if found.graph is None and not self._capture(found, step, parameters):
            return step(batch)
        assert found.graph is not None
        found.graph.replay()
        for parameter, gradient in found.gradients:
            parameter.grad = gradient
        return found.numbers

    def _capture(self, found: Repeated, step: Step, parameters: Parameters = tuple) -> bool:
        """Capture a step, which runs nothing; False where a network does what graphs cannot."""
        graph, stream = torch.cuda.CUDAGraph(), torch.cuda.current_stream(self.device)
        before = [(parameter, parameter.grad) for parameter in parameters()]
        try:
            with torch.cuda.graph(graph, stream=_stream(self.device)), on_tape(found.tape, repeats=True):
                found.numbers = step(found.batch)
        except RuntimeError as error:
            torch.cuda.set_stream(stream)  # which a capture that failed does not leave
            self.is_refused = True
            logger.warning("steps cannot be captured as CUDA graphs (%s); each runs by itself", reason_of(error))
            return False
        found.graph = graph
        found.gradients = [(p, p.grad) for p, old in before if p.grad is not None and p.grad is not old]
        return True


@cache
def _stream(device: torch.device) -> torch.cuda.Stream:
    """Return the stream that steps on this device are captured from: one, for cuBLAS keeps memory for each.

    The one that torch takes by default is of the device on which a process captured first.
    """
    return torch.cuda.Stream(device)


def is_repeatable(config: Config) -> bool:
    """Return whether no step of a run decides anything by what it has drawn or computed before."""
    decides = flips_by_chance(config) or config.d_loss_bound or config.g_loss_bound or config.replay
    return not decides and count() == 1


def _tensors(batch: Batch) -> list[Tensor]:
    return [batch.real, batch.real_y, batch.z, batch.fake_y, *batch.extra_z]


def _copy(batch: Batch) -> Batch:
    """Return a batch with tensors and a generator of its own."""
    real, real_y, z, fake_y, *extra_z = (values.clone() for values in _tensors(batch))
    rng = torch.Generator()
    rng.set_state(batch.rng.get_state())
    return replace(batch, real=real, real_y=real_y, z=z, fake_y=fake_y, extra_z=tuple(extra_z), rng=rng)
