"""Batch number after batch number of a run, each a function of the images seen before it."""

import contextlib

import torch
from torch import Tensor

from gansmith.config import Config
from gansmith.data.images import to_float
from gansmith.networks.progressive import grow
from gansmith.processes import own_rows, sharing
from gansmith.randomness import rng, seeded
from gansmith.sampling import shape_latents
from gansmith.training.inputs import TrainingData
from gansmith.training.penalties import adapt_penalty_factor, penalties_at
from gansmith.training.schedule import ema_decay, ramp
from gansmith.training.step import Batch, Networks, Techniques, train_step, update_ema


class Batches:
    """The batches of a run, by images seen."""

    def __init__(self, config: Config, data: TrainingData) -> None:
        self.config, self.data = config, data
        self.orders: dict[int, Tensor] = {}
        self.is_random = config.d_dropout > 0 or config.g_dropout > 0 or config.style_mixing > 0

    def at(self, images_seen: int, progress: float = 0.0) -> Batch:
        """Return the batch that follows after so many images."""
        config = self.config
        rows = own_rows(self._rows(images_seen))
        real = to_float(self.data.train.pixels.index_select(0, rows))  # a tenth of what indexing takes
        y = self.data.y.index_select(0, rows)
        draw = rng(config.seed, images_seen, "latent")
        z = self._latents(draw)
        skip_g = (images_seen // config.batch_size + 1) % config.d_steps > 0
        turns = () if skip_g else range(0 if config.fresh_fakes else 1, config.g_steps)
        extra_z = tuple(self._latents(rng(config.seed, images_seen, "latent", turn)) for turn in turns)
        return Batch(real, y, z, y, draw, progress, skip_g, extra_z, config.fresh_fakes)

    def _latents(self, draw: torch.Generator) -> Tensor:
        normal = torch.randn(self.config.batch_size, self.config.latent_dim, generator=draw)
        return shape_latents(own_rows(normal), self.config.latent_distribution)

    def _rows(self, images_seen: int) -> Tensor:
        """Return the next rows of this epoch's permutation, and of the next ones where a batch crosses an end."""
        n, rows, position = len(self.data.train), [], images_seen
        while position < images_seen + self.config.batch_size:
            epoch, start = divmod(position, n)
            taken = self._order(epoch)[start : start + images_seen + self.config.batch_size - position]
            rows.append(taken)
            position += len(taken)
        return rows[0] if len(rows) == 1 else torch.cat(rows)

    def _order(self, epoch: int) -> Tensor:
        if epoch not in self.orders:
            order = torch.randperm(len(self.data.train), generator=rng(self.config.seed, epoch, "order"))
            self.orders = {epoch: order}
        return self.orders[epoch]

    def randomness_at(self, images_seen: int) -> contextlib.AbstractContextManager[None]:
        """Seed torch's global generator, which dropout and style mixing draw from, for this step."""
        return seeded(rng(self.config.seed, images_seen, "dropout")) if self.is_random else contextlib.nullcontext()


def take_step(
    networks: Networks, techniques: Techniques, batches: Batches, images_seen: int, progress: float
) -> dict[str, float]:
    """Train G, D and the moving average on the batch that follows after `images_seen`; returns what to log."""
    config = batches.config
    for module in networks.growing:
        grow(module, progress)
    with sharing(config.batch_size), batches.randomness_at(images_seen):
        batch = batches.at(images_seen, progress)
        penalties = penalties_at(config, images_seen, progress, networks.buffers)
        numbers = train_step(networks, batch, techniques, penalties)
    if config.ema:
        counted = float(images_seen + config.batch_size)
        if config.ema_growth == "cosine":
            counted = (config.planned_images or config.schedule_length) * ramp(progress, 0.0, 1.0, config.burn_in)
        update_ema(networks.G_ema, networks.G, ema_decay(counted, config.batch_size, config.ema))
    return numbers | adapt_penalty_factor(config, networks.buffers, numbers["d_loss"])
