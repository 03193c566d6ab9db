"""Stars are what noise is not, whatever smoothed it; and the answer is the same in any unit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from zemosaic_stack_core.prepare import PrepareOptions, prepare_frames
from zemosaic_stack_core.prepare.canvas.geometry import Affine
from zemosaic_stack_core.prepare.canvas.resample import AffineMap, resample
from zemosaic_stack_core.prepare.stars.detect import cfa_luminance, detect_stars
from zemosaic_stack_core.prepare.stars.match import find_match
from zemosaic_stack_core.synthetic.raw_night import RawNight

pytestmark = pytest.mark.slow

_Image = npt.NDArray[np.float32]

HALF = AffineMap(Affine(x0=0.5, y0=0.5))
SHAPE = (700, 900)
FEW = RawNight(n_frames=4, shape=(500, 600), n_stars=24, cosmic_rays=4)


def noise(seed: int) -> _Image:
    return np.random.default_rng(seed).normal(500, 8, SHAPE).astype(np.float32)


def boxed(image: _Image) -> _Image:
    return np.asarray((image[1:, 1:] + image[:-1, 1:] + image[1:, :-1] + image[:-1, :-1]) / 4, np.float32)


@pytest.mark.parametrize(
    "smoothed",
    [
        pytest.param(lambda image: image, id="mono"),
        pytest.param(cfa_luminance, id="Bayer"),
        pytest.param(lambda image: resample(image, HALF, 700, 890, "lanczos3"), id="lanczos"),
        pytest.param(lambda image: resample(image, HALF, 700, 890, "bilinear"), id="bilinear"),
        pytest.param(boxed, id="binned"),
        pytest.param(lambda image: boxed(boxed(cfa_luminance(image))), id="smoothed again"),
        pytest.param(lambda image: np.round(image / 8).astype(np.float32), id="coarse integers"),
    ],
)
def test_pure_noise_has_no_stars(smoothed: Callable[[_Image], _Image]) -> None:
    assert sum(len(detect_stars(smoothed(noise(seed)))) for seed in range(4)) < 4


@pytest.mark.parametrize("pattern", [None, "GRBG", "RGGB"])
@pytest.mark.parametrize("n_stars", [24, 60])
def test_a_field_of_few_stars_is_registered(tmp_path: Path, pattern: str | None, n_stars: int) -> None:
    paths = replace(FEW, pattern=pattern, n_stars=n_stars).write(tmp_path / "raw")
    group = prepare_frames(paths, cache_folder=tmp_path / "c", workers=1)
    assert not group.dropped
    for index, frame in enumerate(group.frames):
        assert frame.residual < 0.2
        assert frame.fwhm < 4.2, index


@pytest.mark.parametrize("unit", [1e-9, 1 / 65535, 65535.0, 1e6])
@pytest.mark.parametrize("is_cfa", [False, True])
def test_the_same_stars_in_any_unit(unit: float, is_cfa: bool) -> None:
    night = RawNight(n_frames=2, shape=(300, 360), n_stars=200)
    images = [night.light(index).astype(np.float32) for index in range(2)]
    found = []
    for scale in (1.0, unit):
        lists = [
            detect_stars(cfa_luminance(i * np.float32(scale)) if is_cfa else i * np.float32(scale)) for i in images
        ]
        match = find_match(*lists)
        assert match is not None
        found.append((lists, match))
    (plain, one), (scaled, other) = found
    assert abs(len(scaled[0]) - len(plain[0])) <= 2
    assert abs(other.stars - one.stars) <= 3
    corners = np.array([[0.0, 0.0], [359.0, 299.0]])
    assert np.allclose(one.transform(corners), other.transform(corners), atol=0.02)
    assert other.flux_ratio == pytest.approx(one.flux_ratio, rel=1e-3)


def test_a_set_in_another_unit_comes_out_alike(tmp_path: Path) -> None:
    from astropy.io import fits

    night = RawNight(n_frames=3, shape=(240, 300), n_stars=250, shift=40.0)
    found = []
    for unit in (1.0, 1e-9):
        folder = tmp_path / f"{unit}"
        folder.mkdir()
        for index in range(3):
            fits.PrimaryHDU((night.light(index) * unit).astype(np.float32)).writeto(folder / f"{index}.fits")
        options = PrepareOptions(align="stars", levels="offset")
        group = prepare_frames(sorted(folder.iterdir()), options, cache_folder=tmp_path / f"c{unit}", workers=1)
        found.append([frame.shift for frame in group.frames])
        images = [fits.getdata(path) / unit for path in group.paths]
        assert abs(float(np.nanmedian(images[1] - images[0]))) < 2.0
    assert np.allclose(found[0], found[1], atol=0.03)
