"""Small real things that several tests share: a folder of IDX files, a short config, a finished run."""

import gzip
import inspect
import os
import re
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

# Two test processes on two cores: a second thread in either would only wait. Read when NumPy and torch are imported.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pytest
import torch

# For slow tests that need a whole data set; kept under a name that worker processes, started after this, find too.
DATA_DIR = Path(os.environ.setdefault("WHOLE_DATA_SETS", os.environ.get("GANSMITH_DATA", "no-data")))
for _name in [name for name in os.environ if name.startswith("GANSMITH_")] + ["XDG_CACHE_HOME"]:
    os.environ.pop(_name, None)
os.environ["GANSMITH_OFFLINE"] = "1"
os.environ["NO_PROXY"] = os.environ["no_proxy"] = "127.0.0.1,localhost"
_STATE = tempfile.TemporaryDirectory(prefix="gansmith-tests-")
os.environ["XDG_STATE_HOME"] = _STATE.name
os.environ["GANSMITH_CACHE"] = str(Path(_STATE.name, "cache"))  # of fixtures that outlive a test

from gansmith.cli import main  # noqa: E402
from gansmith.config import Config, resolve  # noqa: E402
from gansmith.data.embedded import embedded_mnist  # noqa: E402
from gansmith.runs import RunDirectory, create_run, open_run  # noqa: E402
from gansmith.training.inputs import TrainingData, load_training_data  # noqa: E402
from gansmith.training.loop import train_events  # noqa: E402

torch.set_num_threads(1)

_BROWSERS = ("chromium", "chromium-browser", "google-chrome")
CHROMIUM = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, _BROWSERS)), None)

# What Windows has not, or does otherwise: signals, links without a privilege, modes of files, limits of processes.
POSIX = re.compile(
    r"\bos\.(fork|mkfifo|geteuid|getuid|killpg|symlink)\b|symlink_to|\bSIG(INT|TERM|KILL|STOP)\b"
    r"|import (fcntl|pty|resource)\b|\.chmod\(|\bshell=True"
)
collect_ignore = (
    []
    if os.name == "posix"
    else [
        path.name
        for path in Path(__file__).parent.glob("test_*.py")
        if re.search("^import (pty|resource)$", path.read_text("utf-8"), re.M)
    ]
)


_FRESH: dict[str, Any] = {}  # the state of each module's RNG before its tests


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave out tests of what a system other than POSIX does not have."""
    for item in items:
        function, rng = getattr(item, "function", None), getattr(getattr(item, "module", None), "RNG", None)
        if rng is not None:
            _FRESH.setdefault(item.module.__name__, rng.bit_generator.state)
        if os.name != "posix" and function is not None and POSIX.search(inspect.getsource(function)):
            item.add_marker(pytest.mark.skip(reason="of signals, links, modes or limits of POSIX"))


@pytest.fixture(autouse=True)
def _seeded(request: pytest.FixtureRequest) -> None:
    """What a test draws without a source of its own is the same every time, whichever tests ran before."""
    torch.manual_seed(0)
    if request.module.__name__ in _FRESH:
        request.module.RNG.bit_generator.state = _FRESH[request.module.__name__]


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test sees this machine's data cache, or leaves anything in the working directory."""
    monkeypatch.setenv("GANSMITH_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)


IDX_TYPES = {"u1": 0x08, "i1": 0x09, "i2": 0x0B, "i4": 0x0C, "f4": 0x0D, "f8": 0x0E}


def write_idx(path: Path, values: np.ndarray, kind: str = "u1") -> None:
    header = bytes([0, 0, IDX_TYPES[kind], values.ndim]) + b"".join(size.to_bytes(4, "big") for size in values.shape)
    data = header + values.astype(f">{kind}").tobytes()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)


def write_set(folder: Path, images: np.ndarray, labels: np.ndarray | None, stem: str = "train") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    write_idx(folder / f"{stem}-images-idx3-ubyte.gz", images)
    if labels is not None:
        write_idx(folder / f"{stem}-labels-idx1-ubyte.gz", labels)
    return folder


@pytest.fixture(scope="session")
def digits() -> tuple[np.ndarray, np.ndarray]:
    """400 real digits (N, 28, 28) and their labels, 40 of each class, shuffled."""
    embedded = embedded_mnist()
    rows = torch.arange(0, 5000, 12)[:400]
    rows = rows[torch.randperm(400, generator=torch.Generator().manual_seed(0))]
    return embedded.pixels[rows, 0].numpy(), embedded.labels[rows].numpy()


@pytest.fixture(scope="session")
def digit_dir(tmp_path_factory: pytest.TempPathFactory, digits: tuple[np.ndarray, np.ndarray]) -> Path:
    """A folder with those digits as IDX files."""
    return write_set(tmp_path_factory.mktemp("digits"), *digits)


TINY = {
    "images": 256, "batch_size": 16, "g_width": 8, "d_width": 8, "latent_dim": 8, "clusters": 4, "threads": 1,
    "log_every": 32, "sample_every": 96, "evaluate_every": 128, "save_every": 64, "trackers": "",
    "calibrate_output": False,  # which takes as long as the rest; tests of it switch it on
}  # fmt: skip
TIMINGS = ("images_per_s", "elapsed_s")  # of a log row; they alone differ between equal runs
CHECKPOINT_FILES = ("generator.safetensors", "state.safetensors", "state.json")


def flags(**changes: object) -> list[str]:
    """The flags of a tiny run."""
    return as_flags({**TINY, **changes})


def as_flags(choices: dict[str, object]) -> list[str]:
    """The flags of these choices; a False is a switch."""
    switches = [f"--no-{name.replace('_', '-')}" for name, value in choices.items() if value is False]
    valued = {name: value for name, value in choices.items() if value is not False}
    return switches + [word for name, value in valued.items() for word in (f"--{name.replace('_', '-')}", str(value))]


def log_without_times(run: RunDirectory) -> list[dict[str, Any]]:
    return [{key: value for key, value in row.items() if key not in TIMINGS} for row in run.log]


def assert_same_run(a: RunDirectory, b: RunDirectory) -> None:
    """Logs, scores, newest checkpoints and sample grids are the same, bit for bit."""
    assert log_without_times(a) == log_without_times(b)
    assert a.metrics == b.metrics
    for file in CHECKPOINT_FILES:
        assert (a.latest() / file).read_bytes() == (b.latest() / file).read_bytes()
    frames = sorted(path.name for path in a.samples_dir.iterdir())
    assert frames == sorted(path.name for path in b.samples_dir.iterdir())
    assert all((a.samples_dir / name).read_bytes() == (b.samples_dir / name).read_bytes() for name in frames)


def train_all(run: RunDirectory, data: TrainingData, *, until: int | None = None) -> None:
    """Train to the end, or as if killed at the first log line at or past `until` images."""
    events = train_events(run, data)
    for event in events:
        if until is not None and event.kind == "log" and event.images_seen >= until:
            events.close()


@pytest.fixture
def tiny(digit_dir: Path) -> Callable[..., Config]:
    """A config of any recipe that trains in a moment."""

    def make(recipe: str = "default", **changes: object) -> Config:
        return resolve(recipe, arguments={**TINY, "data_dir": str(digit_dir), **changes})

    return make


def wait_until(is_true: Callable[[], bool], *, seconds: float = 60) -> None:
    """Wait for what another process does; fails where it does not happen in time."""
    deadline = time.monotonic() + seconds
    while not is_true():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.01)


@pytest.fixture
def subclustered() -> Config:
    """A config on the embedded digits, where there are images enough for five sub-clusters of each class."""
    few = {"g_width": 8, "d_width": 8, "latent_dim": 8, "images": 128, "trackers": "none", "threads": 1}
    return resolve("default", arguments={**few, "clusters_per_class": 5})


@pytest.fixture(scope="session")
def _trained(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Config], Path]:
    """Train a config once in a session, and give its run's directory."""
    folder, made = tmp_path_factory.mktemp("trained"), dict[str, Path]()

    def once(config: Config) -> Path:
        if repr(config) not in made:
            made[repr(config)] = folder / str(len(made))
            config_of_data, data = load_training_data(config)
            train_all(create_run(made[repr(config)], config_of_data), data)
        return made[repr(config)]

    return once


@pytest.fixture
def trained(_trained: Callable[[Config], Path], tmp_path: Path) -> Callable[[Config], RunDirectory]:
    """Give a copy of the finished run of a config, which a test may change."""
    return lambda config: open_run(shutil.copytree(_trained(config), tmp_path / "run"))


@pytest.fixture
def run_training(tmp_path: Path) -> Callable[..., RunDirectory]:
    """Train a config in a directory of its own (or a named one) and give the run."""

    def go(
        config: Config, name: str = "run", *, stop_after: int | None = None, seconds: float | None = None
    ) -> RunDirectory:
        config, data = load_training_data(config)
        run = create_run(tmp_path / name, config)
        seen = 0

        def stop() -> bool:
            nonlocal seen
            seen += 1
            return stop_after is not None and seen > stop_after

        for _ in train_events(run, data, stop=stop, deadline=seconds and time.perf_counter() + seconds):
            pass
        return run if seconds is None else open_run(run.directory)

    return go


@pytest.fixture
def gansmith(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    """Run the command line in this process; gives (exit code, stdout, stderr)."""

    def call(*words: object) -> tuple[int, str, str]:
        capsys.readouterr()
        monkeypatch.setattr("sys.argv", ["gansmith", *map(str, words)])
        with pytest.raises(SystemExit) as exit_:
            main()
        out, err = capsys.readouterr()
        return int(exit_.value.code or 0), out, err

    return call
