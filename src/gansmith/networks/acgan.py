"""The networks of auxiliary classifier GANs: G is conditioned on a class, which D must predict.

Source: Odena, Olah and Shlens, arXiv:1610.09585, table 2 (CIFAR-10), with two upsampling layers in G for images
of 28 or 32 pixels. The classifier itself is a choice of the config (d_conditioning).
"""

from torch import nn

from gansmith.config import Config
from gansmith.data.images import ImageSpec
from gansmith.networks.conditional import Discriminator, Generator, image_channels, latent_inputs
from gansmith.networks.layers import SLOPE, activation, dropout, map_sides, refuse_size, refuse_unused, stddev_features

NUM_CONVOLUTIONS = 6  # of D; every other one halves the size


def acgan(spec: ImageSpec, config: Config) -> tuple[nn.Module, nn.Module]:
    """Return G with `g_width` channels at 1/2 of the image's size and twice as many below, and D of six convolutions.

    Each of D's convolutions has twice the channels of the one before; the sixth has `d_width`, and so have two more for
    each more halving that larger images take.
    """
    refuse_size(spec, config)
    refuse_unused(config, "g_dropout")
    return _generator(spec, config), _discriminator(spec, config)


def _generator(spec: ImageSpec, config: Config) -> nn.Module:
    width, (side, *sides) = config.g_width, map_sides(spec.size)
    layers: list[nn.Module] = [
        nn.Linear(latent_inputs(spec, config), 2 * width * side**2),
        activation(config.g_activation, nn.ReLU()),
        nn.Unflatten(1, (2 * width, side, side)),
    ]
    for side in sides[:-1]:
        narrow = width if side == sides[-2] else 2 * width
        layers += [
            nn.ConvTranspose2d(2 * width, narrow, kernel_size=5, stride=2, padding=2, output_padding=1),
            nn.BatchNorm2d(narrow),
            activation(config.g_activation, nn.ReLU()),
        ]
    layers += [
        nn.ConvTranspose2d(width, spec.channels, kernel_size=5, stride=2, padding=2, output_padding=1),
        nn.Tanh(),
    ]
    return Generator(nn.Sequential(*layers), spec, config)


def _discriminator(spec: ImageSpec, config: Config) -> nn.Module:
    layers: list[nn.Module] = []
    inputs, side = image_channels(spec, config), spec.size
    for index in range(2 * len(map_sides(spec.size))):
        stride, outputs = 2 - index % 2, max(1, config.d_width >> max(0, NUM_CONVOLUTIONS - 1 - index))
        layers += [nn.Conv2d(inputs, outputs, kernel_size=3, stride=stride, padding=1)]
        layers += [nn.BatchNorm2d(outputs)] if index else []
        layers += [activation(config.d_activation, nn.LeakyReLU(SLOPE)), *dropout(config.d_dropout)]
        inputs, side = outputs, -(-side // stride)
    num_features = config.d_width * side**2
    head = nn.Linear(num_features + stddev_features(config), 1)
    return Discriminator(nn.Sequential(*layers, nn.Flatten()), head, num_features, spec, config)
