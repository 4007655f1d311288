"""Threads, memory and bfloat16 of the machine a run trains on."""

import os
import subprocess
import sys

import pytest
import torch

from gansmith.data.images import ImageSpec
from gansmith.networks import build_networks
from gansmith.training import machine
from gansmith.training.machine import gains_by_bf16, has_fast_bf16, training_machine, use_threads


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
