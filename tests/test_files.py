"""Files that are never half-written, strict JSON, safetensors with stable bytes."""

import errno
import json
import math
import os

import pytest
import torch

from gansmith import files
from gansmith.errors import DataError
from gansmith.files import (
    append_json,
    flush,
    load_tensors,
    read_json,
    read_metadata,
    replacing,
    save_tensors,
    to_json,
    warn_once,
    write_bytes,
    write_json,
)


def test_numbers_that_json_lacks_become_null():
    assert json.loads(to_json({"a": math.nan, "b": [math.inf, 1.5], "c": {"d": -math.inf}})) == {
        "a": None,
        "b": [None, 1.5],
        "c": {"d": None},
    }


def test_a_file_is_replaced_wholly_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "run.json"
    write_json(path, {"a": 1})
    monkeypatch.setattr(files.os, "replace", lambda *_: (_ for _ in ()).throw(OSError(errno.ENOSPC, "full")))
    with pytest.raises(OSError, match="full"):
        write_json(path, {"a": 2})
    assert read_json(path) == {"a": 1} and [p.name for p in tmp_path.iterdir()] == ["run.json"]


def test_a_link_left_under_the_temporary_name_is_not_written_through(tmp_path):
    (tmp_path / "diary").write_text("dear diary")
    (tmp_path / ".partial-x").symlink_to(tmp_path / "diary")
    write_bytes(tmp_path / "x", b"new")
    assert (tmp_path / "diary").read_text() == "dear diary" and (tmp_path / "x").read_bytes() == b"new"


def test_a_block_that_fails_leaves_the_file_and_no_other(tmp_path):
    (tmp_path / "x").write_text("old")
    with pytest.raises(KeyError), replacing(tmp_path / "x") as partial:
        partial.write_text("half")
        raise KeyError("x")
    assert (tmp_path / "x").read_text() == "old" and len(list(tmp_path.iterdir())) == 1


def test_directories_that_cannot_be_flushed_are_left_alone_but_files_are_not(tmp_path, monkeypatch):
    (tmp_path / "x").write_text("x")

    def refuses(*_):
        raise OSError(errno.EINVAL, "Invalid argument")

    monkeypatch.setattr(os, "fsync", refuses)
    flush(tmp_path)
    with pytest.raises(OSError, match="Invalid argument"):
        flush(tmp_path / "x")


def test_a_line_is_appended_after_a_whole_one(tmp_path):
    path = tmp_path / "log.jsonl"
    assert append_json(path, {"a": math.nan}) == {"a": None}
    with path.open("a") as file:
        file.write('{"b": ')
    append_json(path, {"c": 3})
    assert path.read_text() == '{"a": null}\n{"b": \n{"c": 3}\n'


@pytest.mark.parametrize("text", ["", "{", "[1]", "3", "[" * 100_000, "\xff"])
def test_what_is_no_json_object_is_a_value_error(tmp_path, text):
    (tmp_path / "x.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(ValueError):
        read_json(tmp_path / "x.json")


def test_a_file_longer_than_any_of_ours_is_not_parsed(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "_MAX_JSON_BYTES", 10)
    (tmp_path / "x.json").write_text(json.dumps({"a": "b" * 20}))
    with pytest.raises(ValueError, match="longer than 10 bytes"):
        read_json(tmp_path / "x.json")


def test_tensors_come_back_with_equal_bytes_whatever_their_order(tmp_path):
    a, b = torch.arange(6.0).view(2, 3).t(), torch.ones(1, dtype=torch.int64)
    save_tensors(tmp_path / "1", {"a": a, "b": b}, {"x": "1", "y": "2"})
    save_tensors(tmp_path / "2", {"b": b, "a": a.contiguous()}, {"y": "2", "x": "1"})
    assert (tmp_path / "1").read_bytes() == (tmp_path / "2").read_bytes()
    again = load_tensors(tmp_path / "1", max_bytes=10_000)
    torch.testing.assert_close(again, {"a": a.contiguous(), "b": b}, rtol=0, atol=0)


def test_tensors_that_are_not_finite_are_refused(tmp_path):
    save_tensors(tmp_path / "x", {"w": torch.tensor([1.0, math.nan])}, {})
    with pytest.raises(DataError, match=r"holds non-finite numbers \(w\)"):
        load_tensors(tmp_path / "x", max_bytes=10_000)


def test_a_foreign_file_is_not_a_generator(tmp_path):
    (tmp_path / "junk").write_bytes(b"\x80\x04junk")
    save_tensors(tmp_path / "bare", {"w": torch.ones(1)}, {})
    for name in ("junk", "bare"):
        with pytest.raises(DataError, match="not a Gansmith generator"):
            read_metadata(tmp_path / name)


def test_a_warning_is_given_once(caplog):
    for _ in range(3):
        warn_once("the disk is slow today")
    warn_once("the disk is slow tomorrow")
    assert [record.message for record in caplog.records] == ["the disk is slow today", "the disk is slow tomorrow"]


def test_a_file_that_another_program_has_open_is_replaced_when_it_is_closed(tmp_path, monkeypatch):
    """As on Windows, where an open file cannot be replaced."""
    replace, asked = os.replace, []

    def once_closed(old, new):
        asked.append(old)
        if len(asked) < 3:
            raise PermissionError(13, "it is open elsewhere")
        replace(old, new)

    monkeypatch.setattr(os, "replace", once_closed)
    with pytest.raises(PermissionError):
        files.write_bytes(tmp_path / "a", b"1")
    monkeypatch.setattr(files, "_TRIES", 5)
    monkeypatch.setattr(files, "RETRY_S", 0.001)
    asked.clear()
    files.write_bytes(tmp_path / "a", b"2")
    assert (tmp_path / "a").read_bytes() == b"2" and len(asked) == 3
