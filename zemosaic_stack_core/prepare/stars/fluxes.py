"""One flux scale for frames of which many share no stars with the reference: from all pairs that do, at once."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from zemosaic_stack_core.prepare.canvas.geometry import Affine
from zemosaic_stack_core.prepare.stars.detect import StarList
from zemosaic_stack_core.prepare.stars.match import StarMatch, refine_match

_Values = npt.NDArray[np.float64]

# Nearest frames that each is compared with, besides the reference.
_NEIGHBORS = 4
_LEAST_STARS = 8
# Of a ratio's logarithm: no flat field is better.
_LEAST_ERROR = 0.002
# How much the air's transparency changes, logarithm.
_USUAL = 0.2


def flux_ratios(
    lists: Sequence[StarList],
    transforms: Sequence[Affine | None],
    reference: int,
    exposures: Sequence[float],
    matches: Mapping[tuple[int, int], StarMatch] | None = None,
) -> list[float]:
    """Return how many times more light the reference's stars give than each frame's; NaN where nothing tells.

    `transforms` go from each frame to the reference, `exposures` are seconds, NaN where not known, and `matches` what
    is known of pairs already.

    Notes
    -----
    Least squares on the logarithms: each pair of frames that share 8 stars or more tells the difference of two,
    weighted by the error of its median; and that of every frame is expected, to 0.2, to be that of the exposure times,
    which ties groups of frames that have no pair in common.
    """
    count = len(lists)
    known = all(math.isfinite(time) and time > 0 for time in exposures)
    usual = np.log([exposures[reference] / time for time in exposures]) if known else np.zeros(count)
    right = usual * _USUAL**-2
    weights: list[float] = []
    pairs: list[tuple[int, int]] = []
    for first, second in overlapping_pairs(lists, transforms, reference):
        one, other = transforms[first], transforms[second]
        if one is None or other is None:
            continue
        match = (matches or {}).get((first, second))
        match = match or refine_match(lists[first], lists[second], one.then(other.inverse()))
        if match is None or match.problem(_LEAST_STARS, 1.5):
            continue
        weight = max(_LEAST_ERROR, 1.25 * match.flux_scatter / math.sqrt(match.stars)) ** -2
        value = math.log(match.flux_ratio)  # of the second over the first: log of first's ratio minus second's
        weights.append(weight)
        pairs.append((first, second))
        right[first] += weight * value
        right[second] -= weight * value
    solution = _solve(count, np.array(pairs, np.intp).reshape(-1, 2), np.array(weights), right)
    linked = np.zeros(count, np.bool_)
    linked[[index for pair in pairs for index in pair]] = True
    ratios = np.exp(solution - solution[reference])
    linked[reference] = True
    return [float(ratio) if is_linked else math.nan for ratio, is_linked in zip(ratios, linked, strict=True)]


def _solve(count: int, pairs: npt.NDArray[np.intp], weights: _Values, right: _Values) -> _Values:
    """Solve for the logarithms: each pair ties two of them, and each is held near what is usual."""
    from scipy.sparse import coo_array, diags_array
    from scipy.sparse.linalg import spsolve

    first, second = pairs.T
    values = np.concatenate([weights, weights, -weights, -weights])
    places = np.concatenate([first, second, first, second]), np.concatenate([first, second, second, first])
    matrix = coo_array((values, places), shape=(count, count)) + diags_array(np.full(count, _USUAL**-2))
    return np.atleast_1d(np.asarray(spsolve(matrix.tocsc(), right), np.float64))


def overlapping_pairs(
    lists: Sequence[StarList], transforms: Sequence[Affine | None], reference: int, neighbors: int = _NEIGHBORS
) -> list[tuple[int, int]]:
    """Return pairs of frames that overlap: each with its nearest, and with the reference."""
    from scipy.spatial import KDTree

    centers = np.full((len(lists), 2), np.inf)
    for index, (stars, transform) in enumerate(zip(lists, transforms, strict=True)):
        if transform is not None and len(stars) >= _LEAST_STARS:
            centers[index] = transform([((stars.columns - 1) / 2, (stars.rows - 1) / 2)])[0]
    there = np.flatnonzero(np.isfinite(centers[:, 0]))
    pairs: set[tuple[int, int]] = set()
    if not there.size:
        return []
    # Of frames at one place any may be the nearest, themselves among them.
    distances, nearest = KDTree(centers[there]).query(centers[there], k=range(1, neighbors + 2))
    for index, apart, others in zip(there.tolist(), distances, nearest, strict=True):
        reach = math.hypot(lists[index].rows, lists[index].columns)
        near = [int(there[i]) for i, distance in zip(others, apart, strict=True) if distance < reach]
        near = [other for other in near if other != index][:neighbors]
        pairs |= {(min(index, other), max(index, other)) for other in (*near, reference) if other != index}
    return sorted(pairs)
