"""Copies are detected; new images, however dense their distribution, are not."""

import numpy as np
import pytest

from gansmith.metrics.gates import GATES
from gansmith.metrics.memorisation import (
    find_nearest,
    memorisation,
    principal_components,
)

RNG = np.random.default_rng(4)


def _draw(count):
    """Two clusters, one of them a hundred times tighter, as ones are among digits."""
    x = RNG.normal(size=(count, 20))
    x[::2] = 5 + x[::2] / 100
    return x


TRAIN, HELD_OUT, FRESH = _draw(3000), _draw(2000), _draw(2000)


def test_fresh_images_score_the_null():
    found = memorisation(TRAIN, HELD_OUT, FRESH)
    assert found["copying"] == pytest.approx(0, abs=2.5)
    assert found["nearer"] == pytest.approx(0.5, abs=0.03)
    assert found["near_copies"] == pytest.approx(0.001, abs=0.004)
    assert found["authentic"] == pytest.approx(found["authentic_real"], abs=0.04)


@pytest.mark.slow
def test_few_held_out_images_widen_the_limit_of_near_copies_as_far_as_chance_does():
    limit = GATES["memorisation"].limits[0].high
    beyond = 0
    for _ in range(100):
        found = memorisation(TRAIN[:500], _draw(206), _draw(500))
        assert found["near_copies_chance"] == pytest.approx(1 - 0.01 ** (1 / 206))
        beyond += found["near_copies"] > found["near_copies_chance"]
    assert beyond <= 5  # one expected
    copied = np.concatenate([TRAIN[:25], _draw(475)])
    found = memorisation(TRAIN[:500], _draw(206), copied)
    assert found["near_copies"] > found["near_copies_chance"] + limit


def test_copies_are_found_in_proportion():
    for share in (0.02, 0.1, 1.0):
        count = int(2000 * share)
        fake = FRESH.copy()
        fake[:count] = TRAIN[:count]
        found = memorisation(TRAIN, HELD_OUT, fake)
        assert found["near_copies"] == pytest.approx(share, abs=0.005)
    assert found["copying"] < -20
    assert found["nearer"] > 0.99
    assert found["authentic"] < 0.05


def test_slightly_altered_copies_are_found_in_both_clusters():
    altered = TRAIN[:2000] + 0.2 * RNG.normal(size=(2000, 20)) * np.where(np.arange(2000) % 2, 1, 0.01)[:, None]
    found = memorisation(TRAIN, HELD_OUT, altered)
    assert found["near_copies"] > 0.95
    assert found["copying"] < -20


def test_images_far_from_the_training_set_are_no_copies():
    found = memorisation(TRAIN, HELD_OUT, FRESH + 3)
    assert found["copying"] > 20
    assert found["near_copies"] == pytest.approx(0, abs=0.002)


def test_components_keep_distances_where_there_are_few_numbers():
    train, fake = principal_components(TRAIN[1::2], FRESH[1:100:2])
    found = find_nearest(train, fake)
    true = np.sqrt(((FRESH[1:100:2, None] - TRAIN[1::2]) ** 2).sum(-1))
    np.testing.assert_array_equal(found.rows, true.argmin(1))
    np.testing.assert_allclose(found.distances, true.min(1), rtol=1e-5)  # float32 products
    np.testing.assert_allclose(found.relative, true.min(1) / np.sort(true, 1)[:, :50].mean(1), rtol=1e-5)


def test_fewer_training_images_than_a_neighbourhood_still_give_an_answer():
    assert memorisation(TRAIN[:20], HELD_OUT[:30], TRAIN[:10])["near_copies"] == 1
