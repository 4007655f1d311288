"""Layers that several networks share, and the choices of activation and first weights."""

import math
from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor, nn

from gansmith.config import FIELDS, Config
from gansmith.data.images import ImageSpec
from gansmith.errors import ConfigError

SLOPE = 0.2  # of leaky ReLUs below zero


class Dropout(nn.Module):
    """Sets each number to zero with a given probability, and scales up the others to match.

    The same as torch's, which draws one random number for each; this draws 16 bits for each, several times faster on
    processors. The probability is therefore a multiple of 1/65536. Source: Srivastava et al., JMLR 15 (2014).

    Attributes:
        sources: one random source for each image, which a sampler sets so that an image's mask is its own; None
            leaves the numbers alone outside training.
    """

    def __init__(self, probability: float) -> None:
        super().__init__()
        self.dropped = round(probability * 2**16)
        self.sources: Sequence[torch.Generator] | None = None

    def forward(self, values: Tensor) -> Tensor:
        if self.sources is not None:
            drawn = torch.stack([torch.randint(2**16, values.shape[1:], generator=source) for source in self.sources])
            return values * (drawn >= self.dropped) / (1 - self.dropped / 2**16)
        if not self.training or not self.dropped:
            return values
        words = torch.empty(-(-values.numel() // 4), dtype=torch.int64).random_(-(2**63), None)
        bits = words.view(torch.int16)[: values.numel()]
        # Drawn in memory order, so that the mask is laid out as the values are.
        kept = torch.empty_like(values, memory_format=torch.preserve_format)
        torch.as_strided(kept, (values.numel(),), (1,)).copy_(bits >= self.dropped - 2**15)
        return values * kept.mul_(1 / (1 - self.dropped / 2**16))

    def extra_repr(self) -> str:
        return f"{self.dropped / 2**16:.4g}"


class MinibatchStddev(nn.Module):
    """One more feature, the same for each group of the batch: how much its images differ, so that a collapse shows.

    It is the standard deviation over the group, averaged over all places of all maps. Groups are consecutive images,
    so real and generated images of one batch never share a group where the group size divides the number of either.
    Source: Karras et al., arXiv:1710.10196, section 3; groups as in StyleGAN2, arXiv:1912.04958, appendix B.

    Args:
        group: images in a group; fewer where the batch is not a multiple of it.
    """

    def __init__(self, group: int) -> None:
        super().__init__()
        self.group = group

    def forward(self, features: Tensor) -> Tensor:
        group = math.gcd(self.group, len(features))
        groups = features.unflatten(0, (-1, group))  # (N / group, group, F) or (N / group, group, C, H, W)
        deviation = (groups.var(dim=1, unbiased=False) + 1e-8).sqrt().flatten(1).mean(1)
        shape = (-1, *[1] * (features.dim() - 1))
        spread = deviation.repeat_interleave(group).view(shape).expand_as(features[:, :1])
        return torch.cat([features, spread], dim=1)  # (N, F + 1) or (N, C + 1, H, W)

    def extra_repr(self) -> str:
        return f"group={self.group}"


def minibatch_stddev(config: Config) -> MinibatchStddev | None:
    """Return the layer of a discriminator whose config asks for one, with groups that divide the batch."""
    group = math.gcd(config.minibatch_stddev, config.batch_size)
    return MinibatchStddev(group) if config.minibatch_stddev else None


def stddev_features(config: Config) -> int:
    """Return how many features that layer adds: 1, or 0 without it."""
    return 1 if config.minibatch_stddev else 0


class SlowLinear(nn.Linear):
    """A linear layer whose weights and biases move at a fraction of the learning rate, for optimisers blind to scale.

    What is learnt is kept divided by that fraction, and multiplied with it where it is used: the equalised learning
    rate with a multiplier. First weights are He's. Source: Karras et al., arXiv:1812.04948, appendix C.
    """

    def __init__(self, inputs: int, outputs: int, fraction: float) -> None:
        super().__init__(inputs, outputs)
        self.fraction = fraction
        he_normal(self)
        self.keep_divided()

    def keep_divided(self) -> None:
        """Keep freshly drawn weights as this layer keeps them."""
        with torch.no_grad():
            self.weight.div_(self.fraction)

    def forward(self, values: Tensor) -> Tensor:
        return nn.functional.linear(values, self.weight * self.fraction, self.bias * self.fraction)


class ChannelsLast(nn.Module):
    """The same maps, laid out as convolutions like them: gradients then flow back without changing places."""

    def forward(self, maps: Tensor) -> Tensor:
        return maps.contiguous(memory_format=torch.channels_last)  # (N, C, H, W)


class UnflattenMaps(nn.Unflatten):
    """Numbers to maps as torch's does it, channel after channel, but laid out as `ChannelsLast` does.

    In one layer, so that the weights after it keep the names they have in generators written earlier.
    """

    def forward(self, values: Tensor) -> Tensor:
        maps: Tensor = super().forward(values)
        return maps.contiguous(memory_format=torch.channels_last)  # (N, C, H, W)


class FlattenPlaces(nn.Module):
    """(N, C, H, W) to (N, H * W * C): place after place, which is how channels-last maps lie in memory anyway."""

    def forward(self, maps: Tensor) -> Tensor:
        return maps.permute(0, 2, 3, 1).flatten(1)


class PadSame(nn.Module):
    """The zeros Keras puts around an image for `padding="same"`: the odd one goes to the right and to the bottom."""

    def __init__(self, *, kernel_size: int, stride: int) -> None:
        super().__init__()
        self.kernel_size, self.stride = kernel_size, stride

    def forward(self, images: Tensor) -> Tensor:
        height, width = (self._total(size) for size in images.shape[2:])
        return nn.functional.pad(images, (width // 2, -(-width // 2), height // 2, -(-height // 2)))

    def _total(self, size: int) -> int:
        return max(0, (math.ceil(size / self.stride) - 1) * self.stride + self.kernel_size - size)


ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "leaky-relu": partial(nn.LeakyReLU, 0.2),
    "elu": nn.ELU,
    "selu": nn.SELU,
    "silu": nn.SiLU,
    "gelu": nn.GELU,
    "tanh": nn.Tanh,
}


def he_normal(layer: nn.Conv2d | nn.Linear) -> nn.Module:
    """The layer with initial weights that keep the signal's strength. Source: He et al., arXiv:1502.01852, eq. 14."""
    nn.init.kaiming_normal_(layer.weight, a=SLOPE)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


def convolution(inputs: int, outputs: int, *, kernel_size: int = 3, stride: int = 1) -> nn.Module:
    """A convolution that keeps the size, or divides it by the stride, with He's initial weights."""
    padding = (kernel_size - 1) // 2
    return he_normal(nn.Conv2d(inputs, outputs, kernel_size=kernel_size, stride=stride, padding=padding))


def activation(choice: str, own: nn.Module) -> nn.Module:
    """The activation a player was given, or the network's own."""
    return own if choice == "default" else ACTIVATIONS[choice]()


def dropout(probability: float) -> list[nn.Module]:
    """A dropout layer, or none where nothing is dropped."""
    return [Dropout(probability)] if probability else []


def initialise(network: nn.Module, scheme: str) -> None:
    """Draw all weights of linear layers, convolutions and embeddings anew and set their biases to zero.

    normal: N(0, 0.02), arXiv:1511.06434, section 4. glorot: uniform, as Keras starts its layers, with embeddings
    between -0.05 and 0.05. he: arXiv:1502.01852, eq. 10. orthogonal: arXiv:1312.6120. "default" does nothing.
    """
    draw: dict[str, Callable[[Tensor], Tensor]] = {
        "normal": partial(nn.init.normal_, std=0.02),
        "glorot": nn.init.xavier_uniform_,
        "he": nn.init.kaiming_normal_,
        "orthogonal": nn.init.orthogonal_,
    }
    if scheme == "default":
        return
    for layer in network.modules():
        if isinstance(layer, nn.Embedding):
            nn.init.uniform_(layer.weight, -0.05, 0.05) if scheme == "glorot" else draw[scheme](layer.weight)
        elif isinstance(layer, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
            draw[scheme](layer.weight)
            if isinstance(layer, SlowLinear):
                layer.keep_divided()
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


def normalise_spectrally(network: nn.Module) -> None:
    """Divide each weight by its largest singular value, found by one power iteration a pass.

    Source: Miyato et al., arXiv:1802.05957, algorithm 1.
    """
    for layer in network.modules():
        if isinstance(layer, nn.Linear | nn.Conv2d | nn.ConvTranspose2d | nn.Embedding):
            nn.utils.parametrizations.spectral_norm(layer)


def refuse_size(spec: ImageSpec, config: Config) -> None:
    """Raise ConfigError for images whose size a pair cannot halve twice."""
    if spec.size % 4:
        raise ConfigError(
            f"images are {spec.size} pixels wide; the {config.network} network needs a multiple of 4: resize them"
        )


def refuse_widths(config: Config, **multiples: int) -> None:
    """Raise ConfigError for a width that is not the multiple a pair must divide it by: `refuse_widths(c, g_width=2)`."""
    for name, multiple in multiples.items():
        width = getattr(config, name)
        if width % multiple:
            raise ConfigError(
                f"{name} is {width}; the {config.network} network divides it by {multiple}: give a multiple, such as 64"
            )


def refuse_unused(config: Config, *fields: str) -> None:
    """Raise ConfigError where one of these fields, which a network has no place for, was set."""
    for name in fields:
        value = getattr(config, name)
        if value != FIELDS[name].default:
            raise ConfigError(
                f"{name} is {value!r}, which the {config.network} network has no place for; leave it at "
                f"{FIELDS[name].default!r} or choose another network"
            )
