"""What a teacher reads: a table as CSV, Markdown and HTML, and a page for each student, self-contained.

Names, texts and pictures come from hand-ins: all text is escaped, and no cell of the CSV file begins like a formula.
"""

import base64
import csv
import io
import os
import re
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from gansmith.errors import ConfigError
from gansmith.files import is_left_by_system, require_parent, write_bytes, write_text
from gansmith.grading.grader import Ran
from gansmith.grading.sandbox import MEANING
from gansmith.grading.settings import Settings
from gansmith.pictures.grids import enlarge, grid, to_png
from gansmith.verdicts import html_table

TABLE = "results.csv"
HEADER = (
    "student", "result", "points", "missing files", "evaluation.py", "grid", "classes", "recognised", "FD ratio",
    "near copies", "same as", "seconds", "notes",
)  # fmt: skip


class Grades(list[dict[str, Any]]):
    """A row for each hand-in, by the student's name. Shows itself as a table.

    Attributes:
        directory: where the table and the pages are.
        sandbox: in which hand-ins ran.
    """

    directory: Path
    sandbox: str

    def table(self) -> tuple[list[str], list[list[str]]]:
        """Return a header, and a row of texts for each hand-in."""
        return list(HEADER), [_cells(row) for row in self]

    def __repr__(self) -> str:
        lines = [f"{row['name']}: {row['result']}, {row['points']:g} of {row['points_of']:g} points" for row in self]
        return "\n".join([*lines, f"-> {self.directory}"])

    def _repr_html_(self) -> str:
        return html_table(*self.table())


def _cells(row: Mapping[str, Any]) -> list[str]:
    script = row["script"]
    if script is None:
        how = "not run" if row["not_run"] else ""
    else:
        how = script.ended or ("ok" if row["drew"] else "draws no grid.png")
    return [
        row["name"],
        row["result"],
        f"{row['points']:g} of {row['points_of']:g}",
        ", ".join(row["missing"]),
        how,
        row["grid"],
        "" if row["classes"] is None else f"{row['classes']} of {row['num_classes']}",
        "" if row["recognised"] is None else f"{row['recognised']} of 25",
        "" if row["fd_ratio"] is None else f"{row['fd_ratio']:.2f}",
        "" if row["copies"] is None else f"{row['copies']:.1%}",
        ", ".join(row["same_as"]),
        f"{row['seconds']:g}",
        " / ".join(notes_of(row)),
    ]


def notes_of(row: Mapping[str, Any]) -> list[str]:
    """Return a sentence for each thing that a teacher should know besides the figures."""
    notes = [row["error"]] if row["error"] else []
    for what, outcome in (("generating images", row["draw"]), ("evaluation.py", row["script"])):
        if outcome is not None and outcome.ended:
            notes.append(f"{what}: {outcome.ended}: {outcome.reason}")
    notes += [f"the same as {other}: {what}" for other, what in row["same_as"].items()]
    if row["absent"]:
        notes.append(f"missing in the grid: {', '.join(row['absent'])}")
    return [*notes, *row["notes"]]


def refuse_occupied(out: Path) -> None:
    """Raise GansmithError for a folder that holds anything but an earlier table."""
    require_parent(out)
    inside = [path for path in out.iterdir() if not is_left_by_system(path.name)] if out.is_dir() else []
    if out.exists() and (not out.is_dir() or (inside and not (out / TABLE).is_file())):
        raise ConfigError(f"{out} holds other things than a table of grades; name a new folder with --out")
    if os.name == "nt" and (out / TABLE).is_file():
        try:
            (out / TABLE).open("r+b").close()
        except PermissionError:  # a program that shows it keeps it
            raise ConfigError(f"{out / TABLE} cannot be written; close it where it is open") from None


def write_pages(
    rows: Sequence[Mapping[str, Any]], ran: Sequence[Ran], settings: Settings, out: Path, sandbox: str
) -> Grades:
    """Write results.csv, results.md, index.html and a page for each student into a folder, and return the rows."""
    grades = Grades(dict(row) for row in rows)
    grades.directory, grades.sandbox = out, sandbox
    (out / "students").mkdir(parents=True, exist_ok=True)
    header, cells = grades.table()
    write_bytes(out / TABLE, _csv([header, *cells]).encode("utf-8-sig"))  # so that Excel shows names as they are
    about = f"Each hand-in ran in the sandbox {sandbox}: {MEANING[sandbox]}."
    write_text(out / "results.md", _markdown(settings.title, about, header, cells))
    pages = page_names([row["name"] for row in rows])
    for old in (out / "students").glob("*.html"):  # of an earlier table, with other students
        if old.name not in pages.values():
            old.unlink()
    for row, one in zip(rows, ran, strict=True):
        facts = {"row": row, "notes": notes_of(row), "pictures": _pictures(one), "outputs": _outputs(row)}
        write_bytes(out / "students" / pages[row["name"]], _render("student", settings=settings, about=about, **facts))
    listing = [
        {"cells": cells[k], "page": f"students/{pages[row['name']]}", "picture": _pictures(ran[k], px=100)[:1]}
        for k, row in enumerate(rows)
    ]
    write_bytes(out / "index.html", _render("index", settings=settings, about=about, header=header, rows=listing))
    return grades


def page_names(names: Sequence[str]) -> dict[str, str]:
    """Return the file name of each student's page: what any file system and any address allows, none twice."""
    found: dict[str, str] = {}
    for name in names:
        stem = re.sub(r"[^A-Za-z0-9_-]+", "-", name)[:80].strip("-") or "student"
        taken = {page.lower() for page in found.values()}
        page, k = f"{stem}.html", 2
        while page.lower() in taken:
            page, k = f"{stem}-{k}.html", k + 1
        found[name] = page
    return found


def _csv(lines: Sequence[Sequence[str]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerows([[_plain(cell) for cell in line] for line in lines])
    return text.getvalue()


def _plain(cell: str) -> str:
    """Return a cell that no spreadsheet takes for a formula."""
    cell = re.sub(r"([;,\t\r\n]\s*)(?=[=+@-])", r"\1'", cell)  # where a semicolon or a tab parts cells, too
    return f"'{cell}" if cell.startswith(("=", "+", "-", "@", "\t", "\r")) else cell


def _markdown(title: str, about: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [[_in_markdown(cell) for cell in line] for line in [header, ["---"] * len(header), *rows]]
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return f"# {_in_markdown(title)}\n\n{about}\n\n{table}\n"


def _in_markdown(cell: str) -> str:
    return re.sub(r"([\\`*_\[\]|<>&])", r"\\\1", " ".join(cell.split()))


def _outputs(row: Mapping[str, Any]) -> list[tuple[str, str]]:
    both = (("generating images", row["draw"]), ("python evaluation.py", row["script"]))
    return [(what, outcome.output) for what, outcome in both if outcome is not None and outcome.output]


def _pictures(ran: Ran, *, px: int = 400) -> list[tuple[str, str]]:
    """Return what there is to see of a hand-in: captions, and PNGs as addresses."""
    pictures = [] if ran.grid is None else [("drawn by the grader from its generator", grid(ran.grid, columns=5))]
    in_grey = ", in grey as it is compared" if ran.grid is not None and ran.grid.shape[1] == 3 else ""
    for what, tiles in (("drawn by its evaluation.py", ran.shown), ("grid.png as handed in", ran.handed_in)):
        if tiles is not None:
            side = int(tiles.shape[1] ** 0.5)
            grey = tiles.reshape(5, 5, side, side).transpose(0, 2, 1, 3).reshape(5 * side, 5 * side)
            pictures.append((what + in_grey, Image.fromarray(grey.astype(np.uint8))))
    return [(caption, _address(to_png(enlarge(picture, at_least_px=px)))) for caption, picture in pictures]


def _address(png: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"


def _render(name: str, **facts: Any) -> bytes:
    import jinja2

    template = (resources.files("gansmith.grading") / f"{name}.html.jinja").read_text(encoding="utf-8")
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    return environment.from_string(template).render(**facts).encode()
