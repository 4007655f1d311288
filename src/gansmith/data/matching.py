"""Pictures drawn or photographed by hand, brought to the form of images of a set: polarity, size and place.

Sets such as MNIST show one figure on a plain ground, always as large and in the same place. A drawing that does not
is nothing that a generator of such images can come near to.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps
from torch import Tensor

from gansmith.data.objects import as_pictures
from gansmith.data.prepare import Preparation, laid_over, look_at, prepare
from gansmith.errors import DataError

MAX_PICTURES = 1000
PLAIN = 0.9  # share of a set's outermost pixels that are nearly as bright as its ground
NEAR = 24  # grey levels they may differ by
FAINT = 0.25  # of the strongest mark's contrast; weaker ones are paper, shadows or noise
LARGEST = 1024  # width and height that are looked at; photographs have more
BLANK = 20  # grey levels of contrast below which a picture shows nothing

Grey = NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Figures:
    """How the images of a set show their figures.

    Attributes:
        ground: brightness around the figures, 0 to 255.
        extent: median of the longer side of a figure's bounding box, in pixels.
        center: (row, column) of the figures' centre of mass, in pixels, on average.
    """

    ground: float
    extent: float
    center: tuple[float, float]


def fit_pictures(pictures: Any, samples: Tensor, *, resize: str = "crop") -> tuple[Tensor, tuple[str, ...]]:
    """Return pictures in the form of other images, uint8 (N, C, size, size), and a sentence on what was done to them.

    Where these are grey figures on a plain ground, a picture of the opposite polarity is inverted, and one of another
    size is cropped to what it shows, which becomes as large and lies where the figures do.

    Args:
        pictures: a path, a PIL image, an array (H, W[, C]) or (N, H, W[, C]), or a list of these.
        samples: uint8 (M, C, size, size).
        resize: crop, pad or stretch, for other pictures that are not square.

    Raises DataError for what is no picture, and for one that shows nothing.
    """
    found = as_pictures(pictures)
    if not 1 <= len(found) <= MAX_PICTURES:
        raise DataError(f"{len(found):,} pictures were given; give 1 to {MAX_PICTURES:,}")
    size, channels = samples.shape[-1], samples.shape[1]
    how = Preparation(size, resize, "grey" if channels == 1 else "rgb", "white")
    figures = _figures_of(samples) if channels == 1 else None
    if figures is None:
        return torch.from_numpy(np.stack([prepare(picture, how) for picture in found])), ()
    fitted, inverted, placed = [], 0, 0
    for picture in found:
        grey = _grey(picture)
        ground = float(np.median(_edge(grey)))
        is_opposite = abs(ground - figures.ground) > 127
        inverted += is_opposite
        if grey.shape != (size, size):
            grey, placed = _placed(_marks(grey, ground), figures, size), placed + 1
        elif is_opposite:
            grey = 255 - grey
        fitted.append(grey.round().clip(0, 255).astype(np.uint8)[None])
    notices = []
    if inverted:
        shown = "light on dark" if figures.ground < 128 else "dark on light"
        notices.append(f"{_of(inverted, len(found))} turned to the opposite: the generator's images are {shown}")
    if placed:
        what = "it shows" if len(found) == 1 else "they show"
        notices.append(f"{_of(placed, len(found))} cropped to what {what}, at the size of the generator's")
    return torch.from_numpy(np.stack(fitted)), tuple(notices)


def _of(count: int, many: int) -> str:
    return "the picture is" if many == 1 else f"{count} of {many} pictures are"


def _grey(picture: Image.Image) -> Grey:
    """Return the grey levels (H, W) of a picture, transparency laid over what its marks differ from."""
    if max(picture.size) > LARGEST * min(picture.size):
        width, height = picture.size
        raise DataError(f"the picture is {width:,} x {height:,} pixels, too narrow to show anything; crop it")
    if max(picture.size) > LARGEST:
        picture = ImageOps.contain(picture, (LARGEST, LARGEST))
    if picture.mode in ("LA", "RGBA"):
        picture = laid_over(picture, 0 if look_at(picture).is_content_light else 255)
    return np.asarray(picture.convert("L"), dtype=np.float32)


def _edge(grey: Grey) -> Grey:
    """Return the outermost pixels, a fortieth of the side or one pixel deep."""
    deep = max(1, grey.shape[-1] // 40)
    inner = np.zeros(grey.shape[-2:], dtype=bool)
    inner[deep:-deep, deep:-deep] = True
    edge: Grey = grey[..., ~inner]
    return edge


def opposite_ground(real: Tensor, samples: Tensor) -> str:
    """Return a sentence where the figures of uint8 (N, 1, H, W) samples are dark on light and real ones not, or so."""
    if real.shape[1] != 1 or samples.shape[1] != 1:
        return ""
    own, other = (_ground(pixels[:1000, 0].numpy().astype(np.float32)) for pixels in (samples, real))
    if own is None or other is None or abs(own - other) <= 127:
        return ""
    kinds = ("light on dark", "dark on light")
    return f"they are {kinds[own > other]}, and the real images {kinds[own < other]}"


def _ground(grey: Grey) -> float | None:
    """Return the grey level of the edges of images (M, H, W); None where they have no plain ground."""
    edges = _edge(grey)
    ground = float(np.median(edges))
    return ground if (np.abs(edges - ground) <= NEAR).mean() >= PLAIN else None


def _figures_of(samples: Tensor) -> Figures | None:
    """Return how uint8 (M, 1, size, size) images show their figures; None where they have no plain ground."""
    grey = samples[:, 0].numpy().astype(np.float32)
    ground = _ground(grey)
    if ground is None:
        return None
    boxes, centers = zip(*(_box_and_center(np.abs(each - ground) / 255) for each in grey), strict=True)
    sides = [max(bottom - top, right - left) for top, bottom, left, right in boxes]
    row, column = np.mean(centers, axis=0)
    return Figures(ground, float(np.median(sides)), (float(row), float(column)))


def _box_and_center(marks: Grey) -> tuple[tuple[int, int, int, int], tuple[float, float]]:
    """Return top, bottom, left and right of marks (H, W) between 0 and 1, and their centre of mass (row, column)."""
    seen = marks > FAINT
    if not seen.any():
        middle = (marks.shape[0] - 1) / 2
        return (0, marks.shape[0], 0, marks.shape[1]), (middle, middle)
    rows, columns = np.flatnonzero(seen.any(1)), np.flatnonzero(seen.any(0))
    weights = marks * seen
    row = float((weights.sum(1) * np.arange(marks.shape[0])).sum() / weights.sum())
    column = float((weights.sum(0) * np.arange(marks.shape[1])).sum() / weights.sum())
    return (int(rows[0]), int(rows[-1]) + 1, int(columns[0]), int(columns[-1]) + 1), (row, column)


def _marks(grey: Grey, ground: float) -> Grey:
    """Return how strong the marks of a picture are, 0 to 1, without what is faint."""
    contrast = grey - ground
    darkest, lightest = -np.percentile(contrast, 0.5), np.percentile(contrast, 99.5)
    strongest = max(darkest, lightest)
    if strongest < BLANK:
        raise DataError("the picture shows nothing: all of it is about as bright as its edge; draw a larger figure")
    marks = (contrast if lightest > darkest else -contrast) / strongest
    strong: Grey = np.clip((marks - FAINT) / (1 - FAINT), 0, 1).astype(np.float32)
    return strong


def _placed(marks: Grey, figures: Figures, size: int) -> Grey:
    """Return (size, size) grey levels of marks as large and where a set's figures are."""
    (top, bottom, left, right), _ = _box_and_center(marks)
    longer = max(bottom - top, right - left)
    shape = [max(1, round((high - low) * figures.extent / longer)) for low, high in ((left, right), (top, bottom))]
    cut = Image.fromarray(marks[top:bottom, left:right] * 255)
    small = np.asarray(cut.resize((shape[0], shape[1]), Image.Resampling.BILINEAR), dtype=np.float32)
    _, (row, column) = _box_and_center(small / 255)
    y = min(max(0, round(figures.center[0] - row)), size - shape[1])
    x = min(max(0, round(figures.center[1] - column)), size - shape[0])
    strength = np.zeros((size, size), dtype=np.float32)
    strength[y : y + shape[1], x : x + shape[0]] = small
    levels: Grey = figures.ground + strength / 255 * ((255 if figures.ground < 128 else 0) - figures.ground)
    return levels
