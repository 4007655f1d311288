"""Pictures prepared on all cores: right, in bounded memory, once for a large source, and again when it changes."""

import io
import os
import random
import shutil
import signal
import tarfile
import time
import zipfile
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import assert_same_run
from PIL import Image

from gansmith.data import cache, load_data, loading, on_disk, pictures, sources
from gansmith.data.images import split
from gansmith.data.loading import load_pictures
from gansmith.data.objects import as_images
from gansmith.data.on_disk import OnDisk
from gansmith.data.pictures import find_pictures
from gansmith.data.prepare import Preparation, decode, prepare
from gansmith.errors import DataError, NotFoundError
from gansmith.training.inputs import load_training_data

HOW = Preparation(8, color="rgb", background="black")


def draw(folder, count=40, seed=0):
    """Write pictures of several sizes and kinds into class folders, and return what each must become."""
    rng = np.random.default_rng(seed)
    expected = {}
    for k in range(count):
        path = folder / "ab"[k % 2] / f"{k:03d}.{('png', 'jpg')[k % 3 == 0]}"
        path.parent.mkdir(parents=True, exist_ok=True)
        side = int(rng.integers(8, 15))
        Image.fromarray(rng.integers(0, 256, (side, side + k % 3, 3), dtype=np.uint8)).save(path)
        expected[path.relative_to(folder).as_posix()] = prepare(decode(path.read_bytes()), HOW)
    return expected


@pytest.fixture
def folder(tmp_path):
    draw(tmp_path / "set")
    return tmp_path / "set"


@pytest.fixture
def large(monkeypatch):
    """Everything is large: kept in the cache, and read from there where it is indexed."""
    monkeypatch.setattr(loading, "WORTHWHILE_IMAGES", 1)
    monkeypatch.setattr(cache, "MEMORY_BYTES", 0)
    monkeypatch.setattr(cache, "FREE_BYTES", 0)
    monkeypatch.setattr(on_disk, "COPIED_BYTES", 0)
    monkeypatch.setattr(pictures, "_LONG_TAR_BYTES", 0)


@pytest.fixture
def prepared(monkeypatch):
    """The number of pictures that were prepared, call by call."""
    counts, whole = [], loading._prepare_all

    def counted(source, how, part, *others):
        counts.append(len(source.parts[part].names))
        return whole(source, how, part, *others)

    monkeypatch.setattr(loading, "_prepare_all", counted)
    return counts


def load(path, how=HOW, **options):
    return load_pictures(find_pictures(path), how, **options)


def pack(folder, path):
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w") as archive:
            for file in folder.rglob("*.*"):
                archive.write(file, file.relative_to(folder))
    else:
        with tarfile.open(path, "w:xz" if path.suffix == ".xz" else "w") as tar:
            files = sorted(folder.rglob("*.*"))
            random.Random(0).shuffle(files)
            for file in files:
                tar.add(file, file.relative_to(folder))
    return path


@pytest.mark.parametrize("batch", [1, 7, 64])
def test_every_picture_lands_in_its_row(folder, tmp_path, monkeypatch, batch):
    monkeypatch.setattr(loading, "BATCH_IMAGES", batch)
    expected = draw(tmp_path / "again")
    for path in (
        folder,
        pack(folder, tmp_path / "x.zip"),
        pack(folder, tmp_path / "x.tar"),
        pack(folder, tmp_path / "x.tar.xz"),
    ):
        images = load(path)
        assert images.labels.tolist() == [0] * 20 + [1] * 20 and images.class_names == ("a", "b")
        np.testing.assert_array_equal(images.pixels.numpy(), np.stack([expected[name] for name in sorted(expected)]))


def test_a_large_source_is_prepared_once_and_gives_the_same(folder, tmp_path, large, prepared, monkeypatch):
    images = load(folder)
    assert isinstance(images.pixels, OnDisk) and images.pixels.known is not None
    again = load(folder)
    with monkeypatch.context() as context:
        context.setattr(loading, "WORTHWHILE_IMAGES", 100)
        assert isinstance(load(folder).pixels, OnDisk)  # few, but more than memory holds
        context.setattr(cache, "MEMORY_BYTES", 10**6)
        memory = load(folder)
    assert prepared == [40, 40] and not isinstance(memory.pixels, OnDisk)
    for one in (images, again):
        assert one.sha256 == memory.sha256 and one.notices == memory.notices and one.class_names == memory.class_names
        assert [part.sha256 for part in split(one)] == [part.sha256 for part in split(memory)]
    shutil.rmtree(cache.folder())
    assert load(folder).sha256 == memory.sha256 and prepared == [40] * 3


def test_each_preparation_and_part_is_kept_and_strictness_is_none(tmp_path, large, prepared):
    for split_name, count in (("train", 20), ("test", 6)):
        draw(tmp_path / "set" / split_name, count)
    path = tmp_path / "set"
    found = [
        load(path),
        load(path, replace(HOW, size=4)),
        load(path, part="test"),
        load(path, replace(HOW, color="grey")),
    ]
    assert prepared == [20, 20, 6, 20]
    assert [tuple(images.pixels.shape) for images in found] == [
        (20, 3, 8, 8),
        (20, 3, 4, 4),
        (6, 3, 8, 8),
        (20, 1, 8, 8),
    ]
    load(path), load(path, replace(HOW, size=4)), load(path, part="test"), load(path, replace(HOW, strict=True))
    assert prepared == [20, 20, 6, 20]


@pytest.mark.parametrize("change", ["edited", "added", "removed", "renamed", "touched"])
def test_a_changed_folder_is_prepared_again_and_its_old_entry_removed(folder, large, prepared, change):
    before = load(folder)
    path = folder / "a" / "002.png"
    if change == "edited":
        Image.new("RGB", (9, 9), (9, 9, 9)).save(path)
    elif change == "added":
        Image.new("RGB", (9, 9)).save(folder / "a" / "new.png")
    elif change == "removed":
        path.unlink()
    elif change == "renamed":
        path.rename(folder / "a" / "zzz.png")
    else:
        os.utime(path, (1e9, 1e9))
    after = load(folder)
    assert len(prepared) == 2 and (after.sha256 == before.sha256) == (change == "touched")
    assert len(after) == 40 + (change == "added") - (change == "removed")
    assert len(list(cache.folder().glob("*.npy"))) == len(list(cache.folder().glob("*.json"))) == 1


def test_a_moved_folder_is_the_same(folder, tmp_path, large, prepared):
    before = load(folder)
    folder.rename(tmp_path / "moved")
    after = load(tmp_path / "moved")
    assert prepared == [40] and after.sha256 == before.sha256 and after.source == str(tmp_path / "moved")


@pytest.mark.parametrize("name", ["x.zip", "x.tar", "x.tar.xz"])
def test_a_large_archive_is_listed_and_prepared_once(folder, tmp_path, large, prepared, monkeypatch, name):
    path = pack(folder, tmp_path / name)
    first = load(path)
    whole = pictures.list_archive
    is_zip = path.suffix == ".zip"  # whose table of contents is short
    monkeypatch.setattr(
        pictures, "list_archive", lambda path: whole(path) if is_zip else pytest.fail("it was listed again")
    )
    for module in (pictures, loading):
        monkeypatch.setattr(module, "read_files", lambda *_: pytest.fail("it was read again"))
    assert load(path).sha256 == first.sha256 and prepared == [40]


def test_broken_pictures_of_a_large_source_are_left_out_and_strictness_refuses_them(
    folder, large, prepared, monkeypatch
):
    for name in ("b/039.jpg", "a/000.jpg"):  # the first and, with nothing written after it, the last
        (folder / name).write_bytes(b"nothing")
    found = [load(folder) for _ in range(2)]
    monkeypatch.setattr(loading, "WORTHWHILE_IMAGES", 100)
    monkeypatch.setattr(cache, "MEMORY_BYTES", 10**6)
    memory = load(folder)
    assert prepared == [40, 40] and len(memory) == 38
    for images in found:
        assert images.sha256 == memory.sha256 and images.labels.tolist() == memory.labels.tolist()
        assert images.notices == memory.notices and "2 of 40 pictures cannot be read" in images.notices[0]
        assert [part.sha256 for part in split(images)] == [part.sha256 for part in split(memory)]
    monkeypatch.setattr(loading, "WORTHWHILE_IMAGES", 1)
    with pytest.raises(DataError, match="2 of 40 pictures cannot be read"):
        load(folder, replace(HOW, strict=True))


def test_too_many_broken_pictures_leave_nothing_in_the_cache(folder, large):
    for path in list((folder / "a").iterdir())[:5]:
        path.write_bytes(b"nothing")
    with pytest.raises(DataError, match="5 of 40 pictures cannot be read"):
        load(folder)
    assert not list(cache.folder().glob("*.npy")) and not list(cache.folder().glob("*.json"))


def test_progress_is_told_in_order_up_to_all(folder, large, monkeypatch, caplog):
    monkeypatch.setattr(loading, "BATCH_IMAGES", 7)
    seen = []
    load(folder, watch=lambda done, total: seen.append((done, total)))
    assert seen == [(done, 40) for done in (7, 14, 21, 28, 35, 40)] and not caplog.records
    load(folder, replace(HOW, size=4))
    assert f"preparing 40 pictures of {folder} once; kept in {cache.folder()}" in caplog.text


def test_only_a_few_files_are_held_at_once(folder, tmp_path, monkeypatch):
    """Batches end at so many bytes, and no more of them wait than two for each thread."""
    monkeypatch.setattr(loading, "BATCH_BYTES", 1)
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    read, stored = [], []
    whole = loading.read_files

    def counted(path, names, unreadable):
        for row, data in whole(path, names, unreadable):
            read.append(row)
            assert len(read) - len(stored) <= 5
            yield row, data

    monkeypatch.setattr(loading, "read_files", counted)
    source = find_pictures(pack(folder, tmp_path / "x.zip"))
    loading._prepare_all(source, HOW, "train", lambda rows, images: stored.extend(rows), None, Counter())
    assert sorted(stored) == sorted(read) == list(range(40))


def test_a_cache_that_cannot_be_used_is_done_without_and_said(folder, tmp_path, large, monkeypatch):
    expected = load(folder).sha256
    monkeypatch.setattr(cache, "FREE_BYTES", 10**18)
    shutil.rmtree(cache.folder())
    images = load(folder)
    assert images.sha256 == expected and not isinstance(images.pixels, OnDisk)
    assert any("prepared again at every start" in notice and "GB free" in notice for notice in images.notices)
    monkeypatch.setattr(loading, "MAX_MEMORY_BYTES", 100)
    with pytest.raises(DataError, match="too much to hold in memory.* with GANSMITH_CACHE"):
        load(folder)


def test_a_full_disk_is_noticed_while_pictures_are_written(folder, large, monkeypatch):
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (3000, hard))  # no file may grow beyond it, as on a full disk
    try:
        images = load(folder)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert any("prepared again at every start" in notice for notice in images.notices) and len(images) == 40
    assert not list(cache.folder().glob("*.npy")) and not list(cache.folder().glob(".partial*"))


def test_a_large_jpeg_is_decoded_smaller_and_hardly_differs(tmp_path):
    """libjpeg's own reduction against a full one, also where the last block is partial or the picture lies."""
    yy, xx = np.mgrid[:427, :640]
    image = np.stack([127 + 100 * np.sin(xx / 40), 127 + 100 * np.cos(yy / 30), (xx + yy) / 5], axis=2).astype(np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6
    for options in ({}, {"exif": exif}):
        buffer = io.BytesIO()
        Image.fromarray(image).save(buffer, "JPEG", quality=95, **options)
        how = replace(HOW, size=32)
        exact = prepare(decode(buffer.getvalue()), how).astype(float)
        found = pictures_prepared(buffer.getvalue(), how).astype(float)
        difference = np.abs(found - exact)
        assert 0 < difference.mean() < 1.0 and difference.max() < 8
        assert exact.std() == pytest.approx(found.std(), rel=0.01)


def pictures_prepared(data, how):
    from gansmith.data.prepare import quiet, read_prepared

    with quiet():
        return read_prepared(data, how)


def kill_after(path, pictures_done, delay, *, waits=False):
    """Kill a process that prepares a folder, so long after it was done with so many pictures; whether it was done.

    It may wait for that then, however late this process hears of it.
    """
    read, write = os.pipe()

    def watch(done, total):
        os.write(write, b"." * loading.BATCH_IMAGES)
        if waits and done >= pictures_done:
            time.sleep(60)

    child = os.fork()
    if child == 0:
        try:
            load(path, watch=watch)
            os.write(write, b"!")
        finally:
            os._exit(0)
    os.close(write)
    told = b""
    while len(told) < pictures_done and (more := os.read(read, 4096)):
        told += more
    time.sleep(delay)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    while more := os.read(read, 4096):
        told += more
    os.close(read)
    return told.endswith(b"!")


def assert_whole(folder, expected):
    images = load(folder)
    np.testing.assert_array_equal(images.pixels.numpy(), np.stack([expected[name] for name in sorted(expected)]))
    assert sorted(path.suffix for path in cache.folder().iterdir() if path.suffix != ".lock") == [".json", ".npy"]


def test_a_killed_preparation_leaves_nothing_wrong(tmp_path, large, monkeypatch):
    monkeypatch.setattr(loading, "BATCH_IMAGES", 4)
    expected = draw(tmp_path / "set", 200)
    assert not kill_after(tmp_path / "set", 20, 0, waits=True)
    assert list(cache.folder().glob(".partial-*")) and not list(cache.folder().glob("*.json"))
    assert_whole(tmp_path / "set", expected)


@pytest.mark.slow
def test_a_preparation_killed_at_any_moment_leaves_nothing_wrong(tmp_path, large):
    expected, chance = draw(tmp_path / "set", 1500), random.Random(0)
    done = []
    for _ in range(12):
        done.append(kill_after(tmp_path / "set", chance.randrange(1500), 0.1 * chance.random()))
        if chance.random() < 0.4:
            assert_whole(tmp_path / "set", expected)
            shutil.rmtree(cache.folder())
    assert_whole(tmp_path / "set", expected)
    assert not all(done)


def test_a_large_array_stays_on_disk_as_it_is(tmp_path, large, monkeypatch):
    pixels = np.random.default_rng(0).integers(0, 256, (50, 8, 8, 3), dtype=np.uint8)
    np.save(tmp_path / "big.npy", pixels)
    np.save(tmp_path / "labels.npy", np.arange(50) % 3)
    images = load_data(str(tmp_path / "big.npy"))
    assert isinstance(images.pixels, OnDisk) and images.labels.tolist() == [k % 3 for k in range(50)]
    with pytest.raises(NotFoundError, match="holds no test images"):
        load_data(str(tmp_path / "big.npy"), part="test")
    again = load_data(str(tmp_path / "big.npy"), how=Preparation(8, color="rgb"))
    monkeypatch.setattr(cache, "MEMORY_BYTES", 10**6)
    memory = load_data(str(tmp_path / "big.npy"))
    assert type(memory.pixels) is torch.Tensor
    assert again.sha256 == images.sha256 == memory.sha256
    assert [part.sha256 for part in split(again)] == [part.sha256 for part in split(memory)]
    monkeypatch.setattr(cache, "MEMORY_BYTES", 0)
    np.save(tmp_path / "labels.npy", np.array(["ape", "bat"])[np.arange(50) % 2])
    assert load_data(str(tmp_path / "big.npy")).class_names == ("ape", "bat")
    np.save(tmp_path / "labels.npy", np.where(np.arange(50) == 7, -1, np.arange(50) % 3))
    partly = load_data(str(tmp_path / "big.npy"))
    assert partly.labels is None and any("below 0 for 1 of 50" in notice for notice in partly.notices)
    for how in (Preparation(4), Preparation(8, color="grey")):
        with pytest.raises(DataError, match="holds 50 images of 8 x 8 x 3, and a file too large"):
            load_data(str(tmp_path / "big.npy"), how=how)
    np.save(tmp_path / "big.npy", pixels // 128)
    with pytest.raises(DataError, match="holds 0 and 1 alone.*save them as 0 and 255"):
        load_data(str(tmp_path / "big.npy"))
    np.save(tmp_path / "big.npy", pixels / 255)
    assert len(load_data(str(tmp_path / "big.npy"))) == 50  # floats are read as those of an .npz are
    monkeypatch.setattr(sources, "MAX_BYTES", 1000)
    with pytest.raises(DataError, match="too large to be read into memory; save it as uint8"):
        load_data(str(tmp_path / "big.npy"))


@pytest.fixture
def digit_folder(tmp_path, digits):
    """Digits as PNG files in class folders."""
    for k, (image, label) in enumerate(zip(*digits, strict=True)):
        path = tmp_path / "digits" / str(label) / f"{k}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path)
    return tmp_path / "digits"


def test_training_from_disk_is_training_from_memory_bit_for_bit(digit_folder, tiny, run_training, large, monkeypatch):
    config = tiny(data="digits", data_dir=str(digit_folder), clusters_per_class=1, classes="0-7")
    disk = load_training_data(config)[1]
    assert isinstance(disk.train.pixels, OnDisk) and len(disk.train) < 360
    from_disk = run_training(config, "disk")
    monkeypatch.setattr(loading, "WORTHWHILE_IMAGES", 10**6)
    assert type(load_training_data(config)[1].train.pixels) is torch.Tensor
    assert_same_run(from_disk, run_training(config, "memory"))


@pytest.mark.slow
@pytest.mark.parametrize("recipe", ["default", "default-unlabelled"])
def test_clusters_of_a_set_on_disk_train_the_same_too(digit_folder, tiny, run_training, large, monkeypatch, recipe):
    config = tiny(recipe, data="digits", data_dir=str(digit_folder), images=64)
    from_disk = run_training(config, "disk")
    monkeypatch.setattr(loading, "WORTHWHILE_IMAGES", 10**6)
    assert_same_run(from_disk, run_training(config, "memory"))


@pytest.mark.slow
def test_a_run_goes_on_when_its_cache_was_deleted_and_not_when_its_pictures_changed(
    digit_folder, tiny, run_training, large, gansmith, prepared
):
    config = tiny("mlp-small", data="digits", data_dir=str(digit_folder))
    whole = run_training(config, "whole")
    run = run_training(config, "run", stop_after=6)
    assert 0 < int(run.latest().name) < 256 and prepared == [400]
    before = run.latest().name
    shutil.rmtree(cache.folder())
    first = next(digit_folder.rglob("*.png"))
    content, times = first.read_bytes(), (first.stat().st_atime_ns, first.stat().st_mtime_ns)
    Image.new("L", (28, 28), 77).save(first)
    code, _, err = gansmith("resume", run.directory)
    assert code == 2 and "was trained on data with SHA-256" in err and run.latest().name == before
    first.write_bytes(content)
    os.utime(first, ns=times)
    assert gansmith("resume", run.directory)[0] == 0 and prepared == [400] * 3
    assert_same_run(whole, run)


@pytest.mark.parametrize("is_large", [False, True])
def test_rare_pictures_that_were_not_looked_at_are_counted_and_said(tmp_path, monkeypatch, is_large):
    monkeypatch.setattr(pictures, "LOOKS", 10)
    monkeypatch.setattr(loading, "WORTHWHILE_IMAGES", 1 if is_large else 10**6)
    looked_at, others = set(pictures.rows_to_look_at(60)), []
    for row in range(60):
        if row not in looked_at:
            others.append(row)
        picture = Image.new("L", (8, 8), 3 * row)
        if others == [row]:
            picture = Image.new("LA", (8, 8), (9, 0))
        elif len(others) in (2, 3) and others[-1] == row:
            picture = Image.new("RGB", (8, 8), (9, 200, 0))
        (tmp_path / "set").mkdir(exist_ok=True)
        picture.save(tmp_path / "set" / f"{row:02d}.png")
    found = [
        load(tmp_path / "set", Preparation()).notices,
        as_images(sorted(tmp_path.glob("set/*")), Preparation()).notices,
    ]
    for notices in found:
        assert "1 of 60 pictures are transparent, and are laid over black; --background chooses another" in notices
        assert "2 of 60 pictures are in color, and become grey; --color rgb keeps it" in notices
    assert "in color" not in " ".join(load(tmp_path / "set", Preparation(color="grey")).notices)


def test_up_to_a_thousand_pictures_are_all_looked_at():
    assert pictures.rows_to_look_at(1_000) == [*range(1_000)] and len(pictures.rows_to_look_at(1_001)) == 1_000
