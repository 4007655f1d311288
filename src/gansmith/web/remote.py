"""The server's side of `worker`: one process, started when it is needed, one request at a time, ended when unused."""

import asyncio
import contextlib
import json
import os
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from gansmith import errors
from gansmith.errors import GansmithError
from gansmith.web.jobs import OWN_SESSION

IDLE_S = 120.0  # after which the process ends
LIMIT_S = 120.0  # for one request; the first reads a data set, perhaps
MAX_WAITING = 24
_LOOK_S = 0.3  # between two looks whether whoever asked is still there
_MAX_LINE = 2**22


class Busy(Exception):
    """So many requests wait that another one would not be answered soon."""


class WorkerFailed(Exception):
    """The process died, took too long, or met a bug; the server's terminal says more."""


class Worker:
    """A process with torch. `ask` starts it; `end_if_unused` and `close` end it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.process: asyncio.subprocess.Process | None = None
        self.turn = asyncio.Lock()
        self.waiting = 0
        self.used_at = time.monotonic()

    async def ask(
        self,
        op: str,
        *,
        is_unwanted: Callable[[], Awaitable[bool]],
        may_end: bool = False,
        **request: Any,
    ) -> tuple[dict[str, Any], bytes]:
        """Return the facts and the bytes of an answer.

        Args:
            is_unwanted: says whether whoever asked has gone meanwhile; then nothing is computed.
            may_end: whether the process is ended where they go before it has answered; another start takes seconds.

        Raises the GansmithError the worker raised; Busy, WorkerFailed.
        """
        if self.waiting >= MAX_WAITING:
            raise Busy("too many pictures are asked for at once; wait a second")
        self.waiting += 1
        try:
            await self._take_turn(is_unwanted)
            try:
                asking = asyncio.ensure_future(self._ask({"op": op, **request}))
                try:
                    while not (await asyncio.wait({asking}, timeout=_LOOK_S))[0]:
                        if may_end and await is_unwanted():
                            raise Busy("nobody waits for this any more")
                    return asking.result()
                finally:
                    asking.cancel()  # changes nothing where it is answered
                    await asyncio.wait({asking})
            finally:
                self.turn.release()
        finally:
            self.waiting -= 1
            self.used_at = time.monotonic()

    async def _take_turn(self, is_unwanted: Callable[[], Awaitable[bool]]) -> None:
        """Wait for the process; Busy as soon as nobody waits for the answer, so that newer wishes find a place."""
        while True:
            try:
                async with asyncio.timeout(_LOOK_S):
                    await self.turn.acquire()
                break
            except TimeoutError:
                if await is_unwanted():
                    raise Busy("nobody waits for this picture any more") from None
        if await is_unwanted():
            self.turn.release()
            raise Busy("nobody waits for this picture any more")

    async def _ask(self, request: dict[str, Any]) -> tuple[dict[str, Any], bytes]:
        process = await self._started()
        assert process.stdin is not None and process.stdout is not None
        try:
            async with asyncio.timeout(LIMIT_S):
                process.stdin.write(json.dumps(request).encode() + b"\n")
                await process.stdin.drain()
                facts: dict[str, Any] = json.loads(await process.stdout.readline())
                data = await process.stdout.readexactly(facts.pop("bytes"))
        except TimeoutError:
            await self.close()
            raise WorkerFailed(f"this took more than {LIMIT_S:.0f} seconds and was ended; ask for less") from None
        except (OSError, ValueError, EOFError):
            await self.close()
            raise WorkerFailed("the process that draws pictures ended; ask again") from None
        except asyncio.CancelledError:  # whoever asked has gone; an answer half read would confuse the next one
            await self.close()
            raise
        if "error" in facts:
            kind = getattr(errors, facts["kind"], None)
            if isinstance(kind, type) and issubclass(kind, GansmithError):
                raise kind(facts["error"])
            raise WorkerFailed("the process that draws pictures met a bug; the server's terminal says more")
        return facts, data

    async def _started(self) -> asyncio.subprocess.Process:
        if self.process is None or self.process.returncode is not None:
            self.process = await asyncio.create_subprocess_exec(
                sys.executable, "-P", "-m", "gansmith.web.worker", str(self.root),
                stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, limit=_MAX_LINE,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
                **OWN_SESSION,
            )  # fmt: skip
        return self.process

    @property
    def is_running(self) -> bool:
        return self.process is not None and self.process.returncode is None

    async def end_if_unused(self) -> None:
        """End the process where nobody asked for a while."""
        if self.is_running and not self.waiting and time.monotonic() - self.used_at > IDLE_S:
            await self.close()

    async def close(self) -> None:
        """Kill the process, where there is one."""
        process, self.process = self.process, None
        if process is not None and process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
