"""One door for images of any kind: a path to a folder, an archive or a file, recognised by what is inside.

`open_source` says what a path holds, `load_source` reads a part of it as images, prepared.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from gansmith.config import ARRAY_FILES
from gansmith.data import cache
from gansmith.data.array_files import kind_of, read_file
from gansmith.data.arrays import (
    LOOKS,
    MAX_BYTES,
    Arrays,
    Parts,
    as_arrays,
    as_picture,
    background_of,
    joined,
    looks_at,
    numbered,
    opaque,
)
from gansmith.data.binary_sets import read_cifar_tar
from gansmith.data.folders import OTHER_WORDS, split_of, words_of
from gansmith.data.idx import IdxSource, find_idx, load_idx
from gansmith.data.images import MAX_IMAGES, Images, find_known, labels_sha256, with_known
from gansmith.data.label_files import is_label_file
from gansmith.data.labels import MAX_CLASSES, gaps_in_words
from gansmith.data.layouts import Range
from gansmith.data.loading import load_pictures
from gansmith.data.numpy_files import MAY_BE_LABELS, labels_beside
from gansmith.data.official import OFFICIAL, as_published, class_names, idx_digests, known_sets, oddities, set_of_file
from gansmith.data.on_disk import OnDisk, open_array
from gansmith.data.parquet import Table, open_table
from gansmith.data.pictures import (
    MAX_BROKEN_SHARE,
    Part,
    PictureSource,
    count_pictures,
    find_pictures,
    first_of,
    is_archive,
    list_names,
)
from gansmith.data.prepare import Preparation, Watch, keeps_size, prepare, settle
from gansmith.errors import DataError, GansmithError, NotFoundError

_TEST_WORDS = ("test", "t10k", "val")


@dataclass(frozen=True)
class FileSource:
    """Files of numbers that make up a data set.

    Attributes:
        layout: in words.
        parts: the files of "train" and, where there are some, of "test".
    """

    path: Path
    layout: str
    parts: dict[str, tuple[Path, ...]]
    notices: tuple[str, ...] = field(default=())


Source = PictureSource | FileSource | IdxSource


def open_source(path: Path, *, name: str = "") -> Source:
    """Return what a path holds. Raises NotFoundError or DataError where it holds no images.

    Args:
        name: of the data set, where files of several lie together.
    """
    path = expanded(path)
    if not path.exists() and (address := re.match(r"(\w{2,}:)[/\\]+(.*)", str(path))):
        raise DataError(
            f"{address[1]}//{address[2]} is an address, and addresses are not fetched; download it and give the path "
            "of the file"
        )
    if not path.exists():
        raise NotFoundError(f"there is no file or folder {str(path)!r}; give a data set's name, or the path of one")
    if not (path.is_file() or path.is_dir()):  # reading a pipe would never end
        raise DataError(f"{path} is a pipe, socket or device; give the path of a file or folder")
    found = find_idx(path, name)
    if found is not None:
        return found
    if path.is_file() and kind_of(path) == "parquet":
        return find_tables(path, [path])
    if path.is_file() and (kind_of(path) == "cifar-tar" or not is_archive(path)):
        return FileSource(path, _FILE_WORDS.get(kind_of(path), "a file"), {"train": (path,)})
    if path.is_file():
        return _open_archive(path, name)
    files = _files_in(path)
    if files is not None:
        return files
    try:
        return find_pictures(path)
    except NotFoundError:
        tables = sorted(file for file in path.rglob("*.parquet") if file.is_file())
        archives = sorted(file for file in path.iterdir() if is_archive(file) and file.is_file())
        if tables:
            return find_tables(path, tables)
        chosen = archives if len(archives) == 1 else [file for file in archives if split_of(file.stem) == "train"]
        if len(chosen) != 1:
            raise
        source = open_source(chosen[0], name=name)
        others = [file.name for file in archives if file not in chosen]
        words = [f"{chosen[0].name} was read, and not {first_of(others, 6)}"] if others else []
        if isinstance(source, PictureSource) and not source.parts["train"].labels:
            lists = [file.name for file in sorted(path.iterdir()) if is_label_file(file.name)]
            hint = f"{first_of(lists, 6)} beside {chosen[0].name} were not read; unpack it here to use them as labels"
            words += [hint] if lists else []
        return replace(source, notices=(*source.notices, *words))


def expanded(path: Path) -> Path:
    """Return a path with the home folder in place of ~. Raises DataError where the system cannot follow it."""
    try:
        path = path.expanduser()
        path.exists()
    except (OSError, RuntimeError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error).rstrip(".")
        shown = f"{str(path)[:80]}..." if len(str(path)) > 80 else str(path)
        raise DataError(f"{shown} cannot be opened ({reason}); give the path of a file or folder") from None
    return path


def _open_archive(path: Path, name: str) -> Source:
    """Return the pictures in an archive, CIFAR's binary files, or the tables, arrays or IDX files in it."""
    try:
        pictures = find_pictures(path)
    except NotFoundError as error:
        reason = error
        names, _ = list_names(path)
        if any(re.search(r"(^|/)(data_batch_\d+|train)\.bin$", name) for name in names):
            return FileSource(path, _FILE_WORDS["cifar-tar"], {"train": (path,)})
        from gansmith.data.unpacking import unpacked

        folder = unpacked(path, names)
        if folder is None:
            raise
    else:
        found = _beside_illustrations(path, pictures)
        return pictures if found is None else _as_in_archive(found, path)
    try:
        source = open_source(folder, name=name)
    except NotFoundError:  # of the tables and arrays, which are all that was unpacked
        raise reason from None
    except GansmithError as error:
        raise type(error)(str(error).replace(str(folder), str(path))) from None
    if isinstance(source, PictureSource):  # rows of parquet files, read from where they are
        return source
    return _as_in_archive(source, path)


def _as_in_archive(source: FileSource | IdxSource, path: Path) -> FileSource | IdxSource:
    """Return a source of unpacked files as one of the archive that they are from."""
    return replace(source, path=path, layout=source.layout.replace("in a folder", "in an archive"))


def _beside_illustrations(path: Path, pictures: PictureSource) -> FileSource | None:
    """Return the files of numbers that are the set in an archive, where a few pictures illustrate it; else None."""
    count = sum(len(part.names) for part in pictures.parts.values())
    if count >= FEW_PICTURES:
        return None
    from gansmith.data.unpacking import unpacked

    try:
        folder = unpacked(path, list_names(path)[0])
        if folder is None or not any(_is_set(file, count) for file in _array_files(folder)):
            return None
        found = _files_in(folder)
    except GansmithError:  # they are no set, whatever they are
        return None
    if not isinstance(found, FileSource):
        return None
    return replace(found, notices=(*found.notices, f"the {count:,} pictures beside these files were left out"))


FEW_PICTURES = 100  # in an archive of tables
_FILE_WORDS = {
    "npz": "arrays in a .npz file",
    "npy": "an array in a .npy file",
    "table": "a table of pixels",
    "cifar": "CIFAR's binary form",
    "cifar-tar": "CIFAR's binary form in an archive",
    "mat": "SVHN's .mat form",
}


def find_tables(path: Path, files: Sequence[Path]) -> PictureSource:
    """Return the pictures in parquet files, the shards of each split together.

    Args:
        path: of the one file, or the folder that holds them.
    """
    root = path if path.is_dir() else path.parent
    left_out: tuple[str, ...] = ()
    if any(split_of(file.name) == "train" for file in files):
        others = [file for file in files if words_of(file.name) & OTHER_WORDS and not split_of(file.name)]
        files = [file for file in files if file not in others]
        left_out = (f"left out beside the training part: {first_of([file.name for file in others])}",) if others else ()
    by_part: dict[str, list[Path]] = {"train": [], "test": []}
    for file in files:
        by_part[split_of(str(file.relative_to(root))) or "train"].append(file)
    if not by_part["train"]:
        by_part = {"train": by_part["test"]}
    tables = {part: [open_table(file) for file in own] for part, own in by_part.items() if own}
    every = [table for own in tables.values() for table in own]
    labelled = {part: own for part, own in tables.items() if part == "train" or all(map(_is_labelled, own))}
    places = {
        tuple(folder for folder in file.relative_to(path.parent).parts[:-1] if not split_of(folder)) for file in files
    }
    labels = {table.label for own in labelled.values() for table in own}
    if len({table.image for table in every}) > 1 or len(labels) > 1 or len(places) > 1:
        listing = ", ".join(str(file.relative_to(path)) for file in files[:6])
        raise DataError(f"{path} holds several sets of parquet files ({listing}); name one of them, or its folder")
    if sum(table.rows for table in every) > MAX_IMAGES:
        raise DataError(f"{path} holds more than {MAX_IMAGES:,} rows; take fewer")
    numbers, class_names, notices = _label_numbers([table for own in labelled.values() for table in own])
    notices = (*left_out, *dict.fromkeys(notice for table in every for notice in table.notices), *notices)
    if numbers and len(labelled) < len(tables):
        notices = (*notices, "the test images are without labels")
    parts = {}
    for part, own in tables.items():
        names = tuple(f"{table.path.relative_to(root)}#{row}" for table in own for row in range(table.rows))
        is_known = numbers and part in labelled
        labels_of_part = tuple(numbers[label] for table in own for label in table.labels) if is_known else ()
        parts[part] = Part(names, labels_of_part)
    if not any(part.names for part in parts.values()):
        raise NotFoundError(f"{path} holds no rows; give a parquet file with a picture in each row")
    count = f"{len(files)} parquet files" if len(files) > 1 else "a parquet file"
    return PictureSource(path, f"{count}, column {every[0].image}", parts, class_names, notices)


def _is_labelled(table: Table) -> bool:
    """Return whether all rows have labels; those of a test are often kept back, as -1 or nothing."""
    return bool(table.label) and not any(label is None or label == -1 for label in table.labels)


def _label_numbers(tables: Sequence[Table]) -> tuple[dict[Any, int], tuple[str, ...], tuple[str, ...]]:
    """Return the number of each label in these tables, the classes' names, and what is odd."""
    if not all(table.label for table in tables):
        return {}, (), ()
    column = tables[0].label
    if any(None in table.labels for table in tables):
        return {}, (), (f"the column {column} has gaps, so images are used without labels",)
    if {type(label) for table in tables for label in table.labels} == {int, str}:  # some hold digits alone
        texts = sorted({str(label) for table in tables for label in table.labels})
        if len(texts) <= MAX_CLASSES:
            places = {text: number for number, text in enumerate(texts)}
            return {label: places[str(label)] for table in tables for label in table.labels}, tuple(texts), ()
    try:
        found = sorted({label for table in tables for label in table.labels})
    except TypeError:  # lists, or of several kinds
        return {}, (), (f"the column {column} holds neither numbers nor names, so images are used without labels",)
    if len(found) > MAX_CLASSES or not all(isinstance(label, str | int) for label in found):
        what = f"{len(found):,} different values" if len(found) > MAX_CLASSES else "neither whole numbers nor names"
        return {}, (), (f"the column {column} holds {what}, so images are used without labels",)
    names = tables[0].class_names if len({table.class_names for table in tables}) == 1 else ()
    if all(isinstance(label, int) and 0 <= label < MAX_CLASSES for label in found):
        names = names if len(names) > max(found, default=0) else ()
        return {label: int(label) for label in found}, names, () if names else gaps_in_words(found)
    negative = sum(isinstance(label, int) and label < 0 for table in tables for label in table.labels)
    if negative:  # -1 stands for no label
        count = sum(table.rows for table in tables)
        words = f"the column {column} is below 0 in {negative:,} of {count:,} rows, so images are used without labels"
        return {}, (), (words,) if negative < count else ()
    return {label: number for number, label in enumerate(found)}, tuple(str(label) for label in found), ()


def _array_files(folder: Path) -> list[Path]:
    """Return the files of numbers in a folder, by their names."""
    files = sorted(file for file in folder.iterdir() if file.is_file() and not file.name.startswith("."))
    return [file for file in files if file.name.lower().endswith(ARRAY_FILES)]


def _files_in(folder: Path) -> FileSource | PictureSource | None:
    """Return the files of numbers that are the data set in a folder; None where there are none, or pictures are it.

    Beside pictures they are where all of them hold images, and are called as sets are or hold far more images: lists
    of pictures, their means and features are no sets.
    """
    known = [file for file in _array_files(folder) if not re.search(r"meta|submission", file.name.lower())]
    images = [file for file in known if not MAY_BE_LABELS.search(file.name.lower())]
    if not images:
        return None
    if any(is_archive(file) for file in folder.iterdir()) and not any(map(_count_images, images)):
        return None  # lists of the pictures in those
    pictures = count_pictures(folder)
    if pictures and not all(_is_set(file, pictures) for file in images):
        return None
    test = tuple(file for file in images if _is_test(file.name))
    train = tuple(file for file in images if file not in test)
    if not train:
        train, test = test, ()
    notices: tuple[str, ...] = ()
    called = [file for file in train if split_of(file.name) == "train"]
    if not pictures and len(called) == 1 < len(train) and kind_of(called[0]) in ("npz", "table", "npy", "mat"):
        others = [file.name for file in train if file not in called]
        train, notices = tuple(called), (f"{called[0].name} was read, and not {first_of(others)}",)
    kinds = {kind_of(file) for file in train}
    if kinds == {"parquet"}:
        return find_tables(folder, [*train, *test])
    if len(kinds) > 1 or (len(train) > 1 and kinds <= {"npz", "table", "npy", "mat"}):
        if pictures:
            return None
        listing = ", ".join(file.name for file in train[:6])
        raise DataError(f"{folder} holds several files that may be meant ({listing}); name one of them")
    parts = {"train": train, **({"test": test} if test else {})}
    notices = (*notices, *(("the pictures beside these files were left out",) if pictures else ()))
    return FileSource(folder, f"{_FILE_WORDS[kinds.pop()]} in a folder", parts, notices)


def _is_test(name: str) -> bool:
    """Return whether a file's name speaks of a test: by its words, or by part of one where these say nothing."""
    split = split_of(name)
    return split == "test" or (not split and any(word in name.lower() for word in _TEST_WORDS))


_SET_NAMES = re.compile(r"train|test|t10k|images|samples|data|set|mnist|cifar|svhn|(^|_)x[._]")


def _is_set(file: Path, pictures: int) -> bool:
    """Return whether a file of numbers holds images and is a set by its name, or by their number beside pictures."""
    count = _count_images(file)
    is_called = count > pictures and bool(_SET_NAMES.search(file.name.lower()))
    return is_called or (count > 0 and pictures <= MAX_BROKEN_SHARE * count)


def _count_images(file: Path) -> int:
    """Return how many training images a file of numbers holds; 0 for one that holds none."""
    kind = kind_of(file)
    try:
        if kind == "parquet":
            return open_table(file).rows
        stored = open_array(file) if kind == "npy" else None
        return len(read_file(file)["train"].pixels) if stored is None else len(stored)
    except DataError:
        return 0


def load_source(
    source: Source, how: Preparation, *, part: str = "train", name: str = "images", watch: Watch | None = None
) -> Images:
    """Return the images of a part, prepared.

    Args:
        watch: called with the number of pictures done and of all, while pictures are prepared.

    Raises NotFoundError where the source has no such part, DataError for damage.
    """
    if isinstance(source, IdxSource):
        return as_prepared(load_idx(source, part, name=name), how, is_own=False)
    if isinstance(source, PictureSource):
        if part not in source.parts:
            raise NotFoundError(f"{source.path} holds no {part} images")
        return load_pictures(source, how, part=part, name=name, watch=watch)
    if part not in source.parts and _open_large(source.parts["train"]) is not None:
        raise NotFoundError(f"{source.path} holds no {part} images")
    found = _large_array(source, how, part, name)
    return _load_files(source, how, part, name) if found is None else found


# The tables of AHCD and AHDD, Arabic letters and digits.
_BY_COLUMNS = re.compile(r"csv(train|test)images?(?![a-z])", re.IGNORECASE)


def _load_files(source: FileSource, how: Preparation, part: str, name: str) -> Images:
    """Return the images in files of numbers, called what their content says, else what they are asked for as."""
    arrays = read_arrays(source, part)
    if part != "train" and how.background == "auto" and arrays.pixels.shape[3] == 4:
        how = replace(how, background=background_of(read_arrays(source, "train")))
    digests = arrays.digests
    if not digests and arrays.pixels.shape[3] == 1:
        digests = idx_digests(arrays.pixels[..., 0], arrays.labels)
    file = source.parts.get(part, source.parts["train"])[0]
    of_file = set_of_file(file.name) if kind_of(file) == "table" else ""  # EMNIST's tables are as its IDX files
    known = known_sets(digests)
    called = name if name in known else known[0] if known else of_file or name
    notices = oddities(called, part, digests, source.path)
    if called != name and name in OFFICIAL:
        notices = (f"these are the images of {called}, so the set is called {called}, not {name}", *notices)
    images = arrays_as_images(arrays, how, name=called)
    images = as_published(images, called) if of_file else images
    if kind_of(file) == "table" and _BY_COLUMNS.match(file.name):
        words = f"{file.name} holds each image column by column, as MATLAB does, so images are transposed"
        images = replace(images, pixels=images.pixels.mT.contiguous(), notices=(*images.notices, words))
    names = arrays.class_names or class_names(called)
    if not images.class_names and images.labels is not None and len(names) >= images.num_classes:
        images = replace(images, class_names=names)
    return replace(images, source=str(source.path), notices=(*source.notices, *notices, *images.notices))


def stored_shape(source: IdxSource | FileSource) -> tuple[int, int, int]:
    """Return the (height, width, channels) of the training images as they are stored."""
    if isinstance(source, IdxSource):
        channels, height, width = load_idx(source, "train", name="images").pixels.shape[1:]
        return height, width, channels
    large = _open_large(source.parts["train"])
    if large is not None:
        return large.shape[2], large.shape[3], large.shape[1]
    height, width, channels = read_arrays(source, "train").pixels.shape[1:]
    return height, width, channels


def arrays_as_images(arrays: Arrays, how: Preparation, *, name: str) -> Images:
    """Return arrays as images, prepared."""
    arrays = opaque(arrays, how.background)
    how, notices = settle_arrays(how, arrays)
    labels = None if arrays.labels is None else torch.from_numpy(arrays.labels)
    pixels = torch.from_numpy(prepare_arrays(arrays, how))
    if arrays.pixels.shape[1:3] != (how.size, how.size):
        notices = (*notices, how.in_words())
    return Images(pixels, labels, name=name, source=arrays.source, notices=(*arrays.notices, *notices))


def _large_array(source: FileSource, how: Preparation, part: str, name: str) -> Images | None:
    """Return the images of one .npy file that is too large for memory, as they are; None for other files.

    Raises DataError where they are asked for in another form.
    """
    files = source.parts.get(part, ())
    pixels = _open_large(files)
    if pixels is None:
        return None
    _, channels, height, width = pixels.shape
    colors = ("auto", "grey", "", "rgb")
    if len(pixels) > MAX_IMAGES or how.size not in (0, width) or how.color not in ("auto", colors[channels]):
        raise DataError(
            f"{files[0]} holds {len(pixels):,} images of {height} x {width} x {channels}, and a file too large for "
            f"memory is used as it is, up to {MAX_IMAGES:,} images; save it as it is wanted, or omit --size and --color"
        )
    if pixels[:: max(1, len(pixels) // LOOKS)].max() <= 1:
        raise DataError(f"{files[0]} holds 0 and 1 alone, which as they are would be black; save them as 0 and 255")
    found = labels_beside(files[0], len(pixels))
    images = Images(
        pixels,
        None if found.numbers is None else torch.from_numpy(found.numbers),
        name=name,
        source=str(files[0]),
        notices=(*source.notices, *found.notices),
        class_names=found.class_names,
    )
    content = [cache.content_of(files[0]), labels_sha256(images.labels)]
    identity = {"source": str(files[0].resolve()), "part": part, "asked": "as it is", "content": content}
    return with_known(images, cache.remember(identity, partial(find_known, images)))


def _open_large(files: Sequence[Path]) -> OnDisk | None:
    """Return the images of one .npy file that is too large for memory; None for other files."""
    if len(files) != 1 or kind_of(files[0]) != "npy" or files[0].stat().st_size <= cache.MEMORY_BYTES:
        return None
    pixels = open_array(files[0])
    if pixels is None and files[0].stat().st_size <= MAX_BYTES:
        return None
    if pixels is None:
        raise DataError(f"{files[0]} is too large to be read into memory; save it as uint8 (N, size, size, channels)")
    return pixels


def as_prepared(images: Images, how: Preparation, *, is_own: bool = True) -> Images:
    """Return images in the size and color asked for; as they are where none was.

    Args:
        is_own: whether they are a program's own, which keep any size; others are brought to one that networks take.
    """
    channels, height, width = images.pixels.shape[1:]
    is_size = how.size == width == height if how.size else is_own or keeps_size(width, height)
    if is_size and how.color in ("auto", ("grey", "", "rgb")[channels - 1]):
        return images
    arrays = Arrays(images.pixels.permute(0, 2, 3, 1).numpy(), None, images.source)
    settled, notices = settle_arrays(how, arrays)
    pixels = torch.from_numpy(prepare_arrays(arrays, settled))
    return replace(images, pixels=pixels, notices=(*images.notices, *notices, settled.in_words()))


def read_arrays(source: FileSource, part: str) -> Arrays:
    """Return all files of a part as one; where labels are names, numbered as those of the training images are."""
    if part in source.parts and part != "train":
        found = [_read_test(file) for file in source.parts[part]]
        if any(one.numbers != Range() for one in found):
            like = _training_numbers(source)
            found = [_read_test(file, like) for file in source.parts[part]]
    else:
        each = [_read(file) for file in source.parts["train"]]
        found = [parts[part] for parts in each if part in parts]
    if not found:
        raise NotFoundError(f"{source.path} holds no {part} images")
    if sum(len(one.pixels) for one in found) > MAX_IMAGES:
        raise DataError(f"{source.path} holds more than {MAX_IMAGES:,} images; take fewer")
    whole = joined(found, str(source.path))
    if part != "train" and whole.class_names and kind_of(source.parts["train"][0]) in ("table", "npz", "npy"):
        return numbered(whole, read_arrays(source, "train").class_names)
    return whole


def _training_numbers(source: FileSource) -> Arrays:
    """Return the training images, or some of them where they are in a file too large for memory."""
    large = _open_large(source.parts["train"])
    return read_arrays(source, "train") if large is None else as_arrays(large[:LOOKS].numpy(), None, str(source.path))


def _read(file: Path) -> Parts:
    """Return the parts in a file of numbers; an archive is one of CIFAR's binary files, whatever its name."""
    return read_cifar_tar(file) if is_archive(file) else read_file(file)


def _read_test(file: Path, like: Arrays | None = None) -> Arrays:
    """Return the images in a file of test images, whose arrays may be called as such or as any."""
    parts = read_cifar_tar(file) if is_archive(file) else read_file(file, like=like, is_test=True)
    return parts["train"] if "train" in parts else parts["test"]


def settle_arrays(how: Preparation, arrays: Arrays) -> tuple[Preparation, tuple[str, ...]]:
    """Return how arrays are prepared: as they are, unless a size or color was asked for or theirs does not do."""
    if not len(arrays.pixels):
        raise DataError(f"{arrays.source} holds no images; give a data set with at least one")
    if how.color == "auto":  # one image in color is enough
        pixels = arrays.pixels
        how = replace(how, color="rgb" if pixels.shape[3] == 3 and (pixels != pixels[..., :1]).any() else "grey")
    return settle(how, looks_at(arrays))


def prepare_arrays(arrays: Arrays, how: Preparation) -> np.ndarray:
    """Return uint8 (N, C, size, size)."""
    pixels = arrays.pixels
    if pixels.shape[1:3] == (how.size, how.size):
        if how.color == "grey" and pixels.shape[3] == 3 and (pixels == pixels[..., :1]).all():
            pixels = pixels[..., :1]
        if pixels.shape[3] == how.channels:
            return np.array(pixels.transpose(0, 3, 1, 2), order="C")
        if pixels.shape[3] == 1:
            return np.repeat(pixels.transpose(0, 3, 1, 2), 3, axis=1)
    prepared = np.empty((len(pixels), how.channels, how.size, how.size), np.uint8)
    for row, image in enumerate(pixels):
        prepared[row] = prepare(as_picture(image), how)
    return prepared
