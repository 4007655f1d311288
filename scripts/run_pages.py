"""Run the commands and Python lines of the how-to pages and tutorials, and compare or store what they print.

    python scripts/run_pages.py [--write] [PAGE ...]

A page is one session in a folder of its own, which `lay_out_inputs` fills. In a block fenced as `console`, lines that
begin with "$ " are commands and the others their output; a block fenced as `pycon` is a Python session; one fenced as
`python` whose first line is `# name.py` is written to that file. Outputs are compared with every number as 0, since
figures differ between machines; "..." stands for anything, and lines of progress are left out. --write stores the
outputs; in a block with "...", the lines that are shown. Networks are small (see SETTINGS), so that a page takes
seconds.

A picture whose title is a file of the session, ![text](place.png "runs/a/grid.png"), is that file at the end of the
page: --write stores it in its place, in 256 colours to keep it small. Blocks of other kinds are not run.
"""

import argparse
import contextlib
import csv
import doctest
import io
import logging
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from gansmith.cli import main as gansmith_main
from gansmith.data.embedded import embedded_mnist
from gansmith.exporters.web import VERSION, find_runtime

DOCS = Path(__file__).parents[1] / "docs"
SETTINGS = {"G_WIDTH": "16", "D_WIDTH": "16", "THREADS": "1", "TRACKERS": "none", "OFFLINE": "1", "CACHE": "cache"}
BLOCK = re.compile(r"^```(console|pycon|python)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
FILE_NAME = re.compile(r"# (\w+\.py)\n")  # the first line of a block that is written to a file
PICTURE = re.compile(r'!\[[^\]]*\]\((\S+\.png) "(\S+\.png)"\)')  # its place, and the file of the session
COLOURS = 256  # of a stored picture
WEB_EXPORT = re.compile(r"^\$ gansmith export .*--format web", re.MULTILINE)
PROGRESS = re.compile(
    r"^ *[\d,]+ of [\d,]+ images +[\d,]+ images/s.*\n", re.MULTILINE
)  # their number depends on the speed
NUMBER = re.compile(r"\d[\d,]*(?:\.\d+)?(?:e[+-]\d+)?")


def pages() -> list[Path]:
    """Return the pages with blocks to run."""
    return sorted([*DOCS.glob("how-to/*.md"), *DOCS.glob("tutorials/*.md"), *DOCS.glob("explanation/*.md")])


def lay_out_inputs(folder: Path) -> None:
    """Write the files that the pages speak of: digits as folders, table and arrays; colour shapes; a few pictures."""
    embedded = embedded_mnist()
    rows = np.random.default_rng(0).permutation(5000)[:600]
    pixels, labels = embedded.pixels[rows, 0].numpy(), embedded.labels[rows].numpy()
    for k, (digit, label) in enumerate(zip(pixels, labels, strict=True)):
        path = folder / "digits" / str(label) / f"{k:03}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(digit).save(path)
    with (folder / "train.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["label", *(f"pixel{k}" for k in range(784))])
        table.writerows([label, *digit.ravel()] for digit, label in zip(pixels, labels, strict=True))
    np.savez(folder / "digits.npz", images=pixels, labels=labels)
    (folder / "few").mkdir()
    for k in range(10):
        Image.fromarray(pixels[k]).save(folder / "few" / f"{k}.png")
    _draw_shapes(folder / "shapes")
    _draw_shapes(folder / "large", scale=4)


def place_runtime(folder: Path) -> None:
    """Copy what an exported page runs with into the session's cache. Raises NotFoundError where it cannot be had."""
    found, place = find_runtime(), folder / SETTINGS["CACHE"] / "onnxruntime-web" / VERSION
    if found != place:
        shutil.copytree(found, place)


def _draw_shapes(folder: Path, *, scale: int = 1) -> None:
    """Draw 120 colour pictures, 48 pixels wide and 36 high, or larger: circles and squares in two folders."""
    rng = np.random.default_rng(0)
    for k in range(120):
        name = ("circle", "square")[k % 2]
        picture = Image.new("RGB", (48 * scale, 36 * scale), tuple(rng.integers(150, 256, 3)))
        x, y, size = (scale * rng.integers(low, high) for low, high in ((2, 24), (2, 12), (12, 22)))
        draw = ImageDraw.Draw(picture)
        shape = draw.ellipse if name == "circle" else draw.rectangle
        shape((x, y, x + size, y + size), fill=tuple(rng.integers(0, 120, 3)))
        (folder / name).mkdir(parents=True, exist_ok=True)
        picture.save(folder / name / f"{k:03}.jpg", quality=95)


@contextlib.contextmanager
def session(folder: Path):
    """Be in a folder with small networks, no network connection and no data but what comes with Gansmith."""
    before, place, handlers = dict(os.environ), Path.cwd(), logging.root.handlers
    logging.root.handlers = []  # warnings are printed, as they are where nothing collects them
    for name in [name for name in os.environ if name.startswith("GANSMITH_")]:
        del os.environ[name]
    os.environ.update({f"GANSMITH_{name}": value for name, value in SETTINGS.items()}, COLUMNS="120")
    os.environ["CUDA_VISIBLE_DEVICES"] = ""  # what the pages show was computed on processors
    os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])  # python, torchrun
    os.chdir(folder)
    try:
        yield
    finally:
        logging.root.handlers = handlers
        os.chdir(place)
        os.environ.clear()
        os.environ.update(before)


def run_page(text: str) -> tuple[str, list[str]]:
    """Return a page with the outputs of its blocks, and what differs from the outputs it had.

    To be called inside a `session`.
    """
    differences: list[str] = []
    names: dict[str, object] = {}

    def replaced(match: re.Match[str]) -> str:
        kind, block = match.groups()
        if kind == "pycon":
            done, found = _run_python(block, names)
            differences.extend(found)
            return f"```pycon\n{done}```"
        if kind == "python":
            if named := FILE_NAME.match(block):
                Path(named[1]).write_text(block, encoding="utf-8")
            return match[0]
        done = _run_commands(block)
        if not agrees(block, done):
            differences.append(f"shown:\n{block}\nprinted:\n{done}")
        return f"```console\n{lines_shown(block, done) if '...' in block else done}```"

    done = BLOCK.sub(replaced, text)
    differences += [f"no picture {made}" for _, made in PICTURE.findall(text) if not Path(made).is_file()]
    return done, differences


def store_pictures(text: str, page: Path, folder: Path) -> None:
    """Store the pictures that a page shows of its session, which are in the session's folder, in their places."""
    for place, made in PICTURE.findall(text):
        if not (folder / made).is_file():  # a difference, which `run_page` has reported
            continue
        target = page.parent / place
        target.parent.mkdir(parents=True, exist_ok=True)
        with Image.open(folder / made) as picture:
            picture.convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE).save(target, optimize=True)


class _Session(doctest.DocTestRunner):
    """Keeps what each example of a Python session prints, and what differs from what is shown."""

    def __init__(self) -> None:
        super().__init__(verbose=False, optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
        self.shown: list[str] = []
        self.differences: list[str] = []

    def report_start(self, out, test, example):
        pass

    def report_success(self, out, test, example, got):
        self._keep(example, example.want)

    def report_failure(self, out, test, example, got):
        self._keep(example, example.want if "..." in example.want else got)
        if not agrees(example.want, got):
            self.differences.append(f"{example.source}shown:\n{example.want}\nprinted:\n{got}")

    def report_unexpected_exception(self, out, test, example, exc_info):
        self._keep(example, example.want)
        self.differences.append(f"{example.source}raised:\n{exc_info[1]!r}")

    def _keep(self, example, output):
        first, *more = example.source.rstrip().splitlines()
        self.shown.append("\n".join([f">>> {first}", *(f"... {line}".rstrip() for line in more)]) + f"\n{output}")


def _run_python(block: str, names: dict[str, object]) -> tuple[str, list[str]]:
    """Return a Python session with what it prints, and what differs; names stay for the next one."""
    examples = doctest.DocTestParser().get_doctest(block, names, "page", None, None)
    runner = _Session()
    runner.run(examples, clear_globs=False)
    names.update(examples.globs)
    return "".join(runner.shown), runner.differences


def _run_commands(block: str) -> str:
    """Return a block with its commands and what they print."""
    parts = []
    for line in block.splitlines():
        if line.startswith("$ "):
            parts += [line, *(text.rstrip() for text in run_command(line[2:]).splitlines())]
    return "\n".join(parts) + "\n"


def run_command(line: str) -> str:
    """Return what a command prints; `gansmith` runs in this process, which has loaded torch already."""
    words = shlex.split(line, comments=True)
    if words[0] != "gansmith":
        done = subprocess.run(line, shell=True, capture_output=True, text=True, check=False)  # ls and the like
        return PROGRESS.sub("", done.stdout + done.stderr)
    printed = io.StringIO()
    arguments, sys.argv = sys.argv, words
    try:
        with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed), contextlib.suppress(SystemExit):
            gansmith_main()
    finally:
        sys.argv = arguments
    return PROGRESS.sub("", printed.getvalue())


def agrees(shown: str, printed: str) -> bool:
    """Return whether an output is the one shown, but for numbers and spaces; "..." stands for anything."""
    plain = [" ".join(NUMBER.sub("0", text).split()) for text in (shown, printed)]
    pattern = ".*".join(re.escape(part.strip()) for part in plain[0].split("..."))
    return re.fullmatch(pattern.replace(".*", r"\s*.*?\s*"), plain[1], re.DOTALL) is not None


def lines_shown(shown: str, printed: str) -> str:
    """Return the lines of a block with those that agree with them in what was printed, in order."""
    found, place, lines = printed.splitlines(), 0, []
    for line in shown.splitlines():
        rest = range(place, len(found)) if "..." not in line else ()
        at = next((k for k in rest if agrees(line, found[k])), None)
        lines.append(line if at is None else found[at])
        place = place if at is None else at + 1
    return "\n".join(lines) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pages", nargs="*", type=Path)
    parser.add_argument("--write", action="store_true", help="store the outputs in the pages")
    options = parser.parse_args()
    failed = False
    for page in options.pages or pages():
        page = page.absolute()
        text = page.read_text(encoding="utf-8")
        if not BLOCK.search(text):
            continue
        with tempfile.TemporaryDirectory() as folder:
            lay_out_inputs(Path(folder))
            if WEB_EXPORT.search(text):
                place_runtime(Path(folder))
            with session(Path(folder)):
                done, differences = run_page(text)
            if options.write:
                page.write_text(done, encoding="utf-8")
                store_pictures(text, page, Path(folder))
        print("\n".join([f"{page.name}: {len(differences)} differences", *differences]), flush=True)
        failed |= bool(differences)
    return int(failed and not options.write)


if __name__ == "__main__":
    sys.exit(main())
