"""IDX files, whole and broken, the folders they are looked for in, and the official sets."""

import gzip
import hashlib
import os
import tarfile
import tempfile
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import write_idx, write_set
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gansmith.data import load_data, official
from gansmith.data.idx import find_idx, load_idx, read_idx
from gansmith.data.official import cache_dir
from gansmith.data.prepare import Preparation
from gansmith.errors import DataError, NotFoundError


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_idx_files_hold_what_was_written(tmp_path, suffix):
    values = np.random.default_rng(0).integers(0, 256, (5, 4, 4), dtype=np.uint8)
    write_idx(tmp_path / f"a{suffix}", values)
    read, digest = read_idx(tmp_path / f"a{suffix}")
    np.testing.assert_array_equal(read, values)
    assert (
        digest == hashlib.sha256(bytes([0, 0, 8, 3, 0, 0, 0, 5, 0, 0, 0, 4, 0, 0, 0, 4]) + values.tobytes()).hexdigest()
    )


def whole_file():
    return bytes([0, 0, 8, 3, 0, 0, 0, 2, 0, 0, 0, 4, 0, 0, 0, 4]) + bytes(32)


@pytest.mark.parametrize(
    ("content", "word"),
    [
        (b"", "nothing"),
        (b"\x89PNG" + bytes(50), "does not start"),
        (bytes([0, 0, 10, 3]) + whole_file()[4:], "does not start"),
        (bytes([0, 0, 13, 3]) + whole_file()[4:], "its header says 128 bytes, it holds 32"),
        (bytes([0, 0, 8, 9]) + whole_file()[4:], "does not start"),
        (whole_file()[:10], "damaged header"),
        (whole_file()[:-1], "cut off"),
        (whole_file() + b"\0", "larger than"),
        (bytes([0, 0, 8, 3]) + b"\xff" * 12 + bytes(32), "damaged header"),
    ],
)
@pytest.mark.parametrize("packed", [False, True])
def test_broken_idx_files_are_refused(tmp_path, content, word, packed):
    path = tmp_path / ("a.gz" if packed else "a")
    path.write_bytes(gzip.compress(content) if packed else content)
    with pytest.raises(DataError, match=word) as refusal:
        read_idx(path)
    assert "\n" not in str(refusal.value)


def test_a_damaged_archive_is_refused(tmp_path):
    packed = gzip.compress(whole_file())
    for damaged in (packed[:-9], packed[:20] + bytes(4) + packed[24:], b"not gzip at all"):
        path = tmp_path / "a.gz"
        path.write_bytes(damaged)
        with pytest.raises(DataError, match="fetch it again"):
            read_idx(path)


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(content=st.binary(max_size=80), start=st.sampled_from([b"", b"\0\0\x08\x01", b"\0\0\x08\x03"]))
def test_any_bytes_are_read_or_refused(tmp_path, content, start):
    path = tmp_path / "any"
    path.write_bytes(start + content)
    try:
        values, _ = read_idx(path)
    except DataError as refusal:
        assert str(path) in str(refusal)
    else:
        assert values.size <= len(content)


def test_a_folder_is_used_alone_and_described(tmp_path, digits):
    folder = write_set(tmp_path / "mine", *digits)
    images = load_data("mnist", data_dir=folder)
    np.testing.assert_array_equal(images.pixels[:, 0].numpy(), digits[0])
    np.testing.assert_array_equal(images.labels.numpy(), digits[1])
    assert images.source == str(folder) and any("not the official" in notice for notice in images.notices)
    with pytest.raises(NotFoundError, match="holds no test images"):
        load_data("mnist", data_dir=folder, part="test")
    (tmp_path / "empty").mkdir()
    with pytest.raises(NotFoundError, match="holds no images"):
        load_data("mnist", data_dir=tmp_path / "empty")


def test_sources_are_tried_in_order(tmp_path, monkeypatch, digits):
    images, labels = digits
    assert "embedded" in load_data("mnist").source
    cache = write_set(tmp_path / "cache" / "mnist", images[:30], labels[:30])
    assert load_data("mnist").source == str(cache)
    shared = write_set(tmp_path / "shared" / "mnist", images[:20], labels[:20])
    monkeypatch.setenv("GANSMITH_DATA", str(tmp_path / "shared"))
    assert load_data("mnist").source == str(shared)
    assert load_data("mnist", data_dir=cache).source == str(cache)
    (shared / "train-images-idx3-ubyte.gz").write_bytes(b"rubbish")
    with pytest.raises(DataError, match="fetch it again"):  # a damaged source is an error, not skipped
        load_data("mnist")


def test_labels_must_match_and_may_be_missing(tmp_path, digits):
    images, labels = digits
    with pytest.raises(DataError, match="one label for each image"):
        load_data("idx", data_dir=write_set(tmp_path / "a", images, labels[:-1]))
    unlabelled = load_data("idx", data_dir=write_set(tmp_path / "b", images, None))
    assert unlabelled.labels is None and unlabelled.num_classes == 0
    with pytest.raises(DataError, match="holds no images"):
        load_data("idx", data_dir=write_set(tmp_path / "c", images[:0], labels[:0]))
    with pytest.raises(DataError, match=r"shape \(400, 0, 28\); images of at least one pixel"):
        load_data("idx", data_dir=write_set(tmp_path / "d", images[:, :0], labels))


def test_emnist_is_turned_upright(tmp_path, digits):
    images, labels = digits
    folder = tmp_path / "e"
    folder.mkdir()
    write_idx(folder / "emnist-digits-train-images-idx3-ubyte.gz", images.transpose(0, 2, 1))
    write_idx(folder / "emnist-digits-train-labels-idx1-ubyte.gz", labels)
    np.testing.assert_array_equal(load_data("emnist-digits", data_dir=folder).pixels[:, 0].numpy(), images)


def test_the_cache_is_the_users_unless_the_environment_names_one(monkeypatch, tmp_path):
    assert cache_dir("mnist") == tmp_path / "cache" / "mnist"
    monkeypatch.delenv("GANSMITH_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_dir("mnist") == tmp_path / "xdg" / "gansmith" / "mnist"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert cache_dir("mnist") == tmp_path / "home" / ".cache" / "gansmith" / "mnist"


@pytest.mark.parametrize("version", ["newer", "older"])
def test_a_user_without_a_home_has_a_cache(monkeypatch, version):
    for name in ("GANSMITH_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)  # what it does where no home is known
    if version == "older":  # of platformdirs
        monkeypatch.setattr("platformdirs.user_cache_dir", lambda *args, **keywords: "~/.cache/gansmith")
    assert cache_dir("mnist") == Path(tempfile.gettempdir()) / ".cache" / "gansmith" / "mnist"


@pytest.mark.parametrize(
    ("images", "labels"),
    [
        ("train-images.idx3-ubyte", "train-labels.idx1-ubyte"),
        ("my-train-pictures", "my-train-classes"),
        ("training_images.ubyte.gz", "training_labels.ubyte.gz"),
        ("pictures.idx", "classes.idx"),
    ],
)
def test_files_of_any_name_are_known_by_their_first_bytes(tmp_path, digits, images, labels):
    write_idx(tmp_path / images, digits[0])
    write_idx(tmp_path / labels, digits[1])
    (tmp_path / "notes.txt").write_text("train")
    for path in (tmp_path, tmp_path / images):
        found = load_data("idx" if path is tmp_path else str(path), data_dir=path if path is tmp_path else None)
        np.testing.assert_array_equal(found.pixels[:, 0].numpy(), digits[0])
        np.testing.assert_array_equal(found.labels.numpy(), digits[1])


def test_packing_is_known_by_content_not_by_name(tmp_path, digits):
    write_idx(tmp_path / "train-images.gz", digits[0])
    (tmp_path / "train-images.gz").rename(tmp_path / "train-images-idx3-ubyte")
    (tmp_path / "train-labels-idx1-ubyte.gz").write_bytes(b"")
    write_idx(tmp_path / "plain", digits[1])
    (tmp_path / "plain").replace(tmp_path / "train-labels-idx1-ubyte.gz")  # unpacked by a browser
    found = load_data("mnist", data_dir=tmp_path)
    np.testing.assert_array_equal(found.pixels[:, 0].numpy(), digits[0])
    assert found.labels.tolist() == digits[1].tolist()


def test_the_folders_of_torchvision_are_found_by_name(tmp_path, digits):
    images, labels = digits
    write_set(tmp_path / "MNIST" / "raw", images[:30], labels[:30])
    assert len(load_data("mnist", data_dir=tmp_path)) == 30
    write_set(tmp_path / "FashionMNIST" / "raw", images[:20], labels[:20])
    assert len(load_data("mnist", data_dir=tmp_path)) == 30
    fashion = load_data("fashion-mnist", data_dir=tmp_path)
    assert len(fashion) == 20 and fashion.class_names[1] == "trouser"
    with pytest.raises(DataError, match="several data sets .*FashionMNIST/raw, MNIST/raw"):
        load_data("kmnist", data_dir=tmp_path)


def test_the_zip_of_emnist_is_read_by_name(tmp_path, digits):
    images, labels = digits
    folder = tmp_path / "gzip"
    folder.mkdir()
    for name, count in (("balanced", 30), ("digits", 40)):
        write_idx(folder / f"emnist-{name}-train-images-idx3-ubyte.gz", images[:count].transpose(0, 2, 1))
        write_idx(folder / f"emnist-{name}-train-labels-idx1-ubyte.gz", labels[:count])
    (tmp_path / "data").mkdir()
    with zipfile.ZipFile(tmp_path / "data" / "gzip.zip", "w") as archive:
        for file in folder.iterdir():
            archive.write(file, f"gzip/{file.name}")
    for name, count in (("balanced", 30), ("digits", 40)):
        found = load_data(f"emnist-{name}", data_dir=tmp_path / "data")
        np.testing.assert_array_equal(found.pixels[:, 0].numpy(), images[:count])
        assert found.labels.tolist() == labels[:count].tolist() and found.source.endswith("gzip.zip")
    with pytest.raises(DataError, match="several files of images may be meant"):
        load_data(str(tmp_path / "data" / "gzip.zip"))


def test_a_zip_is_searched_at_any_depth_and_by_name(tmp_path, digits):
    images, labels = digits
    for name, count in (("MNIST", 30), ("FashionMNIST", 20)):
        write_set(tmp_path / "data" / name / "raw", images[:count], labels[:count])
    one, both = tmp_path / "one.zip", tmp_path / "both.zip"
    with zipfile.ZipFile(one, "w") as first, zipfile.ZipFile(both, "w") as second:
        for file in sorted(path for path in (tmp_path / "data").rglob("*") if path.is_file()):
            second.write(file, file.relative_to(tmp_path))
            if "Fashion" not in str(file):
                first.write(file, file.relative_to(tmp_path))
    assert len(load_data(str(one))) == 30
    assert len(load_data("mnist", data_dir=both)) == 30 and len(load_data("fashion-mnist", data_dir=both)) == 20
    with pytest.raises(DataError, match="several data sets .*data/MNIST/raw.*unpack it and name one"):
        load_data(str(both))


def test_a_named_set_is_found_in_an_archive_and_in_the_folder_of_keras(tmp_path, digits):
    images, labels = digits
    write_set(tmp_path / "MNIST" / "raw", images[:30], labels[:30])
    (tmp_path / "held").mkdir()
    with tarfile.open(tmp_path / "held" / "MNIST.tar.gz", "w:gz") as archive:
        archive.add(tmp_path / "MNIST", "MNIST")
    with zipfile.ZipFile(tmp_path / "archive.zip", "w") as archive:
        for file in (tmp_path / "MNIST" / "raw").iterdir():
            archive.writestr(file.name.removesuffix(".gz"), gzip.decompress(file.read_bytes()))
    (tmp_path / "kaggle").mkdir()
    (tmp_path / "archive.zip").rename(tmp_path / "kaggle" / "archive.zip")
    for place in ("held", "held/MNIST.tar.gz", "kaggle"):
        found = load_data("mnist", data_dir=tmp_path / place)
        assert found.name == "mnist" and found.labels.tolist() == labels[:30].tolist()
        np.testing.assert_array_equal(found.pixels[:, 0].numpy(), images[:30])
        with pytest.raises(NotFoundError, match="holds no test images"):
            load_data("mnist", data_dir=tmp_path / place, part="test")
    keras = tmp_path / "datasets"
    write_set(keras / "fashion-mnist", images[30:50], labels[30:50])
    np.savez(keras / "mnist.npz", x_train=images[:30], y_train=labels[:30], x_test=images[:2], y_test=labels[:2])
    assert len(load_data("fashion-mnist", data_dir=keras)) == 20 and len(load_data("mnist", data_dir=keras)) == 30


def test_the_labels_of_qmnist_are_its_first_column(tmp_path, digits):
    write_idx(tmp_path / "qmnist-train-images-idx3-ubyte", digits[0])
    table = np.zeros((400, 8), ">i4")
    table[:, 0], table[:, 1] = digits[1], 77
    header = bytes([0, 0, 0x0C, 2]) + (400).to_bytes(4, "big") + (8).to_bytes(4, "big")
    (tmp_path / "qmnist-train-labels-idx2-int.gz").write_bytes(gzip.compress(header + table.tobytes()))
    found = load_data("idx", data_dir=tmp_path)
    assert found.labels.tolist() == digits[1].tolist()


@pytest.mark.parametrize(
    ("kind", "name", "scale"),
    [
        ("f4", "pictures-idx3-ubyte", 255),
        ("f8", "mine-idx3-double", 255),
        ("i2", "a-idx3-short", 1),
        ("i4", "a", 1),
    ],
)
def test_numbers_of_every_type_are_read_as_those_of_arrays_are(tmp_path, digits, kind, name, scale):
    images, labels = digits[0][:20].astype(int), digits[1][:20]
    write_idx(tmp_path / name, images / scale, kind)
    write_idx(tmp_path / "labels-idx1-byte", labels, "i1")
    found = load_data(str(tmp_path))
    np.testing.assert_array_equal(found.pixels[:, 0].numpy(), images)
    assert found.labels.tolist() == labels.tolist()
    write_idx(tmp_path / name, np.where(images == 0, -7, images), kind)
    with pytest.raises(DataError, match=f"{name} holds numbers from -7 to 255"):
        load_data(str(tmp_path))


@pytest.mark.parametrize("shape", [(20, 784), (20, 28, 28, 1), (20, 1, 28, 28), (60, 32, 32, 3)])
def test_flat_images_and_images_in_color_are_read(tmp_path, digits, shape):
    stored = np.resize(digits[0], shape)
    write_idx(tmp_path / f"train-images-idx{len(shape)}-ubyte", stored)
    write_idx(tmp_path / "train-labels-idx2-ubyte", np.eye(64)[np.arange(shape[0])])  # one-hot
    found = load_data(str(tmp_path))
    expected = stored.transpose(0, 3, 1, 2) if shape[-1] == 3 else stored.reshape(20, 1, 28, 28)
    np.testing.assert_array_equal(found.pixels.numpy(), expected)
    assert found.labels.tolist() == list(range(shape[0]))


@pytest.mark.parametrize(
    ("shape", "size"), [((30, 30), 32), ((28, 20), 20), ((1, 1), 8), ((4, 4), 8), ((200, 200), 64), ((128, 128), 128)]
)
def test_images_of_any_size_are_prepared_as_arrays_are(tmp_path, shape, size):
    pixels = np.random.default_rng(0).integers(0, 256, (6, *shape), dtype=np.uint8)
    np.savez(tmp_path / "x.npz", images=pixels)
    for path in (write_set(tmp_path / "set", pixels, np.arange(6)), tmp_path / "x.npz"):
        found = load_data(str(path))
        assert tuple(found.pixels.shape) == (6, 1, size, size)
        assert any("--size chooses another" in notice for notice in found.notices) is (shape != (size, size))
    np.testing.assert_array_equal(
        load_data("idx", data_dir=tmp_path / "set").pixels.numpy(), load_data(str(tmp_path / "x.npz")).pixels.numpy()
    )
    asked = load_data(str(tmp_path / "set"), how=Preparation(30))
    assert asked.spec.size == 30
    if shape == (30, 30):
        np.testing.assert_array_equal(asked.pixels[:, 0].numpy(), pixels)


def test_images_that_need_no_preparation_are_not_copied(tmp_path, digits, monkeypatch):
    stored = []
    monkeypatch.setattr("gansmith.data.idx.read_idx", lambda path: stored.append(read_idx(path)) or stored[-1])
    found = load_data(str(write_set(tmp_path / "set", *digits)))
    assert np.shares_memory(found.pixels.numpy(), stored[0][0])


def test_labels_are_checked_as_those_of_arrays_are(tmp_path, digits):
    write_idx(tmp_path / "a-images-idx3-ubyte", digits[0][:20])
    labels = tmp_path / "a-labels-idx1-int"
    write_idx(labels, np.arange(20) + 100_000, "i4")
    with pytest.raises(DataError, match="idx1-int has labels up to 100019; number the classes from 0 to at most 9,999"):
        load_data(str(tmp_path))
    with pytest.raises(DataError, match="idx1-int is an IDX file of labels; give the file of their images"):
        load_data(str(labels))
    write_idx(labels, np.where(np.arange(20) < 3, -1, 5), "i4")
    found = load_data(str(tmp_path))
    assert found.labels is None
    assert found.notices == (f"{labels} has labels below 0 for 3 of 20 images, so images are used without labels",)


def test_of_test_images_alone_it_is_said_how_they_can_be_trained_on(tmp_path, digits):
    folder = write_set(tmp_path / "set", *digits, stem="t10k")
    assert len(load_data(str(folder), part="test")) == 400
    with pytest.raises(NotFoundError, match="holds no train images in IDX form, only t10k-images.*with train in place"):
        load_data(str(folder))


def test_an_official_set_under_another_name_is_called_by_its_own(tmp_path, digits, monkeypatch):
    folder = write_set(tmp_path / "mine", *digits)
    _, digest = read_idx(folder / "train-images-idx3-ubyte.gz")
    known = dict(official.OFFICIAL["fashion-mnist"].sha256, **{"train-images-idx3-ubyte.gz": digest})
    monkeypatch.setitem(official.OFFICIAL, "fashion-mnist", replace(official.OFFICIAL["fashion-mnist"], sha256=known))
    found = load_data("mnist", data_dir=folder)
    assert found.name == "fashion-mnist" and found.class_names[1] == "trouser"
    assert found.notices[0].startswith("these are the official images of fashion-mnist, not of mnist")
    assert load_data("fashion-mnist", data_dir=folder).notices == (
        f"the labels in {folder} are not the official fashion-mnist train set; used as they are",
    )


def test_nothing_is_found_where_there_is_nothing(tmp_path):
    (tmp_path / "a.txt").write_text("x")
    (tmp_path / "b").write_bytes(bytes([0, 0, 8]))
    (tmp_path / "damaged.zip").write_bytes(b"PK\x05\x06" + bytes(17) + b"x")
    for path in (tmp_path, tmp_path / "b", tmp_path / "damaged.zip"):
        assert find_idx(path) is None
    write_idx(tmp_path / "train-images", np.zeros((3, 4, 4)))
    with pytest.raises(NotFoundError, match="holds no test images"):
        load_idx(find_idx(tmp_path), "test", name="x")
