import io
import os

import numpy as np
import pytest
from astropy.io import fits
from hypothesis import given
from hypothesis import strategies as st

from zemosaic_stack_core.errors import FrameReadError
from zemosaic_stack_core.fits.cards import read_first_header
from zemosaic_stack_core.fits.stream import bands_of_planes, find_damage, is_intact, write_hdu


def header(bitpix, *axes):
    cards = [("SIMPLE", True), ("BITPIX", bitpix), ("NAXIS", len(axes))]
    return fits.Header([*cards, *((f"NAXIS{i}", length) for i, length in enumerate(axes, start=1))])


def write(path, bitpix, data):
    with path.open("w+b") as file:
        write_hdu(file, header(bitpix, len(data) // abs(bitpix // 8)), [data])
    return path


@given(data=st.binary(max_size=300), cut=st.integers(0, 300))
def test_the_checksums_are_those_of_astropy(data, cut):
    file = io.BytesIO()
    write_hdu(file, header(8, len(data)), [data[:cut], data[cut:]])
    file.seek(0)
    with fits.open(file, checksum=True) as hdus:  # a wrong one is a warning, and so an error
        hdu = hdus[0]
        found = hdu.header["CHECKSUM"], hdu.header["DATASUM"]
        assert int(found[1]) == hdu._calculate_datasum()
        assert found[0] == hdu._calculate_checksum(int(found[1]))
        assert not data or np.array_equal(hdu.data, np.frombuffer(data, np.uint8))


def test_bands_are_planes_and_big_endian_and_the_image_is_untouched():
    image = np.arange(2 * 3 * 4, dtype=np.float32).reshape(2, 3, 4)
    image.flags.writeable = False
    stored = np.frombuffer(b"".join(bands_of_planes(image, ">f4")), ">f4").reshape(4, 2, 3)
    assert np.array_equal(stored, np.moveaxis(image, 2, 0))


@pytest.mark.parametrize("data", [b"", bytes(2880), b"\xff" * 5000, bytes(range(256)) * 20])
def test_a_whole_file_is_whole(tmp_path, data):
    path = write(tmp_path / "a.fits", 8, data)
    assert find_damage(path) is None
    assert is_intact(path)


def test_every_flipped_byte_is_noticed(tmp_path):
    path = write(tmp_path / "a.fits", 8, bytes(range(100)))
    whole = path.read_bytes()
    for position in range(0, len(whole), 97):
        broken = bytearray(whole)
        broken[position] ^= 0x10
        path.write_bytes(broken)
        assert not is_intact(path), position


@pytest.mark.parametrize("keep", [0, 80, 2879, 2880, 3000, 5759])
def test_a_file_that_was_cut_off_is_noticed(tmp_path, keep):
    path = write(tmp_path / "a.fits", 8, bytes(range(100)))
    path.write_bytes(path.read_bytes()[:keep])
    assert find_damage(path) is not None


def test_lost_and_added_hdus_are_noticed(tmp_path):
    path = tmp_path / "a.fits"
    first = header(8, 3)
    first["ZSC_NHDU"] = 2
    extension = header(8, 3)
    extension.rename_keyword("SIMPLE", "XTENSION")
    extension["XTENSION"] = "IMAGE"
    with path.open("w+b") as file:
        write_hdu(file, first, [b"abc"])
        length = file.tell()
        write_hdu(file, extension, [b"abc"])
    assert find_damage(path) is None
    whole = path.read_bytes()
    path.write_bytes(whole[:length])
    assert find_damage(path) == "1 HDUs; expected 2"
    path.write_bytes(whole + whole[length:])
    assert find_damage(path) == "3 HDUs; expected 2"
    path.write_bytes(whole + b"junk")
    assert find_damage(path) == "HDU 2: no whole header"


def test_a_file_without_checksums_is_not_taken_for_whole(tmp_path):
    fits.writeto(tmp_path / "a.fits", np.zeros(3))
    assert find_damage(tmp_path / "a.fits") == "HDU 0: no checksum, or no size of the data"


def test_a_file_that_can_not_be_read_is_an_error(tmp_path):
    with pytest.raises(FrameReadError, match=r"absent\.fits: No such file or directory"):
        find_damage(tmp_path / "absent.fits")
    assert not is_intact(tmp_path / "absent.fits")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_the_first_cards_of_a_pipe_are_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.fits")
    assert read_first_header(tmp_path / "pipe.fits").cards == b""


def test_a_card_is_found_by_its_name(tmp_path):
    path = tmp_path / "a.fits"
    header = fits.Header({"ABC": 1, "TEXT": "ZSC_ALGO"})
    fits.PrimaryHDU(np.zeros((2, 2), np.float32), header).writeto(path)
    assert "ABC" in read_first_header(path)
    assert "ZSC_ALGO" not in read_first_header(path)
    assert "AB" not in read_first_header(path)
    assert "ABC" not in read_first_header(tmp_path / "absent.fits")
    (tmp_path / "b.fits").write_bytes(b"ABC     = 1")
    assert "ABC" not in read_first_header(tmp_path / "b.fits")
