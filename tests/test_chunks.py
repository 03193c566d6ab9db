"""The plan of chunks on the host: every pixel once, within the budget, within the caps. Integers only."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zemosaic_stack_core.backends import numpy_backend
from zemosaic_stack_core.errors import OutOfMemoryError, ZemosaicError
from zemosaic_stack_core.stacking.chunk_plan import (
    CHUNK_PIXELS,
    WORKER_BYTES,
    Footprint,
    chunk_budget,
    plan_chunks,
)
from zemosaic_stack_core.stacking.limits import Limits


def footprint(frames=30, rows=700, columns=900, channels=1, sample_bytes=None, **more):
    return Footprint(
        frames=frames,
        rows=rows,
        columns=columns,
        channels=channels,
        sample_bytes=4 * frames if sample_bytes is None else sample_bytes,
        **more,
    )


@given(
    frames=st.integers(1, 500),
    rows=st.integers(1, 60),
    columns=st.integers(1, 70),
    cap=st.none() | st.integers(1, 80),
    shares=st.integers(1, 9),
    budget=st.none() | st.integers(40_000, 4_000_000),
)
def test_every_pixel_is_in_one_chunk(frames, rows, columns, cap, shares, budget):
    plan = plan_chunks(footprint(frames, rows, columns), budget=budget, rows_cap=cap, shares=shares)
    chunks = list(plan)
    assert len(plan) == len(chunks)
    assert sum(chunk.pixels for chunk in chunks) == rows * columns
    seen = [
        (row, column)
        for chunk in chunks
        for row, column in itertools.product(range(chunk.start, chunk.stop), range(chunk.first, chunk.last))
    ]
    assert seen == list(itertools.product(range(rows), range(columns)))
    assert cap is None or all(chunk.stop - chunk.start <= cap for chunk in chunks)
    assert budget is None or plan.chunk_bytes <= budget
    assert all(chunk.stop - chunk.start == 1 for chunk in chunks if chunk.last - chunk.first < columns)


def test_a_smaller_budget_gives_smaller_chunks():
    plans = [plan_chunks(footprint(), budget=budget) for budget in (None, 10_000_000, 3_000_000, 300_000, 20_000)]
    sizes = [plan.rows_per_chunk * plan.columns_per_chunk for plan in plans]
    assert sizes == sorted(sizes, reverse=True)
    assert len(set(sizes)) == len(sizes)
    assert plans[-1].rows_per_chunk == 1
    assert plans[-1].columns_per_chunk < 900


def test_the_cap_is_no_floor():
    plan = plan_chunks(footprint(), budget=300_000, rows_cap=500)
    assert plan.rows_per_chunk < 500
    assert plan_chunks(footprint(), budget=None, rows_cap=3).rows_per_chunk == 3


def test_what_does_not_fit_says_what_would():
    need = plan_chunks(footprint(10_000, 1, 1), budget=None).chunk_bytes
    with pytest.raises(
        OutOfMemoryError, match=f"one pixel of 10000 frames takes {need:,} bytes; the memory budget is "
    ):
        plan_chunks(footprint(10_000), budget=need - 1)
    assert len(plan_chunks(footprint(10_000, 2, 3), budget=need)) == 6


def test_each_worker_gets_some_chunks():
    assert len(plan_chunks(footprint(rows=4000), budget=None, shares=16)) >= 64


@pytest.mark.parametrize("frames", [1, 8, 60, 400, 10_000])
def test_chunks_stay_moderate(frames):
    plan = plan_chunks(footprint(frames, 5000, 5000), budget=None)
    assert CHUNK_PIXELS[0] - 5000 <= plan.rows_per_chunk * plan.columns_per_chunk <= CHUNK_PIXELS[1]


@pytest.mark.parametrize(
    "more",
    [
        {"channels": 3},
        {"sample_bytes": 240},
        {"buffers": 2},
        {"working_bytes": 90},
        {"working_bytes": 1, "most_working_bytes": 500},
        {"maps": 1},
        {"reach": 40},
    ],
)
def test_what_takes_more_memory_is_predicted_to(more):
    def predicted(**given):
        return plan_chunks(footprint(**given), budget=None, rows_cap=20).chunk_bytes

    assert predicted(**more) > predicted()


def test_ten_thousand_frames_in_little_memory():
    """What a program keeps of a few pixels counts once, and the rest is read several rows at a time."""
    working_bytes, most = numpy_backend().working_bytes(10_000, 2)
    work = footprint(10_000, 256, 256, sample_bytes=20_000, working_bytes=working_bytes, most_working_bytes=most)
    plan = plan_chunks(work, budget=150_000_000)
    assert plan.rows_per_chunk > 8
    assert plan.chunk_bytes <= 150_000_000


def test_the_budget():
    assert chunk_budget(Limits(memory_limit=1000, workers=4), None) == 250
    assert chunk_budget(Limits(memory_limit=1000, workers=1), 800) == 560  # a device keeps some of its memory
    assert chunk_budget(Limits(memory_limit=100, workers=1), 800) == 100
    assert 0 < chunk_budget(Limits(workers=1), None) <= WORKER_BYTES


def test_out_of_memory_is_one_of_ours():
    assert issubclass(OutOfMemoryError, ZemosaicError)
