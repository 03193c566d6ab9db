"""The sky of one image and its noise, on a mesh of boxes: robust against stars, smooth between boxes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import sliding_window_view

Image = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]
Values = npt.NDArray[np.float64]
Indices = npt.NDArray[np.intp]

# Pixels, side of a box; at most the second part of the image's.
_BOX = 64
_LEAST_BOXES = 4
_SMALLEST_BOX = 16
# Rows of an image, and boxes, that are computed at once.
_BAND = 64
_BOXES = 256
# Samples of a box along a side: 40 of 64 tell the level to 0.025 of the noise, and cost less than half.
_SAMPLES = 40
_CLIPPED = 3.0
_CLIPS = 4
# Standard deviation of a normal distribution that is clipped at 3.
_CLIPPED_SIGMA = 0.98658
# Parts of a normal distribution that are more than one and two standard deviations below its median.
_ONE_SIGMA, _TWO_SIGMA = 0.15866, 0.02275
# Part of a box's samples that have its lowest value where everything lower was cut off.
_CUT = 0.1
# Of the noise; where mean and median are further apart, a crowd or a bright thing has no mode.
_SKEWED = 0.3
# Part of a box's samples that must be there.
_ENOUGH = 0.25
# Of the noise: a slope from box to box that widens what is in one.
_STEEP = 0.5
_TREND_BOXES = 16
_TREND_ROUNDS = 5
# Part of the spread of values that steps between them may have: coarser ones are filled by chance.
_COARSE = 0.15


@dataclass(frozen=True, eq=False)
class Sky:
    """Level and standard deviation of a pixel in boxes, shape (box row, box column), data units."""

    levels: Values
    noises: Values
    # Of the levels: coefficients of the powers 0 to 2 of the row by those of the column, each from -1 to 1.
    trend: Values
    rows: int
    columns: int

    @property
    def level(self) -> float:
        """The median level."""
        return float(np.median(self.levels))

    @property
    def noise(self) -> float:
        """The median standard deviation."""
        return float(np.median(self.noises))

    def level_image(self) -> Image:
        """Return the level at each pixel: the trend, and a cubic spline through what the boxes' middles have above."""
        rest = self.levels - _trend_at(self.trend, *(_middles(*side) / side[0] for side in self._sides))
        down, across = (_Spline.through(*side, 3) for side in self._sides)
        trend = np.einsum("ij,jk,lk->il", down.powers(), self.trend, across.powers())
        return _surface(down, across, down.values_of(rest, across) + trend)

    def noise_image(self, times: float) -> Image:
        """Return so many times the noise at each pixel, straight between the boxes' middles."""
        down, across = (_Spline.through(*side, 1) for side in self._sides)
        return _surface(down, across, down.values_of(times * self.noises, across))

    def noise_at(self, x: npt.NDArray[Any], y: npt.NDArray[Any]) -> Values:
        """Return the noise of the box that each place is in."""
        indices = (
            np.clip((places / length * count).astype(np.intp), 0, count - 1)
            for places, (length, count) in zip((y, x), self._sides, strict=True)
        )
        found: Values = self.noises[tuple(indices)]
        return found

    @property
    def _sides(self) -> tuple[tuple[int, int], tuple[int, int]]:
        """Pixels and boxes down and across."""
        return (self.rows, self.levels.shape[0]), (self.columns, self.levels.shape[1])


def measure_sky(image: Image, missing: Mask | None = None) -> Sky | None:
    """Return the sky of an image, shape (row, column); None where nothing is left of it.

    Notes
    -----
    Each box's samples, 40 x 40, are clipped at 3 standard deviations, which are measured below the
    median, where stars are not. The level is ``2.5 median - 1.5 mean``, the mode of a slightly skewed distribution, or
    the median where they are far apart (as Source Extractor does). A surface of the second degree is fitted to the
    boxes, and of what 3 x 3 of them have above it the median is taken. Where neighbors differ by much, the slope is
    taken off the samples first.
    """
    rows, columns = image.shape
    box = max(_SMALLEST_BOX, min(_BOX, rows // _LEAST_BOXES, columns // _LEAST_BOXES))
    counts = max(1, round(rows / box)), max(1, round(columns / box))
    sides = [max(1, min(_SAMPLES, length // count)) for length, count in zip(image.shape, counts, strict=True)]
    places = [
        (np.arange(count * side) + 0.5) * (length / (count * side))
        for length, count, side in zip(image.shape, counts, sides, strict=True)
    ]
    down, across = (place.astype(np.intp) for place in places)
    samples = image[down][:, across]
    if missing is not None:
        samples[missing[down][:, across]] = np.nan
    boxes = samples.reshape(counts[0], sides[0], counts[1], sides[1]).transpose(0, 2, 1, 3)
    levels, noises = (
        part.reshape(counts) for part in _box_numbers(_without_steps(boxes.reshape(counts[0] * counts[1], -1)))
    )
    if np.isnan(levels).all():
        return None
    middles = [_middles(length, count) / length for length, count in zip(image.shape, counts, strict=True)]
    there = _trend_at(_trend(levels, middles), *middles)
    _take_off_slopes(boxes.reshape(*counts, *sides), levels, noises, there + _of_nine(levels - there))
    trend = _trend(levels, middles)
    there = _trend_at(trend, *middles)
    # Boxes of one value are no sky, unless all are.
    noises = _of_nine(np.where(noises > 0, noises, np.nan)) if (noises > 0).any() else np.zeros(counts)
    levels = there + _of_nine(levels - there)
    least = 1e-6 * float(noises.max()) + float(np.finfo(np.float32).tiny)
    return Sky(levels, np.maximum(noises, least), trend, rows, columns)


def _take_off_slopes(boxes: Image, levels: Values, noises: Values, smooth: Values) -> None:
    """Measure steep boxes again without their slopes by the neighbors' levels: a slope is no noise.

    `boxes` are the samples, shape (box row, box column, row, column).
    """
    if min(levels.shape) < 2:
        return
    slopes = np.stack([np.gradient(smooth, axis=axis) for axis in (0, 1)])
    with np.errstate(invalid="ignore"):
        steep = np.abs(slopes).max(axis=0) > _STEEP * noises
    if not steep.any():
        return
    down, across = ((np.arange(count) + 0.5) / count - 0.5 for count in boxes.shape[2:])
    plane = slopes[0][steep][:, np.newaxis, np.newaxis] * down[:, np.newaxis]
    plane = plane + slopes[1][steep][:, np.newaxis, np.newaxis] * across
    level, noise = _box_numbers((boxes[steep] - plane).astype(np.float32).reshape(len(plane), -1))
    is_better = noise < noises[steep]
    levels[steep] = np.where(is_better, level, levels[steep])
    noises[steep] = np.where(is_better, noise, noises[steep])


def _of_nine(boxes: Values) -> Values:
    """Return the medians of 3 x 3 boxes; of what is missing, of the nearest that are there."""
    padded = np.pad(_filled(boxes), 1, mode="edge")
    return np.asarray(np.median(sliding_window_view(padded, (3, 3)), axis=(2, 3)))


def _middles(length: int, count: int) -> Values:
    """Return where the middles of boxes are, pixels."""
    return np.asarray((np.arange(count) + 0.5) * (length / count) - 0.5, np.float64)


def _powers(places: Values) -> Values:
    """Return the powers 0 to 2 of places from 0 to 1, brought to -1 to 1."""
    return np.stack([np.ones_like(places), 2 * places - 1, (2 * places - 1) ** 2], axis=1)


def _trend_at(trend: Values, down: Values, across: Values) -> Values:
    """Return the surface at rows and columns, each from 0 to 1."""
    return np.asarray(_powers(down) @ trend @ _powers(across).T, np.float64)


def _trend(levels: Values, middles: list[Values]) -> Values:
    """Fit a surface of the second degree to a mesh, robustly; its mean where there are few boxes."""
    trend = np.zeros((3, 3))
    there = np.isfinite(levels)
    trend[0, 0] = np.median(levels[there])
    if min(levels.shape) < _LEAST_BOXES or there.sum() < _TREND_BOXES:
        return trend
    down, across = (_powers(middle) for middle in middles)
    terms = [(0, 0), (1, 0), (0, 1), (1, 1), (2, 0), (0, 2)]
    matrix = np.stack([np.outer(down[:, i], across[:, j])[there] for i, j in terms], axis=1)
    values = levels[there]
    weights = np.ones(len(values))
    for _ in range(_TREND_ROUNDS):
        found = np.linalg.lstsq(matrix * weights[:, np.newaxis], values * weights)[0]
        rest = np.abs(values - matrix @ found)
        scale = 3 * float(np.median(rest)) + 1e-30
        weights = 1 / (1 + (rest / scale) ** 2)
    for (i, j), value in zip(terms, found, strict=True):
        trend[i, j] = value
    return trend


def _box_numbers(boxes: Image) -> tuple[Values, Values]:
    """Return level and noise of boxes of samples, shape (box, sample); NaN where too little is there."""
    parts = [_some_box_numbers(boxes[start : start + _BOXES]) for start in range(0, len(boxes), _BOXES)]
    levels, noises = zip(*parts, strict=True)
    return np.concatenate(levels), np.concatenate(noises)


def _some_box_numbers(boxes: Image) -> tuple[Values, Values]:
    """Return level and noise of as many boxes as stay in the cache."""
    ordered = np.sort(boxes, axis=1)  # what is missing comes last
    number = np.arange(len(ordered))
    low, high = np.zeros(len(ordered), np.intp), np.isfinite(ordered).sum(axis=1)
    is_there = high >= max(1, _ENOUGH * ordered.shape[1])
    high = np.maximum(high, 1)
    # Nothing is below a value: of programs that take the sky off and want nothing negative.
    cut = ordered[:, 0] == ordered[number, (_CUT * high).astype(np.intp)]
    for _ in range(_CLIPS):
        median, noise = _middle_and_noise(ordered, number, low, high, cut)
        limit = _CLIPPED * noise
        low = (ordered < (median - limit)[:, np.newaxis]).sum(axis=1)
        high = np.maximum((ordered <= (median + limit)[:, np.newaxis]).sum(axis=1), low + 1)
    median, noise = _middle_and_noise(ordered, number, low, high, cut)
    rank = np.arange(ordered.shape[1])
    kept = (rank >= low[:, np.newaxis]) & (rank < high[:, np.newaxis])
    # Small numbers: the level may be thousands of times the noise.
    apart = np.where(kept, ordered - median[:, np.newaxis], np.float32(0))
    skew = apart.mean(axis=1, dtype=np.float64) * (ordered.shape[1] / (high - low))
    above = np.where(np.abs(skew) < _SKEWED * noise, -1.5 * skew, 0.0)
    # Of whole numbers, quantiles are whole, too; squares below the level are not.
    apart = np.minimum(np.where(kept, apart - above[:, np.newaxis].astype(np.float32), np.float32(0)), np.float32(0))
    squares = np.einsum("ij,ij->i", apart, apart).astype(np.float64)
    below = np.sqrt(squares / np.maximum(np.count_nonzero(apart, axis=1), 1)) / _CLIPPED_SIGMA
    noise = np.where(cut, noise, below)
    return np.where(is_there, median + above, np.nan), np.where(is_there, noise, np.nan)


def _middle_and_noise(
    ordered: Image, number: npt.NDArray[np.intp], low: npt.NDArray[np.intp], high: npt.NDArray[np.intp], cut: Mask
) -> tuple[Image, Image]:
    """Return the median of the kept ranks, and how far below it 16 % of them are; above where what is below is cut."""

    def at(part: float) -> Image:
        return ordered[number, np.minimum(low + part * (high - low), high - 1).astype(np.intp)]

    median = at(0.5)
    above = np.maximum(at(1 - _ONE_SIGMA) - median, (at(1 - _TWO_SIGMA) - median) / 2)
    return median, np.where(cut, above, median - at(_ONE_SIGMA))


def _without_steps(boxes: Image) -> Image:
    """Return samples whose values are not far apart, compared with their noise: quantiles of coarse ones are off."""
    some = np.sort(boxes[:: max(1, len(boxes) // 16)], axis=None)
    some = some[np.isfinite(some)]
    if not some.size:
        return boxes
    apart = np.diff(some)
    step = float(apart[apart > 0].min(initial=np.inf))
    low, high = some[some.size // 4], some[3 * some.size // 4]
    if not _COARSE * float(high - low) < step < np.inf:
        return boxes
    random = np.random.default_rng(0)  # the same frame has the same stars
    return np.asarray(boxes + random.uniform(-step / 2, step / 2, boxes.shape), np.float32)


def _filled(boxes: Values) -> Values:
    """Return a mesh whose missing boxes have the value of the nearest that is there."""
    missing = np.isnan(boxes)
    if not missing.any():
        return boxes
    from scipy.ndimage import distance_transform_edt

    nearest = distance_transform_edt(missing, return_distances=False, return_indices=True)
    found: Values = boxes[tuple(nearest)]
    return found


@dataclass(frozen=True, eq=False)
class _Spline:
    """Interpolation between the middles of boxes: each pixel's is a sum of few values, weighted."""

    # Which values, and their weights, shape (pixel, term).
    places: Indices
    weights: Image
    # Of the values by those of the boxes.
    matrix: Values

    @classmethod
    def through(cls, length: int, count: int, degree: int) -> _Spline:
        """Return a spline, of degree 1 or 3, through the middles of `count` boxes, at each of `length` pixels.

        The cubic is the natural one: between two middles, their values and their second derivatives make it. Written
        out, since `scipy.interpolate` takes longer to import than the stars of a frame to find.
        """
        if count == 1:
            return cls(np.zeros((length, 1), np.intp), np.ones((length, 1), np.float32), np.ones((1, 1)))
        at = (np.arange(length) + 0.5) * (count / length) - 0.5
        if degree < 3:
            at = np.clip(at, 0, count - 1)
        before = np.clip(at.astype(np.intp), 0, count - 2)
        late = at - before
        places, weights = [before, before + 1], [1 - late, late]
        matrix = np.eye(count)
        if degree == 3 and count > 2:
            places += [count + before, count + before + 1]
            weights += [((1 - late) ** 3 - (1 - late)) / 6, (late**3 - late) / 6]
            matrix = np.vstack([matrix, _second_derivatives(count)])
        return cls(np.stack(places, axis=1), np.stack(weights, axis=1).astype(np.float32), matrix)

    def powers(self) -> Values:
        """Return the values that the powers 0 to 2 of the place have: those of a parabola's pieces make it exactly."""
        length, count = len(self.places), self.matrix.shape[1]
        found = _powers(_middles(length, count) / length)
        if len(self.matrix) == count:
            return found
        bends = np.broadcast_to([0.0, 0.0, 2 * (2 / count) ** 2], found.shape)
        return np.vstack([found, bends])

    def values_of(self, boxes: Values, across: _Spline) -> Values:
        """Return the values that boxes mean, down by this and across by another spline."""
        return np.asarray(np.einsum("ij,kj->ik", np.einsum("ij,jk->ik", self.matrix, boxes), across.matrix), np.float64)

    def spread(self, values: Image) -> Image:
        """Return the sums of values, shape (value, column), for each pixel, in bands that stay in the cache."""
        out = np.empty((len(self.places), values.shape[1]), np.float32)
        for start in range(0, len(out), _BAND):
            places, weights = self.places[start : start + _BAND].T, self.weights[start : start + _BAND].T
            band = np.multiply(values[places[0]], weights[0][:, np.newaxis], out=out[start : start + _BAND])
            for place, weight in zip(places[1:], weights[1:], strict=True):
                band += values[place] * weight[:, np.newaxis]
        return out


def _second_derivatives(count: int) -> Values:
    """Return the matrix that makes those of a natural cubic spline, at values one apart, of the values."""
    bends, changes = np.eye(count), np.zeros((count, count))
    inner = np.arange(1, count - 1)
    for offset, bend, change in ((-1, 1.0, 6.0), (0, 4.0, -12.0), (1, 1.0, 6.0)):
        bends[inner, inner + offset], changes[inner, inner + offset] = bend, change
    return np.asarray(np.linalg.solve(bends, changes), np.float64)


def _surface(down: _Spline, across: _Spline, values: Values) -> Image:
    """Return an image of splines down and across.

    Without a matrix product: BLAS would share it among threads that wait for each other in every process, and give
    other bits with another number of them.
    """
    return down.spread(np.ascontiguousarray(across.spread(values.T.astype(np.float32)).T))
