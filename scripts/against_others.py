"""Train the networks of others beside `default`, each for the same time on the same data, and evaluate all alike.

    pip install --no-deps lightweight-gan einops kornia kornia-rs
    python scripts/against_others.py cifar-10-images.tar.xz --minutes 10 --threads 2 --out compared

Others are trained as their authors train them, in plain float32 PyTorch on images that are in memory already:

- dcgan: networks, losses and Adam of PyTorch's DCGAN tutorial (arXiv:1511.06434), with a layer less for 32 pixels
- lightweight-gan: networks, losses, penalty, augmentation and Adam of that package (after arXiv:2101.04775)
- r3gan: Gansmith's own recipe of that name, the small pair of arXiv:2501.05441

Prints a Markdown row for each as it is evaluated by `gansmith evaluate`, and keeps runs and samples.
"""

import argparse
import itertools
import sys
import time
import types
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, relu

import gansmith as gs
from gansmith.data.images import to_float, to_uint8
from gansmith.evaluation import load_real

SAMPLES, AT_ONCE = 2_000, 100  # 10,000 of the largest of them take longer to draw than it trains
RECIPES = ("default", "r3gan")  # Gansmith's own, by name


@dataclass
class Pair:
    """A pair of others' networks in training.

    Attributes:
        batch_size: real images of a step.
        step: trains D and G on real images (N, C, H, W) in [-1, 1] once.
        draw: returns so many generated images (N, C, H, W) in [-1, 1].
    """

    batch_size: int
    step: Callable[[Tensor], None]
    draw: Callable[[int], Tensor]


def dcgan(channels: int) -> Pair:
    """Return the pair of PyTorch's tutorial for images of 32 pixels: 64 filters, latents of 100, batches of 128."""
    width, latent_dim, batch_size = 64, 100, 128

    def generator_layers() -> Iterator[nn.Module]:
        widths = (latent_dim, 4 * width, 2 * width, width)
        for index, (inputs, outputs) in enumerate(itertools.pairwise(widths)):
            stride, padding = (1, 0) if index == 0 else (2, 1)
            yield nn.ConvTranspose2d(inputs, outputs, 4, stride, padding, bias=False)
            yield nn.BatchNorm2d(outputs)
            yield nn.ReLU(inplace=True)
        yield nn.ConvTranspose2d(width, channels, 4, 2, 1, bias=False)
        yield nn.Tanh()

    def discriminator_layers() -> Iterator[nn.Module]:
        for index, (inputs, outputs) in enumerate(itertools.pairwise((channels, width, 2 * width, 4 * width))):
            yield nn.Conv2d(inputs, outputs, 4, 2, 1, bias=False)
            if index > 0:
                yield nn.BatchNorm2d(outputs)
            yield nn.LeakyReLU(0.2, inplace=True)
        yield nn.Conv2d(4 * width, 1, 4, 1, 0, bias=False)
        yield nn.Flatten(0)

    def initialise(module: nn.Module) -> None:
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.normal_(module.weight, 0.0, 0.02)
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.weight, 1.0, 0.02)

    G, D = (nn.Sequential(*layers).apply(initialise) for layers in (generator_layers(), discriminator_layers()))
    g_optimizer, d_optimizer = (torch.optim.Adam(net.parameters(), 2e-4, (0.5, 0.999)) for net in (G, D))
    ones, zeros = torch.ones(batch_size), torch.zeros(batch_size)

    def step(real: Tensor) -> None:
        fake = G(torch.randn(batch_size, latent_dim, 1, 1))
        d_optimizer.zero_grad()
        binary_cross_entropy_with_logits(D(real), ones).backward()
        binary_cross_entropy_with_logits(D(fake.detach()), zeros).backward()
        d_optimizer.step()
        g_optimizer.zero_grad()
        binary_cross_entropy_with_logits(D(fake), ones).backward()
        g_optimizer.step()

    def draw(count: int) -> Tensor:
        G.eval()
        return G(torch.randn(count, latent_dim, 1, 1))

    return Pair(batch_size, step, draw)


def lightweight_gan(channels: int) -> Pair:
    """Return the package's pair as its command line builds it for 32 pixels, in batches of 40.

    Images are in [0, 1] there. Its average of G's weights begins after 20,000 steps, more than this takes, so samples
    are of G itself, with the normalisation statistics that it kept.
    """
    for name in ("torchvision", "adabelief_pytorch"):  # which its networks do not need
        sys.modules.setdefault(name, types.ModuleType(name))
    sys.modules["torchvision"].transforms = types.ModuleType("transforms")  # type: ignore[attr-defined]
    sys.modules["adabelief_pytorch"].AdaBelief = None  # type: ignore[attr-defined]
    with mock.patch("torch.cuda.is_available", return_value=True):  # it refuses to be imported without a GPU
        from lightweight_gan import lightweight_gan as package

    package.Blur = nn.Identity  # antialias is off there unless asked for
    latent_dim, batch_size, size = 256, 40, 32
    G = package.Generator(image_size=size, latent_dim=latent_dim, greyscale=channels == 1)
    D = package.Discriminator(image_size=size, greyscale=channels == 1, disc_output_size=1)
    for module in itertools.chain(G.modules(), D.modules()):
        if type(module) in (nn.Conv2d, nn.Linear):
            nn.init.kaiming_normal_(module.weight, a=0, mode="fan_in", nonlinearity="leaky_relu")
    augmented = package.AugWrapper(D, size)
    g_optimizer, d_optimizer = (torch.optim.Adam(net.parameters(), 2e-4, (0.5, 0.9)) for net in (G, D))
    augmentation = {"prob": 0.15, "types": ["translation", "cutout"]}  # what it chooses for 50,000 images
    steps = itertools.count()

    def d_step(real: Tensor, *, penalised: bool) -> None:
        with torch.no_grad():
            fake = G(torch.randn(batch_size, latent_dim))
        real = real.requires_grad_(penalised)
        fake, (of_fake, small_fake, _) = augmented(
            fake, input_requires_grad=penalised, return_discr_input=True, **augmentation
        )
        of_real, small_real, reconstruction = augmented(real, calc_aux_loss=True, **augmentation)
        loss = reconstruction
        for on_real, on_fake in ((of_real, of_fake), (small_real, small_fake)):
            loss = loss + (relu(1 + on_real) + relu(1 - on_fake)).mean()  # its D is low where images are real
        if penalised:
            total = sum(out.sum() for out in (of_real, small_real, of_fake, small_fake))
            gradients = torch.autograd.grad(total, (real, fake), create_graph=True)
            loss = loss + 10 * torch.cat(gradients).flatten(1).norm(2, dim=1).square().mean()
        d_optimizer.zero_grad()
        loss.backward()
        d_optimizer.step()

    def step(real: Tensor) -> None:
        d_step((real + 1) / 2, penalised=next(steps) % 4 == 0)
        of_fake, small_fake, _ = augmented(G(torch.randn(batch_size, latent_dim)), **augmentation)
        g_optimizer.zero_grad()
        (of_fake.mean() + small_fake.mean()).backward()
        g_optimizer.step()

    def draw(count: int) -> Tensor:
        G.eval()
        return 2 * G(torch.randn(count, latent_dim)) - 1

    return Pair(batch_size, step, draw)


OTHERS = {"dcgan": dcgan, "lightweight-gan": lightweight_gan}


def train_others(name: str, pixels: Tensor, seconds: float, out: Path) -> int:
    """Train a pair of others' networks for so long and write its samples; returns the number of real images seen."""
    pair, seen, started_at = OTHERS[name](pixels.shape[1]), 0, time.perf_counter()
    while time.perf_counter() - started_at < seconds:
        pair.step(to_float(pixels[torch.randint(len(pixels), (pair.batch_size,))]))
        seen += pair.batch_size
    with torch.no_grad():
        images = torch.cat([pair.draw(AT_ONCE) for _ in range(SAMPLES // AT_ONCE)])
    np.savez(out, images=to_uint8(images).permute(0, 2, 3, 1).numpy())
    return seen


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data")
    parser.add_argument("--only", nargs="+", default=[*RECIPES, *OTHERS], choices=[*RECIPES, *OTHERS])
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("runs/against-others"))
    arguments = parser.parse_args()

    arguments.out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(arguments.threads)
    print("| networks | images | FD ratio | gates that fail |\n|---|---|---|---|", flush=True)
    for name in arguments.only:
        torch.manual_seed(arguments.seed)
        if name in RECIPES:
            target = arguments.out / name
            choices = {"seed": arguments.seed, "threads": arguments.threads, "progress": "none"}
            gs.train(name, data=arguments.data, minutes=arguments.minutes, out=target, **choices)
            seen = None
        else:
            target = arguments.out / f"{name}.npz"
            seen = train_others(name, load_real(arguments.data).train.pixels, 60 * arguments.minutes, target)
        verdict = gs.evaluate(target, data=None if seen is None else arguments.data, count=SAMPLES)
        ratios = ", ".join(f"{ratio:.2f} ({by})" for by, ratio in verdict["fd_ratios"].items())
        failed = ", ".join(gate for gate, found in verdict["gates"].items() if found["ok"] is False) or "none"
        print(f"| {name} | {seen or verdict['images_seen']:,} | {ratios} | {failed} |", flush=True)


if __name__ == "__main__":
    main()
