"""Train the frozen evaluator of a data set, measure what real images score, and write both into the package.

    GANSMITH_DATA=... python scripts/train_evaluator.py mnist

Prints the row that `SHIPPED` in src/gansmith/metrics/features.py needs.
"""

import copy
import hashlib
import sys
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, dropout, pad

import gansmith.metrics
from gansmith.data import load_data
from gansmith.data.embedded import embedded_mnist
from gansmith.data.images import Images, split, to_float
from gansmith.metrics.features import FeatureNetwork, random_feature_network
from gansmith.metrics.reference import measure_reference, to_tensors

IMAGES = 700_000  # 14 epochs of the train split
BATCH_SIZE, LEARNING_RATE, MAX_SHIFT_PX, DROPOUT, EMA_RATE = 128, 3e-3, 2, 0.4, 0.005


def train_evaluator(train: Images, validation: Images) -> FeatureNetwork:
    """Train a classifier of the classes of `train`; scale its features and calibrate its confidence.

    Each image is shifted by up to two pixels. An exponential moving average of the weights is kept, from the epoch with
    the best validation accuracy; the temperature is fitted to the validation images too. They have no other influence.
    """
    assert train.labels is not None and validation.labels is not None
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(2026)
        network = FeatureNetwork(train.spec, num_classes=train.num_classes, name="trained")
        average = copy.deepcopy(network)
        batch = min(BATCH_SIZE, len(train))
        steps, epochs = len(train) // batch, max(1, IMAGES // len(train))
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
            print(f"epoch {epoch + 1} of {epochs}: validation accuracy {score:.4f}", flush=True)
            if score > best:
                best, kept = score, copy.deepcopy(average.state_dict())
    network.load_state_dict(kept)
    network.temperature.fill_(_fitted_temperature(_logits(network, validation), validation.labels))
    network.fit_scale(train.pixels)
    return network.eval()


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


def main(name: str) -> None:
    whole, test = load_data(name), load_data(name, part="test")
    train, validation = split(whole)
    trained, random = train_evaluator(train, validation), random_feature_network(train.spec)
    random.fit_scale(train.shuffled(10_000).pixels)
    references = {
        key: measure_reference(network.observe(test.pixels)[0], network.observe(validation.pixels)[0])
        for key, network in (("trained", trained), ("random", random))
    }
    tensors = {f"trained.{key}": value for key, value in trained.state_dict().items()}
    tensors |= {"random.scale": random.scale, **to_tensors(references)}
    data = safetensors.torch.save(tensors)
    path = Path(gansmith.metrics.__file__).parent / "evaluators" / f"{name}.safetensors"
    path.write_bytes(data)
    print(f"{path}: {len(data):,} bytes, temperature {trained.temperature.item():.2f}")
    print(f"accuracy: validation {accuracy(trained, validation):.4f}, test {accuracy(trained, test):.4f}")
    for key, reference in references.items():
        print(f"FD of real images, {key}: {dict(reference.fd_real)}")
    hashes = [whole.sha256, test.sha256, *([embedded_mnist().sha256] if name == "mnist" else [])]
    print(f'"{name}": Shipped(\n    "{hashlib.sha256(data).hexdigest()}",\n    {tuple(hashes)},\n)')


if __name__ == "__main__":
    main(sys.argv[1])
