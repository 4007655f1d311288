"""Images in memory: layouts, conversions, class frequencies and the validation split."""

import pytest
import torch

from gansmith.conditioning import spread_evenly
from gansmith.data import load_data
from gansmith.data.images import Images, split, to_float, to_uint8


def test_every_byte_survives_the_round_trip():
    every = torch.arange(256, dtype=torch.uint8)
    assert to_float(every).min() == -1 and to_float(every).max() == 1
    torch.testing.assert_close(to_uint8(to_float(every)), every, rtol=0, atol=0)
    torch.testing.assert_close(to_uint8(torch.tensor([-9.0, 9.0])), torch.tensor([0, 255], dtype=torch.uint8))


def test_the_split_depends_on_the_images_alone(digits):
    pixels, labels = torch.from_numpy(digits[0])[:, None], torch.from_numpy(digits[1])
    train, validation = split(Images(pixels, labels))
    assert (len(train), len(validation)) == (360, 40)
    order = torch.randperm(400, generator=torch.Generator().manual_seed(5))
    train2, validation2 = split(Images(pixels[order], labels[order]))

    def contents(images):
        return {image.numpy().tobytes() for image in images.pixels}

    assert contents(validation) == contents(validation2) and contents(train) == contents(train2)
    assert not contents(validation) & contents(train)


def test_class_frequencies_of_the_embedded_digits_are_those_of_mnist():
    images = load_data("mnist")
    shares = images.class_frequencies
    assert shares.sum() == pytest.approx(1) and len(shares) == 10
    assert shares.argmax() == 1 and shares[1] * 60_000 == pytest.approx(6742)
    assert shares.argmin() == 5 and shares[5] * 60_000 == pytest.approx(5421)

    few = images.take(torch.nonzero(torch.isin(images.labels, torch.tensor([1, 5]))).flatten()).class_frequencies
    assert few.tolist() == pytest.approx([0, 6742 / 12163, 0, 0, 0, 5421 / 12163])
    assert torch.equal(spread_evenly(few, seed=0, count=100).unique(), torch.tensor([1, 5]))

    plain = Images(images.pixels, images.labels).take(torch.tensor([0, 700, 800]))
    assert plain.class_frequencies.tolist() == pytest.approx([1 / 3, 2 / 3])
