"""Loading of pictures: prepared on all cores in bounded memory, those of a large source once, into the cache."""

import hashlib
import logging
import math
import os
from collections import Counter, deque
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from torch import Tensor

from gansmith.data import cache
from gansmith.data.images import Images, find_known, with_known
from gansmith.data.on_disk import open_array
from gansmith.data.pictures import (
    PictureSource,
    holds_rows,
    look_around,
    on_broken,
    read_file,
    read_files,
    why_unreadable,
)
from gansmith.data.prepare import Pixels, Preparation, Watch, lost_in_words, quiet, read_prepared, settle, unforeseen
from gansmith.errors import DataError

WORTHWHILE_BYTES, WORTHWHILE_IMAGES = 10**8, 20_000  # of a source that is prepared once: fewer take seconds
MAX_MEMORY_BYTES = 2**32  # prepared, where the cache cannot be used
BATCH_IMAGES, BATCH_BYTES = 64, 2**24  # that a thread prepares at once

logger = logging.getLogger("gansmith")


def load_pictures(
    source: PictureSource, how: Preparation, *, part: str = "train", name: str = "pictures", watch: Watch | None = None
) -> Images:
    """Return the prepared pictures of a part as images; those of a large source from the cache, see `cache`.

    Unreadable ones are left out, counted and listed; over one in ten, or any where `how` is strict, are refused.

    Args:
        watch: called with the number of pictures done and of all of them while they are prepared.

    Raises DataError for those.
    """
    wanted = source.parts[part]
    pixels, facts = _find_or_prepare(source, how, part, watch)
    broken = {int(row): why for row, why in facts["broken"].items()}
    notices = (*source.notices, *facts["notices"], *on_broken(source.path, wanted.names, broken, strict=how.strict))
    images = Images(
        pixels,
        torch.tensor(wanted.labels, dtype=torch.int64) if wanted.labels else None,
        name=name,
        source=str(source.path),
        notices=(*notices, facts["in_words"]),
        class_names=source.class_names,
    )
    images = images.take(_kept(len(images), broken)) if broken else images
    return with_known(images, facts.get("known"))


def _kept(count: int, broken: Collection[int]) -> Tensor:
    return torch.tensor([row for row in range(count) if row not in broken])


def _find_or_prepare(
    source: PictureSource, how: Preparation, part: str, watch: Watch | None
) -> tuple[Tensor, dict[str, Any]]:
    """Return the pixels of all pictures of a part, with zeros in place of broken ones, and facts about them."""
    content, size = _content(source)
    count = len(source.parts[part].names)
    is_large = 3 * how.size**2 * count > cache.MEMORY_BYTES  # in memory
    if size < WORTHWHILE_BYTES and count < WORTHWHILE_IMAGES and not is_large:
        return _prepare_into_memory(source, how, part, watch)
    asked = asdict(replace(how, strict=False))  # which changes no pixel
    identity = {"source": str(source.path.resolve()), "part": part, "asked": asked, "content": content}
    try:
        entry = cache.find_or_make(identity, partial(_prepare_into_file, source, how, part, watch))
    except cache.CacheUnusable as error:
        pixels, facts = _prepare_into_memory(source, how, part, watch)
        return pixels, {**facts, "notices": [*facts["notices"], f"prepared again at every start: {error}"]}
    return entry.pixels, entry.facts


def _content(source: PictureSource) -> tuple[str, int]:
    """Return what changes with any picture of a source or their order, without reading them; and their bytes."""
    digest, size = hashlib.sha256(), 0
    if not source.path.is_dir():
        digest.update(cache.content_of(source.path).encode())
        for part in sorted(source.parts):
            listed = "\0".join([part, *source.parts[part].names])
            digest.update(f"\n{listed}".encode(errors="surrogateescape"))
        return digest.hexdigest(), source.path.stat().st_size
    for names in (source.parts[part].names for part in sorted(source.parts)):
        files = dict.fromkeys(name.rpartition("#")[0] for name in names) if holds_rows(names) else names
        for name in files:
            try:
                found = os.stat(f"{source.path}/{name}")
            except OSError:  # of a link to nothing
                digest.update(f"{name}\0unreadable\n".encode(errors="surrogateescape"))
                continue
            if not os.access(f"{source.path}/{name}", os.R_OK):
                digest.update(b"forbidden\n")
            digest.update(f"{name}\0{found.st_size}\0{found.st_mtime_ns}\n".encode(errors="surrogateescape"))
            size += found.st_size
    return digest.hexdigest(), size


def _prepare_into_memory(
    source: PictureSource, how: Preparation, part: str, watch: Watch | None
) -> tuple[Tensor, dict[str, Any]]:
    looks = look_around(source)
    settled, notices = settle(how, looks)
    shape = (len(source.parts[part].names), settled.channels, settled.size, settled.size)
    if math.prod(shape) > MAX_MEMORY_BYTES:
        raise DataError(
            f"{source.path} takes {math.prod(shape) / 1e9:.1f} GB prepared, too much to hold in memory, and "
            f"{cache.folder()} has no room for it or cannot be written; name a folder that does with GANSMITH_CACHE"
        )
    pixels, seen = np.zeros(shape, np.uint8), unforeseen(how, settled, looks)
    broken = _prepare_all(source, settled, part, pixels.__setitem__, watch, seen)
    notices = (*notices, *lost_in_words(seen, settled, len(pixels)))
    return torch.from_numpy(pixels), {"notices": notices, "in_words": settled.in_words(), "broken": broken}


def _prepare_into_file(
    source: PictureSource, how: Preparation, part: str, watch: Watch | None, path: Path
) -> dict[str, Any]:
    """Write the prepared pictures of a part to a .npy file, and return facts about them."""
    looks = look_around(source)
    settled, notices = settle(how, looks)
    seen = unforeseen(how, settled, looks)
    wanted = source.parts[part]
    shape = (len(wanted.names), settled.channels, settled.size, settled.size)
    cache.require_room(math.prod(shape))
    if watch is None:
        logger.warning("preparing %s pictures of %s once; kept in %s", f"{shape[0]:,}", source.path, cache.folder())
    with path.open("xb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})
        start = file.tell()
        broken = _prepare_all(source, settled, part, partial(_write_rows, file, start), watch, seen)
        file.truncate(start + math.prod(shape))  # where the last pictures are broken
    on_broken(source.path, wanted.names, broken, strict=False)
    notices = (*notices, *lost_in_words(seen, settled, len(wanted.names)))
    facts = {"shape": shape, "notices": notices, "in_words": settled.in_words(), "broken": broken}
    if math.prod(shape) > cache.MEMORY_BYTES:
        pixels = open_array(path)
        assert pixels is not None
        labels = torch.tensor(wanted.labels, dtype=torch.int64) if wanted.labels else None
        facts["known"] = find_known(Images(pixels, labels).take(_kept(len(pixels), broken)))
    return facts


def _write_rows(file: IO[bytes], start: int, rows: list[int], images: Pixels) -> None:
    for row, image in zip(rows, images, strict=True):
        file.seek(start + row * image.nbytes)
        file.write(image.data)


def _prepare_all(
    source: PictureSource,
    how: Preparation,
    part: str,
    store: Callable[[list[int], Pixels], None],
    watch: Watch | None,
    seen: Counter[str],
) -> dict[int, str]:
    """Prepare all pictures of a part on all cores, in bounded memory; returns why some cannot be read, by row.

    Threads, since Pillow works outside Python's lock: for pictures of 32 pixels they are as fast as processes, which
    would each need this library in memory, and a script of the user's that can be imported.

    Args:
        store: takes rows and their images, in any order.
        seen: counts which of its keys pictures are.
    """
    names, broken, unreadable, done = source.parts[part].names, dict[int, str](), dict[int, str](), 0
    workers = os.cpu_count() or 1
    most = max(1, min(BATCH_IMAGES, BATCH_BYTES // (how.channels * how.size**2)))
    with quiet(), ThreadPoolExecutor(workers) as pool:
        batches = (
            pool.submit(_prepare_batch, how, frozenset(seen), batch)
            for batch in _batches(source.path, names, unreadable, most)
        )
        waiting = deque(islice(batches, 2 * workers))
        while waiting:
            rows, images, failed, lost = waiting.popleft().result()
            waiting.extend(islice(batches, 1))
            store(rows, images)
            broken |= failed
            seen.update(lost)
            done += len(rows) + len(failed)
            if watch is not None:
                watch(min(done + len(unreadable), len(names)), len(names))  # archives may hold a name twice
    return broken | unreadable


def _batches(
    path: Path, names: Sequence[str], unreadable: dict[int, str], most: int
) -> Iterator[list[tuple[int, bytes | str]]]:
    """Yield pictures, `most` at a time: their rows with the files' contents, or their paths where they are files."""
    files: Iterator[tuple[int, bytes | str]] = read_files(path, names, unreadable)
    if path.is_dir() and not holds_rows(names):
        files = ((row, f"{path}/{name}") for row, name in enumerate(names))
    batch, size = [], 0
    for row, file in files:
        batch.append((row, file))
        size += len(file) if isinstance(file, bytes) else 0
        if len(batch) == most or size > BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _prepare_batch(
    how: Preparation, watched: Collection[str], batch: Sequence[tuple[int, bytes | str]]
) -> tuple[list[int], Pixels, dict[int, str], Counter[str]]:
    """Return the rows and uint8 (n, C, size, size) of those that can be read, why others cannot, and what is lost."""
    images = np.empty((len(batch), how.channels, how.size, how.size), np.uint8)
    rows: list[int] = []
    failed, lost = dict[int, str](), Counter(dict.fromkeys(watched, 0))
    for row, file in batch:
        try:
            found = read_prepared(read_file(file) if isinstance(file, str) else file, how, lost)
        except OSError as error:
            found = why_unreadable(error)
        if isinstance(found, str):
            failed[row] = found
        else:
            images[len(rows)] = found
            rows.append(row)
    return rows, images[: len(rows)], failed, lost
