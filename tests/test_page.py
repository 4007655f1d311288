"""The exported page: its files, what it says, and in a browser the same images as everywhere else."""

import contextlib
import errno
import functools
import http.server
import io
import json
import tarfile
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import CHROMIUM, flags
from test_sampling import build_model

import gansmith as gs
from gansmith.data.images import to_uint8
from gansmith.errors import GansmithError, NotFoundError
from gansmith.exporters import web
from gansmith.files import file_sha256
from gansmith.sampling import draw_inputs, read_latents
from gansmith.signature import as_exported


@pytest.fixture
def runtime(monkeypatch, tmp_path):
    """An archive in the cache, as a person puts it there by hand, with other content than the published one."""
    files = {name: f"content of {name}".encode() for name in web.RUNTIME}
    known = {}
    folder = tmp_path / "cache" / "onnxruntime-web" / web.VERSION
    folder.mkdir(parents=True)
    with tarfile.open(folder / web.ARCHIVE.rsplit("/", 1)[1], "w:gz") as archive:
        for name, content in files.items():
            (tmp_path / "part").write_bytes(content)
            known[name] = (f"package/{name}", file_sha256(tmp_path / "part"))
            archive.add(tmp_path / "part", f"package/{name}")
    monkeypatch.setattr(web, "RUNTIME", known)
    return folder


def test_the_runtime_is_unpacked_once_and_damage_is_noticed(runtime, monkeypatch):
    assert web.find_runtime() == runtime
    assert sorted(path.name for path in runtime.iterdir()) == sorted(web.RUNTIME)
    assert web.find_runtime() == runtime
    (runtime / "ort.js").write_text("damaged")
    with pytest.raises(NotFoundError, match="forbids to fetch it; run the export once with a network"):
        web.find_runtime()
    archive = runtime / web.ARCHIVE.rsplit("/", 1)[1]
    for damage in (b"no archive", _archive_of_others()):
        archive.write_bytes(damage)
        with pytest.raises(GansmithError, match="is damaged and was removed"):
            web.find_runtime()
        assert not archive.exists()


def test_a_full_disk_costs_no_download(runtime, monkeypatch):
    """The archive stays, to be unpacked when there is space."""
    archive = runtime / web.ARCHIVE.rsplit("/", 1)[1]

    def is_full(source, target):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(web.shutil, "copyfileobj", is_full)
    with pytest.raises(GansmithError, match="cannot be unpacked .No space left on device.; make room"):
        web.find_runtime()
    assert archive.is_file()


def _archive_of_others():
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:gz") as archive:
        for name in web.RUNTIME:
            member = tarfile.TarInfo(f"package/{name}")
            member.size = 5
            archive.addfile(member, io.BytesIO(b"other"))
    return file.getvalue()


@pytest.mark.slow
def test_a_folder_with_a_page_is_exported(runtime, gansmith, digit_dir):
    gansmith("train", "--data-dir", digit_dir, "--out", "run", *flags(images=64, clusters_per_class=1))
    (Path("shared") / "web").mkdir(parents=True)
    (Path("shared") / "web" / "mine.js").write_text("of another program")
    code, _, error = gansmith("export", "run", "--format", "web", "--out", "shared")
    assert code == 2 and "holds a web that no export wrote" in error and Path("shared/web/mine.js").is_file()
    entry = {"files": {"web/old.js": "0" * 64}, "largest_difference": 0.0, "weights_sha256": "0" * 64}
    (Path("shared") / "manifest.json").write_text(json.dumps({"gansmith": "0", "formats": {"web": entry}}))
    code, out, error = gansmith("export", "run", "--format", "web", "--out", "shared")
    assert code == 0 and "web/index.html and what it needs" in out, error
    assert "-m http.server --directory shared/web" in out
    page = {path.name: path for path in Path("shared/web").iterdir()}
    assert page.keys() == {
        "app.js", "icon.png", "index.html", "model.json", "model.onnx", "notices.txt", "offline.js", "style.css",
        *web.RUNTIME,
    }  # fmt: skip
    assert sum(path.stat().st_size for name, path in page.items() if name not in web.RUNTIME) < 3_000_000
    facts = json.loads(page["model.json"].read_text())
    assert facts["labels"] == list(range(10)) and facts["latent_dim"] == gs.load("run").config.latent_dim
    worker = page["offline.js"].read_text()
    assert "@VERSION@" not in worker and '"model.onnx"' in worker and "offline.js" not in worker
    manifest = json.loads((page["app.js"].parents[1] / "manifest.json").read_text())
    assert manifest["formats"]["web"]["files"]["web/model.onnx"] == file_sha256(page["model.onnx"])


def test_the_page_allows_no_inline_script_and_no_other_host(tmp_path):
    source = web.resources.files("gansmith.exporters") / "web_page"
    text = (source / "index.html").read_text()
    assert "default-src 'none'" in text and "unsafe-inline" not in text and "unsafe-eval'" in text
    assert "'unsafe-eval'" not in text and " style=" not in text and " onclick=" not in text
    for name in web.PAGE:
        assert "http:" not in (source / name).read_text() and "https:" not in (source / name).read_text()


def test_the_page_knows_latents_as_the_file_takes_them():
    model = build_model(clusters_per_class=3)
    facts = web.page_facts(model)
    assert facts["latent_dim"] == as_exported(model).config.latent_dim == 9 and facts["in_latents"]
    assert facts["characters"]["7"] == 7 and facts["text"] == "2026" and facts["names"][3] == "3"
    directions = np.array(facts["directions"])
    assert directions.shape == (8, 9) and not directions[:, -1].any()


def test_without_labels_the_page_writes_nothing():
    facts = web.page_facts(build_model("default", conditioning="none"))
    assert not facts["has_labels"] and facts["characters"] == {} and facts["text"] == ""


@contextlib.contextmanager
def served(folder):
    """Serve a folder as `python -m http.server` does; gives the address."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=folder)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


@pytest.mark.slow
@pytest.mark.filterwarnings("default::ResourceWarning")
@pytest.mark.parametrize("recipe, channels", [("default", 1), ("default", 3), ("stylegan-lite", 1)])
def test_in_a_browser_the_page_draws_what_sample_draws(recipe, channels, tmp_path, monkeypatch):
    playwright = pytest.importorskip("playwright.sync_api")
    if CHROMIUM is None:
        pytest.skip("no Chromium here")
    monkeypatch.delenv("GANSMITH_OFFLINE")
    try:
        web.find_runtime()
    except NotFoundError as error:
        pytest.skip(str(error))
    model = build_model(recipe, channels=channels, clusters_per_class=3)
    model.network.train()
    with torch.no_grad():  # statistics of an untrained network, so that its images differ
        model.network(*draw_inputs(model, seed=0, count=64))
    model.network.eval()
    web.to_web(model, tmp_path / "generator")
    exported = as_exported(model)
    z, labels = draw_inputs(exported, seed=5, count=7)
    expected = to_uint8(exported.network(z, labels).detach()).permute(0, 2, 3, 1).flatten().numpy().astype(int)
    requests, problems = [], []
    with playwright.sync_playwright() as tool, served(tmp_path / "web") as address:
        browser = tool.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-quic"])
        page = browser.new_page(viewport={"width": 390, "height": 844})
        page.on("request", lambda request: requests.append(request.url))
        page.on("console", lambda message: problems.append(message.text) if message.type in ("error", "warning") else 0)
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.goto(f"{address}#seed=3&class=7&text=17")
        page.wait_for_selector("body[data-drawn]")
        call = "async ([z, y]) => Array.from(await (await import('./app.js')).draw(Float32Array.from(z), y))"
        drawn = page.evaluate(call, [z.flatten().tolist(), labels.tolist()])
        page.get_by_role("button", name="New samples").click()
        facts = web.page_facts(model)
        if facts["characters"]:
            page.get_by_label("Text").fill("2026")
            page.locator('#written[aria-label="Written: 2026"]').wait_for()
            page.get_by_label("Text").fill("2026" * 5)
            page.locator(f'#written[aria-label="Written: {"2026" * 5}"]').wait_for()
            written = page.locator("#written").evaluate("it => [it.width, it.clientWidth, it.height]")
            assert written[0] == written[1] and written[2] > model.spec.size * 2  # rows, in whole pixels
        else:  # no class is a character
            assert page.get_by_label("Text").is_hidden()
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        page.get_by_role("slider").last.scroll_into_view_if_needed()  # which moves a picture that stays in view
        page.get_by_role("slider", name="PC 5").scroll_into_view_if_needed()
        box = page.locator("#large").bounding_box()
        assert box["y"] >= 0 and box["y"] + box["height"] < 200 and box["width"] % model.spec.size == 0
        with page.expect_download() as waiting:
            page.get_by_role("button", name="Save latents").click()
        waiting.value.save_as(tmp_path / "latents.npy")
        shown = page.locator("#large").evaluate(
            "it => [it.width, [...it.getContext('2d').getImageData(0, 0, it.width, it.height).data]]"
        )
        page.context.set_offline(True)
        page.wait_for_timeout(500)
        page.reload()
        page.wait_for_selector("body[data-drawn]")
        browser.close()
    assert np.abs(np.array(drawn) - expected).max() <= 1
    latents = read_latents(tmp_path / "latents.npy", exported.config.latent_dim)
    again = to_uint8(exported.network(latents, torch.tensor([7 if facts["has_labels"] else 0])).detach())[0]
    scale = shown[0] // model.spec.size
    large = np.array(shown[1]).reshape(shown[0], shown[0], 4)[::scale, ::scale, : again.shape[0]]
    assert np.abs(again.permute(1, 2, 0).numpy().astype(int) - large).max() <= 1
    assert not problems and all(url.startswith((address, "blob:")) for url in requests)
