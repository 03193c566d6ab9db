"""Interrupted preparations: what is aligned stays aligned."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from zemosaic_stack_core.errors import OutputError
from zemosaic_stack_core.prepare import PrepareOptions, prepare_frames
from zemosaic_stack_core.synthetic.raw_night import RawNight


class StopError(Exception):
    """Somebody pressed Ctrl-C."""


NIGHT = RawNight(n_frames=6, shape=(120, 150), n_stars=150, turn=0.0)
MOSAIC = replace(NIGHT, shift=30.0)


def prepare(night: RawNight, folder: Path, levels: str, stop: tuple[str, int] | None = None) -> Counter[str]:
    """Prepare a night, up to so many frames of a step where it is to stop; return how many each step did."""
    paths = night.write(folder / "raw") if not (folder / "raw").exists() else sorted((folder / "raw").iterdir())
    steps: Counter[str] = Counter()

    def count(step: str, done: int, _: int) -> None:
        steps[step] += 1
        if (step, done) == stop:
            raise StopError

    options = PrepareOptions(levels=levels)
    try:
        group = prepare_frames(paths, options, cache_folder=folder / "cache", progress=count, workers=1)
        assert len(group.paths) == night.n_frames
    except StopError:
        pass
    return steps


@pytest.mark.parametrize("step", ["stars", "align"])
@pytest.mark.parametrize("done", [1, 5])
def test_what_is_done_for_a_frame_is_not_done_again(tmp_path: Path, step: str, done: int) -> None:
    assert prepare(NIGHT, tmp_path, "none", (step, done))[step] == done
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "cache").glob("aligned-*.fits")}
    assert len(before) == (done if step == "align" else 0)
    assert prepare(NIGHT, tmp_path, "none")[step] == 6 - done
    assert all(path.stat().st_mtime_ns == time for path, time in before.items())


def test_a_disk_that_is_full_leaves_what_is_aligned(tmp_path: Path) -> None:
    def fill(step: str, done: int, _: int) -> None:
        if (step, done) == ("align", 4):
            raise OutputError("no room")

    paths = NIGHT.write(tmp_path / "raw")
    with pytest.raises(OutputError, match="no room"):
        prepare_frames(paths, PrepareOptions(levels="none"), cache_folder=tmp_path / "cache", progress=fill, workers=1)
    assert prepare(NIGHT, tmp_path, "none")["align"] == 2


@pytest.mark.parametrize("done", [1, 3, 5])
def test_a_frame_at_its_level_is_not_aligned_again(tmp_path: Path, done: int) -> None:
    assert prepare(MOSAIC, tmp_path, "plane", ("levels", done))["align"] == 6
    again = prepare(MOSAIC, tmp_path, "plane")
    assert again["align"] == 0
    assert again["levels"] == 6 - done


@pytest.mark.parametrize("levels", ["none", "plane"])
def test_frames_that_were_cut_off_with_the_power_are_made_again(tmp_path: Path, levels: str) -> None:
    prepare(MOSAIC, tmp_path, levels)
    whole = {path.name: path.read_bytes() for path in (tmp_path / "cache").glob("aligned-*.fits")}
    for group in (tmp_path / "cache").glob("group-*.json"):  # is written when the frames are on the disk
        group.unlink()
    for name in list(whole)[::2]:
        os.truncate(tmp_path / "cache" / name, len(whole[name]) // 2880 // 2 * 2880)
    assert prepare(MOSAIC, tmp_path, levels)["align"] == 3
    assert {path.name: path.read_bytes() for path in (tmp_path / "cache").glob("aligned-*.fits")} == whole


def test_frames_that_were_removed_are_made_again(tmp_path: Path) -> None:
    prepare(NIGHT, tmp_path, "offset")
    whole = {path.name: path.read_bytes() for path in (tmp_path / "cache").glob("aligned-*.fits")}
    for name in list(whole)[::2]:
        (tmp_path / "cache" / name).unlink()
    assert prepare(NIGHT, tmp_path, "offset")["align"] == 3
    assert {path.name: path.read_bytes() for path in (tmp_path / "cache").glob("aligned-*.fits")} == whole
