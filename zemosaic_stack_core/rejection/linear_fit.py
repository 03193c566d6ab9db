"""The rule that fits a line to the sorted samples: for groups whose level drifts."""

from __future__ import annotations

from typing import NamedTuple

from zemosaic_stack_core._typing import Array, Namespace
from zemosaic_stack_core.options import StackOptions
from zemosaic_stack_core.pixels.columns import Columns, IntervalSums

from .intervals import Interval, RuleInput, Step, repeat, with_ties

__all__ = ["linear_fit_clip"]


def linear_fit_clip(xp: Namespace, given: RuleInput) -> Interval:
    """Reject, from either end, the run of samples too far from the least-squares line of the sorted samples."""
    columns, options, sums = given.columns, given.options, given.sums
    assert sums is not None  # noqa: S101 - the catalogue says that this rule uses sums
    sums_of_sums = _sums_of_sums(xp, columns, sums)

    def shrink(kept: Interval, lane: Array) -> Step:
        line = _fit_line(xp, columns, sums, sums_of_sums, kept, lane)
        return Step(_take_off_runs(xp, columns, kept, lane, line, options))

    kept = repeat(xp, columns, shrink, iterations=options.max_iterations, needed=5).kept
    return with_ties(xp, columns, kept)


class _Line(NamedTuple):
    """Line through sorted samples and their mean absolute distance from it, float64; `level` is that at the middle."""

    level: Array
    slope: Array
    distance: Array


def _sums_of_sums(xp: Namespace, columns: Columns, sums: IntervalSums) -> Array:
    """Add the entries of `sums.first` up, from the middle rank outwards.

    The entry of rank ``r`` is the sum of those from the middle rank up to, not including, its own; below the middle it
    is minus the sum of those from its own up to the middle.
    """
    first = xp.reshape(sums.first, (-1, columns.pixels))
    middle = columns.frames // 2
    sums_of_sums = xp.empty_like(first)
    total = xp.zeros_like(sums.pivot)
    for rank in range(middle, columns.frames + 1):
        sums_of_sums[rank, ...] = total
        total += first[rank, ...]
    total = xp.zeros_like(sums.pivot)
    for rank in range(middle - 1, -1, -1):
        total -= first[rank, ...]
        sums_of_sums[rank, ...] = total
    flat: Array = xp.reshape(sums_of_sums, (-1,))
    return flat


def _fit_line(
    xp: Namespace, columns: Columns, sums: IntervalSums, sums_of_sums: Array, kept: Interval, lane: Array
) -> _Line:
    """Fit each pixel's kept samples on their ranks.

    Let ``t`` be the rank from the middle of the table and ``d = value - pivot``. Up to a rank, ``sum(t*d)`` is its
    ``(t - 1)*sum(d)`` less the sum of ``sum(d)`` up to each rank before (Abel). The slope is ``sum((t - mean t)*d)``
    over ``sum((t - mean t)^2)``, which is ``n*(n*n - 1)/12``.
    """
    pixels = columns.pixels
    center = columns.frames // 2
    low, high = kept.start * pixels + lane, kept.stop * pixels + lane
    below, above = xp.take(sums.first, low, axis=0), xp.take(sums.first, high, axis=0)
    first, end = xp.astype(kept.start - center, xp.float64), xp.astype(kept.stop - center, xp.float64)
    moment = above * (end - 1.0) - xp.take(sums_of_sums, high, axis=0)
    moment -= below * (first - 1.0) - xp.take(sums_of_sums, low, axis=0)
    total = above - below
    count = end - first
    mean_rank = (first + end - 1.0) * 0.5
    # Fewer than two samples have no slope, and are left alone.
    divisor = xp.maximum(count * (count * count - 1.0) / 12.0, xp.full_like(count, 0.5))
    slope = (moment - total * mean_rank) / divisor
    level = total / count - slope * mean_rank + columns.of(xp, sums.pivot, lane)
    return _Line(level, slope, _sum_of_distances(xp, columns, kept, lane, level, slope) / count)


def _sum_of_distances(
    xp: Namespace, columns: Columns, kept: Interval, lane: Array, level: Array, slope: Array
) -> Array:
    """Sum the absolute distances of the kept samples from a line, from the middle rank outwards."""
    pixels = columns.pixels
    center = columns.frames // 2
    some = lane is not columns.lane
    first, last_first = _range_of(xp, kept.start, columns.frames)
    first_stop, stop = _range_of(xp, kept.stop, columns.frames)
    distance = xp.zeros_like(slope)
    for ranks, step in ((range(center, stop), slope), (range(center - 1, first - 1, -1), -slope)):
        line = level + 0.0 if step is slope else level - slope
        for rank in ranks:
            row = columns.values[rank * pixels : (rank + 1) * pixels]
            d = xp.abs((xp.take(row, lane, axis=0) if some else row) - line)
            if rank < last_first:
                d *= xp.astype(kept.start <= rank, xp.float64)
            if rank >= first_stop:
                d *= xp.astype(kept.stop > rank, xp.float64)
            distance += d
            line += step
    return distance


def _range_of(xp: Namespace, ranks: Array, frames: int) -> tuple[int, int]:
    """Give the smallest and the largest of some ranks, in one answer of a device."""
    smallest, largest = divmod(int(xp.min(ranks) * (frames + 1) + xp.max(ranks)), frames + 1)
    return smallest, largest


def _take_off_runs(
    xp: Namespace, columns: Columns, kept: Interval, lane: Array, line: _Line, options: StackOptions
) -> Interval:
    """Take the runs of samples too far from the line off both ends.

    Both ends are walked in one vector, the upper one with all signs turned. Whether all have come to their ends is
    asked after 1, 2, 4, 8, ... steps: a step too many changes nothing, and an answer takes a device long.
    """
    center = columns.frames // 2
    both = xp.concat([lane, lane])
    ones = xp.ones_like(lane)
    stride = xp.concat([ones, -ones]) * columns.pixels
    sign = xp.astype(xp.sign(stride), xp.float32)
    at_start = xp.astype(kept.start - center, xp.float64) * line.slope + line.level
    at_end = xp.astype(kept.stop - 1 - center, xp.float64) * line.slope + line.level
    edge = xp.concat([at_start - line.distance * options.kappa_low, -at_end - line.distance * options.kappa_high])
    slope = xp.concat([line.slope, line.slope])
    position = xp.concat([kept.start, kept.stop - 1]) * columns.pixels + both
    number = kept.stop - kept.start
    number = xp.concat([number, number])
    taken = xp.zeros_like(both)
    last = columns.frames * columns.pixels - 1
    for step in range(1, columns.frames + 1):
        value = xp.take(columns.values, xp.clip(position, 0, last), axis=0) * sign
        is_outside = (value < edge) & (taken < number)
        if step & (step - 1) == 0 and not xp.any(is_outside):
            break
        advance = xp.astype(is_outside, xp.int64)
        taken += advance
        position += advance * stride
        edge += xp.astype(is_outside, xp.float64) * slope
    pixels = lane.shape[0]
    return Interval(kept.start + taken[:pixels], kept.stop - taken[pixels:])
