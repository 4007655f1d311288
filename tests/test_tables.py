"""Tables of pixels: what is a header, which column holds labels, the forms of text, and what is refused."""

import csv
import gzip
import zipfile

import numpy as np
import pytest

from gansmith.data import load_data, tables
from gansmith.data.array_files import read_file
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
        (["idx", "label", *NAMES], [INDEX, LABELS[:, None], PIXELS], LABELS),
        (["label", *NAMES], [INDEX + 1, LABELS[:, None], PIXELS], LABELS),  # row names, as R writes them
        (["V", *NAMES], [INDEX + 1, LABELS[:, None], PIXELS], LABELS),
        (NAMES, [INDEX + 1, PIXELS], None),
        (NAMES, [LABELS[:, None], PIXELS], LABELS),
        ([str(k + 1) for k in range(65)], [LABELS[:, None], PIXELS], LABELS),
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


def test_columns_of_numbers_that_are_no_pixels_are_left_out_or_named(tmp_path):
    rows = np.concatenate([LABELS[:, None], np.ones_like(INDEX), PIXELS], axis=1)
    found = read(write(tmp_path / "a.csv", rows, names=["label", "fold", *NAMES]))
    assert is_whole(found) and found.notices == ("columns that are not used: fold",)
    with pytest.raises(DataError, match="66 columns; .*such as 'kind', 'fold', or call one label"):
        read(write(tmp_path / "a.csv", rows, names=["kind", "fold", *NAMES]))
    with pytest.raises(DataError, match="rows of 63 numbers, which are no square images.*such as 'fold'$"):
        read(write(tmp_path / "a.csv", rows[:, :-2], names=["label", "fold", *NAMES[:-2]]))


@pytest.mark.parametrize("cell", ["?", "NA", "\0"])
def test_a_first_row_with_a_bad_cell_is_no_header(tmp_path, cell):
    for column in (0, 9):
        rows = TABLE.astype(str).astype(object)
        rows[0, column] = cell
        with pytest.raises(DataError, match="in row 1 .* is not a number"):
            read(write(tmp_path / "a.csv", rows))


@pytest.mark.parametrize("place", [0, 64])
def test_a_row_of_numbers_with_the_name_of_a_class_is_no_header(tmp_path, place):
    words = np.array(["dog", "ape"])[LABELS % 2]
    rows = np.insert(PIXELS.astype(str).astype(object), place, words, axis=1)
    assert is_whole(read(write(tmp_path / "a.csv", rows)), 1 - LABELS % 2)
    for names in (["label", *map(str, range(64))], ["sort", *map(str, range(64))], ["letter", *["0"] * 64]):
        names.insert(place, names.pop(0))
        assert is_whole(read(write(tmp_path / "a.csv", rows, names=names)), 1 - LABELS % 2)


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


@pytest.mark.parametrize("labels", [[3] * 20, [0] * 20, [7], [0], [2, 7], [*range(8)], [5, 9, 1]])
def test_the_first_column_of_few_rows_or_of_one_class_holds_labels(tmp_path, labels):
    """The last pixel is black in all images, as in most of digits."""
    pixels = PIXELS[: len(labels)].copy()
    pixels[:, -1] = 0
    found = read(write(tmp_path / "a.csv", np.concatenate([np.array(labels)[:, None], pixels], axis=1)))
    assert found.labels.tolist() == labels
    np.testing.assert_array_equal(found.pixels.reshape(len(labels), -1), pixels)


def test_one_class_is_known_beside_a_pixel_that_varies_and_grey_corners_are_none(tmp_path):
    found = read(write(tmp_path / "a.csv", np.concatenate([np.full((20, 1), 3), PIXELS], axis=1)))
    assert is_whole(found, np.full(20, 3))
    grey = PIXELS.copy()
    grey[:, -1] = 100
    found = read(write(tmp_path / "a.csv", np.concatenate([LABELS[:, None] * 2, grey], axis=1)))
    assert found.labels.tolist() == (LABELS * 2).tolist()


def test_without_a_header_a_column_that_counts_is_no_label(tmp_path):
    for index in (np.arange(20), RNG.permutation(20) * 100):
        found = read(write(tmp_path / "a.csv", np.concatenate([index[:, None], PIXELS], axis=1)))
        assert is_whole(found, None) and found.notices == ("its first column numbers its images, which have no labels",)


PREAMBLES = {"comment": "# digits, of 2026\n", "semicolons": "sep=;\n", "header as a comment": "# "}


@pytest.mark.parametrize(
    "form",
    [
        "semicolons", "quotes", "quoted header", "trailing commas", "spaces", "blank lines", "bars", "UTF-16",
        "comment", "header as a comment",
    ],
)  # fmt: skip
def test_text_has_many_forms(tmp_path, form):
    names, mark = ["label", *NAMES], {"semicolons": ";", "spaces": ", ", "bars": "|"}.get(form, ",")
    quote = '"{}"'.format if form == "quotes" else str
    lines = [mark.join(map(quote, row)) for row in [names, *TABLE.tolist()]]
    if form == "quoted header":
        lines[0] = mark.join(f'"{name}"' for name in names)
    between = {"trailing commas": ",\n", "blank lines": "\n\n"}.get(form, "\n")
    text = PREAMBLES.get(form, "") + between.join([*lines, ""])
    (tmp_path / "a.csv").write_text(text, encoding="utf-16" if form == "UTF-16" else None)
    assert is_whole(read(tmp_path / "a.csv"))


@pytest.mark.parametrize("names", [(), ("label", *NAMES)])
@pytest.mark.parametrize(("mark", "cell"), [(";", "{}"), (",", '"{}"')])
def test_decimal_marks_may_be_commas(tmp_path, mark, cell, names):
    shades = [[cell.format(str(value / 255).replace(".", ",")) for value in row] for row in PIXELS.tolist()]
    rows = [(label, *row) for label, row in zip(LABELS, shades, strict=True)]
    assert is_whole(read(write(tmp_path / "a.csv", rows, names=names, mark=mark)))
    rows = [(*row, label) for label, row in zip(LABELS, shades, strict=True)]
    assert is_whole(read(write(tmp_path / "a.csv", rows, names=[*names[1:], *names[:1]], mark=mark)))


@pytest.mark.parametrize("header", [True, False])
def test_all_pixels_of_an_image_may_lie_in_one_cell(tmp_path, header):
    rows = [(label, " ".join(map(str, pixels))) for label, pixels in zip(LABELS, PIXELS, strict=True)]
    names = ["emotion", "pixels", "Usage"] if header else ()
    rows = [(*row, "Training") for row in rows] if header else rows
    assert is_whole(read(write(tmp_path / "a.csv", rows, names=names)))
    rows[4] = (1, "0 1 2 3", "Test")[: 2 + header]
    with pytest.raises(DataError, match="images of several sizes"):
        read(write(tmp_path / "a.csv", rows, names=names))


def test_a_cell_may_hold_a_large_image(tmp_path):
    image = np.arange(224 * 224, dtype=np.uint32) % 256 + 100  # in more characters than the csv module allows
    rows = [(label, " ".join(map(str, np.minimum(image + label, 255)))) for label in (0, 1)]
    found = read(write(tmp_path / "a.csv", rows, names=("label", "pixels")))
    assert found.pixels.shape == (2, 224, 224, 1) and csv.field_size_limit() == 131_072


@pytest.mark.parametrize("form", ["list", "nested list", "printed array", "numbers and commas"])
def test_a_cell_may_hold_a_list(tmp_path, form):
    write_cell = {
        "list": lambda row: str(row.tolist()),
        "nested list": lambda row: str(row.reshape(8, 8).tolist()),
        "printed array": lambda row: f"[{' '.join(map(str, row))}]",
        "numbers and commas": lambda row: ",".join(map(str, row)),
    }[form]
    rows = [(label, f'"{write_cell(row)}"') for label, row in zip(LABELS, PIXELS, strict=True)]
    for names in ((), ("label", "pixels")):
        assert is_whole(read(write(tmp_path / "a.csv", rows, names=names)))


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
        ("1," * 24 + '"' + "4" * 200_000 + "\n", "non-finite numbers"),
        ("label,a,b\n1,2,3\n", "no square images"),
        ("label,pixels\n1,2\n3,4\n", "rows of 1 numbers, which are no square images"),
        ("1\n2\n3\n", "1 columns; a square image's pixels"),
        ("label,image\n7,[0 0 0 ... 0 0 0]\n", "'...' in place of most numbers"),
        ("\udce9tiquette,a\n1,2\n", "is not text in UTF-8, as tables are; save it again as CSV in UTF-8"),
    ],
)
def test_other_tables_are_refused_in_one_line(tmp_path, text, words):
    (tmp_path / "a.csv").write_text(text, errors="surrogateescape")
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
    rows = np.arange(40, 40 + 1500 * 26).reshape(1500, 26) % 256
    part = read(write(tmp_path / "a.csv", rows))
    np.testing.assert_array_equal(part.pixels.reshape(1500, 25), rows[:, 1:])
    assert part.labels.tolist() == rows[:, 0].tolist()
    rows = np.where(np.arange(1500)[:, None] == 1400, 0.5, rows[:, :25] / 255)
    part = read(write(tmp_path / "b.csv", rows))
    np.testing.assert_allclose(part.pixels.reshape(1500, 25), rows * 255, atol=0.51)


def test_a_table_of_picture_names_is_no_table_of_pixels(tmp_path):
    boxes = [["a.jpg", 1, 2, 30, 40, "cat"], ["b.jpg", 5, 6, 70, 80, "dog"]]
    path = write(tmp_path / "boxes.csv", boxes, names=["filename", "xmin", "ymin", "xmax", "ymax", "label"])
    with pytest.raises(
        DataError, match="lists pictures in its column 'filename', such as 'a.jpg', .* the folder of pic"
    ):
        read(path)
    with pytest.raises(DataError, match="rows of 4 numbers, which are no square images"):
        read(write(tmp_path / "a.csv", [row[1:] for row in boxes], names=["xmin", "ymin", "xmax", "ymax", "label"]))


def test_labels_are_read_from_a_table_of_their_own(tmp_path):
    write(tmp_path / "csvTrainImages 20k x 64.csv", PIXELS)
    words = ["dog" if label % 2 else "ape" for label in LABELS]
    for name, rows, names in (
        ("csvTrainLabel 20k x 1.csv", LABELS[:, None], ()),
        ("csvTrainLabel 20x1.csv", np.stack([np.arange(20), LABELS], axis=1), ("", "label")),
        ("csvTrainLabels.csv", np.stack([np.arange(20), LABELS], axis=1), ()),
        ("labels.csv", np.eye(10, dtype=int)[LABELS], [f"is_{k}" for k in range(10)]),
    ):
        file = write(tmp_path / name, rows, names=names)
        images = load_data(str(tmp_path))
        assert images.labels.tolist() == LABELS.tolist() and f"its labels are read from {name}" in images.notices
        # Both sets of this name, of Arabic letters and digits, were written by MATLAB.
        np.testing.assert_array_equal(images.pixels[:, 0].mT.reshape(20, -1), PIXELS)
        assert any("column by column" in notice for notice in images.notices)
        file.unlink()
    write(tmp_path / "csvTrainLabel 20x1.csv", [[word] for word in words], names=["sort"])
    assert load_data(str(tmp_path)).class_names == ("ape", "dog")
    write(tmp_path / "csvTrainLabel 20x1.csv", LABELS[:7, None])
    images = load_data(str(tmp_path))
    assert images.labels is None and "that are not used: csvTrainLabel 20x1.csv; its" in " ".join(images.notices)


def test_tables_of_each_part_have_their_labels_beside_them(tmp_path):
    for part, rows in (("train", slice(0, 12)), ("test", slice(12, 20))):
        write(tmp_path / f"x_{part}.csv", PIXELS[rows], names=NAMES)
        write(tmp_path / f"y_{part}.csv", LABELS[rows, None], names=["label"])
    assert load_data(str(tmp_path)).labels.tolist() == LABELS[:12].tolist()
    assert load_data(str(tmp_path), part="test").labels.tolist() == LABELS[12:].tolist()
    assert load_data(str(tmp_path / "x_train.csv")).labels.tolist() == LABELS[:12].tolist()


@pytest.mark.parametrize("name", ["species", "class_name"])
def test_the_only_column_of_text_holds_labels_where_it_repeats_itself(tmp_path, name):
    words = np.array(["dog", "ape"])[LABELS % 2]
    found = read(
        write(tmp_path / "a.csv", np.concatenate([words[:, None], PIXELS.astype(str)], axis=1), names=[name, *NAMES])
    )
    assert is_whole(found, 1 - LABELS % 2) and found.class_names == ("ape", "dog")
    assert found.notices == (f"its column {name} is taken for labels",)
    many = np.concatenate([PIXELS] * 5).astype(str)
    almost = np.array([f"row {max(1, k)}.png" for k in range(100)])[:, None]  # a name that is there twice
    found = read(write(tmp_path / "c.csv", np.concatenate([almost, many], axis=1), names=[name, *NAMES]))
    assert found.labels is None and found.notices == (f"its column {name} is not used",)
    each = np.array([f"row {k}" for k in range(20)])[:, None]
    found = read(write(tmp_path / "b.csv", np.concatenate([each, PIXELS.astype(str)], axis=1), names=[name, *NAMES]))
    assert is_whole(found, None) and found.notices == (f"its column {name} is not used",)
    usage = np.full((20, 1), "Training")
    found = read(
        write(tmp_path / "c.csv", np.concatenate([usage, PIXELS.astype(str)], axis=1), names=["Usage", *NAMES])
    )
    assert is_whole(found, None) and found.notices == ("columns that are not used: Usage",)


def test_a_zip_that_is_called_a_table_is_named(tmp_path):
    with zipfile.ZipFile(tmp_path / "train.csv", "w") as file:
        file.writestr("x.csv", "0,1")
    with pytest.raises(DataError, match="is a zip; call it train.csv.zip"):
        load_data(str(tmp_path / "train.csv"))
