"""Batch number after batch number of a run, each a function of the images seen before it."""

import contextlib
from collections.abc import Hashable
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor, nn

from gansmith.config import Config
from gansmith.data.images import to_float
from gansmith.networks import is_of_program
from gansmith.networks.progressive import fade_detail, grow, restart_idle
from gansmith.processes import own_rows, sharing
from gansmith.randomness import rng, seeded, to_device
from gansmith.sampling import shape_latents
from gansmith.training.graphs import Graphs, is_repeatable
from gansmith.training.inputs import TrainingData
from gansmith.training.losses import BUILT_IN_OBJECTIVES, OBJECTIVES
from gansmith.training.machine import find_device
from gansmith.training.penalties import (
    Penalties,
    adapt_penalty_factor,
    is_penalised,
    penalty_factor,
    weigh_penalties,
)
from gansmith.training.schedule import ema_decay, ramp
from gansmith.training.step import Batch, Networks, Number, Techniques, train_step, update_ema


class Batches:
    """The batches of a run, by images seen.

    Args:
        device: where steps are taken; the config's where None.

    Attributes:
        graphs: what repeats steps on an NVIDIA GPU; None elsewhere, and for runs whose steps cannot be repeated.
    """

    def __init__(self, config: Config, data: TrainingData, device: torch.device | None = None) -> None:
        self.config, self.data, self.device = config, data, device or find_device(config.device)
        resident = data.on(self.device)
        self.pixels, self.y = (data.shown.pixels, data.y) if resident is None else resident
        self.is_resident = resident is not None
        self.orders: dict[int, Tensor] = {}
        is_own = is_of_program(config.network)  # and may draw
        is_own |= OBJECTIVES.get(config.objective) is not BUILT_IN_OBJECTIVES.get(config.objective)
        # What a program's own network or loss does in Python would happen once, as the graph is captured.
        can_repeat = self.device.type == "cuda" and is_repeatable(config) and not is_own
        self.graphs = Graphs(self.device) if can_repeat else None
        self.is_random = is_own or config.d_dropout > 0 or config.g_dropout > 0 or config.style_mixing > 0

    def at(self, images_seen: int, progress: float = 0.0) -> Batch:
        """Return the batch that follows after so many images."""
        config = self.config
        rows = own_rows(self._rows(images_seen))
        real = to_float(to_device(self.pixels.index_select(0, rows), self.device))  # a tenth of what indexing takes
        y = to_device(self.y.index_select(0, rows), self.device)
        draw = rng(config.seed, images_seen, "latent")
        z = self._latents(draw)
        skip_g = (images_seen // config.batch_size + 1) % config.d_steps > 0
        turns = () if skip_g else range(0 if config.fresh_fakes else 1, config.g_steps)
        extra_z = tuple(self._latents(rng(config.seed, images_seen, "latent", turn)) for turn in turns)
        return Batch(real, y, z, y, draw, progress, skip_g, extra_z, config.fresh_fakes)

    def _latents(self, draw: torch.Generator) -> Tensor:
        normal = torch.randn(self.config.batch_size, self.config.latent_dim, generator=draw)
        return to_device(shape_latents(own_rows(normal), self.config.latent_distribution), self.device)

    def _rows(self, images_seen: int) -> Tensor:
        """Return the next rows of this epoch's permutation, and of the next ones where a batch crosses an end."""
        n, rows, position = len(self.data.y), [], images_seen
        while position < images_seen + self.config.batch_size:
            epoch, start = divmod(position, n)
            taken = self._order(epoch)[start : start + images_seen + self.config.batch_size - position]
            rows.append(taken)
            position += len(taken)
        return rows[0] if len(rows) == 1 else torch.cat(rows)

    def _order(self, epoch: int) -> Tensor:
        if epoch not in self.orders:
            order = torch.randperm(len(self.data.y), generator=rng(self.config.seed, epoch, "order"))
            self.orders = {epoch: to_device(order, self.device) if self.is_resident else order}
        return self.orders[epoch]

    def randomness_at(self, images_seen: int) -> contextlib.AbstractContextManager[None]:
        """Seed torch's global generator, which dropout and style mixing draw from, for this step."""
        return seeded(rng(self.config.seed, images_seen, "dropout")) if self.is_random else contextlib.nullcontext()


def take_step(
    networks: Networks, techniques: Techniques, batches: Batches, images_seen: int, progress: float
) -> dict[str, Number]:
    """Train G, D and the moving average on the batch that follows after `images_seen`; returns what to log.

    Where the batches have graphs and losses need not be read, steps of the same key are repeated.
    """
    config, graphs = batches.config, batches.graphs
    for module in networks.growing:
        grow(module, progress)
    factor, decay = penalty_factor(config, progress), _decay_of_average(config, images_seen, progress)
    penalised = is_penalised(config, images_seen)
    with sharing(config.batch_size), batches.randomness_at(images_seen):
        batch = batches.at(images_seen, progress)
        if networks.growing:
            batch = replace(batch, real=fade_detail(batch.real, networks.growing[0]))
        if graphs is None or techniques.reads:
            return _whole_step(networks, techniques, config, penalised, factor, decay, batch)
        factor_and_decay = graphs.device_scalar("penalty factor", factor), graphs.device_scalar("EMA decay", decay)
        step = partial(_whole_step, networks, techniques, config, penalised, *factor_and_decay)

        def parameters() -> list[nn.Parameter]:
            return [*networks.G.parameters(), *networks.D.parameters()]

        return graphs.take(_graph_key(networks, config, batch, penalised), batch, step, parameters)


def _whole_step(
    networks: Networks,
    techniques: Techniques,
    config: Config,
    penalised: bool,
    factor: Number,
    decay: Number,
    batch: Batch,
) -> dict[str, Number]:
    penalties = weigh_penalties(config, networks.buffers, factor) if penalised else Penalties()
    numbers = train_step(networks, batch, techniques, penalties)
    if networks.growing:
        restart_idle(networks.g_optimizer)
        restart_idle(networks.d_optimizer)
    if config.ema and not batch.skip_g:
        update_ema(networks.G_ema, networks.G, decay)
    return numbers | adapt_penalty_factor(config, networks.buffers, numbers["d_loss"])


def _decay_of_average(config: Config, images_seen: int, progress: float) -> float:
    counted = float(images_seen + config.batch_size)
    if config.ema_growth == "cosine":
        counted = (config.planned_images or config.schedule_length) * ramp(progress, 0.0, 1.0, config.burn_in)
    return ema_decay(counted, config.batch_size * config.d_steps, config.ema)  # of all images since G's last step


def _graph_key(networks: Networks, config: Config, batch: Batch, penalised: bool) -> Hashable:
    """Return everything that decides what this step does, and each number that it does not read from a tensor."""
    betas = [
        group.get("betas")
        for optimizer in (networks.g_optimizer, networks.d_optimizer)
        for group in optimizer.param_groups
    ]
    noise = batch.progress if config.instance_noise and batch.progress < config.instance_noise_until else None
    growths = tuple(module.growth for module in networks.growing)
    return (batch.skip_g, len(batch.extra_z), penalised, tuple(betas), noise, growths)
