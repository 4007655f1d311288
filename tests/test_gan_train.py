"""A classifier learns from images in their classes, and nothing from images with shuffled labels."""

from dataclasses import replace

import pytest
import torch

from gansmith.data import load_data
from gansmith.metrics.gan_train import gan_train


@pytest.mark.slow
def test_real_images_teach_and_shuffled_labels_do_not():
    digits = load_data("mnist")
    mixed = digits.take(torch.randperm(len(digits), generator=torch.Generator().manual_seed(0)))
    fake, test = mixed.take(torch.arange(2_000)), mixed.take(torch.arange(4_000, 5_000))
    assert gan_train(fake, test, images=40_000)["gan_train"] == pytest.approx(0.96, abs=0.02)
    wrong = replace(fake, labels=fake.labels.roll(777))
    assert gan_train(wrong, test, images=40_000)["gan_train"] == pytest.approx(0.1, abs=0.05)


def test_images_without_labels_are_refused():
    digits = load_data("mnist")
    with pytest.raises(ValueError, match="sample with labels"):
        gan_train(replace(digits, labels=None), digits)
