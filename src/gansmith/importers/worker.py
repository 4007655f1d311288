"""What the processes share in which another library reads a file and computes images: limits, and the messages.

Standard input and output carry the messages of `process.py`, all numbers little-endian: first a length and facts as
JSON; then for each request a count N, latents and class ids, which is answered by N images. A worker ends when its
input does.
"""

import contextlib
import faulthandler
import json
import math
import os
import re
import signal
import struct
import sys
import time
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

LENGTH = struct.Struct("<I")
MEMORY_BYTES = 4 << 30  # torch and Keras take 0.5 GB of it
FACTS = ("latent_dim", "num_classes", "metadata", "notices")


class Generator(Protocol):
    """A loaded file, as a worker serves it.

    Attributes:
        latent_dim: length of the latent vector.
        num_classes: 0 if unconditional; -1 if it takes class ids and does not say how many there are.
        metadata: what Gansmith stored in the file; {} for those of other programs.
        notices: a sentence for each thing that was decided about it.
    """

    latent_dim: int
    num_classes: int
    metadata: dict[str, str]
    notices: list[str]

    def generate(self, z: NDArray[np.float32], y: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return images (N, C, H, W) in [-1, 1] of latents (N, latent_dim) and class ids (N,)."""
        ...


def serve(time_limit: str, read: Callable[[], Generator]) -> None:
    """Read a file, send facts about it or why it cannot be read, then answer requests until standard input ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a notebook's interruption reaches all its processes; G may be idle
    seconds = float(time_limit)
    limit_time(seconds)
    limit_memory()
    replies = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints must not be taken for a reply
    facts: dict[str, Any]
    try:
        generator = read()
        labels = np.array([0, max(0, generator.num_classes - 1)], np.int64)  # the last shows whether there are so many
        images = generator.generate(np.zeros((2, generator.latent_dim), np.float32), labels)
        facts = {name: getattr(generator, name) for name in FACTS} | {"image_shape": images.shape[1:]}
    except Exception as error:  # the libraries raise many types, none of them documented
        facts = {"error": first_line(error)}
    message = json.dumps(facts).encode()
    replies.write(LENGTH.pack(len(message)) + message)
    replies.flush()
    faulthandler.cancel_dump_traceback_later()
    while "error" not in facts and len(header := sys.stdin.buffer.read(LENGTH.size)) == LENGTH.size:
        (count,) = LENGTH.unpack(header)
        z = np.frombuffer(sys.stdin.buffer.read(4 * count * generator.latent_dim), "<f4").reshape(count, -1)
        y = np.frombuffer(sys.stdin.buffer.read(8 * count), "<i8")
        limit_time(seconds)
        images = generator.generate(z.copy(), y.copy())
        faulthandler.cancel_dump_traceback_later()
        replies.write(images.astype("<f4").tobytes())
        replies.flush()


def limit_time(seconds: float) -> None:
    """End this process where what follows takes so many seconds of a core's time, or twice as long by the clock.

    Both also stop what hangs in a library's own code. On a busy machine the clock alone would stop sound files.
    """
    faulthandler.dump_traceback_later(2 * seconds, exit=True)
    with contextlib.suppress(ImportError, OSError, ValueError):  # Windows has no such limits
        import resource

        _, hard = resource.getrlimit(resource.RLIMIT_CPU)
        resource.setrlimit(resource.RLIMIT_CPU, (math.ceil(time.process_time() + seconds), hard))


def limit_memory() -> None:
    """Limit this process's own memory where the operating system can.

    It limits data, not address space: mapping the libraries of a torch with CUDA takes more than any model should.
    """
    with contextlib.suppress(ImportError, OSError, ValueError):  # Windows has no such limits
        import resource

        _, hard = resource.getrlimit(resource.RLIMIT_DATA)
        limit = MEMORY_BYTES if hard == resource.RLIM_INFINITY else min(MEMORY_BYTES, hard)
        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))


def first_line(error: Exception) -> str:
    """Return an error's message as one short line; libraries append whole configurations to theirs."""
    text = str(error).rsplit("Exception encountered: ")[-1].split("Full object config")[0]
    text = re.sub(r"\x1b\[\d*m|Exception encountered when calling .*", "", text)
    line = next((line for line in text.strip(" '\"\n").splitlines() if line), type(error).__name__)
    return line if len(line) <= 240 else f"{line[:240]}..."
