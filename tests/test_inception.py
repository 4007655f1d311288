"""Inception v3 and the FID measured with it."""

import numpy as np
import pytest
import torch
from torchmetrics.image.fid import FrechetInceptionDistance

from gansmith.data.images import Images
from gansmith.errors import GansmithError, NotFoundError
from gansmith.metrics import inception
from gansmith.metrics.inception import (
    fid_of,
    fold_layers,
    inception_features,
    inception_moments,
    load_inception,
    move_layers,
    resize_as_tensorflow,
)

# Kernels of the published file: outputs, inputs, height, width.
STEM = {"1a_3x3": (32, 3, 3, 3), "2a_3x3": (32, 32, 3, 3), "2b_3x3": (64, 32, 3, 3), "3b_1x1": (80, 64, 1, 1),
        "4a_3x3": (192, 80, 3, 3)}  # fmt: skip


def kernels():
    """Return the shape of every kernel under its published name."""
    found = {f"Conv2d_{name}": shape for name, shape in STEM.items()}
    for block, channels, pool in (("5b", 192, 32), ("5c", 256, 64), ("5d", 288, 64)):
        found |= named(block, {
            "branch1x1": (64, channels, 1, 1), "branch5x5_1": (48, channels, 1, 1), "branch5x5_2": (64, 48, 5, 5),
            "branch3x3dbl_1": (64, channels, 1, 1), "branch3x3dbl_2": (96, 64, 3, 3), "branch3x3dbl_3": (96, 96, 3, 3),
            "branch_pool": (pool, channels, 1, 1),
        })  # fmt: skip
    found |= named("6a", {
        "branch3x3": (384, 288, 3, 3), "branch3x3dbl_1": (64, 288, 1, 1), "branch3x3dbl_2": (96, 64, 3, 3),
        "branch3x3dbl_3": (96, 96, 3, 3),
    })  # fmt: skip
    for block, c in (("6b", 128), ("6c", 160), ("6d", 160), ("6e", 192)):
        found |= named(block, {
            "branch1x1": (192, 768, 1, 1), "branch_pool": (192, 768, 1, 1),
            "branch7x7_1": (c, 768, 1, 1), "branch7x7_2": (c, c, 1, 7), "branch7x7_3": (192, c, 7, 1),
            "branch7x7dbl_1": (c, 768, 1, 1), "branch7x7dbl_2": (c, c, 7, 1), "branch7x7dbl_3": (c, c, 1, 7),
            "branch7x7dbl_4": (c, c, 7, 1), "branch7x7dbl_5": (192, c, 1, 7),
        })  # fmt: skip
    found |= named("7a", {
        "branch3x3_1": (192, 768, 1, 1), "branch3x3_2": (320, 192, 3, 3), "branch7x7x3_1": (192, 768, 1, 1),
        "branch7x7x3_2": (192, 192, 1, 7), "branch7x7x3_3": (192, 192, 7, 1), "branch7x7x3_4": (192, 192, 3, 3),
    })  # fmt: skip
    for block, channels in (("7b", 1280), ("7c", 2048)):
        found |= named(block, {
            "branch1x1": (320, channels, 1, 1), "branch3x3_1": (384, channels, 1, 1),
            "branch3x3_2a": (384, 384, 1, 3), "branch3x3_2b": (384, 384, 3, 1), "branch3x3dbl_1": (448, channels, 1, 1),
            "branch3x3dbl_2": (384, 448, 3, 3), "branch3x3dbl_3a": (384, 384, 1, 3),
            "branch3x3dbl_3b": (384, 384, 3, 1), "branch_pool": (192, channels, 1, 1),
        })  # fmt: skip
    return found


def named(block, shapes):
    return {f"Mixed_{block}.{name}": shape for name, shape in shapes.items()}


@pytest.fixture(scope="module")
def layers():
    """The published network with random weights."""
    weights = {}
    for name, shape in kernels().items():
        weights[f"{name}.conv.weight"] = torch.empty(shape)
        for key in ("weight", "bias", "running_mean", "running_var"):
            weights[f"{name}.bn.{key}"] = torch.empty(shape[0])
    for seed, (name, value) in enumerate(sorted(weights.items())):
        value.normal_(generator=torch.Generator().manual_seed(seed))
        if name.endswith("conv.weight"):
            value *= (2 / value[0].numel()) ** 0.5
        elif name.endswith("bn.weight"):
            value.mul_(0.1).add_(1)
        elif name.endswith("running_var"):
            value.abs_().mul_(0.2).add_(1)
        else:
            value *= 0.1
    return fold_layers(weights)


def noise(count, size=32, channels=3):
    shape = (count, channels, size, size)
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


def test_features_are_those_of_torch_fidelity(layers):
    """Its `FeatureExtractorInceptionV3` (0.4.0) gives these numbers with the same weights and images.

    To derive them again, load the weights above into it, whose import needs torchvision, and take column 0, 512, 1024
    and 1536 and the lengths. All 2,048 agreed within 2e-6 for images of 28, 32, 64 and 400 pixels.
    """
    found = inception_features(layers, noise(2))
    expected = [[0.182672, 0.724144, 0.235525, 0.0], [0.194550, 0.719119, 0.244336, 0.0]]
    torch.testing.assert_close(found[:, ::512], torch.tensor(expected), atol=1e-5, rtol=1e-4)
    assert found.norm(dim=1).tolist() == pytest.approx([13.3412, 13.3834], abs=1e-3)


def test_grey_images_are_grey_color_ones(layers):
    grey = noise(1, channels=1)
    torch.testing.assert_close(
        inception_features(layers, grey), inception_features(layers, grey.expand(-1, 3, -1, -1)), atol=1e-5, rtol=1e-4
    )


def test_features_are_computed_where_the_layers_are(layers):
    """On the device without numbers, which cannot be mixed with those of another device."""
    found = inception_features(move_layers(layers, torch.device("meta")), noise(2))
    assert found.device.type == "meta" and found.shape == (2, 2048)


def test_resizing_places_no_half_pixel_offset():
    """Pixel k of 299 lies at k / 299 of the width: a ramp stays one until its last pixel, which is repeated."""
    ramp = torch.arange(13.0).expand(1, 1, 13, 13)
    found = resize_as_tensorflow(ramp)[0, 0, 0]
    torch.testing.assert_close(found, (torch.arange(299) * 13 / 299).clamp(max=12), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(resize_as_tensorflow(ramp.mT)[0, 0, :, 0], found)
    exact = torch.rand(1, 1, 299, 299)
    torch.testing.assert_close(resize_as_tensorflow(exact), exact)


@pytest.fixture
def short(monkeypatch):
    """Features of 12 numbers in place of Inception's."""

    def features(layers, pixels):
        return pixels.float().unflatten(1, (-1, 1))[:, :, 0, :2, :2].flatten(1) / 255

    monkeypatch.setattr(inception, "inception_features", features)
    monkeypatch.setattr(inception, "FEATURES", 12)
    return features


def test_moments_are_summed_over_chunks_and_sets(short):
    first, second = noise(60, 8), 255 - noise(41, 8)
    mean, covariance = inception_moments({}, [first, second])
    features = torch.cat([short({}, first), short({}, second)]).double().numpy()
    np.testing.assert_allclose(mean, features.mean(axis=0))
    np.testing.assert_allclose(covariance, np.cov(features, rowvar=False), atol=1e-9)


def test_fid_is_that_of_torchmetrics_for_equal_features(short, tmp_path):
    real, samples = noise(300, 8), (noise(200, 8) // 2 + 30).flip(0)
    metric = FrechetInceptionDistance(
        feature=torch.nn.Sequential(torch.nn.Flatten(1)), input_img_size=(3, 2, 2), normalize=True
    ).set_dtype(torch.float64)
    for pixels, is_real in ((real, True), (samples, False)):
        metric.update(short({}, pixels).double().view(-1, 3, 2, 2), real=is_real)
    parts = Images(real[:120]), Images(real[120:])
    for _ in range(2):  # the second time with the moments of real images from the cache
        assert fid_of(Images(samples), parts, {}) == pytest.approx(float(metric.compute()), rel=1e-4)
    assert len(list((tmp_path / "cache" / "evaluators").iterdir())) == 1


def test_without_a_network_one_sentence_says_what_to_do(gansmith, tmp_path):
    with pytest.raises(NotFoundError, match="forbids downloads; give the file of .* with --fid-weights"):
        load_inception()
    (tmp_path / "other.pth").write_bytes(b"x")
    with pytest.raises(GansmithError, match="not the published file"):
        load_inception(tmp_path / "other.pth")
    np.savez("x.npz", images=np.zeros((4, 28, 28), np.uint8))
    code, out, err = gansmith("evaluate", "x.npz", "--fid")
    assert code == 2 and out == "" and "--fid-weights" in err and len(err.strip().splitlines()) == 1
