"""Hot pixels: found where they are, never a star; filled from their neighbors; and stars found beside them."""

from __future__ import annotations

import numpy as np
import pytest

from zemosaic_stack_core.prepare.medians import median_of
from zemosaic_stack_core.prepare.sensor.hot_pixels import clean_pixels, hot_in_dark, persistent_pixels, sharp_pixels
from zemosaic_stack_core.prepare.stars.detect import cfa_luminance, detect_stars, luminance
from zemosaic_stack_core.synthetic.raw_night import RawNight

NIGHT = RawNight(n_frames=6, shape=(200, 240), n_stars=160, hot_fraction=0.002, cosmic_rays=5, shift=6.0)


def test_hot_pixels_that_stay_are_found_and_stars_are_not() -> None:
    counts = np.zeros(NIGHT.shape, np.int32)
    for index in range(NIGHT.n_frames):
        counts += sharp_pixels(NIGHT.light(index).astype(np.float32))
    found = persistent_pixels(counts, NIGHT.n_frames)
    true = np.zeros(NIGHT.shape, np.bool_)
    where, level = NIGHT.hot_pixels
    true.reshape(-1)[where[level > 800]] = True
    assert (found & true).sum() >= 0.9 * true.sum()
    every = np.zeros(NIGHT.shape, np.bool_)
    every.reshape(-1)[where] = True
    assert (found & ~every).sum() == 0


@pytest.mark.parametrize("fwhm", [1.6, 2.5, 4.0])
def test_a_star_is_not_sharp(fwhm: float) -> None:
    y, x = np.mgrid[:60, :60]
    for dx, dy in ((0.0, 0.0), (0.5, 0.0), (0.3, 0.4)):
        star = 5e4 * np.exp(-((x - 30 - dx) ** 2 + (y - 30 - dy) ** 2) * 4 * np.log(2) / fwhm**2)
        image = (star + np.random.default_rng(5).normal(500, 10, star.shape)).astype(np.float32)
        assert not sharp_pixels(image)[25:36, 25:36].any()


def test_few_frames_call_nothing_persistent() -> None:
    counts = np.full((10, 10), 2)
    assert not persistent_pixels(counts, 2).any()


def test_noise_alone_is_not_persistent() -> None:
    random = np.random.default_rng(6)
    counts = sum(sharp_pixels(random.normal(100, 5, (150, 150)).astype(np.float32)).astype(np.int32) for _ in range(5))
    assert not persistent_pixels(counts, 5).any()


def test_a_dark_shows_its_hot_pixels() -> None:
    dark = np.random.default_rng(7).normal(320, 5, (60, 70)).astype(np.float32)
    dark[10, 20], dark[30, 40], dark[5, 5] = 900, np.nan, 100
    assert sorted(zip(*np.nonzero(hot_in_dark(dark)), strict=True)) == [(5, 5), (10, 20), (30, 40)]


def test_bad_pixels_become_the_median_of_good_neighbors_of_their_color() -> None:
    y, x = np.mgrid[:12, :14]
    mono = (100 + x).astype(np.float32)
    bad = np.zeros(mono.shape, np.bool_)
    bad[5:8, 6:9] = True  # a cluster is filled from its rim
    found = clean_pixels(np.where(bad, 9e4, mono).astype(np.float32), bad)
    assert np.array_equal(found[~bad], mono[~bad])
    assert np.abs(found - mono)[bad].max() <= 2
    colors = (1000 * (y % 2) + 100 * (x % 2)).astype(np.float32)
    found = clean_pixels(np.where(bad, 9e4, colors).astype(np.float32), bad, is_cfa=True)
    assert np.array_equal(found, colors)
    assert clean_pixels(mono, np.zeros_like(bad)) is mono
    assert np.isnan(clean_pixels(mono, np.ones_like(bad))).all()


def test_stars_are_measured() -> None:
    night = RawNight(n_frames=1, shape=(240, 300), n_stars=120, hot_fraction=0, cosmic_rays=0, fwhm=(3.0, 3.0))
    image = (night.signal(0) + np.random.default_rng(8).normal(0, 20, night.shape)).astype(np.float32)
    stars = detect_stars(image)
    places, fluxes = night.stars
    distance = np.hypot(places[:, :1] - stars.x, places[:, 1:] - stars.y)
    partner = distance.argmin(axis=0)
    bright = fluxes[partner, 1] > 5000
    assert bright.sum() > 10
    assert np.median(distance.min(axis=0)[bright]) < 0.05
    assert np.median(stars.flux[bright] / fluxes[partner, 1][bright]) == pytest.approx(night.transparency(0), rel=0.1)
    assert stars.fwhm == pytest.approx(3.0, abs=0.3)
    assert stars.roundness > 0.9
    assert stars.noise == pytest.approx(20, rel=0.1)
    assert np.all(np.diff(stars.flux) <= 0)


def test_nothing_is_found_in_nothing() -> None:
    assert len(detect_stars(np.full((80, 90), np.nan, np.float32))) == 0
    assert len(detect_stars(np.random.default_rng(9).normal(100, 5, (120, 130)).astype(np.float32))) == 0


def test_a_border_without_data_is_no_star() -> None:
    night = RawNight(n_frames=1, shape=(200, 220), n_stars=80, hot_fraction=0, cosmic_rays=0)
    image = night.light(0).astype(np.float32)
    image[:, :70] = np.nan
    stars = detect_stars(image)
    assert len(stars) > 10
    assert stars.x.min() > 69


def test_the_luminance_of_a_mosaic_shows_no_pattern() -> None:
    y, x = np.mgrid[:40, :40]
    mosaic = (500 + 400 * (y % 2) * (x % 2) - 200 * ((y + 1) % 2) * ((x + 1) % 2)).astype(np.float32)
    assert np.ptp(cfa_luminance(mosaic)) < 1e-3
    color = np.dstack([np.full((4, 4), v, np.float32) for v in (1, 2, 6)])
    assert np.allclose(luminance(color, is_cfa=False), 3)
    assert luminance(mosaic, is_cfa=False) is mosaic


@pytest.mark.usefixtures("compiler")
@pytest.mark.parametrize("is_cfa", [False, True])
def test_borders_and_bands_of_rows_hide_no_hot_pixel(is_cfa: bool) -> None:
    random = np.random.default_rng(2)
    image = random.normal(100, 5, (150, 44)).astype(np.float32)
    places = [(0, 0), (0, 43), (31, 7), (32, 20), (63, 30), (64, 11), (149, 0), (149, 43)]
    for place in places:
        image[place] += 1000
    found = sharp_pixels(image, is_cfa=is_cfa, sigmas=20.0)
    assert sorted(map(tuple, np.argwhere(found).tolist())) == places


@pytest.mark.parametrize("count", [1, 2, 7, 1000])
def test_a_median_is_numpys(count: int) -> None:
    values = np.random.default_rng(count).normal(0, 1, count).astype(np.float32)
    assert median_of(values) == np.median(values)
