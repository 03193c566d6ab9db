"""Shrink each pixel's kept interval of ranks, until it stands."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from zemosaic_stack_core.kernel.columns import Columns, IntervalSums, between, ranks_within
from zemosaic_stack_core.kernel.places import Places, places_of
from zemosaic_stack_core.kernel.typing import Array, Namespace
from zemosaic_stack_core.options import StackOptions

#: Where at least so large a part of the pixels goes on, the others go along.
MOST = (3, 4)


class Interval(NamedTuple):
    """Kept ranks ``[start, stop)`` of each pixel, int64."""

    start: Array
    stop: Array


class Bounds(NamedTuple):
    """Values between which samples are kept, float64; a sample equal to one of them is kept."""

    low: Array
    high: Array


class Step(NamedTuple):
    """What one iteration, or all of them, kept.

    `within` are all present ranks within the bounds of the (last applied) iteration, those among them that an earlier
    one rejected included; None for a rule that has no bounds. `deep` tells the pixels that any iteration took further
    than windows reach (None where the columns are no windows): what is said of those is not true.
    """

    kept: Interval
    within: Interval | None = None
    deep: Array | None = None


class RuleInput(NamedTuple):
    """What a rule looks at: the sorted samples of the pixels, and what its row of the catalogue asks for beside them.

    `sums` is None unless the rule uses sums; `critical_values` unless it tests against them.
    """

    columns: Columns
    options: StackOptions
    sums: IntervalSums | None = None
    critical_values: Array | None = None


def updated(xp: Namespace, places: Places, some: Step, others: Step) -> Step:
    """Give a step with that of some of the pixels in their places."""
    return Step(
        _put(xp, places, some.kept, others.kept),
        None if some.within is None or others.within is None else _put(xp, places, some.within, others.within),
        None if some.deep is None or others.deep is None else places.put(xp, some.deep, others.deep),
    )


def _some(xp: Namespace, step: Step, chosen: Array) -> Step:
    """Give what some of the pixels kept."""
    return Step(
        _taken(xp, step.kept, chosen),
        None if step.within is None else _taken(xp, step.within, chosen),
        None if step.deep is None else xp.take(step.deep, chosen, axis=0),
    )


def _taken(xp: Namespace, interval: Interval, chosen: Array) -> Interval:
    """Give the intervals of some of the pixels."""
    return Interval(xp.take(interval.start, chosen, axis=0), xp.take(interval.stop, chosen, axis=0))


def _put(xp: Namespace, places: Places, some: Interval, others: Interval) -> Interval:
    """Put the intervals of some of the pixels in their places."""
    return Interval(places.put(xp, some.start, others.start), places.put(xp, some.stop, others.stop))


def _chosen(xp: Namespace, is_applied: Array, new: Interval, old: Interval) -> Interval:
    """Give the new intervals where an iteration is applied."""
    return Interval(xp.where(is_applied, new.start, old.start), xp.where(is_applied, new.stop, old.stop))


def are_few(chosen: Array, lane: Array) -> bool:
    """Tell whether going on with the chosen pixels alone is cheaper than with all."""
    return bool(chosen.shape[0] * MOST[1] < lane.shape[0] * MOST[0])


def repeat(
    xp: Namespace,
    columns: Columns,
    shrink: Callable[[Interval, Array], Step],
    *,
    iterations: int,
    needed: int = 1,
    left: int = 1,
) -> Step:
    """Replace each pixel's interval by that of ``shrink(kept, lane)`` until nothing more is rejected there.

    An iteration needs `needed` kept samples, and is not applied to a pixel where it would leave fewer than `left`. No
    pixel waits for another: one that stands is left out of the next iteration. Where few stand they go along, which is
    cheaper than taking out the others; an interval that stands is not changed by another iteration.
    """
    lane = columns.lane
    kept = Interval(columns.start, columns.stop)
    state = Step(kept, kept, columns.are_deep(*kept))
    if columns.is_complete and columns.frames < needed:
        return state
    outer: list[tuple[Array, Step]] = []
    if not columns.is_complete:
        goes_on = kept.stop - kept.start >= needed
        lane = xp.nonzero(goes_on)[0]
        outer.append((goes_on, state))
        state = _some(xp, state, lane)
    for iteration in range(iterations):
        if lane.shape[0] == 0:
            break
        kept, within, deep = state
        step = shrink(kept, lane)
        before, number = kept.stop - kept.start, step.kept.stop - step.kept.start
        is_applied = number >= left
        if needed > 1:
            is_applied = is_applied & (before >= needed)
        state = Step(
            _chosen(xp, is_applied, step.kept, kept),
            None if step.within is None or within is None else _chosen(xp, is_applied, step.within, within),
            None if step.deep is None or deep is None else deep | step.deep,
        )
        if iteration + 1 == iterations:
            break
        goes_on = is_applied & (number < before) & (number >= needed)
        chosen = xp.nonzero(goes_on)[0]
        if chosen.shape[0] == 0:
            break
        if are_few(chosen, lane):
            outer.append((goes_on, state))
            state, lane = _some(xp, state, chosen), xp.take(lane, chosen, axis=0)
    for goes_on, others in reversed(outer):
        state = updated(xp, places_of(xp, goes_on), state, others)
    return state


def clipped(xp: Namespace, columns: Columns, kept: Interval, lane: Array, bounds: Bounds) -> Step:
    """Take the samples outside the bounds off the kept intervals.

    The bounds must enclose the middle of the kept samples, as those about a median or a mean do.
    """
    within = Interval(*ranks_within(xp, columns, bounds.low, bounds.high, lane))
    if not columns.is_complete:
        first, last = columns.of(xp, columns.start, lane), columns.of(xp, columns.stop, lane)
        within = Interval(xp.maximum(within.start, first), xp.minimum(within.stop, last))
    kept = Interval(xp.maximum(within.start, kept.start), xp.minimum(within.stop, kept.stop))
    return Step(kept, within, columns.are_deep(*within))


def with_ties(xp: Namespace, columns: Columns, kept: Interval) -> Interval:
    """Take back the samples that equal the smallest or the largest kept one: equal samples share their fate."""
    top = columns.frames - 1
    low, high, below, above = (
        xp.take(columns.values, between(xp, rank, 0, top) * columns.pixels + columns.lane, axis=0)
        for rank in (kept.start, kept.stop - 1, kept.start - 1, kept.stop)
    )
    is_tied = ((below >= low) & (kept.start > columns.start)) | ((above <= high) & (kept.stop < columns.stop))
    if not xp.any(is_tied):
        return kept
    low, high = xp.astype(low, xp.float64), xp.astype(high, xp.float64)
    start, stop = ranks_within(xp, columns, low, high, columns.lane)
    return Interval(
        xp.where(is_tied, xp.maximum(start, columns.start), kept.start),
        xp.where(is_tied, xp.minimum(stop, columns.stop), kept.stop),
    )
