"""Gates: which limit decides, and what is compared with real images."""

from gansmith.metrics import gates


def test_a_limit_names_the_figure_furthest_beyond_it(monkeypatch):
    table = {"g": gates.Gate("why", (gates.Limit("a", high=1.0), gates.Limit("b", low=-0.1, null="real")))}
    monkeypatch.setattr(gates, "GATES", table)

    def found(a, b, real=0.5):
        return gates.apply_gates({"a": {"value": a, "real": None}, "b": {"value": b, "real": real}})["g"]

    assert found(0.5, 0.5) == {"ok": True, "figure": "a", "value": 0.5, "limit": 1.0, "meaning": "why"}
    assert found(0.9, 0.35) == {"ok": False, "figure": "b", "value": 0.35, "limit": 0.4, "meaning": "why"}
    assert gates.apply_gates({})["g"]["ok"] is None
