"""What a master's header says is true of its counts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits

from zemosaic_stack_core import StackOptions, stack
from zemosaic_stack_core.master.write import write_master


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


def test_filters_that_differ_are_not_those_of_the_first(tmp_path: Path) -> None:
    header = header_of(tmp_path, [{"FILTER": "Ha"}, {"FILTER": "OIII"}, {"FILTER": "Ha"}])
    assert header["FILTER"] == "Ha,OIII"
