"""The run directory: the only interface between training and everything after it.

    config.toml  run.json  log.jsonl  metrics.jsonl  real.png  samples/  loss.png
    checkpoints/000128000/  best.json

docs/run-directory.md is the page for readers of such a directory; `checkpoints` reads and writes what lies in
checkpoints/.
"""

import contextlib
import errno
import json
import logging
import os
import re
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gansmith.checkpoints import (
    FORMAT,
    best_checkpoint,
    checkpoint_path,
    is_whole,
    load_counters,
    named_checkpoints,
    remove_unfinished,
)
from gansmith.checkpoints import (
    NAME as CHECKPOINT_NAME,
)
from gansmith.config import FIELDS, MAX_NAME, NAME, NAME_RULE, Config, load_config
from gansmith.errors import ConfigError, DamagedError, NotFoundError, RunError
from gansmith.files import (
    PARTIAL,
    append_json,
    is_left_by_system,
    read_json,
    read_metadata,
    to_json,
    warn_once,
    write_json,
    write_text,
)

_MAX_LOG_BYTES = 2**28
# Of run.json, where readers rely on the type.
_FACTS = {
    "status": str,
    "working_directory": str,
    "starts": list,
    "rollbacks": list,
    "evaluators": list,
    "data": dict,
    "start_from": dict,
}
_NUMBERS = ("d_loss", "g_loss", "images_per_s", "elapsed_s", "validation_fd_ratio", "fd_ratio", "fd", "fd_real", "n")
_LARGEST = 1e18  # of a number in a row that a reader can trust
_UNWRITABLE = (
    errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.ENOSPC,
)  # fmt: skip

logger = logging.getLogger("gansmith")


@dataclass(frozen=True)
class RunDirectory:
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

    @property
    def log(self) -> list[dict[str, Any]]:
        """Return the rows of log.jsonl, oldest first: losses and health signals by images seen."""
        return list(_read_rows(self.log_path))

    @property
    def metrics(self) -> list[dict[str, Any]]:
        """Return the rows of metrics.jsonl: validation FD ratios (tier "validation") and verdicts of `evaluate`."""
        return list(_read_rows(self.metrics_path))

    def lost_lines(self) -> int:
        """Return how many lines of log.jsonl are missing, by what the newest checkpoint says."""
        latest = self.latest()
        written = 0 if latest is None else load_counters(latest).get("log_lines", 0)
        return max(0, written - len(self.log))

    def grids(self) -> list[tuple[int, Path]]:
        """Return the saved grids, each with the images seen before it, oldest first; other files are ignored."""
        found = self.samples_dir.glob("*.png")
        return sorted((int(path.stem), path) for path in found if CHECKPOINT_NAME.fullmatch(path.stem))

    @property
    def status(self) -> str:
        """running, killed, stopped, failed, finished or unknown."""
        facts = self.facts()
        status: str = facts.get("status", "unknown")
        if status != "running":
            return status
        is_held = _is_held(self.directory)
        is_held = _lives(facts.get("pid")) if is_held is None else is_held  # there may be no locks
        return status if is_held else "killed"

    def facts(self) -> dict[str, Any]:
        """Return what run.json says: versions, command, data, hardware, status; nothing where it is damaged."""
        path = self.directory / "run.json"
        try:
            found = read_json(path)
        except FileNotFoundError:
            return {}
        except ValueError as error:
            warn_once(f"{path} is damaged ({error}); what it said is lost")
            return {}
        wrong = [name for name, value in found.items() if not isinstance(value, _FACTS.get(name, object))]
        if wrong:
            warn_once(f"{path} has {', '.join(wrong)} of a wrong type; ignored")
        return {name: value for name, value in found.items() if name not in wrong}

    def is_trained_on(self, sha256: str) -> bool:
        """Return whether it is the hash of the training part that the run was trained on, or that was not recorded."""
        return bool(self.facts().get("data", {}).get("sha256", sha256) == sha256)

    def record(self, **facts: Any) -> None:
        """Add facts to run.json; process 0 does."""
        if _is_first():
            write_json(self.directory / "run.json", self.facts() | facts)

    def append(self, path: Path, row: Mapping[str, Any]) -> dict[str, Any]:
        """Append a row to log.jsonl or metrics.jsonl, which process 0 does, and return it as a reader finds it."""
        return append_json(path, row) if _is_first() else dict(row)

    def metrics_on_own_data(self) -> list[dict[str, Any]]:
        """Return scores and verdicts on the data the run was trained on; `evaluate` may have used others."""
        return [row for row in self.metrics if row.get("data") in (None, self.config.data)]

    def validation_scores(self) -> list[dict[str, Any]]:
        """Return the rows of training's validation FD ratio; they compare with nothing else."""
        return [row for row in self.metrics if row.get("validation_fd_ratio") is not None]

    def evaluators(self) -> dict[str, list[str]]:
        """Return the names of those that scored the run, and of those chosen when it began."""
        scores = self.validation_scores()
        return {"names": list(scores[-1]["ratios"]) if scores else [], "planned": self.facts().get("evaluators", [])}

    def checkpoints(self) -> list[Path]:
        """Return complete and undamaged checkpoints, oldest first; others are skipped with a warning."""
        return [path for path in named_checkpoints(self.directory) if is_whole(path)]

    def latest(self) -> Path | None:
        """Return the newest complete checkpoint, without reading older ones."""
        return next((path for path in reversed(named_checkpoints(self.directory)) if is_whole(path)), None)

    @property
    def images_seen(self) -> int:
        """Images of the newest checkpoint."""
        latest = self.latest()
        return int(latest.name) if latest else 0

    def best(self) -> Path | None:
        """Return the checkpoint with the best validation FD ratio; None without one, or where it is damaged."""
        return best_checkpoint(self.directory)

    def checkpoint(self, images_seen: int) -> Path:
        """Return where the checkpoint after so many images is, or would be."""
        return checkpoint_path(self.directory, images_seen)


def _is_first() -> bool:
    """Return whether this is the first of the processes that train together; without torch there are no others."""
    if "torch" not in sys.modules:
        return True
    from gansmith.processes import is_first

    return is_first()


_LOOK_S = 0.3  # another process that asks whether a directory is locked holds the lock for an instant


@contextlib.contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Be the only process that trains in a directory; RunError where another one does.

    The lock belongs to the operating system, which takes it back when its holder ends, so none is ever stale. Where
    the file system has no locks, a warning says so and training goes on without. Of processes that train together, the
    first holds the lock.
    """
    if not _is_first():
        yield
        return
    lock = _lock(directory)
    try:
        if lock is not None:
            lock.acquire(timeout=_LOOK_S)
    except TimeoutError:
        holder = RunDirectory(directory, Config()).facts().get("pid", "unknown")
        raise RunError(
            f"{directory} is being trained by process {holder}; wait for it or stop it, or give another --out"
        ) from None
    except OSError as error:
        if error.errno in _UNWRITABLE and error.filename is not None:  # as of the file, not of locking it
            raise RunError(
                f"{directory} cannot be written ({error.strerror}); make it writable, or copy the run to another place"
            ) from None
        lock = None
    if lock is None:
        warn_once(f"{directory} lies where files cannot be locked: start only one training in it at a time")
    try:
        yield
    finally:
        if lock is not None:
            lock.release()


def _lock(directory: Path) -> Any:
    """Return a lock on the directory that gives up at once; None where this system has none."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that a lock file alone would do, which a killed process leaves behind
        import filelock
    if filelock.FileLock is filelock.SoftFileLock:
        return None
    return filelock.FileLock(directory / ".lock", timeout=0, fallback_to_soft=False)


def is_locked(directory: Path) -> bool:
    """Return whether some process is training in a directory now."""
    return _is_held(directory) is True


def _is_held(directory: Path) -> bool | None:
    """Return whether a process holds the lock of a directory; None where there are no locks."""
    lock = _lock(directory)
    if lock is None:
        return None
    if not (directory / ".lock").is_file():
        return False
    try:
        lock.acquire()
        lock.release()
    except TimeoutError:
        return True
    except OSError:  # it may not be opened here, or there are no locks
        return None
    return False


def _lives(pid: Any) -> bool:
    """Return whether a process of this machine runs."""
    if not isinstance(pid, int) or os.name != "posix":  # on Windows, asking ends it
        return False
    try:
        os.kill(pid, 0)
    except OSError as error:
        return error.errno == errno.EPERM
    return True


def create_run(directory: Path, config: Config) -> RunDirectory:
    """Return a new run in an empty or absent directory, or the run that is there already with the same choices.

    Raises RunError where the directory holds another run, anything else, is a file or cannot be written.
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
                write_config(directory, config)
    except OSError as error:
        raise RunError(f"{directory} cannot be written ({error.strerror}); give another place with --out") from None
    return _continued(open_run(directory), config)  # another process may have been first


def write_config(directory: Path, config: Config) -> None:
    """Write config.toml: the format of the directory, every choice, and where each came from; process 0 does."""
    if _is_first():
        write_text(directory / "config.toml", f"format = {FORMAT}\n{config.to_toml()}")


def refuse_occupied(directory: Path) -> None:
    """Raise RunError where a new run cannot go: a file, a folder with other things, a place that is read-only."""
    name = directory.resolve().name
    if not NAME.fullmatch(name):
        raise RunError(f"{name!r} cannot name a run; {NAME_RULE}, such as my-run: give another --out")
    if directory.is_symlink() and not os.path.exists(directory):
        raise RunError(f"{directory} is a broken link; remove it, or give another directory with --out")
    if directory.exists() and not directory.is_dir():
        raise RunError(f"{directory} is a file; give a directory for the run with --out")
    begun = {".lock", f"{PARTIAL}config.toml", "checkpoints", "samples"}  # all that a start killed at once leaves
    if directory.is_dir() and not all(p.name in begun or is_left_by_system(p.name) for p in directory.iterdir()):
        raise RunError(f"{directory} is not empty and holds no run; give an empty or a new directory with --out")
    existing = next(path for path in (directory.absolute(), *directory.absolute().parents) if path.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        raise RunError(f"{directory} cannot be written; give another place with --out")


def _continued(run: RunDirectory, config: Config) -> RunDirectory:
    """Return the run with the new length and intervals; schedules keep the length they began with.

    Compared are the choices its newest checkpoint was trained with, so an edited config.toml is noticed.
    """
    latest = run.latest()
    begun = run.config if latest is None else _config_of(latest).replace(start_from=run.config.start_from)
    if begun.images == run.config.planned_images:  # --minutes corrected the length after that checkpoint
        begun = begun.replace(images=run.config.schedule_length, planned_images=run.config.planned_images)
    old, new = begun.as_dict(), config.as_dict()
    changed = [name for name in old if old[name] != new[name] and not FIELDS[name].metadata["may_change"]]
    if changed:
        listing = ", ".join(f"{name} {old[name]!r} -> {new[name]!r}" for name in changed)
        raise RunError(
            f"{run.directory} holds a run with other choices ({listing}); give the same ones (restore config.toml if "
            "it was edited), or another --out; --start-from begins a run with other choices from its weights"
        )
    seen = 0 if latest is None else int(latest.name)
    if config.images < min(run.config.images, seen):
        raise ConfigError(f"images is {config.images:,}, and {run.directory} has seen {seen:,} already; give more")
    schedule = begun.schedule_images or (begun.images if config.images != begun.images else 0)
    for name, kept in (("schedule_images", schedule), ("planned_images", begun.planned_images)):
        if getattr(config, name) not in (0, kept, begun.images, run.config.images):
            raise RunError(
                f"{name} is {getattr(config, name)}, but {run.directory} goes on with the schedules it began with; "
                f"omit {name}, or give another --out"
            )
    origins = config.origins or run.config.origins
    config = config.replace(schedule_images=schedule, planned_images=begun.planned_images, origins=origins)
    return RunDirectory(run.directory, config)


def open_run(directory: Path, *, to_train: bool = False) -> RunDirectory:
    """Return the run in a directory; NotFoundError where there is none, RunError where it cannot be read.

    A config.toml that was deleted or damaged is read from the newest checkpoint.

    Args:
        to_train: a damaged one is refused, which may have been edited for what comes now.
    """
    if not holds_run(directory):
        raise NotFoundError(f"{directory} holds no run (no config.toml); give a directory that `train` wrote")
    _refuse_strange_files(directory)
    path, damage, latest = directory / "config.toml", "is missing", None
    try:
        if path.is_file():
            return RunDirectory(directory, _with_place(load_config(path, written_in=FORMAT), directory))
    except DamagedError:
        damage = "is damaged"
        latest = RunDirectory(directory, Config()).latest()
        if latest is None or to_train:
            raise
    latest = latest or RunDirectory(directory, Config()).latest()
    if latest is None:
        raise NotFoundError(f"{path} is missing and no checkpoint holds a copy; give a directory that `train` wrote")
    warn_once(f"{path} {damage}; its choices are those of checkpoint {latest.name}")
    return RunDirectory(directory, _with_place(_config_of(latest), directory))


def _with_place(config: Config, directory: Path) -> Config:
    """Return a run's config with its images where they are found from here: a relative path began where it trained."""
    place = Path(config.data_dir)
    if not config.data_dir or place.is_absolute() or place.exists():
        return config
    found = Path(RunDirectory(directory, config).facts().get("working_directory", ""), place)
    return config.replace(data_dir=str(found)) if found.is_absolute() and found.exists() else config


def run_of(generator: Path) -> RunDirectory | None:
    """Return the run that a generator file is a checkpoint of, links followed; None for any other file."""
    checkpoint = generator.resolve().parent
    is_saved = checkpoint.parent.name == "checkpoints" and CHECKPOINT_NAME.fullmatch(checkpoint.name)
    return open_run(checkpoint.parents[1]) if is_saved and holds_run(checkpoint.parents[1]) else None


def short_names(paths: Sequence[Path]) -> list[str]:
    """Return the last part of each path, or as many as tell it from the others."""
    own = [path.resolve().parts for path in paths]
    others = set(own)

    def is_enough(parts: tuple[str, ...], k: int) -> bool:
        return k == len(parts) or sum(one[-k:] == parts[-k:] for one in others) == 1

    return ["/".join(parts[-next(k for k in range(1, len(parts) + 1) if is_enough(parts, k)) :]) for parts in own]


def holds_run(directory: Path) -> bool:
    """Return whether a run was begun in a directory, also if its config.toml was deleted since."""
    return (directory / "config.toml").is_file() or bool(named_checkpoints(directory))


def _refuse_strange_files(directory: Path) -> None:
    """Raise RunError for links out of the directory, pipes and devices.

    Whoever made a link would choose what is read or written, and no reading of a pipe ends.
    """
    root = os.path.realpath(directory)
    for folder, folders, files in os.walk(directory, followlinks=False):
        for path in (Path(folder) / name for name in (*folders, *files)):
            if path.is_symlink() and not Path(os.path.realpath(path)).is_relative_to(root):
                raise RunError(f"{path} is a link that leads out of the run; remove it, or put the file itself there")
            if not (path.is_file() or path.is_dir()) and path.exists():
                raise RunError(f"{path} is neither a file nor a folder; remove it")


def _config_of(checkpoint: Path) -> Config:
    """Return the choices a checkpoint was trained with."""
    path = checkpoint / "generator.safetensors"
    try:
        return Config(**json.loads(read_metadata(path)["config"]))
    except (KeyError, TypeError, RecursionError) as error:
        raise RunError(
            f"{path} says nothing this version can read of its choices ({error}); remove {checkpoint}"
        ) from None


def next_directory(root: Path, config: Config) -> Path:
    """Return a new numbered name, such as runs/0007-default-mnist."""
    numbers = [int(match[1]) for path in root.glob("*") if (match := re.match(r"(\d{4,})-", path.name))]
    name = f"{max(numbers, default=0) + 1:04d}-{config.recipe}-{config.data}"
    return root / name[:MAX_NAME].rstrip("-.")


def make_next_directory(root: Path, config: Config) -> Path:
    """Make the folder of `next_directory` at once, so that no other process takes the same."""
    while True:
        directory = next_directory(root, config)
        with contextlib.suppress(FileExistsError):
            directory.mkdir(parents=True)
            return directory


def rewind(run: RunDirectory, images_seen: int) -> None:
    """Make a directory what it was at `images_seen`: no unfinished writes, no log lines and grids of later.

    The caller holds the lock. What is removed happened after the checkpoint that is continued, and will happen again;
    -1 removes all of it.
    """
    remove_unfinished(run.directory)
    for seen, path in run.grids():
        if seen > images_seen:
            path.unlink()
    for path in (run.log_path, run.metrics_path):
        kept = "".join(to_json(row) + "\n" for row in _read_rows(path) if row["images_seen"] <= images_seen)
        if path.is_file() and path.read_bytes() != kept.encode():
            write_text(path, kept)


def _read_rows(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the complete lines of a log; a last line that was cut off by a crash is skipped."""
    if not path.is_file():
        return
    if path.stat().st_size > _MAX_LOG_BYTES:
        raise RunError(f"{path} is longer than {_MAX_LOG_BYTES:,} bytes; keep the newest of its lines alone")
    yield from _parse_rows(path.read_text(encoding="utf-8", errors="replace"), path)


def read_rows_after(path: Path, offset: int, *, most_bytes: int = 2**20) -> tuple[list[dict[str, Any]], int]:
    """Return the complete rows of a log from a byte on, and the byte after them; no rows where there is no log.

    At most `most_bytes` are read at once, so a reader calls again from there.
    """
    try:
        with path.open("rb") as file:
            file.seek(offset)
            text = file.read(most_bytes)
    except FileNotFoundError:
        return [], offset
    end = text.rfind(b"\n") + 1
    if not end and len(text) == most_bytes:  # no line of ours is as long
        end = most_bytes
    return list(_parse_rows(text[:end].decode(errors="replace"), path)), offset + end


def _parse_rows(text: str, path: Path) -> Iterator[dict[str, Any]]:
    for line in filter(None, text.split("\n")):
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            row = None
        if isinstance(row, dict) and type(row.get("images_seen")) is int and _is_well_typed(row):
            yield row
        else:
            warn_once(f"{path} has a broken line, skipped: {line[:40]!r}")


def _is_well_typed(row: Mapping[str, Any]) -> bool:
    """Return whether the values of a row have the types that its readers rely on."""
    texts = [row.get(key) for key in ("failure", "message") if row.get("kind") in ("failure", "rollback")]
    numbers = [row.get(key) for key in _NUMBERS]
    is_sound = all(n is None or (isinstance(n, int | float) and abs(n) < _LARGEST) for n in numbers)
    return is_sound and all(isinstance(text, str) for text in texts) and abs(row["images_seen"]) < _LARGEST
