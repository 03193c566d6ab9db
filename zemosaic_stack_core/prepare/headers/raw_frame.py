"""What the headers say: which files are lights, darks, flats and biases, their times, color filters and WCS."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from zemosaic_stack_core.errors import FrameReadError
from zemosaic_stack_core.fits.astropy_reads import quiet_astropy
from zemosaic_stack_core.fits.cards import NO_HEADER, FitsHeader
from zemosaic_stack_core.frames.file_frames import FileFrame, probe_frame
from zemosaic_stack_core.frames.heads import FileHead, FrameFile, head_of
from zemosaic_stack_core.frames.pixel_rows import FilePool
from zemosaic_stack_core.prepare.headers.kinds import (
    KEPT_CARDS,
    kind_by_cards,
    kind_by_parent,
    kind_by_path,
    pattern_by_cards,
    wcs_place,
)
from zemosaic_stack_core.prepare.headers.sensor_facts import NO_SENSOR_FACTS, SensorFacts
from zemosaic_stack_core.prepare.options import BAYER_PATTERNS

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
    # "light", "dark", "flat", "bias" or "dark flat": by IMAGETYP, FRAME or OBSTYPE, else by the names
    # of folder and file, else a light.
    kind: str = "light"
    # The header says it.
    says_kind: bool = False
    # The sensor's state.
    facts: SensorFacts = NO_SENSOR_FACTS
    # DATE-OBS as written.
    date: str = ""
    # Colors of the first two pixels of the first two rows in the file ("RGGB"...); None: mono, or color already.
    pattern: str | None = None
    # Why there is no pattern although the frame must have one; empty otherwise.
    pattern_problem: str = ""
    # The header as text where it has a celestial WCS.
    wcs_header: str | None = None
    # The cards that its WCS depends on, as written.
    wcs_place: tuple[str, ...] = ()
    # Those that the aligned frame keeps.
    cards: FitsHeader = NO_HEADER
    # Where its pixels are; None in a compressed file, which is decoded anew whenever they are read.
    source: FileFrame | None = None
    # SHA-256 of the file, hexadecimal; empty where it was not computed.
    digest: str = ""
    # Samples of exactly zero are missing.
    zeros_missing: bool = False

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.rows, self.columns

    @property
    def exposure(self) -> float | None:
        """Seconds; None where it is not known."""
        return self.facts.exposure

    @property
    def has_unnamed_sip(self) -> bool:
        """Whether the WCS has SIP coefficients that its CTYPE does not name: they are used."""
        header = self.wcs_header or ""
        return "A_ORDER =" in header and "-SIP" not in header

    @property
    def seconds(self) -> float:
        """Exposure time, NaN where it is not known."""
        return math.nan if self.exposure is None else self.exposure

    def read_pixels(self, files: FilePool) -> _Image:
        """Read the frame as float32, (row, column) or (row, column, channel); missing samples are NaN."""
        source = self.source or probe_frame(self.path)
        pixels = source.read_planes(0, source.rows, files).astype(np.float32, copy=False)
        if self.zeros_missing:
            pixels[pixels == 0] = np.nan
        return pixels[0] if source.channels == 1 else np.ascontiguousarray(pixels.transpose(1, 2, 0))

    @property
    def signature(self) -> str:
        """What changes when the file's content does."""
        return (self.digest or os.fspath(self.path.resolve())) + " without zeros" * self.zeros_missing


def inspect_frame(file: FrameFile, by_parent: Callable[[Path], str] = kind_by_parent) -> RawFrame:
    """Return a file as its header describes it; raise `FrameReadError` where it is no frame.

    `by_parent` is as of `kind_by_path`.
    """
    head = head_of(file)
    # What a library decodes says its shape without that.
    source = None if head.foreign else probe_frame(head)
    shape = head.foreign_shape if source is None else (source.rows, source.columns, source.channels)
    pattern, problem = bayer_pattern(head, rows=shape[0], channels=shape[2])
    kind = kind_by_cards(head)
    return RawFrame(
        path=head.path,
        name=head.name,
        rows=shape[0],
        columns=shape[1],
        channels=shape[2],
        kind=kind or kind_by_path(head.path, by_parent) or "light",
        says_kind=bool(kind),
        facts=SensorFacts.of(head),
        date=head.get("DATE-OBS") or "",
        pattern=pattern,
        pattern_problem=problem,
        wcs_header=_wcs_text(head),
        wcs_place=wcs_place(head),
        source=source if source is not None and source.scratch is None else None,
        cards=FitsHeader(b"".join(header.cards for header in (*head.headers[:1], *head.headers[-1:]))).only(KEPT_CARDS),
    )


def bayer_pattern(head: FileHead, *, rows: int, channels: int) -> tuple[str | None, str]:
    """Return the colors of a file's first 2 x 2 pixels, and what is wrong where there is no saying.

    Notes
    -----
    ``BAYERPAT`` (or ``COLORTYP``) names the pattern at the top left as the image is shown, ``XBAYROFF`` and
    ``YBAYROFF`` shift it. Cameras' programs write the top row first (``ROWORDER = 'TOP-DOWN'``, or no card: Seestar,
    ASIAIR); where a file says ``BOTTOM-UP``, the first row of the file is the bottom one, which with an even number of
    rows turns the pattern over. Whatever comes out is checked against the pixels: see `debayer.pattern_problem`.
    """
    given = pattern_by_cards(head)
    if channels != 1 or not given:
        return None, ""
    if given not in BAYER_PATTERNS:
        return None, f"BAYERPAT is {given!r}; expected one of {', '.join(BAYER_PATTERNS)}"
    x, y = (int(head.number(keyword) or 0) for keyword in ("XBAYROFF", "YBAYROFF"))
    if (head.get("ROWORDER") or "").upper() == "BOTTOM-UP":
        y += rows - 1
        return shift_pattern(given, x, y, flipped=True), ""
    return shift_pattern(given, x, y), ""


def shift_pattern(pattern: str, x: int, y: int, *, flipped: bool = False) -> str:
    """Return the pattern whose first pixel is pixel (x, y) of `pattern`; `flipped`: rows run upwards from there."""
    step = -1 if flipped else 1
    return "".join(pattern[2 * ((y + step * row) % 2) + (x + column) % 2] for row in (0, 1) for column in (0, 1))


def _wcs_text(head: FileHead) -> str | None:
    """Return the header as text where it has a celestial WCS that works."""
    if not head.headers or "CTYPE1" not in head.headers[-1] or "CRVAL1" not in head.headers[-1]:
        return None
    from astropy.wcs import WCS  # takes longer than a night's headers; many have none

    try:
        with quiet_astropy():
            header = head.image_header()
            wcs = WCS(header, naxis=2)
            works = wcs.has_celestial and np.all(np.isfinite(wcs.wcs_pix2world([[0.0, 0.0]], 0)))
    except (FrameReadError, ValueError, KeyError, TypeError, OSError, RuntimeError, AttributeError):
        return None
    return header.tostring(sep="", endcard=False, padding=False) if works else None
