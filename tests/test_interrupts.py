"""Ctrl-C: what it may not break, and what it ends at once."""

import os
import signal
import subprocess
import sys
import threading

import numpy as np
import pytest

import gansmith as gs
from gansmith.interrupts import given_up_when_interrupted, uninterrupted
from gansmith.metrics import evaluator_training

FIRST_USE = """
import signal, gansmith as gs
def interrupt(*_):
    signal.raise_signal(signal.SIGINT)
signal.signal(signal.SIGALRM, interrupt)
signal.setitimer(signal.ITIMER_REAL, {seconds})
try:
    gs.train
except KeyboardInterrupt:
    print("interrupted")
signal.setitimer(signal.ITIMER_REAL, 0)
print(len(gs.NETWORKS) > 0, callable(gs.train))
"""


def interrupt():
    os.kill(os.getpid(), signal.SIGINT)


def test_ctrl_c_waits_until_the_block_has_ended():
    done = []
    with pytest.raises(KeyboardInterrupt):
        with uninterrupted():
            interrupt()
            done.append(1)
    assert done == [1] and signal.getsignal(signal.SIGINT) is signal.default_int_handler
    with uninterrupted():
        pass
    thread = threading.Thread(target=lambda: uninterrupted().__enter__())  # where no handler can be set
    thread.start()
    thread.join()


def test_a_long_block_is_given_up_where_ctrl_c_is_only_noted():
    noted = []
    before = signal.signal(signal.SIGINT, lambda number, _: noted.append(number))
    try:
        with given_up_when_interrupted() as found:
            interrupt()
            raise AssertionError("it went on")
        assert found == noted == [signal.SIGINT]
        with given_up_when_interrupted(may=False) as found:
            interrupt()
        assert found == [] and len(noted) == 2
    finally:
        signal.signal(signal.SIGINT, before)
    with pytest.raises(KeyboardInterrupt):  # where nobody notes it
        with given_up_when_interrupted():
            interrupt()


@pytest.mark.parametrize("seconds", [0.1, 0.5])
def test_an_interrupted_first_use_can_be_repeated(seconds):
    """A package whose import is interrupted stays half loaded, and every later use of it fails."""
    ran = subprocess.run(
        [sys.executable, "-c", FIRST_USE.format(seconds=seconds)], capture_output=True, text=True, timeout=120
    )
    assert ran.stdout.split() in (["interrupted", "True", "True"], ["True", "True"]), ran.stderr[-600:]


def test_an_evaluator_that_is_trained_first_is_given_up(tmp_path, monkeypatch):
    fitted = []

    def fit(*_):
        fitted.append(1)
        interrupt()
        raise AssertionError("the training of the evaluator went on")

    monkeypatch.setattr(evaluator_training, "_fit", fit)
    pixels = np.random.default_rng(0).integers(0, 256, (1200, 8, 8), np.uint8)
    choices = dict(g_width=4, d_width=4, batch_size=16, threads=1, progress="none")
    run = gs.train("default", data=(pixels, np.arange(1200) % 2), out=tmp_path / "run", images=10**6, **choices)
    assert (run.status, run.images_seen, len(fitted)) == ("stopped", 0, 1)
