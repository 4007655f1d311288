"""Drawings and photographs become like the images of a set."""

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw, ImageFilter

from gansmith.data.matching import fit_pictures
from gansmith.errors import DataError, NotFoundError


def figure(size, box, *, ink=255, ground=0, mode="L"):
    picture = Image.new(mode, (size, size), ground)
    ImageDraw.Draw(picture).rectangle(box, fill=ink)
    return picture


def samples(ink=255, ground=0):
    """Images of 28 pixels with a figure of 20 x 8 pixels around the middle."""
    tile = np.full((28, 28), ground, dtype=np.uint8)
    tile[4:24, 10:18] = ink
    return torch.from_numpy(tile).expand(30, 1, 28, 28).clone()


def test_images_of_the_set_stay_as_they_are():
    pixels = np.random.default_rng(0).integers(0, 256, (5, 28, 28), dtype=np.uint8)
    pixels[:, [0, -1]], pixels[:, :, [0, -1]] = 0, 0
    fitted, notices = fit_pictures(pixels, samples())
    np.testing.assert_array_equal(fitted[:, 0].numpy(), pixels)
    assert notices == ()


@pytest.mark.parametrize("is_inverted", [False, True])
@pytest.mark.parametrize("ground", [0, 255])
def test_a_drawing_gets_polarity_size_and_place_of_the_set(ground, is_inverted):
    wanted = samples(255 - ground, ground)
    drawn = ground if not is_inverted else 255 - ground
    picture = figure(280, (19, 29, 58, 128), ink=255 - drawn, ground=drawn)  # 40 x 100 pixels, up on the left
    fitted, notices = fit_pictures(picture, wanted)
    np.testing.assert_allclose(fitted[0, 0].numpy().astype(int), wanted[0, 0].numpy().astype(int), atol=1)
    assert len(notices) == 1 + is_inverted and ("opposite" in notices[0]) == is_inverted


def test_a_large_picture_is_looked_at_in_fewer_pixels(monkeypatch):
    monkeypatch.setattr("gansmith.data.matching.LARGEST", 200)
    fitted, _ = fit_pictures(figure(900, (100, 100, 259, 499)), samples())
    np.testing.assert_allclose(fitted[0, 0].numpy().astype(int), samples()[0, 0].numpy().astype(int), atol=40)


def test_a_photograph_with_shadow_and_noise_becomes_a_clean_figure():
    rng = np.random.default_rng(0)
    paper = 200 + np.linspace(-15, 15, 400)[None, :] + rng.normal(0, 4, (300, 400))
    paper[60:260, 250:330] = 60
    photo = Image.fromarray(paper.clip(0, 255).astype(np.uint8)).filter(ImageFilter.GaussianBlur(2)).convert("RGB")
    fitted, _ = fit_pictures([photo], samples())
    image = fitted[0, 0].numpy().astype(int)
    assert image[samples()[0, 0].numpy() == 0].mean() < 5
    assert image[samples()[0, 0].numpy() == 255].mean() > 225


@pytest.mark.parametrize("ink", [0, 255], ids=["black ink", "white ink"])
def test_ink_on_a_transparent_ground_is_a_figure(ink):
    picture = Image.new("RGBA", (100, 100), (ink, ink, ink, 0))
    ImageDraw.Draw(picture).rectangle((10, 10, 29, 59), fill=(ink, ink, ink, 255))
    fitted, _ = fit_pictures(picture, samples())
    np.testing.assert_allclose(fitted[0, 0].numpy().astype(int), samples()[0, 0].numpy().astype(int), atol=1)


def test_where_images_fill_their_frame_pictures_are_prepared_alone():
    textures = torch.randint(0, 256, (30, 3, 16, 16), dtype=torch.uint8)
    picture = Image.new("RGB", (40, 20), (250, 10, 10))
    fitted, notices = fit_pictures([picture, np.zeros((16, 16, 3), np.uint8)], textures)
    assert fitted.shape == (2, 3, 16, 16) and notices == ()
    assert fitted[0, :, 8, 8].tolist() == [250, 10, 10] and not fitted[1].any()


def test_what_shows_nothing_or_is_no_picture_is_refused(tmp_path):
    (tmp_path / "text.png").write_text("no picture")
    for pictures, why in [
        (Image.new("L", (90, 90), 200), "shows nothing"),
        (Image.new("L", (1, 100_000)), "1 x 100,000 pixels, too narrow"),
        (Image.new("RGBA", (3000, 2)), "3,000 x 2 pixels, too narrow"),
        (tmp_path / "text.png", "text.png cannot be read"),
        (tmp_path, "is a folder; give the path of a picture in it"),
        (7, "of type int"),
        ([], "0 pictures were given"),
    ]:
        with pytest.raises(DataError, match=why):
            fit_pictures(pictures, samples())
    with pytest.raises(NotFoundError, match="there is no picture"):
        fit_pictures([tmp_path / "missing.png"], samples())
