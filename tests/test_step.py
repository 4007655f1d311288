"""One step of G and of D, against the same step written out by hand."""

import copy
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from gansmith.config import resolve
from gansmith.data.images import ImageSpec
from gansmith.networks.layers import MinibatchStddev
from gansmith.training.penalties import Penalties, dragan_penalty, gradient_penalty, penalties_at
from gansmith.training.state import start_networks
from gansmith.training.step import (
    Batch,
    NonFiniteError,
    discriminator_step,
    generator_step,
    has_batch_norm,
    train_step,
    update_ema,
)
from gansmith.training.techniques import build_techniques

SPEC = ImageSpec(size=8, channels=1, num_classes=3)
# Float64 sums in another order differ by 1e-12 here; a term that is missing or doubled, by 1e-2 and more.
CLOSE = {"rtol": 1e-7, "atol": 1e-9}
NO_PENALTY = Penalties()


def setting(**choices):
    """Return networks that learn by plain SGD of rate one, so that a step's change is its gradient."""
    base = {
        "g_width": 8,
        "d_width": 8,
        "latent_dim": 4,
        "batch_size": 6,
        "g_optimizer": "sgd",
        "d_optimizer": "sgd",
        "conditioning": "labels",
        "precision": "float32",
    }
    config = resolve("default", arguments={**base, "g_lr": 1.0, "d_lr": 1.0, **choices})
    networks = start_networks(config, SPEC)
    rng = torch.Generator().manual_seed(2)
    for network in (networks.G, networks.D, networks.G_ema):  # zero-initialised layers would hide mistakes
        network.double()
        for parameter in network.parameters():
            parameter.data += 0.1 * torch.randn(parameter.shape, generator=rng)
    return networks, build_techniques(config, networks.D), batch_of()


def batch_of(**changes):
    rng, y = torch.Generator().manual_seed(1), torch.tensor([0, 1, 2, 0, 1, 2])
    real, z = torch.rand(6, 1, 8, 8, generator=rng) * 2 - 1, torch.randn(6, 4, generator=rng)
    return Batch(real.double(), y, z.double(), y, rng, **changes)


def weights(network):
    return torch.cat([parameter.detach().flatten() for parameter in network.parameters()])


@pytest.mark.parametrize("objective", ["non-saturating", "least-squares", "relativistic"])
@pytest.mark.parametrize("penalties", [NO_PENALTY, Penalties(r1=0.7, r2=0.3)], ids=["plain", "R1 and R2"])
@pytest.mark.parametrize("group", [0, 2, 6])
def test_a_step_is_the_textbook_loop(objective, penalties, group):
    """With groups of the minibatch deviation too, one pass over real and generated images equals two passes."""
    networks, techniques, batch = setting(objective=objective, minibatch_stddev=group)
    assert techniques.one_pass
    G, D = copy.deepcopy(networks.G), copy.deepcopy(networks.D)
    assert sum(isinstance(layer, MinibatchStddev) for layer in D.modules()) == (1 if group else 0)
    optimizers = [torch.optim.SGD(network.parameters(), 1.0) for network in (G, D)]
    fake = G(batch.z, batch.fake_y)
    real, detached = batch.real.clone().requires_grad_(), fake.detach().requires_grad_()
    real_logits, fake_logits = D(real, batch.real_y), D(detached, batch.fake_y)
    d_loss = techniques.d_loss(real_logits, fake_logits, batch.rng)
    labels = batch.real_y // 200  # sub-clusters of each label
    loss = d_loss + 0.5 * cross_entropy(D.classify(D.features(real, batch.real_y)), labels)
    if penalties.at_images:
        for logits, images, gamma in ((real_logits, real, 0.7), (fake_logits, detached, 0.3)):
            (gradient,) = torch.autograd.grad(logits.sum(), images, create_graph=True)
            loss = loss + gamma / 2 * gradient.square().sum((1, 2, 3)).mean()
    optimizers[1].zero_grad()
    loss.backward()
    optimizers[1].step()
    g_loss = techniques.g_loss(D(batch.real, batch.real_y), D(fake, batch.fake_y), batch.rng)
    named = cross_entropy(D.classify(D.features(fake, batch.fake_y)), batch.fake_y // 200)
    optimizers[0].zero_grad()
    (g_loss + 0.03 * named).backward()
    optimizers[0].step()

    numbers = train_step(networks, batch, techniques, penalties)
    torch.testing.assert_close(weights(networks.D), weights(D), **CLOSE)
    torch.testing.assert_close(weights(networks.G), weights(G), **CLOSE)
    assert numbers["d_loss"] == pytest.approx(d_loss.item(), rel=1e-9)
    assert numbers["g_loss"] == pytest.approx(g_loss.item(), rel=1e-9)
    assert numbers["d_real"] == pytest.approx(real_logits.sigmoid().mean().item(), rel=1e-9)
    assert numbers["d_fake"] == pytest.approx(fake_logits.sigmoid().mean().item(), rel=1e-9)
    assert all(parameter.requires_grad for parameter in networks.D.parameters())


@pytest.mark.parametrize(("group", "is_same"), [(2, True), (3, True), (6, True), (4, False), (12, False)])
def test_groups_of_the_minibatch_deviation_never_mix_real_and_generated_images(group, is_same):
    """One pass equals two where the group size divides the batch; the layer itself is tested with others too."""
    D = setting(minibatch_stddev=6)[0].D
    D.stddev = MinibatchStddev(group)
    rng, y = torch.Generator().manual_seed(2), torch.tensor([0, 1, 2, 0, 1, 2])
    real, fake = (scale * torch.randn(6, 1, 8, 8, generator=rng).double() for scale in (1, 5))
    with torch.no_grad():
        one = D(torch.cat([real, fake]), torch.cat([y, y]))
        two = torch.cat([D(real, y), D(fake, y)])
    assert torch.allclose(one, two, rtol=1e-9, atol=1e-9) == is_same


@pytest.mark.parametrize("poisoned", ["real", "z"])
def test_a_nan_loss_changes_no_weight(poisoned):
    networks, techniques, batch = setting()
    getattr(batch, poisoned)[0] = float("nan")
    before = weights(networks.G), weights(networks.D)
    with pytest.raises(NonFiniteError, match="d_loss"):
        train_step(networks, batch, techniques, NO_PENALTY)
    torch.testing.assert_close((weights(networks.G), weights(networks.D)), before, rtol=0, atol=0)


def test_an_infinite_penalty_changes_no_weight():
    networks, techniques, batch = setting()
    before = weights(networks.G), weights(networks.D)
    infinite = Penalties(elsewhere=((1.0, lambda D, real, fake, rng: torch.full((6,), float("inf"))),))
    with pytest.raises(NonFiniteError, match="d_loss"):
        train_step(networks, batch, techniques, infinite)
    torch.testing.assert_close((weights(networks.G), weights(networks.D)), before, rtol=0, atol=0)


@pytest.mark.parametrize("bias", [-500.0, 500.0])
def test_a_very_confident_discriminator_gives_finite_steps(bias):
    networks, techniques, batch = setting(g_class_loss=0.0)
    with torch.no_grad():
        networks.D.head.bias.fill_(bias)
    before = weights(networks.G)
    train_step(networks, batch, techniques, Penalties(r1=0.7, r2=0.3))
    assert weights(networks.G).isfinite().all() and weights(networks.D).isfinite().all()
    assert torch.equal(weights(networks.G), before) == (bias > 0)  # G's loss is flat only where fakes pass for real


def test_the_generator_skips_its_step_and_takes_several():
    networks, techniques, _ = setting()
    before = weights(networks.G)
    numbers = train_step(networks, batch_of(skip_g=True), techniques, NO_PENALTY)
    assert torch.equal(weights(networks.G), before) and "g_loss" not in numbers
    train_step(networks, batch_of(), techniques, NO_PENALTY)
    once = weights(networks.G)
    twin, techniques, _ = setting()
    train_step(twin, batch_of(skip_g=True), techniques, NO_PENALTY)
    train_step(twin, batch_of(extra_z=(torch.ones(6, 4).double(),)), techniques, NO_PENALTY)
    assert not torch.equal(weights(twin.G), once)
    torch.testing.assert_close(weights(twin.D), weights(networks.D))


def test_the_generator_may_learn_from_fresh_images():
    """Its step alone, on other latents, against the discriminator as it is after its own step."""
    networks, techniques, _ = setting()
    twin = setting()[0]
    other = torch.ones(6, 4).double()
    train_step(networks, batch_of(extra_z=(other,), fresh_fakes=True), techniques, NO_PENALTY)
    train_step(twin, batch_of(skip_g=True), techniques, NO_PENALTY)
    torch.testing.assert_close(weights(networks.D), weights(twin.D))
    generator_step(twin, batch_of(), techniques, twin.G(other, batch_of().fake_y))
    torch.testing.assert_close(weights(networks.G), weights(twin.G))


@pytest.mark.parametrize(("g_bound", "d_bound"), [(100.0, 1e-6), (1e-6, 100.0), (100.0, 100.0), (1e-6, 1e-6)])
def test_a_network_skips_its_step_while_its_loss_is_below_its_bound(g_bound, d_bound):
    networks, techniques, batch = setting(g_loss_bound=g_bound, d_loss_bound=d_bound)
    before = weights(networks.G), weights(networks.D)
    numbers = train_step(networks, batch, techniques, NO_PENALTY)
    assert numbers["g_loss"] > 0 and numbers["d_loss"] > 0
    assert torch.equal(weights(networks.G), before[0]) == (g_bound > 1)
    assert torch.equal(weights(networks.D), before[1]) == (d_bound > 1)


def test_replayed_images_keep_the_class_ids_that_they_were_made_for():
    networks, techniques, batch = setting(minibatch_stddev=0)
    techniques = replace(techniques, replay=lambda buffers, fake, batch: (fake, batch.fake_y.flip(0)))
    fake = networks.G(batch.z, batch.fake_y).detach()
    expected = networks.D(fake, batch.fake_y.flip(0)).sigmoid().mean().item()
    assert expected != pytest.approx(networks.D(fake, batch.fake_y).sigmoid().mean().item(), rel=1e-6)
    numbers = discriminator_step(networks, batch, techniques, NO_PENALTY, fake)
    assert numbers["d_fake"] == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("name", ["gradient_penalty", "dragan"])
def test_penalties_elsewhere_enter_the_discriminators_loss_with_their_weight(name):
    """Under SGD of rate one, two weights of the penalty differ by the penalty's own gradient."""
    moves = []
    for weight in (0.0, 1.0, 3.0):
        choices = {"network": "mlp", "r1_gamma": 0.0, "r2_gamma": 0.0, "d_loss_target": 0.0, "penalty_every": 1}
        choices |= {"penalty_start_factor": 1.0, name: weight}
        networks, techniques, batch = setting(**choices, minibatch_stddev=0)
        before = weights(networks.D)
        penalties = penalties_at(resolve("default", arguments={**choices, "batch_size": 6}), 0, 0.0, {})
        fake = networks.G(batch.z, batch.fake_y).detach()
        same = torch.Generator()
        same.set_state(batch.rng.get_state())
        penalty = {"gradient_penalty": gradient_penalty, "dragan": dragan_penalty}[name]
        values = penalty(lambda images, D=networks.D, y=batch.real_y: D(images, y), batch.real, fake, same)
        own = torch.autograd.grad(values.mean(), list(networks.D.parameters()), materialize_grads=True)
        discriminator_step(networks, batch, techniques, penalties, fake)
        moves.append(weights(networks.D) - before)
    move = -torch.cat([gradient.flatten() for gradient in own])
    assert move.abs().max() > 1e-3
    for weight, moved in zip((1.0, 3.0), moves[1:], strict=True):
        torch.testing.assert_close(moved - moves[0], weight * move, rtol=1e-6, atol=1e-9)


def test_ema_moves_the_average_by_its_share():
    networks, _, _ = setting()
    with torch.no_grad():
        for average, parameter in zip(networks.G_ema.parameters(), networks.G.parameters(), strict=True):
            average.fill_(1.0)
            parameter.fill_(3.0)
    update_ema(networks.G_ema, networks.G, 0.75)
    torch.testing.assert_close(weights(networks.G_ema), torch.full_like(weights(networks.G_ema), 1.5))


def test_real_and_generated_images_share_a_pass_only_without_batch_normalisation():
    networks, techniques, _ = setting(minibatch_stddev=6)
    assert not has_batch_norm(networks.D.modules()) and techniques.one_pass
    assert has_batch_norm(nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3)).modules())
    config = resolve("dcgan-sgd", arguments={"g_width": 8, "d_width": 8})
    assert not build_techniques(config, start_networks(config, ImageSpec(28, 1, 3)).D).one_pass
