"""Rules that take the spread from winsorized samples: those far out are pulled in, not left out."""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

from zemosaic_stack_core.kernel.columns import (
    Columns,
    IntervalSums,
    between,
    interval_sums,
    median_of,
    ranks_within,
    value_at,
)
from zemosaic_stack_core.kernel.combination import standard_deviation
from zemosaic_stack_core.kernel.overview import FirstLook, deviation_of
from zemosaic_stack_core.kernel.places import places_of
from zemosaic_stack_core.kernel.rules.centered import ROUNDING, kappa_sigma, smallest_harmless_spread
from zemosaic_stack_core.kernel.rules.intervals import (
    Bounds,
    Interval,
    RuleInput,
    Step,
    are_few,
    clipped,
    repeat,
    updated,
)
from zemosaic_stack_core.kernel.typing import Array, Namespace
from zemosaic_stack_core.options import StackOptions

INFINITY = float("inf")

#: Samples are pulled in to 1.5 spreads, which lowers the standard deviation of Gaussian data by 1.134; repeated
#: until the spread changes by less than 5e-4 of itself (PixInsight, Siril; Huber 1981).
CLIP, CORRECTION, TOLERANCE, ROUNDS = 1.5, 1.134, 5e-4, 50
#: Of Gaussian samples a fifteenth lies beyond 1.5 spreads; the rounds hardly ever look beyond three times as many.
WINSORIZED_TAIL = 0.2
#: Before the first round, and after these, it is asked which pixels are not decided yet; only those go on.
ASKED = (0, 1, 3, 8, 20)
#: Kept samples that an outer iteration needs.
FEWEST = 4


def winsorized_sigma_clip(xp: Namespace, given: RuleInput) -> Interval:
    """Clip about the median by the standard deviation of the winsorized samples."""
    columns, options, sums = given.columns, given.options, given.sums
    assert sums is not None  # noqa: S101 - the catalogue says that this rule uses sums

    iterations = 0

    def shrink(kept: Interval, lane: Array) -> Step:
        nonlocal iterations
        iterations += 1
        # Those that surely lose nothing at first have been passed over already.
        return _shrink_once(xp, columns, sums, kept, lane, options, ASKED[1:] if iterations == 1 else ASKED)

    kept, _, deep = repeat(xp, columns, shrink, iterations=options.max_iterations, needed=FEWEST, left=3)
    if deep is None or columns.windows is None:
        return kept
    # What such a pixel keeps is not known; an interval that ends with the window says so.
    return kept._replace(start=xp.maximum(kept.start, xp.astype(deep, xp.int64) * columns.windows.depth))


class _Pixels(NamedTuple):
    """Some pixels in an iteration: their kept samples (`number` of them, as the others float64), and where they are.

    `median` is that of the kept samples, `pivot` that of the sums.
    """

    lane: Array
    start: Array
    stop: Array
    median: Array
    pivot: Array
    number: Array

    @property
    def kept(self) -> Interval:
        """The kept samples."""
        return Interval(self.start, self.stop)


class _Rounds(NamedTuple):
    """What rounds have come to: the bounds that samples are pulled in to, and their deviation.

    `live`: it has not settled. `deep`: windows were too small for it.
    """

    low: Array
    high: Array
    deviation: Array
    live: Array
    deep: Array


def _shrink_once(
    xp: Namespace,
    columns: Columns,
    sums: IntervalSums,
    kept: Interval,
    lane: Array,
    options: StackOptions,
    asked: Collection[int],
) -> Step:
    """Take off what lies outside the bounds of one iteration.

    After the rounds `asked` those pixels are left alone where it is known by then what they will keep.
    """
    pixels, rounds = _begin(xp, columns, sums, kept, lane)
    outer: list[tuple[Array, Step]] = []
    for number in range(ROUNDS + 1):
        if number > 0:
            rounds = _next_round(xp, columns, sums, pixels, rounds)
        if number == ROUNDS:
            rounds = rounds._replace(live=xp.zeros_like(rounds.live))
        elif number not in asked:
            continue
        step = _kept_so_far(xp, columns, pixels, rounds, options, is_first=number == 0)
        goes_on = rounds.live & ~_are_decided(xp, columns, sums, pixels, rounds, step.kept, options)
        chosen = xp.nonzero(goes_on)[0]
        if chosen.shape[0] == 0:
            break
        if are_few(chosen, pixels.lane):
            outer.append((goes_on, step))
            pixels = _Pixels(*(xp.take(vector, chosen, axis=0) for vector in pixels))
            rounds = _Rounds(*(xp.take(vector, chosen, axis=0) for vector in rounds))
    for mask, others in reversed(outer):
        step = updated(xp, places_of(xp, mask), step, others)
    return step


def _begin(xp: Namespace, columns: Columns, sums: IntervalSums, kept: Interval, lane: Array) -> tuple[_Pixels, _Rounds]:
    """Give the kept samples of pixels, and their deviation before any is pulled in."""
    median = median_of(xp, columns, kept.start, kept.stop, lane)
    first, second = sums.over(xp, kept.start, kept.stop, lane)
    count = xp.astype(kept.stop - kept.start, xp.float64)
    deviation = standard_deviation(xp, first, second, count, 1)
    pixels = _Pixels(lane, kept.start, kept.stop, median, columns.of(xp, sums.pivot, lane), count)
    high = xp.full_like(median, INFINITY)
    live = deviation >= 0.0
    return pixels, _Rounds(-high, high, deviation, live, ~live)


def _next_round(xp: Namespace, columns: Columns, sums: IntervalSums, pixels: _Pixels, rounds: _Rounds) -> _Rounds:
    """Pull samples in to 1.5 of the deviation, and give that of the pulled in, until it settles."""
    low = xp.maximum(rounds.low, pixels.median - rounds.deviation * CLIP)
    high = xp.minimum(rounds.high, pixels.median + rounds.deviation * CLIP)
    settled, is_short = _pulled_in(xp, columns, sums, pixels, Bounds(low, high))
    deep = rounds.deep if is_short is None else rounds.deep | is_short
    goes_on = rounds.live & (xp.abs(settled - rounds.deviation) > rounds.deviation * TOLERANCE)
    return _Rounds(low, high, xp.where(rounds.live, settled, rounds.deviation), goes_on, deep)


def _kept_so_far(
    xp: Namespace, columns: Columns, pixels: _Pixels, rounds: _Rounds, options: StackOptions, *, is_first: bool
) -> Step:
    """Give what the deviation keeps where it has settled; elsewhere all that later ones can keep.

    Pulling samples in to a narrower interval lowers their standard deviation. So if the first round lowers it, the
    others do, and if not, nothing changes after that, but for rounding.
    """
    if is_first:
        return Step(pixels.kept, None, columns.are_deep(*pixels.kept))
    spread = xp.where(rounds.live, rounds.deviation * ROUNDING, rounds.deviation)
    bounds = Bounds(pixels.median - spread * options.kappa_low, pixels.median + spread * options.kappa_high)
    step = clipped(xp, columns, pixels.kept, pixels.lane, bounds)
    return Step(step.kept, None, None if step.deep is None else step.deep | rounds.deep)


def _are_decided(
    xp: Namespace,
    columns: Columns,
    sums: IntervalSums,
    pixels: _Pixels,
    rounds: _Rounds,
    kept: Interval,
    options: StackOptions,
) -> Array:
    """Tell the pixels that will surely keep what they have kept so far.

    Let ``t`` be the spread from which on they do. If the deviation is above it, and ``1.134`` times that of the samples
    pulled in to ``1.5*t`` is too, then it never comes down to ``t``: see `winsorized_may_reject`.
    """
    below = (pixels.median - value_at(xp, columns, kept.start, pixels.lane)) / options.kappa_low
    above = (value_at(xp, columns, kept.stop - 1 - columns.upper, pixels.lane) - pixels.median) / options.kappa_high
    harmless = xp.maximum(below, above) * ROUNDING
    reach = harmless * CLIP
    pulled, is_short = _pulled_in(xp, columns, sums, pixels, Bounds(pixels.median - reach, pixels.median + reach))
    is_decided = (xp.minimum(pulled, rounds.deviation) > harmless) & (kept.stop > kept.start)
    return is_decided if is_short is None else is_decided & ~is_short


def _pulled_in(
    xp: Namespace, columns: Columns, sums: IntervalSums, pixels: _Pixels, bounds: Bounds
) -> tuple[Array, Array | None]:
    """Give 1.134 of the standard deviation of the kept samples pulled in to bounds; and where windows are too small.

    Such samples are a run of the sorted list between two runs of equal values: two sums are looked up.
    """
    start, stop = ranks_within(xp, columns, bounds.low, bounds.high, pixels.lane)
    is_short = None
    if columns.windows is not None:
        is_short = (start >= columns.windows.size) | (stop <= columns.frames - columns.windows.size)
    start, stop = xp.maximum(start, pixels.start), xp.minimum(stop, pixels.stop)
    first, second = sums.over(xp, start, stop, pixels.lane)
    for end, number in ((bounds.low, start - pixels.start), (bounds.high, pixels.stop - stop)):
        d = end - pixels.pivot
        d_pulled = d * xp.astype(number, xp.float64)
        first = first + d_pulled
        second = second + d * d_pulled
    return standard_deviation(xp, first, second, pixels.number, 1) * CORRECTION, is_short


def winsorized_may_reject(xp: Namespace, look: FirstLook, options: StackOptions) -> Array:
    """Tell the pixels whose winsorized spread is not surely large enough for all their samples.

    Let ``t`` be the spread from which on nothing is rejected. Pulling samples in to a narrower interval lowers their
    standard deviation. So if it is at least ``t`` before anything is pulled in, and ``1.134`` times it after pulling in
    to ``1.5*t``, then it never comes below ``t``: as long as a round's spread is at least ``t``, so is the next one's.
    """
    chosen, number = look.chosen, look.number(xp)
    assert chosen.second is not None  # noqa: S101 - the catalogue says that this rule uses squares
    harmless = smallest_harmless_spread(xp, look, options) * ROUNDING
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
    low = xp.take(columns.values, between(xp, low_rank, 0, top) * columns.pixels + lane, axis=0)
    high = xp.take(columns.values, between(xp, high_rank, 0, top) * columns.pixels + lane, axis=0)
    rows = [
        xp.minimum(xp.maximum(columns.values[rank * columns.pixels : (rank + 1) * columns.pixels], low), high)
        for rank in range(columns.frames)
    ]
    winsorized = columns._replace(values=xp.concat(rows))
    middle = between(xp, (columns.start + columns.stop - 1) // 2, 0, top)
    sums = interval_sums(xp, winsorized, value_at(xp, winsorized, middle, lane))
    kept = kappa_sigma(xp, RuleInput(winsorized, StackOptions(), sums))
    # A pixel without a sample has an empty interval: any rank does for its numbers, which are not used.
    is_empty = xp.astype(kept.stop <= kept.start, xp.int64)
    first, second = sums.over(xp, kept.start, kept.stop, lane)
    count = xp.astype(kept.stop - kept.start + is_empty, xp.float64)
    deviation = standard_deviation(xp, first, second, count, 0)
    lower = between(xp, (kept.start + kept.stop - 1) // 2, 0, top)
    upper = between(xp, (kept.start + kept.stop) // 2, 0, top)
    median = (value_at(xp, winsorized, lower, lane) + value_at(xp, winsorized, upper, lane)) * 0.5

    def shrink(kept: Interval, chosen: Array) -> Step:
        center, spread = xp.take(median, chosen, axis=0), xp.take(deviation, chosen, axis=0)
        bounds = Bounds(center - spread * options.kappa_low, center + spread * options.kappa_high)
        # These bounds enclose the middle of the winsorized samples, not always that of the samples: search, don't walk.
        start, stop = ranks_within(xp, columns, bounds.low, bounds.high, chosen)
        return Step(Interval(xp.maximum(start, kept.start), xp.minimum(stop, kept.stop)))

    return repeat(xp, columns, shrink, iterations=1).kept
