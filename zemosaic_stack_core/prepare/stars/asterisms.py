"""Guess how two star lists lie on each other, knowing nothing: triangles that look alike vote for a map.

Every triangle of stars has two numbers that no shift, turn or change of scale alters: the ratios of its sides. Pairs of
triangles with the same ratios each say where the frame would lie; pairs that are alike by chance say a thousand things,
those of the same stars say one. The same orientation means a turned frame, the opposite one a mirrored frame. All of it
is a few operations on arrays, and as quick where nothing fits.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations

import numpy as np
import numpy.typing as npt

from zemosaic_stack_core.prepare.canvas.geometry import Affine, fit_similarity

_Values = npt.NDArray[np.float64]
_Indices = npt.NDArray[np.intp]

# Brightest stars, all of whose triangles are taken: they reach over the frame.
_ALL_OF = 14
# Of every other star, whose triangles with it are taken: they survive where frames overlap a little.
_NEIGHBORS = 6
# In the ratios of sides: half a pixel in a side of 50.
_ALIKE = 0.01
# Side, of the longest.
_SHORTEST = 0.15
# Height over the longest side, of that side: flatter ones have no clear orientation.
_FLATTEST = 0.03
# Pixels, longest side.
_SMALLEST = 15.0
# Of the frame's diagonal: maps whose corners lie nearer to each other agree.
_SAME_PLACE = 0.012
_MOST_PAIRS = 40_000
_LEAST_VOTES = 3
_SCALES = (0.2, 5.0)


@dataclass(frozen=True, eq=False)
class _Triangles:
    """Triangles of a list: corners opposite the longest, middle and shortest side, and their ratios of sides."""

    corners: _Indices
    ratios: _Values
    is_left: npt.NDArray[np.bool_]

    @classmethod
    def of(cls, points: _Values) -> _Triangles:
        """Return the triangles of the brightest stars and of neighbors."""
        corners = _choose(points)
        z = points[:, 0] + 1j * points[:, 1]
        a, b, c = z[corners].T
        sides = np.abs(np.stack([b - c, c - a, a - b], axis=1))
        order = np.argsort(-sides, axis=1)
        sides = np.take_along_axis(sides, order, axis=1)
        corners = np.take_along_axis(corners, order, axis=1)
        good = (sides[:, 0] > _SMALLEST) & (sides[:, 2] > _SHORTEST * sides[:, 0])
        corners, sides = corners[good], sides[good]
        a, b, c = z[corners].T
        area = ((b - a).conj() * (c - a)).imag / sides[:, 0] ** 2
        clear = np.abs(area) > _FLATTEST
        return cls(corners[clear], (sides[:, 1:] / sides[:, :1])[clear], area[clear] > 0)


def _choose(points: _Values) -> _Indices:
    """Return which stars make triangles, shape (triangle, 3), each once."""
    from scipy.spatial import KDTree

    few = min(len(points), _ALL_OF)
    chosen = [np.array(list(combinations(range(few), 3)), np.intp).reshape(-1, 3)]
    near = min(len(points) - 1, _NEIGHBORS)
    if len(points) > few and near >= 2:
        _, found = KDTree(points).query(points, near + 1)
        pairs = np.array(list(combinations(range(1, near + 1), 2)))
        own = np.broadcast_to(found[:, :1], (len(points), len(pairs)))
        triples = np.stack([own, found[:, pairs[:, 0]], found[:, pairs[:, 1]]], axis=-1)
        chosen.append(triples.reshape(-1, 3).astype(np.intp))
    first, second, third = np.sort(np.concatenate(chosen), axis=1).T
    many = len(points)
    # As one number each: rows of an array take NumPy five times as long to sort.
    number = np.unique((first * many + second) * many + third)
    return np.stack([number // many**2, number // many % many, number % many], axis=1)


def asterism_guesses(source: _Values, target: _Values, shape: tuple[int, int], most: int) -> list[tuple[Affine, int]]:
    """Return the maps of a frame of `shape` that most triangles of its stars, (star, 2), agree on, with their votes."""
    if min(len(source), len(target)) < 3:
        return []
    first, second = _Triangles.of(source), _Triangles.of(target)
    pairs = _alike(first, second)
    found: list[tuple[Affine, int]] = []
    for mirrored in (False, True):
        same = (first.is_left[pairs[:, 0]] == second.is_left[pairs[:, 1]]) != mirrored
        alike = first.corners[pairs[same, 0]], second.corners[pairs[same, 1]]
        found += _vote(source, target, alike, shape, most, mirrored=mirrored)
    found.sort(key=lambda guess: -guess[1])
    return found[:most]


def _alike(first: _Triangles, second: _Triangles) -> _Indices:
    """Return pairs of triangles whose ratios of sides agree, shape (pair, 2); the most alike where there are many."""
    from scipy.spatial import KDTree

    if not len(first.ratios) or not len(second.ratios):
        return np.zeros((0, 2), np.intp)
    near = KDTree(first.ratios).sparse_distance_matrix(KDTree(second.ratios), _ALIKE, output_type="ndarray")
    if len(near) > _MOST_PAIRS:
        near = near[np.argsort(near["v"], kind="stable")[:_MOST_PAIRS]]
    return np.column_stack([near["i"], near["j"]]).astype(np.intp)


def _vote(
    source: _Values,
    target: _Values,
    alike: tuple[_Indices, _Indices],
    shape: tuple[int, int],
    most: int,
    *,
    mirrored: bool,
) -> list[tuple[Affine, int]]:
    """Find maps that pairs of triangles, corners of shape (pair, 3) in either list, agree on."""
    from scipy.spatial import KDTree

    first, second = alike
    s, t = source[first] @ np.array([1, -1j if mirrored else 1j]), target[second] @ np.array([1, 1j])
    ds, dt = s - s.mean(axis=1, keepdims=True), t - t.mean(axis=1, keepdims=True)
    turn = (ds.conj() * dt).sum(axis=1) / (np.abs(ds) ** 2).sum(axis=1)
    usable = (np.abs(turn) > _SCALES[0]) & (np.abs(turn) < _SCALES[1])
    if not usable.any():
        return []
    first, second, s, t, turn = first[usable], second[usable], s[usable], t[usable], turn[usable]
    # Where two opposite corners of the frame would go: four numbers in pixels that tell maps apart.
    far = complex(shape[1], -shape[0] if mirrored else shape[0])
    origin = t.mean(axis=1) - turn * s.mean(axis=1)
    ends = np.stack([origin.real, origin.imag, (origin + turn * far).real, (origin + turn * far).imag], axis=1)
    tree = KDTree(ends)
    radius = _SAME_PLACE * abs(far)
    votes = np.asarray(tree.query_ball_point(ends, radius, return_length=True))
    least = _LEAST_VOTES if min(len(source), len(target)) > 6 else 1
    found: list[tuple[Affine, int]] = []
    taken = np.zeros(len(ends), np.bool_)
    for index in np.argsort(-votes, kind="stable"):
        if votes[index] < least or len(found) == most:
            break
        if taken[index]:
            continue
        members = np.asarray(tree.query_ball_point(ends[index], radius), np.intp)
        taken[np.asarray(tree.query_ball_point(ends[index], 2 * radius), np.intp)] = True
        number = np.unique(first[members].reshape(-1) * len(target) + second[members].reshape(-1))
        pairs = np.stack(np.divmod(number, len(target)), axis=1)
        if len(pairs) < 3:
            continue
        # Each star counts as often as it has one partner: a second one is wrong.
        guess = fit_similarity(source[pairs[:, 0]], target[pairs[:, 1]], mirrored=mirrored)
        found.append((guess, int(votes[index])))
    return found
