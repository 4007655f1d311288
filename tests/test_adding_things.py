"""The cookbook's examples, run as a user would run them."""

import re
import runpy
from pathlib import Path

import pytest

from gansmith.data import DATASETS
from gansmith.training.losses import OBJECTIVES
from gansmith.networks import NETWORKS
from gansmith.recipes import RECIPES
from gansmith.runs import open_run

PAGE = Path(__file__).parents[1] / "docs" / "adding-things.md"
EXAMPLES = re.findall(
    r"^## (.+?)$.*?```python\n(.*?)```\s+```\npython mine.py (.*?)\n```", PAGE.read_text(), re.M | re.S
)


@pytest.fixture
def _tables_as_they_were(monkeypatch):
    """Rows that an example adds are gone after it."""
    tables = (DATASETS, OBJECTIVES, NETWORKS, RECIPES)
    before = [dict(table) for table in tables]
    yield
    for table, rows in zip(tables, before, strict=True):
        table.clear()
        table.update(rows)


def test_the_page_has_all_its_examples():
    assert [title for title, _, _ in EXAMPLES] == ["A loss", "A network", "A data set", "A recipe"]
    assert all(len(code.strip().splitlines()) <= 21 for _, code, _ in EXAMPLES)


@pytest.mark.parametrize(("title", "code", "command"), EXAMPLES, ids=[title for title, _, _ in EXAMPLES])
@pytest.mark.usefixtures("_tables_as_they_were")
def test_examples_train_and_sample(title, code, command, tmp_path, digit_dir, monkeypatch):
    mine = tmp_path / "mine.py"
    mine.write_text(code)

    def run(*words):
        monkeypatch.setattr("sys.argv", [str(mine), *words])
        with pytest.raises(SystemExit) as exit_:
            runpy.run_path(str(mine), run_name="__main__")
        assert not exit_.value.code

    data = [] if title == "A data set" else ["--data-dir", str(digit_dir)]
    rare = ["--evaluate-every", "192", "--sample-every", "192", "--save-every", "192"]
    short = re.sub(r" --images \S+", "", command).split()
    run(*short, "--images", "192", "--threads", "1", "--out", "run", "--progress", "plain", *rare, *data)
    run("sample", "run", "--count", "4", "--out", "four.png")
    assert (tmp_path / "four.png").is_file()
    assert open_run(tmp_path / "run").facts()["status"] == "finished"
