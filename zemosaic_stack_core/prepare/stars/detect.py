"""Stars of one frame: places, fluxes, widths, and the sky they stand on; by SEP (Source Extractor as a library)."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from zemosaic_stack_core.prepare.canvas.geometry import Affine

_Image = npt.NDArray[np.float32]
_Values = npt.NDArray[np.float64]

# Radii, pixels, that light is measured in besides: two frames are compared within the same.
APERTURES = (3.0, 4.5, 7.0, 10.5, 16.0, 24.0)
_SIGMAS = 4.0
_LEAST_PIXELS = 5
# Times its error.
_LEAST_SIGNAL = 5.0
# Axis ratio.
_LEAST_ROUND = 0.3
_MOST_STARS = 1500
# A Gaussian's FWHM is twice its half-light radius.
_FWHM_OF_HALF_LIGHT = 2.0
# Pixels from a star's center that its light is sought within.
_REACH = (5.0, 14.0)
# Pixels FWHM; nothing that a telescope images is narrower.
_SHARPEST = 1.1
# Part of boxes that are quietest.
_QUIET = 0.3
_ENOUGH_BOXES = 30
# Times the noise of independent pixels; less is the estimate's own error.
_CORRELATED = 1.15
# Matched filter of detection.
_FILTER = np.array([[1, 2, 1], [2, 4, 2], [1, 2, 1]], np.float32) / 16


@dataclass(frozen=True, eq=False)
class StarList:
    """The stars of a frame, brightest first; arrays of shape (star,), float64."""

    # Centers (column, row), pixels.
    x: _Values
    y: _Values
    # Light above the sky within an aperture, data units, and its standard deviation from the sky's noise.
    flux: _Values
    error: _Values
    # Median width, pixels, and median axis ratio of the brighter stars, 1 for round; NaN without stars.
    fwhm: float
    roundness: float
    # Median of the sky and its standard deviation per pixel, data units.
    sky: float
    noise: float
    rows: int
    columns: int
    # Light within each of `APERTURES` above a ring around it, shape (star, aperture); NaN where far wider than a star.
    ladder: _Values | None = None

    @classmethod
    def empty(cls, rows: int, columns: int) -> StarList:
        """Return the list of a frame in which no star was found, nor its sky measured."""
        none, nan = np.zeros(0), math.nan
        return cls(none, none, none, none, nan, nan, nan, nan, rows, columns)

    def __len__(self) -> int:
        return len(self.x)

    @property
    def points(self) -> _Values:
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

    def light_with(self, other: StarList) -> tuple[_Values, _Values]:
        """Return the light of these stars and of the other list's within one aperture, that of the wider stars.

        Each list's own `flux` is measured in an aperture of its own median width, and that width is uncertain.
        """
        wanted = max(APERTURES[0], *(1.5 * stars.fwhm for stars in (self, other) if np.isfinite(stars.fwhm)), 0.0)
        column = int(np.searchsorted(APERTURES, wanted))
        if self.ladder is None or other.ladder is None or column >= len(APERTURES):
            return self.flux, other.flux
        light = self.ladder[:, column], other.ladder[:, column]
        return light if all(np.isfinite(part).all() for part in light) else (self.flux, other.flux)


def cfa_luminance(mosaic: _Image) -> _Image:
    """Smooth a Bayer mosaic into one luminance image of its size.

    Every 3 x 3 window weighted 1-2-1 holds red, green and blue as 1 : 2 : 1 whatever the pattern and wherever it
    stands, so no pattern shows, none needs to be known, and centers keep their places.
    """
    from scipy.ndimage import convolve1d

    kernel = np.array([0.25, 0.5, 0.25], np.float32)
    smooth: _Image = convolve1d(convolve1d(mosaic, kernel, axis=0, mode="mirror"), kernel, axis=1, mode="mirror")
    return smooth


def luminance(pixels: _Image, *, is_cfa: bool) -> _Image:
    """Return the image that stars are looked for on: mono as it is, color averaged, a mosaic smoothed."""
    if pixels.ndim == 3:
        return np.ascontiguousarray(pixels.mean(axis=2, dtype=np.float32))
    return cfa_luminance(pixels) if is_cfa else pixels


def detect_stars(image: _Image) -> StarList:
    """Find the stars, 1500 at most, of an image, shape (row, column), that is clean of hot pixels; missing is NaN.

    Notes
    -----
    Detection: 5 connected pixels 4 sigma above a background of 64-pixel meshes, after a matched filter. Centers:
    windowed centroids (Bertin's XWIN), within a few percent of the best that a profile fit gives, and unbiased by
    neighbors' light.
    """
    import sep

    data = np.ascontiguousarray(image, np.float32)
    hole = ~np.isfinite(data)
    rows, columns = data.shape
    if hole.all():
        return StarList.empty(rows, columns)
    mask = hole if hole.any() else None
    if mask is not None:
        data = np.where(mask, np.float32(np.median(data[~mask])), data)
    mesh = max(16, min(64, rows // 4, columns // 4))
    background = sep.Background(_without_steps(data), mask=mask, bw=mesh, bh=mesh, fw=3, fh=3)
    data = data - background.back()
    rms = background.rms()
    rms = np.maximum(rms, 1e-6 * float(rms.max()) + np.finfo(np.float32).tiny)
    grain = _Noise(data, float(np.median(rms[::8, ::8])))
    sep.set_extract_pixstack(max(300_000, data.size // 4))
    how = {
        "err": rms * grain.growth(len(_FILTER)),
        "mask": mask,
        "minarea": _LEAST_PIXELS,
        "filter_kernel": _FILTER,
        "deblend_cont": 0.005,
    }
    try:
        found = sep.extract(data, _SIGMAS, **how)
    except Exception as failure:
        # sep raises a plain Exception where its buffers overflow.
        if "buffer" not in str(failure) and "deblend" not in str(failure).lower():
            raise
        found = sep.extract(data, 4 * _SIGMAS, err=how["err"], minarea=_LEAST_PIXELS, deblend_cont=1.0)
    found = found[(found["flag"] & (sep.OBJ_TRUNC | sep.OBJ_SINGU)) == 0]
    found = found[np.argsort(-found["flux"])][: 2 * _MOST_STARS]
    x, y, flux, error, fwhm, roundness, ladder = _measure(data, rms, mask, found, grain)
    width = float(np.median(fwhm[: max(10, len(fwhm) // 3)])) if len(fwhm) else np.nan
    keep = (fwhm > _SHARPEST) & (fwhm < 2.2 * max(width, 1.0)) & (flux > _LEAST_SIGNAL * error)
    order = np.nonzero(keep)[0]
    order = order[np.argsort(-flux[order], kind="stable")][:_MOST_STARS]
    bright = order[: max(10, len(order) // 2)]
    width, shape = (float(np.median(part[bright])) if len(bright) else np.nan for part in (fwhm, roundness))
    x, y, flux, error, ladder = (part[order] for part in (x, y, flux, error, ladder))
    sky, noise = float(background.globalback), float(background.globalrms)
    return StarList(x, y, flux, error, width, shape, sky, noise, rows, columns, ladder)


def _without_steps(data: _Image) -> _Image:
    """Return an image whose values are not far apart, compared with its noise: sep's sky of coarse ones is off."""
    sample = np.sort(data[::7, ::7], axis=None)
    apart = np.diff(sample)
    step = float(apart[apart > 0].min(initial=np.inf))
    low, high = sample[sample.size // 4], sample[3 * sample.size // 4]
    if not 0.15 * float(high - low) < step < np.inf:
        return data
    random = np.random.default_rng(0)  # the same frame has the same stars
    return np.asarray(data + random.uniform(-step / 2, step / 2, data.shape), np.float32)


@dataclass(frozen=True, eq=False)
class _Noise:
    """The noise of an image without its background; neighbors may be correlated (smoothed, resampled, a mosaic)."""

    image: _Image
    # Per pixel.
    sigma: float

    def growth(self, side: int) -> float:
        """Return how many times noisier a sum over boxes is than sums of independent pixels are; at least 1.

        By differences of the boxes that are quietest within, which have no star: of independent pixels, the range says
        nothing of the sum.
        """
        rows, columns = (length // side * side for length in self.image.shape)
        if min(rows, columns) < 4 * side or not self.sigma > 0:
            return 1.0
        starts = [np.arange(0, length, side) for length in (rows, columns)]
        sums, high, low = (
            function.reduceat(function.reduceat(self.image[:rows, :columns], starts[1], axis=1), starts[0], axis=0)
            for function in (np.add, np.maximum, np.minimum)
        )
        spread = high - low
        quiet = spread <= np.quantile(spread, _QUIET)
        both = quiet[:, 2:] & quiet[:, :-2]
        apart = np.abs(sums[:, 2:] - sums[:, :-2])[both]
        if apart.size < _ENOUGH_BOXES:
            return 1.0
        measured = float(np.median(apart)) / (0.6745 * math.sqrt(2) * side * self.sigma)
        return measured if measured > _CORRELATED else 1.0


def _measure(
    data: _Image, rms: _Image, mask: npt.NDArray[np.bool_] | None, found: npt.NDArray[np.void], noise: _Noise
) -> tuple[_Values, ...]:
    """Return x, y, flux, its error, FWHM, axis ratio and light within `APERTURES` of what may be stars."""
    import sep

    def widths(objects: npt.NDArray[np.void], reach: float) -> _Values:
        within = np.full(len(objects), reach)
        half, _ = sep.flux_radius(data, objects["x"], objects["y"], within, 0.5, mask=mask, subpix=5)
        return np.asarray(_FWHM_OF_HALF_LIGHT * half, np.float64)

    found = found[found["b"] > _LEAST_ROUND * found["a"]]
    if not len(found):
        return *(np.zeros(0),) * 6, np.zeros((0, len(APERTURES)))
    typical, reach = 3.0, _REACH[0]
    for _ in range(3):  # no wider than it must be: in a crowd or a nebula, what is around is brighter than the star
        bright = widths(found[: max(10, len(found) // 3)], reach)
        bright = bright[bright > _SHARPEST]
        typical = float(np.clip(np.median(bright), 1.5, 12.0)) if len(bright) else 3.0
        before, reach = reach, float(np.clip(2 * typical, *_REACH))
        if reach <= 1.1 * before:
            break
    radius = max(3.0, 1.5 * typical)
    growth = noise.growth(round(math.sqrt(math.pi) * radius))
    flux, error, _ = sep.sum_circle(data, found["x"], found["y"], radius, err=rms, mask=mask, subpix=5)
    # Clumps of noise can be most of what is found, and cost as much to measure as stars.
    found = found[flux > 0.9 * _LEAST_SIGNAL * growth * error]
    sigma = np.full(len(found), typical / 2.3548)
    x, y, _ = sep.winpos(data, found["x"], found["y"], sigma, mask=mask, subpix=3)
    astray = ~(np.hypot(x - found["x"], y - found["y"]) < typical)  # a neighbor pulled it over
    x, y = np.where(astray, found["x"], x), np.where(astray, found["y"], y)
    flux, error, _ = sep.sum_circle(data, x, y, radius, err=rms, mask=mask, subpix=5)
    ladder = np.full((len(found), len(APERTURES)), np.nan)
    for column, step in enumerate(APERTURES):
        if step < 2.5 * radius:
            # A ring of its own: in a nebula, two frames' backgrounds differ by more than a star's error.
            ring = (step + 1.0, step + 5.0)
            ladder[:, column], _, _ = sep.sum_circle(data, x, y, step, mask=mask, bkgann=ring, subpix=5)
    roundness = found["b"] / np.maximum(found["a"], 1e-12)
    return x, y, flux, np.maximum(growth * error, np.finfo(np.float64).tiny), widths(found, reach), roundness, ladder
