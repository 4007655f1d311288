"""Published weight files of other programs, which PyTorch stores as pickles: read only where their hash is known.

Also what those networks say of real images, which takes minutes and is kept in the user's cache.
"""

import contextlib
import hashlib
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gansmith.data.official import cache_dir
from gansmith.errors import GansmithError
from gansmith.files import write_bytes

NORM_EPSILON = 1e-3  # of the batch normalisation in both networks


def read_published(path: Path, *, sha256: str, remedy: str) -> dict[str, Tensor]:
    """Return the tensors of a .pth file that is, byte for byte, the one published.

    Two locks on a format that can carry code: no byte is interpreted before the hash is known to be the published
    one, and `weights_only` lets torch's own reader build nothing but tensors.

    Args:
        remedy: what to do about another file, as the end of a sentence.

    Raises GansmithError for a missing file and for any other one.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise GansmithError(f"{path} cannot be read ({error.strerror}); {remedy}") from None
    found = hashlib.sha256(data).hexdigest()
    if found != sha256:
        raise GansmithError(f"{path} is not the published file (SHA-256 {found[:12]}, not {sha256[:12]}); {remedy}")
    weights: dict[str, Tensor] = torch.load(io.BytesIO(data), weights_only=True)
    return weights


def folded(weights: dict[str, Tensor], convolution: str, norm: str) -> tuple[Tensor, Tensor]:
    """Return kernel and bias of a convolution that does what this one and its batch normalisation do."""
    gain = weights[f"{norm}.weight"] / (weights[f"{norm}.running_var"] + NORM_EPSILON).sqrt()
    bias = weights[f"{norm}.bias"] - weights[f"{norm}.running_mean"] * gain
    return weights[f"{convolution}.weight"] * gain[:, None, None, None], bias


def cached_array(key: str, make: Callable[[], NDArray[Any]]) -> NDArray[Any]:
    """Return the array that is stored under this key, made and stored first where there is none, or a damaged one."""
    path = cache_dir("evaluators") / f"{hashlib.sha256(key.encode()).hexdigest()[:16]}.npy"
    with contextlib.suppress(OSError, ValueError, EOFError):
        stored: NDArray[Any] = np.load(path)
        return stored
    array, file = make(), io.BytesIO()
    np.save(file, array)
    with contextlib.suppress(OSError):  # a cache that cannot be written costs time and nothing else
        path.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(path, file.getvalue())
    return array
