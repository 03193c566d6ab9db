"""Rules that clip about the median or the mean of the kept samples."""

from __future__ import annotations

from collections.abc import Callable

from zemosaic_stack_core.kernel.columns import Columns, median_of, value_at
from zemosaic_stack_core.kernel.combination import standard_deviation
from zemosaic_stack_core.kernel.overview import FirstLook
from zemosaic_stack_core.kernel.rules.intervals import Bounds, Interval, RuleInput, Step, clipped, repeat
from zemosaic_stack_core.kernel.typing import Array, Namespace
from zemosaic_stack_core.options import StackOptions

#: Scale of the median absolute deviation that makes it the standard deviation of Gaussian data: 1/Phi^-1(3/4).
MAD_TO_SIGMA = 1.482602218505602

INFINITY = float("inf")

#: A little more than one, against the roundings of a few operations in float64.
ROUNDING = 1.0 + 1e-12


def _clip_repeatedly(
    xp: Namespace, columns: Columns, bounds_of: Callable[[Interval, Array], Bounds], iterations: int
) -> Interval:
    """Reject outside ``bounds_of(kept, lane)`` until nothing more is rejected.

    The answer is *all* present samples within the bounds of the last iteration that was applied: one that an early
    iteration rejected can come back, as in `astropy.stats.sigma_clip`.
    """

    def shrink(kept: Interval, lane: Array) -> Step:
        return clipped(xp, columns, kept, lane, bounds_of(kept, lane))

    kept, within, deep = repeat(xp, columns, shrink, iterations=iterations)
    kept = kept if within is None else within
    if deep is None or columns.windows is None:
        return kept
    # What such a pixel keeps is not known; an interval that ends with the window says so.
    return kept._replace(start=xp.maximum(kept.start, xp.astype(deep, xp.int64) * columns.windows.depth))


def _kappa_bounds(center: Array, deviation: Array, options: StackOptions) -> Bounds:
    """Give ``centre - kappa_low*s`` and ``centre + kappa_high*s``."""
    return Bounds(center - deviation * options.kappa_low, center + deviation * options.kappa_high)


def kappa_sigma(xp: Namespace, given: RuleInput) -> Interval:
    """Clip about the median or the mean by the population standard deviation."""
    columns, options, sums = given.columns, given.options, given.sums
    assert sums is not None  # noqa: S101 - the catalogue says that this rule uses sums

    def bounds_of(kept: Interval, lane: Array) -> Bounds:
        first, second = sums.over(xp, kept.start, kept.stop, lane)
        count = xp.astype(kept.stop - kept.start, xp.float64)
        deviation = standard_deviation(xp, first, second, count, 0)
        if options.center == "mean":
            center = columns.of(xp, sums.pivot, lane) + first / count
        else:
            center = median_of(xp, columns, kept.start, kept.stop, lane)
        return _kappa_bounds(center, deviation, options)

    return _clip_repeatedly(xp, columns, bounds_of, options.max_iterations)


def mad_clip(xp: Namespace, given: RuleInput) -> Interval:
    """Clip about the median by the scaled median absolute deviation."""
    columns, options = given.columns, given.options

    def bounds_of(kept: Interval, lane: Array) -> Bounds:
        median = median_of(xp, columns, kept.start, kept.stop, lane)
        deviation = _median_distance(xp, columns, kept, lane, median) * MAD_TO_SIGMA
        return _kappa_bounds(median, deviation, options)

    return _clip_repeatedly(xp, columns, bounds_of, options.max_iterations)


def noise_clip(xp: Namespace, given: RuleInput) -> Interval:
    """Clip about the median by the noise that the detector should have there."""
    columns, options = given.columns, given.options

    def bounds_of(kept: Interval, lane: Array) -> Bounds:
        median = median_of(xp, columns, kept.start, kept.stop, lane)
        return _kappa_bounds(median, expected_noise(xp, median, options), options)

    return _clip_repeatedly(xp, columns, bounds_of, options.max_iterations)


def percentile_clip(xp: Namespace, given: RuleInput) -> Interval:
    """Reject, once, what lies further from the median than a fraction of it."""
    columns, options = given.columns, given.options

    def bounds_of(kept: Interval, lane: Array) -> Bounds:
        median = median_of(xp, columns, kept.start, kept.stop, lane)
        return percentile_bounds(xp, median, options)

    return _clip_repeatedly(xp, columns, bounds_of, 1)


def expected_noise(xp: Namespace, median: Array, options: StackOptions) -> Array:
    """Give sqrt((read_noise/gain)^2 + max(m, 0)/gain + (sensitivity*m)^2) (IRAF ccdclip)."""
    read = (options.read_noise / options.gain) * (options.read_noise / options.gain)
    photons = xp.maximum(median, xp.zeros_like(median)) / options.gain
    sensitivity = median * options.sensitivity
    return xp.sqrt(photons + read + sensitivity * sensitivity)


def percentile_bounds(xp: Namespace, median: Array, options: StackOptions) -> Bounds:
    """Give ``m - p_low*abs(m)`` and ``m + p_high*abs(m)``."""
    size = xp.abs(median)
    return Bounds(median - size * options.p_low, median + size * options.p_high)


def _median_distance(xp: Namespace, columns: Columns, kept: Interval, lane: Array, center: Array) -> Array:
    """Give the median of ``abs(value - center)`` over the kept samples, where `center` is their median.

    The ``k + 1`` samples nearest to the centre are neighbours in the sorted list: a window ``[a, a + k]``. Moving it
    up, the distance of its lower end falls and that of its upper end rises; the window of the nearest stands where
    they cross, and a binary search over ``a`` finds it.
    """
    last = kept.stop - 1
    count = kept.stop - kept.start
    reach = (count - 1) // 2
    windows = count - reach

    def lower_distance(window: Array) -> Array:
        return center - value_at(xp, columns, xp.minimum(xp.maximum(kept.start + window, kept.start), last), lane)

    def upper_distance(window: Array) -> Array:
        return value_at(xp, columns, xp.minimum(kept.start + window + reach, last), lane) - center

    crossing = xp.zeros_like(lane)
    step = 1 << (columns.frames // 2 + 1).bit_length() - 1
    while step:
        ahead = crossing + step
        goes_up = (ahead <= windows) & (lower_distance(ahead - 1) > upper_distance(ahead - 1))
        crossing = crossing + xp.astype(goes_up, xp.int64) * step
        step //= 2
    # Windows below the crossing are limited by their lower end, the others by their upper end.
    infinite = xp.full_like(center, INFINITY)
    below = xp.where(crossing > 0, lower_distance(crossing - 1), infinite)
    above = xp.where(crossing < windows, upper_distance(crossing), infinite)
    distance = xp.minimum(below, above)
    # The next sample in order of distance is a neighbour of that window.
    window = crossing - xp.astype(below < above, xp.int64)
    below = xp.where(window > 0, lower_distance(window - 1), infinite)
    above = xp.where(window + reach < count - 1, upper_distance(window + 1), infinite)
    following = xp.minimum(below, above)
    return xp.where(count % 2 < 1, (distance + following) * 0.5, distance)


def _has_outside(xp: Namespace, look: FirstLook, bounds: Bounds) -> Array:
    """Tell the pixels with a sample outside the bounds."""
    smallest = xp.astype(look.chosen.smallest, xp.float64)
    largest = xp.astype(look.chosen.largest, xp.float64)
    return (smallest < bounds.low) | (largest > bounds.high)


def kappa_sigma_may_reject(xp: Namespace, look: FirstLook, options: StackOptions) -> Array:
    """Tell the pixels with a sample outside the first iteration's bounds."""
    chosen, number = look.chosen, look.number(xp)
    assert chosen.second is not None  # noqa: S101 - the catalogue says that this rule uses squares
    deviation = standard_deviation(xp, chosen.first, chosen.second, number, 0)
    center = chosen.pivot + chosen.first / number if options.center == "mean" else chosen.median
    return _has_outside(xp, look, _kappa_bounds(center, deviation, options))


def noise_may_reject(xp: Namespace, look: FirstLook, options: StackOptions) -> Array:
    """Tell the pixels with a sample outside the first iteration's bounds."""
    median = look.chosen.median
    return _has_outside(xp, look, _kappa_bounds(median, expected_noise(xp, median, options), options))


def percentile_may_reject(xp: Namespace, look: FirstLook, options: StackOptions) -> Array:
    """Tell the pixels with a sample outside the bounds."""
    return _has_outside(xp, look, percentile_bounds(xp, look.chosen.median, options))


def smallest_harmless_spread(xp: Namespace, look: FirstLook, options: StackOptions) -> Array:
    """Give the spread about the median from which on nothing is rejected, float64."""
    median = look.chosen.median
    below = (median - xp.astype(look.chosen.smallest, xp.float64)) / options.kappa_low
    above = (xp.astype(look.chosen.largest, xp.float64) - median) / options.kappa_high
    harmless: Array = xp.maximum(below, above)
    return harmless


def mad_may_reject(xp: Namespace, look: FirstLook, options: StackOptions) -> Array:
    """Tell the pixels whose median absolute deviation is not surely large enough for all their samples.

    It is at least ``t`` where more than half of the samples lie no nearer to the median than ``t``.
    """
    reach = smallest_harmless_spread(xp, look, options) * (ROUNDING / MAD_TO_SIGMA)
    # Rounded to float32 a bound may let samples at it in that are out, never the other way round.
    low = xp.astype(look.chosen.median - reach, xp.float32)
    high = xp.astype(look.chosen.median + reach, xp.float32)
    near = xp.zeros_like(look.counts)
    for row in look.ranks.rows:
        near += xp.astype((row >= low) & (row <= high), xp.int32)
    return near * 2 >= look.counts
