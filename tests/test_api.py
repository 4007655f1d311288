"""The Python API: its names, its examples, interruptions, what it leaves unchanged, choices that a program adds."""

import ast
import contextlib
import doctest
import importlib
import inspect
import itertools
import json
import math
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import threading
import types
from functools import partial
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import numpy as np
import pandas
import pytest
import torch
from conftest import assert_same_run
from PIL import Image
from process_state import assert_unchanged, state_of_this_process

import gansmith as gs
from gansmith import planning
from gansmith.benchmarks.trials import refuse_unseen
from gansmith.cli.boards import _choices
from gansmith.config import resolve
from gansmith.errors import ConfigError, DataError, NotFoundError, RunError
from gansmith.isolation import torch_defaults
from gansmith.runs import locked

SMALL: dict[str, Any] = {"g_width": 16, "d_width": 16, "threads": 1, "progress": "none"}
NAME = "runs/0001-mlp-small-mnist"
TABLES = {"DATASETS", "NETWORKS", "OBJECTIVES", "RECIPES"}


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    """A folder that holds a finished run."""
    folder = tmp_path_factory.mktemp("finished")
    gs.train("mlp-small", images=640, out=folder / "run", **SMALL)
    return folder / "run"


@pytest.fixture
def run(finished, tmp_path):
    """A finished run in the working directory, as a user's first one is."""
    shutil.copytree(finished, tmp_path / NAME)
    return gs.open_run(NAME)


@pytest.fixture(autouse=True)
def _own_tables():
    """What a test adds to a table is gone after it."""
    before = {name: dict(getattr(gs, name)) for name in TABLES}
    yield
    for name, rows in before.items():
        getattr(gs, name).clear()
        getattr(gs, name).update(rows)


@pytest.fixture(autouse=True)
def _one_thread(monkeypatch):
    monkeypatch.setenv("GANSMITH_THREADS", "1")


# Names.


def stub_names():
    tree = ast.parse(Path(gs.__file__).with_suffix(".pyi").read_text())
    imports = [node for node in tree.body if isinstance(node, ast.ImportFrom)]
    assert all(alias.name == alias.asname for node in imports for alias in node.names)
    return {alias.name: node.module for node in imports for alias in node.names}


def test_type_checkers_see_the_names_that_python_sees():
    assert stub_names() == gs._HOME
    assert list(gs._HOME) == sorted(gs._HOME)
    assert {*gs.__all__, "__version__"} == set(dir(gs))


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'trian'"):
        gs.trian  # noqa: B018


def test_importing_costs_next_to_nothing():
    code = (
        "import time, sys; before = time.process_time(); import gansmith as gs; spent = time.process_time() - before;"
        "print(spent, 'torch' in sys.modules, 'numpy' in sys.modules, len(gs.__all__) > 20)"
    )
    command = [sys.executable, "-c", code]
    found = [subprocess.run(command, capture_output=True, text=True, check=True).stdout.split() for _ in range(3)]
    assert min(float(line[0]) for line in found) < 0.05
    assert all(line[1:] == ["False", "False", "True"] for line in found)


def typed(function):
    return [
        parameter.name
        for parameter in inspect.signature(function).parameters.values()
        if parameter.name not in ("self", "cls") and parameter.annotation is inspect.Parameter.empty
    ]


@pytest.mark.parametrize("name", sorted(set(gs._HOME) - TABLES))
def test_every_public_function_is_typed(name):
    public = getattr(gs, name)
    methods = (
        [value for key, value in vars(public).items() if not key.startswith("_")] if inspect.isclass(public) else []
    )
    for function in [public, *filter(inspect.isfunction, methods)]:
        if inspect.isfunction(function):
            assert typed(function) == []
            assert inspect.signature(function).return_annotation is not inspect.Signature.empty


@pytest.mark.slow  # without a cache of earlier checks, mypy reads torch first
def test_the_typed_example_passes_a_strict_type_checker():
    command = [sys.executable, "-m", "mypy", "--strict", "tests/typing_example.py"]
    done = subprocess.run(command, cwd=Path(__file__).parents[1], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


# Examples.


LONG = ("sweep", "handin", "resume", "Objective", "Comparison")  # seconds each; other tests call them too


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow if name in LONG else ()) for name in gs._HOME]
)
def test_the_docstring_has_an_example_that_runs(name, run):
    home = importlib.import_module(gs._HOME[name])
    thing = home if name in TABLES else getattr(home, name)  # a table's is that of its module
    flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    test = doctest.DocTestParser().get_doctest(
        inspect.getdoc(thing) or "", {"gs": gs, "run": run, "np": np, "torch": torch}, name, home.__file__, 0
    )
    assert test.examples, "no example"
    said: list[str] = []
    found = doctest.DocTestRunner(optionflags=flags).run(test, out=said.append)
    assert found.failed == 0, "".join(said)


# What a call leaves as it was.


@pytest.fixture
def unusual():
    """A process whose settings are not the ones that training uses."""
    threads, random_state = torch.get_num_threads(), np.random.get_state()
    torch.set_num_threads(2)
    np.random.seed(3)
    random.seed(4)
    yield
    torch.set_num_threads(threads)
    np.random.set_state(random_state)


def close_half_way(run):
    for event in gs.train_events(
        "mlp-small", images=6400, out="closed", threads=1, g_width=16, d_width=16, log_every=64
    ):
        if event.kind == "log":
            break


CALLS = {
    "train": lambda run: gs.train("mlp-small", images=640, out="new", **SMALL),
    "train, refused": lambda run: gs.train("mlp-small", images=640, out="new", label_smoothing=7, **SMALL),
    "train, failed": lambda run: gs.train("mlp-small", images=6400, out="new", g_lr=1e30, d_lr=1e30, **SMALL),
    "train_events, closed half-way": close_half_way,
    "resume": lambda run: gs.resume(run, images=1280, progress="none"),
    "sample": lambda run: (gs.sample(run, 4, numpy_seed=504), gs.sample(run, 4)),
    "evaluate": lambda run: gs.evaluate(run, quick=True, count=500),
    "compare": lambda run: gs.compare(run, quick=True, count=500),
    "show": lambda run: run._repr_html_(),
    "film": lambda run: run.film(),
    "report": lambda run: run.report("report.html"),
    "load_data": lambda run: gs.load_data("gaussian-ring"),
}


def leave_unchanged(call, run):
    before = state_of_this_process()
    try:
        call(run)
    except (gs.GansmithError, gs.TrainingFailed):
        pass
    assert_unchanged(before)


SLOW_CALLS = ("resume", "compare")


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow if name in SLOW_CALLS else ()) for name in CALLS]
)
def test_a_call_leaves_the_process_as_it_was(name, run, unusual):
    leave_unchanged(CALLS[name], run)


FIRST_CALLS = """
import sys
sys.path.insert(0, sys.argv[1])
import process_state, gansmith as gs
before, faults = process_state.state_of_this_process(), process_state.large_array_faults()
run = gs.train("mlp-small", images=640, g_width=16, d_width=16, threads=1, progress="none", out="first")
CALLS
process_state.assert_unchanged(before)
assert process_state.large_array_faults() < 2 * faults + 3000, "the C library gives large arrays back at once"
"""


def make_first_calls(calls, folder):
    command = [sys.executable, "-c", FIRST_CALLS.replace("CALLS", calls), str(Path(__file__).parent)]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_first_exports_of_a_process_leave_it_as_it_was(tmp_path):
    make_first_calls("run.export(); run.handin()", tmp_path)


@pytest.mark.slow
def test_the_first_call_of_a_process_leaves_it_as_it_was(tmp_path):
    make_first_calls('run.evaluate(quick=True); run._repr_html_(); run.report("report.pdf"); run.film()', tmp_path)


def test_between_events_the_process_is_as_the_caller_left_it(unusual):
    before = state_of_this_process()
    events = gs.train_events("mlp-small", images=640, out="steps", threads=1, g_width=16, d_width=16)
    for _ in events:
        assert_unchanged(before)


# Interruptions.


def interrupting(number, *, at=6, times=1):
    """The non-saturating objective, which sends this process a signal in the middle of one of D's steps.

    The first call is the trial before the run begins.
    """
    plain, steps = gs.OBJECTIVES["non-saturating"], itertools.count()

    def d_loss(real, fake):
        if next(steps) == at:
            for _ in range(times):
                signal.raise_signal(number)
        return plain.d_loss(real, fake)

    return gs.Objective(d_loss, plain.g_loss)


LENGTH = {"images": 768, "log_every": 128, "save_every": 768}


@pytest.mark.slow
def test_an_interrupted_training_saves_and_returns_a_run_that_can_go_on():
    gs.OBJECTIVES["mine"] = interrupting(signal.SIGINT, times=0)
    whole = gs.train("mlp-small", objective="mine", out="whole", **LENGTH, **SMALL)
    gs.OBJECTIVES["mine"] = interrupting(signal.SIGINT)
    handler = signal.getsignal(signal.SIGINT)
    run = gs.train("mlp-small", objective="mine", out="run", **LENGTH, **SMALL)
    assert (run.status, run.images_seen) == ("stopped", 6 * 64)
    assert "continue from 384 images" in repr(run.diagnose())
    assert signal.getsignal(signal.SIGINT) is handler
    assert gs.resume(run, progress="none").status == "finished"
    assert_same_run(run, whole)


def test_a_second_interrupt_quits_at_once():
    gs.OBJECTIVES["mine"] = interrupting(signal.SIGINT, times=2)
    with pytest.raises(KeyboardInterrupt):
        gs.train("mlp-small", objective="mine", out="run", **LENGTH, **SMALL)
    assert gs.open_run("run").status == "stopped"


def test_a_request_to_end_is_passed_on_once_all_is_saved(monkeypatch):
    seen = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: seen.append(gs.open_run("run").images_seen))
    try:
        gs.OBJECTIVES["mine"] = interrupting(signal.SIGTERM)
        run = gs.train("mlp-small", objective="mine", out="run", **LENGTH, **SMALL)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert (seen, run.status) == ([384], "stopped")


def test_an_interrupt_of_the_last_pictures_returns_the_run(monkeypatch):
    plain = gs.api.sample_model

    def interrupted(*values, **choices):
        signal.raise_signal(signal.SIGINT)
        return plain(*values, **choices)

    monkeypatch.setattr(gs.api, "sample_model", interrupted)
    run = gs.train("mlp-small", out="run", **LENGTH, **SMALL)
    assert (
        run.status == "finished" and (run.directory / "grid.png").is_file() and (run.directory / "loss.png").is_file()
    )


def test_what_is_set_during_a_training_in_another_thread_stays(monkeypatch):
    """In a step, which is nearly all of the time."""
    plain = gs.OBJECTIVES["non-saturating"]

    def d_loss(real, fake):
        os.environ["SET_BY_THE_USER"] = "x"
        return plain.d_loss(real, fake)

    gs.OBJECTIVES["mine"] = gs.Objective(d_loss, plain.g_loss)
    monkeypatch.setenv("SET_BY_THE_USER", "")
    gs.train("mlp-small", objective="mine", out="run", **LENGTH, **SMALL)
    assert os.environ["SET_BY_THE_USER"] == "x"


def test_calls_that_overlap_in_threads_leave_the_default_dtype():
    torch.set_default_dtype(torch.float64)
    try:
        first, second = torch_defaults(), torch_defaults()
        first.__enter__()
        second.__enter__()
        first.__exit__(None, None, None)
        assert torch.get_default_dtype() == torch.float32  # the second still computes
        second.__exit__(None, None, None)
        assert torch.get_default_dtype() == torch.float64
    finally:
        torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize(
    "call",
    [
        lambda run, labels: gs.sample(run, labels=labels),
        lambda run, labels: gs.load(run).sample(labels=labels),
        lambda run, labels: gs.load(run).inputs(4, labels=labels),
        lambda run, labels: gs.invert(run, np.zeros((28, 28), np.uint8), labels=labels),
        lambda run, labels: gs.directions(run, label=labels[0] if labels else "none"),
        lambda run, labels: gs.walk(run, seeds=[0, 1], label=labels[0] if labels else "none"),
    ],
    ids=["sample", "Model.sample", "inputs", "invert", "directions", "walk"],
)
def test_no_call_takes_minus_one_or_nothing_for_any_label(call, run_training, tiny):
    run = run_training(tiny("cgan-keras"))
    with pytest.raises(gs.GansmithError, match="there is no label -1; this generator knows 0 to 9"):
        call(run, [-1])
    with pytest.raises(gs.GansmithError, match="none"):
        call(run, [])


def test_interrupted_events_end_in_a_keyboard_interrupt_once_all_is_saved():
    gs.OBJECTIVES["mine"] = interrupting(signal.SIGINT)
    kinds = []
    with pytest.raises(KeyboardInterrupt):
        for event in gs.train_events("mlp-small", objective="mine", out="run", g_width=16, d_width=16, **LENGTH):
            kinds.append(event.kind)
    run = gs.open_run("run")
    assert kinds[-1] == "checkpoint"
    assert (run.status, run.images_seen) == ("stopped", 384)


def test_leaving_the_loop_of_events_stops_and_saves_the_run(run):
    close_half_way(run)
    closed = gs.open_run("closed")
    assert (closed.status, closed.images_seen) == ("stopped", 128)
    with locked(closed.directory):  # which no iterator holds
        pass
    assert gs.resume(closed, images=640, progress="none").status == "finished"


def test_events_that_nobody_takes_train_nothing():
    events = gs.train_events("mlp-small", images=640, out="run", g_width=16, d_width=16)
    assert next(events).kind == "start"
    events.close()
    assert gs.open_run("run").images_seen == 0


@pytest.mark.slow
def test_training_works_outside_the_main_thread():
    runs = []
    thread = threading.Thread(target=lambda: runs.append(gs.train("mlp-small", images=640, out="run", **SMALL)))
    thread.start()
    thread.join()
    assert runs[0].status == "finished"


# Mistakes.


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: gs.train("mlp-small", images=640, minutes=1), ConfigError, "minutes and images each set the length"),
        (lambda: gs.train("mlp-small", learning_rate=1), ConfigError, "here it is g_lr and d_lr"),
        (lambda: gs.train("mlp-small", images=640, progress="loud"), ConfigError, "progress is 'loud'"),
        (lambda: gs.load_data("mnits"), ConfigError, "did you mean 'mnist'"),
        (lambda: gs.load("nowhere.safetensors"), NotFoundError, "there is no file or run"),
        (lambda: gs.resume("nowhere"), NotFoundError, "holds no run"),
        (lambda: gs.compare(), ConfigError, "nothing to compare"),
        (lambda: gs.compare(["a", "b"]), ConfigError, "is neither a run nor a path"),
        (lambda: gs.train(gs.Config()), ConfigError, "recipe is of type Config; give the name of one"),
        (lambda: gs.train("mlp-small", minutes="3"), ConfigError, "minutes is '3'; it must be a number"),
        (
            lambda: next(gs.train_events("mlp-small", progress="none")),
            ConfigError,
            r"there is no field 'progress'; see",
        ),
        (lambda: gs.Images(np.zeros((2, 4, 4))), DataError, "give uint8"),
    ],
)
def test_a_mistake_is_one_sentence_and_writes_nothing(call, error, message, tmp_path):
    with pytest.raises(error, match=message) as raised:
        call()
    assert "\n" not in str(raised.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda run: run.sample(0), "count is 0"),
        (lambda run: run.sample(labels=[3]), "takes no labels"),
        (lambda run: run.sample(labels=3), "takes no labels"),
        (lambda run: run.sample(labels=[2.7]), "a label is 2.7; it must be a whole number"),
        (lambda run: run.sample(2, seed=7.0), "seed is 7.0; it must be a whole number"),
        (lambda run: run.sample(2, seed=7, numpy_seed=1), "seed and numpy_seed .* give one of them"),
        (lambda run: run.sample(3, latents=np.zeros((2, 100))), "count is 3, and there are 2 latents"),
        (lambda run: run.sample(2).save("two.jpg"), "two.jpg names a file of another kind"),
        (lambda run: run.sample(2).save("nowhere/two.png"), "there is no folder"),
        (lambda run: run.export(["onnx"]), "there is no format .* did you mean 'onnx'"),
        (lambda run: gs.evaluate(run.sample(2)), "Samples is neither a run nor a path"),
        (lambda run: run.sample(numpy_seed=1, latents=np.zeros((2, 100))), "give one of them"),
        (lambda run: run.sample(latents=np.zeros((2, 3))), "give finite numbers of shape"),
        (lambda run: run.report("nowhere/report.pdf"), "there is no folder"),
        (lambda run: run.report("report.txt"), "does not end in one of"),
        (lambda run: run.film("film.jpg"), "does not end in one of"),
        (lambda run: run.film(frame_ms=1), "frame_ms is 1"),
        (lambda run: run.handin("submission.tar"), "does not end in .zip"),
        (lambda run: run.export("tflite"), "there is no format"),
    ],
)
def test_a_mistake_with_a_run_is_one_sentence(run, call, message):
    with pytest.raises(gs.GansmithError, match=message) as raised:
        call(run)
    assert "\n" not in str(raised.value)


# Runs, samples, models.


def test_a_grid_saved_among_pictures_is_no_picture_of_the_set(run):
    samples = run.sample(6)
    samples.save("pictures")
    samples.save("pictures/grid.png")
    assert Path("pictures/grid.png").is_file() and len(gs.load_data("./pictures")) == 6


def test_records_become_tables(run):
    log, metrics = pandas.DataFrame(run.log), pandas.DataFrame(run.metrics)
    assert {"images_seen", "d_loss", "g_loss"} <= set(log.columns)
    assert log["images_seen"].is_monotonic_increasing and log["images_seen"].iloc[-1] == 640
    assert metrics["validation_fd_ratio"].iloc[-1] > 1


def test_a_run_shows_itself(run):
    shown = run._repr_html_()
    assert shown.count("<img") == 2 and "FD ratio" in shown and "<table" not in shown
    run.evaluate(quick=True)
    assert "<td>coverage</td>" in run._repr_html_()
    assert "FD ratio" in repr(run) and "validation" not in repr(run)


def test_a_run_without_a_checkpoint_shows_itself():
    run = gs.open_run(next(gs.train_events("mlp-small", images=640, out="run")).directory)
    assert repr(run) == "<Run run: stopped, 0 images>"
    assert "<img" not in run._repr_html_()


def test_samples_can_be_had_in_every_way(run):
    assert len(run.sample()) == 25
    assert (run.sample(4, seed=7).images[:2] == run.sample(2, seed=7).images).all()
    assert (run.sample(4, seed=7).images != run.sample(4, seed=8).images).any()
    z = np.random.RandomState(504).normal(size=(3, 100))
    assert (run.sample(latents=torch.from_numpy(z)).images == run.sample(3, numpy_seed=504).images).all()
    assert run.sample(2).images.dtype == np.uint8 and run.sample(2).labels.tolist() == [-1, -1]
    assert run.sample(2)._repr_png_().startswith(b"\x89PNG")


def test_labels_may_be_an_array(run_training, tiny):
    run = gs.open_run(run_training(tiny("mlp-small", conditioning="labels")).directory)
    assert run.sample(labels=np.array([2, 0, 2, 4]), seed=7).labels.tolist() == [2, 0, 2, 4]


def test_truncation_leaves_the_model_untouched(run_training, tiny):
    model = gs.load(run_training(tiny("stylegan-lite", batch_size=8, images=64)).directory)
    before = gs.sample(model, 4).images
    assert (gs.sample(model, 4, truncation=0.1).images != before).any()
    assert (gs.sample(model, 4).images == before).all()


def test_a_generator_file_is_a_plain_module(run):
    shutil.copy(run.latest() / "generator.safetensors", "generator.safetensors")
    G = gs.load("generator.safetensors")
    assert isinstance(G.network, torch.nn.Module)
    images = G.network(torch.randn(2, G.config.latent_dim), torch.zeros(2, dtype=torch.int64))
    assert images.shape == (2, 1, 28, 28) and images.abs().max() <= 1
    assert (G.sample(4, seed=7).images == run.sample(4, seed=7).images).all()


# Images in memory.


LAYOUTS = {
    "NumPy NHW": lambda pixels: pixels,
    "NumPy NHWC": lambda pixels: pixels[..., None],
    "NumPy NCHW": lambda pixels: pixels[:, None],
    "torch NHW": lambda pixels: torch.from_numpy(pixels),
    "torch NHWC": lambda pixels: torch.from_numpy(pixels)[..., None],
    "torch NCHW": lambda pixels: torch.from_numpy(pixels)[:, None],
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_arrays_of_every_layout_are_the_same_images(layout, digits):
    pixels, labels = digits
    images = gs.Images(LAYOUTS[layout](pixels), labels)
    assert images.sha256 == gs.Images(pixels, labels.tolist()).sha256
    assert images.pixels.shape == (400, 1, 28, 28)
    assert repr(images) == "<Images images: 400 of 28 x 28 x 1, 10 classes, from arrays in memory>"
    assert images._repr_png_().startswith(b"\x89PNG")


@pytest.mark.slow
def test_a_run_that_was_planned_by_minutes_goes_on_for_less_than_half_of_its_plan(tiny, run_training):
    run = run_training(tiny("mlp-small", images=256, planned_images=400), "run")
    for minutes in (1e-4, 1e-9):  # over before anything was loaded
        before = run.images_seen
        assert gs.resume(run.directory, minutes=minutes, progress="none").images_seen > before


@pytest.mark.slow
def test_going_on_beyond_a_decay_says_what_learning_rates_do(tiny, run_training):
    for recipe, choices, said in (
        ("default", {}, "beyond that they begin again at 0.4 of those at first and fall in a line to 0 after 320"),
        (
            "default",
            {"lr_decay": "step", "lr_decay_from": 0.5, "lr_decay_factor": 0.5},
            "stay at 0.5 of those at first",
        ),
        ("mlp-small", {}, ""),
    ):
        run = run_training(tiny(recipe, images=256, batch_size=8, **choices), f"{recipe}-{len(choices)}")
        for images, expected in ((256, ""), (320, said)):
            notices = [words for words in planning.plan_resume(run, images=images).notices if "learning rates" in words]
            assert len(notices) == bool(expected) and expected in "".join(notices)


@pytest.mark.slow
def test_a_run_on_images_in_memory_resumes_with_them_alone(digits):
    images = gs.Images(*digits)
    options = {**SMALL, "images": 640, "save_every": 320, "label_smoothing": 0.1, "seed": 1}
    run = gs.train("mlp-small", data=images, out="run", **options)
    assert run.config.data == "images" and run.config.label_smoothing == 0.1
    assert gs.resume(run, images=960, progress="none").images_seen == 960
    opened = gs.open_run("run")
    assert "data 'images' is not defined here" in repr(opened) and "not defined" not in repr(run)
    with pytest.raises(ConfigError, match=r"give the same images as data=") as raised:
        gs.resume("run", progress="none")
    assert "\n" not in str(raised.value)
    assert gs.resume("run", data=images, images=1280, progress="none").status == "finished"
    with pytest.raises(RunError, match="was trained on data with SHA-256"):
        gs.resume("run", data=gs.Images(digits[0][::-1].copy()), images=1600, progress="none")


@pytest.mark.slow
def test_a_run_on_images_in_memory_is_evaluated_on_them(digits):
    images = gs.Images(digits[0])  # with labels, an evaluator would be trained on them
    run = gs.train("mlp-small", data=images, images=640, out="run", **SMALL)
    verdict = run.evaluate(quick=True, count=100)
    assert verdict["data"] == "images" and run.verdict["data"] == "images"
    other = gs.train("mlp-small", data=images, images=640, seed=1, out="other", **SMALL)
    assert len(gs.compare(run, other, quick=True, count=100)) == 1  # a repeat with another seed
    with pytest.raises(ConfigError, match="give the same images as data="):
        gs.evaluate("run", quick=True)


@pytest.mark.slow
def test_a_named_data_set_in_memory_is_the_data_set():
    images = gs.load_data("gaussian-ring")
    assert gs.train("gaussians", data=images, images=640, out="run", **SMALL).config.data == "gaussian-ring"
    assert gs.resume("run", images=704, progress="none").images_seen == 704


@pytest.mark.slow
def test_a_run_on_images_in_memory_makes_every_file(digits):
    run = gs.train("mlp-small", data=gs.Images(*digits), images=640, out="run", **SMALL)
    assert run.report("report.html").is_file() and run.film("film.gif").is_file()
    assert gs.open_run("run").report("report.html").is_file()
    assert run.export("safetensors").is_dir()
    with pytest.raises(ConfigError, match="give the same images as data="):
        gs.handin("run")


@pytest.mark.slow
def test_a_run_on_images_in_memory_is_handed_in(digits):
    run = gs.train("mlp-small", data=gs.Images(*digits), images=640, out="run", **SMALL)
    with ZipFile(run.handin()) as bundle:
        assert {"generator.h5", "train.py", "data.npz", "report.pdf"} <= set(bundle.namelist())


# Choices that a program adds.

PROGRAM = """
import gansmith as gs, torch

def d_loss(real, fake):
    return (real - 1).square().mean() + fake.square().mean()

def g_loss(real, fake):
    return (fake - 1).square().mean()

def build(spec, config):
    return gs.NETWORKS["mlp"](spec, config)

gs.OBJECTIVES["mine"] = gs.Objective(d_loss, g_loss)
gs.NETWORKS["own"] = build
gs.RECIPES["house"] = dict(gs.RECIPES["mlp-small"], g_width=16, d_width=16, threads=1)
options = dict(images=640, progress="none")
gs.train("house", objective="mine", out="objective", **options)
gs.train("house", network="own", out="network", **options)
print(gs.open_run("objective"))
"""


@pytest.fixture(scope="session")
def of_another_program(tmp_path_factory):
    """Runs of a program that defined an objective, a network and a recipe of its own, and what it printed."""
    folder = tmp_path_factory.mktemp("program")
    done = subprocess.run([sys.executable, "-c", PROGRAM], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder, done.stdout


def test_a_program_may_train_with_its_own_objective_network_and_recipe(of_another_program):
    folder, said = of_another_program
    assert "finished" in said and "not defined" not in said
    facts = {name: json.loads((folder / name / "run.json").read_text()) for name in ("objective", "network")}
    assert facts["objective"]["custom"] == {"recipe": "house", "objective": "mine"}
    assert facts["network"]["custom"] == {"recipe": "house", "network": "own"}


def test_a_run_of_another_programs_objective_samples_and_says_so(of_another_program):
    run = gs.open_run(of_another_program[0] / "objective")
    note = "objective 'mine' is not defined here"
    assert note in repr(run) and f"note: {note}" in repr(run.diagnose())
    assert "objective &#x27;mine&#x27; is not defined here" in run._repr_html_()
    assert len(run.sample(4)) == 4
    assert run.evaluate(quick=True, count=200)["n"] == 200


def test_a_run_of_another_programs_network_says_how_to_define_it(of_another_program):
    run = gs.open_run(of_another_program[0] / "network")
    assert "network 'own' is not defined here" in repr(run)
    assert run._repr_html_().count("<img") == 2  # the newest grid of training, and the curves
    with pytest.raises(NotFoundError, match=r"NETWORKS\['own'\] = build_networks") as raised:
        run.sample(4)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("name", "remedy"),
    [("objective", r"OBJECTIVES\['mine'\] = gansmith.Objective"), ("network", r"NETWORKS\['own'\] =")],
)
def test_resuming_with_what_another_program_defined_is_refused(of_another_program, name, remedy):
    with pytest.raises(ConfigError, match=remedy) as raised:
        gs.resume(of_another_program[0] / name, images=1280, progress="none")
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("make", [gs.report, gs.handin])
def test_a_report_of_another_programs_objective_is_refused(of_another_program, make):
    with pytest.raises(ConfigError, match=r"OBJECTIVES\['mine'\] = gansmith.Objective"):
        make(of_another_program[0] / "objective")


class Generator(torch.nn.Module):
    """One layer; `shape` is that of each image."""

    def __init__(self, shape):
        super().__init__()
        self.shape, self.layer = shape, torch.nn.Linear(16, math.prod(shape))

    def forward(self, z, y):
        return torch.tanh(self.layer(z)).reshape(len(z), *self.shape)


class Discriminator(torch.nn.Module):
    def __init__(self, shape):
        super().__init__()
        self.shape, self.layer = shape, torch.nn.Linear(784, 1)

    def forward(self, images, y):
        return self.layer(images.flatten(1)).reshape(len(images), *self.shape)


@pytest.mark.parametrize(
    ("g_shape", "d_shape", "found"),
    [
        ((1, 28, 28), (), None),
        ((784,), (), r"G\(z, y\) is \(2, 784\) for a batch of two; it must be \(2, 1, 28, 28\)"),
        ((1, 28, 28), (1,), r"D\(images, y\) is \(2, 1\) for a batch of two; it must be \(2,\)"),
    ],
)
def test_networks_of_ones_own_are_tried_before_anything_is_written(monkeypatch, g_shape, d_shape, found):
    monkeypatch.setitem(gs.NETWORKS, "own", lambda spec, config: (Generator(g_shape), Discriminator(d_shape)))
    train = partial(
        gs.train, "mlp-small", network="own", latent_dim=16, out="own", images=640, threads=1, progress="none"
    )
    if found is None:
        assert train().config.network == "own"
        return
    with pytest.raises(ConfigError, match=found):
        train()
    assert not Path("own").exists()


def test_an_objective_of_ones_own_that_is_none_is_refused(monkeypatch):
    monkeypatch.setitem(gs.OBJECTIVES, "own", (abs, abs))
    with pytest.raises(ConfigError, match=r"OBJECTIVES\['own'\] is .*; it must be an Objective"):
        gs.train("mlp-small", objective="own", out="own", images=640, **SMALL)
    assert not Path("own").exists()


@pytest.mark.slow
def test_a_replaced_objective_is_said_where_it_is_not_the_same(monkeypatch):
    plain = gs.OBJECTIVES["hinge"]
    with monkeypatch.context() as changed:
        changed.setitem(gs.OBJECTIVES, "hinge", gs.Objective(plain.d_loss, plain.g_loss))
        gs.train("mlp-small", objective="hinge", out="own", images=640, **SMALL)
        assert "not defined" not in repr(gs.open_run("own"))
    assert "objective 'hinge' is not defined here" in repr(gs.open_run("own"))
    with pytest.raises(ConfigError, match="objective 'hinge' of another program"):
        gs.resume("own", images=1280, progress="none")


@pytest.mark.slow
def test_resuming_works_once_it_is_defined_again(of_another_program, tmp_path):
    shutil.copytree(of_another_program[0] / "objective", tmp_path / "objective")
    plain = gs.OBJECTIVES["least-squares"]
    gs.OBJECTIVES["mine"] = gs.Objective(
        lambda real, fake: 2 * plain.d_loss(real, fake), lambda real, fake: 2 * plain.g_loss(real, fake)
    )
    assert gs.resume("objective", images=1280, progress="none").status == "finished"


# Hand-ins.


def test_a_hand_in_of_a_run_with_labels_is_written_with_a_warning(run_training, tiny, monkeypatch, caplog):
    asked = []

    def write_bundle(runs, out, *, allow_labels, **others):
        asked.append(allow_labels)
        return ["class 3 does not occur in the grid"]

    monkeypatch.setattr("gansmith.coursework.write_bundle", write_bundle)
    run = gs.open_run(run_training(tiny("mlp-small", conditioning="labels")).directory)
    assert run.handin() == Path("submission.zip")
    assert [record.name for record in caplog.records] == ["gansmith", "gansmith"]
    assert "was trained with labels" in caplog.text and "class 3 does not occur" in caplog.text
    caplog.clear()
    run.handin(allow_labels=True)
    assert "labels" not in caplog.text
    run.handin(allow_labels=False)
    assert asked == [True, True, False]


def test_every_public_name_is_no_module():
    modules = {name for name, value in vars(gs).items() if isinstance(value, types.ModuleType)}
    assert modules.isdisjoint(gs.__all__)


def test_a_run_goes_on_with_its_own_data_alone_and_no_shorter_than_it_is(digit_dir, tmp_path):
    run = gs.train("mlp-small", data=digit_dir, out="own", images=256, **SMALL)
    moved = digit_dir.rename(tmp_path / digit_dir.name)
    try:
        for data, words in (("fashion-mnist", "not on fashion-mnist"), (str(tmp_path / "none"), "not on ")):
            with pytest.raises(RunError, match=words):
                gs.resume(run, data=data, images=512, progress="none")
        with pytest.raises(ConfigError, match="has seen 256 already; give more"):
            gs.resume(run, data=moved, images=100, progress="none")
        with pytest.raises(NotFoundError, match=r"were at .*, which is not there; .*gansmith resume .* --data PATH"):
            gs.resume(run, images=320, progress="none")
        assert gs.resume(run, data=moved, images=320, progress="none").images_seen == 320
        named = gs.train("mlp-small", data_dir=moved, out="named", images=64, **SMALL)
        elsewhere = moved.rename(tmp_path / "elsewhere")
        assert gs.resume(named, data=elsewhere, images=128, progress="none").images_seen == 128
        moved = elsewhere
    finally:
        moved.rename(digit_dir)


def test_an_empty_file_of_choices_is_read_from_the_newest_checkpoint(digit_dir):
    run = gs.train("mlp-small", data=digit_dir, out="own", images=256, **SMALL)
    (run.directory / "config.toml").write_text("")
    assert gs.open_run("own").config.replace(data_dir=run.config.data_dir) == run.config  # a checkpoint has no path


def test_a_model_shows_itself_and_gives_the_inputs_of_its_images(digit_dir):
    run = gs.train(
        "mlp-small", data=digit_dir, out="own", images=64, conditioning="labels", clusters_per_class=1, **SMALL
    )
    model = gs.load(run)
    z, y = model.inputs(4, seed=3, labels=[7, 1])
    assert model.conditioning.label_of(y).tolist() == [7, 1, 7, 1]
    with torch.no_grad():
        images = gs.data.images.to_uint8(model.network(z, y))
    assert np.abs(images[:, 0].numpy().astype(int) - model.sample(4, seed=3, labels=[7, 1]).images[..., 0]).max() <= 1
    assert repr(model) == f"<Model: 28 x 28 x 1, 10 classes, latents of {run.config.latent_dim}>"
    assert model._repr_png_().startswith(b"\x89PNG")
    with pytest.raises(ConfigError, match=r"start_from is <Model: .*; it must be"):
        gs.train("mlp-small", data=digit_dir, start_from=model, images=64, **SMALL)


@pytest.mark.slow
def test_a_run_says_its_newest_score():
    run = gs.train("mlp-small", out="newest", images=256, evaluate_every=256, **SMALL)
    run.evaluate(quick=True)
    assert ", FD ratio " in repr(run) and "gates failed" in repr(run) and "after 256 images" in run._repr_html_()
    longer = gs.resume(run, images=512, progress="none")
    assert "validation FD ratio" in repr(longer)


@pytest.mark.parametrize(
    ("loss", "found"),
    [
        (lambda real, fake: (real - 1) ** 2, r"is shape \(64,\)"),
        (lambda real, fake: 1.0, "is float"),
        (lambda real, fake: real.mean().detach(), "does not depend on the logits"),
    ],
)
def test_losses_of_ones_own_are_tried_before_anything_is_written(loss, found, monkeypatch):
    monkeypatch.setitem(gs.OBJECTIVES, "mine", gs.Objective(loss, loss))
    with pytest.raises(ConfigError, match=found):
        gs.train("mlp-small", objective="mine", out="tried", images=128, **SMALL)
    assert not Path("tried").exists()


def test_a_bug_in_a_loss_is_recorded_as_a_failure(monkeypatch):
    calls = itertools.count()
    plain = gs.OBJECTIVES["non-saturating"]
    broken = gs.Objective(lambda real, fake: 1 / 0 if next(calls) == 3 else plain.d_loss(real, fake), plain.g_loss)
    monkeypatch.setitem(gs.OBJECTIVES, "broken", broken)
    with pytest.raises(ZeroDivisionError):
        gs.train("mlp-small", objective="broken", out="broken", images=640, **SMALL)
    found = gs.diagnose("broken")
    assert found["status"] == "failed" and "ZeroDivisionError" in found["reason"]


def test_training_does_not_depend_on_what_the_caller_has_set(digit_dir):
    logs = []
    for name, around in (("a", contextlib.nullcontext()), ("b", torch.no_grad()), ("c", torch.inference_mode())):
        with around:
            logs.append(gs.train("mlp-small", data=digit_dir, out=name, images=128, **SMALL).log)
    torch.set_default_dtype(torch.float64)
    try:
        logs.append(gs.train("mlp-small", data=digit_dir, out="d", images=128, **SMALL).log)
        assert torch.get_default_dtype() == torch.float64
    finally:
        torch.set_default_dtype(torch.float32)
    assert all([row["d_loss"] for row in log] == [row["d_loss"] for row in logs[0]] for log in logs)


@pytest.mark.parametrize(
    ("call", "why"),
    [
        (lambda run: gs.evaluate(run, count="a"), "count is 'a'; it must be a whole number"),
        (lambda run: gs.evaluate(run, count=-5), "count is -5; it must be between 1 and"),
        (lambda run: run.evaluate(count=0), "count is 0; it must be between 1 and"),
        (lambda run: gs.evaluate(run, seed=1.5), "seed is 1.5; it must be a whole number"),
        (lambda run: gs.evaluate(run, device="x"), "device is 'x'; it must be auto, cpu, cuda"),
        (lambda run: gs.train(np.zeros((4, 8, 8), np.uint8)), "recipe is of type ndarray; give the name of one, and"),
        (lambda run: gs.grade("nowhere", jobs="a"), "jobs is 'a'; it must be between 0 and 256"),
        (lambda run: gs.course(5), "out is 5; it must be a path"),
        (lambda run: gs.compare(run, count=2.5), "count is 2.5; it must be a whole number"),
        (lambda run: gs.sweep("mlp-small", search="g_lr", trials="5"), "trials is '5'; it must be between 1 and"),
        (lambda run: gs.sweep("mlp-small", search="g_lr", workers="2"), "workers is '2'; it must be between 1 and"),
        (lambda run: run.sample(latents=np.ones((2, 100)) * 1j), "latents are no array of numbers (they are complex)"),
        (lambda run: run.sample(latents=[[np.nan] * 100]), "latents hold numbers that are not finite"),
        (lambda run: gs.directions(run, 2).move(np.zeros((1, 100)), 1.0), "steps are 1.0; give a number for each of 2"),
        (lambda run: gs.directions(run, 2).move(None, [1.0]), "latents are None; give numbers"),
        (
            lambda run: gs.directions(run, 2).move(np.zeros((1, 100)), [np.nan]),
            "steps hold numbers that are not finite",
        ),
        (lambda run: gs.load(run, device="cpu:0"), "device is 'cpu:0'; it must be auto, cpu, cuda"),
    ],
)
def test_a_number_that_makes_no_sense_is_refused_before_anything_is_done(run, call, why):
    before = run.metrics_path.read_bytes()
    with pytest.raises(ConfigError, match=re.escape(why)):
        call(run)
    assert run.metrics_path.read_bytes() == before


def test_other_kinds_of_the_same_numbers_are_taken(run):
    assert gs.load(run, device=torch.device("cpu")).spec.size == 28
    z = torch.randn(2, 100, generator=torch.Generator().manual_seed(0))
    moved = gs.directions(run, 2).move(z, torch.tensor([1.0, 2.0]))
    assert moved.shape == (2, 100) and not torch.equal(moved, z)
    samples = run.sample(latents=z.bfloat16())
    assert np.array_equal(samples.images, run.sample(latents=z.bfloat16().float().requires_grad_()).images)
    assert gs.walk(run, seeds=(k for k in range(2)), steps=2).is_file()
    verdict = gs.evaluate(run, quick=True, count=np.int64(20), seed=np.arange(2)[1])
    assert (verdict["count"], verdict["seed"]) == (20, 1) and str(run.directory) in run.verdict.origin()


def test_results_can_be_compared_and_searched_for(run):
    one, other = run.sample(2), run.sample(2)
    data = gs.load_data(one.images)
    assert one != other and one in [other, one] and len({one, other, data}) == 3
    assert repr(gs.directions(run, 6)).startswith("<Directions: 6 of 100, with ")


def test_a_default_device_of_the_caller_changes_nothing(run):
    code = (
        "import torch, numpy as np; torch.set_default_device('meta'); import gansmith as gs\n"
        "pixels = np.random.default_rng(0).integers(0, 256, (60, 8, 8), np.uint8)\n"
        "run = gs.train('mlp-small', data=pixels, images=128, out='r', progress='none', g_width=8, d_width=8)\n"
        "samples = run.sample(2); samples.save('q.png'); samples._repr_png_(); run._repr_html_()\n"
        "gs.load_data(pixels)._repr_png_(); run.invert(pixels[0])._repr_png_(); print(run.status)"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert ran.stdout == "finished\n", ran.stderr[-800:]


def test_a_run_whose_directory_is_gone_says_so(run, tmp_path):
    moved = gs.open_run(shutil.copytree(run.directory, tmp_path / "moved"))
    shutil.rmtree(moved.directory)
    assert "its directory is not there" in repr(moved) and "its directory is not there" in moved._repr_html_()
    with pytest.raises(NotFoundError, match="there is no run .* any more"):
        moved.diagnose()


def test_leaving_at_the_first_event_is_a_stop(digit_dir):
    for event in gs.train_events("mlp-small", data=str(digit_dir), images=640, out="left", g_width=8, threads=1):
        assert event.images_seen == 0
        break
    assert gs.open_run("left").status == "stopped"
    run = gs.resume("left", progress="none")
    assert run.images_seen == 640
    assert next(iter(gs.train_events("mlp-small", data=str(digit_dir), images=640, out="left", g_width=8, threads=1)))


# A run that goes on, as it was.


def test_the_same_command_without_a_length_keeps_that_of_the_run(run):
    again = gs.train("mlp-small", out=run.directory, **SMALL)
    assert again.config.images == 640 and again.images_seen == run.images_seen


def test_a_run_without_checkpoints_is_not_begun_again_over_its_log(run):
    shutil.rmtree(run.directory / "checkpoints")
    log = (run.directory / "log.jsonl").read_bytes()
    for go_on in (partial(gs.resume, run), partial(gs.train, "mlp-small", images=640, out=run.directory, **SMALL)):
        with pytest.raises(RunError, match="no checkpoint left to go on from"):
            go_on()
    assert (run.directory / "log.jsonl").read_bytes() == log


def test_a_run_that_early_stopping_ended_says_how_to_go_on():
    choices = {**SMALL, "evaluate_every": 64, "early_stopping": 1, "g_lr": 1e-9}
    run = gs.train("mlp-small", images=6_400, out="run", **choices)
    assert run.images_seen < 6_400
    with pytest.raises(ConfigError, match="early stopping has ended run.* --early-stopping 0"):
        gs.resume("run", images=12_800, progress="none")
    assert any("--early-stopping 0 trains it longer" in notice for notice in planning.plan_resume("run").notices)
    assert gs.train("mlp-small", images=6_400, out="run", **{**choices, "early_stopping": 0}).images_seen == 6_400


def test_a_run_that_had_stalled_at_its_very_end_is_not_extended_in_vain():
    gs.train("mlp-small", images=640, out="run", **{**SMALL, "evaluate_every": 320, "g_lr": 1e-9, "early_stopping": 1})
    with pytest.raises(ConfigError, match="early stopping has ended run"):
        gs.resume("run", images=1_280, progress="none")


def test_a_folder_here_that_a_file_names_is_found_again(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("faces").mkdir()
    for k in range(64):
        Image.fromarray(np.random.default_rng(k).integers(0, 255, (16, 16), np.uint8)).save(f"faces/{k}.png")
    Path("recipe.toml").write_text('recipe = "mlp-small"\ndata = "faces"\n')
    planned = planning.plan_training(images=64, out="run", file=Path("recipe.toml"))
    assert (planned.run.config.data, planned.run.config.data_dir) == ("faces", "./faces")
    assert planning.plan_resume("run", images=128).run.config.images == 128
    refuse_unseen(resolve(file="recipe.toml"))
    assert _choices("faces", None) == {"data": "./faces"}
    text = (planned.run.directory / "config.toml").read_text()
    older = text.replace('data_dir = "./faces"', 'data_dir = ""')  # as it was written once
    assert older != text
    (planned.run.directory / "config.toml").write_text(older)
    with pytest.raises(ConfigError, match="of another program"):
        planning.plan_resume("run")
    assert planning.plan_resume("run", data="faces").run.config.data_dir == "./faces"


def test_intervals_that_were_measured_stay_with_the_run():
    begun = resolve("default").replace(images=6_400, evaluate_every=777, sample_every=333)
    assert "sample_every" not in begun.origins
    again = planning._as_begun(resolve("default"), begun, has_length=False)
    assert (again.evaluate_every, again.sample_every, again.images) == (777, 333, 6_400)
    asked = planning._as_begun(resolve("default", arguments={"sample_every": 64}), begun, has_length=False)
    assert (asked.evaluate_every, asked.sample_every) == (777, 64)


def test_data_in_a_folder_given_beside_its_name_is_not_looked_for_here(tmp_path):
    (tmp_path / "faces").mkdir()
    given = planning.as_arguments("faces", None, {"data_dir": str(tmp_path / "faces")})
    assert given["data"] == "faces" and planning.as_arguments("faces", None, {})["data"] == "./faces"


def test_a_run_whose_config_is_gone_is_still_evaluated_as_a_run(run):
    (run.directory / "config.toml").unlink()
    verdict = gs.evaluate(run.directory, quick=True, count=100)
    assert verdict["images_seen"] == 640
