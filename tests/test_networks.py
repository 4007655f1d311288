"""What each architecture promises beyond shapes: its source's arithmetic, worked out another way."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn.functional import avg_pool2d, conv2d, interpolate

from gansmith.config import resolve
from gansmith.data.images import ImageSpec
from gansmith.data.image_files import read_npz
from gansmith.summaries import describe
from gansmith.sampling import Model, truncate
from gansmith.networks import NETWORKS
from gansmith.networks.layers import SlowLinear, initialise
from gansmith.networks.progressive import GROWN, grow, growth_at
from gansmith.networks.r3gan import Block
from gansmith.networks.stylegan_lite import Modulated
from gansmith.training.techniques import build_techniques
from gansmith.training.step import Networks
from gansmith.training.loop import build_training_networks, set_rates

SPEC = ImageSpec(size=28, channels=1, num_classes=3)
NEW = ["r3gan", "sngan", "wgan-gp", "acgan", "stylegan-lite", "progressive"]


def pair(name: str, **fields: object):
    torch.manual_seed(0)
    config = resolve("default", arguments={"network": name, "g_width": 16, "d_width": 32, "latent_dim": 12, **fields})
    return NETWORKS[name](SPEC, config)


def inputs(n: int = 5) -> tuple[torch.Tensor, torch.Tensor]:
    draw = torch.Generator().manual_seed(1)
    return torch.randn(n, 12, generator=draw), torch.arange(n) % 3


@pytest.mark.parametrize("recipe", NEW)
def test_descriptions_account_for_every_weight(recipe):
    facts = describe(resolve(recipe))
    for player in ("g", "d"):
        assert sum(layer["parameters"] for layer in facts[f"{player}_layers"]) == facts[f"{player}_parameters"]


@pytest.mark.parametrize("name", NEW)
def test_images_of_odd_size_are_refused_with_the_remedy(name):
    config = resolve("default", arguments={"network": name})
    with pytest.raises(ValueError, match="30 pixels wide.*multiple of 4"):
        NETWORKS[name](ImageSpec(30, 1, 0), config)


def test_an_r3gan_block_adds_nothing_at_first_and_convolves_in_groups_of_16():
    block = Block(32, "own")
    maps = torch.randn(2, 32, 5, 5)
    assert torch.equal(block(maps), maps)
    assert block.layers[2].groups == 64 // 16
    with pytest.raises(ValueError, match="multiple of 32"):
        pair("r3gan", g_width=40)


def test_r3gans_first_convolution_is_a_picture_for_each_channel_times_a_number():
    G, _ = pair("r3gan")
    spread = G.layers[2]
    numbers = torch.randn(4, 16)
    pictures = spread.weight[:, 0].flip(1, 2)  # (C, H, W)
    torch.testing.assert_close(spread(numbers.view(4, 16, 1, 1)), numbers.view(4, 16, 1, 1) * pictures)


def test_an_r3gan_block_starts_with_he_s_weights_shrunk_for_three_branches():
    block = Block(64, "own")
    gain = (2 / (1 + 0.2**2)) ** 0.5 * 3**-0.25
    for layer, fan_in in ((block.layers[0], 64), (block.layers[2], 16 * 9)):
        assert layer.weight.std().item() == pytest.approx(gain / fan_in**0.5, rel=0.05)  # 8,192 weights or more
        assert not layer.bias.any()


def test_wgan_gp_has_the_source_s_weights():
    config = resolve(
        "default", arguments={"network": "wgan-gp", "g_width": 64, "d_width": 64, "latent_dim": 128, "minibatch_stddev": False}
    )
    G, D = NETWORKS["wgan-gp"](ImageSpec(28, 1, 0), config)
    g = (128 * 4096 + 4096) + (256 * 128 * 25 + 128) + (128 * 64 * 25 + 64) + (64 * 25 + 1)
    d = (25 * 64 + 64) + (64 * 128 * 25 + 128) + (128 * 256 * 25 + 256) + (4096 + 1)
    assert [sum(p.numel() for p in network.parameters()) for network in (G, D)] == [g, d]


def test_modulated_convolutions_equal_the_source_s_weights_for_each_image():
    layer = Modulated(6, 4, 5, kernel_size=3, demodulates=True).double()
    maps, style = torch.randn(3, 6, 8, 8, dtype=torch.float64), torch.randn(3, 5, dtype=torch.float64)
    scale = layer.style(style)
    for image, weights, out in zip(maps, scale, layer(maps, style), strict=True):
        modulated = layer.convolution.weight * weights.view(1, -1, 1, 1)  # arXiv:1912.04958, eq. 1
        demodulated = modulated / (modulated.square().sum((1, 2, 3), keepdim=True) + 1e-8).sqrt()  # eq. 3
        torch.testing.assert_close(out, conv2d(image[None], demodulated, padding=1)[0])


def test_a_slow_layer_starts_as_any_and_moves_by_its_fraction_of_adams_rate():
    torch.manual_seed(0)
    layer = SlowLinear(400, 300, 0.01)

    def used() -> torch.Tensor:
        with torch.no_grad():
            return layer(torch.eye(400)) - layer(torch.zeros(400))  # its weights, read off what it does

    gain = (2 / (1 + 0.2**2)) ** 0.5
    assert used().std().item() == pytest.approx(gain / 400**0.5, rel=0.02)  # He's
    initialise(layer, "normal")
    assert used().std().item() == pytest.approx(0.02, rel=0.02)
    before = used()
    adam = torch.optim.Adam(layer.parameters(), 0.3, eps=1e-12)
    layer(torch.randn(7, 400)).square().sum().backward()
    adam.step()  # Adam's first step is its rate in the gradient's direction
    torch.testing.assert_close((used() - before).abs(), torch.full((400, 300), 0.003), rtol=1e-2, atol=1e-6)
    bias = layer(torch.zeros(400)).detach()
    torch.testing.assert_close(bias.abs(), torch.full((300,), 0.003), rtol=1e-2, atol=1e-6)


def test_style_mixing_takes_later_layers_from_a_neighbour_and_only_while_training():
    G, _ = pair("stylegan-lite", style_mixing=1.0)
    z, ids = inputs()
    own, other = G.style(z, ids), G.style(z.roll(1, 0), ids)
    styles = G._mixed(own, z, ids)
    for image in range(len(z)):
        from_own = [torch.equal(style[image], own[image]) for style in styles]
        from_other = [torch.equal(style[image], other[image]) for style in styles]
        switch = from_own.index(False)
        assert switch >= 1 and from_own == [layer < switch for layer in range(6)]
        assert from_other == [layer >= switch for layer in range(6)]
    assert not torch.equal(G(z, ids), G(z, ids))
    G.eval()
    assert torch.equal(G(z, ids), G(z, ids))


def test_truncation_moves_styles_towards_each_ids_mean_and_nothing_else_does():
    G, _ = pair("stylegan-lite")
    z, ids = inputs(9)
    free = G.eval()(z, ids)
    G.truncate(1.0)
    torch.testing.assert_close(G(z, ids), free, atol=1e-6, rtol=0)
    G.truncate(0.5)
    half = G(z, ids)
    G.truncate(0.0)
    centres = G(z, ids)
    for kind in range(3):
        assert free[ids == kind].std(0).mean() > half[ids == kind].std(0).mean() > 0.01
        torch.testing.assert_close(centres[ids == kind], centres[kind].expand(3, -1, -1, -1))


@pytest.mark.parametrize(
    ("progress", "growth"),
    [(0.0, 0.0), (0.2, 0.0), (0.3, 0.5), (0.4, 1.0), (0.6, 1.0), (0.7, 1.5), (0.8, 2.0), (1.0, 2.0)],
)
def test_growth_holds_and_fades_by_fifths(progress, growth):
    assert growth_at(progress) == pytest.approx(growth)


def test_a_growing_generator_draws_blocks_and_fades_between_sizes():
    G, _ = pair("progressive")
    z, ids = inputs()

    def drawn(progress: float) -> torch.Tensor:
        grow(G, progress)
        return G(z, ids).atanh()

    small, fading, middle, full = (drawn(progress) for progress in (0.1, 0.3, 0.5, 0.9))
    for images, block in ((small, 4), (middle, 2)):
        torch.testing.assert_close(images, interpolate(avg_pool2d(images, block), scale_factor=block))
    assert not torch.allclose(full, interpolate(avg_pool2d(full, 2), scale_factor=2))
    torch.testing.assert_close(fading, 0.5 * small + 0.5 * middle, atol=1e-5, rtol=1e-4)


def test_a_growing_discriminator_sees_only_what_its_size_shows():
    _, D = pair("progressive")
    images, ids = torch.rand(4, 1, 28, 28) * 2 - 1, torch.zeros(4, dtype=torch.int64)
    for progress, block in ((0.1, 4), (0.5, 2)):
        grow(D, progress)
        coarse = interpolate(avg_pool2d(images, block), scale_factor=block)
        torch.testing.assert_close(D(images, ids), D(coarse, ids), atol=1e-5, rtol=1e-4)
    grow(D, 0.9)
    assert not torch.allclose(D(images, ids), D(coarse, ids))


def test_growth_is_stored_with_the_weights():
    G, _ = pair("progressive")
    other, _ = pair("progressive")
    grow(G, 0.3)
    other.load_state_dict({key: value.clone() for key, value in G.state_dict().items()})
    assert torch.equal(other(*inputs()), G(*inputs()))


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ({"style_mixing": 0.5}, "nothing without --network stylegan-lite"),
        ({"augment": "adaptive", "objective": "relativistic"}, "above zero.*--augment diffaugment"),
    ],
)
def test_choices_that_mean_nothing_here_are_refused(flags, words):
    config = resolve("mlp-small", arguments=flags)
    with pytest.raises(ValueError, match=words):
        build_techniques(config, build_training_networks(config, SPEC).D)


def test_learning_rates_and_memories_move_by_half_a_cosine(tiny):
    config = tiny("r3gan", conditioning="labels", burn_in=0.5)
    networks = build_training_networks(config, SPEC)
    rates, memories = [], []
    for progress in (0.0, 0.25, 0.5, 0.9):
        set_rates(networks, config, progress)
        group = networks.d_optimizer.param_groups[0]
        rates.append(group["lr"])
        memories.append(group["betas"])
    assert rates == pytest.approx([2e-4, 1.25e-4, 5e-5, 5e-5])
    assert memories == [(0.0, pytest.approx(beta2)) for beta2 in (0.9, 0.945, 0.99, 0.99)]


def test_planes_draw_and_read_every_colour_with_the_same_convolutions():
    torch.manual_seed(0)
    config = resolve("default", arguments={"network": "planes", "g_width": 16, "d_width": 32, "latent_dim": 12})
    G, D = (player.eval() for player in NETWORKS["planes"](ImageSpec(28, 3, 0), config))
    z, ids = inputs()[0], torch.zeros(5, dtype=torch.int64)
    images = G(z, ids)
    G.starts = torch.nn.ModuleList([G.starts[k] for k in (2, 0, 1)])
    torch.testing.assert_close(G(z, ids), images[:, [2, 0, 1]])
    hidden = D.layers[-2]
    head = hidden.weight.view(128, 3, -1)
    logits = D(images, ids)
    hidden.weight.data = head[:, [2, 0, 1]].reshape(128, -1)
    torch.testing.assert_close(D(images[:, [2, 0, 1]], ids), logits)


def test_planes_judge_colours_together():
    torch.manual_seed(0)
    config = resolve("default", arguments={"network": "planes", "g_width": 16, "d_width": 32, "latent_dim": 12})
    D = NETWORKS["planes"](ImageSpec(28, 3, 0), config)[1]
    red, green = torch.zeros(1, 3, 28, 28), torch.zeros(1, 3, 28, 28)
    red[:, 0, 8:20, 8:20], green[:, 1, 4:12, 4:24] = 1.0, 1.0
    none, one, other, both = D(
        torch.cat([0 * red, red, green, red + green]), torch.zeros(4, dtype=torch.int64)
    ).tolist()
    assert abs((both - one) - (other - none)) > 1e-3  # a sum of what each colour deserves would give 0


def test_a_generator_that_grows_beside_one_that_does_not_is_found():
    G, D = pair("progressive")[0], pair("mlp")[1]
    networks = Networks(G, D, pair("progressive")[0], torch.optim.SGD(G.parameters()), torch.optim.SGD(D.parameters()))
    assert networks.growing and all(module.growth == GROWN for module in networks.growing)
    for module in networks.growing:
        grow(module, 0.0)
    grown = [
        module for network in (networks.G, networks.G_ema) for module in network.modules() if hasattr(module, "phase")
    ]
    assert [module.phase() for module in grown] == [(0, 0.0)] * len(networks.growing)


def test_truncated_samples_say_so_in_their_file(gansmith, tiny, run_training, tmp_path):
    run = run_training(tiny("stylegan-lite", images=64, evaluate_every=64, sample_every=64), "styles")
    assert gansmith("sample", run.directory, "--count", "3", "--out", "free.npz")[0] == 0
    assert gansmith("sample", run.directory, "--count", "3", "--truncation", "0.5", "--out", "near.npz")[0] == 0
    assert gansmith("sample", run.directory, "--count", "3", "--truncation", "0.5", "--out", "near.png")[0] == 0
    with np.load(tmp_path / "free.npz") as free, np.load(tmp_path / "near.npz") as near:
        assert "truncation" not in free and near["truncation"] == 0.5
        assert not np.array_equal(free["images"], near["images"])
    assert read_npz(tmp_path / "free.npz").notices == ()
    assert read_npz(tmp_path / "near.npz").notices[0].startswith("its images were drawn with truncation 0.5")
    np.savez(tmp_path / "many.npz", images=np.zeros((2, 4, 4), np.uint8), truncation=np.ones(3))
    with pytest.raises(ValueError, match="holds 3 truncations; one number is needed"):
        read_npz(tmp_path / "many.npz")
    with Image.open(tmp_path / "near.png") as picture:
        assert picture.text == {"truncation": "0.5"}
    code, _, err = gansmith("sample", run.directory, "--truncation", "2")
    assert code == 2 and "between 0 and 1" in err


def test_truncation_is_refused_where_there_are_no_styles(tiny):
    config = tiny("mlp-small")
    model = Model(build_training_networks(config, SPEC).G, config, SPEC, torch.ones(1))
    with pytest.raises(ValueError, match="no styles to truncate"):
        truncate(model, 0.7)
