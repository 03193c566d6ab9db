"""Chunks of a device: within the budget, large enough for it, small enough to overlap with uploads."""

from __future__ import annotations

from dataclasses import replace

import pytest

from zemosaic_stack_core.errors import OutOfMemoryError
from zemosaic_stack_core.stacking.chunk_plan import (
    DEVICE_CHUNK_PIXELS,
    DEVICE_CHUNKS,
    PINNED_BYTES,
    PIXEL_BYTES,
    Footprint,
    plan_chunks,
)

WORK = Footprint(frames=40, rows=3000, columns=4000, channels=3, sample_bytes=160, buffers=2, working_bytes=1680)


def plan(work=WORK, budget=None, rows=None):
    """Plan for a device."""
    return plan_chunks(work, budget=budget, rows_cap=rows, is_host=False)


def pixels(made):
    """Count the pixels of a plan's chunk."""
    return made.rows_per_chunk * made.columns_per_chunk


def test_with_all_the_memory_in_the_world_uploads_still_overlap():
    made = plan(budget=1 << 40)
    assert len(made) >= DEVICE_CHUNKS
    assert pixels(made) <= DEVICE_CHUNK_PIXELS[1]
    assert pixels(made) * WORK.sample_bytes * WORK.channels <= PINNED_BYTES


@pytest.mark.parametrize(
    ("frames", "rows", "columns", "sample_bytes", "rows_per_chunk"),
    [
        (32, 2048, 2048, 128, 256),  # an eighth
        (8, 2048, 2048, 16, 1024),  # 32 MiB, of the uint16 of few frames
        (400, 1024, 1024, 1600, 256),  # a quarter million pixels, of many frames
        (400, 6000, 4000, 1600, 83),  # pinned memory
        (8, 6000, 4000, 32, 524),  # no more pixels than gain anything
    ],
)
def test_chunks_where_memory_is_no_matter(frames, rows, columns, sample_bytes, rows_per_chunk):
    work = Footprint(frames=frames, rows=rows, columns=columns, channels=1, sample_bytes=sample_bytes)
    assert plan(work, budget=1 << 40).rows_per_chunk == rows_per_chunk


def test_on_a_small_machine_less_memory_is_pinned():
    assert pixels(plan(replace(WORK, pinned_bytes=1 << 22))) * WORK.sample_bytes * WORK.channels <= 1 << 22


def test_a_small_image_is_one_chunk():
    made = plan(replace(WORK, rows=300, columns=400))
    assert (len(made), made.rows_per_chunk) == (1, 300)


@pytest.mark.parametrize("budget", [1 << 15, 1 << 17, 1 << 20, 1 << 24, 1 << 28, 1 << 31])
def test_the_budget_is_kept_and_half_of_it_is_half_the_chunk(budget):
    whole = plan(budget=budget)
    assert whole.chunk_bytes <= budget
    half = plan(budget=whole.chunk_bytes // 2)
    assert 1 <= pixels(half) <= pixels(whole) / 2


def test_the_chunks_cover_the_image_once():
    work = replace(WORK, rows=7, columns=50)
    for budget in (1 << 14, 1 << 16, 1 << 18, 1 << 21):
        seen = [
            (chunk.start, row, column)
            for chunk in plan(work, budget)
            for row in range(chunk.start, chunk.stop)
            for column in range(chunk.first, chunk.last)
        ]
        assert len(seen) == 7 * 50
        assert len({(row, column) for _, row, column in seen}) == 7 * 50


def test_each_buffer_counts():
    one, two = (plan(replace(WORK, rows=1, columns=100, buffers=buffers)).chunk_bytes for buffers in (1, 2))
    assert two - one == 100 * (WORK.sample_bytes + PIXEL_BYTES) * WORK.channels


def test_one_pixel_that_does_not_fit_is_an_error():
    with pytest.raises(OutOfMemoryError, match="one pixel of 40 frames takes"):
        plan(budget=2000)
