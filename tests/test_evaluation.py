"""Evaluation of runs, generator files and images, and comparison of several."""

import contextlib
import json
import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from test_sampling import build_model

import gansmith as gs
from gansmith import api, evaluation
from gansmith.data import load_data
from gansmith.data.images import Images
from gansmith.errors import ConfigError, DataError, NotFoundError
from gansmith.evaluation import _with_shares_of, compare, evaluate, in_form_of, load_real, read_samples
from gansmith.files import write_json
from gansmith.metrics import gates
from gansmith.sampling import folder_names


@pytest.fixture(scope="module")
def subset():
    return load_data("mnist")


def test_the_embedded_digits_are_evaluated_by_the_shipped_references(subset, tmp_path):
    real = load_real("mnist")
    assert real.test is None and set(real.references) == {"trained", "random"}
    np.savez(tmp_path / "x.npz", images=subset.pixels[:, 0].numpy(), labels=subset.labels.numpy())
    row = evaluate(tmp_path / "x.npz", quick=True)
    # Equal shares of each digit, and mostly images that the evaluator was trained on.
    assert row["fd_ratio"] < 4 and row["n"] == 2000 and row["tier"] == "quick"
    assert row["gates"]["recognisability"]["ok"] is True
    assert row["gates"]["memorisation"]["ok"] is None


@pytest.mark.slow
def test_checkpoints_of_one_run_are_no_repeats(run_training, tiny):
    run = run_training(tiny())
    groups = compare(run.checkpoints()[-2:], quick=True, count=300)
    assert [len(group["targets"]) for group in groups] == [1, 1]


@pytest.mark.slow
def test_runs_of_other_lengths_or_images_are_no_repeats(run_training, tiny):
    first, second = (run_training(tiny("mlp-small", seed=seed), f"{seed}/run") for seed in (0, 1))

    def found(*targets):
        comparison = compare(targets, quick=True, count=300)
        return sorted(group["name"] for group in comparison), comparison.notice

    assert found(first.directory, second.directory) == (["0/run 1/run"], "")
    half = second.checkpoints()[0]
    assert found(first.directory, half) == ([f"{half.name}", "run"], "")
    facts = second.facts()
    facts["data"]["sha256"] = "0" * 64
    write_json(second.directory / "run.json", facts)
    names, notice = found(first.directory, second.directory)
    assert names == ["0/run", "1/run"] and notice.startswith("FD ratios to different real images")


def test_a_run_is_evaluated_and_the_verdict_saved(gansmith, tiny, run_training):
    run = run_training(tiny())
    before = run.validation_scores()
    code, out, err = gansmith("evaluate", run.directory, "--quick", "--count", 300, "--json")
    row = json.loads(out)
    assert (code, err) == (0, "") and row["fd_ratio"] is None and row["metrics"]["kid_z"]["value"] > 3
    assert row["images_seen"] == 256 and row["valid"] is False
    kept = run.metrics[-1]
    assert kept["tier"] == "quick" and "target" not in kept and run.validation_scores() == before
    for gate in row["gates"].values():
        assert {"ok", "value", "limit", "meaning"} <= set(gate)
    code, out, _ = gansmith("evaluate", run.directory / "checkpoints" / "000000128", "--quick", "--count", 300)
    assert code == 0 and "INVALID" in out and "standard deviations from real images" in out
    assert f"{run.directory}/checkpoints/000000128 after 128 images: 40 samples of seed 0 compared with mnist" in out


def test_a_gpu_draws_and_measures_as_in_training(tiny, run_training, monkeypatch):
    """Within `computing_on`, which chooses it among several, switches TF32 off, and has kernels be repeatable."""
    run, held = run_training(tiny("mlp-small")), []

    @contextlib.contextmanager
    def hold(device):
        held.append(device)
        yield
        held.pop()

    def within(compute, where, *given, **named):
        assert held == [torch.device("cpu")], where
        return compute(*given, **named)

    monkeypatch.setattr(evaluation, "load_inception", lambda path: {})
    monkeypatch.setattr(evaluation, "fid_of", lambda samples, real, layers: 7.0)
    for module, names in {evaluation: ("sample", "evaluate_samples", "fid_of"), api: ("generate",)}.items():
        monkeypatch.setattr(module, "computing_on", hold)
        for name in names:
            monkeypatch.setattr(module, name, partial(within, getattr(module, name), name))
    row = evaluate(run.directory, quick=True, count=300, fid=True, device="cpu")
    assert row["metrics"]["fid"]["value"] == 7.0 and len(api.sample(run, 3)) == 3 and not held


def test_a_notice_tells_of_training_on_the_validation_images(run_training, tiny):
    noticed = [
        any(
            "trained on the validation images" in note
            for note in evaluate(run.directory, quick=True, count=200)["notices"]
        )
        for run in (
            run_training(tiny("mlp-small", use_all_training_images=True), "all"),
            run_training(tiny("mlp-small"), "split"),
        )
    ]
    assert noticed == [True, False]


@pytest.mark.slow
def test_a_verdict_on_images_of_a_chosen_size_is_reused(tiny, run_training):
    run = run_training(tiny("mlp-small", size=16))
    compare([run.directory], quick=True)
    verdicts = len(run.metrics)
    compare([run.directory], quick=True)
    assert len(run.metrics) == verdicts > len(run.validation_scores())


@pytest.mark.slow
def test_seeds_share_a_row_and_verdicts_are_reused(gansmith, tiny, run_training, tmp_path, subset):
    runs = [run_training(tiny("mlp-small", seed=seed), f"seed{seed}") for seed in (0, 1)]
    np.savez(tmp_path / "real.npz", images=subset.pixels[::10, 0].numpy())
    targets = [*(run.directory for run in runs), tmp_path / "real.npz"]
    groups = compare(targets, quick=True, count=300, data_dir=runs[0].config.data_dir)
    assert sorted(len(group["targets"]) for group in groups) == [1, 2]
    code, out, _ = gansmith("compare", *targets, "--quick", "--count", 300)
    assert code == 0 and "seed0 seed1" in out and "real.npz" in out
    for added in (1, 0):  # another count is another verdict; the same one is not computed twice
        lengths = [len(run.metrics) for run in runs]
        gansmith("compare", *(run.directory for run in runs), "--quick", "--json")
        assert [len(run.metrics) for run in runs] == [length + added for length in lengths]
    rows = [json.loads(line) for line in runs[0].metrics_path.read_text().splitlines()]
    rows[-1]["evaluators"]["pretrained"] = "measured where this one was installed"
    runs[0].metrics_path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    both = compare([run.directory for run in runs], quick=True)
    assert len(both) == 2
    assert both.notice.endswith("measure them again (--again) by the evaluators that are here now")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["evaluate", "nothing"], "there is no"),
        (["evaluate", "folder"], "holds no images"),
        (["evaluate", "x.npz", "--data", "minst"], "did you mean"),
        (["evaluate", "colour.npz"], "same shape"),
        (["evaluate", "x.npz", "--count", "0"], "between 1 and"),
        (["evaluate", "x.npz", "--seed", "-1"], "0 or more"),
        (["evaluate", "x.npz", "--num-classes", "3"], "x.npz holds images; omit it"),
        (["evaluate", "x.npz", "--resize", "cut"], "resize"),
        (["compare"], "nothing to compare"),
    ],
)
def test_wrong_requests_get_one_sentence(gansmith, tmp_path, words, expected):
    (tmp_path / "folder").mkdir()
    np.savez(tmp_path / "x.npz", images=np.zeros((4, 28, 28), np.uint8))
    np.savez(tmp_path / "colour.npz", images=np.random.default_rng(0).integers(0, 256, (4, 28, 28, 3), dtype=np.uint8))
    code, out, err = gansmith(*words)
    assert code == 2 and out == "" and expected in err and len(err.strip().splitlines()) == 1


def test_the_json_of_a_verdict_has_its_figures_at_the_top(gansmith, tmp_path, subset):
    samples = subset.shuffled(1200)
    np.savez(tmp_path / "x.npz", images=samples.pixels[:, 0].numpy(), labels=samples.labels.numpy())
    code, out, err = gansmith("evaluate", "x.npz", "--quick", "--json")
    verdict = json.loads(out)
    assert code == 0 and err == ""
    assert verdict["fd_ratio"] == max(verdict["fd_ratios"].values()) and set(verdict["fd_ratios"]) == {
        "trained",
        "random",
    }
    assert verdict["valid"] is all(gate["ok"] is not False for gate in verdict["gates"].values())
    assert verdict["label_accuracy"] == verdict["metrics"]["label_accuracy"]["value"] > 0.98
    assert verdict["n"] == 1000 and verdict["tier"] == "quick" and verdict["protocol"] == gates.VERSION
    assert verdict["evaluators"]["trained"].startswith("mnist-") and verdict["evaluators"]["random"].startswith(
        "random-"
    )
    assert all(set(figures) == {"value", "real"} for figures in verdict["metrics"].values())
    for name, suffix in (("trained", ""), ("random", "_random")):
        figures = verdict["metrics"][f"fd{suffix}"]
        assert verdict["fd_ratios"][name] == pytest.approx(figures["value"] / figures["real"])
    assert any("full MNIST is not available" in notice for notice in verdict["notices"])
    text = gansmith("evaluate", "x.npz", "--quick")[1]
    assert f"FD ratio {verdict['fd_ratio']:.2f} (1.00 = as close as other real images; trained " in text


def test_grey_images_stored_as_colour_are_evaluated(tmp_path, subset):
    pixels = subset.pixels[:300].expand(-1, 3, -1, -1).permute(0, 2, 3, 1)
    np.savez(tmp_path / "x.npz", images=pixels.numpy())
    assert evaluate(tmp_path / "x.npz", quick=True)["n"] == 300


def write_pictures(folder, pixels, labels=None, names=()):
    """Write (N, H, W[, C]) images as PNG files, in a folder for each class where there are labels."""
    for k, image in enumerate(pixels):
        place = folder if labels is None else folder / (names[labels[k]] if names else str(labels[k]))
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(place / f"{k:03d}.png")
    return folder


def test_samples_in_every_form_are_the_same_images(tmp_path, subset):
    real = subset.take(torch.arange(0, 5000, 500))
    pixels, labels = real.pixels[:, 0].numpy(), real.labels.tolist()
    np.savez(tmp_path / "own.npz", images=pixels, labels=labels)
    np.savez(tmp_path / "other.npz", x_train=pixels / 255, y_train=np.eye(10)[labels])
    write_pictures(tmp_path / "classes", pixels, labels)
    for name in ("own.npz", "other.npz", "classes"):
        found = read_samples(tmp_path / name, subset)
        assert torch.equal(found.pixels, real.pixels) and found.labels.tolist() == labels
    flat = read_samples(write_pictures(tmp_path / "flat", pixels), subset)
    assert torch.equal(flat.pixels, real.pixels) and flat.labels is None
    with pytest.raises(NotFoundError, match="there is no file or folder"):
        read_samples(tmp_path / "nothing", subset)
    (tmp_path / "x.txt").write_text("x")
    with pytest.raises(DataError, match="none of the files that images are read from"):
        read_samples(tmp_path / "x.txt", subset)


def test_a_black_border_is_cut_off_and_other_sizes_are_resized(tmp_path, subset):
    pixels = subset.pixels[:20, 0].numpy()
    padded = np.pad(pixels, ((0, 0), (2, 2), (2, 2)))
    np.savez(tmp_path / "x.npz", images=padded)
    for path in (tmp_path / "x.npz", write_pictures(tmp_path / "padded", padded)):
        found = read_samples(path, subset)
        assert np.array_equal(found.pixels[:, 0].numpy(), pixels)
        assert found.notices[-1] == "their black border of 2 pixels was cut off"
    padded[3, 0, 0] = 1  # no border any more
    large = np.repeat(np.repeat(pixels, 6, axis=1), 6, axis=2)
    small = pixels[:, ::2, ::2]
    for name, images in (("inked", padded), ("large", large), ("small", small)):
        found = read_samples(write_pictures(tmp_path / name, images), subset)
        assert tuple(found.pixels.shape) == (20, 1, 28, 28)
        assert f"resized from {images.shape[1]} to 28 pixels" in found.notices[-1]
        if name == "large":
            assert np.abs(found.pixels[:, 0].numpy().astype(float) - pixels).mean() < 6


def test_samples_of_one_class_have_the_label_of_their_folder(tmp_path, subset):
    real = replace(subset.take(torch.tensor([0, 500, 1000])), class_names=("zero", "one", "two"))
    pixels = real.pixels[:, 0].numpy()
    for name, label in (("two", 2), ("1", 1), ("train", None), ("7", None)):
        write_pictures(tmp_path / "samples" / name / name, pixels)
        found = read_samples(tmp_path / "samples" / name, real)
        assert found.labels is None if label is None else found.labels.tolist() == [label] * 3
        assert (f"lie in the folder {name}" in found.notices[-1]) is (label is not None)


def test_class_folders_named_as_the_real_classes_have_their_numbers(tmp_path, subset):
    names = ("zero", "one", "two")
    real = replace(subset.take(torch.tensor([0, 500, 1000])), class_names=names)
    assert real.labels.tolist() == [0, 1, 2]
    folder = write_pictures(tmp_path / "x", real.pixels[:, 0].numpy(), [2, 0, 2], names)
    found = read_samples(folder, real)
    assert sorted(found.labels.tolist()) == [0, 2, 2] and found.class_names == names
    other = write_pictures(tmp_path / "y", real.pixels[:, 0].numpy(), [0, 1, 1], ("cat", "dog"))
    found = read_samples(other, real)
    assert found.labels is None and "has no class 'cat', 'dog'" in found.notices[-1]
    folder = write_pictures(tmp_path / "z", real.pixels[:, 0].numpy(), [2, 0, 2], ("ZERO", "", "Two"))
    assert sorted(read_samples(folder, real).labels.tolist()) == [0, 2, 2]
    both = replace(real, class_names=("zero", "Zero", "two"))
    assert "has no class 'ZERO'" in read_samples(folder, both).notices[-1]
    awkward = replace(real, class_names=("a/b", "a b", "c"))
    folders = folder_names(range(3), awkward.class_names)
    folder = write_pictures(tmp_path / "awkward", real.pixels[:, 0].numpy(), [2, 0, 1], [folders[k] for k in range(3)])
    assert sorted(read_samples(folder, awkward).labels.tolist()) == [0, 1, 2]
    numbered = write_pictures(tmp_path / "numbered", real.pixels[:, 0].numpy(), [2, 0, 2])
    assert sorted(read_samples(numbered, real).labels.tolist()) == [0, 2, 2]
    for shape in (28, 24):  # as they are, and cropped
        pixels = real.pixels[:, 0, :shape].numpy()
        np.savez(tmp_path / "named.npz", images=pixels, labels=["two", "one", "two"])
        assert read_samples(tmp_path / "named.npz", real).labels.tolist() == [2, 1, 2]
    np.savez(tmp_path / "unnamed.npz", images=real.pixels[:, 0].numpy(), labels=[2, 1, 0])
    assert read_samples(tmp_path / "unnamed.npz", real).labels.tolist() == [2, 1, 0]


@pytest.mark.parametrize(
    ("folders", "said"),
    [
        (("00", "01", "02"), None),
        (("digit_0", "digit_1", "digit_2"), "such as 'digit_0', were taken for labels"),
        (("0 - zero", "1 - one", "2 - two"), "were taken for labels"),
        (("take_0", "take_0b", "take_2"), "has no class 'take_0'"),
        (("seed_1", "seed_2", "seed_3"), "has no class 'seed_1'"),
        (("a_0", "a_1", "a_7"), "has no class 'a_0'"),
        (("0_1", "1_1", "2_2"), "has no class"),
    ],
)
def test_numbers_in_the_names_of_folders_are_labels(folders, said, tmp_path, subset):
    real = replace(subset.take(torch.tensor([0, 500, 1000])), class_names=())
    found = read_samples(write_pictures(tmp_path / "x", real.pixels[:, 0].numpy(), [2, 0, 1], folders), real)
    if said is None or "taken" in said:
        assert sorted(found.labels.tolist()) == [0, 1, 2]
    else:
        assert found.labels is None
    assert said is None or said in found.notices[-1]


def test_names_that_differ_in_marks_alone_are_the_same_class(tmp_path, subset):
    real = replace(subset.take(torch.tensor([0, 500, 1000])), class_names=("T-shirt/top", "Ankle boot", "Bag"))
    folders = ("T-shirt_top", "ankle-boot", "BAG")
    found = read_samples(write_pictures(tmp_path / "x", real.pixels[:, 0].numpy(), [1, 0, 2], folders), real)
    assert sorted(found.labels.tolist()) == [0, 1, 2]


def test_figures_on_the_opposite_ground_and_grids_are_said(tmp_path, subset):
    real = subset.take(torch.arange(0, 5000, 50))
    pixels = real.pixels[:, 0].numpy()
    np.savez(tmp_path / "dark.npz", images=255 - pixels)
    assert (
        "they are dark on light, and the real images light on dark"
        in read_samples(tmp_path / "dark.npz", real).notices[-1]
    )
    row = evaluate(tmp_path / "dark.npz", quick=True, count=100)
    assert sum("dark on light" in notice for notice in row["notices"]) == 1
    np.savez(tmp_path / "same.npz", images=pixels)
    assert read_samples(tmp_path / "same.npz", real).notices == ()
    for side, is_grid in ((8 * 30 + 2, True), (3 * 28, True), (64, False)):
        np.savez(tmp_path / "large.npz", images=np.random.default_rng(0).integers(0, 256, (3, side, side), np.uint8))
        assert ("a grid of samples" in read_samples(tmp_path / "large.npz", real).notices[-1]) is is_grid


def test_arrays_of_every_kind_are_the_same_images(tmp_path, subset):
    real = subset.take(torch.arange(0, 5000, 250))
    pixels = real.pixels[:, 0].numpy()
    kinds = {
        "bytes": (pixels, ()),
        "unit": ((pixels / 255).astype("f4"), ("its floats, 0 to 1, are taken to be in [0, 1]",)),
        "signed": (pixels / 127.5 - 1, ("its floats, -1 to 1, are taken to be in [-1, 1]",)),
        "numbers": (pixels.astype("f4"), ()),
        "last": (pixels[..., None].astype("i8"), ()),
        "flat": (pixels.reshape(20, 784), ()),
    }
    for name, (array, notices) in kinds.items():
        np.save(tmp_path / f"{name}.npy", array)
        np.savez(tmp_path / f"{name}.npz", images=array)
        for suffix in (".npy", ".npz"):
            found = read_samples(tmp_path / f"{name}{suffix}", subset)
            assert torch.equal(found.pixels, real.pixels) and found.notices == notices, (name, suffix)


def test_samples_are_brought_to_larger_and_other_shapes(tmp_path, subset):
    pixels = subset.pixels[:20]
    framed = Images(torch.nn.functional.pad(pixels, (2, 2, 2, 2)))
    np.save(tmp_path / "x.npy", pixels[:, 0].numpy())
    found = read_samples(tmp_path / "x.npy", framed)
    assert torch.equal(found.pixels, framed.pixels)
    assert found.notices == ("a black border of 2 pixels was added, as the real images have one",)
    for resize in ("crop", "pad", "stretch"):  # which asks for no border
        found = read_samples(tmp_path / "x.npy", framed, resize=resize)
        assert not torch.equal(found.pixels, framed.pixels) and "resized from 28 to 32 pixels" in found.notices[-1]
    np.save(tmp_path / "wide.npy", np.pad(pixels[:, 0].numpy(), ((0, 0), (0, 0), (4, 4))))
    wide = read_samples(tmp_path / "wide.npy", subset)
    assert torch.equal(wide.pixels, pixels)
    assert wide.notices == ("its images of 28 x 36 pixels were cropped to squares of 28",)
    stretched = read_samples(tmp_path / "wide.npy", subset, resize="stretch")
    assert not torch.equal(stretched.pixels, pixels) and "stretched to squares" in stretched.notices[-1]
    rgb = Images(torch.zeros(4, 3, 28, 28, dtype=torch.uint8))
    found = read_samples(tmp_path / "x.npy", rgb)
    assert torch.equal(found.pixels, pixels.repeat(1, 3, 1, 1))


def test_images_that_are_nearly_grey_are_made_grey_and_others_are_not(tmp_path, subset):
    pixels = subset.pixels[:20].permute(0, 2, 3, 1).repeat(1, 1, 1, 3).numpy()
    np.save(tmp_path / "x.npy", pixels)
    assert torch.equal(read_samples(tmp_path / "x.npy", subset).pixels, subset.pixels[:20])
    pixels[..., 0] ^= 1
    np.save(tmp_path / "x.npy", pixels)
    found = read_samples(tmp_path / "x.npy", subset)
    assert torch.equal(found.pixels, subset.pixels[:20]) and found.notices[-1].endswith("nearly grey, were averaged")
    pixels[..., 0] = 255 - pixels[..., 0]
    np.save(tmp_path / "x.npy", pixels)
    assert read_samples(tmp_path / "x.npy", subset).spec.channels == 3


def test_samples_of_a_generator_are_brought_to_the_real_images_form(subset):
    drawn = replace(subset.take(torch.arange(20)), class_names=tuple("0123456789"))
    large = replace(drawn, pixels=torch.nn.functional.pad(drawn.pixels, (2, 2, 2, 2)))
    found = in_form_of(subset, large)
    assert torch.equal(found.pixels, drawn.pixels) and torch.equal(found.labels, drawn.labels)
    again = in_form_of(subset, found)
    assert torch.equal(again.pixels, found.pixels) and again.notices == found.notices


def test_grey_pictures_are_compared_with_color_ones(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (4, 8, 8), dtype=np.uint8)
    real = Images(np.random.default_rng(1).integers(0, 256, (4, 8, 8, 3), dtype=np.uint8))
    found = read_samples(write_pictures(tmp_path / "x", pixels), real)
    assert torch.equal(found.pixels, torch.from_numpy(pixels)[:, None].expand(-1, 3, -1, -1))
    np.savez(tmp_path / "larger.npz", images=pixels.repeat(2, 1).repeat(2, 2))
    assert tuple(read_samples(tmp_path / "larger.npz", real).pixels.shape) == (4, 3, 8, 8)


def test_samples_of_two_parts_are_those_of_training_and_it_is_said(tmp_path, subset):
    pixels = subset.pixels[:5, 0].numpy()
    for part, images in (("train", pixels[:3]), ("test", pixels[3:])):
        write_pictures(tmp_path / "x" / part, images)
    found = read_samples(tmp_path / "x", subset)
    assert len(found) == 3 and found.notices[-1].startswith("only its training part was read, without 2 test images")


def test_half_the_contrast_is_no_other_scale(tmp_path, subset):
    dark = (subset.pixels[:600, 0].numpy() * (127 / 255)).round().astype("uint8")
    np.savez(tmp_path / "dark.npz", images=dark)
    np.testing.assert_array_equal(read_samples(tmp_path / "dark.npz", subset).pixels[:, 0].numpy(), dark)
    np.savez(tmp_path / "zeros-and-ones.npz", images=(dark > 60).astype("uint8"))
    assert read_samples(tmp_path / "zeros-and-ones.npz", subset).pixels.max() == 255


def test_whole_numbers_up_to_sixteen_are_a_scale_in_samples_too(tmp_path, subset):
    """As in the 8 x 8 digits of scikit-learn, whether they are stored as floats or not."""
    sixteenths = subset.pixels[:600, 0].numpy() // 16 * 16 // 15
    for kind in (np.uint8, np.int64, np.float32):
        np.savez(tmp_path / "x.npz", images=sixteenths.astype(kind))
        found = read_samples(tmp_path / "x.npz", subset)
        assert found.pixels.max() == 255 and found.notices, kind


def test_files_of_other_programs_draw_labels_as_often_as_real_images_have_them(subset):
    counted = replace(subset, frequencies=())  # not those of the set that it is a part of
    few = counted.take(torch.cat([torch.nonzero(subset.labels == k).flatten()[: 10 * (k + 1)] for k in range(10)]))
    model = build_model()
    own = _with_shares_of(few, model)
    assert own is model  # which has frequencies of its own
    foreign = replace(model, notices=("its input y is taken for labels",))
    told = _with_shares_of(few, foreign)
    np.testing.assert_allclose(told.conditioning.frequencies, np.arange(1, 11) / 55)
    assert "as often as the real images" in told.notices[-1]
    assert _with_shares_of(few.without_labels(), foreign) is foreign
    assert _with_shares_of(few.take(torch.nonzero(few.labels < 5).flatten()), foreign) is foreign  # of five classes


def test_comparisons_pass_on_what_files_of_other_programs_need(tmp_path, monkeypatch):
    seen = {}

    def note(target, **choices):
        seen[target.name] = choices["num_classes"], choices["resize"]
        return {"fd_ratio": 1.0, "fd_ratios": {}, "valid": True, "gates": {}, "metrics": {}, "data": "x", "n": 1}

    monkeypatch.setattr(evaluation, "evaluate", note)
    (tmp_path / "images").mkdir()
    (tmp_path / "x.onnx").write_bytes(b"")
    gs.compare(tmp_path / "x.onnx", tmp_path / "images", num_classes=3, resize="pad")
    assert seen == {"x.onnx": (3, "pad"), "images": (None, "pad")}


@pytest.mark.slow
def test_other_images_of_the_same_name_give_no_verdict_on_a_runs_own(digits, tmp_path):
    """Every array is called images."""
    own, others = gs.Images(digits[0][:150], digits[1][:150]), gs.Images(digits[0][150:], digits[1][150:])
    few = dict(images=64, g_width=8, d_width=8, progress="none", threads=1)
    run = gs.train("mlp-small", data=own, out=tmp_path / "run", **few)
    assert run.evaluate(data=others, quick=True)["data"] == f"{own.name} (other images)"
    assert run.verdict is None
    checkpoint = run.latest()
    with pytest.raises(ConfigError, match="images"):
        gs.evaluate(checkpoint)  # of a run on images in memory, that are not here
    assert gs.evaluate(checkpoint, data=own, quick=True)["data"] == own.name
    assert gs.open_run(run.directory).verdict["data"] == own.name


@pytest.mark.slow
def test_objects_are_prepared_for_a_checkpoint_as_for_its_run(tmp_path):
    draw = np.random.default_rng(0)
    pictures = [Image.fromarray(draw.integers(0, 255, (20, 30, 3), np.uint8)) for _ in range(60)]
    run = gs.train("mlp-small", data=pictures, size=16, images=64, out=tmp_path / "run", progress="none", threads=1)
    file = shutil.copy(run.latest() / "generator.safetensors", tmp_path)
    of_run = run.evaluate(quick=True)
    for target in (run.latest(), run.latest() / "generator.safetensors", Path(file)):
        found = gs.evaluate(target, data=pictures, quick=True)
        assert found["hashes"] == of_run["hashes"] and found["metrics"] == of_run["metrics"]
