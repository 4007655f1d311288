"""Stacked MNIST: three random digits as the colour channels of one image: 1,000 modes.

Source of the idea: unrolled GANs, arXiv:1611.02163, section 3.3.1.
"""

from pathlib import Path

import torch
from torch import Tensor

from gansmith.data.idx import load
from gansmith.data.images import Images

COUNTS = {"train": 128_000, "test": 26_000}


def stacked_mnist(root: Path | None, part: str) -> Images:
    """Return triples of MNIST's training (or test) images, drawn with replacement from a fixed seed, without labels.

    Args:
        root: the folder that holds MNIST's IDX files; if given, only it is used.
        part: "train" or "test".
    """
    digits = load("mnist", root, part)
    return Images(
        name="stacked-mnist",
        pixels=stack(digits.pixels, COUNTS[part], seed={"train": 1, "test": 2}[part]),
        labels=None,
        source=f"triples of {len(digits):,} digits from {digits.source}",
        notices=digits.notices,
    )


def stack(pixels: Tensor, count: int, *, seed: int) -> Tensor:
    """Return `count` triples, uint8 (count, 3, H, W), of grey images (N, 1, H, W); none where there are no images."""
    if not len(pixels):
        count = 0
    rows = torch.randint(max(1, len(pixels)), (count, 3), generator=torch.Generator().manual_seed(seed))
    return pixels[:, 0][rows]
