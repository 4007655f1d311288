"""The networks of WGAN-GP for MNIST: 5x5 convolutions without normalisation.

Source: Gulrajani et al., arXiv:1704.00028, and its published code for MNIST, whose G crops its second scale to 1/4 of
the image's size. There images are in [0, 1] after a sigmoid, here in [-1, 1] after a tanh.
"""

from torch import nn

from gansmith.config import Config
from gansmith.data.images import ImageSpec
from gansmith.networks.conditional import Discriminator, Generator, image_channels, latent_inputs
from gansmith.networks.layers import SLOPE, activation, refuse_size, refuse_unused, stddev_features


def wgan_gp(spec: ImageSpec, config: Config) -> tuple[nn.Module, nn.Module]:
    """Return G and D with `g_width` and `d_width` channels at 1/2 of the image size, twice as many at each halving."""
    refuse_size(spec, config)
    refuse_unused(config, "d_dropout", "g_dropout")
    return _generator(spec, config), _discriminator(spec, config)


def _generator(spec: ImageSpec, config: Config) -> nn.Module:
    width, side = config.g_width, -(-spec.size // 8)
    excess = 2 * side - spec.size // 4  # 0 or 1: twice the rounded-up eighth less a quarter
    layers = nn.Sequential(
        nn.Linear(latent_inputs(spec, config), 4 * width * side**2),
        activation(config.g_activation, nn.ReLU()),
        nn.Unflatten(1, (4 * width, side, side)),
        _upsampling(4 * width, 2 * width, excess),
        activation(config.g_activation, nn.ReLU()),
        _upsampling(2 * width, width),
        activation(config.g_activation, nn.ReLU()),
        _upsampling(width, spec.channels),
        nn.Tanh(),
    )
    return Generator(layers, spec, config)


def _discriminator(spec: ImageSpec, config: Config) -> nn.Module:
    width, num_features = config.d_width, 4 * config.d_width * (-(-spec.size // 8)) ** 2
    layers: list[nn.Module] = []
    for inputs, outputs in ((image_channels(spec, config), width), (width, 2 * width), (2 * width, 4 * width)):
        layers += [
            nn.Conv2d(inputs, outputs, kernel_size=5, stride=2, padding=2),
            activation(config.d_activation, nn.LeakyReLU(SLOPE)),
        ]
    head = nn.Linear(num_features + stddev_features(config), 1)
    return Discriminator(nn.Sequential(*layers, nn.Flatten()), head, num_features, spec, config)


def _upsampling(inputs: int, outputs: int, excess: int = 0) -> nn.Module:
    """Return a transposed convolution to twice the size, less `excess` (0 or 1) pixels at the right and the bottom."""
    return nn.ConvTranspose2d(inputs, outputs, kernel_size=5, stride=2, padding=2, output_padding=1 - excess)
