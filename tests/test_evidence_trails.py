"""Satellites and airplanes are no stars, and what only one frame has speaks against no match."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from scipy.ndimage import maximum_filter
from scipy.spatial import KDTree

from zemosaic_stack_core.prepare import PrepareOptions, prepare_frames
from zemosaic_stack_core.prepare.stars.detect import cfa_luminance, detect_stars
from zemosaic_stack_core.prepare.stars.register import register_frames
from zemosaic_stack_core.prepare.stars.rows import lie_in_rows
from zemosaic_stack_core.synthetic.night import SyntheticNight
from zemosaic_stack_core.synthetic.raw_night import RawNight

_Plane = npt.NDArray[np.float64]

NIGHT = RawNight(n_frames=4, shape=(300, 400), n_stars=150, hot_fraction=0, cosmic_rays=0)


def line(along: _Plane, across: _Plane, wide: float = 1.3) -> _Plane:
    return np.exp(-0.5 * (across / wide) ** 2)


def flashing(along: _Plane, across: _Plane) -> _Plane:
    return (1 + 0.9 * np.sin(along / 23.0)) * line(along, across)


def dashed(along: _Plane, across: _Plane) -> _Plane:
    return (along % 40 < 18) * line(along, across)


def stepping(along: _Plane, across: _Plane) -> _Plane:
    return line(along, across - 2.0 * np.floor(along / 25) % 6)


def glinting(along: _Plane, across: _Plane) -> _Plane:
    return np.exp(-0.5 * (along / 60) ** 2) * line(along, across)


def train(along: _Plane, across: _Plane) -> _Plane:
    return np.sum([line(along, across - 14 * number) for number in range(5)], axis=0)


def dashed_twice(along: _Plane, across: _Plane) -> _Plane:
    return dashed(along, across) + dashed(along + 11, across - 20)


@pytest.mark.parametrize("is_cfa", [False, True])
@pytest.mark.parametrize("fwhm", [1.8, 3.0, 4.5])
@pytest.mark.parametrize(
    ("kind", "level"),
    [
        (line, 60.0),
        (line, 300.0),
        (line, 30000.0),
        (lambda along, across: line(along, across, 4.0), 2000.0),
        (flashing, 600.0),
        (dashed, 600.0),
        (dashed_twice, 300.0),
        (stepping, 500.0),
        (glinting, 800.0),
        (train, 400.0),
    ],
    ids=["faint", "plain", "bright", "wide", "flashing", "dashed", "airplane", "stepping", "glint", "train"],
)
def test_a_trail_is_no_star(kind, level, fwhm, is_cfa) -> None:  # type: ignore[no-untyped-def]
    night = replace(NIGHT, fwhm=(fwhm, fwhm), pattern="GRBG" if is_cfa else None)
    random = np.random.default_rng(3)
    y, x = np.mgrid[:300, :400]
    angle = random.uniform(0, np.pi)
    x, y = x - 210.0, y - 140.0
    along, across = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
    light = night.signal(1)
    trail = level * kind(along, across)
    found = []
    for expected in (light, light + trail):
        image = (expected + random.normal(size=expected.shape) * np.sqrt(expected + 16)).astype(np.float32)
        found.append(detect_stars(cfa_luminance(image) if is_cfa else image))
    truth = KDTree(night.transform(1).inverse()(night.stars[0]))
    plain, crossed = (truth.query(stars.points)[0] < 1.5 for stars in found)
    assert (~crossed).sum() <= (~plain).sum() + 2
    beside = maximum_filter(trail, 15) < 5
    clear = [
        is_star & beside[stars.y.round().astype(int), stars.x.round().astype(int)]
        for stars, is_star in zip(found, (plain, crossed), strict=True)
    ]
    assert clear[1].sum() > 0.95 * clear[0].sum()


@pytest.mark.parametrize("shape", [(128, 192), (256, 384)])
def test_a_night_with_satellites_is_registered(tmp_path: Path, shape: tuple[int, int]) -> None:
    paths = SyntheticNight(n_frames=6, shape=shape, dither=4).write(tmp_path / "lights")
    group = prepare_frames(paths, PrepareOptions(align="stars"), cache_folder=tmp_path / "cache", workers=1)
    assert not group.dropped
    for frame in group.frames:
        assert np.hypot(*frame.shift) < 0.15
        assert 2.9 < frame.fwhm < 3.5


def lights(along: _Plane, across: _Plane, apart: float) -> _Plane:
    return np.exp(-0.5 * (across**2 + ((along + apart / 2) % apart - apart / 2) ** 2) / 1.3**2)


@pytest.mark.parametrize("apart", [7.0, 10.0, 17.3])
@pytest.mark.parametrize("turn", [0.0, 1.5])
def test_an_airplane_that_one_frame_has_contradicts_no_match(apart: float, turn: float) -> None:
    night = replace(NIGHT, turn=turn, shift=5 * turn, n_stars=300, faintest=400.0)
    random = np.random.default_rng(4)
    y, x = np.mgrid[:300, :400]
    lists = []
    for index in range(4):
        light = night.signal(index)
        if index == 2:
            along, across = 0.8 * x + 0.6 * y - 250, 0.8 * y - 0.6 * x + 60
            light += 2000 * (lights(along, across, apart) + lights(along + 4, across - 17, apart))
        lists.append(detect_stars((light + random.normal(0, 20, light.shape)).astype(np.float32)))
    truth = KDTree(night.transform(2).inverse()(night.stars[0]))
    assert (truth.query(lists[2].points)[0] > 2).sum() <= 3
    found = register_frames(lists, min_stars=6, max_residual=1.0, names=[f"{i}.fits" for i in range(4)], reference=0)
    assert [place.reason for place in found.places] == [""] * 4
    corners = np.array([(0.0, 0.0), (400.0, 300.0)])
    for index, place in enumerate(found.places):
        assert place.transform is not None
        wanted = night.transform(index).then(night.transform(found.reference).inverse())
        assert np.abs(place.transform(corners) - wanted(corners)).max() < 0.2


def test_rows_that_chance_or_somebody_made_are_stars() -> None:
    for seed in range(30):
        random = np.random.default_rng(seed)
        assert not lie_in_rows(random.uniform(0, 300, ((20, 60, 400)[seed % 3], 2)), (300, 300)).any()
    grid = np.stack(np.meshgrid(np.arange(20.0, 280, 30), np.arange(20.0, 280, 30)), axis=-1)
    assert not lie_in_rows(grid.reshape(-1, 2), (300, 300)).any()
