"""What a course asks for and how it is graded: a TOML file, every field with a default."""

import dataclasses
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gansmith.errors import ConfigError, NotFoundError

TILES = 25  # of the grid, five rows of five
COMMON_SEEDS = (0, 1, 2, 3, 5, 7, 10, 42, 100, 123, 500, 503, 504, 505, 1000, 1234, 2024, 2025, 2026)
STUDENTS = "for-students"  # folder of the kit, beside that of the hand-ins
FILES = {
    "generator": "generator.*",
    "evaluation script": "evaluation.py",
    "training code": "train*.py *.ipynb",
    "grid": "grid.png",
    "loss plot": "loss*.png loss*.pdf",
    "report": "report*.pdf",
}
POINTS = {
    "files": 10.0,
    "runs": 15.0,
    "grid": 15.0,
    "classes": 20.0,
    "recognised": 15.0,
    "fd_ratio": 15.0,
    "originality": 10.0,
}


@dataclass(frozen=True)
class Settings:
    """Settings of the grader.

    Attributes:
        title: of the assignment.
        data: the data set that generators are trained on, a name or a path.
        seed: of the latents of the grid, numpy.random.RandomState(seed).normal(size=(25, latent_dim)).
        samples: images drawn from other latents, for the FD ratio and the search for copies.
        seconds: of a core's time for each process of a hand-in, and twice as long by the clock.
        memory_mb: of all processes of a hand-in together.
        processes: of a hand-in at once.
        disk_mb: a hand-in, unpacked, and what it writes.
        recognised: tiles of the grid, of 25, that a classifier must be sure of.
        copies: share of samples that may be near copies of training images.
        fd_ratio_full, fd_ratio_none: FD ratio up to which all points are given, and from which none are.
        files: what must be handed in -> patterns of names, separated by spaces, any of which will do.
        points: check -> points.
    """

    title: str = "A generator of images"
    data: str = "mnist"
    seed: int = 504
    samples: int = 2_000
    seconds: int = 60
    memory_mb: int = 3_000
    processes: int = 64
    disk_mb: int = 500
    recognised: int = 20
    copies: float = 0.02
    fd_ratio_full: float = 10.0
    fd_ratio_none: float = 200.0
    files: Mapping[str, str] = field(default_factory=lambda: dict(FILES))
    points: Mapping[str, float] = field(default_factory=lambda: dict(POINTS))


RANGES: dict[str, tuple[float, float]] = {
    "seed": (0, 2**32 - 1),
    "samples": (1_000, 10_000),  # an FD ratio needs as many
    "seconds": (1, 86_400),
    "memory_mb": (100, 1_000_000),
    "processes": (4, 10_000),
    "disk_mb": (1, 1_000_000),
    "recognised": (0, TILES),
    "copies": (0.0, 1.0),
    "fd_ratio_full": (1.0, 1e6),
    "fd_ratio_none": (1.0, 1e6),
}


def read_settings(path: Path | None, **changes: Any) -> Settings:
    """Return the settings in a file, or the defaults, with these changes that are not None.

    Raises NotFoundError where there is no such file, ConfigError for what it must not say.
    """
    values: dict[str, Any] = {}
    if path is not None:
        if not path.is_file():
            raise NotFoundError(f"there is no file {str(path)!r}; give the grade.toml that `gansmith course` wrote")
        try:
            values = tomllib.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ConfigError(f"{path} is no TOML file ({error}); compare it with one of `gansmith course`") from None
    values |= {name: value for name, value in changes.items() if value is not None}
    fields = {one.name: one for one in dataclasses.fields(Settings)}
    for name, value in values.items():
        if name not in fields:
            raise ConfigError(f"{path or 'the settings'}: there is no {name!r}; it must be one of {', '.join(fields)}")
        values[name] = _checked(name, value)
    settings = Settings(**values)
    if settings.fd_ratio_full >= settings.fd_ratio_none:
        raise ConfigError(
            f"fd_ratio_full is {settings.fd_ratio_full:g} and must be below fd_ratio_none, {settings.fd_ratio_none:g}"
        )
    return settings


def _checked(name: str, value: Any) -> Any:
    """Return a field's value; ConfigError for one of another type or out of range."""
    default = getattr(Settings(), name)
    if name == "files":
        if isinstance(value, dict) and all(isinstance(text, str) and text.split() for text in value.values()):
            return value
        raise ConfigError("files must be a table such as: report = 'report*.pdf'")
    if name == "points":
        if isinstance(value, dict) and value.keys() <= POINTS.keys() and all(map(_is_points, value.values())):
            return value
        raise ConfigError(f"points must be a table of numbers from 0 to 1000 for some of {', '.join(POINTS)}")
    if isinstance(default, str):
        if isinstance(value, str) and value:
            return value
        raise ConfigError(f"{name} is {value!r}; it must be a text")
    low, high = RANGES[name]
    is_number = not isinstance(value, bool) and isinstance(value, (int, float) if isinstance(default, float) else int)
    if not is_number or not low <= value <= high:
        kind = "a number" if isinstance(default, float) else "a whole number"
        raise ConfigError(f"{name} is {value!r}; it must be {kind} from {_shown(low)} to {_shown(high)}")
    return value


def _is_points(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 1000


_COMMENTS = {
    "seed": "of the grid: numpy.random.RandomState(seed).normal(size=(25, latent_dim))",
    "samples": "images from other latents, for the FD ratio and the search for copies",
    "seconds": "of a core's time for each process of a hand-in; twice as long by the clock",
    "memory_mb": "of all processes of a hand-in together",
    "processes": "of a hand-in at once",
    "disk_mb": "a hand-in, unpacked, and what it writes",
    "recognised": "tiles, of 25, that the classifier must be sure of",
    "copies": "share of samples that may be near copies of training images",
    "fd_ratio_full": "FD ratio up to which all points are given",
    "fd_ratio_none": "FD ratio from which no points are given; between them points fall with its logarithm",
}


def settings_text(settings: Settings) -> str:
    """Return the settings as a TOML file with comments."""
    import tomli_w

    values = dataclasses.asdict(settings)
    tables = {name: values.pop(name) for name in ("files", "points")}
    lines = [
        f"{line}  # {_COMMENTS[name]}" if name in _COMMENTS else line
        for name, line in zip(values, tomli_w.dumps(values).splitlines(), strict=True)
    ]
    about_files = "# What must be handed in: any file whose name fits one of the patterns will do."
    about_points = "# Points of each check; a check without points is shown and not counted."
    files, points = (tomli_w.dumps({name: tables[name]}).strip() for name in ("files", "points"))
    return "\n".join([*lines, "", about_files, files, "", about_points, points, ""])


def _shown(number: float) -> str:
    """Return a number with all of its digits where it is whole."""
    return f"{number:,.0f}" if float(number).is_integer() else f"{number:g}"
