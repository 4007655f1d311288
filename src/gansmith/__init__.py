"""Trains, measures and ships small image generators on the machine you have.

The public names, resolved on first use so that `import gansmith` costs nothing.
"""

from importlib import import_module
from typing import Any

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
