"""What is measured on the images of hand-ins: is the grid of this seed, are images copies, and of what."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from gansmith.data.image_files import open_picture
from gansmith.data.images import Images
from gansmith.errors import DataError
from gansmith.metrics.memorisation import NEAR_QUANTILE, find_nearest, fit_components
from gansmith.pictures.grids import grid

Array = NDArray[np.float64]
Box = tuple[int, int, int, int]  # left, top, right, bottom

SAME_GRID = 0.6  # likeness from which a picture is taken for a grid, however it was enlarged
# Likeness from which two generators are taken for one. Good generators that learned the same clusters draw the same
# class in the same style: independent ones reach .73 on MNIST and .82 on Fashion-MNIST. One that was trained on with
# 10,000 images keeps .88, with 40,000 .82: too near these to tell.
SAME_IMAGES = 0.9
REAL = 50_000  # training images at most that copies are looked for among
NEAR_TILES = 5  # of the grid; fewer than one in 100,000 grids of new real images have as many, if 500 are held out
LARGEST_PX = 4_000  # of a picture's side, beyond which it is made smaller, so that memory is bounded
FLAT = 24  # grey levels of 255 by which pixels of a gap may differ: frames of Matplotlib are blurred by 14
EQUAL = 0.05  # distance, over the mean one to 50 neighbours, below which two images are the same


def likeness(a: Array, b: Array) -> float:
    """Return how much more alike images of the same row are than others, 0 for none and 1 for equal images.

    It is (c - p) / (1 - p), where c is the correlation of all values and p that of `a` with the rows of `b` shifted,
    averaged over all shifts. So images that look alike because all of a set do add nothing.

    Args:
        a, b: (N, d) values, N of 2 or more.
    """
    if a.std() < 1e-9 or b.std() < 1e-9:
        return 0.0
    a, b = (a - a.mean()) / a.std(), (b - b.mean()) / b.std()
    products = a @ b.T / a.shape[1]  # (N, N)
    n = len(a)
    same = float(np.trace(products)) / n
    other = (float(products.sum()) / n - same) / (n - 1)
    if same > 0.999:
        return 1.0
    return float(np.clip((same - other) / max(1 - other, 1e-9), -1, 1))


def tiles_of(picture: Path, size: int) -> Array | None:
    """Return (25, size * size) grey levels of a picture of five rows of five; None if it cannot be read."""
    try:
        grey = open_picture(picture).convert("L")
    except DataError:
        return None
    grey.thumbnail((LARGEST_PX, LARGEST_PX), Image.Resampling.BOX)
    return split_tiles(grey, size)


def split_tiles(grey: Image.Image, size: int) -> Array:
    """Return (25, size * size) grey levels of a grey picture of five rows of five, resized, without its gaps."""
    boxes = find_tiles(np.asarray(grey, dtype=np.int16))
    if boxes:
        tiles = [grey.resize((size, size), Image.Resampling.BOX, box) for box in boxes]
        return np.stack([np.asarray(tile, dtype=np.float64).reshape(-1) for tile in tiles])
    side = 5 * size
    values = np.asarray(grey.resize((side, side), Image.Resampling.BOX), dtype=np.float64)
    return values.reshape(5, size, 5, size).transpose(0, 2, 1, 3).reshape(25, size * size)


def find_tiles(values: NDArray[np.int16]) -> list[Box]:
    """Return the places of 25 tiles that gaps or margins of one colour part; none for a plain grid.

    Each tile must be a rectangle of the same size that fills its place to the edges, so that the dark between white
    digits is no gap.

    Args:
        values: (H, W) grey levels of a picture.
    """
    flat = np.concatenate([lines[np.ptp(lines, axis=1) <= FLAT].mean(1) for lines in (values, values.T)])
    if not len(flat):
        return []
    in_gap = np.abs(values - np.int16(np.median(flat))) <= FLAT
    rows, columns = _runs(~in_gap.all(1)), _runs(~in_gap.all(0))
    if not _are_five_alike(rows) or not _are_five_alike(columns):
        return []
    boxes = [_without_blur((left, top, right, bottom), in_gap) for top, bottom in rows for left, right in columns]
    return boxes if max(max(_gap_at_edges(box, in_gap)) for box in boxes) <= 0.5 else []


def _without_blur(box: Box, in_gap: NDArray[np.bool_]) -> Box:
    """Return a tile without lines at its edges, two at most, that belong to the gap: frames may be blurred."""
    for _ in range(2):
        left, top, right, bottom = (int(share > 0.5) for share in _gap_at_edges(box, in_gap))
        box = (box[0] + left, box[1] + top, box[2] - right, box[3] - bottom)
    return box


def _gap_at_edges(box: Box, in_gap: NDArray[np.bool_]) -> list[float]:
    """Return the share of the pixels of each edge of a tile that have the colour of the gap."""
    left, top, right, bottom = box
    tile = in_gap[top:bottom, left:right]
    return [float(edge.mean()) for edge in (tile[:, 0], tile[0], tile[:, -1], tile[-1])]


def _runs(is_tile: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """Return the start and the end of each run of True values."""
    changes = np.flatnonzero(np.diff(np.concatenate(([False], is_tile, [False]))))
    return [(int(start), int(end)) for start, end in changes.reshape(-1, 2)]


def _are_five_alike(runs: list[tuple[int, int]]) -> bool:
    """Return whether there are five runs with gaps between them whose lengths differ by two pixels at most."""
    lengths = [end - start for start, end in runs]
    return len(runs) == 5 and min(lengths) > 5 and max(lengths) - min(lengths) <= 2


def grey_tiles(images: Tensor, size: int = 0) -> Array:
    """Return (25, size * size) grey levels of uint8 images (25, C, H, W), by default in their own size."""
    return split_tiles(grid(images, columns=5).convert("L"), size or images.shape[-1])


def seed_of(picture: Array, drawn: Mapping[int, Tensor]) -> int | None:
    """Return the seed whose images a picture shows, tiles (25, d); None where it is none of these."""
    size = math.isqrt(picture.shape[1])
    scores = {seed: likeness(grey_tiles(images, size), picture) for seed, images in drawn.items()}
    best = max(scores, key=scores.__getitem__)
    return best if scores[best] >= SAME_GRID else None


def distinct_share(images: Tensor) -> float:
    """Return the share of images that no other one equals."""
    counts = Counter(image.tobytes() for image in images.numpy())
    return sum(count == 1 for count in counts.values()) / len(images)


def count_copies(
    train: Images, held_out: Images, drawn: Sequence[tuple[Tensor, Tensor]], *, test: Images | None = None
) -> list[tuple[float, int]]:
    """Return, for each pair of a grid and samples, the share of samples and the tiles that are near training images.

    Near is what only one of a thousand held-out images is, by the distance to the nearest training image relative to
    that of its neighbourhood (see `metrics.memorisation`). As these were held out by us and not by the students, copies
    of them count, too, and so do those of test images.

    Args:
        drawn: uint8 images (25, C, H, W) and (N, C, H, W), of the shape of the real ones.
    """
    if not drawn:
        return []
    flat = _flat(train.shuffled(REAL).pixels)
    project = fit_components(flat)
    real = project(flat)
    unseen = [project(_flat(part.pixels)) for part in (held_out, test) if part is not None]
    limit = float(np.quantile(find_nearest(real, unseen[0]).relative, NEAR_QUANTILE))
    found = []
    for tiles, samples in drawn:  # of one hand-in at a time: as floats, those of a class take gigabytes
        fake = project(_flat(torch.cat((tiles, samples))))
        is_near = find_nearest(real, fake).relative < limit
        for also in unseen:
            is_near |= find_nearest(also, fake).relative < EQUAL
        found.append((float(is_near[len(tiles) :].mean()), int(is_near[: len(tiles)].sum())))
    return found


def _flat(pixels: Tensor) -> Array:
    flat: Array = pixels.flatten(1).float().div_(255).numpy()
    return flat


def find_pairs(grids: Mapping[str, Tensor], files: Mapping[str, Mapping[str, str]]) -> dict[str, dict[str, str]]:
    """Return, for each name, the others that have the same work, and what is the same.

    Args:
        grids: name -> images of the grid's latents, uint8 (25, C, H, W).
        files: name -> SHA-256 -> file, of `handins.own_work`.
    """
    tiles = {name: grey_tiles(images) for name, images in grids.items()}
    found: dict[str, dict[str, str]] = {name: {} for name in files}
    for a, b in combinations(files, 2):
        what = sorted({files[a][digest] for digest in files[a].keys() & files[b].keys()})
        if a in tiles and b in tiles and tiles[a].shape == tiles[b].shape:
            score = likeness(tiles[a], tiles[b])
            what += [f"images of the same latents (likeness {score:.2f})"] if score >= SAME_IMAGES else []
        if what:
            found[a][b] = found[b][a] = ", ".join(what)
    return found
