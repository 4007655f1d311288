"""The network of evaluators that are trained on demand: a small residual network, 256 features from several depths."""

import torch
from torch import Tensor, nn
from torch.nn.functional import relu

from gansmith.data.images import ImageSpec
from gansmith.metrics.features import Classifier

WIDTHS = (32, 64, 128)  # of the three residual blocks
LARGEST_MAP = 20  # side in pixels of the first block's maps at most


class _Block(nn.Module):
    """Two 3x3 convolutions with batch normalisation, added to their input or to a 1x1 convolution of it."""

    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.first = _convolution(channels, width, kernel=3, stride=stride)
        self.second = _convolution(width, width, kernel=3, stride=1)
        is_same = channels == width and stride == 1
        self.skip = nn.Identity() if is_same else _convolution(channels, width, kernel=1, stride=stride)

    def forward(self, maps: Tensor) -> Tensor:
        """Return (N, width, H / stride, W / stride)."""
        return relu(self.second(relu(self.first(maps))) + self.skip(maps))


class ResidualNetwork(Classifier):
    """A classifier of three residual blocks (He et al., arXiv:1512.03385, figure 3) on maps of at most 20 x 20.

    Features are the channel means of what enters the first block and of what leaves each: 32 + 32 + 64 + 128.

    Attributes:
        confusion: (K, K) share of each class, row, among the classifications of held-out images of each label, column.
        accuracy: share of held-out images that it classifies correctly; NaN where its classes were k-means clusters.
    """

    accuracy: Tensor
    confusion: Tensor

    def __init__(self, spec: ImageSpec, *, num_classes: int, name: str) -> None:
        super().__init__(name, (WIDTHS[0], *WIDTHS))
        stem: list[nn.Module] = []
        channels, side = spec.channels, spec.size
        while not stem or side > LARGEST_MAP:
            stride = 4 if side > 64 else 2 if side > LARGEST_MAP else 1
            stem += [_convolution(channels, WIDTHS[0], kernel=max(3, 2 * stride), stride=stride), nn.ReLU()]
            channels, side = WIDTHS[0], side // stride
        self.stem = nn.Sequential(*stem)
        strides = (1, 2, 2)
        self.blocks = nn.ModuleList(
            _Block(before, width, stride) for before, width, stride in zip(self.depths, WIDTHS, strides, strict=False)
        )
        self.classifier = nn.Linear(WIDTHS[-1], max(num_classes, 1))
        self.register_buffer("accuracy", torch.tensor(torch.nan))
        self.register_buffer("confusion", torch.eye(self.num_classes))

    def pooled(self, images: Tensor) -> list[Tensor]:
        """Return the channel means of (N, C, H, W) in [-1, 1] at each depth, the last (N, 128)."""
        maps = self.stem(images.contiguous(memory_format=torch.channels_last))
        means = [maps.mean((2, 3))]
        for block in self.blocks:
            maps = block(maps)
            means.append(maps.mean((2, 3)))
        return means


def _convolution(channels: int, width: int, *, kernel: int, stride: int) -> nn.Sequential:
    """Return a convolution with batch normalisation that divides the side by the stride."""
    convolution = nn.Conv2d(channels, width, kernel, stride, padding=(kernel - 1) // 2, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(width))
