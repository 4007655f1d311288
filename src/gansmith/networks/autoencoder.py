"""An autoencoder as the discriminator: the worse it reconstructs an image, the lower its logit.

Source: BEGAN, arXiv:1703.10717, section 3.5, here with one convolution in the encoder and one in the decoder.
"""

import torch
from torch import Tensor, nn

from gansmith.config import Config
from gansmith.data.images import ImageSpec
from gansmith.errors import ConfigError
from gansmith.networks.conditional import Discriminator, image_channels
from gansmith.networks.dcgan import pooled_generator
from gansmith.networks.layers import activation, dropout, refuse_size, refuse_unused, refuse_widths

CODE = 64  # dimensions of the bottleneck


def autoencoder(spec: ImageSpec, config: Config) -> tuple[nn.Module, nn.Module]:
    """Return the generator of `dcgan-pooled`, and a D with `d_width` maps at 1/2 of the image's size.

    Class ids y enter D with the image, concatenated with it. (Multiplied, D could make its error small by making images
    dark.)
    """
    refuse_size(spec, config)
    refuse_widths(config, g_width=2)
    refuse_unused(config, "minibatch_stddev")
    if config.d_conditioning == "auto":
        config = config.replace(d_conditioning="concatenated")
    if config.d_conditioning != "concatenated":
        raise ConfigError(
            f"d_conditioning is {config.d_conditioning!r}, which the autoencoder network does not support, since its "
            "logit is a reconstruction error; choose concatenated"
        )
    maps, side = config.d_width, spec.size // 2
    layers = nn.Sequential(
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
    errors = nn.Sequential(ReconstructionError(layers, spec.channels))
    D = Discriminator(errors, NegativeMean(), spec.channels * spec.size**2, spec, config)
    return pooled_generator(spec, config), D


class ReconstructionError(nn.Module):
    """The absolute error of each pixel's reconstruction, (N, >= C, H, W) to (N, C, H, W).

    Channels after the first C are class ids, which are not reconstructed.
    """

    def __init__(self, autoencoder: nn.Module, channels: int) -> None:
        super().__init__()
        self.autoencoder, self.channels = autoencoder, channels

    def forward(self, images: Tensor) -> Tensor:
        return torch.abs(images[:, : self.channels] - self.autoencoder(images))


class NegativeMean(nn.Module):
    """The negative mean over all but the batch, (N, ...) to (N, 1); negative, so that real images get high logits."""

    def forward(self, errors: Tensor) -> Tensor:
        return -errors.flatten(1).mean(1, keepdim=True)
