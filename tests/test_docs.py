"""The documents: the Python page is a session whose output is real, and they agree with the project."""

import doctest
import re
from pathlib import Path

import check_docs
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


def test_wording_to_avoid_is_found_and_plain_terms_are_not():
    for line in ("1.02 times real", "both players", "G is told the label", "on_trouble = 'stop'", "drawn anew"):
        assert check_docs.AVOIDED.search(line), line
    for line in ("an FD ratio of 1.02", "G and D", "conditioned on the label", "on_failure = 'stop'", "no milestones"):
        assert not check_docs.AVOIDED.search(line), line


def test_a_heading_gives_the_anchor_that_code_hosts_make(tmp_path):
    (tmp_path / "page.md").write_text("# Board of recipes\n\n## FD ratio, in short: `fd`\n")
    assert check_docs.headings(tmp_path / "page.md") == {"board-of-recipes", "fd-ratio-in-short-fd"}
