"""A judge that knows real from unreal."""

import numpy as np
import pytest
import torch

from gansmith.data import ImageSpec, load_data, split
from gansmith.metrics import Judge
from gansmith.metrics.features import load_feature_network, random_feature_network


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
