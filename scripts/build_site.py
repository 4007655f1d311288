"""Build the documentation's site in build/site, or show it.

    python scripts/build_site.py [--serve]

The pages are laid out in build/pages first: docs/, the changelog, CONTRIBUTING.md, the stored notebooks with their
outputs, and the pages of reference_pages.py. zensical.toml says where each page belongs. Nothing is downloaded. --serve
shows the pages as they are now; start it again after a change.
"""

import argparse
import base64
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import nbformat
from reference_pages import GENERATED

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = ROOT / "build" / "pages"
# Pages that lie beside docs/, and in the site beside docs/'s own.
OUTSIDE = ("CHANGELOG.md", "CONTRIBUTING.md")


def lay_out(pages: Path) -> None:
    """Write every page of the site to a new folder."""
    shutil.rmtree(pages, ignore_errors=True)
    shutil.copytree(DOCS, pages, ignore=shutil.ignore_patterns("*.ipynb"))
    for path in pages.rglob("*.md"):
        depth = len(path.relative_to(pages).parts) - 1
        path.write_text(site_links(path.read_text(encoding="utf-8"), depth), encoding="utf-8")
    for name in OUTSIDE:
        text = (ROOT / name).read_text(encoding="utf-8").replace("](docs/", "](")
        (pages / name).write_text(site_links(text, 0), encoding="utf-8")
    for name, write in GENERATED.items():
        (pages / name).parent.mkdir(parents=True, exist_ok=True)
        (pages / name).write_text(write(), encoding="utf-8")
    for path in sorted(DOCS.glob("notebooks/*.ipynb")):
        write_notebook(path, pages / "notebooks" / f"{path.stem}.md")


def site_links(text: str, depth: int) -> str:
    """Return a page whose links fit the site: notebooks are pages there, and files of the source are only named.

    Args:
        depth: number of folders between the page and docs/.
    """
    text = re.sub(r"(\]\([^)\s]*)\.ipynb\)", r"\1.md)", text)
    up = "../" * (depth + 1)
    for name in OUTSIDE:
        text = text.replace(f"]({up}{name}", f"]({up[3:]}{name}")
    return re.sub(rf"\[([^\]]+)\]\({re.escape(up)}((?:src|scripts|tests)/[^)]*)\)", r"`\2`", text)


def write_notebook(path: Path, page: Path) -> None:
    """Write a stored notebook as a page, its pictures beside it."""
    page.parent.mkdir(parents=True, exist_ok=True)
    notebook = nbformat.read(path, as_version=4)
    parts = []
    for number, cell in enumerate(notebook.cells):
        if cell.cell_type == "markdown":
            parts.append(cell.source)
        elif cell.cell_type == "code":
            parts.append(f"```python\n{cell.source}\n```")
            for k, output in enumerate(cell.outputs):
                parts += _output(output, page.parent / f"{page.stem}-{number}-{k}.png")
    parts.append(f"This page is the notebook `docs/notebooks/{path.name}` with its stored outputs.")
    page.write_text(site_links("\n\n".join(parts) + "\n", 1), encoding="utf-8")


def _output(output: nbformat.NotebookNode, picture: Path) -> Iterator[str]:
    """Yield the best form of an output that a page can show: a picture, HTML, or text."""
    data = output.get("data", {})
    if "image/png" in data:
        picture.write_bytes(base64.b64decode(data["image/png"]))
        yield f"![{data.get('text/plain', 'Output')}]({picture.name})"
    elif "text/html" in data:
        html = re.sub(r"\s*\n\s*", "", data["text/html"])
        yield f'<div class="output" style="overflow-x: auto">\n{html}\n</div>'
    else:
        yield f"```text\n{(output.get('text') or data.get('text/plain', '')).rstrip()}\n```"


def pages_in_order(nav: list[object]) -> Iterator[PurePosixPath]:
    """Yield every page that the navigation names."""
    for entry in nav:
        for value in entry.values() if isinstance(entry, dict) else [entry]:
            if isinstance(value, list):
                yield from pages_in_order(value)
            else:
                yield PurePosixPath(str(value))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--serve", action="store_true", help="show the site on this machine instead")
    options = parser.parse_args()
    lay_out(PAGES)
    command = ["serve"] if options.serve else ["build", "--clean", "--strict"]
    return subprocess.run([sys.executable, "-m", "zensical", *command], cwd=ROOT, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
