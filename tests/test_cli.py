"""The front door: what a person types, and what comes back."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import TINY, write_set
from PIL import Image

from gansmith.cli import _beyond_memory
from gansmith.config import parse_labels, resolve
from gansmith.recipes import RECIPES
from gansmith.runs import open_run

GANSMITH = str(Path(sys.executable).with_name("gansmith"))


def pixels(path):
    with Image.open(path) as image:
        return np.asarray(image)


def flags(**changes):
    merged = {**TINY, **changes}
    return [word for name, value in merged.items() for word in (f"--{name.replace('_', '-')}", str(value))]


@pytest.fixture
def run_dir(gansmith, digit_dir, tmp_path):
    code, _, err = gansmith("train", *flags(data_dir=digit_dir), "--out", tmp_path / "run")
    assert (code, err) == (0, "")
    return tmp_path / "run"


def run_without(modules, *words):
    """What `gansmith WORDS` prints in a process of its own, which must end well and load none of these modules."""
    probe = (
        f"import sys; sys.argv = {['gansmith', *words]}\n"
        "from gansmith.cli import main\n"
        "try: main()\n"
        "except SystemExit as exit: assert not exit.code\n"
        f"loaded = {modules} & set(sys.modules)\n"
        "assert not loaded, loaded\n"
    )
    return subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True).stdout


def test_help_imports_no_torch():
    assert "train" in run_without({"torch", "numpy", "matplotlib", "sklearn", "PIL"}, "--help")


def test_a_generator_loads_without_the_compiler_and_statistics(run_dir):
    probe = (
        "import sys\n"
        "from gansmith.sampling import load_generator, sample\n"
        f"sample(load_generator({str(run_dir)!r}), seed=0, count=1)\n"
        "slow = {'torch._dynamo', 'scipy.stats', 'sklearn'} & set(sys.modules)\n"
        "assert not slow, slow\n"
    )
    subprocess.run([sys.executable, "-c", probe], check=True)


@pytest.mark.parametrize(("g_optimizer", "d_optimizer"), [("adam", "sgd"), ("adamw", "rmsprop")])
def test_training_does_not_wait_for_the_compiler(digit_dir, tmp_path, g_optimizer, d_optimizer):
    optimizers = ("--g-optimizer", g_optimizer, "--d-optimizer", d_optimizer)
    place = ("--data-dir", str(digit_dir), "--out", str(tmp_path / "run"))
    run_without({"torch._dynamo"}, "train", "--images", "192", *optimizers, *place)
    assert (tmp_path / "run" / "grid.png").exists()


@pytest.mark.parametrize("chosen", ["20000", "3000"])
def test_a_users_choice_of_how_threads_wait_is_kept(chosen):
    environment = {name: value for name, value in os.environ.items() if name != "GOMP_SPINCOUNT"}
    if chosen != "20000":
        environment["GOMP_SPINCOUNT"] = chosen
    probe = "import os, gansmith; print(os.environ['GOMP_SPINCOUNT'])"
    shown = subprocess.run([sys.executable, "-c", probe], env=environment, capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == chosen


def test_a_run_whose_threads_were_halved_goes_on_by_the_command_that_began_it(gansmith, digit_dir, monkeypatch):
    def on_a_busy_machine(config, data, seconds):
        return config.replace(images=64, threads=1)

    monkeypatch.setattr("gansmith.training.loop.images_for_minutes", on_a_busy_machine)
    sizes = [word for word in flags(data_dir=digit_dir) if word not in ("--threads", "--images", "256", "1")]
    words = ("train", "mlp-small", *sizes, "--minutes", "0.001", "--out", "run", "--progress", "plain")
    at_hand = torch.get_num_threads()
    try:
        code, first, _ = gansmith(*words)
        assert code == 0 and "so one thread will do more than all cores" in first
        assert open_run(Path("run")).config.threads == 1
        code, again, _ = gansmith(*words)
        assert code == 0 and "will do more" not in again and torch.get_num_threads() == 1
        assert gansmith(*words, "--threads", "2")[0] == 2
    finally:
        torch.set_num_threads(at_hand)


def test_a_reader_that_leaves_early_is_no_error():
    shown = subprocess.run(
        f"{sys.executable} -m gansmith list | head -n 1", shell=True, capture_output=True, text=True, check=True
    )
    assert (shown.stdout, shown.stderr) == ("recipes:\n", "")


def test_training_ends_with_everything_promised(gansmith, run_dir, digit_dir):
    names = {path.name for path in run_dir.iterdir()}
    assert {
        "config.toml",
        "run.json",
        "log.jsonl",
        "metrics.jsonl",
        "real.png",
        "grid.png",
        "loss.png",
    } <= names
    facts = json.loads((run_dir / "run.json").read_text())
    assert facts["status"] == "finished" and facts["data"]["source"] == str(digit_dir)
    assert re.fullmatch("[0-9a-f]{64}", facts["data"]["sha256"])
    assert pixels(run_dir / "grid.png").shape == (420, 420)
    assert pixels(run_dir / "samples" / "000000256.png").shape == (224, 280)
    code, out, _ = gansmith("train", *flags(data_dir=digit_dir), "--out", run_dir)
    assert code == 0 and "times real" in out and str(run_dir / "grid.png") in out


def test_resume_needs_no_flags(gansmith, run_dir):
    code, out, _ = gansmith("resume", run_dir, "--images", "288")
    assert code == 0 and "000000288" in out
    code, _, err = gansmith("resume", run_dir, "--images", "no")
    assert code == 2 and "whole number" in err


def test_samples_come_as_grid_folder_and_arrays(gansmith, run_dir, tmp_path):
    assert gansmith("sample", run_dir, "--count", 30, "--out", tmp_path / "a.npz")[0] == 0
    assert gansmith("sample", run_dir, "--count", 7, "--out", tmp_path / "folder")[0] == 0
    assert gansmith("sample", run_dir, "--labels", "2024", "--count", 4, "--out", tmp_path / "g.png")[0] == 0
    with np.load(tmp_path / "a.npz") as arrays:
        images, labels = arrays["images"], arrays["labels"]
    assert images.shape == (30, 28, 28, 1) and images.dtype == np.uint8
    assert labels.shape == (30,) and labels.dtype == np.int64 and set(labels) <= set(range(10))
    files = sorted((tmp_path / "folder").iterdir())
    assert len(files) == 7
    for k, file in enumerate(files):
        np.testing.assert_array_equal(pixels(file), images[k, :, :, 0])
    assert pixels(tmp_path / "g.png").shape[0] >= 400


def test_latents_set_the_count_and_numpy_seeds_the_course_grid(gansmith, run_dir, tmp_path):
    np.save(tmp_path / "z.npy", np.random.RandomState(504).normal(size=(25, TINY["latent_dim"])))
    gansmith("sample", run_dir, "--latents", tmp_path / "z.npy", "--labels", "0-9", "--out", tmp_path / "a.npz")
    gansmith("sample", run_dir, "--numpy-seed", 504, "--labels", "0-9", "--out", tmp_path / "b.npz")
    with np.load(tmp_path / "a.npz") as a, np.load(tmp_path / "b.npz") as b:
        np.testing.assert_array_equal(a["images"], b["images"])
        assert b["labels"].tolist() == [k % 10 for k in range(25)]


@pytest.mark.parametrize(
    ("text", "labels"), [("0-3", [0, 1, 2, 3]), ("2024", [2, 0, 2, 4]), ("3,11,7-8", [3, 11, 7, 8])]
)
def test_labels_are_ranges_lists_or_digits(text, labels):
    assert parse_labels(text) == labels


def test_real_images_are_exported_in_the_same_form(gansmith, digit_dir, tmp_path):
    for part, count in (("fit", 360), ("validation", 40)):
        out = tmp_path / f"{part}.npz"
        assert gansmith("data", "export", "idx", "--split", part, "--data-dir", digit_dir, "--out", out)[0] == 0
        with np.load(out) as arrays:
            assert arrays["images"].shape == (count, 28, 28, 1) and arrays["labels"].dtype == np.int64


@pytest.mark.parametrize("recipe", RECIPES)
def test_recipes_describe_themselves(gansmith, recipe):
    facts = json.loads(gansmith("describe", recipe, "--json")[1])
    assert {"g_parameters", "d_parameters", "latent_dim", "conditional", "image_shape", "images"} <= facts.keys()
    code, out, _ = gansmith("describe", recipe)
    assert code == 0 and f"{facts['g_parameters']:,}" in out


def test_lists_doctor_and_data_answer(gansmith, digit_dir):
    assert gansmith("list", "recipes")[1].split() == list(RECIPES)
    out = gansmith("list")[1]
    assert all(kind in out for kind in ("recipes:", "datasets:", "networks:", "objectives:", "metrics:"))
    facts = dict(re.split(r" {2,}", line, maxsplit=1) for line in gansmith("doctor")[1].splitlines())
    assert facts["torch"] == torch.__version__ and f"{os.cpu_count()} cores" in facts["processor"]
    assert {"python", "bfloat16", "free disk", "data cache", "mnist", "fashion-mnist"} <= facts.keys()
    out = gansmith("data", "check", "idx", "--data-dir", digit_dir)[1]
    assert "400 images" in out and re.search("[0-9a-f]{64}", out)


def test_where_nothing_may_be_fetched_nothing_is_promised(gansmith, monkeypatch, tmp_path):
    for name in ("GANSMITH_DATA", "GANSMITH_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("GANSMITH_CACHE", str(tmp_path))
    monkeypatch.setattr("gansmith.data.idx.places", lambda name: [tmp_path / name])
    monkeypatch.setattr("gansmith.environment.places", lambda name: [tmp_path / name])
    assert "will be downloaded or the embedded subset" in gansmith("doctor")[1]
    monkeypatch.setenv("GANSMITH_OFFLINE", "1")
    assert "download" not in gansmith("doctor")[1]
    assert "network" not in gansmith("data", "export", "mnist", "--split", "test", "--out", tmp_path / "x.npz")[2]


def test_a_request_beyond_all_memory_is_named():
    with pytest.raises(RuntimeError, match="can't allocate memory") as raised:
        torch.empty(10**15)
    assert "more memory than this machine has (4,000,000 GB at once)" in _beyond_memory(raised.value)


def test_names_that_a_terminal_cannot_show_are_no_failure(run_dir, tmp_path, gansmith):
    code, _, err = gansmith("sample", run_dir, "--latents", tmp_path / "no.npy")
    assert code == 2 and "no.npy: No such file or directory; choose a place" in err
    code, _, err = gansmith("sample", run_dir, "--out", "/proc/no/grid.png")
    assert code == 2 and ".partial" not in err
    words = [sys.executable, "-m", "gansmith", "sample", run_dir, "--count", "1", "--out", tmp_path / "\u00e9.png"]
    environment = {**os.environ, "LC_ALL": "C", "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    done = subprocess.run(words, capture_output=True, env=environment)
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.isascii() and done.stdout.endswith(b".png\n") and (tmp_path / "\u00e9.png").is_file()


def test_print_config_shows_sources_and_reads_back(gansmith, tmp_path):
    code, out, _ = gansmith("train", "mlp-small", "--batch-size", "32", "--print-config")
    assert code == 0
    assert re.search(r"^batch = 32 +# flag$", out, re.M) and re.search(
        r"^g_width = 256 +# recipe mlp-small$", out, re.M
    )
    (tmp_path / "c.toml").write_text(out)
    again = gansmith("train", "--config", tmp_path / "c.toml", "--print-config")[1]
    assert [line.split("#")[0] for line in again.splitlines()] == [line.split("#")[0] for line in out.splitlines()]


@pytest.mark.parametrize("recipe", RECIPES)
def test_what_print_config_shows_reproduces_any_row(recipe, gansmith, tmp_path):
    (tmp_path / "c.toml").write_text(gansmith("train", recipe, "--print-config")[1])
    assert resolve(file=tmp_path / "c.toml") == resolve(recipe)


def test_progress_for_scripts_is_json_alone(gansmith, digit_dir, tmp_path):
    code, out, err = gansmith("train", *flags(data_dir=digit_dir), "--out", tmp_path / "r", "--progress", "json")
    assert code == 0 and "grid" in err
    kinds = [json.loads(line)["kind"] for line in out.splitlines()]
    assert {"log", "score", "sample", "checkpoint"} == set(kinds)


BAD = {
    "unknown recipe": (["train", "defalt"], "did you mean 'default'"),
    "an empty recipe": (["train", ""], "no recipe"),
    "a name that is code": (["train", "--data", 'x"""'], "a name is 1 to 64 letters"),
    "endless minutes": (["train", "--minutes", "inf"], "less than 100,000"),
    "seeds of a walk": (["walk", "nothing", "--seeds", "a"], "seeds are 'a'"),
    "a walk without end": (["walk", "nothing", "--seeds", "0-9999", "--steps", "1000"], "up to 10,000"),
    "a seed below zero": (["plot", "nothing", "classes", "--seed", "-1"], "from 0"),
    "a switch without meaning": (["ablate", "mlp-small", "--empty-without"], "--empty-without"),
    "unknown dataset": (["train", "--data", "minst"], "did you mean 'mnist'"),
    "unknown field": (["train", "--btach", "3"], "--batch-size"),
    "unknown command": (["trian"], "train"),
    "wrong type": (["train", "--batch-size", "many"], "whole number"),
    "out of range": (["train", "--ema", "2"], "between 0.0 and 1.0"),
    "zero images": (["train", "--images", "0"], "1 or more"),
    "a number without end": (["train", "--images", "9" * 400], "1 or more"),
    "no number": (["train", "--ema", "nan"], "between 0.0 and 1.0"),
    "an empty folder name": (["train", "--data-dir", ""], "data_dir is empty"),
    "a class that is not there": (["train", "--classes", "3,42"], "no 42"),
    "conditioning of nothing": (["train", "cgan-keras", "--conditioning", "none"], "told nothing"),
    "zero minutes": (["train", "--minutes", "0"], "more than 0"),
    "negative minutes": (["train", "--minutes", "-3"], "more than 0"),
    "two lengths": (["train", "--minutes", "1", "--images", "9"], "give one"),
    "missing file": (["train", "--config", "none.toml"], "no file"),
    "sample of nothing": (["sample", "nothing"], "no file or run"),
    "zero samples": (["sample", "nothing", "--count", "0"], "between 1 and"),
    "resume of nothing": (["resume", "nothing"], "holds no run"),
    "describe of nothing": (["describe", "nothing"], "no recipe"),
    "fetch of nothing": (["data", "fetch", "kmnist"], "cannot be downloaded"),
    "no test images": (["data", "export", "mnist", "--split", "test", "--out", "x.npz"], "--data-dir"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_requests_get_one_sentence(gansmith, tmp_path, case):
    words, expected = BAD[case]
    code, out, err = gansmith(*words)
    assert code == 2 and out == ""
    assert expected in err and len(err.strip().splitlines()) == 1 and err.startswith("gansmith: ")
    assert [path.name for path in tmp_path.iterdir()] == []


def test_bad_data_leaves_nothing_behind(gansmith, tmp_path, digits):
    images, labels = digits
    (tmp_path / "empty").mkdir()
    write_set(tmp_path / "short", images, labels[:-1])
    cut = write_set(tmp_path / "cut", images, labels) / "train-images-idx3-ubyte.gz"
    cut.write_bytes(cut.read_bytes()[:-20])
    write_set(tmp_path / "none", images[:0], labels[:0])
    for name in ("empty", "short", "cut", "none", "absent"):
        code, _, err = gansmith("train", *flags(data_dir=tmp_path / name), "--out", tmp_path / "run")
        assert code == 2 and len(err.strip().splitlines()) == 1, name
        assert not (tmp_path / "run").exists()


def test_bad_places_are_refused(gansmith, tmp_path, digit_dir, run_dir):
    (tmp_path / "file").write_text("x")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "letter").write_text("dear")
    for out, word in (
        (tmp_path / "file", "is a file"),
        (tmp_path / "full", "holds no run"),
        (run_dir, "other choices"),
    ):
        code, _, err = gansmith("train", *flags(data_dir=digit_dir, batch_size=8), "--out", out)
        assert code == 2 and word in err
    assert gansmith("sample", run_dir, "--out", tmp_path / "no" / "x.png")[0] == 2
    assert gansmith("sample", run_dir, "--labels", "0-12", "--out", tmp_path / "x.png")[0] == 2
    assert gansmith("sample", run_dir, "--labels", "cat", "--out", tmp_path / "x.png")[0] == 2
    assert not (tmp_path / "x.png").exists()
    for out, word in ((tmp_path / "x.jpg", ".png"), (run_dir / "samples", "holds images already")):
        before = sorted(run_dir.rglob("*"))
        code, _, err = gansmith("sample", run_dir, "--out", out)
        assert code == 2 and word in err and not (tmp_path / "x.jpg").exists()
        assert sorted(run_dir.rglob("*")) == before


def test_labels_asked_of_an_unlabelled_model_are_refused(gansmith, digit_dir, tmp_path):
    gansmith("train", "mlp-small", *flags(data_dir=digit_dir), "--out", tmp_path / "run")
    code, _, err = gansmith("sample", tmp_path / "run", "--labels", "3", "--out", tmp_path / "x.png")
    assert code == 2 and "without labels" in err and not (tmp_path / "x.png").exists()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_saves_and_leaves(digit_dir, tmp_path, number, code):
    words = flags(data_dir=digit_dir, images="1M", sample_every="1M", evaluate_every="1M", save_every="1M")
    process = subprocess.Popen(
        [GANSMITH, "train", *words, "--out", tmp_path / "run"],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ,
    )
    log = tmp_path / "run" / "log.jsonl"
    while not log.exists() and process.poll() is None:
        time.sleep(0.05)
    process.send_signal(number)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == code
    assert "gansmith resume" in out
    assert len(list((tmp_path / "run" / "checkpoints").iterdir())) == 1
