"""Broken and odd input of many kinds, made by a script; run it to see what a run makes of each.

``python tests/broken_input.py`` prints the table of the documentation.
"""

from __future__ import annotations

import gzip
import io
import os
import pickle
import re
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from astropy.io import fits

SHAPE = (24, 32)
GOOD_FRAMES = 3


@dataclass(frozen=True)
class Kind:
    """One kind of input."""

    # What it is.
    title: str
    # Writes it to a path that does not exist.
    make: Callable[[Path], object]
    # Part of the reason for which the frame is dropped; empty where the frame is good and is used.
    reason: str = ""
    # Name of the file.
    name: str = "broken.fits"
    # The frames beside it have three channels.
    is_color: bool = False
    # Part of its samples that are missing, where it is used.
    missing: float = 0.0


def values(*, is_color: bool = False) -> npt.NDArray[np.float32]:
    """Return the samples that every good frame has, more or less."""
    shape = (*SHAPE, 3) if is_color else SHAPE
    return np.random.default_rng(40).normal(100.0, 3.0, shape).astype(np.float32)


def fits_bytes(*hdus: Any) -> bytes:
    """Return a FITS file."""
    out = io.BytesIO()
    fits.HDUList(list(hdus) or [fits.PrimaryHDU(values())]).writeto(out)
    return out.getvalue()


def header(*cards: str, end: bool = True) -> bytes:
    """Return a FITS header of exactly these cards."""
    text = "".join(card.ljust(80) for card in (*cards, *(["END"] if end else [])))
    return text.ljust(-(-len(text) // 2880) * 2880).encode("latin-1")


def image_header(bitpix: object, *lengths: object, extra: tuple[str, ...] = ()) -> bytes:
    """Return the header of an image."""
    axes = [f"NAXIS{axis}  = {length:>20}" for axis, length in enumerate(lengths, 1)]
    cards = (f"SIMPLE  = {'T':>20}", f"BITPIX  = {bitpix:>20}", f"NAXIS   = {len(lengths):>20}")
    return header(*cards, *axes, *extra)


def npy_bytes(array: npt.NDArray[Any], *, allow_pickle: bool = False) -> bytes:
    """Return a ``.npy`` file."""
    out = io.BytesIO()
    np.lib.format.write_array(out, array, allow_pickle=allow_pickle)
    return out.getvalue()


def npy_header(text: str, content: bytes = b"") -> bytes:
    """Return a ``.npy`` file with this header."""
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode() + content


class Explosive:
    """An object whose unpickling leaves a file called ``executed``."""

    def __reduce__(self) -> tuple[Any, tuple[Path]]:
        return Path.touch, (Path("executed"),)


def _bytes(content: Callable[[], bytes]) -> Callable[[Path], object]:
    """Return a maker of a file."""
    return lambda path: path.write_bytes(content())


def _scaled(**cards: float) -> bytes:
    """Return a 16-bit image whose physical values are near 100, with these cards."""
    stored = np.rint(values()).astype(np.int16)
    if "BLANK" in cards:
        stored[:, :4] = int(cards["BLANK"])
    block = fits.PrimaryHDU(stored)
    for keyword, value in cards.items():
        block.header[keyword] = value
    return fits_bytes(block)


def _striped(value: float) -> bytes:
    """Return an image whose every fourth row is not a number."""
    image = values()
    image[::4] = value
    return fits_bytes(fits.PrimaryHDU(image))


def _cut(content: bytes, part: float) -> bytes:
    """Return the beginning of a file."""
    return content[: int(len(content) * part)]


def _object_array() -> bytes:
    """Return a ``.npy`` whose objects would do something when unpickled."""
    return npy_bytes(np.array([Explosive()], dtype=object), allow_pickle=True)


def _bomb() -> bytes:
    """Return 60 kB that unpack to 60 MB."""
    out = io.BytesIO()
    with gzip.GzipFile(fileobj=out, mode="wb", mtime=0) as packed:
        packed.write(fits_bytes())
        for _ in range(60):
            packed.write(bytes(1_000_000))
    return out.getvalue()


def _fz() -> bytes:
    """Return a tile-compressed image."""
    image = np.rint(values()).astype(np.int16)
    return fits_bytes(fits.PrimaryHDU(), fits.CompImageHDU(image, compression_type="RICE_1"))


def _two_images() -> bytes:
    """Return an empty primary HDU and the image behind it."""
    return fits_bytes(fits.PrimaryHDU(), fits.ImageHDU(values()))


def _table() -> bytes:
    """Return a FITS table without an image."""
    column = fits.Column(name="X", format="E", array=np.arange(5.0))
    return fits_bytes(fits.PrimaryHDU(), fits.BinTableHDU.from_columns([column]))


CUT = "cut off"
_COMMENT = "COMMENT " + "x" * 72

KINDS = (
    Kind("truncated at 60 %", _bytes(lambda: _cut(fits_bytes(), 0.6)), CUT),
    Kind("truncated in the header", _bytes(lambda: fits_bytes()[:200]), "header"),
    Kind("zero bytes", _bytes(bytes), "empty"),
    Kind("a web page named .fits", _bytes(lambda: b"<!DOCTYPE html><html>Not found</html>"), "web page"),
    Kind("no END card", _bytes(lambda: image_header(-32, 32, 24).replace(b"END", b"   ") + values().tobytes()), "END"),
    Kind("BLANK in 16-bit integers", _bytes(lambda: _scaled(BLANK=-32768)), missing=0.125),
    Kind("BSCALE and BZERO", _bytes(lambda: _scaled(BSCALE=0.5, BZERO=50.0))),
    Kind(
        "BSCALE that is no number",
        _bytes(lambda: _scaled().replace(b"EXTEND  =                    T", b"BSCALE  = 'one'               ")),
        "BSCALE",
    ),
    Kind("one axis", _bytes(lambda: fits_bytes(fits.PrimaryHDU(np.ones(700, np.float32)))), "axes"),
    Kind("four axes", _bytes(lambda: fits_bytes(fits.PrimaryHDU(np.ones((2, 2, 4, 5), np.float32)))), "axes"),
    Kind("5 x 5 pixels", _bytes(lambda: fits_bytes(fits.PrimaryHDU(np.ones((5, 5), np.float32)))), "5 x 5"),
    Kind("zero width", _bytes(lambda: image_header(-32, 0, 24)), "expected"),
    Kind("negative length of an axis", _bytes(lambda: image_header(-32, -32, 24) + bytes(2880)), "expected"),
    Kind(
        "length of an axis that is no number", _bytes(lambda: image_header(-32, "many", 24) + bytes(2880)), "expected"
    ),
    Kind("NAXIS too large for the file", _bytes(lambda: image_header(-32, 32, 2400) + bytes(2880)), CUT),
    Kind(
        "100,000 x 100,000 pixels in a tiny file",
        _bytes(lambda: image_header(-32, 100_000, 100_000) + bytes(2880)),
        CUT,
    ),
    Kind("2**62 pixels", _bytes(lambda: image_header(-32, 2**31, 2**31) + bytes(2880)), "expected"),
    Kind("BITPIX 12", _bytes(lambda: image_header(12, 32, 24) + bytes(2880)), "BITPIX"),
    Kind("no BITPIX", _bytes(lambda: header(f"SIMPLE  = {'T':>20}", f"NAXIS   = {0:>20}")), "expected"),
    Kind("trailing junk", _bytes(lambda: fits_bytes() + b"\r\njunk" * 99)),
    Kind("stripes of NaN", _bytes(lambda: _striped(np.nan)), missing=0.25),
    Kind("stripes of infinity", _bytes(lambda: _striped(np.inf)), missing=0.25),
    Kind(
        "every sample NaN",
        _bytes(lambda: fits_bytes(fits.PrimaryHDU(values() * np.float32(np.nan)))),
        "no finite sample",
    ),
    Kind(
        "saturated 16-bit integers",
        _bytes(lambda: fits_bytes(fits.PrimaryHDU(np.full(SHAPE, 65535, np.uint16)))),
        "saturated",
    ),
    Kind(
        "saturated floats", _bytes(lambda: fits_bytes(fits.PrimaryHDU(np.full(SHAPE, 65535, np.float32)))), "saturated"
    ),
    Kind("one value everywhere", _bytes(lambda: fits_bytes(fits.PrimaryHDU(np.full(SHAPE, 100, np.float32))))),
    Kind("a header without pixels", _bytes(lambda: fits_bytes(fits.PrimaryHDU())), "without an image"),
    Kind("a table without an image", _bytes(_table), "without an image"),
    Kind("the image in the first extension", _bytes(_two_images)),
    Kind(
        "a header of 10 MB without END",
        _bytes(lambda: header(f"SIMPLE  = {'T':>20}", *[_COMMENT] * 131_072, end=False)),
        "expected",
    ),
    Kind(
        "a header that is not ASCII",
        _bytes(
            lambda: fits_bytes().replace(b"EXTEND  =                    T", b"OBJECT  = 'M\xfc\xdf\xff\x00'".ljust(30))
        ),
    ),
    Kind(
        "SIMPLE = F",
        _bytes(lambda: fits_bytes().replace(b"SIMPLE  =                    T", b"SIMPLE  =                    F")),
    ),
    Kind("random bytes", _bytes(lambda: np.random.default_rng(1).bytes(9000)), "expected"),
    Kind("bytes of zero", _bytes(lambda: bytes(8640)), "expected"),
    Kind("a JPEG named .fits", _bytes(lambda: b"\xff\xd8\xff\xe0\x00\x10JFIF" + bytes(3000)), "expected"),
    Kind(
        "a Git-LFS pointer",
        _bytes(lambda: b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 99\n"),
        "LFS",
    ),
    Kind("64-bit floats", _bytes(lambda: fits_bytes(fits.PrimaryHDU(values().astype(np.float64))))),
    Kind("32-bit integers", _bytes(lambda: fits_bytes(fits.PrimaryHDU(np.rint(values()).astype(np.int32))))),
    Kind("gzip named .fits", _bytes(lambda: gzip.compress(fits_bytes()))),
    Kind("gzip cut off", _bytes(lambda: _cut(gzip.compress(fits_bytes()), 0.5)), "gzip"),
    Kind("gzip of 60 kB that unpacks to 60 MB", _bytes(_bomb)),
    Kind("tile-compressed (.fz)", _bytes(_fz), name="broken.fits.fz"),
    Kind("tile-compressed, cut off", _bytes(lambda: _cut(_fz(), 0.7)), "expected", name="broken.fits.fz"),
    Kind(
        "planes of channels first (CHW)",
        _bytes(lambda: fits_bytes(fits.PrimaryHDU(np.moveaxis(values(is_color=True), 2, 0)))),
        is_color=True,
    ),
    Kind("channels last (HWC)", _bytes(lambda: fits_bytes(fits.PrimaryHDU(values(is_color=True)))), is_color=True),
    Kind("mono among color", _bytes(fits_bytes), "channel", is_color=True),
    Kind(".npy, channels last", _bytes(lambda: npy_bytes(values(is_color=True))), name="broken.npy", is_color=True),
    Kind(".npy in Fortran order", _bytes(lambda: npy_bytes(np.asfortranarray(values()))), name="broken.npy"),
    Kind(".npy of the other byte order", _bytes(lambda: npy_bytes(values().astype(">f4"))), name="broken.npy"),
    Kind(".npy with pickled objects", _bytes(_object_array), "expected", name="broken.npy"),
    Kind("a pickle named .npy", _bytes(lambda: pickle.dumps(Explosive())), "expected", name="broken.npy"),
    Kind(".npy cut off", _bytes(lambda: _cut(npy_bytes(values()), 0.6)), CUT, name="broken.npy"),
    Kind(
        ".npy whose header is a program",
        _bytes(lambda: npy_header("__import__('pathlib').Path('executed').touch()\n")),
        "expected",
        name="broken.npy",
    ),
    Kind(
        ".npy of 10**12 samples in a tiny file",
        _bytes(lambda: npy_header("{'descr': '<f4', 'fortran_order': False, 'shape': (1000000, 1000000)}\n")),
        CUT,
        name="broken.npy",
    ),
    Kind(
        ".npy of complex numbers",
        _bytes(lambda: npy_bytes(values().astype(np.complex64))),
        "expected",
        name="broken.npy",
    ),
    Kind(".npy of records", _bytes(lambda: npy_bytes(np.zeros(SHAPE, [("a", "f4")]))), "expected", name="broken.npy"),
    Kind("blanks, accents and brackets in the name", _bytes(fits_bytes), name="M\u00fcnchen (1) [a] #%&'; 50% .fits"),
    Kind("a line feed in the name", _bytes(fits_bytes), name="two\nlines.fits"),
    Kind("bytes in the name that are no text", _bytes(fits_bytes), name="caf\udce9.fits"),
    Kind("a file that is not there", lambda _path: None, "No such file"),
    Kind("a symbolic link to nothing", lambda path: path.symlink_to("nowhere"), "No such file"),
    Kind("a symbolic link to itself", lambda path: path.symlink_to(path.name), "symbolic links"),
    Kind("a folder named x.fits", lambda path: path.mkdir(), "folder", name="x.fits"),
    Kind("a pipe that nobody writes to", lambda path: os.mkfifo(path), "ordinary file"),
)


def make_group(folder: Path, kind: Kind) -> list[Path]:
    """Write three good frames and one of a kind, and return their names; the odd one is the second."""
    folder.mkdir(parents=True)
    frames = []
    for index in range(GOOD_FRAMES):
        path = folder / f"good_{index}.fits"
        image = values(is_color=kind.is_color) + np.float32(index)
        fits.PrimaryHDU(np.moveaxis(image, 2, 0) if kind.is_color else image).writeto(path)
        frames.append(path)
    odd = folder / kind.name
    kind.make(odd)
    return [frames[0], odd, *frames[1:]]


def main() -> int:
    """Print what a run makes of each kind."""
    from zemosaic_stack_core.frames.scratch import ScratchFolder
    from zemosaic_stack_core.phase3.frame_check import choose_frames

    lines = ["| input | what a run does | the reason in the report |", "|---|---|---|"]
    with tempfile.TemporaryDirectory() as folder, ScratchFolder() as scratch:
        for number, kind in enumerate(KINDS):
            choice = choose_frames(make_group(Path(folder) / str(number), kind), scratch=scratch)
            if choice.dropped:
                reason = re.sub(r" at 0x\w+", "", choice.dropped[0].reason.replace(f"{folder}/{number}/", ""))
                lines.append(f"| {kind.title} | dropped | {reason} |")
            else:
                note = f"{100 * kind.missing:g} % of its samples are missing" if kind.missing else ""
                lines.append(f"| {kind.title} | used | {note} |")
    sys.stdout.write("\n".join(lines) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
