"""The chores of a run, each as a function of its state: log, health, grids, scores, checkpoints."""

import json
import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import TIMINGS
from PIL import Image

from gansmith.checkpoints import load_counters
from gansmith.config import resolve
from gansmith.recipes import RECIPES
from gansmith.runs import create_run
from gansmith.training import chores
from gansmith.training.chores import interval, run_chores, scheduled_chores, scores_in
from gansmith.training.diagnosis import Failure, to_failure
from gansmith.training.inputs import load_training_data
from gansmith.training.loop import advance
from gansmith.training.state import start
from gansmith.training.step import NonFiniteError


@pytest.fixture
def begin(tiny, tmp_path):
    """The state of a new run after so many steps."""

    def make(recipe="mlp-small", *, steps=0, **changes):
        config, data = load_training_data(tiny(recipe, **changes))
        state = start(create_run(tmp_path / "run", config), data)
        for _ in range(steps):
            advance(state)
        return state

    return make


# How often.


@pytest.mark.parametrize(
    ("recipe", "images", "scores"),
    [
        ("default", 1_000, 1),
        ("default", 46_000, 1),
        ("default", 110_000, 2),
        ("default", 174_000, 3),
        ("default", 500_000, 9),
        ("mlp-small", 500_000, 2),
    ],
)
def test_longer_runs_get_more_scores(tiny, recipe, images, scores):
    assert scores_in(tiny(recipe), images) == scores


def test_open_intervals_are_a_share_of_the_run():
    config = resolve(arguments={"images": 100_000, "batch_size": 64})
    assert interval(config, "log_every", 200) == 500
    assert interval(config.replace(images=1_000), "log_every", 200) == 64  # at least a batch
    assert interval(config.replace(schedule_images=50_000), "log_every", 200) == 250
    assert interval(config.replace(planned_images=80_000), "log_every", 200) == 400


def test_a_recipes_interval_is_capped_to_a_share_of_a_shorter_run():
    config = resolve("mlp-small", arguments={"images": "64k"})
    assert config.log_every == RECIPES["mlp-small"]["log_every"] == 25_600
    assert interval(config, "log_every", 200) == 320
    whole = resolve("mlp-small")
    assert interval(whole, "log_every", 200) == 25_600  # its own length


@pytest.mark.parametrize("source", ["arguments", "environ", "file"])
def test_an_interval_that_was_asked_for_is_kept_even_where_it_is_the_recipes(tmp_path, source):
    (tmp_path / "my.toml").write_text("log_every = 25600\n")
    given = {
        "arguments": {"arguments": {"images": "64k", "log_every": "25600"}},
        "environ": {"environ": {"GANSMITH_LOG_EVERY": "25600"}, "arguments": {"images": "64k"}},
        "file": {"file": tmp_path / "my.toml", "arguments": {"images": "64k"}},
    }[source]
    assert interval(resolve("mlp-small", **given), "log_every", 200) == 25_600


def test_a_recipe_may_leave_an_interval_open(monkeypatch):
    monkeypatch.setitem(RECIPES, "open", {"images": 64_000, "log_every": 0})
    assert interval(resolve("open"), "log_every", 200) == 320


@pytest.mark.slow
def test_a_short_run_does_not_keep_the_long_intervals_of_its_recipe(tiny, run_training):
    choices = {name: value for name, value in tiny("mlp-small", images=3200).as_dict().items() if name != "recipe"}
    asked = resolve("mlp-small", arguments={**choices, "log_every": 25_600})
    choices.pop("log_every")
    own = resolve("mlp-small", arguments=choices)
    assert asked == own
    rows = {
        name: [row for row in run_training(config, name).log if "d_loss" in row]
        for name, config in (("own", own), ("asked", asked))
    }
    assert len(rows["own"]) == 200 and len(rows["asked"]) == 1  # what was asked for stays


def test_chores_run_when_they_are_due_and_all_of_them_at_the_end(begin):
    state, made = begin(), []
    chores_ = [(32, lambda s: made.append(("a", s.images_seen))), (48, lambda s: made.append(("b", s.images_seen)))]
    for images_seen in (16, 32, 48, 64, 80, 256):
        state.images_seen = state.saved_images = images_seen
        list(run_chores(state, chores_, stopping=False))
    assert made == [("a", 32), ("b", 48), ("a", 64), ("a", 256), ("b", 256)]


def test_nothing_is_repeated_right_after_a_resume(begin):
    state = begin()
    state.images_seen, state.just_resumed = 32, True
    assert list(run_chores(state, [(16, lambda _: pytest.fail("repeated"))], stopping=True)) == []


def test_a_new_run_begins_with_a_sample_grid(begin):
    state = begin()
    (event,) = run_chores(state, scheduled_chores(state), stopping=False)
    assert event.kind == "sample" and event.images_seen == 0 and [seen for seen, _ in state.run.grids()] == [0]


def test_the_score_comes_first_for_it_may_end_the_run(begin):
    state = begin()
    assert [chore for _, chore in scheduled_chores(state)] == [
        chores.score,
        chores.log,
        chores.check_health,
        chores.draw_grid,
        chores.save,
    ]
    state.scorer = None
    assert chores.score not in [chore for _, chore in scheduled_chores(state)]


def test_an_interrupt_saves_and_an_old_checkpoint_asks_for_one(begin, monkeypatch):
    state = begin(steps=1)
    (event,) = run_chores(state, [], stopping=True)
    assert event.kind == "checkpoint" and state.safety_save is None
    advance(state)
    assert list(run_chores(state, [], stopping=False)) == []
    state.saved_at = time.monotonic() - chores.SAFETY_S - 1
    (event,) = run_chores(state, [], stopping=False)
    assert event.kind == "checkpoint" and state.safety_save == state.run.latest()
    assert load_counters(state.run.latest())["for_safety"] is True


# What each does.


def test_a_log_row_has_means_rates_and_health_signals(begin):
    state = begin(steps=2)
    event = chores.log(state)
    assert event.images_seen == 32 and event.to_json() == {"kind": "log", **state.run.log[0]}
    assert {"d_loss", "g_loss", "d_real", "d_fake", "g_grad_norm", "d_grad_norm", *TIMINGS} <= state.rows[0].keys()
    assert state.means.counts == {}


def test_health_signals_are_measured_a_hundred_times(begin):
    state = begin(images=6400)  # every 64 images
    measured = []
    for _ in range(12):
        advance(state)
        chores.log(state)
        measured.append("copy_distance" in state.rows[-1])
    assert measured == [False, False, False, True] * 3


def test_gradient_norms_are_those_of_the_last_step(begin):
    state = begin(steps=1)
    for name, network in (("g_grad_norm", state.networks.G), ("d_grad_norm", state.networks.D)):
        expected = torch.cat([p.grad.flatten() for p in network.parameters()]).norm().item()
        assert chores.gradient_norms(state)[name] == pytest.approx(expected, rel=1e-5)


def test_gradient_norms_of_before_this_process_stay_until_there_are_new_ones(begin):
    state = begin()
    state.gradient_norms = {"g_grad_norm": 3.0, "d_grad_norm": 5.0}
    assert chores.gradient_norms(state) == {"g_grad_norm": 3.0, "d_grad_norm": 5.0}
    advance(state)
    assert chores.gradient_norms(state)["d_grad_norm"] != 5.0


def test_a_failure_is_reported_once(begin, monkeypatch):
    state = begin(steps=1)
    chores.log(state)
    found = [Failure("memorisation", 16, "memorisation: copies"), Failure("stalled", 16, "stalled: no better")]
    monkeypatch.setattr(chores, "diagnose", lambda *_: found)
    events = []
    for _ in range(3):
        events.append(chores.check_health(state))
        advance(state)
        chores.log(state)
    assert [event and (event.failure, event.message) for event in events] == [
        ("memorisation", "memorisation: copies"),
        ("stalled", "stalled: no better"),
        None,
    ]
    for rows in (state.run.log, state.rows):
        assert [row["failure"] for row in rows if row.get("kind") == "failure"] == ["memorisation", "stalled"]


@pytest.mark.parametrize(("classes", "is_failure"), [("", True), ("3,7", False)])
def test_missing_classes_that_were_left_out_on_purpose_are_no_reason_to_stop(begin, classes, is_failure):
    failure, state = Failure("missing-classes", 16, "missing-classes: few"), begin(classes=classes)
    event = chores.report_failure(state, failure)
    assert state.new_failure == (failure if is_failure else None)
    assert event.message == failure.message and state.run.log == [failure.as_row()]


def test_a_grid_shows_each_class_in_a_column_and_the_same_latents_every_time(begin):
    state = begin("default", steps=1)
    event = chores.draw_grid(state)
    again = chores.draw_grid(state)
    assert event == again and event.tile_px == 28
    with Image.open(event.path) as picture:
        assert np.asarray(picture).shape == (8 * 28, 10 * 28)
    assert state.data.conditioning.label_of(state.data.conditioning.draw_grid(80, 10)).tolist() == [*range(10)] * 8


def test_the_best_score_is_kept_with_how_many_followed_it(begin, monkeypatch):
    state = begin(steps=1)
    ratios = iter([3.0, 2.0, 2.5, 2.0, 1.5])
    monkeypatch.setattr(
        state.scorer,
        "score",
        lambda samples: {"validation_fd_ratio": next(ratios), "fd": 1.0, "fd_real": 0.5, "n": 40, "tier": "validation"},
    )
    seen = []
    for _ in range(5):
        event = chores.score(state)
        seen.append((state.best["images_seen"], state.best["validation_fd_ratio"], state.best["scores_since"]))
        state.images_seen += 16
    assert seen == [(16, 3.0, 0), (32, 2.0, 0), (32, 2.0, 1), (32, 2.0, 2), (80, 1.5, 0)]
    assert event.values == {"tier": "validation"} and event.n == 40 and len(state.run.validation_scores()) == 5


def test_a_score_is_a_ratio_to_real_images(begin):
    state = begin(steps=1)
    event = chores.score(state)
    assert event.validation_fd_ratio == pytest.approx(event.fd / event.fd_real)
    assert state.run.metrics[-1]["validation_fd_ratio"] == event.validation_fd_ratio


def test_a_save_marks_the_best_and_says_what_was_logged(begin):
    state = begin(steps=1)
    chores.score(state)
    chores.log(state)
    event = chores.save(state)
    assert event.path == str(state.run.latest()) and state.run.best() == state.run.latest()
    assert json.loads((state.run.directory / "best.json").read_text()) == {
        "checkpoint": "000000016",
        "images_seen": 16,
    }
    counters = load_counters(state.run.latest())
    assert (counters["log_lines"], counters["best"]) == (1, state.best)
    assert state.saved_images == 16


def test_weights_that_are_not_finite_are_not_saved(begin):
    state = begin(steps=1)
    next(state.networks.D.parameters()).data[0] = float("nan")
    with pytest.raises(NonFiniteError, match="a weight"):
        chores.save(state)
    assert state.run.latest() is None


def test_weights_that_are_not_finite_are_not_held_to_go_back_to(begin):
    state = begin(steps=1)
    state.techniques = replace(state.techniques, reads=False)
    state.hold()
    held = state.held
    next(state.networks.D.parameters()).data[0] = float("nan")
    with pytest.raises(NonFiniteError, match="a weight"):
        chores.log(state)
    assert state.held is held and not state.run.log_path.exists()
    assert state.go_back() and all(p.isfinite().all() for p in state.networks.D.parameters())


def test_a_stop_between_steps_that_are_taken_again_saves(begin):
    state = begin(steps=2)
    state.checked_until = state.images_seen + 64
    assert not list(chores.run_chores(state, [], stopping=False, overdue=False))
    (saved,) = chores.run_chores(state, [], stopping=True, overdue=False)
    assert saved.images_seen == state.saved_images == state.images_seen


def test_a_save_with_a_new_failure_removes_no_checkpoint_to_go_back_to(begin):
    state = begin(steps=1, keep_last=1)
    chores.save(state)
    advance(state)
    state.new_failure = to_failure("diverged", state.images_seen, "it", state.config)
    chores.save(state)
    assert len(state.run.checkpoints()) == 2


def test_a_save_removes_the_one_for_safety_and_what_retention_leaves_out(begin):
    state = begin(steps=1, keep_last=1)
    names = []
    for for_safety in (False, True, False, False):
        advance(state)
        chores.save(state, for_safety=for_safety)
        names.append([int(path.name) for path in state.run.checkpoints()])
    assert names == [[32], [32, 48], [64], [80]]


def test_the_start_is_recorded_with_what_and_where(begin, caplog):
    state = begin("default-unlabelled", clusters=2000)
    chores.record_start(state, [{"command": ["gansmith", "train"], "at": "now"}])
    facts = state.run.facts()
    assert (facts["status"], facts["command"], facts["custom"]) == ("running", ["gansmith", "train"], {})
    assert facts["data"]["train"] == 360 and facts["data"]["validation"] == 40
    assert facts["data"]["sha256"] == state.data.data_sha256
    assert "clusters is 15, not 2000: each cluster needs at least 24 of the 360 images" in facts["data"]["notices"]
    assert {"gansmith", "torch", "numpy"} == facts["versions"].keys() and caplog.text == ""


def test_what_another_program_defined_is_custom_and_images_in_a_folder_are_not():
    config = resolve(arguments={"data": "mine", "network": "own"})
    assert chores.custom_choices(config) == {"data": "mine", "network": "own"}
    assert chores.custom_choices(config.replace(data_dir="somewhere")) == {"network": "own"}
    assert chores.custom_choices(resolve()) == {}


def test_the_directory_holds_what_it_promises(tiny, run_training):
    run = run_training(tiny(), "run")
    names = sorted(path.name for path in run.directory.iterdir())
    assert names == [
        ".lock", "best.json", "checkpoints", "config.toml", "log.jsonl", "metrics.jsonl", "real.png", "run.json",
        "samples",
    ]  # fmt: skip
    row = run.log[0]
    signals = {"diversity_within", "diversity_across", "copy_distance", "g_grad_norm", "d_grad_norm"}
    named = {"images_seen", "d_loss", "g_loss", "d_real", "d_fake", "penalty_factor", *signals, *TIMINGS}
    assert set(row) - {"d_overfit"} == named  # there where D tells generated images apart
    score = run.metrics[-1]
    assert score["validation_fd_ratio"] == pytest.approx(score["fd"] / score["fd_real"])
    counters = json.loads((run.latest() / "state.json").read_text())
    assert counters["log_lines"] == len(run.log)
    assert counters["best"] == {
        "images_seen": int(run.best().name),
        "validation_fd_ratio": min(row["validation_fd_ratio"] for row in run.metrics),
        "scores_since": sum(row["images_seen"] > int(run.best().name) for row in run.metrics),
    }
