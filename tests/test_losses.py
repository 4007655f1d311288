"""Losses at logits worked out by hand, against torch's own cross-entropy, and by their slopes."""

import math

import pytest
import torch
from torch.nn.functional import binary_cross_entropy_with_logits as cross_entropy

from gansmith.config import resolve
from gansmith.losses import OBJECTIVES, build_losses, squared_slope

REAL, FAKE = torch.tensor([2.0, -1.0]), torch.tensor([0.5, -3.0])
ONES, ZEROS = torch.ones(2), torch.zeros(2)


def softplus(x):
    return math.log1p(math.exp(x))


@pytest.mark.parametrize(
    ("name", "d", "g"),
    [
        (
            "non-saturating",
            (softplus(-2) + softplus(1)) / 2 + (softplus(0.5) + softplus(-3)) / 2,
            (softplus(-0.5) + softplus(3)) / 2,
        ),
        ("least-squares", 0.5 * (1 + 4) / 2 + 0.5 * (0.25 + 9) / 2, 0.5 * (0.25 + 16) / 2),
        ("relativistic", (softplus(-1.5) + softplus(-2)) / 2, (softplus(1.5) + softplus(2)) / 2),
    ],
)
def test_losses_have_their_closed_form(name, d, g):
    objective = OBJECTIVES[name]
    assert objective.d_loss(REAL, FAKE).item() == pytest.approx(d, rel=1e-6)
    assert objective.g_loss(REAL, FAKE).item() == pytest.approx(g, rel=1e-6)


def test_non_saturating_is_cross_entropy():
    objective = OBJECTIVES["non-saturating"]
    expected = cross_entropy(REAL, ONES) + cross_entropy(FAKE, ZEROS)
    torch.testing.assert_close(objective.d_loss(REAL, FAKE), expected)
    torch.testing.assert_close(objective.g_loss(REAL, FAKE), cross_entropy(FAKE, ONES))


def losses(**flags):
    return build_losses(resolve("mlp-small", flags=flags)[0])


def test_soft_targets_are_cross_entropy_with_them():
    d_loss, g_loss = losses(real_target_low=0.9, real_target_high=0.9, fake_target_low=0.2, fake_target_high=0.2)
    rng = torch.Generator()
    expected = cross_entropy(REAL, 0.9 * ONES) + cross_entropy(FAKE, 0.2 * ONES)
    torch.testing.assert_close(d_loss(REAL, FAKE, rng), expected)
    torch.testing.assert_close(g_loss(REAL, FAKE, rng), cross_entropy(FAKE, 0.9 * ONES))


def test_soft_least_squares_pull_to_the_target():
    d_loss, _ = losses(objective="least-squares", real_target_low=0.8, real_target_high=0.8)
    logits = torch.tensor([0.3, 0.8], requires_grad=True)
    (slope,) = torch.autograd.grad(d_loss(logits, ZEROS, torch.Generator()), logits)
    torch.testing.assert_close(slope, torch.tensor([(0.3 - 0.8) / 2, 0.0]))


def test_flipped_ranges_swap_places_for_both_players():
    flags = dict(real_target_low=0.7, fake_target_high=0.3, flip_probability=1.0)
    d_loss, g_loss = losses(**flags)
    logits = torch.zeros(20_000, requires_grad=True)
    # Cross-entropy's slope at logit 0 is 1/2 - target: its mean tells the mean target.
    (real,) = torch.autograd.grad(d_loss(logits, logits.detach(), torch.Generator()), logits)
    (fake,) = torch.autograd.grad(d_loss(logits.detach(), logits, torch.Generator()), logits)
    (passing,) = torch.autograd.grad(g_loss(logits, logits, torch.Generator()), logits)
    assert 0.5 - real.sum().item() == pytest.approx(0.15, abs=0.01)
    assert 0.5 - fake.sum().item() == pytest.approx(0.85, abs=0.01)
    assert 0.5 - passing.sum().item() == pytest.approx(0.15, abs=0.01)


def test_soft_targets_are_refused_for_pairs():
    with pytest.raises(ValueError, match="compares pairs"):
        losses(objective="relativistic", real_target_low=0.9)


def test_joint_objectives_always_push_fakes_down():
    logits = torch.linspace(-8, 8, 33, requires_grad=True)
    for name, objective in OBJECTIVES.items():
        (slope,) = torch.autograd.grad(objective.d_loss(torch.zeros(33), logits), logits)
        assert bool((slope > 0).all()) == objective.joint, name


def test_squared_slope_of_a_linear_discriminator_is_its_weight():
    weight = torch.randn(1, 3, 3)
    images = torch.randn(5, 1, 3, 3, requires_grad=True)
    (slope,) = torch.autograd.grad((images * weight).sum(), images)
    torch.testing.assert_close(squared_slope(slope), weight.square().sum().expand(5))
