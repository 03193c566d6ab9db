"""The rule that fits a line to the sorted samples: for groups whose level drifts."""

from __future__ import annotations

from typing import NamedTuple

from zemosaic_stack_core._typing import Array, Namespace
from zemosaic_stack_core.columns import Columns, IntervalSums, running_sums, value_at

from .intervals import Interval, RuleInput, Step, narrow, repeat, with_ties

__all__ = ["linear_fit_clip"]


def linear_fit_clip(xp: Namespace, given: RuleInput) -> Interval:
    """Reject, from either end, the run of samples too far from the least-squares line of the sorted samples."""
    columns, options, sums = given.columns, given.options, given.sums
    assert sums is not None  # noqa: S101 - the catalogue says that this rule uses sums
    moments = _rank_moments(xp, columns, sums.pivot)

    def shrink(kept: Interval, lane: Array) -> Step:
        line = _fit_line(xp, columns, sums, moments, kept, lane)
        start = _run(xp, columns, kept, lane, line, options.kappa_low, from_start=True)
        stop = _run(xp, columns, kept, lane, line, options.kappa_high, from_start=False)
        return Step(Interval(start, stop))

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


def _run(
    xp: Namespace, columns: Columns, kept: Interval, lane: Array, line: _Line, kappa: float, *, from_start: bool
) -> Array:
    """Give the end of the kept interval after the run of outlying samples there is taken off."""
    end = kept.start + 0 if from_start else kept.stop + 0
    live = xp.full_like(lane, 1) > 0
    chosen = xp.arange(lane.shape[0], dtype=xp.int64, device=lane.device)
    for _ in range(columns.frames):
        rank = xp.take(end, chosen, axis=0) - (0 if from_start else 1)
        level, slope, distance, pixel = (
            xp.take(vector, chosen, axis=0) for vector in (line.level, line.slope, line.distance, lane)
        )
        residual = value_at(xp, columns, rank, pixel) - (level + slope * xp.astype(rank, xp.float64))
        outlying = (residual < distance * -kappa) if from_start else (residual > distance * kappa)
        is_inside = (rank >= xp.take(kept.start, chosen, axis=0)) & (rank < xp.take(kept.stop, chosen, axis=0))
        moved = xp.astype(outlying & is_inside, xp.int64)
        end[live] = xp.take(end, chosen, axis=0) + (moved if from_start else -moved)
        live = narrow(xp, live, moved > 0)
        chosen = xp.nonzero(live)[0]
        if chosen.shape[0] == 0:
            break
    return end
