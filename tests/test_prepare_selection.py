"""Which registered frames are used, and what is said of those that clouds dimmed."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest

from zemosaic_stack_core.errors import InvalidInputError
from zemosaic_stack_core.prepare.options import PrepareOptions
from zemosaic_stack_core.prepare.records import PreparedFrame
from zemosaic_stack_core.prepare.selection import dimmed_line, select_frames, with_transparency


def frames(*ratios: float) -> list[PreparedFrame]:
    """Return frames whose stars give so many times less light than the reference's."""
    return [
        PreparedFrame(name=f"{i}.fits", path=Path(f"{i}.fits"), flux_ratio=ratio, exposure=30.0, fwhm=3.0, noise=5.0)
        for i, ratio in enumerate(ratios)
    ]


def test_transparency_is_relative_to_the_clearest() -> None:
    found = with_transparency(frames(1.0, 0.5, 2.0))
    assert [frame.transparency for frame in found] == [0.5, 1.0, 0.25]


def test_a_longer_exposure_is_not_a_clearer_sky() -> None:
    short, long = frames(1.0)[0], replace(frames(0.5)[0], exposure=60.0)
    assert [frame.transparency for frame in with_transparency([short, long])] == [1.0, 1.0]
    unknown = replace(short, exposure=math.nan)
    assert [frame.transparency for frame in with_transparency([unknown, long])] == [0.5, 1.0]


def test_frames_without_stars_and_dropped_ones_set_no_standard() -> None:
    lost, dropped, good = frames(math.nan, 0.1, 1.0)
    found = with_transparency([lost, replace(dropped, dropped="two fields"), good])
    assert math.isnan(found[0].transparency)
    assert found[2].transparency == 1.0
    assert not dimmed_line(found)
    assert all(math.isnan(frame.transparency) for frame in with_transparency([lost]))


def test_the_dimmest_are_named_first_and_only_some() -> None:
    assert not dimmed_line(with_transparency(frames(1.0, 1.3, 1.4)))
    line = dimmed_line(with_transparency(frames(1.0, 2.0, 10.0)))
    assert line == (
        "light lost (clouds?), against the clearest frame: 2.fits 90 %, 1.fits 50 %; "
        "--keep-best 33% leaves out as many of the worst frames"
    )
    assert " and 3 more; --keep-best 11% " in dimmed_line(with_transparency(frames(1.0, *[4.0] * 8)))


def test_the_sharpest_is_told_where_none_is_sharp_enough() -> None:
    wide = [replace(frame, fwhm=width) for frame, width in zip(frames(1, 1), (4.5, 3.25), strict=True)]
    with pytest.raises(InvalidInputError, match=r"the sharpest has a FWHM of 3\.25 px; expected at most 2, as asked"):
        select_frames(wide, PrepareOptions(max_fwhm=2.0))
    assert [bool(frame.dropped) for frame in select_frames(wide, PrepareOptions(max_fwhm=4.0))] == [True, False]
