"""The networks of WGAN-GP for MNIST: 5x5 convolutions without normalisation.

Source: Gulrajani et al., arXiv:1704.00028, and its published code for MNIST, whose G crops its second scale to 1/4 of
the image's size. There images are in [0, 1] after a sigmoid, here in [-1, 1] after a tanh.
"""

from itertools import pairwise

from torch import nn

from gansmith.config import Config
from gansmith.data.images import ImageSpec
from gansmith.networks.conditional import Discriminator, Generator, image_channels, latent_inputs
from gansmith.networks.layers import SLOPE, activation, map_sides, refuse_size, refuse_unused, stddev_features


def wgan_gp(spec: ImageSpec, config: Config) -> tuple[nn.Module, nn.Module]:
    """Return G and D with `g_width` and `d_width` channels at 1/2 of the size, twice as many at 1/4, 4 times below."""
    refuse_size(spec, config)
    refuse_unused(config, "d_dropout", "g_dropout")
    return _generator(spec, config), _discriminator(spec, config)


def _generator(spec: ImageSpec, config: Config) -> nn.Module:
    sides = map_sides(spec.size, halvings=3, rounds_up=True)
    widths = _widths(config.g_width, sides)
    layers: list[nn.Module] = [
        nn.Linear(latent_inputs(spec, config), widths[0] * sides[0] ** 2),
        activation(config.g_activation, nn.ReLU()),
        nn.Unflatten(1, (widths[0], sides[0], sides[0])),
    ]
    for side, inputs, outputs in zip(sides[1:-1], widths, widths[1:], strict=False):
        layers += [_upsampling(inputs, outputs, side), activation(config.g_activation, nn.ReLU())]
    layers += [_upsampling(widths[-1], spec.channels, spec.size), nn.Tanh()]
    return Generator(nn.Sequential(*layers), spec, config)


def _discriminator(spec: ImageSpec, config: Config) -> nn.Module:
    sides = map_sides(spec.size, halvings=3, rounds_up=True)
    widths = _widths(config.d_width, sides)
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise([image_channels(spec, config), *reversed(widths)]):
        layers += [
            nn.Conv2d(inputs, outputs, kernel_size=5, stride=2, padding=2),
            activation(config.d_activation, nn.LeakyReLU(SLOPE)),
        ]
    num_features = widths[0] * sides[0] ** 2
    head = nn.Linear(num_features + stddev_features(config), 1)
    return Discriminator(nn.Sequential(*layers, nn.Flatten()), head, num_features, spec, config)


def _widths(width: int, sides: list[int]) -> list[int]:
    """Return the channels at each side but the image's own: `width` at 1/2, twice as many at 1/4, 4 times below."""
    halvings = len(sides) - 1
    return [width << min(2, left) for left in reversed(range(halvings))]


def _upsampling(inputs: int, outputs: int, side: int) -> nn.Module:
    """Return a transposed convolution to twice the size, less a row and a column at the end where `side` is odd."""
    return nn.ConvTranspose2d(inputs, outputs, kernel_size=5, stride=2, padding=2, output_padding=1 - side % 2)
