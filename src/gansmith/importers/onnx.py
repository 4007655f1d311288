"""ONNX generators: read and run by ONNX Runtime in a separate process, after the checks of `onnx_worker`."""

import os
from importlib.util import find_spec
from pathlib import Path

import torch

from gansmith.errors import DataError, GansmithError
from gansmith.importers.process import ForeignGenerator, read_in_worker


def read_onnx(path: Path, num_classes: int | None = None) -> tuple[ForeignGenerator, dict[str, str]]:
    """Return the generator in an .onnx file, and its metadata if Gansmith exported it ({} otherwise).

    Weights may lie beside it, as torch writes them. Latents may be (N, latent_dim) or maps of one pixel, labels class
    ids of any type or one-hot rows, the batch fixed or open, images of any layout, in [-1, 1], [0, 1] or 0 to 255.

    Args:
        num_classes: length of one-hot labels, or number of class ids, where the file does not say.

    Raises GansmithError if ONNX or ONNX Runtime is not installed, and DataError for anything but a plain generator:
    operators that are not allowed, non-finite weights, sizes, memory or times beyond the limits.
    """
    for name in ("onnx", "onnxruntime"):
        if find_spec(name) is None:
            raise GansmithError(f"{name} is not installed; run: pip install 'gansmith[onnx]'")
    threads = min(torch.get_num_threads(), os.cpu_count() or 1)
    try:
        return read_in_worker("onnx_worker", path, str(path.absolute()), str(threads), str(num_classes or 0))
    except DataError as error:
        raise DataError(
            f"{path} is not an ONNX generator that can be read ({error}); give a generator of plain operators, from "
            "latents (and perhaps a label) to images"
        ) from None
