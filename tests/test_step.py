"""One step of each player, against the same step written out by hand."""

import copy

import pytest
import torch
from torch import nn

from gansmith.config import resolve
from gansmith.data.images import ImageSpec
from gansmith.networks.layers import MinibatchStddev
from gansmith.training.techniques import build_techniques
from gansmith.training.step import UPDATES, Batch, NonFiniteError, alternating_step, joint_step, has_independent_features, update_ema
from gansmith.training.penalties import Penalties
from gansmith.training.loop import build_training_networks

SPEC = ImageSpec(size=8, channels=1, num_classes=3)
# Float32 sums in another order differ by a few 1e-5 here; a term that is missing or doubled, by 1e-2 and more.
CLOSE = {"rtol": 1e-3, "atol": 2e-4}


# One pass for both networks: they take turns of one step each, and D must judge every image alone.
JOINT = {"update": "joint", "d_steps": 1, "minibatch_stddev": False}


def setting(**flags):
    """Networks that learn by plain SGD of rate one, so that a step's change is its gradient."""
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
    config = resolve("default", arguments={**base, "g_lr": 1.0, "d_lr": 1.0, **flags})
    networks = build_training_networks(config, SPEC)
    rng = torch.Generator().manual_seed(1)
    ids = torch.tensor([0, 1, 2, 0, 1, 2])
    batch = Batch(torch.rand(6, 1, 8, 8, generator=rng) * 2 - 1, ids, torch.randn(6, 4, generator=rng), ids, rng)
    for network in (networks.G, networks.D):  # zero-initialised layers would hide mistakes
        for parameter in network.parameters():
            parameter.data += 0.1 * torch.randn(parameter.shape, generator=rng)
    return networks, build_techniques(config, networks.D), batch


def weights(network):
    return torch.cat([parameter.detach().flatten() for parameter in network.parameters()])


@pytest.mark.parametrize("objective", ["non-saturating", "relativistic"])
@pytest.mark.parametrize("penalties", [Penalties(), Penalties(r1_gamma=0.7, r2_gamma=0.3)])
def test_the_joint_step_is_two_separate_gradients(objective, penalties):
    networks, rules, batch = setting(objective=objective, **JOINT)
    G, D = copy.deepcopy(networks.G), copy.deepcopy(networks.D)
    fake = G(batch.z, batch.fake_y)
    g_loss = rules.g_loss(D(batch.real, batch.real_y), D(fake, batch.fake_y), batch.rng)
    g_grad_norm = torch.autograd.grad(g_loss, list(G.parameters()))
    real, fake = batch.real.clone().requires_grad_(), fake.detach().requires_grad_()
    real_logits, fake_logits = D(real, batch.real_y), D(fake, batch.fake_y)
    d_loss = rules.d_loss(real_logits, fake_logits, batch.rng)
    (r1,) = torch.autograd.grad(real_logits.sum(), real, create_graph=True)
    (r2,) = torch.autograd.grad(fake_logits.sum(), fake, create_graph=True)
    penalty = (
        penalties.r1 / 2 * r1.square().sum((1, 2, 3)).mean() + penalties.r2 / 2 * r2.square().sum((1, 2, 3)).mean()
    )
    d_grad_norm = torch.autograd.grad(d_loss + penalty, list(D.parameters()), allow_unused=True)

    before = weights(networks.G), weights(networks.D)
    numbers = joint_step(networks, batch, rules, penalties)
    flat = [torch.cat([g.flatten() for g in grads if g is not None]) for grads in (g_grad_norm, d_grad_norm)]
    torch.testing.assert_close(before[0] - weights(networks.G), flat[0], **CLOSE)
    torch.testing.assert_close(before[1] - weights(networks.D), flat[1], **CLOSE)
    assert numbers["d_loss"] == pytest.approx(d_loss.item(), rel=1e-5)
    assert numbers["g_loss"] == pytest.approx(g_loss.item(), rel=1e-5)


@pytest.mark.parametrize("objective", ["non-saturating", "least-squares", "relativistic"])
@pytest.mark.parametrize("penalties", [Penalties(), Penalties(r1_gamma=0.7, r2_gamma=0.3)])
@pytest.mark.parametrize("compares", [False, True])
def test_the_alternating_step_is_the_textbook_loop(objective, penalties, compares):
    networks, rules, batch = setting(objective=objective, update="alternating", minibatch_stddev=compares)
    assert rules.one_pass and rules.scores_apart == compares
    G, D = copy.deepcopy(networks.G), copy.deepcopy(networks.D)
    optimizers = [torch.optim.SGD(network.parameters(), 1.0) for network in (G, D)]
    fake = G(batch.z, batch.fake_y)
    real, still = batch.real.clone().requires_grad_(), fake.detach().requires_grad_()
    real_logits, fake_logits = D(real, batch.real_y), D(still, batch.fake_y)
    loss = rules.d_loss(real_logits, fake_logits, batch.rng)
    if penalties.at_images:
        for logits, images, weight in ((real_logits, real, 0.7), (fake_logits, still, 0.3)):
            (slope,) = torch.autograd.grad(logits.sum(), images, create_graph=True)
            loss = loss + weight / 2 * slope.square().sum((1, 2, 3)).mean()
    optimizers[1].zero_grad()
    loss.backward()
    optimizers[1].step()
    g_loss = rules.g_loss(D(batch.real, batch.real_y), D(fake, batch.fake_y), batch.rng)
    optimizers[0].zero_grad()
    g_loss.backward()
    optimizers[0].step()

    alternating_step(networks, batch, rules, penalties)
    torch.testing.assert_close(weights(networks.D), weights(D), **CLOSE)
    torch.testing.assert_close(weights(networks.G), weights(G), **CLOSE)
    assert all(parameter.requires_grad for parameter in networks.D.parameters())


@pytest.mark.parametrize("update", UPDATES)
def test_a_loss_that_is_no_number_changes_no_weight(update):
    networks, rules, batch = setting(**(JOINT if update == "joint" else {}))
    batch.real[0] = float("nan")
    before = weights(networks.G), weights(networks.D)
    with pytest.raises(NonFiniteError):
        UPDATES[update](networks, batch, rules, Penalties())
    torch.testing.assert_close((weights(networks.G), weights(networks.D)), before, rtol=0, atol=0)


def test_very_confident_discriminators_do_not_poison_the_joint_step():
    networks, rules, batch = setting(**JOINT)
    with torch.no_grad():
        list(networks.D.parameters())[-1].zero_()
        networks.D.judge.bias.fill_(-500.0)
    joint_step(networks, batch, rules, Penalties())
    assert weights(networks.G).isfinite().all()


def test_ema_moves_the_average_by_its_share():
    networks, _, _ = setting()
    with torch.no_grad():
        for average, parameter in zip(networks.G_ema.parameters(), networks.G.parameters(), strict=True):
            average.fill_(1.0)
            parameter.fill_(3.0)
    update_ema(networks.G_ema, networks.G, 0.75)
    torch.testing.assert_close(weights(networks.G_ema), torch.full_like(weights(networks.G_ema), 1.5))


def test_real_and_fake_share_a_pass_only_where_features_are_an_images_own():
    D = setting(minibatch_stddev=True)[0].D
    assert has_independent_features(D)
    D.layers.append(MinibatchStddev())  # among the features: they would tell of both kinds at once
    assert not has_independent_features(D)
    assert not has_independent_features(nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3)))
