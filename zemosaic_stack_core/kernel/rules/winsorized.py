"""Rules that take the spread from winsorized samples: those far out are pulled in, not left out."""

from __future__ import annotations

from collections.abc import Sequence

from zemosaic_stack_core.kernel.combination import standard_deviation
from zemosaic_stack_core.kernel.ranks import Bounds, Interval, Ranks
from zemosaic_stack_core.kernel.rules.centered import kappa_bounds
from zemosaic_stack_core.kernel.samples import Task
from zemosaic_stack_core.kernel.typing import Array, Namespace

# Samples are pulled in to 1.5 spreads, which lowers the standard deviation of Gaussian data by 1.134; repeated until
# the spread changes by less than 5e-4 of itself (PixInsight, Siril; Huber 1981).
CLIP, CORRECTION, TOLERANCE, ROUNDS = 1.5, 1.134, 5e-4, 50
# Kept samples that an iteration needs, and leaves.
NEEDED, LEFT = 4, 3
# `winsorized_quantile` takes its center and spread from what kappa_sigma keeps at this kappa, in so many iterations.
QUANTILE_KAPPA, QUANTILE_ITERATIONS = 3.0, 5


def winsorized_sigma_clip(xp: Namespace, ranks: Ranks, _: Task) -> Interval:
    """Clip about the median by the standard deviation of the winsorized samples."""

    def step(kept: Interval) -> tuple[Interval, Interval]:
        median = ranks.median(kept)
        return ranks.clip(kappa_bounds(ranks, median, _winsorized_spread(xp, ranks, kept, median)), kept)

    limit = ranks.column.count("max_iterations")
    return ranks.shrink(step, limit=limit, needed=NEEDED, left=LEFT)[0]


def _winsorized_spread(xp: Namespace, ranks: Ranks, kept: Interval, median: Array) -> Array:
    """Return 1.134 times the standard deviation of the samples pulled in to 1.5 times itself about the median."""
    infinite = xp.full_like(median, float("inf"))

    def pull(carry: Sequence[Array]) -> tuple[list[Array], Array]:
        low, high, spread = carry[:3]
        low = xp.maximum(low, median - spread * CLIP)
        high = xp.minimum(high, median + spread * CLIP)
        # The bounds only come nearer: what lies within them lay within those of the round before.
        inside = ranks.within(Bounds(low, high), Interval(carry[3], carry[4]))
        pulled = _pulled_in(xp, ranks, kept, Bounds(low, high), inside)
        return [low, high, pulled, *inside], xp.abs(pulled - spread) > spread * TOLERANCE

    spread = ranks.deviation(kept, 1)
    return ranks.column.repeat(ROUNDS, [-infinite, infinite, spread, *kept], spread >= 0.0, pull)[2]


def _pulled_in(xp: Namespace, ranks: Ranks, kept: Interval, bounds: Bounds, inside: Interval) -> Array:
    """Return 1.134 times the standard deviation of the kept samples pulled in to bounds; `inside` are those within.

    They are a run of the sorted list between two runs of equal values: two sums are looked up.
    """
    first, second = ranks.sums(inside)
    for end, number in ((bounds.low, inside.start - kept.start), (bounds.high, kept.stop - inside.stop)):
        d = end - ranks.pivot
        pulled = d * xp.astype(number, xp.float64)
        first, second = first + pulled, second + d * pulled
    return standard_deviation(xp, first, second, ranks.number(kept), 1) * CORRECTION


def winsorized_quantile(xp: Namespace, ranks: Ranks, _: Task) -> Interval:
    """Clip, once, by the median and spread that the samples have when winsorized at two order statistics."""
    column, (start, stop) = ranks.column, ranks.present
    last = xp.astype(xp.maximum(stop - start - 1, xp.zeros_like(start)), xp.float64)
    low_rank = start + xp.astype(xp.round(last * column.parameter("winsor_low")), xp.int32)
    high_rank = start + xp.astype(xp.round(last * (1.0 - column.parameter("winsor_high"))), xp.int32)
    winsorized = ranks.clamped(ranks.sample(low_rank), ranks.sample(high_rank))
    winsorized.add_up(squares=True)

    def step(kept: Interval) -> tuple[Interval, Interval]:
        center, reach = winsorized.median(kept), winsorized.deviation(kept, 0) * QUANTILE_KAPPA
        return winsorized.clip(Bounds(center - reach, center + reach), kept)

    kept = winsorized.shrink(step, limit=QUANTILE_ITERATIONS)[1]
    bounds = kappa_bounds(ranks, winsorized.median(kept), winsorized.deviation(kept, 0))
    return ranks.shrink(lambda whole: ranks.clip(bounds, whole), limit=1)[0]
