"""Distances with known answers, and a judge that knows real from unreal."""

import numpy as np
import pytest
import torch

from gansmith.data import ImageSpec, load_data, split
from gansmith.metrics import Judge
from gansmith.metrics.distances import frechet_distance
from gansmith.metrics.features import load_feature_network, random_feature_network

RNG = np.random.default_rng(0)


def test_the_distance_of_shifted_and_scaled_sets_has_a_closed_form():
    x = RNG.normal(size=(500, 6))
    assert frechet_distance(x, x)["frechet"] == pytest.approx(0, abs=1e-9)
    shift = np.arange(6.0)
    assert frechet_distance(x, x + shift)["frechet"] == pytest.approx((shift**2).sum(), rel=1e-9)
    variance = np.trace(np.cov(x, rowvar=False))
    mean = x.mean(axis=0)
    assert frechet_distance(x, 3 * x)["frechet"] == pytest.approx(4 * variance + 4 * mean @ mean, rel=1e-9)


def test_the_distance_of_commuting_covariances_has_a_closed_form():
    x = RNG.normal(size=(400, 3))
    x = (x - x.mean(0)) @ np.linalg.inv(np.linalg.cholesky(np.cov(x, rowvar=False)).T)
    a, b = np.array([1.0, 2.0, 0.5]), np.array([3.0, 1.0, 0.5])
    assert frechet_distance(x * a, x * b)["frechet"] == pytest.approx(((a - b) ** 2).sum(), rel=1e-9)


def test_the_distance_is_symmetric_and_blind_to_order():
    x, y = RNG.normal(size=(300, 5)), RNG.normal(size=(200, 5)) @ RNG.normal(size=(5, 5))
    there, back = frechet_distance(x, y)["frechet"], frechet_distance(y, x)["frechet"]
    assert there == pytest.approx(back, rel=1e-9)
    assert frechet_distance(x[::-1], y[RNG.permutation(200)])["frechet"] == pytest.approx(there, rel=1e-9)


def test_the_distance_agrees_with_torchmetrics():
    fid = pytest.importorskip("torchmetrics.image.fid")
    x, y = RNG.normal(size=(300, 8)), RNG.normal(size=(280, 8)) * 1.3 + 0.2
    oracle = fid.FrechetInceptionDistance(
        feature=torch.nn.Flatten(), input_img_size=(1, 2, 4), normalize=True
    ).set_dtype(torch.float64)
    oracle.update(torch.from_numpy(x).view(-1, 1, 2, 4), real=True)
    oracle.update(torch.from_numpy(y).view(-1, 1, 2, 4), real=False)
    assert frechet_distance(x, y)["frechet"] == pytest.approx(float(oracle.compute()), rel=1e-4)


def test_the_random_network_is_always_the_same():
    spec = ImageSpec(size=28, channels=1, num_classes=0)
    pixels = torch.randint(0, 256, (5, 1, 28, 28), dtype=torch.uint8)
    a, b = (random_feature_network(spec).features(pixels) for _ in range(2))
    assert a.shape == (5, 224) and a.dtype == np.float64
    np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("name", ["mnist", "fashion-mnist"])
def test_trained_networks_ship_and_fit_only_their_images(name):
    grey = load_feature_network(name, ImageSpec(size=28, channels=1, num_classes=10))
    assert grey.name.startswith(name) and not grey.training
    assert load_feature_network(name, ImageSpec(size=32, channels=3, num_classes=10)).name.startswith("random")
    assert load_feature_network("unknown", ImageSpec(size=28, channels=1, num_classes=10)).name.startswith("random")


def test_the_judge_ranks_real_blurred_and_noise():
    fit, validation = split(load_data("mnist"))
    judge = Judge(fit, validation)
    assert judge.count == 500
    real = fit.pixels[torch.arange(3, 4500, 9)]
    neighbours = torch.nn.functional.avg_pool2d(real.float(), 3, stride=1, padding=1).to(torch.uint8)
    noise = torch.randint(0, 256, real.shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    scores = [judge.score(samples)["ratio"] for samples in (real, neighbours, noise)]
    assert scores[0] == pytest.approx(1.0, abs=0.25)
    assert scores[0] * 2 < scores[1] < scores[2]


def test_the_network_reads_digits():
    images = load_data("mnist")
    network = load_feature_network("mnist", images.spec)
    with torch.no_grad():
        found = network(images.pixels[::10].float() / 127.5 - 1).argmax(1)
    assert (found == images.labels[::10]).float().mean().item() == pytest.approx(0.995, abs=0.01)
