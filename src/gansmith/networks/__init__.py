"""Architectures: a generator and a discriminator each, both in one file.

A row of `NETWORKS` builds `(G, D)` for images of a given spec. `spec.num_classes` is the number of class ids y that
both are conditioned on, labels or clusters alike; with 0 they are unconditional and ignore y. A program may add rows.

>>> from gansmith.data import ImageSpec
>>> G, D = gs.NETWORKS["mlp"](ImageSpec(size=28, channels=1, num_classes=0), gs.Config(latent_dim=8))
>>> G(torch.zeros(2, 8), torch.zeros(2, dtype=torch.int64)).shape
torch.Size([2, 1, 28, 28])
"""

from collections.abc import Callable
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn

from gansmith.conditioning import conditioned_spec
from gansmith.config import Config, choose
from gansmith.data.images import ImageSpec
from gansmith.errors import ConfigError
from gansmith.networks.acgan import acgan
from gansmith.networks.autoencoder import autoencoder
from gansmith.networks.compact import compact
from gansmith.networks.dcgan import dcgan, dcgan_keras, dcgan_pooled
from gansmith.networks.layers import initialise, normalise_spectrally, normalise_whole_batch
from gansmith.networks.mlp import cgan_keras, mlp, mlp_deep, mlp_keras
from gansmith.networks.planes import planes
from gansmith.networks.progressive import progressive
from gansmith.networks.r3gan import r3gan
from gansmith.networks.sngan import sngan
from gansmith.networks.stylegan_lite import stylegan_lite
from gansmith.networks.wgan_gp import wgan_gp
from gansmith.processes import count
from gansmith.randomness import rng, seeded

NETWORKS: dict[str, Callable[[ImageSpec, Config], tuple[nn.Module, nn.Module]]] = {
    "compact": compact,
    "planes": planes,
    "mlp": mlp,
    "mlp-deep": mlp_deep,
    "mlp-keras": mlp_keras,
    "cgan-keras": cgan_keras,
    "dcgan": dcgan,
    "dcgan-keras": dcgan_keras,
    "dcgan-pooled": dcgan_pooled,
    "autoencoder": autoencoder,
    "wgan-gp": wgan_gp,
    "sngan": sngan,
    "acgan": acgan,
    "progressive": progressive,
    "stylegan-lite": stylegan_lite,
    "r3gan": r3gan,
}
BUILT_IN_NETWORKS = dict(NETWORKS)  # a program may add its own rows


def is_of_program(network: str) -> bool:
    """Return whether a row of the table is one that a program added or replaced."""
    return NETWORKS.get(network) is not BUILT_IN_NETWORKS.get(network)


def build_networks(config: Config, spec: ImageSpec, codes: Tensor | None = None) -> tuple[nn.Module, nn.Module]:
    """Return the generator and the discriminator with their initial weights, which depend on the seed alone.

    Args:
        codes: (K, d) initial values for the first d columns of every embedding of class ids, the others being zero;
            embeddings that are multiplied with latents or images keep their random ones; None keeps the random ones.
    """
    with seeded(rng(config.seed, "weights")):
        G, D = _build_pair(config, conditioned_spec(spec, config))
        for network in (G, D):
            initialise(network, config.weight_init)
    G, D = (network.to(memory_format=torch.channels_last) for network in (G, D))
    for network, how in ((G, config.g_conditioning), (D, config.d_conditioning)):
        for layer in network.modules():
            if isinstance(layer, nn.modules.batchnorm._BatchNorm):
                layer.track_running_stats = False  # recomputed before sampling: see training.calibration
                if count() > 1:
                    layer.forward = MethodType(normalise_whole_batch, layer)  # type: ignore[method-assign]
            # Multiplied with zeros, what lies beyond the codes would vanish.
            if isinstance(layer, nn.Embedding) and codes is not None and how != "multiplied":
                used = min(codes.shape[1], layer.embedding_dim)
                with torch.no_grad():
                    layer.weight.zero_()[:, :used] = codes[:, :used]
    if config.spectral_norm:
        with seeded(rng(config.seed, "spectral norm")):
            normalise_spectrally(D)
    return G, D


def _build_pair(config: Config, spec: ImageSpec) -> tuple[Any, Any]:
    """Return what a row of the table builds; ConfigError where that is no pair of modules with all their weights."""
    build = choose(NETWORKS, config.network, "network")
    pair = build(spec, config) if callable(build) else build
    if not (isinstance(pair, tuple) and len(pair) == 2 and all(isinstance(part, nn.Module) for part in pair)):
        raise ConfigError(
            f"NETWORKS[{config.network!r}] gives {pair!r:.60}; it must be a function of (spec, config) that returns "
            "the modules G and D"
        )
    for part in pair:
        if any(isinstance(parameter, nn.parameter.UninitializedParameter) for parameter in part.parameters()):
            raise ConfigError(
                f"network {config.network!r} has lazy layers, whose shapes are not known before they run; give sizes"
            )
    G, D = pair
    return G, D
