"""Generator files: what they say of themselves, reading them, checking them."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

import safetensors.torch
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from gansmith.conditioning import Conditioning, conditioned_spec
from gansmith.config import Config, choose
from gansmith.data.images import ImageSpec
from gansmith.errors import DataError, NotFoundError
from gansmith.files import read_metadata
from gansmith.networks import NETWORKS
from gansmith.runs import holds_run, open_run
from gansmith.sampling import Model, draw_latents

KERAS_SUFFIXES = (".json", ".h5", ".hdf5", ".keras")
GENERATOR_SUFFIXES = (".safetensors", ".onnx", *KERAS_SUFFIXES)


def generator_metadata(config: Config, spec: ImageSpec, conditioning: Conditioning) -> dict[str, str]:
    """Return what a generator file must say of itself to be used alone; the folder of its data is left out."""
    return {
        "config": json.dumps(config.replace(data_dir="").as_dict(), sort_keys=True),
        "spec": json.dumps(asdict(spec), sort_keys=True),
        "frequencies": json.dumps(conditioning.frequencies.tolist()),
    }


def load_generator(path: Path | str) -> Model:
    """Return the generator of a run directory (its newest checkpoint), of a checkpoint, or of a file.

    Files may be .safetensors, .onnx, .keras, .h5 or .hdf5, or a Keras .json beside its weights, also ones that
    Gansmith did not write.

    Raises NotFoundError where there is none yet, DataError for a file that is not a generator.
    """
    path = find_generator(Path(path))
    G: Any = None
    if path.suffix == ".onnx":
        from gansmith.importers.onnx import read_onnx

        G, notes = read_onnx(path)
    elif path.suffix in KERAS_SUFFIXES:
        from gansmith.importers.keras import read_keras

        G, notes = read_keras(path)
    else:
        notes = read_metadata(path)
    try:
        config, spec, conditioning = _read_notes(notes) if notes else _infer_notes(G)
        if G is None:
            G = _build(config, spec, path)
        model = Model(G.eval(), config, spec, conditioning)
        _try_out(model)
    except NotFoundError:
        raise
    except (ArithmeticError, LookupError, RuntimeError, TypeError, ValueError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        if not notes:
            raise DataError(
                f"{path} draws nothing that Gansmith can use ({reason}); give a generator of square images"
            ) from None
        raise DataError(
            f"{path} does not fit this version of Gansmith ({reason}); use the version that wrote it"
        ) from None
    return model


def find_generator(path: Path) -> Path:
    """Return the generator file that a run directory, a checkpoint or a folder of exports stands for."""
    if path.is_dir():
        if (path / "generator.safetensors").is_file() and not holds_run(path):
            return path / "generator.safetensors"
        latest = open_run(path).latest()
        if latest is None:
            raise NotFoundError(f"{path} has no checkpoint yet; let it train until its first save")
        return latest / "generator.safetensors"
    if not path.is_file():
        raise NotFoundError(f"there is no file or run {str(path)!r}; give a run directory or a generator.safetensors")
    return path


def is_generator(target: Path) -> bool:
    """Whether a target is a run, a checkpoint or a generator file; NotFoundError where there is nothing."""
    if not target.exists():
        raise NotFoundError(
            f"there is no {str(target)!r}; give a run, a generator.safetensors, a .npz or a folder of images"
        )
    if target.is_dir():
        return any((target / name).is_file() for name in ("config.toml", "generator.safetensors"))
    return target.suffix in GENERATOR_SUFFIXES


def _read_notes(notes: Mapping[str, str]) -> tuple[Config, ImageSpec, Conditioning]:
    """Return what `generator_metadata` wrote, checked; raises one of many errors where it was not that."""
    config = Config(**json.loads(notes["config"]))
    spec = ImageSpec(**json.loads(notes["spec"]))
    for name, low, high in (("size", 1, 1024), ("channels", 1, 64), ("num_classes", 0, 65_536)):
        value = getattr(spec, name)
        if type(value) is not int or not low <= value <= high:
            raise DataError(f"{name} is {value!r}, not a number from {low} to {high}")
    frequencies = torch.tensor(json.loads(notes["frequencies"]), dtype=torch.float64)
    if frequencies.shape != (max(1, conditioned_spec(spec, config).num_classes),) or not (
        frequencies.isfinite().all() and frequencies.min() >= 0 and frequencies.sum() > 0
    ):
        raise DataError("its frequencies are not one share for each class id")
    return config, spec, Conditioning(frequencies, config.ids_per_class, has_labels=spec.num_classes > 0)


@torch.no_grad()
def _infer_notes(G: Any) -> tuple[Config, ImageSpec, Conditioning]:
    """Return the same for a file that says nothing of itself, from its inputs and outputs; class ids pass for labels."""
    if G.num_classes < 0:
        raise DataError("it takes class ids and does not say how many there are")
    _, channels, size, _ = G(torch.zeros(1, G.latent_dim), torch.zeros(1, dtype=torch.int64)).shape
    config = Config(latent_dim=G.latent_dim, conditioning="labels" if G.num_classes else "none")
    count = max(1, G.num_classes)
    conditioning = Conditioning(torch.full((count,), 1 / count, dtype=torch.float64), has_labels=G.num_classes > 0)
    return config, ImageSpec(size, channels, G.num_classes), conditioning


class _NoFirstWeights(TorchFunctionMode):
    """Skips weight initialisation where a file is about to replace the weights; on the meta device it takes seconds."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in (Tensor.normal_, Tensor.uniform_) or getattr(func, "__module__", "") == nn.init.__name__:
            return (*args, *(kwargs or {}).values())[0]
        return func(*args, **(kwargs or {}))


def _build(config: Config, spec: ImageSpec, path: Path) -> nn.Module:
    """The generator whose weights a file holds; its names and shapes are compared before any is read."""
    if config.network not in NETWORKS:
        raise NotFoundError(
            f"{path} holds the network {config.network!r}, which the program that trained it defined; define it again "
            f"first: gansmith.NETWORKS[{config.network!r}] = build_networks"
        )
    with torch.device("meta"), _NoFirstWeights():
        G, _ = choose(NETWORKS, config.network, "network")(conditioned_spec(spec, config), config)
    expected = G.state_dict()
    with safetensors.safe_open(path, framework="pt") as file:
        shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}
    if shapes != {name: tuple(values.shape) for name, values in expected.items()}:
        odd = sorted(set(shapes.items()) ^ {(name, tuple(values.shape)) for name, values in expected.items()})
        raise DataError(f"its weights are not those of its choices: {odd[0][0]}")
    tensors = safetensors.torch.load_file(path)
    for name, values in tensors.items():
        if values.dtype != expected[name].dtype:
            raise DataError(f"{name} is {values.dtype}, not {expected[name].dtype}")
        if not values.isfinite().all():
            raise DataError(f"{name} holds non-finite numbers")
    G.load_state_dict(tensors, assign=True)
    return cast(nn.Module, G)


@torch.no_grad()
def _try_out(model: Model) -> None:
    """Raise ValueError where the model does not draw images of its spec for its first and its last id."""
    z, ids = draw_latents(model.config, seed=0, count=2), torch.tensor([0, len(model.conditioning) - 1])
    images = model.network(z, ids)
    size = model.spec.size
    if images.shape != (2, model.spec.channels, size, size):
        raise DataError(f"it draws {tuple(images.shape[1:])}, not {(model.spec.channels, size, size)}")
    if not images.isfinite().all():
        raise DataError("it draws non-finite numbers")


