"""Layers that several networks share, activations, weight initialisation, and checks of what a network supports."""

import math
from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from typing import Any

import torch
from torch import Tensor, nn

from gansmith.config import FIELDS, Config
from gansmith.data.images import ImageSpec
from gansmith.errors import ConfigError
from gansmith.processes import all_rows, is_sharing, of_all, own_rows, totals

SLOPE = 0.2  # negative slope of leaky ReLUs


class Dropout(nn.Module):
    """Dropout that draws 16 random bits per activation, several times faster on CPUs than torch's.

    The probability is therefore a multiple of 1/65536. Source: Srivastava et al., JMLR 15 (2014).

    Attributes:
        sources: a random generator for each image, set while sampling so that an image's mask does not depend on the
            others of its batch; None turns dropout off in evaluation mode.
    """

    def __init__(self, probability: float) -> None:
        super().__init__()
        self.dropped = round(probability * 2**16)
        self.sources: Sequence[torch.Generator] | None = None

    def forward(self, values: Tensor) -> Tensor:
        if self.sources is not None:
            bits = torch.stack([torch.randint(2**16, values.shape[1:], generator=source) for source in self.sources])
            return self._masked(values, bits.to(values.device))
        if not self.training or not self.dropped:
            return values
        if values.device.type != "cpu":  # which draws fast, and from its own generator
            bits = torch.randint(2**16, (all_rows(len(values)), *values.shape[1:]), device=values.device)
            return self._masked(values, own_rows(bits))
        count = all_rows(values.numel())
        words = torch.empty(-(-count // 4), dtype=torch.int64).random_(-(2**63), None)
        bits = words.view(torch.int16)[:count]
        if is_sharing():
            bits = own_rows(bits.view(all_rows(len(values)), -1)).flatten()
        # Filled in memory order, so that the mask has the strides of the values.
        kept = torch.empty_like(values, memory_format=torch.preserve_format)
        torch.as_strided(kept, (values.numel(),), (1,)).copy_(bits >= self.dropped - 2**15)
        return values * kept.mul_(1 / (1 - self.dropped / 2**16))

    def _masked(self, values: Tensor, bits: Tensor) -> Tensor:
        return values * (bits >= self.dropped) / (1 - self.dropped / 2**16)

    def extra_repr(self) -> str:
        return f"{self.dropped / 2**16:.4g}"


class MinibatchStddev(nn.Module):
    """Appends a feature, how much the images of a group differ, which exposes mode collapse.

    It is the standard deviation over the group, averaged over all features (and positions). Groups are consecutive
    images, so real and generated images in one batch never share a group if the group size divides the number of each.
    Source: Karras et al., arXiv:1710.10196, section 3; groups as in StyleGAN2, arXiv:1912.04958, appendix B.

    Args:
        group: images in a group; its greatest common divisor with the number of images if that is not a multiple.
    """

    def __init__(self, group: int) -> None:
        super().__init__()
        self.group = group

    def forward(self, features: Tensor) -> Tensor:
        group = math.gcd(self.group, len(features))
        groups = features.unflatten(0, (-1, group))  # (N / group, group, F) or (N / group, group, C, H, W)
        variance = (groups - groups.mean(dim=1, keepdim=True)).square().mean(dim=1)  # a tenth of the time of `var`
        deviation = (variance + 1e-8).sqrt().flatten(1).mean(1)
        shape = (-1, *[1] * (features.dim() - 1))
        appended = deviation.repeat_interleave(group).view(shape).expand_as(features[:, :1])
        return torch.cat([features, appended], dim=1)  # (N, F + 1) or (N, C + 1, H, W)

    def extra_repr(self) -> str:
        return f"group={self.group}"


def normalise_whole_batch(layer: nn.modules.batchnorm._BatchNorm, values: Tensor) -> Tensor:
    """Return a layer's output for values (N, C, ...), with statistics of the whole batch where processes share one."""
    if not (layer.training and is_sharing()):
        normalised: Tensor = type(layer).forward(layer, values)
        return normalised
    normalised = _WholeBatchNorm.apply(values, layer.weight, layer.bias, layer.eps)  # type: ignore[no-untyped-call]
    return normalised


class _WholeBatchNorm(torch.autograd.Function):
    """Batch normalisation over all processes: one exchange of statistics, and one of their gradients.

    Source: Ioffe and Szegedy, arXiv:1502.03167, section 3; variances of parts are joined as by Chan et al. 1979.
    """

    @staticmethod
    def forward(ctx: Any, values: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
        # Computes its output too, and still takes a fraction of var_mean's time on the CPU.
        _, mean, inverse = torch.native_batch_norm(values, weight, bias, None, None, True, 0.0, eps)
        means, variances = of_all(torch.stack([mean, inverse.pow(-2) - eps])).unbind(1)  # (processes, C) each
        centre = means.mean(0)
        spread = (variances + (means - centre).square()).mean(0)
        ctx.save_for_backward(values, weight, centre, spread)
        ctx.eps = eps
        return nn.functional.batch_norm(values, centre, spread, weight, bias, training=False, eps=eps)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        values, weight, centre, spread = ctx.saved_tensors
        with_fixed, to_weight, to_bias = torch.ops.aten.native_batch_norm_backward(
            gradient, values, weight, centre, spread, None, None, False, ctx.eps, [True, True, True]
        )
        sums = totals(torch.stack([to_weight, to_bias])) / all_rows(values.numel() // values.shape[1])
        inverse = (spread + ctx.eps).rsqrt()
        scale = weight * inverse
        slope = scale * inverse * sums[0]
        shape = [1, -1, *[1] * (values.dim() - 2)]
        offset = scale * sums[1] - slope * centre
        through_statistics = torch.addcmul(offset.view(shape), values.float(), slope.view(shape))
        return (with_fixed - through_statistics).to(values.dtype), to_weight, to_bias, None


def minibatch_stddev(config: Config) -> MinibatchStddev | None:
    """Return the layer for a discriminator; None if the config turns it off."""
    return MinibatchStddev(config.minibatch_stddev) if config.minibatch_stddev else None


def stddev_features(config: Config) -> int:
    """Return the number of features (or channels) that `minibatch_stddev` appends: 1, or 0 without it."""
    return 1 if config.minibatch_stddev else 0


class SlowLinear(nn.Linear):
    """A linear layer with a learning-rate multiplier, for optimisers such as Adam that are invariant to gradient scale.

    Its parameters are stored divided by the multiplier and multiplied by it in the forward pass. The initialisation is
    He's. Source: Karras et al., arXiv:1812.04948, appendix C.
    """

    def __init__(self, inputs: int, outputs: int, lr_multiplier: float) -> None:
        super().__init__(inputs, outputs)
        self.lr_multiplier = lr_multiplier
        he_normal(self)
        self.divide_weights()

    def divide_weights(self) -> None:
        """Turn newly initialised weights into the stored ones."""
        with torch.no_grad():
            self.weight.div_(self.lr_multiplier)

    def forward(self, values: Tensor) -> Tensor:
        return nn.functional.linear(values, self.weight * self.lr_multiplier, self.bias * self.lr_multiplier)


class ChannelsLast(nn.Module):
    """The same maps in channels-last memory format, so that gradients keep that format in the backward pass."""

    def forward(self, maps: Tensor) -> Tensor:
        return maps.contiguous(memory_format=torch.channels_last)  # (N, C, H, W)


class UnflattenChannelsLast(nn.Unflatten):
    """torch's Unflatten with its result in channels-last memory format."""

    def forward(self, values: Tensor) -> Tensor:
        maps: Tensor = super().forward(values)
        return maps.contiguous(memory_format=torch.channels_last)  # (N, C, H, W)


class FlattenChannelsLast(nn.Module):
    """(N, C, H, W) to (N, H * W * C), the memory order of channels-last maps, so nothing is copied."""

    def forward(self, maps: Tensor) -> Tensor:
        return maps.permute(0, 2, 3, 1).flatten(1)


class Crop(nn.Module):
    """The first `side` rows and columns of maps."""

    def __init__(self, side: int) -> None:
        super().__init__()
        self.side = side

    def forward(self, maps: Tensor) -> Tensor:
        return maps[:, :, : self.side, : self.side]

    def extra_repr(self) -> str:
        return str(self.side)


class PadSame(nn.Module):
    """Zero padding as Keras does it for `padding="same"`: an odd pixel goes to the right and to the bottom."""

    def __init__(self, *, kernel_size: int, stride: int) -> None:
        super().__init__()
        self.kernel_size, self.stride = kernel_size, stride

    def forward(self, images: Tensor) -> Tensor:
        height, width = (self._total(size) for size in images.shape[2:])
        return nn.functional.pad(images, (width // 2, -(-width // 2), height // 2, -(-height // 2)))

    def _total(self, size: int) -> int:
        return max(0, (math.ceil(size / self.stride) - 1) * self.stride + self.kernel_size - size)


SMALLEST_SIDE = 8  # maps are halved until they are no larger


def map_sides(size: int, *, halvings: int = 2, rounds_up: bool = False) -> list[int]:
    """Return the sides of a network's maps for images of this size, from the smallest to the image's own.

    Each is half of the next one. The smallest maps have 8 pixels or less where the size can be halved so often: 28
    gives [7, 14, 28], 64 gives [8, 16, 32, 64].

    Args:
        halvings: at least so many.
        rounds_up: whether odd sides are halved too: 100 gives [7, 13, 25, 50, 100] instead of [25, 50, 100].
    """
    sides = [size]
    while len(sides) <= halvings or (sides[0] > SMALLEST_SIDE and (rounds_up or sides[0] % 2 == 0)):
        sides.insert(0, -(-sides[0] // 2))
    return sides


def halved_widths(width: int, sides: Sequence[int]) -> list[int]:
    """Return the channels at each of these sides: a quarter of `width` at full size, half of it at 1/2, it below."""
    return [width >> max(0, 2 - levels_left) for levels_left in reversed(range(len(sides)))]


class Doubled(nn.Upsample):
    """Doubles maps by bilinear interpolation.

    On an NVIDIA GPU as products with fixed matrices: torch's kernel for the gradient adds in another order each time,
    and what torch does instead where results must be repeatable took an eighth of a step.
    """

    def __init__(self) -> None:
        super().__init__(scale_factor=2, mode="bilinear", align_corners=False)

    def forward(self, maps: Tensor) -> Tensor:
        return doubled_by_products(maps) if maps.is_cuda else super().forward(maps)


def doubled_by_products(maps: Tensor) -> Tensor:
    """Return maps (N, C, 2H, 2W) that are interpolated between maps (N, C, H, W), laid out with channels last."""
    rows, columns = (_doubling(side, maps.device, maps.dtype) for side in maps.shape[2:])
    down = rows @ maps.permute(0, 2, 3, 1).flatten(2)  # (N, 2H, W C)
    right = columns @ down.unflatten(2, (maps.shape[3], -1)).flatten(0, 1)  # (N 2H, 2W, C)
    doubled: Tensor = right.unflatten(0, (len(maps), -1)).permute(0, 3, 1, 2)
    return doubled


@lru_cache
def _doubling(side: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    """Return the (2 side, side) matrix of bilinear interpolation along one side."""
    with torch.inference_mode(False), torch.no_grad():
        doubled = nn.functional.interpolate(torch.eye(side)[None], scale_factor=2, mode="linear", align_corners=False)
        matrix: Tensor = doubled[0].mT.to(device, dtype)
        return matrix


def doubled_to(side: int) -> list[nn.Module]:
    """Return layers that double maps by bilinear interpolation, and crop them where `side` is odd."""
    return [Doubled(), Crop(side)] if side % 2 else [Doubled()]


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
    """Return the layer with He's normal initialisation and zero biases. Source: arXiv:1502.01852, eq. 15."""
    nn.init.kaiming_normal_(layer.weight, a=SLOPE)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


def convolution(inputs: int, outputs: int, *, kernel_size: int = 3, stride: int = 1) -> nn.Module:
    """Return a convolution that keeps the size, or divides it by the stride, with He's initialisation."""
    padding = (kernel_size - 1) // 2
    return he_normal(nn.Conv2d(inputs, outputs, kernel_size=kernel_size, stride=stride, padding=padding))


def activation(choice: str, default: nn.Module) -> nn.Module:
    """Return the activation that the config chooses, or the network's default."""
    return default if choice == "default" else ACTIVATIONS[choice]()


def dropout(probability: float) -> list[nn.Module]:
    """Return a list with a dropout layer, empty for a probability of zero."""
    return [Dropout(probability)] if probability else []


def initialise(network: nn.Module, scheme: str) -> None:
    """Initialise the weights of all linear layers, convolutions and embeddings again, with zero biases.

    A layer with `keeps_bias` keeps the one that its architecture gives it.

    normal: N(0, 0.02), arXiv:1511.06434, section 4. glorot: uniform, the default of Keras, with embeddings between
    -0.05 and 0.05. he: arXiv:1502.01852, eq. 10. orthogonal: arXiv:1312.6120. "default" changes nothing.
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
            if scheme == "he" and isinstance(layer, nn.ConvTranspose2d):  # whose fan in torch takes to be its outputs
                inputs = layer.in_channels * math.prod(layer.kernel_size) / math.prod(layer.stride)
                nn.init.normal_(layer.weight, std=math.sqrt(2 / inputs))
            if isinstance(layer, SlowLinear):
                layer.divide_weights()
            if layer.bias is not None and not getattr(layer, "keeps_bias", False):
                nn.init.zeros_(layer.bias)


def normalise_spectrally(network: nn.Module) -> None:
    """Add spectral normalisation to all layers with weights, with one power iteration per forward pass.

    Source: Miyato et al., arXiv:1802.05957, algorithm 1.
    """
    for layer in network.modules():
        if isinstance(layer, nn.Linear | nn.Conv2d | nn.ConvTranspose2d | nn.Embedding):
            nn.utils.parametrizations.spectral_norm(layer)


def refuse_size(spec: ImageSpec, config: Config) -> None:
    """Raise ConfigError if the image size is not a multiple of 4, so that it cannot be halved twice."""
    if spec.size % 4:
        raise ConfigError(
            f"images are {spec.size} pixels wide; the {config.network} network needs a multiple of 4: resize them"
        )


def refuse_widths(config: Config, **multiples: int) -> None:
    """Raise ConfigError if a width is not a multiple of the given number: `refuse_widths(config, g_width=2)`."""
    for name, multiple in multiples.items():
        width = getattr(config, name)
        if width % multiple:
            raise ConfigError(
                f"{name} is {width}; the {config.network} network divides it by {multiple}: give a multiple, such as 64"
            )


def refuse_unused(config: Config, *fields: str) -> None:
    """Raise ConfigError if one of these fields, which the network does not support, is not at its default."""
    for name in fields:
        value = getattr(config, name)
        if value != FIELDS[name].default:
            raise ConfigError(
                f"{name} is {value!r}, which the {config.network} network does not support; leave it at "
                f"{FIELDS[name].default!r} or choose another network"
            )
