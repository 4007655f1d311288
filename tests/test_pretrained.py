"""EfficientNet-Lite0 with ImageNet weights."""

from pathlib import Path

import numpy as np
import pytest
import torch
from efficientnet_lite_pytorch import EfficientNet

from gansmith.errors import GansmithError
from gansmith.metrics import pretrained
from gansmith.metrics.pretrained import find_weights, load_pretrained
from gansmith.metrics.weights import read_published


@pytest.fixture(scope="module")
def network():
    return load_pretrained(find_weights(), 32)


def test_blocks_are_those_of_the_package_that_the_weights_were_made_with(network):
    theirs = EfficientNet.from_name("efficientnet-lite0").eval()
    theirs.load_state_dict(read_published(find_weights(), sha256=pretrained.SHA256, remedy=""))
    outputs = []
    for block in theirs._blocks:
        block.register_forward_hook(lambda module, given, output: outputs.append(output))
    images = torch.rand(2, 3, 64, 64) * 2 - 1
    with torch.no_grad():
        theirs.extract_features(images)
        for ours, output in zip(network(images), outputs, strict=True):
            torch.testing.assert_close(ours, output, atol=1e-4, rtol=1e-4)


def test_features_have_unit_spread_and_grey_images_are_grey_color_ones(network):
    pixels = torch.randint(0, 256, (60, 3, 32, 32), dtype=torch.uint8)
    network.fit_scale(network.observe(pixels)[0])
    features, probabilities = network.observe(pixels)
    assert features.shape == (60, 472) and probabilities.shape == (60, 1) and network.num_classes == 1
    np.testing.assert_allclose(features.std(axis=0), 1.0, rtol=1e-3)
    grey = pixels[:2, :1]
    np.testing.assert_array_equal(network.observe(grey)[0], network.observe(grey.expand(-1, 3, -1, -1))[0])


@pytest.mark.parametrize(("size", "working"), [(24, 64), (64, 64), (65, 96), (128, 128)])
def test_small_images_are_enlarged_and_others_hardly(size, working):
    assert load_pretrained(find_weights(), size).working_size == working


def test_another_file_is_refused_unread(tmp_path):
    torch.save({"x": torch.zeros(1)}, tmp_path / "other.pth")
    for name, expected in (("other.pth", "not the published file"), ("nothing.pth", "cannot be read")):
        with pytest.raises(GansmithError, match=expected):
            load_pretrained(tmp_path / name, 32)


def test_without_the_package_there_are_no_weights(monkeypatch):
    monkeypatch.setattr(pretrained, "MODULE", "no_such_package")
    assert find_weights() is None
    assert not Path("models").exists()
