"""Labels of pictures in files beside them."""

import contextlib
import json
import shutil

import numpy as np
import pytest
from PIL import Image

from gansmith.data import load_data
from gansmith.data.label_files import labels_by_name, read_label_files
from gansmith.errors import DataError, NotFoundError

LABELS = ("dog", "cat", "tom cat", "cat")
NAMES = tuple(f"{k} a.png" for k in range(4))


def write(folder, names=NAMES):
    for k, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (8, 8), k).save(folder / name)
    return folder


def lines(rows):
    return "\n".join(rows) + "\n"


def test_folders_of_stylegan_have_the_labels_of_their_list(tmp_path):
    names = [f"{k // 2:05d}/img{k:08d}.png" for k in range(4)]
    (write(tmp_path / "set", names) / "dataset.json").write_text(
        json.dumps({"labels": [[name, k % 3] for k, name in enumerate(names)]})
    )
    found = load_data(str(tmp_path / "set" / "00000"))
    assert found.labels is None
    names = [f"00000/img{k:08d}.png" for k in range(4)]
    (write(tmp_path / "one", names) / "dataset.json").write_text(
        json.dumps({"labels": [[name, k % 3] for k, name in enumerate(names)]})
    )
    assert load_data(str(tmp_path / "one")).labels.tolist() == [0, 1, 2, 0]
    (tmp_path / "one" / "dataset.json").write_text('{"labels": null}')
    assert load_data(str(tmp_path / "one")).labels is None


FORMS = {
    "metadata.csv": lines(["file_name,label", *map(",".join, zip(NAMES, LABELS, strict=True))]),
    "metadata.jsonl": lines(
        json.dumps({"file_name": name, "width": 8, "category": label})
        for name, label in zip(NAMES, LABELS, strict=True)
    ),
    "labels.csv": lines(map(";".join, zip(NAMES, LABELS, strict=True))),
    "labels.json": json.dumps(dict(zip(NAMES, LABELS, strict=True))),
    "labels.txt": lines(map(" ".join, zip(NAMES, LABELS, strict=True))),
    "dataset.json": json.dumps({"labels": list(zip(NAMES, LABELS, strict=True))}),
}
ALSO = {
    "labels.json": [
        json.dumps(list(zip(NAMES, LABELS, strict=True))),
        json.dumps({name: {"label": label} for name, label in zip(NAMES, LABELS, strict=True)}),
        json.dumps({"cat": [NAMES[1], NAMES[3]], "dog": [NAMES[0]], "tom cat": [NAMES[2]]}),
    ],
    "labels.csv": [
        lines(["picture,kind", *map(",".join, zip(NAMES, LABELS, strict=True))]),
        lines(["id,label", *(f"{k} a,{label}" for k, label in enumerate([*LABELS, "dog", "cat"]))]),
    ],
}


@pytest.mark.parametrize(("name", "text"), [(name, text) for name, texts in ALSO.items() for text in texts])
def test_other_forms_of_labels_are_read(tmp_path, name, text):
    (write(tmp_path / "set") / name).write_text(text)
    images = load_data(str(tmp_path / "set"))
    assert images.labels.tolist() == [1, 0, 2, 0] and images.class_names == ("cat", "dog", "tom cat")


def test_labels_of_training_pictures_that_test_pictures_are_called_as(tmp_path):
    for part in ("train", "test"):
        write(tmp_path / part, [f"{k}.png" for k in range(4)])
    (tmp_path / "trainLabels.csv").write_text(lines(["id,label", *(f"{k},{LABELS[k]}" for k in range(4))]))
    assert load_data(str(tmp_path)).labels.tolist() == [1, 0, 2, 0]
    assert load_data(str(tmp_path), part="test").labels is None


def test_a_list_of_classes_beside_the_labels_does_no_harm_nor_does_windows(tmp_path):
    (write(tmp_path / "set") / "labels.json").write_text('["cat", "dog"]')
    rows = lines(map(",".join, zip(NAMES, ["Bär", "cat", "cat", "Bär"], strict=True)))
    (tmp_path / "set" / "labels.csv").write_bytes(rows.encode("cp1252"))
    images = load_data(str(tmp_path / "set"))
    assert images.labels.tolist() == [0, 1, 1, 0] and images.class_names == ("Bär", "cat")


@pytest.mark.parametrize("name", FORMS)
@pytest.mark.parametrize("archive", [False, True])
def test_labels_in_files_beside_pictures_are_read(tmp_path, name, archive):
    path = write(tmp_path / "set")
    (path / name).write_text(FORMS[name])
    if archive:
        path = shutil.make_archive(str(tmp_path / "packed"), "zip", path)
    images = load_data(str(path))
    assert images.labels.tolist() == [1, 0, 2, 0] and images.class_names == ("cat", "dog", "tom cat")
    assert images.notices[0] == f"labels are read from {name}"


def test_each_part_has_a_file_of_its_own_or_one_names_all(tmp_path):
    for part in ("train", "test"):
        write(tmp_path / part)
        numbers = [3, 7, 3, 7] if part == "train" else [7, 7, 7, 3]
        rows = [f"{name},{number}" for name, number in zip(NAMES, numbers, strict=True)]
        (tmp_path / part / "metadata.csv").write_text(lines(["file_name,kind", *rows]))
    assert load_data(str(tmp_path)).labels.tolist() == [3, 7, 3, 7]
    assert load_data(str(tmp_path), part="test").labels.tolist() == [7, 7, 7, 3]
    (tmp_path / "test" / "metadata.csv").unlink()
    assert load_data(str(tmp_path), part="test").labels is None
    rows = [f"{part}/{name} {int(part == 'test')}" for part in ("train", "test") for name in NAMES]
    (tmp_path / "train" / "metadata.csv").unlink()
    (tmp_path / "labels.txt").write_text(lines(rows))
    assert load_data(str(tmp_path)).labels.tolist() == [0] * 4
    assert load_data(str(tmp_path), part="test").labels.tolist() == [1] * 4


@pytest.mark.parametrize(
    ("name", "text", "notice"),
    [
        ("labels.csv", "0 a.png,cat\n", "names no label for 3 of 4 pictures, such as 1 a.png, so images are used with"),
        (
            "metadata.csv",
            FORMS["metadata.csv"].replace("dog", ""),
            "has no label for 1 of 4 images, so images are used",
        ),
        (
            "labels.txt",
            "cat\ndog\n",
            "labels.txt was not used: no column of file names",
        ),
        ("labels.json", "[", "labels.json cannot be read"),
        (
            "metadata.csv",
            lines(["file_name,text", *(f"{name},a text of picture {name}" for name in NAMES)]),
            "metadata.csv was not used",
        ),
    ],
)
def test_files_that_do_not_label_every_picture_are_said(tmp_path, name, text, notice):
    (write(tmp_path / "set") / name).write_text(text)
    images = load_data(str(tmp_path / "set"))
    assert images.labels is None and notice in images.notices[0]


def test_class_folders_come_before_files(tmp_path):
    folder = write(tmp_path / "set", ("cat/0.png", "dog/1.png"))
    (folder / "metadata.csv").write_text("file_name,label\ncat/0.png,1\ndog/1.png,0\n")
    images = load_data(str(folder))
    assert images.class_names == ("cat", "dog") and images.labels.tolist() == [0, 1]
    assert images.notices[0] == "metadata.csv was not read, as class folders give the labels"


def test_damaged_files_give_no_labels():
    rng = np.random.default_rng(0)
    for name, text in FORMS.items():
        for _ in range(50):
            content = bytearray(text.encode())
            content[rng.integers(len(content))] = rng.integers(256)
            with contextlib.suppress(DataError):
                read_label_files({name: bytes(content[: rng.integers(len(content))])}, ["a.png"], (".png",))


def test_a_picture_with_two_labels_has_none():
    rows = b"file_name,label\na.png,cat\na.png,dog\nb.png,dog\n"
    with pytest.raises(DataError, match="'a.png' the labels 'cat' and 'dog'"):
        read_label_files({"metadata.csv": rows}, ["a.png"], (".png",))
    twice = b"file_name,label\na.png,cat\na.png,cat\n"
    assert read_label_files({"metadata.csv": twice}, ["a.png"], (".png",)) == {"a.png": "cat"}


def test_files_named_without_their_folder_or_with_another_slash():
    found = read_label_files({"labels.csv": b"filename,label\nsub\\A.png,cat\n"}, ["sub/A.png"], (".png",))
    assert found == {"sub/A.png": "cat"}
    names = ["images/a.png", "images/b.png"]
    assert labels_by_name(names, {"A.PNG": "cat", "b.png": "dog"}, (".png",)) == {names[0]: "cat", names[1]: "dog"}
    assert labels_by_name([*names, "other/a.png"], {"a.png": "cat"}, (".png",)) == {"a.png": "cat"}  # of which a.png?


def test_each_name_that_is_not_found_as_it_is_is_looked_for_by_its_stem():
    found = {"a/IMG_1.jpg": "cat", "a/IMG_2.jpg": "dog", "b/e\u0301.png": "owl", "c/1.png": "ape", "d/1.png": "bat"}
    names = ["a/IMG_1.jpg", "a/IMG_2.JPG", "b/\u00e9.png", "e/1.png", "c/1.png"]
    assert labels_by_name(names, found, (".jpg", ".png")) == {
        "a/IMG_1.jpg": "cat", "a/IMG_2.JPG": "dog", "b/\u00e9.png": "owl", "c/1.png": "ape",
    }  # fmt: skip


def test_a_line_of_excels_and_an_empty_file_are_passed_over(tmp_path):
    write(tmp_path)
    (tmp_path / "labels.csv").write_text("sep=;\n" + FORMS["labels.csv"])
    assert load_data(str(tmp_path)).class_names == ("cat", "dog", "tom cat")
    (tmp_path / "labels.csv").write_text("")
    images = load_data(str(tmp_path))
    assert images.labels is None and any("no column of file names here" in notice for notice in images.notices)


def test_which_part_a_picture_is_of_is_no_label(tmp_path):
    """CelebA has a table of parts beside tables of attributes and boxes."""
    rows = [f"{name},{k % 2}" for k, name in enumerate(NAMES)]
    (write(tmp_path) / "list_eval_partition.csv").write_text(lines(["image_id,partition", *rows]))
    (tmp_path / "list_bbox.csv").write_text(lines(["image_id,x_1,y_1", *(f"{name},1,2" for name in NAMES)]))
    images = load_data(str(tmp_path))
    assert images.labels is None and "was not used: no column of file names here and of labels" in images.notices[0]


def test_a_place_is_no_label_and_the_likeliest_column_holds_labels(tmp_path):
    """A table of boxes, whose column y is a number of pixels."""
    write(tmp_path)
    rows = [f"{name},{10 + k},{20 + k},5,5,{'ab'[k % 2]}" for k, name in enumerate(NAMES)]
    (tmp_path / "boxes.csv").write_text("\n".join(["filename,x,y,width,height,label", *rows]))
    assert load_data(str(tmp_path)).class_names == ("a", "b")


def test_marks_inside_of_sentences_end_no_line(tmp_path):
    write(tmp_path)
    rows = [{"file_name": name, "label": "ab"[k % 2], "text": "one\u2028two"} for k, name in enumerate(NAMES)]
    (tmp_path / "metadata.jsonl").write_text("\r\n".join(json.dumps(row, ensure_ascii=False) for row in rows), "utf-8")
    assert load_data(str(tmp_path)).class_names == ("a", "b")


def test_labels_beside_an_archive_are_said_to_be_unread(tmp_path):
    """As Kaggle gives them."""
    write(tmp_path / "pictures")
    shutil.make_archive(str(tmp_path / "set" / "train"), "zip", tmp_path / "pictures")
    table = "\n".join(["id,breed", *(f"{name.rpartition('.')[0]},{'ab'[k % 2]}" for k, name in enumerate(NAMES))])
    for name in ("labels.csv", "train.csv"):
        (tmp_path / "set" / name).write_text(table)
        found = load_data(str(tmp_path / "set"))
        assert found.labels is None and len(found) == len(NAMES)
        if name == "labels.csv":
            assert any("labels.csv beside train.zip were not read; unpack it here" in words for words in found.notices)
        (tmp_path / "set" / name).unlink()


def test_archives_inside_of_an_archive_are_named_whatever_lies_beside_them(tmp_path):
    write(tmp_path / "pictures")
    shutil.make_archive(str(tmp_path / "both" / "train"), "zip", tmp_path / "pictures")
    (tmp_path / "both" / "submission.csv").write_text("id,label\n1,0\n2,0\n")
    shutil.make_archive(str(tmp_path / "all"), "zip", tmp_path / "both")
    with pytest.raises(NotFoundError, match="1 archives inside all.zip were left out; unpack it to use them"):
        load_data(str(tmp_path / "all.zip"))


def test_a_table_of_features_beside_more_pictures_is_no_set(tmp_path):
    write(tmp_path / "images")
    count = len(NAMES) - 1
    names = ["id", "species", *(f"{kind}{k}" for kind in ("margin", "shape", "texture") for k in range(64))]
    rows = [",".join([str(k), "ab"[k % 2], *["0.5"] * 192]) for k in range(count)]
    (tmp_path / "train.csv").write_text("\n".join([",".join(names), *rows]))
    assert len(load_data(str(tmp_path))) == len(NAMES)
