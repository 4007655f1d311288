"""A class kit: assignment sheet, starter notebook, data, and the settings of the grader.

What students get is in one folder of it, what the teacher needs lies beside. All texts can be edited; the grader reads
grade.toml alone.
"""

import re
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from importlib import resources
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from gansmith.data import DATASETS, Images, load_data
from gansmith.errors import ConfigError, NotFoundError
from gansmith.files import write_text
from gansmith.grading.settings import COMMON_SEEDS, STUDENTS, TILES, Settings, settings_text

MAX_IMAGES = 60_000  # in data.npz
HAND_INS = "submissions"
# Modules that students may want to import; the sheet names those that are installed.
LIBRARIES = (
    "numpy", "scipy", "pandas", "sklearn", "skimage", "PIL", "cv2", "imageio", "matplotlib", "seaborn", "h5py", "tqdm",
    "einops", "torch", "torchvision", "pytorch_lightning", "keras", "tensorflow", "jax", "onnx", "onnxruntime",
)  # fmt: skip


def write_kit(folder: Path, settings: Settings) -> list[Path]:
    """Write a class kit into a new or empty folder, and return its files.

    Raises GansmithError for a folder that holds anything, and for data that cannot be loaded.
    """
    if not folder.absolute().parent.is_dir():
        raise NotFoundError(f"there is no folder {str(folder.absolute().parent)!r} to write the kit in; make it first")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigError(f"{folder} is there already and not empty; name a new folder, so that nothing is overwritten")
    if settings.data not in DATASETS and Path(settings.data).exists():  # graded from anywhere
        settings = replace(settings, data=str(Path(settings.data).absolute()))
    images = load_data(settings.data)
    if images.spec.size % 4:
        raise ConfigError(
            f"{settings.data} has images of {images.spec.size} px, and the starter's network needs a multiple of 4; "
            "resize them, for instance to 28"
        )
    classes = 0 if images.labels is None else len(images.labels.unique())
    chosen = images.shuffled(MAX_IMAGES) if len(images) > MAX_IMAGES else images
    facts = {
        "settings": settings, "count": f"{len(chosen):,}", "size": images.spec.size, "channels": images.spec.channels,
        "classes": classes, "checks": describe_checks(settings, classes), "students": STUDENTS, "hand_ins": HAND_INS,
        "libraries": [name for name in LIBRARIES if find_spec(name)], "python": "{}.{}".format(*sys.version_info),
        "drawn": f"{round(settings.samples + TILES * len({settings.seed, *COMMON_SEEDS}), -2):,}",
    }  # fmt: skip
    texts = {
        f"{STUDENTS}/assignment.md": _render("assignment", facts),
        f"{STUDENTS}/evaluation.py": starter_script(settings, images),
        f"{STUDENTS}/starter.ipynb": _source("starter.ipynb"),
        "README.md": _render("teacher", facts),
        "grade.toml": settings_text(settings),
    }
    with _removed_if_stopped(folder):
        for place in (folder / STUDENTS, folder / HAND_INS):
            place.mkdir(parents=True)
        for name, text in texts.items():
            write_text(folder / name, text)
        with (folder / STUDENTS / "data.npz").open("wb") as file:
            np.savez_compressed(file, images=chosen.pixels.permute(0, 2, 3, 1).contiguous().numpy())
    return [*(folder / name for name in texts), folder / STUDENTS / "data.npz"]


@contextmanager
def _removed_if_stopped(folder: Path) -> Iterator[None]:
    """Empty a folder again, which was empty or new, where the block does not end: half a kit looks like a whole one."""
    is_new = not folder.exists()
    try:
        yield
    except BaseException:
        for path in folder.glob("*"):
            shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)
        if is_new:
            with suppress(OSError):
                folder.rmdir()
        raise


def describe_checks(settings: Settings, classes: int) -> dict[str, str]:
    """Return a sentence on each check that students read."""
    every = f"each of the {classes} classes occurs in the grid" if classes else "classes, where the data has any"
    return {
        "files": "all files are there",
        "runs": "`python evaluation.py` ends without an error and writes `grid.png`",
        "grid": f"`grid.png` is what the generator draws from seed {settings.seed}",
        "classes": every,
        "recognised": f"a classifier is sure of {settings.recognised} of the 25 images or more",
        "fd_ratio": f"the Frechet distance of {settings.samples:,} images to test images, over that of real images: "
        f"all points up to {settings.fd_ratio_full:g}, none from {settings.fd_ratio_none:g}",
        "originality": "the images depend on the latents and copy neither training images nor another hand-in",
    }


def starter_script(settings: Settings, images: Images) -> str:
    """Return the evaluation.py that students begin with, for this seed and these images."""
    text = _source("starter_evaluation.py")
    text = re.sub(r"^SEED = \d+", f"SEED = {settings.seed}", text, flags=re.MULTILINE)
    spec = images.spec
    text = re.sub(
        r"^SIZE, CHANNELS = .*?  #", f"SIZE, CHANNELS = {spec.size}, {spec.channels}  #", text, flags=re.MULTILINE
    )
    return text


def _source(name: str) -> str:
    return (resources.files("gansmith.coursework") / name).read_text(encoding="utf-8")


def _render(name: str, facts: dict[str, Any]) -> str:
    import jinja2

    environment = jinja2.Environment(undefined=jinja2.StrictUndefined, trim_blocks=True, keep_trailing_newline=True)
    return environment.from_string(_source(f"{name}.md.jinja")).render(**facts)
