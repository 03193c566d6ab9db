"""Sorted samples of chosen pixels, as rules of rejection need them: order statistics, searches, sums of intervals.

`Columns` holds the pixels side by side in one flat array, so that each pixel can look at a rank of its own with one
`take`. Ranks without a sample stand at both ends, as many below as above (within one), so that the middle rank always
lies among a pixel's samples: sums can then be taken from the middle outwards, and a wild sample at an end, once
outside the interval, leaves no rounding behind.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from zemosaic_stack_core._typing import Array, Namespace

__all__ = [
    "LARGEST",
    "Columns",
    "CoreSums",
    "IntervalSums",
    "chosen_columns",
    "columns_of",
    "count_below",
    "gather_windows",
    "interval_sums",
    "median_of",
    "running_sums",
    "value_at",
    "window_columns",
    "windows_of",
]

#: Largest float32: stands where a sample is missing. It sorts last, its square is finite in float64, and a sample
#: that really has this value is told from a missing one by the counts.
LARGEST = 3.4028234663852886e38

#: Fewest ranks of a window. At 3 sigma a pixel of 400 clean frames loses about one sample.
WINDOW = 8


class Columns(NamedTuple):
    """Sorted samples of some pixels.

    `values` is flat, float32, `pixels` values a row. The present samples of pixel ``k`` have the ranks
    ``start[k] <= r < stop[k]`` (int64). `lane` numbers the pixels; `is_complete` says that no sample is missing.

    A full table has a row for every rank, in order: below a pixel's present samples stands `-LARGEST`, above them
    `LARGEST`. With many frames hardly a pixel loses more than a few samples, and a table is then made of windows: the
    `window` lowest ranks, the middle ones that a median can come to, and the `window` highest; the row of rank ``r``
    is ``r``, ``r - middle`` or ``r - upper``. Behind the lowest and before the highest stands a row that no bound
    rejects, so that a walk inwards ends there: a pixel that has come so far must be looked at again in a full table.
    """

    values: Array
    frames: int
    pixels: int
    start: Array
    stop: Array
    lane: Array
    is_complete: bool
    window: int | None = None
    middle: int = 0
    upper: int = 0


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


def windows_of(frames: int) -> int | None:
    """Give the size of the windows for a number of frames; None where a full table is not much larger."""
    return max(WINDOW, frames // 64) if frames >= 8 * WINDOW else None


def gather_windows(xp: Namespace, ranks: Sequence[Array], window: int, chosen: Array) -> Array:
    """Gather the windows of the chosen pixels out of sorted rows: shape (row, pixel), float32."""
    frames = len(ranks)
    medians = slice(_lowest_median(frames, window), (frames + window) // 2 + 1)
    low, middle, high = (
        [xp.take(row, chosen, axis=0) for row in rows] for rows in (ranks[:window], ranks[medians], ranks[-window:])
    )
    never_below = xp.full_like(low[0], LARGEST)
    table: Array = xp.stack([*low, never_below, *middle, -never_below, *high])
    return table


def window_columns(xp: Namespace, table: Array, frames: int) -> Columns:
    """Make columns of gathered windows; no sample is missing."""
    window = windows_of(frames) or 0
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
        window=window,
        middle=_lowest_median(frames, window) - window - 1,
        upper=frames - table.shape[0],
    )


def _lowest_median(frames: int, window: int) -> int:
    """Give the lowest rank that a median comes to after up to `window` samples are rejected above."""
    return (frames - window - 1) // 2


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


def value_at(xp: Namespace, columns: Columns, row: Array, lane: Array) -> Array:
    """Give the sample of each pixel of `lane` in its own row of the table, float64."""
    return xp.astype(xp.take(columns.values, row * columns.pixels + lane, axis=0), xp.float64)


def median_of(xp: Namespace, columns: Columns, start: Array, stop: Array, lane: Array) -> Array:
    """Give the median over the ranks ``[start, stop)``, float64; the midpoint of two where they are even in number."""
    lower = value_at(xp, columns, (start + stop - 1) // 2 - columns.middle, lane)
    upper = value_at(xp, columns, (start + stop) // 2 - columns.middle, lane)
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


def interval_sums(
    xp: Namespace, columns: Columns, pivot: Array, core: CoreSums | None = None, *, squares: bool = True
) -> IntervalSums:
    """Accumulate ``value - pivot`` and its square from the middle rank outwards, float64.

    Ranks without a sample add exactly zero. Columns made of windows go on from the sums over their `core`: the order
    of the additions, and so every bit, is that of a full table.
    """
    pixels = columns.pixels
    table = xp.reshape(columns.values, (-1, pixels))
    window = columns.window
    if window is None or core is None:
        d = xp.astype(table, xp.float64)
        d -= pivot
        if not columns.is_complete:
            rank = xp.reshape(xp.arange(columns.frames, dtype=xp.int64, device=pivot.device), (-1, 1))
            d *= xp.astype((columns.start <= rank) & (columns.stop > rank), xp.float64)
        middle = columns.frames // 2
        zero = xp.zeros_like(pivot)
        first = xp.concat(running_sums(d[:middle, ...], d[middle:, ...], zero, None))
        if not squares:
            return IntervalSums(pivot, first, None, pixels)
        d *= d
        second = xp.concat(running_sums(d[:middle, ...], d[middle:, ...], zero, None))
        return IntervalSums(pivot, first, second, pixels)
    below = xp.astype(table[:window, ...], xp.float64)
    above = xp.astype(table[-window:, ...], xp.float64)
    below -= pivot
    above -= pivot
    first = xp.concat(running_sums(below, above, core.first_below, core.first_above))
    upper = columns.frames - 2 * window - 1
    if not squares:
        return IntervalSums(pivot, first, None, pixels, upper=upper)
    below *= below
    above *= above
    second = xp.concat(running_sums(below, above, core.second_below, core.second_above))
    return IntervalSums(pivot, first, second, pixels, upper=upper)


def running_sums(below: Array, above: Array, start_below: Array, start_above: Array | None) -> list[Array]:
    """Go on with two sums outwards, down over `below` (subtracting) and up over `above`: rows, lowest rank first.

    Without a `start_above` the upper sum begins where the lower one does, and that entry stands once.
    """
    lower = [start_below]
    for rank in range(below.shape[0] - 1, -1, -1):
        lower.append(lower[-1] - below[rank, ...])
    upper = [start_below if start_above is None else start_above]
    for rank in range(above.shape[0]):
        upper.append(upper[-1] + above[rank, ...])
    return [*reversed(lower), *(upper[1:] if start_above is None else upper)]
