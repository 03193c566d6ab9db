"""Places by WCS: through the sky and back, checked against the stars."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from astropy.io import fits
from astropy.wcs import WCS
from stars import list_stars

from zemosaic_stack_core.prepare import PrepareOptions, prepare_frames
from zemosaic_stack_core.prepare.canvas.geometry import corners_of, fit_affine
from zemosaic_stack_core.prepare.canvas.wcs import WcsMap, border_points, pixel_to_pixel
from zemosaic_stack_core.prepare.frame_set import forecast_preparation
from zemosaic_stack_core.prepare.stars.detect import StarList

ROWS, COLUMNS = 300, 400


def header(x: float = 0.0, y: float = 0.0, degrees: float = 0.0, projection: str = "TAN") -> str:
    wcs = WCS(naxis=2)
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    wcs.wcs.ctype = [f"RA---{projection}", f"DEC--{projection}"]
    wcs.wcs.crval = [120.0, 40.0]
    wcs.wcs.crpix = [200.5 - x, 150.5 - y]
    wcs.wcs.cd = np.array([[-c, s], [s, c]]) * 5e-4
    return str(wcs.to_header().tostring(padding=False, endcard=False))


def stars_at(points: npt.NDArray[np.float64]) -> StarList:
    inside = points[np.all((points > 4) & (points < (COLUMNS - 5, ROWS - 5)), axis=1)]
    return list_stars(inside, np.linspace(9000, 900, len(inside)), 20.0, (ROWS, COLUMNS))


def sky() -> npt.NDArray[np.float64]:
    return np.random.default_rng(1).uniform(-100, 500, (300, 2))


@pytest.mark.parametrize("projection", ["TAN", "SIN"])
def test_the_map_is_that_of_the_sky(projection: str) -> None:
    frame, canvas = header(12.3, -7.8, 33.0, projection), header(projection=projection)
    mapping = WcsMap(frame=frame, canvas=canvas)
    x, y = mapping.places(40, 90, COLUMNS)
    rows, columns = np.mgrid[40:90, :COLUMNS]
    exact = pixel_to_pixel(canvas, frame, np.column_stack([columns.ravel(), rows.ravel()]).astype(float))
    assert np.abs(x.ravel() - exact[:, 0]).max() < 1e-3
    assert np.abs(y.ravel() - exact[:, 1]).max() < 1e-3
    assert np.allclose(mapping.areas(40, 90, COLUMNS), 1.0, atol=1e-3)


def test_bands_agree() -> None:
    mapping = WcsMap(frame=header(5, 5, 12), canvas=header())
    whole = np.stack(mapping.places(440, 500, COLUMNS))  # over the border of two blocks of rows
    parts = np.concatenate([np.stack(mapping.places(start, start + 20, COLUMNS)) for start in (440, 460, 480)], axis=1)
    assert np.array_equal(whole, parts)
    assert np.array_equal(
        mapping.areas(440, 500, COLUMNS),
        np.concatenate([mapping.areas(440, 487, COLUMNS), mapping.areas(487, 500, COLUMNS)]),
    )


def test_the_nearest_affine_map_is_near() -> None:
    corners = corners_of(ROWS, COLUMNS)
    found = fit_affine(corners, pixel_to_pixel(header(10, 20), header(), corners))
    assert found.shift_at(200, 150) == pytest.approx((10, 20), abs=1e-3)
    border = border_points(header(10, 20), header(), ROWS, COLUMNS)
    assert np.ptp(border, axis=0) == pytest.approx((COLUMNS - 1, ROWS - 1), abs=0.01)


def test_headers_survive_as_text() -> None:
    assert WCS(fits.Header.fromstring(header())).wcs.crpix[0] == 200.5


def test_the_disk_that_a_mosaic_takes_is_told_before(tmp_path: Path) -> None:
    random = np.random.default_rng(4)
    paths = []
    for index, (x, y) in enumerate([(0, 0), (300, 0), (0, 200), (300, 200)]):
        paths.append(tmp_path / f"{index}.fits")
        pixels = random.normal(1000, 5, (ROWS, COLUMNS)).astype(np.float32)
        fits.writeto(paths[-1], pixels, fits.Header.fromstring(header(x, y)))
    options = PrepareOptions(align="wcs")
    told = forecast_preparation(paths, options).least_disk
    prepare_frames(paths, options, cache_folder=tmp_path / "cache")
    taken = sum(path.stat().st_size for path in (tmp_path / "cache").iterdir())
    assert told.endswith(" MB")
    assert float(told.removesuffix(" MB")) == pytest.approx(taken / 1e6, rel=0.2)
