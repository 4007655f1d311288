"""R3GAN: residual blocks with grouped convolutions and no normalisation, D the mirror image of G.

Source: Huang et al., arXiv:2501.05441, section 4, and its published code. Differences, for small images on few cores:
three scales (more for larger images) with one block each, half the width at the last doublings, a final tanh in G (the
source's images are unbounded), bilinear resampling, and by default a projection discriminator.
"""

from itertools import pairwise

from torch import Tensor, nn

from gansmith.config import Config
from gansmith.data.images import ImageSpec
from gansmith.errors import ConfigError
from gansmith.networks.conditional import Discriminator, Generator, image_channels, latent_inputs
from gansmith.networks.layers import (
    SLOPE,
    Doubled,
    activation,
    halved_widths,
    map_sides,
    refuse_size,
    refuse_unused,
    stddev_features,
)

GROUP = 16  # channels in a group of a 3x3 convolution, as published


def r3gan(spec: ImageSpec, config: Config) -> tuple[nn.Module, nn.Module]:
    """Return G and D with `g_width` and `d_width` channels at up to 1/4 of the size, half as many at each doubling."""
    refuse_size(spec, config)
    refuse_unused(config, "d_dropout", "g_dropout")
    if config.spectral_norm:
        raise ConfigError(
            "spectral_norm divides weights by their largest singular value, and r3gan's blocks end in weights that "
            "start at zero; omit it or choose another network"
        )
    for name, width in (("g_width", config.g_width), ("d_width", config.d_width)):
        if width % 32 and width not in (4, 8, 16):
            raise ConfigError(f"{name} is {width}; r3gan's groups of 16 channels need a multiple of 32 such as 64")
    return _generator(spec, config), _discriminator(spec, config)


def _generator(spec: ImageSpec, config: Config) -> nn.Module:
    side, *_ = sides = map_sides(spec.size)
    scales, wide, last = len(sides), config.g_width, config.g_width // 4
    layers: list[nn.Module] = [
        _with_gain(nn.Linear(latent_inputs(spec, config), wide, bias=False)),
        nn.Unflatten(1, (wide, 1, 1)),
        # A learned (side, side) map for each channel, scaled by one input: the transpose of D's last convolution.
        _with_gain(nn.Conv2d(wide, wide, kernel_size=side, padding=side - 1, groups=wide, bias=False), gain=side),
        Block(wide, config.g_activation, scales),
    ]
    for inputs, outputs in pairwise(halved_widths(wide, sides)):
        layers += [
            _with_gain(nn.Conv2d(inputs, outputs, kernel_size=1, bias=False)),
            Doubled(),
            Block(outputs, config.g_activation, scales),
        ]
    layers += [_with_gain(nn.Conv2d(last, spec.channels, kernel_size=1, bias=False)), nn.Tanh()]
    return Generator(nn.Sequential(*layers), spec, config)


def _discriminator(spec: ImageSpec, config: Config) -> nn.Module:
    side, *_ = sides = map_sides(spec.size)
    scales, wide, first = len(sides), config.d_width, config.d_width // 4
    layers: list[nn.Module] = [
        _with_gain(nn.Conv2d(image_channels(spec, config), first, kernel_size=1, bias=False)),
        Block(first, config.d_activation, scales),
    ]
    for inputs, outputs in pairwise(reversed(halved_widths(wide, sides))):
        layers += [
            nn.AvgPool2d(2),
            _with_gain(nn.Conv2d(inputs, outputs, kernel_size=1, bias=False)),
            Block(outputs, config.d_activation, scales),
        ]
    layers += [_with_gain(nn.Conv2d(wide, wide, kernel_size=side, groups=wide, bias=False)), nn.Flatten()]
    head = _with_gain(nn.Linear(wide + stddev_features(config), 1, bias=False))
    return Discriminator(nn.Sequential(*layers), head, wide, spec, config)


class Block(nn.Module):
    """An inverted residual block: 1x1 to twice the width, grouped 3x3, 1x1 back; the identity at initialisation.

    Initial weights are scaled so that activations keep their variance without normalisation. Source: Fixup, Zhang et
    al., arXiv:1901.09321, section 3.

    Args:
        scales: number of such blocks in the network.
    """

    def __init__(self, width: int, choice: str, scales: int) -> None:
        super().__init__()
        gain = nn.init.calculate_gain("leaky_relu", SLOPE) * scales ** (-1 / 4)  # three layers: -1 / (2 * 3 - 2)
        groups = max(1, 2 * width // GROUP)
        self.layers = nn.Sequential(
            _with_gain(nn.Conv2d(width, 2 * width, kernel_size=1), gain),
            activation(choice, nn.LeakyReLU(SLOPE)),
            _with_gain(nn.Conv2d(2 * width, 2 * width, kernel_size=3, padding=1, groups=groups), gain),
            activation(choice, nn.LeakyReLU(SLOPE)),
            _with_gain(nn.Conv2d(2 * width, width, kernel_size=1, bias=False), 0.0),
        )

    def forward(self, maps: Tensor) -> Tensor:
        changed: Tensor = maps + self.layers(maps)
        return changed


def _with_gain(layer: nn.Conv2d | nn.Linear, gain: float = 1.0) -> nn.Module:
    """Return the layer with normal initial weights that multiply the standard deviation of activations by `gain`."""
    nn.init.normal_(layer.weight, std=gain * layer.weight[0].numel() ** -0.5)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer
