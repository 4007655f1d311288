"""Training of an evaluator on the images of a data set for which none ships, once; it is stored in the user's cache.

What is learnt is never scored: a quarter of the train split is held out of it, and gives its accuracy, its confidence
and the figures of real images during training. Validation and test images have no influence at all.
"""

import hashlib
import logging
import math
import time
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor
from torch.nn.functional import cross_entropy, pad

from gansmith.data.clusters import find_clusters
from gansmith.data.images import Images, ImageSpec, image_hashes, to_float
from gansmith.data.official import cache_dir
from gansmith.files import write_bytes
from gansmith.metrics.residual import ResidualNetwork
from gansmith.randomness import seeded
from gansmith.training.machine import has_fast_bf16

RECIPE = 4  # raised with every change of what is trained, so that stored networks of another one are not taken
BATCH_SIZE, LEARNING_RATE, MAX_SHIFT_PX, LABEL_SMOOTHING = 256, 1e-2, 2, 0.1
ON_DEMAND = 160_000  # training images, repeats counted
MOST_PASSES = 40  # over few images
MOST_IMAGES, MOST_BYTES = 60_000, 2**28  # of a larger set, a random choice
SHARE_HELD_OUT, MOST_HELD_OUT = 4, 10_000  # one in so many
CLUSTERS = 100  # classes where the set has no labels

logger = logging.getLogger("gansmith")


def fit_and_held_out(train: Images) -> tuple[Images, Images]:
    """Return the images of a train split that an evaluator is trained on, and those held out of that.

    Equal images are all held out, or none of them.
    """
    mixed = train.shuffled(min(MOST_IMAGES, MOST_BYTES // math.prod(train.pixels.shape[1:])))
    held_out = min(MOST_HELD_OUT, len(mixed) // SHARE_HELD_OUT)
    first: dict[Any, int] = {}
    groups = torch.tensor([first.setdefault(digest, len(first)) for digest in image_hashes(mixed.pixels)])
    if not held_out or len(first) < SHARE_HELD_OUT:
        return mixed.take(torch.arange(held_out, len(mixed))), mixed.take(torch.arange(held_out))
    # Without equal images the first rows, in their order; with, the rows of as many first groups as these rows are of.
    is_out = groups < max(1, round(held_out * len(first) / len(mixed)))
    return mixed.take(torch.nonzero(~is_out).flatten()), mixed.take(torch.nonzero(is_out).flatten())


def train_evaluator(fit: Images, held_out: Images) -> ResidualNetwork:
    """Train a classifier of the labels, or of k-means clusters where there are none.

    Each image is shifted by up to two pixels. None is mirrored: labels such as digits do not allow it, and in so few
    passes it gains nothing (CIFAR-10: accuracy 0.748 with, 0.750 without).

    Args:
        held_out: give the features' scale, the accuracy and the temperature.
    """
    labels = fit.labels if has_classes(fit) else _pseudo_labels(fit)
    assert labels is not None
    with seeded(torch.Generator().manual_seed(2026)):
        known = held_out.num_classes if has_classes(fit) else 0  # the highest label may be held out alone
        network = ResidualNetwork(fit.spec, num_classes=max(int(labels.max()) + 1, known), name="untrained")
        _fit(network, fit.pixels, labels)
        network.eval().fit_scale(held_out.pixels if len(held_out) > 1 else fit.pixels)
        if not has_classes(fit):
            network.classifier, network.confusion = torch.nn.Linear(network.classifier.in_features, 1), torch.eye(1)
        elif len(held_out):
            assert held_out.labels is not None
            logits = torch.cat([network(to_float(chunk)) for chunk in held_out.pixels.split(500)]).detach()
            network.accuracy.fill_(logits.argmax(1).eq(held_out.labels).float().mean())
            network.confusion.copy_(_confusion(logits.argmax(1), held_out.labels, network.num_classes))
            network.temperature.fill_(_fitted_temperature(logits, held_out.labels))
    return network


def has_classes(images: Images) -> bool:
    """Return whether there are labels to learn from: two different ones."""
    return images.labels is not None and len(images.labels.unique()) > 1


def _pseudo_labels(fit: Images) -> Tensor:
    """Return the k-means cluster of each image, of its pixels and edges (Caron et al., arXiv:1807.05520)."""
    return find_clusters(fit.pixels, max(2, min(CLUSTERS, len(fit) // 24)))[0]


def _fit(network: ResidualNetwork, pixels: Tensor, labels: Tensor) -> None:
    """Train the network, with the learning rate's one-cycle schedule."""
    batch = min(BATCH_SIZE, len(pixels))
    steps = max(1, training_length(len(pixels)) // batch)
    optimizer = torch.optim.AdamW(network.parameters(), LEARNING_RATE, weight_decay=0.02, fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=steps, pct_start=0.25)
    step = 0
    while step < steps:
        for rows in torch.randperm(len(pixels))[: len(pixels) // batch * batch].split(batch)[: steps - step]:
            loss = _loss(network, _shifted(pixels[rows]), labels[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            step += 1


def _loss(network: ResidualNetwork, pixels: Tensor, labels: Tensor) -> Tensor:
    """Return the cross-entropy, in bfloat16 where the CPU multiplies it itself."""
    with torch.autocast("cpu", torch.bfloat16, enabled=has_fast_bf16()):
        logits = network(to_float(pixels))
    return cross_entropy(logits.float(), labels, label_smoothing=LABEL_SMOOTHING)


def training_length(count: int) -> int:
    """Return the training images, repeats counted, for a set of this many."""
    return min(ON_DEMAND, MOST_PASSES * count)


def training_seconds(train: Images) -> float:
    """Return about how long this machine takes to train an evaluator."""
    fit, _ = fit_and_held_out(train)
    network, pixels = ResidualNetwork(fit.spec, num_classes=2, name="untrained"), fit.pixels[:BATCH_SIZE]
    labels, seconds = torch.zeros(len(pixels), dtype=torch.int64), 0.0
    for _ in range(2):  # the first is slow: memory is fetched, kernels are chosen
        started_at = time.perf_counter()
        _loss(network, pixels, labels).backward()
        seconds = time.perf_counter() - started_at
    return seconds * training_length(len(fit)) / len(pixels)


def train_and_store(train: Images) -> ResidualNetwork:
    """Train the evaluator of a train split and store it; return it as `load_stored` will."""
    fit, held_out = fit_and_held_out(train)
    path = _path(fit, held_out)
    logger.warning("training an evaluator for %s once, about a minute; it is stored in %s", train.name, path)
    data = safetensors.torch.save(train_evaluator(fit, held_out).state_dict())
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(path, data)
    except OSError as error:
        logger.warning("the evaluator could not be stored in %s (%s)", path, error.strerror)
    return _network_of(data, fit.spec)


def load_stored(train: Images) -> ResidualNetwork | None:
    """Return the evaluator stored for a train split; None where there is none, or a damaged one."""
    fit, held_out = fit_and_held_out(train)
    path = _path(fit, held_out)
    try:
        return _network_of(path.read_bytes(), fit.spec)
    except OSError:
        return None
    except (SafetensorError, LookupError, RuntimeError, ValueError):
        logger.warning("%s is damaged; the evaluator is trained again", path)
        return None


def _path(fit: Images, held_out: Images) -> Path:
    """Return the file of the evaluator of these images, as they are prepared and labelled."""
    name = hashlib.sha256(f"{RECIPE} {fit.sha256} {held_out.sha256}".encode()).hexdigest()[:16]
    return cache_dir("evaluators") / f"{name}.safetensors"


def _network_of(data: bytes, spec: ImageSpec) -> ResidualNetwork:
    """Return the network of a stored file, named after its hash."""
    weights = safetensors.torch.load(data)
    with torch.device("meta"):
        name = f"trained-{hashlib.sha256(data).hexdigest()[:12]}"
        network = ResidualNetwork(spec, num_classes=len(weights["classifier.bias"]), name=name)
    network.load_state_dict(weights, assign=True)
    return network.eval()


def _shifted(pixels: Tensor) -> Tensor:
    """Shift each of uint8 (N, C, H, W) by its own random whole number of pixels, repeating its border."""
    n, _, height, width = pixels.shape
    padded = pad(pixels.float(), [MAX_SHIFT_PX] * 4, mode="replicate").to(torch.uint8)
    down, across = torch.randint(0, 2 * MAX_SHIFT_PX + 1, (2, n, 1))
    rows, columns = down + torch.arange(height), across + torch.arange(width)
    moved = padded[torch.arange(n)[:, None, None], :, rows[:, :, None], columns[:, None, :]]
    return moved.permute(0, 3, 1, 2)  # (N, H, W, C) -> (N, C, H, W)


def _confusion(found: Tensor, labels: Tensor, num_classes: int) -> Tensor:
    """Return (K, K) the share of each class, row, found for each label, column; a label without images is itself."""
    counts = torch.bincount(found * num_classes + labels, minlength=num_classes**2).view(num_classes, -1).float()
    absent = (counts.sum(0) == 0).diag_embed()
    return (counts + absent) / (counts + absent).sum(0)


def _fitted_temperature(logits: Tensor, labels: Tensor) -> float:
    """Return the temperature with the least cross-entropy (Guo et al., arXiv:1706.04599, section 4.2)."""
    candidates = torch.linspace(0.1, 4.0, 391)
    losses = torch.stack([cross_entropy(logits / value, labels) for value in candidates])
    return float(candidates[losses.argmin()])
