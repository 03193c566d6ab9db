"""The rules of rejection: sorted samples in, kept interval of ranks out.

Every rule removes samples from the two ends of a pixel's sorted list only, so its answer is an interval
``[start, stop)`` of ranks. Each pixel is decided alone: one whose answer stands is left out of the next iteration,
and an iteration that would leave a pixel without a sample is not applied to it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import NamedTuple

from zemosaic_stack_core.kernel.overview import FirstLook
from zemosaic_stack_core.kernel.rules.centered import (
    kappa_sigma,
    kappa_sigma_may_reject,
    mad_clip,
    mad_may_reject,
    noise_clip,
    noise_may_reject,
    percentile_clip,
    percentile_may_reject,
)
from zemosaic_stack_core.kernel.rules.extremes import gesd, minmax
from zemosaic_stack_core.kernel.rules.intervals import Interval, RuleInput
from zemosaic_stack_core.kernel.rules.linear_fit import linear_fit_clip
from zemosaic_stack_core.kernel.rules.winsorized import (
    WINSORIZED_TAIL,
    winsorized_may_reject,
    winsorized_quantile,
    winsorized_sigma_clip,
)
from zemosaic_stack_core.kernel.typing import Array, Namespace
from zemosaic_stack_core.options import StackOptions

__all__ = ["RULES", "Interval", "Rule", "RuleInput"]


class Rule(NamedTuple):
    """One row of the catalogue.

    Parameters
    ----------
    shrink : callable
        Gives the kept interval of ranks.
    may_reject : callable or None
        Tells, from a first look at all samples, the pixels where the rule may reject something; it must not miss one.
        The others are done, which saves gathering them. None where every pixel must be gathered.
    uses_sums : bool
        Whether `shrink` looks up sums of intervals.
    uses_squares : bool
        Whether it needs sums of squares too.
    tail : float or None
        Fraction of the sorted samples at either end that `shrink` looks at even where it rejects few, beside the middle
        and sums; None where it looks at all.
    """

    shrink: Callable[[Namespace, RuleInput], Interval]
    may_reject: Callable[[Namespace, FirstLook, StackOptions], Array] | None = None
    uses_sums: bool = False
    uses_squares: bool = False
    tail: float | None = None


RULES: Mapping[str, Rule] = MappingProxyType(
    {
        "kappa_sigma": Rule(kappa_sigma, kappa_sigma_may_reject, uses_sums=True, uses_squares=True, tail=0.0),
        "mad_clip": Rule(mad_clip, mad_may_reject),
        "winsorized_sigma_clip": Rule(
            winsorized_sigma_clip, winsorized_may_reject, uses_sums=True, uses_squares=True, tail=WINSORIZED_TAIL
        ),
        "winsorized_quantile": Rule(winsorized_quantile),
        "linear_fit_clip": Rule(linear_fit_clip, uses_sums=True),
        "percentile_clip": Rule(percentile_clip, percentile_may_reject, tail=0.0),
        "minmax": Rule(minmax),
        "noise_clip": Rule(noise_clip, noise_may_reject, tail=0.0),
        "gesd": Rule(gesd, uses_sums=True, uses_squares=True),
    }
)
