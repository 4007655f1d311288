"""Techniques: what each does to images, losses, gradients and weights."""

import math
from functools import partial

import pytest
import torch
from torch import nn

from gansmith.config import resolve
from gansmith.data.images import ImageSpec
from gansmith.networks import NETWORKS
from gansmith.networks.layers import ACTIVATIONS, MinibatchStddev, initialise, normalise_spectrally
from gansmith.recipes import RECIPES
from gansmith.training.machine import gains_by_bf16
from gansmith.training.penalties import Penalties, penalties_at
from gansmith.training.state import start_networks
from gansmith.training.step import Batch, DOutput, discriminator_step, generator_step, train_step
from gansmith.training.techniques import (
    add_instance_noise,
    build_techniques,
    clip_gradients,
    clip_weights,
    empty_buffers,
    g_auxiliary,
    replay,
)

SPEC = ImageSpec(8, 1, 3)


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def config_of(recipe="mlp-small", **choices):
    small = {"g_width": 8, "d_width": 8, "latent_dim": 4, "batch_size": 6, "precision": "float32"}
    return resolve(recipe, arguments={**small, **choices})


def setting(recipe="mlp-small", **choices):
    config = config_of(recipe, **choices)
    networks = start_networks(config, SPEC)
    return networks, build_techniques(config, networks.D), config


def batch_of(seed=0, **changes):
    draw, y = rng(seed), torch.tensor([0, 1, 2, 0, 1, 2])
    real, z = torch.rand(6, 1, 8, 8, generator=draw) * 2 - 1, torch.randn(6, 4, generator=draw)
    return Batch(real, y, z, y, draw, **changes)


def weights(network):
    return torch.cat([parameter.detach().flatten() for parameter in network.parameters()])


@pytest.mark.parametrize(
    "found, gainers",
    [
        ({}, []),
        ({"avx512_bf16": True}, ["mlp-small", "mlp-keras", "dcgan-sgd"]),
        ({"avx512_bf16": True, "amx_bf16": True}, ["mlp-keras", "dcgan-sgd"]),
    ],
)
def test_only_networks_that_gain_by_it_get_bfloat16(monkeypatch, found, gainers):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: found)
    configs = [resolve(name) for name in ("mlp-small", "mlp-keras", "dcgan-sgd")]
    pairs = [(config, start_networks(config, ImageSpec(28, 1, 10)).D) for config in configs]
    assert [config.recipe for config, D in pairs if gains_by_bf16(config, D)] == gainers
    for config, D in pairs:
        assert not build_techniques(config.replace(precision="float32"), D).autocast
        assert build_techniques(config.replace(precision="bfloat16"), D).autocast


def test_noise_has_its_strength_and_fades_along_a_line():
    images = torch.zeros(50, 1, 20, 20)
    add = partial(add_instance_noise, start=0.8, until=0.5)
    for progress, strength in ((0.0, 0.8), (0.25, 0.4), (0.4, 0.16)):
        noisy = add(images, Batch(images, None, None, None, rng(), progress))
        assert noisy.std().item() == pytest.approx(strength, rel=0.02)
        assert noisy.mean().item() == pytest.approx(0, abs=0.02)
    for progress in (0.5, 1.0):
        assert torch.equal(add(images, Batch(images, None, None, None, rng(), progress)), images)


def test_the_discriminator_sees_the_noise_and_the_generator_learns_through_it():
    networks, techniques, _ = setting(instance_noise=0.3)
    seen = []
    networks.D.register_forward_pre_hook(lambda module, given: seen.append(given[0].detach()))
    batch = batch_of()
    before = weights(networks.G)
    train_step(networks, batch, techniques, Penalties())
    assert (seen[0][:6] - batch.real).std().item() == pytest.approx(0.3, rel=0.15)
    assert not torch.equal(weights(networks.G), before)


def test_old_images_come_back_with_their_ids_and_new_ones_take_their_places():
    config = config_of(replay=0.5, replay_size=6)
    buffers = empty_buffers(config, (1, 1, 1))
    for step in range(40):
        fake = torch.arange(6.0).view(6, 1, 1, 1) + 10 * step
        images, y = replay(0.5, buffers, fake, Batch(fake, None, None, torch.arange(6) + 10 * step, rng(step)))
        assert (images.flatten() == y).all()  # an image keeps its own class id
        old = int((images.flatten() < 10 * step).sum())
        assert old == (0 if step == 0 else 3)
        assert int(buffers["replay_filled"]) == 6
    assert torch.equal(buffers["replay_images"].flatten().long(), buffers["replay_y"])
    assert len(buffers["replay_y"].unique()) == 6


def test_the_replay_buffer_fills_before_anything_is_swapped():
    buffers = empty_buffers(config_of(replay=0.5, replay_size=10), (1, 1, 1))
    for start, filled in ((0, 6), (6, 10)):
        fake = torch.arange(6.0).view(6, 1, 1, 1) + start
        batch = Batch(fake, None, None, torch.zeros(6, dtype=torch.int64), rng())
        images, _ = replay(0.5, buffers, fake, batch)
        assert torch.equal(images, fake) and int(buffers["replay_filled"]) == filled
    assert buffers["replay_images"].flatten().tolist() == list(range(10))


@pytest.mark.parametrize(
    ("name", "moves"), [("none", False), ("auto", False), ("shifts", True), ("flips", True), ("diffaugment", True)]
)
def test_the_chosen_augmentation_changes_every_batch_that_d_gets(name, moves):
    networks, techniques, _ = setting(augment=name)
    seen = []
    networks.D.register_forward_pre_hook(lambda module, given: seen.append(given[0].detach()))
    batch = batch_of()
    train_step(networks, batch, techniques, Penalties())
    assert torch.equal(seen[0][:6], batch.real) != moves


def test_adaptive_augmentation_follows_the_sign_of_real_logits():
    networks, techniques, _ = setting(augment="adaptive")
    buffers = networks.buffers
    logits = torch.ones(5000)
    assert techniques.adapt(buffers, logits, -logits) == {"augment_probability": pytest.approx(0.01)}
    assert buffers["augment_probability"].item() == pytest.approx(0.01)
    buffers["augment_probability"].fill_(1.0)
    images = torch.rand(200, 1, 8, 8, generator=rng()) * 2 - 1
    changed = techniques.augment(buffers, images, Batch(images, None, None, None, rng()))
    assert (changed != images).flatten(1).any(1).float().mean().item() == pytest.approx(1.0)
    buffers["augment_probability"].fill_(0.0)
    assert torch.equal(techniques.augment(buffers, images, Batch(images, None, None, None, rng())), images)


def test_gradients_are_clipped_together_and_only_when_long():
    gradients = [torch.tensor([3.0]), torch.tensor([[0.0, 4.0]])]
    short, same = clip_gradients(1.0, gradients), clip_gradients(6.0, gradients)
    torch.testing.assert_close([g.flatten() for g in short], [torch.tensor([0.6]), torch.tensor([0.0, 0.8])])
    torch.testing.assert_close(same, gradients)


def test_weights_are_clipped_after_the_discriminators_step():
    parameters = [torch.tensor([-3.0, 0.005, 2.0])]
    clip_weights(0.01, parameters)
    torch.testing.assert_close(parameters[0], torch.tensor([-0.01, 0.005, 0.01]))
    networks, techniques, config = setting(objective="wasserstein", clip_weights=0.02)
    assert weights(networks.D).abs().max().item() > 0.02
    train_step(networks, batch_of(), techniques, penalties_at(config, 0, 0.0, {}))
    assert weights(networks.D).abs().max().item() == pytest.approx(0.02)
    assert weights(networks.G).abs().max().item() > 0.02


def test_feature_matching_replaces_its_share_of_the_generators_loss():
    real = DOutput(torch.zeros(2), torch.zeros(2), torch.tensor([[1.0, 0.0], [3.0, 0.0]]))
    fake = DOutput(torch.zeros(2), torch.zeros(2), torch.tensor([[0.0, 1.0], [0.0, 1.0]]))
    for share, total in ((0.25, 0.75 * 7 + 0.25 * 5), (1.0, 5.0)):
        assert g_auxiliary(share, 0.0, 1, torch.tensor(7.0), real, fake).item() == pytest.approx(total)
    networks, techniques, config = setting(feature_matching=1.0)
    before = weights(networks.G)
    train_step(networks, batch_of(), techniques, penalties_at(config, 0, 0.0, {}))
    assert not torch.equal(weights(networks.G), before)


def test_boundary_equilibrium_weighs_reconstruction_errors_and_keeps_their_balance():
    """Against the paper's three equations by hand: losses of both networks, and k of the next step."""
    choices = dict(objective="boundary-equilibrium", network="autoencoder", g_optimizer="sgd", d_optimizer="sgd")
    networks, techniques, config = setting(**choices, g_lr=1.0, d_lr=1.0, began_gamma=0.7)
    G, D, batch = networks.G, networks.D, batch_of()
    networks.buffers["balance"].fill_(0.25)
    fake = G(batch.z, batch.fake_y).detach()
    autoencoder = D.layers[0].autoencoder

    def error(images):
        return (images - autoencoder(images)).abs().mean()

    real_error, fake_error = error(batch.real), error(fake)
    gradients = torch.autograd.grad(real_error - 0.25 * fake_error, list(D.parameters()))
    before = weights(D)
    numbers = discriminator_step(networks, batch, techniques, Penalties(), fake)
    torch.testing.assert_close(before - weights(D), torch.cat([g.flatten() for g in gradients]), rtol=1e-4, atol=1e-6)
    short = 0.7 * real_error.item() - fake_error.item()
    assert numbers["balance"] == pytest.approx(0.25 + 0.001 * short)
    assert numbers["convergence"] == pytest.approx(real_error.item() + abs(short), rel=1e-5)

    g_gradients = torch.autograd.grad(error(G(batch.z, batch.fake_y)), list(G.parameters()))
    before = weights(G)
    generator_step(networks, batch, techniques, G(batch.z, batch.fake_y))
    torch.testing.assert_close(before - weights(G), torch.cat([g.flatten() for g in g_gradients]), rtol=1e-4, atol=1e-6)


def test_an_auxiliary_classifier_adds_its_losses_to_both_networks():
    networks, techniques, _ = setting(
        objective="auxiliary-classifier", conditioning="labels", d_conditioning="classifier",
        g_optimizer="sgd", d_optimizer="sgd", g_lr=1.0, d_lr=1.0,
    )  # fmt: skip
    G, D, batch = networks.G, networks.D, batch_of()
    fake = G(batch.z, batch.fake_y).detach()
    bce, ce = nn.functional.binary_cross_entropy_with_logits, nn.functional.cross_entropy
    loss = 0.0
    for images, target in ((batch.real, torch.ones(6)), (fake, torch.zeros(6))):
        features = D.layers(images)
        loss = loss + bce(D.head(features).flatten(), target) + ce(D.classifier(features), batch.real_y)
    gradients = torch.autograd.grad(loss, list(D.parameters()))
    before = weights(D)
    discriminator_step(networks, batch, techniques, Penalties(), fake)
    torch.testing.assert_close(before - weights(D), torch.cat([g.flatten() for g in gradients]), rtol=1e-4, atol=1e-5)

    features = D.layers(G(batch.z, batch.fake_y))
    g_loss = bce(D.head(features).flatten(), torch.ones(6)) + ce(D.classifier(features), batch.fake_y)
    gradients = torch.autograd.grad(g_loss, list(G.parameters()))
    before = weights(G)
    generator_step(networks, batch, techniques, G(batch.z, batch.fake_y))
    torch.testing.assert_close(before - weights(G), torch.cat([g.flatten() for g in gradients]), rtol=1e-4, atol=1e-5)


def test_penalties_elsewhere_get_noisy_images_too():
    networks, techniques, config = setting(objective="wasserstein", gradient_penalty=10.0, instance_noise=5.0)
    seen = []
    networks.D.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].std().item()))
    fake = networks.G(batch_of().z, batch_of().fake_y)
    discriminator_step(networks, batch_of(), techniques, penalties_at(config, 0, 0.0, {}), fake)
    assert len(seen) >= 2 and seen == pytest.approx([5.0] * len(seen), rel=0.1)


def test_minibatch_stddev_is_the_mean_standard_deviation_over_each_group():
    features = torch.tensor([[1.0, 4.0], [3.0, 4.0]])
    torch.testing.assert_close(MinibatchStddev(2)(features)[:, 2], torch.tensor([0.5, 0.5]), rtol=0, atol=1e-4)
    maps = torch.randn(4, 3, 5, 5)
    whole, halves = MinibatchStddev(4)(maps), MinibatchStddev(2)(maps)
    assert whole.shape == halves.shape == (4, 4, 5, 5)
    torch.testing.assert_close(whole[:, 3], maps.std(0, unbiased=False).mean().expand(4, 5, 5))
    for group in (slice(0, 2), slice(2, 4)):
        expected = maps[group].std(0, unbiased=False).mean()
        torch.testing.assert_close(halves[group, 3], expected.expand(2, 5, 5), rtol=1e-4, atol=1e-4)


def test_spectral_norm_makes_the_largest_singular_value_one():
    network = nn.Sequential(nn.Linear(6, 5), nn.Conv2d(2, 3, 3))
    normalise_spectrally(network)
    for _ in range(200):  # one power iteration a pass
        network[0](torch.randn(2, 6)), network[1](torch.randn(1, 2, 5, 5))
    for layer in network:
        matrix = layer.weight.detach().flatten(1)
        assert torch.linalg.matrix_norm(matrix, 2).item() == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize(
    ("scheme", "spread"),
    [
        ("normal", 0.02),
        ("glorot", math.sqrt(2 / (400 + 300))),
        ("he", math.sqrt(2 / 400)),
        ("orthogonal", 1 / math.sqrt(400)),
    ],
)
def test_initial_weights_have_the_spread_of_their_scheme(scheme, spread):
    network = nn.Sequential(nn.Linear(400, 300), nn.Embedding(20, 50))
    initialise(network, scheme)
    assert network[0].weight.std().item() == pytest.approx(spread, rel=0.02)
    assert network[0].bias.abs().max().item() == pytest.approx(0)
    if scheme == "orthogonal":
        torch.testing.assert_close(network[0].weight @ network[0].weight.T, torch.eye(300), rtol=0, atol=1e-5)
    if scheme == "glorot":
        assert network[1].weight.abs().max().item() == pytest.approx(0.05, rel=0.02)


def test_the_default_scheme_keeps_the_networks_own_weights():
    network = nn.Linear(4, 4)
    before = network.weight.detach().clone()
    initialise(network, "default")
    assert torch.equal(network.weight, before)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_a_chosen_activation_replaces_the_networks_own(name):
    networks, _, _ = setting("mlp-keras", g_activation=name, d_activation=name)
    kind = type(ACTIVATIONS[name]())
    assert sum(isinstance(layer, kind) for layer in networks.D.modules()) == 2
    assert sum(isinstance(layer, kind) for layer in networks.G.modules()) == 3 + (name == "tanh")
    assert not any(isinstance(layer, nn.LeakyReLU) for layer in networks.D.modules()) or name == "leaky-relu"
    networks, _, _ = setting("default", conditioning="none", g_activation=name, d_activation=name)
    assert sum(isinstance(layer, kind) for layer in networks.D.modules()) == 4


@pytest.mark.parametrize("g_weight", [0.0, 0.2])
def test_d_learns_by_how_many_quarters_images_are_turned_and_g_to_draw_what_it_names_rightly(g_weight):
    """Against the losses by hand: of six images the first and the fifth are turned."""
    choices = dict(g_optimizer="sgd", d_optimizer="sgd", g_lr=1.0, d_lr=1.0, minibatch_stddev=0)
    networks, techniques, _ = setting(
        "default", conditioning="none", d_rotation_loss=0.3, g_rotation_loss=g_weight, **choices
    )
    G, D, batch, y = networks.G, networks.D, batch_of(), torch.zeros(6, dtype=torch.int64)
    batch = Batch(batch.real, y, batch.z, y, batch.rng)
    fake = G(batch.z, batch.fake_y)
    bce, ce = nn.BCEWithLogitsLoss(), nn.CrossEntropyLoss()

    def named(images):
        logits = [
            D.rotation(D.features(torch.rot90(images[k], turns, (1, 2))[None], y[k : k + 1]))
            for turns in range(4)
            for k in (0, 4)
        ]
        return ce(torch.cat(logits), torch.tensor([0, 0, 1, 1, 2, 2, 3, 3]))

    loss = bce(D(batch.real, y), torch.ones(6)) + bce(D(fake.detach(), y), torch.zeros(6))
    loss = loss + 0.3 * named(batch.real)
    gradients = torch.autograd.grad(loss, list(D.parameters()))
    before = weights(D)
    discriminator_step(networks, batch, techniques, Penalties(), fake)
    torch.testing.assert_close(before - weights(D), torch.cat([g.flatten() for g in gradients]), rtol=1e-4, atol=1e-6)

    g_loss = bce(D(fake, y), torch.ones(6)) + g_weight * named(fake)
    gradients = torch.autograd.grad(g_loss, list(G.parameters()), retain_graph=True)
    before = weights(G)
    generator_step(networks, batch, techniques, fake)
    torch.testing.assert_close(before - weights(G), torch.cat([g.flatten() for g in gradients]), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("recipe", ["default", "mlp-small"])
@pytest.mark.parametrize("g_weight", [0.0, 0.2])
def test_d_learns_the_labels_of_real_images_and_g_to_draw_what_d_names_rightly(recipe, g_weight):
    """Against the losses by hand; ids 0 to 5 are two sub-clusters of each of three labels."""
    choices = dict(conditioning="labels", clusters_per_class=2, minibatch_stddev=0)
    networks, techniques, config = setting(
        recipe,
        d_class_loss=0.3,
        g_class_loss=g_weight,
        g_optimizer="sgd",
        d_optimizer="sgd",
        g_lr=1.0,
        d_lr=1.0,
        **choices,
    )
    G, D, y = networks.G, networks.D, torch.tensor([0, 1, 2, 3, 4, 5])
    assert D.classifier.out_features == 3
    batch = batch_of()
    batch = Batch(batch.real, y, batch.z, y.flip(0), batch.rng)
    fake = G(batch.z, batch.fake_y)
    bce, ce = nn.BCEWithLogitsLoss(), nn.CrossEntropyLoss()

    loss = bce(D(batch.real, y), torch.ones(6)) + bce(D(fake.detach(), batch.fake_y), torch.zeros(6))
    loss = loss + 0.3 * ce(D.classifier(D.features(batch.real, y)), torch.tensor([0, 0, 1, 1, 2, 2]))
    gradients = torch.autograd.grad(loss, list(D.parameters()))
    before = weights(D)
    discriminator_step(networks, batch, techniques, Penalties(), fake)
    torch.testing.assert_close(before - weights(D), torch.cat([g.flatten() for g in gradients]), rtol=1e-4, atol=1e-6)

    named = ce(D.classifier(D.features(fake, batch.fake_y)), torch.tensor([2, 2, 1, 1, 0, 0]))
    g_loss = bce(D(fake, batch.fake_y), torch.ones(6)) + g_weight * named
    gradients = torch.autograd.grad(g_loss, list(G.parameters()), retain_graph=True)
    before = weights(G)
    generator_step(networks, batch, techniques, fake)
    torch.testing.assert_close(before - weights(G), torch.cat([g.flatten() for g in gradients]), rtol=1e-4, atol=1e-6)


def test_a_recipe_classifies_nothing_where_nothing_can_be_classified(monkeypatch):
    """The choice is the recipe's; a network without classifier, or no condition, is the user's."""
    monkeypatch.setitem(RECIPES, "classifying", dict(RECIPES["mlp-small"], d_class_loss=0.5))
    plain = nn.Sequential(nn.Flatten(), nn.Linear(64, 1))
    monkeypatch.setitem(NETWORKS, "plain", lambda spec, config: (nn.Linear(4, 4), plain))
    for choices in (
        {"conditioning": "none"},
        {"conditioning": "clusters"},
        {"conditioning": "labels", "network": "plain"},
    ):
        networks, techniques, _ = setting("classifying", **choices)
        assert getattr(networks.D, "classifier", None) is None and not techniques.wants_classes


def test_a_small_share_of_a_batch_is_one_image():
    buffers = empty_buffers(config_of(replay=0.01, replay_size=4), (1, 1, 1))
    for start in (0, 10):
        batch = Batch(torch.zeros(6, 1, 1, 1), None, None, torch.zeros(6, dtype=torch.int64), rng())
        images, _ = replay(0.01, buffers, torch.arange(6.0).view(6, 1, 1, 1) + start, batch)
    assert images.flatten().tolist()[1:] == [11.0, 12.0, 13.0, 14.0, 15.0] and images.flatten()[0] < 4


@pytest.mark.parametrize("scheme", ["normal", "orthogonal"])
def test_styles_scale_by_one_at_first_under_any_initialisation(scheme):
    G = start_networks(config_of("stylegan-lite", weight_init=scheme), ImageSpec(16, 1, 0)).G
    biases = [value for name, value in G.named_parameters() if name.endswith("style.bias")]
    assert len(biases) > 2 and all((bias == 1).all() for bias in biases)
