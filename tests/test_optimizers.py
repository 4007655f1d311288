"""Optimisers against the formulas of their papers, and their learning rates during a run."""

import copy
import math

import pytest
import torch
from torch import nn

from gansmith.config import OPTIMIZER_NAMES, resolve
from gansmith.data.images import ImageSpec
from gansmith.training.optimizers import OPTIMIZERS, build_optimizer, set_learning_rates
from gansmith.training.state import start_networks


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
    config = resolve("mlp-small", arguments=dict(beta2=0.9, weight_decay=0.01))
    optimizer = build_optimizer(name, network, 0.1, config)
    network.weight.grad = torch.full((1, 1), 0.5)
    optimizer.step()
    assert network.weight.item() == pytest.approx(by_hand, rel=1e-5)


def test_adam_steps_as_torchs_own_and_loads_its_state():
    networks = [nn.Linear(5, 3), nn.Linear(5, 3)]
    networks[1].load_state_dict(networks[0].state_dict())
    ours = build_optimizer("adam", networks[0], 0.01, resolve("mlp-small", arguments=dict(beta1=0.3, beta2=0.9)))
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

    step_both("weight")  # without the bias, whose state begins a step later
    step_both("weight", "bias")
    ours.param_groups[0]["lr"] = theirs.param_groups[0]["lr"] = 0.1
    step_both("weight", "bias")
    ours.load_state_dict(copy.deepcopy(theirs.state_dict()))
    step_both("weight", "bias")


def test_momentum_adds_the_last_steps_gradient():
    network = nn.Linear(1, 1, bias=False)
    nn.init.constant_(network.weight, 2.0)
    optimizer = build_optimizer("sgd", network, 0.1, resolve("mlp-small", arguments=dict(momentum=0.5)))
    for _ in range(2):
        network.weight.grad = torch.full((1, 1), 1.0)
        optimizer.step()
    assert network.weight.item() == pytest.approx(2 - 0.1 - 0.15)


def test_the_table_has_the_optimisers_that_a_config_may_name():
    assert tuple(OPTIMIZERS) == OPTIMIZER_NAMES


def test_learning_rates_and_beta2_move_by_half_a_cosine():
    choices = dict(g_width=32, d_width=32, latent_dim=4, conditioning="labels", burn_in=0.5)
    config = resolve("r3gan", arguments=choices)
    networks = start_networks(config, ImageSpec(8, 1, 3))
    rates, betas = [], []
    for progress in (0.0, 0.25, 0.5, 0.9):
        set_learning_rates(networks, config, progress)
        for optimizer in (networks.g_optimizer, networks.d_optimizer):
            rates.append(optimizer.param_groups[0]["lr"])
            betas.append(optimizer.param_groups[0]["betas"])
    assert rates[::2] == rates[1::2] == pytest.approx([2e-4, 1.25e-4, 5e-5, 5e-5])
    assert betas[::2] == betas[1::2] == [(0.0, pytest.approx(beta2)) for beta2 in (0.9, 0.945, 0.99, 0.99)]


def test_learning_rates_decay_each_from_its_own_and_times_a_factor():
    choices = dict(g_lr=4e-3, d_lr=1e-3, lr_decay_from=0.5, d_optimizer="sgd")
    config = resolve("mlp-small", arguments=choices)
    networks = start_networks(config, ImageSpec(8, 1, 3))
    for progress, left in ((0.0, 1.0), (0.5, 1.0), (0.75, 0.5), (1.0, 0.0)):
        set_learning_rates(networks, config, progress, factor=0.25)
        assert networks.g_optimizer.param_groups[0]["lr"] == pytest.approx(1e-3 * left)
        assert networks.d_optimizer.param_groups[0]["lr"] == pytest.approx(0.25e-3 * left)
        assert "betas" not in networks.d_optimizer.param_groups[0]
