"""What the headers say: which files are lights, darks, flats and biases, their times, color filters and WCS."""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from zemosaic_stack_core.errors import FrameReadError, InvalidInputError
from zemosaic_stack_core.frames.file_frames import FileFrame, probe_frame
from zemosaic_stack_core.prepare.headers.kinds import KIND_CARDS, kind_in
from zemosaic_stack_core.prepare.options import BAYER_PATTERNS

if TYPE_CHECKING:
    from astropy.io import fits


_Image = npt.NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class RawFrame:
    """A file as its header describes it."""

    path: Path
    # The path as given.
    name: str
    rows: int
    columns: int
    channels: int
    # "light", "dark", "flat" or "bias": by IMAGETYP, FRAME or OBSTYPE, else by the file's name, else a light.
    kind: str = "light"
    # Seconds.
    exposure: float | None = None
    # Of the sensor, degrees Celsius.
    temperature: float | None = None
    filter: str = ""
    # DATE-OBS as written.
    date: str = ""
    # Colors of the first two pixels of the first two rows in the file ("RGGB"...); None: mono, or color already.
    pattern: str | None = None
    # Why there is no pattern although the frame must have one; empty otherwise.
    pattern_problem: str = ""
    # The header as text where it has a celestial WCS.
    wcs_header: str | None = None
    # SHA-256 of the file, hexadecimal; empty where it was not computed.
    digest: str = ""

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.rows, self.columns

    @property
    def seconds(self) -> float:
        """Exposure time, NaN where it is not known."""
        return math.nan if self.exposure is None else self.exposure

    @property
    def signature(self) -> str:
        """What changes when the file's content does."""
        return self.digest or os.fspath(self.path.resolve())


def inspect_frame(path: str | os.PathLike[str]) -> RawFrame:
    """Read a file's header; raise where it is not a frame."""
    source = probe_frame(path)
    facts: dict[str, Any] = {}
    header = _image_header(source)
    if header is not None:
        pattern, problem = bayer_pattern(header, source)
        facts = {
            "kind": frame_kind(header, Path(path).name),
            "exposure": _number(header, "EXPTIME", "EXPOSURE"),
            "temperature": _number(header, "CCD-TEMP", "SET-TEMP"),
            "filter": str(header.get("FILTER", "")).strip(),
            "date": str(header.get("DATE-OBS", "")).strip(),
            "pattern": pattern,
            "pattern_problem": problem,
            "wcs_header": _wcs_text(header),
        }
    return RawFrame(
        path=Path(path),
        name=os.fspath(path),
        rows=source.rows,
        columns=source.columns,
        channels=source.channels,
        **facts,
    )


def read_pixels(path: str | os.PathLike[str]) -> _Image:
    """Read a whole frame as float32, (row, column) or (row, column, channel); missing samples are NaN."""
    source = probe_frame(path)
    pixels = source.read_planes(0, source.rows).astype(np.float32, copy=False)
    return pixels[0] if source.channels == 1 else np.ascontiguousarray(pixels.transpose(1, 2, 0))


def frame_kind(header: fits.Header, name: str) -> str:
    """Return "light", "dark", "flat" or "bias": by the header, else by a word in the file's name."""
    for keyword in KIND_CARDS:
        word = kind_in(str(header.get(keyword, "")))
        if word:
            return word
    return kind_in(name, whole_words=True) or "light"


def bayer_pattern(header: fits.Header, source: FileFrame) -> tuple[str | None, str]:
    """Return the colors of the file's first 2 x 2 pixels, and what is wrong where there is no saying.

    Notes
    -----
    ``BAYERPAT`` (or ``COLORTYP``) names the pattern at the top left as the image is shown, ``XBAYROFF`` and
    ``YBAYROFF`` shift it. Cameras' programs write the top row first (``ROWORDER = 'TOP-DOWN'``, or no card: Seestar,
    ASIAIR); where a file says ``BOTTOM-UP``, the first row of the file is the bottom one, which with an even number of
    rows turns the pattern over. Whatever comes out is checked against the pixels: see `debayer.pattern_problem`.
    """
    if source.channels != 1:
        return None, ""
    given = str(header.get("BAYERPAT", header.get("COLORTYP", ""))).strip().upper()
    if not given or given in ("MONO", "NONE"):
        return None, ""
    if given not in BAYER_PATTERNS:
        return None, f"BAYERPAT is {given!r}; expected one of {', '.join(BAYER_PATTERNS)}"
    x, y = (int(_number(header, keyword) or 0) for keyword in ("XBAYROFF", "YBAYROFF"))
    if str(header.get("ROWORDER", "")).strip().upper() == "BOTTOM-UP":
        y += source.rows - 1
        return shift_pattern(given, x, y, flipped=True), ""
    return shift_pattern(given, x, y), ""


def shift_pattern(pattern: str, x: int, y: int, *, flipped: bool = False) -> str:
    """Return the pattern whose first pixel is pixel (x, y) of `pattern`; `flipped`: rows run upwards from there."""
    step = -1 if flipped else 1
    return "".join(pattern[2 * ((y + step * row) % 2) + (x + column) % 2] for row in (0, 1) for column in (0, 1))


def require_pattern(frame: RawFrame) -> str | None:
    """Return a frame's pattern; raise where it must have one and can't be had."""
    if frame.pattern_problem:
        raise InvalidInputError(f"{frame.name}: {frame.pattern_problem}; or say it with --bayer-pattern")
    return frame.pattern


def common_shape(frames: Iterable[RawFrame]) -> tuple[int, int]:
    """Return the rows and columns that all frames share; raise, naming two frames, where they differ."""
    first: RawFrame | None = None
    for frame in frames:
        first = first or frame
        if frame.shape != first.shape or frame.channels != first.channels:
            raise InvalidInputError(
                f"{frame.name} is {frame.rows} x {frame.columns} with {frame.channels} channels; "
                f"expected {first.rows} x {first.columns} with {first.channels} as in {first.name}"
            )
    if first is None:
        raise InvalidInputError("no frames; expected at least one")
    return first.shape


def _image_header(source: FileFrame) -> fits.Header | None:
    """Return the header of the first image of a FITS file; None for other files."""
    from astropy.io import fits

    if source.path.name.casefold().endswith(".npy"):
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # odd cards are the camera's business
            with fits.open(source.path, lazy_load_hdus=True) as hdus:
                for hdu in hdus:
                    if hdu.header.get("NAXIS", 0) >= 2 or (hdu.is_image and hdu.header.get("ZNAXIS", 0) >= 2):
                        header: fits.Header = hdu.header.copy()
                        return header
    except (OSError, ValueError, IndexError) as error:
        raise FrameReadError(f"{source.name}: {error}; expected a readable header") from None
    return None


def _number(header: fits.Header, *keywords: str) -> float | None:
    """Return the first card that is a finite number."""
    for keyword in keywords:
        try:
            value = float(header.get(keyword))
        except (TypeError, ValueError):
            continue
        if np.isfinite(value):
            return value
    return None


def _wcs_text(header: fits.Header) -> str | None:
    """Return the header as text where it has a celestial WCS that works."""
    from astropy.wcs import WCS, WcsError

    if "CTYPE1" not in header or "CRVAL1" not in header:
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            wcs = WCS(header, naxis=2)
            works = wcs.has_celestial and np.all(np.isfinite(wcs.wcs_pix2world([[0.0, 0.0]], 0)))
    except (WcsError, ValueError, KeyError, TypeError):
        return None
    return header.tostring(sep="", endcard=False, padding=False) if works else None
