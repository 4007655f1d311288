"""`list`, `describe`, `diagnose` and `doctor`: what there is, without changing anything."""

import json as json_
from pathlib import Path
from typing import Any, Literal

from gansmith.cli.output import Json
from gansmith.config import resolve
from gansmith.errors import printable


def list_(what: Literal["recipes", "datasets", "networks", "objectives", "metrics", "formats"] | None = None, /) -> int:
    """Show the names this version knows.

    Parameters
    ----------
    what
        One kind of name; without it, every kind.
    """
    from gansmith.recipes import RECIPES

    tables: dict[str, Any] = {"recipes": RECIPES}
    if what != "recipes":
        from gansmith.data import DATASETS
        from gansmith.exporters import EXPORTERS, ON_REQUEST
        from gansmith.metrics import METRICS
        from gansmith.networks import NETWORKS
        from gansmith.training.losses import OBJECTIVES

        tables |= {"datasets": DATASETS, "networks": NETWORKS, "objectives": OBJECTIVES, "metrics": METRICS}
        tables["formats"] = EXPORTERS | ON_REQUEST
    for kind, table in tables.items():
        if what in (None, kind):
            if what is None:
                print(f"{kind}:")
            for name in table:
                print(f"{'' if what else '  '}{name}")
    return 0


def describe(recipe: str, /, *, json: Json = False) -> int:
    """Show a recipe's layers, shapes, parameters, objective, optimisers and budget for 28x28 grey images.

    Parameters
    ----------
    recipe
        Row of `gansmith list recipes`.
    json
        One JSON object instead of a table.
    """
    from gansmith.summaries import describe as describe_config
    from gansmith.summaries import to_text

    facts = describe_config(resolve(recipe))
    print(json_.dumps(facts) if json else to_text(facts))
    return 0


def diagnose(run: Path, /, *, json: Json = False) -> int:
    """Say how a run ended or where it stands, and what went wrong in it.

    Parameters
    ----------
    run
        Run directory.
    json
        One JSON object instead of sentences.
    """
    from gansmith import api

    found = api.diagnose(run)
    print(json_.dumps(found) if json else printable(str(found)))
    return 0


def doctor(*, speed: bool = True) -> int:
    """Say what this machine offers: versions, processor, disk, data, and which recipe runs how fast on what.

    Parameters
    ----------
    speed
        Measure for some seconds how fast the machine is.
    """
    from gansmith.environment import examine, measure

    for name, value in examine().items():
        print(f"{name:<14} {value}")
    for name, value in (measure() if speed else {}).items():
        print(f"{name:<14} {value}")
    return 0
