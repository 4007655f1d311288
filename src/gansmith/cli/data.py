"""`data fetch`, `data check`, `data inspect` and `data export`: real images."""

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from gansmith.cli.output import Json, Whole
from gansmith.errors import printable
from gansmith.files import require_parent, require_place

if TYPE_CHECKING:
    from torch import Tensor


def fetch(name: str, /) -> int:
    """Download a data set into the user cache and verify it by SHA-256.

    Parameters
    ----------
    name
        Such as mnist, fashion-mnist, kmnist, qmnist, emnist-letters, cifar10, cifar100 or svhn.
    """
    from gansmith.data import load_data
    from gansmith.data.official import fetch as fetch_set

    for part in ("train", "test"):
        folder = fetch_set(name, part)
        print(f"{len(load_data(name, data_dir=folder, part=part)):,} {part} images -> {folder}")
    return 0


def check(name: str, /, *, data_dir: Path | None = None) -> int:
    """Read a data set and print where it was found, its size and its hash.

    Parameters
    ----------
    name
        Name of the data set; gansmith list datasets prints them all.
    data_dir
        Folder that holds it; by default the usual folders, then a download where one is offered.
    """
    from gansmith.data import load_data

    images = load_data(name, data_dir=data_dir)
    channels, height, width = images.pixels.shape[1:]
    shape = f"{height}x{width}, {channels} channel{'' if channels == 1 else 's'}"
    classes = f"{images.num_classes or 'no'} classes"
    print(f"{name}: {len(images):,} images of {shape}, {classes}, before some are held out")
    print(f"source: {images.source}")
    print(f"sha256: {images.sha256}")
    for notice in images.notices:
        print(f"note: {notice}")
    return 0


def inspect(
    path: Path,
    /,
    *,
    size: Whole = 0,
    resize: Literal["crop", "pad", "stretch"] = "crop",
    color: Literal["auto", "grey", "rgb"] = "auto",
    background: Literal["auto", "white", "black"] = "auto",
    out: Path = Path("preview.png"),
    json: Json = False,
) -> int:
    """Say what a folder, archive or file of images holds, and how it would be prepared; nothing is trained.

    The exit code is 2 where training would refuse it.

    Parameters
    ----------
    path
        Folder, .zip or .tar[.gz] of pictures, or a .npz, .npy, .csv[.gz], .tsv, .bin, .mat, .parquet or IDX[.gz] file.
    size
        Side of the images in pixels, as of train (0: the pictures' own where they agree).
    resize
        How other pictures become square, as of train.
    color
        Grey or RGB images, as of train (auto: grey where all pictures are).
    background
        What transparent pictures are laid over, as of train.
    out
        Preview picture to write: some images as they would be trained on.
    json
        Print one JSON object instead of lines.
    """
    from gansmith.data.inspection import inspect as inspect_path
    from gansmith.data.prepare import Preparation
    from gansmith.errors import DataError, reason_of
    from gansmith.files import to_json

    _refuse_inspection(path, out)
    facts, preview = inspect_path(path, Preparation(size, resize, color, background))
    if not json:
        _print_facts(facts)
    try:
        _write_preview(preview, out)
        written, failure = str(out), ""
    except OSError as error:  # as in a folder that cannot be written: the facts are of use without
        written, failure = None, f"the preview could not be written to {out} ({reason_of(error)}); --out names a place"
    if json:
        notices = [*facts["notices"], *([failure] if failure else [])]
        print(to_json({**facts, "notices": notices, "preview": written}))
    else:
        print(f"note: {failure}" if failure else f"preview  {out}")
    if facts.get("refused"):
        raise DataError(facts["refused"])
    return 0


def _refuse_inspection(path: Path, out: Path) -> None:
    """Raise GansmithError for a data set's name, and for a preview that would be one of the pictures."""
    from gansmith.data import DATASETS
    from gansmith.data.pictures import OWN_NAMES, is_own
    from gansmith.errors import ConfigError

    require_parent(out)
    if out.is_file() and not is_own(out):
        raise ConfigError(f"{out} exists and was not written by Gansmith; name another file with --out")
    if str(path) in DATASETS and not path.exists():
        raise ConfigError(f"{path} is a data set's name; what it holds says: gansmith data check {path}")
    if out.name not in OWN_NAMES and path.is_dir() and out.resolve().is_relative_to(path.resolve()):
        raise ConfigError(
            f"{out} would be read as one of the pictures of {path}; call it preview.png, or put it elsewhere"
        )


def _write_preview(images: "Tensor", out: Path) -> None:
    from gansmith.files import write_bytes
    from gansmith.pictures.grids import enlarge, grid, to_png

    write_bytes(out, to_png(enlarge(grid(images, columns=8))))


def _print_facts(facts: dict[str, Any]) -> None:
    print(f"{facts['path']}: {facts['layout']}, called {facts['name']}")
    for part, count in facts["images"].items():
        print(f"{part:<8} {count:,} images")
    classes = ", ".join(f"{printable(name)} ({count:,})" for name, count in facts["classes"].items())
    print(f"classes  {classes or 'none'}")
    for what in ("sizes", "modes"):
        if what in facts:
            print(f"{what:<8} {', '.join(f'{name} ({count:,})' for name, count in facts[what].items())}")
    print(facts["prepared"])
    for notice in facts["notices"]:
        print(f"note: {notice}")


def export(
    name: str,
    /,
    *,
    split: Literal["train", "validation", "test"],
    out: Path,
    data_dir: Path | None = None,
) -> int:
    """Write the real images of one split to a .npz file, a .png grid or a folder of PNGs, as `sample` does.

    Parameters
    ----------
    name
        Name of the data set; gansmith list datasets prints them all.
    split
        train (what networks are trained on), validation (held out of the training part) or test.
    out
        A .npz file, a .png file, or a folder.
    data_dir
        Folder that holds the data set; by default the usual folders, then a download where one is offered.
    """
    import torch

    from gansmith.data import load_split
    from gansmith.sampling import write_samples

    require_place(out)
    images = load_split(name, split, data_dir=data_dir)
    labels = torch.full((len(images),), -1) if images.labels is None else images.labels
    write_samples(images.pixels, labels, out, class_names=images.class_names)
    print(f"{len(images):,} images -> {out}")
    return 0
