"""Results as `CCDData`, and back."""

from __future__ import annotations

from typing import Any

import numpy as np
from astropy.nddata import CCDData, VarianceUncertainty

from zemosaic_stack_core.frames.host_arrays import to_host
from zemosaic_stack_core.master.option_cards import add_provenance, read_options, read_planes_given
from zemosaic_stack_core.stacking.result import FrameRecords, StackResult


def to_ccddata(result: StackResult, unit: Any = None) -> CCDData:
    """Return a stack as `~astropy.nddata.CCDData`, with the options that made it in its header.

    Parameters
    ----------
    result : StackResult
        The stack. With its map ``variance`` the answer has an uncertainty.
    unit : astropy unit, optional
        Its unit; by default that of the frames.

    Returns
    -------
    CCDData
        As `StackResult.to_ccddata` returns it, and with a card for every option.

    Raises
    ------
    InvalidInputError
        The frames have no unit, and none is given.
    """
    ccd = result.to_ccddata(unit)
    add_provenance(ccd.header, result)
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
        unit=str(ccd.unit),
        reference=ccd.header.get("ZSC_REFI"),
        given=read_planes_given(ccd.header),
    )
