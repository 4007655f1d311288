"""What is called a failure, what is not, and what a run does about one."""

import json
import os
import signal

import pytest
import torch
from test_train import assert_same_run

import gansmith.training.loop as train_module
from gansmith.config import resolve
from gansmith.data.images import to_uint8
from gansmith.data.embedded import embedded_mnist
from gansmith.training.diagnosis import FAILURES, Failure, diagnose, to_failure
from gansmith.runs import create_run
from gansmith.training.monitor import Monitor
from gansmith.errors import TrainingFailed
from gansmith.training.loop import prepare
from gansmith.cli.training import train

CONFIG = resolve("default", arguments={"images": 10_000, "batch_size": 10, "conditioning": "labels"})
HEALTHY = {
    "d_loss": 1.2, "g_loss": 0.9, "d_real": 0.6, "d_fake": 0.4, "diversity_within": 0.9, "diversity_across": 1.0,
    "classes_generated": 0.9, "copy_distance": 1.1, "g_grad_norm": 1.0, "d_grad_norm": 1.0,
}  # fmt: skip


def rows_with(count=100, *, since=50, **changes):
    """A log of that many lines, healthy up to one of them."""
    return [{"images_seen": 100 * (k + 1), **HEALTHY, **(changes if k >= since else {})} for k in range(count)]


def names(rows, scores=()):
    return [failure.name for failure in diagnose(rows, scores, CONFIG)]


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("diverged", {"d_loss": 55.0}),
        ("diverged", {"g_loss": -300.0}),
        ("mode-collapse", {"diversity_within": 0.1}),
        ("missing-classes", {"classes_generated": 0.1}),
        ("missing-classes", {"diversity_across": 0.1, "classes_generated": None}),
        ("discriminator-wins", {"d_loss": 0.01}),
        ("discriminator-wins", {"d_real": 0.95, "d_fake": 0.1}),
        ("generator-wins", {"d_loss": 1.385}),
        ("generator-wins", {"d_loss": 1.5}),
        ("vanishing-gradient", {"g_grad_norm": 1e-5}),
        ("memorisation", {"copy_distance": 0.1}),
        ("memorisation", {"d_overfit": 1.1}),
        ("missing-classes", {"classes_in_data": 0.1}),
    ],
)
def test_a_sign_that_lasts_is_named_within_a_tenth_of_the_run(name, changes):
    assert names(rows_with(**changes)) == [name]
    named = [k for k in range(1, 101) if names(rows_with(k, **changes))]
    assert named == list(range(named[0], 101)) and 52 < named[0] <= 60
    assert names(rows_with(since=99, **changes)) == []  # one bad line is no failure
    (failure,) = diagnose(rows_with(**changes), [], CONFIG)
    assert failure.images_seen == 10_000 and "; likely " in failure.message and "; try " in failure.message


def test_a_healthy_log_and_a_short_one_show_nothing():
    assert names(rows_with()) == names([]) == names(rows_with(4, since=0, d_loss=99.0)) == []
    assert names([{"images_seen": 9_000, "kind": "failure", "failure": "x", "message": "y"}]) == []
    assert names([{**row, "g_grad_norm": None, "copy_distance": None} for row in rows_with()]) == []


def test_a_discriminator_of_swapped_targets_wins_by_swapped_words():
    swapped = CONFIG.replace(label_flipping=1.0)
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
    rows[1]["weight_growth"] = grown
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


class ValidationScorer(torch.nn.Module):
    """Stands for a discriminator: what it makes of pixels."""

    def __init__(self, judge):
        super().__init__()
        self.judge = judge

    def forward(self, images, ids):
        return self.judge(to_uint8(images))


JUDGE = ValidationScorer(lambda pixels: torch.zeros(len(pixels)))


@pytest.fixture(scope="module")
def monitor():
    images = embedded_mnist()
    order = torch.randperm(5000, generator=torch.Generator().manual_seed(3))
    fit, others = images.take(order[:2000]), images.take(order[2000:])
    frequencies = torch.bincount(fit.labels) / len(fit)
    return Monitor(CONFIG, fit, others, fit.labels, frequencies), fit, others


def of_kind(images, told):
    return torch.stack([images.pixels[images.labels == kind][k % 8] for k, kind in enumerate(told.tolist())])


def test_real_images_look_like_real_ones(monitor):
    measure, _, others = monitor
    signs = measure.measure(Drawn(of_kind(others, measure.told)), JUDGE, 0)
    assert signs["diversity_within"] == pytest.approx(1, abs=0.15)
    assert signs["diversity_across"] == pytest.approx(1, abs=0.15)
    assert signs["classes_generated"] == pytest.approx(0.8, abs=0.05)  # 8 of 10 classes are asked for
    assert signs["copy_distance"] == pytest.approx(1, abs=0.15)


def test_each_sign_sees_its_own_trouble(monitor):
    measure, fit, others = monitor
    real = of_kind(others, measure.told)
    first = torch.stack([real[8 * (k // 8)] for k in range(64)])
    assert measure.measure(Drawn(first), JUDGE, 0)["diversity_within"] == 0
    assert measure.measure(Drawn(first), JUDGE, 0)["diversity_across"] > 1
    same = real[:8].repeat(8, 1, 1, 1)
    signs = measure.measure(Drawn(same), JUDGE, 0)
    assert signs["diversity_across"] == 0 and signs["classes_generated"] < 0.2
    assert measure.measure(Drawn(of_kind(fit, measure.told)), JUDGE, 0)["copy_distance"] == 0


def test_chosen_classes_are_no_copies_of_themselves(monitor):
    """Threes lie nearer to threes than digits of all classes do; that is not memorising."""
    _, fit, others = monitor
    threes = fit.take(torch.nonzero(fit.labels == 3).flatten())
    ids = torch.zeros(len(threes), dtype=torch.int64)
    measure = Monitor(CONFIG.replace(conditioning="none", classes="3"), threes, others, ids, torch.ones(1))
    drawn = others.pixels[others.labels == 3][:64]
    assert measure.measure(Drawn(drawn), JUDGE, 0)["copy_distance"] == pytest.approx(1, abs=0.15)


def among(known, pixels):
    return torch.stack([(known == image).flatten(1).all(1).any() for image in pixels]).float()


def test_a_discriminator_that_knows_its_images_by_heart_is_seen(monitor):
    measure, fit, others = monitor
    draw = torch.Generator().manual_seed(0)
    G = Drawn(torch.randint(0, 256, (64, 1, 28, 28), generator=draw, dtype=torch.uint8))
    noise = 0.1 * torch.randn(64, generator=draw)

    def seen(judge):
        return measure.measure(G, ValidationScorer(lambda pixels: judge(pixels) + noise), 0).get("d_overfit")

    assert seen(lambda pixels: among(fit.pixels, pixels)) == pytest.approx(1, abs=0.1)
    assert seen(lambda pixels: -3 * among(fit.pixels, pixels)) == pytest.approx(1, abs=0.1)  # swapped targets
    assert seen(lambda pixels: -pixels.float().mean((1, 2, 3)) / 100) == pytest.approx(0, abs=0.15)  # noise is bright
    assert seen(lambda pixels: torch.zeros(64)) is None  # nothing told apart
    both = torch.cat([fit.pixels, others.pixels])
    assert seen(lambda pixels: among(both, pixels)) == pytest.approx(0, abs=0.1)


def test_held_out_images_stand_beside_those_told_the_same(tiny):
    for changes in ({"conditioning": "labels"}, {"conditioning": "clusters", "clusters": 4}, {"conditioning": "none"}):
        config, data = prepare(tiny(**changes))
        measure = Monitor(config, data.train, data.validation, data.ids, data.frequencies)
        shown, held_out = (to_uint8(images) for images in measure.pairs)
        assert among(data.train.pixels, shown).all() and not among(data.train.pixels, held_out).any()
        if data.validation.labels is not None:
            told = [data.validation.labels[(data.validation.pixels == i).flatten(1).all(1)] for i in held_out]
            assert torch.equal(torch.cat(told), measure.told)
    config, data = prepare(tiny(classes="3,7", conditioning="none"))
    chosen = Monitor(config, data.train, data.validation, data.ids, data.frequencies)
    assert chosen.pairs is None
    G, D = Drawn(data.train.pixels[torch.arange(64) % len(data.train)]), JUDGE
    assert chosen.measure(G, D, 0)["classes_in_data"] == pytest.approx(0.2, abs=0.03)
    assert "classes_in_data" not in measure.measure(G, D, 0)


def test_noise_is_not_called_a_collapse_of_classes(monitor):
    measure, _, others = monitor
    draw = torch.Generator().manual_seed(0)
    noise = torch.randint(0, 256, (64, 1, 28, 28), generator=draw, dtype=torch.uint8)
    assert "classes_generated" not in measure.measure(Drawn(noise), JUDGE, 0)
    ones = others.pixels[others.labels == 1][:64]
    assert measure.measure(Drawn(ones), JUDGE, 0)["classes_generated"] < 0.2


def test_measuring_moves_nothing(tiny):
    config, data = prepare(tiny("mlp-keras", g_dropout=0.5))
    networks = train_module.build_training_networks(config, data.spec)
    both = torch.nn.ModuleList([networks.G, networks.D])
    before = {name: value.clone() for name, value in both.state_dict().items()}
    monitor = Monitor(config, data.train, data.validation, data.ids, data.frequencies)
    state = torch.random.get_rng_state()
    a, b = (monitor.measure(networks.G, networks.D, 64) for _ in range(2))
    assert a == b and "diversity_across" not in a
    assert torch.equal(state, torch.random.get_rng_state())
    for name, value in both.state_dict().items():
        torch.testing.assert_close(value, before[name], rtol=0, atol=0)


def poison(monkeypatch, at, *, while_rate_above=0.0):
    """Turn the step that starts at `at` images into one with a loss that is no number."""
    real_step = train_module.take_step

    def step(networks, rules, batches, images_seen, progress):
        if images_seen == at and networks.g_optimizer.param_groups[0]["lr"] > while_rate_above:
            raise train_module.NonFiniteError("d_loss")
        return real_step(networks, rules, batches, images_seen, progress)

    monkeypatch.setattr(train_module, "take_step", step)


def go(run, data):
    return list(train(run, data))


def test_a_number_that_is_none_is_named_and_logged(tiny, tmp_path, monkeypatch):
    config, data = prepare(tiny("mlp-small"))
    run = create_run(tmp_path / "run", config)
    poison(monkeypatch, 144)
    with pytest.raises(TrainingFailed, match="not-finite: d_loss is no longer a number after 144 images; likely"):
        go(run, data)
    assert run.log[-1] == to_failure("not-finite", 144, "d_loss is no longer a number").as_row()
    assert run.facts()["status"] == "failed" and run.latest().name == "000000128"


def test_weights_that_are_no_numbers_are_never_saved(tiny, tmp_path, monkeypatch):
    config, data = prepare(tiny("mlp-small"))
    run = create_run(tmp_path / "run", config)
    real_step = train_module.take_step

    def step(networks, rules, batches, images_seen, progress):
        numbers = real_step(networks, rules, batches, images_seen, progress)
        if images_seen == 176:
            next(networks.D.parameters()).data[0] = float("nan")
        return numbers

    monkeypatch.setattr(train_module, "take_step", step)
    with pytest.raises(TrainingFailed, match="a weight is no longer a number after 192 images"):
        go(run, data)
    assert run.latest().name == "000000128"


def rates(run):
    return len(run.facts().get("rollbacks", []))


def test_a_rollback_lowers_the_rate_and_goes_on(tiny, tmp_path, monkeypatch):
    config, data = prepare(tiny("mlp-small", on_failure="rollback"))
    run = create_run(tmp_path / "run", config)
    poison(monkeypatch, 160, while_rate_above=0.6 * config.g_lr)
    go(run, data)
    assert run.facts()["status"] == "finished" and run.latest().name == "000000256"
    assert len(run.facts()["starts"]) == 1
    (step,) = run.facts()["rollbacks"]
    assert (step["from"], step["to"], step["failure"]) == (160, int(step["to"]), "not-finite")
    (row,) = [row for row in run.log if row.get("kind") == "rollback"]
    assert row["message"].startswith("not-finite: d_loss")
    assert [row["images_seen"] for row in run.log if "d_loss" in row] == list(range(32, 257, 32))


def test_a_rollback_survives_kills(tiny, tmp_path, monkeypatch):
    config, data = prepare(tiny("mlp-small", on_failure="rollback", save_every=32))
    poison(monkeypatch, 208, while_rate_above=0.6 * config.g_lr)
    whole = create_run(tmp_path / "whole", config)
    go(whole, data)
    for stop_at in range(3, 40, 12):
        run = create_run(tmp_path / f"killed-{stop_at}", config)
        for _ in range(2):
            reports = train(run, data)
            for count, _ in enumerate(reports):
                if count == stop_at:
                    reports.close()
        go(run, data)
        assert_same_run(whole, run)


def test_rollbacks_end(tiny, tmp_path, monkeypatch):
    config, data = prepare(tiny("mlp-small", on_failure="rollback"))
    run = create_run(tmp_path / "run", config)
    poison(monkeypatch, 160)
    with pytest.raises(TrainingFailed):
        go(run, data)
    assert len(run.facts()["rollbacks"]) == train_module.MOST_ROLLBACKS
    assert run.latest() is not None


def test_a_run_may_stop_at_trouble_and_be_continued(tiny, tmp_path, monkeypatch, gansmith):
    config, data = prepare(tiny("mlp-small", on_failure="stop"))
    monkeypatch.setattr(
        train_module,
        "diagnose",
        lambda rows, scores, config: (
            [Failure("memorisation", 96, "memorisation: ...")] if rows[-1]["images_seen"] >= 96 else []
        ),
    )
    run = create_run(tmp_path / "run", config)
    with pytest.raises(TrainingFailed, match="memorisation"):
        go(run, data)
    assert run.latest().name == "000000096" and run.facts()["status"] == "failed"
    code, out, _ = gansmith("diagnose", run.directory)
    assert code == 0 and "stopped by itself" in out and "memorisation: ..." in out and "gansmith resume" in out
    go(run, data)  # said once: it goes on
    assert run.facts()["status"] == "finished"
    assert [row["failure"] for row in run.log if row.get("kind") == "failure"] == ["memorisation"]


def test_diagnose_tells_how_a_run_stands(tiny, tmp_path, gansmith):
    config, data = prepare(tiny("mlp-small"))
    run = create_run(tmp_path / "run", config)
    child = os.fork()
    if child == 0:
        go(create_run(run.directory, config.replace(images=10**9)), data)
        os._exit(0)
    while not run.log or run.latest() is None:
        pass
    assert "training now" in gansmith("diagnose", run.directory)[1]
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    found = json.loads(gansmith("diagnose", run.directory, "--json")[1])
    assert (found["status"], found["failures"], found["rollbacks"]) == ("killed", {}, [])
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
    for _, cause, change in FAILURES.values():
        assert cause and change and not (cause + change).endswith(".")
