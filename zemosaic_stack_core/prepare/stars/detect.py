"""Stars of one frame: places, fluxes, widths, and the sky they stand on."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from zemosaic_stack_core.per_frame.sky import Image, Mask, Sky, Values, measure_sky
from zemosaic_stack_core.per_frame.star_pixels import (
    FWHM_OF_SIGMA,
    USUAL_WIDTH,
    Indices,
    UsualStar,
    aperture_sums,
    find_peaks,
    lie_on_lines,
    measure_windows,
    ring_levels,
    smooth,
    usual_star,
)
from zemosaic_stack_core.prepare.canvas.geometry import Affine
from zemosaic_stack_core.prepare.stars.rows import lie_in_rows

# Radii, pixels, that light is measured in besides: two frames are compared within the same.
APERTURES = (3.0, 4.5, 7.0, 10.5, 16.0, 24.0)
# Of a peak above what is around it, in the smoothed image.
_SIGMAS = 4.0
# Times its error.
_LEAST_SIGNAL = 5.0
MOST_STARS = 1500
# Pixels; a smaller frame has no sky to speak of.
_LEAST_SIDE = 8
# Pixels from the border that a peak must be, to be whole.
_MARGIN = 3
# Pixels FWHM; nothing that a telescope images is narrower.
_SHARPEST = 1.1
# Times the usual: longer things are trails, galaxies, knots of a nebula.
_LONGEST = 2.2
# Above what is around it, in standard deviations: such a peak tells the usual width.
_TELLING_SIGMAS = 10.0
# Of widths' logarithms.
_ALIKE = 0.1
# Pixels, and widths: radius of the ring that a peak is compared with.
_RING = (5.0, 2.0)
# Widths: part of a line through a peak, on both sides, most of which is dark unless a trail makes the peak; and how
# bright it then is, of the peak.
_LINE = (1.5, 4.5)
_ON_LINE = 0.4
# Pixels FWHM; wider stars are looked for in an image that is smoothed once more.
_WIDE = (5.0, 9.0)
# Stars of the usual width that tell it better than all bright ones.
_ENOUGH_LIKE = 3
# Pixels, side of blocks of one value, and part of them that tells a border that another program filled.
_BLOCK = 8
_FILLED = 0.01
# Times the spread of all else, that its value must be away.
_FAR = 2.0
# Part of a star's window that may be missing.
_MISSING = 0.1
# Pixels that tell how far neighbors are correlated, about.
_SAMPLES = 50_000
# Places on a grid that empty apertures are measured at.
_PROBES = (20, 34)
_ENOUGH_PROBES = 30
# Times the noise below the sky: nothing is darker but defects, which would outweigh the stars beside them.
_DARKEST = 8.0
# Part of the noise that is below the level where it was not cut off there.
_LITTLE_BELOW = 0.5


@dataclass(frozen=True, eq=False)
class StarList:
    """The stars of a frame, brightest first; arrays of shape (star,), float64."""

    # Centers (column, row), pixels.
    x: Values
    y: Values
    # Light above the sky within an aperture, data units, and its standard deviation from the sky's noise.
    flux: Values
    error: Values
    # Median width, pixels, and median axis ratio of the brighter stars, 1 for round; NaN without stars.
    fwhm: float
    roundness: float
    # Median of the sky and its standard deviation per pixel, data units.
    sky: float
    noise: float
    rows: int
    columns: int
    # Light within each of `APERTURES` above a ring around it, shape (star, aperture); NaN where far wider than a star.
    ladder: Values | None = None

    @classmethod
    def empty(cls, rows: int, columns: int) -> StarList:
        """Return the list of a frame in which no star was found, nor its sky measured."""
        none, nan = np.zeros(0), math.nan
        return cls(none, none, none, none, nan, nan, nan, nan, rows, columns)

    def __len__(self) -> int:
        return len(self.x)

    @property
    def points(self) -> Values:
        """Centers, shape (star, 2)."""
        return np.column_stack([self.x, self.y])

    def without(self, indices: npt.NDArray[np.intp]) -> StarList:
        """Return the list without some of its stars."""
        keep = np.ones(len(self), np.bool_)
        keep[indices] = False
        ladder = None if self.ladder is None else self.ladder[keep]
        x, y, flux, error = (column[keep] for column in (self.x, self.y, self.flux, self.error))
        return replace(self, x=x, y=y, flux=flux, error=error, ladder=ladder)

    def count_on(self, other: StarList, transform: Affine, *, margin: float, most: int | None = None) -> int:
        """Return how many of these (the `most` brightest) lie on another frame, `margin` pixels inside its border."""
        x, y = transform(self.points[:most]).T
        inside = (x > margin) & (y > margin) & (x < other.columns - 1 - margin) & (y < other.rows - 1 - margin)
        return int(inside.sum())

    def light_with(self, other: StarList) -> tuple[Values, Values]:
        """Return the light of these stars and of the other list's within one aperture, that of the wider stars.

        Each list's own `flux` is measured in an aperture of its own median width, and that width is uncertain.
        """
        wanted = max(APERTURES[0], *(1.5 * stars.fwhm for stars in (self, other) if np.isfinite(stars.fwhm)), 0.0)
        column = int(np.searchsorted(APERTURES, wanted))
        if self.ladder is None or other.ladder is None or column >= len(APERTURES):
            return self.flux, other.flux
        light = self.ladder[:, column], other.ladder[:, column]
        return light if all(np.isfinite(part).all() for part in light) else (self.flux, other.flux)


def cfa_luminance(mosaic: Image) -> Image:
    """Smooth a Bayer mosaic into one luminance image of its size.

    Every 3 x 3 window weighted 1-2-1 holds red, green and blue as 1 : 2 : 1 whatever the pattern and wherever it
    stands, so no pattern shows, none needs to be known, and centers keep their places.
    """
    return smooth(mosaic)


def luminance(pixels: Image, *, is_cfa: bool) -> Image:
    """Return the image that stars are looked for on: mono as it is, color averaged, a mosaic smoothed."""
    if pixels.ndim == 3:
        # A mean over so short an axis takes NumPy eight times as long.
        total = pixels[..., 0].astype(np.float32)
        for channel in range(1, pixels.shape[2]):
            total += pixels[..., channel]
        return total / np.float32(pixels.shape[2])
    return cfa_luminance(pixels) if is_cfa else pixels


def detect_stars(image: Image) -> StarList:
    """Find the stars, 1500 at most, of an image, shape (row, column), that is clean of hot pixels; missing is NaN.

    Notes
    -----
    Detection: peaks 4 standard deviations above what is around them, in the image without its sky, smoothed to about
    the stars' width. Centers: windowed centroids (Bertin's XWIN), within a few percent of the best that a profile fit
    gives, and unbiased by neighbors' light. Widths: those of Gaussians with the same windowed moments, which tell
    trails and nebulae from stars.
    """
    data = np.ascontiguousarray(image, np.float32)
    missing = _missing(data)
    sky = measure_sky(data, missing) if min(data.shape) >= _LEAST_SIDE else None
    if sky is None:
        return StarList.empty(*data.shape)
    level = sky.level_image()
    data = np.subtract(data, level, out=level)
    np.maximum(data, np.float32(-_DARKEST * float(sky.noises.max())), out=data)
    if missing is not None:
        data[missing] = 0
    field = _Field(data, missing, sky)
    found = field.peaks(1, USUAL_WIDTH)
    clear = np.flatnonzero(found.height > _TELLING_SIGMAS)
    usual = usual_star(data, found.column[clear], found.row[clear], _SHARPEST)
    passes = 1 + int(np.searchsorted(_WIDE, usual.window))
    if passes > 1:
        found = field.peaks(passes, usual.window)
    return _listed(field, found, usual)


def _missing(data: Image) -> Mask | None:
    """Return where an image is missing: not finite, or a value that fills whole blocks, as borders of zeros do."""
    missing = ~np.isfinite(data)
    rows, columns = (length // (2 * _BLOCK) for length in data.shape)
    blocks = data[: rows * 2 * _BLOCK, : columns * 2 * _BLOCK].reshape(rows, 2 * _BLOCK, columns, 2 * _BLOCK)
    blocks = blocks[:, :_BLOCK, :, :_BLOCK]
    first = blocks[:, 0, :, 0]
    is_filled = (blocks == first[:, np.newaxis, :, np.newaxis]).all(axis=(1, 3))
    if is_filled.any():
        values, counts = np.unique(first[is_filled], return_counts=True)
        if counts.max() > _FILLED * is_filled.size:
            filling = values[np.argmax(counts)]
            low, middle, high = np.quantile(first[~is_filled], (0.16, 0.5, 0.84)) if not is_filled.all() else (0, 0, 1)
            # A sky that is cut off at zero, or has no noise, is no border.
            if abs(float(middle - filling)) > _FAR * float(high - low):
                missing |= data == filling
    return missing if missing.any() else None


@dataclass(frozen=True, eq=False)
class _Peaks:
    """Peaks of a smoothed image, the highest first."""

    row: Indices
    column: Indices
    # Above what is around it, times the noise.
    height: Values
    # Pixels of the smoothed image that stand out.
    above: Mask


@dataclass(frozen=True, eq=False)
class _Field:
    """An image without its sky, where it is missing (and 0), and its sky."""

    data: Image
    missing: Mask | None
    sky: Sky

    def peaks(self, passes: int, width: float) -> _Peaks:
        """Return what stands out of its surroundings, smoothed so many times for stars of a width."""
        image = self.data
        for step in range(passes):
            image = smooth(image, 2**step)
        limits = self.sky.noise_image(_SIGMAS * self._growth(image))
        above = image > limits
        row, column = find_peaks(image, above, _MARGIN)
        around = ring_levels(image, row, column, max(_RING[0], _RING[1] * width))
        stands = np.flatnonzero(image[row, column] - around > limits[row, column])[: 2 * MOST_STARS]
        row, column, around = row[stands], column[stands], around[stands]
        height = image[row, column] - around
        limit = around + np.float32(_ON_LINE) * height
        alone = ~lie_on_lines(image, row, column, limit, _LINE[0] * width, _LINE[1] * width)
        sigmas = _SIGMAS * height[alone].astype(np.float64) / limits[row, column][alone]
        return _Peaks(row[alone], column[alone], sigmas, above)

    def _growth(self, smoothed: Image) -> float:
        """Return how many times the noise of a pixel that of a smoothed one is, whatever smoothed it before."""
        some = slice(2, None, max(1, round(math.sqrt(smoothed.size / _SAMPLES))))
        y, x = np.meshgrid(*(np.arange(length)[some] for length in smoothed.shape), indexing="ij")
        noise = self.sky.noise_at(x, y)
        there = slice(None) if self.missing is None else ~self.missing[some, some]
        values, before = ((image[some, some] / noise)[there] for image in (smoothed, self.data))
        if not values.size:
            return 1.0
        low, middle, high = np.quantile(values, (0.15866, 0.5, 0.84134))
        # Stars are above the sky, defects below it where a dark was wrong; some programs cut off all that is below.
        is_cut = float(np.subtract(*np.quantile(before, (0.5, 0.15866)))) < _LITTLE_BELOW
        return float(high - middle if is_cut else min(high - middle, middle - low)) or 1.0

    def noise_in(self, radius: float, above: Mask) -> float:
        """Return how many times the noise of a pixel that of a sum in a radius is, whatever correlates neighbors."""
        area = math.pi * radius**2
        # Two beside each other: of their difference the slopes of the sky are no part.
        step = 2 * math.ceil(radius) + 2
        down, across = (
            np.linspace(step, length - 1 - 2 * step, max(1, min(most, length // (2 * step)))).round()
            for length, most in zip(self.data.shape, _PROBES, strict=True)
        )
        y, x = (part.reshape(-1) for part in np.meshgrid(down, across, indexing="ij"))
        taken = (above if self.missing is None else above | self.missing).astype(np.float32)
        lit = [aperture_sums(taken, x + right, y, (radius + 1.0,))[:, 0] for right in (0, step)]
        is_empty = (lit[0] == 0) & (lit[1] == 0)
        if is_empty.sum() < _ENOUGH_PROBES:
            return math.sqrt(area)
        x, y = x[is_empty], y[is_empty]
        first, second = (aperture_sums(self.data, x + right, y, (radius,))[:, 0] for right in (0, step))
        apart = float(np.median(np.abs(first - second) / self.sky.noise_at(x, y)))
        return max(math.sqrt(area), apart / (0.6745 * math.sqrt(2)))

    def is_whole(self, x: Values, y: Values, width: float) -> Mask:
        """Return which stars are not cut by the border or by what is missing."""
        rows, columns = self.data.shape
        margin = max(_MARGIN, width / 2) - 0.5
        whole: Mask = (x > margin) & (y > margin) & (x < columns - 1 - margin) & (y < rows - 1 - margin)
        if self.missing is not None:
            lost = aperture_sums(self.missing.astype(np.float32), x, y, (width,))[:, 0]
            whole &= lost < _MISSING * math.pi * width**2
        return whole


def _listed(field: _Field, found: _Peaks, usual: UsualStar) -> StarList:
    """Measure peaks and list those that are stars."""
    x, y = found.column.astype(np.float64), found.row.astype(np.float64)
    seen = measure_windows(field.data, x, y, usual.window / FWHM_OF_SIGMA)
    is_astray = ~(np.hypot(seen.x - x, seen.y - y) < usual.window)  # a neighbor pulled it over
    x, y = np.where(is_astray, x, seen.x), np.where(is_astray, y, seen.y)
    radius = max(3.0, 1.5 * usual.window)
    flux = aperture_sums(field.data, x, y, (radius,))[:, 0]
    error = field.sky.noise_at(x, y) * field.noise_in(radius, found.above)
    keep = (seen.fwhm > _SHARPEST) & (seen.along < _LONGEST * usual.along) & (flux > _LEAST_SIGNAL * error)
    keep &= field.is_whole(x, y, usual.window) & ~_repeated(x, y, usual.window / 2)
    order = np.flatnonzero(keep)
    order = order[np.argsort(-flux[order], kind="stable")][:MOST_STARS]
    order = order[~lie_in_rows(np.column_stack([x[order], y[order]]), field.data.shape)]
    bright = order[: max(10, len(order) // 2)]
    like_most = bright[np.abs(np.log(seen.fwhm[bright] / usual.width)) < 2 * _ALIKE]
    bright = like_most if len(like_most) >= _ENOUGH_LIKE else bright
    width, roundness = (
        float(np.median(part[bright])) if len(bright) else math.nan for part in (seen.fwhm, seen.roundness)
    )
    x, y, flux, error = (part[order] for part in (x, y, flux, error))
    few = sum(step < 2.5 * radius for step in APERTURES)
    ladder = np.full((len(x), len(APERTURES)), np.nan)
    # A ring of its own: in a nebula, two frames' backgrounds differ by more than a star's error.
    ladder[:, :few] = aperture_sums(field.data, x, y, APERTURES[:few], (1.0, 5.0))
    sky, (rows, columns) = field.sky, field.data.shape
    return StarList(x, y, flux, error, width, roundness, sky.level, sky.noise, rows, columns, ladder)


def _repeated(x: Values, y: Values, radius: float) -> Mask:
    """Return which peaks have a higher one, listed before them, within a radius: two bumps of one star."""
    from scipy.spatial import KDTree

    repeated = np.zeros(len(x), np.bool_)
    if len(x):
        pairs = KDTree(np.column_stack([x, y])).query_pairs(radius, output_type="ndarray")
        repeated[pairs.max(axis=1)] = True
    return repeated
