"""What G and D are conditioned on: class ids y, which are labels, k-means clusters or sub-clusters of each label.

A label with sub-clusters has several ids in a row: id = label * ids_per_class + sub-cluster. `Conditioning` is the one
place that knows this.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from gansmith.config import Config
from gansmith.data.clusters import IMAGES_EACH, find_clusters, find_subclusters
from gansmith.data.images import Images, ImageSpec
from gansmith.errors import ConfigError
from gansmith.randomness import rng

GOLDEN = (math.sqrt(5) - 1) / 2  # multiples of it, less whole numbers, lie evenly between 0 and 1 from the first on


@dataclass(frozen=True)
class Conditioning:
    """The class ids of a generator, how often each is drawn, and the label each belongs to.

    Attributes:
        frequencies: float64 (K,), the share of each id; (1,) for an unconditional generator.
        ids_per_class: how many ids in a row belong to one label.
        has_labels: whether ids stand for labels; not so for clusters and unconditional generators.
        codes: (K, d) first values of embeddings, in which similar ids are near; None where ids are mere names.
        in_latents: whether the generator draws clusters and sub-clusters itself, from the last number of a latent.
    """

    frequencies: Tensor
    ids_per_class: int = 1
    has_labels: bool = False
    codes: Tensor | None = None
    in_latents: bool = False

    def __len__(self) -> int:
        return len(self.frequencies)

    @property
    def label_shares(self) -> Tensor:
        """Float64 (labels, ids_per_class): the share of each id, a row for each label."""
        return self.frequencies.view(-1, self.ids_per_class)

    @property
    def known_labels(self) -> Tensor:
        """The labels that occur; without labels, the clusters."""
        return torch.nonzero(self.label_shares.sum(1)).flatten()

    @property
    def listing(self) -> str:
        """The labels that occur, as text: 0 to 9, or 3, 8."""
        known = self.known_labels.tolist()
        is_range = 1 < len(known) == known[-1] - known[0] + 1
        return f"{known[0]} to {known[-1]}" if is_range else ", ".join(map(str, known))

    def label_of(self, y: Tensor) -> Tensor:
        """Return (N,) the label of each id, -1 where there are no labels."""
        return y // self.ids_per_class if self.has_labels else torch.full_like(y, -1)

    def draw(self, *, seed: int, count: int, labels: Sequence[int] | None = None) -> Tensor:
        """Return (count,) ids in their training frequencies, entry k a function of (seed, k).

        Args:
            labels: draw ids of these labels in turn instead.

        Raises ConfigError for labels that are not known.
        """
        if labels is None:
            return spread_evenly(self.frequencies, seed=seed, count=count)
        self.refuse_unknown(labels)
        wanted = _in_turn(labels, count)
        y = wanted * self.ids_per_class
        for label in set(labels):
            places = wanted == label
            y[places] += spread_evenly(self.label_shares[label], seed=seed, count=int(places.sum()))
        return y

    def draw_places(self, *, seed: int, count: int, labels: Sequence[int] | None = None) -> Tensor:
        """Return float64 (count,) numbers in [0, 1), spread evenly among the images of each id that `draw` returns.

        Where a label's sub-clusters are looked up by these in its cumulative frequencies, they are those that `draw`
        returns for a generator that does not draw them itself.
        """
        if labels is None:
            edges = self.frequencies.cumsum(0)
            y = self.draw(seed=seed, count=count)
            return 1 - (edges[y] - edges[-1] * _even_points(seed, count)) / self.frequencies[y]
        places = torch.empty(count, dtype=torch.float64)
        wanted = _in_turn(labels, count)
        for label in set(labels):
            chosen = wanted == label
            places[chosen] = _even_points(seed, int(chosen.sum()))
        return places

    def draw_grid(self, count: int, columns: int) -> Tensor:
        """Return (count,) ids for a sample grid: each label a column where there are few enough, else by frequency."""
        known = self.known_labels
        if 1 < len(known) <= columns:
            labels = known[torch.arange(count) % columns % len(known)]
            chosen = torch.multinomial(self.label_shares[labels], 1, generator=rng("frames")).flatten()
            return labels * self.ids_per_class + chosen
        return torch.multinomial(self.frequencies, count, replacement=True, generator=rng("frames"))

    def refuse_unknown(self, labels: Sequence[int]) -> None:
        """Raise ConfigError for labels of which no image was trained on, or for none at all."""
        if not self.has_labels:
            raise ConfigError(
                "this generator takes no labels besides its latents, so none can be chosen; omit the labels, or give "
                "them inside the latents (--latents) if they are a one-hot part of them"
            )
        known = self.known_labels.tolist()
        wrong = [label for label in labels if label not in known]
        if wrong or not labels:
            missing = wrong[0] if wrong else "(none given)"
            raise ConfigError(f"there is no label {missing}; this generator knows {self.listing}")


UNCONDITIONAL = Conditioning(torch.ones(1, dtype=torch.float64, device="cpu"))


def spread_evenly(frequencies: Tensor, *, seed: int, count: int) -> Tensor:
    """Return (count,) indices in these frequencies, any run of n holding each about n times its frequency.

    Steps of the golden ratio around the unit circle, from a start that the seed draws; independent draws would stray by
    the square root of that.
    Source: Weyl 1916; the step after Niederreiter, "Random Number Generation and Quasi-Monte Carlo Methods", 1992.
    """
    edges = frequencies.double().cumsum(0)
    points = _even_points(seed, count) * edges[-1]
    return torch.searchsorted(edges, points, right=True).clamp_(max=len(frequencies) - 1)


def _even_points(seed: int, count: int) -> Tensor:
    start = torch.rand((), generator=rng(seed, "ids"), dtype=torch.float64)
    return (start + GOLDEN * torch.arange(count, dtype=torch.float64)) % 1


def _in_turn(labels: Sequence[int], count: int) -> Tensor:
    return torch.tensor([labels[k % len(labels)] for k in range(count)], dtype=torch.int64)


def conditioned_spec(spec: ImageSpec, config: Config) -> ImageSpec:
    """Return the spec that networks are built for: as many classes as the conditioning has ids."""
    labels = spec.num_classes * config.clusters_per_class
    ids = {"labels": labels, "clusters": config.clusters, "none": 0}[config.conditioning]
    return ImageSpec(spec.size, spec.channels, ids)


def choose_kind(config: Config, train: Images) -> Config:
    """Return the config with `conditioning` chosen: labels where there are any, else clusters."""
    if config.conditioning != "auto":
        return config
    return config.replace(conditioning="clusters" if train.labels is None else "labels")


def condition(config: Config, train: Images) -> tuple[Config, Conditioning, Tensor]:
    """Choose what a run is conditioned on, from its config and its training images.

    Returns:
        the config with nothing left open, the conditioning, and y: int64 (N,), the id of each training image.

    Raises ConfigError where labels are wanted and the data has none.
    """
    config = choose_kind(config, train)
    kind = config.conditioning
    if kind == "none":
        return config, UNCONDITIONAL, torch.zeros(len(train), dtype=torch.int64)
    if kind == "clusters":
        return _condition_on_clusters(config, train)
    if train.labels is None:
        raise ConfigError(f"{train.source} has no labels; use --conditioning clusters or none")
    return _condition_on_labels(config, train, train.labels)


def _condition_on_clusters(config: Config, train: Images) -> tuple[Config, Conditioning, Tensor]:
    config = config.replace(clusters=max(2, min(config.clusters, len(train) // IMAGES_EACH)))
    y, codes = find_clusters(train.pixels, config.clusters)
    frequencies = torch.bincount(y, minlength=config.clusters).double() / len(y)
    return config, Conditioning(frequencies, codes=codes), y


def _condition_on_labels(config: Config, train: Images, labels: Tensor) -> tuple[Config, Conditioning, Tensor]:
    frequencies = train.class_frequencies
    rarest = int(torch.bincount(labels)[labels.unique()].min())
    config = config.replace(clusters_per_class=max(1, min(config.clusters_per_class, rarest // IMAGES_EACH)))
    each = config.clusters_per_class
    if each == 1:
        return config, Conditioning(frequencies, has_labels=True), labels
    y, codes = find_subclusters(train.pixels, labels, each, num_labels=len(frequencies))
    counts = torch.bincount(y, minlength=len(codes)).double().view(-1, each)
    shares = counts / counts.sum(1, keepdim=True).clamp(min=1)
    frequencies = (frequencies[:, None] * shares).flatten()
    return config, Conditioning(frequencies, each, has_labels=True, codes=codes), y
