"""THE kernel: samples of one chunk and channel in, combined values and counts out.

There is one, for every backend: `xp` is an array API namespace, and nothing here knows which. What makes the answer
the same to the last bit everywhere is what it is made of: element by element ``+ - * / sqrt``, comparisons, minimum,
maximum, sorting, gathers and exact integer sums, one operation a call, over the frames in a fixed order.

The order of work:

1. normalize; put the largest float32 where a sample is missing; count what is present;
2. sort over the frame axis; the median is an exact order statistic;
3. accumulate ``d = x - median`` and ``d*d`` in float64, and combine all present samples;
4. bounds from those: pixels with no sample outside them, most of them, are done;
5. gather the others, let the rule shrink their kept interval, and combine again what it kept.

Steps 1 to 4 go over a chunk strip by strip, so that a strip's rows stay in the processor's cache. Step 5 is made of
many small calls, so it waits until the strips have gathered about a strip of pixels.

Where few samples of a strip are missing, nobody looks for them: a pixel that has one shows it, because its sum is not
finite. Such pixels, and those that a rule peels deeper than was gathered, are stacked again on their own, with
everything looked at. That changes no bit: what a pixel gives depends on its present samples alone.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import NamedTuple

from ._typing import Array, Namespace
from .columns import (
    LARGEST,
    Columns,
    CoreSums,
    chosen_columns,
    columns_of,
    gather_windows,
    interval_sums,
    median_of,
    window_columns,
    windows_of,
)
from .combination import Accumulated, Answer, Chosen, Weight, accumulate, combine
from .options import StackOptions
from .rejection import RULES, FirstLook, Interval, Rule, RuleInput
from .rejection.intervals import standard_deviation
from .sorting import sort_frames

__all__ = ["ChunkResult", "Samples", "stack_chunk"]


class Samples(NamedTuple):
    """The samples of one chunk and one channel, one entry per frame.

    Parameters
    ----------
    values : sequence of arrays of shape (pixel,), any real dtype
        Samples in input units.
    masks : sequence of (bool array of shape (pixel,) or None), or None
        True where a sample is missing.
    has_missing : sequence of bool, or None
        Whether any of a frame's samples may be missing (not finite, masked, of zero weight, or out of float32's
        range once normalized); None where nobody looked. A wrong False gives a wrong answer, a wrong True costs time.
    scale, offset : sequence of float, or None
        Normalization, float32 values; None where none is asked for.
    weights : sequence of (float or float32 array of shape (pixel,)), or None
        Weights, float32 values; None for equal weights.
    variances : sequence of float32 arrays of shape (pixel,), or None
        Variances of the samples as read, input units squared.
    """

    values: Sequence[Array]
    masks: Sequence[Array | None] | None = None
    has_missing: Sequence[bool] | None = None
    scale: Sequence[float] | None = None
    offset: Sequence[float] | None = None
    weights: Sequence[Weight] | None = None
    variances: Sequence[Array] | None = None


class ChunkResult(NamedTuple):
    """What a chunk gives: arrays of shape (pixel,), and counts of shape (frame,), int64.

    `image` float32, NaN where `coverage` is 0; `coverage`, `rejected_low`, `rejected_high` int32; `weight_map` and
    `variance` float32, None unless asked for.
    """

    image: Array
    coverage: Array
    rejected_low: Array
    rejected_high: Array
    weight_map: Array | None
    variance: Array | None
    frame_rejected_low: Array
    frame_rejected_high: Array
    frame_missing: Array


#: The first so many fields of a `ChunkResult` have a value per pixel, the others one per frame.
PER_PIXEL = 6
#: Where fewer than one in so many pixels can have a missing sample, it pays to stack those pixels again.
FEW_INCOMPLETE = 4
#: Where more than one in so many pixels loses a sample, the frames' losses are counted over all pixels.
FEW_REJECTING = 4


class _Present(NamedTuple):
    """Normalized samples, `LARGEST` where missing; where they are present and how many (None: all, everywhere).

    `may_miss`: some of all those samples are missing after all, and NaN.
    """

    rows: list[Array]
    masks: list[Array | None]
    count: Array | None
    may_miss: bool = False


class _Task(NamedTuple):
    """What has to be done, from the options and the maps; `is_careful`: look for missing samples, gather everything."""

    options: StackOptions
    rule: Rule | None
    weight_map: bool
    variance: bool
    accumulates: bool
    propagates: bool
    critical_values: Array | None
    step: int
    is_careful: bool = False

    @property
    def sorts(self) -> bool:
        """Whether anything needs the samples in order."""
        return self.rule is not None or self.options.combine != "mean" or (self.variance and not self.propagates)

    @property
    def squares(self) -> bool:
        """Whether anything needs the sum of squares of all present samples."""
        is_empirical = self.variance and not self.propagates
        return is_empirical or (self.rule is not None and self.rule.uses_deviation)

    def accumulate(self, xp: Namespace, samples: Samples, present: _Present) -> Accumulated:
        """Sum the samples that `present` tells of."""
        return accumulate(xp, present.rows, present.masks, samples.weights, samples.variances, samples.scale)

    def combine(
        self, xp: Namespace, coverage: Array, chosen: Chosen | None, accumulated: Accumulated | None
    ) -> Answer:
        """Combine samples from their order statistics, moments and sums."""
        return combine(
            xp, self.options.combine, coverage, chosen, accumulated, weight_map=self.weight_map, variance=self.variance
        )


class _Strip(NamedTuple):
    """A strip with nothing rejected, and what the rule must look at: which pixels, their sorted samples and pivots.

    `candidates` is None for all pixels; `incomplete` tells the pixels to be stacked again, None for none.
    """

    answer: Answer
    missing: Array
    incomplete: Array | None = None
    candidates: Array | None = None
    table: Array | None = None
    count: Array | None = None
    pivot: Array | None = None
    core: CoreSums | None = None

    @property
    def gathered(self) -> int:
        """Number of pixels that the rule must look at."""
        return 0 if self.table is None else self.table.shape[1]


class _Rejection(NamedTuple):
    """The pixels where something is rejected, and their new answer; and those that were peeled too deep, or None."""

    deep: Array | None
    mask: Array
    answer: Answer
    rejected_low: Array
    rejected_high: Array
    frame_rejected_low: Array
    frame_rejected_high: Array


def stack_chunk(
    xp: Namespace,
    samples: Samples,
    options: StackOptions,
    *,
    maps: Collection[str] = (),
    critical_values: Array | None = None,
    strip_pixels: int | None = None,
) -> ChunkResult:
    """Reject and combine the samples of one chunk of one channel.

    Parameters
    ----------
    xp : namespace
        Array API namespace of the samples.
    samples : Samples
        At least one frame; none is written to.
    options : StackOptions
        Rule and combination; normalization and weighting have become numbers in `samples` by now.
    maps : collection of str
        ``"weight_map"`` and ``"variance"`` where they are wanted; the other maps come with every answer.
    critical_values : array, or None
        Critical values of ``gesd``, see `rejection.extremes.gesd`.
    strip_pixels : int, or None
        Pixels handled at once in steps 1 to 4, for the cache's sake; None for the whole chunk.

    Returns
    -------
    ChunkResult
        The same bits whatever the size of the chunk or the strip and whichever the namespace.
    """
    variance = "variance" in maps
    propagates = variance and samples.variances is not None
    task = _Task(
        options=options,
        rule=RULES.get(options.rejection),
        weight_map="weight_map" in maps,
        variance=variance,
        accumulates=samples.weights is not None or propagates,
        propagates=propagates,
        critical_values=critical_values,
        step=strip_pixels or samples.values[0].shape[0],
    )
    return _stack(xp, samples, task)


def _stack(xp: Namespace, samples: Samples, task: _Task) -> ChunkResult:
    """Stack strip by strip; let the rule act when enough pixels are gathered."""
    pixels = samples.values[0].shape[0]
    results: list[ChunkResult] = []
    strips: list[_Strip] = []
    first = gathered = 0
    for start in range(0, pixels, task.step):
        stop = min(start + task.step, pixels)
        strip = _stack_strip(xp, _part(samples, slice(start, stop)), task)
        if strips and (strip.core is None) != (strips[0].core is None):  # windows and full tables don't mix
            results.append(_finish(xp, _part(samples, slice(first, start)), task, strips))
            first, gathered, strips = start, 0, []
        strips.append(strip)
        gathered += strip.gathered
        if gathered >= task.step or stop == pixels:
            results.append(_finish(xp, _part(samples, slice(first, stop)), task, strips))
            first, gathered, strips = stop, 0, []
    if len(results) == 1:
        return results[0]
    columns = list(zip(*results, strict=True))
    return ChunkResult(*(_joined(xp, parts) for parts in columns[:PER_PIXEL]), *map(_total, columns[PER_PIXEL:]))


def _finish(xp: Namespace, samples: Samples, task: _Task, strips: Sequence[_Strip]) -> ChunkResult:
    """Put strips together and let the rule act on them; `samples` are those of the strips."""
    answer = Answer(*(_joined(xp, parts) for parts in zip(*(strip.answer for strip in strips), strict=True)))
    missing = _total([strip.missing for strip in strips])
    rejected_low, rejected_high = xp.zeros_like(answer.coverage), xp.zeros_like(answer.coverage)
    frame_low, frame_high = xp.zeros_like(missing), xp.zeros_like(missing)
    again = None
    if any(strip.incomplete is not None for strip in strips):
        again = _joined(
            xp,
            [
                xp.zeros_like(strip.answer.coverage, dtype=xp.bool) if strip.incomplete is None else strip.incomplete
                for strip in strips
            ],
        )
    rejection = None if task.rule is None else _reject(xp, samples, task, task.rule, strips)
    if rejection is not None:
        rejected_low[rejection.mask] = rejection.rejected_low
        rejected_high[rejection.mask] = rejection.rejected_high
        for whole, part in zip(answer, rejection.answer, strict=True):
            if whole is not None:
                whole[rejection.mask] = part
        frame_low, frame_high = rejection.frame_rejected_low, rejection.frame_rejected_high
        if rejection.deep is not None:
            again = rejection.deep if again is None else again | rejection.deep
    image, coverage, weights, spread = answer
    result = ChunkResult(
        image, coverage, rejected_low, rejected_high, weights, spread, frame_low, frame_high, frame_missing=missing
    )
    return result if again is None else _stack_again(xp, samples, task, result, again)


def _stack_again(xp: Namespace, samples: Samples, task: _Task, result: ChunkResult, again: Array) -> ChunkResult:
    """Stack some pixels on their own, with everything looked at, and put them in their places."""
    pixels = xp.nonzero(again)[0]
    if pixels.shape[0] == 0:
        return result
    part = _stack(xp, _part(samples, pixels, xp), task._replace(is_careful=True))
    for whole, values in zip(result[:PER_PIXEL], part[:PER_PIXEL], strict=True):
        if whole is not None:
            whole[again] = values
    counts = [whole + more for whole, more in zip(result[PER_PIXEL:], part[PER_PIXEL:], strict=True)]
    return ChunkResult(*result[:PER_PIXEL], *counts)


# --- all present samples ------------------------------------------------------------------------------------------


def _stack_strip(xp: Namespace, samples: Samples, task: _Task) -> _Strip:
    """Combine all present samples of a strip, and find the pixels that the rule must look at."""
    present, missing = _find_present(xp, samples, is_careful=task.is_careful)
    first_row = present.rows[0]
    frames = len(present.rows)
    count = xp.full_like(first_row, frames, dtype=xp.int32) if present.count is None else present.count
    if not task.sorts:
        accumulated = task.accumulate(xp, samples, present)
        incomplete = ~xp.isfinite(accumulated.value) if present.may_miss else None
        return _Strip(task.combine(xp, count, None, accumulated), missing, incomplete)
    ranks = sort_frames(xp, present.rows)
    window = None
    if task.rule is not None and task.rule.first_bounds is not None and not task.is_careful and present.count is None:
        window = windows_of(frames)
    chosen, core = _look(xp, ranks, present, squares=task.squares, window=window)
    incomplete = ~xp.isfinite(chosen.first) if present.may_miss else None
    accumulated = task.accumulate(xp, samples, present) if task.accumulates else None
    answer = task.combine(xp, count, chosen, accumulated)
    if task.rule is None:
        return _Strip(answer, missing, incomplete)
    if task.rule.first_bounds is None and incomplete is None:
        return _Strip(answer, missing, None, None, xp.stack(ranks), present.count, chosen.pivot)
    if task.rule.first_bounds is None:
        candidates = ~incomplete
    else:
        candidates = _find_candidates(xp, task.rule.first_bounds, task.options, count, chosen)
        if incomplete is not None:
            candidates = candidates & ~incomplete
    lane = xp.nonzero(candidates)[0]
    if window is None:
        table = xp.stack([xp.take(row, lane, axis=0) for row in ranks])
    else:
        table = gather_windows(xp, ranks, window, lane)
    return _Strip(
        answer,
        missing,
        incomplete,
        candidates,
        table,
        None if present.count is None else xp.take(present.count, lane, axis=0),
        xp.take(chosen.pivot, lane, axis=0),
        None if core is None else CoreSums(*(xp.take(sums, lane, axis=0) for sums in core)),
    )


def _normalized(xp: Namespace, samples: Samples, frame: int, values: Array) -> Array:
    """Give a frame's values as float32, times its scale, plus its offset: two rounded operations."""
    row: Array = values if values.dtype == xp.float32 else xp.astype(values, xp.float32)
    if samples.scale is None or samples.offset is None:
        return row
    row = row * samples.scale[frame]
    return row + samples.offset[frame]


def _find_present(xp: Namespace, samples: Samples, *, is_careful: bool) -> tuple[_Present, Array]:
    """Normalize, and tell present samples from missing ones; count the missing ones of each frame where all is told.

    Where hardly a pixel can be incomplete, and not `is_careful`, missing samples are left in their places as NaN.
    """
    rows: list[Array] = []
    masks: list[Array | None] = []
    for frame, values in enumerate(samples.values):
        row = _normalized(xp, samples, frame, values)
        is_present = None
        if samples.has_missing is None or samples.has_missing[frame]:
            is_present = xp.isfinite(row)
            mask = None if samples.masks is None else samples.masks[frame]
            if mask is not None:
                is_present = is_present & ~mask
            weight = None if samples.weights is None else samples.weights[frame]
            if weight is not None and not isinstance(weight, float):
                is_present = is_present & (weight > 0.0)
        rows.append(row)
        masks.append(is_present)
    first_row = rows[0]
    pixels = first_row.shape[0]
    none = xp.zeros((), dtype=xp.int64, device=first_row.device)
    missing = xp.stack(
        [none if mask is None else pixels - xp.astype(xp.count_nonzero(mask), xp.int64) for mask in masks]
    )
    if all(mask is None for mask in masks):
        return _Present(rows, masks, None), missing
    if not is_careful and int(xp.sum(missing)) * FEW_INCOMPLETE < pixels:
        nothing = xp.full_like(first_row, float("nan"))
        is_plain = samples.masks is None and samples.weights is None
        rows = [
            row if mask is None or is_plain else xp.where(mask, row, nothing)
            for row, mask in zip(rows, masks, strict=True)
        ]
        return _Present(rows, [None] * len(rows), None, may_miss=True), xp.zeros_like(missing)
    # Half of a pixel's missing samples sort below the present ones and half above: see `Columns`.
    filler = xp.full_like(first_row, LARGEST if len(rows) % 2 else -LARGEST)
    count = xp.full_like(first_row, sum(mask is None for mask in masks), dtype=xp.int32)
    for frame, mask in enumerate(masks):
        if mask is not None:
            rows[frame] = xp.where(mask, rows[frame], filler)
            filler = xp.where(mask, filler, -filler)
            count += xp.astype(mask, xp.int32)
    return _Present(rows, masks, count), missing


def _look(
    xp: Namespace, ranks: Sequence[Array], present: _Present, *, squares: bool, window: int | None
) -> tuple[Chosen, CoreSums | None]:
    """Take order statistics and moments of all present samples; the pivot is the lower median.

    The moments are summed from the middle rank outwards, as `interval_sums` does; where windows are gathered, the
    sums out to them are given too.
    """
    frames = len(ranks)
    middle = frames // 2
    smallest, largest, lower, upper = ranks[0], ranks[-1], ranks[(frames - 1) // 2], ranks[middle]
    filled = range(frames)  # ranks that every pixel fills
    start = stop = None
    if present.count is not None:
        complete = sum(mask is None for mask in present.masks)
        filled = range(middle - complete // 2, middle - complete // 2 + complete)
        count = xp.astype(present.count, xp.int64)
        start = middle - count // 2
        stop = start + count
        pixels = smallest.shape[0]
        lane = xp.arange(pixels, dtype=xp.int64, device=smallest.device)
        flat = xp.reshape(xp.stack(list(ranks)), (-1,))
        last = xp.clip(stop - 1, 0, frames - 1)
        smallest = xp.take(flat, xp.minimum(start, last) * pixels + lane, axis=0)
        largest = xp.take(flat, last * pixels + lane, axis=0)
        lower = xp.take(flat, (start + last) // 2 * pixels + lane, axis=0)
        upper = xp.take(flat, xp.clip((start + stop) // 2, 0, frames - 1) * pixels + lane, axis=0)
    pivot = xp.astype(lower, xp.float64)
    median = (pivot + xp.astype(upper, xp.float64)) * 0.5
    sums = [xp.zeros_like(pivot) for _ in range(4 if squares else 2)]
    core: list[Array] = []
    outwards = (range(middle - 1, -1, -1), range(middle, frames))
    for side, order in enumerate(outwards):
        first = sums[side]
        second = sums[2 + side] if squares else None
        for rank in order:
            if window is not None and rank in (window - 1, frames - window):
                core += [first + 0.0, first if second is None else second + 0.0]
            d = xp.astype(ranks[rank], xp.float64)
            d -= pivot
            if rank not in filled:
                d *= xp.astype((start <= rank) & (stop > rank), xp.float64)
            if side == 0:
                first -= d
            else:
                first += d
            if second is not None:
                d *= d
                if side == 0:
                    second -= d
                else:
                    second += d
        sums[side] = first
        if second is not None:
            sums[2 + side] = second
    first = sums[1] - sums[0]
    second = sums[3] - sums[2] if squares else None
    return Chosen(median, smallest, largest, pivot, first, second), CoreSums(*core) if core else None


def _find_candidates(
    xp: Namespace,
    first_bounds: Callable[[Namespace, FirstLook, StackOptions], tuple[Array, Array]],
    options: StackOptions,
    count: Array,
    chosen: Chosen,
) -> Array:
    """Tell the pixels that have a sample outside the rule's first bounds: a bool array."""
    number = xp.astype(xp.maximum(count, xp.ones_like(count)), xp.float64)
    deviation = None
    if chosen.second is not None:
        deviation = standard_deviation(xp, chosen.first, chosen.second, number, 0)
    look = FirstLook(chosen.median, chosen.pivot + chosen.first / number, deviation)
    low, high = first_bounds(xp, look, options)
    is_outside = (xp.astype(chosen.smallest, xp.float64) < low) | (xp.astype(chosen.largest, xp.float64) > high)
    candidates: Array = is_outside & (count > 0)
    return candidates


# --- what is rejected ---------------------------------------------------------------------------------------------


def _reject(
    xp: Namespace, samples: Samples, task: _Task, rule: Rule, strips: Sequence[_Strip]
) -> _Rejection | None:
    """Apply the rule to the candidates of all strips; None where it rejects nothing."""
    columns, pivot, core, candidates = _candidates_of(xp, strips, len(samples.values))
    if columns.pixels == 0:
        return None
    sums = None
    needs_sums = (task.variance and not task.propagates) or not task.accumulates
    if rule.uses_sums or (needs_sums and columns.window is not None):
        sums = interval_sums(xp, columns, pivot, core)
    kept = rule.shrink(xp, RuleInput(columns, task.options, sums, task.critical_values))
    has_rejected = (kept.start > columns.start) | (kept.stop < columns.stop)
    deep = None
    if columns.window is not None:
        is_deep = (kept.start >= columns.window) | (kept.stop <= columns.frames - columns.window)
        has_rejected = has_rejected & ~is_deep
        deep = is_deep if candidates is None else _scattered(xp, candidates, is_deep)
    mask = has_rejected if candidates is None else _scattered(xp, candidates, has_rejected)
    lane = xp.nonzero(has_rejected)[0]
    if lane.shape[0] == 0 and deep is None:
        return None
    kept = Interval(xp.take(kept.start, lane, axis=0), xp.take(kept.stop, lane, axis=0))
    start, stop = xp.take(columns.start, lane, axis=0), xp.take(columns.stop, lane, axis=0)
    pivot = xp.take(pivot, lane, axis=0)
    if sums is None and needs_sums:
        columns = chosen_columns(xp, columns, lane)
        lane = columns.lane
        sums = interval_sums(xp, columns, pivot)
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
        lowest[mask], highest[mask] = low, high
        rows = [_normalized(xp, samples, frame, values) for frame, values in enumerate(samples.values)]
        below, above, _ = _split(xp, _Present(rows, [None] * len(rows), None), lowest, highest, keeps_masks=False)
        accumulated = None
    else:
        pixels = xp.nonzero(mask)[0]
        if pixels.shape[0] < mask.shape[0]:
            samples = _part(samples, pixels, xp)
        present, _ = _find_present(xp, samples, is_careful=True)
        below, above, present = _split(xp, present, low, high, keeps_masks=task.accumulates)
        accumulated = task.accumulate(xp, samples, present) if task.accumulates else None
    answer = task.combine(xp, coverage, chosen, accumulated)
    return _Rejection(
        deep, mask, answer, xp.astype(kept.start - start, xp.int32), xp.astype(stop - kept.stop, xp.int32), below, above
    )


def _scattered(xp: Namespace, mask: Array, values: Array) -> Array:
    """Give a bool array that has `values` where `mask` is true, and False elsewhere."""
    scattered: Array = xp.zeros_like(mask)
    scattered[mask] = values
    return scattered


def _candidates_of(
    xp: Namespace, strips: Sequence[_Strip], frames: int
) -> tuple[Columns, Array, CoreSums | None, Array | None]:
    """Put the strips' candidates side by side: their columns, pivots, core sums and places among the pixels."""
    table = _joined(xp, [strip.table for strip in strips])
    pivot = _joined(xp, [strip.pivot for strip in strips])
    candidates = None
    if any(strip.candidates is not None for strip in strips):
        candidates = _joined(
            xp,
            [
                xp.ones_like(strip.answer.coverage, dtype=xp.bool) if strip.candidates is None else strip.candidates
                for strip in strips
            ],
        )
    if strips[0].core is not None:
        core = CoreSums(*(_joined(xp, parts) for parts in zip(*(strip.core for strip in strips), strict=True)))
        return window_columns(xp, table, frames, windows_of(frames)), pivot, core, candidates
    count = None
    if any(strip.count is not None for strip in strips):
        count = xp.astype(
            _joined(
                xp,
                [
                    xp.full_like(strip.pivot, frames, dtype=xp.int32) if strip.count is None else strip.count
                    for strip in strips
                ],
            ),
            xp.int64,
        )
    return columns_of(xp, table, count), pivot, None, candidates


def _split(
    xp: Namespace, present: _Present, low: Array, high: Array, *, keeps_masks: bool
) -> tuple[Array, Array, _Present]:
    """Count each frame's samples below and above the kept ones, and give the samples with masks of the kept ones."""
    below, above = [], []
    masks: list[Array | None] = []
    for row, mask in zip(present.rows, present.masks, strict=True):
        is_below, is_above = row < low, row > high
        if mask is not None:
            is_below, is_above = is_below & mask, is_above & mask
        below.append(xp.astype(xp.count_nonzero(is_below), xp.int64))
        above.append(xp.astype(xp.count_nonzero(is_above), xp.int64))
        if keeps_masks:
            is_kept = ~(is_below | is_above)
            masks.append(is_kept if mask is None else is_kept & mask)
    return xp.stack(below), xp.stack(above), present._replace(masks=masks if keeps_masks else present.masks)


# --- parts and wholes ---------------------------------------------------------------------------------------------


def _part(samples: Samples, pixels: slice | Array, xp: Namespace | None = None) -> Samples:
    """Give the samples of some pixels: of a slice, or (with `xp`) of an array of indices."""

    def part(row: Array) -> Array:
        return row[pixels] if xp is None else xp.take(row, pixels, axis=0)

    masks, weights, variances = samples.masks, samples.weights, samples.variances
    return samples._replace(
        values=[part(row) for row in samples.values],
        masks=None if masks is None else [None if row is None else part(row) for row in masks],
        weights=None if weights is None else [row if isinstance(row, float) else part(row) for row in weights],
        variances=None if variances is None else [part(row) for row in variances],
    )


def _joined(xp: Namespace, parts: Sequence[Array | None]) -> Array:
    """Put the strips' parts end to end; None where there are none."""
    present = [part for part in parts if part is not None]
    if len(present) < 2:
        return present[0] if present else None  # type: ignore[return-value]
    joined: Array = xp.concat(present, axis=-1)
    return joined


def _total(counts: Sequence[Array]) -> Array:
    """Add counts up, element by element."""
    total = counts[0]
    for count in counts[1:]:
        total = total + count
    return total
