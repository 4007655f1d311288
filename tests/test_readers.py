"""Files of others are read as their own libraries read them; hostile ones are refused in one sentence."""

import json
import os
import struct
from pathlib import Path

import h5py
import numpy as np
import onnx
import pytest
import safetensors.torch
import torch
from onnx import TensorProto, helper, numpy_helper

import gansmith.importers.keras as keras_reader
from gansmith.models import generator_metadata, load_generator
from gansmith.sampling import sample
from gansmith.importers.keras import read_keras
from gansmith.files import read_metadata, save_tensors


def refused(path: Path, words: str) -> None:
    with pytest.raises(ValueError, match=words) as caught:
        load_generator(path)
    assert "\n" not in str(caught.value) and path.name in str(caught.value)


@pytest.fixture
def generator(tiny, run_training) -> Path:
    return run_training(tiny(images=64)).latest() / "generator.safetensors"


@pytest.fixture
def keras(tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras-home"))
    monkeypatch.setenv("KERAS_BACKEND", "torch")
    return pytest.importorskip("keras")


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("ending", [".weights.h5", ".h5"])
def test_a_pair_that_keras_wrote_draws_what_keras_draws(keras, ending, tmp_path):
    """A course's conditional generator: a Sequential inside a functional model, labels multiplied in."""
    layers = keras.layers
    keras.utils.set_random_seed(0)
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
        ]
    )
    z, label = layers.Input((8,)), layers.Input((1,), dtype="int32")
    told = layers.Flatten()(layers.Embedding(10, 8)(label))
    model = keras.Model([z, label], inner(layers.multiply([z, told])))
    for values in model.weights:
        values.assign(values + 0.3 * keras.random.uniform(values.shape))
    if ending == ".h5":
        model.save(tmp_path / "mine.h5")  # holds the architecture too
    else:
        (tmp_path / "mine.json").write_text(model.to_json())
        model.save_weights(tmp_path / "mine.weights.h5")
    G, notes = read_keras(tmp_path / f"mine{ending}")
    assert (notes, G.latent_dim, G.num_ids) == ({}, 8, 10)
    latents = np.random.RandomState(0).normal(size=(10, 8)).astype("float32")
    drawn = G(torch.from_numpy(latents), torch.arange(10)).detach()
    expected = keras.ops.convert_to_numpy(model([latents, np.arange(10)[:, None]], training=False))
    assert drawn.shape == (10, 1, 28, 28)
    np.testing.assert_allclose(drawn[:, 0], 2 * expected[..., 0] - 1, atol=2e-6)  # a closing sigmoid means [0, 1]
    read = load_generator(tmp_path / f"mine{ending}")
    assert sample(read, seed=0, count=3, labels=[7])[1].tolist() == [7, 7, 7]


def write_pair(folder: Path, layers: list[dict], weights: dict[str, dict[str, np.ndarray]]) -> Path:
    """A Keras 2 Sequential by hand."""
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


def test_a_plain_pair_is_its_formula(tmp_path):
    model = load_generator(write_pair(tmp_path, [dense(), RESHAPE], WEIGHTS))
    drawn = model.network(torch.tensor([[0.5, 0.25, -0.25]]), torch.zeros(1, dtype=torch.int64))
    expected = np.tanh(0.5 + np.arange(16) / 16).reshape(1, 1, 4, 4)
    np.testing.assert_allclose(drawn.numpy(), expected, atol=1e-6)


@pytest.mark.parametrize(
    ("layers", "words"),
    [
        ([dense(), {"class_name": "Lambda", "config": {"name": "reshape", "function": ["4wEAAAA="]}}], "Lambda layer"),
        ([dense(activation={"class_name": "function", "config": "os.system"}), RESHAPE], "only elu, gelu"),
        ([dense(units=17), RESHAPE], "has shape"),
        ([dense(units=10**12), RESHAPE], "has shape"),
        ([dense(batch_input_shape=[None, 4]), RESHAPE], "not a Keras generator"),
        ([dense(batch_input_shape=[None, 10**15]), RESHAPE], "not a Keras generator"),
        ([dense(), {**RESHAPE, "config": {"name": "reshape", "target_shape": [4, 5, 1]}}], "not a Keras generator"),
        ([dense()], "has 0 weights|reshape|not"),
        ([], "0 layers"),
    ],
)
def test_hostile_architectures_are_refused(layers, words, tmp_path):
    if len(layers) == 1:
        layers = [dense(), {"class_name": "UpSampling2D", "config": {"name": "reshape", "size": [10**6, 10**6]}}]
        layers.insert(1, {"class_name": "Reshape", "config": {"name": "square", "target_shape": [4, 4, 1]}})
        words = "numbers for one image"
    weights = WEIGHTS | {row["config"]["name"]: {} for row in layers if row["class_name"] != "Dense"}
    refused(write_pair(tmp_path, layers, weights), words)


def test_hostile_weights_are_refused(tmp_path):
    path = write_pair(tmp_path, [dense(), RESHAPE], WEIGHTS)
    secret = tmp_path / "secret.bin"
    secret.write_bytes(bytes(4 * 48))
    name = "dense/dense/kernel:0"

    def with_kernel(put):
        write_pair(tmp_path, [dense(), RESHAPE], WEIGHTS)
        with h5py.File(tmp_path / "x.h5", "r+") as file:
            del file[name]
            put(file)
        return path

    def external(file):
        file.create_dataset(name, (3, 16), "f4", external=[(str(secret), 0, 192)])

    def virtual(file):
        layout = h5py.VirtualLayout((3, 16), "f4")
        layout[:] = h5py.VirtualSource(str(tmp_path / "other.h5"), "x", shape=(3, 16))
        file.create_virtual_dataset(name, layout)

    cases = [
        (lambda file: file.__setitem__(name, h5py.ExternalLink("other.h5", "/x")), "a link"),
        (lambda file: file.__setitem__(name, h5py.SoftLink("/dense/dense/bias:0")), "a link"),
        (external, "another file"),
        (virtual, "another file"),
        (lambda file: file.__setitem__(name, np.full((3, 16), np.nan, "f4")), "not finite"),
        (lambda file: file.__setitem__(name, np.full((3, 16), np.inf, "f4")), "not finite"),
        (lambda file: file.__setitem__(name, np.ones((3, 15), "f4")), "has shape"),
        (lambda file: file.__setitem__(name, np.full((3, 16), b"x")), "not an array of numbers"),
        (lambda file: file.create_dataset(name, (3 * 10**9, 16), "f4", chunks=(64, 16)), "declares"),
        (lambda file: file.create_dataset(name, (3, 16), "f4", chunks=(3, 16)), "holds none"),
    ]
    for put, words in cases:
        refused(with_kernel(put), words)
    (tmp_path / "x.h5").write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(50))
    refused(path, "not a Keras generator")
    (tmp_path / "x.h5").unlink()
    with pytest.raises(FileNotFoundError, match="beside x.json"):
        load_generator(path)


def test_weights_are_limited_together_and_notes_are_one_text(tmp_path, monkeypatch):
    path = write_pair(tmp_path, [dense(), RESHAPE], WEIGHTS)
    with h5py.File(tmp_path / "x.h5", "r+") as file:
        file["gansmith"] = np.full(3, b"{}")
    refused(path, "notes are no text")
    with h5py.File(tmp_path / "x.h5", "r+") as file:
        del file["gansmith"]
    monkeypatch.setattr(keras_reader, "MAX_WEIGHTS", 63)  # 48 and 16 are 64
    refused(path, "more than 63 numbers")


def test_a_file_that_never_ends_is_given_up(tmp_path, monkeypatch):
    monkeypatch.setattr(keras_reader, "PATIENCE_S", 0.3)
    pipe = tmp_path / "g.h5"
    os.mkfifo(pipe)  # reading it waits for a writer that never comes
    with pytest.raises(ValueError, match="takes more than"):
        keras_reader._send_ahead(pipe)


def test_hostile_texts_are_refused(tmp_path):
    path = write_pair(tmp_path, [dense(), RESHAPE], WEIGHTS)
    for text, words in (
        ("[" * 100_000, "not a Keras generator"),
        ('{"class_name": "Model"}', "not a Keras generator"),
        (" " * (5 << 20), "longer than"),
        ("\x00", "not a Keras generator"),
    ):
        path.write_text(text)
        refused(path, words)


def test_a_layer_that_multiplies_the_batch_is_refused(tmp_path):
    keras = [{"class_name": "InputLayer", "config": {"name": "z", "batch_input_shape": [None, 4]}, "inbound_nodes": []}]
    config = {"name": "twice", "axis": 0}
    keras.append({"class_name": "Concatenate", "config": config, "inbound_nodes": [[["z", 0, 0, {}], ["z", 0, 0, {}]]]})
    config = {"name": "images", "target_shape": [2, 2, 1]}
    keras.append({"class_name": "Reshape", "config": config, "inbound_nodes": [[["twice", 0, 0, {}]]]})
    for layer in keras:
        layer["name"] = layer["config"]["name"]
    ends = {"input_layers": [["z", 0, 0]], "output_layers": [["images", 0, 0]]}
    write_pair(tmp_path, [], {layer["name"]: {} for layer in keras})
    whole = {"class_name": "Model", "config": {"name": "g", "layers": keras, **ends}}
    (tmp_path / "x.json").write_text(json.dumps(whole))
    refused(tmp_path / "x.json", "layer twice makes 4 images of 2")


def onnx_file(path: Path, nodes, initializers=(), *, outputs=(None, 1, 2, 2)) -> Path:
    inputs = [helper.make_tensor_value_info("z", TensorProto.FLOAT, ["batch", 4])]
    output = helper.make_tensor_value_info("images", TensorProto.FLOAT, outputs)
    graph = helper.make_graph(nodes, "g", inputs, [output], list(initializers))
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)
    return path


def reshape(source="z", to=(-1, 1, 2, 2)):
    shape = numpy_helper.from_array(np.array(to, dtype=np.int64), "shape")
    return helper.make_node("Reshape", [source, "shape"], ["images"]), shape


def test_onnx_of_others_is_read_and_hostile_onnx_refused(tmp_path):
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
        ([product, node], [outside, shape], "another file"),
        ([product, node], [nan, shape], "not finite"),
        ([foreign, node], [shape], "com.example.Launch"),
        ([loop, node], [shape], "ai.onnx.Loop"),
        ([small, enlarge], [shape, big], "numbers for one image"),
        (by_the_batch, [shape, times, first, second, zeros], "numbers for one image"),
    ):
        refused(onnx_file(tmp_path / "x.onnx", nodes, initializers), words)
    (tmp_path / "x.onnx").write_bytes(b"\x80\x04garbage" * 100)
    refused(tmp_path / "x.onnx", "not an ONNX generator")


def test_damaged_generator_files_are_refused(generator, tmp_path):
    tensors, notes = safetensors.torch.load_file(generator), read_metadata(generator)
    path = tmp_path / "x.safetensors"

    def written(changed_tensors=None, **changed_notes):
        save_tensors(path, {**tensors, **(changed_tensors or {})}, {**notes, **changed_notes})
        return path

    assert sample(load_generator(written()), seed=0, count=2)[0].shape[0] == 2
    name = "layers.0.weight"
    broken = tensors[name].clone()
    broken[0, 0] = float("nan")
    config = json.loads(notes["config"])
    for change, words in (
        ({name: broken}, "not finite"),
        ({name: tensors[name].double()}, "torch.float64, not torch.float32"),
        ({name: tensors[name][:-1]}, "does not fit"),
        ({"more": torch.zeros(1)}, "does not fit"),
    ):
        refused(written(change), words)
    for changes, words in (
        ({"config": json.dumps(config | {"latent_dim": 7})}, "does not fit"),
        ({"config": json.dumps(config | {"latent_dim": -1})}, "latent_dim is -1"),
        ({"config": json.dumps(config | {"network": "../x"})}, "there is no network"),
        ({"config": "[" * 50_000}, "does not fit"),
        ({"spec": '{"size": 1e9, "channels": 1, "num_classes": 10}'}, "size is 1000000000.0"),
        ({"spec": '{"size": 1000000000, "channels": 1, "num_classes": 10}'}, "size is 1000000000"),
        ({"frequencies": "[0.5, 0.5]"}, "one share for each id"),
        ({"frequencies": json.dumps([-1] * 10)}, "one share for each id"),
    ):
        refused(written(**changes), words)
    path.write_bytes(generator.read_bytes()[:-9])
    refused(path, "not a Gansmith generator")
    path.write_bytes(struct.pack("<Q", 1 << 62) + b"{}")
    refused(path, "not a Gansmith generator")


class Bomb:
    def __reduce__(self):
        return os.system, ("touch exploded",)


@pytest.mark.parametrize("name", ["x.safetensors", "x.pt", "x.onnx", "x.h5", "x.json"])
def test_a_pickle_never_goes_off(name, tmp_path):
    torch.save(Bomb(), tmp_path / name)
    (tmp_path / "x.h5").write_bytes((tmp_path / name).read_bytes())
    refused(tmp_path / name, "is not a")
    assert not (tmp_path / "exploded").exists()


def test_notes_are_what_the_model_was(generator):
    model = load_generator(generator)
    assert generator_metadata(model.config, model.spec, model.conditioning) == read_metadata(generator)
