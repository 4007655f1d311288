"""`data inspect`: what a path holds and how it would be prepared."""

import json
import zipfile

import numpy as np
import pytest
from conftest import write_set
from PIL import Image

from gansmith.data.inspection import inspect
from gansmith.data.prepare import Preparation
from gansmith.errors import DataError, NotFoundError


@pytest.fixture
def folder(tmp_path):
    for k in range(50):
        place = tmp_path / "set" / ("train" if k < 40 else "test") / ("cat" if k % 4 else "dog")
        place.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (20, 20 if k % 3 else 21), (k, 0, 0)).save(place / f"{k:02d}.png")
    return tmp_path / "set"


def test_pictures_are_described(folder):
    facts, preview = inspect(folder, Preparation())
    assert facts["images"] == {"train": 40, "test": 10} and facts["classes"] == {"cat": 30, "dog": 10}
    assert facts["sizes"] == {"20x20": 26, "20x21": 14} and facts["looked_at"] == 40
    assert (facts["grey"], facts["transparent"]) == (1, 0) and facts["name"] == "set"
    assert facts["prepared"] == "prepared as 20x20 rgb, cropped to squares"
    sizes, dark = facts["notices"]
    assert "20x20 (26), 20x21 (14)" in sizes and "reach only 12 of 255" in dark
    assert tuple(preview.shape) == (40, 3, 20, 20)
    assert inspect(folder, Preparation(16))[1].shape[-1] == 16


@pytest.mark.parametrize("count", [12, 50])
def test_every_picture_of_a_small_set_is_looked_at(tmp_path, count):
    for k in range(count):
        path = tmp_path / "set" / f"{k:03d}.png"
        path.parent.mkdir(exist_ok=True)
        Image.new(("L", "RGB", "P")[k % 3], (8, 8)).save(path)
    broken = [1] if count == 12 else range(0, 50, 2)
    for k in broken:
        (tmp_path / "set" / f"{k:03d}.png").write_bytes(b"")
    facts, preview = inspect(tmp_path / "set", Preparation())
    assert facts["looked_at"] == count and len(preview) == min(40, count - len(broken))
    assert sum(facts["modes"].values()) == count - len(broken) and set(facts["modes"]) == {"L", "RGB", "P"}
    notice = facts["notices"][-1]
    assert notice.startswith(f"{len(broken)} of {count} pictures cannot be read: {broken[0]:03d}.png")
    assert ("training refuses" in notice) is (count == 50)


def test_some_pictures_of_a_large_set_are_looked_at_and_it_is_said(tmp_path, monkeypatch):
    monkeypatch.setattr("gansmith.data.pictures.LOOKS", 10)
    for k in range(40):
        path = tmp_path / "set" / f"{k:03d}.png"
        path.parent.mkdir(exist_ok=True)
        if k % 2:
            Image.new("L", (8, 8)).save(path)
        else:
            path.write_bytes(b"")
    facts, _ = inspect(tmp_path / "set", Preparation())
    assert facts["looked_at"] == 10 and facts["images"] == {"train": 40}
    notice = facts["notices"][-1]
    assert "of the 10 pictures looked at, of 40 pictures, cannot be read" in notice and "refuses" not in notice


@pytest.mark.parametrize(("channels", "mode", "color"), [(1, "L", "grey"), (3, "RGB", "rgb"), (4, "RGBA", "rgb")])
def test_arrays_are_described_as_they_are_stored(tmp_path, channels, mode, color):
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "x.npz", images=rng.integers(0, 256, (24, 20, 30, channels), dtype=np.uint8))
    facts, preview = inspect(tmp_path / "x.npz", Preparation(16, "pad", background="black"))
    assert facts["sizes"] == {"30x20": 24} and facts["modes"] == {mode: 24}
    assert facts["prepared"] == f"prepared as 16x16 {color}, padded with black"
    assert not any("prepared" in notice for notice in facts["notices"])
    assert tuple(preview.shape[2:]) == (16, 16)


def test_other_files_are_described(tmp_path, digits):
    facts, preview = inspect(write_set(tmp_path / "digits", *digits), Preparation())
    assert facts["images"] == {"train": 400} and list(facts["classes"]) == [str(k) for k in range(10)]
    assert facts["classes"]["3"] == (digits[1] == 3).sum()
    assert facts["sizes"] == {"28x28": 400} and facts["prepared"] == "prepared as 28x28 grey"
    assert tuple(preview.shape) == (40, 1, 28, 28)
    np.savez(tmp_path / "x.npz", x_train=digits[0][:5], x_test=digits[0][:3])
    facts, preview = inspect(tmp_path / "x.npz", Preparation())
    assert facts["images"] == {"train": 5, "test": 3} and len(preview) == 5 and facts["classes"] == {}
    assert facts["sizes"] == {"28x28": 5} and facts["modes"] == {"L": 5}
    with pytest.raises(NotFoundError):
        inspect(tmp_path / "nothing", Preparation())
    with pytest.raises(DataError, match="empty holds no images; give a data set with at least one"):
        inspect(write_set(tmp_path / "empty", digits[0][:0], digits[1][:0]), Preparation())


def test_the_command_prints_lines_or_json_and_writes_a_preview(gansmith, folder, tmp_path):
    code, out, err = gansmith("data", "inspect", folder)
    assert code == 0 and err == ""
    assert "train    40 images" in out and "cat (30), dog (10)" in out and "note: pictures are 20x20" in out
    with Image.open(tmp_path / "preview.png") as preview:
        assert preview.width >= 8 * 20
    code, out, _ = gansmith("data", "inspect", folder, "--json", "--out", "p.png", "--size", "8", "--color", "grey")
    facts = json.loads(out)
    assert code == 0 and facts["preview"] == "p.png" and facts["prepared"].startswith("prepared as 8x8 grey")
    (tmp_path / "taken").mkdir()  # where no file can be written
    code, out, err = gansmith("data", "inspect", folder, "--out", "taken")
    assert (code, err) == (0, "") and "modes    RGB (40)" in out
    assert out.splitlines()[-1].startswith("note: the preview could not be written to taken (")
    code, out, _ = gansmith("data", "inspect", folder, "--out", "taken", "--json")
    assert code == 0 and json.loads(out)["preview"] is None and "could not be" in json.loads(out)["notices"][-1]
    for k in range(5):  # of 50
        (folder / "train" / "dog" / f"broken{k}.png").write_bytes(b"")
    code, out, err = gansmith("data", "inspect", folder)
    assert code == 2 and "train    45 images" in out and err.startswith(f"gansmith: {folder}: 5 of 45 pictures cannot")
    assert err.endswith("; training refuses over one in ten: repair or remove them\n") and len(err.splitlines()) == 1
    np.savez(
        tmp_path / "odd.npz",
        images=np.arange(256, dtype=np.uint8).reshape(4, 8, 8),
        labels=np.array(["\x1b[2Jcat", "dog"] * 2),
    )
    code, out, _ = gansmith("data", "inspect", tmp_path / "odd.npz", "--out", "q.png")
    assert code == 0 and "\x1b" not in out and "[2Jcat (2)" in out
    (tmp_path / "strips").mkdir()
    for k in range(4):
        Image.fromarray(np.full((4, 2000), 60 * k, np.uint8)).save(tmp_path / "strips" / f"{k}.png")
    code, _, err = gansmith("data", "inspect", tmp_path / "strips", "--size", "32", "--resize", "pad")
    assert code == 2 and "none of the pictures looked at can be prepared, since it is too narrow" in err
    code, out, err = gansmith("data", "inspect", tmp_path / "nothing")
    assert code == 2 and out == "" and "no file or folder" in err


@pytest.mark.slow
def test_what_our_own_commands_write_among_the_pictures_is_none_of_them(gansmith, tmp_path, monkeypatch):
    photos = tmp_path / "photos"
    for k in range(40):
        place = photos / ("cat" if k % 2 else "dog")
        place.mkdir(parents=True, exist_ok=True)
        Image.new("L", (8, 8), 6 * k).save(place / f"{k:02d}.png")
    monkeypatch.chdir(photos)
    small = ("--images", "32", "--batch-size", "16", "--g-width", "8", "--d-width", "8", "--trackers", "")
    assert gansmith("data", "inspect", ".")[0] == gansmith("train", "--data", ".", *small)[0] == 0
    assert (photos / "preview.png").is_file() and len([*photos.glob("runs/*/*.png")]) > 1
    with zipfile.ZipFile(tmp_path / "photos.zip", "w") as archive:
        for file in photos.rglob("*.*"):
            if file.name != "preview.png":
                archive.write(file, file.relative_to(photos))
    for path in (photos, tmp_path / "photos.zip"):
        facts, _ = inspect(path, Preparation())
        assert facts["images"] == {"train": 40} and facts["classes"] == {"cat": 20, "dog": 20}
    Image.new("L", (8, 8)).save(photos / "preview.png")  # a picture of the user's, which only has the name
    assert "1 pictures beside the class folders were left out" in inspect(photos, Preparation())[0]["notices"]
    code, _, err = gansmith("data", "inspect", ".", "--out", "look.png")
    assert code == 2 and "look.png would be read as one of the pictures of ." in err
