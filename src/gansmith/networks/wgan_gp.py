"""The pair that Wasserstein GANs with a gradient penalty learned MNIST with: 5x5 convolutions and no normalisation.

Source: Gulrajani et al., arXiv:1704.00028, and its published code for MNIST, whose G cuts its second scale to a
quarter of the image's size. There images are in [0, 1] after a sigmoid, here in [-1, 1] after a tanh.
"""

from torch import nn

from gansmith.config import Config
from gansmith.data.images import ImageSpec
from gansmith.networks.layers import SLOPE, activation, refuse_size, refuse_unused, stddev_features
from gansmith.networks.conditional import Discriminator, Generator, image_channels, latent_inputs


def wgan_gp(spec: ImageSpec, config: Config) -> tuple[nn.Module, nn.Module]:
    """`g_width` and `d_width` channels at half the image's size, twice as many at each halving."""
    refuse_size(spec, config)
    refuse_unused(config, "d_dropout", "g_dropout")
    return _generator(spec, config), _discriminator(spec, config)


def _generator(spec: ImageSpec, config: Config) -> nn.Module:
    width, side = config.g_width, -(-spec.size // 8)
    spare = 2 * side - spec.size // 4  # what an eighth, rounded up and doubled, has more than a quarter
    layers = nn.Sequential(
        nn.Linear(latent_inputs(spec, config), 4 * width * side**2),
        activation(config.g_activation, nn.ReLU()),
        nn.Unflatten(1, (4 * width, side, side)),
        _doubling(4 * width, 2 * width, spare),
        activation(config.g_activation, nn.ReLU()),
        _doubling(2 * width, width),
        activation(config.g_activation, nn.ReLU()),
        _doubling(width, spec.channels),
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


def _doubling(inputs: int, outputs: int, spare: int = 0) -> nn.Module:
    """Twice the size, less `spare` (0 or 1) pixels at the right and the bottom."""
    return nn.ConvTranspose2d(inputs, outputs, kernel_size=5, stride=2, padding=2, output_padding=1 - spare)
