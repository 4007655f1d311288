"""`train` and `resume`: from a request to a run directory."""

import dataclasses
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Group, Parameter

from gansmith.cli.output import command_name, say
from gansmith.config import FIELDS, Config
from gansmith.files import quoted
from gansmith.verdicts import caution_about

if TYPE_CHECKING:
    from gansmith.api import Run
    from gansmith.planning import Plan

_STARTED_AT = time.perf_counter()

_GROUPS = {
    name: Group(name, sort_key=place)
    for place, name in enumerate(dict.fromkeys(field.metadata["group"] for field in FIELDS.values()))
}


# A flag's text stays as it was typed: Config's own rules turn it into a value, such as 200k into a number, and its help
# names the kind. Types that are int and float themselves would be checked by pydantic where that is loaded.
_TEXTS = {int: type("Int", (str,), {}), float: type("Float", (str,), {})}


def _help(field: dataclasses.Field[Any]) -> str:
    """Return what a flag means, what it may be, and its default."""
    low, high, choices = (field.metadata[key] for key in ("low", "high", "choices"))
    allowed = [", ".join(choices)] if choices else []
    if low is not None and high is not None and high < 2**31:
        allowed = [f"{low:g} to {high:g}"]
    return f"{field.metadata['help']} ({'; '.join([*allowed, f'default {field.default!r}'])})"


# One optional flag for each field of Config.
Overrides = dataclasses.make_dataclass(
    "Overrides",
    [
        (
            name,
            Annotated[
                _TEXTS.get(field.type, field.type) | None,  # type: ignore[arg-type, operator]
                Parameter(
                    help=_help(field),
                    group=_GROUPS[field.metadata["group"]],
                ),
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
Progress = Literal["auto", "bar", "plain", "json", "none"]


def train(
    recipe: str | None = None,
    /,
    *,
    minutes: float | None = None,
    epochs: float | None = None,
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
        Row of `gansmith list recipes` to start from (without one: default); its values replace the defaults below.
    minutes
        Wall time to spend, from start to exit; sets the number of images to what this machine manages.
    epochs
        Training length in passes over the training images, instead of --images.
    out
        Run directory; by default the next number under runs/.
    config
        TOML file with field = value lines.
    progress
        Live bar, plain lines, one JSON object a line, or nothing.
    print_config
        Show every choice and where it came from, and stop.
    """
    import os

    choices = {name: value for name, value in vars(overrides).items() if value is not None}
    if print_config:
        from gansmith.planning import as_arguments, refuse_lengths
        from gansmith.training.transfer import resolve_with_source

        refuse_lengths(minutes=minutes, images=choices.get("images"), epochs=epochs)
        arguments = as_arguments(None, None, choices)
        resolved, _ = resolve_with_source(recipe, file=config, environ=os.environ, arguments=arguments)
        _print_config(resolved, "--minutes" if minutes is not None else "--epochs" if epochs is not None else "")
        return 0
    global _STARTED_AT
    from gansmith.planning import plan_training
    from gansmith.progress import show_preparation

    images = choices.pop("images", None)
    with show_preparation(progress) as watch:
        plan = plan_training(
            recipe, minutes=minutes, images=images, epochs=epochs, out=out, file=config, choices=choices,
            started_at=_STARTED_AT, watch=watch,
        )  # fmt: skip
    code = _train(plan, progress)
    _STARTED_AT = time.perf_counter()  # a process that trains again has its minutes again
    return code


def resume(
    run: Path,
    /,
    *,
    images: str | None = None,
    minutes: float | None = None,
    epochs: float | None = None,
    data: str | None = None,
    device: str | None = None,
    progress: Progress = "auto",
) -> int:
    """Continue a run that was stopped, or a finished one beyond its end.

    Parameters
    ----------
    run
        Run directory.
    images
        New total length; without it, the length the run was given.
    minutes
        Minutes to train from now on.
    epochs
        New total length in passes over the training images.
    data
        Where its images are now, if they were moved.
    device
        Another device to go on with: auto, cpu, cuda, cuda:1 or mps; results then differ by rounding.
    progress
        Live bar, plain lines, one JSON object a line, or nothing.
    """
    from gansmith.planning import plan_resume
    from gansmith.progress import show_preparation

    with show_preparation(progress) as watch:
        plan = plan_resume(run, images=images, minutes=minutes, epochs=epochs, data=data, device=device, watch=watch)
    return _train(plan, progress)


def _train(plan: "Plan", progress: str) -> int:
    from gansmith.api import run_training

    run, caught = run_training(plan, progress=progress, command=["gansmith", *sys.argv[1:]])
    if caught and run.status != "finished":
        saved = f"stopped and saved; continue with: gansmith resume {quoted(run.directory)}"
        say(progress, saved if run.latest() else "stopped before the first checkpoint; the same command begins again")
        return 128 + caught[0]
    _summarise(run, progress)
    return 128 + caught[0] if caught else 0  # which came while the last pictures were drawn


def _summarise(run: "Run", progress: str) -> None:
    """Print the score, the paths of what was written, and what to do next."""
    scores = run.validation_scores()
    if scores:
        last = scores[-1]
        lines = [
            f"score        validation FD ratio {last['validation_fd_ratio']:.2f} (1.00: as close as other real images)",
            f"             FD of {last['n']:,} samples {last['fd']:.3f}, of as many real images {last['fd_real']:.3f}",
        ]
        if list(last["ratios"]) == ["random"]:
            lines.append("             by a network with random weights alone; evaluate may know stricter ones")
        if caution := caution_about(last["n"]):
            lines.append(f"             {caution}")
        if run.config.early_stopping and last["images_seen"] < run.config.images:
            lines.append(f"             stopped early: {run.config.early_stopping} scores in a row were no better")
    elif run.facts().get("data", {}).get("validation", 0) > 1:
        lines = ["score        none: metrics.jsonl holds none"]
    else:
        lines = ["score        none: fewer than two images were held out, so no checkpoint is the best"]
    checkpoint = run.latest()
    assert checkpoint is not None  # a run that ended has saved
    directory = quoted(run.directory)
    for name, path in (
        ("grid", "grid.png"),
        ("losses", "loss.png"),
        ("frames", "samples/"),
        ("generator", f"checkpoints/{checkpoint.name}/generator.safetensors"),
    ):
        lines.append(f"{name:<12} {run.directory / path}")
    command = command_name()
    lines.append(f"evaluate     {command} evaluate {directory}")
    lines.append(f"more samples {command} sample {directory} --count 100 --out more.png")
    for line in lines:
        say(progress, line)


def _print_config(config: Config, length: str) -> None:
    """Print every choice as TOML, with its origin; `length` is the flag that sets the number of images later."""
    lines = config.replace(origins={}).to_toml().splitlines()
    fields = [line for line in lines if line.split(" ")[0] in FIELDS]
    width = max(map(len, fields))
    for line in fields:
        name = line.split(" ")[0]
        origin = config.origins.get(name, "default")
        print(f"{line:<{width}}  # {f'{length} will set it' if length and name == 'images' else origin}")
