"""Neighbour metrics against prdc, brute force and their analytic nulls."""

import numpy as np
import pytest
import torch
from prdc import compute_prdc

from gansmith.errors import DataError
from gansmith.metrics import neighbours
from gansmith.metrics.neighbours import coverage_null, density_coverage, kth_distances, nearest, precision_recall

RNG = np.random.default_rng(1)


@pytest.mark.parametrize("k", [1, 3, 5])
@pytest.mark.parametrize("shift", [0.0, 0.5, 9.0])
def test_all_four_agree_with_prdc(k, shift, capfd):
    real, fake = RNG.normal(size=(400, 6)), RNG.normal(size=(300, 6)) * 0.9 + shift
    ours = precision_recall(real, fake, k=k) | density_coverage(real, fake, k=k)
    assert ours == pytest.approx(compute_prdc(real, fake, k), abs=1e-12)


def test_distances_by_blocks_agree_with_brute_force(monkeypatch):
    monkeypatch.setattr(neighbours, "_ROWS", 7)
    a, b = RNG.normal(size=(40, 5)), RNG.normal(size=(30, 5))
    full = ((a[:, None] - b) ** 2).sum(-1)
    distances, rows = nearest(torch.from_numpy(a), torch.from_numpy(b), k=4)
    order = np.argsort(full, axis=1)[:, :4]
    np.testing.assert_array_equal(rows, order)
    np.testing.assert_allclose(distances, np.take_along_axis(full, order, 1), rtol=1e-9)
    own = np.sort(((a[:, None] - a) ** 2).sum(-1), axis=1)[:, 3]
    np.testing.assert_allclose(kth_distances(torch.from_numpy(a), 3), own, rtol=1e-9)


def test_features_far_from_the_origin_keep_their_digits():
    real, fake = RNG.normal(size=(300, 4)), RNG.normal(size=(300, 4))
    near = precision_recall(real, fake) | density_coverage(real, fake)
    assert precision_recall(real + 1e5, fake + 1e5) | density_coverage(real + 1e5, fake + 1e5) == near


def test_fresh_draws_score_their_nulls():
    real, fake = RNG.normal(size=(2, 2000, 8))
    found = density_coverage(real, fake)
    assert found["coverage"] == pytest.approx(coverage_null(2000, 2000), abs=0.015)
    assert found["density"] == pytest.approx(1, abs=0.06)


def test_the_null_of_coverage_for_equal_sizes():
    assert coverage_null(10_000, 10_000) == pytest.approx(1 - 2**-5, abs=2e-4)
    assert coverage_null(10_000, 10_000, k=3) == pytest.approx(1 - 2**-3, abs=2e-4)
    assert coverage_null(2, 1, k=1) == pytest.approx(0.5)


def test_one_image_repeated_covers_nothing_and_recalls_nothing():
    real = RNG.normal(size=(500, 8))
    repeated = np.repeat(real[:5], 100, axis=0)
    assert density_coverage(real, repeated)["coverage"] < 0.1
    assert precision_recall(real, repeated)["recall"] < 0.05
    assert precision_recall(real, repeated)["precision"] == 1


def test_too_few_images_for_the_neighbours_are_refused():
    with pytest.raises(DataError, match="5 images have no 5-th neighbour; give more than 5"):
        density_coverage(RNG.normal(size=(5, 2)), RNG.normal(size=(9, 2)))
