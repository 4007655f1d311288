"""Generators as other programs write them in torch."""

import torch
from torch import Tensor, nn


class Conditional(nn.Module):
    """Images (N, 3, 8, 8) from maps of six latents (N, 6, 1, 1) and one of five labels, which an embedding holds."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(5, 6)
        self.maps = nn.Sequential(
            nn.ConvTranspose2d(12, 8, 4), nn.BatchNorm2d(8), nn.ReLU(),
            nn.ConvTranspose2d(8, 3, 4, 2, 1), nn.Tanh(),
        )  # fmt: skip

    def forward(self, noise: Tensor, target: Tensor) -> Tensor:
        joined = torch.cat([noise, self.table(target)[:, :, None, None].to(noise.dtype)], dim=1)
        images: Tensor = self.maps(joined)
        return images
