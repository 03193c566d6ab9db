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

from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

from zemosaic_stack_core.kernel.combination import Answer
from zemosaic_stack_core.kernel.places import Places, places_of
from zemosaic_stack_core.kernel.reject import reject
from zemosaic_stack_core.kernel.rules import RULES
from zemosaic_stack_core.kernel.samples import Samples, part_of
from zemosaic_stack_core.kernel.strips import Strip, Task, joined, stack_strip
from zemosaic_stack_core.kernel.typing import Array, Namespace
from zemosaic_stack_core.options import StackOptions

#: The first so many fields of a `ChunkResult` have a value per pixel, the others one per frame.
PER_PIXEL = 8


class ChunkResult(NamedTuple):
    """What a chunk gives: arrays of shape (pixel,), and counts of shape (frame,), int64.

    `image` float32, NaN where `coverage` is 0; `coverage`, `rejected_low`, `rejected_high` int32; `weight_map` and
    `variance` float32, None unless asked for; so `kept_low` and `kept_high`: present samples below the one or above the
    other were rejected, and no others (infinite where none was).
    """

    image: Array
    coverage: Array
    rejected_low: Array
    rejected_high: Array
    weight_map: Array | None
    variance: Array | None
    kept_low: Array | None
    kept_high: Array | None
    frame_rejected_low: Array
    frame_rejected_high: Array
    frame_missing: Array


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
        ``"weight_map"``, ``"variance"`` and ``"bounds"`` (`kept_low`, `kept_high`) where they are wanted; the other
        maps come with every answer.
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
    task = Task(
        options=options,
        rule=RULES.get(options.rejection),
        weight_map="weight_map" in maps,
        variance=variance,
        accumulates=samples.weights is not None or propagates,
        propagates=propagates,
        critical_values=critical_values,
        step=strip_pixels or samples.values[0].shape[0],
        bounds="bounds" in maps,
        in_strips=strip_pixels is not None,
    )
    return _stack(xp, samples, task)


def _stack(xp: Namespace, samples: Samples, task: Task) -> ChunkResult:
    """Stack strip by strip; let the rule act when enough pixels are gathered."""
    pixels = samples.values[0].shape[0]
    results: list[ChunkResult] = []
    strips: list[Strip] = []
    first = gathered = 0
    for start in range(0, pixels, task.step):
        stop = min(start + task.step, pixels)
        part = part_of(samples, slice(start, stop))
        strip = stack_strip(xp, part, task)
        if strip is None:  # too many samples are missing for windows
            if strips:
                results.append(_finish(xp, part_of(samples, slice(first, start)), task, strips))
            results.append(_stack(xp, part, task.carefully(len(samples.values))))
            first, gathered, strips = stop, 0, []
            continue
        if strips and gathered + strip.gathered > task.step:  # tables of a strip's size at most: they take memory
            results.append(_finish(xp, part_of(samples, slice(first, start)), task, strips))
            first, gathered, strips = start, 0, []
        strips.append(strip)
        gathered += strip.gathered
        if gathered >= task.step or stop == pixels:
            results.append(_finish(xp, part_of(samples, slice(first, stop)), task, strips))
            first, gathered, strips = stop, 0, []
    if len(results) == 1:
        return results[0]
    columns: list[tuple[Any, ...]] = list(zip(*results, strict=True))
    per_pixel: list[Any] = [joined(xp, parts) for parts in columns[:PER_PIXEL]]
    return ChunkResult(*per_pixel, *(_total(parts) for parts in columns[PER_PIXEL:]))


def _finish(xp: Namespace, samples: Samples, task: Task, strips: Sequence[Strip]) -> ChunkResult:
    """Put strips together and let the rule act on them; `samples` are those of the strips."""
    answer = Answer(*(joined(xp, parts) for parts in zip(*(strip.answer for strip in strips), strict=True)))
    missing = _total([strip.missing for strip in strips])
    rejected_low, rejected_high = xp.zeros_like(answer.coverage), xp.zeros_like(answer.coverage)
    frame_low, frame_high = xp.zeros_like(missing), xp.zeros_like(missing)
    again = None
    if any(strip.incomplete is not None for strip in strips):
        again = joined(
            xp,
            [
                xp.zeros_like(strip.answer.coverage, dtype=xp.bool) if strip.incomplete is None else strip.incomplete
                for strip in strips
            ],
        )
    kept_low = kept_high = None
    if task.bounds:
        kept_high = xp.full_like(answer.image, float("inf"))
        kept_low = -kept_high
    rejection = None if task.rule is None else reject(xp, samples, task, task.rule, strips)
    if rejection is not None:
        places = rejection.places
        rejected_low = places.put(xp, rejection.rejected_low, rejected_low)
        rejected_high = places.put(xp, rejection.rejected_high, rejected_high)
        answer = Answer(*_put(xp, places, rejection.answer, answer))
        if kept_low is not None and kept_high is not None:
            kept_low = places.put(xp, rejection.low, kept_low)
            kept_high = places.put(xp, rejection.high, kept_high)
        frame_low, frame_high = rejection.frame_rejected_low, rejection.frame_rejected_high
        if rejection.deep is not None:
            again = rejection.deep if again is None else again | rejection.deep
    image, coverage, weights, spread = answer
    result = ChunkResult(
        image,
        coverage,
        rejected_low,
        rejected_high,
        weights,
        spread,
        kept_low,
        kept_high,
        frame_low,
        frame_high,
        frame_missing=missing,
    )
    return result if again is None else _stack_again(xp, samples, task, result, again)


def _stack_again(xp: Namespace, samples: Samples, task: Task, result: ChunkResult, again: Array) -> ChunkResult:
    """Stack some pixels on their own, with everything looked at, and put them in their places."""
    pixels = xp.nonzero(again)[0]
    if pixels.shape[0] == 0:
        return result
    part = _stack(xp, part_of(samples, pixels, xp), task.carefully(len(samples.values)))
    places = places_of(xp, again)
    maps = _put(xp, places, part[:PER_PIXEL], result[:PER_PIXEL])
    whole_fields: tuple[Any, ...] = result
    part_fields: tuple[Any, ...] = part
    counts = [whole + more for whole, more in zip(whole_fields[PER_PIXEL:], part_fields[PER_PIXEL:], strict=True)]
    return ChunkResult(*maps, *counts)


def _put(xp: Namespace, places: Places, values: Sequence[Array | None], others: Sequence[Array | None]) -> list[Any]:
    """Put several values of some pixels in their places; None where there are none."""
    return [
        None if whole is None or part is None else places.put(xp, part, whole)
        for whole, part in zip(others, values, strict=True)
    ]


def _total(counts: Sequence[Array]) -> Array:
    """Add counts up, element by element."""
    total = counts[0]
    for count in counts[1:]:
        total = total + count
    return total
