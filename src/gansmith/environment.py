"""The facts of this machine: versions, processor, accelerator, disk, data, and how fast it is."""

import os
import platform
import shutil
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch

from gansmith import __version__
from gansmith.config import resolve
from gansmith.data.images import Images
from gansmith.data.official import cache_dir, can_fetch, places
from gansmith.training.budget import fit_to_device, images_per_s
from gansmith.training.inputs import FEW_IMAGES, load_training_data
from gansmith.training.machine import accelerator, device_name, has_fast_bf16, training_machine, wait_for

MEASURED = ("default", "mlp-small", "dcgan-keras", "r3gan")  # recipes of every kind


def examine() -> dict[str, str]:
    """Return facts of this machine by name, each as one line of text."""
    found, found_device = torch.cpu.get_capabilities(), accelerator()
    return {
        "gansmith": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "processor": f"{found.get('cpu_name', platform.processor())}, {os.cpu_count()} cores",
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "bfloat16": "yes" if has_fast_bf16() else "no (float32 is used)",
        "accelerator": "none" if found_device is None else device_name(found_device),
        "free disk": f"{shutil.disk_usage(Path.cwd()).free / 1e9:.0f} GB",
        "data cache": str(cache_dir("").resolve()),
        **{name: _where(name) for name in ("mnist", "fashion-mnist")},
    }


def measure(seconds: float = 0.3) -> dict[str, str]:
    """Return how fast each device of this machine is, and which recipe runs how fast where, a line of text each.

    Args:
        seconds: that each figure is measured for.
    """
    found = accelerator()
    devices = [torch.device("cpu"), *([] if found is None else [found])]
    facts = {}
    with training_machine(resolve("default")):
        for device in devices:
            speeds = {dtype: _products_per_s(device, dtype, seconds) for dtype in (torch.float32, torch.bfloat16)}
            facts[f"{device.type} speed"] = (
                f"products {_giga(speeds[torch.float32])} in float32, {_giga(speeds[torch.bfloat16])} in bfloat16; "
                f"convolutions {_giga(_convolutions_per_s(device, seconds))}; "
                f"{_seconds_of(partial(torch.ones(1, device=device).add_, 1), device, seconds) * 1e6:.0f} us for an "
                "operation on one number"
            )
        for recipe in MEASURED:
            rates = {device.type: _images_per_s(recipe, device, seconds) for device in devices}
            facts[recipe] = ", ".join(f"{rate:,.0f} images/s on {name}" for name, rate in rates.items())
    return facts


def _seconds_of(call: Callable[[], object], device: torch.device, seconds: float) -> float:
    """Return the seconds of a call, the mean over those that fit into so many."""
    for _ in range(3):
        call()
    wait_for(device)
    started_at, calls = time.perf_counter(), 0
    while time.perf_counter() - started_at < seconds:
        for _ in range(10):
            call()
        calls += 10
        wait_for(device)
    return (time.perf_counter() - started_at) / calls


def _products_per_s(device: torch.device, dtype: torch.dtype, seconds: float) -> float:
    """Return the multiplications and additions a second of products of square matrices."""
    side = 512 if device.type == "cpu" else 4096
    matrix = torch.ones(side, side, device=device, dtype=dtype)
    return float(2 * side**3 / _seconds_of(partial(torch.mm, matrix, matrix), device, seconds))


def _convolutions_per_s(device: torch.device, seconds: float) -> float:
    """Return the same of a convolution as they are in small GANs: 3x3, 64 channels, 64 maps of 14x14."""
    maps, weight = torch.ones(64, 64, 14, 14, device=device), torch.ones(64, 64, 3, 3, device=device)
    maps, weight = (values.contiguous(memory_format=torch.channels_last) for values in (maps, weight))
    call = partial(torch.nn.functional.conv2d, maps, weight, padding=1)
    return float(2 * 9 * 64 * 64 * 64 * 14**2 / _seconds_of(call, device, seconds))


def _giga(per_s: float) -> str:
    return f"{per_s / 1e9:,.0f} GFLOP/s"


def _images_per_s(recipe: str, device: torch.device, seconds: float) -> float:
    """Return how many images a second a new run of a recipe trains on, of noise as large as MNIST's digits."""
    count = 2 * FEW_IMAGES  # for fewer, other optimisers are chosen
    draw = torch.Generator().manual_seed(0)
    pixels = torch.randint(256, (count, 1, 28, 28), generator=draw, dtype=torch.uint8)
    noise = Images(pixels, torch.arange(count) % 10, name="noise")
    config = resolve(recipe, arguments={"device": device.type, "clusters_per_class": 1, "augment": "none"})
    config, data = load_training_data(config, noise)
    return images_per_s(fit_to_device(config), data, seconds)


def _where(name: str) -> str:
    """Return the folder that holds a data set, or how it will be found without one."""
    folders = [str(folder) for folder in places(name) if folder.is_dir() and any(folder.iterdir())]
    if folders:
        return folders[0]
    ways = ["will be downloaded"] if can_fetch(name) else []
    if name == "mnist":
        ways.append("the embedded subset is used")
    return f"not on this machine; {' or '.join(ways) or 'give --data-dir'}"
