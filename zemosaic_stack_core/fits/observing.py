"""When, for how long and through what a frame was taken: the few cards that a stack needs of every frame."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol

from zemosaic_stack_core.fits.cards import parse_real

_FITS_DATE = re.compile(r"\d{4}-\d\d-\d\d(T\d\d:\d\d|$)")

_EXPOSURE_CARDS = ("EXPTIME", "EXPOSURE", "EXP_TIME", "EXPOSUR", "EXP-TIME", "EXPOTIME", "ITIME", "INTTIME")
_TIME = re.compile(
    r"\s*(\d*\.?\d+(?:\.?[ed][+-]?\d+)?|\d+\.)(?:/(\d*\.?\d*[1-9]\d*))?\s*"
    r"(ms|milliseconds?|s|sec\.?|secs|seconds?|m|min\.?|minutes?|h|hours?)?\s*",
    re.IGNORECASE,
)
# Card of an aligned frame that was scaled to another's flux: the exposure that its counts are of.
FLUX_EXPOSURE = "ZSC_FEXP"
# What a camera or a mount writes of itself: true of a stack where it is of all its frames. Text first, then settings,
# then what is measured and has a mean.
SHARED_TEXT = ("FILTER", "INSTRUME", "CAMERA", "TELESCOP", "DETECTOR", "OBJECT", "OBSERVER", "READOUTM", "PIERSIDE")
SHARED_SETTINGS = (
    *("GAIN", "EGAIN", "ISOSPEED", "OFFSET", "BLKLEVEL", "XBINNING", "YBINNING", "SET-TEMP", "FOCALLEN", "FOCRATIO"),
    *("APTDIA", "APERTURE", "XPIXSZ", "YPIXSZ"),
)
SHARED_MEASURED = ("CCD-TEMP", "DET-TEMP", "AMBTEMP", "AIRMASS", "FOCTEMP", "HUMIDITY", "PRESSURE", "DEWPOINT")
SHARED_CARDS = (*SHARED_TEXT, *SHARED_SETTINGS, *SHARED_MEASURED)
# Modified Julian date 0.
_MJD_0 = datetime(1858, 11, 17)
_UNITS = {
    **dict.fromkeys(("ms", "millisecond", "milliseconds"), 1e-3),
    **dict.fromkeys(("", "s", "sec", "sec.", "secs", "second", "seconds"), 1.0),
    **dict.fromkeys(("m", "min", "min.", "minute", "minutes"), 60.0),
    **dict.fromkeys(("h", "hour", "hours"), 3600.0),
}


@dataclass(frozen=True, kw_only=True)
class ObservingFacts:
    """What a frame's header says of the exposure; None where it says nothing usable."""

    # Of the file, bytes.
    size: int | None = None
    # EXPTIME, EXPOSURE or another of its usual cards, seconds, at least 0.
    exposure: float | None = None
    # DATE-OBS (with TIME-OBS where it has no time) and DATE-END, without time zone; FITS dates are UTC unless TIMESYS
    # says otherwise. Without DATE-END, the end is start plus exposure.
    start: datetime | None = None
    end: datetime | None = None
    filter: str | None = None
    object: str | None = None
    # There are CTYPE1 and CRVAL1 cards.
    has_wcs: bool = False
    # The exposure, seconds, that the counts are of where the frame was scaled to another's flux.
    flux_exposure: float | None = None
    # Values of `SHARED_CARDS`, in that order; empty without a header.
    shared: tuple[str | None, ...] = field(default=(), repr=False)

    @property
    def middle(self) -> datetime | None:
        """The middle of the exposure; its start where the end is unknown."""
        if self.start is None or self.end is None:
            return self.start
        return self.start + (self.end - self.start) / 2


class Cards(Protocol):
    """A header: `FitsHeader`, or what a frame in memory has for one."""

    def get(self, keyword: str, /) -> str | None:
        """Return a card's value as text, None without it."""
        ...


@dataclass(frozen=True, slots=True)
class TextCards:
    """A mapping of keywords, its values as text."""

    values: Mapping[str, Any]

    def get(self, keyword: str) -> str | None:
        """Return a value as text, None without one."""
        value = self.values.get(keyword)
        return None if value is None else str(value)


# Of a file without a header.
NO_FACTS = ObservingFacts()


def observing_facts(headers: Sequence[Cards], size: int | None) -> ObservingFacts:
    """Return what headers tell of the exposure: the primary header, then the last, which is the image's.

    `size` is that of the file, bytes. Of no header there are no facts but the size.
    """
    both = headers[:1] if len(headers) < 2 else (headers[0], headers[-1])

    def get(keyword: str) -> str | None:
        for header in both:
            if (value := header.get(keyword)) is not None:
                return value
        return None

    times = (_seconds(get(keyword)) for keyword in _EXPOSURE_CARDS)
    exposure = next((time for time in times if time is not None), None)
    start = parse_date(get("DATE-OBS"), get("TIME-OBS")) or parse_date(get("DATE-BEG")) or _of_mjd(get("MJD-OBS"))
    end = parse_date(get("DATE-END"))
    if start is not None and (end is None or end < start):
        end = start + timedelta(seconds=exposure) if exposure is not None else None
    return ObservingFacts(
        size=size,
        exposure=exposure,
        start=start,
        end=end,
        filter=get("FILTER") or None,
        object=get("OBJECT") or None,
        has_wcs=get("CTYPE1") is not None and get("CRVAL1") is not None,
        flux_exposure=_seconds(get(FLUX_EXPOSURE)),
        # One object for the same text of many frames.
        shared=tuple(value and sys.intern(value) for value in map(get, SHARED_CARDS)) if both else (),
    )


def _of_mjd(value: str | None) -> datetime | None:
    """Return a modified Julian date of our times, None where it is none."""
    days = parse_real(value or "")
    return _MJD_0 + timedelta(days=days) if 10_000.0 < days < 200_000.0 else None


def _seconds(value: str | None) -> float | None:
    """Return a finite time that is not negative, as a number or as text: ``300,0``, ``300 s``, ``5 min``, ``1/60``."""
    match = _TIME.fullmatch((value or "").replace(",", "."))
    if match is None:
        return None
    seconds = parse_real(match[1]) * _UNITS[(match[3] or "").casefold()] / (parse_real(match[2]) if match[2] else 1.0)
    return seconds if 0.0 <= seconds < 1e9 else None


def parse_date(date: str | None, time: str | None = None) -> datetime | None:
    """Return a FITS date, or None where it is not one.

    ``YYYY-MM-DD``, ``YYYY-MM-DDThh:mm:ss[.s]`` or the old ``DD/MM/YY``; a time zone is converted to UTC. `time` is that
    of the day, used where `date` has none.
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
