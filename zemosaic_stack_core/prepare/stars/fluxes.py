"""One flux scale for frames of which many share no stars with the reference: from all pairs that do, at once."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from zemosaic_stack_core.prepare.canvas.geometry import Affine
from zemosaic_stack_core.prepare.stars.detect import StarList
from zemosaic_stack_core.prepare.stars.match import refine_match

# Nearest frames that each is compared with, besides the reference.
_NEIGHBORS = 4
_LEAST_STARS = 8
# Of a ratio's logarithm: no flat field is better.
_LEAST_ERROR = 0.002
# How much the air's transparency changes, logarithm.
_USUAL = 0.2


def flux_ratios(
    lists: Sequence[StarList], transforms: Sequence[Affine | None], reference: int, exposures: Sequence[float]
) -> list[float]:
    """Return how many times more light the reference's stars give than each frame's; NaN where nothing tells.

    `transforms` go from each frame to the reference, `exposures` are seconds, NaN where not known.

    Notes
    -----
    Least squares on the logarithms: each pair of frames that share 8 stars or more tells the difference of two,
    weighted by the error of its median; and that of every frame is expected, to 0.2, to be that of the exposure times,
    which ties groups of frames that have no pair in common.
    """
    count = len(lists)
    known = all(math.isfinite(time) and time > 0 for time in exposures)
    usual = np.log([exposures[reference] / time for time in exposures]) if known else np.zeros(count)
    normal, right = np.diag(np.full(count, _USUAL**-2)), usual * _USUAL**-2
    linked = np.zeros(count, np.bool_)
    for first, second in overlapping_pairs(lists, transforms, reference):
        one, other = transforms[first], transforms[second]
        if one is None or other is None:
            continue
        match = refine_match(lists[first], lists[second], one.then(other.inverse()))
        if match is None or match.problem(_LEAST_STARS, 1.5):
            continue
        weight = max(_LEAST_ERROR, 1.25 * match.flux_scatter / math.sqrt(match.stars)) ** -2
        value = math.log(match.flux_ratio)  # of the second over the first: log of first's ratio minus second's
        normal[first, first] += weight
        normal[second, second] += weight
        normal[first, second] -= weight
        normal[second, first] -= weight
        right[first] += weight * value
        right[second] -= weight * value
        linked[[first, second]] = True
    solution = np.linalg.solve(normal, right)
    ratios = np.exp(solution - solution[reference])
    linked[reference] = True
    return [float(ratio) if is_linked else math.nan for ratio, is_linked in zip(ratios, linked, strict=True)]


def overlapping_pairs(
    lists: Sequence[StarList], transforms: Sequence[Affine | None], reference: int
) -> list[tuple[int, int]]:
    """Return pairs of frames that overlap: each with its nearest, and with the reference."""
    centers: npt.NDArray[np.float64] = np.full((len(lists), 2), np.inf)
    for index, (stars, transform) in enumerate(zip(lists, transforms, strict=True)):
        if transform is not None and len(stars) >= _LEAST_STARS:
            centers[index] = transform([((stars.columns - 1) / 2, (stars.rows - 1) / 2)])[0]
    there = np.flatnonzero(np.isfinite(centers[:, 0]))
    pairs: set[tuple[int, int]] = set()
    for index in map(int, there):
        distance = np.hypot(*(centers[there] - centers[index]).T)
        reach = math.hypot(lists[index].rows, lists[index].columns)
        order = np.argsort(distance, kind="stable")[1 : _NEIGHBORS + 1]
        near = [int(there[i]) for i in order if distance[i] < reach]
        pairs |= {(min(index, other), max(index, other)) for other in (*near, reference) if other != index}
    return sorted(pairs)
