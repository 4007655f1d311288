"""What a person or a script sees while a run trains: a live bar, a notebook's display, plain lines, or JSON."""

import html
import logging
import os
import sys
import time
from base64 import b64encode
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gansmith.errors import ConfigError, printable
from gansmith.events import (
    Event,
    FailureDetected,
    LengthChanged,
    Logged,
    RolledBack,
    Sampled,
    Scored,
    Started,
)
from gansmith.files import to_json

if TYPE_CHECKING:
    from rich.text import Text

logger = logging.getLogger("gansmith")

STYLES = ("auto", "bar", "notebook", "plain", "json", "none")
_PLAIN_EVERY_S, _NOTEBOOK_EVERY_S = 5.0, 0.5
_NOTEBOOK_LINES = 5
_PIXELATED = 'style="width: 420px; image-rendering: pixelated"'

Show = Callable[[Event], None]


@contextmanager
def show_progress(style: str = "auto") -> Iterator[Show]:
    """Give a function that shows one event of training.

    auto draws a bar on a terminal, a bar with the newest sample grid in a notebook, and plain lines elsewhere.
    Raises ConfigError for an unknown style.
    """
    check_style(style)
    if style in ("auto", "bar") and _in_notebook():
        style = "notebook"
    if style == "auto":
        style = "bar" if is_terminal() else "plain"
    if sys.stdout is None and style != "notebook":  # in a program with windows
        style = "none"
    if style == "bar":
        with _bar() as show:
            yield show
    else:
        yield {"notebook": _Notebook().show, "plain": _Plain().show, "json": _print_json, "none": _ignore}[style]


def lose_output() -> None:
    """Write what is said from now on to nowhere: whoever read the output has closed it, or its disk is full."""
    logger.warning("the output can no longer be written; training goes on, and log.jsonl has all")
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


@contextmanager
def show_preparation(style: str = "auto") -> Iterator[Callable[[int, int], None]]:
    """Give a function that shows how many pictures are prepared, of how many; a bar, lines or JSON as `show_progress`.

    Nothing is shown until it is called.
    """
    check_style(style)
    if style == "none" or sys.stdout is None:
        yield lambda done, total: None
    elif style == "bar" or (style == "auto" and is_terminal()):
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (TextColumn("preparing pictures"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        bar = Progress(*columns)
        try:
            yield partial(_show_counts_in_bar, bar)
        finally:
            bar.stop()
    else:
        yield partial(_print_counts, [time.monotonic()], as_json=style == "json")


def _show_counts_in_bar(bar: Any, done: int, total: int) -> None:
    if not bar.task_ids:
        bar.add_task("", total=total)
        bar.start()
    bar.update(bar.task_ids[0], completed=done)


def _print_counts(shown_at: list[float], done: int, total: int, *, as_json: bool) -> None:
    """Print a line every few seconds, the first after some of them."""
    if time.monotonic() - shown_at[0] < _PLAIN_EVERY_S:
        return
    shown_at[0] = time.monotonic()
    line = to_json({"kind": "preparation", "done": done, "total": total})
    write_line(line if as_json else f"{done:>9,} of {total:,} pictures prepared")


def is_terminal() -> bool:
    """Return whether what is printed can be drawn over; a notebook's cell that runs a command only claims so."""
    return sys.stdout is not None and sys.stdout.isatty() and "JPY_PARENT_PID" not in os.environ


def check_style(style: str) -> None:
    """Raise ConfigError for an unknown style, and for a notebook's where IPython is not installed."""
    if style not in STYLES:
        raise ConfigError(f"progress is {style!r}; choose one of {', '.join(STYLES)}")
    if style == "notebook" and find_spec("IPython") is None:
        raise ConfigError("progress is 'notebook', and IPython is not installed; choose 'auto' or 'plain'")


def _ignore(event: Event) -> None:
    pass


def _print_json(event: Event) -> None:
    write_line(to_json(event.to_json()))


def sentence(event: Event) -> str:
    """Return an event as a sentence for people; empty for those that a bar or picture shows."""
    if isinstance(event, Started):
        lines = [f"{event.data}: {event.train_images:,} images to train on, from {event.source}"]
        return "\n".join([*lines, *(f"note: {notice}" for notice in event.notices)])
    if isinstance(event, LengthChanged):
        return f"{event.images:,} images will fit into the time left"
    if isinstance(event, Scored):
        return (
            f"{event.images_seen:>9,} images: validation FD ratio {event.validation_fd_ratio:.2f} "
            f"(FD {event.fd:.3f}, of real images {event.fd_real:.3f}; {event.n:,} samples)"
        )
    return event.message if isinstance(event, FailureDetected | RolledBack) else ""


def write_line(line: str) -> None:
    """Print a line without commands to a terminal, and what the output's encoding lacks as its escape."""
    line = printable(line)
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    sys.stdout.write(line.encode(encoding, "backslashreplace").decode(encoding) + "\n")
    sys.stdout.flush()


class _Plain:
    """A line every few seconds, and one for whatever happens."""

    def __init__(self) -> None:
        self.total_images, self.shown_at = 0, -_PLAIN_EVERY_S

    def show(self, event: Event) -> None:
        self.total_images = _length(event) or self.total_images
        line = sentence(event)
        if isinstance(event, Logged) and time.monotonic() - self.shown_at >= _PLAIN_EVERY_S:
            self.shown_at = time.monotonic()
            done = f"{event.images_seen:>9,} of {self.total_images:,} images"
            line = f"{done}  {event.values['images_per_s']:7,.0f} images/s  {_losses(event)}"
        if line:
            write_line(line)


@contextmanager
def _bar() -> Iterator[Show]:
    from rich.console import Group
    from rich.live import Live
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
    from rich.text import Text

    columns = (
        TextColumn("{task.percentage:3.0f}%"),
        BarColumn(),
        TextColumn("{task.completed:,.0f} images"),
        TextColumn("{task.fields[rate]:,.0f}/s"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[losses]}"),
    )
    progress = Progress(*columns)
    progress.add_task("", total=None, rate=0.0, losses="")
    with Live(Group(progress, Text()), refresh_per_second=4) as live:
        yield partial(_show_in_bar, progress, live)


def _show_in_bar(progress: Any, live: Any, event: Event) -> None:
    from rich.console import Group

    task = progress.task_ids[0]
    if _length(event):
        progress.update(task, total=_length(event))
    if sentence(event):
        live.console.print(printable(sentence(event)), markup=False, highlight=False)
    elif isinstance(event, Logged):
        rate = event.values["images_per_s"]
        progress.update(task, completed=event.images_seen, rate=rate, losses=_losses(event))
    elif isinstance(event, Sampled) and _shows_pictures(live.console):
        tiles = min(5, live.console.width // max(1, event.tile_px // 2))
        live.update(Group(progress, draw_in_text(event.path, event.tile_px, tiles=tiles)) if tiles else progress)


def _shows_pictures(console: Any) -> bool:
    """Return whether half blocks in two shades make a picture in this terminal."""
    is_plain = console.no_color or console.options.ascii_only
    return console.color_system in ("256", "truecolor") and not is_plain


class _Notebook:
    """A display below the cell: a bar, what happened last, the newest sample grid. Needs IPython.display alone."""

    def __init__(self) -> None:
        self.total_images, self.images_seen, self.rate, self.losses = 1, 0, 0.0, ""
        self.lines: list[str] = []
        self.picture = ""
        self.shown_at = 0.0
        self.handle: Any = None

    def show(self, event: Event) -> None:
        self.total_images = _length(event) or self.total_images
        self.images_seen = event.images_seen
        if isinstance(event, Logged):
            self.rate, self.losses = event.values["images_per_s"], _losses(event)
        elif isinstance(event, Sampled):
            encoded = b64encode(Path(event.path).read_bytes()).decode()
            self.picture = f'<img src="data:image/png;base64,{encoded}" {_PIXELATED}>'
        elif sentence(event):
            self.lines += sentence(event).splitlines()
        is_quiet = isinstance(event, Logged) and self.images_seen < self.total_images
        if not is_quiet or time.monotonic() - self.shown_at >= _NOTEBOOK_EVERY_S:
            self._draw()

    def _draw(self) -> None:
        from IPython.display import display

        self.shown_at = time.monotonic()
        formats = {"text/html": self._to_html(), "text/plain": self._summary()}
        if self.handle is None:
            self.handle = display(formats, raw=True, display_id=True)
        else:
            self.handle.update(formats, raw=True)

    def _to_html(self) -> str:
        done = min(1.0, self.images_seen / self.total_images)
        lines = [
            f'<progress value="{done:.4f}" max="1" style="width: 420px"></progress> {html.escape(self._summary())}'
        ]
        lines += [html.escape(line) for line in self.lines[-_NOTEBOOK_LINES:]]
        return "<br>".join([*lines, self.picture])

    def _summary(self) -> str:
        seen = f"{self.images_seen:,} of {self.total_images:,} images"
        is_training = 0 < self.images_seen < self.total_images
        return f"{seen}, {self.rate:,.0f} images/s, {self.losses}" if is_training and self.rate else seen


def _in_notebook() -> bool:
    """Return whether this process is a notebook's kernel; IPython is not imported to find out."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return shell is not None and "IPKernelApp" in shell.config


def _length(event: Event) -> int:
    """Return the run's length in images where an event says it, else 0."""
    return event.images if isinstance(event, Started | LengthChanged) else 0


def draw_in_text(path: str, tile_px: int, *, tiles: int = 5) -> "Text":
    """Return the first tiles of a grid at half their size, two pixels to a character."""
    import numpy as np
    from PIL import Image
    from rich.text import Text

    upper_half = "\u2580"  # the foreground paints the upper pixel, the background the lower one
    with Image.open(path, formats=("PNG",)) as picture:  # just written by this process
        strip = picture.convert("RGB").crop((0, 0, tiles * tile_px, tile_px))
    strip = strip.resize((tiles * tile_px // 2, tile_px // 2 // 2 * 2), Image.Resampling.BOX)
    text = Text()
    rows = np.asarray(strip).tolist()
    for above, below in zip(rows[::2], rows[1::2], strict=True):
        for upper, lower in zip(above, below, strict=True):
            text.append(upper_half, style="#{:02x}{:02x}{:02x} on #{:02x}{:02x}{:02x}".format(*upper, *lower))
        text.append("\n")
    return text


def _losses(event: Logged) -> str:
    """Return the losses; a network that skipped all its steps has none."""
    names = [name for name in ("d_loss", "g_loss") if event.values.get(name) is not None]
    return "  ".join(f"{name[0].upper()} {event.values[name]:.3f}" for name in names)
