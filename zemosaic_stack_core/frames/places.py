"""Where the pixels of frames lie on the sky, and how far two WCS put them from each other."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

from zemosaic_stack_core.frames.heads import FileHead

# Pixels. Frames on one grid have one WCS, but for the digits that a header keeps.
MOST_APART = 0.5
# Cards that tell one WCS from another; none of them is written otherwise for frames on one grid.
_PLACE = ("CTYPE1", "CRVAL1", "CRVAL2", "CRPIX1", "CRPIX2", "CDELT1", "CD1_1", "CD1_2", "PC1_1", "PC1_2", "CROTA2")


def place_of(head: FileHead) -> tuple[str | None, ...]:
    """Return what tells a file's WCS from another; empty where it has none."""
    return tuple(map(head.get, _PLACE)) if head.observing.has_wcs else ()


def wcs_of(head: FileHead) -> Any:
    """Return the WCS of a file's image, None where it can't be read."""
    from astropy.wcs import WCS

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return WCS(head.image_header(), naxis=2)
    except (ValueError, TypeError, KeyError):  # wcslib's errors are ValueErrors
        return None


def pixels_apart(wcs: Any, other: Any, shape: tuple[int, int]) -> float:
    """Return how far apart two WCS put corners and middle of an image, pixels; 0 where they can't be compared."""
    if wcs is other or wcs is None or other is None:
        return 0.0
    if not (wcs.pixel_n_dim == other.pixel_n_dim == 2 and wcs.world_n_dim == other.world_n_dim):
        return 0.0
    rows, columns = shape
    x = np.array([0.0, columns - 1, 0.0, columns - 1, (columns - 1) / 2])
    y = np.array([0.0, 0.0, rows - 1, rows - 1, (rows - 1) / 2])
    here, there = (np.array(one.pixel_to_world_values(x, y)) for one in (wcs, other))
    along_x, along_y = (np.array(other.pixel_to_world_values(x + dx, y + dy)) for dx, dy in ((1, 0), (0, 1)))
    full = np.array([360.0 if unit == "deg" else np.inf for unit in other.world_axis_units])[:, None]
    step = np.hypot(_difference(along_x, there, full), _difference(along_y, there, full))
    with np.errstate(all="ignore"):
        apart = np.abs(_difference(here, there, full)) / step
    return float(np.max(apart, initial=0.0, where=np.isfinite(apart)))


def _difference(one: Any, other: Any, full: Any) -> Any:
    """Return a difference of world coordinates; of angles the short way round a full turn."""
    apart = one - other
    return np.where(np.isfinite(full), apart - np.round(apart / 360.0) * 360.0, apart)
