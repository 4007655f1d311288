"""Trackers receive every row once, and none of them can harm a run."""

import json
import logging
import resource
import signal
import struct
import subprocess
import sys

import pytest
from conftest import flags, wait_until

from gansmith.config import resolve
from gansmith.errors import ConfigError, TrainingFailed
from gansmith.events import Logged
from gansmith.runs import create_run, open_run
from gansmith.training.inputs import load_training_data
from gansmith.training.loop import train_events
from gansmith.training.trackers import TRACKERS, _identity, parse_trackers, tracked


def follow(config, directory, *, stop_after=None):
    """Train as the command line does: with the trackers of the config."""
    config, data = load_training_data(config.replace(trackers=config.trackers or "tensorboard"))
    run, seen = create_run(directory, config), []
    for event in tracked(run, train_events(run, data, stop=lambda: len(seen) == stop_after)):
        seen.append(event)
    return run


def events(run):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    reader = EventAccumulator(str(run.directory), size_guidance={"scalars": 0, "images": 0})
    reader.Reload()
    return reader


def assert_agrees(run):
    reader = events(run)
    for name in ("d_loss", "g_loss", "images_per_s"):
        expected = [(row["images_seen"], pytest.approx(row[name], rel=1e-6)) for row in run.log if name in row]
        assert [(event.step, event.value) for event in reader.Scalars(name)] == expected and expected
    expected = [(row["images_seen"], pytest.approx(row["validation_fd_ratio"], rel=1e-6)) for row in run.metrics]
    assert [(event.step, event.value) for event in reader.Scalars("score/validation_fd_ratio")] == expected and expected
    frames = [int(path.stem) for path in sorted(run.samples_dir.glob("*.png"))]
    assert [event.step for event in reader.Images("samples")] == frames and frames
    first = reader.Images("samples")[0]
    assert (first.width, first.height) == (280, 224)


def test_tensorboard_reads_what_the_run_logged(tiny, tmp_path):
    assert_agrees(follow(tiny(), tmp_path / "run"))


def test_a_resumed_run_is_recorded_once(tiny, tmp_path):
    run = follow(tiny(), tmp_path / "run", stop_after=6)
    assert run.log[-1]["images_seen"] < 256
    run = follow(tiny(), tmp_path / "run")
    assert run.log[-1]["images_seen"] == 256
    assert_agrees(run)
    assert len(list(run.directory.glob("events.out.tfevents.*"))) == 1


@pytest.mark.slow
def test_a_killed_run_is_recorded_once(tmp_path, digit_dir):
    directory = tmp_path / "run"
    words = flags(
        images=1600, save_every=320, sample_every=500, evaluate_every=1000, data_dir=digit_dir, trackers="tensorboard"
    )
    command = [sys.executable, "-m", "gansmith", "train", "--out", str(directory), "--progress", "json", *words]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    for line in process.stdout:
        if '"images_seen": 800' in line:
            break
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert open_run(directory).log[-1]["images_seen"] >= 800
    done = subprocess.run([sys.executable, "-m", "gansmith", "resume", directory], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    run = open_run(directory)
    assert run.log[-1]["images_seen"] == 1600
    assert_agrees(run)


class Broken:
    """A tracker that fails at its second message, as with a full disk or a lost server."""

    def __init__(self, run):
        self.messages = 0

    def numbers(self, images_seen, values):
        self.messages += 1
        if self.messages == 2:
            raise ConnectionError("the server is gone")

    picture = numbers

    def close(self, status):
        raise AssertionError("a dropped tracker was called")


def test_a_failing_tracker_warns_once_and_the_run_goes_on(tiny, tmp_path, monkeypatch, caplog):
    monkeypatch.setitem(TRACKERS, "broken", Broken)
    with caplog.at_level(logging.WARNING, "gansmith"):
        run = follow(tiny(trackers="broken, tensorboard"), tmp_path / "run")
    warnings = [record.getMessage() for record in caplog.records if "tracker" in record.getMessage()]
    assert warnings == ["the broken tracker failed and is dropped (the server is gone); training goes on"]
    assert_agrees(run)


def test_a_missing_package_is_named_and_the_run_goes_on(tiny, tmp_path, monkeypatch, caplog):
    monkeypatch.setitem(sys.modules, "mlflow", None)
    with caplog.at_level(logging.WARNING, "gansmith"):
        follow(tiny(trackers="mlflow"), tmp_path / "run")
    assert "pip install 'gansmith[mlflow]'" in caplog.text


def test_unknown_trackers_are_refused_before_anything_is_written(gansmith, tmp_path, digit_dir):
    code, _, err = gansmith("train", "--trackers", "tensorbord", "--out", tmp_path / "run", "--data-dir", digit_dir)
    assert code == 2 and "did you mean 'tensorboard'?" in err and not (tmp_path / "run").exists()
    assert parse_trackers("") == parse_trackers("none") == []
    assert parse_trackers(" wandb,mlflow ") == ["wandb", "mlflow"]
    with pytest.raises(ConfigError, match="did you mean 'wandb'"):
        parse_trackers("wand")
    assert resolve().trackers == "tensorboard"


def test_a_full_disk_ends_the_tracker_alone(tiny, tmp_path, caplog):
    run = create_run(tmp_path / "run", tiny(trackers="tensorboard"))
    events = [Logged(k, {"d_loss": 0.5}) for k in range(400)]
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4_000, hard))
    try:
        assert list(tracked(run, events)) == events  # and none of them waits for a writer that has ended
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert caplog.text.count("the tensorboard tracker failed and is dropped") == 1


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_mlflow_keeps_one_run_in_a_local_database(tiny, tmp_path):
    mlflow = pytest.importorskip("mlflow")
    follow(tiny(trackers="mlflow"), tmp_path / "run", stop_after=6)
    run = follow(tiny(trackers="mlflow"), tmp_path / "run")
    client = mlflow.MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    (recorded,) = client.search_runs([client.get_experiment_by_name("gansmith").experiment_id])
    losses = client.get_metric_history(recorded.info.run_id, "d_loss")
    assert [(entry.step, entry.value) for entry in losses] == [(row["images_seen"], row["d_loss"]) for row in run.log]
    assert recorded.data.params["network"] == "compact" and recorded.info.status == "FINISHED"
    assert len(client.list_artifacts(recorded.info.run_id, "samples")) == len(list(run.samples_dir.glob("*.png")))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_mlflow_keeps_runs_of_one_name_apart_and_how_they_ended(tiny, tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'shared.db'}")
    follow(tiny(trackers="mlflow"), tmp_path / "a" / "run", stop_after=6)
    with pytest.raises(TrainingFailed):
        follow(tiny("mlp-small", trackers="mlflow", g_lr=1e17, d_lr=1e17), tmp_path / "b" / "run")
    client = mlflow.MlflowClient(f"sqlite:///{tmp_path / 'shared.db'}")
    recorded = client.search_runs([client.get_experiment_by_name("gansmith").experiment_id])
    assert sorted(run.info.status for run in recorded) == ["FAILED", "KILLED"]


def history(path):
    """The steps in a .wandb file: a LevelDB log, blocks of 32 kB of records in parts, after seven bytes of its own."""
    from wandb.proto import wandb_internal_pb2

    body, at, whole = path.read_bytes(), 7, b""
    while at + 7 <= len(body):
        if (left := 32_768 - at % 32_768) < 7:
            at += left
            continue
        _, length, part = struct.unpack("<IHB", body[at : at + 7])
        whole += body[at + 7 : at + 7 + length]
        at += 7 + length
        if part in (1, 4):  # all of a record, or its end
            record = wandb_internal_pb2.Record.FromString(whole)
            whole = b""
            if record.WhichOneof("record_type") == "history":
                yield {i.key or ".".join(i.nested_key): json.loads(i.value_json) for i in record.history.item}


def losses_in(path):
    return {step["images_seen"]: step["d_loss"] for step in history(path) if "d_loss" in step}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_wandb_stays_offline_with_one_run(tiny, tmp_path):
    pytest.importorskip("wandb")
    follow(tiny(trackers="wandb"), tmp_path / "run", stop_after=6)
    follow(tiny(trackers="wandb"), tmp_path / "other")
    run = follow(tiny(trackers="wandb"), tmp_path / "run")
    assert len(list(tmp_path.glob("wandb/offline-run-*"))) == 2
    (path,) = (path for path in tmp_path.glob("wandb/offline-run-*/*.wandb") if _identity(run) in path.name)
    wait_until(lambda: len(losses_in(path)) == len(run.log))  # a process of its own writes the file
    assert losses_in(path) == {row["images_seen"]: row["d_loss"] for row in run.log}
    assert len(list(path.parent.glob("files/media/images/*.png"))) == len(run.grids())
    assert not (run.directory / "wandb").exists()
