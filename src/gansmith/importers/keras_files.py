"""What a Keras file may contain, checked before Keras reads it, and its conversion to the form that Keras 3 reads.

An architecture may name only the classes in `LAYERS` and `MODELS`; HDF5 files may have no links and no external data.
All functions raise DataError with a reason that completes "... cannot be read".
"""

import itertools
import json
import shutil
import zipfile
from pathlib import Path
from typing import Any

import h5py

from gansmith.errors import DataError

# Layers for which Keras 2.3 to 2.15 write a number of groups, which Keras 3 does not know.
UNGROUPED = frozenset({"Conv1DTranspose", "Conv2DTranspose", "DepthwiseConv2D", "SeparableConv2D"})
MAX_JSON_BYTES = 4 << 20
MAX_FILE_BYTES = 2 << 30
MAX_WEIGHTS = 100_000_000  # numbers in a model; a file may have four times as many, for an optimiser's state

# Layers whose output for one image depends on that image's input alone in evaluation mode, and which read nothing from
# outside the model. Custom classes, Lambda and layers that run other frameworks' code are not among them.
LAYERS = frozenset(
    """
    Activation Add AlphaDropout Average AveragePooling2D BatchNormalization Concatenate Conv1D Conv1DTranspose Conv2D
    Conv2DTranspose Cropping1D Cropping2D Dense DepthwiseConv2D Dot Dropout ELU Embedding Flatten GaussianDropout
    GaussianNoise GlobalAveragePooling2D GlobalMaxPooling2D GroupNormalization InputLayer LayerNormalization LeakyReLU
    MaxPooling2D Maximum Minimum Multiply PReLU Permute ReLU RepeatVector Rescaling Reshape SeparableConv2D Softmax
    SpatialDropout2D Subtract UnitNormalization UpSampling2D ZeroPadding2D
    """.split()
)
MODELS = {"Functional": "Model", "Model": "Model", "Sequential": "Sequential"}  # and their names in keras.models
UNUSED = ("_initializer", "_regularizer", "_constraint", "compile_config")  # matter only in training


def unpack(archive: Path, folder: Path) -> tuple[str, Path]:
    """Return the architecture in a .keras archive and the path to which its weights were extracted."""
    with zipfile.ZipFile(archive) as file:
        sizes = {entry.filename: entry.file_size for entry in file.infolist()}
        known = {"metadata.json", "config.json", "model.weights.h5"}
        if sizes.keys() | {"metadata.json"} != known:
            raise DataError(f"it contains {', '.join(map(repr, sizes))}, not just {', '.join(sorted(known))}")
        if sizes["config.json"] > MAX_JSON_BYTES or sizes["model.weights.h5"] > MAX_FILE_BYTES:
            raise DataError(f"it unpacks to more than {MAX_JSON_BYTES:,} or {MAX_FILE_BYTES:,} bytes")
        path = folder / "unpacked.h5"
        with file.open("model.weights.h5") as source, path.open("wb") as target:
            shutil.copyfileobj(source, target)
        return file.read("config.json").decode("utf-8"), path


def check_hdf5(file: h5py.File) -> None:
    """Raise DataError for links, external data, and sizes that the file declares but does not contain."""
    total = 0
    links: dict[str, Any] = {}
    file.visititems_links(links.__setitem__)
    for name, link in links.items():
        if not isinstance(link, h5py.HardLink):
            raise DataError(f"its {name!r} is a link to elsewhere")
        item = file[name]
        if not isinstance(item, h5py.Dataset):
            continue
        if item.external or item.is_virtual:
            raise DataError(f"the data of its {name!r} are in another file")
        if item.size and item.chunks and not item.id.get_storage_size():
            raise DataError(f"its {name!r} declares {item.size:,} numbers and contains none")
        total += item.size or 0
        if total > 4 * MAX_WEIGHTS:
            raise DataError(f"it declares more than {4 * MAX_WEIGHTS:,} numbers")


def holds_weights(file: h5py.File) -> bool:
    """Return whether a file without an architecture has the form of Keras's weights: groups of layers, no arrays."""
    return "layer_names" in file.attrs or not any(isinstance(item, h5py.Dataset) for item in file.values())


def read_metadata(file: h5py.File) -> dict[str, str]:
    """Return what Gansmith stored with a generator that it exported, {} for other files."""
    if "gansmith" not in file:
        return {}
    dataset = file["gansmith"]
    if not isinstance(dataset, h5py.Dataset) or dataset.shape != () or dataset.dtype.itemsize > MAX_JSON_BYTES:
        raise DataError("its metadata is not a text")
    return dict(json.loads(dataset.asstr()[()]))


def convert(entry: Any) -> Any:
    """Return a part of an architecture in the form that Keras 3 reads, without what only training needs.

    Raises DataError for a class that is not in `LAYERS` or `MODELS`, and for layers that run in training mode.
    """
    if isinstance(entry, list):
        return [convert(item) for item in entry]
    if not isinstance(entry, dict):
        return entry
    if entry.get("training"):
        raise DataError("it calls a layer in training mode, where the images of a batch depend on one another")
    if "class_name" in entry:
        _check_class(entry)
    kept = {key: convert(item) for key, item in entry.items() if not key.endswith(UNUSED)}
    if isinstance(kept.get("dtype"), dict):
        del kept["dtype"]  # a policy, such as for mixed precision: everything is computed in float32
    inner = kept.get("activation")  # a layer, as of LeakyReLU, whose module Keras 2 leaves out
    if isinstance(inner, dict) and inner.get("class_name") in LAYERS:
        inner.setdefault("module", "keras.layers")
    match kept:
        case {"class_name": "BatchNormalization", "config": {"axis": [int(axis)]}}:  # as Keras 2.15 writes it
            kept["config"]["axis"] = axis
        case {"class_name": str(name), "config": {"groups": groups}} if name in UNGROUPED:
            if groups != 1:
                raise DataError(f"its {name} has {groups} groups, which Keras 3 does not compute")
            del kept["config"]["groups"]
    if kept.get("class_name") in MODELS:  # Keras 2 has them in another module, or names none
        kept |= {"class_name": MODELS[kept["class_name"]], "module": "keras.models", "registered_name": None}
        if kept["class_name"] == "Sequential":
            kept["config"] = _with_input(kept["config"])
        else:
            _renumber_calls(kept["config"])
    return kept


def _check_class(entry: dict[str, Any]) -> None:
    """Raise DataError unless the class is a layer or model of Keras's own, an activation or a tensor's description."""
    name, module = entry["class_name"], entry.get("module")
    is_own = str(module or "keras").split(".")[0] == "keras"
    if name == "function" and module in (None, "builtins", "keras.activations"):
        return
    if is_own and (name in LAYERS or name in MODELS or name in ("__keras_tensor__", "DTypePolicy", "Policy")):
        return
    if name == "Lambda":
        raise DataError("it has a Lambda layer, which contains code, and code from files is never run")
    what = entry.get("config") if name == "function" else name
    raise DataError(f"it uses {what!r}{'' if is_own else f' of {module}'}, which is not among Keras's plain layers")


def _with_input(sequential: Any) -> dict[str, Any]:
    """Return the configuration of a Sequential with an input layer instead of its first layer's `batch_input_shape`.

    Keras 3 would take the batch dimension for a part of the input. Before Keras 2.2.3 the configuration was a list.
    """
    config: dict[str, Any] = {"layers": sequential} if isinstance(sequential, list) else dict(sequential)
    if not config["layers"]:
        raise DataError("it has a Sequential without layers")
    first = config["layers"][0]
    if first["class_name"] != "InputLayer" and "batch_input_shape" in first["config"]:
        shape = first["config"].pop("batch_input_shape")
        dtype = "int32" if first["class_name"] == "Embedding" else "float32"
        input_layer = {"class_name": "InputLayer", "config": {"batch_shape": shape, "dtype": dtype, "name": "input"}}
        config["layers"] = [input_layer, *config["layers"]]
    return {"name": "sequential"} | config


def _renumber_calls(graph: dict[str, Any]) -> None:
    """Give references to the models within a Keras 2 model the numbers that Keras 3 gives to the same calls.

    Keras 2 counts the building of a model within a model as its first call; Keras 3 does so only for functional ones
    among the outputs.
    """
    models = {row["name"]: row["class_name"] for row in graph["layers"] if row["class_name"] in MODELS}
    nodes = [node for row in graph["layers"] for node in row["inbound_nodes"] if isinstance(node, list)]
    for row in graph["layers"]:
        if row["class_name"] != "InputLayer":
            row["config"].pop("batch_input_shape", None)
    inputs = [reference for reference in itertools.chain(*nodes) if reference[0] in models]
    outputs = graph["output_layers"] if nodes else []  # in Keras 3, whose nodes are dicts, it may be a flat list
    for reference in inputs + [reference for reference in outputs if models.get(reference[0]) == "Sequential"]:
        reference[1] = max(0, reference[1] - 1)
