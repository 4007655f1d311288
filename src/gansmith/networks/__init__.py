"""Pairs of networks, one architecture per file with both players in it.

A row builds `(G, D)` for images of a given spec. `spec.num_classes` is the number of ids both players are told of
an image, labels or clusters alike; 0 means that the ids are ignored.
"""

from collections.abc import Callable

from torch import nn

from gansmith.config import Config
from gansmith.data import ImageSpec
from gansmith.networks.acgan import acgan
from gansmith.networks.autoencoder import autoencoder
from gansmith.networks.compact import compact
from gansmith.networks.dcgan import dcgan, dcgan_keras, dcgan_pooled
from gansmith.networks.mlp import cgan_keras, mlp, mlp_deep, mlp_keras
from gansmith.networks.planes import planes
from gansmith.networks.progressive import progressive
from gansmith.networks.r3gan import r3gan
from gansmith.networks.sngan import sngan
from gansmith.networks.stylegan_lite import stylegan_lite
from gansmith.networks.wgan_gp import wgan_gp

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
