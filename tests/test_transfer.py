"""Runs that start with the weights of another: what is taken, what starts new, what follows the source."""

import json
import shutil

import numpy as np
import pytest
import torch
from conftest import TINY, assert_same_run, train_all

import gansmith as gs
from gansmith.conditioning import Conditioning
from gansmith.config import resolve
from gansmith.data.images import Images
from gansmith.errors import ConfigError, DataError, NotFoundError, RunError
from gansmith.networks import build_networks
from gansmith.planning import plan_training
from gansmith.runs import create_run, open_run
from gansmith.training.calibration import output_layer
from gansmith.training.inputs import TrainingData, load_training_data
from gansmith.training.state import start
from gansmith.training.transfer import find_source, matching_ids, resolve_with_source, take_weights

STILL = {"g_lr": 0.0, "d_lr": 0.0}


def digits_of(classes, names=(), each=6):
    """Return a few noisy images for each of these numbers of classes, with their names."""
    labels = torch.arange(classes).repeat_interleave(each)
    pixels = torch.randint(0, 256, (len(labels), 1, 28, 28), dtype=torch.uint8)
    return Images(pixels, labels, class_names=tuple(names))


def data_of(images, y, conditioning):
    return TrainingData(images, None, y, conditioning, "hash")


@pytest.fixture(scope="module")
def trained(tmp_path_factory, digit_dir):
    """A finished run of class-conditional networks."""
    changes = {"data_dir": str(digit_dir), "conditioning": "labels", "clusters_per_class": 1, "images": 64}
    config, data = load_training_data(resolve("default", arguments=TINY | changes))
    run = create_run(tmp_path_factory.mktemp("trained") / "source", config)
    train_all(run, data)
    return run


@pytest.fixture
def source(trained, tmp_path):
    """A copy of it, and a function that returns the config of a run from it."""
    run = open_run(shutil.copytree(trained.directory, tmp_path / "source"))

    def begin(**changes):
        arguments = {**tiny_choices(run.config), "start_from": str(run.directory), **changes}
        return resolve_with_source(None, arguments=arguments)[0]

    return run, begin


def tiny_choices(config):
    kept = (
        "images", "batch_size", "threads", "trackers", "data_dir", "evaluate_every", "save_every", "clusters",
        "calibrate_output",
    )  # fmt: skip
    return {name: getattr(config, name) for name in kept}


@pytest.mark.slow
def test_a_run_that_does_not_learn_draws_the_images_of_its_source(source, run_training):
    run, begin = source
    images = gs.open_run(run.directory).sample(12, seed=3).images
    again = run_training(begin(**STILL), "again")
    assert again.config.g_width == 8 and again.config.origins["g_width"] == "start-from"
    found = gs.open_run(again.directory).sample(12, seed=3).images
    # Statistics of normalisation and the calibrated output are computed again, so rounding may differ.
    assert np.abs(found.astype(int) - images).max() <= 2
    other = run_training(begin(**STILL, seed=5, start_from=""), "other")
    assert np.abs(gs.open_run(other.directory).sample(12, seed=3).images.astype(int) - images).mean() > 5


def test_d_starts_with_the_weights_of_the_checkpoint_and_optimisers_new(source, tmp_path):
    run, begin = source
    config, data = load_training_data(begin())
    state = start(create_run(tmp_path / "new", config), data)
    old = start(run, data)
    for new, before in zip(state.networks.D.parameters(), old.networks.D.parameters(), strict=True):
        torch.testing.assert_close(new, before, rtol=0, atol=0)
    assert old.networks.d_optimizer.state_dict()["state"] and not state.networks.d_optimizer.state_dict()["state"]
    for ema, g in zip(state.networks.G_ema.parameters(), state.networks.G.parameters(), strict=True):
        torch.testing.assert_close(ema, g, rtol=0, atol=0)
    assert (state.images_seen, state.rows) == (0, [])


def test_g_starts_with_the_output_layer_of_a_run_without_averages(tiny, run_training, tmp_path):
    run = run_training(tiny(ema=0.0, calibrate_output=True, images=64, evaluate_every=0), "source")
    old = start(run, load_training_data(run.config)[1]).networks.G
    config, data = load_training_data(tiny(start_from=str(run.directory), ema=0.0, images=64))
    G = start(create_run(tmp_path / "new", config), data).networks.G
    for name, parameter in output_layer(old).state_dict().items():
        torch.testing.assert_close(output_layer(G).state_dict()[name], parameter, rtol=0, atol=0)


def test_a_source_that_is_gone_is_not_taken_for_a_full_disk(source, tmp_path):
    run, begin = source
    config, data = load_training_data(begin())
    new = create_run(tmp_path / "new", config)
    shutil.move(run.directory, tmp_path / "moved")
    with pytest.raises(NotFoundError) as refusal:
        train_all(new, data)
    assert "make room" not in str(refusal.value) and open_run(new.directory).facts().get("status") != "failed"


@pytest.mark.slow
def test_a_killed_run_goes_on_bit_for_bit_without_its_source(source, tmp_path):
    run, begin = source
    config, data = load_training_data(begin(images=128))
    whole = create_run(tmp_path / "whole", config)
    train_all(whole, data)
    for until, name in ((32, "early"), (96, "late")):
        killed = create_run(tmp_path / name, config)
        train_all(killed, data, until=until)
        if name == "late":
            shutil.move(run.directory, tmp_path / "moved")
        train_all(open_run(killed.directory), data)
        assert_same_run(open_run(killed.directory), open_run(whole.directory))


def test_a_run_without_a_checkpoint_refuses_a_source_that_changed(source, tmp_path):
    run, begin = source
    config, data = load_training_data(begin())
    killed = create_run(tmp_path / "killed", config)
    start(killed, data)
    facts = killed.facts()["start_from"]
    assert facts["file"] == str(run.latest() / "generator.safetensors")
    assert facts["taken"] == [f"{name} starts with the weights of {run.directory}" for name in "GD"]
    start(killed, data)  # unchanged, it starts again
    state = run.latest() / "state.safetensors"
    state.write_bytes(state.read_bytes()[:-4] + bytes(4))
    with pytest.raises(RunError, match="has changed since it began, and no checkpoint was saved; restore it, or train"):
        start(killed, data)
    shutil.rmtree(run.directory)
    with pytest.raises(NotFoundError, match="there is no file or run"):
        start(killed, data)


@pytest.mark.slow
def test_the_same_command_goes_on_after_the_source_is_gone(source, tmp_path, digit_dir):
    run, _ = source
    choices = {"data_dir": str(digit_dir), "batch_size": 16, "threads": 1, "trackers": "none"}
    out = tmp_path / "new"
    gs.train(images=64, out=out, progress="none", start_from=run.directory, **choices)
    shutil.rmtree(run.directory)
    plan = plan_training(images=96, out=out, choices={**choices, "start_from": run.directory})
    assert start(plan.run, plan.data).images_seen == 64
    with pytest.raises(RunError, match="start_from '.*' -> ''"):
        plan_training(images=96, out=out, choices={**choices, "g_width": 8, "d_width": 8, "latent_dim": 8})


def test_a_generator_alone_gives_g_and_d_starts_new(source, tmp_path):
    run, begin = source
    file = shutil.copy(run.latest() / "generator.safetensors", tmp_path / "mailed.safetensors")
    config, data = load_training_data(begin(start_from=str(file)))
    G, D = build_networks(config, data.spec)
    fresh = {name: value.clone() for name, value in D.state_dict().items()}
    facts = take_weights(G, D, config, data)
    assert facts["taken"][1] == f"D starts new: {file} holds a generator alone"
    assert all(torch.equal(value, fresh[name]) for name, value in D.state_dict().items())
    old = gs.load(file).network.state_dict()
    assert all(torch.equal(value, old[name]) for name, value in G.state_dict().items())


# What follows the source.


def test_shapes_follow_the_source_where_nothing_else_was_given(tiny, run_training, tmp_path):
    run = run_training(tiny("mlp-small", latent_dim=12, g_width=24), "small")
    config, notices = resolve_with_source(None, arguments={"start_from": str(run.directory), "seed": 4})
    assert (config.recipe, config.network, config.latent_dim, config.g_width) == ("mlp-small", "mlp", 12, 24)
    assert (config.size, config.color, config.seed, config.images) == (28, "grey", 4, 12_000_000)
    assert config.origins["latent_dim"] == "start-from" and config.origins["seed"] == "argument"
    shapes = "g_width 24, d_width 8, latent_dim 12, clusters 4, size 28, color grey"
    assert notices == (f"as of {run.directory}: recipe mlp-small, {shapes}",)
    given = {"start_from": str(run.directory), "g_width": "32", "size": "32"}
    config, _ = resolve_with_source(None, arguments=given)
    assert (config.g_width, config.size, config.origins["g_width"]) == (32, 32, "argument")
    toml = tmp_path / "mine.toml"
    toml.write_text('recipe = "default-unlabelled"\nlatent_dim = 9\n')
    config, _ = resolve_with_source(None, file=toml, arguments={"start_from": str(run.directory)})
    assert (config.recipe, config.network, config.latent_dim) == ("default-unlabelled", "mlp", 9)
    assert config.conditioning == "clusters"  # of the recipe that was named


def test_without_a_source_nothing_follows():
    assert resolve_with_source("mlp-small", arguments={"seed": 2}) == (resolve("mlp-small", arguments={"seed": 2}), ())


def test_labels_of_the_source_are_labels_where_the_new_data_has_them(source):
    _, begin = source
    assert begin().conditioning == "auto" and begin(conditioning="none").conditioning == "none"


# What is taken.


def weights_after(source, config, data):
    networks = build_networks(config, data.spec, data.conditioning.codes)
    fresh = build_networks(config, data.spec, data.conditioning.codes)
    facts = take_weights(*networks, config, data)
    return networks, fresh, facts["taken"]


def test_embeddings_are_taken_by_the_names_of_classes(source):
    run, begin = source
    config = begin().replace(conditioning="labels")
    images = digits_of(3, ("7", "cat", "2"))
    data = data_of(images, images.labels, Conditioning(images.class_frequencies, has_labels=True))
    (G, D), (fresh, fresh_d), taken = weights_after(source, config, data)
    old, old_d = gs.load(run.directory).network.embedding.weight, find_source(str(run.directory)).discriminator
    rows = [
        (G.embedding.weight, old, fresh.embedding.weight),
        (D.embedding.weight, old_d["embedding.weight"], fresh_d.embedding.weight),
        (D.classifier.weight, old_d["classifier.weight"], fresh_d.classifier.weight),
    ]
    for weight, old_rows, new_rows in rows:
        torch.testing.assert_close(weight, torch.stack([old_rows[7], new_rows[1], old_rows[2]]), rtol=0, atol=0)
    assert taken[0] == f"G starts with the weights of {run.directory}"


def test_embeddings_of_other_classes_start_new_and_are_named(source):
    run, begin = source
    config = begin().replace(conditioning="labels")
    images = digits_of(10, "abcdefghij")
    data = data_of(images, images.labels, Conditioning(images.class_frequencies, has_labels=True))
    (G, D), (fresh_g, fresh_d), taken = weights_after(source, config, data)
    assert torch.equal(G.embedding.weight, fresh_g.embedding.weight)
    assert torch.equal(D.embedding.weight, fresh_d.embedding.weight)
    assert not torch.equal(G.layers[0].weight, fresh_g.layers[0].weight)
    start = f"starts with the weights of {run.directory}; new:"
    layers = "classifier.bias, classifier.weight, embedding.weight"
    assert taken == [f"G {start} embedding.weight (of other class ids)", f"D {start} {layers} (of other class ids)"]


def test_sub_clusters_of_a_class_pair_up_in_turn(source):
    run, begin = source
    model = gs.load(run.directory)
    old = find_source(str(run.directory))
    images = digits_of(2, ("1", "0"))
    labels = Conditioning(torch.full((6,), 1 / 6, dtype=torch.float64), 3, has_labels=True)
    data = data_of(images, 3 * images.labels, labels)
    config = begin().replace(conditioning="labels", clusters_per_class=3)
    assert matching_ids(old, config, data) == [(0, 1), (1, 1), (2, 1), (3, 0), (4, 0), (5, 0)]
    (_, D), _, _ = weights_after(source, config, data)
    kept = old.discriminator
    assert torch.equal(D.embedding.weight, kept["embedding.weight"][[1, 1, 1, 0, 0, 0]])
    assert torch.equal(D.classifier.weight, kept["classifier.weight"][[1, 0]])  # by label
    object.__setattr__(old.model, "config", model.config.replace(clusters_per_class=2))
    assert matching_ids(old, config, data) == [(0, 2), (1, 3), (2, 2), (3, 0), (4, 1), (5, 0)]


def test_clusters_are_the_same_for_the_same_images_alone(tiny, run_training, digits, tmp_path):
    run = run_training(tiny("default-unlabelled", images=64), "source")
    config, _ = resolve_with_source(None, arguments={**tiny_choices(run.config), "start_from": str(run.directory)})
    config, data = load_training_data(config)
    assert matching_ids(find_source(config.start_from), config, data) == [(k, k) for k in range(4)]
    other = data_of(data.train, data.y.flip(0), data.conditioning)
    assert matching_ids(find_source(config.start_from), config, other) == []
    labelled = config.replace(conditioning="labels")
    assert matching_ids(find_source(config.start_from), labelled, data) == []


def test_other_channels_start_new_and_another_size_or_network_is_refused(source):
    run, begin = source
    images = digits_of(10)
    conditioning = Conditioning(images.class_frequencies, has_labels=True)

    def taken(pixels, **changes):
        config = begin(**changes).replace(conditioning="labels")
        data = data_of(Images(pixels, images.labels), images.labels, conditioning)
        return take_weights(*build_networks(config, data.spec), config, data)["taken"]

    g, d = taken(images.pixels.repeat(1, 3, 1, 1))
    statistics = "layers.16.running_mean, layers.16.running_var, layers.16.num_batches_tracked"
    last = "layers.18.weight, layers.18.bias"  # of the maps at full size
    new = f"layers.14.weight, layers.14.bias, layers.16.weight, layers.16.bias, {statistics}, {last}"
    assert f"% of its weights from {run.directory}; new: {new} (not there in this shape)" in g
    assert "layers.2.weight (not there in this shape)" in d
    with pytest.raises(ConfigError, match=r"only \d+% of G's weights fit .* \(size is 32 here and 28 there\); omit"):
        taken(torch.zeros(60, 1, 32, 32, dtype=torch.uint8))
    with pytest.raises(ConfigError, match=r"only \d+% of G's weights .*\(network is mlp here and compact there\)"):
        taken(images.pixels, network="mlp", minibatch_stddev=4)
    with pytest.raises(ConfigError, match="g_width is 16 here and 8 there"):
        taken(images.pixels, g_width=16)


def test_what_is_no_source_is_refused_before_anything_is_written(source, tmp_path, digit_dir):
    run, _ = source
    torch.save({}, tmp_path / "G.pth")
    (tmp_path / "x.onnx").write_bytes(b"x")
    (tmp_path / "text.safetensors").write_bytes(b"no")
    cases = (
        ("nowhere", NotFoundError, "there is no file or run 'nowhere'"),
        ("G.pth", DataError, "pickle"),
        ("x.onnx", DataError, "training cannot start from x.onnx; give a run or a generator.safetensors"),
        ("text.safetensors", DataError, "is not a Gansmith generator"),
    )
    for name, error, words in cases:
        with pytest.raises(error, match=words):
            gs.train(data_dir=str(digit_dir), start_from=name, images=64, out="new", progress="none")
    checkpoint = run.latest()
    state = checkpoint / "state.safetensors"
    sound = state.read_bytes()
    for damaged in (sound[:-8], b""):
        state.write_bytes(damaged)
        with pytest.raises(DataError, match="state.safetensors is damaged .*; start from another checkpoint"):
            gs.train(data_dir=str(digit_dir), start_from=checkpoint, images=64, out="new", progress="none")
    state.write_bytes(sound)
    (checkpoint / "state.json").write_text("{")
    with pytest.raises(DataError, match="000000064 is damaged .*; start from another checkpoint"):
        gs.train(data_dir=str(digit_dir), start_from=checkpoint, images=64, out="new", progress="none")
    assert not (tmp_path / "new").exists()


@pytest.mark.slow
def test_the_command_line_says_what_was_taken(source, gansmith, digit_dir, tmp_path):
    run, _ = source
    words = ("train", "--data-dir", digit_dir, "--start-from", run.directory, "--images", 64, "--batch-size", 16)
    code, out, _ = gansmith(*words, "--print-config")
    assert code == 0 and "g_width = 8" in out and "# start-from" in out
    code, out, err = gansmith(*words, "--threads", 1, "--progress", "plain", "--out", tmp_path / "new")
    assert code == 0, err
    assert f"note: as of {run.directory}: recipe default, g_width 8, d_width 8, latent_dim 8" in out
    assert f"note: G starts with the weights of {run.directory}" in out
    assert json.loads((tmp_path / "new/run.json").read_text())["start_from"]["taken"][0].startswith("G starts")
    checkpoint = tmp_path / "new/checkpoints/000000064/generator.safetensors"
    assert str(run.directory).encode() not in checkpoint.read_bytes()


@pytest.mark.slow
def test_a_run_from_digits_starts_better_on_other_digits_than_from_scratch(tmp_path):
    train, rest = gs.load_data("mnist", split="train"), gs.load_data("mnist", split="validation")
    choices = {"g_width": 16, "d_width": 16, "progress": "none", "threads": 1, "trackers": "none"}
    source = gs.train(data=Images(train.pixels, train.labels), images=30_000, out=tmp_path / "source", **choices)
    few = Images(rest.pixels[:500], rest.labels[:500])
    first = {}
    for name, more in (("scratch", {"g_width": 16, "d_width": 16}), ("transfer", {"start_from": source})):
        run = gs.train(data=few, images=3_000, evaluate_every=1_000, out=tmp_path / name, **{**choices, **more})
        first[name] = run.validation_scores()[0]["validation_fd_ratio"]
    assert first["transfer"] < 0.6 * first["scratch"]


def test_the_home_folder_may_be_written_as_a_tilde(tiny, run_training, monkeypatch):
    run = run_training(tiny("mlp-small"))
    monkeypatch.setenv("HOME", str(run.directory.parent))
    assert find_source(f"~/{run.directory.name}").files == find_source(str(run.directory)).files
