"""The protocol on real and spoilt digits of the embedded subset, and the front door to it."""

import json

import numpy as np
import pytest
import torch

from gansmith.data.images import Images
from gansmith.data import load_data
from gansmith.evaluation import compare, evaluate, load_real
from gansmith.metrics import gates
from gansmith.metrics.features import load_evaluators
from gansmith.metrics.protocol import Real, judge


@pytest.fixture(scope="module")
def subset():
    return load_data("mnist")


@pytest.fixture(scope="module")
def halves(subset):
    """2,600 images to learn from, 1,200 held out and 1,200 for the test, no reference shipped."""
    order = torch.randperm(len(subset), generator=torch.Generator().manual_seed(7))
    fit, validation, test = (subset.take(order[a:b]) for a, b in ((0, 2600), (2600, 3800), (3800, 5000)))
    return Real(fit, validation, test)


@pytest.fixture(scope="module")
def networks(subset):
    return load_evaluators(subset)


def test_every_gate_has_figures_and_passes_fresh_images(halves, networks):
    fresh = Real(halves.fit.take(torch.arange(1400)), halves.validation, halves.test)
    verdict = judge(halves.fit.take(torch.arange(1400, 2600)), fresh, networks)
    assert verdict.n == 1000 and set(verdict.ratios) == {"trained", "random"}
    assert verdict.is_valid and verdict.ratio == max(verdict.ratios.values()) == pytest.approx(1.0, abs=0.25)
    assert set(verdict.gates) == set(gates.GATES)
    for name, gate in verdict.gates.items():
        assert gate["ok"] is True, name
        assert {limit.figure for limit in gates.GATES[name].limits} <= set(verdict.metrics)
        assert gate["value"] is not None and gate["limit"] is not None and gate["meaning"]
    assert all(set(found) == {"value", "floor"} for found in verdict.metrics.values())


def test_samples_among_the_real_images_are_not_compared_with_themselves(halves, networks):
    both = Real(halves.fit, Images("v", *_joined(halves.validation, halves.test), "v"), None)
    verdict = judge(halves.validation, both, networks, quick=True)
    assert any("left out" in notice for notice in verdict.notices)
    assert verdict.ratio is None and verdict.metrics["kid_z"]["value"] < 4


def test_test_images_as_samples_have_the_rest_of_them_as_floor(halves, networks):
    more = Real(halves.fit.take(torch.arange(200)), halves.validation, halves.fit.take(torch.arange(200, 2600)))
    verdict = judge(more.test.take(torch.arange(0, 2400, 2)), more, networks, quick=True)
    assert any("rest of these is the floor" in notice for notice in verdict.notices)
    assert verdict.ratio == pytest.approx(1.0, abs=0.25)


def _joined(a, b):
    return torch.cat([a.pixels, b.pixels]), torch.cat([a.labels, b.labels])


def test_lost_classes_and_wrong_pixels_fail_their_gates(halves, networks):
    real = halves.fit
    no_ones = real.take(torch.nonzero(real.labels != 1).flatten()[:1100])
    assert judge(no_ones, halves, networks, quick=True).gates["classes"]["ok"] is False
    lifted = Images("lifted", (real.pixels[:1100].int() + 12).clamp(max=255).byte(), None, "lifted")
    assert judge(lifted, halves, networks, quick=True).gates["pixels"]["ok"] is False
    repeated = real.take(torch.arange(1100) % 40)
    assert judge(repeated, halves, networks, quick=True).gates["coverage"]["ok"] is False


def test_a_limit_names_the_figure_furthest_beyond_it(monkeypatch):
    table = {"g": gates.Gate("why", (gates.Limit("a", high=1.0), gates.Limit("b", low=-0.1, null="floor")))}
    monkeypatch.setattr(gates, "GATES", table)

    def found(a, b, floor=0.5):
        return gates.apply_gates({"a": {"value": a, "floor": None}, "b": {"value": b, "floor": floor}})["g"]

    assert found(0.5, 0.5) == {"ok": True, "figure": "a", "value": 0.5, "limit": 1.0, "meaning": "why"}
    assert found(0.9, 0.35) == {"ok": False, "figure": "b", "value": 0.35, "limit": 0.4, "meaning": "why"}
    assert gates.apply_gates({})["g"]["ok"] is None


def test_the_embedded_digits_are_judged_by_what_ships(subset, tmp_path):
    real = load_real("mnist")
    assert real.test is None and set(real.references) == {"trained", "random"}
    np.savez(tmp_path / "x.npz", images=subset.pixels[:, 0].numpy(), labels=subset.labels.numpy())
    row = evaluate(tmp_path / "x.npz", quick=True)
    # Equal shares of each digit, and mostly images that the evaluator learnt.
    assert row["ratio"] < 4 and row["n"] == 2000 and row["tier"] == "quick"
    assert row["gates"]["recognisability"]["ok"] is True
    assert row["gates"]["memorisation"]["ok"] is None


def test_a_whole_test_set_as_samples_is_judged_by_halves(halves, networks):
    more = Real(halves.fit.take(torch.arange(200)), halves.validation, halves.fit.take(torch.arange(200, 2600)))
    verdict = judge(more.test, more, networks, quick=True)
    assert any("half of them is judged" in notice for notice in verdict.notices)
    assert verdict.ratio == pytest.approx(1.0, abs=0.25)


def test_checkpoints_of_one_run_are_no_repeats(run_training, tiny):
    run = run_training(tiny())
    groups = compare(run.checkpoints()[-2:], quick=True, count=300)
    assert [len(group["targets"]) for group in groups] == [1, 1]


def test_a_run_is_judged_and_the_verdict_kept(gansmith, tiny, run_training):
    run = run_training(tiny())
    before = run.validation_scores()
    code, out, err = gansmith("evaluate", run.directory, "--quick", "--count", 300, "--json")
    row = json.loads(out)
    assert (code, err) == (0, "") and row["ratio"] is None and row["metrics"]["kid_z"]["value"] > 3
    assert row["images_seen"] == 256 and row["valid"] is False
    kept = run.metrics[-1]
    assert kept["tier"] == "quick" and "target" not in kept and run.validation_scores() == before
    for gate in row["gates"].values():
        assert {"ok", "value", "limit", "meaning"} <= set(gate)
    code, out, _ = gansmith("evaluate", run.directory / "checkpoints" / "000000128", "--quick", "--count", 300)
    assert code == 0 and "INVALID" in out and "spreads from real" in out
    assert f"{run.directory}/checkpoints/000000128 after 128 images: 40 samples of seed 0 beside mnist" in out


def test_copies_of_images_it_learnt_from_are_not_looked_for_unsaid(run_training, tiny):
    told = [
        any(
            "learnt from the validation images" in note
            for note in evaluate(run.directory, quick=True, count=200)["notices"]
        )
        for run in (
            run_training(tiny("mlp-small", use_all_training_images=True), "all"),
            run_training(tiny("mlp-small"), "split"),
        )
    ]
    assert told == [True, False]


def test_seeds_share_a_row_and_verdicts_are_reused(gansmith, tiny, run_training, tmp_path, subset):
    runs = [run_training(tiny("mlp-small", seed=seed), f"seed{seed}") for seed in (0, 1)]
    np.savez(tmp_path / "real.npz", images=subset.pixels[::10, 0].numpy())
    targets = [*(run.directory for run in runs), tmp_path / "real.npz"]
    groups = compare(targets, quick=True, count=300, data_dir=runs[0].config.data_dir)
    assert sorted(len(group["targets"]) for group in groups) == [1, 2]
    code, out, _ = gansmith("compare", *targets, "--quick", "--count", 300)
    assert code == 0 and "seed0 seed1" in out and "real.npz" in out
    for added in (1, 0):  # another count is another verdict; the same one is not made twice
        lengths = [len(run.metrics) for run in runs]
        gansmith("compare", *(run.directory for run in runs), "--quick", "--json")
        assert [len(run.metrics) for run in runs] == [length + added for length in lengths]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["evaluate", "nothing"], "there is no"),
        (["evaluate", "folder"], "holds no .png"),
        (["evaluate", "x.npz", "--data", "minst"], "did you mean"),
        (["evaluate", "colour.npz"], "same shape"),
        (["evaluate", "x.npz", "--count", "0"], "between 1 and"),
        (["evaluate", "x.npz", "--seed", "-1"], "0 or more"),
        (["compare"], "nothing to compare"),
    ],
)
def test_wrong_requests_get_one_sentence(gansmith, tmp_path, words, expected):
    (tmp_path / "folder").mkdir()
    np.savez(tmp_path / "x.npz", images=np.zeros((4, 28, 28), np.uint8))
    np.savez(tmp_path / "colour.npz", images=np.random.default_rng(0).integers(0, 256, (4, 28, 28, 3), dtype=np.uint8))
    code, out, err = gansmith(*words)
    assert code == 2 and out == "" and expected in err and len(err.strip().splitlines()) == 1
