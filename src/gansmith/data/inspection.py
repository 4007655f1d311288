"""What a path holds, without training on it: layout, counts, sizes, classes, what is odd, how it would be prepared."""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gansmith.config import name_of
from gansmith.data.images import Images
from gansmith.data.pictures import PictureSource, look_around
from gansmith.data.prepare import Preparation, settle
from gansmith.data.sources import load_source, open_source
from gansmith.errors import DataError

PREVIEW = 40  # images


def inspect(path: Path, how: Preparation) -> tuple[dict[str, Any], Tensor]:
    """Return what a path holds as one JSON object, and some of its images as they would be trained on.

    Raises NotFoundError or DataError where it holds no images.
    """
    source = open_source(path)
    facts: dict[str, Any] = {"path": str(path), "name": name_of(str(path)), "layout": source.layout}
    if isinstance(source, PictureSource):
        looks = look_around(source)
        settled, notices = settle(how, looks)
        facts["images"] = {part: len(found.names) for part, found in source.parts.items()}
        facts["classes"] = _counts(np.array(source.parts["train"].labels, np.int64), source.class_names)
        facts["sizes"] = _sizes(looks)
        facts["looked_at"] = len(looks)
        facts["grey"] = sum(look.is_grey for look in looks)
        facts["transparent"] = sum(look.has_transparency for look in looks)
        facts["prepared"] = settled.in_words()
        images = load_source(_first_of(source), settled, name=facts["name"])
        facts["notices"] = list(dict.fromkeys([*source.notices, *notices, *images.notices[:-1]]))
        return facts, images.pixels
    images = load_source(source, how, name=facts["name"])
    facts["images"] = {"train": len(images), **_test_count(source, how)}
    labels = np.zeros(0, np.int64) if images.labels is None else images.labels.numpy()
    facts["classes"] = _counts(labels, images.class_names)
    side, channels = images.spec.size, images.spec.channels
    facts["sizes"] = {f"{side}x{side}": len(images)}
    facts["prepared"] = f"prepared as {side}x{side} {'grey' if channels == 1 else 'rgb'}"
    facts["notices"] = list(images.notices)
    return facts, _spread(images)


def _test_count(source: Any, how: Preparation) -> dict[str, int]:
    try:
        return {"test": len(load_source(source, how, part="test"))}
    except DataError:
        return {}
    except FileNotFoundError:
        return {}


def _counts(labels: np.ndarray, names: tuple[str, ...]) -> dict[str, int]:
    """Return how many images each class has, by name."""
    counted = Counter(labels.tolist())
    return {names[label] if label < len(names) else str(label): counted[label] for label in sorted(counted)}


def _sizes(looks: list[Any]) -> dict[str, int]:
    """Return how many of the pictures looked at have each size, the commonest first."""
    return {f"{w}x{h}": count for (w, h), count in Counter((look.width, look.height) for look in looks).most_common(12)}


def _first_of(source: PictureSource) -> PictureSource:
    """Return a source of a few pictures, spread over the training part."""
    from dataclasses import replace

    from gansmith.data.pictures import Part

    part = source.parts["train"]
    rows = range(0, len(part.names), max(1, len(part.names) // PREVIEW))
    chosen = list(rows)[:PREVIEW]
    labels = tuple(part.labels[row] for row in chosen) if part.labels else ()
    return replace(source, parts={"train": Part(tuple(part.names[row] for row in chosen), labels)})


def _spread(images: Images) -> Tensor:
    rows = torch.arange(min(PREVIEW, len(images))) * len(images) // min(PREVIEW, len(images))
    return images.pixels[rows]
