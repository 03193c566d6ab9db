"""What a rule of rejection can and can't do with so many frames, found out before they are stacked.

The rule itself is asked: the kernel runs on simulated clean frames, and on the same frames with outliers in some of
them. So the figures hold for any rule and any number of frames, and can't drift away from what the kernel does. The
limit that no sample can pass, however far out, has a closed form: `largest_deviation`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from zemosaic_stack_core.backends import plain_numpy_backend
from zemosaic_stack_core.options import KAPPA_RULES, StackOptions
from zemosaic_stack_core.stacking.run import stack
from zemosaic_stack_core.system.quantities import count_text, percent_text

# Simulated clean samples: 0.3 % of them are known to 7 % of that.
_SAMPLES = 1 << 16
_OUTLIER_PIXELS = 64
# With more frames than this a rule's fractions hardly change.
_MOST_SIMULATED = 100
# An outlier that nothing but other outliers can hide, in standard deviations.
_FAR = 1000.0
_MOSTLY = 0.9
_AMPLITUDES = (3.0, 3.5, 4.0, 4.5, 5.0, 6.0, 7.0, 8.0, 10.0, 12.0, 15.0, 20.0, 30.0, 50.0, 100.0)
# A plain outlier, in standard deviations: a rule that leaves it in does not do its work.
_PLAIN = 15.0
# A rule that takes more clean data than this costs more than it saves, where another does as well.
_HIGH_LOSS = 0.03
_LEVEL = 1000.0
_NOISE = 20.0
_OTHERS = ("kappa_sigma", "winsorized_sigma_clip", "linear_fit_clip", "mad_clip")
# Their loss depends on how the noise compares with the sky's level, which the options do not say.
_RELATIVE_RULES = ("percentile_clip",)


@dataclass(frozen=True, kw_only=True)
class Advice:
    """What a rule does with so many frames."""

    n_frames: int
    # The rule and the numbers that act, in words.
    rule: str
    # Fraction of clean samples of normal noise that is rejected; None where it depends on the data.
    clean_loss: float | None
    # So many far outliers on one pixel, all bright, are all rejected in nine of ten pixels; more hide each other.
    most_outliers: int
    # A single outlier this far up, in standard deviations of the noise, is rejected in nine of ten pixels; None where
    # none is, or where it was not looked for.
    least_amplitude: float | None = None
    # Most standard deviations that any sample can lie from the center, where the rule measures in those.
    limit: float | None = None
    # What is wrong with this choice, one clause; empty where nothing is.
    problem: str = ""
    # A rule that would do better, and what it does; empty where none is needed or known.
    better: str = ""

    @property
    def line(self) -> str:
        """The advice on one line."""
        if self.problem:
            return f"advice: {self.problem}" + (f"; {self.better}" if self.better else "")
        loss = "" if self.clean_loss is None else f"takes {_percent(self.clean_loss)} of clean data, "
        return f"advice: {self.rule} with {self.n_frames} frames {loss}rejects up to {_outliers(self.most_outliers)}"

    @property
    def lines(self) -> tuple[str, ...]:
        """The advice in full."""
        lines = [f"{self.rule} with {count_text(self.n_frames, 'frame')}:"]
        if self.n_frames < 3 or self.rule == "no rejection":
            return (*lines, f"  {self.problem}")
        if self.clean_loss is None:
            lines.append("  what it takes of clean data depends on the noise and the level of the sky")
        else:
            lines.append(f"  takes {_percent(self.clean_loss)} of clean data (normal noise)")
        if self.limit is not None:
            lines.append(f"  no sample can lie more than {self.limit:.2f} standard deviations from the center")
        if self.most_outliers:
            lines.append(f"  rejects up to {_outliers(self.most_outliers)}; more of them hide each other")
        if self.least_amplitude is not None:
            lines.append(f"  rejects a single outlier from {self.least_amplitude:g} sigma up (nine times in ten)")
        if self.problem:
            lines.append(f"  {self.problem}")
        if self.better:
            lines.append(f"  {self.better}")
        return tuple(lines)


def _percent(fraction: float) -> str:
    """Return a fraction in percent, two digits."""
    return "nothing" if fraction == 0.0 else percent_text(100.0 * fraction, ".2g")


def _outliers(count: int) -> str:
    """Return so many outliers in words."""
    return "1 bright outlier on a pixel" if count == 1 else f"{count} bright outliers on a pixel"


def largest_deviation(n_samples: int, center: str) -> float:
    """Return how far a sample can lie from the center of its list, in standard deviations of the list (ddof 0).

    The distance is from the `center`, "median" or "mean"; the standard deviation is about the mean in either case. The
    bound is reached.

    Notes
    -----
    About the mean, ``sqrt(n - 1)``: one sample at 1, the others at 0; with the sample standard deviation (ddof 1) it is
    the better known ``(n - 1) / sqrt(n)``. About the median,
    ``sqrt(n (k + 2) / (k + 1))`` with ``k = floor(n / 2)`` for n > 2: one sample at 1, ``k + 1`` at the median 0, and
    the others, which may lie anywhere above it, at the mean ``1 / (k + 2)``, where they add nothing to the variance.

    References
    ----------
    Samuelson, P. A. (1968), How deviant can you be?, Journal of the American Statistical Association 63, 1522 (the
    mean's bound).
    """
    n = n_samples
    if center == "mean" or n <= 2:
        return math.sqrt(n - 1)
    half = n // 2
    return math.sqrt(n * (half + 2) / (half + 1))


@lru_cache(maxsize=256)
def advise(n_frames: int, options: StackOptions, *, is_thorough: bool = False) -> Advice:
    """Find out what the rule of `options` does with so many frames; growth, normalization and the like are left aside.

    `is_thorough` also finds the faintest outlier that is rejected. The simulation has its own fixed random numbers.
    """
    plain = replace(StackOptions(), **{name: getattr(options, name) for name in _RULE_FIELDS})
    rule = rule_text(options)
    if options.rejection == "none" or n_frames < 3:
        problem = "no rejection: satellites, cosmic rays and hot pixels stay in the image"
        if n_frames < 3:
            problem = f"{n_frames} frame{'s' * (n_frames > 1)}: too few to tell which sample is wrong"
        return Advice(n_frames=n_frames, rule=rule, clean_loss=0.0, most_outliers=0, problem=problem)
    loss, most = _simulate(n_frames, plain)
    limit = largest_deviation(n_frames, options.center) if options.rejection == "kappa_sigma" else None
    problem = _find_problem(n_frames, plain, loss, most, limit)
    return Advice(
        n_frames=n_frames,
        rule=rule,
        clean_loss=None if options.rejection in _RELATIVE_RULES else loss,
        most_outliers=most,
        least_amplitude=_least_amplitude(n_frames, plain) if is_thorough and most > 0 else None,
        limit=limit,
        problem=problem,
        better=_find_better(n_frames, plain, loss, most) if problem else "",
    )


_RULE_FIELDS = (
    *("rejection", "kappa_low", "kappa_high", "max_iterations", "center", "p_low", "p_high", "n_low", "n_high"),
    *("winsor_limits", "gain", "read_noise", "sensitivity", "outlier_fraction", "alpha"),
)


def rule_text(options: StackOptions) -> str:
    """Return the rule with the numbers that act, in a few words: ``kappa_sigma 3/3, growing 2 px from 10 samples``."""
    numbers = {
        "percentile_clip": f" {_bound(options.p_low)}/{_bound(options.p_high)}",
        "minmax": f" {options.n_low}/{options.n_high}",
        "gesd": f" (alpha {options.alpha:g}, at most {options.outlier_fraction:.0%} outliers)",
    }
    if options.rejection in KAPPA_RULES:
        numbers[options.rejection] = f" {_bound(options.kappa_low)}/{_bound(options.kappa_high)}"
    rule = "no rejection" if options.rejection == "none" else options.rejection + numbers.get(options.rejection, "")
    if options.grow_radius == 0.0:
        return rule
    least = f"{options.grow_min_size} sample{'s' * (options.grow_min_size > 1)}"
    return f"{rule}, growing {options.grow_radius:g} px from {least}"


def _bound(value: float | None) -> str:
    """Return a bound as text."""
    return "none" if value is None else f"{value:g}"


def _find_problem(n_frames: int, options: StackOptions, loss: float, most: int, limit: float | None) -> str:
    """Return what is wrong with a choice."""
    rule = rule_text(options)
    kappas = (options.kappa_low, options.kappa_high)
    if limit is not None and all(kappa is None or limit <= kappa for kappa in kappas):
        return (
            f"{rule} rejects nothing at all with {n_frames} frames: no sample can lie more than {limit:.2f} standard "
            f"deviations from the {options.center}"
        )
    if most == 0 and options.rejection not in _RELATIVE_RULES:
        return f"{rule} does not reject even one bright outlier with {n_frames} frames"
    if (
        not _rejects(_outlier_frames(n_frames, options), options, 1, _PLAIN)
        and options.rejection not in _RELATIVE_RULES
    ):
        return f"{rule} with {n_frames} frames rejects no outlier fainter than {_PLAIN:g} sigma"
    if loss > _HIGH_LOSS and options.rejection not in _RELATIVE_RULES:
        return f"{rule} takes {_percent(loss)} of clean data with {n_frames} frames"
    return ""


def _find_better(n_frames: int, options: StackOptions, loss: float, most: int) -> str:
    """Return the rule that rejects at least as many outliers, and at least one, for the least loss."""
    is_blind = not _rejects(_outlier_frames(n_frames, options), options, 1, _PLAIN)
    found = []
    for rejection in _OTHERS:
        other = StackOptions(rejection=rejection)
        other_loss, other_most = _simulate(n_frames, other)
        sees = _rejects(_outlier_frames(n_frames, other), other, 1, _PLAIN)
        if sees and other_most >= max(1, most) and (is_blind or other_loss < loss / 2):
            found.append((other_loss > _HIGH_LOSS, -other_most, other_loss, rule_text(other)))
    if not found:
        return ""
    _, negative, other_loss, name = min(found)
    return f"{name} rejects up to {_outliers(-negative)} and takes {_percent(other_loss)} of clean data"


def _simulate(n_frames: int, options: StackOptions) -> tuple[float, int]:
    """Return the fraction of clean samples that is rejected, and how many far outliers are."""
    if options.rejection == "minmax":
        taken = options.n_low + options.n_high
        return (taken / n_frames, options.n_high) if n_frames > taken else (0.0, 0)
    n = min(n_frames, _MOST_SIMULATED)
    frames = _clean_frames(n, max(_OUTLIER_PIXELS, _SAMPLES // n), options)
    loss = _rejected(frames, options, range(n))
    low, high = 0, (n - 1) // 2  # bisection: with more outliers each is hidden better
    while low < high:
        middle = (low + high + 1) // 2
        if _rejects(frames, options, middle, _FAR):
            low = middle
        else:
            high = middle - 1
    return loss, low * n_frames // n


def _least_amplitude(n_frames: int, options: StackOptions) -> float | None:
    """Return the faintest single outlier that is mostly rejected."""
    frames = _outlier_frames(n_frames, options)
    return next((size for size in _AMPLITUDES if _rejects(frames, options, 1, size)), None)


def _outlier_frames(n_frames: int, options: StackOptions) -> npt.NDArray[np.float32]:
    """Return few pixels of clean frames, to put outliers in."""
    return _clean_frames(min(n_frames, _MOST_SIMULATED), _OUTLIER_PIXELS, options)


def _clean_frames(n: int, pixels: int, options: StackOptions) -> npt.NDArray[np.float32]:
    """Return clean frames of shape (frame, 1, pixel): normal noise, that of the model for ``noise_clip``."""
    random = np.random.Generator(np.random.PCG64(n))
    return (_LEVEL + _noise(options) * random.standard_normal((n, 1, pixels))).astype(np.float32)


def _noise(options: StackOptions) -> float:
    """Return the standard deviation of the simulated noise."""
    if options.rejection != "noise_clip":
        return _NOISE
    photons = _LEVEL / options.gain
    return math.sqrt((options.read_noise / options.gain) ** 2 + photons + (options.sensitivity * _LEVEL) ** 2)


def _rejects(frames: npt.NDArray[np.float32], options: StackOptions, outliers: int, size: float) -> bool:
    """Return whether nearly all samples of the first so many frames, made bright, are rejected."""
    some = frames[:, :, :_OUTLIER_PIXELS].copy()
    some[:outliers] += np.float32(size * _noise(options))
    return _rejected(some, options, range(outliers)) >= _MOSTLY


def _rejected(frames: npt.NDArray[np.float32], options: StackOptions, which: range) -> float:
    """Return which part of some frames' samples the kernel rejects."""
    # Compiling takes longer than so few samples do.
    result = stack(
        list(frames), options=options, maps=(), backend=plain_numpy_backend(), workers=1, memory_limit=1 << 28
    )
    rejected = sum(result.frames[index].rejected_low[0] + result.frames[index].rejected_high[0] for index in which)
    return float(rejected / (len(which) * frames.shape[2]))
