"""Threads, memory, bfloat16 and the device of the machine a run trains on."""

import contextlib
import json
import math
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from gansmith import environment, planning
from gansmith.config import Config, resolve
from gansmith.data.images import ImageSpec
from gansmith.errors import ConfigError
from gansmith.networks import build_networks
from gansmith.runs import open_run, write_config
from gansmith.training import budget, loop, machine
from gansmith.training.machine import find_device, gains_by_bf16, has_fast_bf16, training_machine, use_threads


@pytest.fixture
def _own_threads():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("_own_threads")
def test_training_gives_threads_and_memory_back_also_after_a_failure(tiny, monkeypatch):
    tuned = []
    monkeypatch.setattr(machine, "_tune_malloc", tuned.append)
    torch.set_num_threads(1)
    with pytest.raises(ValueError, match="in training"), training_machine(tiny(threads=2)):
        assert torch.get_num_threads() == 2
        raise ValueError("in training")
    assert torch.get_num_threads() == 1
    assert tuned == [machine._MALLOC_TRAINING, machine._MALLOC_DEFAULTS]


@pytest.mark.usefixtures("_own_threads")
def test_zero_threads_are_one_for_each_core_the_process_may_use(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 3}, raising=False)
    torch.set_num_threads(1)
    use_threads(0)
    assert torch.get_num_threads() == 2
    monkeypatch.delattr(os, "sched_getaffinity")  # as on macOS and Windows
    monkeypatch.setattr(os, "cpu_count", lambda: 3)
    use_threads(0)
    assert torch.get_num_threads() == 3
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    use_threads(0)
    assert torch.get_num_threads() == 1


@pytest.mark.parametrize("platform", ["darwin", "win32"])
def test_only_glibc_is_tuned(monkeypatch, platform):
    monkeypatch.setattr(sys, "platform", platform)
    monkeypatch.setattr(machine.ctypes, "CDLL", lambda name: pytest.fail("another C library was opened"))
    machine._tune_malloc(machine._MALLOC_TRAINING)
    machine._use_huge_pages()


@pytest.mark.skipif(not Path("/sys/kernel/mm/transparent_hugepage").is_dir(), reason="this kernel has no huge pages")
def test_the_heap_asks_for_huge_pages_and_has_room_in_them():
    program = """
from pathlib import Path
from gansmith.config import Config
from gansmith.training import machine
with machine.training_machine(Config()):
    parts = Path("/proc/self/smaps").read_text().split("[heap]")[1:]
    advised = [part for part in parts if " hg" in part.split("VmFlags:")[1].splitlines()[0]]
    print(sum(int(part.split("Size:")[1].split()[0]) // 1024 for part in advised))
"""
    shown = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert 250 <= int(shown.stdout) <= 2000  # MiB


def test_bfloat16_is_used_where_the_cpu_multiplies_it_fast(tiny, monkeypatch):
    def capable(**found):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: found)

    _, small = build_networks(tiny("mlp-small"), ImageSpec(28, 1, 0))
    _, convolutional = build_networks(tiny("dcgan-keras"), ImageSpec(28, 1, 0))
    capable()
    assert not has_fast_bf16() and not gains_by_bf16(tiny("mlp-small"), small)
    capable(avx512_bf16=True)
    assert has_fast_bf16() and gains_by_bf16(tiny("mlp-small"), small)
    capable(avx512_bf16=True, amx_bf16=True)  # casting costs more than small dense layers gain
    assert has_fast_bf16() and not gains_by_bf16(tiny("mlp-small"), small)
    assert gains_by_bf16(tiny("dcgan-keras"), convolutional)


@pytest.mark.parametrize("chosen", ["20000", "3000"])
def test_a_users_choice_of_how_threads_wait_is_kept(chosen):
    environment = {name: value for name, value in os.environ.items() if name != "GOMP_SPINCOUNT"}
    if chosen != "20000":
        environment["GOMP_SPINCOUNT"] = chosen
    probe = "import os, gansmith; print(os.environ['GOMP_SPINCOUNT'])"
    shown = subprocess.run([sys.executable, "-c", probe], env=environment, capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == chosen


def test_a_device_that_is_not_here_is_refused_and_auto_is_the_cpu_without_one(monkeypatch):
    monkeypatch.setattr(machine, "accelerator", lambda: None)
    assert find_device("auto") == find_device("cpu") == torch.device("cpu")
    for asked in ("cuda", "cuda:1", "mps"):
        with pytest.raises(ConfigError, match=f"device is {asked}, and torch .* finds none here; give cpu"):
            find_device(asked)
    monkeypatch.setattr(machine, "accelerator", lambda: torch.device("mps"))
    assert find_device("auto") == find_device("mps") == torch.device("mps")
    with pytest.raises(ConfigError, match="give cpu or mps"):
        find_device("cuda")
    with pytest.raises(ConfigError, match="device is 'gpu'; it must be auto, cpu, cuda"):
        Config(device="gpu")


@pytest.fixture
def gpus(monkeypatch):
    """Two GPUs, of which the first is torch's current one; gives those that were made the current one in turn."""
    current = []

    @contextlib.contextmanager
    def hold(device):
        current.append(device)
        yield
        current.append(None)

    for name, value in {"is_available": True, "device_count": 2, "current_device": 0}.items():
        monkeypatch.setattr(torch.cuda, name, lambda value=value: value)
    monkeypatch.setattr(torch.cuda, "device", hold)
    return current


def test_a_run_on_the_second_gpu_has_it_as_the_current_one(gpus, tiny):
    with training_machine(tiny(device="cuda:1")):
        assert gpus == [torch.device("cuda:1")] and torch.are_deterministic_algorithms_enabled()
    assert gpus == [torch.device("cuda:1"), None] and not torch.are_deterministic_algorithms_enabled()
    with training_machine(tiny(device="cpu")):
        assert len(gpus) == 2 and not torch.are_deterministic_algorithms_enabled()
    with pytest.raises(ConfigError, match="this machine has 2; give cuda:0"), training_machine(tiny(device="cuda:2")):
        pass


def test_bfloat16_is_asked_of_the_gpu_that_trains(gpus, tiny, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: gpus[-1].index == 1)
    for index, gains in enumerate((False, True)):
        D = SimpleNamespace(parameters=lambda k=index: iter([SimpleNamespace(device=torch.device("cuda", k))]))
        assert gains_by_bf16(tiny(), D) is gains


@pytest.mark.parametrize(
    ("asked", "shares", "message"),
    [
        ("cuda:1", False, "device is cuda:1, one GPU for 4 processes; give cuda"),
        ("mps", False, "device is mps, through which 4 processes cannot exchange tensors; give cpu"),
        ("cuda", True, "more processes than GPUs .2 here.; .*--nproc-per-node 2, or give --device cpu"),
        ("auto", True, "more processes than GPUs"),
    ],
)
def test_devices_that_several_processes_cannot_share_are_refused(gpus, monkeypatch, asked, shares, message):
    monkeypatch.setattr(machine, "count", lambda: 4)
    monkeypatch.setattr(machine, "shares_gpu", lambda: shares)
    with pytest.raises(ConfigError, match=message):
        find_device(asked)
    assert find_device("cpu") == torch.device("cpu")
    if not shares:
        assert find_device("cuda") == find_device("auto") == torch.device("cuda", 0)


def test_several_processes_on_a_mac_train_on_its_processor(monkeypatch):
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert find_device("auto") == torch.device("mps")
    monkeypatch.setattr(machine, "count", lambda: 2)
    assert find_device("auto") == torch.device("cpu") and machine.accelerator() is None


def test_an_accelerator_trains_with_adam_unless_asked(gpus):
    config = resolve("default", arguments={"d_optimizer": "soap"})
    notices = []
    fitted = planning._fitted_to_device(config.replace(device="cpu"), None, notices, is_new=True)
    assert fitted.g_optimizer == "soap" and not notices
    fitted = planning._fitted_to_device(config.replace(device="cuda"), None, notices, is_new=True)
    assert (fitted.g_optimizer, fitted.d_optimizer) == ("adam", "soap")
    assert notices == ["g_optimizer is adam, not soap: the device is cuda"]
    kept = planning._fitted_to_device(config.replace(device="cuda"), None, notices, is_new=False)
    assert kept.g_optimizer == "soap" and len(notices) == 1


@pytest.mark.parametrize("rates", [{"cuda": 9e4, "cpu": 2e3}, {"cuda": 1e3, "cpu": 2e3}])
def test_auto_takes_the_device_that_is_faster_for_the_recipe_and_keeps_it(gpus, monkeypatch, rates):
    measured = []

    def measure(config, data, seconds, at_most_s):
        assert (at_most_s < math.inf) == (config.device == "cpu")  # which may be too slow for whole cycles
        measured.append((config.device, config.g_optimizer))
        return rates[config.device]

    monkeypatch.setattr(budget, "images_per_s", measure)
    config, (sentence,) = budget.choose_device(resolve("default"), None, is_new=True)
    best = max(rates, key=rates.get)
    assert config.device == best
    assert sentence.startswith(f"device is {best}, the faster one") and f"cpu {rates['cpu']:,.0f} images/s" in sentence
    assert measured == [("cuda", "adam"), ("cpu", "soap")]  # what each would train with
    assert budget.choose_device(config, None, is_new=False) == (config, [])
    again = planning._as_begun(resolve("default"), config, has_length=True)
    assert again.device == best and len(measured) == 2
    assert (
        planning._as_begun(resolve("default", arguments={"device": "auto"}), config, has_length=True).device == "auto"
    )
    budget.choose_device(resolve("default"), None, is_new=False)
    assert measured[2:] == [("cuda", "soap"), ("cpu", "soap")]  # a run keeps its optimisers


@pytest.mark.parametrize("error", [RuntimeError("CUDA error: busy\nmore"), torch.OutOfMemoryError("CUDA error: busy")])
def test_an_accelerator_that_fails_is_not_taken(gpus, monkeypatch, error):
    def measure(config, data, seconds, at_most_s):
        if config.device == "cuda":
            raise error
        return 2e3

    monkeypatch.setattr(budget, "images_per_s", measure)
    config, notices = budget.choose_device(Config(), None, is_new=True)
    assert config.device == "cpu" and notices == ["device is cpu, for cuda cannot train this: CUDA error: busy"]
    monkeypatch.setattr(budget.processes, "count", lambda: 2)  # the other process waits for this one
    with pytest.raises(RuntimeError, match="busy"):
        budget.choose_device(Config(), None, is_new=True)


def test_too_little_memory_on_a_device_is_said_and_recorded(gansmith, tiny, run_training, monkeypatch):
    run = run_training(tiny("mlp-small"))

    def fail(state):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")

    monkeypatch.setattr(loop, "advance", fail)
    code, _, err = gansmith("resume", run.directory, "--images", 320, "--progress", "none")
    assert code == 2 and "takes more memory than the device has; ask for fewer" in err and err.count("\n") == 1
    facts = open_run(run.directory).facts()
    assert facts["status"] == "failed" and "too little memory; begin again with a smaller batch_size" in facts["reason"]


def test_doctor_measures_what_mnist_is_trained_with(monkeypatch):
    measured = []
    monkeypatch.setattr(environment, "images_per_s", lambda config, data, seconds: measured.append(config) or 1.0)
    environment._images_per_s("default", torch.device("cpu"), 0.1)
    assert (measured[0].g_optimizer, measured[0].d_optimizer) == ("soap", "soap")


def test_a_run_that_goes_on_for_minutes_is_scored_by_the_same_evaluators(tiny, run_training, monkeypatch):
    run = run_training(tiny("mlp-small"))
    assert set(run.validation_scores()[-1]["ratios"]) == {"trained", "random"}
    kept = [{**row, "ratios": {"random": row["ratios"]["random"]}} for row in run.validation_scores()]
    run.metrics_path.write_text("".join(json.dumps(row) + "\n" for row in kept))
    monkeypatch.setattr(budget, "config_for_time", lambda config, data, seconds: config)
    assert list(planning.plan_resume(run.directory, minutes=1).data.scorer.networks) == ["random"]


def test_a_run_goes_on_without_the_device_it_had(tiny, run_training):
    run = run_training(tiny("mlp-small"))
    write_config(run.directory, run.config.replace(device="cuda:7"))
    plan = planning.plan_resume(run.directory, images=320)
    assert plan.run.config.device == "auto" and "device is auto, not cuda:7, which this machine lacks" in plan.notices
    assert planning.plan_resume(run.directory, images=320, device="cpu").run.config.device == "cpu"


SWITCHES = """
import os
import torch
from gansmith.training.machine import repeatable
matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
def state():
    found = [matmul.fp32_precision, cudnn.conv.fp32_precision, cudnn.rnn.fp32_precision]
    for read in (lambda: cudnn.allow_tf32, torch.get_float32_matmul_precision):
        try:
            found.append(read())
        except RuntimeError:
            found.append("mixed")
    return found
for set_before in (
    "pass", "matmul.allow_tf32 = True", "cudnn.allow_tf32 = False", "torch.set_float32_matmul_precision('medium')",
    "torch.backends.fp32_precision = 'tf32'", "matmul.fp32_precision = 'tf32'",
):
    if os.fork():
        os.wait()
        continue
    exec(set_before)
    before = state()
    with repeatable():
        inside = state()[:3]
    print("tf32" in inside, state() == before, flush=True)
    os._exit(0)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="each of torch's switches is set in a copy of one process")
def test_tf32_is_off_in_a_run_and_as_before_after_it_whichever_way_a_program_set_it():
    ran = subprocess.run([sys.executable, "-c", SWITCHES], capture_output=True, text=True, timeout=60, check=False)
    assert ran.stdout.splitlines() == ["False True"] * 6, ran.stdout + ran.stderr[-600:]
