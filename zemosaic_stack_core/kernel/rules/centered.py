"""Rules that clip about the median or the mean of the kept samples."""

from __future__ import annotations

from collections.abc import Callable

from zemosaic_stack_core.kernel.ranks import Bounds, Interval, Ranks
from zemosaic_stack_core.kernel.samples import Task
from zemosaic_stack_core.kernel.typing import Array, Namespace

# Scale of the median absolute deviation that makes it the standard deviation of Gaussian data: 1/Phi^-1(3/4).
MAD_TO_SIGMA = 1.482602218505602


def clip_repeatedly(ranks: Ranks, bounds_of: Callable[[Interval], Bounds], limit: Array | int) -> Interval:
    """Reject outside ``bounds_of(kept)`` until nothing more is rejected.

    The answer is *all* present samples within the bounds of the last iteration that was applied: one that an early
    iteration rejected can come back, as in `astropy.stats.sigma_clip`.
    """
    return ranks.shrink(lambda kept: ranks.clip(bounds_of(kept), kept), limit=limit)[1]


def kappa_bounds(ranks: Ranks, center: Array, spread: Array) -> Bounds:
    """Return ``center - kappa_low*spread`` and ``center + kappa_high*spread``."""
    low, high = ranks.column.parameter("kappa_low"), ranks.column.parameter("kappa_high")
    return Bounds(center - spread * low, center + spread * high)


def kappa_sigma(xp: Namespace, ranks: Ranks, task: Task) -> Interval:
    """Clip about the median or the mean by the population standard deviation."""
    del xp

    def bounds_of(kept: Interval) -> Bounds:
        mean = ranks.pivot + ranks.total(kept) / ranks.number(kept)
        center = mean if task.center == "mean" else ranks.median(kept)
        return kappa_bounds(ranks, center, ranks.deviation(kept, 0))

    return clip_repeatedly(ranks, bounds_of, ranks.column.count("max_iterations"))


def mad_clip(xp: Namespace, ranks: Ranks, _: Task) -> Interval:
    """Clip about the median by the scaled median absolute deviation."""

    def bounds_of(kept: Interval) -> Bounds:
        median = ranks.median(kept)
        return kappa_bounds(ranks, median, median_distance(xp, ranks, kept, median) * MAD_TO_SIGMA)

    return clip_repeatedly(ranks, bounds_of, ranks.column.count("max_iterations"))


def noise_clip(xp: Namespace, ranks: Ranks, _: Task) -> Interval:
    """Clip about the median by the noise that the detector should have there (IRAF ccdclip).

    It is ``sqrt((read_noise/gain)^2 + max(m, 0)/gain + (sensitivity*m)^2)``.
    """
    column = ranks.column
    gain = column.parameter("gain")
    read = column.parameter("read_noise") / gain

    def bounds_of(kept: Interval) -> Bounds:
        median = ranks.median(kept)
        photons = xp.maximum(median, xp.zeros_like(median)) / gain
        sensitivity = median * column.parameter("sensitivity")
        return kappa_bounds(ranks, median, xp.sqrt(photons + read * read + sensitivity * sensitivity))

    return clip_repeatedly(ranks, bounds_of, column.count("max_iterations"))


def percentile_clip(xp: Namespace, ranks: Ranks, _: Task) -> Interval:
    """Reject, once, what lies further from the median than a fraction of it."""
    p_low, p_high = ranks.column.parameter("p_low"), ranks.column.parameter("p_high")

    def bounds_of(kept: Interval) -> Bounds:
        median = ranks.median(kept)
        size = xp.abs(median)
        return Bounds(median - size * p_low, median + size * p_high)

    return clip_repeatedly(ranks, bounds_of, 1)


def median_distance(xp: Namespace, ranks: Ranks, kept: Interval, center: Array) -> Array:
    """Return the median of ``abs(value - center)`` over the kept samples, where `center` is their median.

    The ``k + 1`` samples nearest to the center are neighbors in the sorted list: a window ``[a, a + k]``. Moving it
    up, the distance of its lower end falls and that of its upper end rises; the window of the nearest stands where
    they cross.
    """
    count = kept.stop - kept.start
    reach = (count - 1) // 2
    windows = count - reach

    def lower_distance(window: Array) -> Array:
        return center - ranks.value(xp.minimum(xp.maximum(kept.start + window, kept.start), kept.stop - 1))

    def upper_distance(window: Array) -> Array:
        return ranks.value(xp.minimum(kept.start + window + reach, kept.stop - 1)) - center

    (crossing,) = ranks.runs((windows, lambda window: lower_distance(window) > upper_distance(window)), leaps=False)
    # Windows below the crossing are limited by their lower end, the others by their upper end.
    infinite = xp.full_like(center, float("inf"))
    below = xp.where(crossing > 0, lower_distance(crossing - 1), infinite)
    above = xp.where(crossing < windows, upper_distance(crossing), infinite)
    distance = xp.minimum(below, above)
    # The next sample in order of distance is a neighbor of that window.
    window = crossing - xp.astype(below < above, xp.int32)
    below = xp.where(window > 0, lower_distance(window - 1), infinite)
    above = xp.where(window + reach < count - 1, upper_distance(window + 1), infinite)
    is_even = count - count // 2 * 2 < 1
    return xp.where(is_even, (distance + xp.minimum(below, above)) * 0.5, distance)
