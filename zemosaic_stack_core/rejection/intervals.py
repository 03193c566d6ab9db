"""Shrink each pixel's kept interval of ranks, until it stands."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from zemosaic_stack_core._typing import Array, Namespace
from zemosaic_stack_core.options import StackOptions
from zemosaic_stack_core.pixels.columns import Columns, IntervalSums, value_at

__all__ = [
    "Bounds",
    "Interval",
    "RuleInput",
    "Step",
    "expand",
    "narrow",
    "peel",
    "repeat",
    "with_ties",
]

INFINITY = float("inf")


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

    `bounds` are those it used, None for a rule that has none; `deep` tells, after all of them, the pixels that any of
    them peeled to the end of a window (None where the columns are no windows).
    """

    kept: Interval
    bounds: Bounds | None = None
    deep: Array | None = None


class RuleInput(NamedTuple):
    """What a rule looks at: the sorted samples of the pixels, and what its row of the catalogue asks for beside them.

    `sums` is None unless the rule uses sums; `critical_values` unless it tests against them.
    """

    columns: Columns
    options: StackOptions
    sums: IntervalSums | None = None
    critical_values: Array | None = None


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

    An iteration needs `needed` kept samples, and is not applied to a pixel where it would leave fewer than `left`.
    Each works on the pixels (`lane`) that the one before changed: no pixel waits for another. The bounds that come
    back are those of each pixel's last applied iteration, infinite where there was none.
    """
    start, stop = columns.start + 0, columns.stop + 0
    high = xp.full_like(start, INFINITY, dtype=xp.float64)
    low = -high
    has_bounds = False
    deep = None if columns.window is None else xp.zeros_like(start, dtype=xp.bool)
    live = stop - start >= needed
    lane = xp.nonzero(live)[0]
    kept = Interval(xp.take(start, lane, axis=0), xp.take(stop, lane, axis=0))
    for _ in range(iterations):
        if lane.shape[0] == 0:
            break
        shrunk, bounds, _ = shrink(kept, lane)
        if deep is not None and columns.window is not None:
            is_deep = (shrunk.start >= columns.window) | (shrunk.stop <= columns.frames - columns.window)
            deep[live] = is_deep | xp.take(deep, lane, axis=0)
        number = shrunk.stop - shrunk.start
        is_applied = number >= left
        start[live] = xp.where(is_applied, shrunk.start, kept.start)
        stop[live] = xp.where(is_applied, shrunk.stop, kept.stop)
        if bounds is not None:
            has_bounds = True
            low[live] = xp.where(is_applied, bounds.low, xp.take(low, lane, axis=0))
            high[live] = xp.where(is_applied, bounds.high, xp.take(high, lane, axis=0))
        has_changed = (shrunk.start > kept.start) | (shrunk.stop < kept.stop)
        goes_on = has_changed & (number >= max(left, needed))
        chosen = xp.nonzero(goes_on)[0]
        live = narrow(xp, live, goes_on)
        lane = xp.take(lane, chosen, axis=0)
        kept = Interval(xp.take(shrunk.start, chosen, axis=0), xp.take(shrunk.stop, chosen, axis=0))
    return Step(Interval(start, stop), Bounds(low, high) if has_bounds else None, deep)


def narrow(xp: Namespace, live: Array, goes_on: Array) -> Array:
    """Give the mask of the live pixels that go on; `goes_on` has one value per live pixel."""
    narrowed = xp.zeros_like(live)
    narrowed[live] = goes_on
    return narrowed


def peel(xp: Namespace, columns: Columns, kept: Interval, lane: Array, bounds: Bounds) -> Interval:
    """Take the samples outside the bounds off both ends of the kept intervals.

    The bounds must enclose the middle of the kept samples, as those about a median or a mean do. Both ends are walked
    in one vector, the upper one with all signs turned; it takes as many steps as the pixel that loses most at one end.
    """
    both = xp.concat([lane, lane])
    ones = xp.ones_like(bounds.low)
    sign = xp.concat([ones, -ones])
    limit = xp.concat([bounds.low, -bounds.high])
    stride = xp.astype(sign, xp.int64) * columns.pixels
    position = xp.concat([kept.start, kept.stop - 1 - columns.upper]) * columns.pixels + both
    while True:
        value = xp.astype(xp.take(columns.values, position, axis=0), xp.float64) * sign
        is_outside = value < limit
        if not xp.any(is_outside):
            break
        position = position + xp.astype(is_outside, xp.int64) * stride
    row = (position - both) // columns.pixels
    number = lane.shape[0]
    return Interval(row[:number], row[number:] + (1 + columns.upper))


def expand(xp: Namespace, columns: Columns, kept: Interval, bounds: Bounds) -> Interval:
    """Take the present samples within the bounds back in, at both ends of every pixel's kept interval."""
    both = xp.concat([columns.lane, columns.lane])
    ones = xp.ones_like(bounds.low)
    sign = xp.concat([ones, -ones])
    limit = xp.concat([bounds.low, -bounds.high])
    step = xp.astype(sign, xp.int64)
    first = xp.concat([columns.start, columns.start])
    last = xp.concat([columns.stop, columns.stop]) - 1
    rank = xp.concat([kept.start - 1, kept.stop])
    no_shift = xp.zeros_like(columns.lane)
    shift = xp.concat([no_shift, no_shift + columns.upper])
    while True:
        probe = (xp.clip(rank, 0, columns.frames - 1) - shift) * columns.pixels + both
        value = xp.astype(xp.take(columns.values, probe, axis=0), xp.float64) * sign
        comes_back = (value >= limit) & (rank >= first) & (rank <= last)
        if not xp.any(comes_back):
            break
        rank = rank - xp.astype(comes_back, xp.int64) * step
    number = columns.pixels
    return Interval(rank[:number] + 1, rank[number:])


def with_ties(xp: Namespace, columns: Columns, kept: Interval) -> Interval:
    """Take back the samples that equal the smallest or the largest kept one: equal samples share their fate."""
    top = columns.frames - 1
    low = value_at(xp, columns, xp.clip(kept.start, 0, top), columns.lane)
    high = value_at(xp, columns, xp.clip(kept.stop - 1, 0, top), columns.lane)
    return expand(xp, columns, kept, Bounds(low, high))
