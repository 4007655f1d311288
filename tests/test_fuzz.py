"""Damaged files of every kind are read, or refused in one line that names the file."""

import sys
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parent / "fuzz"))
from parsers import CORPUS, PARSERS, read_or_refuse

pytestmark = pytest.mark.filterwarnings("ignore")  # damaged files may cause some


@pytest.mark.parametrize("name", PARSERS)
def test_valid_files_are_read(name, tmp_path):
    parser = PARSERS[name]
    for data in parser.valid():
        (tmp_path / parser.name).write_bytes(data)
        parser.parse(tmp_path / parser.name)


@pytest.mark.parametrize("name", PARSERS)
def test_files_that_fuzzing_found_are_read_or_refused(name, tmp_path):
    parser = PARSERS[name]
    for file in sorted((CORPUS / name).glob("*")):
        (tmp_path / parser.name).write_bytes(file.read_bytes())
        read_or_refuse(parser, tmp_path / parser.name)


@st.composite
def damaged(draw, valid):
    """A valid file with a few bytes changed or inserted, or a part removed or repeated."""
    data = bytearray(draw(st.sampled_from(valid)))
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(data)))
        kind = draw(st.sampled_from(["change", "cut", "repeat", "insert"]))
        if kind == "change" and at < len(data):
            data[at] = draw(st.integers(0, 255))
        elif kind == "cut":
            del data[at : at + draw(st.integers(1, 40))]
        elif kind == "repeat":
            data[at:at] = data[at : at + draw(st.integers(1, 40))]
        else:
            data[at:at] = draw(st.binary(max_size=8))
    return bytes(data)


@pytest.mark.parametrize("name", PARSERS)
def test_damaged_files_are_read_or_refused(name, tmp_path):
    parser = PARSERS[name]
    path = tmp_path / parser.name
    files = st.one_of(st.binary(max_size=200), damaged(parser.valid()))

    @settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow], database=None)
    @given(files)
    def check(data):
        path.write_bytes(data)
        read_or_refuse(parser, path)

    check()
    assert [file.name for file in tmp_path.iterdir() if file.name != "cache"] == [parser.name]


NPY = b"{'descr': '<f8', 'fortran_order': False, 'shape': (9999999999, 2), }"
HUGE = {
    "idx": bytes([0, 0, 8, 3]) + b"\x00\x00\xff\xff" * 3,
    "npy": b"\x93NUMPY\x01\x00v\x00" + NPY.ljust(117) + b"\n",
    "toml": b"a = " + b"[" * 100_000,
    "run": b"[" * 100_000,
    "text": b"1e999999999k",
}


@pytest.mark.parametrize("name", HUGE)
def test_a_small_file_cannot_cause_a_large_allocation(name, tmp_path):
    parser = PARSERS[name]
    path = tmp_path / parser.name
    path.write_bytes(HUGE[name])
    tracemalloc.start()
    try:
        read_or_refuse(parser, path)
        peak = tracemalloc.get_traced_memory()[1]  # of Python and NumPy, touched or not
    finally:
        tracemalloc.stop()
    assert peak < 200_000_000
