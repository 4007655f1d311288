"""FID as papers give it: the Frechet distance in the last pooled layer of Inception v3, TensorFlow's of 2015-12-05.

The weights are a port to PyTorch that pytorch-fid and torch-fidelity both publish, 96 MB under one hash; the network is
defined here. Images are 8-bit RGB, enlarged to 299 pixels as TensorFlow 1 did: bilinear, no half-pixel offsets, no
antialiasing, not rounded again. So figures are those of the original program and of torch-fidelity; pytorch-fid places
the sampling points half a pixel further, which changes its figures a little, and clean-fid reduces large images better.
"""

import itertools
import logging
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import avg_pool2d, conv2d, max_pool2d, relu

from gansmith.data.images import Images
from gansmith.data.official import OFFLINE, cache_dir
from gansmith.errors import NotFoundError
from gansmith.metrics.distances import frechet_of_moments
from gansmith.metrics.weights import cached_array, folded, read_published

SHA256 = "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"
FILE = "weights-inception-2015-12-05-6726825d.pth"
URLS = (
    f"https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/{FILE}",
    "https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/pt_inception-2015-12-05-6726825d.pth",
)
SIZE = 299
FEATURES = 2048
_CHUNK = 25
_TOWER = ("branch3x3dbl_1", "branch3x3dbl_2", "branch3x3dbl_3")
# Chains of convolutions that a block joins; a chain that ends in a tuple splits in two. "+2" is a stride.
_A = (("branch1x1",), ("branch5x5_1", "branch5x5_2"), _TOWER)
_B = (("branch3x3+2",), ("branch3x3dbl_1", "branch3x3dbl_2", "branch3x3dbl_3+2"))
_C = (
    ("branch1x1",),
    ("branch7x7_1", "branch7x7_2", "branch7x7_3"),
    ("branch7x7dbl_1", "branch7x7dbl_2", "branch7x7dbl_3", "branch7x7dbl_4", "branch7x7dbl_5"),
)
_D = (
    ("branch3x3_1", "branch3x3_2+2"),
    ("branch7x7x3_1", "branch7x7x3_2", "branch7x7x3_3", "branch7x7x3_4+2"),
)
_E = (
    ("branch1x1",),
    ("branch3x3_1", ("branch3x3_2a", "branch3x3_2b")),
    ("branch3x3dbl_1", "branch3x3dbl_2", ("branch3x3dbl_3a", "branch3x3dbl_3b")),
)
# Blocks with their chains and their pooling: averages that leave out the border's padding, but maxima in the last one,
# as in TensorFlow's graph; maxima of stride 2 go into the result as they are.
BLOCKS = (
    ("Mixed_5b", _A, "average"), ("Mixed_5c", _A, "average"), ("Mixed_5d", _A, "average"), ("Mixed_6a", _B, "halve"),
    ("Mixed_6b", _C, "average"), ("Mixed_6c", _C, "average"), ("Mixed_6d", _C, "average"), ("Mixed_6e", _C, "average"),
    ("Mixed_7a", _D, "halve"), ("Mixed_7b", _E, "average"), ("Mixed_7c", _E, "maximum"),
)  # fmt: skip

Array = NDArray[np.float64]
Layers = dict[str, tuple[Tensor, Tensor]]  # name -> kernel and bias, batch normalisation folded in

logger = logging.getLogger("gansmith")


def load_inception(path: Path | None = None) -> Layers:
    """Return the network's layers from a file of weights, or from the cache, downloaded first where it is not there.

    Raises NotFoundError where there is no file and none can be downloaded, GansmithError for another file.
    """
    remedy = f"give the file of {URLS[0]} with --fid-weights"
    weights = read_published(path or _download(remedy), sha256=SHA256, remedy=remedy)
    return fold_layers(weights)


def fold_layers(weights: dict[str, Tensor]) -> Layers:
    """Return the layers of weights under their published names."""
    names = [key.removesuffix(".conv.weight") for key in weights if key.endswith(".conv.weight")]
    return {name: folded(weights, f"{name}.conv", f"{name}.bn") for name in names}


def _download(remedy: str) -> Path:
    """Return the cached file of weights, downloaded first where it is not there."""
    import pooch

    folder = cache_dir("fid")
    if (folder / FILE).is_file():
        return folder / FILE
    if os.environ.get(OFFLINE):
        raise NotFoundError(f"FID needs the weights of Inception, and {OFFLINE} forbids downloads; {remedy}")
    logger.warning("downloading the weights of Inception, 96 MB, once, to %s", folder)
    reasons = []
    for url in URLS:
        try:
            return Path(pooch.retrieve(url, f"sha256:{SHA256}", fname=FILE, path=folder))
        except (OSError, ValueError) as error:  # of requests, and of pooch for another hash
            reasons.append(f"{url}: {type(error).__name__}")
    raise NotFoundError(
        f"FID needs the weights of Inception, which were not downloaded ({'; '.join(reasons)}); {remedy}"
    )


def fid_of(samples: Images, real: Sequence[Images], layers: Layers) -> float:
    """Return the FID of samples against all of these real images, whose moments are kept in the user's cache."""
    key = " ".join(("inception moments", SHA256, *(part.without_labels().sha256 for part in real)))
    images, device = len(samples) + sum(len(part) for part in real), _device_of(layers)
    cost = f", some {images // 400 + 1} minutes of one core" if device.type == "cpu" else ""
    logger.warning("FID runs Inception on up to %s images%s", f"{images:,}", cost)
    known = cached_array(key, lambda: np.vstack(inception_moments(layers, [part.pixels for part in real])))
    return frechet_of_moments((known[0], known[1:]), inception_moments(layers, [samples.pixels]))


def inception_moments(layers: Layers, sets: Sequence[Tensor]) -> tuple[Array, Array]:
    """Return the mean (2048,) and the covariance (2048, 2048) of the features of these sets together.

    They are summed on the way: the features of 50,000 images in float64 would take 800 MB.
    """
    device = _device_of(layers)
    place = torch.device("cpu") if device.type == "mps" else device  # MPS has no float64
    total = torch.zeros(FEATURES, dtype=torch.float64, device=place)
    count, squares = 0, torch.zeros(FEATURES, FEATURES, dtype=torch.float64, device=place)
    for chunk in itertools.chain.from_iterable(pixels.split(_CHUNK) for pixels in sets):
        features = inception_features(layers, chunk).to(place).double()
        count += len(features)
        total += features.sum(0)
        squares.addmm_(features.T, features)
    mean = total / count
    covariance = (squares - count * mean[:, None] * mean) / (count - 1)
    return mean.cpu().numpy(), covariance.cpu().numpy()


def move_layers(layers: Layers, device: torch.device) -> Layers:
    """Return the layers on a device, on which features are then computed."""
    return {name: (kernel.to(device), bias.to(device)) for name, (kernel, bias) in layers.items()}


def _device_of(layers: Layers) -> torch.device:
    return next((kernel.device for kernel, _ in layers.values()), torch.device("cpu"))


@torch.no_grad()
def inception_features(layers: Layers, pixels: Tensor) -> Tensor:
    """Return the last pooled layer, (N, 2048), of uint8 (N, C, H, W); grey images are made RGB by repetition."""
    images = resize_as_tensorflow(pixels.to(_device_of(layers)).float()).expand(-1, 3, -1, -1)
    return _forward(layers, (images - 128) / 128).mean((2, 3))


def resize_as_tensorflow(images: Tensor) -> Tensor:
    """Return (N, C, 299, 299), interpolated as `tf.image.resize_bilinear` of TensorFlow 1 did by default.

    The source of pixel k is k * size / 299, without the half-pixel offset of later versions.
    """
    for axis in (2, 3):
        size = images.shape[axis]
        position = torch.arange(SIZE, dtype=torch.float64) * (size / SIZE)
        shape = (-1, 1) if axis == 2 else (-1,)
        weight = (position - position.floor()).reshape(shape).to(images.dtype).to(images.device)
        low = position.long().to(images.device)
        first, second = images.index_select(axis, low), images.index_select(axis, (low + 1).clamp(max=size - 1))
        images = first + (second - first) * weight
    return images


def _forward(layers: Layers, images: Tensor) -> Tensor:
    """Return the last maps, (N, 2048, 8, 8), of (N, 3, 299, 299) in [-1, 1]."""
    maps = images.contiguous(memory_format=torch.channels_last)
    for name, is_padded in (("Conv2d_1a_3x3+2", False), ("Conv2d_2a_3x3", False), ("Conv2d_2b_3x3", True)):
        maps = _convolved(layers, name, maps, is_padded=is_padded)
    maps = max_pool2d(maps, 3, 2)
    for name in ("Conv2d_3b_1x1", "Conv2d_4a_3x3"):
        maps = _convolved(layers, name, maps, is_padded=False)
    maps = max_pool2d(maps, 3, 2)
    for block, chains, pooling in BLOCKS:
        joined = [_chain(layers, block, chain, maps) for chain in chains]
        if pooling == "halve":
            joined.append(max_pool2d(maps, 3, 2))
        else:
            pooled = (
                avg_pool2d(maps, 3, 1, 1, count_include_pad=False)
                if pooling == "average"
                else max_pool2d(maps, 3, 1, 1)
            )
            joined.append(_convolved(layers, f"{block}.branch_pool", pooled))
        maps = torch.cat(joined, dim=1)
    return maps


def _chain(layers: Layers, block: str, chain: Sequence[str | tuple[str, ...]], maps: Tensor) -> Tensor:
    """Return what a chain of convolutions makes of the maps."""
    for step in chain:
        names = (step,) if isinstance(step, str) else step
        maps = torch.cat([_convolved(layers, f"{block}.{name}", maps) for name in names], dim=1)
    return maps


def _convolved(layers: Layers, name: str, maps: Tensor, *, is_padded: bool = True) -> Tensor:
    """Return a convolution with relu; of stride 1 with the size kept, unless it is not padded."""
    key, has_stride, _ = name.partition("+")
    kernel, bias = layers[key]
    height, width = kernel.shape[2:]
    padding = (height // 2, width // 2) if is_padded and not has_stride else 0
    return relu(conv2d(maps, kernel, bias, stride=2 if has_stride else 1, padding=padding))
