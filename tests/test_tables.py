"""Tables of pixels: what is a header, which column holds labels, the forms of text, and what is refused."""

import gzip

import numpy as np
import pytest

from gansmith.data import tables
from gansmith.data.arrays import read_file
from gansmith.errors import DataError

RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, (20, 64), dtype=np.uint8)
LABELS = RNG.permutation(np.arange(20) % 10)
NAMES = [f"pixel{k}" for k in range(64)]
TABLE = np.concatenate([LABELS[:, None], PIXELS], axis=1)


def write(path, rows, *, names=(), mark=","):
    lines = [mark.join(names)] * bool(names) + [mark.join(map(str, row)) for row in rows]
    path.write_text("\n".join(lines) + "\n")
    return path


def read(path):
    return read_file(path)["train"]


def is_whole(found, labels=LABELS):
    np.testing.assert_array_equal(found.pixels.reshape(len(found.pixels), -1), PIXELS)
    return found.labels is None if labels is None else found.labels.tolist() == labels.tolist()


@pytest.mark.parametrize("label", ["first", "last", "none"])
@pytest.mark.parametrize("header", [True, False])
@pytest.mark.parametrize("name", ["a.csv", "a.csv.gz", "a.tsv"])
def test_tables_have_a_row_for_each_image(tmp_path, name, header, label):
    column = {"first": [LABELS[:, None], PIXELS], "last": [PIXELS, LABELS[:, None]], "none": [PIXELS]}[label]
    names = {"first": ["label", *NAMES], "last": [*NAMES, "class"], "none": NAMES}[label]
    mark = "\t" if name == "a.tsv" else ","
    lines = [mark.join(names)] * header + [mark.join(map(str, row)) for row in np.concatenate(column, axis=1)]
    text = ("\ufeff" * header + "\r\n".join(lines) + "\n").encode()
    (tmp_path / name).write_bytes(gzip.compress(text) if name.endswith(".gz") else text)
    assert is_whole(read(tmp_path / name), None if label == "none" else LABELS)


def test_numbers_in_any_notation_are_no_header(tmp_path):
    np.savetxt(tmp_path / "a.csv", TABLE, delimiter=",")
    assert (tmp_path / "a.csv").read_text().count("e+0") > 1000 and is_whole(read(tmp_path / "a.csv"))
    counted = write(tmp_path / "b.csv", TABLE, names=[str(k) for k in range(65)])  # as pandas numbers columns
    assert is_whole(read(counted))


@pytest.mark.parametrize("gap", ["nan", "", "x"])
def test_pixels_without_a_number_are_refused_wherever_they_are(tmp_path, gap):
    for row in (0, 7):
        rows = TABLE.astype(str).astype(object)
        rows[row, 30] = gap
        names = ["label", *NAMES] if (gap, row) == ("x", 0) else ()
        with pytest.raises(DataError, match="non-finite numbers|a cell is empty|'x' is not a number|no square images"):
            read(write(tmp_path / "a.csv", rows, names=names))


INDEX = np.arange(20)[:, None]


@pytest.mark.parametrize(
    ("names", "columns", "labels"),
    [
        ([*NAMES, "labels"], [PIXELS, LABELS[:, None]], LABELS),
        (["letter", *NAMES], [LABELS[:, None], PIXELS], LABELS),
        (["id", *NAMES], [INDEX, PIXELS], None),
        (["ImageId", *NAMES], [INDEX + 1, PIXELS], None),
        (["", *NAMES], [INDEX, PIXELS], None),
        (["Unnamed: 0", "label", *NAMES], [INDEX, LABELS[:, None], PIXELS], LABELS),
        (["", "label", *NAMES], [INDEX, LABELS[:, None], PIXELS], LABELS),
        (["digit", "label", *NAMES], [LABELS[:, None], INDEX, PIXELS], LABELS),
        ([*NAMES, "sort"], [PIXELS, LABELS[:, None]], LABELS),
    ],
)
def test_columns_are_known_by_their_names(tmp_path, names, columns, labels):
    assert is_whole(read(write(tmp_path / "a.csv", np.concatenate(columns, axis=1), names=names)), labels)


def test_names_of_classes_are_numbered_and_other_text_is_left_out(tmp_path):
    words = np.array(["dog", "ape"])[LABELS % 2]
    rows = np.concatenate([words[:, None], PIXELS.astype(str), np.full((20, 1), "Training")], axis=1)
    found = read(write(tmp_path / "a.csv", rows, names=["label", *NAMES, "Usage"]))
    assert is_whole(found, 1 - LABELS % 2) and found.class_names == ("ape", "dog")
    assert found.notices == ("columns that are not used: Usage",)
    rows[3, 0] = ""
    found = read(write(tmp_path / "a.csv", rows, names=["label", *NAMES, "Usage"]))
    assert is_whole(found, None) and "has no label for 1 of 20 images" in found.notices[1]


@pytest.mark.parametrize("place", [0, 64])
def test_a_row_of_numbers_with_the_name_of_a_class_is_no_header(tmp_path, place):
    words = np.array(["dog", "ape"])[LABELS % 2]
    rows = np.insert(PIXELS.astype(str).astype(object), place, words, axis=1)
    assert is_whole(read(write(tmp_path / "a.csv", rows)), 1 - LABELS % 2)
    for names in (["label", *map(str, range(64))], ["sort", *map(str, range(64))], ["letter", *["0"] * 64]):
        names.insert(place, names.pop(0))
        assert is_whole(
            read(write(tmp_path / "a.csv", rows, names=names)), (1 - LABELS % 2) if names[place] != "sort" else None
        )


@pytest.mark.parametrize("place", ["first", "last"])
def test_without_a_header_the_column_that_looks_like_class_ids_holds_labels(tmp_path, place):
    def read_with(labels, pixels):
        columns = [labels[:, None], pixels] if place == "first" else [pixels, labels[:, None]]
        return read(write(tmp_path / "a.csv", np.concatenate(columns, axis=1)))

    found = read_with(LABELS, PIXELS)
    assert is_whole(found) and found.notices == (f"its {place} column is taken for labels",)
    corners = PIXELS.copy()
    corners[:, [0, -1]] = RNG.choice([0, 0, 0, 17, 40], (20, 2))  # fewer different values than classes
    assert read_with(LABELS, corners).labels.tolist() == LABELS.tolist()
    corners[:, [0, -1]] = np.where(np.arange(20) < 2, 1, 0)[:, None]  # mostly black, as in Fashion-MNIST
    assert read_with(LABELS, corners).labels.tolist() == LABELS.tolist()
    corners[:, [0, -1]] = 230 + RNG.permutation(20)[:, None] % 10  # the brightest pixel, without gaps
    assert read_with(LABELS, corners).labels.tolist() == LABELS.tolist()
    corners[:, [0, -1]] = 0
    assert read_with(LABELS % 2 * 4 + 3, corners).labels.tolist() == (LABELS % 2 * 4 + 3).tolist()
    binary = read_with(LABELS, PIXELS > 127)
    assert binary.labels.tolist() == LABELS.tolist() and binary.pixels.max() == 255
    counted = np.concatenate([np.arange(20)[:, None], LABELS[:, None], PIXELS], axis=1)
    assert is_whole(read(write(tmp_path / "b.csv", counted)))
    floats = read_with(LABELS, PIXELS / 255)
    assert floats.labels.tolist() == LABELS.tolist()
    np.testing.assert_array_equal(floats.pixels.reshape(20, -1), PIXELS)


def test_without_a_header_a_column_that_counts_is_no_label(tmp_path):
    for index in (np.arange(20), RNG.permutation(20) * 100):
        found = read(write(tmp_path / "a.csv", np.concatenate([index[:, None], PIXELS], axis=1)))
        assert is_whole(found, None) and found.notices == ("its first column numbers its images, which have no labels",)


@pytest.mark.parametrize("form", ["semicolons", "quotes", "quoted header", "trailing commas", "spaces", "blank lines"])
def test_text_has_many_forms(tmp_path, form):
    names, mark = ["label", *NAMES], ";" if form == "semicolons" else ", " if form == "spaces" else ","
    quote = '"{}"'.format if form == "quotes" else str
    lines = [mark.join(map(quote, row)) for row in [names, *TABLE.tolist()]]
    if form == "quoted header":
        lines[0] = mark.join(f'"{name}"' for name in names)
    between = {"trailing commas": ",\n", "blank lines": "\n\n"}.get(form, "\n")
    (tmp_path / "a.csv").write_text(between.join([*lines, ""]))
    assert is_whole(read(tmp_path / "a.csv"))


@pytest.mark.parametrize("header", [True, False])
def test_all_pixels_of_an_image_may_lie_in_one_cell(tmp_path, header):
    rows = [(label, " ".join(map(str, pixels))) for label, pixels in zip(LABELS, PIXELS, strict=True)]
    names = ["emotion", "pixels", "Usage"] if header else ()
    rows = [(*row, "Training") for row in rows] if header else rows
    assert is_whole(read(write(tmp_path / "a.csv", rows, names=names)))
    rows[4] = (1, "0 1 2 3", "Test")[: 2 + header]
    with pytest.raises(DataError, match="images of several sizes"):
        read(write(tmp_path / "a.csv", rows, names=names))


def test_what_is_packed_is_known_by_its_first_bytes(tmp_path):
    text = write(tmp_path / "a.csv.gz", TABLE).read_bytes()
    assert is_whole(read(tmp_path / "a.csv.gz"))
    (tmp_path / "b.csv").write_bytes(gzip.compress(text))
    assert is_whole(read(tmp_path / "b.csv"))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("1,2,3,4,5,6,7,8\n" * 3, "8 columns"),
        ("a,b\nx,y\n", "no columns of numbers"),
        ("1,2,3,4\n1,2\n", "row 2 has 2 cells, the first has 4"),
        ("label,a,b,c,d\n", "no rows of numbers"),
        ("", "no rows of numbers"),
        ('1,2,3,"' + "4" * 200_000 + "\n", "cannot be read"),
        ("label,a,b\n1,2,3\n", "no square images"),
    ],
)
def test_other_tables_are_refused_in_one_line(tmp_path, text, words):
    (tmp_path / "a.csv").write_text(text)
    with pytest.raises(DataError, match=words) as caught:
        read_file(tmp_path / "a.csv")
    assert len(str(caught.value).splitlines()) == 1


def test_a_packed_table_cannot_grow_without_end(tmp_path, monkeypatch):
    path = tmp_path / "a.csv.gz"
    path.write_bytes(gzip.compress(b"7," * 2**22))
    with pytest.raises(DataError, match="holds longer lines than images make"):
        read_file(path)
    monkeypatch.setattr(tables, "MAX_TEXT", 10_000)
    path.write_bytes(gzip.compress(b"1,2,3,4\n" * 2000))
    with pytest.raises(DataError, match="holds longer text than images make"):
        read_file(path)


def test_tables_of_many_rows_keep_small_whole_numbers_and_others(tmp_path):
    rows = np.arange(1500 * 5).reshape(1500, 5) % 256
    part = read(write(tmp_path / "a.csv", rows))
    np.testing.assert_array_equal(part.pixels.reshape(1500, 4), rows[:, 1:])
    assert part.labels.tolist() == rows[:, 0].tolist()
    rows = np.where(np.arange(1500)[:, None] == 1400, 0.5, rows[:, :4] / 255)
    part = read(write(tmp_path / "b.csv", rows))
    np.testing.assert_allclose(part.pixels.reshape(1500, 4), rows * 255, atol=0.51)
