"""Pictures in folders and archives: what is there, which classes and splits its folders name, and reading it.

A source is a folder, a .zip or a .tar[.gz|.bz2|.xz], read in place: nothing is unpacked to disk. Hidden files, what
operating systems and notebooks leave behind, and empty folders are passed over.
"""

import os
import random
import re
import unicodedata
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import islice
from pathlib import Path, PurePath, PurePosixPath

import numpy as np

from gansmith.config import ARCHIVES, ARRAY_FILES
from gansmith.data import cache
from gansmith.data.archives import (
    IS_PICKLE,
    LOAD_IT_YOURSELF,
    MAX_MEMBER_BYTES,
    PICKLES,
    is_zip,
    list_archive,
    read_archive,
    starts_archive,
)
from gansmith.data.folders import (
    OTHER_WORDS,
    TEST_WORDS,
    TRAIN_WORDS,
    are_folds,
    are_portions,
    copies_among,
    doubled_splits,
    folders_inside,
    folders_of_masks,
    hold_same_classes,
    masks_among,
    parts_of,
    places_of,
    places_of_masks,
    split_of,
    test_beside_classes,
    training_folder,
    without_common_folders,
    words_of,
)
from gansmith.data.images import MAX_IMAGES
from gansmith.data.label_files import is_label_file, labels_by_name, likeliest, read_label_files
from gansmith.data.labels import MIN_IDS, Labels, as_labels, gaps_in_words
from gansmith.data.official import OFFICIAL
from gansmith.data.parquet import read_rows
from gansmith.data.prepare import Look, look_into
from gansmith.errors import DataError, NotFoundError, reason_of, unreadable
from gansmith.pictures.grids import OWN_MARK

ENDINGS = (".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".bmp", ".gif", ".tif", ".tiff")
_NOT_READ = (".pgm", ".ppm", ".pbm", ".pnm", ".avif", ".heic", ".heif", ".jp2", ".tga", ".psd", ".svg", ".ico", ".dcm")
LOOKS = 1_000  # pictures that are looked at before preparation
MAX_BROKEN_SHARE = 0.1
MAX_NUMBERED = 10_000  # class folders have numbers below it, as the labels of other sets
SPARSE = 20  # numbers of class folders from 1,000 on, more than so many times their count, are names, as years are
_LONG_TAR_BYTES = 2**22  # whose list of names is kept
_JUNK = re.compile(
    r"(^|/)(\.|Thumbs\.db$|desktop\.ini$|(__MACOSX|@eaDir|\$RECYCLE\.BIN|System Volume Information|lost\+found)(/|$))",
    re.IGNORECASE,
)
_OF_RUN = ("config.toml", "run.json")  # a folder that holds both is a run, with plots and grids of its own
OWN_NAMES = ("preview.png", "grid.png", "inverted.png")  # that our commands write where nothing else is asked for
_PICKLES = re.compile(r"(^|/)cifar-(100?)-(batches-py|python)")


@dataclass(frozen=True)
class Part:
    """The pictures of one split, in their stored order.

    Attributes:
        names: paths inside the source.
        labels: one for each picture; empty where there are no classes.
    """

    names: tuple[str, ...]
    labels: tuple[int, ...] = ()


@dataclass(frozen=True)
class PictureSource:
    """What a folder or an archive of pictures holds.

    Attributes:
        path: of the folder or archive.
        layout: in words, such as "class folders" or "class folders in train and test".
        parts: by "train" and, where there is one, "test".
        class_names: of the labels, by number; empty where there are no classes.
        notices: what is odd about it, a sentence each.
    """

    path: Path
    layout: str
    parts: dict[str, Part]
    class_names: tuple[str, ...]
    notices: tuple[str, ...] = field(default=())


def is_archive(path: PurePath) -> bool:
    """Return whether a file is an archive of pictures by its name, or its first bytes where its name has no ending."""
    if path.suffix or not isinstance(path, Path):
        return path.name.lower().endswith(ARCHIVES)
    return path.is_file() and starts_archive(path)


def find_pictures(path: Path) -> PictureSource:
    """Return what a folder or archive holds.

    Raises NotFoundError where it holds no picture, DataError where it is damaged or its layout is unclear.
    """
    if not path.exists():
        raise NotFoundError(f"there is no file or folder {str(path)!r}; give a folder or an archive of pictures")
    listed, odd = (list(_list_folder(path)), []) if path.is_dir() else list_names(path)
    names = sorted({name for name in listed if not _JUNK.search(name)})  # archives may hold a name twice
    names = names if path.is_dir() else _without_runs(names)
    pictures = [name for name in names if name.lower().endswith(ENDINGS)]
    if not pictures:
        raise NotFoundError("; ".join([_why_none(path, names), *odd]))
    if len(pictures) > MAX_IMAGES:
        raise DataError(f"{path} holds {len(pictures):,} pictures; up to {MAX_IMAGES:,} can be read, take fewer")
    source = _with_labels_of_files(_arrange(path, pictures), [name for name in names if is_label_file(name)])
    kinds = Counter(PurePosixPath(name).suffix.lower() for name in names)
    odd += [f"{kinds[kind]:,} {kind} files were left out; convert them to PNG" for kind in _NOT_READ if kinds[kind]]
    own = {PurePosixPath(name).stem for name in pictures}
    beside = Counter(PurePosixPath(name).suffix.lower() for name in names if PurePosixPath(name).stem in own)
    odd += [
        f"{beside[kind]:,} {kind} files named as pictures were not read; labels come from class folders or labels.csv"
        for kind in (".json", ".txt", ".xml", ".cls")
        if 2 * beside[kind] >= len(pictures)
    ]
    others = [name for name in names if _may_say_more(name)]
    others += [name for name in names if name.lower().endswith(ARCHIVES)] if path.is_dir() else []
    odd += [f"the pictures were read, and not {first_of(others, 6)}"] if others else []
    return replace(source, notices=(*odd, *source.notices))


def _with_labels_of_files(source: PictureSource, files: Sequence[str]) -> PictureSource:
    """Return a source with the labels that files beside its pictures give, or with a notice why it is without."""
    if not files:
        return source
    files = likeliest(files)
    listing = first_of(files)
    if source.parts["train"].labels:
        return _noting(source, f"{listing} was not read, as class folders give the labels")
    contents = dict[int, bytes](read_files(source.path, files, dict[int, str]()))
    try:
        pictures = [name for part in source.parts.values() for name in part.names]
        found = read_label_files({files[row]: contents[row] for row in sorted(contents)}, pictures, ENDINGS)
    except DataError as error:
        return _noting(source, f"{error}; images are used without labels")
    own, table = source.parts["train"].names, found
    found = labels_by_name(pictures, table, ENDINGS)
    if not all(name in found for name in own):  # test pictures may be called as these are
        found = labels_by_name(own, table, ENDINGS)
    if not found:
        return _noting(source, f"{listing} was not used: no column of file names here and of labels was found in it")
    missing = [name for name in own if name not in found]
    if missing:
        what = f"{len(missing):,} of {len(own):,} pictures, such as {_readable(missing[0])}"
        return _noting(source, f"{listing} names no label for {what}, so images are used without labels")
    named = {part: own.names for part, own in source.parts.items() if all(name in found for name in own.names)}
    values = [found[name] for names in named.values() for name in names]
    measured = next((value for value in values if re.fullmatch(r"-?\d*\.\d*[1-9]\d*", value)), None)
    if measured is not None and all(re.fullmatch(r"-?\d*\.?\d+", value) for value in values):
        return _noting(
            source, f"{listing} gives numbers such as {measured}, no classes; images are used without labels"
        )
    try:
        labels = as_labels(np.array(values), len(values), listing)
    except DataError as error:
        labels = Labels(notices=(f"{error}; images are used without labels",))
    if labels.numbers is None:
        return _noting(source, *labels.notices)
    numbers, parts = iter(labels.numbers.tolist()), dict(source.parts)
    for part, names in named.items():
        parts[part] = Part(names, tuple(islice(numbers, len(names))))
    source = replace(
        source, layout=f"{source.layout}, labels in {listing}", parts=parts, class_names=labels.class_names
    )
    return _noting(source, f"labels are read from {listing}", *labels.notices)


def _noting(source: PictureSource, *notices: str) -> PictureSource:
    return replace(source, notices=(*source.notices, *notices))


def count_pictures(folder: Path) -> int:
    """Return how many pictures a folder holds, at any depth; 0 where links keep them from being read."""
    try:
        return sum(name.lower().endswith(ENDINGS) for name in _list_folder(folder))
    except DataError:
        return 0


def _why_none(path: Path, names: Sequence[str]) -> str:
    """Return a sentence on files none of which is a picture, and what to do. Raises DataError for CIFAR's pickles."""
    pickles = next(filter(None, (_PICKLES.search(f"{path.name}/{name}") for name in names)), None)
    if pickles is not None:
        known = OFFICIAL[f"cifar{pickles[2]}"]
        raise DataError(
            f"{path} is CIFAR's version for Python: pickles, which can run any code and are never read; use the binary "
            f"version, {known.mirrors[0]}{next(iter(known.sha256))}"
        )
    kinds = Counter(_readable(PurePosixPath(name).suffix.lower()[:12]) or "(none)" for name in names)
    found = ", ".join(f"{count} {kind}" for kind, count in kinds.most_common(4)) or "nothing"
    archives = [name for name in names if is_archive(PurePosixPath(name))]
    arrays = [name for name in names if is_of_numbers(name)]
    advice = f"give {', '.join(ENDINGS)} pictures, or files of arrays (.npz, .npy, .csv, IDX, .mat, .parquet)"
    if path.is_file() and arrays:
        advice = "unpack it and give the folder that holds these files"
    elif path.is_dir() and archives:
        advice = f"unpack {', '.join(archives[:4])}, or give one of them"
    elif arrays and all("idx1" in name.lower() for name in arrays):
        advice = "IDX files of one dimension are labels; put their images, such as train-images-idx3-ubyte, beside them"
    elif arrays:
        advice = f"give one of these files, such as {arrays[0]}, or the folder that holds them"
    elif pickled := next(filter(PICKLES.search, names), None):
        advice = f"{_readable(pickled)} {IS_PICKLE}; {LOAD_IT_YOURSELF}"
    return f"{path} holds no images ({found}); {advice}"


def is_of_numbers(name: str) -> bool:
    """Return whether a file is a table, holds arrays or is an IDX file by its name, and is not hidden."""
    is_known = name.lower().endswith(ARRAY_FILES) or re.search(r"idx\d[-.]", name.lower()) is not None
    return is_known and not _JUNK.search(name)


def _may_say_more(name: str) -> bool:
    """Return whether a file that is not read beside pictures may hold images or labels, by its name."""
    is_said = re.search(r"(label|class|annotation|metadata|dataset)[^/]*\.(json|jsonl|xlsx?|txt)$", name, re.IGNORECASE)
    return (is_of_numbers(name) or bool(is_said)) and not is_label_file(name)


def _list_folder(path: Path) -> Iterator[str]:
    """Yield the names of all files inside, with forward slashes; not what operating systems hide, or runs hold.

    Raises DataError for a link to a folder, or to a file elsewhere. In a cache of Hugging Face's, files are links to
    its `blobs`. A link to nothing, or to itself, is a file that cannot be read.
    """
    root, folders = path.resolve(), [""]
    inside = (root, *(place.with_name("blobs") for place in (root, *root.parents) if place.name == "snapshots"))
    while folders:
        inner = folders.pop()
        if all((path / inner / name).is_file() for name in _OF_RUN):
            if not inner:
                raise DataError(
                    f"{path} is a run of Gansmith, whose pictures are no training images; give the data it was trained "
                    "on, or begin from its weights (--start-from)"
                )
            continue
        with _entries(path / inner) as entries:
            for entry in entries:
                if _JUNK.search(entry.name):
                    continue
                file = Path(entry.path)
                if entry.is_symlink() and not os.path.exists(file):
                    yield inner + entry.name
                    continue
                if entry.is_symlink() and (file.is_dir() or not any(map(file.resolve().is_relative_to, inside))):
                    raise DataError(
                        f"{file} is a link out of {path} or to a folder, which is not followed; put copies there "
                        "(cp -rL), or give the folder that it leads to"
                    )
                if entry.is_dir():
                    folders.append(f"{inner}{entry.name}/")
                elif entry.is_file() and not (entry.name in OWN_NAMES and is_own(file)):
                    yield inner + entry.name


def _entries(folder: Path) -> AbstractContextManager[Iterator[os.DirEntry[str]]]:
    """Return what is in a folder. Raises DataError where it may not be read."""
    try:
        return os.scandir(folder)
    except PermissionError as error:
        raise DataError(unreadable(folder, error, "")) from None


def is_own(file: Path) -> bool:
    """Return whether one of our commands drew this PNG: a grid of the images is none of them."""
    try:
        with file.open("rb") as opened:
            return "\0".join(OWN_MARK).encode() in opened.read(512)
    except OSError:  # it is listed, and named as unreadable later
        return False


def _without_runs(names: Sequence[str]) -> list[str]:
    """Return the names without those in folders of runs.

    >>> _without_runs(["a.png", "r/config.toml", "r/run.json", "r/plots/b.png", "s/config.toml"])
    ['a.png', 's/config.toml']
    """
    folders = [{name.rpartition("/")[0] for name in names if name.endswith(f"/{own}")} for own in _OF_RUN]
    runs = tuple(f"{folder}/" for folder in folders[0] & folders[1])
    return [name for name in names if not name.startswith(runs)] if runs else list(names)


def list_names(path: Path) -> tuple[list[str], list[str]]:
    """Return the names in an archive and what is odd about it; those of a long tar, which has no table, are kept."""
    if is_zip(path) or path.stat().st_size < _LONG_TAR_BYTES:
        found = _read_list(path)
    else:
        asked = {"source": str(path.resolve()), "part": "", "asked": "names", "content": cache.content_of(path)}
        found = cache.remember(asked, partial(_read_list, path))
    return found["names"], found["odd"]


def _read_list(path: Path) -> dict[str, list[str]]:
    names, odd = list_archive(path)
    return {"names": list(names), "odd": list(odd)}


def _arrange(path: Path, names: Sequence[str]) -> PictureSource:
    """Return the splits and classes that the folders of these pictures name."""
    names, notices = _without_masks(names)
    masks = masks_among(names)
    if masks:
        names = [name for name in names if name not in masks]
        what = f"{len(masks):,} pictures, such as {_readable(min(masks))}, were left out"
        notices = (*notices, f"{what}, as masks, labels or small copies of others")
    inner = _splits_first(without_common_folders(names))
    names, inner, copied = _without_copies(names, inner)
    inside = folders_inside(inner)
    splits = {top: split_of(top) for top in inside}
    loose = sum("/" not in name for name in inner)
    is_loose = loose > MAX_BROKEN_SHARE * len(names)
    source = None
    if _are_splits(inside):
        if is_loose:
            raise DataError(_too_many_loose(path, loose, len(names), [top for top in sorted(inside) if splits[top]]))
        source = _arrange_splits(path, names, inner, splits)
    elif list(splits.values()) == ["train"] and not is_loose:
        source = _arrange_splits(path, names, inner, splits)
    elif hold_same_classes(inside) and not is_loose:
        source = _arrange_alike(path, names, inner, inside, splits)
    elif not is_loose and (trained := training_folder(inside)):
        source = _arrange_splits(path, names, inner, {**splits, trained: "train"})
        if not splits[trained]:
            source = replace(source, notices=(_taken_for_training(trained), *source.notices))
    elif not is_loose and (tested := test_beside_classes(inside)):
        _refuse_sets_inside(path, inside)
        parts = [f"test/{name}" if name.startswith(f"{tested}/") else f"train/{name}" for name in inner]
        source = _arrange_splits(path, names, parts, {"train": "train", "test": "test"})
        words = f"{_readable(tested)} is taken for the test images, as folders with other names lie beside it"
        source = replace(source, notices=(words, *source.notices))
    if source is None:
        _refuse_sets_inside(path, inside)
        part, numbers, odd = _arrange_classes(path, names, inner)
        layout = "class folders" if numbers else "pictures without class folders"
        source = PictureSource(path, layout, {"train": part}, _names_of(numbers), odd)
    return replace(source, notices=(*notices, *copied, *source.notices))


def _without_masks(names: Sequence[str]) -> tuple[Sequence[str], tuple[str, ...]]:
    """Return the pictures without masks in a folder beside that of the images, and a sentence on these."""
    masks = places_of_masks(places_of(names))
    if not masks:
        return names, ()
    kept = [name for name in names if name.rpartition("/")[0] not in masks]
    left_out = f"{len(names) - len(kept):,} pictures in {_readable(min(masks))}"
    more = f" and {len(masks) - 1:,} more folders" if len(masks) > 1 else ""
    return kept, (f"{left_out}{more} were left out, as masks or labels of the images in the folder beside",)


def _without_copies(names: Sequence[str], inner: Sequence[str]) -> tuple[Sequence[str], Sequence[str], tuple[str, ...]]:
    """Return the pictures without a folder that holds the folders beside it once more, and a sentence on that."""
    copies = copies_among(folders_inside(inner))
    if not copies:
        return names, inner, ()
    rows = [row for row, name in enumerate(inner) if name.split("/", 1)[0] not in copies]
    listing = " and ".join(map(_readable, sorted(copies)))
    odd = f"{len(names) - len(rows):,} pictures in {listing}, which holds the folders beside it again, were left out"
    return [names[row] for row in rows], [inner[row] for row in rows], (odd,)


def _arrange_alike(
    path: Path, names: Sequence[str], inner: Sequence[str], inside: Mapping[str, set[str]], splits: Mapping[str, str]
) -> PictureSource:
    """Return a source whose outermost folders hold the same class folders: splits, or numbered parts of one set.

    Raises DataError where no name says which holds the training images.
    """
    unnamed = [top for top, split in splits.items() if not split]
    if "train" in splits.values():
        return _arrange_splits(path, names, inner, splits)
    if len(unnamed) == 1:
        source = _arrange_splits(path, names, inner, {**splits, unnamed[0]: "train"})
        return replace(source, notices=(_taken_for_training(unnamed[0]), *source.notices))
    listing = ", ".join(map(_readable, sorted(inside)[:4]))
    if are_folds(inside):
        groups = [[row for row, name in enumerate(inner) if name.startswith(f"{top}/")] for top in inside]
        part, numbers, odd = _arrange_classes(path, *_rows_inside(names, inner, groups))
        notices = [f"{listing} hold the same class folders, which are joined", *odd]
        if len(part.names) < len(names):
            notices.append(f"{len(names) - len(part.names):,} pictures beside the class folders were left out")
        return PictureSource(path, "class folders", {"train": part}, _names_of(numbers), tuple(notices))
    classes = ", ".join(map(_readable, sorted(next(iter(inside.values())))[:4]))
    raise DataError(
        f"{path}: {listing} hold the same folders ({classes}), and no name says which is for training; call that one "
        "train, give it alone, or, where these are the classes, put their pictures straight into them"
    )


def _taken_for_training(top: str) -> str:
    return f"{_readable(top)} is taken for the training images, as what is beside it is named as a test"


def _refuse_sets_inside(path: Path, inside: Mapping[str, set[str]]) -> None:
    """Raise DataError where a folder that would be a class has folders for training and for a test of its own."""
    for top, folders in inside.items():
        if len(inside) > 1 and {"train", "test"} <= set(map(split_of, folders)):
            raise DataError(
                f"{path}: {_readable(top)} has folders for training and for a test of its own; give that folder alone "
                "(unpacked, where it is in an archive)"
            )


def _splits_first(inner: Sequence[str]) -> Sequence[str]:
    """Return the names with the split as outermost folder where all name it elsewhere.

    >>> _splits_first(["cats/train/1.png", "cats/test/1.png", "dogs/train/1.png"])
    ['train/cats/1.png', 'test/cats/1.png', 'train/dogs/1.png']
    >>> _splits_first(["trainA/1.png", "trainB/1.png", "testA/1.png"])
    ['train/A/1.png', 'train/B/1.png', 'test/A/1.png']
    """
    paths = [parts_of(name) for name in inner]
    known = {top: found.groups() for top in {parts[0] for parts in paths} if (found := _DOMAIN.fullmatch(top))}
    if all(len(parts) > 1 and parts[0] in known for parts in paths):
        turned = [[*known[parts[0]], *parts[1:]] for parts in paths]
    elif all(len(parts) > 2 and split_of(parts[1]) for parts in paths):
        turned = [[parts[1], parts[0], *parts[2:]] for parts in paths]
    else:
        return inner
    is_split = {split_of(parts[0]) for parts in turned} == {"train", "test"}
    return ["/".join(parts) for parts in turned] if is_split else inner


_DOMAIN = re.compile(r"(train|test|val)[-_]?([AB])")  # of pairs of domains, as CycleGAN has them


def _are_splits(folders: Collection[str]) -> bool:
    """Return whether folders are splits rather than classes: train and test, train and others, or most of them."""
    named = [folder for folder in folders if split_of(folder)]
    others = [folder for folder in folders if not split_of(folder)]
    if others and all(words_of(folder) & OTHER_WORDS for folder in others) and "train" in map(split_of, named):
        return True
    if 2 * len(named) < len(folders):  # there may be classes such as "bullet train" and "test tube"
        named = [folder for folder in named if folder.lower() in TRAIN_WORDS | TEST_WORDS]
    return {split_of(folder) for folder in named} == {"train", "test"}


def _arrange_splits(path: Path, names: Sequence[str], inner: Sequence[str], splits: Mapping[str, str]) -> PictureSource:
    """Return a source whose outermost folders are splits; classes are those of the training part.

    Args:
        splits: "train", "test" or nothing for each of these folders; those without are left out.
    """
    by_top: dict[str, list[int]] = {}
    for row, name in enumerate(inner):
        by_top.setdefault(name.split("/", 1)[0] if "/" in name else "", []).append(row)
    splits = {top: split for top, split in splits.items() if top not in folders_of_masks(by_top, splits)}
    sizes = {top: len(rows) for top, rows in by_top.items()}
    doubled = doubled_splits(sizes, folders_inside(inner), splits)
    kinds = {splits[top] for top in doubled}
    splits = {top: split for top, split in splits.items() if top not in doubled}
    train_tops, test_tops = ([top for top in by_top if splits.get(top) == split] for split in ("train", "test"))
    notices = [
        f"{len(rows):,} pictures {f'in {_readable(top)}' if top else 'beside its folders'} were left out"
        for top, rows in by_top.items()
        if not splits.get(top)
    ]
    if doubled:
        used = " and ".join(_readable(top) for top in by_top if splits.get(top) in kinds)
        notices.append(f"of the folders for the same part, the largest is used: {used}")
    train, numbers, odd = _arrange_classes(path, *_rows_inside(names, inner, [by_top[top] for top in train_tops]))
    parts, notices = {"train": train}, [*notices, *odd]
    if test_tops:
        groups = [by_top[top] for top in test_tops]
        where = " and ".join(map(_readable, test_tops))
        parts["test"], odd = _arrange_test(*_rows_inside(names, inner, groups, keep=numbers), numbers, where)
        notices += odd
    kind = "class folders" if numbers else "pictures"
    layout = f"{kind} in {' and '.join(map(_readable, (*train_tops, *test_tops)))}"
    return PictureSource(path, layout, parts, _names_of(numbers), tuple(notices))


def _rows_inside(
    names: Sequence[str], inner: Sequence[str], groups: Sequence[Sequence[int]], *, keep: Collection[str] = ()
) -> tuple[list[str], list[str]]:
    """Return the names of these rows, and the same without the outermost folders that each group shares."""
    chosen, stripped = [], []
    for rows in groups:
        chosen += [names[row] for row in rows]
        stripped += without_common_folders([inner[row].split("/", 1)[1] for row in rows], keep=keep)
    return chosen, stripped


def _arrange_test(
    names: Sequence[str], inner: Sequence[str], numbers: dict[str, int], where: str
) -> tuple[Part, tuple[str, ...]]:
    """Return the test pictures with the labels of the training part's classes, and what is odd.

    Where none of them lies in a folder of such a class, all are without labels; where some do, the others are left out.
    """
    alike = {_folded(folder): number for folder, number in numbers.items()}
    by_folder = (alike if len(alike) == len(numbers) else numbers) | numbers
    folders = [name.split("/", 1)[0] if "/" in name else "" for name in inner]
    labels = [by_folder.get(folder, by_folder.get(_folded(folder), -1)) for folder in folders]
    rows = sorted((row for row, label in enumerate(labels) if label >= 0), key=labels.__getitem__)
    left = len(names) - len(rows)
    if not numbers or not left:
        notices: tuple[str, ...] = ()
    elif rows:
        notices = (f"{left:,} pictures in {where}, in no class folder of the training part, were left out",)
    else:
        notices = (f"the {left:,} pictures in {where} lie in no class folder of the training part: without labels",)
    if not rows:
        return Part(tuple(names)), notices
    return Part(tuple(names[row] for row in rows), tuple(labels[row] for row in rows)), notices


def _arrange_classes(
    path: Path, names: Sequence[str], inner: Sequence[str]
) -> tuple[Part, dict[str, int], tuple[str, ...]]:
    """Return the pictures in order with the labels of their class folders, each folder's label, and what is odd."""
    folders = [name.split("/", 1)[0] if "/" in name else "" for name in inner]
    loose = folders.count("")
    classes = sorted({folder for folder in folders if folder}, key=lambda folder: (_natural(folder), folder))
    if len(classes) < 2:
        return Part(tuple(names)), {}, ()
    if loose > MAX_BROKEN_SHARE * len(names):
        raise DataError(_too_many_loose(path, loose, len(names), classes))
    if are_portions(inner):
        words = f"the {len(classes):,} numbered folders hold a thousand pictures each and are no classes"
        return Part(tuple(names)), {}, (words,)
    if are_folds(classes):
        return Part(tuple(names)), {}, (f"{first_of(classes)} are numbered parts of one set, which are joined",)
    if len(classes) == len(names) - loose >= MIN_IDS:
        return (
            Part(tuple(names)),
            {},
            (f"each of the {len(classes):,} folders holds one picture, so they are no classes",),
        )
    numbers, notices = _class_numbers(classes)
    notices = (*notices, *_joined_in_words(folders_inside(inner)))
    if loose:
        notices = (*notices, f"{loose:,} pictures beside the class folders were left out")
    rows = [k for k, folder in enumerate(folders) if folder]
    rows.sort(key=lambda k: numbers[folders[k]])
    return Part(tuple(names[k] for k in rows), tuple(numbers[folders[k]] for k in rows)), numbers, notices


def first_of(names: Collection[str], shown: int = 4) -> str:
    """Return the first of these names, and how many more there are."""
    more = f" and {len(names) - shown:,} more" if len(names) > shown else ""
    return f"{', '.join(map(_readable, sorted(names)[:shown]))}{more}"


def _joined_in_words(inside: Mapping[str, set[str]]) -> tuple[str, ...]:
    """Return a sentence on the folders inside class folders, whose pictures are of one class; nothing without any."""
    joined = [f"{top} ({first_of(folders)})" for top, folders in sorted(inside.items()) if folders]
    return (f"folders inside {first_of(joined)} are joined",) if joined else ()


def _too_many_loose(path: Path, loose: int, count: int, folders: Sequence[str]) -> str:
    return (
        f"{path}: {loose:,} of {count:,} pictures lie beside the folders {', '.join(map(_readable, folders[:4]))}; put "
        "each into one of these folders, or all into one folder"
    )


def _class_numbers(folders: Sequence[str]) -> tuple[dict[str, int], tuple[str, ...]]:
    """Return the label of each class folder, its own number where all have one, else its place; and what is odd."""
    places = {folder: place for place, folder in enumerate(folders)}
    if not all(folder.isdecimal() for folder in folders):
        return places, ()
    own = {folder: int(folder) if len(folder) < 20 else MAX_NUMBERED for folder in folders}
    largest = max(own.values())
    is_sparse = largest >= max(1000, SPARSE * len(folders))
    if largest < MAX_NUMBERED and len(set(own.values())) == len(folders) and not is_sparse:
        return own, gaps_in_words(list(own.values()))
    why = "some are the same number" if len(set(own.values())) < len(folders) else f"they go up to {largest:,}"
    why = f"some are above {MAX_NUMBERED - 1:,}" if largest >= MAX_NUMBERED else why
    return places, (f"the numbers of the class folders are taken as names, since {why}",)


def _names_of(numbers: dict[str, int]) -> tuple[str, ...]:
    """Return the classes' names by label; the label itself where no folder has it."""
    folders = {number: folder for folder, number in numbers.items()}
    return tuple(_readable(folders.get(label, str(label))) for label in range(max(folders, default=-1) + 1))


def _readable(name: str) -> str:
    """Return a name as text in one line, also where its bytes were no UTF-8."""
    try:
        name.encode()
    except UnicodeEncodeError:
        name = name.encode("utf-8", "surrogateescape").decode("latin-1")
    return re.sub(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]", "?", name)


def _folded(name: str) -> str:
    """Return a name whose case, and whose way to write accents, no longer matters."""
    return unicodedata.normalize("NFC", name).casefold()


def _natural(name: str) -> list[tuple[int, int, str]]:
    """Return a sort key under which 2 comes before 10."""
    words = [word for word in re.split(r"(\d+)", name) if word]
    return [(0, int(word), "") if word.isdecimal() and len(word) < 20 else (1, 0, word) for word in words]


def read_file(path: Path | str) -> bytes:
    """Return a picture's file; cut off where it is larger than any."""
    with open(path, "rb") as file:
        is_sound = os.fstat(file.fileno()).st_size <= MAX_MEMBER_BYTES
        return file.read() if is_sound else file.read(MAX_MEMBER_BYTES + 1)


def read_files(
    path: Path, names: Sequence[str], unreadable: dict[int, str] | None = None
) -> Iterator[tuple[int, bytes]]:
    """Yield the row and the bytes of these files, in the order that the source reads fastest.

    Args:
        unreadable: takes the rows of files that cannot be read, and why; None to raise OSError or DataError instead.
    """
    if holds_rows(names):
        yield from _read_tables(path if path.is_dir() else path.parent, names)
    elif path.is_dir():
        for row, name in enumerate(names):
            try:
                data = read_file(path / name)
            except OSError as error:
                if unreadable is None:
                    raise
                unreadable[row] = why_unreadable(error)
            else:
                yield row, data
    else:
        yield from read_archive(path, names, unreadable=unreadable)


def why_unreadable(error: OSError) -> str:
    """Return why a file could not be opened, in words of the system: it may be a link to nothing, or forbidden."""
    return (error.strerror or reason_of(error)).lower()


def holds_rows(names: Sequence[str]) -> bool:
    """Return whether these are names of rows of parquet files, FILE#ROW, rather than of files."""
    return bool(names) and names[0].rpartition("#")[0].lower().endswith(".parquet")


def _read_tables(root: Path, names: Sequence[str]) -> Iterator[tuple[int, bytes]]:
    """Yield what rows of parquet files hold, called FILE#ROW."""
    places: dict[str, dict[int, int]] = {}
    for place, name in enumerate(names):
        file, _, row = name.rpartition("#")
        places.setdefault(file, {})[int(row)] = place
    for file, own in places.items():
        for found, data in read_rows(root / file, list(own)):
            yield own[found], data[: MAX_MEMBER_BYTES + 1]


def rows_to_look_at(count: int) -> list[int]:
    """Return the rows of the pictures that say how a set of so many is prepared: all, or a fixed random choice."""
    return list(range(count)) if count <= LOOKS else sorted(random.Random(0).sample(range(count), LOOKS))


def look_around(source: PictureSource) -> list[Look]:
    """Return a look at some training pictures, spread over all; unreadable ones are left out.

    Raises DataError where none can be read.
    """
    looks, broken = look_at_rows(source, rows_to_look_at(len(source.parts["train"].names)))
    if not looks:
        reason = next(iter(broken.values()), "it is empty")
        raise DataError(f"no picture in {source.path} can be read ({reason}); give others")
    return list(looks.values())


def look_at_rows(source: PictureSource, rows: Sequence[int]) -> tuple[dict[int, Look], dict[int, str]]:
    """Return a look at each of these training pictures, and why others cannot be read, by row."""
    looks, broken, unreadable = dict[int, Look](), dict[int, str](), dict[int, str]()
    names = source.parts["train"].names
    for place, data in read_files(source.path, [names[row] for row in rows], unreadable):
        try:
            looks[rows[place]] = look_into(data)
        except DataError as error:
            broken[rows[place]] = str(error)
    broken |= {rows[place]: why for place, why in unreadable.items()}
    return dict(sorted(looks.items())), dict(sorted(broken.items()))


def list_broken(names: Sequence[str], broken: dict[int, str], what: str) -> str:
    """Return a sentence that counts the pictures that cannot be read, by row, and lists the first of them."""
    shown = "; ".join(f"{_readable(names[row])} ({why})" for row, why in sorted(broken.items())[:5])
    more = f"; and {len(broken) - 5:,} more" if len(broken) > 5 else ""
    return f"{len(broken):,} of {what} cannot be read: {shown}{more}"


def on_broken(source: object, names: Sequence[str], broken: dict[int, str], *, strict: bool) -> list[str]:
    """Return a sentence on the pictures that cannot be read, by row; none where all can.

    Raises DataError for more than one in ten, or any where `strict`.
    """
    if not broken:
        return []
    sentence = list_broken(names, broken, f"{len(names):,} pictures")
    if strict or len(broken) > MAX_BROKEN_SHARE * len(names):
        raise DataError(f"{source}: {sentence}; repair or remove them")
    return [f"{sentence}; they were left out"]
