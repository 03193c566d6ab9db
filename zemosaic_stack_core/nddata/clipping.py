"""A sigma clip as astropy and ccdproc word it, as a rule of the stack's."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from astropy.stats import median_absolute_deviation

from zemosaic_stack_core.errors import InvalidInputError
from zemosaic_stack_core.kernel.rules.centered import MAD_TO_SIGMA
from zemosaic_stack_core.options import StackOptions

# A statistic by its name, or a function of samples and ``axis``.
Statistic = str | Callable[..., Any]

# Whose functions are known by their name.
_KNOWN_PACKAGES = {"numpy", "bottleneck", "astropy", "cupy", "dask", "array_api_compat"}
_KNOWN = {
    **{"mean": "mean", "nanmean": "mean", "average": "mean"},
    **{"median": "median", "nanmedian": "median"},
    **{"std": "std", "nanstd": "std"},
    **{"mad_std": "mad_std", "median_absolute_deviation": "mad"},
}


def clip_options(
    low: float | None,
    high: float | None,
    func: Statistic,
    dev_func: Statistic,
    maxiters: int | None,
) -> StackOptions | None:
    """Return the options of a sigma clip; None where no rule of the stack's has that center and spread."""
    center, spread = _known(func), _known(dev_func)
    factor = MAD_TO_SIGMA if spread == "mad" else 1.0
    below, above = (_kappa(one, name, factor) for one, name in ((low, "low_thresh"), (high, "high_thresh")))
    if spread == "std" and center in ("mean", "median"):
        rule = "kappa_sigma"
    elif spread in ("mad", "mad_std") and center == "median":
        rule = "mad_clip"
    else:
        return None
    return StackOptions(rejection=rule, center=center, kappa_low=below, kappa_high=above, max_iterations=maxiters)


def for_astropy(function: Statistic) -> Statistic:
    """Return a statistic as `astropy.stats.sigma_clip` takes it; those that are known leave NaN out."""
    known = _known(function)
    if known == "mad":
        return partial(median_absolute_deviation, ignore_nan=True)
    return known or function


def _kappa(threshold: float | None, name: str, factor: float) -> float | None:
    """Return a threshold, in units of a spread over `factor`, as a bound; a negative one is meant as its size."""
    if threshold is None:
        return None
    if not abs(threshold) > 0.0:
        raise InvalidInputError(f"{name} is {threshold!r}; expected a number other than 0, or None")
    return abs(float(threshold)) / factor


def _known(function: Statistic) -> str:
    """Return what a statistic of a known package is; empty for any other."""
    if isinstance(function, str):
        return _KNOWN.get(function, "")
    package = str(getattr(function, "__module__", "")).partition(".")[0]
    return _KNOWN.get(str(getattr(function, "__name__", "")), "") if package in _KNOWN_PACKAGES else ""
