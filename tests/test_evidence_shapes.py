"""Frames with a WCS need not have one shape; `run` judges them as `stack` does."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from night import report_of, run

from zemosaic_stack_core.command_line import main
from zemosaic_stack_core.prepare.canvas.geometry import Affine
from zemosaic_stack_core.synthetic.raw_night import RawNight

NIGHT = RawNight(n_frames=5, shape=(160, 200), n_stars=200, shift=4.0, turn=0.0)
# What is left of the frames 1 and 3: rows and columns.
CUTS = {
    "rows": (slice(0, 130), slice(None)),
    "columns": (slice(None), slice(20, 180)),
    "both": (slice(10, 140), slice(30, 190)),
    "a corner": (slice(80, 160), slice(100, 200)),
    "turned on its side": (slice(0, 159), slice(0, 199)),
}


def write(folder: Path, cut: str, *, has_wcs: bool = True, darks: int = 0) -> list[Path]:
    folder.mkdir(parents=True)
    paths = []
    for index in range(NIGHT.n_frames):
        rows, columns = CUTS[cut] if index in (1, 3) else (slice(None), slice(None))
        x, y = place_of(index)
        header = fits.Header({"IMAGETYP": "Light", "EXPTIME": 10.0})
        if has_wcs:
            header.update({"CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CRVAL1": 10.0, "CRVAL2": 20.0})
            header.update({"CD1_1": -1e-3, "CD1_2": 0.0, "CD2_1": 0.0, "CD2_2": 1e-3})
            header["CRPIX1"], header["CRPIX2"] = 100 - x - (columns.start or 0), 80 - y - (rows.start or 0)
        paths.append(folder / f"light_{index}.fits")
        fits.PrimaryHDU(NIGHT.light(index)[rows, columns], header).writeto(paths[-1])
    return paths


def place_of(index: int) -> tuple[float, float]:
    """Return where a frame's first pixel lies on the first frame."""
    transform: Affine = NIGHT.transform(index)
    x, y = transform.shift_at(0, 0)
    return float(x), float(y)


@pytest.mark.parametrize("cut", list(CUTS))
def test_frames_of_several_shapes_are_placed_by_their_wcs(
    tmp_path: Path, cut: str, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "night" / "tile"
    write(folder, cut)
    assert main(["stack", str(folder), "-o", str(tmp_path / "m.fits"), "--no-picture", "--workers", "1"]) == 0
    said = capsys.readouterr().err
    assert "alignment: wcs" in said
    assert run(tmp_path / "night", tmp_path / "out", "--workers", "1") == 0
    record = report_of(tmp_path / "out")["tiles"][0]
    assert (record["frames_used"], record["dropped"]) == (5, [])
    image = fits.getdata(tmp_path / "out" / "master_tile_001.fits")
    np.testing.assert_array_equal(image, fits.getdata(tmp_path / "m.fits"))
    # The stars of all frames lie on each other: as sharp as with frames of one shape.
    write(tmp_path / "whole", cut="turned on its side")
    assert main(["stack", str(tmp_path / "whole"), "-o", str(tmp_path / "w.fits"), "--no-picture"]) == 0
    whole = fits.getdata(tmp_path / "w.fits")
    assert np.nanmax(image) > 0.9 * np.nanmax(whole)


def test_without_a_wcs_shapes_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "night" / "tile"
    write(folder, "both", has_wcs=False)
    assert main(["stack", str(folder), "-o", str(tmp_path / "m.fits"), "--no-picture"]) == 2
    assert "light_1.fits is 130 x 160 with 1 channels; expected 160 x 200" in capsys.readouterr().err
    assert run(tmp_path / "night", tmp_path / "out", "--workers", "1") == 0
    assert len(report_of(tmp_path / "out")["tiles"][0]["dropped"]) == 2


@pytest.mark.parametrize("align", ["stars", "none"])
def test_shapes_and_another_alignment_are_refused(
    tmp_path: Path, align: str, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path / "raw", "both")
    command = ["stack", str(tmp_path / "raw"), "-o", str(tmp_path / "m.fits"), "--no-picture", "--align", align]
    assert main([*command, "--hot-pixels", "off"]) == 2
    assert "frames of several shapes are placed by their WCS, not by" in capsys.readouterr().err
