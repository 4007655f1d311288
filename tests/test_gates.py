"""Gates: which limit decides, and what is compared with real images."""

import pytest

from gansmith.metrics import gates


def test_a_limit_names_the_figure_furthest_beyond_it(monkeypatch):
    table = {"g": gates.Gate("why", (gates.Limit("a", high=1.0), gates.Limit("b", low=-0.1, null="real")))}
    monkeypatch.setattr(gates, "GATES", table)

    def found(a, b, real=0.5):
        return gates.apply_gates({"a": {"value": a, "real": None}, "b": {"value": b, "real": real}})["g"]

    assert found(0.5, 0.5) == {"ok": True, "figure": "a", "value": 0.5, "limit": 1.0, "meaning": "why"}
    assert found(0.9, 0.35) == {"ok": False, "figure": "b", "value": 0.35, "limit": 0.4, "meaning": "why"}
    for unmeasured in ({}, {"a": {"value": None, "real": None}}):
        found = gates.apply_gates(unmeasured)["g"]
        assert (found["ok"], found["meaning"]) == (None, "the images are too few to measure it")


def test_a_limit_that_nothing_could_fail_decides_nothing(monkeypatch):
    table = {"g": gates.Gate("why", (gates.Limit("a", low=0.8), gates.Limit("b", low=0.7, high=1.3)))}
    monkeypatch.setattr(gates, "GATES", table)

    def found(a, b, *draws):
        figures = [{"a": {"value": value, "real": None}, "b": {"value": 1.0, "real": None}} for value in draws]
        return gates.apply_gates({"a": {"value": a, "real": None}, "b": {"value": b, "real": None}}, draws=figures)["g"]

    assert found(0.0, 1.0, 0.9, 0.3)["ok"] is found(0.9, 1.0, 0.9, 0.3)["ok"] is None  # -0.9, standard deviation .42
    assert found(0.0, 2.0, 0.9, 0.3)["figure"] == "b" and found(0.0, 2.0, 0.9, 0.3)["ok"] is False
    assert found(0.0, 1.0, 0.9, 0.7)["ok"] is False  # .3
    monkeypatch.setattr(gates, "GATES", {"g": gates.Gate("why", (gates.Limit("a", low=0.8),))})
    assert found(0.0, 1.0, 0.9, 0.3)["ok"] is None


def test_a_limit_that_other_real_images_do_not_meet_decides_nothing(monkeypatch):
    monkeypatch.setattr(
        gates, "GATES", {"g": gates.Gate("why", (gates.Limit("a", low=0.8), gates.Limit("b", high=6.0)))}
    )

    def found(a, b, of_b):
        return gates.apply_gates({"a": {"value": a, "real": 0.9}, "b": {"value": b, "real": of_b}})["g"]

    assert found(0.9, 8.0, 2.0)["ok"] is False and found(0.9, 5.0, 2.0)["ok"] is True
    idle = found(0.9, 8.0, 7.0)  # other real images are brighter, too
    assert (idle["ok"], idle["meaning"]) == (None, "other real images do not meet its limit on b either")
    assert found(0.5, 8.0, 7.0)["figure"] == "a" and found(0.5, 8.0, 7.0)["ok"] is False


def test_limits_allow_what_draws_of_real_images_reach(monkeypatch):
    table = {"g": gates.Gate("why", (gates.Limit("a", low=-1.0, high=1.0, null="real"),))}
    monkeypatch.setattr(gates, "GATES", table)

    def limit_of(value, *draws):
        figures = [{"a": {"value": of_real + 10, "real": 10}} for of_real in draws]
        found = gates.apply_gates({"a": {"value": value + 5, "real": 5}}, draws=figures)["g"]
        return found["limit"] - 5, found["ok"]

    assert limit_of(2) == limit_of(2, 0.1, 0.1, 0.1) == (1, False)
    assert limit_of(2, 0, 0.2, 0.4) == (1, False)  # mean .2, standard deviation .2
    assert limit_of(2, -1, 0, 1) == (pytest.approx(3.5), True) and limit_of(-3.6, -1, 0, 1) == (-3.5, False)
    assert limit_of(-2, -4, -3, -2) == (pytest.approx(-6.5), True) and limit_of(2, -4, -3, -2)[1] is False
    lacking = [{"a": {"value": float("inf"), "real": 0.0}}] * 2  # a KL divergence where other real images lack a class
    assert gates.apply_gates({"a": {"value": 9.0, "real": 0.0}}, draws=lacking)["g"]["ok"] is None
    assert gates.apply_gates({"a": {"value": 9.0, "real": float("inf")}})["g"]["ok"] is None


def test_the_limits_are_those_of_this_version():
    """Raise the version with any change here and in docs/metrics.md: verdicts would no longer compare."""
    found = {one.figure: (one.low, one.high, one.null) for gate in gates.GATES.values() for one in gate.limits}
    assert (gates.VERSION, gates.SPREAD) == (9, 3.5)
    assert found == {
        "near_copies": (None, 0.006, "near_copies_chance"),
        "nearer": (None, 0.55, None),
        "authentic": (-0.05, None, "authentic_real"),
        "fd_ratio_least": (0.5, None, None),
        "coverage": (0.80, None, None),
        "density": (0.7, 1.3, None),
        "rarest_class": (0.5, None, None),
        "class_kl": (None, 0.02, "real"),
        "recognised_excess": (-0.03, 0.03, None),
        "diversity_worst": (0.85, None, None),
        "brightness": (-6.0, 6.0, None),
        "black": (-0.15, 0.15, None),
        "bright": (-0.05, 0.05, None),
        "histogram": (None, 0.05, None),
        "offset_px": (None, 0.25, None),
        "contrast": (0.9, 1.1, None),
        "sharpness": (0.75, 1.25, None),
    }
