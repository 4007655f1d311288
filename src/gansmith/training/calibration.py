"""Calibration of a generator before it is sampled: batch-normalisation statistics, and the output's brightness.

Averaged weights never ran on a training batch: no layer keeps running statistics while it trains, and averaging makes
images paler than the data. Both are recomputed from fixed latents, so equal weights get equal results.
"""

import torch
from torch import Tensor, nn

from gansmith.conditioning import Conditioning, spread_evenly
from gansmith.config import Config
from gansmith.errors import ConfigError
from gansmith.networks.layers import Dropout
from gansmith.randomness import rng, seeded, to_device
from gansmith.sampling import shape_latents

STATISTICS_SAMPLES = 1024
MOST_VALUES = 1024 * STATISTICS_SAMPLES  # of each channel, that the output calibration is computed from
NEWTON_STEPS, MAX_GAIN, MAX_SHIFT = 8, 1.25, 0.5  # of the output calibration: steps of the search, and its bounds
UNCALIBRATED = "G_ema."  # begins the names, in a checkpoint, of the average's output layer as it was before calibration
OutputLayer = nn.Linear | nn.Conv2d | nn.ConvTranspose2d  # layers that may stand before a final tanh


def finalise_generator(G: nn.Module, config: Config, conditioning: Conditioning, pixel_moments: Tensor) -> None:
    """Set a generator's batch-normalisation statistics and, where the config asks for it, calibrate its output.

    Args:
        pixel_moments: (C, 2) mean and mean square of each channel of the data in [-1, 1].
    """
    recompute_batch_statistics(G, config, conditioning.frequencies)
    if config.calibrate_output:
        calibrate_output(G, config, conditioning.frequencies, pixel_moments)


@torch.no_grad()
def recompute_batch_statistics(G: nn.Module, config: Config, frequencies: Tensor) -> None:
    """Set every batch-normalisation layer's mean and variance to those that the present weights produce."""
    found = [layer for layer in G.modules() if isinstance(layer, nn.modules.batchnorm._BatchNorm)]
    layers = [layer for layer in found if layer.running_mean is not None]
    if not layers:
        return
    device = next(G.parameters()).device
    momenta = [layer.momentum for layer in layers]
    for layer in layers:
        layer.track_running_stats = True
        layer.reset_running_stats()
        layer.momentum = None  # a plain average over all batches
    was_training = G.training
    G.train()
    draw = rng("statistics")
    with seeded(rng("statistics", "dropout")):
        for y in spread_evenly(frequencies, seed=0, count=STATISTICS_SAMPLES).split(128):
            z = shape_latents(torch.randn(len(y), config.latent_dim, generator=draw), config.latent_distribution)
            G(to_device(z, device), to_device(y, device))
    G.train(was_training)
    for layer, momentum in zip(layers, momenta, strict=True):
        layer.momentum = momentum


@torch.no_grad()
def calibrate_output(G: nn.Module, config: Config, frequencies: Tensor, wanted: Tensor) -> None:
    """Scale and shift the input of the final tanh until pixels have the mean and the mean square `wanted`.

    Where a gain within bounds cannot reach both, the mean comes first. Latents are fixed and come with their
    opposites, which together vary a fifth as much as random ones do.

    Args:
        wanted: (C, 2) mean and mean square of each channel in [-1, 1].

    Raises ConfigError as `output_layer` does.
    """
    layer = output_layer(G, channels := len(wanted))
    normal = torch.randn(
        STATISTICS_SAMPLES // 2, config.latent_dim, generator=rng("calibration")
    )  # part of every run: see randomness
    y = spread_evenly(frequencies, seed=0, count=len(normal))
    was_training, outputs, device = G.training, list[Tensor](), layer.weight.device
    hook = layer.register_forward_hook(lambda module, inputs, output: outputs.append(output.cpu()))
    with hook, seeded(rng("calibration", "dropout")):
        G.eval()
        for module in G.modules():
            if isinstance(module, Dropout):  # it stays on in samples
                module.train()
        for z in (normal, -normal):
            G(to_device(shape_latents(z, config.latent_distribution), device), to_device(y, device))
        G.train(was_training)
    h = torch.cat(outputs).reshape(2 * len(normal), channels, -1).transpose(0, 1).flatten(1)  # (C, values)
    if h.shape[1] > MOST_VALUES:  # of images over 32 pixels, as many as those have
        h = h[:, torch.randint(h.shape[1], (MOST_VALUES,), generator=rng("calibration", "values"))]
    rescale(layer, *_fit_gain_and_shift(h, wanted))


def _fit_gain_and_shift(h: Tensor, wanted: Tensor) -> tuple[Tensor, Tensor]:
    """Return (C,) gains and (C,) shifts that give tanh(gain * h + shift) the wanted moments, by Newton's method.

    Args:
        h: (C, values) what the output layer computes.
        wanted: (C, 2) mean and mean square.
    """
    gain, shift = torch.ones(len(h), 1), torch.zeros(len(h), 1)
    for _ in range(NEWTON_STEPS):
        pixels = torch.tanh(gain * h + shift)
        derivative = 1 - pixels * pixels
        moments = torch.stack([pixels.mean(1), pixels.square().mean(1)], dim=1)
        mean_missing, square_missing = (wanted - moments).split(1, dim=1)
        mean_by_shift = derivative.mean(1, keepdim=True).clamp(min=1e-6)
        mean_by_gain, square_by_shift = (
            (derivative * h).mean(1, keepdim=True),
            2 * (pixels * derivative).mean(1, keepdim=True),
        )
        # What gain does to the mean square while shift keeps the mean: more never makes it less.
        square_by_gain = (
            2 * (pixels * derivative * h).mean(1, keepdim=True) - square_by_shift * mean_by_gain / mean_by_shift
        )
        more = (square_missing - square_by_shift * mean_missing / mean_by_shift) / square_by_gain.clamp(min=1e-6)
        before, gain = gain, (gain + more).clamp(1 / MAX_GAIN, MAX_GAIN)
        shift += (mean_missing - mean_by_gain * (gain - before)) / mean_by_shift
        shift.clamp_(-MAX_SHIFT, MAX_SHIFT)
    return gain.flatten(), shift.flatten()


@torch.no_grad()
def rescale(layer: OutputLayer, gain: Tensor, shift: Tensor) -> None:
    """Multiply an output layer's result by a gain and add a shift; both (C,), one for each channel."""
    assert layer.bias is not None  # output_layer refuses one without
    each = len(layer.bias) // len(gain)  # outputs of a channel lie side by side
    gains, shifts = (to_device(values.repeat_interleave(each), layer.weight.device) for values in (gain, shift))
    outputs_at = 1 if isinstance(layer, nn.ConvTranspose2d) else 0
    layer.weight.mul_(gains.view([-1 if at == outputs_at else 1 for at in range(layer.weight.dim())]))
    layer.bias.mul_(gains).add_(shifts)


def output_layer(G: nn.Module, channels: int = 1) -> OutputLayer:
    """Return a generator's last layer, which its final tanh follows, with equally many outputs for each channel.

    Raises ConfigError for a generator that ends in another way.
    """
    leaves = [module for module in G.modules() if next(module.children(), None) is None]
    last = max((k for k, leaf in enumerate(leaves) if hasattr(leaf, "bias")), default=0)
    layer = leaves[last]
    squashed = any(isinstance(leaf, nn.Tanh) for leaf in leaves[last:])
    if not (squashed and isinstance(layer, OutputLayer) and layer.bias is not None and len(layer.bias) % channels == 0):
        raise ConfigError(
            "calibrate_output rescales a layer before a final tanh that has outputs and biases of its own for each "
            "channel, and this network's generator does not end in one; set it to false or choose another network"
        )
    return layer
