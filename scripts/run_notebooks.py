"""Execute the notebooks of docs/notebooks on the embedded digits, and store their outputs in them.

    python scripts/run_notebooks.py [--images N] [NOTEBOOK ...]

A cell tagged `parameters` sets the training length as `IMAGES = ...`; --images replaces it, and then nothing is stored.
"""

import argparse
import os
import re
import sys
import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient

FOLDER = Path(__file__).parents[1] / "docs" / "notebooks"
TIMEOUT_S = 1200


def execute(notebook, folder, *, images=None):
    """Return the notebook as executed in a folder by a fresh kernel, its length replaced where `images` says so.

    Raises nbclient's CellExecutionError where a cell fails.
    """
    notebook = nbformat.from_dict(notebook)
    if images is not None:
        cell = next(cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", []))
        cell.source = re.sub(r"IMAGES = [\d_]+", f"IMAGES = {images}", cell.source)
    environ = dict(os.environ)
    # The digits that come with a dependency: every reader has these, and outputs do not depend on downloads.
    os.environ.update(GANSMITH_OFFLINE="1", GANSMITH_CACHE=str(Path(folder, "cache")))
    os.environ.pop("GANSMITH_DATA", None)
    try:
        client = NotebookClient(
            notebook,
            timeout=TIMEOUT_S,
            kernel_name="python3",
            record_timing=False,
            resources={"metadata": {"path": str(folder)}},
        )
        return client.execute()
    finally:
        os.environ.clear()
        os.environ.update(environ)


def main(words=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("notebooks", nargs="*", type=Path, help="all of docs/notebooks by default")
    parser.add_argument("--images", type=int, help="try with this training length, and store nothing")
    options = parser.parse_args(words)
    for path in options.notebooks or sorted(FOLDER.glob("*.ipynb")):
        with tempfile.TemporaryDirectory() as folder:
            executed = execute(nbformat.read(path, as_version=4), folder, images=options.images)
        if options.images is None:
            executed.metadata.language_info = {"name": "python"}  # not the version of the day
            nbformat.write(executed, path)
        print(f"{path.name}: {len(executed.cells)} cells, {path.stat().st_size / 1000:,.0f} kB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
