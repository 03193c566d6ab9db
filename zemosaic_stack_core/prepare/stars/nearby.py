"""Few stars, a place that is nearly right: the small turn and shift that brings them onto those of all around."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from zemosaic_stack_core.prepare.canvas.geometry import Affine, fit_similarity

if TYPE_CHECKING:
    from scipy.spatial import KDTree

_Values = npt.NDArray[np.float64]

# Pixels and degrees that a place may be off.
_RADIUS, _TURN = 40.0, 3.0
# Degrees between turns that are tried; pixels that stars of one turn may then be displaced differently.
_STEP, _ALIKE = 0.25, 2.5
# Pixels that stars may be from each other in the end.
_NEAR = 0.7
# Stars that must agree: by chance 5 lie so near in one of 10,000 searches among some hundred stars.
_LEAST = 5
# Times the stars that one map brings so near by chance: what the best of many maps does.
_BY_CHANCE = 8.0
# Turns that most stars vote for, and that are then judged.
_TRIED = 6


def nearby_map(points: _Values, others: _Values, center: _Values) -> Affine | None:
    """Return the map of the plane that brings points onto some of the others, shape (star, 2); None where none does.

    Turned about the center step by step; the displacement that most pairs share; then the stars that fit.
    """
    from scipy.spatial import KDTree

    tree, groups, chance = KDTree(others), [], 0.0
    for degrees in np.arange(-_TURN, _TURN + _STEP / 2, _STEP):
        c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
        turned = (points - center) @ np.array([[c, s], [-s, c]]) + center
        near = tree.query_ball_point(turned, _RADIUS)
        first = np.repeat(np.arange(len(points)), [len(found) for found in near])
        second = np.array([index for found in near for index in found], np.intp)
        chance = max(chance, len(first) * (_NEAR / _RADIUS) ** 2)
        if len(first) >= _LEAST:
            displaced = KDTree(others[second] - turned[first])
            votes = displaced.query_ball_point(displaced.data, _ALIKE, return_length=True)
            group = displaced.query_ball_point(displaced.data[np.argmax(votes)], _ALIKE)
            if len({*first[group].tolist()}) >= _LEAST:
                groups.append((first[group], second[group]))
    groups.sort(key=lambda group: -len(group[0]))
    tried = [_refined(points, others, tree, group) for group in groups[:_TRIED]]
    count, found = max(tried, key=lambda one: one[0], default=(0, Affine()))
    return found if count >= _LEAST + int(_BY_CHANCE * chance) else None


def _refined(
    points: _Values, others: _Values, tree: KDTree, group: tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]
) -> tuple[int, Affine]:
    """Return how many stars agree with the map of a group, and the map that is refined on them."""
    found = _rigid(points[group[0]], others[group[1]])
    for radius in (_ALIKE, 2 * _NEAR, _NEAR, _NEAR):
        distance, partner = tree.query(found(points), distance_upper_bound=radius)
        order = np.argsort(distance, kind="stable")
        _, nearest = np.unique(partner[order], return_index=True)
        kept = order[nearest][np.isfinite(distance[order[nearest]])]
        if len(kept) < _LEAST:
            return 0, found
        found = _rigid(points[kept], others[partner[kept]])
    return len(kept), found


def _rigid(source: _Values, target: _Values) -> Affine:
    """Fit turn and shift: the scale of frames that one program solved is the same, and few stars know it less."""
    linear = fit_similarity(source, target).linear
    linear = linear / np.sqrt(np.abs(np.linalg.det(linear)))
    (xx, xy), (yx, yy) = linear.tolist()
    x, y = (target.mean(axis=0) - linear @ source.mean(axis=0)).tolist()
    return Affine(xx, xy, x, yx, yy, y)
