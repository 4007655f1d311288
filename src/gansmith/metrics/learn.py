"""Training a feature network on the labels of a data set's train split: the shipped ones, and those made on demand."""

import copy
import logging
from pathlib import Path

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor
from torch.nn.functional import cross_entropy, dropout, pad

from gansmith.errors import GansmithError
from gansmith.data.images import Images, to_float
from gansmith.metrics.features import FeatureNetwork, network_of

BATCH, RATE, SHIFT, DROPOUT, AVERAGE = 128, 3e-3, 2, 0.4, 0.005
ON_DEMAND = 200_000  # images shown: about a minute of one core

logger = logging.getLogger("gansmith")


def learn(train: Images, validation: Images, *, images: int) -> FeatureNetwork:
    """A network that reads the classes of `train`, its features scaled and its confidence calibrated.

    Each image is shifted by up to two pixels. Averaged weights are kept, of the epoch that reads the validation images
    best; the temperature is fitted to these too. Nothing else of them is learnt.

    Args:
        images: how many to show in all, at least one epoch.
    """
    assert train.labels is not None and validation.labels is not None
    if not len(validation):
        raise GansmithError(
            f"{train.source} has {len(train)} images and none held out, too few to learn an evaluator from; give more"
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(2026)
        network = FeatureNetwork(train.spec, num_classes=train.num_classes, name="learned")
        average = copy.deepcopy(network)
        batch = min(BATCH, len(train))
        steps, epochs = len(train) // batch, max(1, images // len(train))
        optimizer = torch.optim.AdamW(network.parameters(), RATE, weight_decay=0.05, fused=True)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=epochs * steps)
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
                        mean.lerp_(now, AVERAGE)
            found = accuracy(average, validation)
            logger.info("epoch %d of %d: %.4f of the validation images read right", epoch + 1, epochs, found)
            if found > best:
                best, kept = found, copy.deepcopy(average.state_dict())
    network.load_state_dict(kept)
    network.temperature.fill_(_fitted_temperature(_logits(network, validation), validation.labels))
    network.fit_scale(train.pixels)
    return network.eval()


def learned_network(train: Images, validation: Images, path: Path) -> FeatureNetwork:
    """The network kept in this file; where there is none, or a damaged one, it is trained and written first."""
    name = f"learned-{path.stem}"
    try:
        return network_of(safetensors.torch.load(path.read_bytes()), train.spec, name=name)
    except FileNotFoundError:
        pass
    except (SafetensorError, LookupError, RuntimeError, ValueError):
        logger.warning("%s is damaged, so its evaluator is trained again", path)
    logger.warning("training an evaluator for %s once, about a minute; kept in %s", train.name, path)
    network = learn(train, validation, images=ON_DEMAND)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".partial-{path.name}")
    partial.write_bytes(safetensors.torch.save(network.state_dict()))
    partial.replace(path)
    return network_of(network.state_dict(), train.spec, name=name)


def accuracy(network: FeatureNetwork, images: Images) -> float:
    """The share of images whose class the network reads right."""
    assert images.labels is not None
    return float(_logits(network, images).argmax(1).eq(images.labels).double().mean())


def _shifted(images: Tensor) -> Tensor:
    """Each image moved by its own whole number of pixels, black where it came from."""
    n, _, height, width = images.shape
    padded = pad(images, [SHIFT] * 4, value=-1.0)
    down, across = torch.randint(0, 2 * SHIFT + 1, (2, n, 1))
    rows, columns = down + torch.arange(height), across + torch.arange(width)
    moved = padded[torch.arange(n)[:, None, None], :, rows[:, :, None], columns[:, None, :]]
    return moved.permute(0, 3, 1, 2)  # (N, H, W, C) -> (N, C, H, W)


@torch.no_grad()
def _logits(network: FeatureNetwork, images: Images) -> Tensor:
    return torch.cat([network(to_float(chunk)) for chunk in images.pixels.split(500)])


def _fitted_temperature(logits: Tensor, labels: Tensor) -> float:
    """What the logits must be divided by for the least cross-entropy (Guo et al., arXiv:1706.04599, section 4.2)."""
    candidates = torch.linspace(0.5, 4.0, 351)
    losses = torch.stack([cross_entropy(logits / value, labels) for value in candidates])
    return float(candidates[losses.argmin()])
