"""The evaluators: the one with random weights and those that ship."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from gansmith.data import load_data
from gansmith.data.images import ImageSpec
from gansmith.errors import GansmithError
from gansmith.metrics import features
from gansmith.metrics.features import load_evaluators, load_feature_network, random_feature_network


def test_the_random_network_is_always_the_same():
    spec = ImageSpec(size=28, channels=1, num_classes=0)
    pixels = torch.randint(0, 256, (5, 1, 28, 28), dtype=torch.uint8)
    a, b = (random_feature_network(spec).observe(pixels)[0] for _ in range(2))
    assert a.shape == (5, 224) and a.dtype == np.float64
    np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("name", ["mnist", "fashion-mnist"])
def test_trained_networks_ship_and_fit_only_their_images(name):
    grey = load_feature_network(name, ImageSpec(size=28, channels=1, num_classes=10))
    assert grey.name.startswith(name) and not grey.training
    assert load_feature_network(name, ImageSpec(size=32, channels=3, num_classes=10)).name.startswith("random")
    assert load_feature_network("unknown", ImageSpec(size=28, channels=1, num_classes=10)).name.startswith("random")


def test_a_damaged_evaluator_is_refused(monkeypatch):
    monkeypatch.setitem(features.SHIPPED, "mnist", features.Shipped("0" * 64, ()))
    with pytest.raises(GansmithError, match="damaged"):
        load_feature_network("mnist", ImageSpec(size=28, channels=1, num_classes=10))


def test_features_of_any_images_have_about_unit_spread():
    images = load_data("mnist")
    for network in load_evaluators(replace(images, name="unknown")).values():
        deviations = network.observe(images.pixels[::5])[0].std(axis=0)
        assert np.median(deviations) == pytest.approx(1.0, abs=0.1) and deviations.max() < 1.5


def test_the_network_reads_digits():
    images = load_data("mnist")
    network = load_feature_network("mnist", images.spec)
    with torch.no_grad():
        found = network(images.pixels[::10].float() / 127.5 - 1).argmax(1)
    assert (found == images.labels[::10]).float().mean().item() == pytest.approx(0.995, abs=0.01)
