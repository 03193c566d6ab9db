"""Let a rule act on the pixels gathered from strips, and combine again what it kept."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from zemosaic_stack_core.kernel.columns import (
    Columns,
    CoreSums,
    chosen_columns,
    columns_of,
    interval_sums,
    median_of,
    window_columns,
)
from zemosaic_stack_core.kernel.combination import Answer, Chosen
from zemosaic_stack_core.kernel.places import Places, places_of
from zemosaic_stack_core.kernel.rules import Rule
from zemosaic_stack_core.kernel.rules.intervals import Interval, RuleInput
from zemosaic_stack_core.kernel.samples import Samples, find_present, normalized, number_true, part_of
from zemosaic_stack_core.kernel.strips import Strip, Task, joined
from zemosaic_stack_core.kernel.typing import Array, Namespace

#: Where more than one in so many pixels loses a sample, the frames' losses are counted over all pixels.
FEW_REJECTING = 4


class Rejection(NamedTuple):
    """The pixels where something is rejected, and their new answer; and those that were peeled too deep, or None.

    `low` and `high` are their smallest and largest kept samples.
    """

    deep: Array | None
    places: Places
    low: Array
    high: Array
    answer: Answer
    rejected_low: Array
    rejected_high: Array
    frame_rejected_low: Array
    frame_rejected_high: Array


def reject(xp: Namespace, samples: Samples, task: Task, rule: Rule, strips: Sequence[Strip]) -> Rejection | None:
    """Apply the rule to the candidates of all strips; None where it rejects nothing."""
    columns, pivot, core = _candidates_of(xp, task, strips, len(samples.values))
    if columns.pixels == 0:
        return None
    sums = None
    needs_sums = (task.variance and not task.propagates) or not task.accumulates
    if rule.uses_sums or (needs_sums and columns.windows is not None):
        sums = interval_sums(xp, columns, pivot, core, squares=task.squares)
    kept = rule.shrink(xp, RuleInput(columns, task.options, sums, task.critical_values))
    has_rejected = (kept.start > columns.start) | (kept.stop < columns.stop)
    deep = columns.are_deep(*kept)
    if deep is not None:
        has_rejected = has_rejected & ~deep
    lane = xp.nonzero(has_rejected)[0]
    if lane.shape[0] == 0 and deep is None:
        return None
    pixels, mask = lane, has_rejected
    if any(strip.candidates is not None for strip in strips):
        index, candidates = _places_of_candidates(xp, strips)
        pixels = xp.take(index, lane, axis=0)
        mask = candidates.put(xp, has_rejected, xp.zeros_like(candidates.mask))
        deep = None if deep is None else candidates.put(xp, deep, xp.zeros_like(candidates.mask))
    places = places_of(xp, mask)
    start, stop = columns.start, columns.stop
    if lane.shape[0] < columns.pixels:
        kept = Interval(xp.take(kept.start, lane, axis=0), xp.take(kept.stop, lane, axis=0))
        start, stop = xp.take(start, lane, axis=0), xp.take(stop, lane, axis=0)
        pivot = xp.take(pivot, lane, axis=0)
    if sums is None and needs_sums:
        columns = chosen_columns(xp, columns, lane)
        lane = columns.lane
        sums = interval_sums(xp, columns, pivot, squares=task.squares)
    low = xp.take(columns.values, kept.start * columns.pixels + lane, axis=0)
    high = xp.take(columns.values, (kept.stop - 1 - columns.upper) * columns.pixels + lane, axis=0)
    median = median_of(xp, columns, kept.start, kept.stop, lane)
    first, second = (median, None) if sums is None else sums.over(xp, kept.start, kept.stop, lane)
    chosen = Chosen(median, low, high, pivot, first, second)

    coverage = xp.astype(kept.stop - kept.start, xp.int32)
    if columns.is_complete and not task.accumulates and lane.shape[0] * FEW_REJECTING > mask.shape[0]:
        # With so many, comparing every pixel is faster than gathering those. Elsewhere no sample is out of bounds.
        highest = xp.full_like(mask, float("inf"), dtype=xp.float32)
        lowest = -highest
        highest, lowest = places.put(xp, high, highest), places.put(xp, low, lowest)
        rows = (normalized(xp, samples, frame, values) for frame, values in enumerate(samples.values))
        below, above, _ = _split(xp, rows, [None] * len(samples.values), lowest, highest, keeps_masks=False)
        accumulated = None
    else:
        if pixels.shape[0] < mask.shape[0]:
            samples = part_of(samples, pixels, xp)
        present, _ = find_present(xp, samples, is_careful=True)
        below, above, masks = _split(xp, present.rows, present.masks, low, high, keeps_masks=task.accumulates)
        accumulated = task.accumulate(xp, samples, present._replace(masks=masks)) if task.accumulates else None
    answer = task.combine(xp, coverage, chosen, accumulated)
    n_low, n_high = xp.astype(kept.start - start, xp.int32), xp.astype(stop - kept.stop, xp.int32)
    return Rejection(deep, places, low, high, answer, n_low, n_high, below, above)


def _places_of_candidates(xp: Namespace, strips: Sequence[Strip]) -> tuple[Array, Places]:
    """Give the candidates' indices among the pixels of all strips, and their places."""
    indices, masks = [], []
    first = 0
    for strip in strips:
        coverage = strip.answer.coverage
        pixels = coverage.shape[0]
        if strip.candidates is None or strip.places is None:
            indices.append(xp.arange(first, first + pixels, dtype=xp.int64, device=coverage.device))
            masks.append(xp.ones_like(coverage, dtype=xp.bool))
        else:
            indices.append(strip.places + first)
            masks.append(strip.candidates)
        first += pixels
    return joined(xp, indices), places_of(xp, joined(xp, masks))


def _candidates_of(
    xp: Namespace, task: Task, strips: Sequence[Strip], frames: int
) -> tuple[Columns, Array, CoreSums | None]:
    """Put the strips' candidates side by side: their columns, pivots and core sums."""
    table = joined(xp, [strip.table for strip in strips])
    pivot = joined(xp, [strip.pivot for strip in strips])
    windows = task.windows(frames)
    if windows is not None:
        core = CoreSums(*(joined(xp, parts) for parts in zip(*(strip.core for strip in strips), strict=True)))
        return window_columns(xp, table, frames, windows), pivot, core
    count = None
    if any(strip.counts is not None for strip in strips):
        count = xp.astype(
            joined(
                xp,
                [
                    xp.full_like(strip.pivot, frames, dtype=xp.int32) if strip.counts is None else strip.counts
                    for strip in strips
                ],
            ),
            xp.int64,
        )
    return columns_of(xp, table, count), pivot, None


def _split(
    xp: Namespace,
    rows: Iterable[Array],
    masks: Sequence[Array | None],
    low: Array,
    high: Array,
    *,
    keeps_masks: bool,
) -> tuple[Array, Array, list[Array | None]]:
    """Count each frame's samples below and above the kept ones, and give masks of the kept ones where wanted."""
    below, above = [], []
    kept: list[Array | None] = []
    for row, mask in zip(rows, masks, strict=True):
        is_below, is_above = row < low, row > high
        if mask is not None:
            is_below, is_above = is_below & mask, is_above & mask
        below.append(number_true(xp, is_below))
        above.append(number_true(xp, is_above))
        if keeps_masks:
            is_kept = ~(is_below | is_above)
            kept.append(is_kept if mask is None else is_kept & mask)
    return xp.stack(below), xp.stack(above), kept
