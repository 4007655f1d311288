"""The loop: the same run every time, interrupted or not; lengths, failures, rollbacks."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import assert_same_run, log_without_times, train_all, write_set

from gansmith.checkpoints import load_checkpoint, load_counters
from gansmith.config import resolve
from gansmith.errors import DataError, TrainingFailed
from gansmith.events import FailureDetected, LengthChanged, RolledBack
from gansmith.models import load_generator
from gansmith.pictures.plots import classes_by_styles
from gansmith.recipes import RECIPES
from gansmith.runs import create_run, open_run, write_config
from gansmith.sampling import draw_inputs, generate, sample
from gansmith.training import chores, loop
from gansmith.training.batches import Batches
from gansmith.training.diagnosis import Failure, to_failure
from gansmith.training.inputs import load_training_data
from gansmith.training.loop import LAST_PICTURES_S, MAX_ROLLBACKS, ROLLBACK_FACTOR, train_events
from gansmith.training.optimizers import set_learning_rates
from gansmith.training.state import start
from gansmith.training.step import NonFiniteError

# Seconds each, and their steps are made of what the others have.
LONG = (
    "stacked",
    "gaussians",
    "default-unlabelled",
    "mlp-keras",
    "dcgan-keras",
    "cgan-keras",
    "dcgan-sgd",
    "progressive",
    "lsgan-cs231n",
    "dcgan-cs231n",
    "wgan-gp",
    "sngan",
    "acgan",
    "stylegan-lite",
    "r3gan",
)


@pytest.mark.parametrize(
    "recipe", [pytest.param(name, marks=pytest.mark.slow if name in LONG else ()) for name in RECIPES]
)
def test_resume_continues_the_same_run(recipe, tiny, run_training):
    config = tiny(recipe, calibrate_output=resolve(recipe).calibrate_output)
    whole = run_training(config, "whole")
    run_training(config, "parts", stop_after=3)  # stops between two of its intervals
    parts = run_training(config, "parts")
    assert_same_run(whole, parts)
    assert [row["images_seen"] for row in whole.log] == list(range(32, 257, 32))
    assert len(whole.checkpoints()) == 4


@pytest.mark.slow
def test_resume_restores_the_probability_of_adaptive_augmentation(tiny, run_training):
    config = tiny(augment="adaptive")
    whole = run_training(config, "whole")
    run_training(config, "parts", stop_after=5)
    assert_same_run(whole, run_training(config, "parts"))
    probability = load_checkpoint(whole.latest())[1]["buffers.augment_probability"].item()
    assert 0 < probability <= 256 / 500_000
    assert all(0 <= row["augment_probability"] <= probability for row in whole.log)


# As many techniques at once as go together, in two sets.
CROWDS = {
    "replay and noise": {
        "replay": 0.5, "replay_size": 40, "instance_noise": 0.2, "g_dropout": 0.2, "d_dropout": 0.2, "d_steps": 2,
        "g_steps": 2, "g_optimizer": "adamw", "d_optimizer": "rmsprop", "weight_decay": 0.01, "lr_decay": "step",
        "lr_decay_from": 0.3, "label_flipping": 0.1, "label_smoothing": 0.2, "random_labels": True,
        "latent_distribution": "sphere", "clip_grad_norm": 1.0, "ema": 0.1,
    },
    "classes and penalties": {
        "objective": "hinge", "spectral_norm": True, "gradient_penalty": 1.0, "dragan": 1.0, "feature_matching": 0.5,
        "minibatch_stddev": 4, "conditioning": "labels", "d_conditioning": "classifier", "d_optimizer": "sgd",
        "momentum": 0.5, "lr_decay": "cosine", "lr_decay_from": 0.2, "weight_init": "orthogonal",
        "g_activation": "silu",
    },
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("crowd", CROWDS)
def test_a_run_with_many_techniques_continues_as_well(crowd, tiny, run_training):
    whole = run_training(tiny("mlp-small", **CROWDS[crowd]), "whole")
    for stop_after in (3, 6):
        run_training(tiny("mlp-small", **CROWDS[crowd]), "parts", stop_after=stop_after)
    parts = run_training(tiny("mlp-small", **CROWDS[crowd]), "parts")
    assert_same_run(whole, parts)
    assert all(np.isfinite(row["g_loss"]) for row in whole.log)


@pytest.mark.slow
def test_soap_goes_on_with_its_bases(tiny, run_training):
    config = tiny(g_optimizer="soap", d_optimizer="soap", images=400, beta1=0.3)
    whole = run_training(config, "whole")
    for stop_after in (4, 9):
        run_training(config, "parts", stop_after=stop_after)
    assert_same_run(whole, run_training(config, "parts"))


@pytest.mark.slow
def test_gradient_norms_of_a_step_before_the_interruption_are_logged(tiny, run_training):
    config = tiny("mlp-small", d_steps=3, save_every=16)  # between steps of G, which log lines are too
    whole = run_training(config, "whole")
    run_training(config, "parts", stop_after=7)
    assert_same_run(whole, run_training(config, "parts"))
    assert all(row["g_grad_norm"] > 0 for row in whole.log if row["images_seen"] >= 3 * config.batch_size)


@pytest.mark.slow
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
    train_all(killed, load_training_data(whole.config)[1], until=160)
    assert killed.latest().name == "000000128" and killed.log[-1]["images_seen"] == 160
    train_all(killed, load_training_data(whole.config)[1])
    assert_same_run(whole, killed)


def test_a_run_killed_before_its_first_checkpoint_starts_again(tiny, run_training):
    whole = run_training(tiny(), "whole")
    killed = create_run(whole.directory.parent / "killed", whole.config)
    train_all(killed, load_training_data(whole.config)[1], until=1)
    assert killed.latest() is None and killed.log
    train_all(killed, load_training_data(whole.config)[1])
    assert_same_run(whole, killed)


@pytest.mark.slow
def test_an_adapted_penalty_factor_survives_an_interruption(tiny, run_training):
    config = tiny(d_loss_target=1.0)
    whole = run_training(config, "whole")
    factors = [row["penalty_factor"] for row in whole.log]
    assert len(set(factors)) == len(factors)
    run_training(config, "parts", stop_after=3)
    assert_same_run(whole, run_training(config, "parts"))


@pytest.mark.slow
def test_another_seed_is_another_run(tiny, run_training):
    a, b = (run_training(tiny(seed=seed), f"seed{seed}") for seed in (0, 1))
    assert log_without_times(a) != log_without_times(b)


@pytest.mark.slow
def test_a_finished_run_is_extended_with_lower_rates_that_fall_again(tiny, run_training, monkeypatch):
    rates = []

    def watched(networks, config, progress, **factors):
        set_learning_rates(networks, config, progress, **factors)
        rates.append(networks.g_optimizer.param_groups[0]["lr"] / config.g_lr)

    monkeypatch.setattr(loop, "set_learning_rates", watched)
    decaying = {"lr_decay": "linear", "lr_decay_from": 0.0, "batch_size": 32}
    run_training(tiny(**decaying, images=128), "decaying")
    run_training(tiny(**decaying, images=256), "decaying")
    assert rates == pytest.approx([1, 0.75, 0.5, 0.25, 0.4, 0.3, 0.25, 0.25])  # never below the last


@pytest.mark.slow
def test_a_finished_run_is_extended(tiny, run_training):
    run = run_training(tiny(), "run")
    longer = run_training(tiny(images=320), "run")
    assert longer.config.schedule_images == run.config.images
    steps = [row for row in longer.log if "d_loss" in row]
    assert [row["images_seen"] for row in steps] == list(range(32, 321, 32))
    assert longer.latest().name == "000000320"
    assert all(np.isfinite(row["d_loss"]) for row in steps)


@pytest.mark.slow
def test_the_unlabelled_recipe_never_reads_a_label(tiny, run_training, tmp_path, digits):
    with_labels = run_training(tiny("default-unlabelled"), "labels")
    missing = write_set(tmp_path / "missing-data", digits[0], None)
    without = run_training(tiny("default-unlabelled", data_dir=str(missing)), "missing")
    weights = [load_checkpoint(run.latest())[:2] for run in (with_labels, without)]
    torch.testing.assert_close(weights[1], weights[0], rtol=0, atol=0)


@pytest.mark.slow
def test_labels_change_what_the_default_learns_and_generates(tiny, run_training):
    run = run_training(tiny(), "run")
    assert open_run(run.directory).config.conditioning == "labels"
    model = load_generator(run.directory)
    assert model.conditioning.has_labels and model.spec.num_classes == 10
    images, labels = sample(model, seed=0, count=12, labels=list(range(10)))
    assert labels.tolist() == [*range(10), 0, 1] and images.shape == (12, 1, 28, 28)
    z, ids = draw_inputs(model, seed=0, count=2, labels=[0, 1])
    one, other = generate(model, z[:1].expand(2, -1), ids)
    assert not torch.equal(one, other)


@pytest.mark.slow
def test_a_run_with_subclusters_is_sampled_and_exported_by_labels(tmp_path, run_training, subclustered, gansmith):
    run = run_training(subclustered, "run")
    model = load_generator(run.directory)
    images, labels = sample(model, seed=0, count=200)
    assert len(model.conditioning.frequencies) == 50 and set(labels.tolist()) == set(range(10))
    assert sample(model, seed=0, count=12, labels=[3, 8])[1].tolist() == [3, 8] * 6
    assert classes_by_styles(model, seed=0, styles=2).shape[0] == 20
    assert gansmith("export", run.directory, "--format", "onnx", "--out", "exported")[0] == 0
    assert gansmith("sample", "exported/generator.onnx", "--labels", "37", "--count", "4", "--out", "a.npz")[0] == 0
    assert gansmith("sample", run.directory, "--labels", "37", "--count", "4", "--out", "b.npz")[0] == 0
    ours, theirs = (np.load(tmp_path / name) for name in ("b.npz", "a.npz"))
    assert theirs["labels"].tolist() == ours["labels"].tolist() == [3, 7, 3, 7]
    assert np.abs(ours["images"].astype(int) - theirs["images"]).max() <= 1


def test_all_training_images_leave_nothing_to_score_on(tiny, run_training):
    assert run_training(tiny(use_all_training_images=True), "all").metrics == []


@pytest.mark.slow
def test_a_run_that_stops_improving_ends_early_and_stays_ended(tiny, run_training):
    still = {"g_lr": 0.0, "d_lr": 0.0, "evaluate_every": 32, "early_stopping": 2}
    whole = run_training(tiny(**still), "whole")
    # The first is the best, as nothing is learned.
    assert [row["images_seen"] for row in whole.validation_scores()] == [32, 64, 96]
    assert whole.latest().name == "000000096" and whole.best().name == "000000032"
    assert whole.log[-1]["images_seen"] == 96 and whole.facts()["status"] == "finished"
    run_training(tiny(**still), "parts", stop_after=4)
    parts = run_training(tiny(**still), "parts")
    assert_same_run(whole, parts)
    again = run_training(tiny(**still), "whole")
    assert len(again.validation_scores()) == 3
    longer = run_training(tiny(**{**still, "early_stopping": 0}), "whole")
    assert longer.latest().name == "000000256"


def test_dropout_leaves_the_global_random_state_alone(tiny, run_training):
    torch.manual_seed(11)
    expected = torch.rand(3)
    torch.manual_seed(11)
    run_training(tiny("dcgan-sgd"), "run")
    torch.testing.assert_close(torch.rand(3), expected, rtol=0, atol=0)


# --minutes: the length is corrected half-way.


def test_a_length_corrected_half_way_is_recorded_and_replayed(tiny, run_training):
    config = tiny("mlp-small", d_loss_target=0.0, lr_decay_from=0.25)
    timed = run_training(config, "timed", seconds=LAST_PICTURES_S + 0.5)
    assert timed.config.planned_images == 256 and timed.config.images >= 160
    assert timed.facts()["status"] == "finished"
    assert int(timed.latest().name) == pytest.approx(timed.config.images, abs=config.batch_size)
    assert_same_run(timed, run_training(timed.config, "replayed"))


@pytest.mark.parametrize("growth", ["linear", pytest.param("cosine", marks=pytest.mark.slow)])
@pytest.mark.parametrize("stop_after", [None, 3, 8, 9])  # before, at and after the middle, which is 8 of 10 steps on
def test_a_late_run_is_shortened_and_keeps_its_schedule(tiny, run_training, stop_after, growth):
    burn_in = {"burn_in": 1.0} if growth == "cosine" else {}
    config = tiny("mlp-small", lr_decay_from=0.25, ema=0.1, ema_growth=growth, **burn_in)
    late = run_training(config, "late", seconds=1e-6)
    assert (late.config.images, late.config.planned_images) == (160, 256)  # a quarter of what it had seen is left
    replayed = run_training(config.replace(images=160, planned_images=256), "replayed", stop_after=stop_after)
    assert_same_run(late, run_training(replayed.config, "replayed"))


def test_a_corrected_length_is_an_event(tiny, tmp_path):
    config, data = load_training_data(tiny("mlp-small"))
    events = list(train_events(create_run(tmp_path / "run", config), data, deadline=1e-6))
    assert [event for event in events if event.kind == "length"] == [LengthChanged(128, 160)]


def test_a_schedule_with_its_own_length_is_not_corrected(tiny, run_training):
    run = run_training(tiny("mlp-small", schedule_images=64), "run", seconds=1e-6)
    assert (run.config.images, run.config.schedule_images, run.config.planned_images) == (256, 64, 0)
    assert run.latest().name == "000000256"


@pytest.mark.slow
def test_a_run_killed_after_its_length_was_corrected_keeps_that_length(tiny, run_training):
    config = tiny("mlp-small", lr_decay_from=0.25, save_every=96)
    whole = run_training(config, "whole", seconds=1e-6)
    parts = run_training(config, "parts", seconds=1e-6, stop_after=9)  # at 144 images, the middle was at 128
    assert parts.latest().name == "000000144"
    shutil.rmtree(parts.latest())  # the newest left is of before the middle
    for length in (config, whole.config):  # the command's length, and that of config.toml
        copy = shutil.copytree(parts.directory, parts.directory.with_name(f"copy-{length.images}"))
        again = run_training(length.replace(images=160, planned_images=length.planned_images), copy.name)
        assert_same_run(whole, again)


def test_a_run_killed_after_its_corrected_length_was_extended_keeps_its_schedule(tiny, run_training):
    config = tiny("mlp-small", lr_decay_from=0.25, save_every=96)
    parts = run_training(config, "parts", seconds=1e-6, stop_after=9)
    shutil.rmtree(parts.latest())  # the newest left is of before the middle
    corrected = open_run(parts.directory).config
    assert (corrected.images, corrected.planned_images) == (160, 256)
    extended = create_run(parts.directory, corrected.replace(images=320, schedule_images=corrected.schedule_length))
    assert (extended.config.images, extended.config.schedule_length) == (320, 160)
    write_config(parts.directory, extended.config)  # and is killed before it saves
    for again in (extended.config, corrected.replace(images=320)):
        found = create_run(parts.directory, again).config
        assert (found.images, found.schedule_length, found.planned_images) == (320, 160, 256)


# Training failures.


def fail_at(monkeypatch, images, *, while_lr_above=0.0):
    """Make the loss of the step after so many images NaN."""
    real_step = loop.take_step

    def step(networks, techniques, batches, images_seen, progress):
        if images_seen == images and networks.g_optimizer.param_groups[0]["lr"] > while_lr_above:
            raise NonFiniteError("d_loss")
        return real_step(networks, techniques, batches, images_seen, progress)

    monkeypatch.setattr(loop, "take_step", step)


def test_a_real_batch_of_nans_stops_with_the_checkpoint_intact(tiny, tmp_path, monkeypatch):
    config, data = load_training_data(tiny("mlp-small"))
    run = create_run(tmp_path / "run", config)
    real_batch = Batches.at

    def poisoned(batches, images_seen, progress=0.0):
        batch = real_batch(batches, images_seen, progress)
        if images_seen == 144:
            batch.real.fill_(float("nan"))
        return batch

    monkeypatch.setattr(Batches, "at", poisoned)
    with pytest.raises(TrainingFailed, match="d_loss became NaN or infinite after 144 images") as raised:
        train_all(run, data)
    assert raised.value.failure == "not-finite"
    assert run.latest().name == "000000128"


def test_a_loss_that_is_not_finite_is_named_and_logged(tiny, tmp_path, monkeypatch):
    config, data = load_training_data(tiny("mlp-small"))
    run = create_run(tmp_path / "run", config)
    fail_at(monkeypatch, 144)
    seen = []
    with pytest.raises(TrainingFailed, match="not-finite: d_loss became NaN or infinite after 144 images; likely"):
        for event in train_events(run, data):
            seen.append(event)
    failure = to_failure("not-finite", 144, "d_loss became NaN or infinite", config)
    assert run.log[-1] == failure.as_row()
    assert seen[-1] == FailureDetected(144, "not-finite", failure.message)
    assert run.facts()["status"] == "failed" and run.latest().name == "000000128"


def test_weights_that_are_not_finite_are_never_saved(tiny, tmp_path, monkeypatch):
    config, data = load_training_data(tiny("mlp-small"))
    run = create_run(tmp_path / "run", config)
    real_step = loop.take_step

    def step(networks, techniques, batches, images_seen, progress):
        numbers = real_step(networks, techniques, batches, images_seen, progress)
        if images_seen == 176:
            next(networks.D.parameters()).data[0] = float("nan")
        return numbers

    monkeypatch.setattr(loop, "take_step", step)
    with pytest.raises(TrainingFailed, match="a weight became NaN or infinite after 192 images"):
        train_all(run, data)
    assert run.latest().name == "000000128"


def test_a_run_that_fails_before_its_first_checkpoint_says_so(tiny, run_training, tmp_path):
    with pytest.raises(TrainingFailed, match="no checkpoint was saved before"):
        run_training(tiny("mlp-small", g_lr=1e17, d_lr=1e17))
    config, data = load_training_data(tiny("mlp-small"))
    run = create_run(tmp_path / "full", config)
    (run.directory / "real.png").mkdir()  # cannot be replaced by a file
    with pytest.raises(TrainingFailed, match="no checkpoint was saved before"):
        train_all(run, data)
    assert run.facts()["status"] == "failed"


def test_a_rollback_lowers_the_learning_rates_and_goes_on(tiny, tmp_path, monkeypatch):
    config, data = load_training_data(tiny("mlp-small", on_failure="rollback"))
    run = create_run(tmp_path / "run", config)
    fail_at(monkeypatch, 160, while_lr_above=0.6 * config.g_lr)
    events = list(train_events(run, data))
    assert run.facts()["status"] == "finished" and run.latest().name == "000000256"
    assert len(run.facts()["starts"]) == 1
    (step,) = run.facts()["rollbacks"]
    assert (step["from"], step["to"], step["failure"]) == (160, 128, "not-finite")
    (row,) = [row for row in run.log if row.get("kind") == "rollback"]
    assert row["message"].startswith("not-finite: d_loss")
    assert [row["images_seen"] for row in run.log if "d_loss" in row] == list(range(32, 257, 32))
    (event,) = [event for event in events if isinstance(event, RolledBack)]
    assert event == RolledBack(160, 128, "not-finite", row["message"])


def test_each_rollback_halves_the_learning_rates_again(tiny, tmp_path, monkeypatch):
    config, data = load_training_data(tiny("mlp-small", on_failure="rollback"))
    rates = []
    real_step = loop.take_step

    def step(networks, techniques, batches, images_seen, progress):
        if images_seen == 160:
            rates.append(networks.d_optimizer.param_groups[0]["lr"])
            raise NonFiniteError("d_loss")
        return real_step(networks, techniques, batches, images_seen, progress)

    monkeypatch.setattr(loop, "take_step", step)
    run = create_run(tmp_path / "run", config)
    with pytest.raises(TrainingFailed):
        train_all(run, data)
    assert rates == [pytest.approx(config.d_lr * ROLLBACK_FACTOR**k) for k in range(MAX_ROLLBACKS + 1)]
    assert len(run.facts()["rollbacks"]) == MAX_ROLLBACKS == 3
    assert run.latest() is not None


def test_a_rollback_that_goes_back_further_keeps_the_row_of_the_one_before(tiny, tmp_path):
    """At 160 images nothing of the log may speak of 192, and the next resume adds nothing."""
    config, data = load_training_data(tiny("mlp-small", on_failure="rollback", save_every=32))
    run = create_run(tmp_path / "run", config)
    train_all(run, data)
    steps = [
        {"from": start, "to": to, "failure": "diverged", "message": f"from {start}"}
        for start, to in ((208, 192), (196, 160))
    ]
    run.record(rollbacks=steps)
    for _ in range(2):
        state = start(run, data)
        assert state.images_seen == 160 and state.rollbacks == steps
        rows = [row for row in run.log if row.get("kind") == "rollback"]
        assert [(row["from"], row["images_seen"]) for row in rows] == [(208, 160), (196, 160)]
        assert max(row["images_seen"] for row in run.log) == 160


def test_where_the_best_checkpoint_is_gone_the_next_score_is_the_best(tiny, tmp_path):
    config, data = load_training_data(tiny("mlp-small", save_every=32, evaluate_every=64))
    run = create_run(tmp_path / "run", config)
    train_all(run, data)
    for path in run.checkpoints():
        if int(path.name) > 160:
            shutil.rmtree(path)
    shutil.rmtree(run.checkpoint(load_counters(run.latest())["best"]["images_seen"]))
    state = start(run, data)
    assert state.best is None and run.best() is None and not (run.directory / "best.json").exists()


def test_a_safety_checkpoint_that_a_kill_left_is_removed(tiny, tmp_path, monkeypatch):
    config, data = load_training_data(tiny("mlp-small", save_every=128))
    run = create_run(tmp_path / "run", config)
    monkeypatch.setattr(chores, "SAFETY_S", 0.0)
    for event in train_events(run, data):
        if event.kind == "checkpoint" and Path(event.path).name == "000000112":
            shutil.copytree(event.path, tmp_path / "left")
    shutil.copytree(tmp_path / "left", run.directory / "checkpoints" / "000000112")
    start(run, data)
    assert [path.name for path in run.checkpoints()] == ["000000128", "000000256"]


def test_data_that_cannot_be_read_any_more_are_the_reason_of_a_failed_run(tiny, tmp_path, monkeypatch):
    config, data = load_training_data(tiny("mlp-small"))

    def unplugged(*words):
        raise DataError("big.npy has become shorter while it was read; restore it")

    run = create_run(tmp_path / "run", config)
    monkeypatch.setattr(loop, "take_step", unplugged)
    with pytest.raises(DataError):
        train_all(run, data)
    facts = run.facts()
    assert facts["status"] == "failed" and "restore it" in facts["reason"]


def test_a_stopped_run_that_is_to_be_no_longer_is_scored_and_drawn(tiny, tmp_path):
    config, data = load_training_data(tiny("mlp-small", evaluate_every=10_000, sample_every=10_000))
    run = create_run(tmp_path / "run", config)
    for _ in train_events(run, data, stop=lambda: bool(run.log) and run.log[-1]["images_seen"] >= 96):
        pass
    assert run.facts()["status"] == "stopped" and run.validation_scores() == []
    run = create_run(run.directory, config.replace(images=run.images_seen))
    kinds = [event.kind for event in train_events(run, data)]
    assert kinds == ["score", "sample", "checkpoint"] and run.facts()["status"] == "finished"
    assert run.best() == run.latest() and [row["images_seen"] for row in run.validation_scores()] == [run.images_seen]
    assert list(train_events(run, data)) == []


def test_a_safety_checkpoint_at_which_a_run_ends_is_kept(tiny, tmp_path, monkeypatch):
    config, data = load_training_data(tiny("mlp-small", evaluate_every=10_000, save_every=10_000))
    run = create_run(tmp_path / "run", config)
    monkeypatch.setattr(chores, "SAFETY_S", 0.0)
    events = train_events(run, data)
    while not any(path.name == "000000048" for path in run.checkpoints()):
        next(events)
    killed = tmp_path / "killed"
    shutil.copytree(run.directory, killed)  # as SIGKILL leaves it
    events.close()
    run = create_run(killed, config.replace(images=48))
    assert load_counters(run.latest())["for_safety"] and list(train_events(run, data))
    assert run.latest().name == "000000048" and run.best() == run.latest()


@pytest.mark.slow
def test_a_rollback_survives_kills(tiny, tmp_path, monkeypatch):
    config, data = load_training_data(tiny("mlp-small", on_failure="rollback", save_every=32))
    fail_at(monkeypatch, 208, while_lr_above=0.6 * config.g_lr)
    whole = create_run(tmp_path / "whole", config)
    train_all(whole, data)
    for stop_at in range(3, 40, 12):
        run = create_run(tmp_path / f"killed-{stop_at}", config)
        for _ in range(2):
            events = train_events(run, data)
            for count, _ in enumerate(events):
                if count == stop_at:
                    events.close()
        train_all(run, data)
        assert_same_run(whole, run)


def test_a_run_may_stop_at_a_failure_and_be_continued(tiny, tmp_path, monkeypatch, gansmith):
    config, data = load_training_data(tiny("mlp-small", on_failure="stop"))
    monkeypatch.setattr(
        chores,
        "diagnose",
        lambda rows, scores, config: (
            [Failure("memorisation", 96, "memorisation: ...")] if rows[-1]["images_seen"] >= 96 else []
        ),
    )
    run = create_run(tmp_path / "run", config)
    with pytest.raises(TrainingFailed, match="memorisation") as raised:
        train_all(run, data)
    assert raised.value.failure == "memorisation"
    assert run.latest().name == "000000096" and run.facts()["status"] == "failed"
    code, out, _ = gansmith("diagnose", run.directory)
    assert code == 0 and "stopped by itself" in out and "memorisation: ..." in out and "gansmith resume" in out
    train_all(run, data)  # reported once: it goes on
    assert run.facts()["status"] == "finished"
    assert [row["failure"] for row in run.log if row.get("kind") == "failure"] == ["memorisation"]


def test_a_run_shorter_than_a_batch_is_at_the_beginning_of_its_schedule(tiny, run_training, monkeypatch):
    seen = []
    monkeypatch.setattr(loop, "set_learning_rates", lambda networks, config, progress, **_: seen.append(progress))
    run_training(tiny("r3gan", images=10, batch_size=32, burn_in=0.0, instance_noise=0.1), "short")
    assert seen == [0.0]
