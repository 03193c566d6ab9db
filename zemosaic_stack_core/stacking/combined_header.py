"""The header of a stack: the cards of its frames that are true of it, and the exposure of all of them."""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy.typing as npt

from zemosaic_stack_core.errors import FrameReadError
from zemosaic_stack_core.fits.astropy_reads import astropy_reads
from zemosaic_stack_core.fits.cards import parse_real
from zemosaic_stack_core.fits.observing import (
    SHARED_CARDS,
    SHARED_MEASURED,
    SHARED_TEXT,
    Cards,
    ObservingFacts,
    TextCards,
    parse_date,
)
from zemosaic_stack_core.frames.heads import FileHead, read_head
from zemosaic_stack_core.frames.planes import PlanesGiven
from zemosaic_stack_core.options import StackOptions

if TYPE_CHECKING:
    from astropy.io import fits


def _names(text: str) -> frozenset[str]:
    """Return the words of a text."""
    return frozenset(text.split())


_STRUCTURAL = _names(
    "SIMPLE XTENSION BITPIX NAXIS EXTEND PCOUNT GCOUNT GROUPS TFIELDS THEAP BLOCKED EXTNAME EXTVER EXTLEVEL INHERIT "
    "BZERO BSCALE BLANK DATAMIN DATAMAX CHECKSUM DATASUM ZHECKSUM ZDATASUM ZIMAGE ZCMPTYPE ZBITPIX ZBLANK ZQUANTIZ "
    "ZDITHER0 FZALGOR FZTILE FZQVALUE FZQMETHD NEXTEND END"
)
# They were true of one exposure and contradict the stack's own DATE-OBS, DATE-END, DATE-AVG, EXPTIME and EXPTOTAL.
_ONE_EXPOSURE = _names(
    "DATE DATE-OBS DATE-END DATE-AVG DATE-BEG DATE-LOC MJD MJD-OBS MJD-BEG MJD-AVG MJD-END JD JD-OBS JD_UTC JD-HELIO "
    "HJD BJD TIME-OBS TIME-BEG TIME-END TIME-AVG UT UT-OBS UTC UTC-OBS UTSTART TELAPSE XPOSURE EXPTIME EXPTOTAL "
    "TOTALEXP LIVETIME STACKCNT NCOMBINE ALPHAEXT ZSC_FEXP"
)
_MOSAIC = _names("BAYERPAT XBAYROFF YBAYROFF COLORTYP")  # a viewer would debayer a color image again
# Where the telescope pointed, as the grid has it; and what is said of the file, not of the sky.
_OF_THE_GRID = _names(
    "WCSAXES WCSNAME RADESYS RADECSYS EQUINOX EPOCH LONPOLE LATPOLE PLTSOLVD RA DEC OBJCTRA OBJCTDEC BUNIT ROWORDER "
    "COMMENT HISTORY"
)
# Letters of a keyword that is no HIERARCH.
_LONGEST_KEYWORD = 8
# Letters of a list of names in a card.
_LONGEST_LIST = 60
# A keyword and a value, or text without a value; a line without these astropy takes for a keyword.
_STANDARD_CARD = re.compile(r"(?=[A-Z0-9_-]{1,8} *= ).{8}= |HIERARCH [ -~]+= |COMMENT |HISTORY | {8}")
_BOILERPLATE = ("FITS (Flexible Image Transport System)", "and Astrophysics', volume 376")
# Normalizations that multiply a frame.
_SCALING = _names("linear_fit multiplicative additive_scaling")
# Cards of one axis or one column each, numbered.
_AXIS_STEMS = _names("CTYPE CRVAL CRPIX CDELT CUNIT CROTA CNAME")
_STRUCTURAL_STEMS = _names("NAXIS ZNAXIS ZTILE ZNAME ZVAL TTYPE TFORM TUNIT TDIM TNULL TZERO TSCAL")


class _Stacked(Protocol):
    """What of a `StackResult` its header tells; the frames are its records."""

    @property
    def image(self) -> npt.NDArray[Any]: ...
    @property
    def frames(self) -> Sequence[Any]: ...
    @property
    def options(self) -> StackOptions: ...
    @property
    def reference(self) -> int | None: ...
    @property
    def given(self) -> PlanesGiven: ...
    @property
    def unit(self) -> str: ...


def combined_header(result: _Stacked) -> fits.Header:
    """Return the header of a stack: of the reference frame or the first, what is true of all, and their exposure."""
    from astropy.io import fits

    header = fits.Header()
    source = observing_header(result)
    if source is not None:
        copy_cards(header, source, channels=1 if result.image.ndim == 2 else result.image.shape[2])
    complete_matrix(header)
    add_exposure(header, result)
    return header


def reference_header(path: Path, extension: str | None = None) -> fits.Header | None:
    """Return the header of a frame's image, with the primary header's cards that it lacks; None without a header.

    `extension` is that of the image, as `read_head` takes it.

    Raises FrameReadError where the file has no FITS header, or astropy can't read it.
    """
    return _whole_header(read_head(path, extension=extension))


def _whole_header(head: FileHead) -> fits.Header | None:
    """Return the header of an image, with the cards of the primary; see `reference_header`."""
    path = head.path
    if head.is_npy:
        return None
    if not head.headers:
        found = head.problem.partition("; expected")[0] or f"{path}: damaged gzip data"
        raise FrameReadError(f"{found}; expected a FITS header to take the observing cards from")
    # What is wrong with a card is dealt with card by card.
    with astropy_reads(str(path), "a FITS header to take the observing cards from"):
        primary = head.headers[0].to_astropy()
        if len(head.headers) == 1 or not head.has_image:
            return primary
        header = head.image_header()
        header.extend(primary, strip=True, unique=True, update=False)
    return header


def observing_header(result: _Stacked) -> fits.Header | None:
    """Return the header of the reference frame, or of the first frame that has one; None where it can't be read.

    The stack is worth more than the cards.
    """
    frame = first_described(result)
    if frame is None:
        return None
    try:
        mine, header = _described(frame, result.given.image_extension)
    except FrameReadError:
        return None
    if header is not None:
        _drop_differing(header, mine, frame, result)
        _share(header, [frame.observing for frame in _combined(result) if frame.observing is not None])
    return header


def _described(frame: Any, extension: str | None) -> tuple[Cards, fits.Header | None]:
    """Return what a frame says of itself, to be asked, and as a header; of a file or of what was held in memory."""
    if frame.path is None:
        return TextCards(frame.header or {}), _held_header(frame.header or {}, frame.wcs)
    head = read_head(frame.path, extension=extension)
    return head, _whole_header(head)


def _drop_differing(header: fits.Header, mine: Cards, frame: Any, result: _Stacked) -> None:
    """Remove what other frames say otherwise, as far as the first and the last one tell; the grid stays."""
    others = [one for one in _combined(result) if one is not frame and (one.path is not None or one.header)]
    for other in (others[:1] + others[-1:])[: len(others)]:
        if other.path is None:
            its: Cards = TextCards(other.header)
        else:
            head = read_head(other.path, extension=result.given.image_extension)
            if not head.headers:
                continue
            its = head
            _drop_hierarchical(header, head)
        for keyword in {keyword for keyword in header if keyword and not _is_of_the_grid(keyword)}:
            if keyword not in SHARED_CARDS and its.get(keyword) != mine.get(keyword):
                header.remove(keyword, remove_all=True)


def _drop_hierarchical(header: fits.Header, other: FileHead) -> None:
    """Remove cards with keywords in several words, which only astropy reads, that another frame has otherwise."""
    keywords = {keyword for keyword in header if " " in keyword or len(keyword) > _LONGEST_KEYWORD}
    alike: set[str] = set()
    with suppress(FrameReadError), astropy_reads(other.name, "a FITS header"):
        its = _whole_header(other) if keywords else None
        alike = {keyword for keyword in keywords if its is not None and its.get(keyword) == header[keyword]}
    for keyword in keywords - alike:
        header.remove(keyword, remove_all=True)


def _is_of_the_grid(keyword: str) -> bool:
    """Return whether a card may be the reference's own: where the pixels are, and what nothing depends on."""
    stem = keyword.rstrip("0123456789")
    is_wcs = stem in _AXIS_STEMS or re.fullmatch(r"(CD|PC|PV|PS|A|B|AP|BP)_?\d*_\d+|(A|B|AP|BP)_(ORDER|DMAX)", keyword)
    return bool(is_wcs) or keyword in _OF_THE_GRID or keyword in _STRUCTURAL or keyword in _ONE_EXPOSURE


def first_described(result: _Stacked) -> Any:
    """Return the record of the reference frame, or of the first frame that says something of itself; None without."""
    preferred = [] if result.reference is None else [result.frames[result.reference]]
    found = (frame for frame in [*preferred, *result.frames] if frame.path or frame.header or frame.wcs is not None)
    return next(found, None)


def _held_header(cards: Mapping[str, Any], wcs: Any) -> fits.Header:
    """Return the header that a frame in memory has, with the cards of its WCS; what no card can hold is left out."""
    from astropy.io import fits

    header = fits.Header()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if isinstance(cards, fits.Header):
            header.extend(cards, strip=True)
        else:
            for keyword, value in cards.items():
                with suppress(ValueError):
                    header[str(keyword)] = value
        if hasattr(wcs, "to_header"):
            header.update(wcs.to_header(relax=True))
    return header


def copy_cards(target: fits.Header, source: fits.Header, *, channels: int) -> int:
    """Copy the observing and WCS cards of a frame, each exactly as it stands, and return how many were unusable.

    Structural cards, scaling, checksums, data limits and the times of the one exposure stay behind. A card that does
    not follow the standard is repaired where that is unambiguous, and otherwise left out. A mono stack takes no cards
    of a third axis, a color stack no Bayer pattern.
    """
    axes = 2 if channels == 1 else 3
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        copies = [_usable_card(card) for card in source.cards]
        usable = [copy for copy in copies if copy is not None and _is_wanted(copy, axes, channels)]
        # The standard wants WCSAXES before all other WCS cards, which not every camera program knows.
        for copy in sorted(usable, key=lambda copy: not copy.keyword.startswith("WCSAXES")):
            if copy.keyword.startswith("WCSAXES") and isinstance(copy.value, int):
                copy.value = min(copy.value, axes)
            if copy.keyword in ("COMMENT", "HISTORY", "") or copy.keyword not in target:
                target.append(copy, end=True)
    return copies.count(None)


def complete_matrix(header: fits.Header) -> None:
    """Write out the cards of a celestial WCS's matrix that are absent, with the values that the standard gives them.

    ZeMosaic wants all four of ``CDi_j``, or all four of ``PCi_j`` with both ``CDELTi``.
    """
    if not all(str(header.get(f"CTYPE{axis}", "")).strip() for axis in (1, 2)):
        return
    pairs = [(row, column) for row in (1, 2) for column in (1, 2)]
    if any(f"CD{row}_{column}" in header for row, column in pairs):
        absent = {f"CD{row}_{column}": 0.0 for row, column in pairs}
    elif any(f"CROTA{axis}" in header for axis in (1, 2)):
        return  # the older way to say it, which allows no matrix beside it
    else:
        absent = {f"PC{row}_{column}": float(row == column) for row, column in pairs}
        absent |= {f"CDELT{axis}": 1.0 for axis in (1, 2)}
    for keyword, value in absent.items():
        if keyword not in header:
            header[keyword] = (value, "by default of the FITS standard")


def _usable_card(card: fits.Card) -> fits.Card | None:
    """Return a standard copy of a card, or None where there is none."""
    from astropy.io import fits

    is_standard = True
    try:
        card.verify("exception")
    except fits.VerifyError:
        is_standard = False
    try:
        copy = fits.Card.fromstring(card.image)  # asking for the image repairs the card
        copy.verify("exception")
        image, value = copy.image, copy.value
    except (fits.VerifyError, ValueError, TypeError, IndexError, AttributeError):
        return None
    if not _STANDARD_CARD.match(image) or not image.isascii() or isinstance(value, fits.card.Undefined):
        return None
    if not isinstance(value, str) or copy.keyword in ("COMMENT", "HISTORY", ""):
        return copy
    # astropy repairs what it can't read into a string: a number with two points, a quote that is never closed.
    is_bad_date = copy.keyword.startswith("DATE") and parse_date(value) is None
    return copy if is_standard and not is_bad_date else None


def _is_wanted(card: fits.Card, axes: int, channels: int) -> bool:
    """Return whether a card of the frame is true of the stack."""
    keyword = card.keyword
    if keyword in _STRUCTURAL or keyword in _ONE_EXPOSURE or (channels > 1 and keyword in _MOSAIC):
        return False
    if keyword.startswith(("ZSC", "ZMT_", "MT_NFRAMES")):  # a stack of stacks says its own
        return False
    if keyword == "COMMENT":
        return not str(card.value).lstrip().startswith(_BOILERPLATE)
    stem = keyword.rstrip("0123456789")
    digits = keyword[len(stem) :]
    if stem in _STRUCTURAL_STEMS:
        return False
    if stem in _AXIS_STEMS and digits:
        return int(digits) <= axes
    if keyword[:2] in ("CD", "PC", "PV", "PS") and "_" in keyword and keyword[2:].replace("_", "").isdigit():
        indices = [int(index) for index in keyword[2:].split("_") if index]
        return all(index <= axes for index in (indices if keyword[0:2] in ("CD", "PC") else indices[:1]))
    return True


def add_exposure(header: fits.Header, result: _Stacked) -> None:
    """Add NCOMBINE, EXPTIME, EXPTOTAL, DATE-OBS, DATE-END and DATE-AVG, of the frames that are in the image.

    EXPTIME is the exposure that the counts are of: the reference's where frames were brought to its flux, otherwise the
    mean of those that are known, by their weights. EXPTOTAL is the sum of what was exposed. DATE-OBS is the earliest
    start, DATE-END the latest end, DATE-AVG the mean of the middles. What no frame tells is left out.
    STACKCNT and LIVETIME say NCOMBINE and EXPTOTAL again, in Siril's words.
    """
    if result.unit and header.get("BUNIT") != result.unit:
        header["BUNIT"] = (result.unit, "unit of the pixels")
    used = _combined(result)
    known = [frame.observing for frame in used if frame.observing is not None]
    exposures = [facts.exposure for facts in known if facts.exposure is not None]
    filters = list(dict.fromkeys(facts.filter for facts in known if facts.filter))
    if len(filters) > 1:
        header["FILTER"] = (_listed(filters), "of the frames")
    starts = [facts.start for facts in known if facts.start is not None]
    ends = [facts.end for facts in known if facts.end is not None]
    middles = [facts.middle for facts in known if facts.middle is not None]
    header["NCOMBINE"] = (len(used), "frames with a sample in the image")
    header["STACKCNT"] = (len(used), "frames with a sample in the image")
    if exposures:
        total = sum(exposures)
        mean = _reference_exposure(result) or _mean_exposure(used, is_weighted=result.options.combine == "mean")
        if result.options.combine == "sum":
            mean *= len(used)
        header["EXPTIME"] = (mean, "[s] exposure time that the counts are of (mean)")
        header["EXPTOTAL"] = (total, f"[s] sum of the exposure times of {len(exposures)} frames")
        header["LIVETIME"] = (total, "[s] sum of the exposure times")
        if "EXPOSURE" in header:
            header["EXPOSURE"] = (mean, "[s] exposure time that the counts are of (mean)")
    if starts:
        header["DATE-OBS"] = (_date_text(min(starts)), "start of the first exposure")
        header["DATE-END"] = (_date_text(max(ends + starts)), "end of the last exposure")
        header["DATE-AVG"] = (_date_text(_mean(middles)), "mean of the middles of the exposures")


def _mean_exposure(frames: Sequence[Any], *, is_weighted: bool) -> float:
    """Return the mean of the exposures that the frames' counts are of, those that are known, by their weights."""
    total = weights = 0.0
    for frame in frames:
        facts = frame.observing
        seconds = None if facts is None else facts.flux_exposure or facts.exposure
        weight = sum(frame.weight) / len(frame.weight) if is_weighted and frame.weight else 1.0
        if seconds is not None:
            total, weights = total + weight * seconds, weights + weight
    return round(total / weights, 6) if weights else 0.0  # weights are float32


def _reference_exposure(result: _Stacked) -> float | None:
    """Return the exposure of the frame that all others were scaled to; None where none was, or it is not known."""
    if result.reference is None or result.options.normalization not in _SCALING:
        return None
    facts = result.frames[result.reference].observing
    return None if facts is None else facts.flux_exposure or facts.exposure


def _share(header: fits.Header, known: Sequence[ObservingFacts]) -> None:
    """Make cards in which frames differ true of all: text is listed, what was measured has a mean, settings go."""
    rows = [facts.shared for facts in known if facts.shared]
    for keyword, values in zip(SHARED_CARDS, zip(*rows, strict=True), strict=False):
        named = list(dict.fromkeys(value for value in values if value))
        numbers = [parse_real(value) for value in named]
        if len(named) < 2 or (all(map(math.isfinite, numbers)) and len({*numbers}) == 1):
            continue
        if keyword in SHARED_TEXT:
            header[keyword] = (_listed(named), "of the frames")
        elif keyword in SHARED_MEASURED and all(map(math.isfinite, numbers)):
            mean = sum(parse_real(value) for value in values if value) / sum(map(bool, values))
            header[keyword] = (round(mean, 4), "mean of the frames")
        else:
            header.remove(keyword, ignore_missing=True)


def _listed(names: Sequence[str]) -> str:
    """Return names in a text that a card can hold; what is too long is counted."""
    for shown in range(len(names), 0, -1):
        more = f" and {len(names) - shown} more" if shown < len(names) else ""
        text = ",".join(names[:shown]) + more
        if len(text) <= _LONGEST_LIST and text.isascii():
            return text
    return f"{len(names)} different ones"


def _combined(result: _Stacked) -> list[Any]:
    """Return the frames that have a sample in the image."""
    pixels = result.image.size // len(result.frames[0].missing) if result.frames else 0
    gone = [
        [sum(counts) for counts in zip(frame.missing, frame.rejected_low, frame.rejected_high, strict=True)]
        for frame in result.frames
    ]
    if max(map(max, gone), default=0) > pixels:  # counted before the image was cropped
        return [frame for frame in result.frames if any(frame.weight)]
    return [frame for frame, counts in zip(result.frames, gone, strict=True) if min(counts) < pixels]


def _mean(moments: Iterable[datetime]) -> datetime:
    """Return the mean of some dates, to the microsecond."""
    listed = list(moments)
    return listed[0] + sum((moment - listed[0] for moment in listed), timedelta()) / len(listed)


def _date_text(moment: datetime) -> str:
    """Return a date as FITS writes it, to the millisecond where it isn't a whole second."""
    return moment.isoformat(timespec="milliseconds" if moment.microsecond else "seconds")


def combined_wcs(result: _Stacked, header: fits.Header) -> Any:
    """Return the WCS of a stack, as its first frame in memory holds it, or from its header; None without one."""
    frame = first_described(result)
    if frame is not None and frame.wcs is not None:
        return frame.wcs
    if "CTYPE1" not in header:
        return None
    from astropy.wcs import WCS

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of old cards, which are read all the same
        return WCS(header, naxis=2)
