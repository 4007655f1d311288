"""What the machine offers, so that a report of failure can start from facts."""

import os
import platform
import shutil
from pathlib import Path

import torch

from gansmith import __version__
from gansmith.data.idx import cache_dir, can_fetch, places
from gansmith.training.machine import has_fast_bf16


def examine() -> dict[str, str]:
    """Facts of this machine as one line each."""
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
    found = [str(folder) for folder in places(name) if folder.is_dir() and any(folder.iterdir())]
    ways = ["will be downloaded"] * can_fetch(name) + ["the embedded subset is used"] * (name == "mnist")
    return found[0] if found else "; ".join(["not on this machine", " or ".join(ways) or "give --data-dir"])
