"""Run directories agree with the JSON schemas of docs/reference/schemas."""

import json
import tomllib
from pathlib import Path

import jsonschema
import pytest
from reference_pages import config_schema

import gansmith as gs

SCHEMAS = Path(__file__).parents[1] / "docs" / "reference" / "schemas"
CHECKER = jsonschema.Draft202012Validator.FORMAT_CHECKER


def validator(name):
    schema = json.loads((SCHEMAS / name).read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema, format_checker=CHECKER)


def problems_of(directory):
    """Return what the schemas refuse in a run directory."""
    lines = [("log-row.json", directory / "log.jsonl"), ("metrics-row.json", directory / "metrics.jsonl")]
    files = [("run.json", directory / "run.json"), ("best.json", directory / "best.json")]
    files += [("state.json", path) for path in directory.glob("checkpoints/*/state.json")]
    found = [(name, json.loads(path.read_text())) for name, path in files]
    found += [(name, json.loads(line)) for name, path in lines for line in path.read_text().splitlines()]
    problems = [str(error.message) for name, value in found for error in validator(name).iter_errors(value)]
    config = tomllib.loads((directory / "config.toml").read_text())
    return problems + [error.message for error in jsonschema.Draft202012Validator(config_schema()).iter_errors(config)]


@pytest.fixture
def run(tiny, run_training):
    """A run with scores, checkpoints and a reported failure, since it has one class of ten."""
    return run_training(tiny("mlp-small", classes="3", images=1280, evaluate_every=256))


@pytest.mark.slow
def test_a_run_that_failed_its_checks_agrees_with_the_schemas(run):
    kinds = {row.get("kind") for row in run.log}
    assert kinds == {None, "failure"} and run.metrics and run.best()
    assert problems_of(run.directory) == []


@pytest.mark.slow
@pytest.mark.parametrize("recipe", ["default", "dcgan-sgd", "r3gan"])
def test_runs_of_recipes_with_a_rollback_and_a_verdict_agree_with_the_schemas(recipe, tiny, run_training):
    run = run_training(tiny(recipe, images=1280, on_failure="rollback", g_lr=0.1, d_lr=0.1))
    assert run.facts()["rollbacks"]
    gs.evaluate(run.directory, quick=True, count=200)
    assert any(row["tier"] == "quick" for row in run.metrics)
    assert problems_of(run.directory) == []


def test_what_no_run_writes_is_refused(run):
    facts = json.loads((run.directory / "run.json").read_text())
    config = tomllib.loads((run.directory / "config.toml").read_text())
    for change in ({"status": "done"}, {"starts": []}, {"pid": "1"}):
        assert list(validator("run.json").iter_errors({**facts, **change})), change
    for change in ({"batch_size": 1}, {"objective": 3}, {"unknown": 1}, {"augment": "some"}):
        assert list(jsonschema.Draft202012Validator(config_schema()).iter_errors({**config, **change})), change
    assert list(validator("best.json").iter_errors({"checkpoint": "newest", "images_seen": 1}))
    assert list(validator("log-row.json").iter_errors({"kind": "failure", "images_seen": 1}))
