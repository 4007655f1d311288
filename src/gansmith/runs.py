"""The run directory: the only interface between training and everything after it.

    config.toml  run.json  log.jsonl  metrics.jsonl  real.png  samples/  loss.png
    checkpoints/000128000/  generator.safetensors  state.safetensors  state.json

Whatever must not be half-written goes to a temporary name first, is flushed to disk, then renamed. Nothing is
pickled. A checkpoint holds no path and no time, so equal runs have equal files.
"""

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

from gansmith.config import LENGTH_AND_INTERVALS, Config, load_config

FORMAT = 1  # of the directory; raised when an older reader could no longer make sense of it
_CHECKPOINT_FILES = ("generator.safetensors", "state.safetensors")

logger = logging.getLogger("gansmith")


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

    def facts(self) -> dict[str, Any]:
        """What run.json says: versions, command, data, hardware, status."""
        path = self.directory / "run.json"
        return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}

    def record(self, **facts: Any) -> None:
        """Add facts to run.json."""
        write_json(self.directory / "run.json", self.facts() | facts)

    def append(self, path: Path, row: Mapping[str, Any]) -> None:
        """One more line of strict JSON; numbers that are not finite become null."""
        with path.open("a", encoding="utf-8") as file:
            file.write(to_json(row) + "\n")

    def log(self) -> list[dict[str, Any]]:
        return list(_read_lines(self.log_path))

    def metrics(self) -> list[dict[str, Any]]:
        return list(_read_lines(self.metrics_path))

    def checkpoints(self) -> list[Path]:
        """Complete and undamaged checkpoints, oldest first; others are skipped with a warning."""
        folder = self.directory / "checkpoints"
        names = sorted(path for path in folder.glob("*") if re.fullmatch(r"\d{9,}", path.name))
        return [path for path in names if _is_whole(path)]

    def latest(self) -> Path | None:
        """The newest complete checkpoint, without reading older ones."""
        folder = self.directory / "checkpoints"
        names = sorted((path for path in folder.glob("*") if re.fullmatch(r"\d{9,}", path.name)), reverse=True)
        return next((path for path in names if _is_whole(path)), None)


def create_run(directory: Path, config: Config) -> Run:
    """A new run in an empty or absent directory, or the run that is there already with the same choices.

    Raises ValueError where the directory holds another run, anything else, or is a file; OSError is turned into a
    ValueError that says what cannot be written.
    """
    if (directory / "config.toml").is_file():
        return _continued(open_run(directory), config)
    refuse_occupied(directory)
    try:
        directory.mkdir(parents=True, exist_ok=True)
        for name in ("samples", "checkpoints"):
            (directory / name).mkdir(exist_ok=True)
        write_text(directory / "config.toml", config.to_toml())
    except OSError as error:
        raise ValueError(f"{directory} cannot be written ({error.strerror}); give another place with --out") from None
    return Run(directory, config)


def refuse_occupied(directory: Path) -> None:
    """Raise ValueError where a new run cannot go: a file, a folder with other things, a place that is read-only."""
    if directory.exists() and not directory.is_dir():
        raise ValueError(f"{directory} is a file; give a directory for the run with --out")
    if directory.is_dir() and any(directory.iterdir()):
        raise ValueError(f"{directory} is not empty and holds no run; give an empty or a new directory with --out")
    existing = next(path for path in (directory.absolute(), *directory.absolute().parents) if path.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        raise ValueError(f"{directory} cannot be written; give another place with --out")


def _continued(run: Run, config: Config) -> Run:
    """The run with the new length and intervals; schedules keep the length they began with."""
    old, new = run.config.as_dict(), config.as_dict()
    changed = [name for name in old if old[name] != new[name] and name not in LENGTH_AND_INTERVALS]
    if changed:
        listing = ", ".join(f"{name} {old[name]!r} -> {new[name]!r}" for name in changed)
        raise ValueError(
            f"{run.directory} holds a run with other choices ({listing}); give another --out, or the same choices"
        )
    if config.images != run.config.images:
        config = config.replace(schedule_images=run.config.schedule_images or run.config.images)
    else:
        config = config.replace(schedule_images=run.config.schedule_images)
    if config != run.config:
        write_text(run.directory / "config.toml", config.to_toml())
    return Run(run.directory, config)


def open_run(directory: Path) -> Run:
    """The run in a directory; FileNotFoundError where there is none."""
    if not (directory / "config.toml").is_file():
        raise FileNotFoundError(f"{directory} holds no run (no config.toml); give a directory that `train` wrote")
    return Run(directory, load_config(directory / "config.toml"))


def next_directory(root: Path, config: Config) -> Path:
    """A new numbered name, such as runs/0007-default-mnist."""
    numbers = [int(match[1]) for path in root.glob("*") if (match := re.match(r"(\d{4,})-", path.name))]
    return root / f"{max(numbers, default=0) + 1:04d}-{config.recipe}-{config.dataset}"


def save_checkpoint(
    run: Run,
    images_seen: int,
    *,
    generator: Mapping[str, Tensor],
    generator_metadata: Mapping[str, str],
    state: Mapping[str, Tensor],
    counters: Mapping[str, Any],
) -> Path:
    """Write one checkpoint so that it is either wholly there or not at all."""
    final = run.directory / "checkpoints" / f"{images_seen:09d}"
    partial = final.with_name(f".partial-{final.name}")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    save_tensors(partial / "generator.safetensors", generator, generator_metadata)
    save_tensors(partial / "state.safetensors", state, {})
    hashes = {name: _sha256(partial / name) for name in _CHECKPOINT_FILES}
    _write_flushed(partial / "state.json", to_json({"format": FORMAT, **counters, "sha256": hashes}).encode() + b"\n")
    shutil.rmtree(final, ignore_errors=True)
    os.replace(partial, final)
    _flush_directory(final.parent)
    return final


def load_checkpoint(path: Path) -> tuple[dict[str, Tensor], dict[str, Tensor], dict[str, Any]]:
    """The generator's tensors, the training state's tensors, and the counters of a checkpoint."""
    counters = json.loads((path / "state.json").read_text(encoding="utf-8"))
    return (
        safetensors.torch.load_file(path / "generator.safetensors"),
        safetensors.torch.load_file(path / "state.safetensors"),
        counters,
    )


def cut_back(path: Path, length: int) -> None:
    """Forget what a log says beyond this byte: it happened after the checkpoint that is continued."""
    if path.exists() and path.stat().st_size > length:
        with path.open("r+b") as file:
            file.truncate(length)


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
        found = json.loads(metadata["gansmith"])
    except (safetensors.SafetensorError, KeyError, json.JSONDecodeError):
        raise ValueError(
            f"{path} is not a Gansmith generator; give a generator.safetensors that `train` wrote"
        ) from None
    return dict(found)


def write_text(path: Path, text: str) -> None:
    """Replace a file at once."""
    partial = path.with_name(f".partial-{path.name}")
    _write_flushed(partial, text.encode("utf-8"))
    os.replace(partial, path)
    _flush_directory(path.parent)


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


def _read_lines(path: Path) -> Iterator[dict[str, Any]]:
    """The complete lines of a log; a last line that was cut off by a crash is passed over."""
    if not path.is_file():
        return
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            yield json.loads(line)
        except json.JSONDecodeError:
            logger.warning("%s has a broken line, passed over: %.40s", path, line)


def _is_whole(path: Path) -> bool:
    try:
        counters = json.loads((path / "state.json").read_text(encoding="utf-8"))
        whole = all(_sha256(path / name) == counters["sha256"][name] for name in _CHECKPOINT_FILES)
    except (OSError, ValueError, KeyError, TypeError):
        whole = False
    if not whole:
        logger.warning("checkpoint %s is incomplete or damaged; passed over", path)
    return whole


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _write_flushed(path: Path, data: bytes) -> None:
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _flush_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
