"""Experiment trackers: TensorBoard, MLflow, Weights & Biases.

The run directory stays the only record. A tracker is opened at the first event of a process, when everything later
than the checkpoint is gone from the directory; it drops what it had of the run and gets all of it again. So no row is
doubled or lost, however a process ended. A tracker that fails is dropped with one warning; training goes on.
"""

import contextlib
import hashlib
import logging
import math
import os
import platform
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from gansmith.config import choose
from gansmith.data.image_files import open_picture
from gansmith.events import Event, RolledBack
from gansmith.isolation import own_environment
from gansmith.runs import RunDirectory

logger = logging.getLogger("gansmith")


class Tracker(Protocol):
    """What an experiment tracker can do; it is built from a run and may raise anything."""

    def numbers(self, images_seen: int, values: Mapping[str, float]) -> None: ...

    def picture(self, images_seen: int, path: Path) -> None: ...

    def close(self, status: str) -> None: ...


class TensorBoard:
    """Event files in the run directory: `tensorboard --logdir runs`.

    Written by the calling thread: tensorboardX's own writer has another one, and waits for it indefinitely where a
    full disk ended it.
    """

    def __init__(self, run: RunDirectory) -> None:
        from tensorboardX.record_writer import RecordWriter

        for path in run.directory.glob("events.out.tfevents.*"):
            path.unlink()
        path = run.directory / f"events.out.tfevents.{time.time():.0f}.{platform.node()}"
        self.writer = RecordWriter(str(path))
        self._write([{"file_version": "brain.Event:2"}])

    def numbers(self, images_seen: int, values: Mapping[str, float]) -> None:
        from tensorboardX.summary import scalar

        self._write([{"step": images_seen, "summary": scalar(name, value)} for name, value in values.items()])

    def picture(self, images_seen: int, path: Path) -> None:
        from tensorboardX.summary import image

        pixels = np.asarray(open_picture(path).convert("RGB"))
        self._write([{"step": images_seen, "summary": image("samples", pixels, dataformats="HWC")}])

    def _write(self, events: Iterable[dict[str, Any]]) -> None:
        from tensorboardX.proto.event_pb2 import Event

        try:
            for event in events:
                self.writer.write(Event(wall_time=time.time(), **event).SerializeToString())
            self.writer.flush()
        except OSError:
            with contextlib.suppress(OSError):
                self.writer.close()
            raise

    def close(self, status: str) -> None:
        self.writer.close()


class MLflow:
    """A run in the tracking store that MLFLOW_TRACKING_URI names, else in `mlflow.db` beside the run directory."""

    def __init__(self, run: RunDirectory) -> None:
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        from mlflow import MlflowClient

        folder = run.directory.absolute().parent
        self.client = MlflowClient(os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{folder / 'mlflow.db'}")
        known = self.client.get_experiment_by_name("gansmith")
        artifacts = (folder / "mlflow-artifacts").as_uri()
        experiment = known.experiment_id if known else self.client.create_experiment("gansmith", artifacts)
        tag = _identity(run)
        for earlier in self.client.search_runs([experiment], f"tags.`gansmith.run` = '{tag}'"):
            self.client.delete_run(earlier.info.run_id)
        name = run.directory.absolute().name
        created = self.client.create_run(experiment, run_name=name, tags={"gansmith.run": tag})
        self.id: str = created.info.run_id
        for name, value in run.config.as_dict().items():
            self.client.log_param(self.id, name, value)

    def numbers(self, images_seen: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self.client.log_metric(self.id, name, value, step=images_seen)

    def picture(self, images_seen: int, path: Path) -> None:
        self.client.log_artifact(self.id, str(path), "samples")

    def close(self, status: str) -> None:
        known = {"finished": "FINISHED", "failed": "FAILED"}
        self.client.set_terminated(self.id, known.get(status, "KILLED"))


class WandB:
    """An offline run in the folder `wandb` beside the run directory; `wandb sync` uploads it."""

    def __init__(self, run: RunDirectory) -> None:
        import wandb

        directory, id_ = run.directory.absolute(), _identity(run)
        for path in directory.parent.glob(f"wandb/offline-run-*-{id_}"):
            shutil.rmtree(path)
        self.wandb_run = wandb.init(
            project="gansmith",
            name=directory.name,
            id=id_,
            dir=str(directory.parent),
            config=run.config.as_dict(),
            mode="offline",
            settings=wandb.Settings(console="off", silent=True, x_disable_meta=True, x_disable_stats=True),
        )
        self.image = wandb.Image

    def numbers(self, images_seen: int, values: Mapping[str, float]) -> None:
        self.wandb_run.log({"images_seen": images_seen, **values})

    def picture(self, images_seen: int, path: Path) -> None:
        self.wandb_run.log({"images_seen": images_seen, "samples": self.image(str(path))})

    def close(self, status: str) -> None:
        self.wandb_run.finish(exit_code=int(status == "failed"))


def _identity(run: RunDirectory) -> str:
    """Return an id that stays when a run goes on, and differs for a run of this name in another folder."""
    return hashlib.blake2b(str(run.directory.absolute()).encode(), digest_size=4).hexdigest()


TRACKERS: dict[str, Callable[[RunDirectory], Tracker]] = {
    "tensorboard": TensorBoard,
    "mlflow": MLflow,
    "wandb": WandB,
}


def parse_trackers(text: str) -> list[str]:
    """Return the names in a comma-separated list; ConfigError for one that is not in `TRACKERS`."""
    names = [] if text.strip() == "none" else [name.strip() for name in text.split(",") if name.strip()]
    for name in names:
        choose(TRACKERS, name, "tracker")
    return names


def tracked(run: RunDirectory, events: Iterable[Event]) -> Iterator[Event]:
    """Yield the events of training, each after the run's trackers received it."""
    trackers: dict[str, Tracker] | None = None
    try:
        for event in events:
            if trackers is None:
                trackers = _open(run)
                for row in _history(run):  # the row of this event is among them
                    _send(trackers, row)
            else:
                _send(trackers, event.to_json())
            if isinstance(event, RolledBack):  # what follows was sent before: begin again
                _close(run, trackers)
                trackers = None
            yield event
    finally:
        _close(run, trackers or {})


@own_environment()
def _close(run: RunDirectory, trackers: Mapping[str, Tracker]) -> None:
    status = run.facts().get("status", "stopped")
    for name, tracker in trackers.items():
        try:
            tracker.close(status)
        except Exception as error:
            _warn(name, error)


@own_environment()
def _open(run: RunDirectory) -> dict[str, Tracker]:
    opened: dict[str, Tracker] = {}
    for name in parse_trackers(run.config.trackers):
        try:
            opened[name] = TRACKERS[name](run)
        except Exception as error:  # whatever another program raises, the run must not end
            _warn(name, error)
    return opened


def _history(run: RunDirectory) -> Iterator[dict[str, Any]]:
    """Yield the events that left a trace in the run directory, as JSON objects."""
    for row in run.log:
        yield {"kind": "log", **row}
    for row in run.metrics:
        yield {"kind": "score", **row}
    for images_seen, path in run.grids():
        yield {"kind": "sample", "images_seen": images_seen, "path": str(path)}


@own_environment()
def _send(trackers: dict[str, Tracker], event: Mapping[str, Any]) -> None:
    """Pass an event on; drop the trackers that fail."""
    for name, tracker in list(trackers.items()):
        try:
            if event["kind"] == "sample":
                tracker.picture(event["images_seen"], Path(event["path"]))
            elif event["kind"] in ("log", "score"):
                prefix = "score/" if event["kind"] == "score" else ""
                tracker.numbers(event["images_seen"], _numbers(event, prefix))
        except Exception as error:
            del trackers[name]
            _warn(name, error)


def _numbers(row: Mapping[str, Any], prefix: str = "") -> dict[str, float]:
    """Return the finite numbers of a row."""
    return {
        prefix + key: float(value)
        for key, value in row.items()
        if key != "images_seen" and type(value) in (int, float) and math.isfinite(value)
    }


def _warn(name: str, error: Exception) -> None:
    reason = str(error)
    if isinstance(error, ImportError):
        reason = f"{error.name} is not installed; pip install 'gansmith[{name}]'"
    logger.warning("the %s tracker failed and is dropped (%s); training goes on", name, reason)
