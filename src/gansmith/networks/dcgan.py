"""Strided convolutions down and transposed convolutions up, with batch normalisation: the DCGAN family.

Source: Radford, Metz and Chintala, arXiv:1511.06434, here in two scales for small images.
"""

from torch import Tensor, nn

from gansmith.config import Config
from gansmith.data import ImageSpec
from gansmith.networks.layers import Dropout


def dcgan(spec: ImageSpec, config: Config) -> tuple[nn.Module, nn.Module]:
    """`g_width` and `d_width` maps at a quarter of the image's size, half as many at half; ids are ignored."""
    if spec.size % 4:
        raise ValueError(f"images are {spec.size} pixels wide; the dcgan network needs a multiple of 4: resize them")
    for name, width in (("g_width", config.g_width), ("d_width", config.d_width)):
        if width % 2:
            raise ValueError(f"{name} is {width}; the dcgan network halves it: give an even number such as 256")
    return Generator(spec, config), Discriminator(spec, config)


class Generator(nn.Module):
    def __init__(self, spec: ImageSpec, config: Config) -> None:
        super().__init__()
        wide, narrow = config.g_width, config.g_width // 2
        self.layers = nn.Sequential(
            nn.Unflatten(1, (config.z_dim, 1, 1)),
            nn.ConvTranspose2d(config.z_dim, wide, kernel_size=spec.size // 4),
            nn.BatchNorm2d(wide),
            nn.ReLU(),
            nn.ConvTranspose2d(wide, narrow, kernel_size=4, stride=2, padding=1),
            nn.BatchNorm2d(narrow),
            nn.ReLU(),
            nn.ConvTranspose2d(narrow, spec.channels, kernel_size=4, stride=2, padding=1),
            nn.Tanh(),
        )

    def forward(self, z: Tensor, ids: Tensor) -> Tensor:
        images: Tensor = self.layers(z)
        return images  # (N, C, H, W)


class Discriminator(nn.Module):
    def __init__(self, spec: ImageSpec, config: Config) -> None:
        super().__init__()
        wide, narrow = config.d_width, config.d_width // 2
        self.layers = nn.Sequential(
            nn.Conv2d(spec.channels, narrow, kernel_size=4, stride=2, padding=1),
            nn.LeakyReLU(0.2),
            Dropout(config.dropout),
            nn.Conv2d(narrow, wide, kernel_size=4, stride=2, padding=1),
            nn.BatchNorm2d(wide),
            nn.LeakyReLU(0.2),
            Dropout(config.dropout),
            nn.Conv2d(wide, 1, kernel_size=spec.size // 4),
            nn.Flatten(),
        )

    def forward(self, images: Tensor, ids: Tensor) -> Tensor:
        logits: Tensor = self.layers(images)
        return logits.squeeze(1)  # (N,)
