"""Raw or aligned: told by headers alone, and without importing what preparing needs."""

from __future__ import annotations

import gzip
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits

from zemosaic_stack_core.prepare import PrepareOptions, RawPolicy
from zemosaic_stack_core.prepare.headers.recognize import recognize

WCS = {
    "CTYPE1": "RA---TAN",
    "CTYPE2": "DEC--TAN",
    "CRVAL1": 83.8,
    "CRVAL2": -5.4,
    "CRPIX1": 8.0,
    "CRPIX2": 6.0,
    "CD1_1": -1e-4,
    "CD1_2": 0.0,
    "CD2_1": 0.0,
    "CD2_2": 1e-4,
}


def write(path: Path, cards: dict[str, object] | None = None, *, dtype: type = np.uint16, planes: int = 1) -> Path:
    pixels = np.zeros((planes, 12, 16) if planes > 1 else (12, 16), dtype)
    fits.PrimaryHDU(pixels, fits.Header(list((cards or {}).items()))).writeto(path)
    return path


@pytest.mark.parametrize(
    ("headers", "dtype", "is_raw", "why"),
    [
        ([{"BAYERPAT": "GRBG"}, {"BAYERPAT": "GRBG"}], np.uint16, True, r"2 of 2 frames are Bayer mosaics \(GRBG\)"),
        ([{"BAYERPAT": "RGGB"}, {}], np.float32, True, r"1 of 2 frames are Bayer mosaics"),
        ([{"BAYERPAT": "none"}, {}], np.float32, False, "no Bayer pattern"),
        ([{"IMAGETYP": "Dark Frame"}, {"IMAGETYP": "Light Frame"}], np.float32, True, "1 dark among 2 files"),
        ([{"FRAME": "Bias"}, {"FRAME": "Bias"}, {}], np.float32, True, "2 biases among 3 files"),
        ([{"OBSTYPE": "DOME FLAT"}, {"OBSTYPE": "object"}], np.float32, True, "1 flat among 2 files"),
        ([{"IMAGETYP": "Dark Frame"}] * 3, np.uint16, False, "calibration frames and no light"),
        ([{"IMAGETYP": "FLAT", "BAYERPAT": "RGGB"}] * 2, np.uint16, False, "calibration frames and no light"),
        ([{"IMAGETYP": "Dark", "BAYERPAT": "RGGB"}, {}], np.uint16, True, "1 of 2 frames are Bayer mosaics"),
        ([{"IMAGETYP": "Light"}] * 3, np.uint16, True, "the 3 frames are integers that a camera's program calls light"),
        ([{"IMAGETYP": "Light"}] * 3, np.float32, False, "no camera's integers"),
        ([{}] * 3, np.uint16, False, "no camera's integers"),
        ([{"IMAGETYP": "Light", **WCS}] * 3, np.uint16, False, "all frames have the same WCS"),
        ([WCS, {**WCS, "CRPIX1": 11.0}], np.float32, True, "by their WCS the frames lie up to 3 px apart"),
        ([WCS, {**WCS, "CRPIX1": 8.2}], np.float32, False, "by their WCS the frames lie within 0.2 px"),
        ([WCS, {}], np.float32, False, "no WCS that differs"),
    ],
)
def test_the_rules(tmp_path: Path, headers: list[dict[str, object]], dtype: type, is_raw: bool, why: str) -> None:
    paths = [write(tmp_path / f"{i}.fits", cards, dtype=dtype) for i, cards in enumerate(headers)]
    found = recognize(paths)
    assert found.is_raw == is_raw
    assert re.search(why, found.why), found.why


def test_color_frames_that_kept_the_card_are_no_mosaics(tmp_path: Path) -> None:
    assert not recognize([write(tmp_path / "a.fits", {"BAYERPAT": "RGGB"}, dtype=np.float32, planes=3)]).is_raw


def test_arrays_and_files_that_are_none_say_nothing(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.zeros((3, 4)))
    (tmp_path / "b.fits").write_bytes(b"not a frame")
    assert not recognize([tmp_path / "a.npy", tmp_path / "b.fits", tmp_path / "absent.fits"]).is_raw


def test_packed_files_are_read(tmp_path: Path) -> None:
    plain = write(tmp_path / "a.fits", {"BAYERPAT": "GRBG"})
    (tmp_path / "a.fits.gz").write_bytes(gzip.compress(plain.read_bytes()))
    header = fits.Header([("BAYERPAT", "GRBG")])
    fits.HDUList([fits.PrimaryHDU(), fits.CompImageHDU(np.zeros((12, 16), np.uint16), header)]).writeto(
        tmp_path / "a.fits.fz"
    )
    assert recognize([tmp_path / "a.fits.gz"]).is_raw
    assert recognize([tmp_path / "a.fits.fz"]).is_raw


def test_what_is_asked_for_comes_first(tmp_path: Path) -> None:
    mosaic, aligned = write(tmp_path / "a.fits", {"BAYERPAT": "GRBG"}), write(tmp_path / "b.fits")
    for asked, path, is_raw in (
        (PrepareOptions(align="none"), mosaic, False),
        (PrepareOptions(align="none", bayer_pattern="GRBG"), mosaic, True),
        (PrepareOptions(align="stars"), aligned, True),
        (PrepareOptions(), aligned, False),
        (PrepareOptions(), mosaic, True),
    ):
        assert RawPolicy(options=asked).by_headers([path]).is_raw is is_raw
    found = RawPolicy(options=PrepareOptions(keep_best=0.5, reference="a.fits")).by_headers([aligned])
    assert found.line == "raw frames: asked for by --reference-frame, --keep-best; the lights are registered first"


def test_aligned_frames_cost_no_import(tmp_path: Path) -> None:
    write(tmp_path / "a.fits", WCS, dtype=np.float32)
    write(tmp_path / "b.fits", WCS, dtype=np.float32)
    code = (
        "import sys; from zemosaic_stack_core.prepare.headers.recognize import recognize; "
        f"assert not recognize([{str(tmp_path / 'a.fits')!r}, {str(tmp_path / 'b.fits')!r}]).is_raw; "
        "bad = {'numpy', 'scipy', 'sep', 'astropy', 'drizzle'} & set(sys.modules); assert not bad, bad"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
