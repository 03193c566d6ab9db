"""The rule that fits a line to the sorted samples: for groups whose level drifts."""

from __future__ import annotations

from typing import NamedTuple

from zemosaic_stack_core.kernel.columns import Columns, IntervalSums, between
from zemosaic_stack_core.kernel.places import places_of
from zemosaic_stack_core.kernel.rules.intervals import Interval, RuleInput, Step, repeat, with_ties
from zemosaic_stack_core.kernel.typing import Array, Namespace
from zemosaic_stack_core.options import StackOptions

#: A walk looks at so many times more samples at once after each time that it has not come to its end.
GROWTH = 3


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
            d = xp.astype(xp.take(row, lane, axis=0) if some else row, xp.float64)
            d -= line
            d = xp.abs(d)
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

    Where the first sample of a run is one, more and more are looked at at once; those walks are in one vector, the
    upper ones with all signs turned.
    """
    pixels, center = lane.shape[0], columns.frames // 2
    position = xp.concat([kept.start * columns.pixels + lane, (kept.stop - 1) * columns.pixels + lane])
    at_start = xp.astype(kept.start - center, xp.float64) * line.slope + line.level
    at_end = xp.astype(kept.stop - 1 - center, xp.float64) * line.slope + line.level
    lowest, highest = at_start - line.distance * options.kappa_low, at_end + line.distance * options.kappa_high
    value = xp.take(columns.values, position, axis=0)
    goes_on = xp.concat([value[:pixels] < lowest, value[pixels:] > highest])
    chosen = xp.nonzero(goes_on)[0]
    if chosen.shape[0] == 0:
        return kept
    is_upper = xp.astype(chosen >= pixels, xp.int64)
    among = chosen - is_upper * pixels
    direction = 1 - 2 * is_upper
    number = kept.stop - kept.start
    walk = _Walk(
        position=xp.take(position, chosen, axis=0),
        direction=direction,
        edge=xp.take(xp.concat([lowest, -highest]), chosen, axis=0),
        slope=xp.take(line.slope, among, axis=0),
        left=xp.take(number, among, axis=0),
    )
    run = _run(xp, columns, walk)
    run = places_of(xp, goes_on).put(xp, run, xp.zeros_like(position))
    return Interval(kept.start + run[:pixels], kept.stop - run[pixels:])


class _Walk(NamedTuple):
    """Walks inwards from samples that are too far from the line.

    `position` is the sample's in the table, `direction` 1 upwards and -1 downwards; `edge` is the line there less, or
    with all signs turned plus, what a sample may be away from it, and `slope` how it rises; `left` samples are left.
    """

    position: Array
    direction: Array
    edge: Array
    slope: Array
    left: Array


def _run(xp: Namespace, columns: Columns, walk: _Walk) -> Array:
    """Give the number of samples, one after the other, that are too far from the line; the first is."""
    outer: list[tuple[Array, Array]] = []
    first, steps = 1, 2
    while True:
        run = _run_within(xp, columns, walk, first, steps)
        goes_on = run >= steps
        chosen = xp.nonzero(goes_on)[0]
        if chosen.shape[0] == 0 or first + steps >= columns.frames:
            break
        outer.append((goes_on, run))
        walk = _Walk(*(xp.take(vector, chosen, axis=0) for vector in walk))
        first, steps = first + steps, steps * GROWTH
    for mask, shorter in reversed(outer):
        run = shorter + places_of(xp, mask).put(xp, run, xp.zeros_like(shorter))
    return run + 1


def _run_within(xp: Namespace, columns: Columns, walk: _Walk, first: int, steps: int) -> Array:
    """Give the number of samples, of `steps` from the step `first` on, that come one after the other too far out."""
    step = xp.reshape(xp.arange(first, first + steps, dtype=xp.int64, device=walk.position.device), (-1, 1))
    position = walk.position + walk.direction * (step * columns.pixels)
    position = between(xp, position, 0, columns.values.shape[0] - 1)
    value = xp.reshape(xp.take(columns.values, xp.reshape(position, (-1,)), axis=0), (steps, -1))
    value = value * xp.astype(walk.direction, xp.float32)
    is_inside = value >= walk.edge + walk.slope * xp.astype(step, xp.float64)
    is_inside = is_inside | (step >= walk.left)
    run: Array = xp.min(xp.where(is_inside, step - first, xp.full_like(step, steps)), axis=0)
    return run
