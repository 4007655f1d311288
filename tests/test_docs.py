"""The documents: the Python page is a session whose output is real, and they agree with the project."""

import doctest
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.slow
def test_the_python_page_prints_what_it_says(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("GANSMITH_DATA", raising=False)
    text = (ROOT / "docs" / "python.md").read_text(encoding="utf-8")
    session = "\n".join(re.findall(r"^```pycon\n(.*?)^```$", text, re.DOTALL | re.MULTILINE))
    examples = doctest.DocTestParser().get_doctest(session, {}, "python.md", None, None)
    assert len(examples.examples) > 30
    doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(examples)
    assert "Failed example" not in capsys.readouterr().out
