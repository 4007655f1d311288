"""What other libraries change in a process as they are imported or used, put back afterwards."""

import contextlib
import logging
import os
import random
import threading
import warnings
from collections.abc import Iterator

import numpy as np
import torch


@contextlib.contextmanager
def own_environment() -> Iterator[None]:
    """Put environment variables back when the block ends."""
    before = dict(os.environ)
    try:
        yield
    finally:
        for name in set(os.environ) - set(before):
            del os.environ[name]
        os.environ.update({name: value for name, value in before.items() if os.environ.get(name) != value})


@contextlib.contextmanager
def no_watching_thread() -> Iterator[None]:
    """Keep tqdm, where it is installed and a library below us shows a bar, from starting a thread that stays."""
    try:
        from tqdm import tqdm
    except ImportError:
        yield
        return
    before, tqdm.monitor_interval = tqdm.monitor_interval, 0
    try:
        yield
    finally:
        tqdm.monitor_interval = before


_FLOAT32 = threading.Lock()
_before: list[torch.dtype] = []  # one of each block, in any thread, that is in `_in_float32`


@contextlib.contextmanager
def _in_float32() -> Iterator[None]:
    """Let new tensors be float32 until the last of the blocks of all threads ends, for which torch has one setting."""
    with _FLOAT32:
        _before.append(torch.get_default_dtype())
        torch.set_default_dtype(torch.float32)
    try:
        yield
    finally:
        with _FLOAT32:
            first = _before[0]
            _before.pop()
            if not _before:
                torch.set_default_dtype(first)


@contextlib.contextmanager
def torch_defaults() -> Iterator[None]:
    """Let new tensors be float32 and on the CPU, and compute without autocast, whatever the caller has set."""
    with _in_float32():
        with contextlib.ExitStack() as stack:
            for kind in ("cpu", "cuda", "mps"):
                if torch.is_autocast_enabled(kind):
                    stack.enter_context(torch.autocast(kind, enabled=False))
            if torch.get_default_device().type != "cpu":  # it slows down every call
                stack.enter_context(torch.device("cpu"))
            yield


@contextlib.contextmanager
def isolated() -> Iterator[None]:
    """Put back environment, warning filters, random states and the level of torch.onnx's logger when the block ends.

    Keras draws from Python's random numbers as it is imported, and sets variables; so do libraries below it.
    """
    python_state, numpy_state = random.getstate(), np.random.get_state()
    torch_onnx = logging.getLogger("torch.onnx")
    level = torch_onnx.level
    try:
        with own_environment(), no_watching_thread(), warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
            yield
    finally:
        random.setstate(python_state)
        np.random.set_state(numpy_state)
        torch_onnx.setLevel(level)
