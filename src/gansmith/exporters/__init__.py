"""Trained generators in the formats of other libraries.

Each exporter `to_name(model, path)` writes one format, reads it back with the library that its users read it with, and
returns the largest pixel difference. `export` runs some of them on a run or a generator file.
"""

import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from gansmith import __version__
from gansmith.config import choose
from gansmith.errors import GansmithError, NotFoundError
from gansmith.exporters.card import write_card
from gansmith.exporters.keras import to_keras
from gansmith.exporters.onnx import to_onnx
from gansmith.exporters.pt2 import to_pt2
from gansmith.exporters.safetensors import to_safetensors
from gansmith.exporters.web import to_web
from gansmith.files import file_sha256, is_named_as_file, put, require_writable, write_json
from gansmith.interrupts import uninterrupted
from gansmith.models import find_generator, load_generator
from gansmith.runs import holds_run, run_of
from gansmith.sampling import Model

EXPORTERS: dict[str, Callable[[Model, Path], float]] = {
    "safetensors": to_safetensors,
    "onnx": to_onnx,
    "keras": to_keras,
    "pt2": to_pt2,
}

# Not among "all": it fetches software that is not part of Gansmith.
ON_REQUEST: dict[str, Callable[[Model, Path], float]] = {"web": to_web}

READERS = {
    "safetensors": "Gansmith",
    "onnx": "ONNX Runtime, also in browsers (onnxruntime-web)",
    "keras": "Keras 2.15 and 3, tf_keras",
    "pt2": "torch.export.load",
    "web": "browsers, from any static host",
}

TOLERANCE = 1e-4  # in [-1, 1], where a grey level is 8e-3; float32 rounding alone reaches 1e-5
MANIFEST = "manifest.json"
BESIDE = ("model-card.md", "grid.png")  # written with the files of any format


def export(source: Path, formats: Sequence[str], out: Path | None = None) -> dict[str, dict[str, Any] | str]:
    """Write a generator in these formats, a model card and a manifest.

    Args:
        source: run directory, checkpoint or .safetensors file.
        formats: "all" among them for every one in EXPORTERS that supports this generator.
        out: folder; by default that of `exports_folder`.

    Returns:
        for each format its entry in the manifest (files, largest pixel difference), or why it was not written.

    Raises ConfigError for an unknown format, and GansmithError if a format does not support this generator; nothing is
    written then.
    """
    wants_all, exporters = "all" in formats, _chosen(formats)
    file = find_generator(source)
    if file.suffix.lower() != ".safetensors":
        raise GansmithError(f"{file} is of another library already; only a run or a .safetensors file is exported")
    out = out or exports_folder(source)
    _refuse_folder(out, file)
    model, weights_sha256 = load_generator(file), file_sha256(file)
    with _made(out), TemporaryDirectory(prefix=".exporting-", dir=out) as partial:  # on one disk, whatever is mounted
        written, refused = _written(model, exporters, Path(partial), wants_all=wants_all)
        entries = {
            name: {
                "files": _hashes(Path(partial, name)),
                "largest_difference": difference,
                "weights_sha256": weights_sha256,
            }
            for name, difference in written.items()
        }
        card = Path(partial, "card")
        card.mkdir()
        write_card(card, model, file, entries)
        made = sorted(Path(partial).glob("*/*"))
        _refuse_foreign(out, [path.name for path in made])
        for path in made:
            if path.is_dir():  # an earlier page, whose folder cannot be replaced as a file is
                shutil.rmtree(out / path.name, ignore_errors=True)
            put(path, out / path.name)
    earlier = _earlier_formats(out / MANIFEST)  # kept, also of an export at the same time; each has its weights' hash
    write_json(out / MANIFEST, {"gansmith": __version__, "formats": {**earlier, **entries}})
    stale = {
        name: f"its files in {out} are from an earlier export, of other weights; export {name} again, or remove them"
        for name, entry in earlier.items()
        if name not in exporters and entry.get("weights_sha256") != weights_sha256
    }
    return {name: entries.get(name) or refused[name] for name in exporters} | stale


def _written(
    model: Model, exporters: Mapping[str, Callable[[Model, Path], float]], partial: Path, *, wants_all: bool
) -> tuple[dict[str, float], dict[str, str]]:
    """Write a folder for each format; returns the largest difference of each, and of others why they are not written.

    Raises GansmithError for one that is not written, unless all are wanted.
    """
    written, refused = {}, {}
    for name, exporter in exporters.items():
        folder = partial / name
        folder.mkdir()
        try:
            with nullcontext() if name in ON_REQUEST else uninterrupted():  # those may wait for the network
                difference = exporter(model, folder / "generator")
            if not difference <= TOLERANCE:
                raise GansmithError(
                    f"in {name} this generator draws other images (by up to {difference:.2g} of 2); choose another "
                    "format"
                )
        except GansmithError as error:
            if not wants_all:
                raise
            refused[name] = str(error)
            shutil.rmtree(folder)
        else:
            written[name] = difference
    return written, refused


def exports_folder(source: Path) -> Path:
    """Return where exports go by default: `exports` in the run, or in the folder of the file."""
    folder = source if source.is_dir() else source.parent
    run = run_of(folder / "generator.safetensors")  # a checkpoint goes, and what is in its folder with it
    return (run.directory if run else folder) / "exports"


@contextmanager
def _made(out: Path) -> Iterator[None]:
    """Make a folder, and remove it where the block fails and nothing was there before."""
    is_new = not out.exists()
    out.mkdir(exist_ok=True)
    try:
        yield
    except BaseException:
        if is_new:
            with suppress(OSError):
                out.rmdir()
        raise


def _chosen(formats: Sequence[str]) -> dict[str, Callable[[Model, Path], float]]:
    """Return the exporters of these formats; ConfigError for an unknown one."""
    exporters = dict(EXPORTERS) if "all" in formats else {}
    named = {name: choose(EXPORTERS | ON_REQUEST, name, "format") for name in formats if name != "all"}
    return exporters | named


def _hashes(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of each file in a folder by its path from there."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): file_sha256(path) for path in files}


def _refuse_folder(out: Path, file: Path) -> None:
    """Raise GansmithError where this file cannot be exported to a folder."""
    if out.is_symlink() and not out.exists():
        raise GansmithError(f"{out} is a link to nothing; give a folder with --out")
    if (out.exists() and not out.is_dir()) or is_named_as_file(out):
        raise GansmithError(f"{out} {'is' if out.exists() else 'is named as'} a file; give a folder with --out")
    if holds_run(out) or any(run_of(place / file.name) for place in (out, *out.absolute().parents)):
        raise GansmithError(f"{out} belongs to a run; give a folder of its own with --out")
    _refuse_foreign(out, BESIDE)
    if not out.absolute().parent.is_dir():
        raise NotFoundError(f"there is no folder {str(out.absolute().parent)!r} to make {out.name} in; make it first")
    require_writable(out)


def _refuse_foreign(out: Path, names: Sequence[str]) -> None:
    """Raise GansmithError where one of these is in the folder and the manifest does not say that an export wrote it."""
    earlier = _earlier_formats(out / MANIFEST)
    own = {Path(name).parts[0] for entry in earlier.values() for name in entry.get("files", {})}
    own |= set(BESIDE) if earlier else set()
    for name in names:
        if (out / name).is_symlink() or (name not in own and (out / name).exists()):
            raise GansmithError(f"{out} holds a {name} that no export wrote; give another folder with --out")


def _earlier_formats(path: Path) -> dict[str, Any]:
    """Return the entries of a manifest, {} without one; GansmithError if it is damaged."""
    if not path.is_file():
        return {}
    try:
        formats = json.loads(path.read_text(encoding="utf-8"))["formats"]
        return {str(name): dict(entry) for name, entry in formats.items()}
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        raise GansmithError(
            f"{path} is damaged or not a manifest of exports; remove it, or give another --out"
        ) from None
