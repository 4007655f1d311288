"""Folders and archives of pictures: their classes and splits, what is passed over, and what is refused."""

import builtins
import errno
import io
import os
import tarfile
import zipfile
from dataclasses import astuple, replace

import numpy as np
import pytest
from PIL import Image

from gansmith.data import prepare
from gansmith.data.loading import _content, load_pictures
from gansmith.data.pictures import find_pictures, is_archive, look_around, split_of
from gansmith.data.prepare import Preparation
from gansmith.errors import DataError, NotFoundError


def picture(value=0, size=(8, 8), mode="L"):
    buffer = io.BytesIO()
    Image.new(mode, size, value).save(buffer, "PNG")
    return buffer.getvalue()


def write(folder, files):
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return folder


def numbered(*names):
    """Return a picture for each name, its grey value the name's place."""
    return {name: picture(k) for k, name in enumerate(names)}


def values(images):
    return images.pixels[:, 0, 0, 0].tolist()


def test_a_flat_folder_is_read_by_name_without_what_systems_leave_behind(tmp_path):
    junk = (".DS_Store", "._a.png", ".hidden/a.png", "__MACOSX/a.png", "Thumbs.db", "desktop.ini", "@eaDir/a.png",
            ".ipynb_checkpoints/a.png", "notes.txt")  # fmt: skip
    folder = write(tmp_path / "set", {**numbered("a.png", "b.PNG", "c.png"), **dict.fromkeys(junk, picture(99))})
    (folder / "empty").mkdir()
    source = find_pictures(folder)
    assert source.parts["train"].names == ("a.png", "b.PNG", "c.png") and source.class_names == ()
    images = load_pictures(source, Preparation(), name="mine")
    assert values(images) == [0, 1, 2] and images.labels is None and images.name == "mine"
    assert tuple(images.pixels.shape) == (3, 1, 8, 8) and images.source == str(folder)
    assert images.notices[-1] == "prepared as 8x8 grey, cropped to squares"


def test_named_class_folders_are_numbered_by_name(tmp_path):
    folder = write(tmp_path / "set", numbered("dog/1.png", "cat/x/2.png", "dog/3.png"))
    images = load_pictures(find_pictures(folder), Preparation())
    assert images.class_names == ("cat", "dog")
    assert images.labels.tolist() == [0, 1, 1] and values(images) == [1, 0, 2]


def test_numbered_class_folders_keep_their_numbers_and_sort_as_numbers(tmp_path):
    folder = write(tmp_path / "set", numbered("10/a.png", "2/a.png", "1/a.png"))
    images = load_pictures(find_pictures(folder), Preparation())
    assert images.labels.tolist() == [1, 2, 10] and values(images) == [2, 1, 0]
    assert images.class_names[10] == "10" and len(images.class_names) == 11
    mixed = find_pictures(write(tmp_path / "mixed", numbered("class10/a.png", "class2/a.png")))
    assert mixed.class_names == ("class2", "class10")
    long = find_pictures(write(tmp_path / "long", numbered(f"{'9' * 200}/a.png", "2/a.png")))
    assert len(long.class_names) == 2


def test_folders_around_everything_are_passed_over(tmp_path):
    source = find_pictures(write(tmp_path / "set", numbered("a/b/cat/1.png", "a/b/dog/1.png")))
    assert source.class_names == ("cat", "dog")
    one = find_pictures(write(tmp_path / "one", numbered("cat/1.png", "cat/2.png")))
    assert one.class_names == () and len(one.parts["train"].names) == 2


@pytest.mark.parametrize("around", ["", "set/"])
def test_train_and_test_lie_over_class_folders(tmp_path, around):
    names = [f"{around}{name}" for name in ("Train/cat/1.png", "Train/dog/2.png", "test/dog/3.png", "val/cat/4.png")]
    source = find_pictures(write(tmp_path / "set", numbered(*names)))
    assert source.class_names == ("cat", "dog") and set(source.parts) == {"train", "test"}
    train, test = (load_pictures(source, Preparation(), part=part) for part in ("train", "test"))
    assert values(train) == [0, 1] and train.labels.tolist() == [0, 1]
    assert values(test) == [3, 2] and test.labels.tolist() == [0, 1]
    assert "Train" in source.layout and "class folders" in source.layout


def test_splits_need_no_classes_and_one_split_is_no_class(tmp_path):
    source = find_pictures(write(tmp_path / "a", numbered("train/1.png", "train/2.png", "test/3.png")))
    assert source.class_names == () and [len(source.parts[part].names) for part in ("train", "test")] == [2, 1]
    alone = find_pictures(write(tmp_path / "b", numbered("train/cat/1.png", "train/dog/2.png")))
    assert alone.class_names == ("cat", "dog") and set(alone.parts) == {"train"}


def files_of(*splits):
    """Return names of two pictures for each of (folder, classes); without classes they lie in the folder itself."""
    places = [f"{folder}/{name}" if name else folder for folder, names in splits for name in names or [""]]
    return [f"{place}/{k}.png" for place in places for k in range(2)]


CATS = ("cat", "dog")
LAYOUTS = {
    "words": ([("seg_train/seg_train", CATS), ("seg_test/seg_test", CATS), ("seg_pred/seg_pred", ())], 4, "seg_pred"),
    "joined": ([("mnist_train", CATS), ("mnist_test", CATS)], 4, ""),
    "sets": ([("train_set", CATS), ("test_set", CATS)], 4, ""),
    "years": ([("train2017", CATS), ("val2017", CATS)], 4, ""),
    "trainval": ([("trainval", CATS), ("test", CATS)], 4, ""),
    "more": ([("train", CATS), ("test", CATS), ("extra", CATS), ("unlabeled", ())], 4, "in extra were left out"),
    "flat test": ([("train", CATS), ("test", ())], 0, "the 2 pictures in test lie in no class folder"),
    "images": (
        [("train", ("cat/images", "dog/images")), ("val/images", ()), ("test/images", ())],
        0,
        "in test and val",
    ),
    "some flat": ([("train", CATS), ("val", CATS), ("test", ())], 4, "2 pictures in test and val, in no class folder"),
    "other classes": ([("train", CATS), ("test", ("cat", "owl"))], 2, "2 pictures in test, in no class folder"),
    "one class": ([("train", CATS), ("test", ("dog",))], 2, ""),
    "short": ([("trn", CATS), ("tst", CATS)], 4, ""),
    "development": ([("train", CATS), ("dev", CATS)], 4, ""),
    "evaluation": ([("train", CATS), ("eval", CATS)], 4, ""),
    "held out": ([("train", CATS), ("holdout", CATS)], 4, ""),
    "around classes": ([("rps/rps", CATS), ("rps-test-set/rps-test-set", CATS)], 4, "rps is taken for the training"),
    "in one word": ([("traindata", CATS), ("TestData", CATS)], 4, ""),
    "a sample": (
        [("trainingSet/trainingSet", CATS), ("trainingSample/trainingSample", CATS), ("testSet/testSet", ())],
        0,
        "4 pictures in trainingSample were left out of the folders for the same part, the largest is used: training",
    ),
    "backgrounds": (
        [("images_background", CATS), ("images_evaluation", ("owl", "emu"))],
        0,
        "images_background is taken for the training images",
    ),
    "a copy": (
        [("train", CATS), ("test", CATS), ("all/train", CATS), ("all/test", CATS)],
        4,
        "8 pictures in all, which",
    ),
}


@pytest.mark.parametrize("kind", LAYOUTS)
def test_splits_are_known_by_words_and_classes_are_those_of_the_training_part(tmp_path, kind):
    splits, labelled, notice = LAYOUTS[kind]
    source = find_pictures(write(tmp_path / "set", numbered(*files_of(*splits))))
    assert source.class_names == CATS and source.parts["train"].labels == (0, 0, 1, 1)
    test = source.parts["test"]
    assert len(test.labels) == labelled and len(test.names) == (labelled or len(test.names))
    assert test.names and all(split_of(name) == "test" for name in test.names)
    assert notice in " ".join(source.notices) and bool(notice) is bool(source.notices)


@pytest.mark.parametrize(
    ("folder", "classes"), [("unlabeled", ()), ("extra", CATS), ("query", CATS), ("gallery", ()), ("night", CATS)]
)
def test_what_lies_beside_training_images_is_no_class(tmp_path, folder, classes):
    names = files_of(("train", CATS), (folder, classes))
    source = find_pictures(write(tmp_path / "set", numbered(*names)))
    assert source.class_names == CATS and source.parts["train"].names == tuple(names[:4]) and len(source.parts) == 1
    assert source.notices == (f"{len(names) - 4} pictures in {folder} were left out",)


def test_folders_with_the_same_classes_are_joined_where_they_are_numbered_parts_and_else_refused(tmp_path):
    folder = write(
        tmp_path / "set", numbered(*files_of(("fold2", CATS), ("fold1/fold1", CATS), ("fold3", CATS)), "a.png")
    )
    source = find_pictures(folder)
    assert source.class_names == CATS and source.parts["train"].labels == (0,) * 6 + (1,) * 6
    assert all(f"/{CATS[label]}/" in name for name, label in zip(*astuple(source.parts["train"]), strict=True))
    assert source.notices[0] == "fold1, fold2, fold3 hold the same class folders, which are joined"
    assert source.notices[1] == "1 pictures beside the class folders were left out"
    for tops in (("left", "right"), ("1", "2"), ("обучение", "тест")):
        folder = write(tmp_path / tops[0], numbered(*files_of(*((top, CATS) for top in tops))))
        with pytest.raises(
            DataError, match=rf"{tops[0]}, {tops[1]} hold the same folders \(cat, dog\), and no name says"
        ):
            find_pictures(folder)


def test_numbered_parts_are_joined_without_labels_and_folders_inside_classes_with_a_word(tmp_path):
    source = find_pictures(
        write(tmp_path / "a", numbered(*files_of(*((part, ()) for part in ("part1", "part2", "part3")))))
    )
    assert source.class_names == () and len(source.parts["train"].names) == 6
    assert source.notices == ("part1, part2, part3 are numbered parts of one set, which are joined",)
    names = files_of(("pets", CATS), ("wild", ("lion", "wolf")), ("farm/cow", ()))
    source = find_pictures(write(tmp_path / "b", numbered(*names)))
    assert (
        source.class_names == ("farm", "pets", "wild")
        and source.parts["train"].labels == (0,) * 2 + (1,) * 4 + (2,) * 4
    )
    assert source.notices == ("folders inside pets (cat, dog), wild (lion, wolf) are joined",)


@pytest.mark.parametrize("copy", ["pets", "pets/pets"])
def test_a_folder_that_holds_the_classes_beside_it_again_is_a_copy(tmp_path, copy):
    names = files_of(("", CATS), (copy, CATS))
    source = find_pictures(write(tmp_path / "set", numbered(*(name.lstrip("/") for name in names))))
    assert source.class_names == CATS and source.parts["train"].labels == (0, 0, 1, 1)
    assert source.parts["train"].names == ("cat/0.png", "cat/1.png", "dog/0.png", "dog/1.png")
    assert source.notices == ("4 pictures in pets, which holds the folders beside it again, were left out",)


@pytest.mark.parametrize(
    ("names", "kept", "classes"),
    [
        (("images", "masks"), ("images",), ()),
        (("train/images", "train/masks", "test/images", "test/masks"), ("train/images",), ()),
        (("imgs/train", "imgs/val", "annotations/train", "annotations/val"), ("imgs/train",), ()),
        (("cat/Images", "cat/Segmentation", "dog/Images"), ("cat/Images", "dog/Images"), CATS),
        (("images", "masks", "hats"), ("hats", "images", "masks"), ("hats", "images", "masks")),
    ],
)
def test_masks_beside_images_are_no_images(tmp_path, names, kept, classes):
    source = find_pictures(write(tmp_path / "set", numbered(*files_of(*((name, ()) for name in names)))))
    assert source.parts["train"].names == tuple(files_of(*((name, ()) for name in kept)))
    assert source.class_names == classes
    assert ("were left out, as masks or labels" in " ".join(source.notices)) is (classes in ((), CATS))


@pytest.mark.parametrize(
    ("names", "classes"),
    [
        (("cat/train", "cat/test", "dog/train", "dog/val"), ("cat", "dog")),
        (("trainA", "trainB", "testA", "testB"), ("A", "B")),
        (("set/train_A", "set/train_B", "set/val_A"), ("A", "B")),
    ],
)
def test_splits_inside_classes_and_of_pairs_of_domains_are_splits(tmp_path, names, classes):
    """No test picture is trained on, and no split is a class."""
    source = find_pictures(write(tmp_path / "set", numbered(*(f"{name}/{k}.png" for name in names for k in range(2)))))
    assert source.class_names == classes and source.parts["train"].labels == (0, 0, 1, 1)
    assert all("train" in name for name in source.parts["train"].names)
    assert source.parts["test"].names and not any("train" in name for name in source.parts["test"].names)


def test_classes_called_like_splits_stay_classes(tmp_path):
    names = ("transport/train", "transport/bus", "glass/bottle", "glass/lens")
    source = find_pictures(write(tmp_path / "set", numbered(*(f"{name}/{k}.png" for name in names for k in range(2)))))
    assert source.class_names == ("glass", "transport") and set(source.parts) == {"train"}


def test_the_only_folder_with_classes_beside_flat_ones_is_for_training(tmp_path):
    source = find_pictures(write(tmp_path / "a", numbered(*files_of(("all", CATS), ("kaggle_testset", ())))))
    assert source.class_names == CATS and [len(source.parts[part].names) for part in ("train", "test")] == [4, 2]
    assert source.notices[0].startswith("all is taken for the training images")
    source = find_pictures(write(tmp_path / "b", numbered(*files_of(("train", CATS), ("predict", ())))))
    assert source.class_names == CATS and set(source.parts) == {"train"}
    assert source.notices == ("2 pictures in predict were left out",)
    source = find_pictures(write(tmp_path / "c", numbered(*files_of(("all", CATS), ("owl", ())))))
    assert source.class_names == ("all", "owl")  # nothing says what they are
    kinds = (("train", ("electric", "steam")), ("bus", ()), ("car", ()))
    source = find_pictures(write(tmp_path / "d", numbered(*files_of(*kinds))))
    assert source.class_names == ("bus", "car", "train")


def test_a_set_inside_what_would_be_a_class_is_to_be_given_alone(tmp_path):
    splits = [(f"{copy}/{copy}/{split}", CATS) for copy in ("plants", "Plants") for split in ("train", "valid")]
    folder = write(tmp_path / "set", numbered(*files_of(*splits, ("test", ()))))
    with pytest.raises(DataError, match="Plants has folders for training and for a test of its own; give that folder"):
        find_pictures(folder)


def test_masks_beside_the_images_of_a_split_are_left_out(tmp_path):
    splits = [(f"{split}{words}", ()) for split in ("train", "val") for words in ("", "_labels")]
    source = find_pictures(write(tmp_path / "set", numbered(*files_of(*splits))))
    assert source.parts["train"].names == ("train/0.png", "train/1.png")
    assert source.parts["test"].names == ("val/0.png", "val/1.png")
    words = "4 pictures, such as train_labels/0.png, were left out, as masks, labels or small copies of others"
    assert source.notices == (words,)


@pytest.mark.parametrize(
    "place", [lambda k: f"{k // 1000:05d}/img{k:08d}", lambda k: f"{k // 1000 * 1000:05d}/{k:05d}"]
)
def test_folders_of_a_thousand_pictures_are_no_classes(tmp_path, place):
    names = sorted(f"{place(k)}.png" for k in (*range(0, 999, 9), *range(1000, 2000, 9), 2003, 2500))
    source = find_pictures(write(tmp_path / "set", numbered(*names)))
    assert source.parts["train"].names == tuple(names) and source.class_names == ()
    assert "hold a thousand pictures each and are no classes" in source.notices[0]
    signs = ("00000/00000_00001.png", "00001/00000_00001.png", "00002/00004_00007.png")  # kinds of signs
    assert find_pictures(write(tmp_path / "signs", numbered(*signs))).class_names == ("00000", "00001", "00002")
    persons = [f"{k:04d}/{k:04d}.png" for k in range(1, 6)]
    assert find_pictures(write(tmp_path / "persons", numbered(*persons))).class_names[1:3] == ("0001", "0002")


def test_pictures_beside_splits_are_left_out_or_refused_truly(tmp_path):
    names = [f"{split}/{name}/{k}.png" for split in ("train", "test") for name in CATS for k in range(5)]
    folder = write(tmp_path / "set", numbered(*names, "cover.png"))
    assert find_pictures(folder).notices == ("1 pictures beside its folders were left out",)
    write(folder, numbered(*(f"more{k}.png" for k in range(9))))
    with pytest.raises(DataError, match="10 of 30 pictures lie beside the folders test, train;"):
        find_pictures(folder)
    trains = find_pictures(write(tmp_path / "trains", numbered(*files_of(("freight_train", ()), ("night_train", ())))))
    assert trains.class_names == ("freight_train", "night_train")
    names = [("bullet train", ()), ("test tube", ()), *((name, ()) for name in ("beaker", "car", "lens"))]
    assert len(find_pictures(write(tmp_path / "things", numbered(*files_of(*names)))).class_names) == 5


def test_class_folders_whose_numbers_cannot_be_labels_are_names(tmp_path):
    same = find_pictures(write(tmp_path / "same", numbered("01/a.png", "1/a.png", "2/a.png")))
    assert same.class_names == ("01", "1", "2") and same.parts["train"].labels == (0, 1, 2)
    assert "taken as names, since some are the same number" in same.notices[0]
    large = find_pictures(write(tmp_path / "large", numbered("65536/a.png", "7/a.png")))
    assert large.class_names == ("7", "65536") and "above 9,999" in large.notices[0]
    assert len(find_pictures(write(tmp_path / "x", numbered("999/a.png", "7/a.png"))).class_names) == 1000


def test_jpegs_of_all_endings_are_read_and_other_kinds_said(tmp_path):
    buffer = io.BytesIO()
    Image.new("L", (8, 8), 9).save(buffer, "JPEG")
    files = {name: buffer.getvalue() for name in ("a.jfif", "b.jpe", "c.JPG", "d.pgm", "e.PGM", "f.txt")}
    source = find_pictures(write(tmp_path / "set", files))
    assert source.notices == ("2 .pgm files were left out; convert them to PNG",)
    assert values(load_pictures(source, Preparation())) == [9, 9, 9]


def test_pictures_looked_at_are_no_fixed_step_apart(tmp_path, monkeypatch):
    monkeypatch.setattr("gansmith.data.pictures.LOOKS", 256)
    files = {f"{k:03d}.png": b"" if k % 2 else picture(size=(8, 8 if k < 400 else 12)) for k in range(0, 600)}
    looks = look_around(find_pictures(write(tmp_path / "set", files)))
    assert 64 < len(looks) < 192 and any(look.height == 12 for look in looks)


def test_few_pictures_beside_the_folders_are_left_out_and_many_refused(tmp_path):
    names = [f"{name}/{k}.png" for name in ("cat", "dog") for k in range(6)]
    source = find_pictures(write(tmp_path / "set", numbered(*names, "cover.png")))
    assert len(source.parts["train"].names) == 12 and "1 pictures beside" in source.notices[0]
    with pytest.raises(DataError, match="2 of 14 pictures lie beside"):
        find_pictures(write(tmp_path / "set", numbered("other.png")))
    names = [f"{name}/{k}.png" for name in ("train", "test") for k in range(6)]
    source = find_pictures(write(tmp_path / "splits", numbered(*names, "cover.png")))
    assert source.class_names == () and len(source.parts["train"].names) == 6 and "1 pictures" in source.notices[0]


def test_broken_pictures_are_left_out_and_counted_up_to_one_in_ten(tmp_path):
    folder = write(tmp_path / "set", numbered(*(f"{k % 2}/{k:02d}.png" for k in range(20))))
    whole = (folder / "0/04.png").read_bytes()
    write(folder, {"0/04.png": b"", "1/05.png": whole[:50]})
    images = load_pictures(find_pictures(folder), Preparation())
    assert sorted(values(images)) == [k for k in range(20) if k not in (4, 5)]
    assert images.labels.tolist() == [0] * 9 + [1] * 9
    assert "2 of 20 pictures cannot be read: 0/04.png" in images.notices[0] and "left out" in images.notices[0]
    with pytest.raises(DataError, match="2 of 20 pictures cannot be read"):
        load_pictures(find_pictures(folder), Preparation(strict=True))
    write(folder, {"0/06.png": b"nothing"})
    with pytest.raises(DataError, match="3 of 20 pictures cannot be read"):
        load_pictures(find_pictures(folder), Preparation())


def test_files_that_cannot_be_opened_are_left_out_as_damaged_ones_are(tmp_path, monkeypatch):
    folder = write(tmp_path / "set", numbered(*(f"{k % 2}/{k:02d}.png" for k in range(40))))
    (folder / "0/04.png").unlink()
    (folder / "0/04.png").symlink_to("04.png")
    (folder / "1/05.png").unlink()
    (folder / "1/05.png").symlink_to(tmp_path / "nothing.png")
    forbidden, real_open = str(folder / "0/06.png"), builtins.open

    def open_allowed(path, *args, **kwargs):
        if str(path) == forbidden:
            raise PermissionError(errno.EACCES, "Permission denied")
        return real_open(path, *args, **kwargs)

    monkeypatch.setattr("builtins.open", open_allowed)
    images = load_pictures(find_pictures(folder), Preparation())
    assert sorted(values(images)) == [k for k in range(40) if k not in (4, 5, 6)]
    assert images.notices[0].startswith("3 of 40 pictures cannot be read: 0/04.png (too many levels of symbolic links)")
    assert "0/06.png (permission denied); 1/05.png (no such file or directory); they were left out" in images.notices[0]
    with pytest.raises(DataError, match="3 of 40 pictures cannot be read"):
        load_pictures(find_pictures(folder), Preparation(strict=True))
    assert _content(find_pictures(folder))[1] == sum(
        file.stat().st_size for file in folder.rglob("*.png") if file.exists()
    )


def test_a_picture_with_a_wrong_check_sum_in_a_zip_is_left_out(tmp_path):
    path = pack(write(tmp_path / "set", numbered(*(f"{k % 2}/{k:02d}.png" for k in range(20)))), tmp_path / "x.zip")
    data = bytearray(path.read_bytes())
    for signature, offset in ((b"PK\x01\x02", 16), (b"PK\x03\x04", 14)):
        place = next(
            k for k in range(len(data)) if data[k : k + 4] == signature and data.find(b"/04.png", k, k + 60) > 0
        )
        data[place + offset] ^= 1
    path.write_bytes(data)
    images = load_pictures(find_pictures(path), Preparation())
    assert sorted(values(images)) == [k for k in range(20) if k != 4] and len(images.labels) == 19
    assert images.notices[0].startswith("1 of 20 pictures cannot be read: set/0/04.png (Bad CRC-32")
    with pytest.raises(DataError, match="x.zip: 1 of 20 pictures cannot be read"):
        load_pictures(find_pictures(path), Preparation(strict=True))


def test_mixed_sizes_become_one_and_it_is_said(tmp_path):
    files = {f"{k}.png": picture((k, 0, 0), (20 + k, 24), "RGB") for k in range(8)}
    images = load_pictures(find_pictures(write(tmp_path / "set", files)), Preparation())
    assert tuple(images.pixels.shape) == (8, 3, 24, 24)
    assert "prepared as 24x24" in images.notices[0] and "more sizes" in images.notices[0]
    assert images.notices[-1] == "prepared as 24x24 rgb, cropped to squares"
    assert values(images) == list(range(8))


def pack(folder, path):
    names = sorted(file for file in folder.rglob("*") if file.is_file())
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for file in names:
                archive.write(file, file.relative_to(folder.parent))
    else:
        modes = {".tgz": "w:gz", ".gz": "w:gz", ".bz2": "w:bz2", ".xz": "w:xz"}
        with tarfile.open(path, modes.get(path.suffix, "w")) as archive:
            for file in reversed(names):
                archive.add(file, f"./{file.relative_to(folder.parent)}")
    return path


@pytest.mark.parametrize("name", ["x.zip", "x.tar", "x.tar.gz", "x.tgz", "x.tar.bz2", "x.tar.xz"])
def test_archives_are_read_in_place(tmp_path, name):
    folder = write(tmp_path / "set", {**numbered("cat/1.png", "dog/2.png", "dog/3.png"), "cat/._1.png": b"junk"})
    inside = load_pictures(find_pictures(folder), Preparation())
    path = pack(folder, tmp_path / name)
    assert is_archive(path)
    before = sorted(tmp_path.rglob("*"))
    images = load_pictures(find_pictures(path), Preparation())
    assert (images.pixels == inside.pixels).all() and images.labels.tolist() == [0, 1, 1]
    assert images.class_names == ("cat", "dog") and sorted(tmp_path.rglob("*")) == before


def test_a_name_that_is_in_an_archive_twice_counts_once(tmp_path):
    with tarfile.open(tmp_path / "x.tar", "w") as archive:
        for value in (5, 9):
            data = picture(value)
            entry = tarfile.TarInfo("a.png")
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    assert values(load_pictures(find_pictures(tmp_path / "x.tar"), Preparation())) == [9]


def test_an_archive_bomb_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.png", picture())
        archive.writestr("b.png", bytes(2**22))
    with pytest.raises(DataError, match="more than pictures pack into"):
        load_pictures(find_pictures(tmp_path / "x.zip"), Preparation())


@pytest.mark.parametrize("name", ["x.zip", "x.tar", "x.tar.gz", "x.tar.bz2", "x.tar.xz"])
def test_damaged_archives_are_refused_in_one_line(tmp_path, name):
    rng = np.random.default_rng(0)
    for k in range(8):
        pixels = rng.integers(0, 256, (40, 40), dtype=np.uint8)
        (tmp_path / "set").mkdir(exist_ok=True)
        Image.fromarray(pixels).save(tmp_path / "set" / f"{k}.png")
    whole = pack(tmp_path / "set", tmp_path / name).read_bytes()
    middle = len(whole) // 2
    changed = whole[:middle] + bytes(byte ^ 255 for byte in whole[middle : middle + 300]) + whole[middle + 300 :]
    for content in (b"", b"no archive at all", whole[:middle], changed):
        (tmp_path / name).write_bytes(content)
        try:
            images = load_pictures(find_pictures(tmp_path / name), Preparation())
        except (DataError, NotFoundError) as error:
            assert len(str(error).splitlines()) == 1 and name in str(error)
        else:
            assert name == "x.tar" and len(images) <= 8  # a tar has no check sums of its content


def test_a_password_is_named(tmp_path):
    path = pack(write(tmp_path / "set", numbered("a.png")), tmp_path / "x.zip")
    data = bytearray(path.read_bytes())
    for mark, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):  # the flag that says so
        data[data.index(mark) + offset] |= 1
    path.write_bytes(data)
    with pytest.raises(DataError, match="without a password"):
        load_pictures(find_pictures(path), Preparation())


def test_links_out_of_the_folder_are_refused(tmp_path):
    outside = write(tmp_path / "outside", numbered("secret.png"))
    folder = write(tmp_path / "set", numbered("a.png"))
    (folder / "b.png").symlink_to(folder / "a.png")
    assert len(find_pictures(folder).parts["train"].names) == 2
    (folder / "c.png").symlink_to(outside / "secret.png")
    with pytest.raises(DataError, match="is a link out of"):
        find_pictures(folder)
    (folder / "c.png").unlink()
    (folder / "more").symlink_to(outside)
    with pytest.raises(DataError, match="is a link out of"):
        find_pictures(folder)


def test_links_of_a_hugging_face_cache_are_followed_to_its_blobs(tmp_path):
    write(tmp_path / "blobs", {"1234": picture(7)})
    snapshot = tmp_path / "snapshots" / "abc"
    for folder in ("cat", "dog"):
        (snapshot / folder).mkdir(parents=True)
        (snapshot / folder / "a.png").symlink_to("../../../blobs/1234")
    for path in (snapshot, tmp_path):
        assert values(load_pictures(find_pictures(path), Preparation())) == [7, 7]


@pytest.mark.parametrize("number", [10, 100])
def test_pickles_of_cifar_are_refused_by_name(tmp_path, number):
    inner = {10: "cifar-10-batches-py", 100: "cifar-100-python"}[number]
    folder = write(tmp_path / inner, {"meta": b"x", "train": b"x"})
    for path in (folder, pack(folder, tmp_path / "renamed.tar.gz")):
        with pytest.raises(DataError, match=f"never read; use the binary version, .*cifar-{number}-binary.tar.gz"):
            find_pictures(path)


def test_what_to_do_with_other_files_is_said(tmp_path):
    folder = write(tmp_path / "set", {"mnist/train.csv": b"1"})
    with pytest.raises(NotFoundError, match=r"\(1 .csv\); give one of these files, such as mnist/train.csv"):
        find_pictures(folder)
    for name in ("x.csv", "x.npz", "train-images-idx3-ubyte"):
        packed = pack(write(tmp_path / name.replace(".", "-"), {name: b"1"}), tmp_path / "x.zip")
        with pytest.raises(NotFoundError, match="unpack it and give the folder that holds these files"):
            find_pictures(packed)
    write(tmp_path / "two", {"train.zip": b"PK", "test.zip": b"PK"})
    with pytest.raises(NotFoundError, match=r"\(2 .zip\); unpack test.zip, train.zip, or give one of them"):
        find_pictures(tmp_path / "two")


def test_places_without_pictures_say_what_they_hold(tmp_path):
    with pytest.raises(NotFoundError, match="no file or folder"):
        find_pictures(tmp_path / "nothing")
    with pytest.raises(NotFoundError, match=r"holds no images \(nothing\)"):
        find_pictures(write(tmp_path / "empty", {".DS_Store": b"x"}))
    folder = write(tmp_path / "other", {"a.txt": b"x", "b.txt": b"x", "c.doc": b"x"})
    with pytest.raises(NotFoundError, match=r"\(2 .txt, 1 .doc\)"):
        find_pictures(folder)
    os.mkfifo(folder / "a.png")  # opening it would block
    with pytest.raises(NotFoundError, match="holds no images"):
        find_pictures(folder)


def test_too_many_pictures_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("gansmith.data.pictures.MAX_IMAGES", 2)
    with pytest.raises(DataError, match="3 pictures; up to 2"):
        find_pictures(write(tmp_path / "set", numbered("a.png", "b.png", "c.png")))


def test_the_order_of_names_in_an_archive_is_part_of_what_is_prepared(tmp_path):
    source = find_pictures(pack(write(tmp_path / "set", numbered("a.png", "b.png")), tmp_path / "x.zip"))
    part = source.parts["train"]
    other = replace(source, parts={"train": replace(part, names=part.names[::-1])})
    assert _content(source) == _content(source) != _content(other)


def test_an_archive_beside_pictures_is_named(tmp_path):
    folder = write(tmp_path / "set", numbered("sample1.png", "sample2.png"))
    pack(folder, tmp_path / "x.zip").rename(folder / "images.zip")
    assert any("and not images.zip" in notice for notice in find_pictures(folder).notices)


def test_too_large_pictures_and_stacks_are_said_in_our_words(tmp_path, monkeypatch):
    files = {f"{k}.png": picture(k) for k in range(20)}
    wide = io.BytesIO()
    Image.new("1", (30_000, 4_000)).save(wide, "PNG")
    pages = io.BytesIO()
    Image.new("L", (8, 8), 20).save(pages, "TIFF", save_all=True, append_images=[Image.new("L", (8, 8))] * 2)
    folder = write(tmp_path / "set", {**files, "wide.png": wide.getvalue(), "z.tif": pages.getvalue()})
    notices = load_pictures(find_pictures(folder), Preparation()).notices
    assert any("wide.png (it has more than 89,000,000 pixels)" in notice for notice in notices)
    assert any(
        "1 of 21 pictures looked at have several pages, of which the first is used" in words for words in notices
    )
    monkeypatch.setattr(prepare, "MAX_MEMBER_BYTES", 10)
    with pytest.raises(DataError, match="its file is larger than 10 bytes"):
        prepare.decode(files["0.png"][:40])
