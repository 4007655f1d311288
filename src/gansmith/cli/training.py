"""`train` and `resume`: from a request to a run directory."""

import dataclasses
import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from gansmith.cli.output import complain, say
from gansmith.config import FIELDS, Config, resolve

if TYPE_CHECKING:
    from gansmith.runs import Run

_STARTED_AT = time.perf_counter()
RUNS = Path("runs")

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
    check_length(minutes, flags.get("images"))
    if flags.get("data_dir") == "":
        raise ValueError("data_dir is empty; give the folder that holds the IDX files, or leave --data-dir away")
    global _STARTED_AT

    from gansmith.runs import create_run, holds_run, make_next_directory, next_directory, open_run, refuse_occupied
    from gansmith.trackers import parse_trackers
    from gansmith.train import fit_to_machine, prepare

    directory = out or next_directory(RUNS, chosen)
    known = out is not None and holds_run(out)
    if not known:
        refuse_occupied(directory)
    else:
        begun = open_run(directory).config
        chosen = chosen.replace(threads=chosen.threads or begun.threads)
        if minutes is not None:
            chosen = chosen.replace(images=begun.images, first_images=begun.first_images)
    parse_trackers(chosen.trackers)
    chosen, material = prepare(chosen)
    say(progress, f"{chosen.dataset}: {len(material.fit):,} images to train on, from {material.fit.source}")
    for notice in material.fit.notices:
        say(progress, f"note: {notice}")
    deadline = None
    if minutes is not None and not known:
        deadline = _STARTED_AT + 60 * minutes
        asked = chosen.threads
        chosen = fit_to_machine(chosen, material, deadline - time.perf_counter())
        if chosen.threads != asked:
            threads = "one thread" if chosen.threads == 1 else f"{chosen.threads} threads"
            say(progress, f"note: other programs keep this machine busy, so {threads} will do more than all cores")
    if out is None:  # another process may have taken the number meanwhile
        directory = make_next_directory(RUNS, chosen)
    code = _train(create_run(directory, chosen), material, progress, deadline)
    _STARTED_AT = time.perf_counter()  # a process that trains again has its minutes again
    return code


def check_length(minutes: float | None, images: object) -> None:
    """Refuse two lengths at once, and minutes that are no length; ValueError."""
    if minutes is None:
        return
    if images is not None:
        raise ValueError("both --minutes and --images set the length; give one of them")
    if not 0 < minutes < 100_000:
        raise ValueError(f"minutes is {minutes:g}; it must be more than 0 and less than 100,000, such as 3")


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
    progress
        Live bar, plain lines, or one JSON object a line.
    """
    from gansmith.config import parse_value
    from gansmith.runs import create_run, open_run
    from gansmith.train import prepare

    config = open_run(run).config
    if images is not None:
        config = config.replace(images=parse_value("images", images))
    config, material = prepare(config)
    return _train(create_run(run, config), material, progress)


def _train(run: "Run", material: Any, progress: str, deadline: float | None = None) -> int:
    from gansmith.generate import enlarge, grid, load_model, sample, to_png
    from gansmith.plot import plot_curves
    from gansmith.progress import show_progress
    from gansmith.runs import NotSavedError, open_run, write_bytes
    from gansmith.trackers import tracked
    from gansmith.train import train as train_run

    command = ["gansmith", *sys.argv[1:]]
    try:
        with _signals() as caught, show_progress(run.config.images, progress) as show:
            reports = train_run(run, material, stop=lambda: bool(caught), command=command, deadline=deadline)
            for report in tracked(run, reports):
                show(report)
    except NotSavedError as error:
        complain(str(error))
        return 1
    if caught:
        say(progress, f"stopped and saved; go on with: gansmith resume {run.directory}")
        return 128 + caught[0]
    run, model = open_run(run.directory), load_model(run.directory)
    images, _ = sample(model, seed=0, count=25)
    write_bytes(run.directory / "grid.png", to_png(enlarge(grid(images))))
    plot_curves(run)
    scores = run.scores()
    if scores:
        last = scores[-1]
        say(
            progress,
            f"score        {last['ratio']:.2f} times real, quick: Frechet distance {last['frechet']:.3f} to",
        )
        say(
            progress,
            f"             {last['n']:,} held-out images, where other real images score {last['floor']:.3f}",
        )
        if last["images_seen"] < run.config.images:
            say(progress, f"             ended early: {run.config.stop_early} scores in a row were no better")
    else:
        say(progress, "score        none: no images were held out, so no checkpoint is called best")
    for name, path in (
        ("grid", "grid.png"),
        ("losses", "loss.png"),
        ("frames", "samples/"),
        ("generator", f"checkpoints/{run.latest().name}/generator.safetensors"),  # type: ignore[union-attr]
    ):
        say(progress, f"{name:<12} {run.directory / path}")
    say(progress, f"judge        gansmith evaluate {run.directory}")
    say(progress, f"more digits  gansmith sample {run.directory} --count 100 --out more.png")
    return 0


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
