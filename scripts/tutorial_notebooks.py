"""Turn the tutorial pages into notebooks beside them, which run on Colab and other services.

    python scripts/tutorial_notebooks.py

A block of commands becomes cells that begin with "!", a Python session and a named file cells of their own; their
stored outputs are those of the page, which `run_pages.py --write` makes. All else stays text.
"""

import doctest
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import nbformat
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from run_pages import BLOCK, DOCS, FILE_NAME

INSTALL = """from importlib.util import find_spec

if find_spec("gansmith") is None:
    %pip install --quiet "gansmith[keras,onnx,search]\""""


def tutorials() -> list[Path]:
    """Return the tutorial pages with something to run."""
    return [page for page in sorted(DOCS.glob("tutorials/*.md")) if BLOCK.search(page.read_text(encoding="utf-8"))]


def to_notebook(page: str) -> nbformat.NotebookNode:
    """Return a page as a notebook whose first code cell installs Gansmith where it is missing."""
    title, text = page.split("\n", 1)
    cells = [new_markdown_cell(title), new_code_cell(INSTALL), *_cells(text)]
    numbers = iter(range(1, len(cells)))
    for number, cell in enumerate(cells):
        cell.id = f"cell-{number}"  # not drawn, so that a page gives the same file each time
        if cell.cell_type == "code":
            cell.execution_count = next(numbers)
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    return new_notebook(cells=cells, metadata={"kernelspec": kernel, "language_info": {"name": "python"}})


def _cells(text: str) -> Iterator[nbformat.NotebookNode]:
    """Yield the cells of a page."""
    done = 0
    for block in BLOCK.finditer(text):
        kind, content = block.groups()
        cells = {"console": _commands, "pycon": _sessions, "python": _files}[kind](content)
        if cells:
            yield from _prose(text[done : block.start()])
            yield from cells
            done = block.end()
    yield from _prose(text[done:])


def _prose(text: str) -> list[nbformat.NotebookNode]:
    return [new_markdown_cell(text.strip())] if text.strip() else []


def _commands(block: str) -> list[nbformat.NotebookNode]:
    parts = (part.partition("\n") for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:])
    return [_code(f"!{command}", output) for command, _, output in parts]


def _sessions(block: str) -> list[nbformat.NotebookNode]:
    """Return one cell for the lines up to each output."""
    cells, lines = [], ""
    for example in doctest.DocTestParser().get_examples(block):
        lines += example.source
        if example.want:
            cells.append(_code(lines, example.want))
            lines = ""
    return [*cells, *([_code(lines)] if lines else [])]


def _files(block: str) -> list[nbformat.NotebookNode]:
    """Return a cell that writes the file named in the first line, or none."""
    named = FILE_NAME.match(block)
    return [_code(f"%%writefile {named[1]}\n{block}", f"Writing {named[1]}\n")] if named else []


def _code(source: str, output: str = "") -> nbformat.NotebookNode:
    outputs = [new_output("stream", name="stdout", text=output)] if output else []
    return new_code_cell(source.rstrip(), outputs=outputs)


def main() -> int:
    for page in tutorials():
        notebook = to_notebook(page.read_text(encoding="utf-8"))
        nbformat.write(notebook, page.with_suffix(".ipynb"))
        print(f"{page.stem}.ipynb: {len(notebook.cells)} cells")
    return 0


if __name__ == "__main__":
    sys.exit(main())
