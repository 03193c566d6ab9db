"""All overlaps at once: small corrections of every frame's place, so that stars agree wherever two frames see them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from zemosaic_stack_core.prepare.canvas.geometry import Affine

_Values = npt.NDArray[np.float64]

# Stars of a pair that count: more say no more.
_MOST = 200
# Pixels; stars that lie further apart count less and less.
_ROBUST = 0.3
# Pixels that a center is good to.
_CENTER = 0.05
_ROUNDS = 8


@dataclass(frozen=True, eq=False, kw_only=True)
class Ties:
    """Stars that two frames share: their places on the common plane by either, shape (star, 2) each."""

    first: int
    second: int
    one: _Values
    other: _Values


def adjust(
    ties: Sequence[Ties], centers: _Values, reach: float, reference: int, expected: tuple[float, float]
) -> list[Affine]:
    """Return for every frame the map of the common plane that brings its stars onto the others'.

    `centers` are the frames' on the plane, shape (frame, 2), `reach` is half a frame's diagonal, and `expected` how far
    frames may be shifted, and how far turn, scale and shear may move a corner, pixels: few stars don't twist a frame.

    Notes
    -----
    Least squares over all pairs: ``u + d + M (u - c) / reach``, six numbers a frame, held near zero by what is
    expected, the reference's at zero. Stars that disagree are weighted down (Cauchy), so that one bad pair, which has
    all other overlaps against it, does no harm. x and y have the same matrix.
    """
    count = len(centers)
    prior = np.tile([expected[0] ** -2, expected[1] ** -2, expected[1] ** -2], count)
    prior[3 * reference : 3 * reference + 3] = 1e12
    solution: _Values = np.zeros((3 * count, 2))
    rows = [_rows(tie, centers, reach) for tie in ties]
    for _ in range(_ROUNDS):
        matrix, right = np.diag(prior), np.zeros((3 * count, 2))
        for tie, (ahead, behind, apart) in zip(ties, rows, strict=True):
            a, b = (slice(3 * index, 3 * index + 3) for index in (tie.first, tie.second))
            rest = np.hypot(*(apart + ahead @ solution[a] - behind @ solution[b]).T)
            weight = (_CENTER**-2 / (1 + (rest / _ROBUST) ** 2))[:, np.newaxis]
            matrix[a, a] += (ahead * weight).T @ ahead
            matrix[b, b] += (behind * weight).T @ behind
            matrix[a, b] -= (ahead * weight).T @ behind
            matrix[b, a] -= (behind * weight).T @ ahead
            right[a] -= (ahead * weight).T @ apart
            right[b] += (behind * weight).T @ apart
        now = np.asarray(np.linalg.solve(matrix, right), np.float64)
        is_done = float(np.abs(now - solution).max(initial=0.0)) < 1e-3
        solution = now
        if is_done:
            break
    return [_correction(solution[3 * i : 3 * i + 3], centers[i], reach) for i in range(count)]


def _rows(tie: Ties, centers: _Values, reach: float) -> tuple[_Values, _Values, _Values]:
    """Return the coefficients of both frames' unknowns, shape (star, 3), and how far the stars are apart."""
    step = max(1, len(tie.one) // _MOST)
    one, other = tie.one[::step], tie.other[::step]
    ahead = np.column_stack([np.ones(len(one)), (one - centers[tie.first]) / reach])
    behind = np.column_stack([np.ones(len(other)), (other - centers[tie.second]) / reach])
    return ahead, behind, one - other


def _correction(found: _Values, center: _Values, reach: float) -> Affine:
    """Return the map of a frame's six numbers, shape (3, 2)."""
    linear = np.eye(2) + found[1:].T / reach
    shift = found[0] - (found[1:].T / reach) @ center
    (xx, xy), (yx, yy) = linear.tolist()
    return Affine(xx, xy, float(shift[0]), yx, yy, float(shift[1]))
