"""The default pair: as few multiplications an image as good digits allow.

Wide maps live at a quarter of the image's size, where a 3x3 convolution costs a sixteenth of what it costs at full
size; the last doublings are pixel shuffles. Nothing is residual: in runs of minutes, branches that start at zero
cost time and learn late (docs/log.md).
"""

import torch
from torch import Tensor, nn

from gansmith.config import Config
from gansmith.data.images import ImageSpec
from gansmith.networks.layers import (
    stddev_features,
    SLOPE,
    ChannelsLast,
    FlattenPlaces,
    minibatch_stddev,
    UnflattenMaps,
    activation,
    convolution,
    dropout,
    he_normal,
    refuse_size,
    refuse_unused,
    refuse_widths,
)


def compact(spec: ImageSpec, config: Config) -> tuple[nn.Module, nn.Module]:
    """Maps at a half, a quarter and (in D) an eighth of the image's size.

    G has `g_width` maps at a quarter and half as many at half. D has a quarter of `d_width` at half, `d_width` at a
    quarter, and twice as many at an eighth.
    """
    refuse_misfits(spec, config)
    return Generator(spec, config), Discriminator(spec, config)


def refuse_misfits(spec: ImageSpec, config: Config) -> None:
    """Raise ConfigError for images and widths that do not divide as the pair needs them to."""
    refuse_size(spec, config)
    refuse_widths(config, g_width=2, d_width=4)
    refuse_unused(config, "g_conditioning", "d_conditioning")


class Generator(nn.Module):
    """Latent and id embedding to an image, with batch normalisation before every activation."""

    def __init__(self, spec: ImageSpec, config: Config) -> None:
        super().__init__()
        self.embedding = nn.Embedding(max(spec.num_classes, 1), 64)
        self.layers = nn.Sequential(
            he_normal(nn.Linear(config.latent_dim + 64, config.g_width * (spec.size // 4) ** 2)),
            *painting_layers(config, size=spec.size, channels=spec.channels),
        )

    def forward(self, z: Tensor, y: Tensor) -> Tensor:
        images: Tensor = self.layers(torch.cat([z, self.embedding(y)], dim=1))
        return images  # (N, C, H, W)


class Discriminator(nn.Module):
    """Three convolutions and a hidden layer, with no normalisation; y enter by projection.

    Source of the projection: Miyato and Koyama, arXiv:1802.05637, eq. 5.
    """

    def __init__(self, spec: ImageSpec, config: Config) -> None:
        super().__init__()
        side = -(-spec.size // 8)
        self.layers = nn.Sequential(
            *reading_layers(config, channels=spec.channels),
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
        match = (self.embedding(y) * features).sum(1) / features.shape[1] ** 0.5
        seen = features if self.stddev is None else self.stddev(features)
        logits: Tensor = self.head(seen).squeeze(1) + match
        return logits  # (N,)


def painting_layers(config: Config, *, size: int, channels: int) -> list[nn.Module]:
    """From G's (N, g_width * (size / 4)^2) to images."""
    wide, narrow, side = config.g_width, config.g_width // 2, size // 4
    return [
        UnflattenMaps(1, (wide, side, side)),
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


def reading_layers(config: Config, *, channels: int) -> list[nn.Module]:
    """From images to D's (N, 2 * d_width * (size / 8, rounded up)^2)."""
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
        FlattenPlaces(),
    ]
