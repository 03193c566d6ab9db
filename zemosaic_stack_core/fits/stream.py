"""FITS files written in one pass, band by band, with checksums; and the proof that such a file is whole.

`astropy.io.fits` makes the headers, but its HDUs want the data byte-swapped in memory twice, for the checksum and for
the file. Here a band of a few megabytes is swapped, summed and written, so that a master tile costs no second copy.

References
----------
FITS standard 4.0, section 4.4.2.7 and appendix J: CHECKSUM and DATASUM (Seaman, Pence, Rots 2012).
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
import numpy.typing as npt

from zemosaic_stack_core.errors import FrameReadError
from zemosaic_stack_core.fits.cards import BLOCK, data_bytes, read_header

if TYPE_CHECKING:
    from astropy.io import fits


# What is swapped, summed and written at once stays in the cache.
_BAND_BYTES = 1024 * 1024
_ALL_ONES = 0xFFFFFFFF
_NO_CHECKSUM = "0" * 16
_PUNCTUATION = frozenset(b":;<=>?@[\\]^_`")


class _Sum32:
    """The 32-bit ones' complement sum of a stream of bytes."""

    def __init__(self) -> None:
        # Of the whole words so far.
        self.value = 0
        self._tail = b""

    def add(self, data: bytes | memoryview) -> None:
        """Add the next bytes of the stream, any number of them."""
        data = self._tail + data if self._tail else data
        words = len(data) // 4
        self._tail = bytes(data[4 * words :])
        total = self.value + int(np.frombuffer(data, ">u4", words).sum(dtype=np.uint64))
        while total > _ALL_ONES:
            total = (total & _ALL_ONES) + (total >> 32)
        self.value = total


def _encode_checksum(value: int) -> str:
    """Return the 16 characters that bring an HDU's sum to all ones when they replace as many zeros (appendix J)."""
    complement = _ALL_ONES - value
    characters = bytearray(16)
    for position in range(4):
        byte = complement >> (24 - 8 * position) & 0xFF
        group = [byte // 4 + ord("0")] * 4
        group[0] += byte % 4
        while any(character in _PUNCTUATION for character in group):  # moves in pairs keep the sum
            for pair in (0, 2):
                if group[pair] in _PUNCTUATION or group[pair + 1] in _PUNCTUATION:
                    group[pair] += 1
                    group[pair + 1] -= 1
        for column in range(4):
            characters[4 * column + position] = group[column]
    return (characters[-1:] + characters[:-1]).decode("ascii")


def bands_of_planes(image: npt.NDArray[Any], stored: str) -> Iterator[memoryview]:
    """Yield the pixels of an image, shape (row, column[, channel]), as FITS stores them: planes, each from row 0 up.

    `stored` is the type in the file, such as ``">f4"``. The image is never copied whole.
    """
    planes = image[..., np.newaxis] if image.ndim == 2 else image
    rows = max(1, _BAND_BYTES // max(1, planes.shape[1] * np.dtype(stored).itemsize))
    for channel in range(planes.shape[2]):
        for start in range(0, planes.shape[0], rows):
            band = planes[start : start + rows, :, channel].astype(stored, order="C")
            yield band.view(np.uint8).data.cast("B")


def write_hdu(file: BinaryIO, header: fits.Header, bands: Iterable[bytes | memoryview]) -> None:
    """Append one HDU to a seekable file that stands at its end: header, data, padding, DATASUM and CHECKSUM.

    The header has its structural cards; the checksums are set in it here.
    """
    header.set("CHECKSUM", _NO_CHECKSUM, "HDU checksum")
    header.set("DATASUM", "0", "data unit checksum")
    start = file.tell()
    room = len(_header_bytes(header))
    file.write(b"\0" * room)  # the header depends on the data: its place is kept, and filled afterwards
    data_sum, size = _Sum32(), 0
    for band in bands:
        data_sum.add(band)
        size += file.write(band)
    padding = b"\0" * (-size % BLOCK)
    data_sum.add(padding)
    file.write(padding)
    header["DATASUM"] = str(data_sum.value)
    total = _Sum32()
    total.add(_header_bytes(header))
    total.add(data_sum.value.to_bytes(4, "big"))
    header["CHECKSUM"] = _encode_checksum(total.value)
    file.seek(start)
    file.write(_header_bytes(header))
    file.seek(0, os.SEEK_END)


def _header_bytes(header: fits.Header) -> bytes:
    """Return a header as it stands in the file."""
    text: str = header.tostring(sep="", endcard=True, padding=True)
    return text.encode("ascii")


def is_intact(path: str | os.PathLike[str]) -> bool:
    """Return whether a FITS file can be read and agrees with its checksums: see `find_damage`."""
    try:
        return find_damage(path) is None
    except FrameReadError:
        return False


def find_damage(path: str | os.PathLike[str]) -> str | None:
    """Return what is wrong with a FITS file's checksums or length, or None where it is whole.

    Every HDU must have CHECKSUM and DATASUM and agree with both; the file must have as many HDUs as ``ZSC_NHDU`` says
    (where there is that card) and end with the last of them. The file is read once, a few megabytes at a time.

    Raises
    ------
    FrameReadError
        The file can't be opened or read.
    """
    try:
        with Path(path).open("rb") as file:
            return _find_damage(file)
    except OSError as error:
        raise FrameReadError(f"{path}: {error.strerror}; expected a file that can be read") from error


def _find_damage(file: BinaryIO) -> str | None:
    """Go through the HDUs of an open file."""

    def read_at(offset: int, count: int) -> bytes:
        file.seek(offset)
        return file.read(count)

    length = os.fstat(file.fileno()).st_size
    count, offset, expected = 0, 0, None
    while offset < length:
        try:
            header = read_header(read_at, length, "", offset)
        except FrameReadError:
            return f"HDU {count}: no whole header"
        if count > 0 and not header.cards.startswith(b"XTENSION"):
            return f"HDU {count}: no whole header"
        try:
            size = data_bytes(header, "")
        except FrameReadError:
            size = -1
        if size < 0 or "CHECKSUM" not in header or "DATASUM" not in header:
            return f"HDU {count}: no checksum, or no size of the data"
        if count == 0:
            expected = header.get("ZSC_NHDU")
        total, data = _Sum32(), _Sum32()
        total.add(read_at(offset, header.data_offset - offset))
        left = -(-size // BLOCK) * BLOCK
        while left:
            band = file.read(min(left, _BAND_BYTES))
            if not band:
                return f"HDU {count}: the file ends {left} bytes too early"
            data.add(band)
            left -= len(band)
        total.add(data.value.to_bytes(4, "big"))
        if header["DATASUM"] != str(data.value):
            return f"HDU {count}: the data's sum is {data.value}; expected {header['DATASUM']}"
        if total.value != _ALL_ONES:
            return f"HDU {count}: the header does not agree with its checksum"
        count += 1
        offset = file.tell()
    if expected is not None and expected != str(count):
        return f"{count} HDUs; expected {expected}"
    return None if count else "empty file"
