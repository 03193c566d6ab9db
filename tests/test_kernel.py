"""What `stack` promises whatever the rule, on every backend."""

import numpy as np
import pytest
from samples import PATTERNS, assert_conserves, assert_same_bits, counts_of, make_frames

from zemosaic_stack_core import StackOptions, stack
from zemosaic_stack_core.options import COMBINATIONS, REJECTIONS


def dithered_field(n, shape=(9, 11), level=1000.0):
    """Return frames of one level whose borders are NaN, each shifted differently, and one pixel nobody covers."""
    rng = np.random.default_rng(n)
    frames = [np.full(shape, level, dtype=np.float32) for _ in range(n)]
    for frame in frames:
        top, left, bottom, right = rng.integers(0, 3, 4)
        frame[:top] = frame[shape[0] - bottom :] = np.nan
        frame[:, :left] = frame[:, shape[1] - right :] = np.nan
        frame[0, 0] = np.nan
    return frames


@pytest.mark.parametrize("rejection", REJECTIONS)
def test_a_constant_field_stays_one(backend, rejection):
    """No hole, no seam, no zero: 1000 where a frame covers the pixel, NaN where none does."""
    frames = dithered_field(9)
    covered = np.isfinite(frames).sum(0)
    assert 0 < np.count_nonzero(covered < 9) < covered.size
    assert covered[0, 0] == 0
    for combine in COMBINATIONS if backend.id == "numpy" else ("mean", "median"):
        if combine == "sum":  # of fewer where fewer cover the pixel: tests/test_sum.py
            continue
        result = stack(
            [backend.make(frame) for frame in frames],
            options=StackOptions(rejection=rejection, combine=combine),
            maps="all",
            backend=backend.backend,
            workers=1,
        )
        np.testing.assert_array_equal(result.image, np.where(covered > 0, np.float32(1000.0), np.float32(np.nan)))
        np.testing.assert_array_equal(result.coverage, covered)
        assert not result.rejected_low.any()
        assert not result.rejected_high.any()
        is_known = (covered > 1) & (combine in ("mean", "median"))
        np.testing.assert_array_equal(result.variance, np.where(is_known, np.float32(0.0), np.float32(np.nan)))


@pytest.mark.parametrize("weights", ["frame", "sample"])
@pytest.mark.parametrize("rejection", REJECTIONS)
def test_a_weighted_constant_field_stays_one(rejection, weights):
    frames = dithered_field(9)
    rng = np.random.default_rng(1)
    values = rng.uniform(0.2, 1.0, 9 if weights == "frame" else (9, *frames[0].shape))
    result = stack(frames, options=StackOptions(rejection=rejection), weights=values, maps="all", workers=1)
    covered = np.isfinite(frames).any(0)
    np.testing.assert_array_equal(result.image, np.where(covered, np.float32(1000.0), np.float32(np.nan)))


@pytest.mark.parametrize("rejection", REJECTIONS)
def test_conservation(backend, rejection):
    patterns = PATTERNS if backend.id != "cupy" else ("scattered",)
    for pattern in patterns:
        frames, masks = make_frames(20, 6, pattern=pattern)
        result = stack(
            [backend.make(frame) for frame in frames],
            options=StackOptions(rejection=rejection, kappa_low=1.5, kappa_high=1.5),
            masks=[None if mask is None else backend.make(mask) for mask in masks],
            maps="all",
            backend=backend.backend,
            workers=1,
        )
        missing = sum(
            ~np.isfinite(frame) | (False if mask is None else mask) for frame, mask in zip(frames, masks, strict=True)
        )
        assert_conserves(result, missing, 6)
        counts = np.asarray([counts_of(record) for record in result.frames])[..., 0].sum(0)
        assert counts.tolist() == [result.rejected_low.sum(), result.rejected_high.sum(), missing.sum()]


@pytest.mark.parametrize("rejection", REJECTIONS)
def test_color_is_three_monos(rejection):
    frames, masks = make_frames(21, 9, shape=(5, 7, 3), pattern="scattered")
    masks = [np.random.default_rng(k).random((5, 7, 3)) < 0.1 if k % 2 else None for k in range(9)]
    weights = np.random.default_rng(0).uniform(0.5, 1.0, (9, 3))
    options = StackOptions(rejection=rejection, kappa_low=1.7, kappa_high=1.7)
    for color_weights in (None, weights):
        color = stack(frames, options=options, masks=masks, weights=color_weights, maps="all", workers=1)
        for channel in range(3):
            mono = stack(
                [frame[..., channel] for frame in frames],
                options=options,
                masks=[None if mask is None else mask[..., channel] for mask in masks],
                weights=None if color_weights is None else weights[:, channel],
                maps="all",
                workers=1,
            )
            for name in ("image", "coverage", "weight_map", "rejected_low", "rejected_high", "variance"):
                np.testing.assert_array_equal(getattr(color, name)[..., channel], getattr(mono, name), err_msg=name)
            for of_color, of_mono in zip(color.frames, mono.frames, strict=True):
                assert [counts[channel] for counts in counts_of(of_color)] == [c[0] for c in counts_of(of_mono)]


@pytest.mark.parametrize("rejection", REJECTIONS)
def test_inputs_are_not_written(backend, rejection):
    """Read-only frames fail where they are written to; the others are compared with what they were."""
    frames, _ = make_frames(22, 5, shape=(3, 4), pattern="scattered")
    rng = np.random.default_rng(2)
    masks = [rng.random((3, 4)) < 0.2 for _ in range(5)]
    weights = rng.uniform(0.5, 1.0, (5, 3, 4))
    given = [backend.make(frame) for frame in frames]
    given_masks = [backend.make(mask) for mask in masks]
    given_weights = weights.copy()
    given_weights.flags.writeable = backend.id != "numpy-readonly"
    stack(
        given,
        options=StackOptions(rejection=rejection),
        masks=given_masks,
        weights=given_weights,
        maps="all",
        backend=backend.backend,
        workers=1,
    )
    for before, after in zip((*frames, *masks), (*given, *given_masks), strict=True):
        out = np.empty_like(before)
        backend.backend.download(after, out)
        np.testing.assert_array_equal(out, before)
    np.testing.assert_array_equal(given_weights, weights)


@pytest.mark.parametrize("rejection", REJECTIONS)
def test_integer_frames_are_their_float_values(rejection):
    rng = np.random.default_rng(23)
    frames = [rng.integers(0, 65536, (4, 5)).astype(np.uint16) for _ in range(7)]
    options = StackOptions(rejection=rejection, kappa_low=1.5, kappa_high=1.5)
    integer = stack(frames, options=options, maps="all", workers=1)
    floating = stack([frame.astype(np.float32) for frame in frames], options=options, maps="all", workers=1)
    assert_same_bits(integer, floating)


def test_maps_are_given_when_asked_for():
    frames, _ = make_frames(24, 4)
    names = ("coverage", "weight_map", "rejected_low", "rejected_high", "variance")
    full = stack(frames, maps="all", workers=1)
    for wanted in ((), ("coverage",), ("variance", "weight_map"), names):
        result = stack(frames, maps=wanted, workers=1)
        for name in names:
            value = getattr(result, name)
            assert (value is not None) == (name in wanted)
            if value is not None:
                np.testing.assert_array_equal(value, getattr(full, name))
    assert stack(frames, workers=1).coverage is not None  # asked for by default


def test_the_same_array_may_be_given_twice():
    frame = np.full((3, 3), 5.0, dtype=np.float32)
    result = stack([frame] * 4, workers=1)
    np.testing.assert_array_equal(result.image, frame)


def test_the_largest_float_is_a_sample():
    """A sample of the largest float32 is present; only NaN, infinities, masks and zero weights are missing."""
    largest = np.finfo(np.float32).max
    frames = [np.full((2, 2), value, dtype=np.float32) for value in (largest, largest, np.inf)]
    for combine in ("median", "min", "max"):
        result = stack(frames, options=StackOptions(rejection="none", combine=combine), workers=1)
        np.testing.assert_array_equal(result.image, largest)
        np.testing.assert_array_equal(result.coverage, 2)


@pytest.mark.parametrize("combine", COMBINATIONS)
@pytest.mark.parametrize("rejection", REJECTIONS)
def test_a_negative_zero_is_a_zero(backend, rejection, combine):
    """Which of two zeros is the smaller no two libraries agree on: all count as positive ones."""
    if backend.id == "cupy" and combine not in ("mean", "min"):
        pytest.skip("one program more to compile, and nothing new")
    rng = np.random.default_rng(5)
    frames = [np.copysign(np.float32(0.0), rng.normal(size=(3, 7))).astype(np.float32) for _ in range(6)]
    assert np.signbit(frames).any()
    result = stack(
        [backend.make(frame) for frame in frames],
        options=StackOptions(rejection=rejection, combine=combine),
        maps="all",
        backend=backend.backend,
        workers=1,
    )
    for name in ("image", "weight_map", "variance"):
        assert not np.signbit(getattr(result, name)).any(), name
    np.testing.assert_array_equal(result.image, 0.0)


def test_progress_counts_every_row():
    frames, _ = make_frames(25, 3, shape=(10, 4))
    calls = []
    stack(frames, rows_per_chunk=3, workers=1, progress=lambda done, total: calls.append((done, total)))
    assert calls[-1] == (10, 10)
    assert [done for done, _ in calls] == sorted(done for done, _ in calls)
    assert {total for _, total in calls} == {10}
