"""Reports: of one or more runs, from their directories alone, as a tagged PDF by typst or one HTML file.

`compose` writes the contents, as a list of blocks: headings, texts, lists, tables and pictures. The two templates next
to this file only lay blocks out. Equal directories give equal bytes: nothing depends on when or where a report is made.
"""

import base64
import json
import re
import tempfile
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from gansmith.errors import GansmithError
from gansmith.files import write_bytes
from gansmith.interrupts import uninterrupted
from gansmith.reports.compose import compose
from gansmith.runs import RunDirectory

FORMATS = (".pdf", ".html")
_TEMPLATES = resources.files("gansmith.reports")
_FOREIGN = re.compile(r"[^\u0000-\u052f\u1e00-\u22ff]")  # beyond Latin, Greek, Cyrillic, punctuation and arrows


def write_report(runs: Sequence[RunDirectory], path: Path, *, with_folders: bool = True) -> None:
    """Write the report of these runs, the first in full and all compared, at once or not at all.

    Args:
        with_folders: name the folders of this machine where commands and choices do.

    Raises GansmithError for a kind of file not in `FORMATS`.
    """
    title, blocks, pictures = compose(runs)
    write_blocks(title, blocks if with_folders else without_places(blocks, runs), pictures, path)


def without_places(blocks: list[Any], runs: Sequence[RunDirectory]) -> list[Any]:
    """Return the blocks with the last part alone of each absolute path that the runs' commands and choices name."""
    starts = [start["command"] for run in runs for start in run.facts().get("starts", [])]
    words = [word.partition("=")[2] if word.startswith("-") else word for command in starts for word in command]
    words += [place for run in runs for place in (run.config.start_from, run.config.data_dir)]
    places = [word for word in words if Path(word).is_absolute() and Path(word).name]
    shortened: list[Any] = _shortened(blocks, sorted(set(places), key=len, reverse=True))
    return shortened


def _shortened(value: Any, places: Sequence[str]) -> Any:
    """Return blocks, or a part of them, with the last part of each of these paths in its place."""
    if isinstance(value, list | tuple):
        return [_shortened(one, places) for one in value]
    if isinstance(value, dict):
        return {name: _shortened(one, places) for name, one in value.items()}
    for place in places if isinstance(value, str) else ():
        value = value.replace(place, Path(place).name)
    return value


def write_blocks(title: str, blocks: Sequence[Mapping[str, Any]], pictures: dict[str, bytes], path: Path) -> None:
    """Write blocks as a report, at once or not at all.

    Args:
        blocks: as `compose` makes them.
        pictures: PNG files by the names that blocks use.

    Raises GansmithError for a kind of file not in `FORMATS`.
    """
    if path.suffix.lower() not in FORMATS:
        raise GansmithError(f"{path} does not end in one of {', '.join(FORMATS)}; choose one of these")
    facts = {"title": title, "blocks": blocks}
    data = to_pdf(facts, pictures) if path.suffix.lower() == ".pdf" else to_html(facts, pictures)
    write_bytes(path, data)


def to_pdf(facts: dict[str, Any], pictures: dict[str, bytes]) -> bytes:
    """Return a PDF/UA-1 file: tagged, with alternative texts, the same bytes for the same facts and PNG pictures."""
    with uninterrupted():
        import typst

    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "report.typ"
        source.write_bytes((_TEMPLATES / "report.typ").read_bytes())
        for name, data in pictures.items():
            (Path(folder) / name).write_bytes(data)
        text = json.dumps(facts, ensure_ascii=False)
        # Letters that its own fonts lack are looked for in the system's, and where those lack them too, become numbers.
        for words, is_alone in ((text, True), (text, False), (_FOREIGN.sub(_in_numbers, text), True)):
            try:
                made: bytes = typst.compile(
                    source,
                    root=Path(folder),
                    format="pdf",
                    sys_inputs={"facts": words},
                    ignore_system_fonts=is_alone,
                    timestamp=0,
                    pdf_standards=["ua-1"],
                )
            except typst.TypstError as error:
                reason = error
            else:
                return made
    raise reason


def _in_numbers(letter: re.Match[str]) -> str:
    return f"U+{ord(letter[0]):04X} "


def to_html(facts: dict[str, Any], pictures: dict[str, bytes]) -> bytes:
    """Return one HTML file that needs no other: pictures and style inside."""
    import jinja2

    template = (_TEMPLATES / "report.html.jinja").read_text(encoding="utf-8")
    urls = {name: f"data:image/png;base64,{base64.b64encode(data).decode()}" for name, data in pictures.items()}
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    return environment.from_string(template).render(**facts, urls=urls).encode()
