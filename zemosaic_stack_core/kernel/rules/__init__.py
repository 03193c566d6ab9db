"""The rules of rejection: a pixel's sorted samples in, the kept interval of ranks out.

Every rule removes samples from the two ends of a pixel's sorted list only. Each pixel is decided alone: one whose
answer stands is left out of the next iteration, and an iteration that would leave a pixel without a sample is not
applied to it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import NamedTuple

from zemosaic_stack_core.kernel.ranks import Interval, Ranks
from zemosaic_stack_core.kernel.rules.centered import kappa_sigma, mad_clip, noise_clip, percentile_clip
from zemosaic_stack_core.kernel.rules.extremes import gesd, minmax, none
from zemosaic_stack_core.kernel.rules.linear_fit import linear_fit_clip
from zemosaic_stack_core.kernel.rules.winsorized import winsorized_quantile, winsorized_sigma_clip
from zemosaic_stack_core.kernel.samples import Task
from zemosaic_stack_core.kernel.typing import Namespace

__all__ = ["RULES", "Rule", "most_sums"]


class Rule(NamedTuple):
    """One row of the catalogue: how to shrink the kept interval, and which running sums that looks up.

    `own_sums` is how many it makes besides.
    """

    shrink: Callable[[Namespace, Ranks, Task], Interval]
    uses_sums: bool = False
    uses_squares: bool = False
    uses_sums_of_sums: bool = False
    own_sums: int = 0


RULES: Mapping[str, Rule] = MappingProxyType(
    {
        "none": Rule(none),
        "kappa_sigma": Rule(kappa_sigma, uses_sums=True, uses_squares=True),
        "mad_clip": Rule(mad_clip),
        "winsorized_sigma_clip": Rule(winsorized_sigma_clip, uses_sums=True, uses_squares=True),
        "winsorized_quantile": Rule(winsorized_quantile, own_sums=2),
        "linear_fit_clip": Rule(linear_fit_clip, uses_sums=True, uses_sums_of_sums=True),
        "percentile_clip": Rule(percentile_clip),
        "minmax": Rule(minmax),
        "noise_clip": Rule(noise_clip),
        "gesd": Rule(gesd, uses_sums=True, uses_squares=True),
    }
)


def most_sums(rejection: str) -> int:
    """Return how many running sums a program keeps at most: of samples and their squares, and what the rule adds."""
    rule = RULES[rejection]
    return 2 + rule.uses_sums_of_sums + rule.own_sums
