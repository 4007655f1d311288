"""The search space of a sweep: which fields of `Config` vary, and how.

A dimension is a dict, as JSON holds it: {"choices": [...]}, or {"low", "high", "scale"} with a "step" where there is
one. What is not given comes from the field's own metadata: the usual range, its scale, its choices.
"""

import re
from collections.abc import Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

from gansmith.config import FIELDS, Config, choose, parse_value, read_toml, unknown_field
from gansmith.errors import ConfigError
from gansmith.networks import NETWORKS
from gansmith.recipes import RECIPES
from gansmith.training.losses import OBJECTIVES

Dimension = dict[str, Any]
Space = dict[str, Dimension]

SCALES = ("linear", "log")
MAX_GRID = 10_000  # points
MOST_STEPS = 10**9  # of a range
# Names that stand for rows of these tables.
TABLES: dict[str, Mapping[str, Any]] = {"recipe": RECIPES, "network": NETWORKS, "objective": OBJECTIVES}
_FORM = "write a range 1e-4..1e-2:log, or choices 32,64,128"


def parse_search(texts: Sequence[str]) -> Space:
    """Return the space of texts such as "g-lr=1e-4..1e-2:log,network=compact,r3gan" or "g-lr,r1-gamma".

    Raises ConfigError for a field that is unknown, given twice or cannot be searched, and for values it cannot have.
    """
    given: list[tuple[str, list[str]]] = []
    for word in (word.strip() for text in texts for word in text.split(",")):
        name, equals, value = word.partition("=")
        if given and not word:
            raise ConfigError(f"the search of {given[-1][0]} has an empty value; {_FORM}")
        if equals or not given or _begins_a_field(word, given[-1][0]):
            given.append((_field_name(name), [value.strip()] if equals else []))
        else:
            given[-1][1].append(word)
    names = [name for name, _ in given]
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise ConfigError(f"{twice[0]} is searched twice; give it once, as {twice[0]}=LOW..HIGH or {twice[0]}=A,B")
    return {name: _from_words(name, words) for name, words in given}


def _begins_a_field(word: str, current: str) -> bool:
    """Return whether a word without a value begins another field, rather than being a choice of the current one."""
    return word.replace("-", "_") in FIELDS and word not in (
        FIELDS[current].metadata["choices"] or TABLES.get(current, ())
    )


def read_space(path: Path) -> Space:
    """Return the space in a TOML file: a line for each field, with a text as on the command line, choices, or a table.

    g_lr = "1e-4..1e-2:log"
    network = ["compact", "r3gan"]
    batch_size = {low = 32, high = 128, step = 32}
    r1_gamma = {}
    """
    return to_space(read_toml(path))


def to_space(given: Mapping[str, Any]) -> Space:
    """Return the space of a mapping from fields to a (low, high) tuple, a list of choices, text, a dict, or None.

    None, an empty text and an empty dict stand for the usual range.
    """
    space = {}
    for key, value in given.items():
        name = _field_name(key)
        if isinstance(value, str):
            space[name] = _from_words(name, [word.strip() for word in value.split(",")] if value else [])
        elif isinstance(value, tuple) and len(value) == 2 and FIELDS[name].type in (int, float):
            space[name] = _range_of(name, {"low": value[0], "high": value[1]})
        elif isinstance(value, list | tuple):
            space[name] = _choices_of(name, value)
        elif value is None or isinstance(value, Mapping):
            space[name] = _from_table(name, value or {})
        else:
            raise ConfigError(f"the search of {name} is {value!r}; {_FORM}")
    return space


def _field_name(text: str) -> str:
    """Return the field that a text names; ConfigError where there is none, or it is nothing to search."""
    name = text.strip().lstrip("-").replace("-", "_")
    if name not in FIELDS:
        raise ConfigError(unknown_field(name))
    rule = FIELDS[name].metadata
    if rule["group"] == "Data" and name != "recipe":
        raise ConfigError(f"{name} is part of the data, and validation FD ratios on other data do not compare; omit it")
    if rule["is_circumstance"] and name != "recipe":
        raise ConfigError(f"{name} does not change what is learnt, so there is nothing to search; omit it")
    return name


def _from_words(name: str, words: Sequence[str]) -> Dimension:
    """Return the dimension of a field from its values on the command line."""
    if not words or words == [""]:
        return _from_table(name, {})
    if len(words) == 1 and ".." in words[0]:
        return _parse_range(name, words[0])
    return _choices_of(name, words)


def _parse_range(name: str, text: str) -> Dimension:
    """Return the dimension in a text such as 1e-4..1e-2:log or 32..128:32."""
    ends, *options = text.split(":")
    low, _, high = ends.partition("..")
    table: dict[str, Any] = {"low": low.strip(), "high": high.strip()}
    for option in options:
        is_number = re.fullmatch(r"\s*[\d.]+([eE][+-]?\d+)?[kM]?\s*", option)
        table["step" if is_number else "scale"] = option.strip()
    return _range_of(name, table)


def _from_table(name: str, table: Mapping[str, Any]) -> Dimension:
    """Return the dimension of a field from a table, what it lacks from the field's metadata."""
    rule = FIELDS[name].metadata
    unknown = [key for key in table if key not in ("low", "high", "scale", "step", "choices")]
    if unknown or ("choices" in table and len(table) > 1):
        raise ConfigError(f"the search of {name} has {', '.join(table)}; give choices, or low, high, scale and step")
    if "choices" in table:
        return _choices_of(name, table["choices"])
    if FIELDS[name].type is bool:
        return {"choices": [False, True]}
    if FIELDS[name].type is str:
        return _choices_of(name, rule["choices"] or list(TABLES.get(name, ())))
    if rule["search"] is None and not {"low", "high"} <= table.keys():
        raise ConfigError(f"{name} has no usual range; write one, such as {name.replace('_', '-')}=1..10")
    low, high = rule["search"] or (None, None)
    return _range_of(name, {"low": low, "high": high, **table})


def _choices_of(name: str, values: Sequence[Any]) -> Dimension:
    """Return a dimension of choices, each as the field has it."""
    if not isinstance(values, list | tuple):
        raise ConfigError(f"the choices of {name} are {values!r}; give a list of them")
    found = [_checked(name, value) for value in values]
    if len(set(map(repr, found))) < len(found):
        raise ConfigError(f"the choices of {name} are {_listing(found)}, one of them twice; give each once")
    if len(found) < 2:
        flag = name.replace("_", "-")
        raise ConfigError(
            f"{name} has one choice, {_listing(found)}, so there is nothing to search; give it as --{flag}"
        )
    return {"choices": found}


def _range_of(name: str, table: Mapping[str, Any]) -> Dimension:
    """Return a dimension from low to high, both of them values that the field can have."""
    kind = FIELDS[name].type
    if kind not in (int, float):
        raise ConfigError(f"{name} is not a number, so it has no range; list its values, as {name}=A,B")
    low, high = (_checked(name, table[end]) for end in ("low", "high"))
    scale = table.get("scale", FIELDS[name].metadata["scale"] if "step" not in table else "linear")
    if scale not in SCALES:
        raise ConfigError(f"the scale of {name} is {scale!r}; it must be {' or '.join(SCALES)}, or a step such as 32")
    if not low < high:
        raise ConfigError(f"the range of {name} is empty: {low:g} is not less than {high:g}; write the lower end first")
    if scale == "log" and low <= 0:
        if "scale" in table:
            raise ConfigError(
                f"the range of {name} begins at {low:g}; a log scale needs more than 0, such as {high / 100:g}"
            )
        scale = "linear"
    dimension: Dimension = {"low": low, "high": high, "scale": scale}
    if "step" in table:
        step = parse_value(name, table["step"])
        if scale == "log" or not isinstance(step, kind) or not 0 < _exact(step) <= _exact(high) - _exact(low):
            raise ConfigError(
                f"the step of {name} is {step!r}; it must be between 0 and {high - low:g}, and the scale linear"
            )
        count = _count(low, high, step)
        if count > MOST_STEPS:
            raise ConfigError(f"the step of {name} is {step!r}, too small for its range; give a larger one")
        dimension |= {"step": step, "high": kind(_exact(low) + (count - 1) * _exact(step))}
    return dimension


def _exact(number: float) -> Decimal:
    """Return a number as it was written: 0.3 is three tenths, as it is for Optuna."""
    return Decimal(str(number))


def _count(low: float, high: float, step: float) -> int:
    """Return how many numbers low, low + step and so on up to high are; of more than a billion, about how many."""
    span = _exact(high) - _exact(low)
    is_exact = span / _exact(step) <= MOST_STEPS
    return int(span // _exact(step) if is_exact else span / _exact(step)) + 1


def _checked(name: str, value: Any) -> Any:
    """Return a value as the field has it; ConfigError for one that the field cannot have."""
    if value is None or value == "":
        raise ConfigError(f"the search of {name} has an empty value; {_FORM}")
    parsed = parse_value(name, value)
    Config(**{name: parsed})
    if name in TABLES:
        choose(TABLES[name], parsed, name)
    return parsed


def grid_values(name: str, dimension: Dimension) -> list[Any]:
    """Return all values of a dimension, in order; ConfigError for a range of numbers without a step."""
    if "choices" in dimension:
        return list(dimension["choices"])
    low, high, step = dimension["low"], dimension["high"], dimension.get("step")
    if step is None and FIELDS[name].type is float:
        flag = name.replace("_", "-")
        raise ConfigError(
            f"{name} is a range of real numbers, and a grid needs single values; list them, as {flag}=1e-4,1e-3, or "
            f"give a step, as {flag}={low:g}..{high:g}:{(high - low) / 4:g}"
        )
    step = step or 1
    if (count := _count(low, high, step)) > MAX_GRID:
        raise ConfigError(
            f"the grid has {count:,} points of {name} alone, more than {MAX_GRID:,}; take larger steps, or list values"
        )
    return [type(low)(_exact(low) + k * _exact(step)) for k in range(count)]


def to_words(space: Space) -> str:
    """Return a space in words: g_lr 0.0001 to 0.01 (log), network compact or r3gan."""
    return ", ".join(f"{name} {_in_words(dimension)}" for name, dimension in space.items())


def _in_words(dimension: Dimension) -> str:
    if "choices" in dimension:
        return " or ".join(map(str, dimension["choices"]))
    notes = [note for note in (dimension["scale"] if dimension["scale"] == "log" else "",) if note]
    notes += [f"step {dimension['step']:g}"] if "step" in dimension else []
    text = f"{dimension['low']:g} to {dimension['high']:g}"
    return f"{text} ({', '.join(notes)})" if notes else text


def _listing(values: Sequence[Any]) -> str:
    return ", ".join(map(str, values)) or "none"
