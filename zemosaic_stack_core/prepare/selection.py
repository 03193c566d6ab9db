"""Which registered frames are used: how clear each was, how sharp, and what part of them is wanted."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from zemosaic_stack_core.errors import InvalidInputError
from zemosaic_stack_core.prepare.canvas.levels import sky_scatter
from zemosaic_stack_core.prepare.options import PrepareOptions
from zemosaic_stack_core.prepare.records import PreparedFrame
from zemosaic_stack_core.system.quantities import percent_text

# Of the clearest frame's light; a night's air mass alone changes less.
_DIM = 0.7
# Frames that a line names.
_LISTED = 5
# Noise per pixel; and five times what is usual in the set.
_SKY_DISAGREES = 3.0


def with_transparency(frames: Sequence[PreparedFrame]) -> list[PreparedFrame]:
    """Return frames with the light of their stars (per second where all times are known), that of the best is 1."""
    times = [frame.exposure for frame in frames]
    known = all(math.isfinite(time) and time > 0 for time in times)
    light = [1.0 / (frame.flux_ratio * (time if known else 1.0)) for frame, time in zip(frames, times, strict=True)]
    usable = [value for frame, value in zip(frames, light, strict=True) if not frame.dropped and math.isfinite(value)]
    best = max(usable, default=math.nan)
    return [replace(frame, transparency=value / best) for frame, value in zip(frames, light, strict=True)]


def dimmed_line(frames: Sequence[PreparedFrame]) -> str:
    """Return a line that names frames in use that lost much of the light, the dimmest first; empty without one."""
    used = [frame for frame in frames if not frame.dropped]
    dim = sorted((frame for frame in used if frame.transparency < _DIM), key=lambda frame: frame.transparency)
    if not dim:
        return ""
    named = [f"{frame.path.name} {percent_text(100 * (1 - frame.transparency), '.0f')}" for frame in dim[:_LISTED]]
    more = f" and {len(dim) - _LISTED} more" if len(dim) > _LISTED else ""
    share = max(1, math.floor(100 * (len(used) - len(dim)) / len(used)))
    return (
        f"light lost (clouds?), against the clearest frame: {', '.join(named)}{more}; "
        f"--keep-best {share}% leaves out as many of the worst frames"
    )


def select_frames(frames: Sequence[PreparedFrame], options: PrepareOptions) -> list[PreparedFrame]:
    """Drop frames by their stars' width and by the part that is to be kept; raise where nothing is left."""
    chosen = list(frames)
    if options.max_fwhm is not None:
        chosen = [
            replace(frame, dropped=f"FWHM {frame.fwhm:.2f} px; at most {options.max_fwhm:g} was asked for")
            if not frame.dropped and frame.fwhm > options.max_fwhm
            else frame
            for frame in chosen
        ]
        if all(frame.dropped for frame in chosen) and not all(frame.dropped for frame in frames):
            sharpest = min(frame.fwhm for frame in frames if not frame.dropped)
            raise InvalidInputError(
                f"no frame is left: the sharpest has a FWHM of {sharpest:.2f} px; expected at most "
                f"{options.max_fwhm:g}, as asked for"
            )
    if options.keep_best is not None:
        alive = sorted((frame for frame in chosen if not frame.dropped), key=lambda frame: -frame.quality)
        kept = {frame.name for frame in alive[: max(1, round(options.keep_best * len(alive)))]}
        chosen = [
            frame
            if frame.dropped or frame.name in kept
            else replace(frame, dropped=f"not among the best {percent_text(100 * options.keep_best, 'g')}")
            for frame in chosen
        ]
    if all(frame.dropped for frame in chosen):
        raise InvalidInputError(f"no frame is left: {chosen[0].name}: {chosen[0].dropped}; expected at least one")
    return chosen


def with_sky_agreement(
    frames: Sequence[PreparedFrame], boxes: Sequence[npt.NDArray[np.float32]], *, is_strict: bool
) -> list[PreparedFrame]:
    """Return aligned frames with how far their skies, by `box_medians`, disagree; drop those that do if `is_strict`."""
    scatter = sky_scatter(boxes, [frame.flux_scale for frame in frames], [frame.noise for frame in frames])
    typical = float(np.nanmedian(scatter)) if np.isfinite(scatter).any() else 0.0
    agreeing = []
    for frame, value in zip(frames, scatter, strict=True):
        reason = f"its sky differs from the others' by {value:.1f} times the noise of a pixel"
        is_dropped = is_strict and value > max(_SKY_DISAGREES, 5 * typical)
        agreeing.append(replace(frame, sky_agreement=value, dropped=reason if is_dropped else frame.dropped))
    return agreeing
