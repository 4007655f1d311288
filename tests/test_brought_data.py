"""Forms in which people bring their own images: each is read as it is meant, or said to be odd in one sentence."""

import io
import json
import zipfile

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from torch.utils.data import ConcatDataset, Dataset, IterableDataset

import gansmith as gs
from gansmith.data import load_data
from gansmith.data.inspection import inspect
from gansmith.data.pictures import find_pictures
from gansmith.data.prepare import Preparation
from gansmith.errors import DataError, GansmithError

RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, (60, 16, 16), dtype=np.uint8)


def png(pixels):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def write(folder, *names):
    for row, name in enumerate(names):
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(png(PIXELS[row % len(PIXELS)]))
    return folder


def test_pickles_in_a_folder_are_named(tmp_path):
    for name in ("mnist.pkl.gz", "processed/training.pt"):
        folder = tmp_path / name.split("/")[0].replace(".", "-")
        (folder / name).parent.mkdir(parents=True)
        (folder / name).write_bytes(b"\x80\x02.")
        with pytest.raises(GansmithError, match=r"is a pickle.*numpy\.savez"):
            load_data("mnist", data_dir=folder)


def test_pictures_of_zeros_and_ones_are_said_to_be_dark(tmp_path):
    for row in range(4):
        Image.fromarray((PIXELS[row] > 127).astype(np.uint8)).save(tmp_path / f"{row}.png")
    found = load_data(str(tmp_path))
    assert any("reach only 1 of 255; where 1 stands for white, save them times 255" in words for words in found.notices)


def numbered(folder, count=4):
    return [f"{folder}{k:03d}.png" for k in range(count)]


@pytest.mark.parametrize(
    ("names", "kept"),
    [
        (["benign (1).png", "benign (1)_mask.png", "benign (1)_mask_1.png", "benign (2).png"], 2),
        (["a_1.tif", "a_1_mask.tif", "b_2.tif", "b_2_seg.tif"], 2),
        ([*numbered("train/"), *numbered("train_masks/")], 4),
        ([*numbered("JPEGImages/"), *numbered("SegmentationClass/", 3)], 4),
        ([*numbered("imgs/"), *numbered("ground truth/")], 4),
        ([*numbered("images/"), *numbered("thumbnails/")], 4),
        ([*numbered("with_mask/"), *numbered("without_mask/")], 8),  # of faces
        ([*numbered("mask/"), *numbered("person/")], 8),
        (["cat_label.png", "dog.png"], 2),
    ],
    ids=lambda value: str(value)[:30],
)
def test_masks_are_known_by_the_images_that_they_belong_to(tmp_path, names, kept):
    source = find_pictures(write(tmp_path / "set", *names))
    assert len(source.parts["train"].names) == kept
    assert any("were left out, as masks" in words for words in source.notices) == (kept < len(names))


def test_a_flat_test_beside_class_folders_is_no_class(tmp_path):
    source = find_pictures(write(tmp_path / "set", *numbered("cat/"), *numbered("dog/"), *numbered("test/", 3)))
    assert source.class_names == ("cat", "dog") and source.parts["test"].names == tuple(numbered("test/", 3))
    assert source.notices[0].startswith("test is taken for the test images")


def test_test_folders_are_matched_whatever_the_case_and_the_accents(tmp_path):
    folders = ("train/Caf\u00e9/", "train/Dog/", "test/cafe\u0301/", "test/dog/")
    source = find_pictures(write(tmp_path / "set", *(name for folder in folders for name in numbered(folder, 2))))
    assert source.parts["test"].labels == (0, 0, 1, 1) and source.notices == ()


def test_years_and_large_numbers_of_folders_are_names(tmp_path):
    source = find_pictures(write(tmp_path / "set", "2001/a.png", "2002/a.png", "2003/a.png"))
    assert source.class_names == ("2001", "2002", "2003") and source.parts["train"].labels == (0, 1, 2)
    small = find_pictures(write(tmp_path / "small", "3/a.png", "5/a.png"))
    assert small.parts["train"].labels == (3, 5)


def test_folders_of_one_picture_each_are_no_classes(tmp_path):
    source = find_pictures(write(tmp_path / "set", *(f"{k:02d}f3/images/{k}.png" for k in range(60))))
    assert source.parts["train"].labels == () and "no classes" in source.notices[0]


LABELS = ("cat", "dog", "cat", "dog")


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("train.csv", "image_id,label\n" + "".join(f"{k:03d},{label}\n" for k, label in enumerate(LABELS))),
        ("trainLabels.csv", "id,breed\n" + "".join(f"{k:03d}.png,{label}\n" for k, label in enumerate(LABELS))),
        ("labels.csv", "id,label\n" + "".join(f"{k:03d}.jpg,{label}\n" for k, label in enumerate(LABELS))),
        ("labels.txt", "".join(f"{k:03d} {label}\n" for k, label in enumerate(LABELS))),
        ("labels.json", json.dumps([{"file": f"{k:03d}.png", "label": label} for k, label in enumerate(LABELS)])),
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_files_of_labels_are_read_under_the_names_that_they_have(tmp_path, file, text, encoding):
    write(tmp_path / "set", *numbered("images/"))
    (tmp_path / "set" / file).write_text(text, encoding=encoding)
    images = load_data(str(tmp_path / "set"))
    assert images.class_names == ("cat", "dog") and images.labels.tolist() == [0, 1, 0, 1]


def test_a_submission_is_no_file_of_labels(tmp_path):
    write(tmp_path / "set", *numbered(""))
    (tmp_path / "set" / "sample_submission.csv").write_text("id,label\n" + "".join(f"{k:03d},0\n" for k in range(4)))
    assert load_data(str(tmp_path / "set")).labels is None


@pytest.mark.parametrize("given", [{"objects": {"categories": [7]}}, {"label": [7, 1]}])
def test_nested_metadata_is_no_class(tmp_path, given):
    write(tmp_path / "set", *numbered(""))
    rows = [json.dumps({"file_name": name, **given}) for name in numbered("")]
    (tmp_path / "set" / "metadata.jsonl").write_text("\n".join(rows))
    images = load_data(str(tmp_path / "set"))
    assert images.labels is None and "metadata.jsonl" in images.notices[0]


def test_a_file_beside_each_picture_is_said(tmp_path):
    write(tmp_path / "set", *numbered("images/"))
    for k in range(4):
        (tmp_path / "set" / "images" / f"{k:03d}.json").write_text('{"label": 7}')
    assert "4 .json files named as pictures were not read" in find_pictures(tmp_path / "set").notices[0]


@pytest.mark.parametrize("given", [range(60), [f"img{k}.png" for k in range(60)]])
def test_a_label_of_its_own_for_each_image_is_an_id(tmp_path, given):
    np.savez(tmp_path / "x.npz", x=PIXELS, y=np.array(given))
    for data in (str(tmp_path / "x.npz"), (PIXELS, list(given))):
        images = gs.load_data(data)
        assert images.labels is None and any("as ids are" in words for words in images.notices)
    assert gs.load_data((PIXELS[:10], range(10))).num_classes == 10


def test_a_test_is_read_with_the_axes_of_training(tmp_path):
    last = np.moveaxis(PIXELS, 0, -1)
    np.savez(
        tmp_path / "x.npz", x_train=last, y_train=np.arange(60) % 3, x_test=last[..., :16], y_test=np.arange(16) % 3
    )
    found = load_data(str(tmp_path / "x.npz"), part="test").pixels[:, 0].numpy()
    np.testing.assert_array_equal(found, PIXELS[:16])


def table(pixels, labels):
    return [[label, *row] for label, row in zip(labels, pixels.reshape(len(pixels), -1).tolist(), strict=True)]


def test_a_table_saved_again_by_pandas_loses_its_made_header_alone(tmp_path):
    dark = np.where(PIXELS < 200, 0, PIXELS)
    raw = tmp_path / "raw.csv"
    raw.write_text("".join(",".join(map(str, row)) + "\n" for row in table(dark, np.arange(60) % 10)))
    pd.read_csv(raw).to_csv(tmp_path / "again.csv", index=False)
    images = load_data(str(tmp_path / "again.csv"))
    np.testing.assert_array_equal(images.pixels[:, 0].numpy(), dark[1:])
    assert "pandas" in images.notices[0] and images.labels.tolist() == [k % 10 for k in range(1, 60)]


def test_rows_of_empty_cells_are_passed_over(tmp_path):
    lines = [",".join(map(str, row)) for row in table(PIXELS, np.arange(60) % 10)]
    (tmp_path / "x.csv").write_text("\n".join([*lines, "," * 256, ""]))
    assert len(load_data(str(tmp_path / "x.csv"))) == 60


def parquet(path, pixels, kind):
    rows = pa.array([row.ravel().tolist() for row in pixels], pa.list_(kind))
    pq.write_table(pa.table({"image": rows, "label": (np.arange(len(pixels)) % 3).tolist()}), path)
    return str(path)


def test_one_rule_scales_all_numbers_of_a_parquet_file(tmp_path):
    mixed = np.concatenate([np.tile(PIXELS % 2, (6, 1, 1)), PIXELS])
    found = load_data(parquet(tmp_path / "a.parquet", mixed, pa.uint8())).pixels[:, 0].numpy()
    np.testing.assert_array_equal(found, mixed)
    signed = np.concatenate([np.tile(PIXELS / 255, (6, 1, 1)), PIXELS / 127.5 - 1])
    images = load_data(parquet(tmp_path / "b.parquet", signed, pa.float32()))
    np.testing.assert_allclose(images.pixels[:, 0].numpy(), np.rint((signed + 1) * 127.5), atol=1)
    assert "taken to be in [-1, 1]" in images.notices[0]
    wide = PIXELS.astype(np.uint16) * 257
    images = load_data(parquet(tmp_path / "c.parquet", wide, pa.uint16()))
    np.testing.assert_allclose(images.pixels[:, 0].numpy(), PIXELS, atol=1)
    with pytest.raises(DataError, match="numbers from -.* undo a standardisation"):
        load_data(parquet(tmp_path / "d.parquet", RNG.normal(size=(60, 16, 16)) * 2, pa.float32()))


def test_python_objects_that_name_or_hold_pictures_are_read(tmp_path):
    files = [str(write(tmp_path, name) / name) for name in numbered("", 6)]
    labels = [0, 1, 2, 0, 1, 2]
    pictures = [Image.open(file) for file in files]
    for data in (
        pd.DataFrame({"path": files, "label": labels}),
        pd.DataFrame({"image": pictures, "label": labels}),
        pd.DataFrame({"label": labels, "pixels": list(PIXELS[:6])}),
    ):
        assert gs.load_data(data).labels.tolist() == labels
    for data in (np.array(files), pd.Series(files), np.array([*pictures, None], object)[:6]):
        assert len(gs.load_data(data)) == 6


class Loader:
    dataset = ()

    def __iter__(self):
        return iter(())


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (((PIXELS, np.arange(60)), (PIXELS[:5], np.arange(5))), "a pair of pairs.*give the first, data"),
        ((PIXELS, (k for k in range(60))), r"labels are of type generator; give .*list\(labels\)"),
        ((PIXELS, {0: 1}), "labels are of type dict"),
        (Loader(), "give its data set, data.dataset"),
    ],
    ids=["pairs", "generator", "dict", "loader"],
)
def test_objects_that_cannot_be_read_have_a_way_out(data, words):
    with pytest.raises(DataError, match=words):
        gs.load_data(data)


@pytest.mark.parametrize(("name", "words"), [("a.7z", "unpack it"), ("a.tfrecord", "numpy.savez")])
def test_files_that_cannot_be_read_have_a_way_out(tmp_path, name, words):
    (tmp_path / name).write_bytes(b"7z\xbc\xaf" + bytes(100))
    with pytest.raises(DataError, match=words):
        load_data(str(tmp_path / name))


@pytest.mark.parametrize(("count", "words"), [(30, "all images of .* are the same"), (1, "too few images")])
def test_inspection_refuses_what_training_refuses(tmp_path, count, words):
    for k in range(count):
        (tmp_path / f"{k}.png").write_bytes(png(PIXELS[0]))
    facts, _ = inspect(tmp_path, Preparation())
    with pytest.raises(DataError, match=words) as caught:
        gs.train("mlp-small", data=tmp_path, images=64, progress="none", out=tmp_path / "run")
    assert facts["refused"] in str(caught.value)


def test_a_picture_of_the_user_is_never_taken_for_a_preview(tmp_path, monkeypatch, gansmith):
    monkeypatch.chdir(write(tmp_path / "set", *numbered(""), "preview.png"))
    before = (tmp_path / "set" / "preview.png").read_bytes()
    code, _, err = gansmith("data", "inspect", ".")
    assert code == 2 and "preview.png exists and was not written by Gansmith" in err
    assert (tmp_path / "set" / "preview.png").read_bytes() == before
    for _ in range(2):  # its own is replaced, and is none of the pictures
        code, out, _ = gansmith("data", "inspect", ".", "--out", "grid.png")
        assert code == 0 and "5 images" in out


@pytest.mark.slow
def test_a_run_is_resumed_where_its_images_were_moved_and_says_where_others_lie(tmp_path, gansmith):
    folder = write(tmp_path / "pets", *numbered("cat/", 20), *numbered("dog/", 20))
    choices = {"images": 64, "progress": "none", "trackers": "none"}
    run = gs.train("mlp-small", data=folder, out=tmp_path / "run", **choices)
    assert not any("other images" in words for words in gs.evaluate(run, quick=True)["notices"])
    folder.rename(tmp_path / "animals")
    with pytest.raises(GansmithError, match="which is not there; where they were moved, give their place"):
        gs.resume(run, images=128, progress="none")
    assert gs.resume(run, images=128, data=tmp_path / "animals", progress="none").images_seen == 128
    code, _, _ = gansmith(
        "resume", run.directory, "--images", "192", "--data", tmp_path / "animals", "--progress", "none"
    )
    assert code == 0
    for k, file in enumerate(sorted((tmp_path / "animals").rglob("*.png"))):
        file.write_bytes(png(255 - PIXELS[k]))
    assert any("holds other images than" in words for words in gs.evaluate(run, quick=True)["notices"])
    with pytest.raises(GansmithError, match="was trained on data with SHA-256"):
        gs.resume(run, images=256, data=tmp_path / "animals", progress="none")


def test_an_npz_of_pictures_is_read_as_an_archive_of_them(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as archive:
        for name in numbered(""):
            archive.writestr(name, png(PIXELS[0]))
    with pytest.raises(DataError, match="pictures"):
        load_data(str(tmp_path / "x.npz"))


@pytest.mark.parametrize("form", ["csv", "frame"])
def test_columns_of_pixels_are_taken_by_the_number_in_their_names(tmp_path, form):
    names = sorted(f"pixel{k}" for k in range(256))  # pixel0, pixel1, pixel10, ...
    table = pd.DataFrame(PIXELS.reshape(60, 256), columns=[f"pixel{k}" for k in range(256)])[names]
    table.insert(0, "label", np.arange(60) % 4)
    table.to_csv(tmp_path / "x.csv", index=False)
    images = gs.load_data(tmp_path / "x.csv" if form == "csv" else table)
    assert (images.pixels[:, 0].numpy() == PIXELS).all() and images.labels.tolist() == (np.arange(60) % 4).tolist()
    assert any("order of their numbers" in notice for notice in images.notices)


@pytest.mark.parametrize("high", [1.6, 3.2, 9.5])
def test_floats_on_no_common_scale_are_refused(high):
    with pytest.raises(DataError, match="neither up to 1 nor up to 255"):
        gs.load_data((PIXELS / 255 * high).astype(np.float32))
    assert gs.load_data((PIXELS % 10).astype(np.float32)).pixels.max() == 9  # whole ones may be dark


@pytest.mark.parametrize("kind", ["<u2", ">u2"])
def test_numbers_of_16_bits_are_scaled_in_either_order_of_bytes(kind):
    images = gs.load_data((PIXELS.astype(np.uint32) * 257).astype(kind))
    assert (images.pixels[:, 0].numpy() == PIXELS).all()


def test_folders_of_operating_systems_are_passed_over(tmp_path):
    write(tmp_path, *numbered("cat/"), *numbered("dog/"))
    write(tmp_path, *numbered("$RECYCLE.BIN/S-1-5/"), *numbered("System Volume Information/"), *numbered("lost+found/"))
    assert find_pictures(tmp_path).class_names == ("cat", "dog")


@pytest.mark.parametrize("as_pair", [False, True])
def test_lists_of_labels_are_one_hot_rows(as_pair):
    pictures, rows = [Image.fromarray(one) for one in PIXELS], np.eye(3, dtype=int)[np.arange(60) % 3].tolist()
    images = gs.load_data((pictures, rows) if as_pair else list(zip(pictures, rows, strict=True)))
    assert images.labels.tolist() == (np.arange(60) % 3).tolist()
    boxes = gs.load_data(list(zip(pictures, [[0, 1, 1]] * 60, strict=True)))
    assert boxes.labels is None and "several classes" in " ".join(boxes.notices)


def test_masks_as_labels_are_refused_in_a_sentence():
    pictures = [Image.fromarray(one) for one in PIXELS]
    with pytest.raises(DataError, match="labels of .* are Image; give one whole number or one name"):
        gs.load_data(list(zip(pictures, pictures, strict=True)))


class Lazy(Dataset):
    """Pairs of which one file in twenty is damaged, or missing."""

    def __init__(self, damaged):
        self.damaged = damaged

    def __len__(self):
        return 60

    def __getitem__(self, row):
        if row % 20 == 7 and self.damaged == "raises":
            raise OSError("image file is truncated")
        return None if row % 20 == 7 else Image.fromarray(PIXELS[row]), row % 4


@pytest.mark.parametrize("damaged", ["raises", "missing"])
def test_pictures_that_a_set_cannot_read_are_left_out_with_their_labels(damaged):
    images = gs.load_data(Lazy(damaged))
    kept = [row for row in range(60) if row % 20 != 7]
    assert (images.pixels[:, 0].numpy() == PIXELS[kept]).all() and images.labels.tolist() == [row % 4 for row in kept]
    assert any("3 of 60 pictures cannot be read" in notice for notice in images.notices)


def test_pictures_whose_file_was_closed_are_named_as_such(tmp_path):
    write(tmp_path, *numbered("", 60))
    closed = []
    for path in sorted(tmp_path.glob("*.png")):
        with Image.open(path) as picture:
            closed.append(picture)
    with pytest.raises(DataError, match="its file is closed"):
        gs.load_data(closed)


class Counted(IterableDataset):
    def __iter__(self):
        return iter(())

    def __len__(self):
        return 60


def test_a_stream_that_knows_its_length_is_still_a_stream():
    with pytest.raises(DataError, match="can only be read in order"):
        gs.load_data(Counted())


def test_labels_of_a_list_may_be_a_shuffled_series():
    labels = pd.Series(np.arange(60) % 4, index=np.arange(100, 160))
    assert gs.load_data([PIXELS, labels]).labels.tolist() == (np.arange(60) % 4).tolist()


@pytest.mark.parametrize("form", ["hugging face", "arrays", "lists", "text"])
def test_cells_of_a_frame_hold_pictures_in_any_form(form):
    cell = {
        "hugging face": lambda row: {"bytes": png(PIXELS[row]), "path": None},
        "arrays": lambda row: PIXELS[row].reshape(-1),
        "lists": lambda row: PIXELS[row].reshape(-1).tolist(),
        "text": lambda row: str(PIXELS[row].reshape(-1).tolist()),
    }[form]
    frame = pd.DataFrame({"image": [cell(row) for row in range(60)], "label": np.arange(60) % 4})
    images = gs.load_data(frame)
    assert (images.pixels[:, 0].numpy() == PIXELS).all() and images.labels.tolist() == (np.arange(60) % 4).tolist()


@pytest.mark.parametrize(
    ("images", "labels", "array"), [("images", "labels", "labels"), ("train_images", "train_labels", "x")]
)
def test_labels_lie_in_a_file_beside_the_images(tmp_path, images, labels, array):
    np.savez(tmp_path / f"{images}.npz", images=PIXELS)
    np.savez(tmp_path / f"{labels}.npz", **{array: np.arange(60) % 4})
    assert gs.load_data(tmp_path / f"{images}.npz").labels.tolist() == (np.arange(60) % 4).tolist()


@pytest.mark.parametrize("y", [PIXELS, np.linspace(0, 1, 60)], ids=["images", "measurements"])
def test_arrays_called_y_that_are_no_labels_are_left_out(tmp_path, y):
    np.savez(tmp_path / "x.npz", x=PIXELS, y=y)
    images = gs.load_data(tmp_path / "x.npz")
    assert images.labels is None and len(images) == 60
    assert any("arrays that are not used: y" in notice for notice in images.notices)


def test_parquet_of_lists_of_pictures_and_of_columns_of_pixels(tmp_path):
    rows = [[{"bytes": png(one), "path": ""}] for one in PIXELS]
    pq.write_table(pa.table({"images": rows, "label": (np.arange(60) % 4).tolist()}), tmp_path / "x.parquet")
    images = gs.load_data(tmp_path / "x.parquet")
    assert (images.pixels[:, 0].numpy() == PIXELS).all() and any("the first is taken" in one for one in images.notices)
    pd.DataFrame(PIXELS.reshape(60, 256)).rename(columns=str).to_parquet(tmp_path / "y.parquet")
    with pytest.raises(DataError, match="a column for each pixel as CSV"):
        gs.load_data(tmp_path / "y.parquet")


def test_trainval_and_latest_are_no_tests(tmp_path):
    for name in ("latest_trainval", "test"):
        np.save(tmp_path / f"x_{name}.npy", PIXELS if name != "test" else PIXELS[:20])
    assert len(gs.load_data(tmp_path, split="all")) >= 60


def test_joined_sets_keep_their_class_names():
    part = Lazy("")
    part.classes = ["a", "b", "c", "d"]
    assert gs.load_data(ConcatDataset([part, part])).class_names == ("a", "b", "c", "d")
