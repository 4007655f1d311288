"""Generator files are loaded with their metadata; damaged files and those of other versions are refused in one line."""

import json
import os
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch

from gansmith.conditioning import UNCONDITIONAL, Conditioning
from gansmith.config import resolve
from gansmith.data.images import ImageSpec
from gansmith.errors import DataError, GansmithError, NotFoundError
from gansmith.files import read_metadata, save_tensors
from gansmith.models import find_generator, generator_metadata, is_generator, load_generator
from gansmith.networks import build_networks
from gansmith.sampling import sample


def write_generator(folder: Path, network: str = "mlp") -> Path:
    """Write an untrained generator of ten classes."""
    config = resolve(
        arguments={"network": network, "g_width": 8, "d_width": 8, "latent_dim": 4, "conditioning": "labels"}
        | {"clusters_per_class": 2, "data_dir": "somewhere"}
    )
    spec = ImageSpec(8, 1, 10)
    frequencies = torch.arange(1, 21, dtype=torch.float64) / 210
    metadata = generator_metadata(config, spec, Conditioning(frequencies, ids_per_class=2, has_labels=True))
    path = folder / "generator.safetensors"
    save_tensors(path, build_networks(config, spec)[0].state_dict(), metadata)
    return path


@pytest.fixture
def generator(tmp_path) -> Path:
    return write_generator(tmp_path)


@pytest.fixture
def rewrite(generator, tmp_path):
    """A function that writes the generator again with some tensors and metadata changed, and returns its path."""
    tensors, metadata, path = (
        safetensors.torch.load_file(generator),
        read_metadata(generator),
        tmp_path / "x.safetensors",
    )

    def write(changed_tensors=None, **changed_metadata):
        save_tensors(path, {**tensors, **(changed_tensors or {})}, {**metadata, **changed_metadata})
        return path

    return write


def assert_refused(path: Path, words: str, error: type[GansmithError] = DataError) -> None:
    """Assert that loading a file raises this error, in one line that names the file and matches `words`."""
    with pytest.raises(error, match=words) as caught:
        load_generator(path)
    assert "\n" not in str(caught.value) and path.name in str(caught.value)


def test_a_file_has_all_that_sampling_needs(generator):
    model = load_generator(generator)
    assert (model.spec, model.config.latent_dim, model.config.data_dir) == (ImageSpec(8, 1, 10), 4, "")
    assert (model.conditioning.ids_per_class, model.conditioning.has_labels) == (2, True)
    assert torch.equal(model.conditioning.frequencies, torch.arange(1, 21, dtype=torch.float64) / 210)
    assert generator_metadata(model.config, model.spec, model.conditioning) == read_metadata(generator)
    images, labels = sample(model, seed=0, count=3, labels=[7])
    assert images.shape == (3, 1, 8, 8) and labels.tolist() == [7, 7, 7]


def test_the_default_network_is_built_without_torch_s_compiler(tmp_path):
    """It would be imported for a matrix on the meta device, and take a second of every command."""
    path = write_generator(tmp_path, network="compact")
    code = f"import sys, gansmith; gansmith.load({str(path)!r}); print('sympy' in sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    assert loaded.stdout == "False\n"


def test_the_metadata_of_a_run_is_that_of_its_model(tiny, run_training):
    run = run_training(tiny(images=64))
    model = load_generator(run.directory)
    assert generator_metadata(model.config, model.spec, model.conditioning) == read_metadata(
        run.latest() / "generator.safetensors"
    )


def test_an_unconditional_generator_has_one_class_id(tmp_path):
    config, spec = resolve(arguments={"network": "mlp", "conditioning": "none"}), ImageSpec(8, 1, 0)
    path = tmp_path / "x.safetensors"
    save_tensors(path, build_networks(config, spec)[0].state_dict(), generator_metadata(config, spec, UNCONDITIONAL))
    model = load_generator(path)
    assert len(model.conditioning) == 1 and not model.conditioning.has_labels
    assert sample(model, seed=0, count=2)[1].tolist() == [-1, -1]


def test_a_run_stands_for_its_newest_checkpoint_even_if_it_has_a_generator_file_too(tiny, run_training):
    run = run_training(tiny(images=128, save_every=64))
    older = run.checkpoints()[0] / "generator.safetensors"
    (run.directory / "generator.safetensors").write_bytes(older.read_bytes())
    assert find_generator(run.directory) == run.latest() / "generator.safetensors"
    assert find_generator(run.checkpoints()[0]) == older != run.latest() / "generator.safetensors"


def test_a_folder_of_exports_stands_for_its_generator(generator):
    assert find_generator(generator.parent) == generator == find_generator(generator)


def test_missing_generators_are_named(tmp_path):
    with pytest.raises(NotFoundError, match=r"no file or run .*nothing"):
        load_generator(tmp_path / "nothing")
    with pytest.raises(NotFoundError, match="holds no run"):
        load_generator(tmp_path)
    with pytest.raises(NotFoundError, match="there is no .*nothing"):
        is_generator(tmp_path / "nothing")


def test_generators_are_recognised_by_name_or_content(generator, tmp_path):
    np.savez(tmp_path / "images.npz", images=np.zeros((2, 4, 4), np.uint8))
    (tmp_path / "x.onnx").write_bytes(b"")
    (tmp_path / "G.ONNX").write_bytes(b"")
    (tmp_path / "pictures").mkdir()
    names = ("x.onnx", "G.ONNX", "images.npz", "pictures", generator.name)
    found = {name: is_generator(tmp_path / name) for name in names}
    assert found == {"x.onnx": True, "G.ONNX": True, "images.npz": False, "pictures": False, generator.name: True}
    assert is_generator(tmp_path)


def test_files_of_an_older_version_are_named_as_such(rewrite, generator):
    """An older version had other names for the fields of a config."""
    config = json.loads(read_metadata(generator)["config"])
    config["batch"], config["z_dim"] = config.pop("batch_size"), config.pop("latent_dim")
    words = r"was written by another version of Gansmith \(its config has the field 'batch', .*\); use that version"
    assert_refused(rewrite(config=json.dumps(config)), words)


@pytest.mark.parametrize(
    ("field", "value", "words", "error"),
    [
        ("latent_dim", 7, "embedding.weight does not fit its config", DataError),
        ("latent_dim", -1, "latent_dim is -1", DataError),
        ("seed", None, "seed is None", DataError),
        ("network", "../x", r"network '../x', which the program that trained it defined", NotFoundError),
    ],
)
def test_configs_that_do_not_fit_are_refused(field, value, words, error, rewrite, generator):
    config = json.loads(read_metadata(generator)["config"])
    assert_refused(rewrite(config=json.dumps(config | {field: value})), words, error)


@pytest.mark.parametrize(
    ("metadata", "words"),
    [
        ({"config": "[" * 50_000}, "is damaged or was written by another version"),
        ({"config": "3"}, "is damaged or was written by another version"),
        ({"spec": '{"size": 1e9, "channels": 1, "num_classes": 10}'}, "size is 1000000000.0"),
        ({"spec": '{"size": 1000000000, "channels": 1, "num_classes": 10}'}, "size is 1000000000"),
        ({"spec": '{"width": 8}'}, "is damaged or was written by another version"),
        ({"frequencies": "[0.5, 0.5]"}, "not one for each class id"),
        ({"frequencies": json.dumps([-1] * 20)}, "not one for each class id"),
    ],
)
def test_damaged_metadata_is_refused(metadata, words, rewrite):
    assert_refused(rewrite(**metadata), words)


def test_missing_metadata_is_named(generator, tmp_path):
    metadata = {name: text for name, text in read_metadata(generator).items() if name != "frequencies"}
    save_tensors(tmp_path / "x.safetensors", safetensors.torch.load_file(generator), metadata)
    assert_refused(tmp_path / "x.safetensors", "it has no 'frequencies'")


def test_weights_that_do_not_fit_are_refused(rewrite, generator):
    assert sample(load_generator(rewrite()), seed=0, count=2)[0].shape[0] == 2
    name = "layers.0.weight"
    weight = safetensors.torch.load_file(generator)[name]
    broken = weight.clone()
    broken[0, 0] = float("nan")
    for tensors, words in (
        ({name: broken}, f"{name} is not finite"),
        ({name: weight.double()}, "torch.float64, not torch.float32"),
        ({name: weight[:-1]}, f"{name} does not fit"),
        ({"more": torch.zeros(1)}, "more does not fit"),
        ({name: torch.full_like(weight, 3e38)}, "its images are not finite"),
    ):
        assert_refused(rewrite(tensors), words)


def test_damaged_files_are_refused(generator, tmp_path):
    path = tmp_path / "x.safetensors"
    for data in (generator.read_bytes()[:-9], struct.pack("<Q", 1 << 62) + b"{}", b""):
        path.write_bytes(data)
        assert_refused(path, "not a Gansmith generator")


class Bomb:
    def __reduce__(self):
        return os.system, ("touch exploded",)


@pytest.mark.parametrize(
    ("name", "words"),
    [("x.safetensors", "is not a"), *((f"x.{ending}", "never read") for ending in ("pt", "pth", "PTH", "ckpt", "pkl"))],
)
def test_a_pickle_is_never_loaded(name, words, tmp_path):
    torch.save(Bomb(), tmp_path / name)
    assert is_generator(tmp_path / name)
    assert_refused(tmp_path / name, words)
    assert not (tmp_path / "exploded").exists()


@pytest.mark.parametrize(
    ("name", "form"),
    [
        ("g.tflite", "a model of TensorFlow Lite"),
        ("g.pb", "a graph of TensorFlow"),
        ("g", "a SavedModel of TensorFlow"),
    ],
)
def test_models_of_tensorflow_are_named_with_the_way_to_use_them(name, form, tmp_path, gansmith):
    if name == "g":
        (tmp_path / "g" / "variables").mkdir(parents=True)
    (tmp_path / "g" / "saved_model.pb" if name == "g" else tmp_path / name).write_bytes(b"TFL3")
    assert is_generator(tmp_path / name)
    assert_refused(tmp_path / name, f"is {form}, which is not read; save the generator as .keras")
    for command in ("sample", "evaluate"):
        assert f"is {form}" in gansmith(command, tmp_path / name)[2]
