"""The worker's part of the explorer's sliders and drawings: latents moved along directions, pictures inverted."""

import base64
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from gansmith import inversion, sampling
from gansmith.errors import ConfigError, DataError
from gansmith.latent_space import Directions, find_directions, truncated
from gansmith.sampling import Model
from gansmith.signature import as_exported

COUNT = 10  # sliders
MAX_LATENT = 1e4

# Directions of each generator in memory, by label and by whether its latents choose the cluster.
_DIRECTIONS: "WeakKeyDictionary[nn.Module, dict[tuple[int, bool], Directions]]" = WeakKeyDictionary()


def move(
    model: Model, start: tuple[Tensor, Tensor], steps: list[float], variety: float, *, owner: nn.Module
) -> dict[str, Any]:
    """Return an image whose latents were moved along the main directions, and the share of each direction.

    Args:
        start: a latent (1, latent_dim) and a class id (1,).
        steps: in standard deviations along each direction.
        variety: as of `latent_space.truncated`.
        owner: the generator's network, with which its directions are kept.
    """
    z, y = start
    found = _directions(model, int(model.conditioning.label_of(y)[0]), owner)
    z = found.move(z, steps[: len(found)])
    model, shown = truncated(model, z, variety)
    return {
        "images": sampling.generate(model, shown, y),
        "shares": [round(float(share), 4) for share in found.shares],
        "latents": z[0].tolist(),
    }


def given(model: Model, latents: list[float], label: int | None) -> tuple[Model, tuple[Tensor, Tensor]]:
    """Return the generator that takes latents as exported files do, and these with their label.

    Raises ConfigError for latents of another length, and for ones that are too large.
    """
    model = as_exported(model)
    z = torch.tensor([latents], dtype=torch.float32)
    if z.shape[1] != model.config.latent_dim or not bool((z.abs() <= MAX_LATENT).all()):
        raise ConfigError(f"latents are {z.shape[1]} numbers; give {model.config.latent_dim}, each of at most 10,000")
    return model, (z, model.conditioning.draw(seed=0, count=1, labels=None if label is None else [label]))


def _directions(model: Model, label: int, owner: nn.Module) -> Directions:
    """Return a generator's directions in a class; they are kept as long as its network."""
    kept, key = _DIRECTIONS.setdefault(owner, {}), (label, model.conditioning.in_latents)
    if key not in kept:
        count = min(COUNT, model.config.latent_dim - model.conditioning.in_latents)
        kept[key] = find_directions(model, count, label=label if label >= 0 else None)
    return kept[key]


def invert(model: Model, checkpoint: Path | None, request: Mapping[str, Any]) -> dict[str, Any]:
    """Return a picture as it was prepared and its reconstruction, the latents of this, and D's opinion of both."""
    try:
        picture = base64.b64decode(request["picture"], validate=True)
    except ValueError:
        raise DataError("the picture is not in base 64; send a PNG, JPEG or WebP file encoded so") from None
    labels = None if request["label"] is None else [request["label"]]
    found = inversion.invert(model, picture, labels=labels, checkpoint=checkpoint)
    label = int(found.labels[0])
    return {
        "images": torch.cat([torch.from_numpy(rows).permute(0, 3, 1, 2) for rows in (found.pictures, found.images)]),
        "latents": found.latents[0].tolist(),
        "label": label if label >= 0 else None,
        "name": found.class_name(0) if label >= 0 else None,
        "pixel_error": float(found.errors[0]) / 255,
        "sample_error": float(found.sample_errors[0]) / 255,
        "realness": None if found.realness is None else found.realness[0].tolist(),
        "notices": list(found.notices),
    }
