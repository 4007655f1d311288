"""Class-conditional G and D around plain stacks of layers.

An architecture that is one stack of layers for G and one for D needs no code of its own for conditioning on class ids,
for features or for an auxiliary classifier.
"""

import torch
from torch import Tensor, nn

from gansmith.config import Config
from gansmith.data.images import ImageSpec
from gansmith.networks.layers import minibatch_stddev


def latent_inputs(spec: ImageSpec, config: Config) -> int:
    """Return the input size of the generator's first layer."""
    is_concatenated = spec.num_classes and config.g_conditioning != "multiplied"
    return 2 * config.latent_dim if is_concatenated else config.latent_dim


def image_channels(spec: ImageSpec, config: Config) -> int:
    """Return the input channels of the discriminator's first layer."""
    is_concatenated = spec.num_classes and config.d_conditioning == "concatenated"
    return spec.channels + 1 if is_concatenated else spec.channels


class Generator(nn.Module):
    """A generator conditioned on y by an embedding as long as the latent vector.

    The embedding is concatenated with the latent vector (Mirza and Osindero, arXiv:1411.1784) or multiplied with it, as
    in the Keras examples.

    Args:
        layers: (N, latent_inputs) to images (N, C, H, W) in [-1, 1].
    """

    def __init__(self, layers: nn.Sequential, spec: ImageSpec, config: Config) -> None:
        super().__init__()
        self.layers = layers
        self.is_multiplied = config.g_conditioning == "multiplied"
        self.embedding = nn.Embedding(spec.num_classes, config.latent_dim) if spec.num_classes else None

    def forward(self, z: Tensor, y: Tensor) -> Tensor:
        if self.embedding is not None:
            embedded = self.embedding(y)
            z = z * embedded if self.is_multiplied else torch.cat([z, embedded], dim=1)
        images: Tensor = self.layers(z)
        return images  # (N, C, H, W)


class Discriminator(nn.Module):
    """A discriminator conditioned on y in one of four ways.

    An embedding of y is multiplied or concatenated with the image (arXiv:1411.1784), or its inner product with the
    features is added to the logit (projection: Miyato and Koyama, arXiv:1802.05637, eq. 5), here divided by the square
    root of their number. An auxiliary classifier does not get y but predicts it from the features (Odena et al.,
    arXiv:1610.09585).

    Args:
        layers: (N, image_channels, H, W) to features (N, F) or (N, C, H, W).
        head: features to (N, 1); with `config.minibatch_stddev` it has one more input (or input channel).
        num_features: F or C * H * W.
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
        classes = spec.num_classes if self.form == "classifier" else 0
        if config.classifies:
            classes = spec.num_classes // config.ids_per_class
        self.classifier = nn.Linear(num_features, classes) if classes else None

    def forward(self, images: Tensor, y: Tensor) -> Tensor:
        return self.score(self.features(images, y), y)

    def features(self, images: Tensor, y: Tensor) -> Tensor:
        """Return features (N, F) or (N, C, H, W) of images."""
        if self.embedding is not None and self.form == "multiplied":
            images = images * self.embedding(y).view_as(images)
        if self.embedding is not None and self.form == "concatenated":
            images = torch.cat([images, self.embedding(y).view_as(images[:, :1])], dim=1)
        features: Tensor = self.layers(images)
        return features

    def score(self, features: Tensor, y: Tensor) -> Tensor:
        """Return (N,) logits of features."""
        inputs = features if self.stddev is None else self.stddev(features)
        logits: Tensor = self.head(inputs).flatten()
        if self.embedding is not None and self.form == "projection":
            flat = features.flatten(1)
            logits = logits + (self.embedding(y) * flat).sum(1) / flat.shape[1] ** 0.5
        return logits  # (N,)

    def classify(self, features: Tensor) -> Tensor:
        """Return (N, K) class logits of features."""
        assert self.classifier is not None
        logits: Tensor = self.classifier(features.flatten(1))
        return logits
