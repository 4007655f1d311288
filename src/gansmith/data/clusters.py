"""K-means clusters as pseudo-labels, so that G and D can be conditioned on more than the labels, or without labels.

Source of the idea: self-conditioned GANs, arXiv:2006.10728; here the clusters are computed once, before training, from
pixels and edges.
"""

import hashlib
import logging
import math
from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import avg_pool2d, pad

from gansmith.data import cache
from gansmith.data.images import labels_sha256
from gansmith.data.on_disk import OnDisk

COMPONENTS = 50
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
_CHUNK, _AT_ONCE = 1000, 250  # images whose codes, and whose pixels and edges, are computed together

Codes = NDArray[np.float32]

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
    ids, centres = _kmeans(codes, count)
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
    ids, centres = torch.zeros_like(labels), torch.zeros(num_labels, count, codes.shape[1])
    for label in labels.unique().tolist():
        rows = torch.nonzero(labels == label).flatten()
        found, centres[label] = _kmeans(codes[rows.numpy()], count)
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
    content = [cache.content_of(path), rows, labels_sha256(labels), version("scikit-learn")]
    asked = ["labels" if labels is not None else "", count, MAX_SIDE, COMPONENTS]
    identity = {"source": str(path.resolve()), "part": "clusters", "asked": asked, "content": content}
    facts = cache.remember(identity, partial(_to_lists, path, len(pixels), find))
    return torch.tensor(facts["ids"], dtype=torch.int64), torch.tensor(facts["codes"])


def _to_lists(path: Path, images: int, find: Callable[[], tuple[Tensor, Tensor]]) -> dict[str, Any]:
    logger.warning("finding clusters of %s images in %s once; kept in %s", f"{images:,}", path, cache.folder())
    ids, codes = find()
    return {"ids": ids.tolist(), "codes": codes.tolist()}


def _components(pixels: Tensor) -> tuple[Codes, Tensor]:
    """Return (N, d) principal components, and (d,) the standard deviation of each, infinite where it is negligible."""
    from sklearn.decomposition import PCA

    read = _blocks(pixels[:: math.ceil(len(pixels) / MAX_PCA_IMAGES)])
    scales = [_spread(block) for block in read]

    def joined(blocks: tuple[Tensor, Tensor]) -> Tensor:  # in place: in color they take hundreds of megabytes
        grey, edges = (block.div_(scale) for block, scale in zip(blocks, scales, strict=True))
        return torch.cat([grey, edges.mul_(EDGE_WEIGHT)], dim=1)

    sample = joined(read)
    del read
    count = min(COMPONENTS, *sample.shape)
    pca = PCA(count, svd_solver="randomized", random_state=0, copy=False).fit(sample.numpy())
    del sample
    # Projected by torch, not by PCA.transform: NumPy's threads would busy-wait on the cores that torch's need.
    mean, axes = torch.from_numpy(pca.mean_), torch.from_numpy(pca.components_)
    codes = torch.empty(len(pixels), len(axes))  # at once: results kept between the chunks would fragment memory
    for rows, chunk in zip(torch.arange(len(pixels)).split(_CHUNK), pixels.split(_CHUNK), strict=True):
        codes[rows] = (joined(_blocks(chunk)) - mean) @ axes.T
    deviation = codes.numpy().std(axis=0)
    return codes.numpy(), torch.from_numpy(
        np.where(deviation > NEGLIGIBLE * deviation.max(), deviation, np.inf)
    ).float()


def _kmeans(codes: Codes, count: int) -> tuple[Tensor, Tensor]:
    """Return (N,) the cluster of each row, and (count, d) the centres."""
    from sklearn.cluster import MiniBatchKMeans

    means = MiniBatchKMeans(count, random_state=0, n_init=1, batch_size=4096).fit(codes)
    return torch.from_numpy(means.labels_).long(), torch.from_numpy(means.cluster_centers_).float()


def _spread(block: Tensor) -> float:
    """Return the root of the total variance of (N, d); 1 where it is 0."""
    return float(block.var(dim=0, correction=0).sum().sqrt()) or 1.0


def _blocks(pixels: Tensor) -> tuple[Tensor, Tensor]:
    """Return flat pixels (N, C * H * W) in [0, 1], and `edge_histograms`, of images averaged down if they are large."""
    factor = max(1, pixels.shape[-1] // MAX_SIDE)
    blocks: tuple[Tensor, ...] = ()
    for rows in torch.arange(len(pixels)).split(_AT_ONCE):
        chunk = pixels[rows]
        small = avg_pool2d(chunk.float(), factor) if factor > 1 else chunk
        parts = small.flatten(1).float() / 255, edge_histograms(small)
        blocks = blocks or tuple(part.new_empty(len(pixels), part.shape[1]) for part in parts)
        for block, part in zip(blocks, parts, strict=True):
            block[rows] = part
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
    lengths = torch.hypot(across, down)
    doubled = 2 * torch.atan2(down, across)  # an edge has no sign
    maps = [
        lengths * torch.cos(doubled - 2 * math.pi * k / ORIENTATIONS).clamp(min=0).square() for k in range(ORIENTATIONS)
    ]
    sums = avg_pool2d(pad(torch.cat(maps, dim=1), [CELL // 2] * 4), 2 * CELL, stride=CELL).flatten(1)
    return torch.nn.functional.normalize(sums, dim=1)
