"""All overlaps at once: small corrections of every frame's place, so that stars agree wherever two frames see them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from zemosaic_stack_core.prepare.canvas.geometry import Affine

if TYPE_CHECKING:
    from scipy.sparse import coo_array

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

    @classmethod
    def of(cls, first: int, second: int, one: _Values, other: _Values) -> Ties:
        """Return the ties of stars, of some where they are many."""
        some = slice(None, None, max(1, len(one) // _MOST))
        return cls(first=first, second=second, one=one[some].copy(), other=other[some].copy())


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
    from scipy.sparse import diags_array
    from scipy.sparse.linalg import spsolve

    count = len(centers)
    solution: _Values = np.zeros((3 * count, 2))
    for _ in range(_ROUNDS):
        matrix, right = _normal_equations(ties, centers, reach, solution)
        # The reference stays where it is.
        free = np.flatnonzero(np.arange(3 * count) // 3 != reference)
        prior = diags_array(np.tile([expected[0] ** -2, expected[1] ** -2, expected[1] ** -2], count))
        now = np.zeros_like(solution)
        if free.size:
            now[free] = spsolve((matrix + prior).tocsc()[free][:, free], right[free])
        is_done = float(np.abs(now - solution).max(initial=0.0)) < 1e-3
        solution = now
        if is_done:
            break
    return [_correction(solution[3 * i : 3 * i + 3], centers[i], reach) for i in range(count)]


def _normal_equations(
    ties: Sequence[Ties], centers: _Values, reach: float, solution: _Values
) -> tuple[coo_array, _Values]:
    """Return the matrix, which has blocks where two frames share stars, and the right sides for x and y."""
    from scipy.sparse import coo_array

    blocks, places = [], []
    right = np.zeros_like(solution)
    for tie in ties:
        ahead, behind, apart = _rows(tie, centers, reach)
        a, b = 3 * tie.first, 3 * tie.second
        rest = np.hypot(*(apart + ahead @ solution[a : a + 3] - behind @ solution[b : b + 3]).T)
        weight = (_CENTER**-2 / (1 + (rest / _ROBUST) ** 2))[:, np.newaxis]
        ahead_weighed, behind_weighed = (ahead * weight).T, (behind * weight).T
        across = ahead_weighed @ behind
        blocks += [ahead_weighed @ ahead, behind_weighed @ behind, -across, -across.T]
        places += [(a, a), (b, b), (a, b), (b, a)]
        right[a : a + 3] -= ahead_weighed @ apart
        right[b : b + 3] += behind_weighed @ apart
    values = np.array(blocks).reshape(-1, 3, 3)
    first, second = np.array(places, np.int32).reshape(-1, 2).T
    rows, columns = np.broadcast_arrays(
        first[:, np.newaxis, np.newaxis] + np.arange(3)[:, np.newaxis], second[:, np.newaxis, np.newaxis] + np.arange(3)
    )
    size = len(solution)
    return coo_array((values.reshape(-1), (rows.reshape(-1), columns.reshape(-1))), shape=(size, size)), right


def _rows(tie: Ties, centers: _Values, reach: float) -> tuple[_Values, _Values, _Values]:
    """Return the coefficients of both frames' unknowns, shape (star, 3), and how far the stars are apart."""
    one, other = tie.one, tie.other
    ahead = np.column_stack([np.ones(len(one)), (one - centers[tie.first]) / reach])
    behind = np.column_stack([np.ones(len(other)), (other - centers[tie.second]) / reach])
    return ahead, behind, one - other


def _correction(found: _Values, center: _Values, reach: float) -> Affine:
    """Return the map of a frame's six numbers, shape (3, 2)."""
    linear = np.eye(2) + found[1:].T / reach
    shift = found[0] - (found[1:].T / reach) @ center
    (xx, xy), (yx, yy) = linear.tolist()
    return Affine(xx, xy, float(shift[0]), yx, yy, float(shift[1]))
