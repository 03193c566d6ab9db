"""What is taken for aligned, and on what evidence: one bad file, copied WCS, fixed objects under a moving sky."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits

from zemosaic_stack_core.frames.pixel_rows import FilePool
from zemosaic_stack_core.prepare.headers.recognize import Recognized, recognize
from zemosaic_stack_core.prepare.stars.recognize import recognize_by_stars
from zemosaic_stack_core.synthetic.raw_night import RawNight

STILL = RawNight(n_frames=3, shape=(140, 180), n_stars=220, turn=0.0, shift=0.0, cosmic_rays=4, hot_fraction=0.0)
MOVED = replace(STILL, shift=9.0)
WCS = {"CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CRVAL1": 83.8, "CRVAL2": -5.4, "CRPIX1": 90.0, "CRPIX2": 70.0}
SCALE = {"CDELT1": -5e-4, "CDELT2": 5e-4}


def write(folder: Path, night: RawNight, cards: list[dict[str, object]], dtype: type = np.float32) -> list[Path]:
    paths = []
    for index, more in enumerate(cards):
        paths.append(folder / f"light_{index}.fits")
        pixels = np.clip(np.round(night.light(index)), 0, 65535).astype(dtype)
        fits.PrimaryHDU(pixels, fits.Header(list(more.items()))).writeto(paths[-1])
    return paths


def judged(paths: list[Path]) -> Recognized:
    found = recognize(paths)
    with FilePool() as files:
        return recognize_by_stars(found, paths, files) if found.is_open else found


@pytest.mark.parametrize(
    "content", [b"", b"<html>404</html>", b"SIMPLE  =   T", b"version https://git-lfs 1", b"\0" * 5760]
)
@pytest.mark.parametrize("place", [0, 1, 3])
@pytest.mark.parametrize(
    ("cards", "dtype"),
    [({"IMAGETYP": "Light Frame"}, np.uint16), ({}, np.float32), ({"FRAME": "Light", **WCS, **SCALE}, np.uint16)],
)
def test_a_bad_file_changes_nothing(
    tmp_path: Path, content: bytes, place: int, cards: dict[str, object], dtype: type
) -> None:
    paths = write(tmp_path, MOVED, [cards] * 3, dtype)
    bad = tmp_path / "bad.fits"
    bad.write_bytes(content)
    assert judged(paths).is_raw
    assert judged([*paths[:place], bad, *paths[place:]]).is_raw


def test_bad_files_among_calibration_frames_and_wcs(tmp_path: Path) -> None:
    bad = tmp_path / "bad.fits"
    bad.write_bytes(b"")
    placed = write(tmp_path, STILL, [WCS | SCALE, WCS | SCALE | {"CRPIX1": 99.0}])
    assert recognize([*placed, bad]).is_raw
    (tmp_path / "d").mkdir()
    darks = write(tmp_path / "d", STILL, [{"IMAGETYP": "Dark"}] * 2)
    assert not recognize([*darks, bad]).is_raw


@pytest.mark.parametrize(
    "cards",
    [
        pytest.param([WCS | SCALE] * 3, id="copied"),
        pytest.param([WCS | SCALE | {"CRPIX1": 90.0 + 0.1 * i} for i in range(3)], id="nearly copied"),
        pytest.param([WCS | SCALE | {"CDELT1": 0.0, "CDELT2": 0.0}] * 3, id="no scale"),
        pytest.param([WCS | SCALE | {"CRVAL1": "?", "N": i} for i in range(3)], id="text"),
        pytest.param([WCS | {"CD1_1": 0.0, "CD2_2": 0.0, "CRPIX1": 90.0 + i} for i in range(3)], id="singular"),
        pytest.param([WCS | SCALE, WCS | SCALE, {}], id="one without"),
    ],
)
def test_a_wcs_that_proves_nothing(tmp_path: Path, cards: list[dict[str, object]]) -> None:
    assert judged(write(tmp_path, MOVED, cards)).is_raw
    (tmp_path / "still").mkdir()
    still = judged(write(tmp_path / "still", STILL, cards))
    assert not still.is_raw
    assert "aligned" in still.line


def test_where_stars_tell_nothing_a_line_says_so(tmp_path: Path) -> None:
    found = judged(write(tmp_path, replace(STILL, n_stars=0), [WCS | SCALE] * 3))
    assert not found.is_raw
    assert "can't be told" in found.line


@pytest.mark.parametrize("fixed", [30, 60])
@pytest.mark.parametrize("turn", [0.0, 8.0])
def test_a_sky_that_moves_behind_fixed_objects_is_seen(tmp_path: Path, fixed: int, turn: float) -> None:
    shape = (300, 380)
    night = replace(MOVED, shape=shape, turn=turn, n_stars=250)
    random = np.random.default_rng(5)
    trees = np.zeros(shape, np.float32)
    y, x = np.mgrid[: shape[0], : shape[1]]
    for row, column in random.uniform((10, 10), (shape[0] - 10, shape[1] - 10), (fixed, 2)):
        trees += 3000 * np.exp(-((y - row) ** 2 + (x - column) ** 2) / 4)
    paths = []
    for index in range(3):
        paths.append(tmp_path / f"{index}.fits")
        fits.PrimaryHDU((night.light(index) + trees).astype(np.float32)).writeto(paths[-1])
    found = judged(paths)
    assert found.is_raw or "can't be told" in found.line
