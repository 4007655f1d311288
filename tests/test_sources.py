"""One door for images of any kind: what a path holds is recognised, read and prepared."""

import io
import os
import shutil
import tarfile
import zipfile

import numpy as np
import pytest
from conftest import write_idx, write_set
from PIL import Image
from scipy.io import savemat

from gansmith.data import load_data
from gansmith.data.idx import IdxSource
from gansmith.data.images import Images
from gansmith.data.pictures import PictureSource
from gansmith.data.prepare import Preparation
from gansmith.data.sources import FileSource, as_prepared, load_source, open_source
from gansmith.errors import ConfigError, DataError, NotFoundError

PIXELS = np.random.default_rng(0).integers(0, 256, (6, 8, 8, 3), dtype=np.uint8)


def png(image):
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    return buffer.getvalue()


def test_each_kind_of_path_is_recognised_and_read(tmp_path, digits):
    (tmp_path / "pictures").mkdir()
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        for k, image in enumerate(PIXELS):
            archive.writestr(f"{k}.png", png(image))
            (tmp_path / "pictures" / f"{k}.png").write_bytes(png(image))
    np.savez(tmp_path / "x.npz", x_train=PIXELS)
    np.save(tmp_path / "x.npy", PIXELS)
    expected = PIXELS.transpose(0, 3, 1, 2)
    for name, kind in (
        ("pictures", PictureSource),
        ("x.zip", PictureSource),
        ("x.npz", FileSource),
        ("x.npy", FileSource),
    ):
        source = open_source(tmp_path / name)
        assert isinstance(source, kind) and source.layout
        np.testing.assert_array_equal(load_source(source, Preparation()).pixels.numpy(), expected)
        np.testing.assert_array_equal(load_data(str(tmp_path / name)).pixels.numpy(), expected)
        with pytest.raises(NotFoundError, match="holds no test images"):
            load_source(source, Preparation(), part="test")
    source = open_source(write_set(tmp_path / "digits", *digits))
    assert isinstance(source, IdxSource) and len(load_source(source, Preparation())) == 400
    with pytest.raises(NotFoundError, match="no file or folder"):
        open_source(tmp_path / "nothing")


@pytest.mark.parametrize("place", ["a path", "a folder of a named set"])
def test_what_is_no_file_or_folder_is_refused_and_not_read(tmp_path, place):
    os.mkfifo(tmp_path / "pipe.npz")
    for path, sentence in (
        (f"{tmp_path}/pipe.npz", f"{tmp_path}/pipe.npz is a pipe, socket or device; give the path of a file or folder"),
        ("/dev/null", "/dev/null is a pipe, socket or device; give the path of a file or folder"),
        (f"./{'a' * 300}", f"{'a' * 80}... cannot be opened (File name too long); give the path of a file or folder"),
        (
            "https://some.org/a.zip",
            "https://some.org/a.zip is an address, and addresses are not fetched; download it and give the path of the "
            "file",
        ),
    ):
        with pytest.raises(DataError) as caught:
            load_data(path) if place == "a path" else load_data("mnist", data_dir=path)
        assert str(caught.value) == sentence
    with pytest.raises(ConfigError, match="there is no data set 'aaa"):
        load_data("a" * 300)


def test_labels_alone_are_refused_with_the_way_to_their_images(tmp_path):
    for name in ("train-labels-idx1-ubyte", "t10k-labels-idx1-ubyte"):
        write_idx(tmp_path / name, np.arange(6, dtype=np.uint8))
    with pytest.raises(NotFoundError, match="are labels; put their images, such as train-images-idx3-ubyte, beside"):
        load_data(str(tmp_path))


def test_pipes_beside_images_are_not_read(tmp_path):
    for name in ("a.parquet", "b.zip", "c.npz", "d.png", "labels.npy"):
        os.mkfifo(tmp_path / name)
    with pytest.raises(NotFoundError, match="holds no images"):
        load_data(str(tmp_path))
    np.save(tmp_path / "x.npy", PIXELS)
    assert len(load_data(str(tmp_path / "x.npy"))) == 6


@pytest.mark.parametrize(("labels", "classes"), [([0, 100, 300, 300, 0, 900], 901), ([7, 2, 1, 0, 4, 39], 40)])
def test_few_labels_up_to_a_large_one_are_said(tmp_path, labels, classes):
    np.savez(tmp_path / "x.npz", images=PIXELS, labels=np.array(labels))
    write_set(tmp_path / "idx", PIXELS[..., 0], np.minimum(labels, 255))
    for k, label in enumerate(labels):
        (tmp_path / "folders" / str(label)).mkdir(parents=True, exist_ok=True)
        (tmp_path / "folders" / str(label) / f"{k}.png").write_bytes(png(PIXELS[k]))
    for name in ("x.npz", "idx", "folders"):
        images = load_data(str(tmp_path / name))
        count = min(classes, 256) if name == "idx" else classes
        said = [notice for notice in images.notices if "different labels" in notice]
        used = len({*images.labels.tolist()})
        assert images.num_classes == count and len(said) == (count > 40)
        assert not said or said[0] == (
            f"its {used} different labels reach {count - 1}, so there are {count} classes, {count - used} of them "
            f"without images; number them from 0 without gaps for {used}"
        )


def test_a_folder_of_cifar_is_one_set_in_two_parts(tmp_path):
    rng = np.random.default_rng(0)
    stored = {}
    for name in ("data_batch_1", "data_batch_2", "test_batch"):
        stored[name] = np.concatenate(
            [rng.integers(0, 10, (3, 1)), rng.integers(0, 256, (3, 3072))], axis=1
        ).astype(np.uint8)  # fmt: skip
        stored[name].tofile(tmp_path / f"{name}.bin")
    (tmp_path / "batches.meta.txt").write_text("airplane\n")
    source = open_source(tmp_path)
    train, test = (load_source(source, Preparation(), part=part) for part in ("train", "test"))
    both = np.concatenate([stored["data_batch_1"], stored["data_batch_2"]])
    np.testing.assert_array_equal(train.pixels.numpy().reshape(6, -1), both[:, 1:])
    assert train.labels.tolist() == both[:, 0].tolist()
    assert test.labels.tolist() == stored["test_batch"][:, 0].tolist()


def test_targets_beside_features_are_labels(tmp_path):
    np.save(tmp_path / "features.npy", PIXELS)
    np.save(tmp_path / "targets.npy", np.array([2, 0, 1, 1, 0, 2]))
    images = load_data(str(tmp_path))
    assert images.labels.tolist() == [2, 0, 1, 1, 0, 2] and len(images) == 6


@pytest.mark.parametrize("mode", ["zip", "tar", "tar.gz", "tar.bz2", "tar.xz"])
def test_an_archive_without_an_ending_is_known_by_its_first_bytes(tmp_path, mode):
    (tmp_path / "pictures" / "a").mkdir(parents=True)
    for k, image in enumerate(PIXELS):
        (tmp_path / "pictures" / "a" / f"{k}.png").write_bytes(png(image))
    format = {"tar.gz": "gztar", "tar.bz2": "bztar", "tar.xz": "xztar"}.get(mode, mode)
    shutil.make_archive(str(tmp_path / "x"), format, tmp_path / "pictures")
    (tmp_path / f"x.{mode}").rename(tmp_path / "archive")
    np.testing.assert_array_equal(load_data(str(tmp_path / "archive")).pixels.numpy(), PIXELS.transpose(0, 3, 1, 2))
    (tmp_path / "archive").write_bytes((tmp_path / "archive").read_bytes()[:5])
    with pytest.raises(DataError, match="archive (is none of the files|is damaged or no archive|cannot be read)"):
        load_data(str(tmp_path / "archive"))


def test_arrays_beside_pictures_in_an_archive_are_named(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr("set/a.png", png(PIXELS[0]))
        archive.writestr("set/data.npz", b"")
    assert load_data(str(tmp_path / "x.zip")).notices[0] == "the pictures were read, and not set/data.npz"


def test_several_files_that_may_be_meant_are_refused(tmp_path):
    for name in ("a.npz", "b.npz"):
        np.savez(tmp_path / name, images=PIXELS)
    with pytest.raises(DataError, match=r"a.npz, b.npz.*name one of them"):
        open_source(tmp_path)


def test_pictures_are_read_where_lists_and_means_lie_beside_them(tmp_path):
    for k in range(6):
        place = tmp_path / ("cat" if k % 2 else "dog")
        place.mkdir(exist_ok=True)
        (place / f"{k}.png").write_bytes(png(PIXELS[k]))
    (tmp_path / "list_attr.csv").write_text("image_id,smiling\n0.png,1\n")
    (tmp_path / "train.csv").write_text("id,breed\n0,cat\n")
    np.save(tmp_path / "mean.npy", PIXELS[:3, :, :, 0])
    (tmp_path / "setid.mat").write_bytes(bytes(200))
    source = open_source(tmp_path)
    assert isinstance(source, PictureSource) and source.class_names == ("cat", "dog")
    assert source.notices == (
        "the pictures were read, and not mean.npy, setid.mat",
        "list_attr.csv, train.csv was not read, as class folders give the labels",
    )


def test_arrays_called_as_sets_are_read_where_a_picture_lies_beside_them(tmp_path):
    (tmp_path / "preview.png").write_bytes(png(PIXELS[0]))
    for name, rows in (("x_train.npy", PIXELS[:4]), ("x_test.npy", PIXELS[4:])):
        np.save(tmp_path / name, rows)
    images = load_data(str(tmp_path))
    assert len(images) == 4 and images.notices[0] == "the pictures beside these files were left out"
    np.savez(tmp_path / "images.npz", images=PIXELS)  # which of them is meant is unclear
    assert isinstance(open_source(tmp_path), PictureSource)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "grid.png").write_bytes(png(PIXELS[0]))
    np.savez(tmp_path / "other" / "drawn.npz", images=np.concatenate([PIXELS, PIXELS]))
    assert len(load_data(str(tmp_path / "other"))) == 12


def test_a_sample_of_a_submission_is_no_data(tmp_path):
    for name, rows in (("train.csv", PIXELS[:4]), ("test.csv", PIXELS[4:])):
        np.savetxt(tmp_path / name, rows.reshape(len(rows), -1), fmt="%d", delimiter=",")
    (tmp_path / "sample_submission.csv").write_text("ImageId,Label\n1,0\n")
    assert len(load_data(str(tmp_path))) == 4 and len(load_data(str(tmp_path), part="test")) == 2


def test_the_binary_archive_of_cifar_is_known_by_its_members(tmp_path):
    rows = np.random.default_rng(0).integers(0, 10, (7, 3073)).astype(np.uint8).tobytes()
    for name in ("renamed.tar.gz", "renamed.zip"):
        with (
            zipfile.ZipFile(tmp_path / name, "w") if name.endswith("zip") else tarfile.open(tmp_path / name, "w") as out
        ):
            for member in ("data_batch_1.bin", "test_batch.bin"):
                (tmp_path / member).write_bytes(rows)
                (out.write if name.endswith("zip") else out.add)(tmp_path / member, f"cifar-10-batches-bin/{member}")
        train, test = (load_data(str(tmp_path / name), part=part) for part in ("train", "test"))
        assert len(train) == len(test) == 7 and train.spec.channels == 3 and train.labels.tolist() == list(rows[::3073])


def test_the_test_part_is_in_the_same_file_or_in_one_of_its_own(tmp_path):
    np.savez(tmp_path / "x.npz", x_train=PIXELS[:4], x_test=PIXELS[4:])
    assert len(load_data(str(tmp_path / "x.npz"), part="test")) == 2
    (tmp_path / "two").mkdir()
    for name, rows in (("train.csv", PIXELS[:4]), ("test.csv", PIXELS[4:])):
        np.savetxt(tmp_path / "two" / name, rows.reshape(len(rows), -1), fmt="%d", delimiter=",")
    assert len(load_data(str(tmp_path / "two"))) == 4 and len(load_data(str(tmp_path / "two"), part="test")) == 2


@pytest.mark.parametrize("form", ["npz", "mat"])
def test_arrays_in_a_file_of_test_images_may_be_called_so(tmp_path, form):
    for part, rows in (("train", slice(4)), ("test", slice(4, 6))):
        arrays = {f"x_{part}": PIXELS[rows], f"y_{part}": np.arange(len(PIXELS))[rows] % 3}
        if form == "npz":
            np.savez(tmp_path / f"{part}.npz", **arrays)
        else:
            turned = {name: np.moveaxis(own, 0, -1) if own.ndim > 1 else own for name, own in arrays.items()}
            savemat(tmp_path / f"{part}.mat", turned)
    train, test = (load_data(str(tmp_path), part=part) for part in ("train", "test"))
    assert (len(train), len(test)) == (4, 2) and test.labels.tolist() == [1, 2]
    np.testing.assert_array_equal(test.pixels.permute(0, 2, 3, 1).numpy(), PIXELS[4:])
    with pytest.raises(DataError, match="x_test" if form == "npz" else "holds no X"):
        load_data(str(tmp_path / f"test.{form}"))


def test_flat_images_of_matlab_are_said_to_be_taken_row_by_row(tmp_path):
    savemat(tmp_path / "a.mat", {"X": PIXELS[..., 0].reshape(len(PIXELS), -1)})
    assert any("row by row" in notice for notice in load_data(str(tmp_path / "a.mat")).notices)


def test_tables_in_an_archive_with_a_few_illustrations_are_the_set(tmp_path):
    lines = [",".join(map(str, (k % 3, *image[..., 0].reshape(-1)))) for k, image in enumerate(PIXELS)]
    table = "\n".join(["label," + ",".join(f"pixel{k}" for k in range(PIXELS[0, ..., 0].size)), *lines])
    Image.fromarray(PIXELS[0]).save(tmp_path / "example.png")
    with zipfile.ZipFile(tmp_path / "signs.zip", "w") as archive:
        archive.writestr("signs/sign_train.csv", table)
        archive.write(tmp_path / "example.png", "example.png")
    images = load_data(str(tmp_path / "signs.zip"))
    assert len(images) == len(PIXELS) and images.labels.tolist() == [k % 3 for k in range(len(PIXELS))]
    with zipfile.ZipFile(tmp_path / "list.zip", "w") as archive:
        archive.writestr("train.csv", "id,label\n1,2\n2,0\n")
        archive.write(tmp_path / "example.png", "a.png")
        archive.write(tmp_path / "example.png", "b.png")
    assert len(load_data(str(tmp_path / "list.zip"))) == 2


def save_parts(place, form, parts):
    """Write a training and a test part in files of their own."""
    place.mkdir()
    for part, values in parts.items():
        if form == "npy":
            np.save(place / f"x_{part}.npy", values)
        elif form == "npz":
            np.savez(place / f"{part}.npz", images=values)
        elif form == "csv":
            np.savetxt(place / f"{part}.csv", values.reshape(len(values), -1), fmt="%g", delimiter=",")
        else:
            write_idx(place / f"{part}-images", values, "f4" if values.dtype.kind == "f" else "u1")
    return str(place)


@pytest.mark.parametrize("form", ["npy", "npz", "csv", "idx"])
def test_numbers_of_the_test_part_are_taken_as_those_of_the_training_part(tmp_path, form):
    grey = PIXELS[..., 0].copy()
    grey[0, 0, :2] = 0, 255
    dark = (grey > 99).astype(np.uint8)
    path = save_parts(tmp_path / "whole", form, {"train": grey, "test": dark})
    test = load_data(path, part="test")
    np.testing.assert_array_equal(test.pixels[:, 0].numpy(), dark)
    assert not any("black and white" in notice for notice in test.notices)
    signed = grey.astype(np.float32) / 127.5 - 1
    light = np.where(grey > 99, np.float32(0.2), np.float32(0.6))
    path = save_parts(tmp_path / "floats", form, {"train": signed, "test": light})
    np.testing.assert_array_equal(load_data(path).pixels[:, 0].numpy(), grey)
    np.testing.assert_array_equal(load_data(path, part="test").pixels[:, 0].numpy(), np.where(grey > 99, 153, 204))
    path = save_parts(tmp_path / "mixed", form, {"train": grey, "test": light})  # of another kind: by their own range
    np.testing.assert_array_equal(load_data(path, part="test").pixels[:, 0].numpy(), np.where(grey > 99, 51, 153))


def test_names_in_files_of_their_own_are_numbered_as_in_training(tmp_path):
    rows = np.zeros((3, 64), np.uint8)
    for part, labels in {"train": ["cat", "dog", "owl"], "test": ["owl", "eel", "dog"]}.items():
        np.savez(tmp_path / f"{part}.npz", images=rows, labels=np.array(labels))
    source = open_source(tmp_path)
    train, test = (load_source(source, Preparation(), part=part) for part in ("train", "test"))
    assert train.labels.tolist() == [0, 1, 2] and train.class_names == ("cat", "dog", "owl")
    assert test.labels.tolist() == [2, 3, 1] and test.class_names == ("cat", "dog", "owl", "eel")


def test_arrays_stay_as_they_are_unless_asked_for_more(tmp_path):
    np.savez(tmp_path / "x.npz", images=PIXELS)
    assert load_data(str(tmp_path / "x.npz")).notices == ()
    small = load_data(str(tmp_path / "x.npz"), how=Preparation(4, color="grey"))
    assert tuple(small.pixels.shape) == (6, 1, 4, 4)
    wide = np.repeat(PIXELS, 2, axis=2)
    np.savez(tmp_path / "wide.npz", images=wide)
    found = load_data(str(tmp_path / "wide.npz"))
    assert tuple(found.pixels.shape) == (6, 3, 8, 8) and "prepared as 8x8" in found.notices[0]


def test_one_color_image_makes_an_array_rgb_and_none_makes_it_grey(tmp_path):
    grey = np.repeat(np.repeat(PIXELS[..., :1], 3, axis=3), 100, axis=0)
    np.savez(tmp_path / "x.npz", images=grey)
    assert load_data(str(tmp_path / "x.npz")).spec.channels == 1
    grey[1, 0, 0] = (1, 2, 3)  # beyond the images that are looked at
    np.savez(tmp_path / "x.npz", images=grey)
    assert load_data(str(tmp_path / "x.npz")).spec.channels == 3


def test_images_in_memory_are_prepared_only_where_they_differ():
    images = Images(PIXELS, [0, 1, 2, 0, 1, 2])
    assert as_prepared(images, Preparation()) is images
    assert as_prepared(images, Preparation(8, color="rgb")) is images
    other = as_prepared(images, Preparation(16))
    assert other.spec.size == 16 and other.labels.tolist() == [0, 1, 2, 0, 1, 2]
    assert "prepared as 16x16 rgb" in other.notices[-1]


def test_pictures_where_a_named_set_is_looked_for_have_the_name_of_their_folder(tmp_path):
    (tmp_path / "my cats").mkdir()
    (tmp_path / "my cats" / "a.png").write_bytes(png(PIXELS[0]))
    assert load_data("mnist", data_dir=tmp_path / "my cats").name == "my-cats"
    assert load_data(str(tmp_path / "my cats")).name == "my-cats"


def test_a_misspelt_name_is_refused_unless_the_folder_has_it(tmp_path):
    for name in ("minst", "cats"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.png").write_bytes(png(PIXELS[0]))
    assert load_data("minst", data_dir=tmp_path / "minst").name == "minst"
    assert load_data("pets", data_dir=tmp_path / "cats").name == "pets"
    with pytest.raises(ConfigError, match="did you mean 'mnist'"):
        load_data("minst", data_dir=tmp_path / "cats")


def test_an_empty_array_is_refused(tmp_path):
    np.savez(tmp_path / "x.npz", images=PIXELS[:0])
    with pytest.raises(DataError, match="holds no images"):
        load_data(str(tmp_path / "x.npz"))


def test_of_archives_of_splits_that_of_training_images_is_read_and_the_others_are_named(tmp_path):
    folder = tmp_path / "dogs"
    folder.mkdir()
    for name, images in {"train": PIXELS[:4], "test1": PIXELS[4:]}.items():
        with zipfile.ZipFile(folder / f"{name}.zip", "w") as archive:
            for k, image in enumerate(images):
                archive.writestr(f"{name}/dog.{k}.png", png(image))
    images = load_data(str(folder))
    np.testing.assert_array_equal(images.pixels.numpy(), PIXELS[:4].transpose(0, 3, 1, 2))
    assert "train.zip was read, and not test1.zip" in images.notices
    (folder / "train.zip").unlink()
    idx = write_set(tmp_path / "idx", PIXELS[:4, ..., 0], np.arange(4, dtype=np.uint8))
    with zipfile.ZipFile(folder / "train.zip", "w") as archive:
        for file in idx.iterdir():
            archive.write(file, file.name)
    digits = load_data(str(folder))
    np.testing.assert_array_equal(digits.pixels[:, 0].numpy(), PIXELS[:4, ..., 0])
    assert "train.zip was read, and not test1.zip" in digits.notices
    (folder / "train.zip").rename(folder / "a.zip")
    with pytest.raises(NotFoundError, match="give one of them"):
        open_source(folder)
