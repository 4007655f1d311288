"""Compare the images per second of each recipe under Gansmith with two plain loops of the same recipe, in one run.

    python scripts/throughput.py [--seconds 4] [--rounds 5] [RECIPE ...]

*stock* reads images one by one through Pillow in a DataLoader and applies what torchvision's MNIST, ToTensor and
Normalize do, as tutorials have it; *bare* keeps them in one tensor. Both run eager float32 in the textbook order: D on
real and on generated images, then G when it is its turn. The three alternate, and each factor is the median over the
rounds, since other processes may take time from one of them. The share of the peak counts only the multiplications
that a step cannot avoid, against the rate of a large float32 matrix product.
"""

import argparse
import itertools
import statistics
import time
from collections.abc import Callable

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits as cross_entropy
from torch.nn.functional import mse_loss

from gansmith.conditioning import conditioned_spec
from gansmith.config import Config, resolve
from gansmith.data.images import to_float
from gansmith.networks import NETWORKS
from gansmith.networks.layers import Dropout
from gansmith.training.batches import Batches, take_step
from gansmith.training.inputs import TrainingData, load_training_data
from gansmith.training.state import start_networks
from gansmith.training.techniques import build_techniques

Stepper = Callable[[], int]
NextReal = Callable[[], tuple[Tensor, Tensor]]
# The recipes whose plain loop is written here: the default, and those of tutorials, courses and examples.
COMPARED = (
    "default", "mlp-small", "mlp-keras", "cgan-keras", "dcgan-keras", "vanilla-cs231n", "lsgan-cs231n", "dcgan-cs231n",
    "dcgan-sgd",
)  # fmt: skip


def ours(config: Config, data: TrainingData) -> Stepper:
    """Return a step as `gansmith train` takes it, with the moving average and the seeds of dropout."""
    networks = start_networks(config, data.spec, data.conditioning.codes)
    techniques = build_techniques(config, networks.D)
    batches = Batches(config, data)
    seen = 0

    def step() -> int:
        nonlocal seen
        take_step(networks, techniques, batches, seen, 0.5)
        seen += config.batch_size
        return config.batch_size

    return step


class PlainLoop:
    """The textbook loop: D on real, D on fake, one D update, then G through D; nothing fused, nothing shared."""

    def __init__(self, config: Config, data: TrainingData, next_real: NextReal) -> None:
        self.config, self.next_real, self.steps = config, next_real, 0
        self.G, self.D = NETWORKS[config.network](conditioned_spec(data.spec, config), config)
        for network in (self.G, self.D):
            _use_torch_dropout(network, config.d_dropout)
        self.g_optimizer = _optimizer(config.g_optimizer, self.G, config.g_lr, config)
        self.d_optimizer = _optimizer(config.d_optimizer, self.D, config.d_lr, config)
        self.average = [parameter.detach().clone() for parameter in self.G.parameters()]
        losses = {"non-saturating": cross_entropy, "least-squares": lambda x, y: 0.5 * mse_loss(x, y)}
        self.criterion = losses[config.objective]
        real_target, fake_target = 1 - config.label_smoothing, config.fake_label_smoothing
        self.real_range = (real_target, 1.0 if config.random_labels else real_target)
        self.fake_range = (0.0 if config.random_labels else fake_target, fake_target)
        if config.label_flipping == 1:
            self.real_range, self.fake_range = self.fake_range, self.real_range
        self.g_range = self.real_range if config.g_targets == "smoothed" else (1.0, 1.0)

    def step(self) -> int:
        """Train on one batch; returns its size."""
        config = self.config
        real, y = self.next_real()
        n = len(real)
        g_turn = (self.steps + 1) % config.d_steps == 0
        with torch.set_grad_enabled(g_turn and not config.fresh_fakes):
            fake = self.G(torch.randn(n, config.latent_dim), y)
        self._step_d(real, fake.detach(), y)
        if g_turn:
            if config.fresh_fakes:
                fake = self.G(torch.randn(n, config.latent_dim), y)
            self._step_g(fake, y)
        self.steps += 1
        return n

    def _step_d(self, real: Tensor, fake: Tensor, y: Tensor) -> None:
        config, n = self.config, len(real)
        penalised = bool(config.r1_gamma or config.r2_gamma) and self.steps % config.penalty_every == 0
        real.requires_grad_(penalised)
        fake.requires_grad_(penalised)
        real_logits, fake_logits = self.D(real, y), self.D(fake, y)
        loss = self.criterion(real_logits, _targets(*self.real_range, n))
        loss = loss + self.criterion(fake_logits, _targets(*self.fake_range, n))
        if penalised:
            for logits, images, gamma in ((real_logits, real, config.r1_gamma), (fake_logits, fake, config.r2_gamma)):
                (gradient,) = torch.autograd.grad(logits.sum(), images, create_graph=True)
                loss = loss + config.penalty_every * gamma / 2 * gradient.square().sum((1, 2, 3)).mean()
        self.d_optimizer.zero_grad()
        loss.backward()
        self.d_optimizer.step()
        _ = loss.item()

    def _step_g(self, fake: Tensor, y: Tensor) -> None:
        loss = self.criterion(self.D(fake, y), _targets(*self.g_range, len(fake)))
        self.g_optimizer.zero_grad()
        loss.backward()
        self.g_optimizer.step()
        _ = loss.item()
        if self.config.ema:
            with torch.no_grad():
                for kept, parameter in zip(self.average, self.G.parameters(), strict=True):
                    kept.lerp_(parameter, 0.01)


def _targets(low: float, high: float, n: int) -> Tensor:
    return low + (high - low) * torch.rand(n)


def _use_torch_dropout(network: nn.Module, probability: float) -> None:
    """Replace our seeded dropout by torch's own, as a plain loop would have."""
    for layer in network.modules():
        for name, child in layer.named_children():
            if isinstance(child, Dropout):
                setattr(layer, name, nn.Dropout(probability))


def _optimizer(name: str, network: nn.Module, rate: float, config: Config) -> torch.optim.Optimizer:
    if name == "sgd":
        return torch.optim.SGD(network.parameters(), rate)
    return torch.optim.Adam(network.parameters(), rate, betas=(config.beta1, config.beta2))


def bare(config: Config, data: TrainingData) -> Stepper:
    """Return a step of the plain loop on images kept in one tensor."""

    def next_real() -> tuple[Tensor, Tensor]:
        rows = torch.randint(len(data.train), (config.batch_size,))
        return to_float(data.train.pixels[rows]), data.y[rows]

    return PlainLoop(config, data, next_real).step


class OneByOne(torch.utils.data.Dataset):  # type: ignore[type-arg]
    """The training images, each through Pillow, as torchvision's MNIST with ToTensor and Normalize reads them."""

    def __init__(self, data: TrainingData) -> None:
        self.data = data

    def __len__(self) -> int:
        return len(self.data.train)

    def __getitem__(self, row: int) -> tuple[Tensor, int]:
        image = Image.fromarray(self.data.train.pixels[row, 0].numpy())
        return normalise(to_tensor(image), [0.5], [0.5]), int(self.data.y[row])


def to_tensor(image: Image.Image) -> Tensor:
    pixels = torch.from_numpy(np.array(image, np.uint8, copy=True)).view(*image.size[::-1], 1)
    return pixels.permute(2, 0, 1).contiguous().to(torch.float32).div(255)


def normalise(pixels: Tensor, means: list[float], deviations: list[float]) -> Tensor:
    mean, deviation = (torch.as_tensor(given, dtype=pixels.dtype).view(-1, 1, 1) for given in (means, deviations))
    if (deviation == 0).any():
        raise ValueError(f"deviations are {deviations}; none may be zero")
    return pixels.clone().sub_(mean).div_(deviation)


def stock(config: Config, data: TrainingData) -> Stepper:
    """Return a step of the plain loop on images from a DataLoader."""
    loader = torch.utils.data.DataLoader(OneByOne(data), batch_size=config.batch_size, shuffle=True, drop_last=True)
    batches = itertools.chain.from_iterable(itertools.repeat(loader))
    return PlainLoop(config, data, lambda: next(batches)).step


def rate(step: Stepper, seconds: float) -> float:
    """Return the images per second of a step, taken for so long."""
    started_at, images = time.perf_counter(), 0
    while time.perf_counter() - started_at < seconds:
        images += step()
    return images / (time.perf_counter() - started_at)


def multiplications(network: nn.Module, *inputs: Tensor) -> int:
    """Return the multiply-adds of one image's forward pass through convolutions and linear layers."""
    total = 0

    def count(layer: nn.Module, given: tuple[Tensor, ...], made: Tensor) -> None:
        nonlocal total
        places = given[0][0, 0].numel() if isinstance(layer, nn.ConvTranspose2d) else made[0, 0].numel()
        total += layer.weight.numel() * (places if made.dim() == 4 else 1)

    kinds = (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)
    handles = [m.register_forward_hook(count) for m in network.modules() if isinstance(m, kinds)]
    with torch.no_grad():
        network.eval()(*inputs)
    for handle in handles:
        handle.remove()
    return total


def peak_gflops() -> float:
    """Return the rate of a large float32 matrix product on the threads in use."""
    a = torch.randn(1536, 1536)
    best = 0.0
    for _ in range(6):
        started_at = time.perf_counter()
        a @ a
        best = max(best, 2 * 1536**3 / (time.perf_counter() - started_at) / 1e9)
    return best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("recipes", nargs="*", default=COMPARED)
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    for name in arguments.recipes:
        if name not in COMPARED:
            parser.error(f"there is no plain loop of {name!r} here; choose from {', '.join(COMPARED)}")
    peak = peak_gflops()
    print("| recipe | Gansmith, images/s | x stock | x bare | share of matrix peak |")
    print("|---|---|---|---|---|")
    for name in arguments.recipes:
        config, data = load_training_data(resolve(name))
        G, D = NETWORKS[config.network](conditioned_spec(data.spec, config), config)
        y = data.y[:1]
        g_work = multiplications(G, torch.zeros(1, config.latent_dim), y)
        d_work = multiplications(D, torch.zeros(1, *data.train.pixels.shape[1:]), y)
        steppers = [make(config, data) for make in (ours, stock, bare)]
        for stepper in steppers:
            rate(stepper, 0.5)
        rounds = [[rate(stepper, arguments.seconds) for stepper in steppers] for _ in range(arguments.rounds)]
        mine = statistics.median(row[0] for row in rounds)
        to_stock, to_bare = (statistics.median(row[0] / row[k] for row in rounds) for k in (1, 2))
        # Forward and both backward halves: D three times its forward work, on real and on fake; G the same in its turn,
        # and forward only where it skips its step, or for D alone.
        share = 2 * ((1 + config.fresh_fakes + 2 / config.d_steps) * g_work + 6 * d_work) * mine / 1e9 / peak
        print(f"| {name} | {mine:,.0f} | {to_stock:.2f} | {to_bare:.2f} | {share:.0%} |", flush=True)
    print(f"\nmatrix peak {peak:,.0f} GFLOP/s in float32 on {torch.get_num_threads()} threads")


if __name__ == "__main__":
    main()
