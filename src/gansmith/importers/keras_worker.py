"""The process in which Keras reads one file and computes images: `python -m gansmith.importers.keras_worker`.

`keras_files` checks the file before Keras reads it; `worker` bounds memory and time.
"""

import json
import math
import os
import shutil
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from numpy.typing import NDArray

from gansmith.errors import DataError
from gansmith.importers import forms, keras_files
from gansmith.importers.worker import serve

MAX_NUMBERS = 1 << 22  # in the output of a layer for one image
SHAPE_LAYERS = ("Reshape", "Permute", "Flatten", "Cropping2D")  # they move pixels and do not change them


class Generator:
    """A loaded model; see `worker.Generator`.

    Attributes:
        form: how its output becomes images.

    Raises DataError if the inputs are not latents, or latents and one label.
    """

    def __init__(self, model: Any, metadata: dict[str, str], num_classes: int | None = None) -> None:
        inputs = [forms.Input(t.name, tuple(t.shape[1:]), "float" in t.dtype) for t in model.inputs]
        self.model, self.metadata = model, metadata
        self.signature = forms.choose_inputs(inputs, num_classes)
        self.latent_dim = inputs[self.signature.latents].size or 0
        self.num_classes = 0
        if self.signature.labels is not None:
            self.num_classes = self.signature.one_hot or count_ids(model) or num_classes or -1
        self.notices = list(self.signature.notices)
        self.form = forms.ImageForm(has_channels_last=True)
        if not metadata:
            z = forms.draw_latents(self.latent_dim)
            output = self.run(z, np.arange(len(z)) % max(1, self.num_classes))
            self.form, notices = forms.form_of(output, last_layer(model.outputs[0]))
            self.notices += notices

    def generate(self, z: NDArray[np.float32], y: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return images (N, C, H, W) in [-1, 1] of latents (N, latent_dim) and class ids (N,)."""
        output = self.run(z, y)
        return np.moveaxis(output, 3, 1) if self.metadata else self.form.images(output)

    def run(self, z: NDArray[np.float32], y: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return the model's output; DataError if it is not one for each latent."""
        import keras

        values = self.signature.values(z, y)
        inputs = []
        for place in sorted(values):
            entry, array = self.model.inputs[place], values[place]
            inputs.append(torch.from_numpy(array).reshape(-1, *entry.shape[1:]).to(getattr(torch, entry.dtype)))
        with torch.no_grad(), keras.device("cpu"):
            output = self.model(inputs if len(inputs) > 1 else inputs[0], training=False).float()
        if len(output) != len(z):
            raise DataError(f"it makes {len(output):,} images of {len(z):,} latents")
        found: NDArray[np.float32] = output.numpy()
        return found


def count_ids(model: Any) -> int:
    """Return how many class ids a model knows: the rows of its smallest embedding; 0 without one."""
    rows = [layer.input_dim for layer in all_layers(model) if type(layer).__name__ == "Embedding"]
    return min(rows, default=0)


def read(num_classes: str, folder: str, weights: str, architecture: str | None = None) -> Generator:
    """Return the generator in these files, as the process got them."""
    path = Path(architecture) if architecture else None
    return Generator(*load(Path(weights), Path(folder), path), int(num_classes) or None)


def load(weights: Path, folder: Path, architecture: Path | None = None) -> tuple[Any, dict[str, str]]:
    """Return the model that Keras loads from its files, after they have been checked, and what Gansmith stored in them.

    Args:
        weights: .keras archive or HDF5 file.
        folder: for a copy of the weights with the file name by which Keras knows their layout.
        architecture: .json file, used if the weights' file does not contain the architecture itself.

    Raises DataError for anything but a plain generator, and whatever Keras, torch or HDF5 raise for broken files.
    """
    text = None
    with weights.open("rb") as file:
        is_archive = file.read(2) == b"PK"  # a .keras file; HDF5 is called so too
    if is_archive:
        text, weights = keras_files.unpack(weights, folder)
    elif not h5py.is_hdf5(weights):
        raise DataError("it is neither a zip archive nor HDF5, as files of Keras are")
    if weights.stat().st_size > keras_files.MAX_FILE_BYTES:
        raise DataError(f"its weights take more than {keras_files.MAX_FILE_BYTES:,} bytes")
    with h5py.File(weights, "r") as file:
        keras_files.check_hdf5(file)
        metadata, stored = keras_files.read_metadata(file), file.attrs.get("model_config", text)
        if stored is None and not keras_files.holds_weights(file):
            raise DataError("it holds no model of Keras; where it holds images, save them with numpy.savez")
    if stored is None:
        if architecture is None:
            raise DataError("it contains only weights, and there is no .json of the same name in its folder")
        with architecture.open("rb") as stream:
            stored = stream.read(keras_files.MAX_JSON_BYTES + 1)
    if len(stored) > keras_files.MAX_JSON_BYTES:
        raise DataError(f"its architecture is longer than {keras_files.MAX_JSON_BYTES:,} bytes")
    model = build(json.dumps(keras_files.convert(json.loads(stored))))
    load_weights(model, weights, folder)
    return model, metadata


def build(text: str) -> Any:
    """Return the model of a checked architecture, with NaN for weights.

    It is built without memory first, so that sizes beyond the limits are refused before they are allocated.
    """
    os.environ.setdefault("KERAS_BACKEND", "torch")
    import keras

    with keras.device("meta"):
        model = keras.models.model_from_json(text)
        if not model.built:
            raise DataError("it does not lead from inputs of known shape to one output")
        if len(model.outputs) != 1:
            raise DataError(
                f"it has {len(model.outputs)} outputs; save the model of its images alone, such as "
                "keras.Model(G.inputs, G.outputs[0])"
            )
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


def last_layer(tensor: Any) -> str:
    """Return tanh or sigmoid where a layer with one computes this output, perhaps followed by layers that reshape."""
    from keras import activations

    layer = tensor._keras_history.operation
    while type(layer).__name__ in SHAPE_LAYERS:
        layer = layer.input._keras_history.operation
    if hasattr(layer, "outputs"):  # a model within the model
        return last_layer(layer.outputs[0])
    squashing = (activations.tanh, "tanh"), (activations.sigmoid, "sigmoid"), (activations.hard_sigmoid, "sigmoid")
    return next((name for function, name in squashing if getattr(layer, "activation", None) is function), "")


if __name__ == "__main__":
    _, time_limit, folder, num_classes, *files = sys.argv
    serve(time_limit, partial(read, num_classes, folder, *files))
