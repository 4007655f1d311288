"""Verdicts and comparisons as text and as tables."""

import json

import pytest

from gansmith.verdicts import Comparison, Verdict, html_table

PASSED = {"ok": True, "figure": "coverage", "value": 0.95, "limit": 0.8, "meaning": "modes are missing"}
FAILED = {"ok": False, "figure": "near_copies", "value": 0.5, "limit": 0.006, "meaning": "samples are <copies>"}
NOT_RUN = {"ok": None, "figure": None, "value": None, "limit": None, "meaning": "it needs more images"}


def make(**changes):
    return Verdict(
        {
            "target": "runs/a", "images_seen": 51200, "tier": "full", "data": "mnist", "seed": 0, "n": 10_000,
            "fd_ratio": 1.3, "fd_ratios": {"trained": 1.2, "random": 1.3}, "valid": True,
            "metrics": {"fd": {"value": 0.5, "real": 0.4}, "modes": {"value": 10.0, "real": None}},
            "gates": {"coverage": PASSED}, "notices": ["a notice"], **changes,
        }
    )  # fmt: skip


def group(name="a", **changes):
    verdict = make()
    return {
        "name": name, "targets": [name], "fd_ratio": 1.3, "spread": None, "fd_ratios": verdict["fd_ratios"],
        "valid": True, "failed": [], "metrics": {}, "verdicts": [verdict], **changes,
    }  # fmt: skip


def test_the_headline_gives_the_fd_ratio_its_scale_and_its_validity():
    measured = "FD ratio 1.30 (1.00 = as close as other real images; trained 1.20, random 1.30; 10,000 samples)"
    assert make().headline() == f"{measured}; all gates passed"
    assert (
        make(gates={"coverage": PASSED, "memorisation": FAILED}).headline()
        == f"INVALID: {measured}; failed: memorisation"
    )
    assert make(gates={"memorisation": NOT_RUN}).headline() == f"{measured}; not checked: memorisation"
    few = make(fd_ratio=None, fd_ratios={}, metrics={"kid_z": {"value": 2.04, "real": 0.0}})
    assert few.headline() == "no FD ratio; KID 2.0 standard deviations from real images; all gates passed"
    assert make(fd_ratio=None, fd_ratios={}, gates={}).headline() == "no FD ratio; no gate ran"


def test_the_text_has_the_metrics_the_gates_and_the_headline_last():
    verdict = make(gates={"coverage": PASSED, "memorisation": FAILED, "classes": NOT_RUN})
    lines = repr(verdict).splitlines()
    assert lines[0] == "runs/a after 51,200 images: 10,000 samples of seed 0 compared with mnist, full tier"
    assert [line.split() for line in lines[2:5]] == [
        ["metric", "samples", "real", "images"],
        ["fd", "0.5", "0.4"],
        ["modes", "10"],
    ]
    assert lines[6:9] == [
        "pass     coverage      coverage 0.95 (at least 0.8)",
        "FAIL     memorisation  near_copies 0.5 (at most 0.006): samples are <copies>",
        "not run  classes       it needs more images",
    ]
    assert lines[-2:] == ["note: a notice", verdict.headline()]
    assert make(images_seen=None, seed=None).origin() == "runs/a: 10,000 samples compared with mnist, full tier"


@pytest.mark.parametrize(
    ("value", "limit", "ok", "text"),
    [
        (0.9, 0.8, True, "x 0.9 (at least 0.8)"),
        (0.7, 0.8, False, "x 0.7 (at least 0.8): why"),
        (0.7, 0.8, True, "x 0.7 (at most 0.8)"),
        (0.9, 0.8, False, "x 0.9 (at most 0.8): why"),
        (-0.01, -0.03, True, "x -0.01 (at least -0.03)"),
        (1e-15, 0.25, True, "x 0 (at most 0.25)"),
        (None, 0.02, False, "x inf (at most 0.02): why"),  # infinite, as a file keeps it
    ],
)
def test_a_gates_row_says_which_way_its_limit_goes(value, limit, ok, text):
    gate = {"ok": ok, "figure": "x", "value": value, "limit": limit, "meaning": "why"}
    assert make(gates={"g": gate}).gate_rows() == [("pass" if ok else "FAIL", "g", text)]


def test_a_verdict_is_its_json():
    assert json.loads(json.dumps(make())) == make()


def test_notebooks_show_escaped_tables():
    page = make(gates={"memorisation": FAILED})._repr_html_()
    assert "&lt;copies&gt;" in page and "<copies>" not in page and page.count("<table>") == 2
    assert html_table(["a&b"], [[1]]) == (
        "<table><thead><tr><th>a&amp;b</th></tr></thead><tbody><tr><td>1</td></tr></tbody></table>"
    )


def test_a_comparison_explains_its_ratios_and_warns_of_what_does_not_compare():
    spread = group("a b", targets=["a", "b"], spread=0.05)
    both = Comparison([spread, group("c", valid=False, failed=["classes"]), group("d", fd_ratio=None, fd_ratios={})])
    lines = repr(both).splitlines()
    assert lines[0].split("  ")[0] == "targets" and "1.30 +- 0.05" in lines[1] and "INVALID: classes" in lines[2]
    assert "none" in lines[3]
    assert lines[4] == "FD ratio: 1.00 = as close as other real images; +- is the standard deviation over seeds"
    assert len(lines) == 5 and both.notice == ""
    other = Comparison([group("a"), group("b", verdicts=[make(n=2000)])])
    assert other.legend == "FD ratio: 1.00 = as close as other real images"
    hashes = [make(hashes={"validation": name, "test": None}) for name in "xy"]
    assert Comparison([group(name, verdicts=[row]) for name, row in zip("ab", hashes, strict=True)]).notice
    assert Comparison([group(name, verdicts=[hashes[0]]) for name in "ab"]).notice == ""
    assert repr(other).splitlines()[-1] == f"note: {other.notice}" and "cannot be compared" in other._repr_html_()
