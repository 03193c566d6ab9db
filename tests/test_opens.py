"""How often a stack opens each of its inputs: headers are read once and handed on."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path

import pytest
from opens import count_opens

from zemosaic_stack_core.synthetic.night import SyntheticNight
from zemosaic_stack_core.synthetic.raw_night import RawNight

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only forked processes inherit open files")


def counts_of(opened: Counter[str], folder: Path) -> list[int]:
    return [opened[str(path.resolve())] for path in sorted(folder.glob("*.fits"))]


@pytest.mark.slow
def test_a_raw_frame_is_opened_for_its_header_its_hash_and_its_pixels(tmp_path: Path) -> None:
    night = RawNight(n_frames=5, shape=(160, 200), n_stars=220, turn=0.3, shift=3.0, cosmic_rays=4)
    night.write(tmp_path / "raw", darks=2, biases=2, flats=2)
    command = ["stack", tmp_path / "raw", "-o", tmp_path / "master.fits", "--backend", "cpu", "--workers", 2]
    counts = counts_of(count_opens(command, tmp_path), tmp_path / "raw")
    assert counts[6:] == [3] * 5
    assert set(counts[:6]) <= {3, 4}  # by both threads of a master's stack, unless one is done before the other begins


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "expected"),
    [
        # The master's cards come from the first frame, as far as the second and the last say the same.
        (("--normalization", "none", "--rejection", "kappa_sigma"), [3, 3, 2, 2, 3]),
        # Once more for its level, twice where all are compared with it; the cards are the reference's.
        ((), [4, 3, 4, 4, 4]),
    ],
)
def test_an_aligned_frame_is_opened_for_its_header_and_by_each_process(
    tmp_path: Path, options: tuple[str, ...], expected: list[int]
) -> None:
    SyntheticNight(n_frames=5, shape=(40, 56), dither=4).write(tmp_path / "aligned")
    folder = tmp_path / "aligned"
    command = ["stack", folder, "-o", tmp_path / "master.fits", "--backend", "cpu", "--workers", 1]
    command += ["--weighting", "exposure", *options]
    assert counts_of(count_opens(command, tmp_path), folder) == expected
