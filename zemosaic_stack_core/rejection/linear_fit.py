"""The rule that fits a line to the sorted samples: for groups whose level drifts."""

from __future__ import annotations

from typing import NamedTuple

from zemosaic_stack_core._typing import Array, Namespace
from zemosaic_stack_core.options import StackOptions
from zemosaic_stack_core.pixels.columns import Columns, IntervalSums, running_sums, value_at

from .intervals import Interval, RuleInput, Step, repeat, with_ties

__all__ = ["linear_fit_clip"]


def linear_fit_clip(xp: Namespace, given: RuleInput) -> Interval:
    """Reject, from either end, the run of samples too far from the least-squares line of the sorted samples."""
    columns, options, sums = given.columns, given.options, given.sums
    assert sums is not None  # noqa: S101 - the catalogue says that this rule uses sums
    moments = _rank_moments(xp, columns, sums.pivot)

    def shrink(kept: Interval, lane: Array) -> Step:
        line = _fit_line(xp, columns, sums, moments, kept, lane)
        return Step(_take_off_runs(xp, columns, kept, lane, line, options))

    kept = repeat(xp, columns, shrink, iterations=options.max_iterations, needed=5).kept
    return with_ties(xp, columns, kept)


class _Line(NamedTuple):
    """Line through sorted samples, ``level + slope * rank``, and their mean absolute distance from it, float64."""

    level: Array
    slope: Array
    distance: Array


def _rank_moments(xp: Namespace, columns: Columns, pivot: Array) -> Array:
    """Sum ``(value - pivot) * t`` from the middle rank outwards, ``t`` counted from there, as in `IntervalSums`."""
    table = xp.astype(xp.reshape(columns.values, (-1, columns.pixels)), xp.float64)
    table -= pivot
    rank = xp.reshape(xp.arange(columns.frames, dtype=xp.int64, device=pivot.device), (-1, 1))
    middle = columns.frames // 2
    table *= xp.astype(rank - middle, xp.float64)
    if not columns.is_complete:
        table *= xp.astype((columns.start <= rank) & (columns.stop > rank), xp.float64)
    sums = running_sums(table[:middle, ...], table[middle:, ...], xp.zeros_like(pivot), None)
    moments: Array = xp.concat(sums)
    return moments


def _fit_line(
    xp: Namespace, columns: Columns, sums: IntervalSums, moments: Array, kept: Interval, lane: Array
) -> _Line:
    """Fit each pixel's kept samples on their ranks.

    With ``t`` the rank from the mean of the kept ranks, ``slope = sum(t*y) / sum(t*t)``, where ``sum(t*t)`` is
    ``n*(n*n - 1)/12``.
    """
    pixels = columns.pixels
    count = xp.astype(kept.stop - kept.start, xp.float64)
    center = columns.frames // 2
    mean_rank = xp.astype(kept.start + kept.stop - 1, xp.float64) * 0.5 - float(center)
    total, _ = sums.over(xp, kept.start, kept.stop, lane)
    moment = xp.take(moments, kept.stop * pixels + lane, axis=0) - xp.take(moments, kept.start * pixels + lane, axis=0)
    slope = (moment - total * mean_rank) / (count * (count * count - 1.0) / 12.0)
    level = total / count - slope * mean_rank + xp.take(sums.pivot, lane, axis=0)
    distance = xp.zeros_like(slope)
    some = lane.shape[0] < pixels
    # Between the largest start and the smallest stop every pixel keeps its sample.
    inner = range(int(xp.max(kept.start)), int(xp.min(kept.stop)))
    for rank in range(int(xp.min(kept.start)), int(xp.max(kept.stop))):
        row = columns.values[rank * pixels : (rank + 1) * pixels]
        d = xp.astype(xp.take(row, lane, axis=0) if some else row, xp.float64)
        line = slope * float(rank - center)
        line += level
        d -= line
        d = xp.abs(d)
        if rank not in inner:
            d *= xp.astype((kept.start <= rank) & (kept.stop > rank), xp.float64)
        distance += d
    return _Line(level - slope * float(center), slope, distance / count)


def _take_off_runs(
    xp: Namespace, columns: Columns, kept: Interval, lane: Array, line: _Line, options: StackOptions
) -> Interval:
    """Take the runs of samples too far from the line off both ends.

    Both ends are walked in one vector, the upper one with all signs turned.
    """
    both = xp.concat([lane, lane])
    ones = xp.ones_like(line.level)
    sign = xp.concat([ones, -ones])
    step = xp.astype(sign, xp.int64)
    first, last = xp.concat([kept.start, kept.start]), xp.concat([kept.stop, kept.stop]) - 1
    slope = xp.concat([line.slope, -line.slope])
    limit = xp.concat(
        [line.level - line.distance * options.kappa_low, -line.level - line.distance * options.kappa_high]
    )
    rank = xp.concat([kept.start, kept.stop - 1])
    while True:
        probe = xp.minimum(xp.maximum(rank, first), last)
        value = value_at(xp, columns, probe, both) * sign
        is_outside = (value < limit + slope * xp.astype(rank, xp.float64)) & (probe == rank)
        if not xp.any(is_outside):
            break
        rank = rank + xp.astype(is_outside, xp.int64) * step
    number = lane.shape[0]
    return Interval(rank[:number], rank[number:] + 1)
