"""Images from a program's own objects: the same pixels from each kind, and clear refusals of what is none."""

import weakref

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset, IterableDataset, Subset, TensorDataset

import gansmith as gs
from gansmith.data import objects
from gansmith.data.images import ImageSpec
from gansmith.data.objects import as_images
from gansmith.data.prepare import Preparation
from gansmith.errors import ConfigError, DataError, RunError

RNG = np.random.default_rng(0)
COLOR = RNG.integers(0, 256, (40, 12, 12, 3), dtype=np.uint8)
LABELS = RNG.integers(0, 3, 40)
PIXELS = torch.from_numpy(COLOR).permute(0, 3, 1, 2)
PICTURES = [Image.fromarray(image) for image in COLOR]


class Pairs(Dataset):
    """A map-style data set as torchvision's are."""

    classes = ("cat", "dog", "owl")

    def __init__(self, image):
        self.image = image

    def __len__(self):
        return len(COLOR)

    def __getitem__(self, row):
        return self.image(row), int(LABELS[row])


def read(data, **how):
    return as_images(data, Preparation(**how))


WITHOUT_LABELS = {
    "pictures": PICTURES,
    "array": COLOR,
    "floats": COLOR / 255,
    "tensor": PIXELS,
    "list of arrays": list(COLOR),
    "list of floats": [image / 255 for image in COLOR],
    "list of tensors from -1": [image / 127.5 - 1 for image in PIXELS],
    "dicts": [{"image": image} for image in PICTURES],
    "rows": PIXELS.reshape(40, -1),
    "list of rows": list(PIXELS.reshape(40, -1).numpy()),
    "tensors of 16 bits": (PIXELS / 127.5 - 1).half(),
}


@pytest.mark.parametrize("name", WITHOUT_LABELS)
def test_every_kind_gives_the_same_pixels(name):
    images = read(WITHOUT_LABELS[name])
    assert torch.equal(images.pixels, PIXELS) and images.labels is None and images.name == "images"


WITH_LABELS = {
    "pairs": list(zip(PICTURES, LABELS, strict=True)),
    "arrays": (COLOR, LABELS),
    "one-hot": list(zip(PICTURES, np.eye(3)[LABELS], strict=True)),
    "set of pictures": Pairs(lambda row: PICTURES[row]),
    "set of tensors": Pairs(lambda row: PIXELS[row].float() / 255),
    "set of normalised tensors": Pairs(lambda row: (PIXELS[row].float() / 255 - 0.5) / 0.5),
    "tensors": TensorDataset(PIXELS, torch.from_numpy(LABELS)),
    "tensors of rows": TensorDataset(PIXELS.reshape(40, -1), torch.from_numpy(LABELS)),
    "rows": (PIXELS.reshape(40, -1), LABELS.tolist()),
    "one-hot rows": (PIXELS.reshape(40, -1), torch.eye(3)[LABELS]),
    "pair of lists": (PICTURES, LABELS.tolist()),
    "list of lists": [list(COLOR), torch.from_numpy(LABELS)],
    "pair of lists, one-hot": (PICTURES, torch.eye(3)[LABELS]),
    "list of arrays": [COLOR, LABELS],
    "list of array and list": [PIXELS, LABELS.tolist()],
}


@pytest.mark.parametrize("name", WITH_LABELS)
def test_labels_and_class_names_come_along(name):
    images = read(WITH_LABELS[name])
    assert torch.equal(images.pixels, PIXELS) and images.labels.tolist() == LABELS.tolist()
    assert images.class_names == (Pairs.classes if name.startswith("set") else ())


def test_a_subset_knows_its_classes_and_named_labels_are_sorted():
    subset = read(Subset(Pairs(lambda row: PICTURES[row]), [5, 2, 9]))
    assert torch.equal(subset.pixels, PIXELS[[5, 2, 9]]) and subset.class_names == Pairs.classes
    named = read([(image, ("owl", "ape")[row % 2]) for row, image in enumerate(PICTURES)])
    assert named.class_names == ("ape", "owl") and named.labels[:3].tolist() == [1, 0, 1]


def test_two_images_or_two_pairs_are_no_pair_of_images_and_labels(tmp_path):
    assert len(read([PICTURES[0], PICTURES[1]])) == len(read([COLOR[0], COLOR[1]])) == 2
    pairs = read([(PICTURES[0], 3), (PICTURES[1], 4)])
    assert len(pairs) == 2 and pairs.labels.tolist() == [3, 4]
    for name in ("a.png", "b.png"):
        PICTURES[0].save(tmp_path / name)
    names = [str(tmp_path / "a.png"), str(tmp_path / "b.png")]
    assert read([(names[0], "cat"), (names[1], "dog")]).class_names == ("cat", "dog")
    assert read((names, ["dog", "cat"])).labels.tolist() == [1, 0]


def test_pictures_of_16_bits_are_said_as_those_of_a_folder_are(tmp_path):
    picture = Image.fromarray(np.arange(64, dtype=np.uint16).reshape(8, 8) * 900)
    picture.save(tmp_path / "a.png")
    for data in ([picture, picture], [tmp_path / "a.png"], [(tmp_path / "a.png").read_bytes()]):
        assert "pictures of 16 bits or of floats are scaled to 8 bits, each by its own range" in read(data).notices


@pytest.mark.parametrize("key", ["Label", "digit", "class_name", "Category"])
def test_keys_and_columns_of_labels_have_the_names_of_labels_in_files(key):
    items = [{"image": image, key: label} for image, label in zip(PICTURES, LABELS.tolist(), strict=True)]
    assert read(items).labels.tolist() == LABELS.tolist()
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"image": PICTURES, key: LABELS.tolist(), "width": [8] * len(PICTURES)})
    assert read(frame).labels.tolist() == LABELS.tolist()


WORDS = [("ape", "dog", "owl")[label] for label in LABELS]


@pytest.mark.parametrize("labels", [WORDS, np.array(WORDS), np.array(WORDS, object)], ids=["list", "text", "objects"])
def test_labels_of_arrays_may_be_names(labels):
    images = read((COLOR, labels))
    assert images.labels.tolist() == LABELS.tolist() and images.class_names == ("ape", "dog", "owl")
    assert read(list(zip(PICTURES, labels, strict=True))).class_names == ("ape", "dog", "owl")


def test_labels_with_gaps_or_of_several_classes_are_not_used_and_it_is_said():
    gap = [*LABELS[:-1], None]
    for labels, words in ((gap, "no label for 1 of 40"), (list(torch.ones(40, 5)), "of several classes")):
        images = read(list(zip(PICTURES, labels, strict=True)))
        assert images.labels is None and words in images.notices[0]
    assert read(list(zip(PICTURES, [None] * 40, strict=True))).notices[0].startswith("prepared as")


@pytest.mark.parametrize("data", [(COLOR, LABELS * 5000), gs.Images(COLOR, LABELS * 5000), WORDS], ids=str)
def test_numbers_that_are_no_class_ids_are_refused(data):
    data = list(zip(PICTURES, LABELS * 5000, strict=True)) if data is WORDS else data
    with pytest.raises(DataError, match="labels up to 10000; number the classes from 0 to at most 9,999"):
        read(data)


def test_a_table_of_pandas_is_read_as_one_in_a_file():
    pandas = pytest.importorskip("pandas")
    pixels = COLOR[..., 0].reshape(40, -1)
    frame = pandas.DataFrame(pixels, columns=[f"pixel{k}" for k in range(144)])
    for labels in (WORDS, pandas.Categorical(WORDS)):
        images = read(frame.assign(label=labels, id=range(40)).convert_dtypes())
        np.testing.assert_array_equal(images.pixels.reshape(40, -1).numpy(), pixels)
        assert images.labels.tolist() == LABELS.tolist() and images.class_names == ("ape", "dog", "owl")
    assert read(frame).labels is None
    packed = read(pandas.DataFrame({"emotion": LABELS, "pixels": [" ".join(map(str, row)) for row in pixels]}))
    np.testing.assert_array_equal(packed.pixels.reshape(40, -1).numpy(), pixels)
    assert packed.labels.tolist() == LABELS.tolist()
    for refused, words in ((frame.iloc[:0], "no rows"), (frame.iloc[:, :7], "7 columns"),
                           (frame.astype(object).mask(frame == frame.iloc[1, 0], "x"), "no numbers"),
                           (frame[[]], "no columns of numbers"),
                           (frame.where(frame > 9), "non-finite")):  # fmt: skip
        with pytest.raises(DataError, match=words):
            read(refused)


def test_two_arrays_of_one_shape_are_two_images():
    assert len(read((COLOR[0], COLOR[1]))) == len(read((COLOR[0, :9, :9, 0], COLOR[1, :9, :9, 0]))) == 2


def test_floats_of_the_other_16_bits_are_read():
    images = read((PIXELS / 255).bfloat16())
    assert (images.pixels.int() - PIXELS.int()).abs().max() <= 1


@pytest.mark.parametrize("kind", [list, np.asarray])
def test_a_set_of_zeros_and_ones_is_black_and_white(kind):
    images = read(kind([np.full((8, 8), row % 2) for row in range(6)]))
    assert images.pixels[:, 0, 0, 0].tolist() == [0, 255] * 3 and "black and white" in images.notices[0]
    dark = read(kind([np.full((8, 8), value) for value in (0, 1, 200)]))
    assert dark.pixels[:, 0, 0, 0].tolist() == [0, 1, 200] and "black and white" not in str(dark.notices)


@pytest.mark.parametrize("kind", [list, np.asarray])
def test_whole_numbers_on_another_common_scale_are_scaled(kind):
    stored = np.arange(40 * 64).reshape(40, 8, 8) % 17
    images = read(kind([image.astype(float) for image in stored]))
    assert np.abs(images.pixels[:, 0].numpy() - stored * (255 / 16)).max() <= 0.5
    assert images.notices[0] == "its numbers, 0 to 16, are scaled to 0 to 255"


def test_sparse_tensors_are_refused():
    with pytest.raises(DataError, match=r"a Tensor is sparse; .* give tensor.to_dense\(\)"):
        read(torch.zeros(6, 8, 8).to_sparse())


def test_transparent_arrays_are_laid_over_the_background_asked_for():
    rgba = np.concatenate([COLOR, np.zeros_like(COLOR[..., :1])], axis=-1)
    assert read(rgba, background="white").pixels.min() == 255 and read(rgba, background="black").pixels.max() == 0


def test_floats_are_scaled_by_the_range_of_the_whole_set():
    bright = [np.full((8, 8), 0.5), np.full((8, 8), 1.0), np.full((8, 8), -1.0)]
    assert read(bright).pixels[:, 0, 0, 0].tolist() == [191, 255, 0]
    dark = [np.full((8, 8), 1.0), np.full((8, 8), 255.0)]
    assert read(dark).pixels[:, 0, 0, 0].tolist() == [1, 255]


def test_preparation_applies_to_all(tmp_path):
    PICTURES[0].save(tmp_path / "a.png")
    for data in (PICTURES, COLOR, gs.Images(COLOR), [tmp_path / "a.png"]):
        assert read(data, size=8, color="grey").spec == ImageSpec(8, 1, 0)
    mixed = [Image.new("RGB", (20, 30)), Image.new("L", (24, 24)), Image.new("RGBA", (24, 24), (0, 0, 0, 99))]
    images = read(mixed)
    assert images.spec == ImageSpec(24, 1, 0) and "20x30 (1)" in images.notices[0]


def test_paths_that_cannot_be_read_are_listed_and_refused_where_strict(tmp_path):
    paths = [tmp_path / f"{row}.png" for row in range(20)]
    for path, picture in zip(paths, PICTURES, strict=False):
        picture.save(path)
    paths[3].write_bytes(b"nothing")
    images = read([str(path) for path in paths])
    assert torch.equal(images.pixels, PIXELS[[row for row in range(20) if row != 3]])
    assert images.notices[0].startswith(f"1 of 20 pictures cannot be read: {paths[3]} (it is none of PNG, JPEG")
    with pytest.raises(DataError, match="repair or remove them"):
        read(paths, strict=True)
    with pytest.raises(DataError, match="no image of list in memory can be read: .*No such file"):
        read([tmp_path / "nowhere.png"])


class Stream(IterableDataset):
    def __iter__(self):
        yield from PICTURES


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ([], "holds 0 images"), ({"images": COLOR}, "a mapping of 'images'"), (3, "of type int, which is no set"),
        (iter(PICTURES), "read in order"), (Stream(), "Stream, which can only"), (DataLoader(PICTURES), "DataLoader"),
        ([1, 2, 3], "an item of data is of type int"), ([np.zeros((5, 5, 7))], r"has shape \(5, 5, 7\)"),
        ([(PIXELS[0].float() - 120) / 50], "numbers from -2.4 to"),
        (list(zip(PICTURES, [{}] * 40, strict=True)), "are dict"),
        ([(image, 0.5) for image in PICTURES], "are float"), ([{"pixels": COLOR[0]}], "has the keys pixels"),
        ((COLOR, [[1], [1, 2]]), "lists of several lengths"), ([np.zeros(144), np.zeros(100)], "of several sizes"),
    ],
)  # fmt: skip
def test_what_is_no_set_of_images_is_refused(data, words):
    with pytest.raises(DataError, match=words) as refusal:
        read(data)
    assert len(str(refusal.value).splitlines()) == 1


def test_a_hugging_face_data_set_is_read_undecoded_with_its_class_names():
    datasets = pytest.importorskip("datasets")
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["x", "y", "z"])})
    data = datasets.Dataset.from_dict({"image": PICTURES, "label": LABELS.tolist()}, features=features)
    for one in (data, data.with_format("torch")):
        images = read(one)
        assert torch.equal(images.pixels, PIXELS) and images.labels.tolist() == LABELS.tolist()
        assert images.class_names == ("x", "y", "z")
    lists = datasets.Dataset.from_dict({"img": COLOR.tolist()})
    assert torch.equal(read(lists).pixels, PIXELS) and read(lists).labels is None
    for refused, words in ((data.remove_columns("image"), "the columns label"), (datasets.DatasetDict(a=data), "'a'"),
                           (data.to_iterable_dataset(), "streaming")):  # fmt: skip
        with pytest.raises(DataError, match=words):
            read(refused)


def test_load_data_takes_objects_and_splits_them():
    parts = [gs.load_data(PICTURES, split=split, size=8) for split in ("all", "train", "validation")]
    assert [len(part) for part in parts] == [40, 36, 4] and parts[0].spec.size == 8
    with pytest.raises(DataError, match="no test split of its own"):
        gs.load_data(PICTURES, split="test")
    with pytest.raises(DataError, match="no split 'valid'"):
        gs.load_data(PICTURES, split="valid")


TINY = {"images": 64, "batch_size": 16, "g_width": 8, "d_width": 8, "latent_dim": 8, "progress": "none"}


@pytest.mark.slow
def test_a_run_on_objects_goes_on_here_and_asks_for_them_elsewhere(tmp_path):
    pairs = Pairs(lambda row: PICTURES[row])
    run = gs.train("mlp-small", data=pairs, size=8, out="run", conditioning="labels", **TINY)
    assert run.config.data == "images" and run.sample(labels=["owl"]).images.shape == (1, 8, 8, 3)
    assert gs.resume(run, images=96, progress="none").images_seen == 96
    elsewhere = gs.open_run("run")
    with pytest.raises(ConfigError, match="give the same images as data="):
        gs.resume(elsewhere, images=128, progress="none")
    with pytest.raises(RunError, match="data"):
        gs.resume(elsewhere, data=Subset(pairs, range(30)), images=128, progress="none")
    assert gs.resume(elsewhere, data=pairs, images=128, progress="none").images_seen == 128


@pytest.mark.parametrize("given", ["mine", pytest.param("./mine", marks=pytest.mark.slow)])
def test_a_run_on_a_path_goes_on_from_its_directory_alone(tmp_path, gansmith, given):
    for row, picture in enumerate(PICTURES):
        (tmp_path / "mine" / "ab"[row % 2]).mkdir(parents=True, exist_ok=True)
        picture.save(tmp_path / "mine" / "ab"[row % 2] / f"{row}.png")
    run = gs.train("mlp-small", data=given, out="run", **TINY)
    assert run.config.data == "mine" and run.config.data_dir == "./mine"
    assert gansmith("resume", "run", "--images", "96")[0] == 0
    (tmp_path / "mine" / "a" / "0.png").write_bytes(b"nothing")
    code, _, err = gansmith("train", "mlp-small", "--data", given, "--strict", "--out", "other")
    assert code == 2 and "a/0.png" in err and not (tmp_path / "other").exists()
    assert gs.train("mlp-small", data=given, out="other", **TINY).config.strict is False


def test_decoded_pictures_are_held_by_a_budget_of_memory(monkeypatch):
    """A set whose loader decodes them: 1,000 photographs at once would be tens of gigabytes."""
    monkeypatch.setattr(objects, "_BATCH_BYTES", 4 * 32 * 32 * 5)
    alive, most = set(), 0

    class Photographs(Dataset):
        def __len__(self):
            return 40

        def __getitem__(self, row):
            nonlocal most
            picture = Image.new("RGB", (32, 32), (6 * row, 0, 0))
            alive.add(id(picture))
            weakref.finalize(picture, alive.discard, id(picture))
            most = max(most, len(alive))
            return picture, row % 2

    images = as_images(Photographs(), Preparation())
    assert len(images) == 40 and images.pixels[:, 0, 0, 0].tolist() == [6 * row for row in range(40)]
    assert most < 20


def test_a_kind_of_tiff_that_is_not_read_is_not_called_another_format(tmp_path):
    (tmp_path / "odd.tif").write_bytes(b"II*\0" + bytes(40))
    good = tmp_path / "good.png"
    Image.new("L", (16, 16), 3).save(good)
    images = as_images([str(good)] * 12 + [str(tmp_path / "odd.tif")], Preparation())
    assert any("it is damaged, or a TIFF of bits or bands that are not read" in words for words in images.notices)
