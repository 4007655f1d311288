"""A small StyleGAN2: a mapping network from latents to styles, and convolutions modulated by the styles.

Source: Karras et al., arXiv:1912.04958, sections 2.2 and 4.1, and StyleGAN, arXiv:1812.04948, section 3.1 (mixing) and
appendix B (truncation). Differences: three scales (more for larger images), four mapping layers instead of eight, no
noise inputs (so an image is a function of its latent alone), no path length regularisation, and He's initialisation
instead of the equalised learning rate. The mapping network keeps its learning-rate multiplier of 0.01, without which
styles collapse.
"""

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.functional import leaky_relu

from gansmith.config import Config
from gansmith.data.images import ImageSpec
from gansmith.errors import ConfigError
from gansmith.networks.conditional import Discriminator, image_channels
from gansmith.networks.layers import (
    SLOPE,
    Doubled,
    SlowLinear,
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
from gansmith.processes import own_rows, whole
from gansmith.randomness import drawn

MAPPING_LAYERS = 4
MAPPING_LR = 0.01  # learning-rate multiplier. Source: arXiv:1812.04948, appendix C


def stylegan_lite(spec: ImageSpec, config: Config) -> tuple[nn.Module, nn.Module]:
    """Return G and D with `g_width` and `d_width` channels at up to 1/4 of the size, half as many at each doubling."""
    refuse_size(spec, config)
    refuse_unused(config, "d_dropout", "g_dropout")
    refuse_widths(config, g_width=4, d_width=4)
    if config.g_conditioning != "auto" or config.g_activation != "default":
        raise ConfigError(
            "stylegan-lite's mapping network is conditioned on y, and its generator has its own activation; leave "
            "g_conditioning at auto and g_activation at default"
        )
    return Generator(spec, config), _discriminator(spec, config)


class Generator(nn.Module):
    """Latents and class ids to styles, styles to images.

    Attributes:
        truncation: psi, by which the distance of styles from `mean_styles` is multiplied.
        mean_styles: (K, style_dim) the mean style of each class id; None without truncation.
    """

    def __init__(self, spec: ImageSpec, config: Config) -> None:
        super().__init__()
        style_dim, (side, *_) = config.latent_dim, (sides := map_sides(spec.size))
        widths = halved_widths(config.g_width, sides)
        self.mixing = config.style_mixing
        self.embedding = nn.Embedding(max(spec.num_classes, 1), config.latent_dim)
        mapping: list[nn.Module] = []
        for inputs in [2 * config.latent_dim] + (MAPPING_LAYERS - 1) * [style_dim]:
            mapping += [SlowLinear(inputs, style_dim, MAPPING_LR), nn.LeakyReLU(SLOPE)]
        self.mapping = nn.Sequential(*mapping)
        self.start = nn.Parameter(torch.randn(widths[0], side, side))
        channels = [width for width in widths for _ in range(2)]
        self.layers = nn.ModuleList(
            StyledConvolution(inputs, outputs, style_dim)
            for inputs, outputs in zip([widths[0], *channels], channels, strict=False)
        )
        self.to_image = nn.ModuleList(ToImage(width, spec.channels, style_dim) for width in widths)
        self.upsample = Doubled()
        self.truncation = 1.0
        self.mean_styles: Tensor | None = None

    def forward(self, z: Tensor, y: Tensor) -> Tensor:
        style = self.style(z, y)
        if self.mean_styles is not None:
            style = torch.lerp(self.mean_styles[y], style, self.truncation)
        styles = self._mixed(style, z, y) if self.training and self.mixing else [style] * len(self.layers)
        maps = self.start.expand(z.shape[0], -1, -1, -1)
        images: Tensor | None = None
        for level, to_image in enumerate(self.to_image):
            first, second = 2 * level, 2 * level + 1
            maps = self.layers[first](self.upsample(maps) if level else maps, styles[first])
            maps = self.layers[second](maps, styles[second])
            added = to_image(maps, styles[second])
            images = added if images is None else self.upsample(images) + added
        assert images is not None
        return images.tanh()  # (N, C, H, W)

    def style(self, z: Tensor, y: Tensor) -> Tensor:
        """Return (N, style_dim) styles of normalised latents, concatenated with the embeddings of y."""
        z = z * (z.square().mean(1, keepdim=True) + 1e-8).rsqrt()
        style: Tensor = self.mapping(torch.cat([z, self.embedding(y)], dim=1))
        return style

    def _mixed(self, style: Tensor, z: Tensor, y: Tensor) -> list[Tensor]:
        """Return (N, style_dim) styles for each layer; a share of images takes the later ones from another latent."""
        other = self.style(own_rows(whole(z).roll(1, 0)), y)
        layers = len(self.layers)
        first_of_other = drawn(lambda rows: torch.randint(1, layers, (rows, 1)), len(z), device=z.device)
        is_mixed = drawn(lambda rows: torch.rand(rows, 1), len(z), device=z.device) < self.mixing
        first_of_other = first_of_other.where(is_mixed, layers)
        return [torch.where(first_of_other > layer, style, other) for layer in range(layers)]

    def truncate(self, strength: float) -> None:
        """Turn on the truncation trick: move styles towards the mean of their class id, 1 not at all, 0 fully."""
        rng = torch.Generator().manual_seed(0)
        z = torch.randn(1024, self.embedding.embedding_dim, generator=rng).to(self.start.device)
        with torch.no_grad():
            y = torch.arange(self.embedding.num_embeddings, device=z.device)
            self.mean_styles = torch.stack([self.style(z, i.expand(len(z))).mean(0) for i in y])
        self.truncation = strength


class _Style(nn.Linear):
    """The factors of a modulated convolution's inputs, which begin around one under any `weight_init`."""

    keeps_bias = True


class Modulated(nn.Module):
    """A modulated convolution, with or without demodulation. Source: arXiv:1912.04958, eq. 1 and 3.

    It scales the inputs and outputs of an ordinary convolution instead of each image's weights; the result equals that
    of the source's grouped convolution.
    """

    def __init__(self, inputs: int, outputs: int, style_dim: int, *, kernel_size: int, demodulates: bool) -> None:
        super().__init__()
        self.style = _Style(style_dim, inputs)
        nn.init.normal_(self.style.weight, std=style_dim**-0.5)
        nn.init.ones_(self.style.bias)
        self.convolution = nn.Conv2d(inputs, outputs, kernel_size=kernel_size, padding=kernel_size // 2, bias=False)
        nn.init.normal_(self.convolution.weight, std=(inputs * kernel_size**2) ** -0.5)
        self.bias = nn.Parameter(torch.zeros(outputs, 1, 1))
        self.demodulates = demodulates

    def forward(self, maps: Tensor, style: Tensor) -> Tensor:
        scale = self.style(style)  # (N, inputs)
        maps = self.convolution(maps * scale[:, :, None, None])
        if self.demodulates:
            squares = self.convolution.weight.square().sum((2, 3))  # (outputs, inputs)
            maps = maps * (scale.square() @ squares.T + 1e-8).rsqrt()[:, :, None, None]
        return maps + self.bias


class StyledConvolution(Modulated):
    """A modulated and demodulated 3x3 convolution with a leaky ReLU."""

    def __init__(self, inputs: int, outputs: int, style_dim: int) -> None:
        super().__init__(inputs, outputs, style_dim, kernel_size=3, demodulates=True)

    def forward(self, maps: Tensor, style: Tensor) -> Tensor:
        return leaky_relu(super().forward(maps, style), SLOPE) * 2**0.5


class ToImage(Modulated):
    """A modulated 1x1 convolution to image channels, without demodulation."""

    def __init__(self, inputs: int, channels: int, style_dim: int) -> None:
        super().__init__(inputs, channels, style_dim, kernel_size=1, demodulates=False)


def _discriminator(spec: ImageSpec, config: Config) -> nn.Module:
    side, *_ = sides = map_sides(spec.size)
    wide, choice = config.d_width, config.d_activation
    layers = nn.Sequential(
        convolution(image_channels(spec, config), wide // 4, kernel_size=1),
        activation(choice, nn.LeakyReLU(SLOPE)),
        *[DownBlock(inputs, outputs, choice) for inputs, outputs in pairwise(reversed(halved_widths(wide, sides)))],
    )
    head = nn.Sequential(
        convolution(wide + stddev_features(config), wide),
        activation(choice, nn.LeakyReLU(SLOPE)),
        nn.Flatten(),
        he_normal(nn.Linear(wide * side**2, wide)),
        activation(choice, nn.LeakyReLU(SLOPE)),
        nn.Linear(wide, 1),
    )
    return Discriminator(layers, head, wide * side**2, spec, config)


class DownBlock(nn.Module):
    """A residual block that halves the size, with a 1x1 convolution as its shortcut, scaled to keep the variance."""

    def __init__(self, inputs: int, outputs: int, choice: str) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            convolution(inputs, inputs),
            activation(choice, nn.LeakyReLU(SLOPE)),
            convolution(inputs, outputs),
            activation(choice, nn.LeakyReLU(SLOPE)),
            nn.AvgPool2d(2),
        )
        self.shortcut = nn.Sequential(nn.AvgPool2d(2), nn.Conv2d(inputs, outputs, kernel_size=1, bias=False))

    def forward(self, maps: Tensor) -> Tensor:
        changed: Tensor = (self.layers(maps) + self.shortcut(maps)) * 0.5**0.5
        return changed
