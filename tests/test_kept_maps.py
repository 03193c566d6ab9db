"""The ends of the kept interval, and which sample of which frame was rejected, on every backend."""

from __future__ import annotations

import numpy as np
import pytest
import reference
from samples import make_frames

from zemosaic_stack_core import InvalidInputError, StackOptions, read_master, stack, write_master
from zemosaic_stack_core.command_line import main
from zemosaic_stack_core.master.replay import replay_master
from zemosaic_stack_core.options import MAPS, REJECTIONS, check_maps

WANTED = ("low", "high", "rejected", "rejected_low", "rejected_high")


def trails(n, shape):
    frames, _ = make_frames(4, n, pattern="scattered")
    rng = np.random.default_rng(1)
    frames = [rng.normal(100, 5, shape).astype(np.float32) for _ in range(n)]
    for index in range(0, n, 3):
        for step in range(min(shape[:2])):
            frames[index][step, step] += 400
            frames[index][step, max(step - 1, 0)] += 9
    frames[1][2:4] = np.nan
    return frames


@pytest.mark.parametrize("n", [1, 9, 17])
@pytest.mark.parametrize("rejection", REJECTIONS)
def test_they_are_the_references(rejection, n):
    for pattern in ("complete", "scattered"):
        frames, masks = make_frames(3, n, pattern=pattern)
        options = StackOptions(rejection=rejection, kappa_low=1.4, kappa_high=1.7)
        result = stack(frames, masks=masks, options=options, maps=WANTED, rows_per_chunk=3)
        expected = reference.stack_cube(frames, options=options, masks=masks)
        clear = expected.margin >= 1e-6
        covered = clear & (expected.coverage > 0)
        np.testing.assert_array_equal(result.low[covered], expected.low[covered].astype(np.float32))
        np.testing.assert_array_equal(result.high[covered], expected.high[covered].astype(np.float32))
        assert np.isnan(result.low[expected.coverage == 0]).all()
        for frame in range(n):
            gone = expected.below[frame] | expected.above[frame]
            np.testing.assert_array_equal(result.is_rejected(frame)[clear], gone[clear])


@pytest.mark.parametrize("shape", [(14, 19), (14, 19, 3)], ids=["mono", "color"])
@pytest.mark.parametrize("grow_radius", [0.0, 1.5])
def test_the_same_bits_and_all_that_is_counted(other_backend, shape, grow_radius):
    frames = trails(11, shape)
    options = StackOptions(grow_radius=grow_radius, grow_min_size=3, normalization="additive")
    expected = stack(frames, options=options, maps=WANTED)
    found = stack(
        [other_backend.make(frame) for frame in frames],
        options=options,
        maps=WANTED,
        backend=other_backend.backend,
        memory_limit=20_000,
    )
    for name in WANTED:
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name), err_msg=name)
    flags = np.array([expected.is_rejected(frame) for frame in range(11)])
    assert flags.shape == (11, *shape)
    np.testing.assert_array_equal(flags.sum(axis=0), expected.rejected_low + expected.rejected_high)
    counts = [np.add(frame.rejected_low, frame.rejected_high) for frame in expected.frames]
    channels = shape[2] if len(shape) == 3 else 1
    np.testing.assert_array_equal(flags.reshape(11, -1, channels).sum(axis=1), counts)
    assert flags.any()


def test_growth_narrows_the_interval():
    frames = trails(11, (14, 19))
    plain = stack(frames, options=StackOptions(kappa_high=2.0), maps=WANTED)
    grown = stack(frames, options=StackOptions(kappa_high=2.0, grow_radius=1.5, grow_min_size=3), maps=WANTED)
    assert (grown.high < plain.high).any()
    assert (grown.high <= plain.high).all()


def test_what_is_in_all_and_what_is_not():
    frames = trails(4, (5, 6))
    assert check_maps("all") == frozenset(MAPS)
    assert stack(frames, maps="all").rejected is None
    with pytest.raises(InvalidInputError, match=r"no map 'rejected'; expected a frame of a stack with maps="):
        stack(frames, maps="all").is_rejected(0)
    with pytest.raises(InvalidInputError, match="frame 4 of 4; expected a frame"):
        stack(frames, maps="rejected").is_rejected(4)
    assert stack(frames, options=StackOptions(rejection="none"), maps=("rejected", "low")).rejected.max() == 0


def test_a_master_has_the_ends(tmp_path):
    for index, frame in enumerate(trails(7, (8, 9))):
        np.save(tmp_path / f"{index}.npy", frame)
    result = stack(str(tmp_path), maps="all")
    master = write_master(tmp_path / "m.fits", result)
    for name in ("low", "high"):
        np.testing.assert_array_equal(getattr(read_master(master).result, name), getattr(result, name))
    assert replay_master(master).is_same


def test_the_command_line_has_maps_of_pixels(tmp_path, capsys):
    np.save(tmp_path / "a.npy", np.ones((4, 5), np.float32))
    command = ["stack", str(tmp_path), "-o", str(tmp_path / "m.fits"), "--no-picture", "--maps"]
    assert main([*command, "low,high"]) == 0
    assert read_master(tmp_path / "m.fits").result.high is not None
    assert main([*command, "rejected"]) == 2
    assert "map is 'rejected'; expected one of: coverage" in capsys.readouterr().err
