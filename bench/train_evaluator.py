"""Train the frozen feature network of a data set on its fit split and write it into the package.

    GANSMITH_DATA=... python bench/train_evaluator.py mnist

Labels of the fit split only; images are shifted by up to two pixels; the weights of the best epoch by validation
accuracy are kept. Features are scaled by their standard deviation on the fit split.
"""

import sys
from pathlib import Path

import safetensors.torch
import torch
from torch.nn.functional import cross_entropy

import gansmith.metrics
from gansmith.data import load_split, to_float
from gansmith.metrics.features import FeatureNetwork

EPOCHS, BATCH, RATE = 6, 128, 2e-3


def main(name: str) -> None:
    torch.manual_seed(2026)
    fit, validation = load_split(name, "fit"), load_split(name, "validation")
    assert fit.labels is not None and validation.labels is not None
    network = FeatureNetwork(fit.spec, num_classes=fit.num_classes, name=name)
    optimizer = torch.optim.AdamW(network.parameters(), RATE, weight_decay=0.01, fused=True)
    steps = EPOCHS * (len(fit) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=steps)
    best, kept = 0.0, {}
    for epoch in range(EPOCHS):
        for rows in torch.randperm(len(fit))[: len(fit) // BATCH * BATCH].split(BATCH):
            down, across = torch.randint(-2, 3, (2,)).tolist()
            images = torch.roll(to_float(fit.pixels[rows]), (down, across), (2, 3))
            loss = cross_entropy(network(images), fit.labels[rows], label_smoothing=0.05)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        accuracy = _accuracy(network, validation)
        print(f"epoch {epoch + 1}: validation accuracy {accuracy:.4f}", flush=True)
        if accuracy > best:
            best, kept = accuracy, {key: value.clone() for key, value in network.state_dict().items()}
    network.load_state_dict(kept)
    network.scale.copy_(torch.from_numpy(network.features(fit.pixels).std(axis=0)).clamp(min=1e-3))
    path = Path(gansmith.metrics.__file__).parent / "evaluators" / f"{name}.safetensors"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(safetensors.torch.save(network.state_dict()))
    print(f"test accuracy {_accuracy(network, load_split(name, 'test')):.4f} -> {path}")


@torch.no_grad()
def _accuracy(network: FeatureNetwork, images) -> float:
    found = torch.cat([network(to_float(chunk)).argmax(1) for chunk in images.pixels.split(1000)])
    return (found == images.labels).float().mean().item()


if __name__ == "__main__":
    main(sys.argv[1])
