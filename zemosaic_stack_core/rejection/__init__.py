"""The rules of rejection: sorted samples in, kept interval of ranks out.

Every rule removes samples from the two ends of a pixel's sorted list only, so its answer is an interval
``[start, stop)`` of ranks. Each pixel is decided alone: one whose answer stands is left out of the next iteration,
and an iteration that would leave a pixel without a sample is not applied to it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import NamedTuple

from zemosaic_stack_core._typing import Array, Namespace
from zemosaic_stack_core.options import StackOptions

from .centered import expected_noise, kappa_sigma, mad_clip, noise_clip, percentile_bounds, percentile_clip
from .extremes import gesd, minmax
from .intervals import Interval, RuleInput
from .linear_fit import linear_fit_clip
from .winsorized import winsorized_quantile, winsorized_sigma_clip

__all__ = ["RULES", "FirstLook", "Interval", "Rule", "RuleInput"]


class FirstLook(NamedTuple):
    """All present samples of each pixel in three numbers, float64. `deviation` (ddof 0) is None where not asked for."""

    median: Array
    mean: Array
    deviation: Array | None


class Rule(NamedTuple):
    """One row of the catalogue.

    `shrink` gives the kept interval. `first_bounds` gives the bounds of the first iteration from the `FirstLook`: a
    pixel whose samples all lie within them is done, which saves gathering it; None where every pixel must be
    gathered. `uses_sums`: `shrink` looks up sums of intervals. `uses_deviation`: so does `first_bounds` the deviation.
    """

    shrink: Callable[[Namespace, RuleInput], Interval]
    first_bounds: Callable[[Namespace, FirstLook, StackOptions], tuple[Array, Array]] | None = None
    uses_sums: bool = False
    uses_deviation: bool = False


def _kappa_sigma_bounds(xp: Namespace, look: FirstLook, options: StackOptions) -> tuple[Array, Array]:
    """Give the bounds of the first iteration of ``kappa_sigma``."""
    del xp
    assert look.deviation is not None  # noqa: S101 - the catalogue asks for it
    center = look.mean if options.center == "mean" else look.median
    return center - look.deviation * options.kappa_low, center + look.deviation * options.kappa_high


def _noise_bounds(xp: Namespace, look: FirstLook, options: StackOptions) -> tuple[Array, Array]:
    """Give the bounds of the first iteration of ``noise_clip``."""
    deviation = expected_noise(xp, look.median, options)
    return look.median - deviation * options.kappa_low, look.median + deviation * options.kappa_high


def _percentile_bounds(xp: Namespace, look: FirstLook, options: StackOptions) -> tuple[Array, Array]:
    """Give the bounds of ``percentile_clip``."""
    return percentile_bounds(xp, look.median, options)


RULES: Mapping[str, Rule] = MappingProxyType(
    {
        "kappa_sigma": Rule(kappa_sigma, _kappa_sigma_bounds, uses_sums=True, uses_deviation=True),
        "mad_clip": Rule(mad_clip),
        "winsorized_sigma_clip": Rule(winsorized_sigma_clip, uses_sums=True),
        "winsorized_quantile": Rule(winsorized_quantile),
        "linear_fit_clip": Rule(linear_fit_clip),
        "percentile_clip": Rule(percentile_clip, _percentile_bounds),
        "minmax": Rule(minmax),
        "noise_clip": Rule(noise_clip, _noise_bounds),
        "gesd": Rule(gesd, uses_sums=True),
    }
)
