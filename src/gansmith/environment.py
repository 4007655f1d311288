"""The facts of this machine that a bug report starts from: versions, processor, disk, data."""

import os
import platform
import shutil
from pathlib import Path

import torch

from gansmith import __version__
from gansmith.data.official import cache_dir, can_fetch, places
from gansmith.training.machine import has_fast_bf16


def examine() -> dict[str, str]:
    """Return facts of this machine by name, each as one line of text."""
    found = torch.cpu.get_capabilities()
    return {
        "gansmith": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "processor": f"{found.get('cpu_name', platform.processor())}, {os.cpu_count()} cores",
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "bfloat16": "yes" if has_fast_bf16() else "no (float32 is used)",
        "accelerator": torch.cuda.get_device_name() if torch.cuda.is_available() else "none",
        "free disk": f"{shutil.disk_usage(Path.cwd()).free / 1e9:.0f} GB",
        "data cache": str(cache_dir("").resolve()),
        **{name: _where(name) for name in ("mnist", "fashion-mnist")},
    }


def _where(name: str) -> str:
    """Return the folder that holds a data set, or how it will be found without one."""
    folders = [str(folder) for folder in places(name) if folder.is_dir() and any(folder.iterdir())]
    if folders:
        return folders[0]
    ways = ["will be downloaded"] if can_fetch(name) else []
    if name == "mnist":
        ways.append("the embedded subset is used")
    return f"not on this machine; {' or '.join(ways) or 'give --data-dir'}"
