"""The front door: what a person types, and what comes back."""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from conftest import TINY, as_flags, flags, wait_until, write_set
from PIL import Image

from gansmith import environment
from gansmith.cli import _beyond_memory, main
from gansmith.config import parse_labels, resolve
from gansmith.errors import ConfigError, NotFoundError, TrainingFailed
from gansmith.recipes import RECIPES
from gansmith.runs import open_run

GANSMITH = str(Path(sys.executable).with_name("gansmith"))


def pixels(path):
    with Image.open(path) as image:
        return np.asarray(image)


@pytest.fixture
def run_dir(trained, tiny):
    return trained(tiny()).directory


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


@pytest.mark.slow
def test_a_generator_loads_without_the_compiler_and_statistics(run_dir):
    probe = (
        "import sys\n"
        "from gansmith.models import load_generator\n"
        "from gansmith.sampling import sample\n"
        f"sample(load_generator({str(run_dir)!r}), seed=0, count=1)\n"
        "slow = {'torch._dynamo', 'scipy.stats', 'sklearn'} & set(sys.modules)\n"
        "assert not slow, slow\n"
    )
    subprocess.run([sys.executable, "-c", probe], check=True)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("g_optimizer", "d_optimizer"), [("adam", "sgd"), pytest.param("adamw", "rmsprop", marks=pytest.mark.slow)]
)
def test_training_does_not_wait_for_the_compiler(digit_dir, tmp_path, g_optimizer, d_optimizer):
    optimizers = ("--g-optimizer", g_optimizer, "--d-optimizer", d_optimizer)
    place = ("--data-dir", str(digit_dir), "--out", str(tmp_path / "run"))
    run_without({"torch._dynamo"}, "train", "--images", "192", *optimizers, *place)
    assert (tmp_path / "run" / "grid.png").exists()


@pytest.mark.slow
def test_a_run_whose_threads_were_halved_goes_on_by_the_command_that_began_it(gansmith, digit_dir, monkeypatch):
    def on_a_busy_machine(config, data, seconds):
        return config.replace(images=64, threads=1)

    monkeypatch.setattr("gansmith.training.budget.config_for_time", on_a_busy_machine)
    sizes = [word for word in flags(data_dir=digit_dir) if word not in ("--threads", "--images", "256", "1")]
    words = ("train", "mlp-small", *sizes, "--minutes", "0.001", "--out", "run", "--progress", "plain")
    before = torch.get_num_threads()
    try:
        code, first, _ = gansmith(*words)
        assert code == 0 and "note: threads is 1, not one per core: other programs keep this machine busy" in first
        assert open_run(Path("run")).config.threads == 1
        code, again, _ = gansmith(*words)
        assert code == 0 and "threads is 1" not in again and torch.get_num_threads() == before
        assert gansmith(*words, "--threads", "2")[0] == 2
    finally:
        torch.set_num_threads(before)


def test_a_finished_run_that_is_asked_for_again_says_so(gansmith, digit_dir):
    words = ("train", "mlp-small", *flags(data_dir=digit_dir, images=64), "--out", "run")
    first, again = gansmith(*words), gansmith(*words)
    assert first[0] == again[0] == 0 and "nothing is trained" not in first[1] + first[2]
    assert "run is finished, so nothing is trained" in again[1] + again[2]


def test_a_named_set_in_the_place_of_a_folder_of_sets_is_refused(gansmith, monkeypatch):
    monkeypatch.setenv("GANSMITH_DATA", "fashion-mnist")
    code, _, err = gansmith("train", "--images", "64")
    assert code == 2 and err.count("\n") == 1 and "--data fashion-mnist" in err


def test_a_reader_that_leaves_early_is_no_error():
    line = f"{shlex.quote(sys.executable)} -m gansmith list | head -n 1"
    shown = subprocess.run(line, shell=True, capture_output=True, text=True, check=True)
    assert (shown.stdout, shown.stderr) == ("recipes:\n", "")


def test_a_reader_that_leaves_before_a_table_is_no_error():
    """Of which rich would end the program with the code of a failed training."""
    code = "import sys, time; from gansmith.cli import output; sys.stdin.readline(); output.print_table(['a'], [['b']])"
    ours, theirs = os.pipe()
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=theirs, stderr=subprocess.PIPE
    )
    os.close(theirs)
    os.close(ours)
    _, said = process.communicate(b"\n", timeout=60)
    assert b"BrokenPipeError" in said  # which `main` knows as nobody reading on


def test_training_ends_with_everything_promised(gansmith, digit_dir, tmp_path):
    run_dir = tmp_path / "run"
    code, _, err = gansmith("train", *flags(data_dir=digit_dir), "--out", run_dir)
    assert (code, err) == (0, "")
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
    assert code == 0 and "validation FD ratio" in out and str(run_dir / "grid.png") in out


@pytest.mark.slow
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
    assert len(list((tmp_path / "folder").glob("*/*.png"))) == 7  # a folder for each class
    for k, label in enumerate(labels[:7].tolist()):
        place = f"{label}/{labels[:k].tolist().count(label):05d}.png"
        np.testing.assert_array_equal(pixels(tmp_path / "folder" / place), images[k, :, :, 0])
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
    for part, count in (("train", 360), ("validation", 40)):
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
    facts = dict(re.split(r" {2,}", line, maxsplit=1) for line in gansmith("doctor", "--no-speed")[1].splitlines())
    assert facts["torch"] == torch.__version__ and f"{os.cpu_count()} cores" in facts["processor"]
    assert {"python", "bfloat16", "free disk", "data cache", "mnist", "fashion-mnist"} <= facts.keys()
    out = gansmith("data", "check", "idx", "--data-dir", digit_dir)[1]
    assert re.search("400 (training )?images", out) and re.search("[0-9a-f]{64}", out)


@pytest.mark.slow
def test_doctor_measures_what_runs_how_fast_where(gansmith, monkeypatch):
    monkeypatch.setattr("gansmith.environment.measure", partial(environment.measure, 0.01))
    code, out, _ = gansmith("doctor")
    assert code == 0
    assert re.search(r"cpu speed +products [\d,]+ GFLOP/s in float32, [\d,]+ GFLOP/s in bfloat16; convolutions", out)
    for recipe in environment.MEASURED:
        (rate,) = re.findall(rf"^{recipe} +([\d,]+) images/s on cpu", out, re.M)
        assert int(rate.replace(",", "")) > 10


def test_where_nothing_may_be_fetched_nothing_is_promised(gansmith, monkeypatch, tmp_path):
    for name in ("GANSMITH_DATA", "GANSMITH_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("GANSMITH_CACHE", str(tmp_path))
    monkeypatch.setattr("gansmith.data.idx.places", lambda name: [tmp_path / name])
    monkeypatch.setattr("gansmith.environment.places", lambda name: [tmp_path / name])
    assert "will be downloaded or the embedded subset" in gansmith("doctor", "--no-speed")[1]
    monkeypatch.setenv("GANSMITH_OFFLINE", "1")
    assert "download" not in gansmith("doctor", "--no-speed")[1]
    assert "network" not in gansmith("data", "export", "mnist", "--split", "test", "--out", tmp_path / "x.npz")[2]


def test_a_request_beyond_all_memory_is_named():
    with pytest.raises(RuntimeError, match="can't allocate memory") as raised:
        torch.empty(10**15)
    assert "or this process may take (4,000,000 GB at once)" in _beyond_memory(raised.value)


@pytest.mark.slow
def test_names_that_a_terminal_cannot_show_are_no_failure(run_dir, tmp_path, gansmith):
    code, _, err = gansmith("sample", run_dir, "--latents", tmp_path / "no.npy")
    assert code == 2 and "no.npy' of latents; give a .npy file" in err
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
    assert re.search(r"^batch_size = 32 +# argument$", out, re.M)
    assert re.search(r"^g_width = 256 +# recipe$", out, re.M) and re.search(r"^d_dropout = 0.0 +# default$", out, re.M)
    (tmp_path / "c.toml").write_text(out)
    again = gansmith("train", "--config", tmp_path / "c.toml", "--print-config")[1]
    assert [line.split("#")[0] for line in again.splitlines()] == [line.split("#")[0] for line in out.splitlines()]


def test_print_config_says_that_another_flag_sets_the_length(gansmith):
    for flag in ("--minutes", "--epochs"):
        out = gansmith("train", flag, "3", "--print-config")[1]
        assert re.search(rf"^images = \d+ +# {flag} will set it$", out, re.M)
    code, out, err = gansmith("train", "--minutes", "3", "--epochs", "2", "--print-config")
    assert (code, out) == (2, "") and "each set the length; give one of them" in err


@pytest.mark.parametrize("recipe", RECIPES)
def test_what_print_config_shows_reproduces_any_row(recipe, gansmith, tmp_path):
    (tmp_path / "c.toml").write_text(gansmith("train", recipe, "--print-config")[1])
    assert resolve(file=tmp_path / "c.toml") == resolve(recipe)


def test_progress_for_scripts_is_json_alone(gansmith, digit_dir, tmp_path):
    code, out, err = gansmith("train", *flags(data_dir=digit_dir), "--out", tmp_path / "r", "--progress", "json")
    assert code == 0 and "grid" in err
    kinds = [json.loads(line)["kind"] for line in out.splitlines()]
    assert {"start", "log", "score", "sample", "checkpoint"} == set(kinds)


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
    "unknown field": (["train", "--btach", "3"], "did you mean --batch-size?"),
    "unknown command": (["trian"], "train"),
    "wrong type": (["train", "--batch-size", "many"], "whole number"),
    "out of range": (["train", "--ema", "2"], "between 0.0 and 1.0"),
    "zero images": (["train", "--images", "0"], "1 or more"),
    "a number without end": (["train", "--images", "9" * 400], "1 or more"),
    "no number": (["train", "--ema", "nan"], "between 0.0 and 1.0"),
    "an empty folder name": (["train", "--data-dir", ""], "data_dir is empty"),
    "a class that is not there": (["train", "--classes", "3,42"], "no 42"),
    "conditioning of nothing": (["train", "cgan-keras", "--conditioning", "none"], "no effect without --conditioning"),
    "zero minutes": (["train", "--minutes", "0"], "more than 0"),
    "negative minutes": (["train", "--minutes", "-3"], "more than 0"),
    "two lengths": (["train", "--minutes", "1", "--images", "9"], "minutes and images each set the length; give one"),
    "two other lengths": (["train", "--epochs", "1", "--images", "9"], "images and epochs each set the length"),
    "three lengths": (["train", "--epochs", "1", "--images", "9", "--minutes", "1"], "minutes and images and epochs"),
    "no epochs": (["train", "--epochs", "0"], "epochs is 0; it must be more than 0"),
    "endless epochs": (["train", "--epochs", "nan"], "epochs is nan; it must be more than 0"),
    "two lengths of a run": (["resume", "nothing", "--epochs", "1", "--images", "9"], "images and epochs"),
    "missing file": (["train", "--config", "none.toml"], "no file"),
    "sample of nothing": (["sample", "nothing"], "no file or run"),
    "zero samples": (["sample", "nothing", "--count", "0"], "between 1 and"),
    "resume of nothing": (["resume", "nothing"], "holds no run"),
    "describe of nothing": (["describe", "nothing"], "no recipe"),
    "fetch of nothing": (["data", "fetch", "gaussian-ring"], "cannot be downloaded"),
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


@pytest.fixture
def animals(tmp_path, digits):
    """Two named class folders of real digits: 60 sevens as cats, and 60 ones as dogs."""
    for name, digit in (("cat", 7), ("dog", 1)):
        (tmp_path / "animals" / name).mkdir(parents=True)
        for k, image in enumerate(np.tile(digits[0][digits[1] == digit], (2, 1, 1))[:60]):
            Image.fromarray(image).save(tmp_path / "animals" / name / f"{k}.png")
    return tmp_path / "animals"


def test_pictures_of_ones_own_are_trained_on_by_their_path(gansmith, animals, tmp_path):
    code, _, err = gansmith("train", "default", "--data", animals, *flags(images=64, clusters=2), "--out", "run")
    assert code == 0, err
    run = open_run(tmp_path / "run")
    assert (run.config.data, run.config.data_dir) == ("animals", str(animals))
    code, _, err = gansmith("sample", "run", "--labels", "cat,dog", "--count", "4", "--out", "drawn")
    assert code == 0, err
    assert {path.name: len(list(path.iterdir())) for path in (tmp_path / "drawn").iterdir()} == {"cat": 2, "dog": 2}
    code, out, _ = gansmith("data", "inspect", "drawn", "--json")
    assert code == 0 and json.loads(out)["classes"] == {"cat": 2, "dog": 2}
    code, _, err = gansmith("sample", "run", "--out", "drawn")
    assert code == 2 and "holds images already" in err
    code, _, err = gansmith("sample", "run", "--labels", "cat,cow", "--out", "x.png")
    assert code == 2 and "cow" in err and len(err.strip().splitlines()) == 1
    for words in (("--label", "dog"), ("--label", "1"), ("--label", "1-1"), ("--classes", "dog,cat")):
        assert gansmith("walk", "run", *words, "--steps", "2", "--out", "walk.png")[0] == 0
    for words in (("--classes", "cat"), ("--classes", "cat,dog", "--label", "cat"), ("--seeds", "12")):
        code, _, err = gansmith("walk", "run", *words, "--out", "other.png")
        assert code == 2 and "give two or more" in err and not Path("other.png").exists()
    code, _, err = gansmith("walk", "run", "--label", "cat,dog", "--out", "walk.png")
    assert code == 2 and "label is 'cat,dog', 2 classes; give one" in err
    code, _, err = gansmith("walk", "run", "--label", "10", "--out", "walk.png")
    assert code == 2 and "10" in err and "classes; give one" not in err
    assert gansmith("plot", "run", "classes")[0] == 0 and (tmp_path / "run/classes.png").is_file()
    code, _, err = gansmith("train", "mlp-small", "--data", animals, *flags(classes="dog", images=64), "--out", "dogs")
    assert code == 0, err
    code, _, err = gansmith("train", "mlp-small", "--data", animals, *flags(size=16, images=64), "--out", "small")
    assert code == 0, err
    gansmith("sample", "small", "--count", "1", "--out", "small.npz")
    with np.load(tmp_path / "small.npz") as stored:
        assert stored["images"].shape == (1, 16, 16, 1)


def test_two_places_of_one_data_set_are_refused(gansmith, animals, digit_dir):
    code, _, err = gansmith("train", "--data", animals, "--data-dir", digit_dir)
    assert code == 2 and "give one of them" in err
    code, _, err = gansmith("train", "--data", "./nothing")
    assert code == 2 and "there is no file or folder" in err


def test_labels_asked_of_an_unlabelled_model_are_refused(gansmith, digit_dir, tmp_path):
    gansmith("train", "mlp-small", *flags(data_dir=digit_dir), "--out", tmp_path / "run")
    code, _, err = gansmith("sample", tmp_path / "run", "--labels", "3", "--out", tmp_path / "x.png")
    assert code == 2 and "takes no labels" in err and not (tmp_path / "x.png").exists()


@pytest.mark.parametrize(
    ("number", "code"),
    [
        (signal.SIGINT, 130),
        pytest.param(signal.SIGTERM, 143, marks=pytest.mark.slow),
        pytest.param(getattr(signal, "SIGHUP", None), 129, marks=pytest.mark.slow),  # of a terminal that is closed
    ],
)
def test_a_signal_saves_and_leaves(digit_dir, tmp_path, number, code):
    words = flags(data_dir=digit_dir, images="1M", sample_every="1M", evaluate_every="1M", save_every="1M")
    process = subprocess.Popen(
        [GANSMITH, "train", *words, "--out", tmp_path / "run"],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ,
    )
    log = tmp_path / "run" / "log.jsonl"
    wait_until(lambda: log.exists() or process.poll() is not None)
    process.send_signal(number)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == code
    assert "gansmith resume" in out
    assert len(list((tmp_path / "run" / "checkpoints").iterdir())) == 1


# Lengths, intervals and notices.


def small(**changes):
    """Flags of a pair so small that 64,000 images take a moment; intervals are left to the recipe."""
    sizes = {"g_width": 8, "d_width": 8, "latent_dim": 8, "batch_size": 256, "threads": 1, "trackers": "none"}
    return as_flags({**sizes, **changes})


def logged(run):
    return [row["images_seen"] for row in open_run(run).log if "d_loss" in row]


@pytest.mark.slow
def test_an_explicit_interval_stays_even_where_it_is_the_recipes_own(gansmith, digit_dir, tmp_path):
    words = ("train", "mlp-small", *small(data_dir=digit_dir, images="64k"))
    assert gansmith(*words, "--log-every", 25_600, "--out", tmp_path / "asked")[0] == 0
    assert logged(tmp_path / "asked") == [25_600, 51_200, 64_000]
    assert open_run(tmp_path / "asked").config.origins["log_every"] == "argument"
    assert gansmith(*words, "--out", tmp_path / "own")[0] == 0
    assert len(logged(tmp_path / "own")) == 200 > 64_000 / 25_600  # capped to a 200th of this length
    assert open_run(tmp_path / "own").config.origins["log_every"] == "recipe"
    for name, count in (("asked", 2), ("own", 50)):
        assert gansmith("resume", tmp_path / name, "--images", "80k")[0] == 0
        assert len([seen for seen in logged(tmp_path / name) if seen > 64_000]) == count
    assert logged(tmp_path / "asked") == [25_600, 51_200, 64_000, 76_800, 80_128]


def test_epochs_become_images_and_are_said_to(gansmith, digit_dir, tmp_path):
    words = flags(data_dir=digit_dir)
    del words[words.index("--images") : words.index("--images") + 2]
    code, out, _ = gansmith("train", "mlp-small", *words, "--epochs", "2", "--out", tmp_path / "run")
    assert code == 0 and "note: 2 epochs of 360 training images are 720 images" in out
    assert open_run(tmp_path / "run").config.images == 720 and logged(tmp_path / "run")[-1] == 720
    code, out, _ = gansmith("resume", tmp_path / "run", "--epochs", "2.5")
    assert code == 0 and "note: 2.5 epochs of 360 training images are 900 images" in out
    assert logged(tmp_path / "run")[-1] in range(900, 900 + 16)


@pytest.mark.slow
def test_minutes_more_are_about_so_many_images(gansmith, digit_dir, tmp_path):
    assert gansmith("train", "mlp-small", *flags(data_dir=digit_dir), "--out", tmp_path / "run")[0] == 0
    code, out, _ = gansmith("resume", tmp_path / "run", "--minutes", "0.001")
    assert code == 0 and re.search(r"note: 0.001 minutes are about [\d,]+ images more", out)
    assert logged(tmp_path / "run")[-1] > 256


@pytest.mark.slow
def test_a_choice_that_the_data_changed_is_said_with_both_values(gansmith, digit_dir, tmp_path):
    sentence = "clusters is 15, not 2000: each cluster needs at least 24 of the 360 images"
    words = ("train", "default-unlabelled", *flags(data_dir=digit_dir, clusters=2000), "--out", tmp_path / "a")
    code, out, _ = gansmith(*words, "--progress", "json")
    started = json.loads(out.splitlines()[0])
    assert code == 0 and started["kind"] == "start" and started["notices"].count(sentence) == 1
    assert sentence in json.loads((tmp_path / "a" / "run.json").read_text())["data"]["notices"]
    assert open_run(tmp_path / "a").config.clusters == 15
    assert gansmith(*words)[0] == 0  # goes on with what was settled
    code, out, _ = gansmith("train", *flags(data_dir=digit_dir), "--out", tmp_path / "c", "--progress", "plain")
    assert code == 0 and out.count("note: clusters_per_class is 1, not 200: ") == 1


# A run directory of before.

OLD_CONFIG = """recipe = "mlp-small"
dataset = "mnist"
images = 256
batch = 16
z_dim = 8
update = "alternating"
r1 = 0.0
"""


@pytest.fixture
def old_run(run_dir):
    """What an earlier version left: other fields, a link to the best checkpoint, no format."""
    (run_dir / "config.toml").write_text(OLD_CONFIG)
    (run_dir / "best.json").unlink()
    (run_dir / "best").symlink_to("checkpoints/000000128")
    return run_dir


@pytest.mark.parametrize(
    "words",
    [
        ["resume", "RUN"],
        ["train", "mlp-small", "--out", "RUN"],
        ["sample", "RUN", "--out", "x.png"],
        ["evaluate", "RUN", "--quick"],
        ["diagnose", "RUN"],
        ["plot", "RUN"],
        ["film", "RUN"],
        ["report", "RUN"],
        ["export", "RUN", "--format", "safetensors"],
        ["compare", "RUN", "--quick"],
    ],
    ids=lambda words: words[0],
)
def test_a_run_directory_of_an_earlier_version_is_refused_in_one_sentence(gansmith, old_run, words):
    before = {path: path.read_bytes() for path in old_run.rglob("*") if path.is_file()}
    code, out, err = gansmith(*(old_run if word == "RUN" else word for word in words))
    assert (code, out, len(err.splitlines())) == (2, "", 1)
    assert "was written by another version of Gansmith (run format 2 or older, this version reads 3)" in err
    assert before == {path: path.read_bytes() for path in old_run.rglob("*") if path.is_file()}


# Whose mistake it was.


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (ConfigError("x is 3; it must be 4"), 2, "gansmith: x is 3; it must be 4\n"),
        (NotFoundError("there is no x"), 2, "gansmith: there is no x\n"),
        (TrainingFailed("it diverged"), 1, "gansmith: it diverged\n"),
        (MemoryError(), 2, "gansmith: that takes more memory than this machine has, or this process may take"),
        (RuntimeError("[enforce fail] can't allocate memory: you tried to allocate 8000000000 bytes"), 2, "(8 GB at "),
        (PermissionError(13, "Permission denied", "/x/.partial-y"), 2, "gansmith: /x/y: Permission denied; choose a "),
        (OSError(28, "No space left on device"), 2, "gansmith: the output: No space left on device"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
def test_mistakes_of_the_user_and_of_the_system_are_one_sentence(gansmith, monkeypatch, error, code, words):
    monkeypatch.setattr("gansmith.api.diagnose", Mock(side_effect=error))
    found, out, err = gansmith("diagnose", "run")
    assert (found, out, len(err.splitlines())) == (code, "", 1) and words in err


@pytest.mark.parametrize(
    "error",
    [
        ValueError("a bug"),
        RuntimeError("a bug"),
        KeyError("bug"),
        TypeError("a bug"),
        ArithmeticError("a bug"),
        OSError("a bug without a number"),
        FileNotFoundError("raised by a program, not by the system"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_a_bug_keeps_its_traceback(monkeypatch, capsys, error):
    monkeypatch.setattr("gansmith.api.diagnose", Mock(side_effect=error))
    monkeypatch.setattr("sys.argv", ["gansmith", "diagnose", "run"])
    with pytest.raises(type(error)) as raised:
        main()
    assert raised.value is error and capsys.readouterr().err == ""


def test_a_bug_ends_the_process_with_a_traceback():
    probe = (
        "import sys, gansmith.api\n"
        "def bug(run): raise ValueError('a bug')\n"
        "gansmith.api.diagnose = bug\n"
        "sys.argv = ['gansmith', 'diagnose', 'run']\n"
        "from gansmith.cli import main\n"
        "main()\n"
    )
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True)
    assert done.returncode == 1 and done.stderr.startswith("Traceback") and "ValueError: a bug" in done.stderr


def test_an_interrupt_of_any_command_is_130(gansmith, monkeypatch):
    monkeypatch.setattr("gansmith.api.diagnose", Mock(side_effect=KeyboardInterrupt))
    assert gansmith("diagnose", "run") == (130, "", "")


@pytest.mark.slow
def test_sigterm_leaves_nothing_half_written(run_dir, tmp_path):
    words = [sys.executable, "-m", "gansmith", "sample", run_dir, "--count", "60000", "--out", tmp_path / "many"]
    process = subprocess.Popen(words)
    wait_until(lambda: (tmp_path / "many").is_dir())
    process.terminate()
    assert process.wait(60) == 128 + signal.SIGTERM and not (tmp_path / "many").exists()


def test_an_interrupt_while_the_command_loads_leaves_no_traceback():
    probe = (
        "import sys\n"
        "from gansmith.__main__ import main\n"
        "class Interrupted:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'gansmith.cli.training': raise KeyboardInterrupt\n"
        "sys.meta_path.insert(0, Interrupted())\n"
        "main()\n"
    )
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")


# Flags of other projects.

OTHER_FLAGS = {
    "--lr": "here it is --g-lr and --d-lr",
    "--learning-rate": "here it is --g-lr and --d-lr",
    "--lr-g": "here it is --g-lr",
    "--lr-d": "here it is --d-lr",
    "--bs": "here it is --batch-size",
    "-b": "here it is --batch-size",
    "--nz": "here it is --latent-dim",
    "--z-dim": "here it is --latent-dim",
    "--z_dim": "here it is --latent-dim",
    "--noise-dim": "here it is --latent-dim",
    "--gamma": "here it is --r1-gamma and --r2-gamma",
    "--n-epochs": "here it is --epochs",
    "--niter": "here it is --epochs or --images",
    "--kimg": "here it is --images (500k is 500 kimg)",
    "--dataset": "here it is --data",
    "--dataroot": "here it is --data-dir",
    "--beta": "here it is --beta1 and --beta2",
    "--b1": "here it is --beta1",
    "--n-critic": "here it is --d-steps",
    "--lambda-gp": "here it is --gradient-penalty",
    "--smoothing": "here it is --label-smoothing",
    "--outdir": "here it is --out",
    "-o": "here it is --out",
    "--ngf": "here it is --g-width",
    "--loss": "here it is --objective",
    "--manual-seed": "here it is --seed",
    "--workers": "here it is --threads",
    "--amp": "here it is --precision bfloat16",
    "--ada": "here it is --augment adaptive",
    "--snap": "here it is --save-every (steps times --batch-size)",
    "--wandb": "here it is --trackers wandb",
    "--model": "here it is a recipe's name, or --network",
    "--gpu": "here it is --device cuda",
    "--cuda": "here it is --device cuda",
    "--mps": "here it is --device mps",
    "--gpus": "torchrun --nproc-per-node 2 -m gansmith train ... uses several GPUs (docs/scaling.md)",
    "--img-size": "here it is --size",
    "--resolution": "here it is --size",
    "--nc": "--color grey or rgb chooses others",
    "--resume": "`gansmith resume RUN` continues a run, and --start-from RUN begins a new one with its weights",
    "--ckpt": "here it is --start-from (gansmith resume RUN goes on with a run)",
    "--weights": "here it is --start-from (gansmith resume RUN goes on with a run)",
    "--max-iter": "here it is --images (steps times --batch-size)",
    "--d-reg-every": "here it is --penalty-every",
    "--batch-norm": "layers are normalised as --network does it; --spectral-norm normalises D's weights",
    "--cfg": "here it is a recipe's name, or --config",
    "--mode": "what to do is a command, such as gansmith train, sample or evaluate",
    "--lernrate": "did you mean --g-lr and --d-lr?",
    "--latent-dimm": "did you mean --latent-dim?",
    "--qqq": "gansmith train --help lists the flags",
}


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["--batch", "32"], "batch_size = 32"),
        (["--cond=labels"], 'conditioning = "labels"'),
        (["--r1", "2"], "r1_gamma = 2.0"),
        (["--spectral"], "spectral_norm = true"),
        (["--spectral", "1"], "spectral_norm = true"),
    ],
)
def test_the_beginning_of_a_flag_is_enough_where_no_other_begins_so(gansmith, words, line):
    code, out, _ = gansmith("train", "mlp-small", *words, "--print-config")
    assert code == 0
    assert re.search(rf"^{re.escape(line)} +# argument$", out, re.M)


@pytest.mark.parametrize("flag", OTHER_FLAGS)
@pytest.mark.parametrize("form", ["FLAG 3", "FLAG=3", "FLAG"])
def test_a_flag_of_another_project_is_answered_with_the_right_one(gansmith, tmp_path, flag, form):
    code, out, err = gansmith("train", *form.replace("FLAG", flag).split())
    assert (code, out, len(err.splitlines())) == (2, "", 1) and list(tmp_path.iterdir()) == []
    assert err.startswith(f"gansmith: there is no {flag}") and err.rstrip("\n").endswith(OTHER_FLAGS[flag])


@pytest.mark.parametrize(
    ("words", "answer"),
    [
        (["sample", "run", "--n", "3"], "there is no --n; here it is --count"),
        (["sample", "run", "--output", "x.png"], "there is no --output; here it is --out"),
        (["sample", "run", "--psi", "0.7"], "there is no --psi; here it is --truncation"),
        (["sample", "run", "--batch", "3"], "there is no --batch; gansmith sample --help lists the flags"),
        (["diagnose", "run", "--device", "cpu"], "there is no --device; gansmith diagnose --help lists the flags"),
        (["bench", "gaussians", "--lr", "3"], "there is no --lr; gansmith bench gaussians --help lists the flags"),
        (["resume", "run", "--n-epochs", "3"], "there is no --n-epochs; here it is --epochs"),
        (["evaluate", "run", "--quik"], "there is no --quik; did you mean --quick?"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_only_flags_of_the_command_are_proposed(gansmith, words, answer):
    code, out, err = gansmith(*words)
    assert (code, out, len(err.splitlines())) == (2, "", 1) and answer in err


@pytest.mark.parametrize("count", ["10.000", "2.5", "1e-1", "x"])
@pytest.mark.parametrize(
    "words", [("sample", "run", "--count"), ("evaluate", "run", "--seed"), ("sweep", "mlp-small", "--trials")]
)
def test_numbers_that_are_not_whole_are_refused(gansmith, words, count):
    code, out, err = gansmith(*words, count)
    assert (code, out) == (2, "") and f'"{count}" is no whole number, such as 3' in err


@pytest.mark.parametrize("count", ["0.1k", "1e2", "1,000"])
def test_counts_may_be_written_as_lengths_are(gansmith, count):
    code, _, err = gansmith("sample", "nowhere", "--count", count)
    assert code == 2 and "nowhere" in err and "whole number" not in err


def test_a_home_folder_after_an_equals_sign_is_found(gansmith, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    code, _, err = gansmith("train", "mlp-small", *small(images=640), "--progress", "none", "--out=~/runs/a")
    assert code == 0, err
    code, _, err = gansmith("film", "~/runs/a", "--out=~/a.gif")
    assert code == 0, err
    assert (tmp_path / "home/a.gif").is_file() and not (tmp_path / "~").exists()
