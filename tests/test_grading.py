"""The class kit, and the grader on hand-ins of every kind: what each gets, and that none leaves its bounds."""

import csv
import os
import shutil
import socket
import sys
import tempfile
import threading
import time
import zipfile
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import nbformat
import numpy as np
import psutil
import pytest
import torch
from conftest import DATA_DIR, TINY
from made_handins import (
    CRASHING,
    DRAWING,
    FORK_BOMB,
    HARD_CODED,
    NETWORK,
    WRITES_OUTSIDE,
    write_bad_handins,
    write_code,
    write_grid,
    write_trained_handins,
)
from nbclient import NotebookClient
from PIL import Image

import gansmith as gs
from gansmith.config import resolve
from gansmith.coursework.kit import LIBRARIES
from gansmith.errors import ConfigError, DataError, GansmithError, NotFoundError
from gansmith.grading import grader, handins, measures, pages, sandbox, worker
from gansmith.grading.grader import FEWEST_DISTINCT, read_images
from gansmith.grading.settings import Settings, read_settings, settings_text
from gansmith.pictures.grids import enlarge, grid

SHORT = Settings(seconds=2, memory_mb=200, processes=16, disk_mb=20)
WORKING = [name for name in sandbox.SANDBOXES if sandbox.works(name)]
CLOSED = [name for name in WORKING if name != "limits"]


@pytest.fixture
def server():
    """A server on this machine that must see no connection; gives its socket."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.setblocking(False)
        yield listening


@pytest.fixture
def place():
    """A folder that the user whom hand-ins run as can reach; pytest's own is closed to others than root for root."""
    with tempfile.TemporaryDirectory(prefix="gansmith-") as folder:
        Path(folder).chmod(0o711)
        yield Path(folder).resolve()


def run(code: str, place: Path, name: str, settings: Settings = SHORT) -> sandbox.Outcome:
    """Run code as evaluation.py in a sandbox."""
    work = place / name
    (work / "handin").mkdir(parents=True)
    (work / "handin" / "evaluation.py").write_text(code)
    return sandbox.run_bounded(["run", str(work / "handin")], work, settings, sandbox=name)


# Bounds


@pytest.mark.parametrize("name", WORKING)
def test_a_script_runs_as_such_in_its_own_folder_without_the_environment(name, place, monkeypatch):
    monkeypatch.setenv("SECRET_TOKEN", "xyz")
    code = "import os, pathlib; pathlib.Path('made.txt').write_text(__name__); print(os.environ.get('SECRET_TOKEN'))"
    outcome = run(code, place, name)
    assert (outcome.ended, outcome.output.strip()) == ("", "None"), outcome
    assert (place / name / "handin" / "made.txt").read_text() == "__main__"


def test_a_script_may_go_to_where_it_lies(place):
    outcome = run("import os; os.chdir(os.path.dirname(__file__)); print(os.listdir())", place, WORKING[0])
    assert (outcome.ended, outcome.output.strip()) == ("", "['evaluation.py']"), outcome


@pytest.fixture
def loading(tmp_path, monkeypatch):
    """A folder of which evaluation.py is loaded in this process, and nothing of it is left."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(sys, "argv", ["pytest", "--others"])
    monkeypatch.delitem(sys.modules, "evaluation", raising=False)
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    sys.modules.pop("evaluation", None)


TILING = "import numpy as np\nZ_DIM = 8\ndef generate(z):\n    return np.tile(z.reshape(-1, 8, 1), 8)\n"


@pytest.mark.parametrize("file", ["generator.h5", "generator.json", "generator.safetensors", "generator.keras"])
def test_a_file_of_weights_is_for_the_script_that_reads_it(file, loading, capsys):
    (loading / file).write_bytes(b"{}")
    with pytest.raises(SystemExit, match=str(worker.REFUSED)):
        worker.find_generator(loading)
    assert file in capsys.readouterr().err
    (loading / "evaluation.py").write_text(f"import argparse\nargparse.ArgumentParser().parse_args()\n{TILING}")
    images = worker.find_generator(loading)(0, 3)
    assert images.shape == (3, 1, 8, 8) and len(np.unique(images)) > 3


@pytest.mark.parametrize("end", ["sys.exit()", "exit(0)"])
def test_a_script_that_ends_itself_keeps_what_it_defined(end, loading):
    (loading / "evaluation.py").write_text(f"import sys\n{TILING}{end}\n")
    assert worker.find_generator(loading)(0, 3).shape == (3, 1, 8, 8)
    (loading / "evaluation.py").write_text(f"import sys\n{TILING}sys.exit('no weights')\n")
    with pytest.raises(SystemExit, match="no weights"):
        worker.find_generator(loading)


def test_hand_ins_are_found_as_learning_platforms_and_systems_leave_them(tmp_path):
    folder = tmp_path / "all"
    place = folder / "Ada_1_file"
    (tmp_path / "in" / "project").mkdir(parents=True)
    (tmp_path / "in" / "project" / "evaluation.py").write_text("")
    place.mkdir(parents=True)
    shutil.make_archive(str(place / "handin"), "zip", tmp_path / "in")
    for name in ("._handin.zip", "desktop.ini"):
        (place / name).write_text("")
    deep = folder / "Bo" / "handin" / "project"
    deep.mkdir(parents=True)
    (deep / "evaluation.py").write_text("")
    os.mkdir(os.fsencode(folder) + b"/M\xfcller")
    found = handins.find_handins(folder)
    assert list(found) == ["Ada_1_file", "Bo", "M\ufffdller"] and all(name.encode() for name in found)
    for k, name in enumerate(("Ada_1_file", "Bo")):
        assert handins.copy_handin(found[name], tmp_path / str(k), max_bytes=10**6) == []
        assert [path.name for path in (tmp_path / str(k)).iterdir()] == ["evaluation.py"]


def pack(archive: Path, **files: bytes) -> Path:
    """Write a zip of these files, __ for each dot in their names."""
    with zipfile.ZipFile(archive, "w") as file:
        for name, content in files.items():
            file.writestr(name.replace("__", "."), content)
    return archive


def names_in(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_what_lies_in_one_folder_or_archive_inside_comes_to_the_top(tmp_path):
    inner = pack(tmp_path / "inner.zip", evaluation__py=b"script", report__pdf=b"old")
    deep = pack(tmp_path / "deep.zip", inner__zip=inner.read_bytes())
    pack(tmp_path / "only.zip", deep__zip=deep.read_bytes())
    for name in ("archive", "folder"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "report.pdf").write_bytes(b"new")
    shutil.copy(deep, tmp_path / "archive" / "handin.zip")
    (tmp_path / "folder" / "work" / "code").mkdir(parents=True)
    (tmp_path / "folder" / "work" / "loss.png").write_bytes(b"loss")
    (tmp_path / "folder" / "work" / "code" / "evaluation.py").write_bytes(b"script")
    for name, files in (
        ("only.zip", ["evaluation.py", "report.pdf"]),
        ("archive", ["evaluation.py", "inner/report.pdf", "report.pdf"]),
        ("folder", ["evaluation.py", "loss.png", "report.pdf"]),
    ):
        copy = tmp_path / "copies" / name
        notes = handins.copy_handin(tmp_path / name, copy, max_bytes=10**6)
        assert names_in(copy) == files and all("was taken from there" in note for note in notes), name
        assert (copy / "report.pdf").read_bytes() == (b"old" if name == "only.zip" else b"new")
        with pytest.raises(DataError, match="larger than"):
            handins.copy_handin(tmp_path / name, tmp_path / "small" / name, max_bytes=8)


def test_archives_beside_the_script_and_two_places_that_have_one_stay_as_they_are(tmp_path):
    data = pack(tmp_path / "data.zip", image__png=b"pixels", more__zip=b"damaged")
    pack(tmp_path / "plain.zip", evaluation__py=b"script", data__zip=data.read_bytes())
    assert handins.copy_handin(tmp_path / "plain.zip", tmp_path / "plain", max_bytes=10**6) == []
    assert names_in(tmp_path / "plain") == ["data.zip", "evaluation.py"]
    for name in ("gan", "vae"):
        (tmp_path / "two" / name).mkdir(parents=True)
        (tmp_path / "two" / name / "evaluation.py").write_bytes(b"script")
    notes = handins.copy_handin(tmp_path / "two", tmp_path / "copy", max_bytes=10**6)
    assert names_in(tmp_path / "copy") == ["gan/evaluation.py", "vae/evaluation.py"] and "gan, vae" in notes[0]


def test_names_are_compared_without_regard_to_case(tmp_path):
    source = tmp_path / "source"
    source.mkdir()
    for name in ("Evaluation.py", "GRID.PNG", "Generator.JSON", "Generator.h5", "Train.ipynb", "Report_Ada.PDF"):
        (source / name).write_text(name)
    handins.copy_handin(source, tmp_path / "copy", max_bytes=10**6)
    assert {"evaluation.py", "grid.png", "generator.json", "generator.h5"} <= set(names_in(tmp_path / "copy"))
    assert (tmp_path / "copy" / "Generator.h5").read_text() == "Generator.h5"  # by which a script may read it
    assert handins.missing_files(tmp_path / "copy", dict(Settings().files), has_generator=False) == ["loss plot"]


def test_a_generator_file_is_missing_only_where_no_images_could_be_drawn(tmp_path):
    (tmp_path / "weights.pt").write_text("")
    for has_generator, missing in ((False, ["generator", "report"]), (True, ["report"])):
        wanted = {"generator": "generator.*", "report": "report*.pdf"}
        assert handins.missing_files(tmp_path, wanted, has_generator=has_generator) == missing


def test_what_the_course_gave_out_is_nobodys_own_work(tmp_path):
    given, ada = tmp_path / "for-students", tmp_path / "submissions" / "ada"
    for folder in (given, ada):
        folder.mkdir(parents=True)
    for name in ("assignment.pdf", "example.gif", "sheet.docx", "classifier.h5", "Report.pdf", "training.gif"):
        (ada / name).write_bytes(name.encode() * 100)
    shutil.copy(ada / "classifier.h5", given)
    found = handins.own_work(ada, handins.given_out(ada.parent))
    assert sorted(found.values()) == ["Report.pdf", "training.gif"]


def test_a_picture_shows_a_seed_whatever_the_size_of_the_images():
    draw = torch.Generator().manual_seed(0)
    images = {seed: torch.randint(256, (25, 1, 8, 8), generator=draw).byte().repeat_interleave(4, 2) for seed in (1, 2)}
    drawn = {seed: own.repeat_interleave(4, 3) for seed, own in images.items()}  # 32 pixels, for data of 28
    picture = measures.grey_tiles(drawn[2], 28)
    assert picture.shape == (25, 784) and measures.seed_of(picture, drawn) == 2


@pytest.mark.parametrize("name", CLOSED)
def test_what_writes_outside_or_asks_the_network_reaches_neither(name, place, server):
    (place / "open").mkdir()
    (place / "open").chmod(0o777)
    outside = place / "open" / "outside.txt"
    run(WRITES_OUTSIDE.format(outside=str(outside)), place, name)
    assert not outside.exists()
    outcome = run(NETWORK.format(port=server.getsockname()[1]), place / "again", name)
    assert outcome.ended == "crashed" and ("refused" in outcome.reason or "unreachable" in outcome.reason)
    with pytest.raises(BlockingIOError):
        server.accept()


@pytest.mark.skipif(not CLOSED or not sandbox.is_root(), reason="only root's hand-ins run as other users")
@pytest.mark.parametrize("name", CLOSED)
def test_what_only_root_can_enter_is_open_as_far_as_it_is_needed(name, place):
    closed = place / "closed"
    closed.mkdir(mode=0o700)
    (closed / "secret.txt").write_text("readable, were the folder open")
    outcome = run(f"import os; print(os.listdir({str(closed)!r}))", closed, name)
    assert (outcome.ended, outcome.output.strip()) == ("", f"[{name!r}]"), outcome


@pytest.mark.parametrize("name", CLOSED)
def test_other_hand_ins_are_seen_neither_where_they_lie_nor_where_they_run(name, place):
    others = [place / folder / "grid.png" for folder in ("handed in", "work/1/original")]
    for other in others:
        other.parent.mkdir(parents=True)
        other.write_text("the work of another")
    work = place / "work" / "2" / "run"
    (work / "handin").mkdir(parents=True)
    looks = f"import os; print([os.path.exists(path) for path in ({str(others[0])!r}, {str(others[1])!r}, __file__)])"
    (work / "handin" / "evaluation.py").write_text(looks)
    words, is_seen = ["run", str(work / "handin")], name == "unshare"
    for hidden, found in (
        ((), [is_seen, is_seen, True]),
        ((place / "work", place / "handed in"), [False, False, True]),
        ((place / "work", place), [False, False, True]),  # hand-ins around the temporary folder
    ):
        outcome = sandbox.run_bounded(words, work, SHORT, sandbox=name, hidden=hidden)
        assert (outcome.ended, outcome.output.strip()) == ("", str(found)), outcome


@pytest.mark.skipif("limits" not in WORKING, reason="for root, where other users cannot read this Python")
def test_the_sandbox_that_closes_neither_says_so_and_this_test_would_notice(place, server):
    """The same two hand-ins with limits alone do what they try."""
    (place / "open").mkdir()
    (place / "open").chmod(0o777)
    outside = place / "open" / "outside.txt"
    run(WRITES_OUTSIDE.format(outside=str(outside)), place, "limits")
    assert outside.exists()
    run(NETWORK.format(port=server.getsockname()[1]), place / "again", "limits")
    server.accept()[0].close()
    assert "OPEN" in sandbox.MEANING["limits"]


@pytest.mark.parametrize("name", WORKING)
def test_a_process_that_leaves_its_session_ends_with_the_others(name, place):
    code = "import os, time\nif not os.fork():\n    os.setsid()\n    if not os.fork():\n        time.sleep(300)\n"
    outcome = run(code, place, name)
    home = str(place / name)
    time.sleep(0.1)
    alive = []
    for process in psutil.process_iter():
        try:
            alive += [process.pid] if process.environ().get("HOME", "").startswith(home) else []
        except (psutil.Error, OSError):
            continue
    assert outcome.ended == "" and not alive


REMOVED_FILES = """
import os, time
kept = []
for k in range(40):
    kept.append(open(f"f{k}", "wb"))
    os.unlink(f"f{k}")
    kept[-1].write(bytes(9_000_000))
    kept[-1].flush()
time.sleep(30)
"""


@pytest.mark.parametrize(
    ("code", "ended"),
    [
        ("raise ValueError('no weights')", "crashed"),
        ("kept = []\nwhile True:\n    kept.append(bytearray(20_000_000))", "out of memory"),
        (FORK_BOMB, "too many processes"),
        ("open('large', 'wb').write(bytes(30_000_000))", "crashed"),
        ("while True:\n    print('x' * 1_000_000)", "too much disk"),
        ("print('ok')\nimport sys\nsys.exit(96)", "crashed"),
        ("print('needs numpy, which is not installed here')\nimport sys\nsys.exit(96)", "crashed"),
        (
            "import mmap, time\nm = mmap.mmap(-1, 3 << 30)\nwhile True:\n    m.write(bytes(1 << 26))\ntime.sleep(30)",
            "out of memory",
        ),
        (REMOVED_FILES, "too much disk"),
        pytest.param("import time\ntime.sleep(60)", "out of time", marks=pytest.mark.slow),
        pytest.param("while True: pass", "out of time", marks=pytest.mark.slow),
    ],
)
def test_every_bound_ends_a_script(code, ended, place):
    settings = SHORT if ended == "out of time" else replace(SHORT, seconds=20)
    outcome = run(code, place, WORKING[0], settings)
    assert outcome.ended == ended, outcome


def test_a_missing_or_unknown_sandbox_is_refused(monkeypatch):
    with pytest.raises(ConfigError, match="must be auto, bubblewrap"):
        sandbox.find_sandbox("docker")
    monkeypatch.setattr(sandbox, "works", lambda name: name == "limits")
    assert sandbox.find_sandbox() == "limits"
    with pytest.raises(GansmithError, match="bubblewrap does not work here"):
        sandbox.find_sandbox("bubblewrap")


# Reading hand-ins and their images


def test_copies_have_no_links_and_one_folder_inside_is_opened(tmp_path):
    source = write_code(tmp_path / "student" / "my project", CRASHING)
    (source / "link.py").symlink_to("/etc/passwd")
    (source / "__pycache__").mkdir()
    (source / "__pycache__" / "x.pyc").write_bytes(b"x")
    handins.copy_handin(tmp_path / "student", tmp_path / "copy", max_bytes=10**6)
    assert {path.name for path in (tmp_path / "copy").iterdir()} == {
        "evaluation.py",
        "train.py",
        "report.pdf",
        "loss.png",
    }
    with pytest.raises(DataError, match="larger than"):
        handins.copy_handin(tmp_path / "student", tmp_path / "small", max_bytes=10)


def test_archives_that_lead_out_of_their_folder_are_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "out.zip", "w") as file:
        file.writestr("../evaluation.py", "x")
    with pytest.raises(DataError, match="leads out of it"):
        handins.copy_handin(tmp_path / "out.zip", tmp_path / "copy", max_bytes=10**6)
    assert not (tmp_path / "evaluation.py").exists()


def test_a_hand_in_that_breaks_the_grader_is_one_line_of_the_table(tmp_path, monkeypatch):
    def broken(*given, **choices):
        raise RecursionError("folders in folders")

    monkeypatch.setattr(grader, "copy_handin", broken)
    place = grader.Place(tmp_path, tmp_path, "limits", threading.Event(), frozenset())
    ran = grader.run_handin("ada", tmp_path, tmp_path / "work", place, Settings(), None)
    assert (ran.name, ran.error) == ("ada", "it cannot be graded (folders in folders)")


def test_folders_in_folders_are_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "deep.zip", "w") as file:
        file.writestr("a/" * 1200 + "evaluation.py", "x")
    with pytest.raises(DataError, match="lies in more than 100 folders"):
        handins.copy_handin(tmp_path / "deep.zip", tmp_path / "copy", max_bytes=10**6)


def test_what_a_closed_folder_may_hold_is_over_every_limit(tmp_path, monkeypatch):
    (tmp_path / "open").mkdir()
    (tmp_path / "open" / "a").write_bytes(b"123")
    assert 3 <= min(sandbox._sizes(tmp_path)) < 10**5
    assert not sandbox._is_over(tmp_path, 10**6, [])
    scandir = os.scandir

    def closed(path):
        if str(path).endswith("open"):
            raise PermissionError(13, "closed")
        return scandir(path)

    monkeypatch.setattr(sandbox.os, "scandir", closed)
    assert sandbox._is_over(tmp_path, 10**6, [])


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
def test_files_in_memory_and_below_too_deep_folders_count(tmp_path, monkeypatch):
    file = os.memfd_create("x")
    before = sandbox._removed_bytes([psutil.Process()])
    os.write(file, bytes(2**20))
    assert sandbox._removed_bytes([psutil.Process()]) - before == 2**20
    os.close(file)
    monkeypatch.chdir(tmp_path)
    for _ in range(20):
        os.mkdir("f" * 250)
        os.chdir("f" * 250)
    assert sandbox._is_over(tmp_path, 10**9, [])


def test_hand_ins_at_once_fit_into_the_cores_and_the_memory(monkeypatch):
    monkeypatch.setattr(grader, "cores", lambda: 8)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=5 << 30))
    assert grader.room_for_jobs(Settings(memory_mb=1024)) == 5
    assert grader.room_for_jobs(Settings(memory_mb=512)) == 8
    assert grader.room_for_jobs(Settings(memory_mb=8000)) == 1


def test_only_images_of_the_right_kind_are_read(tmp_path):
    good = np.arange(25 * 16, dtype=np.uint8).reshape(25, 1, 4, 4)
    np.save(tmp_path / "good.npy", good)
    assert torch.equal(read_images(tmp_path / "good.npy", 25), torch.from_numpy(good))
    (tmp_path / "link.npy").symlink_to(tmp_path / "good.npy")
    np.save(tmp_path / "floats.npy", good.astype(float))
    np.save(tmp_path / "objects.npy", np.array([{}] * 25, dtype=object), allow_pickle=True)
    np.save(tmp_path / "empty.npy", np.zeros((25, 1, 0, 0), np.uint8))
    for name, count in (("link", 25), ("floats", 25), ("objects", 25), ("good", 24), ("nothing", 25), ("empty", 25)):
        with pytest.raises(DataError):
            read_images(tmp_path / f"{name}.npy", count)


def test_settings_are_read_back_and_mistakes_named(tmp_path):
    settings = read_settings(None, seed=7, title='Digits: a "test"', seconds=None)
    (tmp_path / "grade.toml").write_text(settings_text(settings))
    assert read_settings(tmp_path / "grade.toml") == settings and settings.seed == 7
    for text, message in (
        ("sed = 1", "there is no 'sed'"),
        ("seed = 'x'", "whole number from 0"),
        ("copies = 2", "from 0 to 1"),
        ("[points]\nluck = 1", "some of files, runs"),
        ("[files]\nreport = 1", "must be a table"),
        ("fd_ratio_full = 300", "below fd_ratio_none"),
        ("seed = ", "no TOML file"),
    ):
        (tmp_path / "wrong.toml").write_text(text)
        with pytest.raises(ConfigError, match=message):
            read_settings(tmp_path / "wrong.toml")
    with pytest.raises(NotFoundError):
        read_settings(tmp_path / "nowhere.toml")


# Measures


def test_likeness_is_one_for_equal_images_and_zero_for_others_of_the_same_look(digits):
    pixels = digits[0].reshape(-1, 784).astype(float)
    a, b = pixels[:25], pixels[25:50]
    assert measures.likeness(a, a) == 1
    assert measures.likeness(a, 0.7 * a + 20) == pytest.approx(1, abs=1e-9)  # another brightness
    assert abs(measures.likeness(a, b)) < 0.15
    assert measures.likeness(a, a[::-1]) < 0.2
    ones = pixels[digits[1] == 1]
    assert abs(measures.likeness(ones[:20], ones[20:40])) < 0.3  # all alike, and not the same
    assert measures.likeness(a, np.zeros_like(a)) == 0


def test_a_picture_is_known_by_its_seed_however_it_was_enlarged(digits, tmp_path):
    drawn = {seed: torch.from_numpy(digits[0][25 * k : 25 * k + 25])[:, None] for k, seed in enumerate((504, 42, 7))}
    picture = grid(drawn[42], columns=5)
    enlarge(picture).save(tmp_path / "nearest.png")
    picture.resize((400, 400), Image.Resampling.BICUBIC).convert("RGB").save(tmp_path / "smooth.jpg", quality=70)
    for name in ("nearest.png", "smooth.jpg"):
        assert measures.seed_of(measures.tiles_of(tmp_path / name, 28), drawn) == 42
    grid(drawn[42].flip(0), columns=5).save(tmp_path / "reversed.png")
    assert measures.seed_of(measures.tiles_of(tmp_path / "reversed.png", 28), drawn) is None
    (tmp_path / "broken.png").write_text("no picture")
    assert measures.tiles_of(tmp_path / "broken.png", 28) is None


@pytest.mark.parametrize("frames", [False, True])
def test_a_figure_of_subplots_is_known_by_its_seed(frames, digits, tmp_path):
    import matplotlib.pyplot as plt

    drawn = {seed: torch.from_numpy(digits[0][25 * k : 25 * k + 25])[:, None] for k, seed in enumerate((504, 42))}
    figure, axes = plt.subplots(5, 5, figsize=(4, 4))
    for axis, image in zip(axes.flat, drawn[504][:, 0], strict=True):
        axis.imshow(image.numpy(), cmap="gray")
        axis.set(xticks=[], yticks=[], frame_on=frames)
    figure.savefig(tmp_path / "figure.png")
    plt.close(figure)
    picture = measures.tiles_of(tmp_path / "figure.png", 28)
    assert measures.seed_of(picture, drawn) == 504 and measures.likeness(measures.grey_tiles(drawn[504]), picture) > 0.9
    for plain in (grid(drawn[504], columns=5), enlarge(grid(drawn[504], columns=5))):
        assert measures.find_tiles(np.asarray(plain, dtype=np.int16)) == []


def test_copies_are_counted_and_new_images_are_not():
    train, held_out = (gs.load_data("mnist", split=part) for part in ("train", "validation"))
    real = train.take(torch.arange(2500))
    copied = (real.pixels[:125].int() + 6).clamp(0, 255).byte()
    rows = [(copied[:25], copied[25:])]
    new = train.take(torch.arange(2500, 2625)).pixels
    rows.append((new[:25], new[25:]))
    other = held_out.pixels[:125]
    (share, tiles), (share_new, tiles_new), (share_held, _) = measures.count_copies(
        real, held_out, [*rows, (other[:25], other[25:])]
    )
    assert share > 0.9 and tiles > 20
    assert share_new < 0.03 and tiles_new < measures.NEAR_TILES
    assert share_held > 0.9  # held out by the grader, not by the student


def test_the_same_files_and_the_same_images_make_a_pair(digits):
    grids = {name: torch.from_numpy(digits[0][k : k + 25])[:, None] for name, k in (("a", 0), ("b", 0), ("c", 50))}
    grids["b"] = (grids["b"].float() * 0.9).byte()
    found = measures.find_pairs(grids, {"a": {"1": "x.h5"}, "b": {"2": "x.h5"}, "c": {"1": "y.h5"}})
    assert set(found["a"]) == {"b", "c"} and set(found["b"]) == {"a"} and found["c"] == {"a": "x.h5"}


# The whole


@pytest.fixture(scope="module")
def graded(_trained, digit_dir, tmp_path_factory):
    """Rows by name of hand-ins that are graded together; each draws from noise of its own."""
    folder = tmp_path_factory.mktemp("class") / "submissions"
    run_directory = _trained(resolve("default-unlabelled", arguments={**TINY, "data_dir": str(digit_dir)}))
    needing, exceeded = "import nobody_has_this\n", "os.kill(os.getpid(), signal.SIGXCPU)  # as for too much time\n"
    write_code(folder / "library", needing + DRAWING.format(student=1))
    write_code(folder / "beside-a-file", needing + DRAWING.format(student=2))
    shutil.copy(gs.runs.open_run(run_directory).latest() / "generator.safetensors", folder / "beside-a-file")
    own = write_code(folder / "own-module", "from my_models import G\n")
    (own / "code").mkdir()
    (own / "code" / "my_models.py").write_text("G = None\n")
    write_code(folder / "other-grid", DRAWING.format(student=3))
    write_grid(folder / "other-grid", seed=42)
    slow = "import os, signal\n" + DRAWING.format(student=4).replace(
        "def generate(z):\n", "{}    if len(z) > 25:\n        {}"
    )
    write_code(folder / "slow", slow.format("def generate(z):\n", exceeded))
    write_code(folder / "slower", f"import os, signal\n{exceeded}")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GANSMITH_CACHE", str(folder.parent / "cache"))
        grades = gs.grade(folder, samples=1_000, seconds=60)
    return {row["name"]: row for row in grades}


@pytest.mark.slow
def test_a_library_that_is_not_installed_here_costs_no_points(graded):
    row = graded["library"]
    assert row["result"] == "needs nobody_has_this, which is not installed here" and row["missing"] == ["grid"]
    shares = {name: check["share"] for name, check in row["checks"].items()}
    assert shares.pop("files") == 5 / 6 and set(shares.values()) == {None} and row["points_of"] == 10
    row = graded["beside-a-file"]
    assert row["result"] == "needs nobody_has_this, which is not installed here"
    assert row["draw"].ended == "" and row["distinct"] > 0.5 and row["checks"]["recognised"]["share"] is not None
    assert row["checks"]["runs"]["share"] is None and row["missing"] == ["grid"]
    row = graded["own-module"]
    assert row["result"] == "crashed" and "my_models" in row["draw"].reason and row["points_of"] == 100


def test_a_grid_of_another_seed_beside_a_script_that_draws_the_right_one_is_found(graded):
    row = graded["other-grid"]
    assert row["result"] == "another seed" and row["script"].ended == "" and row["missing"] == []
    assert row["checks"]["grid"] == {"share": 0, "of": 15, "found": "the grid.png handed in is of seed 42, not 504"}


def test_a_slow_generator_has_its_script_run_and_one_that_draws_nothing_is_said_not_to(graded):
    row = graded["slow"]
    assert row["result"] == "out of time" and row["drew"] and row["checks"]["grid"]["found"] == "ok"
    row = graded["slower"]
    assert row["result"] == "out of time" and row["script"] is None
    assert "not run, since drawing from it ran out of time" in row["checks"]["runs"]["found"]


def test_three_hand_ins_get_their_lines_pages_and_no_code_of_theirs_runs_here(gansmith, tmp_path, digits):
    folder = tmp_path / "submissions"
    np.savez(tmp_path / "pictures.npz", images=digits[0])
    write_code(folder / "=1+1", HARD_CODED, pictures__npz=tmp_path / "pictures.npz")
    write_code(folder / "<b>crashing", "import os\nprint('<script>alert(1)</script>', os.getpid())\n" + CRASHING)
    (folder / "empty").mkdir()
    (tmp_path / "grade.toml").write_text(settings_text(Settings(samples=1_000, seconds=30)))
    code, out, err = gansmith("grade", folder, "--settings", "grade.toml")
    assert code == 0, err
    with (tmp_path / "grades" / "results.csv").open(newline="", encoding="utf-8-sig") as file:
        rows = {row["student"]: row for row in csv.DictReader(file)}
    assert {name: row["result"] for name, row in rows.items()} == {
        "'=1+1": "the same images for different latents", "<b>crashing": "crashed", "empty": "no hand-in",
    }  # fmt: skip
    assert "FileNotFoundError" in rows["<b>crashing"]["notes"] and rows["empty"]["points"] == "0 of 100"
    assert f"sandbox {WORKING[0]}" in out and "3 of 3" in out
    index = (tmp_path / "grades" / "index.html").read_text()
    page = (tmp_path / "grades" / "students" / "b-crashing.html").read_text()
    assert "<script>" not in page + index and "&lt;b&gt;crashing" in index and "data:image/png" in index
    code, _, err = gansmith("grade", folder, "--out", folder)
    assert code == 2 and "lies among the hand-ins" in err
    code, _, err = gansmith("grade", folder, "--out", tmp_path)
    assert code == 2 and "other things" in err
    code, _, err = gansmith("grade", tmp_path / "grades" / "students" / "nowhere")
    assert code == 2 and "no hand-ins" in err


def test_one_hand_in_that_cannot_be_measured_leaves_the_others_their_rows(tmp_path, digits, monkeypatch):
    folder = tmp_path / "submissions"
    np.savez(tmp_path / "pictures.npz", images=digits[0])
    for name in ("first", "second"):
        write_code(folder / name, HARD_CODED, pictures__npz=tmp_path / "pictures.npz")
    measured = grader.distinct_share

    def fail_once(samples):
        monkeypatch.setattr(grader, "distinct_share", measured)
        raise MemoryError("no room")

    monkeypatch.setattr(grader, "distinct_share", fail_once)
    rows = {row["name"]: row for row in gs.grade(folder, samples=1_000, seconds=30, show=lambda _: None)}
    assert "cannot be measured" in rows["first"]["error"] and rows["first"]["points"] == 0
    assert rows["second"]["error"] == "" and rows["second"]["points"] > 0


def test_images_larger_than_any_data_set_are_not_read(tmp_path):
    np.save(tmp_path / "grid.npy", np.zeros((25, 1, 1030, 1030), np.uint8))
    with pytest.raises(DataError, match=r"and not 25 square images of 1024 px at most"):
        grader.read_images(tmp_path / "grid.npy", 25)


def test_pages_have_names_that_no_two_students_share():
    names = ["Ada", "ada", "Ada L.", "../x", "///"]
    assert list(pages.page_names(names).values()) == ["Ada.html", "ada-2.html", "Ada-L.html", "x.html", "student.html"]


# The kit


def test_the_kit_fits_its_settings(gansmith, tmp_path, digit_dir):
    code, out, err = gansmith("course", "class", "--data", digit_dir, "--seed", 7, "--title", "Our digits")
    assert code == 0, err
    kit = tmp_path / "class"
    assert read_settings(kit / "grade.toml") == Settings(title="Our digits", seed=7, data=str(digit_dir))
    with np.load(kit / "for-students" / "data.npz") as arrays:
        assert arrays.files == ["images"] and arrays["images"].shape == (400, 28, 28, 1)
    sheet = (kit / "for-students" / "assignment.md").read_text()
    assert "# Our digits" in sheet and "RandomState(7)" in sheet and "10 classes" in sheet
    assert "about 2,500 images" in sheet and "`torch`" in sheet
    assert all((f"`{name}`" in sheet) == (find_spec(name) is not None) for name in LIBRARIES)
    assert "SEED = 7 " in (kit / "for-students" / "evaluation.py").read_text()
    nbformat.validate(nbformat.read(kit / "for-students" / "starter.ipynb", 4))
    code, _, err = gansmith("course", "class")
    assert code == 2 and "not empty" in err


def test_a_kit_counts_the_classes_that_have_images(tmp_path):
    """Folders named 1 to 3 keep their numbers as labels, and no 0 is asked for."""
    for label in (1, 2, 3):
        (tmp_path / "letters" / str(label)).mkdir(parents=True)
        for k in range(12):
            Image.new("L", (28, 28), 20 * k + label).save(tmp_path / "letters" / str(label) / f"{k}.png")
    kit = gs.course(tmp_path / "class", data=str(tmp_path / "letters"))
    assert "3 classes" in (kit / "for-students" / "assignment.md").read_text()


@pytest.mark.parametrize("is_new", [True, False])
def test_half_a_kit_is_not_left_behind(is_new, tmp_path, digit_dir, monkeypatch):
    if not is_new:
        (tmp_path / "class").mkdir()

    def interrupted(*values, **arrays):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr("gansmith.coursework.kit.np.savez_compressed", interrupted)
        gs.course(tmp_path / "class", data=str(digit_dir))
    assert (tmp_path / "class").exists() != is_new
    assert (gs.course(tmp_path / "class", data=str(digit_dir)) / "for-students" / "data.npz").is_file()


@pytest.mark.slow
def test_what_the_starter_notebook_makes_is_graded(tmp_path, digit_dir):
    kit = gs.course(tmp_path / "class", data=str(digit_dir))
    folder = kit / "for-students"
    notebook = nbformat.read(folder / "starter.ipynb", 4)
    for cell in notebook.cells:
        cell.source = cell.source.replace("STEPS = 1500", "STEPS = 60")
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(folder)}}).execute()
    (folder / "report.pdf").write_bytes(b"%PDF-1.7" + bytes(600))
    folder.rename(kit / "submissions" / "ada")
    row = gs.grade(kit / "submissions", settings=kit / "grade.toml", samples=1_000)[0]
    assert row["grid"] == "ok" and row["script"].ended == "" and not row["missing"] and row["distinct"] > 0.9


@pytest.fixture
def trained(tmp_path, monkeypatch):
    """Two runs good enough to be recognised, on the whole data set where there is one."""
    if DATA_DIR.is_dir():
        monkeypatch.setenv("GANSMITH_DATA", str(DATA_DIR))
    length = int(os.environ.get("HANDIN_IMAGES", "100000"))
    return [
        gs.train(
            "default-unlabelled", images=length, seed=seed, out=tmp_path / f"run-{seed}", progress="none", threads=2
        )
        for seed in (1, 2)
    ]


@pytest.mark.slow
def test_every_kind_of_hand_in_gets_its_line_within_five_minutes(trained, tmp_path, digits, server):
    outside = tmp_path / "outside.txt"
    folder = tmp_path / "submissions"
    expected = write_bad_handins(folder, digits[0], outside=outside, port=server.getsockname()[1])
    expected |= write_trained_handins(folder, *trained)
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    started_at = time.monotonic()
    grades = gs.grade(folder, seconds=20, memory_mb=2500, disk_mb=200, processes=40, show=print)
    seconds = time.monotonic() - started_at
    assert {row["name"]: row["result"] for row in grades} == dict(sorted(expected.items()))
    assert len(grades) >= 20 and seconds < 300
    assert before == {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    if grades.sandbox != "limits":
        assert not outside.exists()
        with pytest.raises(BlockingIOError):
            server.accept()
    good = [row for row in grades if row["result"] == "ok"]
    assert len(good) == list(expected.values()).count("ok")  # which a grid of seed 504 without a class is not
    assert len(good) >= 2 and all(row["points"] > 85 and row["fd_ratio"] < 10 for row in good)
    assert not [
        one for one in psutil.process_iter(["cmdline"]) if "gansmith.grading.worker" in (one.info["cmdline"] or [])
    ]


def test_images_that_others_equal_are_no_new_ones():
    """Of 2,000 looked up among N stored pictures, each by chance, (1 - 1 / N) ** 1999 are unlike all others."""
    stored = torch.arange(10_000, dtype=torch.int32).view(torch.uint8).view(-1, 1, 2, 2)
    for number in (20, 400, 10_000):
        drawn = stored[torch.randint(number, (2_000,))]
        expected = (1 - 1 / number) ** 1999
        assert measures.distinct_share(drawn) == pytest.approx(expected, abs=0.04) and expected < FEWEST_DISTINCT
    assert measures.distinct_share(stored[:2_000]) == 1
