"""The run directory: the only interface between training and everything after it.

    config.toml  run.json  log.jsonl  metrics.jsonl  real.png  samples/  loss.png
    checkpoints/000128000/  generator.safetensors  state.safetensors  state.json
    best -> checkpoints/000128000

Whatever must not be half-written goes to a temporary name first, is flushed to disk, then renamed. Nothing is
pickled. A checkpoint holds no path and no time, so equal runs have equal files. docs/run-directory.md is the page for
readers of such a directory.
"""

import contextlib
import errno
import fcntl
import functools
import hashlib
import json
import logging
import math
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
from torch import Tensor

from gansmith.config import MAY_CHANGE, NAME, NAME_RULE, Config, load_config

FORMAT = 2  # of the directory; raised when an older reader could no longer make sense of it
_CHECKPOINT_FILES = ("generator.safetensors", "state.safetensors")
_CHECKPOINT_NAME = re.compile(r"\d{9,19}")
_MAX_JSON_BYTES = 2**24  # of run.json and state.json, which are a few kilobytes
_MAX_LOG_BYTES = 2**28
_MAX_NOTE_CHARACTERS = 2**22  # stored beside a generator's tensors
_FACTS = {"status": str, "starts": list, "rollbacks": list, "data": dict}  # of run.json, where readers go by the type
_SPARE_BYTES = 2**20  # left free by a save, for the log lines that follow it

logger = logging.getLogger("gansmith")


class NotSavedError(RuntimeError):
    """Something that a run must keep could not be written; what was there before is intact."""


@dataclass(frozen=True)
class Run:
    """One training run on disk."""

    directory: Path
    config: Config

    @property
    def log_path(self) -> Path:
        return self.directory / "log.jsonl"

    @property
    def metrics_path(self) -> Path:
        return self.directory / "metrics.jsonl"

    @property
    def samples_dir(self) -> Path:
        return self.directory / "samples"

    def grids(self) -> list[tuple[int, Path]]:
        """The saved grids and the images seen before each, oldest first; other files in samples/ are passed over."""
        found = self.samples_dir.glob("*.png")
        return sorted((int(path.stem), path) for path in found if _CHECKPOINT_NAME.fullmatch(path.stem))

    def facts(self) -> dict[str, Any]:
        """What run.json says: versions, command, data, hardware, status; nothing where it is missing or damaged."""
        path = self.directory / "run.json"
        try:
            found = _read_json(path)
        except FileNotFoundError:
            return {}
        except ValueError as error:
            _warn_once(f"{path} is damaged ({error}); what it said is lost")
            return {}
        wrong = [name for name, value in found.items() if not isinstance(value, _FACTS.get(name, object))]
        if wrong:
            _warn_once(f"{path} says of {', '.join(wrong)} what no run writes; that is passed over")
        return {name: value for name, value in found.items() if name not in wrong}

    def record(self, **facts: Any) -> None:
        """Add facts to run.json."""
        write_json(self.directory / "run.json", self.facts() | facts)

    def append(self, path: Path, row: Mapping[str, Any]) -> dict[str, Any]:
        """One more line of strict JSON, and what a reader finds in it: numbers that are not finite become null.

        A line that was cut off before it is ended first.
        """
        with path.open("a+b") as file:
            if file.tell():
                file.seek(-1, os.SEEK_END)
                file.write(b"" if file.read(1) == b"\n" else b"\n")
            line = to_json(row)
            file.write(line.encode() + b"\n")
        read: dict[str, Any] = json.loads(line)
        return read

    def log(self) -> list[dict[str, Any]]:
        return list(_read_lines(self.log_path))

    def metrics(self) -> list[dict[str, Any]]:
        """The quick scores of training and the verdicts of `evaluate`, told apart by their "tier"."""
        return list(_read_lines(self.metrics_path))

    def judged(self) -> list[dict[str, Any]]:
        """Scores and verdicts on the data that the run learnt from; `evaluate` may have compared it with others."""
        return [row for row in self.metrics() if row.get("dataset") in (None, self.config.dataset)]

    def scores(self) -> list[dict[str, Any]]:
        """The quick scores of training alone; they compare with nothing else."""
        rows = (row for row in self.metrics() if row.get("tier", "validation") == "validation")
        return [row for row in rows if row.get("ratio") is not None]

    def checkpoints(self) -> list[Path]:
        """Complete and undamaged checkpoints, oldest first; others are passed over with a warning."""
        return [path for path in self._named() if _is_whole(path)]

    def latest(self) -> Path | None:
        """The newest complete checkpoint, without reading older ones."""
        return next((path for path in reversed(self._named()) if _is_whole(path)), None)

    def best(self) -> Path | None:
        """The checkpoint with the best validation score; None where no score was taken or it is damaged."""
        pointer = self.directory / "best"
        try:
            # The name alone: no link leads out. A copy that followed links has a folder in its place.
            if pointer.is_symlink():
                path = self.directory / "checkpoints" / Path(os.readlink(pointer)).name
            else:
                path = self.checkpoint(load_counters(pointer)["images_seen"])
        except (OSError, LookupError, TypeError, ValueError):
            return None
        return path if path in self._named() and _is_whole(path) else None

    def checkpoint(self, images_seen: int) -> Path:
        """Where the checkpoint after so many images is, or would be."""
        return self.directory / "checkpoints" / f"{images_seen:09d}"

    def has_checkpoints(self) -> bool:
        """Whether there are any, whole or damaged."""
        return bool(self._named())

    def _named(self) -> list[Path]:
        found = (self.directory / "checkpoints").glob("*")
        return sorted(
            (path for path in found if _CHECKPOINT_NAME.fullmatch(path.name)), key=lambda path: int(path.name)
        )


@contextlib.contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Be the only process that trains in a directory; ValueError where another one does.

    The kernel takes the lock back when its holder ends, however it ends, so no lock is ever stale.
    """
    try:
        descriptor = os.open(directory / ".lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o644)
    except OSError as error:
        raise ValueError(
            f"{directory} cannot be written ({error.strerror}); make it writable, or copy the run to another place"
        ) from None
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(descriptor, 20).decode("ascii", "replace").strip() or "unknown"
            raise ValueError(
                f"{directory} is being trained by process {holder}; wait for it or stop it, or give another --out"
            ) from None
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f"{os.getpid()}\n".encode())
        yield
    finally:
        os.close(descriptor)


def is_locked(directory: Path) -> bool:
    """Whether some process is training in a directory now."""
    try:
        descriptor = os.open(directory / ".lock", os.O_RDONLY | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def create_run(directory: Path, config: Config) -> Run:
    """A new run in an empty or absent directory, or the run that is there already with the same choices.

    Raises ValueError where the directory holds another run, anything else, or is a file; OSError is turned into a
    ValueError that says what cannot be written.
    """
    if holds_run(directory):
        return _continued(open_run(directory), config)
    refuse_occupied(directory)
    try:
        directory.mkdir(parents=True, exist_ok=True)
        for part in ("samples", "checkpoints"):
            (directory / part).mkdir(exist_ok=True)
        with locked(directory):
            if not holds_run(directory):
                write_text(directory / "config.toml", config.to_toml())
    except OSError as error:
        raise ValueError(f"{directory} cannot be written ({error.strerror}); give another place with --out") from None
    return _continued(open_run(directory), config)  # another process may have been first


def refuse_occupied(directory: Path) -> None:
    """Raise ValueError where a new run cannot go: a file, a folder with other things, a place that is read-only."""
    name = directory.resolve().name
    if not NAME.fullmatch(name):
        raise ValueError(f"{name!r} cannot name a run; {NAME_RULE}, such as my-run: give another --out")
    if directory.is_symlink() and not os.path.exists(directory):
        raise ValueError(f"{directory} is a broken link; remove it, or give another directory with --out")
    if directory.exists() and not directory.is_dir():
        raise ValueError(f"{directory} is a file; give a directory for the run with --out")
    begun = {".lock", ".partial-config.toml", "checkpoints", "samples"}  # all that a start killed at once leaves
    if directory.is_dir() and not {path.name for path in directory.iterdir()} <= begun:
        raise ValueError(f"{directory} is not empty and holds no run; give an empty or a new directory with --out")
    existing = next(path for path in (directory.absolute(), *directory.absolute().parents) if path.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        raise ValueError(f"{directory} cannot be written; give another place with --out")


def _continued(run: Run, config: Config) -> Run:
    """The run with the new length and intervals; schedules keep the length they began with.

    Compared are the choices its newest checkpoint was trained with, so an edited config.toml is noticed.
    """
    latest = run.latest()
    begun = run.config if latest is None else _config_of(latest)
    if begun.images == run.config.first_images:  # whose length was set anew after that checkpoint
        begun = begun.replace(images=run.config.images, first_images=run.config.first_images)
    old, new = begun.as_dict(), config.as_dict()
    changed = [name for name in old if old[name] != new[name] and name not in MAY_CHANGE]
    if changed:
        listing = ", ".join(f"{name} {old[name]!r} -> {new[name]!r}" for name in changed)
        raise ValueError(
            f"{run.directory} holds a run with other choices ({listing}); give the same ones (put config.toml back if "
            "it was edited), or another --out"
        )
    schedule = begun.schedule_images or (begun.images if config.images != begun.images else 0)
    for name, kept in (("schedule_images", schedule), ("first_images", begun.first_images)):
        if getattr(config, name) not in (0, kept, begun.images):
            raise ValueError(
                f"{name} is {getattr(config, name)}, but {run.directory} goes on with the schedules it began with; "
                "leave it away, or give another --out"
            )
    return Run(run.directory, config.replace(schedule_images=schedule, first_images=begun.first_images))


def open_run(directory: Path) -> Run:
    """The run in a directory; FileNotFoundError where there is none, ValueError where a link leads out of it.

    A config.toml that was deleted is read from the newest checkpoint.
    """
    if not holds_run(directory):
        raise FileNotFoundError(f"{directory} holds no run (no config.toml); give a directory that `train` wrote")
    _refuse_links(directory)
    path = directory / "config.toml"
    if path.is_file():
        return Run(directory, load_config(path))
    latest = Run(directory, Config()).latest()
    if latest is None:
        raise FileNotFoundError(
            f"{path} is missing and no checkpoint holds a copy; give a directory that `train` wrote"
        )
    _warn_once(f"{path} is missing; its choices are those of checkpoint {latest.name}")
    return Run(directory, _config_of(latest))


def run_of(generator: Path) -> Run | None:
    """The run that a generator file is a checkpoint of, links followed; None for any other file."""
    checkpoint = generator.resolve().parent
    is_saved = checkpoint.parent.name == "checkpoints" and _CHECKPOINT_NAME.fullmatch(checkpoint.name)
    return open_run(checkpoint.parents[1]) if is_saved and holds_run(checkpoint.parents[1]) else None


def holds_run(directory: Path) -> bool:
    """Whether a run was begun in a directory, even if its config.toml was deleted since."""
    return (directory / "config.toml").is_file() or any((directory / "checkpoints").glob("*"))


def _refuse_links(directory: Path) -> None:
    """Raise ValueError for a link out of the directory: whoever made it would choose what is read or written."""
    root = os.path.realpath(directory)
    for folder, folders, files in os.walk(directory, followlinks=False):
        for path in (Path(folder) / name for name in (*folders, *files)):
            if path.is_symlink() and not Path(os.path.realpath(path)).is_relative_to(root):
                raise ValueError(f"{path} is a link that leads out of the run; remove it, or put the file itself there")


def _config_of(checkpoint: Path) -> Config:
    """The choices a checkpoint was trained with."""
    path = checkpoint / "generator.safetensors"
    try:
        return Config(**json.loads(read_metadata(path)["config"]))
    except (KeyError, TypeError, RecursionError) as error:
        raise ValueError(
            f"{path} says nothing this version can read of its choices ({error}); remove {checkpoint}"
        ) from None


def next_directory(root: Path, config: Config) -> Path:
    """A new numbered name, such as runs/0007-default-mnist."""
    numbers = [int(match[1]) for path in root.glob("*") if (match := re.match(r"(\d{4,})-", path.name))]
    return root / f"{max(numbers, default=0) + 1:04d}-{config.recipe}-{config.dataset}"


def make_next_directory(root: Path, config: Config) -> Path:
    """The folder of `next_directory`, made at once, so that no other process takes the same."""
    while True:
        directory = next_directory(root, config)
        with contextlib.suppress(FileExistsError):
            directory.mkdir(parents=True)
            return directory


def sweep(run: Run, images_seen: int) -> None:
    """Make a directory what it was at `images_seen`: no unfinished writes, and nothing from later on.

    The caller holds the lock. Log lines and frames of later happened after the checkpoint that is continued, and
    will happen again; -1 forgets all of them.
    """
    for path in (*run.directory.glob(".partial-*"), *run.directory.glob("*/.partial-*")):
        # The pointer to the best checkpoint is a link while it is unfinished, too.
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    for seen, path in run.grids():
        if seen > images_seen:
            path.unlink()
    for path in (run.log_path, run.metrics_path):
        rows = list(_read_lines(path))
        kept = "".join(to_json(row) + "\n" for row in rows if row["images_seen"] <= images_seen)
        if path.is_file() and path.read_bytes() != kept.encode():
            write_text(path, kept)


def save_checkpoint(
    run: Run,
    images_seen: int,
    *,
    generator: Mapping[str, Tensor],
    generator_metadata: Mapping[str, str],
    state: Mapping[str, Tensor],
    counters: Mapping[str, Any],
) -> Path:
    """Write one checkpoint so that it is either wholly there or not at all; OSError where there is no room for it."""
    final = run.checkpoint(images_seen)
    partial = final.with_name(f".partial-{final.name}")
    size = sum(tensor.nbytes for tensor in (*generator.values(), *state.values())) + _SPARE_BYTES
    free = shutil.disk_usage(run.directory).free
    if free < size:
        raise OSError(errno.ENOSPC, f"{free / 1e6:.1f} MB free, a checkpoint takes {size / 1e6:.1f} MB", str(final))
    shutil.rmtree(partial, ignore_errors=True)
    try:
        partial.mkdir(parents=True)
        save_tensors(partial / "generator.safetensors", generator, generator_metadata)
        save_tensors(partial / "state.safetensors", state, {})
        hashes = {name: file_sha256(partial / name) for name in _CHECKPOINT_FILES}
        counters = {"format": FORMAT, **counters}
        hashes["counters"] = _counters_hash(counters)
        _write_flushed(partial / "state.json", to_json({**counters, "sha256": hashes}).encode() + b"\n")
        _flush(partial)
        for log in (run.log_path, run.metrics_path):  # whose lines the checkpoint takes as written
            if log.exists():
                _flush(log)
        shutil.rmtree(final, ignore_errors=True)  # only ever a damaged one, or the same
        os.replace(partial, final)
    except OSError:
        shutil.rmtree(partial, ignore_errors=True)  # its bytes may be what the next write lacks
        raise
    _flush(final.parent)
    return final


def point_best(run: Run, checkpoint: Path) -> None:
    """Let the link `best` name this checkpoint."""
    partial, pointer = run.directory / ".partial-best", run.directory / "best"
    partial.unlink(missing_ok=True)
    partial.symlink_to(Path("checkpoints") / checkpoint.name)
    if pointer.is_dir() and not pointer.is_symlink():
        shutil.rmtree(pointer)  # a copied checkpoint: see Run.best
    os.replace(partial, pointer)
    _flush(run.directory)


def prune(run: Run, *, newest: int, keep_last: int, keep_every: int) -> None:
    """Remove all checkpoints but the newest `keep_last`, the best, and the first past each multiple of `keep_every`.

    Damaged ones of later than `newest` are not counted.
    """
    best, passed = run.best(), 0
    for path in [path for path in run._named() if int(path.name) <= newest][:-keep_last]:
        multiple = int(path.name) // keep_every if keep_every else 0
        if path != best and multiple <= passed:
            shutil.rmtree(path)
        passed = max(passed, multiple)


def load_checkpoint(
    path: Path, *, most_bytes: int = 2**30
) -> tuple[dict[str, Tensor], dict[str, Tensor], dict[str, Any]]:
    """The generator's tensors, the training state's tensors, and the counters of a checkpoint.

    Args:
        most_bytes: what either file may have at most.
    """
    generator, state = (_load_tensors(path / name, most_bytes) for name in _CHECKPOINT_FILES)
    return generator, state, load_counters(path)


def _load_tensors(path: Path, most_bytes: int) -> dict[str, Tensor]:
    size = path.stat().st_size
    if size > most_bytes:
        raise ValueError(f"{path} has {size:,} bytes, more than the {most_bytes:,} this run can have; remove it")
    tensors: dict[str, Tensor] = safetensors.torch.load_file(path)
    broken = [name for name, values in tensors.items() if values.is_floating_point() and not values.isfinite().all()]
    if broken:
        raise ValueError(f"{path} holds numbers that are not finite ({broken[0]}); remove {path.parent}")
    return tensors


def load_counters(path: Path) -> dict[str, Any]:
    """What state.json of a checkpoint says."""
    return _read_json(path / "state.json")


def save_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """A safetensors file whose bytes depend on its content alone, flushed to disk.

    The library writes metadata in no fixed order, so all of it goes under one key as sorted JSON.
    """
    packed = {"gansmith": json.dumps(dict(metadata), sort_keys=True)} if metadata else None
    contiguous = {name: tensor.detach().contiguous() for name, tensor in sorted(tensors.items())}
    _write_flushed(path, safetensors.torch.save(contiguous, packed))


def read_metadata(path: Path) -> dict[str, str]:
    """What `save_tensors` stored beside the tensors; ValueError where the file is not one of ours."""
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
        if len(metadata["gansmith"]) > _MAX_NOTE_CHARACTERS:
            raise KeyError("gansmith")
        found = json.loads(metadata["gansmith"])
        if not isinstance(found, dict) or not all(isinstance(value, str) for value in found.values()):
            raise KeyError("gansmith")
    except (safetensors.SafetensorError, KeyError, ValueError, RecursionError):
        raise ValueError(
            f"{path} is not a Gansmith generator; give a generator.safetensors that `train` wrote"
        ) from None
    return found


def write_text(path: Path, text: str) -> None:
    """`write_bytes` of text in UTF-8."""
    write_bytes(path, text.encode("utf-8"))


def write_bytes(path: Path, data: bytes) -> None:
    """Replace a file atomically: flushed to disk under a temporary name, then renamed."""
    with replacing(path) as partial:
        _write_flushed(partial, data)
    _flush(path.parent)


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Where to write a file that takes the other's place when it is whole, and leaves it alone if that fails."""
    partial = path.with_name(f".partial-{path.name}")
    try:
        yield partial
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    write_text(path, json.dumps(_finite(value), indent=2, allow_nan=False) + "\n")


def to_json(value: Mapping[str, Any]) -> str:
    """One line of strict JSON."""
    return json.dumps(_finite(value), allow_nan=False)


def _finite(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value


def _read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file; ValueError where it is none, or longer than any of ours."""
    with path.open("rb") as file:
        text = file.read(_MAX_JSON_BYTES + 1)
    if len(text) > _MAX_JSON_BYTES:
        raise ValueError(f"it is longer than {_MAX_JSON_BYTES:,} bytes")
    try:
        found = json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    if not isinstance(found, dict):
        raise ValueError("it holds no object")
    return found


def _read_lines(path: Path) -> Iterator[dict[str, Any]]:
    """The complete lines of a log; a last line that was cut off by a crash is passed over."""
    if not path.is_file():
        return
    if path.stat().st_size > _MAX_LOG_BYTES:
        raise ValueError(f"{path} is longer than {_MAX_LOG_BYTES:,} bytes; keep the newest of its lines alone")
    for line in filter(None, path.read_text(encoding="utf-8", errors="replace").split("\n")):
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            row = None
        if isinstance(row, dict) and type(row.get("images_seen")) is int and _is_told(row):
            yield row
        else:
            logger.warning("%s has a broken line, passed over: %.40s", path, line)


_NUMBERS = ("d_loss", "g_loss", "images_per_s", "elapsed_s", "ratio", "frechet", "floor", "n")


def _is_told(row: Mapping[str, Any]) -> bool:
    """Whether a line says what its readers go by, in the types they expect."""
    texts = [row.get(key) for key in ("trouble", "sentence") if row.get("kind") in ("trouble", "rollback")]
    numbers = [row.get(key) for key in _NUMBERS]
    return all(isinstance(text, str) for text in texts) and all(isinstance(n, int | float | None) for n in numbers)


def _is_whole(path: Path) -> bool:
    damage = _damage(path)
    if damage:
        _warn_once(f"checkpoint {path} is damaged and passed over: {damage}")
    return not damage


def _damage(path: Path) -> str:
    """What is wrong with a checkpoint, in words; empty where nothing is. ValueError for another format's."""
    broken = "state.json"
    try:
        counters = load_counters(path)
        hashes = counters.pop("sha256")
        if hashes.get("counters") in (None, _counters_hash(counters)):
            broken = next((name for name in _CHECKPOINT_FILES if file_sha256(path / name) != hashes[name]), "")
        written_in = counters["format"]
    except OSError as error:
        return f"{Path(error.filename).name} cannot be read ({error.strerror})"
    except (ValueError, KeyError, TypeError, AttributeError):
        return "state.json is not what was saved"
    if not broken and written_in != FORMAT:
        raise ValueError(
            f"{path} has format {written_in}, and this version reads {FORMAT}; use the version that wrote it"
        )
    return broken and f"{broken} is not what was saved"


def _counters_hash(counters: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(_finite(counters), sort_keys=True).encode()).hexdigest()


@functools.cache
def _warn_once(sentence: str) -> None:
    """Several commands look at the same checkpoint more than once."""
    logger.warning(sentence)


def file_sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _write_flushed(path: Path, data: bytes) -> None:
    path.unlink(missing_ok=True)  # a link that someone left there would be written through
    with path.open("xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _flush(path: Path) -> None:
    """Have the disk hold what was written to a file or a directory."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
