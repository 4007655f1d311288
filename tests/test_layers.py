"""Layers compute what their names say, compared with a closed form or with torch."""

import math

import pytest
import torch

from gansmith.config import resolve
from gansmith.data.images import ImageSpec
from gansmith.networks import build_networks
from gansmith.networks.layers import (
    Dropout,
    FlattenChannelsLast,
    MinibatchStddev,
    doubled_by_products,
    doubled_to,
    halved_widths,
    map_sides,
    minibatch_stddev,
    stddev_features,
)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_dropout_keeps_the_mean_and_drops_its_share(layout):
    values = torch.ones(8, 6, 50, 50).contiguous(memory_format=layout)
    layer = Dropout(0.3)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        dropped = layer(values)
        torch.manual_seed(0)
        torch.testing.assert_close(layer(values), dropped, rtol=0, atol=0)
    assert dropped.stride() == values.stride()
    assert (dropped == 0).float().mean().item() == pytest.approx(0.3, abs=0.005)
    assert dropped.mean().item() == pytest.approx(1.0, abs=0.01)
    assert dropped.unique().tolist() == pytest.approx([0, 1 / 0.7], rel=1e-4)
    neighbours = (dropped[..., 1:] == 0) & (dropped[..., :-1] == 0)
    assert neighbours.float().mean().item() == pytest.approx(0.09, abs=0.005)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_products_double_maps_as_bilinear_interpolation_does(layout):
    draw = torch.Generator().manual_seed(0)
    maps = torch.randn(3, 5, 7, 4, generator=draw, dtype=torch.float64).contiguous(memory_format=layout)
    results = []
    for double in (doubled_by_products, *doubled_to(8)):
        maps = maps.detach().requires_grad_()
        doubled = double(maps)
        (slope,) = torch.autograd.grad((doubled * torch.arange(8).double()).square().sum(), maps)
        results.append((doubled, slope))
    for found, wanted in zip(*results, strict=True):
        assert found.shape == wanted.shape
        torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-12)


def test_dropout_is_off_in_evaluation_mode_and_at_zero():
    values = torch.randn(3, 5)
    assert Dropout(0.5).eval()(values) is values
    assert Dropout(0.0)(values) is values


def test_flattening_in_channels_last_order_copies_nothing():
    maps = torch.arange(24).view(1, 2, 3, 4).contiguous(memory_format=torch.channels_last)  # 2 maps of 3 x 4
    flat = FlattenChannelsLast()(maps)
    assert flat[0, :6].tolist() == [0, 12, 1, 13, 2, 14]  # the first position of both maps, then the second, ...
    assert flat.data_ptr() == maps.data_ptr()


@pytest.mark.parametrize(
    ("size", "sides"),
    [(16, [4, 8, 16]), (28, [7, 14, 28]), (32, [8, 16, 32]), (48, [6, 12, 24, 48]), (128, [8, 16, 32, 64, 128])],
)
def test_maps_are_halved_twice_and_on_until_8_pixels(size, sides):
    assert map_sides(size) == map_sides(size, rounds_up=True) == sides


@pytest.mark.parametrize(
    ("size", "exact", "rounded"),
    [(100, [25, 50, 100], [7, 13, 25, 50, 100]), (36, [9, 18, 36], [5, 9, 18, 36])],
)
def test_odd_sides_are_halved_only_where_that_is_asked_for(size, exact, rounded):
    assert map_sides(size) == exact
    assert map_sides(size, rounds_up=True) == rounded


def test_channels_are_halved_at_the_last_two_doublings():
    assert halved_widths(32, map_sides(28)) == [32, 16, 8]
    assert halved_widths(32, map_sides(128)) == [32, 32, 32, 16, 8]


def test_doubling_to_an_odd_side_crops_the_interpolation():
    maps = torch.randn(2, 3, 5, 5)
    even, odd = (torch.nn.Sequential(*doubled_to(side))(maps) for side in (10, 9))
    assert even.shape == (2, 3, 10, 10)
    assert torch.equal(odd, even[:, :, :9, :9])


def test_minibatch_stddev_of_features_has_its_closed_form():
    features = torch.tensor([[1.0, 0.0], [3.0, 4.0], [5.0, 5.0], [5.0, 9.0]])  # two groups of two
    result = MinibatchStddev(2)(features)
    assert torch.equal(result[:, :2], features)
    # Each group's standard deviations are |a - b| / 2 for each feature: 1 and 2, then 0 and 2.
    torch.testing.assert_close(result[:, 2], torch.tensor([1.5, 1.5, 1.0, 1.0]), rtol=0, atol=1e-4)
    # All four images in one group: means 3.5 and 4.5.
    expected = (
        math.sqrt((2.5**2 + 0.5**2 + 1.5**2 + 1.5**2) / 4) + math.sqrt((4.5**2 + 0.5**2 + 0.5**2 + 4.5**2) / 4)
    ) / 2
    torch.testing.assert_close(MinibatchStddev(4)(features)[:, 2], torch.full((4,), expected), rtol=0, atol=1e-4)


def test_minibatch_stddev_of_maps_is_one_more_map():
    maps = torch.zeros(4, 2, 1, 3)
    maps[1, 0, 0] = torch.tensor([2.0, 4.0, 6.0])  # deviations 1, 2, 3 in one of two maps of three positions
    maps[3, 1, 0, 0] = 12.0  # a deviation of 6 at one of six positions
    result = MinibatchStddev(2)(maps)
    assert result.shape == (4, 3, 1, 3) and torch.equal(result[:, :2], maps)
    expected = torch.tensor([1.0, 1.0, 1.0, 1.0]).view(4, 1, 1).expand(4, 1, 3)
    torch.testing.assert_close(result[:, 2], expected, rtol=0, atol=2e-4)


def test_minibatch_stddev_is_smaller_in_a_collapsed_group():
    features = torch.randn(8, 5)
    features[4:] = features[4]
    deviation = MinibatchStddev(4)(features)[:, 5]
    assert deviation[0] > 0.5
    torch.testing.assert_close(deviation[4:], torch.full((4,), 1e-4), rtol=0, atol=1e-6)  # the root of its epsilon


@pytest.mark.parametrize(("group", "images", "used"), [(4, 6, 2), (64, 6, 2), (3, 7, 1), (2, 6, 2), (6, 6, 6)])
def test_groups_are_the_greatest_common_divisor_with_the_number_of_images(group, images, used):
    features = torch.randn(images, 3)
    deviation = MinibatchStddev(group)(features)[:, 3]
    expected = features.view(-1, used, 3).std(1, unbiased=False).mean(1).repeat_interleave(used)
    torch.testing.assert_close(deviation, expected, rtol=0, atol=2e-4)


def test_a_discriminator_without_minibatch_stddev_has_no_such_layer():
    config = resolve(arguments={"minibatch_stddev": 0})
    assert minibatch_stddev(config) is None and stddev_features(config) == 0
    config = resolve(arguments={"minibatch_stddev": 4})
    layer = minibatch_stddev(config)
    assert layer is not None and layer.group == 4 and stddev_features(config) == 1


@pytest.mark.parametrize("network", ["compact", "dcgan", "mlp"])  # a head on features and one on maps
@pytest.mark.parametrize("group", [2, 4])
def test_real_and_generated_images_in_one_batch_share_no_group(network, group):
    """D gets real and generated images concatenated; changing the generated half changes no logit of a real image."""
    config = resolve(
        arguments={"network": network, "g_width": 8, "d_width": 8, "minibatch_stddev": group, "batch_size": 4}
        | {"conditioning": "none"}
    )
    D = build_networks(config, ImageSpec(28, 1, 0))[1].eval()
    for layer in D.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.track_running_stats = True  # batch statistics would mix all images
    real, fake, other, y = *torch.randn(3, 4, 1, 28, 28), torch.zeros(8, dtype=torch.int64)
    logits, changed = D(torch.cat([real, fake]), y), D(torch.cat([real, other]), y)
    torch.testing.assert_close(changed[:4], logits[:4], rtol=0, atol=1e-6)
    assert (changed[4:] - logits[4:]).abs().min() > 1e-6
    D.stddev = MinibatchStddev(8)  # a group of all eight images
    assert (D(torch.cat([real, fake]), y)[:4] - D(torch.cat([real, other]), y)[:4]).abs().min() > 1e-6
