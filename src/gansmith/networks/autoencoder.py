"""A discriminator that redraws images through a narrow code: what it cannot redraw does not look real to it.

Source: BEGAN, arXiv:1703.10717, section 3.4, here with one convolution each way.
"""

import torch
from torch import Tensor, nn

from gansmith.config import Config
from gansmith.data.images import ImageSpec
from gansmith.errors import ConfigError
from gansmith.networks.dcgan import pooled_generator
from gansmith.networks.layers import activation, dropout, refuse_size, refuse_unused, refuse_widths
from gansmith.networks.conditional import Discriminator, image_channels

CODE = 64  # numbers an image is redrawn from


def autoencoder(spec: ImageSpec, config: Config) -> tuple[nn.Module, nn.Module]:
    """G of `dcgan-pooled`; D has `d_width` maps at half the image's size on either side of its code.

    Ids must enter D with the image, beside it unless the config says multiplied.
    """
    refuse_size(spec, config)
    refuse_widths(config, g_width=2)
    refuse_unused(config, "minibatch_stddev")
    if config.d_conditioning == "auto":
        config = config.replace(d_conditioning="concatenated")
    if config.d_conditioning not in ("concatenated", "multiplied"):
        raise ConfigError(
            f"d_conditioning is {config.d_conditioning!r}, which the autoencoder network has no place for, since it "
            "judges images by how well it redraws them; choose concatenated or multiplied"
        )
    maps, side = config.d_width, spec.size // 2
    redraw = nn.Sequential(
        nn.Conv2d(image_channels(spec, config), maps, kernel_size=4, stride=2, padding=1),
        activation(config.d_activation, nn.ELU()),
        *dropout(config.d_dropout),
        nn.Flatten(),
        nn.Linear(maps * side**2, CODE),
        nn.Linear(CODE, maps * side**2),
        activation(config.d_activation, nn.ELU()),
        *dropout(config.d_dropout),
        nn.Unflatten(1, (maps, side, side)),
        nn.ConvTranspose2d(maps, spec.channels, kernel_size=4, stride=2, padding=1),
    )
    errors = nn.Sequential(ReconstructionError(redraw, spec.channels))
    D = Discriminator(errors, NegativeMean(), spec.channels * spec.size**2, spec, config)
    return pooled_generator(spec, config), D


class ReconstructionError(nn.Module):
    """(N, >= C, H, W) to how far each pixel of the first C channels is from the redrawn one."""

    def __init__(self, redraw: nn.Module, channels: int) -> None:
        super().__init__()
        self.redraw, self.channels = redraw, channels

    def forward(self, images: Tensor) -> Tensor:
        return torch.abs(images[:, : self.channels] - self.redraw(images))


class NegativeMean(nn.Module):
    """(N, ...) to (N, 1): the mean over everything but the batch, negated, since a logit rises with realness."""

    def forward(self, errors: Tensor) -> Tensor:
        return -errors.flatten(1).mean(1, keepdim=True)
