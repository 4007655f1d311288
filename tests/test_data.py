"""Reading images from every kind of source, whole or broken."""

import gzip
import hashlib
import http.server
import threading
from functools import partial

import numpy as np
import pytest
import torch
from conftest import write_idx, write_set
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gansmith.sampling import generate
from gansmith.data import DATASETS, load_data, load_split, synthetic
from gansmith.data.images import Images, split, to_float, to_uint8
from gansmith.data.clusters import (
    LABEL_CODES,
    LABEL_WEIGHT,
    ORIENTATIONS,
    edge_histograms,
    find_clusters,
    find_subclusters,
)
from gansmith.data.download import download
from gansmith.data.embedded import embedded_mnist
from gansmith.data.idx import read_idx


def test_every_byte_survives_the_round_trip():
    every = torch.arange(256, dtype=torch.uint8)
    assert to_float(every).min() == -1 and to_float(every).max() == 1
    torch.testing.assert_close(to_uint8(to_float(every)), every, rtol=0, atol=0)
    torch.testing.assert_close(to_uint8(torch.tensor([-9.0, 9.0])), torch.tensor([0, 255], dtype=torch.uint8))


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_idx_files_hold_what_was_written(tmp_path, suffix):
    values = np.random.default_rng(0).integers(0, 256, (5, 4, 4), dtype=np.uint8)
    write_idx(tmp_path / f"a{suffix}", values)
    read, digest = read_idx(tmp_path / f"a{suffix}")
    np.testing.assert_array_equal(read, values)
    assert (
        digest == hashlib.sha256(bytes([0, 0, 8, 3, 0, 0, 0, 5, 0, 0, 0, 4, 0, 0, 0, 4]) + values.tobytes()).hexdigest()
    )


def whole_file():
    return bytes([0, 0, 8, 3, 0, 0, 0, 2, 0, 0, 0, 4, 0, 0, 0, 4]) + bytes(32)


@pytest.mark.parametrize(
    ("content", "word"),
    [
        (b"", "nothing"),
        (b"\x89PNG" + bytes(50), "does not start"),
        (bytes([0, 0, 13, 3]) + whole_file()[4:], "does not start"),
        (bytes([0, 0, 8, 9]) + whole_file()[4:], "does not start"),
        (whole_file()[:10], "damaged header"),
        (whole_file()[:-1], "cut off"),
        (whole_file() + b"\0", "larger than"),
        (bytes([0, 0, 8, 3]) + b"\xff" * 12 + bytes(32), "damaged header"),
    ],
)
@pytest.mark.parametrize("packed", [False, True])
def test_broken_idx_files_are_refused(tmp_path, content, word, packed):
    path = tmp_path / ("a.gz" if packed else "a")
    path.write_bytes(gzip.compress(content) if packed else content)
    with pytest.raises(ValueError, match=word) as refusal:
        read_idx(path)
    assert "\n" not in str(refusal.value)


def test_a_damaged_archive_is_refused(tmp_path):
    packed = gzip.compress(whole_file())
    for damaged in (packed[:-9], packed[:20] + bytes(4) + packed[24:], b"not gzip at all"):
        path = tmp_path / "a.gz"
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match="fetch it again"):
            read_idx(path)


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(content=st.binary(max_size=80), start=st.sampled_from([b"", b"\0\0\x08\x01", b"\0\0\x08\x03"]))
def test_any_bytes_are_read_or_refused(tmp_path, content, start):
    path = tmp_path / "any"
    path.write_bytes(start + content)
    try:
        values, _ = read_idx(path)
    except ValueError as refusal:
        assert str(path) in str(refusal)
    else:
        assert values.size <= len(content)


def test_a_folder_is_used_alone_and_described(tmp_path, digits):
    folder = write_set(tmp_path / "mine", *digits)
    images = load_data("mnist", data_dir=folder)
    np.testing.assert_array_equal(images.pixels[:, 0].numpy(), digits[0])
    np.testing.assert_array_equal(images.labels.numpy(), digits[1])
    assert images.source == str(folder) and any("not the official" in notice for notice in images.notices)
    with pytest.raises(FileNotFoundError, match="holds no test images"):
        load_data("mnist", data_dir=folder, part="test")
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="holds no train images"):
        load_data("mnist", data_dir=tmp_path / "empty")


def test_sources_are_tried_in_order(tmp_path, monkeypatch, digits):
    images, labels = digits
    assert "embedded" in load_data("mnist").source
    cache = write_set(tmp_path / "cache" / "mnist", images[:30], labels[:30])
    assert load_data("mnist").source == str(cache)
    shared = write_set(tmp_path / "shared" / "mnist", images[:20], labels[:20])
    monkeypatch.setenv("GANSMITH_DATA", str(tmp_path / "shared"))
    assert load_data("mnist").source == str(shared)
    assert load_data("mnist", data_dir=cache).source == str(cache)
    (shared / "train-images-idx3-ubyte.gz").write_bytes(b"rubbish")
    with pytest.raises(ValueError, match="fetch it again"):  # a corrupt source is refused, not passed over
        load_data("mnist")


def test_labels_must_match_and_may_be_missing(tmp_path, digits):
    images, labels = digits
    with pytest.raises(ValueError, match="one label for each image"):
        load_data("idx", data_dir=write_set(tmp_path / "a", images, labels[:-1]))
    unlabelled = load_data("idx", data_dir=write_set(tmp_path / "b", images, None))
    assert unlabelled.labels is None and unlabelled.num_classes == 0
    with pytest.raises(ValueError, match="holds no images"):
        load_data("idx", data_dir=write_set(tmp_path / "c", images[:0], labels[:0]))
    with pytest.raises(ValueError, match="square"):
        load_data("idx", data_dir=write_set(tmp_path / "d", images[:, :20], labels))


def test_emnist_is_turned_upright(tmp_path, digits):
    images, labels = digits
    folder = tmp_path / "e"
    folder.mkdir()
    write_idx(folder / "emnist-digits-train-images-idx3-ubyte.gz", images.transpose(0, 2, 1))
    write_idx(folder / "emnist-digits-train-labels-idx1-ubyte.gz", labels)
    np.testing.assert_array_equal(load_data("emnist-digits", data_dir=folder).pixels[:, 0].numpy(), images)


def test_the_split_depends_on_pictures_alone(digits):
    pixels, labels = torch.from_numpy(digits[0])[:, None], torch.from_numpy(digits[1])
    fit, held = split(Images("x", pixels, labels, "here"))
    assert (len(fit), len(held)) == (360, 40)
    order = torch.randperm(400, generator=torch.Generator().manual_seed(5))
    fit2, held2 = split(Images("x", pixels[order], labels[order], "here"))

    def contents(images):
        return {image.numpy().tobytes() for image in images.pixels}

    assert contents(held) == contents(held2) and contents(fit) == contents(fit2)
    assert not contents(held) & contents(fit)


def test_the_embedded_digits_are_real_ones():
    images = load_data("mnist")
    assert images.pixels.shape == (5000, 1, 28, 28)
    assert torch.bincount(images.labels).tolist() == [500] * 10
    assert len(load_split("mnist", "validation")) == 500
    with pytest.raises(FileNotFoundError):
        load_split("mnist", "test")
    with pytest.raises(ValueError, match="no split"):
        load_split("mnist", "dev")


def test_the_embedded_digits_are_drawn_as_often_as_mnist_has_them():
    images = load_data("mnist")
    shares = images.class_frequencies
    assert shares.sum() == pytest.approx(1) and len(shares) == 10
    assert shares.argmax() == 1 and shares[1] * 60_000 == pytest.approx(6742)
    assert shares.argmin() == 5 and shares[5] * 60_000 == pytest.approx(5421)

    few = images.take(torch.nonzero(torch.isin(images.labels, torch.tensor([1, 5]))).flatten()).class_frequencies
    assert few.tolist() == pytest.approx([0, 6742 / 12163, 0, 0, 0, 5421 / 12163])
    assert torch.equal(generate.spread_evenly(few, seed=0, count=100).unique(), torch.tensor([1, 5]))

    plain = Images("x", images.pixels, images.labels, "here").take(torch.tensor([0, 700, 800]))
    assert plain.class_frequencies.tolist() == pytest.approx([1 / 3, 2 / 3])


@pytest.mark.parametrize(("name", "centres"), [("gaussian-ring", 8), ("gaussian-grid", 25)])
def test_dots_sit_where_their_mode_says(name, centres):
    images = load_data(name)
    assert images.num_classes == centres
    weight = images.pixels[:, 0].double()
    axis = torch.arange(synthetic.SIZE, dtype=torch.float64)
    total = weight.sum((1, 2))
    found = torch.stack([(weight.sum(1) * axis).sum(1) / total, (weight.sum(2) * axis).sum(1) / total], dim=1)
    means = torch.stack([found[images.labels == k].mean(0) for k in range(centres)])
    expected = (synthetic.ring_centres if centres == 8 else synthetic.grid_centres)().double()
    torch.testing.assert_close(means, expected, atol=0.1, rtol=0)
    spread = (found - expected[images.labels]).std(0)
    torch.testing.assert_close(spread, torch.full((2,), synthetic.SPREAD).double(), atol=0.05, rtol=0)


def test_every_dataset_without_a_source_says_where_it_looked():
    for name in DATASETS:
        if name in ("mnist", "stacked-mnist") or name.startswith("gaussian"):
            continue
        with pytest.raises(FileNotFoundError, match="--data-dir"):
            load_data(name)


@pytest.fixture
def server(tmp_path):
    """A real web server on this machine, serving tmp_path/www."""
    root = tmp_path / "www"
    root.mkdir()

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(root))) as httpd:
        thread = threading.Thread(target=httpd.serve_forever)
        thread.start()
        yield root, f"http://127.0.0.1:{httpd.server_port}/"
        httpd.shutdown()
        thread.join()


def test_downloads_take_the_first_mirror_that_is_right(server, tmp_path):
    root, url = server
    (root / "wrong.gz").write_bytes(gzip.compress(b"something else"))
    (root / "damaged.gz").write_bytes(b"\x1f\x8b damaged")
    (root / "right.gz").write_bytes(gzip.compress(b"the content"))
    digest = hashlib.sha256(b"the content").hexdigest()
    target = tmp_path / "cache" / "set" / "file.gz"
    bad = [url + "missing.gz", url + "wrong.gz", url + "damaged.gz", "http://127.0.0.1:9/x.gz"]
    assert not download(bad, target, sha256=digest)
    assert not target.exists() and not list(tmp_path.glob("cache/**/.part-*"))
    assert download([*bad, url + "right.gz"], target, sha256=digest)
    assert gzip.decompress(target.read_bytes()) == b"the content"
    assert [path.name for path in target.parent.iterdir()] == ["file.gz"]


def test_edges_lie_where_they_are_and_turn_with_the_image():
    """A step across the image has edges of one orientation about its place; turned by a quarter, of the other."""
    image = torch.zeros(1, 1, 28, 28, dtype=torch.uint8)
    image[..., 14:] = 255
    upright, lying = (edge_histograms(x).view(ORIENTATIONS, 7, 7) for x in (image, image.transpose(2, 3)))
    assert upright.square().sum().item() == pytest.approx(1)
    torch.testing.assert_close(upright, lying.roll(ORIENTATIONS // 2, 0).transpose(1, 2))
    assert upright[0].sum() / upright.sum() == pytest.approx(0.5) and upright[ORIENTATIONS // 2].max() < 1e-6
    assert upright[0, :, 3].min() > 0 and upright[0, :, (0, 1, 5, 6)].max() == 0
    torch.testing.assert_close(edge_histograms(255 - image), edge_histograms(image))
    assert not edge_histograms(image * 0).any()


def test_clusters_hold_digits_of_one_kind():
    """Better than clusters of pixels alone, which hold 86 % of one digit here; at random, 21 %."""
    digits = embedded_mnist().take(torch.arange(0, 5000, 2))
    ids, codes = find_clusters(digits.pixels, 100)
    table = torch.zeros(100, 10).index_put_((ids, digits.labels), torch.ones(len(ids)), accumulate=True)
    assert 0.90 < table.max(1).values.sum() / len(ids) < 0.99 and codes.shape == (100, 50)


def test_clusters_within_labels_stay_within_them():
    digits = embedded_mnist().take(torch.arange(0, 5000, 2))
    rows = digits.labels != 3
    ids, codes = find_subclusters(digits.pixels[rows], digits.labels[rows], 6, num_labels=11)
    assert torch.equal(ids // 6, digits.labels[rows]) and len(ids.unique()) == 54
    names, centres = codes[:, -LABEL_CODES:], codes[:, :-LABEL_CODES]
    torch.testing.assert_close(
        names @ names.T, LABEL_WEIGHT**2 * torch.eye(11).repeat_interleave(6, 0).repeat_interleave(6, 1)
    )
    assert codes.shape == (66, 50 + LABEL_CODES) and not centres[18:24].any() and not centres[60:].any()
    apart = torch.cdist(centres[:6], centres[:6])
    assert apart[~torch.eye(6, dtype=torch.bool)].min() > 0.1


def test_clusters_of_few_images_have_codes_of_ordinary_size():
    """Ten images lie in nine dimensions: the tenth component is rounding, and scaled up it would drown the rest."""
    few = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (10, 1, 28, 28), dtype=np.uint8))
    ids, codes = find_clusters(few, 2)
    assert sorted(ids.unique().tolist()) == [0, 1] and codes.shape == (2, 10)
    assert 0.5 < codes.abs().max() < 10 and (codes[:, 9] == 0).all()
