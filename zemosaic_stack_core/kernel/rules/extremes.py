"""Rules that take the extreme samples off, by number or by test."""

from __future__ import annotations

from zemosaic_stack_core.kernel.columns import value_at
from zemosaic_stack_core.kernel.combination import standard_deviation
from zemosaic_stack_core.kernel.rules.intervals import Interval, RuleInput, with_ties
from zemosaic_stack_core.kernel.typing import Namespace

#: `gesd` leaves at least so many samples: of fewer, the deviate tested is the same for any samples.
FEWEST = 3


def minmax(xp: Namespace, given: RuleInput) -> Interval:
    """Reject the smallest and the largest samples, a fixed number of each."""
    columns, options = given.columns, given.options
    enough = xp.astype(columns.stop - columns.start > options.n_low + options.n_high, xp.int64)
    kept = Interval(columns.start + enough * options.n_low, columns.stop - enough * options.n_high)
    return with_ties(xp, columns, kept)


def gesd(xp: Namespace, given: RuleInput) -> Interval:
    """Reject by Rosner's generalised extreme studentised deviate test.

    `critical_values` is flat, float64: that of the ``i``-th outlier (from 1) among ``n`` samples stands at
    ``n * (most + 1) + i``, where ``most = floor(outlier_fraction * frames)``.
    """
    columns, options = given.columns, given.options
    sums, critical_values = given.sums, given.critical_values
    assert sums is not None  # noqa: S101 - the catalogue says that this rule uses sums
    assert critical_values is not None  # noqa: S101 - and critical values
    most = int(options.outlier_fraction * columns.frames)
    lane, count = columns.lane, columns.stop - columns.start
    ones = xp.ones_like(count)
    allowed = xp.astype(xp.floor(xp.astype(count, xp.float64) * options.outlier_fraction), xp.int64)
    # No deviate of n samples comes up to the root of n: where no test can be made, this is as good as infinity.
    critical_values = xp.minimum(critical_values, xp.full_like(critical_values, float(columns.frames)))
    start, stop = columns.start, columns.stop
    answer = Interval(start, stop)
    # Every outlier up to `allowed` is tested: the last that is one counts, whatever those before it were.
    live = (allowed >= 1) & (count > FEWEST)
    for step in range(1, most + 1):
        first, second = sums.over(xp, start, stop, lane)
        left = xp.astype(xp.maximum(stop - start, ones), xp.float64)
        mean = sums.pivot + first / left
        deviation = standard_deviation(xp, first, second, left, 1)
        below = mean - value_at(xp, columns, start, lane)
        above = value_at(xp, columns, stop - 1, lane) - mean
        is_high = xp.astype(above >= below, xp.int64)
        critical = xp.take(critical_values, count * (most + 1) + step, axis=0)
        # R_i > lambda_i, multiplied out: a deviation of zero is never an outlier's.
        live = live & (deviation > 0.0)
        is_outlier = live & (xp.maximum(below, above) > critical * deviation)
        is_live = xp.astype(live, xp.int64)
        start, stop = start + is_live - is_live * is_high, stop - is_live * is_high
        answer = Interval(xp.where(is_outlier, start, answer.start), xp.where(is_outlier, stop, answer.stop))
        live = live & (allowed > step) & (stop - start > FEWEST)
    return with_ties(xp, columns, answer)
