"""Tiles of frames as the telescope wrote them: registered and resampled before they are stacked."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zemosaic_stack_core.frames.file_frames import probe_frame
from zemosaic_stack_core.frames.scratch import ScratchFolder
from zemosaic_stack_core.phase3.frame_check import FrameChoice, choose_frames
from zemosaic_stack_core.phase3.outcome import DroppedFrame
from zemosaic_stack_core.phase3.tile import StackSettings

if TYPE_CHECKING:
    from zemosaic_stack_core.prepare.raw_policy import RawPolicy
    from zemosaic_stack_core.prepare.records import PreparedGroup


_LOGGER = logging.getLogger(__name__)


@dataclass(frozen=True)
class RawChoice:
    """The frames of a tile to stack, and how they were prepared.

    Parameters
    ----------
    choice : FrameChoice
        Good and dropped frames.
    group : PreparedGroup or None
        Of raw frames.
    given : int
        Frames that the tile was to be made of; calibration frames don't count.
    settings : StackSettings
        How to stack: raw frames' levels are matched where nobody asked for anything else.
    """

    choice: FrameChoice
    group: PreparedGroup | None
    given: int
    settings: StackSettings

    @property
    def extras(self) -> dict[str, Any]:
        """What `write_tile` puts into the file besides."""
        if self.group is None or self.group.alignment == "none":
            return {}
        from zemosaic_stack_core.prepare.report import frames_columns, history_lines

        group = self.group
        return {"columns": lambda names: frames_columns(group, names), "history": history_lines(group)}

    @property
    def facts(self) -> dict[str, Any]:
        """What the report says of the preparation."""
        if self.group is None:
            return {}
        from zemosaic_stack_core.prepare.report import group_facts

        return {"prepared": group_facts(self.group)}


def tile_is_raw(frames: Sequence[Path], policy: RawPolicy | None) -> bool:
    """Return whether a tile's frames are to be prepared, as far as their headers and the options say it."""
    return policy is not None and policy.by_headers(frames).is_raw


def choose_tile_frames(
    frames: Sequence[Path], settings: StackSettings, *, is_raw: bool, cache: Path, scratch: ScratchFolder
) -> RawChoice:
    """Open the frames of a tile, prepared where they are raw; bad ones are left out."""
    choice = choose_frames(frames, scratch=scratch, saturation=settings.saturation)
    policy = settings.raw_policy
    paths = [frame.path for frame in choice.frames]
    if not is_raw and policy is not None:
        # By the stars only where a tile is made: what they say of the same files never changes, so that its signature
        # can do without.
        found = policy.by_headers(paths)
        if found.is_open:
            found = policy.by_stars(found, paths)
            is_raw = found.is_raw
            if found.line:
                _LOGGER.info("prepare: %s", found.line)
    if not is_raw or policy is None or not paths:
        return RawChoice(choice, None, len(frames), settings)

    def report(line: str) -> None:
        _LOGGER.info("prepare: %s", line)

    group = policy.prepare(paths, cache, workers=settings.limits.workers, report=report)
    dropped = [*choice.dropped, *(DroppedFrame(name=frame.name, reason=frame.dropped) for frame in group.dropped)]
    good = tuple(probe_frame(path, scratch=scratch) for path in group.paths)
    settings = replace(settings, options=policy.stack_options(settings.options, group))
    return RawChoice(FrameChoice(good, tuple(dropped)), group, len(group.frames) + len(choice.dropped), settings)
