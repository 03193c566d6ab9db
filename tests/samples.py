"""Frames made up for tests, and the comparison of a stack with the scalar reference."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import reference

from zemosaic_stack_core import StackOptions, StackResult

PATTERNS = ("complete", "borders", "scattered", "masks")
NARROW = 1e-6  # a decision this many spreads from its bound may go either way: see the reference's margin

Frames = list[npt.NDArray[Any]]
Masks = list[npt.NDArray[np.bool_] | None]


def color_masks(pattern: str, rows: int, columns: int) -> npt.NDArray[np.bool_]:
    """Return which pixels of a Bayer mosaic have which color, shape (3, row, column)."""
    masks = np.zeros((3, rows, columns), np.bool_)
    for index, color in enumerate(pattern):
        masks["RGB".index(color), index // 2 :: 2, index % 2 :: 2] = True
    return masks


class UnreadableFrame:
    """A source of rows, as `frames.group.FrameSource`, none of which may or can be read."""

    name, path, channels, is_color = "unreadable", None, 1, False
    dtype = np.dtype(np.float32)

    def __init__(self, error: Exception, shape: tuple[int, int] = (4, 5)) -> None:
        self._error = error
        self.rows, self.columns = shape

    def read_rows(self, *_: object) -> None:
        """Raise the error."""
        raise self._error


def make_frames(seed: int, n: int, shape: tuple[int, ...] = (5, 9), pattern: str = "complete") -> tuple[Frames, Masks]:
    """Make `n` frames of a sky of 100 +- 5 with a few outliers, and one mask (or None) per frame.

    ``borders`` shifts every frame, which leaves NaN at two edges; one pixel has no sample at all. ``scattered`` makes
    single samples NaN or infinite. ``masks`` masks single samples, of some frames only.
    """
    rng = np.random.default_rng([seed, n])
    cube = rng.normal(100.0, 5.0, (n, *shape)).astype(np.float32)
    cube += rng.normal(0.0, 1.0, (n,) + (1,) * len(shape)).astype(np.float32)  # the sky drifts
    hit = rng.random(cube.shape) < 0.06
    cube[hit] += rng.normal(20.0, 200.0, int(hit.sum())).astype(np.float32)
    masks: Masks = [None] * n
    if pattern == "borders":
        for frame in cube:
            rows, columns = rng.integers(0, 3, 2)
            frame[:rows] = np.nan
            frame[:, frame.shape[1] - columns :] = np.nan
        cube[:, 0, -1] = np.nan
    elif pattern == "scattered":
        cube[rng.random(cube.shape) < 0.12] = np.nan
        cube[rng.random(cube.shape) < 0.02] = np.inf
        cube[rng.random(cube.shape) < 0.02] = -np.inf
        cube[:, 1, 1] = np.nan
    elif pattern == "masks":
        masks = [rng.random(shape) < 0.2 if k % 3 != 1 else None for k in range(n)]
    return list(cube), masks


def assert_same_bits(first: StackResult, second: StackResult) -> None:
    """Compare every number of two stacks with ==, NaN for NaN."""
    for name in ("image", "coverage", "rejected_low", "rejected_high", "weight_map", "variance"):
        one, other = getattr(first, name), getattr(second, name)
        assert (one is None) == (other is None), name
        if one is not None:
            assert one.dtype == other.dtype, name
            np.testing.assert_array_equal(one, other, err_msg=name, strict=True)
    for one, other in zip(first.frames, second.frames, strict=True):
        assert counts_of(one) == counts_of(other)
        assert (one.weight, one.scale, one.offset) == (other.weight, other.scale, other.offset)


def counts_of(record: Any) -> tuple[tuple[int, ...], ...]:
    """Return the counts of rejected low, rejected high and missing of a frame's record."""
    return tuple(record.rejected_low), tuple(record.rejected_high), tuple(record.missing)


def assert_conserves(result: StackResult, n_missing: npt.NDArray[Any], n: int) -> None:
    """Check coverage + rejected low + rejected high + missing == frames, and NaN exactly where coverage is 0."""
    assert result.coverage is not None
    assert result.rejected_low is not None
    assert result.rejected_high is not None
    np.testing.assert_array_equal(result.coverage + result.rejected_low + result.rejected_high + n_missing, n)
    np.testing.assert_array_equal(np.isnan(result.image), result.coverage == 0)
    np.testing.assert_array_equal(result.coverage == 0, n_missing == n)


def assert_matches_reference(
    result: StackResult,
    frames: Sequence[npt.NDArray[Any]],
    options: StackOptions,
    *,
    weights: npt.ArrayLike | None = None,
    masks: Masks | None = None,
    variances: Sequence[npt.NDArray[Any]] | None = None,
    allow_narrow: float = 0.0,
) -> None:
    """Check image, maps and the frames' counts against the reference, but for at most a share of narrow pixels."""
    expected = reference.stack_cube(frames, options=options, weights=weights, masks=masks, variances=variances)
    n = len(frames)
    assert_conserves(result, expected.missing, n)
    clear = expected.margin >= NARROW
    assert np.count_nonzero(~clear) <= allow_narrow * clear.size, "the test decides too little"
    for name in ("coverage", "rejected_low", "rejected_high"):
        np.testing.assert_array_equal(getattr(result, name)[clear], getattr(expected, name)[clear], err_msg=name)
    assert_within_ulp(result.image[clear], expected.image[clear], 1, "image")
    assert_within_ulp(result.weight_map[clear], expected.weight_map[clear], 1, "weight_map")
    assert_within_ulp(result.variance[clear], expected.variance[clear], 4, "variance")
    assert (result.image.dtype, result.variance.dtype) == (np.float32, np.float32)
    assert {result.coverage.dtype, result.rejected_low.dtype, result.rejected_high.dtype} == {np.dtype(np.int32)}
    for k, record in enumerate(result.frames):
        low, high, missing = (
            tuple(cube[k].reshape(-1, cube.shape[3] if cube.ndim == 4 else 1).sum(0).tolist())
            for cube in (expected.below, expected.above, expected.absent)
        )
        assert tuple(record.missing) == missing
        if clear.all():
            assert counts_of(record) == (low, high, missing), f"frame {k}"


def assert_within_ulp(actual: npt.NDArray[Any], expected: npt.NDArray[Any], ulp: int, name: str) -> None:
    """Check float32 numbers against float64 ones: at most `ulp` units in the last place apart, NaN for NaN."""
    with np.errstate(over="ignore"):  # the variance of samples near the largest float32 is infinite
        wanted = expected.astype(np.float32)
    np.testing.assert_array_equal(np.isinf(actual), np.isinf(wanted), err_msg=name)
    np.testing.assert_array_equal(np.isnan(actual), np.isnan(wanted), err_msg=name)
    both = np.isfinite(wanted)
    distance = np.abs(actual[both].astype(np.float64) - wanted[both].astype(np.float64))
    worst = distance / np.spacing(np.abs(wanted[both]))
    assert worst.size == 0 or worst.max() <= ulp, f"{name}: {worst.max():.1f} units in the last place"
