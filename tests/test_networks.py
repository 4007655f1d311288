"""Each architecture computes what its source describes, compared with another implementation of it."""

import math

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn.functional import avg_pool2d, conv2d, interpolate
from torch.utils.flop_counter import FlopCounterMode

from gansmith.config import resolve
from gansmith.data.image_files import truncation_notice
from gansmith.data.images import ImageSpec
from gansmith.errors import ConfigError
from gansmith.networks import NETWORKS, build_networks
from gansmith.networks.layers import SlowLinear, initialise
from gansmith.networks.progressive import fade_detail, grow, growth_at, restart_idle
from gansmith.networks.r3gan import Block
from gansmith.networks.stylegan_lite import Modulated
from gansmith.summaries import describe
from gansmith.training.step import Networks

SPEC = ImageSpec(size=28, channels=1, num_classes=3)
NEW = ["r3gan", "sngan", "wgan-gp", "acgan", "stylegan-lite", "progressive"]


def build(name: str, spec: ImageSpec = SPEC, **fields: object):
    """Return small networks of an architecture, G and D."""
    torch.manual_seed(0)
    config = resolve("default", arguments={"network": name, "g_width": 16, "d_width": 32, "latent_dim": 12, **fields})
    return NETWORKS[name](spec, config)


def inputs(n: int = 5) -> tuple[torch.Tensor, torch.Tensor]:
    draw = torch.Generator().manual_seed(1)
    return torch.randn(n, 12, generator=draw), torch.arange(n) % 3


@pytest.mark.parametrize("recipe", NEW)
def test_summaries_count_every_parameter(recipe):
    facts = describe(resolve(recipe))
    for name in ("g", "d"):
        assert sum(layer["parameters"] for layer in facts[f"{name}_layers"]) == facts[f"{name}_parameters"]


@pytest.mark.parametrize("name", NEW)
def test_image_sizes_that_are_not_a_multiple_of_4_are_refused(name):
    config = resolve("default", arguments={"network": name})
    with pytest.raises(ConfigError, match="30 pixels wide.*multiple of 4"):
        NETWORKS[name](ImageSpec(30, 1, 0), config)


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("size", [64, 100])
def test_weights_grow_no_faster_than_the_area_of_images(name, size):
    small, large = (
        sum(
            p.numel()
            for network in build(name, ImageSpec(side, 3, 0), minibatch_stddev=0)
            for p in network.parameters()
        )
        for side in (32, size)
    )
    assert large < 1.1 * (size / 32) ** 2 * small


@pytest.mark.parametrize("size", [28, 100])
def test_the_default_generator_begins_without_a_pattern_of_single_pixels(size):
    """In grey, its last doubling begins as nearest neighbours do, whatever the latents; and learns to do more."""
    G = _untrained_default(size, channels=1)
    images = G(torch.randn(4, 64), torch.zeros(4, dtype=torch.int64))
    torch.testing.assert_close(interpolate(images[..., ::2, ::2], scale_factor=2), images, rtol=0, atol=1e-6)
    assert images.std() > 0.01
    (slope,) = torch.autograd.grad(images[..., ::2].sum(), list(G.parameters())[-2:-1])
    assert slope[0].abs().sum() > 0 and slope[1].abs().sum() == 0


@pytest.mark.parametrize("size", [28, 32, 100])
def test_all_pixels_of_the_default_generator_in_color_come_from_the_same_weights(size):
    """No pixel has weights of its own among its neighbours, whose differences would be a pattern over flat areas."""
    G = _untrained_default(size, channels=3)
    images = G(torch.randn(4, 64), torch.zeros(4, dtype=torch.int64))
    (slope,) = torch.autograd.grad(images[..., ::2, ::2].sum(), list(G.parameters())[-2:-1])
    assert slope.shape == (3, 2, 3, 3)  # colours, an eighth of the width, and the places around a pixel
    assert slope.abs().sum((1, 2, 3)).min() > 0
    assert images.shape == (4, 3, size, size) and images.std() > 0.01
    spectrum = torch.fft.fft2(images).abs().square().mean((0, 1))
    assert spectrum[size // 2, size // 2] < 0.1 * spectrum.mean()


def _untrained_default(size, *, channels):
    settings = {"g_width": 16, "d_width": 16, "conditioning": "none"}
    return build_networks(resolve("default", arguments=settings), ImageSpec(size, channels, 0))[0]


def test_an_r3gan_block_is_the_identity_at_initialisation_and_has_groups_of_16():
    block = Block(32, "default", scales=3)
    maps = torch.randn(2, 32, 5, 5)
    assert torch.equal(block(maps), maps)
    assert block.layers[2].groups == 64 // 16
    with pytest.raises(ConfigError, match="multiple of 32"):
        build("r3gan", g_width=40)


def test_r3gans_first_convolution_scales_a_learned_map_for_each_channel():
    G, _ = build("r3gan")
    convolution = G.layers[2]
    scales = torch.randn(4, 16, 1, 1)
    maps = convolution.weight[:, 0].flip(1, 2)  # (C, H, W)
    torch.testing.assert_close(convolution(scales), scales * maps)


def test_an_r3gan_block_has_he_initialisation_scaled_for_three_blocks():
    block = Block(64, "default", scales=3)
    gain = (2 / (1 + 0.2**2)) ** 0.5 * 3**-0.25
    for layer, fan_in in ((block.layers[0], 64), (block.layers[2], 16 * 9)):
        assert layer.weight.std().item() == pytest.approx(gain / fan_in**0.5, rel=0.05)  # 8,192 weights or more
        assert not layer.bias.any()


def test_wgan_gp_has_as_many_parameters_as_the_source():
    G, D = build("wgan-gp", ImageSpec(28, 1, 0), g_width=64, d_width=64, latent_dim=128, minibatch_stddev=0)
    g = (128 * 4096 + 4096) + (256 * 128 * 25 + 128) + (128 * 64 * 25 + 64) + (64 * 25 + 1)
    d = (25 * 64 + 64) + (64 * 128 * 25 + 128) + (128 * 256 * 25 + 256) + (4096 + 1)
    assert [sum(p.numel() for p in network.parameters()) for network in (G, D)] == [g, d]


def test_modulated_convolutions_equal_convolutions_with_the_modulated_weights_of_each_image():
    layer = Modulated(6, 4, 5, kernel_size=3, demodulates=True).double()
    maps, style = torch.randn(3, 6, 8, 8, dtype=torch.float64), torch.randn(3, 5, dtype=torch.float64)
    scale = layer.style(style)
    for image, weights, out in zip(maps, scale, layer(maps, style), strict=True):
        modulated = layer.convolution.weight * weights.view(1, -1, 1, 1)  # arXiv:1912.04958, eq. 1
        demodulated = modulated / (modulated.square().sum((1, 2, 3), keepdim=True) + 1e-8).sqrt()  # eq. 3
        torch.testing.assert_close(out, conv2d(image[None], demodulated, padding=1)[0])


def test_a_layer_with_an_lr_multiplier_has_the_usual_initialisation_and_smaller_updates():
    torch.manual_seed(0)
    layer = SlowLinear(400, 300, 0.01)

    def effective() -> torch.Tensor:
        with torch.no_grad():
            return layer(torch.eye(400)) - layer(torch.zeros(400))  # its weights, from its outputs

    gain = (2 / (1 + 0.2**2)) ** 0.5
    assert effective().std().item() == pytest.approx(gain / 400**0.5, rel=0.02)  # He's
    initialise(layer, "normal")
    assert effective().std().item() == pytest.approx(0.02, rel=0.02)
    before = effective()
    adam = torch.optim.Adam(layer.parameters(), 0.3, eps=1e-12)
    layer(torch.randn(7, 400)).square().sum().backward()
    adam.step()  # Adam's first update has the size of the learning rate
    torch.testing.assert_close((effective() - before).abs(), torch.full((400, 300), 0.003), rtol=1e-2, atol=1e-6)
    bias = layer(torch.zeros(400)).detach()
    torch.testing.assert_close(bias.abs(), torch.full((300,), 0.003), rtol=1e-2, atol=1e-6)


def test_style_mixing_takes_the_styles_of_later_layers_from_another_image_in_training_only():
    G, _ = build("stylegan-lite", style_mixing=1.0)
    z, y = inputs()
    own, other = G.style(z, y), G.style(z.roll(1, 0), y)
    styles = G._mixed(own, z, y)
    for image in range(len(z)):
        from_own = [torch.equal(style[image], own[image]) for style in styles]
        from_other = [torch.equal(style[image], other[image]) for style in styles]
        switch = from_own.index(False)
        assert switch >= 1 and from_own == [layer < switch for layer in range(6)]
        assert from_other == [layer >= switch for layer in range(6)]
    assert not torch.equal(G(z, y), G(z, y))
    G.eval()
    assert torch.equal(G(z, y), G(z, y))


def test_truncation_moves_styles_towards_the_mean_of_each_class_id():
    G, _ = build("stylegan-lite")
    z, y = inputs(9)
    free = G.eval()(z, y)
    G.truncate(1.0)
    torch.testing.assert_close(G(z, y), free, atol=1e-6, rtol=0)
    G.truncate(0.5)
    half = G(z, y)
    G.truncate(0.0)
    means = G(z, y)
    for kind in range(3):
        assert free[y == kind].std(0).mean() > half[y == kind].std(0).mean() > 0.01
        torch.testing.assert_close(means[y == kind], means[kind].expand(3, -1, -1, -1))


@pytest.mark.parametrize(
    ("progress", "growth"),
    [(0.0, 0.0), (0.2, 0.0), (0.3, 0.5), (0.4, 1.0), (0.6, 1.0), (0.7, 1.5), (0.8, 2.0), (1.0, 2.0)],
)
def test_growth_has_five_phases_of_equal_length(progress, growth):
    assert growth_at(progress, doublings=2) == pytest.approx(growth)


@pytest.mark.parametrize("doublings", [2, 3, 4])
def test_growth_ends_with_all_doublings_in_phases_of_equal_length(doublings):
    phases = [growth_at((k + 0.5) / (2 * doublings + 1), doublings) for k in range(2 * doublings + 1)]
    assert phases == pytest.approx([0.5 * k for k in range(2 * doublings + 1)])


def test_a_growing_generator_repeats_pixels_and_fades_between_sizes():
    G, _ = build("progressive")
    z, y = inputs()

    def logits(progress: float) -> torch.Tensor:
        grow(G, progress)
        return G(z, y).atanh()

    small, fading, middle, full = (logits(progress) for progress in (0.1, 0.3, 0.5, 0.9))
    for images, block in ((small, 4), (middle, 2)):
        torch.testing.assert_close(images, interpolate(avg_pool2d(images, block), scale_factor=block))
    assert not torch.allclose(full, interpolate(avg_pool2d(full, 2), scale_factor=2))
    torch.testing.assert_close(fading, 0.5 * small + 0.5 * middle, atol=1e-5, rtol=1e-4)


def test_a_growing_discriminator_sees_images_at_its_size_only():
    _, D = build("progressive")
    images, y = torch.rand(4, 1, 28, 28) * 2 - 1, torch.zeros(4, dtype=torch.int64)
    for progress, block in ((0.1, 4), (0.5, 2)):
        grow(D, progress)
        coarse = interpolate(avg_pool2d(images, block), scale_factor=block)
        torch.testing.assert_close(D(images, y), D(coarse, y), atol=1e-5, rtol=1e-4)
    grow(D, 0.9)
    assert not torch.allclose(D(images, y), D(coarse, y))


def test_growth_is_part_of_the_state_dict():
    G, _ = build("progressive")
    other, _ = build("progressive")
    grow(G, 0.3)
    other.load_state_dict({key: value.clone() for key, value in G.state_dict().items()})
    assert torch.equal(other(*inputs()), G(*inputs()))


def test_planes_process_all_channels_with_the_same_convolutions():
    G, D = (network.eval() for network in build("planes", ImageSpec(28, 3, 0)))
    z, y = inputs()[0], torch.zeros(5, dtype=torch.int64)
    images = G(z, y)
    G.starts = torch.nn.ModuleList([G.starts[k] for k in (2, 0, 1)])
    torch.testing.assert_close(G(z, y), images[:, [2, 0, 1]])
    hidden = D.layers[-2]
    weights = hidden.weight.view(128, 3, -1)
    logits = D(images, y)
    hidden.weight.data = weights[:, [2, 0, 1]].reshape(128, -1)
    torch.testing.assert_close(D(images[:, [2, 0, 1]], y), logits)


def test_the_logit_of_planes_is_not_a_sum_over_channels():
    _, D = build("planes", ImageSpec(28, 3, 0))
    red, green = torch.zeros(1, 3, 28, 28), torch.zeros(1, 3, 28, 28)
    red[:, 0, 8:20, 8:20], green[:, 1, 4:12, 4:24] = 1.0, 1.0
    none, one, other, both = D(
        torch.cat([0 * red, red, green, red + green]), torch.zeros(4, dtype=torch.int64)
    ).tolist()
    assert abs((both - one) - (other - none)) > 1e-3  # 0 for a sum over channels


def test_growing_modules_of_g_are_found_if_d_does_not_grow():
    G, D = build("progressive")[0], build("mlp")[1]
    networks = Networks(G, D, build("progressive")[0], torch.optim.SGD(G.parameters()), torch.optim.SGD(D.parameters()))
    assert networks.growing and all(module.growth == 2.0 for module in networks.growing)
    for module in networks.growing:
        grow(module, 0.0)
    grown = [
        module for network in (networks.G, networks.G_ema) for module in network.modules() if hasattr(module, "phase")
    ]
    assert [module.phase() for module in grown] == [(0, 0.0)] * len(networks.growing)


def test_files_of_truncated_samples_record_the_truncation(gansmith, tiny, run_training, tmp_path):
    run = run_training(tiny("stylegan-lite", images=64, evaluate_every=64, sample_every=64), "styles")
    assert gansmith("sample", run.directory, "--count", "3", "--out", "free.npz")[0] == 0
    assert gansmith("sample", run.directory, "--count", "3", "--truncation", "0.5", "--out", "near.npz")[0] == 0
    assert gansmith("sample", run.directory, "--count", "3", "--truncation", "0.5", "--out", "near.png")[0] == 0
    with np.load(tmp_path / "free.npz") as free, np.load(tmp_path / "near.npz") as near:
        assert "truncation" not in free and near["truncation"] == 0.5
        assert not np.array_equal(free["images"], near["images"])
    assert truncation_notice(tmp_path / "free.npz") == ()
    assert truncation_notice(tmp_path / "near.npz")[0].startswith("its images were drawn with truncation 0.5")
    with Image.open(tmp_path / "near.png") as picture:
        assert picture.text == {"truncation": "0.5", "Software": "Gansmith"}
    code, _, err = gansmith("sample", run.directory, "--truncation", "2")
    assert code == 2 and "between 0 and 1" in err


def test_embeddings_start_with_the_codes_of_the_conditioning():
    """Class ids with similar codes have similar embeddings; without codes, embeddings are random."""
    codes = torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
    config = resolve(
        "default", arguments={"network": "mlp", "latent_dim": 5, "conditioning": "labels", "clusters_per_class": 1}
    )
    G, D = build_networks(config, SPEC, codes)
    for network in (G, D):
        weight = network.embedding.weight
        assert torch.equal(weight[:, :2], codes) and not weight[:, 2:].any()
    assert build_networks(config, SPEC)[0].embedding.weight.all()
    multiplied = config.replace(network="cgan-keras", g_conditioning="multiplied", d_conditioning="multiplied")
    for network in build_networks(multiplied, SPEC, codes):  # with zeros nothing would pass
        assert network.embedding.weight.all()


def test_networks_depend_on_the_seed_alone():
    config = resolve("default", arguments={"network": "mlp", "conditioning": "labels", "clusters_per_class": 1})
    torch.manual_seed(1)
    first = build_networks(config, SPEC)
    torch.manual_seed(2)
    for before, again in zip(first, build_networks(config, SPEC), strict=True):
        torch.testing.assert_close(again.state_dict(), before.state_dict(), rtol=0, atol=0)
    other = build_networks(config.replace(seed=1), SPEC)
    assert not torch.equal(other[0].embedding.weight, first[0].embedding.weight)


@pytest.mark.parametrize("size", [64, 100, 128])
def test_levels_of_large_images_cost_about_the_same(size):
    """Four times the pixels of an image take less than three times the multiplications, at most."""
    config = resolve("default", arguments={"conditioning": "none"})

    def multiplications(size):
        spec = ImageSpec(size, 3, 0)
        count = 0
        for network, inputs in zip(
            build_networks(config, spec),
            (torch.zeros(1, config.latent_dim), torch.zeros(1, 3, size, size)),
            strict=True,
        ):
            with FlopCounterMode(display=False) as counter:
                network.eval()(inputs, torch.zeros(1, dtype=torch.int64))
            count += counter.get_total_flops() // 2
        return count

    doublings = math.log2(size / 32)
    assert multiplications(32) < multiplications(size) < 3**doublings * multiplications(32)


@pytest.mark.parametrize("size", [48, 100, 128])
def test_the_narrowest_networks_keep_a_channel_at_every_level(size):
    config = resolve("default", arguments={"conditioning": "none", "g_width": 2, "d_width": 4})
    G, D = build_networks(config, ImageSpec(size, 1, 0))
    y = torch.zeros(4, dtype=torch.int64)
    images = G(torch.randn(4, config.latent_dim), y)
    assert images.shape == (4, 1, size, size) and D(images, y).shape == (4,)
    assert all(parameter.numel() for network in (G, D) for parameter in network.parameters())


def test_real_images_have_as_much_new_detail_as_generated_ones():
    _, D = build("progressive")
    images = torch.rand(2, 1, 28, 28)
    (module,) = (one for one in D.modules() if hasattr(one, "growth"))

    def at(growth):
        module.growth = growth
        return fade_detail(images, module)

    assert at(0.0) is images and at(1.0) is images and at(2.0) is images  # D brings them to its size itself
    half = torch.nn.functional.avg_pool2d(images, 2).repeat_interleave(2, 2).repeat_interleave(2, 3)
    torch.testing.assert_close(at(1.25), 0.75 * half + 0.25 * images)
    torch.testing.assert_close(at(1 - 1e-9), half, atol=1e-6, rtol=0)


def test_a_layer_that_grows_in_begins_with_a_first_step():
    moved = {}
    for is_mended in (False, True):
        weights = [torch.nn.Parameter(torch.zeros(3)) for _ in range(2)]
        adam = torch.optim.Adam(weights, lr=0.01, betas=(0.0, 0.99), fused=True)
        for turn in range(200):
            weights[0].grad, weights[1].grad = torch.ones(3), torch.full((3,), float(turn >= 199))
            adam.step()
            if is_mended:
                restart_idle(adam)
        moved[is_mended] = weights[1].abs().max().item()
        assert adam.state[weights[0]]["step"].item() == 200
    assert moved[False] == pytest.approx(0.1, rel=0.1) and moved[True] == pytest.approx(0.01, rel=1e-3)


def test_he_counts_the_inputs_of_a_transposed_convolution():
    layer = torch.nn.ConvTranspose2d(128, 1, kernel_size=4, stride=2, padding=1)
    initialise(layer, "he")
    outputs = layer(torch.randn(64, 128, 16, 16))[:, :, 2:-2, 2:-2]
    assert outputs.var().item() == pytest.approx(2.0, rel=0.15)  # of inputs with variance 1, before a ReLU halves it
