"""A small residual pair that does its wide work at a half and a quarter of the image's size: the default."""

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, interpolate, leaky_relu, pixel_shuffle, pixel_unshuffle

from gansmith.config import Config
from gansmith.data import ImageSpec

SLOPE = 0.2


def residual(spec: ImageSpec, config: Config) -> tuple[nn.Module, nn.Module]:
    """`width` channels at a quarter of the image's size, three quarters as many at half."""
    if spec.size % 4:
        raise ValueError(f"images are {spec.size} pixels wide; the residual network needs a multiple of 4: resize them")
    return Generator(spec, config), Discriminator(spec, config)


class Generator(nn.Module):
    def __init__(self, spec: ImageSpec, config: Config) -> None:
        super().__init__()
        wide, narrow, self.side = config.width, config.width * 3 // 4, spec.size // 4
        self.embedding = nn.Embedding(max(spec.num_classes, 1), 64)
        self.project = nn.Linear(config.z_dim + 64, wide * self.side**2)
        self.coarse = Block(wide, normalise=True)
        self.narrow = nn.Conv2d(wide, narrow, kernel_size=1)
        self.fine = Block(narrow, normalise=True)
        self.out = nn.Conv2d(narrow, 4 * spec.channels, kernel_size=3, padding=1)

    def forward(self, z: Tensor, ids: Tensor) -> Tensor:
        maps = self.project(torch.cat([z, self.embedding(ids)], dim=1))
        maps = maps.view(len(z), -1, self.side, self.side).contiguous(memory_format=torch.channels_last)
        maps = self.coarse(maps)  # (N, wide, S/4, S/4)
        maps = interpolate(self.narrow(maps), scale_factor=2.0, mode="bilinear", align_corners=False)
        maps = leaky_relu(self.fine(maps), SLOPE)  # (N, narrow, S/2, S/2)
        return pixel_shuffle(self.out(maps), 2).tanh()  # (N, C, S, S)


class Discriminator(nn.Module):
    def __init__(self, spec: ImageSpec, config: Config) -> None:
        super().__init__()
        wide, narrow = config.width, config.width * 3 // 4
        self.enter = nn.Conv2d(4 * spec.channels, narrow, kernel_size=3, padding=1)
        self.fine = Block(narrow, normalise=False)
        self.widen = nn.Conv2d(narrow, wide, kernel_size=1)
        self.coarse = Block(wide, normalise=False)
        self.features = nn.Linear(wide * (spec.size // 4) ** 2, 128)
        self.judge = nn.Linear(128, 1)
        self.embedding = nn.Embedding(max(spec.num_classes, 1), 128)

    def forward(self, images: Tensor, ids: Tensor) -> Tensor:
        maps = pixel_unshuffle(images, 2).contiguous(memory_format=torch.channels_last)  # (N, 4C, S/2, S/2)
        maps = self.fine(self.enter(maps))
        maps = self.coarse(avg_pool2d(self.widen(maps), 2))  # (N, wide, S/4, S/4)
        features = leaky_relu(self.features(leaky_relu(maps, SLOPE).flatten(1)), SLOPE)  # (N, 128)
        match = (self.embedding(ids) * features).sum(1) / features.shape[1] ** 0.5
        logits: Tensor = self.judge(features).squeeze(1) + match
        return logits  # (N,)


class Block(nn.Module):
    """x + conv(act(norm(conv(act(norm(x)))))), zero at first, so that depth costs nothing at the start."""

    def __init__(self, channels: int, *, normalise: bool) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, channels, kernel_size=3, padding=1)
        self.second = nn.Conv2d(channels, channels, kernel_size=3, padding=1)
        nn.init.zeros_(self.second.weight)
        self.norms = nn.ModuleList(nn.BatchNorm2d(channels) if normalise else nn.Identity() for _ in range(2))

    def forward(self, maps: Tensor) -> Tensor:
        inner = self.first(leaky_relu(self.norms[0](maps), SLOPE))
        branch: Tensor = self.second(leaky_relu(self.norms[1](inner), SLOPE))
        return maps + branch
