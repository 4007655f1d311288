"""Systems with less: no locks, no links, no fork, no directories that can be opened, paths with spaces.

Each is imitated in processes of their own, from which the thing is taken away before Gansmith is imported.
"""

import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import assert_same_run, flags

from gansmith.runs import open_run

# Statements that take something away.
WITHOUT = {
    "fcntl": "sys.modules['fcntl'] = None",
    "resource": "sys.modules['resource'] = None",
    "symbolic links": "os.symlink = pathlib.Path.symlink_to = refuse(errno.EPERM)",
    "hard links": "os.link = pathlib.Path.hardlink_to = refuse(errno.EPERM)",
    "flock": "import fcntl; fcntl.flock = refuse(errno.ENOSYS)",
    "flock on this file system": "import fcntl; fcntl.flock = refuse(errno.EOPNOTSUPP)",
    "permission to lock": "import fcntl; fcntl.flock = refuse(errno.EPERM)",
    "fork": "del os.fork, os.forkpty; multiprocessing.context._concrete_contexts.pop('fork')",
    "directories that can be opened": "os.open = but_no_directories(os.open); shutil._use_fd_functions = False",
    "flags of open": "del os.O_NOFOLLOW, os.O_DIRECTORY, os.O_CLOEXEC",
    "a number of usable cores": "del os.sched_getaffinity",
}
PRELUDE = """
import errno, multiprocessing.context, os, pathlib, shutil, signal, subprocess, sys

def refuse(number):
    def refused(*arguments, **options):
        raise OSError(number, os.strerror(number))
    return refused

def but_no_directories(open_):
    def opened(path, *arguments, **options):
        if os.path.isdir(path):
            raise PermissionError(errno.EACCES, 'Permission denied', str(path))
        return open_(path, *arguments, **options)
    return opened

def die_before_renaming_to(name):
    rename = os.replace
    def renamed(source, target):
        if pathlib.Path(target).name == name:
            os.kill(os.getpid(), signal.SIGKILL)
        return rename(source, target)
    os.replace = renamed
"""
COMMANDS = """
from gansmith.cli import main
for words in {commands!r}:
    sys.argv = ['gansmith', *words]
    try:
        main()
    except SystemExit as end:
        if end.code:
            raise
"""
NO_LOCK = {"fcntl", "flock", "flock on this file system", "permission to lock"}
# As far as Linux can pass for it.
WINDOWS = tuple(name for name in WITHOUT if "import fcntl" not in WITHOUT[name])


def gansmith(*commands, without=(), dies_at=None, cwd=None):
    """Run commands in one new process that lacks things; it may kill itself in the middle of saving a checkpoint."""
    statements = [WITHOUT[name] for name in without]
    if dies_at is not None:
        statements.append(f"die_before_renaming_to('{dies_at:09d}')")
    texts = [[str(word) for word in words] for words in commands]
    code = "\n".join([PRELUDE, *statements, COMMANDS.format(commands=texts)])
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=cwd, env=environment)


def uses(run, out):
    """What follows training: samples, a verdict, exports."""
    return [
        ["sample", run, "--count", 7, "--out", out / "samples.npz"],
        ["sample", run, "--count", 7, "--out", out / "grid.png"],
        ["evaluate", run, "--quick", "--count", 200],
        ["export", run, "--format", "safetensors", "--format", "onnx", "--out", out / "exports"],
        ["sample", out / "exports" / "generator.onnx", "--count", 7, "--out", out / "onnx.npz"],
        ["diagnose", run],
    ]


@pytest.fixture(scope="module")
def whole(tmp_path_factory, digit_dir):
    """A run on this system as it is, and what follows it."""
    folder = tmp_path_factory.mktemp("whole")
    done = gansmith(train_words(folder / "run", digit_dir), *uses(folder / "run", folder), cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder


def train_words(run, digit_dir):
    return ["train", "mlp-small", *flags(data_dir=digit_dir, trackers="tensorboard"), "--out", run]


@pytest.mark.parametrize(
    "without",
    [pytest.param((name,), id=name, marks=pytest.mark.slow) for name in WITHOUT]
    + [
        pytest.param(WINDOWS, id="all that Windows lacks", marks=pytest.mark.slow),
        pytest.param(
            ("flock on this file system", "symbolic links", "hard links"),
            id="a FAT or network disk",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_a_run_that_is_killed_goes_on_and_is_used_without(without, whole, digit_dir, tmp_path):
    words = train_words(tmp_path / "run", digit_dir)
    killed = gansmith(words, without=without, dies_at=192, cwd=tmp_path)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    before = open_run(tmp_path / "run")
    assert before.latest().name == "000000128" and before.log[-1]["images_seen"] == 192
    done = gansmith(["resume", tmp_path / "run"], *uses(tmp_path / "run", tmp_path), without=without, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    warnings = done.stderr.splitlines()
    if NO_LOCK & set(without):  # once in a process, and nothing else
        assert len(warnings) == 1 and "start only one training in it at a time" in warnings[0]
        assert killed.stderr.count("start only one training in it at a time") == 1
    else:
        assert warnings == []
    expected, found = open_run(whole / "run"), open_run(tmp_path / "run")
    for run in (expected, found):  # `evaluate` has added its verdict, with a time of its own
        (run.directory / "metrics.jsonl").write_text(
            "".join(line for line in run.metrics_path.read_text().splitlines(True) if '"fd_ratio"' not in line)
        )
    assert_same_run(expected, found)
    assert (found.directory / "best.json").read_bytes() == (expected.directory / "best.json").read_bytes()
    assert not list(found.directory.rglob(".partial-*")) and not any(p.is_symlink() for p in found.directory.rglob("*"))
    for name in ("samples.npz", "onnx.npz"):
        with np.load(tmp_path / name) as ours, np.load(whole / name) as theirs:
            np.testing.assert_array_equal(ours["images"], theirs["images"])
    assert (tmp_path / "grid.png").read_bytes() == (whole / "grid.png").read_bytes()
    assert {p.name for p in (tmp_path / "exports").iterdir()} == {p.name for p in (whole / "exports").iterdir()}


def test_what_is_taken_away_is_missing(tmp_path):
    """Each statement does what its name says: the tests above could fail."""
    probes = {
        "fcntl": "import fcntl",
        "resource": "import resource",
        "symbolic links": "pathlib.Path('a').symlink_to('b')",
        "hard links": "open('a', 'w').close(); os.link('a', 'c')",
        "flock": "fcntl.flock(os.open('d', os.O_CREAT | os.O_RDWR), fcntl.LOCK_EX)",
        "flock on this file system": "fcntl.flock(os.open('d', os.O_CREAT | os.O_RDWR), fcntl.LOCK_EX)",
        "permission to lock": "fcntl.flock(os.open('d', os.O_CREAT | os.O_RDWR), fcntl.LOCK_EX)",
        "fork": "multiprocessing.get_context('fork')",
        "directories that can be opened": "os.open('.', os.O_RDONLY)",
        "flags of open": "os.O_NOFOLLOW",
        "a number of usable cores": "os.sched_getaffinity(0)",
    }
    assert probes.keys() == WITHOUT.keys()
    for k, (name, probe) in enumerate(probes.items()):
        for statement, code in (("", 0), (WITHOUT[name], 1)):
            place = tmp_path / f"{k}-{code}"
            place.mkdir()
            text = "\n".join([PRELUDE, "import fcntl, multiprocessing", statement, probe])
            done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, cwd=place)
            assert done.returncode == code, (name, done.stderr)
        assert done.stderr.splitlines()[-1].split(":")[0] in (
            "ModuleNotFoundError", "PermissionError", "OSError", "ValueError", "AttributeError",
        ), done.stderr  # fmt: skip


# Paths with spaces.


def printed(text, start):
    """The command that a line prints after some words."""
    (line,) = [line for line in text.splitlines() if start in line]
    return line.split(start, 1)[1].strip()


@pytest.mark.slow
def test_printed_commands_run_as_they_are(digit_dir, tmp_path):
    run = tmp_path / "it's; my $HOME runs" / "first"
    run.parent.mkdir()
    done = gansmith([*train_words(run, digit_dir)], cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    for start in ("more samples", "evaluate  "):
        command = printed(done.stdout, start)
        assert shlex.split(command)[0] == "gansmith"
        ran = subprocess.run(command, shell=True, capture_output=True, text=True, cwd=tmp_path, env=environment)
        assert ran.returncode == 0, ran.stderr
    assert (tmp_path / "more.png").is_file() and "fd_ratio" in open_run(run).metrics[-1]


@pytest.mark.slow
def test_a_run_that_was_renamed_with_a_space_is_continued_by_the_printed_command(digit_dir, tmp_path):
    assert gansmith(train_words(tmp_path / "run", digit_dir), dies_at=192, cwd=tmp_path).returncode == -signal.SIGKILL
    renamed = (tmp_path / "run").rename(tmp_path / "my first run")
    diagnosed = gansmith(["diagnose", renamed], cwd=tmp_path)
    command = shlex.split(printed(diagnosed.stdout, "images with:"))
    assert command == ["gansmith", "resume", str(renamed)]
    done = gansmith(command[1:], cwd=tmp_path)
    assert done.returncode == 0 and open_run(renamed).facts()["status"] == "finished", done.stderr


def test_a_full_disk_prints_a_command_that_continues(tmp_path, tiny, monkeypatch):
    from gansmith.errors import TrainingFailed
    from gansmith.runs import create_run
    from gansmith.training import chores, loop
    from gansmith.training.inputs import load_training_data

    config, data = load_training_data(tiny("mlp-small"))
    run = create_run(tmp_path / "my runs" / "run", config)

    def full(*_, **__):
        raise OSError(28, "No space left on device", str(run.directory / "checkpoints" / "000000064"))

    monkeypatch.setattr(chores, "save_checkpoint", full)
    with pytest.raises(TrainingFailed) as failed:
        list(loop.train_events(run, data))
    command = shlex.split(printed(str(failed.value), "then continue with:"))
    assert command == ["gansmith", "resume", str(run.directory)]
