"""Places by WCS: maps between pixel grids through the sky, and whether to trust them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from zemosaic_stack_core.prepare.canvas.canvas import parse_wcs
from zemosaic_stack_core.prepare.canvas.geometry import Affine, fit_affine
from zemosaic_stack_core.prepare.stars.detect import StarList
from zemosaic_stack_core.prepare.stars.match import refine_match

_Places = npt.NDArray[np.float64]

_STEP = 24  # pixels between nodes; a cubic spline between them is then good to 1e-5 pixel for any usual projection
_BLOCK = 480  # output rows whose nodes are mapped at once
_TRUSTED = 1.0  # pixels that stars may be from where the WCS has them
_ENOUGH_STARS = 10


@dataclass(frozen=True, kw_only=True)
class WcsMap:
    """Where output pixels lie on a frame, by way of the sky; see `resample.PixelMap`.

    Parameters
    ----------
    frame, canvas : str
        Headers of the frame and of the output grid.
    """

    frame: str
    canvas: str

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
            yield rows, *_splines(self.frame, self.canvas, block, columns)


@lru_cache(maxsize=4)
def _splines(frame: str, canvas: str, block: int, columns: int) -> tuple[Any, Any]:
    """Return cubic splines of x and y on the frame over a block of output rows, through nodes mapped by the WCS."""
    from scipy.interpolate import RectBivariateSpline

    rows = np.arange(block * _BLOCK - _STEP, (block + 1) * _BLOCK + 2 * _STEP, _STEP, dtype=np.float64)
    across = np.arange(-_STEP, columns + 2 * _STEP, _STEP, dtype=np.float64)
    grid = np.stack(np.broadcast_arrays(across[np.newaxis, :], rows[:, np.newaxis]), axis=-1).reshape(-1, 2)
    places = pixel_to_pixel(canvas, frame, grid)
    # Nodes that the projection can't reach are far outside.
    places = np.where(np.isfinite(places), places, -1e6).reshape(rows.size, across.size, 2)
    ky = min(3, across.size - 1)
    x, y = (RectBivariateSpline(rows, across, places[..., axis], kx=3, ky=ky) for axis in (0, 1))
    return x, y


def pixel_to_pixel(source: str, target: str, points: _Places) -> _Places:
    """Map points of one header's grid to another's; both in the same celestial frame or in ones astropy can join."""
    from astropy.wcs.utils import pixel_to_pixel as through_the_sky

    x, y = through_the_sky(parse_wcs(source), parse_wcs(target), points[:, 0], points[:, 1])
    return np.column_stack([x, y])


def border_points(frame: str, reference: str, rows: int, columns: int) -> _Places:
    """Return points of a frame's border on the reference's grid."""
    x, y = np.linspace(0, columns - 1, 17), np.linspace(0, rows - 1, 17)
    border = np.concatenate([
        np.column_stack([x, np.zeros(17)]), np.column_stack([x, np.full(17, rows - 1)]),
        np.column_stack([np.zeros(17), y]), np.column_stack([np.full(17, columns - 1), y]),
    ])  # fmt: skip
    return pixel_to_pixel(frame, reference, border)


def wcs_affine(frame: str, reference: str, rows: int, columns: int) -> Affine:
    """Return the affine map that is nearest to the WCS's over the frame: for records and first guesses."""
    x, y = np.meshgrid(np.linspace(0, columns - 1, 9), np.linspace(0, rows - 1, 9))
    points = np.column_stack([x.reshape(-1), y.reshape(-1)])
    return fit_affine(points, pixel_to_pixel(frame, reference, points))


@dataclass(frozen=True, kw_only=True)
class WcsCheck:
    """What the stars say of the frames' WCS.

    Parameters
    ----------
    confirmed, contradicted, silent : int
        Pairs of frames whose stars agree with the WCS to a pixel, don't, or are too few to say.
    median_offset : float
        Of the confirmed pairs, pixels; NaN without one.
    worst : str
        What the first contradiction is; empty without one.
    """

    confirmed: int
    contradicted: int
    silent: int
    median_offset: float
    worst: str


def check_wcs(headers: list[str], lists: list[StarList], names: list[str], reference: int) -> WcsCheck:
    """Compare each frame's WCS with its stars, against the reference and the frame before it.

    Parameters
    ----------
    headers : list of str
        One per frame.
    lists : list of StarList
        One per frame.
    names : list of str
        For messages.
    reference : int
        Index of the reference.
    """
    offsets: list[float] = []
    contradicted = silent = 0
    worst = ""
    for index, stars in enumerate(lists):
        if index == reference:
            continue
        verdict: float | None = None
        for other in dict.fromkeys((reference, max(index - 1, 0))):
            if other == index:
                continue
            expected = wcs_affine(headers[index], headers[other], stars.rows, stars.columns)
            verdict = _offset(stars, lists[other], expected)
            if verdict is not None:
                break
        if verdict is None:
            silent += 1
        elif verdict <= _TRUSTED:
            offsets.append(verdict)
        else:
            contradicted += 1
            found = f"{verdict:.1f} px off" if np.isfinite(verdict) else "not confirmed by any star"
            worst = worst or f"the WCS of {names[index]} is {found}"
    return WcsCheck(
        confirmed=len(offsets), contradicted=contradicted, silent=silent,
        median_offset=float(np.median(offsets)) if offsets else float("nan"), worst=worst,
    )  # fmt: skip


def _offset(source: StarList, target: StarList, expected: Affine) -> float | None:
    """Return how far stars are from where they should be; infinite where none fits, None where there are too few."""
    x, y = expected(source.points).T
    on_target = int(((x > 5) & (y > 5) & (x < target.columns - 6) & (y < target.rows - 6)).sum())
    x, y = expected.inverse()(target.points).T
    on_source = int(((x > 5) & (y > 5) & (x < source.columns - 6) & (y < source.rows - 6)).sum())
    if min(on_target, on_source) < _ENOUGH_STARS:
        return None
    match = refine_match(source, target, expected)
    if match is None or match.problem(6, 1.5):
        return float("inf")
    middle = source.points[match.source]
    return float(np.median(np.hypot(*(match.transform(middle) - expected(middle)).T)))
