"""Training, from a config to a run directory: `prepare` gathers what a run needs, `train` is the loop.

Every random choice is a function of (seed, images seen, purpose), so a run that continues from a checkpoint is the
run that was never interrupted.
"""

import contextlib
import copy
import ctypes
import hashlib
import itertools
import logging
import math
import os
import platform
import shutil
import sys
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cached_property
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from gansmith.config import Config, choose, parse_labels
from gansmith.data import Images, ImageSpec, load_data, split, to_float
from gansmith.data.clusters import IMAGES_EACH, find_clusters, find_clusters_within
from gansmith.diagnose import FIRST_STEPS, WINDOW, Trouble, diagnose, to_trouble
from gansmith.generate import (
    GOLDEN,
    Model,
    describe_model,
    draw_latents,
    enlarge,
    generate,
    grid,
    match_tones,
    network_spec,
    recompute_statistics,
    rng,
    sample,
    seeded,
    shape_latents,
    squashed_layer,
    to_png,
)
from gansmith.metrics.features import load_evaluators
from gansmith.metrics.validation import COUNT, Judge
from gansmith.networks import NETWORKS
from gansmith.networks.layers import initialise, normalise_spectrally
from gansmith.networks.progressive import grow
from gansmith.optimizers import build_optimizer
from gansmith.rules import build_rules, empty_memory, has_fast_bf16, penalties_at, steer_penalties
from gansmith.runs import (
    NotSavedError,
    Run,
    load_checkpoint,
    load_counters,
    locked,
    open_run,
    point_best,
    prune,
    save_checkpoint,
    sweep,
    write_bytes,
    write_text,
)
from gansmith.schedule import decay, ema_decay, progress_at, ramp
from gansmith.signals import Signals
from gansmith.step import (
    UPDATES,
    Batch,
    NotFiniteError,
    Players,
    Rules,
    update_ema,
)

GRID_COLUMNS, GRID_ROWS = 10, 8
UNMATCHED = "G_ema."  # begins the names, in a checkpoint's state, of what match_tones changed in its generator file
# Where the config leaves the intervals open: so many of each in a run.
LOG_LINES, GRIDS, SAVES = 200, 12, 4
SIGNS = 100  # measurements of what `diagnose` reads
FEW_IMAGES = 10_000  # fewer are known by heart so soon that the discriminator is shown nudged ones too
SAFETY_S = 300.0  # no more than this is lost to a crash: a save between the scheduled ones, gone at the next
FREE_CORES = 0.75  # threads that get less than this share of their time have to wait: .96 on an idle machine
LAST_PICTURES_S = 2.0  # the last grid, the plot and leaving

ROLLBACK_FACTOR, MOST_ROLLBACKS = 0.5, 3  # of the learning rates each time, and how often

logger = logging.getLogger("gansmith")


class TroubleError(ArithmeticError):
    """A run that went wrong and was stopped for it; what was saved before is intact."""

    def __init__(self, run: Run, trouble: Trouble) -> None:
        super().__init__(f"{trouble.sentence}; {_what_is_left(run)}")
        self.trouble = trouble


@dataclass(frozen=True)
class Material:
    """What a run learns from.

    Attributes:
        fit: the images shown.
        validation: the images held out; None when all are trained on.
        ids: (N,) what both players are told of each fit image; zeros where they are told nothing.
        frequencies: (K,) share of each id among samples, that of the images or of those they stand for.
        codes: (K, d) what is known of each id beforehand; None where ids are mere names.
        data_sha256: hash of the whole training split.
    """

    fit: Images
    validation: Images | None
    ids: Tensor
    frequencies: Tensor
    codes: Tensor | None
    data_sha256: str

    @property
    def spec(self) -> ImageSpec:
        return self.fit.spec

    @cached_property
    def tones(self) -> Tensor:
        """(C, 2) mean and mean square of each channel in [-1, 1], every id counting as often as it is drawn."""
        parts = (to_float(part).flatten(2) for part in self.fit.pixels.split(4096))
        images = torch.cat([torch.stack([part.mean(2), part.square().mean(2)], dim=2) for part in parts])  # (N, C, 2)
        weights = (self.frequencies / torch.bincount(self.ids, minlength=len(self.frequencies)).clamp(min=1))[self.ids]
        return (torch.einsum("n,nct->ct", weights, images.double()) / weights.sum()).float()


def prepare(config: Config) -> tuple[Config, Material]:
    """The config with nothing left open, and the data it speaks of; writes nothing.

    Raises ValueError or FileNotFoundError for choices or data that cannot be trained on.
    """
    use_threads(config)
    hold_memory()
    images, fit, validation = choose_images(config)
    conditioning = config.conditioning
    if conditioning == "auto":
        conditioning = "labels" if images.labels is not None else "clusters"
    if conditioning == "labels" and images.labels is None:
        raise ValueError(f"{images.source} has no labels; use --conditioning clusters or none")
    if len(fit) < 2:
        raise ValueError(f"{images.source} holds {len(fit)} images to show, too few to learn from; give at least 3")
    if torch.equal(fit.pixels.amin(0), fit.pixels.amax(0)):
        raise ValueError(f"all images of {fit.source} are the same, so there is nothing to learn; give others")
    if config.augment == "auto":
        config = config.replace(augment="nudges" if len(fit) < FEW_IMAGES else "none")
    codes = None
    if conditioning == "clusters":
        config = config.replace(clusters=max(2, min(config.clusters, len(fit) // IMAGES_EACH)))
        ids, codes = find_clusters(fit.pixels, config.clusters)
        frequencies = torch.bincount(ids, minlength=config.clusters).double() / len(ids)
    elif conditioning == "labels":
        assert fit.labels is not None
        ids, frequencies = fit.labels, fit.class_frequencies
        rarest = int(torch.bincount(ids)[ids.unique()].min())
        config = config.replace(clusters_per_label=max(1, min(config.clusters_per_label, rarest // IMAGES_EACH)))
        if config.clusters_per_label > 1:
            ids, codes = find_clusters_within(
                fit.pixels, fit.labels, config.clusters_per_label, num_labels=len(frequencies)
            )
            counts = torch.bincount(ids, minlength=len(codes)).double().view(-1, config.clusters_per_label)
            shares = counts / counts.sum(1, keepdim=True).clamp(min=1)
            frequencies = (frequencies[:, None] * shares).flatten()
    else:
        ids, frequencies = torch.zeros(len(fit), dtype=torch.int64), torch.ones(1).double()
    if conditioning != "labels":
        fit, validation = _unlabelled(fit), validation and _unlabelled(validation)
    config = config.replace(conditioning=conditioning)
    build_rules(config, build_networks(config, fit.spec)[1])  # refuses what cannot be built before anything is written
    return config, Material(fit, validation, ids, frequencies, codes, images.sha256)


def prepare_to_draw(G: nn.Module, config: Config, material: Material) -> None:
    """Give a generator's weights what no step of training does: statistics of their own, and the data's tones."""
    recompute_statistics(G, config, material.frequencies)
    if config.match_tones:
        match_tones(G, config, material.frequencies, material.tones)


def choose_images(config: Config) -> tuple[Images, Images, Images | None]:
    """The whole training split, those of it that a run is shown, and those held out; None where none are."""
    images = load_data(config.dataset, data_dir=config.data_dir or None)
    fit, validation = (images, None) if config.use_all_training_images else split(images)
    return images, _chosen(fit, config), validation


def _chosen(fit: Images, config: Config) -> Images:
    """The images the config wants shown, in their stored order."""
    if config.classes:
        if fit.labels is None:
            raise ValueError(f"{fit.source} has no labels, so no classes can be chosen; leave --classes away")
        asked, known = parse_labels(config.classes), fit.labels.unique().tolist()
        strange = [label for label in asked if label not in known]
        if strange or not asked:
            raise ValueError(
                f"classes is {config.classes!r}, and {fit.source} has labels {known[0]} to {known[-1]}"
                f"{f' but no {strange[0]}' if strange else ''}; choose among these"
            )
        wanted = torch.isin(fit.labels, torch.tensor(asked))
        fit = fit.take(torch.nonzero(wanted).flatten())
    if 0 < config.limit_images < len(fit):
        fit = fit.take(torch.arange(config.limit_images) * len(fit) // config.limit_images)
    return fit


def _unlabelled(images: Images) -> Images:
    return replace(images, labels=None)


def use_threads(config: Config) -> None:
    """Give torch the number of threads asked for, or one for each core this process may use."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    torch.set_num_threads(config.threads or allowed or 1)


def hold_memory() -> None:
    """Have the C library keep what a step frees instead of giving it back to the kernel, where it can be told so.

    The next step wants as much again, and the kernel clears every page it hands out.
    """
    if sys.platform == "linux" and (mallopt := getattr(ctypes.CDLL(None), "mallopt", None)):  # glibc's
        trim_threshold, mmap_threshold = -1, -3
        mallopt(trim_threshold, 2**31 - 1)
        mallopt(mmap_threshold, 2**25)


def build_players(config: Config, spec: ImageSpec, codes: Tensor | None = None) -> Players:
    """Both networks of `build_networks`, their optimisers, and room for memory."""
    G, D = build_networks(config, spec, codes)
    return Players(
        G,
        D,
        copy.deepcopy(G),
        build_optimizer(config.g_optimizer, G, config.g_learning_rate, config),
        build_optimizer(config.d_optimizer, D, config.d_learning_rate, config),
        empty_memory(config, (spec.channels, spec.size, spec.size)),
    )


def build_networks(config: Config, spec: ImageSpec, codes: Tensor | None = None) -> tuple[nn.Module, nn.Module]:
    """Generator and discriminator with their first weights, a function of the seed.

    Args:
        codes: (K, d) first values of every embedding of ids, zeros after them; None keeps the random ones.
    """
    with seeded(rng(config.seed, "weights")):
        G, D = choose(NETWORKS, config.network, "network")(network_spec(spec, config), config)
        for network in (G, D):
            initialise(network, config.initialisation)
    G, D = (network.to(memory_format=torch.channels_last) for network in (G, D))
    for layer in itertools.chain(G.modules(), D.modules()):
        if isinstance(layer, nn.modules.batchnorm._BatchNorm):
            layer.track_running_stats = False  # nothing samples with them: see recompute_statistics
        if isinstance(layer, nn.Embedding) and codes is not None:
            used = min(codes.shape[1], layer.embedding_dim)
            with torch.no_grad():
                layer.weight.zero_()[:, :used] = codes[:, :used]
    if config.match_tones:
        squashed_layer(G, spec.channels)  # refuses a G that has none
    if config.spectral_norm:
        with seeded(rng(config.seed, "spectral norm")):
            normalise_spectrally(D)
    return G, D


class _Sums:
    """Means of what the steps since the last log line reported; part of a checkpoint, so no line is lost."""

    def __init__(self, totals: dict[str, float] | None = None, counts: dict[str, int] | None = None) -> None:
        self.totals, self.counts = totals or {}, counts or {}

    def add(self, numbers: dict[str, float]) -> None:
        for name, value in numbers.items():
            self.totals[name] = self.totals.get(name, 0.0) + value
            self.counts[name] = self.counts.get(name, 0) + 1

    def take_means(self) -> dict[str, float]:
        means = {name: total / self.counts[name] for name, total in self.totals.items()}
        self.totals, self.counts = {}, {}
        return means


def train(
    run: Run,
    material: Material,
    *,
    stop: Callable[[], bool] = lambda: False,
    command: Sequence[str] = (),
    deadline: float | None = None,
) -> Iterator[dict[str, Any]]:
    """Train a run to its length, or until `stop()` says so, and report on the way.

    Continues from the newest checkpoint where there is one. Yields what happened as dicts with a "kind": "log",
    "score", "sampled", "saved", "length", "trouble" or "rollback". The run's directory is locked meanwhile.

    Args:
        command: what was typed, for run.json.
        deadline: by `time.perf_counter`; half-way, a new run's length is set anew, once, to what fits until then.

    Raises ValueError where another process trains in the directory or the data are not those it began with;
    TroubleError when a loss is no number, or at any trouble if the config says stop; NotSavedError when the disk takes
    no more; both with the last checkpoint intact.
    """
    with locked(run.directory):
        at = datetime.now(UTC).isoformat(timespec="seconds")
        starts = [*run.facts().get("starts", []), {"command": list(command), "at": at}]
        finished = None
        while finished is None:
            try:
                finished = yield from _loop(run, material, stop, starts, deadline)
            except TroubleError as error:
                if run.config.on_trouble != "rollback" or not roll_back(run, error.trouble):
                    run.record(status="failed", reason=str(error))
                    raise
                yield {"kind": "rollback", "images_seen": error.trouble.images_seen, **run.facts()["rollbacks"][-1]}
                run = open_run(run.directory)
            except OSError as error:
                reason = (
                    f"{error.filename or run.directory} could not be written ({error.strerror}), and "
                    f"{_what_is_left(run)}; make room, then continue with: gansmith resume {run.directory}"
                )
                with contextlib.suppress(OSError):
                    run.record(status="failed", reason=reason)
                raise NotSavedError(reason) from error
        run.record(status="finished" if finished else "stopped")


def _loop(
    run: Run,
    material: Material,
    stop: Callable[[], bool],
    starts: Sequence[dict[str, Any]],
    deadline: float | None,
) -> Generator[dict[str, Any], None, bool]:
    """What `train` yields; returns whether the run reached its length."""
    config = run.config
    use_threads(config)
    players = build_players(config, material.spec, material.codes)
    first_lengths = _weight_lengths(players)
    counters = _restore(run, players, material)
    record_start(run, material, starts, counters["rollbacks"])
    rows, scores, rollbacks = run.log(), run.scores(), counters["rollbacks"]
    signals = Signals(config, material.fit, material.validation, material.ids, material.frequencies)
    images_seen: int = counters["images_seen"]
    resumed, begun_at = images_seen > 0, images_seen
    sums, best = _Sums(counters["sums"], counters["sums_counts"]), counters["best"]
    batches = Batches(config, material)
    judge = Judge(material.fit, material.validation) if material.validation and len(material.validation) > 1 else None
    frame_ids = _frame_ids(material, config)
    frame_latents = draw_latents(config, seed=config.seed, count=len(frame_ids))
    clock = _Clock(images_seen)
    saved_images, saved_at = images_seen, time.monotonic()
    fresh: Trouble | None = None  # found since the last step
    # The last save made for safety alone.
    spare: Path | None = run.latest() if counters.get("for_safety") else None
    ids_sha256 = _sha256(material.ids)
    run.samples_dir.mkdir(exist_ok=True)  # empty folders get lost in copies
    if not resumed:
        write_bytes(run.directory / "real.png", to_png(enlarge(grid(material.fit.pixels[:25]))))

    def log() -> dict[str, Any]:
        row = {"images_seen": images_seen, **sums.take_means(), **clock.lap(images_seen)}
        looks = (config.first_images or config.images) // SIGNS or 1
        if images_seen // looks > (rows[-1]["images_seen"] if rows else 0) // looks:
            row |= signals.measure(players.G, players.D, images_seen)
            row |= gradient_lengths()
        rows.append(run.append(run.log_path, row))
        return {"kind": "log", **rows[-1]}

    def gradient_lengths() -> dict[str, float]:
        """Of the players' last steps, also where those were taken before this process began."""
        lengths = dict(counters.get("gradients", {}))
        for name, network in (("g_grad", players.G), ("d_grad", players.D)):
            gradients = [p.grad for p in network.parameters() if p.grad is not None]
            if gradients or name not in lengths:
                lengths[name] = torch.nn.utils.get_total_norm(gradients).item()
        return lengths

    def look() -> dict[str, Any] | None:
        if "g_grad" not in rows[-1]:
            return None
        known = {row["trouble"] for row in rows if row.get("kind") == "trouble"}
        troubles = [trouble for trouble in diagnose(rows, scores, config) if trouble.name not in known]
        return report(troubles[0]) if troubles else None

    def report(trouble: Trouble) -> dict[str, Any]:
        nonlocal fresh
        # Who chooses a few classes gets no others: said, but nothing to stop for.
        fresh = None if trouble.name == "collapse-across" and config.classes else trouble
        run.append(run.log_path, trouble.as_row())
        rows.append(trouble.as_row())
        return trouble.as_row()

    def draw() -> dict[str, Any]:
        frame = generate(averaged(), frame_latents, frame_ids)
        path = run.samples_dir / f"{images_seen:09d}.png"
        write_bytes(path, to_png(grid(frame, columns=GRID_COLUMNS)))
        return {"kind": "sampled", "path": str(path), "tile_px": material.spec.size}

    def evaluate() -> dict[str, Any]:
        nonlocal best
        assert judge is not None
        row = {"images_seen": images_seen, **judge.score(sample(averaged(), seed=1, count=judge.count)[0])}
        scores.append(run.append(run.metrics_path, row))
        if best is None or row["ratio"] < best["ratio"]:
            best = {"images_seen": images_seen, "ratio": row["ratio"], "scores_since": 0}
        else:
            best = {**best, "scores_since": best["scores_since"] + 1}
        return {"kind": "score", **row}

    def save(*, for_safety: bool = False) -> dict[str, Any]:
        nonlocal saved_images, saved_at, spare
        state = _state(players, config)
        if not all(value.isfinite().all() for value in state.values()):
            raise NotFiniteError("a weight")
        path = save_checkpoint(
            run,
            images_seen,
            generator=averaged().G.state_dict(),
            generator_metadata=describe_model(config, material.spec, material.frequencies),
            state=state,
            counters={
                "images_seen": images_seen,
                "log_lines": len(run.log()),
                "sums": sums.totals,
                "sums_counts": sums.counts,
                "best": best,
                "rollbacks": rollbacks,
                "data_sha256": material.data_sha256,
                "ids_sha256": ids_sha256,
                "for_safety": for_safety,
                "gradients": gradient_lengths(),
            },
        )
        if best is not None and best["images_seen"] == images_seen:
            point_best(run, path)
        if spare is not None:
            shutil.rmtree(spare, ignore_errors=True)
        if config.keep_last and not for_safety:
            prune(run, newest=images_seen, keep_last=config.keep_last, keep_every=config.keep_every)
        spare = path if for_safety else None
        saved_images, saved_at = images_seen, time.monotonic()
        return {"kind": "saved", "path": str(path)}

    averages: dict[int, Model] = {}

    def averaged() -> Model:
        """The generator as it is sampled now: averaged weights with statistics of their own."""
        if images_seen not in averages:
            averages.clear()
            G = copy.deepcopy(players.G_ema if config.ema else players.G)
            if not all(parameter.isfinite().all() for parameter in G.parameters()):
                raise NotFiniteError("a weight of the generator")
            prepare_to_draw(G, config, material)
            averages[images_seen] = Model(G.eval(), config, material.spec, material.frequencies)
        return averages[images_seen]

    def stalled() -> bool:
        return bool(config.stop_early and best is not None and best["scores_since"] >= config.stop_early)

    log_every = _interval(config, "log_every", LOG_LINES)
    chores: list[tuple[int, Callable[[], dict[str, Any] | None]]] = [
        (log_every, log),
        (log_every, look),
        (_interval(config, "sample_every", GRIDS), draw),
    ]
    if judge is not None:
        every = _interval(config, "evaluate_every", _scores(config, _expected(config)))
        chores.insert(0, (every, evaluate))  # first, for it may find that the run is over
    chores.append((_interval(config, "save_every", SAVES), save))

    rules = build_rules(config, players.D)
    while True:
        finished = images_seen >= config.images or stalled()
        interrupted = not finished and stop()
        try:
            if images_seen == 0:
                yield draw()
            elif not resumed:
                for every, chore in chores:
                    newly_best = chore is save and best is not None and best["images_seen"] == images_seen
                    if finished or newly_best or images_seen // every > (images_seen - config.batch) // every:
                        done = chore()
                        if done is not None:
                            yield done
                    finished = finished or stalled()
                overdue = time.monotonic() - saved_at > SAFETY_S
                stopping = interrupted or (fresh is not None and config.on_trouble == "stop")
                if saved_images < images_seen and (stopping or overdue):
                    yield save(for_safety=not stopping)
            if fresh is not None and config.on_trouble != "warn":
                raise TroubleError(run, fresh)
            if finished or interrupted:
                return finished
            resumed, fresh = False, None

            middle = config.images / 2
            is_open = not (config.first_images or config.schedule_images)
            if deadline and is_open and images_seen - config.batch < middle <= images_seen:
                fitting = clock.images_until(deadline - LAST_PICTURES_S, images_seen - begun_at)
                config = config.replace(
                    images=images_seen + max(fitting, images_seen // 4, config.batch), first_images=config.images
                )
                run, batches = Run(run.directory, config), Batches(config, material)
                write_text(run.directory / "config.toml", config.to_toml())
                yield {"kind": "length", "images_seen": images_seen, "images": config.images}
            length = config.schedule_length
            progress = progress_at(images_seen, length, config.first_images or length)
            progress = min(progress, 1.0 - config.batch / length)
            set_rates(players, config, progress, slower=ROLLBACK_FACTOR ** len(rollbacks))
            sums.add(take_step(players, rules, batches, images_seen, progress))
            images_seen += config.batch
            if images_seen == FIRST_STEPS * config.batch:
                lengths = _weight_lengths(players)
                sums.add({"weights_grown": max(now / first for now, first in zip(lengths, first_lengths, strict=True))})
        except NotFiniteError as error:
            trouble = to_trouble("not-finite", images_seen, f"{error} is no longer a number")
            if trouble.as_row() not in rows:  # a run that continues may meet it again
                yield report(trouble)
            raise TroubleError(run, trouble) from None


def roll_back(run: Run, trouble: Trouble) -> bool:
    """Take a run back to its best checkpoint, to go on with lower rates; whether there is one and a try is left.

    What it does is written down before it is done, so a run killed in between does the rest when it continues.
    """
    # A checkpoint of the window in which the trouble was told from chance may hold it already.
    sound = [path for path in run.checkpoints() if int(path.name) < trouble.images_seen - WINDOW * run.config.images]
    best = run.best()
    target = best if best in sound else sound[-1] if sound else None
    rollbacks = run.facts().get("rollbacks", [])
    if target is None or len(rollbacks) >= MOST_ROLLBACKS:
        return False
    step = {
        "from": trouble.images_seen,
        "to": int(target.name),
        "trouble": trouble.name,
        "sentence": f"{trouble.sentence}; going back to {int(target.name):,} images with half the learning rates",
    }
    run.record(rollbacks=[*rollbacks, step])
    return True


def _what_is_left(run: Run) -> str:
    latest = run.latest()
    return f"the checkpoint of {int(latest.name):,} images is intact" if latest else "no checkpoint was saved before"


def take_step(
    players: Players, rules: Rules, batches: "Batches", images_seen: int, progress: float
) -> dict[str, float]:
    """Both players and the average one step further, from `images_seen` to a batch more; the step's numbers."""
    config = batches.config
    for module in players.growing:
        grow(module, progress)
    with batches.chance_at(images_seen):
        update, batch = UPDATES[config.update], batches.at(images_seen, progress)
        numbers = update(players, batch, rules, penalties_at(config, images_seen, progress, players.memory))
    if config.ema:
        counted = float(images_seen + config.batch)
        if config.ema_growth == "cosine":
            counted = _expected(config) * ramp(progress, 0.0, 1.0, config.penalty_warmup)
        update_ema(players.G_ema, players.G, ema_decay(counted, config.batch, config.ema))
    return numbers | steer_penalties(config, players.memory, numbers["d_loss"])


def fit_to_machine(config: Config, material: Material, seconds: float) -> Config:
    """The config with the length that this machine can train, chores included, in so many seconds; at least one batch.

    Trains throw-away networks for about a hundredth of the time. Where other programs keep the cores from threads that
    were not asked for by number, it has them halved if that is faster: threads wait for one another at every turn.
    """
    probe = config.replace(images=10**12, schedule_images=0)
    players = build_players(probe, material.spec, material.codes)
    measured_s = min(6.0, max(0.5, 0.01 * seconds))
    started_at = time.perf_counter()
    image_s, share = _image_s(probe, players, material, measured_s)
    while share < FREE_CORES and config.threads == 0 and torch.get_num_threads() > 1:
        halved = probe.replace(threads=torch.get_num_threads() // 2)
        use_threads(halved)
        halved_s, share = _image_s(halved, players, material, measured_s)
        if halved_s > image_s:
            use_threads(probe)
            break
        probe, image_s = halved, halved_s
    score_s, grid_s, once_s = _chores_s(config, players, material)
    chores_s, images = 0.0, int(seconds / image_s)
    for every, chore_s, usual in (
        (config.evaluate_every, score_s, _scores(config, images)),
        (config.sample_every, grid_s, GRIDS),
    ):
        if every:
            chores_s += chore_s / every
        else:
            once_s += chore_s * usual
    left_s = seconds - (time.perf_counter() - started_at) - once_s
    images = int(max(left_s, 0.0) / (image_s + chores_s))
    return config.replace(images=max(config.batch, images), threads=probe.threads)


def _image_s(config: Config, players: Players, material: Material, measured_s: float) -> tuple[float, float]:
    """Seconds that an image takes in a step, measured for so long, and the share of its threads' time a step got."""
    batches, rules = Batches(config, material), build_rules(config, players.D)
    cycle = min(64, math.lcm(config.penalty_every, config.d_steps))
    images_seen, measured = 0, 0
    warm_at = started_at = time.perf_counter()
    busy_at = time.process_time()
    while not measured or time.perf_counter() - started_at < measured_s:
        for _ in range(cycle):  # whole cycles, so that steps with and without penalties keep their share
            # All over the schedule, since a pair that grows is slower when it is large.
            try:
                take_step(players, rules, batches, images_seen, GOLDEN * (images_seen // config.batch) % 1)
            except NotFiniteError:  # the run itself will meet it, say so and record it
                return (time.perf_counter() - started_at) / (images_seen + config.batch), 1.0
            images_seen += config.batch
        if images_seen == cycle * config.batch:  # the first cycle is slow: memory is fetched, kernels are chosen
            warm_at, busy_at = time.perf_counter(), time.process_time()
        else:
            measured = images_seen - cycle * config.batch
    passed_s = time.perf_counter() - warm_at
    return passed_s / measured, (time.process_time() - busy_at) / (passed_s * torch.get_num_threads())


def _chores_s(config: Config, players: Players, material: Material) -> tuple[float, float, float]:
    """Seconds that a score, a grid, and what is done once in a run of this config will take."""
    started_at = time.perf_counter()
    prepare_to_draw(players.G_ema, config, material)
    statistics_s = time.perf_counter() - started_at
    latents, ids = torch.zeros(128, config.z_dim), torch.zeros(128, dtype=torch.int64)
    started_at = time.perf_counter()
    with torch.no_grad():
        players.G_ema(latents, ids)
    per_sample_s = (time.perf_counter() - started_at) / len(ids)
    grid_s = statistics_s + GRID_COLUMNS * GRID_ROWS * per_sample_s
    signals = Signals(config, material.fit, material.validation, material.ids, material.frequencies)
    started_at = time.perf_counter()
    for _ in range(2):
        signals.measure(players.G, players.D, 0)
    once_s = LAST_PICTURES_S + SIGNS * (time.perf_counter() - started_at) / 2
    if not material.validation:
        return 0.0, grid_s, once_s
    networks = load_evaluators(material.fit).values()
    started_at = time.perf_counter()
    for network in networks:
        network.features(material.fit.pixels[:500])
    per_feature_s = (time.perf_counter() - started_at) / min(500, len(material.fit))
    return COUNT * (per_sample_s + per_feature_s), grid_s, once_s + 2 * COUNT * per_feature_s


class Batches:
    """Batch number after batch number of a run, each a function of the images seen before it."""

    def __init__(self, config: Config, material: Material) -> None:
        self.config, self.material = config, material
        self.orders: dict[int, Tensor] = {}
        self.is_random = config.dropout > 0 or config.g_dropout > 0 or config.style_mixing > 0

    def at(self, images_seen: int, progress: float = 0.0) -> Batch:
        config = self.config
        rows = self._rows(images_seen)
        real = to_float(self.material.fit.pixels.index_select(0, rows))  # a tenth of what indexing takes
        ids = self.material.ids.index_select(0, rows)
        draw = rng(config.seed, images_seen, "latent")
        z = self._latents(draw)
        g_rests = (images_seen // config.batch + 1) % config.d_steps > 0
        turns = () if g_rests else range(0 if config.fresh_fakes else 1, config.g_steps)
        more_z = tuple(self._latents(rng(config.seed, images_seen, "latent", turn)) for turn in turns)
        return Batch(real, ids, z, ids, draw, progress, g_rests, more_z, config.fresh_fakes)

    def _latents(self, draw: torch.Generator) -> Tensor:
        normal = torch.randn(self.config.batch, self.config.z_dim, generator=draw)
        return shape_latents(normal, self.config.latent)

    def _rows(self, images_seen: int) -> Tensor:
        """The next rows of this epoch's permutation, and of the next ones where a batch crosses an end."""
        n, rows, position = len(self.material.fit), [], images_seen
        while position < images_seen + self.config.batch:
            epoch, start = divmod(position, n)
            taken = self._order(epoch)[start : start + images_seen + self.config.batch - position]
            rows.append(taken)
            position += len(taken)
        return rows[0] if len(rows) == 1 else torch.cat(rows)

    def _order(self, epoch: int) -> Tensor:
        if epoch not in self.orders:
            self.orders = {
                epoch: torch.randperm(len(self.material.fit), generator=rng(self.config.seed, epoch, "order"))
            }
        return self.orders[epoch]

    def chance_at(self, images_seen: int) -> contextlib.AbstractContextManager[None]:
        """Dropout and style mixing draw from torch's global state: seed it for this step, then give it back."""
        return seeded(rng(self.config.seed, images_seen, "dropout")) if self.is_random else contextlib.nullcontext()


def set_rates(players: Players, config: Config, progress: float, *, slower: float = 1.0) -> None:
    """Give both optimisers the learning rates and the memory of this point of the schedule."""
    factor = slower * decay(progress, config.decay, config.decay_from, config.decay_factor)
    factor *= ramp(progress, config.rate_boost, 1.0, config.penalty_warmup)
    beta2 = ramp(progress, config.beta2_start or config.beta2, config.beta2, config.penalty_warmup)
    for optimizer, rate in (
        (players.g_optimizer, config.g_learning_rate),
        (players.d_optimizer, config.d_learning_rate),
    ):
        for group in optimizer.param_groups:
            group["lr"] = rate * factor
            if "betas" in group:
                group["betas"] = (config.beta1, beta2)


def _scores(config: Config, images: int) -> int:
    """How many quick scores a run of this length gets: few enough to cost less than a twentieth of it.

    Measured on two cores: a score takes as long as 2,000 images of `default`; on one, as 4,300 of `mlp-small`; the real
    images' features once more that.
    """
    step = 250_000 if config.network.startswith(("mlp", "cgan")) else 48_000
    return min(8, max(1, images // step)) + images // (10 * step)


def _interval(config: Config, name: str, parts: int) -> int:
    """The images between two chores: those chosen, else a share of the schedule.

    A recipe's own interval is meant for its own length: a shorter run keeps it no longer than a share.
    """
    chosen: int = getattr(config, name)
    share = _share(config, parts)
    return min(chosen, share) if config.is_recipes_own(name) else chosen or share


def _share(config: Config, parts: int) -> int:
    """An interval that divides the schedule's length into so many parts."""
    return max(config.batch, math.ceil(_expected(config) / parts))


def _expected(config: Config) -> int:
    """How many images a run's intervals were divided from."""
    return config.first_images or config.schedule_length


def _frame_ids(material: Material, config: Config) -> Tensor:
    """Ids of the fixed grid: each class a column where there are ten or fewer, else by frequency."""
    count = GRID_COLUMNS * GRID_ROWS
    shares = material.frequencies.view(-1, config.ids_per_label)
    known = torch.nonzero(shares.sum(1)).flatten()
    if 1 < len(known) <= GRID_COLUMNS:
        labels = known[torch.arange(count) % GRID_COLUMNS % len(known)]
        return labels * shares.shape[1] + torch.multinomial(shares[labels], 1, generator=rng("frames")).flatten()
    return torch.multinomial(material.frequencies, count, replacement=True, generator=rng("frames"))


def _weight_lengths(players: Players) -> list[float]:
    """Of each player: the length of all its weights together, biases and scales aside."""
    return [
        torch.nn.utils.get_total_norm([p.detach() for p in network.parameters() if p.dim() > 1]).item()
        for network in (players.G, players.D)
    ]


class _Clock:
    """Seconds and images per second; the only fields of a log line that differ between equal runs."""

    def __init__(self, images_seen: int) -> None:
        self.started_at = self.lap_at = time.perf_counter()
        self.lap_images = images_seen

    def images_until(self, deadline: float, images: int) -> int:
        """How many more fit in as fast as `images` went since the clock was started; 0 or less where it is late."""
        now = time.perf_counter()
        return int((deadline - now) * images / (now - self.started_at))

    def lap(self, images_seen: int) -> dict[str, float]:
        now = time.perf_counter()
        rate = (images_seen - self.lap_images) / (now - self.lap_at)
        self.lap_at, self.lap_images = now, images_seen
        return {"images_per_s": round(rate, 1), "elapsed_s": round(now - self.started_at, 1)}


def _state(players: Players, config: Config) -> dict[str, Tensor]:
    """Every tensor a run needs to go on, but for what the generator file holds of the averaged weights."""
    tensors: dict[str, Tensor] = {}
    for name, network in (("G", players.G), ("D", players.D)):
        tensors |= {f"{name}.{key}": value for key, value in network.state_dict().items()}
    for name, optimizer in (("g_optimizer", players.g_optimizer), ("d_optimizer", players.d_optimizer)):
        for index, slots in optimizer.state_dict()["state"].items():
            tensors |= {f"{name}.{index}.{key}": value for key, value in slots.items() if value is not None}
    if config.match_tones:  # the file's own are matched
        tensors |= {UNMATCHED + key: value for key, value in squashed_layer(players.G_ema).state_dict().items()}
    return tensors | {f"memory.{name}": value for name, value in players.memory.items()}


def _restore(run: Run, players: Players, material: Material) -> dict[str, Any]:
    """Put the newest checkpoint into the players and take the directory back to it; its counters."""
    rollbacks = run.facts().get("rollbacks", [])
    for path in reversed(run.checkpoints() if rollbacks else []):
        if int(path.name) > rollbacks[-1]["to"] and len(load_counters(path)["rollbacks"]) < len(rollbacks):
            shutil.rmtree(path)  # of the way that was given up
    latest = run.latest()
    if latest is None:
        if run.has_checkpoints():
            raise ValueError(
                f"no checkpoint of {run.directory} can be read; put a whole one back, or remove "
                f"{run.directory / 'checkpoints'} to begin anew"
            )
        sweep(run, -1)
        return {"images_seen": 0, "sums": {}, "sums_counts": {}, "best": None, "rollbacks": []}
    tensors = (*_state(players, run.config).values(), *players.G_ema.state_dict().values())
    generator, state, counters = load_checkpoint(latest, most_bytes=2 * sum(t.nbytes for t in tensors) + 2**24)
    if counters["data_sha256"] != material.data_sha256:
        raise ValueError(
            f"{run.directory} learnt from data with SHA-256 {counters['data_sha256']}, and {material.fit.source} now "
            f"has {material.data_sha256}; bring the old data back, or train a new run with another --out"
        )
    if counters.get("ids_sha256") not in (None, _sha256(material.ids)):
        raise ValueError(
            f"{run.directory} learnt from clusters that now come out otherwise, as with another version of Gansmith or "
            "scikit-learn; bring the old one back (run.json names both), or train a new run with another --out"
        )
    try:
        _fill(players, generator, state)
    except (LookupError, RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"{latest} does not fit the run's config ({reason}); remove that checkpoint") from None
    counters["rollbacks"] = max(counters["rollbacks"], rollbacks, key=len)  # run.json may have been deleted
    sweep(run, counters["images_seen"])
    noted = sum(row.get("kind") == "rollback" for row in run.log())
    for step in counters["rollbacks"][noted:]:
        run.append(run.log_path, {"kind": "rollback", "images_seen": step["to"], **step})
    missing = counters["log_lines"] - len(run.log())
    if missing > 0:
        logger.warning("%s lacks %d of %d lines; the run goes on without them", run.log_path, missing, missing)
    if counters["best"] is not None:
        best = run.checkpoint(counters["best"]["images_seen"])
        if run.best() != best and best in run.checkpoints():  # killed before the pointer was moved
            point_best(run, best)
    return counters


def _sha256(tensor: Tensor) -> str:
    return hashlib.sha256(tensor.contiguous().numpy().tobytes()).hexdigest()


def _fill(players: Players, generator: dict[str, Tensor], state: dict[str, Tensor]) -> None:
    """Give both players and their optimisers these tensors; raises one of several errors where they do not fit."""
    players.G_ema.load_state_dict(generator)
    unmatched = {key.removeprefix(UNMATCHED): v for key, v in state.items() if key.startswith(UNMATCHED)}
    if unmatched:
        squashed_layer(players.G_ema).load_state_dict(unmatched)
    for name, network in (("G", players.G), ("D", players.D)):
        network.load_state_dict(
            {key.removeprefix(f"{name}."): v for key, v in state.items() if key.startswith(f"{name}.")}
        )
    players.memory = {name: state[f"memory.{name}"] for name in players.memory}
    for name, optimizer in (("g_optimizer", players.g_optimizer), ("d_optimizer", players.d_optimizer)):
        parameters = list(itertools.chain.from_iterable(group["params"] for group in optimizer.param_groups))
        slots: dict[int, dict[str, Tensor]] = {}
        for key, value in state.items():
            if key.startswith(f"{name}."):
                _, index, slot = key.split(".")
                like = parameters[int(index)]
                if value.dim() and value.shape != like.shape:
                    raise ValueError(f"{key} is {tuple(value.shape)}, not {tuple(like.shape)}")
                # The fused optimisers walk memory: a slot must be laid out as its parameter is.
                slots.setdefault(int(index), {})[slot] = torch.empty_like(like).copy_(value) if value.dim() else value
        optimizer.load_state_dict({**optimizer.state_dict(), "state": slots})


def record_start(
    run: Run, material: Material, starts: Sequence[dict[str, Any]], rollbacks: Sequence[dict[str, Any]]
) -> None:
    """Say in config.toml and run.json what is about to train, on what, on which machine, and what commands began it.

    Warns where versions or the machine differ from the last time: the run then goes on, but not bit for bit.
    """
    here = {
        "versions": {name: metadata.version(name) for name in ("gansmith", "torch", "numpy", "scikit-learn")},
        "python": platform.python_version(),
        "machine": {
            "processor": torch.cpu.get_capabilities().get("cpu_name", platform.processor()),
            "threads": torch.get_num_threads(),
            "bfloat16": has_fast_bf16(),
        },
    }
    before = run.facts()
    changed = [name for name in here if name in before and before[name] != here[name]]
    if changed:
        listing = ", ".join(f"{name} {before[name]} -> {here[name]}" for name in changed)
        logger.warning("%s goes on, but not bit for bit as it would have: %s", run.directory, listing)
    write_text(run.directory / "config.toml", run.config.to_toml())
    run.record(
        status="running",
        reason=None,
        command=starts[0]["command"],
        starts=list(starts),
        rollbacks=list(rollbacks),
        **here,
        data={
            "source": material.fit.source,
            "sha256": material.data_sha256,
            "fit": len(material.fit),
            "validation": len(material.validation) if material.validation else 0,
            "notices": material.fit.notices,
        },
    )
