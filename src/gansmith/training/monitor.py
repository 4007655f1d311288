"""Cheap health signals of a run, measured a hundred times: what `diagnosis` reads in the log.

Measuring changes nothing: latents are fixed, no random state moves, and no weight is trained on the signals.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from gansmith.config import Config
from gansmith.data.images import CHUNK, Images, to_float, to_uint8
from gansmith.metrics.features import load_feature_network
from gansmith.randomness import rng, seeded, to_device
from gansmith.sampling import device_of, shape_latents

GROUPS, EACH = 8, 8  # class ids that are sampled, and how many images of each
FAR = (
    1.5  # of the mean square distance of real images from their centre: a classifier's output is meaningless beyond it
)
SMALL = 6_000  # up to so many training images are compared with samples, and looked at for overfitting of D
COMPARED_AT = 32  # distances between images are measured at this size, or up to twice it
SURE = 3.0  # standard errors between two means that count as different


class Monitor:
    """Measures health signals of G and D on a few dozen fixed latents.

    Args:
        train, validation: the images shown in training, and others; None where there are no others.
        y: (N,) class id of each training image.
        frequencies: (K,) share of each id.

    Attributes:
        y: (GROUPS * EACH,) class ids that are sampled, equal ones together.
        pairs: images (GROUPS * EACH, C, H, W) in [-1, 1] with these ids, of the training set and held out; None where
            there are none, or no need to compare them.
    """

    def __init__(
        self, config: Config, train: Images, validation: Images | None, y: Tensor, frequencies: Tensor
    ) -> None:
        draw = rng("signals")
        self.config = config
        self.y = _draw_ids(frequencies, draw)
        normal = torch.randn(GROUPS * EACH, config.latent_dim, generator=draw)
        self.latents = shape_latents(normal, config.latent_distribution)
        real = _images_with(train, y, self.y)
        self.real_within, self.real_across = _diversity(real, self.y)
        self.classes_in_data: float | None = None
        classifier = load_feature_network(train.name, train.spec)
        self.classifier = classifier if classifier.classifier.out_features > 1 else None
        if self.classifier is not None:
            every_class = train if validation is None else validation  # train may hold chosen ones alone
            features, _ = self.classifier.observe(every_class.shuffled(500).pixels)
            self.centre, self.real_distance = features.mean(0), _mean_square(features - features.mean(0))
            self.real_classes = _share_of_classes(self.classifier.observe(real)[1])
            if config.classes or config.limit_images:
                self.classes_in_data = _share_of_classes(self.classifier.observe(train.shuffled(500).pixels)[1])
        self.train_pixels: Tensor | None = None
        self.pairs: tuple[Tensor, Tensor] | None = None
        if len(train) <= SMALL:
            self.train_pixels = _flat(train.pixels)
            held_out = _held_out_with(config, self.train_pixels, validation, y, self.y)
            self.pairs = None if held_out is None else (to_float(real), to_float(held_out))
            self.real_copy_distance = _real_copy_distance(config, train, validation)

    @torch.no_grad()
    def measure(self, G: nn.Module, D: nn.Module, images_seen: int) -> dict[str, float]:
        """Return the health signals of G and D as they are now.

        Returns:
            diversity_within: standard deviation of pixels among samples of one class id, over that of such real images;
                only where these differ.
            diversity_across: the same of the means of each class id's samples; only where G is conditional.
            classes_generated: exp(entropy) of the classes a shipped classifier sees in them, over that of real images
                with these ids, of which several may be of one class; only where one ships, and not of images that are
                nothing like real ones yet.
            label_accuracy: share of them in which that classifier sees the label they were asked to show; only of
                generators conditioned on labels.
            classes_in_data: exp(entropy) of the classes that the classifier sees in the training images, as a share of
                all classes; only where some images were chosen. 1 is all, equally often.
            copy_distance: median distance to the nearest training image, over that of real images held out; only for
                small data.
            d_overfit: how far held-out real images lie on the way from training images to generated ones, in D's mean
                logit: 0 where D rates them as real as well, 1 where it rates them as generated; only for small data,
                and where D tells training images from generated ones. Source: arXiv:2006.06676, eq. 1.
        """
        with seeded(rng(self.config.seed, images_seen, "signals")):
            fake = _call(G, self.latents, self.y)
            logits = [_call(D, images, self.y) for images in (*self.pairs, fake)] if self.pairs else []
        pixels = to_uint8(fake)
        within, across = _diversity(pixels, self.y)
        found = {}
        if self.real_within > 0:
            found["diversity_within"] = within / self.real_within
        if self.real_across > 0:
            found["diversity_across"] = across / self.real_across
        if self.classifier is not None:
            features, probabilities = self.classifier.observe(pixels)
            if _mean_square(features - self.centre) < FAR * self.real_distance:
                found["classes_generated"] = _share_of_classes(probabilities) / self.real_classes
                if self.config.conditioning == "labels":
                    asked = self.y.numpy() // self.config.clusters_per_class
                    found["label_accuracy"] = float((probabilities.argmax(1) == asked).mean())
        if self.classes_in_data is not None:
            found["classes_in_data"] = self.classes_in_data
        if self.train_pixels is not None:
            distance = torch.cdist(_flat(pixels), self.train_pixels).amin(1).median().item()
            found["copy_distance"] = distance / max(self.real_copy_distance, 1e-9)
        return found | _overfitting(*logits) if logits else found


def _call(network: nn.Module, *inputs: Tensor) -> Tensor:
    """Return a network's output; its own buffers stay as they are."""
    buffers = {name: buffer.clone() for name, buffer in network.named_buffers()}
    device = device_of(network)
    output: Tensor = torch.func.functional_call(network, buffers, tuple(to_device(value, device) for value in inputs))
    return output.float().cpu()


def _share_of_classes(probabilities: NDArray[np.float64]) -> float:
    """Return exp(entropy) of the likeliest classes of (N, K) probabilities, as a share of all K."""
    shares = np.bincount(probabilities.argmax(1), minlength=probabilities.shape[1]) / len(probabilities)
    return float(torch.special.entr(torch.from_numpy(shares)).sum().exp()) / len(shares)


def _overfitting(train: Tensor, held_out: Tensor, fake: Tensor) -> dict[str, float]:
    """Return `d_overfit` from D's logits; nothing where D cannot tell training images from generated ones."""
    gap = train.mean() - fake.mean()
    if not gap.abs() > SURE * ((train.var() + fake.var()) / len(train)).sqrt():
        return {}
    return {"d_overfit": ((train.mean() - held_out.mean()) / gap).item()}


def _real_copy_distance(config: Config, train: Images, validation: Images | None) -> float:
    """Return the median distance of real images to the nearest other training image."""
    nearest = 1
    if validation is None or not len(validation) or config.classes:  # those held out are of all classes
        validation, nearest = train, 2  # each is nearest to itself
    others = _flat(validation.pixels[:: max(1, len(validation) // 128)])
    distances = torch.cdist(others, _flat(train.pixels)).topk(min(nearest, len(train)), largest=False).values[:, -1]
    return distances.median().item()


def _held_out_with(
    config: Config, train_pixels: Tensor, validation: Images | None, y: Tensor, wanted: Tensor
) -> Tensor | None:
    """Return a held-out image with each wanted class id; None where there are not images of them all."""
    if validation is None or not len(validation):
        return None
    if config.conditioning == "labels" and config.clusters_per_class == 1:
        assert validation.labels is not None
        held_out_y = validation.labels
    elif config.classes:
        return None  # those held out are of all classes, and which are not is not known here
    else:  # the id of the training image that is most like it
        validation = validation.shuffled(1_000)
        held_out_y = y[torch.cdist(_flat(validation.pixels), train_pixels).argmin(1)]
    return _images_with(validation, held_out_y, wanted) if torch.isin(wanted, held_out_y).all() else None


def _draw_ids(frequencies: Tensor, draw: torch.Generator) -> Tensor:
    """Return (GROUPS * EACH,) class ids in groups of equal ones; the groups differ where there are ids enough."""
    known = torch.nonzero(frequencies).flatten()
    chosen = known[torch.randperm(len(known), generator=draw)]
    return chosen[torch.arange(GROUPS) % len(chosen)].repeat_interleave(EACH)


def _images_with(images: Images, y: Tensor, wanted: Tensor) -> Tensor:
    """Return the pixels of a real image with each wanted class id; repeated only where an id has too few images."""
    counts: dict[int, int] = {}
    rows = []
    for class_id in wanted.tolist():
        candidates = torch.nonzero(y == class_id).flatten()
        rows.append(candidates[counts.get(class_id, 0) % len(candidates)])
        counts[class_id] = counts.get(class_id, 0) + 1
    return images.pixels[torch.stack(rows)]


def _diversity(pixels: Tensor, y: Tensor) -> tuple[float, float]:
    """Return standard deviations over all pixels: within the images of one class id, and of the ids' means."""
    flat = pixels.flatten(1).float()
    groups = [flat[y == class_id] for class_id in y.unique()]
    within = torch.stack([group.var(0).mean() for group in groups]).mean().sqrt().item()
    means = torch.stack([group.mean(0) for group in groups])
    return within, means.var(0).mean().sqrt().item() if len(groups) > 1 else 0.0


def _mean_square(differences: NDArray[np.float64]) -> float:
    return float((differences**2).sum(axis=1).mean())


def _flat(pixels: Tensor) -> Tensor:
    """Return (N, values) whole numbers in double precision: distances between equal images are then exactly zero.

    Images of 64 pixels or more are reduced to 32 to 63 by sums of square blocks.
    """
    block = max(1, pixels.shape[-1] // COMPARED_AT)
    parts = (part.double() for part in pixels.split(CHUNK))  # all at once would take eight bytes a value
    return torch.cat([torch.nn.functional.avg_pool2d(part, block, divisor_override=1) for part in parts]).flatten(1)
