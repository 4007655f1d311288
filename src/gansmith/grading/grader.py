"""Grading: each hand-in runs in bounded processes, then its images are measured and points are given."""

import logging
import math
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor

from gansmith.data.image_files import read_array
from gansmith.data.images import Images
from gansmith.errors import DataError, GansmithError
from gansmith.evaluation import in_form_of, load_real
from gansmith.grading.handins import copy_handin, find_handins, missing_files, own_work
from gansmith.grading.measures import (
    NEAR_TILES,
    SAME_GRID,
    count_copies,
    distinct_share,
    find_pairs,
    likeness,
    seed_of,
    tiles_of,
)
from gansmith.grading.sandbox import Outcome, copy_fonts, run_bounded
from gansmith.grading.settings import TILES, Settings
from gansmith.grading.worker import GENERATOR_FILES, NO_GENERATOR, SCRIPT
from gansmith.metrics.classes import CONFIDENT
from gansmith.metrics.evaluators import find_evaluators, knows_classes
from gansmith.metrics.features import Evaluator
from gansmith.metrics.protocol import Real, evaluate_samples

COMMON_SEEDS = (0, 1, 2, 3, 5, 7, 10, 42, 100, 123, 500, 503, 504, 505, 1000, 1234, 2024, 2025, 2026)
FEWEST_DISTINCT = 0.1  # of samples; generators that collapsed still give images that differ in some pixel
GRID = "grid.png"

logger = logging.getLogger("gansmith")


@dataclass
class Ran:
    """What came out of the processes of one hand-in.

    Attributes:
        error: why it could not be copied; empty where it could.
        script, draw: how running evaluation.py and generating images ended; None where that was not tried.
        grid, samples: uint8 (25, C, H, W) and (N, C, H, W); None where none were generated.
        by_seed: the grid by seed, the one asked for and others that are often taken.
        shown, handed_in: tiles of the picture that evaluation.py draws, and of the one handed in.
    """

    name: str
    error: str = ""
    notes: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    own_work: dict[str, str] = field(default_factory=dict)
    script: Outcome | None = None
    draw: Outcome | None = None
    grid: Tensor | None = None
    samples: Tensor | None = None
    by_seed: dict[int, Tensor] = field(default_factory=dict)
    shown: Any = None
    handed_in: Any = None

    @property
    def outcomes(self) -> list[Outcome]:
        """How its processes ended."""
        return [outcome for outcome in (self.draw, self.script) if outcome is not None]


@dataclass(frozen=True)
class Place:
    """Where hand-ins are and where they run.

    Attributes:
        folder: of the hand-ins.
        work: a temporary folder, with a folder for each hand-in.
        stop: set when grading is interrupted.
    """

    folder: Path
    work: Path
    sandbox: str
    stop: threading.Event

    @property
    def hidden(self) -> tuple[Path, Path]:
        """Folders of which a hand-in sees nothing but its own part."""
        return self.work, self.folder


def grade_handins(
    folder: Path, settings: Settings, *, sandbox: str, jobs: int, show: Callable[[str], None]
) -> tuple[list[dict[str, Any]], list[Ran]]:
    """Return a row for each hand-in in a folder, by name, and what came out of its processes.

    Args:
        jobs: hand-ins that run at once.
        show: called with a line for each hand-in that has run.

    Raises GansmithError where there are no hand-ins, or real images are missing.
    """
    handins = find_handins(folder)
    _refuse_missing_keras(handins)
    real = load_real(settings.data)
    networks = find_evaluators(real.train)
    ran: dict[str, Ran] = {}
    stop = threading.Event()
    with TemporaryDirectory(prefix="gansmith-grade-", ignore_cleanup_errors=True) as temporary:
        Path(temporary).chmod(0o711)  # where hand-ins run as another user, they must reach their folders
        place = Place(folder.resolve(), Path(temporary).resolve(), sandbox, stop)
        with ThreadPoolExecutor(jobs) as pool:
            waiting = {
                pool.submit(run_handin, name, path, place.work / str(k), place, settings, real.train): name
                for k, (name, path) in enumerate(handins.items())
            }
            try:
                for future in as_completed(waiting):
                    found = ran[waiting[future]] = future.result()
                    ended = next((outcome.ended for outcome in found.outcomes if outcome.ended), found.error or "ran")
                    show(f"{len(ran)} of {len(handins)}: {found.name}: {ended}")
            except BaseException:
                stop.set()
                pool.shutdown(wait=False, cancel_futures=True)
                raise
    ordered = [ran[name] for name in handins]
    show("measuring their images")
    return measure(ordered, settings, real, networks), ordered


def _refuse_missing_keras(handins: Mapping[str, Path]) -> None:
    """Raise GansmithError where a folder has Keras files, and Keras is not installed."""
    if find_spec("keras") is None:
        for name, path in handins.items():
            if any((path / file).is_file() for file in GENERATOR_FILES if not file.endswith((".onnx", ".safetensors"))):
                raise GansmithError(
                    f"{name} handed in a generator of Keras, which is not installed; run: pip install 'gansmith[keras]'"
                )


def run_handin(name: str, source: Path, work: Path, place: Place, settings: Settings, train: Images) -> Ran:
    """Copy a hand-in, generate images with its generator, and run its evaluation.py, each in a process of its own."""
    ran = Ran(name)
    original = work / "original"
    work.mkdir()
    try:
        ran.notes += copy_handin(source, original, max_bytes=settings.disk_mb << 20)
    except (GansmithError, OSError) as error:
        ran.error = str(error)
        return ran
    if not any(original.iterdir()):
        ran.error = "it is empty"
        return ran
    ran.missing = missing_files(original, dict(settings.files))
    ran.own_work = own_work(original)
    size = train.spec.size
    ran.handed_in = tiles_of(original / GRID, size) if (original / GRID).is_file() else None
    _draw(ran, original, work / "draw", place, settings)
    if (original / SCRIPT).is_file() and not (ran.draw is not None and ran.draw.ended == "out of time"):
        folder = _own_copy(original, work / "run")
        (folder / GRID).unlink(missing_ok=True)  # it must be drawn, not be there
        ran.script = run_bounded(
            ["run", str(folder)], work / "run", settings, sandbox=place.sandbox, hidden=place.hidden, stop=place.stop
        )
        if not ran.script.ended and _is_plain(folder / GRID):
            ran.shown = tiles_of(folder / GRID, size)
    return ran


def _own_copy(original: Path, work: Path) -> Path:
    """Return a copy of a hand-in in a new folder, the only one that its process may write in."""
    copy_handin(original, work / "handin", max_bytes=2**62)
    copy_fonts(work)
    return work / "handin"


def _draw(ran: Ran, original: Path, work: Path, place: Place, settings: Settings) -> None:
    """Generate the images of a hand-in in a process of its own, and read them."""
    folder, out = _own_copy(original, work), work / "images"
    out.mkdir()
    seeds = [seed for seed in COMMON_SEEDS if seed != settings.seed]
    words = ["draw", str(folder), str(out), str(settings.samples), str(settings.seed), *map(str, seeds)]
    ran.draw = run_bounded(words, work, settings, sandbox=place.sandbox, hidden=place.hidden, stop=place.stop)
    if ran.draw.ended:
        return
    try:
        ran.grid = read_images(out / "grid.npy", TILES)
        ran.samples = read_images(out / "samples.npy", settings.samples)
        others = {seed: read_images(out / f"seed-{seed}.npy", TILES) for seed in seeds}
    except (DataError, OSError) as error:
        ran.draw = Outcome("crashed", str(error), ran.draw.output, ran.draw.code, ran.draw.seconds)
        ran.grid = ran.samples = None
        return
    ran.by_seed = {settings.seed: ran.grid, **others}


def read_images(path: Path, count: int) -> Tensor:
    """Return uint8 images (count, C, H, W) that a process wrote, which may have written anything.

    Raises DataError for anything else.
    """
    if not _is_plain(path):
        raise DataError(f"{path.name} was not written")
    with path.open("rb") as file:
        array = read_array(file, path.name)
    shape = array.shape
    if array.dtype != "uint8" or len(shape) != 4 or shape[0] != count or shape[1] not in (1, 3) or shape[2] != shape[3]:
        raise DataError(f"{path.name} holds {array.dtype} {shape}, and not {count} square images")
    return torch.from_numpy(array.copy())


def _is_plain(path: Path) -> bool:
    """Return whether this is a file, reached through no link."""
    return path.is_file() and path.resolve() == path


def measure(
    ordered: Sequence[Ran], settings: Settings, real: Real, networks: Mapping[str, Evaluator]
) -> list[dict[str, Any]]:
    """Return a row for each hand-in: what is missing, how it ran, what its images are, and points."""
    drawn = {}
    for ran in ordered:
        if ran.grid is not None and ran.samples is not None:
            try:
                whole = in_form_of(real.train, Images(_together(ran.grid, ran.samples)))
            except GansmithError as error:
                ran.notes.append(str(error))
                continue
            ran.notes += [f"its images: {notice}" for notice in whole.notices]
            if whole.spec.channels == real.train.spec.channels:
                drawn[ran.name] = (whole.pixels[:TILES], whole.pixels[TILES:])
    copies = dict(zip(drawn, count_copies(real.train, real.validation, list(drawn.values())), strict=True))
    pairs = find_pairs({name: grid for name, (grid, _) in drawn.items()}, {ran.name: ran.own_work for ran in ordered})
    rows = []
    for ran in ordered:
        row = _figures(ran, settings, real, networks, drawn.get(ran.name))
        row["copies"], row["near_tiles"] = copies.get(ran.name, (None, 0))
        row["same_as"] = pairs[ran.name]
        row["result"] = _result(row, settings)
        row["checks"] = _checks(row, settings)
        points = [part for part in row["checks"].values() if part["share"] is not None]
        row["points"] = round(sum(part["share"] * part["of"] for part in points), 1)
        row["points_of"] = sum(part["of"] for part in points)
        rows.append(row)
    return rows


def _together(grid: Tensor, samples: Tensor) -> Tensor:
    """Return the images of the grid and the samples, which are brought into the form of the data alike."""
    if grid.shape[1:] != samples.shape[1:]:
        shapes = " and ".join("x".join(map(str, images.shape[1:])) for images in (grid, samples))
        raise DataError(f"its images differ in shape from call to call: {shapes}")
    return torch.cat((grid, samples))


def _figures(
    ran: Ran,
    settings: Settings,
    real: Real,
    networks: Mapping[str, Evaluator],
    drawn: tuple[Tensor, Tensor] | None,
) -> dict[str, Any]:
    """Return the part of a row that concerns a hand-in alone."""
    row: dict[str, Any] = {"name": ran.name, "error": ran.error, "missing": ran.missing, "notes": list(ran.notes)}
    row["seconds"] = round(sum(outcome.seconds for outcome in ran.outcomes), 1)
    row["draw"], row["script"] = ran.draw, ran.script
    row |= dict.fromkeys(("classes", "recognised", "fd_ratio", "distinct", "absent", "tiles"))
    row["num_classes"] = real.train.num_classes
    row["seed"], row["grid"] = _seed(ran, settings)
    row["drew"] = ran.shown is not None
    if ran.shown is not None and ran.handed_in is not None and likeness(ran.shown, ran.handed_in) < SAME_GRID:
        row["notes"].append("the grid.png handed in is not the one that evaluation.py draws")
    if drawn is None:
        return row
    grid, samples = drawn
    first = next(iter(networks.values()))
    if first.num_classes > 1 and knows_classes(first):
        probabilities = first.observe(grid)[1]
        row["tiles"] = probabilities.argmax(1).tolist()
        absent = sorted(set(range(first.num_classes)) - set(row["tiles"]))
        names = real.train.class_names
        row["absent"] = [names[label] if label < len(names) else str(label) for label in absent]
        row["classes"] = first.num_classes - len(absent)
        row["recognised"] = int((probabilities.max(1) >= CONFIDENT).sum())
    row["distinct"] = distinct_share(samples)
    row["fd_ratio"] = evaluate_samples(Images(samples), real, networks, quick=True).fd_ratio
    return row


def _seed(ran: Ran, settings: Settings) -> tuple[int | None, str]:
    """Return the seed of the picture that evaluation.py draws, or else of the one handed in, and what that means."""
    picture = ran.handed_in if ran.shown is None else ran.shown
    if picture is None:
        return None, "no picture"
    if not ran.by_seed:
        return None, "not checked"
    seed = seed_of(picture, ran.by_seed)
    if seed is None:
        return None, f"not what its generator draws from seed {settings.seed}"
    return seed, "ok" if seed == settings.seed else f"seed {seed}, not {settings.seed}"


def _result(row: Mapping[str, Any], settings: Settings) -> str:
    """Return what a teacher must know first, the worst that was found."""
    draw, script = row["draw"], row["script"]
    if row["error"]:
        return "no hand-in" if "empty" in row["error"] else "cannot be read"
    if draw.ended:
        return "no generator" if draw.code == NO_GENERATOR else str(draw.ended)
    found = {
        "the images do not depend on the latents": row["distinct"] is not None and row["distinct"] < FEWEST_DISTINCT,
        "copies of training images": _is_copied(row, settings),
        "same work as another": bool(row["same_as"]),
        "evaluation.py: " + (script.ended if script else ""): bool(script and script.ended),
        "no images that fit the data": row["distinct"] is None,
        "another seed": row["seed"] not in (None, settings.seed),
        "the grid is not of its generator": row["grid"].startswith("not what"),
        "far from real images": _is_far(row, settings),
        "not recognisable": row["recognised"] is not None and row["recognised"] < settings.recognised,
        "classes missing": bool(row["absent"]),
        "files missing": bool(row["missing"]),
        "evaluation.py draws no grid.png": not row["drew"],
    }
    return next((what for what, is_found in found.items() if is_found), "ok")


def _is_copied(row: Mapping[str, Any], settings: Settings) -> bool:
    return row["copies"] is not None and (row["copies"] > settings.copies or row["near_tiles"] >= NEAR_TILES)


def _is_far(row: Mapping[str, Any], settings: Settings) -> bool:
    """Return whether images are so far from real ones that what a classifier makes of them means nothing."""
    return row["fd_ratio"] is not None and row["fd_ratio"] >= settings.fd_ratio_none


def _checks(row: Mapping[str, Any], settings: Settings) -> dict[str, dict[str, Any]]:
    """Return each check's share of its points, None where it could not be made, and what was found."""
    script = row["script"]
    has_images = row["distinct"] is not None and row["distinct"] >= FEWEST_DISTINCT
    is_copied = _is_copied(row, settings)
    count = row["num_classes"]
    total = len(settings.files)
    ran = "there is none" if script is None else script.reason or "ends without an error"
    copied = "no images" if row["copies"] is None else f"{row['copies']:.1%} of samples, {row['near_tiles']} tiles"
    same = "; ".join(f"{name}: {what}" for name, what in row["same_as"].items()) or "no other hand-in"
    shares: dict[str, tuple[float | None, str]] = {
        "files": (
            1 - len(row["missing"]) / total if total else None,
            "missing: " + (", ".join(row["missing"]) or "none"),
        ),
        "runs": (
            float(row["drew"]),
            f"evaluation.py: {ran}" + ("" if row["drew"] or script is None or script.ended else f", no {GRID}"),
        ),
        "grid": (float(row["grid"] == "ok"), row["grid"]),
        "classes": (0.0, "no images"),
        "recognised": (0.0, "no images"),
        "fd_ratio": (0.0, "no images"),
        "originality": (
            float(has_images and not is_copied and not row["same_as"]),
            f"near copies of training images: {copied}; the same as {same}",
        ),
    }
    if has_images:
        knows = row["classes"] is not None
        absent = f", missing: {', '.join(row['absent'])}" if row["absent"] else ""
        shares["classes"] = (
            (row["classes"] / count, f"{row['classes']} of {count}{absent}") if knows else (None, "not measured")
        )
        shares["recognised"] = (
            (min(1.0, row["recognised"] / max(1, settings.recognised)), f"{row['recognised']} of {TILES} tiles")
            if knows
            else (None, "not measured")
        )
        shares["fd_ratio"] = _quality(row["fd_ratio"], settings)
    if has_images and _is_far(row, settings):
        shares |= {name: (0.0, "the images are far from real ones") for name in ("classes", "recognised")}
    if is_copied:
        shares |= {name: (0.0, "copies of training images") for name in ("classes", "recognised", "fd_ratio")}
    if row["error"]:
        shares = {name: (0.0, row["error"]) for name in shares}
    return {
        name: {"share": share, "of": settings.points.get(name, 0), "found": text}
        for name, (share, text) in shares.items()
    }


def _quality(fd_ratio: float | None, settings: Settings) -> tuple[float | None, str]:
    """Return the share of points for an FD ratio, which falls with its logarithm, and the figure."""
    if fd_ratio is None:
        return None, "not measured"
    low, high = settings.fd_ratio_full, settings.fd_ratio_none
    share = (math.log(high) - math.log(max(fd_ratio, 1e-9))) / (math.log(high) - math.log(low))
    return min(1.0, max(0.0, share)), f"{fd_ratio:.2f} (1.00: as close as other real images)"
