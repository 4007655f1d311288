"""Ctrl-C held back while what it would break is done, and let through where what it ends is long."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any


def _handler() -> Any:
    """Return what handles Ctrl-C; None where that cannot be replaced for a while.

    It cannot elsewhere than in the main thread, where no signal arrives, nor where a program's other language set it.
    """
    return signal.getsignal(signal.SIGINT) if threading.current_thread() is threading.main_thread() else None


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Hold back Ctrl-C until the block ends.

    A package whose import is interrupted stays half loaded, and fails until the process ends. Where its handler cannot
    be replaced, this does nothing.
    """
    before = _handler()
    if before is None:
        yield
        return
    caught: list[int] = []
    signal.signal(signal.SIGINT, lambda number, _: caught.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        for number in caught:
            signal.raise_signal(number)


class _GivenUp(KeyboardInterrupt):
    pass


@contextmanager
def given_up_when_interrupted(*, may: bool = True) -> Iterator[list[int]]:
    """Let Ctrl-C end the block at once, where a handler of it only notes that it came; gives a list that says so then.

    Where it may not, or the handler cannot be replaced, this does nothing.
    """
    caught: list[int] = []
    before = _handler()
    if not may or before is None:
        yield caught
        return

    def note_and_leave(number: int, frame: FrameType | None) -> None:
        if callable(before):
            before(number, frame)
        caught.append(number)
        raise _GivenUp

    signal.signal(signal.SIGINT, note_and_leave)
    try:
        yield caught
    except _GivenUp:
        pass
    finally:
        signal.signal(signal.SIGINT, before)
