"""Gradient penalties of discriminators whose gradients are known."""

import math

import pytest
import torch

from gansmith.config import resolve
from gansmith.training.penalties import (
    Penalties,
    adapt_penalty_factor,
    dragan_penalty,
    gradient_penalty,
    penalties_at,
    squared_gradient_norm,
)


def test_the_squared_gradient_norm_of_a_linear_discriminator_is_its_weights():
    weight = torch.randn(1, 3, 3)
    images = torch.randn(5, 1, 3, 3, requires_grad=True)
    (gradient,) = torch.autograd.grad((images * weight).sum(), images)
    torch.testing.assert_close(squared_gradient_norm(gradient), weight.square().sum().expand(5))


def test_penalties_of_a_linear_discriminator_are_its_weights_deviation_from_one():
    weight = torch.randn(1, 3, 3)
    real, fake = torch.randn(5, 1, 3, 3), torch.randn(5, 1, 3, 3)
    for penalty in (gradient_penalty, dragan_penalty):
        values = penalty(lambda images: (images * weight).flatten(1).sum(1), real, fake, torch.Generator())
        torch.testing.assert_close(values, (weight.norm() - 1).square().expand(5))


@pytest.mark.parametrize("penalty", [gradient_penalty, dragan_penalty])
def test_penalties_have_the_derivative_of_their_formula(penalty):
    """D = sum(a x^2) has a gradient of norm 2 a |x|, so the penalty's derivative in a is known at its points."""
    points = []
    a = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)

    def D(images):
        points.append(images)
        return (a * images.square()).flatten(1).sum(1)

    real, fake = (torch.randn(6, 1, 2, 2, dtype=torch.float64) for _ in range(2))
    values = penalty(D, real, fake, torch.Generator().manual_seed(1))
    norm = points[0].detach().flatten(1).norm(dim=1)
    torch.testing.assert_close(values, (0.6 * norm - 1).square())
    (gradient,) = torch.autograd.grad(values.sum(), a)
    torch.testing.assert_close(gradient, (2 * (0.6 * norm - 1) * 2 * norm).sum())


def test_penalties_take_points_between_the_pair_and_around_the_data():
    seen = []

    def D(images):
        seen.append(images.detach())
        return images.flatten(1).sum(1)

    real, fake = torch.zeros(4000, 1, 1, 2), torch.tensor([1.0, 3.0]).expand(4000, 1, 1, 2)
    gradient_penalty(D, real, fake, torch.Generator().manual_seed(0))
    share = seen[0][:, 0, 0, 0]
    torch.testing.assert_close(seen[0][:, 0, 0, 1], 3 * share)
    assert (share.min() >= 0, share.max() < 1, share.mean().item()) == (True, True, pytest.approx(0.5, abs=0.02))
    assert share.std().item() == pytest.approx(1 / math.sqrt(12), rel=0.05)  # a share of its own for each image
    real = torch.randn(4000, 1, 1, 2, generator=torch.Generator().manual_seed(0))
    dragan_penalty(D, real, fake, torch.Generator().manual_seed(0))
    moved = seen[1] - real
    assert (moved >= 0).all() and moved.max().item() < 0.5 * real.std().item()
    assert moved.mean().item() == pytest.approx(0.125 * real.std().item(), rel=0.05)
    assert moved.std().item() == pytest.approx(0.5 * math.sqrt(1 / 9 - 1 / 16) * real.std().item(), rel=0.05)


def test_a_flat_discriminator_gives_a_finite_gradient():
    a = torch.zeros((), requires_grad=True)
    values = gradient_penalty(
        lambda x: a * x.flatten(1).sum(1), torch.ones(2, 1, 1, 1), torch.zeros(2, 1, 1, 1), torch.Generator()
    )
    (gradient,) = torch.autograd.grad(values.sum(), a)
    assert gradient.isfinite() and values.tolist() == pytest.approx([1, 1], abs=1e-4)


def test_penalties_keep_their_mean_weight_when_they_are_rare():
    config = resolve(
        "mlp-small", arguments=dict(r1_gamma=0.5, penalty_every=4, penalty_start_factor=3.0, burn_in=0.0, batch_size=6)
    )
    found = [penalties_at(config, step * config.batch_size, 0.5, {}).r1 for step in range(8)]
    assert sum(found) == pytest.approx(8 * 0.5)
    assert [value > 0 for value in found] == [True, False, False, False] * 2


def test_the_start_factor_fades_on_every_penalty():
    choices = dict(r1_gamma=1.0, r2_gamma=2.0, gradient_penalty=3.0, dragan=4.0, penalty_start_factor=9.0, burn_in=0.5)
    config = resolve("mlp-small", arguments=choices)
    for progress, factor in ((0.0, 9.0), (0.25, 5.0), (0.5, 1.0), (1.0, 1.0)):
        found = penalties_at(config, 0, progress, {})
        assert (found.r1, found.r2) == pytest.approx((factor, 2 * factor))
        assert [weight for weight, _ in found.elsewhere] == pytest.approx([3 * factor, 4 * factor])
        assert [penalty for _, penalty in found.elsewhere] == [gradient_penalty, dragan_penalty]
    assert Penalties() == penalties_at(resolve("mlp-small"), 0, 0.0, {})


def test_a_loss_target_moves_the_factor_and_logs_it():
    config = resolve("mlp-small", arguments=dict(r1_gamma=0.5, d_loss_target=1.2, batch_size=400))
    buffers = {"penalty_factor": torch.tensor(8.0, dtype=torch.float64)}
    assert penalties_at(config, 0, 0.0, buffers).r1 == pytest.approx(4.0)
    assert adapt_penalty_factor(config, buffers, d_loss=0.2) == {"penalty_factor": pytest.approx(8.0)}
    assert buffers["penalty_factor"].item() == pytest.approx(16.0)
    assert penalties_at(config, 0, 0.0, buffers).r1 == pytest.approx(8.0)
    assert adapt_penalty_factor(config.replace(d_loss_target=0.0), buffers, d_loss=0.2) == {}
