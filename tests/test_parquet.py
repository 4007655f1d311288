"""Parquet files: Hugging Face's layout and others, shards and splits, what is refused, and bounded memory."""

import contextlib
import io

import numpy as np
import pytest
from PIL import Image

from gansmith.data.inspection import inspect
from gansmith.data.prepare import Preparation
from gansmith.data.sources import load_source, open_source
from gansmith.errors import DataError, NotFoundError

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")

RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, (30, 8, 8, 3), dtype=np.uint8)
LABELS = (np.arange(30) % 3).tolist()
NAMES = b'{"info": {"features": {"label": {"names": ["cat", "dog", "owl"], "_type": "ClassLabel"}}}}'


def png(image):
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    return buffer.getvalue()


PICTURES = [png(image) for image in PIXELS]


def write(path, columns, *, metadata=None, group=7):
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns).replace_schema_metadata(metadata), path, row_group_size=group)
    return path


def as_structs(pictures):
    return pa.array([{"bytes": data, "path": None} for data in pictures])


@contextlib.contextmanager
def measured_memory():
    """Give a function that returns the most bytes that pyarrow held meanwhile."""
    before = pa.default_memory_pool()
    pool = pa.proxy_memory_pool(before)
    pa.set_memory_pool(pool)
    try:
        yield pool.max_memory
    finally:
        pa.set_memory_pool(before)


def read(path, part="train", **how):
    return load_source(open_source(path), Preparation(**how), part=part)


IMAGE_COLUMNS = {
    "structs": as_structs(PICTURES),
    "binary": pa.array(PICTURES),
    "large binary": pa.array(PICTURES, pa.large_binary()),
    "nested lists": pa.array(PIXELS.tolist()),
    "channels first": pa.array(PIXELS.transpose(0, 3, 1, 2).tolist()),
    "flat": pa.array(PIXELS.transpose(0, 3, 1, 2).reshape(30, -1).tolist()),
    "floats": pa.array((PIXELS / 255).tolist()),
    "floats from -1": pa.array((PIXELS / 127.5 - 1).tolist()),
}


@pytest.mark.parametrize("kind", IMAGE_COLUMNS)
def test_every_form_of_images_gives_the_same_pixels(tmp_path, kind):
    path = write(tmp_path / "a.parquet", {"image": IMAGE_COLUMNS[kind], "label": LABELS})
    images = read(path)
    np.testing.assert_array_equal(images.pixels.permute(0, 2, 3, 1).numpy(), PIXELS)
    assert images.labels.tolist() == LABELS and images.class_names == ()


def test_numbers_are_scaled_by_the_range_of_the_file_not_of_each_row(tmp_path):
    def values(levels):
        images = read(write(tmp_path / "a.parquet", {"image": [np.full((8, 8), level).tolist() for level in levels]}))
        return images.pixels[:, 0, 0, 0].tolist()

    assert values([-1.0, 0.0, 1.0]) == [0, 128, 255]
    assert values([1.0, 51.0, 255.0]) == [1, 51, 255]
    assert values([0, 1, 1]) == [0, 255, 255] and values([0, 1, 9]) == [0, 1, 9]


def test_flat_color_rows_are_taken_in_the_order_in_which_the_file_is_smoother(tmp_path):
    shades = np.mgrid[0:8, 0:8].sum(0)[..., None] * np.array([15, 9, 2]) + np.array([0, 30, 200])
    stored = np.stack([np.full((8, 8, 3), 7), *[shades + k for k in range(9)]])  # the first is as smooth in either
    images = read(write(tmp_path / "a.parquet", {"image": stored.reshape(10, -1).tolist()}))
    np.testing.assert_array_equal(images.pixels.permute(0, 2, 3, 1).numpy(), stored)


def test_shards_and_splits_are_one_set_with_hugging_faces_class_names(tmp_path):
    folder = tmp_path / "set" / "data"
    for split, rows in (("train", range(0, 12)), ("train", range(12, 20)), ("test", range(20, 30))):
        shard = len(list(folder.glob(f"{split}*"))) if folder.exists() else 0
        columns = {"image": as_structs([PICTURES[row] for row in rows]), "label": [LABELS[row] for row in rows]}
        write(folder / f"{split}-{shard:05d}-of-00002.parquet", columns, metadata={b"huggingface": NAMES})
    for path in (folder, tmp_path / "set"):
        train, test = read(path), read(path, "test")
        assert (len(train), len(test)) == (20, 10) and train.class_names == ("cat", "dog", "owl")
        np.testing.assert_array_equal(train.pixels.permute(0, 2, 3, 1).numpy(), PIXELS[:20])
        assert test.labels.tolist() == LABELS[20:]
    facts, preview = inspect(tmp_path / "set", Preparation())
    assert facts["images"] == {"train": 20, "test": 10} and facts["classes"] == {"cat": 7, "dog": 7, "owl": 6}
    assert len(preview) == 20


def test_the_name_of_the_folder_that_was_given_makes_no_split(tmp_path):
    for split, rows in (("train", slice(20)), ("test", slice(20, 30))):
        write(tmp_path / "training_data" / f"{split}-0.parquet", {"image": PICTURES[rows], "label": LABELS[rows]})
    path = tmp_path / "training_data"
    assert (len(read(path)), len(read(path, "test"))) == (20, 10)


@pytest.mark.parametrize("kept_back", [[-1] * 10, [None] * 10, None])
def test_labels_that_are_kept_back_in_a_test_leave_those_of_training(tmp_path, kept_back):
    write(tmp_path / "set" / "train-0.parquet", {"image": PICTURES[:20], "label": LABELS[:20]})
    hidden = {} if kept_back is None else {"label": pa.array(kept_back, pa.int64())}
    write(tmp_path / "set" / "test-0.parquet", {"image": PICTURES[20:], **hidden})
    train, test = read(tmp_path / "set"), read(tmp_path / "set", "test")
    assert train.labels.tolist() == LABELS[:20] and test.labels is None and len(test) == 10
    assert "the test images are without labels" in train.notices


def test_folders_for_each_split_are_one_set_and_links_of_a_cache_are_followed(tmp_path):
    for split, rows in (("partial-train", slice(20)), ("test", slice(20, 30))):
        write(tmp_path / "set" / "plain" / split / "0000.parquet", {"image": PICTURES[rows], "label": LABELS[rows]})
    for path in (tmp_path / "set", tmp_path / "set" / "plain"):
        assert (len(read(path)), len(read(path, "test"))) == (20, 10)
    write(tmp_path / "blobs" / "1234", {"image": PICTURES})
    (tmp_path / "snapshots" / "abc" / "data").mkdir(parents=True)
    (tmp_path / "snapshots" / "abc" / "data" / "train-0.parquet").symlink_to("../../../blobs/1234")
    assert len(read(tmp_path / "snapshots" / "abc")) == 30


def test_labels_may_be_names_and_what_is_no_label_is_said(tmp_path):
    words = ["dog" if label else "ape" for label in LABELS]
    named = read(write(tmp_path / "a.parquet", {"img": PICTURES, "class": words}))
    assert named.class_names == ("ape", "dog") and named.labels.tolist() == [min(1, label) for label in LABELS]
    odd = read(write(tmp_path / "b.parquet", {"img": PICTURES, "label": [[1]] * 30}))
    assert odd.labels is None and "neither" in " ".join(odd.notices)
    assert read(write(tmp_path / "c.parquet", {"img": PICTURES, "label": [-1] * 30})).labels is None
    gap = read(write(tmp_path / "d.parquet", {"img": PICTURES, "label": [*LABELS[:-1], None]}))
    assert gap.labels is None and "column label has gaps" in gap.notices[0]
    floats = read(write(tmp_path / "f.parquet", {"img": PICTURES, "label": np.array(LABELS, float)}))
    assert floats.labels.tolist() == LABELS
    assert read(
        write(tmp_path / "e.parquet", {"img": PICTURES, "label": [10**12 + k % 2 for k in range(30)]})
    ).class_names


def test_the_column_of_pictures_is_chosen_by_its_name_and_others_are_said(tmp_path):
    columns = {"mask": as_structs(PICTURES[::-1]), "image": as_structs(PICTURES), "label": LABELS}
    images = read(write(tmp_path / "a.parquet", columns))
    np.testing.assert_array_equal(images.pixels.permute(0, 2, 3, 1).numpy(), PIXELS)
    assert images.notices[0] == "columns that are not used: mask"
    named = read(write(tmp_path / "b.parquet", {"image": PICTURES, "species": ["cat", "dog", "owl"] * 10}))
    assert named.labels is None
    assert named.notices[0] == "columns that are not used: species; labels are read from a column called label"


def test_labels_below_zero_are_said_and_digits_in_text_keep_their_numbers(tmp_path):
    some = read(write(tmp_path / "a.parquet", {"image": PICTURES, "label": [-1, *LABELS[1:]]}))
    assert some.labels is None and "the column label is below 0 in 1 of 30 rows" in some.notices[0]
    digits = read(write(tmp_path / "b.parquet", {"image": PICTURES, "label": ["1", "3", "5"] * 10}))
    assert digits.labels.tolist() == [1, 3, 5] * 10 and digits.class_names == ()


def test_numbers_on_another_scale_are_scaled_and_said(tmp_path):
    stored = np.arange(40 * 64).reshape(40, 8, 8) % 17
    images = read(write(tmp_path / "a.parquet", {"image": stored.tolist()}))
    assert np.abs(images.pixels[:, 0].numpy() - stored * (255 / 16)).max() <= 0.5
    assert images.notices[0] == "its numbers, 0 to 16, are scaled to 0 to 255"


@pytest.mark.parametrize("kind", ["null", "binary"])
def test_paths_without_pictures_are_refused(tmp_path, kind):
    types = pa.struct([("bytes", pa.type_for_alias(kind)), ("path", pa.string())])
    rows = pa.array([{"bytes": None, "path": f"/x/{row}.png"} for row in range(9)], types)
    with pytest.raises(DataError, match="holds the paths of pictures alone in its column image; give the folder"):
        read(write(tmp_path / "a.parquet", {"image": rows, "label": LABELS[:9]}))


def test_a_missing_permission_is_said(tmp_path, monkeypatch):
    path = write(tmp_path / "a.parquet", {"image": PICTURES})

    def refusing(*args, **kwargs):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(pq, "ParquetFile", refusing)
    with pytest.raises(DataError, match=r"a.parquet cannot be read \(permission denied\); allow it"):
        read(path)


def test_broken_pictures_are_listed_by_row(tmp_path):
    pictures = [*PICTURES[:4], b"nothing", *PICTURES[5:]]
    images = read(write(tmp_path / "a.parquet", {"image": as_structs(pictures), "label": LABELS}))
    assert len(images) == 29 and "1 of 30 pictures cannot be read: a.parquet#4" in images.notices[0]
    with pytest.raises(DataError, match="repair or remove"):
        read(tmp_path / "a.parquet", strict=True)


def test_files_without_images_are_refused(tmp_path):
    refused = {r"has the columns a \(int64\), b": {"a": [1, 2], "b": ["x", "y"]},
               "holds no rows": {"image": pa.array([], pa.binary())}}  # fmt: skip
    for words, columns in refused.items():
        with pytest.raises((DataError, NotFoundError), match=words) as refusal:
            read(write(tmp_path / "a.parquet", columns))
        assert len(str(refusal.value).splitlines()) == 1


def test_damage_and_several_sets_are_refused_in_one_line(tmp_path):
    path = write(tmp_path / "a.parquet", {"image": PICTURES})
    whole = path.read_bytes()
    for data in (b"", b"PAR1", whole[:200], whole[:-9] + b"\xff" * 5 + whole[-4:]):
        path.write_bytes(data)
        with pytest.raises(DataError, match="a.parquet cannot be read") as refusal:
            read(path)
        assert len(str(refusal.value).splitlines()) == 1
    for name in ("one", "two"):
        write(tmp_path / "sets" / name / "train.parquet", {"image": PICTURES})
    with pytest.raises(DataError, match="several sets of parquet files"):
        read(tmp_path / "sets")


def test_other_splits_beside_the_training_part_are_left_out(tmp_path):
    for name, label in (("train-0", 1), ("extra-0", -1), ("unsupervised-0", -1)):
        write(tmp_path / f"{name}.parquet", {"image": as_structs(PICTURES), "label": [label] * 30})
    images = read(tmp_path)
    assert len(images) == 30 and images.labels.tolist() == [1] * 30
    assert "left out beside the training part: extra-0.parquet, unsupervised-0.parquet" in images.notices
    assert len(read(tmp_path / "extra-0.parquet")) == 30


@pytest.mark.parametrize(
    "other",
    [
        pa.array([["a", "b"]], pa.list_(pa.string())),
        pa.array([[("a", "b")]], pa.map_(pa.string(), pa.string())),
        pa.array([[{"box": 1}]], pa.list_(pa.struct({"box": pa.int64()}))),
    ],
    ids=lambda other: str(other.type),
)
def test_lists_of_other_things_are_no_pictures(tmp_path, other):
    with pytest.raises(DataError, match="has the columns url .*; one of pictures, called image, is needed"):
        read(write(tmp_path / "a.parquet", {"url": ["x"], "captions": other}))


def test_a_long_text_or_picture_in_many_rows_takes_no_memory(tmp_path):
    """A dictionary holds it once in the file, whatever the number of its rows."""
    rows = 200_000
    large = pa.DictionaryArray.from_arrays(pa.array(np.zeros(rows, np.int32)), pa.array(["x" * 2**20]))
    small = pa.DictionaryArray.from_arrays(pa.array(np.zeros(rows, np.int32)), pa.array([PICTURES[0]]))
    path = tmp_path / "a.parquet"
    written = {"store_schema": False, "use_dictionary": True, "dictionary_pagesize_limit": 2**24}
    pq.write_table(pa.table({"image": small, "label": large}), path, **written)
    assert path.stat().st_size < 2**21
    with measured_memory() as taken, pytest.raises(DataError, match="a text of 1,048,576 bytes in its column label"):
        read(path)
    assert taken() < 2**28
    noise = RNG.integers(0, 256, 2**23, dtype=np.uint8).tobytes()
    large = pa.DictionaryArray.from_arrays(pa.array(np.zeros(256, np.int32)), pa.array([noise], pa.binary()))
    pq.write_table(pa.table({"image": large}), path, **written)
    with measured_memory() as taken, pytest.raises((DataError, NotFoundError)):
        read(path)
    assert taken() < 2**28


def test_shards_of_digits_and_of_letters_have_one_list_of_classes(tmp_path):
    for k, labels in enumerate((["0", "1"] * 4, ["A", "B"] * 4)):
        pictures = [{"bytes": png(np.full((8, 8), 20 * j + k, np.uint8)), "path": None} for j in range(8)]
        write(tmp_path / f"train-0000{k}-of-00002.parquet", {"image": pictures, "label": labels})
    found = load_source(open_source(tmp_path), Preparation())
    assert found.class_names == ("0", "1", "A", "B") and found.labels.tolist() == [0, 1] * 4 + [2, 3] * 4
