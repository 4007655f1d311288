"""The API under /api/v1: a table of endpoints, what each takes, and how it is answered."""

import asyncio
import contextlib
import inspect
import json
import os
import re
from collections.abc import AsyncIterator, Callable
from dataclasses import asdict, dataclass, field
from functools import partial
from http import HTTPStatus
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError
from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, Response, StreamingResponse
from starlette.staticfiles import NotModifiedResponse, StaticFiles
from starlette.types import Message, Receive, Scope, Send

from gansmith import runs
from gansmith.checkpoints import named_checkpoints
from gansmith.config import FIELDS, choose, resolve
from gansmith.errors import ConfigError, GansmithError, NotFoundError, RunError
from gansmith.files import finite
from gansmith.lessons.table import LESSONS, OBJECTIVES, RESTARTS, START
from gansmith.web import answers, records, schemas, streams, uploads
from gansmith.web.guard import TooLarge
from gansmith.web.jobs import Jobs
from gansmith.web.remote import Busy, Worker, WorkerFailed
from gansmith.web.shares import SHARES

PREFIX = "/api/v1"
MAX_VIEWERS = 128
_SLOW = ("share", "neighbours")
# Of Config, what a form may not set: where things are on this machine, and what asks other programs to act.
_NOT_FROM_FORMS = (
    "recipe",
    "data",
    "data_dir",
    "start_from",
    "trackers",
    "planned_images",
    "schedule_images",
    "images",
)


@dataclass
class Studio:
    """What the handlers share.

    Attributes:
        root: the directory of runs, resolved.
        given: the same as the user named it, for commands.
        worker: draws, in a moment.
        slow_worker: reads training data and writes exports, while the other one draws.
    """

    root: Path
    given: Path
    jobs: Jobs
    worker: Worker
    slow_worker: Worker
    viewers: int = 0
    of_runs: streams.Readings = field(default_factory=partial(streams.Readings, streams.RUN_S))
    of_all: streams.Readings = field(default_factory=partial(streams.Readings, streams.ALL_S))

    def close_streams(self) -> None:
        """Let the streams of events end."""
        self.of_runs.close()
        self.of_all.close()

    def snapshot(self) -> dict[str, str]:
        """Return the overview as JSON texts for `streams.follow_all`."""
        found = overview(self)
        cards = found.pop("runs")
        texts = {f"run {run_id}": json.dumps(finite(card)) for run_id, card in cards.items()}
        return texts | {name: json.dumps(finite(value)) for name, value in found.items()}


@dataclass(frozen=True)
class Call:
    """One request, its parts checked."""

    studio: Studio
    request: Request
    query: Any
    body: Any

    def path(self, name: str) -> str:
        return str(self.request.path_params[name])

    async def ask(self, op: str, **given: Any) -> tuple[dict[str, Any], bytes]:
        """Ask a worker about the run in the path; nothing is computed for a browser that has gone."""
        records.run_path(self.studio.root, self.path("run"))
        worker = self.studio.slow_worker if op in _SLOW else self.studio.worker
        is_unwanted = self.request.is_disconnected
        return await worker.ask(op, is_unwanted=is_unwanted, may_end=op == "share", run=self.path("run"), **given)


Handler = Callable[[Call], Any]  # a coroutine function where it awaits; any other runs in a thread, for it reads files


@dataclass(frozen=True)
class Endpoint:
    """A row of the table: method, path, handler, one sentence, and the models of its query and body.

    Attributes:
        answer: the model of its JSON; None where it answers with none.
        kinds: the other content types that it may answer with.
    """

    method: str
    path: str
    handler: Handler
    summary: str
    query: type[BaseModel] = schemas.Nothing
    body: type[BaseModel] | None = None
    answer: type[BaseModel] | None = None
    kinds: tuple[str, ...] = ()

    async def __call__(self, request: Request) -> Response:
        try:
            query = self.query.model_validate(dict(request.query_params))
            body = None if self.body is None else await _read_body(self.body, request)
            call = Call(request.app.state.studio, request, query, body)
            if inspect.iscoroutinefunction(self.handler):
                found = await self.handler(call)
            else:
                found = await asyncio.to_thread(self.handler, call)
        except ValidationError as error:
            return problem(HTTPStatus.UNPROCESSABLE_ENTITY, "ConfigError", _sentence(error))
        except NotFoundError as error:
            return _not_found(request, error)
        except GansmithError as error:
            return problem(HTTPStatus.BAD_REQUEST, type(error).__name__, _inside(request, error))
        except Busy as error:
            return problem(HTTPStatus.TOO_MANY_REQUESTS, "Busy", str(error))
        except WorkerFailed as error:  # asking again at once would fail again
            return problem(HTTPStatus.CONFLICT, "WorkerFailed", str(error))
        except TimeoutError:
            return problem(HTTPStatus.REQUEST_TIMEOUT, "TimeoutError", "the body did not arrive in time; send it again")
        except TooLarge as error:
            return problem(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "TooLarge", str(error))
        except ClientDisconnect:
            return problem(HTTPStatus.BAD_REQUEST, "ClientDisconnect", "the body ended early")  # nobody reads this
        except OSError as error:  # a full disk, a directory that was deleted
            sentence = f"the runs directory cannot be used ({error.strerror}); see that it exists and has space left"
            return problem(HTTPStatus.CONFLICT, "RunError", sentence)
        return found if isinstance(found, Response) else as_json(found)


def problem(status: int, kind: str, sentence: str) -> Response:
    """Return an error as every endpoint gives it."""
    return as_json({"error": {"kind": kind, "message": sentence}}, status)


def as_json(found: Any, status: int = HTTPStatus.OK) -> Response:
    """Return an answer in strict JSON of ASCII letters, whatever a file or a request holds."""
    return Response(json.dumps(finite(found)), status, media_type="application/json")


def _inside(request: Request, error: Exception) -> str:
    """Return an error's sentence without the places of the runs directory and of uploads."""
    sentence = str(error).replace(f"{request.app.state.studio.root}{os.sep}", "")
    return re.sub(r"\.studio[\\/]uploads[\\/][0-9a-f]{16}[\\/]", "", sentence)


def _not_found(request: Request, error: Exception) -> Response:
    """Say of a run that waits in the queue, or has not written anything yet, that it will come."""
    run_id, studio = request.path_params.get("run"), request.app.state.studio
    is_there = False
    with contextlib.suppress(GansmithError):
        is_there = bool(run_id and records.run_path(studio.root, run_id))  # and lacks what was asked for
    jobs = [job for job in studio.jobs.all() if run_id and job["run"] == run_id and not is_there]
    job = next((job for job in jobs if job["state"] != "ended"), None)
    if job is None:
        ended = next((job["message"] for job in reversed(jobs) if job.get("message")), None)
        words = f"{run_id} did not start: {ended}" if ended else str(error)
        return problem(HTTPStatus.NOT_FOUND, "NotFoundError", _inside(request, GansmithError(words)))
    what = "waits for its turn" if job["state"] == "queued" else "reads its data"
    return problem(HTTPStatus.NOT_FOUND, "NotBegun", f"{run_id} {what}; it has nothing to show yet")


async def _read_body(model: type[BaseModel], request: Request) -> BaseModel:
    try:
        return model.model_validate_json(await request.body() or b"{}", strict=True)
    except ValidationError as error:
        if error.errors()[0]["type"] != "json_invalid":
            raise
        raise ConfigError("the body is not JSON; send one object") from None


def _sentence(error: ValidationError) -> str:
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    place = ".".join(str(part) for part in first["loc"])[:80]
    return f"{place or 'the request'}: {first['msg'][:200]}"


def overview(studio: Studio) -> dict[str, Any]:
    """Return cards by run, the queue, and this machine's load."""
    cards = {}
    for run_id in records.run_ids(studio.root):
        try:
            cards[run_id] = records.card(studio.root, run_id)
        except (GansmithError, OSError):  # deleted meanwhile
            continue
    queue = studio.jobs.all()
    jobs = [job for job in queue if job["state"] != "ended"]
    ended = [(job, queue[k + 1 :]) for k, job in enumerate(queue) if job["state"] == "ended" and job["message"]]
    failed = [job for job, later in ended if not any(_is_as(job, other) for other in later)][-5:]
    return {
        "runs": cards,
        "jobs": [_shown(job) for job in (*failed, *jobs)],
        "is_held": studio.jobs.is_held,
        "machine": {"cores": os.cpu_count(), "load": _load()},
    }


def _is_as(job: dict[str, Any], other: dict[str, Any]) -> bool:
    """Return whether two jobs do the same with a run: both evaluate it, or both train it."""
    return bool(job["run"] == other["run"]) and (job["words"][0] == "evaluate") == (other["words"][0] == "evaluate")


def _shown(job: dict[str, Any]) -> dict[str, Any]:
    """Return a job with the first of its words alone, since others name places on this machine, as its message may."""
    kept = {name: value for name, value in job.items() if name not in ("words", "signature")}
    message = re.sub(r"\S*[\\/]\.studio[\\/]uploads[\\/][0-9a-f]{16}[\\/]", "", kept.get("message", ""))
    return {**kept, "message": message, "command": job["words"][0]}


_CPU_TIMES: list[tuple[float, float]] = []


def _load() -> float | None:
    """Return the share of this machine's cores in use since the last call; None where the system does not say."""
    try:
        numbers = [float(word) for word in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    except (OSError, ValueError):
        return round(min(1.0, os.getloadavg()[0] / (os.cpu_count() or 1)), 2) if hasattr(os, "getloadavg") else None
    busy, total = sum(numbers) - numbers[3] - numbers[4], sum(numbers)
    if not _CPU_TIMES:
        _CPU_TIMES[:] = [(busy, total)]
        return None  # since the machine began
    before = _CPU_TIMES[-1]
    if total - before[1] >= 50:  # hundredths of a second of all cores
        _CPU_TIMES[:] = [before, (busy, total)]
    (old_busy, old_total), (new_busy, new_total) = _CPU_TIMES[0], _CPU_TIMES[-1]
    return round((new_busy - old_busy) / max(1.0, new_total - old_total), 2)


def list_runs(call: Call) -> Any:
    found = overview(call.studio)
    return {**found, "runs": list(found["runs"].values())}


def run_details(call: Call) -> Any:
    root = call.studio.root
    found = records.details(root, call.path("run"), given=call.studio.given)
    values = {row["name"]: row["value"] for row in found["config"]}
    return {**found, "data_choice": uploads.data_choice(root, values["data"], values["data_dir"])}


async def run_events(call: Call) -> Any:
    run_id = call.path("run")
    records.run_path(call.studio.root, run_id)
    last = call.request.headers.get("last-event-id") or call.query.after
    news = streams.follow_run(call.studio.root, run_id, last, call.studio.of_runs)
    others = [streams.follow_all(call.studio.snapshot, call.studio.of_all)] if call.query.all else []
    return _stream(call, streams.merged(news, *others))


async def all_events(call: Call) -> Any:
    return _stream(call, streams.follow_all(call.studio.snapshot, call.studio.of_all))


def _stream(call: Call, messages: AsyncIterator[str]) -> Response:
    if call.request.method == "HEAD":
        return Response(media_type="text/event-stream")
    if call.studio.viewers >= MAX_VIEWERS:
        return problem(HTTPStatus.TOO_MANY_REQUESTS, "Busy", f"{MAX_VIEWERS} pages are watching; close some")
    return _Watched(call.studio, messages)


class _Watched(StreamingResponse):
    """A stream of events that counts as a viewer from the moment it is answered with."""

    def __init__(self, studio: Studio, messages: AsyncIterator[str]) -> None:
        super().__init__(messages, media_type="text/event-stream")
        self.studio = studio
        studio.viewers += 1

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self.studio.viewers -= 1


def run_log(call: Call) -> Any:
    run = runs.open_run(records.run_path(call.studio.root, call.path("run")))
    return {"log": run.log, "metrics": run.metrics}


def run_grid(call: Call) -> Any:
    """One grid of samples/, by the images seen before it."""
    path = records.run_path(call.studio.root, call.path("run"))
    images = call.path("images")
    if not re.fullmatch(r"\d{1,19}", images):
        raise NotFoundError("a grid is named by images seen, such as 128000")
    return _file(call.request, path / "samples" / f"{int(images):09d}.png", "image/png")


def run_file(call: Call) -> Any:
    path = records.run_path(call.studio.root, call.path("run"))
    name = call.path("name")
    if name not in records.FILES:
        raise NotFoundError(f"there is no file {name[:64]!r}; choose one of {', '.join(records.FILES)}")
    return _file(call.request, path / name, records.FILES[name])


class _Snapshot(FileResponse):
    """A file as long as it was when its size was read, whatever a training adds meanwhile; or that it is gone."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        announced = _AsAnnounced(send)
        try:
            await super().__call__(scope, receive, announced)
        except FileNotFoundError:
            if announced.has_begun:
                raise
            gone = problem(HTTPStatus.NOT_FOUND, "NotFoundError", _no_such(Path(self.path)))
            await gone(scope, receive, send)


@dataclass
class _AsAnnounced:
    """Passes on an answer, its head with the first bytes, and no more bytes of it than the head says."""

    send: Send
    head: Message | None = None
    left: int = 0
    has_begun: bool = False
    is_over: bool = False

    async def __call__(self, message: Message) -> None:
        if self.is_over:
            return
        if message["type"] == "http.response.start":
            self.head, self.left = message, int(Headers(raw=message["headers"]).get("content-length", "0"))
            return
        if self.head is not None:
            head, self.head, self.has_begun = self.head, None, True
            await self.send(head)
        if message["type"] == "http.response.body":
            body = message.get("body", b"")[: self.left]
            self.left -= len(body)
            self.is_over = not (self.left and message.get("more_body"))
            message = {**message, "body": body, "more_body": not self.is_over}
        await self.send(message)


def _no_such(path: Path) -> str:
    return f"there is no {path.name} in this run"


_FILES = StaticFiles(check_dir=False)  # which compares versions


def _file(request: Request, path: Path, kind: str) -> Response:
    """Return a file of a run that is no link out of it; nothing where the browser has this version."""
    run = path.parent.parent if path.parent.name == "samples" else path.parent
    if not path.is_file() or path.resolve() != run.resolve() / path.relative_to(run):
        raise NotFoundError(_no_such(path))
    found = _Snapshot(path, media_type=kind, headers={"cache-control": "no-cache"}, stat_result=path.stat())
    is_known = _FILES.is_not_modified(found.headers, request.headers)
    return NotModifiedResponse(found.headers) if is_known else found


async def describe(call: Call) -> Any:
    facts, _ = await call.ask("describe", checkpoint=call.query.checkpoint)
    return facts


async def sample(call: Call) -> Any:
    facts, data = await call.ask("sample", **call.query.model_dump())
    return _as_tiles(facts, data)


async def sample_png(call: Call) -> Any:
    _, data = await call.ask("sample", **call.query.model_dump(), format="png")
    return _download(data, "image/png", f"{call.path('run')}-seed-{call.query.seed}.png")


async def sample_npz(call: Call) -> Any:
    _, data = await call.ask("sample", **call.query.model_dump(), format="npz")
    return _download(data, "application/octet-stream", f"{call.path('run')}-seed-{call.query.seed}.npz")


async def explore(call: Call) -> Any:
    facts, data = await call.ask("explore", **call.body.model_dump())
    return _in_format(call, facts, data, "tiles")


async def walk(call: Call) -> Any:
    facts, data = await call.ask("walk", **call.body.model_dump())
    return _in_format(call, facts, data, "walk")


async def neighbours(call: Call) -> Any:
    facts, data = await call.ask("neighbours", **call.body.model_dump())
    return _as_tiles(facts, data)


async def move(call: Call) -> Any:
    facts, data = await call.ask("move", **call.body.model_dump())
    return _as_tiles(facts, data)


async def invert(call: Call) -> Any:
    facts, data = await call.ask("invert", **call.body.model_dump())
    return _as_tiles(facts, data)


def list_lessons(call: Call) -> Any:
    return {
        "lessons": [asdict(lesson) for lesson in LESSONS],
        "start": START,
        "restarts": RESTARTS,
        "objectives": OBJECTIVES,
        "meanings": {name: FIELDS[name].metadata["help"] for name in START if name in FIELDS},
    }


async def learn(call: Call) -> Any:
    facts, _ = await call.studio.worker.ask("learn", is_unwanted=call.request.is_disconnected, **call.body.model_dump())
    return facts


_KINDS = {"png": "image/png", "gif": "image/gif", "npz": "application/octet-stream"}


def _in_format(call: Call, facts: dict[str, Any], data: bytes, what: str) -> Any:
    kind = call.body.format
    return (
        _as_tiles(facts, data)
        if kind == "tiles"
        else _download(data, _KINDS[kind], f"{call.path('run')}-{what}.{kind}")
    )


def _as_tiles(facts: dict[str, Any], data: bytes) -> dict[str, Any]:
    from base64 import b64encode

    return {**facts, "png": b64encode(data).decode()}


def _download(data: bytes, kind: str, name: str) -> Response:
    return Response(data, media_type=kind, headers={"content-disposition": f'inline; filename="{name}"'})


def list_fields(call: Call) -> Any:
    return {"fields": [row for row in records.field_rows() if row["name"] not in _NOT_FROM_FORMS]}


def list_recipes(call: Call) -> Any:
    return {"recipes": records.recipes()}


def list_data_sets(call: Call) -> Any:
    return {"data_sets": [{"name": name, "about": about} for name, about in records.DATA_SETS.items()]}


def settle(call: Call) -> Any:
    """The choices that result, and the same request as commands; an error names what is wrong."""
    config = _config_of(call)
    return {"config": records.config_rows(config), "commands": _commands(call, config)}


def _config_of(call: Call) -> Any:
    body = call.body
    refused = [name for name in body.choices if name in _NOT_FROM_FORMS or name not in FIELDS]
    if refused:
        raise ConfigError(f"{refused[0][:64]!r} cannot be chosen here; /fields lists what can")
    if sum(value is not None for value in (body.minutes, body.epochs, body.images)) > 1:
        raise ConfigError("minutes, epochs and images each set the length; give one of them")
    arguments = {**body.choices, "data": _data_of(call)} | ({"images": body.images} if body.images else {})
    config = resolve(body.recipe, arguments=arguments)
    for name, allowed in records.NAMED.items():
        choose(dict.fromkeys(allowed), getattr(config, name), name)
    return config


def _data_of(call: Call) -> str:
    """Return what `--data` takes: a name, never a path from outside."""
    name: str = call.body.data
    if name.startswith("upload:"):
        return str(uploads.data_path(call.studio.root, name.removeprefix("upload:")))
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9-]{0,63}", name):
        raise ConfigError(f"data is {name!r}; give the name of a data set, or upload pictures")
    choose(records.DATA_SETS, name, "data set")
    return name


def _commands(call: Call, config: Any) -> dict[str, str]:
    shown = records.as_given(config, call.studio.root, call.studio.given)
    return records.commands(shown, minutes=call.body.minutes, epochs=call.body.epochs)


def train(call: Call) -> Any:
    config, body, root = _config_of(call), call.body, call.studio.root
    length = {name: value for name in ("minutes", "epochs", "images") if (value := getattr(body, name)) is not None}
    choices = {"data": _data_of(call), **length, **body.choices, "progress": "json"}
    directory = runs.make_next_directory(root, config)
    words = records.words_of(body.recipe, {**choices, "out": str(directory)})
    try:
        job = call.studio.jobs.add(words, run=directory.name, title=f"{config.recipe} on {config.data}")
    except (GansmithError, OSError):
        directory.rmdir()
        raise
    if body.data.startswith("upload:"):
        (uploads.folder_of(root, body.data.removeprefix("upload:")) / uploads.USED).touch()
    call.studio.jobs.hold(False)
    return _shown(job)


def resume(call: Call) -> Any:
    path = records.run_path(call.studio.root, call.path("run"))
    if runs.is_locked(path):
        raise RunError(f"{path.name} is being trained already")
    given = {name: value for name, value in call.body.model_dump().items() if value is not None}
    if len(given) > 1:
        raise ConfigError("minutes and images each set the length; give one of them")
    runs.open_run(path)
    seen = max((int(found.name) for found in named_checkpoints(path)), default=0)
    if given.get("images", seen + 1) <= seen:
        raise ConfigError(f"images is {given['images']:,}, but {path.name} has seen {seen:,} already; give more")
    words = ["resume", str(path), "--progress=json", *(f"--{name}={value}" for name, value in given.items())]
    job = call.studio.jobs.add(words, run=path.name, title=f"{path.name}, continued")
    call.studio.jobs.hold(False)
    return _shown(job)


def evaluate(call: Call) -> Any:
    path = records.run_path(call.studio.root, call.path("run"))
    runs.open_run(path)
    words = ["evaluate", str(path), *(["--quick"] if call.body.quick else [])]
    return _shown(call.studio.jobs.add(words, run=path.name, title=f"evaluation of {path.name}"))


async def share(call: Call) -> Any:
    name = call.path("name")
    if name not in SHARES:
        raise NotFoundError(f"a run is not shared as {name[:64]!r}; choose one of {', '.join(SHARES)}")
    _, data = await call.ask("share", name=name)
    return _download(data, SHARES[name].media_type, f"{call.path('run')}-{name}")


def stop_run(call: Call) -> Any:
    path = records.run_path(call.studio.root, call.path("run"))
    job = next((j for j in call.studio.jobs.all() if j["run"] == path.name and j["state"] != "ended"), None)
    if job is None:
        if runs.is_locked(path):
            raise RunError(f"{path.name} is trained by another program; stop it there, with Ctrl-C")
        raise RunError(f"{path.name} is not being trained")
    if call.body.hold:
        call.studio.jobs.hold(True)
    return _shown(call.studio.jobs.stop(job["id"]))


def list_jobs(call: Call) -> Any:
    return {"jobs": [_shown(job) for job in call.studio.jobs.all()], "is_held": call.studio.jobs.is_held}


def stop_job(call: Call) -> Any:
    return _shown(call.studio.jobs.stop(call.path("job")))


def hold_queue(call: Call) -> Any:
    call.studio.jobs.hold(call.body.hold)
    return {"is_held": call.studio.jobs.is_held}


def create_upload(call: Call) -> Any:
    return uploads.create(call.studio.root, call.body.name)


async def send_file(call: Call) -> Any:
    return await uploads.receive(call.studio.root, call.path("upload"), call.query.name, call.request)


async def look_at_upload(call: Call) -> Any:
    path = uploads.data_path(call.studio.root, call.path("upload"))
    ask = call.studio.slow_worker.ask
    facts, data = await ask("look", is_unwanted=call.request.is_disconnected, path=str(path), **call.query.model_dump())
    return _as_tiles(facts, data)


def document(call: Call) -> Any:
    from gansmith.web.openapi import describe_api

    return describe_api(ENDPOINTS, PREFIX)


_EVENTS = ("text/event-stream",)
_NPZ = "application/octet-stream"
ENDPOINTS = [
    Endpoint("GET", "/openapi.json", document, "This API as an OpenAPI document.", answer=answers.Document),
    Endpoint("GET", "/runs", list_runs, "All runs as cards, the queue, and the machine's load.", answer=answers.Runs),
    Endpoint("GET", "/events", all_events, "The same as it changes, as server-sent events.", kinds=_EVENTS),
    Endpoint("GET", "/runs/{run}", run_details, "Everything about a run but its logs.", answer=answers.Run),
    Endpoint("GET", "/runs/{run}/log", run_log, "The rows of log.jsonl and metrics.jsonl.", answer=answers.Log),
    Endpoint(
        "GET",
        "/runs/{run}/events",
        run_events,
        "What is new in a run, as server-sent events.",
        schemas.EventsQuery,
        kinds=_EVENTS,
    ),
    Endpoint(
        "GET",
        "/runs/{run}/grids/{images}",
        run_grid,
        "A sample grid of training.",
        schemas.GridQuery,
        kinds=("image/png",),
    ),
    Endpoint(
        "GET", "/runs/{run}/files/{name}", run_file, "A file of a run.", kinds=tuple(sorted({*records.FILES.values()}))
    ),
    Endpoint(
        "GET",
        "/runs/{run}/generator",
        describe,
        "Image size, classes and latents of a generator.",
        schemas.CheckpointQuery,
        answer=answers.Generator,
    ),
    Endpoint(
        "GET",
        "/runs/{run}/sample",
        sample,
        "Samples of a seed as tiles.",
        schemas.TilesQuery,
        answer=answers.Tiles,
    ),
    Endpoint(
        "GET",
        "/runs/{run}/sample.png",
        sample_png,
        "Samples of a seed as a picture.",
        schemas.TilesQuery,
        kinds=("image/png",),
    ),
    Endpoint(
        "GET",
        "/runs/{run}/sample.npz",
        sample_npz,
        "Samples of a seed as NumPy arrays: images, labels.",
        schemas.SampleQuery,
        kinds=(_NPZ,),
    ),
    Endpoint(
        "POST",
        "/runs/{run}/explore",
        explore,
        "Tiles, each of its own seed, index and class.",
        body=schemas.ExploreBody,
        answer=answers.Tiles,
        kinds=("image/png", _NPZ),
    ),
    Endpoint(
        "POST",
        "/runs/{run}/walk",
        walk,
        "Images on the way between latents.",
        body=schemas.WalkBody,
        answer=answers.Tiles,
        kinds=("image/gif", _NPZ),
    ),
    Endpoint(
        "POST",
        "/runs/{run}/neighbours",
        neighbours,
        "The training images nearest to a tile.",
        body=schemas.NeighboursBody,
        answer=answers.Tiles,
    ),
    Endpoint(
        "POST",
        "/runs/{run}/move",
        move,
        "An image moved along the main directions.",
        body=schemas.MoveBody,
        answer=answers.Moved,
    ),
    Endpoint(
        "POST",
        "/runs/{run}/invert",
        invert,
        "A picture projected into latent space.",
        body=schemas.InvertBody,
        answer=answers.Inverted,
    ),
    Endpoint(
        "GET", "/learn", list_lessons, "The lessons, and what a pair in the plane starts with.", answer=answers.Lessons
    ),
    Endpoint(
        "POST",
        "/learn",
        learn,
        "Train a pair in the plane for some steps.",
        body=schemas.LearnBody,
        answer=answers.Frame,
    ),
    Endpoint(
        "POST",
        "/runs/{run}/resume",
        resume,
        "Continue or extend a run.",
        body=schemas.ResumeBody,
        answer=answers.Job,
    ),
    Endpoint(
        "POST",
        "/runs/{run}/evaluate",
        evaluate,
        "Evaluate the newest checkpoint.",
        body=schemas.EvaluateBody,
        answer=answers.Job,
    ),
    Endpoint(
        "GET",
        "/runs/{run}/share/{name}",
        share,
        "The run as a file for others.",
        kinds=tuple(sorted({found.media_type for found in SHARES.values()})),
    ),
    Endpoint(
        "POST",
        "/runs/{run}/stop",
        stop_run,
        "Save a run that trains, and stop it.",
        body=schemas.StopBody,
        answer=answers.Job,
    ),
    Endpoint(
        "GET",
        "/fields",
        list_fields,
        "Every choice of a training: kind, default, range, meaning, group, advice.",
        answer=answers.Choices,
    ),
    Endpoint("GET", "/datasets", list_data_sets, "Every data set that has a name.", answer=answers.DataSets),
    Endpoint("GET", "/recipes", list_recipes, "Every recipe with the values it sets.", answer=answers.Recipes),
    Endpoint(
        "POST",
        "/config",
        settle,
        "What a training's choices result in; nothing is started.",
        body=schemas.TrainBody,
        answer=answers.Settled,
    ),
    Endpoint("GET", "/jobs", list_jobs, "All trainings that were asked for.", answer=answers.Jobs),
    Endpoint("POST", "/jobs", train, "Put a training into the queue.", body=schemas.TrainBody, answer=answers.Job),
    Endpoint(
        "POST",
        "/jobs/hold",
        hold_queue,
        "Hold the queue, or let it go on.",
        body=schemas.HoldBody,
        answer=answers.Held,
    ),
    Endpoint(
        "POST",
        "/jobs/{job}/stop",
        stop_job,
        "Stop a training, or take it out of the list.",
        body=schemas.Nothing,
        answer=answers.Job,
    ),
    Endpoint(
        "POST",
        "/uploads",
        create_upload,
        "Begin an upload of images.",
        body=schemas.UploadBody,
        answer=answers.Upload,
    ),
    Endpoint(
        "PUT",
        "/uploads/{upload}/files",
        send_file,
        "Send one file of an upload.",
        schemas.PartQuery,
        answer=answers.Received,
    ),
    Endpoint(
        "GET",
        "/uploads/{upload}",
        look_at_upload,
        "What an upload holds, with some of its images.",
        schemas.LookQuery,
        answer=answers.Look,
    ),
]
