"""What a library call must leave as it was; imports as little as it can, so that a fresh process can use it too."""

import logging
import os
import random
import signal
import threading
import warnings

import matplotlib
import numpy as np
import torch


def large_array_faults():
    """Page faults of making a large array 50 times: as many as it has pages, each time, where nothing is kept."""
    import resource

    array = np.ones(300_000, np.float32)
    for _ in range(10):
        array = array * 1
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(50):
        array = array * 1
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


def state_of_this_process():
    return {
        "threads": torch.get_num_threads(),
        "torch": torch.get_rng_state().tolist(),
        "numpy": repr(np.random.get_state()),
        "random": random.getstate(),
        "environment": dict(os.environ),
        "signals": [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)],
        "warnings": list(warnings.filters),
        "handlers": {name: list(logging.getLogger(name).handlers) for name in ("", "gansmith", "torch.onnx")},
        "levels": {name: logging.getLogger(name).level for name in ("", "gansmith", "torch.onnx", "matplotlib")},
        "matplotlib": dict(matplotlib.rcParams),
        "gradients": (torch.is_grad_enabled(), torch.is_inference_mode_enabled()),
        "type": torch.get_default_dtype(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "folder": os.getcwd(),
        "threads running": threading.active_count(),
    }


def assert_unchanged(before):
    after = state_of_this_process()
    assert [name for name in before if before[name] != after[name]] == []
