"""K-means clusters as pseudo-labels, so that G and D can be conditioned on more than the labels, or without labels.

Source of the idea: self-conditioned GANs, arXiv:2006.10728; here the clusters are computed once, before training, from
pixels and edges.
"""

import contextlib
import hashlib
import logging
import math
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, pad

from gansmith.data import cache
from gansmith.data.images import labels_sha256
from gansmith.data.on_disk import OnDisk
from gansmith.randomness import rng, seeded

COMPONENTS = 50
OVERSAMPLED, POWER_ITERATIONS = 10, 4  # of the randomised singular value decomposition: further vectors, and passes
IMAGES_EACH = (
    24  # mean size at least; smaller clusters describe single images: 4,000 for 50,000 digits are worse than 2,000
)
NEGLIGIBLE = 1e-4  # times the standard deviation of the leading component; less is rounding
MAX_SIDE = 32  # in pixels: twice that takes six times as long and gigabytes for the components
MAX_PCA_IMAGES = 10_000  # images that the components are computed from
ORIENTATIONS = 8  # of edges
CELL = 4  # width in pixels of the cells that gradient lengths are pooled over, two by two
EDGE_WEIGHT = (
    2.0  # total standard deviation of edges over that of pixels: edges separate classes, pixels keep clusters tight
)
LABEL_CODES, LABEL_WEIGHT = 14, 4.0  # dimensions of a code that identify its class, and their norm
LLOYD_ITERATIONS = 20  # of k-means; later ones move few images
FIRST_CENTRES_FROM = 12_000  # images that k-means chooses its first centres from
CENTRES_FROM = 100_000  # images that it moves them by
_CHUNK, _AT_ONCE = 1000, 250  # images whose codes, and whose pixels and edges, are computed together

logger = logging.getLogger("gansmith")


def find_clusters(pixels: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Return the cluster of each image and a code for each cluster, by k-means on principal components.

    The components are those of pixels and edges together, of images averaged down to less than `2 * MAX_SIDE` pixels.
    What is found for images on disk, which takes minutes, is kept in the cache.

    Args:
        pixels: uint8 (N, C, H, W).

    Returns:
        (N,) int64 clusters, and (count, d) centres with each component scaled to unit variance, 0 where it does not
        vary. They initialise the embedding of the clusters, so that similar clusters start with similar embeddings.
    """
    return _kept(pixels, None, count, partial(_find_clusters, pixels, count))


def _find_clusters(pixels: Tensor, count: int) -> tuple[Tensor, Tensor]:
    codes, scale = _components(pixels)
    ids, centres = _by_brightness(_brightness(pixels), *_kmeans(codes, count))
    return ids, centres / scale


def find_subclusters(pixels: Tensor, labels: Tensor, count: int, *, num_labels: int) -> tuple[Tensor, Tensor]:
    """Return `count` sub-clusters of each class, as `find_clusters`; those of class c start at c * count.

    Returns:
        (N,) int64 sub-clusters, and (num_labels * count, d + LABEL_CODES) codes, whose last LABEL_CODES dimensions
        identify the class; the other dimensions are 0 for a class without images.
    """
    return _kept(pixels, labels, count, partial(_find_subclusters, pixels, labels, count, num_labels))


def _find_subclusters(pixels: Tensor, labels: Tensor, count: int, num_labels: int) -> tuple[Tensor, Tensor]:
    codes, scale = _components(pixels)
    brightness = _brightness(pixels)
    ids, centres = torch.zeros_like(labels), torch.zeros(num_labels, count, codes.shape[1])
    for label in labels.unique().tolist():
        rows = torch.nonzero(labels == label).flatten()
        found, centres[label] = _by_brightness(brightness[rows], *_kmeans(codes[rows], count))
        ids[rows] = label * count + found
    names = torch.empty(num_labels, LABEL_CODES)
    torch.nn.init.orthogonal_(names, generator=torch.Generator().manual_seed(0))
    names = LABEL_WEIGHT * torch.nn.functional.normalize(names, dim=1)
    named = torch.cat([centres / scale, names[:, None].expand(-1, count, -1)], dim=2)
    return ids, named.flatten(0, 1)


def _kept(
    pixels: Tensor, labels: Tensor | None, count: int, find: Callable[[], tuple[Tensor, Tensor]]
) -> tuple[Tensor, Tensor]:
    """Return what `find` does, found once for images on disk and kept in the cache."""
    if not isinstance(pixels, OnDisk):
        return find()
    path, rows = pixels.file.path, hashlib.sha256(pixels.rows.numpy().tobytes()).hexdigest()
    content = [cache.content_of(path), rows, labels_sha256(labels), torch.__version__]
    asked = ["labels" if labels is not None else "", count, MAX_SIDE, COMPONENTS, "by brightness"]
    identity = {"source": str(path.resolve()), "part": "clusters", "asked": asked, "content": content}
    facts = cache.remember(identity, partial(_to_lists, path, len(pixels), find))
    return torch.tensor(facts["ids"], dtype=torch.int64), torch.tensor(facts["codes"])


def _to_lists(path: Path, images: int, find: Callable[[], tuple[Tensor, Tensor]]) -> dict[str, Any]:
    logger.warning("finding clusters of %s images in %s once; kept in %s", f"{images:,}", path, cache.folder())
    ids, codes = find()
    return {"ids": ids.tolist(), "codes": codes.tolist()}


def _components(pixels: Tensor) -> tuple[Tensor, Tensor]:
    """Return (N, d) principal components, and (d,) the standard deviation of each, infinite where it is negligible."""
    read = _blocks(pixels[:: math.ceil(len(pixels) / MAX_PCA_IMAGES)])
    scales = [_spread(block) for block in read]

    def joined(blocks: tuple[Tensor, Tensor]) -> Tensor:  # in place: in color they take hundreds of megabytes
        grey, edges = (block.div_(scale) for block, scale in zip(blocks, scales, strict=True))
        return torch.cat([grey, edges.mul_(EDGE_WEIGHT)], dim=1)

    sample = joined(read)
    del read
    count, mean = min(COMPONENTS, *sample.shape), sample.mean(dim=0)
    wanted = min(COMPONENTS + OVERSAMPLED, *sample.shape)
    with seeded(rng("components")), _one_thread():  # more would round otherwise, and a run continues on any number
        _, _, axes = torch.svd_lowrank(sample.sub_(mean), wanted, niter=POWER_ITERATIONS)
    del sample
    axes = axes[:, :count].contiguous()
    codes = torch.empty(len(pixels), count)  # at once: results kept between the chunks would fragment memory
    for rows, chunk in zip(torch.arange(len(pixels)).split(_CHUNK), pixels.split(_CHUNK), strict=True):
        codes[rows] = joined(_blocks(chunk)).sub_(mean) @ axes
    deviation = codes.std(dim=0, correction=0)
    return codes, deviation.where(deviation > NEGLIGIBLE * deviation.max(), math.inf)


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _kmeans(codes: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Return (N,) the cluster of each row of (N, d), and (count, d) the centres, by Lloyd's iterations."""
    draw = rng("k-means")
    order = torch.randperm(len(codes), generator=draw)
    centres = _first_centres(codes[order[: max(FIRST_CENTRES_FROM, 2 * count)]], count, draw)
    some = codes if len(codes) <= CENTRES_FROM else codes[order[:CENTRES_FROM]]
    for _ in range(LLOYD_ITERATIONS):
        ids = _nearest(some, centres)
        sizes = torch.bincount(ids, minlength=count)[:, None]
        sums = torch.zeros_like(centres).index_add_(0, ids, some)
        centres = torch.where(sizes > 0, sums / sizes.clamp(min=1), centres)
    return _nearest(codes, centres), centres


def _first_centres(codes: Tensor, count: int, draw: torch.Generator) -> Tensor:
    """Return (count, d) of the rows (N, d), each drawn in proportion to its squared distance from those before it.

    Source: k-means++, Arthur and Vassilvitskii 2007.
    """
    norms = codes.square().sum(1)
    nearest, centres = norms.new_full((len(codes),), math.inf), codes.new_empty(count, codes.shape[1])
    chosen = torch.randint(len(codes), (1,), generator=draw)
    for centre in centres:
        centre.copy_(codes[chosen[0]])
        distances = norms + centre @ centre - 2 * (codes @ centre)
        nearest = torch.minimum(nearest, distances).clamp(min=1e-12)  # where all are equal, each is as likely
        chosen = torch.multinomial(nearest, 1, generator=draw)
    return centres


def _by_brightness(brightness: Tensor, ids: Tensor, centres: Tensor) -> tuple[Tensor, Tensor]:
    """Return clusters numbered from the darkest to the brightest, so that ids spread evenly have even brightness.

    Of 512 ids in another order the mean strays by a third of a grey level, and a calibration by it (on digits) costs a
    tenth of the FD.

    Args:
        brightness: int64 (N,) sum of each image's pixels.
        ids, centres: as `_kmeans` returns them.
    """
    sizes = torch.bincount(ids, minlength=len(centres))
    sums = torch.zeros_like(sizes).index_add_(0, ids, brightness)  # whole numbers: the same on any number of threads
    order = torch.argsort(sums.double() / sizes.clamp(min=1), stable=True)
    return torch.argsort(order)[ids], centres[order]


def _brightness(pixels: Tensor) -> Tensor:
    """Return int64 (N,) the sum of each image's pixels."""
    return torch.cat([chunk.flatten(1).sum(1, dtype=torch.int64) for chunk in pixels.split(_CHUNK)])


def _nearest(codes: Tensor, centres: Tensor) -> Tensor:
    """Return (N,) the nearest centre of each row of (N, d)."""
    halves, transposed = centres.square().sum(1) / 2, centres.T.contiguous()
    # `min` finds the same as `argmin` in half the time.
    return torch.cat([torch.addmm(halves, chunk, transposed, alpha=-1).min(1).indices for chunk in codes.split(_CHUNK)])


def _spread(block: Tensor) -> float:
    """Return the root of the total variance of (N, d); 1 where it is 0."""
    return float(block.var(dim=0, correction=0).sum().sqrt()) or 1.0


def _blocks(pixels: Tensor) -> tuple[Tensor, Tensor]:
    """Return flat pixels (N, C * H * W) in [0, 1], and `edge_histograms`, of images averaged down if they are large."""
    factor = max(1, pixels.shape[-1] // MAX_SIDE)
    blocks: tuple[Tensor, ...] = ()
    for start in range(0, len(pixels), _AT_ONCE):
        chunk = pixels[start : start + _AT_ONCE]
        small = avg_pool2d(chunk.float(), factor) if factor > 1 else chunk
        parts = small.flatten(1).float() / 255, edge_histograms(small)
        blocks = blocks or tuple(part.new_empty(len(pixels), part.shape[1]) for part in parts)
        for block, part in zip(blocks, parts, strict=True):
            block[start : start + _AT_ONCE] = part
    flat, edges = blocks
    return flat, edges


def edge_histograms(pixels: Tensor) -> Tensor:
    """Return histograms of oriented gradients, normalised to length 1 per image (0 for an image without edges).

    Gradients are central differences; each is distributed over orientations by its cosine squared, and summed over
    overlapping squares two cells wide.

    Args:
        pixels: (N, C, H, W) from 0 to 255.

    Returns:
        (N, C * ORIENTATIONS * h * w), h and w being H and W over CELL, rounded down.

    Source: Dalal and Triggs 2005, "Histograms of oriented gradients for human detection", with one norm per image.
    """
    images = pad(pixels.float() / 255, (1, 1, 1, 1), mode="replicate")
    across = images[..., 1:-1, 2:] - images[..., 1:-1, :-2]
    down = images[..., 2:, 1:-1] - images[..., :-2, 1:-1]
    # An edge has no sign, so its direction is that of twice its angle: the cosine of that times the squared length is
    # across ** 2 - down ** 2, the sine 2 * across * down. Over length ** 1.5, squares are shares of a length.
    scale = (across.square() + down.square()).clamp_(min=1e-24).pow_(-0.75)
    cosine, sine = (across.square() - down.square()).mul_(scale), (2 * across).mul_(down).mul_(scale)
    maps = cosine.new_empty(len(cosine), ORIENTATIONS, *cosine.shape[1:])
    for k in range(ORIENTATIONS // 2):  # the other half lies opposite
        angle = 2 * math.pi * k / ORIENTATIONS
        along = torch.add(cosine * math.cos(angle), sine, alpha=math.sin(angle))
        torch.clamp(along, min=0, out=maps[:, k])
        torch.clamp(along, max=0, out=maps[:, k + ORIENTATIONS // 2])
    cells = avg_pool2d(maps.square_().flatten(1, 2), 2 * CELL, stride=CELL, padding=CELL // 2)
    return torch.nn.functional.normalize(cells.flatten(1), dim=1)
