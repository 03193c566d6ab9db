"""Rules that take the spread from winsorized samples: those far out are pulled in, not left out."""

from __future__ import annotations

from zemosaic_stack_core._typing import Array, Namespace
from zemosaic_stack_core.options import StackOptions
from zemosaic_stack_core.pixels.columns import Columns, IntervalSums, count_below, interval_sums, median_of, value_at
from zemosaic_stack_core.pixels.moments import standard_deviation
from zemosaic_stack_core.pixels.overview import FirstLook, deviation_of

from .centered import kappa_sigma, smallest_harmless_spread
from .intervals import Bounds, Interval, RuleInput, Step, narrow, peel, repeat

__all__ = ["winsorized_may_reject", "winsorized_quantile", "winsorized_sigma_clip"]

INFINITY = float("inf")

#: Samples are pulled in to 1.5 spreads, which lowers the standard deviation of Gaussian data by 1.134; repeated
#: until the spread changes by less than 5e-4 of itself (PixInsight, Siril; Huber 1981).
CLIP, CORRECTION, TOLERANCE, ROUNDS = 1.5, 1.134, 5e-4, 50
#: Kept samples that an outer iteration needs.
FEWEST = 4


def winsorized_sigma_clip(xp: Namespace, given: RuleInput) -> Interval:
    """Clip about the median by the standard deviation of the winsorized samples."""
    columns, options, sums = given.columns, given.options, given.sums
    assert sums is not None  # noqa: S101 - the catalogue says that this rule uses sums

    def shrink(kept: Interval, lane: Array) -> Step:
        median = median_of(xp, columns, kept.start, kept.stop, lane)
        deviation = _winsorized_deviation(xp, columns, sums, kept, lane, median)
        bounds = Bounds(median - deviation * options.kappa_low, median + deviation * options.kappa_high)
        return Step(peel(xp, columns, kept, lane, bounds))

    return repeat(xp, columns, shrink, iterations=options.max_iterations, needed=FEWEST, left=3).kept


def _winsorized_deviation(
    xp: Namespace, columns: Columns, sums: IntervalSums, kept: Interval, lane: Array, median: Array
) -> Array:
    """Give the standard deviation of the kept samples after they are pulled in to 1.5 of it, until it settles.

    Winsorized samples are a run of the sorted list between two runs of equal values, so a round looks two sums up.
    """
    first, second = sums.over(xp, kept.start, kept.stop, lane)
    count = xp.astype(kept.stop - kept.start, xp.float64)
    deviation = standard_deviation(xp, first, second, count, 1)
    answer = deviation + 0.0
    live = deviation >= 0.0
    pivot = xp.take(sums.pivot, lane, axis=0)
    low = xp.full_like(median, -INFINITY)
    high = -low
    inner = kept
    for _ in range(ROUNDS):
        low = xp.maximum(low, median - deviation * CLIP)
        high = xp.minimum(high, median + deviation * CLIP)
        inner = peel(xp, columns, inner, lane, Bounds(low, high))
        first, second = sums.over(xp, inner.start, inner.stop, lane)
        for end, number in ((low, inner.start - kept.start), (high, kept.stop - inner.stop)):
            d = end - pivot
            pulled = xp.astype(number, xp.float64)
            first = first + d * pulled
            second = second + d * d * pulled
        settled = standard_deviation(xp, first, second, count, 1) * CORRECTION
        answer[live] = settled
        goes_on = xp.abs(settled - deviation) > deviation * TOLERANCE
        chosen = xp.nonzero(goes_on)[0]
        if chosen.shape[0] == 0:
            break
        live = narrow(xp, live, goes_on)
        lane, median, pivot, count, low, high, deviation = (
            xp.take(vector, chosen, axis=0) for vector in (lane, median, pivot, count, low, high, settled)
        )
        kept = Interval(xp.take(kept.start, chosen, axis=0), xp.take(kept.stop, chosen, axis=0))
        inner = Interval(xp.take(inner.start, chosen, axis=0), xp.take(inner.stop, chosen, axis=0))
    return answer


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
    for rank in range(len(look.ranks.rows)):
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
    return ~is_settled


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
        start = count_below(xp, columns, bounds.low, chosen, inclusive=False)
        stop = count_below(xp, columns, bounds.high, chosen, inclusive=True)
        return Step(Interval(xp.maximum(start, kept.start), xp.minimum(stop, kept.stop)))

    return repeat(xp, columns, shrink, iterations=1).kept
