"""What a preparation found, for people, for programs, and for the table FRAMES of a master."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from zemosaic_stack_core.prepare.records import PreparedFrame, PreparedGroup
from zemosaic_stack_core.prepare.selection import dimmed_line
from zemosaic_stack_core.system.quantities import percent_text

_COLUMNS = (
    ("NSTARS", "stars", ""),
    ("NMATCH", "matched", ""),
    ("ROTATION", "rotation", "deg"),
    ("PIXSCALE", "scale", ""),
    ("RESIDUAL", "residual", "pix"),
    ("STARFWHM", "fwhm", "pix"),
    ("ROUNDNES", "roundness", ""),
    ("RAWSKY", "sky", ""),
    ("FLUXRAT", "flux_ratio", ""),
    ("TRANSPAR", "transparency", ""),
)


def describe_frame(frame: PreparedFrame) -> str:
    """Return what is known of a frame in one line."""
    parts = [f"{frame.stars} stars"]
    if frame.matched:
        parts.append(f"{frame.matched} matched to {frame.residual:.2f} px")
    if math.isfinite(frame.rotation):
        parts.append(f"shift {frame.shift[0]:+.2f} {frame.shift[1]:+.2f} px")
        parts.append(f"turned {frame.rotation:+.2f} deg, scale {frame.scale:.5f}{', mirrored' * frame.is_mirrored}")
    if math.isfinite(frame.fwhm):
        parts.append(f"FWHM {frame.fwhm:.2f} px, roundness {frame.roundness:.2f}")
    if math.isfinite(frame.sky):
        parts.append(f"sky {frame.sky:.5g}")
    if math.isfinite(frame.transparency):
        parts.append(f"transparency {percent_text(100 * frame.transparency, '.0f')}")
    parts += [f"DROPPED: {frame.dropped}"] * bool(frame.dropped) + [frame.note] * bool(frame.note)
    return f"{frame.path.name}: {'; '.join(parts)}"


def group_facts(group: PreparedGroup) -> dict[str, Any]:
    """Return a preparation as values that JSON has, what is not finite as None."""
    return {
        "alignment": group.alignment,
        "why": group.why,
        "reference": group.reference,
        "canvas": [group.canvas.rows, group.canvas.columns],
        "hot_pixels": group.hot_pixels,
        "calibration": dict(group.masters),
        "levels": group.levels,
        "cache_bytes": group.cache_bytes,
        "from_cache": group.from_cache,
        "seconds": dict(group.seconds),
        "light_lost": dimmed_line(group.frames),
        "frames": [_frame_facts(frame) for frame in group.frames],
    }


def _frame_facts(frame: PreparedFrame) -> dict[str, Any]:
    """Return what is known of a frame."""
    names = (
        *("stars", "matched", "rotation", "scale", "is_mirrored", "residual", "fwhm", "roundness", "sky", "noise"),
        *("flux_ratio", "transparency", "sky_agreement", "exposure", "date", "dropped", "note"),
    )
    facts: dict[str, Any] = {"name": frame.name, "aligned": None if frame.aligned is None else str(frame.aligned)}
    facts["shift"] = [_finite(value) for value in frame.shift]
    return facts | {name: _finite(getattr(frame, name)) for name in names}


def _finite(value: Any) -> Any:
    """Return a value that JSON has."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def frames_columns(group: PreparedGroup, names: Sequence[str]) -> Mapping[str, tuple[str, Sequence[Any]]]:
    """Return more columns for the table FRAMES, name to unit and values, of the aligned files `names`."""
    by_file = {str(frame.aligned): frame for frame in group.kept}
    frames = [by_file[name] for name in names]
    columns: dict[str, tuple[str, Sequence[Any]]] = {"RAWFILE": ("", [frame.name for frame in frames])}
    for axis, name in enumerate(("SHIFTX", "SHIFTY")):
        columns[name] = ("pix", [frame.shift[axis] for frame in frames])
    for name, field, unit in _COLUMNS:
        columns[name] = (unit, [getattr(frame, field) for frame in frames])
    return columns


def history_lines(group: PreparedGroup) -> list[str]:
    """Return what a master's header says of the preparation, in ASCII: how, and which frames were dropped and why."""
    lines = [f"prepared: aligned by {group.alignment} ({group.why}) on {Path(group.reference).name}"]
    lines += [f"dropped {frame.path.name}: {frame.dropped}" for frame in group.dropped]
    return [ascii(line)[1:-1] for line in lines]
