"""Arrays in .npz files and single pictures: whole, unusual and damaged."""

import io
import zipfile

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from gansmith.data.image_files import open_picture, read_npz, truncation_notice
from gansmith.errors import DataError

PIXELS = np.random.default_rng(0).integers(0, 256, (5, 8, 8, 3), dtype=np.uint8)


@pytest.mark.parametrize("name", ["images", "samples", "arr_0"])
@pytest.mark.parametrize("channels", [0, 1, 3])
def test_arrays_are_read_in_every_usual_layout(tmp_path, name, channels):
    stored = PIXELS[..., 0] if channels == 0 else PIXELS[..., :channels]
    np.savez(tmp_path / "last.npz", **{name: stored})
    images = read_npz(tmp_path / "last.npz")
    assert images.labels is None and tuple(images.pixels.shape) == (5, max(channels, 1), 8, 8)
    np.testing.assert_array_equal(images.pixels[:, 0].numpy(), PIXELS[..., 0])
    if channels:
        np.savez_compressed(tmp_path / "first.npz", **{name: np.asfortranarray(stored.transpose(0, 3, 1, 2))})
        np.testing.assert_array_equal(read_npz(tmp_path / "first.npz").pixels, images.pixels)


def test_labels_are_kept_where_all_are_known(tmp_path):
    np.savez(tmp_path / "a.npz", images=PIXELS, labels=np.arange(5))
    assert read_npz(tmp_path / "a.npz").labels.tolist() == [0, 1, 2, 3, 4]
    np.savez(tmp_path / "b.npz", images=PIXELS, labels=np.full(5, -1))
    assert read_npz(tmp_path / "b.npz").labels is None


def test_a_truncation_is_one_number_and_said(tmp_path):
    path = tmp_path / "x.npz"
    for more, said in (({}, 0), ({"truncation": np.float64(1)}, 0), ({"truncation": np.float64(0.7)}, 1)):
        np.savez(path, images=PIXELS, **more)
        assert len(truncation_notice(path)) == said
    assert "drawn with truncation 0.7" in truncation_notice(path)[0]
    np.savez(path, images=PIXELS, truncation=np.ones(2))
    with pytest.raises(DataError, match="holds 2 truncations"):
        truncation_notice(path)
    path.write_bytes(b"no archive")
    assert truncation_notice(path) == ()


def header(shape: str, descr: str = "|u1") -> bytes:
    text = f"{{'descr': {descr!r}, 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode()


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"images": np.zeros((3, 8, 8))}, "uint8"),
        ({"images": np.zeros((3, 8, 9), np.uint8)}, "size, size"),
        ({"images": np.zeros((0, 8, 8), np.uint8)}, "size, size"),
        ({"images": np.zeros((3, 8, 8, 2), np.uint8)}, "size, size"),
        ({"images": PIXELS, "labels": np.arange(4)}, "one whole number"),
        ({"images": PIXELS, "labels": np.ones(5)}, "one whole number"),
        ({"other": PIXELS}, "no array called"),
    ],
)
def test_other_arrays_are_refused_in_one_sentence(tmp_path, arrays, words):
    np.savez(tmp_path / "x.npz", **arrays)
    with pytest.raises(DataError, match=words):
        read_npz(tmp_path / "x.npz")


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (header("(1000000000, 28, 28)"), "at most"),
        (header("(3, 4, 4)"), "does not hold"),
        (header("(1, 4, 4)") + bytes(17), "does not hold"),
        (header("(3,)", "|O"), "plain numbers"),
        (header("(-1, 4, 4)"), "plain numbers"),
        (b"\x93NUMPY\x09\x00", "not a NumPy array"),
        (b"", "not a NumPy array"),
    ],
)
def test_headers_that_lie_are_refused_before_anything_is_allocated(tmp_path, body, words):
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as archive:
        archive.writestr("images.npy", body)
    with pytest.raises(DataError, match=words):
        read_npz(tmp_path / "x.npz")


def test_broken_archives_are_refused(tmp_path):
    with pytest.raises(DataError, match="No such file"):
        read_npz(tmp_path / "nothing.npz")
    (tmp_path / "x.npz").write_bytes(b"PK\x03\x04 no archive")
    with pytest.raises(DataError, match="not a whole .npz"):
        read_npz(tmp_path / "x.npz")


def test_pictures_are_opened_whole_or_refused(tmp_path):
    Image.fromarray(PIXELS[0]).save(tmp_path / "a.png")
    np.testing.assert_array_equal(np.asarray(open_picture(tmp_path / "a.png")), PIXELS[0])
    whole = (tmp_path / "a.png").read_bytes()
    for content in (b"\x89PNG\r\n", whole[:-40], b""):
        (tmp_path / "a.png").write_bytes(content)
        with pytest.raises(DataError, match="cannot be read as a picture"):
            open_picture(tmp_path / "a.png")
    Image.fromarray(PIXELS[0]).save(tmp_path / "a.bmp")
    with pytest.raises(DataError, match="cannot be read as a picture"):
        open_picture(tmp_path / "a.bmp")


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(position=st.integers(0, 10_000), byte=st.integers(0, 255))
def test_a_changed_byte_gives_images_or_a_sentence(tmp_path, position, byte):
    buffer = io.BytesIO()
    np.savez_compressed(buffer, images=PIXELS, labels=np.arange(5))
    data = bytearray(buffer.getvalue())
    data[position % len(data)] = byte
    (tmp_path / "x.npz").write_bytes(data)
    try:
        assert read_npz(tmp_path / "x.npz").pixels.dtype.itemsize == 1
    except DataError as error:
        assert len(str(error).splitlines()) == 1
