"""Match the backgrounds of frames over what they share.

Frames that see the same sky need none of this: the stacker's normalization brings them to one level. In a mosaic, or
across two sessions, each frame has another part of the sky, and its own percentiles say nothing about its neighbors'.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from zemosaic_stack_core.prepare.canvas.levels import Level, box_centers

_Boxes = npt.NDArray[np.float64]
_Mask = npt.NDArray[np.bool_]

_ROUNDS = 6
# Robust standard deviations that a box may lie off the fit.
_CLIP = 3.0
# Boxes that err together, because what a plane does not describe (a nebula, a curve) is wider than a box.
_TOGETHER = 16.0
# Times the disagreement that constants leave: what slopes are expected to change at a frame's border.
_SLOPE = 3.0
# Of the number of boxes: what holds a constant that nothing else does.
_HOLD = 1e-6
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
    if mode in ("offset", "plane"):
        return _Match.of(boxes, scales, reference, mode).levels(scales), mode
    offsets, planes = (_Match.of(boxes, scales, reference, one) for one in ("offset", "plane"))
    is_plane = planes.disagreement() < _BETTER * offsets.disagreement()
    found = planes if is_plane else offsets
    if mode == "feather" or found.leaves_steps():
        return found.feathered().levels(scales), "feather"
    return found.levels(scales), "plane" if is_plane else "offset"


@dataclass(frozen=True, eq=False)
class _Match:
    """The skies of frames, shape (channel, frame, box row, box column), and what is added to them."""

    values: _Boxes
    # Constant and slopes, per pixel; shape (channel, frame, 3).
    coefficients: _Boxes
    # Boxes that are there and hold no star or trail that others lack.
    good: _Mask
    surfaces: _Boxes | None = None

    @classmethod
    def of(cls, boxes: Sequence[npt.NDArray[np.float32]], scales: Sequence[float], reference: int, mode: str) -> _Match:
        """Fit constants, or planes, to all channels."""
        values = (np.stack(boxes) * np.asarray(scales)[:, np.newaxis, np.newaxis, np.newaxis]).transpose(3, 0, 1, 2)
        fits = [_fit(channel, reference, mode) for channel in values]
        return cls(values, np.stack([fit for fit, _ in fits]), np.stack([good for _, good in fits]))

    def matched(self) -> _Boxes:
        """Return the values as they are at their levels."""
        constants, x_slopes, y_slopes = self.coefficients.transpose(2, 0, 1)[..., np.newaxis, np.newaxis]
        y, x = (box_centers(count) for count in self.values.shape[2:])
        return np.asarray(self.values + constants + x_slopes * x + y_slopes * y[:, np.newaxis])

    def disagreement(self) -> float:
        """Return how far frames are apart where they overlap: the median of all boxes and channels, data units."""
        there = np.where(self.good, self.matched(), np.nan)
        shared = there.transpose(1, 0, 2, 3)[:, self.good.sum(axis=1) > 1]
        return float(np.median(np.nanstd(shared, axis=0))) if shared.size else 0.0

    def feathered(self) -> _Match:
        """Return the match with surfaces that let each frame fade into its neighbors: in their skies, not in a weight.

        They bring what is wide in all frames to a mean in which each counts less towards its border. The stack then has
        no border to show, all frames count fully wherever they are, and none of them looks like an outlier.
        """
        weights = _fading(np.asarray(np.isfinite(self.values).all(axis=0)))
        surfaces = [_feather(channel, weights) for channel in self.matched()]
        return _Match(self.values, self.coefficients, self.good, np.stack(surfaces))

    def leaves_steps(self) -> bool:
        """Return whether feathering would find more than it finds in the same differences at random places."""
        weights = _fading(np.asarray(np.isfinite(self.values).all(axis=0)))
        found = by_chance = 0.0
        for channel in self.matched():
            good = np.isfinite(channel)
            rest, random = _towards_mean(np.where(good, channel, 0.0), good, weights), np.random.default_rng(0)
            for one, mask in zip(rest, good, strict=True):
                planes, shuffled = _LocalPlanes.over(mask), np.zeros(mask.shape)
                shuffled[mask] = random.permutation(one[mask])
                found += float((planes.through(one)[mask] ** 2).sum())
                by_chance += float((planes.through(shuffled)[mask] ** 2).sum())
        return found > _BY_CHANCE * by_chance

    def levels(self, scales: Sequence[float]) -> list[Level]:
        """Return each frame's level."""
        constants, x_slopes, y_slopes = self.coefficients.transpose(2, 1, 0).tolist()
        found = []
        for index, parts in enumerate(zip(scales, constants, x_slopes, y_slopes, strict=True)):
            scale, constant, x_slope, y_slope = parts
            surface = None
            if self.surfaces is not None and self.surfaces[:, index].any():
                surface = self.surfaces[:, index].transpose(1, 2, 0).astype(np.float32)
            found.append(
                Level(
                    scale=float(scale),
                    offset=tuple(constant),
                    x_slope=tuple(x_slope),
                    y_slope=tuple(y_slope),
                    surface=surface,
                )
            )
        return found


def _side(present: _Mask) -> float:
    """Return the smaller side of a frame that covers these boxes, boxes: that of a square of its area, if turned."""
    extent = [np.ptp(np.flatnonzero(present.any(axis=axis))) + 1 if present.any() else 1 for axis in (0, 1)]
    return float(min(*extent, present.sum() ** 0.5))


def _fit(values: _Boxes, reference: int, mode: str) -> tuple[_Boxes, _Mask]:
    """Return constants and slopes of one channel, shape (frame, 3), and the boxes that were used."""
    frames, rows, columns = values.shape
    there = np.isfinite(values)
    shared = there.sum(axis=0) > 1
    half = 0.5 * float(np.median([_side(one) for one in there])) * (box_centers(2)[1] - box_centers(2)[0])
    x, y = box_centers(columns)[np.newaxis], box_centers(rows)[:, np.newaxis]
    middle = (float(x.mean()), float(y.mean()))
    whole = np.stack(np.broadcast_arrays(1.0, (x - middle[0]) / half, (y - middle[1]) / half), axis=-1)
    design, plane, good = whole[shared], np.where(there, values, 0.0)[:, shared], there[:, shared]
    fit = np.zeros((frames, 3))
    spread = before = np.inf
    damping = np.inf
    for terms in (1, 3) if mode == "plane" else (1,):
        for _ in range(_ROUNDS):
            fit[:, :terms] = _solve(plane, design[:, :terms], good, damping)
            rest = _rest(plane + fit @ design.T, good)
            now, spread = _clipped(rest, there[:, shared])
            if np.array_equal(now, good) and terms == 1:
                break
            good = now
            if terms == 3:
                damping = _TOGETHER * (spread / max(before, np.finfo(np.float64).tiny)) ** 2 / _SLOPE**2
        before, damping = spread, _TOGETHER / _SLOPE**2
    gauge = (fit[reference] @ whole[there[reference]].T).mean() if good[reference].any() else 0.0
    fit[good.any(axis=1), 0] -= gauge
    fit[:, 1:] /= half
    fit[:, 0] -= fit[:, 1:] @ middle
    used = there.copy()
    used[:, shared] = good
    return fit, used


def _solve(values: _Boxes, design: _Boxes, good: _Mask, damping: float) -> _Boxes:
    """Return the least squares fit, shape (frame, term), of all frames to the means of the boxes that they share."""
    frames, terms = len(values), design.shape[1]
    count = np.maximum(good.sum(axis=0), 1)
    mean = np.where(good, values, 0.0).sum(axis=0) / count
    parts = (good[..., np.newaxis] * design) / np.sqrt(count)[:, np.newaxis]
    parts = parts.transpose(1, 0, 2).reshape(len(count), frames * terms)
    matrix = -(parts.T @ parts)
    for index, mask in enumerate(good):
        at = slice(terms * index, terms * (index + 1))
        matrix[at, at] += design[mask].T @ design[mask]
    held = np.full((frames, terms), _HOLD * max(1, len(count)))
    held[:, 1:] += damping if terms > 1 else 0.0
    matrix[np.diag_indices_from(matrix)] += held.reshape(-1)
    right = np.where(good, mean - values, 0.0) @ design
    return np.asarray(np.linalg.solve(matrix, right.reshape(-1)).reshape(frames, terms), np.float64)


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


def _feather(values: _Boxes, weights: _Boxes) -> _Boxes:
    """Return the surfaces of one channel, shape (frame, box row, box column)."""
    good = np.isfinite(values)
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
