"""Processes that share memory get each other's tensors, whole and in the order of the processes."""

import contextlib
import os
import subprocess
import sys
import threading

import pytest
import torch

from gansmith import exchange, processes
from gansmith.exchange import PeerLost, SharedMemory, new_file

pytestmark = pytest.mark.skipif(not exchange.is_possible(2), reason="for systems whose processes can share memory so")


def together(count, work):
    """Return what `work(memory, number)` returns for each of so many sides, in threads as if they were processes."""
    found = [None] * count
    with new_file(count) as path:
        sides = [SharedMemory(path, number, count, timeout_s=20) for number in range(count)]
    assert not os.path.exists(path)

    def run(number):
        found[number] = work(sides[number], number)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 5), (1_000_003,)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bool, torch.int64])
def test_all_get_what_all_give(monkeypatch, shape, dtype):
    monkeypatch.setattr(exchange, "PLACE_BYTES", 2**20)  # so that the largest takes several exchanges
    given = [(torch.arange(torch.Size(shape).numel()) * (k + 1) % 7).view(shape).to(dtype) for k in range(3)]
    for found in together(3, lambda memory, number: memory.gather(given[number])):
        torch.testing.assert_close(found, torch.stack(given), rtol=0, atol=0)


def test_totals_are_added_in_one_order_and_are_the_same_to_the_last_bit():
    given = [[torch.randn(n, generator=torch.Generator().manual_seed(k)) * 10.0**k for n in (35, 1)] for k in range(4)]
    joined = [torch.cat(parts) for parts in given]
    wanted = ((joined[0] + joined[1]) + joined[2]) + joined[3]
    for found in together(4, lambda memory, number: memory.total(given[number])):
        torch.testing.assert_close(found, wanted, rtol=1e-6, atol=1e-4)
        assert torch.equal(found, together(4, lambda memory, number: memory.total(given[number]))[0])


def test_a_fast_process_overwrites_nothing_that_a_slow_one_has_yet_to_read():
    def work(memory, number):
        found = []
        for k in range(300):
            if number == k % 2:
                threading.Event().wait(0.001 * (k % 3))
            found.append(memory.total([torch.full((50,), float(k + number))]))
        return torch.stack(found)

    wanted = (2 * torch.arange(300.0) + 1).repeat_interleave(50).view(300, 50)
    for found in together(2, work):
        torch.testing.assert_close(found, wanted, rtol=0, atol=0)


def test_what_was_given_out_stays_as_it_is():
    first, second = together(2, lambda memory, number: [memory.gather(torch.ones(2) * k + number) for k in range(4)])
    assert torch.stack(first).tolist() == [[[k, k], [k + 1, k + 1]] for k in range(4)]
    torch.testing.assert_close(first, second, rtol=0, atol=0)


@pytest.mark.slow
def test_a_process_that_ends_is_missed_soon():
    code = "import sys; from gansmith.exchange import SharedMemory; SharedMemory(sys.argv[1], 1, 2, 60.0)"
    with new_file(2) as path:
        memory = SharedMemory(path, 0, 2, timeout_s=600)
        subprocess.run([sys.executable, "-c", code, path], check=True)
    with pytest.raises(PeerLost):
        memory.total([torch.ones(3)])


def test_a_process_that_does_not_come_is_waited_for_until_the_time_out():
    with new_file(2) as path:
        memory = SharedMemory(path, 0, 2, timeout_s=0.2)
    with pytest.raises(PeerLost):
        memory.gather(torch.ones(3))


def test_memory_that_is_not_there_is_noticed_before_it_is_used(monkeypatch):
    def full(file, offset, size):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with contextlib.ExitStack() as held:
        assert processes._file_in(held) is None  # so gloo is used
