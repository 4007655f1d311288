"""Server-sent events: what is new in a run directory, read from its files alone.

A message holds everything that is new, and its id is a cursor: how many bytes of the logs, and which grid and
checkpoint, the reader has. So a page that reloads, or a server that starts again, goes on where the reader stopped. A
log that was rewritten (a run that was resumed at a checkpoint) no longer ends as the cursor says; then `reset` is sent
with all of it.
"""

import asyncio
import contextlib
import json
import re
import time
import zlib
from collections.abc import AsyncIterator, Callable
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

from gansmith import runs
from gansmith.checkpoints import named_checkpoints
from gansmith.errors import GansmithError, NotFoundError
from gansmith.files import finite
from gansmith.web import records

RUN_S, ALL_S, KEEP_ALIVE_S = 0.7, 1.0, 15.0
_TAIL = 64  # bytes before a cursor that are compared
_LOG_KEYS = (
    "images_seen", "d_loss", "g_loss", "d_real", "d_fake", "g_grad_norm", "d_grad_norm", "images_per_s", "elapsed_s",
    "kind", "failure", "message", "from", "to",
)  # fmt: skip
_METRIC_KEYS = ("images_seen", "tier", "validation_fd_ratio", "fd_ratio", "valid", "n", "ratios")


@dataclass(frozen=True)
class Cursor:
    """How far a reader is: bytes of each log with a checksum of what is before, newest grid and checkpoint, state."""

    log: int = 0
    log_tail: int = 0
    metrics: int = 0
    metrics_tail: int = 0
    grid: int = -1
    checkpoint: int = -1
    state: int = 0

    def to_text(self) -> str:
        return ".".join(map(str, astuple(self)))

    @classmethod
    def parse(cls, text: str) -> "Cursor":
        """Return the cursor of a message's id; the beginning for any other text."""
        if not re.fullmatch(r"-?\d{1,18}(\.-?\d{1,18}){6}", text):
            return cls()
        found = cls(*map(int, text.split(".")))
        return found if min(found.log, found.metrics) >= 0 else cls()


class Readings:
    """Readings of files that all share who ask for the same one within a period: one is made, in a thread.

    Args:
        period_s: its length in seconds; every reader waits until the next begins, so that they ask together.
    """

    def __init__(self, period_s: float) -> None:
        self.period_s = period_s
        self._period, self._made = -1, dict[Any, asyncio.Future[Any]]()
        self._closed = asyncio.Event()

    @property
    def is_closed(self) -> bool:
        """Whether the server ends, and readers with it."""
        return self._closed.is_set()

    def close(self) -> None:
        """Let every reader end at once."""
        self._closed.set()

    async def read(self, function: Callable[..., Any], *given: Any) -> Any:
        """Return what the function does for these arguments, which must be hashable."""
        period = int(time.monotonic() / self.period_s)
        if period != self._period:
            self._period, self._made = period, {}
        key = (function, *given)
        if key not in self._made:
            self._made[key] = asyncio.ensure_future(asyncio.to_thread(function, *given))
        return await asyncio.shield(self._made[key])  # for the others, where this reader leaves

    async def wait(self) -> None:
        """Wait until the next period begins, or until all is closed."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self.period_s - time.monotonic() % self.period_s):
                await self._closed.wait()


def read_news(directory: Path, cursor: Cursor) -> tuple[str, Cursor]:
    """Return what is new since a cursor as one JSON object, and the cursor after it; "" where nothing is."""
    run = runs.open_run(directory)
    found: dict[str, Any] = {}
    if cursor != Cursor() and _is_rewritten(run, cursor):
        cursor, found["reset"] = Cursor(), True
    log, log_end = runs.read_rows_after(run.log_path, cursor.log)
    metrics, metrics_end = runs.read_rows_after(run.metrics_path, cursor.metrics)
    grids = [seen for seen, _ in run.grids() if seen > cursor.grid]
    saved = [int(path.name) for path in named_checkpoints(directory) if int(path.name) > cursor.checkpoint]
    state = records.progress(run) | {"best": records.best_of(directory)}
    state_sum = zlib.crc32(json.dumps(state, sort_keys=True).encode())
    found |= {"log": [_only(row, _LOG_KEYS) for row in log]} if log else {}
    found |= {"metrics": [_only(row, _METRIC_KEYS) for row in metrics]} if metrics else {}
    found |= {"grids": grids} if grids else {}
    found |= {"checkpoints": saved} if saved else {}
    found |= {"state": state} if state_sum != cursor.state else {}
    after = Cursor(
        log_end, _tail(run.log_path, log_end), metrics_end, _tail(run.metrics_path, metrics_end),
        max([cursor.grid, *grids]), max([cursor.checkpoint, *saved]), state_sum,
    )  # fmt: skip
    return (json.dumps(finite(found)) if found else ""), after


def _only(row: dict[str, Any], keys: tuple[str, ...]) -> dict[str, Any]:
    return {key: row[key] for key in keys if key in row}


def _tail(path: Path, offset: int) -> int:
    """Return a checksum of the bytes just before a place in a file; 0 at its beginning, -1 where it is shorter."""
    if offset == 0:
        return 0
    try:
        with path.open("rb") as file:
            file.seek(max(0, offset - _TAIL))
            text = file.read(min(_TAIL, offset))
    except OSError:
        return -1
    return zlib.crc32(text) if len(text) == min(_TAIL, offset) else -1


def _is_rewritten(run: runs.RunDirectory, cursor: Cursor) -> bool:
    places = ((run.log_path, cursor.log, cursor.log_tail), (run.metrics_path, cursor.metrics, cursor.metrics_tail))
    return any(_tail(path, offset) != tail for path, offset, tail in places)


async def follow_run(root: Path, run_id: str, last_id: str, readings: Readings) -> AsyncIterator[str]:
    """Yield a run's news as server-sent events, from a message's id on; ends with `gone` where the run is deleted.

    `unreadable` says why it cannot be read for the moment; news follow where it can be again.
    """
    path = records.run_path(root, run_id)
    cursor, stamp, unreadable, sent_at = Cursor.parse(last_id), None, "", time.monotonic()
    yield "retry: 1000\n\n"
    while not readings.is_closed:
        text = ""
        try:
            newest = await readings.read(_stamp_of, root, run_id)
            if newest != stamp:
                text, after = await readings.read(read_news, path, cursor)
                text = text or ("{}" if unreadable else "")  # it can be read again
                # what one reading left in the logs is read at once, without waiting for the files to change
                stamp = newest if (after.log, after.metrics) == (cursor.log, cursor.metrics) else None
                cursor = after
        except NotFoundError as error:
            yield as_message("gone", json.dumps({"message": records.without_path(str(error), path)}), "")
            return
        except (GansmithError, OSError) as error:  # such as a file that is just being written
            text, stamp = "", None
            words = records.without_path(str(error), path)
            if words != unreadable:
                unreadable = words
                yield as_message("unreadable", json.dumps({"message": words}), "")
        if text:
            unreadable = ""
            sent_at = time.monotonic()
            yield as_message("news", text, cursor.to_text())
            continue
        if time.monotonic() - sent_at > KEEP_ALIVE_S:
            sent_at = time.monotonic()
            yield ": still here\n\n"
        await readings.wait()


def _stamp_of(root: Path, run_id: str) -> records.Stamp:
    return records.stamp_of(records.run_path(root, run_id))


async def follow_all(snapshot: Callable[[], dict[str, str]], readings: Readings) -> AsyncIterator[str]:
    """Yield the state of everything as server-sent events whenever it changed: cards, jobs, machine.

    Args:
        snapshot: a function that returns it as JSON texts: of each card by "run ID", of the rest by its name.
    """
    sent: dict[str, str] = {}
    sent_at = time.monotonic()
    yield "retry: 1000\n\n"
    while not readings.is_closed:
        parts = await readings.read(snapshot)
        if parts != sent:
            gone = [name.removeprefix("run ") for name in sent if name not in parts]
            changed = {name: text for name, text in parts.items() if sent.get(name) != text}
            cards = ", ".join(text for name, text in changed.items() if name.startswith("run "))
            others = "".join(f', "{name}": {text}' for name, text in changed.items() if not name.startswith("run "))
            yield as_message("overview", f'{{"gone": {json.dumps(gone)}, "runs": [{cards}]{others}}}', "")
            sent, sent_at = parts, time.monotonic()
        elif time.monotonic() - sent_at > KEEP_ALIVE_S:
            sent_at = time.monotonic()
            yield ": still here\n\n"
        await readings.wait()


async def merged(*sources: AsyncIterator[str]) -> AsyncIterator[str]:
    """Yield what each source yields as it comes, until the last of them ends."""
    waiting = {asyncio.ensure_future(anext(source)): source for source in sources}
    try:
        while waiting:
            done, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                source = waiting.pop(task)
                with contextlib.suppress(StopAsyncIteration):
                    yield task.result()
                    waiting[asyncio.ensure_future(anext(source))] = source
    finally:
        for task in waiting:
            task.cancel()


def as_message(event: str, data: str, message_id: str) -> str:
    """Return one server-sent event."""
    return f"event: {event}\n" + (f"id: {message_id}\n" if message_id else "") + f"data: {data}\n\n"
