"""The cards of a master that say how it was made, and the options read back from them.

Each field of `StackOptions` has one, which says "null" for None:

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
ZSC_RADF    radial_feather_fraction                         ZSC_RADP    radial_shape_power
ZSC_RADL    radial_floor                                    ZSC_GROW    grow_radius
ZSC_GRSZ    grow_min_size                                   ZSC_ERRS    errors
ZSC_BELW    reject_below                                    ZSC_ABOV    reject_above
ZSC_STSC    statistics_section
ZSC_IEXT    extension with the frames' images
ZSC_MASK    extension that masked the frames                ZSC_DQB     its bits that count
ZSC_VEXT    extension with the frames' variances            ZSC_ARRS    planes given as arrays
ZSC_SIGN    signature of inputs and options (by caller)     ZSC_SKIP    unusable cards of the reference left out
NCOMBINE    frames with a sample in the image               EXPTOTAL    sum of their exposure times, seconds
==========  ==============================================  ==========  ==============================================
"""

from __future__ import annotations

import json
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from zemosaic_stack_core.errors import FrameReadError
from zemosaic_stack_core.frames.planes import PlanesGiven
from zemosaic_stack_core.options import StackOptions
from zemosaic_stack_core.stacking.result import StackResult

if TYPE_CHECKING:
    from astropy.io import fits


# Version of the numeric definition: raised whenever the same input and options give other bits.
ALGORITHM = "2"

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
    "grow_radius": ("ZSC_GROW", "growth of rejected clusters, pixels"),
    "grow_min_size": ("ZSC_GRSZ", "samples of a cluster that grows"),
    "reject_below": ("ZSC_BELW", "samples below it, as read, are missing"),
    "reject_above": ("ZSC_ABOV", "samples above it, as read, are missing"),
    "statistics_section": ("ZSC_STSC", "part of the frames that was measured"),
    "errors": ("ZSC_ERRS", "where the samples' variances come from"),
    "combine": ("ZSC_COMB", "combination of the kept samples"),
    "normalization": ("ZSC_NORM", "normalization of the frames"),
    "reference": ("ZSC_REF", "reference frame as asked"),
    "on_unnormalizable": ("ZSC_UNNO", "frames that can't be normalized"),
    "weighting": ("ZSC_WGHT", "weight of the frames"),
    "radial_feather_fraction": ("ZSC_RADF", "radial weight, fraction of the way out"),
    "radial_shape_power": ("ZSC_RADP", "radial weight, exponent"),
    "radial_floor": ("ZSC_RADL", "radial weight, least"),
}

# Keyword, field of `PlanesGiven`, and comment.
_PLANE_CARDS = (
    ("ZSC_IEXT", "image_extension", "extension of each frame with its image"),
    ("ZSC_MASK", "mask_extension", "extension of each frame that masks it"),
    ("ZSC_DQB", "dq_bits", "its bits that count"),
    ("ZSC_VEXT", "variance_extension", "extension of each frame with variances"),
    ("ZSC_ZERO", "zeros_missing", "exact zeros of the frames are missing"),
)
_ARRAYS_CARD = "ZSC_ARRS"


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
    _add_planes(header, result.given)


def _add_planes(header: fits.Header, given: PlanesGiven) -> None:
    """Add the cards that say where masks, weights and variances of samples came from."""
    for keyword, field, comment in _PLANE_CARDS:
        value = getattr(given, field)
        if value is not None:
            header[keyword] = (value, comment)
    if given.arrays:
        header[_ARRAYS_CARD] = (",".join(given.arrays), "planes given as arrays")


def read_planes_given(header: fits.Header) -> PlanesGiven:
    """Return where the masks, weights and variances of samples of a master came from."""
    arrays = str(header.get(_ARRAYS_CARD, ""))
    return PlanesGiven(
        **{field: header.get(keyword) for keyword, field, _ in _PLANE_CARDS},
        arrays=tuple(arrays.split(",")) if arrays else (),
    )


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
    """Return the options that a master was made with; `name` is the file's, for messages.

    Raises FrameReadError where the header has no options, InvalidInputError where this version knows no such value.
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
    """Return the value that `_to_card` was given; the default of the field tells what kind of value it is."""
    if isinstance(default, float) and not isinstance(value, bool) and value != _to_card(None):
        return float(value)
    if isinstance(value, str) and not isinstance(default, str):
        try:
            decoded = json.loads(value)
        except ValueError:  # text, of a field without a default: no section of an image is JSON
            return value
        return tuple(decoded) if isinstance(decoded, list) else decoded
    return value
