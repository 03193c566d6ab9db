"""The rule that fits a line to the sorted samples: for groups whose level drifts."""

from __future__ import annotations

from typing import NamedTuple

from zemosaic_stack_core._typing import Array, Namespace
from zemosaic_stack_core.columns import Columns, value_at

from .intervals import Interval, RuleInput, Step, narrow, repeat, with_ties

__all__ = ["linear_fit_clip"]


def linear_fit_clip(xp: Namespace, given: RuleInput) -> Interval:
    """Reject, from either end, the run of samples too far from the least-squares line of the sorted samples."""
    columns, options = given.columns, given.options

    def shrink(kept: Interval, lane: Array) -> Step:
        line = _fit_line(xp, columns, kept, lane)
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


def _fit_line(xp: Namespace, columns: Columns, kept: Interval, lane: Array) -> _Line:
    """Fit each pixel's kept samples on their ranks.

    With ranks counted from their mean, ``slope = sum(t*y) / sum(t*t)`` and ``sum(t*t) = n*(n*n - 1)/12``.
    """
    count = xp.astype(kept.stop - kept.start, xp.float64)
    middle = xp.astype(kept.start + kept.stop - 1, xp.float64) * 0.5
    pivot = value_at(xp, columns, (kept.start + kept.stop - 1) // 2, lane)
    total, moment, distance = xp.zeros_like(pivot), xp.zeros_like(pivot), xp.zeros_like(pivot)
    rows = []
    for rank in range(columns.frames):
        row = columns.values[rank * columns.pixels : (rank + 1) * columns.pixels]
        if lane.shape[0] < columns.pixels:
            row = xp.take(row, lane, axis=0)
        is_kept = xp.astype((kept.start <= rank) & (kept.stop > rank), xp.float64)
        d = (xp.astype(row, xp.float64) - pivot) * is_kept
        total = total + d
        moment = moment + d * (float(rank) - middle)
        rows.append((d, is_kept))
    slope = moment / (count * (count * count - 1.0) / 12.0)
    level = total / count - slope * middle
    for rank, (d, is_kept) in enumerate(rows):
        distance = distance + xp.abs(d - (level + slope * float(rank)) * is_kept)
    return _Line(level + pivot, slope, distance / count)


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
