"""Where a rule of rejection drew its line at one pixel, in numbers and in words: for people who ask, not for the stack.

The kernel says which samples it kept; the bounds are computed again here from those, and told only where they agree.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from zemosaic_stack_core.kernel.rules.centered import MAD_TO_SIGMA
from zemosaic_stack_core.options import StackOptions

_Floats = npt.NDArray[np.float64]


class _Center(NamedTuple):
    """A rule's center and spread of some samples, with their names, and how many spreads it allows below and above."""

    name: str
    value: float
    spread_name: str
    spread: float
    low: float
    high: float


def describe_bounds(
    options: StackOptions, before: _Floats, present: _Floats, is_kept: npt.NDArray[np.bool_]
) -> tuple[tuple[float, float] | None, str]:
    """Return the values beyond which a rule rejected in its last iteration, and where they come from.

    Parameters
    ----------
    options : StackOptions
        The rule.
    before : array of shape (sample,), float64
        The samples that were left before the last iteration, ascending.
    present, is_kept : arrays of shape (sample,)
        All present samples, and whether the rule kept each.

    Returns
    -------
    bounds : tuple of float or None
        None for a rule without such a pair, and where an iteration was not applied because it would have left nothing.
    text : str
        In words; empty where nothing can be said.
    """
    if not before.size:
        return None, ""
    if options.rejection in _TEXTS:
        return None, _TEXTS[options.rejection](options, before)
    if options.rejection not in _CENTERS:
        return None, ""
    found = _CENTERS[options.rejection](options, before)
    bounds = (found.value - found.low * found.spread, found.value + found.high * found.spread)
    if (((bounds[0] <= present) & (present <= bounds[1])) != is_kept).any():
        return None, ""
    return bounds, (
        f"{found.name} {found.value:.6g} and {found.spread_name} {found.spread:.6g} of {before.size} samples: "
        f"rejected below {bounds[0]:.6g} (- {found.low:g}) and above {bounds[1]:.6g} (+ {found.high:g})"
    )


def _kappa_sigma(options: StackOptions, values: _Floats) -> _Center:
    """Return mean or median, and the standard deviation."""
    center = float(np.mean(values) if options.center == "mean" else np.median(values))
    spread = float(np.std(values))
    return _Center(options.center, center, "standard deviation", spread, options.kappa_low, options.kappa_high)


def _mad_clip(options: StackOptions, values: _Floats) -> _Center:
    """Return the median, and the median absolute deviation."""
    center = float(np.median(values))
    spread = MAD_TO_SIGMA * float(np.median(np.abs(values - center)))
    name = "scaled median absolute deviation"
    return _Center("median", center, name, spread, options.kappa_low, options.kappa_high)


def _noise_clip(options: StackOptions, values: _Floats) -> _Center:
    """Return the median, and the noise expected there."""
    center = float(np.median(values))
    read, photons = options.read_noise / options.gain, max(center, 0.0) / options.gain
    spread = float(np.sqrt(read * read + photons + (options.sensitivity * center) ** 2))
    return _Center("median", center, "expected noise", spread, options.kappa_low, options.kappa_high)


def _percentile_clip(options: StackOptions, values: _Floats) -> _Center:
    """Return the median as both."""
    center = float(np.median(values))
    return _Center("median", center, "level", abs(center), options.p_low, options.p_high)


def _winsorized_sigma_clip(options: StackOptions, values: _Floats) -> _Center:
    """Return the median, and the deviation of the samples pulled in to 1.5 of it, until that stands."""
    center = float(np.median(values))
    spread = float(np.std(values, ddof=1)) if values.size > 1 else 0.0
    winsorized = values
    for _ in range(50):
        before = spread
        winsorized = np.clip(winsorized, center - 1.5 * spread, center + 1.5 * spread)
        spread = 1.134 * float(np.std(winsorized, ddof=1)) if values.size > 1 else 0.0
        if abs(spread - before) <= 5e-4 * before:
            break
    return _Center("median", center, "winsorized deviation", spread, options.kappa_low, options.kappa_high)


def _winsorized_quantile(options: StackOptions, values: _Floats) -> _Center:
    """Return median and standard deviation of the samples pulled in to two quantiles, and clipped."""
    last = values.size - 1
    low, high = options.winsor_limits
    winsorized = np.clip(values, values[round(low * last)], values[round((1.0 - high) * last)])
    left = winsorized
    for _ in range(5):
        center, spread = float(np.median(left)), float(np.std(left))
        clipped = left[np.abs(left - center) <= 3.0 * spread]
        if clipped.size in (0, left.size):
            break
        left = clipped
    center, spread = float(np.median(left)), float(np.std(left))
    return _Center("median", center, "winsorized deviation", spread, options.kappa_low, options.kappa_high)


def _linear_fit_clip(options: StackOptions, values: _Floats) -> str:
    """Tell the line and the residuals."""
    if values.size < 5:
        return f"fewer than 5 samples are left ({values.size}): nothing more is rejected"
    rank = np.arange(values.size)
    slope, start = np.polyfit(rank, values, 1)
    spread = float(np.mean(np.abs(values - (start + slope * rank))))
    return (
        f"line {start:.6g} + {slope:.6g} x rank through {values.size} samples, mean absolute residual {spread:.6g}: "
        f"rejected from the ends while below it by {options.kappa_low * spread:.6g} (- {options.kappa_low:g}) or above "
        f"by {options.kappa_high * spread:.6g} (+ {options.kappa_high:g})"
    )


def _minmax(options: StackOptions, values: _Floats) -> str:
    """Tell the numbers."""
    if values.size <= options.n_low + options.n_high:
        return f"{values.size} samples, not more than {options.n_low} + {options.n_high}: nothing is rejected"
    return f"the {options.n_low} lowest and the {options.n_high} highest of {values.size} samples are rejected"


def _gesd(options: StackOptions, values: _Floats) -> str:
    """Tell what was tested."""
    most = int(options.outlier_fraction * values.size)
    return f"up to {most} outliers are looked for among {values.size} samples, at level {options.alpha:g}"


_CENTERS: dict[str, Callable[[StackOptions, _Floats], _Center]] = {
    "kappa_sigma": _kappa_sigma,
    "mad_clip": _mad_clip,
    "noise_clip": _noise_clip,
    "percentile_clip": _percentile_clip,
    "winsorized_sigma_clip": _winsorized_sigma_clip,
    "winsorized_quantile": _winsorized_quantile,
}
_TEXTS: dict[str, Callable[[StackOptions, _Floats], str]] = {
    "linear_fit_clip": _linear_fit_clip,
    "minmax": _minmax,
    "gesd": _gesd,
}
