"""The output grid: the reference's pixels, extended until every frame fits on it, with its WCS."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from zemosaic_stack_core.errors import InvalidInputError
from zemosaic_stack_core.prepare.canvas.geometry import Affine

if TYPE_CHECKING:
    from astropy.wcs import WCS


_LARGEST = 36.0  # frame areas; more is a wrong place rather than a mosaic


@dataclass(frozen=True, kw_only=True)
class Canvas:
    """A grid that holds every frame.

    Parameters
    ----------
    rows, columns : int
        Size.
    x, y : int
        Column and row of the reference's first pixel: whole pixels, so that the reference is not interpolated.
    wcs_header : str or None
        Cards of the WCS as text, 80 characters each; None where no frame has one.
    """

    rows: int
    columns: int
    x: int
    y: int
    wcs_header: str | None = None


def union_canvas(borders: Sequence[npt.NDArray[np.float64]], rows: int, columns: int) -> Canvas:
    """Return the smallest canvas on which the pixels' centers of all frames lie.

    Parameters
    ----------
    borders : sequence of arrays of shape (n, 2)
        For each frame points of its border (its corners where the map is affine), on the reference's grid.
    rows, columns : int
        Size of every frame.

    Raises
    ------
    InvalidInputError
        The frames lie so far apart that the canvas would be 36 times a frame.
    """
    points = np.concatenate(borders)
    # A corner that is a rounding error outside the reference must not add a row without a sample.
    left, top = (math.ceil(float(v) - 1e-3) for v in points.min(axis=0))
    right, bottom = (math.floor(float(v) + 1e-3) for v in points.max(axis=0))
    height, width = bottom - top + 1, right - left + 1
    if height * width > _LARGEST * rows * columns:
        raise InvalidInputError(
            f"the frames would need a canvas of {height} x {width}; expected at most {_LARGEST:g} times a frame of "
            f"{rows} x {columns}"
        )
    return Canvas(rows=height, columns=width, x=-left, y=-top)


def parse_wcs(header: str) -> WCS:
    """Return the celestial WCS of a header's text."""
    from astropy.io import fits
    from astropy.wcs import WCS

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return WCS(fits.Header.fromstring(header), naxis=2)


def placed_wcs(header: str, transform: Affine) -> str | None:
    """Return the cards of a frame's WCS on the canvas.

    Parameters
    ----------
    header : str
        The frame's header.
    transform : Affine
        From the frame's pixels to the canvas's.

    Returns
    -------
    str or None
        None where the frame has distortion terms and is not merely shifted.
    """
    wcs = parse_wcs(header)
    shifted = abs(transform.xx - 1) + abs(transform.yy - 1) + abs(transform.xy) + abs(transform.yx) < 1e-9
    if not shifted and (wcs.sip is not None or wcs.cpdis1 is not None or wcs.cpdis2 is not None):
        return None
    place = transform([np.asarray(wcs.wcs.crpix) - 1.0])[0] + 1.0
    scale = wcs.pixel_scale_matrix @ np.linalg.inv(transform.linear)
    if shifted:
        wcs.wcs.crpix = place
        if wcs.sip is not None:
            from astropy.wcs import Sip

            wcs.sip = Sip(wcs.sip.a, wcs.sip.b, wcs.sip.ap, wcs.sip.bp, place)
        return str(wcs.to_header(relax=True).tostring(padding=False, endcard=False))
    from astropy.wcs import WCS

    plain = WCS(naxis=2)
    plain.wcs.ctype, plain.wcs.crval, plain.wcs.cunit = list(wcs.wcs.ctype), wcs.wcs.crval, list(wcs.wcs.cunit)
    plain.wcs.radesys, plain.wcs.equinox = wcs.wcs.radesys, wcs.wcs.equinox
    plain.wcs.lonpole, plain.wcs.latpole = wcs.wcs.lonpole, wcs.wcs.latpole
    plain.wcs.crpix, plain.wcs.cd = place, scale
    plain.wcs.set()
    return str(plain.to_header(relax=True).tostring(padding=False, endcard=False))
