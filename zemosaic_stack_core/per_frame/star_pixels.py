"""Peaks of an image and what is around them: the parts that a detector of stars is made of, without loops over stars.

Places are pixels, column x and row y; images have no sky.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import sliding_window_view

from zemosaic_stack_core.per_frame.sky import Image, Mask, Values

Indices = npt.NDArray[np.intp]

# 2 sqrt(2 ln 2).
FWHM_OF_SIGMA = 2.3548200450309493
# Pixels FWHM, of stars of which nothing is known.
USUAL_WIDTH = 3.0
# Pixels FWHM that windows are made for: narrower ones are off by where in its pixel a star is.
_WINDOWS = (2.5, 12.0)
# Peaks that tell the usual width, at most, and their axis ratio, at least.
_TELLING = 400
_LEAST_ROUND = 0.3
_ROUNDS = 5
_SETTLED = 0.03
# Of widths' logarithms.
_ALIKE = 0.1
# Computed at once: the arrays of a band, or of some stars, stay in the cache.
_BAND_ROWS = 32
_SAMPLES_AT_ONCE = 100_000
# Standard deviations of a window that its pixels reach.
_WINDOW_REACH = 3.3
_STEPS = 5
# Places around a peak that it is compared with.
_RING = 16
# Lines through a peak, and points of each on either side.
_LINES = 12
_LINE_POINTS = 4


def smooth(image: Image, step: int = 1) -> Image:
    """Return an image weighted 1-2-1 along rows and columns, mirrored at its border; `step` pixels between weights."""
    rows = len(image)
    smoothed = np.empty_like(image)
    sixteenth = np.float32(1 / 16)
    for start in range(0, rows, _BAND_ROWS):
        number = np.abs(np.arange(start - step, min(start + _BAND_ROWS, rows) + step))
        band = image[np.where(number < rows, number, 2 * (rows - 1) - number)]
        down = band[step:-step] + band[step:-step]
        down += band[: -2 * step]
        down += band[2 * step :]
        down = np.pad(down, ((0, 0), (step, step)), mode="reflect")
        across = down[:, step:-step] + down[:, step:-step]
        across += down[:, : -2 * step]
        across += down[:, 2 * step :]
        np.multiply(across, sixteenth, out=smoothed[start : start + _BAND_ROWS])
    return smoothed


def find_peaks(image: Image, above: Mask, margin: int) -> tuple[Indices, Indices]:
    """Return rows and columns of the largest of 3 x 3 among the pixels `above`, the brightest first."""
    margin = max(margin, 1)
    rows, columns = image.shape
    if min(rows, columns) <= 2 * margin:
        return np.zeros(0, np.intp), np.zeros(0, np.intp)
    flat = image.reshape(-1)
    where = np.flatnonzero(above)
    row, column = np.divmod(where, columns)
    where = where[(row >= margin) & (row < rows - margin) & (column >= margin) & (column < columns - margin)]
    # Of equal neighbors the first counts.
    for shift in (1, columns, columns + 1, columns - 1):
        where = where[flat[where] >= flat[where + shift]]
        where = where[flat[where] > flat[where - shift]]
    where = where[np.argsort(-flat[where], kind="stable")]
    found = np.divmod(where, columns)
    return found[0], found[1]


def ring_levels(image: Image, row: Indices, column: Indices, radius: float) -> Image:
    """Return what a quarter of a ring around each place exceeds: the slope, wing or glow that a peak stands on."""
    around = _around(image, row, column, np.array([radius]), _RING, _RING)
    levels: Image = np.partition(around, 3 * _RING // 4, axis=1)[:, 3 * _RING // 4, 0]
    return levels


def lie_on_lines(image: Image, row: Indices, column: Indices, limits: Image, near: float, far: float) -> Mask:
    """Return whether most of a line through each place, `near` to `far` pixels on both sides, exceeds its limit."""
    distances = np.linspace(near, far, _LINE_POINTS)
    around = _around(image, row, column, np.concatenate([-distances, distances]), 2 * _LINES, _LINES)
    bright = (around > limits[:, np.newaxis, np.newaxis]).sum(axis=2)
    on_line: Mask = (bright > _LINE_POINTS).any(axis=1)
    return on_line


def _around(image: Image, row: Indices, column: Indices, radii: Values, directions: int, used: int) -> Image:
    """Return the pixels at distances in some of evenly spread directions, shape (place, direction, distance)."""
    angle = np.arange(used)[:, np.newaxis] * (2 * math.pi / directions)
    down, across = (np.rint(radii * part(angle)).astype(np.intp) for part in (np.sin, np.cos))
    rows = np.clip(row[:, np.newaxis, np.newaxis] + down, 0, image.shape[0] - 1)
    columns = np.clip(column[:, np.newaxis, np.newaxis] + across, 0, image.shape[1] - 1)
    found: Image = np.take(image.reshape(-1), rows * image.shape[1] + columns)
    return found


@dataclass(frozen=True, eq=False)
class Windows:
    """What Gaussian windows around stars tell; arrays of shape (star,), NaN where nothing can be told."""

    x: Values
    y: Values
    # Standard deviations along and across, pixels; infinite along a trail.
    along: Values
    across: Values

    @property
    def fwhm(self) -> Values:
        """Full width at half maximum of a Gaussian of the same area."""
        return np.asarray(FWHM_OF_SIGMA * np.sqrt(self.along * self.across))

    @property
    def roundness(self) -> Values:
        """Axis ratios."""
        return np.asarray(self.across / self.along)


def measure_windows(image: Image, x: Values, y: Values, sigma: float, moves: int = _STEPS) -> Windows:
    """Return centers and shapes of stars by a round Gaussian window, which is moved onto them.

    Notes
    -----
    With M the weighted second moments and s the window's standard deviation, a Gaussian star has the covariance
    ``(M**-1 - s**-2)**-1`` whatever its shape, and each move of a window of the star's width is twice the weighted
    mean (Bertin's XWIN).
    """
    reach = _within(image, max(3, math.ceil(_WINDOW_REACH * sigma)))
    batch = max(1, _SAMPLES_AT_ONCE // (2 * reach + 1) ** 2)
    parts = [
        _windows(image, x[start : start + batch], y[start : start + batch], sigma, reach, moves)
        for start in range(0, max(1, len(x)), batch)
    ]
    return Windows(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))


def _windows(image: Image, x: Values, y: Values, sigma: float, reach: int, moves: int) -> tuple[Values, ...]:
    """Return x, y and the deviations along and across of some stars."""
    samples, column, row = _stamps(image, x, y, reach)
    step = np.arange(-reach, reach + 1)
    x, y = x - column, y - row
    first_x, first_y = x, y
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        for _ in range(moves):
            weight_x, weight_y = _weights(step, x, sigma), _weights(step, y, sigma)
            sums = _sums(samples, weight_x), _sums(samples.transpose(0, 2, 1), weight_y)
            total = (sums[0] * weight_y).sum(axis=1)
            move_x = 2 * (sums[1] * weight_x * (step - x[:, np.newaxis])).sum(axis=1) / total
            move_y = 2 * (sums[0] * weight_y * (step - y[:, np.newaxis])).sum(axis=1) / total
            # Where a neighbor, or noise, pulls it away it stays.
            is_sound = (np.abs(x + move_x - first_x) < reach / 2) & (np.abs(y + move_y - first_y) < reach / 2)
            x, y = np.where(is_sound, x + move_x, first_x), np.where(is_sound, y + move_y, first_y)
        weight_x, weight_y = _weights(step, x, sigma), _weights(step, y, sigma)
        off_x, off_y = step - x[:, np.newaxis], step - y[:, np.newaxis]
        along_x, along_y = _sums(samples.transpose(0, 2, 1), weight_y), _sums(samples, weight_x)
        total = (along_y * weight_y).sum(axis=1)
        xx = (along_x * weight_x * off_x**2).sum(axis=1) / total
        yy = (along_y * weight_y * off_y**2).sum(axis=1) / total
        xy = (_sums(samples, weight_x * off_x) * weight_y * off_y).sum(axis=1) / total
        along, across = _axes(xx, yy, xy, sigma)
    return x + column, y + row, along, across


def _weights(step: npt.NDArray[np.intp], center: Values, sigma: float) -> Values:
    """Return the weights of pixels along one side, shape (star, pixel)."""
    return np.asarray(np.exp(-0.5 * ((step - center[:, np.newaxis]) / sigma) ** 2))


def _sums(samples: Image, weights: Values) -> Values:
    """Return the weighted sums over the last axis."""
    return np.asarray(np.einsum("nij,nj->ni", samples, weights.astype(np.float32)), np.float64)


def _axes(xx: Values, yy: Values, xy: Values, sigma: float) -> tuple[Values, Values]:
    """Return the deviations along and across of Gaussians with such moments in a window; NaN where there is none."""
    middle, half = (xx + yy) / 2, np.hypot((xx - yy) / 2, xy)
    inverse_along, inverse_across = 1 / (middle + half) - sigma**-2, 1 / (middle - half) - sigma**-2
    is_star = (middle - half > 0) & (inverse_across > 0)
    along = np.where(inverse_along > 0, inverse_along, 0.0) ** -0.5
    across = np.where(is_star, inverse_across, np.nan) ** -0.5
    return np.where(is_star, along, np.nan), across


@dataclass(frozen=True)
class UsualStar:
    """What most stars of a frame are like, pixels."""

    # FWHM.
    width: float = USUAL_WIDTH
    # Standard deviation along the longer axis.
    along: float = USUAL_WIDTH / FWHM_OF_SIGMA

    @property
    def window(self) -> float:
        """FWHM of the windows that stars are measured in."""
        return float(np.clip(self.width, *_WINDOWS))


def usual_star(image: Image, column: Indices, row: Indices, sharpest: float) -> UsualStar:
    """Return what stars are like by clear peaks: the width that most of them have.

    Knots of a nebula may be most of what is bright, and have every width; what is sharper than `sharpest` is no star.
    """
    some = slice(None, None, max(1, -(-len(row) // _TELLING)))
    x, y = column[some].astype(np.float64), row[some].astype(np.float64)
    usual = UsualStar()
    for _ in range(_ROUNDS):
        seen = measure_windows(image, x, y, usual.window / FWHM_OF_SIGMA, 2)
        is_star = (seen.fwhm > sharpest) & (seen.roundness > _LEAST_ROUND) & (seen.fwhm < 2 * _WINDOWS[1])
        if not is_star.any():
            break
        alike = is_star & _are_most_alike(np.where(is_star, np.log(seen.fwhm), np.nan), seen.roundness)
        before = usual.window
        usual = UsualStar(float(np.median(seen.fwhm[alike])), float(np.median(seen.along[alike])))
        if abs(usual.window / before - 1) < _SETTLED:
            break
    return usual


def _are_most_alike(widths: Values, weights: Values) -> Mask:
    """Return which logarithms of widths lie within a tenth of the one that has most, by their weights, so near."""
    order = np.argsort(widths)  # NaN comes last
    ordered = widths[order][: int(np.isfinite(widths).sum())]
    sums = np.append(0.0, np.cumsum(weights[order][: len(ordered)]))
    first, last = (
        np.searchsorted(ordered, ordered + side * _ALIKE, "right" if side > 0 else "left") for side in (-1, 1)
    )
    middle = ordered[np.argmax(sums[last] - sums[first])]
    with np.errstate(invalid="ignore"):
        return np.asarray(np.abs(widths - middle) <= _ALIKE)


def _stamps(image: Image, x: Values, y: Values, reach: int) -> tuple[Image, Values, Values]:
    """Return the pixels around places, shape (star, row, column), and column and row of the middle ones.

    At the border of the image the middle is further inside than the place.
    """
    row, column = (
        np.clip(np.rint(part), reach, length - 1 - reach).astype(np.intp)
        for part, length in zip((y, x), image.shape, strict=True)
    )
    # Views of all windows, of which some are copied: several times as fast as indices of every pixel.
    samples = sliding_window_view(image, (2 * reach + 1,) * 2)[row - reach, column - reach]
    return samples, column.astype(np.float64), row.astype(np.float64)


def _within(image: Image, reach: int) -> int:
    """Return the reach of windows that fit into an image."""
    return int(min(reach, (min(image.shape) - 1) // 2))


def aperture_sums(
    image: Image, x: Values, y: Values, radii: tuple[float, ...], ring: tuple[float, float] | None = None
) -> Values:
    """Return the sums of pixels within each of `radii`, shape (star, radius).

    `ring`: how far outside a radius a ring begins and ends, whose mean is taken off. A pixel counts by how far its
    middle is within the radius, from half a pixel inside to half a pixel outside.
    """
    reach = _within(image, math.ceil(max(radii) + (ring[1] if ring else 0.0) + 1))
    batch = max(1, _SAMPLES_AT_ONCE // (2 * reach + 1) ** 2)
    sums = np.empty((len(x), len(radii)))
    step = np.arange(-reach, reach + 1)
    for start in range(0, len(x), batch):
        some = slice(start, start + batch)
        samples, column, row = _stamps(image, x[some], y[some], reach)
        across = ((step - (x[some] - column)[:, np.newaxis]) ** 2).astype(np.float32)
        down = ((step - (y[some] - row)[:, np.newaxis]) ** 2).astype(np.float32)
        distance = np.sqrt(down[:, :, np.newaxis] + across[:, np.newaxis])
        for index, radius in enumerate(radii):
            weights = np.float32(radius + 0.5) - distance
            np.clip(weights, 0, 1, out=weights)
            total = np.einsum("nij,nij->n", weights, samples).astype(np.float64)
            if ring:
                around = ((distance > radius + ring[0]) & (distance < radius + ring[1])).astype(np.float32)
                level = np.einsum("nij,nij->n", around, samples) / np.maximum(around.sum(axis=(1, 2)), 1)
                total -= level * weights.sum(axis=(1, 2))
            sums[some, index] = total
    return sums
