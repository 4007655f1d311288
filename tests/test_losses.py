"""Losses at logits worked out by hand, against torch's own cross-entropy, and by their slopes."""

import math

import pytest
import torch
from torch.nn.functional import binary_cross_entropy_with_logits as cross_entropy

from gansmith.config import resolve
from gansmith.training.losses import OBJECTIVES, build_losses, class_loss, feature_distance
from gansmith.training.penalties import dragan_penalty, gradient_penalty, squared_gradient_norm

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
        (
            "minimax",
            (softplus(-2) + softplus(1)) / 2 + (softplus(0.5) + softplus(-3)) / 2,
            -(softplus(0.5) + softplus(-3)) / 2,
        ),
        (
            "auxiliary-classifier",
            (softplus(-2) + softplus(1)) / 2 + (softplus(0.5) + softplus(-3)) / 2,
            (softplus(-0.5) + softplus(3)) / 2,
        ),
        ("wasserstein", -1.25 - 0.5, 1.25),
        ("hinge", (0 + 2) / 2 + (1.5 + 0) / 2, 1.25),
        ("relativistic", (softplus(-1.5) + softplus(-2)) / 2, (softplus(1.5) + softplus(2)) / 2),
        (
            "relativistic-average",
            (softplus(-3.25) + softplus(-0.25)) / 2 + (softplus(0) + softplus(-3.5)) / 2,
            (softplus(3.25) + softplus(0.25)) / 2 + (softplus(0) + softplus(3.5)) / 2,
        ),
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
    return build_losses(resolve("mlp-small", arguments=flags))


def test_soft_targets_are_cross_entropy_with_them():
    d_loss, g_loss = losses(real_target_low=0.9, real_target_high=0.9, fake_target_low=0.2, fake_target_high=0.2)
    rng = torch.Generator()
    expected = cross_entropy(REAL, 0.9 * ONES) + cross_entropy(FAKE, 0.2 * ONES)
    torch.testing.assert_close(d_loss(REAL, FAKE, rng), expected)
    torch.testing.assert_close(g_loss(REAL, FAKE, rng), cross_entropy(FAKE, ONES))
    _, g_loss = losses(real_target_low=0.9, real_target_high=0.9, g_targets="soft")
    torch.testing.assert_close(g_loss(REAL, FAKE, rng), cross_entropy(FAKE, 0.9 * ONES))


def test_soft_least_squares_pull_to_the_target():
    d_loss, _ = losses(objective="least-squares", real_target_low=0.8, real_target_high=0.8)
    logits = torch.tensor([0.3, 0.8], requires_grad=True)
    (slope,) = torch.autograd.grad(d_loss(logits, ZEROS, torch.Generator()), logits)
    torch.testing.assert_close(slope, torch.tensor([(0.3 - 0.8) / 2, 0.0]))


def test_flipped_ranges_swap_places_for_both_players():
    flags = dict(real_target_low=0.7, fake_target_high=0.3, label_flipping=1.0, g_targets="soft")
    d_loss, g_loss = losses(**flags)
    logits = torch.zeros(20_000, requires_grad=True)
    # Cross-entropy's slope at logit 0 is 1/2 - target: its mean tells the mean target.
    (real,) = torch.autograd.grad(d_loss(logits, logits.detach(), torch.Generator()), logits)
    (fake,) = torch.autograd.grad(d_loss(logits.detach(), logits, torch.Generator()), logits)
    (passing,) = torch.autograd.grad(g_loss(logits, logits, torch.Generator()), logits)
    assert 0.5 - real.sum().item() == pytest.approx(0.15, abs=0.01)
    assert 0.5 - fake.sum().item() == pytest.approx(0.85, abs=0.01)
    assert 0.5 - passing.sum().item() == pytest.approx(0.15, abs=0.01)


def test_a_generator_with_a_hard_target_steps_towards_what_real_images_are_called():
    _, g_loss = losses(label_flipping=1.0)
    torch.testing.assert_close(g_loss(REAL, FAKE, torch.Generator()), cross_entropy(FAKE, ZEROS))


def test_flipping_now_and_then_mixes_both_losses():
    d_loss, _ = losses(label_flipping=0.25)
    rng = torch.Generator()
    straight = cross_entropy(REAL, ONES) + cross_entropy(FAKE, ZEROS)
    flipped = cross_entropy(REAL, ZEROS) + cross_entropy(FAKE, ONES)
    mean = torch.stack([d_loss(REAL, FAKE, rng) for _ in range(1000)]).mean()
    torch.testing.assert_close(mean, 0.75 * straight + 0.25 * flipped, rtol=0.05, atol=0)


def test_a_zero_sum_generator_wants_what_its_discriminator_does_not():
    d_loss, g_loss = losses(objective="minimax", fake_target_low=0.2, fake_target_high=0.2, g_targets="soft")
    real, fake = REAL.clone().requires_grad_(), FAKE.clone().requires_grad_()
    (d_slope,) = torch.autograd.grad(d_loss(real, fake, torch.Generator()), fake)
    (g_slope,) = torch.autograd.grad(g_loss(real, fake, torch.Generator()), fake)
    torch.testing.assert_close(g_slope, -d_slope)


@pytest.mark.parametrize("objective", ["wasserstein", "hinge", "relativistic", "relativistic-average"])
@pytest.mark.parametrize("flags", [{"real_target_low": 0.9}, {"label_flipping": 0.1}])
def test_soft_targets_are_refused_where_there_are_none(objective, flags):
    with pytest.raises(ValueError, match="knows no targets"):
        losses(objective=objective, **flags)


def test_joint_objectives_always_push_fakes_down():
    logits = torch.linspace(-8, 8, 33, requires_grad=True)
    for name, objective in OBJECTIVES.items():
        (slope,) = torch.autograd.grad(objective.d_loss(torch.zeros(33), logits), logits)
        assert bool((slope > 0).all()) or not objective.joint, name


def test_squared_slope_of_a_linear_discriminator_is_its_weight():
    weight = torch.randn(1, 3, 3)
    images = torch.randn(5, 1, 3, 3, requires_grad=True)
    (slope,) = torch.autograd.grad((images * weight).sum(), images)
    torch.testing.assert_close(squared_gradient_norm(slope), weight.square().sum().expand(5))


def test_penalties_elsewhere_of_a_linear_discriminator_know_its_weight():
    weight = torch.randn(1, 3, 3)
    real, fake = torch.randn(5, 1, 3, 3), torch.randn(5, 1, 3, 3)
    for penalty in (gradient_penalty, dragan_penalty):
        values = penalty(lambda images: (images * weight).flatten(1).sum(1), real, fake, torch.Generator())
        torch.testing.assert_close(values, (weight.norm() - 1).square().expand(5))


@pytest.mark.parametrize("penalty", [gradient_penalty, dragan_penalty])
def test_penalties_elsewhere_have_the_slope_they_should(penalty):
    """D = sum(a x^2) slopes by 2 a |x|, so the penalty's own derivative in a is known at the points it chose."""
    points = []
    a = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)

    def D(images):
        points.append(images)
        return (a * images.square()).flatten(1).sum(1)

    real, fake = (torch.randn(6, 1, 2, 2, dtype=torch.float64) for _ in range(2))
    values = penalty(D, real, fake, torch.Generator().manual_seed(1))
    length = points[0].detach().flatten(1).norm(dim=1)
    torch.testing.assert_close(values, (0.6 * length - 1).square())
    (slope,) = torch.autograd.grad(values.sum(), a)
    torch.testing.assert_close(slope, (2 * (0.6 * length - 1) * 2 * length).sum())


def test_penalties_look_between_the_pair_and_around_the_data():
    seen = []

    def D(images):
        seen.append(images.detach())
        return images.flatten(1).sum(1)

    real, fake = torch.zeros(4000, 1, 1, 2), torch.tensor([1.0, 3.0]).expand(4000, 1, 1, 2)
    gradient_penalty(D, real, fake, torch.Generator().manual_seed(0))
    share = seen[0][:, 0, 0, 0]
    torch.testing.assert_close(seen[0][:, 0, 0, 1], 3 * share)
    assert (share.min() >= 0, share.max() < 1, share.mean().item()) == (True, True, pytest.approx(0.5, abs=0.02))
    real = torch.randn(4000, 1, 1, 2, generator=torch.Generator().manual_seed(0))
    dragan_penalty(D, real, fake, torch.Generator().manual_seed(0))
    moved = seen[1] - real
    assert (moved >= 0).all() and moved.max().item() < 0.5 * real.std().item()
    assert moved.mean().item() == pytest.approx(0.125 * real.std().item(), rel=0.05)


def test_a_flat_discriminator_gives_a_finite_gradient():
    a = torch.zeros((), requires_grad=True)
    values = gradient_penalty(
        lambda x: a * x.flatten(1).sum(1), torch.ones(2, 1, 1, 1), torch.zeros(2, 1, 1, 1), torch.Generator()
    )
    (slope,) = torch.autograd.grad(values.sum(), a)
    assert slope.isfinite() and values.tolist() == pytest.approx([1, 1], abs=1e-4)


def test_class_loss_is_the_negative_log_likelihood():
    logits = torch.tensor([[1.0, 2.0, 0.0], [0.5, 0.0, 0.0]])
    by_hand = [math.log(sum(map(math.exp, row))) - row[i] for row, i in zip(logits.tolist(), (1, 2), strict=True)]
    assert class_loss(logits, torch.tensor([1, 2])).item() == pytest.approx(sum(by_hand) / 2, rel=1e-6)


def test_feature_distance_compares_means():
    real, fake = torch.tensor([[1.0, 2.0], [3.0, 2.0]]), torch.tensor([[0.0, 0.0], [0.0, 2.0]])
    assert feature_distance(real, fake).item() == pytest.approx(2**2 + 1**2)
