"""Data sets by name, and their three splits."""

import numpy as np
import pytest
import torch

from gansmith.data import DATASETS, load_data, load_split
from gansmith.data.images import Images
from gansmith.errors import ConfigError, DataError, NotFoundError


def test_the_embedded_digits_are_real_ones():
    images = load_data("mnist")
    assert images.pixels.shape == (5000, 1, 28, 28)
    assert torch.bincount(images.labels).tolist() == [500] * 10
    assert len(load_split("mnist", "validation")) == 500
    with pytest.raises(NotFoundError):
        load_split("mnist", "test")
    with pytest.raises(DataError, match="no split"):
        load_split("mnist", "dev")


def test_every_dataset_without_a_source_says_where_it_looked():
    for name in DATASETS:
        if name in ("mnist", "stacked-mnist") or name.startswith("gaussian"):
            continue
        with pytest.raises(NotFoundError, match="--data-dir"):
            load_data(name)


def test_the_three_splits_are_disjoint_and_exported_as_images(gansmith, digit_dir, tmp_path):
    parts = {}
    for name, count in (("train", 360), ("validation", 40)):
        words = ["--split", name, "--data-dir", digit_dir, "--out", tmp_path / f"{name}.npz"]
        assert gansmith("data", "export", "mnist", *words)[:2] == (0, f"{count} images -> {tmp_path / name}.npz\n")
        with np.load(tmp_path / f"{name}.npz") as stored:
            assert stored["images"].shape == (count, 28, 28, 1) and sorted(set(stored["labels"])) == list(range(10))
            parts[name] = {image.tobytes() for image in stored["images"]}
            expected = load_split("mnist", name, data_dir=digit_dir)
            np.testing.assert_array_equal(stored["images"][..., 0], expected.pixels[:, 0].numpy())
            np.testing.assert_array_equal(stored["labels"], expected.labels.numpy())
    assert not parts["train"] & parts["validation"]
    code, out, err = gansmith("data", "export", "mnist", "--split", "test", "--data-dir", digit_dir, "--out", "x.npz")
    assert code == 2 and out == "" and "holds no test images" in err
    assert gansmith("data", "export", "mnist", "--split", "dev", "--out", "x.npz")[0] == 2


def test_check_prints_source_size_and_hash(gansmith, digit_dir):
    code, out, _ = gansmith("data", "check", "mnist", "--data-dir", digit_dir)
    images = load_data("mnist", data_dir=digit_dir)
    assert code == 0 and out.splitlines()[:3] == [
        "mnist: 400 images of 28x28, 1 channel, 10 classes, before some are held out",
        f"source: {digit_dir}",
        f"sha256: {images.sha256}",
    ]
    assert "full MNIST is not available" in gansmith("data", "check", "mnist")[1]


def test_fetch_says_why_it_failed(gansmith):
    code, out, err = gansmith("data", "fetch", "mnist")
    assert code == 2 and out == "" and "GANSMITH_OFFLINE is set" in err and len(err.splitlines()) == 1


def test_a_row_of_a_program_names_its_images_whatever_it_returns(monkeypatch):
    pixels = np.arange(3 * 64, dtype=np.uint8).reshape(3, 8, 8)
    for found in (Images(pixels, [0, 1, 0], name="other"), (pixels, [0, 1, 0])):
        monkeypatch.setitem(DATASETS, "d4", lambda root, part, found=found: found)
        images = load_data("d4")
        assert images.name == "d4" and images.labels.tolist() == [0, 1, 0]
        np.testing.assert_array_equal(images.pixels[:, 0].numpy(), pixels)
    monkeypatch.setitem(DATASETS, "d4", Images(pixels))
    with pytest.raises(ConfigError, match=r"DATASETS\['d4'\] is of type Images; give a function"):
        load_data("d4")
    monkeypatch.setitem(DATASETS, "d4", lambda root, part: None)
    with pytest.raises(DataError, match="data is of type NoneType"):
        load_data("d4")
