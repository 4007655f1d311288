"""Memory that the processes of one machine share, to exchange tensors at every step.

Gloo sends every message through the kernel and wakes a thread for it: a millisecond and more on two busy cores, seven
times a step. Here each process writes its tensor to a place of its own, then a number that the others wait for.
"""

import contextlib
import mmap
import os
import platform
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

PLACE_BYTES = 2**22  # a process's in one exchange; larger tensors take several
_PAGE, _LINE = 4096, 64  # bytes; numbers that different processes write lie in lines of their own
_SPINS = 4000  # looks at a number, about two milliseconds, before a waiting process sleeps between two
_SLEEP_S, _LOOK_S = 5e-5, 0.1  # of such a sleep; between looks for processes that ended


class PeerLost(RuntimeError):
    """Another process ended, or did not come within the time-out."""


class SharedMemory:
    """One process's side of the memory.

    Two exchanges follow each other in two halves of it. A process writes to a half again only once all others have
    begun the exchange after, and so have read the one before.

    Args:
        path: of a file of `size_for(count)` bytes, which may be removed once all have opened it.
        number, count: which process this is, of how many.
        timeout_s: how long to wait for the others.
    """

    def __init__(self, path: str, number: int, count: int, timeout_s: float) -> None:
        self.number, self.count, self.timeout_s = number, count, timeout_s
        with open(path, "r+b") as file:
            self.memory = mmap.mmap(file.fileno(), size_for(count))
        numbers = np.frombuffer(self.memory, np.int64, count=_PAGE // 8)
        step = _LINE // 8
        self.written, self.pids = numbers[: count * step : step], numbers[1 : count * step : step]
        data = torch.frombuffer(self.memory, dtype=torch.uint8, offset=_PAGE)
        self.places = data.view(2, count, PLACE_BYTES)
        self.done = 0
        self.pids[number] = os.getpid()

    def gather(self, values: Tensor) -> Tensor:
        """Return (processes, ...) the tensors of this shape and type that all processes give."""
        found = [together.clone() for together in self._exchanges([values.reshape(-1)])]
        return (found[0] if len(found) == 1 else torch.cat(found, 1)).view(self.count, *values.shape)

    def total(self, parts: Sequence[Tensor]) -> Tensor:
        """Return the sums (n,) of what all processes give, one after another, added in the order of the processes.

        Args:
            parts: one-dimensional tensors of one type, n numbers together.
        """
        found = [_sum(together) for together in self._exchanges(parts)]
        return found[0] if len(found) == 1 else torch.cat(found)

    def _exchanges(self, parts: Sequence[Tensor]) -> Iterator[Tensor]:
        """Yield (processes, n) what all give, piece after piece; each is overwritten later."""
        longest = PLACE_BYTES // parts[0].element_size()
        is_one = sum(part.numel() for part in parts) <= longest
        pieces = [parts] if is_one else [[piece] for piece in torch.cat(list(parts)).split(longest)]
        for piece in pieces:
            length = sum(part.numel() for part in piece)
            places = self.places[self.done % 2].view(piece[0].dtype)[:, :length]
            torch.cat(list(piece), out=places[self.number])
            self.done += 1
            self.written[self.number] = self.done
            for other in range(self.count):
                self._wait_for(other)
            yield places

    def _wait_for(self, other: int) -> None:
        written, wanted = self.written, self.done
        for _ in range(_SPINS):
            if written[other] >= wanted:
                return
            os.sched_yield()
        started_at = looked_at = time.monotonic()
        while written[other] < wanted:
            time.sleep(_SLEEP_S)
            now = time.monotonic()
            if now - looked_at > _LOOK_S:
                looked_at = now
                if now - started_at > self.timeout_s or not _is_alive(int(self.pids[other])):
                    raise PeerLost


def _sum(rows: Tensor) -> Tensor:
    """Return the sum over the first dimension, faster than torch's over a few long rows."""
    first, second, *others = rows
    summed: Tensor = first + second
    for row in others:
        summed += row
    return summed


def size_for(count: int) -> int:
    """Return the bytes of the memory of so many processes."""
    return _PAGE + 2 * count * PLACE_BYTES


def is_possible(count: int) -> bool:
    """Return whether so many processes of one machine can exchange tensors in memory.

    Other processors than x86 let what one core writes become visible to another in another order.
    """
    return sys.platform == "linux" and platform.machine().lower() in ("x86_64", "amd64") and count <= _PAGE // _LINE


@contextlib.contextmanager
def new_file(count: int) -> Iterator[str]:
    """Make a file for the memory of so many processes, in memory where the system has such a folder.

    Raises OSError where there is no room for it, as containers often have little: to write there would end a process.
    """
    folder = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.NamedTemporaryFile(prefix="gansmith-", dir=folder) as file:
        os.posix_fallocate(file.fileno(), 0, size_for(count))
        yield file.name


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except OSError as error:
        return isinstance(error, PermissionError)  # of another user, whom the number went to
    return True
