"""The detector of stars against truth: places, light, widths, on every sky and in any unit."""

from __future__ import annotations

import json
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest
from scipy.spatial import KDTree

from benchmarks import stars as benchmark
from zemosaic_stack_core.per_frame.sky import measure_sky
from zemosaic_stack_core.per_frame.star_pixels import aperture_sums, find_peaks, measure_windows, smooth
from zemosaic_stack_core.prepare.stars.detect import cfa_luminance, detect_stars
from zemosaic_stack_core.synthetic.raw_night import RawNight

SHAPE = (360, 480)
CASES = benchmark.cases(SHAPE)


@pytest.mark.parametrize("name", [name for name in CASES if "nothing" not in name])
def test_stars_are_where_they_are_and_as_bright_and_as_wide(name: str) -> None:
    night, lit = CASES[name]
    random = np.random.default_rng(len(name))
    light = lit(night.signal(1))
    image = (light + random.standard_normal(SHAPE) * np.sqrt(light + night.read_noise**2)).astype(np.float32)
    found = detect_stars(cfa_luminance(image) if night.pattern else image)
    seen = benchmark.compare(found, night, float(np.sqrt(np.median(light))))
    assert seen["false"] <= 1
    assert abs(seen["width"] - 1) < 0.04
    if name == "few":
        return
    assert seen["complete"] > (0.8 if name == "nebula" else 0.97)
    assert seen["bright_px"] < (0.06 if "8.0" in name or "1.8" in name else 0.03)
    assert abs(seen["light_%"]) < (5.0 if name == "nebula" else 1.3)


@pytest.mark.parametrize("unit", [1e-9, 1.0, 65535.0])
def test_the_sky_follows_a_slope_and_its_noise_does_not(unit: float) -> None:
    random = np.random.default_rng(1)
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]]
    level = 1000 + 4.0 * x + 0.01 * (y - 100.0) ** 2
    image = level + random.normal(0, 20, SHAPE)
    image[50:70, 50:70] += 5000
    sky = measure_sky((unit * image).astype(np.float32))
    assert sky is not None
    apart = sky.level_image() / unit - level
    # A box's mean is 3 above its middle where the sky curves so much.
    assert abs(apart.mean() - 3) < 1
    assert np.abs(apart).max() < 12
    assert sky.noise / unit == pytest.approx(20, rel=0.05)
    assert sky.noise_image(1.0).max() / unit < 24


def test_the_noise_of_whole_numbers_is_no_whole_number() -> None:
    image = np.rint(np.random.default_rng(2).normal(500, 1.7, SHAPE)).astype(np.float32)
    sky = measure_sky(image)
    assert sky is not None
    assert sky.noise == pytest.approx(np.hypot(1.7, 1 / 12**0.5), rel=0.04)


def test_a_sky_with_holes_is_that_of_what_is_there() -> None:
    image = np.random.default_rng(3).normal(200, 5, SHAPE).astype(np.float32)
    image[:150] = np.nan
    sky = measure_sky(image, np.isnan(image))
    assert sky is not None
    assert np.abs(sky.level_image() - 200).max() < 2
    assert measure_sky(np.full(SHAPE, np.nan, np.float32), np.ones(SHAPE, np.bool_)) is None


def gaussian(
    x: float, y: float, wide: tuple[float, float], shape: tuple[int, int] = (40, 50)
) -> npt.NDArray[np.float32]:
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    return np.exp(-0.5 * (((columns - x) / wide[0]) ** 2 + ((rows - y) / wide[1]) ** 2)).astype(np.float32)


@pytest.mark.parametrize("wide", [(1.3, 1.3), (2.0, 1.2), (1.0, 1.5)])
def test_windows_tell_centers_and_shapes(wide: tuple[float, float]) -> None:
    image = gaussian(20.3, 17.8, wide)
    seen = measure_windows(image, np.array([20.0]), np.array([18.0]), 1.4, 8)
    assert (seen.x[0], seen.y[0]) == pytest.approx((20.3, 17.8), abs=0.01)
    assert (seen.along[0], seen.across[0]) == pytest.approx((max(wide), min(wide)), rel=0.02)


def test_a_line_has_no_end_and_emptiness_no_width() -> None:
    line = np.zeros((40, 50), np.float32)
    line[20] = 1
    seen = measure_windows(smooth(line), np.array([25.0]), np.array([20.0]), 1.3)
    assert seen.along[0] > 10 * seen.across[0]
    assert np.isnan(measure_windows(np.zeros((40, 50), np.float32), np.array([25.0]), np.array([20.0]), 1.3).fwhm).all()


def test_light_within_a_radius_is_that_of_a_disc() -> None:
    flat = np.ones((60, 70), np.float32)
    x, y = np.array([30.0, 30.4, 2.0]), np.array([30.0, 29.7, 30.0])
    sums = aperture_sums(flat, x, y, (3.0, 7.0))
    assert sums[:2] == pytest.approx(np.pi * np.array([[9.0, 49.0]] * 2), rel=0.02)
    assert 0.5 < sums[2, 1] / sums[0, 1] < 0.8  # at the border, what is there
    assert np.abs(aperture_sums(flat, x[:2], y[:2], (3.0,), (1.0, 5.0))).max() < 1e-3


def test_peaks_are_the_first_of_equals_and_the_highest_first() -> None:
    image = np.zeros((20, 20), np.float32)
    image[5, 5:7] = 3
    image[12, 9] = 7
    image[1, 1] = 9
    row, column = find_peaks(image, image > 0, 3)
    assert (row.tolist(), column.tolist()) == ([12, 5], [9, 5])


@pytest.mark.parametrize("shape", [(1, 1), (3, 40), (9, 9), (12, 40), (17, 16), (16, 300)])
def test_frames_of_hardly_a_star_are_looked_at(shape: tuple[int, int]) -> None:
    noise = np.random.default_rng(4).normal(100, 3, shape).astype(np.float32)
    assert len(detect_stars(noise)) == 0
    assert len(detect_stars(np.full(shape, 7, np.float32))) == 0
    star = gaussian(shape[1] / 2, shape[0] / 2, (1.3, 1.3), shape)
    assert len(detect_stars(noise + 2000 * star)) <= 1


NIGHT = RawNight(n_frames=2, shape=SHAPE, n_stars=300, hot_fraction=0, cosmic_rays=0, fwhm=(2.5, 2.5))
Y, X = np.mgrid[: SHAPE[0], : SHAPE[1]]


@pytest.mark.parametrize(
    ("spoiled", "seen"),
    [
        pytest.param(lambda image: np.where((X > 330) | (Y < 60), 0, image), 0.5, id="a border of zeros"),
        pytest.param(lambda image: np.where((X > 130) | (Y < 60), 0, image), 0.15, id="mostly zeros"),
        pytest.param(lambda image: np.maximum(image - 400, 0), 0.95, id="nothing negative"),
        pytest.param(lambda image: np.maximum(image - 410, 0), 0.9, id="most of the sky cut off"),
        pytest.param(lambda image: np.minimum(image, 3000), 0.8, id="saturated"),
        pytest.param(lambda image: np.rint(image / 40), 0.9, id="coarse"),
        pytest.param(lambda image: image / 65535, 0.98, id="0 to 1"),
        pytest.param(lambda image: image - 430, 0.98, id="sky below zero"),
        pytest.param(lambda image: image + 8000 * np.exp(-np.hypot(X - 480, Y) / 60), 0.75, id="a glow"),
        pytest.param(lambda image: np.where(X > 240, np.nan, image), 0.35, id="half is missing"),
        pytest.param(lambda image: np.where((7 * X + 11 * Y) % 41 == 0, -3000, image), 0.5, id="a wrong dark"),
    ],
)
def test_stars_are_found_in_what_programs_and_cameras_make_of_them(
    spoiled: Callable[[npt.NDArray[np.float64]], npt.NDArray[np.float64]], seen: float
) -> None:
    image = NIGHT.signal(0) + np.random.default_rng(6).normal(0, 20, SHAPE)
    places = KDTree(NIGHT.stars[0])
    plain, found = (detect_stars(part.astype(np.float32)) for part in (image, spoiled(image)))
    is_star = places.query(found.points)[0] < 2
    assert is_star.sum() >= seen * len(plain)
    assert (~is_star).sum() <= 0.1 * len(found)
    assert found.fwhm == pytest.approx(plain.fwhm, rel=0.06)


def test_stars_without_noise_are_stars() -> None:
    found = detect_stars(NIGHT.signal(0).astype(np.float32))
    assert len(found) > 80
    assert np.median(KDTree(NIGHT.stars[0]).query(found.points)[0]) < 0.01


@pytest.mark.slow
@pytest.mark.parametrize("part", [["detect", "--size", "270", "320"], ["register", "--frames", "4", "9"]])
def test_the_benchmark_runs(part: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    benchmark.main(part)
    assert all(json.loads(line) for line in capsys.readouterr().out.splitlines())
