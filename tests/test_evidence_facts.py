"""What a master's header says is true of its counts."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits

from zemosaic_stack_core import StackOptions, stack
from zemosaic_stack_core.command_line import main
from zemosaic_stack_core.master.write import write_master
from zemosaic_stack_core.synthetic.raw_night import RawNight


def header_of(tmp_path: Path, cards: list[dict[str, object]], **options: object) -> fits.Header:
    random = np.random.default_rng(1)
    paths = []
    for index, more in enumerate(cards):
        seconds = float(more.get("EXPTIME", 10.0))  # type: ignore[arg-type]
        paths.append(tmp_path / f"{index}.fits")
        image = random.normal(20, 2, (40, 48)) * seconds + np.linspace(0, 30, 48) * seconds
        fits.PrimaryHDU(image.astype(np.float32), fits.Header(list(more.items()))).writeto(paths[-1])
    result = stack(paths, options=StackOptions(**options))  # type: ignore[arg-type]
    return fits.getheader(write_master(tmp_path / "m.fits", result))


@pytest.mark.parametrize(
    ("normalization", "expected"),
    [
        ("linear_fit", 60.0),
        ("multiplicative", 60.0),
        ("additive_scaling", 60.0),
        ("additive", 35.0),
        ("none", 35.0),
    ],
)
def test_the_exposure_is_that_of_the_counts(tmp_path: Path, normalization: str, expected: float) -> None:
    cards = [{"EXPTIME": 60.0}, {"EXPTIME": 10.0}]
    header = header_of(tmp_path, cards, normalization=normalization, reference=0)
    assert header["EXPTIME"] == expected
    assert header["EXPTOTAL"] == 70.0


@pytest.mark.parametrize(("combine", "expected"), [("mean", 3700 / 70), ("median", 35.0)])
def test_the_exposure_of_a_weighted_mean_is_weighted(tmp_path: Path, combine: str, expected: float) -> None:
    cards: list[dict[str, object]] = [{"EXPTIME": 60.0}, {"EXPTIME": 10.0}]
    weighting = "exposure" if combine == "mean" else "none"
    header = header_of(tmp_path, cards, combine=combine, weighting=weighting)
    assert header["EXPTIME"] == pytest.approx(expected)
    assert header["EXPTOTAL"] == 70.0


def test_filters_that_differ_are_not_those_of_the_first(tmp_path: Path) -> None:
    header = header_of(tmp_path, [{"FILTER": "Ha"}, {"FILTER": "OIII"}, {"FILTER": "Ha"}])
    assert header["FILTER"] == "Ha,OIII"


# The card, its values in four frames, and what the master says.
DIFFERING = [
    ("INSTRUME", ["ASI533", "ASI533", "S50", "S50"], "ASI533,S50"),
    ("TELESCOP", ["A", "B", "C", "D"], "A,B,C,D"),
    ("OBJECT", ["M 31", "M 31", "M 31", "M 31"], "M 31"),
    ("OBJECT", [f"the long name of {n}" for n in "abcd"], "the long name of a,the long name of b and 2 more"),
    ("READOUTM", ["High", None, "Low", None], "High,Low"),
    ("GAIN", [100, 100, 0, 0], None),
    ("GAIN", [100, 100, 100, 100], 100),
    ("GAIN", [100, 100.0, "100", 100], 100),
    ("XBINNING", [1, 1, 2, 2], None),
    ("FOCALLEN", [250.0, 250.0, 600.0, 600.0], None),
    ("CCD-TEMP", [-10.0, -10.2, -9.8, -10.4], -10.1),
    ("AIRMASS", [1.0, 1.2, 1.4, 2.0], 1.4),
    # What no list knows: the first and the last frame tell.
    ("FRAMENO", [1, 2, 3, 4], None),
    ("HFD", [2.1, 2.2, 2.4, 2.0], None),
    ("SWCREATE", ["N.I.N.A."] * 4, "N.I.N.A."),
    ("OBJCTAZ", ["12 30 00", "12 31 00", "12 32 00", "12 33 00"], None),
    ("HIERARCH ESO TEL FOCU", [1.0, 2.0, 3.0, 4.0], None),
    ("HIERARCH ESO INS MODE", ["IMG"] * 4, "IMG"),
    # The grid is the reference's.
    ("CRVAL1", [10.0, 10.1, 10.2, 10.3], 10.0),
    ("RA", [10.0, 10.1, 10.2, 10.3], 10.0),
]


@pytest.mark.parametrize(("keyword", "values", "expected"), DIFFERING)
def test_what_differs_is_not_that_of_the_first(
    tmp_path: Path, keyword: str, values: list[object], expected: object
) -> None:
    cards = [{"EXPTIME": 10.0} | ({} if value is None else {keyword: value}) for value in values]
    assert header_of(tmp_path, cards).get(keyword) == expected


# Nights of two years, a camera of another country's clock, and the usual ways to write a date.
STARTS = ["2024-07-30T22:44:36", "2024-07-30T22:44:48", "2025-06-30T02:34:20.500", "2025-06-30T02:34:41"]
DATES: dict[str, list[dict[str, object]]] = {
    "as FITS has them": [{"DATE-OBS": start} for start in STARTS],
    "date and time apart": [{"DATE-OBS": start[:10], "TIME-OBS": start[11:]} for start in STARTS],
    "with the end": [{"DATE-OBS": start, "DATE-END": start[:17] + "59"} for start in STARTS],
    "DATE-BEG": [{"DATE-BEG": start} for start in STARTS],
    "MJD": [{"MJD-OBS": (datetime.fromisoformat(start) - datetime(1858, 11, 17)) / timedelta(1)} for start in STARTS],
    "unlike in every frame": [
        {"DATE-OBS": STARTS[0]},
        {"DATE-OBS": STARTS[1] + "Z"},
        {"MJD-OBS": (datetime.fromisoformat(STARTS[2]) - datetime(1858, 11, 17)) / timedelta(1)},
        {"DATE-OBS": "2025-06-30T04:34:41+02:00"},
    ],
}


@pytest.mark.parametrize("case", list(DATES))
@pytest.mark.parametrize("order", [1, -1])
def test_dates_are_those_of_all_nights(tmp_path: Path, case: str, order: int) -> None:
    header = header_of(tmp_path, [{"EXPTIME": 10.0, **cards} for cards in DATES[case]][::order])
    assert header["DATE-OBS"] == "2024-07-30T22:44:36"
    assert header["DATE-END"] == ("2025-06-30T02:34:59" if case == "with the end" else "2025-06-30T02:34:51")
    assert header["DATE-AVG"].startswith("2025-01-14T00:39:4")


@pytest.mark.parametrize("with_wcs", [(0, 1, 2, 3), (1,), (0, 2), ()])
def test_prepared_frames_keep_their_own_dates_and_facts(tmp_path: Path, with_wcs: tuple[int, ...]) -> None:
    paths = RawNight(n_frames=4, shape=(160, 200), n_stars=120, shift=3.0, turn=0.0).write(tmp_path / "raw")
    for index, (path, start) in enumerate(zip(paths, STARTS, strict=True)):
        with fits.open(path, mode="update") as hdus:
            header = hdus[0].header
            header["DATE-OBS"], header["CCD-TEMP"], header["EXPTIME"] = start, 5.0 * index - 10.0, 10.0
            header["OBSGEO-X"] = 1.0
            if index in with_wcs:
                header.update(wcs_of(path))
    command = ["stack", *map(str, paths), "-o", str(tmp_path / "m.fits"), "--no-picture", "--workers", "1"]
    assert main(command) == 0
    with fits.open(tmp_path / "m.fits") as hdus:
        header, table = hdus[0].header, hdus["FRAMES"].data
        assert ("CTYPE1" in header) == bool(with_wcs)
        assert [one[:19] for one in table["DATE_OBS"]] == [start[:19] for start in STARTS]
    assert (header["DATE-OBS"], header["DATE-END"]) == (STARTS[0], "2025-06-30T02:34:51")
    assert header["CCD-TEMP"] == -2.5
    assert "MJD-OBS" not in header


def wcs_of(path: Path) -> dict[str, object]:
    """Return a WCS for a frame of the night, with its dates, as plate solvers write it."""
    return {
        **{"CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CRVAL1": 10.0, "CRVAL2": 20.0, "CRPIX1": 100.0, "CRPIX2": 80.0},
        **{"CD1_1": -1e-3, "CD1_2": 0.0, "CD2_1": 0.0, "CD2_2": 1e-3, "MJD-OBS": 60000.0},
    }


@pytest.mark.parametrize("seconds", [(60.0, 20.0, 10.0, 30.0), (10.0, 10.0, 60.0, 60.0)])
def test_the_exposure_of_leveled_frames_is_that_of_their_flux(tmp_path: Path, seconds: tuple[float, ...]) -> None:
    night = RawNight(n_frames=4, shape=(160, 200), n_stars=120, shift=3.0, turn=0.0)
    paths = night.write(tmp_path / "raw")
    for path, time in zip(paths, seconds, strict=True):
        with fits.open(path, mode="update") as hdus:
            sky = np.median(hdus[0].data)
            hdus[0].data = (sky + (hdus[0].data - sky) * (time / 60.0)).astype(np.float32)
            hdus[0].header["EXPTIME"] = time
    command = ["stack", *map(str, paths), "-o", str(tmp_path / "m.fits"), "--no-picture", "--workers", "1"]
    assert main([*command, "--levels", "offset", "--align", "stars", "--reference-frame", str(paths[1])]) == 0
    header = fits.getheader(tmp_path / "m.fits")
    assert header["EXPTIME"] == pytest.approx(seconds[1])
    assert header["EXPTOTAL"] == sum(seconds)
