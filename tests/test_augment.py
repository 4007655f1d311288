"""Augmentations: their arithmetic, their gradients, and the probability that adapts."""

import pytest
import torch

from gansmith.training.augment import (
    CHANGES,
    adapt,
    augment,
    brightness,
    contrast,
    cutout,
    mirror,
    mirror_accuracy,
    saturation,
    shift,
    translation,
)


def source(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def pictures(n: int = 6, channels: int = 3, size: int = 16, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.rand(n, channels, size, size, generator=source(99), dtype=dtype) * 2 - 1


def test_brightness_adds_one_number_to_each_image():
    added = brightness(pictures(2000), source()) - pictures(2000)
    per_image = added.mean((1, 2, 3))
    torch.testing.assert_close(added, per_image.view(-1, 1, 1, 1).expand_as(added), atol=1e-6, rtol=0)
    assert (per_image.min().item(), per_image.max().item()) == pytest.approx((-0.5, 0.5), abs=0.01)
    assert per_image.mean().item() == pytest.approx(0.0, abs=0.03)  # 4.6 standard errors


def test_contrast_keeps_each_mean_and_scales_what_differs_from_it():
    images = pictures(2000, size=4)
    changed = contrast(images, source())
    torch.testing.assert_close(changed.mean((1, 2, 3)), images.mean((1, 2, 3)), atol=1e-6, rtol=0)
    ratio = changed.std((1, 2, 3)) / images.std((1, 2, 3))
    assert (ratio.min().item(), ratio.max().item()) == pytest.approx((0.5, 1.5), abs=0.01)
    assert ratio.mean().item() == pytest.approx(1.0, abs=0.03)


def test_saturation_keeps_each_pixels_mean_and_leaves_grey_images_alone():
    images = pictures(2000, size=4)
    changed = saturation(images, source())
    torch.testing.assert_close(changed.mean(1), images.mean(1), atol=1e-6, rtol=0)
    ratio = (changed - changed.mean(1, keepdim=True)).std((1, 2, 3)) / (images - images.mean(1, keepdim=True)).std(
        (1, 2, 3)
    )
    assert (ratio.min().item(), ratio.max().item()) == pytest.approx((0.0, 2.0), abs=0.01)
    grey = pictures(channels=1)
    torch.testing.assert_close(saturation(grey, source()), grey, atol=1e-6, rtol=0)


def test_translation_moves_whole_pixels_and_fills_with_zeros():
    images = pictures(300)
    moved = translation(images, source())
    seen = set()
    for before, after in zip(images, moved, strict=True):
        padded = torch.nn.functional.pad(before, (2, 2, 2, 2))
        matches = [
            (down, right)
            for down in range(5)
            for right in range(5)
            if torch.equal(padded[:, down : down + 16, right : right + 16], after)
        ]
        assert len(matches) == 1
        seen |= set(matches)
    assert len(seen) == 25  # every move of up to two pixels each way


def test_a_mirror_image_mirrored_is_the_image():
    images = pictures()
    assert torch.equal(mirror(images, source())[..., 0], images[..., -1])
    assert torch.equal(mirror(mirror(images, source()), source()), images)


def test_images_are_told_from_their_mirror_images_only_where_classes_have_a_direction():
    noise = torch.randint(256, (1000, 3, 16, 16), generator=source(), dtype=torch.uint8)
    classes = torch.arange(1000) % 2
    assert mirror_accuracy(noise, None) == pytest.approx(0.5, abs=0.06)  # 4 standard errors
    assert mirror_accuracy(torch.full((50, 1, 8, 8), 9, dtype=torch.uint8), None) == 0.5
    right = noise.clone()
    right[..., 8:] //= 2
    assert mirror_accuracy(right, None) == 1.0
    # Each class is the other one's mirror image, as b and d are: the set has no direction, its classes have.
    both = torch.where(classes.view(-1, 1, 1, 1) == 0, right, right.flip(-1))
    assert mirror_accuracy(both, None) == pytest.approx(0.5, abs=0.06)
    assert mirror_accuracy(both, classes) == 1.0


def test_shifts_are_of_up_to_two_pixels_of_28_and_fill_with_black():
    images = pictures(300, size=28)
    moved = shift(images, source())
    seen = set()
    for before, after in zip(images, moved, strict=True):
        padded = torch.nn.functional.pad(before, (2, 2, 2, 2), value=-1.0)
        matches = [
            (down, right)
            for down in range(5)
            for right in range(5)
            if torch.allclose(padded[:, down : down + 28, right : right + 28], after, rtol=0, atol=1e-6)
        ]
        assert len(matches) == 1
        seen |= set(matches)
    assert len(seen) == 25


def test_cutout_hides_one_square_of_half_the_side():
    hidden = cutout(torch.ones(2000, 2, 16, 16), source()) == 0
    assert torch.equal(hidden[:, 0], hidden[:, 1])
    heights, widths = hidden[:, 0].any(2).sum(1), hidden[:, 0].any(1).sum(1)
    assert torch.equal(hidden[:, 0].sum((1, 2)), heights * widths)
    # Centred anywhere on 17 lines between pixels: sides of 4 to 8 pixels, all 8 for 9 of the 17.
    for sides in (heights, widths):
        assert (sides.min().item(), sides.max().item()) == (4, 8)
        assert (sides == 8).float().mean().item() == pytest.approx(9 / 17, abs=0.05)


@pytest.mark.parametrize("change", [*CHANGES, shift], ids=lambda change: change.__name__)
def test_changes_let_first_and_second_gradients_through(change):
    images = pictures(3, size=8, dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: change(x, source()), images, fast_mode=True)
    assert torch.autograd.gradgradcheck(lambda x: change(x, source()).square(), images, fast_mode=True)


def test_equal_sources_give_equal_changes_and_the_input_stays():
    images = pictures()
    kept = images.clone()
    once, again, otherwise = (augment(images, source(seed), changes=CHANGES) for seed in (1, 1, 2))
    assert torch.equal(once, again) and not torch.equal(once, otherwise)
    assert torch.equal(images, kept)


@pytest.mark.parametrize("probability", [0.0, 0.3, 1.0])
def test_each_change_reaches_its_share_of_the_images(probability):
    changes = (lambda images, rng: images + 1, lambda images, rng: images + 10)
    changed = augment(torch.zeros(5000, 1, 2, 2), source(), changes=changes, probability=probability)[:, 0, 0, 0]
    shares = [(changed == value).float().mean().item() for value in (0, 1, 10, 11)]
    p = probability
    assert shares == pytest.approx([(1 - p) ** 2, p * (1 - p), p * (1 - p), p * p], abs=0.03)


def test_the_probability_rises_while_real_images_look_too_real_and_stays_within_its_range():
    half, zero, one = torch.tensor(0.5), torch.tensor(0.0), torch.tensor(1.0)
    assert adapt(half, mean_sign=torch.tensor(0.9), images=50_000).item() == pytest.approx(0.6)
    assert adapt(half, mean_sign=torch.tensor(0.1), images=50_000).item() == pytest.approx(0.4)
    assert (adapt(one, one, 64).item(), adapt(zero, zero, 64).item()) == (1.0, 0.0)
    probability = zero
    for _ in range(500):
        probability = adapt(probability, mean_sign=one, images=1000)
    assert probability.item() == pytest.approx(1.0, abs=1e-4)
