"""Images per second of each recipe under Gansmith against two plain loops of the same recipe, in one run.

    python bench/throughput.py [--seconds 4] [--rounds 5] [RECIPE ...]

*stock* reads images one by one through Pillow in a DataLoader and does to each what torchvision's MNIST, ToTensor and
Normalize do, as tutorials have it; *bare* keeps them in one tensor.
Both run eager float32 in the textbook order: D on real and on fake, then G when it is its turn. The three alternate,
and each ratio is the median over the rounds, since these machines are shared. The share of peak counts only the
multiplications a step cannot avoid, against what a large float32 matrix product reaches.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits as cross_entropy
from torch.nn.functional import mse_loss

from gansmith.config import Config, resolve
from gansmith.data.images import to_float
from gansmith.conditioning import conditioned_spec
from gansmith.networks import NETWORKS
from gansmith.networks.layers import Dropout
from gansmith.training.techniques import build_techniques
from gansmith.training.batches import Batches, take_step
from gansmith.training.inputs import TrainingData
from gansmith.training.loop import build_training_networks, prepare

Stepper = Callable[[], int]
# The recipes whose plain loop stands below: the house one, and those of tutorials, courses and examples.
COMPARED = (
    "default", "mlp-small", "mlp-keras", "cgan-keras", "dcgan-keras", "vanilla-cs231n", "lsgan-cs231n", "dcgan-cs231n",
    "dcgan-sgd",
)  # fmt: skip


def ours(config: Config, data: TrainingData) -> Stepper:
    """Steps as `gansmith train` takes them, averaged weights and dropout seeds included."""
    networks = build_training_networks(config, data.spec, data.codes)
    rules = build_techniques(config, networks.D)
    batches = Batches(config, data)
    seen = 0

    def step() -> int:
        nonlocal seen
        take_step(networks, rules, batches, seen, 0.5)
        seen += config.batch_size
        return config.batch_size

    return step


def plain(config: Config, data: TrainingData, next_real: Callable[[], tuple[Tensor, Tensor]]) -> Stepper:
    """The textbook loop: D on real, D on fake, one D update, then G through D; nothing fused, nothing shared."""
    G, D = NETWORKS[config.network](conditioned_spec(data.spec, config), config)
    for network in (G, D):
        for layer in network.modules():
            for name, child in layer.named_children():
                if isinstance(child, Dropout):  # torch's own, as a plain loop would have
                    setattr(layer, name, nn.Dropout(config.d_dropout))
    make = {
        "adam": lambda network, rate: torch.optim.Adam(network.parameters(), rate, betas=(config.beta1, config.beta2)),
        "sgd": lambda network, rate: torch.optim.SGD(network.parameters(), rate),
    }
    g_optimizer = make[config.g_optimizer](G, config.g_lr)
    d_optimizer = make[config.d_optimizer](D, config.d_lr)
    average = [parameter.detach().clone() for parameter in G.parameters()]
    steps = 0

    def targets(low: float, high: float, n: int) -> Tensor:
        return low + (high - low) * torch.rand(n)

    criterion = {"non-saturating": cross_entropy, "least-squares": lambda x, y: 0.5 * mse_loss(x, y)}[config.objective]
    real_range = (config.real_target_low, config.real_target_high)
    fake_range = (config.fake_target_low, config.fake_target_high)
    if config.label_flipping == 1:
        real_range, fake_range = fake_range, real_range
    g_range = real_range if config.g_targets == "soft" else (1.0, 1.0)

    def step() -> int:
        nonlocal steps
        real, ids = next_real()
        n = len(real)
        g_turn = (steps + 1) % config.d_steps == 0
        with torch.set_grad_enabled(g_turn and not config.fresh_fakes):
            fake = G(torch.randn(n, config.latent_dim), ids)
        penalised = (config.r1_gamma or config.r2_gamma) and steps % config.penalty_every == 0
        still = fake.detach().requires_grad_(bool(penalised))
        real.requires_grad_(bool(penalised))
        real_logits, fake_logits = D(real, ids), D(still, ids)
        d_loss = criterion(real_logits, targets(*real_range, n)) + criterion(fake_logits, targets(*fake_range, n))
        if penalised:
            for logits, images, weight in ((real_logits, real, config.r1_gamma), (fake_logits, still, config.r2_gamma)):
                (slope,) = torch.autograd.grad(logits.sum(), images, create_graph=True)
                d_loss = d_loss + config.penalty_every * weight / 2 * slope.square().sum((1, 2, 3)).mean()
        d_optimizer.zero_grad()
        d_loss.backward()
        d_optimizer.step()
        _ = d_loss.item()
        if g_turn:
            if config.fresh_fakes:
                fake = G(torch.randn(n, config.latent_dim), ids)
            g_loss = criterion(D(fake, ids), targets(*g_range, n))
            g_optimizer.zero_grad()
            g_loss.backward()
            g_optimizer.step()
            _ = g_loss.item()
            if config.ema:
                with torch.no_grad():
                    for kept, parameter in zip(average, G.parameters(), strict=True):
                        kept.lerp_(parameter, 0.01)
        steps += 1
        return n

    return step


def bare(config: Config, data: TrainingData) -> Stepper:
    def next_real() -> tuple[Tensor, Tensor]:
        rows = torch.randint(len(data.train), (config.batch_size,))
        return to_float(data.train.pixels[rows]), data.ids[rows]

    return plain(config, data, next_real)


def stock(config: Config, data: TrainingData) -> Stepper:
    class OneByOne(torch.utils.data.Dataset):  # type: ignore[type-arg]
        def __len__(self) -> int:
            return len(data.train)

        def __getitem__(self, row: int) -> tuple[Tensor, int]:
            image = Image.fromarray(data.train.pixels[row, 0].numpy())
            return normalise(to_tensor(image), [0.5], [0.5]), int(data.ids[row])

    def to_tensor(image: Image.Image) -> Tensor:
        pixels = torch.from_numpy(np.array(image, np.uint8, copy=True)).view(*image.size[::-1], 1)
        return pixels.permute(2, 0, 1).contiguous().to(torch.float32).div(255)

    def normalise(pixels: Tensor, means: list[float], deviations: list[float]) -> Tensor:
        mean, deviation = (torch.as_tensor(given, dtype=pixels.dtype).view(-1, 1, 1) for given in (means, deviations))
        if (deviation == 0).any():
            raise ValueError(f"deviations are {deviations}; none may be zero")
        return pixels.clone().sub_(mean).div_(deviation)

    loader = torch.utils.data.DataLoader(OneByOne(), batch_size=config.batch_size, shuffle=True, drop_last=True)
    stream = iter(loader)

    def next_real() -> tuple[Tensor, Tensor]:
        nonlocal stream
        try:
            real, ids = next(stream)
        except StopIteration:
            stream = iter(loader)
            real, ids = next(stream)
        return real, ids

    return plain(config, data, next_real)


def rate(step: Stepper, seconds: float) -> float:
    started_at, images = time.perf_counter(), 0
    while time.perf_counter() - started_at < seconds:
        images += step()
    return images / (time.perf_counter() - started_at)


def multiplications(network: nn.Module, *inputs: Tensor) -> int:
    """Multiply-adds of one image's forward pass through convolutions and linear layers."""
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
    """What a large float32 matrix product reaches on the threads in use."""
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
    peak = None
    print("| recipe | Gansmith, images/s | x stock | x bare | share of matrix peak |")
    print("|---|---|---|---|---|")
    for name in arguments.recipes:
        config, data = prepare(resolve(name))
        peak = peak or peak_gflops()
        G, D = NETWORKS[config.network](conditioned_spec(data.spec, config), config)
        ids = data.ids[:1]
        g_work = multiplications(G, torch.zeros(1, config.latent_dim), ids)
        d_work = multiplications(D, torch.zeros(1, *data.train.pixels.shape[1:]), ids)
        steppers = [make(config, data) for make in (ours, stock, bare)]
        for stepper in steppers:
            rate(stepper, 0.5)
        rounds = [[rate(stepper, arguments.seconds) for stepper in steppers] for _ in range(arguments.rounds)]
        mine = statistics.median(row[0] for row in rounds)
        to_stock, to_bare = (statistics.median(row[0] / row[k] for row in rounds) for k in (1, 2))
        # Forward and both backward halves: D three times its forward work, on real and on fake; G the same in its turn,
        # and forward only while it rests, or for D alone.
        share = 2 * ((1 + config.fresh_fakes + 2 / config.d_steps) * g_work + 6 * d_work) * mine / 1e9 / peak
        print(f"| {name} | {mine:,.0f} | {to_stock:.2f} | {to_bare:.2f} | {share:.0%} |", flush=True)
    print(f"\nmatrix peak {peak:,.0f} GFLOP/s in float32 on {torch.get_num_threads()} threads")


if __name__ == "__main__":
    main()
