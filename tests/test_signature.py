"""Exported files take z, and labels where a generator was trained with them, and draw clusters in their frequencies."""

import json
import math
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import scipy.stats
import torch
from test_exporters import build_model
from torch import nn

import gansmith as gs
from gansmith.conditioning import UNCONDITIONAL, Conditioning
from gansmith.data.images import ImageSpec
from gansmith.exporters import export
from gansmith.exporters.keras import to_keras
from gansmith.exporters.onnx import to_onnx
from gansmith.models import load_generator
from gansmith.sampling import Model, draw_inputs, sample
from gansmith.signature import BEYOND, SMALLEST, ExportedGenerator, as_exported, cluster_thresholds


class Ids(nn.Module):
    """A network whose image is its class id."""

    def forward(self, z, y):
        return y[:, None, None, None].float()


def id_model(shares, *, has_labels, **choices):
    """Return a generator whose image is its class id, with these frequencies of clusters, a row for each label."""
    frequencies = torch.tensor(shares).double()
    conditioning = {"conditioning": "labels" if has_labels else "clusters", "clusters_per_class": len(shares[0])}
    choices |= {"latent_dim": 3, "clusters": max(2, frequencies.numel()), **conditioning}
    config = gs.resolve("default", arguments=choices)
    each = len(shares[0]) if has_labels else 1
    spec = ImageSpec(1, 1, len(shares) if has_labels else 0)
    return Model(Ids(), config, spec, Conditioning(frequencies.flatten(), each, has_labels=has_labels))


def ids_of(model, u, labels):
    z = torch.cat([torch.zeros(len(u), 3), u[:, None]], dim=1)
    return model.network(z, labels).flatten().long()


def test_thresholds_are_the_quantiles_of_cumulative_frequencies():
    shares = torch.tensor([0.1, 0.1, 0.2, 0.0, 0.3, 0.3]).double()
    found = cluster_thresholds(Conditioning(shares, 3, has_labels=True), "normal")
    quantile = scipy.stats.norm.ppf
    expected = [[quantile(0.25), SMALLEST], [-BEYOND, quantile(0.5)]]
    np.testing.assert_allclose(found, np.float32([[expected[0][0], SMALLEST], [-BEYOND, SMALLEST]]), rtol=1e-6)
    uniform = cluster_thresholds(Conditioning(torch.tensor([0.2, 0.5, 0.3, 0.0]).double()), "uniform")
    np.testing.assert_allclose(uniform, np.float32([[-0.6, 0.4, BEYOND]]), rtol=1e-6)
    nobody = cluster_thresholds(Conditioning(torch.tensor([0.0, 0.0, 1.0, 0.0]).double(), 2, has_labels=True), "normal")
    np.testing.assert_array_equal(nobody, np.float32([[BEYOND], [BEYOND]]))


SHARES = [[0.05, 0.0, 0.1, 0.25, 0.0], [0.0, 0.3, 0.0, 0.0, 0.1], [0.02, 0.03, 0.05, 0.06, 0.04]]


def frequency_test(model, count=100_000):
    """Return the smallest p value of drawn against training frequencies over labels; 0 if one without any is drawn."""
    generator = torch.Generator().manual_seed(0)
    found = []
    for label, shares in enumerate(SHARES):
        u = torch.randn(count, generator=generator)
        ids = ids_of(model, u, torch.full((count,), label))
        counts = torch.bincount(ids - label * len(shares), minlength=len(shares)).numpy()
        expected = np.array(shares) / sum(shares) * count
        if counts[expected == 0].any():
            return 0.0
        found.append(scipy.stats.chisquare(counts[expected > 0], expected[expected > 0]).pvalue)
    return min(found)


def test_sub_clusters_are_drawn_in_their_frequencies_and_never_those_without_images():
    exported = as_exported(id_model(SHARES, has_labels=True))
    assert frequency_test(exported) > 0.001
    shifted = nn.functional.pad(exported.network.thresholds[:, 1:], (0, 1), value=BEYOND)
    broken = ExportedGenerator(Ids(), shifted, radius=None)
    assert frequency_test(replace(exported, network=broken)) < 1e-9


@pytest.mark.slow
def test_clusters_are_drawn_in_their_frequencies_where_there_are_thousands():
    shares = (torch.arange(2500) % 7).double() * (torch.arange(2500) % 3 > 0)
    model = as_exported(id_model([shares.tolist()], has_labels=False))
    u = torch.randn(100_000, generator=torch.Generator().manual_seed(0))
    ids = torch.cat([ids_of(model, part, torch.zeros(len(part), dtype=torch.int64)) for part in u.split(10_000)])
    counts, expected = torch.bincount(ids, minlength=2500), shares / shares.sum() * len(ids)
    assert not counts[shares == 0].any() and counts[shares > 0].all()
    assert scipy.stats.chisquare(counts[shares > 0], expected[shares > 0]).pvalue > 0.001


@pytest.mark.parametrize("distribution", ["normal", "uniform"])
def test_each_cluster_begins_right_above_a_threshold(distribution):
    model = as_exported(id_model(SHARES, has_labels=True, latent_distribution=distribution))
    assert model.config.latent_distribution == distribution
    for label, row in enumerate(model.network.thresholds):
        for u, step in ((row, 0), (torch.nextafter(row, torch.tensor(math.inf)), 1)):
            expected = [5 * label + int((row < value).sum()) for value in u]
            assert ids_of(model, u, torch.full((4,), label)).tolist() == expected
            assert step or all(SHARES[label][id_ % 5] > 0 for id_, t in zip(expected, row, strict=True) if t.abs() < 9)


def test_latents_are_one_longer_only_where_there_are_clusters_to_draw():
    assert as_exported(id_model(SHARES, has_labels=True)).config.latent_dim == 4
    exported = as_exported(id_model(SHARES, has_labels=False))
    assert (exported.config.latent_dim, exported.config.conditioning, len(exported.conditioning)) == (4, "none", 1)
    for model in (build_model("mlp", conditioning="none"), build_model("mlp", conditioning="labels")):
        assert as_exported(model) is model
    labelled = as_exported(id_model(SHARES, has_labels=True))
    torch.testing.assert_close(labelled.conditioning.frequencies, torch.tensor([0.4, 0.4, 0.2]).double())
    assert as_exported(labelled) is labelled and labelled.conditioning.in_latents


def test_latents_on_a_sphere_are_projected_in_the_file():
    model = build_model("mlp", conditioning="none", latent_distribution="sphere")
    exported = as_exported(model)
    assert (exported.config.latent_distribution, exported.config.latent_dim) == ("normal", 12)
    z, y = torch.randn(4, 12), torch.zeros(4, dtype=torch.int64)
    on_sphere = math.sqrt(12) * z / z.norm(dim=1, keepdim=True)
    torch.testing.assert_close(exported.network(z, y), model.network(on_sphere, y))
    torch.testing.assert_close(exported.network(on_sphere, y), model.network(on_sphere, y))


@pytest.mark.parametrize("labels", [None, [2, 0, 1], [1]])
def test_a_seed_draws_the_same_clusters_before_and_after_an_export(labels):
    model = id_model(SHARES, has_labels=True)
    exported = as_exported(model)
    for seed in (0, 3):
        z, y = draw_inputs(model, seed=seed, count=3000, labels=labels)
        found_z, found_y = draw_inputs(exported, seed=seed, count=3000, labels=labels)
        assert torch.equal(found_y, model.conditioning.label_of(y)) and torch.equal(found_z[:, :-1], z)
        assert torch.equal(exported.network(found_z, found_y).flatten().long(), y)
        torch.testing.assert_close(found_z[:, -1].std(), torch.tensor(1.0), rtol=0.02, atol=0)
        assert torch.equal(draw_inputs(exported, seed=seed, count=9, labels=labels)[0], found_z[:9])


@pytest.mark.slow
@pytest.mark.parametrize("exporter", [to_onnx, to_keras])
def test_files_switch_between_clusters_exactly_at_the_thresholds(exporter, tmp_path):
    """With two neighbours of each threshold, and clusters without images between them."""
    model = build_model("mlp", conditioning="labels", clusters_per_class=5, spec=ImageSpec(8, 1, 3))
    model = replace(model, conditioning=Conditioning(torch.tensor(SHARES).double().flatten(), 5, has_labels=True))
    exported = as_exported(model)
    exporter(model, tmp_path / "generator")
    row = exported.network.thresholds.flatten()
    steps = [row, torch.nextafter(row, torch.tensor(math.inf)), torch.nextafter(row, torch.tensor(-math.inf))]
    u = torch.cat(steps)
    labels = torch.arange(3).repeat_interleave(4).repeat(3)
    z = torch.cat([torch.zeros(len(u), 12), u[:, None]], dim=1)
    read = load_generator(tmp_path / ("generator.onnx" if exporter is to_onnx else "generator.h5"))
    with torch.no_grad():
        found, expected = read.network(z, labels), exported.network(z, labels)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    assert (expected[:12] - expected[12:24]).abs().amax((1, 2, 3))[row.abs() < 9].min() > 1e-3  # another cluster


def outputs_of_other_libraries(folder, z, labels):
    """Return images (N, C, H, W) by ONNX Runtime, by Keras from each of its files, and by torch.export."""
    session = onnxruntime.InferenceSession(folder / "generator.onnx", providers=["CPUExecutionProvider"])
    feed = {"z": z} if labels is None else {"z": z, "label": labels}
    assert [entry.name for entry in session.get_inputs()] == list(feed)
    yield session.run(None, feed)[0]
    inputs = [torch.from_numpy(values) for values in feed.values()]
    yield torch.export.load(folder / "generator.pt2").module()(*inputs).detach().numpy()
    np.savez(folder / "inputs.npz", **feed)
    script = (
        "import keras, numpy as np\n"
        "feed = dict(np.load('inputs.npz'))\n"
        "pair = keras.models.model_from_json(open('generator.json').read())\n"
        "pair.load_weights('generator.h5')\n"
        "for name, G in (('pair', pair), ('keras', keras.models.load_model('generator.keras'))):\n"
        "    images = G.predict(feed['z'] if len(feed) == 1 else [feed['z'], feed['label'][:, None]], verbose=0)\n"
        "    np.save(name, np.moveaxis(images, -1, 1))\n"
    )
    environment = {**os.environ, "KERAS_BACKEND": "torch", "KERAS_HOME": str(folder / "keras")}
    done = subprocess.run([sys.executable, "-c", script], cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    yield np.load(folder / "pair.npy")
    yield np.load(folder / "keras.npy")


@pytest.mark.slow
@pytest.mark.parametrize("conditioning", ["labels", "clusters", "none"])
@pytest.mark.filterwarnings("ignore")  # of Keras and ONNX, which exporting imports
def test_other_libraries_draw_what_sample_draws_from_the_same_latents(
    conditioning, subclustered, tiny, run_training, gansmith, tmp_path
):
    choices = {"clusters": 9} if conditioning == "clusters" else {}
    config = subclustered if conditioning == "labels" else tiny(conditioning=conditioning, **choices)
    run = run_training(config)
    model = gs.load(run.directory)
    assert len(model.conditioning) == {"labels": 50, "clusters": 9, "none": 1}[conditioning]
    code, out, _ = gansmith("export", run.directory, "--format", "all", "--out", tmp_path / "out")
    assert code == 0 and out.split("\n")[0].split()[:3] == ["format", "files", "size"]
    assert all(name in out for name in ("generator.onnx", "generator.keras", "onnxruntime-web", "torch.export.load"))
    width = 8 if conditioning == "none" else 9
    z = np.random.RandomState(1).normal(size=(40, width)).astype(np.float32)
    labels = np.arange(40) % 10 if conditioning == "labels" else None
    np.save(tmp_path / "z.npy", z)
    flags = ["--latents", tmp_path / "z.npy", *(["--labels", "0-9"] if labels is not None else [])]
    assert gansmith("sample", run.directory, *flags, "--out", tmp_path / "run.npz")[0] == 0
    drawn = np.load(tmp_path / "run.npz")
    assert drawn["labels"].tolist() == (labels.tolist() if labels is not None else [-1] * 40)
    exported = as_exported(model)
    y = torch.zeros(40, dtype=torch.int64) if labels is None else torch.from_numpy(labels)
    with torch.no_grad():
        expected = exported.network(torch.from_numpy(z), y).numpy()
    for images in outputs_of_other_libraries(tmp_path / "out", z, labels):
        np.testing.assert_allclose(images, expected, rtol=0, atol=1e-5)
        pixels = np.rint(np.moveaxis(images, 1, -1) * 127.5 + 127.5)
        assert np.abs(pixels - drawn["images"]).max() <= 1
    for name in ("generator.onnx", "generator.safetensors"):
        assert gansmith("sample", tmp_path / "out" / name, *flags, "--out", tmp_path / "file.npz")[0] == 0
        again = np.load(tmp_path / "file.npz")
        assert np.abs(again["images"].astype(int) - drawn["images"]).max() <= 1
        assert np.array_equal(again["labels"], drawn["labels"])


def test_a_generator_with_clusters_takes_latents_of_both_lengths():
    model = build_model("mlp", conditioning="clusters")
    z = np.random.RandomState(504).normal(size=(6, 13))
    long = gs.sample(model, latents=z).images
    assert np.array_equal(long, gs.sample(model, 6, numpy_seed=504).images)
    assert np.array_equal(long, gs.sample(as_exported(model), 6, numpy_seed=504).images)
    short = gs.sample(model, latents=z[:, :-1], seed=4).images
    y = model.conditioning.draw(seed=4, count=6)
    with torch.no_grad():
        expected = model.network(torch.from_numpy(z[:, :-1]).float(), y)
    assert np.abs(short - np.rint(expected.permute(0, 2, 3, 1).numpy() * 127.5 + 127.5)).max() <= 1
    with pytest.raises(gs.GansmithError, match=r"give finite numbers of shape \(count, 12\) or \(count, 13\)"):
        gs.sample(model, latents=z[:, :5])


@pytest.mark.slow
def test_an_onnx_file_says_what_it_takes_and_gives(tmp_path):
    import onnx

    model = build_model("mlp", conditioning="labels", clusters_per_class=2, spec=ImageSpec(8, 3, 3))
    shares = torch.full((6,), 1 / 6, dtype=torch.float64)
    model = replace(model, conditioning=Conditioning(shares, 2, has_labels=True), class_names=("cat", "dog", "cow"))
    to_onnx(model, tmp_path / "generator")
    proto = onnx.load(tmp_path / "generator.onnx")
    texts = {entry.key: entry.value for entry in proto.metadata_props}
    assert texts["z"].startswith("float32 (N, 13), standard normal numbers; the last number chooses among clusters")
    assert (texts["label"], texts["latent_dim"]) == ("int64 (N,), 0 to 2", "13")
    assert texts["images"] == "float32 (N, 3, 8, 8), from -1 (black) to 1"
    assert json.loads(texts["class_names"]) == ["cat", "dog", "cow"]
    assert json.loads(texts["preparation"]) == {"size": 8, "channels": 3, "resize": "crop"}
    assert [entry.version for entry in proto.opset_import if entry.domain == ""] == [18]
    shapes = {entry.name: entry.type.tensor_type for entry in proto.graph.input}
    assert [dim.dim_param or dim.dim_value for dim in shapes["z"].shape.dim] == ["batch", 13]
    assert shapes["label"].elem_type == onnx.TensorProto.INT64
    assert all(entry.doc_string == texts[entry.name] for entry in (*proto.graph.input, *proto.graph.output))
    read = load_generator(tmp_path / "generator.onnx")
    assert read.class_names == ("cat", "dog", "cow") and read.sample(labels=["dog", "cow"]).labels.tolist() == [1, 2]


@pytest.mark.slow
def test_all_formats_that_support_a_generator_are_written_and_the_others_named(tiny, run_training, gansmith):
    run = run_training(tiny("stylegan-lite", conditioning="none", images=64))
    code, out, err = gansmith("export", run.directory, "--format", "all")
    folder = run.directory / "exports"
    assert (code, err) == (0, "") and "not written: the stylegan-lite network" in " ".join(out.split())
    assert set(json.loads((folder / "manifest.json").read_text())["formats"]) == {"safetensors", "onnx", "pt2"}
    assert not list(folder.glob("*.json*5")) and not (folder / "generator.keras").exists()


@pytest.mark.slow
def test_a_file_is_evaluated_as_its_run_is(subclustered, run_training, tmp_path):
    run = run_training(subclustered)
    export(run.directory, ["onnx"], tmp_path / "out")
    ratios = [
        gs.evaluate(target, quick=True)["fd_ratio"] for target in (run.directory, tmp_path / "out" / "generator.onnx")
    ]
    assert ratios[1] == pytest.approx(ratios[0], rel=0.01)


@pytest.mark.slow
def test_unconditional_generators_are_sampled_alike(tmp_path: Path):
    model = replace(build_model("mlp", conditioning="none"), conditioning=UNCONDITIONAL)
    to_onnx(model, tmp_path / "generator")
    images, _ = sample(load_generator(tmp_path / "generator.onnx"), seed=2, count=5)
    assert (images.int() - sample(model, seed=2, count=5)[0].int()).abs().max() <= 1
