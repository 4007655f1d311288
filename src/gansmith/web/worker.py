"""A process that holds torch for the server: draws tiles, finds neighbours, looks at uploads.

A request is one line of JSON; an answer is one line of JSON and as many bytes as it says. The process ends with its
input, so none outlives its server; the server ends it when it is not used.
"""

import copy
import io
import json
import logging
import os
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, BinaryIO

import numpy as np
import torch
from torch import Tensor

from gansmith import models, sampling
from gansmith.checkpoints import checkpoint_path, named_checkpoints
from gansmith.config import Config
from gansmith.data.images import Images
from gansmith.data.inspection import inspect
from gansmith.data.prepare import Preparation
from gansmith.errors import ConfigError, GansmithError, NotFoundError
from gansmith.files import finite
from gansmith.pictures.grids import enlarge, grid, to_png
from gansmith.runs import open_run
from gansmith.sampling import Model
from gansmith.training.inputs import shown_images
from gansmith.web import latents
from gansmith.web.learn import learn
from gansmith.web.records import run_path
from gansmith.web.shares import SHARES

KEPT = 6  # generators in memory
MAX_LATENTS = 100_000  # of one request
MAX_NUMBERS = 2**26  # pixels times channels of one answer
# So small that a second thread costs more than it brings where another process, such as a training, has the cores too.
ONE_THREAD = {"sample", "explore", "walk", "move", "learn"}

Answer = tuple[dict[str, Any], bytes]


@dataclass(frozen=True)
class Tile:
    """One image to draw: entry `index` of a seed, with a class id where one is given, else a label or by frequency."""

    seed: int
    index: int = 0
    label: int | None = None
    y: int | None = None


def describe(root: Path, request: Mapping[str, Any]) -> Answer:
    """Return what a page needs to know about a generator."""
    model = load(root, request)
    known = model.conditioning.known_labels.tolist() if model.conditioning.has_labels else []
    return {
        "size": model.spec.size,
        "channels": model.spec.channels,
        "labels": [{"label": label, "name": model.class_name(label)} for label in known],
        "latent_dim": model.config.latent_dim,
        "network": model.config.network,
        "class_ids": len(model.conditioning),
        "has_truncation": hasattr(model.network, "truncate"),
        "data": model.config.data,
    }, b""


def sample(root: Path, request: Mapping[str, Any]) -> Answer:
    """Return samples 0 to count - 1 of a seed as `gansmith sample` draws them."""
    model = truncated(load(root, request), request)
    labels = sampling.chosen_labels(model, request.get("labels"))
    count = request["count"] or (25 if labels is None else len(labels))
    refuse_size(model, count)
    z, y = sampling.draw_inputs(model, seed=request["seed"], count=count, labels=labels)
    images = sampling.generate(model, z, y)
    tiles = [{"seed": request["seed"], "index": k, **found} for k, found in enumerate(classes_of(model, y))]
    return finish(model, images, tiles, request)


def explore(root: Path, request: Mapping[str, Any]) -> Answer:
    """Return the tiles asked for, each by its own seed, index and class."""
    model = truncated(load(root, request), request)
    tiles = [Tile(**tile) for tile in request["tiles"]]
    refuse_size(model, len(tiles))
    z, y = inputs_of(model, tiles)
    found = [
        {"seed": tile.seed, "index": tile.index, **known}
        for tile, known in zip(tiles, classes_of(model, y), strict=True)
    ]
    return finish(model, sampling.generate(model, z, y), found, request)


def walk(root: Path, request: Mapping[str, Any]) -> Answer:
    """Return the images on the arc from each tile's latent to the next one's; the class changes half-way."""
    model = truncated(load(root, request), request)
    steps, tiles = request["steps"], [Tile(**tile) for tile in request["tiles"]]
    refuse_size(model, steps * (len(tiles) - 1) + 1)
    stops, ids = inputs_of(model, tiles)
    z = torch.cat([sampling.arcs(list(stops), steps, model.config.latent_distribution), stops[-1:]])
    is_near_end = torch.arange(steps) >= steps / 2
    y = torch.cat([*(torch.where(is_near_end, end, start) for start, end in pairwise(ids)), ids[-1:]])
    images = sampling.generate(model, z, y)
    if request.get("format") == "gif":
        return {}, to_gif(images, request.get("frame_ms", 60))
    return finish(model, images, classes_of(model, y), {**request, "columns": len(images)})


def classes_of(model: Model, y: Tensor) -> list[dict[str, Any]]:
    """Return the class id and the label of each image; None for the label where there is none."""
    labels = model.conditioning.label_of(y).tolist()
    return [{"y": ids, "label": label if label >= 0 else None} for ids, label in zip(y.tolist(), labels, strict=True)]


def inputs_of(model: Model, tiles: Sequence[Tile]) -> tuple[Tensor, Tensor]:
    """Return the latents (N, latent_dim) and the class ids (N,) of tiles; the entries of a seed are drawn once."""
    most = Counter[tuple[int, int | None]]()
    for tile in tiles:
        most[tile.seed, tile.label] = max(most[tile.seed, tile.label], tile.index + 1)
        if tile.y is not None and not tile.y < len(model.conditioning):
            raise ConfigError(f"y is {tile.y}; this generator has {len(model.conditioning)} class ids, from 0 on")
        if tile.y is not None and tile.label is not None:
            raise ConfigError(f"a tile gives label {tile.label} and class id y {tile.y}; give one of them")
    if most.total() > MAX_LATENTS:
        raise ConfigError(
            f"these tiles take {most.total():,} latents, and at most {MAX_LATENTS:,} are drawn; lower index"
        )
    drawn = {
        (seed, label): sampling.draw_inputs(model, seed=seed, count=count, labels=None if label is None else [label])
        for (seed, label), count in most.items()
    }
    z = torch.stack([drawn[tile.seed, tile.label][0][tile.index] for tile in tiles])
    y = [int(drawn[tile.seed, tile.label][1][tile.index]) if tile.y is None else tile.y for tile in tiles]
    return z, torch.tensor(y)


def neighbours(root: Path, request: Mapping[str, Any]) -> Answer:
    """Return the training images nearest to a tile, by the distance of pixels, and how far each is."""
    model = truncated(load(root, request), request)
    z, y = inputs_of(model, [Tile(**request["tile"])])
    image = sampling.generate(model, z, y)
    images = training_images(open_run(run_path(root, request["run"])).config)
    flat = image.flatten().float()
    chunks = (images.pixels[start : start + 2048] for start in range(0, len(images), 2048))
    distances = torch.cat([(chunk.flatten(1).float() - flat).square().mean(1).sqrt() for chunk in chunks])
    nearest = distances.topk(min(request["count"], len(distances)), largest=False)
    found = [
        {"row": int(row), "distance": float(d) / 255} for d, row in zip(nearest.values, nearest.indices, strict=True)
    ]
    return finish(model, images.take(nearest.indices).pixels, found, {**request, "columns": len(found)})


def move(root: Path, request: Mapping[str, Any]) -> Answer:
    """Return an image moved along the main directions, from a tile or from latents as `invert` returns them."""
    model = loaded = load(root, request)
    if request["latents"] is None:
        start = inputs_of(model, [Tile(**request["tile"])])
    else:
        model, start = latents.given(model, request["latents"], request["label"])
    found = latents.move(model, start, request["steps"], request["variety"], owner=loaded.network)
    facts, data = finish(model, found.pop("images"), [], {**request, "columns": 1})
    return {**facts, **found}, data


def invert(root: Path, request: Mapping[str, Any]) -> Answer:
    """Return a picture projected into latent space: as it was prepared, and what is drawn nearest to it."""
    model, run = load(root, request), open_run(run_path(root, request["run"]))
    checkpoint = run.latest() if request["checkpoint"] is None else run.checkpoint(request["checkpoint"])
    found = latents.invert(model, checkpoint, request)
    facts, data = finish(model, found.pop("images"), [], {**request, "columns": 2})
    return {**facts, **found}, data


@lru_cache(maxsize=1)
def training_images(config: Config) -> Images:
    """Return the images that a run with this config was trained on; those of one are kept."""
    return shown_images(config)[1]


def look(root: Path, request: Mapping[str, Any]) -> Answer:
    """Return what an upload holds, as `gansmith data inspect` says it, and a picture of some of its images."""
    path = Path(request["path"])
    facts, preview = inspect(path, Preparation(request["size"], request["resize"], request["color"], "auto"))
    facts.pop("path")
    return {"facts": _without_folder(facts, path)}, to_png(enlarge(grid(preview, columns=8), at_least_px=200))


def _without_folder(facts: dict[str, Any], path: Path) -> dict[str, Any]:
    """Return facts in whose sentences an upload is called by its name alone."""
    before = json.dumps(f"{path.parent}{os.sep}")[1:-1]  # as it stands in JSON
    return dict(json.loads(json.dumps(finite(facts)).replace(before, "")))


def load(root: Path, request: Mapping[str, Any]) -> Model:
    """Return the generator of a run's checkpoint, the newest where none is named; a few are kept."""
    directory, seen = run_path(root, request["run"]), request.get("checkpoint")
    saved = named_checkpoints(directory)
    if not saved:
        raise NotFoundError(f"{directory.name} has no checkpoint yet; let it train until its first save")
    return _loaded(directory, seen, saved[-1].stat().st_mtime_ns)


@lru_cache(maxsize=KEPT)
def _loaded(directory: Path, seen: int | None, saved_at_ns: int) -> Model:
    """Return the generator of a checkpoint, the newest for None, as long as nothing was saved since."""
    path = open_run(directory).latest() if seen is None else checkpoint_path(directory, seen)
    if path is None or path not in named_checkpoints(directory):
        raise NotFoundError(f"{directory.name} has no such checkpoint, or it is damaged; choose another")
    return models.load_generator(path / "generator.safetensors")


def truncated(model: Model, request: Mapping[str, Any]) -> Model:
    """Return the generator with its styles moved towards their mean, where that was asked for."""
    strength = request.get("truncation", 1.0)
    if strength == 1:
        return model
    model = replace(model, network=copy.deepcopy(model.network))
    sampling.truncate(model, strength)
    return model


def refuse_size(model: Model, count: int) -> None:
    numbers = count * model.spec.size**2 * model.spec.channels
    if numbers > MAX_NUMBERS:
        raise ConfigError(f"{count} images of {model.spec.size} pixels are too many at once; ask for fewer")


def finish(model: Model, images: Tensor, tiles: list[dict[str, Any]], request: Mapping[str, Any]) -> Answer:
    """Return images in the format asked for, with what is known of each tile."""
    for tile in tiles:
        if tile.get("label") is not None:
            tile["name"] = model.class_name(tile["label"])
    facts = {"size": model.spec.size, "count": len(images), "tiles": tiles}
    kind = request.get("format", "tiles")
    if kind == "npz":
        file = io.BytesIO()
        labels = np.array([-1 if tile.get("label") is None else tile["label"] for tile in tiles], np.int64)
        np.savez_compressed(file, images=images.permute(0, 2, 3, 1).numpy(), labels=labels)
        return facts, file.getvalue()
    picture = grid(images, columns=request.get("columns"))
    facts["columns"] = picture.width // model.spec.size
    return facts, to_png(enlarge(picture) if kind == "png" else picture)


def to_gif(images: Tensor, frame_ms: int) -> bytes:
    """Return images one after the other and back as an endless animation."""
    frames = [enlarge(grid(image), at_least_px=224).convert("P") for image in images.split(1)]
    file = io.BytesIO()
    there_and_back = [*frames, *frames[-2:0:-1]]
    there_and_back[0].save(file, "GIF", save_all=True, append_images=there_and_back[1:], duration=frame_ms, loop=0)
    return file.getvalue()


def share(root: Path, request: Mapping[str, Any]) -> Answer:
    """Return a run as a file to hand on; see `shares`."""
    with TemporaryDirectory(prefix="gansmith-") as folder:
        path = Path(folder) / request["name"]
        SHARES[request["name"]].write(open_run(run_path(root, request["run"])).directory, path)
        return {}, path.read_bytes()


OPERATIONS: dict[str, Callable[[Path, Mapping[str, Any]], Answer]] = {
    "describe": describe,
    "sample": sample,
    "explore": explore,
    "walk": walk,
    "neighbours": neighbours,
    "move": move,
    "invert": invert,
    "learn": learn,
    "share": share,
    "look": look,
}


def serve(root: Path, requests: BinaryIO, answers: BinaryIO) -> None:
    """Answer requests until there are no more; a user's mistake is answered with its sentence."""
    threads = torch.get_num_threads()
    for line in requests:
        request = json.loads(line)
        op = request.pop("op")
        torch.set_num_threads(1 if op in ONE_THREAD else threads)
        try:
            facts, data = OPERATIONS[op](root, request)
        except GansmithError as error:
            facts, data = {"error": str(error), "kind": type(error).__name__}, b""
        except Exception:
            logging.getLogger("gansmith").exception("the studio's worker failed")
            facts, data = {"error": "", "kind": "Bug"}, b""
        answers.write(json.dumps({**finite(facts), "bytes": len(data)}).encode() + b"\n" + data)
        answers.flush()


if __name__ == "__main__":
    replies, sys.stdout = sys.stdout.buffer, sys.stderr  # whatever prints must not mix with the answers
    serve(Path(sys.argv[1]), sys.stdin.buffer, replies)
