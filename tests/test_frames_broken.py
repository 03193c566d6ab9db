"""A broken file gives one clear line: the file, what was found, what was expected. Nothing is allocated or executed."""

from __future__ import annotations

import gzip
import os
import pickle
import tracemalloc
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits

from zemosaic_stack_core.errors import FrameReadError, InvalidInputError
from zemosaic_stack_core.frames.bands import BandReader
from zemosaic_stack_core.frames.file_frames import probe_frame
from zemosaic_stack_core.frames.group import open_frames

VALUES = np.arange(60 * 70, dtype="f4").reshape(60, 70)


def written(*hdus: object) -> bytes:
    out = BytesIO()
    fits.HDUList(list(hdus)).writeto(out)
    return out.getvalue()


def good() -> bytes:
    return written(fits.PrimaryHDU(VALUES))


def header(*cards: str, end: bool = True) -> bytes:
    text = "".join(card.ljust(80) for card in (*cards, *(["END"] if end else [])))
    return text.ljust(-(-len(text) // 2880) * 2880).encode()


def image_header(bitpix: object, *axes: object, extra: tuple[str, ...] = ()) -> bytes:
    lengths = [f"NAXIS{i}  = {n:>20}" for i, n in enumerate(axes, 1)]
    return header(f"SIMPLE  = {'T':>20}", f"BITPIX  = {bitpix:>20}", f"NAXIS   = {len(axes):>20}", *lengths, *extra)


def npy(values: np.ndarray, *, allow_pickle: bool = False) -> bytes:
    out = BytesIO()
    np.lib.format.write_array(out, values, allow_pickle=allow_pickle)
    return out.getvalue()


def npy_header(text: str) -> bytes:
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode()


class Explosive:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return Path.touch, (Path("executed"),)  # type: ignore[return-value]


def damaged_fz() -> bytes:
    noise = np.random.default_rng(0).integers(0, 30000, (60, 70), dtype="i2")
    raw = bytearray(written(fits.PrimaryHDU(), fits.CompImageHDU(noise, compression_type="GZIP_1")))
    start = raw.rindex(b"\x1f\x8b")
    raw[start : start + 200] = bytes(200)
    return bytes(raw)


def huge_fz() -> bytes:
    raw = written(fits.PrimaryHDU(), fits.CompImageHDU(VALUES.astype("i2")))
    for axis, length in (("ZNAXIS1", 70), ("ZNAXIS2", 60)):
        card, lie = f"{axis} = {length:>20}", f"{axis} = {100000:>20}"
        assert card.encode() in raw
        raw = raw.replace(card.encode(), lie.encode())
    return raw


TABLE = fits.BinTableHDU.from_columns([fits.Column("A", "E", array=np.zeros(5))])

BROKEN: dict[str, tuple[Callable[[], bytes], str]] = {
    "empty": (lambda: b"", "empty file; expected a FITS file, which starts with SIMPLE"),
    "html": (
        lambda: b"<!DOCTYPE html><html>404</html>",
        "starts with b'<!DOCTYPE html><', a web page; expected a FITS",
    ),
    "text": (lambda: b"hello", "starts with b'hello'; expected a FITS file"),
    "png": (lambda: b"\x89PNG\r\n\x1a\n" + bytes(99), "a PNG picture; expected a FITS file"),
    "lfs pointer": (
        lambda: b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n",
        "a Git LFS pointer, not the picture itself .*; expected a FITS file",
    ),
    "truncated header": (lambda: good()[:400], "header without an END card in 400 bytes; expected END"),
    "header of one block, no END": (lambda: header("SIMPLE  =                    T", end=False), "without an END card"),
    "missing END": (
        lambda: good().replace(b"END ".ljust(80), b" " * 80, 1),
        "no END card before byte 0, which is not text; expected END",
    ),
    "truncated at 60 %": (
        lambda: good()[: len(good()) * 6 // 10],
        r"\d+ bytes of pixels; expected 16800 for 70 x 60 pixels",
    ),
    "header only": (lambda: good()[:2880], "0 bytes of pixels; expected 16800"),
    "huge": (lambda: image_header(-32, 100000, 100000) + bytes(2880), "2880 bytes of pixels; expected 40000000000"),
    "huger": (
        lambda: image_header(-64, *[2**62] * 3),
        r"0 bytes of pixels; expected \d{50,} for 4611686018427387904 x",
    ),
    "huge number of axes": (lambda: header("SIMPLE  = T", "BITPIX  = 8", "NAXIS   = 99999"), "SIMPLE|NAXIS is 99999"),
    "wrong NAXIS": (lambda: image_header(-32, 70, 60, 5) + bytes(16800), "expected 84000 for 70 x 60 x 5 pixels"),
    "one axis": (lambda: image_header(16, 1000) + bytes(2880), r"image with 1 axes \(1000\); expected 2 or 3"),
    "four axes": (lambda: image_header(8, 5, 5, 2, 2) + bytes(2880), r"image with 4 axes \(5 x 5 x 2 x 2\); expected"),
    "zero width": (lambda: image_header(8, 0, 5) + bytes(2880), r"NAXIS1\.\. = \[0, 5\]; expected at least one pixel"),
    "negative width": (lambda: image_header(8, -4, 5), r"NAXIS1\.\. = \[-4, 5\]; expected no negative length"),
    "no width": (lambda: header("SIMPLE  =                    T", "BITPIX  = 8", "NAXIS   = 2"), "no card NAXIS1"),
    "BITPIX 12": (lambda: image_header(12, 5, 5) + bytes(2880), "BITPIX is 12; expected 8, 16, 32, 64, -32 or -64"),
    "BITPIX word": (lambda: image_header("'x'", 5, 5), "BITPIX is \"'x'\"; expected a whole number"),
    "BITPIX missing": (lambda: header("SIMPLE  =                    T", "NAXIS   = 0"), "no card BITPIX"),
    "BSCALE zero": (lambda: image_header(8, 5, 5, extra=("BSCALE  = 0.0",)) + bytes(2880), "BSCALE is 0; expected"),
    "BSCALE nan": (lambda: image_header(8, 5, 5, extra=("BSCALE  = nan",)) + bytes(2880), "BSCALE is 'nan'; expected"),
    "BZERO word": (
        lambda: image_header(8, 5, 5, extra=("BZERO   = 'q'",)) + bytes(2880),
        "BZERO is .*; expected a finite",
    ),
    "BLANK real": (
        lambda: image_header(8, 5, 5, extra=("BLANK   = 1.5",)) + bytes(2880),
        "BLANK is '1.5'; expected a whole",
    ),
    "no image": (lambda: written(fits.PrimaryHDU()), "1 HDU without an image; expected an image with 2 or 3 axes"),
    "table only": (lambda: written(fits.PrimaryHDU(), TABLE), "2 HDU without an image; expected an image"),
    "cut in the table": (lambda: written(fits.PrimaryHDU(), TABLE)[:3200], "header without an END card in 3200 bytes"),
    "gzip of text": (lambda: gzip.compress(b"hello"), "starts with b'hello'; expected a FITS file"),
    "gzip cut off": (lambda: gzip.compress(good())[:-300], "gzip data end too early; expected a whole file"),
    "gzip damaged": (
        lambda: (raw := gzip.compress(good()))[:200] + bytes(50) + raw[250:],
        "damaged gzip data .*; expected a whole file",
    ),
    "fz damaged": (damaged_fz, "damaged compressed image: .*; expected a whole file"),
    "fz cut off": (
        lambda: written(fits.PrimaryHDU(), fits.CompImageHDU(VALUES.astype("i2")))[:-2880],
        r"\d+ bytes of pixels; expected \d+ \(is the file cut off\?\)",
    ),
    "fz huge": (huge_fz, r"compressed bytes; expected more for the 20000000000 bytes in its header"),
    "npy pickled": (
        lambda: npy(np.array([[Explosive()]], object), allow_pickle=True),
        "holds pickled Python objects, which are never loaded; expected numbers",
    ),
    "npy cut off": (lambda: npy(VALUES)[:-4], r"16796 bytes of pixels; expected 16800 for shape \(60, 70\)"),
    "npy cut in the header": (lambda: npy(VALUES)[:40], r"damaged \.npy header .*; expected a \.npy file"),
    "npy magic only": (lambda: npy(VALUES)[:6], r"damaged \.npy header .*; expected a \.npy file"),
    "npy of a future version": (lambda: b"\x93NUMPY\x09\x00" + bytes(99), r"\.npy (version|header)"),
    "npy 1-D": (lambda: npy(np.zeros(9)), r"shape \(9,\); expected \(row, column\) or"),
    "npy 4-D": (lambda: npy(np.zeros((2, 2, 2, 2))), r"shape \(2, 2, 2, 2\); expected"),
    "npy zero width": (lambda: npy(np.zeros((9, 0))), r"shape \(9, 0\); expected"),
    "npy complex": (lambda: npy(np.zeros((9, 9), complex)), "values of type complex128; expected integers or real"),
    "npy text": (lambda: npy(np.full((9, 9), "x")), "values of type <U1; expected integers or real"),
    "npy record": (lambda: npy(np.zeros((9, 9), "i4,f4")), "values of type .*; expected integers or real"),
    "npy huge": (
        lambda: npy_header("{'descr': '<f4', 'fortran_order': True, 'shape': (100000, 100000)}\n"),
        r"0 bytes of pixels; expected 40000000000 for shape \(100000, 100000\)",
    ),
    "npy nested header": (lambda: npy_header("(" * 5000 + "\n"), r"damaged \.npy header"),
    "npy executable header": (
        lambda: npy_header("{'descr': open('executed', 'w'), 'fortran_order': False, 'shape': (1, 1)}\n"),
        r"damaged \.npy header",
    ),
}


def one_line_error(path: Path, expected: str) -> None:
    with pytest.raises(FrameReadError, match=expected) as caught:
        probe_frame(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    assert "; expected " in message
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


@pytest.mark.parametrize("case", BROKEN)
def test_one_clear_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: str) -> None:
    monkeypatch.chdir(tmp_path)
    make, expected = BROKEN[case]
    path = tmp_path / "broken frame.fits"
    path.write_bytes(make())
    one_line_error(path, expected)
    assert not Path("executed").exists()


@pytest.mark.parametrize("case", ["huge", "huger", "npy huge"])
def test_claimed_sizes_allocate_nothing(tmp_path: Path, case: str) -> None:
    path = tmp_path / "a.fits"
    path.write_bytes(BROKEN[case][0]())
    tracemalloc.start()
    try:
        with pytest.raises(FrameReadError):
            probe_frame(path)
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


def test_names_that_are_no_files(tmp_path: Path) -> None:
    (tmp_path / "x.fits").mkdir()
    one_line_error(tmp_path / "x.fits", "is a folder; expected a file")
    one_line_error(tmp_path / "missing.fits", "No such file or directory; expected a readable file")
    one_line_error(tmp_path / "zero\0byte.fits", "null")


def test_symbolic_link_loop_and_pipe(tmp_path: Path) -> None:
    if not hasattr(os, "mkfifo"):
        pytest.skip("no named pipes on this system")
    (tmp_path / "loop.fits").symlink_to(tmp_path / "loop.fits")
    one_line_error(tmp_path / "loop.fits", "[Ss]ymbolic links; expected a readable file")
    os.mkfifo(tmp_path / "pipe.fits")
    one_line_error(tmp_path / "pipe.fits", "is not an ordinary file; expected a file")


def test_unreadable_file(tmp_path: Path) -> None:
    path = tmp_path / "a.fits"
    path.write_bytes(good())
    path.chmod(0)
    if os.access(path, os.R_OK):
        pytest.skip("this user may read everything")
    one_line_error(path, "Permission denied; expected a readable file")


@pytest.mark.parametrize("size", [0, 2880 + 1000])
def test_file_that_shrinks_while_it_is_read(tmp_path: Path, size: int) -> None:
    path = tmp_path / "a.fits"
    path.write_bytes(good())
    group = open_frames([path])
    with BandReader(group) as reader:
        buffers = reader.allocate(10)
        reader.read(0, 3, buffers)
        os.truncate(path, size)
        with pytest.raises(FrameReadError, match=r"a\.fits: nothing at byte 11280, the file became shorter") as caught:
            reader.read(30, 40, buffers)
    assert "expected 2800 bytes of pixels" in str(caught.value)


def test_file_that_goes_away_before_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.fits"
    path.write_bytes(good())
    group = open_frames([path])
    path.unlink()
    with BandReader(group) as reader, pytest.raises(FrameReadError, match=r"a\.fits: No such file"):
        reader.read(0, 3, reader.allocate(3))


def test_other_shapes_name_both_files(tmp_path: Path) -> None:
    (tmp_path / "a.fits").write_bytes(good())
    fits.writeto(tmp_path / "b.fits", np.zeros((5, 5), "u1"))
    fits.writeto(tmp_path / "c.fits", np.zeros((3, 60, 70), "u1"))
    message = r"b\.fits is 5 x 5 \(rows x columns\), 1 channel; expected 60 x 70 .*, 1 channel as in .*a\.fits"
    with pytest.raises(InvalidInputError, match=message):
        open_frames([tmp_path / "a.fits", tmp_path / "b.fits"])
    with pytest.raises(InvalidInputError, match=r"c\.fits is .* 3 channels; expected .* 1 channel as in .*a\.fits"):
        open_frames([tmp_path / "a.fits", tmp_path / "c.fits"])
    with pytest.raises(InvalidInputError, match=r"frame 1 is 2 x 2 .* as in .*a\.fits"):
        open_frames([tmp_path / "a.fits", np.zeros((2, 2))])


@pytest.mark.parametrize(
    ("frames", "expected"),
    [
        ([], "no frames; expected at least one"),
        ("a.fits", "frames is 'a.fits'; expected a sequence of frames"),
        ([None], "frame 0 is NoneType; expected an array or the path of a file"),
        ([np.zeros((2, 2)), {"a": 1}], "frame 1 is dict; expected an array or the path"),
        ([np.zeros(4)], r"frame 0 has shape \(4,\); expected \(row, column\) or"),
        ([np.zeros((0, 4))], r"frame 0 has shape \(0, 4\); expected"),
        ([np.zeros((2, 2), complex)], "frame 0 has type complex128; expected integers or real numbers"),
        ([np.full((2, 2), "a")], "frame 0 has type <U1; expected integers or real numbers"),
        ([np.zeros((2, 2), object)], "frame 0 has type object; expected integers or real numbers"),
    ],
)
def test_objects_that_are_no_frames(frames: list[object], expected: str) -> None:
    with pytest.raises(InvalidInputError, match=expected):
        open_frames(frames)


@pytest.mark.parametrize(
    ("masks", "expected"),
    [
        ([None, None], "2 masks for 1 frames; expected one"),
        ([np.zeros((2, 2))], "mask of frame 0 has type float64; expected bool, True = missing"),
        ([np.zeros((3, 2), bool)], "mask of frame 0 is 3 x 2 .*; expected 2 x 2"),
        ([np.zeros((2, 2, 3), bool)], "mask of frame 0 is .* 3 channels; expected .* 1 channel"),
        ([np.zeros(4, bool)], r"mask of frame 0 has shape \(4,\); expected"),
        (["x"], "mask of frame 0 is str; expected a boolean array or None"),
    ],
)
def test_masks_that_do_not_fit(masks: list[object], expected: str) -> None:
    with pytest.raises(InvalidInputError, match=expected):
        open_frames([np.zeros((2, 2))], masks)


def test_pickling_is_what_the_explosive_case_would_have_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    pickle.loads(pickle.dumps(Explosive()))  # noqa: S301 - shows that the case is a real one
    assert Path("executed").exists()
