"""What changes during a run, how it starts or resumes, and its tensors in a checkpoint."""

import contextlib
import copy
import itertools
import logging
import math
import shutil
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from gansmith import processes
from gansmith.checkpoints import (
    load_checkpoint,
    load_counters,
    mark_best,
    named_checkpoints,
    remove,
    unmark_best,
)
from gansmith.config import Config
from gansmith.data.images import ImageSpec
from gansmith.errors import RunError
from gansmith.files import json_sha256, tensor_sha256
from gansmith.interrupts import given_up_when_interrupted
from gansmith.metrics.validation import ValidationScorer
from gansmith.networks import build_networks
from gansmith.runs import RunDirectory, rewind
from gansmith.sampling import Model
from gansmith.training.batches import Batches
from gansmith.training.calibration import UNCALIBRATED, finalise_generator, output_layer
from gansmith.training.diagnosis import Failure
from gansmith.training.inputs import TrainingData
from gansmith.training.machine import find_device
from gansmith.training.monitor import Monitor
from gansmith.training.optimizers import build_optimizer, reset_slot, slot_shape
from gansmith.training.step import Networks, NonFiniteError, Number, Techniques
from gansmith.training.techniques import build_techniques, empty_buffers

SPARE_BYTES = 2**24  # that a checkpoint may have beyond what its networks account for
EVALUATOR_PAYS = 300_000  # images of a run whose time is not limited, which an evaluator is trained for

logger = logging.getLogger("gansmith")


@dataclass
class RunningMeans:
    """Means of what the steps since the last log line reported; part of a checkpoint, so no line is lost."""

    totals: dict[str, float] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    waiting: dict[tuple[str, ...], tuple[Tensor, int]] = field(default_factory=dict)  # sums on an accelerator

    def add(self, numbers: dict[str, Number]) -> None:
        scalars = {name: value for name, value in numbers.items() if isinstance(value, Tensor)}
        if scalars:
            names, values = tuple(scalars), torch.stack([value.float() for value in scalars.values()])
            total, count = self.waiting.get(names, (torch.zeros_like(values), 0))
            self.waiting[names] = (total + values, count + 1)
        for name, value in numbers.items():
            if not isinstance(value, Tensor):
                self._add(name, value, 1)

    def _add(self, name: str, total: float, count: int) -> None:
        self.totals[name] = self.totals.get(name, 0.0) + total
        self.counts[name] = self.counts.get(name, 0) + count

    def read(self) -> dict[str, float]:
        """Return the sums; NonFiniteError where one that waited on an accelerator is NaN or infinite."""
        waiting, self.waiting = self.waiting, {}
        for names, (sums, count) in waiting.items():
            for name, total in zip(names, sums.tolist(), strict=True):
                if not math.isfinite(total):
                    raise NonFiniteError(name)
                self._add(name, total, count)
        return self.totals

    def take(self) -> dict[str, float]:
        """Return the means and begin again."""
        self.read()
        means = {name: total / self.counts[name] for name, total in self.totals.items()}
        self.totals, self.counts = {}, {}
        return means


class Clock:
    """Seconds and images per second; the only fields of a log line that differ between equal runs."""

    def __init__(self, images_seen: int) -> None:
        self.started_at = self.lap_at = time.perf_counter()
        self.first_images = self.lap_images = images_seen

    def images_until(self, deadline: float, images_seen: int) -> int:
        """Return how many more images fit in at the mean rate so far; 0 or less where it is late."""
        now = time.perf_counter()
        return int((deadline - now) * (images_seen - self.first_images) / (now - self.started_at))

    def lap(self, images_seen: int) -> dict[str, float]:
        now = time.perf_counter()
        rate = (images_seen - self.lap_images) / (now - self.lap_at)
        self.lap_at, self.lap_images = now, images_seen
        return {"images_per_s": round(rate, 1), "elapsed_s": round(now - self.started_at, 1)}


@dataclass(frozen=True)
class Held:
    """A state in memory to go back to: its images seen, all its tensors, and the means of its log line."""

    images_seen: int
    tensors: dict[str, Tensor]
    means: RunningMeans


@dataclass
class State:
    """A run as it is at this moment; the loop and its chores are functions of it.

    Attributes:
        images_seen: real images shown to D so far.
        means: of the steps since the last log line.
        best: images_seen, validation_fd_ratio and scores_since of the best checkpoint; None before a first score.
        rollbacks: the ones done so far.
        rows, scores: what log.jsonl, and training's part of metrics.jsonl, hold.
        gradient_norms: of the last steps before this process began.
        saved_images, saved_at: images and time of the newest checkpoint; the time by `time.monotonic`.
        safety_save: the newest checkpoint where it was made for safety alone, between the scheduled ones.
        new_failure: found since the last step.
        just_resumed: whether nothing has happened since a checkpoint was loaded.
        held: the last state that was known to be finite, where losses are not read at every step.
        checked_until: images up to which each step's losses are read, since something there was not finite.
    """

    run: RunDirectory
    data: TrainingData
    networks: Networks
    techniques: Techniques
    batches: Batches
    monitor: Monitor
    scorer: ValidationScorer | None
    initial_norms: list[float]
    clock: Clock
    images_seen: int = 0
    means: RunningMeans = field(default_factory=RunningMeans)
    best: dict[str, Any] | None = None
    rollbacks: list[dict[str, Any]] = field(default_factory=list)
    rows: list[dict[str, Any]] = field(default_factory=list)
    scores: list[dict[str, Any]] = field(default_factory=list)
    gradient_norms: dict[str, float] = field(default_factory=dict)
    saved_images: int = 0
    saved_at: float = 0.0
    safety_save: Path | None = None
    new_failure: Failure | None = None
    just_resumed: bool = False
    held: Held | None = None
    checked_until: int = 0
    _averaged: tuple[int, Model] | None = None

    @property
    def config(self) -> Config:
        return self.run.config

    @property
    def is_stalled(self) -> bool:
        """Whether early stopping ends the run."""
        limit = self.config.early_stopping
        return bool(limit and self.best is not None and self.best["scores_since"] >= limit)

    @property
    def is_finished(self) -> bool:
        return self.images_seen >= self.config.images or self.is_stalled

    @property
    def is_best(self) -> bool:
        """Whether the newest score, the best so far, was taken now."""
        return self.best is not None and self.best["images_seen"] == self.images_seen

    def averaged(self) -> Model:
        """Return the generator as it is sampled now: averaged weights with statistics of their own."""
        if self._averaged is None or self._averaged[0] != self.images_seen:
            G = copy_of(self.networks.G_ema if self.config.ema else self.networks.G)
            if not all(parameter.isfinite().all() for parameter in G.parameters()):
                raise NonFiniteError("a weight of the generator")
            finalise_generator(G, self.config, self.data.conditioning, self.data.pixel_moments)
            names = self.data.train.class_names
            model = Model(G.eval(), self.config, self.data.spec, self.data.conditioning, names)
            self._averaged = (self.images_seen, model)
        return self._averaged[1]

    def hold(self) -> None:
        """Hold this state in memory, all of whose losses have been read, where not every step reads them.

        Raises NonFiniteError for a weight that a finite loss has made NaN or infinite.
        """
        if not self.techniques.reads:
            live = self._live()
            if not all(value.isfinite().all() for value in live.values()):
                raise NonFiniteError("a weight")
            tensors = {name: value.clone() for name, value in live.items()}
            self.held = Held(self.images_seen, tensors, copy.deepcopy(self.means))

    def go_back(self) -> bool:
        """Go back to the state held in memory, from where each step's losses are read; False where none is held."""
        if self.held is None:
            return False
        live, held = self._live(), self.held
        for name, value in live.items():  # in place, for graphs know where it is
            value.copy_(held.tensors[name]) if name in held.tensors else reset_slot(name, value)
        self.checked_until, self.images_seen, self.means = self.images_seen, held.images_seen, held.means
        self.held, self._averaged = None, None
        return True

    def _live(self) -> dict[str, Tensor]:
        """Return all tensors of the state as they are, not copies."""
        average = {f"average.{name}": value for name, value in self.networks.G_ema.state_dict().items()}
        return to_tensors(self.networks, self.config) | average

    def replace_config(self, config: Config) -> None:
        """Go on with another length."""
        self.run = RunDirectory(self.run.directory, config)
        self.batches = Batches(config, self.data, self.networks.device)


def start(run: RunDirectory, data: TrainingData) -> State:
    """Return the state of a new run, or of one that continues from its newest checkpoint.

    Raises RunError where the checkpoint, the data, or the weights it starts from, are not those of the run.
    """
    config = run.config
    networks = start_networks(config, data.spec, data.conditioning.codes)
    initial_norms = weight_norms(networks)
    with processes.first_alone():
        counters = _resume(run, networks, data)
    processes.refuse_difference(json_sha256(counters), f"the newest checkpoint of {run.directory}")
    if config.start_from and not counters:
        from gansmith.training.transfer import take_weights  # few runs need it, and none of a hand-in's

        facts = run.facts().get("start_from")
        run.record(start_from=take_weights(networks.G, networks.D, config, data, facts=facts))
        networks.G_ema.load_state_dict(networks.G.state_dict())
        initial_norms = weight_norms(networks)
    scores = run.validation_scores()
    scorer = data.scorer
    if scorer is not None:
        seconds = math.inf if config.images >= EVALUATOR_PAYS else 0.0
        # One process alone may leave the training of an evaluator; the loop stops before its first step then.
        with given_up_when_interrupted(may=processes.count() == 1) as interrupted:
            scorer.prepare(seconds, **run.evaluators())
            scorer.move_to(networks.device)
        scorer = None if interrupted else scorer
    images_seen: int = counters.get("images_seen", 0)
    state = State(
        run,
        data,
        networks,
        build_techniques(config, networks.D),
        Batches(config, data, networks.device),
        Monitor(config, data.shown, data.validation, data.y, data.conditioning.frequencies),
        scorer,
        counters.get("initial_norms", initial_norms),
        Clock(images_seen),
        images_seen=images_seen,
        means=RunningMeans(counters.get("sums", {}), counters.get("counts", {})),
        best=counters.get("best"),
        rollbacks=counters.get("rollbacks", []),
        rows=run.log,
        scores=scores,
        gradient_norms=counters.get("gradient_norms", {}),
        saved_images=images_seen,
        saved_at=time.monotonic(),
        safety_save=run.latest() if counters.get("for_safety") else None,
        just_resumed=images_seen > 0,
    )
    with contextlib.suppress(NonFiniteError):  # of weights that a step will meet
        state.hold()
    return state


def start_networks(config: Config, spec: ImageSpec, codes: Tensor | None = None) -> Networks:
    """Return G and D of `build_networks` on the config's device, their optimisers, and the techniques' buffers."""
    device = find_device(config.device)
    G, D = (network.to(device) for network in build_networks(config, spec, codes))
    return Networks(
        G,
        D,
        copy_of(G),
        build_optimizer(config.g_optimizer, G, config.g_lr, config),
        build_optimizer(config.d_optimizer, D, config.d_lr, config),
        empty_buffers(config, (spec.channels, spec.size, spec.size), device),
    )


def copy_of(network: nn.Module) -> nn.Module:
    """Return a copy of a network; what its hooks compute from weights, as spectral_norm's do, without its graph."""
    kept = [value for module in network.modules() for value in vars(module).values() if isinstance(value, Tensor)]
    return copy.deepcopy(network, {id(value): value.detach().clone() for value in kept if not value.is_leaf})


def weight_norms(networks: Networks) -> list[float]:
    """Return the norm of all weights of G and of D, biases and scales left out."""
    return [
        torch.nn.utils.get_total_norm([p.detach() for p in network.parameters() if p.dim() > 1]).item()
        for network in (networks.G, networks.D)
    ]


def to_tensors(networks: Networks, config: Config) -> dict[str, Tensor]:
    """Return every tensor a run needs to go on, but for what the generator file holds of the averaged weights."""
    tensors: dict[str, Tensor] = {}
    for name, network in (("G", networks.G), ("D", networks.D)):
        tensors |= {f"{name}.{key}": value for key, value in network.state_dict().items()}
    for name, optimizer in (("g_optimizer", networks.g_optimizer), ("d_optimizer", networks.d_optimizer)):
        for index, slots in optimizer.state_dict()["state"].items():
            tensors |= {f"{name}.{index}.{key}": value for key, value in slots.items() if value is not None}
    if config.calibrate_output:  # the file's own is calibrated
        layer = output_layer(networks.G_ema if config.ema else networks.G).state_dict()
        tensors |= {UNCALIBRATED + key: value.clone() for key, value in layer.items()}
    return tensors | {f"buffers.{name}": value for name, value in networks.buffers.items()}


def from_tensors(networks: Networks, generator: dict[str, Tensor], state: dict[str, Tensor]) -> None:
    """Load a checkpoint's tensors; raises one of several errors where they do not fit."""
    networks.G_ema.load_state_dict(generator)
    uncalibrated = {key.removeprefix(UNCALIBRATED): v for key, v in state.items() if key.startswith(UNCALIBRATED)}
    if uncalibrated:
        output_layer(networks.G_ema).load_state_dict(uncalibrated)
    for name, network in (("G", networks.G), ("D", networks.D)):
        network.load_state_dict(
            {key.removeprefix(f"{name}."): v for key, v in state.items() if key.startswith(f"{name}.")}
        )
    networks.buffers = {name: state[f"buffers.{name}"].to(kept) for name, kept in networks.buffers.items()}
    for name, optimizer in (("g_optimizer", networks.g_optimizer), ("d_optimizer", networks.d_optimizer)):
        _load_optimizer(name, optimizer, state)


def _load_optimizer(name: str, optimizer: torch.optim.Optimizer, state: dict[str, Tensor]) -> None:
    parameters = list(itertools.chain.from_iterable(group["params"] for group in optimizer.param_groups))
    slots: dict[int, dict[str, Tensor]] = {}
    for key, value in state.items():
        if key.startswith(f"{name}."):
            _, index, slot = key.split(".")
            like = parameters[int(index)]
            if value.dim() and tuple(value.shape) != slot_shape(slot, like):
                raise ValueError(f"{key} is {tuple(value.shape)}, not {slot_shape(slot, like)}")
            # The fused optimisers walk memory: a slot must be laid out as its parameter is.
            same = value.shape == like.shape
            # Memory of a file may begin anywhere, and products of matrices differ in rounding by where theirs begins.
            slots.setdefault(int(index), {})[slot] = torch.empty_like(like).copy_(value) if same else value.clone()
    optimizer.load_state_dict({**optimizer.state_dict(), "state": slots})


def _resume(run: RunDirectory, networks: Networks, data: TrainingData) -> dict[str, Any]:
    """Load the newest checkpoint into the networks and rewind the directory to it; returns its counters."""
    rollbacks = run.facts().get("rollbacks", [])
    for path in reversed(run.checkpoints() if rollbacks else []):
        if int(path.name) > rollbacks[-1]["to"] and len(load_counters(path)["rollbacks"]) < len(rollbacks):
            shutil.rmtree(path)  # of the course that was given up
    latest = run.latest()
    if latest is None:
        if named_checkpoints(run.directory):
            raise RunError(
                f"no checkpoint of {run.directory} can be read; restore a whole one, or remove "
                f"{run.directory / 'checkpoints'} to start again"
            )
        if run.facts().get("status") == "finished" or any(row.get("gates") for row in run.metrics):
            raise RunError(
                f"{run.directory} has no checkpoint left to go on from, and its log and scores would be lost; give "
                "another --out, or remove log.jsonl, metrics.jsonl and run.json to begin again there"
            )
        rewind(run, -1)
        return {}
    # Of networks that have made no step: averages of gradients, and bases, come on top.
    expected = (*to_tensors(networks, run.config).values(), *networks.G_ema.state_dict().values())
    generator, state, counters = load_checkpoint(latest, max_bytes=8 * sum(t.nbytes for t in expected) + SPARE_BYTES)
    _refuse_other_data(run, data, counters)
    try:
        from_tensors(networks, generator, state)
    except (LookupError, RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise RunError(
            f"{latest} does not fit the run's config ({reason}); use the version of Gansmith that began the run, or "
            "remove that checkpoint"
        ) from None
    counters["rollbacks"] = max(counters["rollbacks"], rollbacks, key=len)  # run.json may have been deleted
    rewind(run, counters["images_seen"])
    noted = sum(row.get("kind") == "rollback" for row in run.log)
    for step in counters["rollbacks"][noted:]:
        images_seen = min(step["to"], counters["images_seen"])  # a later one may have gone back further
        run.append(run.log_path, {"kind": "rollback", "images_seen": images_seen, **step})
    missing = counters["log_lines"] - len(run.log)
    if missing > 0:
        logger.warning(
            "%s lacks %d of %d lines; the run goes on without them", run.log_path, missing, counters["log_lines"]
        )
    _mend_best(run, counters)
    _remove_safety_saves(run, latest, counters)
    return counters


def _mend_best(run: RunDirectory, counters: dict[str, Any]) -> None:
    """Bring best.json in line with the counters, and these with the checkpoints that are there."""
    if counters["best"] is None:
        return
    best = run.checkpoint(counters["best"]["images_seen"])
    if best not in run.checkpoints():  # pruned in a course that was given up: the next score is the best there is
        counters["best"] = None
        unmark_best(run.directory)
    elif run.best() != best:  # killed before best.json was written
        mark_best(run.directory, best)


def _remove_safety_saves(run: RunDirectory, latest: Path, counters: dict[str, Any]) -> None:
    """Remove safety checkpoints that the newest one has made superfluous: the run may have been killed in between."""
    for path in named_checkpoints(run.directory) if not counters.get("for_safety") else []:
        with contextlib.suppress(OSError, LookupError, ValueError):
            if path != latest and load_counters(path).get("for_safety"):
                remove(path)


def _refuse_other_data(run: RunDirectory, data: TrainingData, counters: dict[str, Any]) -> None:
    if counters["data_sha256"] != data.data_sha256:
        raise RunError(
            f"{run.directory} was trained on data with SHA-256 {counters['data_sha256']}, and {data.train.source} now "
            f"has {data.data_sha256}; restore the old data, or train a new run with another --out"
        )
    if counters.get("ids_sha256") not in (None, tensor_sha256(data.y)):
        raise RunError(
            f"{run.directory} was trained on clusters that k-means now finds differently, as with another version of "
            "Gansmith or PyTorch; use the old one (run.json names both), or train a new run with another --out"
        )


def norm_growth(state: State) -> float:
    """Return how many times larger the weights of G or D, whichever grew more, are than at first."""
    now = weight_norms(state.networks)
    return max(norm / initial for norm, initial in zip(now, state.initial_norms, strict=True))
