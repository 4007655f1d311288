"""Prepared images in the user's cache: found again, made once, whole or not there, and removed when they are stale."""

import errno
import json
import logging
import os
import threading
import time
from pathlib import Path

import filelock
import numpy as np
import pytest
import torch
from conftest import wait_until

from gansmith.data import cache
from gansmith.data.cache import CacheUnusable, content_of, find_or_make, folder, remember, require_room
from gansmith.data.on_disk import OnDisk

PIXELS = np.random.default_rng(0).integers(0, 256, (12, 3, 4, 4), dtype=np.uint8)
IDENTITY = {"source": "/photos", "part": "train", "asked": {"size": 4}, "content": "one"}
made = []


@pytest.fixture(autouse=True)
def _none_made():
    made.clear()


def make(path, pixels=PIXELS):
    made.append(path)
    with path.open("xb") as file:
        np.save(file, pixels)
    return {"shape": pixels.shape, "notices": ["a"]}


def files():
    return sorted(path.suffix for path in folder().iterdir() if path.suffix != ".lock")


def test_an_entry_is_made_once_and_found_again(monkeypatch):
    first, second = find_or_make(IDENTITY, make), find_or_make(IDENTITY, make)
    for entry in (first, second):
        assert type(entry.pixels) is torch.Tensor and (entry.pixels.numpy() == PIXELS).all()
        assert entry.facts == {"shape": list(PIXELS.shape), "notices": ["a"]}
    assert len(made) == 1 and files() == [".json", ".npy"] and made[0].parent == folder()
    monkeypatch.setattr(cache, "MEMORY_BYTES", PIXELS.nbytes - 1)
    entry = find_or_make(IDENTITY, make)
    assert isinstance(entry.pixels, OnDisk) and (entry.pixels.numpy() == PIXELS).all() and len(made) == 1
    assert find_or_make({**IDENTITY, "source": "/moved"}, make).facts and len(made) == 1  # the content is what counts


def test_another_content_replaces_the_entry_and_another_preparation_does_not():
    find_or_make(IDENTITY, make)
    find_or_make({**IDENTITY, "asked": {"size": 8}}, make)
    find_or_make({**IDENTITY, "part": "test"}, make)
    assert len(made) == 3 and files() == [".json"] * 3 + [".npy"] * 3
    find_or_make({**IDENTITY, "content": "two"}, make)
    assert len(made) == 4 and files() == [".json"] * 3 + [".npy"] * 3
    find_or_make(IDENTITY, make)
    assert len(made) == 5


def test_what_nothing_used_for_a_month_is_removed():
    find_or_make(IDENTITY, make)
    find_or_make({**IDENTITY, "source": "/used", "content": "two"}, make)
    for path in folder().iterdir():
        os.utime(path, (time.time() - 31 * 86_400,) * 2)
    find_or_make({**IDENTITY, "source": "/used", "content": "two"}, make)
    partial = folder() / ".partial-other-77.npy"
    partial.write_bytes(b"of a process that was killed")
    find_or_make({**IDENTITY, "source": "/third", "content": "three"}, make)
    assert partial.exists() and len(made) == 3 and len(files()) == 5  # it may still be written to
    sources = {json.loads(path.read_text())["identity"]["source"] for path in folder().glob("*.json")}
    assert sources == {"/used", "/third"}
    os.utime(partial, (time.time() - 2 * 3600,) * 2)
    find_or_make({**IDENTITY, "source": "/fourth", "content": "four"}, make)
    assert not partial.exists()


@pytest.mark.parametrize("damage", ["cut", "empty", "no json", "other json", "no object", "gone", "other shape"])
def test_a_damaged_entry_is_made_again(damage, caplog):
    entry = find_or_make(IDENTITY, make)
    pixels, facts = (next(folder().glob(f"*{ending}")) for ending in (".npy", ".json"))
    if damage == "gone":
        pixels.unlink()
    elif damage == "other shape":
        np.save(pixels, PIXELS[:5])
    elif damage in ("cut", "empty"):
        pixels.write_bytes(pixels.read_bytes()[: 500 if damage == "cut" else 0])
    else:
        facts.write_text({"no json": '{"fac', "other json": "{}", "no object": "[]"}[damage])
    again = find_or_make(IDENTITY, make)
    assert len(made) == 2 and (again.pixels == entry.pixels).all()
    assert ("is damaged" in caplog.text) == (damage != "gone")
    caplog.clear()
    assert find_or_make(IDENTITY, make).facts and len(made) == 2 and not caplog.records


def test_a_failure_leaves_nothing():
    def fail(path):
        path.write_bytes(b"half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        find_or_make(IDENTITY, fail)
    assert files() == []
    assert find_or_make(IDENTITY, make).facts["notices"] == ["a"]


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS, errno.EACCES])
def test_a_cache_that_cannot_be_written_is_said(code):
    def fail(path):
        raise OSError(code, os.strerror(code))

    with pytest.raises(CacheUnusable, match=f"prepared cannot be written .{os.strerror(code)}"):
        find_or_make(IDENTITY, fail)
    assert files() == []


def test_an_error_of_the_source_is_not_one_of_the_cache(tmp_path):
    def fail(path):
        (tmp_path / "photo.png").open("rb")

    with pytest.raises(FileNotFoundError):
        find_or_make(IDENTITY, fail)


def test_a_file_in_place_of_the_cache_is_said(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("GANSMITH_CACHE", str(tmp_path / "file"))
    with pytest.raises(CacheUnusable):
        find_or_make(IDENTITY, make)
    assert remember(IDENTITY, lambda: {"a": 1}) == {"a": 1}


def test_room_is_needed_for_an_entry(monkeypatch):
    folder().mkdir(parents=True)
    require_room(10**6)
    with pytest.raises(CacheUnusable, match=r"GB free, and 1000001\.1 are needed"):
        require_room(10**15)


def test_two_processes_make_one_entry(tmp_path):
    """The second waits for the first, then finds what it made."""

    def slowly(path):
        (tmp_path / "begun").write_text("")
        wait_until((tmp_path / "go").exists)
        return make(path)

    child = os.fork()
    if child == 0:
        try:
            find_or_make(IDENTITY, slowly)
        finally:
            os._exit(0)
    wait_until((tmp_path / "begun").exists)
    found = []
    second = threading.Thread(target=lambda: found.append(find_or_make(IDENTITY, make)))
    second.start()
    time.sleep(0.2)
    assert not found and not made
    (tmp_path / "go").write_text("")
    second.join()
    os.waitpid(child, 0)
    assert found[0].facts["notices"] == ["a"] and not made


def test_without_locks_a_warning_says_so(monkeypatch, caplog):
    monkeypatch.setattr(filelock, "FileLock", filelock.SoftFileLock)
    partial = folder() / f".partial-{cache._key(IDENTITY)}-77.npy"
    folder().mkdir(parents=True)
    partial.write_bytes(b"of another process")
    assert find_or_make(IDENTITY, make).facts["notices"] == ["a"]
    assert "cannot be locked" in caplog.text and partial.exists()


def test_what_a_killed_process_left_is_removed_by_the_next():
    partial = folder() / f".partial-{cache._key(IDENTITY)}-77.npy"
    folder().mkdir(parents=True)
    partial.write_bytes(b"half")
    find_or_make(IDENTITY, make)
    assert not partial.exists() and files() == [".json", ".npy"]


def test_facts_are_found_out_once():
    found = []

    def find_out():
        found.append(0)
        return {"names": ["a"], "count": len(found)}

    for _ in range(2):
        assert remember(IDENTITY, find_out) == {"names": ["a"], "count": 1}
    assert remember({**IDENTITY, "content": "two"}, find_out)["count"] == 2
    assert files() == [".json"]
    next(folder().glob("*.json")).write_text("{")
    assert remember({**IDENTITY, "content": "two"}, find_out)["count"] == 3


def test_the_content_of_a_file_is_its_size_its_time_and_its_ends(tmp_path, monkeypatch):
    monkeypatch.setattr(cache, "_END_BYTES", 10)
    path = tmp_path / "x.zip"
    path.write_bytes(bytes(100))
    os.utime(path, (1e9, 1e9))
    contents = {content_of(path)}
    other = tmp_path / "moved.zip"
    path.rename(other)
    assert content_of(other) in contents
    for change in (bytes(101), b"1" + bytes(99), bytes(99) + b"1"):
        other.write_bytes(change)
        os.utime(other, (1e9, 1e9))
        contents.add(content_of(other))
    os.utime(other, (1e9, 2e9))
    contents.add(content_of(other))
    assert len(contents) == 5


def test_the_cache_is_the_users(monkeypatch, tmp_path):
    monkeypatch.setenv("GANSMITH_CACHE", str(tmp_path / "mine"))
    assert folder() == Path(tmp_path / "mine" / "prepared")
    assert logging.getLogger("gansmith")
