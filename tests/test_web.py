"""The studio's server on loopback: what it tells of runs, what it refuses, and that nothing is lost or repeated."""

import asyncio
import base64
import contextlib
import http.client
import io
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from urllib.request import urlopen

import numpy as np
import pytest
import uvicorn
from conftest import TINY, flags, wait_until
from PIL import Image
from starlette.datastructures import Headers
from starlette.requests import Request
from uvicorn.server import ServerState

import gansmith as gs
from gansmith import runs
from gansmith.config import FIELDS, resolve
from gansmith.data import BUILT_IN_DATASETS
from gansmith.data.pictures import ENDINGS
from gansmith.errors import ConfigError, DataError, NotFoundError, RunError
from gansmith.files import write_json
from gansmith.networks import BUILT_IN_NETWORKS
from gansmith.runs import create_run
from gansmith.training.inputs import load_training_data
from gansmith.training.loop import train_events
from gansmith.training.losses import BUILT_IN_OBJECTIVES
from gansmith.web import answers, guard, records, routes, streams, trainer, uploads, worker
from gansmith.web import server as web_server
from gansmith.web.guard import NOTEBOOKS, TooLarge, host_name, own_hosts
from gansmith.web.jobs import MAX_WAITING, Jobs
from gansmith.web.remote import Busy, Worker

pytest.importorskip("plotly")


def make_run(root: Path, name: str, digit_dir: Path, **changes: object) -> runs.RunDirectory:
    config = resolve("default", arguments={**TINY, "data_dir": str(digit_dir), **changes})
    config, data = load_training_data(config)
    run = create_run(root / name, config)
    for _ in train_events(run, data):
        pass
    return runs.open_run(run.directory)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory, digit_dir: Path) -> Path:
    """A folder with one finished run."""
    folder = tmp_path_factory.mktemp("runs")
    make_run(folder, "0001-default-mnist", digit_dir)
    (folder / "secret.txt").write_text("not for you")
    return folder


class Server:
    """A studio in a process of its own, and a client that speaks HTTP to it."""

    def __init__(self, root: Path, *words: str) -> None:
        self.opened: list = []
        self.started_at = time.perf_counter()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "gansmith", "studio", str(root), "--port", "0", *words],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        line = self.process.stdout.readline()
        assert "http://" in line, self.process.stderr.read()
        self.start_s = time.perf_counter() - self.started_at
        self.address = re.search(r"http://\S+", line)[0]
        self.port = int(re.search(r":(\d+)/", self.address)[1])

    def ask(self, method: str, path: str, body: bytes | None = None, **headers: str) -> tuple[int, dict, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
        given = {"host": f"127.0.0.1:{self.port}", **{name.replace("_", "-"): text for name, text in headers.items()}}
        if body is not None:
            given.setdefault("content-type", "application/json")
            given.setdefault("content-length", str(len(body)))
        for name, text in given.items():
            connection.putheader(name, text)
        connection.endheaders()
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # it may answer before it has read all
            connection.send(body or b"")
        answer = connection.getresponse()
        found = answer.status, dict(answer.getheaders()), answer.read()
        connection.close()
        return found

    def json(self, method: str, path: str, body: object = None) -> dict:
        status, _, data = self.ask(method, path, None if body is None else json.dumps(body).encode())
        found = json.loads(data)
        assert status == 200, found
        return found

    def listen(self, path: str, last_id: str = "") -> "http.client.HTTPResponse":
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        connection.request("GET", path, headers={"last-event-id": last_id} if last_id else {})
        answer = connection.getresponse()
        self.opened += [answer, connection]
        return answer

    def close(self) -> str:
        for each in self.opened:
            each.close()
        self.process.terminate()
        return self.process.communicate(timeout=20)[1]


def next_news(stream: "http.client.HTTPResponse", kind: str = "news") -> tuple[str, dict]:
    """Return the id and the content of the next message of a kind."""
    event = found = ""
    while True:
        line = stream.readline().decode().rstrip("\n")
        if line.startswith("event: "):
            event = line[7:]
        elif line.startswith("id: "):
            found = line[4:]
        elif line.startswith("data: ") and event == kind:
            return found, json.loads(line[6:])


def next_rows(stream: "http.client.HTTPResponse") -> tuple[str, dict]:
    """Return the next news with rows of the log; a state that was read after the log may come before these."""
    while True:
        found, news = next_news(stream)
        if "log" in news:
            return found, news
        assert news.keys() == {"state"}


@pytest.fixture(scope="module")
def server(root: Path):
    opened = Server(root)
    yield opened
    assert "Traceback" not in opened.close()


def test_it_starts_at_once_and_holds_no_torch(server):
    assert server.json("GET", "/api/v1/runs")["runs"][0]["id"] == "0001-default-mnist"
    if sys.platform == "linux":
        status = Path(f"/proc/{server.process.pid}/status").read_text()
        assert int(re.search(r"VmRSS:\s+(\d+)", status)[1]) < 150_000
        assert "libtorch" not in Path(f"/proc/{server.process.pid}/maps").read_text()


def test_cards_and_pages_say_what_the_run_directory_says(server, root):
    run = runs.open_run(root / "0001-default-mnist")
    card = server.json("GET", "/api/v1/runs")["runs"][0]
    assert (card["status"], card["images_seen"], card["images"]) == ("finished", 256, 256)
    assert card["fd_ratio"] == run.validation_scores()[-1]["validation_fd_ratio"] and card["scored_by"] == "training"
    found = server.json("GET", "/api/v1/runs/0001-default-mnist")
    values = {row["name"]: row for row in found["config"]}
    assert values.keys() == FIELDS.keys()
    assert (values["batch_size"]["value"], values["batch_size"]["origin"]) == (16, "argument")
    assert values["batch_size"]["is_changed"] and not values["g_lr"]["is_changed"]
    assert found["grids"] == [seen for seen, _ in run.grids()] and found["best"] == int(run.best().name)
    assert found["checkpoints"] == [int(path.name) for path in run.checkpoints()]
    status, headers, picture = server.ask("GET", f"/api/v1/runs/0001-default-mnist/grids/{found['grids'][-1]}")
    assert status == 200 and picture == run.grids()[-1][1].read_bytes() and headers["content-type"] == "image/png"
    path = f"/api/v1/runs/0001-default-mnist/grids/{found['grids'][-1]}?version=2"
    assert server.ask("GET", path, if_none_match=headers["etag"])[::2] == (304, b"")
    assert server.ask("GET", path, if_none_match='"other"')[0] == 200
    log = server.json("GET", "/api/v1/runs/0001-default-mnist/log")
    assert log == {"log": run.log, "metrics": run.metrics}


def test_commands_give_the_same_choices_again():
    config = resolve("r3gan", arguments={"data": "./my photos.zip", "batch_size": 32, "g_lr": 1e-4, "strict": True})
    lines = records.commands(config, minutes=3)
    assert lines["terminal"] == "gansmith train r3gan --minutes 3 --data './my photos.zip' --strict true --g-lr 0.0001"
    assert lines["python"] == "gs.train('r3gan', minutes=3, data='./my photos.zip', strict=True, g_lr=0.0001)"


def test_commands_name_a_set_and_its_folder_where_one_does_not_give_the_other():
    config = resolve("stacked", arguments={"data": "stacked-mnist", "data_dir": "digits"})
    assert records.commands(config)["terminal"] == "gansmith train stacked --data-dir digits"
    config = resolve("default", arguments={"data": "emnist-letters", "data_dir": "emnist"})
    assert records.commands(config)["terminal"] == "gansmith train default --data emnist-letters --data-dir emnist"


def test_commands_name_the_directory_of_runs_as_the_user_did(tmp_path, digit_dir):
    opened = Server(Path("my runs"))
    try:
        upload = opened.json("POST", "/api/v1/uploads", {"name": "mnist"})["id"]
        path = f"/api/v1/uploads/{upload}/files?name=mnist/"
        assert opened.ask("PUT", path + "a/1.png", b"pixels", content_type=BYTES)[0] == 200
        folder = f"my runs/.studio/uploads/{upload}/mnist"
        lines = opened.json("POST", "/api/v1/config", {"data": f"upload:{upload}"})["commands"]
        assert lines["terminal"] == f"gansmith train default --data '{folder}'"
        assert lines["python"] == f"gs.train('default', data='{folder}')"
        config = resolve("default", arguments={**TINY, "data": str(tmp_path / folder)})
        create_run(tmp_path / "my runs" / "0001-x", config)
        found = opened.json("GET", "/api/v1/runs/0001-x")
        assert found["path"] == "my runs/0001-x" and gs.open_run(found["path"]).config == config
        assert f"--data '{folder}'" in found["commands"]["terminal"]
        assert found["data_choice"] == f"upload:{upload}"  # not the set that has the same name
    finally:
        opened.close()


def test_the_data_of_a_run_are_chosen_again_by_a_name_or_by_hand(tmp_path):
    assert uploads.data_choice(tmp_path, "mnist", "") == "mnist"
    for data, data_dir in (("mnist", "/data/mnist"), ("mine", ""), ("mnist", str(tmp_path / ".studio/uploads/x/y"))):
        assert uploads.data_choice(tmp_path, data, data_dir) == ""
    assert records.DATA_SETS.keys() == BUILT_IN_DATASETS - {"idx"}
    assert records.NAMED == {"network": tuple(BUILT_IN_NETWORKS), "objective": tuple(BUILT_IN_OBJECTIVES)}


def test_events_come_once_each_also_after_a_reload_and_a_rewritten_log(tmp_path, digit_dir):
    run = make_run(tmp_path, "run", digit_dir)
    opened = Server(tmp_path)
    try:
        stream = opened.listen("/api/v1/runs/run/events")
        last, first = next_news(stream)
        assert [row["images_seen"] for row in first["log"]] == [row["images_seen"] for row in run.log]
        assert first["grids"] == [seen for seen, _ in run.grids()] and first["state"]["status"] == "finished"
        run.append(run.log_path, {"images_seen": 300, "d_loss": 1.25, "images_per_s": 9.0})
        last, more = next_rows(stream)
        assert [row["d_loss"] for row in more["log"]] == [1.25] and "grids" not in more
        stream.close()
        with run.log_path.open("ab") as file:  # half a line is not sent before its end
            file.write(b'{"images_seen": 316, "d_lo')
        stream = opened.listen("/api/v1/runs/run/events", last)
        with run.log_path.open("ab") as file:
            file.write(b'ss": 1.5}\n')
        last, more = next_rows(stream)
        assert [row["images_seen"] for row in more["log"]] == [316]
        opened.close()
        opened = Server(tmp_path)  # the id is good at another server too
        runs.rewind(run, 256)
        _, again = next_news(opened.listen("/api/v1/runs/run/events", last))
        assert again["reset"] and len(again["log"]) == len(run.log)
        for path in sorted(run.directory.rglob("*"), reverse=True):
            path.rmdir() if path.is_dir() else path.unlink()
        run.directory.rmdir()
        stream = opened.listen("/api/v1/runs/run/events", last)
        assert stream.status == 404
    finally:
        opened.close()


def test_readers_of_one_period_share_a_reading_and_its_failure_and_none_ends_it_for_others():
    made, may_end = [], threading.Event()

    def read(name):
        made.append(name)
        may_end.wait(10)
        if name == "gone":
            raise FileNotFoundError(name)
        return name

    async def ask():
        readings = streams.Readings(0.5)
        await readings.wait()
        asked = [asyncio.ensure_future(readings.read(read, name)) for name in ["run", "gone"] * 25]
        await asyncio.sleep(0)
        asked[0].cancel()
        may_end.set()
        found = await asyncio.gather(*asked, return_exceptions=True)
        await readings.wait()
        return found, await readings.read(read, "run")

    found, later = asyncio.run(ask())
    assert sorted(made) == ["gone", "run", "run"] and later == "run"
    assert isinstance(found[0], asyncio.CancelledError) and set(found[2::2]) == {"run"}
    assert all(isinstance(failure, FileNotFoundError) for failure in found[1::2])


def test_a_run_and_all_runs_come_in_one_stream(tmp_path, digit_dir):
    run = make_run(tmp_path, "run", digit_dir)
    opened = Server(tmp_path)
    try:
        stream = opened.listen("/api/v1/runs/run/events?all=true")
        last, first = next_news(stream)
        assert first["grids"] == [seen for seen, _ in run.grids()]
        stream.close()
        stream = opened.listen("/api/v1/runs/run/events?all=true", last)
        assert [card["id"] for card in next_news(stream, "overview")[1]["runs"]] == ["run"]
        run.append(run.log_path, {"images_seen": 300, "d_loss": 1.25, "images_per_s": 9.0})
        assert [row["d_loss"] for row in next_rows(stream)[1]["log"]] == [1.25]
        (tmp_path / "run").rename(tmp_path / "other")
        kinds = set()
        while kinds != {"gone", "overview"}:  # the other goes on where the run is gone
            line = stream.readline().decode()
            kinds |= {line[7:].strip()} & {"gone"} if line.startswith("event: ") else set()
            kinds |= {"overview"} if '"gone": ["run"]' in line else set()
    finally:
        assert "Traceback" not in opened.close()


def test_all_runs_are_followed_and_deleted_ones_said(tmp_path, digit_dir):
    run = make_run(tmp_path, "run", digit_dir)
    opened = Server(tmp_path)
    try:
        stream = opened.listen("/api/v1/events")
        _, first = next_news(stream, "overview")
        assert [card["id"] for card in first["runs"]] == ["run"] and first["jobs"] == []
        (tmp_path / "run").rename(tmp_path / "other")
        gone: list[str] = []
        while not gone:
            _, more = next_news(stream, "overview")
            gone = more["gone"]
        assert gone == ["run"] and run.log == []
    finally:
        opened.close()


def test_a_long_log_is_read_in_parts_and_each_row_once(tmp_path):
    path = tmp_path / "log.jsonl"
    path.write_text("".join(json.dumps({"images_seen": k}) + "\n" for k in range(100)) + '{"images_seen": 100')
    seen, offset, last = [], 0, -1
    while offset != last:
        last = offset
        rows, offset = runs.read_rows_after(path, offset, most_bytes=64)
        seen += [row["images_seen"] for row in rows]
    assert seen == list(range(100)) and path.read_bytes()[offset:] == b'{"images_seen": 100'
    assert runs.read_rows_after(tmp_path / "none", 7) == ([], 7)


@pytest.mark.parametrize("panel", ["#ffffff", "#1c1c1b"])
def test_lines_of_charts_are_seen_in_both_themes(panel):
    static = Path(web_server.STATIC)
    assert f"--surface: {panel}" in (static / "style.css").read_text()
    (listed,) = re.findall(r"SERIES = \[(.*)\]", (static / "charts.js").read_text())

    def luminance(text: str) -> float:
        parts = [int(text[k : k + 2], 16) / 255 for k in (1, 3, 5)]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return float(np.dot(linear, [0.2126, 0.7152, 0.0722]))

    for color in re.findall(r"#\w{6}", listed):
        low, high = sorted((luminance(color), luminance(panel)))
        assert (high + 0.05) / (low + 0.05) >= 3, color


def test_half_a_cursor_is_none():
    whole = streams.Cursor(5, 7, 0, 0, -1, 64, 9)
    assert streams.Cursor.parse(whole.to_text()) == whole
    for text in ("", "1.2", "5.7.0.0.-1.64", "-5.7.0.0.-1.64.9", "a.b.c.d.e.f.g", "9" * 300):
        assert streams.Cursor.parse(text) == streams.Cursor()


RUN = "/api/v1/runs/0001-default-mnist"
OWN, BYTES = {"content_type": "application/json"}, "application/octet-stream"
HOSTILE = [
    ("another name for this machine", "GET", "/api/v1/runs", {"host": "evil.example:80"}, None, 421),
    ("a name that looks local", "GET", "/", {"host": "localhost.evil.example"}, None, 421),
    ("no host", "GET", "/", {"host": ""}, None, 421),
    ("a page of another site", "GET", "/api/v1/runs", {"origin": "http://evil.example"}, None, 403),
    ("a sandboxed page", "POST", "/api/v1/jobs", {"origin": "null"}, b"{}", 403),
    ("another port of this machine", "POST", "/api/v1/jobs", {"origin": "http://127.0.0.1:1"}, b"{}", 403),
    ("a picture on another site", "GET", RUN + "/sample.png", {"sec_fetch_site": "cross-site"}, None, 403),
    ("a form on another site", "POST", "/api/v1/jobs", {"content_type": "text/plain"}, b"{}", 415),
    ("a form with a file", "POST", "/api/v1/jobs", {"content_type": "multipart/form-data; boundary=x"}, b"--x--", 415),
    ("a body that is too long", "POST", "/api/v1/jobs", {"content_length": str(2**30)}, b"{", 413),
    ("a negative length", "POST", "/api/v1/jobs", {"content_length": "-5"}, b"", 400),  # unread bytes would reset it
    ("no JSON", "POST", "/api/v1/config", OWN, b"{", 400),
    ("deep JSON", "POST", "/api/v1/config", OWN, b"[" * 100_000, 400),
    ("a list", "POST", "/api/v1/config", OWN, b"[]", 422),
    ("an unknown key", "POST", "/api/v1/config", OWN, b'{"out": "/tmp/x"}', 422),
    ("a path as data", "POST", "/api/v1/config", OWN, b'{"data": "/etc"}', 400),
    ("unknown data", "POST", "/api/v1/config", OWN, b'{"data": "sign-digits"}', 400),
    ("a path up as data", "POST", "/api/v1/config", OWN, b'{"data": ".."}', 400),
    ("a path in a choice", "POST", "/api/v1/jobs", OWN, b'{"choices": {"data_dir": "/etc"}}', 400),
    ("weights from a path", "POST", "/api/v1/jobs", OWN, b'{"choices": {"start_from": "/etc"}}', 400),
    ("a tracker", "POST", "/api/v1/jobs", OWN, b'{"choices": {"trackers": "wandb"}}', 400),
    ("a flag as a choice", "POST", "/api/v1/jobs", OWN, b'{"choices": {"--out": "/tmp"}}', 400),
    ("a value out of range", "POST", "/api/v1/jobs", OWN, b'{"choices": {"batch_size": 1}}', 400),
    ("an unknown network", "POST", "/api/v1/config", OWN, b'{"choices": {"network": "compakt"}}', 400),
    ("an unknown objective", "POST", "/api/v1/jobs", OWN, b'{"choices": {"objective": "x"}}', 400),
    ("a picture that is no text", "POST", RUN + "/invert", OWN, '{"picture": "é"}'.encode(), 400),
    ("a recipe that is a flag", "POST", "/api/v1/jobs", OWN, b'{"recipe": "--help"}', 400),
    ("NaN minutes", "POST", "/api/v1/jobs", OWN, b'{"minutes": NaN}', 422),
    ("a million tiles", "POST", RUN + "/explore", OWN, b'{"tiles": [' + b'{"seed":1},' * 20_000 + b'{"seed":1}]}', 422),
    ("a tile far out", "POST", RUN + "/explore", OWN, b'{"tiles": [{"seed": 1, "index": 10000000}]}', 422),
    ("a run above", "GET", "/api/v1/runs/..%2f..%2fetc", {}, None, 404),
    ("a run above, plain", "GET", "/api/v1/runs/../../../etc/passwd", {}, None, 404),
    ("a hidden run", "GET", "/api/v1/runs/.studio", {}, None, 404),
    ("a file that is no run", "GET", "/api/v1/runs/secret.txt", {}, None, 404),
    ("a null byte", "GET", "/api/v1/runs/a%00b", {}, None, 404),
    ("a file above", "GET", RUN + "/files/..%2f..%2fsecret.txt", {}, None, 404),
    ("a file that is not shown", "GET", RUN + "/files/.lock", {}, None, 404),
    ("a grid above", "GET", RUN + "/grids/..%2freal", {}, None, 404),
    ("a static file above", "GET", "/static/..%2f..%2fserver.py", {}, None, 404),
    ("a static file above, plain", "GET", "/static/../server.py", {}, None, 404),
    ("a job above", "POST", "/api/v1/jobs/..%2f../stop", OWN, b"{}", 404),
    ("an upload above", "PUT", "/api/v1/uploads/..%2f../files?name=a", {"content_type": BYTES}, b"x", 404),
    ("an unknown method", "BREW", "/api/v1/runs", OWN, b"", 405),
    ("a script of plotly's folder", "GET", "/vendor/../plotly/__init__.py", {}, None, 404),
]  # fmt: skip


@pytest.mark.parametrize(
    ("method", "path", "headers", "body", "expected"), [c[1:] for c in HOSTILE], ids=[c[0] for c in HOSTILE]
)
def test_hostile_requests_are_refused_in_one_sentence(server, root, method, path, headers, body, expected):
    status, answered, data = server.ask(method, path, body, **headers)
    assert status == expected, data[:300]
    text = data.decode()
    assert "Traceback" not in text and str(root) not in text and "not for you" not in text and "root:" not in text
    if answered.get("content-type") == "application/json":
        assert set(json.loads(text)["error"]) == {"kind", "message"}
    assert not list(root.glob("[0-9]*"))[1:], "a run directory was made"


def test_answers_carry_a_strict_policy(server):
    for path in ("/", "/api/v1/runs", "/static/app.js", "/nothing"):
        _, headers, _ = server.ask("GET", path)
        policy = dict(part.split(" ", 1) for part in headers["content-security-policy"].split("; "))
        assert policy["default-src"] == "'none'" and policy["script-src"] == "'self'"
        assert policy["frame-ancestors"] == " ".join(NOTEBOOKS) and headers["x-content-type-options"] == "nosniff"
        assert "server" not in headers
    page = server.ask("GET", "/")[2].decode()
    assert not re.search(r"<script(?![^>]*src=)|\son\w+=|https?://|style=", page)


def test_slow_and_silent_clients_are_let_go(server):
    with socket.create_connection(("127.0.0.1", server.port)) as slow:
        slow.sendall(b"GET / HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nX: " % server.port + b"a" * 70_000)
        assert slow.recv(200).startswith(b"HTTP/1.1 400")
    assert server.ask("GET", "/")[0] == 200


@pytest.mark.parametrize("is_upload", [False, True])
def test_a_body_arrives_in_time_and_an_upload_goes_on(is_upload, monkeypatch):
    monkeypatch.setattr(guard, "BODY_S", 1.0)

    async def drip() -> dict:
        await asyncio.sleep(0.4)
        return {"type": "http.request", "body": b"x", "more_body": True}

    async def read() -> int:
        reader = guard.Reader(drip, 100, is_upload=is_upload)
        with contextlib.suppress(TimeoutError):
            for _ in range(5):
                await reader()
        return reader.seen

    assert asyncio.run(read()) == 5 if is_upload else asyncio.run(read()) < 5


@contextlib.asynccontextmanager
async def serving(answer):
    """Serve an ASGI application over the studio's connections; gives its address and the server's state."""
    config = uvicorn.Config(answer, lifespan="off", log_config=None)
    config.load()
    state = ServerState()
    made = lambda: web_server._Connection(config, state, {})  # noqa: E731
    async with await asyncio.get_running_loop().create_server(made, "127.0.0.1", 0) as opened:
        yield opened.sockets[0].getsockname(), state


def test_every_request_of_a_connection_arrives_in_time(monkeypatch):
    monkeypatch.setattr(web_server, "SILENT_S", 1.0)

    async def answer(scope, receive, send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"1")]})
        await send({"type": "http.response.body", "body": b"x"})

    async def talk() -> bytes:
        async with serving(answer) as (address, _):
            reader, writer = await asyncio.open_connection(*address)
            for _ in range(2):
                await asyncio.sleep(0.6)
                writer.write(b"GET / HTTP/1.1\r\nHost: here\r\n\r\n")
                assert (await reader.readuntil(b"\r\n\r\nx")).startswith(b"HTTP/1.1 200")
            writer.write(b"GET / HTTP/1.1\r\nHost: he")  # and no more
            with contextlib.closing(writer):
                return await asyncio.wait_for(reader.read(), 10)

    assert asyncio.run(talk()) == b""


@pytest.mark.slow
def test_an_answer_that_is_not_read_is_given_up(monkeypatch):
    monkeypatch.setattr(web_server, "DRAIN_S", 1.0)  # long enough for a busy machine's reader

    async def answer(scope, receive, send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"x" * 2**25})

    async def talk() -> None:
        async with serving(answer) as (address, state):
            readings = []
            for pause_s in (0.01, 2.5):
                reader, writer = await asyncio.open_connection(*address)
                writer.write(b"GET / HTTP/1.1\r\nHost: here\r\nConnection: close\r\n\r\n")
                await asyncio.sleep(pause_s)
                with contextlib.suppress(ConnectionResetError):
                    readings.append(len(await asyncio.wait_for(reader.read(), 10)) if state.connections else 0)
                writer.close()
        assert readings[0] >= 2**25 and not state.connections

    asyncio.run(talk())


def test_an_invalid_range_is_ignored(server):
    whole = server.ask("GET", RUN + "/files/config.toml")[2]
    for text in ("bytes=5-3", "items=0-3", "bytes=-", "bytes=a-b", "nonsense", "bytes=0-3,5-9"):
        assert server.ask("GET", RUN + "/files/config.toml", range=text)[::2] == (200, whole)
    assert server.ask("GET", RUN + "/files/config.toml", range="bytes=0-3")[::2] == (206, whole[:4])


def test_an_address_that_leads_nowhere_is_a_page_that_says_so(server):
    status, headers, page = server.ask("GET", "/nothing", accept="text/html,*/*")
    assert (status, headers["content-type"].split(";")[0]) == (404, "text/html") and page == server.ask("GET", "/")[2]
    for path, accept in (("/nothing", "*/*"), ("/api/v1/nothing", "text/html")):
        status, headers, _ = server.ask("GET", path, accept=accept)
        assert (status, headers["content-type"]) == (404, "application/json")


def test_an_invalid_port_is_refused(gansmith, tmp_path):
    code, _, err = gansmith("studio", tmp_path, "--port", 99999)
    assert code == 2 and err.count("\n") == 1 and "65535" in err


def test_what_takes_long_holds_up_no_picture_and_ends_with_its_reader(tmp_path):
    """The slow worker is one that never answers."""

    async def ask() -> tuple[bool, bool]:
        slow, gone = Worker(tmp_path), False

        async def started() -> asyncio.subprocess.Process:
            words = [sys.executable, "-c", "import time; time.sleep(60)"]
            slow.process = await asyncio.create_subprocess_exec(*words, stdin=-1, stdout=-1)
            return slow.process

        async def is_gone() -> bool:
            return gone

        slow._started = started
        asking = asyncio.create_task(slow.ask("share", is_unwanted=is_gone, may_end=True))
        await asyncio.sleep(0.7)
        was_running, gone = slow.is_running, True
        with pytest.raises(Busy, match="nobody waits"):
            await asking
        return was_running, slow.is_running

    assert asyncio.run(ask()) == (True, False)


def test_too_many_requests_are_put_off(monkeypatch):
    """At most 120 at once, and 60 in each second after them."""
    now = [100.0]
    monkeypatch.setattr(guard.time, "monotonic", lambda: now[0])
    limiter = guard.Guard(None, "127.0.0.1")
    scope = {"type": "http", "method": "GET", "path": "/api/v1/runs/none/sample", "client": ("127.0.0.1", 1)}
    scope["headers"] = [(b"host", b"127.0.0.1")]

    def status() -> int | None:
        refused = limiter.refusal(scope, Headers(scope=scope))
        return None if refused is None else refused[0]

    assert [status() for _ in range(122)] == [None] * 120 + [429] * 2
    now[0] += 1.0
    assert [status() for _ in range(61)] == [None] * 60 + [429]


def test_beyond_loopback_a_token_is_asked_for(root, tmp_path):
    opened = Server(tmp_path, "--host", "0.0.0.0")
    try:
        token = re.search(r"token=(\S+)", opened.address)[1]
        assert len(token) >= 32
        assert opened.ask("GET", "/api/v1/runs")[0] == opened.ask("GET", "/")[0] == 401
        assert opened.ask("GET", "/api/v1/runs?token=" + token)[0] == 401  # not in an address that programs log
        assert opened.ask("GET", "/?token=" + token[:-1] + ("y" if token[-1] == "x" else "x"))[0] == 401
        status, headers, _ = opened.ask("GET", "/?token=" + token)
        assert (status, headers["location"]) == (303, "/")
        assert {"HttpOnly", "SameSite=Lax"} <= set(headers["set-cookie"].split("; "))
        cookie = headers["set-cookie"].split(";")[0]
        assert opened.ask("GET", "/api/v1/runs", cookie=cookie)[0] == 200
        assert opened.ask("GET", "/api/v1/runs", authorization=f"Bearer {token}")[0] == 200
        assert opened.ask("GET", "/api/v1/runs", authorization=f"Bearer {token}", host="evil.example")[0] == 421
    finally:
        opened.close()


def test_own_hosts_are_those_of_the_address():
    assert {"127.0.0.1", "localhost", "[::1]"} == set(own_hosts("127.0.0.1")) == set(own_hosts("::1"))
    assert "127.0.0.2" in own_hosts("127.0.0.2") and own_hosts("0.0.0.0") == ()
    assert own_hosts("192.168.1.5") == ("192.168.1.5",) and own_hosts("Box.local") == ("box.local",)


@pytest.mark.parametrize(
    ("text", "name"),
    [("a.example:80", "a.example"), ("A.Example", "a.example"), ("[::1]:80", "[::1]"), ("a:", "a"), ("", ""),
     ("a:b", ""), ("a@b", ""), ("a/b", ""), ("::1", ""), ("[::1", ""), ("a:80:80", ""), (" ", "")],
)  # fmt: skip
def test_the_name_of_a_host_is_what_stands_before_its_port(text, name):
    assert host_name(text) == name


def test_a_studio_answers_by_the_names_of_servers_before_it(root, tmp_path):
    opened = Server(tmp_path, "--name", "Studio.example")
    try:
        token = {"authorization": f"Bearer {opened.address.partition('token=')[2]}"}
        asked_by = {
            ("studio.example", "https://studio.example"): 415,  # let through, but it sends no JSON
            ("studio.example", "https://other.example"): 403,
            (f"127.0.0.1:{opened.port}", "https://studio.example"): 415,  # a server that changes the Host
            ("localhost:9000", "http://localhost:9000"): 415,  # a tunnel from another port
            ("localhost:9000", "http://localhost:9001"): 403,
            ("studio.example", "ftp://studio.example"): 403,
            ("other.example", "https://other.example"): 421,
        }
        for (host, origin), status in asked_by.items():
            kinds = {"content_type": "text/plain", **token}
            found = opened.ask("POST", "/api/v1/jobs", b"x", host=host, origin=origin, **kinds)
            assert found[0] == status, (host, origin, found)
        assert opened.ask("GET", "/api/v1/runs", host="studio.example")[0] == 401
        headers = opened.ask("GET", "/", host="studio.example", **token)[1]
        assert "frame-ancestors 'none'" in headers["content-security-policy"]
    finally:
        opened.close()


def test_one_studio_opens_a_directory_and_a_run_is_no_directory_of_runs(server, root, gansmith):
    code, _, err = gansmith("studio", root, "--port", 0)
    assert code == 2 and f"open in another studio already, at http://127.0.0.1:{server.port}/" in err
    code, _, err = gansmith("studio", root / "0001-default-mnist")
    assert code == 2 and "is a run; give the folder that holds runs" in err
    assert gs.studio(root).address == f"http://127.0.0.1:{server.port}/"
    assert f'src="http://127.0.0.1:{server.port}/"' in gs.studio(root)._repr_html_()


def test_runs_are_found_by_name_alone(root, tmp_path):
    assert records.run_ids(root) == ["0001-default-mnist"]
    (tmp_path / "link").symlink_to(root / "0001-default-mnist")
    assert records.run_ids(tmp_path) == []
    with pytest.raises(NotFoundError, match="there is no run 'link' here"):
        records.run_path(tmp_path, "link")


def test_a_run_that_cannot_be_read_is_one_card_with_one_sentence(tmp_path):
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "config.toml").write_text("format = 2\n")
    card = records.card(tmp_path, "old")
    assert card["status"] == "unreadable" and card["error"].startswith("old was written by another version of Gansmith")


@pytest.mark.slow
def test_pipes_in_a_run_or_the_queue_are_never_opened(tmp_path, digit_dir):
    if not hasattr(os, "mkfifo"):
        pytest.skip("this system has no named pipes")
    make_run(tmp_path, "good", digit_dir)
    shutil.copytree(tmp_path / "good", tmp_path / "bad")
    (tmp_path / "bad" / "best.json").unlink()
    os.mkfifo(tmp_path / "bad" / "best.json")
    job = Jobs(tmp_path).folder / "0001"
    job.mkdir(parents=True)
    os.mkfifo(job / "job.json")
    opened = Server(tmp_path)
    try:
        cards = {card["id"]: card for card in opened.json("GET", "/api/v1/runs")["runs"]}
        assert cards["good"]["status"] == "finished"
        assert cards["bad"]["error"] == "bad/best.json is neither a file nor a folder; remove it"
        for method, path in (
            ("GET", ""),
            ("GET", "/log"),
            ("GET", "/sample"),
            ("POST", "/resume"),
            ("POST", "/evaluate"),
        ):
            status, _, data = opened.ask(method, f"/api/v1/runs/bad{path}", None if method == "GET" else b"{}")
            assert status == 400 and "neither a file nor a folder" in json.loads(data)["error"]["message"], path
    finally:
        opened.close()


def test_numbers_that_are_too_large_are_none(tmp_path):
    (tmp_path / "best.json").write_text('{"images_seen": 1e400}')
    assert records.best_of(tmp_path) is None
    rows = [{"images_seen": 10 ** (400 * k), "elapsed_s": k, "images_per_s": 1.0} for k in (1, 2)]
    assert records.images_per_s(rows) is None


def test_the_speed_of_a_training_is_a_mean_since_its_start():
    def row(images_seen: int, elapsed_s: float) -> dict:
        return {"images_seen": images_seen, "elapsed_s": elapsed_s, "images_per_s": 7.0}

    assert records.images_per_s([]) is None and records.images_per_s([row(64, 1.0)]) == 7.0
    before = [row(100, 10.0), row(200, 90.0)]  # another start
    rows = [*before, row(300, 1.0), {"images_seen": 350, "kind": "failure"}, row(1300, 2.0), row(1400, 11.0)]
    assert records.images_per_s(rows) == 110.0
    assert records.images_per_s([*rows, row(1300, 12.0), row(1400, 13.0)]) == 100.0  # after a rollback


def test_the_speed_of_a_run_is_that_of_its_newest_rows_while_it_trains(tmp_path):
    run = create_run(tmp_path / "run", resolve("default", arguments={**TINY, "images": 100_000}))
    for k in range(1, 41):  # ever faster; the last row is as the final score leaves it
        run.append(
            run.log_path, {"images_seen": 32 * k * k, "elapsed_s": float(k), "images_per_s": 3.0, "x": "y" * 1000}
        )
    with runs.locked(run.directory):
        run.record(status="running")
        found = records.progress(run)
        assert found["images_per_s"] == 32 * (40**2 - 21**2) / 19
        assert found["seconds_left"] == (100_000 - 32 * 1600) / found["images_per_s"]
        run.record(status="finished")
        assert records.progress(run)["images_per_s"] == 32 * (40**2 - 1) / 39


def test_a_verdict_of_older_images_is_said_to_be_one(tmp_path):
    run = create_run(tmp_path / "run", resolve("default", arguments=TINY))
    verdict = {"images_seen": 2048, "fd_ratio": 158.0, "gates": {"coverage": {}}, "valid": False}
    run.append(run.metrics_path, {"images_seen": 1024, "validation_fd_ratio": 200.0})
    run.append(run.metrics_path, verdict)
    card = records.card(tmp_path, "run")
    assert (card["fd_ratio"], card["scored_by"], card["valid"]) == (158.0, "evaluate", False)
    run.append(run.metrics_path, {"images_seen": 4096, "validation_fd_ratio": 3.0})
    card = records.card(tmp_path, "run")
    assert (card["fd_ratio"], card["scored_by"], card["valid"]) == (3.0, "training", None)
    assert card["evaluated"] == {"fd_ratio": 158.0, "images_seen": 2048, "valid": False}
    assert answers.Card.model_validate(card)


@pytest.mark.parametrize("data", [5, {"notices": 5}, {"notices": {"a": 1}}, None])
def test_a_run_with_foreign_facts_is_shown(data, tmp_path):
    run = create_run(tmp_path / "run", resolve("default", arguments=TINY))
    (run.directory / "run.json").write_text(json.dumps({"data": data}))
    assert records.details(tmp_path, "run", given=tmp_path)["notices"] == []


def pixels(answer: dict) -> np.ndarray:
    """Return the tiles of an answer as (N, H, W)."""
    picture = np.asarray(Image.open(io.BytesIO(base64.b64decode(answer["png"]))))
    size, columns = answer["size"], answer["columns"]
    tiles = picture.reshape(-1, size, columns, size).swapaxes(1, 2).reshape(-1, size, size)
    return tiles[: answer["count"]]


def asked(root: Path, op: str, **request: object) -> tuple[dict, bytes]:
    return worker.OPERATIONS[op](root, {"run": "0001-default-mnist", **request})


def as_answer(found: tuple[dict, bytes]) -> dict:
    return {**found[0], "png": base64.b64encode(found[1]).decode()}


def test_samples_are_those_of_the_library(root):
    expected = gs.sample(root / "0001-default-mnist", 12, seed=7, labels="0-3")
    found = as_answer(asked(root, "sample", seed=7, count=12, labels="0-3"))
    np.testing.assert_array_equal(pixels(found), expected.images[..., 0])
    assert [tile["label"] for tile in found["tiles"]] == expected.labels.tolist()
    # each tile is drawn again alone by what is said of it
    chosen = [{key: found["tiles"][k][key] for key in ("seed", "index", "y")} for k in (11, 2, 5)]
    again = as_answer(asked(root, "explore", tiles=chosen))
    np.testing.assert_array_equal(pixels(again), expected.images[[11, 2, 5], ..., 0])
    with np.load(io.BytesIO(asked(root, "sample", seed=7, count=12, labels="0-3", format="npz")[1])) as arrays:
        np.testing.assert_array_equal(arrays["images"], expected.images)
        np.testing.assert_array_equal(arrays["labels"], expected.labels)


def test_walks_end_at_their_tiles(root):
    ends = [{"seed": 1, "index": 0, "y": 3}, {"seed": 2, "index": 4, "y": 3}]
    path = pixels(as_answer(asked(root, "walk", tiles=ends, steps=5)))
    np.testing.assert_array_equal(path[[0, -1]], pixels(as_answer(asked(root, "explore", tiles=ends))))
    assert len(path) == 6 and not np.array_equal(path[0], path[3])
    with Image.open(io.BytesIO(asked(root, "walk", tiles=ends, steps=5, format="gif")[1])) as film:
        assert film.format == "GIF" and film.n_frames > 2


def test_a_walk_reaches_the_class_of_each_tile_and_keeps_the_labels(root):
    ends = [{"seed": 1, "y": 3}, {"seed": 2, "index": 4, "y": 9}, {"seed": 3, "y": 3}]
    label = {tile["y"]: tile["label"] for tile in asked(root, "explore", tiles=ends)[0]["tiles"]}
    facts, data = asked(root, "walk", tiles=ends, steps=4)
    path = pixels(as_answer((facts, data)))
    np.testing.assert_array_equal(path[[0, 4, 8]], pixels(as_answer(asked(root, "explore", tiles=ends))))
    assert [tile["y"] for tile in facts["tiles"]] == [3, 3, 9, 9, 9, 9, 3, 3, 3]
    with np.load(io.BytesIO(asked(root, "walk", tiles=ends, steps=4, format="npz")[1])) as arrays:
        assert arrays["labels"].tolist() == [label[y] for y in [3, 3, 9, 9, 9, 9, 3, 3, 3]]
        np.testing.assert_array_equal(arrays["images"][..., 0], path)


@pytest.mark.parametrize(
    ("changes", "split"), [({}, "train"), ({"use_all_training_images": True}, None), ({"classes": "3"}, "train")]
)
def test_neighbours_are_the_nearest_of_the_images_trained_on(changes, split, tmp_path, digit_dir):
    run = make_run(tmp_path, "0001-default-mnist", digit_dir, **changes)
    found = asked(tmp_path, "neighbours", tile={"seed": 3, "index": 1}, count=4)[0]["tiles"]
    image = gs.sample(run.directory, 2, seed=3).images[1, ..., 0].astype(float)
    images = gs.load_data("mnist", data_dir=run.config.data_dir, **({"split": split} if split else {}))
    training = images.pixels[images.labels == 3 if "classes" in changes else slice(None), 0].numpy()
    distances = np.sqrt(((training - image) ** 2).mean((1, 2))) / 255
    assert [row["row"] for row in found] == np.argsort(distances)[:4].tolist()
    np.testing.assert_allclose([row["distance"] for row in found], np.sort(distances)[:4], rtol=1e-5)


def test_the_queue_keeps_its_order_and_takes_back_what_has_not_begun(tmp_path):
    jobs = Jobs(tmp_path)
    jobs.hold(False)
    for name in ("a", "b", "c"):
        (tmp_path / name).mkdir()
        jobs.add(["train"], run=name, title=name)
    with pytest.raises(RunError, match="b is being trained or waits for it"):
        jobs.add(["train"], run="b", title="again")
    assert [job["state"] for job in jobs.all()] == ["queued"] * 3
    jobs.stop("0002")
    assert [job["run"] for job in jobs.all()] == ["a", "c"] and not (tmp_path / "b").exists()
    jobs.tick(lambda: True)
    assert all(job["state"] == "queued" for job in jobs.all())
    with pytest.raises(NotFoundError, match="there is no training '9' in the queue"):
        jobs.stop("9")


def test_a_training_that_is_refused_leaves_nothing(server, root):
    jobs = Jobs(root)
    jobs.hold(True)
    try:
        for k in range(MAX_WAITING):
            jobs.add(["train"], run=f"waiting-{k}", title="")
        status, _, data = server.ask("POST", "/api/v1/jobs", b'{"minutes": 1}')
        assert status == 400 and "50 trainings are waiting" in json.loads(data)["error"]["message"]
        assert not list(root.glob("0002*")) and jobs.is_held
    finally:
        shutil.rmtree(jobs.folder)
        jobs.hold(False)


def test_many_trainings_are_added_at_once(tmp_path):
    jobs = Jobs(tmp_path)
    with ThreadPoolExecutor(12) as pool:
        found = list(pool.map(lambda k: jobs.add(["evaluate"], run=f"run-{k}", title=""), range(12)))
    assert sorted(job["id"] for job in found) == [job["id"] for job in jobs.all()] == [f"{k:04d}" for k in range(1, 13)]


def test_the_document_describes_every_endpoint(server):
    document = server.json("GET", "/api/v1/openapi.json")
    assert document["openapi"].startswith("3.1")
    operations = [(path, method, row) for path, rows in document["paths"].items() for method, row in rows.items()]
    assert len({row["operationId"] for _, _, row in operations}) == len(operations) > 25
    for path, _, row in operations:
        named = {parameter["name"] for parameter in row["parameters"] if parameter["in"] == "path"}
        assert named == set(re.findall(r"{(\w+)}", path)) and row["summary"].endswith(".")
    fields = server.json("GET", "/api/v1/fields")["fields"]
    assert {row["name"] for row in fields} < FIELDS.keys() and all(row["help"] and row["advice"] for row in fields)


@pytest.mark.parametrize(
    ("path", "model"),
    [
        ("runs", answers.Runs),
        ("runs/0001-default-mnist", answers.Run),
        ("runs/0001-default-mnist/log", answers.Log),
        ("runs/0001-default-mnist/generator", answers.Generator),
        ("runs/0001-default-mnist/sample?seed=3", answers.Tiles),
        ("fields", answers.Choices),
        ("datasets", answers.DataSets),
        ("recipes", answers.Recipes),
        ("learn", answers.Lessons),
        ("jobs", answers.Jobs),
        ("openapi.json", answers.Document),
    ],
)
def test_answers_are_what_the_document_says(server, path, model):
    """Nothing is missing, of another type or beyond it."""
    found = server.json("GET", f"/api/v1/{path}")
    assert model.model_validate(found).model_dump(exclude_unset=True) == found


def start_training(server: Server, **choices: object) -> str:
    few = {"g_width": 8, "d_width": 8, "latent_dim": 8, "threads": 1, "conditioning": "none", **choices}
    return server.json("POST", "/api/v1/jobs", {"images": 3_000_000, "choices": few})["run"]


def end_trainings(root: Path) -> None:
    jobs = Jobs(root)
    for job in jobs.all():
        if job["state"] == "running":
            (jobs.folder / job["id"] / "stop").touch()
    wait_until(lambda: not any(job["state"] == "running" for job in jobs.all()), seconds=60)


@pytest.mark.slow
def test_trainings_survive_the_server_and_the_server_survives_them(tmp_path):
    opened = Server(tmp_path)
    try:
        run = start_training(opened)
        other = start_training(opened)
        wait_until((tmp_path / run / "log.jsonl").is_file, seconds=120)  # no longer between two locks
        os.kill(opened.process.pid, signal.SIGKILL)
        opened.process.communicate()
        assert runs.is_locked(tmp_path / run)
        opened = Server(tmp_path)
        jobs = opened.json("GET", "/api/v1/jobs")["jobs"]
        assert [(job["run"], job["state"]) for job in jobs] == [(run, "running"), (other, "queued")]
        opened.json("POST", f"/api/v1/runs/{run}/stop", {"hold": True})  # pause: it saves, and the next one waits
        wait_until(lambda: not runs.is_locked(tmp_path / run), seconds=60)
        wait_until(lambda: opened.json("GET", f"/api/v1/runs/{run}")["status"] == "stopped", seconds=20)
        time.sleep(2)
        assert opened.json("GET", "/api/v1/jobs")["jobs"][1]["state"] == "queued"
        opened.json("POST", "/api/v1/jobs/hold", {"hold": False})
        wait_until(lambda: runs.is_locked(tmp_path / other) and runs.holds_run(tmp_path / other), seconds=120)
        wait_until(lambda: "pid" in runs.open_run(tmp_path / other).facts())  # written just after
        pid = runs.open_run(tmp_path / other).facts()["pid"]
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: opened.json("GET", f"/api/v1/runs/{other}")["status"] == "killed", seconds=20)
        seen = opened.json("GET", f"/api/v1/runs/{run}")["images_seen"]
        opened.json("POST", f"/api/v1/runs/{run}/resume", {"images": seen + 64})
        wait_until(lambda: opened.json("GET", f"/api/v1/runs/{run}")["images_seen"] >= seen + 64, seconds=120)
    finally:
        opened.close()
        end_trainings(tmp_path)


def test_the_client_of_the_docs_works(server, tmp_path):
    text = (Path(__file__).parents[1] / "docs" / "studio.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"^```python\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    words = [sys.executable, "-c", code, server.address]
    printed = subprocess.run(words, check=True, capture_output=True, text=True, cwd=tmp_path).stdout.splitlines()
    assert printed[0] == "0001-default-mnist finished 256" and re.fullmatch(r"\d+ log rows", printed[1])
    with Image.open(tmp_path / "samples.png") as picture, Image.open(tmp_path / "walk.gif") as film:
        assert picture.width == picture.height and film.n_frames > 3


@pytest.mark.slow
def test_no_request_that_the_document_allows_makes_the_server_fail(tmp_path, digit_dir):
    schemathesis = Path(sys.executable).with_name("schemathesis")
    if not schemathesis.exists():
        pytest.skip("schemathesis is not installed")
    root = tmp_path / "runs"
    make_run(root, "0001-default-mnist", digit_dir)
    opened = Server(root)
    try:
        left_out = ("train", "resume", "all_events", "run_events")  # which would train, or never end
        words = [schemathesis, "run", f"{opened.address}api/v1/openapi.json", "--max-examples", "12", "--no-color"]
        checks = "not_a_server_error,content_type_conformance,response_schema_conformance"
        words += ["--checks", checks, "--phases", "coverage,fuzzing", "--max-time", "90"]
        words += [word for name in left_out for word in ("--exclude-operation-id", name)]
        found = subprocess.run(words, capture_output=True, text=True, cwd=tmp_path)
        assert found.returncode == 0, found.stdout[-4000:]
        assert {path.name for path in root.iterdir()} == {"0001-default-mnist", ".studio"}
    finally:
        assert "Traceback" not in opened.close()


def test_what_is_uploaded_keeps_its_name_and_that_of_its_class(server, root):
    upload = server.json("POST", "/api/v1/uploads", {"name": "../../my photos"})
    assert re.fullmatch("[0-9a-f]{16}", upload["id"]) and upload["name"] == "my-photos"
    folder = root / ".studio" / "uploads" / upload["id"]
    path = f"/api/v1/uploads/{upload['id']}/files?name="
    names = (
        "my/cat/1.png",
        "my/cat/..%2F..%2F2.JPG",
        "..%5C..%5C..%5Cx.png",
        "my/..%00/3.png",
        "plain.png",
        "my/-rf/4.png",
        "my/train/cat/5.png",
        "my/test/cat/6.png",
        "my/C%23/7.png",
        "my/C%2B%2B/8.png",
        "my/%E7%8C%AB/9.png",
        "my/a:b/10.png",
        "my/a;b/11.png",
        "my/con/12.png",
    )
    for name in names:
        status, _, data = server.ask("PUT", path + name, b"pixels", content_type=BYTES)
        assert (status, json.loads(data)) == (200, {"bytes": 6}), name
    found = [file.relative_to(folder).as_posix() for file in sorted(folder.rglob("*")) if file.is_file()]
    assert len(found) == len(names) + 1 and all(
        re.fullmatch(r"my-photos/([\w#+-]+/){0,3}[\w.-]+\.(png|jpg)", f) for f in found[:-1]
    )
    kept = ("cat/1", "train/cat/5", "test/cat/6", "C#/7", "C++/8", "猫/9")
    assert {f"my-photos/{name}.png" for name in kept} <= set(found) and found[-1] == "upload.json"
    folders = {file.split("/")[1] for file in found if file.count("/") == 2}  # no two of these became one
    assert len(folders) == 9 and len({name for name in folders if name.startswith("a-b-")}) == 2
    for name, word in {
        "run.sh": "neither a picture nor",
        "%2F": "neither a picture nor",
        "more.zip": "begin another",
    }.items():
        status, _, data = server.ask("PUT", path + name, b"pixels", content_type=BYTES)
        assert status == 400 and word in json.loads(data)["error"]["message"], name
    assert server.ask("PUT", path + "a.png", b"x", content_type=BYTES, content_length=str(2**40))[0] == 413
    assert server.ask("GET", "/api/v1/uploads/" + "0" * 16)[0] == 404


@pytest.mark.parametrize("name", ["upload.zip", "u.zip", "up.npz", "used.zip"])
def test_an_upload_may_be_called_as_its_own_files(name, server, root):
    upload = server.json("POST", "/api/v1/uploads", {"name": name})
    path = f"/api/v1/uploads/{upload['id']}/files?name={name}"
    assert server.ask("PUT", path, b"packed", content_type=BYTES)[0] == 200
    assert uploads.data_path(root, upload["id"]).read_bytes() == b"packed"


def test_an_upload_is_bounded_in_all(tmp_path, monkeypatch):
    monkeypatch.setattr(uploads, "MAX_UPLOAD_BYTES", 10)
    monkeypatch.setattr(uploads, "MAX_FILES", 4)
    upload_id = uploads.create(tmp_path, "mine")["id"]

    def send(name: str, body: bytes) -> None:
        async def read() -> dict:
            return {"type": "http.request", "body": body}

        asyncio.run(uploads.receive(tmp_path, upload_id, name, Request({"type": "http"}, read)))

    send("mine/a/1.png", b"12345")
    send("mine/b/2.png", b"123")
    with pytest.raises(TooLarge, match="10 bytes at most"):
        send("mine/c/3.png", b"123")
    uploads._HELD.clear()  # another server
    with pytest.raises(TooLarge):
        send("mine/c/3.png", b"123")
    send("mine/d/4.png", b"12")
    with pytest.raises(DataError, match="4 pictures; pack them"):
        for _ in range(4):
            send("mine/a/5.png", b"")
    names = [path.name for path in sorted((tmp_path / ".studio/uploads" / upload_id / "mine").glob("*/*"))]
    assert names == ["1.png", "2.png", "4.png"]


def test_uploads_take_the_pictures_that_can_be_read():
    assert set(uploads.PICTURES) == set(ENDINGS)


def test_what_cannot_be_done_to_a_run_is_said_in_one_sentence(server, root):
    for path, body, sentence in (
        ("stop", {}, "0001-default-mnist is not being trained"),
        ("resume", {"images": 5, "minutes": 1}, "minutes and images each set the length; give one of them"),
    ):
        status, _, data = server.ask("POST", f"/api/v1/runs/0001-default-mnist/{path}", json.dumps(body).encode())
        assert (status, json.loads(data)["error"]["message"]) == (400, sentence)
    before = (root / "0001-default-mnist" / "config.toml").read_bytes()
    for images in (5, 256):
        body = json.dumps({"images": images}).encode()
        status, _, data = server.ask("POST", "/api/v1/runs/0001-default-mnist/resume", body)
        assert status == 400 and "has seen 256 already; give more" in json.loads(data)["error"]["message"]
    assert (root / "0001-default-mnist" / "config.toml").read_bytes() == before
    status, _, data = server.ask("GET", "/api/v1/runs/gone")
    assert status == 404 and "it may have been deleted or renamed" in json.loads(data)["error"]["message"]


def test_python_opens_it_too(tmp_path):
    opened = gs.studio(tmp_path)
    try:
        with urlopen(opened.address) as page:
            policy = page.headers["content-security-policy"]
        assert "frame-ancestors http://localhost:* http://127.0.0.1:*" in policy
        assert f'src="{opened.address}"' in opened._repr_html_()
    finally:
        opened.close()
    with pytest.raises(ConfigError, match="is a run; give the folder that holds runs"):
        (tmp_path / "config.toml").write_text("")
        gs.studio(tmp_path)


def test_a_training_that_could_not_start_says_why_and_can_be_dismissed(tmp_path):
    jobs = Jobs(tmp_path)
    job = jobs.add(["train", "default", "--data=nothing"], run="0001-x", title="x")
    folder = jobs.folder / job["id"]
    (folder / "started").touch()
    (folder / "output.log").write_text("some line\ngansmith: there is no data set 'nothing'; choose another\n")
    (folder / "result.json").write_text('{"code": 2}')
    (ended,) = jobs.all()
    assert (ended["state"], ended["message"]) == ("ended", "there is no data set 'nothing'; choose another")
    assert jobs.stop(job["id"])["state"] == "removed" and jobs.all() == []
    job = jobs.add(["evaluate", "0001-x"], run="0001-x", title="x")
    (jobs.folder / job["id"] / "output.log").write_text("gansmith: interrupted\n")
    (jobs.folder / job["id"] / "result.json").write_text('{"code": 130}')
    assert jobs.find(job["id"])["message"] == ""  # it was stopped, which is no failure


def test_an_evaluation_waits_in_the_queue_and_leaves_a_held_one_held(server, root):
    server.json("POST", "/api/v1/jobs/hold", {"hold": True})
    job = server.json("POST", "/api/v1/runs/0001-default-mnist/evaluate", {"quick": True})
    assert job["command"] == "evaluate" and "words" not in job
    stored = json.loads((root / ".studio" / "jobs" / job["id"] / "job.json").read_text())
    assert stored["words"] == ["evaluate", str(root.resolve() / "0001-default-mnist"), "--quick"]
    assert server.json("GET", "/api/v1/runs")["is_held"]
    server.json("POST", f"/api/v1/jobs/{job['id']}/stop", {})
    wait_until(lambda: not [one for one in server.json("GET", "/api/v1/runs")["jobs"] if one["state"] != "ended"])
    server.json("POST", "/api/v1/jobs/hold", {"hold": False})


def test_a_held_queue_starts_evaluations_alone(tmp_path):
    jobs = Jobs(tmp_path)
    jobs.add(["train", "--help"], run="a", title="a")
    jobs.hold(True)
    assert jobs._next() is None
    second = jobs.add(["evaluate", "--help"], run="b", title="b")
    assert jobs._next()["id"] == second["id"]
    jobs.hold(False)
    assert jobs._next()["run"] == "a"


def test_a_failure_is_told_until_the_same_is_done_again(tmp_path):
    studio = SimpleNamespace(root=tmp_path, jobs=Jobs(tmp_path))

    def queue(command: str, run: str, code: int | None) -> None:
        job = studio.jobs.add([command, run], run=run, title=f"{command} {run}")
        if code is not None:
            (studio.jobs.folder / job["id"] / "result.json").write_text(json.dumps({"code": code}))

    def told() -> list[str]:
        return [job["title"] for job in routes.overview(studio)["jobs"] if job["state"] == "ended"]

    queue("evaluate", "a", 2)
    queue("resume", "a", 2)
    queue("evaluate", "b", 2)
    assert told() == ["evaluate a", "resume a", "evaluate b"]
    queue("evaluate", "a", 0)
    assert told() == ["resume a", "evaluate b"]
    queue("resume", "a", None)
    queue("evaluate", "b", 1)
    assert told() == ["evaluate b"]


def test_a_run_is_shared_as_files(root):
    with Image.open(io.BytesIO(asked(root, "share", name="film.gif")[1])) as film:
        assert film.format == "GIF" and 1 < film.n_frames <= len(runs.open_run(root / "0001-default-mnist").grids())
    with zipfile.ZipFile(io.BytesIO(asked(root, "share", name="safetensors.zip")[1])) as archive:
        assert "safetensors/generator.safetensors" in archive.namelist()
        assert archive.read("safetensors/model-card.md") and archive.testzip() is None


def test_what_a_run_is_not_shared_as_is_said(server):
    shares = server.json("GET", "/api/v1/runs/0001-default-mnist")["shares"]
    assert {"web-page.zip", "report.pdf", "film.gif", "submission.zip"} <= set(shares)
    status, _, data = server.ask("GET", "/api/v1/runs/0001-default-mnist/share/exe")
    assert status == 404 and "choose one of web-page.zip" in json.loads(data)["error"]["message"]


def test_the_queue_runs_one_command_after_the_other_in_processes_that_any_server_finds(tmp_path, digit_dir):
    jobs = Jobs(tmp_path)
    long = ["train", "mlp-small", *flags(images=10**7), "--data-dir", str(digit_dir), "--progress=plain"]
    wanted = {name: [*long, "--out", str(tmp_path / name)] for name in "bc"}
    wanted = {"a": ["train", "--help"], **wanted, "d": ["train", "--nosuch=1"]}
    ids = {name: jobs.add(words, run=name, title=name)["id"] for name, words in wanted.items()}

    def state(name: str) -> str:
        jobs.tick(lambda: False)
        return jobs.find(ids[name])["state"]

    def output(name: str) -> str:
        path = jobs.folder / ids[name] / "output.log"
        return path.read_text() if path.exists() else ""

    wait_until(lambda: state("a") == "ended", seconds=30)
    assert jobs.find(ids["a"])["code"] == 0 and "--minutes" in output("a")
    wait_until(lambda: state("b") == "running" and "of 10,000,000" in output("b"), seconds=60)
    assert [job["state"] for job in Jobs(tmp_path).all()] == ["ended", "running", "queued", "queued"]
    assert Jobs(tmp_path).stop(ids["b"])["is_stopping"]
    wait_until(lambda: state("b") == "ended", seconds=30)
    wait_until(lambda: state("c") == "running" and "of 10,000,000" in output("c"), seconds=60)
    jobs.processes[ids["c"]].kill()
    wait_until(lambda: state("c") == "ended", seconds=30)
    assert jobs.find(ids["c"])["message"] == "its process was killed, or its machine went down"
    wait_until(lambda: state("d") == "ended", seconds=30)
    assert jobs.find(ids["d"])["message"] == "there is no --nosuch; did you mean --epochs?"
    wait_until(lambda: not jobs.tick(lambda: False) and not jobs.processes)


def test_memory_stays_bounded_and_cut_off_bodies_leave_nothing(server, root):
    part = b"x" * 2**20
    upload = server.json("POST", "/api/v1/uploads", {"name": "big.zip"})
    statuses = []
    for path, parts, kind in (
        (f"/api/v1/uploads/{upload['id']}/files?name=big.zip", 64, BYTES),
        ("/api/v1/config", 4, "application/json"),
    ):
        connection = http.client.HTTPConnection("127.0.0.1", server.port)
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            method = "PUT" if kind == BYTES else "POST"
            connection.request(method, path, iter([part] * parts), {"content-type": kind}, encode_chunked=True)
        statuses.append(connection.getresponse().status)
        connection.close()
    assert statuses == [200, 413]
    half = server.json("POST", "/api/v1/uploads", {"name": "half.zip"})
    with socket.create_connection(("127.0.0.1", server.port)) as client:
        head = f"PUT /api/v1/uploads/{half['id']}/files?name=half.zip HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\n"
        client.sendall(f"{head}content-type: {BYTES}\r\ncontent-length: 1000000\r\n\r\n".encode() + b"y" * 1000)
        wait_until(lambda: len(os.listdir(root / ".studio" / "uploads" / half["id"])) == 2)
    wait_until(lambda: os.listdir(root / ".studio" / "uploads" / half["id"]) == ["upload.json"])
    silent = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(300)]
    for connection in silent:
        connection.close()
    time.sleep(0.3)  # until it has seen that they are closed
    assert server.ask("GET", "/")[0] == 200
    if sys.platform == "linux":
        peak = re.search(r"VmHWM:\s+(\d+)", Path(f"/proc/{server.process.pid}/status").read_text())[1]
        assert int(peak) < 150_000


def test_a_run_that_waits_is_said_to_and_a_number_is_not_given_again(tmp_path):
    """A page or program that opens it at once may ask again; a repeated removal hits no later job."""
    jobs = Jobs(tmp_path)
    words = ["train", "mlp-small"]
    first = jobs.add(words, run="0001-mlp-small-mnist", title="a")
    for run, kind in (("0001-mlp-small-mnist", "NotBegun"), ("another", "NotFoundError")):
        app = SimpleNamespace(state=SimpleNamespace(studio=SimpleNamespace(jobs=jobs, root=tmp_path)))
        asked = SimpleNamespace(path_params={"run": run}, app=app)
        answered = json.loads(routes._not_found(asked, NotFoundError("no run")).body)["error"]
        assert answered["kind"] == kind and ("waits for its turn" in answered["message"]) == (kind == "NotBegun")
    assert jobs.stop(first["id"])["state"] == "removed"
    ended = [{"run": "another", "state": "ended", "message": "there is no data set 'x'"}]
    app = SimpleNamespace(
        state=SimpleNamespace(studio=SimpleNamespace(jobs=SimpleNamespace(all=lambda: ended), root=tmp_path))
    )
    asked = SimpleNamespace(path_params={"run": "another"}, app=app)
    answered = json.loads(routes._not_found(asked, NotFoundError("no run")).body)["error"]
    assert answered["message"] == "another did not start: there is no data set 'x'"
    second = jobs.add(words, run="0001-mlp-small-mnist", title="b")
    assert second["id"] != first["id"]


def test_streams_end_with_the_server(tmp_path):
    """Ctrl-C with a page open prints nothing."""
    opened = Server(tmp_path)
    stream = opened.listen("/api/v1/events")
    next_news(stream, "overview")
    opened.process.send_signal(signal.SIGINT)
    _, said = opened.process.communicate(timeout=20)
    left = stream.read()  # of the load of the machine, say
    assert said == "" and (not left.strip() or left.endswith(b"\n\n"))
    opened.close()


def test_a_log_that_grows_is_sent_as_it_was(tmp_path):
    """Its length was said before its end was read."""
    path = tmp_path / "log.jsonl"
    path.write_bytes(b"x" * 1000)
    answer = routes._Snapshot(path, stat_result=path.stat())
    path.write_bytes(b"x" * 1500)
    sent = []

    async def send(message) -> None:
        sent.append(message)

    scope = {"type": "http", "asgi": {"spec_version": "2.4"}, "method": "GET", "headers": []}
    asyncio.run(answer(scope, None, send))
    assert sum(len(message.get("body", b"")) for message in sent) == 1000 and not sent[-1].get("more_body")


def test_a_file_that_is_deleted_while_it_is_asked_for_is_not_there(tmp_path):
    """Between its stat and its opening, where a traceback stood in the server's terminal."""
    path = tmp_path / "grid.png"
    path.write_bytes(b"x" * 1000)
    answer = routes._Snapshot(path, stat_result=path.stat())
    path.unlink()
    sent = []

    async def send(message) -> None:
        sent.append(message)

    scope = {"type": "http", "asgi": {"spec_version": "2.4"}, "method": "GET", "headers": []}
    asyncio.run(answer(scope, None, send))
    assert [message["status"] for message in sent if "status" in message] == [404]
    assert b"there is no grid.png in this run" in sent[-1]["body"]


def test_viewers_are_counted_from_their_answers_on():
    studio = SimpleNamespace(viewers=0)
    answer = routes._Watched(studio, iter(()))
    assert studio.viewers == 1

    async def nobody(message) -> None:
        raise OSError

    with pytest.raises(BaseException):  # noqa: B017
        asyncio.run(answer({"type": "http", "asgi": {"spec_version": "2.4"}}, None, nobody))
    assert studio.viewers == 0


def test_a_run_that_cannot_be_read_for_a_moment_is_followed_on(tmp_path, digit_dir):
    run = make_run(tmp_path, "run", digit_dir)
    config = (run.directory / "config.toml").read_text()
    opened = Server(tmp_path)
    try:
        stream = opened.listen("/api/v1/runs/run/events")
        next_news(stream)
        (run.directory / "config.toml").write_text("format = 2\n")
        assert next_news(stream, "unreadable")[1]["message"]
        (run.directory / "config.toml").write_text(config)
        assert next_news(stream)[1] == {}  # it can be read again, and nothing else is new
        run.append(run.log_path, {"images_seen": 400, "d_loss": 1.5, "images_per_s": 9.0})
        assert next_news(stream)[1]
    finally:
        assert "Traceback" not in opened.close()


def test_a_verdict_without_a_ratio_is_no_better_score(tmp_path, digit_dir):
    run = make_run(tmp_path, "0001-invalid", digit_dir)
    verdict = {
        "data": "mnist",
        "images_seen": run.config.images,
        "fd_ratio": None,
        "valid": False,
        "gates": {"pixels": {}},
    }
    run.append(run.metrics_path, verdict)
    card = records.card(tmp_path, run.directory.name)
    assert (card["fd_ratio"], card["valid"], card["scored_by"]) == (None, False, "evaluate")
    assert answers.Card.model_validate(card).valid is False


def test_cookies_of_two_studios_on_one_host_are_apart(root):
    with_port = [guard.cookie_of({"type": "http", "server": ("0.0.0.0", port)}) for port in (8794, 8796)]
    assert with_port == ["gansmith_token_8794", "gansmith_token_8796"]


def test_a_browser_without_the_token_gets_a_page(tmp_path):
    opened = Server(tmp_path, "--host", "0.0.0.0")
    try:
        for kind, wanted in (("text/html,*/*", "text/html"), ("*/*", "application/json")):
            request = f"GET / HTTP/1.1\r\nhost: 127.0.0.1:{opened.port}\r\naccept: {kind}\r\nconnection: close\r\n\r\n"
            with socket.create_connection(("127.0.0.1", opened.port), timeout=10) as line:
                line.sendall(request.encode())
                answer = b"".join(iter(lambda: line.recv(65536), b"")).decode()
            assert answer.startswith("HTTP/1.1 401") and f"content-type: {wanted}" in answer and "token" in answer
    finally:
        opened.close()


def test_a_training_that_did_not_start_names_no_place_of_an_upload():
    job = {"words": ["train"], "message": "/home/me/runs/.studio/uploads/0123456789abcdef/0-png holds too few images"}
    assert routes._shown(job) == {"message": "0-png holds too few images", "command": "train"}


def test_a_queue_is_stopped_and_started_by_one_at_a_time(tmp_path, monkeypatch):
    """A training that is taken out while the queue looks for its next one is not started."""
    queue, started = Jobs(tmp_path), []
    monkeypatch.setattr(Jobs, "_start", lambda self, path: started.append(path.name))
    job = queue.add(["train"], run="0001", title="one")
    queue.tick(lambda: queue.stop(job["id"]) and False)  # meanwhile
    assert started == [] and queue.all() == []
    queue.add(["train"], run="0002", title="two")
    queue.tick(lambda: False)
    assert len(started) == 1


# Folders of runs that come from others.


def test_a_job_that_no_studio_of_this_user_queued_is_never_run(tmp_path):
    jobs, ran = Jobs(tmp_path / "runs"), tmp_path / "ran"
    (tmp_path / "runs").mkdir()
    words = ["train", "mlp-small", "--images", "64", "--out", str(ran)]
    own = jobs.add(words, run="a", title="t")
    stored = json.loads((jobs.folder / own["id"] / "job.json").read_text())
    assert own["state"] == "queued"
    for number, job in enumerate(
        (
            {"words": words, "run": "a", "title": "t"},
            {**stored, "words": [*words, "--seed", "7"]},
            {**stored, "signature": None},
            stored,  # of another number
        ),
        start=11,
    ):
        (jobs.folder / f"{number:04d}").mkdir()
        write_json(jobs.folder / f"{number:04d}" / "job.json", job)
    for number, job in enumerate(
        (
            {},
            {**stored, "words": ["grade", "."]},
            {**stored, "words": "train"},
            {**stored, "run": "../a"},
            {**stored, "run": 5},
        ),
        start=21,
    ):
        (jobs.folder / f"{number:04d}").mkdir()
        write_json(jobs.folder / f"{number:04d}" / "job.json", job)
    states = {job["id"]: job["state"] for job in jobs.all()}
    assert states == {own["id"]: "queued", **dict.fromkeys(("0011", "0012", "0013", "0014"), "ended")}
    assert "was not queued by a studio of this user" in jobs.find("0011")["message"]
    shutil.move(tmp_path / "runs", tmp_path / "moved")
    assert [job["state"] for job in Jobs(tmp_path / "moved").all()] == ["ended"] * 5
    (tmp_path / "bad").mkdir()
    write_json(tmp_path / "bad" / "job.json", {"words": ["grade", "."], "run": "a", "title": "t"})
    with pytest.raises(RunError, match="holds no training"):
        trainer.train(tmp_path / "bad")


def test_one_run_of_another_program_hides_no_others(tmp_path):
    root = tmp_path / "runs"
    for name in ("good", "bad"):
        create_run(root / name, resolve("mlp-small"))
    row = json.dumps({"images_seen": 64, "images_per_s": 5.0, "elapsed_s": 1.0})
    for line in (row[:-2] + "0" * 401 + "}", row.replace("64", "9" * 401)):
        (root / "bad" / "log.jsonl").write_text(f"{row}\n{line}\n{row}\n")
        cards = [records.card(root, name) for name in ("good", "bad")]
        assert [card["id"] for card in cards] == ["good", "bad"]
