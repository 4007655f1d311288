"""Generator files: their metadata, loading them, checking them."""

import contextlib
import json
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

import safetensors.torch
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from gansmith.checkpoints import named_checkpoints
from gansmith.conditioning import Conditioning, conditioned_spec
from gansmith.config import FIELDS, Config, choose
from gansmith.data.images import ImageSpec
from gansmith.errors import ConfigError, DataError, NotFoundError, is_out_of_memory, reason_of
from gansmith.files import read_metadata
from gansmith.isolation import torch_defaults
from gansmith.networks import NETWORKS, is_of_program
from gansmith.randomness import rng, seeded
from gansmith.runs import holds_run, open_run
from gansmith.sampling import Model, draw_latents

KERAS_SUFFIXES = (".json", ".h5", ".hdf5", ".keras")
GRAPH_SUFFIXES = (".onnx", ".pt2")
GENERATOR_SUFFIXES = (".safetensors", *GRAPH_SUFFIXES, *KERAS_SUFFIXES)
TORCH_SUFFIXES = (".pth", ".pt", ".ckpt", ".pkl", ".pickle")  # never read
PACKED_BY_TORCH = (".pth.tar", ".pt.tar", ".ckpt.tar")  # names by custom; no archives
TENSORFLOW_FORMS = {".tflite": "a model of TensorFlow Lite", ".pb": "a graph of TensorFlow"}  # never read either


def generator_metadata(
    config: Config, spec: ImageSpec, conditioning: Conditioning, class_names: Sequence[str] = ()
) -> dict[str, str]:
    """Return what is stored in a generator file so that it can be used alone; paths are left out."""
    return {
        "config": json.dumps(config.replace(data_dir="", start_from="", device="auto").as_dict(), sort_keys=True),
        "spec": json.dumps(asdict(spec), sort_keys=True),
        "frequencies": json.dumps(conditioning.frequencies.tolist()),
        "class_names": json.dumps(list(class_names)),
        "in_latents": json.dumps(conditioning.in_latents),
    }


def model_metadata(model: Model) -> dict[str, str]:
    """Return the same for a generator that was loaded."""
    return generator_metadata(model.config, model.spec, model.conditioning, model.class_names)


@torch_defaults()
@torch.inference_mode(False)
def load_generator(path: Path | str, *, num_classes: int | None = None) -> Model:
    """Return the generator of a run directory (its newest checkpoint), of a checkpoint, or of a file.

    Files may be .safetensors, .onnx, .pt2, .keras, .h5 or .hdf5, or a Keras .json with its weights in the same folder;
    those of other programs too.

    Args:
        num_classes: of a file of another program that takes labels and does not say how many there are.

    Raises NotFoundError if there is none or if its network is not defined, DataError for a file that is not a generator
    or was written by another version, ConfigError for a number of classes that it contradicts.
    """
    path = find_generator(Path(path))
    G: Any = None
    suffix = path.suffix.lower()
    if suffix in GRAPH_SUFFIXES:
        from gansmith.importers.onnx import read_onnx

        G, metadata = read_onnx(path, num_classes)
    elif suffix in KERAS_SUFFIXES:
        from gansmith.importers.keras import read_keras

        G, metadata = read_keras(path, num_classes)
    else:
        metadata = read_metadata(path)
    if not metadata and G.num_classes < 0:
        raise ConfigError(
            f"{path} takes labels and does not say how many there are; give it as --num-classes, such as 10"
        )
    try:
        config, spec, conditioning = _read(metadata) if metadata else _infer(G)
        if G is None:
            G = _build(config, spec, path)
        names = _class_names(metadata, spec)
        model = Model(G.eval(), config, spec, conditioning, names, getattr(G, "notices", ()))
        _check_images(model)
    except NotFoundError:
        raise
    except _OtherVersion as error:
        raise DataError(
            f"{path} was written by another version of Gansmith ({error}); use that version, or train a new generator"
        ) from None
    except (ArithmeticError, LookupError, RuntimeError, TypeError, ValueError) as error:
        if is_out_of_memory(error):
            raise
        reason = reason_of(error)
        if isinstance(error, KeyError):
            reason = f"it has no {reason}"
        if not metadata:
            raise DataError(f"{path} cannot be used ({reason}); give a generator of square images") from None
        raise DataError(
            f"{path} is damaged or was written by another version of Gansmith ({reason}); use that version, or another "
            "copy of the file"
        ) from None
    if num_classes not in (None, spec.num_classes):
        knows = f"has {spec.num_classes} classes" if spec.num_classes else "takes no labels"
        raise ConfigError(f"num_classes is {num_classes}, and {path} {knows}; omit it")
    return model


def _class_names(metadata: Mapping[str, str], spec: ImageSpec) -> tuple[str, ...]:
    """Return the class names in a file's metadata, at most one for each label; those of other programs have none."""
    names = json.loads(metadata.get("class_names", "[]"))
    if not isinstance(names, list) or not all(isinstance(name, str) and len(name) <= 256 for name in names):
        raise DataError("its class names are no list of texts")
    return tuple(names[: spec.num_classes])


class _OtherVersion(DataError):
    """Metadata with fields that this version does not have."""


def _is_safetensors(file: Path) -> bool:
    """Return whether a file is there and has the header of its format and all that it announces."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, "pt"):
            return True
    except (SafetensorError, OSError):
        return False


def find_generator(path: Path) -> Path:
    """Return the generator file of a run directory (of its newest checkpoint), a checkpoint or a folder of exports."""
    form = "a SavedModel of TensorFlow" if _is_saved_model(path) else TENSORFLOW_FORMS.get(path.suffix.lower())
    if form is not None:
        raise DataError(
            f"{path} is {form}, which is not read; save the generator as .keras (model.save), or convert it to ONNX "
            "(tf2onnx)"
        )
    if path.is_dir():
        if (path / "generator.safetensors").is_file() and not holds_run(path):
            return path / "generator.safetensors"
        latest = open_run(path).latest()
        if latest is None and (damaged := named_checkpoints(path)):
            files = [folder / "generator.safetensors" for folder in reversed(damaged)]
            sound = next((file for file in files if _is_safetensors(file)), None)
            advice = (
                f"give the file {sound}" if sound else f"restore one, or remove {path / 'checkpoints'} to start again"
            )
            raise DataError(f"no checkpoint of {path} is whole; {advice}")
        if latest is None:
            raise NotFoundError(f"{path} has no checkpoint yet; let it train until its first save")
        return latest / "generator.safetensors"
    if path.suffix == ".index" or path.with_name(f"{path.name}.index").is_file():
        raise DataError(
            f"{path} is a checkpoint of TensorFlow, weights without their network; save the generator as .keras "
            "(model.save), or convert it to ONNX (tf2onnx)"
        )
    if path.exists() and _is_of_torch(path):
        raise DataError(
            f"{path} is a pickle of torch's, which can run any code when it is read and is therefore never read; "
            "export the generator as ONNX (torch.onnx.export) and give that file, or save images with numpy.savez"
        )
    if not path.is_file():
        raise NotFoundError(f"there is no file or run {str(path)!r}; give a run directory or a generator.safetensors")
    return path


def _is_of_torch(path: Path) -> bool:
    """Return whether a file is what torch.save writes by its name, or without an ending of ours an archive of it."""
    if path.suffix.lower() in TORCH_SUFFIXES or path.name.lower().endswith(PACKED_BY_TORCH):
        return True
    if path.suffix.lower() in GENERATOR_SUFFIXES or not zipfile.is_zipfile(path):
        return False
    try:
        with zipfile.ZipFile(path) as archive:
            return any(name.endswith("/data.pkl") for name in archive.namelist())
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        return False  # who reads it says what is damaged


def _is_saved_model(path: Path) -> bool:
    """Return whether a folder is what Keras 2 and TensorFlow save."""
    return (path / "saved_model.pb").is_file()


def is_generator(target: Path) -> bool:
    """Return whether a target is a run, a checkpoint or a generator file; NotFoundError if it does not exist."""
    if not target.exists():
        raise NotFoundError(
            f"there is no {str(target)!r}; give a run, a generator.safetensors, a .npz or a folder of images"
        )
    if target.is_dir():
        return holds_run(target) or _is_saved_model(target) or (target / "generator.safetensors").is_file()
    return target.suffix.lower() in (*GENERATOR_SUFFIXES, *TENSORFLOW_FORMS) or _is_of_torch(target)


def _read(metadata: Mapping[str, str]) -> tuple[Config, ImageSpec, Conditioning]:
    """Return what `generator_metadata` wrote, checked; other texts raise one of many errors."""
    fields = json.loads(metadata["config"])
    unknown = [name for name in fields if name not in FIELDS]
    if unknown:
        raise _OtherVersion(f"its config has the field {unknown[0]!r}, which this version does not have")
    config = Config(**fields)
    spec = ImageSpec(**json.loads(metadata["spec"]))
    for name, low, high in (("size", 1, 1024), ("channels", 1, 64), ("num_classes", 0, 65_536)):
        value = getattr(spec, name)
        if type(value) is not int or not low <= value <= high:
            raise DataError(f"{name} is {value!r}, not a number from {low} to {high}")
    frequencies = torch.tensor(json.loads(metadata["frequencies"]), dtype=torch.float64)
    if frequencies.shape != (max(1, conditioned_spec(spec, config).num_classes),) or not (
        frequencies.isfinite().all() and frequencies.min() >= 0 and frequencies.sum() > 0
    ):
        raise DataError("its frequencies are not one for each class id")
    in_latents = json.loads(metadata.get("in_latents", "false")) is True and config.latent_dim > 1
    return config, spec, Conditioning(frequencies, config.ids_per_class, spec.num_classes > 0, in_latents=in_latents)


@torch.no_grad()
def _infer(G: Any) -> tuple[Config, ImageSpec, Conditioning]:
    """Return the same for a file without metadata, from its inputs and outputs; class ids are taken for labels."""
    _, channels, size, _ = G(torch.zeros(1, G.latent_dim), torch.zeros(1, dtype=torch.int64)).shape
    config = Config(latent_dim=G.latent_dim, conditioning="labels" if G.num_classes else "none")
    count = max(1, G.num_classes)
    conditioning = Conditioning(torch.full((count,), 1 / count, dtype=torch.float64), has_labels=G.num_classes > 0)
    return config, ImageSpec(size, channels, G.num_classes), conditioning


@contextlib.contextmanager
def _without_memory() -> Iterator[None]:
    """Build networks on the meta device, without initial weights."""
    with torch.device("meta"), _SkipInitialisation():
        yield


class _SkipInitialisation(TorchFunctionMode):
    """Skips weight initialisation, since a file's weights replace it; on the meta device it would take seconds."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in (Tensor.normal_, Tensor.uniform_) or getattr(func, "__module__", "") == nn.init.__name__:
            return (*args, *(kwargs or {}).values())[0]
        if func is torch.eye and "out" in (kwargs or {}):  # as `nn.init.eye_` calls it
            return kwargs["out"]
        return func(*args, **(kwargs or {}))


def _build(config: Config, spec: ImageSpec, path: Path) -> nn.Module:
    """Return the generator with the weights of a file; names and shapes are compared before weights are read."""
    if config.network not in NETWORKS:
        raise NotFoundError(
            f"{path} has the network {config.network!r}, which the program that trained it defined; define it again "
            f"first: gansmith.NETWORKS[{config.network!r}] = build_networks"
        )
    is_own = is_of_program(config.network)
    # A program's own module may hold numbers that are in no file, so it is built as it was for training.
    with seeded(rng(config.seed, "weights")) if is_own else _without_memory():
        G, _ = choose(NETWORKS, config.network, "network")(conditioned_spec(spec, config), config)
    expected = G.state_dict()
    with safetensors.safe_open(path, framework="pt") as file:
        shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}
    if shapes != {name: tuple(values.shape) for name, values in expected.items()}:
        odd = sorted(set(shapes.items()) ^ {(name, tuple(values.shape)) for name, values in expected.items()})
        raise DataError(f"its weight {odd[0][0]} does not fit its config")
    tensors = safetensors.torch.load_file(path)
    for name, values in tensors.items():
        if values.dtype != expected[name].dtype:
            raise DataError(f"its weight {name} is {values.dtype}, not {expected[name].dtype}")
        if not values.isfinite().all():
            raise DataError(f"its weight {name} is not finite")
    G.load_state_dict(tensors, assign=not is_own)
    return cast(nn.Module, G)


@torch.no_grad()
def _check_images(model: Model) -> None:
    """Raise DataError if the model does not generate finite images of its spec, for its first and its last class id."""
    z, y = draw_latents(model.config, seed=0, count=2), torch.tensor([0, len(model.conditioning) - 1])
    with seeded(rng("check")):  # it may draw noise of its own
        images = model.network(z, y)
    size = model.spec.size
    if images.shape != (2, model.spec.channels, size, size):
        raise DataError(f"its images have shape {tuple(images.shape[1:])}, not {(model.spec.channels, size, size)}")
    if not images.isfinite().all():
        raise DataError("its images are not finite")
