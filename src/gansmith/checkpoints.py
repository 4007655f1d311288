"""Checkpoints: written wholly or not at all, read only where undamaged, pruned.

    checkpoints/000128000/  generator.safetensors  state.safetensors  state.json
    best.json

A checkpoint holds no path and no time, so equal runs have equal files.
"""

import contextlib
import errno
import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gansmith.errors import RunError
from gansmith.files import (
    PARTIAL,
    file_sha256,
    flush,
    json_sha256,
    load_tensors,
    put,
    read_json,
    save_tensors,
    to_json,
    warn_once,
    write_flushed,
    write_json,
)

if TYPE_CHECKING:
    from torch import Tensor

FORMAT = 3  # of the run directory; raised when an older reader could no longer make sense of it
NAME = re.compile(r"\d{9,19}")  # images seen
_TENSOR_FILES = ("generator.safetensors", "state.safetensors")
_BEST = "best.json"
_WRITTEN = (  # by training into a run directory
    "config.toml", "run.json", "log.jsonl", "metrics.jsonl", _BEST, "real.png", "grid.png", "loss.png",
)  # fmt: skip
_SPARE_BYTES = 2**20  # left free by a save, for the log lines that follow it


def checkpoint_path(directory: Path, images_seen: int) -> Path:
    """Return where the checkpoint after so many images is, or would be."""
    return directory / "checkpoints" / f"{images_seen:09d}"


def named_checkpoints(directory: Path) -> list[Path]:
    """Return every checkpoint, whole or damaged, oldest first."""
    found = (directory / "checkpoints").glob("*")
    return sorted((path for path in found if NAME.fullmatch(path.name)), key=lambda path: int(path.name))


def save_checkpoint(
    directory: Path,
    images_seen: int,
    *,
    generator: Mapping[str, "Tensor"],
    generator_metadata: Mapping[str, str],
    state: Mapping[str, "Tensor"],
    counters: Mapping[str, Any],
    logs: tuple[Path, ...] = (),
) -> Path:
    """Write one checkpoint so that it is either wholly there or not at all.

    Args:
        logs: files whose lines the checkpoint takes as written; flushed first.

    Raises OSError where there is no room for it.
    """
    final = checkpoint_path(directory, images_seen)
    partial = final.with_name(f"{PARTIAL}{final.name}")
    size = sum(tensor.nbytes for tensor in (*generator.values(), *state.values())) + _SPARE_BYTES
    free = shutil.disk_usage(directory).free
    if free < size:
        raise OSError(errno.ENOSPC, f"{free / 1e6:.1f} MB free, a checkpoint takes {size / 1e6:.1f} MB", str(final))
    shutil.rmtree(partial, ignore_errors=True)
    try:
        partial.mkdir(parents=True)
        save_tensors(partial / "generator.safetensors", generator, generator_metadata)
        save_tensors(partial / "state.safetensors", state, {})
        hashes = {name: file_sha256(partial / name) for name in _TENSOR_FILES}
        counters = {"format": FORMAT, **counters}
        hashes["counters"] = json_sha256(counters)
        write_flushed(partial / "state.json", to_json({**counters, "sha256": hashes}).encode() + b"\n")
        flush(partial)
        for log in logs:
            if log.exists():
                flush(log)
        shutil.rmtree(final, ignore_errors=True)  # only ever a damaged one, or the same
        put(partial, final)
    except OSError:
        shutil.rmtree(partial, ignore_errors=True)  # its bytes may be what the next write lacks
        raise
    flush(final.parent)
    return final


def load_checkpoint(
    path: Path, *, max_bytes: int = 2**30
) -> tuple[dict[str, "Tensor"], dict[str, "Tensor"], dict[str, Any]]:
    """Return the generator's tensors, the training state's tensors, and the counters of a checkpoint.

    Args:
        max_bytes: what either file may have at most.
    """
    generator, state = (load_tensors(path / name, max_bytes=max_bytes) for name in _TENSOR_FILES)
    return generator, state, load_counters(path)


def load_counters(path: Path) -> dict[str, Any]:
    """Return what state.json of a checkpoint says."""
    return read_json(path / "state.json")


def mark_best(directory: Path, checkpoint: Path) -> None:
    """Record in best.json which checkpoint has the best validation FD ratio."""
    write_json(directory / _BEST, {"checkpoint": checkpoint.name, "images_seen": int(checkpoint.name)})


def unmark_best(directory: Path) -> None:
    """Remove best.json, of a checkpoint that is gone."""
    (directory / _BEST).unlink(missing_ok=True)


def best_checkpoint(directory: Path) -> Path | None:
    """Return the checkpoint that best.json names; None where there is none or it is damaged."""
    try:
        name = str(read_json(directory / _BEST)["checkpoint"])
    except (OSError, LookupError, ValueError):
        return None
    path = directory / "checkpoints" / name
    return path if path in named_checkpoints(directory) and is_whole(path) else None


def remove(path: Path) -> None:
    """Remove a checkpoint, all of it or nothing; one that another program holds open is left for the next time."""
    gone = path.with_name(f"{PARTIAL}gone-{path.name}")
    with contextlib.suppress(OSError):
        os.replace(path, gone)
        shutil.rmtree(gone, ignore_errors=True)


def prune(directory: Path, *, newest: int, best: int | None, keep_last: int, keep_every: int) -> None:
    """Remove all checkpoints but the newest `keep_last`, the best, and the first past each multiple of `keep_every`.

    Damaged ones later than `newest` are not counted.
    """
    passed = 0
    for path in [path for path in named_checkpoints(directory) if int(path.name) <= newest][:-keep_last]:
        multiple = int(path.name) // keep_every if keep_every else 0
        if int(path.name) != best and multiple <= passed:
            remove(path)
        passed = max(passed, multiple)


def is_whole(path: Path) -> bool:
    """Return whether a checkpoint is complete and undamaged; a warning says what is wrong with one that is not."""
    problem = damage(path)
    if problem:
        warn_once(f"checkpoint {path} is damaged and skipped: {problem}")
    return not problem


def damage(path: Path) -> str:
    """Return what is wrong with a checkpoint; empty where nothing is. RunError for another format's."""
    broken = "state.json"
    try:
        counters = load_counters(path)
        hashes = counters.pop("sha256")
        if hashes.get("counters") in (None, json_sha256(counters)):
            broken = next((name for name in _TENSOR_FILES if file_sha256(path / name) != hashes[name]), "")
        written_in = counters["format"]
    except OSError as error:
        return f"{Path(error.filename or path).name} cannot be read ({error.strerror})"
    except (ValueError, KeyError, TypeError, AttributeError):
        return "state.json is not what was saved"
    if not broken and written_in != FORMAT:
        raise RunError(
            f"{path} has run format {written_in}, and this version reads {FORMAT}; use the version that wrote it"
        )
    return f"{broken} is not what was saved" if broken else ""


def remove_unfinished(directory: Path) -> None:
    """Remove what training left unfinished in the run directory; other commands may be writing there now."""
    for path in (*(directory / f"{PARTIAL}{name}" for name in _WRITTEN), *directory.glob(f"*/{PARTIAL}*")):
        with contextlib.suppress(FileNotFoundError):
            is_folder = path.is_dir() and not path.is_symlink()
            shutil.rmtree(path, ignore_errors=True) if is_folder else path.unlink()
