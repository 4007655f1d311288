"""Two fully connected layers on each side: the pair of introductory tutorials."""

import math

from torch import Tensor, nn

from gansmith.config import Config
from gansmith.data import ImageSpec
from gansmith.networks.layers import Dropout


def mlp(spec: ImageSpec, config: Config) -> tuple[nn.Module, nn.Module]:
    """One hidden layer in each player, of `g_width` and `d_width` units; ids are ignored."""
    shape = (spec.channels, spec.size, spec.size)
    return Generator(shape, config), Discriminator(shape, config)


class Generator(nn.Module):
    def __init__(self, shape: tuple[int, int, int], config: Config) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(config.z_dim, config.g_width),
            nn.ReLU(),
            nn.Linear(config.g_width, math.prod(shape)),
            nn.Tanh(),
            nn.Unflatten(1, shape),
        )

    def forward(self, z: Tensor, ids: Tensor) -> Tensor:
        images: Tensor = self.layers(z)
        return images  # (N, C, H, W)


class Discriminator(nn.Module):
    def __init__(self, shape: tuple[int, int, int], config: Config) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Flatten(),
            nn.Linear(math.prod(shape), config.d_width),
            nn.LeakyReLU(0.2),
            Dropout(config.dropout),
            nn.Linear(config.d_width, 1),
        )

    def forward(self, images: Tensor, ids: Tensor) -> Tensor:
        logits: Tensor = self.layers(images)
        return logits.squeeze(1)  # (N,)
