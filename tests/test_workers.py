"""Trainings in processes of their own, and on a Ray cluster of two nodes."""

import contextlib
import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest
from conftest import TINY, wait_until

import gansmith as gs
from gansmith.benchmarks import trials
from gansmith.errors import ConfigError
from gansmith.runs import is_locked, locked, open_run
from gansmith.sweeps import search
from gansmith.sweeps.space import parse_search
from gansmith.workers import LocalPool, open_pool, process, run_tasks
from gansmith.workers.process import Task, TrainingProcess, scores_of, unpack
from gansmith.workers.ray_cluster import RayPool


def words(digit_dir, **changes):
    given = {**TINY, "data_dir": digit_dir, **changes}
    return ("train", "mlp-small", "--progress", "plain", *(f"--{k.replace('_', '-')}={v}" for k, v in given.items()))


class Sleeper:
    """A pool whose tasks end after so many polls."""

    def __init__(self, size, polls):
        self.size, self.polls, self.most, self.now, self.closed, self.stopped = size, polls, 0, 0, None, []

    def start(self, task):
        self.now += 1
        self.most = max(self.most, self.now)
        return {"task": task, "left": self.polls[task.name]}

    def poll(self, running):
        running["left"] -= 1
        done = running["left"] <= 0
        self.now -= done
        return {"code": 0 if done else None, "scores": [(0.5, 1.0)], "reason": ""}

    def stop(self, running):
        self.stopped.append(running["task"].name)
        running["left"] = 0

    def close(self, left):
        self.closed = [running["task"].name for running in left]


def some_tasks(*names):
    return iter([Task(name, Path(name), ("train",)) for name in names])


def test_a_pool_is_kept_busy_and_what_runs_is_stopped_at_the_end(monkeypatch):
    monkeypatch.setattr("gansmith.workers.POLL_S", 0.0)
    pool, waiting = Sleeper(2, {"a": 9, "b": 1, "c": 2, "d": 3}), some_tasks("a", "b", "c", "d")
    ended = run_tasks(lambda: next(waiting, None), pool)
    assert [next(ended)[0].name for _ in range(3)] == ["b", "c", "d"]
    ended.close()
    assert pool.most == 2 and pool.closed == ["a"]
    pool, waiting = Sleeper(2, {"a": 99, "b": 99}), some_tasks("a", "b")
    names = [
        task.name for task, _ in run_tasks(lambda: next(waiting, None), pool, should_stop=lambda task, scores: True)
    ]
    assert sorted(names) == ["a", "b"] and sorted(set(pool.stopped)) == ["a", "b"] and pool.closed == []


def test_each_of_several_has_its_share_of_the_cores(monkeypatch):
    monkeypatch.setattr("gansmith.workers.cores", lambda: 8)
    assert [(pool.size, pool.threads) for pool in map(open_pool, (None, 1, 3, 16))] == [(1, 0), (1, 0), (3, 2), (16, 1)]
    assert open_pool(2, threads=3).threads == 3
    for bad in ({"workers": 0}, {"gpus": 1.0}, {"gpus": -1.0}):
        with pytest.raises(ConfigError, match="must be|give --ray"):
            open_pool(**bad)


def test_without_ray_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ConfigError, match=r"pip install 'gansmith\[ray\]'"):
        open_pool(ray="auto")


NODES = {
    "one CPU each": [{"CPU": 1.0}, {"CPU": 1.0}, {}],
    "large": [{"CPU": 7.0, "GPU": 2.0}, {"CPU": 3.0, "GPU": 4.0}],
}


@pytest.mark.parametrize(
    ("nodes", "workers", "threads", "gpus", "size"),
    [
        ("one CPU each", None, 1, 0, 2),
        ("one CPU each", 1, 1, 0, 1),
        ("one CPU each", 9, 1, 0, 2),
        ("one CPU each", None, 2, 0, 0),  # two nodes with one are no node with two
        ("one CPU each", 1, 1, 1, 0),
        ("large", None, 2, 0, 4),
        ("large", None, 1, 1, 5),
        ("large", None, 1, 2, 3),
        ("large", None, 1, 0.6, 5),  # two halves of different GPUs are none
        ("large", None, 1, 0.5, 7),
    ],
)
def test_tasks_of_a_cluster_have_room_on_its_nodes(monkeypatch, nodes, workers, threads, gpus, size):
    found = [{"Alive": True, "Resources": node} for node in NODES[nodes]]
    found.append({"Alive": False, "Resources": {"CPU": 64.0, "GPU": 8.0}})
    calls = []
    ray = SimpleNamespace(is_initialized=lambda: False, init=lambda **named: calls.append("init"))
    ray.nodes, ray.shutdown = lambda: found, lambda: calls.append("shutdown")
    monkeypatch.setitem(sys.modules, "ray", ray)
    if size:
        assert RayPool("auto", workers=workers, threads=threads, gpus=gpus).size == size
        return
    with pytest.raises(ConfigError, match="of one node, and the cluster's nodes have 1 CPUs and 0 GPUs, 0 CPUs and"):
        RayPool("auto", workers=workers, threads=threads, gpus=gpus)
    assert calls == ["init", "shutdown"]


def test_a_training_is_none_of_those_that_torchrun_started(tmp_path, monkeypatch):
    """Or it would wait for the others."""
    of_torchrun = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "GROUP_RANK", "ROLE_WORLD_SIZE", "ROLE_NAME",
                   "MASTER_ADDR", "MASTER_PORT", "TORCHELASTIC_RUN_ID", "TORCHELASTIC_MAX_RESTARTS")  # fmt: skip
    for name in (*of_torchrun, "GANSMITH_THREADS"):
        monkeypatch.setenv(name, "1")
    started = []
    monkeypatch.setattr(subprocess, "Popen", lambda words, **how: started.append(how["env"]))
    TrainingProcess(str(tmp_path / "run"), ("train",), threads=3)._start()
    assert not started[0].keys() & set(of_torchrun)
    assert started[0]["GANSMITH_THREADS"] == "1" and started[0]["OMP_NUM_THREADS"] == "3" and "PATH" in started[0]


def test_choices_of_the_environment_do_not_reach_trials_that_have_their_own(monkeypatch):
    own = {"GANSMITH_BETA1": "0.9", "GANSMITH_G_LR": "1", "RANK": "0"}
    kept = {
        "GANSMITH_DATA": "/data",
        "GANSMITH_CACHE": "/c",
        "GANSMITH_THREADS": "2",
        "GANSMITH_OTHER": "x",
        "HOME": "/",
    }
    assert [name for name in {**own, **kept} if process._is_left_out(name)] == list(own)


@pytest.mark.slow
def test_a_training_waits_for_its_directory_tells_its_scores_and_stops(tmp_path, digit_dir):
    directory, log = tmp_path / "run", tmp_path / "logs" / "run.txt"
    unpack(TrainingProcess(str(directory), ()).pack(), directory)  # of a training that was refused: nothing
    directory.mkdir(exist_ok=True)
    assert list(directory.iterdir()) == []
    process = TrainingProcess(str(directory), words(digit_dir, images=10**7, save_every=10**6), str(log), threads=1)
    with locked(directory):
        assert process.poll() == {"code": None, "scores": [], "reason": ""} and process.process is None
    wait_until(lambda: len(process.poll()["scores"]) > 1)
    assert process.poll()["scores"] == scores_of(directory)[: len(process.poll()["scores"])]
    process.stop()
    process.wait(60)
    assert process.poll()["code"] == 128 + signal.SIGTERM
    run = open_run(directory)
    assert run.facts()["status"] == "stopped" and run.latest() is not None and not is_locked(directory)
    unpack(process.pack(), tmp_path / "copy")
    assert open_run(tmp_path / "copy").latest().name == run.latest().name
    assert run.facts()["command"][:3] == ["gansmith", "train", "mlp-small"]


@pytest.mark.slow
def test_why_a_training_ended_is_told(tmp_path, digit_dir):
    def reason_of(name, **changes):
        process = TrainingProcess(str(tmp_path / name), words(digit_dir, **changes), str(tmp_path / f"{name}.txt"))
        wait_until(lambda: process.poll()["code"] is not None)
        return process.poll()["code"], process.poll()["reason"]

    assert reason_of("refused", objective="nothing") == (2, reason_of("again", objective="nothing")[1])
    assert "there is no objective 'nothing'" in reason_of("refused", objective="nothing")[1]
    code, reason = reason_of("steep", g_lr=1e17, d_lr=1e17)
    assert code == 1 and "became NaN or infinite" in reason
    killed = TrainingProcess(str(tmp_path / "killed"), words(digit_dir, images=10**7), str(tmp_path / "killed.txt"))
    wait_until(lambda: killed.poll()["scores"])
    killed.process.kill()
    killed.wait(9)
    assert killed.poll()["code"] == -9 and killed.poll()["reason"] == "its process was killed by signal 9"


PARENT = """
import sys, time
from pathlib import Path
from gansmith.workers.process import TrainingProcess
process = TrainingProcess("run", sys.argv[1:], "run.txt")
while True:
    process.poll()
    time.sleep(0.05)
"""


@pytest.mark.slow
def test_a_training_whose_parent_is_killed_saves_and_stops(tmp_path, digit_dir):
    parent = subprocess.Popen([sys.executable, "-c", PARENT, *words(digit_dir, images=10**7, save_every=10**6)])
    wait_until(lambda: (tmp_path / "run/metrics.jsonl").is_file())
    parent.kill()
    parent.wait()
    wait_until(lambda: not is_locked(tmp_path / "run"))
    assert open_run(tmp_path / "run").facts()["status"] == "stopped"


@pytest.fixture
def _short_trials(monkeypatch):
    for name in ("sample", "evaluate", "save"):
        monkeypatch.setenv(f"GANSMITH_{name.upper()}_EVERY", "128")
    monkeypatch.setattr(trials, "SAMPLES", 200)


@pytest.mark.slow
@pytest.mark.usefixtures("_short_trials")
def test_a_board_of_two_at_a_time_is_the_board_of_one_at_a_time(gansmith, digit_dir, tmp_path, monkeypatch):
    monkeypatch.setenv("GANSMITH_THREADS", "1")
    given = ("bench", "recipes", "mlp-small", "vanilla-cs231n", "--images", 128, "--seeds", 2, "--data-dir", digit_dir)
    scores = []
    for workers in (1, 2):
        assert gansmith(*given, "--out", f"board-{workers}", "--workers", workers)[0] == 0
        board = trials_of(tmp_path / f"board-{workers}/board.json")
        scores.append({(one["recipe"], one["seed"]): one["validation_fd_ratio"] for one in board})
    assert scores[0] == scores[1] and len(scores[0]) == 4
    assert (tmp_path / "board-2/logs/mlp-small-seed-0.txt").stat().st_size


def trials_of(path):
    import json

    return json.loads(path.read_text())["trials"]


# A Ray cluster of two nodes on this machine.


@pytest.fixture
def cluster(monkeypatch):
    pytest.importorskip("ray")
    import ray
    from ray.cluster_utils import Cluster

    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, sys.path)))
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    cluster.doomed = cluster.add_node(num_cpus=1)
    cluster.add_node(num_cpus=1)
    yield cluster
    ray.shutdown()
    cluster.shutdown()


def choices_for(digit_dir, images):
    every = {f"{name}_every": max(64, images // 4) for name in ("log", "sample", "save")}
    kept = {name: value for name, value in TINY.items() if name not in ("images", "g_width", "evaluate_every")}
    return {**kept, **every, "data_dir": str(digit_dir)}


def settings_for(digit_dir, images=128):
    space, choices = parse_search(["g-lr=1e-4,1e-3", "g-width=4,8,16"]), choices_for(digit_dir, images)
    length = {"images": images}
    return search.plan_sweep("mlp-small", space, length=length, choices=choices, sampler="grid", prune="none")


def table(folder, storage=None):
    rows = gs.Sweep(folder, storage).trials
    return {tuple(row["params"].values()): (row["state"], row["validation_fd_ratio"]) for row in rows}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of Ray's own
def test_a_cluster_that_loses_a_node_trains_the_same_trials(cluster, tmp_path, digit_dir):
    settings = settings_for(digit_dir, images=60_000)
    search.run_sweep(tmp_path / "here", settings, pool=LocalPool(2, threads=1))
    pool = open_pool(ray=cluster.address)
    assert pool.size == 2
    blow = threading.Timer(15, cluster.remove_node, [cluster.doomed], {"allow_graceful": False})
    blow.start()
    search.run_sweep(tmp_path / "there", settings, pool=pool)
    blow.join()
    assert pool.losses  # it was killed while it trained
    assert table(tmp_path / "there") == table(tmp_path / "here") and len(table(tmp_path / "here")) == 6
    assert len(list((tmp_path / "there/runs").iterdir())) == 6


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_runs_come_back_from_nodes_that_share_no_folder(cluster, tmp_path, digit_dir):
    settings = settings_for(digit_dir)
    search.run_sweep(tmp_path / "here", settings, pool=LocalPool(2, threads=1))
    pool = open_pool(ray=cluster.address)
    pool.marks.add(tmp_path / "there/runs" / f".mark-{pool.token}")  # as if written already, so no node sees it
    search.run_sweep(tmp_path / "there", settings, pool=pool)
    assert table(tmp_path / "there") == table(tmp_path / "here")
    assert not list((Path(tempfile.gettempdir()) / f"gansmith-{pool.token}").glob("*"))  # nothing is left on the node
    for run in (tmp_path / "there/runs").iterdir():
        assert open_run(run).latest() is not None


@pytest.mark.slow
def test_a_cluster_that_does_not_answer_is_said(gansmith):
    pytest.importorskip("ray")
    code, _, err = gansmith("sweep", "mlp-small", "--search", "g-lr", "--ray", "127.0.0.1:1", "--images", "128")
    assert code == 2 and "no Ray cluster answers at '127.0.0.1:1'" in err and "Connection refused" in err


# PostgreSQL, started by the test.


def postgres_program(name):
    """Return a program of PostgreSQL, from PATH, Debian's folders, or a wheel that brings it."""
    found = shutil.which(name) or next((str(path) for path in Path("/usr/lib/postgresql").glob(f"*/bin/{name}")), None)
    if found is None:
        with contextlib.suppress(ImportError):
            from pgserver._commands import POSTGRES_BIN_PATH

            found = str(POSTGRES_BIN_PATH / name)
    return found or pytest.skip(f"PostgreSQL's {name} is not installed")


@pytest.fixture
def postgres():
    """The address of a new PostgreSQL server, which root may not run."""
    pytest.importorskip("psycopg")
    folder, user = Path(tempfile.mkdtemp(prefix="gansmith-")), {}  # where another user may go
    if os.getuid() == 0:
        user = {"user": pwd.getpwnam("nobody").pw_uid, "group": pwd.getpwnam("nobody").pw_gid, "extra_groups": []}
        os.chown(folder, user["user"], user["group"])
    place, port = folder / "data", 54_321 + os.getpid() % 1000
    how = {"check": True, "capture_output": True, "cwd": folder, **user}
    subprocess.run([postgres_program("initdb"), "-D", place, "-U", "gan", "-A", "trust", "--no-sync"], **how)
    server = [
        postgres_program("pg_ctl"),
        "-D",
        place,
        "-w",
        "-l",
        folder / "log",
        "-o",
        f"-p {port} -k {folder} -h 127.0.0.1",
    ]
    subprocess.run([*server, "start"], **{**how, "capture_output": False, "stdout": subprocess.DEVNULL})
    yield f"postgresql+psycopg://gan@127.0.0.1:{port}/postgres"
    subprocess.run([postgres_program("pg_ctl"), "-D", place, "-m", "immediate", "stop"], **how)
    shutil.rmtree(folder)


@pytest.mark.slow
def test_two_machines_share_a_postgresql_study_and_one_is_killed(postgres, tmp_path, digit_dir):
    settings = settings_for(digit_dir, images=20_000)
    search.run_sweep(tmp_path / "here", settings, pool=LocalPool(2, threads=1))
    given = {**choices_for(digit_dir, 20_000), "images": 20_000}
    flags = [f"--{name.replace('_', '-')}={value}" for name, value in given.items()]
    method = ["--search", "g-lr=1e-4,1e-3,g-width=4,8,16", "--sampler", "grid", "--prune", "none"]
    words = [sys.executable, "-m", "gansmith", "sweep", "mlp-small", *flags, *method, "--storage", postgres]
    hosts = [subprocess.Popen([*words, "--study", "shared", "--out", name]) for name in ("one", "two")]
    wait_until(lambda: any((tmp_path / "two/runs").glob("*/metrics.jsonl")), seconds=120)
    hosts[1].kill()
    hosts[1].wait()
    assert hosts[0].wait(300) == 0
    subprocess.run([*words, "--study", "shared", "--out", "two"], check=True)
    assert table(tmp_path / "one", postgres) == table(tmp_path / "here")
    mine, theirs = ({path.name for path in (tmp_path / name / "runs").iterdir()} for name in ("one", "two"))
    assert not mine & theirs and len(mine | theirs) == 6 and mine and theirs
