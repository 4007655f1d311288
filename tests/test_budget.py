"""How many images fit into minutes on this machine."""

import pytest
import torch

from gansmith.config import is_repeat
from gansmith.training import budget
from gansmith.training.budget import config_for_time
from gansmith.training.inputs import load_training_data
from gansmith.training.schedule import ramp
from gansmith.training.step import NonFiniteError


def test_minutes_become_a_whole_number_of_images(tiny):
    config, data = load_training_data(tiny("mlp-small"))
    short, long = (config_for_time(config, data, seconds) for seconds in (5.0, 50.0))
    assert isinstance(short.images, int) and short.images >= config.batch_size
    assert long.images > short.images
    assert long == config.replace(images=long.images)


def test_no_time_is_one_batch(tiny):
    config, data = load_training_data(tiny("mlp-small"))
    assert config_for_time(config, data, 0.001).images == config.batch_size


@pytest.mark.parametrize(
    ("asked", "all_cores", "half", "chosen"),
    [
        (0, (0.02, 0.5), (0.01, 1.0), 1),  # seconds an image takes, and the share of their time that threads get
        (0, (0.02, 0.5), (0.03, 1.0), 0),
        (0, (0.02, 0.96), (0.01, 1.0), 0),
        (2, (0.02, 0.5), (0.01, 1.0), 2),
    ],
)
def test_threads_that_have_to_wait_are_halved_where_that_is_faster(tiny, monkeypatch, asked, all_cores, half, chosen):
    config, data = load_training_data(tiny("mlp-small"))
    before = torch.get_num_threads()
    monkeypatch.setattr(budget, "_seconds_per_image", lambda *_: {2: all_cores, 1: half}[torch.get_num_threads()])
    try:
        torch.set_num_threads(2)
        fitted = config_for_time(config.replace(threads=asked), data, 5.0)
    finally:
        torch.set_num_threads(before)
    assert fitted.threads == chosen
    image_s = half[0] if chosen == 1 else all_cores[0]
    assert config.batch_size <= fitted.images <= 5.0 / image_s


def test_chores_take_their_share_of_the_time(tiny, monkeypatch):
    config, data = load_training_data(tiny("mlp-small", threads=1, evaluate_every=100, sample_every=50))
    monkeypatch.setattr(budget, "_seconds_per_image", lambda *_: (0.01, 1.0))
    monkeypatch.setattr(budget, "_seconds_of_chores", lambda *_: (0.4, 0.1, 2.0))  # a score, a grid, once
    often = config_for_time(config, data, 100.0).images
    assert often == pytest.approx((100 - 2) / (0.01 + 0.4 / 100 + 0.1 / 50), rel=0.01)
    usual = config_for_time(config.replace(evaluate_every=0, sample_every=0), data, 100.0).images
    assert usual == pytest.approx((100 - 2 - 0.4 - 12 * 0.1) / 0.01, rel=0.01)  # one score and twelve grids


def test_scores_and_grids_of_large_images_leave_the_time_to_training(tiny, monkeypatch):
    config, data = load_training_data(tiny("mlp-small", threads=1, evaluate_every=0, sample_every=0))
    monkeypatch.setattr(budget, "_seconds_per_image", lambda *_: (0.0001, 1.0))
    monkeypatch.setattr(budget, "_seconds_of_chores", lambda *_: (4.0, 1.5, 10.0))
    fitted = config_for_time(config, data, 100.0)
    assert fitted.images == pytest.approx((100 - 10 - 4 - 2 * 1.5) / 0.0001, rel=0.01)  # at most 6 s and 3 s
    assert fitted.evaluate_every == fitted.images and fitted.sample_every == -(-fitted.images // 2)
    assert is_repeat(fitted, config.replace(images=fitted.images))


def test_a_loss_that_is_not_finite_is_left_for_the_run_to_meet(tiny, monkeypatch):
    config, data = load_training_data(tiny("mlp-small"))

    def fails(*_):
        raise NonFiniteError("d_loss")

    monkeypatch.setattr(budget, "take_step", fails)
    assert config_for_time(config, data, 5.0).images >= config.batch_size


def test_steps_are_measured_as_the_run_takes_them(tiny, monkeypatch):
    """With the rates and beta2 of their place in the schedule, and bases that are renewed."""
    config, data = load_training_data(tiny("r3gan", images=10**6, g_optimizer="soap"))
    seen, turns, take_step = [], [], budget.take_step

    def noted(networks, techniques, batches, images_seen, progress):
        group = networks.d_optimizer.param_groups[0]
        seen.append((progress, float(group["lr"]), group["betas"][1]))
        return take_step(networks, techniques, batches, images_seen, progress)

    monkeypatch.setattr(budget, "take_step", noted)
    monkeypatch.setattr(budget, "renew_bases", lambda networks, turn: turns.append(turn))
    budget.images_per_s(config, data, 0.01)
    assert turns == list(range(len(seen))) and len(seen) > 1
    for at_most_s in (0.0, 600.0):
        turns.clear()
        assert budget.images_per_s(config, data, 0.01, at_most_s=at_most_s) > 0
        assert (len(turns) == 1) == (at_most_s == 0)
    for progress, rate, beta2 in seen:
        assert rate == pytest.approx(config.d_lr * ramp(progress, config.lr_start_factor, 1.0, config.burn_in))
        assert beta2 == pytest.approx(ramp(progress, config.beta2_start, config.beta2, config.burn_in))
    assert len({beta2 for *_, beta2 in seen}) > 1


@pytest.mark.parametrize("choices", [{}, {"g_dropout": 0.2}, {"network": "stylegan-lite", "style_mixing": 0.9}])
def test_measuring_trains_no_network_of_the_run(choices, tiny):
    config, data = load_training_data(tiny("mlp-small", **choices))
    pixels = data.train.pixels.clone()
    state = torch.random.get_rng_state()
    config_for_time(config, data, 1.0)
    assert torch.equal(pixels, data.train.pixels) and torch.equal(state, torch.random.get_rng_state())
