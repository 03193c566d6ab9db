"""Hot pixels by their surroundings: glow is none, coarse darks have some, sharp stars are stars; in any unit."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from zemosaic_stack_core.prepare import prepare_frames
from zemosaic_stack_core.prepare.sensor.hot_pixels import hot_in_dark, persistent_pixels, sharp_pixels
from zemosaic_stack_core.synthetic.raw_night import RawNight

SHAPE = (200, 260)
PLACES = [(20, 30), (100, 250), (150, 60), (199, 0), (60, 128)]
_Image = npt.NDArray[np.float32]
Y, X = np.mgrid[: SHAPE[0], : SHAPE[1]]
GROUND: dict[str, npt.NDArray[np.float64]] = {
    "flat": np.zeros(SHAPE),
    "glow in a corner": 900 * np.exp(-np.hypot(X - 259, Y) / 40.0),
    "glow at an edge": 600 * np.exp(-((X - 259) ** 2) / 900.0),
    "gradient": 3.0 * X + 2.0 * Y,
    "banding": 25.0 * np.sin(Y / 3.0),
    "two amplifiers": 80.0 * (X >= 130),
}


def dark(ground: str, seed: int = 1, sigma: float = 4.0) -> _Image:
    level = 500 + GROUND[ground]
    noise = np.random.default_rng(seed).normal(0, 1, SHAPE) * np.hypot(sigma, 0.3 * np.sqrt(GROUND[ground].clip(0)))
    return np.asarray(level + noise, np.float32)


@pytest.mark.parametrize("ground", list(GROUND))
@pytest.mark.parametrize("unit", [1.0, 1e-9, 65535.0])
def test_the_hot_pixels_of_a_dark_and_no_others(ground: str, unit: float) -> None:
    image = dark(ground)
    for place in PLACES:
        image[place] += 400
    found = set(map(tuple, np.argwhere(hot_in_dark(image * np.float32(unit))).tolist()))
    assert set(PLACES) <= found
    assert len(found) <= len(PLACES) + 2


@pytest.mark.parametrize("sigma", [0.2, 0.5, 1.0])
@pytest.mark.parametrize("floor", [None, 500.0])
def test_coarse_and_clipped_darks(sigma: float, floor: float | None) -> None:
    image = np.round(dark("flat", sigma=sigma))
    if floor is not None:
        image = np.maximum(image, np.float32(floor))
    for place in PLACES:
        image[place] += 60
    assert sorted(map(tuple, np.argwhere(hot_in_dark(image)).tolist())) == sorted(PLACES)


def test_a_cluster_of_hot_pixels_is_found_whole() -> None:
    image = dark("flat")
    image[50:53, 70:73] += 500
    assert hot_in_dark(image)[50:53, 70:73].all()


@pytest.mark.parametrize("unit", [1e-9, 1.0, 65535.0])
def test_sharp_pixels_are_the_same_in_any_unit(unit: float) -> None:
    night = RawNight(n_frames=1, shape=(120, 150), n_stars=80)
    image = night.light(0).astype(np.float32)
    assert np.array_equal(sharp_pixels(image * np.float32(2**-30)), sharp_pixels(image))
    assert (sharp_pixels(image * np.float32(unit)) != sharp_pixels(image)).sum() <= 2


def test_lights_of_coarse_integers_have_no_more_hot_pixels() -> None:
    counts = np.zeros((150, 180), np.int32)
    for seed in range(5):
        image = np.round(np.random.default_rng(seed).normal(20, 0.3, counts.shape)).astype(np.float32)
        image[70, 90] += 30
        counts += sharp_pixels(image)
    assert np.argwhere(persistent_pixels(counts, 5)).tolist() == [[70, 90]]


@pytest.mark.parametrize("fwhm", [1.3, 1.4, 1.5])
def test_undithered_sharp_stars_are_no_hot_pixels(fwhm: float) -> None:
    night = RawNight(
        n_frames=5,
        shape=(160, 200),
        n_stars=60,
        turn=0.0,
        shift=0.0,
        fwhm=(fwhm, fwhm),
        hot_fraction=0.0,
        cosmic_rays=3,
    )
    counts = np.zeros(night.shape, np.int32)
    for index in range(night.n_frames):
        counts += sharp_pixels(night.light(index).astype(np.float32))
    assert persistent_pixels(counts, 5).sum() <= 2


def test_a_dark_that_is_hot_all_over_is_said(tmp_path: Path) -> None:
    from astropy.io import fits

    paths = RawNight(n_frames=3, shape=(120, 150), n_stars=120, turn=0.0).write(tmp_path / "raw", darks=3)
    random = np.random.default_rng(3)
    where = random.random((120, 150)) < 0.1
    for path in paths[3:]:
        with fits.open(path, mode="update") as hdus:
            hdus[0].data[where] += 3000
    said: list[str] = []
    group = prepare_frames(paths, cache_folder=tmp_path / "c", report=said.append, workers=1)
    assert any("something else is wrong" in line for line in said)
    assert group.hot_pixels < 0.02 * 120 * 150


def test_glow_leaves_no_hole(tmp_path: Path) -> None:
    from astropy.io import fits

    night = replace(RawNight(n_frames=4, shape=SHAPE, n_stars=150, turn=0.0), hot_fraction=0.0)
    paths = night.write(tmp_path / "raw", darks=4)
    for path in paths:
        with fits.open(path, mode="update") as hdus:
            hdus[0].data = (hdus[0].data + GROUND["glow at an edge"]).astype(np.uint16)
    group = prepare_frames(paths, cache_folder=tmp_path / "c", workers=1)
    assert group.hot_pixels <= 3
