"""Files that are never half-written: atomic writes, strict JSON and JSONL, hashes, safetensors with stable bytes.

Whatever must not be half-written goes to a temporary name, is flushed to disk, then renamed. Nothing is pickled.
Nothing here needs links, locks or folder flushes to exist.
"""

import contextlib
import functools
import hashlib
import json
import logging
import math
import os
import re
import shlex
import time
import unicodedata
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gansmith.errors import ConfigError, DataError, NotFoundError

if TYPE_CHECKING:
    from torch import Tensor  # not imported: whoever only reads run directories starts without it

PARTIAL = ".partial-"  # begins the names of unfinished files
_TRIES, RETRY_S = (200 if os.name == "nt" else 1), 0.1  # to rename what a synchroniser or a scanner may have open
_MAX_JSON_BYTES = 2**24  # of run.json and state.json, which are a few kilobytes
_MAX_METADATA_CHARACTERS = 2**22  # stored beside a generator's tensors
_OTHER_KINDS = (
    ".png", ".npz", ".npy", ".jpg", ".jpeg", ".gif", ".webp", ".bmp", ".tif", ".tiff", ".svg", ".pdf", ".mp4", ".avi",
    ".webm", ".zip", ".tar", ".gz", ".tgz", ".xz", ".7z", ".csv", ".json", ".txt", ".parquet", ".safetensors", ".onnx",
    ".keras", ".h5", ".hdf5", ".pt", ".pth", ".pt2",
)  # fmt: skip

logger = logging.getLogger("gansmith")


def to_path(out: object) -> Path:
    """Return the path that a text or a Path names, a home folder's ~ replaced; ConfigError for anything else."""
    if not isinstance(out, str | os.PathLike) or not os.fspath(out):
        raise ConfigError(f"out is {out!r:.60}; it must be a path, such as 'out'")
    return Path(os.fsdecode(out)).expanduser()


def require_parent(out: Path) -> None:
    """Raise NotFoundError where a file's folder does not exist."""
    if not out.absolute().parent.is_dir():
        raise NotFoundError(f"there is no folder {str(out.absolute().parent)!r} to write {out.name} in; make it first")


def require_writable(folder: Path) -> None:
    """Raise ConfigError where a folder, or the one that it would lie in, cannot be written."""
    there = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    if not os.access(there, os.W_OK):
        raise ConfigError(f"{folder} cannot be written; give another place with out (--out)")


def require_kind(out: Path, kinds: Collection[str]) -> None:
    """Raise GansmithError where a file's folder does not exist, or its name ends in none of `kinds`."""
    require_parent(out)
    if out.suffix.lower() not in kinds:
        raise ConfigError(f"{out} does not end in one of {', '.join(kinds)}; choose one of these")


def require_place(out: Path) -> None:
    """Raise GansmithError for a place where no .png, .npz or folder of images can be written."""
    require_parent(out)
    if out.suffix.lower() in (".png", ".npz"):
        return
    if out.is_file() or out.suffix.lower() in _OTHER_KINDS:
        raise ConfigError(f"{out} names a file of another kind; end its name in .png or .npz, or name a folder")
    if out.is_dir() and (any(out.glob("*.png")) or any(out.glob("*/*.png"))):
        raise ConfigError(f"{out} holds images already, which would mix with these; name an empty or a new folder")


def is_named_as_file(out: Path) -> bool:
    """Return whether a path that is no folder yet has the ending of a kind of file."""
    return out.suffix.lower() in _OTHER_KINDS and not out.is_dir()


@functools.cache
def warn_once(sentence: str) -> None:
    """Log a warning the first time it is given in this process."""
    logger.warning(sentence)


def quoted(path: Path | str) -> str:
    """Return a path as a word of a command, for the shells of this system."""
    text = str(path)
    if os.name != "nt":
        return shlex.quote(text)
    return f'"{text}"' if re.search(r"[\s&()^;,=%!'+`]", text) else text


def without_folders(words: Iterable[str]) -> list[str]:
    """Return the words of a command, absolute paths as their last part alone, also those of --data-dir=/home/..."""
    parts = (word.partition("=") if word.startswith("-") else ("", "", word) for word in words)
    return [f"{flag}{sign}{Path(rest).name if Path(rest).is_absolute() else rest}" for flag, sign, rest in parts]


def write_text(path: Path, text: str) -> None:
    """Replace a file by this text in UTF-8, atomically."""
    write_bytes(path, text.encode("utf-8"))


def write_bytes(path: Path, data: bytes) -> None:
    """Replace a file atomically: flushed to disk under a temporary name, then renamed."""
    with replacing(path) as partial:
        write_flushed(partial, data)
    flush(path.parent)


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a temporary path to write to; it takes the file's place when the block ends, and is removed if it fails."""
    partial = path.with_name(f"{PARTIAL}{path.name}")
    try:
        yield partial
        put(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def encoding_of(head: bytes) -> str:
    """Return the encoding of a text by its first bytes: UTF-16 where they are the mark of it, else UTF-8."""
    return "utf-16" if head[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"


def is_left_by_system(name: str) -> bool:
    """Return whether a file is one that file managers and notebooks leave in folders that look empty."""
    return name.startswith("._") or name in _OF_SYSTEMS


_OF_SYSTEMS = (".DS_Store", ".localized", "Icon\r", "desktop.ini", "Thumbs.db", ".ipynb_checkpoints")


def put(partial: Path, path: Path) -> None:
    """Rename a file or folder, in the place of another; Windows is asked again while another program has it open."""
    for _ in range(_TRIES - 1):
        try:
            return os.replace(partial, path)
        except PermissionError:
            time.sleep(RETRY_S)
    os.replace(partial, path)


def write_flushed(path: Path, data: bytes) -> None:
    """Write a new file and have the disk hold it."""
    path.unlink(missing_ok=True)  # a link that someone left there would be written through
    with path.open("xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def flush(path: Path) -> None:
    """Have the disk hold a file or a directory; file systems that cannot flush directories are left alone."""
    is_directory = path.is_dir()
    try:
        descriptor = os.open(path, os.O_RDONLY if is_directory else os.O_RDWR)  # Windows flushes no read-only file
    except OSError:
        if is_directory:
            return
        raise
    try:
        os.fsync(descriptor)
    except OSError:
        if not is_directory:
            raise
    finally:
        os.close(descriptor)


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Replace a file by indented strict JSON, atomically."""
    write_text(path, json.dumps(finite(value), indent=2, allow_nan=False) + "\n")


def to_json(value: Mapping[str, Any]) -> str:
    """Return one line of strict JSON; numbers that are not finite become null."""
    return json.dumps(finite(value), allow_nan=False)


def append_json(path: Path, row: Mapping[str, Any]) -> dict[str, Any]:
    """Append one line of strict JSON to a file, and return the row as a reader will find it.

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


def finite(value: Any) -> Any:
    """Return the value with None in place of every number that is not finite."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return value


def read_json(path: Path) -> dict[str, Any]:
    """Return the object in a JSON file; ValueError where it holds none, or is longer than any of ours."""
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


def json_sha256(value: Mapping[str, Any]) -> str:
    """Return the SHA-256 of a value's strict JSON with sorted keys."""
    return hashlib.sha256(json.dumps(finite(value), sort_keys=True).encode()).hexdigest()


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def tensor_sha256(tensor: "Tensor") -> str:
    """Return the SHA-256 of a tensor's bytes."""
    return hashlib.sha256(tensor.contiguous().numpy().tobytes()).hexdigest()


def tensors_sha256(tensors: Mapping[str, "Tensor"]) -> str:
    """Return the SHA-256 of the names and bytes of tensors."""
    return json_sha256({name: tensor_sha256(tensor) for name, tensor in tensors.items()})


def folder_name(text: str) -> str:
    """Return what a folder may be called on every file system, near this text; empty where nothing is left of it."""
    name = re.sub(r"[^\w. #&'()+,=@-]+", "-", unicodedata.normalize("NFC", text)).strip(" .")[:60].rstrip(" .")
    base, dot, rest = name.partition(".")
    return f"{base}-{dot}{rest}" if base.strip().upper() in _RESERVED else name


# Windows has no folders of these names.
_RESERVED = {"CON", "PRN", "AUX", "NUL", *(f"{port}{k}" for port in ("COM", "LPT") for k in range(10))}


def save_tensors(path: Path, tensors: Mapping[str, "Tensor"], metadata: Mapping[str, str]) -> None:
    """Write a safetensors file whose bytes depend on its content alone, flushed to disk.

    The library writes metadata in no fixed order, so all of it goes under one key as sorted JSON.
    """
    import safetensors.torch

    packed = {"gansmith": json.dumps(dict(metadata), sort_keys=True)} if metadata else None
    written, places = {}, set()
    for name, tensor in sorted(tensors.items()):
        written[name] = tensor.detach().contiguous()
        place = tensor.untyped_storage().data_ptr()
        if tensor.numel() and place in places:  # the format has no shared weights
            written[name] = written[name].clone()
        places.add(place)
    write_flushed(path, safetensors.torch.save(written, packed))


def load_tensors(path: Path, *, max_bytes: int) -> dict[str, "Tensor"]:
    """Return the tensors of a safetensors file; ValueError where it is too large or holds non-finite numbers."""
    import safetensors.torch

    size = path.stat().st_size
    if size > max_bytes:
        raise DataError(
            f"{path} has {size:,} bytes, more than the {max_bytes:,} that it can have here; restore it, or remove "
            f"{path.parent}"
        )
    tensors: dict[str, Tensor] = safetensors.torch.load_file(path)
    broken = [name for name, values in tensors.items() if values.is_floating_point() and not values.isfinite().all()]
    if broken:
        raise DataError(f"{path} holds non-finite numbers ({broken[0]}); remove {path.parent}")
    return tensors


def read_metadata(path: Path) -> dict[str, str]:
    """Return what `save_tensors` stored beside the tensors; DataError where the file is not one of ours."""
    import safetensors

    try:
        with safetensors.safe_open(path, framework="np") as file:
            metadata = file.metadata() or {}
        if len(metadata["gansmith"]) > _MAX_METADATA_CHARACTERS:
            raise KeyError("gansmith")
        found = json.loads(metadata["gansmith"])
        if not isinstance(found, dict) or not all(isinstance(value, str) for value in found.values()):
            raise KeyError("gansmith")
    except (safetensors.SafetensorError, KeyError, ValueError, RecursionError):
        raise DataError(
            f"{path} is not a Gansmith generator; give a generator.safetensors that `train` wrote, or export another "
            "program's generator as ONNX (torch.onnx.export), since weights do not say of which network they are"
        ) from None
    return found
