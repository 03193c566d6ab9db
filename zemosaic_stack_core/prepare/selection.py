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
    widest, part = options.max_fwhm, options.keep_best
    if widest is not None:
        reason = f"px; at most {widest:g} was asked for"
        chosen = [_drop(f, f"FWHM {f.fwhm:.2f} {reason}") if f.fwhm > widest else f for f in chosen]
        if all(frame.dropped for frame in chosen) and not all(frame.dropped for frame in frames):
            sharpest = min(frame.fwhm for frame in frames if not frame.dropped)
            raise InvalidInputError(
                f"no frame is left: the sharpest has a FWHM of {sharpest:.2f} px; expected at most "
                f"{widest:g}, as asked for"
            )
    if part is not None:
        alive = sorted((frame for frame in chosen if not frame.dropped), key=lambda frame: -frame.quality)
        kept = {frame.name for frame in alive[: max(1, round(part * len(alive)))]}
        chosen = [f if f.name in kept else _drop(f, f"not among the best {100 * part:g} %") for f in chosen]
    if all(frame.dropped for frame in chosen):
        raise InvalidInputError(f"no frame is left: {chosen[0].name}: {chosen[0].dropped}; expected at least one")
    return chosen


def _drop(frame: PreparedFrame, reason: str) -> PreparedFrame:
    """Return a frame that is not used although it is good; a reason that it has already stays."""
    return replace(frame, dropped=frame.dropped or reason, is_spare=not frame.dropped or frame.is_spare)


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
        measured = replace(frame, sky_agreement=value)
        agreeing.append(_drop(measured, reason) if is_dropped else measured)
    return agreeing
