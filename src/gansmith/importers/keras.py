"""Keras generators, read and run by Keras itself in a separate process, after the checks of `keras_files`."""

import re
from importlib.util import find_spec
from pathlib import Path

from gansmith.errors import DataError, GansmithError, NotFoundError
from gansmith.importers.process import ForeignGenerator, read_in_worker


def read_keras(path: Path, num_classes: int | None = None) -> tuple[ForeignGenerator, dict[str, str]]:
    """Return the generator in a Keras file, and its metadata if Gansmith exported it ({} otherwise).

    Files may be .keras archives, whole models as .h5 or .hdf5, and an architecture as .json with its weights in the
    same folder (x.json with x.h5, x.weights.h5, x_weights.h5, or the same with .hdf5), of which either may be given.

    Args:
        num_classes: length of one-hot labels, or number of class ids, where the file does not say.

    Raises NotFoundError if the weights are missing, GansmithError if Keras is not installed, and DataError for anything
    but a generator made of Keras's own layers: other classes, Lambda layers, links, non-finite weights, shapes that do
    not fit, sizes or times beyond the limits.
    """
    if find_spec("keras") is None:
        raise GansmithError(f"{path} is read by Keras, which is not installed; run: pip install 'gansmith[keras]'")
    architecture, weights = find_files(path)
    files = [str(file) for file in (weights, architecture) if file is not None]
    try:
        return read_in_worker("keras_worker", path, str(num_classes or 0), *files)
    except DataError as error:
        raise DataError(
            f"{path} is not a Keras generator that can be read ({error}); use a model of Keras's own layers from "
            "latents (and perhaps a label) to images, and save it again or export it as ONNX"
        ) from None


def find_files(path: Path) -> tuple[Path | None, Path]:
    """Return the .json with the architecture (None if the weights' file must contain it) and the weights' file.

    Endings may be written in upper case.
    """
    if path.suffix.lower() == ".keras":
        return None, path
    stem = re.sub(r"([._]weights)?\.(json|h5|hdf5)$", "", path.name, flags=re.IGNORECASE)
    beside = {_lower_ending(file, stem): file for file in path.parent.iterdir() if file.name.startswith(stem)}
    names = [f"{stem}{middle}{suffix}" for middle in ("", ".weights", "_weights") for suffix in (".h5", ".hdf5")]
    for weights in [beside.get(name) for name in names] if path.suffix.lower() == ".json" else [path]:
        if weights is not None and weights.is_file():
            return beside.get(f"{stem}.json"), weights
    raise NotFoundError(f"there is no {path.with_name(names[0])}; the weights must be in the folder of {path.name}")


def _lower_ending(file: Path, stem: str) -> str:
    return stem + file.name[len(stem) :].lower()
