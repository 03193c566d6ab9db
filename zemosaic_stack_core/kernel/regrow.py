"""The two steps of growth that touch samples, on any backend: note what was rejected, combine what is left."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from zemosaic_stack_core.kernel import ChunkResult, stack_chunk
from zemosaic_stack_core.kernel.samples import Samples
from zemosaic_stack_core.kernel.typing import Array, Namespace
from zemosaic_stack_core.options import StackOptions

# Codes of a sample that the rule rejected, and of one that a cluster near it takes along; of others it is 0.
REJECTED, GROWN = 1, 2


class Grown(NamedTuple):
    """Pixels that were combined again, and which of them lost a sample; the others keep what they had.

    The rejected samples that `result` counts are those that were taken along, per pixel and per frame; `taken` says of
    each frame which ones they are, bool.
    """

    result: ChunkResult
    has_changed: Array
    taken: list[Array]


def pack_rejected(xp: Namespace, samples: Samples, result: ChunkResult, used: Sequence[int], n_frames: int) -> Array:
    """Return which samples a rule rejected: shape (frame // 8, pixel), uint8, a bit per frame.

    `used` are the frames of the samples, of `n_frames`; the kernel was asked for the bounds.
    """
    low, high = result.kept_low, result.kept_high
    assert low is not None  # noqa: S101 - asked for by the caller
    assert high is not None  # noqa: S101

    def flags() -> Iterator[Array]:
        for index in range(len(used)):
            row = samples.normalized(xp, index)
            yield ((row < low) | (row > high)) & samples.present(xp, index, row)

    return pack_flags(xp, flags(), used, n_frames)


def pack_flags(xp: Namespace, flags: Iterable[Array], used: Sequence[int], n_frames: int) -> Array:
    """Return a bit per frame, shape (frame // 8, pixel), uint8: the flags of the frames `used`, of `n_frames`."""
    planes: list[Any] = [None] * -(-n_frames // 8)
    for frame, is_set in zip(used, flags, strict=True):
        bit = xp.astype(is_set, xp.uint8) * (1 << frame % 8)
        planes[frame // 8] = bit if planes[frame // 8] is None else planes[frame // 8] + bit
    nothing = xp.zeros_like(next(plane for plane in planes if plane is not None))
    packed: Array = xp.stack([nothing if plane is None else plane for plane in planes])
    return packed


def stack_grown(
    backend: Any, samples: Samples, codes: Sequence[Array | None], options: StackOptions, maps: Collection[str]
) -> Grown:
    """Combine the samples that are neither rejected nor taken along by a cluster.

    `codes` are each frame's, uint8, shape (pixel,), None for all zero. Of a pixel that would lose its last sample
    nothing is taken. A sample that is taken along counts as rejected low where it is below the pixel's new value (its
    mean, of a sum), and as rejected high elsewhere.
    """
    xp = backend.xp
    masks: list[Array | None] = []
    for index, code in enumerate(codes):
        mask = None if samples.masks is None else samples.masks[index]
        is_gone = None if code is None else code > 0
        masks.append(mask if is_gone is None else is_gone if mask is None else is_gone | mask)
    plain = replace(options, rejection="none", grow_radius=0.0)
    is_sum = options.combine == "sum"
    result = stack_chunk(backend, samples._replace(masks=masks), plain, maps={*maps, "weight_map"} if is_sum else maps)
    center = result.image / result.weight_map if is_sum else result.image
    rows = [samples.normalized(xp, index) for index in range(len(codes))]
    nothing = xp.zeros_like(result.coverage, dtype=xp.bool)
    taken = [
        nothing if code is None else (code > REJECTED) & samples.present(xp, index, row)
        for index, (code, row) in enumerate(zip(codes, rows, strict=True))
    ]
    has_changed = nothing
    for flags in taken:
        has_changed = has_changed | flags
    has_changed = has_changed & (result.coverage > 0)
    low, high = xp.zeros_like(result.coverage), xp.zeros_like(result.coverage)
    frame_low, frame_high = [], []
    for flags, row in zip(taken, rows, strict=True):
        is_below = flags & has_changed & (row < center)
        is_above = flags & has_changed & ~is_below
        low, high = low + xp.astype(is_below, xp.int32), high + xp.astype(is_above, xp.int32)
        frame_low.append(_number_true(xp, is_below))
        frame_high.append(_number_true(xp, is_above))
    counted = result._replace(
        rejected_low=low,
        rejected_high=high,
        frame_rejected_low=xp.stack(frame_low),
        frame_rejected_high=xp.stack(frame_high),
        frame_missing=xp.zeros_like(result.frame_missing),
    )
    return Grown(counted, has_changed, [flags & has_changed for flags in taken])


def _number_true(xp: Namespace, mask: Array) -> Array:
    """Count the true entries of a mask: shape (), int64. NumPy counts into a plain number, which is no array."""
    number: Array = xp.asarray(xp.count_nonzero(mask), dtype=xp.int64)
    return number
