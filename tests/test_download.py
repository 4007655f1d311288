"""Downloads from a local web server: mirrors, damaged files and reasons of failure."""

import base64
import gzip
import hashlib
import http.server
import shutil
import socket
import ssl
import subprocess
import threading
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from conftest import write_set
from scipy.io import savemat

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


def test_a_file_may_be_known_by_the_integrity_of_a_package_registry(server, tmp_path):
    root, url = server
    (root / "a.tgz").write_bytes(b"a package")
    integrity = f"sha512-{base64.b64encode(hashlib.sha512(b'a package').digest()).decode()}"
    with pytest.raises(NotFoundError, match="not the official file's"):
        download([url + "a.tgz"], tmp_path / "a.tgz", integrity=integrity.swapcase().replace("SHA", "sha"))
    download([url + "a.tgz"], tmp_path / "a.tgz", integrity=integrity)
    assert (tmp_path / "a.tgz").read_bytes() == b"a package"


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
    monkeypatch.setattr(module, "_TIMEOUT_S", 30)
    with pytest.raises(NotFoundError, match="the secure connection failed"):
        download([url.replace("http:", "https:") + "a.gz"], tmp_path / "a.gz", sha256="0" * 64)
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("no_proxy", "")
    monkeypatch.setenv("NO_PROXY", "")
    with pytest.raises(NotFoundError, match=r"the proxy cannot be reached \(Connection refused\)"):
        download(["http://mirror.invalid/a.gz"], tmp_path / "a.gz", sha256="0" * 64)
    assert list(tmp_path.glob("*")) == [root]


class Faulty(http.server.BaseHTTPRequestHandler):
    """Answers each path with a fault of its own."""

    def do_GET(self):
        if self.path == "/forbidden.gz":
            self.send_error(403)
            return
        self.send_response(200)
        self.send_header("Content-Length", "1000")
        self.end_headers()
        self.wfile.write(b"half of it")
        if self.path == "/slow.gz":
            self.wfile.flush()
            self.server.released.wait(5)

    def log_message(self, *args):
        pass


@pytest.fixture
def faulty():
    """A web server with faults, and its address."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Faulty) as httpd:
        httpd.released = threading.Event()
        thread = threading.Thread(target=httpd.serve_forever)
        thread.start()
        yield httpd, f"127.0.0.1:{httpd.server_port}/"
        httpd.released.set()
        httpd.shutdown()
        thread.join()


def test_every_fault_of_a_server_has_its_reason(faulty, tmp_path, monkeypatch):
    reasons = {
        "forbidden.gz": "the server answered 403 Forbidden",
        "short.gz": "the connection ended early",
        "slow.gz": "time-out, no answer within 0.2 seconds",
    }
    for name, reason in reasons.items():
        monkeypatch.setattr(module, "_TIMEOUT_S", 0.2 if name == "slow.gz" else 30)
        with pytest.raises(NotFoundError) as refusal:
            download([f"http://{faulty[1]}{name}"], tmp_path / name, sha256="0" * 64, is_unpacked=False)
        assert f"{name}: {reason}" in str(refusal.value) and "\n" not in str(refusal.value), str(refusal.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not shutil.which("openssl"), reason="makes a certificate")
def test_a_certificate_of_nobody_is_a_reason(faulty, tmp_path):
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    command += ["-keyout", "key.pem", "-out", "cert.pem", "-days", "2", "-subj", "/CN=127.0.0.1"]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "cert.pem", tmp_path / "key.pem")
    faulty[0].handle_error = lambda *_: None  # the client's alert is what the test waits for
    faulty[0].socket = context.wrap_socket(faulty[0].socket, server_side=True, do_handshake_on_connect=False)
    with pytest.raises(NotFoundError, match=r"the secure connection failed \(.*certificate"):
        download([f"https://{faulty[1]}a.gz"], tmp_path / "a.gz", sha256="0" * 64)


def test_certificates_that_are_not_where_a_variable_says_leave_the_other_mirrors(server, tmp_path, monkeypatch):
    root, url = server
    (root / "a.gz").write_bytes(gzip.compress(b"whole"))
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "gone.pem"))
    digest = hashlib.sha256(b"whole").hexdigest()
    with pytest.raises(NotFoundError, match=r"the connection could not be made \(.*gone\.pem"):
        download(["https://127.0.0.1:9/a.gz"], tmp_path / "a.gz", sha256=digest)
    download(["https://127.0.0.1:9/a.gz", url + "a.gz"], tmp_path / "a.gz", sha256=digest)
    assert (tmp_path / "a.gz").is_file()


def test_a_home_folder_is_known_in_the_variables_too(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    monkeypatch.setenv("GANSMITH_CACHE", "~/kept")
    monkeypatch.setenv("GANSMITH_DATA", "~/sets")
    assert cache_dir("mnist") == tmp_path / "kept" / "mnist"
    assert official.shared_places("mnist")[0] == tmp_path / "sets" / "mnist"


def test_files_are_also_verified_as_they_are_served(server, tmp_path):
    root, url = server
    (root / "a.mat").write_bytes(b"as it is")
    digest = hashlib.sha256(b"as it is").hexdigest()
    download([url + "a.mat"], tmp_path / "a.mat", sha256=digest, is_unpacked=False)
    assert (tmp_path / "a.mat").read_bytes() == b"as it is"
    with pytest.raises(NotFoundError, match="not the official file's"):
        download([url + "a.mat"], tmp_path / "b.mat", sha256=digest[::-1], is_unpacked=False)


def test_a_set_of_one_archive_is_fetched_once_for_both_parts(gansmith, monkeypatch, server, tmp_path):
    root, url = server
    monkeypatch.delenv("GANSMITH_OFFLINE")
    for name in ("train_32x32.mat", "test_32x32.mat"):
        savemat(root / name, {"X": np.full((32, 32, 3, 4), 200, np.uint8), "y": np.array([[10], [1], [2], [3]])})
    hashes = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in root.iterdir()}
    known = replace(official.OFFICIAL["svhn"], sha256=hashes, mirrors=(url,))
    monkeypatch.setitem(official.OFFICIAL, "svhn", known)
    folder = tmp_path / "cache" / "svhn"
    assert gansmith("data", "fetch", "svhn") == (0, f"4 train images -> {folder}\n4 test images -> {folder}\n", "")
    for path in root.iterdir():
        path.unlink()
    assert gansmith("data", "fetch", "svhn")[0] == 0  # nothing is fetched again
    images = load_data("svhn")
    assert images.labels.tolist() == [0, 1, 2, 3] and images.notices == ()


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
    write_set(root, np.full((3, 8, 8), 200, np.uint8), np.arange(3))
    write_set(root, np.full((2, 8, 8), 200, np.uint8), np.arange(2), "t10k")
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
    assert gansmith("data", "fetch", "mnist") == (0, expected, "")  # what is there already is not fetched again
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
