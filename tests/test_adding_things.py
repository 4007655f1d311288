"""The examples of docs/adding-things.md, run as a user would run them: from the command line and from Python."""

import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

import gansmith as gs
from gansmith.data import DATASETS
from gansmith.errors import ConfigError
from gansmith.networks import NETWORKS
from gansmith.recipes import RECIPES
from gansmith.runs import open_run
from gansmith.training.losses import OBJECTIVES

PAGE = Path(__file__).parents[1] / "docs" / "adding-things.md"
EXAMPLES = re.findall(
    r"^## (.+?)$.*?```python\n(.*?)```\s+```python\n(.*?)```\s+```\npython mine.py (.*?)\n```",
    PAGE.read_text(),
    re.M | re.S,
)
EACH = pytest.mark.parametrize(("title", "file", "call", "command"), EXAMPLES, ids=[title for title, *_ in EXAMPLES])
LENGTH = 192
SCHEDULE = {"evaluate_every": LENGTH, "sample_every": LENGTH, "save_every": LENGTH, "threads": 1}


@pytest.fixture(autouse=True)
def _restored_tables():
    """Remove the rows that an example added."""
    tables = (DATASETS, OBJECTIVES, NETWORKS, RECIPES)
    before = [dict(table) for table in tables]
    yield
    for table, rows in zip(tables, before, strict=True):
        table.clear()
        table.update(rows)


def test_the_page_has_all_its_examples():
    assert [title for title, *_ in EXAMPLES] == ["A loss", "A network", "A data set", "A recipe"]
    assert all(len(file.strip().splitlines()) <= 21 for _, file, _, _ in EXAMPLES)


@pytest.mark.slow
@EACH
def test_examples_train_and_sample_from_the_command_line(title, file, call, command, tmp_path, digit_dir, monkeypatch):
    mine = tmp_path / "mine.py"
    mine.write_text(file)

    def run(*words):
        monkeypatch.setattr("sys.argv", [str(mine), *map(str, words)])
        with pytest.raises(SystemExit) as exit_:
            runpy.run_path(str(mine), run_name="__main__")
        assert not exit_.value.code

    data = [] if title == "A data set" else ["--data-dir", digit_dir]
    schedule = [word for name, value in SCHEDULE.items() for word in (f"--{name.replace('_', '-')}", value)]
    words = re.sub(r" --images \S+", "", command).split()
    run(*words, "--images", LENGTH, "--out", "run", "--progress", "plain", *schedule, *data)
    run("sample", "run", "--count", "4", "--out", "four.png")
    assert (tmp_path / "four.png").is_file()
    assert open_run(tmp_path / "run").facts()["status"] == "finished"


@EACH
def test_examples_train_and_sample_from_python(title, file, call, command, tmp_path, digit_dir, monkeypatch):
    (tmp_path / "mine.py").write_text(file)
    runpy.run_path(str(tmp_path / "mine.py"), run_name="mine")
    train = gs.train
    data = {} if title == "A data set" else {"data_dir": str(digit_dir)}
    short = {"images": LENGTH, "out": "run", "progress": "none", **SCHEDULE, **data}
    monkeypatch.setattr(gs, "train", lambda recipe, **choices: train(recipe, **{**choices, **short}), raising=False)
    names = {"gs": gs}
    exec(call, names)
    assert open_run(tmp_path / "run").facts()["status"] == "finished"
    assert names["run"].sample(4).images.shape[0] == 4


@pytest.mark.slow
def test_trials_in_processes_of_their_own_see_the_rows_of_the_program(tmp_path, digit_dir):
    pytest.importorskip("optuna")
    (file,) = [file for title, file, *_ in EXAMPLES if title == "A loss"]
    (tmp_path / "mine.py").write_text(file)
    (name,) = re.findall(r'OBJECTIVES\["(.*?)"\]', file)
    flags = [f"--{key.replace('_', '-')}={value}" for key, value in SCHEDULE.items() if key != "evaluate_every"]
    words = ["mlp-small", "--objective", name, "--images", LENGTH, "--data-dir", digit_dir, *flags, "--out", "sweep"]
    words = [sys.executable, "mine.py", "sweep", *words, "--search", "g-lr=1e-4,1e-3", "--sampler", "grid"]
    done = subprocess.run(list(map(str, words)), cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0 and "2 trials: 2 finished" in done.stdout, done.stdout + done.stderr
    assert open_run(tmp_path / "sweep/runs/0000").facts()["custom"] == {"objective": name}


def test_trials_refuse_rows_that_their_processes_cannot_see(monkeypatch, digit_dir):
    pytest.importorskip("optuna")
    monkeypatch.setitem(OBJECTIVES, "mine", OBJECTIVES["minimax"])
    for choices in ({"objective": "mine", "search": "g-lr"}, {"search": "objective=mine,minimax"}):
        with pytest.raises(ConfigError, match="objective 'mine' is defined by this program.*as python FILE"):
            gs.sweep("mlp-small", **choices, images=LENGTH, data_dir=str(digit_dir))
