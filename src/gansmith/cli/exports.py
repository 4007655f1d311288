"""`report`, `export` and `handin`: files for readers, other libraries and courses."""

import sys
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from gansmith.cli.output import Whole, print_table
from gansmith.errors import ConfigError
from gansmith.files import quoted, require_parent, require_writable

Format = Literal["safetensors", "onnx", "keras", "pt2", "web", "all"]


def report(run: Path, /, *others: Path, out: Path | None = None) -> int:
    """Make a report: what was tried, what helped and by how much, pictures, scores, commands.

    Parameters
    ----------
    run
        Run directory shown in full.
    others
        More run directories, compared with it.
    out
        A .pdf or a self-contained .html; by default report.pdf in the first run directory.
    """
    from gansmith import api

    path = api.report(run, *others, out=None if out is None else _checked(out))
    count = len({one.resolve() for one in (run, *others)})
    print(f"report of {count} runs -> {path}" if count > 1 else f"report -> {path}")
    return 0


def export(
    source: Path,
    /,
    *,
    format: Annotated[list[Format], Parameter(negative=())],
    out: Path | None = None,
) -> int:
    """Write a generator for other libraries, each file read back and compared.

    Parameters
    ----------
    source
        Run directory, checkpoint or generator.safetensors.
    format
        What to write; may be given several times. all: every format of another library that supports the generator.
        web: a folder with a page that draws images in its visitor's browser.
    out
        Folder for the files, a manifest and a model card; by default exports in the run, or beside the file.
    """
    from gansmith.exporters import READERS, exports_folder
    from gansmith.exporters import export as export_generator

    out = out or exports_folder(source)
    rows = []
    written = export_generator(source, format, out)
    for name, entry in written.items():
        if isinstance(entry, str):
            rows.append([name, f"not written: {entry}", "", "", ""])
            continue
        size = sum((out / file).stat().st_size for file in entry["files"])
        difference = f"{entry['largest_difference']:.1e}"
        listing = "web/index.html and what it needs" if name == "web" else ", ".join(entry["files"])
        rows.append([name, listing, f"{size / 1e6:.1f} MB", READERS[name], difference])
    print_table(["format", "files", "size", "read by", "largest difference"], rows)
    print(f"-> {out}")
    if "web" in format and not isinstance(written["web"], str):
        program = quoted(Path(sys.executable).name)
        print(f"open it with: {program} -m http.server --directory {quoted(out / 'web')}")
    return 0


def handin(
    run: Path,
    /,
    *others: Path,
    out: Path = Path("submission.zip"),
    allow_labels: bool = False,
    allow_test_images: bool = False,
    seed: Whole = 504,
) -> int:
    """Bundle what a course asks for: Keras files, code that checks them, a report, the grid, the film.

    Parameters
    ----------
    run
        Run directory to hand in.
    others
        More run directories, named in the report's experiments.
    out
        The .zip to write.
    allow_labels
        Hand in a run that was trained with labels.
    allow_test_images
        Hand in a run that was trained on test images.
    seed
        NumPy's seed of the grid's latents, as the course gives it.
    """
    from gansmith.coursework import write_bundle
    from gansmith.runs import open_run

    if out.suffix.lower() != ".zip":
        raise ConfigError(f"{out} does not end in .zip; give a name that does")
    runs = [open_run(path) for path in (run, *others)]
    notes = write_bundle(runs, _checked(out), allow_labels=allow_labels, allow_test_images=allow_test_images, seed=seed)
    for note in notes:
        print(f"note: {note}")
    print(f"{run.name} -> {out}")
    return 0


def _checked(out: Path) -> Path:
    require_parent(out)
    require_writable(out.parent)
    return out
