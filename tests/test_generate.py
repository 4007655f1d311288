"""Sample k is one image, whatever is drawn around it."""

import copy
import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from gansmith.config import Config, resolve
from gansmith.data.images import ImageSpec, to_uint8
from gansmith.sampling import Model, choose_ids, class_walk, draw_latents, generate, grid, latent_walk, numpy_latents, read_latents, sample, shape_latents, slerp
from gansmith.conditioning import spread_evenly, conditioned_spec
from gansmith.pictures.grids import enlarge
from gansmith.models import load_generator
from gansmith.training.calibration import calibrate_output, recompute_batch_statistics, output_layer
from gansmith.networks import NETWORKS
from gansmith.networks.layers import Dropout
from gansmith.training.loop import build_training_networks


def model(**flags):
    channels = flags.pop("channels", 1)
    config = resolve(
        flags.pop("recipe", "default"),
        arguments={"g_width": 8, "d_width": 8, "latent_dim": 8, "conditioning": "labels", "clusters_per_class": 1, **flags},
    )
    spec = ImageSpec(size=28, channels=channels, num_classes=10 if config.conditioning == "labels" else 0)
    G = NETWORKS[config.network](conditioned_spec(spec, config), config)[0].eval()
    ids = max(1, conditioned_spec(spec, config).num_classes)
    return Model(G, config, spec, torch.ones(ids, dtype=torch.float64) / ids)


@pytest.mark.parametrize("recipe", ["default", "mlp-small", "dcgan-sgd"])
def test_sample_k_is_the_same_image_at_any_count(recipe):
    drawer = model(recipe=recipe, **({} if recipe == "default" else {"conditioning": "none"}))
    images, labels = sample(drawer, seed=7, count=130)
    for count in (1, 25, 64, 65):
        fewer, fewer_labels = sample(drawer, seed=7, count=count)
        assert torch.equal(fewer, images[:count]) and torch.equal(fewer_labels, labels[:count])
    assert not torch.equal(sample(drawer, seed=8, count=130)[0], images)


def test_dropout_while_sampling_is_a_function_of_the_latent():
    drawer = model(recipe="mlp-small", conditioning="none", g_dropout=0.5)
    images, _ = sample(drawer, seed=7, count=70)
    assert torch.equal(sample(drawer, seed=7, count=3)[0], images[:3])
    latents = draw_latents(drawer.config, seed=7, count=2)
    latents[1] = latents[0]
    twins = generate(drawer, latents, torch.zeros(2, dtype=torch.int64))
    assert torch.equal(twins[0], twins[1]) and torch.equal(twins[0], images[0])
    dropouts = [layer for layer in drawer.G.modules() if isinstance(layer, Dropout)]
    assert dropouts and all(layer.sources is None for layer in dropouts)
    with torch.no_grad():  # no mask is left behind, and none was the mean network's
        assert not torch.equal(to_uint8(drawer.G(latents[:1], torch.zeros(1, dtype=torch.int64))), images[:1])


def test_sampled_dropout_drops_its_share_of_each_image():
    layer = Dropout(0.25).eval()
    layer.sources = [torch.Generator().manual_seed(k) for k in range(3)]
    kept = layer(torch.ones(3, 4000))
    torch.testing.assert_close((kept == 0).float().mean(1), torch.full((3,), 0.25), rtol=0, atol=0.03)
    assert kept.unique().tolist() == pytest.approx([0, 1 / 0.75])


def test_latents_have_the_distribution_asked_for():
    normal = draw_latents(Config(latent_dim=50), seed=0, count=400)
    sphere = draw_latents(Config(latent_dim=50, latent_distribution="sphere"), seed=0, count=400)
    torch.testing.assert_close(sphere.norm(dim=1), torch.full((400,), math.sqrt(50)))
    torch.testing.assert_close(sphere / sphere[:, :1], normal / normal[:, :1], rtol=1e-3, atol=1e-3)
    uniform = draw_latents(Config(latent_dim=50, latent_distribution="uniform"), seed=0, count=400)
    counts = torch.histc(uniform, bins=4, min=-1, max=1) / uniform.numel()
    torch.testing.assert_close(counts, torch.full((4,), 0.25), rtol=0, atol=0.01)
    assert torch.equal(shape_latents(normal, "normal"), normal)


def test_latents_and_ids_follow_their_distributions():
    latents = draw_latents(Config(latent_dim=16), seed=0, count=2000)
    assert latents.mean().item() == pytest.approx(0, abs=0.02) and latents.std().item() == pytest.approx(1, abs=0.02)
    shares = torch.bincount(spread_evenly(torch.tensor([0.2, 0.0, 0.5, 0.3]), seed=0, count=4000), minlength=4) / 4000
    torch.testing.assert_close(shares, torch.tensor([0.2, 0.0, 0.5, 0.3]), atol=0.025, rtol=0)


def test_any_run_of_ids_holds_each_in_its_share():
    frequencies = torch.tensor([0.2, 0.0, 0.5, 0.3])
    ids = spread_evenly(frequencies, seed=3, count=5000)
    assert torch.equal(ids[:37], spread_evenly(frequencies, seed=3, count=37))
    assert not torch.equal(ids, spread_evenly(frequencies, seed=4, count=5000))
    for start, count in ((0, 10), (17, 40), (1234, 3000)):
        counts = torch.bincount(ids[start : start + count], minlength=4)
        assert (counts - count * frequencies).abs().max() < 3.0  # independent ones: 27 of 3,000
    thousand = torch.bincount(spread_evenly(torch.ones(1000), seed=0, count=10_000), minlength=1000)
    assert thousand.min() >= 8 and thousand.max() <= 12


@pytest.mark.parametrize("channels", [1, 3])
def test_drawn_images_get_the_tones_asked_for(channels):
    drawer = model(channels=channels)
    layer, frequencies = output_layer(drawer.G, channels), drawer.frequencies
    before = {name: value.clone() for name, value in drawer.G.state_dict().items()}

    def tones(seed: int) -> torch.Tensor:
        pixels = sample(drawer, seed=seed, count=2000)[0].double() / 127.5 - 1
        return torch.stack([pixels.mean((0, 2, 3)), pixels.square().mean((0, 2, 3))], dim=1).float()

    own = tones(4)
    wanted = own + torch.tensor([[-0.08, 0.01], [0.05, -0.01], [0.03, 0.01]])[:channels]
    calibrate_output(drawer.G, drawer.config, frequencies, wanted)
    torch.testing.assert_close(tones(5), wanted, rtol=0, atol=0.004)
    changed = {name for name, value in drawer.G.state_dict().items() if not torch.equal(value, before[name])}
    assert {name.rsplit(".", 1)[1] for name in changed} == {"weight", "bias"} and len(changed) == 2
    known = {name: value.clone() for name, value in layer.state_dict().items()}
    with torch.no_grad():
        gains = torch.tensor([0.9, 1.05, 1.1])[:channels].repeat_interleave(len(layer.bias) // channels)
        layer.weight.mul_(gains[:, None, None, None])
        layer.bias.mul_(gains).add_(torch.tensor([0.2, -0.1, 0.3])[:channels].repeat_interleave(len(gains) // channels))
    calibrate_output(drawer.G, drawer.config, frequencies, wanted)
    for name, value in layer.state_dict().items():
        torch.testing.assert_close(value, known[name], rtol=0, atol=1e-4)


def test_no_tone_is_out_of_reach_of_sense():
    """A generator that draws nothing but black cannot be told by how much; what it is changed by stays bounded."""
    drawer = model()
    layer = output_layer(drawer.G)
    with torch.no_grad():
        layer.bias.fill_(-50.0)
    weights = layer.weight.clone()
    calibrate_output(drawer.G, drawer.config, drawer.frequencies, torch.tensor([[0.0, 0.5]]))
    assert layer.bias.isfinite().all() and (-63.1 <= layer.bias).all() and (layer.bias <= -39.4).all()
    assert (layer.weight.abs() <= 1.2501 * weights.abs()).all() and (layer.weight.abs() >= 0.799 * weights.abs()).all()


def test_numpy_latents_are_those_of_the_legacy_generator():
    expected = np.random.RandomState(504).normal(size=(25, 100))
    torch.testing.assert_close(
        numpy_latents(Config(latent_dim=100), seed=504, count=25).double().numpy(), expected, rtol=1e-6, atol=1e-7
    )


def test_chosen_labels_repeat_and_unknown_ones_are_refused():
    drawer = model()
    assert drawer.conditioning.draw(seed=0, count=5, labels=[2, 0]).tolist() == [2, 0, 2, 0, 2]
    for wrong in ([10], [-1], []):
        with pytest.raises(ValueError, match="knows 0 to 9"):
            drawer.conditioning.draw(seed=0, count=5, labels=wrong)
    for conditioning in ("none", "clusters"):
        with pytest.raises(ValueError, match="trained without labels"):
            model(conditioning=conditioning).conditioning.draw(seed=0, count=5, labels=[1])
        assert sample(model(conditioning=conditioning), seed=0, count=3)[1].tolist() == [-1, -1, -1]


def test_chosen_labels_take_their_clusters_in_turn():
    drawer = model(clusters_per_class=3)
    frequencies = torch.tensor([0.1, 0.0, 0.3]).repeat(10).double()
    frequencies[12:15] = 0  # label 4
    drawer = replace(drawer, frequencies=frequencies)
    ids = drawer.conditioning.draw(seed=1, count=400, labels=[7, 2])
    assert drawer.labels_of(ids).tolist() == [7, 2] * 200
    assert torch.equal(ids[:9], drawer.conditioning.draw(seed=1, count=9, labels=[7, 2]))
    for label in (2, 7):
        shares = torch.bincount(ids[ids // 3 == label] - 3 * label, minlength=3) / 200
        torch.testing.assert_close(shares, torch.tensor([0.25, 0.0, 0.75]), rtol=0, atol=0.02)
    images, labels = sample(drawer, seed=1, count=400)
    assert set(labels.tolist()) == {0, 1, 2, 3, 5, 6, 7, 8, 9}
    assert torch.equal(images[:3], sample(drawer, seed=1, count=3)[0])
    with pytest.raises(ValueError, match="no label 4"):
        drawer.conditioning.draw(seed=0, count=5, labels=[4])


@pytest.mark.parametrize("count", [1, 5, 8, 10, 13, 21])  # steps of the golden ratio nearly close after 8, 13 and 21
def test_chosen_labels_spread_over_their_clusters(count):
    drawer = model(clusters_per_class=200)
    drawer = replace(drawer, frequencies=torch.full((2000,), 1 / 2000, dtype=torch.float64))
    labels = [k % 10 for k in range(count)]
    ids = drawer.conditioning.draw(seed=0, count=10 * count, labels=labels)
    each = labels.count(0) * 10
    drawn = (ids[ids // 200 == 0] % 200).sort().values
    gaps = torch.cat([drawn[1:] - drawn[:-1], drawn[:1] + 200 - drawn[-1:]])
    # No gap is more than 1.9 times the mean one, however many steps of the golden ratio are taken.
    assert len(drawn) == each and 200 / each <= gaps.max() <= 380 / each + 1


def test_averaged_weights_need_statistics_of_their_own():
    """The reason to recompute: an average of weights carries none of the statistics that its maps really have."""
    config = resolve("dcgan-sgd", arguments={"g_width": 16, "d_width": 16, "latent_dim": 8})
    spec = ImageSpec(size=28, channels=1, num_classes=0)
    ends = [build_training_networks(config.replace(seed=seed), spec).G for seed in (0, 1)]
    for G in ends:
        recompute_batch_statistics(G, config, torch.ones(1))
    average = copy.deepcopy(ends[0])
    with torch.no_grad():
        for parameter, other in zip(average.parameters(), ends[1].parameters(), strict=True):
            parameter.lerp_(other, 0.5)
    z = torch.randn(256, 8, generator=torch.Generator().manual_seed(3))

    def spread_after_first_norm(G):
        G.eval()
        with torch.no_grad():
            return G.layers[:3](z).std((0, 2, 3)).mean().item()

    stale = spread_after_first_norm(average)
    recompute_batch_statistics(average, config, torch.ones(1))
    assert spread_after_first_norm(average) == pytest.approx(1.0, abs=0.1)
    assert stale < 0.85  # maps come out too weak with statistics that belong to other weights
    first = copy.deepcopy(average.state_dict())
    recompute_batch_statistics(average, config, torch.ones(1))
    torch.testing.assert_close(average.state_dict(), first, rtol=0, atol=0)


def test_grids_hold_each_image_in_its_place():
    images = torch.arange(7, dtype=torch.uint8).view(7, 1, 1, 1).expand(7, 1, 2, 2)
    pixels = np.asarray(grid(images, columns=3))
    assert pixels.shape == (6, 6)
    assert pixels[::2, ::2].tolist() == [[0, 1, 2], [3, 4, 5], [6, 0, 0]]
    assert grid(torch.zeros(25, 1, 28, 28, dtype=torch.uint8)).size == (140, 140)
    assert np.asarray(grid(torch.zeros(2, 3, 4, 4, dtype=torch.uint8))).shape == (4, 8, 3)
    assert enlarge(grid(images, columns=3), at_least_px=13).size == (18, 18)


def test_latent_files_are_checked(tmp_path):
    path = tmp_path / "z.npy"
    np.save(path, np.ones((3, 8)))
    assert read_latents(path, 8).shape == (3, 8)
    for wrong in (
        np.ones((3, 7)),
        np.ones(8),
        np.full((2, 8), np.nan),
        np.array([["a"] * 8]),
        np.ones((0, 8)),
    ):
        np.save(path, wrong)
        with pytest.raises(ValueError, match=str(path)):
            read_latents(path, 8)
    np.save(path, np.array([[object()] * 8]), allow_pickle=True)
    with pytest.raises(ValueError, match="object .*plain numbers"):
        read_latents(path, 8)


def test_chunks_are_padded_not_shared():
    drawer = model()
    z, ids = draw_latents(Config(latent_dim=8), seed=1, count=70), torch.zeros(70, dtype=torch.int64)
    whole = generate(drawer, z, ids)
    other = z.clone()
    other[1:] += 5
    assert torch.equal(generate(drawer, other, ids)[0], whole[0])
    assert generate(drawer, z[:0], ids[:0]).shape == (0, 1, 28, 28)


def test_missing_models_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="no file or run"):
        load_generator(tmp_path / "nothing")
    with pytest.raises(FileNotFoundError, match="holds no run"):
        load_generator(tmp_path)


def test_the_arc_between_two_latents_keeps_their_length_and_turns_evenly():
    start, end = torch.tensor([2.0, 0.0, 0.0]), torch.tensor([0.0, 2.0, 0.0])
    for share in (0.0, 0.25, 1.0):
        angle = torch.tensor(share * torch.pi / 2)
        expected = 2 * torch.stack([angle.cos(), angle.sin(), torch.tensor(0.0)])
        torch.testing.assert_close(slerp(start, end, share), expected, atol=1e-6, rtol=0)
    torch.testing.assert_close(slerp(start, 3 * start, 0.5), 2 * start)


def test_a_latent_walk_passes_each_seed_and_closes():
    drawer = model()
    walk = latent_walk(drawer, seeds=[3, 5], steps=4, label=2)
    assert walk.shape == (8, 1, 28, 28)
    for k, seed in ((0, 3), (4, 5)):
        assert torch.equal(walk[k], sample(drawer, seed=seed, count=1, labels=[2])[0][0])


def test_a_class_walk_passes_each_class_and_leaves_the_generator_alone():
    drawer = model()
    before = {name: value.clone() for name, value in drawer.G.state_dict().items()}
    walk = class_walk(drawer, seed=3, ids=[1, 7], steps=5)
    assert walk.shape == (10, 1, 28, 28)
    for k, label in ((0, 1), (5, 7)):
        assert torch.equal(walk[k], sample(drawer, seed=3, count=1, labels=[label])[0][0])
    assert not torch.equal(walk[2], walk[0])
    assert all(torch.equal(value, before[name]) for name, value in drawer.G.state_dict().items())
    with pytest.raises(ValueError, match="cannot walk between"):
        class_walk(model(conditioning="none"), seed=0, ids=[0, 1], steps=2)
