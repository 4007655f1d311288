"""Distances against closed forms, brute force, other libraries, and what chance alone gives."""

import numpy as np
import pytest
import torch
from torchmetrics.image.fid import FrechetInceptionDistance
from torchmetrics.image.kid import KernelInceptionDistance

from gansmith.metrics.distances import (
    frechet_distance,
    frechet_infinity,
    frechet_null,
    kid,
    kid_against_splits,
    squared_mmd,
)

RNG = np.random.default_rng(0)


def _oracle(metric, real, fake):
    """A torchmetrics metric fed with feature vectors as if they were images."""
    for rows, is_real in ((real, True), (fake, False)):
        metric.update(torch.from_numpy(rows).view(len(rows), 1, 2, -1), real=is_real)
    return metric.compute()


def test_the_frechet_distance_of_shifted_and_scaled_sets_has_a_closed_form():
    x = RNG.normal(size=(500, 6))
    assert frechet_distance(x, x)["fd"] == pytest.approx(0, abs=1e-9)
    shift = np.arange(6.0)
    assert frechet_distance(x, x + shift)["fd"] == pytest.approx((shift**2).sum(), rel=1e-9)
    variance = np.trace(np.cov(x, rowvar=False))
    mean = x.mean(axis=0)
    assert frechet_distance(x, 3 * x)["fd"] == pytest.approx(4 * variance + 4 * mean @ mean, rel=1e-9)


def test_the_frechet_distance_of_commuting_covariances_has_a_closed_form():
    x = RNG.normal(size=(400, 3))
    x = (x - x.mean(0)) @ np.linalg.inv(np.linalg.cholesky(np.cov(x, rowvar=False)).T)
    a, b = np.array([1.0, 2.0, 0.5]), np.array([3.0, 1.0, 0.5])
    assert frechet_distance(x * a, x * b)["fd"] == pytest.approx(((a - b) ** 2).sum(), rel=1e-9)


def test_the_frechet_distance_is_symmetric_and_blind_to_order():
    x, y = RNG.normal(size=(300, 5)), RNG.normal(size=(200, 5)) @ RNG.normal(size=(5, 5))
    there, back = frechet_distance(x, y)["fd"], frechet_distance(y, x)["fd"]
    assert there == pytest.approx(back, rel=1e-9)
    assert frechet_distance(x[::-1], y[RNG.permutation(200)])["fd"] == pytest.approx(there, rel=1e-9)


def test_the_frechet_distance_of_sets_with_fewer_rows_than_numbers_is_finite():
    x, y = RNG.normal(size=(5, 20)), RNG.normal(size=(4, 20))
    assert np.isfinite(frechet_distance(x, y)["fd"])
    assert frechet_distance(x, x)["fd"] == pytest.approx(0, abs=1e-6)


def test_the_frechet_distance_agrees_with_torchmetrics():
    x, y = RNG.normal(size=(300, 8)), RNG.normal(size=(280, 8)) * 1.3 + 0.2
    metric = FrechetInceptionDistance(feature=torch.nn.Flatten(), input_img_size=(1, 2, 4), normalize=True)
    assert frechet_distance(x, y)["fd"] == pytest.approx(
        float(_oracle(metric.set_dtype(torch.float64), x, y)), rel=1e-4
    )


def test_the_null_of_the_frechet_distance_is_what_gaussian_draws_score():
    scales = np.geomspace(0.1, 3, 12)
    draws = [frechet_distance(*(RNG.normal(size=(2, 1000, 12)) * scales))["fd"] for _ in range(40)]
    expected = frechet_null(RNG.normal(size=(20_000, 12)) * scales, 1000)
    assert np.mean(draws) == pytest.approx(expected, rel=0.12)  # 40 draws: a standard error of about 4 %


def test_the_null_for_equal_variances_has_a_closed_form():
    x = RNG.normal(size=(50, 5))
    x = (x - x.mean(0)) @ np.linalg.inv(np.linalg.cholesky(np.cov(x, rowvar=False)).T)
    assert frechet_null(x, 100) == pytest.approx(2 / 100 * 5 * (1 + (5 + 1) / 4), rel=1e-9)


def test_frechet_infinity_takes_the_bias_of_the_sample_away():
    real = RNG.normal(size=(20_000, 10))
    draws = [RNG.normal(size=(1000, 10)) for _ in range(10)]
    biased = np.mean([frechet_distance(real, fake)["fd"] for fake in draws])
    found = np.mean([frechet_infinity(real, fake)["fd_infinity"] for fake in draws])
    assert biased == pytest.approx(frechet_null(real, 1000) / 2, rel=0.15)
    assert found == pytest.approx(0, abs=0.4 * biased)  # the extrapolation of one draw varies by as much as the bias
    assert frechet_infinity(real, draws[0]) == frechet_infinity(real, draws[0])


@pytest.mark.filterwarnings("ignore:Metric `Kernel Inception Distance` will save")
def test_the_kernel_distance_agrees_with_torchmetrics():
    x, y = RNG.normal(size=(200, 8)), RNG.normal(size=(200, 8)) * 1.3 + 0.2
    metric = KernelInceptionDistance(feature=torch.nn.Flatten(), subsets=2, subset_size=200, normalize=True).set_dtype(
        torch.float64
    )
    assert kid(x, y, subsets=2, size=200)["kid"] == pytest.approx(float(_oracle(metric, x, y)[0]), rel=1e-4)


def test_the_squared_mmd_agrees_with_brute_force():
    x, y = RNG.normal(size=(7, 3)), RNG.normal(size=(5, 3)) + 1

    def kernel(a, b):
        return (a @ b / 3 + 1) ** 3

    within_x = np.mean([kernel(x[i], x[j]) for i in range(7) for j in range(7) if i != j])
    within_y = np.mean([kernel(y[i], y[j]) for i in range(5) for j in range(5) if i != j])
    between = np.mean([kernel(a, b) for a in x for b in y])
    assert squared_mmd(x, y) == pytest.approx(within_x + within_y - 2 * between, rel=1e-12)


def test_subsets_of_sets_of_several_blocks_have_their_own_squared_mmds():
    x, y = RNG.normal(size=(610, 3)), RNG.normal(size=(520, 3)) * 1.2
    rng, found = np.random.default_rng(5), []
    for _ in range(4):
        a, b = (rows[rng.choice(len(rows), 300, replace=False)] for rows in (x, y))
        aa, bb, ab = ((p @ q.T / 3 + 1) ** 3 for p, q in ((a, a), (b, b), (a, b)))
        within = sum((k.sum() - k.trace()) / (300 * 299) for k in (aa, bb))
        found.append(within - 2 * ab.mean())
    assert kid(x, y, subsets=4, size=300, seed=5) == pytest.approx(
        {"kid": np.mean(found), "kid_spread": np.std(found)}, rel=1e-9
    )


def test_the_kernel_distance_of_equal_distributions_is_zero_on_average():
    draws = [squared_mmd(*RNG.normal(size=(2, 60, 4))) for _ in range(300)]
    assert np.mean(draws) == pytest.approx(0, abs=4 * np.std(draws) / 300**0.5)
    assert min(draws) < 0


def test_subsets_are_no_larger_than_the_sets():
    x, y = RNG.normal(size=(30, 4)), RNG.normal(size=(20, 4))
    assert kid(x, x + 5, subsets=3)["kid"] > kid(x, y, subsets=3)["kid"]


def test_the_distance_of_few_images_is_near_zero_for_real_ones_and_grows_with_a_shift():
    draw = np.random.default_rng(0)
    found = {
        shift: [
            kid_against_splits(draw.normal(size=(200, 8)), shift + draw.normal(size=(200, 8)))["kid_z"]
            for _ in range(40)
        ]
        for shift in (0.0, 0.1, 0.2, 0.4)
    }
    assert np.mean(found[0.0]) == pytest.approx(0, abs=0.35) and 0.45 < np.std(found[0.0]) < 1.1
    means = [np.mean(each) for each in found.values()]
    assert means == sorted(means) and 2 < means[2] < 12 and means[3] > 3 * means[2]


def test_images_that_are_all_alike_have_a_distance():
    alike = np.ones((20, 4))
    assert kid_against_splits(alike, alike) == {"kid_z": 0.0}
    assert kid_against_splits(alike, alike + np.arange(4)) == {"kid_z": np.inf}
