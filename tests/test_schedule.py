"""Schedules at their ends and in between."""

import math

import pytest

from gansmith.training.schedule import adapted_factor, decay, ema_decay, extended_factor, progress_at, ramp


def test_linear_decay_is_flat_then_straight_to_zero():
    assert [decay(p, "linear", 0.5, 0.1) for p in (0, 0.5, 0.75, 1.0)] == pytest.approx([1, 1, 0.5, 0])
    assert decay(0.25, "linear", 0.0, 0.1) == pytest.approx(0.75)


def test_cosine_decay_is_flat_then_half_a_cosine():
    shares = [decay(p, "cosine", 0.4, 0.1) for p in (0.4, 0.55, 0.7, 1.0)]
    assert shares == pytest.approx([1, 0.5 + math.sqrt(0.125), 0.5, 0])


def test_step_decay_falls_again_and_again():
    assert [decay(p, "step", 0.3, 0.5) for p in (0, 0.29, 0.3, 0.61, 0.95)] == pytest.approx([1, 1, 0.5, 0.25, 0.125])
    assert decay(0.4, "step", 0.0, 0.5) == pytest.approx(0.5)


def test_beyond_a_decay_to_0_rates_begin_again_lower_and_fall_in_a_line():
    factors = [extended_factor(seen, 200, 400) for seen in (0, 199, 200, 300, 350, 400)]
    assert factors == pytest.approx([0, 0, 0.4, 0.2, 0.1, 0])
    assert [extended_factor(seen, 400, 400) for seen in (0, 399, 400)] == [0, 0, 0]
    assert decay(1.0, "linear", 0.5, 0.1, extended=0.2) == decay(1.0, "cosine", 0.4, 0.1, extended=0.2) == 0.2
    assert decay(1.0, "step", 0.5, 0.1, extended=0.2) == pytest.approx(0.01)
    assert decay(1.0, "linear", 1.0, 0.1, extended=0.2) == 1


@pytest.mark.parametrize("kind", ["linear", "cosine", "step"])
def test_rates_that_never_decay_stay(kind):
    assert decay(1.0, kind, 1.0, 0.1) == pytest.approx(1)


def test_a_corrected_length_changes_the_second_half_alone():
    assert [progress_at(seen, 800, 800) for seen in (0, 300, 400, 600, 800)] == pytest.approx([0, 0.375, 0.5, 0.75, 1])
    assert [progress_at(seen, 600, 800) for seen in (0, 300, 400, 500, 600)] == pytest.approx([0, 0.375, 0.5, 0.75, 1])
    assert [progress_at(seen, 1000, 800) for seen in (300, 400, 700, 1000)] == pytest.approx([0.375, 0.5, 0.75, 1])


def test_a_start_factor_fades_by_half_a_cosine():
    assert [ramp(p, 10, 1, 0.2) for p in (0, 0.1, 0.2, 1)] == pytest.approx([10, 5.5, 1, 1])
    assert ramp(0.0, 10, 1, 0.0) == pytest.approx(1)


def test_a_confident_discriminator_is_penalised_more():
    assert adapted_factor(8.0, 1.1, 1.2, 4000) == pytest.approx(16)
    assert adapted_factor(8.0, 1.3, 1.2, 4000) == pytest.approx(4)
    assert adapted_factor(8.0, 1.2, 1.2, 4000) == pytest.approx(8)
    assert adapted_factor(1.1, 2.0, 1.2, 4000) == pytest.approx(1)
    assert adapted_factor(900.0, 0.0, 1.2, 4000) == pytest.approx(1000)


def test_the_average_halves_in_its_half_life():
    assert ema_decay(1000, 50, 0.05) == pytest.approx(0.5)
    assert ema_decay(64, 64, 0.05) ** 0.05 == pytest.approx(0.5)
    assert ema_decay(0, 64, 0.05) == pytest.approx(0)
