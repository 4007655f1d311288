"""The run directory: one run a directory, strict rows, nothing outside it."""

import dataclasses
import errno
import math
import os
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor

import filelock
import pytest

from gansmith import runs
from gansmith.config import resolve
from gansmith.errors import ConfigError, NotFoundError, RunError
from gansmith.files import warn_once
from gansmith.runs import (
    create_run,
    is_locked,
    locked,
    make_next_directory,
    next_directory,
    open_run,
    rewind,
    write_config,
)

CONFIG = resolve("mlp-small")


def test_logs_are_cut_back_and_broken_lines_skipped(tmp_path, caplog):
    run = create_run(tmp_path / "run", CONFIG)
    run.append(run.log_path, {"images_seen": 1})
    run.append(run.log_path, {"images_seen": 2})
    with run.log_path.open("a") as file:
        file.write('{"images_seen": 3, "d_lo')
    assert run.log == [{"images_seen": 1}, {"images_seen": 2}]
    assert "broken line" in caplog.text
    rewind(run, 1)
    assert run.log_path.read_text() == '{"images_seen": 1}\n'


def test_grids_and_scores_after_a_checkpoint_are_removed(tmp_path):
    run = create_run(tmp_path / "run", CONFIG)
    run.samples_dir.mkdir(exist_ok=True)
    for seen in (64, 128):
        (run.samples_dir / f"{seen:09d}.png").write_bytes(b"")
        run.append(run.metrics_path, {"images_seen": seen})
    rewind(run, 64)
    assert [seen for seen, _ in run.grids()] == [64] and [row["images_seen"] for row in run.metrics] == [64]


def test_a_flipped_bit_in_a_log_costs_its_line_alone(tmp_path, caplog):
    run = create_run(tmp_path / "run", CONFIG)
    for images_seen in (64, 128, 192):
        run.append(run.log_path, {"images_seen": images_seen, "d_loss": 1.0})
    content = bytearray(run.log_path.read_bytes())
    content[5] ^= 0x80  # no text any more
    content[content.index(b"images_seen", 50)] ^= 0x01  # another key
    run.log_path.write_bytes(content)
    rewind(run, 192)
    assert [row["images_seen"] for row in run.log] == [128] and "broken line" in caplog.text


def test_a_line_after_one_that_was_cut_off_is_kept(tmp_path, caplog):
    run = create_run(tmp_path / "run", CONFIG)
    run.log_path.write_text('{"images_seen": 1}\n{"images_se')
    row = {"images_seen": 3, "d_grad_norm": None}
    assert run.append(run.log_path, {"images_seen": 3, "d_grad_norm": math.inf}) == row
    assert run.log == [{"images_seen": 1}, row]
    assert "broken line" in caplog.text


def test_lines_and_facts_of_wrong_types_are_skipped(tmp_path, caplog):
    run = create_run(tmp_path / "run", CONFIG)
    wrong = ({"d_loss": "x"}, {"kind": "rollback"}, {"kind": ["failure"], "g_loss": {}}, {"kind": "failure"})
    for row in ({"d_loss": 1.5}, *wrong, {"d_loss": None}):
        run.append(run.log_path, {"images_seen": 10, **row})
    assert [row["d_loss"] for row in run.log] == [1.5, None] and caplog.text.count("broken line") == len(wrong)
    run.append(run.metrics_path, {"images_seen": 10})
    assert run.validation_scores() == [] and len(run.metrics) == 1
    (run.directory / "run.json").write_text('{"status": ["x"], "starts": 5, "rollbacks": 3, "python": "3.11"}')
    assert run.facts() == {"python": "3.11"} and "status, starts, rollbacks" in caplog.text


def test_damaged_facts_are_lost_and_said_to_be(tmp_path, caplog):
    run = create_run(tmp_path / "run", CONFIG)
    assert run.facts() == {}
    (run.directory / "run.json").write_text("{")
    assert run.facts() == {} and "run.json is damaged" in caplog.text
    run.record(status="running")
    assert run.facts() == {"status": "running"}


def test_verdicts_on_other_data_are_left_out_of_the_runs_own(tmp_path):
    run = create_run(tmp_path / "run", CONFIG)
    for data in (None, "mnist", "fashion-mnist"):
        run.append(run.metrics_path, {"images_seen": 10, "data": data})
    assert [row["data"] for row in run.metrics_on_own_data()] == [None, "mnist"]


def test_a_directory_holds_one_run(tmp_path):
    create_run(tmp_path / "run", CONFIG)
    with pytest.raises(RunError, match="batch_size 64 -> 32"):
        create_run(tmp_path / "run", CONFIG.replace(batch_size=32))
    longer = create_run(tmp_path / "run", CONFIG.replace(images=20_000_000, log_every=5))
    assert (longer.config.images, longer.config.schedule_images) == (20_000_000, CONFIG.images)
    again = create_run(tmp_path / "run", CONFIG.replace(images=30_000_000))
    assert again.config.schedule_images == CONFIG.images


def test_origins_are_written_and_read_back(tmp_path):
    config = resolve("mlp-small", environ={"GANSMITH_SEED": "4"}, arguments={"log_every": "25600", "images": "64k"})
    create_run(tmp_path / "run", config)
    text = (tmp_path / "run" / "config.toml").read_text()
    assert text.startswith("format = 3\n") and "[origins]" in text
    opened = open_run(tmp_path / "run").config
    assert opened == config and opened.origins == config.origins
    assert (opened.origins["log_every"], opened.origins["seed"], opened.origins["g_width"]) == (
        "argument",
        "environment",
        "recipe",
    )
    assert not opened.is_from_recipe("log_every") and opened.is_from_recipe("sample_every")


def test_a_run_that_goes_on_keeps_its_origins_or_takes_those_of_the_new_command(tmp_path):
    short = {"images": "64k"}
    asked = resolve("mlp-small", arguments={**short, "log_every": 25_600})
    run = create_run(tmp_path / "asked", asked)
    resumed = create_run(run.directory, open_run(run.directory).config.replace(images=100_000))  # as `resume` does
    assert not resumed.config.is_from_recipe("log_every")
    lost = create_run(run.directory, dataclasses.replace(asked, origins={}))
    assert not lost.config.is_from_recipe("log_every")
    own = create_run(tmp_path / "own", resolve("mlp-small", arguments=short))
    assert own.config.is_from_recipe("log_every")
    again = create_run(own.directory, asked)  # the same value, but now asked for
    assert not again.config.is_from_recipe("log_every")


def test_schedules_that_a_run_cannot_take_up_are_refused(tmp_path):
    create_run(tmp_path / "run", CONFIG)
    for name in ("schedule_images", "planned_images"):
        with pytest.raises(RunError, match=f"{name} is 5000, but"):
            create_run(tmp_path / "run", CONFIG.replace(**{name: 5000}))


def test_places_that_cannot_hold_a_run_are_refused(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(RunError, match="is a file"):
        create_run(tmp_path / "file", CONFIG)
    with pytest.raises(RunError, match="cannot be written"):
        create_run(tmp_path / "file" / "below", CONFIG)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "letter.txt").write_text("dear")
    with pytest.raises(RunError, match="holds no run"):
        create_run(tmp_path / "other", CONFIG)
    with pytest.raises(NotFoundError, match="holds no run"):
        open_run(tmp_path / "other")
    (tmp_path / "broken").symlink_to(tmp_path / "nowhere")
    with pytest.raises(RunError, match="is a broken link"):
        create_run(tmp_path / "broken", CONFIG)


@pytest.mark.parametrize("form", ["no format", "format 2", "format 4", "text"])
def test_a_directory_of_another_format_is_refused_in_one_sentence(tmp_path, form):
    run = create_run(tmp_path / "run", CONFIG)
    path = run.directory / "config.toml"
    first = {"no format": "", "format 2": "format = 2\n", "format 4": "format = 4\n", "text": 'format = "new"\n'}[form]
    path.write_text(first + path.read_text().removeprefix("format = 3\n"))
    found = {"no format": "2 or older", "format 2": "2", "format 4": "4", "text": "new"}[form]
    with pytest.raises(ConfigError, match=rf"another version of Gansmith \(run format {found}, this version reads 3\)"):
        open_run(run.directory)
    with pytest.raises(ConfigError, match="use that version, or train a new run"):
        create_run(run.directory, CONFIG)


def test_a_config_that_was_edited_wrongly_is_refused_with_its_name(tmp_path):
    run = create_run(tmp_path / "run", CONFIG)
    path = run.directory / "config.toml"
    text = path.read_text()
    for change, words in (
        (("batch_size = 64", "batch = 64"), "there is no field 'batch'; here it is batch_size"),
        (("batch_size = 64", "batch_size = 1"), "batch_size is 1; it must be between 2"),
        (("batch_size = 64", 'batch_size = "many"'), "batch_size is 'many'"),
    ):
        path.write_text(text.replace(*change))
        with pytest.raises(ConfigError) as refused:
            open_run(run.directory)
        assert str(path) in str(refused.value) and words in str(refused.value)
    path.write_text(text[: text.index("[origins]")] + "origins = 3\n")  # these may be lost
    assert open_run(run.directory).config == CONFIG and open_run(run.directory).config.origins == {}


def test_directories_are_numbered_onwards(tmp_path):
    assert next_directory(tmp_path, CONFIG).name == "0001-mlp-small-mnist"
    (tmp_path / "0041-x").mkdir()
    assert next_directory(tmp_path, CONFIG).name == "0042-mlp-small-mnist"
    long = CONFIG.replace(data="a" * 46 + "-" + "b" * 17)
    assert next_directory(tmp_path, long).name == f"0042-mlp-small-{'a' * 46}-bb"
    assert next_directory(tmp_path, long.replace(data="a" * 48 + "-b")).name == f"0042-mlp-small-{'a' * 48}"
    assert create_run(next_directory(tmp_path, long), long).directory.is_dir()


def test_a_number_is_taken_once(tmp_path):
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda _: make_next_directory(tmp_path / "runs", CONFIG), range(16)))
    assert len(set(made)) == 16 and all(path.is_dir() for path in made)


def test_a_directory_is_locked_for_others_while_a_block_runs(tmp_path):
    assert not is_locked(tmp_path)
    with locked(tmp_path):
        assert is_locked(tmp_path)
        with pytest.raises(RunError, match="is being trained by process unknown"), locked(tmp_path):
            pytest.fail("two at once")
    assert not is_locked(tmp_path)
    with locked(tmp_path):  # again
        pass


def test_a_look_at_the_lock_does_not_keep_a_training_from_starting(tmp_path, monkeypatch):
    monkeypatch.setattr(runs, "_LOOK_S", 30)
    look = filelock.FileLock(tmp_path / ".lock", thread_local=False)
    look.acquire()
    ended = threading.Event()

    def end_look():
        ended.set()
        look.release()

    end = threading.Timer(0.05, end_look)
    end.start()
    with locked(tmp_path):
        assert ended.is_set()  # is_locked may still say so for a moment after others can lock
    end.join()


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK, errno.EINVAL, errno.EIO, errno.EPERM])
def test_where_files_cannot_be_locked_a_warning_says_so_once(tmp_path, caplog, monkeypatch, number):
    import fcntl

    def refuses(*_):
        raise OSError(number, os.strerror(number))

    warn_once.cache_clear()
    monkeypatch.setattr(fcntl, "flock", refuses)
    for _ in range(2):
        with locked(tmp_path):
            assert not is_locked(tmp_path)
    (record,) = caplog.records
    assert record.getMessage() == (
        f"{tmp_path} lies where files cannot be locked: start only one training in it at a time"
    )


def test_without_locks_in_the_system_a_warning_says_so(tmp_path, caplog, monkeypatch):
    import filelock

    warn_once.cache_clear()
    monkeypatch.setattr(filelock, "FileLock", filelock.SoftFileLock)
    with warnings.catch_warnings(), locked(tmp_path):
        assert runs._lock(tmp_path) is None and not is_locked(tmp_path)
    assert caplog.text.count("start only one training in it at a time") == 1
    assert list(tmp_path.iterdir()) == []  # no lock file that a killed process would leave behind


def test_a_written_config_reads_back(tmp_path):
    config = resolve("r3gan", arguments={"label_smoothing": 0.1})
    (tmp_path / "run").mkdir()
    write_config(tmp_path / "run", config)
    assert open_run(tmp_path / "run").config == config


def test_a_relative_place_of_images_is_found_from_other_folders(tmp_path, monkeypatch):
    (tmp_path / "work" / "pictures").mkdir(parents=True)
    run = create_run(tmp_path / "run", CONFIG.replace(data="pictures", data_dir="pictures"))
    run.record(working_directory=str(tmp_path / "work"))
    monkeypatch.chdir(tmp_path / "work")
    assert open_run(run.directory).config.data_dir == "pictures"
    monkeypatch.chdir(tmp_path)
    assert open_run(run.directory).config.data_dir == str(tmp_path / "work" / "pictures")
    (tmp_path / "work" / "pictures").rmdir()
    assert open_run(run.directory).config.data_dir == "pictures"
