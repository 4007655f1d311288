"""Images in files of other programs: .npz arrays and folders of pictures, whole, unusual and damaged."""

import io
import os
import zipfile

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from gansmith.data.image_files import read_images
from gansmith.errors import DataError, NotFoundError

PIXELS = np.random.default_rng(0).integers(0, 256, (5, 8, 8, 3), dtype=np.uint8)


@pytest.mark.parametrize("name", ["images", "samples", "arr_0"])
@pytest.mark.parametrize("channels", [0, 1, 3])
def test_arrays_are_read_in_every_usual_layout(tmp_path, name, channels):
    stored = PIXELS[..., 0] if channels == 0 else PIXELS[..., :channels]
    np.savez(tmp_path / "last.npz", **{name: stored})
    images = read_images(tmp_path / "last.npz")
    assert images.labels is None and tuple(images.pixels.shape) == (5, max(channels, 1), 8, 8)
    np.testing.assert_array_equal(images.pixels[:, 0].numpy(), PIXELS[..., 0])
    if channels:
        np.savez_compressed(tmp_path / "first.npz", **{name: np.asfortranarray(stored.transpose(0, 3, 1, 2))})
        np.testing.assert_array_equal(read_images(tmp_path / "first.npz").pixels, images.pixels)


def test_labels_are_kept_where_all_are_known(tmp_path):
    np.savez(tmp_path / "a.npz", images=PIXELS, labels=np.arange(5))
    assert read_images(tmp_path / "a.npz").labels.tolist() == [0, 1, 2, 3, 4]
    np.savez(tmp_path / "b.npz", images=PIXELS, labels=np.full(5, -1))
    assert read_images(tmp_path / "b.npz").labels is None


def test_pictures_are_read_by_name_and_grey_ones_count_as_grey(tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    for k, image in enumerate(PIXELS[..., 0]):
        Image.fromarray(image).convert("RGB").save(folder / f"{k:02d}.png")
    images = read_images(folder)
    assert images.labels is None
    np.testing.assert_array_equal(images.pixels[:, 0].numpy(), PIXELS[..., 0])
    assert tuple(images.pixels.shape) == (5, 1, 8, 8)


def test_folders_in_a_folder_are_classes(tmp_path):
    for name, k in (("cat", 0), ("dog", 1), ("dog", 2)):
        (tmp_path / "set" / name).mkdir(parents=True, exist_ok=True)
        Image.fromarray(PIXELS[k]).save(tmp_path / "set" / name / f"{k}.png")
    images = read_images(tmp_path / "set")
    assert images.labels.tolist() == [0, 1, 1]
    np.testing.assert_array_equal(images.pixels.permute(0, 2, 3, 1).numpy(), PIXELS[:3])


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
        read_images(tmp_path / "x.npz")


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
        read_images(tmp_path / "x.npz")


def test_broken_places_are_refused(tmp_path):
    with pytest.raises(NotFoundError, match="no file or folder"):
        read_images(tmp_path / "nothing.npz")
    (tmp_path / "x.npz").write_bytes(b"PK\x03\x04 no archive")
    with pytest.raises(DataError, match="not a whole .npz"):
        read_images(tmp_path / "x.npz")
    folder = tmp_path / "folder"
    folder.mkdir()
    with pytest.raises(DataError, match="holds no .png"):
        read_images(folder)
    (folder / "a.png").write_bytes(b"\x89PNG\r\n")
    with pytest.raises(DataError, match="cannot be read as a picture"):
        read_images(folder)
    Image.new("L", (8, 8)).save(folder / "a.png")
    Image.new("L", (8, 9)).save(folder / "b.png")
    with pytest.raises(DataError, match="use one size"):
        read_images(folder)
    Image.new("L", (5000, 4)).save(folder / "a.png")
    with pytest.raises(DataError, match="at most 4096"):
        read_images(folder)
    Image.new("I;16", (8, 8)).save(folder / "a.png")
    with pytest.raises(DataError, match="8-bit"):
        read_images(folder)
    (folder / "a.png").unlink()
    os.mkfifo(folder / "a.png")  # opening it would block
    with pytest.raises(DataError, match="is not a regular file"):
        read_images(folder)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(position=st.integers(0, 10_000), byte=st.integers(0, 255))
def test_a_changed_byte_gives_images_or_a_sentence(tmp_path, position, byte):
    buffer = io.BytesIO()
    np.savez_compressed(buffer, images=PIXELS, labels=np.arange(5))
    data = bytearray(buffer.getvalue())
    data[position % len(data)] = byte
    (tmp_path / "x.npz").write_bytes(data)
    try:
        assert read_images(tmp_path / "x.npz").pixels.dtype.itemsize == 1
    except DataError as error:
        assert len(str(error).splitlines()) == 1
