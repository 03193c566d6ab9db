"""The output grid: the reference's pixels, extended until every frame fits on it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from zemosaic_stack_core.errors import InvalidInputError

# Frame areas; more is a wrong place rather than a mosaic.
_LARGEST = 36.0


@dataclass(frozen=True, kw_only=True)
class Canvas:
    """A grid that holds every frame, with its WCS."""

    rows: int
    columns: int
    # Column and row of the reference's first pixel: whole pixels, so that the reference is not interpolated.
    x: int
    y: int
    # Cards as text, 80 characters each; None where no frame has a WCS.
    wcs_header: str | None = None


def union_canvas(borders: Sequence[npt.NDArray[np.float64]], rows: int, columns: int) -> Canvas:
    """Return the smallest canvas on which the centers of all frames' pixels lie; raise where it would be enormous.

    Of each frame of `rows` x `columns`, `borders` has points of its border on the reference's grid, shape (n, 2).
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
