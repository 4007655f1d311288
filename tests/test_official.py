"""Known sets: recognised by what they hold, named after it, read from every form they are published in."""

import io
import re
import tarfile
from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import write_idx, write_set
from PIL import Image
from scipy.io import savemat

import gansmith as gs
from gansmith.data import load_data, official
from gansmith.data.official import OFFICIAL, called_official, idx_digests, known_sets
from gansmith.errors import DataError, NotFoundError

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("name", OFFICIAL)
def test_every_published_set_has_a_row_addresses_and_whole_hashes(name):
    known = OFFICIAL[name]
    assert name in gs.DATASETS and known.sha256 and len(known.mirrors) >= 2
    assert all(re.fullmatch(r"https?://[\w.~/-]+/", mirror) for mirror in known.mirrors)
    assert all(re.fullmatch(r"[0-9a-f]{64}", digest) for digest in (*known.sha256.values(), *known.members.values()))
    assert len(set(known.class_names)) == len(known.class_names)


def test_class_names_are_as_many_as_the_sets_have():
    counts = {name: len(known.class_names) for name, known in OFFICIAL.items() if known.class_names}
    assert counts == {
        "fashion-mnist": 10, "kmnist": 10, "emnist-balanced": 47, "emnist-bymerge": 47, "emnist-byclass": 62,
        "emnist-letters": 26, "cifar10": 10, "cifar100": 100,
    }  # fmt: skip


def cifar_rows(count, labels, extra=0):
    """Return rows of CIFAR's binary form, and their images."""
    pixels = RNG.integers(0, 256, (count, 3, 32, 32), dtype=np.uint8)
    head = [np.full((count, extra), 9, np.uint8), np.asarray(labels, np.uint8)[:, None]]
    return np.concatenate([*head, pixels.reshape(count, -1)], axis=1).tobytes(), pixels


@pytest.fixture
def cifar10(tmp_path):
    """A folder like cifar-10-batches-bin, and the images of its parts."""
    folder = tmp_path / "cifar-10-batches-bin"
    folder.mkdir()
    images = []
    for k in range(1, 6):
        data, pixels = cifar_rows(4, [k, 0, 9, 1])
        (folder / f"data_batch_{k}.bin").write_bytes(data)
        images.append(pixels)
    data, test = cifar_rows(3, [9, 9, 8])
    (folder / "test_batch.bin").write_bytes(data)
    return folder, torch.from_numpy(np.concatenate(images)), torch.from_numpy(test)


def pack(folder, path):
    with tarfile.open(path, "w:gz") as archive:
        archive.add(folder, folder.name)
    return path


def test_cifar_10_is_read_from_its_folder_the_one_above_and_the_archive(tmp_path, cifar10):
    folder, train, test = cifar10
    (tmp_path / "packed").mkdir()
    archive = pack(folder, tmp_path / "packed" / "cifar-10-binary.tar.gz")
    for place in (folder, tmp_path, archive.parent, archive):
        images = load_data("cifar10", data_dir=place)
        assert torch.equal(images.pixels, train) and images.labels[:5].tolist() == [1, 0, 9, 1, 2]
        assert images.class_names[9] == "truck" and images.name == "cifar10"
        assert "not the official cifar10 train set" in images.notices[0]
        assert torch.equal(load_data("cifar10", data_dir=place, part="test").pixels, test)
    by_path = load_data(str(archive))
    assert torch.equal(by_path.pixels, train) and by_path.name == "cifar-10-binary"


def test_official_files_are_known_by_their_content_and_counted(tmp_path, cifar10, monkeypatch):
    folder, train, _ = cifar10
    digests = {file.name: official.file_digest(file) for file in sorted(folder.iterdir())}
    monkeypatch.setitem(OFFICIAL, "cifar10", replace(OFFICIAL["cifar10"], members=digests))
    for name in ("cifar10", str(folder) + "/"):
        images = load_data(name, data_dir=folder if name == "cifar10" else None)
        assert images.name == "cifar10" and images.notices == () and images.class_names[0] == "airplane"
    other = load_data("svhn", data_dir=folder)
    assert other.name == "cifar10" and "not of svhn" in other.notices[0]
    (folder / "data_batch_4.bin").unlink()
    few = load_data("cifar10", data_dir=folder)
    assert len(few) == 16 and few.notices == (f"{folder} holds 4 of the 5 files of cifar10's train images",)


def test_cifar_100_takes_the_fine_label_and_names_beside_its_files(tmp_path):
    (tmp_path / "cifar-100-binary").mkdir()
    for part, labels in (("train", [0, 99, 7]), ("test", [3, 3])):
        data, _ = cifar_rows(len(labels), labels, extra=1)
        (tmp_path / "cifar-100-binary" / f"{part}.bin").write_bytes(data)
    images = load_data("cifar100", data_dir=tmp_path)
    assert images.labels.tolist() == [0, 99, 7] and images.class_names[99] == "worm"
    (tmp_path / "cifar-100-binary" / "fine_label_names.txt").write_text("\n".join(f"name{k}" for k in range(100)))
    assert load_data(f"{tmp_path}/cifar-100-binary/").class_names[99] == "name99"


def test_pickles_are_refused_with_the_way_out(tmp_path):
    (tmp_path / "a" / "cifar-10-batches-py").mkdir(parents=True)
    (tmp_path / "cifar-10-python.tar.gz").write_bytes(b"")
    for place in (
        tmp_path / "a",
        tmp_path,
        tmp_path / "cifar-10-python.tar.gz",
        tmp_path / "a" / "cifar-10-batches-py",
    ):
        with pytest.raises(DataError, match=r"pickles.*never read; use the binary version.*/cifar-10-binary\.tar\.gz"):
            load_data("cifar10", data_dir=place)


def test_svhn_is_read_with_0_for_its_label_10(tmp_path):
    for part, labels in (("train", [10, 1, 9]), ("test", [10, 2])):
        pixels = RNG.integers(0, 256, (32, 32, 3, len(labels)), dtype=np.uint8)
        savemat(tmp_path / f"{part}_32x32.mat", {"X": pixels, "y": np.array(labels)[:, None]})
    images = load_data("svhn", data_dir=tmp_path)
    assert images.labels.tolist() == [0, 1, 9] and images.spec == official.Images(images.pixels, [0, 1, 9]).spec
    assert load_data("svhn", data_dir=tmp_path, part="test").labels.tolist() == [0, 2]


def test_emnist_stands_upright_and_its_letters_begin_at_0(tmp_path, digits):
    images, labels = digits[0][:52], np.repeat(np.arange(1, 27), 2)
    for form in ("idx", "csv"):
        folder = tmp_path / form
        folder.mkdir()
        stored = images.transpose(0, 2, 1)
        if form == "idx":
            write_idx(folder / "emnist-letters-train-images-idx3-ubyte", stored)
            write_idx(folder / "emnist-letters-train-labels-idx1-ubyte", labels)
        else:
            rows = np.concatenate([labels[:, None], stored.reshape(52, -1)], axis=1)
            np.savetxt(folder / "emnist-letters-train.csv", rows, fmt="%d", delimiter=",")
        for name in ("emnist-letters", "mnist", f"{folder}/"):
            found = load_data(name, data_dir=None if "/" in name else folder)
            assert torch.equal(found.pixels[:, 0], torch.from_numpy(images)), (form, name)
            assert found.labels.tolist() == (labels - 1).tolist() and found.num_classes == 26
            assert found.class_names[25] == "z" and found.name == "emnist-letters"


def test_kmnist_is_read_from_its_npz_files(tmp_path, digits):
    for part, rows in (("train", slice(0, 300)), ("test", slice(300, 400))):
        np.savez_compressed(tmp_path / f"kmnist-{part}-imgs.npz", digits[0][rows])
        np.savez_compressed(tmp_path / f"kmnist-{part}-labels.npz", digits[1][rows])
    images = load_data("kmnist", data_dir=tmp_path)
    assert images.name == "kmnist" and images.class_names[1] == "ki" and "not the official" in images.notices[0]
    assert images.labels.tolist() == digits[1][:300].tolist()
    assert len(load_data("kmnist", data_dir=tmp_path, part="test")) == 100


def test_published_hashes_of_packed_files_are_compared_with_the_packed_files(tmp_path, digits, monkeypatch):
    folder = write_set(tmp_path / "set", *digits)
    digests = {file.name: official.file_digest(file) for file in folder.iterdir()}
    monkeypatch.setitem(OFFICIAL, "kmnist", replace(OFFICIAL["kmnist"], sha256=digests))
    assert load_data("kmnist", data_dir=folder).notices == ()
    other = load_data("mnist", data_dir=folder)
    assert other.name == "kmnist" and other.class_names[0] == "o"
    for what in ("images-idx3", "labels-idx1"):
        write_idx(tmp_path / f"train-{what}-ubyte", digits[what == "labels-idx1"])
    assert "cannot be compared with the official kmnist" in load_data("kmnist", data_dir=tmp_path).notices[0]


@pytest.fixture
def official_part(digits, monkeypatch):
    """Digits as if they were the official training part of Fashion-MNIST."""
    monkeypatch.setattr(official, "_COUNTS", (400,))
    images, labels = digits[0], digits[1].astype(np.int64)
    files = dict(
        zip(("train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz"), idx_digests(images, labels), strict=True)
    )
    monkeypatch.setitem(OFFICIAL, "fashion-mnist", replace(OFFICIAL["fashion-mnist"], sha256=files))
    return images, labels


def test_arrays_that_are_an_official_set_are_called_so_and_others_are_not(tmp_path, official_part):
    images, labels = official_part
    np.savez(tmp_path / "shirts.npz", x_train=images, y_train=labels)
    shirts = load_data("mnist", data_dir=tmp_path)
    assert shirts.name == "fashion-mnist" and shirts.class_names[0] == "t-shirt" and "not of mnist" in shirts.notices[0]
    for own in (
        gs.load_data((images, labels)),
        gs.load_data([(image, k) for image, k in zip(*official_part, strict=True)]),
    ):
        assert own.name == "fashion-mnist" and own.class_names[0] == "t-shirt" and own.sha256 == shirts.sha256
    assert gs.load_data(images).name == "images"  # without labels it is another set
    assert gs.load_data((images, labels[::-1].copy())).name == "images"


def test_a_test_part_is_not_taken_for_a_set(official_part, monkeypatch):
    files = {file.replace("train", "t10k"): digest for file, digest in OFFICIAL["fashion-mnist"].sha256.items()}
    monkeypatch.setitem(OFFICIAL, "fashion-mnist", replace(OFFICIAL["fashion-mnist"], sha256=files))
    images = gs.Images(*official_part)
    assert known_sets(idx_digests(*official_part)) == ["fashion-mnist"] and called_official(images).name == "images"


@pytest.mark.slow
@pytest.mark.parametrize(("folder", "called"), [("here", "here"), ("mnist", "images-in-mnist")])
def test_files_under_the_default_name_are_called_after_their_folder(tmp_path, gansmith, folder, called):
    place = tmp_path / folder
    place.mkdir()
    np.savez(place / "shirts.npz", images=RNG.integers(0, 256, (40, 8, 8), dtype=np.uint8), labels=np.arange(40) % 2)
    images = load_data("mnist", data_dir=place)
    assert images.name == called and "not the official images of mnist" in images.notices[0]
    assert load_data(f"{place}/").name == called
    again = load_data(called, data_dir=place)
    assert again.sha256 == images.sha256
    flags = ["--images", "64", "--batch-size", "16", "--g-width", "8", "--d-width", "8", "--out", "run"]
    code, out, err = gansmith("train", "mlp-small", "--data-dir", str(place), *flags)
    assert code == 0 and gs.open_run("run").config.data == called, err
    assert gansmith("resume", "run", "--images", "96")[0] == 0


def test_files_called_like_a_set_keep_its_name_and_say_that_they_are_not_official(tmp_path):
    np.savez(tmp_path / "mnist.npz", x_train=RNG.integers(0, 256, (40, 8, 8), dtype=np.uint8))
    images = load_data("mnist", data_dir=tmp_path)
    assert images.name == "mnist" and images.notices[0].startswith("these are not the official images of mnist; used")


def test_shared_folders_may_have_other_usual_names(tmp_path, cifar10, monkeypatch):
    monkeypatch.setenv("GANSMITH_DATA", str(tmp_path / "shared"))
    (tmp_path / "shared").mkdir()
    cifar10[0].rename(tmp_path / "shared" / "cifar-10")
    assert len(load_data("cifar10")) == 20
    with pytest.raises(NotFoundError, match="looked in .*cifar-100"):
        load_data("cifar100")


def test_archives_of_something_else_called_like_cifars_are_refused(tmp_path):
    path = tmp_path / "cifar-10-binary.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        entry = tarfile.TarInfo("data_batch_1.bin")
        entry.size = 5
        archive.addfile(entry, io.BytesIO(b"12345"))
    with pytest.raises(DataError, match="no multiple of CIFAR's rows"):
        load_data("cifar10", data_dir=path)
    (tmp_path / "nothing").mkdir()
    pack(tmp_path / "nothing", path)
    with pytest.raises(DataError, match="none of CIFAR's .bin files"):
        load_data("cifar10", data_dir=path)


def test_pictures_in_the_shared_folder_stand_in_for_a_set_that_cannot_be_had(tmp_path, monkeypatch):
    monkeypatch.setenv("GANSMITH_DATA", str(tmp_path / "shared"))
    for row in range(8):
        folder = tmp_path / "set" / ("train", "test")[row % 2] / ("cat", "dog")[row // 4]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(RNG.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(folder / f"{row}.png")
    (tmp_path / "shared" / "cifar-10").mkdir(parents=True)
    pack(tmp_path / "set", tmp_path / "shared" / "cifar-10" / "pictures.tar.gz")
    images = load_data("cifar10")
    assert (len(images), images.name, images.class_names) == (4, "cifar10", ("cat", "dog"))
    assert images.notices[0].endswith("cifar-10 does not hold the official images of cifar10")
    assert len(load_data("cifar10", part="test")) == 4
    by_folder = load_data("cifar10", data_dir=tmp_path / "shared" / "cifar-10")
    assert by_folder.name == "cifar-10" and by_folder.sha256 == images.sha256
    with pytest.raises(NotFoundError):
        load_data("svhn")
