"""Two star lists, one map: asterisms give a first guess, all stars refine it, and the evidence decides."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt

from zemosaic_stack_core.prepare.canvas.geometry import Affine, fit_affine, fit_similarity
from zemosaic_stack_core.prepare.stars.asterisms import asterism_guesses
from zemosaic_stack_core.prepare.stars.detect import StarList

_Values = npt.NDArray[np.float64]
_Indices = npt.NDArray[np.intp]

# Pixels within which stars may be partners, round by round.
_RADII = (8.0, 4.0, 2.5, 2.5, 2.5)
# Pixels; a larger residual may be two sets of objects that move differently.
_MIXED = 0.5
# Pixels; pairs whose displacements differ by less move alike.
_ALIKE = 0.75
_LEAST_ALIKE = 5
_AFFINE_STARS = 15
# The affine map must leave less than this part of the similarity's residual.
_AFFINE_GAIN = 0.9
# Robust standard deviation of the logarithm of matched stars' brightness ratios.
_SCATTER = 0.7
# Times its error: such a star is seen in every frame of the same sky.
_BRIGHT = 25.0
# Times the noise; half as bright ones are missed now and then.
_CLEAR = 10.0
# Brightest stars that asterisms are made of, one attempt after the other.
_ASTERISMS = (40, 150)
# Maps that are tried on all stars, per attempt.
GUESSES = 6
# What a match must show to look no further: stars, and their residual in pixels.
_GOOD = (8, 1.0)
_MOST_COMPARED = 600
# Pixels from its border that a star must lie on the other frame to be expected there.
_MARGIN = 6.0


@dataclass(frozen=True, eq=False, kw_only=True)
class StarMatch:
    """How one star list lies on another."""

    # From the source frame's pixels to the target's.
    transform: Affine
    # The partners' indices.
    source: _Indices
    target: _Indices
    # Root mean square distance of partners, weighted as in the fit, pixels.
    residual: float
    # Stars of the poorer list that the other frame must show, and those of them that have a partner.
    overlap: int
    seen: int
    # Partners that two unrelated lists of these numbers would have.
    chance: float
    # Median of target over source flux, and the robust standard deviation of its natural logarithm.
    flux_ratio: float
    flux_scatter: float

    @property
    def stars(self) -> int:
        """Number of matched stars."""
        return len(self.source)

    def problem(self, min_stars: int, max_residual: float, max_scatter: float = _SCATTER) -> str:
        """Return what speaks against this match; empty where nothing does."""
        if self.stars < min_stars:
            return f"{self.stars} matched stars; expected at least {min_stars}"
        if self.residual > max_residual:
            return f"matched stars lie {self.residual:.2f} px apart; expected at most {max_residual:g}"
        if self.stars < 3 + 4 * self.chance + 4 * math.sqrt(self.chance):
            return f"{self.stars} matched stars where chance alone gives {self.chance:.1f}"
        if self.seen < 0.3 * self.overlap:
            return f"only {self.seen} of {self.overlap} stars have a partner"
        if self.flux_scatter > max_scatter:
            return f"brightness of matched stars disagrees (scatter {self.flux_scatter:.2f} in the logarithm)"
        if not 0.2 < self.transform.scale < 5.0:
            return f"scale {self.transform.scale:.3g}; expected 0.2 to 5"
        return ""


def find_match(source: StarList, target: StarList, guesses: int = GUESSES) -> StarMatch | None:
    """Find how `source` lies on `target` without knowing anything; None where no asterism fits.

    Of several guesses the one with the most partners is returned, whatever its `StarMatch.problem`.
    """
    best: StarMatch | None = None
    is_good = False
    for stars in _ASTERISMS:
        found = asterism_guesses(source.points[:stars], target.points[:stars], (source.rows, source.columns), guesses)
        for guess, votes in found:
            if is_good and votes < 0.2 * found[0][1]:
                break
            match = refine_match(source, target, guess)
            if match is not None and (best is None or match.stars > best.stars):
                best, is_good = match, not match.problem(*_GOOD)
        if is_good:
            break
    return best


def refine_match(source: StarList, target: StarList, guess: Affine) -> StarMatch | None:
    """Refine a map on all stars: mutual nearest neighbors, least squares, outliers clipped; None without partners.

    A similarity (shift, rotation, scale) is kept unless an affine map of 15 stars or more leaves clearly smaller
    residuals.
    """
    transform = guess
    last: _Pairs | None = None
    for radius in _RADII:
        near = _partners(source, target, transform, radius)
        if len(near) < 3:
            return None
        if last is not None and np.array_equal(near.first, last.first) and np.array_equal(near.second, last.second):
            break
        last = near
        transform, pairs = near.fit(mirrored=transform.is_mirrored)
        if len(pairs) < 3 or not 0.05 < transform.scale < 20.0:
            return None
    residual = pairs.residual(transform)
    if residual > _MIXED:
        better = _unmixed(pairs, transform)
        if better is not None:
            transform, pairs = better
            residual = pairs.residual(transform)
    if len(pairs) >= _AFFINE_STARS:
        affine, kept = pairs.fit(mirrored=transform.is_mirrored, affine=True)
        tried = kept.residual(affine)
        # Two more unknowns than the similarity always fit a little better: judge per degree of freedom.
        freedom = math.sqrt((2 * len(pairs) - 4) / max(1, 2 * len(kept) - 6))
        if tried * freedom < _AFFINE_GAIN * residual:
            transform, pairs, residual = affine, kept, tried
    return _with_evidence(pairs, transform, residual)


@dataclass(frozen=True, eq=False)
class _Pairs:
    """Partners in two lists, by their indices."""

    source: StarList
    target: StarList
    first: _Indices
    second: _Indices

    def __len__(self) -> int:
        return len(self.first)

    def of(self, which: npt.NDArray[np.bool_] | _Indices) -> _Pairs:
        """Return some of the pairs: a mask, or indices."""
        return replace(self, first=self.first[which], second=self.second[which])

    @cached_property
    def ends(self) -> tuple[_Values, _Values]:
        """Places of the partners in either frame, shape (pair, 2) each."""
        return self.source.points[self.first], self.target.points[self.second]

    @cached_property
    def weights(self) -> _Values:
        """Weights of pairs: centers are as good as the stars are bright, down to a fiftieth of a pixel."""
        variance = np.full(len(self), 2 * 0.02**2)
        for stars, index in ((self.source, self.first), (self.target, self.second)):
            width = stars.fwhm if np.isfinite(stars.fwhm) else 3.0
            variance += (0.6 * width * stars.error[index] / np.maximum(stars.flux[index], 1e-12)) ** 2
        return np.asarray(1.0 / variance)

    def residual(self, transform: Affine) -> float:
        """Return the weighted root mean square distance of partners, pixels."""
        distance = np.hypot(*(transform(self.ends[0]) - self.ends[1]).T)
        return float(np.sqrt((self.weights * distance**2).sum() / self.weights.sum()))

    def fit(self, *, mirrored: bool, affine: bool = False) -> tuple[Affine, _Pairs]:
        """Fit a map; return it and the pairs it is fitted to: those less than four robust deviations apart."""
        (s, t), weights = self.ends, self.weights
        kept = np.ones(len(self), np.bool_)
        transform = Affine()
        for _ in range(6):
            if affine and kept.sum() >= 6:
                transform = fit_affine(s[kept], t[kept], weights[kept])
            else:
                transform = fit_similarity(s[kept], t[kept], weights[kept], mirrored=mirrored)
            distance = np.hypot(*(transform(s) - t).T) * np.sqrt(weights)
            limit = max(4.0 * 0.85 * float(np.median(distance[kept])), 1e-6)  # the median of a Rayleigh variate is 1.18
            now = distance <= max(limit, 3.0)
            if now.sum() < 3 or np.array_equal(now, kept):
                break
            kept = now
        return transform, self.of(kept)


def _unmixed(pairs: _Pairs, transform: Affine) -> tuple[Affine, _Pairs] | None:
    """Follow the largest set of pairs that are displaced alike: a fit to stars and hot pixels lies between both."""
    from scipy.spatial import KDTree

    apart = pairs.ends[1] - transform(pairs.ends[0])
    tree = KDTree(apart)
    votes = np.asarray(tree.query_ball_point(apart, _ALIKE, return_length=True))
    pairs = pairs.of(np.asarray(tree.query_ball_point(apart[np.argmax(votes)], _ALIKE), np.intp))
    for _ in range(3):
        if len(pairs) < _LEAST_ALIKE:
            return None
        transform, _ = pairs.fit(mirrored=transform.is_mirrored)
        pairs = _partners(pairs.source, pairs.target, transform, 2 * _ALIKE)
    transform, kept = pairs.fit(mirrored=transform.is_mirrored)
    return (transform, kept) if len(kept) >= _LEAST_ALIKE else None


def _partners(source: StarList, target: StarList, transform: Affine, radius: float) -> _Pairs:
    """Return the pairs of stars that are each other's nearest, within `radius` target pixels."""
    from scipy.spatial import KDTree

    moved, there = transform(source.points[:_MOST_COMPARED]), target.points[:_MOST_COMPARED]
    if not len(moved) or not len(there):
        nothing = np.zeros(0, np.intp)
        return _Pairs(source, target, nothing, nothing)
    distance, forth = KDTree(there).query(moved, distance_upper_bound=radius)
    _, back = KDTree(moved).query(there)
    near = np.isfinite(distance)
    index = np.arange(len(moved))
    mutual = near & (back[np.where(near, forth, 0)] == index)
    return _Pairs(source, target, index[mutual], forth[mutual].astype(np.intp))


def _with_evidence(pairs: _Pairs, transform: Affine, residual: float) -> StarMatch:
    """Return the match with what speaks for and against it."""
    source, target = pairs.source, pairs.target
    on_target = source.count_on(target, transform, margin=_MARGIN, most=_MOST_COMPARED)
    on_source = target.count_on(source, transform.inverse(), margin=_MARGIN, most=_MOST_COMPARED)
    # A map may pile a whole frame up on a few pixels: the area is the smaller of the two frames', on the target grid.
    area = min(target.rows * target.columns, source.rows * source.columns * abs(transform.determinant))
    given, wanted = source.light_with(target)
    given, wanted = given[pairs.first], wanted[pairs.second]
    positive = (given > 0) & (wanted > 0)  # within a wider aperture a faint star's light may be none
    log_ratio = np.log(wanted[positive] / given[positive]) if positive.any() else np.zeros(1)
    ratio = float(np.exp(np.median(log_ratio)))
    overlap, seen = min(
        _expected(source, target, transform, pairs.first, ratio),
        _expected(target, source, transform.inverse(), pairs.second, 1 / ratio),
    )
    return StarMatch(
        transform=transform,
        source=pairs.first,
        target=pairs.second,
        residual=residual,
        overlap=overlap,
        seen=seen,
        chance=chance_matches(on_target, on_source, area, max(1.0, 3.0 * residual)),
        flux_ratio=ratio,
        flux_scatter=1.4826 * float(np.median(np.abs(log_ratio - np.median(log_ratio)))),
    )


def _expected(
    source: StarList, target: StarList, transform: Affine, partners: _Indices, ratio: float
) -> tuple[int, int]:
    """Return how many stars the other frame must show, by its noise, and how many of these have a partner there."""
    most = slice(_MOST_COMPARED)
    x, y = transform(source.points[most]).T
    must = (x > _MARGIN) & (y > _MARGIN) & (x < target.columns - 1 - _MARGIN) & (y < target.rows - 1 - _MARGIN)
    limit = float(np.median(target.error)) if len(target) else 0.0
    must &= (source.flux[most] > _CLEAR * source.error[most]) & (source.flux[most] * ratio > _CLEAR * limit)
    return int(must.sum()), int(must[partners].sum())


def must_be_seen(source: StarList, target: StarList, transform: Affine, *, margin: float) -> int:
    """Return how many stars are so bright, and so far inside the other frame, that it must show them."""
    if not len(source) or not len(target):
        return 0
    x, y = transform(source.points).T
    inside = (x > margin) & (y > margin) & (x < target.columns - 1 - margin) & (y < target.rows - 1 - margin)
    return int((inside & (source.flux > _BRIGHT * source.error)).sum())


def chance_matches(first: int, second: int, area: float, radius: float) -> float:
    """Return how many partners unrelated stars would have: ``first * second * pi * radius**2 / area``."""
    return min(first, second, first * second * math.pi * radius**2 / max(area, 1.0))
