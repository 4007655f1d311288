"""The reference pages that scripts/build_site.py generates: commands, settings, public names.

Everything is read from the package itself, so that no page can differ from it.
"""

import importlib
import inspect
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tricks import TRICKS

import gansmith
from gansmith.advice import ADVICE, SOURCES
from gansmith.checkpoints import FORMAT
from gansmith.cli import app
from gansmith.config import FIELDS
from gansmith.metrics import METRICS
from gansmith.metrics.distances import frechet_null, frechet_of_moments, kid_against_splits, squared_mmd
from gansmith.metrics.gates import GATES
from gansmith.metrics.inception import fid_of
from gansmith.recipes import RECIPES
from gansmith.training.penalties import dragan_penalty, gradient_penalty, squared_gradient_norm

PENALTIES = (squared_gradient_norm, gradient_penalty, dragan_penalty)
# What verdicts compute besides the rows of METRICS.
OTHER_METRICS = (frechet_of_moments, frechet_null, squared_mmd, kid_against_splits, fid_of)
DOCS = Path(__file__).parents[1] / "docs"
PYTHON_PAGE, TRICKS_PAGE = DOCS / "python.md", DOCS / "explanation" / "tricks.md"


def commands_page() -> str:
    """Return the help of every command."""
    text = app.generate_docs(heading_level=1)
    text = re.sub(r"## Table of Contents\n.*?(?=\*\*Commands\*\*)", "", text, flags=re.DOTALL)
    return text.replace("# gansmith\n", "# Commands\n", 1)


def settings_page() -> str:
    """Return a table of every field of Config for each group of them."""
    groups: dict[str, list[str]] = {}
    for name, field in FIELDS.items():
        groups.setdefault(field.metadata["group"], []).append(name)
    parts = [
        "# Settings",
        "Every choice of a training run is a field of `gansmith.Config`. `batch_size`, for example, is the flag "
        "`--batch-size` of `gansmith train`, the keyword `batch_size=` of `gs.train`, the line `batch_size = 32` of a "
        "TOML file given with `--config`, and the environment variable `GANSMITH_BATCH_SIZE`. Counts may be written "
        "`200k` or `2M`. `gansmith train RECIPE --print-config` shows every value and where it came from.",
        "A field marked *technique* is off by default. One marked *may change* may differ when a run goes on; all "
        "others are fixed once a run directory exists. The recipes named are those that set the field. *Measured* is "
        "the score of the plain pair `mlp-small` with the technique over that without it, below 1.00 being better "
        "([what objectives and tricks do](../explanation/tricks.md)); other recipes may respond otherwise.",
    ]
    for group, names in groups.items():
        parts += [f"## {group}", "\n".join(_table(names))]
    return "\n\n".join(parts) + "\n"


def measured_effects() -> dict[str, list[str]]:
    """Return what was measured of each field on a plain pair: the change, and the relative score."""
    page = TRICKS_PAGE.read_text(encoding="utf-8")
    effects: dict[str, list[str]] = {}
    for change, score in re.findall(r"^\| (.+?) \| .+? \| (\d+\.\d+) \(", page, re.MULTILINE):
        for name in TRICKS[change][0].keys() - {"g_width", "d_width"}:  # of other networks
            effects.setdefault(name, []).append(f"{change}: {score}")
    return effects


def _table(names: list[str]) -> Iterator[str]:
    effects = measured_effects()
    yield "| field | meaning | when to choose another value | range | default | recipes that set it |"
    yield "|---|---|---|---|---|---|"
    for name in names:
        field = FIELDS[name]
        notes = [
            word for key, word in (("technique", "*technique*"), ("may_change", "*may change*")) if field.metadata[key]
        ]
        notes += [SOURCES[name]] if name in SOURCES else []
        notes += [f"measured: {'; '.join(effects[name])}"] if name in effects else []
        meaning = field.metadata["help"] + (f"; {'; '.join(notes)}" if notes else "")
        cells = (
            f"`{name}`",
            meaning,
            ADVICE.get(name, ""),
            _range(field),
            f"`{_shown(field.default)}`",
            _recipes(name),
        )
        yield "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _range(field: Any) -> str:
    rule = field.metadata
    if rule["choices"]:
        return ", ".join(f"`{choice}`" for choice in rule["choices"])
    if field.type is bool:
        return "true, false"
    if field.type is str:
        return "text"
    low, high = rule["low"], rule["high"]
    return f"{low:,} or more" if high is None else f"{low:,} to {high:,}"


def _shown(value: object) -> str:
    return (
        {"": '""', True: "true", False: "false"}.get(value, str(value)) if isinstance(value, str | bool) else str(value)
    )


def _recipes(name: str) -> str:
    """Return the recipes that set a field, gathered by value."""
    by_value: dict[str, list[str]] = {}
    for recipe, row in RECIPES.items():
        if name in row:
            by_value.setdefault(_shown(row[name]), []).append(recipe)
    return "; ".join(f"`{value}`: {', '.join(recipes)}" for value, recipes in by_value.items())


def names_page() -> str:
    """Return a page that asks mkdocstrings for every public name, under the headings of the Python page's table."""
    table = PYTHON_PAGE.read_text(encoding="utf-8").split("## Names", 1)[1]
    parts = ["# Python, name by name", "Each name is in `gansmith`, imported as `gs`: `gs.train`, `gs.Config`."]
    for names, heading in re.findall(r"^\| (`.*?) \| (.*?) \|$", table, re.MULTILINE):
        title = re.sub(r" \(.*\)|`", "", re.split("[;,]", heading)[0])
        parts.append(f"## {title[:1].upper()}{title[1:]}")
        parts += [_name(name) for name in re.findall(r"`(\w+)`", names)]
    return "\n\n".join(parts) + "\n"


def _name(name: str) -> str:
    """Return one public name: by mkdocstrings where it is code, and the rows of a table of names."""
    value = getattr(gansmith, name)
    home = gansmith._HOME[name]
    if isinstance(value, dict):
        rows = ", ".join(f"`{row}`" for row in value)
        summary = (inspect.getdoc(importlib.import_module(home)) or "").splitlines()[0]
        return f"### {name}\n\n{summary} Rows: {rows}."
    members = "\n    options:\n      members: false" if name == "Config" else ""
    return f"::: {home}.{name}{members}"


def tables_page() -> str:
    """Return the rows of the tables that settings name: objectives, networks, data sets, gates."""
    parts = ["# Objectives, networks, data sets, gates", "A program may [add rows of its own](../adding-things.md)."]
    parts += ["## Objectives", "`--objective NAME`. D returns logits; real and generated images come in equal numbers."]
    parts.append("| name | D minimises | G minimises |\n|---|---|---|\n" + "\n".join(_objectives()))
    rows = "\n".join(f"| `{name}` | {_summary(build)} |" for name, build in gansmith.NETWORKS.items())
    parts += ["## Networks", f"`--network NAME`.\n\n| name | what it is |\n|---|---|\n{rows}"]
    names = ", ".join(f"`{name}`" for name in gansmith.DATASETS)
    parts += ["## Data sets", f"`--data NAME`, or [a path](../own-images.md). Names: {names}."]
    parts += ["## Gates", "| gate | fails where | limits |\n|---|---|---|\n" + "\n".join(_gates())]
    parts.append("A limit with a second name is on the difference from that figure; *real* is that of real images.")
    return "\n\n".join(parts) + "\n"


def _objectives() -> Iterator[str]:
    for name, row in gansmith.OBJECTIVES.items():
        extra = " D is an auxiliary classifier too (arXiv:1610.09585)." if row.classifies else ""
        extra += " The logit is a negated reconstruction error (BEGAN, arXiv:1703.10717)." if row.is_balanced else ""
        yield f"| `{name}` | {_summary(row.d_loss)}{extra} | {_summary(row.g_loss)} |"


def _gates() -> Iterator[str]:
    for name, gate in GATES.items():
        limits = [
            f"`{limit.figure}`"
            + (f" less {limit.null}" if limit.null else "")
            + (f" at least {limit.low}" if limit.low is not None else "")
            + (f" at most {limit.high}" if limit.high is not None else "")
            for limit in gate.limits
        ]
        yield f"| {name} | {gate.meaning} | {'; '.join(limits)} |"


def _summary(function: Any) -> str:
    """Return the first paragraph of a docstring, without its verb."""
    function = getattr(function, "func", function)  # of a partial
    text = (inspect.getdoc(function) or "").split("\n\n")[0].replace("\n", " ")
    text = text.removeprefix("Return ")
    return (text[:1].upper() + text[1:]).replace("|", "\\|")


def formulas_page() -> str:
    """Return a page that asks mkdocstrings for the code of losses and penalties, and for the metrics."""
    objectives = gansmith.OBJECTIVES.values()
    losses = dict.fromkeys(loss for row in objectives for loss in (row.d_loss, row.g_loss))
    parts = [
        "# Formulas",
        "The code is the formula; the docstring has its source. Figures are in [metrics](../metrics.md).",
    ]
    for heading, functions in (("Losses", losses), ("Gradient penalties", PENALTIES)):
        parts.append(f"## {heading}")
        parts += [_function(function, "show_source: true") for function in functions]
    parts.append("## Metrics")
    functions = (*(row.function for row in METRICS.values()), *OTHER_METRICS)
    parts += [_function(function, "show_source: false") for function in functions]
    parts.append(
        "FID is `frechet_of_moments` of the last pooled layer of Inception v3, 2,048 features (Heusel et al., "
        "arXiv:1706.08500, section 2); [metrics](../metrics.md#fid-as-papers-give-it) has its conventions."
    )
    return "\n\n".join(parts) + "\n"


def _function(function: Any, option: str) -> str:
    return f"::: {function.__module__}.{function.__name__}\n    options:\n      {option}"


def config_schema() -> dict[str, Any]:
    """Return the JSON schema of config.toml."""
    kinds = {int: "integer", float: "number", bool: "boolean", str: "string"}
    properties: dict[str, Any] = {"format": {"const": FORMAT}, "origins": {"additionalProperties": {"type": "string"}}}
    for name, field in FIELDS.items():
        rule = field.metadata
        bounds = {"minimum": rule["low"], "maximum": rule["high"], "enum": list(rule["choices"]) or None}
        row = {"type": kinds[field.type], "description": rule["help"], "default": field.default, **bounds}
        properties[name] = {key: value for key, value in row.items() if value is not None}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "config.toml",
        "description": "Every choice of a run; a field that is absent has its default.",
        "type": "object",
        "required": ["format"],
        "properties": properties,
        "additionalProperties": False,
    }


def http_api_page() -> str:
    """Return a table of the studio's addresses, and of what each takes."""
    from gansmith.web.routes import ENDPOINTS, PREFIX

    parts = [
        "# HTTP API of the studio",
        f"Addresses begin with `{PREFIX}`. Answers are JSON of the type named, or have a content type that is named; "
        'errors are `{"error": {"kind", "message"}}`. The same as [an OpenAPI document](openapi.json), which has '
        "the type of each field. [The studio](../studio.md) has an example in Python.",
        "| request | what it does | takes | answers |\n|---|---|---|---|",
    ]
    for row in ENDPOINTS:
        fields = [f"`{name}`" for model in (row.query, row.body) if model for name in model.model_fields]
        answer = [f"`{name}`" for name in ([row.answer.__name__] if row.answer else []) + list(row.kinds)]
        parts[-1] += f"\n| `{row.method} {row.path}` | {row.summary} | {', '.join(fields)} | {', '.join(answer)} |"
    models = {row.answer.__name__: row.answer for row in ENDPOINTS if row.answer}
    parts += ["## Answers", "| type | fields |\n|---|---|"]
    for name in sorted(models):
        parts[-1] += f"\n| `{name}` | {', '.join(f'`{field}`' for field in models[name].model_fields)} |"
    return "\n\n".join(parts) + "\n"


def openapi_text() -> str:
    from gansmith.web.openapi import describe_api
    from gansmith.web.routes import ENDPOINTS, PREFIX

    return json.dumps(describe_api(ENDPOINTS, PREFIX), indent=2) + "\n"


def schema_text() -> str:
    return json.dumps(config_schema(), indent=2) + "\n"


GENERATED = {
    "reference/schemas/config.json": schema_text,
    "reference/commands.md": commands_page,
    "reference/settings.md": settings_page,
    "reference/names.md": names_page,
    "reference/tables.md": tables_page,
    "reference/formulas.md": formulas_page,
    "reference/http-api.md": http_api_page,
    "reference/openapi.json": openapi_text,
}
