"""Known data sets: their official files, where these are served, what they hash to, and where they are looked for.

What a file is called proves nothing: images are an official set's where their SHA-256 says so.
"""

import hashlib
import os
import re
import tempfile
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gansmith.data.images import Images
from gansmith.errors import ConfigError, DataError, NotFoundError
from gansmith.files import file_sha256

OFFLINE = "GANSMITH_OFFLINE"  # any value: never touch the network


@dataclass(frozen=True)
class OfficialSet:
    """A published data set.

    Attributes:
        sha256: of each file that is downloaded, by its name.
        mirrors: addresses to put before these names, tried in order.
        is_unpacked: whether the hashes are of what gzip files hold, since mirrors pack differently, not of the files.
        members: SHA-256 of the files in its archive, by name.
        class_names: by label; empty where numbers are their names.
        first_label: the smallest label in its files, which is 0 here.
        folder: where it is kept in the cache, if others are kept there too.
    """

    sha256: Mapping[str, str]
    mirrors: tuple[str, ...]
    is_unpacked: bool = False
    members: Mapping[str, str] = field(default_factory=dict)
    class_names: tuple[str, ...] = ()
    first_label: int = 0
    folder: str = ""


def _emnist(class_names: str, *, first_label: int = 0) -> OfficialSet:
    """Return one of EMNIST's six sets, which share an archive of 562 MB.

    Hash as in TensorFlow Datasets' url_checksums/emnist.txt. Source: arXiv:1702.05373.
    """
    return OfficialSet(
        {"gzip.zip": "fb9bb67e33772a9cc0b895e4ecf36d2cf35be8b709693c3564cea2a019fcda8e"},
        ("https://biometrics.nist.gov/cs_links/EMNIST/", "https://www.itl.nist.gov/iaui/vip/cs_links/EMNIST/"),
        class_names=tuple(class_names),
        first_label=first_label,
        folder="emnist",
    )


_DIGITS, _CAPITALS, _LETTERS = "0123456789", "ABCDEFGHIJKLMNOPQRSTUVWXYZ", "abcdefghijklmnopqrstuvwxyz"

# Fashion-MNIST's hashes were computed from the published files; MNIST's are widely quoted. Those of KMNIST, QMNIST,
# EMNIST, CIFAR and SVHN are in TensorFlow Datasets' url_checksums; those of CIFAR's members in torchvision-ruby.
OFFICIAL: dict[str, OfficialSet] = {
    "mnist": OfficialSet(
        {
            "train-images-idx3-ubyte.gz": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
            "train-labels-idx1-ubyte.gz": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
            "t10k-images-idx3-ubyte.gz": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
            "t10k-labels-idx1-ubyte.gz": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
        },
        ("https://ossci-datasets.s3.amazonaws.com/mnist/", "https://storage.googleapis.com/cvdf-datasets/mnist/"),
        is_unpacked=True,
    ),
    "fashion-mnist": OfficialSet(
        {
            "train-images-idx3-ubyte.gz": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
            "train-labels-idx1-ubyte.gz": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
            "t10k-images-idx3-ubyte.gz": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
            "t10k-labels-idx1-ubyte.gz": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
        },
        (
            "https://storage.googleapis.com/tensorflow/tf-keras-datasets/",
            "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
        ),
        is_unpacked=True,
        class_names=(
            "t-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot",
        ),
    ),
    "kmnist": OfficialSet(
        {
            "train-images-idx3-ubyte.gz": "51467d22d8cc72929e2a028a0428f2086b092bb31cfb79c69cc0a90ce135fde4",
            "train-labels-idx1-ubyte.gz": "e38f9ebcd0f3ebcdec7fc8eabdcdaef93bb0df8ea12bee65224341c8183d8e17",
            "t10k-images-idx3-ubyte.gz": "edd7a857845ad6bb1d0ba43fe7e794d164fe2dce499a1694695a792adfac43c5",
            "t10k-labels-idx1-ubyte.gz": "20bb9a0ef54c7db3efc55a92eef5582c109615df22683c380526788f98e42a1c",
        },
        ("https://codh.rois.ac.jp/kmnist/dataset/kmnist/", "http://codh.rois.ac.jp/kmnist/dataset/kmnist/"),
        class_names=("o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo"),
    ),
    "qmnist": OfficialSet(
        {
            "qmnist-train-images-idx3-ubyte.gz": "9e26a7bf1683614e065d7b76460ccd52807165b3f22561fb782bd9f38c52b51d",
            "qmnist-train-labels-idx2-int.gz": "2c05dc77f6b916b38e455e97ab129a42a444f3dbef09b278a366f82904e0dd9f",
            "qmnist-test-images-idx3-ubyte.gz": "43fc22bf7498b8fc98de98369d72f752d0deabc280a43a7bcc364ab19e57b375",
            "qmnist-test-labels-idx2-int.gz": "9fbcbe594c3766fdf4f0b15c5165dc0d1e57ac604e01422608bb72c906030d06",
        },
        (
            "https://raw.githubusercontent.com/facebookresearch/qmnist/master/",
            "https://github.com/facebookresearch/qmnist/raw/master/",
        ),
    ),
    "emnist-balanced": _emnist(_DIGITS + _CAPITALS + "abdefghnqrt"),
    "emnist-byclass":  _emnist(_DIGITS + _CAPITALS + _LETTERS),
    "emnist-bymerge":  _emnist(_DIGITS + _CAPITALS + "abdefghnqrt"),
    "emnist-digits":   _emnist(""),
    "emnist-letters":  _emnist(_LETTERS, first_label=1),
    "emnist-mnist":    _emnist(""),
    "cifar10": OfficialSet(
        {"cifar-10-binary.tar.gz": "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd"},
        (
            "https://www.cs.toronto.edu/~kriz/",
            "https://storage.googleapis.com/s4tf-hosted-binaries/datasets/CIFAR10/",
        ),
        members={
            "data_batch_1.bin": "cee916563c9f80d84e3cc88e17fdc0941787f1244f00a67874d45b261883ada5",
            "data_batch_2.bin": "a591ca11fa1708a91ee40f54b3da4784ccd871ecf2137de63f51ada8b3fa57ed",
            "data_batch_3.bin": "bbe8596564c0f86427f876058170b84dac6670ddf06d79402899d93ceea26f67",
            "data_batch_4.bin": "014e562d6e23c72197cc727519169a60359f5eccd8945ad5a09d710285ff4e48",
            "data_batch_5.bin": "755304fc0b379caeae8c14f0dac912fbc7d6cd469eb67a1029a08a39453a9add",
            "test_batch.bin": "8e2eb146ae340b09e24670f29cabc6326dba54da8789dab6768acf480273f65b",
        },
        class_names=(
            "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck",
        ),
    ),
    "cifar100": OfficialSet(
        {"cifar-100-binary.tar.gz": "58a81ae192c23a4be8b1804d68e518ed807d710a4eb253b1f2a199162a40d8ec"},
        ("https://www.cs.toronto.edu/~kriz/", "http://www.cs.toronto.edu/~kriz/"),
        members={
            "train.bin": "f31298fc616915fa142368359df1c4ca2ae984d6915ca468b998a5ec6aeebf29",
            "test.bin": "d8b1e6b7b3bee4020055f0699b111f60b1af1e262aeb93a0b659061746f8224a",
        },
        class_names=(
            "apple", "aquarium_fish", "baby", "bear", "beaver", "bed", "bee", "beetle", "bicycle", "bottle", "bowl",
            "boy", "bridge", "bus", "butterfly", "camel", "can", "castle", "caterpillar", "cattle", "chair",
            "chimpanzee", "clock", "cloud", "cockroach", "couch", "crab", "crocodile", "cup", "dinosaur", "dolphin",
            "elephant", "flatfish", "forest", "fox", "girl", "hamster", "house", "kangaroo", "keyboard", "lamp",
            "lawn_mower", "leopard", "lion", "lizard", "lobster", "man", "maple_tree", "motorcycle", "mountain",
            "mouse", "mushroom", "oak_tree", "orange", "orchid", "otter", "palm_tree", "pear", "pickup_truck",
            "pine_tree", "plain", "plate", "poppy", "porcupine", "possum", "rabbit", "raccoon", "ray", "road",
            "rocket", "rose", "sea", "seal", "shark", "shrew", "skunk", "skyscraper", "snail", "snake", "spider",
            "squirrel", "streetcar", "sunflower", "sweet_pepper", "table", "tank", "telephone", "television", "tiger",
            "tractor", "train", "trout", "tulip", "turtle", "wardrobe", "whale", "willow_tree", "wolf", "woman",
            "worm",
        ),
    ),
    "svhn": OfficialSet(
        {
            "train_32x32.mat": "435e94d69a87fde4fd4d7f3dd208dfc32cb6ae8af2240d066de1df7508d083b8",
            "test_32x32.mat": "cdce80dfb2a2c4c6160906d0bd7c68ec5a99d7ca4831afa54f09182025b6a75b",
        },
        ("http://ufldl.stanford.edu/housenumbers/", "https://ufldl.stanford.edu/housenumbers/"),
    ),
}  # fmt: skip

_ALIASES = {"cifar10": ("cifar-10",), "cifar100": ("cifar-100",)}  # other names of the folder that holds a set
_COUNTS = (60_000, 10_000)  # images of the parts whose content can be compared with IDX files of known hashes


def part_of(file: str) -> str:
    """Return the part that a file's name speaks of; empty for none."""
    name = file.lower()
    return "train" if "train" in name else "test" if "t10k" in name or "test" in name else ""


def is_of(file: str, part: str) -> bool:
    """Return whether a file is of a part; CIFAR-10's batches of training images name none."""
    return (part_of(file) or "train") == part


def oddities(name: str, part: str, digests: Collection[str], where: object) -> tuple[str, ...]:
    """Return a sentence where files are not, or not all of, a part of the official set of this name."""
    if name not in OFFICIAL:
        return ()
    known = OFFICIAL[name]
    files = {digest: file for file, digest in (known.members or known.sha256).items() if is_of(file, part)}
    if set(digests) - set(files):
        return (f"the images in {where} are not the official {name} {part} set; used as they are",)
    if digests and len(set(digests)) < len(files) and known.members:
        return (f"{where} holds {len(set(digests))} of the {len(files)} files of {name}'s {part} images",)
    return ()


def class_names(name: str) -> tuple[str, ...]:
    """Return the names of a set's classes; empty where numbers are their names, and for an unknown set."""
    return OFFICIAL[name].class_names if name in OFFICIAL else ()


def known_sets(digests: Collection[str]) -> list[str]:
    """Return the sets that all of these SHA-256 are files of; none for no digests."""
    of_sets = {name: {*known.sha256.values(), *known.members.values()} for name, known in OFFICIAL.items()}
    return [name for name, own in of_sets.items() if digests and own >= set(digests)]


def set_of_file(file: str) -> str:
    """Return the set that a file's name says it is of, where only one set has such names: EMNIST's and QMNIST's."""
    named = re.match(r"(emnist-(balanced|byclass|bymerge|digits|letters|mnist)|qmnist)-(train|test)", file.lower())
    return named[1] if named else ""


def idx_digests(pixels: NDArray[np.uint8], labels: NDArray[np.int64] | None) -> tuple[str, ...]:
    """Return the SHA-256 of the IDX files that these grey images and labels would make; none where no set has as many.

    Args:
        pixels: (N, H, W).
    """
    if len(pixels) not in _COUNTS or labels is None or labels.min() < 0 or labels.max() > 255:
        return ()
    return _idx_digest(pixels), _idx_digest(labels.astype(np.uint8))


def _idx_digest(values: NDArray[np.uint8]) -> str:
    header = bytes([0, 0, 8, values.ndim]) + np.array(values.shape, ">u4").tobytes()
    return hashlib.sha256(header + np.ascontiguousarray(values).tobytes()).hexdigest()


def called_official(images: Images) -> Images:
    """Return images with the name and the classes of the set whose training part they are, if they are one's."""
    if images.labels is None or images.spec.channels != 1 or len(images) not in _COUNTS:
        return images
    digests = idx_digests(images.pixels[:, 0].numpy(), images.labels.numpy())
    known = [name for name in known_sets(digests) if _is_training(name, digests)]
    return replace(images, name=known[0], class_names=OFFICIAL[known[0]].class_names) if known else images


def _is_training(name: str, digests: Collection[str]) -> bool:
    return all(part_of(file) == "train" for file, digest in OFFICIAL[name].sha256.items() if digest in digests)


def as_published(images: Images, name: str) -> Images:
    """Return images as read from a set's files, upright, their labels from 0, with the names of its classes.

    EMNIST's files hold rows and columns swapped, whatever their form; the labels of its letters begin at 1.
    """
    if name not in OFFICIAL:
        return images
    known, pixels, labels, notices = OFFICIAL[name], images.pixels, images.labels, images.notices
    if known.folder == "emnist":
        pixels = pixels.transpose(2, 3).contiguous()
    if known.first_label and labels is not None and len(labels) and int(labels.min()) >= known.first_label:
        labels = labels - known.first_label
        notices = (*notices, f"labels of {name} begin at {known.first_label} in its files, and at 0 here")
    has_names = labels is not None and images.num_classes - known.first_label <= len(known.class_names)
    class_names = known.class_names if has_names else ()
    return replace(images, pixels=pixels, labels=labels, notices=notices, class_names=class_names)


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a file as it is, taken once while it is unchanged."""
    found = path.stat()
    return _file_digest(path, found.st_mtime_ns, found.st_size)


@lru_cache
def _file_digest(path: Path, *version: int) -> str:
    return file_sha256(path)


def places(name: str) -> list[Path]:
    """Return the folders a named set is looked for in, in order."""
    folder = OFFICIAL[name].folder if name in OFFICIAL else ""
    return [*shared_places(name), cache_dir(folder or name), Path("/usr/share/datasets") / name]


def shared_places(name: str) -> list[Path]:
    """Return the folders of $GANSMITH_DATA that a named set may lie in."""
    shared = os.environ.get("GANSMITH_DATA")
    if shared in OFFICIAL and not Path(shared).is_dir():
        raise ConfigError(
            f"GANSMITH_DATA is {shared!r}, which is no folder; it names the folder that holds data sets, and "
            f"--data {shared} chooses a set"
        )
    folder = OFFICIAL[name].folder if name in OFFICIAL else ""
    names = (name, *_ALIASES.get(name, ()), *([folder] if folder else []))
    return [Path(shared).expanduser() / each for each in names] if shared else []


def cache_dir(name: str) -> Path:
    """Return the folder where a downloaded set is kept: in $GANSMITH_CACHE, else in the user's cache folder."""
    base = os.environ.get("GANSMITH_CACHE")
    return (Path(base).expanduser() if base else _user_cache()) / name


def _user_cache() -> Path:
    """Return the user's cache folder; a temporary one without a home, as in some containers, or in a hand-in."""
    try:
        import platformdirs

        found = Path(platformdirs.user_cache_dir("gansmith", appauthor=False))
    except (ImportError, RuntimeError):  # without a home older versions return a path that begins with "~"
        found = Path("~")
    return found if found.is_absolute() else Path(tempfile.gettempdir()) / ".cache" / "gansmith"


def can_fetch(name: str) -> bool:
    """Return whether a set is one that is downloaded, and downloads are allowed."""
    return name in OFFICIAL and not os.environ.get(OFFLINE)


def fetch(name: str, part: str) -> Path:
    """Download the files of a part of an official set into the cache; returns their folder.

    Raises DataError for a set that is not downloaded, NotFoundError where a file cannot be had.
    """
    if name not in OFFICIAL:
        raise DataError(f"{name} cannot be downloaded; allowed: {', '.join(OFFICIAL)}; give --data-dir for others")
    from gansmith.data.download import content_sha256, download  # few runs need it, and none of a hand-in's

    known = OFFICIAL[name]
    folder = cache_dir(known.folder or name)
    wanted = [file for file in known.sha256 if part_of(file) in ("", part)]
    # Images last: a set is looked for by them, so a half that arrived is not taken for one without labels.
    for file in sorted(wanted, key=lambda file: "images" in file):
        digest = content_sha256 if known.is_unpacked else file_digest
        if (folder / file).is_file() and digest(folder / file) == known.sha256[file]:
            continue
        if not can_fetch(name):
            raise NotFoundError(f"{name} is not downloaded while {OFFLINE} is set; unset it, or give --data-dir")
        urls = [f"{mirror}{file}" for mirror in known.mirrors]
        try:
            download(urls, folder / file, sha256=known.sha256[file], is_unpacked=known.is_unpacked)
        except NotFoundError as error:
            raise NotFoundError(
                f"{name} could not be downloaded ({error}); try again, or download {', '.join(known.sha256)} by hand "
                f"from one of these addresses and put it into {folder} or a folder named with --data-dir"
            ) from None
    return folder
