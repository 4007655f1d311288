"""Cheap health signals of a run, measured a hundred times: what `diagnosis` reads in the log.

They change nothing: latents are fixed, no state moves, and no weight is trained on them.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from gansmith.config import Config
from gansmith.data.images import Images, to_float, to_uint8
from gansmith.randomness import rng, seeded
from gansmith.sampling import shape_latents
from gansmith.metrics.features import load_feature_network

GROUPS, EACH = 8, 8  # class ids that are sampled, and how many images of each
FAR = 1.5  # times real images' mean square distance from their centre: beyond it a classifier's output means nothing
SMALL = 6_000  # up to so many training images are compared with samples, and looked at for overfitting of D
SURE = 3.0  # standard errors between two means that count as different


class Monitor:
    """Measures health signals of G and D on a few dozen fixed latents.

    Args:
        train, validation: the images shown in training, and others; None where there are no others.
        y: (N,) class id of each training image.
        frequencies: (K,) share of each id.
    """

    def __init__(
        self, config: Config, train: Images, validation: Images | None, y: Tensor, frequencies: Tensor
    ) -> None:
        draw = rng("signals")
        self.config = config
        self.ids = _kinds(frequencies, draw)
        self.latents = shape_latents(torch.randn(GROUPS * EACH, config.latent_dim, generator=draw), config.latent_distribution)
        real = _alike(train, y, self.ids)
        self.real_within, self.real_across = _spreads(real, self.ids)
        classifier = load_feature_network(train.name, train.spec)
        self.classifier = classifier if classifier.classifier.out_features > 1 else None
        if self.classifier is not None:
            every_class = train if validation is None else validation  # train may hold chosen ones alone
            features, _ = self.classifier.observe(every_class.shuffled(500).pixels)
            self.centre, self.real_distance = features.mean(0), _mean_square(features - features.mean(0))
        self.classes_in_data: float | None = None
        if self.classifier is not None and (config.classes or config.limit_images):
            self.classes_in_data = _share_of_classes(self.classifier.observe(train.shuffled(500).pixels)[1])
        self.known: Tensor | None = None
        self.pairs: tuple[Tensor, Tensor] | None = None
        if len(train) <= SMALL:
            self.known = _flat(train.pixels)
            held_out = _held_out_alike(config, self.known, validation, y, self.ids)
            self.pairs = None if held_out is None else (to_float(real), to_float(held_out))
            nearest = 1
            if validation is None or not len(validation) or config.classes:  # those held out are of all classes
                validation, nearest = train, 2  # each is nearest to itself
            others = _flat(validation.pixels[:: max(1, len(validation) // 128)])
            distances = torch.cdist(others, self.known).topk(min(nearest, len(train)), largest=False).values[:, -1]
            self.real_nearest = distances.median().item()

    @torch.no_grad()
    def measure(self, G: nn.Module, D: nn.Module, images_seen: int) -> dict[str, float]:
        """Return the health signals of G and D as they are now.

        Returns:
            diversity_within: standard deviation of pixels among samples of one class id, over that of such real images.
            diversity_across: the same of the means of each class id's samples; only where G is conditional.
            classes_generated: exp(entropy) of the classes a shipped classifier sees in them, as a share of its classes;
                only where one ships, and not of images that are nothing like real ones yet. 1 is all, equally often.
            classes_in_data: the same of the training images, where some were chosen.
            copy_distance: median distance to the nearest training image, over that of real images held out; only for
                small data.
            d_overfit: how far held-out real images lie on the way from training images to generated ones, in D's mean
                logit: 0 where D rates them as real as well, 1 where it rates them as generated; only for small data,
                and where D tells training images from generated ones. Source: arXiv:2006.06676, eq. 1.
        """
        with seeded(rng(self.config.seed, images_seen, "signals")):
            drawn = _call(G, self.latents, self.ids)
            logits = [_call(D, images, self.ids) for images in (*self.pairs, drawn)] if self.pairs else []
        pixels = to_uint8(drawn)
        within, across = _spreads(pixels, self.ids)
        found = {"diversity_within": within / max(self.real_within, 1e-9)}
        if len(self.ids.unique()) > 1:
            found["diversity_across"] = across / max(self.real_across, 1e-9)
        if self.classifier is not None:
            features, probabilities = self.classifier.observe(pixels)
            if _mean_square(features - self.centre) < FAR * self.real_distance:
                found["classes_generated"] = _share_of_classes(probabilities)
        if self.classes_in_data is not None:
            found["classes_in_data"] = self.classes_in_data
        if self.known is not None:
            nearest = torch.cdist(_flat(pixels), self.known).amin(1).median().item()
            found["copy_distance"] = nearest / max(self.real_nearest, 1e-9)
        return found | _overfit(*logits) if logits else found


def _call(network: nn.Module, *inputs: Tensor) -> Tensor:
    """Return a network's output, its own buffers left as they are."""
    buffers = {name: buffer.clone() for name, buffer in network.named_buffers()}
    made: Tensor = torch.func.functional_call(network, buffers, inputs)
    return made


def _share_of_classes(probabilities: NDArray[np.float64]) -> float:
    """exp(entropy) of the likeliest classes of (N, K) probabilities, as a share of all K."""
    shares = np.bincount(probabilities.argmax(1), minlength=probabilities.shape[1]) / len(probabilities)
    return float(torch.special.entr(torch.from_numpy(shares)).sum().exp()) / len(shares)


def _overfit(known: Tensor, held_out: Tensor, drawn: Tensor) -> dict[str, float]:
    """`d_overfit` from D's logits of training, held-out and generated images; nothing where D cannot tell these apart."""
    way = known.mean() - drawn.mean()
    if not way.abs() > SURE * ((known.var() + drawn.var()) / len(known)).sqrt():
        return {}
    return {"d_overfit": ((known.mean() - held_out.mean()) / way).item()}


def _held_out_alike(
    config: Config, known: Tensor, validation: Images | None, y: Tensor, ids: Tensor
) -> Tensor | None:
    """Return a held-out image for each entry of `ids`; None where there are none, or none like them."""
    if validation is None or not len(validation):
        return None
    if config.conditioning == "labels" and config.clusters_per_class == 1:
        assert validation.labels is not None
        held_ids = validation.labels
    elif config.classes:
        return None  # those held out are of all classes, and which are not is not known here
    else:  # as the training image that is most like it
        validation = validation.shuffled(1_000)
        held_ids = y[torch.cdist(_flat(validation.pixels), known).argmin(1)]
    return _alike(validation, held_ids, ids) if torch.isin(ids, held_ids).all() else None


def _kinds(frequencies: Tensor, draw: torch.Generator) -> Tensor:
    """(GROUPS * EACH,) y in groups of equal ones, different groups different where there are as many."""
    known = torch.nonzero(frequencies).flatten()
    chosen = known[torch.randperm(len(known), generator=draw)]
    return chosen[torch.arange(GROUPS) % len(chosen)].repeat_interleave(EACH)


def _alike(train: Images, y: Tensor, ids: Tensor) -> Tensor:
    """Return a real image with each entry's id; repeated only where an id has fewer."""
    counts: dict[int, int] = {}
    rows = []
    for kind in ids.tolist():
        of_kind = torch.nonzero(y == kind).flatten()
        rows.append(of_kind[counts.get(kind, 0) % len(of_kind)])
        counts[kind] = counts.get(kind, 0) + 1
    return train.pixels[torch.stack(rows)]


def _spreads(pixels: Tensor, ids: Tensor) -> tuple[float, float]:
    """Return standard deviations within the images of one id, and of the ids' means, over all pixels."""
    flat = pixels.flatten(1).float()
    groups = [flat[ids == kind] for kind in ids.unique()]
    within = torch.stack([group.var(0).mean() for group in groups]).mean().sqrt().item()
    means = torch.stack([group.mean(0) for group in groups])
    return within, means.var(0).mean().sqrt().item() if len(groups) > 1 else 0.0


def _mean_square(differences: NDArray[np.float64]) -> float:
    return float((differences**2).sum(axis=1).mean())


def _flat(pixels: Tensor) -> Tensor:
    """(N, C * H * W), whole numbers in double precision: distances between equal images are then exactly zero."""
    return pixels.flatten(1).double()
