"""The worker's part of the page Learn: pairs in the plane, which train as long as a page asks for frames."""

from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gansmith.lessons import toy
from gansmith.lessons.toy import Toy

KEPT = 128  # pairs in memory; a page whose pair is gone gets a new one

_PAIRS: "OrderedDict[str, Toy]" = OrderedDict()


def learn(root: Path, request: Mapping[str, Any]) -> tuple[dict[str, Any], bytes]:
    """Train a pair so many steps and return a frame of it."""
    key, choices = request["pair"], request["choices"]
    pair = _PAIRS.get(key)
    if pair is None or request["restart"]:
        pair = toy.start(choices, seed=request["seed"])
    else:
        pair = toy.change(pair, choices)
    _PAIRS[key] = pair
    _PAIRS.move_to_end(key)
    while len(_PAIRS) > KEPT:
        _PAIRS.popitem(last=False)
    toy.advance(pair, request["steps"])
    return toy.frame(pair, field_of=request["field_of"]), b""
