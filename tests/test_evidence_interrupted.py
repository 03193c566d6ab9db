"""Interrupted preparations: what is aligned stays aligned."""

from __future__ import annotations

from pathlib import Path

import pytest

from zemosaic_stack_core.prepare import PrepareOptions, prepare_frames
from zemosaic_stack_core.synthetic.raw_night import RawNight


class StopError(Exception):
    """Somebody pressed Ctrl-C."""


@pytest.mark.parametrize("done_before", [1, 2, 3, 4, 5])
def test_frames_that_are_aligned_are_not_aligned_again(tmp_path: Path, done_before: int) -> None:
    paths = RawNight(n_frames=6, shape=(120, 150), n_stars=150, turn=0.0).write(tmp_path / "raw")

    def stop(step: str, done: int, _: int) -> None:
        if step == "align" and done == done_before:
            raise StopError

    with pytest.raises(StopError):
        prepare_frames(paths, PrepareOptions(levels="none"), cache_folder=tmp_path / "c", progress=stop, workers=1)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "c").glob("aligned-*.fits")}
    assert len(before) == done_before
    counts: list[int] = []

    def count(step: str, _: int, total: int) -> None:
        if step == "align":
            counts.append(total)

    group = prepare_frames(paths, PrepareOptions(levels="none"), cache_folder=tmp_path / "c", progress=count, workers=1)
    assert counts[-1] == 6 - done_before
    assert len(group.paths) == 6
    assert all(path.stat().st_mtime_ns == time for path, time in before.items())
