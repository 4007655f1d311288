"""Images and labels in .npz and .npy files, known by the names of arrays and of files beside them."""

import re
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gansmith.data.arrays import MAX_BYTES, Arrays, Parts, as_arrays
from gansmith.data.folders import split_of
from gansmith.data.image_files import BOUNDED, read_array, read_header
from gansmith.data.labels import MAX_CLASSES, MIN_IDS, Labels, as_labels
from gansmith.errors import DataError
from gansmith.flat_images import square

# Names of arrays, whatever their case and with underscores or without.
IMAGES = {
    "train": (
        "x_train", "train_x", "train_images", "train_data", "tr_x", "images", "samples", "x", "data", "image", "imgs",
        "img", "pixels", "arr_0",
    ),
    "test": (
        "x_test", "test_x", "test_images", "test_data", "te_x", "ts_x", "x_val", "val_x", "val_images", "val_data",
    ),
}  # fmt: skip
LABELS = {
    "train": ("y_train", "train_y", "train_labels", "tr_y", "labels", "y", "label", "target", "targets", "arr_1"),
    "test": ("y_test", "test_y", "test_labels", "te_y", "ts_y", "y_val", "val_y", "val_labels"),
}
CLASS_NAMES = ("class_names", "label_names", "classes", "names", "categories")
_OTHER_PART = {  # words in the names of arrays that are not of a part
    "train": re.compile(r"(?<![a-z])(test|val(?!ue))|(test|val)$", re.IGNORECASE),
    "test": re.compile("train", re.IGNORECASE),
}
_MIN_SIDE = 8  # of flat images whose array has another name
MAY_BE_LABELS = re.compile(r"label|target|(?<![a-z])y(?![a-z])|^y(?=train|test|val)")


def read_npz(path: Path, like: Arrays | None, *, is_test: bool = False) -> Parts:
    with zipfile.ZipFile(path) as archive:
        names = [name for name in archive.namelist() if name.endswith(".npy")]
        stored = {plain_name(name.removesuffix(".npy")): name for name in names}
        found = {part: _npz_images(archive, stored, part, path) for part in ("train", "test")}
        if found["train"] is None and not (is_test and found["test"]):
            listing = ", ".join(sorted(name.removesuffix(".npy") for name in names)) or "nothing"
            raise DataError(f"{path} holds {listing}; images are looked for as {', '.join(IMAGES['train'])}")
        images = {part: _read_member(archive, name, path) for part, name in found.items() if name is not None}
        labels = {part: _npz_labels(archive, stored, part, path) for part in images}
        chosen = {part: _choose_labels(archive, names, part, images, labels, path) for part in images}
        named = {first_of(stored, LABELS[part]) for part, own in labels.items() if own is not None and not chosen[part]}
        used = {*found.values(), *chosen.values(), *named, _TRUNCATION}
        names_of = first_of(stored, CLASS_NAMES)
        stored_names = () if names_of in used else _read_names(archive, names_of, path)
    texts = [own for own in labels.values() if own is not None and own.dtype.kind == "U"]
    every = sorted({label for own in texts for label in own.reshape(-1).tolist()})
    class_names = every if len(texts) == len(labels) else ()
    sources = {part: f"{path}: {str(found[part]).removesuffix('.npy')}" for part in images}
    said = {part: (f"its labels are read from {_shown(name)}",) if name else () for part, name in chosen.items()}
    parts = as_parts(images, labels, said, sources, class_names, like=like)
    fitting = [part for part, own in parts.items() if _fit(stored_names, own)]
    used |= {names_of} if fitting else set()
    unused = [_shown(name) for name in names if name not in used]
    for part, own in parts.items():
        notices = (*own.notices, *_unused_in_words(unused, own))
        parts[part] = replace(own, notices=notices, class_names=stored_names if part in fitting else own.class_names)
    return parts


_TRUNCATION = "truncation.npy"  # in files of samples


def _shown(name: str) -> str:
    return name.removesuffix(".npy")


def _read_names(archive: zipfile.ZipFile, name: str | None, path: Path) -> tuple[str, ...]:
    """Return an array of different texts; nothing for another."""
    header = None if name is None else _header_of(archive, name, path)
    if name is None or header is None or len(header[0]) != 1 or header[2].kind not in "SU":
        return ()
    names = _read_text(_read_member(archive, name, path, may_be_text=True)).tolist()
    return tuple(names) if len(set(names)) == len(names) else ()


def _fit(class_names: Sequence[str], arrays: Arrays) -> bool:
    """Return whether names may be those of these images' labels, which are numbers, and not one for each image."""
    if arrays.labels is None or arrays.class_names:
        return False
    count = int(arrays.labels.max(initial=-1)) + 1
    return count <= len(class_names) and not count < len(class_names) == len(arrays.pixels)


def _unused_in_words(unused: Sequence[str], arrays: Arrays) -> tuple[str, ...]:
    """Return a sentence on arrays that are not used; nothing where there are none."""
    if not unused:
        return ()
    more = f" and {len(unused) - 6:,} more" if len(unused) > 6 else ""
    hint = "; labels are read from labels" if arrays.labels is None else ""
    return (f"arrays that are not used: {', '.join(unused[:6])}{more}{hint}",)


def as_parts(
    images: dict[str, NDArray[Any]],
    labels: Mapping[str, NDArray[Any] | None],
    said: Mapping[str, tuple[str, ...]],
    sources: dict[str, str],
    class_names: Sequence[str] = (),
    *,
    like: Arrays | None,
) -> Parts:
    """Return the parts of one file, whose numbers are taken alike.

    Args:
        said: sentences on the labels of each part.
        like: see `as_arrays`.
    """
    parts: Parts = {}
    for part, own in images.items():
        arrays = as_arrays(own, labels[part], sources[part], class_names=class_names, like=parts.get("train", like))
        parts[part] = replace(arrays, notices=(*said[part], *arrays.notices))
    return parts


def _npz_images(archive: zipfile.ZipFile, stored: dict[str, str], part: str, path: Path) -> str | None:
    """Return the array of a part's images: by its name, else the only one whose name and shape do not speak against it.

    None where there are several, or none.
    """
    named = first_of(stored, IMAGES[part])
    if named is not None:
        return named
    others = [name for each in (*IMAGES.values(), *LABELS.values()) for name in each]
    own = [name for plain, name in stored.items() if plain not in map(plain_name, others)]
    own = [name for name in own if not MAY_BE_LABELS.search(name.lower()) and not _OTHER_PART[part].search(name)]
    if part == "test":
        own = [name for name in own if _OTHER_PART["train"].search(name)]
    found = [name for name in own if _has_images(archive, name, path)]
    return found[0] if len(found) == 1 else None


def _choose_labels(
    archive: zipfile.ZipFile,
    names: Sequence[str],
    part: str,
    images: dict[str, NDArray[Any]],
    labels: dict[str, NDArray[Any] | None],
    path: Path,
) -> str:
    """Give images without labels those of the only array of another name that has one for each image.

    Returns its name, or nothing.
    """
    if labels[part] is not None:
        return ""
    own = [name for name in names if not _OTHER_PART[part].search(_shown(name))]
    own = [name for name in own if part == "train" or _OTHER_PART["train"].search(_shown(name))]
    wanted = (images[part].shape[:1], (*images[part].shape[:1], 1))
    likely = [name for name in own if _shape_of_labels(archive, name, path) in wanted]
    if len(likely) == 1:
        found = _read_text(_read_member(archive, likely[0], path, may_be_text=True))
        if are_classes(found):
            labels[part] = found
            return likely[0]
    return ""


def are_classes(labels: NDArray[Any]) -> bool:
    """Return whether numbers or names may be those of classes: some are alike, as identifiers are not.

    Of many, each is there twice in the mean: of names of files a few may be alike.
    """
    is_small = labels.dtype.kind == "U" or (labels.min(initial=0) >= 0 and labels.max(initial=0) < MAX_CLASSES)
    count = len(np.unique(labels))
    return bool(is_small) and (2 * count <= labels.size if labels.size >= MIN_IDS else count < max(2, labels.size))


def _shape_of_labels(archive: zipfile.ZipFile, name: str, path: Path) -> tuple[int, ...] | None:
    """Return the shape of an array of whole numbers or text; None for another."""
    header = _header_of(archive, name, path)
    return header[0] if header is not None and header[2].kind in "biuUS" else None


def plain_name(name: str) -> str:
    return name.lower().replace("_", "")


def first_of(stored: dict[str, str], names: tuple[str, ...]) -> str | None:
    """Return the stored name of the first of these."""
    return next((stored[plain_name(name)] for name in names if plain_name(name) in stored), None)


def _has_images(archive: zipfile.ZipFile, name: str, path: Path) -> bool:
    header = _header_of(archive, name, path)
    shape = () if header is None else header[0]
    return len(shape) in (3, 4) or (len(shape) == 2 and square(shape[1])[0] >= _MIN_SIDE)


def _header_of(archive: zipfile.ZipFile, name: str, path: Path) -> tuple[tuple[int, ...], bool, "np.dtype[Any]"] | None:
    """Return the header of an array; None for what is no array."""
    try:
        with archive.open(name) as file:
            return read_header(file, f"{path}: {name}")
    except DataError:
        return None


def _npz_labels(archive: zipfile.ZipFile, stored: dict[str, str], part: str, path: Path) -> NDArray[Any] | None:
    """Return the array that is called as labels are; None where it holds images or measurements."""
    named = first_of(stored, LABELS[part])
    if named is None:
        labels = _labels_beside(path)
        return None if labels is None else _read_text(labels)
    header = _header_of(archive, named, path)
    if header is not None and len([size for size in header[0] if size != 1]) > 2:
        return None
    labels = _read_member(archive, named, path, may_be_text=True)
    if labels.dtype.kind == "f" and np.any((known := labels[np.isfinite(labels)]) != np.rint(known)):
        return None
    return _read_text(labels)


def _read_text(labels: NDArray[Any]) -> NDArray[Any]:
    """Return bytes as text, other labels as they are."""
    return np.char.decode(labels) if labels.dtype.kind == "S" else labels


def _labels_beside(path: Path) -> NDArray[Any] | None:
    """Return the one array of a .npz file of labels beside one of images, as KMNIST has them; None without such."""
    name = re.sub(r"imgs|images", "labels", path.name)
    if name == path.name or not path.with_name(name).is_file():
        return None
    with zipfile.ZipFile(path.with_name(name)) as archive:
        names = [own for own in archive.namelist() if own.endswith(".npy")]
        stored = {plain_name(own.removesuffix(".npy")): own for own in names}
        own = stored.get("arr0") or first_of(stored, LABELS["train"]) or (names[0] if len(names) == 1 else None)
        return None if own is None else _read_member(archive, own, path.with_name(name), may_be_text=True)


def _read_member(archive: zipfile.ZipFile, name: str, path: Path, *, may_be_text: bool = False) -> NDArray[Any]:
    if archive.getinfo(name).compress_type not in BOUNDED:
        raise DataError(f"{path} is compressed in a way NumPy does not write; save it with numpy.savez_compressed")
    with archive.open(name) as file:
        return read_array(file, f"{path}: {name.removesuffix('.npy')}", limit=MAX_BYTES, may_be_text=may_be_text)


def read_npy(path: Path, like: Arrays | None) -> Parts:
    with path.open("rb") as file:
        images = read_array(file, str(path), limit=MAX_BYTES)
    other = _labels_file(path)
    notices = () if other else unused_beside(path, (".npy",))
    arrays = as_arrays(images, None if other is None else _read_labels(other), str(path), like=like)
    return {"train": replace(arrays, notices=(*notices, *arrays.notices))}


def labels_beside(path: Path, count: int) -> Labels:
    """Return the labels of a .npy file's images, where a file of them lies beside it: labels.npy, X_labels.npy, y.npy.

    Raises DataError for labels of another number.
    """
    other = _labels_file(path)
    if other is None:
        return Labels(notices=unused_beside(path, (".npy",)))
    return as_labels(_read_labels(other), count, str(path))


def _read_labels(path: Path) -> NDArray[Any]:
    with path.open("rb") as file:
        return read_array(file, str(path), may_be_text=True)


def _labels_file(path: Path) -> Path | None:
    """Return the file of labels beside a .npy file of images; None without one."""
    return next((file for file in label_files_beside(path, (".npy",)) if not _holds_images(file)), None)


def label_files_beside(path: Path, endings: tuple[str, ...]) -> list[Path]:
    """Return the files beside one of images that hold its labels by their names, the likeliest first.

    Names such as labels.npy, which name no file of images, do not count for test images: they may be those of training.

    Args:
        endings: of files of its kind.
    """
    beside = {_stem(file): file for file in reversed(_others(path)) if file.name.lower().endswith(endings)}
    general = () if split_of(_stem(path)) == "test" else ("labels", "y", "targets")
    names = dict.fromkeys((*_label_names(path), *general))
    return [beside[name] for name in names if name in beside]


def unused_beside(path: Path, endings: tuple[str, ...]) -> tuple[str, ...]:
    """Return a sentence on files beside one of images that may hold its labels but are not read.

    Labels of another file of images are not named.
    """
    files = _others(path)
    others = {name for file in files if file.name.lower().endswith(endings) for name in _label_names(file)}
    unused = [
        file.name
        for file in files
        if file.name.lower().endswith(_LABEL_FILES) and MAY_BE_LABELS.search(_stem(file)) and _stem(file) not in others
    ]
    if not unused:
        return ()
    listing, wanted = ", ".join(unused[:6]), f"{_label_names(path)[0]}{endings[0]}"
    return (f"files beside {path.name} that are not used: {listing}; its labels are read from {wanted}",)


def _others(path: Path) -> list[Path]:
    return sorted(file for file in path.parent.iterdir() if file != path and file.is_file() and file.name[0] != ".")


def _holds_images(path: Path) -> bool:
    with path.open("rb") as file:
        return len(read_header(file, str(path))[0]) > 2


_LABEL_FILES = (".npy", ".npz", ".csv", ".csv.gz", ".tsv", ".txt", ".json")
_PAIRS = (
    ("images", "labels"), ("images", "label"), ("imgs", "labels"), ("data", "labels"), ("image", "label"),
    ("img", "label"),
)  # fmt: skip


def _stem(path: Path) -> str:
    """Return a file's name in lower case, without its endings and the shape of what it holds.

    >>> [_stem(Path(name)) for name in ("csvTrainLabel 13440x1.csv", "csvTrainImages 60k x 784.csv")]
    ['csvtrainlabel', 'csvtrainimages']
    """
    return re.sub(r"[ _-]*\d+k?\s*x\s*\d+k?$", "", path.name.lower().removesuffix(".gz").rpartition(".")[0])


def _label_names(path: Path) -> list[str]:
    """Return what the labels of a file may be called, without its ending: train_labels, y_train, ..."""
    stem = _stem(path)
    renamed = [stem.replace(images, labels) for images, labels in _PAIRS if images in stem]
    letter = re.sub(r"(?<![a-z])x(?![a-z])|^x(?=train|test|val)|(?<=train)x$|(?<=test)x$", "y", stem)
    return [f"{stem}_labels", *renamed, *([letter] if letter != stem else []), f"y_{stem}", f"labels_{stem}"]
