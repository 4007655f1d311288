"""A generator as its exported files compute it: G(z) where it was trained without labels, G(z, label) with them.

Clusters and sub-clusters are nothing that a file's user knows. Where a generator has them, its latents are one number
longer in a file, and this last number u chooses among those of the label: cluster k for t[k - 1] < u <= t[k], where
the thresholds t are the quantiles of their cumulative training frequencies. So clusters are drawn as often as in
training by latents of one distribution, and one that did not occur is never drawn.
"""

import math
from dataclasses import replace

import torch
from torch import Tensor, nn

from gansmith.conditioning import Conditioning
from gansmith.sampling import Model, device_of

BEYOND = 1e9  # a threshold that no latent passes
SMALLEST = 2.0**-30  # size of a threshold, so that a latent that is not equal to it differs by at least 2**-54


def as_exported(model: Model) -> Model:
    """Return the generator with latents and labels as its exported files take them; one that needs no change as it is.

    Its latents are one number longer where it has clusters, or several sub-clusters of a label, and standard normal
    where they lay on a sphere, onto which they are then projected. Its class ids are labels, or 0 without them.
    """
    config, conditioning = model.config, model.conditioning
    has_clusters = conditioning.ids_per_class > 1 or (len(conditioning) > 1 and not conditioning.has_labels)
    on_sphere = config.latent_distribution == "sphere"
    if not has_clusters and not on_sphere:
        return model
    thresholds = cluster_thresholds(conditioning, config.latent_distribution) if has_clusters else None
    network = ExportedGenerator(model.network, thresholds, radius=math.sqrt(config.latent_dim) if on_sphere else None)
    shares = conditioning.label_shares if conditioning.has_labels else conditioning.frequencies[None]
    frequencies = shares.sum(1) / shares.sum()
    config = config.replace(
        latent_dim=config.latent_dim + has_clusters,
        latent_distribution="normal" if on_sphere else config.latent_distribution,
        conditioning="labels" if conditioning.has_labels else "none",
        clusters_per_class=1,
    )
    exported = Conditioning(frequencies, has_labels=conditioning.has_labels, in_latents=has_clusters)
    network.to(device_of(model.network))
    return replace(model, network=network.eval(), config=config, conditioning=exported)


def cluster_thresholds(conditioning: Conditioning, distribution: str) -> Tensor:
    """Return float32 (labels, clusters of each - 1), ascending in each row; one row where there are no labels.

    Args:
        distribution: of the latent number that is compared with them, as in `Config.latent_distribution`.
    """
    shares = conditioning.label_shares if conditioning.has_labels else conditioning.frequencies[None]
    edges = shares.cumsum(1)
    below = (edges / edges[:, -1:])[:, :-1]
    found = 2 * below - 1 if distribution == "uniform" else torch.special.ndtri(below)
    found = torch.where(found.abs() < SMALLEST, SMALLEST, found)
    found = torch.where(below > 0, found, -BEYOND)
    return torch.where(below < 1, found, BEYOND).float()  # also for a label without images


class ExportedGenerator(nn.Module):
    """G(z, label) for a network that takes class ids: the last number of z chooses among the clusters of the label.

    Args:
        network: from latents and class ids to images.
        thresholds: as `cluster_thresholds` returns them; None where labels are class ids.
        radius: of the sphere onto which latents are projected; None for no sphere.
    """

    thresholds: Tensor | None

    def __init__(self, network: nn.Module, thresholds: Tensor | None, radius: float | None) -> None:
        super().__init__()
        self.network, self.radius = network, radius
        self.register_buffer("thresholds", thresholds)

    def forward(self, z: Tensor, label: Tensor) -> Tensor:
        images: Tensor = self.network(*self.split_inputs(z, label))
        return images

    def split_inputs(self, z: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
        """Return the latents and class ids that the network is given for latents and labels."""
        y = label
        if self.thresholds is not None:
            z, u = z[:, :-1], z[:, -1:]
            y = (u > nn.functional.embedding(label, self.thresholds)).sum(1)
            if len(self.thresholds) > 1:
                y = y + label * (self.thresholds.shape[1] + 1)
        if self.radius is not None:
            z = self.radius * nn.functional.normalize(z, dim=1)
        return z, y
