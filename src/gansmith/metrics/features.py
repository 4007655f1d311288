"""Small networks that turn images into the vectors distances are measured on.

A trained one ships for each well-known data set, frozen, its weights named by their hash; bench/train_evaluator.py
made it from the fit split alone. Any other data set gets the same network with random weights, which needs no
labels and measures texture and layout instead of identity.
"""

import hashlib
from importlib import resources

import numpy as np
import safetensors.torch
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import relu

from gansmith.data import ImageSpec, to_float

_CHUNK = 500


class FeatureNetwork(nn.Module):
    """Three strided convolutions and a hidden layer; features from every depth, 224 numbers an image.

    Early layers notice noise, blur and grey levels, which a classifier's last layer ignores.
    """

    scale: Tensor

    def __init__(self, spec: ImageSpec, *, num_classes: int, name: str) -> None:
        super().__init__()
        self.name = name
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
        self.register_buffer("scale", torch.ones(224))

    def layers(self, images: Tensor) -> list[Tensor]:
        """Activations of (N, C, H, W) in [-1, 1] at every depth; the last is the hidden layer, (N, 128)."""
        found = []
        maps = images
        for convolution in self.convolutions:
            maps = relu(convolution(maps))
            found.append(maps)
        return [*found, relu(self.hidden(maps.flatten(1)))]

    def forward(self, images: Tensor) -> Tensor:
        """(N, num_classes) logits."""
        logits: Tensor = self.classifier(self.layers(images)[-1])
        return logits

    @torch.no_grad()
    def features(self, pixels: Tensor) -> NDArray[np.float64]:
        """(N, 224) of uint8 (N, C, H, W): pooled first and second maps and the hidden layer, each scaled."""
        rows = []
        for chunk in pixels.split(_CHUNK):
            first, second, _, hidden = self.layers(to_float(chunk))
            rows.append(torch.cat([first.mean((2, 3)), second.mean((2, 3)), hidden], dim=1) / self.scale)
        found: NDArray[np.float64] = torch.cat(rows).double().numpy()
        return found


def load_feature_network(dataset: str, spec: ImageSpec) -> FeatureNetwork:
    """The frozen network of a data set, or the one with random weights where none ships."""
    file = resources.files("gansmith.metrics") / "evaluators" / f"{dataset}.safetensors"
    if file.is_file():
        data = file.read_bytes()
        weights = safetensors.torch.load(data)
        name = f"{dataset}-{hashlib.sha256(data).hexdigest()[:12]}"
        classes, channels = weights["classifier.bias"].shape[0], weights["convolutions.0.weight"].shape[1]
        if (channels, weights["hidden.weight"].shape[1]) == (spec.channels, 128 * (-(-spec.size // 8)) ** 2):
            with torch.device("meta"):
                network = FeatureNetwork(spec, num_classes=classes, name=name)
            network.load_state_dict(weights, assign=True)
            return network.eval()
    return random_feature_network(spec)


def random_feature_network(spec: ImageSpec) -> FeatureNetwork:
    """The same shape with weights drawn from a fixed seed."""
    with torch.random.fork_rng(devices=[]):
        network = FeatureNetwork(spec, num_classes=0, name="random-504")
    rng = torch.Generator().manual_seed(504)
    with torch.no_grad():
        for parameter in network.parameters():
            fan_in = parameter[0].numel() if parameter.dim() > 1 else 0
            scale = (2 / fan_in) ** 0.5 if fan_in else 0.0
            parameter.copy_(scale * torch.randn(parameter.shape, generator=rng))
    return network.eval()
