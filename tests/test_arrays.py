"""Files of numbers: layouts, number formats and labels of .npz, .npy, tables, CIFAR and SVHN."""

import gzip
import pickle
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.io import savemat

from gansmith.data import load_data
from gansmith.data.array_files import kind_of, read_file
from gansmith.data.arrays import as_arrays, opaque
from gansmith.data.prepare import Preparation, laid_over
from gansmith.data.sources import load_source, open_source
from gansmith.errors import DataError, reason_of

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


@pytest.mark.parametrize(
    ("low", "high", "taken"),
    [
        (0, 1, "[0, 1]"), (-0.002, 1, "[0, 1], and are clipped"), (-0.25, 1.25, "[0, 1], and are clipped"),
        (-0.25, 0.75, "[0, 1], and are clipped"), (-0.25, 0.7, "[-1, 1]"), (-0.0005, 0.5, "[0, 1]"),
        (-0.26, 1, "[-1, 1]"), (-1.25, 1.25, "[-1, 1], and are clipped"), (0.2, 1.25, "[0, 1], and are clipped"),
        (-1.26, 1, ""), (-0.3, 1.26, ""),
    ],
)  # fmt: skip
def test_floats_slightly_beyond_their_range_are_clipped_to_it(low, high, taken):
    stored = np.full((2, 8, 8), 0.5)
    stored[0, 0, 0], stored[0, 0, 1] = low, high
    if not taken:
        with pytest.raises(DataError, match="0 to 255, or floats"):
            as_arrays(stored, None, "x")
        return
    found = as_arrays(stored, None, "x")
    assert found.notices[0].endswith(f"are taken to be in {taken}")
    black = -1 if taken.startswith("[-1") else 0
    expected = [round(255 * min(1, max(0, (value - black) / (1 - black)))) for value in (low, high, 0.5)]
    assert np.abs(found.pixels[0, 0, :3, 0].astype(int) - expected).max() <= 1  # 127.5 may go either way


@pytest.mark.parametrize("ends", [(-0.5, 0.5), (-0.496, 0.5)])
def test_floats_around_a_middle_grey_of_zero_keep_their_contrast(ends):
    levels = np.arange(256, dtype=np.uint8).reshape(4, 8, 8)
    found = as_arrays(levels / 255 - 0.5 if ends[0] == -0.5 else np.maximum(levels / 255 - 0.5, ends[0]), None, "x")
    assert found.notices[-1] == f"its floats, {ends[0]:.3g} to 0.5, are taken to be in [-0.5, 0.5]"
    assert np.abs(found.pixels[..., 0].astype(int) - levels).max() <= 1


def shaded(highest, count=40):
    """Return images of all whole numbers to the highest, which half of the images reach."""
    images = np.arange(count * 64).reshape(count, 8, 8) % (highest + 1)
    images[:, 0, 0] = np.where(np.arange(count) % 2, highest, 0)
    return images


@pytest.mark.parametrize("highest", [15, 16, 31, 63, 100, 127])
@pytest.mark.parametrize("kind", [np.uint8, np.int64, np.float64])
def test_whole_numbers_on_another_common_scale_are_scaled(highest, kind):
    stored = shaded(highest)
    found = as_arrays(stored.astype(kind), None, "x")
    assert np.abs(found.pixels[..., 0] - stored * (255 / highest)).max() <= 0.5
    assert found.notices == (f"its numbers, 0 to {highest}, are scaled to 0 to 255",)


RARELY = shaded(63)
RARELY[RARELY == 63] = 62
RARELY[:3, 0, 0] = 63


@pytest.mark.parametrize(
    ("stored", "highest"),
    [
        (shaded(16, count=20), 16), (shaded(50), 50), (shaded(99), 99), (RARELY, 63), (shaded(100) + 1, 101),
        (np.where(shaded(100) > 50, 100, 0), 100), (shaded(16) + shaded(16) % 2 * 0.5, 16), (shaded(140), 0),
    ],
    ids=["few", "50", "99", "rarely reached", "from 1", "two levels", "not whole", "bright"],
)  # fmt: skip
def test_dark_images_are_not_stretched_but_said(stored, highest):
    found = as_arrays(stored, None, "x")
    np.testing.assert_array_equal(found.pixels[..., 0], np.rint(stored))
    assert found.notices == ((f"its pixels reach only {highest} of 255",) if highest else ())


def test_numbers_of_16_bits_are_scaled_by_the_range_of_the_set(tmp_path):
    found = as_arrays(GREY.astype(np.uint16) * 257, None, "x")
    np.testing.assert_array_equal(found.pixels[..., 0], GREY)
    assert found.notices == ("its numbers of 16 bits, 0 to 65535, are scaled to 8 bits",)
    assert as_arrays(GREY.astype(np.uint16), None, "x").notices == ()
    (tmp_path / "a.csv").write_text(
        f"0,1,2,300{',4' * 21}\n4,5,6,7{',4' * 21}\n"
    )  # of text, whose numbers have no 16 bits
    with pytest.raises(DataError, match="from 0 to 300"):
        read_file(tmp_path / "a.csv")


def test_the_numbers_of_both_parts_are_taken_alike(tmp_path):
    np.savez(tmp_path / "a.npz", x_train=shaded(16), x_test=shaded(16)[:2], y_train=np.arange(40) % 2)
    test = read_file(tmp_path / "a.npz")["test"].pixels
    assert np.abs(test[..., 0] - shaded(16)[:2] * (255 / 16)).max() <= 0.5
    np.savez(tmp_path / "b.npz", x_train=GREY / 127.5 - 1, x_test=np.full((2, 8, 8), 0.5))
    assert (read_file(tmp_path / "b.npz")["test"].pixels == 191).all()


@pytest.mark.parametrize(
    ("stored", "labels"),
    [
        (GREY.transpose(1, 2, 0), LABELS), (GREY.transpose(1, 2, 0), None), (GREY.reshape(6, 64).T, LABELS),
        (GREY[:, :7].transpose(1, 2, 0), LABELS), (COLOR.transpose(1, 2, 3, 0), None),
        (COLOR.transpose(3, 1, 2, 0), None),
        (COLOR[:, :7].transpose(1, 2, 3, 0), np.eye(3)[LABELS]),
    ],
)  # fmt: skip
def test_images_counted_by_the_last_axis_are_known_by_labels_or_as_squares(stored, labels):
    found = as_arrays(stored, labels, "x")
    original = COLOR if found.pixels.shape[3] == 3 else GREY[..., None]
    np.testing.assert_array_equal(found.pixels, original[:, : found.pixels.shape[1]])
    assert "is taken for 6 images of" in found.notices[0]


def test_labels_keep_the_first_axis_for_the_count():
    stored = RNG.integers(0, 256, (8, 8, 12), dtype=np.uint8)
    found = as_arrays(stored, np.arange(8) % 2, "x")
    np.testing.assert_array_equal(found.pixels[..., 0], stored)
    assert "(3, 8, 8) is taken for 3 grey images of 8 x 8" in as_arrays(GREY[:3], None, "x").notices[0]


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
        (np.zeros((6, 8, 8, 2), np.uint8), None, "an array of shape .* with C 1, 3 or 4"),
        (np.zeros((32, 30, 3), np.uint8), None, "one image of shape .32, 30, 3.; give several"),
        (np.zeros((28, 20, 60, 2), np.uint8), None, "an array of shape .28, 20, 60, 2."),
        (np.zeros((), np.uint8), None, "an array of shape"),
        (GREY / 100 - 0.4, None, "from -0.4 to 2.15; .* undo a standardisation"),
        (np.where(GREY == 255, 256, GREY.astype(float)), None, "from 0 to 256; .* clip or scale"),
        (GREY, np.zeros((3, 6)), r"labels of shape \(3, 6\) for 6 images; .* labels.T"),
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


@pytest.mark.parametrize("form", ["{part}_{letter}", "{letter}_{part}", "{letter}{part}"])
def test_a_folder_of_arrays_and_labels_of_two_parts_is_one_set(tmp_path, form):
    for part, count in (("train", 5), ("val", 3)):
        np.save(tmp_path / f"{form.format(part=part, letter='x')}.npy", np.full((count, 8, 8), count, np.uint8))
        np.save(tmp_path / f"{form.format(part=part, letter='y')}.npy", np.arange(count))
    assert load_data(str(tmp_path)).labels.tolist() == [0, 1, 2, 3, 4]
    assert load_data(str(tmp_path), part="test").labels.tolist() == [0, 1, 2]


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


def test_the_binary_form_of_stl_is_read(tmp_path):
    pixels = RNG.integers(0, 256, (3, 96, 96, 3), dtype=np.uint8)
    pixels.transpose(0, 3, 2, 1).tofile(tmp_path / "train_X.bin")  # columns of each channel
    pixels[:1].transpose(0, 3, 2, 1).tofile(tmp_path / "test_X.bin")
    np.array([1, 3, 2], np.uint8).tofile(tmp_path / "train_y.bin")
    (tmp_path / "class_names.txt").write_text("airplane\nbird\ncar\n")
    found = load_source(open_source(tmp_path), Preparation())
    np.testing.assert_array_equal(found.pixels.permute(0, 2, 3, 1).numpy(), pixels)
    assert found.labels.tolist() == [0, 2, 1] and found.class_names == ("airplane", "bird", "car")
    (tmp_path / "unlabeled_X.bin").write_bytes(b"of no use")
    with tarfile.open(tmp_path / "stl.tar.gz", "w:gz") as archive:
        for file in sorted(tmp_path.iterdir()):
            if file.suffix != ".gz":
                archive.add(file, f"stl10_binary/{file.name}")
    packed = load_source(open_source(tmp_path / "stl.tar.gz"), Preparation())
    assert torch.equal(packed.pixels, found.pixels) and packed.class_names == found.class_names
    assert read_file(tmp_path / "test_X.bin")["train"].labels is None


MAT_FORMS = {
    "images": ({"images": COLOR.transpose(1, 2, 3, 0), "labels": LABELS[:, None]}, COLOR),
    "mnist-original": ({"data": GREY.reshape(6, 64).T, "label": LABELS[None].astype(float)}, GREY[..., None]),
    "grey": ({"X": GREY.transpose(1, 2, 0), "y": LABELS[:, None]}, GREY[..., None]),
    "toolbox": ({"train_x": GREY.reshape(6, 64), "train_y": np.eye(3)[LABELS], "test_x": GREY[:2]}, GREY[..., None]),
}


@pytest.mark.parametrize("form", MAT_FORMS)
def test_arrays_of_matlab_are_read_by_the_usual_names(tmp_path, form):
    stored, images = MAT_FORMS[form]
    savemat(tmp_path / "a.mat", stored)
    parts = read_file(tmp_path / "a.mat")
    np.testing.assert_array_equal(parts["train"].pixels, images)
    assert parts["train"].labels.tolist() == LABELS.tolist() and len(parts) == 1 + ("test_x" in stored)


def test_ten_stays_ten_where_zero_occurs(tmp_path):
    savemat(tmp_path / "a.mat", {"X": np.repeat(COLOR, 2, axis=0)[:11].transpose(1, 2, 3, 0), "y": np.arange(11)})
    assert read_file(tmp_path / "a.mat")["train"].labels.tolist() == list(range(11))


@pytest.mark.parametrize("is_compressed", [True, False])
def test_files_of_matlab_that_cannot_be_read_are_refused_truly(tmp_path, is_compressed):
    savemat(tmp_path / "a.mat", {"X": COLOR.transpose(1, 2, 3, 0)}, do_compression=is_compressed)
    data = (tmp_path / "a.mat").read_bytes()
    hdf5 = b"MATLAB 7.3 MAT-file".ljust(124) + b"\0\2IM" + b"\0" * 384 + b"\x89HDF\r\n\x1a\n" + b"\0" * 99
    for content, words in (
        (hdf5, "MATLAB 7.3 .HDF5., .* '-v7'"),
        (data[:150], "is damaged"),
        (data[:-40], "is damaged"),
    ):
        (tmp_path / "a.mat").write_bytes(content)
        with pytest.raises(DataError, match=words) as caught:
            read_file(tmp_path / "a.mat")
        assert "unpack" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "words"),
    [("mnist.pkl", "numpy.savez"), ("plain", "numpy.savez"), ("mnist.pkl.gz", "numpy.savez"), ("x.npz", "numpy.savez"),
     ("x.npy", "numpy.savez"), ("data_batch_1", "cifar-10-binary.tar.gz"), ("training.pt", "numpy.savez"),
     ("old.pt", "numpy.savez"), ("model", "numpy.savez")],
)  # fmt: skip
def test_pickles_are_named_and_never_loaded(tmp_path, name, words):
    content = pickle.dumps(Trap())
    if name in ("training.pt", "model"):
        with zipfile.ZipFile(tmp_path / name, "w") as archive:
            archive.writestr("archive/data.pkl", content)
    else:
        content = b"cos\nsystem\n." if name == "old.pt" else content  # of the first protocol
        (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    with pytest.raises(DataError, match=f"is a pickle, which can run any code and is never read; .*{words}") as caught:
        read_file(tmp_path / name)
    assert len(str(caught.value).splitlines()) == 1


class Trap:
    def __reduce__(self):
        return pytest.fail, ("a pickle was loaded",)


def test_a_missing_permission_is_said_of_the_file_that_lacks_it(tmp_path, monkeypatch):
    for name, values in (("x_train", GREY), ("y_train", LABELS)):
        np.save(tmp_path / f"{name}.npy", values)
    (tmp_path / "a.csv").write_text("0,1,2,3\n")
    own = Path.open

    def refusing(path, *args, **kwargs):
        if path.name in ("y_train.npy", "a.csv"):
            raise PermissionError(13, "Permission denied", str(path))
        return own(path, *args, **kwargs)

    monkeypatch.setattr(Path, "open", refusing)
    for asked, lacking in (("x_train.npy", "y_train.npy"), ("a.csv", "a.csv")):
        with pytest.raises(DataError) as caught:
            read_file(tmp_path / asked)
        assert str(caught.value).startswith(f"{tmp_path / lacking} cannot be read (permission denied); allow it")


def test_reasons_of_other_libraries_are_cut_off(tmp_path):
    assert len(reason_of(ValueError("x" * 10**5))) == 203 and reason_of(ValueError("one\ntwo")) == "one"


def test_the_third_version_of_numpys_format_is_read(tmp_path):
    with (tmp_path / "a.npy").open("wb") as file:
        np.lib.format.write_array(file, GREY, version=(3, 0))
    np.testing.assert_array_equal(read_file(tmp_path / "a.npy")["train"].pixels[..., 0], GREY)


LABEL_NAMES = [
    {"images": "lbl"}, {"x": "t"}, {"images": "classes"}, {"mnist_pics": "mnist_labels"}, {"set/images": "set/labels"},
    {"train_imgs": "train_lbls", "test_imgs": "test_lbls"}, {"train_data": "train_labels", "test_data": "test_labels"},
    {"trX": "trY", "teX": "teY"},
]  # fmt: skip


@pytest.mark.parametrize("names", LABEL_NAMES, ids=lambda names: next(iter(names)))
@pytest.mark.parametrize("kind", [np.int64, np.str_])
def test_labels_of_other_names_are_read_and_said(tmp_path, names, kind):
    arrays = {image: GREY[part:] for part, image in enumerate(names)}
    labels = {label: LABELS[part:].astype(kind) for part, label in enumerate(names.values())}
    np.savez(tmp_path / "a.npz", **arrays, **labels)
    parts = read_file(tmp_path / "a.npz")
    assert len(parts) == len(names)
    for row, (found, label) in enumerate(zip(parts.values(), names.values(), strict=True)):
        assert found.labels.tolist() == LABELS[row:].tolist()
        assert found.notices == (() if label in ("trY", "teY", "train_labels", "test_labels") else
                                 (f"its labels are read from {label}",))  # fmt: skip


@pytest.mark.parametrize(
    "others",
    [{"a": LABELS, "b": LABELS}, {"ids": np.arange(6)}, {"times": LABELS + 10**6}, {"below": LABELS - 1}],
)
def test_arrays_that_may_be_no_labels_are_said(tmp_path, others):
    np.savez(tmp_path / "a.npz", images=GREY, weights=np.ones(6), short=LABELS[:4], **others)
    found = read_file(tmp_path / "a.npz")["train"]
    assert found.labels is None
    listing = ", ".join(["weights", "short", *others])
    assert found.notices == (f"arrays that are not used: {listing}; labels are read from labels",)
    np.savez(tmp_path / "b.npz", x_train=GREY, x_test=GREY, lbl=LABELS)  # of which part is not known by its name
    assert read_file(tmp_path / "b.npz")["test"].labels is None


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


@pytest.mark.parametrize("key", ["class_names", "label_names", "classes", "names", "categories"])
def test_names_of_classes_in_an_archive_of_arrays_are_used_where_they_fit(tmp_path, key):
    names = np.array(["ape", "dog", "owl", "pig"])
    np.savez(tmp_path / "a.npz", x_train=GREY, y_train=LABELS, x_test=GREY[:1], y_test=LABELS[:1], **{key: names})
    for part in ("train", "test"):
        images = load_data(str(tmp_path / "a.npz"), part=part)
        assert images.class_names == tuple(names) and "not used" not in " ".join(images.notices)
    np.savez(tmp_path / "b.npz", images=GREY, labels=LABELS, mean=np.ones(3), **{key: names[:2]})
    images = load_data(str(tmp_path / "b.npz"))
    assert images.class_names == () and f"arrays that are not used: mean, {key}" in images.notices


def test_names_of_each_image_are_not_those_of_classes(tmp_path):
    names = np.array([f"{k}.png" for k in range(len(GREY))])
    np.savez(tmp_path / "a.npz", images=GREY, labels=LABELS, names=names)
    images = load_data(str(tmp_path / "a.npz"))
    assert images.class_names == () and "arrays that are not used: names" in images.notices


def test_of_several_files_that_may_be_meant_the_one_called_train_is_read(tmp_path):
    for name in ("train", "Dig-MNIST", "test"):
        np.savez(tmp_path / f"{name}.npz", images=GREY[: 4 if name == "train" else 3])
    images = load_data(str(tmp_path))
    assert len(images) == 4 and "train.npz was read, and not Dig-MNIST.npz" in images.notices
    assert len(load_data(str(tmp_path), part="test")) == 3
    (tmp_path / "train.npz").rename(tmp_path / "more.npz")
    with pytest.raises(DataError, match=r"several files that may be meant \(Dig-MNIST.npz, more.npz\)"):
        load_data(str(tmp_path))


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
    with pytest.raises(DataError, match="stores as a pickle, .* plain numbers are needed: join .* with numpy.stack"):
        read_file(tmp_path / "a.npz")
    np.savez(tmp_path / "c.npz", images=GREY, labels=LABELS.astype(object))
    with pytest.raises(DataError, match=r"plain numbers or text, such as labels.astype\(str\), are needed"):
        read_file(tmp_path / "c.npz")
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


def test_general_labels_are_not_taken_for_those_of_test_images(tmp_path):
    np.save(tmp_path / "x_train.npy", GREY)
    np.save(tmp_path / "x_test.npy", GREY[::-1].copy())
    np.save(tmp_path / "labels.npy", LABELS)
    assert load_data(str(tmp_path)).labels.tolist() == LABELS.tolist()
    assert load_data(str(tmp_path), part="test").labels is None


@pytest.mark.parametrize("shape", [(6, 1, 784), (6, 784, 1), (6, 784)])
def test_flat_images_may_have_an_axis_of_one(shape):
    pixels = RNG.integers(0, 256, (6, 28, 28), dtype=np.uint8)
    found = as_arrays(pixels.reshape(shape), None, "x")
    np.testing.assert_array_equal(found.pixels[..., 0], pixels)


def test_one_image_with_an_axis_of_one_stays_one():
    with pytest.raises(DataError, match="holds one image of shape"):
        as_arrays(np.zeros((28, 28, 1), np.uint8), None, "x")


def test_rows_of_opaque_pixels_of_four_are_in_color():
    pixels = RNG.integers(0, 256, (6, 16, 16, 4), dtype=np.uint8)
    pixels[..., 3] = 255
    found = as_arrays(pixels.reshape(6, -1), None, "x")
    np.testing.assert_array_equal(found.pixels, pixels[..., :3])
    assert any("16 x 16 opaque pixels of four" in notice for notice in found.notices)
    white = np.full((6, 1024), 255, np.uint8)
    white[:, 3] = 0
    assert as_arrays(white, None, "x").pixels.shape == (6, 32, 32, 1)
