"""How far two WCS put the pixels of one grid from each other."""

from __future__ import annotations

from typing import Any

import numpy as np

# Pixels. Frames on one grid have one WCS, but for the digits that a header keeps.
MOST_APART = 0.5


def pixels_apart(wcs: Any, other: Any, shape: tuple[int, int]) -> float:
    """Return how far apart two WCS put corners and middle of an image, pixels; 0 where they can't be compared."""
    if wcs is other or not (wcs.pixel_n_dim == other.pixel_n_dim == 2 and wcs.world_n_dim == other.world_n_dim):
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
