"""Notebooks: progress and interruption in a real kernel, those stored, the tutorials', the whole API as typed."""

import ast
import base64
import subprocess
import sys
import time
from queue import Empty

import nbformat
import pytest
import run_pages
from conftest import write_set
from IPython.core.inputtransformer2 import TransformerManager
from jupyter_client.manager import start_new_kernel
from nbformat.v4 import new_code_cell, new_notebook
from run_notebooks import FOLDER, execute
from tutorial_notebooks import INSTALL, to_notebook, tutorials

import gansmith as gs
from gansmith.errors import NotFoundError

NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
MAX_BYTES = 600_000


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    """What kernels train is small, whatever recipe a cell names."""
    for name, value in {"threads": 1, "g_width": 16, "d_width": 16, "trackers": "none"}.items():
        monkeypatch.setenv(f"GANSMITH_{name.upper()}", str(value))


def outputs_of(cell, mime):
    return [output["data"][mime] for output in cell.outputs if mime in output.get("data", {})]


# A real kernel.


class Kernel:
    """A kernel that cells are sent to, with what they display."""

    def __init__(self, folder):
        self.manager, self.client = start_new_kernel(kernel_name="python3", cwd=str(folder))

    def messages(self, code, *, timeout_s=120):
        """Yield what a cell displays until it has ended."""
        request = self.client.execute(code)
        end = time.monotonic() + timeout_s
        while time.monotonic() < end:
            try:
                message = self.client.get_iopub_msg(timeout=1)
            except Empty:
                continue
            if message["parent_header"].get("msg_id") != request:
                continue
            if message["msg_type"] == "status" and message["content"]["execution_state"] == "idle":
                return
            yield message
        raise AssertionError(f"the cell did not end within {timeout_s} s")

    def text(self, code):
        return "".join(message["content"].get("text", "") for message in self.messages(code))

    def close(self):
        self.client.stop_channels()
        self.manager.shutdown_kernel(now=True)


@pytest.fixture
def kernel(tmp_path):
    opened = Kernel(tmp_path)
    yield opened
    opened.close()


TRAIN = 'import gansmith as gs; run = gs.train("mlp-small", images={}, log_every=640, sample_every={}, out="run")'


@pytest.mark.slow
def test_an_interrupted_kernel_stops_and_saves_the_run(kernel):
    interrupted = False
    kinds, shown = [], []
    for message in kernel.messages(TRAIN.format(6_400_000, 6400)):
        assert message["msg_type"] != "error", message["content"]
        if message["msg_type"] in ("display_data", "update_display_data"):
            kinds.append(message["msg_type"])
            shown.append(message["content"]["data"]["text/html"])
            if not interrupted and "images/s" in shown[-1]:
                kernel.manager.interrupt_kernel()
                interrupted = True
    assert interrupted
    assert kinds[0] == "display_data" and set(kinds[1:]) == {"update_display_data"}
    assert all("<progress" in html for html in shown)
    assert kernel.text('print(run.status, run.images_seen > 0, gs.open_run("run").latest() is not None)') == (
        "stopped True True\n"
    )
    assert kernel.text('print(gs.resume(run, images=run.images_seen + 640, progress="none").status)') == "finished\n"


@pytest.mark.slow
def test_a_cell_that_trains_shows_a_bar_and_a_growing_grid(tmp_path):
    notebook = new_notebook(
        cells=[new_code_cell(TRAIN.format(1280, 640)), new_code_cell("run"), new_code_cell("run.sample(4)")]
    )
    trained, shown, sampled = execute(notebook, tmp_path).cells
    (html,) = outputs_of(trained, "text/html")  # one display, updated in its place
    assert '<progress value="1.0000"' in html and "1,280 of 1,280 images" in html
    assert "validation FD ratio" in html
    newest = (tmp_path / "run" / "samples" / "000001280.png").read_bytes()
    assert f'<img src="data:image/png;base64,{base64.b64encode(newest).decode()}"' in html
    assert outputs_of(trained, "text/plain")[0].startswith("1,280 of 1,280 images")
    assert outputs_of(shown, "text/html")[0].count("<img") == 2
    assert "finished, 1,280 images" in outputs_of(shown, "text/plain")[0]
    assert base64.b64decode(outputs_of(sampled, "image/png")[0]).startswith(b"\x89PNG")


# The stored notebooks.


def code_of(notebook):
    transform = TransformerManager().transform_cell
    return [ast.parse(transform(cell.source)) for cell in notebook.cells if cell.cell_type == "code"]


@pytest.fixture(params=NOTEBOOKS, ids=lambda path: path.stem)
def stored(request):
    return nbformat.read(request.param, as_version=4)


def test_there_are_notebooks():
    assert [path.stem for path in NOTEBOOKS] == ["compare-losses", "first-gan"]


def test_stored_outputs_are_whole_and_without_errors(stored):
    nbformat.validate(stored)
    cells = [cell for cell in stored.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell.outputs]
    assert not [output for output in outputs if output.output_type == "error"]
    pictures = [output for output in outputs if "image/png" in output.get("data", {})]
    pages = [output for output in outputs if "<img" in str(output.get("data", {}).get("text/html"))]
    assert pictures and (pages or len(pictures) > 1)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_stored_notebooks_are_small(path):
    assert path.stat().st_size < MAX_BYTES


def test_code_cells_use_public_names_only(stored):
    for tree in code_of(stored):
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute):
                assert not node.attr.startswith("_")
                if isinstance(node.value, ast.Name) and node.value.id == "gs":
                    assert node.attr in gs.__all__
            elif isinstance(node, ast.Import):
                assert {alias.name for alias in node.names} <= {"gansmith", "matplotlib.pyplot"}
            elif isinstance(node, ast.ImportFrom):
                assert not node.module.startswith("gansmith")


def test_the_first_code_cell_installs_gansmith_where_it_is_missing_only(stored):
    first = next(cell for cell in stored.cells if cell.cell_type == "code")
    assert 'if find_spec("gansmith") is None:\n    %pip install' in first.source
    assert first.outputs == []


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_run(path, tmp_path):
    execute(nbformat.read(path, as_version=4), tmp_path, images=1280)  # a cell that fails raises


# The tutorials as notebooks.


@pytest.mark.parametrize("page", tutorials(), ids=lambda path: path.stem)
def test_the_notebook_of_a_tutorial_is_that_of_its_page(page):
    stored = nbformat.read(page.with_suffix(".ipynb"), as_version=4)
    nbformat.validate(stored)
    text = page.read_text(encoding="utf-8")
    assert stored == to_notebook(text)
    sources = [cell.source for cell in stored.cells if cell.cell_type == "code"]
    assert sources[0] == INSTALL
    commands = [line[2:] for line in text.splitlines() if line.startswith("$ ")]
    assert [source[1:] for source in sources if source.startswith("!")] == commands
    prose = "\n".join(cell.source for cell in stored.cells if cell.cell_type == "markdown")
    assert not run_pages.BLOCK.search(prose)


@pytest.mark.slow
@pytest.mark.parametrize("page", tutorials(), ids=lambda path: path.stem)
def test_the_notebook_of_a_tutorial_prints_what_it_shows(page, tmp_path, monkeypatch):
    text = page.read_text(encoding="utf-8")
    shown = to_notebook(text)
    if run_pages.WEB_EXPORT.search(text):
        monkeypatch.delenv("GANSMITH_OFFLINE")
        try:
            run_pages.place_runtime(tmp_path)
        except NotFoundError as error:
            pytest.skip(str(error))
    with run_pages.session(tmp_path):
        done = execute(shown, tmp_path)
    for before, after in zip(shown.cells, done.cells, strict=True):
        if before.cell_type == "code":
            assert run_pages.agrees(printed_by(before), printed_by(after)), after


def printed_by(cell):
    shown = "".join(output.get("text") or output.get("data", {}).get("text/plain", "") for output in cell.outputs)
    return run_pages.PROGRESS.sub("", shown.replace("\r\n", "\n"))


# The whole API, as its documentation shows it.

CELLS = """
import gansmith as gs
run = gs.train("default", data="mnist", minutes=3)
---
run
---
run.sample(25); run.sample(labels=[2, 0, 2, 4], seed=7)
---
run.evaluate(); run.diagnose(); run.log
---
run.export("onnx"); run.report("report.pdf"); run.film("training.gif"); run.handin("submission.zip")
---
data = gs.load_data("fashion-mnist"); data = gs.Images(pixels, labels)
---
run = gs.train("default", data=data, images=200_000, label_smoothing=0.1, seed=1)
---
run = gs.resume("runs/0001-default-mnist", minutes=10)
---
G = gs.load("generator.safetensors"); G.network
---
gs.compare(run, "runs/0002-r3gan-mnist")
---
for event in gs.train_events("default", data=data, images=50_000):
    print(event.to_json()["kind"])
""".strip().split("\n---\n")
# What a reader has before: a second run, arrays, a generator file. And shorter lengths.
BETWEEN = {
    1: 'gs.train("r3gan", images=640, out="runs/0002-r3gan-mnist", progress="none")',
    5: 'whole = gs.load_data("mnist"); pixels, labels = whole.pixels[::10, 0].numpy(), whole.labels[::10].numpy()',
    8: 'import shutil; shutil.copy(run.latest() / "generator.safetensors", ".")',
}
SHORTER = {"minutes=3": "minutes=0.2", "minutes=10": "minutes=0.05", "200_000": "1280", "50_000": "640"}


@pytest.mark.slow
def test_the_whole_api_runs_in_a_notebook_as_it_is_documented(tmp_path, digits, monkeypatch):
    pixels, labels = digits
    write_set(tmp_path / "sets" / "fashion-mnist", pixels, labels)
    cells = []
    for k, source in enumerate(CELLS):
        for long, short in SHORTER.items():
            source = source.replace(long, short)
        cells += [new_code_cell(text) for text in (BETWEEN.get(k), source) if text]
    setting = f'import os; os.environ["GANSMITH_DATA"] = {str(tmp_path / "sets")!r}'
    done = execute(new_notebook(cells=[new_code_cell(setting), *cells]), tmp_path).cells[1:]
    by_source = {cell.source: cell for cell in done}
    assert outputs_of(by_source["run"], "text/html")[0].count("<img") == 2
    assert outputs_of(by_source["run.sample(25); run.sample(labels=[2, 0, 2, 4], seed=7)"], "image/png")
    assert (tmp_path / "submission.zip").is_file() and (tmp_path / "report.pdf").is_file()
    assert (tmp_path / "training.gif").is_file()
    assert "Generator" in outputs_of(done[-3], "text/plain")[0]
    assert "<table" in outputs_of(done[-2], "text/html")[0]
    assert done[-1].outputs[0].text.split()[0] == "start"


@pytest.mark.slow
def test_the_api_runs_in_a_terminal_of_ipython(tmp_path):
    lines = """
import gansmith as gs
run = gs.train("mlp-small", images=640)
run
run.sample(25)
run.diagnose()
run.evaluate(quick=True)
"""
    command = [sys.executable, "-m", "IPython", "--simple-prompt"]
    done = subprocess.run(command, input=lines, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0 and "Traceback" not in done.stdout + done.stderr
    assert "<Run runs/0001-mlp-small-mnist: finished, 640 images" in done.stdout
    assert "<Samples: 25 images of 28 x 28 x 1, no labels>" in done.stdout
    assert "no training failure was seen" in done.stdout
    assert "FD ratio" in done.stdout
