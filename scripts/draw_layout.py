"""Draw docs/images/layout.svg, the flow through the package, from the literal tables below.

    python scripts/draw_layout.py

`scripts/check_docs.py` compares the names with the modules that exist, and the file with what this draws.
"""

import html
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

OUT = Path(__file__).parents[1] / "docs" / "images" / "layout.svg"
WIDTH, HEIGHT = 960, 424
LINE, TITLE_SIZE, NAME_SIZE = 17, 14, 12
FILLS = {"use": "#e8f0e4", "flow": "#e6eef7", "read": "#f6eddc", "base": "#eeeeee"}
BUS_Y = 216  # of the line from the run directory to what reads it


@dataclass(frozen=True)
class Box:
    """A rectangle: what it does, and its modules in src/gansmith, a folder without a suffix."""

    title: str
    modules: tuple[str, ...]
    x: int
    y: int
    width: int
    height: int
    kind: str


BOXES = {
    "use": Box(
        "what people and programs call",
        ("cli", "web", "api.py", "planning.py", "progress.py", "events.py", "interrupts.py", "isolation.py"),
        20,
        16,
        920,
        48,
        "use",
    ),
    "choices": Box("config", ("config.py", "recipes.py", "advice.py"), 20, 106, 120, 82, "flow"),
    "data": Box("data", ("data",), 172, 106, 110, 82, "flow"),
    "conditioning": Box("conditioning", ("conditioning.py",), 314, 106, 140, 82, "flow"),
    "networks": Box("networks", ("networks", "summaries.py"), 486, 106, 130, 82, "flow"),
    "training": Box("training", ("training",), 648, 106, 120, 82, "flow"),
    "run": Box("run directory", ("runs.py", "checkpoints.py", "files.py"), 800, 106, 140, 82, "flow"),
    "samples": Box(
        "samples",
        ("models.py", "sampling.py", "latent_space.py", "inversion.py", "pictures"),
        20,
        244,
        160,
        116,
        "read",
    ),
    "evaluation": Box("evaluation", ("evaluation.py", "metrics", "verdicts.py"), 210, 244, 160, 116, "read"),
    "reports": Box("reports", ("reports", "coursework", "grading", "lessons"), 400, 244, 160, 116, "read"),
    "exports": Box("exports", ("signature.py", "exporters", "importers"), 590, 244, 160, 116, "read"),
    "benchmarks": Box("searches", ("benchmarks", "sweeps", "workers"), 780, 244, 160, 116, "read"),
    "base": Box(
        "used everywhere",
        ("errors.py", "randomness.py", "processes.py", "exchange.py", "flat_images.py", "environment.py"),
        20,
        376,
        920,
        40,
        "base",
    ),
}
FLOW = ("choices", "data", "conditioning", "networks", "training", "run")
READERS = ("samples", "evaluation", "reports", "exports", "benchmarks")


def module_names() -> set[str]:
    """Return every module and folder that the drawing names."""
    return {name for box in BOXES.values() for name in box.modules}


def draw() -> str:
    """Return the drawing as SVG."""
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif">',
        "<title>The flow through the package, with its modules</title>",
        '<defs><marker id="head" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
        '<path d="M0 0 L8 4 L0 8 z" fill="#444"/></marker></defs>',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
        *(_box(box) for box in BOXES.values()),
        *(_right_of(BOXES[start], BOXES[end]) for start, end in pairwise(FLOW)),
        _line(80, 64, 80, 103),
        *(_line(_middle(BOXES[name]), BUS_Y, _middle(BOXES[name]), BOXES[name].y - 3) for name in READERS),
        f'<path d="M{_middle(BOXES["run"])} 188 V{BUS_Y} H{_middle(BOXES["samples"])}" stroke="#444" fill="none"/>',
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def _box(box: Box) -> str:
    names = [f"{name}/" if "." not in name else name for name in box.modules]
    if box.height < 50:  # one line of names
        names = ["   ".join(names)]
    lines = [
        f'<rect x="{box.x}" y="{box.y}" width="{box.width}" height="{box.height}" rx="6" fill="{FILLS[box.kind]}" '
        'stroke="#666"/>',
        _text(box.title, _middle(box), box.y + 17, TITLE_SIZE, weight="bold"),
        *(_text(name, _middle(box), box.y + 34 + LINE * row, NAME_SIZE) for row, name in enumerate(names)),
    ]
    return "\n".join(lines)


def _text(words: str, x: int, y: int, size: int, *, weight: str = "normal") -> str:
    return (
        f'<text x="{x}" y="{y}" font-size="{size}" font-weight="{weight}" text-anchor="middle" fill="#222" '
        f'xml:space="preserve">{html.escape(words)}</text>'
    )


def _middle(box: Box) -> int:
    return box.x + box.width // 2


def _right_of(start: Box, end: Box) -> str:
    """Return an arrow between neighbours in a row."""
    y = start.y + start.height // 2
    return _line(start.x + start.width, y, end.x - 3, y)


def _line(x1: int, y1: int, x2: int, y2: int) -> str:
    return f'<path d="M{x1} {y1} L{x2} {y2}" stroke="#444" fill="none" marker-end="url(#head)"/>'


if __name__ == "__main__":
    OUT.write_text(draw(), encoding="utf-8")
    print(f"{len(module_names())} modules -> {OUT}")
