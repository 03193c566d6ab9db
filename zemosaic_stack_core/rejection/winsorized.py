"""Rules that take the spread from winsorized samples: those far out are pulled in, not left out."""

from __future__ import annotations

from zemosaic_stack_core._typing import Array, Namespace
from zemosaic_stack_core.options import StackOptions
from zemosaic_stack_core.pixels.columns import Columns, IntervalSums, interval_sums, median_of, ranks_within, value_at
from zemosaic_stack_core.pixels.moments import standard_deviation
from zemosaic_stack_core.pixels.overview import FirstLook, deviation_of
from zemosaic_stack_core.pixels.places import places_of

from .centered import kappa_sigma, smallest_harmless_spread
from .intervals import Bounds, Interval, RuleInput, Step, clipped, repeat

__all__ = ["WINSORIZED_TAIL", "winsorized_may_reject", "winsorized_quantile", "winsorized_sigma_clip"]

INFINITY = float("inf")

#: Samples are pulled in to 1.5 spreads, which lowers the standard deviation of Gaussian data by 1.134; repeated
#: until the spread changes by less than 5e-4 of itself (PixInsight, Siril; Huber 1981).
CLIP, CORRECTION, TOLERANCE, ROUNDS = 1.5, 1.134, 5e-4, 50
#: Of Gaussian samples a fifteenth lies beyond 1.5 spreads; the rounds hardly ever look beyond three times as many.
WINSORIZED_TAIL = 0.2
#: After these rounds it is asked which pixels have settled, and only the others go on. Few settle sooner, and an answer
#: is worth some rounds of waiting on a device.
ASKED = (3, 5, 8, 16, 32)
#: Kept samples that an outer iteration needs.
FEWEST = 4


def winsorized_sigma_clip(xp: Namespace, given: RuleInput) -> Interval:
    """Clip about the median by the standard deviation of the winsorized samples."""
    columns, options, sums = given.columns, given.options, given.sums
    assert sums is not None  # noqa: S101 - the catalogue says that this rule uses sums

    def shrink(kept: Interval, lane: Array) -> Step:
        median = median_of(xp, columns, kept.start, kept.stop, lane)
        deviation, is_short = _winsorized_deviation(xp, columns, sums, kept, lane, median)
        bounds = Bounds(median - deviation * options.kappa_low, median + deviation * options.kappa_high)
        step = clipped(xp, columns, kept, lane, bounds)
        return Step(step.kept, None, None if step.deep is None or is_short is None else step.deep | is_short)

    kept, _, deep = repeat(xp, columns, shrink, iterations=options.max_iterations, needed=FEWEST, left=3)
    if deep is None or columns.windows is None:
        return kept
    # What such a pixel keeps is not known; an interval that ends with the window says so.
    return kept._replace(start=xp.maximum(kept.start, xp.astype(deep, xp.int64) * columns.windows.depth))


def _winsorized_deviation(
    xp: Namespace, columns: Columns, sums: IntervalSums, kept: Interval, lane: Array, median: Array
) -> tuple[Array, Array | None]:
    """Give the standard deviation of the kept samples after they are pulled in to 1.5 of it, until it settles.

    Winsorized samples are a run of the sorted list between two runs of equal values, so a round looks two sums up. With
    the deviation comes where windows were too small for that.
    """
    first, second = sums.over(xp, kept.start, kept.stop, lane)
    count = xp.astype(kept.stop - kept.start, xp.float64)
    deviation = standard_deviation(xp, first, second, count, 1)
    pivot = columns.of(xp, sums.pivot, lane)
    low = xp.full_like(median, -INFINITY)
    high = -low
    live = deviation >= 0.0
    is_short = None if columns.windows is None else ~live
    outer: list[tuple[Array, Array, Array | None]] = []
    for number in range(1, ROUNDS + 1):
        low = xp.maximum(low, median - deviation * CLIP)
        high = xp.minimum(high, median + deviation * CLIP)
        start, stop = ranks_within(xp, columns, low, high, lane)
        if is_short is not None and columns.windows is not None:
            size = columns.windows.size
            is_short = is_short | (start >= size) | (stop <= columns.frames - size)
        start, stop = xp.maximum(start, kept.start), xp.minimum(stop, kept.stop)
        first, second = sums.over(xp, start, stop, lane)
        for end, pulled in ((low, start - kept.start), (high, kept.stop - stop)):
            d = end - pivot
            weight = xp.astype(pulled, xp.float64)
            first = first + d * weight
            second = second + d * d * weight
        settled = standard_deviation(xp, first, second, count, 1) * CORRECTION
        goes_on = live & (xp.abs(settled - deviation) > deviation * TOLERANCE)
        deviation = xp.where(live, settled, deviation)
        live = goes_on
        if number not in ASKED:
            continue
        chosen = xp.nonzero(live)[0]
        if chosen.shape[0] == 0:
            break
        if chosen.shape[0] * 4 < lane.shape[0] * 3:
            outer.append((live, deviation, is_short))
            lane, median, pivot, count, low, high, deviation, live = (
                xp.take(vector, chosen, axis=0) for vector in (lane, median, pivot, count, low, high, deviation, live)
            )
            kept = Interval(xp.take(kept.start, chosen, axis=0), xp.take(kept.stop, chosen, axis=0))
            is_short = None if is_short is None else xp.take(is_short, chosen, axis=0)
    for mask, others, others_short in reversed(outer):
        places = places_of(xp, mask)
        deviation = places.put(xp, deviation, others)
        if is_short is not None and others_short is not None:
            is_short = places.put(xp, is_short, others_short)
    return deviation, is_short


def winsorized_may_reject(xp: Namespace, look: FirstLook, options: StackOptions) -> Array:
    """Tell the pixels whose winsorized spread is not surely large enough for all their samples.

    Let ``t`` be the spread from which on nothing is rejected. Pulling samples in to a narrower interval lowers their
    standard deviation. So if it is at least ``t`` before anything is pulled in, and ``1.134`` times it after pulling in
    to ``1.5*t``, then it never comes below ``t``: as long as a round's spread is at least ``t``, so is the next one's.
    """
    chosen, number = look.chosen, look.number(xp)
    assert chosen.second is not None  # noqa: S101 - the catalogue says that this rule uses squares
    harmless = smallest_harmless_spread(xp, look, options)
    reach = harmless * CLIP
    low, high = chosen.median - chosen.pivot - reach, chosen.median - chosen.pivot + reach
    first, second = xp.zeros_like(low), xp.zeros_like(low)
    frames = len(look.ranks.rows)
    below = above = frames // 2
    is_short = None
    if look.core is not None:
        # What lies between the windows is not pulled in, if what is next to them isn't.
        below = look.size
        above = frames - below
        first, second = look.core.first_above - look.core.first_below, look.core.second_above - look.core.second_below
        is_short = look.ranks.rows[below] - chosen.pivot < low
        is_short = is_short | (look.ranks.rows[above - 1] - chosen.pivot > high)
    for rank in (*range(below), *range(above, frames)):
        d = deviation_of(xp, look.ranks, chosen.pivot, rank)
        d = xp.minimum(xp.maximum(d, low), high)
        present = look.ranks.present_at(xp, rank)
        if present is not None:
            d *= present
        first += d
        d *= d
        second += d
    pulled = standard_deviation(xp, first, second, number, 1) * CORRECTION
    whole = standard_deviation(xp, chosen.first, chosen.second, number, 1)
    is_settled = (xp.minimum(pulled, whole) > harmless) | (look.counts < FEWEST)
    return ~is_settled if is_short is None else ~is_settled | is_short


def winsorized_quantile(xp: Namespace, given: RuleInput) -> Interval:
    """Clip, once, by the median and spread that the samples have when winsorized at two order statistics."""
    columns, options = given.columns, given.options
    lane = columns.lane
    last = xp.astype(xp.maximum(columns.stop - columns.start - 1, xp.zeros_like(lane)), xp.float64)
    low_limit, high_limit = options.winsor_limits
    low_rank = columns.start + xp.astype(xp.round(last * low_limit), xp.int64)
    high_rank = columns.start + xp.astype(xp.round(last * (1.0 - high_limit)), xp.int64)
    top = columns.frames - 1
    low = xp.take(columns.values, xp.clip(low_rank, 0, top) * columns.pixels + lane, axis=0)
    high = xp.take(columns.values, xp.clip(high_rank, 0, top) * columns.pixels + lane, axis=0)
    rows = [
        xp.minimum(xp.maximum(columns.values[rank * columns.pixels : (rank + 1) * columns.pixels], low), high)
        for rank in range(columns.frames)
    ]
    winsorized = columns._replace(values=xp.concat(rows))
    middle = xp.clip((columns.start + columns.stop - 1) // 2, 0, top)
    sums = interval_sums(xp, winsorized, value_at(xp, winsorized, middle, lane))
    kept = kappa_sigma(xp, RuleInput(winsorized, StackOptions(), sums))
    # A pixel without a sample has an empty interval: any rank does for its numbers, which are not used.
    is_empty = xp.astype(kept.stop <= kept.start, xp.int64)
    first, second = sums.over(xp, kept.start, kept.stop, lane)
    count = xp.astype(kept.stop - kept.start + is_empty, xp.float64)
    deviation = standard_deviation(xp, first, second, count, 0)
    lower = xp.clip((kept.start + kept.stop - 1) // 2, 0, top)
    upper = xp.clip((kept.start + kept.stop) // 2, 0, top)
    median = (value_at(xp, winsorized, lower, lane) + value_at(xp, winsorized, upper, lane)) * 0.5

    def shrink(kept: Interval, chosen: Array) -> Step:
        center, spread = xp.take(median, chosen, axis=0), xp.take(deviation, chosen, axis=0)
        bounds = Bounds(center - spread * options.kappa_low, center + spread * options.kappa_high)
        # These bounds enclose the middle of the winsorized samples, not always that of the samples: search, don't walk.
        start, stop = ranks_within(xp, columns, bounds.low, bounds.high, chosen)
        return Step(Interval(xp.maximum(start, kept.start), xp.minimum(stop, kept.stop)))

    return repeat(xp, columns, shrink, iterations=1).kept
