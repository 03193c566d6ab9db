"""Shrink each pixel's kept interval of ranks, until it stands."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from zemosaic_stack_core._typing import Array, Namespace
from zemosaic_stack_core.options import StackOptions
from zemosaic_stack_core.pixels.columns import Columns, IntervalSums, ranks_within, value_at
from zemosaic_stack_core.pixels.places import Places, places_of

__all__ = [
    "Bounds",
    "Interval",
    "RuleInput",
    "Step",
    "clipped",
    "repeat",
    "with_ties",
]

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


class _State(NamedTuple):
    """What iterations have come to, of the pixels `lane`; see `Step`."""

    lane: Array
    kept: Interval
    within: Interval | None
    deep: Array | None

    def taken(self, xp: Namespace, chosen: Array) -> _State:
        """Give the state of some of the pixels."""
        return _State(
            xp.take(self.lane, chosen, axis=0),
            _taken(xp, self.kept, chosen),
            None if self.within is None else _taken(xp, self.within, chosen),
            None if self.deep is None else xp.take(self.deep, chosen, axis=0),
        )

    def updated(self, xp: Namespace, places: Places, some: _State) -> _State:
        """Give the state with that of `some` of the pixels in their places."""
        return _State(
            self.lane,
            _put(xp, places, some.kept, self.kept),
            None if self.within is None or some.within is None else _put(xp, places, some.within, self.within),
            None if self.deep is None or some.deep is None else places.put(xp, some.deep, self.deep),
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
    kept = Interval(columns.start, columns.stop)
    state = _State(columns.lane, kept, kept, columns.are_deep(*kept))
    if columns.is_complete and columns.frames < needed:
        return Step(*state[1:])
    outer: list[tuple[Array, _State]] = []
    if not columns.is_complete:
        can_be = kept.stop - kept.start >= needed
        outer.append((can_be, state))
        state = state.taken(xp, xp.nonzero(can_be)[0])
    for iteration in range(iterations):
        if state.lane.shape[0] == 0:
            break
        lane, kept, within, deep = state
        step = shrink(kept, lane)
        before, number = kept.stop - kept.start, step.kept.stop - step.kept.start
        is_applied = number >= left
        if needed > 1:
            is_applied = is_applied & (before >= needed)
        state = _State(
            lane,
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
        if chosen.shape[0] * MOST[1] < lane.shape[0] * MOST[0]:
            outer.append((goes_on, state))
            state = state.taken(xp, chosen)
    for goes_on, others in reversed(outer):
        state = others.updated(xp, places_of(xp, goes_on), state)
    return Step(*state[1:])


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
    low = value_at(xp, columns, xp.clip(kept.start, 0, top), columns.lane)
    high = value_at(xp, columns, xp.clip(kept.stop - 1, 0, top), columns.lane)
    below = value_at(xp, columns, xp.clip(kept.start - 1, 0, top), columns.lane)
    above = value_at(xp, columns, xp.clip(kept.stop, 0, top), columns.lane)
    is_tied = ((below >= low) & (kept.start > columns.start)) | ((above <= high) & (kept.stop < columns.stop))
    if not xp.any(is_tied):
        return kept
    start, stop = ranks_within(xp, columns, low, high, columns.lane)
    return Interval(
        xp.where(is_tied, xp.maximum(start, columns.start), kept.start),
        xp.where(is_tied, xp.minimum(stop, columns.stop), kept.stop),
    )
