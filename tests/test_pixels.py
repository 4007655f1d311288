"""Pixel statistics at changes whose size is known."""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from gansmith.data import load_data
from gansmith.errors import DataError
from gansmith.metrics.pixels import pixel_statistics

RNG = np.random.default_rng(5)
DIGITS = load_data("mnist").pixels.numpy()[::5]
SAME = {"brightness": 0, "black": 0, "bright": 0, "histogram": 0, "offset_px": 0, "contrast": 1, "sharpness": 1}


def test_equal_sets_do_not_differ_whatever_their_order():
    assert pixel_statistics(DIGITS, DIGITS) == pytest.approx(SAME, abs=1e-9)
    assert pixel_statistics(DIGITS, DIGITS[::-1]) == pytest.approx(SAME, abs=1e-9)


def test_a_grey_lift_moves_brightness_and_empties_black():
    lifted = np.minimum(DIGITS.astype(int) + 8, 255).astype(np.uint8)
    found = pixel_statistics(DIGITS, lifted)
    assert found["brightness"] == pytest.approx(lifted.mean() - DIGITS.mean(), rel=1e-9)
    assert found["black"] == pytest.approx(-(DIGITS == 0).mean(), rel=1e-9)


def test_inverted_images_turn_the_histogram_over():
    mixed = DIGITS.copy()
    mixed[::5] = 255 - mixed[::5]
    found = pixel_statistics(DIGITS, mixed)
    assert found["bright"] == pytest.approx(0.15, abs=0.02)
    assert found["histogram"] == pytest.approx(0.15, abs=0.02)
    assert found["brightness"] == pytest.approx(0.2 * (255 - 2 * DIGITS.mean()), abs=1)


@pytest.mark.parametrize("pixels", [1, 2])
def test_a_shift_is_measured_in_pixels(pixels):
    assert pixel_statistics(DIGITS, np.roll(DIGITS, pixels, axis=3))["offset_px"] == pytest.approx(pixels, abs=0.02)
    assert pixel_statistics(DIGITS, np.roll(DIGITS, -pixels, axis=2))["offset_px"] == pytest.approx(pixels, abs=0.02)


def test_blur_lowers_and_noise_raises_sharpness():
    blurred = [pixel_statistics(DIGITS, gaussian_filter(DIGITS, (0, 0, s, s)))["sharpness"] for s in (0.4, 0.5, 0.7, 1)]
    assert 1 > blurred[0] > blurred[1] > blurred[2] > blurred[3]
    noisy = [np.where(RNG.random(DIGITS.shape) < share, 255, DIGITS).astype(np.uint8) for share in (0.002, 0.005, 0.01)]
    found = [pixel_statistics(DIGITS, x)["sharpness"] for x in noisy]
    assert 1.05 < found[0] < found[1] < found[2]


def test_a_color_cast_is_measured_in_its_channel_and_ink_is_not():
    color = RNG.integers(20, 200, (50, 3, 9, 7), dtype=np.uint8)
    of_color = {name: SAME[name] for name in ("brightness", "histogram", "contrast", "sharpness")}
    assert pixel_statistics(color, color) == pytest.approx(of_color, abs=1e-9)
    red = color.copy()
    red[:, 0] += 24
    red[:, 2] -= 8
    found = pixel_statistics(color, red)
    assert found["brightness"] == pytest.approx(24, abs=1e-9)
    assert found["histogram"] == pytest.approx(24 / 180, abs=0.04)  # of uniform levels, so many changed their bins


def test_black_images_have_statistics_too():
    black = np.zeros((4, 1, 8, 8), np.uint8)
    assert pixel_statistics(black, black) == pytest.approx(SAME | {"contrast": 0, "sharpness": 0}, abs=1e-9)


def test_sets_of_different_shape_are_refused():
    with pytest.raises(DataError, match="do not compare"):
        pixel_statistics(DIGITS, DIGITS[:, :, :20, :20])
