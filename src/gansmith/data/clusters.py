"""Groups of similar images, found without labels, to tell both networks what no label says.

Source of the idea: self-conditioned GANs, arXiv:2006.10728; here the groups are found once, from pixels and edges.
"""

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import avg_pool2d, pad

COMPONENTS = 50
IMAGES_EACH = 24  # a cluster of fewer says too much of single images: 4,000 for 50,000 digits are worse than 2,000
NOTHING = 1e-4  # times the spread of the leading component: what is less is rounding
MOST_READ = 10_000  # images that the components are found from
ORIENTATIONS = 8  # of edges
CELL = 4  # side in pixels of the squares their lengths are summed over, two by two
EDGE_WEIGHT = 2.0  # spread of all edges over that of all pixels: edges tell kinds apart, pixels keep groups tight
LABEL_CODES, LABEL_WEIGHT = 14, 4.0  # how many numbers say which label a code belongs to, and their length
_CHUNK = 1000

Codes = NDArray[np.float32]


def find_clusters(pixels: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The cluster of each image, and a code for each cluster, by k-means on principal components of pixels and edges.

    Args:
        pixels: uint8 (N, C, H, W).

    Returns:
        (N,) int64 clusters, and (count, d) centres with each component scaled to unit variance; zeros where images do
        not differ in it. As first values of an embedding the codes let similar clusters share what is learnt, which
        random ones do not.
    """
    codes, scale = _components(pixels)
    ids, centres = _group(codes, count)
    return ids, centres / scale


def find_subclusters(pixels: Tensor, labels: Tensor, count: int, *, num_labels: int) -> tuple[Tensor, Tensor]:
    """As `find_clusters`, but `count` clusters of each label from 0 on: label L's are those from L * count on.

    Returns:
        (N,) int64 clusters, and (num_labels * count, d + LABEL_CODES) codes, whose last numbers say which label it is;
        a label without images has clusters all the same, whose codes say no more than that.
    """
    codes, scale = _components(pixels)
    ids, centres = torch.zeros_like(labels), torch.zeros(num_labels, count, codes.shape[1])
    for label in labels.unique().tolist():
        rows = torch.nonzero(labels == label).flatten()
        found, centres[label] = _group(codes[rows.numpy()], count)
        ids[rows] = label * count + found
    names = torch.empty(num_labels, LABEL_CODES)
    torch.nn.init.orthogonal_(names, generator=torch.Generator().manual_seed(0))
    names = LABEL_WEIGHT * torch.nn.functional.normalize(names, dim=1)
    named = torch.cat([centres / scale, names[:, None].expand(-1, count, -1)], dim=2)
    return ids, named.flatten(0, 1)


def _components(pixels: Tensor) -> tuple[Codes, Tensor]:
    """(N, d) principal components, and (d,) the spread of each, infinite where there is next to none."""
    from sklearn.decomposition import PCA

    read = _blocks(pixels[:: math.ceil(len(pixels) / MOST_READ)])
    scales = [_spread(block) for block in read]

    def joined(blocks: tuple[Tensor, Tensor]) -> Tensor:
        grey, edges = (block / scale for block, scale in zip(blocks, scales, strict=True))
        return torch.cat([grey, EDGE_WEIGHT * edges], dim=1)

    known = joined(read)
    pca = PCA(min(COMPONENTS, *known.shape), svd_solver="randomized", random_state=0).fit(known.numpy())
    # Not by PCA itself, whose library has threads of its own: they wait for work on the cores that torch's would use.
    mean, axes = torch.from_numpy(pca.mean_), torch.from_numpy(pca.components_)
    codes = torch.cat([(joined(_blocks(chunk)) - mean) @ axes.T for chunk in pixels.split(_CHUNK)]).numpy()
    spread = codes.std(axis=0)
    return codes, torch.from_numpy(np.where(spread > NOTHING * spread.max(), spread, np.inf)).float()


def _group(codes: Codes, count: int) -> tuple[Tensor, Tensor]:
    """(N,) the cluster of each, and (count, d) their centres."""
    from sklearn.cluster import MiniBatchKMeans

    means = MiniBatchKMeans(count, random_state=0, n_init=1, batch_size=4096).fit(codes)
    return torch.from_numpy(means.labels_).long(), torch.from_numpy(means.cluster_centers_).float()


def _spread(block: Tensor) -> float:
    """The root of the total variance of (N, d); 1 where there is none."""
    return float(block.var(dim=0, correction=0).sum().sqrt()) or 1.0


def _blocks(pixels: Tensor) -> tuple[Tensor, Tensor]:
    """Flat grey levels (N, C * H * W) in [0, 1], and `edge_histograms`."""
    return pixels.flatten(1).float() / 255, torch.cat([edge_histograms(chunk) for chunk in pixels.split(_CHUNK)])


def edge_histograms(pixels: Tensor) -> Tensor:
    """How much edge of each orientation lies about each place of an image, whose whole has length 1 (0 without any).

    Gradients are central differences; each is shared out over orientations by its cosine squared, and summed over
    overlapping squares of two cells a side.

    Args:
        pixels: uint8 (N, C, H, W).

    Returns:
        (N, C * ORIENTATIONS * h * w), h and w being H and W over CELL, rounded down.

    Source: Dalal and Triggs 2005, "Histograms of oriented gradients for human detection", with one norm an image.
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
