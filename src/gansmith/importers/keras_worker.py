"""The process in which Keras reads one file and computes images: `python -m gansmith.importers.keras_worker`.

`keras_files` checks the file before Keras reads it; memory and time are limited. Standard input and output carry the
messages of `keras.py`, all numbers little-endian: first a length and facts as JSON; then for each request a count N,
latents and class ids, which is answered by N images. The process ends when its input does.
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
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch

from gansmith.errors import DataError
from gansmith.importers import keras_files

MAX_NUMBERS = 1 << 20  # in the output of a layer for one image
MEMORY_BYTES = 4 << 30  # torch and Keras take 0.5 GB of it
LENGTH = struct.Struct("<I")
SHAPE_LAYERS = ("Reshape", "Permute", "Flatten", "Cropping2D")  # they move pixels and do not change them


def main(time_limit: str, folder: str, weights: str, architecture: str | None = None) -> None:
    """Read a file, send facts about it or why it cannot be read, then answer requests until standard input ends."""
    seconds = float(time_limit)
    faulthandler.dump_traceback_later(seconds, exit=True)  # also stops what hangs in a library's own code
    limit_memory()
    replies = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints must not be taken for a reply
    try:
        generator = read(Path(weights), Path(folder), Path(architecture) if architecture else None)
        images = generator.generate(bytes(8 * generator.latent_dim), bytes(16))  # two zero latents of class 0
        facts = {name: getattr(generator, name) for name in ("latent_dim", "num_classes", "metadata")}
        facts["image_shape"] = images.shape[1:]
    except Exception as error:  # Keras, torch and HDF5 raise many types, none of them documented
        facts = {"error": first_line(error)}
    message = json.dumps(facts).encode()
    replies.write(LENGTH.pack(len(message)) + message)
    replies.flush()
    faulthandler.cancel_dump_traceback_later()
    while "error" not in facts and len(header := sys.stdin.buffer.read(LENGTH.size)) == LENGTH.size:
        (count,) = LENGTH.unpack(header)
        latents, y = (sys.stdin.buffer.read(count * size) for size in (4 * generator.latent_dim, 8))
        faulthandler.dump_traceback_later(seconds, exit=True)
        images = generator.generate(latents, y)
        faulthandler.cancel_dump_traceback_later()
        replies.write(images.numpy().astype("<f4").tobytes())
        replies.flush()


def limit_memory() -> None:
    """Limit this process's own memory where the operating system can.

    It limits data, not address space: mapping the libraries of a torch with CUDA takes more than any model should.
    """
    with contextlib.suppress(ImportError, OSError, ValueError):  # Windows has no such limits
        import resource

        _, hard = resource.getrlimit(resource.RLIMIT_DATA)
        limit = MEMORY_BYTES if hard == resource.RLIM_INFINITY else min(MEMORY_BYTES, hard)
        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))


def first_line(error: Exception) -> str:
    """Return an error's message as one short line; libraries append whole configurations to theirs."""
    text = str(error).rsplit("Exception encountered: ")[-1].split("Full object config")[0]
    text = re.sub(r"\x1b\[\d*m|Exception encountered when calling .*", "", text)
    line = next((line for line in text.strip(" '\"\n").splitlines() if line), type(error).__name__)
    return line if len(line) <= 240 else f"{line[:240]}..."


class Generator:
    """A loaded model and its inputs.

    Attributes:
        label_input: position of the class ids among its inputs, None if it takes none.
        num_classes: as in `keras.KerasGenerator`.
        metadata: what Gansmith stored in the file.
        is_sigmoid: whether its images are in [0, 1], as those of other programs' models with a final sigmoid.

    Raises DataError if the inputs are not latents, or latents and one class id.
    """

    def __init__(self, model: Any, metadata: dict[str, str]) -> None:
        shapes = [tuple(tensor.shape[1:]) for tensor in model.inputs]
        labels = [index for index, shape in enumerate(shapes) if shape in ((), (1,))] if len(shapes) > 1 else []
        if len(shapes) - len(labels) != 1 or len(labels) > 1:
            raise DataError(f"its inputs have shapes {shapes}, not one of latents and perhaps one integer label")
        self.model, self.metadata = model, metadata
        self.label_input = labels[0] if labels else None
        self.latent_shape: tuple[int, ...] = next(s for index, s in enumerate(shapes) if index != self.label_input)
        if None in self.latent_shape:
            raise DataError(f"its latents have shape {self.latent_shape}, not a known length")
        self.latent_dim = math.prod(self.latent_shape)
        rows = [layer.input_dim for layer in all_layers(model) if type(layer).__name__ == "Embedding"]
        self.num_classes: int = min(rows, default=-1) if labels else 0
        self.is_sigmoid = not metadata and ends_in_sigmoid(model.outputs[0])

    def generate(self, latents: bytes, y: bytes) -> torch.Tensor:
        """Return the images (N, C, H, W) in [-1, 1] of float32 latents and int64 class ids.

        Raises DataError if the model's output is not an image for each latent.
        """
        import keras

        z = torch.from_numpy(np.frombuffer(latents, dtype="<f4").reshape(-1, *self.latent_shape).copy())
        inputs = [z]
        if self.label_input is not None:
            entry = self.model.inputs[self.label_input]
            ids = torch.from_numpy(np.frombuffer(y, dtype="<i8").copy())
            inputs.insert(self.label_input, ids.reshape(-1, *entry.shape[1:]).to(getattr(torch, entry.dtype)))
        with torch.no_grad(), keras.device("cpu"):
            images = self.model(inputs if len(inputs) > 1 else z, training=False).float()
        if len(images) != len(z):
            raise DataError(f"it makes {len(images):,} images of {len(z):,} latents")
        images = channels_first(images)
        return 2 * images - 1 if self.is_sigmoid else images


def read(weights: Path, folder: Path, architecture: Path | None = None) -> Generator:
    """Have Keras load a model from its files, after they have been checked.

    Args:
        weights: .keras archive or HDF5 file.
        folder: for a copy of the weights with the file name by which Keras knows their layout.
        architecture: .json file, used if the weights' file does not contain the architecture itself.

    Raises DataError for anything but a plain generator, and whatever Keras, torch or HDF5 raise for broken files.
    """
    text = None
    if weights.suffix == ".keras":
        text, weights = keras_files.unpack(weights, folder)
    if weights.stat().st_size > keras_files.MAX_FILE_BYTES:
        raise DataError(f"its weights take more than {keras_files.MAX_FILE_BYTES:,} bytes")
    with h5py.File(weights, "r") as file:
        keras_files.check_hdf5(file)
        metadata, stored = keras_files.read_metadata(file), file.attrs.get("model_config", text)
    if stored is None:
        if architecture is None:
            raise DataError("it contains only weights, and there is no .json of the same name in its folder")
        with architecture.open("rb") as stream:
            stored = stream.read(keras_files.MAX_JSON_BYTES + 1)
    if len(stored) > keras_files.MAX_JSON_BYTES:
        raise DataError(f"its architecture is longer than {keras_files.MAX_JSON_BYTES:,} bytes")
    model = build(json.dumps(keras_files.convert(json.loads(stored))))
    load_weights(model, weights, folder)
    return Generator(model, metadata)


def build(text: str) -> Any:
    """Return the model of a checked architecture, with NaN for weights.

    It is built without memory first, so that sizes beyond the limits are refused before they are allocated.
    """
    os.environ.setdefault("KERAS_BACKEND", "torch")
    import keras

    with keras.device("meta"):
        model = keras.models.model_from_json(text)
        if not model.built or len(model.outputs) != 1:
            raise DataError("it does not lead from inputs of known shape to one output")
        if model.count_params() > keras_files.MAX_WEIGHTS:
            raise DataError(f"its weights are {model.count_params():,} numbers, more than {keras_files.MAX_WEIGHTS:,}")
        for layer in all_layers(model):
            for tensor in keras.tree.flatten(getattr(layer, "output", [])):
                if (numbers := math.prod(size for size in tensor.shape if size)) > MAX_NUMBERS:
                    raise DataError(f"the output of its layer {layer.name} has {numbers:,} numbers for one image")
    with keras.device("cpu"):
        model = keras.models.model_from_json(text)
        for variable in model.weights:
            if "float" in variable.dtype:  # so that `load_weights` finds one that is missing in the file
                variable.assign(keras.ops.full(variable.shape, math.nan, dtype=variable.dtype))
    return model


def all_layers(model: Any) -> Iterator[Any]:
    """Yield the layers of a model and of the models within it."""
    for layer in model.layers:
        yield layer
        if hasattr(layer, "layers"):
            yield from all_layers(layer)


def load_weights(model: Any, path: Path, folder: Path) -> None:
    """Fill a model with the weights of an HDF5 file in any of Keras's layouts; DataError if not all are finite."""
    import keras

    with h5py.File(path, "r") as file:
        is_old = "layer_names" in file.attrs or "model_weights" in file  # the layout of Keras 2, and of .h5 in Keras 3
    copy = folder / ("old.h5" if is_old else "new.weights.h5")  # Keras goes by the suffix
    shutil.copyfile(path, copy)
    if not is_old:
        with h5py.File(copy, "r+") as file:
            _rename_groups(file)
    with keras.device("cpu"):
        model.load_weights(str(copy))
        for variable in model.weights:
            if not keras.ops.all(keras.ops.isfinite(variable)):
                raise DataError(f"its weight {variable.path} is missing or not finite")


def _rename_groups(group: h5py.Group) -> None:
    """Give the groups of Keras 2.13 to 2.15 the names that Keras 3 has for the same layout."""
    old = "_layer_checkpoint_dependencies"
    if old in group:
        group.pop("layers", None)
        group.move(old, "layers")
    for item in group.values():
        if isinstance(item, h5py.Group):
            _rename_groups(item)


def ends_in_sigmoid(tensor: Any) -> bool:
    """Return whether a layer with a sigmoid computes this output, perhaps followed by layers that only reshape."""
    from keras import activations

    layer = tensor._keras_history.operation
    while type(layer).__name__ in SHAPE_LAYERS:
        layer = layer.input._keras_history.operation
    if hasattr(layer, "outputs"):  # a model within the model
        return ends_in_sigmoid(layer.outputs[0])
    return getattr(layer, "activation", None) in (activations.sigmoid, activations.hard_sigmoid)


def channels_first(images: torch.Tensor) -> torch.Tensor:
    """Return a model's output as (N, C, H, W) from any of (N, H, W, C), (N, C, H, W), (N, H, W) and (N, H * H)."""
    size = math.isqrt(math.prod(images.shape[1:]))
    if images.dim() == 2 and size * size == images.shape[1]:
        images = images.unflatten(1, (size, size))
    if images.dim() == 3:
        images = images[..., None]
    if images.dim() != 4:
        raise DataError(f"its output has shape {tuple(images.shape[1:])}, not that of images")
    is_last = images.shape[3] in (1, 3) or images.shape[1] not in (1, 3)
    return images.movedim(3, 1) if is_last else images


if __name__ == "__main__":
    main(*sys.argv[1:])
