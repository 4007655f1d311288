"""Images and labels in MATLAB's files, of versions 5 to 7.2."""

import hashlib
import io
import struct
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gansmith.data.arrays import Arrays, Parts, read_limited
from gansmith.data.numpy_files import IMAGES, LABELS, as_parts, first_of, plain_name
from gansmith.errors import DataError, reason_of


def read_mat(path: Path, like: Arrays | None, *, is_test: bool = False) -> Parts:
    """Return the arrays of a MATLAB file by the names of .npz files.

    SVHN's are X (32, 32, 3, N) and y (N, 1) with 10 for zero.
    """
    from scipy.io import loadmat

    data = read_limited(path)
    if _HDF5 in data[:1024]:
        raise DataError(f"{path} is of MATLAB 7.3 (HDF5), which is not read; save it again with save(..., '-v7')")
    if data[126:128] not in (b"IM", b"MI"):
        raise ValueError("it is not in the format of MATLAB 5 to 7.2")
    try:
        variables = _mat_variables(data)
        stored = {plain_name(name): name for name in variables}
        chosen = [(part, first_of(stored, IMAGES[part]), first_of(stored, LABELS[part])) for part in ("train", "test")]
        for name in (name for _, *names in chosen for name in names if name is not None):
            if not variables[name]:
                raise DataError(f"{path} cannot be read ({name} is not an array of plain numbers); save it as one")
        found = loadmat(io.BytesIO(data), variable_names=[name for _, *names in chosen for name in names if name])
    except DataError:
        raise
    except Exception as error:  # its reader raises many kinds, some of them its own
        reason = "its elements do not fit" if isinstance(error, struct.error) else reason_of(error)
        raise DataError(f"{path} is damaged ({reason}); fetch or save it again") from None
    if chosen[0][1] is None and not (is_test and chosen[1][1]):
        listing = ", ".join(variables) or "nothing"
        raise DataError(
            f"{path} holds no X but {listing[:200]}; save images as X (height, width, channels, count), or as .npz"
        )
    taken = [(part, found.get(images), found.get(labels)) for part, images, labels in chosen]
    images = {part: _mat_images(own) for part, own, _ in taken if own is not None}
    labels = {part: None if own is None else _mat_labels(own) for part, _, own in taken if part in images}
    said: dict[str, tuple[str, ...]] = {part: (_FLAT,) if own.ndim == 2 else () for part, own in images.items()}
    parts = as_parts(images, labels, said, dict.fromkeys(images, str(path)), like=like)
    digests = (hashlib.sha256(data).hexdigest(),)
    return {part: replace(arrays, digests=digests) for part, arrays in parts.items()}


_FLAT = (
    "flat images are taken row by row; where they look transposed, as MATLAB's img(:) does it, save them as (height, "
    "width, 1, count)"
)
_HDF5 = b"\x89HDF\r\n\x1a\n"  # the signature of files that MATLAB saves with -v7.3


def _mat_images(images: NDArray[Any]) -> NDArray[Any]:
    """Return images of (H, W, C, N), MATLAB's order, with N first; others as they are."""
    return np.moveaxis(images, -1, 0) if images.ndim == 4 and images.shape[2] in (1, 3, 4) else images


def _mat_labels(labels: NDArray[Any]) -> NDArray[Any]:
    """Return labels from 0 where they are 1 to 10, as SVHN numbers digits from MATLAB's first index."""
    is_from_one = labels.size > 0 and labels.min() > 0 and labels.max() == 10
    return labels % 10 if is_from_one else labels


_MAT_NUMBERS = range(6, 16)  # classes of arrays: double, single, int8 to uint64
_MAT_STORED = {1, 2, 3, 4, 5, 6, 7, 9, 12, 13}  # what their elements are stored as


def _mat_variables(data: bytes) -> dict[str, bool]:
    """Return the names in a MATLAB 5 file, and whether each is a plain array of numbers.

    SciPy takes the type of the stored numbers for an index unchecked, so a damaged one ends the process.
    """
    order = ">" if data[126:128] == b"MI" else "<"
    found: dict[str, bool] = {}
    start = 128
    while start + 8 <= len(data):
        kind, size = struct.unpack_from(f"{order}II", data, start)
        head = data[start : min(start + 8 + size, start + _MAT_HEAD)]
        if kind == 15:  # compressed
            head = zlib.decompressobj().decompress(head[8:], _MAT_HEAD)
        flags, dims_size = struct.unpack_from(f"{order}16xI8xI", head)  # two tags, the flags, the tag of dimensions
        name, after = _mat_element(head, 32 + -(-dims_size // 8) * 8, order)
        stored = struct.unpack_from(f"{order}I", head, after)[0] & 0xFFFF if len(head) >= after + 4 else 0
        is_plain = flags & 0xFF in _MAT_NUMBERS and not flags & 0x800 and stored in _MAT_STORED
        variable = name.decode("ascii", "replace")
        found[variable] = found.get(variable, True) and is_plain
        start += 8 + size
    return found


_MAT_HEAD = 4096  # bytes in which an array's name and type are found


def _mat_element(data: bytes, start: int, order: str) -> tuple[bytes, int]:
    """Return the content of an element of a MATLAB 5 file, and where the next one starts."""
    kind, size = struct.unpack_from(f"{order}II", data, start)
    if kind >> 16:  # a short one shares eight bytes with its tag
        return data[start + 4 : start + 4 + (kind >> 16)], start + 8
    return data[start + 8 : start + 8 + size], start + 8 + -(-size // 8) * 8
