"""A first look at all present samples of each pixel: order statistics and moments."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from zemosaic_stack_core.kernel.columns import CoreSums, between
from zemosaic_stack_core.kernel.combination import Chosen
from zemosaic_stack_core.kernel.samples import Present
from zemosaic_stack_core.kernel.typing import Array, Namespace


class Ranks(NamedTuple):
    """Sorted samples, one row of shape (pixel,) per rank.

    `filled` are the ranks that every pixel fills. The others hold a sample where ``start <= rank < stop`` (int64, per
    pixel; None where no sample is missing), and plus or minus the largest float32 elsewhere.
    """

    rows: list[Array]
    filled: range
    start: Array | None
    stop: Array | None

    def present_at(self, xp: Namespace, rank: int) -> Array | None:
        """Give 1 where a rank holds a sample and 0 elsewhere, float64; None where every pixel fills it."""
        if rank in self.filled or self.start is None or self.stop is None:
            return None
        present: Array = xp.astype((self.start <= rank) & (self.stop > rank), xp.float64)
        return present


class FirstLook(NamedTuple):
    """All present samples of each pixel: the sorted rows, how many they are (int32), and their statistics.

    `core` has the sums over all but the `size` lowest and highest ranks; None where these are no windows.
    """

    ranks: Ranks
    counts: Array
    chosen: Chosen
    core: CoreSums | None = None
    size: int = 0

    def number(self, xp: Namespace) -> Array:
        """Give the number of samples, float64, 1 where there is none."""
        number: Array = xp.astype(xp.maximum(self.counts, xp.ones_like(self.counts)), xp.float64)
        return number


def look_at(xp: Namespace, rows: Sequence[Array], present: Present, *, squares: bool, window: int | None) -> FirstLook:
    """Take order statistics and moments of all present samples; the pivot is the lower median.

    The moments are summed from the middle rank outwards, as `interval_sums` does; where windows are gathered, the
    sums out to them are given too.
    """
    ranks = _ranks_of(xp, rows, present)
    frames = len(rows)
    middle = frames // 2
    smallest, largest, lower, upper = rows[0], rows[-1], rows[(frames - 1) // 2], rows[middle]
    if ranks.start is not None and ranks.stop is not None:
        start, stop = ranks.start, ranks.stop
        pixels = smallest.shape[0]
        lane = xp.arange(pixels, dtype=xp.int64, device=smallest.device)
        flat = xp.reshape(xp.stack(list(rows)), (-1,))
        last = between(xp, stop - 1, 0, frames - 1)
        smallest = xp.take(flat, xp.minimum(start, last) * pixels + lane, axis=0)
        largest = xp.take(flat, last * pixels + lane, axis=0)
        lower = xp.take(flat, (start + last) // 2 * pixels + lane, axis=0)
        upper = xp.take(flat, between(xp, (start + stop) // 2, 0, frames - 1) * pixels + lane, axis=0)
    pivot = xp.astype(lower, xp.float64)
    median = (pivot + xp.astype(upper, xp.float64)) * 0.5
    below = _sum_outwards(xp, ranks, pivot, range(middle - 1, -1, -1), squares=squares, window=window)
    above = _sum_outwards(xp, ranks, pivot, range(middle, frames), squares=squares, window=window)
    second = None
    if above.second is not None and below.second is not None:
        second = above.second + below.second
    chosen = Chosen(median, smallest, largest, pivot, above.first + below.first, second)
    counts = xp.full_like(smallest, frames, dtype=xp.int32) if present.counts is None else present.counts
    core = None
    if window is not None:
        # Sums below the middle are negative in `IntervalSums`: turning a sign rounds nothing.
        core = CoreSums(-below.core_first, -below.core_second, above.core_first, above.core_second)
    return FirstLook(ranks, counts, chosen, core, window or 0)


class _Outwards(NamedTuple):
    """Sums over ranks one after the other, float64, and what they were at the window (`first` where there is none)."""

    first: Array
    second: Array | None
    core_first: Array
    core_second: Array


def _sum_outwards(
    xp: Namespace, ranks: Ranks, pivot: Array, order: range, *, squares: bool, window: int | None
) -> _Outwards:
    """Sum ``d = x - pivot`` and ``d*d`` over the ranks in that order."""
    first = xp.zeros_like(pivot)
    second = xp.zeros_like(pivot) if squares else None
    core_first = core_second = first
    edges = () if window is None else (window - 1, len(ranks.rows) - window)
    for rank in order:
        if rank in edges:
            core_first = first + 0.0
            core_second = core_first if second is None else second + 0.0
        d = deviation_of(xp, ranks, pivot, rank)
        first += d
        if second is not None:
            d *= d
            second += d
    return _Outwards(first, second, core_first, core_second)


def _ranks_of(xp: Namespace, rows: Sequence[Array], present: Present) -> Ranks:
    """Say which ranks hold samples."""
    frames = len(rows)
    if present.counts is None:
        return Ranks(list(rows), range(frames), None, None)
    complete = sum(mask is None for mask in present.masks)
    lowest = frames // 2 - complete // 2
    count = xp.astype(present.counts, xp.int64)
    start = frames // 2 - count // 2
    return Ranks(list(rows), range(lowest, lowest + complete), start, start + count)


def deviation_of(xp: Namespace, ranks: Ranks, pivot: Array, rank: int) -> Array:
    """Give ``x - pivot`` of one rank, float64 and new; zero where the rank holds no sample."""
    d = xp.astype(ranks.rows[rank], xp.float64)
    d -= pivot
    present = ranks.present_at(xp, rank)
    if present is not None:
        d *= present
    return d
