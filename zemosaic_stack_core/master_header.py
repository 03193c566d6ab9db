"""The cards of a master tile: the reference frame's, the exposure's, and how the image came about.

Cards that say how (``_OPTION_CARDS`` has one for each field of `StackOptions`):

==========  ==============================================  ==========  ==============================================
card        value                                           card        value
==========  ==============================================  ==========  ==============================================
ZSC_VERS    version of this software                        ZSC_ALGO    version of the numeric definition
ZSC_BACK    backend that made the image                     ZSC_REFI    index of the reference frame (0 = first)
ZSC_NHDU    number of HDUs in the file                      ZSC_NFRM    frames given, rows of FRAMES
ZSC_REJ     rejection                                       ZSC_KLO     kappa_low
ZSC_KHI     kappa_high                                      ZSC_ITER    max_iterations
ZSC_CENT    center                                          ZSC_PLO     p_low
ZSC_PHI     p_high                                          ZSC_NLO     n_low
ZSC_NHI     n_high                                          ZSC_WINS    winsor_limits, ``[low, high]``
ZSC_GAIN    gain                                            ZSC_RDN     read_noise
ZSC_SENS    sensitivity                                     ZSC_OUTF    outlier_fraction
ZSC_ALPH    alpha                                           ZSC_COMB    combine
ZSC_NORM    normalization                                   ZSC_REF     reference as asked (index or "auto")
ZSC_UNNO    on_unnormalizable                               ZSC_WGHT    weighting
ZSC_SIGN    signature of inputs and options (by caller)     ZSC_SKIP    unusable cards of the reference left out
NCOMBINE    frames with a sample in the image               EXPTOTAL    sum of their exposure times, seconds
==========  ==============================================  ==========  ==============================================
"""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import FrameReadError
from .observing import ObservingFacts, parse_date
from .options import StackOptions
from .result import FrameRecord, StackResult

if TYPE_CHECKING:
    from astropy.io import fits

__all__ = [
    "ALGORITHM",
    "TileFacts",
    "add_exposure",
    "add_provenance",
    "add_tile",
    "copy_cards",
    "read_options",
    "reference_header",
]

ALGORITHM = "1"
"""Version of the numeric definition: raised whenever the same input and options give other bits."""

# Kept to 8 characters; a field that is not listed here still gets a card, HIERARCH ZSC <FIELD>.
_OPTION_CARDS = {
    "rejection": ("ZSC_REJ", "rule of rejection"),
    "kappa_low": ("ZSC_KLO", "bound below, units of the spread"),
    "kappa_high": ("ZSC_KHI", "bound above, units of the spread"),
    "max_iterations": ("ZSC_ITER", "iterations of a repeated rule at most"),
    "center": ("ZSC_CENT", "center of kappa_sigma"),
    "p_low": ("ZSC_PLO", "percentile_clip, fraction below"),
    "p_high": ("ZSC_PHI", "percentile_clip, fraction above"),
    "n_low": ("ZSC_NLO", "minmax, samples at the low end"),
    "n_high": ("ZSC_NHI", "minmax, samples at the high end"),
    "winsor_limits": ("ZSC_WINS", "winsorized_quantile, fractions"),
    "gain": ("ZSC_GAIN", "noise_clip, electrons per data unit"),
    "read_noise": ("ZSC_RDN", "noise_clip, electrons"),
    "sensitivity": ("ZSC_SENS", "noise_clip, fraction of the signal"),
    "outlier_fraction": ("ZSC_OUTF", "gesd, fraction of outliers at most"),
    "alpha": ("ZSC_ALPH", "gesd, significance level"),
    "combine": ("ZSC_COMB", "combination of the kept samples"),
    "normalization": ("ZSC_NORM", "normalization of the frames"),
    "reference": ("ZSC_REF", "reference frame as asked"),
    "on_unnormalizable": ("ZSC_UNNO", "frames that can't be normalized"),
    "weighting": ("ZSC_WGHT", "weight of the frames"),
}


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
    "TOTALEXP LIVETIME STACKCNT NCOMBINE ALPHAEXT"
)
_MOSAIC = _names("BAYERPAT XBAYROFF YBAYROFF COLORTYP")  # a viewer would debayer a color image again
# A keyword and a value, or text without a value; a line without these astropy takes for a keyword.
_STANDARD_CARD = re.compile(r"(?=[A-Z0-9_-]{1,8} *= ).{8}= |HIERARCH [ -~]+= |COMMENT |HISTORY | {8}")
_BOILERPLATE = ("FITS (Flexible Image Transport System)", "and Astrophysics', volume 376")
_KAPPA_RULES = _names("kappa_sigma mad_clip winsorized_sigma_clip winsorized_quantile linear_fit_clip noise_clip")
# Cards of one axis or one column each, numbered.
_AXIS_STEMS = _names("CTYPE CRVAL CRPIX CDELT CUNIT CROTA CNAME")
_STRUCTURAL_STEMS = _names("NAXIS ZNAXIS ZTILE ZNAME ZVAL TTYPE TFORM TUNIT TDIM TNULL TZERO TSCAL")


@dataclass(frozen=True, kw_only=True)
class TileFacts:
    """What a mosaic program wants to know of a master tile.

    Parameters
    ----------
    tile_id : int or str
        Its name in the run.
    raw_frames : int
        Frames in the group before any was dropped.
    aligned_frames : int or None
        Frames that could be aligned; None means the frames that were stacked.
    kind : str
        Value of ZMT_TYPE.
    """

    tile_id: int | str
    raw_frames: int
    aligned_frames: int | None = None
    kind: str = "Master Tile"


def reference_header(path: Path) -> fits.Header | None:
    """Return the header of a frame's image, with the primary header's cards that it lacks; None without a header.

    Raises
    ------
    FrameReadError
        The file is named as FITS and astropy can't read it.
    """
    if path.suffix.lower() == ".npy":
        return None
    from astropy.io import fits

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what is wrong with a card is dealt with card by card
            with fits.open(path, memmap=True, lazy_load_hdus=True, ignore_missing_simple=True) as hdus:
                primary = hdus[0].header
                for hdu in hdus:
                    if hdu.is_image and hdu.header.get("NAXIS", 0) >= 2:
                        header: fits.Header = hdu.header.copy()
                        if hdu is not hdus[0]:
                            header.extend(primary, strip=True, unique=True, update=False)
                        return header
                return primary.copy()
    except (OSError, ValueError, TypeError, KeyError, fits.VerifyError) as error:
        raise FrameReadError(f"{path}: {error}; expected a FITS header to take the observing cards from") from error


def copy_cards(target: fits.Header, source: fits.Header, *, channels: int) -> int:
    """Copy the observing and WCS cards of a frame, each exactly as it stands, and return how many were unusable.

    Structural cards, scaling, checksums, data limits and the times of the one exposure stay behind. A card that does
    not follow the standard is repaired where that is unambiguous, and otherwise left out.

    Parameters
    ----------
    target, source : astropy.io.fits.Header
        Header to append to; header of the frame.
    channels : int
        Channels of the stack; a mono stack takes no cards of a third axis, a colour stack no Bayer pattern.
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


def add_provenance(header: fits.Header, result: StackResult) -> None:
    """Add the cards that say what software made the image, how, and with which options."""
    from importlib import metadata  # 15 ms that reading options does not need

    try:
        version = metadata.version("zemosaic-stack-core")
    except metadata.PackageNotFoundError:  # used from its folder, not installed
        version = "unknown"
    header["ZSC_VERS"] = (version, "zemosaic-stack-core version")
    header["ZSC_ALGO"] = (ALGORITHM, "version of the numeric definition")
    header["ZSC_BACK"] = (result.backend, "backend that made the image")
    header["ZSC_NFRM"] = (len(result.frames), "frames given")
    if result.reference is not None:
        header["ZSC_REFI"] = (result.reference, "index of the reference frame, from 0")
    for field in fields(StackOptions):
        keyword, comment = _option_card(field.name)
        header[keyword] = (_to_card(getattr(result.options, field.name)), comment)


def _option_card(field: str) -> tuple[str, str]:
    """Return keyword and comment of an option's card."""
    return _OPTION_CARDS.get(field, (f"HIERARCH ZSC {field.upper()}", ""))


def _to_card(value: Any) -> Any:
    """Return a value that a card can hold and that comes back equal."""
    if isinstance(value, float):
        # A card's number has room for 20 characters; the few doubles that need more go as text.
        return value if len(repr(value)) <= 20 else repr(value)
    return value if isinstance(value, (str, bool, int)) else json.dumps(value)


def read_options(header: fits.Header, name: str) -> StackOptions:
    """Return the options that a master tile was made with.

    Raises
    ------
    FrameReadError
        The header has no options: not a master tile of this program.
    InvalidInputError
        An option's value is not one that this version knows.
    """
    if "ZSC_REJ" not in header:
        raise FrameReadError(f"{name}: no ZSC_REJ card; expected a master tile written by zemosaic-stack-core")
    values: dict[str, Any] = {}
    for field in fields(StackOptions):
        keyword = _option_card(field.name)[0].removeprefix("HIERARCH ")
        if keyword in header:
            values[field.name] = _from_card(header[keyword], field.default)
    return StackOptions(**values)


def _from_card(value: Any, default: Any) -> Any:
    """Undo `_to_card`; the default of the field tells what kind of value it is."""
    if isinstance(default, float) and not isinstance(value, bool):
        return float(value)
    if isinstance(value, str) and not isinstance(default, str):
        decoded = json.loads(value)
        return tuple(decoded) if isinstance(decoded, list) else decoded
    return value


def add_exposure(header: fits.Header, result: StackResult, facts: Sequence[ObservingFacts | None]) -> None:
    """Add NCOMBINE, EXPTIME, EXPTOTAL, DATE-OBS, DATE-END and DATE-AVG, of the frames that are in the image.

    EXPTIME is the mean exposure of the frames whose exposure is known, EXPTOTAL their sum. DATE-OBS is the earliest
    start, DATE-END the latest end, DATE-AVG the mean of the middles. What no frame tells is left out.
    STACKCNT and LIVETIME say NCOMBINE and EXPTOTAL again, in Siril's words.
    """
    pixels = result.image.size // len(result.frames[0].missing) if result.frames else 0
    used = [index for index, frame in enumerate(result.frames) if _is_combined(frame, pixels)]
    known = [fact for index in used if index < len(facts) and (fact := facts[index]) is not None]
    exposures = [fact.exposure for fact in known if fact.exposure is not None]
    starts = [fact.start for fact in known if fact.start is not None]
    ends = [fact.end for fact in known if fact.end is not None]
    middles = [fact.middle for fact in known if fact.middle is not None]
    header["NCOMBINE"] = (len(used), "frames with a sample in the image")
    header["STACKCNT"] = (len(used), "frames with a sample in the image")
    if exposures:
        total = sum(exposures)
        header["EXPTIME"] = (total / len(exposures), "[s] exposure time of a frame (mean)")
        header["EXPTOTAL"] = (total, f"[s] sum of the exposure times of {len(exposures)} frames")
        header["LIVETIME"] = (total, "[s] sum of the exposure times")
        if "EXPOSURE" in header:
            header["EXPOSURE"] = (total / len(exposures), "[s] exposure time of a frame (mean)")
    if starts:
        header["DATE-OBS"] = (_date_text(min(starts)), "start of the first exposure")
        header["DATE-END"] = (_date_text(max(ends + starts)), "end of the last exposure")
        header["DATE-AVG"] = (_date_text(_mean(middles)), "mean of the middles of the exposures")


def _is_combined(frame: FrameRecord, pixels: int) -> bool:
    """Return whether a frame has a sample in the image."""
    gone = zip(frame.missing, frame.rejected_low, frame.rejected_high, strict=True)
    return any(sum(counts) < pixels for counts in gone)


def _mean(moments: Iterable[datetime]) -> datetime:
    """Return the mean of some dates, to the microsecond."""
    listed = list(moments)
    return listed[0] + sum((moment - listed[0] for moment in listed), timedelta()) / len(listed)


def _date_text(moment: datetime) -> str:
    """Return a date as FITS writes it, to the millisecond where it isn't a whole second."""
    return moment.isoformat(timespec="milliseconds" if moment.microsecond else "seconds")


def add_tile(header: fits.Header, result: StackResult, tile: TileFacts) -> None:
    """Add ZeMosaic's cards; of the options only those that acted. Names above 8 characters become HIERARCH cards."""
    options = result.options
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # astropy warns of each HIERARCH card; the names are the readers' choice
        header["ZMT_TYPE"] = (tile.kind, "ZeMosaic processed tile")
        header["ZMT_ID"] = (tile.tile_id, "master tile ID")
        header["ZMT_NRAW"] = (tile.raw_frames, "frames in the group")
        aligned = len(result.frames) if tile.aligned_frames is None else tile.aligned_frames
        header["ZMT_NALGN"] = (aligned, "aligned frames")
        header["MT_NFRAMES"] = (header["NCOMBINE"], "frames in the image")
        header["ZMT_NORM"] = (options.normalization, "normalization")
        header["ZMT_WGHT"] = (options.weighting, "weighting")
        header["ZMT_REJ"] = (options.rejection, "rejection")
        if options.rejection in _KAPPA_RULES:
            header["ZMT_KAPLO"] = (options.kappa_low, "kappa low")
            header["ZMT_KAPHI"] = (options.kappa_high, "kappa high")
        if options.rejection == "winsorized_quantile":
            header["ZMT_WINLO"] = (options.winsor_limits[0], "winsor limit low")
            header["ZMT_WINHI"] = (options.winsor_limits[1], "winsor limit high")
        header["ZMT_COMB"] = (options.combine, "combination")
