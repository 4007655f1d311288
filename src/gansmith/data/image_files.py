"""Images that any program may have written: a .npz of arrays, or a folder of PNG or JPEG pictures.

Sizes are checked against limits before anything of that size is allocated, and nothing is ever unpickled.
"""

import math
import struct
import warnings
import zipfile
import zlib
from pathlib import Path
from tokenize import TokenError
from typing import IO

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError

from gansmith.data.images import MAX_IMAGES, Images
from gansmith.errors import DataError, NotFoundError

MAX_BYTES = 2**29  # of all pixels together; reading takes twice that
MAX_SIDE_PX = 4096
_NAMES = ("images", "samples", "arr_0")  # of the array in a .npz, in this order
_ENDINGS = (".png", ".jpg", ".jpeg")
_MODES = {"1": "L", "L": "L", "LA": "L", "P": "RGB", "RGB": "RGB", "RGBA": "RGB"}


def read_images(path: Path) -> Images:
    """Return the images of a .npz file or a folder; raise DataError or NotFoundError where there are none to use."""
    if path.is_dir():
        return read_folder(path)
    if not path.is_file():
        raise NotFoundError(f"there is no file or folder {str(path)!r}; give a .npz or a folder of pictures")
    return read_npz(path)


def read_npz(path: Path) -> Images:
    """Return the images of a .npz file, with its labels where all are known.

    Accepted are uint8 images (N, H, W), (N, H, W, C) or (N, C, H, W), C 1 or 3, and int labels (N,).
    """
    try:
        with zipfile.ZipFile(path) as archive:
            # Other compressions are unpacked in one piece, however large.
            if any(
                entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) for entry in archive.infolist()
            ):
                raise DataError(f"{path} is compressed in a way NumPy does not write; save one with numpy.savez")
            stored = {name.removesuffix(".npy") for name in archive.namelist()}
            name = next((name for name in _NAMES if name in stored), None)
            if name is None:
                raise DataError(f"{path} holds no array called {' or '.join(_NAMES)}; save images under that name")
            found = {}
            for each in sorted({name, "labels", "truncation"} & stored):  # a set has no order
                with archive.open(f"{each}.npy") as file:
                    found[each] = read_array(file, f"{path}: {each}")
    except (zipfile.BadZipFile, zlib.error, OSError, EOFError, KeyError, NotImplementedError, RuntimeError) as error:
        raise DataError(f"{path} is not a whole .npz file ({error}); save one with numpy.savez") from None
    except UnicodeDecodeError:
        raise DataError(
            f"{path} is not a whole .npz file (its names are not text); save one with numpy.savez"
        ) from None
    pixels, labels, truncation = found[name], found.get("labels"), found.get("truncation")
    if truncation is not None and truncation.shape != ():
        raise DataError(f"{path} holds {truncation.size} truncations; one number is needed, or none")
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
        notices=()
        if truncation is None
        else (f"its images were drawn with truncation {truncation}: more typical, less varied",),
    )


def read_array(file: IO[bytes], what: str) -> np.ndarray:
    """Return one array of plain numbers in NumPy's format, whose header is trusted only within the size limit.

    Raises DataError, which names `what` was read, for anything else; the file must end with the array.
    """
    try:
        version = np.lib.format.read_magic(file)
        readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
        shape, is_fortran, dtype = readers[version](file)
    except (ValueError, KeyError, SyntaxError, TokenError, TypeError, RecursionError, MemoryError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(f"{what} is not a NumPy array ({reason}); save it with numpy.save or savez") from None
    size = math.prod(shape) * dtype.itemsize
    if dtype.kind not in "biuf" or size > MAX_BYTES or any(side < 0 for side in shape):
        raise DataError(f"{what} is {dtype} {shape}; plain numbers of at most {MAX_BYTES:,} bytes are needed")
    body = file.read(size + 1)
    if len(body) != size:
        raise DataError(f"{what} does not hold what its header says ({shape}); save it again")
    return np.frombuffer(body, dtype).reshape(shape, order="F" if is_fortran else "C")


def read_folder(path: Path) -> Images:
    """Return PNG and JPEG pictures of one size, sorted by name; subfolders are classes, numbered in sorted order.

    Colour pictures whose channels agree everywhere count as grey: many programs write grey images so.
    """
    root = path.resolve()
    files = sorted(file for file in path.iterdir() if file.suffix.lower() in _ENDINGS)
    labels: list[int] = []
    if not files:
        for label, folder in enumerate(sorted(folder for folder in path.iterdir() if folder.is_dir())):
            inside = sorted(file for file in folder.iterdir() if file.suffix.lower() in _ENDINGS)
            files += inside
            labels += [label] * len(inside)
    if not files:
        raise DataError(f"{path} holds no {', '.join(_ENDINGS)} files; give a folder of pictures")
    for file in files:
        if not file.resolve().is_relative_to(root):
            raise DataError(f"{file} is a link that leads out of {path}; put the picture itself there")
        if not file.is_file():
            raise DataError(f"{file} is not a regular file; keep only pictures in {path}")
    first = _read_picture(files[0])
    if first.shape[0] != first.shape[1]:
        raise DataError(f"{files[0]} is {first.shape[1]} x {first.shape[0]} pixels; square pictures are needed")
    if len(files) * first.size > MAX_BYTES:
        raise DataError(f"{path} holds {len(files):,} pictures, more than {MAX_BYTES:,} bytes; give fewer")
    pixels = np.empty((len(files), *first.shape), np.uint8)
    for row, file in enumerate(files):
        picture = _read_picture(file)
        if picture.shape != first.shape:
            raise DataError(f"{file} is {picture.shape} where {files[0].name} is {first.shape}; use one size and mode")
        pixels[row] = picture
    if (pixels == pixels[..., :1]).all():
        pixels = pixels[..., :1]
    return Images(
        name=path.name,
        pixels=torch.from_numpy(np.ascontiguousarray(pixels.transpose(0, 3, 1, 2))),
        labels=torch.tensor(labels) if labels else None,
        source=str(path),
    )


def _read_picture(path: Path) -> np.ndarray:
    """Return the uint8 pixels (H, W, 1 or 3) of a picture."""
    picture = open_picture(path)
    if max(picture.size) > MAX_SIDE_PX or picture.mode not in _MODES:
        raise DataError(
            f"{path} is {picture.mode} of {picture.width} x {picture.height} pixels; 8-bit grey or colour of "
            f"at most {MAX_SIDE_PX} x {MAX_SIDE_PX} pixels is needed"
        )
    array = np.asarray(picture.convert(_MODES[picture.mode]))
    return array[..., None] if array.ndim == 2 else array


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
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(f"{path} cannot be read as a picture ({reason}); write it again") from None
    return picture
