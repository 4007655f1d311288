"""Random numbers as a function of (seed, images seen, purpose), so that a resumed run repeats them exactly.

The purposes are part of what a run is: another word would draw other numbers.
"""

import contextlib
import hashlib
from collections.abc import Iterator

import torch


def rng(*key: int | str) -> torch.Generator:
    """Return a random generator that depends on this key alone."""
    digest = hashlib.blake2b("/".join(map(str, key)).encode(), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "little") >> 1)


@contextlib.contextmanager
def seeded(source: torch.Generator) -> Iterator[None]:
    """Seed torch's global generator, which dropout and weight initialisation draw from, and restore it afterwards."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(source.initial_seed())
        yield
