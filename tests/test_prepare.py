"""Preparation of pictures: every mode and size becomes square uint8 images, and what was decided is said."""

import io

import numpy as np
import pytest
from PIL import Image

from gansmith.data.prepare import Look, Preparation, decode, look_at, look_into, prepare, settle
from gansmith.errors import ConfigError, DataError

GREY = np.random.default_rng(0).integers(0, 256, (8, 8), dtype=np.uint8)


def packed(picture, kind="PNG", **options):
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def look(width=8, height=8, **changes):
    fields = {"is_grey": True, "has_transparency": False, "is_content_light": None, **changes}
    return Look(width, height, **fields)


@pytest.mark.parametrize("kind", ["PNG", "BMP", "GIF", "TIFF"])
def test_lossless_formats_give_the_pixels_that_were_written(kind):
    picture = decode(packed(Image.fromarray(GREY), kind))
    np.testing.assert_array_equal(prepare(picture, Preparation(8, color="grey")), GREY[None])


@pytest.mark.parametrize("kind", ["JPEG", "WEBP"])
def test_lossy_formats_give_nearly_the_pixels(kind):
    smooth = np.add.outer(np.arange(0, 128, 4), np.arange(0, 128, 4)).astype(np.uint8)
    found = prepare(decode(packed(Image.fromarray(smooth), kind, quality=95)), Preparation(32, color="grey"))
    np.testing.assert_allclose(found[0].astype(int), smooth.astype(int), atol=8)


def test_color_is_kept_channels_first_and_grey_repeats():
    color = np.random.default_rng(1).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    found = prepare(decode(packed(Image.fromarray(color))), Preparation(8, color="rgb"))
    np.testing.assert_array_equal(found, color.transpose(2, 0, 1))
    grey = prepare(decode(packed(Image.fromarray(GREY))), Preparation(8, color="rgb"))
    np.testing.assert_array_equal(grey, np.stack([GREY] * 3))


@pytest.mark.parametrize(("background", "value"), [("black", 0), ("white", 255)])
def test_transparency_is_laid_over_the_background(background, value):
    rgba = np.full((8, 8, 4), 100, np.uint8)
    rgba[..., 3] = 255
    rgba[:4, :, 3] = 0
    found = prepare(decode(packed(Image.fromarray(rgba))), Preparation(8, color="rgb", background=background))
    assert (found[:, :4] == value).all() and (found[:, 4:] == 100).all()
    palette = Image.new("P", (8, 8), 1)
    palette.putpalette([0, 0, 0, 100, 100, 100])
    palette.paste(0, (0, 0, 8, 4))
    picture = decode(packed(palette, transparency=0))
    assert picture.mode == "RGBA" and look_at(picture).has_transparency
    again = prepare(picture, Preparation(8, color="rgb", background=background))
    np.testing.assert_array_equal(again, found)


def test_a_camera_rotation_is_undone():
    wide = Image.fromarray(np.repeat(GREY, 2, axis=1))
    exif = Image.Exif()
    exif[0x0112] = 6  # stored lying on its left side
    picture = decode(packed(wide, exif=exif))
    assert picture.size == (8, 16)
    np.testing.assert_array_equal(np.asarray(picture), np.rot90(np.asarray(wide), -1))


def test_cmyk_becomes_rgb():
    picture = decode(packed(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "TIFF"))
    assert picture.mode == "RGB"
    np.testing.assert_allclose(np.asarray(picture, int), np.broadcast_to([255, 0, 0], (8, 8, 3)), atol=2)


def test_16_bit_pictures_are_scaled_by_their_own_range():
    deep = np.linspace(1000, 5000, 64).reshape(8, 8).astype(np.uint16)
    found = prepare(decode(packed(Image.fromarray(deep))), Preparation(8, color="grey"))[0]
    np.testing.assert_allclose(found.astype(float), np.linspace(0, 255, 64).reshape(8, 8), atol=0.6)
    for value, level in ((0, 0), (257 * 51, 51), (65535, 255)):  # without a range of their own, by that of their type
        flat = decode(packed(Image.fromarray(np.full((8, 8), value, np.uint16))))
        assert flat.mode == "L" and (np.asarray(flat) == level).all()
    found = look_into(packed(Image.fromarray(deep)))
    assert found.mode == "I;16" and "each by its own range" in settle(Preparation(), [look(), found])[1][0]


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_floats_that_are_not_finite_are_damage(value):
    values = np.linspace(0, 1, 64, dtype=np.float32).reshape(8, 8)
    assert np.asarray(decode(packed(Image.fromarray(values), "TIFF"))).max() == 255
    values[3, 3] = value
    with pytest.raises(DataError, match="NaN or infinite"):
        decode(packed(Image.fromarray(values), "TIFF"))


def test_of_an_animation_the_first_frame_counts():
    frames = [Image.new("L", (8, 8), value) for value in (10, 200)]
    found = decode(packed(frames[0], "GIF", save_all=True, append_images=frames[1:]))
    assert found.size == (8, 8) and np.asarray(found.convert("L")).max() == 10


@pytest.mark.parametrize("content", [b"", b"no picture", packed(Image.fromarray(GREY))[:60], b"%PDF-1.4", b"<svg/>"])
def test_damage_and_other_formats_are_refused_in_one_line(content):
    with pytest.raises(DataError) as caught:
        decode(content)
    assert len(str(caught.value).splitlines()) == 1


def test_too_many_pixels_are_refused_before_they_are_unpacked(monkeypatch):
    monkeypatch.setattr("gansmith.data.prepare.MAX_PIXELS", 63)
    with pytest.raises(DataError, match="8 x 8 pixels, more than 63"):
        decode(packed(Image.fromarray(GREY)))


@pytest.mark.parametrize("resize", ["crop", "pad", "stretch"])
def test_other_shapes_become_square(resize):
    tall = np.full((32, 16), 100, np.uint8)
    picture = decode(packed(Image.fromarray(tall)))
    found = prepare(picture, Preparation(8, resize, "grey", "white"))
    assert found.shape == (1, 8, 8)
    if resize == "pad":
        assert (found[..., :2] == 255).all() and (found[..., -2:] == 255).all() and (found[..., 2:6] == 100).all()
    else:
        assert (found == 100).all()


def test_a_reduction_averages():
    checks = (np.indices((32, 32)).sum(0) % 2 * 255).astype(np.uint8)
    found = prepare(decode(packed(Image.fromarray(checks))), Preparation(8, color="grey"))
    np.testing.assert_allclose(found[0, 1:-1, 1:-1].astype(float), 127.5, atol=12)


def test_pictures_of_one_size_keep_it_without_a_word():
    settled, notices = settle(Preparation(), [look(28, 28)] * 3)
    assert settled == Preparation(28, "crop", "grey", settled.background) and notices == ()


@pytest.mark.parametrize(
    ("sizes", "size"),
    [
        ([(30, 30)], 32), ([(256, 256)], 64), ([(20, 30), (40, 24), (24, 90)], 24), ([(3, 3)], 8), ([(4, 4)], 8),
        ([(128, 128)], 128), ([(100, 100)] * 20 + [(3024, 3024)], 100), ([(100, 100)] * 18 + [(3024, 3024)], 64),
    ],
)  # fmt: skip
def test_mixed_or_odd_sizes_are_settled_and_said(sizes, size):
    settled, notices = settle(Preparation(), [look(*each) for each in sizes])
    assert settled.size == size
    assert bool(notices) is (size != sizes[0][0] or len(sizes) > 1)
    assert all(f"prepared as {size}x{size}" in notice and "--size" in notice for notice in notices)


def test_one_color_picture_makes_all_rgb_and_what_was_asked_stays():
    looks = [look(), look(is_grey=False)]
    assert settle(Preparation(), looks)[0].color == "rgb"
    settled, notices = settle(Preparation(10, "pad", "grey", "white"), looks)
    assert settled == Preparation(10, "pad", "grey", "white") and "multiple of 4" in notices[0]


@pytest.mark.parametrize(("is_light", "background"), [(True, "black"), (False, "white")])
def test_the_background_contrasts_with_what_is_visible(is_light, background):
    settled, notices = settle(Preparation(), [look(has_transparency=True, is_content_light=is_light)])
    assert settled.background == background and f"over {background}" in notices[0]
    rgba = np.full((8, 8, 4), 240 if is_light else 15, np.uint8)
    rgba[:4, :, 3] = 0
    found = look_at(Image.fromarray(rgba))
    assert found.has_transparency and found.is_grey and found.is_content_light is is_light


@pytest.mark.parametrize(("ground", "background"), [(255, "white"), (0, "black")])
def test_opaque_pictures_are_padded_with_what_is_at_their_edges(ground, background):
    pixels = np.full((8, 12), ground, np.uint8)
    pixels[3:5, 4:8] = 255 - ground
    settled, _ = settle(Preparation(12, "pad"), [look_at(Image.fromarray(pixels))])
    assert settled.background == background
    assert prepare(Image.fromarray(pixels), settled)[0, 0].tolist() == [ground] * 12


@pytest.mark.parametrize(("ground", "background"), [(255, "white"), (0, "black")])
def test_a_few_transparent_pictures_are_laid_over_what_most_have_at_their_edges(ground, background):
    opaque = look_at(Image.new("L", (8, 8), ground))
    lying = look(has_transparency=True, is_content_light=ground == 255)
    settled, _ = settle(Preparation(), [opaque, opaque, lying])
    assert settled.background == background
    assert settle(Preparation(), [opaque, lying, lying])[0].background != background


def test_nothing_visible_is_said_and_no_pictures_are_refused():
    hidden = look_at(Image.new("RGBA", (8, 8), (255, 255, 255, 0)))
    assert hidden.is_content_light is None
    notices = settle(Preparation(), [hidden, hidden, look(8, 8)])[1]
    assert "2 of 3 pictures looked at are transparent nearly everywhere" in notices[1] and "alpha" in notices[1]
    assert len(settle(Preparation(), [hidden, look(8, 8)])[1]) == 1
    with pytest.raises(DataError, match="no picture that can be read"):
        settle(Preparation(), [])


@pytest.mark.parametrize(
    "wrong", [{"size": 3}, {"size": 2000}, {"resize": "cut"}, {"color": "blue"}, {"background": "grey"}]
)
def test_wrong_choices_are_refused(wrong):
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        Preparation(**wrong)


def test_a_preparation_says_itself():
    assert Preparation(8, "pad", "grey", "white").in_words() == "prepared as 8x8 grey, padded with white"
    assert Preparation(8, color="rgb").in_words() == "prepared as 8x8 rgb, cropped to squares"


def test_a_picture_too_narrow_to_be_padded_is_left_out():
    with pytest.raises(DataError, match="too narrow to be padded to 32 pixels"):
        prepare(Image.new("L", (3000, 20), 9), Preparation(size=32, resize="pad", color="grey", background="black"))
    kept = prepare(Image.new("L", (3000, 50), 9), Preparation(size=32, resize="pad", color="grey", background="black"))
    assert (kept == 9).any()
