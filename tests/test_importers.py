"""Keras and ONNX files of other programs give the images their own libraries compute; hostile files are refused."""

import json
import os
import re
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import h5py
import numpy as np
import onnx
import pytest
import torch
from foreign_generators import Conditional
from onnx import TensorProto, helper, numpy_helper
from safetensors.torch import save_file

from gansmith.errors import ConfigError, DataError, GansmithError, NotFoundError
from gansmith.importers import keras_files, keras_worker, onnx_worker, process
from gansmith.importers.keras import find_files, read_keras
from gansmith.importers.worker import first_line
from gansmith.models import load_generator

# Keras, read in this process by some tests, warns of the names that older versions had.
pytestmark = [
    pytest.mark.filterwarnings("ignore::UserWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]


def assert_refused(path: Path, words: str, error: type[GansmithError] = DataError) -> None:
    """Assert that loading a file raises this error, in one line that names the file and matches `words`."""
    with pytest.raises(error, match=words) as caught:
        load_generator(path)
    assert "\n" not in str(caught.value) and path.name in str(caught.value)


@pytest.fixture
def keras(tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras-home"))
    monkeypatch.setenv("KERAS_BACKEND", "torch")
    keras = pytest.importorskip("keras")
    keras.utils.set_random_seed(0)
    return keras


def conditional_generator(keras):
    """Return a conditional generator: a Sequential inside a functional model, labels multiplied with latents."""
    layers = keras.layers
    inner = keras.Sequential(
        [
            layers.Input((8,)),
            layers.Dense(7 * 7 * 4, activation="relu"),
            layers.BatchNormalization(momentum=0.8),
            layers.Reshape((7, 7, 4)),
            layers.UpSampling2D(),
            layers.Conv2D(6, 3, padding="same"),
            layers.BatchNormalization(scale=False),
            layers.LeakyReLU(negative_slope=0.2),
            layers.Dropout(0.4),
            layers.Conv2DTranspose(3, 5, strides=2, padding="same"),
            layers.Conv2D(1, 4, strides=1, padding="same", activation="sigmoid"),
            layers.Reshape((28, 28, 1)),
        ]
    )
    z, label = layers.Input((8,)), layers.Input((1,), dtype="int32")
    table = layers.Flatten()(layers.Embedding(10, 8)(label))
    model = keras.Model([z, label], inner(layers.multiply([z, table])))
    for values in model.weights:
        values.assign(values + 0.3 * keras.random.uniform(values.shape))
    return model


def read_here(path: Path, num_classes: int = 0) -> keras_worker.Generator:
    """Read a file as the worker does, but in this process, where Keras is already imported."""
    architecture, weights = find_files(path)
    (path.parent / "copies").mkdir(exist_ok=True)
    files = [str(file) for file in (weights, architecture) if file is not None]
    return keras_worker.read(str(num_classes), str(path.parent / "copies"), *files)


def rename_groups(group, old, new):
    for name in [name for name in group if isinstance(group[name], h5py.Group)]:
        rename_groups(group[name], old, new)
        if name == old:
            group.move(old, new)


LATENTS = np.random.RandomState(0).normal(size=(10, 8)).astype("float32")


def images_of(keras, model) -> np.ndarray:
    """Return images (N, C, H, W) in [-1, 1] of a model whose final sigmoid gives images in [0, 1]."""
    images = model([LATENTS, np.arange(10)[:, None]], training=False)
    return 2 * np.moveaxis(keras.ops.convert_to_numpy(images), -1, 1) - 1


@pytest.mark.slow
def test_a_whole_model_gives_the_images_that_keras_computes(keras, tmp_path, gansmith):
    model = conditional_generator(keras)
    model.save(tmp_path / "mine.h5")
    G, metadata = read_keras(tmp_path / "mine.h5")
    assert (metadata, G.latent_dim, G.num_classes) == ({}, 8, 10)
    images = G(torch.from_numpy(LATENTS), torch.arange(10))
    np.testing.assert_allclose(images, images_of(keras, model), atol=2e-6)
    with pytest.raises(DataError, match="mine.h5 cannot be sampled from"):
        G(torch.from_numpy(LATENTS), torch.arange(10) + 99)
    worker = G.process
    del G
    assert worker.poll() is not None  # the worker ends with the generator
    code, out, err = gansmith("sample", tmp_path / "mine.h5", "--labels", "7", "--count", "3", "--out", "images.npz")
    assert (code, err) == (0, "") and np.load("images.npz")["labels"].tolist() == [7, 7, 7]
    assert "note: its images are taken to be in [0, 1], because its last layer is a sigmoid" in out


def save_in_all_formats(model, folder: Path) -> list[Path]:
    """Save a model in every format: whole, as an archive, as weights in three layouts with its architecture as JSON."""
    whole, archive, new = folder / "whole.hdf5", folder / "archive.keras", folder / "new.weights.h5"
    model.save(whole)
    model.save(archive)
    model.save_weights(new)
    old, dated = folder / "old_weights.hdf5", folder / "dated.weights.h5"  # of Keras 2, of Keras 2.13 to 2.15
    with h5py.File(whole) as source, h5py.File(old, "w") as target:
        for name in source["model_weights"]:
            source.copy(f"model_weights/{name}", target)
        target.attrs.update(source["model_weights"].attrs)
    dated.write_bytes(new.read_bytes())
    with h5py.File(dated, "r+") as file:
        rename_groups(file, "layers", "_layer_checkpoint_dependencies")
    for name in ("new", "old", "dated"):
        (folder / f"{name}.json").write_text(model.to_json())
    return [whole, archive, new, folder / "new.json", old, folder / "old.json", dated, folder / "dated.json"]


def test_the_endings_of_files_of_keras_may_be_in_upper_case(tmp_path):
    for name in ("G.JSON", "G_weights.H5", "g.h5", "G.KERAS"):
        (tmp_path / name).write_bytes(b"x")
    both = (tmp_path / "G.JSON", tmp_path / "G_weights.H5")
    assert find_files(both[0]) == both and find_files(both[1]) == both
    assert find_files(tmp_path / "G.KERAS") == (None, tmp_path / "G.KERAS")
    assert find_files(tmp_path / "g.h5") == (None, tmp_path / "g.h5")


def test_every_file_format_of_a_model_gives_the_same_images(keras, tmp_path):
    model = conditional_generator(keras)
    for path in save_in_all_formats(model, tmp_path):
        generator = read_here(path)
        assert (generator.latent_dim, generator.num_classes, generator.metadata) == (8, 10, {}), path
        images = generator.generate(LATENTS, np.arange(10))
        np.testing.assert_allclose(images, images_of(keras, model), atol=2e-6, err_msg=path.name)


def test_groups_that_keras_2_writes_are_read_where_there_is_one(keras, tmp_path):
    layers = keras.layers
    model = keras.Sequential(
        [layers.Input((8,)), layers.Reshape((2, 2, 2)), layers.Conv2DTranspose(1, 4, strides=2), layers.ReLU()]
    )
    model.save_weights(tmp_path / "x.weights.h5")
    for groups in (1, 2):
        config = json.loads(model.to_json())
        config["config"]["layers"][2]["config"]["groups"] = groups
        (tmp_path / "x.json").write_text(json.dumps(config))
        if groups == 2:
            with pytest.raises(DataError, match="has 2 groups, which Keras 3 does not compute"):
                read_here(tmp_path / "x.weights.h5")
        else:
            images = read_here(tmp_path / "x.weights.h5").run(LATENTS, np.zeros(10, np.int64))
            np.testing.assert_allclose(images, keras.ops.convert_to_numpy(model(LATENTS)), atol=1e-6)


def test_hdf5_of_images_is_no_generator(keras, tmp_path):
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["images"] = np.zeros((4, 28, 28), np.uint8)
    with pytest.raises(DataError, match=r"no model of Keras; where it holds images.*numpy\.savez"):
        read_here(tmp_path / "x.h5")


def test_a_sequential_with_an_activation_layer_inside_is_read(keras, tmp_path):
    """Its file has no group for the input, its latents have three dimensions, and its images are flat."""
    activation = keras.layers.LeakyReLU(0.2)
    layers = [keras.layers.Input((1, 1, 8)), keras.layers.Flatten(), keras.layers.Dense(16, activation=activation)]
    model = keras.Sequential(layers)
    model.save(tmp_path / "mine.h5")
    generator = read_here(tmp_path / "mine.h5")
    assert (generator.latent_dim, generator.num_classes, generator.form.low) == (8, 0, -1)
    images = generator.generate(LATENTS, np.zeros(10, np.int64))
    expected = keras.ops.convert_to_numpy(model(LATENTS.reshape(-1, 1, 1, 8)))
    np.testing.assert_allclose(images, expected.reshape(-1, 1, 4, 4), atol=1e-6)


def test_the_number_of_classes_is_unknown_without_an_embedding(keras, tmp_path):
    z, label = keras.layers.Input((8,)), keras.layers.Input((1,))
    keras.Model([label, z], keras.layers.Dense(16)(keras.layers.concatenate([z, label]))).save(tmp_path / "mine.keras")
    generator = read_here(tmp_path / "mine.keras")
    assert (generator.num_classes, generator.signature.labels) == (-1, 0)
    assert read_here(tmp_path / "mine.keras", 6).num_classes == 6


def test_one_hot_labels_of_keras_are_known_and_fed(keras, tmp_path):
    layers = keras.layers
    z, label = layers.Input((8,), name="noise"), layers.Input((3,), name="one_hot_label")
    outputs = layers.Reshape((4, 4, 1))(layers.Dense(16, activation="tanh")(layers.concatenate([z, label])))
    for inputs in ([z, label], [label, z]):
        model = keras.Model(inputs, outputs)
        model.save(tmp_path / "mine.keras")
        generator = read_here(tmp_path / "mine.keras")
        assert (generator.latent_dim, generator.num_classes, len(generator.notices)) == (8, 3, 1)
        y = np.arange(10) % 3
        given = {"noise": LATENTS, "one_hot_label": np.eye(3, dtype="f4")[y]}
        expected = keras.ops.convert_to_numpy(model([given[entry.name] for entry in inputs]))
        np.testing.assert_allclose(generator.generate(LATENTS, y), expected.transpose(0, 3, 1, 2), atol=1e-6)


@pytest.mark.parametrize(("batch", "count"), [(1, 5), (4, 6)])
def test_a_fixed_batch_of_keras_gives_any_number_of_images(keras, tmp_path, batch, count):
    layers = [keras.layers.Input(batch_shape=(batch, 8)), keras.layers.Dense(16), keras.layers.Reshape((4, 4))]
    model = keras.Sequential(layers)
    model.save(tmp_path / "mine.keras")
    generator = read_here(tmp_path / "mine.keras")
    expected = np.concatenate([keras.ops.convert_to_numpy(model(z)) for z in LATENTS[: batch * 2].reshape(2, batch, 8)])
    found = generator.generate(LATENTS[:count], np.zeros(count, np.int64))
    assert found.shape == (count, 1, 4, 4)
    common = min(count, 2 * batch)
    np.testing.assert_allclose(found[:common, 0], expected[:common], atol=1e-6)


def test_the_range_of_keras_images_after_other_layers_is_that_of_images_drawn(keras, tmp_path):
    layers = keras.layers
    squashed = [layers.Input((8,)), layers.Dense(16, activation="tanh")]
    for scale, offset, words in ((0.5, 0.5, "in [0, 1]"), (127.5, 127.5, "in 0 to 255"), (1.0, 0.0, "in [-1, 1]")):
        model = keras.Sequential([*squashed, layers.Rescaling(scale, offset), layers.Reshape((4, 4, 1))])
        model.save(tmp_path / "mine.keras")
        generator = read_here(tmp_path / "mine.keras")
        assert words in generator.notices[0]
        expected = (keras.ops.convert_to_numpy(model(LATENTS)) - offset) / scale
        found = generator.generate(LATENTS, np.zeros(10, np.int64))
        np.testing.assert_allclose(found, expected.transpose(0, 3, 1, 2), atol=1e-6)


def test_a_missing_keras_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "keras", None)
    assert_refused(write_pair(tmp_path, [dense(), RESHAPE], WEIGHTS), r"pip install 'gansmith\[keras\]'", GansmithError)


def write_pair(folder: Path, layers: list[dict], weights: dict[str, dict[str, np.ndarray]]) -> Path:
    """Write a Keras 2 Sequential without Keras: x.json and x.h5."""
    config = {"name": "sequential", "layers": layers}
    (folder / "x.json").write_text(json.dumps({"class_name": "Sequential", "config": config}))
    with h5py.File(folder / "x.h5", "w") as file:
        file.attrs["layer_names"] = [name.encode() for name in weights]
        for layer, values in weights.items():
            group = file.create_group(layer)
            group.attrs["weight_names"] = np.array([f"{layer}/{key}:0".encode() for key in values], dtype="S")
            for key, value in values.items():
                group[f"{layer}/{key}:0"] = value
    return folder / "x.json"


def dense(**changes):
    config = {"name": "dense", "units": 16, "activation": "tanh", "use_bias": True, "batch_input_shape": [None, 3]}
    return {"class_name": "Dense", "config": config | changes}


RESHAPE = {"class_name": "Reshape", "config": {"name": "reshape", "target_shape": [4, 4, 1]}}
WEIGHTS = {"dense": {"kernel": np.ones((3, 16), "f4"), "bias": np.arange(16, dtype="f4") / 16}, "reshape": {}}


@pytest.mark.slow
def test_a_dense_layer_and_a_reshape_give_their_formula(tmp_path):
    """Without an input layer, as Keras 2 saves a Sequential; read by the worker process."""
    model = load_generator(write_pair(tmp_path, [dense(), RESHAPE], WEIGHTS))
    images = model.network(torch.tensor([[0.5, 0.25, -0.25]]), torch.zeros(1, dtype=torch.int64))
    expected = np.tanh(0.5 + np.arange(16) / 16).reshape(1, 1, 4, 4)
    np.testing.assert_allclose(images.numpy(), expected, atol=1e-6)
    with pytest.raises(ConfigError, match=r"takes no labels.*--latents.*one-hot"):
        model.conditioning.draw(seed=0, count=1, labels=[7])
    model.network.process.stdin.close()
    # The worker ends when its input does, as when this process is killed.
    assert model.network.process.wait(timeout=30) == 0


def test_a_model_within_a_model_of_keras_2_is_read(tmp_path):
    """Keras 2 counts the building of the inner model as its first call, so the output is that of its second call."""
    write_pair(tmp_path, [dense(), RESHAPE], WEIGHTS)
    config = {"name": "z", "batch_input_shape": [None, 3], "dtype": "float32"}
    rows = [{"class_name": "InputLayer", "config": config, "name": "z", "inbound_nodes": []}]
    inner = {"class_name": "Sequential", "config": [dense(), RESHAPE]}  # a list, as before Keras 2.2.3
    rows.append({**inner, "name": "inner", "inbound_nodes": [[["z", 0, 0, {}]]]})
    ends = {"input_layers": [["z", 0, 0]], "output_layers": [["inner", 1, 0]]}
    whole = {"class_name": "Model", "config": {"name": "g", "layers": rows, **ends}}
    (tmp_path / "x.json").write_text(json.dumps(whole))
    images = read_here(tmp_path / "x.json").generate(np.float32([[0.5, 0.25, -0.25]]), np.zeros(1, np.int64))
    np.testing.assert_allclose(images.flatten(), np.tanh(0.5 + np.arange(16) / 16), atol=1e-6)


UPSAMPLING = {"class_name": "UpSampling2D", "config": {"name": "large", "size": [10**6, 10**6]}}


@pytest.mark.parametrize(
    ("layers", "words"),
    [
        ([dense(), {"class_name": "Lambda", "config": {"name": "x", "function": ["4wEAAAA="]}}], "a Lambda layer"),
        ([dense(), {"class_name": "Mine", "config": {}, "module": "mine"}], "it uses 'Mine' of mine, which is not"),
        ([dense(), {"class_name": "TFSMLayer", "config": {}}], "it uses 'TFSMLayer', which is not"),
        ([dense(activation={"class_name": "function", "config": "f", "module": "os"})], "it uses 'f' of os"),
        ([dense(activation={"class_name": "function", "config": "get_file", "module": "keras.utils"})], "'get_file'"),
        ([dense(activation={"class_name": "__lambda__", "config": {"value": "4wEAAAA="}})], "it uses '__lambda__'"),
        ([dense(activation={"class_name": "function", "config": "os.system"}), RESHAPE], "os.system"),
        ([dense(activation="os.system"), RESHAPE], "os.system"),
        ([dense(units=17), RESHAPE], r"total size .* input_shape=\(17,\)"),
        ([dense(units=10**12)], "its weights are 4,000,000,000,000 numbers, more than 100,000,000"),
        ([dense(batch_input_shape=[None, 4]), RESHAPE], "Shape mismatch in layer"),
        ([dense(batch_input_shape=[None, None]), RESHAPE], "must be fully-defined"),
        ([dense(), RESHAPE, UPSAMPLING], "has 16,000,000,000,000 numbers for one image"),
        ([], "without layers"),
    ],
)
def test_hostile_architectures_are_refused(keras, layers, words, tmp_path):
    path = write_pair(tmp_path, layers, WEIGHTS)
    with pytest.raises((TypeError, ValueError)) as caught:
        read_here(path)
    assert re.search(words, first_line(caught.value))


def in_file(path: Path, name: str, put) -> Path:
    write_pair(path.parent, [dense(), RESHAPE], WEIGHTS)
    with h5py.File(path.parent / "x.h5", "r+") as file:
        del file[name]
        put(file)
    return path


@pytest.mark.slow
def test_hostile_weights_are_refused(tmp_path):
    path = write_pair(tmp_path, [dense(), RESHAPE], WEIGHTS)
    secret = tmp_path / "secret.bin"
    secret.write_bytes(bytes(4 * 48))
    name = "dense/dense/kernel:0"

    def external(file):
        file.create_dataset(name, (3, 16), "f4", external=[(str(secret), 0, 192)])

    def virtual(file):
        layout = h5py.VirtualLayout((3, 16), "f4")
        layout[:] = h5py.VirtualSource(str(tmp_path / "other.h5"), "x", shape=(3, 16))
        file.create_virtual_dataset(name, layout)

    for put, words in (
        (lambda file: file.__setitem__(name, h5py.ExternalLink("other.h5", "/x")), "a link"),
        (lambda file: file.__setitem__(name, h5py.SoftLink("/dense/dense/bias:0")), "a link"),
        (external, "another file"),
        (virtual, "another file"),
        (lambda file: file.create_dataset(name, (3 * 10**9, 16), "f4", chunks=(64, 16)), "declares"),
        (lambda file: file.create_dataset(name, (3, 16), "f4", chunks=(3, 16)), "contains none"),
    ):
        assert_refused(in_file(path, name, put), words)
    (tmp_path / "x.h5").write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(50))
    assert_refused(path, "not a Keras generator")
    (tmp_path / "x.h5").unlink()
    with pytest.raises(NotFoundError, match="in the folder of x.json"):
        load_generator(path)


@pytest.mark.parametrize(
    ("kernel", "words"),
    [
        (np.full((3, 16), np.nan, "f4"), "not finite"),
        (np.full((3, 16), np.inf, "f4"), "not finite"),
        (np.ones((3, 15), "f4"), "shape"),
        (np.full((3, 16), b"x"), "could not convert|type"),
    ],
)
def test_weights_of_another_shape_or_type_or_not_finite_are_refused(keras, kernel, words, tmp_path):
    name = "dense/dense/kernel:0"
    path = in_file(write_pair(tmp_path, [dense(), RESHAPE], WEIGHTS), name, lambda file: file.__setitem__(name, kernel))
    with pytest.raises((ValueError, TypeError), match=words):
        read_here(path)


def test_a_missing_weight_is_refused(keras, tmp_path):
    model = conditional_generator(keras)
    *_, path = save_in_all_formats(model, tmp_path)
    with h5py.File(tmp_path / "dated.weights.h5", "r+") as file:
        del file["_layer_checkpoint_dependencies/embedding/vars/0"]
    with pytest.raises(Exception, match="embedding"):
        read_here(path)


def test_the_number_of_weights_is_limited_and_metadata_is_one_text(keras, tmp_path, monkeypatch):
    path = write_pair(tmp_path, [dense(), RESHAPE], WEIGHTS)
    with h5py.File(tmp_path / "x.h5", "r+") as file:
        file["gansmith"] = np.full(3, b"{}")
    assert_refused(path, "metadata is not a text")
    with h5py.File(tmp_path / "x.h5", "r+") as file:
        del file["gansmith"]
    monkeypatch.setattr(keras_files, "MAX_WEIGHTS", 63)  # 48 and 16 are 64
    with pytest.raises(ValueError, match="64 numbers, more than 63"):
        read_here(path)


@pytest.mark.slow
def test_reading_is_stopped_after_the_time_limit(tmp_path, monkeypatch):
    path = write_pair(tmp_path, [dense(), RESHAPE], WEIGHTS)
    monkeypatch.setattr(process, "TIME_LIMIT_S", 0.5)  # less than it takes to import Keras
    assert_refused(path, "takes more than 0.5 seconds")
    pipe = tmp_path / "pipe.json"
    os.mkfifo(pipe)  # reading it waits for a writer that never comes
    worker = process.start_worker("keras_worker", tmp_path, "0", str(tmp_path / "x.h5"), str(pipe))
    with pytest.raises(ValueError, match="takes more than 0.5 seconds"):
        process.read_facts(worker)
    process.stop_worker(worker)


def test_the_time_of_a_core_is_limited_besides_that_by_the_clock():
    code = "import resource; from gansmith.importers import worker; worker.limit_time(1000);"
    done = subprocess.run(
        [sys.executable, "-c", f"{code} print(resource.getrlimit(resource.RLIMIT_CPU)[0])"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert 1000 <= int(done.stdout) <= 1020
    with subprocess.Popen([sys.executable, "-c", f"{code} import time; time.sleep(60)"]) as ended:
        ended.send_signal(signal.SIGXCPU)
        reason = process._reason_of_end("reading it", ended, time.monotonic())
    assert reason == "reading it takes more than 60 seconds"


def test_memory_is_limited(tmp_path):
    code = "from gansmith.importers import worker; worker.limit_memory(); bytearray(5 << 30)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "MemoryError" in done.stderr


@pytest.mark.slow
def test_hostile_texts_are_refused(tmp_path):
    path = write_pair(tmp_path, [dense(), RESHAPE], WEIGHTS)
    for text, words in (
        ("[" * 100_000, "not a Keras generator"),
        ('{"class_name": "Model"}', "not a Keras generator"),
        (" " * (5 << 20), "longer than"),
        ("\x00", "not a Keras generator"),
    ):
        path.write_text(text)
        assert_refused(path, words)


HOSTILE = {  # members that replace those of an archive with a Lambda layer, and words of the refusal
    "a program": ({}, "Lambda layer"),
    "a path upwards": ({"../../escaped.txt": b"x"}, "escaped.txt"),
    "a file more": ({"assets/vocabulary.txt": b"x"}, "vocabulary.txt"),
    "a file less": ({"model.weights.h5": None}, "not just config.json"),
    "a bomb": ({"config.json": bytes(5 << 20)}, "unpacks to more than"),
    "no weights": ({"model.weights.h5": b"x"}, "file signature"),
}


@pytest.mark.parametrize(
    "kind", [pytest.param(kind, marks=pytest.mark.slow if "file" in kind else ()) for kind in HOSTILE]
)
def test_hostile_archives_are_refused(kind, tmp_path):
    path, (changes, words) = tmp_path / "x.keras", HOSTILE[kind]
    write_pair(tmp_path, [dense(), {"class_name": "Lambda", "config": {}}], WEIGHTS)
    parts = {"config.json": (tmp_path / "x.json").read_bytes(), "model.weights.h5": (tmp_path / "x.h5").read_bytes()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in (parts | changes).items():
            if data is not None:
                archive.writestr(name, data)
    assert_refused(path, words)
    assert not list(tmp_path.parent.glob("**/escaped.txt"))


@pytest.mark.slow
def test_a_torn_archive_is_refused(tmp_path):
    path = tmp_path / "x.keras"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("config.json", b"{}")
    path.write_bytes(path.read_bytes()[:-30])
    assert_refused(path, "not a zip file")


def functional(*layers: dict) -> str:
    """A functional model from four latents through layers to its last one's output."""
    config = {"name": "z", "batch_input_shape": [None, 4]}
    rows = [{"class_name": "InputLayer", "config": config, "inbound_nodes": []}, *layers]
    for row in rows:
        row["name"] = row["config"]["name"]
    ends = {"input_layers": [["z", 0, 0]], "output_layers": [[rows[-1]["name"], 0, 0]]}
    return json.dumps({"class_name": "Model", "config": {"name": "g", "layers": rows, **ends}})


def test_images_that_depend_on_others_of_the_batch_are_refused(keras, tmp_path):
    write_pair(tmp_path, [], {name: {} for name in ("z", "twice", "images")})
    nodes = [[["z", 0, 0, {}], ["z", 0, 0, {}]]]
    twice = {"class_name": "Concatenate", "config": {"name": "twice", "axis": 0}, "inbound_nodes": nodes}
    config = {"name": "images", "target_shape": [2, 2, 1]}
    images = {"class_name": "Reshape", "config": config, "inbound_nodes": [[["twice", 0, 0, {}]]]}
    (tmp_path / "x.json").write_text(functional(twice, images))
    with pytest.raises(ValueError, match="it makes 128 images of 64 latents"):
        read_here(tmp_path / "x.json")
    dropout = {"class_name": "Dropout", "config": {"name": "twice", "rate": 0.5}}
    (tmp_path / "x.json").write_text(functional({**dropout, "inbound_nodes": [[["z", 0, 0, {"training": True}]]]}))
    assert_refused(tmp_path / "x.json", "in training mode")


def onnx_file(path: Path, nodes, initializers=(), *, inputs=None, outputs=(("images", TensorProto.FLOAT),)) -> Path:
    """Write a graph of inputs (name, type, shape), by default z (batch, 4), to outputs (name, type)."""
    inputs = inputs or [("z", TensorProto.FLOAT, ["batch", 4])]
    rows = [helper.make_tensor_value_info(*entry) for entry in inputs]
    shown = [helper.make_tensor_value_info(name, kind, None) for name, kind in outputs]
    graph = helper.make_graph(nodes, "g", rows, shown, list(initializers))
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)
    return path


def read_graph(path: Path, num_classes: int = 0) -> onnx_worker.OnnxGenerator:
    """Read a file as the worker does, but in this process."""
    return onnx_worker.read(str(path), "1", str(num_classes))


def no_ids(z) -> np.ndarray:
    return np.zeros(len(z), np.int64)


def reshape(source="z", to=(-1, 1, 2, 2)):
    shape = numpy_helper.from_array(np.array(to, dtype=np.int64), "shape")
    return helper.make_node("Reshape", [source, "shape"], ["images"]), shape


def constant(name: str, values) -> onnx.TensorProto:
    return numpy_helper.from_array(np.array(values), name)


Z = ("z", TensorProto.FLOAT, ["batch", 4])


def test_onnx_of_other_programs_is_read_in_a_process_of_its_own(tmp_path, gansmith):
    node, shape = reshape()
    model = load_generator(onnx_file(tmp_path / "x.onnx", [node], [shape]))
    assert (model.config.latent_dim, model.spec.size, model.conditioning.has_labels) == (4, 2, False)
    assert torch.equal(model.network(torch.eye(4), torch.zeros(4)).flatten(1), torch.eye(4))
    assert model.sample(70, seed=3).images.shape == (70, 2, 2, 1)
    worker = model.network.process
    del model
    assert worker.poll() is not None
    (tmp_path / "x.onnx").rename(tmp_path / "X.ONNX")
    code, out, err = gansmith("sample", tmp_path / "X.ONNX", "--out", "x.NPZ")
    assert (code, err) == (0, "") and np.load("x.NPZ")["images"].shape == (25, 2, 2, 1)
    assert "note: its images are taken to be in [-1, 1], because values of 64 images drawn go down to -" in out
    code, _, err = gansmith("sample", tmp_path / "X.ONNX", "--num-classes", 3, "--out", "x.npz")
    assert code == 2 and "num_classes is 3, and" in err and "takes no labels; omit it" in err


def test_an_interruption_does_not_end_an_idle_generator_nor_mix_its_replies(tmp_path):
    node, shape = reshape()
    G = load_generator(onnx_file(tmp_path / "x.onnx", [node], [shape])).network
    os.kill(G.process.pid, signal.SIGINT)  # as a notebook sends it to all its processes
    assert torch.equal(G(torch.eye(4), torch.zeros(4)).flatten(1), torch.eye(4))
    replies, G.process.stdout = G.process.stdout, Interrupted()
    with pytest.raises(KeyboardInterrupt):
        G(torch.zeros(3, 4), torch.zeros(3))
    G.process.stdout = replies
    with pytest.raises(DataError, match="interrupted.*load it again"):
        G(torch.eye(4), torch.zeros(4))
    replies.close()


class Interrupted:
    """A pipe whose reader is interrupted."""

    def read(self, size):
        raise KeyboardInterrupt

    def close(self):
        pass


def test_hostile_onnx_is_refused(tmp_path):
    weight = numpy_helper.from_array(np.ones((4, 4), dtype=np.float32), "w")
    product = helper.make_node("MatMul", ["z", "w"], ["y"])
    node, shape = reshape("y")
    nan, half = (numpy_helper.from_array(np.full((4, 4), np.nan, dtype=kind), "w") for kind in ("f4", "f2"))
    big = constant("scales", np.array([1, 1, 10**5, 10**5], dtype=np.float32))
    small = helper.make_node("Reshape", ["z", "shape"], ["y"])
    enlarge = helper.make_node("Resize", ["y", "", "scales"], ["images"], mode="nearest")
    times, first, second = (constant(f"k{k}", [k]) for k in (10**8, 0, 1))
    zeros = constant("zeros", np.zeros(1, dtype=np.float32))
    by_the_batch = [  # its size follows from how many images are asked for, which the file leaves open
        helper.make_node("Shape", ["z"], ["sides"]),
        helper.make_node("Slice", ["sides", "k0", "k1"], ["batch_size"]),
        helper.make_node("Mul", ["batch_size", "k100000000"], ["many"]),
        helper.make_node("Expand", ["zeros", "many"], ["large"]),
        helper.make_node("ReduceSum", ["large"], ["sum"], keepdims=0),
        helper.make_node("Add", ["z", "sum"], ["y"]),
        node,
    ]
    foreign = helper.make_node("Launch", ["z"], ["y"], domain="com.example")
    inner = helper.make_graph([], "b", [], [])
    loop = helper.make_node("Loop", ["z"], ["y"], body=inner)
    hidden = helper.make_node("Relu", ["z"], ["y"], body=helper.make_graph([product], "b", [], []))
    noise = helper.make_node("RandomNormalLike", ["z"], ["y"])
    for nodes, initializers, words in (
        ([product, node], [nan, shape], "not finite"),
        ([product, node], [half, shape], "not finite"),
        ([foreign, node], [shape], "com.example.Launch"),
        ([loop, node], [shape], "ai.onnx.Loop"),
        ([hidden, node], [shape], "a graph of its own"),
        ([noise, node], [shape], "draws numbers of its own"),
        ([small, enlarge], [shape, big], "numbers for one image"),
        (by_the_batch, [shape, times, first, second, zeros], "numbers for one image"),
        ([product, reshape("y", (-1, 1, 1, 2))[0]], [weight, reshape(to=(-1, 1, 1, 2))[1]], "64 latents has shape"),
    ):
        with pytest.raises(Exception, match=words):
            read_graph(onnx_file(tmp_path / "x.onnx", nodes, initializers))
    (tmp_path / "x.onnx").write_bytes(b"\x80\x04garbage" * 100)
    assert_refused(tmp_path / "x.onnx", "not an ONNX generator")


def test_onnx_that_takes_too_much_memory_or_time_is_stopped(tmp_path, monkeypatch):
    """Its size follows from the latents, so no shape inference finds it."""
    node, shape = reshape("y")
    nodes = [
        helper.make_node("ReduceMax", ["z"], ["most"], keepdims=0),
        helper.make_node("Abs", ["most"], ["size"]),
        helper.make_node("Mul", ["size", "many"], ["numbers"]),
        helper.make_node("Cast", ["numbers"], ["whole"], to=TensorProto.INT64),
        helper.make_node("Reshape", ["whole", "one"], ["sides"]),
        helper.make_node("Expand", ["zeros", "sides"], ["large"]),
        helper.make_node("ReduceSum", ["large"], ["sum"], keepdims=0),
        helper.make_node("Add", ["z", "sum"], ["y"]),
        node,
    ]
    weights = [shape, constant("many", np.float32(1e10)), constant("one", [1]), constant("zeros", np.zeros(1, "f4"))]
    assert_refused(onnx_file(tmp_path / "x.onnx", nodes, weights), "memory|Alloc")
    # Eight products of 128 billion operations each: seconds of any core.
    products = [helper.make_node("MatMul", [f"m{k}", f"m{k}"], [f"m{k + 1}"]) for k in range(8)]
    nodes = [
        nodes[0],
        helper.make_node("Expand", ["most", "sides"], ["m0"]),
        *products,
        helper.make_node("ReduceSum", ["m8"], ["sum"], keepdims=0),
        *nodes[-2:],
    ]
    monkeypatch.setattr(process, "TIME_LIMIT_S", 0.5)
    path = onnx_file(tmp_path / "x.onnx", nodes, [shape, constant("sides", [4000, 4000])])
    assert_refused(path, "takes more than 0.5 seconds")


@pytest.mark.parametrize("sizes", [[], [1]])
def test_a_switch_for_training_is_given_false(tmp_path, sizes):
    node, shape = reshape("chosen")
    nodes = [
        helper.make_node("Neg", ["z"], ["minus"]),
        helper.make_node("Where", ["training", "minus", "z"], ["chosen"]),
    ]
    inputs = [Z, ("training", TensorProto.BOOL, sizes)]
    generator = read_graph(onnx_file(tmp_path / "x.onnx", [*nodes, node], [shape], inputs=inputs))
    z = np.eye(4, dtype=np.float32)
    np.testing.assert_array_equal(generator.generate(z, no_ids(z)).reshape(4, 4), z)
    assert generator.num_classes == 0 and "its input training is given False" in generator.notices


def test_images_that_depend_on_their_batch_are_refused(tmp_path):
    node, shape = reshape("centred")
    mean = helper.make_node("ReduceMean", ["z", "axis"], ["mean"], keepdims=1)
    weights = [shape, constant("axis", np.array([0], np.int64))]
    path = onnx_file(tmp_path / "x.onnx", [mean, helper.make_node("Sub", ["z", "mean"], ["centred"]), node], weights)
    with pytest.raises(DataError, match="depend on the others of their batch"):
        read_graph(path)


def test_functions_of_plain_operators_are_written_out(tmp_path):
    node, shape = reshape("twice")
    graph = helper.make_graph(
        [helper.make_node("Twice", ["z"], ["twice"], domain="own"), node],
        "g",
        [helper.make_tensor_value_info(*Z)],
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, None)],
        [shape],
    )
    sets = [helper.make_opsetid("", 20), helper.make_opsetid("own", 1)]
    body = [helper.make_node("Add", ["x", "x"], ["y"])]
    own = helper.make_function("own", "Twice", ["x"], ["y"], body, sets[:1])
    onnx.save(helper.make_model(graph, opset_imports=sets, functions=[own], ir_version=11), tmp_path / "x.onnx")
    z = np.eye(4, dtype=np.float32)
    np.testing.assert_array_equal(read_graph(tmp_path / "x.onnx").run(z, no_ids(z)).reshape(4, 4), 2 * z)


def weights_in(name: str) -> onnx.TensorProto:
    """Return the weight w (4, 4), ones, whose values are in another file."""
    weight = numpy_helper.from_array(np.ones((4, 4), dtype=np.float32), "w")
    weight.ClearField("raw_data")
    weight.data_location = TensorProto.EXTERNAL
    weight.external_data.add(key="location", value=name)
    return weight


def test_onnx_weights_in_a_file_beside_it_are_read_and_in_other_places_refused(tmp_path, monkeypatch):
    folder = tmp_path / "folder"
    folder.mkdir()
    node, shape = reshape("product")
    product = helper.make_node("MatMul", ["z", "w"], ["product"])
    values = np.arange(16, dtype=np.float32).reshape(4, 4) - 8
    for place in (folder / "w.data", tmp_path / "w.data"):
        place.write_bytes(values.tobytes())
    (folder / "link.data").symlink_to(tmp_path / "w.data")
    path = onnx_file(folder / "x.onnx", [product, node], [weights_in("w.data"), shape])
    z = np.eye(4, dtype=np.float32)
    np.testing.assert_array_equal(read_graph(path).generate(z, no_ids(z)).reshape(4, 4), values)
    for name in ("../w.data", str(tmp_path / "w.data"), "link.data", "nothing.data", "", ".."):
        onnx_file(path, [product, node], [weights_in(name), shape])
        with pytest.raises(DataError, match="are a link" if name == "link.data" else "no file in its folder"):
            read_graph(path)
    onnx_file(path, [product, node], [weights_in("w.data"), shape])
    (folder / "w.data").write_bytes(values.tobytes()[:-4])  # cut off
    assert_refused(path, "x.onnx")
    (folder / "w.data").write_bytes(np.full((4, 4), np.nan, dtype=np.float32).tobytes())
    with pytest.raises(DataError, match="not finite"):
        read_graph(path)
    (folder / "w.data").write_bytes(bytes(10_000))
    monkeypatch.setattr(onnx_worker, "MAX_BYTES", 5_000)
    with pytest.raises(DataError, match="larger than 5,000 bytes"):
        read_graph(path)


def test_an_onnx_that_says_any_batch_and_computes_one_gives_any_number_of_images(tmp_path):
    node, shape = reshape(to=(1, 1, 2, 2))  # of a batch that the input leaves open
    z = np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32)
    generator = read_graph(onnx_file(tmp_path / "x.onnx", [node], [shape]))
    np.testing.assert_allclose(generator.run(z, no_ids(z)), z.reshape(5, 1, 2, 2))
    node, shape = reshape(to=(1, 1, 3, 3))  # which fits no batch: the first reason is given
    with pytest.raises(Exception, match="(?i)reshape"):
        read_graph(onnx_file(tmp_path / "y.onnx", [node], [shape]))


@pytest.mark.parametrize("batch", [1, 3, 64])
def test_an_onnx_of_a_fixed_batch_gives_any_number_of_images(tmp_path, batch):
    node, shape = reshape(to=(batch, 1, 2, 2))
    z = ("z", TensorProto.FLOAT, [batch, 4])
    generator = read_graph(onnx_file(tmp_path / "x.onnx", [node], [shape], inputs=[z]))
    for count in (1, 3, 7, 130):
        latents = np.random.rand(count, 4).astype(np.float32)
        np.testing.assert_array_equal(generator.generate(latents, no_ids(latents)).reshape(count, 4), latents)


@pytest.mark.parametrize(
    ("to", "channels"),
    [((-1, 2, 2, 1), 1), ((-1, 2, 2), 1), ((-1, 4), 1), ((-1, 1, 1, 4), 1), ((-1, 4, 1, 1), 1), ((-1, 1, 2, 2, 1), 1),
     ((-1, 2, 2, 3), 3), ((-1, 3, 2, 2), 3)],
)  # fmt: skip
def test_onnx_images_of_other_layouts_become_channels_first(tmp_path, to, channels):
    node, shape = reshape(to=to)
    z = ("z", TensorProto.FLOAT, ["batch", 4 * channels])
    generator = read_graph(onnx_file(tmp_path / "x.onnx", [node], [shape], inputs=[z]))
    latents = np.random.rand(5, 4 * channels).astype(np.float32)
    if to == (-1, 2, 2, 3):
        expected = latents.reshape(5, 2, 2, 3).transpose(0, 3, 1, 2)
    else:
        expected = latents.reshape(5, -1, 2, 2)
    np.testing.assert_array_equal(generator.generate(latents, no_ids(latents)), expected)


@pytest.mark.parametrize("is_last", [True, False])
def test_flat_images_in_color_are_taken_in_the_order_in_which_they_are_smoother(tmp_path, is_last):
    """A latent for each channel's brightness, and an image that is constant but for a slope."""
    basis = np.zeros((4, 3, 6, 6), dtype=np.float32)
    basis[[0, 1, 2], [0, 1, 2]] = 1
    basis[3] = np.linspace(-0.2, 0.2, 6)
    flat = (basis.transpose(0, 2, 3, 1) if is_last else basis).reshape(4, 108)
    product = helper.make_node("MatMul", ["z", "w"], ["images"])
    generator = read_graph(onnx_file(tmp_path / "x.onnx", [product], [constant("w", flat)]))
    z = np.eye(4, dtype=np.float32)
    np.testing.assert_array_equal(generator.generate(z, no_ids(z)), basis)
    assert ("pixel by pixel" if is_last else "channel by channel") in generator.notices[0]


@pytest.mark.parametrize("sizes", [[4, 1, 1], [1, 1, 4], [1, 4], [4]])
def test_onnx_latents_may_be_maps_of_one_pixel(tmp_path, sizes):
    node, shape = reshape()
    for kind in (TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16):
        path = onnx_file(
            tmp_path / "x.onnx", [node], [shape], inputs=[("z", kind, ["batch", *sizes])], outputs=[("images", kind)]
        )
        generator = read_graph(path)
        z = np.eye(4, dtype=np.float32)
        found = generator.generate(z, no_ids(z))
        assert generator.latent_dim == 4 and found.dtype == np.float32
        np.testing.assert_array_equal(found.reshape(4, 4), z)


def test_onnx_inputs_that_are_no_latents_are_refused(tmp_path):
    node, shape = reshape()
    y = ("y", TensorProto.INT64, ["batch"])
    for inputs, words in (
        ([("z", TensorProto.FLOAT, ["batch", 1, 2, 2])], "its inputs are z .float, .1, 2, 2..; latents"),
        ([("z", TensorProto.FLOAT, ["batch", "length"])], "the length of its latents z is not fixed"),
        ([("z", TensorProto.INT64, ["batch", 4]), y], "none takes latents"),
        ([Z, y, ("noise", TensorProto.FLOAT, ["batch", 4])], "and perhaps one label, can be given"),
        ([Z, ("y", TensorProto.STRING, ["batch"])], "neither latents nor labels"),
    ):
        outputs = [("images", inputs[0][1])]
        with pytest.raises(DataError, match=words):
            read_graph(onnx_file(tmp_path / "x.onnx", [node], [shape], inputs=inputs, outputs=outputs))


TABLE = np.arange(12, dtype=np.float32).reshape(3, 4) / 20
LABEL_TYPES = {
    "int64": TensorProto.INT64, "int32": TensorProto.INT32, "uint8": TensorProto.UINT8, "int16": TensorProto.INT16,
    "uint64": TensorProto.UINT64, "float": TensorProto.FLOAT, "double": TensorProto.DOUBLE,
}  # fmt: skip


@pytest.mark.parametrize("sizes", [[], [1], [1, 1, 1]])
@pytest.mark.parametrize("kind", LABEL_TYPES)
def test_onnx_class_ids_of_any_type_in_any_order_are_fed_and_counted(tmp_path, kind, sizes):
    node, shape = reshape("sum")
    nodes = [
        helper.make_node("Cast", ["a"], ["whole"], to=TensorProto.INT64),
        helper.make_node("Reshape", ["whole", "minus"], ["ids"]),
        helper.make_node("Gather", ["table", "ids"], ["row"]),
        helper.make_node("Add", ["b", "row"], ["sum"]),
        node,
    ]
    inputs = [("a", LABEL_TYPES[kind], ["n", *sizes]), ("b", TensorProto.FLOAT, ["n", 4])]
    for order in (inputs, inputs[::-1]):
        weights = [constant("table", TABLE), shape, constant("minus", [-1])]
        generator = read_graph(onnx_file(tmp_path / "x.onnx", nodes, weights, inputs=order))
        assert (generator.num_classes, generator.latent_dim) == (3, 4)
        found = generator.generate(np.zeros((3, 4), np.float32), np.array([2, 0, 1]))
        np.testing.assert_allclose(found.reshape(3, 4), TABLE[[2, 0, 1]])


def one_hot_file(path, inputs, latents="latents"):
    """Write a generator that adds a row of TABLE, chosen by one-hot labels, to its latents; flattens both first."""
    node, shape = reshape("sum")
    nodes = [
        helper.make_node("Cast", [name], [f"{name} as float"], to=TensorProto.FLOAT) for name, _, _ in inputs
    ] + [
        helper.make_node("Flatten", [f"{name} as float"], [f"{name} flat"]) for name, _, _ in inputs
    ]  # fmt: skip
    z, y = sorted((entry[0] for entry in inputs), key=lambda name: name != latents)
    nodes += [
        helper.make_node("MatMul", [f"{y} flat", "table"], ["row"]),
        helper.make_node("Add", [f"{z} flat", "row"], ["sum"]),
        node,
    ]
    return onnx_file(path, nodes, [constant("table", TABLE), shape], inputs=inputs)


@pytest.mark.parametrize("sizes", [[], [1, 1]])
@pytest.mark.parametrize("kind", [TensorProto.FLOAT, TensorProto.INT64, TensorProto.BOOL, TensorProto.FLOAT16])
def test_one_hot_labels_are_known_by_their_type_name_or_number(tmp_path, kind, sizes):
    z = ("latents", TensorProto.FLOAT, ["n", 4, *sizes])
    y = ("class", kind, ["n", 3, *sizes])
    for inputs in ([z, y], [y, z]):
        generator = read_graph(one_hot_file(tmp_path / "x.onnx", inputs))
        assert (generator.num_classes, generator.latent_dim) == (3, 4) and len(generator.notices) == 1
        found = generator.generate(np.zeros((3, 4), np.float32), np.array([2, 0, 1]))
        np.testing.assert_allclose(found.reshape(3, 4), TABLE[[2, 0, 1]])


def test_one_hot_labels_of_open_length_or_without_a_name_take_the_number_of_classes(tmp_path, gansmith):
    z, y = ("latents", TensorProto.FLOAT, ["n", 4]), ("other", TensorProto.FLOAT, ["n", 3])
    assert read_graph(one_hot_file(tmp_path / "x.onnx", [y, z]), 3).num_classes == 3
    assert read_graph(one_hot_file(tmp_path / "x.onnx", [y, z])).num_classes == 3  # latents have a name
    unnamed = ("in", TensorProto.FLOAT, ["n", 4])
    for inputs in ([unnamed, y], [y, unnamed]):
        generator = read_graph(one_hot_file(tmp_path / "x.onnx", inputs, latents="in"))
        assert generator.num_classes == 3
        assert any("its input other is taken for one-hot labels, in for latents" in one for one in generator.notices)
    path = one_hot_file(tmp_path / "x.onnx", [z, ("other", TensorProto.FLOAT, ["n", "classes"])])
    with pytest.raises(DataError, match="the length of its one-hot labels other is open; give it as --num-classes"):
        read_graph(path)
    code, _, err = gansmith("sample", path, "--num-classes", 3, "--labels", "2,0", "--out", "drawn.npz")
    assert code == 0, err
    assert np.load("drawn.npz")["labels"].tolist()[:3] == [2, 0, 2]
    assert load_generator(path, num_classes=3).sample(labels=[2, 1]).labels.tolist() == [2, 1]


def test_labels_that_a_file_does_not_count_are_counted_by_the_user(tmp_path, gansmith):
    node, shape = reshape("sum")
    nodes = [
        helper.make_node("Cast", ["y"], ["number"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["number", "tenth"], ["small"]),
        helper.make_node("Unsqueeze", ["small", "one"], ["column"]),
        helper.make_node("Add", ["z", "column"], ["sum"]),
        node,
    ]
    inputs = [Z, ("y", TensorProto.INT32, ["batch"])]
    weights = [shape, constant("one", [1]), constant("tenth", np.float32(0.1))]
    path = onnx_file(tmp_path / "x.onnx", nodes, weights, inputs=inputs)
    for command in ("sample", "evaluate"):
        code, _, err = gansmith(command, path)
        assert code == 2 and "takes labels and does not say how many there are; give it as --num-classes" in err
    model = load_generator(path, num_classes=4)
    assert model.spec.num_classes == 4
    found = model.network(torch.zeros(4, 4), torch.arange(4))[:, 0, 0, 0]
    np.testing.assert_allclose(found, np.arange(4) / 10, rtol=1e-6)


def test_a_one_hot_operator_says_how_many_labels_there_are(tmp_path):
    node, shape = reshape("sum")
    nodes = [
        helper.make_node("Constant", [], ["depth"], value=constant("depth", [3])),
        helper.make_node("OneHot", ["y", "depth", "values"], ["rows"]),
        helper.make_node("MatMul", ["rows", "table"], ["row"]),
        helper.make_node("Add", ["z", "row"], ["sum"]),
        node,
    ]
    weights = [constant("values", np.float32([0, 1])), constant("table", TABLE), shape]
    inputs = [Z, ("y", TensorProto.INT64, ["batch"])]
    generator = read_graph(onnx_file(tmp_path / "x.onnx", nodes, weights, inputs=inputs))
    assert generator.num_classes == 3
    found = generator.generate(np.zeros((2, 4), np.float32), np.array([2, 1]))
    np.testing.assert_allclose(found.reshape(2, 4), TABLE[[2, 1]])


def bounded(nodes, weights=(), kind=TensorProto.FLOAT):
    """Return the nodes and weights of a generator whose last value is `y` before it is reshaped."""
    node, shape = reshape("y")
    return [*nodes, node], [*weights, shape], kind


HALF, ONE, BYTE = (constant(name, np.float32(value)) for name, value in (("half", 0.5), ("one", 1), ("byte", 127.5)))
SQUASHED = helper.make_node("Tanh", ["z"], ["t"])
RAISED = [SQUASHED, helper.make_node("Add", ["t", "one"], ["u"])]
SCALED = [*RAISED, helper.make_node("Mul", ["u", "byte"], ["v"])]
BYTES = [*SCALED, helper.make_node("Round", ["v"], ["w"]), helper.make_node("Cast", ["w"], ["y"], to=TensorProto.UINT8)]
RANGES = {
    "tanh": (bounded([helper.make_node("Tanh", ["z"], ["y"])]), "in [-1, 1], because its last layer is a tanh"),
    "sigmoid": (bounded([helper.make_node("Sigmoid", ["z"], ["y"])]), "in [0, 1], because its last layer is a sigmoid"),
    "hard sigmoid": (bounded([helper.make_node("HardSigmoid", ["z"], ["y"])]), "in [0, 1], because its last layer"),
    "halved tanh": (
        bounded([*RAISED, helper.make_node("Mul", ["u", "half"], ["y"])], [ONE, HALF]),
        "in [0, 1], because values of 64 images drawn go from 0.0",
    ),
    "relu": (bounded([SQUASHED, helper.make_node("Relu", ["t"], ["y"])]), "in [0, 1], because values"),
    "linear": (bounded([helper.make_node("Mul", ["z", "half"], ["y"])], [HALF]), "in [-1, 1], because values"),
    "scaled": (
        bounded([*SCALED, helper.make_node("Identity", ["v"], ["y"])], [ONE, BYTE]),
        "in 0 to 255, because values of 64 images drawn go up to 25",
    ),
    "tanh of images in [0, 1]": (
        bounded([helper.make_node("Relu", ["z"], ["t"]), helper.make_node("Tanh", ["t"], ["y"])]),
        "in [0, 1], because its last layer is a tanh, but values of 64 images drawn go down to 0 only",
    ),
    "bytes": (bounded(BYTES, [ONE, BYTE], TensorProto.UINT8), "in 0 to 255, because its output is bytes"),
}


@pytest.mark.parametrize("name", RANGES)
def test_the_range_of_images_is_that_of_the_last_layer_or_of_images_drawn(tmp_path, name):
    """Each of them squashes its latents, so that a large one is white and, but for the relu, a small one black."""
    (nodes, weights, kind), words = RANGES[name]
    generator = read_graph(onnx_file(tmp_path / "x.onnx", nodes, weights, outputs=[("images", kind)]))
    (notice,) = generator.notices
    assert words in notice
    size = 2.0 if name == "linear" else 50.0
    found = generator.generate(np.float32([[size, -size, 0, 0]]), np.zeros(1, np.int64)).ravel()
    middle = -1 if name in ("relu", "tanh of images in [0, 1]") else 0
    np.testing.assert_allclose(found, [1, -1, middle, middle], atol=0.004)


def test_standardised_images_are_refused(tmp_path):
    """A linear last layer after training on (pixels - 0.13) / 0.31, in which white is 2.8: no level of 255."""
    nodes = [helper.make_node("Sigmoid", ["z"], ["s"]), helper.make_node("Mul", ["s", "three"], ["y"])]
    nodes, weights, kind = bounded(nodes, [constant("three", np.float32(3))])
    with pytest.raises(DataError, match="neither .* nor 0 to 255; undo a standardisation inside the generator"):
        read_graph(onnx_file(tmp_path / "x.onnx", nodes, weights, outputs=[("images", kind)]))


def test_of_several_outputs_the_largest_that_holds_images_counts(tmp_path):
    node, shape = reshape()
    nodes = [
        helper.make_node("ReduceSum", ["z"], ["logit"], keepdims=0),
        helper.make_node("Slice", ["z", "first", "second", "axis"], ["one"]),
        helper.make_node("Tile", ["z", "many"], ["features"]),
        node,
    ]
    weights = [shape, constant("first", [0]), constant("second", [1]), constant("axis", [1]), constant("many", [1, 2])]
    outputs = [(name, TensorProto.FLOAT) for name in ("logit", "features", "one", "images")]
    generator = read_graph(onnx_file(tmp_path / "x.onnx", nodes, weights, outputs=outputs))
    assert generator.output == "images" and "its output images is taken for the images" in generator.notices
    with pytest.raises(DataError, match=r"its output has shape \(8,\) for one latent, which is no square image"):
        read_graph(onnx_file(tmp_path / "x.onnx", nodes[2:3], weights[4:], outputs=outputs[1:2]))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_a_generator_that_torch_exports_gives_the_images_that_torch_computes(tmp_path):
    """As its default exporter writes it, with a file of weights beside; labels by an embedding, half precision."""
    pytest.importorskip("onnxscript")

    torch.manual_seed(0)
    z, y = torch.randn(3, 6, 1, 1), torch.tensor([4, 0, 2])
    for kind in (torch.float32, torch.float16):
        G = Conditional().eval().to(kind)
        with torch.no_grad():
            expected = G(z.to(kind), y).float()
        batch = torch.export.Dim("batch")
        torch.onnx.export(
            G, (z.to(kind), y), tmp_path / "g.onnx", dynamo=True, verbose=False, dynamic_shapes=({0: batch}, {0: batch})
        )
        generator = read_graph(tmp_path / "g.onnx")
        assert (generator.latent_dim, generator.num_classes) == (6, 5)
        found = generator.generate(z.flatten(1).numpy(), y.numpy())
        np.testing.assert_allclose(found, expected.numpy(), atol=2e-3 if kind == torch.float16 else 1e-5)


class Bomb:
    def __reduce__(self):
        return os.system, ("touch exploded",)


@pytest.mark.parametrize("name", ["x.pth.tar", "pytorch_model.bin", "G", "G.model", "x.PT"])
@pytest.mark.parametrize("is_zip", [True, False])
def test_weights_of_torch_under_any_name_get_the_way_to_onnx(name, is_zip, tmp_path, gansmith):
    torch.save({"weight": torch.zeros(2)}, tmp_path / name, _use_new_zipfile_serialization=is_zip)
    for command in ("sample", "evaluate"):
        code, _, err = gansmith(command, tmp_path / name)
        assert code == 2 and err.count("\n") == 1 and "fetch it again" not in err
        assert "torch.onnx.export" in err or not is_zip
    if not is_zip and name not in ("x.pth.tar", "x.PT"):
        return  # a pickle without a name that says of what
    assert "torch.onnx.export" in err


def test_a_damaged_archive_is_said_to_be_one(tmp_path, gansmith):
    np.savez(tmp_path / "x.npz", images=np.zeros((2, 4, 4), np.uint8))
    content = bytearray((tmp_path / "x.npz").read_bytes())
    start = content.index(b"PK\x01\x02")
    content[start : start + 4] = b"xxxx"
    (tmp_path / "x.npz").write_bytes(content)
    code, _, err = gansmith("evaluate", tmp_path / "x.npz")
    assert code == 2 and err.count("\n") == 1 and "x.npz" in err


def test_a_state_dict_and_a_checkpoint_of_tensorflow_get_the_way_too(tmp_path):
    save_file({"weight": torch.zeros(2)}, tmp_path / "x.safetensors")
    assert_refused(tmp_path / "x.safetensors", "torch.onnx.export")
    for name in ("model.ckpt.index", "model.ckpt.data-00000-of-00001"):
        (tmp_path / name).write_bytes(b"weights")
    assert_refused(tmp_path / "model.ckpt", "a checkpoint of TensorFlow")
    assert_refused(tmp_path / "missing.pth", "there is no file", NotFoundError)


@pytest.mark.parametrize("name", ["x.onnx", "x.h5", "x.hdf5", "x.json", "x.keras"])
def test_a_pickle_is_never_loaded(name, tmp_path):
    torch.save(Bomb(), tmp_path / name)
    (tmp_path / "x.h5").write_bytes((tmp_path / name).read_bytes())
    assert_refused(tmp_path / name, "is not a")
    assert not (tmp_path / "exploded").exists()
