"""The machine a run trains on: threads, the C library's memory, bfloat16; nothing stays changed afterwards."""

import contextlib
import ctypes
import os
import sys
from collections.abc import Iterator

import torch
from torch import nn

from gansmith.config import Config
from gansmith.processes import count_here

# Multiplications of D's pass over a batch below which a CPU with AMX casts longer than it gains: `mlp-small` has
# 13 million, and takes .85 of the time in float32; `mlp-keras` 17 million, and takes 1.08 of it.
SMALL_PRODUCTS = 15e6
# glibc's mallopt: M_TRIM_THRESHOLD and M_MMAP_THRESHOLD by default, and as training sets them.
_MALLOC_DEFAULTS = {-1: 128 * 1024, -3: 128 * 1024}
_MALLOC_TRAINING = {-1: 2**31 - 1, -3: 2**25}


@contextlib.contextmanager
def training_machine(config: Config) -> Iterator[None]:
    """Use the config's threads and keep freed memory while the block runs; put both back afterwards."""
    before = torch.get_num_threads()
    use_threads(config.threads)
    _tune_malloc(_MALLOC_TRAINING)
    try:
        yield
    finally:
        torch.set_num_threads(before)
        _tune_malloc(_MALLOC_DEFAULTS)


def use_threads(threads: int) -> None:
    """Give torch this number of threads; for 0, this process's share of the cores it may use."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    wanted = threads or max(1, (allowed or 1) // count_here())
    if torch.get_num_threads() != wanted:
        torch.set_num_threads(wanted)


def _tune_malloc(values: dict[int, int]) -> None:
    """Set parameters of glibc's malloc, where that is the C library.

    The next step wants as much memory as the last one freed, and the kernel clears every page it hands out again.
    """
    if sys.platform == "linux" and (mallopt := getattr(ctypes.CDLL(None), "mallopt", None)):
        for parameter, value in values.items():
            mallopt(parameter, value)


def has_fast_bf16() -> bool:
    """Whether this CPU multiplies bfloat16 numbers itself; emulation is slower than float32."""
    found = torch.cpu.get_capabilities()
    return bool(found.get("avx512_bf16") or found.get("amx_bf16"))


def gains_by_bf16(config: Config, D: nn.Module) -> bool:
    """Whether these networks train faster in bfloat16 on this CPU.

    A CPU with matrix units (AMX) is so fast in either format that casting small operands costs more than multiplying
    them saves.
    """
    if not has_fast_bf16():
        return False
    weights = [parameter for parameter in D.parameters() if parameter.dim() > 1]
    is_dense = all(weight.dim() == 2 for weight in weights)
    products = config.batch_size * sum(weight.numel() for weight in weights)
    return not (torch.cpu.get_capabilities().get("amx_bf16") and is_dense and products < SMALL_PRODUCTS)
