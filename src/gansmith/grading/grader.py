"""Grading: each hand-in runs in bounded processes, then its images are measured and points are given."""

import contextlib
import logging
import math
import os
import shutil
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
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
from gansmith.errors import DataError, GansmithError, reason_of
from gansmith.evaluation import in_form_of, load_real
from gansmith.grading.handins import GRID, copy_handin, find_handins, given_out, missing_files, own_work
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
from gansmith.grading.settings import COMMON_SEEDS, TILES, Settings
from gansmith.grading.worker import GENERATOR_FILES, NO_GENERATOR, SCRIPT
from gansmith.metrics.classes import CONFIDENT
from gansmith.metrics.evaluators import find_evaluators, knows_classes
from gansmith.metrics.features import Evaluator
from gansmith.metrics.protocol import Real, evaluate_samples
from gansmith.workers import cores

# Share of samples that no other one equals. Images of generators that collapsed still differ in some pixel; of 2,000
# that are looked up among 10,000 stored ones, .82 are unlike the others.
FEWEST_DISTINCT = 0.9
MAX_SIDE = 1024  # of images that are measured
FEW_PICTURES = 100  # up to so many stored ones are called that, even if they are training images
NO_PICTURE, NOT_CHECKED = "no picture", "not checked"

Share = tuple[float | None, str]  # of a check's points, None where it could not be made, and what was found

logger = logging.getLogger("gansmith")


@dataclass
class Ran:
    """What came out of the processes of one hand-in.

    Attributes:
        error: why it could not be copied; empty where it could.
        is_empty: whether there was nothing to copy.
        script, draw: how running evaluation.py and generating images ended; None where that was not tried.
        not_run: why evaluation.py was not run, where there is one.
        grid, samples: uint8 (25, C, H, W) and (N, C, H, W); None where none were generated, or not in time.
        by_seed: the grid by seed, the one asked for and others that are often taken.
        shown, handed_in: tiles of the picture that evaluation.py draws, and of the one handed in.
    """

    name: str
    error: str = ""
    is_empty: bool = False
    notes: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    own_work: dict[str, str] = field(default_factory=dict)
    script: Outcome | None = None
    draw: Outcome | None = None
    not_run: str = ""
    grid: Tensor | None = None
    samples: Tensor | None = None
    by_seed: dict[int, Tensor] = field(default_factory=dict)
    shown: Any = None
    handed_in: Any = None

    @property
    def outcomes(self) -> list[Outcome]:
        """How its processes ended."""
        return [outcome for outcome in (self.draw, self.script) if outcome is not None]

    @property
    def has_generator(self) -> bool:
        """Whether images could be drawn, or could be if a library were installed."""
        return self.grid is not None or _lacks_library(self.draw)


@dataclass(frozen=True)
class Place:
    """Where hand-ins are and where they run.

    Attributes:
        folder: of the hand-ins.
        work: a temporary folder, with a folder for each hand-in.
        stop: set when grading is interrupted.
        given: SHA-256 of files that the course gave out.
        jobs: hand-ins that run at once.
    """

    folder: Path
    work: Path
    sandbox: str
    stop: threading.Event
    given: frozenset[str]
    jobs: int = 1

    def bounds(self) -> dict[str, Any]:
        """Return what `run_bounded` takes; of both folders each hand-in sees its own part."""
        return {
            "sandbox": self.sandbox, "hidden": (self.work, self.folder), "stop": self.stop, "jobs": self.jobs,
        }  # fmt: skip


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
    for line in _on_missing_keras(handins):
        show(line)
    real = load_real(settings.data)
    networks = find_evaluators(real.train)
    ran: dict[str, Ran] = {}
    stop = threading.Event()
    with _temporary_folder() as temporary:
        Path(temporary).chmod(0o711)  # where hand-ins run as another user, they must reach their folders
        place = Place(folder.resolve(), Path(temporary).resolve(), sandbox, stop, given_out(folder.resolve()), jobs)
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


def room_for_jobs(settings: Settings) -> int:
    """Return how many hand-ins may run at once: one on each core, if all may take the memory that is allowed."""
    import psutil

    fitting = psutil.virtual_memory().available // (settings.memory_mb << 20)
    return max(1, min(cores(), int(fitting)))


@contextlib.contextmanager
def _temporary_folder() -> Iterator[str]:
    """Give a folder, and remove it at the end as far as its contents allow."""
    temporary = TemporaryDirectory(prefix="gansmith-grade-", ignore_cleanup_errors=True)
    try:
        yield temporary.name
    finally:
        try:
            temporary.cleanup()
        except RecursionError:  # folders in folders, more than the library goes down
            logger.warning("%s holds folders too deep to be removed; remove it by hand", temporary.name)


def _on_missing_keras(handins: Mapping[str, Path]) -> list[str]:
    """Return a line where folders have Keras files, and Keras is not installed."""
    own = [name for name in GENERATOR_FILES if not name.endswith((".onnx", ".safetensors"))]
    concerned = [name for name, path in handins.items() if any((path / file).is_file() for file in own)]
    if find_spec("keras") is not None or not concerned:
        return []
    return [
        f"keras is not installed, so generators of Keras ({concerned[0]} has one) are not counted; to count them, stop "
        "and run: pip install 'gansmith[keras]'"
    ]


def run_handin(name: str, source: Path, work: Path, place: Place, settings: Settings, train: Images) -> Ran:
    """Copy a hand-in, generate images with its generator, and run its evaluation.py, each in a process of its own."""
    ran = Ran(name)
    try:
        return _run_handin(ran, source, work, place, settings, train)
    except Exception as error:  # whatever it has made of its files: the others are graded
        logger.exception("%s cannot be graded", name)
        ran.error = f"it cannot be graded ({reason_of(error)})"
        return ran
    finally:
        with contextlib.suppress(RecursionError):  # of folders in folders, which the end of grading names
            shutil.rmtree(work, ignore_errors=True)


def _run_handin(ran: Ran, source: Path, work: Path, place: Place, settings: Settings, train: Images) -> Ran:
    original = work / "original"
    work.mkdir()
    try:
        ran.notes += copy_handin(source, original, max_bytes=settings.disk_mb << 20)
    except (GansmithError, OSError) as error:
        ran.error = str(error).replace(f"{original}{os.sep}", "").replace(f"{source.parent}{os.sep}", "")
        return ran
    if not any(original.iterdir()):
        ran.error, ran.is_empty = "it is empty", True
        return ran
    ran.own_work = own_work(original, place.given)
    size = train.spec.size
    ran.handed_in = tiles_of(original / GRID, size) if (original / GRID).is_file() else None
    _draw(ran, original, work / "draw", place, settings)
    ran.missing = missing_files(original, dict(settings.files), has_generator=ran.has_generator)
    if (original / SCRIPT).is_file():
        if ran.grid is None and ran.draw is not None and ran.draw.ended == "out of time":
            ran.not_run = "not run, since drawing from it ran out of time"
        else:
            _run_script(ran, original, work / "run", place, settings, size)
    return ran


def _own_copy(original: Path, work: Path) -> Path:
    """Return a copy of a hand-in in a new folder, the only one that its process may write in."""
    folder = shutil.copytree(original, work / "handin")
    copy_fonts(work)
    return folder


def _run_script(ran: Ran, original: Path, work: Path, place: Place, settings: Settings, size: int) -> None:
    """Run the evaluation.py of a hand-in in a process of its own, and read the picture that it draws."""
    folder = _own_copy(original, work)
    while old := _picture_in(folder):
        old.unlink()  # it must be drawn, not be there
    words = ["run", str(folder)]
    ran.script = run_bounded(words, work, settings, **place.bounds())
    picture = None if ran.script.ended else _picture_in(folder)
    ran.shown = None if picture is None else tiles_of(picture, size)


def _picture_in(folder: Path) -> Path | None:
    """Return the file grid.png in a folder, in upper or lower case; None where there is none."""
    with contextlib.suppress(OSError):  # of a folder that a hand-in has closed
        return next((path for path in sorted(folder.iterdir()) if path.name.lower() == GRID and _is_plain(path)), None)
    return None


def _draw(ran: Ran, original: Path, work: Path, place: Place, settings: Settings) -> None:
    """Generate the images of a hand-in in a process of its own, and read them."""
    folder, out = _own_copy(original, work), work / "images"
    out.mkdir()
    seeds = [seed for seed in COMMON_SEEDS if seed != settings.seed]
    words = ["draw", str(folder), str(out), str(settings.samples), str(settings.seed), *map(str, seeds)]
    ran.draw = run_bounded(words, work, settings, **place.bounds())
    if ran.draw.ended == "out of time":
        with contextlib.suppress(DataError, OSError):  # the grid comes first, and may have been done
            ran.grid = read_images(out / "grid.npy", TILES)
            ran.by_seed = {settings.seed: ran.grid}
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
    is_square = len(shape) == 4 and shape[2] == shape[3] > 0
    if array.dtype != "uint8" or not is_square or shape[0] != count or shape[1] not in (1, 3) or shape[2] > MAX_SIDE:
        raise DataError(
            f"{path.name} holds {array.dtype} {shape}, and not {count} square images of {MAX_SIDE} px at most"
        )
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
            except Exception as error:  # whatever it has drawn: the others are graded
                ran.notes.append(reason_of(error))
                continue
            ran.notes += [f"its images: {notice}" for notice in whole.notices]
            if whole.spec.channels == real.train.spec.channels:
                drawn[ran.name] = (whole.pixels[:TILES], whole.pixels[TILES:])
    found = count_copies(real.train, real.validation, list(drawn.values()), test=real.test)
    copies = dict(zip(drawn, found, strict=True))
    pairs = find_pairs({name: grid for name, (grid, _) in drawn.items()}, {ran.name: ran.own_work for ran in ordered})
    rows = []
    for ran in ordered:
        try:
            row = _figures(ran, settings, real, networks, drawn.get(ran.name))
        except Exception as error:  # here, too
            logger.exception("%s cannot be measured", ran.name)
            failed = Ran(ran.name, f"it cannot be measured ({reason_of(error)})", notes=ran.notes, missing=ran.missing)
            row = _figures(failed, settings, real, networks, None)
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
    row: dict[str, Any] = {
        "name": ran.name,
        "error": ran.error,
        "is_empty": ran.is_empty,
        "missing": ran.missing,
        "notes": list(ran.notes),
    }
    row["seconds"] = round(sum(outcome.seconds for outcome in ran.outcomes), 1)
    row["draw"], row["script"], row["not_run"] = ran.draw, ran.script, ran.not_run
    row |= dict.fromkeys(("classes", "recognised", "fd_ratio", "distinct", "pictures", "absent", "tiles"))
    known = [] if real.train.labels is None else real.train.labels.unique().tolist()
    row["num_classes"] = len(known)
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
        absent = sorted(set(known) - set(row["tiles"]))
        names = real.train.class_names
        row["absent"] = [names[label] if label < len(names) else str(label) for label in absent]
        row["classes"] = len(known) - len(absent)
        row["recognised"] = int((probabilities.max(1) >= CONFIDENT).sum())
    row["distinct"] = distinct_share(samples)
    row["pictures"] = len(samples.flatten(1).unique(dim=0))
    row["fd_ratio"] = evaluate_samples(Images(samples), real, networks, quick=True, widened=False).fd_ratio
    return row


def _seed(ran: Ran, settings: Settings) -> tuple[int | None, str]:
    """Return the seed of the picture that evaluation.py draws, or of the one handed in, and what that means.

    Both are looked at: a picture of another known seed may not be handed in beside a script that draws the right one.
    """
    picture = ran.handed_in if ran.shown is None else ran.shown
    if picture is None:
        return None, NO_PICTURE
    if not ran.by_seed:
        return None, NOT_CHECKED
    seed = seed_of(picture, ran.by_seed)
    if seed is None:
        return None, f"not what its generator draws from seed {settings.seed}"
    if seed != settings.seed:
        return seed, f"seed {seed}, not {settings.seed}"
    other = None if ran.shown is None or ran.handed_in is None else seed_of(ran.handed_in, ran.by_seed)
    if other not in (None, settings.seed):
        return other, f"the {GRID} handed in is of seed {other}, not {settings.seed}"
    return seed, "ok"


def _lacks_library(outcome: Outcome | None) -> bool:
    """Return whether a process ended since a library is not installed here, which is no fault of the hand-in."""
    return outcome is not None and outcome.ended == "library missing"


def _result(row: Mapping[str, Any], settings: Settings) -> str:
    """Return what a teacher must know first, the worst that was found."""
    draw, script = row["draw"], row["script"]
    if row["error"]:
        return "no hand-in" if row["is_empty"] else "cannot be read"
    if draw.ended:
        if _lacks_library(draw):
            return str(draw.reason)
        return "no generator" if draw.code == NO_GENERATOR else str(draw.ended)
    failed = "" if script is None or not script.ended else f"{SCRIPT}: {script.ended}"
    failed = script.reason if _lacks_library(script) else failed
    is_stored, is_copied = row["distinct"] is not None and row["distinct"] < FEWEST_DISTINCT, _is_copied(row, settings)
    found = {
        "the same images for different latents": is_stored and not (is_copied and row["pictures"] > FEW_PICTURES),
        "copies of training images": is_copied,
        "same work as another": bool(row["same_as"]),
        failed: bool(failed),
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
    total, missing = len(settings.files), row["missing"]
    shares: dict[str, Share] = {
        "files": (1 - len(missing) / total if total else None, "missing: " + (", ".join(missing) or "none")),
        "runs": _running(row),
        "grid": _showing(row),
        **_quality(row, settings),
        "originality": _originality(row, settings),
    }
    if row["error"]:
        shares = {name: (0.0, row["error"]) for name in shares}
    return {
        name: {"share": share, "of": settings.points.get(name, 0), "found": text}
        for name, (share, text) in shares.items()
    }


def _running(row: Mapping[str, Any]) -> Share:
    """Return the share of points for evaluation.py, and how it ended."""
    script = row["script"]
    if script is None:
        return 0.0, f"{SCRIPT}: {row['not_run'] or 'there is none'}"
    if _lacks_library(script):
        return None, f"{SCRIPT}: {script.reason}"
    without = "" if row["drew"] or script.ended else f", no {GRID}"
    return float(row["drew"]), f"{SCRIPT}: {script.reason or 'ends without an error'}{without}"


def _showing(row: Mapping[str, Any]) -> Share:
    """Return the share of points for the grid, and what it shows."""
    lacking = next((outcome for outcome in (row["draw"], row["script"]) if _lacks_library(outcome)), None)
    if lacking and row["grid"] in (NO_PICTURE, NOT_CHECKED):
        return None, f"{row['grid']}: {lacking.reason}"
    return float(row["grid"] == "ok"), row["grid"]


def _quality(row: Mapping[str, Any], settings: Settings) -> dict[str, Share]:
    """Return the shares of points for classes, recognised images and the FD ratio, and the figures."""
    names = ("classes", "recognised", "fd_ratio")
    if _lacks_library(row["draw"]):
        return dict.fromkeys(names, (None, row["draw"].reason))
    if _is_copied(row, settings):
        return dict.fromkeys(names, (0.0, "copies of training images"))
    if not _has_images(row):
        return dict.fromkeys(names, (0.0, "no images"))
    classes: Share = (None, "not measured")
    recognised: Share = (None, "not measured")
    if _is_far(row, settings):
        classes = recognised = (0.0, "the images are far from real ones")
    elif row["classes"] is not None:
        absent = f", missing: {', '.join(row['absent'])}" if row["absent"] else ""
        count, sure = row["num_classes"], row["recognised"]
        classes = (row["classes"] / count, f"{row['classes']} of {count}{absent}")
        recognised = (min(1.0, sure / max(1, settings.recognised)), f"{sure} of {TILES} tiles")
    return dict(zip(names, (classes, recognised, _closeness(row["fd_ratio"], settings)), strict=True))


def _originality(row: Mapping[str, Any], settings: Settings) -> Share:
    """Return the share of points for images that are no copies, and what was found."""
    copied = "no images" if row["copies"] is None else f"{row['copies']:.1%} of samples, {row['near_tiles']} tiles"
    same = "; ".join(f"{name}: {what}" for name, what in row["same_as"].items()) or "no other hand-in"
    if _lacks_library(row["draw"]) and not row["same_as"]:
        return None, row["draw"].reason
    share = float(_has_images(row) and not _is_copied(row, settings) and not row["same_as"])
    return share, f"near copies of training images: {copied}; the same as {same}"


def _has_images(row: Mapping[str, Any]) -> bool:
    """Return whether there are images that depend on the latents."""
    return row["distinct"] is not None and row["distinct"] >= FEWEST_DISTINCT


def _closeness(fd_ratio: float | None, settings: Settings) -> Share:
    """Return the share of points for an FD ratio, which falls with its logarithm, and the figure."""
    if fd_ratio is None:
        return None, "not measured"
    low, high = settings.fd_ratio_full, settings.fd_ratio_none
    share = (math.log(high) - math.log(max(fd_ratio, 1e-9))) / (math.log(high) - math.log(low))
    return min(1.0, max(0.0, share)), f"{fd_ratio:.2f} (1.00: as close as other real images)"
