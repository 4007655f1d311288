"""A run's state: how it starts or resumes, its means and its clock, its tensors in a checkpoint."""

import math
import time
from dataclasses import replace

import pytest
import torch
from conftest import train_all

from gansmith.checkpoints import load_checkpoint
from gansmith.errors import DataError, RunError
from gansmith.metrics.validation import ValidationScorer
from gansmith.runs import RunDirectory, create_run
from gansmith.training import chores
from gansmith.training import state as training_state
from gansmith.training.inputs import load_training_data
from gansmith.training.loop import advance
from gansmith.training.state import (
    Clock,
    RunningMeans,
    from_tensors,
    norm_growth,
    start,
    start_networks,
    to_tensors,
    weight_norms,
)
from gansmith.training.step import NonFiniteError


@pytest.fixture
def begin(tiny, tmp_path):
    """A new run's state, of a recipe and changes."""

    def make(recipe="mlp-small", **changes):
        config, data = load_training_data(tiny(recipe, **changes))
        return start(create_run(tmp_path / "run", config), data)

    return make


def test_means_are_of_the_steps_that_reported_a_number():
    means = RunningMeans()
    for numbers in ({"d_loss": 1.0, "g_loss": 4.0}, {"d_loss": 2.0}, {"d_loss": 6.0}):
        means.add(numbers)
    assert means.take() == {"d_loss": 3.0, "g_loss": 4.0}
    assert means.take() == {} and means.totals == means.counts == {}


def test_the_first_rate_of_a_process_counts_its_own_images_alone(monkeypatch):
    now = 100.0
    monkeypatch.setattr(time, "perf_counter", lambda: now)
    clock = Clock(10**9)
    now = 100.5
    assert clock.lap(10**9 + 64) == {"images_per_s": pytest.approx(128.0), "elapsed_s": 0.5}
    now = 101.5
    assert clock.lap(10**9 + 96) == {"images_per_s": pytest.approx(32.0), "elapsed_s": 1.5}


def test_images_until_a_deadline_follow_the_rate_so_far(monkeypatch):
    now = 100.0
    monkeypatch.setattr(time, "perf_counter", lambda: now)
    clock = Clock(1000)
    now = 110.0
    assert clock.images_until(130.0, 1500) == 1000  # 50 images a second for 20 seconds
    assert clock.images_until(105.0, 1500) == -250


def test_a_new_run_starts_at_nothing(begin):
    state = begin()
    assert (state.images_seen, state.best, state.rows, state.scores, state.rollbacks) == (0, None, [], [], [])
    assert not state.is_finished and not state.just_resumed and state.safety_save is None
    assert norm_growth(state) == 1.0


def test_a_resumed_run_starts_where_its_checkpoint_was_saved(tiny, tmp_path):
    config, data = load_training_data(tiny("mlp-small"))
    run = create_run(tmp_path / "run", config)
    train_all(run, data, until=160)
    state = start(run, data)
    assert state.images_seen == state.saved_images == 128 and state.just_resumed and not state.is_finished
    assert [row["images_seen"] for row in state.rows] == [32, 64, 96, 128]
    (score,) = state.scores
    assert state.best == {"images_seen": 128, "validation_fd_ratio": score["validation_fd_ratio"], "scores_since": 0}


def test_a_state_is_finished_at_its_length_or_where_early_stopping_ends_it(begin):
    state = begin(early_stopping=2)
    state.best = {"images_seen": 32, "validation_fd_ratio": 2.0, "scores_since": 1}
    assert not state.is_stalled and not state.is_finished
    state.best["scores_since"] = 2
    assert state.is_stalled and state.is_finished
    state.best = None
    state.images_seen = state.config.images - 1
    assert not state.is_finished
    state.images_seen += 1
    assert state.is_finished and not state.is_stalled


def test_the_averaged_generator_is_made_once_for_each_step(begin):
    state = begin(ema=0.1)
    first = state.averaged()
    assert state.averaged() is first and not first.network.training
    state.images_seen += 16
    assert state.averaged() is not first


def test_weights_that_are_not_finite_are_not_sampled(begin):
    state = begin()
    next(state.networks.G.parameters()).data[0] = float("inf")
    with pytest.raises(NonFiniteError, match="a weight of the generator"):
        state.averaged()


@pytest.mark.parametrize("optimizer", ["adam", "soap"])
def test_going_back_to_the_start_trains_the_same_again(begin, optimizer):
    state = begin("default", g_optimizer=optimizer, d_optimizer=optimizer)
    state.techniques = replace(state.techniques, reads=False)
    state.hold()

    def train():
        for _ in range(12):  # SOAP finds new bases after ten steps
            advance(state)
        return {name: value.clone() for name, value in state._live().items()}

    first = train()
    assert state.go_back() and state.images_seen == 0
    again = train()
    assert again.keys() == first.keys()
    assert not [name for name, value in first.items() if not torch.equal(value, again[name])]


@pytest.mark.parametrize(
    ("recipe", "changes"),
    [
        ("default", {"replay": 0.5}),
        ("mlp-small", {"d_optimizer": "sgd", "momentum": 0.9, "g_optimizer": "rmsprop", "augment": "adaptive"}),
        ("default", {"d_optimizer": "soap", "g_optimizer": "soap"}),
    ],
)
def test_tensors_come_back_bit_for_bit(tiny, tmp_path, recipe, changes):
    config, data = load_training_data(tiny(recipe, **changes))
    run = create_run(tmp_path / "run", config)
    train_all(run, data)
    generator, saved, _ = load_checkpoint(run.latest())
    networks = start_networks(config, data.spec, data.conditioning.codes)
    from_tensors(networks, generator, saved)
    again = to_tensors(networks, config)
    assert again.keys() == saved.keys()
    for name, value in again.items():
        torch.testing.assert_close(value, saved[name], rtol=0, atol=0)


def test_a_checkpoint_of_other_networks_does_not_fit(begin, tiny, tmp_path):
    state = begin()
    chores.log(state)
    chores.save(state)
    config = state.config.replace(d_width=9)
    with pytest.raises(RunError, match="does not fit the run's config .*; use the version .*, or remove"):
        start(RunDirectory(state.run.directory, config), state.data)


@pytest.mark.parametrize("optimizer", ["adam", "soap"])
def test_a_pair_whose_d_is_much_larger_than_g_goes_on(begin, monkeypatch, optimizer):
    monkeypatch.setattr(training_state, "SPARE_BYTES", 2**17)  # small networks have large headers and bases
    state = begin("default", g_width=2, d_width=64, d_optimizer=optimizer)
    advance(state)
    chores.log(state)
    chores.save(state)
    path = state.run.latest() / "state.safetensors"
    networks = (*state.networks.G.parameters(), *state.networks.D.parameters())
    assert path.stat().st_size > 2.8 * sum(parameter.nbytes for parameter in networks)
    assert start(state.run, state.data).images_seen == state.images_seen
    with path.open("ab") as file:
        file.write(bytes(path.stat().st_size * 4))
    with pytest.raises(DataError, match="more than the .* restore it, or remove"):
        load_checkpoint(path.parent, max_bytes=path.stat().st_size // 2)


def test_a_slot_of_an_optimiser_with_another_shape_is_refused(begin):
    state = begin()
    slots = {"g_optimizer.0.exp_avg": torch.zeros(3, 3), "g_optimizer.0.step": torch.tensor(1.0)}
    tensors = to_tensors(state.networks, state.config) | slots
    with pytest.raises(ValueError, match=r"g_optimizer.0.exp_avg is \(3, 3\), not"):
        from_tensors(state.networks, state.networks.G_ema.state_dict(), tensors)


def test_norms_are_of_weights_without_biases_and_scales(begin):
    state = begin()
    G = state.networks.G
    expected = torch.cat([p.detach().flatten() for p in G.parameters() if p.dim() > 1]).norm().item()
    assert weight_norms(state.networks)[0] == pytest.approx(expected, rel=1e-5)
    with torch.no_grad():
        for parameter in G.parameters():
            parameter *= 2
    assert norm_growth(state) == pytest.approx(2.0, rel=1e-5)


@pytest.mark.parametrize(("images", "seconds"), [(299_999, 0.0), (300_000, math.inf)])
def test_an_evaluator_is_trained_for_long_runs_alone(images, seconds, begin, monkeypatch):
    asked = []
    monkeypatch.setattr(ValidationScorer, "prepare", lambda self, seconds, **choices: asked.append(seconds))
    monkeypatch.setattr(ValidationScorer, "move_to", lambda self, device: None)
    begin(images=images)
    assert asked == [seconds]
