"""Images that stay in a file: every operation gives what it gives in memory, and only the rows asked for are read."""

import dataclasses
import os

import numpy as np
import pytest
import torch

from gansmith.data import on_disk
from gansmith.data.images import Images, find_known, split, with_known
from gansmith.data.on_disk import OnDisk, open_array
from gansmith.errors import DataError

PIXELS = np.random.default_rng(0).integers(0, 256, (60, 3, 5, 5), dtype=np.uint8)
ROWS = torch.tensor([7, 3, 3, 59, 0])


@pytest.fixture(params=["nchw", "nhwc"])
def pair(request, tmp_path):
    """The same images on disk and in memory."""
    stored = PIXELS if request.param == "nchw" else PIXELS.transpose(0, 2, 3, 1)
    np.save(tmp_path / "x.npy", np.ascontiguousarray(stored))
    return open_array(tmp_path / "x.npy"), torch.from_numpy(PIXELS)


OPERATIONS = {
    "rows": lambda x: x[ROWS],
    "index_select": lambda x: x.index_select(0, ROWS),
    "slice": lambda x: x[5:40:7],
    "from the end": lambda x: x[-3:],
    "one": lambda x: x[-1],
    "list": lambda x: x[[1, 5]],
    "mask": lambda x: x[torch.arange(60) % 7 == 0],
    "none": lambda x: x[:0],
    "rows and channel": lambda x: x[ROWS, 0],
    "channel": lambda x: x[:, 0, 0, 0],
    "split": lambda x: torch.cat([chunk.float() for chunk in x.split(7)]),
    "permute": lambda x: x.permute(0, 2, 3, 1),
    "flatten": lambda x: x.flatten(1).double(),
    "amin": lambda x: x.amin(0),
    "compare": lambda x: (x == x[:1]).sum(),
    "contiguous": lambda x: x.contiguous()[:2],
    "iterate": lambda x: torch.stack(list(x)),
    "numpy": lambda x: torch.from_numpy(x.numpy()),
    "asarray": lambda x: torch.from_numpy(np.asarray(x)),
}


@pytest.mark.parametrize("name", OPERATIONS)
def test_operations_give_what_they_give_in_memory(pair, name):
    stored, memory = pair
    found, expected = OPERATIONS[name](stored), OPERATIONS[name](memory)
    assert type(found) is torch.Tensor
    torch.testing.assert_close(found, expected, rtol=0, atol=0)
    view, order = stored.view_of(torch.arange(59, -1, -1)), torch.arange(59, -1, -1)
    torch.testing.assert_close(OPERATIONS[name](view), OPERATIONS[name](memory[order]), rtol=0, atol=0)


def test_only_the_rows_asked_for_are_read(pair, monkeypatch):
    stored, memory = pair
    read = []
    monkeypatch.setattr(
        type(stored.file), "_fill", lambda self, images, place: read.append((images.nbytes, place - self.start))
    )
    assert (
        len(stored) == 60 and stored.shape == memory.shape and stored.dtype == torch.uint8 and "60, 3" in repr(stored)
    )
    assert read == []
    stored[ROWS]
    assert read == [(75, 75 * row) for row in ROWS.tolist()]
    read.clear()
    for chunk in stored.view_of(torch.arange(10, 40)).split(20):
        chunk.float()
    assert read == [(20 * 75, 10 * 75), (10 * 75, 30 * 75)]  # rows that follow one another at once


def test_a_file_that_becomes_shorter_is_an_error(pair):
    stored, _ = pair
    os.truncate(stored.file.path, 128 + 75 * 50)
    assert len(stored[:50]) == 50
    with pytest.raises(DataError, match="has become shorter"):
        stored[:51]


def test_rows_are_read_without_preadv_or_advice_too(pair, monkeypatch):
    stored, memory = pair
    monkeypatch.delattr(os, "preadv")
    monkeypatch.delattr(os, "posix_fadvise")
    torch.testing.assert_close(stored[ROWS], memory[ROWS], rtol=0, atol=0)


@pytest.mark.parametrize(
    "array",
    [
        PIXELS.astype(np.float32), np.asfortranarray(PIXELS), PIXELS[:, 0, 0], PIXELS[:0], PIXELS[..., None],
        np.array([{}], dtype=object), np.zeros((5, 8, 8, 4), np.uint8), np.zeros((8, 8, 3, 5), np.uint8),
    ],
    ids=["floats", "fortran", "rows", "empty", "five axes", "objects", "transparent", "count last"],
)  # fmt: skip
def test_other_arrays_are_not_opened(tmp_path, array):
    np.save(tmp_path / "x.npy", array)
    assert open_array(tmp_path / "x.npy") is None


def test_damaged_files_are_not_opened(tmp_path):
    np.save(tmp_path / "x.npy", PIXELS)
    whole = (tmp_path / "x.npy").read_bytes()
    for content in (whole[:-1], whole + b"0", whole[:90], b"", b"no array"):
        (tmp_path / "x.npy").write_bytes(content)
        assert open_array(tmp_path / "x.npy") is None


def test_a_set_on_disk_is_hashed_split_and_chosen_from_as_in_memory(pair, monkeypatch):
    stored, memory = pair
    labels = torch.arange(60) % 4
    a, b = Images(stored, labels, name="x"), Images(memory, labels, name="x")
    assert a.spec == b.spec and a.sha256 == b.sha256
    monkeypatch.setattr(on_disk, "COPIED_BYTES", 75 * 6)
    for one, other in zip(split(a), split(b), strict=True):
        assert one.sha256 == other.sha256 and len(one) in (54, 6)
        assert isinstance(one.pixels, OnDisk) == (len(one) == 54)  # few are copied
        assert one.take(ROWS % 6).sha256 == other.take(ROWS % 6).sha256
    assert split(a)[0].without_labels().sha256 == split(b)[0].without_labels().sha256


def test_what_is_known_of_a_set_is_not_worked_out_again(pair, monkeypatch):
    stored, memory = pair
    images = Images(stored, torch.arange(60) % 4)
    known = find_known(images)
    again = with_known(images, known)
    held_out, sha256 = split(images)[1].sha256, images.sha256
    monkeypatch.setattr(type(stored.file), "_fill", lambda *_: pytest.fail("it was read"))
    assert again.sha256 == sha256
    monkeypatch.undo()
    assert split(again)[1].sha256 == held_out
    assert again.without_labels().sha256 == Images(memory).sha256  # other labels, another hash
    assert again.take(torch.arange(59)).pixels.shape[0] == 59 and with_known(Images(memory), known).pixels is not None
    wrong = with_known(images, {**known, "held_out": [5]})
    assert len(split(wrong)[1]) == 1  # so that it is what is used
    assert dataclasses.replace(again, name="y").sha256 == sha256
