"""Resampling: exact where it must be, NaN where a sample is missing, flux conserved."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pytest

from zemosaic_stack_core.prepare.canvas.geometry import Affine
from zemosaic_stack_core.prepare.canvas.resample import AffineMap, resample
from zemosaic_stack_core.prepare.options import KERNELS

ORDER = {"bilinear": 1, "lanczos2": 2, "lanczos3": 3, "lanczos4": 4}


def turned(degrees: float, scale: float, x: float, y: float) -> Affine:
    c, s = scale * math.cos(math.radians(degrees)), scale * math.sin(math.radians(degrees))
    return Affine(c, -s, x, s, c, y)


def tap(t: float, order: int) -> float:
    if order == 1:
        return max(0.0, 1.0 - abs(t))
    return float(np.sinc(t) * np.sinc(t / order)) if abs(t) < order else 0.0


def reference(pixels: npt.NDArray[np.float32], x: float, y: float, order: int) -> float:
    """The definition, one output pixel at a time, in float64."""
    rows, columns = pixels.shape
    if not (-1e-6 <= x <= columns - 1 + 1e-6 and -1e-6 <= y <= rows - 1 + 1e-6):
        return math.nan
    x, y = min(max(x, 0.0), columns - 1.0), min(max(y, 0.0), rows - 1.0)
    x, y = (round(4096 * v) / 4096 for v in (x, y))
    left, top = math.floor(x), math.floor(y)
    fx, fy = x - left, y - top
    for reach in dict.fromkeys((order, 1)):
        taps = range(1 - reach, reach + 1)
        wx, wy = [tap(fx - k, reach) for k in taps], [tap(fy - k, reach) for k in taps]
        total, complete = 0.0, True
        for k, row in zip(taps, wy, strict=True):
            for m, column in zip(taps, wx, strict=True):
                weight = row * column / (sum(wx) * sum(wy))
                inside = 0 <= top + k < rows and 0 <= left + m < columns
                if not inside or not math.isfinite(pixels[top + k, left + m]):
                    complete &= reach == 1 and weight == 0.0
                else:
                    total += weight * float(pixels[top + k, left + m])
        if complete:
            return total
    return math.nan


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize(
    "transform", [Affine(), Affine(x0=0.3, y0=-0.45), turned(31, 1.0, 4.2, -6.1), turned(180, 1, 14, 12)]
)
def test_every_pixel_is_what_the_definition_says(kernel: str, transform: Affine) -> None:
    random = np.random.default_rng(7)
    pixels = random.normal(100, 10, (13, 15)).astype(np.float32)
    pixels[random.random(pixels.shape) < 0.01] = np.nan
    pixels[4, 9] = np.nan
    found = resample(pixels, AffineMap(transform), 15, 17, kernel)
    for row in range(15):
        for column in range(17):
            x, y = transform([(column, row)])[0]
            wanted = reference(pixels, x, y, ORDER[kernel])
            assert found[row, column] == pytest.approx(wanted, rel=2e-5, nan_ok=True), (row, column)


@pytest.mark.parametrize("kernel", KERNELS)
def test_the_reference_is_not_interpolated(kernel: str) -> None:
    pixels = np.random.default_rng(1).normal(0, 1e4, (40, 31)).astype(np.float32)
    pixels[3, 4] = np.nan
    assert np.array_equal(resample(pixels, AffineMap(Affine()), 40, 31, kernel), pixels, equal_nan=True)


def test_whole_pixels_move_exactly_and_the_rest_is_nan() -> None:
    pixels = np.random.default_rng(1).normal(0, 1e4, (40, 31, 3)).astype(np.float32)
    found = resample(pixels, AffineMap(Affine(x0=3, y0=-5)), 40, 31)
    assert np.array_equal(found[5:, :-3], pixels[:-5, 3:])
    assert np.isnan(found[:5]).all()
    assert np.isnan(found[:, -3:]).all()


@pytest.mark.parametrize("kernel", KERNELS)
def test_a_constant_stays_constant_or_nan(kernel: str) -> None:
    pixels = np.full((60, 50), 1000, np.float32)
    pixels[20, 20] = np.nan
    found = resample(pixels, AffineMap(turned(31, 1.0, 10.3, -20.7)), 70, 80, kernel)
    finite = found[np.isfinite(found)]
    assert finite.size > 1000
    assert np.allclose(finite, 1000, rtol=1e-6)


def test_one_missing_sample_costs_four_pixels() -> None:
    pixels = np.random.default_rng(1).normal(0, 1, (40, 40)).astype(np.float32)
    whole = resample(pixels, AffineMap(Affine(x0=0.3, y0=0.4)), 40, 40)
    pixels[20, 20] = np.nan
    holed = resample(pixels, AffineMap(Affine(x0=0.3, y0=0.4)), 40, 40)
    assert int(np.isnan(holed).sum() - np.isnan(whole).sum()) == 4


@pytest.mark.parametrize("scale", [0.7, 1.0, 1.3])
def test_the_flux_of_a_star_is_conserved(scale: float) -> None:
    y, x = np.mgrid[:61, :61]
    sigma = 1.6
    star = np.exp(-((x - 30.2) ** 2 + (y - 29.6) ** 2) / (2 * sigma**2)).astype(np.float32)
    size = round(61 / scale)
    found = resample(star, AffineMap(turned(17, scale, 30 - 30 * scale + 8, -8 + 2 * scale)), size + 20, size + 20)
    assert np.nansum(found, dtype=np.float64) == pytest.approx(star.sum(dtype=np.float64), rel=1e-3)


def test_a_wide_canvas_is_done_in_bands_that_agree() -> None:
    pixels = np.random.default_rng(1).normal(0, 1, (50, 40000)).astype(np.float32)
    found = resample(pixels, AffineMap(Affine(x0=0.25)), 50, 40000)
    single = resample(pixels[20:27], AffineMap(Affine(x0=0.25)), 7, 40000)
    assert np.array_equal(found[23], single[3], equal_nan=True)
