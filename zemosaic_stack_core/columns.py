"""Sorted samples of chosen pixels, as rules of rejection need them: order statistics, searches, sums of intervals.

`Columns` holds the pixels side by side in one flat array, so that each pixel can look at a rank of its own with one
`take`. Ranks without a sample stand at both ends, as many below as above (within one), so that the middle rank always
lies among a pixel's samples: sums can then be taken from the middle outwards, and a wild sample at an end, once
outside the interval, leaves no rounding behind.
"""

from __future__ import annotations

from typing import NamedTuple

from ._typing import Array, Namespace

__all__ = ["LARGEST", "Columns", "IntervalSums", "columns_of", "count_below", "interval_sums", "median_of", "value_at"]

#: Largest float32: stands where a sample is missing. It sorts last, its square is finite in float64, and a sample
#: that really has this value is told from a missing one by the counts.
LARGEST = 3.4028234663852886e38


class Columns(NamedTuple):
    """Sorted samples of some pixels.

    `values` is flat, float32: rank ``r`` of pixel ``k`` stands at ``r * pixels + k``. The present samples of pixel
    ``k`` have the ranks ``start[k] <= r < stop[k]`` (int64); below them stands `-LARGEST`, above `LARGEST`.
    `lane` numbers the pixels; `is_complete` says that no sample is missing.
    """

    values: Array
    frames: int
    pixels: int
    start: Array
    stop: Array
    lane: Array
    is_complete: bool


class IntervalSums(NamedTuple):
    """Sums over intervals of ranks, ready to be looked up.

    Each flat float64 array has ``frames + 1`` ranks and holds, at ``r * pixels + k``, the sum from the middle rank
    up to ``r`` (negative below the middle); the sum over ``[i, j)`` is the difference of two entries. `first` sums
    ``d = value - pivot``, `second` ``d * d``.
    """

    pivot: Array
    first: Array
    second: Array
    pixels: int

    def over(self, xp: Namespace, start: Array, stop: Array, lane: Array) -> tuple[Array, Array]:
        """Give the sums of ``d`` and ``d * d`` over ``[start, stop)`` of the pixels `lane`."""
        low, high = start * self.pixels + lane, stop * self.pixels + lane
        first = xp.take(self.first, high, axis=0) - xp.take(self.first, low, axis=0)
        second = xp.take(self.second, high, axis=0) - xp.take(self.second, low, axis=0)
        return first, second


def columns_of(xp: Namespace, table: Array, count: Array | None) -> Columns:
    """Make columns of sorted samples.

    Parameters
    ----------
    table : array of shape (rank, pixel), float32
        Sorted samples, missing ones (`LARGEST`) last.
    count : array of shape (pixel,), int64, or None
        Present samples of each pixel; None where none is missing.
    """
    frames, pixels = table.shape
    device = table.device
    lane = xp.arange(pixels, dtype=xp.int64, device=device)
    values = xp.reshape(table, (-1,))
    if count is None:
        start = xp.zeros_like(lane)
        return Columns(values, frames, pixels, start, start + frames, lane, is_complete=True)
    start = (frames - count) // 2
    below = xp.full(pixels, -LARGEST, dtype=xp.float32, device=device)
    rows = []
    for rank in range(frames):
        source = xp.maximum(rank - start, xp.zeros_like(start))
        row = xp.take(values, source * pixels + lane, axis=0)
        rows.append(row if 2 * rank > frames else xp.where(start > rank, below, row))
    return Columns(xp.reshape(xp.stack(rows), (-1,)), frames, pixels, start, start + count, lane, is_complete=False)


def value_at(xp: Namespace, columns: Columns, rank: Array, lane: Array) -> Array:
    """Give the sample of each pixel of `lane` at its own rank, float64."""
    return xp.astype(xp.take(columns.values, rank * columns.pixels + lane, axis=0), xp.float64)


def median_of(xp: Namespace, columns: Columns, start: Array, stop: Array, lane: Array) -> Array:
    """Give the median over the ranks ``[start, stop)``, float64; the midpoint of two where they are even in number."""
    lower = value_at(xp, columns, (start + stop - 1) // 2, lane)
    upper = value_at(xp, columns, (start + stop) // 2, lane)
    return (lower + upper) * 0.5


def count_below(xp: Namespace, columns: Columns, bound: Array, lane: Array, *, inclusive: bool) -> Array:
    """Give the number of ranks whose value is below `bound` (float64), or at most `bound` where `inclusive`.

    A uniform binary search (Knuth, The Art of Computer Programming 3, 6.2.1, exercise 12: Shar's): the number of
    steps depends on the number of frames alone, so nothing waits for a device.
    """
    step = 1 << (columns.frames.bit_length() - 1)
    jump = columns.frames + 1 - step
    position = lane
    while step:
        probe = xp.take(columns.values, position + (step - 1) * columns.pixels, axis=0)
        value = xp.astype(probe, xp.float64)
        inside = (value <= bound) if inclusive else (value < bound)
        position = position + xp.astype(inside, xp.int64) * (jump * columns.pixels)
        step //= 2
        jump = step
    return position // columns.pixels


def interval_sums(xp: Namespace, columns: Columns, pivot: Array) -> IntervalSums:
    """Accumulate ``value - pivot`` and its square from the middle rank outwards, float64.

    Ranks without a sample add exactly zero.
    """
    pixels, frames = columns.pixels, columns.frames
    table = xp.reshape(columns.values, (frames, pixels))
    d = xp.astype(table, xp.float64)
    d -= pivot
    if not columns.is_complete:
        rank = xp.reshape(xp.arange(frames, dtype=xp.int64, device=pivot.device), (frames, 1))
        d *= xp.astype((columns.start <= rank) & (columns.stop > rank), xp.float64)
    first = _running_sum(xp, d)
    d *= d
    return IntervalSums(pivot, first, _running_sum(xp, d), pixels)


def _running_sum(xp: Namespace, table: Array) -> Array:
    """Sum rows of (rank, pixel) from the middle outwards: ``rank + 1`` rows, flat, negative below the middle."""
    frames = table.shape[0]
    middle = frames // 2
    rows: list[Array] = [xp.zeros_like(table[0, ...])] * (frames + 1)
    for rank in range(middle, frames):
        rows[rank + 1] = rows[rank] + table[rank, ...]
    for rank in range(middle - 1, -1, -1):
        rows[rank] = rows[rank + 1] - table[rank, ...]
    return xp.reshape(xp.stack(rows), (-1,))
