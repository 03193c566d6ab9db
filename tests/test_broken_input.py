from __future__ import annotations

import json
import os
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from broken_input import GOOD_FRAMES, KINDS, SHAPE, Kind, make_group
from night import leftovers, report_of, start

from zemosaic_stack_core.frames.scratch import ScratchFolder
from zemosaic_stack_core.phase3.frame_check import choose_frames

IDS = [kind.title for kind in KINDS]
MOST_BYTES = 24 * 1024 * 1024  # of memory for looking at four small frames, whatever a header claims


def test_there_are_many_kinds() -> None:
    assert len(KINDS) >= 40
    assert len(set(IDS)) == len(KINDS)


@pytest.mark.parametrize("kind", KINDS, ids=IDS)
def test_each_kind_is_used_or_dropped_alone(kind: Kind, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if "no text" in kind.title and sys.platform != "linux":
        pytest.skip("only Linux has names that are no text")
    monkeypatch.chdir(tmp_path)
    frames = make_group(tmp_path / "tile", kind)
    tracemalloc.start()
    try:
        with ScratchFolder(tmp_path) as scratch:
            choice = choose_frames(frames, scratch=scratch)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < MOST_BYTES
    assert not list(tmp_path.rglob("executed"))
    if kind.reason:
        assert [frame.name for frame in choice.dropped] == [os.fspath(frames[1])]
        assert kind.reason in choice.dropped[0].reason
        assert "\n" not in choice.dropped[0].reason
        assert len(choice.frames) == GOOD_FRAMES
    else:
        assert choice.dropped == ()
        assert [frame.path for frame in choice.frames] == frames


@pytest.mark.slow
def test_a_run_over_all_kinds_makes_every_tile(tmp_path: Path) -> None:
    tiles = [
        {
            "id": number,
            "name": kind.title,
            "frames": [os.fspath(path) for path in make_group(tmp_path / str(number), kind)],
        }
        for number, kind in enumerate(KINDS, 1)
    ]
    plan = tmp_path / "plan.json"
    plan.write_text(json.dumps({"tiles": tiles}))
    process = start(plan, tmp_path / "out", "--rejection", "none")
    _, said = process.communicate(timeout=300)
    assert process.returncode == 0, said
    assert "Traceback" not in said
    assert len([line for line in said.splitlines() if "frame dropped" in line]) == sum(
        bool(kind.reason) for kind in KINDS
    )
    assert leftovers(tmp_path / "out") == []
    records = report_of(tmp_path / "out")["tiles"]
    for kind, record in zip(KINDS, records, strict=True):
        assert record["outcome"] == "done_cpu", kind
        assert record["frames_given"] == GOOD_FRAMES + 1
        assert record["frames_used"] == GOOD_FRAMES + (not kind.reason), kind
        if kind.missing:
            covered = fits.getdata(tmp_path / "out" / record["file"], "COVERAGE")
            assert np.count_nonzero(covered == GOOD_FRAMES) == kind.missing * np.prod(SHAPE)
    assert not list(Path(__file__).parents[1].glob("executed"))


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind.reason][:6], ids=lambda kind: kind.title)
def test_a_tile_of_broken_frames_only_fails_with_a_line(kind: Kind, tmp_path: Path) -> None:
    odd = make_group(tmp_path / "tile", kind)[1]
    choice = choose_frames([odd, odd])
    assert len(choice.dropped) + len(choice.frames) == 2


def test_most_frames_decide_which_shape_is_right(tmp_path: Path) -> None:
    def frame(name: str, shape: tuple[int, int]) -> Path:
        image = np.random.default_rng(1).normal(9, 1, shape).astype(np.float32)
        fits.PrimaryHDU(image).writeto(tmp_path / name)
        return tmp_path / name

    odd, one, two = frame("a.fits", (5, 6)), frame("b.fits", (7, 8)), frame("c.fits", (7, 8))
    assert [item.path for item in choose_frames([odd, one, two]).frames] == [one, two]
    assert [item.path for item in choose_frames([odd, one]).frames] == [odd]
    assert choose_frames([]).frames == ()


@pytest.mark.parametrize(("part", "is_dropped"), [(0.45, False), (0.55, True)])
def test_more_than_half_of_the_samples_must_be_saturated(tmp_path: Path, part: float, is_dropped: bool) -> None:
    image = np.full((40, 50), 1000, np.uint16)
    image[: int(40 * part)] = 65535
    fits.PrimaryHDU(image).writeto(tmp_path / "a.fits")
    assert bool(choose_frames([tmp_path / "a.fits"]).dropped) == is_dropped
    assert not choose_frames([tmp_path / "a.fits"], saturation=70000).dropped
    assert choose_frames([tmp_path / "a.fits"], saturation=1000).dropped


def test_a_frame_of_which_little_was_seen_is_good(tmp_path: Path) -> None:
    image = np.full((900, 400), np.nan, np.float32)  # more than are looked at first
    image[123, 45] = 7.0
    np.save(tmp_path / "a.npy", image)
    assert len(choose_frames([tmp_path / "a.npy"]).frames) == 1
