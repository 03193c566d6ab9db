"""What people hand to `stack`, one kind a row: stacked right, refused in one line, or stacked right with a warning.

A row is a name, what makes the frames of `FRAMES` (and, where they can carry one, of `MASKS`), and what comes of it:
`PLAIN` and `MASKED` are images, a text is what the refusal says. None may come out otherwise without a word.
"""

from __future__ import annotations

import gzip
import io
import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from astropy import units as u
from astropy.io import fits
from astropy.nddata import CCDData, NDData, StdDevUncertainty, UnknownUncertainty
from astropy.table import Table
from astropy.utils.masked import Masked
from astropy.wcs import WCS
from PIL import Image

from zemosaic_stack_core import StackOptions, ZemosaicError, stack
from zemosaic_stack_core.frames.heads import read_head

da = pytest.importorskip("dask.array", reason="dask is an extra")

ROWS, COLUMNS, N = 11, 13, 4
OPTIONS = StackOptions(rejection="none")
_rng = np.random.default_rng(5)
FRAMES = _rng.integers(100, 250, (N, ROWS, COLUMNS)).astype(np.float32)
MASKS = _rng.random(FRAMES.shape) < 0.2
HOLES = np.where(MASKS, np.float32(np.nan), FRAMES)
PLAIN = FRAMES.mean(axis=0, dtype=np.float64).astype(np.float32)
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    MASKED = np.nanmean(HOLES, axis=0, dtype=np.float64).astype(np.float32)
COLOR = np.stack([FRAMES, FRAMES + 1, FRAMES + 2], axis=-1)
OF_COLOR = np.stack([PLAIN, PLAIN + 1, PLAIN + 2], axis=-1)


class Row(NamedTuple):
    """A kind of input."""

    name: str
    # Called with an empty folder.
    make: Callable[[Path], Any]
    # The image, or what the refusal says.
    comes: Any = PLAIN
    # What a warning says.
    said: str = ""


def each(make: Callable[[Any], Any], of: Any = FRAMES) -> Callable[[Path], list[Any]]:
    """Return what makes every frame."""
    return lambda _: [make(frame) for frame in of]


def masked(make: Callable[[Any, Any], Any]) -> Callable[[Path], list[Any]]:
    """Return what makes every frame of its pixels and its mask."""
    return lambda _: [make(frame.copy(), mask.copy()) for frame, mask in zip(FRAMES, MASKS, strict=True)]


def files(write: Callable[[Path, Any, Any], None], suffix: str = ".fits") -> Callable[[Path], list[Path]]:
    """Return what writes every frame, of its pixels and its mask."""

    def make(folder: Path) -> list[Path]:
        paths = [folder / f"{index}{suffix}" for index in range(N)]
        for path, frame, mask in zip(paths, FRAMES, MASKS, strict=True):
            write(path, frame.copy(), mask.copy())
        return paths

    return make


def hdus(*images: Any) -> Callable[[Path, Any, Any], None]:
    """Return what writes a file of several HDUs, each made of pixels and mask."""
    return lambda path, frame, mask: fits.HDUList([make(frame, mask) for make in images]).writeto(path)


def masked_dask(frame: Any, mask: Any, chunks: Any = (4, 5)) -> Any:
    return da.from_array(np.ma.MaskedArray(frame, mask), chunks=chunks, asarray=False)


def place(shift: float) -> WCS:
    wcs = WCS(naxis=2)
    wcs.wcs.ctype, wcs.wcs.crval, wcs.wcs.crpix = ["RA---TAN", "DEC--TAN"], [10, 40], [6.0 + shift, 5.0]
    wcs.wcs.cdelt = [-1e-3, 1e-3]
    wcs.wcs.set()
    return wcs


class Rows:
    """Rows handed out when they are asked for."""

    def __init__(self, array: Any) -> None:
        self._array, self.shape, self.dtype = array, array.shape, array.dtype

    def __getitem__(self, key: Any) -> Any:
        return self._array[key]


def memory_mapped(folder: Path) -> list[Any]:
    np.save(folder / "cube.npy", FRAMES)
    return list(np.load(folder / "cube.npy", mmap_mode="r"))


def strict_arrays(_: Path) -> list[Any]:
    xp = pytest.importorskip("array_api_strict", reason="array-api-strict is not installed")
    return [xp.asarray(frame) for frame in FRAMES]


def urls(folder: Path) -> list[str]:
    fsspec = pytest.importorskip("fsspec", reason="fsspec comes with dask")
    names = []
    for path in files(lambda path, frame, _: fits.writeto(path, frame))(folder):
        names.append(f"memory://table/{path.name}")
        fsspec.filesystem("memory").pipe(names[-1], path.read_bytes())
    return names


def in_a_list(folder: Path) -> str:
    paths = files(lambda path, frame, _: fits.writeto(path, frame))(folder)
    (folder / "list.txt").write_text("\n".join(path.name for path in paths), encoding="utf-8")
    return f"@{folder / 'list.txt'}"


def compressed(frame: Any, _: Any) -> Any:
    return fits.CompImageHDU(frame.astype(np.int16), compression_type="RICE_1")


def xarrays(change: Callable[[Any, int], Any]) -> Callable[[Path], list[Any]]:
    def make(_: Path) -> list[Any]:
        xr = pytest.importorskip("xarray", reason="xarray is not installed")
        frames = [xr.DataArray(frame, dims=("y", "x"), coords={"x": np.arange(COLUMNS)}) for frame in FRAMES]
        return [change(frame, index) for index, frame in enumerate(frames)]

    return make


def write_plain(path: Path, frame: Any, _: Any) -> None:
    fits.writeto(path, frame)


image = fits.ImageHDU
empty = lambda *_: fits.PrimaryHDU()  # noqa: E731 - rows of a table
TABLE = [
    # Arrays
    Row("a list of arrays", each(lambda frame: frame)),
    Row("a tuple", lambda _: tuple(FRAMES)),
    Row("a cube, frames first", lambda _: FRAMES),
    Row("a generator", lambda _: (frame for frame in FRAMES)),
    *(
        Row(f"arrays of {kind}", each(lambda frame, kind=kind: frame.astype(kind)))
        for kind in ("u1", "i2", "u2", "i4", "u4", "i8", "u8", "f2", "f8", ">f4", ">i2", "longdouble")
    ),
    Row("arrays of bool", each(lambda frame: frame > 150), (FRAMES > 150).mean(axis=0, dtype=np.float64).astype("f4")),
    Row("column-major arrays", each(np.asfortranarray)),
    Row("views with strides", each(lambda frame: np.repeat(frame, 2, axis=1)[:, ::2])),
    Row("views backwards", each(lambda frame: frame[::-1].copy()[::-1])),
    Row("memory-mapped arrays", memory_mapped),
    Row("arrays of another library", strict_arrays),
    Row(
        "NaN and infinity",
        lambda _: [np.where(m, np.inf * (-1) ** k, f) for k, (f, m) in enumerate(zip(FRAMES, MASKS, strict=True))],
        MASKED,
    ),
    Row("color, channels last", lambda _: list(COLOR), OF_COLOR),
    Row("one channel", each(lambda frame: frame[..., None]), PLAIN[..., None]),
    Row("dask arrays", each(lambda frame: da.from_array(frame, chunks=(4, 5)))),
    Row("an object that hands out rows", each(Rows)),
    # With a mask
    Row("masked arrays", masked(np.ma.MaskedArray), MASKED),
    Row("masked arrays of integers", masked(lambda frame, mask: np.ma.MaskedArray(frame.astype("u2"), mask)), MASKED),
    Row("astropy's Masked", masked(Masked), MASKED),
    Row("a masked quantity", masked(lambda frame, mask: Masked(frame * u.adu, mask)), MASKED),
    Row("CCDData with a mask", masked(lambda frame, mask: CCDData(frame, mask=mask, unit="adu")), MASKED),
    Row("NDData with a mask", masked(lambda frame, mask: NDData(frame, mask=mask)), MASKED),
    Row("NDData of a masked array", masked(lambda frame, mask: NDData(np.ma.MaskedArray(frame, mask))), MASKED),
    Row(
        "masked dask arrays",
        masked(masked_dask),
        MASKED,
    ),
    Row("NDData of Masked", masked(lambda frame, mask: NDData(Masked(frame, mask))), MASKED),
    Row("NDData of dask with a mask", masked(lambda frame, mask: NDData(da.from_array(frame), mask=mask)), MASKED),
    Row(
        "masked dask arrays of integers", masked(lambda frame, mask: masked_dask(frame.astype("u2"), mask, -1)), MASKED
    ),
    # With a unit, an uncertainty, a place
    Row("quantities", each(lambda frame: frame * u.adu)),
    Row("quantities without dimension", each(lambda frame: frame * u.one)),
    Row("units that convert", lambda _: [FRAMES[0] * u.Jy, *(frame * 1000 * u.mJy for frame in FRAMES[1:])]),
    Row("units that do not", lambda _: [FRAMES[0] * u.Jy, FRAMES[1] * u.s], "frame 1 has the unit s; expected Jy"),
    Row("a unit with some", lambda _: [FRAMES[0] * u.Jy, FRAMES[1]], "frame 1 has the unit none; expected Jy"),
    Row(
        "percent beside numbers", lambda _: [FRAMES[0], FRAMES[1] * u.percent], "frame 1 has the unit %; expected none"
    ),
    Row("uncertainties", each(lambda frame: CCDData(frame, unit="adu", uncertainty=StdDevUncertainty(frame * 0 + 2)))),
    Row(
        "unknown uncertainties",
        each(lambda frame: NDData(frame, uncertainty=UnknownUncertainty(frame))),
        "UnknownUncertainty; expected StdDev",
    ),
    Row(
        "uncertainties with some",
        lambda _: [NDData(FRAMES[0], uncertainty=StdDevUncertainty(FRAMES[0])), NDData(FRAMES[1])],
        "frame 0 has an uncertainty and frame 1 has none",
    ),
    Row(
        "CCDData of other places",
        lambda _: [CCDData(f, unit="adu", wcs=place(k)) for k, f in enumerate(FRAMES)],
        PLAIN,
        said="its WCS puts it 1 pixels from",
    ),
    Row(
        "float64 beyond float32",
        each(lambda frame: frame.astype("f8") / 50 + 1e9),
        None,
        said="too coarse for a noise of",
    ),
    # HDUs
    Row("HDUs", each(fits.PrimaryHDU)),
    Row("HDUs of compressed images", lambda _: [compressed(frame, None) for frame in FRAMES]),
    Row(
        "HDUs of two units",
        lambda _: [
            fits.PrimaryHDU(f, fits.Header({"BUNIT": unit}))
            for f, unit in zip(FRAMES, ("Jy", "Jy", "s", "Jy"), strict=True)
        ],
        "frame 2 has the unit s; expected Jy",
    ),
    Row("HDUs without an image", lambda _: [fits.PrimaryHDU()], "frame 0 is PrimaryHDU; expected an array"),
    Row(
        "an HDUList a frame",
        each(lambda frame: fits.HDUList([fits.PrimaryHDU(frame)])),
        "frame 0 is HDUList; expected an array",
    ),
    # xarray
    Row("DataArrays", xarrays(lambda frame, _: frame)),
    Row("lazy DataArrays", xarrays(lambda frame, _: frame.chunk({"y": 4}))),
    Row(
        "DataArrays turned",
        xarrays(lambda frame, index: frame.T if index else frame),
        r"frame 1 has the axes \('x', 'y'\)",
    ),
    Row(
        "DataArrays of other coordinates",
        xarrays(lambda frame, index: frame.assign_coords(x=frame.x + index)),
        "frame 1 has other coordinates along 'x'",
    ),
    Row(
        "DataArrays of other units",
        xarrays(
            lambda frame, index: (
                frame.assign_attrs(units=("K", "mK")[index % 2]) * (1, 1000)[index % 2]
                if False
                else frame.assign_attrs(units=("K", "m")[index % 2])
            )
        ),
        "frame 1 has the unit m; expected K",
    ),
    Row(
        "DataArrays of units that convert",
        xarrays(lambda frame, index: (frame * (1, 1000)[index % 2]).assign_attrs(units=("m", "mm")[index % 2])),
    ),
    # Files
    Row("FITS files", files(write_plain)),
    Row("names of files", lambda folder: [str(path) for path in files(write_plain)(folder)]),
    Row("heads of files", lambda folder: [read_head(path) for path in files(write_plain)(folder)]),
    Row("a folder", lambda folder: files(write_plain)(folder) and str(folder)),
    Row("a pattern", lambda folder: files(write_plain)(folder) and f"{folder}/*.fits"),
    Row("a list of names", in_a_list),
    Row("URLs", urls),
    Row("files and arrays", lambda folder: [*files(write_plain)(folder)[:2], *FRAMES[2:]]),
    Row("gzipped files", files(lambda path, frame, _: path.write_bytes(gzip.compress(fits_bytes(frame))), ".fits.gz")),
    Row("compressed images", files(hdus(empty, compressed))),
    Row("files of unsigned integers", files(lambda path, frame, _: fits.writeto(path, frame.astype("u2")))),
    Row(
        "files with BSCALE and BZERO",
        files(
            lambda path, frame, _: path.write_bytes(fits_bytes((frame / 0.5 - 20).astype("i2"), BSCALE=0.5, BZERO=10.0))
        ),
    ),
    Row(
        "files with BLANK",
        files(
            lambda path, frame, mask: path.write_bytes(fits_bytes(np.where(mask, -99, frame).astype("i2"), BLANK=-99))
        ),
        MASKED,
    ),
    Row("files with NaN", files(lambda path, frame, mask: fits.writeto(path, np.where(mask, np.nan, frame))), MASKED),
    Row("files of CCDData", files(lambda path, frame, mask: CCDData(frame, unit="adu", mask=mask).write(path)), MASKED),
    Row("an image in an extension", files(hdus(empty, lambda frame, _: image(frame, name="SCI")))),
    Row(
        "SCI with ERR and DQ",
        files(
            hdus(
                empty,
                lambda frame, _: image(frame, name="SCI"),
                lambda frame, _: image(frame, name="ERR"),
                lambda _, mask: image(mask.astype("i4"), name="DQ"),
            )
        ),
        PLAIN,
        said="not used are planes beside its image, ERR, DQ",
    ),
    Row("two SCI", files(hdus(empty, *[lambda frame, _: image(frame, name="SCI")] * 2)), "2 images .*; expected one"),
    Row(
        "two SCI, one named",
        lambda folder: [
            f"{path}[SCI,2]"
            for path in files(
                hdus(
                    empty,
                    lambda frame, _: image(frame + 9, name="SCI", ver=1),
                    lambda frame, _: image(frame, name="SCI", ver=2),
                )
            )(folder)
        ],
    ),
    Row("npy files", files(lambda path, frame, _: np.save(path, frame), ".npy")),
    Row("column-major npy files", files(lambda path, frame, _: np.save(path, np.asfortranarray(frame)), ".npy")),
    # What is no frame
    Row("nothing", lambda _: [], "no frames; expected at least one"),
    Row("None", lambda _: None, "frames is one NoneType; expected a sequence"),
    Row("one CCDData", lambda _: CCDData(FRAMES[0], unit="adu"), "frames is one CCDData; expected a sequence"),
    Row("one file", lambda folder: str(files(write_plain)(folder)[0]), "expected a sequence of frames"),
    Row("None among frames", lambda _: [FRAMES[0], None], "frame 1 is NoneType; expected an array"),
    Row("numbers", lambda _: [1.0, 2.0], "frame 0 is float; expected an array"),
    Row("lists of lists", lambda _: FRAMES.tolist(), "frame 0 is list; expected an array"),
    Row("one image", lambda _: FRAMES[0], r"frame 0 has shape \(13,\); expected \(row, column\)"),
    Row("complex numbers", each(lambda frame: frame * 1j), "frame 0 has type complex64; expected integers or real"),
    Row("objects", each(lambda frame: frame.astype(object)), "frame 0 has type object; expected integers or real"),
    Row("texts", each(lambda frame: frame.astype("U8")), "frame 0 has type <U8; expected integers or real"),
    Row(
        "structured arrays",
        each(lambda frame: np.zeros(frame.shape, [("a", "f4")])),
        "frame 0 has type .*; expected integers",
    ),
    Row("times", each(lambda frame: frame.astype("m8[s]")), "frame 0 has type timedelta64.*; expected integers"),
    Row("four axes", lambda _: [FRAMES[None]] * 2, r"frame 0 has shape \(1, 4, 11, 13\); expected \(row, column\)"),
    Row("planes first", lambda _: [np.moveaxis(COLOR[0], -1, 0)] * 2, "which is 13 channels; expected .*moveaxis"),
    Row("no pixels", lambda _: [np.zeros((0, 5), np.float32)], r"frame 0 has shape \(0, 5\); expected"),
    Row("other shapes", lambda _: [FRAMES[0], FRAMES[1][:-1]], "frame 1 is 10 x 13 .*; expected 11 x 13"),
    Row("a table", lambda _: [Table({"a": [1, 2]})] * 2, "frame 0 is Table; expected an array"),
    Row("pictures", each(lambda frame: Image.fromarray(frame.astype("u1"))), "frame 0 is Image; expected an array"),
    Row(
        "open files",
        lambda _: [io.BytesIO(fits_bytes(frame)) for frame in FRAMES],
        "frame 0 is BytesIO; expected an array",
    ),
    Row("a dictionary", lambda _: {"a": FRAMES[0]}, "a: No such file or directory; expected a readable file"),
    Row("files that are not there", lambda folder: [folder / "none.fits"], "none.fits: No such file"),
    Row(
        "files cut off", files(lambda path, frame, _: path.write_bytes(fits_bytes(frame)[:-2500])), "expected .*cut off"
    ),
    Row("files of text", files(lambda path, *_: path.write_text("hello")), "0.fits: .*; expected"),
    Row(
        "files of tables",
        files(lambda path, *_: Table({"a": [1, 2]}).write(path)),
        "without an image; expected an image",
    ),
    Row("npz files", files(lambda path, frame, _: np.savez(path, frame), ".npz"), "0.npz: .*; expected"),
    Row(
        "npy files of objects",
        files(lambda path, frame, _: np.save(path, frame.astype(object)), ".npy"),
        "0.npy: .*; expected",
    ),
]


def fits_bytes(pixels: Any, **cards: Any) -> bytes:
    """Return a FITS file of pixels as they are, with cards that say what they mean."""
    held = io.BytesIO()
    hdu = fits.PrimaryHDU(pixels)
    hdu.writeto(held)
    content = held.getvalue()
    return fits.Header([*hdu.header.cards, *cards.items()]).tostring().encode() + content[2880:] if cards else content


def test_the_table_is_long_and_names_each_kind_once():
    names = [row.name for row in TABLE]
    assert len(names) >= 60
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("row", TABLE, ids=lambda row: row.name.replace(" ", "-"))
def test_it_is_right_or_refused(row, tmp_path):
    frames = row.make(tmp_path)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        if isinstance(row.comes, str):
            with pytest.raises(ZemosaicError) as raised:
                stack(frames, options=OPTIONS)
            message = str(raised.value)
            assert re.search(row.comes, message), message
            assert "\n" not in message
        else:
            result = stack(frames, options=OPTIONS, rows_per_chunk=4)
    said = [str(one.message) for one in caught]
    assert bool(said) == bool(row.said), said
    if row.said:
        assert re.search(row.said, said[0]), said
    if not isinstance(row.comes, (str, type(None))):
        np.testing.assert_array_max_ulp(result.image, row.comes, 2)
        expected = np.count_nonzero(MASKS) if row.comes is MASKED else 0
        assert sum(frame.missing[0] for frame in result.frames) == expected
        assert result.image.shape == row.comes.shape


def test_a_generator_has_masks_too():
    expected = stack(FRAMES, masks=MASKS, options=OPTIONS)
    found = stack((frame for frame in FRAMES), masks=MASKS, options=OPTIONS)
    np.testing.assert_array_equal(found.image, expected.image)
