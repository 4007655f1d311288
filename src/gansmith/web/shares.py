"""What a run can be taken along as: one file each, made when it is asked for.

>>> from gansmith.web.shares import SHARES
>>> SHARES["report.pdf"].media_type
'application/pdf'
"""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory


@dataclass(frozen=True)
class Share:
    """A file of a run for others.

    Attributes:
        meaning: what it is good for, in a few words.
        write: makes the file at a path, from the run's directory.
        media_type: its content type.
    """

    meaning: str
    write: Callable[[Path, Path], object]
    media_type: str = "application/zip"


def _export(kind: str, run: Path, path: Path) -> None:
    """Write a generator in one format, packed with its model card."""
    from gansmith import api

    with TemporaryDirectory(prefix="gansmith-") as folder:
        api.export(run, kind, out=Path(folder) / path.stem)
        shutil.make_archive(str(path.with_suffix("")), "zip", folder, path.stem)


def _write(what: str, run: Path, path: Path) -> None:
    """Call one of the functions of the API that write a file."""
    from gansmith import api

    getattr(api, what)(run, out=path)


SHARES: dict[str, Share] = {
    "web-page.zip": Share("the generator as a web page for any static host", partial(_export, "web")),
    "report.pdf": Share("what was tried, pictures, scores, commands", partial(_write, "report"), "application/pdf"),
    "film.gif": Share("the sample grids of training, one after the other", partial(_write, "film"), "image/gif"),
    "keras.zip": Share("generator.json, generator.h5 and .keras", partial(_export, "keras")),
    "onnx.zip": Share("for ONNX Runtime, also in browsers", partial(_export, "onnx")),
    "safetensors.zip": Share("for Gansmith itself", partial(_export, "safetensors")),
    "submission.zip": Share("what a course asks for: code, Keras files, report", partial(_write, "handin")),
}
