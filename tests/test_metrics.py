"""The networks that judge, what ships with them, and the quick score during training."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from gansmith.data.images import Images, ImageSpec, split
from gansmith.data import load_data
from gansmith.metrics import features
from gansmith.metrics.features import load_evaluators, load_feature_network, random_feature_network
from gansmith.metrics.learn import accuracy, learned_network
from gansmith.metrics.reference import COUNTS, load_references, measure_reference
from gansmith.metrics.validation import ValidationScorer


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


def test_a_damaged_evaluator_is_refused(monkeypatch):
    monkeypatch.setitem(features.SHIPPED, "mnist", features.Shipped("0" * 64, ()))
    with pytest.raises(ValueError, match="damaged"):
        load_feature_network("mnist", ImageSpec(size=28, channels=1, num_classes=10))


@pytest.mark.parametrize("name", ["mnist", "fashion-mnist"])
def test_shipped_references_fall_with_the_number_of_images(name):
    references = load_references(name, ImageSpec(size=28, channels=1, num_classes=10))
    assert set(references) == {"trained", "random"}
    for reference in references.values():
        floors = [reference.floors[count] for count in COUNTS]
        assert floors == sorted(floors, reverse=True) and 0 < floors[-1] < floors[0]
        assert reference.moments[1].shape == (224, 224)


def test_floors_are_means_over_disjoint_parts():
    rng = np.random.default_rng(0)
    reference = measure_reference(rng.normal(size=(3000, 4)), rng.normal(size=(2500, 4)))
    assert set(reference.floors) == {1000, 2000}
    assert reference.floors[1000] == pytest.approx((1 / 1000 + 1 / 3000) * (1.5 * 4 + 6 / 2), rel=0.5)


def test_the_quick_score_ranks_real_blurred_and_noise():
    fit, validation = split(load_data("mnist"))
    judge = ValidationScorer(fit, validation)
    assert judge.count == 2000
    real = fit.pixels[torch.randperm(4500, generator=torch.Generator().manual_seed(1))[:2000]]
    neighbours = torch.nn.functional.avg_pool2d(real.float(), 3, stride=1, padding=1).to(torch.uint8)
    noise = torch.randint(0, 256, real.shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    scores = [judge.score(samples)["ratio"] for samples in (real, neighbours, noise)]
    assert scores[0] == pytest.approx(1.0, abs=0.25)
    assert scores[0] * 2 < scores[1] < scores[2]


def test_features_of_any_images_have_about_unit_spread():
    images = load_data("mnist")
    for network in load_evaluators(replace(images, name="unknown")).values():
        deviations = network.features(images.pixels[::5]).std(axis=0)
        assert np.median(deviations) == pytest.approx(1.0, abs=0.1) and deviations.max() < 1.5


def test_an_evaluator_for_other_images_is_trained_once_and_kept(tmp_path, monkeypatch, caplog):
    draw = torch.Generator().manual_seed(0)
    labels = torch.arange(600) % 3
    pixels = torch.randint(0, 120, (600, 1, 12, 12), generator=draw, dtype=torch.uint8)
    for label in range(3):  # each class has its own bright rows
        pixels[labels == label, :, 4 * label : 4 * label + 2] += 100
    fit, validation = split(Images("stripes", pixels, labels, "drawn"))
    monkeypatch.setattr("gansmith.metrics.learn.ON_DEMAND", 20_000)
    path = tmp_path / "cache" / "kept.safetensors"
    network = learned_network(fit, validation, path)
    assert accuracy(network, validation) > 0.95 and 0.5 <= network.temperature.item() <= 4.0
    again = learned_network(fit, validation, path)
    assert len(caplog.records) == 1 and again.name == "learned-kept"
    np.testing.assert_array_equal(again.features(fit.pixels[:5]), network.features(fit.pixels[:5]))
    whole = path.read_bytes()
    path.write_bytes(whole[:-7])
    mended = learned_network(fit, validation, path)
    assert len(caplog.records) == 3 and "damaged" in caplog.records[1].message and path.read_bytes() == whole
    np.testing.assert_array_equal(mended.features(fit.pixels[:5]), network.features(fit.pixels[:5]))


def test_the_network_reads_digits():
    images = load_data("mnist")
    network = load_feature_network("mnist", images.spec)
    with torch.no_grad():
        found = network(images.pixels[::10].float() / 127.5 - 1).argmax(1)
    assert (found == images.labels[::10]).float().mean().item() == pytest.approx(0.995, abs=0.01)
