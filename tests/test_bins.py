"""Histograms over clusters, at counts worked out by hand and at random draws."""

import numpy as np
import pytest

from gansmith.metrics.bins import bin_differences, find_bins

RNG = np.random.default_rng(3)


def test_a_bin_that_lost_its_images_is_found_and_the_divergence_has_a_closed_form():
    centres = np.array([[0.0], [10.0]])
    real, fake = np.repeat([[0.1], [9.9]], 100, axis=0), np.full((200, 1), 0.2)
    found = bin_differences(real, fake, centres)
    expected = 0.5 * (0.5 * np.log(0.5 / 0.75) + 0.5 * np.log(0.5 / 0.25)) + 0.5 * np.log(1 / 0.75)
    assert found == pytest.approx({"different_bins": 1.0, "bin_divergence": expected})
    assert bin_differences(real, real, centres) == {"different_bins": 0, "bin_divergence": 0}


def test_the_limit_is_the_z_of_two_proportions():
    centres = np.array([[0.0], [10.0]])
    real, fake = np.repeat([[0.0], [10.0]], [100, 100], axis=0), np.repeat([[0.0], [10.0]], [120, 80], axis=0)
    z = (0.6 - 0.5) / np.sqrt(0.55 * 0.45 * 2 / 200)
    assert bin_differences(real, fake, centres, limit=z - 1e-9)["different_bins"] == 1
    assert bin_differences(real, fake, centres, limit=z + 1e-9)["different_bins"] == 0


def test_draws_of_one_distribution_score_the_null():
    centres = find_bins(RNG.normal(size=(3000, 4)), count=20)
    found = [bin_differences(*RNG.normal(size=(2, 2000, 4)), centres) for _ in range(20)]
    assert centres.shape == (20, 4)
    assert np.mean([x["bin_divergence"] for x in found]) == pytest.approx(19 / 8 * 2 / 2000, rel=0.25)
    assert max(x["different_bins"] for x in found) <= 0.05
