"""Layers of our own against what they stand for."""

import pytest
import torch

from gansmith.networks.layers import Dropout, FlattenPlaces


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


def test_dropout_rests_outside_training_and_at_zero():
    values = torch.randn(3, 5)
    assert Dropout(0.5).eval()(values) is values
    assert Dropout(0.0)(values) is values


def test_flattened_places_follow_one_another_and_stay_where_channels_last_maps_lie():
    maps = torch.arange(24).view(1, 2, 3, 4).contiguous(memory_format=torch.channels_last)  # 2 maps of 3 x 4
    flat = FlattenPlaces()(maps)
    assert flat[0, :6].tolist() == [0, 12, 1, 13, 2, 14]  # both maps' first place, then their second, ...
    assert flat.data_ptr() == maps.data_ptr()
