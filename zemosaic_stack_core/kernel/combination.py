"""Combine chosen samples of each pixel: value, weight and variance.

The same functions serve all present samples of a pixel and those that a rule kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from zemosaic_stack_core.kernel.typing import Array, Namespace


def standard_deviation(xp: Namespace, first: Array, second: Array, count: Array, ddof: int) -> Array:
    """Give ``sqrt((sum d^2 - (sum d)^2/n) / (n - ddof))`` from sums about a pivot, float64; 0 where ``n <= ddof``."""
    residue = second - first * first / count
    divisor = xp.maximum(count - float(ddof), xp.ones_like(count))
    return xp.sqrt(xp.maximum(residue, xp.zeros_like(residue)) / divisor)


#: Weights of one frame: one number, or one number a sample.
Weight = float | Array


class Chosen(NamedTuple):
    """Order statistics of the samples to combine, and their moments about a pivot among them.

    `median`, `pivot`, `first` (the sum of ``d = x - pivot``) and `second` (that of ``d*d``) are float64, `smallest`
    and `largest` float32. `second` is None where it is not needed.
    """

    median: Array
    smallest: Array
    largest: Array
    pivot: Array
    first: Array
    second: Array | None


class Accumulated(NamedTuple):
    """Sums over the samples to combine, in frame order, float64: w*v, w, w*w and w*w*variance (None without)."""

    value: Array
    weight: Array
    weight_squared: Array
    variance: Array | None


class Answer(NamedTuple):
    """What pixels combine to: `coverage` int32, the others float32, None where not asked for."""

    image: Array
    coverage: Array
    weight_map: Array | None
    variance: Array | None


def accumulate(
    xp: Namespace,
    rows: Sequence[Array],
    masks: Sequence[Array | None],
    weights: Sequence[Weight] | None,
    variances: Sequence[Array] | None,
    scale: Sequence[float] | None,
) -> Accumulated:
    """Sum over the frames, one after the other, where `masks` allows (None: everywhere).

    `rows` are normalized and finite; `variances` are those of the samples as read, so `scale` multiplies them twice.
    """
    value = xp.zeros_like(rows[0], dtype=xp.float64)
    nothing = xp.zeros_like(value)
    variance = None if variances is None else xp.zeros_like(value)
    # As long as every pixel has the frames' weights, their sums are numbers: the same additions, once.
    weight: Weight = 0.0
    weight_squared: Weight = 0.0
    for frame, (row, mask) in enumerate(zip(rows, masks, strict=True)):
        w: Weight = 1.0 if weights is None else weights[frame]
        if not isinstance(w, float):
            w = xp.astype(w, xp.float64)
            if mask is not None:  # the weight of a missing sample need not be a number
                w = xp.where(mask, w, nothing)
        elif mask is not None:
            w = xp.astype(mask, xp.float64) * w
        term = xp.astype(row, xp.float64)
        if weights is not None or mask is not None:
            term *= w
        value += term
        weight = weight + w
        if weights is not None:
            weight_squared = weight_squared + w * w
        if variances is not None:
            factor = w if scale is None else w * scale[frame]
            term = xp.astype(variances[frame], xp.float64)
            if mask is not None:
                term = xp.where(mask, term, nothing)
            term *= factor
            term *= factor
            variance += term
    total = nothing + weight
    return Accumulated(value, total, total if weights is None else nothing + weight_squared, variance)


def combine(
    xp: Namespace,
    combination: str,
    coverage: Array,
    chosen: Chosen | None,
    accumulated: Accumulated | None,
    *,
    weight_map: bool,
    variance: bool,
) -> Answer:
    """Combine; `coverage` is the number of samples, int32. A mean is taken from `accumulated` where there is one.

    The variance of the mean is propagated from the samples' variances, ``sum(w^2 var)/sum(w)^2``, where they are
    given; otherwise empirical, ``s^2 * sum(w^2)/sum(w)^2`` with the unweighted ``s`` (ddof 1), NaN below two samples.
    """
    number = xp.astype(xp.maximum(coverage, xp.ones_like(coverage)), xp.float64)
    weight = number
    if accumulated is not None:
        weight = xp.where(accumulated.weight > 0.0, accumulated.weight, xp.ones_like(number))
    is_covered = coverage > 0
    nothing = xp.full_like(number, float("nan"))
    weights = None
    if weight_map:
        weights = xp.astype(xp.where(is_covered, weight, xp.zeros_like(weight)), xp.float32)
    spread = None
    if variance:
        spread = xp.astype(_variance(xp, coverage, number, weight, chosen, accumulated), xp.float32)
    value = _value(xp, combination, number, weight, chosen, accumulated)
    return Answer(xp.astype(xp.where(is_covered, value, nothing), xp.float32), coverage, weights, spread)


def _value(
    xp: Namespace,
    combination: str,
    number: Array,
    weight: Array,
    chosen: Chosen | None,
    accumulated: Accumulated | None,
) -> Array:
    """Give the combined value, float64; anything where nothing is combined."""
    if combination == "mean" and accumulated is not None:
        return accumulated.value / weight
    assert chosen is not None  # noqa: S101 - the kernel sorts unless it accumulates
    if combination == "mean":
        return chosen.pivot + chosen.first / number
    if combination == "median":
        return chosen.median
    value: Array = xp.astype(chosen.smallest if combination == "min" else chosen.largest, xp.float64)
    return value


def _variance(
    xp: Namespace,
    coverage: Array,
    number: Array,
    weight: Array,
    chosen: Chosen | None,
    accumulated: Accumulated | None,
) -> Array:
    """Give the variance of the mean, float64."""
    nothing = xp.full_like(number, float("nan"))
    squares = number
    if accumulated is not None:
        if accumulated.variance is not None:
            propagated: Array = xp.where(coverage > 0, accumulated.variance / weight / weight, nothing)
            return propagated
        squares = accumulated.weight_squared
    assert chosen is not None  # noqa: S101 - an empirical variance makes the kernel sort
    assert chosen.second is not None  # noqa: S101 - and sum squares
    deviation = standard_deviation(xp, chosen.first, chosen.second, number, 1)
    empirical: Array = xp.where(coverage > 1, deviation * deviation * squares / weight / weight, nothing)
    return empirical
