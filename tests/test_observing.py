import gzip
from dataclasses import replace
from datetime import datetime

import numpy as np
import pytest
from astropy.io import fits

from zemosaic_stack_core.fits.observing import SHARED_CARDS, ObservingFacts, parse_date
from zemosaic_stack_core.frames.heads import read_head


def write(path, **cards):
    header = fits.Header()
    for keyword, value in cards.items():
        header[keyword.replace("_", "-")] = value
    fits.writeto(path, np.zeros((2, 3), np.float32), header)
    return path


def test_cards_are_read(tmp_path):
    path = write(
        tmp_path / "a.fits",
        EXPTIME=20.0,
        DATE_OBS="2025-06-30T00:33:56.5",
        FILTER="O'III",
        OBJECT="M 51",
        CTYPE1="RA---TAN",
        CRVAL1=1.0,
    )
    found = read_head(path).observing
    assert dict(zip(SHARED_CARDS, found.shared, strict=True))["OBJECT"] == "M 51"
    assert replace(found, shared=()) == ObservingFacts(
        size=path.stat().st_size,
        exposure=20.0,
        start=datetime(2025, 6, 30, 0, 33, 56, 500000),
        end=datetime(2025, 6, 30, 0, 34, 16, 500000),
        filter="O'III",
        object="M 51",
        has_wcs=True,
    )


def test_a_date_end_counts_unless_it_is_before_the_start(tmp_path):
    a = read_head(
        write(tmp_path / "a.fits", EXPTIME=1.0, DATE_OBS="2025-01-01T00:00:00", DATE_END="2025-01-01T00:00:07")
    ).observing
    b = read_head(
        write(tmp_path / "b.fits", EXPTIME=1.0, DATE_OBS="2025-01-01T00:00:00", DATE_END="2024-01-01T00:00:07")
    ).observing
    assert (a.end, b.end) == (datetime(2025, 1, 1, 0, 0, 7), datetime(2025, 1, 1, 0, 0, 1))
    assert a.middle == datetime(2025, 1, 1, 0, 0, 3, 500000)


@pytest.mark.parametrize(
    ("cards", "expected"),
    [
        ({"EXPOSURE": 5}, 5.0),
        ({"EXPTIME": "10.5"}, 10.5),
        ({"EXPTIME": "soon", "EXPOSURE": 3.0}, 3.0),
        ({"EXPTIME": -1.0}, None),
        ({}, None),
    ],
)
def test_exposure(tmp_path, cards, expected):
    assert read_head(write(tmp_path / "a.fits", **cards)).observing.exposure == expected


def test_an_extension_adds_what_an_empty_primary_lacks(tmp_path):
    primary = fits.PrimaryHDU()
    primary.header["EXPTIME"] = 7.0
    image = fits.ImageHDU(np.zeros((2, 3)))
    image.header["EXPTIME"] = 9.0
    image.header["OBJECT"] = "in the extension"
    fits.HDUList([primary, image]).writeto(tmp_path / "a.fits")
    facts = read_head(tmp_path / "a.fits").observing
    assert (facts.exposure, facts.object) == (7.0, "in the extension")


def test_gzip_is_read_whatever_the_name(tmp_path):
    plain = write(tmp_path / "a.fits", EXPTIME=4.0)
    (tmp_path / "b.fits").write_bytes(gzip.compress(plain.read_bytes()))
    assert read_head(tmp_path / "b.fits").observing.exposure == 4.0


@pytest.mark.parametrize(
    "content", [b"", b"<html>", b"SIMPLE  =", b"SIMPLE  =" + b" " * 4000, b"\x1f\x8b\x08broken", b"\x93NUMPY"]
)
def test_what_is_no_fits_has_a_size_and_nothing_else(tmp_path, content):
    path = tmp_path / "a.fits"
    path.write_bytes(content)
    assert read_head(path).observing == ObservingFacts(size=len(content))


def test_an_absent_file_has_no_facts(tmp_path):
    assert read_head(tmp_path / "absent.fits").observing == ObservingFacts()


@pytest.mark.parametrize(
    ("date", "time", "expected"),
    [
        ("2025-06-30T00:33:56.417372", None, datetime(2025, 6, 30, 0, 33, 56, 417372)),
        ("2025-06-30T00:33:56Z", None, datetime(2025, 6, 30, 0, 33, 56)),
        ("2025-06-30T02:33:56+02:00", None, datetime(2025, 6, 30, 0, 33, 56)),
        ("2025-06-30", None, datetime(2025, 6, 30)),
        ("2025-06-30", "01:02:03", datetime(2025, 6, 30, 1, 2, 3)),
        ("30/06/95", "01:02:03", datetime(1995, 6, 30, 1, 2, 3)),
        ("2025-13-30", None, None),
        ("2025-06-30T25:00:00", None, None),
        ("0000-00-00T00:00:00", None, None),
        ("0001-01-01T00:00:00+05:00", None, None),
        ("20250630", None, None),
        ("2025-W01-1", None, None),
        ("yesterday", None, None),
        ("", None, None),
        (None, None, None),
    ],
)
def test_dates(date, time, expected):
    assert parse_date(date, time) == expected
