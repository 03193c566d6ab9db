"""What ``auto`` means: the rule of rejection by the samples at a pixel, the normalization by levels that were measured.

`choose_options` looks at every frame once, on the grid that its statistics are made from, and hands those on.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from zemosaic_stack_core.frames.group import FrameGroup
from zemosaic_stack_core.kernel.rules.centered import MAD_TO_SIGMA
from zemosaic_stack_core.options import StackOptions
from zemosaic_stack_core.per_frame.normalization import (
    FrameStatistics,
    choose_reference,
    frame_statistics,
    match_frame,
)
from zemosaic_stack_core.per_frame.sample_grid import SampleGrid, read_grid_samples, sample_grid
from zemosaic_stack_core.system.quantities import count_text, percent_text

# Options that may be left to `choose_options`.
AUTO_NAMES = frozenset(("rejection", "normalization"))

# Samples at a pixel from which kappa_sigma rejects two outliers and takes the least clean data (docs/rejection.md).
_MANY = 20
# Part of the pixels that may have fewer samples than that.
_FEW_PIXELS = 0.1
# percentile_clip is of use where its upper bound is at so many standard deviations of the sky: at the least it loses
# little clean data, at the most it still finds a satellite.
_PERCENTILE_SIGMAS = (4.0, 20.0)
# Levels agree where they differ by less (root mean square), in noise per sample: that moves no bound of a rule, and
# where one frame of four ends it is half of the noise of 8 x 8 pixels.
_LEVEL = 0.1
# Fluxes agree to this part: air mass and the errors of a registration change as much on a clear night.
_FLUX = 0.05
# A normalization that also scales must make the fluxes agree better by this factor.
_BETTER = 0.6
# Noise per sample from which two samples tell a flux, half of that each of them; so many samples at least.
_BRIGHT, _LEAST_BRIGHT = 8.0, 50
# Clips of what is far from the most.
_CLIPS = 3
# Samples of a frame that its level is compared by: that of a sky is then known to 0.01 of its noise.
_LEVEL_SAMPLES = 1 << 15
# Samples in common that tell a level; half of all of a small frame.
_LEAST_COMMON = 1000
# Part of the range above which samples may be saturated.
_SATURATED = 0.8
# Places of the grid at which samples are counted.
_COUNTED = 4096
# By what they change: the first that does is taken.
_NORMALIZATIONS = ("none", "additive", "multiplicative", "linear_fit")

_KEEPS_LEVEL = ("none", "their level is what these calibration frames are for")
_OF_CALIBRATION = {
    **dict.fromkeys(("dark", "bias", "dark flat"), _KEEPS_LEVEL),
    "flat": ("multiplicative", "flats differ in their light"),
}

_Floats = npt.NDArray[np.float64]
_Samples = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Choice:
    """Options with nothing left to choose."""

    options: StackOptions
    # What was chosen and why.
    lines: tuple[str, ...] = ()
    # Of all frames, where they were looked at.
    statistics: tuple[FrameStatistics, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class _Look:
    """A frame, and how it compares with the base frame where both have samples; NaN where too few tell."""

    statistics: FrameStatistics
    # Where it has a sample, of the places that are counted.
    present: npt.NDArray[np.bool_]
    # Shape (channel,): medians of this frame and of the base, this frame's flux over the base's, and the noise per
    # sample, which a nebula is no part of.
    level: _Floats
    base_level: _Floats
    flux: _Floats
    noise: _Floats


def choose_options(
    group: FrameGroup, options: StackOptions, auto: frozenset[str], *, kind: str = "", workers: int = 1
) -> Choice:
    """Return `options` with those named in `auto` chosen for these frames, and why; frames are read in threads.

    `kind` is that of calibration frames: the level of darks and biases is what they are for, and flats are factors.
    """
    frames = len(group.sources)
    needs_look = "normalization" in auto or ("rejection" in auto and (frames == 3 or frames >= _MANY))
    looks = []
    if needs_look and frames > 1:
        looks = _look_at(
            group.within(options.reject_below, options.reject_above).cut(options.statistics_section), workers
        )
    lines = []
    if "rejection" in auto:
        options, why = choose_rule(options, frames, looks)
        lines.append(f"rejection {options.rejection}: {why}")
    if "normalization" in auto:
        normalization, why = _OF_CALIBRATION.get(kind) or _choose_normalization(options, looks)
        options = replace(options, normalization=normalization)
        lines += [f"normalization {normalization}: {why}"] * (frames > 1)
    return Choice(options, tuple(lines), tuple(look.statistics for look in looks))


def _look_at(group: FrameGroup, workers: int) -> list[_Look]:
    """Read every frame once and compare it with one in the middle that has samples."""
    grid = sample_grid(group.rows, group.columns)
    frames = range(len(group.sources))
    base = np.empty((group.channels, 0), np.float32)
    for frame in sorted(frames, key=lambda frame: abs(frame - len(frames) // 2)):
        base = read_grid_samples(group.sources[frame], group.masks[frame], grid=grid).coarse
        if np.isfinite(base).any():
            break
    statistics = frame_statistics(base)
    with ThreadPoolExecutor(max(1, min(workers, len(frames))), thread_name_prefix="look") as pool:
        try:
            return list(pool.map(lambda frame: _look(group, frame, grid, (base, statistics)), frames))
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _look(group: FrameGroup, frame: int, grid: SampleGrid, base: tuple[_Samples, FrameStatistics]) -> _Look:
    """Read one frame, take its statistics, and compare it with the base frame."""
    samples = read_grid_samples(group.sources[frame], group.masks[frame], grid=grid)
    values = samples.coarse
    step = max(1, values.shape[1] // _COUNTED)
    bases = zip(values, base[0], base[1].noise, strict=True)
    with np.errstate(over="ignore"):  # samples near the end of float32 are no brighter for it
        pairs = [_compare(mine, its, float(noise)) for mine, its, noise in bases]
    level, base_level, flux, noise = np.array(pairs, np.float64).T
    present = np.asarray(np.isfinite(values[:, ::step]).any(axis=0))
    return _Look(frame_statistics(samples.values), present, level, base_level, flux, noise)


def _compare(mine: _Samples, its: _Samples, noise: float) -> tuple[float, float, float, float]:
    """Return what a `_Look` has of two frames' samples; `noise` is that of the second, structure included."""
    some = slice(None, None, max(1, mine.size // _LEVEL_SAMPLES))
    both = np.isfinite(mine[some]) & np.isfinite(its[some])
    if both.sum() < min(_LEAST_COMMON, mine.size // 2) or not both.any():
        return (math.nan,) * 4
    a, b = mine[some][both].astype(np.float64), its[some][both].astype(np.float64)
    level, base_level = float(np.median(a)), float(np.median(b))
    off = a - b
    apart = MAD_TO_SIGMA * float(np.median(np.abs(off - np.median(off)))) / math.sqrt(2.0)
    noise = min(apart or noise, noise)  # of the base and itself nothing is left
    # Bright samples are few: all are looked at.
    up, base_up = mine - np.float32(level), its - np.float32(base_level)
    highest = _SATURATED * min(float(np.fmax.reduce(up)), float(np.fmax.reduce(base_up)))
    # By what both have together: a choice by one of them would take the samples whose noise is up in it.
    is_bright = (
        (up + base_up > 2 * _BRIGHT * noise)
        & (np.minimum(up, base_up) > _BRIGHT / 2 * noise)
        & (np.maximum(up, base_up) < highest)
    )
    if is_bright.sum() < _LEAST_BRIGHT or not noise > 0.0:
        return level, base_level, math.nan, noise
    angles = np.arctan2(up[is_bright], base_up[is_bright])
    for _ in range(_CLIPS):  # a trail over a galaxy
        off = np.abs(angles - np.median(angles))
        angles = angles[off <= 3.0 * MAD_TO_SIGMA * np.median(off)]
    return level, base_level, math.tan(float(np.median(angles))), noise


def choose_rule(options: StackOptions, frames: int, looks: Sequence[_Look] = ()) -> tuple[StackOptions, str]:
    """Return the options with the rule for so many frames, by the samples at a pixel where they were looked at."""
    if options.combine in ("min", "max"):
        return replace(options, rejection="none", grow_radius=0.0), f"combine {options.combine} asks for the extremes"
    if frames < 3:
        few = f"{count_text(frames, 'frame')}, too few to tell which sample is wrong"
        return replace(options, rejection="none", grow_radius=0.0), few
    if frames == 3:
        bound = (options.p_high or 0.0) * _sky_in_sigmas([look.statistics for look in looks])
        if _PERCENTILE_SIGMAS[0] <= bound <= _PERCENTILE_SIGMAS[1]:
            return replace(options, rejection="percentile_clip"), f"3 frames; its upper bound is at {bound:.2g} sigma"
        return replace(options, rejection="mad_clip"), "3 frames; it takes a tenth of clean data, others find nothing"
    counts = np.sum([look.present for look in looks], axis=0) if looks else np.array([frames])
    fewest = int(np.quantile(counts[counts > 0], _FEW_PIXELS, method="lower")) if counts.any() else frames
    if frames < _MANY:
        return replace(options, rejection="winsorized_sigma_clip"), f"{frames} frames; kappa_sigma from {_MANY} on"
    if fewest < _MANY:
        why = f"{frames} frames, but a tenth of the pixels has {fewest} samples or fewer; kappa_sigma from {_MANY} on"
        return replace(options, rejection="winsorized_sigma_clip"), why
    return replace(options, rejection="kappa_sigma"), f"{frames} frames, {_MANY} are enough for it"


def _sky_in_sigmas(frames: Sequence[FrameStatistics]) -> float:
    """Return the least sky of frames over their noise."""
    with np.errstate(all="ignore"):
        ratios = np.array([frame.median / frame.noise for frame in frames])
    return float(np.min(ratios, initial=math.inf, where=np.isfinite(ratios)))


@dataclass(frozen=True, slots=True)
class _Fit:
    """What a normalization leaves: differences of levels in noise per sample, of fluxes as parts; root mean squares."""

    name: str
    level: float
    flux: float

    @property
    def is_good(self) -> bool:
        """Whether what is left does not matter."""
        return self.level <= _LEVEL and self.flux <= _FLUX


def _choose_normalization(options: StackOptions, looks: Sequence[_Look]) -> tuple[str, str]:
    """Return the normalization after which levels and fluxes of frames agree, and why that."""
    if options.rejection == "noise_clip":
        return "none", "gain and read noise of noise_clip are those of frames as they are"
    compared = [look for look in looks if np.isfinite(look.level).all()]
    if len(compared) < 2 or 2 * len(compared) < len(looks):
        return "none", "1 frame" if len(looks) < 2 else "the frames have too little in common to compare their levels"
    statistics = [look.statistics for look in looks]
    reference = choose_reference(statistics) if options.reference == "auto" else options.reference
    if reference is None or reference >= len(looks):  # the second is an error, said where the frames are stacked
        return "none", "no frame has samples in every channel"
    fits = [fit for name in _NORMALIZATIONS if (fit := _fit(name, compared, statistics[reference])) is not None]
    best = fits[0]
    for fit in fits[1:]:
        is_closer = best.level > _LEVEL and fit.level < best.level / 2 and fit.flux <= best.flux
        is_truer = fit.level <= max(_LEVEL, best.level) and fit.flux < _BETTER * best.flux
        if not best.is_good and (is_closer or is_truer):
            best = fit
    return best.name, _describe(fits[0], best, compared)


def _fit(name: str, looks: Sequence[_Look], reference: FrameStatistics) -> _Fit | None:
    """Return what a normalization leaves; None where it can't be done, or nothing tells if its scales are right."""
    matched = [match_frame(name, look.statistics, reference) for look in looks]
    scales = np.array([one.scale for one in matched])
    flux = np.array([look.flux for look in looks])
    known = np.isfinite(flux).all(axis=1)
    if any(one.problem for one in matched) or (not known.any() and name in ("multiplicative", "linear_fit")):
        return None
    noise = np.maximum(np.median([look.noise for look in looks], axis=0), np.finfo(np.float32).tiny)
    level = scales * [look.level for look in looks] + [one.offset for one in matched]
    # The base frame, too, is normalized: by as much as it is seen to be beside itself.
    base = next((i for i, look in enumerate(looks) if np.array_equal(look.level, look.base_level)), 0)
    base_level = scales[base] * [look.base_level for look in looks] + matched[base].offset
    left = (level - base_level) / noise
    left -= np.median(left, axis=0)
    spread = np.log(np.maximum(scales * flux, 1e-6))[known]
    return _Fit(
        name=name,
        level=float(np.sqrt((left**2).mean(axis=0)).max()),
        flux=float(np.std(spread, axis=0).max()) if known.sum() > 1 else 0.0,
    )


def _describe(before: _Fit, chosen: _Fit, looks: Sequence[_Look]) -> str:
    """Return why a normalization was chosen, from what was measured."""
    skies = np.array([look.statistics.median for look in looks])
    channel = int(np.argmax(np.ptp(skies, axis=0)))
    levels = f"levels from {skies[:, channel].min():.4g} to {skies[:, channel].max():.4g}"
    flux = np.array([look.flux for look in looks]).mean(axis=1)
    flux = flux[np.isfinite(flux)]
    stars = f", fluxes from {percent_text(100 * flux.min() / flux.max(), '.0f')} to 100 %" if len(flux) > 1 else ""
    if before.level <= _LEVEL:
        return f"levels agree to {before.level:.2g} of the noise" + stars * (before.flux > _FLUX)
    rest = f"; {chosen.level:.1f} times the noise apart after it" if chosen.level > 3 * _LEVEL else ""
    return f"{levels}, {before.level:.2g} times the noise apart{stars}{rest}"
