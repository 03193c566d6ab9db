"""What was given: lights and calibration frames told apart, what they have in common, what preparing them needs."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from zemosaic_stack_core.errors import InvalidInputError
from zemosaic_stack_core.frames.heads import FrameFile
from zemosaic_stack_core.prepare.cache import aligned_bytes
from zemosaic_stack_core.prepare.canvas.geometry import Canvas, union_canvas
from zemosaic_stack_core.prepare.canvas.wcs import border_points
from zemosaic_stack_core.prepare.headers.kinds import kind_by_parent
from zemosaic_stack_core.prepare.headers.raw_frame import RawFrame, inspect_frame
from zemosaic_stack_core.prepare.headers.sensor_facts import is_same
from zemosaic_stack_core.prepare.options import NAMED_KINDS, PrepareOptions
from zemosaic_stack_core.system.quantities import size_text

# Kinds of calibration frames, and what several are called.
_CALIBRATION = {"dark": "darks", "flat": "flats", "bias": "biases"}


@dataclass(frozen=True)
class FrameSet:
    """Lights, and the calibration frames for them."""

    lights: list[RawFrame]
    calibration: list[RawFrame]

    def of_kind(self, kind: str) -> list[RawFrame]:
        """Return the calibration frames of a kind; darks of flats are darks."""
        return [frame for frame in self.calibration if frame.kind.removesuffix(" flat") == kind]

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of the first light; raise, naming two, where others differ and not all have a WCS."""
        first, *others = self.lights
        may_differ = all(frame.wcs_header is not None for frame in self.lights)
        for frame in others:
            if (frame.shape != first.shape and not may_differ) or frame.channels != first.channels:
                raise InvalidInputError(
                    f"{frame.name} is {frame.rows} x {frame.columns} with {frame.channels} channels; "
                    f"expected {first.rows} x {first.columns} with {first.channels} as in {first.name}"
                )
        return first.shape

    @property
    def lines(self) -> list[str]:
        """What of the lights' headers is worth knowing: binned mosaics, filters that not all name."""
        lines = []
        binned = [f for f in self.lights if f.pattern is not None and (f.facts.binning or "1 x 1") != "1 x 1"]
        if binned:
            lines.append(
                f"{binned[0].path.name}: binned {binned[0].facts.binning} and Bayer pattern {binned[0].pattern}; "
                "most cameras mix the colors then (--bayer-pattern none takes the frames as mono)"
            )
        sip = [frame for frame in self.lights if frame.has_unnamed_sip]
        if sip:
            lines.append(f"SIP coefficients without -SIP in CTYPE are used ({len(sip)} frames, as {sip[0].path.name})")
        unnamed = [frame for frame in self.lights if frame.facts.filter is None]
        if 0 < len(unnamed) < len(self.lights):
            lines.append(f"{len(unnamed)} of {len(self.lights)} lights name no filter, as {unnamed[0].path.name}")
        cameras = sorted({frame.facts.camera for frame in self.lights if frame.facts.camera is not None})
        if len(cameras) > 1:
            lines.append(f"lights of {len(cameras)} cameras: {', '.join(cameras)}")
        return lines

    @property
    def counts(self) -> str:
        """How many frames of each kind there are, in words."""
        numbers = ((len(self.of_kind(kind)), name) for kind, name in _CALIBRATION.items())
        return ", ".join([f"{len(self.lights)} lights", *(f"{number} {name}" for number, name in numbers if number)])

    def pattern(self, options: PrepareOptions) -> str | None:
        """Return the Bayer pattern that all lights share, None for mono; raise where they don't or it must be asked."""
        lights, asked = self.lights, options.bayer_pattern
        if asked is not None:
            return None if asked == "none" or lights[0].channels != 1 else asked
        for frame in lights:
            if frame.pattern_problem:
                raise InvalidInputError(f"{frame.name}: {frame.pattern_problem}; or say it with --bayer-pattern")
        patterns = {frame.pattern: frame.name for frame in lights}
        if len(patterns) > 1:
            (first, one), (second, other) = list(patterns.items())[:2]
            raise InvalidInputError(
                f"{one} has the Bayer pattern {first} and {other} {second}; expected one, or --bayer-pattern"
            )
        pattern = next(iter(patterns))
        if options.cfa == "drizzle" and pattern is None:
            raise InvalidInputError(f"{lights[0].name}: no Bayer pattern; expected CFA frames for --cfa drizzle")
        return pattern


def inspect_frames(files: Sequence[FrameFile], options: PrepareOptions) -> FrameSet:
    """Read the headers of frames and of the calibration frames that options name; raise where there is no light."""
    named = {
        Path(path).resolve(): replace(inspect_frame(path), kind=kind, says_kind=True)
        for name, kind in NAMED_KINDS.items()
        for path in getattr(options, name)
    }
    by_parent = cache(kind_by_parent)  # thousands of frames lie in one folder
    given = [inspect_frame(file, by_parent) for file in files]
    rest = [frame for frame in given if frame.path.resolve() not in named or frame.kind == "light"]
    given = [*_consistent(rest), *named.values()]
    lights = [frame for frame in given if frame.kind == "light"]
    if not lights:
        raise InvalidInputError(
            f"{len(given)} files, none of them a light; expected at least one (--lights names files that are)"
        )
    _check_filters(lights, options)
    if options.filter is not None:
        lights = [frame for frame in lights if is_same("filter", frame.facts.filter or "", options.filter)]
    lights = [replace(frame, zeros_missing=options.zeros_missing) for frame in lights]
    return FrameSet(lights, [frame for frame in given if frame.kind != "light"])


def _consistent(frames: Sequence[RawFrame]) -> list[RawFrame]:
    """Return frames of which none that is called as another is of another kind than that one's header says."""
    said = {_pattern_of(frame): frame.kind for frame in frames if frame.says_kind}
    return [f if f.says_kind else replace(f, kind=said.get(_pattern_of(f), f.kind)) for f in frames]


def _pattern_of(frame: RawFrame) -> tuple[Path, str]:
    """Return the folder and name of a frame without its numbers."""
    return frame.path.parent, re.sub(r"\d+", "0", frame.path.name.casefold())


def _check_filters(lights: Sequence[RawFrame], options: PrepareOptions) -> None:
    """Raise where lights of several filters would become one master, or none is of the filter asked for."""
    filters: dict[str, int] = {}
    for light in lights:
        name = light.facts.filter
        if name is not None:
            known = next((one for one in filters if is_same("filter", one, name)), name)
            filters[known] = filters.get(known, 0) + 1
    found = ", ".join(f"{name} ({count} frames)" for name, count in filters.items())
    if options.filter is not None:
        if not any(is_same("filter", name, options.filter) for name in filters):
            raise InvalidInputError(f"no light of filter {options.filter} among {found or 'those'}; expected one")
    elif len(filters) > 1:
        first = next(iter(filters))
        raise InvalidInputError(f"lights of several filters: {found}; expected one, as --filter {first} takes")


@dataclass(frozen=True, kw_only=True)
class PrepareForecast:
    """What headers say of raw frames before any work; the fields are those that ``--dry-run --json`` prints."""

    lights: int
    darks: int
    flats: int
    biases: int
    shape: str
    pattern: str
    with_wcs: int
    align: str
    least_disk: str


def forecast_preparation(files: Sequence[FrameFile], options: PrepareOptions) -> PrepareForecast:
    """Return what headers say before any work, and the least disk that it will take; raise as `prepare_frames` does.

    Where every light has a WCS, that tells how large the canvas is; else a frame stands for it.
    """
    require_libraries(options)
    frames = inspect_frames(files, options)
    lights, (rows, columns), pattern = frames.lights, frames.shape, frames.pattern(options)
    is_color = lights[0].channels != 1 or pattern is not None
    canvas = (_canvas_by_wcs(lights) if options.align in ("auto", "wcs") else None) or Canvas(
        rows=rows, columns=columns
    )
    kinds = sum(bool(frames.of_kind(kind)) for kind in _CALIBRATION)
    masters = (4 * kinds + 1) * rows * columns  # and the map of hot pixels
    return PrepareForecast(
        lights=len(lights),
        **{name: len(frames.of_kind(kind)) for kind, name in _CALIBRATION.items()},
        shape=f"{rows} x {columns}",
        pattern=pattern or "none",
        with_wcs=sum(frame.wcs_header is not None for frame in lights),
        align=options.align,
        least_disk=size_text(len(lights) * aligned_bytes(canvas, is_color=is_color) + masters),
    )


def _canvas_by_wcs(lights: Sequence[RawFrame]) -> Canvas | None:
    """Return the canvas on which lights lie by their WCS; None where not all have one that can be used."""
    first, borders = lights[0], []
    for frame in lights:
        if frame.wcs_header is None or first.wcs_header is None:
            return None
        borders.append(border_points(frame.wcs_header, first.wcs_header, frame.rows, frame.columns))
        if not np.isfinite(borders[-1]).all():
            return None
    return union_canvas(borders, first.rows, first.columns)


def require_libraries(options: PrepareOptions) -> None:
    """Raise one line that says what to install where a library is lacking."""
    if options.cfa == "drizzle" and not _is_installed("drizzle"):
        raise InvalidInputError("--cfa drizzle needs drizzle, not installed; expected: python -m pip install drizzle")


def _is_installed(library: str) -> bool:
    """Return whether a library can be imported."""
    try:
        return find_spec(library) is not None
    except ValueError:  # something else stands in its place
        return False
