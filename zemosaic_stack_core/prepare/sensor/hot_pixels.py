"""Pixels of the sensor that are wrong: found by being sharper than any star, in the darks or in frame after frame."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from zemosaic_stack_core.prepare.medians import median_of
from zemosaic_stack_core.prepare.sensor.neighbors import bordered, neighbor, run_on_neighbors, values_around

_Image = npt.NDArray[np.float32]
_Mask = npt.NDArray[np.bool_]

# In one frame; what is then seen in most frames is no chance.
_SIGMAS = 5.0
# A pixel is no star where the three fainter of its four neighbors have less than this part of its light. A round star
# of 1.5 pixels FWHM has 0.22 to 0.39, wherever it is centered; a red one's green neighbors in a mosaic are fainter.
_STAR_NEIGHBORS = 0.2
_STAR_NEIGHBORS_CFA = 0.1
# Part of the light of the sharpest star (1.3 pixels FWHM) that three of its four neighbors have.
_SHARP_STAR = 0.05
# Pixels, side of the surroundings that a dark's noise is measured in.
_NOISE_BOX = 64
# Part of the sensor that may be hot; more is something else.
MOST_HOT = 0.02
# Part of the frames that a hot pixel is seen in: others are noise or a cosmic ray.
_FRAMES_HOT = 0.6


def sharp_pixels(image: _Image, *, is_cfa: bool = False, sigmas: float = _SIGMAS) -> _Mask:
    """Find pixels of a finite image that are brighter or darker than their neighbors as no star can be.

    They lie `sigmas` robust deviations off a 3 x 3 median of one color.
    """
    excess = _excess(image, is_cfa=is_cfa)
    some = np.abs(excess[::3, ::3])
    # Of coarse integers more than half are at the median: the others tell.
    noise = median_of(some) / 0.6745 or float(np.quantile(some, 0.9)) / 1.645 or float(some.mean())
    strong = np.abs(excess) > sigmas * noise
    rows, columns = _places(strong)
    center = excess[rows, columns]
    sign = np.sign(center)
    around = np.sort(values_around(excess, rows, columns, ((-1, 0), (1, 0), (0, -1), (0, 1)), 0.0) * sign, axis=0)
    limit = _STAR_NEIGHBORS_CFA if is_cfa else _STAR_NEIGHBORS
    keep = around[:3].mean(axis=0) < limit * np.abs(center)
    if not is_cfa:  # the sharpest star spreads to three of the four, a hot pixel to none
        keep &= around[1] < _SHARP_STAR * np.abs(center) + noise
    keep &= _is_extreme(image, rows, columns, sign, 2 if is_cfa else 1)
    found = np.zeros(image.shape, np.bool_)
    found[rows[keep], columns[keep]] = True
    return found


def _places(mask: _Mask) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Return the rows and columns where a mask is true: `numpy.nonzero` takes thirty times as long for few of many."""
    rows, columns = np.divmod(np.flatnonzero(mask), mask.shape[1])
    return rows, columns


def _is_extreme(
    image: _Image, rows: npt.NDArray[np.intp], columns: npt.NDArray[np.intp], sign: _Image, step: int
) -> _Mask:
    """Return which pixels none of the eight nearest of their color outdoes: on a star's slope one does."""
    around = values_around(image, rows, columns, _nearest(step))
    extreme: _Mask = np.all(around * sign <= image[rows, columns] * sign, axis=0)
    return extreme


def _nearest(step: int) -> list[tuple[int, int]]:
    """Return the offsets of the eight pixels around one, so many pixels apart."""
    return [(dy, dx) for dy in (-step, 0, step) for dx in (-step, 0, step) if dy or dx]


def hot_in_dark(dark: _Image, *, sigmas: float = 12.0) -> _Mask:
    """Find the hot pixels of a master dark: far above (or below) the pixels around them, by the noise there.

    Their dark current can be subtracted, but its noise, and its drift with the temperature, can't. A smooth glow, a
    gradient or a banding is no defect: levels are medians over 5 x 5 pixels, noises those of the surroundings.
    """
    finite = np.isfinite(dark)
    filled = dark if finite.all() else np.where(finite, dark, np.float32(np.median(dark[finite])))
    # Of every second pixel of 5 x 5, which takes a tenth of the time of all 25; what stands out meets all.
    excess = np.abs(_excess(filled, is_cfa=True))
    limit = sigmas * _noise_around(excess)
    hot: _Mask = excess > limit
    rows, columns = np.nonzero(hot)
    padded = np.pad(filled, 2, mode="symmetric")
    around = np.stack([padded[rows + dy, columns + dx] for dy in range(5) for dx in range(5)])
    low, middle = np.quantile(around, (0.1, 0.5), axis=0)
    # Where the ground is steep the median is not the level.
    hot[rows, columns] = np.abs(filled[rows, columns] - middle) > limit[rows, columns] + 2 * (middle - low)
    return hot | ~finite


def _noise_around(excess: _Image) -> _Image:
    """Return the noise in the surroundings of each pixel: robust, and not zero where most values are the same."""
    rows, columns = (-(-length // _NOISE_BOX) for length in excess.shape)
    padding = [(0, count * _NOISE_BOX - length) for count, length in zip((rows, columns), excess.shape, strict=True)]
    boxes = np.pad(excess, padding, mode="symmetric").reshape(rows, _NOISE_BOX, columns, _NOISE_BOX)
    # Of coarse or clipped darks more than half are at the median: then what is usual of the others counts.
    parts = np.quantile(boxes, (0.5, 0.9), axis=(1, 3))
    noise = np.where(parts[0] > 0, parts[0] / 0.6745, parts[1] / 1.645)
    usual = float(np.median(noise)) or float(excess[excess > 0].mean() if (excess > 0).any() else 1.0)
    noise = np.maximum(noise, 0.5 * usual).astype(np.float32)
    around: _Image = noise.repeat(_NOISE_BOX, 0).repeat(_NOISE_BOX, 1)[: excess.shape[0], : excess.shape[1]]
    return around


def persistent_pixels(counts: npt.NDArray[np.integer], frames: int) -> _Mask:
    """Find the pixels that were sharp in most frames (of 3 or more), and in more than chance explains.

    `counts` has in how many of the `frames` a pixel was sharp, shape (row, column).

    Notes
    -----
    With p the part of samples that are sharp, ``pixels * P(count >= k)`` pixels of a binomial count would be called hot
    by chance. The threshold k is at least 60 % of the frames, and raised until that number is below one half: images
    with structure in every pixel (resampled ones, crowded fields) then lose nothing.
    """
    if frames < 3:
        return np.zeros(counts.shape, np.bool_)
    p = float(counts.mean()) / frames
    tail = 0.0
    threshold = frames + 1
    for k in range(frames, max(2, math.ceil(_FRAMES_HOT * frames)) - 1, -1):
        tail += math.comb(frames, k) * p**k * (1.0 - p) ** (frames - k)
        if counts.size * tail >= 0.5:
            break
        threshold = k
    return counts >= threshold


def clean_pixels(image: _Image, bad: _Mask, *, is_cfa: bool = False) -> _Image:
    """Replace bad pixels by the median of the good among the eight nearest of their color.

    Clusters are filled from their rim inwards; pixels stay NaN only where the whole color has no good pixel.
    """
    offsets = _nearest(2 if is_cfa else 1)
    if not bad.any():
        return image
    source = image.copy()
    source[bad] = np.nan
    rows, columns = _places(bad)
    while rows.size:
        around = values_around(source, rows, columns, offsets, np.nan)
        some = np.isfinite(around).any(axis=0)
        if not some.any():
            break
        source[rows[some], columns[some]] = np.nanmedian(around[:, some], axis=0)
        rows, columns = rows[~some], columns[~some]
    return source


def _excess(image: _Image, *, is_cfa: bool) -> _Image:
    """Return what a pixel has above the 3 x 3 median of its color, border pixels repeated."""
    excess = np.empty_like(image)
    step = 2 if is_cfa else 1
    offsets = [(0, 0), *_nearest(step)]
    for rows, found in run_on_neighbors(_above_median, step, bordered(image, step, by_color=True), step, offsets):
        excess[rows] = found["excess"]
    return excess


def _above_median(xp: Any, column: Any, step: int) -> dict[str, Any]:
    """Return what a pixel has above the median of nine: columns sorted first, then what can be the median of all."""
    low, middle, high = [], [], []
    for x in (-step, 0, step):
        first, second, third = (column.whole(neighbor(y, x)) for y in (-step, 0, step))
        below, above = xp.minimum(first, second), xp.maximum(first, second)
        low.append(xp.minimum(below, third))
        middle.append(xp.maximum(below, xp.minimum(above, third)))
        high.append(xp.maximum(above, third))
    lowest = xp.maximum(xp.maximum(low[0], low[1]), low[2])
    highest = xp.minimum(xp.minimum(high[0], high[1]), high[2])
    median = _median_of_three(xp, lowest, _median_of_three(xp, *middle), highest)
    return {"excess": column.whole(neighbor(0, 0)) - median}


def _median_of_three(xp: Any, first: Any, second: Any, third: Any) -> Any:
    """Return the median of three values."""
    return xp.maximum(xp.minimum(first, second), xp.minimum(xp.maximum(first, second), third))
