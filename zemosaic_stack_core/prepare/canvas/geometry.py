"""Where a frame's pixels lie on another grid: `Affine` maps, fitted to pairs of points, and the `Canvas` of all frames.

Places are ``(x, y)`` = (column, row), the center of the first pixel at (0, 0).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from zemosaic_stack_core.errors import InvalidInputError

_Points = npt.NDArray[np.float64]

# Frame areas of a canvas; more is a wrong place rather than a mosaic.
_LARGEST = 36.0


@dataclass(frozen=True)
class Affine:
    """The map ``x' = xx * x + xy * y + x0``, ``y' = yx * x + yy * y + y0``; offsets in pixels."""

    xx: float = 1.0
    xy: float = 0.0
    x0: float = 0.0
    yx: float = 0.0
    yy: float = 1.0
    y0: float = 0.0

    def __call__(self, points: npt.ArrayLike) -> _Points:
        """Map points of shape (n, 2)."""
        given = np.asarray(points, np.float64).reshape(-1, 2)
        return given @ self.linear.T + (self.x0, self.y0)

    @property
    def linear(self) -> _Points:
        """The (2, 2) matrix."""
        return np.array([[self.xx, self.xy], [self.yx, self.yy]])

    @property
    def determinant(self) -> float:
        """Area on the target grid of a pixel of the source; negative where mirrored."""
        return self.xx * self.yy - self.xy * self.yx

    @property
    def scale(self) -> float:
        """Target pixels per source pixel: the root of the area ratio."""
        return math.sqrt(abs(self.determinant))

    @property
    def rotation(self) -> float:
        """Angle that the x axis is turned by, degrees in (-180, 180], positive from x to y."""
        return math.degrees(math.atan2(self.yx, self.xx))

    @property
    def is_mirrored(self) -> bool:
        """Whether left and right change places."""
        return self.determinant < 0

    def inverse(self) -> Affine:
        """Return the map back."""
        inverted = np.asarray(np.linalg.inv(self.linear), np.float64)
        return _affine(inverted, -inverted @ (self.x0, self.y0))

    def then(self, other: Affine) -> Affine:
        """Return the map that does this one first and `other` second."""
        return _affine(other.linear @ self.linear, other.linear @ (self.x0, self.y0) + (other.x0, other.y0))

    def moved(self, x: float, y: float) -> Affine:
        """Return the map to a grid whose origin is shifted: `x` and `y` are added to every place."""
        return Affine(self.xx, self.xy, self.x0 + x, self.yx, self.yy, self.y0 + y)

    def shift_at(self, x: float, y: float) -> tuple[float, float]:
        """Return how far the point moves, pixels in x and y."""
        moved = self([(x, y)])[0]
        return float(moved[0]) - x, float(moved[1]) - y

    def largest_move(self, rows: int, columns: int) -> float:
        """Return how far the corner of a frame that moves most moves, pixels."""
        corners = corners_of(rows, columns)
        return float(np.hypot(*(self(corners) - corners).T).max())


def corners_of(rows: int, columns: int) -> _Points:
    """Return the centers of a frame's corner pixels, shape (4, 2)."""
    return np.array([(0, 0), (columns - 1, 0), (columns - 1, rows - 1), (0, rows - 1)], np.float64)


def fit_similarity(
    source: _Points, target: _Points, weights: _Points | None = None, *, mirrored: bool = False
) -> Affine:
    """Fit shift, rotation and one scale to 2 or more pairs of points, shape (n, 2), by least squares.

    Notes
    -----
    In complex numbers, ``t = a * s + b`` (``conj(s)`` where left and right change places), which is linear in a and b.
    """
    s, t = source[:, 0] + 1j * source[:, 1], target[:, 0] + 1j * target[:, 1]
    if mirrored:
        s = s.conj()
    w = np.ones(len(s)) if weights is None else weights
    total = w.sum()
    s_mean, t_mean = (w * s).sum() / total, (w * t).sum() / total
    ds, dt = s - s_mean, t - t_mean
    a = (w * ds.conj() * dt).sum() / (w * np.abs(ds) ** 2).sum()
    b = t_mean - a * s_mean
    sign = -1.0 if mirrored else 1.0
    return Affine(
        float(a.real), float(-sign * a.imag), float(b.real), float(a.imag), float(sign * a.real), float(b.imag)
    )


def fit_affine(source: _Points, target: _Points, weights: _Points | None = None) -> Affine:
    """Fit all six coefficients by least squares; at least 3 pairs that are not in one line."""
    center = source.mean(axis=0)
    root = np.sqrt(np.ones(len(source)) if weights is None else weights)[:, np.newaxis]
    design = np.column_stack([source - center, np.ones(len(source))])
    solution = np.linalg.lstsq(design * root, target * root, rcond=None)[0]
    linear, offset = solution[:2].T, solution[2]
    return _affine(linear, offset - linear @ center)


def _affine(linear: _Points, offset: _Points) -> Affine:
    """Return the map of a matrix, shape (2, 2), and an offset, shape (2,)."""
    (xx, xy), (yx, yy) = linear.tolist()
    x0, y0 = offset.tolist()
    return Affine(xx, xy, x0, yx, yy, y0)


@dataclass(frozen=True, kw_only=True)
class Canvas:
    """The output grid: the reference's pixels, extended until every frame fits on it, with its WCS."""

    rows: int
    columns: int
    # Column and row of the reference's first pixel: whole pixels, so that the reference is not interpolated.
    x: int = 0
    y: int = 0
    # Cards as text, 80 characters each; None where no frame has a WCS.
    wcs_header: str | None = None


def union_canvas(borders: Sequence[_Points], rows: int, columns: int) -> Canvas:
    """Return the smallest canvas that holds the centers of all pixels of frames of one size.

    Of each frame, `borders` has points of its border on the reference's grid, shape (n, 2).
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
