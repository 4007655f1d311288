"""`list`, `describe`, `diagnose` and `doctor`: what there is, without changing anything."""

import json as json_
from pathlib import Path
from typing import Any, Literal

from gansmith.cli.output import Json
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


def describe(recipe: str, /, *, json: Json = False) -> int:
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


def diagnose(run: Path, /, *, json: Json = False) -> int:
    """Say how a run ended or where it stands, and what went wrong in it.

    Parameters
    ----------
    run
        Run directory.
    json
        One JSON object instead of sentences.
    """
    from gansmith.diagnose import diagnose as find_troubles
    from gansmith.runs import is_locked, open_run

    opened = open_run(run)
    facts, rows = opened.facts(), opened.log()
    status = facts.get("status", "unknown")
    if status == "running" and not is_locked(run):
        status = "killed"
    latest = opened.latest()
    saved = int(latest.name) if latest else 0
    seen = {row["trouble"]: row["sentence"] for row in rows if row.get("kind") == "trouble"}
    seen |= {trouble.name: trouble.sentence for trouble in find_troubles(rows, opened.scores(), opened.config)} | seen
    found = {
        "status": status,
        "images_seen": max([saved, *(row["images_seen"] for row in rows)]),
        "images": opened.config.images,
        "saved_images": saved,
        "troubles": seen,
        "rollbacks": facts.get("rollbacks", []),
    }
    if json:
        print(json_.dumps(found))
        return 0
    ended = _STATUS.get(status, _STATUS["unknown"])
    print(f"{run}: {ended}, {found['images_seen']:,} of {found['images']:,} images seen")
    if status == "failed":
        print(f"it stopped because {facts.get('reason')}")
    for step in found["rollbacks"]:
        print(step["sentence"])
    print("\n".join(seen.values()) or "no trouble was seen")
    if status != "finished" and status != "running":
        print(f"go on from {found['saved_images']:,} images with: gansmith resume {run}")
    return 0


_STATUS = {
    "running": "training now",
    "killed": "killed, or its machine went down",
    "stopped": "stopped on request",
    "failed": "stopped by itself",
    "finished": "finished",
    "unknown": "without a record of how it ended",
}


def doctor() -> int:
    """Say what this machine offers: versions, processor, disk, data."""
    from gansmith.doctor import examine

    for name, value in examine().items():
        print(f"{name:<14} {value}")
    return 0
