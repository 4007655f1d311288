"""The processes of one training run, as torchrun starts them: what they agree on, and whose rows of a batch are whose.

Each process trains on its rows of the same batch, and gradients are averaged, so several do what one would. Alone, all
functions here return at once. Only values that JSON can hold and tensors are exchanged, never pickled objects.
"""

import atexit
import contextlib
import json
import math
import os
import socket
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Any, NoReturn, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from gansmith.errors import ConfigError, ProcessLost, TrainingFailed, reason_of
from gansmith.exchange import SharedMemory, is_possible, new_file

TIMEOUT_S = 1800.0  # that a process waits for the others, if GANSMITH_TIMEOUT says nothing else
_VARIABLES = {"RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"}  # of torchrun

T = TypeVar("T")


@dataclass(frozen=True)
class _Share:
    """Which rows of the whole batch are this process's: the k-th block of so many, for each batch in a tensor."""

    number: int
    count: int
    rows: int


_share: _Share | None = None
_memory: SharedMemory | None = None  # where all processes are on this machine
_is_lost = False  # whether an exchange failed, after which parting may wait for those that are gone
_shares_gpu = False


def is_launched() -> bool:
    """Return whether torchrun started this process as one of several."""
    return dist.is_available() and os.environ.keys() >= _VARIABLES and int(os.environ["WORLD_SIZE"]) > 1


def join(*, has_place: bool = True) -> None:
    """Join the processes that torchrun started; where it started none, do nothing.

    Args:
        has_place: whether the user said where the run is, so that a restart finds it.

    Raises ConfigError for a time-out that is not a number of seconds, and for restarts of a run without a place;
    ProcessLost where the others do not come.
    """
    global _shares_gpu
    if not is_launched() or dist.is_initialized():
        return
    if not has_place and int(os.environ.get("TORCHELASTIC_MAX_RESTARTS", 0)):
        raise ConfigError("torchrun --max-restarts starts this command again; give --out, so that it finds the run")
    backend = "gloo"
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]) % torch.cuda.device_count())
        backend = "cpu:gloo,cuda:nccl" if dist.is_nccl_available() else "gloo"
    timeout = timedelta(seconds=_timeout_s())
    with _answered():
        store, rank, size = next(dist.rendezvous("env://", timeout=timeout))  # type: ignore[attr-defined]
        # A restart finds the store of the attempt before, with addresses of processes that are gone.
        restarts = os.environ.get("TORCHELASTIC_RESTART_COUNT", 0)
        attempt = dist.PrefixStore(f"attempt {restarts}", store)  # type: ignore[attr-defined]
        is_second = torch.cuda.is_available() and attempt.add(_name_of_gpu(), 1) > 1
        dist.init_process_group(backend, store=attempt, rank=rank, world_size=size, timeout=timeout)
    atexit.register(_part)
    _share_memory(timeout.total_seconds())
    (_shares_gpu,) = any_of(is_second)


def _name_of_gpu() -> str:
    """Return a name for this process's GPU, unique among those of all machines, unlike its number."""
    return f"{socket.gethostname()} {torch.cuda.get_device_properties(torch.cuda.current_device()).uuid}"


def _share_memory(timeout_s: float) -> None:
    """Exchange tensors of the CPU in memory from now on, where all processes are on this machine."""
    global _memory
    if count_here() != count() or not is_possible(count()):
        return
    with contextlib.ExitStack() as held:
        path = agreed(partial(_file_in, held))
        if path is not None:
            _memory = SharedMemory(path, number(), count(), timeout_s)
            any_of()  # all have opened it, which may be removed


def _file_in(held: contextlib.ExitStack) -> str | None:
    """Return a new file for the memory, which is removed with the stack; None where there is no room."""
    try:
        return held.enter_context(new_file(count()))
    except OSError:
        return None


def _part() -> None:
    """Close the connections, without which threads of theirs may abort a process that ends; not after a loss."""
    if dist.is_initialized() and not _is_lost:
        dist.destroy_process_group()


def _timeout_s() -> float:
    text = os.environ.get("GANSMITH_TIMEOUT", "")
    try:
        seconds = float(text or TIMEOUT_S)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < 10**6:
        raise ConfigError(f"GANSMITH_TIMEOUT is {text!r}; give a number of seconds, such as 600")
    return seconds


def count() -> int:
    """Return the number of processes that train together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def number() -> int:
    """Return which of them this process is, from 0."""
    return dist.get_rank() if count() > 1 else 0


def is_first() -> bool:
    """Return whether this is process 0, which alone writes files and speaks."""
    return number() == 0


def shares_gpu() -> bool:
    """Return whether two of them have the same GPU."""
    return _shares_gpu


def count_here() -> int:
    """Return how many of them run on this machine."""
    return int(os.environ["LOCAL_WORLD_SIZE"]) if count() > 1 and "LOCAL_WORLD_SIZE" in os.environ else 1


def agreed(decide: Callable[[], T]) -> T:
    """Return what process 0 decides, a value that JSON can hold, on all processes.

    Where process 0 raises an exception instead, which it shows, the others end without a word.
    """
    if count() == 1:
        return decide()
    text, error = "", None
    if is_first():
        try:
            text = json.dumps({"value": decide()})
        except Exception as raised:
            text, error = json.dumps({"failed": True}), raised
    found = json.loads(_broadcast(text.encode()))
    if error is not None:
        raise error
    if "failed" in found:
        raise SystemExit(2)
    value: T = found["value"]
    return value


def _broadcast(message: bytes) -> bytes:
    with _answered():
        length = torch.tensor([len(message)])
        dist.broadcast(length, 0)
        content = torch.zeros(int(length), dtype=torch.uint8)
        if is_first():
            content = torch.frombuffer(bytearray(message), dtype=torch.uint8)
        dist.broadcast(content, 0)
    return content.numpy().tobytes()


@contextlib.contextmanager
def first_alone() -> Iterator[None]:
    """Run the block in process 0 first, then in the others, which find what it wrote or cached."""
    if not is_first():
        agreed(lambda: None)
    try:
        yield
    except Exception as error:
        if is_first():
            with contextlib.suppress(type(error)):
                agreed(partial(_raise, error))
        raise
    if is_first():
        agreed(lambda: None)


def _raise(error: Exception) -> NoReturn:
    raise error


def any_of(*flags: bool) -> list[bool]:
    """Return, for each of these, whether it is true on any process."""
    if count() == 1:
        return list(flags)
    found: list[bool] = of_all(torch.tensor(flags, dtype=torch.bool)).any(0).tolist()
    return found


def refuse_difference(digest: str, what: str) -> None:
    """Raise TrainingFailed where a digest is not the same on all processes."""
    if any(any_of(digest != agreed(lambda: digest))):
        raise TrainingFailed(
            f"{what} is not the same on all {count()} processes; use machines of one kind with the same versions, and "
            "continue from the last checkpoint"
        )


@contextlib.contextmanager
def sharing(batch_size: int) -> Iterator[None]:
    """Share the batch of this many rows among the processes, in blocks, while the block runs."""
    global _share
    if count() == 1:
        yield
        return
    before, _share = _share, _Share(number(), count(), batch_size // count())
    try:
        yield
    finally:
        _share = before


def is_sharing() -> bool:
    """Return whether a batch is shared at this moment."""
    return _share is not None


def all_rows(own: int) -> int:
    """Return how many rows all processes together have where this one has so many."""
    return own if _share is None else own * _share.count


def own_rows(values: Tensor, dim: int = 0) -> Tensor:
    """Return this process's rows of a whole batch, or of several one after another in dimension `dim`."""
    if _share is None:
        return values
    rows = math.gcd(values.shape[dim] // _share.count, _share.rows)  # fewer where a part of each share is taken
    blocks: Tensor = values.unflatten(dim, (-1, _share.count, rows))
    return blocks.select(dim + 1, _share.number).flatten(dim, dim + 1)


def whole(values: Tensor) -> Tensor:
    """Return the rows (N, ...) of all processes as one batch, of which `own_rows` gives these back; no gradients."""
    if _share is None:
        return values
    parts: Tensor = of_all(values.detach()).unflatten(1, (-1, _share.rows))
    return parts.transpose(0, 1).flatten(0, 2)


def split(values: Tensor) -> Tensor:
    """Return every `count()`-th of these rows (N, ...), beginning at this process's number."""
    return values[number() :: count()]


def joined_rows(part: Tensor, total: int) -> Tensor:
    """Return all `total` rows of which each process gives what `split` gave it."""
    if count() == 1:
        return part
    longest = -(-total // count())
    padded = torch.cat([part, part.new_zeros(longest - len(part), *part.shape[1:])])
    return of_all(padded).transpose(0, 1).flatten(0, 1)[:total]


def of_all(values: Tensor) -> Tensor:
    """Return (processes, ...) the tensors of this shape that all processes give; no gradients."""
    values = values.detach().contiguous()
    with _answered():
        if _memory is not None and values.device.type == "cpu":
            return _memory.gather(values)
        parts = [torch.empty_like(values) for _ in range(count())]
        dist.all_gather(parts, values)
    return torch.stack(parts)


def mean(value: Tensor) -> Tensor:
    """Return the mean of a tensor over the processes that share a batch; gradients flow to each of them."""
    if _share is None:
        return value
    averaged: Tensor = _Mean.apply(value)  # type: ignore[no-untyped-call]
    return averaged


class _Mean(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:
        return average([value])[0]

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return average([gradient])[0]


def totals(values: Tensor) -> Tensor:
    """Return the sum of a tensor over the processes that share a batch; no gradients."""
    if _share is None:
        return values
    return _totals([values.detach().reshape(-1)]).view(values.shape)


def _totals(parts: Sequence[Tensor]) -> Tensor:
    """Return the sums over processes of these one-dimensional tensors, one after another, in one exchange."""
    with _answered():
        if _memory is not None and parts[0].device.type == "cpu":
            return _memory.total(parts)
        summed = torch.cat(list(parts))
        dist.all_reduce(summed)
    return summed


def average(tensors: Sequence[Tensor]) -> list[Tensor]:
    """Return the means of these tensors over the processes that share a batch, all in one exchange."""
    if _share is None:
        return list(tensors)
    is_last = [_is_channels_last(tensor) for tensor in tensors]
    ordered = [t.detach().permute(0, 2, 3, 1) if last else t.detach() for t, last in zip(tensors, is_last, strict=True)]
    flat = _totals([tensor.reshape(-1) for tensor in ordered]).div_(_share.count)
    parts = flat.split([tensor.numel() for tensor in ordered])
    means = [part.view(tensor.shape) for part, tensor in zip(parts, ordered, strict=True)]
    return [t.permute(0, 3, 1, 2) if last else t for t, last in zip(means, is_last, strict=True)]


def _is_channels_last(values: Tensor) -> bool:
    """Return whether images (N, C, H, W) lie in memory as (N, H, W, C), and would have to be moved to be flattened."""
    return values.dim() == 4 and not values.is_contiguous() and values.is_contiguous(memory_format=torch.channels_last)


@contextlib.contextmanager
def _answered() -> Iterator[None]:
    """Turn what the exchanges of torch raise, which have no class of their own, into a sentence."""
    global _is_lost
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        _is_lost = True
        said = f" ({reason_of(error)})" if str(error) else ""
        raise ProcessLost(
            f"process {os.environ.get('RANK', 0)} of {os.environ.get('WORLD_SIZE', 1)} lost the others{said}: most "
            f"likely one of them ended, or did not answer within {_timeout_s():g} s; the same command with --out "
            "goes on from the last checkpoint, if there is one (torchrun --max-restarts 3 repeats it by itself)"
        ) from error
