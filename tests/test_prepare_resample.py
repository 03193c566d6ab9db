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


def taps(fraction: float, order: int) -> list[np.float32]:
    """The weights of the taps from ``1 - order`` to ``order``."""
    distances = [fraction - k for k in range(1 - order, order + 1)]
    if order == 1 or fraction == 0:
        weights = [max(0.0, 1.0 - abs(t)) for t in distances]
    else:
        weights = [float(np.sinc(t) * np.sinc(t / order)) for t in distances]
    return [np.float32(weight / sum(weights)) for weight in weights]


def reference(pixels: npt.NDArray[np.float32], x: float, y: float, order: int) -> np.float32:
    """The definition, one output pixel at a time, each operation in float32; without rings."""
    rows, columns = pixels.shape
    nan = np.float32(math.nan)
    if not (-1e-6 <= x <= columns - 1 + 1e-6 and -1e-6 <= y <= rows - 1 + 1e-6):
        return nan
    x, y = (round(4096 * v) / 4096 for v in (x, y))
    left, top = math.floor(x), math.floor(y)

    def at(row: int, column: int) -> np.float32:
        is_there = 0 <= top + row < rows and 0 <= left + column < columns
        return pixels[top + row, left + column] if is_there else nan

    wx, wy = taps(x - left, order), taps(y - top, order)
    value = np.float32(0)
    for row, along in enumerate(wy, 1 - order):
        line = np.float32(0)
        for column, across in enumerate(wx, 1 - order):
            line += at(row, column) * across
        value += line * along
    if math.isfinite(value):
        return value
    wx, wy = taps(x - left, 1), taps(y - top, 1)
    value = np.float32(0)
    for row, along in enumerate(wy):
        for column, across in enumerate(wx):
            weight, sample = across * along, at(row, column)
            if math.isfinite(sample):
                value += weight * sample
            elif weight > 0:
                return nan
    return value


@pytest.mark.usefixtures("compiler")
@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize(
    "transform", [Affine(), Affine(x0=0.3, y0=-0.45), turned(31, 1.0, 4.2, -6.1), turned(180, 1, 14, 12)]
)
def test_every_pixel_is_what_the_definition_says(kernel: str, transform: Affine) -> None:
    random = np.random.default_rng(7)
    pixels = random.normal(100, 10, (13, 15)).astype(np.float32)
    pixels[random.random(pixels.shape) < 0.01] = np.nan
    pixels[4, 9] = np.inf
    found = resample(pixels, AffineMap(transform), 15, 17, kernel)
    places = AffineMap(transform).places(0, 15, 17)
    with np.errstate(invalid="ignore"):
        wanted = [reference(pixels, x, y, ORDER[kernel]) for x, y in np.stack(places, axis=-1).reshape(-1, 2)]
    wanted_image = np.array(wanted, np.float32).reshape(15, 17) * np.float32(AffineMap(transform).areas(0, 15, 17))
    assert np.array_equal(found, wanted_image, equal_nan=True)


@pytest.mark.usefixtures("compiler")
def test_channels_are_resampled_as_they_are_alone() -> None:
    random = np.random.default_rng(8)
    pixels = random.normal(100, 10, (40, 50, 3)).astype(np.float32)
    pixels[random.random(pixels.shape) < 0.01] = np.nan
    pixels[20, 20] = 3e4  # with rings around it
    mapping = AffineMap(turned(3, 0.98, 1.2, -2.1))
    together = resample(pixels, mapping, 45, 55)
    for channel in range(3):
        assert np.array_equal(together[..., channel], resample(pixels[..., channel], mapping, 45, 55), equal_nan=True)


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
