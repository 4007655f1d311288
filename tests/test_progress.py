"""What shows while a run trains."""

import io
import os
import pty
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import TINY
from PIL import Image
from rich.console import Console

from gansmith import progress
from gansmith.progress import draw_in_text

GANSMITH = str(Path(sys.executable).with_name("gansmith"))


def test_a_small_sample_is_painted_two_pixels_to_a_character(tmp_path):
    pixels = np.zeros((8, 40), np.uint8)
    pixels[:4, :8] = 255  # the upper half of the first tile
    Image.fromarray(pixels).save(tmp_path / "grid.png")
    text = draw_in_text(str(tmp_path / "grid.png"), 8)
    lines = text.plain.splitlines()
    assert [len(line) for line in lines] == [20, 20]
    styles = {str(span.style) for span in text.spans}
    assert styles == {"#ffffff on #ffffff", "#000000 on #000000"}


@pytest.mark.parametrize(
    ("choices", "encoding", "shown"),
    [
        ({}, "utf-8", True),
        ({"no_color": True}, "utf-8", False),
        ({}, "latin-1", False),
        ({"color_system": None}, "utf-8", False),
    ],
)
def test_pictures_are_shown_where_a_terminal_has_colors_and_half_blocks(choices, encoding, shown):
    file = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    choices = {"color_system": "truecolor", **choices}
    assert progress._shows_pictures(Console(file=file, force_terminal=True, **choices)) == shown


@pytest.mark.slow
@pytest.mark.parametrize("in_a_cell", [False, True])
def test_a_terminal_gets_a_bar_and_a_picture_and_a_cell_with_a_command_gets_lines(digit_dir, tmp_path, in_a_cell):
    flags = [word for name, value in TINY.items() for word in (f"--{name.replace('_', '-')}", str(value))]
    ours, theirs = pty.openpty()
    environ = {**os.environ, "TERM": "xterm-256color", "COLORTERM": "truecolor", "COLUMNS": "120", "LINES": "40"}
    environ |= {"JPY_PARENT_PID": "1"} if in_a_cell else {}  # as Jupyter starts a kernel, which runs it in a terminal
    command = [GANSMITH, "train", *flags, "--data-dir", str(digit_dir), "--out", str(tmp_path / "run")]
    with subprocess.Popen(command, stdout=theirs, stderr=theirs, env=environ) as process:
        os.close(theirs)
        shown = b""
        while True:
            try:
                part = os.read(ours, 65536)
            except OSError:  # Linux says so when the other end has closed
                break
            if not part:
                break
            shown += part
        assert process.wait() == 0
    os.close(ours)
    assert b"validation FD ratio" in shown
    assert (b"100%" in shown, "\u2580".encode() in shown, b"\x1b" in shown) == (not in_a_cell,) * 3
