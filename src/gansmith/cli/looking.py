"""`list`, `describe` and `doctor`: what there is, without changing anything."""

import json as json_
from typing import Annotated, Any, Literal

from cyclopts import Parameter

from gansmith.config import resolve


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
        from gansmith.export import EXPORTERS
        from gansmith.losses import OBJECTIVES
        from gansmith.metrics import METRICS
        from gansmith.networks import NETWORKS

        tables |= {"datasets": DATASETS, "networks": NETWORKS, "objectives": OBJECTIVES, "metrics": METRICS}
        tables["formats"] = EXPORTERS
    for kind, table in tables.items():
        if what in (None, kind):
            if what is None:
                print(f"{kind}:")
            for name in table:
                print(f"{'' if what else '  '}{name}")
    return 0


def describe(recipe: str, /, *, json: Annotated[bool, Parameter(name="--json", negative=())] = False) -> int:
    """Show a recipe's layers, shapes, parameters, objective, optimisers and budget for 28x28 grey images.

    Parameters
    ----------
    recipe
        Row of `gansmith list recipes`.
    json
        One JSON object instead of a table.
    """
    from gansmith.describe import describe as describe_config
    from gansmith.describe import to_text

    facts = describe_config(resolve(recipe)[0])
    print(json_.dumps(facts) if json else to_text(facts))
    return 0


def doctor() -> int:
    """Say what this machine offers: versions, processor, memory, disk, data."""
    from gansmith.doctor import examine

    for name, value in examine().items():
        print(f"{name:<14} {value}")
    return 0
