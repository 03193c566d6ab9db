"""Places by WCS: maps between pixel grids through the sky, and the canvas's own WCS."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from zemosaic_stack_core.fits.astropy_reads import quiet_astropy
from zemosaic_stack_core.prepare.canvas.geometry import Affine, corners_of
from zemosaic_stack_core.prepare.headers.raw_frame import RawFrame

if TYPE_CHECKING:
    from astropy.wcs import WCS

_Places = npt.NDArray[np.float64]

_NO_CORRECTION = Affine()
# Cards that say where pixels lie on the sky.
_OF_A_GRID = re.compile(
    r"WCSAXES|WCSNAME|(CTYPE|CRVAL|CRPIX|CDELT|CUNIT|CROTA|CNAME|CRDER|CSYER)\d|(CD|PC|PV|PS)\d_\d+|(A|B|AP|BP)_\d_\d|"
    r"(A|B|AP|BP)_(ORDER|DMAX)|RADESYS|EQUINOX|LONPOLE|LATPOLE"
)
# Pixels between nodes; a cubic spline between them is then good to 1e-5 pixel for any usual projection.
_STEP = 24
# Output rows whose nodes are mapped at once.
_BLOCK = 480


@dataclass(frozen=True, kw_only=True)
class WcsMap:
    """Where output pixels lie on a frame, by way of the sky; see `resample.PixelMap`."""

    # Headers of the frame and of the output grid.
    frame: str
    canvas: str
    # What stars have moved the frame by, on the output grid.
    correction: Affine = _NO_CORRECTION

    def places(self, start: int, stop: int, columns: int) -> tuple[_Places, _Places]:
        """Return x and y on the frame of output rows `start` to `stop`."""
        across = np.arange(columns, dtype=np.float64)
        parts = [(x(rows, across), y(rows, across)) for rows, x, y in self._pieces(start, stop, columns)]
        return np.concatenate([x for x, _ in parts]), np.concatenate([y for _, y in parts])

    def areas(self, start: int, stop: int, columns: int) -> _Places:
        """Return the area on the frame of those output pixels."""
        across = np.arange(columns, dtype=np.float64)
        parts = [
            x(rows, across, dy=1) * y(rows, across, dx=1) - x(rows, across, dx=1) * y(rows, across, dy=1)
            for rows, x, y in self._pieces(start, stop, columns)
        ]
        return np.asarray(np.abs(np.concatenate(parts)))

    def _pieces(self, start: int, stop: int, columns: int) -> Iterator[tuple[_Places, Any, Any]]:
        """Yield rows and the splines that hold there: those of fixed blocks, so that bands of any height agree."""
        for block in range(start // _BLOCK, (stop - 1) // _BLOCK + 1):
            rows = np.arange(max(start, block * _BLOCK), min(stop, (block + 1) * _BLOCK), dtype=np.float64)
            yield rows, *_splines(self, block, columns)


@lru_cache(maxsize=4)
def _splines(mapping: WcsMap, block: int, columns: int) -> tuple[Any, Any]:
    """Return cubic splines of x and y on the frame over a block of output rows, through nodes mapped by the WCS."""
    from scipy.interpolate import RectBivariateSpline

    rows = np.arange(block * _BLOCK - _STEP, (block + 1) * _BLOCK + 2 * _STEP, _STEP, dtype=np.float64)
    across = np.arange(-_STEP, columns + 2 * _STEP, _STEP, dtype=np.float64)
    grid = np.stack(np.broadcast_arrays(across[np.newaxis, :], rows[:, np.newaxis]), axis=-1).reshape(-1, 2)
    places = pixel_to_pixel(mapping.canvas, mapping.frame, mapping.correction.inverse()(grid))
    # Nodes that the projection can't reach are far outside.
    places = np.where(np.isfinite(places), places, -1e6).reshape(rows.size, across.size, 2)
    ky = min(3, across.size - 1)
    x, y = (RectBivariateSpline(rows, across, places[..., axis], kx=3, ky=ky) for axis in (0, 1))
    return x, y


def parse_wcs(header: str) -> WCS:
    """Return the celestial WCS of a header's text."""
    from astropy.io import fits
    from astropy.wcs import WCS

    with quiet_astropy():
        return WCS(fits.Header.fromstring(header), naxis=2)


def pixel_to_pixel(source: str, target: str, points: _Places) -> _Places:
    """Map points of one header's grid to another's; both in the same celestial frame or in ones astropy can join."""
    from astropy.wcs.utils import pixel_to_pixel as through_the_sky

    x, y = through_the_sky(parse_wcs(source), parse_wcs(target), points[:, 0], points[:, 1])
    return np.column_stack([x, y])


def border_points(frame: str, reference: str, rows: int, columns: int) -> _Places:
    """Return points of a frame's border on the reference's grid, shape (68, 2)."""
    x, y = np.linspace(0, columns - 1, 17), np.linspace(0, rows - 1, 17)
    across = [np.column_stack([x, np.full(17, row)]) for row in (0, rows - 1)]
    along = [np.column_stack([np.full(17, column), y]) for column in (0, columns - 1)]
    return pixel_to_pixel(frame, reference, np.concatenate([*across, *along]))


def pixels_apart(frames: Sequence[RawFrame], enough: float) -> float:
    """Return how far corners of frames lie from the first's by WCS, pixels (`enough` will do); NaN: unknown."""
    first, apart = frames[0], 0.0
    corners = corners_of(*first.shape)
    for frame in frames[1:]:
        if first.wcs_header is None or frame.wcs_header is None:
            return math.nan
        there = pixel_to_pixel(frame.wcs_header, first.wcs_header, corners)
        # A corner that the first one's projection can't reach is far away.
        apart = max(apart, float(np.nan_to_num(np.hypot(*(there - corners).T), nan=np.inf).max()))
        if apart > enough:
            break
    return apart


def placed_wcs(header: str, to_canvas: Affine) -> str | None:
    """Return the cards of a frame's WCS on the canvas; None where it has distortion terms and is not merely shifted."""
    from astropy.wcs import WCS, Sip

    wcs = parse_wcs(header)
    place = to_canvas([np.asarray(wcs.wcs.crpix) - 1.0])[0] + 1.0
    if abs(to_canvas.xx - 1) + abs(to_canvas.yy - 1) + abs(to_canvas.xy) + abs(to_canvas.yx) < 1e-9:
        wcs.wcs.crpix = place
        if wcs.sip is not None:
            wcs.sip = Sip(wcs.sip.a, wcs.sip.b, wcs.sip.ap, wcs.sip.bp, place)
        with quiet_astropy():
            return _grid_cards(wcs)
    if wcs.sip is not None or wcs.cpdis1 is not None or wcs.cpdis2 is not None:
        return None
    plain = WCS(naxis=2)
    plain.wcs.ctype, plain.wcs.crval, plain.wcs.cunit = list(wcs.wcs.ctype), wcs.wcs.crval, list(wcs.wcs.cunit)
    plain.wcs.radesys, plain.wcs.equinox = wcs.wcs.radesys, wcs.wcs.equinox
    plain.wcs.lonpole, plain.wcs.latpole = wcs.wcs.lonpole, wcs.wcs.latpole
    plain.wcs.crpix, plain.wcs.cd = place, wcs.pixel_scale_matrix @ np.linalg.inv(to_canvas.linear)
    plain.wcs.set()
    return _grid_cards(plain)


def _grid_cards(wcs: WCS) -> str:
    """Return the cards of a WCS, without the dates and places of the frame it was of, which astropy writes too."""
    header = wcs.to_header(relax=True)
    for keyword in [keyword for keyword in header if not _OF_A_GRID.fullmatch(keyword)]:
        header.remove(keyword)
    return str(header.tostring(padding=False, endcard=False))
