"""Results as `CCDData`, and back."""

from __future__ import annotations

from typing import Any

import numpy as np
from astropy.io import fits
from astropy.nddata import CCDData, VarianceUncertainty

from zemosaic_stack_core.errors import InvalidInputError
from zemosaic_stack_core.frames.host_arrays import to_host
from zemosaic_stack_core.master.option_cards import add_provenance, read_options, read_planes_given
from zemosaic_stack_core.stacking.result import FrameRecords, StackResult


def to_ccddata(result: StackResult, like: CCDData | None = None, *, unit: Any = None) -> CCDData:
    """Return a stack as `~astropy.nddata.CCDData`, with the options that made it in its header.

    Parameters
    ----------
    result : StackResult
        The stack. With its map ``variance`` the answer has an uncertainty.
    like : CCDData, optional
        A frame whose header, WCS and unit it takes: the first one, as a rule.
    unit : astropy unit, optional
        Its unit, where `like` has none to give, or another.

    Returns
    -------
    CCDData
        float32, masked where no sample was combined. ``NCOMBINE`` counts the frames with a sample in it.

    Raises
    ------
    InvalidInputError
        There is neither `like` nor `unit`.
    """
    unit = like.unit if unit is None and like is not None else unit
    if unit is None:
        raise InvalidInputError("unit is None without like; expected a unit, such as 'adu', or a CCDData")
    ccd = result.to_ccddata(unit)
    header = fits.Header() if like is None else fits.Header(like.header)
    header["NCOMBINE"] = ccd.meta["NCOMBINE"]
    add_provenance(header, result)
    ccd.header = header
    ccd.wcs = None if like is None else like.wcs
    return ccd


def from_ccddata(ccd: CCDData) -> StackResult:
    """Return the stack that `to_ccddata` made a `~astropy.nddata.CCDData` of, as far as that holds it.

    Parameters
    ----------
    ccd : CCDData
        With the cards of `to_ccddata` or of a master, which ``CCDData.read("master.fits", hdu_uncertainty="VARIANCE")``
        has.

    Returns
    -------
    StackResult
        Image, variance and options. Coverage and the records of the frames are not in it: `read_master` has them.

    Raises
    ------
    FrameReadError
        It has no such cards. As a frame `stack` takes any CCDData.
    """
    options = read_options(ccd.header, "ccd")
    image = to_host(ccd.data, "ccd").astype(np.float32)
    if ccd.mask is not None:
        image[np.broadcast_to(to_host(np.asarray(ccd.mask), "mask"), image.shape)] = np.nan
    variance = None
    if ccd.uncertainty is not None:
        variance = to_host(ccd.uncertainty.represent_as(VarianceUncertainty).array, "uncertainty").astype(np.float32)
    return StackResult(
        image=image,
        variance=variance,
        frames=FrameRecords(),
        backend=str(ccd.header.get("ZSC_BACK", "")),
        options=options,
        reference=ccd.header.get("ZSC_REFI"),
        given=read_planes_given(ccd.header),
    )
