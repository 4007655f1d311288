"""Ways through latent space: the main directions in it, and truncation."""

import contextlib
import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from gansmith.errors import ConfigError
from gansmith.isolation import torch_defaults
from gansmith.randomness import rng, seeded
from gansmith.sampling import (
    Model,
    draw_inputs,
    draw_latents,
    is_whole,
    on_cpu,
    truncate,
)

SAMPLES = 2048  # latents whose activations are analysed
_LAYERS = (nn.Linear, nn.Conv2d, nn.ConvTranspose2d)


@dataclass(frozen=True, eq=False)
class Directions:
    """The main directions of a generator's latent space, the most important first.

    >>> found = gs.directions(run, 3)
    >>> found.vectors.shape, bool(found.shares[0] >= found.shares[1] >= found.shares[2])
    (torch.Size([3, 100]), True)

    Attributes:
        vectors: float32 (K, latent_dim); one added to a latent moves it by one standard deviation along a direction.
        shares: float64 (K,), share of each in the variance of the first layer's activations.
    """

    vectors: Tensor
    shares: Tensor

    def __len__(self) -> int:
        return len(self.vectors)

    def __repr__(self) -> str:
        shares = ", ".join(f"{share:.0%}" for share in self.shares[:5].tolist())
        more = ", ..." if len(self) > 5 else ""
        return f"<Directions: {len(self)} of {self.vectors.shape[1]}, with {shares}{more} of the variance>"

    @torch_defaults()
    def move(self, latents: Any, steps: Sequence[float]) -> Tensor:
        """Return latents (N, latent_dim) moved by so many standard deviations along the first directions.

        A further number of each, which chooses the cluster where a latent is found or exported, stays.

        Raises ConfigError for latents of another length, and for steps that are no list of finite numbers.
        """
        width = self.vectors.shape[1]
        z, lengths = _numbers("latents", latents), _numbers("steps", steps)
        if z.dim() not in (1, 2) or z.shape[-1] not in (width, width + 1):
            raise ConfigError(f"latents have shape {tuple(z.shape)}; give (N, {width}), as this generator's")
        if lengths.dim() != 1 or len(lengths) > len(self.vectors):
            raise ConfigError(
                f"steps are {steps!r:.60}; give a number for each of {len(self.vectors)} directions at most"
            )
        moves = lengths @ self.vectors[: len(lengths)]
        return z + nn.functional.pad(moves, (0, z.shape[-1] - len(moves)))


def _numbers(name: str, values: Any) -> Tensor:
    """Return finite numbers as a tensor; ConfigError for anything else."""
    try:
        found = torch.as_tensor(values, dtype=torch.float32).detach().cpu()
    except (TypeError, ValueError, RuntimeError):
        raise ConfigError(f"{name} are {values!r:.60}; give numbers") from None
    if not found.isfinite().all():
        raise ConfigError(f"{name} hold numbers that are not finite; give finite ones")
    return found


@torch.no_grad()
def find_directions(model: Model, count: int = 10, *, seed: int = 0, label: int | None = None) -> Directions:
    """Return the principal components of the activations of G's first layer, as directions of its latents.

    All latents are drawn with one class id, so that directions change the style and not the class. A direction is the
    regression of latents on the coordinate along a component; its sign makes its largest number positive.
    Source: GANSpace, arXiv:2004.02546, section 2.1; there the layer is one that the user chooses.

    Args:
        count: how many, at most as many as latents have numbers.
        seed: of the latents.
        label: whose activations; by default the class that the first sample of the seed draws.

    Raises ConfigError for a file that draws images in another program, and for a count out of range.
    """
    model, dim = on_cpu(model), model.config.latent_dim
    if not is_whole(count) or not 1 <= count <= dim:
        raise ConfigError(f"count is {count!r:.60}; it must be between 1 and {dim}, the length of a latent")
    first, y = draw_inputs(model, seed=seed, count=1, labels=None if label is None else [label])
    z = draw_latents(model.config, seed=seed, count=SAMPLES)
    if model.conditioning.in_latents:  # the last number chooses the cluster
        z[:, -1] = first[0, -1]
    activations = _first_activations(model.network, z, y.expand(SAMPLES)).double()
    activations -= activations.mean(0)
    with seeded(rng(seed, "directions")):  # exact where the layer is linear in latents, whose rank is at most dim
        components, spreads, _ = torch.svd_lowrank(activations, q=min(dim, *activations.shape), niter=4)
    centred = z.double() - z.double().mean(0)
    # The coordinates of all samples along component k are components[:, k] * spreads[k]; scaled to a variance of one,
    # their regression on the latents is a mean of products.
    vectors = components[:, :count].T @ centred / (SAMPLES - 1) ** 0.5
    largest = vectors.gather(1, vectors.abs().argmax(1, keepdim=True))
    shares = spreads[:count].square() / activations.square().sum()
    return Directions((vectors * torch.where(largest < 0, -1, 1)).float(), shares)


class _Reached(Exception):
    """Ends a forward pass whose rest nobody needs."""


def _first_activations(G: nn.Module, z: Tensor, y: Tensor) -> Tensor:
    """Return (N, F) what the first linear or convolutional layer G calls puts out; with `planes` that of red."""
    outputs: list[Tensor] = []

    def keep(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        outputs.append(output.flatten(1))
        raise _Reached

    hooks = [layer.register_forward_hook(keep) for layer in G.modules() if isinstance(layer, _LAYERS)]
    if not hooks:
        raise ConfigError("this generator has no layers to look into; give the run, or a generator.safetensors")
    try:
        with contextlib.suppress(_Reached):
            G(z, y)
    finally:
        for hook in hooks:
            hook.remove()
    if not outputs:
        raise ConfigError("this generator calls no layer that can be looked into; give another")
    return outputs[0]


def truncated(model: Model, latents: Tensor, strength: float) -> tuple[Model, Tensor]:
    """Return a generator and latents for images of higher fidelity and less variety.

    A generator with styles moves these towards their mean; any other is given latents nearer to zero.
    Sources: StyleGAN, arXiv:1812.04948, appendix B; BigGAN, arXiv:1809.11096, section 3.1, which resamples instead.

    Args:
        strength: 1 changes nothing, 0 is the mean.
    """
    if not isinstance(strength, int | float) or not 0 <= strength <= 1:
        raise ConfigError(f"truncation is {strength!r:.60}; it must be between 0 and 1, such as 0.7")
    inner = getattr(model.network, "network", model.network)  # as `signature.as_exported` wraps it
    has_styles = hasattr(inner, "truncate")
    if not has_styles and (inner is model.network or model.network.radius is None):
        scaled = latents * strength
        if model.conditioning.in_latents:  # the last number chooses the cluster
            scaled[:, -1] = latents[:, -1]
        return model, scaled
    network: Any = copy.deepcopy(model.network)
    if has_styles:
        truncate(replace(model, network=getattr(network, "network", network)), strength)
    else:  # it projects latents, whatever their length
        network.radius *= strength
    return replace(model, network=network), latents
