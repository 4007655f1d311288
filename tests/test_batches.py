"""Batches: each a function of the seed and the images seen before it."""

import pytest
import torch

from gansmith.training.batches import Batches, take_step
from gansmith.training.inputs import load_training_data
from gansmith.training.state import start_networks
from gansmith.training.techniques import build_techniques


def test_the_generator_skips_its_step_until_its_turn(tiny):
    config, data = load_training_data(tiny("mlp-small", d_steps=3, g_steps=2))
    batches = Batches(config, data)
    turns = [batches.at(step * config.batch_size) for step in range(6)]
    assert [batch.skip_g for batch in turns] == [True, True, False] * 2
    assert [len(batch.extra_z) for batch in turns] == [0, 0, 1] * 2
    assert not torch.equal(turns[2].extra_z[0], turns[2].z)


def test_fresh_fakes_have_latents_for_each_step_of_the_generator(tiny):
    config, data = load_training_data(tiny("vanilla-cs231n", g_steps=2))
    batch, same = Batches(config, data).at(0), Batches(config.replace(fresh_fakes=False), data).at(0)
    assert batch.fresh_fakes and len(batch.extra_z) == 2 and len(same.extra_z) == 1 and torch.equal(batch.z, same.z)
    assert not torch.equal(batch.extra_z[0], batch.z) and torch.equal(batch.extra_z[1], same.extra_z[0])


def test_an_epoch_shows_every_image_once_and_the_next_in_another_order(tiny):
    config, data = load_training_data(tiny("mlp-small", batch_size=24))
    batches, n = Batches(config, data), len(data.train)
    assert n == 360  # 15 batches
    rows = torch.cat([batches._rows(k * 24) for k in range(30)])
    assert torch.equal(rows[:n].sort().values, torch.arange(n)) and torch.equal(rows[n:].sort().values, torch.arange(n))
    assert not torch.equal(rows[:n], rows[n:])


def test_a_batch_across_two_epochs_takes_from_both(tiny):
    config, data = load_training_data(tiny("mlp-small", batch_size=50))
    batches = Batches(config, data)
    rows = batches._rows(350)
    assert torch.equal(rows[:10], batches._order(0)[350:]) and torch.equal(rows[10:], batches._order(1)[:40])


def test_a_batch_may_be_larger_than_the_data(tiny):
    config, data = load_training_data(tiny("mlp-small", limit_images=10, batch_size=32))
    rows = Batches(config, data)._rows(0)
    assert torch.bincount(rows, minlength=10).tolist() == pytest.approx([3.2] * 10, abs=0.8)


def test_a_batch_does_not_depend_on_those_before_it(tiny):
    config, data = load_training_data(tiny(seed=3))
    first, again = Batches(config, data), Batches(config, data)
    for images_seen in (0, 16, 32):
        first.at(images_seen)
    a, b = first.at(512), again.at(512)
    for name in ("real", "real_y", "z", "fake_y"):
        assert torch.equal(getattr(a, name), getattr(b, name)), name
    assert torch.equal(torch.rand(3, generator=a.rng), torch.rand(3, generator=b.rng))
    other = Batches(config.replace(seed=4), data).at(512)
    assert not torch.equal(a.z, other.z) and not torch.equal(a.real, other.real)


def test_generated_images_are_asked_for_the_class_ids_of_the_real_ones(tiny):
    config, data = load_training_data(tiny("mlp-small", conditioning="labels"))
    batch = Batches(config, data).at(0)
    assert torch.equal(batch.real_y, batch.fake_y)
    pixels = data.train.pixels[Batches(config, data)._rows(0)]
    torch.testing.assert_close(batch.real, pixels.float() / 127.5 - 1)


def test_only_dropout_and_style_mixing_seed_torchs_own_generator(tiny):
    for changes, seeds in (({}, False), ({"d_dropout": 0.3}, True), ({"g_dropout": 0.3}, True)):
        config, data = load_training_data(tiny("mlp-small", **changes))
        torch.manual_seed(0)
        expected = torch.rand(1)
        torch.manual_seed(0)
        with Batches(config, data).randomness_at(64):
            drawn = torch.rand(1)
        assert torch.equal(drawn, expected) is not seeds, changes


@pytest.mark.parametrize("growth", ["linear", "cosine"])
def test_a_step_moves_the_average_by_its_half_life(tiny, growth):
    burn_in = {"burn_in": 0.0} if growth == "cosine" else {}
    config, data = load_training_data(tiny("mlp-small", ema=0.5, ema_growth=growth, **burn_in))
    networks = start_networks(config, data.spec)
    before = [parameter.clone() for parameter in networks.G_ema.parameters()]
    take_step(networks, build_techniques(config, networks.D), Batches(config, data), 112, 0.4)
    half_life = 0.5 * (128 if growth == "linear" else config.images)  # of images seen, or of the whole schedule
    share = 0.5 ** (config.batch_size / half_life)
    for old, new, target in zip(before, networks.G_ema.parameters(), networks.G.parameters(), strict=True):
        torch.testing.assert_close(new.data, share * old + (1 - share) * target.data)


def test_the_average_of_several_d_steps_counts_their_images(tiny):
    """It moves with the generator alone, by the images of all batches since the generator's step before."""
    config, data = load_training_data(tiny("mlp-small", ema=0.5, d_steps=3))
    networks = start_networks(config, data.spec)
    techniques, batches, size = build_techniques(config, networks.D), Batches(config, data), config.batch_size
    expected = [parameter.clone() for parameter in networks.G_ema.parameters()]
    for turn in range(3, 9):
        take_step(networks, techniques, batches, turn * size, 0.4)
        if turn in (5, 8):
            share = 0.5 ** (3 * size / (0.5 * (turn + 1) * size))
            weights = [parameter.data for parameter in networks.G.parameters()]
            expected = [share * kept + (1 - share) * new for kept, new in zip(expected, weights, strict=True)]
        for wanted, average in zip(expected, networks.G_ema.parameters(), strict=True):
            torch.testing.assert_close(average.data, wanted)


def test_without_an_average_the_step_leaves_its_weights_alone(tiny):
    config, data = load_training_data(tiny("mlp-small", ema=0.0))
    networks = start_networks(config, data.spec)
    before = [parameter.clone() for parameter in networks.G_ema.parameters()]
    numbers = take_step(networks, build_techniques(config, networks.D), Batches(config, data), 0, 0.0)
    assert all(torch.equal(a, b) for a, b in zip(before, networks.G_ema.parameters(), strict=True))
    assert {"d_loss", "g_loss", "d_real", "d_fake"} <= numbers.keys()
