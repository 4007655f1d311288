"""Directions of latent space are principal components, and a walk joins its two samples."""

from dataclasses import replace

import pytest
import torch
from test_sampling import build_model
from torch import nn

import gansmith
from gansmith.conditioning import UNCONDITIONAL
from gansmith.config import Config
from gansmith.data.images import ImageSpec
from gansmith.errors import ConfigError
from gansmith.latent_space import find_directions, truncated
from gansmith.sampling import Model, draw_inputs, generate
from gansmith.signature import as_exported


class Linear(nn.Module):
    """Images whose pixels are tanh(W z)."""

    def __init__(self, weight):
        super().__init__()
        self.layer = nn.Linear(weight.shape[1], weight.shape[0], bias=False)
        self.layer.weight = nn.Parameter(weight)

    def forward(self, z, y):
        return self.layer(z).tanh().view(-1, 1, 8, 8)


def test_directions_of_a_linear_layer_are_its_singular_vectors_and_values():
    u, v = (torch.linalg.qr(torch.randn(n, 4))[0] for n in (64, 4))
    sizes = torch.tensor([4.0, 3.0, 2.0, 1.0])
    model = Model(Linear(u * sizes @ v.T), Config(latent_dim=4), ImageSpec(8, 1, 0), UNCONDITIONAL)
    found = find_directions(model, 4)
    # 2,048 latents have moments that are off by a few hundredths
    torch.testing.assert_close(found.shares.float(), sizes**2 / 30, atol=0.03, rtol=0)
    torch.testing.assert_close((found.vectors @ v).abs(), torch.eye(4), atol=0.12, rtol=0)
    assert (found.vectors.gather(1, found.vectors.abs().argmax(1, keepdim=True)) > 0).all()
    again, other = find_directions(model, 4), find_directions(model, 4, seed=1)
    assert torch.equal(again.vectors, found.vectors) and not torch.equal(other.vectors, found.vectors)
    fewer = find_directions(model, 2)
    torch.testing.assert_close(fewer.vectors, found.vectors[:2])
    moved = found.move(torch.zeros(1, 4), [2.0, -1.0])
    torch.testing.assert_close(moved[0], 2 * found.vectors[0] - found.vectors[1])


@torch.no_grad()
def draw(model, z, y):
    return model.network.eval()(z, y)


@pytest.mark.parametrize("recipe", ["default", "stylegan-lite", "dcgan-keras"])
def test_directions_change_images_more_than_others_do(recipe):
    model = build_model(recipe)
    found = find_directions(model, 8, label=3)
    assert found.shares.sum().item() == pytest.approx(1, abs=0.05)
    assert (found.shares.diff() <= 0).all() and len(found) == 8
    z, y = draw_inputs(model, seed=1, count=64, labels=[3])
    images = draw(model, z, y)
    steps = found.vectors[:, None] / found.vectors.norm(dim=1)[:, None, None]  # of one length
    changes = torch.stack([(draw(model, z + step, y) - images).square().mean() for step in steps])
    assert changes[:4].mean() > 1.05 * changes[4:].mean()  # in an untrained network the layers after count too
    with pytest.raises(ConfigError, match="count is 9; it must be between 1 and 8"):
        find_directions(model, 9)


def test_a_generator_without_layers_has_no_directions():
    class Foreign(nn.Module):
        def forward(self, z, y):
            return z[:, :1, None, None].expand(-1, 1, 8, 8)

    model = Model(Foreign(), Config(latent_dim=4), ImageSpec(8, 1, 0), UNCONDITIONAL)
    with pytest.raises(ConfigError, match="no layers to look into"):
        gansmith.directions(model, 2)


def test_truncation_moves_latents_or_styles_to_the_mean():
    model = build_model()
    z, y = draw_inputs(model, seed=0, count=3)
    same, half = truncated(model, z, 0.5)
    assert same is model
    torch.testing.assert_close(half, z / 2)
    styled = build_model("stylegan-lite")
    narrowed, kept = truncated(styled, z, 0.0)
    assert torch.equal(kept, z) and narrowed.network is not styled.network
    labels = torch.full((3,), 4)
    assert len(generate(narrowed, kept, labels).unique(dim=0)) == 1
    assert len(generate(styled, kept, labels).unique(dim=0)) == 3
    with pytest.raises(ConfigError, match="truncation is 1.5"):
        truncated(model, z, 1.5)


@pytest.mark.parametrize("recipe", ["default", "stylegan-lite"])
def test_truncation_reaches_what_an_export_wraps(recipe):
    model = build_model(recipe)
    model = replace(model, config=model.config.replace(latent_distribution="sphere"))
    wrapped = as_exported(model)
    z, _ = draw_inputs(model, seed=0, count=3)
    if wrapped.conditioning.in_latents:
        z = torch.cat([z, torch.zeros(3, 1)], dim=1)
    labels = torch.full((3,), 4)
    narrowed, kept = truncated(wrapped, z, 0.0)
    assert len(generate(wrapped, z, labels).unique(dim=0)) == 3
    assert len(generate(narrowed, kept, labels).unique(dim=0)) == 1
    assert len(generate(wrapped, z, labels).unique(dim=0)) == 3  # which stays as it was
