"""The residual networks of SNGAN; spectral normalisation itself is a choice of the config.

Source: Miyato et al., arXiv:1802.05957, section 4 and appendix B.4 (CIFAR-10). Here G starts at 1/4 of the size of
images of 28 or 32 pixels.
"""

import torch
from torch import Tensor, nn

from gansmith.config import Config
from gansmith.data.images import ImageSpec
from gansmith.networks.conditional import Discriminator, Generator, image_channels, latent_inputs
from gansmith.networks.layers import activation, map_sides, refuse_size, refuse_unused, stddev_features


def sngan(spec: ImageSpec, config: Config) -> tuple[nn.Module, nn.Module]:
    """Return G with `g_width` and D with `d_width` channels in all blocks."""
    refuse_size(spec, config)
    refuse_unused(config, "d_dropout", "g_dropout")
    return _generator(spec, config), _discriminator(spec, config)


def _generator(spec: ImageSpec, config: Config) -> nn.Module:
    width, (side, *sides) = config.g_width, map_sides(spec.size)
    layers = nn.Sequential(
        _xavier(nn.Linear(latent_inputs(spec, config), width * side**2)),
        nn.Unflatten(1, (width, side, side)),
        *[UpBlock(width, config.g_activation) for _ in sides],
        nn.BatchNorm2d(width),
        activation(config.g_activation, nn.ReLU()),
        _xavier(nn.Conv2d(width, spec.channels, kernel_size=3, padding=1)),
        nn.Tanh(),
    )
    return Generator(layers, spec, config)


def _discriminator(spec: ImageSpec, config: Config) -> nn.Module:
    width, choice = config.d_width, config.d_activation
    layers = nn.Sequential(
        FirstBlock(image_channels(spec, config), width, choice),
        *[DownBlock(width, choice, halves=True) for _ in map_sides(spec.size)[2:]],
        DownBlock(width, choice),
        DownBlock(width, choice),
        activation(choice, nn.ReLU()),
        GlobalSumPool(),
    )
    head = _xavier(nn.Linear(width + stddev_features(config), 1))
    return Discriminator(layers, head, width, spec, config)


class UpBlock(nn.Module):
    """A residual block of G that doubles the size, with batch normalisation."""

    def __init__(self, width: int, choice: str) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.BatchNorm2d(width),
            activation(choice, nn.ReLU()),
            nn.Upsample(scale_factor=2, mode="nearest"),
            _xavier(nn.Conv2d(width, width, kernel_size=3, padding=1), gain=2**0.5),
            nn.BatchNorm2d(width),
            activation(choice, nn.ReLU()),
            _xavier(nn.Conv2d(width, width, kernel_size=3, padding=1), gain=2**0.5),
        )
        self.shortcut = nn.Sequential(
            nn.Upsample(scale_factor=2, mode="nearest"), _xavier(nn.Conv2d(width, width, kernel_size=1))
        )

    def forward(self, maps: Tensor) -> Tensor:
        larger: Tensor = self.layers(maps) + self.shortcut(maps)
        return larger


class FirstBlock(nn.Module):
    """The first residual block of D, which halves the size; it has no ReLU before its first convolution."""

    def __init__(self, inputs: int, width: int, choice: str) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            _xavier(nn.Conv2d(inputs, width, kernel_size=3, padding=1), gain=2**0.5),
            activation(choice, nn.ReLU()),
            _xavier(nn.Conv2d(width, width, kernel_size=3, padding=1), gain=2**0.5),
            nn.AvgPool2d(2),
        )
        self.shortcut = nn.Sequential(nn.AvgPool2d(2), _xavier(nn.Conv2d(inputs, width, kernel_size=1)))

    def forward(self, images: Tensor) -> Tensor:
        maps: Tensor = self.layers(images) + self.shortcut(images)
        return maps


class DownBlock(nn.Module):
    """A residual block of D; if it halves the size, its shortcut has a 1x1 convolution."""

    def __init__(self, width: int, choice: str, *, halves: bool = False) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            activation(choice, nn.ReLU()),
            _xavier(nn.Conv2d(width, width, kernel_size=3, padding=1), gain=2**0.5),
            activation(choice, nn.ReLU()),
            _xavier(nn.Conv2d(width, width, kernel_size=3, padding=1), gain=2**0.5),
        )
        self.shortcut = _xavier(nn.Conv2d(width, width, kernel_size=1)) if halves else nn.Identity()
        self.pool = nn.AvgPool2d(2) if halves else nn.Identity()

    def forward(self, maps: Tensor) -> Tensor:
        changed: Tensor = self.pool(self.layers(maps) + self.shortcut(maps))
        return changed


class GlobalSumPool(nn.Module):
    """The sum over all positions of each map, (N, C, H, W) to (N, C)."""

    def forward(self, maps: Tensor) -> Tensor:
        return torch.sum(maps, dim=(2, 3))  # (N, C)


def _xavier(layer: nn.Conv2d | nn.Linear, *, gain: float = 1.0) -> nn.Module:
    """Return the layer with uniform initial weights after Glorot and Bengio (2010), and zero biases."""
    nn.init.xavier_uniform_(layer.weight, gain=gain)
    assert layer.bias is not None
    nn.init.zeros_(layer.bias)
    return layer
