"""What to do with a group of frames: `StackOptions`, validated when it is made."""

from __future__ import annotations

import math
import numbers
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass, fields
from typing import Literal, TypeGuard

from zemosaic_stack_core.errors import InvalidInputError

REJECTIONS = (
    "none",
    "kappa_sigma",
    "mad_clip",
    "winsorized_sigma_clip",
    "winsorized_quantile",
    "linear_fit_clip",
    "percentile_clip",
    "minmax",
    "noise_clip",
    "gesd",
)
# Those that are repeated until nothing more is rejected, and those with bounds in units of a spread.
REPEATED_RULES = ("kappa_sigma", "mad_clip", "winsorized_sigma_clip", "linear_fit_clip", "noise_clip")
KAPPA_RULES = (*REPEATED_RULES, "winsorized_quantile")
CENTERS = ("median", "mean")
COMBINATIONS = ("mean", "median", "min", "max", "sum")
# Those in which samples can have weights.
WEIGHTED_COMBINATIONS = ("mean", "sum")
NORMALIZATIONS = ("none", "linear_fit", "sky_mean", "additive", "multiplicative", "additive_scaling")
WEIGHTINGS = ("none", "noise_variance", "noise_fwhm", "exposure", "inverse_variance")
ERRORS = ("given", "detector")
MAPS = ("coverage", "weight_map", "rejected_low", "rejected_high", "variance", "low", "high")
# A bit per sample: no map of pixels, and not among "all".
SAMPLE_MAPS = ("rejected",)
UNNORMALIZABLE_ACTIONS = ("keep", "exclude", "error")

# Options for which None means no bound on that side, or no limit.
UNBOUNDED = ("kappa_low", "kappa_high", "p_low", "p_high", "max_iterations")
# A part of an image as FITS and IRAF write it: columns, then rows, from 1, both ends included.
SECTION = re.compile(r"\[(?:\*|(\d+):(\d+|\*)),(?:\*|(\d+):(\d+|\*))\]")
_FLOATS = (
    *("kappa_low", "kappa_high", "p_low", "p_high", "gain", "read_noise", "sensitivity", "outlier_fraction", "alpha"),
    *("grow_radius", "radial_feather_fraction", "radial_shape_power", "radial_floor", "reject_below", "reject_above"),
)
_INTEGERS = ("max_iterations", "n_low", "n_high", "grow_min_size", "reference")


def check_choice(name: str, value: object, known: Collection[str]) -> None:
    """Raise `InvalidInputError` that lists the known names unless `value` is one of them."""
    if not isinstance(value, str) or value not in known:
        raise InvalidInputError(f"{name} is {value!r}; expected one of: {', '.join(known)}")


def check_maps(maps: Sequence[str] | str) -> frozenset[str]:
    """Return the maps asked for as a set; ``"all"`` is all of them. An unknown name raises `InvalidInputError`."""
    if maps == "all":
        return frozenset(MAPS)
    names = (maps,) if isinstance(maps, str) else tuple(maps)
    for name in names:
        check_choice("maps", name, (*MAPS, *SAMPLE_MAPS))
    return frozenset(names)


def is_whole_number(value: object, low: int) -> TypeGuard[int]:
    """Return whether `value` is an integer, of Python or of an array library, of at least `low`."""
    return isinstance(value, numbers.Integral) and not isinstance(value, bool) and int(value) >= low


def _check_number(name: str, value: object, low: float, high: float = math.inf, *, low_is_allowed: bool = True) -> None:
    """Raise unless `value` is a finite number in `[low, high]` (or `(low, high]`)."""
    usable = isinstance(value, numbers.Real) and not isinstance(value, bool) and math.isfinite(value)
    if not usable or not low <= value <= high or (value == low and not low_is_allowed):  # type: ignore[operator]
        bounds = "" if low == -math.inf else f" {'>=' if low_is_allowed else '>'} {low:g}"
        bounds += ("" if high == math.inf else f" and <= {high:g}") + (" or None" if name in UNBOUNDED else "")
        raise InvalidInputError(f"{name} is {value!r}; expected a finite number{bounds}")


def _check_integer(name: str, value: object, low: int) -> None:
    """Raise unless `value` is an integer of at least `low`."""
    if not is_whole_number(value, low):
        none = " or None" if name in UNBOUNDED else ""
        raise InvalidInputError(f"{name} is {value!r}; expected a whole number >= {low}{none}")


def _section_text(section: object) -> str:
    """Return a section as text: that of a pair of slices, and any other as it is; raise where it is none."""
    text = section.replace(" ", "") if isinstance(section, str) else section
    if isinstance(section, tuple) and all(isinstance(part, slice) and part.step in (None, 1) for part in section):
        ends = [(1 + (part.start or 0), "*" if part.stop is None else part.stop) for part in reversed(section)]
        text = f"[{','.join(f'{first}:{last}' for first, last in ends)}]"
    found = SECTION.fullmatch(text) if isinstance(text, str) else None
    pairs = [] if found is None else [(found[1], found[2]), (found[3], found[4])]
    bounded = [(int(first), int(last)) for first, last in pairs if first is not None and last != "*"]
    if found is None or "0" in found.groups() or any(first > last for first, last in bounded):
        raise InvalidInputError(
            f"statistics_section is {section!r}; expected '[first:last,first:last]' of columns and rows from 1, "
            "or a pair of slices of rows and columns"
        )
    return found[0]


@dataclass(frozen=True, kw_only=True, repr=False)
class StackOptions:
    """How frames are normalized, weighted, rejected and combined.

    Parameters
    ----------
    rejection : str
        Rule of rejection, one of `REJECTIONS`.
    kappa_low : float or None
        Samples further below the center than this many of the rule's spreads are rejected, above 0; None for no bound
        on that side. Used by ``kappa_sigma``, ``mad_clip``, ``winsorized_sigma_clip``, ``winsorized_quantile``,
        ``linear_fit_clip`` and ``noise_clip``.
    kappa_high : float or None
        The same above the center, above 0, or None.
    max_iterations : int or None
        Iterations of a repeated rule, at least 1; None until nothing more is rejected.
    center : {"median", "mean"}
        Centre of ``kappa_sigma``.
    p_low : float or None
        ``percentile_clip``: largest fraction of the median that a sample may lie below it, at least 0; None for
        no bound on that side.
    p_high : float or None
        ``percentile_clip``: the same above the median, at least 0, or None.
    n_low : int
        ``minmax``: lowest samples that are rejected, at least 0.
    n_high : int
        ``minmax``: highest samples that are rejected, at least 0.
    winsor_limits : tuple of float
        ``winsorized_quantile``: fractions ``(low, high)`` that are winsorized, each at least 0, together below 1.
    gain : float
        Noise model of ``noise_clip`` and of ``errors`` ``"detector"``: electrons per data unit, above 0.
    read_noise : float
        Noise model: read noise in electrons, at least 0.
    sensitivity : float
        Noise model: noise that is a fraction of the signal, at least 0.
    outlier_fraction : float
        ``gesd``: largest fraction of outliers looked for, 0 to 1.
    alpha : float
        ``gesd``: significance level, above 0, below 1.
    grow_radius : float
        Growth of rejected clusters: samples of the same frame within so many pixels of one are rejected too; 0 for no
        growth.
    grow_min_size : int
        Fewest rejected samples that, touching each other at sides or corners, are a cluster that grows, at least 1.
    reject_below : float or None
        Samples below, as read (input units, before any normalization), are missing: dead pixels. None for no limit.
    reject_above : float or None
        Samples above, as read, are missing: saturated pixels. None for no limit.
    combine : {"mean", "median", "min", "max", "sum"}
        Combination of the kept samples. A sum is of those that are there: it is smaller where some are missing.
    normalization : str
        How the frames are brought to one level, one of `NORMALIZATIONS`.
    reference : int or "auto"
        Index of the frame that the others are normalized to; ``"auto"`` takes, of the frames whose background is
        nearest the median, the one with the least noise.
    on_unnormalizable : {"keep", "exclude", "error"}
        What to do with a frame whose scale and offset can't be estimated.
    statistics_section : str or None
        Part of the frames in which levels, noise and star widths are measured, ``[first:last,first:last]`` of columns
        and rows from 1, ``*`` for an end or all of them; of Python, ``numpy.s_[rows, columns]`` too. None for all.
    weighting : str
        What gives a frame its weight, one of `WEIGHTINGS`.
    errors : {"given", "detector"}
        Variances of the samples: those given with the frames, if any, or what gain, read noise and sensitivity make.
    radial_feather_fraction : float or None
        Radial weight ``max(floor, cos(pi/2 * min(1, r/(feather*r_max)))**power)``, multiplied in per pixel: fraction of
        the distance to the corner at which it reaches its floor, above 0. None for no radial weight.
    radial_shape_power : float
        Exponent of the radial weight, above 0.
    radial_floor : float
        Least radial weight, 0 to 1. With 0 the pixels beyond the feather fraction are missing in every frame.

    Raises
    ------
    InvalidInputError
        A name is unknown (the message lists the known ones) or a number is out of range.
    """

    rejection: str = "kappa_sigma"
    kappa_low: float | None = 3.0
    kappa_high: float | None = 3.0
    max_iterations: int | None = 5
    center: str = "median"
    p_low: float | None = 0.2
    p_high: float | None = 0.1
    n_low: int = 1
    n_high: int = 1
    winsor_limits: tuple[float, float] = (0.05, 0.05)
    gain: float = 1.0
    read_noise: float = 5.0
    sensitivity: float = 0.0
    outlier_fraction: float = 0.3
    alpha: float = 0.05
    grow_radius: float = 0.0
    grow_min_size: int = 10
    reject_below: float | None = None
    reject_above: float | None = None
    combine: str = "mean"
    normalization: str = "none"
    reference: int | Literal["auto"] = "auto"
    on_unnormalizable: str = "keep"
    statistics_section: str | None = None
    weighting: str = "none"
    errors: str = "given"
    radial_feather_fraction: float | None = None
    radial_shape_power: float = 2.0
    radial_floor: float = 0.1

    def __repr__(self) -> str:
        values = ((one.name, getattr(self, one.name), one.default) for one in fields(self))
        return f"StackOptions({', '.join(f'{name}={value!r}' for name, value, default in values if value != default)})"

    def __post_init__(self) -> None:
        check_choice("rejection", self.rejection, REJECTIONS)
        check_choice("center", self.center, CENTERS)
        check_choice("combine", self.combine, COMBINATIONS)
        check_choice("normalization", self.normalization, NORMALIZATIONS)
        check_choice("weighting", self.weighting, WEIGHTINGS)
        check_choice("errors", self.errors, ERRORS)
        check_choice("on_unnormalizable", self.on_unnormalizable, UNNORMALIZABLE_ACTIONS)
        self._check_numbers()
        if self.reference != "auto":
            _check_integer("reference", self.reference, 0)
        self._check_winsor_limits()
        if self.statistics_section is not None:
            object.__setattr__(self, "statistics_section", _section_text(self.statistics_section))
        for names, kind in ((_FLOATS, float), (_INTEGERS, int)):
            for name in names:  # an array library's number becomes Python's, for headers and JSON
                value = getattr(self, name)
                if value is not None and value != "auto":
                    object.__setattr__(self, name, kind(value))
        if self.alpha >= 1.0:
            raise InvalidInputError(f"alpha is {self.alpha!r}; expected a number above 0 and below 1")
        if self.grow_radius > 0.0 and self.rejection == "none":
            raise InvalidInputError(
                f"grow_radius is {self.grow_radius!r} with rejection 'none'; expected a rule of rejection or 0"
            )
        if self.weighting != "none" and self.combine != "mean":
            raise InvalidInputError(
                f"weighting is {self.weighting!r} with combine {self.combine!r}; "
                "expected combine 'mean' or weighting 'none'"
            )
        if self.radial_feather_fraction is not None and self.combine != "mean":
            raise InvalidInputError(
                f"radial_feather_fraction is {self.radial_feather_fraction!r} with combine {self.combine!r}; "
                "expected combine 'mean' or no radial weight"
            )

    def _check_numbers(self) -> None:
        """Raise unless every number lies in its range; None stands where an option may be without one."""
        may_be_none = (*UNBOUNDED, "radial_feather_fraction", "reject_below", "reject_above")
        given = {name: getattr(self, name) for name in (*_FLOATS, *_INTEGERS)}
        given = {name: value for name, value in given.items() if not (value is None and name in may_be_none)}
        for name in given.keys() & {"kappa_low", "kappa_high", "gain", "radial_shape_power", "radial_feather_fraction"}:
            _check_number(name, given[name], 0.0, low_is_allowed=False)
        for name in given.keys() & {"p_low", "p_high", "read_noise", "sensitivity", "grow_radius"}:
            _check_number(name, given[name], 0.0)
        _check_number("radial_floor", self.radial_floor, 0.0, 1.0)
        for name in ("outlier_fraction", "alpha"):
            _check_number(name, given[name], 0.0, 1.0, low_is_allowed=False)
        for name in given.keys() & {"max_iterations", "grow_min_size"}:
            _check_integer(name, given[name], 1)
        for name in ("n_low", "n_high"):
            _check_integer(name, given[name], 0)
        for name in given.keys() & {"reject_below", "reject_above"}:
            _check_number(name, given[name], -math.inf)
        if {"reject_below", "reject_above"} <= given.keys() and not given["reject_below"] < given["reject_above"]:
            raise InvalidInputError(
                f"reject_below is {self.reject_below!r} with reject_above {self.reject_above!r}; expected a smaller one"
            )

    def _check_winsor_limits(self) -> None:
        """Raise unless the limits are two fractions of at least 0 that together stay below 1."""
        limits = self.winsor_limits
        if not isinstance(limits, (tuple, list)) or len(limits) != 2:
            raise InvalidInputError(f"winsor_limits is {limits!r}; expected two fractions (low, high)")
        for name, value in zip(("winsor_limits low", "winsor_limits high"), limits, strict=True):
            _check_number(name, value, 0.0, 1.0)
        if sum(limits) >= 1.0:
            raise InvalidInputError(f"winsor_limits is {limits!r}; expected a sum below 1")
        object.__setattr__(self, "winsor_limits", (float(limits[0]), float(limits[1])))
