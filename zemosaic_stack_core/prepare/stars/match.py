"""Two star lists, one map: asterisms give a first guess, all stars refine it, and the evidence decides."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from zemosaic_stack_core.prepare.canvas.geometry import Affine, fit_affine, fit_similarity
from zemosaic_stack_core.prepare.stars.asterisms import asterism_guesses
from zemosaic_stack_core.prepare.stars.detect import StarList

_Values = npt.NDArray[np.float64]
_Indices = npt.NDArray[np.intp]

_RADII = (8.0, 4.0, 2.5)  # pixels within which stars may be partners, round by round
_MIXED = 0.5  # pixels; a larger residual may be two sets of objects that move differently
_ALIKE = 0.75  # pixels
_LEAST_ALIKE = 5
_AFFINE_STARS = 15
_AFFINE_GAIN = 0.9  # the affine map must leave less than this part of the similarity's residual
_ASTERISMS = (40, 150)  # brightest stars that asterisms are made of, one attempt after the other
GUESSES = 6  # maps that are tried on all stars, per attempt
_MOST_COMPARED = 600


@dataclass(frozen=True, eq=False, kw_only=True)
class StarMatch:
    """How one star list lies on another.

    Parameters
    ----------
    transform : Affine
        From the source frame's pixels to the target's.
    source, target : array of int
        The partners' indices.
    residual : float
        Root mean square distance of partners, weighted as in the fit, pixels.
    overlap : int
        Stars of the poorer list that lie on the other frame.
    chance : float
        Partners that two unrelated lists of these numbers would have.
    flux_ratio : float
        Median of target over source flux.
    flux_scatter : float
        Robust standard deviation of the logarithm of that ratio (natural logarithm).
    is_affine : bool
        Whether axes differ in scale or are not at right angles.
    """

    transform: Affine
    source: _Indices
    target: _Indices
    residual: float
    overlap: int
    chance: float
    flux_ratio: float
    flux_scatter: float
    is_affine: bool

    @property
    def stars(self) -> int:
        """Number of matched stars."""
        return len(self.source)

    def problem(self, min_stars: int, max_residual: float) -> str:
        """Say what speaks against this match; empty where nothing does."""
        if self.stars < min_stars:
            return f"{self.stars} matched stars; expected at least {min_stars}"
        if self.residual > max_residual:
            return f"matched stars lie {self.residual:.2f} px apart; expected at most {max_residual:g}"
        if self.stars < 3 + 4 * self.chance + 4 * math.sqrt(self.chance):
            return f"{self.stars} matched stars where chance alone gives {self.chance:.1f}"
        if self.stars < 0.3 * self.overlap:
            return f"only {self.stars} of {self.overlap} stars have a partner"
        if self.flux_scatter > 0.7:
            return f"brightness of matched stars disagrees (scatter {self.flux_scatter:.2f} in the logarithm)"
        if not 0.2 < self.transform.scale < 5.0:
            return f"scale {self.transform.scale:.3g}; expected 0.2 to 5"
        return ""


def find_match(source: StarList, target: StarList, guesses: int = GUESSES) -> StarMatch | None:
    """Find how `source` lies on `target` without knowing anything; None where no asterism fits.

    Of several guesses the one with the most partners is returned, whatever the evidence is worth: see
    `StarMatch.problem`.
    """
    best: StarMatch | None = None
    for stars in _ASTERISMS:
        found = asterism_guesses(source.points[:stars], target.points[:stars], (source.rows, source.columns), guesses)
        for guess, votes in found:
            if best is not None and not best.problem(8, 1.0) and votes < 0.2 * found[0][1]:
                break
            match = refine_match(source, target, guess)
            if match is not None and (best is None or match.stars > best.stars):
                best = match
        if best is not None and not best.problem(8, 1.0):
            break
    return best


def refine_match(source: StarList, target: StarList, guess: Affine) -> StarMatch | None:
    """Refine a map on all stars: mutual nearest neighbors, least squares, outliers clipped; None without partners.

    A similarity (shift, rotation, scale) is kept unless an affine map of 15 stars or more leaves clearly smaller
    residuals.
    """
    transform, is_affine = guess, False
    first = second = np.zeros(0, np.intp)
    for radius in (*_RADII, _RADII[-1], _RADII[-1]):
        first, second = _partners(source, target, transform, radius)
        if len(first) < 3:
            return None
        transform, kept = _robust_fit(source, target, first, second, mirrored=transform.is_mirrored, affine=is_affine)
        first, second = first[kept], second[kept]
        if len(first) < 3 or not 0.05 < transform.scale < 20.0:
            return None
    weights = _weights(source, target, first, second)
    residual = _residual(source, target, first, second, transform, weights)
    if residual > _MIXED:
        better = _unmixed(source, target, first, second, transform)
        if better is not None:
            transform, first, second = better
            weights = _weights(source, target, first, second)
            residual = _residual(source, target, first, second, transform, weights)
    if len(first) >= _AFFINE_STARS:
        affine, kept = _robust_fit(source, target, first, second, mirrored=transform.is_mirrored, affine=True)
        tried = _residual(source, target, first[kept], second[kept], affine, weights[kept])
        # Two more unknowns than the similarity always fit a little better: judge per degree of freedom.
        freedom = math.sqrt((2 * len(first) - 4) / max(1, 2 * int(kept.sum()) - 6))
        if tried * freedom < _AFFINE_GAIN * residual:
            transform, is_affine, first, second, residual = affine, True, first[kept], second[kept], tried
    return _with_evidence(source, target, transform, first, second, residual, is_affine=is_affine)


def _unmixed(
    source: StarList, target: StarList, first: _Indices, second: _Indices, transform: Affine
) -> tuple[Affine, _Indices, _Indices] | None:
    """Follow the largest set of pairs that are displaced alike: a fit to stars and hot pixels lies between both."""
    from scipy.spatial import KDTree

    apart = target.points[second] - transform(source.points[first])
    tree = KDTree(apart)
    votes = np.asarray(tree.query_ball_point(apart, _ALIKE, return_length=True))
    members = np.asarray(tree.query_ball_point(apart[np.argmax(votes)], _ALIKE), np.intp)
    for _ in range(3):
        if len(members) < _LEAST_ALIKE:
            return None
        first, second = first[members], second[members]
        transform, kept = _robust_fit(source, target, first, second, mirrored=transform.is_mirrored, affine=False)
        first, second = _partners(source, target, transform, 2 * _ALIKE)
        members = np.arange(len(first))
    transform, kept = _robust_fit(source, target, first, second, mirrored=transform.is_mirrored, affine=False)
    return (transform, first[kept], second[kept]) if kept.sum() >= _LEAST_ALIKE else None


def _partners(source: StarList, target: StarList, transform: Affine, radius: float) -> tuple[_Indices, _Indices]:
    """Return the pairs of stars that are each other's nearest, within `radius` target pixels."""
    from scipy.spatial import KDTree

    moved, there = transform(source.points[:_MOST_COMPARED]), target.points[:_MOST_COMPARED]
    if not len(moved) or not len(there):
        return np.zeros(0, np.intp), np.zeros(0, np.intp)
    distance, forth = KDTree(there).query(moved, distance_upper_bound=radius)
    _, back = KDTree(moved).query(there)
    near = np.isfinite(distance)
    index = np.arange(len(moved))
    mutual = near & (back[np.where(near, forth, 0)] == index)
    return index[mutual], forth[mutual].astype(np.intp)


def _weights(source: StarList, target: StarList, first: _Indices, second: _Indices) -> _Values:
    """Return weights of pairs: centers are as good as the stars are bright, down to a fiftieth of a pixel."""
    variance = np.full(len(first), 2 * 0.02**2)
    for stars, index in ((source, first), (target, second)):
        width = stars.fwhm if np.isfinite(stars.fwhm) else 3.0
        variance += (0.6 * width * stars.error[index] / np.maximum(stars.flux[index], 1e-12)) ** 2
    return np.asarray(1.0 / variance)


def _robust_fit(
    source: StarList, target: StarList, first: _Indices, second: _Indices, *, mirrored: bool, affine: bool
) -> tuple[Affine, npt.NDArray[np.bool_]]:
    """Fit a map, leaving out pairs more than four robust deviations apart."""
    s, t, weights = source.points[first], target.points[second], _weights(source, target, first, second)
    kept = np.ones(len(first), np.bool_)
    transform = Affine()
    for _ in range(6):
        fit = fit_affine(s[kept], t[kept], weights[kept]) if affine and kept.sum() >= 6 else fit_similarity(
            s[kept], t[kept], weights[kept], mirrored=mirrored)  # fmt: skip
        transform = fit
        distance = np.hypot(*(transform(s) - t).T) * np.sqrt(weights)
        limit = max(4.0 * 0.85 * float(np.median(distance[kept])), 1e-6)  # the median of a Rayleigh variate is 1.18
        now = distance <= max(limit, 3.0)
        if now.sum() < 3 or np.array_equal(now, kept):
            break
        kept = now
    return transform, kept


def _residual(
    source: StarList, target: StarList, first: _Indices, second: _Indices, transform: Affine, weights: _Values
) -> float:
    """Return the weighted root mean square distance of partners, pixels."""
    distance = np.hypot(*(transform(source.points[first]) - target.points[second]).T)
    return float(np.sqrt((weights * distance**2).sum() / weights.sum()))


def _inside(stars: StarList, transform: Affine, other: StarList) -> npt.NDArray[np.bool_]:
    """Tell which stars lie on the other frame, a few pixels inside its border."""
    x, y = transform(stars.points[:_MOST_COMPARED]).T
    margin = 6.0
    return np.asarray((x > margin) & (y > margin) & (x < other.columns - 1 - margin) & (y < other.rows - 1 - margin))


def _with_evidence(
    source: StarList, target: StarList, transform: Affine, first: _Indices, second: _Indices, residual: float,
    *, is_affine: bool,
) -> StarMatch:  # fmt: skip
    """Return the match with what speaks for and against it."""
    on_target = int(_inside(source, transform, target).sum())
    on_source = int(_inside(target, transform.inverse(), source).sum())
    # A map may pile a whole frame up on a few pixels: the area is the smaller of the two frames', on the target grid.
    area = min(target.rows * target.columns, source.rows * source.columns * abs(transform.determinant))
    given, wanted = source.light_with(target)
    given, wanted = given[first], wanted[second]
    positive = (given > 0) & (wanted > 0)  # within a wider aperture a faint star's light may be none
    log_ratio = np.log(wanted[positive] / given[positive]) if positive.any() else np.zeros(1)
    scatter = 1.4826 * float(np.median(np.abs(log_ratio - np.median(log_ratio))))
    return StarMatch(
        transform=transform, source=first, target=second, residual=residual, overlap=min(on_target, on_source),
        chance=chance_matches(on_target, on_source, area, max(1.0, 3.0 * residual)),
        flux_ratio=float(np.exp(np.median(log_ratio))),
        flux_scatter=scatter, is_affine=is_affine,
    )  # fmt: skip


def chance_matches(first: int, second: int, area: float, radius: float) -> float:
    """Return how many partners unrelated stars would have: ``first * second * pi * radius**2 / area``."""
    return min(first, second, first * second * math.pi * radius**2 / max(area, 1.0))
