"""When, for how long and through what a frame was taken: the few cards that a stack needs of every frame.

A night has thousands of frames and `astropy.io.fits` takes milliseconds per header, so the cards are picked out of
the first blocks of the file here; nothing else is interpreted.
"""

from __future__ import annotations

import gzip
import os
import re
import zlib
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import BinaryIO, cast

_BLOCK = 2880
_FITS_DATE = re.compile(r"\d{4}-\d\d-\d\d(T\d\d:\d\d|$)")
_MOST_BLOCKS = 400  # a megabyte of header: more is not a header
_KEYWORDS = ("EXPTIME", "EXPOSURE", "DATE-OBS", "DATE-END", "TIME-OBS", "FILTER", "OBJECT", "CTYPE1", "CRVAL1")
_WANTED = {keyword.ljust(8).encode() + b"=": keyword for keyword in (*_KEYWORDS, "NAXIS")}


@dataclass(frozen=True, kw_only=True)
class ObservingFacts:
    """What a frame's header says of the exposure; None where it says nothing usable.

    Parameters
    ----------
    size : int or None
        Size of the file, bytes.
    exposure : float or None
        Exposure time (EXPTIME, else EXPOSURE), seconds, at least 0.
    start, end : datetime or None
        DATE-OBS (with TIME-OBS where it has no time) and DATE-END, without time zone; FITS dates are UTC unless
        TIMESYS says otherwise. Without DATE-END, the end is start plus exposure.
    filter, object : str or None
        FILTER and OBJECT.
    has_wcs : bool
        There are CTYPE1 and CRVAL1 cards.
    """

    size: int | None = None
    exposure: float | None = None
    start: datetime | None = None
    end: datetime | None = None
    filter: str | None = None
    object: str | None = None
    has_wcs: bool = False

    @property
    def middle(self) -> datetime | None:
        """The middle of the exposure; its start where the end is unknown."""
        if self.start is None or self.end is None:
            return self.start
        return self.start + (self.end - self.start) / 2


def observing_facts(path: str | os.PathLike[str]) -> ObservingFacts:
    """Read the observing cards of a frame.

    Of a FITS file (plain or ``.gz``), the primary header counts, then the first extension's where the primary has no
    pixels. A file of any other kind, or one that can't be read, has no facts but its size: whether it is a frame is
    for others to say.

    Parameters
    ----------
    path : path
        The frame's file.
    """
    file_path = Path(path)
    size: int | None = None
    cards: dict[str, str] = {}
    try:
        with file_path.open("rb") as raw:
            size = os.fstat(raw.fileno()).st_size
            is_gzip = raw.read(2) == b"\x1f\x8b"
            raw.seek(0)
            cards = _cards(cast("BinaryIO", gzip.GzipFile(fileobj=raw)) if is_gzip else raw)
    except (OSError, EOFError, zlib.error):
        pass
    exposure = _seconds(cards.get("EXPTIME"))
    if exposure is None:
        exposure = _seconds(cards.get("EXPOSURE"))
    start = parse_date(cards.get("DATE-OBS"), cards.get("TIME-OBS"))
    end = parse_date(cards.get("DATE-END"))
    if start is not None and (end is None or end < start):
        end = start + timedelta(seconds=exposure) if exposure is not None else None
    return ObservingFacts(
        size=size,
        exposure=exposure,
        start=start,
        end=end,
        filter=cards.get("FILTER") or None,
        object=cards.get("OBJECT") or None,
        has_wcs="CTYPE1" in cards and "CRVAL1" in cards,
    )


def _cards(file: BinaryIO) -> dict[str, str]:
    """Return the wanted cards of the first header, and of the second where the first has no pixels."""
    cards: dict[str, str] = {}
    if file.read(8) != b"SIMPLE  ":
        return cards
    file.seek(0)
    for _ in range(2):
        found = _next_header(file)
        for keyword, value in found.items():
            cards.setdefault(keyword, value)
        if found.get("NAXIS") != "0":
            break
    return cards


def _next_header(file: BinaryIO) -> dict[str, str]:
    """Read one header and return its wanted cards."""
    cards: dict[str, str] = {}
    for _ in range(_MOST_BLOCKS):
        block = file.read(_BLOCK)
        for start in range(0, len(block), 80):
            key = block[start : start + 9]
            if key == b"END      ":
                return cards
            keyword = _WANTED.get(key)
            if keyword is not None:
                cards.setdefault(keyword, _value(block[start + 9 : start + 80].decode("latin-1").strip()))
        if len(block) < _BLOCK:
            break
    return cards


def _value(field: str) -> str:
    """Return a card's value without quotes and comment."""
    if not field.startswith("'"):
        return field.split("/", 1)[0].strip()
    return field[1:].replace("''", "\0").split("'", 1)[0].replace("\0", "'").strip()


def _seconds(value: str | None) -> float | None:
    """Return a finite time that is not negative."""
    try:
        seconds = float((value or "").upper().replace("D", "E"))
    except ValueError:
        return None
    return seconds if 0.0 <= seconds < 1e9 else None


def parse_date(date: str | None, time: str | None = None) -> datetime | None:
    """Return a FITS date, or None where it is not one.

    Parameters
    ----------
    date : str or None
        ``YYYY-MM-DD``, ``YYYY-MM-DDThh:mm:ss[.s]`` or the old ``DD/MM/YY``; a time zone is converted to UTC.
    time : str or None
        Time of the day, used where `date` has none.
    """
    text = (date or "").strip()
    if len(text) == 8 and text[2:6:3] == "//":  # before 1999: the years were 19YY
        text = f"19{text[6:]}-{text[3:5]}-{text[:2]}"
    if len(text) == 10 and time and time.strip():
        text = f"{text}T{time.strip()}"
    if not _FITS_DATE.match(text):  # fromisoformat takes more: weeks, dates without dashes
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    if not 1850 <= moment.year <= 2999:  # a camera without a clock; and date arithmetic stays far from its limits
        return None
    return moment if moment.tzinfo is None else moment.astimezone(UTC).replace(tzinfo=None)
