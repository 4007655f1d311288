"""Optimisers against the formulas of their papers, and their learning rates during a run."""

import copy
import math

import numpy as np
import pytest
import torch
from torch import nn

from gansmith.config import OPTIMIZER_NAMES, resolve
from gansmith.data.images import ImageSpec
from gansmith.training.optimizers import OPTIMIZERS, Soap, build_optimizer, renew_bases, set_learning_rates
from gansmith.training.state import start_networks


@pytest.mark.parametrize(
    ("name", "by_hand"),
    [
        # The first step from gradient 0.5 at weight 2, rate 0.1: by the formulas of the papers.
        ("sgd", 2 - 0.1 * 0.5),
        ("adam", 2 - 0.1),
        ("adamw", 2 - 0.1 * 0.01 * 2 - 0.1),
        ("rmsprop", 2 - 0.1 * 0.5 / math.sqrt(0.1 * 0.5**2)),
        ("soap", 2 - 0.1),
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


@pytest.mark.parametrize("beta1", [0.0, 0.5])
@pytest.mark.parametrize(
    "network",
    [
        nn.Conv2d(3, 5, 2),
        nn.Conv2d(3, 5, 2).to(memory_format=torch.channels_last),
        nn.Linear(5, 5),
        nn.Linear(300, 4),  # with one side too wide for a basis
        nn.Linear(4, 300),  # with more outputs than have any
    ],
)
def test_soap_steps_as_its_formulas_in_double_precision(network, beta1):
    """Source: arXiv:2409.11321, algorithm 3, on both sides of a weight and with bases renewed after steps 1, 6, ...

    Steps 1, 3, ... count for the bases.
    """
    random = np.random.default_rng(0)
    optimizer = build_optimizer("soap", network, 0.01, resolve("mlp-small", arguments=dict(beta1=beta1, beta2=0.9)))
    weight, bias = (parameter.detach().double().numpy().copy() for parameter in network.parameters())
    outputs, inputs = weight.shape[:2]
    left, right = np.zeros((outputs, outputs)), np.zeros((inputs, inputs))
    out_basis, in_basis = np.eye(outputs), np.eye(inputs)
    mean, square, bias_mean, bias_square = (np.zeros_like(values) for values in (weight, weight, bias, bias))
    for step in range(1, 20):
        # Gradients that differ in size and are not independent, so that the bases are none of the axes.
        mixed = random.normal(size=(outputs, outputs)) * 0.1 + np.diag(np.linspace(0.5, 3, outputs))
        gradient = np.einsum("po,oi...->pi...", mixed, random.normal(size=weight.shape) + 0.3)
        of_bias = random.normal(size=bias.shape)
        for parameter, values in zip(network.parameters(), (gradient, of_bias), strict=True):
            parameter.grad = torch.empty_like(parameter).copy_(torch.from_numpy(values))
        optimizer.step()
        flat = gradient.reshape(outputs, inputs, -1)
        if step % 2:
            left = 0.9 * left + 0.1 * np.einsum("oik,pik->op", flat, flat)
            right = 0.9 * right + 0.1 * np.einsum("oik,ojk->ij", flat, flat)
        turned = np.einsum("oi...,op,iq->pq...", gradient, out_basis, in_basis)
        mean, square = beta1 * mean + (1 - beta1) * gradient, 0.9 * square + 0.1 * turned**2
        moved = np.einsum("oi...,op,iq->pq...", mean, out_basis, in_basis) / np.sqrt(square / (1 - 0.9**step))
        weight -= 0.01 / (1 - beta1**step) * np.einsum("pq...,op,iq->oi...", moved, out_basis, in_basis)
        bias_mean, bias_square = beta1 * bias_mean + (1 - beta1) * of_bias, 0.9 * bias_square + 0.1 * of_bias**2
        bias -= 0.01 / (1 - beta1**step) * bias_mean / np.sqrt(bias_square / (1 - 0.9**step))
        if step % 5 == 1:
            optimizer.renew_bases()
            out_basis = np.linalg.eigh(left)[1] if outputs <= optimizer.WIDEST else out_basis
            in_basis = np.linalg.eigh(right)[1] if max(inputs, outputs) <= optimizer.WIDEST else in_basis
    for parameter, expected in zip(network.parameters(), (weight, bias), strict=True):
        np.testing.assert_allclose(parameter.detach().numpy(), expected, rtol=1e-4, atol=1e-5)
    assert ("in_basis" in optimizer.state[network.weight]) == (max(inputs, outputs) <= optimizer.WIDEST)


@pytest.mark.parametrize("name", ["soap", "adam"])
def test_gradients_in_other_coordinates_move_soap_alike_and_adam_not(name):
    torch.manual_seed(0)
    turns = [torch.linalg.qr(torch.randn(n, n))[0] for n in (4, 6)]
    steps = [torch.randn(4, 6) * torch.linspace(0.2, 2, 6) for _ in range(40)]
    weights = []
    for U, V in ((torch.eye(4), torch.eye(6)), turns):
        network = nn.Linear(6, 4, bias=False)
        nn.init.zeros_(network.weight)
        optimizer = build_optimizer(name, network, 0.0, resolve("mlp-small", arguments=dict(beta1=0.4, beta2=0.5)))
        for number, gradient in enumerate(steps):
            optimizer.param_groups[0]["lr"] = 0.01 if number > 30 else 0.0  # the first bases are the axes
            network.weight.grad = U @ gradient @ V.T
            optimizer.step()
            if name == "soap":
                optimizer.renew_bases()
        weights.append(U.T @ network.weight.detach() @ V)
    apart = (weights[0] - weights[1]).abs().max().item()
    assert apart < 1e-4 if name == "soap" else apart > 1e-2


def test_the_count_of_steps_goes_to_the_device_of_its_parameter():
    parameter = nn.Parameter(torch.empty(2, 2, device="meta"))
    optimizer = Soap([parameter], lr=0.1, betas=(0.0, 0.9))
    optimizer.load_state_dict({**optimizer.state_dict(), "state": {0: {"step": torch.tensor(3.0)}}})
    assert optimizer.state[parameter]["step"].device.type == "meta"


def test_bases_are_renewed_after_the_first_step_and_every_tenth(tiny):
    config = tiny("default", g_optimizer="adam", conditioning="labels")
    networks = start_networks(config, ImageSpec(channels=1, size=28, num_classes=10), None)
    assert isinstance(networks.d_optimizer, Soap) and not isinstance(networks.g_optimizer, Soap)
    renewed = []
    networks.d_optimizer.renew_bases = lambda: renewed.append(turn)
    for turn in range(25):
        renew_bases(networks, turn)
    assert renewed == [1, 11, 21]


def test_rows_of_ids_that_a_batch_does_not_show_stay():
    network = nn.Embedding(40, 6)
    optimizer = build_optimizer("soap", network, 0.1, resolve("mlp-small", arguments=dict(beta1=0.0)))
    before = network.weight.detach().clone()
    for number in range(3):
        network.weight.grad = torch.zeros(40, 6).index_fill_(0, torch.tensor([3, 9 + number]), 0.5)
        optimizer.step()
        optimizer.renew_bases()
    moved = (network.weight.detach() != before).any(1).nonzero().flatten().tolist()
    assert moved == [3, 9, 10, 11]


def test_an_embedding_moves_as_if_all_its_rows_were_turned(monkeypatch):
    """Without momentum, only rows of ids in the batch are; with it, all."""
    for beta1 in (0.0, 0.5):
        networks = nn.Embedding(300, 6), nn.Embedding(300, 6)
        networks[0].load_state_dict(networks[1].state_dict())
        config = resolve("mlp-small", arguments=dict(beta1=beta1, beta2=0.9))
        some, whole = (build_optimizer("soap", network, 0.01, config) for network in networks)
        monkeypatch.setattr(whole, "_rows_moved", lambda parameter, beta1: slice(None))
        for number in range(25):
            gradient = torch.zeros(300, 6).index_copy_(0, torch.tensor([number % 4, 7, 250]), torch.randn(3, 6) + 0.5)
            for network, optimizer in zip(networks, (some, whole), strict=True):
                network.weight.grad = gradient.clone()
                optimizer.step()
                if number % 5 == 0:
                    optimizer.renew_bases()
        torch.testing.assert_close(networks[0].weight, networks[1].weight, rtol=1e-5, atol=1e-5)
        assert some.state[networks[0].weight].keys() == {"step", "exp_avg", "exp_avg_sq", "in_factor", "in_basis"}
        assert not torch.equal(some.state[networks[0].weight]["in_basis"], torch.eye(6))


def test_bases_are_found_where_most_gradients_are_zero():
    """180 of these rows made LAPACK return NaN in single precision."""
    network = nn.Linear(128, 180, bias=False)
    optimizer = build_optimizer("soap", network, 0.1, resolve("mlp-small"))
    torch.manual_seed(1)
    network.weight.grad = torch.randn(180, 128) * (torch.rand(180, 1) < 0.4) * 1e-3
    optimizer.step()
    optimizer.renew_bases()
    for side, n in (("out", 180), ("in", 128)):
        basis = optimizer.state[network.weight][f"{side}_basis"]
        torch.testing.assert_close(basis @ basis.T, torch.eye(n), rtol=0, atol=1e-5)
        assert (basis != torch.eye(n)).any()


def test_a_factor_that_is_not_finite_keeps_its_basis():
    network = nn.Linear(3, 2, bias=False)
    optimizer = build_optimizer("soap", network, 0.01, resolve("mlp-small"))
    network.weight.grad = torch.full((2, 3), math.nan)
    optimizer.step()
    optimizer.renew_bases()
    assert torch.equal(optimizer.state[network.weight]["in_basis"], torch.eye(3))


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
