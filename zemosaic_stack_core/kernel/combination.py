"""Combine the kept samples of a pixel: value, weight and variance."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from zemosaic_stack_core.kernel.samples import Task, sample_of
from zemosaic_stack_core.kernel.typing import Array, Column, Frame, Namespace
from zemosaic_stack_core.options import WEIGHTED_COMBINATIONS

# The variance of the median of n normal samples is sigma^2/n times (pi/2)*n/(n + a + b/n + c/n^2): (a, b, c) for odd n
# and for even n. pi/2 is its limit (Kendall & Stuart, "The Advanced Theory of Statistics", vol. 1, ch. 10 and 14); the
# rest is a fit to the density of the median, integrated numerically for n from 1 to 201, good to 1e-4.
_MEDIAN_LIMIT = 1.5707963267948966
_MEDIAN_ODD = (0.43093133, 0.24588259, -0.10601824)
_MEDIAN_EVEN = (1.42070777, -0.66916417, 0.2219072)


class Sums(NamedTuple):
    """Sums over the kept samples in frame order, float64: 1, w*v, w, w*w; None without variances: w*w*variance.

    `densities`: for a median, sums of 1/sigma, its square and its cube, of the samples whose variance is above 0.
    """

    number: Array
    value: Array
    weight: Array
    weight_squared: Array
    variance: Array | None
    densities: tuple[Array, Array, Array] | None = None


class Moments(NamedTuple):
    """The kept samples in order, and their sums about a pivot.

    `median`, `pivot`, `first` (the sum of ``d = v - pivot``) and `second` (that of ``d*d``) are float64, the sums None
    where nothing needs them; `smallest` and `largest` float32.
    """

    median: Array
    smallest: Array
    largest: Array
    pivot: Array
    first: Array | None
    second: Array | None


def standard_deviation(xp: Namespace, first: Array, second: Array, count: Array, ddof: int) -> Array:
    """Return ``sqrt((sum d^2 - (sum d)^2/n) / (n - ddof))`` from sums about a pivot, float64; 0 where ``n <= ddof``."""
    residue = second - first * first / count
    divisor = xp.maximum(count - float(ddof), xp.ones_like(count))
    return xp.sqrt(xp.maximum(residue, xp.zeros_like(residue)) / divisor)


def add_up(xp: Namespace, column: Column, task: Task, bounds: tuple[Array, Array] | None, *, counts: bool) -> Sums:
    """Sum the present samples within bounds (float32; None: all) over the frames, one after the other.

    With `counts`, count each frame's missing samples.
    """
    zero = column.full(0.0, "f64")

    def step(frame: Frame, carry: Sequence[Array]) -> list[Array]:
        sample, is_kept = sample_of(xp, frame, task)
        if counts:
            frame.tally("missing", ~is_kept)
        if bounds is not None:
            is_kept = is_kept & (sample >= bounds[0]) & (sample <= bounds[1])
        value = xp.where(is_kept, xp.astype(sample, xp.float64), zero)
        number = weight = xp.astype(is_kept, xp.float64)
        more = []
        if task.weights is not None:
            given = frame.row("weight") if task.weights == "samples" else frame.number("weight")
            weight = xp.where(is_kept, xp.astype(given, xp.float64), zero)
            value = value * weight
            more = [carry[2] + weight, carry[3] + weight * weight]
        if task.propagates:
            factor = weight * xp.astype(frame.number("scale"), xp.float64) if task.is_normalized else weight
            variance = xp.where(is_kept, xp.astype(frame.row("variance"), xp.float64), zero)
            variance = variance * factor * factor
            if of_median:
                has_spread = variance > 0.0
                density = 1.0 / xp.sqrt(xp.where(has_spread, variance, xp.ones_like(variance)))
                density = xp.where(has_spread, density, zero)
                square = density * density
                more += [carry[-4] + density, carry[-3] + square, carry[-2] + square * density]
            more.append(carry[-1] + variance)
        return [carry[0] + number, carry[1] + value, *more]

    of_median = task.propagates and task.combine == "median"
    sums = 2 + 2 * (task.weights is not None) + task.propagates + 3 * of_median
    number, value, *more = column.visit([zero] * sums, step)
    weight, squared = (number, number) if task.weights is None else (more[0], more[1])
    densities = (more[-4], more[-3], more[-2]) if of_median else None
    return Sums(number, value, weight, squared, more[-1] if task.propagates else None, densities)


def combine(xp: Namespace, task: Task, coverage: Array, moments: Moments | None, sums: Sums | None) -> dict[str, Array]:
    """Return ``image``, and ``weight_map`` and ``variance`` where they are wanted, float32; `coverage` is int32.

    The variance of the mean is propagated from the samples' variances, ``sum(w^2 var)/sum(w)^2``, where they are
    given; otherwise empirical, ``s^2 * sum(w^2)/sum(w)^2`` with the unweighted ``s`` (ddof 1), NaN below two samples.
    That of the median is larger by a factor ``c(n)`` (see `_of_median`), that of the sum by ``sum(w)^2``; min and max
    have none: NaN.
    """
    number = xp.astype(xp.maximum(coverage, xp.ones_like(coverage)), xp.float64)
    weight = number
    if sums is not None:
        weight = xp.where(sums.weight > 0.0, sums.weight, xp.ones_like(number))
    is_covered = coverage > 0
    nothing = xp.full_like(number, float("nan"))
    value = xp.where(is_covered, _value(xp, task, number, weight, moments, sums), nothing)
    results = {"image": xp.astype(value, xp.float32)}
    if task.weight_map:
        results["weight_map"] = xp.astype(xp.where(is_covered, weight, xp.zeros_like(weight)), xp.float32)
    if task.variance:
        results["variance"] = xp.astype(_variance(xp, task, coverage, weight, moments, sums), xp.float32)
    return results


def _value(
    xp: Namespace, task: Task, number: Array, weight: Array, moments: Moments | None, sums: Sums | None
) -> Array:
    """Return the combined value, float64; anything where nothing is combined."""
    if task.combine in WEIGHTED_COMBINATIONS and sums is not None:
        return sums.value / weight if task.combine == "mean" else sums.value
    assert moments is not None  # noqa: S101 - a task sorts unless it accumulates
    if task.combine in WEIGHTED_COMBINATIONS:
        assert moments.first is not None  # noqa: S101 - mean and sum need the sums
        if task.combine == "sum":
            return moments.pivot * number + moments.first
        return moments.pivot + moments.first / number
    if task.combine == "median":
        return moments.median
    return xp.astype(moments.smallest if task.combine == "min" else moments.largest, xp.float64)


def _variance(
    xp: Namespace, task: Task, coverage: Array, weight: Array, moments: Moments | None, sums: Sums | None
) -> Array:
    """Return the variance of the combined value, float64."""
    number = xp.astype(xp.maximum(coverage, xp.ones_like(coverage)), xp.float64)
    nothing = xp.full_like(number, float("nan"))
    if task.combine in ("min", "max"):
        return nothing
    if sums is not None and sums.variance is not None:
        variance = sums.variance if task.combine == "sum" else sums.variance / weight / weight
        if sums.densities is not None:
            has_density = sums.densities[0] > 0.0
            spread = _of_unequal_median(xp, coverage, number, sums.densities)
            variance = xp.where(has_density & (coverage > 2), spread, variance)  # the median of two is their mean
        return xp.where(coverage > 0, variance, nothing)
    squares = number if sums is None else sums.weight_squared
    assert moments is not None  # noqa: S101 - an empirical variance needs the samples in order
    assert moments.first is not None  # noqa: S101 - and their sums
    assert moments.second is not None  # noqa: S101
    deviation = standard_deviation(xp, moments.first, moments.second, number, 1)
    variance = deviation * deviation * squares
    if task.combine != "sum":
        variance = variance / weight / weight
    if task.combine == "median":
        variance = variance * _of_median(xp, coverage, number)
    return xp.where(coverage > 1, variance, nothing)


def _of_median(xp: Namespace, coverage: Array, number: Array) -> Array:
    """Return how much larger the median's variance is than the mean's, of `number` normal samples: c(n)."""
    is_odd = coverage - coverage // 2 * 2 > 0
    a, b, c = (
        xp.where(is_odd, xp.full_like(number, odd), xp.full_like(number, even))
        for odd, even in zip(_MEDIAN_ODD, _MEDIAN_EVEN, strict=True)
    )
    factor: Array = _MEDIAN_LIMIT * number / (number + a + (b + c / number) / number)
    return factor


def _of_unequal_median(xp: Namespace, coverage: Array, number: Array, densities: tuple[Array, Array, Array]) -> Array:
    """Return the variance of the median of normal samples about one center, from sums of 1/sigma and its powers.

    n samples of densities f_i there have n/4 / sum(f_i)^2, times ``1 + A/n``: of the distribution of the number of
    samples below x the mean is ``n/2 + sum(f_i) x + sum(f_i'') x^3/6`` and the variance ``n/4 - sum(f_i^2) x^2``, and
    what those terms change is A. Of equal samples it is in ``c(n)`` already.
    """
    has_density = densities[0] > 0.0
    first = xp.where(has_density, densities[0], xp.ones_like(number))
    second = number * densities[1] / first / first
    third = number * number * densities[2] / first / first / first
    excess = (third - 1.0) * _MEDIAN_LIMIT - (second - 1.0) * 3.0
    spread: Array = _of_median(xp, coverage, number) * number / first / first * (1.0 + excess / number)
    return spread
