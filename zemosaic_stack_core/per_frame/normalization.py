"""From the statistics of frames: the reference frame, and each frame's scale and offset to it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from zemosaic_stack_core.kernel.rules.centered import MAD_TO_SIGMA
from zemosaic_stack_core.options import NORMALIZATIONS, check_choice

# Weights of the three channels in the luminance.
LUMINANCE = (0.299, 0.587, 0.114)
_CLIP_KAPPA, _CLIP_ITERATIONS = 3.0, 5
_LINEAR_FIT_PERCENTILES = (25.0, 90.0)
# linear_fit: least difference of the two percentiles, of the larger one; largest scale.
_SMALLEST_RANGE = 1e-3
_LARGEST_SCALE = 20.0
# multiplicative: least median, of the frame's spread; below it the ratio's error exceeds some percent.
_SMALLEST_LOCATION = 0.1

_Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class FrameStatistics:
    """What is known of one frame's levels, input units: shape (channel,), float64, NaN without a present sample."""

    # 25th and 90th percentile.
    low: _Floats
    high: _Floats
    median: _Floats
    # 1.4826 times the median absolute deviation.
    spread: _Floats
    # Standard deviation after a 3-sigma, 5-iteration clip about the median.
    noise: _Floats
    # 25th percentile of the luminance; of the first channel where there are not three.
    luminance_low: float


@dataclass(frozen=True, slots=True)
class Normalization:
    """Scale and offset of one frame, shape (channel,), float64; the identity and the reason where it has none."""

    scale: _Floats
    offset: _Floats
    problem: str = ""


def frame_statistics(values: npt.NDArray[np.float32]) -> FrameStatistics:
    """Return the statistics of a frame's samples, shape (channel, sample), input units; what is not finite is missing.

    Notes
    -----
    Percentiles interpolate linearly between samples (Hyndman and Fan's type 7, NumPy's ``"linear"``), in float64. The
    luminance is of the samples that are present in all three channels.
    """
    channels = [_channel_statistics(channel) for channel in values]
    low, high, median, spread, noise = np.array(channels, np.float64).T
    return FrameStatistics(low, high, median, spread, noise, _luminance_low(values, float(low[0])))


def _channel_statistics(values: npt.NDArray[np.float32]) -> tuple[float, float, float, float, float]:
    """Return 25th and 90th percentile, median, spread and noise of samples of shape (sample,)."""
    ordered = np.sort(values[np.isfinite(values)]).astype(np.float64)
    if not ordered.size:
        return (math.nan,) * 5
    low, high = (_percentile(ordered, percent) for percent in _LINEAR_FIT_PERCENTILES)
    median = _percentile(ordered, 50.0)
    below = int(np.searchsorted(ordered, median))
    deviations = np.concatenate((median - ordered[:below][::-1], ordered[below:] - median))
    deviations.sort(kind="stable")  # two ascending runs: it merges them, in a tenth of a selection's time
    return low, high, median, MAD_TO_SIGMA * _percentile(deviations, 50.0), _clipped_deviation(ordered, median)


def _percentile(ordered: _Floats, percent: float) -> float:
    """Return a percentile of ascending samples."""
    place = percent / 100.0 * (len(ordered) - 1)
    below = int(place)
    above = min(below + 1, len(ordered) - 1)
    return float(ordered[below] + (place - below) * (ordered[above] - ordered[below]))


def _clipped_deviation(ordered: _Floats, median: float) -> float:
    """Return the standard deviation of ascending samples after `kappa_sigma`'s clip."""
    kept = slice(0, len(ordered))
    deviation = 0.0
    for iteration in range(_CLIP_ITERATIONS + 1):
        part = ordered[kept]
        median = _percentile(part, 50.0)
        deviation = float(np.std(part))
        if iteration == _CLIP_ITERATIONS:
            break
        first = int(np.searchsorted(ordered, median - _CLIP_KAPPA * deviation, "left"))
        last = int(np.searchsorted(ordered, median + _CLIP_KAPPA * deviation, "right"))
        if (first, last) == (kept.start, kept.stop):
            break
        kept = slice(first, last)
    return deviation


def _luminance_low(values: npt.NDArray[np.float32], low: float) -> float:
    """Return the 25th percentile of the luminance; `low` where there are not three channels."""
    if len(values) != len(LUMINANCE):
        return low
    luminance = np.zeros(values.shape[1], np.float64)
    for weight, channel in zip(LUMINANCE, values, strict=True):
        luminance += weight * channel.astype(np.float64)
    ordered = np.sort(luminance[np.isfinite(luminance)])
    return _percentile(ordered, _LINEAR_FIT_PERCENTILES[0]) if ordered.size else math.nan


def match_frame(normalization: str, frame: FrameStatistics, reference: FrameStatistics) -> Normalization:
    """Return the scale and offset that bring a frame to the level of the reference, per channel.

    It is the identity, with the reason, where a statistic can't be had in any channel: a color frame is normalized in
    all its channels or in none.

    Notes
    -----
    With percentiles 25 and 90 (s_lo, s_hi), median L, spread S = 1.4826 MAD, and those of the reference:

    ``linear_fit``
        scale = (r_hi - r_lo) / (s_hi - s_lo), offset = r_lo - scale s_lo. Refused where either difference is at most
        1e-3 of the larger of its two percentiles, or abs(scale) > 20.
    ``sky_mean``
        offset = difference of the 25th percentiles of the luminance, the same for all channels.
    ``additive``
        offset = L_ref - L.
    ``multiplicative``
        scale = L_ref / L. Refused where either abs(L) is at most a tenth of its spread, or the signs differ.
    ``additive_scaling``
        scale = S_ref / S, offset = L_ref - scale L. Refused where either spread is zero.
    """
    check_choice("normalization", normalization, NORMALIZATIONS)
    identity = np.ones(len(frame.median)), np.zeros(len(frame.median))
    if normalization == "none":
        return Normalization(*identity)
    for which, statistics in (("reference frame", reference), ("frame", frame)):
        problem = _problem_of(normalization, statistics)
        if problem:
            return Normalization(*identity, f"{normalization}: the {which} has {problem}")
    scale, offset = _scale_and_offset(normalization, frame, reference)
    problem = _problem_with(normalization, scale, offset)
    return Normalization(*identity, f"{normalization}: {problem}") if problem else Normalization(scale, offset)


def _scale_and_offset(
    normalization: str, frame: FrameStatistics, reference: FrameStatistics
) -> tuple[_Floats, _Floats]:
    """Return what the formula of a normalization gives."""
    scale, offset = np.ones(len(frame.median)), np.zeros(len(frame.median))
    if normalization == "linear_fit":
        scale = (reference.high - reference.low) / (frame.high - frame.low)
        offset = reference.low - scale * frame.low
    elif normalization == "sky_mean":
        offset = np.full(len(scale), reference.luminance_low - frame.luminance_low)
    elif normalization == "additive":
        offset = reference.median - frame.median
    elif normalization == "multiplicative":
        scale = reference.median / frame.median
    else:
        scale = reference.spread / frame.spread
        offset = reference.median - scale * frame.median
    return scale, offset


def _problem_of(normalization: str, statistics: FrameStatistics) -> str:
    """Return why a frame's statistics are of no use for a normalization; empty where they are."""
    if not (np.isfinite(statistics.median).all() and math.isfinite(statistics.luminance_low)):
        return "a channel without finite samples"
    if normalization == "linear_fit":
        for low, high in zip(statistics.low, statistics.high, strict=True):
            if high - low <= _SMALLEST_RANGE * max(abs(low), abs(high)):
                return (
                    f"percentiles {low:g} and {high:g}; expected a difference above {_SMALLEST_RANGE:g} of the larger"
                )
    if normalization == "multiplicative":
        for median, spread in zip(statistics.median, statistics.spread, strict=True):
            if abs(median) <= _SMALLEST_LOCATION * spread:
                return (
                    f"median {median:g} and spread {spread:g}; expected a median above {_SMALLEST_LOCATION:g} spreads"
                )
    if normalization == "additive_scaling" and not (statistics.spread > 0.0).all():
        return "a spread of 0; expected one above"
    return ""


def _problem_with(normalization: str, scale: _Floats, offset: _Floats) -> str:
    """Return why a scale and offset are of no use; empty where they are."""
    with np.errstate(over="ignore"):
        numbers = np.float32(scale), np.float32(offset)
    if not (np.isfinite(numbers[0]).all() and np.isfinite(numbers[1]).all() and numbers[0].all()):
        return f"scale {_listed(scale)} and offset {_listed(offset)}; expected finite float32 numbers, scale not 0"
    if normalization == "linear_fit" and (np.abs(scale) > _LARGEST_SCALE).any():
        return f"scale {_listed(scale)}; expected at most {_LARGEST_SCALE:g}"
    if normalization == "multiplicative" and (scale < 0.0).any():
        return f"scale {_listed(scale)}; expected medians of the same sign"
    return ""


def _listed(numbers: _Floats) -> str:
    """Return numbers as text."""
    return ", ".join(f"{number:g}" for number in numbers)


def choose_reference(frames: Sequence[FrameStatistics]) -> int | None:
    """Return the frame that the others are best normalized to: the lowest noise among those of median background.

    It is None where no frame has finite samples in every channel.

    Notes
    -----
    Background and noise of a frame are the means, over its channels, of its medians and of its `noise`. Candidates are
    the half of the frames (those with finite samples in every channel, and with noise, where any has) whose background
    is nearest the median background: the frames at most the median distance from it. The one with the least noise is
    the reference; of equal ones the first. A short exposure or a cloud lowers the noise too: that is why the background
    comes first.
    """
    background = np.array([frame.median.mean() for frame in frames])
    noise = np.array([frame.noise.mean() for frame in frames])
    usable = np.isfinite(background) & np.isfinite(noise)
    if not usable.any():
        return None
    with_noise = usable & np.array([bool((frame.noise > 0.0).all()) for frame in frames])
    usable = with_noise if with_noise.any() else usable
    distance = np.abs(background - np.median(background[usable]))
    candidate = usable & (distance <= np.median(distance[usable]))
    return int(np.argmin(np.where(candidate, noise, np.inf)))
