"""What a path holds, without training on it: layout, counts, sizes, classes, what is odd, how it would be prepared."""

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gansmith.config import name_of
from gansmith.data.images import Images
from gansmith.data.pictures import (
    MAX_BROKEN_SHARE,
    Part,
    PictureSource,
    list_broken,
    look_at_rows,
    read_files,
    rows_to_look_at,
)
from gansmith.data.prepare import Preparation, quiet, read_prepared, settle
from gansmith.data.sources import load_source, open_source, stored_shape
from gansmith.errors import DataError

PREVIEW = 40  # images
_MODES = {1: "L", 3: "RGB", 4: "RGBA"}  # of arrays, by channels, as Pillow calls them


def inspect(path: Path, how: Preparation) -> tuple[dict[str, Any], Tensor]:
    """Return what a path holds as one JSON object, and some of its images as they would be trained on.

    Of pictures, "refused" says why training refuses them, which is known where all were looked at; empty for none.

    Raises NotFoundError or DataError where it holds no images.
    """
    source = open_source(path)
    facts: dict[str, Any] = {"path": str(path), "name": name_of(str(path)), "layout": source.layout}
    if isinstance(source, PictureSource):
        own, preview = _inspect_pictures(source, how)
        return facts | own, preview
    images = load_source(source, how, name=facts["name"])
    facts["images"] = {"train": len(images), **_test_count(source, how)}
    labels = np.zeros(0, np.int64) if images.labels is None else images.labels.numpy()
    facts["classes"] = _counts(labels, images.class_names)
    side, channels = images.spec.size, images.spec.channels
    height, width, own_channels = stored_shape(source)
    facts["sizes"] = {f"{width}x{height}": len(images)}
    facts["modes"] = {_MODES[own_channels]: len(images)}
    prepared = f"prepared as {side}x{side} {'grey' if channels == 1 else 'rgb'}"
    facts["prepared"] = next((notice for notice in images.notices if notice.startswith(prepared)), prepared)
    facts["notices"] = [notice for notice in images.notices if notice != facts["prepared"]]
    facts["refused"] = images.why_untrainable()
    return facts, _spread(images)


def _inspect_pictures(source: PictureSource, how: Preparation) -> tuple[dict[str, Any], Tensor]:
    """Return the facts about pictures, and some of them prepared; all of a small set are looked at."""
    part = source.parts["train"]
    deciding = rows_to_look_at(len(part.names))
    looks, broken = look_at_rows(source, deciding)
    if not looks:
        raise DataError(f"{source.path}: {_broken(part, broken)}; give others")
    settled, notices = settle(how, list(looks.values()))
    odd = [_broken(part, broken)] if broken else []
    is_whole = len(deciding) == len(part.names)
    is_refused = is_whole and len(broken) > MAX_BROKEN_SHARE * len(part.names)
    readable, shown = list(looks), min(PREVIEW, len(looks))
    chosen = [readable[k * len(looks) // shown] for k in range(shown)]
    each = list(looks.values())
    preview = _prepared(source, [part.names[row] for row in chosen], settled)
    reason = f"{source.path}: {odd[0]}" if is_refused else ""
    if is_whole and not reason and (preview == preview[:1]).all():  # which all others may equal
        every = preview if shown == len(looks) else _prepared(source, [part.names[row] for row in readable], settled)
        reason = Images(every, source=str(source.path)).why_untrainable()
    return {
        "images": {name: len(found.names) for name, found in source.parts.items()},
        "classes": _counts(np.array(part.labels, np.int64), source.class_names),
        "sizes": _commonest(f"{look.width}x{look.height}" for look in each),
        "modes": _commonest(look.mode for look in each),
        "looked_at": len(looks) + len(broken),
        "grey": sum(look.is_grey for look in each),
        "transparent": sum(look.has_transparency for look in each),
        "prepared": settled.in_words(),
        "refused": reason,
        "notices": list(dict.fromkeys([*source.notices, *notices, *odd])),
    }, preview


def _prepared(source: PictureSource, names: Sequence[str], how: Preparation) -> Tensor:
    """Return pictures that can be read as uint8 (N, C, size, size); never from the cache, which holds whole parts."""
    with quiet():
        found = {row: read_prepared(data, how) for row, data in read_files(source.path, names)}
    images = [image for _, image in sorted(found.items()) if not isinstance(image, str)]
    if not images:
        reason = next(image for image in found.values() if isinstance(image, str))
        raise DataError(f"none of the pictures looked at can be prepared, since {reason}")
    return torch.from_numpy(np.stack(images))


def _broken(part: Part, broken: dict[int, str]) -> str:
    """Return a sentence on the pictures of a part that cannot be read."""
    count, looked_at = len(part.names), f"{len(part.names):,} pictures"
    looks = len(rows_to_look_at(count))
    if looks < count:
        looked_at = f"the {looks:,} pictures looked at, of {looked_at},"
    refused = (
        ""
        if len(broken) <= MAX_BROKEN_SHARE * count or looks < count
        else "; training refuses over one in ten: repair or remove them"
    )
    return f"{list_broken(part.names, broken, looked_at)}{refused}"


def _test_count(source: Any, how: Preparation) -> dict[str, int]:
    try:
        return {"test": len(load_source(source, how, part="test"))}
    except (DataError, FileNotFoundError):
        return {}


def _counts(labels: np.ndarray, names: tuple[str, ...]) -> dict[str, int]:
    """Return how many images each class has, by name."""
    counted = Counter(labels.tolist())
    return {names[label] if label < len(names) else str(label): counted[label] for label in sorted(counted)}


def _commonest(found: Iterable[str]) -> dict[str, int]:
    """Return how many of these there are of each, the commonest first."""
    return dict(Counter(found).most_common(12))


def _spread(images: Images) -> Tensor:
    rows = torch.arange(min(PREVIEW, len(images))) * len(images) // min(PREVIEW, len(images))
    return images.pixels[rows]
