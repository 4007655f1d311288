"""Convolutional networks with batch normalisation at two scales: the DCGAN family.

Source of the family: Radford, Metz and Chintala, arXiv:1511.06434. `dcgan` has strided and transposed convolutions,
`dcgan_keras` upsamples and pads as in the Keras examples, `dcgan_pooled` is InfoGAN's generator (arXiv:1606.03657,
table 1) with the max-pooling discriminator of a university course.
"""

from itertools import pairwise

from torch import nn

from gansmith.config import Config
from gansmith.data.images import ImageSpec
from gansmith.errors import ConfigError
from gansmith.networks.conditional import Discriminator, Generator, image_channels, latent_inputs
from gansmith.networks.layers import (
    SMALLEST_SIDE,
    PadSame,
    activation,
    dropout,
    halved_widths,
    map_sides,
    refuse_size,
    refuse_widths,
    stddev_features,
)


def dcgan(spec: ImageSpec, config: Config) -> tuple[nn.Module, nn.Module]:
    """Return G and D with half of `g_width` and `d_width` maps at 1/2 of the image's size, and all of them below."""
    refuse_size(spec, config)
    refuse_widths(config, g_width=2, d_width=2)
    side, *_ = sides = map_sides(spec.size)
    inputs = latent_inputs(spec, config)
    G: list[nn.Module] = [nn.Unflatten(1, (inputs, 1, 1)), nn.ConvTranspose2d(inputs, config.g_width, kernel_size=side)]
    for wide, narrow in pairwise([*_widths(config.g_width, sides), spec.channels]):
        G += [
            nn.BatchNorm2d(wide),
            activation(config.g_activation, nn.ReLU()),
            *dropout(config.g_dropout),
            nn.ConvTranspose2d(wide, narrow, kernel_size=4, stride=2, padding=1),
        ]
    G += [nn.Tanh()]
    D: list[nn.Module] = []
    for narrow, wide in pairwise([image_channels(spec, config), *reversed(_widths(config.d_width, sides))]):
        D += [nn.Conv2d(narrow, wide, kernel_size=4, stride=2, padding=1)]
        D += [nn.BatchNorm2d(wide)] if len(D) > 1 else []
        D += [activation(config.d_activation, nn.LeakyReLU(0.2)), *dropout(config.d_dropout)]
    head = nn.Conv2d(config.d_width + stddev_features(config), 1, kernel_size=side)
    num_features = config.d_width * side**2
    return (
        Generator(nn.Sequential(*G), spec, config),
        Discriminator(nn.Sequential(*D), head, num_features, spec, config),
    )


def _widths(width: int, sides: list[int]) -> list[int]:
    """Return the maps at each side but the image's own: half of `width` at 1/2 of its size, all of them below."""
    return halved_widths(width, sides)[:-1]


def dcgan_keras(spec: ImageSpec, config: Config) -> tuple[nn.Module, nn.Module]:
    """Return G with nearest-neighbour upsampling and D with three strided convolutions.

    G has `g_width` maps, then half as many; D goes from `d_width` maps to eight times as many. Batch normalisation has
    Keras' epsilon and a momentum of 0.8, which is 0.2 in torch's convention.
    """
    refuse_size(spec, config)
    refuse_widths(config, g_width=2, d_width=2)
    wide, (side, *sides) = config.g_width, map_sides(spec.size)
    G: list[nn.Module] = [
        nn.Linear(latent_inputs(spec, config), wide * side**2),
        activation(config.g_activation, nn.ReLU()),
        nn.Unflatten(1, (wide, side, side)),
        *dropout(config.g_dropout),
    ]
    for side in sides:
        narrow = config.g_width // 2 if side == spec.size else config.g_width
        G += [
            nn.Upsample(scale_factor=2),
            nn.Conv2d(wide, narrow, kernel_size=3, padding=1),
            nn.BatchNorm2d(narrow, eps=1e-3, momentum=0.2),
            activation(config.g_activation, nn.ReLU()),
            *dropout(config.g_dropout),
        ]
        wide = narrow
    G += [nn.Conv2d(wide, spec.channels, kernel_size=3, padding=1), nn.Tanh()]
    maps, last = config.d_width, -(-(spec.size // 4 + 1) // 2)
    D = nn.Sequential(
        PadSame(kernel_size=3, stride=2),
        nn.Conv2d(image_channels(spec, config), maps, kernel_size=3, stride=2),
        activation(config.d_activation, nn.LeakyReLU(0.2)),
        *dropout(config.d_dropout),
        PadSame(kernel_size=3, stride=2),
        nn.Conv2d(maps, 2 * maps, kernel_size=3, stride=2),
        nn.ZeroPad2d((0, 1, 0, 1)),
        nn.BatchNorm2d(2 * maps, eps=1e-3, momentum=0.2),
        activation(config.d_activation, nn.LeakyReLU(0.2)),
        *dropout(config.d_dropout),
        PadSame(kernel_size=3, stride=2),
        nn.Conv2d(2 * maps, 4 * maps, kernel_size=3, stride=2),
        nn.BatchNorm2d(4 * maps, eps=1e-3, momentum=0.2),
        activation(config.d_activation, nn.LeakyReLU(0.2)),
        *dropout(config.d_dropout),
        nn.Conv2d(4 * maps, 8 * maps, kernel_size=3, padding=1),
        nn.BatchNorm2d(8 * maps, eps=1e-3, momentum=0.2),
        activation(config.d_activation, nn.LeakyReLU(0.2)),
        *dropout(config.d_dropout),
        nn.Flatten(),
    )
    features = 8 * maps * last**2
    head = nn.Linear(features + stddev_features(config), 1)
    return Generator(nn.Sequential(*G), spec, config), Discriminator(D, head, features, spec, config)


def dcgan_pooled(spec: ImageSpec, config: Config) -> tuple[nn.Module, nn.Module]:
    """Return InfoGAN's generator and a D of unpadded convolutions and max pooling.

    D has `d_width` maps, then twice as many, and a hidden layer as wide as its input. Larger images than 40 pixels are
    convolved and pooled more often, until 8 are left.
    """
    refuse_size(spec, config)
    refuse_widths(config, g_width=2, d_width=2)
    if spec.size < 16:
        raise ConfigError(
            f"images are {spec.size} pixels wide; the dcgan-pooled network convolves without padding and needs 16 or "
            "more: resize them or choose another network"
        )
    sides = [spec.size]
    while len(sides) <= 2 or sides[-1] > SMALLEST_SIDE:
        sides.append((sides[-1] - 4) // 2)
    widths = [image_channels(spec, config), config.d_width, *[2 * config.d_width] * (len(sides) - 2)]
    D: list[nn.Module] = []
    for inputs, maps in pairwise(widths):
        D += [
            nn.Conv2d(inputs, maps, kernel_size=5),
            activation(config.d_activation, nn.LeakyReLU(0.01)),
            nn.MaxPool2d(2),
            *dropout(config.d_dropout),
        ]
    features = widths[-1] * sides[-1] ** 2
    D += [
        nn.Flatten(),
        nn.Linear(features, features),
        activation(config.d_activation, nn.LeakyReLU(0.01)),
        *dropout(config.d_dropout),
    ]
    head = nn.Linear(features + stddev_features(config), 1)
    return pooled_generator(spec, config), Discriminator(nn.Sequential(*D), head, features, spec, config)


def pooled_generator(spec: ImageSpec, config: Config) -> nn.Module:
    """Return InfoGAN's generator, with 16 times `g_width` hidden units, then `g_width` maps at 1/2 of the size.

    There are twice as many at 1/4 and below.

    Batch normalisation comes after the activations. Source: arXiv:1606.03657, table 1.
    """
    maps, (side, *sides) = config.g_width, map_sides(spec.size)
    layers: list[nn.Module] = [
        nn.Linear(latent_inputs(spec, config), 16 * maps),
        activation(config.g_activation, nn.ReLU()),
        nn.BatchNorm1d(16 * maps),
        *dropout(config.g_dropout),
        nn.Linear(16 * maps, 2 * maps * side**2),
        activation(config.g_activation, nn.ReLU()),
        nn.BatchNorm1d(2 * maps * side**2),
        *dropout(config.g_dropout),
        nn.Unflatten(1, (2 * maps, side, side)),
    ]
    for side in sides[:-1]:
        narrow = maps if side == sides[-2] else 2 * maps
        layers += [
            nn.ConvTranspose2d(2 * maps, narrow, kernel_size=4, stride=2, padding=1),
            activation(config.g_activation, nn.ReLU()),
            nn.BatchNorm2d(narrow),
            *dropout(config.g_dropout),
        ]
    layers += [nn.ConvTranspose2d(maps, spec.channels, kernel_size=4, stride=2, padding=1), nn.Tanh()]
    return Generator(nn.Sequential(*layers), spec, config)
