"""What a person or a script sees while a run trains: a live bar, plain lines, or JSON."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from gansmith.runs import to_json

if TYPE_CHECKING:
    from rich.text import Text

_PLAIN_EVERY_S = 5.0

Show = Callable[[dict[str, Any]], None]


@contextmanager
def show_progress(total_images: int, style: str) -> Iterator[Show]:
    """A function that shows one report of `train`; `auto` draws a bar on a terminal and plain lines elsewhere."""
    if style == "json":
        yield _print_json
    elif style == "plain" or not sys.stdout.isatty():
        yield _plain(total_images)
    else:
        with _bar(total_images) as show:
            yield show


def _print_json(report: dict[str, Any]) -> None:
    sys.stdout.write(to_json(report) + "\n")
    sys.stdout.flush()


def _plain(total_images: int) -> Show:
    last_shown_at = -_PLAIN_EVERY_S

    def show(report: dict[str, Any]) -> None:
        nonlocal last_shown_at, total_images
        if report["kind"] == "length":
            total_images = report["images"]
            line = f"{total_images:,} images will fit into the time left"
        elif report["kind"] == "score":
            line = _score(report)
        elif report["kind"] in ("trouble", "rollback"):
            line = report["sentence"]
        elif report["kind"] == "log" and time.monotonic() - last_shown_at >= _PLAIN_EVERY_S:
            last_shown_at = time.monotonic()
            done = f"{report['images_seen']:>9,} of {total_images:,} images"
            line = f"{done}  {report['images_per_s']:7,.0f} a second  {_losses(report)}"
        else:
            return
        sys.stdout.write(line + "\n")
        sys.stdout.flush()

    return show


@contextmanager
def _bar(total_images: int) -> Iterator[Show]:
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
    task = progress.add_task("", total=total_images, rate=0.0, losses="")
    with Live(Group(progress, Text()), refresh_per_second=4) as live:

        def show(report: dict[str, Any]) -> None:
            if report["kind"] == "length":
                progress.update(task, total=report["images"])
            if report["kind"] == "log":
                progress.update(
                    task, completed=report["images_seen"], rate=report["images_per_s"], losses=_losses(report)
                )
            elif report["kind"] == "score":
                live.console.print(_score(report))
            elif report["kind"] in ("trouble", "rollback"):
                live.console.print(report["sentence"])
            elif report["kind"] == "sampled" and live.console.color_system in ("256", "truecolor"):
                live.update(Group(progress, draw_in_text(report["path"], report["tile_px"])))

        yield show


def draw_in_text(path: str, tile_px: int, *, tiles: int = 5) -> "Text":
    """The first tiles of a grid at half their size, two pixels to a character."""
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


def _losses(report: dict[str, Any]) -> str:
    """A player that rested all the time has none."""
    return "  ".join(f"{name[0].upper()} {report[name]:.3f}" for name in ("d_loss", "g_loss") if name in report)


def _score(report: dict[str, Any]) -> str:
    return (
        f"{report['images_seen']:>9,} images: {report['ratio']:.2f} times real "
        f"(distance {report['frechet']:.3f}, real data {report['floor']:.3f}, {report['n']:,} images a side)"
    )
