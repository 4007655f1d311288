"""Several processes train as one: the same steps, the same checkpoints, one stop."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import safetensors.torch
import torch
from conftest import TINY, flags, wait_until

from gansmith import processes
from gansmith.config import resolve
from gansmith.errors import ConfigError, ProcessLost
from gansmith.exchange import PeerLost
from gansmith.recipes import RECIPES
from gansmith.runs import create_run, open_run
from gansmith.training.inputs import load_training_data
from gansmith.training.loop import train_events

STEPS = 20
# Without Adam, whose first steps are of one size however small a gradient is, and so enlarge rounding to a step.
PLAIN = {"g_optimizer": "sgd", "d_optimizer": "sgd", "g_lr": 1e-2, "d_lr": 1e-2}
CHOICES = {
    "batch_size": 16, "images": 16 * STEPS, "latent_dim": 8, "clusters": 4, "clusters_per_class": 2, "threads": 1,
    "trackers": "none", "precision": "float32", "minibatch_stddev": 4, "log_every": 16, "conditioning": "auto",
    "calibrate_output": False, "clip_grad_norm": 1.0, "device": "cpu",
}  # fmt: skip
# Trains each recipe that it is given, in turn, in a directory of the same name.
TRAIN = """
import json, sys
from gansmith import api, planning
for name, recipe, choices in json.load(open(sys.argv[1])):
    plan = planning.plan_training(recipe, out=sys.argv[2] + "/" + name, choices=choices)
    api.run_training(plan, progress="none")
"""


def environment(number, count, port, **more):
    """Return what torchrun sets for a process."""
    launched = {"RANK": number, "LOCAL_RANK": number, "WORLD_SIZE": count, "LOCAL_WORLD_SIZE": count}
    launched |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "OMP_NUM_THREADS": 1, "GANSMITH_TIMEOUT": 60}
    launched |= {"GANSMITH_DEVICE": "cpu", **more}  # there may be fewer GPUs
    return {**os.environ, **{name: str(value) for name, value in launched.items()}}


def start(words, count, **more):
    """Start a Python command in so many processes, as torchrun would."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    return [
        subprocess.Popen(
            [sys.executable, *map(str, words)],
            env=environment(number, count, port, **more),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in range(count)
    ]


def finish(started, *, seconds=240):
    """Return the exit codes and what was printed, by process."""
    printed = [process.communicate(timeout=seconds) for process in started]
    return [process.returncode for process in started], [out for out, _ in printed], [err for _, err in printed]


def tensors_of(run):
    return safetensors.torch.load_file(run.latest() / "state.safetensors")


def figures_of(run):
    """Return the losses of every step, and everything a checkpoint holds as one vector for each network."""
    names = ("d_loss", "g_loss", "d_real", "d_fake")
    losses = [row[name] for row in run.log for name in names if row.get(name) is not None]
    return torch.tensor(losses, dtype=torch.float64), tensors_of(run)


def assert_same(alone, shared, *, tolerance):
    losses, tensors = figures_of(alone)
    other_losses, other_tensors = figures_of(shared)
    torch.testing.assert_close(other_losses, losses, rtol=0, atol=tolerance)
    assert tensors.keys() == other_tensors.keys()
    for name, value in tensors.items():
        size = max(1.0, value.double().abs().max().item())
        torch.testing.assert_close(
            other_tensors[name].double(), value.double(), rtol=0, atol=tolerance * size, msg=name
        )


def assert_same_to_rounding(tmp_path, case, alone, shared):
    """The same to 1e-5, or to three times what a second thread changes, which sums in another order.

    Where a pre-activation lies within rounding of the kink of a ReLU, as in dcgan-sgd at step 9, either changes sign.
    """
    try:
        assert_same(alone, shared, tolerance=1e-5)
    except AssertionError:
        name, recipe, choices = case
        (control,) = train_alone(tmp_path / "two-threads", [(name, recipe, {**choices, "threads": 2})])
        changed = (figures_of(control)[0] - figures_of(alone)[0]).abs().max().item()
        assert_same(alone, shared, tolerance=max(1e-5, 3 * changed))


def train_together(tmp_path, cases, count=2):
    (tmp_path / "cases.json").write_text(json.dumps(cases))
    codes, out, err = finish(start(["-c", TRAIN, tmp_path / "cases.json", tmp_path / "shared"], count))
    assert codes == [0] * count, err
    assert not any(out) and not any(err[1:]), (out, err)
    return [open_run(tmp_path / "shared" / name) for name, *_ in cases]


def train_alone(tmp_path, cases):
    runs = []
    for name, recipe, choices in cases:
        config, data = load_training_data(resolve(recipe, arguments=choices))
        run = create_run(tmp_path / "alone" / name, config)
        for _ in train_events(run, data):
            pass
        runs.append(run)
    return runs


def cases_of(recipes, digit_dir, **more):
    """Return small cases of recipes, by plain gradient descent."""
    choices = {**CHOICES, **PLAIN, "g_width": 32, "d_width": 32, "data_dir": str(digit_dir), **more}
    own = {"conditioning": "none", "minibatch_stddev": 4}
    return [(name, name, choices | own if RECIPES[name].get("conditioning") == "none" else choices) for name in recipes]


def test_alone_every_function_returns_at_once():
    rows = torch.arange(6.0)
    assert (processes.count(), processes.number(), processes.is_first(), processes.count_here()) == (1, 0, True, 1)
    assert processes.agreed(lambda: [1, "a"]) == [1, "a"] and processes.any_of(True, False) == [True, False]
    with processes.sharing(6), processes.first_alone():
        assert not processes.is_sharing() and processes.all_rows(6) == 6
        for function in (processes.own_rows, processes.whole, processes.mean, processes.totals, processes.split):
            assert function(rows) is rows or torch.equal(function(rows), rows)
        assert processes.average([rows])[0] is rows and processes.joined_rows(rows, 6) is rows


def test_rows_of_a_whole_batch_fall_to_processes_in_blocks(monkeypatch):
    found = []
    for number in range(2):
        monkeypatch.setattr(processes, "_share", processes._Share(number, 2, 3))
        found.append(processes.own_rows(torch.arange(12)).tolist())  # a pass over real and generated images
        assert processes.own_rows(torch.arange(24).view(2, 12), dim=1)[0].tolist() == found[-1]
        assert processes.all_rows(6) == 12
    assert found == [[0, 1, 2, 6, 7, 8], [3, 4, 5, 9, 10, 11]]
    monkeypatch.setattr(processes, "_share", processes._Share(1, 2, 32))  # a quarter of the images, turned three times
    assert processes.own_rows(torch.arange(48)).tolist() == [*range(8, 16), *range(24, 32), *range(40, 48)]


@pytest.mark.parametrize(("batch", "group", "rule"), [(15, 0, "multiple of 2, such as 16"), (12, 4, "multiple of 8")])
def test_a_batch_that_processes_cannot_share_is_refused(monkeypatch, tiny, batch, group, rule):
    monkeypatch.setattr("gansmith.training.conflicts.count", lambda: 2)
    with pytest.raises(ConfigError, match=f"2 processes cannot share evenly.*{rule}"):
        load_training_data(tiny("default", batch_size=batch, minibatch_stddev=group))


@pytest.mark.parametrize("text", ["soon", "0", "-3", "nan"])
def test_a_time_out_that_is_not_a_number_is_refused(monkeypatch, text):
    monkeypatch.setenv("GANSMITH_TIMEOUT", text)
    with pytest.raises(ConfigError, match="give a number of seconds"):
        processes._timeout_s()


def test_a_lost_process_is_told_of_in_the_words_of_the_error(monkeypatch):
    monkeypatch.setattr(processes, "_is_lost", False)
    for error, words in (
        (RuntimeError("Connection reset\nmore"), "others (Connection reset): "),
        (PeerLost(), "others: "),
    ):
        with pytest.raises(ProcessLost) as told, processes._answered():
            raise error
        assert words in str(told.value)


# Joins on a machine that seems to have so many GPUs, and says which devices its process would take.
JOIN = """
import sys
from types import SimpleNamespace
import torch

gpus = torch.cuda
gpus.is_available, gpus.device_count, gpus.chosen = lambda: True, lambda: int(sys.argv[1]), 0
gpus.set_device, gpus.current_device = lambda number: setattr(gpus, "chosen", number), lambda: gpus.chosen
gpus.get_device_properties = lambda number: SimpleNamespace(uuid=f"GPU-{number}")
torch.distributed.is_nccl_available = lambda: False
from gansmith import processes
from gansmith.errors import ConfigError
from gansmith.training.machine import find_device

processes.join()
for asked in ("cpu", "cuda", "auto"):
    try:
        print(find_device(asked))
    except ConfigError as error:
        print(error)
"""


@pytest.mark.slow
def test_more_processes_than_gpus_are_refused(tmp_path):
    codes, out, err = finish(start(["-c", JOIN, 2], 2))
    assert codes == [0, 0], err
    assert [text.split() for text in out] == [["cpu", "cuda:0", "cuda:0"], ["cpu", "cuda:1", "cuda:1"]]
    codes, out, err = finish(start(["-c", JOIN, 1], 2))
    assert codes == [0, 0], err
    for text in out:
        cpu, *refused = text.splitlines()
        assert cpu == "cpu" and len(refused) == 2
        assert all("more processes than GPUs (1 here)" in line and "give --device cpu" in line for line in refused)


def test_two_processes_train_as_one(tmp_path, digit_dir):
    """Batch normalisation, R1 and R2, groups of the minibatch deviation; and a score."""
    cases = cases_of(["default"], digit_dir)
    (run,), (alone,) = train_together(tmp_path, cases), train_alone(tmp_path, cases)
    assert_same(alone, run, tolerance=1e-5)
    scores = [opened.metrics[-1]["validation_fd_ratio"] for opened in (alone, run)]
    assert scores[0] == pytest.approx(scores[1], rel=1e-3)
    assert run.facts()["status"] == "finished" and (run.directory / "grid.png").is_file()
    assert len(run.grids()) == len(alone.grids())


# What recipes do not show: every way in which images of a batch meet each other, or chance.
COMBINATIONS = {
    "augmented": ("default", {"augment": "diffaugment", "instance_noise": 0.2, "replay": 0.3, "replay_size": 24}),
    "adaptive": ("default", {"augment": "adaptive"}),
    "boundary": ("mlp-small", {"objective": "boundary-equilibrium", "network": "autoencoder", "minibatch_stddev": 0}),
    "average": ("mlp-small", {"objective": "relativistic-average", "feature_matching": 0.1, "dragan": 1.0}),
    "flipped": ("dcgan-sgd", {"label_flipping": 0.5}),
    "bounded": ("mlp-keras", {"d_loss_bound": 0.69, "g_loss_bound": 0.69}),
    "rotated": ("default", {"d_rotation_loss": 1.0, "g_rotation_loss": 0.2, "augment": "shifts", "d_dropout": 0.1}),
    "hooked": ("mlp-small", {"fresh_fakes": True, "g_steps": 2}),
}


# Steps of each recipe that it is given, in float64, since some enlarge rounding a million times and more.
STEP = """
import json, sys
from dataclasses import replace
import safetensors.torch, torch
from gansmith import processes
from gansmith.config import resolve
from gansmith.training.batches import Batches, take_step
from gansmith.training.inputs import load_training_data
from gansmith.training.state import start_networks, to_tensors
from gansmith.training.techniques import build_techniques

torch.set_num_threads(1)
processes.join()
config, data = load_training_data(resolve(sys.argv[1], arguments=json.loads(sys.argv[2])))
torch.set_default_dtype(torch.float64)
networks = start_networks(config, data.spec, data.conditioning.codes)
for network in (networks.G, networks.D, networks.G_ema):
    network.double()
techniques, batches, losses = build_techniques(config, networks.D), Batches(config, data), []
for k in range(20):
    numbers = take_step(networks, techniques, batches, k * config.batch_size, k / 20)
    losses += [float(numbers[name]) for name in sorted(numbers)]
if processes.is_first():
    tensors = {name: value.contiguous() for name, value in to_tensors(networks, config).items()}
    safetensors.torch.save_file({**tensors, "losses": torch.tensor(losses)}, sys.argv[3])
"""


@pytest.mark.slow
@pytest.mark.parametrize("name", [*RECIPES, *COMBINATIONS])
def test_two_processes_take_the_steps_of_one(tmp_path, digit_dir, name):
    recipe, choices = COMBINATIONS.get(name, (name, {}))
    ((_, _, choices),) = cases_of([recipe], digit_dir, **choices)
    found = []
    for count in (1, 2):
        codes, _, err = finish(start(["-c", STEP, recipe, json.dumps(choices), tmp_path / f"{count}"], count))
        assert codes == [0] * count, err
        found.append(safetensors.torch.load_file(tmp_path / f"{count}"))
    assert found[0]["losses"].dtype == torch.float64
    torch.testing.assert_close(found[1], found[0], rtol=1e-8, atol=1e-8)


@pytest.mark.slow
@pytest.mark.parametrize("recipe", ["default", "mlp-keras", "dcgan-sgd", "r3gan"])
def test_checkpoints_move_between_one_two_and_four_processes(tmp_path, digit_dir, recipe):
    """One process takes the first steps, two the next, four the next, one the last; another takes all."""
    (case,) = cases_of([recipe], digit_dir)
    choices = case[2]
    words = [f"--{name.replace('_', '-')}={value}" for name, value in choices.items() if name != "images"]
    moved, alone = tmp_path / "moved", tmp_path / "alone"
    for count, steps in ((1, 5), (2, 10), (4, 15), (1, STEPS)):
        command = [
            "-m",
            "gansmith",
            "train",
            recipe,
            *words,
            f"--images={16 * steps}",
            f"--schedule-images={16 * STEPS}",
        ]
        codes, _, err = finish(start([*command, f"--out={moved}"], count))
        assert codes == [0] * count, err
    codes, _, err = finish(start([*command, f"--out={alone}"], 1))
    assert codes == [0], err
    assert_same_to_rounding(tmp_path, case, open_run(alone), open_run(moved))


# Trains with losses that are not read at every step, as on an accelerator, and says how each run failed.
UNREAD = """
import json, sys
from dataclasses import replace
from gansmith import TrainingFailed, api, planning
from gansmith.training import state, step, techniques

build = state.build_techniques
state.build_techniques = lambda *given: replace(build(*given), reads=False)
for module in (step, techniques):
    module.to_number = lambda scalar: scalar.detach().clone()
for name, choices in json.loads(sys.argv[1]).items():
    try:
        api.run_training(planning.plan_training("mlp-small", out=name, choices=choices), progress="none")
    except TrainingFailed as failure:
        print(failure)
"""


@pytest.mark.slow
def test_processes_go_back_together_from_what_is_not_finite(tmp_path, digit_dir):
    """Whether the log finds it, or a sample grid, which process 0 alone draws, or a checkpoint."""
    choices = {**TINY, "data_dir": str(digit_dir), "evaluate_every": 10**7, "g_lr": 1e18, "d_lr": 1e18}
    seldom = {"log_every": 128, "sample_every": 10**7, "save_every": 10**7}
    due = {"log": seldom, "grid": {**seldom, "sample_every": 32}, "save": {**seldom, "save_every": 32}}
    words = ["-c", UNREAD, json.dumps({name: choices | own for name, own in due.items()})]
    codes, out, err = finish(start(words, 2, GANSMITH_TIMEOUT=20))
    assert codes == [0, 0], err
    assert out[0] == out[1] and out[0].count("loss became NaN or infinite after") == len(due)
    for name in due:
        (row,) = [row for row in open_run(tmp_path / name).log if row.get("kind") == "failure"]
        assert row["failure"] == "not-finite"


# Chooses evaluators for ten minutes, in which process 0 alone would train one.
CHOOSE = """
import sys, torch
from gansmith import processes
from gansmith.data.images import Images
from gansmith.metrics import evaluator_training, evaluators
from gansmith.metrics.validation import ValidationScorer

processes.join()
evaluator_training.ON_DEMAND = 1
evaluators.training_seconds = lambda train: 1000 * processes.number()
draw = torch.Generator().manual_seed(0)
pixels = torch.randint(256, (200, 1, 16, 16), generator=draw, dtype=torch.uint8)
grey = Images(pixels, torch.arange(200) % 2, name="mine")
scorer = ValidationScorer(grey, grey)
scorer.prepare(600)
print({name: network.name for name, network in scorer.networks.items()})
if processes.number() == 1:
    evaluators.FEWEST_TO_TRAIN_ON = 1000  # as where a package is missing
try:
    ValidationScorer(grey, grey).prepare(600)
except processes.ConfigError as error:
    print(error)
"""


@pytest.mark.slow
def test_processes_score_with_the_same_evaluators(tmp_path):
    codes, out, err = finish(start(["-c", CHOOSE], 2, GANSMITH_TIMEOUT=20))
    assert codes == [0, 0], err
    assert out[0] == out[1] and "{'trained': 'trained-" in out[0] and "'random': 'random-" in out[0]
    assert out[0].endswith("lacks one of them; install the same packages on all machines\n")


SELDOM = {"evaluate_every": 10**7, "sample_every": 10**7}


def command(folder, digit_dir, **more):
    """Return a tiny run's command, with a log line every 100 steps, and few other chores."""
    words = flags(**{"images": 10**7, "log_every": 1600, "save_every": 10**7, **SELDOM, **more})
    return [
        "-m",
        "gansmith",
        "train",
        "mlp-small",
        *words,
        f"--data-dir={digit_dir}",
        "--progress=none",
        f"--out={folder}",
    ]


@pytest.mark.slow
def test_a_process_that_dies_ends_the_others_with_a_sentence_and_the_run_continues(tmp_path, digit_dir):
    words = command(tmp_path / "run", digit_dir, save_every=1600)
    started = start(words, 2)
    wait_until(lambda: any((tmp_path / "run" / "checkpoints").glob("0*")))
    started[1].kill()
    codes, _, err = finish(started, seconds=90)
    assert codes == [1, -signal.SIGKILL]
    assert err[0].count("\n") == 1 and "process 0 of 2 lost the others" in err[0]
    facts = open_run(tmp_path / "run").facts()
    assert facts["status"] == "failed" and "lost the others" in facts["reason"]  # not queued again by slurm.sh
    saved = open_run(tmp_path / "run").latest()
    started = start(words, 2)
    wait_until(lambda: open_run(tmp_path / "run").latest() != saved)
    started[0].send_signal(signal.SIGTERM)
    assert finish(started, seconds=90)[0] == [143, 143]
    assert open_run(tmp_path / "run").log[0]["images_seen"] == 1600  # one run, from its first row


@pytest.mark.slow
@pytest.mark.parametrize("number", [0, 1])
def test_a_signal_to_any_process_saves_first(tmp_path, digit_dir, number):
    started = start(command(tmp_path / "run", digit_dir), 2)
    wait_until(lambda: (tmp_path / "run" / "log.jsonl").is_file())
    started[number].send_signal(signal.SIGTERM)
    codes, out, err = finish(started, seconds=90)
    run = open_run(tmp_path / "run")
    assert codes == [143, 143], err
    assert "stopped and saved" in out[0] and not out[1] and not any(err)
    assert run.facts()["status"] == "stopped" and run.latest() is not None
    assert int(run.latest().name) >= run.log[-1]["images_seen"]


@pytest.mark.slow
def test_torchrun_repeats_a_run_whose_process_was_killed(tmp_path, digit_dir):
    words = ["-m", "torch.distributed.run", "--nproc-per-node=2", "--max-restarts=1"]
    words += command(tmp_path / "run", digit_dir, images=64_000, save_every=1600)
    job = subprocess.Popen([sys.executable, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    wait_until(lambda: any((tmp_path / "run" / "checkpoints").glob("0*")), seconds=120)
    os.kill(open_run(tmp_path / "run").facts()["pid"], signal.SIGKILL)
    out, err = job.communicate(timeout=240)
    assert job.returncode == 0, err
    run = open_run(tmp_path / "run")
    assert run.facts()["status"] == "finished" and len(run.facts()["starts"]) == 2
    seen = [row["images_seen"] for row in run.log if "d_loss" in row]
    assert seen == sorted(set(seen)) and seen[-1] == 64_000


@pytest.mark.slow
def test_torchrun_passes_a_signal_on_and_the_run_is_recorded_as_stopped(tmp_path, digit_dir):
    words = ["-m", "torch.distributed.run", "--nproc-per-node=2", "--max-restarts=1"]
    job = subprocess.Popen(
        [sys.executable, *words, *command(tmp_path / "run", digit_dir)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_until(lambda: (tmp_path / "run" / "log.jsonl").is_file(), seconds=120)
    job.send_signal(signal.SIGTERM)
    out, err = job.communicate(timeout=120)
    assert job.returncode == 1 and "stopped and saved" in out, err
    assert '"status": "stopped"' in (tmp_path / "run" / "run.json").read_text()  # as docs/cluster/slurm.sh reads it


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
@pytest.mark.parametrize(
    ("code", "status", "is_queued"),
    [(1, "stopped", True), (1, "failed", False), (1, None, False), (0, "finished", False)],
)
def test_a_job_whose_time_is_over_queues_itself_again(tmp_path, code, status, is_queued):
    """`srun` stands for a job that leaves run.json with this status, or as it was, and ends with this code."""
    run = tmp_path / "run"
    run.mkdir()
    (run / "asked").touch()
    (run / "run.json").write_text('{"status": "stopped", "starts": 1}')  # of the job before
    written = "" if status is None else f"""echo '{{"status": "{status}", "starts": 2}}' > "$RUN/run.json"; """
    for name, body in (
        ("srun", f'echo "$@" >> "$RUN/asked"; {written}exit {code}'),
        ("scontrol", 'echo "$@" >> "$RUN/asked"; echo node'),
    ):
        (tmp_path / name).write_text(f"#!/bin/bash\n{body}\n")
        (tmp_path / name).chmod(0o755)
    script = Path(__file__).parent.parent / "docs" / "cluster" / "slurm.sh"
    given = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "RUN": str(run), "SLURM_SUBMIT_DIR": str(tmp_path)}
    given |= {"SLURM_JOB_ID": "7", "SLURM_JOB_NUM_NODES": "2", "SLURM_JOB_NODELIST": "node[1-2]"}
    given |= {"SLURM_CPUS_PER_TASK": "16"}
    assert subprocess.run(["bash", script], env=os.environ | given).returncode == code
    asked = (run / "asked").read_text()
    assert ("requeue 7" in asked) is is_queued and "--cpus-per-task=16 torchrun --nnodes=2" in asked


@pytest.mark.slow
def test_process_0_alone_evaluates_and_other_commands_are_refused(tmp_path, tiny, run_training):
    run = run_training(tiny("mlp-small"))
    words = ["-m", "gansmith", "evaluate", run.directory, "--quick", "--count", 200]
    codes, out, err = finish(start(words, 2))
    assert codes == [0, 0], err
    assert "compared with" in out[0] and not out[1]
    assert len(run.metrics_on_own_data()) == len(run.validation_scores()) + 1
    codes, out, err = finish(start(["-m", "gansmith", "sweep", "mlp-small", "--search", "g-lr", "--images", 128], 2))
    assert codes == [2, 2] and not any(out) and not err[1] and not (tmp_path / "runs").exists()
    assert err[0].count("\n") == 1 and "each would sweep; start sweep without torchrun" in err[0]


@pytest.mark.slow
def test_minutes_are_the_same_length_for_all_processes(tmp_path, digit_dir):
    words = ["-m", "gansmith", "train", "mlp-small", *flags(), f"--data-dir={digit_dir}", "--minutes=0.2"]
    del words[words.index("--images") : words.index("--images") + 2]
    codes, out, err = finish(start([*words, f"--out={tmp_path / 'run'}"], 2))
    assert codes == [0, 0], err
    run = open_run(tmp_path / "run")
    assert run.facts()["status"] == "finished"
    assert 0 <= int(run.latest().name) - run.config.images < 16
    assert run.config.planned_images != run.config.images  # corrected half-way, to what process 0 measured


@pytest.mark.slow
def test_a_mistake_is_told_once(tmp_path):
    words = ["-m", "gansmith", "train", "default", "--batch-size=1", f"--out={tmp_path / 'run'}"]
    codes, _, err = finish(start(words, 2))
    assert codes == [2, 2]
    assert err[0].startswith("gansmith: batch_size is 1") and not err[1]
    assert not (tmp_path / "run").exists()
