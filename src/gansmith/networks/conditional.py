"""The two shells around plain stacks of layers: what the networks are told, and what D makes of its features.

A network that is one stack of layers a player needs no code of its own for conditioning, features or classes.
"""

import torch
from torch import Tensor, nn

from gansmith.config import Config
from gansmith.data.images import ImageSpec
from gansmith.networks.layers import minibatch_stddev


def latent_inputs(spec: ImageSpec, config: Config) -> int:
    """How many numbers enter the generator's first layer."""
    beside = spec.num_classes and config.g_conditioning != "multiplied"
    return 2 * config.latent_dim if beside else config.latent_dim


def image_channels(spec: ImageSpec, config: Config) -> int:
    """How many channels enter the discriminator's first layer."""
    beside = spec.num_classes and config.d_conditioning == "concatenated"
    return spec.channels + 1 if beside else spec.channels


class Generator(nn.Module):
    """Layers from `latent_inputs` numbers to an image, told y by an embedding of the latent's length.

    The embedding is put beside the latent (Mirza and Osindero, arXiv:1411.1784) or multiplied with it, as Keras
    examples do.
    """

    def __init__(self, layers: nn.Sequential, spec: ImageSpec, config: Config) -> None:
        super().__init__()
        self.layers = layers
        self.is_multiplied = config.g_conditioning == "multiplied"
        self.embedding = nn.Embedding(spec.num_classes, config.latent_dim) if spec.num_classes else None

    def forward(self, z: Tensor, y: Tensor) -> Tensor:
        if self.embedding is not None:
            told = self.embedding(y)
            z = z * told if self.is_multiplied else torch.cat([z, told], dim=1)
        images: Tensor = self.layers(z)
        return images  # (N, C, H, W)


class Discriminator(nn.Module):
    """Layers from images to features, a head of features, and a way to be told y.

    Multiplied and concatenated y enter with the image (arXiv:1411.1784). Projected ones add to the logit their
    product with the features (Miyato and Koyama, arXiv:1802.05637, eq. 5), here over the root of the features' number.
    A classifier is not told: it names the class from the features (Odena et al., arXiv:1610.09585).

    Args:
        layers: (N, image_channels, H, W) to features (N, F) or (N, C, H, W).
        head: features to (N, 1); has one more input where `config.minibatch_stddev` adds one.
        num_features: how many numbers an image's features are.
    """

    def __init__(
        self, layers: nn.Sequential, head: nn.Module, num_features: int, spec: ImageSpec, config: Config
    ) -> None:
        super().__init__()
        self.layers, self.head = layers, head
        self.stddev = minibatch_stddev(config)
        own = "projection" if config.d_conditioning == "auto" else config.d_conditioning
        self.form = own if spec.num_classes else "none"
        pixels = spec.size**2
        lengths = {"multiplied": spec.channels * pixels, "concatenated": pixels, "projection": num_features}
        self.embedding = nn.Embedding(spec.num_classes, lengths[self.form]) if self.form in lengths else None
        self.classifier = nn.Linear(num_features, spec.num_classes) if self.form == "classifier" else None

    def forward(self, images: Tensor, y: Tensor) -> Tensor:
        return self.score(self.features(images, y), y)

    def features(self, images: Tensor, y: Tensor) -> Tensor:
        """(N, F) or (N, C, H, W): what the head sees."""
        if self.embedding is not None and self.form == "multiplied":
            images = images * self.embedding(y).view_as(images)
        if self.embedding is not None and self.form == "concatenated":
            images = torch.cat([images, self.embedding(y).view_as(images[:, :1])], dim=1)
        features: Tensor = self.layers(images)
        return features

    def score(self, features: Tensor, y: Tensor) -> Tensor:
        """(N,) logits of features."""
        seen = features if self.stddev is None else self.stddev(features)
        logits: Tensor = self.head(seen).flatten()
        if self.embedding is not None and self.form == "projection":
            flat = features.flatten(1)
            logits = logits + (self.embedding(y) * flat).sum(1) / flat.shape[1] ** 0.5
        return logits  # (N,)

    def classify(self, features: Tensor) -> Tensor:
        """(N, K) logits of the classes."""
        assert self.classifier is not None
        logits: Tensor = self.classifier(features.flatten(1))
        return logits
