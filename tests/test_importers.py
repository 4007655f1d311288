"""Keras and ONNX files of other programs give the images their own libraries compute; hostile files are refused."""

import json
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import h5py
import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from gansmith.errors import ConfigError, DataError, GansmithError, NotFoundError
from gansmith.importers import keras as keras_importer
from gansmith.importers import keras_files, keras_worker
from gansmith.importers.keras import read_keras
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


def read_here(path: Path) -> keras_worker.Generator:
    """Read a file as the worker does, but in this process, where Keras is already imported."""
    architecture, weights = keras_importer.find_files(path)
    (path.parent / "copies").mkdir(exist_ok=True)
    return keras_worker.read(weights, path.parent / "copies", architecture)


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


def test_a_whole_model_gives_the_images_that_keras_computes(keras, tmp_path, gansmith):
    model = conditional_generator(keras)
    model.save(tmp_path / "mine.h5")
    G, metadata = read_keras(tmp_path / "mine.h5")
    assert (metadata, G.latent_dim, G.num_classes) == ({}, 8, 10)
    images = G(torch.from_numpy(LATENTS), torch.arange(10))
    np.testing.assert_allclose(images, images_of(keras, model), atol=2e-6)
    with pytest.raises(DataError, match="mine.h5 cannot be sampled from"):
        G(torch.from_numpy(LATENTS), torch.arange(10) + 99)
    process = G.process
    del G
    assert process.poll() is not None  # the worker ends with the generator
    code, out, err = gansmith("sample", tmp_path / "mine.h5", "--labels", "7", "--count", "3", "--out", "images.npz")
    assert (code, err) == (0, "") and np.load("images.npz")["labels"].tolist() == [7, 7, 7]


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


def test_every_file_format_of_a_model_gives_the_same_images(keras, tmp_path):
    model = conditional_generator(keras)
    for path in save_in_all_formats(model, tmp_path):
        generator = read_here(path)
        assert (generator.latent_dim, generator.num_classes, generator.metadata) == (8, 10, {}), path
        images = generator.generate(LATENTS.tobytes(), np.arange(10).tobytes())
        np.testing.assert_allclose(images, images_of(keras, model), atol=2e-6, err_msg=path.name)


def test_a_sequential_with_an_activation_layer_inside_is_read(keras, tmp_path):
    """Its file has no group for the input, its latents have three dimensions, and its images are flat."""
    activation = keras.layers.LeakyReLU(0.2)
    layers = [keras.layers.Input((1, 1, 8)), keras.layers.Flatten(), keras.layers.Dense(16, activation=activation)]
    model = keras.Sequential(layers)
    model.save(tmp_path / "mine.h5")
    generator = read_here(tmp_path / "mine.h5")
    assert (generator.latent_dim, generator.num_classes, generator.is_sigmoid) == (8, 0, False)
    images = generator.generate(LATENTS.tobytes(), b"")
    expected = keras.ops.convert_to_numpy(model(LATENTS.reshape(-1, 1, 1, 8)))
    np.testing.assert_allclose(images, expected.reshape(-1, 1, 4, 4), atol=1e-6)


def test_the_number_of_classes_is_unknown_without_an_embedding(keras, tmp_path):
    z, label = keras.layers.Input((8,)), keras.layers.Input((1,))
    keras.Model([label, z], keras.layers.Dense(16)(keras.layers.concatenate([z, label]))).save(tmp_path / "mine.keras")
    generator = read_here(tmp_path / "mine.keras")
    assert (generator.num_classes, generator.label_input) == (-1, 0)


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
    images = read_here(tmp_path / "x.json").generate(np.float32([[0.5, 0.25, -0.25]]).tobytes(), b"")
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
    assert re.search(words, keras_worker.first_line(caught.value))


def in_file(path: Path, name: str, put) -> Path:
    write_pair(path.parent, [dense(), RESHAPE], WEIGHTS)
    with h5py.File(path.parent / "x.h5", "r+") as file:
        del file[name]
        put(file)
    return path


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


def test_reading_is_stopped_after_the_time_limit(tmp_path, monkeypatch):
    path = write_pair(tmp_path, [dense(), RESHAPE], WEIGHTS)
    monkeypatch.setattr(keras_importer, "TIME_LIMIT_S", 0.5)  # less than it takes to import Keras
    assert_refused(path, "takes more than 0.5 seconds")
    pipe = tmp_path / "pipe.json"
    os.mkfifo(pipe)  # reading it waits for a writer that never comes
    process = keras_importer.start_worker(pipe, tmp_path / "x.h5", tmp_path)
    with pytest.raises(ValueError, match="takes more than 0.5 seconds"):
        keras_importer.read_facts(process)
    keras_importer.stop_worker(process)


def test_memory_is_limited(tmp_path):
    code = "from gansmith.importers import keras_worker as w; w.limit_memory(); bytearray(5 << 30)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "MemoryError" in done.stderr


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


def test_hostile_archives_are_refused(tmp_path):
    path = tmp_path / "x.keras"
    write_pair(tmp_path, [dense(), {"class_name": "Lambda", "config": {}}], WEIGHTS)
    parts = {"config.json": (tmp_path / "x.json").read_bytes(), "model.weights.h5": (tmp_path / "x.h5").read_bytes()}
    for members, words in (
        (parts, "Lambda layer"),
        (parts | {"../../escaped.txt": b"x"}, "escaped.txt"),
        (parts | {"assets/vocabulary.txt": b"x"}, "vocabulary.txt"),
        ({"config.json": b"{}"}, "not just config.json"),
        (parts | {"config.json": bytes(5 << 20)}, "unpacks to more than"),
        (parts | {"model.weights.h5": b"x"}, "file signature"),
    ):
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, data in members.items():
                archive.writestr(name, data)
        assert_refused(path, words)
    path.write_bytes(path.read_bytes()[:-30])
    assert_refused(path, "not a zip file")
    assert not list(tmp_path.parent.glob("**/escaped.txt"))


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
    with pytest.raises(ValueError, match="it makes 4 images of 2 latents"):
        read_here(tmp_path / "x.json").generate(bytes(32), b"")
    dropout = {"class_name": "Dropout", "config": {"name": "twice", "rate": 0.5}}
    (tmp_path / "x.json").write_text(functional({**dropout, "inbound_nodes": [[["z", 0, 0, {"training": True}]]]}))
    assert_refused(tmp_path / "x.json", "in training mode")


def onnx_file(path: Path, nodes, initializers=(), *, outputs=(None, 1, 2, 2), z=("batch", 4), y=None) -> Path:
    """Write a graph of z, and of y (its type and shape) where given, to images."""
    inputs = [helper.make_tensor_value_info("z", TensorProto.FLOAT, z)]
    inputs += [] if y is None else [helper.make_tensor_value_info("y", *y)]
    output = helper.make_tensor_value_info("images", TensorProto.FLOAT, outputs)
    graph = helper.make_graph(nodes, "g", inputs, [output], list(initializers))
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)
    return path


def reshape(source="z", to=(-1, 1, 2, 2)):
    shape = numpy_helper.from_array(np.array(to, dtype=np.int64), "shape")
    return helper.make_node("Reshape", [source, "shape"], ["images"]), shape


def test_onnx_of_other_programs_is_read_and_hostile_onnx_refused(tmp_path):
    node, shape = reshape()
    model = load_generator(onnx_file(tmp_path / "x.onnx", [node], [shape]))
    assert (model.config.latent_dim, model.spec.size, model.conditioning.has_labels) == (4, 2, False)
    assert torch.equal(model.network(torch.eye(4), torch.zeros(4)).flatten(1), torch.eye(4))

    weight = numpy_helper.from_array(np.ones((4, 4), dtype=np.float32), "w")
    product = helper.make_node("MatMul", ["z", "w"], ["y"])
    node, shape = reshape("y")
    (tmp_path / "w.bin").write_bytes(bytes(64))
    outside = onnx.TensorProto()
    outside.CopyFrom(weight)
    outside.ClearField("raw_data")
    outside.data_location = TensorProto.EXTERNAL
    outside.external_data.add(key="location", value="../w.bin")
    nan = numpy_helper.from_array(np.full((4, 4), np.nan, dtype=np.float32), "w")
    big = numpy_helper.from_array(np.array([1, 1, 10**5, 10**5], dtype=np.float32), "scales")
    small = helper.make_node("Reshape", ["z", "shape"], ["y"])
    enlarge = helper.make_node("Resize", ["y", "", "scales"], ["images"], mode="nearest")
    times, first, second = (numpy_helper.from_array(np.array([k]), f"k{k}") for k in (10**8, 0, 1))
    zeros = numpy_helper.from_array(np.zeros(1, dtype=np.float32), "zeros")
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
    loop = helper.make_node("Loop", ["z"], ["y"], body=helper.make_graph([], "b", [], []))
    for nodes, initializers, words in (
        ([product, node], [outside, shape], "no file in its folder"),
        ([product, node], [nan, shape], "not finite"),
        ([foreign, node], [shape], "com.example.Launch"),
        ([loop, node], [shape], "ai.onnx.Loop"),
        ([small, enlarge], [shape, big], "numbers for one image"),
        (by_the_batch, [shape, times, first, second, zeros], "numbers for one image"),
    ):
        assert_refused(onnx_file(tmp_path / "x.onnx", nodes, initializers), words)
    (tmp_path / "x.onnx").write_bytes(b"\x80\x04garbage" * 100)
    assert_refused(tmp_path / "x.onnx", "not an ONNX generator")


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
    values = np.arange(16, dtype=np.float32).reshape(4, 4)
    for place in (folder / "w.data", tmp_path / "w.data"):
        place.write_bytes(values.tobytes())
    (folder / "link.data").symlink_to(tmp_path / "w.data")
    path = onnx_file(folder / "x.onnx", [product, node], [weights_in("w.data"), shape])
    model = load_generator(path)
    np.testing.assert_array_equal(model.network(torch.eye(4), torch.zeros(4)).flatten(1).numpy(), values)
    for name in ("../w.data", str(tmp_path / "w.data"), "link.data", "nothing.data", "", ".."):
        onnx_file(path, [product, node], [weights_in(name), shape])
        assert_refused(path, "no file in its folder")
    onnx_file(path, [product, node], [weights_in("w.data"), shape])
    (folder / "w.data").write_bytes(values.tobytes()[:-4])  # cut off
    assert_refused(path, "x.onnx")
    (folder / "w.data").write_bytes(np.full((4, 4), np.nan, dtype=np.float32).tobytes())
    assert_refused(path, "not finite")
    (folder / "w.data").write_bytes(bytes(10_000))
    monkeypatch.setattr("gansmith.importers.onnx.MAX_BYTES", 5_000)
    assert_refused(path, "larger than 5,000 bytes")


@pytest.mark.parametrize("batch", [1, 3, 64])
def test_an_onnx_of_a_fixed_batch_gives_any_number_of_images(tmp_path, batch):
    node, shape = reshape(to=(batch, 1, 2, 2))
    model = load_generator(onnx_file(tmp_path / "x.onnx", [node], [shape], z=(batch, 4)))
    for count in (1, 3, 7):
        z = torch.rand(count, 4)
        assert torch.equal(model.network(z, torch.zeros(count)).flatten(1), z)
    assert model.sample(5, seed=3).images.shape == (5, 2, 2, 1)


@pytest.mark.parametrize(
    ("form", "channels"), [("channels last", 1), ("channels last", 3), ("no channels", 1), ("flat", 1), ("flat", 3)]
)
def test_onnx_images_of_other_layouts_become_channels_first(tmp_path, form, channels):
    to = {"channels last": (-1, 2, 2, channels), "no channels": (-1, 2, 2), "flat": (-1, 4 * channels)}[form]
    node, shape = reshape(to=to)
    width = 4 * channels
    model = load_generator(onnx_file(tmp_path / "x.onnx", [node], [shape], z=("batch", width), outputs=(None, *to[1:])))
    assert (model.spec.size, model.spec.channels, model.config.latent_dim) == (2, channels, width)
    z = torch.rand(5, width)
    expected = z.reshape(5, 2, 2, channels).permute(0, 3, 1, 2) if form == "channels last" else z.reshape(5, -1, 2, 2)
    assert torch.equal(model.network(z, torch.zeros(5)), expected)


def test_onnx_latents_may_be_maps_of_one_pixel(tmp_path):
    node, shape = reshape()
    model = load_generator(onnx_file(tmp_path / "x.onnx", [node], [shape], z=("batch", 4, 1, 1)))
    assert model.config.latent_dim == 4
    assert torch.equal(model.network(torch.eye(4), torch.zeros(4)).flatten(1), torch.eye(4))
    wide = onnx_file(tmp_path / "x.onnx", [node], [shape], z=("batch", 1, 2, 2))
    assert_refused(wide, "not latents")


@pytest.mark.parametrize("kind", ["int64", "int32", "uint8", "column", "one-hot"])
def test_onnx_labels_of_any_form_are_fed_and_counted(tmp_path, kind):
    table = np.arange(12, dtype=np.float32).reshape(3, 4) / 20
    stored = numpy_helper.from_array(table, "table")
    node, shape = reshape("sum")
    last = [helper.make_node("Add", ["z", "row"], ["sum"]), node]
    if kind == "one-hot":
        y = (TensorProto.FLOAT, ["batch", 3])
        nodes = [helper.make_node("MatMul", ["y", "table"], ["row"]), *last]
    else:
        types = {"int32": TensorProto.INT32, "uint8": TensorProto.UINT8}
        y = (types.get(kind, TensorProto.INT64), ["batch", 1] if kind == "column" else ["batch"])
        first = helper.make_node("Cast", ["y"], ["whole"], to=TensorProto.INT64)
        flat = helper.make_node("Reshape", ["whole", "minus"], ["ids"])
        nodes = [first, flat, helper.make_node("Gather", ["table", "ids"], ["row"]), *last]
    minus = numpy_helper.from_array(np.array([-1]), "minus")
    model = load_generator(onnx_file(tmp_path / "x.onnx", nodes, [stored, shape, minus], y=y))
    assert model.spec.num_classes == 3 and model.conditioning.has_labels and len(model.conditioning) == 3
    found = model.network(torch.zeros(3, 4), torch.tensor([2, 0, 1])).flatten(1)
    np.testing.assert_allclose(found.numpy(), table[[2, 0, 1]])
    assert model.sample(labels=[2, 1]).labels.tolist() == [2, 1]


def test_an_onnx_input_that_is_no_label_is_refused(tmp_path):
    node, shape = reshape()
    for y in ((TensorProto.FLOAT, ["batch"]), (TensorProto.INT64, ["batch", 2]), (TensorProto.STRING, ["batch"])):
        assert_refused(onnx_file(tmp_path / "x.onnx", [node], [shape], y=y), "x.onnx")


@pytest.mark.parametrize("operator", ["Sigmoid", "HardSigmoid"])
def test_images_after_a_sigmoid_and_a_reshape_are_in_0_to_1(tmp_path, operator):
    node, shape = reshape("bounded")
    bounded = helper.make_node(operator, ["z"], ["bounded"])
    model = load_generator(onnx_file(tmp_path / "x.onnx", [bounded, node], [shape]))
    found = model.network(torch.zeros(2, 4), torch.zeros(2))
    torch.testing.assert_close(found, torch.zeros(2, 1, 2, 2), rtol=0, atol=1e-6)
    assert model.network(torch.full((1, 4), -50.0), torch.zeros(1)).max() <= -0.99


class Bomb:
    def __reduce__(self):
        return os.system, ("touch exploded",)


@pytest.mark.parametrize("name", ["x.onnx", "x.h5", "x.hdf5", "x.json", "x.keras"])
def test_a_pickle_is_never_loaded(name, tmp_path):
    torch.save(Bomb(), tmp_path / name)
    (tmp_path / "x.h5").write_bytes((tmp_path / name).read_bytes())
    assert_refused(tmp_path / name, "is not a")
    assert not (tmp_path / "exploded").exists()
