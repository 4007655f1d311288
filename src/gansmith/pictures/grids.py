"""Image grids: many small images as one picture."""

import io
import math

import torch
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from torch import Tensor

OWN_MARK = ("Software", "Gansmith")  # of grids, as a text in the file, by which data sets pass them over


def grid(images: Tensor, *, columns: int | None = None) -> Image.Image:
    """Return images uint8 (N, C, H, W) side by side without gaps, row by row, on black."""
    n, channels, height, width = images.shape
    columns = columns or math.ceil(math.sqrt(n))
    rows = math.ceil(n / columns)
    canvas = torch.zeros(rows * columns, channels, height, width, dtype=torch.uint8)
    canvas[:n] = images
    tiles = canvas.view(rows, columns, channels, height, width).permute(0, 3, 1, 4, 2)
    pixels = tiles.reshape(rows * height, columns * width, channels).numpy()
    return Image.fromarray(pixels[..., 0] if channels == 1 else pixels)


def enlarge(image: Image.Image, *, at_least_px: int = 400) -> Image.Image:
    """Return the picture with each pixel repeated a whole number of times, until its short side is this long."""
    factor = max(1, math.ceil(at_least_px / min(image.size)))
    return image.resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST)


def to_png(image: Image.Image, note: PngInfo | None = None) -> bytes:
    """Return the picture as a PNG file's bytes, with a note inside where one is given."""
    file = io.BytesIO()
    image.save(file, "PNG", pnginfo=note)
    return file.getvalue()
