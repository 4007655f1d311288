"""The studio's HTTP server: pages, API, the queue's clock."""

import asyncio
import contextlib
import logging
import secrets
import socket
from collections.abc import AsyncIterator, Callable, Sequence
from functools import partial
from http import HTTPStatus
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import h11
import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from uvicorn.protocols.http.h11_impl import H11Protocol

from gansmith import runs
from gansmith.errors import ConfigError, GansmithError, RunError
from gansmith.files import read_json, write_json
from gansmith.web import records
from gansmith.web.guard import EVERY_ADDRESS, Guard, host_name, is_loopback
from gansmith.web.jobs import FOLDER, Jobs
from gansmith.web.remote import Worker
from gansmith.web.routes import ENDPOINTS, PREFIX, Studio, problem

logger = logging.getLogger("gansmith")

STATIC = Path(__file__).parent / "static"
PAGES = ("/", "/new", "/explore", "/compare", "/learn", "/runs/{run}", "/explore/{run}")
MAX_CONNECTIONS = 256
SILENT_S = 20.0  # a connection whose request has not arrived by then is closed
DRAIN_S = 30.0  # one whose client has read nothing of an answer for so long is closed
_TICK_S = 0.5


def make_app(root: Path, *, host: str, names: tuple[str, ...] = (), token: str = "") -> Guard:
    """Return the application that serves a directory of runs; see `Guard` for the rest.

    Args:
        root: as the user named it, which is how commands name it.
    """
    given, root = root, root.resolve()
    routes: list[Any] = [Route(PREFIX + row.path, row.__call__, methods=[row.method]) for row in ENDPOINTS]
    routes += [Route(path, _page) for path in PAGES]
    routes += [Route("/vendor/plotly.js", _plotly), Mount("/static", StaticFiles(directory=STATIC))]
    handlers: dict[Any, Any] = {HTTPException: _as_problem, Exception: _as_failure}
    app = Starlette(routes=routes, exception_handlers=handlers, lifespan=_lifespan)
    studio = app.state.studio = Studio(root, given, Jobs(root), Worker(root), Worker(root))
    return Guard(app, host, names, token, end_streams=studio.close_streams)


async def _page(request: Request) -> Response:
    return FileResponse(STATIC / "index.html", headers={"cache-control": "no-cache"})


async def _plotly(request: Request) -> Response:
    return FileResponse(_plotly_path(), media_type="text/javascript", headers={"cache-control": "max-age=86400"})


def _plotly_path() -> Path:
    found = find_spec("plotly")
    assert found is not None and found.submodule_search_locations  # `serve` has looked
    return Path(found.submodule_search_locations[0]) / "package_data" / "plotly.min.js"


async def _as_problem(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    is_opened = "text/html" in request.headers.get("accept", "") and not request.url.path.startswith("/api/")
    if error.status_code == HTTPStatus.NOT_FOUND and is_opened:  # by its address; the page says so
        return FileResponse(STATIC / "index.html", HTTPStatus.NOT_FOUND, headers={"cache-control": "no-cache"})
    sentences = {404: "there is nothing at this address", 405: "this address does not take that method"}
    kind = "MethodNotAllowed" if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED else "NotFoundError"
    found = problem(error.status_code, kind, sentences.get(error.status_code, error.detail))
    found.headers.update(error.headers or {})
    return found


async def _as_failure(request: Request, error: Exception) -> Response:
    return problem(500, "Bug", "the server failed; its terminal says why, please report it")


@contextlib.asynccontextmanager
async def _lifespan(app: Starlette) -> AsyncIterator[None]:
    studio: Studio = app.state.studio
    clock = asyncio.create_task(_keep_time(studio))
    yield
    clock.cancel()
    for worker in (studio.worker, studio.slow_worker):
        await worker.close()


async def _keep_time(studio: Studio) -> None:
    """Start queued trainings, and end the worker when it is not used."""
    while True:
        try:
            await asyncio.to_thread(studio.jobs.tick, partial(_is_busy, studio))
        except (GansmithError, OSError):  # a runs directory that is gone for the moment
            pass
        except Exception:  # of odd files: the queue must go on
            logger.exception("the queue of trainings failed")
        for worker in (studio.worker, studio.slow_worker):
            await worker.end_if_unused()
        await asyncio.sleep(_TICK_S)


def _is_busy(studio: Studio) -> bool:
    """Return whether a program that is not ours trains in this directory."""
    ours = {job["run"] for job in studio.jobs.all() if job["state"] == "running"}
    others = (run_id for run_id in records.run_ids(studio.root) if run_id not in ours)
    return any(runs.is_locked(studio.root / run_id) for run_id in others)


class _Connection(H11Protocol):
    """A connection that is closed when a request's head takes long to arrive, an answer is not read, or others wait."""

    waiting: asyncio.TimerHandle | None = None  # for the head of a request: the first one, or one that has begun
    draining: asyncio.TimerHandle | None = None  # while the client has yet to read what was written

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        # asyncio sets this only where a socket names its protocol; without it, each answer waits 40 ms for the client
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        transport.set_write_buffer_limits(high=0)  # so that `pause_writing` says of every answer that is not read
        if len(self.connections) > MAX_CONNECTIONS:
            transport.close()
        else:
            self.waiting = self.loop.call_later(SILENT_S, self._close_if_silent)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.conn.their_state is not h11.IDLE:
            self._stop_waiting()
        elif self.waiting is None:
            self.waiting = self.loop.call_later(SILENT_S, self._close_if_silent)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._stop_waiting()
        self._stop_draining()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._drain(self.transport.get_write_buffer_size() + 1)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._stop_draining()

    def _drain(self, before: int) -> None:
        """Close the connection where nothing was read since `before` bytes were left; else look again later."""
        left = self.transport.get_write_buffer_size()
        if left >= before:
            self.transport.abort()
        else:
            self.draining = self.loop.call_later(DRAIN_S, self._drain, left)

    def _stop_draining(self) -> None:
        if self.draining is not None:
            self.draining.cancel()
            self.draining = None

    def _stop_waiting(self) -> None:
        if self.waiting is not None:
            self.waiting.cancel()
            self.waiting = None

    def _close_if_silent(self) -> None:
        self.waiting = None
        if self.conn.their_state is h11.IDLE and not self.transport.is_closing():
            self.transport.close()


class _Server(uvicorn.Server):
    """A server that ends its streams of events before it waits for answers to end."""

    def __init__(self, config: uvicorn.Config, end_streams: Callable[[], None]) -> None:
        super().__init__(config)
        self.end_streams = end_streams

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self.end_streams()
        await super().shutdown(sockets)


def serve(
    root: Path,
    *,
    host: str = "127.0.0.1",
    port: int = 8787,
    names: Sequence[str] = (),
    show: Callable[[str], None],
) -> None:
    """Serve a directory of runs until interrupted.

    Args:
        port: 0 takes any free one.
        names: others than `host` that it is reached by; whoever asks by them needs the token too.
        show: called with the address once it can be opened.

    Raises GansmithError where it cannot begin.
    """
    if find_spec("plotly") is None:
        raise ConfigError("the studio needs the extra `studio`: pip install 'gansmith[studio]'")
    if runs.holds_run(root):
        raise ConfigError(f"{root} is a run; give the folder that holds runs, such as {root.parent}")
    folder = root / FOLDER
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"{root} cannot be used ({error.strerror}); give a folder that can be written") from None
    if runs.is_locked(folder):
        raise RunError(f"{root} is open in another studio already, at {address_of(root)}; use that one")
    strange = next((name for name in names if host_name(name) == ""), None)
    if strange is not None:
        raise ConfigError(f"name is {strange!r}; it must be a host's name, such as studio.example.org")
    token = "" if is_loopback(host) and not names else secrets.token_urlsafe(24)
    listener = _listen(host, port)
    port = listener.getsockname()[1]
    app = make_app(root, host=host, names=tuple(map(host_name, names)), token=token)
    shown = socket.gethostname() if host in EVERY_ADDRESS else host
    name = f"[{shown}]" if ":" in shown else shown
    address = f"http://{name}:{port}/" + (f"?token={token}" if token else "")
    config = uvicorn.Config(
        app, http=_Connection, ws="none", log_level="warning", access_log=False, server_header=False,
        timeout_keep_alive=15, timeout_graceful_shutdown=1, lifespan="on", proxy_headers=bool(names),
    )  # fmt: skip
    with runs.locked(folder):
        write_json(folder / "server.json", {"address": address.split("?")[0]})
        show(address)
        _Server(config, app.end_streams).run(sockets=[listener])


def address_of(root: Path) -> str:
    """Return where the studio of a directory of runs was opened last."""
    try:
        return str(read_json(root / FOLDER / "server.json")["address"])
    except (OSError, LookupError, ValueError):
        return "another address"


def _listen(host: str, port: int) -> socket.socket:
    if not 0 <= port <= 65535:
        raise ConfigError(f"port is {port}; it must be between 0 and 65535")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=128)
    except OSError as error:
        raise ConfigError(
            f"{host}:{port} cannot be listened on ({error.strerror}); choose another --port, or 0 for any free one"
        ) from None
