"""Match the backgrounds of frames over what they share, from medians of boxes of the canvas.

Frames that see the same sky need none of this: the stacker's normalization brings them to one level. In a mosaic, or
across two sessions, each frame has another part of the sky, and its own percentiles say nothing about its neighbors'.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

_Image = npt.NDArray[np.float32]
_Boxes = npt.NDArray[np.float64]

# Pixels of a box's side; a box's median is 13 times finer than a pixel.
BOX = 16
# Of a box's side: a sixteenth of it is missing at one side.
_OFF_CENTER = 0.06
_ROUNDS = 200
# Of the boxes' spread: a round that changes no box by as much is the last.
_DONE = 1e-5
# Robust standard deviations that a box may lie off the fit.
_CLIP = 3.0
# Of a frame's height and width; a slope that overlaps don't span is an extrapolation.
_SPANNED = 0.7
# Of the disagreement that offsets leave; slopes must do better than that.
_BETTER = 0.75


@dataclass(frozen=True, kw_only=True)
class Level:
    """What brings one frame to the common level: ``v * scale + offset + x_slope * x + y_slope * y`` per channel."""

    # Star flux of the reference over the frame's.
    scale: float
    # Per channel; x and y are canvas pixels.
    offset: tuple[float, ...]
    x_slope: tuple[float, ...]
    y_slope: tuple[float, ...]

    @property
    def changes_nothing(self) -> bool:
        """Whether the frame stays as it is."""
        return self.scale == 1.0 and not any((*self.offset, *self.x_slope, *self.y_slope))

    def apply_to(self, planes: _Image) -> None:
        """Bring the planes of an aligned frame, shape (channel, row, column), to the common level in place."""
        x, y = np.arange(planes.shape[2], dtype=np.float64), np.arange(planes.shape[1], dtype=np.float64)[:, np.newaxis]
        for channel, plane in enumerate(planes):
            plane *= np.float32(self.scale)
            if self.x_slope[channel] or self.y_slope[channel]:
                surface = self.offset[channel] + self.x_slope[channel] * x + self.y_slope[channel] * y
                plane += surface.astype(np.float32)
            else:
                plane += np.float32(self.offset[channel])


def box_medians(image: _Image) -> _Image:
    """Return the median of each box of a canvas image, (box row, box column, channel); NaN where too little is there.

    A box counts where a quarter of it is present and the middle of that is the middle of the box: half a box, at a
    frame's border, stands for another piece of a sloping sky than the whole box of the next frame.
    """
    planes = image[..., np.newaxis] if image.ndim == 2 else image
    rows, columns = (-(-length // BOX) for length in planes.shape[:2])
    out = np.full((rows, columns, planes.shape[2]), np.nan, np.float32)
    strip = np.full((planes.shape[2], BOX, columns * BOX), np.nan, np.float32)
    for row in range(rows):
        given = planes[row * BOX : (row + 1) * BOX].transpose(2, 0, 1)
        strip[:, : given.shape[1], : given.shape[2]] = given
        strip[:, given.shape[1] :] = np.nan
        boxes = strip.reshape(-1, BOX, columns, BOX).transpose(2, 0, 1, 3).reshape(columns, len(strip), -1)
        ordered = np.sort(boxes, axis=-1)
        is_whole = np.isfinite(ordered[..., 0]) & np.isfinite(ordered[..., -1])  # NaN is sorted to the end
        middle = BOX * BOX // 2
        out[row][is_whole] = ordered[is_whole, middle - 1 : middle + 1].mean(axis=1)
        out[row][~is_whole] = _medians_of_parts(boxes[~is_whole])
    return out


def _medians_of_parts(boxes: _Image) -> _Image:
    """Return the medians of boxes, shape (box, sample), that lack samples; NaN where too much is missing."""
    present = np.isfinite(boxes)
    ordered = np.sort(np.where(present, boxes, np.float32(np.nan)), axis=1)
    count = present.sum(axis=1)
    place = np.arange(BOX) - (BOX - 1) / 2
    by_row_and_column = present.reshape(-1, BOX, BOX)
    off = np.maximum(*(np.abs(by_row_and_column.sum(axis=axis) @ place) for axis in (1, 2)))
    good = (4 * count >= BOX * BOX) & (off <= _OFF_CENTER * BOX * count)
    middle = np.stack([(count - 1) // 2, count // 2], axis=1).clip(0)
    return np.where(good, np.take_along_axis(ordered, middle, axis=1).mean(axis=1), np.float32(np.nan))


def match_levels(boxes: Sequence[_Image], scales: Sequence[float], reference: int, mode: str) -> list[Level]:
    """Find each frame's offset (and slopes) so that frames agree where they overlap; the reference's stay zero.

    `boxes` are each frame's `box_medians`, `scales` its flux scale; `mode` is "offset" or "plane".

    Notes
    -----
    Each frame in turn is fitted, robustly, to the mean of all the others as they stand, until nothing changes:
    Gauss-Seidel on the least squares problem over all overlaps.
    """
    values = np.stack(boxes).astype(np.float64) * np.asarray(scales)[:, np.newaxis, np.newaxis, np.newaxis]
    frames, rows, columns, channels = values.shape
    x, y = _centers(columns), _centers(rows)
    x0, y0 = x.mean(), y.mean()
    design = np.stack(np.broadcast_arrays(1.0, (x - x0)[np.newaxis, :], (y - y0)[:, np.newaxis]), axis=-1)
    terms = 3 if mode == "plane" else 1
    coefficients = np.zeros((frames, channels, 3))
    for channel in range(channels):
        plane = values[..., channel]
        _gauss_seidel(plane, design[..., :terms], coefficients[:, channel, :terms], reference)
    constants, x_slopes, y_slopes = coefficients.transpose(2, 0, 1)
    offsets = constants - x_slopes * x0 - y_slopes * y0
    parts = zip(scales, offsets.tolist(), x_slopes.tolist(), y_slopes.tolist(), strict=True)
    return [Level(scale=float(s), offset=tuple(c), x_slope=tuple(x), y_slope=tuple(y)) for s, c, x, y in parts]


def best_levels(boxes: Sequence[_Image], scales: Sequence[float], reference: int) -> tuple[list[Level], str]:
    """Find offsets, or planes where overlaps span every frame and agree clearly better; return which it was, too."""
    offsets = match_levels(boxes, scales, reference, "offset")
    present = np.isfinite(np.stack([box[..., 0] for box in boxes]))
    shared = present & (present.sum(axis=0) > 1)
    if not all(_spans(*masks) for masks in zip(shared, present, strict=True)):
        return offsets, "offset"
    planes = match_levels(boxes, scales, reference, "plane")
    if _disagreement(boxes, planes) < _BETTER * _disagreement(boxes, offsets):
        return planes, "plane"
    return offsets, "offset"


def _spans(shared: npt.NDArray[np.bool_], present: npt.NDArray[np.bool_]) -> bool:
    """Return whether the shared boxes of a frame reach over most of its rows and of its columns."""
    return all(
        shared.any()
        and np.ptp(np.flatnonzero(shared.any(axis=axis))) >= _SPANNED * np.ptp(np.flatnonzero(present.any(axis=axis)))
        for axis in (0, 1)
    )


def _centers(count: int) -> _Boxes:
    """Return the places of the centers of boxes along an axis, pixels."""
    return np.asarray((np.arange(count) + 0.5) * BOX - 0.5, np.float64)


def _disagreement(boxes: Sequence[_Image], levels: Sequence[Level]) -> float:
    """Return how far frames are apart where they overlap: the median of all boxes and channels, data units."""
    x = _centers(boxes[0].shape[1])[np.newaxis, :, np.newaxis]
    y = _centers(boxes[0].shape[0])[:, np.newaxis, np.newaxis]
    each = []
    for box, level in zip(boxes, levels, strict=True):
        offset, x_slope, y_slope = (np.array(part) for part in (level.offset, level.x_slope, level.y_slope))
        each.append(box.astype(np.float64) * level.scale + offset + x * x_slope + y * y_slope)
    values = np.stack(each)
    values = values[:, np.isfinite(values).sum(axis=0) > 1]
    return float(np.median(np.nanstd(values, axis=0))) if values.size else 0.0


def _gauss_seidel(plane: _Boxes, design: _Boxes, coefficients: _Boxes, reference: int) -> None:
    """Fill in the coefficients (frame, term) of one channel.

    The reference is fitted as all others are, and what it got is taken from all afterwards: held fast, it alone would
    pull against all others, and a set of n frames would take n times as long.
    """
    adjusted = plane.copy()
    present = np.isfinite(plane)
    count = present.sum(axis=0)
    shared = [present[index] & (count > 1) for index in range(len(plane))]
    values = plane[present]
    done = _DONE * float(np.median(np.abs(values - np.median(values)))) if values.size else 0.0
    fitted = [index for index in range(len(plane)) if shared[index].sum() >= 2 * design.shape[-1]]
    for round_ in range(_ROUNDS):
        before = adjusted.copy()
        total = np.where(present, adjusted, 0.0).sum(axis=0)
        for index in fitted:
            at = shared[index]
            mean = (total - np.where(present[index], adjusted[index], 0.0))[at] / (count[at] - 1)
            coefficients[index] = _fit_clipped(design[at], mean - plane[index][at])
            now = plane[index] + design @ coefficients[index]
            total += np.where(present[index], now - adjusted[index], 0.0)
            adjusted[index] = now
        if reference in fitted:
            gauge = coefficients[reference].copy()
            coefficients[fitted] -= gauge
            adjusted[fitted] -= design @ gauge
        if round_ and float(np.nanmax(np.abs(adjusted - before), initial=0.0)) <= done:
            break


def _fit_clipped(design: _Boxes, wanted: _Boxes) -> _Boxes:
    """Fit least squares, leaving out boxes with stars or trails in one frame only."""
    keep = np.ones(len(wanted), np.bool_)
    fit: _Boxes = np.zeros(design.shape[-1])
    for _ in range(5):
        if design.shape[-1] == 1:
            fit = wanted[keep].mean(keepdims=True)
        else:
            fit = np.asarray(np.linalg.lstsq(design[keep], wanted[keep], rcond=None)[0], np.float64)
        rest = wanted - design @ fit
        spread = 1.4826 * float(np.median(np.abs(rest[keep]))) + np.finfo(np.float64).tiny
        now = np.abs(rest) <= _CLIP * spread
        if now.sum() < 2 * design.shape[-1] or np.array_equal(now, keep):
            break
        keep = now
    return fit


def sky_scatter(boxes: Sequence[_Image], scales: Sequence[float], noises: Sequence[float]) -> list[float]:
    """Return how much each frame's sky differs from the others' median after a plane, in noises of its pixels."""
    values = np.stack([box.mean(axis=2, dtype=np.float64) * scale for box, scale in zip(boxes, scales, strict=True)])
    rows, columns = values.shape[1:]
    x, y = np.arange(columns)[np.newaxis, :] / columns, np.arange(rows)[:, np.newaxis] / rows
    design = np.stack(np.broadcast_arrays(1.0, x, y), axis=-1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # frames that fill no box
        values -= np.nanmedian(values.reshape(len(values), -1), axis=1)[:, np.newaxis, np.newaxis]
    for row in range(rows):  # bounds what is sorted at once
        values[:, row] -= medians_of_others(values[:, row])
    result = []
    for scale, noise, difference in zip(scales, noises, values, strict=True):
        shared = np.isfinite(difference)
        if shared.sum() < 12 or not noise > 0:
            result.append(float("nan"))
            continue
        rest = difference[shared] - design[shared] @ _fit_clipped(design[shared], difference[shared])
        result.append(1.4826 * float(np.median(np.abs(rest))) / (noise * scale))
    return result


def medians_of_others(values: _Boxes) -> _Boxes:
    """Return for each value the median of the others in its column, shape (frame, column); NaN is no value.

    A sorted column without one of its values is that column with a gap: all medians need one sorting.
    """
    order = np.argsort(values, axis=0)
    ordered, rank = np.take_along_axis(values, order, axis=0), np.empty_like(order)
    np.put_along_axis(rank, order, np.arange(len(values))[:, np.newaxis], axis=0)
    is_there = np.isfinite(values)
    others = is_there.sum(axis=0) - is_there
    both = np.zeros(values.shape)
    for middle in ((others - 1) // 2, others // 2):
        place = middle + (is_there & (rank <= middle))
        both += np.take_along_axis(ordered, place.clip(0, len(values) - 1), axis=0)
    return np.where(others > 0, both / 2, np.nan)
