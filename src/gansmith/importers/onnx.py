"""Generators in .onnx and .pt2 files, run by ONNX Runtime in a separate process: `onnx_worker`, or `pt2_worker`."""

import os
from importlib.util import find_spec
from pathlib import Path

import torch

from gansmith.errors import DataError, GansmithError
from gansmith.importers.process import ForeignGenerator, read_in_worker


def read_onnx(path: Path, num_classes: int | None = None) -> tuple[ForeignGenerator, dict[str, str]]:
    """Return the generator in an .onnx or .pt2 file, and its metadata if Gansmith exported it ({} otherwise).

    Weights may lie beside it, as torch writes them. Latents may be (N, latent_dim) or maps of one pixel, labels class
    ids of any type or one-hot rows, the batch fixed or open, images of any layout, in [-1, 1], [0, 1] or 0 to 255.

    Args:
        num_classes: length of one-hot labels, or number of class ids, where the file does not say.

    Raises GansmithError if ONNX or ONNX Runtime is not installed, and DataError for anything but a plain generator:
    operators that are not allowed, non-finite weights, sizes, memory or times beyond the limits.
    """
    is_onnx = path.suffix.lower() != ".pt2"
    for name in ("onnx", "onnxruntime", *(() if is_onnx else ("onnxscript",))):
        if find_spec(name) is None:
            raise GansmithError(f"{name} is not installed; run: pip install 'gansmith[onnx]'")
    threads = min(torch.get_num_threads(), os.cpu_count() or 1)
    try:
        worker = "onnx_worker" if is_onnx else "pt2_worker"
        return read_in_worker(worker, path, str(path.absolute()), str(threads), str(num_classes or 0))
    except DataError as error:
        kind, instead = ("an ONNX", "") if is_onnx else ("an exported", " or the same as ONNX")
        raise DataError(
            f"{path} is not {kind} generator that can be read ({error}); give a generator of plain operators{instead}, "
            "from latents (and perhaps a label) to images"
        ) from None
