"""The compact networks with convolutions that treat each colour channel as an image of its own, with shared weights.

For images whose channels show things of one kind, such as stacked digits: each convolution learns from every channel.
Channels meet only in linear layers, G's first and D's last, which learn how they depend on one another.
"""

import torch
from torch import Tensor, nn

from gansmith.config import Config
from gansmith.data.images import ImageSpec
from gansmith.networks.compact import (
    Discriminator,
    discriminator_features,
    discriminator_layers,
    generator_layers,
    refuse_misfits,
)
from gansmith.networks.layers import SLOPE, activation, dropout, he_normal, map_sides


def planes(spec: ImageSpec, config: Config) -> tuple[nn.Module, nn.Module]:
    """Return G and D with the widths of `compact`; for images of one channel they compute the same."""
    refuse_misfits(spec, config)
    return PlanesGenerator(spec, config), PlanesDiscriminator(spec, config)


class PlanesGenerator(nn.Module):
    """Latents and embedded class ids to a linear layer for each channel, followed by layers that all channels share."""

    def __init__(self, spec: ImageSpec, config: Config) -> None:
        super().__init__()
        inputs, outputs = config.latent_dim + 64, config.g_width * map_sides(spec.size, rounds_up=True)[0] ** 2
        self.embedding = nn.Embedding(max(spec.num_classes, 1), 64)
        self.starts = nn.ModuleList(he_normal(nn.Linear(inputs, outputs)) for _ in range(spec.channels))
        self.paint = nn.Sequential(*generator_layers(config, size=spec.size, channels=1))

    def forward(self, z: Tensor, y: Tensor) -> Tensor:
        latent = torch.cat([z, self.embedding(y)], dim=1)
        return torch.cat([self.paint(start(latent)) for start in self.starts], dim=1)  # (N, C, H, W)


class PlanesDiscriminator(Discriminator):
    """The compact discriminator with convolutions that see one channel at a time."""

    def __init__(self, spec: ImageSpec, config: Config) -> None:
        super().__init__(spec, config)
        self.layers = nn.Sequential(
            nn.Flatten(0, 1),
            nn.Unflatten(0, (-1, 1)),  # (N * C, 1, H, W)
            *discriminator_layers(config, size=spec.size, channels=1),
            nn.Unflatten(0, (-1, spec.channels)),
            nn.Flatten(1),
            he_normal(nn.Linear(spec.channels * discriminator_features(config, size=spec.size), 128)),
            activation(config.d_activation, nn.LeakyReLU(SLOPE)),
            *dropout(config.d_dropout),
        )
