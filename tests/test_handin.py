"""The bundle a course asks for, opened and run as a grader would."""

import hashlib
import json
import os
import re
import runpy
import subprocess
import sys
import zipfile

import numpy as np
import pytest
import torch
from conftest import TINY, write_set
from PIL import Image

from gansmith.config import resolve
from gansmith.data.images import Images, ImageSpec
from gansmith.sampling import Model
from gansmith.models import load_generator
from gansmith.course import bundle, missing_classes, tile_ids
from gansmith.course.script import left_out, training_script
from gansmith.metrics.features import load_feature_network
from gansmith.recipes import RECIPES
from gansmith.training.inputs import TrainingData


@pytest.fixture
def unlabelled(run_training, tiny):
    return run_training(tiny("default-unlabelled"))


@pytest.fixture
def bundle(unlabelled, tmp_path):
    notes = bundle([unlabelled], tmp_path / "submission.zip")
    with zipfile.ZipFile(tmp_path / "submission.zip") as archive:
        assert archive.testzip() is None
        archive.extractall(tmp_path / "opened")
    return tmp_path / "opened", notes


def test_the_bundle_holds_what_is_asked_for_and_says_so(bundle, unlabelled):
    folder, _ = bundle
    names = {path.name for path in folder.iterdir()}
    assert names >= {
        "generator.json", "generator.h5", "evaluation.py", "train.py", "report.pdf", "grid.png", "loss.png", "film.gif",
        "README.txt", "manifest.json", "data.npz",
    }  # fmt: skip
    manifest = json.loads((folder / "manifest.json").read_text())
    assert set(manifest["files"]) == names - {"manifest.json"}
    for name, digest in manifest["files"].items():
        assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == digest
    assert manifest["keras_largest_pixel_difference"] < 1e-4
    with Image.open(folder / "grid.png") as grid:
        assert grid.width / grid.info["dpi"][0] == pytest.approx(4, abs=0.01) and grid.size[0] == grid.size[1]


def test_equal_runs_make_equal_bundles(unlabelled, tmp_path):
    for name in ("a.zip", "b.zip"):
        bundle([unlabelled], tmp_path / name)
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()


def test_evaluation_needs_no_gansmith_and_draws_the_same_grid(bundle):
    folder, notes = bundle
    drawn = np.asarray(Image.open(folder / "grid.png"))
    (folder / "grid.png").unlink()
    # A grader's machine without Keras and without this package: both are made unimportable.
    blocked = "import sys; sys.modules.update(keras=None, gansmith=None, torch=None)\n"
    script = blocked + f"import runpy; runpy.run_path({str(folder / 'evaluation.py')!r}, run_name='__main__')"
    shown = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=folder)
    assert "drawn by NumPy" in shown.stdout
    again = np.asarray(Image.open(folder / "grid.png"))
    assert drawn.shape == again.shape and np.abs(drawn.astype(int) - again).max() <= 1
    missing = [note.split()[1] for note in notes if note.startswith("class ")]
    assert (f"missing: {', '.join(missing)}" if missing else "every class occurs") in shown.stdout


@pytest.mark.parametrize("choices", [{"latent_distribution": "uniform", "g_activation": "gelu"}, {"latent_distribution": "sphere"}])
def test_evaluation_draws_what_unusual_choices_draw(run_training, tiny, tmp_path, choices):
    run = run_training(tiny("default-unlabelled", **choices))
    bundle([run], tmp_path / "submission.zip")  # compares its own arithmetic with the generator's
    with zipfile.ZipFile(tmp_path / "submission.zip") as archive:
        assert json.loads(archive.read("evaluation.json"))["latent"] == choices["latent"]


def test_images_chosen_by_their_labels_are_no_run_without(run_training, tiny, tmp_path):
    run = run_training(tiny("default-unlabelled", classes="0-4", conditioning="none"))
    with pytest.raises(ValueError, match="by their labels"):
        bundle([run], tmp_path / "submission.zip")


@pytest.mark.parametrize("recipe", RECIPES)
def test_each_recipe_has_a_script_that_trains_alone(recipe, digits, tmp_path, monkeypatch, capsys):
    small = {**TINY, "g_width": 8, "d_width": 8, "conditioning": RECIPES[recipe].get("conditioning", "none")}
    config = resolve(recipe, arguments=small)
    if config.conditioning == "auto":
        config = config.replace(conditioning="labels")
    text = training_script(config, ImageSpec(size=28, channels=1, num_classes=10))
    assert "gansmith" not in text and text.isascii()
    np.savez(tmp_path / "data.npz", images=digits[0][:100], labels=digits[1][:100])
    (tmp_path / "train.py").write_text(text)
    monkeypatch.setattr("sys.argv", ["train.py", "--minutes", "0.0002"])
    runpy.run_path(str(tmp_path / "train.py"), run_name="__main__")
    with Image.open(tmp_path / "samples.png") as picture:
        assert picture.size == (420, 420)
    assert "samples.png" in capsys.readouterr().out


@pytest.mark.parametrize(("rates", "name", "below"), [((0.0, 2e-3), "D", 0.9), ((2e-3, 0.0), "G", 0.4)])
def test_a_script_teaches_each_player_to_lower_its_loss(rates, name, below, digits, tmp_path, monkeypatch, capsys):
    """Against one that learns nothing; who guesses pays 1.39 and .69."""
    rates = dict(zip(("g_lr", "d_lr"), rates, strict=True))
    config = resolve("mlp-small", arguments={"g_width": 32, "d_width": 32, "latent_dim": 16, "batch_size": 16, **rates})
    np.savez(tmp_path / "data.npz", images=digits[0][:100])
    (tmp_path / "train.py").write_text(training_script(config, ImageSpec(28, 1, 0)))
    monkeypatch.setattr("sys.argv", ["train.py", "--minutes", "0.05"])
    runpy.run_path(str(tmp_path / "train.py"), run_name="__main__")
    losses = [float(found) for found in re.findall(rf"{name} loss ([0-9.]+)", capsys.readouterr().out)]
    assert losses and losses[-1] < below


def test_evaluation_by_keras_draws_the_same_grid(bundle):
    pytest.importorskip("keras")
    folder, _ = bundle
    drawn = np.asarray(Image.open(folder / "grid.png"))
    (folder / "grid.png").unlink()
    environment = {**os.environ, "KERAS_BACKEND": "torch", "KERAS_HOME": str(folder / "keras")}
    done = subprocess.run(
        [sys.executable, folder / "evaluation.py"], capture_output=True, text=True, cwd=folder, env=environment
    )
    assert done.returncode == 0 and "drawn by Keras" in done.stdout, done.stderr
    again = np.asarray(Image.open(folder / "grid.png"))
    assert drawn.shape == again.shape and np.abs(drawn.astype(int) - again).max() <= 1


def test_a_script_says_what_it_leaves_out():
    config = resolve("mlp-small", arguments={"replay": 0.5})
    assert left_out(config) == ["replay"]
    assert "Left out of this plain loop: replay." in training_script(config, ImageSpec(28, 1, 10))
    for augment, also in (("none", []), ("shifts", ["augment"])):
        config = resolve("default-unlabelled", arguments={"augment": augment})
        assert left_out(config) == [*also, "calibrate_output"]


def test_tiles_meet_every_kind_of_image_by_a_rule_that_sees_no_drawing(digits):
    """With the true classes as clusters, each shared out over several ids, 25 tiles meet all ten."""
    pixels, labels = torch.from_numpy(digits[0])[:, None], torch.from_numpy(digits[1]).long()
    ids = labels * 4 + torch.arange(len(labels)) % 4
    fit = Images("mnist", pixels, None, "here")
    frequencies = torch.bincount(ids, minlength=40).double() / len(ids)
    config = resolve("default-unlabelled", arguments={"clusters": 40})
    model = Model(torch.nn.Identity(), config, ImageSpec(28, 1, 0), frequencies)
    tiles = tile_ids(model, TrainingData(fit, None, ids, frequencies, None, ""))
    assert tiles.shape == (25,) and len(set((tiles // 4).tolist())) >= 9
    assert torch.equal(tiles, tile_ids(model, TrainingData(fit, None, ids, frequencies, None, "")))
    told_nothing = Model(torch.nn.Identity(), config, ImageSpec(28, 1, 0), torch.ones(1).double())
    assert tile_ids(told_nothing, TrainingData(fit, None, ids * 0, torch.ones(1), None, "")).tolist() == [0] * 25


def test_missing_classes_are_those_no_image_shows(digits):
    judge = load_feature_network("mnist", ImageSpec(28, 1, 10))
    pixels, labels = torch.from_numpy(digits[0])[:, None], digits[1]
    assert missing_classes(pixels, judge) == []
    assert missing_classes(pixels[labels != 7], judge) in ([7], [])  # a lone odd digit may pass for a seven
    assert 3 in missing_classes(pixels[labels == 0], judge)


def test_rules_are_named_before_anything_is_written(gansmith, run_training, tiny, tmp_path, digits):
    labelled = run_training(tiny(conditioning="labels"), "labelled").directory
    code, _, err = gansmith("handin", labelled)
    assert code == 2 and "trained with labels" in err and "--allow-labels" in err
    images, labels = digits
    both = write_set(tmp_path / "both", images, labels)
    write_set(both, images[:100], labels[:100], stem="t10k")
    seen = run_training(tiny("mlp-small", data_dir=str(both)), "seen").directory
    code, _, err = gansmith("handin", seen)
    assert code == 2 and "are test images" in err and "--allow-test-images" in err
    code, _, err = gansmith("handin", seen, "--out", "submission.tar")
    assert code == 2 and "does not end in .zip" in err
    assert not [name for name in os.listdir() if name.startswith(("submission", ".partial"))]
    code, out, err = gansmith("handin", seen, labelled, "--allow-test-images")
    assert (code, err) == (0, "") and "submission.zip" in out
    assert load_generator(seen).spec.num_classes == 0


def test_data_that_changed_since_training_is_refused(unlabelled, digits, tmp_path, digit_dir):
    unlabelled.record(data={**unlabelled.facts()["data"], "sha256": "0" * 64})
    with pytest.raises(ValueError, match="have changed since"):
        bundle([unlabelled], tmp_path / "x.zip")
