"""Trains, measures and ships small image generators (GANs) on the machine you have.

    import gansmith as gs

    run = gs.train("default", data="mnist", minutes=3)
    run.sample(25)

The public names are resolved on first use, so that `import gansmith` costs nothing; type checkers read __init__.pyi.
Functions live in `gansmith.api`, the events of `train_events` in `gansmith.events`.
"""

import os
from importlib import import_module
from typing import Any

from gansmith.interrupts import uninterrupted

# How long OpenMP's threads wait for one another before they give way: as fast as its own choice on an idle machine, and
# several times as fast beside another program that wants a core (docs/experiments.md). Read when torch is loaded.
os.environ.setdefault("GOMP_SPINCOUNT", "20000")

_HOME = {
    "Comparison": "gansmith.verdicts",
    "Config": "gansmith.config",
    "DATASETS": "gansmith.data",
    "Diagnosis": "gansmith.api",
    "Directions": "gansmith.latent_space",
    "GansmithError": "gansmith.errors",
    "Images": "gansmith.data.images",
    "Inversion": "gansmith.inversion",
    "Model": "gansmith.sampling",
    "NETWORKS": "gansmith.networks",
    "OBJECTIVES": "gansmith.training.losses",
    "Objective": "gansmith.training.losses",
    "RECIPES": "gansmith.recipes",
    "Run": "gansmith.api",
    "Samples": "gansmith.sampling",
    "Sweep": "gansmith.api",
    "TrainingFailed": "gansmith.errors",
    "Verdict": "gansmith.verdicts",
    "compare": "gansmith.api",
    "course": "gansmith.api",
    "diagnose": "gansmith.api",
    "directions": "gansmith.api",
    "evaluate": "gansmith.api",
    "export": "gansmith.api",
    "film": "gansmith.api",
    "grade": "gansmith.api",
    "handin": "gansmith.api",
    "invert": "gansmith.api",
    "load": "gansmith.api",
    "load_data": "gansmith.api",
    "open_run": "gansmith.api",
    "plot": "gansmith.api",
    "report": "gansmith.api",
    "resolve": "gansmith.config",
    "resume": "gansmith.api",
    "sample": "gansmith.api",
    "studio": "gansmith.web.notebook",
    "sweep": "gansmith.api",
    "train": "gansmith.api",
    "train_events": "gansmith.api",
    "walk": "gansmith.api",
}

__all__ = [*_HOME]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return _version()
    if name not in _HOME:
        raise AttributeError(f"module 'gansmith' has no attribute {name!r}")
    with uninterrupted():
        home = import_module(_HOME[name])
    return getattr(home, name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]


def _version() -> str:
    from importlib import metadata  # takes longer to import than all of the above

    try:
        return metadata.version("gansmith")
    except metadata.PackageNotFoundError:  # a copy of the source that is not installed
        return "unknown"
