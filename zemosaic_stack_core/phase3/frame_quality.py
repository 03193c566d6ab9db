"""How good each frame of a tile is, stacked or not: gathered from what was measured, and looked at where it was not."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from zemosaic_stack_core.errors import ZemosaicError
from zemosaic_stack_core.frames.cut_frames import read_section
from zemosaic_stack_core.frames.file_frames import probe_frame
from zemosaic_stack_core.frames.group import FrameSource
from zemosaic_stack_core.frames.masks import Section
from zemosaic_stack_core.frames.pixel_rows import FilePool
from zemosaic_stack_core.frames.scratch import ScratchFolder
from zemosaic_stack_core.kernel.rules.centered import MAD_TO_SIGMA
from zemosaic_stack_core.per_frame.star_width import count_and_width
from zemosaic_stack_core.phase3.previews import PicturePlan, frame_picture
from zemosaic_stack_core.phase3.run_plan import TileSpec
from zemosaic_stack_core.phase3.tile_record import DroppedFrame, FrameQuality, FrameUse, TileOutcome, TileRecord
from zemosaic_stack_core.stacking.result import FrameRecord, StackResult, count_empty
from zemosaic_stack_core.system.memory import usable_cores
from zemosaic_stack_core.system.quantities import percent_of

if TYPE_CHECKING:
    from zemosaic_stack_core.prepare.records import PreparedFrame, PreparedGroup

# Rows and columns of the middle of an aligned frame that are looked at: 10 ms of a core, and stars enough.
_LOOK_SIDE = 400
# Frames in a record, of which most was rejected.
_WORST = 5


def frame_qualities(
    result: StackResult,
    dropped: Iterable[DroppedFrame],
    prepared: PreparedGroup | None = None,
    order: Sequence[str] = (),
) -> tuple[FrameQuality, ...]:
    """Return what the stack and the preparation know of each frame, in the order of the names given."""
    pixels = math.prod(result.image.shape[:2])
    raw = {} if prepared is None else {str(frame.aligned): frame for frame in prepared.kept}
    found: dict[str, FrameQuality] = {}
    for frame in () if prepared is None else prepared.frames:
        found[frame.name] = _of_prepared(frame)
    for record in result.frames:
        name = raw[record.name].name if record.name in raw else record.name
        found[name] = _of_record(found.get(name, FrameQuality(name=name)), record, pixels)
    for lost in dropped:
        name = raw[lost.name].name if lost.name in raw else lost.name
        found[name] = replace(found.get(name, FrameQuality(name=name)), dropped=lost.reason)
    places = {name: place for place, name in enumerate(order)}
    return tuple(sorted(found.values(), key=lambda frame: places.get(frame.name, len(places))))


def _of_prepared(frame: PreparedFrame) -> FrameQuality:
    """Return what the preparation knows of a frame."""
    measured: dict[str, Any] = {
        name: _finite(getattr(frame, name))
        for name in ("exposure", "fwhm", "roundness", "sky", "noise", "rotation", "residual")
    }
    return FrameQuality(
        name=frame.name,
        dropped=frame.dropped,
        note=frame.note,
        date=frame.date,
        stars=frame.stars,
        transparency=_finite(100.0 * frame.transparency),
        shift_x=_finite(frame.shift[0]),
        shift_y=_finite(frame.shift[1]),
        **measured,
    )


def _of_record(known: FrameQuality, record: FrameRecord, pixels: int) -> FrameQuality:
    """Return what is known of a frame, and how it fared in a stack of so many pixels."""
    samples = pixels * len(record.missing)
    missing = sum(record.missing)
    facts = record.observing
    start = None if facts is None else facts.start
    return replace(
        known,
        note="; ".join(filter(None, (known.note, record.note))),
        date=known.date or ("" if start is None else start.isoformat()),
        exposure=known.exposure if facts is None or facts.exposure is None else facts.exposure,
        fwhm=_mean(record.fwhm) if known.fwhm is None else known.fwhm,
        sky=_mean(record.sky) if known.sky is None else known.sky,
        noise=_mean(record.noise) if known.noise is None else known.noise,
        weight=_mean(record.weight or (1.0,)),
        rejected_low=percent_of(sum(record.rejected_low), samples - missing),
        rejected_high=percent_of(sum(record.rejected_high), samples - missing),
        missing=percent_of(missing, samples),
    )


def _mean(values: Sequence[float] | None) -> float | None:
    """Return the mean over the channels; None where it is not known."""
    return None if values is None else _finite(float(np.mean(values)))


def _finite(value: float) -> float | None:
    """Return a number that is one."""
    return value if math.isfinite(value) else None


def stack_record(
    spec: TileSpec, outcome: TileOutcome, result: StackResult, frames: tuple[FrameQuality, ...]
) -> TileRecord:
    """Return what a stack says of its tile."""
    shape = result.image.shape
    pixels = math.prod(shape[:2])
    samples = len(result.frames) * pixels * result.channels
    present = samples - sum(sum(frame.missing) for frame in result.frames)
    coverage = result.coverage
    return TileRecord(
        tile_id=spec.tile_id,
        name=spec.name,
        outcome=outcome,
        file=spec.file_name,
        shape=tuple(shape),
        frames_given=len(spec.frames),
        frames_used=len(result.frames),
        rejected_low=percent_of(sum(sum(frame.rejected_low) for frame in result.frames), present),
        rejected_high=percent_of(sum(sum(frame.rejected_high) for frame in result.frames), present),
        coverage_min=0 if coverage is None else int(coverage.min()),
        coverage_max=0 if coverage is None else int(coverage.max()),
        empty_pixels=percent_of(count_empty(result.image), pixels),
        worst_frames=_worst(frames),
        frames=frames,
        backend=result.backend,
        samples=samples,
    )


def _worst(frames: tuple[FrameQuality, ...]) -> tuple[FrameUse, ...]:
    """Return the stacked frames of which most was rejected."""
    uses = [
        FrameUse(
            name=frame.name,
            rejected_low=frame.rejected_low,
            rejected_high=frame.rejected_high or 0.0,
            missing=frame.missing or 0.0,
            weight=1.0 if frame.weight is None else frame.weight,
            note=frame.note,
        )
        for frame in frames
        if frame.rejected_low is not None
    ]
    return tuple(sorted(uses, key=lambda use: -(use.rejected_low + use.rejected_high))[:_WORST])


def look_at_frames(
    frames: Sequence[FrameQuality],
    sources: Mapping[str, FrameSource],
    plan: PicturePlan,
    scratch: ScratchFolder | None = None,
    *,
    workers: int | None = None,
) -> tuple[tuple[FrameQuality, ...], dict[int, str]]:
    """Measure what is not known of frames, and make pictures, the dropped and most rejected ones first.

    `sources` are the open ones by name; of the others the file is opened, and where it can't be there is no picture.
    `workers` is the number of threads, by default that of the cores.
    """

    def rank(place: int) -> tuple[bool, float]:
        frame = frames[place]
        return not frame.dropped, -(frame.rejected_low or 0.0) - (frame.rejected_high or 0.0)

    def look(place: int, side: int) -> tuple[FrameQuality, str]:
        frame = frames[place]
        try:
            source = sources.get(frame.name) or probe_frame(frame.name, scratch=scratch)
            with FilePool(1) as files:
                known = frame if frame.stars is not None else _measured(frame, source, files, plan.has_stars)
                return known, frame_picture(source, side, files) if side else ""
        except (ZemosaicError, OSError):
            return frame, ""

    looked: dict[int, FrameQuality] = {}
    pictures: dict[int, str] = {}
    waiting = sorted(range(len(frames)), key=rank)
    with ThreadPoolExecutor(workers or usable_cores(), thread_name_prefix="look") as pool:
        while waiting:
            # One that can't be read leaves its room to the next.
            room = plan.frames - len(pictures)
            now, waiting = (waiting[:room], waiting[room:]) if room else (waiting, [])
            found = pool.map(partial(look, side=plan.frame if room else 0), now)
            for place, (frame, picture) in zip(now, found, strict=True):
                looked[place] = frame
                if picture:
                    pictures[place] = picture
    return tuple(looked[place] for place in range(len(frames))), pictures


def _measured(frame: FrameQuality, source: FrameSource, files: FilePool, has_stars: bool) -> FrameQuality:
    """Return a frame with the sky, and the stars if wanted, of its middle, where they are not known."""
    if not has_stars and frame.sky is not None:
        return frame
    top, left = max(0, (source.rows - _LOOK_SIDE) // 2), max(0, (source.columns - _LOOK_SIDE) // 2)
    bottom, right = min(source.rows, top + _LOOK_SIDE), min(source.columns, left + _LOOK_SIDE)
    middle = read_section(source, Section(top, bottom, left, right), files)
    coarse = middle[:, ::2, ::2].astype(np.float64)  # a median of 40,000 is as good
    planes = [finite for plane in coarse if (finite := plane[np.isfinite(plane)]).size]
    if not planes:
        return frame
    levels = [float(np.median(plane)) for plane in planes]
    spreads = [float(np.median(np.abs(plane - level))) for plane, level in zip(planes, levels, strict=True)]
    sky, noise = float(np.mean(levels)), MAD_TO_SIGMA * float(np.mean(spreads))
    known = replace(
        frame,
        sky=sky if frame.sky is None else frame.sky,
        noise=noise if frame.noise is None else frame.noise,
    )
    if not has_stars:
        return known
    stars, width = count_and_width(middle[1 if source.channels > 2 else 0])
    return replace(known, stars=stars, fwhm=_finite(width) if frame.fwhm is None else frame.fwhm)
