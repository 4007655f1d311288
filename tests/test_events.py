"""What happens during training, as typed events and as JSON."""

import dataclasses
import json
from pathlib import Path

import pytest
from PIL import Image

import gansmith as gs
from gansmith import events as module
from gansmith.events import Event, LengthChanged, RolledBack, Scored, Started
from gansmith.progress import show_progress

KINDS = [kind for kind in vars(module).values() if isinstance(kind, type) and issubclass(kind, Event)]
OPTIONS = {"g_width": 16, "d_width": 16, "threads": 1, "out": "run", "trackers": "none"}


@pytest.fixture
def events():
    return list(gs.train_events("mlp-small", images=1280, log_every=256, sample_every=640, save_every=640, **OPTIONS))


def of_kind(events, kind):
    return [event for event in events if event.kind == kind]


def test_every_event_has_a_kind_of_its_own_and_says_what_it_is():
    kinds = [kind.kind for kind in KINDS if kind is not Event]
    assert len(set(kinds)) == len(kinds) == 8 and all(kinds)
    assert all(kind.__doc__ and not kind.__doc__.startswith(f"{kind.__name__}(") for kind in KINDS)
    assert all(dataclasses.is_dataclass(kind) for kind in KINDS)


@pytest.mark.parametrize("kind", KINDS)
def test_an_event_is_one_json_object(kind):
    shown = json.loads(json.dumps(kind(640).to_json()))
    assert shown["kind"] == kind.kind and shown["images_seen"] == 640
    assert {field.name for field in dataclasses.fields(kind)} - {"values"} <= shown.keys()


def test_values_of_an_event_stand_beside_its_own():
    event = Scored(640, validation_fd_ratio=2.0, fd=4.0, fd_real=2.0, n=500, values={"fd_random": 3.0})
    assert event.to_json() == {
        "kind": "score",
        "images_seen": 640,
        "validation_fd_ratio": 2.0,
        "fd": 4.0,
        "fd_real": 2.0,
        "n": 500,
        "fd_random": 3.0,
    }


def test_events_come_in_the_order_of_the_run(events):
    assert [event.kind for event in events] == [
        "start", "sample",
        "log", "log", "sample", "checkpoint",
        "log", "log", "score", "log", "failure", "sample", "checkpoint",
    ]  # fmt: skip
    seen = [event.images_seen for event in events]
    assert seen == sorted(seen) and seen[-1] == 1280


def test_the_first_event_says_what_is_trained_on_what(events):
    start = events[0]
    assert isinstance(start, Started)
    assert (start.directory, start.images, start.data, start.train_images) == ("run", 1280, "mnist", 4500)
    assert start.source and any("embedded" in notice for notice in start.notices)


def test_events_say_what_the_run_directory_holds(events):
    run = gs.open_run("run")
    logged = [{"images_seen": event.images_seen, **event.values} for event in of_kind(events, "log")]
    assert logged == [row for row in run.log if "kind" not in row]
    failures = [row for row in run.log if row.get("kind") == "failure"]
    assert [event.to_json() for event in of_kind(events, "failure")] == failures
    rows = [
        {key: value for key, value in event.to_json().items() if key != "kind"} for event in of_kind(events, "score")
    ]
    assert rows == [{key: row[key] for key in rows[0]} for row in run.validation_scores()]
    assert [Path(event.path) for event in of_kind(events, "checkpoint")] == run.checkpoints()
    assert [Path(event.path) for event in of_kind(events, "sample")] == [path for _, path in run.grids()]
    for event in of_kind(events, "sample"):
        with Image.open(event.path) as picture:
            assert picture.width == 10 * event.tile_px


def test_a_failure_is_an_event_before_it_is_an_error():
    happened = []
    with pytest.raises(gs.TrainingFailed) as raised:
        for event in gs.train_events("mlp-small", images=6400, g_lr=1e18, d_lr=1e18, **OPTIONS):
            happened.append(event)
    failure = happened[-1]
    assert (failure.kind, failure.failure) == ("failure", raised.value.failure) == ("failure", "not-finite")
    assert failure.message in str(raised.value)


def test_json_progress_prints_one_object_a_line(capsys):
    happened = [
        Started(0, "run", 640, "mnist", "memory", 4500, ("a note",)),
        RolledBack(640, 320, "diverged", "going back"),
    ]
    with show_progress("json") as show:
        for event in happened:
            show(event)
    lines = capsys.readouterr().out.splitlines()
    assert [json.loads(line) for line in lines] == [json.loads(json.dumps(event.to_json())) for event in happened]


def test_plain_progress_prints_what_happened(capsys):
    with show_progress("plain") as show:
        for event in (Started(0, "run", 640, "mnist", "memory", 4500, ("a note",)), LengthChanged(320, 600)):
            show(event)
    assert capsys.readouterr().out.splitlines() == [
        "mnist: 4,500 images to train on, from memory",
        "note: a note",
        "600 images will fit into the time left",
    ]


@pytest.mark.parametrize("style", ["loud", ""])
def test_an_unknown_style_of_progress_is_refused(style):
    with pytest.raises(gs.GansmithError, match="progress is"), show_progress(style):
        pass
