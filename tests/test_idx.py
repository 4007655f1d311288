"""IDX files, whole and broken, the folders they are looked for in, and the official sets."""

import gzip
import hashlib
import os
import tempfile
from pathlib import Path

import numpy as np
import pytest
from conftest import write_idx, write_set
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gansmith.data import load_data
from gansmith.data.idx import cache_dir, read_idx
from gansmith.errors import DataError, NotFoundError


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_idx_files_hold_what_was_written(tmp_path, suffix):
    values = np.random.default_rng(0).integers(0, 256, (5, 4, 4), dtype=np.uint8)
    write_idx(tmp_path / f"a{suffix}", values)
    read, digest = read_idx(tmp_path / f"a{suffix}")
    np.testing.assert_array_equal(read, values)
    assert (
        digest == hashlib.sha256(bytes([0, 0, 8, 3, 0, 0, 0, 5, 0, 0, 0, 4, 0, 0, 0, 4]) + values.tobytes()).hexdigest()
    )


def whole_file():
    return bytes([0, 0, 8, 3, 0, 0, 0, 2, 0, 0, 0, 4, 0, 0, 0, 4]) + bytes(32)


@pytest.mark.parametrize(
    ("content", "word"),
    [
        (b"", "nothing"),
        (b"\x89PNG" + bytes(50), "does not start"),
        (bytes([0, 0, 13, 3]) + whole_file()[4:], "does not start"),
        (bytes([0, 0, 8, 9]) + whole_file()[4:], "does not start"),
        (whole_file()[:10], "damaged header"),
        (whole_file()[:-1], "cut off"),
        (whole_file() + b"\0", "larger than"),
        (bytes([0, 0, 8, 3]) + b"\xff" * 12 + bytes(32), "damaged header"),
    ],
)
@pytest.mark.parametrize("packed", [False, True])
def test_broken_idx_files_are_refused(tmp_path, content, word, packed):
    path = tmp_path / ("a.gz" if packed else "a")
    path.write_bytes(gzip.compress(content) if packed else content)
    with pytest.raises(DataError, match=word) as refusal:
        read_idx(path)
    assert "\n" not in str(refusal.value)


def test_a_damaged_archive_is_refused(tmp_path):
    packed = gzip.compress(whole_file())
    for damaged in (packed[:-9], packed[:20] + bytes(4) + packed[24:], b"not gzip at all"):
        path = tmp_path / "a.gz"
        path.write_bytes(damaged)
        with pytest.raises(DataError, match="fetch it again"):
            read_idx(path)


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(content=st.binary(max_size=80), start=st.sampled_from([b"", b"\0\0\x08\x01", b"\0\0\x08\x03"]))
def test_any_bytes_are_read_or_refused(tmp_path, content, start):
    path = tmp_path / "any"
    path.write_bytes(start + content)
    try:
        values, _ = read_idx(path)
    except DataError as refusal:
        assert str(path) in str(refusal)
    else:
        assert values.size <= len(content)


def test_a_folder_is_used_alone_and_described(tmp_path, digits):
    folder = write_set(tmp_path / "mine", *digits)
    images = load_data("mnist", data_dir=folder)
    np.testing.assert_array_equal(images.pixels[:, 0].numpy(), digits[0])
    np.testing.assert_array_equal(images.labels.numpy(), digits[1])
    assert images.source == str(folder) and any("not the official" in notice for notice in images.notices)
    with pytest.raises(NotFoundError, match="holds no test images"):
        load_data("mnist", data_dir=folder, part="test")
    (tmp_path / "empty").mkdir()
    with pytest.raises(NotFoundError, match="holds no train images"):
        load_data("mnist", data_dir=tmp_path / "empty")


def test_sources_are_tried_in_order(tmp_path, monkeypatch, digits):
    images, labels = digits
    assert "embedded" in load_data("mnist").source
    cache = write_set(tmp_path / "cache" / "mnist", images[:30], labels[:30])
    assert load_data("mnist").source == str(cache)
    shared = write_set(tmp_path / "shared" / "mnist", images[:20], labels[:20])
    monkeypatch.setenv("GANSMITH_DATA", str(tmp_path / "shared"))
    assert load_data("mnist").source == str(shared)
    assert load_data("mnist", data_dir=cache).source == str(cache)
    (shared / "train-images-idx3-ubyte.gz").write_bytes(b"rubbish")
    with pytest.raises(DataError, match="fetch it again"):  # a damaged source is an error, not skipped
        load_data("mnist")


def test_labels_must_match_and_may_be_missing(tmp_path, digits):
    images, labels = digits
    with pytest.raises(DataError, match="one label for each image"):
        load_data("idx", data_dir=write_set(tmp_path / "a", images, labels[:-1]))
    unlabelled = load_data("idx", data_dir=write_set(tmp_path / "b", images, None))
    assert unlabelled.labels is None and unlabelled.num_classes == 0
    with pytest.raises(DataError, match="holds no images"):
        load_data("idx", data_dir=write_set(tmp_path / "c", images[:0], labels[:0]))
    with pytest.raises(DataError, match="square"):
        load_data("idx", data_dir=write_set(tmp_path / "d", images[:, :20], labels))


def test_emnist_is_turned_upright(tmp_path, digits):
    images, labels = digits
    folder = tmp_path / "e"
    folder.mkdir()
    write_idx(folder / "emnist-digits-train-images-idx3-ubyte.gz", images.transpose(0, 2, 1))
    write_idx(folder / "emnist-digits-train-labels-idx1-ubyte.gz", labels)
    np.testing.assert_array_equal(load_data("emnist-digits", data_dir=folder).pixels[:, 0].numpy(), images)


def test_the_cache_is_the_users_unless_the_environment_names_one(monkeypatch, tmp_path):
    assert cache_dir("mnist") == tmp_path / "cache" / "mnist"
    monkeypatch.delenv("GANSMITH_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_dir("mnist") == tmp_path / "xdg" / "gansmith" / "mnist"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert cache_dir("mnist") == tmp_path / "home" / ".cache" / "gansmith" / "mnist"


@pytest.mark.parametrize("version", ["newer", "older"])
def test_a_user_without_a_home_has_a_cache(monkeypatch, version):
    for name in ("GANSMITH_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)  # what it does where no home is known
    if version == "older":  # of platformdirs
        monkeypatch.setattr("platformdirs.user_cache_dir", lambda *args, **keywords: "~/.cache/gansmith")
    assert cache_dir("mnist") == Path(tempfile.gettempdir()) / ".cache" / "gansmith" / "mnist"
