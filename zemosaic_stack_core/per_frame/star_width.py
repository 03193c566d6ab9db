"""How wide the stars of a frame are, by `sep` (SExtractor's algorithms as a library)."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from zemosaic_stack_core.errors import InvalidInputError
from zemosaic_stack_core.frames.group import FrameSource
from zemosaic_stack_core.frames.masks import MaskSource
from zemosaic_stack_core.frames.pixel_rows import FilePool

# Rows and columns, at most, of the part of a frame that is searched for stars: 16 MiB per channel.
CROP_SIDE = 2048
_BAND_BYTES = 4 * 2**20
# Of the background's noise: in every pixel of a star, and at its peak.
_THRESHOLD = 5.0
_LEAST_PEAK = 15.0
# Pixels above the threshold: a hot pixel has 1, or 4 after it was moved by a part of a pixel.
_SMALLEST_AREA = 5
# Half-light radius, pixels: a hot pixel's is 0.4 to 0.7.
_SMALLEST_RADIUS = 0.75
_LONGEST_AXIS_RATIO = 2.0
# Of the brightest sample of the crop: stars that reach it may be cut off.
_SATURATION = 0.9
# Radius around a star with all of its light, of its rms radius.
_APERTURE = 6.0
# Of the peak: above it even a star with wide wings (Moffat, beta 3) is nearly a Gaussian.
_CORE = 0.4
_FEWEST_STARS = 3
_MOST_STARS = 400
# Pixels.
_BACKGROUND_CELL = 64
# 2 sqrt(2 ln 2).
_GAUSSIAN_FWHM = 2.3548200450309493

_Floats = npt.NDArray[np.float64]


def require_star_library() -> Any:
    """Return the module `sep`; raise `InvalidInputError`, which says how to install it, where it is not there."""
    try:
        return importlib.import_module("sep")
    except ImportError:
        raise InvalidInputError(
            "weighting 'noise_fwhm' measures stars with sep, which is not installed; "
            "expected: python -m pip install sep"
        ) from None


def star_width(source: FrameSource, masks: Sequence[MaskSource] = (), center: tuple[int, int] | None = None) -> _Floats:
    """Return the median full width at half maximum of a frame's stars, shape (channel,), pixels.

    NaN where fewer than 3 stars can be measured. They are searched for around the row and column `center`, by default
    the middle, on at most `CROP_SIDE` rows and columns.
    """
    row, column = (source.rows // 2, source.columns // 2) if center is None else center
    start = max(0, min(row - CROP_SIDE // 2, source.rows - CROP_SIDE))
    first = max(0, min(column - CROP_SIDE // 2, source.columns - CROP_SIDE))
    stop, last = min(source.rows, start + CROP_SIDE), min(source.columns, first + CROP_SIDE)
    crop = np.empty((source.channels, stop - start, last - first), np.float32)
    step = max(1, _BAND_BYTES // (source.channels * source.columns * source.dtype.itemsize))
    buffer: npt.NDArray[Any] = np.empty((source.channels, min(step, stop - start), source.columns), source.dtype)
    with FilePool(4) as files:
        for above in range(start, stop, step):
            below = min(above + step, stop)
            band = buffer[:, : below - above]
            source.read_rows(above, below, band, files)
            part = crop[:, above - start : below - start]
            part[:] = band[:, :, first:last]
            for mask in masks:
                marked = np.broadcast_to(mask.mask_rows(above, below, files), band.shape)
                part[marked[:, :, first:last]] = np.nan
    return np.array([image_star_width(image) for image in crop])


def image_star_width(image: npt.NDArray[np.float32]) -> float:
    """Return the median full width at half maximum of the stars of an image, pixels; NaN below 3 measurable stars.

    `image` is of shape (row, column), in any unit; what is not finite is missing.

    Notes
    -----
    Stars are groups of at least 5 neighboring pixels above 5 times the noise of the background that are single, whole,
    not saturated, not twice as long as wide, and have a half-light radius that no hot pixel has. Of the 400 brightest,
    the logarithm of the pixels above 0.4 of the peak, less background, is fitted by a line in the squared distance from
    the centroid, weighted by their squares: its slope is ``-1/(2 sigma**2)`` of the Gaussian core, and
    FWHM = 2.3548 sigma.
    """
    return count_and_width(image)[1]


def count_and_width(image: npt.NDArray[np.float32]) -> tuple[int, float]:
    """Return how many single, whole stars an image has, and their width as `image_star_width` does."""
    sep = require_star_library()
    mask = ~np.isfinite(image)
    if mask.all() or min(image.shape) < 2 * _SMALLEST_AREA:
        return 0, np.nan
    data = np.where(mask, np.float32(0.0), image).astype(np.float32)
    background = sep.Background(data, mask=mask, bw=_BACKGROUND_CELL, bh=_BACKGROUND_CELL)
    background.subfrom(data)
    data[mask] = 0.0
    noise = float(background.globalrms)
    if not noise > 0.0:
        return 0, np.nan
    # sep's buffer of pixels above the threshold is of a fixed size, and an error beyond it.
    sep.set_extract_pixstack(max(sep.get_extract_pixstack(), data.size))
    found = sep.extract(
        data, _THRESHOLD, err=noise, mask=mask, minarea=_SMALLEST_AREA, filter_kernel=None, deblend_cont=1.0
    )
    good = (found["flag"] == 0) & (found["a"] < _LONGEST_AXIS_RATIO * found["b"])
    good &= (found["peak"] > _LEAST_PEAK * noise) & (found["peak"] < _SATURATION * data.max())
    stars = found[good]
    if len(stars) < _FEWEST_STARS:
        return len(stars), np.nan
    radius, _ = sep.flux_radius(data, stars["x"], stars["y"], _APERTURE * stars["a"], 0.5, mask=mask)
    stars, radius = stars[radius > _SMALLEST_RADIUS], radius[radius > _SMALLEST_RADIUS]
    count = len(stars)
    brightest = np.argsort(-stars["peak"], kind="stable")[:_MOST_STARS]
    stars, radius = stars[brightest], radius[brightest]
    if count < _FEWEST_STARS:
        return count, np.nan
    columns, rows, _ = sep.winpos(data, stars["x"], stars["y"], 2.0 * radius / _GAUSSIAN_FWHM, mask=mask)
    widths = _core_widths(data, mask, rows, columns, float(np.median(radius)), noise)
    return count, float(np.median(widths)) if len(widths) >= _FEWEST_STARS else np.nan


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
    widths: _Floats = _GAUSSIAN_FWHM * np.sqrt(0.5 * spread[falls] / drop[falls])
    return widths
