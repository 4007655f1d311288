"""Downloads from a local web server: mirrors, damaged files and reasons of failure."""

import gzip
import hashlib
import http.server
import socket
import threading
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from conftest import write_set

from gansmith.data import download as module
from gansmith.data import idx, load_data, official
from gansmith.data.download import download
from gansmith.data.official import cache_dir, fetch
from gansmith.errors import DataError, NotFoundError


@pytest.fixture
def server(tmp_path):
    """A real web server on this machine, serving tmp_path/www."""
    root = tmp_path / "www"
    root.mkdir()

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(root))) as httpd:
        thread = threading.Thread(target=httpd.serve_forever)
        thread.start()
        yield root, f"http://127.0.0.1:{httpd.server_port}/"
        httpd.shutdown()
        thread.join()


def test_downloads_take_the_first_mirror_that_is_right(server, tmp_path, capfd):
    root, url = server
    (root / "wrong.gz").write_bytes(gzip.compress(b"something else"))
    (root / "damaged.gz").write_bytes(b"\x1f\x8b damaged")
    (root / "right.gz").write_bytes(gzip.compress(b"the content"))
    digest = hashlib.sha256(b"the content").hexdigest()
    target = tmp_path / "cache" / "set" / "file.gz"
    bad = [url + "missing.gz", url + "wrong.gz", url + "damaged.gz", "http://127.0.0.1:9/x.gz"]
    with pytest.raises(NotFoundError) as refusal:
        download(bad, target, sha256=digest)
    assert str(refusal.value).split("; ") == [
        f"{url}missing.gz: the server answered 404 File not found",
        f"{url}wrong.gz: its content is not the official file's, or it is cut off",
        f"{url}damaged.gz: its content is not the official file's, or it is cut off",
        "http://127.0.0.1:9/x.gz: Connection refused",
    ]
    assert not target.exists() and not list(tmp_path.glob("cache/**/.part-*"))
    download([*bad, url + "right.gz"], target, sha256=digest)
    assert gzip.decompress(target.read_bytes()) == b"the content"
    assert [path.name for path in target.parent.iterdir()] == ["file.gz"]
    assert capfd.readouterr() == ("", "")


def test_a_download_replaces_a_damaged_file_and_others_may_read_it(server, tmp_path):
    root, url = server
    (root / "a.gz").write_bytes(gzip.compress(b"whole"))
    target = tmp_path / "a.gz"
    target.write_bytes(b"damaged")
    with pytest.raises(NotFoundError):
        download([url + "a.gz"], target, sha256="0" * 64)
    assert target.read_bytes() == b"damaged"
    download([url + "a.gz"], target, sha256=hashlib.sha256(b"whole").hexdigest())
    plain = tmp_path / "plain"
    plain.touch()
    assert gzip.decompress(target.read_bytes()) == b"whole"
    assert target.stat().st_mode == plain.stat().st_mode


def test_a_server_that_sends_too_much_or_nothing_is_named(server, tmp_path, monkeypatch):
    root, url = server
    (root / "a.gz").write_bytes(bytes(2000))
    monkeypatch.setattr(module, "_MAX_BYTES", 1000)
    with pytest.raises(NotFoundError, match="it sent more than 1,000 bytes"):
        download([url + "a.gz"], tmp_path / "a.gz", sha256="0" * 64)
    monkeypatch.setattr(module, "_TIMEOUT_S", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        with pytest.raises(NotFoundError, match="time-out, no answer within 0.2 seconds"):
            download([f"http://127.0.0.1:{silent.getsockname()[1]}/a.gz"], tmp_path / "a.gz", sha256="0" * 64)
    with pytest.raises(NotFoundError, match="the secure connection failed"):
        download([url.replace("http:", "https:") + "a.gz"], tmp_path / "a.gz", sha256="0" * 64)
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("no_proxy", "")
    with pytest.raises(NotFoundError, match=r"the proxy cannot be reached \(Connection refused\)"):
        download(["http://mirror.invalid/a.gz"], tmp_path / "a.gz", sha256="0" * 64)
    assert list(tmp_path.glob("*")) == [root]


def test_a_place_that_cannot_be_written_is_named(server, tmp_path):
    root, url = server
    (root / "a.gz").write_bytes(gzip.compress(b"whole"))
    (tmp_path / "file").touch()
    with pytest.raises(NotFoundError, match=r"file/a\.gz cannot be written: (File exists|Not a directory)"):
        download([url + "a.gz"], tmp_path / "file" / "a.gz", sha256=hashlib.sha256(b"whole").hexdigest())


def test_official_sets_are_fetched_once_and_read_from_the_cache(gansmith, monkeypatch, server, tmp_path):
    root, url = server
    monkeypatch.delenv("GANSMITH_OFFLINE")
    monkeypatch.setattr(idx, "places", lambda name: [cache_dir(name)])
    write_set(root, np.zeros((3, 4, 4), np.uint8), np.arange(3))
    write_set(root, np.zeros((2, 4, 4), np.uint8), np.arange(2), "t10k")
    hashes = {path.name: hashlib.sha256(gzip.decompress(path.read_bytes())).hexdigest() for path in root.glob("*.gz")}
    monkeypatch.setitem(official.OFFICIAL, "mnist", replace(official.OFFICIAL["mnist"], sha256=hashes, mirrors=(url,)))
    images = load_data("mnist")
    assert images.source == str(tmp_path / "cache" / "mnist") and images.notices == ()
    assert images.labels.tolist() == [0, 1, 2]
    assert sorted(path.name[:5] for path in (tmp_path / "cache" / "mnist").iterdir()) == ["train", "train"]
    folder = tmp_path / "cache" / "mnist"
    expected = f"3 train images -> {folder}\n2 test images -> {folder}\n"
    assert gansmith("data", "fetch", "mnist") == (0, expected, "")
    for path in root.iterdir():
        path.unlink()
    assert load_data("mnist").sha256 == images.sha256
    assert len(load_data("mnist", part="test")) == 2


def test_a_failed_download_gives_reasons_and_the_way_out(monkeypatch, tmp_path):
    with pytest.raises(NotFoundError, match="GANSMITH_OFFLINE is set; unset it, or give --data-dir"):
        fetch("mnist", "train")
    with pytest.raises(DataError, match="gaussian-ring cannot be downloaded; allowed: mnist, fashion-mnist"):
        fetch("gaussian-ring", "train")
    monkeypatch.delenv("GANSMITH_OFFLINE")
    monkeypatch.setattr(idx, "places", lambda name: [cache_dir(name)])
    dead = tuple(f"http://127.0.0.1:{port}/" for port in (9, 19))
    for name in ("mnist", "fashion-mnist"):
        monkeypatch.setitem(official.OFFICIAL, name, replace(official.OFFICIAL[name], mirrors=dead))
    with pytest.raises(NotFoundError) as refusal:
        fetch("mnist", "test")
    text = str(refusal.value)
    assert text.count("Connection refused") == 2 and all(mirror in text for mirror in dead) and "\n" not in text
    assert str(tmp_path / "cache" / "mnist") in text and "--data-dir" in text and "t10k-images-idx3-ubyte" in text
    assert "embedded" in load_data("mnist").source
    with pytest.raises(NotFoundError, match="Connection refused"):
        load_data("fashion-mnist")
