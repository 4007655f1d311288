"""Draws the 5x5 grid of this hand-in: python evaluation.py

The grader calls generate(z) with the latents of the grid and with others, and runs this file as it stands here.
Change the generator as you like. Keep the names Z_DIM and generate, what generate takes and returns, and grid.png.
"""

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn

SEED = 504  # of the assignment
SIZE, CHANNELS = 28, 1  # of the images
Z_DIM = 64

HERE = Path(__file__).parent


class Generator(nn.Module):
    """(N, Z_DIM) -> (N, CHANNELS, SIZE, SIZE) in [-1, 1]."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.small, self.width = SIZE // 4, width
        self.first = nn.Linear(Z_DIM, 4 * width * self.small**2)
        self.layers = nn.Sequential(
            nn.BatchNorm2d(4 * width), nn.ReLU(),
            nn.ConvTranspose2d(4 * width, 2 * width, 4, stride=2, padding=1),
            nn.BatchNorm2d(2 * width), nn.ReLU(),
            nn.ConvTranspose2d(2 * width, CHANNELS, 4, stride=2, padding=1), nn.Tanh(),
        )  # fmt: skip

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        """Return images of latents."""
        images: torch.Tensor = self.layers(self.first(z).view(-1, 4 * self.width, self.small, self.small))
        return images


def save(G: Generator, path: Path = HERE / "generator.npz") -> None:
    """Write the weights as plain arrays, which run no code when they are read."""
    np.savez(path, **{name: value.detach().cpu().numpy() for name, value in G.state_dict().items()})


def load(path: Path = HERE / "generator.npz") -> Generator:
    """Return the generator with the weights in a file."""
    G = Generator()
    with np.load(path) as arrays:
        G.load_state_dict({name: torch.from_numpy(np.asarray(arrays[name])) for name in arrays.files})
    return G.eval()


@torch.no_grad()
def generate(z: np.ndarray) -> np.ndarray:
    """Return images (N, CHANNELS, SIZE, SIZE) in [-1, 1] of latents z, a float32 NumPy array (N, Z_DIM)."""
    images: np.ndarray = load()(torch.from_numpy(z)).numpy()
    return images


def main() -> None:
    z = np.random.RandomState(SEED).normal(size=(25, Z_DIM)).astype(np.float32)
    images = ((generate(z) + 1) * 127.5).round().clip(0, 255).astype(np.uint8)
    tiles = images.reshape(5, 5, CHANNELS, SIZE, SIZE).transpose(0, 3, 1, 4, 2)
    picture = Image.fromarray(tiles.reshape(5 * SIZE, 5 * SIZE, CHANNELS).squeeze())
    factor = max(1, round(400 / picture.width))
    picture = picture.resize((factor * picture.width, factor * picture.height), Image.Resampling.NEAREST)
    picture.save(HERE / "grid.png", dpi=(picture.width / 4, picture.width / 4))  # four inches wide


if __name__ == "__main__":
    main()
