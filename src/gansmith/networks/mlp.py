"""Fully connected networks: those of introductory tutorials, of a university course, and of the Keras examples."""

import math
from collections.abc import Callable
from functools import partial

from torch import nn

from gansmith.config import Config
from gansmith.data.images import ImageSpec
from gansmith.networks.conditional import Discriminator, Generator, image_channels, latent_inputs
from gansmith.networks.layers import activation, dropout, stddev_features


def mlp(spec: ImageSpec, config: Config) -> tuple[nn.Module, nn.Module]:
    """Return G and D with one hidden layer each, of `g_width` and `d_width` units."""
    return _generator(spec, config, [config.g_width], nn.ReLU), _discriminator(spec, config, [config.d_width])


def mlp_deep(spec: ImageSpec, config: Config) -> tuple[nn.Module, nn.Module]:
    """Return G and D with two hidden layers each, of `g_width` and `d_width` units; D has leaky ReLUs of slope 0.01."""
    G = _generator(spec, config, 2 * [config.g_width], nn.ReLU)
    return G, _discriminator(spec, config, 2 * [config.d_width], slope=0.01)


def mlp_keras(spec: ImageSpec, config: Config) -> tuple[nn.Module, nn.Module]:
    """Return G of 1, 2 and 4 times `g_width` units with batch normalisation, and D of `d_width` and half of it."""
    return _keras_generator(spec, config), _discriminator(spec, config, [config.d_width, -(-config.d_width // 2)])


def cgan_keras(spec: ImageSpec, config: Config) -> tuple[nn.Module, nn.Module]:
    """Return the same G, and D of three layers of `d_width` units with dropout after the second and the third."""
    return _keras_generator(spec, config), _discriminator(spec, config, 3 * [config.d_width], undropped=1)


def _keras_generator(spec: ImageSpec, config: Config) -> nn.Module:
    widths = [config.g_width, 2 * config.g_width, 4 * config.g_width]
    return _generator(spec, config, widths, partial(nn.LeakyReLU, 0.2), is_normalised=True)


def _generator(
    spec: ImageSpec, config: Config, widths: list[int], default: Callable[[], nn.Module], *, is_normalised: bool = False
) -> nn.Module:
    shape = (spec.channels, spec.size, spec.size)
    layers: list[nn.Module] = []
    for inputs, outputs in zip([latent_inputs(spec, config), *widths], widths, strict=False):
        layers += [nn.Linear(inputs, outputs), activation(config.g_activation, default())]
        # Keras' epsilon and its momentum of 0.8, which is 0.2 in torch's convention.
        layers += [nn.BatchNorm1d(outputs, eps=1e-3, momentum=0.2)] if is_normalised else []
        layers += dropout(config.g_dropout)
    layers += [nn.Linear(widths[-1], math.prod(shape)), nn.Tanh(), nn.Unflatten(1, shape)]
    return Generator(nn.Sequential(*layers), spec, config)


def _discriminator(
    spec: ImageSpec, config: Config, widths: list[int], *, slope: float = 0.2, undropped: int = 0
) -> nn.Module:
    inputs = image_channels(spec, config) * spec.size**2
    layers: list[nn.Module] = [nn.Flatten()]
    for index, outputs in enumerate(widths):
        layers += [nn.Linear(inputs, outputs), activation(config.d_activation, nn.LeakyReLU(slope))]
        layers += dropout(config.d_dropout) if index >= undropped else []
        inputs = outputs
    head = nn.Linear(inputs + stddev_features(config), 1)
    return Discriminator(nn.Sequential(*layers), head, inputs, spec, config)
