"""Cheap signs of how a run is doing, measured a hundred times a run: what `diagnose` reads in the log.

They change nothing: latents are fixed, no state moves, and no weight learns from them.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from gansmith.config import Config
from gansmith.data import Images, to_float, to_uint8
from gansmith.generate import rng, seeded, shape_latents
from gansmith.metrics.features import load_feature_network

GROUPS, EACH = 8, 8  # kinds of image that are drawn, and how many of each
FAR = 1.5  # times real images' mean square distance from their centre: beyond it a classifier's word means nothing
SMALL = 6_000  # up to so many training images are compared with what is drawn, and asked whether D knows them by heart
SURE = 3.0  # standard errors between two means that count as different


class Signals:
    """What a few dozen images say of a generator, and of the discriminator beside it.

    Args:
        fit, validation: the images shown in training, and others; None where there are no others.
        ids: (N,) what G is told of each fit image.
        frequencies: (K,) share of each id.
    """

    def __init__(
        self, config: Config, fit: Images, validation: Images | None, ids: Tensor, frequencies: Tensor
    ) -> None:
        draw = rng("signals")
        self.config = config
        self.told = _kinds(frequencies, draw)
        self.latents = shape_latents(torch.randn(GROUPS * EACH, config.z_dim, generator=draw), config.latent)
        real = _alike(fit, ids, self.told)
        self.real_within, self.real_across = _spreads(real, self.told)
        classifier = load_feature_network(fit.name, fit.spec)
        self.classifier = classifier if classifier.classifier.out_features > 1 else None
        if self.classifier is not None:
            every_class = fit if validation is None else validation  # fit may hold chosen ones alone
            features, _ = self.classifier.observe(every_class.shuffled(500).pixels)
            self.centre, self.real_distance = features.mean(0), _mean_square(features - features.mean(0))
        self.classes_shown: float | None = None
        if self.classifier is not None and (config.classes or config.limit_images):
            self.classes_shown = _share_of_classes(self.classifier.observe(fit.shuffled(500).pixels)[1])
        self.known: Tensor | None = None
        self.pairs: tuple[Tensor, Tensor] | None = None
        if len(fit) <= SMALL:
            self.known = _flat(fit.pixels)
            held_out = _held_out_alike(config, self.known, validation, ids, self.told)
            self.pairs = None if held_out is None else (to_float(real), to_float(held_out))
            nearest = 1
            if validation is None or not len(validation) or config.classes:  # those held out are of all classes
                validation, nearest = fit, 2  # each is nearest to itself
            others = _flat(validation.pixels[:: max(1, len(validation) // 128)])
            distances = torch.cdist(others, self.known).topk(min(nearest, len(fit)), largest=False).values[:, -1]
            self.real_nearest = distances.median().item()

    @torch.no_grad()
    def measure(self, G: nn.Module, D: nn.Module, images_seen: int) -> dict[str, float]:
        """Signs of both players as they train.

        Returns:
            spread_within: standard deviation of pixels among images told the same, over that of such real images.
            spread_across: the same of the means of images told the same; only where G is told more than one thing.
            classes_drawn: exp(entropy) of the classes a shipped classifier sees in them, as a share of its classes;
                only where one ships, and not of images that are nothing like real ones yet. 1 is all, equally often.
            classes_shown: the same of the training images, where some were chosen.
            copy_distance: median distance to the nearest training image, over that of real images held out; only for
                small data.
            d_overfit: how far held-out real images lie on the way from training images to generated ones, in D's mean
                logit: 0 where D takes them for real as well, 1 where it takes them for generated; only for small data,
                and where D tells training images from generated ones. Source: arXiv:2006.06676, eq. 1.
        """
        with seeded(rng(self.config.seed, images_seen, "signals")):
            drawn = _call(G, self.latents, self.told)
            logits = [_call(D, images, self.told) for images in (*self.pairs, drawn)] if self.pairs else []
        pixels = to_uint8(drawn)
        within, across = _spreads(pixels, self.told)
        found = {"spread_within": within / max(self.real_within, 1e-9)}
        if len(self.told.unique()) > 1:
            found["spread_across"] = across / max(self.real_across, 1e-9)
        if self.classifier is not None:
            features, probabilities = self.classifier.observe(pixels)
            if _mean_square(features - self.centre) < FAR * self.real_distance:
                found["classes_drawn"] = _share_of_classes(probabilities)
        if self.classes_shown is not None:
            found["classes_shown"] = self.classes_shown
        if self.known is not None:
            nearest = torch.cdist(_flat(pixels), self.known).amin(1).median().item()
            found["copy_distance"] = nearest / max(self.real_nearest, 1e-9)
        return found | _overfit(*logits) if logits else found


def _call(network: nn.Module, *inputs: Tensor) -> Tensor:
    """What it makes of these inputs, its own buffers left as they are."""
    buffers = {name: buffer.clone() for name, buffer in network.named_buffers()}
    made: Tensor = torch.func.functional_call(network, buffers, inputs)
    return made


def _share_of_classes(probabilities: NDArray[np.float64]) -> float:
    """exp(entropy) of the likeliest classes of (N, K) probabilities, as a share of all K."""
    shares = np.bincount(probabilities.argmax(1), minlength=probabilities.shape[1]) / len(probabilities)
    return float(torch.special.entr(torch.from_numpy(shares)).sum().exp()) / len(shares)


def _overfit(known: Tensor, held_out: Tensor, drawn: Tensor) -> dict[str, float]:
    """`d_overfit` from D's logits of training, held-out and generated images; nothing where D cannot tell these."""
    way = known.mean() - drawn.mean()
    if not way.abs() > SURE * ((known.var() + drawn.var()) / len(known)).sqrt():
        return {}
    return {"d_overfit": ((known.mean() - held_out.mean()) / way).item()}


def _held_out_alike(
    config: Config, known: Tensor, validation: Images | None, ids: Tensor, told: Tensor
) -> Tensor | None:
    """A held-out image for each entry of `told`; None where there are none, or none like them."""
    if validation is None or not len(validation):
        return None
    if config.conditioning == "labels" and config.clusters_per_label == 1:
        assert validation.labels is not None
        held_ids = validation.labels
    elif config.classes:
        return None  # those held out are of all classes, and which are not is not known here
    else:  # as the training image that is most like it
        validation = validation.shuffled(1_000)
        held_ids = ids[torch.cdist(_flat(validation.pixels), known).argmin(1)]
    return _alike(validation, held_ids, told) if torch.isin(told, held_ids).all() else None


def _kinds(frequencies: Tensor, draw: torch.Generator) -> Tensor:
    """(GROUPS * EACH,) ids in groups of equal ones, different groups different where there are as many."""
    known = torch.nonzero(frequencies).flatten()
    chosen = known[torch.randperm(len(known), generator=draw)]
    return chosen[torch.arange(GROUPS) % len(chosen)].repeat_interleave(EACH)


def _alike(fit: Images, ids: Tensor, told: Tensor) -> Tensor:
    """A real image for each entry of `told`, with that id; repeated only where an id has fewer."""
    counts: dict[int, int] = {}
    rows = []
    for kind in told.tolist():
        of_kind = torch.nonzero(ids == kind).flatten()
        rows.append(of_kind[counts.get(kind, 0) % len(of_kind)])
        counts[kind] = counts.get(kind, 0) + 1
    return fit.pixels[torch.stack(rows)]


def _spreads(pixels: Tensor, told: Tensor) -> tuple[float, float]:
    """Standard deviations within the groups told the same, and of the groups' means, over all pixels."""
    flat = pixels.flatten(1).float()
    groups = [flat[told == kind] for kind in told.unique()]
    within = torch.stack([group.var(0).mean() for group in groups]).mean().sqrt().item()
    means = torch.stack([group.mean(0) for group in groups])
    return within, means.var(0).mean().sqrt().item() if len(groups) > 1 else 0.0


def _mean_square(differences: NDArray[np.float64]) -> float:
    return float((differences**2).sum(axis=1).mean())


def _flat(pixels: Tensor) -> Tensor:
    """(N, C * H * W), whole numbers in double precision: distances between equal images are then exactly zero."""
    return pixels.flatten(1).double()
