"""Compare the order that the evaluators give to sets of samples with that of networks of other architectures.

    python scripts/rank_agreement.py cifar-10-images.tar.xz samples/*.npz

Two networks that Gansmith does not ship, a plain stack of convolutions and a ConvMixer, are trained on the labels of
the train split for a minute or two each. Prints the FD ratio of every file by every network, and Spearman's rank
correlation of the verdict (the largest ratio of the evaluators) with each of the other networks.
"""

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import spearmanr
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from gansmith.data.images import Images, to_float
from gansmith.evaluation import load_real, read_samples
from gansmith.metrics.distances import frechet_of_moments, moments
from gansmith.metrics.evaluators import find_evaluators, observe_real
from gansmith.metrics.protocol import Real
from gansmith.metrics.reference import COUNTS, Reference, measure_reference

IMAGES, BATCH_SIZE, LEARNING_RATE = 120_000, 128, 2e-3

Features = Callable[[Tensor], NDArray[np.float64]]


def plain(channels: int, classes: int) -> nn.Sequential:
    """Return a stack of convolutions with group normalisation and pooling, after Simonyan and Zisserman 2014."""
    layers: list[nn.Module] = []
    for before, width in ((channels, 32), (32, 64), (64, 96), (96, 128)):
        layers += [nn.Conv2d(before, width, 3, padding=1), nn.GroupNorm(8, width), nn.GELU(), nn.MaxPool2d(2)]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(128, classes))


class _Mixer(nn.Module):
    """Depthwise convolution with a shortcut, then a pointwise one."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.spatial = nn.Sequential(
            nn.Conv2d(width, width, 5, padding=2, groups=width), nn.GELU(), nn.BatchNorm2d(width)
        )
        self.channel = nn.Sequential(nn.Conv2d(width, width, 1), nn.GELU(), nn.BatchNorm2d(width))

    def forward(self, maps: Tensor) -> Tensor:
        return self.channel(self.spatial(maps) + maps)


def mixer(channels: int, classes: int) -> nn.Sequential:
    """Return a ConvMixer on patches of 4 x 4 (Trockman and Kolter, arXiv:2201.09792)."""
    stem = [nn.Conv2d(channels, 128, 4, stride=4), nn.GELU(), nn.BatchNorm2d(128)]
    body = [_Mixer(128) for _ in range(5)]
    return nn.Sequential(*stem, *body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(128, classes))


def train(network: nn.Sequential, images: Images) -> Features:
    """Train on the labels, with random mirror images; return a function from uint8 images to the last hidden layer."""
    assert images.labels is not None
    optimizer = torch.optim.AdamW(network.parameters(), LEARNING_RATE, weight_decay=0.05)
    steps = IMAGES // BATCH_SIZE
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=steps)
    for _ in range(steps):
        rows = torch.randint(len(images), (BATCH_SIZE,))
        batch = to_float(images.pixels[rows])
        batch = torch.where(torch.rand(BATCH_SIZE, 1, 1, 1) < 0.5, batch.flip(-1), batch)
        with torch.autocast("cpu", torch.bfloat16):
            logits = network(batch.contiguous(memory_format=torch.channels_last))
        loss = cross_entropy(logits.float(), images.labels[rows], label_smoothing=0.1)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    network.eval()
    return lambda pixels: _hidden(network[:-1], pixels)


@torch.no_grad()
def _hidden(network: nn.Module, pixels: Tensor) -> NDArray[np.float64]:
    return torch.cat([network(to_float(chunk)) for chunk in pixels.split(250)]).double().numpy()


def ratio(features: NDArray[np.float64], reference: Reference) -> float:
    """Return the FD ratio of as many samples as a reference of equal size is known for."""
    count = max(count for count in COUNTS if count <= len(features) and count in reference.fd_real)
    return frechet_of_moments(reference.moments, moments(features[:count])) / reference.fd_real[count]


def main(data: str, *files: str) -> None:
    torch.manual_seed(0)
    real = load_real(data)
    assert real.test is not None
    samples = {Path(file).stem: read_samples(Path(file), real.train) for file in files}
    verdict = np.zeros(len(samples))
    for name, network in find_evaluators(real.train).items():
        reference = measure_reference(*(observe_real(network, part)[0] for part in (real.test, real.validation)))
        ratios = [ratio(network.observe(part.pixels)[0], reference) for part in samples.values()]
        verdict = np.maximum(verdict, ratios)
        report(name, ratios, samples)
    report("verdict", list(verdict), samples)
    for name, network in other_networks(real).items():
        reference = measure_reference(network(real.test.pixels), network(real.validation.pixels))
        ratios = [ratio(network(part.pixels), reference) for part in samples.values()]
        report(name, ratios, samples)
        print(f"{name}: rank correlation with the verdict {spearmanr(verdict, ratios).statistic:.3f}", flush=True)


def other_networks(real: Real) -> dict[str, Features]:
    """Return the other architectures, trained, with their accuracy printed."""
    assert real.test is not None and real.test.labels is not None
    found = {}
    for build in (plain, mixer):
        network = build(real.train.spec.channels, real.train.num_classes)
        found[build.__name__] = train(network, real.train)
        with torch.no_grad():
            logits = torch.cat([network(to_float(chunk)) for chunk in real.test.pixels.split(250)])
        print(f"{build.__name__}: test accuracy {logits.argmax(1).eq(real.test.labels).float().mean():.3f}", flush=True)
    return found


def report(name: str, ratios: list[float], samples: dict[str, Images]) -> None:
    print(f"{name}: " + ", ".join(f"{key} {value:.2f}" for key, value in zip(samples, ratios, strict=True)), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
