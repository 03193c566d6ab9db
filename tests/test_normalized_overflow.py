"""A sample that normalization takes beyond float32 is missing: not finite, by the definition."""

from __future__ import annotations

import numpy as np
import pytest
from samples import assert_conserves, assert_same_bits

from zemosaic_stack_core import StackOptions, stack
from zemosaic_stack_core.options import COMBINATIONS, REJECTIONS

# A pixel whose sample in the faint frame is near the largest float32, and would be doubled.
LARGE = (2, 3)
NEGATIVE = (4, 1)


def make_frames():
    """Return seven frames without a missing sample; the first is half as bright as the others."""
    generator = np.random.default_rng(5)
    frames = [generator.normal(1000.0, 10.0, (6, 8)).astype(np.float32) for _ in range(7)]
    frames[0] /= np.float32(2.0)
    frames[0][LARGE], frames[0][NEGATIVE] = 3e38, -3e38
    return frames


@pytest.mark.slow
@pytest.mark.parametrize("rows_per_chunk", [None, 1])
@pytest.mark.parametrize("combine", COMBINATIONS)
@pytest.mark.parametrize("rejection", REJECTIONS)
def test_it_is_missing(rejection, combine, rows_per_chunk):
    frames = make_frames()
    options = StackOptions(rejection=rejection, combine=combine, normalization="multiplicative", reference=1)
    result = stack(frames, options=options, maps="all", rows_per_chunk=rows_per_chunk, workers=1)
    scale = result.frames[0].scale[0]
    assert scale == pytest.approx(2.0, rel=0.01)
    missing = np.zeros((6, 8), dtype=np.int64)
    missing[LARGE] = missing[NEGATIVE] = 1
    assert result.frames[0].missing == (2,)
    assert [frame.missing for frame in result.frames[1:]] == [(0,)] * 6
    assert_conserves(result, missing, len(frames))
    mean = result.image / result.coverage if combine == "sum" else result.image
    assert np.all(np.abs(mean - 1000.0) < 100.0)

    # The same as if the caller had marked those samples.
    marked = [frame.copy() for frame in frames]
    marked[0][LARGE] = marked[0][NEGATIVE] = np.nan
    again = stack(marked, options=options, maps="all", rows_per_chunk=rows_per_chunk, workers=1)
    assert again.frames[0].scale == (scale,)
    assert_same_bits(result, again)


def test_on_every_backend(other_backend):
    frames = make_frames()
    options = StackOptions(normalization="multiplicative", reference=1)
    given = [other_backend.make(frame) for frame in frames]
    result = stack(given, options=options, maps="all", backend=other_backend.backend, workers=1)
    assert_same_bits(result, stack(frames, options=options, maps="all", workers=1))


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint16, np.float32])
def test_a_scale_can_be_what_is_large(dtype):
    """Small values times a large scale: counts brought to a reference in units of their own."""
    generator = np.random.default_rng(6)
    counts = generator.integers(90, 110, (6, 8)).astype(dtype)
    counts[LARGE] = np.array(np.iinfo(dtype).max if np.dtype(dtype).kind in "iu" else 1e30).astype(dtype)
    reference = (1e38 * generator.normal(2.0, 0.01, (6, 8))).astype(np.float32)
    frames = [counts, reference, reference]
    options = StackOptions(rejection="none", normalization="multiplicative", reference=1)
    result = stack(frames, options=options, maps="all", workers=1)
    scale = np.float32(result.frames[0].scale[0])
    with np.errstate(over="ignore"):
        beyond = ~np.isfinite(counts.astype(np.float32) * scale)
    assert beyond[LARGE]
    assert result.frames[0].missing == (np.count_nonzero(beyond),)
    assert_conserves(result, beyond.astype(np.int64), len(frames))
