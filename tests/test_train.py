"""The loop: the same run every time, interrupted or not, and what it leaves behind."""

import json
import shutil
import time

import numpy as np
import pytest
import torch
from conftest import write_set

from gansmith.cli.training import train as training
from gansmith.config import resolve
from gansmith.models import load_generator
from gansmith.sampling import sample
from gansmith.pictures.plots import classes_by_styles
from gansmith.recipes import RECIPES
from gansmith.errors import TrainingFailed
from gansmith.runs import create_run, open_run
from gansmith.checkpoints import load_checkpoint
from gansmith.training.loop import LAST_PICTURES_S, _scores, images_for_minutes, prepare
from gansmith.training.batches import Batches
from gansmith.errors import TrainingFailed
from gansmith.cli.training import train

TIMINGS = ("images_per_s", "elapsed_s")


def log_without_times(run):
    return [{key: value for key, value in row.items() if key not in TIMINGS} for row in run.log]


def assert_same_run(a, b):
    assert log_without_times(a) == log_without_times(b)
    assert a.metrics == b.metrics
    for file in ("generator.safetensors", "state.safetensors", "state.json"):
        assert (a.latest() / file).read_bytes() == (b.latest() / file).read_bytes()
    frames = sorted(path.name for path in a.samples_dir.iterdir())
    assert frames == sorted(path.name for path in b.samples_dir.iterdir())
    assert all((a.samples_dir / name).read_bytes() == (b.samples_dir / name).read_bytes() for name in frames)


# Seconds each, and their steps are made of what the others have.
LONG = ("stacked", "gaussians", "lsgan-cs231n", "dcgan-cs231n", "wgan-gp", "sngan", "acgan", "stylegan-lite")


@pytest.mark.parametrize(
    "recipe", [pytest.param(name, marks=pytest.mark.slow if name in LONG else ()) for name in RECIPES]
)
def test_resume_continues_the_same_run(recipe, tiny, run_training):
    whole = run_training(tiny(recipe), "whole")
    run_training(tiny(recipe), "parts", stop_after=3)  # stops between two of its intervals
    parts = run_training(tiny(recipe), "parts")
    assert_same_run(whole, parts)
    assert [row["images_seen"] for row in whole.log] == list(range(32, 257, 32))
    assert len(whole.checkpoints()) == 4


def test_resume_remembers_how_often_images_are_changed(tiny, run_training):
    config = tiny(augment="adaptive")
    whole = run_training(config, "whole")
    run_training(config, "parts", stop_after=5)
    assert_same_run(whole, run_training(config, "parts"))
    memory = load_checkpoint(whole.latest())[1]["memory.augment_probability"].item()
    assert 0 < memory <= 256 / 500_000
    assert all(0 <= row["augment_probability"] <= memory for row in whole.log)


# As many techniques at once as go together, in two sets.
CROWDS = {
    "old images and noise": {
        "replay": 0.5, "replay_size": 40, "instance_noise": 0.2, "g_dropout": 0.2, "d_dropout": 0.2, "d_steps": 2,
        "g_steps": 2, "g_optimizer": "adamw", "d_optimizer": "rmsprop", "weight_decay": 0.01, "lr_decay": "step",
        "lr_decay_from": 0.3, "label_flipping": 0.1, "real_target_low": 0.8, "latent_distribution": "sphere", "clip_grad_norm": 1.0,
        "ema": 0.1,
    },
    "classes and slopes": {
        "objective": "hinge", "spectral_norm": True, "gradient_penalty": 1.0, "dragan": 1.0, "feature_matching": 0.5,
        "minibatch_stddev": True, "conditioning": "labels", "d_conditioning": "classifier", "d_optimizer": "sgd",
        "momentum": 0.5, "lr_decay": "cosine", "lr_decay_from": 0.2, "weight_init": "orthogonal", "g_activation": "silu",
    },
}  # fmt: skip


@pytest.mark.parametrize("crowd", CROWDS)
def test_a_run_with_many_techniques_continues_as_well(crowd, tiny, run_training):
    whole = run_training(tiny("mlp-small", **CROWDS[crowd]), "whole")
    for stop_after in (3, 6):
        run_training(tiny("mlp-small", **CROWDS[crowd]), "parts", stop_after=stop_after)
    parts = run_training(tiny("mlp-small", **CROWDS[crowd]), "parts")
    assert_same_run(whole, parts)
    assert all(np.isfinite(row["g_loss"]) for row in whole.log)


def test_the_generator_takes_its_turn_after_so_many_discriminator_steps(tiny):
    config, data = prepare(tiny("mlp-small", d_steps=3, g_steps=2))
    batches = Batches(config, data)
    turns = [batches.at(step * config.batch_size) for step in range(6)]
    assert [batch.skip_g for batch in turns] == [True, True, False] * 2
    assert [len(batch.extra_z) for batch in turns] == [0, 0, 1] * 2
    assert not torch.equal(turns[2].extra_z[0], turns[2].z)


def test_a_turn_with_images_of_its_own_gets_latents_for_each_of_its_steps(tiny):
    config, data = prepare(tiny("vanilla-cs231n", g_steps=2))
    batch, same = Batches(config, data).at(0), Batches(config.replace(fresh_fakes=False), data).at(0)
    assert batch.fresh_fakes and len(batch.extra_z) == 2 and len(same.extra_z) == 1 and torch.equal(batch.z, same.z)
    assert not torch.equal(batch.extra_z[0], batch.z) and torch.equal(batch.extra_z[1], same.extra_z[0])


def test_gradients_of_a_turn_before_the_interruption_are_still_told(tiny, run_training):
    config = tiny("mlp-small", d_steps=3, save_every=16)  # between turns of G, which log lines are too
    whole = run_training(config, "whole")
    run_training(config, "parts", stop_after=7)
    assert_same_run(whole, run_training(config, "parts"))
    assert all(row["g_grad_norm"] > 0 for row in whole.log if row["images_seen"] >= 3 * config.batch_size)


def test_data_may_move_and_no_folder_travels_with_a_generator(tiny, run_training, digit_dir, tmp_path):
    whole = run_training(tiny(), "whole")
    run_training(tiny(), "parts", stop_after=3)
    moved = shutil.copytree(digit_dir, tmp_path / "moved")
    parts = run_training(open_run(tmp_path / "parts").config.replace(data_dir=str(moved)), "parts")
    assert_same_run(whole, parts)
    for folder in (digit_dir, moved):
        assert bytes(folder) not in (parts.latest() / "generator.safetensors").read_bytes()


def test_a_run_killed_between_checkpoints_goes_back_to_the_last(tiny, run_training):
    whole = run_training(tiny(), "whole")
    killed = create_run(whole.directory.parent / "killed", whole.config)
    reports = train(killed, prepare(whole.config)[1])
    for report in reports:
        if report["kind"] == "log" and report["images_seen"] == 160:
            break
    reports.close()
    assert killed.latest().name == "000000128"
    for _ in train(killed, prepare(whole.config)[1]):
        pass
    assert_same_run(whole, killed)


def test_a_run_killed_before_its_first_checkpoint_starts_again(tiny, run_training):
    whole = run_training(tiny(), "whole")
    killed = create_run(whole.directory.parent / "killed", whole.config)
    reports = train(killed, prepare(whole.config)[1])
    for report in reports:
        if report["kind"] == "log":
            break
    reports.close()
    assert killed.latest() is None and killed.log()
    for _ in train(killed, prepare(whole.config)[1]):
        pass
    assert_same_run(whole, killed)


def test_a_steered_penalty_survives_an_interruption(tiny, run_training):
    config = tiny(d_loss_target=1.0)
    whole = run_training(config, "whole")
    boosts = [row["penalty_boost"] for row in whole.log]
    assert len(set(boosts)) == len(boosts)
    run_training(config, "parts", stop_after=3)
    assert_same_run(whole, run_training(config, "parts"))


def test_another_seed_is_another_run(tiny, run_training):
    a, b = (run_training(tiny(seed=seed), f"seed{seed}") for seed in (0, 1))
    assert log_without_times(a) != log_without_times(b)


def test_a_finished_run_is_extended_at_its_last_rates(tiny, run_training):
    run = run_training(tiny(), "run")
    longer = run_training(tiny(images=320), "run")
    assert longer.config.schedule_images == run.config.images
    steps = [row for row in longer.log() if "d_loss" in row]
    assert [row["images_seen"] for row in steps] == list(range(32, 321, 32))
    assert longer.latest().name == "000000320"
    assert all(np.isfinite(row["d_loss"]) for row in steps)


def test_the_unlabelled_recipe_never_reads_a_label(tiny, run_training, tmp_path, digits):
    images, labels = digits
    with_labels = run_training(tiny("default-unlabelled"), "labels")
    zeroed = write_set(tmp_path / "zeroed-data", images, np.zeros_like(labels))
    without = run_training(tiny("default-unlabelled", data_dir=str(zeroed)), "zeroed")
    missing = write_set(tmp_path / "missing-data", images, None)
    none = run_training(tiny("default-unlabelled", data_dir=str(missing)), "missing")
    weights = [load_checkpoint(run.latest())[:2] for run in (with_labels, without, none)]
    for other in weights[1:]:
        torch.testing.assert_close(other, weights[0], rtol=0, atol=0)


def test_labels_change_what_the_default_learns_and_draws(tiny, run_training):
    run = run_training(tiny(), "run")
    assert open_run(run.directory).config.conditioning == "labels"
    model = load_generator(run.directory)
    assert model.conditioning.has_labels and model.spec.num_classes == 10
    images, labels = sample(model, seed=0, count=12, labels=list(range(10)))
    assert labels.tolist() == [*range(10), 0, 1] and images.shape == (12, 1, 28, 28)


def test_labels_are_divided_where_there_are_images_enough(tmp_path, run_training, gansmith):
    few = {"g_width": 8, "d_width": 8, "latent_dim": 8, "images": 128, "trackers": "none", "threads": 1}
    config, data = prepare(resolve("default", arguments={**few, "clusters_per_class": 5}))
    assert config.clusters_per_class == 5 and data.codes.shape[0] == len(data.frequencies) == 50
    assert torch.equal(data.ids // 5, data.train.labels)
    torch.testing.assert_close(data.frequencies.view(10, 5).sum(1), data.train.class_frequencies)
    assert prepare(resolve("default", arguments={**few, "limit_images": 200}))[0].clusters_per_class == 1
    run = run_training(config, "run")
    model = load_generator(run.directory)
    images, labels = sample(model, seed=0, count=200)
    assert len(model.conditioning.frequencies) == 50 and set(labels.tolist()) == set(range(10))
    assert sample(model, seed=0, count=12, labels=[3, 8])[1].tolist() == [3, 8] * 6
    assert classes_by_styles(model, seed=0, styles=2).shape[0] == 20
    assert gansmith("export", run.directory, "--format", "onnx", "--out", "shipped")[0] == 0
    assert gansmith("sample", "shipped/generator.onnx", "--labels", "37", "--count", "4", "--out", "a.npz")[0] == 0
    assert gansmith("sample", run.directory, "--labels", "37", "--count", "4", "--out", "b.npz")[0] == 0
    ours, theirs = (np.load(tmp_path / name) for name in ("b.npz", "a.npz"))
    assert theirs["labels"].tolist() == ours["labels"].tolist() == [3, 7, 3, 7]
    assert np.abs(ours["images"].astype(int) - theirs["images"]).max() <= 1


def test_only_few_images_are_nudged(tiny, digit_dir, monkeypatch):
    config = tiny(augment="auto")
    assert prepare(config)[0].augment == "shifts"
    monkeypatch.setattr("gansmith.training.loop.FEW_IMAGES", 10)
    assert prepare(config)[0].augment == "none"
    assert prepare(config.replace(augment="shifts"))[0].augment == "shifts"


def test_without_labels_the_default_takes_clusters(tiny, tmp_path, digits):
    folder = write_set(tmp_path / "none", digits[0], None)
    config, data = prepare(tiny(data_dir=str(folder)))
    assert config.conditioning == "clusters"
    assert len(data.frequencies) == 4 and data.frequencies.sum().item() == pytest.approx(1)
    with pytest.raises(ValueError, match="has no labels"):
        prepare(tiny(data_dir=str(folder), conditioning="labels"))


def test_all_training_images_leave_nothing_to_score_on(tiny, run_training):
    run = run_training(tiny(use_all_training_images=True), "all")
    assert run.metrics == []
    assert len(prepare(tiny(use_all_training_images=True))[1].fit) == 400


def test_a_run_that_stops_improving_ends_early_and_stays_ended(tiny, run_training):
    still = {"g_lr": 0.0, "d_lr": 0.0, "evaluate_every": 32, "early_stopping": 2}
    whole = run_training(tiny(**still), "whole")
    assert [row["images_seen"] for row in whole.validation_scores()] == [32, 64, 96]  # the first is the best, as nothing learns
    assert whole.latest().name == "000000096" and whole.best().name == "000000032"
    assert whole.log[-1]["images_seen"] == 96 and whole.facts()["status"] == "finished"
    run_training(tiny(**still), "parts", stop_after=4)
    parts = run_training(tiny(**still), "parts")
    assert_same_run(whole, parts)
    again = run_training(tiny(**still), "whole")
    assert len(again.validation_scores()) == 3
    longer = run_training(tiny(**{**still, "early_stopping": 0}), "whole")
    assert longer.latest().name == "000000256"


@pytest.mark.parametrize(
    ("recipe", "images", "scores"),
    [
        ("default", 1_000, 1),
        ("default", 46_000, 1),
        ("default", 110_000, 2),
        ("default", 174_000, 3),
        ("default", 500_000, 9),
        ("mlp-small", 500_000, 2),
    ],
)
def test_longer_runs_get_more_scores(tiny, recipe, images, scores):
    assert _scores(tiny(recipe), images) == scores


def test_a_loss_that_is_no_number_stops_with_the_checkpoint_intact(tiny, run_training, monkeypatch):
    config, data = prepare(tiny("mlp-small"))
    run = create_run(run_training(config, "good").directory.parent / "bad", config)
    import gansmith.training.loop as module

    real_step = module.UPDATES["alternating"]

    def poisoned(networks, batch, rules, penalties):
        poisoned.steps += 1
        if poisoned.steps == 10:
            batch.real.fill_(float("nan"))
        return real_step(networks, batch, rules, penalties)

    poisoned.steps = 0
    monkeypatch.setitem(module.UPDATES, "alternating", poisoned)
    with pytest.raises(TrainingFailed, match="d_loss is no longer a number after 144 images"):
        for _ in train(run, data):
            pass
    assert run.latest().name == "000000128"


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ({"network": "dcgan"}, "normalises over the batch"),
        ({"objective": "least-squares", "update": "joint"}, "cannot serve both networks"),
        ({"network": "compcat"}, "did you mean 'compact'"),
        ({"objective": "hinges"}, "no objective"),
        ({"network": "dcgan", "update": "alternating"}, "gradient penalty"),
        ({"data": "minst"}, "did you mean 'mnist'"),
        ({"r1_gamma": 0.0, "r2_gamma": 0.0, "d_loss_target": 1.0}, "no penalty to steer"),
    ],
)
def test_impossible_choices_are_refused_before_anything_is_written(tiny, flags, words):
    with pytest.raises(ValueError, match=words):
        prepare(tiny(**flags))


def test_dropout_leaves_the_global_random_state_alone(tiny, run_training):
    torch.manual_seed(11)
    expected = torch.rand(3)
    torch.manual_seed(11)
    run_training(tiny("dcgan-sgd"), "run")
    torch.testing.assert_close(torch.rand(3), expected, rtol=0, atol=0)


def test_minutes_become_a_whole_number_of_images(tiny):
    config, data = prepare(tiny("mlp-small"))
    short, long = (images_for_minutes(config, data, seconds) for seconds in (5.0, 50.0))
    assert isinstance(short.images, int) and short.images >= config.batch_size
    assert long.images > short.images
    assert long == config.replace(images=long.images)


@pytest.mark.parametrize(
    ("asked", "all_cores", "half", "chosen"),
    [
        (0, (0.02, 0.5), (0.01, 1.0), 1),  # seconds an image takes, and the share of their time that threads get
        (0, (0.02, 0.5), (0.03, 1.0), 0),
        (0, (0.02, 0.96), (0.01, 1.0), 0),
        (2, (0.02, 0.5), (0.01, 1.0), 2),
    ],
)
def test_threads_that_others_hold_up_are_halved_where_that_is_faster(tiny, monkeypatch, asked, all_cores, half, chosen):
    config, data = prepare(tiny("mlp-small"))
    at_hand = torch.get_num_threads()
    monkeypatch.setattr(training, "_image_s", lambda *_: {2: all_cores, 1: half}[torch.get_num_threads()])
    try:
        torch.set_num_threads(2)
        fitted = images_for_minutes(config.replace(threads=asked), data, 5.0)
    finally:
        torch.set_num_threads(at_hand)
    assert fitted.threads == chosen
    image_s = half[0] if chosen == 1 else all_cores[0]
    assert config.batch_size <= fitted.images <= 5.0 / image_s


def test_a_length_set_anew_half_way_is_recorded_and_replayed(tiny, run_training):
    config = tiny("mlp-small", d_loss_target=0.0, lr_decay_from=0.25)
    timed = run_training(config, "timed", seconds=LAST_PICTURES_S + 0.5)
    assert timed.config.planned_images == 256 and timed.config.images >= 160
    assert timed.facts()["status"] == "finished"
    assert int(timed.latest().name) == pytest.approx(timed.config.images, abs=config.batch_size)
    assert_same_run(timed, run_training(timed.config, "replayed"))


@pytest.mark.parametrize("growth", ["linear", "cosine"])
@pytest.mark.parametrize("stop_after", [None, 3, 8, 9])  # before, at and after the middle, which is 8 of 10 steps on
def test_a_late_run_is_cut_short_but_not_off(tiny, run_training, stop_after, growth):
    config = tiny("mlp-small", lr_decay_from=0.25, ema=0.1, ema_growth=growth, burn_in=1.0)
    late = run_training(config, "late", seconds=1e-6)
    assert (late.config.images, late.config.planned_images) == (160, 256)  # a quarter of what it had seen is left
    replayed = run_training(config.replace(images=160, planned_images=256), "replayed", stop_after=stop_after)
    assert_same_run(late, run_training(replayed.config, "replayed"))


def test_a_schedule_of_its_own_length_is_left_alone(tiny, run_training):
    run = run_training(tiny("mlp-small", schedule_images=64), "run", seconds=1e-6)
    assert (run.config.images, run.config.schedule_images, run.config.planned_images) == (256, 64, 0)
    assert run.latest().name == "000000256"


def test_a_run_killed_after_its_length_was_set_anew_keeps_that_length(tiny, run_training):
    config = tiny("mlp-small", lr_decay_from=0.25, save_every=96)
    whole = run_training(config, "whole", seconds=1e-6)
    parts = run_training(config, "parts", seconds=1e-6, stop_after=9)  # at 144 images, the middle was at 128
    assert parts.latest().name == "000000144"
    shutil.rmtree(parts.latest())  # the newest left is of before the middle
    for length in (config, whole.config):  # the command's length, and that of config.toml
        copy = shutil.copytree(parts.directory, parts.directory.with_name(f"copy-{length.images}"))
        again = run_training(length.replace(images=160, planned_images=length.planned_images), copy.name)
        assert_same_run(whole, again)


def test_the_first_rate_of_a_process_counts_its_own_images_alone():
    clock = training._Clock(10**9)
    time.sleep(0.02)
    row = clock.lap(10**9 + 64)
    assert 0 < row["images_per_s"] <= 64 / 0.02


def test_images_that_are_all_the_same_are_refused(tiny, tmp_path):
    write_set(tmp_path, np.full((60, 28, 28), 7, np.uint8), np.arange(60) % 3)
    with pytest.raises(ValueError, match="are the same, so there is nothing to learn"):
        prepare(tiny("mlp-small", data_dir=str(tmp_path)))


def test_a_run_that_fails_before_its_first_checkpoint_says_so(tiny, run_training, tmp_path):
    with pytest.raises(TrainingFailed, match="no checkpoint was saved before"):
        run_training(tiny("mlp-small", g_lr=1e17, d_lr=1e17))
    config, data = prepare(tiny("mlp-small"))
    run = create_run(tmp_path / "full", config)
    (run.directory / "real.png").mkdir()  # cannot be replaced by a file
    with pytest.raises(TrainingFailed, match="no checkpoint was saved before"):
        list(train(run, data))
    assert run.facts()["status"] == "failed"


def test_a_short_run_does_not_keep_the_long_intervals_of_its_recipe(tiny, run_training):
    config = tiny("mlp-small", log_every=RECIPES["mlp-small"]["log_every"], images=3200)
    asked = config.replace(log_every=25_601)
    own, other = (
        [row for row in run_training(c, name).log if "d_loss" in row]
        for c, name in ((config, "own"), (asked, "asked"))
    )
    assert len(own) == 200 and len(other) == 1  # what is asked for stays


def test_the_directory_tells_the_whole_story(tiny, run_training):
    run = run_training(tiny(), "run")
    names = sorted(path.name for path in run.directory.iterdir())
    assert names == [
        ".lock", "best", "checkpoints", "config.toml", "log.jsonl", "metrics.jsonl", "real.png", "run.json", "samples",
    ]  # fmt: skip
    row = run.log[0]
    signs = {"diversity_within", "diversity_across", "copy_distance", "g_grad_norm", "d_grad_norm"}
    named = {"images_seen", "d_loss", "g_loss", "d_real", "d_fake", "penalty_boost", *signs, *TIMINGS}
    assert set(row) - {"d_overfit"} == named  # there where D tells generated images apart
    score = run.metrics[-1]
    assert score["ratio"] == pytest.approx(score["frechet"] / score["floor"])
    counters = json.loads((run.latest() / "state.json").read_text())
    assert counters["log_lines"] == len(run.log)
    assert counters["best"] == {
        "images_seen": int(run.best().name),
        "ratio": min(row["ratio"] for row in run.metrics),
        "scores_since": sum(row["images_seen"] > int(run.best().name) for row in run.metrics),
    }
