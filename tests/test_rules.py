"""Techniques: what each does to images, gradients and weights, and which combinations are refused."""

import copy
import math

import pytest
import torch
from test_step import JOINT
from torch import nn

from gansmith.config import resolve
from gansmith.data.images import ImageSpec
from gansmith.networks.layers import ACTIVATIONS, MinibatchStddev, initialise, normalise_spectrally
from gansmith.training.optimizers import OPTIMIZERS, build_optimizer
from gansmith.training.techniques import build_techniques, clip_grad_norm, clip_weights, empty_buffers, g_auxiliary, noise, replay
from gansmith.training.machine import gains_by_bf16
from gansmith.training.penalties import penalties_at
from gansmith.training.step import Batch, DOutput, alternating_step, discriminator_step, generator_step
from gansmith.training.penalties import Penalties
from gansmith.training.loop import build_training_networks

SPEC = ImageSpec(8, 1, 3)


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def config_of(recipe="mlp-small", **flags):
    small = {"g_width": 8, "d_width": 8, "latent_dim": 4, "batch_size": 6, "precision": "float32"}
    return resolve(recipe, arguments={**small, **flags})


def setting(recipe="mlp-small", **flags):
    config = config_of(recipe, **flags)
    networks = build_training_networks(config, SPEC)
    return networks, build_techniques(config, networks.D), config


def batch_of(seed=0, **changes):
    draw, ids = rng(seed), torch.tensor([0, 1, 2, 0, 1, 2])
    real, z = torch.rand(6, 1, 8, 8, generator=draw) * 2 - 1, torch.randn(6, 4, generator=draw)
    return Batch(real, ids, z, ids, draw, **changes)


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
def test_only_pairs_that_gain_by_it_are_given_bfloat16(monkeypatch, found, gainers):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: found)
    configs = [resolve(name) for name in ("mlp-small", "mlp-keras", "dcgan-sgd")]
    pairs = [(config, build_training_networks(config, ImageSpec(28, 1, 10)).D) for config in configs]
    assert [config.recipe for config, D in pairs if gains_by_bf16(config, D)] == gainers
    for config, D in pairs:
        assert not build_techniques(config.replace(precision="float32"), D).autocast
        assert build_techniques(config.replace(precision="bfloat16"), D).autocast


def test_noise_has_its_strength_and_fades_along_a_line():
    images = torch.zeros(50, 1, 20, 20)
    show = noise(0.8, until=0.5)
    for progress, strength in ((0.0, 0.8), (0.25, 0.4), (0.4, 0.16)):
        shown = show(images, Batch(images, None, None, None, rng(), progress))
        assert shown.std().item() == pytest.approx(strength, rel=0.02)
        assert shown.mean().item() == pytest.approx(0, abs=0.02)
    for progress in (0.5, 1.0):
        assert torch.equal(show(images, Batch(images, None, None, None, rng(), progress)), images)


def test_the_discriminator_sees_the_noise_and_the_generator_learns_through_it():
    networks, rules, _ = setting(instance_noise=0.3)
    seen = []
    networks.D.register_forward_pre_hook(lambda module, given: seen.append(given[0].detach()))
    batch = batch_of()
    before = weights(networks.G)
    alternating_step(networks, batch, rules, Penalties())
    assert (seen[0][:6] - batch.real).std().item() == pytest.approx(0.3, rel=0.15)
    assert not torch.equal(weights(networks.G), before)


def test_old_images_come_back_with_their_ids_and_new_ones_take_their_places():
    config = config_of(replay=0.5, replay_size=6)
    memory, recall = empty_buffers(config, (1, 1, 1)), replay(0.5)
    for step in range(40):
        fake = torch.arange(6.0).view(6, 1, 1, 1) + 10 * step
        images, ids = recall(memory, fake, Batch(fake, None, None, torch.arange(6) + 10 * step, rng(step)))
        assert (images.flatten() == ids).all()  # a picture is never told another's id
        old = int((images.flatten() < 10 * step).sum())
        assert old == (0 if step == 0 else 3)
        assert int(memory["replay_filled"]) == 6
    assert torch.equal(memory["replay_images"].flatten().long(), memory["replay_ids"])
    assert len(memory["replay_ids"].unique()) == 6


def test_memory_fills_before_anything_is_swapped():
    memory, recall = empty_buffers(config_of(replay=0.5, replay_size=10), (1, 1, 1)), replay(0.5)
    for start, filled in ((0, 6), (6, 10)):
        fake = torch.arange(6.0).view(6, 1, 1, 1) + start
        images, _ = recall(memory, fake, Batch(fake, None, None, torch.zeros(6, dtype=torch.int64), rng()))
        assert torch.equal(images, fake) and int(memory["replay_filled"]) == filled
    assert memory["replay_images"].flatten().tolist() == list(range(10))


def test_gradients_are_shortened_together_and_only_when_long():
    gradients = [torch.tensor([3.0]), torch.tensor([[0.0, 4.0]])]
    short, same = clip_grad_norm(1.0)(gradients), clip_grad_norm(6.0)(gradients)
    torch.testing.assert_close([g.flatten() for g in short], [torch.tensor([0.6]), torch.tensor([0.0, 0.8])])
    torch.testing.assert_close(same, gradients)


def test_weights_are_clipped_after_the_discriminators_step():
    parameters = [torch.tensor([-3.0, 0.005, 2.0])]
    clip_weights(0.01)(parameters)
    torch.testing.assert_close(parameters[0], torch.tensor([-0.01, 0.005, 0.01]))
    networks, rules, config = setting(objective="wasserstein", clip_weights=0.02)
    assert weights(networks.D).abs().max().item() > 0.02
    alternating_step(networks, batch_of(), rules, penalties_at(config, 0, 0.0, {}))
    assert weights(networks.D).abs().max().item() == pytest.approx(0.02)
    assert weights(networks.G).abs().max().item() > 0.02


def test_feature_matching_replaces_its_share_of_the_generators_loss():
    real = DOutput(torch.zeros(2), torch.zeros(2), torch.tensor([[1.0, 0.0], [3.0, 0.0]]))
    fake = DOutput(torch.zeros(2), torch.zeros(2), torch.tensor([[0.0, 1.0], [0.0, 1.0]]))
    for share, total in ((0.25, 0.75 * 7 + 0.25 * 5), (1.0, 5.0)):
        assert g_auxiliary(share, False)(torch.tensor(7.0), real, fake).item() == pytest.approx(total)
    networks, rules, config = setting(feature_matching=1.0)
    before = weights(networks.G)
    alternating_step(networks, batch_of(), rules, penalties_at(config, 0, 0.0, {}))
    assert not torch.equal(weights(networks.G), before)


def test_boundary_equilibrium_weighs_errors_of_redrawing_and_keeps_their_balance():
    """Against the paper's three equations by hand: losses of both networks, and k of the next step."""
    flags = dict(objective="boundary-equilibrium", network="autoencoder", g_optimizer="sgd", d_optimizer="sgd")
    networks, rules, config = setting(**flags, g_lr=1.0, d_lr=1.0, balance=0.7)
    G, D, batch = networks.G, networks.D, batch_of()
    networks.buffers["balance"].fill_(0.25)
    fake = G(batch.z, batch.fake_y).detach()
    redraw = D.layers[0].redraw

    def error(images):
        return (images - redraw(images)).abs().mean()

    real_error, fake_error = error(batch.real), error(fake)
    gradients = torch.autograd.grad(real_error - 0.25 * fake_error, list(D.parameters()))
    before = weights(D)
    numbers = discriminator_step(networks, batch, rules, Penalties(), fake)
    torch.testing.assert_close(before - weights(D), torch.cat([g.flatten() for g in gradients]), rtol=1e-4, atol=1e-6)
    short = 0.7 * real_error.item() - fake_error.item()
    assert numbers["balance"] == pytest.approx(0.25 + 0.001 * short)
    assert numbers["convergence"] == pytest.approx(real_error.item() + abs(short), rel=1e-5)

    g_gradients = torch.autograd.grad(error(G(batch.z, batch.fake_y)), list(G.parameters()))
    before = weights(G)
    generator_step(networks, batch, rules, G(batch.z, batch.fake_y))
    torch.testing.assert_close(before - weights(G), torch.cat([g.flatten() for g in g_gradients]), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("flags", [{"objective": "boundary-equilibrium"}, {"network": "autoencoder"}])
def test_boundary_equilibrium_needs_a_discriminator_that_redraws(flags):
    with pytest.raises(ValueError, match="need each other"):
        setting(**flags)


def test_an_auxiliary_classifier_adds_its_losses_to_both_players():
    networks, rules, _ = setting(
        objective="auxiliary-classifier", conditioning="labels", d_conditioning="classifier",
        g_optimizer="sgd", d_optimizer="sgd", g_lr=1.0, d_lr=1.0,
    )  # fmt: skip
    G, D, batch = networks.G, networks.D, batch_of()
    fake = G(batch.z, batch.fake_y).detach()
    bce, ce = nn.functional.binary_cross_entropy_with_logits, nn.functional.cross_entropy
    loss = 0.0
    for images, target in ((batch.real, torch.ones(6)), (fake, torch.zeros(6))):
        features = D.layers(images)
        loss = loss + bce(D.judge(features).flatten(), target) + ce(D.classifier(features), batch.real_y)
    gradients = torch.autograd.grad(loss, list(D.parameters()))
    before = weights(D)
    discriminator_step(networks, batch, rules, Penalties(), fake)
    torch.testing.assert_close(before - weights(D), torch.cat([g.flatten() for g in gradients]), rtol=1e-4, atol=1e-5)

    judged = D.layers(G(batch.z, batch.fake_y))
    g_loss = bce(D.judge(judged).flatten(), torch.ones(6)) + ce(D.classifier(judged), batch.fake_y)
    gradients = torch.autograd.grad(g_loss, list(G.parameters()))
    before = weights(G)
    generator_step(networks, batch, rules, G(batch.z, batch.fake_y))
    torch.testing.assert_close(before - weights(G), torch.cat([g.flatten() for g in gradients]), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["gradient_penalty", "dragan"])
def test_penalties_elsewhere_enter_the_discriminators_loss_with_their_weight(name):
    """Under SGD of rate one, two weights of the penalty differ by the penalty's own gradient."""
    moves = []
    for weight in (0.0, 1.0, 3.0):
        networks, rules, config = setting(**{name: weight}, d_optimizer="sgd", d_lr=1.0)
        before = weights(networks.D)
        fake = networks.G(batch_of().z, batch_of().fake_y)
        discriminator_step(networks, batch_of(), rules, penalties_at(config, 0, 0.0, {}), fake)
        moves.append(weights(networks.D) - before)
    torch.testing.assert_close(moves[2] - moves[0], 3 * (moves[1] - moves[0]), rtol=1e-3, atol=1e-6)
    assert (moves[1] - moves[0]).abs().max() > 1e-3


def test_penalties_elsewhere_look_at_images_as_they_are_shown():
    networks, rules, config = setting(objective="wasserstein", gradient_penalty=10.0, instance_noise=5.0)
    seen = []
    networks.D.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].std().item()))
    fake = networks.G(batch_of().z, batch_of().fake_y)
    discriminator_step(networks, batch_of(), rules, penalties_at(config, 0, 0.0, {}), fake)
    assert len(seen) >= 2 and seen == pytest.approx([5.0] * len(seen), rel=0.1)


def test_penalties_keep_their_mean_weight_when_they_are_rare():
    config = config_of(r1_gamma=0.5, penalty_every=4, penalty_start_factor=3.0, burn_in=0.0)
    total = sum(penalties_at(config, step * config.batch_size, 0.5, {}).r1 for step in range(8))
    assert total == pytest.approx(8 * 0.5)


def test_the_generator_rests_and_takes_several_steps():
    networks, rules, config = setting(g_optimizer="sgd", g_lr=1.0)
    before = weights(networks.G)
    numbers = alternating_step(networks, batch_of(skip_g=True), rules, penalties_at(config, 0, 0.0, {}))
    assert torch.equal(weights(networks.G), before) and "g_loss" not in numbers
    batch = batch_of()
    alternating_step(networks, batch, rules, penalties_at(config, 0, 0.0, {}))
    once = weights(networks.G)
    twin = setting(g_optimizer="sgd", g_lr=1.0)[0]
    alternating_step(twin, batch_of(skip_g=True), rules, penalties_at(config, 0, 0.0, {}))
    alternating_step(twin, batch_of(extra_z=(torch.ones(6, 4),)), rules, penalties_at(config, 0, 0.0, {}))
    assert not torch.equal(weights(twin.G), once)
    torch.testing.assert_close(weights(twin.D), weights(networks.D))


def test_the_generator_may_learn_from_fresh_images():
    """Its step alone, on other latents, against the discriminator as it is after its own step."""
    networks, rules, config = setting(g_optimizer="sgd", g_lr=1.0)
    twin = setting(g_optimizer="sgd", g_lr=1.0)[0]
    other = torch.ones(6, 4)
    alternating_step(networks, batch_of(extra_z=(other,), fresh_fakes=True), rules, penalties_at(config, 0, 0.0, {}))
    alternating_step(twin, batch_of(skip_g=True), rules, penalties_at(config, 0, 0.0, {}))
    torch.testing.assert_close(weights(networks.D), weights(twin.D))
    generator_step(twin, batch_of(), rules, twin.G(other, batch_of().fake_y))
    torch.testing.assert_close(weights(networks.G), weights(twin.G))


@pytest.mark.parametrize(("bound", "rests"), [(100.0, True), (1e-6, False)])
def test_a_player_rests_while_its_loss_is_below_its_bound(bound, rests):
    networks, rules, config = setting(g_loss_bound=bound, d_loss_bound=bound)
    before = weights(networks.G), weights(networks.D)
    numbers = alternating_step(networks, batch_of(), rules, penalties_at(config, 0, 0.0, {}))
    assert numbers["g_loss"] > 0 and numbers["d_loss"] > 0
    assert torch.equal(weights(networks.G), before[0]) == rests
    assert torch.equal(weights(networks.D), before[1]) == rests


@pytest.mark.parametrize(
    ("name", "by_hand"),
    [
        # The first step from gradient 0.5 at weight 2, rate 0.1: by the formulas of the papers.
        ("sgd", 2 - 0.1 * 0.5),
        ("adam", 2 - 0.1),
        ("adamw", 2 - 0.1 * 0.01 * 2 - 0.1),
        ("rmsprop", 2 - 0.1 * 0.5 / math.sqrt(0.1 * 0.5**2)),
    ],
)
def test_optimisers_take_their_first_step(name, by_hand):
    network = nn.Linear(1, 1, bias=False)
    nn.init.constant_(network.weight, 2.0)
    config = config_of(g_optimizer=name, beta2=0.9, weight_decay=0.01 if name == "adamw" else 0.0)
    optimizer = build_optimizer(name, network, 0.1, config)
    network.weight.grad = torch.full((1, 1), 0.5)
    optimizer.step()
    assert network.weight.item() == pytest.approx(by_hand, rel=1e-5)


def test_adam_steps_as_torch_has_it_and_takes_over_its_memory():
    networks = [nn.Linear(5, 3), nn.Linear(5, 3)]
    networks[1].load_state_dict(networks[0].state_dict())
    ours = build_optimizer("adam", networks[0], 0.01, config_of(beta1=0.3, beta2=0.9))
    theirs = torch.optim.Adam(networks[1].parameters(), 0.01, betas=(0.3, 0.9), fused=True)

    def step_both(*names):
        for name in names:
            gradient = torch.randn_like(getattr(networks[0], name))
            for network in networks:
                getattr(network, name).grad = gradient.clone()
        ours.step()
        theirs.step()
        for mine, other in zip(networks[0].parameters(), networks[1].parameters(), strict=True):
            torch.testing.assert_close(mine, other, rtol=0, atol=0)

    step_both("weight")  # without the bias, whose memory begins a step later
    step_both("weight", "bias")
    ours.param_groups[0]["lr"] = theirs.param_groups[0]["lr"] = 0.1
    step_both("weight", "bias")
    ours.load_state_dict(copy.deepcopy(theirs.state_dict()))
    step_both("weight", "bias")


def test_momentum_remembers_the_last_gradient():
    network = nn.Linear(1, 1, bias=False)
    nn.init.constant_(network.weight, 2.0)
    optimizer = build_optimizer("sgd", network, 0.1, config_of(d_optimizer="sgd", momentum=0.5))
    for _ in range(2):
        network.weight.grad = torch.full((1, 1), 1.0)
        optimizer.step()
    assert network.weight.item() == pytest.approx(2 - 0.1 - 0.15)
    assert set(OPTIMIZERS) == {"adam", "adamw", "rmsprop", "sgd"}


def test_minibatch_stddev_is_the_mean_spread_over_the_batch():
    features = torch.tensor([[1.0, 4.0], [3.0, 4.0]])
    torch.testing.assert_close(MinibatchStddev()(features)[:, 2], torch.tensor([0.5, 0.5]), rtol=0, atol=1e-4)
    maps = torch.randn(4, 3, 5, 5)
    shown = MinibatchStddev()(maps)
    assert shown.shape == (4, 4, 5, 5)
    torch.testing.assert_close(shown[0, 3, 0, 0], maps.std(0, unbiased=False).mean())


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
def test_first_weights_have_the_spread_of_their_scheme(scheme, spread):
    network = nn.Sequential(nn.Linear(400, 300), nn.Embedding(20, 50))
    initialise(network, scheme)
    assert network[0].weight.std().item() == pytest.approx(spread, rel=0.02)
    assert network[0].bias.abs().max().item() == pytest.approx(0)
    if scheme == "orthogonal":
        torch.testing.assert_close(network[0].weight @ network[0].weight.T, torch.eye(300), rtol=0, atol=1e-5)
    if scheme == "glorot":
        assert network[1].weight.abs().max().item() == pytest.approx(0.05, rel=0.02)


def test_networks_keep_their_own_first_weights_unless_asked():
    network = nn.Linear(4, 4)
    before = network.weight.detach().clone()
    initialise(network, "own")
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


REFUSED = [
    ({"gradient_penalty": 10.0}, "dcgan-sgd", "undefined when D normalises"),
    ({"dragan": 10.0}, "dcgan-keras", "undefined when D normalises"),
    ({"r1_gamma": 1.0}, "dcgan-keras", "undefined when D normalises"),
    ({"objective": "wasserstein"}, "mlp-small", "falls without end"),
    ({"objective": "hinge", "g_loss_bound": 0.5}, "mlp-small", "no floor"),
    ({"objective": "minimax", "d_loss_bound": 0.5}, "mlp-small", "no floor"),
    ({"objective": "wasserstein", "clip_weights": 0.01, "label_flipping": 0.1}, "mlp-small", "knows no targets"),
    ({"objective": "auxiliary-classifier"}, "mlp-small", "needs a D that names classes"),
    ({"objective": "auxiliary-classifier", "conditioning": "labels"}, "mlp-small", "needs a D that names classes"),
    ({"weight_decay": 0.1}, "mlp-small", "nothing without adamw"),
    ({"momentum": 0.9}, "mlp-small", "nothing without sgd"),
    ({"lr_decay": "cosine"}, "mlp-small", "nothing without a share of the schedule to fall after"),
    ({"beta2_start": 0.9, "g_optimizer": "sgd", "d_optimizer": "rmsprop"}, "mlp-small", "nothing without adam or"),
    ({"style_mixing": 0.5}, "mlp-small", "nothing without --network stylegan-lite"),
    ({"balance": 0.7}, "mlp-small", "nothing without --objective boundary"),
    ({"penalty_boost": 10.0}, "mlp-small", "nothing without a penalty"),
    ({"penalty_every": 8}, "mlp-small", "nothing without a penalty"),
    ({"instance_noise_until": 0.5}, "mlp-small", "nothing without --instance-noise"),
    ({"replay_size": 64}, "mlp-small", "nothing without --replay"),
    ({"lr_decay_factor": 0.5}, "mlp-small", "nothing without --lr-decay step"),
    ({"ema_growth": "cosine"}, "mlp-small", "nothing without --ema"),
    ({"keep_every": 640}, "mlp-small", "nothing without --keep-last"),
    ({"spectral_norm": True}, "r3gan", "start at zero"),
    ({"g_conditioning": "multiplied"}, "default", "no place for"),
    ({"d_conditioning": "multiplied"}, "default", "no place for"),
    ({**JOINT, "d_steps": 2}, "default", "different numbers of steps"),
    ({**JOINT, "g_loss_bound": 0.5}, "default", "may rest"),
    ({**JOINT, "replay": 0.5}, "default", "old images"),
    ({**JOINT, "label_flipping": 0.05}, "default", "logit higher"),
    ({**JOINT, "fake_target_high": 0.1}, "default", "logit higher"),
    ({**JOINT, "feature_matching": 0.5}, "default", "matches features"),
    ({**JOINT, "gradient_penalty": 1.0}, "default", "between or around"),
    ({"update": "joint", "minibatch_stddev": True}, "default", "images of a batch differ"),
    ({"update": "joint"}, "dcgan-sgd", "normalises over the batch"),
]


@pytest.mark.parametrize(("flags", "recipe", "reason"), REFUSED, ids=lambda value: str(value)[:60])
def test_senseless_combinations_are_refused_with_the_reason(flags, recipe, reason):
    with pytest.raises(ValueError, match=reason) as refusal:
        setting(recipe, **{"conditioning": "none", **flags})
    assert "\n" not in str(refusal.value)
