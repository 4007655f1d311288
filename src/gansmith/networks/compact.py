"""The default networks, made for training on CPUs: few multiplications per image.

The widest maps have 12 pixels or less, and larger ones half as many channels each time that they double, so that all
levels cost about the same. The last upsampling of G is a pixel shuffle in grey, and has maps at full size in color.
There are no residual blocks: in runs of minutes, branches that start at zero cost time and learn late
(docs/experiments.md).
"""

from itertools import pairwise

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
    doubled_to,
    dropout,
    he_normal,
    map_sides,
    minibatch_stddev,
    refuse_size,
    refuse_unused,
    refuse_widths,
    stddev_features,
)


def compact(spec: ImageSpec, config: Config) -> tuple[nn.Module, nn.Module]:
    """Return G and D, whose maps have 1/2, 1/4 and (in D) 1/8 of the image's size, and less for larger images.

    Maps of up to 12 pixels have `g_width` and `d_width` channels, of up to 24 pixels half, of up to 48 a quarter,
    larger ones an eighth. At 1/2 of the image's size G has no more than half, and D a quarter; below 1/4, D has
    twice as many in maps of up to 6 pixels.
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
            he_normal(nn.Linear(config.latent_dim + 64, config.g_width * map_sides(spec.size, rounds_up=True)[0] ** 2)),
            *generator_layers(config, size=spec.size, channels=spec.channels),
        )

    def forward(self, z: Tensor, y: Tensor) -> Tensor:
        images: Tensor = self.layers(torch.cat([z, self.embedding(y)], dim=1))
        return images  # (N, C, H, W)


class Discriminator(nn.Module):
    """A projection discriminator: three convolutions and a hidden layer, without normalisation.

    Each class id has an embedding; all share a linear map from these to features, which the images of all ids teach.

    Source of the projection: Miyato and Koyama, arXiv:1802.05637, eq. 5.
    """

    def __init__(self, spec: ImageSpec, config: Config) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            *discriminator_layers(config, size=spec.size, channels=spec.channels),
            he_normal(nn.Linear(discriminator_features(config, size=spec.size), 128)),
            *_activated(config),
        )
        self.stddev = minibatch_stddev(config)
        self.head = nn.Linear(128 + stddev_features(config), 1)
        self.embedding = nn.Embedding(max(spec.num_classes, 1), 64)
        self.shared = nn.Linear(64, 128, bias=False)
        nn.init.eye_(self.shared.weight)
        self.rotation = nn.Linear(128, 4) if config.d_rotation_loss else None
        self.classifier = nn.Linear(128, spec.num_classes // config.ids_per_class) if config.classifies else None

    def forward(self, images: Tensor, y: Tensor) -> Tensor:
        return self.score(self.features(images, y), y)

    def features(self, images: Tensor, y: Tensor) -> Tensor:
        features: Tensor = self.layers(images)
        return features  # (N, 128)

    def score(self, features: Tensor, y: Tensor) -> Tensor:
        projection = (self.shared(self.embedding(y)) * features).sum(1) / features.shape[1] ** 0.5
        inputs = features if self.stddev is None else self.stddev(features)
        logits: Tensor = self.head(inputs).squeeze(1) + projection
        return logits  # (N,)

    def classify(self, features: Tensor) -> Tensor:
        """Return (N, labels) class logits of features."""
        assert self.classifier is not None
        class_logits: Tensor = self.classifier(features)
        return class_logits


def generator_layers(config: Config, *, size: int, channels: int) -> list[nn.Module]:
    """Return layers from (N, g_width * side^2), the output of G's linear layer, to images.

    The side is that of the smallest maps, 1/4 of an image of 28 or 32 pixels.
    """
    width, (start, *sides, _) = config.g_width, map_sides(size, rounds_up=True)
    layers = [
        UnflattenChannelsLast(1, (width, start, start)),
        *_normalised(config, width),
        convolution(width, width),
        *_normalised(config, width),
    ]
    for side in sides:
        narrow = _width_at(side, config.g_width)
        if side == sides[-1]:
            narrow = min(narrow, config.g_width // 2)
        layers += [
            convolution(width, narrow, kernel_size=1),
            *doubled_to(side),
            *_normalised(config, narrow),
            convolution(narrow, narrow),
            *_normalised(config, narrow),
        ]
        width = narrow
    last = _upsampled_in_color(width, size, channels, config) if channels > 1 else _upsampled_by_pixels(width, channels)
    return [*layers, *last, nn.Tanh()]


def _upsampled_in_color(width: int, size: int, channels: int, config: Config) -> list[nn.Module]:
    """Return layers that double a few maps by interpolation and turn them into images at full size.

    In color, a layer at full size is worth more than the images that it costs, and so is interpolation instead of a
    shuffle (docs/experiments.md).
    """
    narrow = max(1, config.g_width // 8)
    return [
        convolution(width, narrow),
        *doubled_to(size),
        *_normalised(config, narrow),
        convolution(narrow, channels),
    ]


def _upsampled_by_pixels(width: int, channels: int) -> list[nn.Module]:
    """Return a convolution whose output is shuffled into maps twice as large, and begins as nearest neighbours.

    Where the four pixels of a place begin apart, large images keep a checker pattern. Source: Aitken et al.,
    arXiv:1707.02937, section 3.3.
    """
    layer = convolution(width, 4 * channels)
    weight = layer.get_parameter("weight")
    with torch.no_grad():
        weight.copy_(weight[::4].repeat_interleave(4, 0))
    return [layer, nn.PixelShuffle(2)]


def _normalised(config: Config, width: int) -> list[nn.Module]:
    """Return what follows each of G's convolutions: batch normalisation, the activation, dropout if there is any."""
    act = activation(config.g_activation, nn.LeakyReLU(SLOPE))
    return [nn.BatchNorm2d(width), act, *dropout(config.g_dropout)]


def discriminator_layers(config: Config, *, size: int, channels: int) -> list[nn.Module]:
    """Return layers from images to (N, discriminator_features), the input of D's linear layer."""
    half, quarter, *sides = _d_sides(size)
    first, second = (_d_width_at(side, size, config) for side in (half, quarter))
    layers = [
        nn.PixelUnshuffle(2),
        ChannelsLast(),
        convolution(4 * channels, first),
        *_activated(config),
        convolution(first, second, kernel_size=4, stride=2),
        *_activated(config),
    ]
    for inputs, outputs in pairwise(_d_width_at(side, size, config) for side in (quarter, *sides)):
        layers += [convolution(inputs, outputs, stride=2), *_activated(config)]
    return [*layers, FlattenChannelsLast()]


def discriminator_features(config: Config, *, size: int) -> int:
    """Return the number of features of one image after D's convolutions, for each channel that is seen alone."""
    *_, last = _d_sides(size)
    return _d_width_at(last, size, config) * last**2


def _d_sides(size: int) -> list[int]:
    """Return the sides of D's maps: 1/2, 1/4 and 1/8 of the image's size, rounded up, then halved until 4 pixels."""
    sides = [size // 2, size // 4, -(-size // 8)]
    while sides[-1] > 4:
        sides.append(-(-sides[-1] // 2))
    return sides


def _width_at(side: int, width: int) -> int:
    """Return the channels of maps with this side: all up to 12 pixels, then half at each doubling."""
    return max(1, width >> sum(side > limit for limit in (12, 24, 48)))


def _d_width_at(side: int, size: int, config: Config) -> int:
    """Return the channels of D's maps: twice as many up to 6 pixels, a quarter of them at 1/2 of the image's size."""
    largest = {size // 2: config.d_width // 4, size // 4: config.d_width}
    natural = 2 * config.d_width if side <= 6 else _width_at(side, config.d_width)
    return min(natural, largest.get(side, natural))


def _activated(config: Config) -> list[nn.Module]:
    return [activation(config.d_activation, nn.LeakyReLU(SLOPE)), *dropout(config.d_dropout)]
