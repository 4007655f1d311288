"""Checkpoints: whole or absent, equal bytes for equal runs, kept or pruned."""

import errno
import json
import os
import shutil
from collections import namedtuple

import pytest
import torch

from gansmith.checkpoints import (
    FORMAT,
    best_checkpoint,
    damage,
    load_checkpoint,
    load_counters,
    mark_best,
    named_checkpoints,
    prune,
    remove_unfinished,
    save_checkpoint,
)
from gansmith.config import resolve
from gansmith.errors import DataError, RunError
from gansmith.files import json_sha256, read_metadata, to_json
from gansmith.runs import create_run

CONFIG = resolve("mlp-small")


def save(run, images_seen, value=1.0):
    return save_checkpoint(
        run.directory,
        images_seen,
        generator={"w": torch.full((2, 2), value)},
        generator_metadata={"b": "2", "a": "1"},
        state={"G.w": torch.full((2,), value)},
        counters={"images_seen": images_seen, "log_lines": 0},
    )


@pytest.fixture
def run(tmp_path):
    return create_run(tmp_path / "run", CONFIG)


def test_a_checkpoint_comes_back_and_equal_ones_have_equal_bytes(tmp_path):
    a, b = (save(create_run(tmp_path / name, CONFIG), 64) for name in "ab")
    for file in ("generator.safetensors", "state.safetensors", "state.json"):
        assert (a / file).read_bytes() == (b / file).read_bytes()
    generator, state, counters = load_checkpoint(a)
    assert generator["w"].tolist() == [[1, 1], [1, 1]] and state["G.w"].tolist() == [1, 1]
    assert counters["images_seen"] == 64 and counters["format"] == FORMAT == 3
    assert read_metadata(a / "generator.safetensors") == {"a": "1", "b": "2"}


@pytest.mark.parametrize("harm", ["flip", "cut", "remove", "no json"])
def test_a_damaged_checkpoint_is_skipped_with_a_warning(run, caplog, harm):
    older, newer = save(run, 64), save(run, 128, 2.0)
    assert run.latest() == newer and damage(newer) == ""
    file = newer / "state.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    if harm == "flip":
        file.write_bytes(content)
    elif harm == "cut":
        file.write_bytes(content[:-3])
    elif harm == "remove":
        file.unlink()
    else:
        (newer / "state.json").write_text("{")
    assert run.latest() == older and run.checkpoints() == [older]
    assert "damaged" in caplog.text
    assert damage(newer).startswith("state.json" if harm == "no json" else "state.safetensors")


def test_a_checkpoint_that_cannot_be_read_is_named_also_where_the_system_names_no_file(run, monkeypatch):
    path = save(run, 64)

    def fails(_):
        raise OSError(errno.EIO, "Input/output error")  # as from a file that was open already

    monkeypatch.setattr("gansmith.checkpoints.file_sha256", fails)
    assert damage(path) == "000000064 cannot be read (Input/output error)"


def test_a_checkpoint_of_another_format_is_refused_not_skipped(run):
    path = save(run, 64)
    counters = load_counters(path)
    hashes = counters.pop("sha256")
    counters["format"] = 2
    hashes["counters"] = json_sha256(counters)
    (path / "state.json").write_text(to_json({**counters, "sha256": hashes}))
    with pytest.raises(RunError, match="has run format 2, and this version reads 3; use the version that wrote it"):
        run.latest()


def test_unfinished_checkpoints_are_ignored_and_removed(run):
    (run.directory / "checkpoints" / ".partial-000000064").mkdir()
    (run.directory / ".partial-run.json").write_text("{")
    assert run.latest() is None and named_checkpoints(run.directory) == []
    assert save(run, 64) == run.latest()
    (run.directory / ".partial-film.gif").write_bytes(b"GIF8")  # of another command, which goes on writing
    remove_unfinished(run.directory)
    assert [path.name for path in run.directory.rglob(".partial-*")] == [".partial-film.gif"]
    assert run.latest() is not None


def test_without_room_nothing_is_begun(run, monkeypatch):
    save(run, 64)
    usage = namedtuple("usage", "total used free")(0, 0, 100_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(OSError, match="0.1 MB free, a checkpoint takes 1.0 MB") as raised:
        save(run, 128)
    assert raised.value.errno == errno.ENOSPC
    assert [path.name for path in (run.directory / "checkpoints").iterdir()] == ["000000064"]


def test_a_file_longer_than_the_run_can_have_is_not_read(run):
    path = save(run, 64)
    with pytest.raises(DataError, match="more than the 10 that it can have"):
        load_checkpoint(path, max_bytes=10)


def test_the_best_is_a_name_in_a_file_that_must_be_a_whole_checkpoint(run):
    assert best_checkpoint(run.directory) is None
    older, newer = save(run, 64), save(run, 128)
    mark_best(run.directory, older)
    assert best_checkpoint(run.directory) == run.best() == older
    assert json.loads((run.directory / "best.json").read_text()) == {"checkpoint": older.name, "images_seen": 64}
    for text in ("", "{}", "[]", '{"checkpoint": 5}', '{"checkpoint": "../../x"}', '{"checkpoint": "000000999"}'):
        (run.directory / "best.json").write_text(text)
        assert run.best() is None, text
    mark_best(run.directory, newer)
    (newer / "state.json").write_text("{}")
    assert run.best() is None


def test_milestones_are_the_first_past_each_multiple(run):
    for images_seen in range(30, 241, 30):
        save(run, images_seen)
        prune(run.directory, newest=images_seen, best=None, keep_last=1, keep_every=100)
    assert [int(path.name) for path in run.checkpoints()] == [120, 210, 240]


def test_the_best_is_not_pruned(run):
    for images_seen in (30, 60, 90, 120):
        path = save(run, images_seen)
        if images_seen == 60:
            mark_best(run.directory, path)
        prune(run.directory, newest=images_seen, best=60 if images_seen >= 60 else None, keep_last=1, keep_every=0)
    assert [int(path.name) for path in run.checkpoints()] == [60, 120]


def test_damaged_checkpoints_do_not_push_out_whole_ones(run):
    for images_seen in (125, 250):
        save(run, images_seen)
    (run.directory / "checkpoints" / "000000250" / "state.json").write_text("{}")
    save(run, 160)
    prune(run.directory, newest=160, best=None, keep_last=1, keep_every=0)
    assert run.latest().name == "000000160"


def test_a_checkpoint_that_is_held_open_is_left_for_the_next_time(run, monkeypatch):
    for images_seen in (30, 60, 90):
        save(run, images_seen)
    held = run.directory / "checkpoints/000000030"
    with monkeypatch.context() as patched:
        real = os.replace
        patched.setattr(
            os, "replace", lambda a, b: real(a, b) if a != held else (_ for _ in ()).throw(PermissionError())
        )
        prune(run.directory, newest=90, best=None, keep_last=1, keep_every=0)
    assert [int(path.name) for path in run.checkpoints()] == [30, 90]
    prune(run.directory, newest=90, best=None, keep_last=1, keep_every=0)
    assert [path.name for path in (run.directory / "checkpoints").iterdir()] == ["000000090"]


def test_what_cannot_be_removed_of_a_checkpoint_is_none_any_more(run, monkeypatch):
    for images_seen in (30, 60):
        save(run, images_seen)
    monkeypatch.setattr("shutil.rmtree", lambda path, **_: None)  # as where a file in it is still mapped
    prune(run.directory, newest=60, best=None, keep_last=1, keep_every=0)
    assert [int(path.name) for path in run.checkpoints()] == [60]
    monkeypatch.undo()
    remove_unfinished(run.directory)
    assert [path.name for path in (run.directory / "checkpoints").iterdir()] == ["000000060"]
