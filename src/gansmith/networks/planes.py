"""The compact pair with every colour as a plane of its own: one set of convolutions draws and reads them all.

For images whose colours show things of one kind, such as stacked digits: each convolution learns from every colour.
Colours meet only in linear layers, the first of G and the last of D, so which go together is left to learn.
"""

import torch
from torch import Tensor, nn

from gansmith.config import Config
from gansmith.data.images import ImageSpec
from gansmith.networks.compact import (
    Discriminator,
    painting_layers,
    reading_layers,
    refuse_misfits,
)
from gansmith.networks.layers import SLOPE, activation, dropout, he_normal


def planes(spec: ImageSpec, config: Config) -> tuple[nn.Module, nn.Module]:
    """As `compact`, whose widths they share; a grey image has one plane, and the pairs are the same."""
    refuse_misfits(spec, config)
    return PlanesGenerator(spec, config), PlanesDiscriminator(spec, config)


class PlanesGenerator(nn.Module):
    """Latent and id embedding to one start a colour, each painted by the same layers."""

    def __init__(self, spec: ImageSpec, config: Config) -> None:
        super().__init__()
        inputs, outputs = config.latent_dim + 64, config.g_width * (spec.size // 4) ** 2
        self.embedding = nn.Embedding(max(spec.num_classes, 1), 64)
        self.starts = nn.ModuleList(he_normal(nn.Linear(inputs, outputs)) for _ in range(spec.channels))
        self.paint = nn.Sequential(*painting_layers(config, size=spec.size, channels=1))

    def forward(self, z: Tensor, y: Tensor) -> Tensor:
        latent = torch.cat([z, self.embedding(y)], dim=1)
        return torch.cat([self.paint(start(latent)) for start in self.starts], dim=1)  # (N, C, H, W)


class PlanesDiscriminator(Discriminator):
    """The compact one, whose convolutions read each colour by itself."""

    def __init__(self, spec: ImageSpec, config: Config) -> None:
        super().__init__(spec, config)
        side = -(-spec.size // 8)
        self.layers = nn.Sequential(
            nn.Flatten(0, 1),
            nn.Unflatten(0, (-1, 1)),  # (N * C, 1, H, W)
            *reading_layers(config, channels=1),
            nn.Unflatten(0, (-1, spec.channels)),
            nn.Flatten(1),
            he_normal(nn.Linear(spec.channels * 2 * config.d_width * side**2, 128)),
            activation(config.d_activation, nn.LeakyReLU(SLOPE)),
            *dropout(config.d_dropout),
        )
