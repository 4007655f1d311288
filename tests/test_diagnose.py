"""What is called a trouble, what is not, and what a run does about one."""

import json
import os
import signal

import pytest
import torch
from test_train import assert_same_run

import gansmith.train as train_module
from gansmith.config import resolve
from gansmith.data import to_uint8
from gansmith.data.embedded import embedded_mnist
from gansmith.diagnose import TROUBLES, Trouble, diagnose, to_trouble
from gansmith.runs import create_run
from gansmith.signals import Signals
from gansmith.train import TroubleError, prepare, train

CONFIG = resolve("default", flags={"images": 10_000, "batch": 10, "conditioning": "labels"})[0]
HEALTHY = {
    "d_loss": 1.2, "g_loss": 0.9, "d_real": 0.6, "d_fake": 0.4, "spread_within": 0.9, "spread_across": 1.0,
    "classes_drawn": 0.9, "copy_distance": 1.1, "g_grad": 1.0, "d_grad": 1.0,
}  # fmt: skip


def rows_with(count=100, *, since=50, **changes):
    """A log of that many lines, healthy up to one of them."""
    return [{"images_seen": 100 * (k + 1), **HEALTHY, **(changes if k >= since else {})} for k in range(count)]


def names(rows, scores=()):
    return [trouble.name for trouble in diagnose(rows, scores, CONFIG)]


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("diverged", {"d_loss": 55.0}),
        ("diverged", {"g_loss": -300.0}),
        ("collapse-within", {"spread_within": 0.1}),
        ("collapse-across", {"classes_drawn": 0.1}),
        ("collapse-across", {"spread_across": 0.1, "classes_drawn": None}),
        ("discriminator-wins", {"d_loss": 0.01}),
        ("discriminator-wins", {"d_real": 0.95, "d_fake": 0.1}),
        ("generator-wins", {"d_loss": 1.385}),
        ("generator-wins", {"d_loss": 1.5}),
        ("vanishing-gradient", {"g_grad": 1e-5}),
        ("memorises", {"copy_distance": 0.1}),
        ("memorises", {"d_overfit": 1.1}),
        ("collapse-across", {"classes_shown": 0.1}),
    ],
)
def test_a_sign_that_lasts_is_named_within_a_tenth_of_the_run(name, changes):
    assert names(rows_with(**changes)) == [name]
    named = [k for k in range(1, 101) if names(rows_with(k, **changes))]
    assert named == list(range(named[0], 101)) and 52 < named[0] <= 60
    assert names(rows_with(since=99, **changes)) == []  # one bad line is no trouble
    (trouble,) = diagnose(rows_with(**changes), [], CONFIG)
    assert trouble.images_seen == 10_000 and "; likely " in trouble.sentence and "; try " in trouble.sentence


def test_a_healthy_log_and_a_short_one_show_nothing():
    assert names(rows_with()) == names([]) == names(rows_with(4, since=0, d_loss=99.0)) == []
    assert names([{"images_seen": 9_000, "kind": "trouble", "trouble": "x", "sentence": "y"}]) == []
    assert names([{**row, "g_grad": None, "copy_distance": None} for row in rows_with()]) == []


def test_a_discriminator_of_swapped_targets_wins_by_swapped_words():
    swapped = CONFIG.replace(flip_probability=1.0)
    for config, real, fake in ((swapped, 0.15, 0.85), (CONFIG, 0.85, 0.15)):
        assert [t.name for t in diagnose(rows_with(d_real=real, d_fake=fake), [], config)] == ["discriminator-wins"]
        assert diagnose(rows_with(d_real=fake, d_fake=real), [], config) == []


def test_a_score_that_no_longer_falls_is_stalled():
    falling = [{"images_seen": k, "ratio": 10.0 / k} for k in range(1, 13)]
    assert names(rows_with(), falling) == []
    assert names(rows_with(), falling[:6] + [{"images_seen": k, "ratio": 2.0} for k in range(7, 13)]) == ["stalled"]
    assert names(rows_with(), falling[:3] + [{"images_seen": k, "ratio": 9.0} for k in range(4, 8)]) == []


@pytest.mark.parametrize(("grown", "named"), [(1.45, []), (1.55, ["diverged"])])
def test_weights_thrown_about_by_the_first_steps_are_a_divergence(grown, named):
    rows = rows_with(10, since=99)
    rows[1]["weights_grown"] = grown
    assert names(rows) == named


def test_losses_without_a_scale_may_be_large():
    rows = rows_with(d_loss=-300.0, g_loss=500.0)
    assert diagnose(rows, [], CONFIG.replace(objective="wasserstein", update="alternating")) == []


class Drawn(torch.nn.Module):
    """Stands for a generator that draws given images."""

    def __init__(self, pixels):
        super().__init__()
        self.register_buffer("pixels", pixels)

    def forward(self, z, ids):
        return self.pixels.float() / 127.5 - 1


class Judge(torch.nn.Module):
    """Stands for a discriminator: what it makes of pixels."""

    def __init__(self, judge):
        super().__init__()
        self.judge = judge

    def forward(self, images, ids):
        return self.judge(to_uint8(images))


JUDGE = Judge(lambda pixels: torch.zeros(len(pixels)))


@pytest.fixture(scope="module")
def signals():
    images = embedded_mnist()
    order = torch.randperm(5000, generator=torch.Generator().manual_seed(3))
    fit, others = images.take(order[:2000]), images.take(order[2000:])
    frequencies = torch.bincount(fit.labels) / len(fit)
    return Signals(CONFIG, fit, others, fit.labels, frequencies), fit, others


def of_kind(images, told):
    return torch.stack([images.pixels[images.labels == kind][k % 8] for k, kind in enumerate(told.tolist())])


def test_real_images_look_like_real_ones(signals):
    measure, _, others = signals
    signs = measure.measure(Drawn(of_kind(others, measure.told)), JUDGE, 0)
    assert signs["spread_within"] == pytest.approx(1, abs=0.15)
    assert signs["spread_across"] == pytest.approx(1, abs=0.15)
    assert signs["classes_drawn"] == pytest.approx(0.8, abs=0.05)  # 8 of 10 classes are asked for
    assert signs["copy_distance"] == pytest.approx(1, abs=0.15)


def test_each_sign_sees_its_own_trouble(signals):
    measure, fit, others = signals
    real = of_kind(others, measure.told)
    first = torch.stack([real[8 * (k // 8)] for k in range(64)])
    assert measure.measure(Drawn(first), JUDGE, 0)["spread_within"] == 0
    assert measure.measure(Drawn(first), JUDGE, 0)["spread_across"] > 1
    same = real[:8].repeat(8, 1, 1, 1)
    signs = measure.measure(Drawn(same), JUDGE, 0)
    assert signs["spread_across"] == 0 and signs["classes_drawn"] < 0.2
    assert measure.measure(Drawn(of_kind(fit, measure.told)), JUDGE, 0)["copy_distance"] == 0


def test_chosen_classes_are_no_copies_of_themselves(signals):
    """Threes lie nearer to threes than digits of all classes do; that is not memorising."""
    _, fit, others = signals
    threes = fit.take(torch.nonzero(fit.labels == 3).flatten())
    ids = torch.zeros(len(threes), dtype=torch.int64)
    measure = Signals(CONFIG.replace(conditioning="none", classes="3"), threes, others, ids, torch.ones(1))
    drawn = others.pixels[others.labels == 3][:64]
    assert measure.measure(Drawn(drawn), JUDGE, 0)["copy_distance"] == pytest.approx(1, abs=0.15)


def among(known, pixels):
    return torch.stack([(known == image).flatten(1).all(1).any() for image in pixels]).float()


def test_a_discriminator_that_knows_its_images_by_heart_is_seen(signals):
    measure, fit, others = signals
    draw = torch.Generator().manual_seed(0)
    G = Drawn(torch.randint(0, 256, (64, 1, 28, 28), generator=draw, dtype=torch.uint8))
    noise = 0.1 * torch.randn(64, generator=draw)

    def seen(judge):
        return measure.measure(G, Judge(lambda pixels: judge(pixels) + noise), 0).get("d_overfit")

    assert seen(lambda pixels: among(fit.pixels, pixels)) == pytest.approx(1, abs=0.1)
    assert seen(lambda pixels: -3 * among(fit.pixels, pixels)) == pytest.approx(1, abs=0.1)  # swapped targets
    assert seen(lambda pixels: -pixels.float().mean((1, 2, 3)) / 100) == pytest.approx(0, abs=0.15)  # noise is bright
    assert seen(lambda pixels: torch.zeros(64)) is None  # nothing told apart
    both = torch.cat([fit.pixels, others.pixels])
    assert seen(lambda pixels: among(both, pixels)) == pytest.approx(0, abs=0.1)


def test_held_out_images_stand_beside_those_told_the_same(tiny):
    for changes in ({"conditioning": "labels"}, {"conditioning": "clusters", "clusters": 4}, {"conditioning": "none"}):
        config, material = prepare(tiny(**changes))
        measure = Signals(config, material.fit, material.validation, material.ids, material.frequencies)
        shown, held_out = (to_uint8(images) for images in measure.pairs)
        assert among(material.fit.pixels, shown).all() and not among(material.fit.pixels, held_out).any()
        if material.validation.labels is not None:
            told = [material.validation.labels[(material.validation.pixels == i).flatten(1).all(1)] for i in held_out]
            assert torch.equal(torch.cat(told), measure.told)
    config, material = prepare(tiny(classes="3,7", conditioning="none"))
    chosen = Signals(config, material.fit, material.validation, material.ids, material.frequencies)
    assert chosen.pairs is None
    G, D = Drawn(material.fit.pixels[torch.arange(64) % len(material.fit)]), JUDGE
    assert chosen.measure(G, D, 0)["classes_shown"] == pytest.approx(0.2, abs=0.03)
    assert "classes_shown" not in measure.measure(G, D, 0)


def test_noise_is_not_called_a_collapse_of_classes(signals):
    measure, _, others = signals
    draw = torch.Generator().manual_seed(0)
    noise = torch.randint(0, 256, (64, 1, 28, 28), generator=draw, dtype=torch.uint8)
    assert "classes_drawn" not in measure.measure(Drawn(noise), JUDGE, 0)
    ones = others.pixels[others.labels == 1][:64]
    assert measure.measure(Drawn(ones), JUDGE, 0)["classes_drawn"] < 0.2


def test_measuring_moves_nothing(tiny):
    config, material = prepare(tiny("mlp-keras", g_dropout=0.5))
    players = train_module.build_players(config, material.spec)
    both = torch.nn.ModuleList([players.G, players.D])
    before = {name: value.clone() for name, value in both.state_dict().items()}
    signals = Signals(config, material.fit, material.validation, material.ids, material.frequencies)
    state = torch.random.get_rng_state()
    a, b = (signals.measure(players.G, players.D, 64) for _ in range(2))
    assert a == b and "spread_across" not in a
    assert torch.equal(state, torch.random.get_rng_state())
    for name, value in both.state_dict().items():
        torch.testing.assert_close(value, before[name], rtol=0, atol=0)


def poison(monkeypatch, at, *, while_rate_above=0.0):
    """Turn the step that starts at `at` images into one with a loss that is no number."""
    real_step = train_module.take_step

    def step(players, rules, batches, images_seen, progress):
        if images_seen == at and players.g_optimizer.param_groups[0]["lr"] > while_rate_above:
            raise train_module.NotFiniteError("d_loss")
        return real_step(players, rules, batches, images_seen, progress)

    monkeypatch.setattr(train_module, "take_step", step)


def go(run, material):
    return list(train(run, material))


def test_a_number_that_is_none_is_named_and_logged(tiny, tmp_path, monkeypatch):
    config, material = prepare(tiny("mlp-small"))
    run = create_run(tmp_path / "run", config)
    poison(monkeypatch, 144)
    with pytest.raises(TroubleError, match="not-finite: d_loss is no longer a number after 144 images; likely"):
        go(run, material)
    assert run.log()[-1] == to_trouble("not-finite", 144, "d_loss is no longer a number").as_row()
    assert run.facts()["status"] == "failed" and run.latest().name == "000000128"


def test_weights_that_are_no_numbers_are_never_saved(tiny, tmp_path, monkeypatch):
    config, material = prepare(tiny("mlp-small"))
    run = create_run(tmp_path / "run", config)
    real_step = train_module.take_step

    def step(players, rules, batches, images_seen, progress):
        numbers = real_step(players, rules, batches, images_seen, progress)
        if images_seen == 176:
            next(players.D.parameters()).data[0] = float("nan")
        return numbers

    monkeypatch.setattr(train_module, "take_step", step)
    with pytest.raises(TroubleError, match="a weight is no longer a number after 192 images"):
        go(run, material)
    assert run.latest().name == "000000128"


def rates(run):
    return len(run.facts().get("rollbacks", []))


def test_a_rollback_lowers_the_rate_and_goes_on(tiny, tmp_path, monkeypatch):
    config, material = prepare(tiny("mlp-small", on_trouble="rollback"))
    run = create_run(tmp_path / "run", config)
    poison(monkeypatch, 160, while_rate_above=0.6 * config.g_learning_rate)
    go(run, material)
    assert run.facts()["status"] == "finished" and run.latest().name == "000000256"
    assert len(run.facts()["starts"]) == 1
    (step,) = run.facts()["rollbacks"]
    assert (step["from"], step["to"], step["trouble"]) == (160, int(step["to"]), "not-finite")
    (row,) = [row for row in run.log() if row.get("kind") == "rollback"]
    assert row["sentence"].startswith("not-finite: d_loss")
    assert [row["images_seen"] for row in run.log() if "d_loss" in row] == list(range(32, 257, 32))


def test_a_rollback_survives_kills(tiny, tmp_path, monkeypatch):
    config, material = prepare(tiny("mlp-small", on_trouble="rollback", save_every=32))
    poison(monkeypatch, 208, while_rate_above=0.6 * config.g_learning_rate)
    whole = create_run(tmp_path / "whole", config)
    go(whole, material)
    for stop_at in range(3, 40, 12):
        run = create_run(tmp_path / f"killed-{stop_at}", config)
        for _ in range(2):
            reports = train(run, material)
            for count, _ in enumerate(reports):
                if count == stop_at:
                    reports.close()
        go(run, material)
        assert_same_run(whole, run)


def test_rollbacks_end(tiny, tmp_path, monkeypatch):
    config, material = prepare(tiny("mlp-small", on_trouble="rollback"))
    run = create_run(tmp_path / "run", config)
    poison(monkeypatch, 160)
    with pytest.raises(TroubleError):
        go(run, material)
    assert len(run.facts()["rollbacks"]) == train_module.MOST_ROLLBACKS
    assert run.latest() is not None


def test_a_run_may_stop_at_trouble_and_be_continued(tiny, tmp_path, monkeypatch, gansmith):
    config, material = prepare(tiny("mlp-small", on_trouble="stop"))
    monkeypatch.setattr(
        train_module,
        "diagnose",
        lambda rows, scores, config: (
            [Trouble("memorises", 96, "memorises: ...")] if rows[-1]["images_seen"] >= 96 else []
        ),
    )
    run = create_run(tmp_path / "run", config)
    with pytest.raises(TroubleError, match="memorises"):
        go(run, material)
    assert run.latest().name == "000000096" and run.facts()["status"] == "failed"
    code, out, _ = gansmith("diagnose", run.directory)
    assert code == 0 and "stopped by itself" in out and "memorises: ..." in out and "gansmith resume" in out
    go(run, material)  # said once: it goes on
    assert run.facts()["status"] == "finished"
    assert [row["trouble"] for row in run.log() if row.get("kind") == "trouble"] == ["memorises"]


def test_diagnose_tells_how_a_run_stands(tiny, tmp_path, gansmith):
    config, material = prepare(tiny("mlp-small"))
    run = create_run(tmp_path / "run", config)
    child = os.fork()
    if child == 0:
        go(create_run(run.directory, config.replace(images=10**9)), material)
        os._exit(0)
    while not run.log() or run.latest() is None:
        pass
    assert "training now" in gansmith("diagnose", run.directory)[1]
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    found = json.loads(gansmith("diagnose", run.directory, "--json")[1])
    assert (found["status"], found["troubles"], found["rollbacks"]) == ("killed", {}, [])
    run.log_path.unlink()
    found = json.loads(gansmith("diagnose", run.directory, "--json")[1])
    assert found["images_seen"] == found["saved_images"] > 0
    assert "gansmith resume" in gansmith("diagnose", run.directory)[1]


def test_only_chosen_images_are_shown(tiny):
    shown = prepare(tiny(classes="3,7", limit_images=20))[1]
    assert len(shown.fit) == 20 and set(shown.fit.labels.tolist()) == {3, 7}
    assert len(shown.validation) == 40
    with pytest.raises(ValueError, match="labels 0 to 9 but no 12"):
        prepare(tiny(classes="12-15"))
    with pytest.raises(ValueError, match="labels are 'cat'"):
        prepare(tiny(classes="cat"))


def test_every_trouble_says_what_to_do():
    for _, cause, change in TROUBLES.values():
        assert cause and change and not (cause + change).endswith(".")
