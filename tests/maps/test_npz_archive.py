"""Archives that are damaged, or that declare more than they hold, end in an error of ours."""

from __future__ import annotations

import io
import resource
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest

from xrf_sr_plans.errors import FileFormatError
from xrf_sr_plans.maps.files import read_maps
from xrf_sr_plans.maps.files.npz_archive import read_arrays

COUNTS = np.random.default_rng(0).poisson(20, (3, 12, 16)).astype(np.float32)


def npy_header(shape: str, descr: str = "'<f8'") -> bytes:
    text = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}".encode()
    text += b" " * (63 - (len(text) + 10) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text


def archive_of(path: Path, **members: bytes) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(f"{name}.npy", content)
    return path


def peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


@pytest.mark.parametrize(
    "header",
    [
        npy_header("(500, 1000, 1000)"),
        npy_header("(100000, 100000, 100000)"),
        npy_header("(1,)", "'<U1000000000'"),
        npy_header("(2, 2)", "('<f8', (100000000,))"),
        npy_header("(-1, 4, 4)"),
        npy_header("(" * 2000 + ")" * 2000),
        npy_header("(1,)", "'|O'"),
        b"\x93NUMPY\x09\x00" + 100 * b" ",
        b"",
    ],
)
def test_what_a_header_declares_is_checked_before_memory_is_taken(tmp_path, header):
    path = archive_of(tmp_path / "huge.npz", maps=header + 800 * b"\0")
    before = peak_bytes()
    with pytest.raises(FileFormatError, match=r"huge\.npz"):
        read_maps(path)
    assert peak_bytes() - before < 2**28


def test_a_member_that_inflates_to_more_than_deflate_can_is_refused(tmp_path):
    path = archive_of(tmp_path / "bomb.npz", maps=npy_header("(1, 4, 4)") + 128 * b"\0")
    raw = path.read_bytes()
    central = raw.rindex(b"PK\x01\x02")
    # The declared size of the member in the directory, which zipfile believes.
    raw = raw[: central + 24] + struct.pack("<I", 2**31) + raw[central + 28 :]
    path.write_bytes(raw)
    with pytest.raises(FileFormatError, match="not what an archive can hold"):
        read_maps(path)


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_compressions_that_numpy_does_not_write_are_refused(tmp_path, method):
    content = io.BytesIO()
    np.save(content, COUNTS)
    with zipfile.ZipFile(tmp_path / "a.npz", "w", method) as archive:
        archive.writestr("maps.npy", content.getvalue())
    with pytest.raises(FileFormatError, match="is compressed by method"):
        read_maps(tmp_path / "a.npz")


def test_objects_in_arrays_that_nobody_asks_for_do_no_harm(tmp_path):
    np.savez(tmp_path / "a.npz", maps=COUNTS, other=np.array([object()], dtype=object))
    np.testing.assert_array_equal(read_maps(tmp_path / "a.npz").maps, COUNTS)


@pytest.mark.parametrize("write", [np.savez, np.savez_compressed])
def test_what_numpy_writes_is_read_as_it_is(tmp_path, write):
    arrays = {
        "maps": np.asfortranarray(COUNTS),
        "facts": np.array("words"),
        "nothing": np.empty((0, 3)),
        "flags": np.array([True, False]),
    }
    write(tmp_path / "a.npz", **arrays)
    found = read_arrays(tmp_path / "a.npz", arrays)
    for name, array in arrays.items():
        np.testing.assert_array_equal(found[name], array)
        assert found[name].dtype == array.dtype


@pytest.mark.parametrize("start", range(0, 400, 20))
def test_forty_bytes_overwritten_anywhere_give_an_error_of_ours_or_the_same_maps(tmp_path, start):
    path = tmp_path / "a.npz"
    np.savez_compressed(path, maps=COUNTS, elements=["Fe", "Zn", "Ca"])
    raw = bytearray(path.read_bytes())
    raw[start : start + 40] = b"\xff" * 40
    path.write_bytes(raw)
    try:
        found = read_maps(path).maps
    except FileFormatError:
        return
    np.testing.assert_array_equal(found, COUNTS)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"elements": ["Fe"]}, "'elements' has 1 names"),
        ({"pixel_size_um": "wide"}, "'pixel_size_um' is no number"),
        ({"pixel_size_um": -2.0}, "'pixel_size_um' is -2.0; it must be finite and above 0"),
        ({"maps": np.zeros((2, 2, 2, 2))}, r"'maps' has the shape \(2, 2, 2, 2\)"),
    ],
)
def test_arrays_that_do_not_fit_together_are_named(tmp_path, arrays, message):
    np.savez(tmp_path / "a.npz", **{"maps": COUNTS, **arrays})
    with pytest.raises(FileFormatError, match=message):
        read_maps(tmp_path / "a.npz")
