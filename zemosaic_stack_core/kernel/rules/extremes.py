"""Rules that take the extreme samples off, by number or by test, or none."""

from __future__ import annotations

from collections.abc import Sequence

from zemosaic_stack_core.kernel.ranks import Interval, Ranks
from zemosaic_stack_core.kernel.samples import Task
from zemosaic_stack_core.kernel.typing import Array, Namespace

# `gesd` leaves at least so many samples: of fewer, the deviate tested is the same for any samples.
FEWEST = 3


def none(xp: Namespace, ranks: Ranks, _: Task) -> Interval:
    """Reject nothing."""
    del xp
    return ranks.present


def minmax(xp: Namespace, ranks: Ranks, _: Task) -> Interval:
    """Reject the smallest and the largest samples, a fixed number of each."""
    start, stop = ranks.present
    n_low, n_high = ranks.column.count("n_low"), ranks.column.count("n_high")
    enough = xp.astype(stop - start > n_low + n_high, xp.int32)
    return ranks.with_ties(Interval(start + enough * n_low, stop - enough * n_high))


def gesd(xp: Namespace, ranks: Ranks, _: Task) -> Interval:
    """Reject by Rosner's generalised extreme studentised deviate test.

    The table ``critical_values`` has that of the ``i``-th outlier (from 1) among ``n`` samples at
    ``n * (most + 1) + i``, where ``most`` is the most outliers that any pixel may have.
    """
    column, present = ranks.column, ranks.present
    critical_values, most = column.table("critical_values"), column.count("most")
    count = present.stop - present.start
    row = count * (most + 1)
    allowed = xp.floor(xp.astype(count, xp.float64) * column.parameter("outlier_fraction"))
    # No deviate of n samples comes up to the root of n: where no test can be made, this is as good as infinity.
    impossible = xp.astype(column.frames, xp.float64)
    one = xp.ones_like(count)

    def test(carry: Sequence[Array]) -> tuple[list[Array], Array]:
        step, start, stop, answer_start, answer_stop = carry
        kept = Interval(start, stop)
        left = ranks.number(kept)
        mean = ranks.pivot + ranks.total(kept) / left
        deviation = ranks.deviation(kept, 1)
        below, above = mean - ranks.value(start), ranks.value(stop - 1) - mean
        critical = xp.minimum(xp.take(critical_values, row + step), impossible)
        # R_i > lambda_i, multiplied out: a deviation of zero is never an outlier's.
        is_outlier = xp.maximum(below, above) > critical * deviation
        has_spread = deviation > 0.0
        is_high = has_spread & (above >= below)
        start = start + xp.astype(has_spread & ~is_high, xp.int32)
        stop = stop - xp.astype(is_high, xp.int32)
        is_outlier = is_outlier & has_spread
        answer = xp.where(is_outlier, start, answer_start), xp.where(is_outlier, stop, answer_stop)
        goes_on = has_spread & (allowed > xp.astype(step, xp.float64)) & (stop - start > FEWEST)
        return [step + 1, start, stop, *answer], goes_on

    # Every outlier up to `allowed` is tested: the last that is one counts, whatever those before it were.
    live = (allowed >= 1.0) & (count > FEWEST)
    rows = column.repeat(most, [one, *present, *present], live, test)
    return ranks.with_ties(Interval(rows[3], rows[4]))
