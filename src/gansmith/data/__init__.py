"""Data sets by name, as one uint8 tensor with labels each.

`DATASETS` maps a name to the function that reads or generates it; one module per kind of source. Networks are trained
on the official training part only, less the validation images that `images.split` holds out of it.

>>> gs.DATASETS["gaussian-ring"](None, "test")
<Images gaussian-ring: 10,000 of 28 x 28 x 1, 8 classes, from ...>
"""

import os
from collections.abc import Callable
from dataclasses import replace
from difflib import get_close_matches
from functools import partial
from pathlib import Path

from gansmith.config import choose, is_path, name_of
from gansmith.data import color_sets, idx, stacked, synthetic
from gansmith.data.idx import IdxSource
from gansmith.data.images import MAX_IMAGES, Images, ImageSpec, split, to_float, to_uint8
from gansmith.data.official import class_names, shared_places
from gansmith.data.prepare import Preparation, Watch
from gansmith.errors import ConfigError, DataError, NotFoundError

__all__ = [
    "BUILT_IN_DATASETS",
    "DATASETS",
    "MAX_IMAGES",
    "SPLITS",
    "ImageSpec",
    "Images",
    "as_path",
    "load_data",
    "load_split",
    "split",
    "split_of",
    "to_float",
    "to_uint8",
]

SPLITS = ("train", "validation", "test")

DATASETS: dict[str, Callable[[Path | None, str], Images]] = {
    "mnist":            partial(idx.load, "mnist"),
    "fashion-mnist":    partial(idx.load, "fashion-mnist"),
    "kmnist":           partial(idx.load, "kmnist"),
    "qmnist":           partial(idx.load, "qmnist"),
    "emnist-balanced":  partial(idx.load, "emnist-balanced"),
    "emnist-byclass":   partial(idx.load, "emnist-byclass"),
    "emnist-bymerge":   partial(idx.load, "emnist-bymerge"),
    "emnist-digits":    partial(idx.load, "emnist-digits"),
    "emnist-letters":   partial(idx.load, "emnist-letters"),
    "emnist-mnist":     partial(idx.load, "emnist-mnist"),
    "cifar10":          partial(color_sets.load, "cifar10"),
    "cifar100":         partial(color_sets.load, "cifar100"),
    "svhn":             partial(color_sets.load, "svhn"),
    "idx":              partial(idx.load, "idx"),
    "stacked-mnist":    stacked.stacked_mnist,
    "gaussian-ring":    partial(synthetic.mixture, "gaussian-ring"),
    "gaussian-grid":    partial(synthetic.mixture, "gaussian-grid"),
}  # fmt: skip
BUILT_IN_DATASETS = frozenset(DATASETS)  # a program may add its own rows


def load_data(
    name: str,
    *,
    data_dir: str | Path | None = None,
    part: str = "train",
    how: Preparation | None = None,
    watch: Watch | None = None,
) -> Images:
    """Return the official "train" or "test" part of a data set.

    Args:
        name: of a data set, or the path of a folder, archive or file.
        data_dir: folder or file that holds the named set; if given, only it is used.
        how: size and color asked for; what it leaves open follows from the images.
        watch: called with the number of pictures done and of all, while pictures are prepared.

    Raises ConfigError for an unknown name, DataError for a corrupt file, NotFoundError where no source has the images.
    """
    from gansmith.data.sources import expanded, load_source, open_source  # training on arrays needs no readers

    how = how or Preparation()
    name = name if data_dir else as_path(name)
    if data_dir is None and is_path(name):
        name, data_dir = _own_name(Path(name)), name
    folder = expanded(Path(data_dir)) if data_dir else None
    if name not in DATASETS and folder is not None and (name == _own_name(folder) or not _is_misspelt(name)):
        images = load_source(open_source(folder, name=name), how, part=part, name=name, watch=watch)
    else:
        images = _load_named(name, folder, part, how, watch)
    if len(images) == 0:
        raise DataError(f"{images.source} holds no images; give a data set with at least one")
    return images


def _is_misspelt(name: str) -> bool:
    """Return whether a name is nearly that of a data set."""
    return bool(get_close_matches(name, DATASETS, n=1, cutoff=0.75))


def _own_name(path: Path) -> str:
    """Return what images in a folder or file are called where they are no known set, whatever their path says."""
    name = name_of(path)
    return f"images-in-{name}" if name in DATASETS else name


def _load_named(name: str, folder: Path | None, part: str, how: Preparation, watch: Watch | None) -> Images:
    """Return a part of a set by its row; where its folder holds other files than the row reads, by what they are."""
    from gansmith.data.sources import FileSource, as_prepared, load_source, open_source

    row: Callable[[Path | None, str], Images] = choose(DATASETS, name, "data set")
    try:
        if name not in BUILT_IN_DATASETS:
            return _from_own_row(name, row, folder, part, how)
        return as_prepared(row(folder, part), how, is_own=False)
    except NotFoundError:
        shared = [place for place in shared_places(name) if place.is_dir() and any(place.iterdir())]
        if folder is None and not shared:
            raise
        source = open_source(folder or shared[0], name=name)
        if isinstance(source, IdxSource):  # inside an archive, where the row did not look
            if getattr(row, "func", None) is not idx.load or part not in source.parts:
                raise
            return load_source(source, how, part=part, name=name)
    own = name if folder is None else _own_name(folder)
    images = load_source(source, how, part=part, name=own, watch=watch)
    if folder is None:
        return replace(images, notices=(f"{shared[0]} does not hold the official images of {name}", *images.notices))
    if images.name == name:
        return images
    if images.name != own:
        notice = f"these are the images of {images.name}, not of {name}, so they are called {images.name}"
    elif isinstance(source, FileSource) and source.parts["train"][0].name.startswith(name):
        images, notice = replace(images, name=name), f"these are not the official images of {name}; used as they are"
        if not images.class_names and len(class_names(name)) >= images.num_classes > 0:
            images = replace(images, class_names=class_names(name))
    else:
        notice = f"these are not the official images of {name}, so they are called {own}"
    return replace(images, notices=(notice, *images.notices))


def _from_own_row(name: str, row: object, folder: Path | None, part: str, how: Preparation) -> Images:
    """Return what a program's own row gives, of any kind that `data` may be, under the name of the row."""
    from gansmith.data.objects import as_images

    if not callable(row):
        kind = type(row).__name__
        raise ConfigError(
            f"DATASETS[{name!r}] is of type {kind}; give a function of (data_dir, part) that returns Images"
        )
    return replace(as_images(row(folder, part), how), name=name)


def load_split(
    name: str, which: str = "all", *, data_dir: str | Path | None = None, how: Preparation | None = None
) -> Images:
    """Return all official training images, or one of three disjoint splits.

    Args:
        which: "all", "train", "validation" (held out of the training part) or "test".
    """
    if which == "test":
        return load_data(name, data_dir=data_dir, part="test", how=how)
    return split_of(load_data(name, data_dir=data_dir, how=how), which)


def split_of(images: Images, which: str) -> Images:
    """Return all of these images, or those that are trained on or held out of training."""
    if which == "all":
        return images
    if which == "test":
        raise DataError(f"{images.source} has no test split of its own; choose all, train or validation")
    if which not in SPLITS:
        raise DataError(f"there is no split {which!r}; choose one of {', '.join(SPLITS)}")
    chosen = split(images)[SPLITS.index(which)]
    if not len(chosen):
        raise DataError(f"{images.name} has no {which} images: of fewer than ten, none are held out; give more")
    return chosen


def as_path(name: str) -> str:
    """Return the name of a data set as it is, and that of a file or folder that is here as a path."""
    return f"./{name}" if name and name not in DATASETS and not is_path(name) and os.path.exists(name) else name
