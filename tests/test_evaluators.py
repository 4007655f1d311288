"""Which networks evaluate which data."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from gansmith.data import load_data
from gansmith.data.images import Images
from gansmith.metrics import evaluator_training, evaluators, pretrained
from gansmith.metrics.evaluators import evaluator_notices, find_evaluators, knows_classes, observe_real
from gansmith.metrics.features import load_feature_network


@pytest.fixture
def color(monkeypatch):
    """60 images of two classes in color, and a training of one step."""
    monkeypatch.setattr(evaluator_training, "ON_DEMAND", 1)
    monkeypatch.setattr(evaluators, "FEWEST_TO_TRAIN_ON", 40)
    pixels = torch.randint(0, 256, (60, 3, 24, 24), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    return Images(pixels, torch.arange(60) % 2, name="mine")


def test_any_labelled_set_gets_a_classifier_and_color_a_network_of_photographs(color, tmp_path):
    found = find_evaluators(color)
    assert list(found) == ["trained", "pretrained", "random"]
    assert found["trained"].num_classes == 2 and found["pretrained"].num_classes == found["random"].num_classes == 1
    assert not knows_classes(found["trained"]) and knows_classes(load_feature_network("mnist", load_data("mnist").spec))
    notices = evaluator_notices(found, color)
    assert len(notices) == 1 and "accurate on held-out images, fewer than 90%" in notices[0]
    grey = find_evaluators(replace(color, pixels=color.pixels[:, :1], labels=None))
    assert list(grey) == ["clusters", "random"]
    small = color.take(torch.arange(30))
    assert list(find_evaluators(small)) == ["pretrained", "random"]


def test_shipped_evaluators_have_no_company():
    images = load_data("mnist")
    found = find_evaluators(images)
    assert list(found) == ["trained", "random"] and evaluator_notices(found, images) == []


def test_a_missing_package_is_named_with_the_way_to_it(color, monkeypatch):
    monkeypatch.setattr(pretrained, "MODULE", "no_such_package")
    found = find_evaluators(color, seconds=0)
    assert list(found) == ["random"]
    assert "pip install 'gansmith[evaluators]'" in evaluator_notices(found, color)[-1]


def test_a_short_run_trains_no_evaluator_and_takes_one_that_exists(color, monkeypatch):
    monkeypatch.setattr(evaluators, "training_seconds", lambda train: 50)
    assert list(find_evaluators(color, seconds=60)) == ["random"]
    assert list(find_evaluators(color, seconds=200)) == ["pretrained", "random"]
    assert list(find_evaluators(color, seconds=300)) == ["trained", "pretrained", "random"]
    assert list(find_evaluators(color, seconds=60)) == ["trained", "random"]


def test_features_of_real_images_are_computed_once(color, tmp_path, monkeypatch):
    network = find_evaluators(color)["pretrained"]
    some = color.take(torch.arange(20))
    first = observe_real(network, some)
    np.testing.assert_allclose(first[0], network.observe(some.pixels)[0], rtol=1e-6)
    with monkeypatch.context() as patch:
        patch.setattr(type(network), "pooled", None)
        for a, b in zip(first, observe_real(network, some.without_labels()), strict=True):
            np.testing.assert_array_equal(a, b)
    for path in (tmp_path / "cache" / "evaluators").glob("*.npy"):
        path.write_bytes(path.read_bytes()[:-40])
    np.testing.assert_array_equal(observe_real(network, some)[0], first[0])
