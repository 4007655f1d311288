"""The default networks, made for training on CPUs: few multiplications per image.

The widest maps have a quarter of the image's size, where a 3x3 convolution costs a sixteenth of what it costs at full
size; the last upsampling of G is a pixel shuffle. There are no residual blocks: in runs of minutes, branches that start
at zero cost time and learn late (docs/experiments.md).
"""

import torch
from torch import Tensor, nn

from gansmith.config import Config
from gansmith.data.images import ImageSpec
from gansmith.networks.layers import (
    SLOPE,
    ChannelsLast,
    FlattenChannelsLast,
    UnflattenChannelsLast,
    activation,
    convolution,
    dropout,
    he_normal,
    minibatch_stddev,
    refuse_size,
    refuse_unused,
    refuse_widths,
    stddev_features,
)


def compact(spec: ImageSpec, config: Config) -> tuple[nn.Module, nn.Module]:
    """Return G and D with maps of 1/2, 1/4 and (in D) 1/8 of the image's size.

    G has `g_width` maps at 1/4 and half as many at 1/2. D has `d_width` maps at 1/4, a quarter as many at 1/2 and twice
    as many at 1/8.
    """
    refuse_misfits(spec, config)
    return Generator(spec, config), Discriminator(spec, config)


def refuse_misfits(spec: ImageSpec, config: Config) -> None:
    """Raise ConfigError for sizes and widths that these networks cannot divide, and for fields that they ignore."""
    refuse_size(spec, config)
    refuse_widths(config, g_width=2, d_width=4)
    refuse_unused(config, "g_conditioning", "d_conditioning")


class Generator(nn.Module):
    """Latents and embedded class ids to images, with batch normalisation before every activation."""

    def __init__(self, spec: ImageSpec, config: Config) -> None:
        super().__init__()
        self.embedding = nn.Embedding(max(spec.num_classes, 1), 64)
        self.layers = nn.Sequential(
            he_normal(nn.Linear(config.latent_dim + 64, config.g_width * (spec.size // 4) ** 2)),
            *generator_layers(config, size=spec.size, channels=spec.channels),
        )

    def forward(self, z: Tensor, y: Tensor) -> Tensor:
        images: Tensor = self.layers(torch.cat([z, self.embedding(y)], dim=1))
        return images  # (N, C, H, W)


class Discriminator(nn.Module):
    """A projection discriminator: three convolutions and a hidden layer, without normalisation.

    Source of the projection: Miyato and Koyama, arXiv:1802.05637, eq. 5.
    """

    def __init__(self, spec: ImageSpec, config: Config) -> None:
        super().__init__()
        side = -(-spec.size // 8)
        self.layers = nn.Sequential(
            *discriminator_layers(config, channels=spec.channels),
            he_normal(nn.Linear(2 * config.d_width * side**2, 128)),
            activation(config.d_activation, nn.LeakyReLU(SLOPE)),
            *dropout(config.d_dropout),
        )
        self.stddev = minibatch_stddev(config)
        self.head = nn.Linear(128 + stddev_features(config), 1)
        self.embedding = nn.Embedding(max(spec.num_classes, 1), 128)

    def forward(self, images: Tensor, y: Tensor) -> Tensor:
        return self.score(self.features(images, y), y)

    def features(self, images: Tensor, y: Tensor) -> Tensor:
        features: Tensor = self.layers(images)
        return features  # (N, 128)

    def score(self, features: Tensor, y: Tensor) -> Tensor:
        projection = (self.embedding(y) * features).sum(1) / features.shape[1] ** 0.5
        inputs = features if self.stddev is None else self.stddev(features)
        logits: Tensor = self.head(inputs).squeeze(1) + projection
        return logits  # (N,)


def generator_layers(config: Config, *, size: int, channels: int) -> list[nn.Module]:
    """Return layers from (N, g_width * (size / 4)^2), the output of G's linear layer, to images."""
    wide, narrow, side = config.g_width, config.g_width // 2, size // 4
    return [
        UnflattenChannelsLast(1, (wide, side, side)),
        nn.BatchNorm2d(wide),
        activation(config.g_activation, nn.LeakyReLU(SLOPE)),
        *dropout(config.g_dropout),
        convolution(wide, wide),
        nn.BatchNorm2d(wide),
        activation(config.g_activation, nn.LeakyReLU(SLOPE)),
        *dropout(config.g_dropout),
        convolution(wide, narrow, kernel_size=1),
        nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False),
        nn.BatchNorm2d(narrow),
        activation(config.g_activation, nn.LeakyReLU(SLOPE)),
        *dropout(config.g_dropout),
        convolution(narrow, narrow),
        nn.BatchNorm2d(narrow),
        activation(config.g_activation, nn.LeakyReLU(SLOPE)),
        *dropout(config.g_dropout),
        convolution(narrow, 4 * channels),
        nn.PixelShuffle(2),
        nn.Tanh(),
    ]


def discriminator_layers(config: Config, *, channels: int) -> list[nn.Module]:
    """Return layers from images to (N, 2 * d_width * (size / 8, rounded up)^2), the input of D's linear layer."""
    wide = config.d_width
    return [
        nn.PixelUnshuffle(2),
        ChannelsLast(),
        convolution(4 * channels, wide // 4),
        activation(config.d_activation, nn.LeakyReLU(SLOPE)),
        *dropout(config.d_dropout),
        convolution(wide // 4, wide, kernel_size=4, stride=2),
        activation(config.d_activation, nn.LeakyReLU(SLOPE)),
        *dropout(config.d_dropout),
        convolution(wide, 2 * wide, stride=2),
        activation(config.d_activation, nn.LeakyReLU(SLOPE)),
        *dropout(config.d_dropout),
        FlattenChannelsLast(),
    ]
