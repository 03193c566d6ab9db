"""Match the backgrounds of frames over what they share.

Frames that see the same sky need none of this: the stacker's normalization brings them to one level. In a mosaic, or
across two sessions, each frame has another part of the sky, and its own percentiles say nothing about its neighbors'.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from zemosaic_stack_core.prepare.canvas.levels import BOX, Level, box_centers

_Boxes = npt.NDArray[np.float64]
_Mask = npt.NDArray[np.bool_]

# Fits, each without the boxes that the one before has found to be off.
_ROUNDS = 6
# Robust standard deviations that a box may lie off the fit.
_CLIP = 3.0
# Boxes that err together, because what a plane does not describe (a nebula, a curve) is wider than a box.
_TOGETHER = 16.0
# Times the disagreement that constants leave: what slopes are expected to change at a frame's border.
_SLOPE = 3.0
# Of the number of boxes: what holds a constant that nothing else does.
_HOLD = 1e-6
# Of the differences that are fitted.
_EXACT = 1e-7
# Boxes of all frames together; of more, several are taken as one.
_MOST = 1 << 22
# Of the disagreement that offsets leave; slopes must do better than that.
_BETTER = 0.75
# Of a frame's smaller side, and boxes: a frame fades over so much of its border.
_FADE, _LEAST_FADE = 0.25, 4.0
# Boxes: standard deviation and reach of the neighborhood of a box; what is narrower is noise, or stars.
_SMOOTH, _REACH = 3.0, 8
# Powers of x and y.
_POWERS = ((0, 0), (1, 0), (0, 1), (2, 0), (1, 1), (0, 2))
# Square boxes that neighbors spread at least; their least number, each by how near it is.
_LEVEL, _NEAR = 0.1, 0.05
# Times that boxes with stars are looked for; smoothings of a surface, each of what those before have left.
_CLIPS, _PASSES = 2, 10
# Times the power that chance has.
_BY_CHANCE = 1.25
# Of what all together see: frames that see less see another part of the sky, and stars of another flux.
_OTHER_PARTS = 0.8
# Of a frame's smaller side, and boxes: what lacks a square of twice this side shows its border.
_DEEP, _LEAST_DEEP = 0.04, 1.0


def see_other_parts(boxes: Sequence[npt.NDArray[np.float32]]) -> bool:
    """Return whether one of the frames covers much less than all together."""
    seen = np.stack([np.isfinite(box[..., 0]) for box in boxes])
    return float(seen.sum(axis=(1, 2)).min()) < _OTHER_PARTS * float(seen.any(axis=0).sum())


def see_different_skies(boxes: Sequence[npt.NDArray[np.float32]]) -> bool:
    """Return whether a frame covers much less than all together, or lacks more than strips such as dithering leaves."""
    if see_other_parts(boxes):
        return True
    seen = np.stack([np.isfinite(box[..., 0]) for box in boxes])
    union = seen.any(axis=0)
    return any(_has_square(union & ~one, 1 + 2 * int(max(_LEAST_DEEP, _DEEP * _side(one)))) for one in seen)


def _has_square(mask: _Mask, side: int) -> bool:
    """Return whether a square of so many boxes is all in the mask."""
    total = np.pad(mask.cumsum(axis=0).cumsum(axis=1), ((1, 0), (1, 0)))
    counts = total[side:, side:] - total[:-side, side:] - total[side:, :-side] + total[:-side, :-side]
    return bool((counts == side * side).any())


def match_levels(
    boxes: Sequence[npt.NDArray[np.float32]], scales: Sequence[float], reference: int, mode: str
) -> tuple[list[Level], str]:
    """Find what makes frames agree where they overlap; the reference keeps its mean level. Return the mode, too.

    `boxes` are each frame's `box_medians`, `scales` its flux scale; `mode` is "offset", "plane", "feather" or "auto".

    Notes
    -----
    All constants and slopes are one least squares problem over all overlaps, boxes with stars or trails left out.
    Slopes are damped: what no overlap fixes stays level, and so does what all frames could be tilted by in common.
    """
    skies = _Skies(boxes, scales)
    if mode in ("offset", "plane"):
        return skies.levels(skies.fits(reference, mode)), mode
    offsets, planes = skies.fits(reference, "offset"), skies.fits(reference, "plane")
    is_plane = sum(fit.disagreement for fit in planes) < _BETTER * sum(fit.disagreement for fit in offsets)
    fits = planes if is_plane else offsets
    if mode == "feather" or skies.leave_steps(fits):
        return skies.levels(fits, skies.surfaces(fits)), "feather"
    return skies.levels(fits), "plane" if is_plane else "offset"


@dataclass(frozen=True, eq=False)
class _Fit:
    """What brings all frames of one channel to one level."""

    # Constant and slopes, per pixel; shape (frame, 3).
    coefficients: _Boxes
    # How far frames then are apart where they overlap: the median of boxes, data units.
    disagreement: float

    def applied_to(self, values: _Boxes) -> _Boxes:
        """Return boxes, shape (frame, row, column), at their levels."""
        constants, x_slopes, y_slopes = self.coefficients.T[..., np.newaxis, np.newaxis]
        y, x = (box_centers(count) for count in values.shape[1:])
        return np.asarray(values + constants + x_slopes * x + y_slopes * y[:, np.newaxis])


@dataclass(frozen=True, eq=False)
class _Skies:
    """The boxes of all frames, and their flux scales."""

    boxes: Sequence[npt.NDArray[np.float32]]
    scales: Sequence[float]

    def channels(self) -> Iterator[_Boxes]:
        """Yield the scaled boxes of each channel, shape (frame, box row, box column)."""
        for channel in range(self.boxes[0].shape[2]):
            values = np.stack([box[..., channel] for box in self.boxes]).astype(np.float64)
            values *= np.asarray(self.scales)[:, np.newaxis, np.newaxis]
            yield values

    def fits(self, reference: int, mode: str) -> list[_Fit]:
        """Fit constants, or planes, to each channel."""
        return [_fit(values, reference, mode) for values in self.channels()]

    def surfaces(self, fits: Sequence[_Fit]) -> list[npt.NDArray[np.float32]]:
        """Return per channel the surfaces that let each frame fade into its neighbors: in their skies, not in a weight.

        They bring what is wide in all frames to a mean in which each counts less towards its border. The stack then has
        no border to show, all frames count fully wherever they are, and none of them looks like an outlier.
        """
        return [
            _feather(fit.applied_to(values)).astype(np.float32)
            for fit, values in zip(fits, self.channels(), strict=True)
        ]

    def leave_steps(self, fits: Sequence[_Fit]) -> bool:
        """Return whether feathering would find more than it finds in the same differences at random places."""
        found = by_chance = 0.0
        for fit, values in zip(fits, self.channels(), strict=True):
            matched, random = fit.applied_to(values), np.random.default_rng(0)
            good = np.isfinite(matched)
            rest = _towards_mean(np.where(good, matched, 0.0), good, _fading(good))
            for one, mask in zip(rest, good, strict=True):
                planes, shuffled = _LocalPlanes.over(mask), np.zeros(mask.shape)
                shuffled[mask] = random.permutation(one[mask])
                found += float((planes.through(one)[mask] ** 2).sum())
                by_chance += float((planes.through(shuffled)[mask] ** 2).sum())
        return found > _BY_CHANCE * by_chance

    def levels(self, fits: Sequence[_Fit], surfaces: Sequence[npt.NDArray[np.float32]] = ()) -> list[Level]:
        """Return each frame's level."""
        found = []
        for index, scale in enumerate(self.scales):
            constants, x_slopes, y_slopes = np.stack([fit.coefficients[index] for fit in fits]).T.tolist()
            surface = np.stack([one[index] for one in surfaces], axis=-1) if surfaces else None
            found.append(
                Level(
                    scale=float(scale),
                    offset=tuple(constants),
                    x_slope=tuple(x_slopes),
                    y_slope=tuple(y_slopes),
                    surface=surface if surface is not None and surface.any() else None,
                )
            )
        return found


def _side(present: _Mask) -> float:
    """Return the smaller side of a frame that covers these boxes, boxes: that of a square of its area, if turned."""
    extent = [np.ptp(np.flatnonzero(present.any(axis=axis))) + 1 if present.any() else 1 for axis in (0, 1)]
    return float(min(*extent, present.sum() ** 0.5))


def _fit(values: _Boxes, reference: int, mode: str) -> _Fit:
    """Fit constants, or planes, to one channel, shape (frame, box row, box column)."""
    frames, rows, columns = values.shape
    every = min(rows, columns, math.ceil(math.sqrt(values.size / _MOST)))
    y, x = (_thinned(box_centers(count), every) for count in (rows, columns))
    half = max(1.0, 0.5 * float(np.median([_side(one) for one in np.isfinite(values)]))) * BOX
    if every > 1:
        size = (rows // every, every, columns // every, every)
        values = values[:, : size[0] * every, : size[2] * every].reshape(frames, *size).mean(axis=(2, 4))
    there = np.isfinite(values)
    shared = there.sum(axis=0) > 1
    middle = (float(x.mean()), float(y.mean()))
    across, down = (x - middle[0]) / half, (y[:, np.newaxis] - middle[1]) / half
    whole = np.stack(np.broadcast_arrays(1.0, across, down), axis=-1)
    problem = _Problem(np.where(there, values, 0.0)[:, shared], whole[shared], there[:, shared])
    fit, disagreement = problem.solved(with_slopes=mode == "plane")
    if problem.there[reference].any():
        fit[problem.there.any(axis=1), 0] -= float((fit[reference] @ whole[there[reference]].T).mean())
    fit[:, 1:] /= half
    fit[:, 0] -= fit[:, 1:] @ middle
    return _Fit(fit, disagreement)


def _thinned(centers: _Boxes, every: int) -> _Boxes:
    """Return the centers of so many boxes together."""
    return np.asarray(centers[: len(centers) // every * every].reshape(-1, every).mean(axis=1))


@dataclass(frozen=True, eq=False)
class _Problem:
    """Boxes that two frames or more see, shape (frame, box): what to add to each frame that all agree."""

    values: _Boxes
    # Terms of a plane at each box, shape (box, 3).
    design: _Boxes
    there: _Mask

    def solved(self, *, with_slopes: bool) -> tuple[_Boxes, float]:
        """Return the terms of each frame's plane, shape (frame, 3), and how far frames then are apart."""
        fit = np.zeros((len(self.values), 3))
        good, spread = self.there, 0.0
        for _ in range(_ROUNDS):
            fit[:, :1] = self._least_squares(good, fit[:, :1], 0.0)
            before, (good, spread) = good, self._agreeing(fit, good)
            if np.array_equal(before, good):
                break
        if with_slopes:
            # What slopes are expected to be is what constants leave; how well they are known, what slopes leave.
            left, damping = max(spread, np.finfo(np.float64).tiny), _TOGETHER / _SLOPE**2
            for _ in range(_ROUNDS):
                fit = self._least_squares(good, fit, damping)
                good, spread = self._agreeing(fit, good)
                damping = _TOGETHER * min(1.0, spread / left) ** 2 / _SLOPE**2
        apart = np.where(good, self.values + fit @ self.design.T, np.nan)[:, good.sum(axis=0) > 1]
        return fit, float(np.median(np.nanstd(apart, axis=0))) if apart.size else 0.0

    def _least_squares(self, good: _Mask, start: _Boxes, damping: float) -> _Boxes:
        """Return the fit of the good boxes to the means of all frames, by conjugate gradients from where it stands."""
        from scipy.sparse.linalg import LinearOperator, cg

        design, count = self.design[:, : start.shape[1]], np.maximum(good.sum(axis=0), 1)
        held = np.full(start.shape, _HOLD * max(1, len(design)))
        held[:, 1:] += damping

        def off_mean(values: _Boxes) -> _Boxes:
            inside = np.where(good, values, 0.0)
            return np.where(good, inside - inside.sum(axis=0) / count, 0.0) @ design

        def product(terms: _Boxes) -> _Boxes:
            plane = terms.reshape(start.shape)
            return np.asarray((off_mean(plane @ design.T) + held * plane).reshape(-1))

        operator = LinearOperator((start.size, start.size), matvec=product, dtype=np.float64)
        found, _ = cg(operator, -off_mean(self.values).reshape(-1), x0=start.reshape(-1), rtol=_EXACT)
        return np.asarray(found.reshape(start.shape))

    def _agreeing(self, fit: _Boxes, good: _Mask) -> tuple[_Mask, float]:
        """Return the boxes that agree with the others' good ones, and the spread of those."""
        return _clipped(_rest(self.values + fit @ self.design.T, good), self.there)


def _rest(values: _Boxes, good: _Mask) -> _Boxes:
    """Return how far each box is from the mean of the others' good ones; NaN without others."""
    total, count = np.where(good, values, 0.0).sum(axis=0), good.sum(axis=0)
    others = count - good
    mean = (total - np.where(good, values, 0.0)) / np.maximum(others, 1)
    return np.where(others > 0, values - mean, np.nan)


def _clipped(rest: _Boxes, there: _Mask) -> tuple[_Mask, float]:
    """Return the boxes of each frame that agree with the others, and the spread of those."""
    kept = there.copy()
    spreads = []
    for one, mask in zip(rest, kept, strict=True):
        compared = mask & np.isfinite(one)
        if not compared.any():
            continue
        off = np.abs(one - np.median(one[compared]))
        spread = 1.4826 * float(np.median(off[compared])) + np.finfo(np.float64).tiny
        spreads.append(spread)
        mask &= ~(compared & (off > _CLIP * spread))
    return kept, float(np.median(spreads)) if spreads else 0.0


def _fading(there: _Mask) -> _Boxes:
    """Return how much each box of the frames counts: from next to nothing at a border to 1 inside."""
    from scipy.ndimage import binary_fill_holes, distance_transform_edt

    weights = np.zeros(there.shape)
    for one, weight in zip(there, weights, strict=True):
        inside = distance_transform_edt(np.pad(binary_fill_holes(one), 1))[1:-1, 1:-1]
        weight[:] = np.clip((inside - 1) / max(_LEAST_FADE, _FADE * _side(one)), 1e-6, 1)
    return weights


def _towards_mean(values: _Boxes, good: _Mask, weights: _Boxes) -> _Boxes:
    """Return what is missing from each box to the weighted mean of all frames; 0 where a box is not good."""
    share = np.where(good, weights, 0.0)
    total = np.maximum(share.sum(axis=0), np.finfo(np.float64).tiny)
    return np.where(good, (share * values).sum(axis=0) / total - values, 0.0)


def _feather(values: _Boxes) -> _Boxes:
    """Return the surfaces of one channel, shape (frame, box row, box column)."""
    good = np.isfinite(values)
    weights = _fading(good)
    values = np.where(good, values, 0.0)
    surfaces = np.zeros(values.shape)
    for _ in range(_CLIPS):
        smooth = [_LocalPlanes.over(mask) for mask in good]
        for _ in range(_PASSES):
            rest = _towards_mean(values + surfaces, good, weights)
            surfaces += np.stack([planes.through(one) for planes, one in zip(smooth, rest, strict=True)])
        good, _ = _clipped(_rest(values + surfaces, good), good)
    return surfaces


@dataclass(frozen=True, eq=False)
class _LocalPlanes:
    """A smoothing by planes through each box's neighbors: at a border it neither flattens a slope nor ends there."""

    # What values and their moments in x and y count; shape (box row, box column).
    counts: tuple[_Boxes, ...]

    @classmethod
    def over(cls, mask: _Mask) -> _LocalPlanes:
        """Prepare for values at the boxes of a mask; elsewhere they must be 0."""
        area, x, y, xx, xy, yy = (_moment(mask.astype(np.float64), *powers) for powers in _POWERS)
        # Where neighbors lie on one side only, or on a line, this makes the plane level.
        xx, yy = xx + _LEVEL * area, yy + _LEVEL * area
        one, other, third = xx * yy - xy * xy, y * xy - x * yy, x * xy - y * xx
        whole = area * one + x * other + y * third
        is_near = (area > _NEAR) & (whole > 0)
        whole = np.where(is_near, whole, 1.0)
        return cls(tuple(np.where(is_near, part / whole, 0.0) for part in (one, other, third)))

    def through(self, values: _Boxes) -> _Boxes:
        """Return the planes' values at the boxes."""
        moments = (_moment(values, *powers) for powers in _POWERS[:3])
        return np.asarray(sum(part * moment for part, moment in zip(self.counts, moments, strict=True)))


def _moment(values: _Boxes, x_power: int, y_power: int) -> _Boxes:
    """Return the sums over each box's neighbors, times a power of their distances in boxes."""
    from scipy.ndimage import correlate1d

    place = np.arange(-_REACH, _REACH + 1.0)
    bell = np.exp(-0.5 * (place / _SMOOTH) ** 2)
    along = correlate1d(values, bell * place**x_power, axis=1, mode="constant")
    return np.asarray(correlate1d(along, bell * place**y_power, axis=0, mode="constant"))
