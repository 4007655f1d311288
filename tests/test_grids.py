"""Grids of images: every image in its place."""

import io

import numpy as np
import torch
from PIL import Image

from gansmith.pictures.grids import enlarge, grid, to_png


def test_grids_hold_each_image_in_its_place():
    images = torch.arange(7, dtype=torch.uint8).view(7, 1, 1, 1).expand(7, 1, 2, 2)
    pixels = np.asarray(grid(images, columns=3))
    assert pixels.shape == (6, 6)
    assert pixels[::2, ::2].tolist() == [[0, 1, 2], [3, 4, 5], [6, 0, 0]]
    assert grid(torch.zeros(25, 1, 28, 28, dtype=torch.uint8)).size == (140, 140)
    assert np.asarray(grid(torch.zeros(2, 3, 4, 4, dtype=torch.uint8))).shape == (4, 8, 3)
    assert enlarge(grid(images, columns=3), at_least_px=13).size == (18, 18)


def test_pixels_are_repeated_whole_and_survive_a_png():
    pixels = torch.randint(0, 256, (1, 3, 4, 5), generator=torch.Generator().manual_seed(0)).byte()
    picture = enlarge(grid(pixels), at_least_px=8)
    assert picture.size == (10, 8)
    with Image.open(io.BytesIO(to_png(picture))) as read:
        assert np.array_equal(np.asarray(read)[::2, ::2], pixels[0].permute(1, 2, 0).numpy())
