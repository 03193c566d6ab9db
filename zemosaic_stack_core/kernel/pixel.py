"""What happens to one pixel: the function that is traced, or run on arrays as it stands."""

from __future__ import annotations

from collections.abc import Sequence

from zemosaic_stack_core.kernel.combination import Moments, add_up, combine
from zemosaic_stack_core.kernel.ranks import LARGEST, Interval, Ranks
from zemosaic_stack_core.kernel.rules import RULES
from zemosaic_stack_core.kernel.samples import Task, sample_of
from zemosaic_stack_core.kernel.typing import Array, Column, Frame, Namespace
from zemosaic_stack_core.options import WEIGHTED_COMBINATIONS


def stack_pixel(xp: Namespace, column: Column, task: Task) -> dict[str, Array]:
    """Reject and combine the samples of a pixel; count each frame's ``missing``, ``rejected_low``, ``rejected_high``.

    Returns ``image`` (float32, NaN where nothing is combined), ``coverage``, ``rejected_low``, ``rejected_high``
    (int32), and what else the task wants: ``weight_map``, ``variance``, ``low`` and ``high`` (float32: the smallest
    and the largest kept sample, NaN without any); ``kept_low`` and ``kept_high`` (float32): present samples below the
    one or above the other were rejected, and no others.
    """
    if not task.sorts:
        sums = add_up(xp, column, task, None, counts=True)
        coverage = xp.astype(sums.number, xp.int32)
        return _with_counts(column, combine(xp, task, coverage, None, sums), coverage, task)
    ranks = _sorted(xp, column, task)
    rule = RULES[task.rule]
    needs_sums = task.is_empirical or (task.combine in WEIGHTED_COMBINATIONS and not task.accumulates)
    if needs_sums or rule.uses_sums:
        ranks.add_up(squares=task.is_empirical or rule.uses_squares, sums_of_sums=rule.uses_sums_of_sums)
    present = ranks.present
    kept = rule.shrink(xp, ranks, task)
    low, high = ranks.sample(kept.start), ranks.sample(kept.stop - 1)
    has_rejected = (kept.start > present.start) | (kept.stop < present.stop)
    kept_low = xp.where(has_rejected, low, xp.full_like(low, -float("inf")))
    kept_high = xp.where(has_rejected, high, xp.full_like(high, float("inf")))
    column.when(has_rejected, lambda: _count_rejected(xp, column, task, kept_low, kept_high))
    coverage = kept.stop - kept.start
    first = ranks.total(kept) if needs_sums else None
    second = ranks.sums(kept)[1] if task.is_empirical else None
    moments = Moments(ranks.median(kept), low, high, ranks.pivot, first, second)
    added = add_up(xp, column, task, (kept_low, kept_high), counts=False) if task.accumulates else None
    results = combine(xp, task, coverage, moments, added)
    results |= {
        "coverage": coverage,
        "rejected_low": kept.start - present.start,
        "rejected_high": present.stop - kept.stop,
    }
    if task.extremes:
        nothing = xp.full_like(low, float("nan"))
        results |= {"low": xp.where(coverage > 0, low, nothing), "high": xp.where(coverage > 0, high, nothing)}
    return results | ({"kept_low": kept_low, "kept_high": kept_high} if task.bounds else {})


def _sorted(xp: Namespace, column: Column, task: Task) -> Ranks:
    """Sort the present samples; of the missing ones half stand below them and half above."""
    frames = column.frames
    is_odd = frames - frames // 2 * 2 > 0
    largest = column.full(LARGEST, "f32")

    def step(frame: Frame, carry: Sequence[Array]) -> tuple[Array, list[Array]]:
        filler, number = carry
        sample, is_there = sample_of(xp, frame, task)
        frame.tally("missing", ~is_there)
        # A negative zero becomes a positive one: which of two zeros is smaller, no two libraries agree on.
        placed = xp.where(is_there, sample + 0.0, filler)
        return placed, [xp.where(is_there, filler, -filler), number + xp.astype(is_there, xp.int32)]

    _, number = column.load([xp.where(is_odd, largest, -largest), column.full(0, "i32")], step)
    column.sort()
    start = frames // 2 - number // 2
    return Ranks(xp, column, Interval(start, start + number))


def _count_rejected(xp: Namespace, column: Column, task: Task, low: Array, high: Array) -> None:
    """Count each frame's present samples below and above the kept ones."""

    def step(frame: Frame, carry: Sequence[Array]) -> list[Array]:
        sample, is_there = sample_of(xp, frame, task)
        frame.tally("rejected_low", is_there & (sample < low))
        frame.tally("rejected_high", is_there & (sample > high))
        return list(carry)

    column.visit([], step)


def _with_counts(column: Column, results: dict[str, Array], coverage: Array, task: Task) -> dict[str, Array]:
    """Return the results of a task that rejects nothing with its counts."""
    nothing = column.full(0, "i32")
    results |= {"coverage": coverage, "rejected_low": nothing, "rejected_high": nothing}
    if task.bounds:
        high = column.full(float("inf"), "f32")
        results |= {"kept_low": -high, "kept_high": high}
    return results
