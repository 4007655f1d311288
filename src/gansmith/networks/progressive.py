"""Progressive growing: training begins with small images and doubles their size, fading in the new layers.

Source: Karras et al., arXiv:1710.10196, section 2 and appendix A. Its pixelwise normalisation and equalised learning
rate are left out, so that every export format has G's layers; weights have He's initialisation. Images outside the
networks always have their full size: G upsamples its smaller images, and D downsamples its inputs.
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, interpolate

from gansmith.config import Config
from gansmith.data.images import ImageSpec
from gansmith.networks.conditional import Discriminator, Generator, image_channels, latent_inputs
from gansmith.networks.layers import (
    SLOPE,
    activation,
    convolution,
    halved_widths,
    he_normal,
    map_sides,
    refuse_size,
    refuse_unused,
    refuse_widths,
    stddev_features,
)


def progressive(spec: ImageSpec, config: Config) -> tuple[nn.Module, nn.Module]:
    """Return G and D with `g_width` and `d_width` channels at up to 1/4 of the size, half as many at each doubling."""
    refuse_size(spec, config)
    refuse_unused(config, "d_dropout", "g_dropout")
    refuse_widths(config, g_width=4, d_width=4)
    return _generator(spec, config), _discriminator(spec, config)


def growth_at(progress: float, doublings: int) -> float:
    """Return the growth at this share of a run: 0 at the smallest size, 1 after a doubling, between them in fades.

    All phases have equal length, as in the source; with two doublings they are 1/4, fade, 1/2, fade, full size.
    """
    phase = (2 * doublings + 1) * progress
    return sum(min(1.0, max(0.0, phase - (2 * index + 1.0))) for index in range(doublings))


def grow(network: nn.Module, progress: float) -> None:
    """Set the growth of all growing modules in this network to that at this share of a run."""
    for module in network.modules():
        if isinstance(module, Growing):
            module.growth = growth_at(progress, module.num_doublings)


def fade_detail(images: Tensor, module: "Growing") -> Tensor:
    """Return real images (N, C, H, W) with as much of the detail of the next size as has faded in.

    G's images mix two sizes then, so D would know real ones by their detail alone. Source: arXiv:1710.10196, section 2.
    """
    complete, fading = module.phase()
    if not fading:
        return images
    factor = 1 << (module.num_doublings - complete - 1)
    larger = _downsample(images, factor)
    return _upsample(torch.lerp(_upsample(_downsample(larger, 2), 2), larger, fading), factor)


def restart_idle(optimizer: torch.optim.Optimizer) -> None:
    """Set the count of steps of weights that had no gradient yet to 0, so that Adam's first step on them is one.

    The source's code resets both optimisers whenever a size begins.
    """
    for state in optimizer.state.values():
        if "exp_avg_sq" in state:
            state["step"].mul_(state["exp_avg_sq"].any().to(state["step"]))


class Growing(nn.Module):
    """A module with a growth that is part of its state dict; fully grown by default."""

    def __init__(self, num_doublings: int) -> None:
        super().__init__()
        self.num_doublings = num_doublings
        self.growth = float(num_doublings)

    def get_extra_state(self) -> Tensor:
        return torch.tensor(self.growth, dtype=torch.float64)

    def set_extra_state(self, state: Tensor) -> None:
        self.growth = float(state)

    def phase(self) -> tuple[int, float]:
        """Return the number of complete doublings, and how far the next one has faded in."""
        return int(self.growth), self.growth - int(self.growth)


class GrowingGenerator(Growing):
    """Latents (N, F) to images, computed at the size it has grown to and upsampled to full size."""

    def __init__(self, inputs: int, spec: ImageSpec, config: Config) -> None:
        side, *sides = map_sides(spec.size)
        super().__init__(num_doublings=len(sides))
        widths = halved_widths(config.g_width, [side, *sides])
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
            images = (1 - fading) * _upsample(images, 2) + fading * larger  # not lerp: Keras has no such layer
            complete += 1
        images = torch.tanh(_upsample(images, 1 << (self.num_doublings - complete)))
        return images  # (N, C, H, W)


class GrowingDiscriminator(Growing):
    """Images to maps (N, C, h, w) of the smallest size, downsampled first to the size it has grown to."""

    def __init__(self, channels: int, spec: ImageSpec, config: Config) -> None:
        sides = map_sides(spec.size)
        super().__init__(num_doublings=len(sides) - 1)
        widths, act = halved_widths(config.d_width, sides), config.d_activation
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
        maps: Tensor = self.from_image[complete](_downsample(images, 1 << (self.num_doublings - complete)))
        if fading:
            larger = self.from_image[complete + 1](_downsample(images, 1 << (self.num_doublings - complete - 1)))
            maps = torch.lerp(maps, self.halvings[complete](larger), fading)
        for halving in reversed(self.halvings[:complete]):
            maps = halving(maps)
        return maps


def _generator(spec: ImageSpec, config: Config) -> nn.Module:
    return Generator(nn.Sequential(GrowingGenerator(latent_inputs(spec, config), spec, config)), spec, config)


def _discriminator(spec: ImageSpec, config: Config) -> nn.Module:
    width, side = config.d_width, map_sides(spec.size)[0]
    head = nn.Sequential(
        convolution(width + stddev_features(config), width),
        activation(config.d_activation, nn.LeakyReLU(SLOPE)),
        nn.Flatten(),
        he_normal(nn.Linear(width * side**2, width)),
        activation(config.d_activation, nn.LeakyReLU(SLOPE)),
        nn.Linear(width, 1),
    )
    layers = nn.Sequential(GrowingDiscriminator(image_channels(spec, config), spec, config))
    return Discriminator(layers, head, width * side**2, spec, config)


def _upsample(images: Tensor, factor: int) -> Tensor:
    return interpolate(images, scale_factor=factor, mode="nearest") if factor > 1 else images


def _downsample(images: Tensor, factor: int) -> Tensor:
    return avg_pool2d(images, factor) if factor > 1 else images
