"""A pair that begins at a quarter of the image's size and grows twice while it trains, each time by a fade.

Source: Karras et al., arXiv:1710.10196, section 2 and appendix A. Its pixelwise normalisation and equalised learning
rate are left out, so that G is made of layers every format knows; first weights are He's. Images always have their
full size outside: G enlarges what it drew, and D shrinks what it is shown.
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, interpolate

from gansmith.config import Config
from gansmith.data.images import ImageSpec
from gansmith.networks.layers import (
    stddev_features,
    SLOPE,
    activation,
    convolution,
    he_normal,
    refuse_size,
    refuse_unused,
    refuse_widths,
)
from gansmith.networks.conditional import Discriminator, Generator, image_channels, latent_inputs

GROWN = 2.0


def progressive(spec: ImageSpec, config: Config) -> tuple[nn.Module, nn.Module]:
    """`g_width` and `d_width` channels at a quarter of the image's size, half and a quarter as many above."""
    refuse_size(spec, config)
    refuse_unused(config, "d_dropout", "g_dropout")
    refuse_widths(config, g_width=4, d_width=4)
    return _generator(spec, config), _discriminator(spec, config)


def growth_at(progress: float) -> float:
    """How far a pair has grown: 0 at a quarter of the size, 1 at half, 2 at full size, in between while one fades in.

    Fifths of the run, in turn: a quarter, fade, half, fade, full. The source gives each phase as many images as the
    others too.
    """
    fifths = 5.0 * progress
    return min(1.0, max(0.0, fifths - 1.0)) + min(1.0, max(0.0, fifths - 3.0))


def grow(network: nn.Module, progress: float) -> None:
    """Give whatever grows in this network the size it has at this point of a run."""
    for module in network.modules():
        if isinstance(module, Growing):
            module.growth = growth_at(progress)


class Growing(nn.Module):
    """Something that remembers, and stores with its weights, how far it has grown; fully, unless told otherwise."""

    def __init__(self) -> None:
        super().__init__()
        self.growth = GROWN

    def get_extra_state(self) -> Tensor:
        return torch.tensor(self.growth, dtype=torch.float64)

    def set_extra_state(self, state: Tensor) -> None:
        self.growth = float(state)

    def phase(self) -> tuple[int, float]:
        """The number of doublings that are complete, and how far the next one has faded in."""
        return int(self.growth), self.growth - int(self.growth)


class Painter(Growing):
    """Latents (N, F) to images of full size, drawn at the size it has grown to."""

    def __init__(self, inputs: int, spec: ImageSpec, config: Config) -> None:
        super().__init__()
        widths, side = [config.g_width >> level for level in range(3)], spec.size // 4
        act = config.g_activation
        self.start = nn.Sequential(
            he_normal(nn.Linear(inputs, widths[0] * side**2)),
            nn.Unflatten(1, (widths[0], side, side)),
            activation(act, nn.LeakyReLU(SLOPE)),
            convolution(widths[0], widths[0]),
            activation(act, nn.LeakyReLU(SLOPE)),
        )
        self.doublings = nn.ModuleList(
            nn.Sequential(
                nn.Upsample(scale_factor=2, mode="nearest"),
                convolution(narrow, wide),
                activation(act, nn.LeakyReLU(SLOPE)),
                convolution(wide, wide),
                activation(act, nn.LeakyReLU(SLOPE)),
            )
            for narrow, wide in zip(widths, widths[1:], strict=False)
        )
        self.to_image = nn.ModuleList(nn.Conv2d(width, spec.channels, kernel_size=1) for width in widths)

    def forward(self, latents: Tensor) -> Tensor:
        complete, fading = self.phase()
        maps = self.start(latents)
        for doubling in self.doublings[:complete]:
            maps = doubling(maps)
        images = self.to_image[complete](maps)
        if fading:
            larger = self.to_image[complete + 1](self.doublings[complete](maps))
            images = (1 - fading) * _enlarge(images, 2) + fading * larger  # not lerp, which no export has a word for
            complete += 1
        images = torch.tanh(_enlarge(images, 4 >> complete))
        return images  # (N, C, H, W)


class Viewer(Growing):
    """Images of full size to maps (N, C, H/4, W/4), looked at in the size it has grown to."""

    def __init__(self, channels: int, config: Config) -> None:
        super().__init__()
        widths, act = [config.d_width >> level for level in range(3)], config.d_activation
        self.from_image = nn.ModuleList(
            nn.Sequential(nn.Conv2d(channels, width, kernel_size=1), activation(act, nn.LeakyReLU(SLOPE)))
            for width in widths
        )
        self.halvings = nn.ModuleList(
            nn.Sequential(
                convolution(wide, wide),
                activation(act, nn.LeakyReLU(SLOPE)),
                convolution(wide, narrow),
                activation(act, nn.LeakyReLU(SLOPE)),
                nn.AvgPool2d(2),
            )
            for narrow, wide in zip(widths, widths[1:], strict=False)
        )

    def forward(self, images: Tensor) -> Tensor:
        complete, fading = self.phase()
        seen = _shrink(images, 4 >> complete)
        maps: Tensor = self.from_image[complete](seen)
        if fading:
            larger = self.from_image[complete + 1](_shrink(images, 2 >> complete))
            maps = torch.lerp(maps, self.halvings[complete](larger), fading)
        for halving in reversed(self.halvings[:complete]):
            maps = halving(maps)
        return maps


def _generator(spec: ImageSpec, config: Config) -> nn.Module:
    return Generator(nn.Sequential(Painter(latent_inputs(spec, config), spec, config)), spec, config)


def _discriminator(spec: ImageSpec, config: Config) -> nn.Module:
    width, side = config.d_width, spec.size // 4
    head = nn.Sequential(
        convolution(width + stddev_features(config), width),
        activation(config.d_activation, nn.LeakyReLU(SLOPE)),
        nn.Flatten(),
        he_normal(nn.Linear(width * side**2, width)),
        activation(config.d_activation, nn.LeakyReLU(SLOPE)),
        nn.Linear(width, 1),
    )
    viewer = nn.Sequential(Viewer(image_channels(spec, config), config))
    return Discriminator(viewer, head, width * side**2, spec, config)


def _enlarge(images: Tensor, factor: int) -> Tensor:
    return interpolate(images, scale_factor=factor, mode="nearest") if factor > 1 else images


def _shrink(images: Tensor, factor: int) -> Tensor:
    return avg_pool2d(images, factor) if factor > 1 else images
