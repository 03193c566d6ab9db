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

import numpy as np
import numpy.typing as npt

_Image = npt.NDArray[np.float32]

_COLORS = "RGB"
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
        center = np.median(plane)
        spread = 1.4826 * np.median(np.abs(plane - center)) + 1e-9
        # A median of integers is an integer: the mean of what lies about it is finer.
        inner = plane[np.abs(plane - center) <= 2.5 * spread]
        levels[index], errors[index] = inner.mean(), inner.std() / np.sqrt(inner.size)
    return levels, errors


def debayer(mosaic: _Image, pattern: str) -> _Image:
    """Return the red, green and blue of a finite mosaic, shape (row, column, 3); measured samples are kept."""
    rows, columns = mosaic.shape
    padded = np.pad(mosaic, 2, mode="reflect")  # about the border pixel: every color meets its own
    out = np.empty((rows, columns, 3), np.float32)
    for index, color in enumerate(pattern):
        top, left = index // 2, index % 2
        near = _Neighbors(padded, top, left, rows, columns)
        target = out[top::2, left::2]
        beside = pattern[2 * top + (1 - left)]  # the color of the pixels to the left and right
        if color == "G":
            other = "B" if beside == "R" else "R"
            target[..., 1] = near.center
            target[..., _COLORS.index(beside)] = near.green_to_beside()
            target[..., _COLORS.index(other)] = near.green_to_above()
        else:
            opposite = "B" if color == "R" else "R"
            target[..., _COLORS.index(color)] = near.center
            target[..., 1] = near.green()
            target[..., _COLORS.index(opposite)] = near.opposite()
    return out


class _Neighbors:
    """Neighborhoods of the pixels of one place in the 2 x 2 cell, and the filters on them."""

    def __init__(self, padded: _Image, top: int, left: int, rows: int, columns: int) -> None:
        self._padded, self._top, self._left, self._rows, self._columns = padded, top, left, rows, columns
        self.center = self._at(0, 0)
        self._across = self._at(0, -1) + self._at(0, 1)
        self._along = self._at(-1, 0) + self._at(1, 0)
        self._diagonal = self._at(-1, -1) + self._at(-1, 1) + self._at(1, -1) + self._at(1, 1)
        self._far_across = self._at(0, -2) + self._at(0, 2)
        self._far_along = self._at(-2, 0) + self._at(2, 0)

    def _at(self, row: int, column: int) -> _Image:
        """Return the pixels that lie so far from those."""
        first_row, first_column = 2 + self._top + row, 2 + self._left + column
        return self._padded[
            first_row : first_row + self._rows - self._top : 2,
            first_column : first_column + self._columns - self._left : 2,
        ]

    def green(self) -> _Image:
        """Green at red or blue."""
        far = self._far_across + self._far_along
        return np.asarray((4 * self.center + 2 * (self._across + self._along) - far) / 8, np.float32)

    def green_to_beside(self) -> _Image:
        """Red or blue at green, from the left and right."""
        far = self._diagonal + self._far_across
        return np.asarray((5 * self.center + 4 * self._across - far + self._far_along / 2) / 8, np.float32)

    def green_to_above(self) -> _Image:
        """Red or blue at green, from above and below."""
        far = self._diagonal + self._far_along
        return np.asarray((5 * self.center + 4 * self._along - far + self._far_across / 2) / 8, np.float32)

    def opposite(self) -> _Image:
        """Red at blue, blue at red."""
        far = self._far_across + self._far_along
        return np.asarray((6 * self.center + 2 * self._diagonal - 1.5 * far) / 8, np.float32)
