"""Evaluators: small networks that map images to the features distances are measured on, and classify them.

A trained one ships for MNIST and Fashion-MNIST, frozen, its file identified by its hash. scripts/train_evaluator.py
trained it on the train split; validation images chose its last epoch and its temperature. A network of the same shape
with random weights needs no labels and works for every data set. Both are used: the random one is sensitive to layout
and texture rather than class, and no generator can have been tuned to it.
"""

import hashlib
from dataclasses import dataclass
from importlib import resources
from typing import Protocol

import numpy as np
import safetensors.torch
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import relu

from gansmith.data.images import Images, ImageSpec, to_float
from gansmith.errors import GansmithError

RANDOM_SEED = 504


@dataclass(frozen=True)
class Shipped:
    """SHA-256 of a file in evaluators/, and of the image sets that its reference figures are valid for."""

    file: str
    data: tuple[str, ...]


SHIPPED_PX = 28  # side of the images that these networks know
SHIPPED = {  # as scripts/train_evaluator.py printed it
    "mnist": Shipped(
        "b00c1e0835ebcd14de16a13b76c38eee8f45d3358dd68493027dbbec18d4f9c6",
        (
            "71d3be42f93ad20da73bb4a9744d0bebdaa6832be56dc010e21940e72c4c8b1e",  # training images
            "4718853ea946af656684509414983beff2e65cf414265c27966161014c003b8b",  # test images
            "d3d0083f1c091e7c9d76974f9d3fbb92b521258ccebc03de8bbd6c3c226e8239",  # the embedded 5,000
        ),
    ),
    "fashion-mnist": Shipped(
        "24751a83c92a125d1ebeffb990a5d8a0b0b34a11bdf17782d5186e063d758d22",
        (
            "a8007d7be041707b663947cf4c2d8a73d1704ccde85043273b866d5181bde6c2",  # training images
            "3581bf52f521803120533f28e81ae934decd1771980630083c739dc6da7d3bc6",  # test images
        ),
    ),
}
_CHUNK = 100  # small enough for the first feature maps to stay in the processor's cache


class Evaluator(Protocol):
    """What distances are measured with.

    Attributes:
        name: identifies the network with its weights.
    """

    name: str

    @property
    def num_classes(self) -> int:
        """The number of classes of the data set that it knows; 1 for none."""

    def observe(self, pixels: Tensor) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return features (N, d) and class probabilities (N, num_classes) of uint8 (N, C, H, W)."""


class Classifier(nn.Module):
    """A classifier whose features are means of its maps at several depths; a subclass gives them by `pooled`.

    Early layers respond to noise, blur and grey levels, which a classifier's last layer ignores.

    Attributes:
        name: identifies the network with its weights.
        depths: number of features from each depth, d in all.
        scale: (d,) divisor of each feature, its standard deviation on real images.
        temperature: divisor of the logits, so that confidence matches accuracy on held-out images.
    """

    classifier: nn.Linear
    scale: Tensor
    temperature: Tensor

    def __init__(self, name: str, depths: tuple[int, ...]) -> None:
        super().__init__()
        self.name, self.depths = name, depths
        self.register_buffer("scale", torch.ones(sum(depths)))
        self.register_buffer("temperature", torch.ones(()))

    @property
    def num_classes(self) -> int:
        """The number of classes of the data set that it knows; 1 for random weights, or where they were clusters."""
        return self.classifier.out_features

    def pooled(self, images: Tensor) -> list[Tensor]:
        """Return the features of (N, C, H, W) in [-1, 1] from each depth, before `scale`; the last is classified."""
        raise NotImplementedError

    def forward(self, images: Tensor) -> Tensor:
        """Return (N, num_classes) logits."""
        logits: Tensor = self.classifier(self.pooled(images)[-1])
        return logits

    @torch.no_grad()
    def observe(self, pixels: Tensor) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return features (N, d) and class probabilities (N, num_classes) of uint8 (N, C, H, W)."""
        rows, logits = [], []
        for chunk in pixels.split(_CHUNK):
            means = self.pooled(to_float(chunk.to(self.scale.device)))
            rows.append(torch.cat(means, dim=1) / self.scale)
            logits.append(self.classifier(means[-1]))
        probabilities = (torch.cat(logits).cpu().double() / self.temperature.cpu()).softmax(1)
        return torch.cat(rows).cpu().double().numpy(), probabilities.numpy()

    def fit_scale(self, pixels: Tensor) -> None:
        """Set `scale` to the standard deviation of each feature over these images.

        It is at least half the median of its depth, or units that are almost always zero would dominate every distance:
        the FD of real images under random weights would be 6.6 instead of 1.0, on MNIST with 10,000 images.
        """
        self.scale.fill_(1.0)
        deviations = torch.from_numpy(self.observe(pixels)[0].std(axis=0)).float().split(self.depths)
        self.scale.copy_(torch.cat([layer.clamp(min=max(layer.median().item() / 2, 1e-6)) for layer in deviations]))


class FeatureNetwork(Classifier):
    """Three strided convolutions and a hidden layer; 224 features, of the first two and the hidden layer."""

    def __init__(self, spec: ImageSpec, *, num_classes: int, name: str) -> None:
        super().__init__(name, (32, 64, 128))
        side = -(-spec.size // 8)
        self.convolutions = nn.ModuleList(
            [
                nn.Conv2d(spec.channels, 32, kernel_size=5, stride=2, padding=2),
                nn.Conv2d(32, 64, kernel_size=3, stride=2, padding=1),
                nn.Conv2d(64, 128, kernel_size=3, stride=2, padding=1),
            ]
        )
        self.hidden = nn.Linear(128 * side * side, 128)
        self.classifier = nn.Linear(128, max(num_classes, 1))

    def pooled(self, images: Tensor) -> list[Tensor]:
        """Return the means of the first two maps, (N, 32) and (N, 64), and the hidden layer, (N, 128)."""
        first, second, third = self.convolutions
        maps = relu(first(images))
        means = [maps.mean((2, 3))]
        maps = relu(second(maps))
        means.append(maps.mean((2, 3)))
        return [*means, relu(self.hidden(relu(third(maps)).flatten(1)))]


def load_evaluators(train: Images) -> dict[str, FeatureNetwork]:
    """Return the frozen evaluators of a data set: "trained", where one ships, and "random"."""
    shipped = load_shipped(train.name, train.spec)
    random = random_feature_network(train.spec)
    if not shipped:
        random.fit_scale(train.shuffled(2_000).pixels)
        return {"random": random}
    random.scale.copy_(shipped["random.scale"])
    return {"trained": load_feature_network(train.name, train.spec), "random": random}


def load_feature_network(dataset: str, spec: ImageSpec) -> FeatureNetwork:
    """Return the trained evaluator of a data set, or the one with random weights where none ships."""
    shipped = load_shipped(dataset, spec)
    weights = {key.removeprefix("trained."): value for key, value in shipped.items() if key.startswith("trained.")}
    if not weights:
        return random_feature_network(spec)
    return network_of(weights, spec, name=f"{dataset}-{SHIPPED[dataset].file[:12]}")


def network_of(weights: dict[str, Tensor], spec: ImageSpec, *, name: str) -> FeatureNetwork:
    """Return a network in evaluation mode with these weights."""
    with torch.device("meta"):
        network = FeatureNetwork(spec, num_classes=len(weights["classifier.bias"]), name=name)
    network.load_state_dict(weights, assign=True)
    return network.eval()


def load_shipped(dataset: str, spec: ImageSpec) -> dict[str, Tensor]:
    """Return the tensors that ship for a data set: weights and the reference figures of real images; empty for others.

    Raises GansmithError where the file is not the one this version was released with.
    """
    if dataset not in SHIPPED:
        return {}
    data = (resources.files("gansmith.metrics") / "evaluators" / f"{dataset}.safetensors").read_bytes()
    if hashlib.sha256(data).hexdigest() != SHIPPED[dataset].file:
        raise GansmithError(f"the evaluator of {dataset} is damaged; install Gansmith again")
    shipped = safetensors.torch.load(data)
    known = (SHIPPED_PX, shipped["trained.convolutions.0.weight"].shape[1])
    return shipped if (spec.size, spec.channels) == known else {}


def random_feature_network(spec: ImageSpec) -> FeatureNetwork:
    """Return the evaluator with weights drawn from a fixed seed; `fit_scale` is left to the caller."""
    with torch.random.fork_rng(devices=[]):
        network = FeatureNetwork(spec, num_classes=0, name=f"random-{RANDOM_SEED}")
    rng = torch.Generator().manual_seed(RANDOM_SEED)
    with torch.no_grad():
        for parameter in network.parameters():
            fan_in = parameter[0].numel() if parameter.dim() > 1 else 0
            scale = (2 / fan_in) ** 0.5 if fan_in else 0.0
            parameter.copy_(scale * torch.randn(parameter.shape, generator=rng))
    return network.eval()
