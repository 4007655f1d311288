"""The machine a run trains on: device, threads, the C library's memory, number formats.

Nothing stays changed afterwards.
"""

import contextlib
import ctypes
import os
import platform
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn

from gansmith.config import DEVICE, Config
from gansmith.errors import ConfigError
from gansmith.isolation import torch_defaults
from gansmith.processes import count, count_here, shares_gpu

# Multiplications of D's pass over a batch below which a CPU with AMX casts longer than it gains: `mlp-small` has
# 13 million, and takes .85 of the time in float32; `mlp-keras` 17 million, and takes 1.08 of it.
SMALL_PRODUCTS = 15e6
# glibc's mallopt: M_TRIM_THRESHOLD, M_TOP_PAD and M_MMAP_THRESHOLD as training sets them, and after it. The thresholds
# begin at 128 KiB and follow what a program frees, up to these, until one is set; 128 KiB for good would slow all
# large arrays of a program.
_MALLOC_DEFAULTS = {-1: 2**26, -2: 2**17, -3: 2**25}
_MALLOC_TRAINING = {-1: 2**31 - 1, -2: 2**28, -3: 2**25}
_MADV_HUGEPAGE, _MADV_COLLAPSE = 14, 25  # of Linux on x86 and ARM


@contextlib.contextmanager
def training_machine(config: Config) -> Iterator[None]:
    """Use the config's device and threads, keep freed memory and compute repeatably while the block runs.

    Random states, threads and torch's defaults are those of the whole process: only one training runs in it at a time.
    """
    with training_settings(config):
        _tune_malloc(_MALLOC_TRAINING)
        _use_huge_pages()
        try:
            yield
        finally:
            _tune_malloc(_MALLOC_DEFAULTS)


@contextlib.contextmanager
def training_settings(config: Config) -> Iterator[None]:
    """Set the device, threads and torch's defaults of a training, which code between its events must not see.

    Numbers are float32 and gradients are computed, whatever the caller has set.
    """
    before, device = torch.get_num_threads(), find_device(config.device)
    use_threads(config.threads)
    try:
        with torch_defaults(), torch.inference_mode(False), torch.enable_grad(), computing_on(device):
            yield
    finally:
        torch.set_num_threads(before)


@contextlib.contextmanager
def computing_on(device: torch.device) -> Iterator[None]:
    """Have an NVIDIA GPU be torch's current one and compute repeatably while the block runs; do nothing for others."""
    if device.type != "cuda":
        yield
        return
    with torch.cuda.device(device), repeatable():
        yield


_WORKSPACE = "CUBLAS_WORKSPACE_CONFIG"


@contextlib.contextmanager
def repeatable() -> Iterator[None]:
    """Let an NVIDIA GPU compute the same result each time, and products in the full precision of float32, not TF32."""
    cudnn = torch.backends.cudnn
    deterministic: Any = torch.utils.deterministic  # whose attributes mypy does not see
    before = (cudnn.benchmark, deterministic.fill_uninitialized_memory)
    was_on, warns = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    workspace = os.environ.get(_WORKSPACE)
    os.environ.setdefault(_WORKSPACE, ":4096:8")  # which cuBLAS reads once, and needs to be repeatable
    cudnn.benchmark = deterministic.fill_uninitialized_memory = False
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        with full_precision():
            yield
    finally:
        cudnn.benchmark, deterministic.fill_uninitialized_memory = before
        torch.use_deterministic_algorithms(was_on, warn_only=warns)
        if workspace is None:
            os.environ.pop(_WORKSPACE, None)


@contextlib.contextmanager
def full_precision() -> Iterator[None]:
    """Compute products of float32 without TF32 while the block runs.

    torch has two sets of switches for it, and reading one raises RuntimeError where a program has used the other.
    """
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    newer: Any = (matmul, cudnn.conv, cudnn.rnn)  # type: ignore[attr-defined]
    try:
        before = cudnn.allow_tf32, torch.get_float32_matmul_precision()
    except RuntimeError:
        before = None
    names = [switch.fp32_precision for switch in newer]
    try:
        if before is None:
            for switch in newer:
                switch.fp32_precision = "ieee"
        else:
            cudnn.allow_tf32 = False
            torch.set_float32_matmul_precision("highest")
        yield
    finally:
        if before is not None:
            cudnn.allow_tf32 = before[0]
            torch.set_float32_matmul_precision(before[1])
        for switch, name in zip(newer, names, strict=True):
            switch.fp32_precision = name


def find_device(asked: str | torch.device) -> torch.device:
    """Return the device of this name; for auto the accelerator, where there is one.

    Raises ConfigError for one that there never is, that this machine does not have, or that several processes cannot
    share.
    """
    asked = str(asked)
    if not DEVICE.fullmatch(asked):
        raise ConfigError(f"device is {asked!r}; it must be auto, cpu, cuda, cuda:0 or mps, such as auto")
    if count() > 1 and asked != "cpu":
        _refuse_sharing(asked)
    found = accelerator()
    if asked in ("auto", "cpu"):
        return found if asked == "auto" and found is not None else torch.device("cpu")
    if found is None or found.type != asked.split(":")[0]:
        here = "cpu" if found is None else f"cpu or {found.type}"
        raise ConfigError(f"device is {asked}, and torch {torch.__version__} finds none here; give {here}")
    if ":" in asked and int(asked.split(":")[1]) >= torch.cuda.device_count():
        raise ConfigError(f"device is {asked}, and this machine has {torch.cuda.device_count()}; give cuda:0")
    return torch.device(asked) if ":" in asked else found


def _refuse_sharing(asked: str) -> None:
    """Raise ConfigError for a device that several processes cannot use, or of which two would have the same one."""
    if ":" in asked:
        raise ConfigError(f"device is {asked}, one GPU for {count()} processes; give cuda, and each takes its own")
    if asked == "mps":
        raise ConfigError(f"device is mps, through which {count()} processes cannot exchange tensors; give cpu")
    if torch.cuda.is_available() and shares_gpu():
        raise ConfigError(
            f"there are more processes than GPUs ({torch.cuda.device_count()} here); start one for each GPU, as with "
            f"torchrun --nproc-per-node {torch.cuda.device_count()}, or give --device cpu"
        )


def accelerator() -> torch.device | None:
    """Return the accelerator that this process uses; None where there is none.

    Several processes, which exchange tensors, have no use for a Mac's.
    """
    if torch.cuda.is_available():
        return torch.device("cuda", torch.cuda.current_device())
    return torch.device("mps") if torch.backends.mps.is_available() and count() == 1 else None


def device_name(device: torch.device) -> str:
    """Return what a device is called."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return str(torch.cpu.get_capabilities().get("cpu_name", platform.processor())) if device.type == "cpu" else "MPS"


def wait_for(device: torch.device) -> None:
    """Wait until a device has done what it was given, before its time is measured."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


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


def _use_huge_pages() -> None:
    """Have Linux keep the heap, and room for it to grow, in pages of 2 MiB, where it has them for programs that ask.

    A step walks through tens of megabytes in no order; finding these in pages of 4 KiB takes up to a tenth of its time.
    """
    if sys.platform != "linux" or (madvise := getattr(ctypes.CDLL(None), "madvise", None)) is None:
        return
    madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    torch.empty(2**25 - 2**16, dtype=torch.uint8, device="cpu")  # where the heap is full, it grows by M_TOP_PAD too
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/maps").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.endswith("[heap]"):
                start, end = (int(number, 16) for number in line.split()[0].split("-"))
                for advice in (_MADV_HUGEPAGE, _MADV_COLLAPSE):  # for what is taken later, and what is in use
                    madvise(start, end - start, advice)


def has_fast_bf16() -> bool:
    """Return whether this CPU multiplies bfloat16 numbers itself; emulation is slower than float32."""
    found = torch.cpu.get_capabilities()
    return bool(found.get("avx512_bf16") or found.get("amx_bf16"))


def gains_by_bf16(config: Config, D: nn.Module) -> bool:
    """Return whether these networks train faster in bfloat16 where they are.

    A GPU with units for it does. A CPU with matrix units (AMX) is so fast in either format that casting small operands
    costs more than multiplying them saves.
    """
    device = next(D.parameters()).device
    if device.type == "cuda":
        with torch.cuda.device(device):
            return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type != "cpu":
        return False
    if not has_fast_bf16():
        return False
    weights = [parameter for parameter in D.parameters() if parameter.dim() > 1]
    is_dense = all(weight.dim() == 2 for weight in weights)
    products = config.batch_size * sum(weight.numel() for weight in weights)
    return not (torch.cpu.get_capabilities().get("amx_bf16") and is_dense and products < SMALL_PRODUCTS)
