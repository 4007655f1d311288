"""Files of numbers: layouts, number formats and labels of .npz, .npy, tables, CIFAR and SVHN."""

import zipfile

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from gansmith.data.arrays import as_arrays, kind_of, opaque, read_file
from gansmith.data.prepare import Preparation, laid_over
from gansmith.data.sources import load_source, open_source
from gansmith.errors import DataError

RNG = np.random.default_rng(0)
COLOR = RNG.integers(0, 256, (6, 8, 8, 3), dtype=np.uint8)
COLOR[0, 0, 0, 0], COLOR[0, 0, 0, 1] = 0, 255  # so that scaling by the range is scaling by 255
GREY = COLOR[..., :2].reshape(6, 8, 16)[:, :, :8].copy()
LABELS = np.array([2, 0, 1, 2, 1, 0])


@pytest.mark.parametrize(
    ("images", "labels"),
    [("x_train", "y_train"), ("train_images", "train_labels"), ("x", "y"), ("data", "target"), ("arr_0", "arr_1")],
)
def test_archives_of_arrays_are_read_by_the_usual_names(tmp_path, images, labels):
    np.savez(tmp_path / "a.npz", **{images: COLOR, labels: LABELS})
    parts = read_file(tmp_path / "a.npz")
    assert set(parts) == {"train"}
    np.testing.assert_array_equal(parts["train"].pixels, COLOR)
    np.testing.assert_array_equal(parts["train"].labels, LABELS)


@pytest.mark.parametrize("shape", ["keras", "medmnist"])
def test_the_test_part_is_found_too(tmp_path, shape):
    names = ("x_train", "y_train", "x_test", "y_test")
    labels = LABELS
    if shape == "medmnist":
        names = ("train_images", "train_labels", "test_images", "test_labels")
        labels = LABELS[:, None].astype(np.uint8)
    arrays = dict(zip(names, (GREY[:4], labels[:4], GREY[4:], labels[4:]), strict=True))
    if shape == "medmnist":
        arrays |= {"val_images": GREY[:1], "val_labels": labels[:1]}
    np.savez_compressed(tmp_path / "a.npz", **arrays)
    parts = read_file(tmp_path / "a.npz")
    np.testing.assert_array_equal(parts["train"].pixels, GREY[:4, ..., None])
    np.testing.assert_array_equal(parts["test"].pixels, GREY[4:, ..., None])
    assert parts["test"].labels.tolist() == [1, 0]


@pytest.mark.parametrize(
    "stored",
    [
        COLOR, COLOR.astype(np.int64), COLOR.astype(np.float32), COLOR / 255, (COLOR / 127.5 - 1).astype(np.float32),
        np.asfortranarray(COLOR.transpose(0, 3, 1, 2)), COLOR.transpose(0, 3, 1, 2).reshape(6, -1),
    ],
    ids=["bytes", "whole", "floats to 255", "floats to 1", "floats from -1", "channels first", "rows"],
)  # fmt: skip
def test_every_usual_form_gives_the_same_images(stored):
    np.testing.assert_array_equal(as_arrays(stored, None, "x").pixels, COLOR)


@pytest.mark.parametrize("kind", [bool, np.uint8, np.int64])
def test_zeros_and_ones_are_black_and_white(kind):
    found = as_arrays((GREY > 100).astype(kind), None, "x")
    np.testing.assert_array_equal(found.pixels[..., 0], np.where(GREY > 100, 255, 0))
    assert found.notices == (() if kind is bool else ("its numbers are 0 and 1, which are taken for black and white",))


@pytest.mark.parametrize("is_channels_last", [True, False])
def test_transparent_images_are_laid_over_a_ground_as_pictures_are(is_channels_last):
    rgba = np.concatenate([np.full((6, 8, 8, 3), 250, np.uint8), GREY[..., None]], axis=-1)
    stored = rgba if is_channels_last else rgba.transpose(0, 3, 1, 2)
    found = opaque(as_arrays(stored, None, "x"), "auto")
    assert found.pixels.shape == (6, 8, 8, 3) and found.notices == ("transparent images are laid over black",)
    over_black = [np.asarray(laid_over(Image.fromarray(image), 0)) for image in rgba]
    np.testing.assert_array_equal(found.pixels, over_black)
    assert abs(found.pixels[..., 0].astype(int) - GREY * (250 / 255)).max() < 1
    over_white = opaque(as_arrays(stored, None, "x"), "white")
    assert over_white.pixels.min() >= 250 and over_white.notices == ("transparent images are laid over white",)
    rgba[..., :3] = 5
    assert opaque(as_arrays(stored, None, "x"), "auto").notices == ("transparent images are laid over white",)
    rgba[..., 3] = 255
    np.testing.assert_array_equal(as_arrays(stored, None, "x").pixels, rgba[..., :3])


SHADES = np.mgrid[0:12, 0:12].sum(0) * 8 + RNG.integers(0, 12, (6, 12, 12))
SMOOTH = np.stack([SHADES // 2 + 120, SHADES, SHADES // 3], axis=-1).astype(np.uint8)


@pytest.mark.parametrize("images", [SMOOTH, SMOOTH[..., [0, 0, 0]], SMOOTH / 255], ids=["color", "grey", "floats"])
@pytest.mark.parametrize("order", ["pixel by pixel", "channel by channel"])
def test_flat_color_images_are_taken_in_the_order_in_which_they_are_smoother(order, images):
    stored = images if order == "pixel by pixel" else images.transpose(0, 3, 1, 2)
    found = as_arrays(stored.reshape(6, -1), None, "x")
    expected = images if images.dtype == np.uint8 else np.rint(images * 255)
    np.testing.assert_array_equal(found.pixels, expected)
    assert order in found.notices[-1]


@pytest.mark.parametrize(
    "stored", [LABELS, LABELS[:, None], LABELS.astype(float), np.eye(3)[LABELS], np.eye(3, dtype=bool)[LABELS]],
    ids=["numbers", "column", "floats", "one-hot", "one-hot booleans"],
)  # fmt: skip
def test_labels_are_numbers_or_one_hot_rows(stored):
    assert as_arrays(GREY, stored, "x").labels.tolist() == LABELS.tolist()


@pytest.mark.parametrize("kind", [str, object, "S3"])
def test_labels_that_are_names_are_numbered_in_order(kind):
    found = as_arrays(GREY, np.array(["ape", "dog", "owl"])[LABELS].astype(kind), "x")
    assert found.labels.tolist() == LABELS.tolist() and found.class_names == ("ape", "dog", "owl")
    digits = as_arrays(GREY, (LABELS + 3).astype(str).astype(kind), "x")
    assert digits.labels.tolist() == (LABELS + 3).tolist() and digits.class_names == ("0", "1", "2", "3", "4", "5")


def test_minus_one_stands_for_no_label():
    found = as_arrays(GREY, np.full(6, -1), "x")
    assert found.labels is None and found.notices == ()


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        (np.where(LABELS > 1, np.nan, 0), "no label for 2 of 6 images"),
        (np.array(["ape", None, "", "dog", "dog", "dog"], object), "no label for 2 of 6"),
        (np.where(LABELS > 1, -1, 0), "labels below 0 for 2 of 6"),
        (np.tile([[0, 1, 0, 1]], (6, 1)), "labels of several classes, or of none, for an image"),
        (np.zeros((6, 14)), "labels of several classes, or of none, for an image"),
    ],
)
def test_images_whose_labels_cannot_be_used_are_read_without_and_said(labels, words):
    found = as_arrays(GREY, labels, "x")
    assert found.labels is None and words in found.notices[0] and "used without labels" in found.notices[0]


@pytest.mark.parametrize(
    ("images", "labels", "words"),
    [
        (GREY.astype(float) * 2, None, "0 to 255"),
        (GREY.astype(float) - 9, None, "0 to 255"),
        (np.where(GREY > 250, np.nan, 0.5), None, "non-finite"),
        (np.zeros((6, 50), np.uint8), None, "no square images"),
        (np.zeros((6, 8, 8, 2), np.uint8), None, "an array of shape"),
        (np.zeros((6, 8, 8), complex), None, "whole numbers or floats"),
        (GREY, LABELS[:4], "4 labels for 6 images"),
        (GREY, LABELS + 0.5, "no whole numbers"),
        (GREY, np.where(LABELS > 1, np.inf, 0), "no whole numbers"),
        (GREY, np.full((6, 3), 0.4), "no one-hot rows"),
    ],
)
def test_other_numbers_are_refused(images, labels, words):
    with pytest.raises(DataError, match=words):
        as_arrays(images, labels, "x")


LABEL_FILES = {
    "x_train": "y_train", "X": "Y", "X_test": "y_test", "train_images": "train_labels", "imgs": "labels", "a": "y_a",
    "train_x": "train_y", "trainX": "trainY", "train_data": "train_labels", "images": "targets", "xtest": "ytest",
}  # fmt: skip


@pytest.mark.parametrize("images", LABEL_FILES)
def test_labels_beside_an_array_are_found_by_the_usual_names(tmp_path, images):
    np.save(tmp_path / f"{images}.npy", GREY)
    np.save(tmp_path / f"{LABEL_FILES[images]}.npy", np.eye(3)[LABELS])
    found = read_file(tmp_path / f"{images}.npy")["train"]
    assert found.labels.tolist() == LABELS.tolist() and found.notices == ()


def test_each_part_has_its_own_labels_and_others_are_said(tmp_path):
    for part, rows in (("train", slice(0, 4)), ("test", slice(4, 6))):
        np.save(tmp_path / f"x_{part}.npy", GREY[rows])
        np.save(tmp_path / f"Y_{part}.npy", np.array(["ape", "dog", "owl"])[LABELS[rows]])
    source = open_source(tmp_path)
    for part, rows in (("train", slice(0, 4)), ("test", slice(4, 6))):
        assert load_source(source, Preparation(), part=part).labels.tolist() == LABELS[rows].tolist()
    assert load_source(source, Preparation()).class_names == ("ape", "dog", "owl")
    np.save(tmp_path / "y.npy", GREY)  # images, not labels
    np.save(tmp_path / "other.npy", GREY)
    (tmp_path / "my_labels.csv").write_text("0\n")
    found = read_file(tmp_path / "other.npy")["train"]
    assert found.labels is None and "beside other.npy that are not used: my_labels.csv, y.npy;" in found.notices[0]


def test_a_single_array_has_its_labels_beside_it(tmp_path):
    np.save(tmp_path / "digits.npy", GREY)
    assert read_file(tmp_path / "digits.npy")["train"].labels is None
    np.save(tmp_path / "digits_labels.npy", LABELS)
    assert read_file(tmp_path / "digits.npy")["train"].labels.tolist() == LABELS.tolist()


@pytest.mark.parametrize("labels", [1, 2])
def test_the_binary_form_of_cifar_is_read(tmp_path, labels):
    pixels = RNG.integers(0, 256, (4, 3, 32, 32), dtype=np.uint8)
    numbers = np.array([[3, 9], [0, 1], [3, 5], [7, 7]], np.uint8)[:, -labels:]
    np.concatenate([numbers, pixels.reshape(4, -1)], axis=1).tofile(tmp_path / "data_batch_1.bin")
    found = read_file(tmp_path / "data_batch_1.bin")["train"]
    np.testing.assert_array_equal(found.pixels, pixels.transpose(0, 2, 3, 1))
    assert found.labels.tolist() == [9, 1, 5, 7]
    (tmp_path / "cut.bin").write_bytes((tmp_path / "data_batch_1.bin").read_bytes()[:-1])
    with pytest.raises(DataError, match="no multiple of CIFAR's rows"):
        read_file(tmp_path / "cut.bin")


def test_the_form_of_svhn_is_read_with_ten_as_zero(tmp_path):
    pixels = RNG.integers(0, 256, (32, 32, 3, 4), dtype=np.uint8)
    savemat(tmp_path / "train_32x32.mat", {"X": pixels, "y": np.array([[10], [1], [9], [10]])})
    found = read_file(tmp_path / "train_32x32.mat")["train"]
    np.testing.assert_array_equal(found.pixels, pixels.transpose(3, 0, 1, 2))
    assert found.labels.tolist() == [0, 1, 9, 0]
    savemat(tmp_path / "packed.mat", {"note": "digits", "X": pixels, "y": np.ones((4, 1))}, do_compression=True)
    np.testing.assert_array_equal(read_file(tmp_path / "packed.mat")["train"].pixels, found.pixels)
    signs = np.array([[1], [10], [42], [0]])
    savemat(tmp_path / "signs.mat", {"X": pixels, "y": signs})  # 10 is zero only where there are ten classes
    assert read_file(tmp_path / "signs.mat")["train"].labels.tolist() == [1, 10, 42, 0]
    for X in (pixels.astype(complex), np.array([pixels, "text"], dtype=object), "text"):
        savemat(tmp_path / "odd.mat", {"X": X})
        with pytest.raises(DataError, match="X is not an array of plain numbers"):
            read_file(tmp_path / "odd.mat")
    savemat(tmp_path / "other.mat", {"z": pixels})
    with pytest.raises(DataError, match="holds no X"):
        read_file(tmp_path / "other.mat")


@pytest.mark.parametrize("name", ["a.npz", "a.npy", "a.csv", "a.csv.gz", "a.bin", "a.mat", "a.parquet", "a.txt"])
@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 no archive", b"\x80\x04garbage" * 50])
def test_damage_is_refused_in_one_line(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError) as caught:
        read_file(tmp_path / name)
    assert len(str(caught.value).splitlines()) == 1 and name in str(caught.value)


@pytest.mark.parametrize("name", ["image", "img", "imgs", "train_x", "trainX", "pixels", "mine"])
def test_other_names_of_arrays_are_known_and_the_only_images_need_none(tmp_path, name):
    np.savez(tmp_path / "a.npz", **{name: GREY, "labels": np.array(["dog", "ape"])[LABELS % 2], "test_x": GREY[:2]})
    parts = read_file(tmp_path / "a.npz")
    np.testing.assert_array_equal(parts["train"].pixels[..., 0], GREY)
    assert parts["train"].labels.tolist() == (1 - LABELS % 2).tolist() and len(parts["test"].pixels) == 2
    np.savez(tmp_path / "c.npz", features=GREY.reshape(6, -1), fine_labels=np.eye(9)[LABELS])
    found = read_file(tmp_path / "c.npz")["train"]
    np.testing.assert_array_equal(found.pixels[..., 0], GREY)
    assert found.labels is None and "arrays that are not used: fine_labels" in found.notices[0]
    np.savez(tmp_path / "b.npz", mine=GREY, other=GREY)
    with pytest.raises(DataError, match="holds mine, other; images are looked for as"):
        read_file(tmp_path / "b.npz")


def test_both_parts_number_names_alike(tmp_path):
    names = np.array(["ape", "dog", "owl"])[LABELS]
    np.savez(tmp_path / "a.npz", x_train=GREY, y_train=names, x_test=GREY[:1], y_test=names[:1])
    parts = read_file(tmp_path / "a.npz")
    assert parts["test"].labels.tolist() == [2] and parts["test"].class_names == parts["train"].class_names


def test_arrays_are_known_by_their_first_bytes(tmp_path):
    for name, saved in (("a.npz", np.save), ("b.npy", np.savez)):
        with (tmp_path / name).open("wb") as file:
            saved(file, GREY)
        np.testing.assert_array_equal(read_file(tmp_path / name)["train"].pixels[..., 0], GREY)


def test_objects_are_never_unpickled(tmp_path):
    np.savez(tmp_path / "a.npz", images=np.array([{}, {}]))
    with pytest.raises(DataError, match="plain numbers"):
        read_file(tmp_path / "a.npz")
    with zipfile.ZipFile(tmp_path / "b.npz", "w") as archive:
        archive.writestr("other.npy", b"")
    with pytest.raises(DataError, match="holds other; images are looked for as x_train"):
        read_file(tmp_path / "b.npz")


def test_kinds_are_known_by_name_or_by_the_first_bytes(tmp_path):
    for name, kind in (("a.NPZ", "npz"), ("a.tsv", "table"), ("a.txt", ""), ("b", "idx")):
        (tmp_path / name).write_bytes(bytes([0, 0, 8, 3]) if kind == "idx" else b"text")
        assert kind_of(tmp_path / name) == kind


def test_labels_that_are_identifiers_are_refused(tmp_path):
    np.savez(tmp_path / "a.npz", images=GREY, labels=LABELS + 10**12)
    with pytest.raises(DataError, match="labels up to 1e.12; number the classes from 0 to at most 9,999"):
        read_file(tmp_path / "a.npz")


@pytest.mark.parametrize("name", ["x.npy", "x.npz"])
def test_transparent_images_in_files_are_laid_over_the_background_asked_for(name, tmp_path):
    rgba = np.concatenate([COLOR, np.zeros_like(COLOR[..., :1])], axis=-1)
    rgba[0, 0, 0, 3] = 255
    np.save(tmp_path / name, rgba) if name.endswith("npy") else np.savez(tmp_path / name, images=rgba)
    for background, ground in (("white", 255), ("black", 0)):
        images = load_source(open_source(tmp_path / name), Preparation(background=background))
        assert (images.pixels[1:] == ground).all() and images.pixels[0, :, 0, 0].tolist() == COLOR[0, 0, 0].tolist()
        assert f"laid over {background}" in " ".join(images.notices)


def test_transparent_test_images_are_laid_over_the_background_of_the_training_images(tmp_path):
    bright, dark = (np.full((6, 8, 8, 4), value, np.uint8) for value in (250, 5))
    bright[..., 3] = dark[..., 3] = 100
    np.savez(tmp_path / "x.npz", x_train=bright, x_test=dark)
    source = open_source(tmp_path / "x.npz")
    for part in ("train", "test"):  # by themselves, the latter would be laid over white
        assert "transparent images are laid over black" in load_source(source, Preparation(), part=part).notices
