"""Images that stay in a file and are read where they are indexed, so that sets larger than memory can be trained on.

Rows are read, not mapped: a page fault for each costs as much as the call, and the pages of a mapped file count as
this process's memory (measured: 8.8 GB after 64,000 random images of 12 kB, the fault bringing in what lies around).
"""

import os
import weakref
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from tokenize import TokenError
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils._pytree import tree_map_only

from gansmith.errors import DataError

COPIED_BYTES = 2**28  # a choice of rows up to this size is copied into memory

aten = torch.ops.aten


@dataclass(frozen=True)
class Known:
    """What takes minutes to work out of a large file, and is kept beside it.

    Attributes:
        sha256: of the images with their labels; see `Images.sha256`.
        labels_sha256: of these labels; empty where there are none.
        held_out: (V,) int64 rows of the validation images.
    """

    sha256: str
    labels_sha256: str
    held_out: Tensor


class _File:
    """A file with an array of uint8 images, from which rows are read by any thread.

    Args:
        start: where the array begins, in bytes.
        shape: of one image as it is stored.
        is_channels_last: whether that is (H, W, C) rather than (C, H, W).
    """

    def __init__(self, path: Path, start: int, shape: tuple[int, ...], *, is_channels_last: bool) -> None:
        self.path, self.start, self.shape, self.is_channels_last = path, start, shape, is_channels_last
        self.descriptor, self.lock = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0)), Lock()
        weakref.finalize(self, os.close, self.descriptor)

    def read(self, rows: NDArray[np.int64]) -> Tensor:
        """Return these images, uint8 (n, C, H, W). Raises DataError where the file has become shorter."""
        found = np.empty((len(rows), *self.shape), np.uint8)
        size = found[:1].nbytes
        if len(rows) > 1 and (np.diff(rows) == 1).all():
            self._fill(found, self.start + int(rows[0]) * size)
        else:
            places = (self.start + rows * size).tolist()
            if hasattr(os, "posix_fadvise"):  # halves the time where the system has not cached the file
                for place in places:
                    os.posix_fadvise(self.descriptor, place, size, os.POSIX_FADV_WILLNEED)
            for image, place in zip(found, places, strict=True):
                self._fill(image, place)
        images = torch.from_numpy(found)
        return images.permute(0, 3, 1, 2).contiguous() if self.is_channels_last else images

    def _fill(self, images: NDArray[np.uint8], place: int) -> None:
        view, filled = images.data.cast("B"), 0
        while filled < len(view) and (count := self._read_into(view[filled:], place + filled)):
            filled += count
        if filled < len(view):
            raise DataError(f"{self.path} has become shorter while it was read; restore it")

    def _read_into(self, view: memoryview, place: int) -> int:
        try:
            if hasattr(os, "preadv"):  # forked processes share a file's position
                return os.preadv(self.descriptor, [view], place)
            with self.lock:
                os.lseek(self.descriptor, place, os.SEEK_SET)
                found = os.read(self.descriptor, len(view))
        except OSError as error:
            raise DataError(f"{self.path} could not be read ({error.strerror}); see that its drive is there") from None
        view[: len(found)] = found
        return len(found)


class OnDisk(Tensor):
    """Some rows of a file of images, as a uint8 (N, C, H, W) tensor that holds none of them in memory.

    Indexing and slicing rows reads them into an ordinary tensor; `split` gives such views again. Any other operation
    reads all rows first.

    Args:
        file: with all images.
        rows: (N,) int64, which of them, in any order.
        known: of exactly these rows, where it was worked out before.
    """

    @staticmethod
    def __new__(cls, file: _File, rows: Tensor, known: Known | None = None) -> "OnDisk":
        height, width, channels = file.shape if file.is_channels_last else (*file.shape[1:], file.shape[0])
        made: OnDisk = Tensor._make_wrapper_subclass(cls, (len(rows), channels, height, width), dtype=torch.uint8)
        return made

    def __init__(self, file: _File, rows: Tensor, known: Known | None = None) -> None:
        self.file, self.rows, self.known = file, rows, known

    def __repr__(self, *, tensor_contents: Any = None) -> str:  # type: ignore[override]
        return f"<{type(self).__name__} uint8 {tuple(self.shape)}>"

    def view_of(self, rows: Tensor) -> "OnDisk":
        """Return a view of these of its rows."""
        return OnDisk(self.file, self.rows[rows])

    def knowing(self, known: Known) -> "OnDisk":
        """Return the same view, with what is known of it."""
        return OnDisk(self.file, self.rows, known)

    def take_rows(self, rows: Tensor) -> Tensor:
        """Return these of its rows: in memory where they are few, else as a view."""
        is_small = len(rows) * self[:1].nbytes <= COPIED_BYTES
        return self.read(rows) if is_small else self.view_of(rows)

    def read(self, rows: Tensor) -> Tensor:
        """Return these of its rows as an ordinary tensor."""
        return self.file.read(self.rows[rows].numpy())

    def numpy(self, *, force: bool = False) -> NDArray[np.uint8]:
        """Return all rows as an array in memory."""
        found: NDArray[np.uint8] = _read_all(self).numpy()
        return found

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]  # the base class gives no signature
        cls, func: Any, types: Iterable[type], args: tuple[Any, ...] = (), kwargs: dict[Any, Any] | None = None
    ) -> Any:
        reader = _READERS.get(func)
        found = reader(*args) if reader is not None and isinstance(args[0], cls) else None
        if found is not None:
            return found
        args, kwargs = tree_map_only(cls, _read_all, (args, kwargs or {}))
        return func(*args, **kwargs)


def _read_all(pixels: OnDisk) -> Tensor:
    return pixels.read(torch.arange(len(pixels)))


def _split(pixels: OnDisk, size: int, dim: int = 0) -> list[OnDisk] | None:
    return [pixels.view_of(rows) for rows in torch.arange(len(pixels)).split(size)] if dim == 0 else None


def _index(pixels: OnDisk, indices: list[Tensor | None]) -> Tensor | None:
    if len(indices) != 1 or indices[0] is None or (indices[0].dtype == torch.bool and indices[0].dim() > 1):
        return None
    rows = torch.arange(len(pixels))[indices[0]]
    return pixels.read(rows.flatten()).reshape(*rows.shape, *pixels.shape[1:])


def _index_select(pixels: OnDisk, dim: int, rows: Tensor) -> Tensor | None:
    return pixels.read(rows) if dim == 0 else None


def _slice(pixels: OnDisk, dim: int = 0, start: Any = None, end: Any = None, step: int = 1) -> Tensor | None:
    return pixels.read(torch.arange(len(pixels))[start:end:step]) if dim == 0 else None


def _select(pixels: OnDisk, dim: int, row: int) -> Tensor | None:
    return pixels.read(torch.tensor([row]))[0] if dim == 0 else None


# Operations on rows that read no others; None from one stands for a case it leaves to reading all.
_READERS: dict[Any, Callable[..., Any]] = {
    aten.split.Tensor: _split,
    aten.index.Tensor: _index,
    aten.index_select.default: _index_select,
    aten.slice.Tensor: _slice,
    aten.select.int: _select,
}


def open_array(path: Path) -> OnDisk | None:
    """Return the images of a .npy file; None where it holds no uint8 (N, H, W), (N, H, W, C) or (N, C, H, W), C 1 or 3.

    Nothing but its header is read.
    """
    with path.open("rb") as file:
        try:
            version = np.lib.format.read_magic(file)
            shape, is_fortran, dtype = _HEADERS[version](file)
        except (ValueError, KeyError, SyntaxError, TokenError, TypeError, RecursionError, MemoryError):
            return None
        start = file.tell()
    size = int(np.prod(shape, dtype=np.int64))
    is_ours = dtype == np.uint8 and not is_fortran and len(shape) in (3, 4) and size > 0
    if not is_ours or path.stat().st_size != start + size:
        return None
    count, one = shape[0], shape[1:] if len(shape) == 4 else (1, *shape[1:])
    is_last = one[0] not in (1, 3)
    if is_last and one[2] not in (1, 3):
        return None
    return OnDisk(_File(path, start, one, is_channels_last=is_last), torch.arange(count))


_HEADERS: dict[tuple[int, int], Callable[..., Any]] = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}
