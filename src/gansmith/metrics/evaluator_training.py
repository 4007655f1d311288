"""Training of an evaluator on the labels of a data set's train split: those that ship, and those trained on demand."""

import copy
import logging
from pathlib import Path

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor
from torch.nn.functional import cross_entropy, dropout, pad

from gansmith.data.images import Images, to_float
from gansmith.errors import DataError
from gansmith.files import write_bytes
from gansmith.metrics.features import FeatureNetwork, network_of

BATCH_SIZE, LEARNING_RATE, MAX_SHIFT_PX, DROPOUT, EMA_RATE = 128, 3e-3, 2, 0.4, 0.005
ON_DEMAND = 200_000  # training images, repeats counted: about a minute of one core

logger = logging.getLogger("gansmith")


def train_evaluator(train: Images, validation: Images, *, images: int) -> FeatureNetwork:
    """Train a classifier of the classes of `train`; scale its features and calibrate its confidence.

    Each image is shifted by up to two pixels. An exponential moving average of the weights is kept, from the epoch with
    the best validation accuracy; the temperature is fitted to the validation images too. They have no other influence.

    Args:
        images: training length in images, at least one epoch.
    """
    assert train.labels is not None and validation.labels is not None
    if not len(validation):
        raise DataError(
            f"{train.source} has {len(train)} images and none held out, too few to train an evaluator on; give more"
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(2026)
        network = FeatureNetwork(train.spec, num_classes=train.num_classes, name="trained")
        average = copy.deepcopy(network)
        batch = min(BATCH_SIZE, len(train))
        steps, epochs = len(train) // batch, max(1, images // len(train))
        optimizer = torch.optim.AdamW(network.parameters(), LEARNING_RATE, weight_decay=0.05, fused=True)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=epochs * steps)
        best, kept = -1.0, {}
        for epoch in range(epochs):
            for rows in torch.randperm(len(train))[: steps * batch].split(batch):
                hidden = network.layers(_shifted(to_float(train.pixels[rows])))[-1]
                loss = cross_entropy(network.classifier(dropout(hidden, DROPOUT)), train.labels[rows])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                schedule.step()
                with torch.no_grad():
                    for mean, now in zip(average.parameters(), network.parameters(), strict=True):
                        mean.lerp_(now, EMA_RATE)
            score = accuracy(average, validation)
            logger.info("epoch %d of %d: validation accuracy %.4f", epoch + 1, epochs, score)
            if score > best:
                best, kept = score, copy.deepcopy(average.state_dict())
    network.load_state_dict(kept)
    network.temperature.fill_(_fitted_temperature(_logits(network, validation), validation.labels))
    network.fit_scale(train.pixels)
    return network.eval()


def load_or_train_evaluator(train: Images, validation: Images, path: Path) -> FeatureNetwork:
    """Return the evaluator stored in this file; where there is none, or a damaged one, train and store it first."""
    name = f"trained-{path.stem}"
    try:
        return network_of(safetensors.torch.load(path.read_bytes()), train.spec, name=name)
    except FileNotFoundError:
        pass
    except (SafetensorError, LookupError, RuntimeError, ValueError):
        logger.warning("%s is damaged; the evaluator is trained again", path)
    logger.warning("training an evaluator for %s once, about a minute; it is stored in %s", train.name, path)
    network = train_evaluator(train, validation, images=ON_DEMAND)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(path, safetensors.torch.save(network.state_dict()))
    return network_of(network.state_dict(), train.spec, name=name)


def accuracy(network: FeatureNetwork, images: Images) -> float:
    """Return the share of images that the network classifies correctly."""
    assert images.labels is not None
    return float(_logits(network, images).argmax(1).eq(images.labels).double().mean())


def _shifted(images: Tensor) -> Tensor:
    """Shift each image by its own random whole number of pixels, filling with black."""
    n, _, height, width = images.shape
    padded = pad(images, [MAX_SHIFT_PX] * 4, value=-1.0)
    down, across = torch.randint(0, 2 * MAX_SHIFT_PX + 1, (2, n, 1))
    rows, columns = down + torch.arange(height), across + torch.arange(width)
    moved = padded[torch.arange(n)[:, None, None], :, rows[:, :, None], columns[:, None, :]]
    return moved.permute(0, 3, 1, 2)  # (N, H, W, C) -> (N, C, H, W)


@torch.no_grad()
def _logits(network: FeatureNetwork, images: Images) -> Tensor:
    """Return (N, num_classes) logits of all images."""
    return torch.cat([network(to_float(chunk)) for chunk in images.pixels.split(500)])


def _fitted_temperature(logits: Tensor, labels: Tensor) -> float:
    """Return the temperature with the least cross-entropy (Guo et al., arXiv:1706.04599, section 4.2)."""
    candidates = torch.linspace(0.5, 4.0, 351)
    losses = torch.stack([cross_entropy(logits / value, labels) for value in candidates])
    return float(candidates[losses.argmin()])
