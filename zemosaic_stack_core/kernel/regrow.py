"""The two steps of growth that touch samples, on any backend: note what was rejected, combine what is left."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import NamedTuple

from zemosaic_stack_core.kernel import ChunkResult, stack_chunk
from zemosaic_stack_core.kernel.samples import Samples, normalized, number_true, part_of, present_in
from zemosaic_stack_core.kernel.typing import Array, Namespace
from zemosaic_stack_core.options import StackOptions

REJECTED, GROWN = 1, 2
"""Codes of a sample that the rule rejected, and of one that a cluster near it takes along."""


class Grown(NamedTuple):
    """Pixels that were combined again, and which of them lost a sample; the others keep what they had.

    The rejected samples that `result` counts are those that were taken along, per pixel and per frame.
    """

    result: ChunkResult
    has_changed: Array


def pack_rejected(xp: Namespace, samples: Samples, result: ChunkResult, used: Sequence[int], n_frames: int) -> Array:
    """Tell which samples a rule rejected: shape (frame // 8, pixel), uint8, a bit per frame.

    `used` are the frames of the samples, of `n_frames`; the kernel was asked for the bounds.
    """
    low, high = result.kept_low, result.kept_high
    assert low is not None  # noqa: S101 - asked for by the caller
    assert high is not None  # noqa: S101
    planes = [xp.zeros_like(low, dtype=xp.uint8) for _ in range(-(-n_frames // 8))]
    for index, frame in enumerate(used):
        row = normalized(xp, samples, index, samples.values[index])
        is_rejected = ((row < low) | (row > high)) & present_in(xp, samples, index, row)
        planes[frame // 8] = planes[frame // 8] + xp.astype(is_rejected, xp.uint8) * (1 << frame % 8)
    packed: Array = xp.stack(planes)
    return packed


def stack_grown(
    xp: Namespace,
    samples: Samples,
    codes: Sequence[Array | None],
    pixels: Array,
    options: StackOptions,
    maps: Collection[str],
    strip_pixels: int | None,
) -> Grown:
    """Combine the samples that are neither rejected nor taken along by a cluster.

    Parameters
    ----------
    xp : namespace
        Of the samples.
    samples : Samples
        Of a chunk and channel.
    codes : sequence of (uint8 array of shape (pixel,) or None)
        Codes of each frame's samples, see `growth`; None for all zero.
    pixels : array of indices, int64
        The pixels to combine.
    options : StackOptions
        How.
    maps : collection of str
        As for `stack_chunk`.
    strip_pixels : int or None
        As for `stack_chunk`.

    Returns
    -------
    Grown
        Of a pixel that would lose its last sample nothing is taken. A sample that is taken along counts as rejected
        low where it is below the pixel's new value, and as rejected high elsewhere.
    """
    part = part_of(samples, pixels, xp)
    masks: list[Array | None] = []
    taken: list[Array | None] = []
    for index, code in enumerate(codes):
        mask = None if part.masks is None else part.masks[index]
        if code is None:
            masks.append(mask)
            taken.append(None)
            continue
        code = xp.take(code, pixels, axis=0)
        row = normalized(xp, part, index, part.values[index])
        taken.append((code == GROWN) & present_in(xp, part, index, row))
        is_gone = code > 0
        masks.append(is_gone if mask is None else is_gone | mask)
    may_miss = [
        code is not None or part.has_missing is None or part.has_missing[index] for index, code in enumerate(codes)
    ]
    result = stack_chunk(
        xp,
        part._replace(masks=masks, has_missing=may_miss),
        replace(options, rejection="none", grow_radius=0.0),
        maps=maps,
        strip_pixels=strip_pixels,
    )
    has_changed = xp.zeros_like(result.coverage, dtype=xp.bool)
    for flags in taken:
        if flags is not None:
            has_changed = has_changed | flags
    has_changed = has_changed & (result.coverage > 0)
    low, high = xp.zeros_like(result.coverage), xp.zeros_like(result.coverage)
    frame_low, frame_high = [], []
    for index, flags in enumerate(taken):
        if flags is None:
            flags = xp.zeros_like(has_changed)
        row = normalized(xp, part, index, part.values[index])
        flags = flags & has_changed
        is_below = flags & (row < result.image)
        is_above = flags & ~is_below
        low, high = low + xp.astype(is_below, xp.int32), high + xp.astype(is_above, xp.int32)
        frame_low.append(number_true(xp, is_below))
        frame_high.append(number_true(xp, is_above))
    counted = result._replace(
        rejected_low=low,
        rejected_high=high,
        frame_rejected_low=xp.stack(frame_low),
        frame_rejected_high=xp.stack(frame_high),
        frame_missing=xp.zeros_like(result.frame_missing),
    )
    return Grown(counted, has_changed)
