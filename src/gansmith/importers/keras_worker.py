"""The process in which Keras reads one file and draws from it: `python -m gansmith.importers.keras_worker`.

`keras_files` checks what the file holds before Keras sees it; memory and time are limited. Standard input and output
carry the messages of `keras.py`, each number little-endian: first a length and facts as JSON; then for each request a
count N, latents and class ids, which is answered by N images. The process ends when its input does.
"""

import contextlib
import faulthandler
import json
import math
import os
import re
import shutil
import struct
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import h5py

from gansmith.importers.keras_files import (
    MAX_FILE_BYTES,
    MAX_JSON_BYTES,
    MAX_WEIGHTS,
    check_hdf5,
    plain,
    read_notes,
    table_lengths,
    unpack,
)

MAX_NUMBERS = 1 << 20  # in what a layer puts out for one image
MEMORY_BYTES = 4 << 30  # torch and Keras take 0.5 GB of it
LENGTH = struct.Struct("<I")
KEPT_SHAPES = ("Reshape", "Permute", "Flatten", "Cropping2D")  # move pixels and leave their values alone


@dataclass(frozen=True)
class Generator:
    """A loaded model and what it takes.

    Attributes:
        latent_shape: of one latent, without the batch.
        labels_at: place of the class ids among its inputs, None if it takes none.
        num_classes: as in `keras.KerasGenerator`.
        notes: what Gansmith stored in the file.
        stretches: whether its images come in [0, 1], as those of foreign models with a closing sigmoid do.
    """

    model: Any
    latent_shape: tuple[int, ...]
    labels_at: int | None
    num_classes: int
    notes: dict[str, str]
    stretches: bool

    @property
    def latent_dim(self) -> int:
        return math.prod(self.latent_shape)


def main(time_limit: str, folder: str, weights: str, architecture: str | None = None) -> None:
    """Read a file, send what it is or why it cannot be read, then draw until standard input ends."""
    seconds = float(time_limit)
    faulthandler.dump_traceback_later(seconds, exit=True)  # also stops what hangs in a library's own code
    _limit_memory()
    replies = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints must not be taken for a reply
    try:
        generator = read(Path(weights), Path(folder), Path(architecture) if architecture else None)
        images = draw(generator, bytes(8 * generator.latent_dim), bytes(16))  # zeros as two latents and two class ids
        facts = {
            "latent_dim": generator.latent_dim,
            "num_classes": generator.num_classes,
            "image_shape": images.shape[1:],
            "notes": generator.notes,
        }
    except Exception as error:  # Keras, torch and HDF5 raise many types, none of them documented
        _send(replies, json.dumps({"error": first_line(error)}).encode())
        return
    _send(replies, json.dumps(facts).encode())
    faulthandler.cancel_dump_traceback_later()
    while len(header := sys.stdin.buffer.read(LENGTH.size)) == LENGTH.size:
        (count,) = LENGTH.unpack(header)
        latents, labels = (sys.stdin.buffer.read(count * size) for size in (4 * generator.latent_dim, 8))
        faulthandler.dump_traceback_later(seconds, exit=True)
        images = draw(generator, latents, labels)
        faulthandler.cancel_dump_traceback_later()
        replies.write(images.numpy().astype("<f4").tobytes())
        replies.flush()


def _limit_memory() -> None:
    """Limit this process's own memory where the system can do so.

    Data, not address space: mapping the libraries of a torch with CUDA takes more than any model should.
    """
    with contextlib.suppress(ImportError, OSError, ValueError):  # Windows has no such limits
        import resource

        _, hard = resource.getrlimit(resource.RLIMIT_DATA)
        limit = MEMORY_BYTES if hard == resource.RLIM_INFINITY else min(MEMORY_BYTES, hard)
        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))


def _send(replies: BinaryIO, message: bytes) -> None:
    replies.write(LENGTH.pack(len(message)) + message)
    replies.flush()


def first_line(error: Exception) -> str:
    """Return an error's message as one short line; libraries append whole configurations to theirs."""
    text = str(error).rsplit("Exception encountered: ")[-1].split("Full object config")[0]
    text = re.sub(r"\x1b\[\d*m|Exception encountered when calling .*", "", text)
    line = next((line for line in text.strip(" '\"\n").splitlines() if line), type(error).__name__)
    return line if len(line) <= 240 else f"{line[:240]}..."


def read(weights: Path, folder: Path, architecture: Path | None = None) -> Generator:
    """Have Keras load a model from its files, after they have been checked.

    Args:
        weights: .keras archive or HDF5 file.
        folder: for a copy of the weights under the name by which Keras knows their layout.
        architecture: .json file, used if the weights' file does not hold the architecture itself.

    Raises ValueError for what is not a plain generator, and whatever Keras, torch or HDF5 raise for broken files.
    """
    text = None
    if weights.suffix == ".keras":
        text, weights = unpack(weights, folder)
    if weights.stat().st_size > MAX_FILE_BYTES:
        raise ValueError(f"its weights take more than {MAX_FILE_BYTES:,} bytes")
    with h5py.File(weights, "r") as file:
        check_hdf5(file)
        notes, stored = read_notes(file), file.attrs.get("model_config", text)
    if stored is None:
        if architecture is None:
            raise ValueError("it holds weights alone, and there is no .json of the same name beside it")
        with architecture.open("rb") as stream:
            stored = stream.read(MAX_JSON_BYTES + 1)
    if len(stored) > MAX_JSON_BYTES:
        raise ValueError(f"its architecture is longer than {MAX_JSON_BYTES:,} bytes")
    config = json.loads(stored)
    model = _build(json.dumps(plain(config)))
    _load_weights(model, weights, folder)
    return _describe(model, min(table_lengths(config), default=-1), notes)


def _build(text: str) -> Any:
    """Return the model of a checked configuration, its weights NaN.

    It is built without memory first, so that sizes beyond the limits are refused before they are allocated.
    """
    os.environ.setdefault("KERAS_BACKEND", "torch")
    import keras

    with keras.device("meta"):
        model = keras.models.model_from_json(text)
        if not model.built or len(model.outputs) != 1:
            raise ValueError("it does not lead from inputs of known shape to one output")
        if model.count_params() > MAX_WEIGHTS:
            raise ValueError(f"its weights are {model.count_params():,} numbers, more than {MAX_WEIGHTS:,}")
        for layer in _layers(model):
            for tensor in keras.tree.flatten(getattr(layer, "output", [])):
                if (numbers := math.prod(side for side in tensor.shape if side)) > MAX_NUMBERS:
                    raise ValueError(f"its layer {layer.name} puts out {numbers:,} numbers for one image")
    with keras.device("cpu"):
        model = keras.models.model_from_json(text)
        for variable in model.weights:
            if "float" in variable.dtype:  # so that one which a file leaves out is noticed
                variable.assign(keras.ops.full(variable.shape, math.nan, dtype=variable.dtype))
    return model


def _layers(model: Any) -> Iterator[Any]:
    for layer in model.layers:
        yield layer
        if hasattr(layer, "layers"):
            yield from _layers(layer)


def _load_weights(model: Any, path: Path, folder: Path) -> None:
    """Fill a model with the weights of an HDF5 file in any of Keras's layouts; ValueError if not all are finite."""
    import keras

    with h5py.File(path, "r") as file:
        is_old = "layer_names" in file.attrs or "model_weights" in file  # as Keras 2 has them, and .h5 of Keras 3
    copy = folder / ("old.h5" if is_old else "new.weights.h5")  # Keras goes by the ending
    shutil.copyfile(path, copy)
    if not is_old:
        with h5py.File(copy, "r+") as file:
            _rename_layers(file)
    with keras.device("cpu"):
        model.load_weights(str(copy))
        for variable in model.weights:
            if not keras.ops.all(keras.ops.isfinite(variable)):
                raise ValueError(f"its weight {variable.path} is missing or holds numbers that are not finite")


def _rename_layers(group: h5py.Group) -> None:
    """Give the groups of Keras 2.13 to 2.15 the names that Keras 3 has for the same layout."""
    old = "_layer_checkpoint_dependencies"
    if old in group:
        group.pop("layers", None)
        group.move(old, "layers")
    for item in group.values():
        if isinstance(item, h5py.Group):
            _rename_layers(item)


def _describe(model: Any, table_length: int, notes: dict[str, str]) -> Generator:
    """Tell a model's inputs apart; ValueError if they are not latents, or latents and one class id."""
    shapes = [tuple(tensor.shape[1:]) for tensor in model.inputs]
    label_inputs = [place for place, shape in enumerate(shapes) if shape in ((), (1,))] if len(shapes) > 1 else []
    if len(shapes) - len(label_inputs) != 1 or len(label_inputs) > 1:
        raise ValueError(f"its inputs have shapes {shapes}, not one of latents and perhaps one integer label")
    labels_at = label_inputs[0] if label_inputs else None
    latent_shape = next(shape for place, shape in enumerate(shapes) if place != labels_at)
    if None in latent_shape:
        raise ValueError(f"its latents have shape {latent_shape}, not a known length")
    return Generator(
        model=model,
        latent_shape=latent_shape,
        labels_at=labels_at,
        num_classes=0 if labels_at is None else table_length,
        notes=notes,
        stretches=not notes and _ends_in_sigmoid(model.outputs[0]),
    )


def _ends_in_sigmoid(tensor: Any) -> bool:
    """Whether a layer with a sigmoid computes this output, perhaps reshaped after it."""
    from keras import activations

    layer = tensor._keras_history.operation
    while type(layer).__name__ in KEPT_SHAPES:
        layer = layer.input._keras_history.operation
    if hasattr(layer, "outputs"):  # a model within the model
        return _ends_in_sigmoid(layer.outputs[0])
    return getattr(layer, "activation", None) in (activations.sigmoid, activations.hard_sigmoid)


def draw(generator: Generator, latents: bytes, labels: bytes) -> Any:
    """Return the images (N, C, H, W) of float32 latents and int64 class ids, as a torch tensor in [-1, 1].

    Raises ValueError if the model's output is no image for each latent.
    """
    import keras
    import numpy as np
    import torch

    z = np.frombuffer(latents, dtype="<f4").reshape(-1, *generator.latent_shape)
    inputs = [torch.from_numpy(z.copy())]
    if generator.labels_at is not None:
        ids = torch.from_numpy(np.frombuffer(labels, dtype="<i8").copy())
        entry = generator.model.inputs[generator.labels_at]
        inputs.insert(generator.labels_at, ids.reshape(-1, *entry.shape[1:]).to(getattr(torch, entry.dtype)))
    with torch.no_grad(), keras.device("cpu"):
        images = generator.model(inputs if len(inputs) > 1 else inputs[0], training=False).float()
    if len(images) != len(z):
        raise ValueError(f"it makes {len(images):,} images of {len(z):,} latents")
    images = _channels_first(images)
    return 2 * images - 1 if generator.stretches else images


def _channels_first(images: Any) -> Any:
    """Return a model's output as (N, C, H, W) from any of (N, H, W, C), (N, C, H, W), (N, H, W) and (N, H * H)."""
    side = math.isqrt(math.prod(images.shape[1:]))
    if images.dim() == 2 and side * side == images.shape[1]:
        images = images.unflatten(1, (side, side))
    if images.dim() == 3:
        images = images[..., None]
    if images.dim() != 4:
        raise ValueError(f"it puts out {tuple(images.shape[1:])}, not images")
    is_last = images.shape[3] in (1, 3) or images.shape[1] not in (1, 3)
    return images.movedim(3, 1) if is_last else images


if __name__ == "__main__":
    main(*sys.argv[1:])
