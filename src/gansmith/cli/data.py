"""`data fetch`, `check` and `export`: the real images."""

from pathlib import Path
from typing import Literal

from gansmith.errors import NotFoundError
from gansmith.cli.output import require_place


def fetch(name: str, /) -> int:
    """Download a data set, mnist or fashion-mnist, into the user cache, checked by SHA-256."""
    from gansmith.data.idx import cache_dir
    from gansmith.data.idx import fetch as fetch_set

    if not all([fetch_set(name, part) for part in ("train", "test")]):
        raise NotFoundError(f"{name} could not be fetched from any mirror; check the network, or give --data-dir")
    print(f"{name} -> {cache_dir(name)}")
    return 0


def check(name: str, /, *, data_dir: Path | None = None) -> int:
    """Read a data set and say where it was found, how large it is, and its hash."""
    from gansmith.data import load_data

    images = load_data(name, data_dir=data_dir)
    print(f"{name}: {len(images):,} images of {tuple(images.pixels.shape[1:])}, {images.num_classes} classes")
    print(f"source: {images.source}")
    print(f"sha256: {images.sha256}")
    for notice in images.notices:
        print(f"note: {notice}")
    return 0


def export(
    name: str,
    /,
    *,
    split: Literal["train", "validation", "test"],
    out: Path,
    data_dir: Path | None = None,
) -> int:
    """Write real images in the form of `sample`: a .npz, a .png grid, or a folder of PNGs."""
    import torch

    from gansmith.data import load_split
    from gansmith.sampling import write_samples

    require_place(out)
    images = load_split(name, split, data_dir=data_dir)
    labels = torch.full((len(images),), -1) if images.labels is None else images.labels
    write_samples(images.pixels, labels, out)
    print(f"{len(images):,} images -> {out}")
    return 0
