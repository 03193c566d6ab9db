"""Lights in a row: an airplane's strobes, each as round as a star, that the shape of none gives away."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

_Values = npt.NDArray[np.float64]
_Mask = npt.NDArray[np.bool_]

# Brightest stars that a row is sought among, and of each the nearest that it may begin with.
_BRIGHTEST = 200
_NEAREST = 3
# Pixels from the middle of a row to its side and to its ends.
_HALF_WIDTH = 1.5
_REACH = 300.0
# Stars of a row above those that chance puts there, and above so many deviations of their number.
_LEAST = 6
_SIGMAS = 5.0
# Rows at most; more are a grid of stars, which somebody made.
_ROWS = 6


def lie_in_rows(points: _Values, shape: tuple[int, int]) -> _Mask:
    """Return which stars, brightest first, shape (star, 2), lie in rows that no sky has."""
    from scipy.spatial import KDTree

    in_row = np.zeros(len(points), np.bool_)
    for _ in range(_ROWS):
        left = np.flatnonzero(~in_row)
        bright = points[left[:_BRIGHTEST]]
        if len(bright) < _LEAST + _NEAREST:
            return in_row
        _, nearest = KDTree(bright).query(bright, _NEAREST + 1)
        start = np.repeat(bright, _NEAREST, axis=0)
        along = bright[nearest[:, 1:].reshape(-1)] - start
        along /= np.maximum(np.hypot(*along.T), 1e-9)[:, np.newaxis]
        members = _strip(bright, start, along)
        counts = members.sum(axis=1)
        best = int(np.argmax(counts))
        length = min(2 * _REACH, math.hypot(*shape))
        chance = len(bright) * 2 * _HALF_WIDTH * length / (shape[0] * shape[1])
        if counts[best] < _LEAST + chance + _SIGMAS * math.sqrt(chance):
            return in_row
        # The pair that it began with tells its direction less well than all of them do.
        row = bright[members[best]]
        middle = row.mean(axis=0)
        direction = np.linalg.svd(row - middle, full_matrices=False)[2][0]
        found = np.abs((points[left] - middle) @ (direction[1], -direction[0])) < _HALF_WIDTH
        in_row[left[found]] = True
    return np.zeros(len(points), np.bool_)


def _strip(points: _Values, start: _Values, along: _Values) -> _Mask:
    """Return which points, shape (line, point), lie near each line that goes through `start`."""
    apart = points - start[:, np.newaxis]
    beside = apart[..., 0] * along[:, 1:] - apart[..., 1] * along[:, :1]
    ahead = apart[..., 0] * along[:, :1] + apart[..., 1] * along[:, 1:]
    return np.asarray((np.abs(beside) < _HALF_WIDTH) & (np.abs(ahead) < _REACH))
