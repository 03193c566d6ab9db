"""Which frames of a tile are good: each bad one is dropped alone, with its reason."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from zemosaic_stack_core.errors import FrameReadError, InvalidInputError
from zemosaic_stack_core.frames.file_frames import FileFrame, probe_frame
from zemosaic_stack_core.frames.group import check_same_shape
from zemosaic_stack_core.frames.heads import FileHead, read_head
from zemosaic_stack_core.frames.pixel_rows import FilePool
from zemosaic_stack_core.frames.scratch import ScratchFolder
from zemosaic_stack_core.phase3.tile_record import DroppedFrame
from zemosaic_stack_core.prepare.headers.kinds import find_masters, kinds_of
from zemosaic_stack_core.system.quantities import percent_of, percent_text

# A frame is saturated where more than this part of its finite samples is at the saturation level or above.
SATURATED_FRACTION = 0.5
# Samples of a frame that are looked at first: they show whether it is worth reading it whole.
_SAMPLES = 1 << 16
# Samples read at once.
_BAND_SAMPLES = 1 << 21


@dataclass(frozen=True)
class FrameChoice:
    """The good frames of a tile and the others, both in order."""

    # Of one shape; possibly none.
    frames: tuple[FileFrame, ...]
    dropped: tuple[DroppedFrame, ...]
    # Those of the good frames' files; none of frames that were made since.
    heads: tuple[FileHead, ...] = field(default=(), repr=False)
    # So many of the others are no bad frames: fewer were asked for, or they are none.
    spare: int = 0
    # That of calibration frames, which become a master of their kind; empty of lights.
    kind: str = ""


def choose_frames(
    paths: Sequence[Path],
    *,
    scratch: ScratchFolder | None = None,
    saturation: float | None = None,
    is_raw: bool = False,
) -> FrameChoice:
    """Open the frames of a tile and leave out the bad ones.

    Dropped is what can't be read as a frame (missing, cut off, a header without pixels, not an image), what has another
    shape than most of the others (the first's where two shapes are equally frequent), and what has no finite sample or
    is saturated (see `SATURATED_FRACTION`; the level `saturation` is in input units, by default `saturation_level`).
    Lights that are to be prepared may differ in shape where all have a WCS, and calibration frames from them.
    An `OSError` of the scratch folder, where compressed frames are decoded to, passes through: not the frames' fault.
    """
    frames: list[FileFrame] = []
    reasons: dict[int, DroppedFrame] = {}
    places: list[int] = []
    good: list[FileFrame] = []
    with FilePool() as files:
        heads = [read_head(path, files=files) for path in paths]
        masters = find_masters(heads)
        for place, what in masters.items():
            reasons[place] = DroppedFrame(name=heads[place].name, reason=f"{what}; expected a frame")
        for place, head in enumerate(heads):
            if place in reasons:
                continue
            try:
                frames.append(probe_frame(head, scratch=scratch))
                places.append(place)
            except FrameReadError as error:
                reasons[place] = DroppedFrame(name=head.name, reason=_reason(head.path, str(error)))
        free = _free_of_shape([heads[place] for place in places]) if is_raw else [False] * len(places)
        model = _most_frequent_shape([frame for frame, may in zip(frames, free, strict=True) if not may])
        for frame, place, may_differ in zip(frames, places, free, strict=True):
            problem = _problem(frame, frame if model is None or may_differ else model, files, saturation)
            if problem:
                reasons[place] = DroppedFrame(name=frame.name, reason=_reason(frame.path, problem))
            else:
                good.append(frame)
    dropped = tuple(reasons[place] for place in sorted(reasons))
    kept = tuple(head for place, head in enumerate(heads) if place not in reasons)
    return FrameChoice(tuple(good), dropped, kept, spare=len(masters))


def _free_of_shape(heads: Sequence[FileHead]) -> list[bool]:
    """Return which raw frames may have a shape of their own: calibration frames, and lights where all have a WCS."""
    are_lights = [kind in ("", "light") for kind in kinds_of(heads)]
    all_placed = all(head.observing.has_wcs for head, is_light in zip(heads, are_lights, strict=True) if is_light)
    return [all_placed or not is_light for is_light in are_lights]


def saturation_level(frame: FileFrame) -> float:
    """Return where samples are saturated: where a raw file says, at the largest integer, at 65535 of float32."""
    if frame.saturation is not None:
        return frame.saturation
    return float(np.iinfo(frame.dtype).max) if frame.dtype.kind in "iu" else 65535.0


def _reason(path: Path, message: str) -> str:
    """Return a message without the frame's name in front, which stands beside it."""
    return " ".join(message.removeprefix(f"{path}: ").removeprefix(f"{path} ").split())


def _most_frequent_shape(frames: Sequence[FileFrame]) -> FileFrame | None:
    """Return the first frame of the most frequent shape."""
    counts = Counter((frame.rows, frame.columns, frame.channels) for frame in frames)
    if not counts:
        return None
    shape = max(counts, key=lambda shape: counts[shape])  # of equally frequent ones the first that was met
    return next(frame for frame in frames if (frame.rows, frame.columns, frame.channels) == shape)


def _problem(frame: FileFrame, model: FileFrame, files: FilePool, saturation: float | None) -> str:
    """Return what is wrong with a frame, empty where nothing is."""
    try:
        check_same_shape(frame, model)
        level = saturation_level(frame) if saturation is None else saturation
        step = max(1, frame.rows * frame.columns * frame.channels // _SAMPLES)
        finite, saturated = _count(frame, files, level, rows=1, step=step)
        if finite == 0 or saturated > SATURATED_FRACTION * finite:  # then it is worth looking at every pixel
            rows = max(1, _BAND_SAMPLES // (frame.columns * frame.channels))
            finite, saturated = _count(frame, files, level, rows=rows, step=rows)
    except (InvalidInputError, FrameReadError) as error:
        return str(error)
    if finite == 0:
        return "no finite sample; expected an image"
    if saturated > SATURATED_FRACTION * finite:
        part = percent_text(percent_of(saturated, finite), ".3g")
        return f"saturated: {part} of the samples are at {level:g} or above; expected at most half"
    return ""


def _count(frame: FileFrame, files: FilePool, level: float, *, rows: int, step: int) -> tuple[int, int]:
    """Count the finite and the saturated samples of every `step`-th band of `rows` rows."""
    finite = saturated = 0
    buffer: npt.NDArray[np.generic] = np.empty((frame.channels, rows, frame.columns), frame.dtype)
    for start in range(0, frame.rows, step):
        stop = min(start + rows, frame.rows)
        part = buffer[:, : stop - start]
        if stop - start < rows:
            part = np.empty((frame.channels, stop - start, frame.columns), frame.dtype)
        frame.read_rows(start, stop, part, files)
        finite += int(np.count_nonzero(np.isfinite(part))) if part.dtype.kind == "f" else part.size
        saturated += int(np.count_nonzero(part >= level))  # type: ignore[operator]
    return finite, saturated
