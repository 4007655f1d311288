"""Threads, memory and bfloat16 of the machine a run trains on."""

import json
import os
import subprocess
import sys

import pytest
import torch

from gansmith import api
from gansmith.config import Config, resolve
from gansmith.data.images import ImageSpec
from gansmith.errors import ConfigError
from gansmith.networks import build_networks
from gansmith.runs import write_config
from gansmith.training import budget, machine
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


def test_an_accelerator_trains_with_adam_unless_asked(monkeypatch):
    config = resolve("default", arguments={"d_optimizer": "soap"})
    notices = []
    assert api._fitted_to_device(config.replace(device="cpu"), notices).g_optimizer == "soap" and not notices
    monkeypatch.setattr(api, "find_device", lambda asked: torch.device("cuda"))
    fitted = api._fitted_to_device(config, notices)
    assert (fitted.g_optimizer, fitted.d_optimizer) == ("adam", "soap")
    assert notices == ["g_optimizer is adam, not soap: the device is cuda"]


@pytest.mark.parametrize("rates", [{"cuda": 9e4, "cpu": 2e3}, {"cuda": 1e3, "cpu": 2e3}])
def test_auto_takes_the_device_that_is_faster_for_the_recipe(monkeypatch, rates):
    monkeypatch.setattr(budget, "accelerator", lambda: torch.device("cuda"))
    monkeypatch.setattr(budget, "images_per_s", lambda config, data, seconds: rates[config.device])
    config, (sentence,) = budget.choose_device(Config(), None)
    best = max(rates, key=rates.get)
    assert config.device == ("cpu" if best == "cpu" else "auto")
    assert sentence.startswith(f"device is {best}, the faster one") and f"cpu {rates['cpu']:,.0f} images/s" in sentence
    assert budget.choose_device(Config(device="cpu"), None) == (Config(device="cpu"), [])


def test_a_run_that_goes_on_for_minutes_is_scored_by_the_same_evaluators(tiny, run_training, monkeypatch):
    run = run_training(tiny("mlp-small"))
    assert set(run.validation_scores()[-1]["ratios"]) == {"trained", "random"}
    kept = [{**row, "ratios": {"random": row["ratios"]["random"]}} for row in run.validation_scores()]
    run.metrics_path.write_text("".join(json.dumps(row) + "\n" for row in kept))
    monkeypatch.setattr(budget, "config_for_time", lambda config, data, seconds: config)
    assert list(api.plan_resume(run.directory, minutes=1).data.scorer.networks) == ["random"]


def test_a_run_goes_on_without_the_device_it_had(tiny, run_training):
    run = run_training(tiny("mlp-small"))
    write_config(run.directory, run.config.replace(device="cuda:7"))
    plan = api.plan_resume(run.directory, images=320)
    assert plan.run.config.device == "auto" and "device is auto, not cuda:7, which this machine lacks" in plan.notices
    assert api.plan_resume(run.directory, images=320, device="cpu").run.config.device == "cpu"
