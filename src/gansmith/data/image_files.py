"""Arrays in NumPy's files, and single PNG or JPEG pictures, read with limits.

Sizes are checked against limits before anything of that size is allocated, and nothing is ever unpickled.
"""

import io
import math
import struct
import warnings
import zipfile
import zlib
from pathlib import Path
from tokenize import TokenError
from typing import IO, Any

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError

from gansmith.data.images import MAX_IMAGES, Images
from gansmith.errors import DataError, reason_of

# Ways of packing in a zip that are unpacked piece by piece; others in one, however large.
BOUNDED = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
MAX_HEADER_BYTES = 2**16  # of an array
MAX_BYTES = 2**29  # of all pixels together; reading takes twice that
_NAMES = ("images", "samples", "arr_0")  # of the array in a .npz, in this order


def truncation_notice(path: Path) -> tuple[str, ...]:
    """Return a sentence on the truncation that a .npz says its images were drawn with; nothing where it says none."""
    try:
        with zipfile.ZipFile(path) as archive, archive.open("truncation.npy") as file:
            truncation = read_array(file, f"{path}: truncation")
    except (KeyError, zipfile.BadZipFile, zlib.error, OSError, EOFError, NotImplementedError, RuntimeError):
        return ()  # none, or damage that reading the images will meet
    if truncation.shape != ():
        raise DataError(f"{path} holds {truncation.size} truncations; one number is needed, or none")
    return (
        () if truncation == 1 else (f"its images were drawn with truncation {truncation}: more typical, less varied",)
    )


def read_npz(path: Path) -> Images:
    """Return the images of a .npz file, with its labels where all are known.

    Accepted are uint8 images (N, H, W), (N, H, W, C) or (N, C, H, W), C 1 or 3, and int labels (N,).
    """
    try:
        with zipfile.ZipFile(path) as archive:
            if any(entry.compress_type not in BOUNDED for entry in archive.infolist()):
                raise DataError(f"{path} is compressed in a way NumPy does not write; save one with numpy.savez")
            stored = {name.removesuffix(".npy") for name in archive.namelist()}
            name = next((name for name in _NAMES if name in stored), None)
            if name is None:
                raise DataError(f"{path} holds no array called {' or '.join(_NAMES)}; save images under that name")
            found = {}
            for each in sorted({name, "labels"} & stored):  # a set has no order
                with archive.open(f"{each}.npy") as file:
                    found[each] = read_array(file, f"{path}: {each}")
    except (zipfile.BadZipFile, zlib.error, OSError, EOFError, KeyError, NotImplementedError, RuntimeError) as error:
        raise DataError(f"{path} is not a whole .npz file ({reason_of(error)}); save one with numpy.savez") from None
    except UnicodeDecodeError:
        raise DataError(
            f"{path} is not a whole .npz file (its names are not text); save one with numpy.savez"
        ) from None
    pixels, labels = found[name], found.get("labels")
    if pixels.dtype != np.uint8:
        raise DataError(f"{path} holds {pixels.dtype} images; save them as uint8 from 0 to 255")
    if pixels.ndim == 3:
        pixels = pixels[..., None]
    if pixels.ndim == 4 and pixels.shape[1] in (1, 3) and pixels.shape[3] not in (1, 3):
        pixels = pixels.transpose(0, 2, 3, 1)
    if pixels.ndim != 4 or pixels.shape[3] not in (1, 3) or pixels.shape[1] != pixels.shape[2] or not len(pixels):
        raise DataError(f"{path} holds images of shape {pixels.shape}; (count, size, size, 1 or 3) is needed")
    if labels is not None and (labels.shape != (len(pixels),) or labels.dtype.kind not in "iu"):
        raise DataError(f"{path} holds labels {labels.dtype} {labels.shape}; one whole number for each image is needed")
    if len(pixels) > MAX_IMAGES:
        raise DataError(f"{path} holds {len(pixels):,} images; up to {MAX_IMAGES:,} can be read, take fewer")
    known = labels is not None and bool((labels >= 0).all())
    return Images(
        name=path.stem,
        pixels=torch.from_numpy(pixels.transpose(0, 3, 1, 2).copy()),
        labels=torch.from_numpy(labels.astype(np.int64)) if labels is not None and known else None,
        source=str(path),
    )


def read_header(file: IO[bytes], what: str) -> tuple[tuple[int, ...], bool, "np.dtype[Any]"]:
    """Return the shape of an array in NumPy's format, whether it is stored by columns, and its type.

    Raises DataError, which names `what` was read, where the file does not begin with such a header.
    """
    try:
        version = np.lib.format.read_magic(file)
        if version not in ((1, 0), (2, 0), (3, 0)):
            raise ValueError(f"its version is {version[0]}.{version[1]}")
        is_first = version == (1, 0)
        size = file.read(2 if is_first else 4)
        if int.from_bytes(size, "little") > MAX_HEADER_BYTES:
            raise ValueError("its header is longer than any")
        header = io.BytesIO(size + file.read(int.from_bytes(size, "little")))
        # The third differs from the second in the names of fields alone, which arrays of plain numbers have not.
        return (np.lib.format.read_array_header_1_0 if is_first else np.lib.format.read_array_header_2_0)(header)
    except (ValueError, KeyError, SyntaxError, TokenError, TypeError, RecursionError, MemoryError) as error:
        raise DataError(f"{what} is not a NumPy array ({reason_of(error)}); save it with numpy.save or savez") from None


def read_array(file: IO[bytes], what: str, *, limit: int = MAX_BYTES, may_be_text: bool = False) -> np.ndarray:
    """Return one array of plain numbers in NumPy's format, whose header is trusted only within the size limit.

    Raises DataError, which names `what` was read, for anything else; the file must end with the array.
    """
    shape, is_fortran, dtype = read_header(file, what)
    size = math.prod(shape) * dtype.itemsize
    if dtype.hasobject:
        remedy = (
            "plain numbers or text, such as labels.astype(str), are needed"
            if may_be_text
            else "plain numbers are needed: join images of one size with numpy.stack"
        )
        raise DataError(f"{what} is {dtype} {shape}, which NumPy stores as a pickle, and none is ever read; {remedy}")
    if dtype.kind not in ("biufUS" if may_be_text else "biuf") or size > limit or any(side < 0 for side in shape):
        needed = "plain numbers or text" if may_be_text else "plain numbers"
        raise DataError(f"{what} is {dtype} {shape}; {needed} of at most {limit:,} bytes are needed")
    body = bytearray()  # memory is taken only as it fills
    while len(body) <= size and (piece := file.read(min(2**24, size + 1 - len(body)))):
        body += piece
    if len(body) != size:
        raise DataError(f"{what} does not hold what its header says ({shape}); save it again")
    return np.frombuffer(body, dtype).reshape(shape, order="F" if is_fortran else "C")


def open_picture(path: Path) -> Image.Image:
    """Return a whole PNG or JPEG picture; raise DataError for another format, damage, or over 89 million pixels."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path, formats=("PNG", "JPEG")) as picture:
                picture.load()
    except (
        UnidentifiedImageError, OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error,
        Image.DecompressionBombError, Image.DecompressionBombWarning,
    ) as error:  # fmt: skip
        raise DataError(f"{path} cannot be read as a picture ({reason_of(error)}); write it again") from None
    return picture
