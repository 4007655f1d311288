"""Gaussian mixtures drawn as dots."""

import pytest
import torch

from gansmith.data import load_data, synthetic


@pytest.mark.parametrize(("name", "centres"), [("gaussian-ring", 8), ("gaussian-grid", 25)])
def test_dots_sit_where_their_mode_says(name, centres):
    images = load_data(name)
    assert images.num_classes == centres
    weight = images.pixels[:, 0].double()
    axis = torch.arange(synthetic.SIZE, dtype=torch.float64)
    total = weight.sum((1, 2))
    found = torch.stack([(weight.sum(1) * axis).sum(1) / total, (weight.sum(2) * axis).sum(1) / total], dim=1)
    means = torch.stack([found[images.labels == k].mean(0) for k in range(centres)])
    expected = (synthetic.ring_centres if centres == 8 else synthetic.grid_centres)().double()
    torch.testing.assert_close(means, expected, atol=0.1, rtol=0)
    spread = (found - expected[images.labels]).std(0)
    torch.testing.assert_close(spread, torch.full((2,), synthetic.SPREAD).double(), atol=0.05, rtol=0)
