"""The command `gansmith`: each function parses, calls the library, prints.

Nothing heavy is imported until a command needs it, so `--help` answers at once.
"""

import dataclasses
import json
import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import App, CycloptsError, Parameter

from gansmith.config import FIELDS, Config, resolve

if TYPE_CHECKING:
    from torch import Tensor

    from gansmith.runs import Run

_STARTED_AT = time.perf_counter()
RUNS = Path("runs")

app = App(
    name="gansmith",
    help="Train, measure and ship small image generators (GANs) on this machine.",
    version_flags=["--version"],
    help_format="plaintext",  # Markdown would import a parser first
    help_epilogue="Start with: gansmith train --minutes 3",
)
data_app = App(name="data", help="Fetch, check or export the real images of a data set.")
app.command(data_app)

# One optional flag for each field of Config; text is turned into values by Config's own rules.
Overrides = dataclasses.make_dataclass(
    "Overrides",
    [
        (
            name,
            Annotated[
                bool | None if field.type is bool else str | None,
                Parameter(help=f"{field.metadata['help']} (default {field.default!r})", group="Choices"),
            ],
            dataclasses.field(default=None),
        )
        for name, field in FIELDS.items()
        if name != "recipe"
    ],
    kw_only=True,
    namespace={"__module__": __name__},  # else it passes for a class of the standard library, with no fields
)
_NO_OVERRIDES = Overrides()
Progress = Literal["auto", "plain", "json"]


def main() -> None:
    """Run the command line and exit: 0 done, 1 training went wrong, 2 a mistake in the request, 130 interrupted."""
    try:
        code = app(sys.argv[1:], exit_on_error=False, print_error=False, result_action="return_value")
    except CycloptsError as error:
        _complain(" ".join(str(error).split()))
        code = 2
    except ArithmeticError as error:
        _complain(str(error))
        code = 1
    except (ValueError, FileNotFoundError) as error:
        _complain(str(error))
        code = 2
    except OSError as error:
        _complain(f"{error.filename}: {error.strerror}; choose a place that can be read and written, with space left")
        code = 2
    sys.exit(code or 0)


def _complain(sentence: str) -> None:
    print(f"gansmith: {sentence}", file=sys.stderr)


@app.command
def train(
    recipe: str | None = None,
    /,
    *,
    minutes: float | None = None,
    out: Path | None = None,
    config: Path | None = None,
    progress: Progress = "auto",
    print_config: Annotated[bool, Parameter(negative=())] = False,
    overrides: Annotated[Overrides, Parameter(name="*")] = _NO_OVERRIDES,  # type: ignore[valid-type]
) -> int:
    """Train a generator and write everything about it to a run directory.

    The same command on a directory that holds the same run continues it.

    Parameters
    ----------
    recipe
        Row of `gansmith list recipes` to start from.
    minutes
        Wall time to spend, from start to exit; sets the number of images to what this machine manages.
    out
        Run directory; by default the next number under runs/.
    config
        TOML file with field = value lines.
    progress
        Live bar, plain lines, or one JSON object a line.
    print_config
        Show every choice and where it came from, and stop.
    """
    flags = {name: value for name, value in vars(overrides).items() if value is not None}
    chosen, origins = resolve(recipe, file=config, environ=os.environ, flags=flags)
    if print_config:
        _print_config(chosen, origins)
        return 0
    if minutes is not None and "images" in flags:
        raise ValueError("both --minutes and --images set the length; give one of them")
    if minutes is not None and not 0 < minutes < 100_000:
        raise ValueError(f"minutes is {minutes}; it must be more than 0, such as 3")

    from gansmith.runs import create_run, next_directory, open_run, refuse_occupied
    from gansmith.train import measure_images, prepare

    directory = out or next_directory(RUNS, chosen)
    known = out is not None and (out / "config.toml").is_file()
    if minutes is not None and known:
        chosen = chosen.replace(images=open_run(directory).config.images)
    if not known:
        refuse_occupied(directory)
    chosen, material = prepare(chosen)
    _say(progress, f"{chosen.dataset}: {len(material.fit):,} images to train on, from {material.fit.source}")
    for notice in material.fit.notices:
        _say(progress, f"note: {notice}")
    if minutes is not None and not known:
        seconds = 60 * minutes - (time.perf_counter() - _STARTED_AT)
        chosen = chosen.replace(images=measure_images(chosen, material, seconds))
    return _train(create_run(directory, chosen), material, progress)


@app.command
def resume(
    run: Path,
    /,
    *,
    images: str | None = None,
    progress: Progress = "auto",
) -> int:
    """Continue a run that was stopped, or a finished one with more images.

    Parameters
    ----------
    run
        Run directory.
    images
        New total length; without it, the length the run was given.
    """
    from gansmith.config import parse_value
    from gansmith.runs import create_run, open_run
    from gansmith.train import prepare

    config = open_run(run).config
    if images is not None:
        config = config.replace(images=parse_value("images", images))
    config, material = prepare(config)
    return _train(create_run(run, config), material, progress)


def _train(run: "Run", material: Any, progress: str) -> int:
    from gansmith.generate import enlarge, grid, load_model, sample
    from gansmith.plot import plot_losses
    from gansmith.progress import show_progress
    from gansmith.train import record_start
    from gansmith.train import train as train_run

    record_start(run, material, command=["gansmith", *sys.argv[1:]])
    with _signals() as caught, show_progress(run.config.images, progress) as show:
        for report in train_run(run, material, stop=lambda: bool(caught)):
            show(report)
    if caught:
        run.record(status="stopped")
        _say(progress, f"stopped and saved; go on with: gansmith resume {run.directory}")
        return 128 + caught[0]
    model = load_model(run.directory)
    images, _ = sample(model, seed=0, count=25)
    enlarge(grid(images)).save(run.directory / "grid.png")
    plot_losses(run)
    run.record(status="finished")
    scores = run.metrics()
    if scores:
        last = scores[-1]
        _say(
            progress,
            f"score        {last['ratio']:.2f} times real: Frechet distance {last['frechet']:.3f} to",
        )
        _say(
            progress,
            f"             {last['n']:,} held-out images, where other real images score {last['floor']:.3f}",
        )
    else:
        _say(progress, "score        none: no validation images were held out")
    for name, path in (
        ("grid", "grid.png"),
        ("losses", "loss.png"),
        ("frames", "samples/"),
        ("generator", f"checkpoints/{run.latest().name}/generator.safetensors"),  # type: ignore[union-attr]
    ):
        _say(progress, f"{name:<12} {run.directory / path}")
    _say(progress, f"more digits  gansmith sample {run.directory} --count 100 --out more.png")
    return 0


def _say(progress: str, line: str) -> None:
    """A line for people; scripts that read JSON get it on the other stream."""
    print(line, file=sys.stderr if progress == "json" else sys.stdout, flush=True)


@contextmanager
def _signals() -> Iterator[list[int]]:
    """Signals asking to stop, as they arrive; a second Ctrl-C quits at once."""
    caught: list[int] = []

    def note(number: int, frame: object) -> None:
        if caught and number == signal.SIGINT:
            signal.default_int_handler(number, None)
        caught.append(number)

    previous = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield caught
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _print_config(config: Config, origins: dict[str, str]) -> None:
    width = max(map(len, config.to_toml().splitlines()))
    for line in config.to_toml().splitlines():
        print(f"{line:<{width}}  # {origins[line.split(' ')[0]]}")


@app.command
def sample(
    source: Path,
    /,
    *,
    count: int = 25,
    seed: int = 0,
    numpy_seed: int | None = None,
    labels: str | None = None,
    latents: Path | None = None,
    out: Path = Path("grid.png"),
) -> int:
    """Draw images with a trained generator.

    Parameters
    ----------
    source
        Run directory or generator.safetensors.
    count
        How many images.
    seed
        Image k depends on this seed and k alone.
    numpy_seed
        Draw latents by NumPy's legacy RandomState instead, as course assignments ask for.
    labels
        Classes to draw in turn: 0-9, or 2024 for the digits 2, 0, 2, 4, or 3,11,12. By default as in training.
    latents
        A .npy file of latents (N, z_dim); sets the count.
    out
        A .png grid, a .npz with images and labels, or a folder for one PNG each.
    """
    import torch

    from gansmith.generate import choose_ids, draw_latents, generate, load_model, numpy_latents, read_latents

    if count < 1:
        raise ValueError(f"count is {count}; it must be 1 or more, such as 25")
    if seed < 0 or (numpy_seed is not None and not 0 <= numpy_seed < 2**32):
        raise ValueError("a seed must be a whole number from 0 (to 4294967295 for NumPy's), such as 504")
    _require_parent(out)
    model = load_model(source)
    z_dim = model.config.z_dim
    if latents is not None:
        z = read_latents(latents, z_dim)
        count = len(z)
    elif numpy_seed is not None:
        z = numpy_latents(z_dim, seed=numpy_seed, count=count)
    else:
        z = draw_latents(z_dim, seed=seed, count=count)
    wanted = None if labels is None else parse_labels(labels)
    ids = choose_ids(model, seed=seed if numpy_seed is None else numpy_seed, count=count, labels=wanted)
    images = generate(model, z, ids)
    _write_images(images, ids if model.is_labelled else torch.full_like(ids, -1), out)
    print(f"{count} images -> {out}")
    return 0


def parse_labels(text: str) -> list[int]:
    """Labels from 0-9 (a range), 3,11,12 (a list) or 2024 (one digit each)."""
    try:
        if "," in text:
            return [label for part in text.split(",") for label in parse_labels_part(part)]
        return parse_labels_part(text) if "-" in text else [int(digit) for digit in text]
    except ValueError:
        raise ValueError(f"labels are {text!r}; write a range 0-9, a list 3,11,12 or digits 2024") from None


def parse_labels_part(text: str) -> list[int]:
    first, dash, last = text.partition("-")
    return list(range(int(first), int(last) + 1)) if dash else [int(first)]


def _require_parent(out: Path) -> None:
    if not out.absolute().parent.is_dir():
        raise FileNotFoundError(
            f"there is no folder {str(out.absolute().parent)!r} to write {out.name} in; make it first"
        )
    if out.suffix not in (".png", ".npz") and out.is_file():
        raise ValueError(f"{out} is a file; end --out in .png or .npz, or name a folder")


def _write_images(images: "Tensor", labels: "Tensor", out: Path) -> None:
    from gansmith.generate import enlarge, grid, write_npz

    if out.suffix == ".png":
        enlarge(grid(images)).save(out)
    elif out.suffix == ".npz":
        write_npz(out, images, labels)
    else:
        out.mkdir(exist_ok=True)
        for k in range(len(images)):
            grid(images[k : k + 1]).save(out / f"{k:05d}.png")


@app.command(name="list")
def list_(what: Literal["recipes", "datasets", "networks", "objectives", "metrics"] | None = None, /) -> int:
    """Show the names this version knows.

    Parameters
    ----------
    what
        One kind of name; without it, every kind.
    """
    from gansmith.recipes import RECIPES

    tables: dict[str, Any] = {"recipes": RECIPES}
    if what != "recipes":
        from gansmith.data import DATASETS
        from gansmith.losses import OBJECTIVES
        from gansmith.metrics import METRICS
        from gansmith.networks import NETWORKS

        tables |= {"datasets": DATASETS, "networks": NETWORKS, "objectives": OBJECTIVES, "metrics": METRICS}
    for kind, table in tables.items():
        if what in (None, kind):
            if what is None:
                print(f"{kind}:")
            for name in table:
                print(f"{'' if what else '  '}{name}")
    return 0


@app.command
def describe(recipe: str, /, *, json: Annotated[bool, Parameter(name="--json", negative=())] = False) -> int:
    """Show a recipe's layers, shapes, parameters, objective, optimisers and budget for 28x28 grey images.

    Parameters
    ----------
    recipe
        Row of `gansmith list recipes`.
    json
        One JSON object instead of a table.
    """
    from gansmith.describe import describe as describe_config
    from gansmith.describe import to_text

    facts = describe_config(resolve(recipe)[0])
    print(_to_json(facts) if json else to_text(facts))
    return 0


def _to_json(value: object) -> str:
    return json.dumps(value)


@data_app.command
def fetch(name: str, /) -> int:
    """Download a data set into the user cache, checked by SHA-256."""
    from gansmith.data.idx import cache_dir
    from gansmith.data.idx import fetch as fetch_set

    if not all([fetch_set(name, part) for part in ("train", "test")]):
        raise FileNotFoundError(f"{name} could not be fetched from any mirror; check the network, or give --data-dir")
    print(f"{name} -> {cache_dir(name)}")
    return 0


@data_app.command
def check(name: str, /, *, data_dir: Path | None = None) -> int:
    """Read a data set and say where it was found, how large it is, and its hash."""
    from gansmith.data import load_data

    images = load_data(name, data_dir=data_dir)
    print(f"{name}: {len(images):,} images of {tuple(images.pixels.shape[1:])}, {images.num_classes} classes")
    print(f"source: {images.source}")
    print(f"sha256: {images.sha256}")
    for notice in images.notices:
        print(f"note: {notice}")
    return 0


@data_app.command
def export(
    name: str,
    /,
    *,
    split: Literal["fit", "validation", "test"],
    out: Path,
    data_dir: Path | None = None,
) -> int:
    """Write real images in the form of `sample`: a .npz, a .png grid, or a folder of PNGs."""
    import torch

    from gansmith.data import load_split

    _require_parent(out)
    images = load_split(name, split, data_dir=data_dir)
    labels = torch.full((len(images),), -1) if images.labels is None else images.labels
    _write_images(images.pixels, labels, out)
    print(f"{len(images):,} images -> {out}")
    return 0


@app.command
def doctor() -> int:
    """Say what this machine offers: versions, processor, memory, disk, data."""
    from gansmith.doctor import examine

    for name, value in examine().items():
        print(f"{name:<14} {value}")
    return 0
