"""The 25 tiles of the grid: what they are conditioned on, chosen before any image is generated, and what they lack."""

import torch
from torch import Tensor

from gansmith.data.images import to_float
from gansmith.metrics.features import FeatureNetwork
from gansmith.sampling import Model
from gansmith.training.inputs import TrainingData

TILES = 25


def tile_ids(model: Model, data: TrainingData) -> Tensor:
    """Return (25,) the class id of each tile, by a rule that looks at training images and never at generated ones.

    Labels take turns. Clusters are sorted so that neighbours look alike (Ward's tree over the mean image of each, its
    leaves in optimal order) and divided into 25 equal shares of the training images. Each tile takes the largest
    cluster of its share, since large clusters are the most typical, or the one in the middle of its share where no
    cluster lies in it. So every kind of image that makes up a twenty-fifth of the data is met without reading a label.
    """
    if model.conditioning.has_labels:
        labels = model.conditioning.known_labels.tolist()
        return model.conditioning.draw(seed=0, count=TILES, labels=labels)
    count = len(model.conditioning)
    if count == 1:
        return torch.zeros(TILES, dtype=torch.int64)
    order = _sorted_by_look(data, count)
    frequencies = model.conditioning.frequencies[order]
    shares = frequencies.cumsum(0)
    share_of = ((shares - frequencies / 2) / shares[-1] * TILES).long()
    points = (torch.arange(TILES, dtype=torch.float64) + 0.5) / TILES * shares[-1]
    tiles = torch.searchsorted(shares, points).clamp(max=count - 1)
    for tile in share_of.unique().tolist():
        tiles[tile] = torch.where(share_of == tile, frequencies, -1.0).argmax()
    return order[tiles]


def _sorted_by_look(data: TrainingData, count: int) -> Tensor:
    """Return the `count` clusters in an order in which neighbours have similar mean images."""
    from scipy.cluster.hierarchy import leaves_list, linkage

    pixels = data.train.pixels.flatten(1).float()
    sizes = torch.bincount(data.y, minlength=count).clamp(min=1)
    means = torch.zeros(count, pixels.shape[1]).index_add_(0, data.y, pixels) / sizes[:, None]
    return torch.from_numpy(leaves_list(linkage(means.numpy(), "ward", optimal_ordering=True))).long()


def missing_classes(images: Tensor, classifier: FeatureNetwork) -> list[int]:
    """Return the classes that the classifier assigns to none of these images, uint8 (N, C, H, W)."""
    with torch.no_grad():
        found = set(classifier(to_float(images)).argmax(1).tolist())
    return sorted(set(range(classifier.num_classes)) - found)
