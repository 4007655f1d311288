"""Sweeps: spaces, what the study draws and prunes, and small real sweeps, killed ones among them."""

import contextlib
import itertools
import json
import math
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import tomllib
from pathlib import Path

import pytest
from conftest import TINY, wait_until

import gansmith as gs
from gansmith.cli import app
from gansmith.config import FIELDS, Config, resolve
from gansmith.errors import ConfigError, GansmithError, RunError
from gansmith.runs import is_locked, open_run
from gansmith.sweeps import results, search, studies
from gansmith.sweeps.space import TABLES, grid_values, parse_search, read_space, to_space, to_words

optuna = pytest.importorskip("optuna")
sqlalchemy = pytest.importorskip("sqlalchemy")


def test_ranges_choices_and_steps_are_read():
    assert parse_search(["g-lr=1e-4..1e-2:log,network=compact,r3gan", "batch-size=32..128:32"]) == {
        "g_lr": {"low": 1e-4, "high": 1e-2, "scale": "log"},
        "network": {"choices": ["compact", "r3gan"]},
        "batch_size": {"low": 32, "high": 128, "scale": "linear", "step": 32},
    }
    assert parse_search(["batch-size=32,64"]) == {"batch_size": {"choices": [32, 64]}}
    assert parse_search(["beta1=0..0.9,spectral-norm"])["spectral_norm"] == {"choices": [False, True]}
    # A word that is both a field and a choice of the field before it is the choice.
    assert parse_search(["conditioning=labels,clusters,g-lr"]).keys() == {"conditioning", "g_lr"}
    assert parse_search(["replay-size=1k..10k"])["replay_size"] == {"low": 1000, "high": 10_000, "scale": "log"}


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("0..0.9:0.3", [0.0, 0.3, 0.6, 0.9]),
        ("0.3..0.45:0.15", [0.3, 0.45]),
        ("0.8..0.9:0.1", [0.8, 0.9]),
        ("0.1..0.7:0.2", [0.1, 0.3, 0.5, 0.7]),
        ("0.1..0.75:0.25", [0.1, 0.35, 0.6]),
    ],
)
def test_every_step_of_a_range_is_drawn_as_it_is_written(text, values):
    space = parse_search([f"beta1={text}"])
    assert grid_values("beta1", space["beta1"]) == values
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    found = set()
    for _ in range(60):
        trial = study.ask()
        studies._draw(trial, space)
        found.add(trial.params["beta1"])
    assert sorted(found) == pytest.approx(values)


def test_python_and_files_give_the_same_spaces(tmp_path):
    space = {"g_lr": {"low": 1e-4, "high": 1e-2, "scale": "log"}, "network": {"choices": ["compact", "r3gan"]}}
    assert to_space({"g_lr": (1e-4, 1e-2), "network": ["compact", "r3gan"]}) == space
    assert to_space({"g-lr": "1e-4..1e-2:log", "network": "compact,r3gan"}) == space
    assert to_space(space) == space
    (tmp_path / "space.toml").write_text('g_lr = {low = 1e-4, high = 1e-2}\nnetwork = ["compact", "r3gan"]\n')
    assert read_space(tmp_path / "space.toml") == space
    assert to_words(space) == "g_lr 0.0001 to 0.01 (log), network compact or r3gan"


def test_what_is_not_given_comes_from_the_fields_themselves():
    """Every field is either searched over values that it can have, or says why not."""
    for name, field in FIELDS.items():
        try:
            (dimension,) = to_space({name: None}).values()
        except ConfigError as refusal:
            reasons = ("do not compare", "nothing to search", "no usual range", "has one choice")
            assert any(reason in str(refusal) for reason in reasons), name
            continue
        for value in dimension.get("choices") or (dimension["low"], dimension["high"]):
            Config(**{name: value})
            assert type(value) is field.type
        if "low" in dimension:
            assert dimension["scale"] == ("linear" if dimension["low"] == 0 else field.metadata["scale"])
    assert to_space({"network": {}})["network"]["choices"] == list(TABLES["network"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("lr=1..2", "here it is g_lr and d_lr"),
        ("g-lrr=1..2", "did you mean 'g_lr'"),
        ("g-lr=1e-2..1e-4", "empty: 0.01 is not less than 0.0001"),
        ("g-lr=1e-3..1e-3", "empty"),
        ("g-lr=..1", "empty value"),
        ("g-lr,,d-lr", "search of g_lr has an empty value"),
        ("g-lr=a..b", "g_lr is 'a'; it must be a number"),
        ("g-lr=0..1:log", "more than 0"),
        ("g-lr=1e-4..1e-2:cubic", "scale of g_lr is 'cubic'"),
        ("g-lr=1e-4..1e-2:5", "step of g_lr is 5.0"),
        ("g-lr=1e-3", "nothing to search; give it as --g-lr"),
        ("g-lr=1e-3,1e-3", "twice"),
        ("beta1=0.5..2", "beta1 is 2.0; it must be between"),
        ("network=3,compact", "there is no network '3'"),
        ("network=compact..r3gan", "not a number, so it has no range"),
        ("batch-size=32,6.5", "whole number"),
        ("g-lr,g-lr", "searched twice"),
        ("data=mnist,kmnist", "do not compare"),
        ("seed=0..9", "nothing to search"),
        ("images=1k..2k", "nothing to search"),
        ("augment", None),
        ("", "there is no field"),
    ],
)
def test_spaces_that_make_no_sense_are_refused(text, message):
    if message is None:
        assert parse_search([text])
        return
    with pytest.raises(ConfigError, match=message):
        parse_search([text])


def test_a_grid_has_all_its_points_and_needs_single_values():
    assert grid_values("beta1", parse_search(["beta1=0..0.9:0.3"])["beta1"]) == pytest.approx([0, 0.3, 0.6, 0.9])
    assert grid_values("d_steps", parse_search(["d-steps"])["d_steps"]) == [1, 2, 3, 4, 5]
    with pytest.raises(ConfigError, match="list them"):
        studies.grid_size(parse_search(["g-lr"]))
    with pytest.raises(ConfigError, match="more than 10,000"):
        studies.grid_size(parse_search(["g-width=1..4096,d-width=1..4096"]))
    with pytest.raises(ConfigError, match="the grid has 2,000,000,000 points of schedule_images alone"):
        studies.grid_size(parse_search(["schedule-images=1..2000000000"]))


def test_small_steps_take_no_memory():
    tiny = parse_search(["r1-gamma=0..99.00000005:1e-7"])["r1_gamma"]
    assert (tiny["low"], tiny["high"]) == (0, 99.0)
    assert parse_search(["r1-gamma=0..1:0.3"])["r1_gamma"]["high"] == 0.9
    for step in ("1e-10", "1e-40"):
        with pytest.raises(ConfigError, match="the step of r1_gamma is .*, too small for its range"):
            parse_search([f"r1-gamma=0..1:{step}"])


def test_scores_are_compared_after_the_same_eighths():
    assert studies.in_eighths([]) == {}
    assert studies.in_eighths([(0.25, 8.0), (0.5, 2.0), (1.0, 1.0)]) == pytest.approx(
        {2: 8.0, 3: 4.0, 4: 2.0, 5: 2**0.75, 6: 2**0.5, 7: 2**0.25}
    )
    # A trial with three scores has ratios after the eighths between them too: 16 at 8/3, 4 at 16/3.
    thirds = studies.in_eighths([(1 / 3, 16.0), (2 / 3, 4.0)])
    assert thirds == pytest.approx({2: 16.0, 3: 16 * 4 ** (-1 / 8), 4: 8.0, 5: 16 * 4 ** (-7 / 8)})
    assert studies.in_eighths([(0.5, math.inf), (0.75, 3.0)]) == pytest.approx({6: 3.0})


SETTINGS = {"space": {"g_lr": {"low": 1e-4, "high": 1e-2, "scale": "log"}, "network": {"choices": ["compact", "mlp"]}},
            "sampler": "tpe", "seed": 3, "objectives": ["fd-ratio"], "prune": "median"}  # fmt: skip


@pytest.fixture(autouse=True)
def closed_databases(monkeypatch):
    """Close the databases that a test leaves open, of which Python 3.13 warns."""
    opened, begin = [], optuna.storages.RDBStorage.__init__

    def noted(storage, *arguments, **named):
        begin(storage, *arguments, **named)
        opened.append(storage)

    monkeypatch.setattr(optuna.storages.RDBStorage, "__init__", noted)
    yield
    for storage in opened:
        storage.remove_session()
        storage.engine.dispose()


def new_study(folder, settings=SETTINGS, name="study.db"):
    folder.mkdir(exist_ok=True)
    storage = studies.open_storage(f"sqlite:///{folder / name}")
    study = studies.create_study(storage, "s", settings)
    study.pruner = studies.pruner_of(settings["prune"])
    return study


@pytest.mark.parametrize("sampler", ["random", pytest.param("tpe", marks=pytest.mark.slow)])
def test_choices_depend_on_the_seed_the_number_and_the_trials_before(tmp_path, sampler):
    """So a study that is opened again draws what one that stays open draws."""
    settings = {**SETTINGS, "sampler": sampler}
    drawn = []
    for name in ("once.db", "again.db"):
        study = new_study(tmp_path, settings, name)
        for number in range(14):  # TPE draws at random ten times
            if name == "again.db" and number in (3, 12):
                study = new_study(tmp_path, settings, name)
            trial = studies.next_trial(study, settings, owner="me")
            assert trial.number == number
            study.tell(trial, abs(math.log10(trial.params["g_lr"]) + 3))
        drawn.append([trial.params for trial in study.get_trials()])
    assert drawn[0] == drawn[1]
    assert len({params["g_lr"] for params in drawn[0]}) == 14
    other = new_study(tmp_path, {**settings, "seed": 4}, "other.db")
    assert studies.next_trial(other, {**settings, "seed": 4}, owner="me").params != drawn[0][0]


def test_a_trial_that_was_begun_goes_on_with_its_choices(tmp_path):
    study = new_study(tmp_path)
    begun = studies.next_trial(study, SETTINGS, owner="me")
    theirs = studies.next_trial(study, SETTINGS, owner="another")
    again = new_study(tmp_path)
    mine = studies.unfinished_trials(again, SETTINGS, owner="me")
    assert [(trial.number, trial.params) for trial in mine] == [(0, begun.params)]
    assert theirs.params == again.get_trials()[1].params


class Killed(BaseException):
    pass


def test_no_trial_is_lost_however_far_its_beginning_came(tmp_path):
    """Killed before each transaction with the database in turn: every trial that is there is found again."""
    settings = {**SETTINGS, "space": {"g_width": {"choices": [4, 8]}}, "sampler": "grid"}
    begun, was_killed = 0, True
    for survived in itertools.count():
        storage = studies.open_storage(f"sqlite:///{tmp_path / 'study.db'}")
        study, left = studies.create_study(storage, "s", settings), [None] * survived

        def die(connection, left=left):
            if not left:
                raise Killed
            left.pop()

        sqlalchemy.event.listen(storage.engine, "begin", die)
        try:
            studies.next_trial(study, settings, owner="me")
            was_killed = False
        except Killed:
            pass
        again = new_study(tmp_path, settings)
        found = studies.unfinished_trials(again, settings, owner="me")
        begun += len(found)
        assert len(again.get_trials()) == begun and all(trial.params["g_width"] in (4, 8) for trial in found)
        for trial in found:
            again.tell(trial, 1.0)
        if not was_killed:
            break
    assert 1 < begun <= survived


def test_a_trial_that_was_one_too_many_takes_no_point_of_a_grid(tmp_path):
    settings = {**SETTINGS, "space": {"g_width": {"choices": [4, 8, 16]}}, "sampler": "grid"}
    study, widths = new_study(tmp_path, settings), []
    for number in range(4):
        trial = studies.next_trial(study, settings, owner="me")
        if number == 1:
            trial.set_user_attr("reason", studies.SURPLUS)
            study.tell(trial, state=optuna.trial.TrialState.FAIL)
            continue
        widths.append(trial.params["g_width"])
        study.tell(trial, 1.0)
    assert widths == [4, 8, 16]


@pytest.mark.slow
def test_a_trial_beyond_the_last_is_not_counted(tmp_path, digit_dir, monkeypatch):
    """As where another machine begins the last trial between this one's look at the study and its own trial."""
    settings, next_trial = planned(digit_dir, sampler="random"), studies.next_trial

    def begin_two(study, settings, *, owner):
        next_trial(study, settings, owner="another")
        return next_trial(study, settings, owner=owner)

    monkeypatch.setattr(studies, "next_trial", begin_two)
    pool = PoolHere()
    search.run_sweep(tmp_path / "sweep", settings, trials=1, pool=pool)
    assert not pool.started
    assert [(row["trial"], row["state"]) for row in rows_of(tmp_path / "sweep")] == [(0, "running")]
    assert "1 trial: 1 running" in gs.Sweep(tmp_path / "sweep").report().read_text()
    monkeypatch.setattr(studies, "next_trial", next_trial)
    search.run_sweep(tmp_path / "sweep", settings, trials=3, pool=pool)  # as many more as the study lacks
    assert len(pool.started) == 2 and [row["trial"] for row in rows_of(tmp_path / "sweep")] == [0, 2, 3]


def test_studies_of_other_spaces_are_refused(tmp_path):
    new_study(tmp_path)
    other = {**SETTINGS, "space": {"g_lr": {"low": 1e-4, "high": 1e-1, "scale": "log"}}}
    with pytest.raises(RunError, match="is of another sweep .space .g_lr 0.0001 to 0.01 .*g_lr 0.0001 to 0.1"):
        new_study(tmp_path, other)
    foreign = optuna.create_study(storage=f"sqlite:///{tmp_path / 'foreign.db'}", study_name="s")
    foreign.tell(foreign.ask(), 1.0)
    with pytest.raises(RunError, match="one that Gansmith did not begin"):
        new_study(tmp_path, name="foreign.db")
    with pytest.raises(ConfigError, match="address of a database"):
        studies.open_storage("my study")
    with pytest.raises(ConfigError, match="cannot be used"):
        studies.open_storage("sqlite:////no/such/folder/study.db")


@pytest.mark.parametrize(("prune", "pruned"), [("none", False), ("median", True), ("halving", True)])
def test_a_trial_far_worse_than_others_is_pruned(tmp_path, prune, pruned):
    settings = {**SETTINGS, "prune": prune}
    study = new_study(tmp_path, settings)
    for ratio in (2.0, 3.0, 4.0, 5.0):
        trial = studies.next_trial(study, settings, owner="me")
        assert not studies.report_scores(trial, [(0.25, 10 * ratio)]) or prune == "halving"
        study.tell(trial, ratio)
    bad, good = (studies.next_trial(study, settings, owner="me") for _ in range(2))
    assert studies.report_scores(bad, [(0.25, 900.0)]) is pruned
    assert studies.report_scores(bad, [(0.25, 900.0)]) is pruned  # told again, as after a restart
    assert studies.report_scores(good, [(0.25, 9.0), (0.5, 5.0)]) is False


class PoolHere:
    """Runs each task in this process at once: real trainings without the start of another interpreter."""

    size, threads = 1, 0

    def __init__(self, stop_after=None):
        self.started, self.stop_after = [], stop_after

    def start(self, task):
        if len(self.started) == self.stop_after:
            raise KeyboardInterrupt
        self.started.append(task)
        try:
            code = app([*task.words, "--out", str(task.directory)], exit_on_error=False, result_action="return_value")
            return {"code": code, "scores": [], "reason": ""}
        except GansmithError as error:
            return {"code": 2, "scores": [], "reason": str(error)}
        except gs.TrainingFailed as error:
            return {"code": 1, "scores": [], "reason": str(error)}

    def poll(self, running):
        return running

    def stop(self, running):
        pass

    def close(self, left):
        pass


FEW = {name: value for name, value in TINY.items() if name not in ("images", "g_width", "d_width", "evaluate_every")}


def planned(digit_dir, space="g-lr=1e-4..1e-2,g-width=4,8", **method):
    choices = {**FEW, "data_dir": str(digit_dir), "d_width": 8}
    return search.plan_sweep("mlp-small", parse_search([space]), length={"images": 128}, choices=choices, **method)


def rows_of(folder):
    return gs.Sweep(folder).trials


@pytest.mark.slow
def test_a_sweep_that_is_stopped_again_and_again_ends_with_its_trials(tmp_path, digit_dir):
    settings, folder = planned(digit_dir), tmp_path / "sweep"
    with pytest.raises(search.Interrupted):
        search.run_sweep(folder, settings, trials=3, pool=PoolHere(stop_after=1))
    with pytest.raises(search.Interrupted):
        search.run_sweep(folder, settings, pool=PoolHere(stop_after=1))
    last = PoolHere()
    search.run_sweep(folder, settings, pool=last)
    rows = rows_of(folder)
    assert [row["state"] for row in rows] == ["finished"] * 3
    assert [task.name for task in last.started] == ["trial 2"]
    for row in rows:
        run = open_run(Path(row["run"]))
        assert {name: getattr(run.config, name) for name in ("g_lr", "g_width")} == row["params"]
        assert len(run.facts()["starts"]) == 1  # none was trained twice
        assert row["validation_fd_ratio"] == run.validation_scores()[-1]["validation_fd_ratio"]
    search.run_sweep(folder, settings, trials=4, pool=last)  # more of them
    assert [row["params"] for row in rows_of(folder)][:3] == [row["params"] for row in rows]
    assert len(rows_of(folder)) == 4
    found = gs.Sweep(folder)
    assert found.best.directory == Path(min(rows_of(folder), key=lambda row: row["validation_fd_ratio"])["run"])
    assert sum(found.importances.values()) == pytest.approx(1) and found.importances.keys() == {"g_lr", "g_width"}
    text = found.report().read_text()
    assert "History" in text and "Slices" in text and "Importance" in text and "4 trials: 4 finished" in text
    assert "<table" in found._repr_html_() and "g_lr" in found._repr_html_()

    recipe = found.write_recipe(tmp_path / "recipe.toml")
    written = tomllib.loads(recipe.read_text())
    best = resolve(file=recipe)
    assert best.replace(keep_last=1, evaluate_every=found.best.config.evaluate_every) == found.best.config
    assert written["recipe"] == "mlp-small" and "keep_last" not in written

    with pytest.raises(RunError, match="holds a sweep with space .*another --out"):
        search.run_sweep(folder, planned(digit_dir, "g-lr=1e-4..1e-1"), pool=last)
    with pytest.raises(RunError, match="holds other things"):
        search.run_sweep(tmp_path, settings, pool=last)


def test_a_sweep_killed_as_it_began_is_begun_again(tmp_path, digit_dir, monkeypatch):
    settings, folder = planned(digit_dir, sampler="random"), tmp_path / "sweep"
    for name in ("", "-journal"):
        monkeypatch.setattr(studies, "create_study", _killed)
        with pytest.raises(Killed):
            search.run_sweep(folder, settings, trials=1, pool=PoolHere())
        assert search.read_facts(folder)["settings"] == settings  # written before the database
        (folder / "sweep.json").rename(folder / ".partial-sweep.json")  # as where the disk was full
        (folder / f"study.db{name}").touch()
    monkeypatch.undo()
    monkeypatch.setattr(search, "run_tasks", lambda *given, **named: [])
    search.run_sweep(folder, settings, trials=1, pool=PoolHere())
    assert rows_of(folder) == []
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes.txt").touch()
    with pytest.raises(RunError, match="holds other things"):
        search.run_sweep(tmp_path / "other", settings, pool=PoolHere())


def _killed(*given):
    raise Killed


def test_a_storage_that_is_refused_leaves_the_folder_to_another(tmp_path, digit_dir, monkeypatch):
    monkeypatch.setattr(search, "run_tasks", lambda *given, **named: [])
    settings, folder = planned(digit_dir, sampler="random"), tmp_path / "sweep"
    with pytest.raises(ConfigError, match="cannot be used"):
        search.run_sweep(folder, settings, storage="sqlite:////no/such/folder/study.db", pool=PoolHere())
    search.run_sweep(folder, settings, storage=f"sqlite:///{tmp_path / 'study.db'}", pool=PoolHere())
    assert search.read_facts(folder)["storage"].endswith("study.db")


@pytest.fixture
def held_database(tmp_path, monkeypatch):
    """A study, and the lock of its database, which another program holds."""
    monkeypatch.setattr(studies, "RETRY_S", 0.05)
    storage = studies.open_storage(f"sqlite:///{tmp_path / 'study.db'}?timeout=0.05")
    study = studies.create_study(storage, "s", SETTINGS)
    with contextlib.closing(sqlite3.connect(tmp_path / "study.db", check_same_thread=False)) as lock:
        lock.execute("BEGIN EXCLUSIVE")
        yield study, lock, storage.url


@pytest.mark.slow
def test_a_database_that_another_program_holds_is_waited_for(held_database):
    study, lock, url = held_database
    release = threading.Timer(0.5, lock.rollback)
    release.start()
    trial = studies.next_trial(study, SETTINGS, owner="me")
    assert trial.number == 0 and len(study.get_trials()) == 1
    release.join()
    lock.execute("BEGIN EXCLUSIVE")
    release = threading.Timer(0.5, lock.rollback)
    release.start()
    assert studies.load_study(studies.open_storage(url), "s").user_attrs
    release.join()


@pytest.mark.slow
def test_a_database_that_is_held_too_long_ends_the_sweep_with_a_sentence(held_database, monkeypatch):
    study, _, url = held_database
    monkeypatch.setattr(studies, "PATIENCE_S", 0.2)
    with pytest.raises(GansmithError, match="locked.; once it answers, the same command continues the sweep"):
        studies.next_trial(study, SETTINGS, owner="me")
    with pytest.raises(ConfigError, match="cannot be used .database is locked"):
        studies.open_storage(url)


@pytest.mark.slow
def test_sigterm_stops_a_sweep_with_a_sentence(tmp_path, digit_dir):
    class Terminating(PoolHere):
        def poll(self, running):
            signal.raise_signal(signal.SIGTERM)
            return running

        def close(self, left):
            signal.raise_signal(signal.SIGTERM)  # once more, while trials save
            closed.append(len(left))

    closed, said, before = [], [], signal.getsignal(signal.SIGTERM)
    with pytest.raises(search.Interrupted) as stopped:
        search.run_sweep(
            tmp_path / "sweep", planned(digit_dir, sampler="random"), pool=Terminating(), report=said.append
        )
    assert stopped.value.code == 128 + signal.SIGTERM and closed == [1]
    assert said[-1] == "stopped; the same command continues the sweep"
    assert signal.getsignal(signal.SIGTERM) == before
    assert [row["state"] for row in rows_of(tmp_path / "sweep")] == ["running"]


def test_a_trial_that_is_terminated_stops_the_sweep_with_a_sentence(tmp_path, digit_dir):
    class Killing(PoolHere):
        def start(self, task):
            return {"code": -signal.SIGTERM, "scores": [], "reason": ""}

    said = []
    with pytest.raises(search.Interrupted, match="143") as stopped:
        search.run_sweep(tmp_path / "sweep", planned(digit_dir, sampler="random"), pool=Killing(), report=said.append)
    assert stopped.value.reason == "trial 0 was sent SIGTERM"  # so that its caller does not end by it
    assert said[-1] == "a trial was ended by SIGTERM; stopped; the same command continues the sweep"


@pytest.mark.slow
def test_failed_trials_are_recorded_with_their_reasons(tmp_path, digit_dir):
    settings = planned(digit_dir, "d-lr=1e-3,1e18", sampler="grid")
    search.run_sweep(tmp_path / "sweep", settings, pool=PoolHere())
    rows = rows_of(tmp_path / "sweep")
    assert [(row["params"], row["state"]) for row in rows] == [({"d_lr": 1e-3}, "finished"), ({"d_lr": 1e18}, "failed")]
    assert "became NaN or infinite" in rows[1]["reason"]
    assert "failed: " in gs.Sweep(tmp_path / "sweep").report().read_text()


@pytest.mark.slow
def test_a_sweep_whose_trials_are_all_refused_stops(tmp_path, digit_dir):
    settings = planned(digit_dir, "objective=wasserstein,auxiliary-classifier", sampler="random")
    pool = PoolHere()
    with pytest.raises(GansmithError, match="first 3 trials were all refused.*because"):
        search.run_sweep(tmp_path / "sweep", settings, pool=pool)
    assert len(pool.started) == 3


@pytest.mark.slow
def test_several_objectives_have_a_front(tmp_path, digit_dir):
    settings = planned(digit_dir, "g-width=4,64", sampler="grid", objectives=["fd-ratio", "size"])
    assert settings["prune"] == "none"
    search.run_sweep(tmp_path / "sweep", settings, pool=PoolHere())
    small, large = rows_of(tmp_path / "sweep")
    assert small["g_parameters"] < large["g_parameters"]
    fronted = results.best_first(
        [{**large, "validation_fd_ratio": 9.0}, {**small, "validation_fd_ratio": 8.0}], settings
    )
    assert [row["trial"] for row in fronted] == [0, 1]
    assert gs.Sweep(tmp_path / "sweep").importances
    with pytest.raises(ConfigError, match="compares FD ratios alone"):
        planned(digit_dir, prune="median", objectives=["fd-ratio", "size"])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "give what to search"),
        (["--search", "lr=1..2"], "here it is g_lr and d_lr"),
        (["--search", "g-lr", "--g-lr", "1e-3"], "both searched and given"),
        (["--search", "g-lr", "--space", "x.toml"], "give what to search"),
        (["--space", "x.toml"], "there is no file"),
        (["--search", "g-lr", "--minutes", "0"], "more than 0"),
        (["--search", "g-lr", "--trials", "0"], "between 1 and"),
        (["--search", "g-lr", "--workers", "0"], "workers is 0"),
        (["--search", "g-lr", "--gpus", "1"], "give --ray too"),
        (["--search", "g-lr", "--objectives", "speed"], "must be one of fd-ratio, images-per-s, size"),
        (["--search", "g-lr", "--sampler", "grid"], "a grid needs single values"),
        (["--search", "g-lr", "--use-all-training-images"], "no validation images"),
        (["--search", "g-lr", "--storage", "nowhere"], "address of a database"),
        (["--best"], "give its folder"),
        (["runs/nothing"], "holds no sweep"),
    ],
)
def test_requests_that_make_no_sense_begin_nothing(gansmith, tmp_path, words, message):
    code, _, err = gansmith("sweep", *words)
    assert code == 2 and message in err
    assert not list(tmp_path.glob("runs/*/runs"))


def test_without_optuna_the_extra_is_named(gansmith, monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    code, _, err = gansmith("sweep", "--search", "g-lr")
    assert code == 2 and "pip install 'gansmith[search]'" in err


def command(digit_dir, *words, images=128):
    """A sweep as a command of its own process."""
    every = {f"{name}_every": max(64, images // 8) for name in ("log", "sample", "save")}
    given = {**FEW, **every, "images": images, "d_width": 8, "data_dir": digit_dir}
    flags = [f"--{name.replace('_', '-')}={value}" for name, value in given.items()]
    return [sys.executable, "-m", "gansmith", "sweep", "mlp-small", "--out", "sweep", *flags, *words]


@pytest.mark.slow
def test_a_sweep_killed_three_times_ends_with_its_trials(tmp_path, digit_dir):
    """By SIGKILL: its trainings save and stop by themselves, and go on where they were."""
    words = command(digit_dir, "--search", "g-lr,g-width=4,8", "--trials", "8", "--workers", "2", images=40_000)
    for kill in range(3):
        process = subprocess.Popen(words)
        wait_until(lambda done=kill: len(list(tmp_path.glob("sweep/runs/*/metrics.jsonl"))) > 2 * done, seconds=120)
        process.kill()
        process.wait()
    subprocess.run(words, check=True, timeout=300)
    rows = rows_of(tmp_path / "sweep")
    assert len(rows) == 8 and {row["state"] for row in rows} <= {"finished", "pruned"}
    runs = sorted(path.name for path in (tmp_path / "sweep/runs").iterdir())
    assert runs == [f"{number:04d}" for number in range(8)]
    starts = [len(open_run(tmp_path / "sweep/runs" / name).facts()["starts"]) for name in runs]
    assert sum(starts) > 8  # some were continued
    assert not any(is_locked(tmp_path / "sweep/runs" / name) for name in runs)


@pytest.mark.slow
def test_sigterm_to_a_sweep_saves_its_trials_first(tmp_path, digit_dir):
    words = command(digit_dir, "--search", "g-lr", "--trials", "2", images=10**7)
    process = subprocess.Popen(words, stderr=subprocess.PIPE, text=True)
    wait_until(lambda: any((tmp_path / "sweep/runs").glob("0000/samples/*.png")), seconds=120)
    process.terminate()
    assert process.wait(60) == -signal.SIGTERM and "the same command continues" in process.stderr.read()
    process.stderr.close()
    run = open_run(tmp_path / "sweep/runs/0000")
    assert run.status == "stopped" and run.latest() is not None and not is_locked(run.directory)


@pytest.mark.slow
def test_a_bad_trial_is_pruned_and_ctrl_c_stops_the_rest(tmp_path, digit_dir):
    words = command(digit_dir, "--search", "g-lr=1e-3,1.0", "--sampler", "grid", "--prune", "halving", images=60_000)
    process = subprocess.Popen(words, stderr=subprocess.PIPE, text=True)
    wait_until(lambda: (tmp_path / "sweep/runs/0000/metrics.jsonl").is_file(), seconds=120)
    os.kill(process.pid, signal.SIGINT)
    assert process.wait(60) == 130 and "the same command continues" in process.stderr.read()
    process.stderr.close()
    assert subprocess.run(words, stderr=subprocess.DEVNULL).returncode == 0
    good, bad = rows_of(tmp_path / "sweep")
    assert good["state"] == "finished" and bad["state"] in ("pruned", "failed")
    shown = subprocess.run([*words[:4], "sweep", "--json"], check=True, capture_output=True, text=True)
    assert json.loads(shown.stdout)["trials"][0]["params"] == {"g_lr": 1e-3}
    for extra in (["--out", "x.toml"], ["--best"], ["--prune", "none"], ["--config", "x.toml"]):
        more = subprocess.run([*words[:4], "sweep", "--trials", "3", *extra], capture_output=True, text=True)
        assert more.returncode == 2 and "takes --trials alone" in more.stderr, extra
    best = subprocess.run(
        [*words[:4], "sweep", "--best", "--out", "best.toml"], check=True, capture_output=True, text=True
    )
    assert "best.toml" in best.stdout and tomllib.loads(Path("best.toml").read_text())["g_lr"] == 1e-3


def test_trials_that_stopped_early_by_themselves_are_not_called_pruned():
    rows = [{"state": "finished", "share": 0.5}, {"state": "pruned", "share": 0.25}, {"state": "failed", "share": 0.1}]
    assert results.saved_share(rows) == pytest.approx(0.375)
    assert results.saved_share(rows[:1]) == 0 and results.saving(rows[:1]) == ""


def test_the_length_in_a_file_counts_where_no_other_is_given(tmp_path):
    (tmp_path / "mine.toml").write_text('recipe = "mlp-small"\nimages = 2000\n')
    space = parse_search(["g-lr"])
    plan = lambda length: search.plan_sweep(None, space, length=length, choices={}, file=tmp_path / "mine.toml")  # noqa: E731
    assert plan(None)["length"] == {"images": 2000} and plan({"minutes": 2.0})["length"] == {"minutes": 2.0}
    assert search.plan_sweep("mlp-small", space, length=None, choices={})["length"] == {"minutes": 1.0}


def test_the_picture_of_a_trial_elsewhere_is_not_one_that_lies_here(tmp_path):
    (tmp_path / "grid.png").write_bytes(b"another picture")
    pictures = {}
    assert results._best({"run": None, "trial": 0}, pictures) == [] and not pictures


def test_only_a_run_whose_files_could_not_be_written_stops_a_sweep(tmp_path, tiny, run_training):
    run = run_training(tiny("mlp-small", images=64), "run")
    for facts, expected in (
        ({"status": "failed", "reason": "ValueError (a bug)", "errno": None}, False),
        ({"status": "failed", "reason": "no space", "errno": 28}, True),
        ({"status": "finished", "errno": None}, False),
    ):
        run.record(**facts)
        assert search._has_no_room(run.directory) is expected
