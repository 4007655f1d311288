"""Run directories as JSON: what a card, a run's page and a form show. Reads through `runs` alone; needs no torch."""

import dataclasses
import functools
import logging
import os
import shlex
import time
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from gansmith import runs
from gansmith.advice import ADVICE, SOURCES
from gansmith.checkpoints import named_checkpoints
from gansmith.config import FIELDS, NAME, Config, name_of
from gansmith.errors import GansmithError, NotFoundError
from gansmith.files import read_json
from gansmith.recipes import RECIPES
from gansmith.runs import RunDirectory
from gansmith.verdicts import Verdict
from gansmith.web.shares import SHARES

logger = logging.getLogger("gansmith")

# Files of a run directory that may be looked at, each with its kind.
FILES = {
    "grid.png": "image/png",
    "loss.png": "image/png",
    "real.png": "image/png",
    "report.pdf": "application/pdf",
    "film.gif": "image/gif",
    "config.toml": "text/plain; charset=utf-8",
    "run.json": "application/json",
    "log.jsonl": "text/plain; charset=utf-8",
    "metrics.jsonl": "text/plain; charset=utf-8",
}
# What a form offers of DATASETS, which is not imported here since it needs torch; a folder of IDX files is uploaded.
DATA_SETS = {
    "mnist": "Handwritten digits, 28 px grey",
    "fashion-mnist": "Clothes, 28 px grey",
    "kmnist": "Japanese letters, 28 px grey",
    "qmnist": "MNIST with more test images",
    "emnist-balanced": "Handwritten letters and digits, equally often",
    "emnist-byclass": "Letters and digits, 62 classes",
    "emnist-bymerge": "Letters and digits, similar capitals merged",
    "emnist-digits": "More handwritten digits",
    "emnist-letters": "Handwritten letters, 28 px grey",
    "emnist-mnist": "MNIST's digits as EMNIST has them",
    "cifar10": "Animals and vehicles, 32 px color",
    "cifar100": "100 kinds of things, 32 px color",
    "svhn": "House numbers, 32 px color",
    "stacked-mnist": "Three digits as color channels: 1,000 modes",
    "gaussian-ring": "Dots in 8 places: modes to count",
    "gaussian-grid": "Dots in 25 places: modes to count",
}
# The rows of NETWORKS and OBJECTIVES, which are not imported here since they need torch.
NAMED = {
    "network": (
        "compact", "planes", "mlp", "mlp-deep", "mlp-keras", "cgan-keras", "dcgan", "dcgan-keras", "dcgan-pooled",
        "autoencoder", "wgan-gp", "sngan", "acgan", "progressive", "stylegan-lite", "r3gan",
    ),
    "objective": (
        "non-saturating", "minimax", "least-squares", "wasserstein", "hinge", "relativistic", "relativistic-average",
        "auxiliary-classifier", "boundary-equilibrium",
    ),
}  # fmt: skip
_STAMPED = ("config.toml", "run.json", "log.jsonl", "metrics.jsonl", "best.json", "samples", "checkpoints")
RECENT = 20  # log rows of a running training whose mean speed is shown
_TAIL_BYTES = 2**15  # of a log that hold so many rows
_ALIVE_S = 1.0  # for so long an answer on who holds a lock is good

Stamp = tuple[tuple[int, int], ...]


def run_path(root: Path, run_id: str) -> Path:
    """Return the directory of a run; NotFoundError for a name that leads anywhere else than to a run in `root`."""
    path = root / run_id
    is_ours = NAME.fullmatch(run_id) is not None and not run_id.startswith(".")
    if not is_ours or path.resolve().parent != root.resolve() or not runs.holds_run(path):
        raise NotFoundError(f"there is no run {run_id[:64]!r} here; it may have been deleted or renamed")
    return path


def run_ids(root: Path) -> list[str]:
    """Return the names of all runs in a directory, sorted."""
    found = []
    for path in root.iterdir() if root.is_dir() else ():
        try:
            found.append(run_path(root, path.name).name)
        except (GansmithError, OSError):  # no run, or a folder that this user may not enter
            continue
    return sorted(found)


def stamp_of(directory: Path) -> Stamp:
    """Return what changes whenever a run directory does: times and sizes of its files, and whether it is locked."""
    found = []
    for name in _STAMPED:
        try:
            status = os.stat(directory / name)
            found.append((status.st_mtime_ns, status.st_size))
        except OSError:
            found.append((0, 0))
    return (*found, (_is_alive(directory, int(time.monotonic() / _ALIVE_S)), 0))


@functools.lru_cache(maxsize=256)
def _is_alive(directory: Path, tick: int) -> bool:
    return runs.is_locked(directory)


_CARDS: dict[Path, tuple[Stamp, dict[str, Any]]] = {}  # of each run, its newest


def card(root: Path, run_id: str) -> dict[str, Any]:
    """Return what a card shows of a run; one that cannot be read has an `error`."""
    path = run_path(root, run_id)
    stamp = stamp_of(path)
    known = _CARDS.get(path)
    if known is None or known[0] != stamp:
        known = _CARDS[path] = (stamp, _card(path))
    return known[1]


def _card(path: Path) -> dict[str, Any]:
    try:
        return _card_of(runs.open_run(path))
    except (GansmithError, OSError) as error:
        said = without_path(str(error), path)
    except Exception:  # one run of another program must not hide all others
        logger.exception("%s cannot be shown", path)
        said = "its files hold what Gansmith never writes; the terminal of the studio says more"
    return {"id": path.name, "status": "unreadable", "error": said, "failures": []}


def _card_of(run: RunDirectory) -> dict[str, Any]:
    config, rows = run.config, run.log
    grids = run.grids()
    begun = run.facts().get("starts") or [{}]
    return {
        "id": run.directory.name,
        "recipe": config.recipe,
        "data": config.data,
        **progress(run, rows),
        **_score(run),
        "failures": list(dict.fromkeys(row["failure"] for row in rows if row.get("kind") == "failure")),
        "grid": grids[-1][0] if grids else None,
        "changed_at": os.stat(run.log_path if rows else run.directory).st_mtime,
        "starts": len(begun),
        "is_conditional": config.conditioning != "none",
        "pace": pace_of(config),
    }


def pace_of(config: Config) -> str:
    """Return the choices that decide how many images a second are seen, as text that is the same for the same ones."""
    return f"{config.network} {config.g_width} {config.d_width}, batches of {config.batch_size}"


def progress(run: RunDirectory, log: Sequence[dict[str, Any]] | None = None) -> dict[str, Any]:
    """Return how far a run is: its status, images seen and to see, images per second, seconds left.

    Args:
        log: its rows, where they were read already.
    """
    status = run.status
    rows = log if log is not None else _newest_rows(run.log_path) if status == "running" else run.log
    saved = [int(path.name) for path in named_checkpoints(run.directory)]
    seen = max([0, *saved[-1:], *(row["images_seen"] for row in rows[-1:])])
    rate = images_per_s(rows[-RECENT:] if status == "running" else rows)
    left = max(0, run.config.images - seen)
    return {
        "status": status,
        "reason": run.facts().get("reason"),
        "images_seen": seen,
        "images": run.config.images,
        "images_per_s": rate,
        "seconds_left": left / rate if rate and status == "running" else None,
    }


def _newest_rows(path: Path) -> list[dict[str, Any]]:
    """Return the last rows of a log, of its last kilobytes alone."""
    if not path.exists():
        return []
    with path.open("rb") as file:
        begin = file.seek(max(0, os.path.getsize(path) - _TAIL_BYTES))
        begin += len(file.readline()) if begin else 0  # which was cut off
    return runs.read_rows_after(path, begin)[0]


def images_per_s(rows: Sequence[Mapping[str, Any]]) -> float | None:
    """Return the mean speed of a training over rows of its log, since its newest start or rollback among them.

    The speed of a single row is that of a moment: the row that follows a score contains the time that this took.
    """
    timed = [row for row in rows if row.get("images_per_s") and row.get("elapsed_s") is not None]
    begins = [k for k, (a, b) in enumerate(pairwise(timed), 1) if min(_passed(a, b)) < 0]
    timed = timed[begins[-1] if begins else 0 :]
    if len(timed) < 2:
        return timed[0]["images_per_s"] if timed else None
    images, seconds = _passed(timed[0], timed[-1])
    try:
        return images / seconds
    except ArithmeticError:  # rows that another program wrote
        return None


def _passed(first: Mapping[str, Any], last: Mapping[str, Any]) -> tuple[int, float]:
    """Return images and seconds between two rows of a log."""
    return last["images_seen"] - first["images_seen"], last["elapsed_s"] - first["elapsed_s"]


def _score(run: RunDirectory) -> dict[str, Any]:
    """Return the FD ratio of the newest images that were scored, and the newest verdict where that is older."""
    verdicts = [row for row in run.metrics_on_own_data() if row.get("gates")]  # without a ratio where gates failed so
    scores = run.validation_scores()
    verdict, score = verdicts[-1] if verdicts else None, scores[-1] if scores else None
    if verdict and (score is None or verdict["images_seen"] >= score["images_seen"]):
        return {"fd_ratio": verdict["fd_ratio"], "scored_by": "evaluate", "valid": verdict.get("valid")}
    older = {name: verdict.get(name) for name in ("fd_ratio", "images_seen", "valid")} if verdict else None
    ratio = score["validation_fd_ratio"] if score else None
    return {"fd_ratio": ratio, "scored_by": "training", "valid": None, "evaluated": older}


def details(root: Path, run_id: str, *, given: Path) -> dict[str, Any]:
    """Return everything a run's page shows besides its curves.

    Args:
        given: the directory of runs as the user named it.
    """
    path = run_path(root, run_id)
    run = runs.open_run(path)
    facts = run.facts()
    return {
        **card(root, run_id),
        "path": str(given / run_id),
        "config": config_rows(run.config),
        "commands": commands(as_given(run.config, root, given)),
        "command": shlex.join(map(str, facts["command"])) if isinstance(facts.get("command"), list) else "",
        "facts": {name: facts[name] for name in ("versions", "python", "machine", "data") if name in facts},
        "rollbacks": facts.get("rollbacks", []),
        "notices": _notices(facts),
        "verdict": _verdict(run),
        "checkpoints": [int(found.name) for found in named_checkpoints(path)],
        "best": best_of(path),
        "grids": [images_seen for images_seen, _ in run.grids()],
        "files": {name: (path / name).stat().st_size for name in FILES if (path / name).is_file()},
        "shares": {name: share.meaning for name, share in SHARES.items()},
    }


def _notices(facts: Mapping[str, Any]) -> list[str]:
    """Return what was said of a run's data; nothing where another program wrote something else there."""
    data = facts.get("data")
    notices = data.get("notices") if isinstance(data, dict) else None
    return [str(notice) for notice in notices] if isinstance(notices, list) else []


def best_of(directory: Path) -> int | None:
    """Return the images seen of the best checkpoint as recorded; None without a record."""
    try:
        return int(read_json(directory / "best.json")["images_seen"])
    except (OSError, LookupError, ValueError, TypeError, OverflowError):
        return None


def _verdict(run: RunDirectory) -> dict[str, Any] | None:
    rows = [row for row in run.metrics_on_own_data() if row.get("gates")]
    if not rows:
        return None
    verdict = Verdict(rows[-1])
    try:
        gates = [{"result": result, "name": name, "figure": figure} for result, name, figure in verdict.gate_rows()]
        figures = {name: verdict.get(name) for name in ("fd_ratio", "fd_ratios", "valid", "images_seen", "n", "tier")}
        return {"headline": verdict.headline(), "origin": verdict.origin(), "gates": gates, **figures}
    except (LookupError, TypeError, AttributeError):  # a line that another program wrote
        return None


def field_rows() -> list[dict[str, Any]]:
    """Return every field of Config for a form: name, kind, default, range, choices, meaning, group, advice, source."""
    return [
        {
            "name": name,
            "kind": field.type.__name__ if isinstance(field.type, type) else str(field.type),
            "default": field.default,
            **{key: field.metadata[key] for key in ("help", "group", "low", "high", "technique")},
            "choices": NAMED.get(name, field.metadata["choices"]),
            "advice": ADVICE.get(name, ""),
            "source": SOURCES.get(name, ""),
        }
        for name, field in FIELDS.items()
    ]


def config_rows(config: Config) -> list[dict[str, Any]]:
    """Return every field with its value, its origin in words, and whether it differs from the recipe."""
    recipe = RECIPES.get(config.recipe, {})
    return [
        {
            "name": name,
            "value": getattr(config, name),
            "origin": config.origins.get(name, "default"),
            "is_changed": getattr(config, name) != recipe.get(name, field.default) and name != "recipe",
            "help": field.metadata["help"],
            "group": field.metadata["group"],
        }
        for name, field in FIELDS.items()
    ]


def as_given(config: Config, root: Path, given: Path) -> Config:
    """Return the choices with an upload's path as the user named the directory of runs."""
    if not config.data_dir or not Path(config.data_dir).is_relative_to(root):
        return config
    return config.replace(data_dir=str(given / Path(config.data_dir).relative_to(root)))


def commands(config: Config, **length: float | int | None) -> dict[str, str]:
    """Return the lines in a terminal and in Python that train with the same choices.

    Args:
        length: minutes or epochs, where the length is not in images.
    """
    recipe = RECIPES.get(config.recipe, {})
    given = {name: int(value) if value == int(value) else value for name, value in length.items() if value is not None}
    values = {
        name: getattr(config, name)
        for name, field in FIELDS.items()
        if getattr(config, name) != recipe.get(name, field.default) and name not in ("recipe", "planned_images")
    }
    if given:
        values.pop("images", None)
    place = values.get("data_dir", "")
    if place and config.origins.get("data_dir") == config.origins.get("data") and name_of(place) == config.data:
        values["data"] = values.pop("data_dir")  # a path was given as data
    chosen = {**given, **values}
    flags = [f"--{name.replace('_', '-')} {shlex.quote(_as_text(value))}" for name, value in chosen.items()]
    keywords = [f"{name}={value!r}" for name, value in chosen.items()]
    return {
        "terminal": " ".join(["gansmith train", config.recipe, *flags]),
        "python": f"gs.train({', '.join([repr(config.recipe), *keywords])})",
    }


def _as_text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def words_of(recipe: str, choices: Mapping[str, Any]) -> list[str]:
    """Return the words of `gansmith train` for a recipe and what is chosen besides."""
    return ["train", recipe, *(f"--{name.replace('_', '-')}={_as_text(value)}" for name, value in choices.items())]


def recipes() -> list[dict[str, Any]]:
    """Return every recipe with the values it sets."""
    defaults = dataclasses.asdict(Config())
    return [
        {"name": name, "values": {key: value for key, value in row.items() if defaults.get(key) != value}}
        for name, row in RECIPES.items()
    ]


def without_path(sentence: str, path: Path) -> str:
    """Return a sentence with a run called by its name: where it lies on this machine is nobody's business."""
    return sentence.replace(f"{path}{os.sep}", f"{path.name}/").replace(str(path), path.name)
