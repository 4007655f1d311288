"""The 25 tiles of the grid: which clusters they show, chosen before any image is generated, and what they lack."""

import copy
from bisect import bisect_right
from collections.abc import Collection, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from gansmith.data.images import CHUNK, to_float
from gansmith.metrics.features import FeatureNetwork
from gansmith.sampling import Model, numpy_latents
from gansmith.signature import as_exported
from gansmith.training.inputs import TrainingData

TILES = 25


def reorder_clusters(model: Model, data: TrainingData, *, seed: int) -> Model:
    """Return the generator with its clusters in an order in which the latents of the grid show 25 kinds of image.

    The rule looks at training images and never at generated ones or labels. Clusters are sorted so that neighbours look
    alike (Ward's tree over the mean image of each, its leaves in optimal order) and divided into 25 equal shares of the
    training images. The largest cluster of each share, since large ones are the most typical, is put where one of the
    25 latents of the seed (`numpy_latents`, as an exported file takes them) chooses it. Frequencies stay as they are.
    """
    count = len(model.conditioning)
    if model.conditioning.has_labels or count == 1:
        return model
    frequencies = model.conditioning.frequencies / model.conditioning.frequencies.sum()
    normal = as_exported(model).config.replace(latent_distribution="normal")
    places = torch.special.ndtr(numpy_latents(normal, seed=seed, count=TILES)[:, -1]).tolist()
    order = _put_at(places, typical_clusters(frequencies, _sorted_by_look(data, count)), frequencies.tolist())
    G = copy.deepcopy(model.network)
    for table in G.modules():
        if isinstance(table, nn.Embedding):
            table.weight = nn.Parameter(table.weight[order], requires_grad=False)
    z, y = torch.zeros(TILES, model.config.latent_dim), torch.arange(TILES) % count
    with torch.no_grad():
        if not torch.equal(G(z, y), model.network(z, order[y])):  # a network of one's own without such tables
            return model
    return replace(
        model, network=G, conditioning=replace(model.conditioning, frequencies=frequencies[order], codes=None)
    )


def typical_clusters(frequencies: Tensor, order: Tensor) -> list[int]:
    """Return the largest cluster of each of 25 equal shares of the clusters in this order.

    Where no cluster lies in a share, it is the one at its middle.
    """
    frequencies = frequencies[order]
    edges = frequencies.cumsum(0)
    share_of = ((edges - frequencies / 2) / edges[-1] * TILES).long()
    points = (torch.arange(TILES, dtype=torch.float64) + 0.5) / TILES * edges[-1]
    chosen = torch.searchsorted(edges, points).clamp(max=len(order) - 1)
    for share in share_of.unique().tolist():
        chosen[share] = torch.where(share_of == share, frequencies, -1.0).argmax()
    found: list[int] = order[chosen].tolist()
    return found


def _put_at(places: Sequence[float], chosen: Sequence[int], frequencies: Sequence[float]) -> Tensor:
    """Return all clusters, in an order in which each of `chosen` lies, where possible, at one of as many places."""
    others = sorted(set(range(len(frequencies))) - set(chosen), key=frequencies.__getitem__)
    order: list[int] = []
    end = 0.0
    for place, cluster in zip(sorted(places), chosen, strict=True):
        if place < end or cluster in order:
            continue
        while end + frequencies[cluster] <= place:
            fitting = bisect_right(others, place - end, key=frequencies.__getitem__)
            if not fitting:
                break
            order.append(others.pop(fitting - 1))
            end += frequencies[order[-1]]
        order.append(cluster)
        end += frequencies[cluster]
    rest = [cluster for cluster in dict.fromkeys((*chosen, *others)) if cluster not in order]
    return torch.tensor(order + rest)


def _sorted_by_look(data: TrainingData, count: int) -> Tensor:
    """Return the `count` clusters in an order in which neighbours have similar mean images."""
    from scipy.cluster.hierarchy import leaves_list, linkage

    rows, pixels = data.train.some_rows(), data.train.pixels
    sums = torch.zeros(count, pixels[0].numel())
    for some in rows.split(CHUNK):
        sums.index_add_(0, data.y[some], pixels.index_select(0, some).flatten(1).float())
    means = sums / torch.bincount(data.y[rows], minlength=count).clamp(min=1)[:, None]
    return torch.from_numpy(leaves_list(linkage(means.numpy(), "ward", optimal_ordering=True))).long()


def missing_classes(images: Tensor, classifier: FeatureNetwork, classes: Collection[int]) -> list[int]:
    """Return those of these classes that the classifier assigns to none of these images, uint8 (N, C, H, W)."""
    with torch.no_grad():
        found = set(classifier(to_float(images)).argmax(1).tolist())
    return sorted(set(classes) - found)
