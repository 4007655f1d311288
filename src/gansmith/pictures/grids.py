"""Image grids: many small images as one picture."""

import io
import math

import torch
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from torch import Tensor

OWN_MARK = ("Software", "Gansmith")  # of every PNG, as a text in the file, by which data sets pass grids over


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


def to_png(image: Image.Image, **texts: str) -> bytes:
    """Return the picture as a PNG file's bytes, marked as ours, with these texts inside."""
    file, note = io.BytesIO(), PngInfo()
    for key, text in (OWN_MARK, *texts.items()):
        note.add_text(key, text)
    image.save(file, "PNG", pnginfo=note)
    return file.getvalue()
