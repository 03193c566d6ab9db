"""Frames in the formats of other programs, read by their libraries: XISF, raw files of cameras, TIFF.

They become what a FITS file would have been: metadata become cards, pixels one array whose first row is the bottom of
the picture (in these formats the top row comes first). The libraries are the extra ``formats``; whoever needs one that
is not installed is told its name.
"""

from __future__ import annotations

import importlib
import io
import logging
import math
import struct
import threading
import zlib
from collections.abc import Callable, Mapping
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from zemosaic_stack_core.errors import FrameReadError
from zemosaic_stack_core.fits.cards import FitsHeader

Cards = dict[str, str | int | float | bool]
_Array = npt.NDArray[Any]
# Cards that say how a FITS file's pixels are stored, or are the library's own.
_STRUCTURAL = ("SIMPLE", "BITPIX", "EXTEND", "BZERO", "BSCALE", "BLANK", "END", "ROWORDER", "CHECKSUM", "DATASUM")
# What the libraries raise where a file is damaged; besides, each has errors of its own.
_DAMAGE = (
    *(OSError, ValueError, LookupError, TypeError, AttributeError, ArithmeticError, AssertionError, EOFError),
    *(RuntimeError, MemoryError, SyntaxError, struct.error, zlib.error),  # SyntaxError: XML's
)
# tifffile logs every tag that it can't read, and then raises as well.
_NOWHERE = logging.NullHandler()
# Standard output is one for all threads: they redirect it in turn.
_REDIRECTING = threading.Lock()
# Samples for a byte of the file: what claims more is not believed.
_LARGEST_RATIO = 1000


class _Format(NamedTuple):
    """One format: the library that reads it, where its own error is, and how cards and pixels are read."""

    title: str
    library: str
    error: tuple[str, str]
    read_cards: Callable[[Any, Path], Cards]
    read_pixels: Callable[[Any, Path], _Array]


def foreign_header(kind: str, path: Path, name: str) -> FitsHeader:
    """Return what a file's metadata say as the header of a FITS file; raise `FrameReadError` where they are damaged."""
    from astropy.io import fits

    form = _FORMATS[kind]
    cards = _call(form, form.read_cards, path, name)
    shape = [int(cards[key]) for key in ("NAXIS2", "NAXIS1")] + [int(cards.get("NAXIS3", 1))]
    claimed, size = math.prod(shape), path.stat().st_size
    if min(shape) < 1 or claimed > _LARGEST_RATIO * size:
        raise FrameReadError(f"{name}: {size} bytes for {claimed} samples; expected a whole file")
    header = fits.Header()
    for keyword, value in (Cards(SIMPLE=True) | cards | {"ROWORDER": "BOTTOM-UP"}).items():
        try:
            header[keyword] = value
        except ValueError:  # no FITS keyword, or no value that a card can hold
            continue
    return FitsHeader(header.tostring(sep="", endcard=False, padding=False).encode("ascii", "replace"))


def foreign_pixels(kind: str, path: Path, name: str) -> _Array:
    """Return a file's pixels, (row, column) or (row, column, channel), the bottom row first."""
    form = _FORMATS[kind]
    pixels = _call(form, form.read_pixels, path, name)
    if pixels.ndim == 3 and pixels.shape[2] in (2, 4):  # the last one is opacity
        pixels = pixels[..., :-1]
    if pixels.ndim == 3 and pixels.shape[2] == 1:
        pixels = pixels[..., 0]
    if pixels.ndim not in (2, 3) or not pixels.size or pixels.dtype.kind not in "buif":
        found = f"{pixels.dtype} of shape {pixels.shape}"
        raise FrameReadError(f"{name}: {found}; expected numbers, (row, column) or (row, column, channel)")
    return np.ascontiguousarray(pixels[::-1])


def _call(form: _Format, function: Callable[[Any, Path], Any], path: Path, name: str) -> Any:
    """Return what a library makes of a file; whatever is wrong is a `FrameReadError`."""
    try:
        library = importlib.import_module(form.library)
        own_error: type[Exception] = getattr(importlib.import_module(form.error[0]), form.error[1])
    except ImportError:
        raise FrameReadError(
            f"{name}: reading {form.title} needs {form.library}, which is not installed; "
            f"expected: python -m pip install {form.library}"
        ) from None
    logging.getLogger(form.library).addHandler(_NOWHERE)
    try:
        return function(library, path)
    except FrameReadError as error:
        raise FrameReadError(f"{name}: {error}") from None
    except (*_DAMAGE, own_error) as error:
        said = error.args[0] if error.args else ""
        text = said.decode("utf-8", "replace") if isinstance(said, bytes) else str(error)
        reason = " ".join(text.split()) or type(error).__name__
        raise FrameReadError(f"{name}: {form.title} that can't be read ({reason}); expected a whole file") from None


def _axes(shape: tuple[int, ...], dtype: np.dtype[Any]) -> Cards:
    """Return the cards of an array's shape, (row, column[, channel]), and type."""
    bits = dtype.itemsize * (-8 if dtype.kind == "f" else 8)
    channels = shape[2] if len(shape) == 3 else 1
    channels -= channels in (2, 4)
    axes: Cards = {"BITPIX": bits, "NAXIS": 2 if channels == 1 else 3, "NAXIS1": shape[1], "NAXIS2": shape[0]}
    return axes if channels == 1 else axes | {"NAXIS3": channels}


def _open_xisf(library: Any, path: Path) -> Any:
    """Return an open XISF file; the library prints what it does not know, among what programs read of us."""
    with _REDIRECTING, redirect_stdout(io.StringIO()):
        return library.XISF(str(path))


def _xisf_cards(library: Any, path: Path) -> Cards:
    """Return what the first image of an XISF file says."""
    opened = _open_xisf(library, path)
    image = opened.get_images_metadata()[0]
    columns, rows, channels = image["geometry"]
    cards = _axes((rows, columns, channels), np.dtype(image["dtype"]))
    properties = image.get("XISFProperties", {})
    for keyword, name in _XISF_PROPERTIES.items():
        if name in properties:
            cards[keyword] = properties[name]["value"]
    for keyword, values in image.get("FITSKeywords", {}).items():
        if keyword not in (*_STRUCTURAL, "HISTORY", "COMMENT") and not keyword.startswith("NAXIS"):
            cards[keyword] = _value_of(values[0]["value"])
    for mosaic in opened.get_metadata_xml().iter():
        if mosaic.tag.endswith("}ColorFilterArray"):
            cards["BAYERPAT"] = mosaic.attrib["pattern"]
    return cards


# Properties of XISF that stand where a file has no such FITS keyword.
_XISF_PROPERTIES = {
    "EXPTIME": "Instrument:ExposureTime",
    "DATE-OBS": "Observation:Time:Start",
    "FILTER": "Instrument:Filter:Name",
    "INSTRUME": "Instrument:Camera:Name",
    "GAIN": "Instrument:Camera:Gain",
    "CCD-TEMP": "Instrument:Sensor:Temperature",
    "OBJECT": "Observation:Object:Name",
}


def _value_of(text: str) -> str | int | float | bool:
    """Return the value that a FITS keyword's text stands for."""
    stripped = text.strip()
    if stripped.startswith("'"):
        return stripped.strip("'").rstrip()
    if stripped in ("T", "F"):
        return stripped == "T"
    for kind in (int, float):
        try:
            return kind(stripped)
        except ValueError:
            continue
    return stripped


def _xisf_pixels(library: Any, path: Path) -> _Array:
    """Return the first image of an XISF file."""
    pixels: _Array = _open_xisf(library, path).read_image(0)
    return pixels


def _raw_cards(library: Any, path: Path) -> Cards:
    """Return what a camera's raw file says."""
    with library.imread(str(path)) as raw:
        sizes, other = raw.sizes, raw.other
        cards = _axes((sizes.height, sizes.width), _raw_type(raw))
        if raw.raw_pattern is not None and raw.num_colors > 1:
            colors = _colors(raw)  # none of Fuji's 6 x 6, which is refused where a pattern is asked for
            cards["BAYERPAT"] = "".join(chr(raw.color_desc[color]) for color in colors) or "XTRANS"
        if raw.white_level:
            cards["SATURATE"] = int(raw.white_level) - int(max(raw.black_level_per_channel))
        if 0.0 < other.shutter_speed < math.inf:
            cards["EXPTIME"] = round(float(other.shutter_speed), 6)
        if other.iso_speed > 0.0:
            cards["ISOSPEED"] = round(float(other.iso_speed))
        if other.timestamp is not None and other.timestamp.year > _NO_CLOCK:
            cards["DATE-OBS"] = other.timestamp.replace(tzinfo=None).isoformat()
    return cards


# A camera without a clock counts from here.
_NO_CLOCK = 1980


def _raw_pixels(library: Any, path: Path) -> _Array:
    """Return a camera's samples less its black level; signed, because noise goes below it."""
    with library.imread(str(path)) as raw:
        samples = raw.raw_image_visible
        if samples is None:
            raise ValueError("no mosaic of single samples")
        if not samples[-1].any() or not samples[:, -1].any():  # what LibRaw makes of a file that ends too early
            raise ValueError("the last row or column is all zeros: it is cut off")
        pixels = np.empty(samples.shape, _raw_type(raw))
        black = raw.black_level_per_channel
        levels = [black[color] for color in _colors(raw)] or 4 * [min(black)]
        for place, level in enumerate(levels):
            row, column = divmod(place, 2)
            pixels[row::2, column::2] = samples[row::2, column::2].astype(np.int32) - int(level)
    return pixels


def _raw_type(raw: Any) -> np.dtype[Any]:
    """Return the smallest type of `frames` that a camera's samples less black fit."""
    return np.dtype(np.int16 if raw.white_level <= np.iinfo(np.int16).max else np.float32)


def _colors(raw: Any) -> list[int]:
    """Return the indices of the colors of the first 2 x 2 visible pixels; none where they don't repeat like that."""
    if raw.raw_pattern is None or raw.raw_pattern.shape != (2, 2):
        return []
    top, left = raw.sizes.top_margin, raw.sizes.left_margin
    return [raw.raw_color(top + row, left + column) for row in (0, 1) for column in (0, 1)]


def _tiff_cards(library: Any, path: Path) -> Cards:
    """Return what the first page of a TIFF says; Siril and others put a FITS header into its description."""
    with library.TiffFile(str(path)) as opened:
        page = _only_page(opened)
        shape = _last_channels(page.shape, page.axes)
        cards = _axes(shape, page.dtype)
        exif = page.tags["ExifTag"].value if "ExifTag" in page.tags else {}
        time, date = exif.get("ExposureTime"), exif.get("DateTimeOriginal") or page.tags.valueof("DateTime")
        if time and time[1]:
            cards["EXPTIME"] = time[0] / time[1]
        if date:
            cards["DATE-OBS"] = str(date).strip("\0").replace(":", "-", 2).replace(" ", "T")
        return cards | _cards_in(page.description)


def _cards_in(description: str) -> Cards:
    """Return the cards of a FITS header that stands, a card a line, in a text; none of how its pixels are stored."""
    from astropy.io import fits

    if not description.lstrip().startswith("SIMPLE"):
        return {}
    header: Mapping[str, Any] = fits.Header.fromstring(description.lstrip(), sep="\n")
    return {
        keyword: value
        for keyword, value in header.items()
        if keyword not in (*_STRUCTURAL, "", "HISTORY", "COMMENT") and not keyword.startswith("NAXIS")
    }


def _tiff_pixels(library: Any, path: Path) -> _Array:
    """Return the first page of a TIFF."""
    with library.TiffFile(str(path)) as opened:
        page = _only_page(opened)
        pixels: _Array = page.asarray()
        return np.moveaxis(pixels, 0, -1) if page.axes == "SYX" else pixels


def _only_page(opened: Any) -> Any:
    """Return the first page of a TIFF; raise where others are as large: exposures, of which one would count."""
    first = opened.pages[0]
    alike = sum(page.shape == first.shape for page in opened.pages)
    if alike > 1:
        found = f"{alike} pages of {first.shape[0]} x {first.shape[1]}"
        raise FrameReadError(f"{found}; expected one exposure a file (tifffile.imread reads them all as one array)")
    return first


def _last_channels(shape: tuple[int, ...], axes: str) -> tuple[int, ...]:
    """Return the shape (row, column[, channel]) of a page."""
    if axes not in ("YX", "YXS", "SYX"):
        raise ValueError(f"axes {axes}")
    return (*shape[1:], shape[0]) if axes == "SYX" else shape


_FORMATS = {
    "xisf": _Format("XISF", "xisf", ("zstandard", "ZstdError"), _xisf_cards, _xisf_pixels),
    "raw": _Format("a camera's raw file", "rawpy", ("rawpy", "LibRawError"), _raw_cards, _raw_pixels),
    "tiff": _Format("TIFF", "tifffile", ("tifffile", "TiffFileError"), _tiff_cards, _tiff_pixels),
}
