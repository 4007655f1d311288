"""Losses at logits worked out by hand, against torch's own cross-entropy, and by their gradients."""

import math

import pytest
import torch
from torch.nn.functional import binary_cross_entropy_with_logits as cross_entropy

from gansmith.config import resolve
from gansmith.errors import ConfigError
from gansmith.training.losses import OBJECTIVES, build_losses, class_loss, feature_distance

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


def losses(**choices):
    return build_losses(resolve("mlp-small", arguments=choices))


def test_smoothed_labels_are_cross_entropy_with_these_targets():
    d_loss, g_loss = losses(label_smoothing=0.1, fake_label_smoothing=0.2)
    rng = torch.Generator()
    expected = cross_entropy(REAL, 0.9 * ONES) + cross_entropy(FAKE, 0.2 * ONES)
    torch.testing.assert_close(d_loss(REAL, FAKE, rng), expected)
    torch.testing.assert_close(g_loss(REAL, FAKE, rng), cross_entropy(FAKE, ONES))
    _, g_loss = losses(label_smoothing=0.1, g_targets="smoothed")
    torch.testing.assert_close(g_loss(REAL, FAKE, rng), cross_entropy(FAKE, 0.9 * ONES))


def test_smoothed_least_squares_pull_to_the_target():
    d_loss, _ = losses(objective="least-squares", label_smoothing=0.2)
    logits = torch.tensor([0.3, 0.8], requires_grad=True)
    (gradient,) = torch.autograd.grad(d_loss(logits, ZEROS, torch.Generator()), logits)
    torch.testing.assert_close(gradient, torch.tensor([(0.3 - 0.8) / 2, 0.0]))


RANDOM = {"label_smoothing": 0.3, "fake_label_smoothing": 0.3, "random_labels": True}


@pytest.mark.parametrize(("flipping", "real_target", "fake_target"), [(0.0, 0.85, 0.15), (1.0, 0.15, 0.85)])
def test_random_targets_fill_their_range_and_flipped_ones_swap_for_both_networks(flipping, real_target, fake_target):
    d_loss, g_loss = losses(**RANDOM, label_flipping=flipping, g_targets="smoothed")
    logits = torch.zeros(20_000, requires_grad=True)
    # Cross-entropy's derivative at logit 0 is 1/2 - target, here over the count of logits.
    (real,) = torch.autograd.grad(d_loss(logits, logits.detach(), torch.Generator()), logits)
    (fake,) = torch.autograd.grad(d_loss(logits.detach(), logits, torch.Generator()), logits)
    (passing,) = torch.autograd.grad(g_loss(logits, logits, torch.Generator()), logits)
    for gradient, target in ((real, real_target), (fake, fake_target), (passing, real_target)):
        targets = 0.5 - len(logits) * gradient
        low, high = (0.7, 1.0) if target > 0.5 else (0.0, 0.3)
        assert targets.mean().item() == pytest.approx(target, abs=0.01)
        assert (targets.min().item(), targets.max().item()) == pytest.approx((low, high), abs=0.001)
        assert targets.std().item() == pytest.approx(0.3 / math.sqrt(12), rel=0.02)  # uniform between the two


def test_targets_that_are_not_random_are_all_the_smoothed_one():
    d_loss, _ = losses(label_smoothing=0.3, fake_label_smoothing=0.1)
    logits = torch.zeros(100, requires_grad=True)
    for target, arguments in ((0.7, (logits, logits.detach())), (0.1, (logits.detach(), logits))):
        (gradient,) = torch.autograd.grad(d_loss(*arguments, torch.Generator()), logits)
        torch.testing.assert_close(0.5 - 100 * gradient, torch.full((100,), target))


def test_a_generator_with_a_hard_target_has_the_one_that_d_mostly_has_for_real_images():
    _, g_loss = losses(label_flipping=1.0)
    torch.testing.assert_close(g_loss(REAL, FAKE, torch.Generator()), cross_entropy(FAKE, ZEROS))


def test_flipping_a_quarter_of_steps_mixes_both_losses():
    d_loss, _ = losses(label_flipping=0.25)
    rng = torch.Generator()
    straight = cross_entropy(REAL, ONES) + cross_entropy(FAKE, ZEROS)
    flipped = cross_entropy(REAL, ZEROS) + cross_entropy(FAKE, ONES)
    mean = torch.stack([d_loss(REAL, FAKE, rng) for _ in range(1000)]).mean()
    torch.testing.assert_close(mean, 0.75 * straight + 0.25 * flipped, rtol=0.05, atol=0)


def test_a_zero_sum_generator_has_its_discriminators_gradient_negated():
    d_loss, g_loss = losses(objective="minimax", fake_label_smoothing=0.2, g_targets="smoothed")
    real, fake = REAL.clone().requires_grad_(), FAKE.clone().requires_grad_()
    (d_gradient,) = torch.autograd.grad(d_loss(real, fake, torch.Generator()), fake)
    (g_gradient,) = torch.autograd.grad(g_loss(real, fake, torch.Generator()), fake)
    torch.testing.assert_close(g_gradient, -d_gradient)


@pytest.mark.parametrize("objective", ["wasserstein", "hinge", "relativistic", "relativistic-average"])
@pytest.mark.parametrize("choices", [{"label_smoothing": 0.1}, {"fake_label_smoothing": 0.1}, {"label_flipping": 0.1}])
def test_smoothing_and_flipping_are_refused_where_there_are_no_targets(objective, choices):
    with pytest.raises(ConfigError, match="has no targets"):
        losses(objective=objective, **choices)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_discriminators_push_generated_logits_down(name):
    """All of them, but for the two whose loss has a flat or a rising part below a bound."""
    logits = torch.linspace(-8, 8, 33, requires_grad=True)
    (gradient,) = torch.autograd.grad(OBJECTIVES[name].d_loss(torch.zeros(33), logits), logits)
    assert bool((gradient > 0).all()) == (name not in ("least-squares", "hinge"))
    assert (gradient[logits > 0] > 0).all()


def test_class_loss_is_the_negative_log_likelihood():
    logits = torch.tensor([[1.0, 2.0, 0.0], [0.5, 0.0, 0.0]])
    by_hand = [math.log(sum(map(math.exp, row))) - row[i] for row, i in zip(logits.tolist(), (1, 2), strict=True)]
    assert class_loss(logits, torch.tensor([1, 2])).item() == pytest.approx(sum(by_hand) / 2, rel=1e-6)


def test_feature_distance_compares_means():
    real, fake = torch.tensor([[1.0, 2.0], [3.0, 2.0]]), torch.tensor([[0.0, 0.0], [0.0, 2.0]])
    assert feature_distance(real, fake).item() == pytest.approx(2**2 + 1**2)
