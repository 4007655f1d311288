"""A GAN in the plane: a tiny pair that learns a ring of eight Gaussians, and all that a page shows of it.

The pair takes the same steps as that of any run: a point of the plane is an image with two channels and one pixel, and
its choices are fields of `Config`.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from gansmith.config import Config, choose, resolve
from gansmith.data.images import ImageSpec
from gansmith.errors import ConfigError
from gansmith.lessons.table import RESTARTS, START
from gansmith.randomness import rng
from gansmith.training.losses import OBJECTIVES
from gansmith.training.penalties import penalties_at
from gansmith.training.schedule import ema_decay
from gansmith.training.state import start_networks
from gansmith.training.step import Batch, Networks, NonFiniteError, Techniques, train_step, update_ema
from gansmith.training.techniques import build_techniques

MODES, RADIUS, SPREAD = 8, 0.7, 0.04  # of the ring; the plane is the square from -1 to 1
SPEC = ImageSpec(1, 2, MODES)
SHOWN, ARROWS, FIELD = 400, 60, 40  # points and arrows of a frame, cells in a row of D's field
FRESH = 2048  # points that D has not seen
MOTION_STEPS = 10  # between two looks at how far the points move
MAX_POINTS = 10_000

_FIXED = {
    "network": "mlp-deep",
    "g_width": 64,
    "d_width": 64,
    "latent_dim": 8,
    "batch_size": 128,
    "beta1": 0.5,
    "d_activation": "leaky-relu",
    "device": "cpu",
}


@dataclass
class Toy:
    """The pair, and what changes while it trains.

    Attributes:
        choices: all of START's, as they are now.
        train: (N, 2, 1, 1) and (N,), the training points and their modes; None for new ones in every step.
        source: draws latents and points.
        numbers: what the newest step logged.
        shown: points of G and of its average at the newest look.
        motion: how far G's points, and those of its average, moved in the newest ten steps, on average.
        failure: why it stopped; empty while it trains.
    """

    choices: dict[str, Any]
    config: Config
    networks: Networks
    techniques: Techniques
    train: tuple[Tensor, Tensor] | None
    source: torch.Generator
    steps: int = 0
    numbers: dict[str, float] = field(default_factory=dict)
    shown: tuple[Tensor, Tensor] | None = None
    motion: tuple[float, float] = (0.0, 0.0)
    failure: str = ""


def start(choices: Mapping[str, Any] | None = None, *, seed: int = 0) -> Toy:
    """Return a new pair.

    Args:
        choices: what differs from START.

    Raises ConfigError for other names, and for values that `Config` refuses.
    """
    settled = _settled(START, choices or {})
    config = _config(settled, seed)
    networks = start_networks(config, SPEC)
    source = rng(seed, "toy")
    techniques = build_techniques(config, networks.D)
    return Toy(settled, config, networks, techniques, _training_points(settled["points"], seed), source)


def change(toy: Toy, choices: Mapping[str, Any]) -> Toy:
    """Change choices while the pair trains; returns it, or a new one where a change needs one (see RESTARTS)."""
    settled = _settled(toy.choices, choices)
    if any(settled[name] != toy.choices[name] for name in RESTARTS):
        return start(settled, seed=toy.config.seed)
    config = _config(settled, toy.config.seed)
    toy.techniques = build_techniques(config, toy.networks.D)
    if settled["points"] != toy.choices["points"]:
        toy.train = _training_points(settled["points"], config.seed)
    toy.config, toy.choices = config, settled
    for optimizer, rate in ((toy.networks.g_optimizer, toy.config.g_lr), (toy.networks.d_optimizer, toy.config.d_lr)):
        for group in optimizer.param_groups:
            group["lr"] = rate
    return toy


def _settled(before: Mapping[str, Any], choices: Mapping[str, Any]) -> dict[str, Any]:
    unknown = [name for name in choices if name not in START]
    if unknown:
        raise ConfigError(f"there is no choice {unknown[0]!r} here; choose among {', '.join(START)}")
    settled = {**before, **choices}
    points = settled["points"]
    if type(points) is not int or not (points == 0 or 2 <= points <= MAX_POINTS):
        raise ConfigError(f"points is {points!r}; it must be 0 (new ones in every step) or 2 to {MAX_POINTS:,}")
    if settled["conditioning"] not in ("none", "labels"):
        raise ConfigError(f"conditioning is {settled['conditioning']!r}; choose none or labels")
    if type(settled["d_steps"]) is not int or not 1 <= settled["d_steps"] <= 20:
        raise ConfigError(f"d_steps is {settled['d_steps']!r}; it must be between 1 and 20")
    return settled


def _config(choices: Mapping[str, Any], seed: int) -> Config:
    fields = {name: value for name, value in choices.items() if name != "points"}
    config = resolve("mlp-small", arguments={**_FIXED, **fields, "seed": seed, "images": 10**9})
    choose(OBJECTIVES, config.objective, "objective")
    return config


def centres() -> Tensor:
    """Return (MODES, 2), on a circle around the middle of the plane."""
    angles = torch.arange(MODES) * (2 * math.pi / MODES)
    return RADIUS * torch.stack([angles.cos(), angles.sin()], dim=1)


def draw_points(count: int, source: torch.Generator) -> tuple[Tensor, Tensor]:
    """Return (count, 2, 1, 1) points of the ring, and the mode of each."""
    y = torch.randint(MODES, (count,), generator=source)
    points = centres()[y] + SPREAD * torch.randn(count, 2, generator=source)
    return points[:, :, None, None], y


def _training_points(count: int, seed: int) -> tuple[Tensor, Tensor] | None:
    """Return so many points, every mode as often as the others; None where there are new ones in every step."""
    if not count:
        return None
    source = rng(seed, "toy", "train")
    y = torch.arange(count) % MODES
    points = centres()[y] + SPREAD * torch.randn(count, 2, generator=source)
    return points[:, :, None, None], y


def advance(toy: Toy, steps: int) -> None:
    """Train so many steps of D; stops where a loss is no longer finite, and says so in `failure`."""
    for _ in range(steps):
        if toy.failure:
            return
        if toy.steps % MOTION_STEPS == 0:
            _watch_motion(toy)
        try:
            _step(toy)
        except NonFiniteError as error:
            toy.failure = f"training stopped: {error}"


def _watch_motion(toy: Toy) -> None:
    shown = _shown_points(toy)
    if toy.shown is not None:
        G, average = (float((new - old).norm(dim=1).mean()) for new, old in zip(shown, toy.shown, strict=True))
        toy.motion = G, average
    toy.shown = shown


def _step(toy: Toy) -> None:
    config, batch_size = toy.config, toy.config.batch_size
    if toy.train is None:
        real, y = draw_points(batch_size, toy.source)
    else:
        rows = torch.randint(len(toy.train[1]), (batch_size,), generator=toy.source)
        real, y = toy.train[0][rows], toy.train[1][rows]
    y = y if config.conditioning == "labels" else torch.zeros_like(y)
    z = torch.randn(batch_size, config.latent_dim, generator=toy.source)
    skip_g = (toy.steps + 1) % config.d_steps > 0
    seen = toy.steps * batch_size
    batch = Batch(real, y, z, y, toy.source, skip_g=skip_g)
    penalties = penalties_at(config, seen, 1.0, toy.networks.buffers)
    numbers = train_step(toy.networks, batch, toy.techniques, penalties)
    toy.numbers |= {name: float(value) for name, value in numbers.items()}
    update_ema(toy.networks.G_ema, toy.networks.G, ema_decay(seen + batch_size, batch_size, config.ema))
    toy.steps += 1


def _latents(toy: Toy, count: int = SHOWN) -> tuple[Tensor, Tensor]:
    """Return the latents and class ids that every frame shows."""
    z = torch.randn(count, toy.config.latent_dim, generator=rng(toy.config.seed, "toy", "shown"))
    y = torch.arange(count) % MODES
    return z, y if toy.config.conditioning == "labels" else torch.zeros_like(y)


@torch.no_grad()
def _shown_points(toy: Toy) -> tuple[Tensor, Tensor]:
    """Return (SHOWN, 2) points of G and of its average."""
    z, y = _latents(toy)
    G, average = (network(z, y).flatten(1) for network in (toy.networks.G, toy.networks.G_ema))
    return G, average


def measure(toy: Toy) -> dict[str, float]:
    """Return what lessons check.

    Returns:
        modes, quality: how many of the eight modes have points, and the share of points within three standard
            deviations of one; ema_modes, ema_quality: of G's average; own_mode: share near the mode of their label.
        d_real, d_fake: mean of D's output (the probability of real where the objective has one) for new real points,
            and for generated ones; d_train: for the training points; d_gap: by how much more these are real to it.
        gradient: mean norm of the gradient that a generated point receives from G's loss.
        d_gradient: mean norm of D's gradient at real points.
        motion, ema_motion: of `Toy`; ema_calm: how many times less the average moves; d_loss, g_loss: the newest.
    """
    points, average = _shown_points(toy)
    _, y = _latents(toy)
    fresh = draw_points(FRESH, rng(toy.config.seed, "toy", "fresh"))
    train = fresh if toy.train is None else toy.train
    found = {}
    for name, shown in (("", points), ("ema_", average)):
        distances, nearest = torch.cdist(shown, centres()).min(1)
        near = distances <= 3 * SPREAD
        counts = torch.bincount(nearest[near], minlength=MODES)
        found[f"{name}modes"] = float((counts >= SHOWN / MODES / 10).sum())
        found[f"{name}quality"] = float(near.double().mean())
    found["own_mode"] = float((torch.cdist(points, centres())[range(SHOWN), y] <= 3 * SPREAD).double().mean())
    found["d_real"], found["d_train"] = (float(_output(toy, *part).mean()) for part in (fresh, train))
    found["d_fake"] = float(_output(toy, points[:, :, None, None], y).mean())
    found["gradient"] = float(_gradients(toy, points, y).norm(dim=1).mean())
    found["d_gradient"] = float(_d_gradients(toy, fresh[0][:SHOWN], fresh[1][:SHOWN]).norm(dim=1).mean())
    found["d_gap"] = found["d_train"] - found["d_real"]
    found["motion"], found["ema_motion"] = toy.motion
    found["ema_calm"] = toy.motion[0] / max(toy.motion[1], 1e-9)
    losses = {name: toy.numbers.get(name, math.nan) for name in ("d_loss", "g_loss")}
    return {**found, **losses}


def frame(toy: Toy, *, field_of: int = 0) -> dict[str, Any]:
    """Return what a page draws, as plain numbers: points, D's field, arrows, and what `measure` returns.

    Args:
        field_of: the mode whose field is shown, where D is conditioned on modes.

    Returns:
        points, average, real: [[x, y], ...]; average is empty while there is none.
        field: FIELD rows of FIELD numbers from -100 (fake) to 100 (real), the first row at the bottom, y = -1.
        arrows: [[x, y, dx, dy], ...], the step that G's loss asks of a point, on the scale of the gradient.
    """
    points, average = _shown_points(toy)
    _, y = _latents(toy)
    real = draw_points(SHOWN, rng(toy.config.seed, "toy", "real"))[0] if toy.train is None else toy.train[0][:SHOWN]
    arrows = torch.cat([points, -_gradients(toy, points, y)], dim=1)[:ARROWS]
    measured = {name: value if math.isfinite(value) else None for name, value in measure(toy).items()}
    return {
        "steps": toy.steps,
        "points": _rounded(points),
        "average": _rounded(average) if toy.config.ema else [],
        "real": _rounded(real.flatten(1)),
        "labels": y.tolist(),
        "field": [[round(100 * value) for value in row] for row in _field(toy, field_of).nan_to_num().tolist()],
        "arrows": _rounded(arrows),
        "measured": measured,
        "choices": toy.choices,
        "failure": toy.failure,
    }


def _rounded(rows: Tensor) -> list[list[float]]:
    return [[round(value, 4) for value in row] for row in rows.nan_to_num().tolist()]


@torch.no_grad()
def _field(toy: Toy, field_of: int) -> Tensor:
    """Return (FIELD, FIELD), D's opinion of the middle of each cell from -1 to 1, the first row at the bottom."""
    middles = (torch.arange(FIELD) + 0.5) * (2 / FIELD) - 1
    rows, columns = torch.meshgrid(middles, middles, indexing="ij")
    places = torch.stack([columns, rows], dim=-1).view(-1, 2, 1, 1)
    y = torch.full((len(places),), field_of if toy.config.conditioning == "labels" else 0)
    logits = toy.networks.D(places, y)
    if OBJECTIVES[toy.config.objective].splits_at_zero:
        opinion = torch.tanh(logits / 2)  # twice the probability of real, less one
    else:  # only differences of logits mean something
        fresh, ids = draw_points(SHOWN, rng(toy.config.seed, "toy", "real"))
        points, shown_ids = _shown_points(toy)[0], _latents(toy)[1]
        real = toy.networks.D(fresh, _ids(toy, ids)).mean()
        fake = toy.networks.D(points[:, :, None, None], shown_ids).mean()
        opinion = torch.tanh((2 * logits - real - fake) / ((real - fake).abs() + 0.1))
    return opinion.view(FIELD, FIELD)


@torch.no_grad()
def _output(toy: Toy, points: Tensor, y: Tensor) -> Tensor:
    """Return (N,) what D says of points: the probability of real where the objective has one, else its logit."""
    logits: Tensor = toy.networks.D(points, _ids(toy, y))
    return logits.sigmoid() if OBJECTIVES[toy.config.objective].splits_at_zero else logits


def _ids(toy: Toy, modes: Tensor) -> Tensor:
    """Return the class ids of points of these modes (N,): the modes, or zeros where the pair knows none."""
    return modes if toy.config.conditioning == "labels" else torch.zeros_like(modes)


def _gradients(toy: Toy, points: Tensor, y: Tensor) -> Tensor:
    """Return (N, 2), the gradient that each generated point receives from G's loss on it alone."""
    points = points[:, :, None, None].requires_grad_()
    real, ids = draw_points(len(points), rng(toy.config.seed, "toy", "real"))
    real_logits = toy.networks.D(real, _ids(toy, ids)).detach()
    loss = toy.techniques.g_loss(real_logits, toy.networks.D(points, y), rng(0)) * len(points)
    (gradient,) = torch.autograd.grad(loss, points)
    return gradient.flatten(1)


def _d_gradients(toy: Toy, points: Tensor, y: Tensor) -> Tensor:
    """Return (N, 2), D's gradient at points."""
    y = _ids(toy, y)
    points = points.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(toy.networks.D(points, y).sum(), points)
    return gradient.flatten(1)
