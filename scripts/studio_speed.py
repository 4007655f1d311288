"""Measure the studio: its start, its memory, the time from a click to a new image, and what viewers cost a training.

    python scripts/studio_speed.py RUNS_DIR

RUNS_DIR holds a finished run and no training; one of three minutes is started there. A click is one on "New seed" in
Chromium, and it ends when the frame with the new images has been painted. A viewer holds the two streams that a run's
page holds and fetches each new grid; all of them are one process. Training with and without them alternates, a window
each, and the loss is that of the median rate.
"""

import argparse
import asyncio
import contextlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

import psutil
from playwright.sync_api import sync_playwright

import gansmith as gs
from gansmith import runs
from gansmith.web.notebook import Served

CLICK = """async () => {
  const tiles = document.querySelector(".tiles");
  const painted = new Promise((done) => new MutationObserver((_, watcher) => {
    watcher.disconnect();
    requestAnimationFrame(() => { const after = new MessageChannel(); after.port1.onmessage = () => done(performance.now()); after.port2.postMessage(0); });
  }).observe(tiles, { childList: true }));
  const began = performance.now();
  [...document.querySelectorAll("button")].find((one) => one.textContent === "New seed").click();
  return (await painted) - began;
}"""  # noqa: E501
SETTLE_S = 3.0  # after viewers come or go


def ask(address: str, path: str, body: object = None) -> dict:
    data = None if body is None else json.dumps(body).encode()
    with urlopen(Request(f"{address}api/v1{path}", data, {"content-type": "application/json"})) as answer:
        return json.load(answer)


def clicks(address: str, run_id: str, count: int = 30) -> str:
    """Return the times of that many clicks, after three to warm up."""
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1280, "height": 860})
        page.goto(f"{address}explore/{run_id}")
        page.wait_for_selector("[data-ms]")
        page.wait_for_timeout(2000)
        times = []
        for _ in range(count + 3):
            times.append(page.evaluate(CLICK))
            page.wait_for_timeout(200)
        browser.close()
    times = sorted(times[3:])
    return f"median {statistics.median(times):.0f} ms, {times[0]:.0f} to {times[-1]:.0f}"


async def view(address: str, run_id: str) -> None:
    """Hold a page's two streams, and fetch each new grid of the run."""

    async def stream(path: str, is_run: bool) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", urlsplit(address).port, limit=2**24)
        with contextlib.closing(writer):
            writer.write(f"GET /api/v1{path} HTTP/1.1\r\nHost: {urlsplit(address).netloc}\r\n\r\n".encode())
            while line := await reader.readline():
                if is_run and line.startswith(b"data: "):
                    for seen in json.loads(line[6:]).get("grids", [])[-1:]:
                        await fetch(f"/api/v1/runs/{run_id}/grids/{seen}")

    async def fetch(path: str) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", urlsplit(address).port)
        with contextlib.closing(writer):
            writer.write(
                f"GET {path} HTTP/1.1\r\nHost: {urlsplit(address).netloc}\r\nConnection: close\r\n\r\n".encode()
            )
            await reader.read()

    await asyncio.gather(stream("/events", False), stream(f"/runs/{run_id}/events", True))


async def view_all(address: str, run_id: str, count: int) -> None:
    await asyncio.gather(*(view(address, run_id) for _ in range(count)))


def rates(run: runs.RunDirectory, seconds: float) -> list[float]:
    """Return the rates that a training logs in the next so many seconds."""
    first = len(run.log)
    time.sleep(seconds)
    return [row["images_per_s"] for row in run.log[first:] if row.get("images_per_s")]


def seconds_of(*processes: int) -> list[float]:
    """Return the processor time that each process has taken."""
    return [sum(psutil.Process(process).cpu_times()[:2]) for process in processes]


def viewers(studio: Served, root: Path, run_id: str, count: int, windows: int, seconds: float) -> str:
    """Return what viewers cost the training that runs."""
    assert studio.process is not None
    run, found, taken = runs.open_run(root / run_id), {False: [], True: []}, []
    for k in range(windows):
        if k % 2 == 0:
            time.sleep(SETTLE_S)
            found[False] += rates(run, seconds)
            continue
        command = [sys.executable, __file__, str(root), "--view", studio.address, run_id, str(count)]
        process = subprocess.Popen(command)
        time.sleep(SETTLE_S)
        before = seconds_of(studio.process.pid, process.pid)
        found[True] += rates(run, seconds)
        after = seconds_of(studio.process.pid, process.pid)
        taken.append([100 * (b - a) / seconds for a, b in zip(before, after, strict=True)])
        process.kill()
        process.wait()
    alone, seen = (statistics.median(found[watched]) for watched in (False, True))
    server, clients = (statistics.median(column) for column in zip(*taken, strict=True))
    lost = f"{alone:.0f} images/s alone, {seen:.0f} with {count} viewers: {100 * (1 - seen / alone):.1f} % lost"
    return f"{lost}; of a core, the server takes {server:.1f} % and the viewers themselves {clients:.1f} %"


def measure(root: Path, count: int, windows: int, seconds: float) -> None:
    run_id = next(path.name for path in sorted(root.iterdir()) if runs.holds_run(path))
    began = time.perf_counter()
    studio = gs.studio(root)
    ask(studio.address, "/runs")
    print(f"start: {time.perf_counter() - began:.2f} s to the first answer")
    time.sleep(5)
    assert studio.process is not None, "this folder is open in a studio already; close that first"
    print(f"memory while idle: {psutil.Process(studio.process.pid).memory_info().rss / 1e6:.0f} MB")
    print("click to image, idle:", clicks(studio.address, run_id))
    job = ask(studio.address, "/jobs", {"minutes": 3})
    try:
        while not (root / job["run"] / "log.jsonl").exists():
            time.sleep(0.2)
        time.sleep(5)
        print("click to image while training:", clicks(studio.address, run_id))
        print("viewers:", viewers(studio, root, job["run"], count, windows, seconds))
    finally:
        ask(studio.address, f"/jobs/{job['id']}/stop", {})
        while runs.is_locked(root / job["run"]):
            time.sleep(0.2)
        studio.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("root", type=Path)
    parser.add_argument("--viewers", type=int, default=50)
    parser.add_argument("--windows", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--view", nargs=3, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.view:
        asyncio.run(view_all(given.view[0], given.view[1], int(given.view[2])))
    else:
        os.environ.setdefault("GANSMITH_OFFLINE", "1")
        measure(given.root.resolve(), given.viewers, given.windows, given.seconds)
