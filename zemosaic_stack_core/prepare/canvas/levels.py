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

_Boxes = npt.NDArray[np.float64]

BOX = 16  # pixels; a box's median is 13 times finer than a pixel
_OFF_CENTER = 0.06  # of a box's side: a sixteenth of it is missing at one side
_ROUNDS = 200
_DONE = 1e-3  # of the smallest noise of a box: no more to gain
_CLIP = 3.0
_SPANNED = 0.7  # of a frame's height and width; a slope that overlaps don't span is an extrapolation
_BETTER = 0.75  # of the disagreement that offsets leave; slopes must do better than that


@dataclass(frozen=True, kw_only=True)
class Level:
    """What brings one frame to the common level: ``v * scale + offset + x_slope * x + y_slope * y`` per channel.

    Parameters
    ----------
    scale : float
        Star flux of the reference over the frame's.
    offset, x_slope, y_slope : tuple of float
        Per channel; x and y are canvas pixels.
    """

    scale: float
    offset: tuple[float, ...]
    x_slope: tuple[float, ...]
    y_slope: tuple[float, ...]

    @property
    def changes_nothing(self) -> bool:
        """Whether the frame stays as it is."""
        return self.scale == 1.0 and not any((*self.offset, *self.x_slope, *self.y_slope))


def box_medians(image: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Return the median of each box of a canvas image, (box row, box column, channel); NaN where too little is there.

    A box counts where a quarter of it is present and the middle of that is the middle of the box: half a box, at a
    frame's border, stands for another piece of a sloping sky than the whole box of the next frame.
    """
    planes = image[..., np.newaxis] if image.ndim == 2 else image
    rows, columns = -(-planes.shape[0] // BOX), -(-planes.shape[1] // BOX)
    out = np.full((rows, columns, planes.shape[2]), np.nan, np.float32)
    padding = ((0, 0), (0, columns * BOX - planes.shape[1]))
    place = np.arange(BOX) - (BOX - 1) / 2
    for row in range(rows):
        for channel in range(planes.shape[2]):
            strip = planes[row * BOX : (row + 1) * BOX, :, channel]
            strip = np.pad(strip, ((0, BOX - strip.shape[0]), padding[1]), constant_values=np.nan)
            present = np.ascontiguousarray(np.isfinite(strip))
            # A byte of a bool is 0 or 1: eight of them are counted at once.
            by_row = np.bitwise_count(present.view(np.uint64)).reshape(BOX, columns, 2).sum(axis=2, dtype=np.int64)
            by_column = np.add.reduce(present, axis=0, dtype=np.uint8).reshape(columns, BOX)
            count = by_row.sum(axis=0)
            off = np.maximum(np.abs(by_column @ place), np.abs(place @ by_row))
            good = np.flatnonzero((4 * count >= BOX * BOX) & (off <= _OFF_CENTER * BOX * count))
            if good.size:
                if int(count.sum()) != strip.size:
                    strip = np.where(present, strip, np.float32(np.nan))
                boxes = strip.reshape(BOX, columns, BOX).transpose(1, 0, 2)
                ordered = np.sort(boxes[good].reshape(good.size, -1), axis=1)
                middle = np.stack([(count[good] - 1) // 2, count[good] // 2], axis=1)
                out[row, good, channel] = np.take_along_axis(ordered, middle, axis=1).mean(axis=1)
    return out


def match_levels(
    boxes: Sequence[npt.NDArray[np.float32]], scales: Sequence[float], reference: int, mode: str
) -> list[Level]:
    """Find each frame's offset (and slopes) so that frames agree where they overlap; the reference's stay zero.

    Parameters
    ----------
    boxes : sequence of arrays of shape (box row, box column, channel)
        One per frame; see `box_medians`.
    scales : sequence of float
        Of the frames' fluxes.
    reference : int
        Index of the frame that stays as it is.
    mode : {"offset", "plane"}
        What is fitted.

    Notes
    -----
    Each frame in turn is fitted, robustly, to the mean of all the others as they stand, until nothing changes:
    Gauss-Seidel on the least squares problem over all overlaps.
    """
    values = np.stack(boxes).astype(np.float64) * np.asarray(scales)[:, np.newaxis, np.newaxis, np.newaxis]
    frames, rows, columns, channels = values.shape
    x = (np.arange(columns) + 0.5) * BOX - 0.5
    y = (np.arange(rows) + 0.5) * BOX - 0.5
    x0, y0 = x.mean(), y.mean()
    design = np.stack(np.broadcast_arrays(1.0, (x - x0)[np.newaxis, :], (y - y0)[:, np.newaxis]), axis=-1)
    terms = 3 if mode == "plane" else 1
    coefficients = np.zeros((frames, channels, 3))
    for channel in range(channels):
        plane = values[..., channel]
        _gauss_seidel(plane, design[..., :terms], coefficients[:, channel, :terms], reference)
    result = []
    for index in range(frames):
        c = coefficients[index]
        result.append(Level(
            scale=float(scales[index]), offset=tuple(float(v) for v in c[:, 0] - c[:, 1] * x0 - c[:, 2] * y0),
            x_slope=tuple(map(float, c[:, 1])), y_slope=tuple(map(float, c[:, 2])),
        ))  # fmt: skip
    return result


def best_levels(
    boxes: Sequence[npt.NDArray[np.float32]], scales: Sequence[float], reference: int
) -> tuple[list[Level], str]:
    """Find offsets, or planes where overlaps span every frame and planes make them agree clearly better.

    Returns
    -------
    list of Level, str
        And the mode, "offset" or "plane".
    """
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
    """Tell whether the shared boxes of a frame reach over most of its rows and of its columns."""
    return all(
        shared.any()
        and np.ptp(np.flatnonzero(shared.any(axis=axis))) >= _SPANNED * np.ptp(np.flatnonzero(present.any(axis=axis)))
        for axis in (0, 1)
    )


def _disagreement(boxes: Sequence[npt.NDArray[np.float32]], levels: Sequence[Level]) -> float:
    """Return how far frames are apart where they overlap: the median of all boxes and channels, data units."""
    rows, columns = boxes[0].shape[:2]
    x = ((np.arange(columns) + 0.5) * BOX - 0.5)[np.newaxis, :, np.newaxis]
    y = ((np.arange(rows) + 0.5) * BOX - 0.5)[:, np.newaxis, np.newaxis]
    values = np.stack([
        box.astype(np.float64) * level.scale + np.array(level.offset) + x * np.array(level.x_slope)
        + y * np.array(level.y_slope)
        for box, level in zip(boxes, levels, strict=True)
    ])  # fmt: skip
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
    fitted = [index for index in range(len(plane)) if shared[index].sum() >= 2 * design.shape[-1]]
    for round_ in range(_ROUNDS):
        before = adjusted.copy()
        total = np.where(present, adjusted, 0.0).sum(axis=0)
        for index in fitted:
            at = shared[index]
            mean = (total - np.where(present[index], adjusted[index], 0.0))[at] / (count[at] - 1)
            coefficients[index] = _robust_fit(design[at], mean - plane[index][at])
            now = plane[index] + design @ coefficients[index]
            total += np.where(present[index], now - adjusted[index], 0.0)
            adjusted[index] = now
        if reference in fitted:
            gauge = coefficients[reference].copy()
            coefficients[fitted] -= gauge
            adjusted[fitted] -= design @ gauge
        if round_ and float(np.nanmax(np.abs(adjusted - before), initial=0.0)) < _DONE:
            break


def _robust_fit(design: _Boxes, wanted: _Boxes) -> _Boxes:
    """Fit least squares, leaving out boxes with stars or trails in one frame only."""
    keep = np.ones(len(wanted), np.bool_)
    fit: _Boxes = np.zeros(design.shape[-1])
    only_offset = design.shape[-1] == 1
    for _ in range(5):
        if only_offset:
            fit = wanted[keep].mean(keepdims=True)
        else:
            fit = np.asarray(np.linalg.lstsq(design[keep], wanted[keep], rcond=None)[0], np.float64)
        rest = wanted - design @ fit
        spread = 1.4826 * float(np.median(np.abs(rest[keep]))) + 1e-12
        now = np.abs(rest) <= _CLIP * spread
        if now.sum() < 2 * design.shape[-1] or np.array_equal(now, keep):
            break
        keep = now
    return fit


def sky_scatter(
    boxes: Sequence[npt.NDArray[np.float32]], scales: Sequence[float], noises: Sequence[float]
) -> list[float]:
    """Return how much each frame's sky differs from the others' median after a plane, in noises of its pixels."""
    values = np.stack([box.mean(axis=2, dtype=np.float64) * scale for box, scale in zip(boxes, scales, strict=True)])
    rows, columns = values.shape[1:]
    design = np.stack(np.broadcast_arrays(1.0, np.arange(columns)[np.newaxis, :] / columns,
                                          np.arange(rows)[:, np.newaxis] / rows), axis=-1)  # fmt: skip
    level = np.nanmedian(values.reshape(len(values), -1), axis=1)
    centered = values - level[:, np.newaxis, np.newaxis]
    result = []
    for index, noise in enumerate(noises):
        others = np.delete(centered, index, axis=0)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # boxes that no other frame sees
            typical = np.nanmedian(others, axis=0) if len(others) else np.full((rows, columns), np.nan)
        difference = centered[index] - typical
        shared = np.isfinite(difference)
        if shared.sum() < 12 or not noise > 0:
            result.append(float("nan"))
            continue
        rest = difference[shared] - design[shared] @ _robust_fit(design[shared], difference[shared])
        result.append(1.4826 * float(np.median(np.abs(rest))) / (noise * scales[index]))
    return result
