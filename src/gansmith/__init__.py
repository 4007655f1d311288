"""Trains, measures and ships small image generators on the machine you have.

The public names, resolved on first use so that `import gansmith` costs nothing.
"""

import os
from importlib import import_module
from typing import Any

# How long OpenMP's threads wait for one another before they give way: as fast as its own choice on an idle machine, and
# several times as fast beside another program that wants a core (docs/log.md). It is read when torch is loaded.
os.environ.setdefault("GOMP_SPINCOUNT", "20000")

_HOME = {
    "Config": "gansmith.config",
    "Images": "gansmith.data",
    "Model": "gansmith.generate",
    "Run": "gansmith.runs",
    "generate": "gansmith.generate",
    "load_data": "gansmith.data",
    "load_model": "gansmith.generate",
    "resolve": "gansmith.config",
    "train": "gansmith.train",
}

__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'gansmith' has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return __all__
