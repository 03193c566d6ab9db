"""Rules that take the extreme samples off, by number or by test."""

from __future__ import annotations

from zemosaic_stack_core._typing import Namespace
from zemosaic_stack_core.pixels.columns import value_at
from zemosaic_stack_core.pixels.moments import standard_deviation

from .intervals import Interval, RuleInput, narrow, with_ties

__all__ = ["gesd", "minmax"]

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
    count = columns.stop - columns.start
    allowed = xp.astype(xp.floor(xp.astype(count, xp.float64) * options.outlier_fraction), xp.int64)
    answer_start, answer_stop = columns.start + 0, columns.stop + 0
    live = (allowed >= 1) & (count > FEWEST)
    lane = xp.nonzero(live)[0]
    start, stop, count, allowed = (
        xp.take(vector, lane, axis=0) for vector in (columns.start, columns.stop, count, allowed)
    )
    for step in range(1, most + 1):
        if lane.shape[0] == 0:
            break
        first, second = sums.over(xp, start, stop, lane)
        left = xp.astype(stop - start, xp.float64)
        mean = xp.take(sums.pivot, lane, axis=0) + first / left
        deviation = standard_deviation(xp, first, second, left, 1)
        below = mean - value_at(xp, columns, start, lane)
        above = value_at(xp, columns, stop - 1, lane) - mean
        is_high = xp.astype(above >= below, xp.int64)
        critical = xp.take(critical_values, count * (most + 1) + step, axis=0)
        # R_i > lambda_i, multiplied out: a deviation of zero is never an outlier's.
        is_outlier = xp.maximum(below, above) > critical * deviation
        is_outlier = is_outlier & (deviation > 0.0)
        start, stop = start + 1 - is_high, stop - is_high
        answer_start[live] = xp.where(is_outlier, start, xp.take(answer_start, lane, axis=0))
        answer_stop[live] = xp.where(is_outlier, stop, xp.take(answer_stop, lane, axis=0))
        goes_on = (allowed > step) & (stop - start > FEWEST) & (deviation > 0.0)
        live = narrow(xp, live, goes_on)
        chosen = xp.nonzero(goes_on)[0]
        lane, start, stop, count, allowed = (
            xp.take(vector, chosen, axis=0) for vector in (lane, start, stop, count, allowed)
        )
    return with_ties(xp, columns, Interval(answer_start, answer_stop))
