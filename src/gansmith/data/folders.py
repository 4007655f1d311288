"""What the names of folders around pictures say: which are splits, masks or copies, and which hold the same classes.

A place is the path of a folder that holds pictures, inside a source.
"""

import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence

_WHATS = ("", "set", "data", "images", "imgs", "sample")  # that may follow in the same word
TRAIN_WORDS = {f"{word}{what}" for word in ("train", "training") for what in _WHATS} | {"trainval", "trn"}
TEST_WORDS = {f"{word}{what}" for word in ("test", "testing", "val", "validation") for what in _WHATS}
TEST_WORDS |= {"tst", "valid", "dev", "eval", "evaluation", "holdout"}
SAMPLE_WORDS = {"sample", "samples", "trainsample", "trainingsample", "testsample"}  # of a set, beside all of it
# Of splits beside a training one.
OTHER_WORDS = {"unlabeled", "unlabelled", "unsupervised", "extra", "query", "gallery", "pred"}
IMAGE_WORDS = {"image", "images", "img", "imgs"}
MASK_WORDS = {"mask", "masks", "label", "labels", "annotation", "annotations", "segmentation", "segmentations"}
# Of folders of images, and of what lies beside them under the same names.
_IMAGE_FOLDERS = IMAGE_WORDS | TRAIN_WORDS | TEST_WORDS
_IMAGE_FOLDERS |= {"original", "originals", "raw", "photo", "photos", "picture", "pictures", "input", "jpegimages"}
_MASK_FOLDERS = MASK_WORDS | {"gt", "truth", "groundtruth", "seg", "depth", "thumbnail", "thumbnails", "thumbs"}
_MASK_NAME = re.compile(r"[ _-]+(masks?|seg|segmentation|gt|annotation|label)([ _-]*\d+)?$", re.IGNORECASE)
MOSTLY_ALIKE = 0.9  # of the names in a folder of masks are those of images
FEW_IN_PORTION = 100  # some pictures of a set may have been taken out
FOLD_WORDS = {"fold", "part", "batch", "chunk", "shard", "split", "subset"}  # of numbered parts of one set


def words_of(name: str) -> set[str]:
    """Return the words in a name, in lower case.

    >>> sorted(words_of("trainingSet_2"))
    ['set', 'training']
    """
    return set(re.split(r"[\W\d_]+", re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name).lower())) - {""}


def split_of(name: str) -> str:
    """Return the split that the words of a name speak of, "train" or "test"; empty for none.

    >>> [split_of(name) for name in ("seg_train", "val2017", "trainval", "TestData", "cats")]
    ['train', 'test', 'train', 'test', '']
    """
    words = words_of(name)
    return "train" if words & TRAIN_WORDS else "test" if words & TEST_WORDS else ""


def parts_of(name: str) -> list[str]:
    """Return the folders in a path and what is inside the last."""
    return [part for part in name.split("/") if part not in ("", ".")]


def places_of(names: Sequence[str]) -> set[str]:
    """Return the folders that files lie in."""
    return {name.rpartition("/")[0] for name in names}


def without_common_folders(names: Sequence[str], *, keep: Collection[str] = ()) -> list[str]:
    """Return the names without the folders that all of them share.

    Args:
        keep: folders that are left, with what is inside.
    """
    paths = [parts_of(name) for name in names]
    depth = 0
    while all(len(parts) > depth + 1 for parts in paths) and len({parts[depth] for parts in paths}) == 1:
        if paths[0][depth] in keep:
            break
        depth += 1
        if paths[0][depth - 1].lower() in TRAIN_WORDS | TEST_WORDS:  # a split of its own
            break
    return ["/".join(parts[depth:]) for parts in paths]


def folders_inside(names: Sequence[str]) -> dict[str, set[str]]:
    """Return the folders inside each outermost folder, without those that all of its files share.

    >>> folders_inside(["set/a/cat/1.png", "set/a/cat/2.png", "b/owl/1.png", "b/2.png"])
    {'b': {'owl'}, 'set': set()}
    """
    by_top: dict[str, list[str]] = {}
    for place in sorted(places_of(names)):
        top, *inner = parts_of(place) or [""]
        by_top.setdefault(top, []).append("/".join([*inner, "file"]))
    by_top.pop("", None)
    return {
        top: {name.split("/", 1)[0] for name in without_common_folders(inner) if "/" in name}
        for top, inner in by_top.items()
    }


def hold_same_classes(inside: Mapping[str, set[str]]) -> bool:
    """Return whether several folders all hold the same folders, two or more."""
    first = next(iter(inside.values()), set())
    return len(inside) > 1 and len(first) > 1 and all(folders == first for folders in inside.values())


def training_folder(inside: Mapping[str, set[str]]) -> str:
    """Return the folder of training images, where its name or those of the others say what they are; else "".

    It is the only one with folders inside, or the only one not called a test, as the others are, and otherwise alike.

    Args:
        inside: the folders inside each.

    >>> training_folder({"train": {"cat", "dog"}, "predict": set()})
    'train'
    >>> training_folder({"all": {"cat", "dog"}, "test": set()})
    'all'
    >>> training_folder({"images_background": {"Greek", "Latin"}, "images_evaluation": {"Malay", "Tibetan"}})
    'images_background'
    """
    unnamed = [top for top in inside if not split_of(top)]
    if len(unnamed) == 1 and len(inside) > 1:
        words = words_of(unnamed[0])
        if all(split_of(top) == "test" and words_of(top) & words for top in inside if top != unnamed[0]):
            return unnamed[0]
    full = [top for top, folders in inside.items() if len(folders) > 1]
    others = [top for top in inside if top and top not in full]  # some pictures may lie beside them
    if len(full) != 1 or not others or any(inside[top] for top in others):
        return ""
    is_named = split_of(full[0]) == "train" and len(others) == 1 and split_of(others[0]) != "train"
    is_left = not split_of(full[0]) and all(split_of(top) == "test" for top in others)
    return full[0] if is_named or is_left else ""


def folders_of_masks(tops: Collection[str], splits: Mapping[str, str]) -> set[str]:
    """Return the splits that hold masks of the images in another folder of the same split.

    >>> folders_of_masks(["train", "train_labels"], {"train": "train", "train_labels": "train"})
    {'train_labels'}
    """
    masks = {top for top in tops if words_of(top) & MASK_WORDS}
    with_images = {splits.get(top) for top in tops if top not in masks}
    return {top for top in masks if splits.get(top) in with_images}


def are_portions(names: Sequence[str]) -> bool:
    """Return whether numbered folders hold a thousand files each, by the files' own numbers, as StyleGAN's tools do.

    >>> are_portions([f"{number // 1000:05}/img{number:08}.png" for number in range(1200)])
    True
    >>> are_portions(["0001/0001.png", "0002/0002.png"])
    False
    """
    pairs = []
    for name in names:
        folder, _, file = name.rpartition("/")
        digits = re.search(r"(\d{1,18})\.\w+$", file)
        if not re.fullmatch(r"\d{4,8}", folder) or digits is None:
            return False
        pairs.append((int(folder), int(digits[1])))
    counts = Counter(folder for folder, _ in pairs)
    is_much = all(counts[folder] >= FEW_IN_PORTION for folder in sorted(counts)[:-1])  # the last may hold the rest
    in_turn = all(folder == number // 1000 for folder, number in pairs)
    return is_much and (in_turn or all(folder == number - number % 1000 for folder, number in pairs))


def are_folds(folders: Collection[str]) -> bool:
    """Return whether folders are numbered parts of one set.

    >>> are_folds(["fold1", "fold2"]), are_folds(["epoch_1", "epoch_2"])
    (True, False)
    """
    stems = {stem_of(folder) for folder in folders}
    return len(stems) == 1 and bool(words_of(stems.pop()) & FOLD_WORDS)


def stem_of(folder: str) -> str:
    """Return the name of a folder without numbers, in lower case, in which numbered parts of one set agree."""
    return re.sub(r"\d+", "", folder.lower())


def doubled_splits(sizes: Mapping[str, int], inside: Mapping[str, set[str]], splits: Mapping[str, str]) -> set[str]:
    """Return the splits that hold a sample of another one, or the same classes as a larger one for training.

    Args:
        sizes: how many pictures each folder holds.

    >>> classes = {"0", "1"}
    >>> doubled_splits({"trainingSample": 6, "trainingSet": 42}, {"trainingSample": classes, "trainingSet": classes},
    ...                {"trainingSample": "train", "trainingSet": "train"})
    {'trainingSample'}
    """
    found = set()
    for split in ("train", "test"):
        tops = sorted((top for top in sizes if splits.get(top) == split), key=lambda top: (sizes[top], top))
        whole = [top for top in tops if not words_of(top) & SAMPLE_WORDS]
        found |= {*tops} - {*whole} if whole else set()
        if split == "train" and whole:
            last = whole[-1]
            alike = [top for top in whole[:-1] if len(inside[top]) > 1 and inside[top] == inside[last]]
            found |= {top for top in alike if stem_of(top) != stem_of(last)}
    return found


def copies_among(inside: Mapping[str, set[str]]) -> set[str]:
    """Return the folders that hold folders of the names of all others beside them.

    >>> copies_among({"yes": set(), "no": set(), "tumors": {"yes", "no"}})
    {'tumors'}
    """
    return {top for top, folders in inside.items() if len(folders) > 1 and folders == {*inside} - {top}}


def places_of_masks(places: Collection[str]) -> set[str]:
    """Return the places in folders of masks or labels beside a folder of images and nothing else.

    >>> places_of_masks(["train/images", "train/masks", "masks"])
    {'train/masks'}
    """
    inside: dict[str, set[str]] = {}
    for place in places:
        parts = place.split("/")
        for depth, part in enumerate(parts):
            inside.setdefault("/".join(parts[:depth]), set()).add(part.lower())
    pairs = {
        parent
        for parent, folders in inside.items()
        if folders & IMAGE_WORDS and folders & MASK_WORDS and folders <= IMAGE_WORDS | MASK_WORDS
    }
    return {place for place in places if _is_in_masks(place.split("/"), pairs)}


def _is_in_masks(parts: Sequence[str], pairs: Collection[str]) -> bool:
    found = [depth for depth, part in enumerate(parts) if part.lower() in MASK_WORDS]
    return any("/".join(parts[:depth]) in pairs for depth in found)


def masks_among(names: Sequence[str]) -> set[str]:
    """Return the pictures that are masks, labels or small copies of others, by their own and their folders' names.

    >>> masks_among(["a.png", "a_mask.png", "b_mask.png"])
    {'a_mask.png'}
    >>> sorted(masks_among(["imgs/1.png", "imgs/2.png", "ground truth/1.png", "ground truth/2.png"]))
    ['ground truth/1.png', 'ground truth/2.png']
    """
    stems = {name: name.rpartition(".")[0] for name in names}
    known = set(stems.values())
    found = {name for name, stem in stems.items() if (image := _MASK_NAME.sub("", stem)) != stem and image in known}
    inside: dict[str, set[str]] = {}
    for stem in known:
        folder, _, own = stem.rpartition("/")
        inside.setdefault(folder, set()).add(_MASK_NAME.sub("", own))
    masks = {folder for folder in inside if words_of(folder.rpartition("/")[2]) & _MASK_FOLDERS}
    of_images = {folder for folder in inside.keys() - masks if words_of(folder.rpartition("/")[2]) & _IMAGE_FOLDERS}
    mixed = {folder.rpartition("/")[0] for folder in inside.keys() - masks - of_images if folder}
    beside = {
        folder
        for folder in masks
        for other in of_images
        if folder.rpartition("/")[0] == other.rpartition("/")[0] not in mixed
        and len(inside[folder] & inside[other]) >= MOSTLY_ALIKE * len(inside[folder])
    }
    return found | {name for name, stem in stems.items() if stem.rpartition("/")[0] in beside}


def test_beside_classes(inside: Mapping[str, set[str]]) -> str:
    """Return the folder of a test, flat beside several class folders; "" without one.

    >>> test_beside_classes({"cat": set(), "dog": set(), "test": set()})
    'test'
    """
    tests = [top for top in inside if top.lower() in TEST_WORDS]
    others = [top for top in inside if top and not split_of(top)]
    is_beside = len(tests) == 1 and not inside[tests[0]] and len(others) == len(inside) - 1 > 1
    return tests[0] if is_beside else ""
