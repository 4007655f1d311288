"""Images in memory: layouts, conversions, class frequencies and the validation split."""

from pathlib import Path

import numpy as np
import pytest
import torch

import gansmith as gs
from gansmith.conditioning import spread_evenly
from gansmith.data import load_data
from gansmith.data.images import Images, split, to_float, to_uint8
from gansmith.errors import ConfigError, DataError


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


PIXELS = np.zeros((3, 8, 8), np.uint8)


def test_labels_may_be_names_or_whole_numbers_of_any_type():
    named = Images(PIXELS, ["dog", "cat", "dog"])
    assert named.labels.tolist() == [1, 0, 1] and named.class_names == ("cat", "dog") and named.num_classes == 2
    assert Images(PIXELS, ["dog", "cat", "dog"], class_names=("owl", "dog", "cat")).labels.tolist() == [1, 2, 1]
    assert named.take(torch.tensor([1])).class_names == ("cat", "dog")
    for kind in (np.uint8, np.uint16, np.uint64, np.int32, bool):
        assert Images(PIXELS, np.array([1, 0, 1], kind)).labels.tolist() == [1, 0, 1]
    missing = Images(PIXELS, np.array(["dog", None, "cat"], object))
    assert missing.labels is None and "no label for 1 of 3 images" in missing.notices[0]


@pytest.mark.parametrize(
    ("pixels", "words"),
    [
        ("photos", "images are of type str; give uint8 .*; gansmith.load_data reads a path"),
        (Path("photos"), "of type .*Path; give uint8"),
        (None, "of type NoneType"),
        (np.array([PIXELS, None], object), "of type ndarray; give uint8"),
        ([np.zeros((8, 8)), np.zeros((9, 9))], "images cannot be read as an array"),
        (PIXELS.astype(np.uint16), "images are torch.uint16 of shape"),
        (
            np.zeros((5, 28, 28, 4), np.uint8),
            "have a channel of opacity; give .* of them, or all to gansmith.load_data",
        ),
        (np.zeros((5, 24, 32, 4), np.uint8), r"channel of opacity; give \[..., :3\] of them"),
        (np.zeros((5, 4, 32, 32), np.uint8), r"channel of opacity; give \[:, :3\] of them"),
        (np.zeros((5, 2, 32, 32), np.uint8), "have neither one channel nor three"),
    ],
    ids=str,
)
def test_what_is_no_array_of_images_is_refused_in_words(pixels, words):
    with pytest.raises(DataError, match=words):
        Images(pixels)


@pytest.mark.parametrize(
    "labels", [[0.5, 1.0, 2.0], [0, 1], [0, -1, 1], np.array([2**63, 0, 1], np.uint64), "dog"], ids=str
)
def test_labels_that_are_no_class_ids_are_refused(labels):
    with pytest.raises(DataError, match="label"):
        Images(PIXELS, labels)


@pytest.mark.parametrize("shape", [(4, 4, 1), (4, 4, 3), (4, 8, 3), (1, 4, 4), (3, 4, 4)])
def test_images_of_four_pixels_have_no_channel_of_opacity(shape):
    assert Images(np.zeros((5, *shape), np.uint8)).spec.channels in (1, 3)


@pytest.mark.parametrize("size", [(32, 32), 32.5, True])
def test_a_size_that_is_no_whole_number_is_refused_in_words(size):
    with pytest.raises(ConfigError, match="size is .*whole number"):
        gs.load_data(np.zeros((40, 28, 28), np.uint8), size=size)
