"""A run survives what happens to runs: kills, full disks, damaged files, and hands that edit them."""

import itertools
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import CHECKPOINT_FILES, TINY, assert_same_run, flags, log_without_times, train_all, wait_until, write_set

from gansmith.checkpoints import load_checkpoint
from gansmith.config import resolve
from gansmith.errors import RunError, TrainingFailed
from gansmith.recipes import RECIPES
from gansmith.runs import RunDirectory, create_run, is_locked, locked, open_run
from gansmith.training import chores, loop
from gansmith.training.inputs import load_training_data
from gansmith.training.loop import train_events


def start(*words):
    """The command line in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "gansmith", *map(str, words)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )


def fork(directory, config, data, *, dies_at=None):
    """The id of a new process that trains here; the same as the command line, without its seconds of start-up.

    At `dies_at`, counted over what it asks the disk to keep or to rename, it kills itself: in the middle of a save.
    """
    child = os.fork()
    if child == 0:
        if dies_at is not None:
            moments = itertools.count(1)

            def or_die(call):
                return lambda *args: os.kill(os.getpid(), signal.SIGKILL) if next(moments) == dies_at else call(*args)

            os.fsync, os.replace = or_die(os.fsync), or_die(os.replace)
        try:
            train_all(create_run(directory, config), data)
        finally:
            os._exit(0)
    return child


def is_saving(directory):
    return bool(list((directory / "checkpoints").glob(".partial-*")))


def kill_at_random(directory, kill, is_running, draw, longest_s):
    """SIGKILL a trainer at a random moment, every second time in the middle of a save; whether it was saving."""
    while not is_locked(directory) and is_running():
        time.sleep(0.001)
    if draw.random() < 0.5:
        while is_running() and not is_saving(directory):
            pass
        time.sleep(draw.uniform(0, 0.005))
    else:
        time.sleep(draw.uniform(0, longest_s))
    kill()
    return is_saving(directory)


@pytest.mark.parametrize(
    ("recipe", "in_saves", "at_random"),
    [("mlp-small", 12, 6), *(pytest.param(recipe, 15, 15, marks=pytest.mark.slow) for recipe in RECIPES)],
)
def test_kills_in_a_save_and_at_random_moments_change_nothing(
    recipe, in_saves, at_random, tiny, run_training, tmp_path
):
    """Of processes forked from this one, which makes no thread."""
    config, data = load_training_data(tiny(recipe, images=512, log_every=16, save_every=32, evaluate_every=512))
    started_at = time.monotonic()
    whole = run_training(config, "whole")
    longest_s = (time.monotonic() - started_at) / 8
    directory, draw, torn = tmp_path / "killed", random.Random(0), 0
    for moment in range(1, 2 * in_saves, 2):  # the first start takes some 15, a save 7 to 10
        child = fork(directory, config, data, dies_at=moment)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
        torn += is_saving(directory)
    assert torn > 2
    for _ in range(at_random):
        child = fork(directory, config, data)
        time.sleep(draw.uniform(0, longest_s))
        os.kill(child, signal.SIGKILL)  # a child that has finished waits to be asked for
        os.waitpid(child, 0)
    run = create_run(directory, config)
    train_all(run, data)
    assert_same_run(whole, run)
    lines = [row["images_seen"] for row in run.log if "d_loss" in row]  # failures stand between
    assert lines == list(range(16, 513, 16))
    assert not list(directory.rglob(".partial-*"))


@pytest.mark.slow
@pytest.mark.parametrize("recipe", ["default", "mlp-small", "dcgan-sgd"])
def test_thirty_kills_of_the_command_change_nothing(recipe, digit_dir, tmp_path):
    words = flags(data_dir=digit_dir, images=2048, save_every=16, log_every=16)
    whole = start("train", recipe, *words, "--out", tmp_path / "whole")
    whole.communicate()
    directory, draw = tmp_path / "killed", random.Random(1)
    torn = 0
    for _ in range(30):
        process = start("train", recipe, *words, "--out", directory)
        torn += kill_at_random(
            directory, process.kill, is_running=lambda p=process: p.poll() is None, draw=draw, longest_s=1.0
        )
        process.communicate()
    assert torn > 5
    last = start("train", recipe, *words, "--out", directory)
    assert last.communicate()[1] == "" and last.returncode == 0
    assert_same_run(open_run(tmp_path / "whole"), open_run(directory))
    lines = [row["images_seen"] for row in open_run(directory).log if "d_loss" in row]  # failures stand between
    assert lines == list(range(16, 2049, 16))


@pytest.fixture(scope="session")
def originals(tmp_path_factory, digit_dir):
    """A run cut off at 160 of 256 images, its newest checkpoints at 64 and 128, and the whole one beside it."""
    config = resolve("mlp-small", arguments={**TINY, "data_dir": str(digit_dir)})
    config, data = load_training_data(config)
    folder = tmp_path_factory.mktemp("originals")
    train_all(create_run(folder / "whole", config), data)
    train_all(create_run(folder / "half", config), data, until=160)
    return folder, data


@pytest.fixture
def half(originals, tmp_path):
    """Copies of both: the half run, its data, the whole run."""
    folder, data = originals
    shutil.copytree(folder, tmp_path / "runs", symlinks=True)
    return open_run(tmp_path / "runs" / "half"), data, open_run(tmp_path / "runs" / "whole")


@pytest.mark.parametrize(
    ("damage", "file"),
    [
        *(("flip", file) for file in CHECKPOINT_FILES),
        ("cut", "generator.safetensors"),
        ("empty", "state.json"),
        ("remove", "state.safetensors"),
        ("link", "generator.safetensors"),
        *(
            pytest.param(damage, file, marks=pytest.mark.slow)
            for damage in ("cut", "empty", "remove", "link")
            for file in CHECKPOINT_FILES
        ),
    ],
)
def test_a_run_goes_on_from_the_checkpoint_before_a_damaged_one(half, caplog, tmp_path, file, damage):
    run, data, whole = half
    path = run.latest() / file
    content = path.read_bytes()
    if damage == "flip":
        path.write_bytes(
            content[: len(content) // 2] + bytes([content[len(content) // 2] ^ 1]) + content[len(content) // 2 + 1 :]
        )
    elif damage == "cut":
        path.write_bytes(content[: len(content) // 2])
    elif damage == "empty":
        path.write_bytes(b"")
    elif damage == "remove":
        path.unlink()
    else:
        (tmp_path / "elsewhere").write_bytes(content)
        path.unlink()
        path.symlink_to(tmp_path / "elsewhere")
        with pytest.raises(RunError, match="leads out of the run"):
            open_run(run.directory)
        return
    assert run.latest().name == "000000064"
    assert [record.message for record in caplog.records] == [
        next(
            record.message for record in caplog.records if str(path.parent) in record.message and file in record.message
        )
    ]
    train_all(open_run(run.directory), data)
    assert_same_run(whole, run)


def test_every_flipped_bit_of_the_counters_is_noticed(half):
    run, _, _ = half
    path = run.latest() / "state.json"
    content = path.read_bytes()

    def counters():
        return {key: value for key, value in load_checkpoint(path.parent)[2].items() if key != "sha256"}

    before, draw = counters(), random.Random(0)
    for position in draw.sample(range(len(content)), 80):
        path.write_bytes(
            content[:position] + bytes([content[position] ^ (1 << draw.randrange(8))]) + content[position + 1 :]
        )
        try:
            assert run.latest().name == "000000064" or counters() == before, position
        except RunError as refusal:
            assert "format" in str(refusal)


@pytest.mark.parametrize(
    "name", ["log.jsonl", "metrics.jsonl", "run.json", "config.toml", "best.json", "real.png", ".lock"]
)
def test_a_deleted_file_costs_only_itself(half, name, caplog):
    run, data, whole = half
    (run.directory / name).unlink()
    train_all(create_run(run.directory, run.config), data)
    for file in CHECKPOINT_FILES[:2]:
        assert (run.latest() / file).read_bytes() == (whole.latest() / file).read_bytes()
    if name == "log.jsonl":
        assert "lacks 4 of 4 lines" in caplog.text
        assert [row["images_seen"] for row in run.log] == [160, 192, 224, 256]
    else:
        assert log_without_times(run) == log_without_times(whole)
    if name == "config.toml":
        assert "its choices are those of checkpoint 000000128" in caplog.text
        assert (run.directory / name).read_bytes() == (whole.directory / name).read_bytes()


def test_clocks_do_not_matter(half):
    run, data, whole = half
    for path in run.directory.rglob("*"):
        os.utime(path, (2e9, 2e9))  # as if the clock ran ahead then
    train_all(run, data)
    assert_same_run(whole, run)


def test_an_edited_config_is_refused_or_taken_as_an_extension(half, gansmith):
    run, _, _ = half
    path = run.directory / "config.toml"
    text = path.read_text()
    path.write_text(text.replace("batch_size = 16", "batch_size = 32"))
    code, _, err = gansmith("resume", run.directory)
    assert code == 2 and "batch_size 16 -> 32" in err and "config.toml" in err
    path.write_text(text.replace("images = 256", "images = 320"))
    assert gansmith("resume", run.directory)[0] == 0
    config = open_run(run.directory).config
    assert (config.images, config.schedule_images) == (320, 256)
    path.write_text("batch_size =")
    code, _, err = gansmith("resume", run.directory)
    assert code == 2 and "not valid TOML" in err


def test_changed_data_are_refused_with_both_hashes(half, gansmith, digits, tmp_path):
    run, data, _ = half
    moved = write_set(tmp_path / "moved", *digits)
    config = run.directory / "config.toml"
    images = digits[0].copy()
    images[7, 3, 3] ^= 1
    write_set(Path(run.config.data_dir), images, digits[1])
    try:
        code, _, err = gansmith("resume", run.directory)
        assert code == 2 and data.data_sha256 in err and load_training_data(run.config)[1].data_sha256 in err
        assert not is_locked(run.directory)
    finally:
        write_set(Path(run.config.data_dir), *digits)
    assert moved.is_dir() and config.is_file()
    assert gansmith("resume", run.directory)[0] == 0


def test_other_versions_are_warned_of(half, caplog):
    run, data, whole = half
    facts = run.facts()
    run.record(versions=facts["versions"] | {"torch": "1.0"})
    train_all(run, data)
    assert "not bit for bit" in caplog.text and "'torch': '1.0'" in caplog.text
    assert run.facts()["versions"] == facts["versions"]


def test_unfinished_files_are_removed(half):
    run, data, whole = half
    (run.directory / ".partial-best.json").write_text("{")
    (run.directory / "checkpoints" / ".partial-000000160").mkdir()
    train_all(run, data)
    assert_same_run(whole, run)
    assert not list(run.directory.rglob(".partial-*"))


@pytest.mark.parametrize("damage", ["missing", "cut", "another", "no object"])
def test_a_best_checkpoint_that_was_not_recorded_is_recorded_at_the_next_start(half, damage):
    run, data, whole = half
    path = run.directory / "best.json"
    assert run.best().name == "000000128"
    if damage == "missing":
        path.unlink()
    else:
        text = {"cut": '{"checkpo', "another": '{"checkpoint": "../000000064"}', "no object": "[]"}[damage]
        path.write_text(text)
    assert run.best() is None
    train_all(run, data, until=160)
    assert run.best().name == "000000128"
    train_all(run, data)
    assert path.read_bytes() == (whole.directory / "best.json").read_bytes()


def test_a_copy_goes_on(half, tmp_path):
    run, data, whole = half
    copy = RunDirectory(shutil.copytree(run.directory, tmp_path / "copy", symlinks=False), run.config)
    assert copy.best().name == run.best().name
    train_all(copy, data)
    assert_same_run(whole, copy)
    assert (copy.directory / "best.json").read_bytes() == (whole.directory / "best.json").read_bytes()


def test_without_a_whole_checkpoint_nothing_is_thrown_away(half, gansmith):
    run, _, _ = half
    for path in run.checkpoints():
        (path / "state.json").write_text("{}")
    before = run.log_path.read_bytes()
    code, _, err = gansmith("resume", run.directory)
    assert code == 2 and "no checkpoint" in err.splitlines()[-1]
    assert run.log_path.read_bytes() == before


def test_the_second_trainer_is_refused(half, gansmith):
    run, data, _ = half
    run.record(status="stopped")
    child = fork(run.directory, run.config.replace(images=10**9), data)
    try:
        wait_until(lambda: run.facts().get("status") == "running")
        before = (run.directory / "run.json").read_bytes()
        code, _, err = gansmith("resume", run.directory, "--images", "20M")
        assert code == 2 and f"process {child}" in err
        assert (run.directory / "run.json").read_bytes() == before
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    with locked(run.directory):  # the kernel has taken the lock back
        pass


def test_a_full_disk_keeps_the_checkpoint_before(half, tmp_path):
    run, data, whole = half
    limit = sum((run.latest() / file).stat().st_size for file in CHECKPOINT_FILES) // 3
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))  # no file may grow beyond it, as on a full disk
    try:
        with pytest.raises(TrainingFailed, match=r"checkpoint of 128 images is intact; make room, .* gansmith resume"):
            train_all(run, data)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not list(run.directory.rglob(".partial-*"))
    assert run.facts()["status"] == "failed"
    train_all(run, data)
    assert_same_run(whole, run)
    assert run.facts()["status"] == "finished" and run.facts()["reason"] is None


@pytest.fixture
def small_disk(tmp_path):
    """A file system of two megabytes; skipped where this process may not mount one."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if os.geteuid() or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "none", folder]).returncode:
        pytest.skip("needs the right to mount a file system")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


def test_a_disk_without_room_is_noticed_before_a_save(small_disk, tiny, gansmith):
    config, data = load_training_data(tiny("mlp-small", keep_last=1))
    run = create_run(small_disk / "run", config)
    train_all(run, data, until=96)
    (small_disk / "filler").write_bytes(bytes(shutil.disk_usage(small_disk).free - 100_000))
    code, _, err = gansmith("resume", run.directory)
    assert code == 1 and "MB free" in err and "checkpoint of 64 images is intact" in err
    (small_disk / "filler").unlink()
    assert gansmith("resume", run.directory)[0] == 0
    assert {path.name for path in run.checkpoints()} == {run.best().name, "000000256"}


def test_a_read_only_directory_is_refused(half, gansmith):
    run, _, _ = half
    if os.geteuid():
        run.directory.chmod(0o500)
        (run.directory / ".lock").chmod(0o400)
    elif subprocess.run(["mount", "--bind", run.directory, run.directory]).returncode:
        pytest.skip("root ignores permissions, and may not mount here")
    else:
        subprocess.run(["mount", "-o", "remount,ro,bind", run.directory], check=True)
    try:
        before = {path: path.read_bytes() for path in run.directory.rglob("*") if path.is_file()}
        code, _, err = gansmith("resume", run.directory)
        assert code == 2 and "cannot be written" in err and len(err.splitlines()) == 1
        assert before == {path: path.read_bytes() for path in run.directory.rglob("*") if path.is_file()}
    finally:
        if os.geteuid():
            run.directory.chmod(0o700)
        else:
            subprocess.run(["umount", "--lazy", run.directory], check=True)


def test_a_second_interrupt_quits_at_once(half, gansmith, monkeypatch):
    run, _, _ = half

    def interrupted_twice(*arguments):
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGINT)
        pytest.fail("the second interrupt was only noted")

    monkeypatch.setattr(loop, "take_step", interrupted_twice)
    assert gansmith("resume", run.directory)[::2] == (130, "")
    assert run.latest().name == "000000128" and not is_locked(run.directory)


def test_retention_keeps_the_newest_the_best_and_milestones(tiny, run_training):
    run = run_training(tiny("mlp-small", save_every=16, keep_last=2, keep_every=100), "run")
    kept = [path.name for path in run.checkpoints()]
    assert set(kept) == {"000000112", "000000208", "000000240", "000000256", run.best().name}


def test_a_save_for_safety_lasts_until_the_next(tiny, run_training, monkeypatch):
    whole = run_training(tiny("mlp-small", save_every=128), "whole")
    monkeypatch.setattr(chores, "SAFETY_S", 0.0)
    run = create_run(whole.directory.parent / "safe", whole.config)
    seen = []
    for event in train_events(run, load_training_data(whole.config)[1]):
        if event.kind == "checkpoint":
            seen.append(Path(event.path).name)
    assert seen == [f"{images:09d}" for images in range(16, 257, 16)]
    assert [path.name for path in run.checkpoints()] == [path.name for path in whole.checkpoints()]
    assert_same_run(whole, run)


@pytest.mark.slow
def test_a_save_for_safety_goes_after_a_kill_too(tiny, run_training, monkeypatch):
    whole = run_training(tiny("mlp-small", save_every=128), "whole")
    monkeypatch.setattr(chores, "SAFETY_S", 0.0)
    run, data = create_run(whole.directory.parent / "safe", whole.config), load_training_data(whole.config)[1]
    first = train_events(run, data, command=["gansmith", "train", "a b"])
    while not any(path.name == "000000048" for path in run.checkpoints()):
        next(first)
    first.close()
    for _ in train_events(run, data, command=["gansmith", "resume"]):
        pass
    assert [path.name for path in run.checkpoints()] == [path.name for path in whole.checkpoints()]
    assert_same_run(whole, run)
    facts = run.facts()
    assert facts["command"] == ["gansmith", "train", "a b"]
    assert [start["command"] for start in facts["starts"]] == [facts["command"], ["gansmith", "resume"]]


def test_a_link_out_of_a_run_is_refused(half, tmp_path):
    run, _, _ = half
    (tmp_path / "diary").write_text("dear diary")
    run.log_path.unlink()
    run.log_path.symlink_to(tmp_path / "diary")
    with pytest.raises(RunError, match="leads out of the run"):
        create_run(run.directory, run.config)
    assert (tmp_path / "diary").read_text() == "dear diary"


@pytest.mark.parametrize("name", ["a run", "x" * 65, "r;n", "caf\u00e9"])
def test_names_of_runs_are_plain(tmp_path, tiny, name):
    with pytest.raises(RunError, match="cannot name a run"):
        create_run(tmp_path / name, tiny())
    assert not (tmp_path / name).exists()


def test_a_start_killed_at_once_is_no_obstacle(tmp_path, tiny):
    for part in (".lock", ".partial-config.toml"):
        (tmp_path / "run").mkdir(exist_ok=True)
        (tmp_path / "run" / part).write_text("")
    (tmp_path / "run" / "checkpoints").mkdir()
    assert create_run(tmp_path / "run", tiny()).config == tiny()
