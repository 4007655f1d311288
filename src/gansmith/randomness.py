"""Random numbers as a function of (seed, images seen, purpose), so that a resumed run repeats them exactly.

They are drawn on the CPU, so that they are the same on every device. The purposes are part of what a run is: another
word would draw other numbers.
"""

import contextlib
import hashlib
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from gansmith.processes import all_rows, own_rows


def rng(*key: int | str) -> torch.Generator:
    """Return a random generator that depends on this key alone."""
    words = [part if isinstance(part, str) else str(int(part)) for part in key]  # one of torch or NumPy is the same one
    digest = hashlib.blake2b("/".join(words).encode(), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "little") >> 1)


@contextlib.contextmanager
def seeded(source: torch.Generator) -> Iterator[None]:
    """Seed torch's global generators, which dropout and weight initialisation draw from, and restore them."""
    devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()  # all of which torch seeds
    on_mps = torch.mps.get_rng_state() if torch.backends.mps.is_available() else None
    try:
        with torch.random.fork_rng(devices=devices):
            torch.manual_seed(source.initial_seed())
            yield
    finally:
        if on_mps is not None:
            torch.mps.set_rng_state(on_mps)


def to_device(values: Tensor, device: torch.device) -> Tensor:
    """Return values on a device; a copy to an NVIDIA GPU is left to run while this thread goes on."""
    if device.type == "cpu":
        return values
    if device.type != "cuda":  # MPS would read memory that is free again by then
        return values.to(device)
    pinned = values.pin_memory() if values.device.type == "cpu" else values  # kept by torch until it was copied
    return pinned.to(device, non_blocking=True)


class Tape:
    """The random numbers that one step drew, so that the step can be repeated with new ones in the same places."""

    def __init__(self) -> None:
        self.entries: list[tuple[Callable[[], Tensor], Tensor]] = []
        self.position: int | None = None  # of the next entry in a repeated step; None while the first one is recorded

    def renew(self) -> None:
        """Draw all numbers again, into the tensors that the step reads."""
        for draw, numbers in self.entries:
            numbers.copy_(to_device(draw(), numbers.device))

    def take(self, draw: Callable[[], Tensor], device: torch.device) -> Tensor:
        if self.position is None:
            numbers = to_device(draw(), device)
            self.entries.append((draw, numbers))
            return numbers
        self.position += 1
        return self.entries[self.position - 1][1]


_tape: Tape | None = None


@contextlib.contextmanager
def on_tape(tape: Tape, *, repeats: bool) -> Iterator[None]:
    """Record what `drawn` draws on a tape while the block runs, or take it from there."""
    global _tape
    tape.position = 0 if repeats else None
    before, _tape = _tape, tape
    try:
        yield
    finally:
        _tape = before


def drawn(
    draw: Callable[[int], Tensor], rows: int, *, device: torch.device, dim: int = 0, shared: bool = False
) -> Tensor:
    """Return random numbers for rows of a batch on a device.

    Where processes share the batch, they are those rows of what is drawn for all of it.

    Args:
        draw: from the number of rows to numbers on the CPU; called again with the generators it holds where the step is
            repeated.
        rows: how many this process has.
        dim: dimension of the rows.
        shared: the numbers are for the whole batch, not for rows of it.
    """

    def take() -> Tensor:
        return draw(rows) if shared else own_rows(draw(all_rows(rows)), dim)

    return to_device(take(), device) if _tape is None else _tape.take(take, device)


def one_each(images: Tensor, generator: torch.Generator) -> Tensor:
    """Return a number in [0, 1) for each image, (N, 1, 1, 1)."""
    return drawn(lambda rows: torch.rand(rows, 1, 1, 1, generator=generator), len(images), device=images.device)
