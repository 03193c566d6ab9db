"""Sorted samples of chosen pixels, as rules of rejection need them: order statistics, searches, sums of intervals.

`Columns` holds the pixels side by side in one flat array, so that each pixel can look at a rank of its own with one
`take`. Ranks without a sample stand at both ends, as many below as above (within one), so that the middle rank always
lies among a pixel's samples: sums can then be taken from the middle outwards, and a wild sample at an end, once
outside the interval, leaves no rounding behind.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from zemosaic_stack_core.kernel.typing import Array, Namespace

#: Largest float32: stands where a sample is missing. It sorts last, its square is finite in float64, and a sample
#: that really has this value is told from a missing one by the counts.
LARGEST = 3.4028234663852886e38

#: At least so many samples may be rejected at either end of windows. At 3 sigma a pixel of 400 clean frames loses about
#: one sample.
DEPTH = 8

#: So many ranks, or so few values in all, are counted faster than searched.
FEW_RANKS, FEW_VALUES = 40, 1 << 16


class Windows(NamedTuple):
    """Which ranks are gathered where there are many: the `size` lowest and highest, and those of medians.

    A pixel may lose less than `depth` samples at an end, or it must be looked at again in a full table.
    """

    size: int
    depth: int


class Columns(NamedTuple):
    """Sorted samples of some pixels.

    `values` is flat, float32, `pixels` values a row. The present samples of pixel ``k`` have the ranks
    ``start[k] <= r < stop[k]`` (int64). `lane` numbers the pixels; `is_complete` says that no sample is missing.

    A full table has a row for every rank, in order: below a pixel's present samples stands `-LARGEST`, above them
    `LARGEST`. With many frames hardly a pixel loses more than a few samples, and a table is then made of `windows`: the
    lowest ranks, the middle ones that a median can come to, and the highest; the row of rank ``r`` is ``r``,
    ``r - middle`` or ``r - upper``.
    """

    values: Array
    frames: int
    pixels: int
    start: Array
    stop: Array
    lane: Array
    is_complete: bool
    windows: Windows | None = None
    middle: int = 0
    upper: int = 0

    def of(self, xp: Namespace, vector: Array, lane: Array) -> Array:
        """Give the entries of the pixels `lane` of a vector that has one for each."""
        return vector if lane is self.lane else xp.take(vector, lane, axis=0)

    def are_deep(self, start: Array, stop: Array) -> Array | None:
        """Tell the intervals that windows are too small for; None where the table is full."""
        if self.windows is None:
            return None
        deep: Array = (start >= self.windows.depth) | (stop <= self.frames - self.windows.depth)
        return deep


class IntervalSums(NamedTuple):
    """Sums over intervals of ranks, ready to be looked up.

    Each flat float64 array holds, at ``r * pixels + k``, the sum from the middle rank up to ``r`` (negative below the
    middle); the sum over ``[i, j)`` is the difference of two entries. `first` sums ``d = value - pivot``, `second`
    ``d * d`` (None where nobody needs it). Where the columns are windows there are entries for the lowest and highest
    ranks only, the latter at ``r - upper``.
    """

    pivot: Array
    first: Array
    second: Array | None
    pixels: int
    upper: int = 0

    def over(self, xp: Namespace, start: Array, stop: Array, lane: Array) -> tuple[Array, Array]:
        """Give the sums of ``d`` and ``d * d`` over ``[start, stop)`` of the pixels `lane`.

        The second is the first again where squares were not summed.
        """
        low, high = start * self.pixels + lane, (stop - self.upper) * self.pixels + lane
        first = xp.take(self.first, high, axis=0) - xp.take(self.first, low, axis=0)
        if self.second is None:
            return first, first
        second = xp.take(self.second, high, axis=0) - xp.take(self.second, low, axis=0)
        return first, second


class CoreSums(NamedTuple):
    """Sums of ``d`` and ``d * d`` from the middle rank out to the windows, float64; those below are negative."""

    first_below: Array
    second_below: Array
    first_above: Array
    second_above: Array


def windows_of(frames: int, tail: float | None) -> Windows | None:
    """Give the windows for a number of frames; None where a full table is not much larger.

    `tail`: the fraction of samples at either end that a rule looks at, even where it rejects few; None where it looks
    at all samples.
    """
    if tail is None or frames < 8 * DEPTH:
        return None
    depth = max(DEPTH, frames // 64)
    return Windows(max(depth, int(tail * frames)), depth)


def gather_windows(xp: Namespace, ranks: Sequence[Array], windows: Windows, chosen: Array) -> Array:
    """Gather the windows of the chosen pixels out of sorted rows: shape (row, pixel), float32."""
    frames = len(ranks)
    medians = ranks[_lowest_median(frames, windows) : (frames + windows.depth) // 2 + 1]
    rows = [*ranks[: windows.size], *medians, *ranks[-windows.size :]]
    table: Array = xp.stack([xp.take(row, chosen, axis=0) for row in rows])
    return table


def window_columns(xp: Namespace, table: Array, frames: int, windows: Windows) -> Columns:
    """Make columns of gathered windows; no sample is missing."""
    pixels = table.shape[1]
    lane = xp.arange(pixels, dtype=xp.int64, device=table.device)
    start = xp.zeros_like(lane)
    return Columns(
        xp.reshape(table, (-1,)),
        frames,
        pixels,
        start,
        start + frames,
        lane,
        is_complete=True,
        windows=windows,
        middle=_lowest_median(frames, windows) - windows.size,
        upper=frames - table.shape[0],
    )


def _lowest_median(frames: int, windows: Windows) -> int:
    """Give the lowest rank that a median comes to after as many samples are rejected above as windows allow."""
    return (frames - windows.depth - 1) // 2


def columns_of(xp: Namespace, table: Array, count: Array | None) -> Columns:
    """Make columns of a full table.

    Parameters
    ----------
    table : array of shape (rank, pixel), float32
        Sorted samples. Of ``m`` missing ones ``frames // 2 - (frames - m) // 2`` stand first (`-LARGEST`), the others
        last (`LARGEST`).
    count : array of shape (pixel,), int64, or None
        Present samples of each pixel; None where none is missing.
    """
    frames, pixels = table.shape
    lane = xp.arange(pixels, dtype=xp.int64, device=table.device)
    values = xp.reshape(table, (-1,))
    if count is None:
        start = xp.zeros_like(lane)
        return Columns(values, frames, pixels, start, start + frames, lane, is_complete=True)
    # The middle rank is each pixel's sample n // 2, as it is without the missing ones: sums keep their order.
    start = frames // 2 - count // 2
    return Columns(values, frames, pixels, start, start + count, lane, is_complete=False)


def chosen_columns(xp: Namespace, columns: Columns, lane: Array) -> Columns:
    """Keep the pixels `lane` of columns."""
    pixels = lane.shape[0]
    if pixels == columns.pixels:
        return columns
    table = xp.take(xp.reshape(columns.values, (-1, columns.pixels)), lane, axis=1)
    return columns._replace(
        values=xp.reshape(table, (-1,)),
        pixels=pixels,
        start=xp.take(columns.start, lane, axis=0),
        stop=xp.take(columns.stop, lane, axis=0),
        lane=xp.arange(pixels, dtype=xp.int64, device=lane.device),
    )


def between(xp: Namespace, ranks: Array, lowest: int, highest: int) -> Array:
    """Give the ranks, those out of a range moved to its ends.

    `clip` does the same, but array-api-compat's assigns to boolean masks, and for those a device must be waited for.
    """
    raised = xp.maximum(ranks, xp.full_like(ranks, lowest))
    moved: Array = xp.minimum(raised, xp.full_like(ranks, highest))
    return moved


def value_at(xp: Namespace, columns: Columns, row: Array, lane: Array) -> Array:
    """Give the sample of each pixel of `lane` in its own row of the table, float64."""
    return xp.astype(xp.take(columns.values, row * columns.pixels + lane, axis=0), xp.float64)


def median_of(xp: Namespace, columns: Columns, start: Array, stop: Array, lane: Array) -> Array:
    """Give the median over the ranks ``[start, stop)``, float64; the midpoint of two where they are even in number."""
    lower = value_at(xp, columns, (start + stop - 1) // 2 - columns.middle, lane)
    upper = value_at(xp, columns, (start + stop) // 2 - columns.middle, lane)
    return (lower + upper) * 0.5


def ranks_within(xp: Namespace, columns: Columns, low: Array, high: Array, lane: Array) -> tuple[Array, Array]:
    """Give the interval of ranks whose values lie between two bounds (float64), the bounds included.

    Of windows only the two ends are searched: an interval that begins behind the lowest window, or ends before the
    highest, may reach further. However it is done, nothing waits for a device.
    """
    size = columns.frames if columns.windows is None else columns.windows.size
    is_whole = lane is columns.lane
    if size * lane.shape[0] > FEW_VALUES and not (is_whole and size <= FEW_RANKS):
        return _search(xp, columns, low, high, lane, size)
    table = xp.reshape(columns.values, (-1, columns.pixels))
    lowest, highest = table[:size, ...], table[-size:, ...]
    if not is_whole:
        lowest, highest = xp.take(lowest, lane, axis=1), xp.take(highest, lane, axis=1)
    return _number_of(xp, lowest < low), columns.frames - _number_of(xp, highest > high)


def _number_of(xp: Namespace, mask: Array) -> Array:
    """Count the ranks where a mask is true: a small exact sum."""
    small = xp.uint8 if mask.shape[0] < 256 else xp.int64
    number: Array = xp.astype(xp.sum(xp.astype(mask, small), axis=0, dtype=small), xp.int64)
    return number


def _search(xp: Namespace, columns: Columns, low: Array, high: Array, lane: Array, size: int) -> tuple[Array, Array]:
    """Find both ends of `ranks_within` in one vector, each among `size` ranks.

    A uniform binary search (Knuth, The Art of Computer Programming 3, 6.2.1, exercise 12: Shar's): the number of steps
    depends on the number of ranks alone.
    """
    upper = columns.frames - size - columns.upper
    position = xp.concat([lane, lane + upper * columns.pixels])
    # The values up to `high` are those below the next number.
    bound = xp.concat([low, xp.nextafter(high, xp.full_like(high, float("inf")))])
    step = 1 << (size.bit_length() - 1)
    jump = size + 1 - step
    while step:
        is_below = xp.take(columns.values, position + (step - 1) * columns.pixels, axis=0) < bound
        advance = xp.astype(is_below, xp.int64)
        advance *= jump * columns.pixels
        position += advance
        step //= 2
        jump = step
    rank = position // columns.pixels
    number = lane.shape[0]
    return rank[:number], rank[number:] + columns.upper


def interval_sums(
    xp: Namespace, columns: Columns, pivot: Array, core: CoreSums | None = None, *, squares: bool = True
) -> IntervalSums:
    """Accumulate ``value - pivot`` and its square from the middle rank outwards, float64.

    Ranks without a sample add exactly zero. Columns made of windows go on from the sums over their `core`: the order
    of the additions, and so every bit, is that of a full table.
    """
    table = xp.reshape(columns.values, (-1, columns.pixels))
    frames, pixels = columns.frames, columns.pixels
    below = above = frames // 2
    upper = 0
    if columns.windows is not None and core is not None:
        below = columns.windows.size
        above = frames - below
        upper = above - below - 1
    first = xp.empty((frames + 1 - upper, pixels), dtype=xp.float64, device=pivot.device)
    second = xp.empty_like(first) if squares else None
    for ranks, is_lower in ((range(below - 1, -1, -1), True), (range(above, frames), False)):
        if core is None:
            total, total_squares = xp.zeros_like(pivot), xp.zeros_like(pivot)
        elif is_lower:
            total, total_squares = core.first_below + 0.0, core.second_below + 0.0
        else:
            total, total_squares = core.first_above + 0.0, core.second_above + 0.0
        entry = below if is_lower else above - upper
        first[entry, ...] = total
        if second is not None:
            second[entry, ...] = total_squares
        for rank in ranks:
            d = table[rank if is_lower else rank - columns.upper, ...] - pivot
            if not columns.is_complete:
                d *= xp.astype((columns.start <= rank) & (columns.stop > rank), xp.float64)
            entry += -1 if is_lower else 1
            if is_lower:
                total -= d
            else:
                total += d
            first[entry, ...] = total
            if second is not None:
                d *= d
                if is_lower:
                    total_squares -= d
                else:
                    total_squares += d
                second[entry, ...] = total_squares
    flat = None if second is None else xp.reshape(second, (-1,))
    return IntervalSums(pivot, xp.reshape(first, (-1,)), flat, pixels, upper=upper)
