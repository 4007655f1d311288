"""Ctrl-C held back while what it would break is done, and let through where what it ends is long."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Hold back Ctrl-C until the block ends.

    A package whose import is interrupted stays half loaded, and fails until the process ends. Elsewhere than in the
    main thread, where no signal arrives, this does nothing.
    """
    before = signal.getsignal(signal.SIGINT)  # None for one of another language, which could not be put back
    if threading.current_thread() is not threading.main_thread() or before is None:
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

    Where it may not, and elsewhere than in the main thread, this does nothing.
    """
    caught: list[int] = []
    before = signal.getsignal(signal.SIGINT)
    if not may or threading.current_thread() is not threading.main_thread() or before is None:
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
