"""Training of an evaluator on demand."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from gansmith.data.images import Images, ImageSpec
from gansmith.metrics import evaluator_training
from gansmith.metrics.evaluator_training import (
    fit_and_held_out,
    has_classes,
    load_stored,
    train_and_store,
    training_seconds,
)
from gansmith.metrics.residual import ResidualNetwork


@pytest.fixture
def stripes(monkeypatch):
    """600 images of three classes, each with its own bright rows, and a short training."""
    draw = torch.Generator().manual_seed(0)
    labels = torch.arange(600) % 3
    pixels = torch.randint(0, 120, (600, 1, 9, 9), generator=draw, dtype=torch.uint8)
    for label in range(3):
        pixels[labels == label, :, 3 * label : 3 * label + 2] += 100
    monkeypatch.setattr(evaluator_training, "ON_DEMAND", 1_000)
    monkeypatch.setattr(evaluator_training, "BATCH_SIZE", 64)
    return Images(pixels, labels, name="stripes")


def test_an_evaluator_for_other_images_is_trained_once_and_kept(stripes, tmp_path, caplog):
    assert load_stored(stripes) is None
    network = train_and_store(stripes)
    assert network.accuracy.item() > 0.95 and 0.1 <= network.temperature.item() <= 4.0 and not network.training
    (path,) = (tmp_path / "cache" / "evaluators").iterdir()
    again = load_stored(stripes)
    assert len(caplog.records) == 1 and again.name == network.name
    for a, b in zip(again.observe(stripes.pixels[:5]), network.observe(stripes.pixels[:5]), strict=True):
        np.testing.assert_array_equal(a, b)
    assert load_stored(replace(stripes, labels=(stripes.labels + 1) % 3)) is None  # another task
    whole = path.read_bytes()
    path.write_bytes(whole[:-7])
    assert load_stored(stripes) is None and "damaged" in caplog.records[1].message
    train_and_store(stripes)
    assert path.read_bytes() == whole


def test_what_is_held_out_is_not_learnt(stripes):
    """Labels that are noise can be memorised and not learnt."""
    noise = replace(stripes, labels=torch.randint(0, 3, (600,), generator=torch.Generator().manual_seed(1)))
    fit, held_out = fit_and_held_out(noise)
    assert (len(fit), len(held_out)) == (450, 150)
    known = {image.tobytes() for image in fit.pixels.numpy()}
    assert not any(image.tobytes() in known for image in held_out.pixels.numpy())
    assert train_and_store(noise).accuracy.item() == pytest.approx(1 / 3, abs=0.12)


def test_a_label_that_is_only_held_out_is_a_class_too(stripes):
    fit, held_out = fit_and_held_out(stripes)
    labels = held_out.labels.clone()
    labels[0] = 4
    network = evaluator_training.train_evaluator(fit, replace(held_out, labels=labels))
    assert network.num_classes == 5 and network.confusion.shape == (5, 5)


def test_without_labels_clusters_are_learnt_and_no_class_is_known(stripes):
    network = train_and_store(stripes.without_labels())
    features, probabilities = network.observe(stripes.pixels[:50])
    assert features.shape == (50, 256) and network.num_classes == 1 and network.accuracy.isnan()
    assert (probabilities == 1).all()


def test_the_time_of_training_is_foreseen(stripes):
    assert 0 < training_seconds(stripes) < 60


@pytest.mark.parametrize("size", [8, 20, 21, 28, 32, 64, 100])
def test_networks_of_any_size_have_maps_of_about_equal_size(size):
    network = ResidualNetwork(ImageSpec(size, 3, 4), num_classes=4, name="x").eval()
    pixels = torch.randint(0, 256, (3, 3, size, size), dtype=torch.uint8)
    features, probabilities = network.observe(pixels)
    assert features.shape == (3, 256) and probabilities.sum(1) == pytest.approx(1.0)
    assert 8 <= network.stem(torch.zeros(1, 3, size, size)).shape[-1] <= 20


def test_a_cache_that_cannot_be_written_is_no_reason_to_stop(stripes, tmp_path, caplog):
    (tmp_path / "cache").write_text("a file")
    assert train_and_store(stripes).accuracy.item() > 0.95
    assert "could not be stored" in caplog.records[-1].message


def test_training_images_are_shifted_by_up_to_two_pixels():
    ramp = torch.arange(0, 160, 10, dtype=torch.uint8).expand(400, 1, 16, 16)  # brighter to the right
    found = evaluator_training._shifted(ramp)
    assert found.shape == ramp.shape and set(found[:, 0, 0, 8].tolist()) == {60, 70, 80, 90, 100}
    assert set(found[:, 0, 0, 0].tolist()) == {0, 10, 20}  # the border is repeated


def test_no_image_is_held_out_that_is_learnt_too():
    draw = torch.Generator().manual_seed(0)
    once = torch.randint(256, (60, 1, 8, 8), generator=draw, dtype=torch.uint8)
    fit, held_out = fit_and_held_out(Images(torch.cat([once, once[:40]]), torch.arange(100) % 2))
    learnt = {image.numpy().tobytes() for image in fit.pixels}
    assert 20 < len(held_out) < 30 and not any(image.numpy().tobytes() in learnt for image in held_out.pixels)
    assert len(fit) + len(held_out) == 100
    assert [len(part) for part in fit_and_held_out(Images(once))] == [45, 15]
    assert [len(part) for part in fit_and_held_out(Images(torch.cat([once[:8]] * 10)))] == [60, 20]
    assert [len(part) for part in fit_and_held_out(Images(torch.cat([once[:2]] * 10)))] == [15, 5]  # all are learnt


def test_one_label_is_no_class_to_learn():
    pixels = torch.zeros(4, 1, 8, 8, dtype=torch.uint8)
    assert has_classes(Images(pixels, torch.tensor([3, 0, 3, 3])))
    assert not has_classes(Images(pixels, torch.full((4,), 3))) and not has_classes(Images(pixels))
