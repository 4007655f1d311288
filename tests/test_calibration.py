"""Calibration of a generator: recomputed batch-normalisation statistics, and output with the data's moments."""

import copy

import pytest
import torch
from test_sampling import build_model

from gansmith.config import resolve
from gansmith.data.images import ImageSpec
from gansmith.errors import ConfigError
from gansmith.sampling import sample
from gansmith.training.calibration import (
    calibrate_output,
    finalise_generator,
    output_layer,
    recompute_batch_statistics,
    rescale,
)
from gansmith.training.state import start_networks


@pytest.mark.parametrize(("channels", "dropout"), [(1, 0.0), (3, 0.0), (1, 0.4)])
def test_generated_images_get_the_wanted_moments(channels, dropout):
    model = build_model(channels=channels, g_dropout=dropout)  # which stays on in samples
    layer, frequencies = output_layer(model.network, channels), model.conditioning.frequencies
    before = {name: value.clone() for name, value in model.network.state_dict().items()}

    def moments(seed: int) -> torch.Tensor:
        pixels = sample(model, seed=seed, count=2000)[0].double() / 127.5 - 1
        return torch.stack([pixels.mean((0, 2, 3)), pixels.square().mean((0, 2, 3))], dim=1).float()

    rescale(layer, torch.tensor([0.9, 1.05, 1.1])[:channels], torch.tensor([-0.1, 0.1, 0.05])[:channels])
    wanted = moments(4)  # which some gain and shift reach
    model.network.load_state_dict(before)
    calibrate_output(model.network, model.config, frequencies, wanted)
    torch.testing.assert_close(moments(5), wanted, rtol=0, atol=0.004)
    changed = {name for name, value in model.network.state_dict().items() if not torch.equal(value, before[name])}
    assert {name.rsplit(".", 1)[1] for name in changed} == {"weight", "bias"} and len(changed) == 2
    known = {name: value.clone() for name, value in layer.state_dict().items()}
    with torch.no_grad():
        gains = torch.tensor([0.9, 1.05, 1.1])[:channels].repeat_interleave(len(layer.bias) // channels)
        layer.weight.mul_(gains[:, None, None, None])
        layer.bias.mul_(gains).add_(torch.tensor([0.2, -0.1, 0.3])[:channels].repeat_interleave(len(gains) // channels))
    calibrate_output(model.network, model.config, frequencies, wanted)
    for name, value in layer.state_dict().items():
        torch.testing.assert_close(value, known[name], rtol=0, atol=1e-4)


def test_unreachable_moments_change_the_output_layer_within_bounds():
    """A generator whose images are all black gives no gradient; its gain and shift stay within their limits."""
    model = build_model()
    layer = output_layer(model.network)
    with torch.no_grad():
        layer.bias.fill_(-50.0)
    weights = layer.weight.clone()
    calibrate_output(model.network, model.config, model.conditioning.frequencies, torch.tensor([[0.0, 0.5]]))
    assert layer.bias.isfinite().all() and (-63.1 <= layer.bias).all() and (layer.bias <= -39.4).all()
    assert (layer.weight.abs() <= 1.2501 * weights.abs()).all() and (layer.weight.abs() >= 0.799 * weights.abs()).all()


def test_averaged_weights_get_statistics_of_their_own():
    """The reason to recompute: an average of weights has maps whose statistics are neither end's."""
    config = resolve("dcgan-sgd", arguments={"g_width": 16, "d_width": 16, "latent_dim": 8})
    spec = ImageSpec(size=28, channels=1, num_classes=0)
    ends = [start_networks(config.replace(seed=seed), spec).G for seed in (0, 1)]
    for G in ends:
        recompute_batch_statistics(G, config, torch.ones(1))
    average = copy.deepcopy(ends[0])
    with torch.no_grad():
        for parameter, other in zip(average.parameters(), ends[1].parameters(), strict=True):
            parameter.lerp_(other, 0.5)
    z = torch.randn(256, 8, generator=torch.Generator().manual_seed(3))

    def std_after_first_norm(G):
        G.eval()
        with torch.no_grad():
            return G.layers[:3](z).std((0, 2, 3)).mean().item()

    stale = std_after_first_norm(average)
    recompute_batch_statistics(average, config, torch.ones(1))
    assert std_after_first_norm(average) == pytest.approx(1.0, abs=0.1)
    assert stale < 0.85  # maps come out too weak with statistics that belong to other weights
    first = copy.deepcopy(average.state_dict())
    recompute_batch_statistics(average, config, torch.ones(1))
    torch.testing.assert_close(average.state_dict(), first, rtol=0, atol=0)


def test_only_the_layer_before_a_final_tanh_can_be_calibrated():
    layer = output_layer(build_model().network)
    assert isinstance(layer, torch.nn.Conv2d) and layer.out_channels == 4
    for network in ("planes", "progressive", "stylegan-lite", "r3gan"):
        other = build_model(channels=3, network=network, g_width=32, d_width=32).network
        with pytest.raises(ConfigError, match="set it to false or choose another network"):
            output_layer(other, 3)


@pytest.mark.parametrize("is_on", [False, True])
def test_a_generator_is_calibrated_where_its_config_says_so(is_on):
    model = build_model(calibrate_output=is_on)
    before = output_layer(model.network).bias.detach().clone()
    finalise_generator(model.network, model.config, model.conditioning, torch.tensor([[-0.1, 0.2]]))
    assert torch.equal(output_layer(model.network).bias, before) != is_on
    norms = [layer for layer in model.network.modules() if isinstance(layer, torch.nn.BatchNorm2d)]
    assert norms and all(layer.num_batches_tracked == 8 for layer in norms)
