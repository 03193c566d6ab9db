"""The rule that fits a line to the sorted samples: for groups whose level drifts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from zemosaic_stack_core.kernel.ranks import Interval, Ranks
from zemosaic_stack_core.kernel.samples import Task
from zemosaic_stack_core.kernel.typing import Array, Namespace

# Kept samples that an iteration needs.
NEEDED = 5


def linear_fit_clip(xp: Namespace, ranks: Ranks, _: Task) -> Interval:
    """Reject, from either end, the run of samples too far from the least-squares line of the sorted samples."""

    def step(kept: Interval) -> tuple[Interval, Interval]:
        kept = _take_off_runs(xp, ranks, kept, _fit_line(xp, ranks, kept))
        return kept, kept

    limit = ranks.column.count("max_iterations")
    return ranks.with_ties(ranks.shrink(step, limit=limit, needed=NEEDED)[0])


class _Line(NamedTuple):
    """Line through sorted samples and their mean absolute distance from it, float64; `level` is that at the middle."""

    level: Array
    slope: Array
    distance: Array


def _fit_line(xp: Namespace, ranks: Ranks, kept: Interval) -> _Line:
    """Fit a line to the kept samples on their ranks.

    Let ``t`` be the rank from the middle and ``d = value - pivot``. Up to a rank, ``sum(t*d)`` is its
    ``(t - 1)*sum(d)`` less the sum of ``sum(d)`` up to each rank before (Abel). The slope is ``sum((t - mean t)*d)``
    over ``sum((t - mean t)^2)``, which is ``n*(n*n - 1)/12``.
    """
    middle = ranks.column.frames // 2
    below, above = ranks.sum_up_to(kept.start), ranks.sum_up_to(kept.stop)
    first, end = xp.astype(kept.start - middle, xp.float64), xp.astype(kept.stop - middle, xp.float64)
    moment = above * (end - 1.0) - ranks.sum_of_sums_up_to(kept.stop)
    moment = moment - (below * (first - 1.0) - ranks.sum_of_sums_up_to(kept.start))
    total = above - below
    count = end - first
    mean_rank = (first + end - 1.0) * 0.5
    # Fewer than two samples have no slope, and are left alone.
    divisor = xp.maximum(count * (count * count - 1.0) / 12.0, xp.full_like(count, 0.5))
    slope = (moment - total * mean_rank) / divisor
    level = total / count - slope * mean_rank + ranks.pivot
    return _Line(level, slope, _sum_of_distances(xp, ranks, kept, level, slope) / count)


def _sum_of_distances(xp: Namespace, ranks: Ranks, kept: Interval, level: Array, slope: Array) -> Array:
    """Sum the absolute distances of the kept samples from a line, from the middle rank outwards."""

    def walk(step: Array) -> Callable[[Array, Array, Sequence[Array]], list[Array]]:
        def add(rank: Array, sample: Array, carry: Sequence[Array]) -> list[Array]:
            distance, line = carry
            d = xp.abs(xp.astype(sample, xp.float64) - line)
            is_kept = (kept.start <= rank) & (kept.stop > rank)
            return [distance + xp.where(is_kept, d, xp.zeros_like(d)), line + step]

        return add

    column = ranks.column
    distance, _ = column.fold("above", [xp.zeros_like(level), level], walk(slope))
    return column.fold("below", [distance, level - slope], walk(-slope))[0]


def _take_off_runs(xp: Namespace, ranks: Ranks, kept: Interval, line: _Line) -> Interval:
    """Take the runs of samples too far from the line off both ends."""
    column, number = ranks.column, kept.stop - kept.start
    middle = column.frames // 2
    at_start = xp.astype(kept.start - middle, xp.float64) * line.slope + line.level
    at_end = xp.astype(kept.stop - 1 - middle, xp.float64) * line.slope + line.level
    lowest = at_start - line.distance * column.parameter("kappa_low")
    highest = at_end + line.distance * column.parameter("kappa_high")

    def is_low(run: Array) -> Array:
        return ranks.value(kept.start + run) < lowest + line.slope * xp.astype(run, xp.float64)

    def is_high(run: Array) -> Array:
        return ranks.value(kept.stop - 1 - run) > highest - line.slope * xp.astype(run, xp.float64)

    def run_of(is_out: Callable[[Array], Array]) -> Array:
        def walk(carry: Sequence[Array]) -> tuple[list[Array], Array]:
            run = carry[0] + 1
            return [run], (run < number) & is_out(run)

        zero = xp.zeros_like(number)
        return column.repeat(column.frames, [zero], is_out(zero), walk)[0]

    return Interval(kept.start + run_of(is_low), kept.stop - run_of(is_high))
