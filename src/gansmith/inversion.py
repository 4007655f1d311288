"""Inversion: latents from which a generator draws a given picture as nearly as it can.

Each picture starts at the nearest of many random samples, whose class ids are kept, and whose latents follow the
gradient of the squared error. Pictures are first brought to the form of the generator's own images.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from gansmith.config import Config
from gansmith.data.images import to_float, to_uint8
from gansmith.data.matching import fit_pictures
from gansmith.errors import ConfigError
from gansmith.files import replacing, require_kind, to_path, write_bytes
from gansmith.isolation import torch_defaults
from gansmith.networks import build_networks
from gansmith.networks.layers import MinibatchStddev
from gansmith.pictures.grids import enlarge, grid, to_png
from gansmith.randomness import rng, seeded
from gansmith.sampling import CHUNK, Model, draw_inputs, generate, on_cpu
from gansmith.signature import ExportedGenerator, as_exported
from gansmith.training.optimizers import Adam
from gansmith.training.step import has_batch_norm
from gansmith.training.transfer import find_source

SAMPLES = 4096  # random ones, of which the nearest are starting points
MAX_NUMBERS = 2**25  # of all samples together; images of 64 x 64 pixels in color get fewer
STARTS, STEPS, RATE = 6, 120, 0.1  # starting points of each picture, steps from each, Adam's learning rate at first
COMPARED = 256  # samples that D's logit of a picture is compared with
COMPANIONS = 15  # images in a batch beside the one that D scores, where it normalises over batches


@dataclass(frozen=True, eq=False)
class Inversion:
    """Pictures projected into latent space; shows itself in a notebook as each picture beside its reconstruction.

    >>> found = gs.invert(run, run.sample(2, seed=5).images)
    >>> len(found), found.images.shape
    (2, (2, 28, 28, 1))
    >>> bool((gs.sample(run, latents=found.latents).images == found.images).all())
    True

    Attributes:
        latents: float32 (N, latent_dim), one longer where ids are drawn from the latents, as `sample(latents=...)` and
            exported files take them.
        labels: int64 (N,), -1 where the generator knows no labels.
        images: uint8 (N, H, W, C), what the generator draws from these.
        pictures: uint8 (N, H, W, C), as they were prepared.
        errors: (N,) root mean square difference of both, in grey levels of 255.
        sample_errors: (N,) that of the nearest random sample, where each search started.
        realness: (N, 2) share of random samples that D finds less real than the picture, and than the reconstruction;
            None without D, which a run alone has.
        class_names: of the labels, by number; empty where numbers are all there is.
        notices: a sentence for each thing that was done to the pictures.
    """

    latents: NDArray[np.float32]
    labels: NDArray[np.int64]
    images: NDArray[np.uint8]
    pictures: NDArray[np.uint8]
    errors: NDArray[np.float64]
    sample_errors: NDArray[np.float64]
    realness: NDArray[np.float64] | None = None
    class_names: tuple[str, ...] = ()
    notices: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.latents)

    def __repr__(self) -> str:
        count = f"{len(self):,} picture{'' if len(self) == 1 else 's'}"
        return f"<Inversion: {count}, median error {np.median(self.errors):.1f} of 255 grey levels>"

    def class_name(self, k: int) -> str:
        """Return the name of picture k's class; its number where it has no name."""
        label = int(self.labels[k])
        return self.class_names[label] if 0 <= label < len(self.class_names) else str(label)

    def save(self, path: Path | str) -> Path:
        """Write a .png with each picture beside its reconstruction, a .npz with all arrays, or latents as a .npy."""
        path = to_path(path)
        require_kind(path, (".png", ".npz", ".npy"))
        kind = path.suffix.lower()
        if kind == ".png":
            write_bytes(path, self._repr_png_())
        elif kind == ".npz":
            names = ("latents", "labels", "images", "pictures", "errors", "sample_errors", "realness")
            arrays: dict[str, Any] = {name: getattr(self, name) for name in names if getattr(self, name) is not None}
            with replacing(path) as partial, partial.open("wb") as file:
                np.savez_compressed(file, **arrays)
        else:
            with replacing(path) as partial, partial.open("wb") as file:
                np.save(file, self.latents)
        return path

    @torch_defaults()
    def _repr_png_(self) -> bytes:
        pairs = torch.from_numpy(np.stack([self.pictures, self.images], axis=1)).flatten(0, 1)
        columns = 2 * max(1, round((len(self) / 2) ** 0.5))
        return to_png(enlarge(grid(pairs.permute(0, 3, 1, 2), columns=columns)))


@torch.inference_mode(False)
@torch.enable_grad()
def invert(
    model: Model, pictures: Any, *, labels: Sequence[int] | None = None, seed: int = 0, checkpoint: Path | None = None
) -> Inversion:
    """Return the latents whose images come nearest to pictures.

    Args:
        pictures: a path, a PIL image, an array (H, W[, C]) or (N, H, W[, C]), or a list of these.
        labels: search among these classes alone.
        seed: of the random samples that the search begins with.
        checkpoint: whose D is asked for its opinion.

    Raises ConfigError for a generator without gradients, DataError for what is no picture.
    """
    model = on_cpu(model)
    exported = as_exported(model)
    if not any(parameter.is_floating_point() for parameter in exported.network.parameters()):
        raise ConfigError("this file can draw images but gives no gradients; give the run, or a generator.safetensors")
    count = min(SAMPLES, max(COMPARED, MAX_NUMBERS // (model.spec.channels * model.spec.size**2)))
    with seeded(rng(seed, "inversion")):  # a generator may draw noise of its own
        z, y = draw_inputs(exported, seed=seed, count=count, labels=labels)
        samples = _draw(exported.network, z, y)
        targets, notices = fit_pictures(pictures, to_uint8(samples[:COMPARED]), resize=model.config.resize)
        wanted = to_float(targets)
        nearest = torch.cdist(wanted.flatten(1), samples.flatten(1)).topk(STARTS, largest=False)
        parts = zip(nearest.indices.split(CHUNK // STARTS), wanted.split(CHUNK // STARTS), strict=True)
        found = [descend(exported.network, z[starts], y[starts], part, exported.config) for starts, part in parts]
        latents, chosen = (torch.cat(columns) for columns in zip(*found, strict=True))
        images = generate(exported, latents, chosen)
        realness = (
            None
            if checkpoint is None
            else _realness(
                model, checkpoint, exported, (z[:COMPARED], y[:COMPARED]), (targets, images), (latents, chosen)
            )
        )
    return Inversion(
        latents=latents.numpy(),
        labels=exported.conditioning.label_of(chosen).long().numpy(),
        images=_as_rows(images),
        pictures=_as_rows(targets),
        errors=_rms(images, targets),
        sample_errors=_rms(to_uint8(samples[nearest.indices[:, 0]]), targets),
        realness=realness,
        class_names=model.class_names,
        notices=notices,
    )


@torch.no_grad()
def _draw(G: nn.Module, z: Tensor, y: Tensor) -> Tensor:
    parts = zip(z.split(CHUNK), y.split(CHUNK), strict=True)
    return torch.cat([G(*part) for part in parts])  # (N, C, H, W)


def _as_rows(images: Tensor) -> NDArray[np.uint8]:
    rows: NDArray[np.uint8] = images.permute(0, 2, 3, 1).contiguous().numpy()
    return rows


def _rms(images: Tensor, others: Tensor) -> NDArray[np.float64]:
    errors: NDArray[np.float64] = (images.double() - others.double()).square().flatten(1).mean(1).sqrt().numpy()
    return errors


def descend(G: nn.Module, z: Tensor, y: Tensor, pictures: Tensor, config: Config) -> tuple[Tensor, Tensor]:
    """Return latents (N, latent_dim) and labels (N,): the best of each picture's starting points after Adam's steps.

    Every starting point keeps its label, and is itself among those compared. The learning rate falls to zero by half a
    cosine.
    Source: Image2StyleGAN, arXiv:1904.03189, section 4, with squared pixel differences alone.

    Args:
        z, y: (N, K, latent_dim) and (N, K), the starting points.
        pictures: (N, C, H, W) in [-1, 1].
    """
    count, starts, dim = z.shape
    wanted, labels = pictures.repeat_interleave(starts, 0), y.flatten()
    point = z.reshape(-1, dim).clone().requires_grad_()
    optimizer = Adam([point], RATE, betas=(0.8, 0.95))
    for step in range(STEPS):
        optimizer.param_groups[0]["lr"] = RATE * 0.5 * (1 + math.cos(math.pi * step / STEPS))
        (point.grad,) = torch.autograd.grad(_squared_errors(G, point, labels, wanted).sum(), point)
        optimizer.step()
        if config.latent_distribution == "uniform":
            point.data.clamp_(-1, 1)
    with torch.no_grad():
        both = torch.cat([z, point.detach().view_as(z)], dim=1)  # (N, 2 K, latent_dim)
        repeated = torch.cat([y, y], dim=1)
        errors = _squared_errors(G, both.flatten(0, 1), repeated.flatten(), pictures.repeat_interleave(2 * starts, 0))
        best = errors.view(count, -1).argmin(1)
    rows = torch.arange(count)
    return both[rows, best], repeated[rows, best]


def _squared_errors(G: nn.Module, z: Tensor, y: Tensor, pictures: Tensor) -> Tensor:
    errors: Tensor = (G(z, y) - pictures).square().flatten(1).sum(1)
    return errors  # (N,)


def _realness(
    model: Model,
    checkpoint: Path,
    exported: Model,
    samples: tuple[Tensor, Tensor],
    pairs: tuple[Tensor, Tensor],
    inputs: tuple[Tensor, Tensor],
) -> NDArray[np.float64] | None:
    """Return (N, 2) shares of random samples whose logit by a checkpoint's D is lower than a picture's."""
    source = find_source(str(checkpoint))
    if source.discriminator is None:
        return None
    _, D = build_networks(model.config, model.spec)
    try:
        D.load_state_dict(source.discriminator)
    except RuntimeError:  # it is of another version, whose G is still read
        return None
    D.eval()
    for layer in D.modules():
        if isinstance(layer, nn.modules.batchnorm._BatchNorm):
            layer.train()  # D keeps no statistics: those of the batch, as in training
    z, y = samples
    real = to_uint8(_draw(exported.network, z, y)), class_ids(exported, z, y)
    groups = [layer.group for layer in D.modules() if isinstance(layer, MinibatchStddev)]
    companions = COMPANIONS if has_batch_norm(D.modules()) else max([1, *groups]) - 1
    beside = (real[0][:companions], real[1][:companions])
    compared = _logits(D, *real, beside)
    logits = [_logits(D, images, class_ids(exported, *inputs), beside) for images in pairs]
    shares = [(compared < each[:, None]).double().mean(1) for each in logits]
    found: NDArray[np.float64] = torch.stack(shares, dim=1).numpy()
    return found


@torch.no_grad()
def _logits(D: nn.Module, images: Tensor, y: Tensor, beside: tuple[Tensor, Tensor]) -> Tensor:
    """Return (N,) logits of uint8 images, each in a batch with the same others, since D may compare within a batch."""
    others, ids = to_float(beside[0]), beside[1]
    each = zip(to_float(images).split(1), y.split(1), strict=True)
    return torch.cat([D(torch.cat([image, others]), torch.cat([label, ids]))[:1] for image, label in each])


def class_ids(exported: Model, z: Tensor, labels: Tensor) -> Tensor:
    """Return the class ids of the networks for latents and labels as exported files take them."""
    network = exported.network
    return network.split_inputs(z, labels)[1] if isinstance(network, ExportedGenerator) else labels
