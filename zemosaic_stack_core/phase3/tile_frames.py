"""The frames of a tile, ready to be stacked: bad ones left out, raw ones registered and resampled."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zemosaic_stack_core.frames.file_frames import probe_frame
from zemosaic_stack_core.frames.group import FrameSource
from zemosaic_stack_core.frames.pixel_rows import FilePool
from zemosaic_stack_core.frames.scratch import ScratchFolder
from zemosaic_stack_core.master.tile import NO_EXTRAS, MasterExtras
from zemosaic_stack_core.phase3.frame_check import FrameChoice, choose_frames
from zemosaic_stack_core.phase3.tile import StackSettings
from zemosaic_stack_core.phase3.tile_record import DroppedFrame
from zemosaic_stack_core.prepare.headers.kinds import calibration_kind
from zemosaic_stack_core.prepare.headers.recognize import refuse_calibration
from zemosaic_stack_core.stacking.result import StackResult

if TYPE_CHECKING:
    from zemosaic_stack_core.prepare.raw_policy import RawPolicy
    from zemosaic_stack_core.prepare.records import PreparedGroup


_LOGGER = logging.getLogger(__name__)


@dataclass(frozen=True)
class TileFrames:
    """The frames of a tile, and how they are to be stacked."""

    choice: FrameChoice
    settings: StackSettings
    # Frames that the tile was to be made of; calibration frames don't count.
    given: int
    # How raw frames were prepared.
    prepared: PreparedGroup | None = None

    def extras(self, result: StackResult) -> MasterExtras:
        """Return what the tile's file says of the preparation."""
        if self.prepared is None or self.prepared.alignment == "none":
            return NO_EXTRAS
        from zemosaic_stack_core.prepare.report import frames_columns, history_lines

        columns = frames_columns(self.prepared, [frame.name for frame in result.frames])
        return MasterExtras(columns=columns, history=history_lines(self.prepared))

    @property
    def sources(self) -> dict[str, FrameSource]:
        """The open frames, by the names that they were given with."""
        raw = {} if self.prepared is None else {str(frame.aligned): frame.name for frame in self.prepared.kept}
        return {raw.get(frame.name, frame.name): frame for frame in self.choice.frames}

    @property
    def details(self) -> dict[str, Any]:
        """What the report says of the preparation."""
        if self.prepared is None:
            return {}
        from zemosaic_stack_core.prepare.report import group_facts

        return {"prepared": group_facts(self.prepared)}


def tile_is_raw(frames: Sequence[Path], policy: RawPolicy | None) -> bool:
    """Return whether a tile's frames are to be prepared, as far as their headers and the options say it."""
    return policy is not None and policy.by_headers(frames).is_raw


def choose_tile_frames(
    frames: Sequence[Path], settings: StackSettings, *, is_raw: bool, cache: Path, scratch: ScratchFolder
) -> TileFrames:
    """Open the frames of a tile, prepared where they are raw; bad ones are left out."""
    choice = choose_frames(frames, scratch=scratch, saturation=settings.saturation, is_raw=is_raw)
    policy = settings.raw_policy
    if not is_raw and policy is not None:
        # By the stars only where a tile is made: what they say of the same files never changes, so that its signature
        # can do without.
        found = policy.by_headers(choice.heads)
        if found.is_open:
            with FilePool() as files:
                found = policy.by_stars(found, choice.heads, files)
            is_raw = found.is_raw
            if found.line:
                _report(found.line)
    if not is_raw and policy is not None:
        refuse_calibration(choice.heads)
    if not is_raw or policy is None or not choice.frames:
        kind = calibration_kind(choice.heads)
        return TileFrames(replace(choice, heads=(), kind=kind), settings, len(frames))
    group = policy.prepare(choice.heads, cache, workers=settings.limits.workers, report=_report)
    dropped = [*choice.dropped, *(DroppedFrame(name=frame.name, reason=frame.dropped) for frame in group.dropped)]
    good = tuple(probe_frame(path, scratch=scratch) for path in group.paths)
    given = len(group.frames) + len(choice.dropped)
    spare = choice.spare + sum(frame.is_spare for frame in group.dropped)
    return TileFrames(FrameChoice(good, tuple(dropped), spare=spare), settings, given, group)


def _report(line: str) -> None:
    """Log a line about the preparation."""
    _LOGGER.info("prepare: %s", line)
