"""The level of a frame on the canvas, `Level`, and what is known of its sky: medians of boxes."""

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
# Rows of boxes.
_ROWS_AT_ONCE = 4
# Of a box's side: a sixteenth of it is missing at one side.
_OFF_CENTER = 0.06
# Robust standard deviations that a box may lie off the fit.
_CLIP = 3.0


@dataclass(frozen=True, eq=False, kw_only=True)
class Level:
    """What brings a frame to the common level, per channel: ``v * scale + offset + x_slope * x + y_slope * y``."""

    # Star flux of the reference over the frame's.
    scale: float
    # Per channel; x and y are canvas pixels.
    offset: tuple[float, ...]
    x_slope: tuple[float, ...]
    y_slope: tuple[float, ...]
    # Added besides: shape (box row, box column, channel), at the centers of boxes, straight between them.
    surface: _Image | None = None

    @property
    def changes_nothing(self) -> bool:
        """Whether the frame stays as it is."""
        plain = self.scale == 1.0 and not any((*self.offset, *self.x_slope, *self.y_slope))
        return plain and self.surface is None

    @property
    def parts(self) -> tuple[object, ...]:
        """What the leveled pixels depend on, for a signature."""
        surface = b"" if self.surface is None else self.surface.tobytes()
        return self.scale, self.offset, self.x_slope, self.y_slope, surface

    @property
    def text(self) -> str:
        """What was done, for a header."""
        offsets = ", ".join(f"{value:.6g}" for value in self.offset)
        slopes = " and a slope" if any((*self.x_slope, *self.y_slope)) else ""
        surface = "" if self.surface is None else ", faded into its neighbors"
        return f"times {self.scale:.6g}, plus {offsets}{slopes}{surface}"

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
            if self.surface is not None:
                plane += _between_boxes(self.surface[..., channel], plane.shape)


def box_centers(count: int) -> _Boxes:
    """Return the places of the centers of boxes along an axis, pixels."""
    return np.asarray((np.arange(count) + 0.5) * BOX - 0.5, np.float64)


def _between_boxes(surface: _Image, shape: tuple[int, int]) -> _Image:
    """Return the values at all pixels of a surface that is known at the centers of boxes."""
    rows, columns = surface.shape
    x = np.arange(shape[1], dtype=np.float64)
    lines = np.stack([np.interp(x, box_centers(columns), line) for line in surface]).astype(np.float32)
    place = np.clip((np.arange(shape[0]) + 0.5) / BOX - 0.5, 0, rows - 1)
    above = np.minimum(place.astype(np.intp), max(rows - 2, 0))
    part = (place - above).astype(np.float32)[:, np.newaxis]
    below = lines[np.minimum(above + 1, rows - 1)]
    return np.asarray(lines[above] * (1 - part) + below * part, np.float32)


def box_medians(image: _Image) -> _Image:
    """Return the median of each box of a canvas image, (box row, box column, channel); NaN where too little is there.

    A box counts where a quarter of it is present and the middle of that is the middle of the box: half a box, at a
    frame's border, stands for another piece of a sloping sky than the whole box of the next frame.
    """
    planes = image[..., np.newaxis] if image.ndim == 2 else image
    rows, columns = (-(-length // BOX) for length in planes.shape[:2])
    out = np.full((rows, columns, planes.shape[2]), np.nan, np.float32)
    strip = np.full((planes.shape[2], _ROWS_AT_ONCE * BOX, columns * BOX), np.nan, np.float32)
    for start in range(0, rows, _ROWS_AT_ONCE):
        given = planes[start * BOX : (start + _ROWS_AT_ONCE) * BOX].transpose(2, 0, 1)
        strip[:, : given.shape[1], : given.shape[2]] = given
        strip[:, given.shape[1] :] = np.nan
        boxes = strip.reshape(-1, _ROWS_AT_ONCE, BOX, columns, BOX).transpose(1, 3, 0, 2, 4)
        boxes = boxes[: rows - start].reshape(-1, columns, len(strip), BOX * BOX)
        ordered = np.sort(boxes, axis=-1)
        is_whole = np.isfinite(ordered[..., 0]) & np.isfinite(ordered[..., -1])  # NaN is sorted to the end
        middle = BOX * BOX // 2
        found = out[start : start + _ROWS_AT_ONCE]
        found[is_whole] = ordered[is_whole, middle - 1 : middle + 1].mean(axis=1)
        found[~is_whole] = _medians_of_parts(boxes[~is_whole])
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
