"""Archives of tables, arrays and IDX files, such as Kaggle's downloads: unpacked once, then read as their folder is."""

import os
import shutil
import tarfile
import time
import zipfile

import numpy as np
import pytest
from conftest import write_set

from gansmith.data import archives, cache, load_data, unpacking
from gansmith.data.pictures import is_of_numbers
from gansmith.data.prepare import Preparation
from gansmith.data.sources import load_source, open_source
from gansmith.errors import DataError, NotFoundError


def pack(folder, path):
    """Return an archive of a folder, which its name holds, as people pack them."""
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for file in sorted(folder.rglob("*")):
                archive.write(file, file.relative_to(folder.parent))
    else:
        with tarfile.open(path, "w:gz") as archive:
            archive.add(folder, folder.name)
    return path


@pytest.fixture(params=["tables", "arrays", "idx"])
def folder(request, tmp_path, digits):
    images, labels = (values[:60] for values in digits)
    place = tmp_path / "mine"
    place.mkdir()
    if request.param == "tables":
        for name, rows in (("mnist_train.csv", slice(0, 40)), ("mnist_test.csv", slice(40, 60))):
            table = np.concatenate([labels[rows, None], images[rows].reshape(-1, 784)], axis=1)
            names = ",".join(["label", *(f"pixel{k}" for k in range(784))])
            np.savetxt(place / name, table, fmt="%d", delimiter=",", header=names, comments="")
    elif request.param == "arrays":
        np.savez(place / "digits.npz", x_train=images[:40], y_train=labels[:40], x_test=images[40:], y_test=labels[40:])
    else:
        write_set(place, images[:40], labels[:40])
        write_set(place, images[40:], labels[40:], "t10k")
    (place / "readme.txt").write_text("from a far place")
    return place


@pytest.mark.parametrize("name", ["archive.zip", "archive.tar.gz"])
def test_an_archive_is_read_as_its_folder_and_unpacked_once(folder, name, tmp_path, digits, monkeypatch):
    path = pack(folder, tmp_path / name)
    shutil.rmtree(folder)
    for part, rows in (("train", slice(0, 40)), ("test", slice(40, 60))):
        found = load_source(open_source(path), Preparation(), part=part)
        np.testing.assert_array_equal(found.pixels[:, 0], digits[0][rows])
        assert found.labels.tolist() == digits[1][rows].tolist()
        assert str(tmp_path / "cache") not in f"{found.source} {found.notices} {open_source(path).layout}"
    monkeypatch.setattr(unpacking, "copy_files", lambda *_: pytest.fail("unpacked again"))
    again = load_data(str(path))
    assert len(again) == 40 and again.num_classes == 10


def test_what_an_archive_holds_beside_them_is_left_out(tmp_path, digits):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for name in ("data/x.npy", "__MACOSX/data/._x.npy", ".cache/y.npy"):
            with archive.open(name, "w") as file:
                np.save(file, digits[0][:30])
        archive.writestr("data/run.sh", "rm")
    assert len(load_source(open_source(tmp_path / "a.zip"), Preparation())) == 30
    (place,) = cache.folder().glob("unpacked-*")
    assert [file.name for file in place.rglob("*")] == ["x.npy"]


def test_a_changed_archive_is_unpacked_again_and_unused_folders_go(tmp_path, digits):
    path = tmp_path / "a.zip"
    for count in (30, 20):
        with zipfile.ZipFile(path, "w") as archive, archive.open("x.npy", "w") as file:
            np.save(file, digits[0][:count])
        assert len(load_source(open_source(path), Preparation())) == count
    places = sorted(cache.folder().glob("unpacked-*"))
    assert len(places) == 2
    old = time.time() - cache.UNUSED_S - 60
    for place in places:
        os.utime(place, (old, old))
    with zipfile.ZipFile(tmp_path / "b.zip", "w") as archive, archive.open("x.npy", "w") as file:
        np.save(file, digits[0][:10])
    open_source(tmp_path / "b.zip")
    assert len(list(cache.folder().glob("unpacked-*"))) == 1


def test_errors_name_the_archive(tmp_path, digits):
    with zipfile.ZipFile(tmp_path / "several.zip", "w") as archive:
        for name in ("a.npy", "b.npy"):
            with archive.open(name, "w") as file:
                np.save(file, digits[0][:10])
    with pytest.raises(DataError, match=r"several\.zip holds several files .*a\.npy, b\.npy"):
        open_source(tmp_path / "several.zip")
    with zipfile.ZipFile(tmp_path / "text.zip", "w") as archive:
        archive.writestr("notes.txt", "nothing")
    with pytest.raises(NotFoundError, match=r"text\.zip holds no images"):
        open_source(tmp_path / "text.zip")


@pytest.mark.parametrize("damage", ["cut", "changed", "outwards"])
def test_damaged_and_hostile_archives_leave_nothing(damage, tmp_path, digits):
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        with archive.open("../../x.npy" if damage == "outwards" else "x.npy", "w") as file:
            np.save(file, digits[0][:30])
    data = bytearray(path.read_bytes())
    if damage == "cut":
        del data[-300:]
    if damage == "changed":
        data[5_000] ^= 255
    path.write_bytes(data)
    with pytest.raises(DataError, match="a.zip"):
        open_source(path)
    assert not list(cache.folder().glob("*")) and not (tmp_path.parent / "x.npy").exists()


def test_a_disk_without_room_is_said_as_it_is(tmp_path, digits, monkeypatch):
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive, archive.open("x.npy", "w") as file:
        np.save(file, digits[0][:30])

    monkeypatch.setattr(archives, "FREE_BYTES", 2**70)
    with pytest.raises(DataError, match=r"cannot be unpacked \(too little space would be left.*\); unpack it yourself"):
        open_source(path)
    assert not list(cache.folder().glob("*"))


def test_what_another_process_unpacked_meanwhile_is_used(tmp_path, digits, monkeypatch):
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive, archive.open("x.npy", "w") as file:
        np.save(file, digits[0][:30])
    expected = load_source(open_source(path), Preparation()).pixels
    (place,) = cache.folder().glob("unpacked-*")
    place.rename(tmp_path / "made")

    def copy(*given):
        archives.copy_files(*given)
        (tmp_path / "made").rename(place)

    monkeypatch.setattr(unpacking, "copy_files", copy)
    assert (load_source(open_source(path), Preparation()).pixels == expected).all()
    assert [file.name for file in cache.folder().rglob("*")] == [place.name, "x.npy"]


def test_names_of_tables_arrays_and_idx_files_are_known():
    idx = "train-images-idx3-ubyte.gz", "t10k-labels.idx1-ubyte", "qmnist-train-labels-idx2-int.gz"
    assert all(map(is_of_numbers, ("a/b.csv", "x.NPZ", *idx)))
    assert not any(map(is_of_numbers, ("a.png", "notes.txt", "__MACOSX/._x.npy", ".cache/x.npy", "idx.md")))
