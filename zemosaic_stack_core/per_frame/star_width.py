"""How wide the stars of a frame are."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from zemosaic_stack_core.frames.cut_frames import read_section
from zemosaic_stack_core.frames.group import FrameSource
from zemosaic_stack_core.frames.masks import MaskSource, Section
from zemosaic_stack_core.frames.pixel_rows import FilePool
from zemosaic_stack_core.per_frame.sky import measure_sky
from zemosaic_stack_core.per_frame.star_pixels import (
    FWHM_OF_SIGMA,
    find_peaks,
    measure_windows,
    ring_levels,
    smooth,
    usual_star,
)

# Rows and columns, at most, of the part of a frame that is searched for stars: 16 MiB per channel.
CROP_SIDE = 2048
# Of the background's noise: of a peak in the smoothed image, and in the image itself.
_THRESHOLD = 5.0
_LEAST_PEAK = 15.0
# Pixels from the border, and around a peak.
_MARGIN = 3
_RING = 6.0
# Pixels of a core that can be fitted.
_SMALLEST_AREA = 5
# Part of a lone pixel that is left of it in the smoothed image, and a little more.
_HOT = 0.35
# Pixels FWHM: a hot pixel has less, also after it was moved by a part of a pixel.
_SHARPEST = 1.5
# Axis ratio.
_LEAST_ROUND = 0.5
# Of the brightest sample of the crop: stars that reach it may be cut off.
_SATURATION = 0.9
# Of the peak: above it even a star with wide wings (Moffat, beta 3) is nearly a Gaussian.
_CORE = 0.4
# Of the median width: what is wider is two stars, or one that is cut off.
_WIDEST = 1.5
_FEWEST_STARS = 3
_MOST_STARS = 400
_Floats = npt.NDArray[np.float64]


def star_width(source: FrameSource, masks: Sequence[MaskSource] = (), center: tuple[int, int] | None = None) -> _Floats:
    """Return the median full width at half maximum of a frame's stars, shape (channel,), pixels.

    NaN where fewer than 3 stars can be measured. They are searched for around the row and column `center`, by default
    the middle, on at most `CROP_SIDE` rows and columns.
    """
    row, column = (source.rows // 2, source.columns // 2) if center is None else center
    start = max(0, min(row - CROP_SIDE // 2, source.rows - CROP_SIDE))
    first = max(0, min(column - CROP_SIDE // 2, source.columns - CROP_SIDE))
    stop, last = min(source.rows, start + CROP_SIDE), min(source.columns, first + CROP_SIDE)
    with FilePool(4) as files:
        crop = read_section(source, Section(start, stop, first, last), files, masks)
    return np.array([image_star_width(image) for image in crop])


def image_star_width(image: npt.NDArray[np.float32]) -> float:
    """Return the median full width at half maximum of the stars of an image, pixels; NaN below 3 measurable stars.

    `image` is of shape (row, column), in any unit; what is not finite is missing.

    Notes
    -----
    Stars are peaks, in the image weighted 1-2-1 without its sky, 5 times its noise above what is around them, that are
    15 times the noise high, whole, not saturated, not twice as long as wide, and wider than a hot pixel. Of the 400
    brightest, the logarithm of the pixels above 0.4 of the peak, less background, is fitted by a line in the squared
    distance from the centroid, weighted by their squares: its slope is ``-1/(2 sigma**2)`` of the Gaussian core, and
    FWHM = 2.3548 sigma; the median of those that are at most 1.5 times as wide as the median of all.
    """
    return count_and_width(image)[1]


def count_and_width(image: npt.NDArray[np.float32]) -> tuple[int, float]:
    """Return how many single, whole stars an image has, and their width as `image_star_width` does."""
    missing = ~np.isfinite(image)
    if min(image.shape) < 2 * _SMALLEST_AREA:
        return 0, np.nan
    sky = measure_sky(image, missing)
    if sky is None:
        return 0, np.nan
    data = np.where(missing, np.float32(0.0), image - sky.level_image()).astype(np.float32)
    noise = sky.noise
    smoothed = smooth(data)
    row, column = find_peaks(smoothed, smoothed > _THRESHOLD * noise, _MARGIN)
    stands = smoothed[row, column] - ring_levels(smoothed, row, column, _RING) > _THRESHOLD * noise
    height = data[row, column]
    stands &= smoothed[row, column] > _HOT * height
    stands &= (height > _LEAST_PEAK * noise) & (height < _SATURATION * data.max(initial=0.0))
    row, column = row[stands], column[stands]
    usual = usual_star(data, column, row, _SHARPEST)
    seen = measure_windows(data, column.astype(np.float64), row.astype(np.float64), usual.window / FWHM_OF_SIGMA)
    stays = np.hypot(seen.x - column, seen.y - row) < usual.window / 2
    good = np.flatnonzero(stays & (seen.fwhm > _SHARPEST) & (seen.roundness > _LEAST_ROUND))
    count, good = len(good), good[:_MOST_STARS]
    if count < _FEWEST_STARS:
        return count, np.nan
    radius = float(np.median(seen.fwhm[good])) / 2
    widths = _core_widths(data, missing, seen.y[good], seen.x[good], radius, noise)
    if len(widths) < _FEWEST_STARS:
        return count, np.nan
    return count, float(np.median(widths[widths <= _WIDEST * np.median(widths)]))


def _core_widths(
    data: npt.NDArray[np.float32],
    mask: npt.NDArray[np.bool_],
    rows: _Floats,
    columns: _Floats,
    radius: float,
    noise: float,
) -> _Floats:
    """Return the width of each star's core, shape (star,), of those stars whose core can be fitted."""
    reach = int(np.ceil(1.5 * radius)) + 1
    row, column = np.rint(rows).astype(np.intp), np.rint(columns).astype(np.intp)
    inside = (row >= reach) & (column >= reach) & (row < data.shape[0] - reach) & (column < data.shape[1] - reach)
    step = np.arange(-reach, reach + 1)
    at = row[inside, None, None] + step[:, None], column[inside, None, None] + step
    values = data[at].astype(np.float64)
    square = (at[0] - rows[inside, None, None]) ** 2 + (at[1] - columns[inside, None, None]) ** 2
    near = (np.abs(step) <= 1)[:, None] & (np.abs(step) <= 1)
    peak = np.where(near, values, 0.0).max(axis=(1, 2), keepdims=True)
    # The pixels around the peak belong to the core of a star however narrow it is.
    core = (values > _CORE * peak) & (square <= (reach + 0.5) ** 2) | near & (values > _THRESHOLD * noise)
    core &= ~mask[at]
    weight = np.where(core, values, 0.0) ** 2
    logarithm = np.log(np.where(core, values, 1.0))
    total = weight.sum(axis=(1, 2), keepdims=True)
    fits = (core.sum(axis=(1, 2)) >= _SMALLEST_AREA) & (total[:, 0, 0] > 0.0)
    weight, logarithm, square, total = weight[fits], logarithm[fits], square[fits], total[fits]
    square = square - (weight * square).sum(axis=(1, 2), keepdims=True) / total
    drop = -(weight * square * logarithm).sum(axis=(1, 2))
    spread = (weight * square * square).sum(axis=(1, 2))
    falls = drop > 0.0
    widths: _Floats = FWHM_OF_SIGMA * np.sqrt(0.5 * spread[falls] / drop[falls])
    return widths
