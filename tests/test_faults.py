"""What is said, and what is left, where the output, files or the directory of a run go missing."""

import os
import shlex
import shutil
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

import gansmith as gs
from gansmith import files, runs
from gansmith.config import resolve
from gansmith.errors import ConfigError, DataError, RunError, TrainingFailed
from gansmith.training.loop import _save_failed

WORDS = ("train", "mlp-small", "--images", "640", "--limit-images", "100", "--trackers", "none", "--g-width", "8")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    pixels = np.random.default_rng(0).integers(0, 256, (80, 8, 8), "uint8")
    folder = tmp_path_factory.mktemp("runs")
    choices = {
        "images": 128,
        "batch_size": 16,
        "trackers": "none",
        "save_every": 64,
        "log_every": 16,
        "progress": "none",
    }
    return gs.train("mlp-small", data=gs.Images(pixels, name="noise"), out=folder / "run", **choices)


@pytest.fixture
def copy(finished, tmp_path):
    return runs.open_run(shutil.copytree(finished.directory, tmp_path / "copy"))


@pytest.mark.skipif(not shutil.which("bash"), reason="has no bash")
@pytest.mark.parametrize("output", [pytest.param("head -1", marks=pytest.mark.slow), "cat > /dev/full"])
def test_a_training_goes_on_where_its_output_is_lost(tmp_path, output):
    command = shlex.join([sys.executable, "-m", "gansmith", *map(str, WORDS), "--out", str(tmp_path / "run")])
    line = f"{command} | {output}" if output.startswith("head") else f"{command} > /dev/full"
    found = subprocess.run(
        ["bash", "-o", "pipefail", "-c", line], capture_output=True, text=True, timeout=120, check=False
    )
    assert found.returncode == 0 and "output can no longer be written; training goes on" in found.stderr
    run = gs.open_run(tmp_path / "run")
    assert (run.status, run.images_seen) == ("finished", 640)


def test_lines_that_the_log_lacks_are_counted(copy):
    whole = gs.diagnose(copy.directory)
    assert whole["lost_lines"] == 0 and "log.jsonl lacks" not in repr(whole)
    lines = copy.log_path.read_text().splitlines(keepends=True)
    copy.log_path.write_text("".join(lines[3:]))
    assert "log.jsonl lacks 3 lines, in which failures may have been noted" in repr(gs.diagnose(copy.directory))
    copy.log_path.unlink()
    found = gs.diagnose(copy.directory)
    assert found["lost_lines"] == len(lines) and "no training failure was seen" not in repr(found)


def test_no_failure_is_not_called_success(copy):
    def said():
        return next(line for line in repr(gs.diagnose(copy.directory)).splitlines() if "no training failure" in line)

    assert said() == "no training failure was seen: fewer than 20 steps are too few to see any"
    rows = copy.log
    copy.log_path.write_text("")
    for row in rows:
        copy.append(copy.log_path, {"images_seen": row["images_seen"]})  # without health signals
    copy.append(copy.log_path, {"images_seen": 20 * copy.config.batch_size, "d_loss": 1.0, "g_loss": 1.0})
    assert said() == "no training failure was seen"
    gate = {"ok": False, "figure": "coverage", "value": 0.5, "limit": 0.8, "meaning": "modes are missing"}
    verdict = {"tier": "full", "fd_ratio": None, "fd_ratios": {}, "metrics": {}, "valid": False, "n": 10}
    row = {**verdict, "images_seen": copy.images_seen, "gates": {"coverage": gate}, "data": copy.config.data}
    copy.append(copy.metrics_path, row)
    assert said() == "no training failure was seen, but: INVALID: no FD ratio; failed: coverage"


def test_where_no_checkpoint_is_whole_the_advice_can_be_followed(copy):
    first, newest = sorted((copy.directory / "checkpoints").iterdir())
    (first / "state.json").write_text("{")
    (newest / "generator.safetensors").write_bytes(b"")
    with pytest.raises(DataError, match=f"give the file {first / 'generator.safetensors'}"):
        gs.load(copy.directory)
    assert gs.load(first / "generator.safetensors").sample(1).images.shape == (1, 8, 8, 1)
    (first / "generator.safetensors").write_bytes(b"")
    with pytest.raises(DataError, match=f"restore one, or remove {first.parent} to start again"):
        gs.load(copy.directory)


def test_a_run_that_was_removed_needs_no_room(tmp_path):
    run = runs.create_run(tmp_path / "run", resolve("mlp-small"))
    full = _save_failed(run, OSError(28, "No space left on device", str(run.log_path)))
    assert isinstance(full, TrainingFailed) and "make room, then continue" in str(full)
    folder = _save_failed(run, IsADirectoryError(21, "Is a directory", str(run.directory / ".partial-best.json")))
    assert f"remove the folder {run.directory / 'best.json'}" in str(folder)
    lost = _save_failed(run, FileNotFoundError(2, "No such file or directory", str(run.samples_dir / "1.png")))
    assert "keep others from removing what it writes, then continue" in str(lost)
    locked = _save_failed(run, OSError(30, "Read-only file system", str(run.log_path)))
    assert "see that its drive is there and can be written, then continue" in str(locked)
    shutil.rmtree(run.directory)
    gone = _save_failed(run, FileNotFoundError(2, "No such file or directory", str(run.log_path)))
    assert str(gone) == f"{run.directory} was removed while it trained, and nothing of it is left; train again"


def test_a_folder_that_looks_empty_takes_a_run(tmp_path):
    for name in (".DS_Store", "desktop.ini", "._a"):
        (tmp_path / name).write_bytes(b"x")
    runs.refuse_occupied(tmp_path)
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / ".DS_Store").write_bytes(b"x")
    assert not runs.holds_run(tmp_path)
    (tmp_path / "letter.txt").write_bytes(b"x")
    with pytest.raises(RunError, match="is not empty and holds no run"):
        runs.refuse_occupied(tmp_path)


def test_what_another_program_has_open_is_asked_for_again(tmp_path, monkeypatch):
    refusals, replace = [PermissionError(13, "held")] * 2, os.replace

    def held(old, new):
        if refusals:
            raise refusals.pop()
        replace(old, new)

    monkeypatch.setattr(files, "_TRIES", 3)
    monkeypatch.setattr(files, "RETRY_S", 0.0)
    monkeypatch.setattr(os, "replace", held)
    (tmp_path / "a").write_bytes(b"x")
    files.put(tmp_path / "a", tmp_path / "b")
    assert (tmp_path / "b").read_bytes() == b"x" and not refusals


@pytest.mark.parametrize(("name", "words"), [("-dash", "dashes after the first"), ("ü", r"letters \(a to z\)")])
def test_names_that_commands_could_not_take_are_refused(tmp_path, name, words):
    with pytest.raises(RunError, match=words):
        runs.refuse_occupied(tmp_path / name)


def test_a_wrong_value_says_where_it_comes_from(tmp_path):
    (tmp_path / "mine.toml").write_text('seed = "x"\n')
    with pytest.raises(ConfigError, match=r"mine\.toml: seed is 'x'"):
        resolve("mlp-small", file=tmp_path / "mine.toml")
    with pytest.raises(ConfigError, match="GANSMITH_SEED: seed is 'abc'"):
        resolve("mlp-small", environ={"GANSMITH_SEED": "abc"})
    assert resolve("mlp-small", environ={"GANSMITH_SEED": ""}).seed == 0
    with pytest.raises(ConfigError, match="^seed is 'abc'"):
        resolve("mlp-small", arguments={"seed": "abc"})


def test_a_path_that_is_too_long_is_said(gansmith, tmp_path):
    code, _, err = gansmith("train", "mlp-small", "--images", "64", "--out", tmp_path / ("y" * 300))
    assert code == 2 and "the path is too long" in err and err.count("\n") == 1


def test_neighbours_are_of_the_images_that_a_run_was_trained_on(tmp_path):
    folder = tmp_path / "set"
    folder.mkdir()
    for k in range(2):
        np.savez(folder / "x.npz", images=np.random.default_rng(k).integers(0, 256, (60, 8, 8), "uint8"))
        if k == 0:
            choices = {"images": 64, "progress": "none", "trackers": "none"}
            run = gs.train("mlp-small", data=folder / "x.npz", out=tmp_path / "run", **choices)
            assert gs.plot(run, "neighbours").is_file()
            few = gs.train("mlp-small", data=folder / "x.npz", out=tmp_path / "few", limit_images=3, **choices)
            with Image.open(gs.plot(few, "neighbours")) as picture:  # ten samples, each with all three
                assert picture.width * 10 == picture.height * 4
    with pytest.raises(DataError, match="holds other images than .* was trained on"):
        gs.plot(run, "neighbours")


@pytest.mark.parametrize("text", ["[1, 2]", "seed = ", None])
def test_choices_that_are_lost_or_damaged_are_those_of_the_checkpoint(copy, text, caplog):
    path = copy.directory / "config.toml"
    path.unlink() if text is None else path.write_text(text)
    assert runs.open_run(copy.directory).config == copy.config
    assert f"{path} is {'missing' if text is None else 'damaged'}" in caplog.text
    shutil.rmtree(copy.directory / "checkpoints")
    path.write_text("[1, 2]")
    with pytest.raises(ConfigError, match="is not valid TOML"):
        runs.open_run(copy.directory)
