"""The samples of a chunk, and which of them are present."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from zemosaic_stack_core.kernel.columns import LARGEST
from zemosaic_stack_core.kernel.combination import Weight
from zemosaic_stack_core.kernel.typing import Array, Namespace

#: Where fewer than one in so many pixels can have a missing sample, it pays to stack those pixels again.
FEW_INCOMPLETE = 4


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


class Present(NamedTuple):
    """Normalized samples, `LARGEST` where missing; where they are present and how many (None: all, everywhere).

    `may_miss`: some of all those samples are missing after all, and NaN.
    """

    rows: list[Array]
    masks: list[Array | None]
    counts: Array | None
    may_miss: bool = False


def part_of(samples: Samples, pixels: slice | Array, xp: Namespace | None = None) -> Samples:
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


def normalized(xp: Namespace, samples: Samples, frame: int, values: Array) -> Array:
    """Give a frame's values as float32, times its scale, plus its offset: two rounded operations."""
    row: Array = values if values.dtype == xp.float32 else xp.astype(values, xp.float32)
    if samples.scale is None or samples.offset is None:
        return row
    row = row * samples.scale[frame]
    return row + samples.offset[frame]


def present_in(xp: Namespace, samples: Samples, frame: int, row: Array) -> Array:
    """Tell a frame's present samples; `row` are its normalized values."""
    is_present: Array = xp.isfinite(row)
    mask = None if samples.masks is None else samples.masks[frame]
    if mask is not None:
        is_present = is_present & ~mask
    weight = None if samples.weights is None else samples.weights[frame]
    if weight is not None and not isinstance(weight, float):
        is_present = is_present & (weight > 0.0)
    return is_present


def number_true(xp: Namespace, mask: Array) -> Array:
    """Count the true entries of a mask: shape (), int64. NumPy counts into a plain number, which is no array."""
    number: Array = xp.asarray(xp.count_nonzero(mask), dtype=xp.int64)
    return number


def find_present(xp: Namespace, samples: Samples, *, is_careful: bool) -> tuple[Present, Array]:
    """Normalize, and tell present samples from missing ones; count the missing ones of each frame where all is told.

    Where hardly a pixel can be incomplete, and not `is_careful`, missing samples are left in their places as NaN.
    """
    rows: list[Array] = []
    masks: list[Array | None] = []
    for frame, values in enumerate(samples.values):
        row = normalized(xp, samples, frame, values)
        is_present: Array | None = None
        if samples.has_missing is None or samples.has_missing[frame]:
            is_present = present_in(xp, samples, frame, row)
        rows.append(row)
        masks.append(is_present)
    first_row = rows[0]
    pixels = first_row.shape[0]
    none = xp.zeros((), dtype=xp.int64, device=first_row.device)
    missing = xp.stack([none if mask is None else pixels - number_true(xp, mask) for mask in masks])
    if all(mask is None for mask in masks):
        return Present(rows, masks, None), missing
    if not is_careful and int(xp.sum(missing)) * FEW_INCOMPLETE < pixels:
        nothing = xp.full_like(first_row, float("nan"))
        is_plain = samples.masks is None and samples.weights is None
        rows = [
            row if mask is None or is_plain else xp.where(mask, row, nothing)
            for row, mask in zip(rows, masks, strict=True)
        ]
        return Present(rows, [None] * len(rows), None, may_miss=True), xp.zeros_like(missing)
    # Half of a pixel's missing samples sort below the present ones and half above: see `Columns`.
    filler = xp.full_like(first_row, LARGEST if len(rows) % 2 else -LARGEST)
    counts = xp.full_like(first_row, sum(mask is None for mask in masks), dtype=xp.int32)
    for frame, mask in enumerate(masks):
        if mask is not None:
            rows[frame] = xp.where(mask, rows[frame], filler)
            filler = xp.where(mask, filler, -filler)
            counts += xp.astype(mask, xp.int32)
    return Present(rows, masks, counts), missing
