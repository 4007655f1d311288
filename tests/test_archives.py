"""Archives that anybody may have made: damage anywhere, hostile names and sizes, links, nested archives, odd names."""

import bz2
import gzip
import io
import lzma
import stat
import tarfile
import zipfile

import numpy as np
import pytest
from PIL import Image

from gansmith.data import archives
from gansmith.data.loading import load_pictures
from gansmith.data.pictures import find_pictures
from gansmith.data.prepare import Preparation
from gansmith.errors import DataError, NotFoundError

RNG = np.random.default_rng(0)


def picture(value):
    buffer = io.BytesIO()
    pixels = RNG.integers(0, 256, (8, 8), dtype=np.uint8)
    pixels[0, 0] = value
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


PICTURES = {f"{name}/{row}.png": picture(row) for row, name in enumerate(["cat", "dog"] * 10)}


def entry_of(name, data=b"", kind=tarfile.REGTYPE, size=None):
    entry = tarfile.TarInfo(name)
    entry.type, entry.size, entry.linkname = kind, len(data) if size is None else size, "cat/0.png"
    return entry, data


def tar_of(*entries, pictures=PICTURES):
    """Return a plain tar of these entries, after some pictures."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for entry, data in [*(entry_of(*each) for each in pictures.items()), *entries]:
            archive.addfile(entry, io.BytesIO(data))
    return buffer.getvalue()


def zip_of(entries, **how):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in entries.items():
            archive.writestr(name, data, **how)
    return buffer.getvalue()


def read(path, data):
    path.write_bytes(data)
    return load_pictures(find_pictures(path), Preparation())


def values(images):
    return sorted(images.pixels[:, 0, 0, 0].tolist())


PACKERS = {".tar": bytes, ".tar.gz": gzip.compress, ".tar.bz2": bz2.compress, ".tar.xz": lzma.compress}


@pytest.mark.parametrize("ending", PACKERS)
def test_a_tar_that_is_cut_anywhere_is_refused(tmp_path, ending):
    whole = PACKERS[ending](tar_of())
    assert values(read(tmp_path / f"x{ending}", whole)) == list(range(20))
    content = len(tar_of().rstrip(b"\0"))
    cuts = [len(whole) - 1, len(whole) // 2, len(whole) // 3]
    cuts = [content, 1024, 1024 * 3, 100] if ending == ".tar" else cuts  # between two files, inside one, in a header
    for cut in cuts:
        with pytest.raises(DataError, match=f"x{ending} is (cut off or damaged|damaged or no archive)"):
            read(tmp_path / f"x{ending}", whole[:cut])


def test_a_tar_with_a_damaged_header_in_the_middle_is_refused_by_count(tmp_path):
    data = bytearray(tar_of())
    with tarfile.open(fileobj=io.BytesIO(bytes(data))) as archive:
        header = archive.getmembers()[7].offset
    data[header + 3] ^= 255
    with pytest.raises(DataError, match=r"x\.tar is cut off or damaged after 7 entries"):
        read(tmp_path / "x.tar", bytes(data))


def test_a_wrong_check_sum_at_the_end_of_a_packed_tar_is_damage(tmp_path):
    for ending, place in ((".tar.gz", -6), (".tar.xz", -20)):
        data = bytearray(PACKERS[ending](tar_of()))
        data[place] ^= 255
        with pytest.raises(DataError, match="is damaged or no archive"):
            read(tmp_path / f"x{ending}", bytes(data))


def test_joined_tars_are_not_read_in_half(tmp_path):
    with pytest.raises(DataError, match="goes on after its end; unpack it"):
        read(tmp_path / "x.tar", tar_of() + tar_of())


def test_headers_that_point_backwards_or_claim_too_much_end(tmp_path):
    entry, _ = entry_of("cat/x.png")
    header = bytearray(entry.tobuf(tarfile.GNU_FORMAT))
    for size, words in ((-1024, "points backwards|damaged"), (2**60, "claims|damaged|end of data")):
        header[124:136] = (b"\xff" if size < 0 else b"\x80") + (size % 2**88).to_bytes(11, "big")
        header[148:156] = b" " * 8
        header[148:156] = f"{sum(header):06o}\0 ".encode()
        with pytest.raises(DataError, match=words):
            read(tmp_path / "x.tar", tar_of().rstrip(b"\0") + bytes(-len(tar_of().rstrip(b"\0")) % 512 + 0) + header)


@pytest.mark.parametrize("name", ["../a.png", "cat/../../a.png", "..\\a.png"])
def test_names_that_lead_out_are_refused(tmp_path, name):
    with pytest.raises(DataError, match="leads out of it"):
        read(tmp_path / "x.tar", tar_of(entry_of(name, picture(1))))
    with pytest.raises(DataError, match="leads out of it"):
        read(tmp_path / "x.zip", zip_of({**PICTURES, name: picture(1)}))


@pytest.mark.parametrize("name", ["/abs/cat/a.png", "C:\\set\\cat\\a.png", "./cat/a.png", ".//cat/a.png"])
def test_absolute_and_windows_names_are_taken_as_inside(tmp_path, name):
    around = {name.replace("cat", "dog").replace("a.png", "b.png"): picture(2), name: picture(1)}
    for path, data in (("x.zip", zip_of(around)), ("x.tar", tar_of(pictures=around))):
        images = read(tmp_path / path, data)
        assert images.class_names == ("cat", "dog") and images.pixels[:, 0, 0, 0].tolist() == [1, 2]


def test_links_devices_and_nested_archives_are_left_out_and_counted(tmp_path):
    kinds = (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE)
    odd = [entry_of(f"cat/odd{k}.png", kind=kind) for k, kind in enumerate(kinds)]
    images = read(tmp_path / "x.tar", tar_of(*odd, entry_of("more.zip", b"PK")))
    assert values(images) == list(range(20))
    assert images.notices[0] == "5 links or devices in x.tar were left out"
    assert images.notices[1].startswith("1 archives inside x.tar were left out")
    buffer = io.BytesIO(zip_of(PICTURES))
    with zipfile.ZipFile(buffer, "a") as archive:
        link = zipfile.ZipInfo("cat/link.png")
        link.create_system, link.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
        archive.writestr(link, "/etc/passwd")
    assert read(tmp_path / "x.zip", buffer.getvalue()).notices[0] == "1 links or devices in x.zip were left out"
    with pytest.raises(NotFoundError, match=r"holds no images \(1 .zip\).*unpack it to use them"):
        read(tmp_path / "y.zip", zip_of({"inner.zip": zip_of(PICTURES)}))


@pytest.mark.parametrize("ending", [".tar.gz", ".tar.bz2", ".tar.xz"])
def test_bombs_are_refused_before_they_are_unpacked(tmp_path, monkeypatch, ending):
    monkeypatch.setattr(archives, "_FREE_BYTES", 2**16)
    bomb = PACKERS[ending](tar_of(entry_of("zeros.bin", bytes(2**25))))
    with pytest.raises(DataError, match="more than pictures pack into"):
        read(tmp_path / f"x{ending}", bomb)
    endless = PACKERS[ending](tar_of() + bytes(2**25))
    with pytest.raises(DataError, match="goes on after its end"):
        read(tmp_path / f"x{ending}", endless)
    with pytest.raises(DataError, match="more than pictures pack into"):
        read(tmp_path / "x.zip", zip_of({**PICTURES, "zeros.bin": bytes(2**23)}))


def test_a_tar_header_cannot_ask_for_all_memory(tmp_path):
    header, _ = entry_of("x", kind=tarfile.XHDTYPE, size=2**33)
    long = header.tobuf(tarfile.GNU_FORMAT)
    with pytest.raises(DataError, match="an entry claims 8,589,934,592 bytes"):
        read(tmp_path / "x.tar", long + tar_of())


def test_names_that_are_no_utf_8_become_readable_classes(tmp_path):
    data = tar_of(*(entry_of(f"{name}/a.png", picture(5)) for name in ("caf\udce9", "the\udce9")), pictures={})
    images = read(tmp_path / "x.tar", data)
    assert images.class_names == ("caf\xe9", "the\xe9")
    wrong = zip_of({"caf\xe9/a.png": picture(1), "bar/a.png": picture(2)}).replace("\xe9".encode(), b"\xff\xff")
    with pytest.raises(DataError, match=r"x\.zip is damaged or no archive"):
        read(tmp_path / "x.zip", wrong)


def test_what_an_archive_is_is_known_by_its_first_bytes(tmp_path):
    for name, data in (("x.tar.gz", zip_of(PICTURES)), ("x.zip", tar_of()), ("y.zip", gzip.compress(tar_of()))):
        assert values(read(tmp_path / name, data)) == list(range(20))


def test_empty_archives_and_passwords_are_named(tmp_path):
    for name, data in (("x.zip", zip_of({})), ("x.tar", tar_of(pictures={}))):
        with pytest.raises(NotFoundError, match=r"holds no images \(nothing\)"):
            read(tmp_path / name, data)
    with pytest.raises(DataError, match="no archive"):
        read(tmp_path / "x.tar.gz", b"")


def test_the_last_of_two_files_with_one_name_counts(tmp_path):
    twice = tar_of(entry_of("cat/0.png", PICTURES["dog/1.png"]))
    assert values(read(tmp_path / "x.tar", twice))[:2] == [1, 1]
    with pytest.warns(UserWarning, match="Duplicate name"):
        buffer = io.BytesIO(zip_of(PICTURES))
        with zipfile.ZipFile(buffer, "a") as archive:
            archive.writestr("cat/0.png", PICTURES["dog/1.png"])
    assert values(read(tmp_path / "x.zip", buffer.getvalue()))[:2] == [1, 1]


def test_a_damaged_header_leaves_out_one_picture_of_a_zip(tmp_path):
    data = zip_of({f"bar/{k:02d}.png": picture(k) for k in range(20)})
    offset = zipfile.ZipFile(io.BytesIO(data)).infolist()[3].header_offset
    images = read(tmp_path / "x.zip", data[:offset] + b"XXXX" + data[offset + 4 :])
    assert sorted(images.pixels[:, 0, 0, 0].tolist()) == [k for k in range(20) if k != 3]
    with pytest.raises(DataError, match=r"x\.zip is damaged or no archive"):
        read(tmp_path / "x.zip", data.replace(b"PK\3\4", b"XXXX")[:-40])


def named_in(encoding):
    """Return a zip of pictures whose names are bytes of an encoding, which it does not say."""

    class Unsaid(zipfile.ZipInfo):
        def _encodeFilenameFlags(self):
            return self.filename.encode(encoding), self.flag_bits

    def zipped(names):
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as archive:
            for row, name in enumerate(names):
                archive.writestr(Unsaid(name), picture(row))
        return buffer.getvalue()

    return zipped


def test_names_in_utf_8_are_read_where_a_zip_does_not_say_so(tmp_path):
    images = read(
        tmp_path / "x.zip", named_in("utf-8")([f"{name}/{k}.png" for k in range(5) for name in ("été", "猫")])
    )
    assert images.class_names == ("été", "猫") and not any("guess" in notice for notice in images.notices)


@pytest.mark.parametrize(("encoding", "names"), [("cp437", ("été", "über")), ("cp932", ("ソファ", "ソックス"))])
def test_other_names_are_said_to_be_guessed_and_keep_classes_apart(tmp_path, encoding, names):
    images = read(tmp_path / "x.zip", named_in(encoding)([f"{name}/{k}.png" for k in range(5) for name in names]))
    assert len(images.class_names) == 2 and images.labels.bincount().tolist() == [5, 5]
    assert (images.class_names == names) == (encoding == "cp437")  # that of zips which say nothing
    assert any("is a guess; where class names are wrong, unpack it" in notice for notice in images.notices)


def test_backslashes_separate_folders_where_nothing_else_does(tmp_path):
    images = read(
        tmp_path / "x.zip", zip_of({f"set\\{name.replace('/', chr(92))}": data for name, data in PICTURES.items()})
    )
    assert images.class_names == ("cat", "dog")
    for name in ("a/..\\..\\x.png", "..\\x.png", "a\\..\\x.png"):
        with pytest.raises(DataError, match="leads out of it"):
            read(tmp_path / "bad.zip", zip_of({**PICTURES, name: picture(0)}))


def test_a_zip_packed_in_another_way_is_not_called_damaged(tmp_path):
    data = bytearray(zip_of(PICTURES))
    for signature, offset in ((b"PK\x01\x02", 10), (b"PK\x03\x04", 8)):
        start = 0
        while (start := data.find(signature, start)) >= 0:
            data[start + offset] = 9  # Deflate64, as Windows packs large files
            start += 4
    with pytest.raises(DataError, match=r"x\.zip cannot be read here \(that compression method is not supported\)"):
        read(tmp_path / "x.zip", bytes(data))


@pytest.mark.parametrize("kind", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_what_would_be_unpacked_in_one_piece_is_not_read_from_a_zip(tmp_path, kind):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", kind) as archive:
        for name, data in PICTURES.items():
            archive.writestr(name, data)
    with pytest.raises(DataError, match=r"cannot be read here \(that compression method is not supported\)"):
        read(tmp_path / "x.zip", buffer.getvalue())


def test_a_member_larger_than_a_picture_is_read_where_more_is_asked_for(tmp_path, monkeypatch):
    monkeypatch.setattr(archives, "MAX_MEMBER_BYTES", 2**21)
    data = RNG.bytes(5 * 2**20)
    (tmp_path / "x.tar.gz").write_bytes(gzip.compress(tar_of(entry_of("train.bin", data)), 1))
    ((_, found),) = archives.read_archive(tmp_path / "x.tar.gz", ["train.bin"], limit=2**31)
    assert found == data
    ((_, cut),) = archives.read_archive(tmp_path / "x.tar.gz", ["train.bin"], limit=2**20 + 5)
    assert cut == data[: 2**20 + 6]


def test_long_names_and_chains_of_headers_end(tmp_path):
    with pytest.raises(DataError, match=r"holds a name of 60,000 letters, 'a/a/.*shorten it"):
        read(tmp_path / "x.zip", zip_of({**PICTURES, "a/" * 30_000: b""} | {"a/" * 29_999 + "ab": b"x"}))
    header, _ = entry_of("x", kind=tarfile.GNUTYPE_LONGNAME, size=2**21)
    chain = b"".join(header.tobuf(tarfile.GNU_FORMAT) + bytes(2**21) for _ in range(4))
    with pytest.raises(DataError, match="a header claims to be longer than any"):
        read(tmp_path / "x.tar", chain + tar_of())


def test_a_disk_that_takes_no_file_is_not_called_damage(tmp_path):
    (tmp_path / "x.zip").write_bytes(zip_of(PICTURES))
    (tmp_path / "file").write_text("")
    with pytest.raises(archives.WriteFailed):
        archives.copy_files(tmp_path / "x.zip", {"cat/0.png": tmp_path / "file" / "0.png"})
