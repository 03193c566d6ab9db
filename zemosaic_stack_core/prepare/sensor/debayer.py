"""Colors of a Bayer mosaic: which pixel has which, a check against the pixels themselves, and interpolation.

The interpolation is Malvar, He and Cutler's: linear 5 x 5 filters that add the other colors' curvature to the bilinear
answer. Of the methods measured on undersampled stars (docs/prepare.md) it is the only one that keeps both their flux
and their width; edge-directed methods (Menon 2007, OpenCV's) lose or move up to 10 % of a star's light between colors.

References
----------
H. S. Malvar, L. He, R. Cutler, "High-quality linear interpolation for demosaicing of Bayer-patterned color images",
ICASSP 2004.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from zemosaic_stack_core.prepare.medians import median_of
from zemosaic_stack_core.prepare.sensor.neighbors import bordered, neighbor, run_on_neighbors

_Image = npt.NDArray[np.float32]

_COLORS = "RGB"
# Rows and columns from a pixel to those that its colors are estimated from.
_NEIGHBORS = [(row, column) for row in range(-2, 3) for column in range(-2, 3) if abs(row) + abs(column) <= 2]
# Standard errors.
_SIGNIFICANT = 6.0
# Pixels of a color, of rows all over the frame.
_ENOUGH = 1 << 17
# The wrong diagonal's difference over the right one's.
_CLEARLY = 4.0


def pattern_problem(mosaic: _Image, pattern: str | None) -> str:
    """Return what is wrong with a mosaic's pattern (None: it has none), judged by the sky; empty where nothing is.

    The two greens of a mosaic see the same sky, so their pixels, on one diagonal of each 2 x 2 cell, agree; red and
    blue hardly ever do. A header that puts the greens on the other diagonal is wrong, and a frame whose diagonals
    differ like that without any pattern is a mosaic. (Red and blue in each other's place can't be told from the
    pixels.)
    """
    if min(mosaic.shape) < 2:
        return ""
    levels, errors = _plane_levels(mosaic)
    main, other = abs(levels[0] - levels[3]), abs(levels[1] - levels[2])
    error = float(np.hypot.reduce(errors))
    sky = f"(2 x 2 sky levels {', '.join(f'{v:.0f}' for v in levels)})"
    if pattern is None:
        agree, differ = sorted((main, other))
        apart = abs(levels[0] + levels[3] - levels[1] - levels[2]) / 2
        if differ > _CLEARLY * max(agree, error) and apart > 4 * _SIGNIFICANT * error and apart > agree:
            return (
                f"no BAYERPAT, but the pixels look like a Bayer mosaic {sky}; "
                "expected --bayer-pattern RGGB (or BGGR, GRBG, GBRG), or none for a mono camera"
            )
        return ""
    greens, colors = (main, other) if pattern[0] == "G" else (other, main)
    if greens > _SIGNIFICANT * error and greens > _CLEARLY * max(colors, error):
        found = f"the Bayer pattern {pattern} puts green on pixels that differ {sky}"
        return f"{found}; expected the right one by --bayer-pattern"
    return ""


def _plane_levels(mosaic: _Image) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return the sky of the four pixels of the 2 x 2 cell, and the standard errors."""
    levels, errors = np.zeros(4), np.zeros(4)
    for index in range(4):
        plane = mosaic[index // 2 :: 2, index % 2 :: 2]
        plane = plane[:: max(1, plane.size // _ENOUGH)]
        plane = plane[np.isfinite(plane)].astype(np.float64)
        center = median_of(plane)
        spread = 1.4826 * median_of(np.abs(plane - center)) + 1e-9
        # A median of integers is an integer: the mean of what lies about it is finer.
        inner = plane[np.abs(plane - center) <= 2.5 * spread]
        levels[index], errors[index] = inner.mean(), inner.std() / np.sqrt(inner.size)
    return levels, errors


def debayer(mosaic: _Image, pattern: str, out: _Image | None = None) -> _Image:
    """Return the red, green and blue of a finite mosaic, shape (row, column, 3); measured samples are kept.

    `out` gets their planes, shape (3, row, column).
    """
    if out is None:
        out = np.empty((3, *mosaic.shape), np.float32)
    # About the border pixel: every color meets its own.
    image = bordered(mosaic, 2, by_color=False)
    for rows, found in run_on_neighbors(_estimate, pattern, image, 2, _NEIGHBORS):
        for plane, color in zip(out, _COLORS, strict=True):
            plane[rows] = found[color]
    return out.transpose(1, 2, 0)


def _estimate(xp: Any, column: Any, pattern: str) -> dict[str, Any]:
    """Return the colors of a pixel by the filters for its place of the 2 x 2 cell, on its neighborhood."""

    def at(row: int, offset: int) -> Any:
        return column.whole(neighbor(row, offset))

    center, diagonal = at(0, 0), at(-1, -1) + at(-1, 1) + at(1, -1) + at(1, 1)
    across, along = at(0, -1) + at(0, 1), at(-1, 0) + at(1, 0)
    far_across, far_along = at(0, -2) + at(0, 2), at(-2, 0) + at(2, 0)
    far = far_across + far_along
    # Of a green pixel: the color beside it, the one above it. Of another: green, and the color that is neither.
    by_row = (5 * center + 4 * across - (diagonal + far_across) + far_along / 2) / 8
    by_column = (5 * center + 4 * along - (diagonal + far_along) + far_across / 2) / 8
    green = (4 * center + 2 * (across + along) - far) / 8
    opposite = (6 * center + 2 * diagonal - 1.5 * far) / 8

    def estimate(color: str, row: int, offset: int) -> Any:
        own = pattern[2 * row + offset]
        if color == own:
            return center
        if own == "G":
            return by_row if pattern[2 * row + 1 - offset] == color else by_column
        return green if color == "G" else opposite

    results = {}
    for color in _COLORS:
        even, odd = (
            xp.where(column.whole("is_odd_column"), estimate(color, row, 1), estimate(color, row, 0)) for row in (0, 1)
        )
        results[color] = xp.where(column.whole("is_odd_row"), odd, even)
    return results
