"""No dark rings around bright stars after resampling, at the same flux; faint stars and noise are not touched."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from scipy.special import erf

from zemosaic_stack_core.prepare.canvas.geometry import Affine
from zemosaic_stack_core.prepare.canvas.resample import AffineMap, resample

_Image = npt.NDArray[np.float32]
SIDE, SKY, NOISE = 49, 700.0, 6.0


def star(x: float, y: float, flux: float, fwhm: float) -> npt.NDArray[np.float64]:
    edges, sigma = np.arange(SIDE + 1) - 0.5, fwhm / 2.3548
    across, along = (np.diff(erf((edges - place) / (np.sqrt(2) * sigma))) / 2 for place in (x, y))
    return np.asarray(flux * along[:, np.newaxis] * across)


def turned(seed: int) -> AffineMap:
    random = np.random.default_rng(seed)
    angle, (x, y) = random.uniform(-3, 3), random.uniform(-0.5, 0.5, 2)
    c, s, middle = np.cos(angle), np.sin(angle), (SIDE - 1) / 2
    return AffineMap(Affine(c, -s, middle - c * middle + s * middle + x, s, c, middle - s * middle - c * middle + y))


@pytest.mark.parametrize("kernel", ["lanczos2", "lanczos3", "lanczos4"])
@pytest.mark.parametrize("fwhm", [1.2, 1.5, 2.0, 2.6, 4.0])
@pytest.mark.parametrize("flux", [2e3, 3e4, 6e5, 5e6])
def test_no_ring_and_the_same_flux(kernel: str, fwhm: float, flux: float) -> None:
    biases, lowest = [], []
    for seed in range(12):
        random = np.random.default_rng(100 + seed)
        x, y = 24 + random.uniform(-0.5, 0.5, 2)
        image = (SKY + random.normal(0, NOISE, (SIDE, SIDE)) + star(x, y, flux, fwhm)).astype(np.float32)
        mapping = turned(seed)
        found = resample(image, mapping, SIDE, SIDE, kernel)
        column, row = mapping.to_frame.inverse()([(x, y)])[0]
        rows, columns = np.mgrid[:SIDE, :SIDE]
        here, there = np.hypot(columns - column, rows - row) < 11, np.hypot(columns - x, rows - y) < 11
        biases.append((np.nansum(found[here] - SKY) - np.sum(image[there] - SKY)) / flux)
        lowest.append(np.nanmin(found))
    # The border of an aperture has noise of its own.
    assert abs(np.mean(biases)) < 0.001 + 4 * np.std(biases) / np.sqrt(12)
    assert min(lowest) > SKY - 9 * NOISE


@pytest.mark.parametrize("level", [60000.0, 4000.0])
def test_saturated_stars_have_no_ring(level: float) -> None:
    random = np.random.default_rng(1)
    image = np.minimum(SKY + random.normal(0, NOISE, (SIDE, SIDE)) + star(24.2, 23.7, 4e6, 3.0), level)
    for seed in range(8):
        assert np.nanmin(resample(image.astype(np.float32), turned(seed), SIDE, SIDE)) > SKY - 9 * NOISE


def test_noise_and_faint_stars_are_what_they_were() -> None:
    """The mean and the width of the noise are those of the kernel alone: nothing is clipped."""
    random = np.random.default_rng(2)
    image = random.normal(SKY, NOISE, (400, 500)).astype(np.float32)
    found = resample(image, AffineMap(Affine(x0=0.5, y0=0.5)), 390, 490)
    assert float(np.mean(found)) == pytest.approx(SKY, abs=0.03)
    low, high = np.quantile(found - SKY, (0.001, 0.999))
    assert low == pytest.approx(-high, rel=0.05)


@pytest.mark.parametrize("unit", [1e-9, 65535.0])
def test_rings_in_any_unit(unit: float) -> None:
    image = (SKY + np.random.default_rng(3).normal(0, NOISE, (SIDE, SIDE)) + star(24, 24, 6e5, 1.5)).astype(np.float32)
    plain = resample(image, turned(3), SIDE, SIDE)
    scaled = resample(image * np.float32(unit), turned(3), SIDE, SIDE)
    assert np.allclose(scaled / unit, plain, rtol=1e-3, equal_nan=True)


def test_colors_and_missing_samples() -> None:
    random = np.random.default_rng(4)
    image = (SKY + random.normal(0, NOISE, (SIDE, SIDE)) + star(24.4, 24.1, 6e5, 1.5)).astype(np.float32)
    color = np.dstack([image, np.full_like(image, 5.0), image[::-1]])
    found = resample(color, turned(5), SIDE, SIDE)
    assert np.array_equal(found[..., 0], resample(image, turned(5), SIDE, SIDE), equal_nan=True)
    assert np.nanmin(found[..., 2]) > SKY - 9 * NOISE
    holed = image.copy()
    holed[20:22, 30] = np.nan
    assert np.nanmin(resample(holed, turned(5), SIDE, SIDE)) > SKY - 9 * NOISE
